//! A leader removes what time made superfluous (D20).

mod harness;

use harness::work::{join, uid};
use harness::{Plan, World, slots};
use wk_chat::{Answer, Policy, Query, Reply};
use wk_proto::{ChannelId, ChannelKey, ChannelType, GroupId, NodeId};

/// Pause between sweeps, in ms.
const MINUTE_MS: u64 = 60_000;

fn temporary() -> ChannelKey {
    ChannelKey::new(ChannelId::trusted("list"), ChannelType::TEMP)
}

/// Temporary channels are kept for a second; all channels are in one slot.
fn plan(nodes: u32) -> Plan {
    let plan = Plan::new(nodes, 1, 1);
    let policy = Policy {
        temp_retention_ms: 1_000,
        ..plan.policy.clone()
    };
    Plan { policy, ..plan }
}

fn add(world: &mut World, leader: NodeId, users: std::ops::Range<usize>) {
    let names: Vec<_> = users.map(|n| format!("u{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let ticket = world.call(leader, join(&temporary(), &names));
    assert_eq!(world.result(ticket), Ok(Reply::Done));
}

fn group(world: &World) -> GroupId {
    slots(&world.plan).next().expect("one slot")
}

/// As one replica sees it.
fn members(world: &World, node: NodeId) -> usize {
    let view = world.shard(node).view(group(world)).expect("it is here");
    let query = Query::Members {
        channel: temporary(),
        after: None,
        limit: 10_000,
    };
    match query.answer(&view).expect("readable") {
        Answer::Uids(uids, false) => uids.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_replica_forgets_an_unused_temporary_channel() {
    let mut world = World::new(plan(3));
    let leader = world.elect();
    add(&mut world, leader, 0..3);
    world.run(500);
    let nodes: Vec<_> = world.nodes.keys().copied().collect();
    assert!(nodes.iter().all(|n| members(&world, *n) == 3));
    world.run(2 * MINUTE_MS);
    assert!(nodes.iter().all(|n| members(&world, *n) == 0));
    let query = Query::Conversations {
        uid: uid("u1"),
        limit: 10,
    };
    assert_eq!(
        world.query(leader, query),
        Ok(Answer::Conversations(Vec::new()))
    );
}

#[test]
fn a_minute_passes_between_two_sweeps() {
    let mut world = World::new(plan(1));
    let leader = world.elect();
    add(&mut world, leader, 0..1_000);
    add(&mut world, leader, 1_000..2_000);
    let mut swept_at = Vec::new();
    let mut left = members(&world, leader);
    assert_eq!(left, 2_000);
    while left > 0 {
        world.run(1_000);
        let now = members(&world, leader);
        if now < left {
            swept_at.push(world.now.0 / 1_000);
        }
        left = now;
        assert!(world.now.0 / 1_000 < 20 * MINUTE_MS, "{left} are left");
    }
    assert!(swept_at.len() > 1, "bounded work at a time");
    let pauses = swept_at.windows(2).map(|w| w[1] - w[0]);
    let pauses: Vec<_> = pauses.collect();
    assert!(
        pauses.iter().all(|ms| *ms >= MINUTE_MS - 1_000),
        "{pauses:?}"
    );
}

#[test]
fn without_anything_to_remove_nothing_is_logged() {
    let mut world = World::new(plan(1));
    let leader = world.elect();
    world.run(1_000);
    let applied = |w: &World| {
        w.shard(leader)
            .view(group(w))
            .expect("it is here")
            .applied()
    };
    let before = applied(&world);
    world.run(3 * MINUTE_MS);
    assert_eq!(applied(&world), before);
}
