//! What goes wrong stays where it is: damaged groups, hostile peers, too much work.

mod harness;

use std::sync::Arc;

use bytes::Bytes;
use harness::work::{accepted, info, send_call};
use harness::{Dice, Plan, Trace, World, replica_id, slots};
use wk_chat::request::{CallError, Why};
use wk_proto::{ChannelKey, GroupId, LogIndex, MessageSeq, NodeId, Term};
use wk_replica::{Input, PeerMessage};
use wk_store::WalRecord;

const ONE: NodeId = NodeId(1);
const SEEDS: u64 = 20;

/// A public channel of a slot.
fn channel_of(world: &World, group: GroupId) -> ChannelKey {
    let found = (0..)
        .map(|n| info(&format!("news {n}")))
        .find(|c| GroupId::Slot(c.slot(world.plan.slots)) == group);
    found.expect("some name hashes there")
}

fn send(world: &mut World, group: GroupId, no: &str) -> Result<MessageSeq, CallError> {
    let channel = channel_of(world, group);
    let ticket = world.call(ONE, send_call(&channel, "ann", no));
    world
        .result(ticket)
        .map(|reply| accepted(&reply).message_seq)
}

#[test]
fn a_group_with_an_unreadable_entry_stops_alone() {
    let mut world = World::new(Plan::new(1, 2, 1));
    world.elect();
    let [good, bad] = [0, 1].map(|n| slots(&world.plan).nth(n).unwrap());
    send(&mut world, good, "1").unwrap();
    send(&mut world, bad, "1").unwrap();
    world.crash(ONE);
    let replica = replica_id(bad, ONE);
    let last = world.nodes[&ONE].wal.last(replica);
    let damaged = WalRecord::Entry {
        replica,
        term: Term(1),
        index: LogIndex(last + 1),
        kind: 0,
        data: Bytes::from_static(b"not an entry"),
    };
    let mark = wk_replica::WalMark(u64::MAX);
    world.node(ONE).wal.append(mark, vec![damaged]);
    world.node(ONE).wal.synced(mark);
    world.start(ONE);
    world.run(100);
    assert!(
        world
            .trace
            .iter()
            .any(|t| matches!(t, Trace::Fault(_, group, _) if *group == bad))
    );
    assert_eq!(world.shard(ONE).led(), (1, 2));
    assert_eq!(send(&mut world, good, "2"), Ok(MessageSeq(2)));
    assert_eq!(
        send(&mut world, bad, "2"),
        Err(CallError::NotSent(Why::Faulty))
    );
    let view = world.shard(ONE).view(bad).unwrap();
    let channel = channel_of(&world, bad);
    assert_eq!(
        view.head(&channel).unwrap().unwrap().seq,
        MessageSeq(1),
        "its state can be looked at"
    );
}

#[test]
fn a_log_with_a_hole_is_a_fault_from_the_start() {
    let mut world = World::new(Plan::new(1, 1, 2));
    world.elect();
    let group = slots(&world.plan).next().unwrap();
    send(&mut world, group, "1").unwrap();
    world.crash(ONE);
    world
        .node(ONE)
        .wal
        .release(replica_id(group, ONE), LogIndex(1), Term(1));
    world.start(ONE);
    world.run(100);
    let fault = world.trace.iter().find_map(|t| match t {
        Trace::Fault(_, _, cause) => Some(cause.clone()),
        _ => None,
    });
    assert_eq!(
        fault.unwrap(),
        "the log starts after 1, but the checkpoint ends at 0"
    );
}

