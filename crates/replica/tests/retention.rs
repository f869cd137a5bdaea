//! How long the WAL keeps entries: until every voter has them, on every replica, for any of them may be the next leader.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::work::{accepted, info, send};
use harness::{Plan, World, replica_id, slots};
use wk_chat::Request;
use wk_proto::{MessageSeq, NodeId};

/// More than a member keeps in memory.
const MESSAGES: u64 = 12;
const BYTES: usize = 600 * 1024;

fn kept(world: &World, node: NodeId) -> usize {
    let slot = slots(&world.plan).next().expect("it has one");
    let wal = &world.nodes[&node].wal;
    wal.recovered(replica_id(slot, node)).entries.len()
}

fn head(world: &World, node: NodeId) -> Option<MessageSeq> {
    let slot = slots(&world.plan).next().expect("it has one");
    let view = world.shard(node).view(slot).expect("it is here");
    view.head(&info("news"))
        .expect("readable")
        .map(|head| head.seq)
}

#[test]
fn a_follower_that_becomes_leader_can_serve_who_was_behind() {
    let mut world = World::new(Plan::new(3, 1, 21));
    let old = world.elect();
    let [slow, next] = world.others(old)[..] else {
        panic!("three nodes");
    };
    world.crash(slow);
    let mut request = send(&info("news"), "ann", "");
    request.payload = vec![0; BYTES].into();
    for n in 0..MESSAGES {
        request.client_msg_no = n.to_string().into();
        let ticket = world.call(old, Request::Send(request.clone().into()));
        accepted(&world.result(ticket).unwrap());
    }
    world.run(1_000);
    for _ in 0..2 {
        world.checkpoint(next);
        world.run(10);
    }
    world.crash(old);
    world.start(slow);
    assert_eq!(world.elect(), next);
    world.run(5_000);
    assert_eq!(head(&world, slow), Some(MessageSeq(MESSAGES)));

    world.start(old);
    world.run(5_000);
    for node in [old, slow, next] {
        world.checkpoint(node);
        world.run(10);
        let kept = kept(&world, node);
        assert!(kept <= 3, "all voters have them: {kept} at {node}");
    }
}
