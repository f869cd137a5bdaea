//! Subscribers, their generations, and the conversations that follow them.

use wk_chat::query::Conversation;
use wk_chat::request::{ChannelFlags, SetChange};
use wk_chat::{Answer, Effect, Query, Write};
use wk_proto::{ChannelType, MessageSeq, Reason};
use wk_store::Table;

use crate::world::{World, channel, group, uid, uids};

const SET_ENTRIES: Table = Table(3);

fn command_of(row: &Conversation) -> Option<(u64, u64)> {
    row.command.map(|(read, until)| (read.0, until.0))
}

#[test]
fn members_may_send_and_others_may_not() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    assert_eq!(w.reason(&g, "u1"), Reason::Success);
    assert_eq!(w.reason(&g, "u3"), Reason::SubscriberNotExist);
    w.remove(&g, &["u1"]);
    assert_eq!(w.reason(&g, "u1"), Reason::SubscriberNotExist);
    w.add(&g, &["u3"]);
    assert_eq!(w.reason(&g, "u3"), Reason::Success);
}

#[test]
fn adding_creates_the_channel_and_leaves_flags_alone() {
    let mut w = World::new();
    let g = group("g1");
    let row = |w: &mut World| w.query(Query::Channel(group("g1")));
    assert_eq!(row(&mut w), Answer::Channel(None));
    w.remove(&g, &["u1"]);
    assert_eq!(row(&mut w), Answer::Channel(None));
    w.add(&g, &["u1"]);
    assert_eq!(row(&mut w), Answer::Channel(Some(ChannelFlags::default())));
    let flags = ChannelFlags {
        large: true,
        ..ChannelFlags::default()
    };
    let set = |flags, create_only| Write::SetChannel {
        channel: group("g1"),
        flags,
        create_only,
    };
    w.done(set(flags, false));
    w.done(set(ChannelFlags::default(), true));
    w.add(&g, &["u2"]);
    assert_eq!(row(&mut w), Answer::Channel(Some(flags)));
}

#[test]
fn disbanding_refuses_and_recreating_revives() {
    let mut w = World::new();
    let g = group("g1");
    w.done(Write::Disband { channel: g.clone() });
    assert_eq!(w.query(Query::Channel(g.clone())), Answer::Channel(None));
    w.add(&g, &["u1"]);
    w.done(Write::Disband { channel: g.clone() });
    assert_eq!(w.reason(&g, "u1"), Reason::Disband);
    w.done(Write::SetChannel {
        channel: g.clone(),
        flags: ChannelFlags::default(),
        create_only: false,
    });
    assert_eq!(w.reason(&g, "u1"), Reason::Success);
}

#[test]
fn a_new_member_has_read_what_was_before_him() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    for _ in 0..3 {
        w.say(&g, "u1", "x");
    }
    w.command(&g.command(), "____system");
    w.add(&g, &["u2"]);
    let row = w.conversation("u2", &g).unwrap();
    assert!(row.chat);
    assert_eq!(row.read, MessageSeq(3));
    assert_eq!(command_of(&row), Some((1, 0)));
}

#[test]
fn adding_a_member_again_changes_nothing() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2", "u1"]);
    w.say(&g, "u1", "x");
    let before = w.conversation("u2", &g);
    w.take_effects();
    w.add(&g, &["u2"]);
    assert_eq!(w.conversation("u2", &g), before);
    assert_eq!(w.take_effects(), vec![]);
    assert_eq!(w.members_of(&g), uids(&["u1", "u2"]));
}

#[test]
fn every_change_of_recipients_is_told() {
    let mut w = World::new();
    let g = group("g1");
    let told = vec![Effect::MembersChanged(g.clone())];
    w.add(&g, &["u1"]);
    assert_eq!(w.take_effects(), told);
    w.remove(&g, &["u1"]);
    assert_eq!(w.take_effects(), told);
    w.remove(&g, &["u1"]);
    assert_eq!(w.take_effects(), vec![]);
    w.members(&g, SetChange::Replace(uids(&["u2"])));
    assert_eq!(w.take_effects(), told);
}

#[test]
fn a_removed_member_loses_the_conversation_but_not_unread_commands() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    w.command(&g.command(), "____system");
    w.remove(&g, &["u1"]);
    w.command(&g.command(), "____system");
    let row = w.conversation("u1", &g).unwrap();
    assert!(!row.chat);
    // The command before the removal is still his, the one after is not.
    assert_eq!(command_of(&row), Some((0, 1)));
    w.mark(
        "u1",
        &g.command(),
        wk_chat::request::Mark::Read(MessageSeq(1)),
    );
    assert_eq!(w.conversation("u1", &g), None);
}

#[test]
fn coming_back_keeps_unread_commands() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    w.command(&g.command(), "____system");
    w.remove(&g, &["u1"]);
    w.command(&g.command(), "____system");
    w.add(&g, &["u1"]);
    let row = w.conversation("u1", &g).unwrap();
    assert_eq!((row.chat, command_of(&row)), (true, Some((0, 0))));
}

