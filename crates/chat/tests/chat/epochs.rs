//! Outbox rows are delivered at least once and, across failovers, in any order: the users' rows end the same (H7).

use proptest::prelude::*;
use wk_chat::query::Conversation;
use wk_chat::request::{Inbox, List, SetChange};
use wk_proto::ChannelKey;

use crate::world::{World, group, person, uids};

const USERS: [&str; 3] = ["u1", "u2", "u3"];

#[derive(Clone, Copy, Debug)]
enum Op {
    Add(usize),
    Remove(usize),
    Replace(usize),
    Deny(usize),
    Undeny(usize),
    Say(usize),
    Command(usize),
    Allow(usize),
}

fn op() -> impl Strategy<Value = Op> {
    (0..8usize, 0..USERS.len()).prop_map(|(what, user)| match what {
        0 => Op::Add(user),
        1 => Op::Remove(user),
        2 => Op::Replace(user),
        3 => Op::Deny(user),
        4 => Op::Undeny(user),
        5 => Op::Say(user),
        6 => Op::Command(user),
        _ => Op::Allow(user),
    })
}

/// Runs a history and gives what it owed other slots, in order. Pair rows are delivered in place: their order has its own test.
fn owed(ops: &[Op]) -> Vec<Inbox> {
    let mut w = World::new();
    w.deliver = false;
    let g = group("g1");
    let mut owed = Vec::new();
    for op in ops {
        match *op {
            Op::Add(u) => w.add(&g, &[USERS[u]]),
            Op::Remove(u) => w.remove(&g, &[USERS[u]]),
            Op::Replace(u) => w.members(&g, SetChange::Replace(uids(&[USERS[u]]))),
            Op::Deny(u) => w.list(&g, List::Deny, SetChange::Add(uids(&[USERS[u]]))),
            Op::Undeny(u) => w.list(&g, List::Deny, SetChange::Remove(uids(&[USERS[u]]))),
            Op::Say(u) => {
                w.say(&g, "____system", "x");
                w.say(&pair(u), USERS[u], "x");
            }
            Op::Command(u) => {
                w.command(&g.command(), "____system");
                w.command(&pair(u).command(), USERS[u]);
            }
            Op::Allow(u) => {
                let list = SetChange::Add(uids(&[USERS[(u + 1) % 3]]));
                w.list(&crate::world::own(USERS[u]), List::Allow, list);
            }
        }
        while let Some((_, _, inbox)) = w.outbox.pop_front() {
            match inbox {
                Inbox::Pair { .. } => w.deliver_one(inbox),
                Inbox::Membership { .. } => owed.push(inbox),
            }
        }
    }
    owed
}

fn pair(user: usize) -> ChannelKey {
    person(USERS[user], USERS[(user + 1) % 3])
}

/// The chat parts, and which command parts are open: a closed one is what is left to read, and may be gone already.
type Shown = (ChannelKey, Option<(u64, u64, u64)>, bool);

fn shown(row: Conversation) -> Option<Shown> {
    let chat = row
        .chat
        .then_some((row.read.0, row.deleted.0, row.created.0));
    let open = row.command.is_some_and(|(_, until)| until.0 == 0);
    (chat.is_some() || open).then_some((row.channel, chat, open))
}

fn after(inboxes: impl IntoIterator<Item = Inbox>) -> Vec<Vec<Shown>> {
    let mut w = World::new();
    for inbox in inboxes {
        w.deliver_one(inbox);
    }
    USERS
        .iter()
        .map(|user| {
            let mut rows: Vec<_> = w
                .conversations(user)
                .into_iter()
                .filter_map(shown)
                .collect();
            rows.sort();
            rows
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_ends_the_same(
        ops in proptest::collection::vec(op(), 1..30),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let owed = owed(&ops);
        let expected = after(owed.clone());
        // Some rows early and more than once, in any order; then everything once, newest first.
        let mut deliveries: Vec<_> = if owed.is_empty() {
            Vec::new()
        } else {
            picks.iter().map(|n| n.get(&owed).clone()).collect()
        };
        deliveries.extend(owed.iter().rev().cloned());
        prop_assert_eq!(after(deliveries), expected.clone());
        // And repeated in order, as a new leader does.
        let twice = owed.iter().chain(&owed).cloned();
        prop_assert_eq!(after(twice), expected);
    }
}