#[test]
fn a_restart_replays_the_log_and_repeats_no_delivery() {
    let mut world = World::new(Plan::new(1, 1, 3));
    world.elect();
    let group = slots(&world.plan).next().unwrap();
    for n in 1..=50 {
        assert_eq!(send(&mut world, group, &n.to_string()), Ok(MessageSeq(n)));
    }
    world.crash(ONE);
    world.trace.clear();
    world.start(ONE);
    world.elect();
    let repeated = world
        .trace
        .iter()
        .filter(|t| matches!(t, Trace::Committed(..)))
        .count();
    assert!(
        repeated <= 1,
        "only the last entry may be new to the log's commit hint: {repeated}"
    );
    assert_eq!(
        send(&mut world, group, "50"),
        Ok(MessageSeq(50)),
        "a resend finds its original"
    );
    assert_eq!(send(&mut world, group, "51"), Ok(MessageSeq(51)));
}

#[test]
fn a_checkpoint_shortens_the_log_and_restart_goes_on_from_it() {
    let mut world = World::new(Plan::new(1, 1, 4));
    world.elect();
    let group = slots(&world.plan).next().unwrap();
    for n in 1..=10 {
        send(&mut world, group, &n.to_string()).unwrap();
    }
    world.checkpoint(ONE);
    world.run(10);
    let kept = world.nodes[&ONE].wal.recovered(replica_id(group, ONE));
    assert_eq!(
        (kept.start.map(|s| s.0), kept.entries.len()),
        (Some(LogIndex(11)), 0)
    );
    send(&mut world, group, "11").unwrap();
    world.crash(ONE);
    world.start(ONE);
    world.elect();
    assert_eq!(send(&mut world, group, "12"), Ok(MessageSeq(12)));
    let channel = channel_of(&world, group);
    assert_eq!(world.history(ONE, &channel).len(), 12);
}

#[test]
fn ids_ascend_across_a_restart_with_a_clock_that_went_back() {
    let mut world = World::new(Plan::new(1, 1, 5));
    world.elect();
    let group = slots(&world.plan).next().unwrap();
    world.run(60_000);
    send(&mut world, group, "1").unwrap();
    world.crash(ONE);
    world.clock_back_ms = 30_000;
    world.start(ONE);
    world.elect();
    send(&mut world, group, "2").unwrap();
    let channel = channel_of(&world, group);
    let history = world.history(ONE, &channel);
    assert!(history[0].record.message_id() < history[1].record.message_id());
    assert!(history[0].record.time() <= history[1].record.time());
}

