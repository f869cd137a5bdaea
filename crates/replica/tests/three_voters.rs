//! Three nodes: replication, failover, and what a deposed leader may say.

mod harness;

use harness::work::{accepted, history_query, info, send_call};
use harness::{Plan, Trace, World};
use wk_chat::Reply;
use wk_chat::request::{CallError, Why};
use wk_proto::{MessageSeq, NodeId, Term, Ticket};
use wk_replica::Input;

fn world(seed: u64) -> World {
    World::new(Plan::new(3, 1, seed))
}

fn numbers(world: &mut World, at: NodeId) -> Vec<String> {
    let history = world.history(at, &info("news"));
    history
        .iter()
        .map(|m| m.record.client_msg_no().to_owned())
        .collect()
}

#[test]
fn a_message_is_acknowledged_after_a_majority_synced_it() {
    let mut world = world(1);
    let leader = world.elect();
    for other in world.others(leader) {
        world.node(other).sync_us = 50_000;
    }
    let begin = world.now;
    let ticket = world.call(leader, send_call(&info("news"), "ann", "1"));
    let result = accepted(&world.result(ticket).unwrap());
    assert_eq!(result.message_seq, MessageSeq(1));
    let waited = world.now.since(begin);
    assert!(
        waited >= 50_000,
        "followers need 50 ms to sync, the ack came after {waited} µs"
    );
    assert!(
        waited < 60_000,
        "leader and followers sync at the same time: {waited} µs"
    );
}

#[test]
fn a_slow_disk_of_the_leader_does_not_delay_replication_but_its_own_apply() {
    let mut world = world(2);
    let leader = world.elect();
    world.node(leader).sync_us = 30_000;
    let begin = world.now;
    let ticket = world.call(leader, send_call(&info("news"), "ann", "1"));
    accepted(&world.result(ticket).unwrap());
    assert!(
        world.now.since(begin) >= 30_000,
        "it applies what it has durably only"
    );
}

#[test]
fn acknowledged_messages_survive_the_leader() {
    let mut world = world(3);
    let first = world.elect();
    let tickets: Vec<Ticket> = (0..20)
        .map(|n| world.call(first, send_call(&info("news"), "ann", &n.to_string())))
        .collect();
    for ticket in tickets {
        accepted(&world.result(ticket).unwrap());
    }
    world.crash(first);
    let second = world.elect();
    assert_ne!(first, second);
    let expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(numbers(&mut world, second), expected);
    let ticket = world.call(second, send_call(&info("news"), "ann", "later"));
    assert_eq!(
        accepted(&world.result(ticket).unwrap()).message_seq,
        MessageSeq(21)
    );
    world.start(first);
    world.run(1_000);
    let view = world.nodes[&first]
        .shard
        .as_ref()
        .unwrap()
        .view(harness::slots(&world.plan).next().unwrap());
    assert_eq!(
        view.unwrap().head(&info("news")).unwrap().unwrap().seq,
        MessageSeq(21),
        "it caught up"
    );
}

#[test]
fn all_nodes_killed_at_once_keep_what_they_acknowledged() {
    let mut world = world(4);
    let leader = world.elect();
    let ticket = world.call(leader, send_call(&info("news"), "ann", "1"));
    accepted(&world.result(ticket).unwrap());
    for n in 1..=3 {
        world.crash(NodeId(n));
    }
    for n in 1..=3 {
        world.start(NodeId(n));
    }
    let leader = world.elect();
    assert_eq!(numbers(&mut world, leader), ["1"]);
}

#[test]
fn a_deposed_leader_answers_no_read_and_acknowledges_nothing() {
    let mut world = world(5);
    let old = world.elect();
    world.net.isolate(old, 3);
    let read = world.call(
        old,
        wk_chat::Request::Query(Box::new(history_query(&info("news")))),
    );
    let sent = world.call(old, send_call(&info("news"), "ann", "lost"));
    let new = loop {
        world.run(50);
        match world.leader(harness::slots(&world.plan).next().unwrap()) {
            Some(leader) if leader != old => break leader,
            _ => {}
        }
    };
    world.run(100);
    let ticket = world.call(new, send_call(&info("news"), "ann", "kept"));
    accepted(&world.result(ticket).unwrap());
    assert!(
        matches!(world.result(read), Err(CallError::NotSent(_))),
        "{:?}",
        world.replies[&read]
    );
    assert!(
        matches!(world.result(sent), Err(CallError::Unknown(_))),
        "{:?}",
        world.replies[&sent]
    );
    world.net.heal();
    world.run(1_000);
    assert_eq!(numbers(&mut world, new), ["kept"]);
}

