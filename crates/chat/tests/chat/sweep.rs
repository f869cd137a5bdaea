//! What is removed because time passed.

use wk_chat::request::{List, Mark, SetChange};
use wk_chat::{Machine, Write};
use wk_proto::{ChannelKey, ChannelType, GroupId, MessageSeq, SlotId};

use crate::world::{SLOTS, World, channel, group, uids};

const DAY_MS: u64 = 24 * 3600 * 1000;
const SET_ENTRIES: u8 = 3;
const CONVERSATIONS: u8 = 5;
const USERS: u8 = 9;

/// What all leaders do; `false`: nothing was due anywhere.
fn sweep(w: &mut World) -> bool {
    let mut any = false;
    for group in (0..SLOTS).map(|n| GroupId::Slot(SlotId(n))) {
        if let Some(write) = Machine::sweep(&w.view(group), &w.policy, w.now).unwrap() {
            w.write_to(group, write);
            w.deliver_all();
            any = true;
        }
    }
    any
}

fn sweep_all(w: &mut World) {
    for _ in 0..100 {
        if !sweep(w) {
            return;
        }
    }
    panic!("never done");
}

fn pass(w: &mut World, days: u64) {
    w.now.0 += days * DAY_MS;
}

fn count(w: &World, table: u8) -> usize {
    w.dump().iter().filter(|row| row.1 == table).count()
}

/// Rows of all tables but the users' counters, which stay.
fn rows(w: &World) -> usize {
    w.rows() - count(w, USERS)
}

fn temp(base: &str) -> ChannelKey {
    channel(base, ChannelType::TEMP)
}

#[test]
fn a_tombstone_is_kept_for_a_week_and_then_forgotten() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    w.remove(&g, &["u1"]);
    pass(&mut w, 6);
    assert!(!sweep(&mut w));
    assert_eq!(count(&w, CONVERSATIONS), 1);
    pass(&mut w, 2);
    sweep_all(&mut w);
    assert_eq!(count(&w, CONVERSATIONS), 0);
    let counters: Vec<_> = w.dump().into_iter().filter(|r| r.1 == USERS).collect();
    assert!(counters.iter().all(|r| r.3.is_empty()), "he has no rows");
}

#[test]
fn who_came_back_keeps_his_row_and_who_left_again_is_remembered_from_then_on() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    w.remove(&g, &["u1", "u2"]);
    pass(&mut w, 5);
    w.add(&g, &["u1", "u2"]);
    w.remove(&g, &["u2"]);
    pass(&mut w, 3);
    sweep_all(&mut w);
    assert!(w.conversation("u1", &g).is_some());
    assert_eq!(count(&w, CONVERSATIONS), 2, "3 days are no week");
    pass(&mut w, 5);
    sweep_all(&mut w);
    assert!(w.conversation("u1", &g).is_some());
    assert_eq!(count(&w, CONVERSATIONS), 1);
}

#[test]
fn the_last_command_of_a_former_member_leaves_a_tombstone_too() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    w.command(&g.command(), "____system");
    w.remove(&g, &["u1"]);
    pass(&mut w, 30);
    assert!(!sweep(&mut w), "an unread command is no tombstone");
    w.mark("u1", &g.command(), Mark::Read(MessageSeq(1)));
    pass(&mut w, 8);
    sweep_all(&mut w);
    assert_eq!(count(&w, CONVERSATIONS), 0);
}

#[test]
fn an_unused_temporary_channel_goes_with_all_that_its_members_have_of_it() {
    let mut w = World::new();
    let t = temp("1");
    w.add(&t, &["u1", "u2"]);
    w.command(&t.command(), "____system");
    pass(&mut w, 29);
    assert!(!sweep(&mut w));
    assert!(w.conversation("u1", &t).is_some());
    pass(&mut w, 2);
    sweep_all(&mut w);
    assert_eq!(w.conversation("u1", &t), None, "read or not");
    assert_eq!(w.members_of(&t), vec![]);
    pass(&mut w, 8);
    sweep_all(&mut w);
    assert_eq!(rows(&w), 0);
}

