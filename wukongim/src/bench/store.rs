//! What the store has, as the HTTP API tells.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinSet;

use super::Target;
use super::books::Channel;

/// Messages of a history read at once.
const PAGE: usize = 1_000;
/// Requests at once.
const PARALLEL: usize = 8;

/// The newest seq of every channel; seqs have no gaps, so it is the number of its messages.
pub async fn newest_seqs(target: &Target, channels: &[Channel]) -> Result<Vec<u64>> {
    let share = channels.len().div_ceil(PARALLEL).max(1);
    let mut tasks = JoinSet::new();
    for (part, some) in channels.chunks(share).enumerate() {
        let paths: Vec<String> = some.iter().map(path).collect();
        let api = target.api.clone();
        tasks.spawn_local(async move {
            let mut http = api.connect().await?;
            let mut seqs = Vec::with_capacity(paths.len());
            for path in paths {
                let answer = http.request("GET", &path, b"").await?;
                seqs.push(newest(&answer.body).with_context(|| {
                    format!("GET {path}: {}", String::from_utf8_lossy(&answer.body))
                })?);
            }
            Ok::<_, anyhow::Error>((part, seqs))
        });
    }
    let mut parts = Vec::new();
    while let Some(part) = tasks.join_next().await {
        parts.push(part??);
    }
    parts.sort();
    Ok(parts.into_iter().flat_map(|(_, seqs)| seqs).collect())
}

/// The whole history of a channel as (seq, client_msg_no), in the order of the store.
pub async fn history(target: &Target, channel: &Channel) -> Result<Vec<(u64, String)>> {
    let mut http = target.api.connect().await?;
    let mut all: Vec<(u64, String)> = Vec::new();
    loop {
        let from = all.last().map_or(1, |(seq, _)| seq + 1);
        let body = json!({
            "login_uid": channel.login, "channel_id": channel.id, "channel_type": channel.kind,
            "start_message_seq": from, "end_message_seq": 0, "limit": PAGE, "pull_mode": 1,
        });
        let answer = http.post("/channel/messagesync", &body).await?;
        let page = answer["messages"]
            .as_array()
            .context("no messages in the answer")?;
        for message in page {
            let seq = message["message_seq"].as_u64().unwrap_or_default();
            let number = message["client_msg_no"].as_str().unwrap_or_default();
            ensure!(seq >= from, "the history of {} goes backwards", channel.id);
            all.push((seq, number.to_owned()));
        }
        if page.is_empty() {
            return Ok(all);
        }
    }
}

fn path(channel: &Channel) -> String {
    let Channel {
        id, kind, login, ..
    } = channel;
    format!("/channel/max_message_seq?channel_id={id}&channel_type={kind}&login_uid={login}")
}

/// v2 answers 400 `not found` for a channel without messages.
fn newest(body: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    if value["msg"]
        .as_str()
        .is_some_and(|m| m.contains("not found"))
    {
        return Some(0);
    }
    value["message_seq"].as_u64()
}