#[test]
fn a_call_overwritten_by_the_new_leader_is_known_to_have_had_no_effect() {
    let mut world = world(6);
    let old = world.elect();
    world.net.isolate(old, 3);
    let sent = world.call(old, send_call(&info("news"), "ann", "lost"));
    let others = world.others(old);
    let told = |w: &World| {
        others
            .iter()
            .any(|n| w.nodes[n].leaders.values().any(|(_, l)| *l == Some(*n)))
    };
    assert!(world.run_until(5_000, told));
    world.net.heal();
    assert!(
        matches!(world.result(sent), Err(CallError::NotSent(_))),
        "{:?}",
        world.replies[&sent]
    );
}

#[test]
fn a_call_committed_by_the_new_leader_is_answered_by_the_old_one() {
    let mut world = world(7);
    let old = world.elect();
    let others = world.others(old);
    // The followers get the entry, but their acknowledgements do not come back in time.
    for other in &others {
        world.node(*other).sync_us = 400_000;
    }
    let sent = world.call(old, send_call(&info("news"), "ann", "1"));
    world.run(1);
    world.net.isolate(old, 3);
    for other in &others {
        world.node(*other).sync_us = 200;
    }
    let told = |w: &World| {
        others
            .iter()
            .any(|n| w.nodes[n].leaders.values().any(|(_, l)| *l == Some(*n)))
    };
    assert!(world.run_until(5_000, told));
    assert!(!world.replies.contains_key(&sent));
    world.net.heal();
    assert_eq!(
        accepted(&world.result(sent).unwrap()).message_seq,
        MessageSeq(1)
    );
}

#[test]
fn one_seed_is_one_history() {
    let run = |seed| {
        let mut world = world(seed);
        world.net.jitter_us = 900;
        world.net.drop_percent = 5;
        let leader = world.elect();
        for n in 0..10 {
            world.call(leader, send_call(&info("news"), "ann", &n.to_string()));
            world.run(3);
        }
        world.crash(leader);
        world.elect();
        world.trace
    };
    let (a, b, other) = (run(8), run(8), run(9));
    assert_eq!(a, b);
    assert_ne!(a, other);
}

#[test]
fn a_planned_stop_hands_leadership_over_at_once() {
    let mut world = world(10);
    let old = world.elect();
    world.input(old, wk_replica::Input::Drain);
    let begin = world.now;
    let moved =
        |w: &World| w.is_ready() && w.leader(harness::slots(&w.plan).next().unwrap()) != Some(old);
    assert!(world.run_until(1_000, moved));
    assert!(
        world.now.since(begin) < 300_000,
        "without an election timeout"
    );
    let refused = world.call(old, send_call(&info("news"), "ann", "1"));
    assert!(matches!(world.result(refused), Err(CallError::NotSent(_))));
}

#[test]
fn refusals_and_unstored_messages_need_a_proof_of_leadership() {
    let mut world = world(11);
    let leader = world.elect();
    let others = world.others(leader);
    let stranger = harness::work::group("closed");
    let refused = world.call(leader, send_call(&stranger, "eve", "1"));
    match world.result(refused).unwrap() {
        Reply::Sent(result) => assert_ne!(result.reason, wk_proto::Reason::Success),
        other => panic!("{other:?}"),
    }
    let mut fleeting = harness::work::send(&info("news"), "ann", "2");
    fleeting.flags = wk_proto::Flags(wk_proto::Flags::NO_PERSIST);
    let request = wk_chat::Request::Send(fleeting.into());
    let ticket = world.call(leader, request.clone());
    assert_eq!(
        accepted(&world.result(ticket).unwrap()).message_seq,
        MessageSeq(0)
    );
    assert_eq!(world.nodes[&leader].committed.len(), 1);
    for other in others {
        world.crash(other);
    }
    let unproven = world.call(leader, request);
    assert!(world.result(unproven).is_err());
    assert_eq!(world.nodes[&leader].committed.len(), 1);
}