#[test]
fn replacing_changes_members_at_once_and_keeps_ex_members_conversations() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    w.say(&g, "u1", "x");
    w.members(&g, SetChange::Replace(uids(&["u2", "u3", "u3"])));
    assert_eq!(w.members_of(&g), uids(&["u2", "u3"]));
    assert_eq!(w.reason(&g, "u1"), Reason::SubscriberNotExist);
    assert!(w.conversation("u1", &g).is_some());
    assert_eq!(w.conversation("u2", &g).unwrap().read, MessageSeq(0));
    assert_eq!(w.conversation("u3", &g).unwrap().read, MessageSeq(1));
    w.members(&g, SetChange::Replace(vec![]));
    assert_eq!(w.members_of(&g), vec![]);
    assert_eq!(w.reason(&g, "u2"), Reason::SubscriberNotExist);
}

#[test]
fn a_staged_replacement_is_invisible_until_it_is_switched() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    let stage = |token, list: &[&str]| SetChange::Stage {
        token,
        uids: uids(list),
    };
    w.take_effects();
    w.members(&g, stage(7, &["u2", "u3"]));
    w.members(&g, stage(7, &["u4"]));
    assert_eq!(w.members_of(&g), uids(&["u1", "u2"]));
    assert_eq!(w.take_effects(), vec![]);
    // Single changes meanwhile are not undone by the switch.
    w.add(&g, &["u5"]);
    w.remove(&g, &["u3"]);
    for _ in 0..2 {
        w.members(&g, SetChange::Switch { token: 7 });
        assert_eq!(w.members_of(&g), uids(&["u2", "u4", "u5"]));
    }
    assert!(w.conversation("u4", &g).is_some());
    w.members(&g, SetChange::Switch { token: 8 });
    assert_eq!(w.members_of(&g), uids(&["u2", "u4", "u5"]));
}

#[test]
fn another_replacement_abandons_the_staged_one() {
    let mut w = World::new();
    let g = group("g1");
    let stage = |token, list: &[&str]| SetChange::Stage {
        token,
        uids: uids(list),
    };
    w.members(&g, stage(1, &["u1"]));
    w.members(&g, stage(2, &["u2"]));
    w.members(&g, SetChange::Switch { token: 1 });
    assert_eq!(w.members_of(&g), vec![]);
    w.members(&g, SetChange::Switch { token: 2 });
    assert_eq!(w.members_of(&g), uids(&["u2"]));
    let entries = w.view_of(&g).scan(SET_ENTRIES, &[], None, 10).unwrap();
    assert_eq!(entries.len(), 1, "the abandoned one was swept");
}

#[test]
fn replaced_generations_are_swept_by_later_writes() {
    let mut w = World::new();
    let g = group("g1");
    for part in 0..3 {
        let list = (0..1_000).map(|n| uid(&format!("m{part}-{n}"))).collect();
        // Live: no conversations, so the outbox stays out of this.
        let live = channel("g1", ChannelType::LIVE);
        w.members(&live, SetChange::Add(list));
    }
    let live = channel("g1", ChannelType::LIVE);
    w.members(&live, SetChange::Replace(uids(&["u1"])));
    for _ in 0..4 {
        w.add(&live, &["u1"]);
    }
    let entries = w.view_of(&g).scan(SET_ENTRIES, &[], None, 10_000).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(w.members_of(&live), uids(&["u1"]));
}

#[test]
fn the_type_decides_which_parts_a_subscriber_gets() {
    let parts = |kind| {
        let mut w = World::new();
        let c = channel("c1", ChannelType(kind));
        w.add(&c, &["u1"]);
        let row = w.conversation("u1", &c);
        row.map(|r| (r.chat, r.command.is_some()))
    };
    for kind in [2, 3, 4, 5, 6, 10, 12] {
        assert_eq!(parts(kind), Some((true, true)), "type {kind}");
    }
    assert_eq!(parts(7), Some((true, false)));
    assert_eq!(parts(8), Some((false, true)));
    assert_eq!(parts(9), None);
}

#[test]
fn members_are_listed_in_pages() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2", "u3"]);
    let mut page = |after: Option<&str>, limit| {
        w.query(Query::Members {
            channel: group("g1").command(),
            after: after.map(uid),
            limit,
        })
    };
    assert_eq!(page(None, 2), Answer::Uids(uids(&["u1", "u2"]), true));
    assert_eq!(page(Some("u2"), 2), Answer::Uids(uids(&["u3"]), false));
    assert_eq!(page(Some("u2"), 1), Answer::Uids(uids(&["u3"]), false));
    assert_eq!(page(Some("u3"), 1), Answer::Uids(vec![], false));
}

#[test]
fn a_removed_visitor_gets_his_conversation_back_with_the_next_message() {
    let mut w = World::new();
    let service = channel("v1|shop", ChannelType::CUSTOMER_SERVICE);
    w.add(&service, &["v1"]);
    w.say(&service, "v1", "x");
    w.command(&service.command(), "____system");
    w.remove(&service, &["v1"]);
    assert_eq!(
        w.conversation("v1", &service).map(|row| row.chat),
        Some(false)
    );
    w.say(&service, "agent", "y");
    w.command(&service.command(), "____system");
    let row = w.conversation("v1", &service).unwrap();
    assert_eq!((row.chat, command_of(&row)), (true, Some((0, 0))));
}
