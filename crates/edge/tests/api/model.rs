//! Random histories against the smallest model of conversations: unread counts, read positions, deletion and order must agree at every
//! look.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::host::Host;

const USERS: [&str; 3] = ["u0", "u1", "u2"];
const GROUPS: [&str; 2] = ["g0", "g1"];

/// As a user names it: (id, type).
type Name = (String, u8);

#[derive(Clone, Default)]
struct Row {
    read: u64,
    deleted: u64,
}

#[derive(Default)]
struct Channel {
    /// Senders, by seq − 1.
    senders: Vec<usize>,
    /// When the newest message was sent, in steps.
    newest: usize,
}

#[derive(Default)]
struct Model {
    channels: BTreeMap<String, Channel>,
    rows: BTreeMap<(usize, String), Row>,
}

impl Model {
    /// What a channel is called whoever looks.
    fn key(user: usize, name: &Name) -> String {
        if name.1 == 2 {
            return name.0.clone();
        }
        let mut pair = [USERS[user], name.0.as_str()];
        pair.sort_unstable();
        pair.join("@")
    }

    fn last(&self, key: &str) -> u64 {
        self.channels.get(key).map_or(0, |c| c.senders.len() as u64)
    }

    fn own_last(&self, user: usize, key: &str) -> u64 {
        let senders = &self.channels[key].senders;
        let position = senders.iter().rposition(|&s| s == user);
        position.map_or(0, |p| p as u64 + 1)
    }

    /// The list of `user`: (id, unread, last seq, read position, seqs of two recents).
    fn list(&self, user: usize) -> Vec<Value> {
        let names = names(user);
        let shown = names.iter().filter_map(|name| {
            let key = Self::key(user, name);
            let last = self.last(&key);
            let row = self
                .rows
                .get(&(user, key.clone()))
                .cloned()
                .unwrap_or_default();
            if last <= row.deleted {
                return None;
            }
            let own = self.own_last(user, &key);
            let read = row.read.max(row.deleted).max(own);
            let recents: Vec<u64> = (row.deleted + 1..=last).rev().take(2).collect();
            let value = json!([name.0, last.saturating_sub(read), last, read, recents]);
            Some((self.channels[&key].newest, value))
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by_key(|(newest, _)| std::cmp::Reverse(*newest));
        shown.into_iter().map(|(_, value)| value).collect()
    }
}

fn names(user: usize) -> Vec<Name> {
    let peers = USERS.iter().filter(|peer| **peer != USERS[user]);
    let persons = peers.map(|peer| (peer.to_string(), 1));
    persons
        .chain(GROUPS.map(|group| (group.to_owned(), 2)))
        .collect()
}

fn shown(list: &Value) -> Vec<Value> {
    let conversations = list.as_array().unwrap().iter();
    conversations
        .map(|c| {
            let recents = c["recents"].as_array().unwrap().iter();
            let seqs: Vec<_> = recents.map(|m| m["message_seq"].clone()).collect();
            json!([
                c["channel_id"],
                c["unread"],
                c["last_msg_seq"],
                c["readed_to_msg_seq"],
                seqs
            ])
        })
        .collect()
}

/// A sequence that only depends on its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

async fn step(host: &Host, model: &mut Model, dice: &mut Dice, at: usize) -> String {
    let user = dice.roll(USERS.len());
    let names = names(user);
    let name = &names[dice.roll(names.len())];
    let key = Model::key(user, name);
    let last = model.last(&key);
    let mut body = json!({"uid": USERS[user], "channel_id": name.0, "channel_type": name.1});
    let row = (user, key.clone());
    match dice.roll(8) {
        0 => {
            host.post("/conversations/clearUnread", body).await;
            let row = model.rows.entry(row).or_default();
            row.read = row.read.max(last);
            format!("{user} reads {key}")
        }
        1 => {
            let unread = dice.roll(5) as u64;
            body["unread"] = json!(unread);
            host.post("/conversations/setUnread", body).await;
            if last > 0 {
                model.rows.entry(row).or_default().read = last.saturating_sub(unread);
            }
            format!("{user} leaves {unread} of {key}")
        }
        2 => {
            host.post("/conversations/delete", body).await;
            model.rows.entry(row).or_default().deleted = last;
            format!("{user} deletes {key}")
        }
        _ => {
            let seq = host
                .say(USERS[user], &name.0, name.1, &at.to_string())
                .await;
            assert_eq!(seq, last + 1);
            let channel = model.channels.entry(key.clone()).or_default();
            channel.senders.push(user);
            channel.newest = at;
            format!("{user} says {seq} in {key}")
        }
    }
}

async fn history(seed: u64) {
    const STEPS: usize = 60;
    let host = Host::start().await;
    for group in GROUPS {
        let create = json!({"channel_id": group, "channel_type": 2, "subscribers": USERS});
        host.post("/channel", create).await;
    }
    let (mut model, mut dice) = (Model::default(), Dice(seed));
    let mut done = Vec::new();
    for at in 0..STEPS {
        done.push(step(&host, &mut model, &mut dice, at).await);
        for (user, uid) in USERS.iter().enumerate() {
            let body = json!({"uid": uid, "msg_count": 2});
            let list = host.post("/conversation/sync", body).await;
            let (found, expected) = (shown(&list), model.list(user));
            assert_eq!(found, expected, "seed {seed}, {uid} after {done:#?}");
        }
    }
    host.stop().await;
}

#[tokio::test]
async fn random_histories_agree_with_the_model() {
    for seed in 1..=4 {
        history(seed).await;
    }
}