#[test]
#[should_panic(expected = "acted upon, but synced by 0 of 3")]
fn the_harness_finds_a_driver_that_ignores_after_and_lies_about_syncs() {
    let mut world = World::new(Plan {
        ignore_after: true,
        lie_about_sync: true,
        sync_us: 5_000,
        ..Plan::new(3, 1, 12)
    });
    let leader = world.elect();
    world.call(leader, send_call(&info("news"), "ann", "1"));
    world.run(100);
}

#[test]
#[should_panic(expected = "acted upon, but synced by 1 of 3")]
fn the_harness_finds_a_follower_that_answers_before_its_fsync() {
    let mut world = world(12);
    let leader = world.elect();
    for other in world.others(leader) {
        world.node(other).sync_us = 5_000;
    }
    world.plan.ignore_after = true;
    world.call(leader, send_call(&info("news"), "ann", "1"));
    world.run(100);
}

#[test]
fn a_candidate_counts_no_vote_before_its_own_is_durable() {
    let mut world = world(12);
    world.plan.ignore_after = true;
    for n in 1..=3 {
        world.node(NodeId(n)).sync_us = 5_000;
    }
    world.run(10_000);
    let stopped = world.trace.iter().any(|t| matches!(t, Trace::Fault(..)));
    assert!(!stopped, "raft would panic, were such votes not sorted out");
}

#[test]
fn followers_hear_of_a_leader_once_a_term() {
    let mut world = world(13);
    world.elect();
    world.run(5_000);
    let told = world
        .trace
        .iter()
        .filter(|t| matches!(t, Trace::Leader(..)))
        .count();
    assert!(told <= 12, "{told} reports without any change");
}

#[test]
fn a_follower_far_behind_is_served_from_the_wal() {
    let mut world = World::new(Plan::new(3, 1, 14));
    let leader = world.elect();
    let slow = world.others(leader)[0];
    world.crash(slow);
    let mut request = harness::work::send(&info("news"), "ann", "");
    request.payload = vec![0; 600 * 1024].into();
    for n in 0..30 {
        request.client_msg_no = n.to_string().into();
        let ticket = world.call(leader, wk_chat::Request::Send(request.clone().into()));
        accepted(&world.result(ticket).unwrap());
    }
    world.checkpoint(leader);
    world.run(10);
    world.start(slow);
    world.run(5_000);
    let read = world
        .trace
        .iter()
        .any(|t| matches!(t, Trace::ReadLog(_, n) if *n > 0));
    assert!(read, "18 MiB are more than stay in memory");
    let slot = harness::slots(&world.plan).next().unwrap();
    let head = world
        .shard(slow)
        .view(slot)
        .unwrap()
        .head(&info("news"))
        .unwrap();
    assert_eq!(head.unwrap().seq, MessageSeq(30));
    world.checkpoint(leader);
    world.run(10);
    let kept = world.nodes[&leader]
        .wal
        .recovered(harness::replica_id(slot, leader));
    assert!(
        kept.entries.len() <= 2,
        "nobody needs them any more: {}",
        kept.entries.len()
    );
}

#[test]
fn a_call_of_an_earlier_term_is_not_taken_by_a_later_leader() {
    let mut world = world(15);
    let leader = world.elect();
    let group = harness::slots(&world.plan).next().unwrap();
    let told = world.trace.iter().rev().find_map(|t| match t {
        Trace::Leader(_, g, term, Some(_)) if *g == group => Some(*term),
        _ => None,
    });
    let term = told.unwrap();
    for (number, term, is_taken) in [(1, term - 1, false), (2, term + 1, false), (3, term, true)] {
        let ticket = Ticket(1_000 + number);
        let request = send_call(&info("news"), "ann", &number.to_string());
        let call = Input::Call(ticket, group, Some(Term(term)), request);
        world.input(leader, call);
        match world.result(ticket) {
            Ok(reply) if is_taken => drop(accepted(&reply)),
            Err(CallError::NotSent(Why::NotLeader)) if !is_taken => {}
            other => panic!("call {number}: {other:?}"),
        }
    }
    assert_eq!(numbers(&mut world, leader), ["3"]);
}