#[test]
fn times_do_not_go_back_when_a_slower_clock_takes_over() {
    let mut world = World::new(Plan::new(3, 1, 5));
    let first = world.elect();
    world.run(60_000);
    let channel = info("news");
    let say = |world: &mut World, leader, no: &str| {
        let ticket = world.call(leader, send_call(&channel, "ann", no));
        accepted(&world.result(ticket).unwrap());
    };
    say(&mut world, first, "1");
    world.crash(first);
    world.clock_back_ms = 30_000;
    let second = world.elect();
    assert_ne!(first, second);
    say(&mut world, second, "2");
    say(&mut world, second, "3");
    let history = world.history(second, &channel);
    let times: Vec<_> = history.iter().map(|m| m.record.time()).collect();
    assert_eq!(times.len(), 3);
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn any_bytes_from_a_peer_are_dropped_and_counted() {
    let mut world = World::new(Plan::new(3, 2, 6));
    let leader = world.elect();
    let mut dice = Dice(1);
    for _ in 0..2_000 {
        let len = dice.below(200) as usize;
        let bytes: Vec<u8> = (0..len).map(|_| dice.below(4) as u8).collect();
        world.input(leader, Input::Peer(NodeId(2), PeerMessage(bytes.into())));
    }
    assert!(world.shard(leader).dropped_messages() >= 1_990);
    assert!(!world.trace.iter().any(|t| matches!(t, Trace::Fault(..))));
}

/// Real messages with one bit changed, replayed at random: groups may stop, the node may not, and raft's own checks are not reached.
#[test]
fn damaged_messages_never_end_the_process() {
    for seed in 0..SEEDS {
        let mut world = World::new(Plan::new(3, 1, seed));
        world.check = false;
        world.net.record = true;
        world.elect();
        let group = slots(&world.plan).next().unwrap();
        for n in 0..5 {
            let channel = channel_of(&world, group);
            let leader = world.leader(group).unwrap();
            world.call(leader, send_call(&channel, "ann", &n.to_string()));
            world.run(20);
        }
        let recorded = std::mem::take(&mut world.net.recorded);
        for _ in 0..300 {
            let (from, to, message) = &recorded[world.dice.below(recorded.len() as u64) as usize];
            let mut bytes = message.0.to_vec();
            let at = world.dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << world.dice.below(8);
            world.input(*to, Input::Peer(*from, PeerMessage(bytes.into())));
        }
        world.run(100);
        let panicked = world
            .trace
            .iter()
            .find(|t| matches!(t, Trace::Fault(_, _, cause) if cause.starts_with("panicked")));
        assert_eq!(panicked, None, "seed {seed}");
    }
}

#[test]
fn a_group_with_too_much_in_flight_is_busy_and_recovers() {
    let mut world = World::new(Plan::new(1, 1, 7));
    world.elect();
    world.node(ONE).sync_us = 50_000;
    let mut request = harness::work::send(&info("news"), "ann", "big");
    request.payload = vec![0; 700 * 1024].into();
    let tickets: Vec<_> = (0..30)
        .map(|n| {
            let mut request = request.clone();
            request.client_msg_no = n.to_string().into();
            world.call(ONE, wk_chat::Request::Send(Arc::new(request)))
        })
        .collect();
    let results: Vec<_> = tickets.into_iter().map(|t| world.result(t)).collect();
    let busy = results
        .iter()
        .filter(|r| **r == Err(CallError::NotSent(Why::Busy)))
        .count();
    let done = results.iter().filter(|r| r.is_ok()).count();
    assert_eq!(busy + done, 30);
    assert!((10..=12).contains(&done), "8 MiB hold 11 of them: {done}");
    let ticket = world.call(ONE, wk_chat::Request::Send(Arc::new(request)));
    assert!(world.result(ticket).is_ok());
}

#[test]
fn a_question_to_another_slot_is_asked_and_its_silence_ends_the_call() {
    let plan = Plan::new(1, 4, 8);
    let policy = wk_chat::Policy {
        whitelist_off_of_person: false,
        ..plan.policy.clone()
    };
    let mut world = World::new(Plan { policy, ..plan });
    world.elect();
    let pair = ChannelKey::person(&harness::work::uid("ann"), &harness::work::uid("bob"));
    let ticket = world.call(ONE, send_call(&pair, "ann", "1"));
    match world.result(ticket).unwrap() {
        wk_chat::Reply::Sent(result) => assert_eq!(result.reason, wk_proto::Reason::NotInWhitelist),
        other => panic!("{other:?}"),
    }
    let bob = ChannelKey::new(
        wk_proto::ChannelId::trusted("bob"),
        wk_proto::ChannelType::PERSON,
    );
    let flags = wk_chat::request::ChannelFlags {
        allow_stranger: true,
        ..Default::default()
    };
    let ticket = world.call(ONE, harness::work::set_channel(&bob, flags));
    assert_eq!(world.result(ticket), Ok(wk_chat::Reply::Done));
    let ticket = world.call(ONE, send_call(&pair, "ann", "2"));
    accepted(&world.result(ticket).unwrap());
    world.ignore_asks = true;
    let ticket = world.call(ONE, send_call(&pair, "ann", "3"));
    assert_eq!(world.result(ticket), Err(CallError::NotSent(Why::Timeout)));
}

#[test]
fn memory_full_of_what_is_not_checkpointed_refuses_calls_until_it_is() {
    let mut world = World::new(Plan {
        dirty_bytes_max: 100_000,
        ..Plan::new(1, 1, 9)
    });
    world.elect();
    let mut request = harness::work::send(&info("news"), "ann", "");
    request.payload = vec![0; 10_000].into();
    let mut send = |world: &mut World, no: u64| {
        request.client_msg_no = no.to_string().into();
        let ticket = world.call(ONE, wk_chat::Request::Send(request.clone().into()));
        let result = world.result(ticket);
        world.run(50);
        result
    };
    let done = (0..100)
        .take_while(|no| send(&mut world, *no).is_ok())
        .count();
    assert!((8..16).contains(&done), "{done} messages of 10 kB fit");
    assert_eq!(send(&mut world, 200), Err(CallError::NotSent(Why::Busy)));
    world.checkpoint(ONE);
    world.run(200);
    assert!(send(&mut world, 201).is_ok());
}

#[test]
fn a_follower_without_checkpoints_stops_applying_and_goes_on_acknowledging() {
    let mut world = World::new(Plan {
        dirty_bytes_max: 100_000,
        ..Plan::new(3, 1, 10)
    });
    let leader = world.elect();
    let others = world.others(leader);
    world.crash(others[1]);
    let slow = others[0];
    let mut request = harness::work::send(&info("news"), "ann", "");
    request.payload = vec![0; 10_000].into();
    for n in 0..60 {
        request.client_msg_no = n.to_string().into();
        let ticket = world.call(leader, wk_chat::Request::Send(request.clone().into()));
        accepted(&world.result(ticket).expect("acknowledged by the slow one"));
        world.checkpoint(leader);
        world.run(120);
    }
    let group = slots(&world.plan).next().unwrap();
    let applied = |w: &World| w.shard(slow).view(group).unwrap().applied().0;
    assert!(applied(&world) < 30, "it applied {} of 60", applied(&world));
    for _ in 0..10 {
        world.checkpoint(slow);
        world.run(400);
    }
    assert!(
        applied(&world) >= 60,
        "it applied {} of 60",
        applied(&world)
    );
}

#[test]
fn nobody_overtakes_his_own_message_that_waits_for_an_answer() {
    let plan = Plan::new(1, 1, 9);
    let policy = wk_chat::Policy {
        whitelist_off_of_person: false,
        ..plan.policy.clone()
    };
    let mut world = World::new(Plan { policy, ..plan });
    world.elect();
    world.ignore_asks = true;
    let pair = ChannelKey::person(&harness::work::uid("ann"), &harness::work::uid("bob"));
    let allow = |add| harness::work::allow("bob", "ann", add);

    let first = world.call(ONE, send_call(&pair, "ann", "1"));
    let allowed = world.call(ONE, allow(true));
    assert_eq!(world.result(allowed), Ok(wk_chat::Reply::Done));
    let second = world.call(ONE, send_call(&pair, "ann", "2"));
    let other = world.call(ONE, send_call(&info("news"), "ann", "3"));
    world.run(200);
    assert!(
        !world.replies.contains_key(&second),
        "it needs no answer, but its place"
    );
    assert!(world.replies.contains_key(&other), "another channel's");
    let answer = wk_chat::Answer::Channel(None);
    world.input(ONE, wk_replica::Input::Asked(first, Some(answer)));
    let [first, second] = [first, second].map(|t| accepted(&world.result(t).unwrap()).message_seq);
    assert!(first < second, "{first} {second}");

    let removed = world.call(ONE, allow(false));
    assert_eq!(world.result(removed), Ok(wk_chat::Reply::Done));
    let first = world.call(ONE, send_call(&pair, "ann", "4"));
    let allowed = world.call(ONE, allow(true));
    assert_eq!(world.result(allowed), Ok(wk_chat::Reply::Done));
    let second = world.call(ONE, send_call(&pair, "ann", "5"));
    for ticket in [first, second] {
        let end = Err(CallError::NotSent(Why::Timeout));
        assert_eq!(world.result(ticket), end, "both come again, in order");
    }
}
