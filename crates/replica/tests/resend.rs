//! Messages that come again: the second copy is answered as the first one was, whatever happened in between (H33).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::work::{accepted, group, join, leave, send, send_call};
use harness::{Plan, Trace, World};
use wk_chat::{Reply, Request};
use wk_proto::{NodeId, Reason, Ticket};

const ONE: NodeId = NodeId(1);

fn done(world: &mut World, ticket: Ticket) {
    assert_eq!(world.result(ticket), Ok(Reply::Done));
}

fn refused(world: &mut World, request: Request) {
    let ticket = world.call(ONE, request);
    match world.result(ticket) {
        Ok(Reply::Sent(result)) => assert_eq!(result.reason, Reason::SubscriberNotExist),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_was_removed_meanwhile_is_told_what_became_of_the_first_copy() {
    let mut plan = Plan::new(1, 1, 1);
    plan.policy.dedupe_window_ms = 1_000;
    let mut world = World::new(plan);
    world.elect();
    let team = group("team");
    let ticket = world.call(ONE, join(&team, &["ann"]));
    done(&mut world, ticket);
    let ticket = world.call(ONE, send_call(&team, "ann", "1"));
    let first = accepted(&world.result(ticket).unwrap());
    let ticket = world.call(ONE, leave(&team, &["ann"]));
    done(&mut world, ticket);

    let ticket = world.call(ONE, send_call(&team, "ann", "1"));
    assert_eq!(accepted(&world.result(ticket).unwrap()), first);
    refused(&mut world, send_call(&team, "ann", "2"));
    let mut other = send(&team, "ann", "1");
    other.payload = "not a copy".into();
    refused(&mut world, Request::Send(other.into()));
    world.run(2_000);
    refused(&mut world, send_call(&team, "ann", "1"));
}

#[test]
fn a_refusal_waits_for_a_first_copy_that_is_still_on_its_way() {
    let mut world = World::new(Plan::new(1, 1, 2));
    world.elect();
    let team = group("team");
    let ticket = world.call(ONE, join(&team, &["ann"]));
    done(&mut world, ticket);
    world.run(100);
    world.trace.clear();
    // Two batches, one fsync after the other: the message was decided before the removal was applied, and is applied after it.
    let removal = world.call(ONE, leave(&team, &["ann"]));
    let first = world.call(ONE, send_call(&team, "ann", "1"));
    let synced = |w: &World| w.trace.iter().any(|t| matches!(t, Trace::Synced(..)));
    assert!(world.run_until(100, synced));
    assert!(!world.replies.contains_key(&first));
    let second = world.call(ONE, send_call(&team, "ann", "1"));
    let second = accepted(&world.result(second).unwrap());
    assert_eq!(accepted(&world.result(first).unwrap()), second);
    done(&mut world, removal);
}
