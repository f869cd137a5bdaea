//! `POST /message/send` over kept connections, each waiting for its answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::books::{Balance, Books};
use super::histogram::Histogram;
use super::report::{Latency, Meter, Row};
use super::{Common, Target, process, store};
use crate::http_client::{Answer, Api};

/// Channels of each connection, used in turn.
const CHANNELS_EACH: usize = 16;

#[derive(Default)]
struct Counts {
    tried: u64,
    done: u64,
    wrong: u64,
    why: Option<String>,
    latency: Histogram,
}

/// `conns` connections, for as long as the run lasts. The sender of each message is a user of its own, the receiver offline.
pub async fn run(common: &Common, target: &Target, conns: usize) -> Result<Row> {
    process::allow_sockets(conns)?;
    let counts = Rc::new(RefCell::new(Counts::default()));
    let run = common.run_name();
    // Only for the list of channels and their stored seqs.
    let mut books = Books::new(0, 0);
    let end = Instant::now() + Duration::from_secs_f64(common.seconds);
    let meter = Meter::start(target, 0);
    let mut tasks = JoinSet::new();
    for conn in 0..conns {
        let mut bodies = Vec::new();
        for i in 0..CHANNELS_EACH {
            let (from, to) = (format!("{run}f{conn}"), format!("{run}t{conn}-{i}"));
            bodies.push(body(&from, &to, common.payload));
            books.channel(to, 1, from);
        }
        tasks.spawn_local(post_until(end, target.api.clone(), bodies, counts.clone()));
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    let measured = meter.stop(target, counts.borrow().done);
    let stored: u64 = store::newest_seqs(target, books.channels())
        .await?
        .iter()
        .sum();
    let counts = counts.borrow();
    if let Some(why) = &counts.why {
        eprintln!("bench: an answer was wrong: {why}");
    }
    let difference = stored.abs_diff(counts.done);
    let faults = [
        ("wrong answers", counts.wrong),
        ("differences of answers and store", difference),
    ];
    let faults = faults.into_iter().filter(|f| f.1 > 0).collect();
    Ok(Row {
        name: "http",
        unit: "messages",
        parameters: json!({"conns": conns, "payload": common.payload}),
        measured,
        latencies: vec![("answer", Latency::of(&counts.latency))],
        balance: Balance::of_operations(counts.tried, Some(stored), faults),
        encrypted: None,
        varz: None,
    })
}

fn body(from: &str, to: &str, payload: usize) -> Vec<u8> {
    json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
        "from_uid": from, "channel_id": to, "channel_type": 1,
        "payload": STANDARD.encode(vec![b'x'; payload]),
    })
    .to_string()
    .into_bytes()
}

async fn post_until(
    end: Instant,
    api: Api,
    bodies: Vec<Vec<u8>>,
    counts: Rc<RefCell<Counts>>,
) -> Result<()> {
    ensure!(!bodies.is_empty(), "a connection has channels");
    let mut http = api.connect().await?;
    for body in bodies.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        counts.borrow_mut().tried += 1;
        let start = Instant::now();
        let answer = http.request("POST", "/message/send", body).await?;
        counts.borrow_mut().enter(start.elapsed(), &answer);
    }
    Ok(())
}

impl Counts {
    fn enter(&mut self, took: Duration, answer: &Answer) {
        if is_success(answer) {
            self.done += 1;
            self.latency.add(took.as_nanos() as u64);
        } else {
            self.wrong += 1;
            let text = || {
                format!(
                    "{} {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.body)
                )
            };
            self.why.get_or_insert_with(text);
        }
    }
}

/// v2 tells no reason; ours does (H37).
fn is_success(answer: &Answer) -> bool {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    answer.status == 200 && value["data"]["reason"].as_u64().is_none_or(|r| r == 1)
}
