//! One node, one voter a group: a cluster of one.

mod harness;

use harness::work::{accepted, info, send_call};
use harness::{Plan, Trace, World};
use wk_proto::{GroupId, MessageSeq, NodeId, SlotId};

const ONE: NodeId = NodeId(1);
const SLOT: GroupId = GroupId::Slot(SlotId(0));

fn world() -> World {
    World::new(Plan::new(1, 1, 7))
}

#[test]
fn leads_at_once_and_is_ready_after_one_fsync() {
    let mut world = world();
    assert_eq!(world.leader(SLOT), Some(ONE));
    let ready = |w: &World| w.nodes[&ONE].shard.as_ref().unwrap().led() == (1, 1);
    assert!(!ready(&world), "its first entry is not durable yet");
    assert!(world.run_until(5, ready));
}

#[test]
fn a_message_is_acknowledged_after_its_fsync_and_not_before() {
    let mut world = world();
    world.run(10);
    world.trace.clear();
    let ticket = world.call(ONE, send_call(&info("news"), "ann", "1"));
    let result = accepted(&world.result(ticket).unwrap());
    assert_eq!(result.message_seq, MessageSeq(1));
    let kinds: Vec<&str> = world
        .trace
        .iter()
        .map(|t| match t {
            Trace::Written(..) => "written",
            Trace::Synced(..) => "synced",
            Trace::Committed(..) => "committed",
            Trace::Reply(..) => "reply",
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["written", "synced", "committed", "reply"]);
}
