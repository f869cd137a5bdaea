//! Unread counts against a model that knows nothing of rows, over random histories on the real machine and store.
//! `UNREAD_OPS` sets the number of operations.

use std::collections::BTreeMap;

use wk_chat::query::{RecentsOf, unread};
use wk_chat::request::Mark;
use wk_chat::{Answer, Query};
use wk_proto::{ChannelKey, MessageSeq};
use wk_store::Dir;

use crate::world::{SLOTS, World, group, person, uid};

const USERS: [&str; 3] = ["u1", "u2", "u3"];

/// What a user sees, said as simply as possible: messages are a list of senders, marks are counts of messages from the left.
#[derive(Default)]
struct Model {
    messages: BTreeMap<ChannelKey, Vec<usize>>,
    rows: BTreeMap<(usize, ChannelKey), (usize, usize)>,
    members: BTreeMap<(usize, ChannelKey), ()>,
}

impl Model {
    fn last(&self, c: &ChannelKey) -> usize {
        self.messages.get(c).map_or(0, Vec::len)
    }
    fn say(&mut self, user: usize, c: &ChannelKey) {
        self.messages.entry(c.clone()).or_default().push(user);
        if let Some((a, b)) = c.pair() {
            let others = (0..USERS.len()).filter(|&u| [a.as_str(), b.as_str()].contains(&USERS[u]));
            for u in others.collect::<Vec<_>>() {
                if self.last(c) == 1 {
                    let read = usize::from(u == user);
                    let row = self.rows.entry((u, c.clone())).or_default();
                    row.0 = row.0.max(read);
                }
            }
        }
    }
    fn join(&mut self, user: usize, c: &ChannelKey) {
        if self.members.insert((user, c.clone()), ()).is_none() {
            let last = self.last(c);
            let row = self.rows.entry((user, c.clone())).or_default();
            row.0 = row.0.max(last);
        }
    }
    fn leave(&mut self, user: usize, c: &ChannelKey) {
        if self.members.remove(&(user, c.clone())).is_some() {
            self.rows.remove(&(user, c.clone()));
        }
    }
    /// Messages after everything read, hidden, or said by the user himself.
    fn unread(&self, user: usize, c: &ChannelKey) -> Option<u64> {
        let &(read, deleted) = self.rows.get(&(user, c.clone()))?;
        let all = self.messages.get(c).map_or(&[][..], |m| m);
        let seen = all.iter().rev().take_while(|&&from| from != user).count();
        let rest = all.iter().skip(read.max(deleted)).count();
        Some(seen.min(rest) as u64)
    }
}

/// What conversation/sync computes.
fn counted(w: &World, user: usize, c: &ChannelKey) -> Option<u64> {
    let ask = |query: Query| {
        let view = w.view(query.group(SLOTS));
        query.answer(&view).unwrap()
    };
    let Answer::Conversations(rows) = ask(Query::Conversations {
        uid: uid(USERS[user]),
        limit: usize::MAX,
    }) else {
        panic!("another answer");
    };
    let row = rows.into_iter().find(|row| row.chat && row.channel == *c)?;
    let of = RecentsOf {
        channel: c.clone(),
        uid: uid(USERS[user]),
        from: MessageSeq(0),
        count: 0,
        dir: Dir::Down,
    };
    let Answer::Recents(found) = ask(Query::Recents(vec![of])) else {
        panic!("another answer");
    };
    let head = found[0].head.as_ref();
    let last = head.map_or(MessageSeq(0), |h| h.seq);
    let last_is_own = head.is_some_and(|h| h.from.as_str() == USERS[user]);
    let (count, read) = unread(row.read, row.deleted, last, found[0].own_last, last_is_own);
    assert!(
        read.0 + count == last.0 || count == 0,
        "{read} + {count} is not {last}"
    );
    Some(count)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // SplitMix64: the same history every time.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

#[test]
fn counts_match_the_model() {
    let ops = std::env::var("UNREAD_OPS").map_or(100_000, |n| n.parse().unwrap());
    let histories = (ops / HISTORY).max(2);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..histories / 2).for_each(|seed| run(seed, HISTORY)));
        (histories / 2..histories).for_each(|seed| run(seed, HISTORY));
    });
}

/// Operations of one world.
const HISTORY: u64 = 2_000;

fn run(seed: u64, ops: u64) {
    let mut random = Random(seed);
    let mut w = World::new();
    let mut model = Model::default();
    let channels: Vec<_> = (0..6).map(|n| group(&format!("g{n}"))).collect();
    for step in 0..ops {
        let user = random.below(3) as usize;
        let group = channels[random.below(6) as usize].clone();
        let pair = person(USERS[user], USERS[random.below(3) as usize]);
        let c = if random.below(2) == 0 {
            group.clone()
        } else {
            pair
        };
        let last = model.last(&c);
        let seq = random.below(last as u64 + 1) as usize;
        let key = (user, c.clone());
        match random.below(12) {
            0 => {
                w.add(&group, &[USERS[user]]);
                model.join(user, &group);
            }
            1 => {
                w.remove(&group, &[USERS[user]]);
                model.leave(user, &group);
            }
            2 => {
                w.mark(USERS[user], &c, Mark::Read(MessageSeq(seq as u64)));
                if seq > 0 {
                    let row = model.rows.entry(key).or_default();
                    row.0 = row.0.max(seq);
                }
            }
            3 if last > 0 => {
                w.mark(USERS[user], &c, Mark::Unread(MessageSeq(seq as u64)));
                model.rows.entry(key).or_default().0 = seq;
            }
            4 => {
                w.mark(USERS[user], &c, Mark::Deleted(MessageSeq(last as u64)));
                if let Some(row) = model.rows.get_mut(&key) {
                    row.1 = last;
                }
            }
            _ => {
                if c.pair().is_some() || model.members.contains_key(&key) {
                    w.say(&c, USERS[user], "x");
                    model.say(user, &c);
                }
            }
        }
        let reader = random.below(3) as usize;
        let expected = model.unread(reader, &c);
        assert_eq!(counted(&w, reader, &c), expected, "seed {seed} step {step}");
    }
}

#[test]
fn the_rule_in_single_cases() {
    let seq = MessageSeq;
    for (read, deleted, last, own, last_is_own, expected) in [
        (0, 0, 0, 0, false, (0, 0)),
        (2, 0, 5, 0, false, (3, 2)),
        (2, 4, 5, 0, false, (1, 4)),
        (2, 0, 5, 4, false, (1, 4)),
        (4, 0, 5, 2, false, (1, 4)),
        (9, 0, 5, 0, false, (0, 9)),
        (0, 0, 5, 5, true, (0, 5)),
        // The own last seq may be unknown; the newest message tells enough.
        (0, 0, 5, 0, true, (0, 5)),
    ] {
        let (count, position) = unread(seq(read), seq(deleted), seq(last), seq(own), last_is_own);
        assert_eq!((count, position.0), expected);
    }
}