#[test]
fn a_temporary_channel_in_use_stays_and_can_be_made_again() {
    let mut w = World::new();
    let (by_command, by_list) = (temp("1"), temp("2"));
    w.add(&by_command, &["u1"]);
    w.add(&by_list, &["u1"]);
    pass(&mut w, 20);
    w.command(&by_command.command(), "____system");
    w.members(&by_list, SetChange::Replace(uids(&["u2"])));
    pass(&mut w, 20);
    sweep_all(&mut w);
    assert_eq!(w.members_of(&by_command), uids(&["u1"]));
    assert_eq!(w.members_of(&by_list), uids(&["u2"]));
    pass(&mut w, 11);
    sweep_all(&mut w);
    assert_eq!(w.members_of(&by_command), vec![]);
    w.add(&by_command, &["u1"]);
    assert!(w.conversation("u1", &by_command).is_some());
    pass(&mut w, 29);
    sweep_all(&mut w);
    assert_eq!(w.members_of(&by_command), uids(&["u1"]));
}

#[test]
fn a_channel_that_was_not_made_by_its_list_stays() {
    let mut w = World::new();
    let t = temp("1");
    w.done(Write::SetChannel {
        channel: t.clone(),
        flags: Default::default(),
        create_only: false,
    });
    w.add(&t, &["u1"]);
    pass(&mut w, 300);
    assert!(!sweep(&mut w));
    assert_eq!(w.members_of(&t), uids(&["u1"]));
}

#[test]
fn a_large_temporary_channel_goes_in_steps() {
    let mut w = World::new();
    let (big, small) = (temp("1"), temp("1-also"));
    let many: Vec<_> = (0..1_000).map(|n| format!("u{n}")).collect();
    w.add(&big, &many.iter().map(String::as_str).collect::<Vec<_>>());
    w.add(&small, &["u1"]);
    pass(&mut w, 31);
    assert!(sweep(&mut w));
    let left = w.members_of(&big).len();
    assert!((1..1_000).contains(&left), "{left} are left");
    sweep_all(&mut w);
    assert_eq!(w.members_of(&big), vec![]);
    assert_eq!(w.members_of(&small), vec![]);
}

#[test]
fn nothing_is_left_of_a_temporary_channels_lists_and_stages() {
    let mut w = World::new();
    let t = temp("1");
    w.add(&t, &["u1"]);
    w.list(&t, List::Allow, SetChange::Add(uids(&["u2"])));
    w.members(
        &t,
        SetChange::Stage {
            token: 1,
            uids: uids(&["u3"]),
        },
    );
    pass(&mut w, 31);
    sweep_all(&mut w);
    pass(&mut w, 8);
    sweep_all(&mut w);
    assert_eq!(rows(&w), 0);
}

#[test]
fn replaced_generations_are_swept_without_later_writes() {
    let mut w = World::new();
    let g = group("g1");
    for n in 0..3 {
        let many: Vec<_> = (0..900).map(|m| format!("u{n}-{m}")).collect();
        w.add(&g, &many.iter().map(String::as_str).collect::<Vec<_>>());
    }
    w.members(&g, SetChange::Replace(uids(&["u1"])));
    assert!(count(&w, SET_ENTRIES) > 1);
    sweep_all(&mut w);
    assert_eq!(count(&w, SET_ENTRIES), 1);
    assert_eq!(w.members_of(&g), uids(&["u1"]));
}

#[test]
fn other_replicas_forget_the_same_whatever_their_settings() {
    let mut leader = World::new();
    let (g, t) = (group("g1"), temp("1"));
    leader.add(&g, &["u1", "u2"]);
    leader.add(&t, &["u1", "u2", "u3"]);
    leader.remove(&g, &["u1"]);
    pass(&mut leader, 31);
    leader.policy.temp_retention_ms = DAY_MS;
    sweep_all(&mut leader);
    let mut follower = World::new();
    for (group, at, data) in leader.log.clone() {
        follower.apply(group, at, data);
    }
    assert_eq!(follower.dump(), leader.dump());
}
