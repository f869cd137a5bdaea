//! Rows owed to other slots: the acknowledgement of a first message waits for them, delivery does not, and none is ever lost (H6).

mod harness;

use harness::work::{accepted, info, join, send_call, uid};
use harness::{Plan, Trace, World, slots};
use wk_chat::{Answer, Machine, Query, Reply};
use wk_proto::{ChannelKey, NodeId, Ticket};

const ONE: NodeId = NodeId(1);

fn pair() -> ChannelKey {
    ChannelKey::person(&uid("ann"), &uid("bob"))
}

fn conversations(world: &mut World, at: NodeId, user: &str) -> usize {
    let query = Query::Conversations {
        uid: uid(user),
        limit: 10,
    };
    match world.query(at, query) {
        Ok(Answer::Conversations(rows)) => rows.len(),
        other => panic!("{other:?}"),
    }
}

fn owed(world: &World, at: NodeId) -> usize {
    let count = |group| {
        let view = world.shard(at).view(group).expect("it is here");
        Machine::owed(&view, None, 100).expect("readable").len()
    };
    slots(&world.plan).map(count).sum()
}

fn replied(world: &World) -> Vec<Ticket> {
    let tickets = world.trace.iter().filter_map(|t| match t {
        Trace::Reply(_, ticket, _) => Some(*ticket),
        _ => None,
    });
    tickets.collect()
}

#[test]
fn a_first_message_is_acknowledged_when_both_users_have_their_rows() {
    let mut world = World::new(Plan::new(1, 4, 1));
    world.elect();
    let ticket = world.call(ONE, send_call(&pair(), "ann", "1"));
    accepted(&world.result(ticket).unwrap());
    assert_eq!(conversations(&mut world, ONE, "ann"), 1);
    assert_eq!(conversations(&mut world, ONE, "bob"), 1);
    world.run(500);
    assert_eq!(owed(&world, ONE), 0, "what is delivered is removed");
    world.trace.clear();
    let ticket = world.call(ONE, send_call(&pair(), "ann", "2"));
    accepted(&world.result(ticket).unwrap());
    let rows = world.trace.iter().any(|t| matches!(t, Trace::Outbox(..)));
    assert!(!rows, "only a first message owes anything");
}

#[test]
fn delivery_does_not_wait_and_later_acknowledgements_of_the_channel_do() {
    let mut world = World::new(Plan::new(1, 4, 2));
    world.elect();
    world.hold_outbox = true;
    let first = world.call(ONE, send_call(&pair(), "ann", "1"));
    world.run(20);
    let second = world.call(ONE, send_call(&pair(), "bob", "2"));
    let elsewhere = world.call(ONE, send_call(&info("news"), "ann", "3"));
    world.run(300);
    assert_eq!(replied(&world), [elsewhere]);
    assert_eq!(
        world.nodes[&ONE].committed.len(),
        3,
        "all three are delivered"
    );
    world.hold_outbox = false;
    accepted(&world.result(second).unwrap());
    assert_eq!(replied(&world), [elsewhere, first, second]);
}

#[test]
fn an_acknowledgement_waits_a_second_at_most_and_the_rows_follow() {
    let mut world = World::new(Plan::new(1, 4, 3));
    world.elect();
    world.hold_outbox = true;
    let begin = world.now;
    let ticket = world.call(ONE, send_call(&pair(), "ann", "1"));
    accepted(&world.result(ticket).unwrap());
    let waited = world.now.since(begin);
    assert!((1_000_000..1_200_000).contains(&waited), "{waited} µs");
    assert_eq!(conversations(&mut world, ONE, "bob"), 0);
    world.hold_outbox = false;
    world.run(4_000);
    assert_eq!(conversations(&mut world, ONE, "bob"), 1);
    assert_eq!(owed(&world, ONE), 0);
}

#[test]
fn rows_survive_a_restart() {
    let mut world = World::new(Plan::new(1, 4, 4));
    world.elect();
    world.hold_outbox = true;
    let ticket = world.call(ONE, send_call(&pair(), "ann", "1"));
    accepted(&world.result(ticket).unwrap());
    world.crash(ONE);
    world.hold_outbox = false;
    world.start(ONE);
    world.elect();
    world.run(1_000);
    assert_eq!(conversations(&mut world, ONE, "ann"), 1);
    assert_eq!(conversations(&mut world, ONE, "bob"), 1);
    assert_eq!(owed(&world, ONE), 0);
}

#[test]
fn the_next_leader_delivers_what_the_last_one_owed() {
    let mut world = World::new(Plan::new(3, 1, 5));
    let old = world.elect();
    world.hold_outbox = true;
    let ticket = world.call(old, send_call(&pair(), "ann", "1"));
    accepted(&world.result(ticket).unwrap());
    world.crash(old);
    world.hold_outbox = false;
    let new = world.elect();
    world.run(2_000);
    assert_eq!(conversations(&mut world, new, "bob"), 1);
    assert_eq!(owed(&world, new), 0);
}

#[test]
fn more_rows_than_can_be_on_their_way_all_arrive_before_the_answer() {
    let mut world = World::new(Plan::new(1, 4, 6));
    world.elect();
    let users: Vec<String> = (0..700).map(|n| format!("user {n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let team = harness::work::group("team");
    let ticket = world.call(ONE, join(&team, &users));
    assert_eq!(world.result(ticket), Ok(Reply::Done));
    for user in [users[0], users[300], users[699]] {
        assert_eq!(conversations(&mut world, ONE, user), 1, "{user}");
    }
    world.run(2_000);
    assert_eq!(owed(&world, ONE), 0);
}

#[test]
fn a_resend_to_the_next_leader_waits_for_the_rows_too() {
    let mut world = World::new(Plan::new(3, 1, 7));
    let old = world.elect();
    world.hold_outbox = true;
    world.call(old, send_call(&pair(), "ann", "1"));
    world.run(300);
    world.crash(old);
    let new = world.elect();
    let again = world.call(new, send_call(&pair(), "ann", "1"));
    let elsewhere = world.call(new, send_call(&info("news"), "ann", "2"));
    world.run(200);
    assert!(world.replies.contains_key(&elsewhere));
    assert!(
        !world.replies.contains_key(&again),
        "bob's row is not there yet"
    );
    world.hold_outbox = false;
    accepted(&world.result(again).unwrap());
    assert_eq!(conversations(&mut world, new, "bob"), 1);
}

#[test]
fn a_change_that_was_made_already_is_answered_when_its_rows_are_there() {
    let mut world = World::new(Plan::new(3, 1, 8));
    let old = world.elect();
    world.hold_outbox = true;
    let team = harness::work::group("team");
    let allowed = harness::work::allow("ann", "bob", true);
    let again = |world: &mut World, at| {
        [join(&team, &["bob"]), allowed.clone()].map(|request| world.call(at, request))
    };
    again(&mut world, old);
    world.run(200);
    let here = again(&mut world, old);
    world.run(200);
    assert_eq!(replied(&world), [], "on the same leader");
    world.crash(old);
    let new = world.elect();
    let there = again(&mut world, new);
    world.run(200);
    assert_eq!(replied(&world), [], "on the next one");
    world.hold_outbox = false;
    for ticket in there {
        assert_eq!(world.result(ticket), Ok(Reply::Done));
    }
    let both = "of the group, and of the pair that may talk now";
    assert_eq!(conversations(&mut world, new, "bob"), 2, "{both}");
    assert!(!world.replies.contains_key(&here[0]), "its node is gone");
}
