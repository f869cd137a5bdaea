//! Deny and allow lists, of groups and of persons.

use wk_chat::request::{ChannelFlags, List, SetChange};
use wk_chat::{Answer, Query, Write};
use wk_proto::{ChannelKey, ChannelType, MessageSeq, Reason};

use crate::world::{World, channel, group, own, person, uid, uids};

fn add(list: &[&str]) -> SetChange {
    SetChange::Add(uids(list))
}

fn remove(list: &[&str]) -> SetChange {
    SetChange::Remove(uids(list))
}

fn listed(w: &mut World, owner: &str, list: List) -> Vec<wk_proto::Uid> {
    match w.query(Query::Listed {
        channel: own(owner),
        list,
        after: None,
        limit: 100,
    }) {
        Answer::Listed(entries, false) => entries.into_iter().map(|e| e.uid).collect(),
        other => panic!("{other:?}"),
    }
}

/// (uid, created, updated) of a channel's allow list.
fn dated(w: &mut World, channel: &ChannelKey) -> Vec<(String, u64, u64)> {
    let query = Query::Listed {
        channel: channel.clone(),
        list: List::Allow,
        after: None,
        limit: 100,
    };
    match w.query(query) {
        Answer::Listed(entries, false) => entries
            .into_iter()
            .map(|e| (e.uid.as_str().to_owned(), e.created.0, e.updated.0))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn entries_know_when_they_came_and_when_they_were_last_put_there() {
    let mut w = World::new();
    let g = group("g1");
    let mut put = |change| {
        w.list(&g, List::Allow, change);
        (w.now.0, dated(&mut w, &g))
    };
    let (first, _) = put(add(&["u1"]));
    let (second, listed) = put(add(&["u2", "u1"]));
    let expected = [
        ("u1".to_owned(), first, second),
        ("u2".into(), second, second),
    ];
    assert_eq!(listed, expected);
    let (third, listed) = put(SetChange::Replace(uids(&["u1"])));
    assert_eq!(listed, [("u1".to_owned(), third, third)], "a new list");
}

#[test]
fn a_group_deny_list_binds_the_next_send() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    w.list(&g, List::Deny, add(&["u1"]));
    assert_eq!(w.reason(&g, "u1"), Reason::InBlacklist);
    assert_eq!(w.reason(&g, "u2"), Reason::Success);
    w.list(&g, List::Deny, remove(&["u1"]));
    assert_eq!(w.reason(&g, "u1"), Reason::Success);
}

#[test]
fn a_group_allow_list_binds_while_it_has_entries() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    w.list(&g, List::Allow, add(&["u2"]));
    assert_eq!(w.reason(&g, "u1"), Reason::NotInWhitelist);
    assert_eq!(w.reason(&g, "u2"), Reason::Success);
    w.list(&g, List::Allow, remove(&["u2"]));
    assert_eq!(w.reason(&g, "u1"), Reason::Success);
}

#[test]
fn a_denied_subscriber_keeps_his_conversation_and_a_stranger_does_not() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    w.say(&g, "u1", "x");
    w.remove(&g, &["u2"]);
    let before = w.conversation("u1", &g);
    w.list(&g, List::Deny, add(&["u1", "u2"]));
    assert_eq!(w.conversation("u1", &g), before);
    assert_eq!(w.conversation("u2", &g), None);
    w.list(&g, List::Deny, remove(&["u1", "u2"]));
    assert_eq!(w.conversation("u1", &g), before);
    // The stranger's comes back with nothing unread.
    assert_eq!(w.conversation("u2", &g).unwrap().read, MessageSeq(1));
}

#[test]
fn clearing_a_groups_deny_list_brings_no_conversation_back() {
    let mut w = World::new();
    let g = group("g1");
    w.list(&g, List::Deny, add(&["u1"]));
    w.list(&g, List::Deny, SetChange::Replace(vec![]));
    assert_eq!(w.conversation("u1", &g), None);
    w.add(&g, &["u1"]);
    assert_eq!(w.reason(&g, "u1"), Reason::Success);
}

#[test]
fn live_channels_have_lists_without_conversations() {
    let mut w = World::new();
    let live = channel("l1", ChannelType::LIVE);
    w.list(&live, List::Deny, add(&["u1"]));
    w.list(&live, List::Deny, remove(&["u1"]));
    assert_eq!(w.conversation("u1", &live), None);
}

#[test]
fn a_persons_deny_list_binds_one_direction() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    w.list(&own("u2"), List::Deny, add(&["u1"]));
    assert_eq!(w.reason(&pair, "u1"), Reason::InBlacklist);
    assert_eq!(w.reason(&pair, "u2"), Reason::Success);
    assert_eq!(listed(&mut w, "u2", List::Deny), uids(&["u1"]));
    w.list(&own("u2"), List::Deny, remove(&["u1"]));
    assert_eq!(w.reason(&pair, "u1"), Reason::Success);
    assert_eq!(listed(&mut w, "u2", List::Deny), vec![]);
}

#[test]
fn a_persons_allow_list_binds_when_it_is_enforced() {
    let mut w = World::new();
    w.policy.whitelist_off_of_person = false;
    let pair = person("u1", "u2");
    assert_eq!(w.reason(&pair, "u1"), Reason::NotInWhitelist);
    w.list(&own("u2"), List::Allow, add(&["u1"]));
    assert_eq!(w.reason(&pair, "u1"), Reason::Success);
    assert_eq!(w.reason(&pair, "u2"), Reason::NotInWhitelist);
    w.list(&own("u2"), List::Allow, remove(&["u1"]));
    assert_eq!(w.reason(&pair, "u1"), Reason::NotInWhitelist);
}

#[test]
fn strangers_pass_where_the_receiver_allows_them_but_not_the_denied() {
    let mut w = World::new();
    w.policy.whitelist_off_of_person = false;
    w.done(Write::SetChannel {
        channel: own("u2"),
        flags: ChannelFlags {
            allow_stranger: true,
            ..ChannelFlags::default()
        },
        create_only: false,
    });
    let pair = person("u1", "u2");
    assert_eq!(w.reason(&pair, "u1"), Reason::Success);
    assert_eq!(w.reason(&pair, "u2"), Reason::NotInWhitelist);
    w.list(&own("u2"), List::Deny, add(&["u1"]));
    assert_eq!(w.reason(&pair, "u1"), Reason::InBlacklist);
}

#[test]
fn being_allowed_gives_the_conversation_once_and_not_to_the_owner() {
    let mut w = World::new();
    w.policy.whitelist_off_of_person = false;
    let pair = person("u1", "u2");
    w.list(&own("u2"), List::Allow, add(&["u1", "u2"]));
    assert!(w.conversation("u1", &pair).unwrap().chat);
    assert_eq!(w.conversation("u2", &pair), None);
    assert_eq!(w.conversation("u2", &person("u2", "u2")), None);
    // While the allow list is enforced, messages make no conversation (messaging 7.2).
    w.say(&pair, "u1", "x");
    assert_eq!(w.conversation("u2", &pair), None);
    w.policy.whitelist_off_of_person = true;
    w.say(&pair, "u1", "y");
    assert!(w.conversation("u2", &pair).unwrap().chat);
}

#[test]
fn replacing_a_persons_list_tells_exactly_the_changed_pairs() {
    let mut w = World::new();
    w.list(&own("u0"), List::Deny, add(&["u1", "u2"]));
    w.deliver = false;
    w.list(
        &own("u0"),
        List::Deny,
        SetChange::Replace(uids(&["u2", "u3"])),
    );
    assert_eq!(w.outbox.len(), 2);
    w.deliver_all();
    let mut denied = |user: &str| w.reason(&person("u0", user), user) == Reason::InBlacklist;
    assert_eq!(
        [denied("u1"), denied("u2"), denied("u3")],
        [false, true, true]
    );
}

#[test]
fn a_staged_persons_list_binds_with_the_switch() {
    let mut w = World::new();
    w.list(&own("u0"), List::Deny, add(&["u1"]));
    let stage = SetChange::Stage {
        token: 5,
        uids: uids(&["u2"]),
    };
    w.list(&own("u0"), List::Deny, stage);
    assert_eq!(w.reason(&person("u0", "u2"), "u2"), Reason::Success);
    w.list(&own("u0"), List::Deny, SetChange::Switch { token: 5 });
    assert_eq!(w.reason(&person("u0", "u2"), "u2"), Reason::InBlacklist);
    assert_eq!(w.reason(&person("u0", "u1"), "u1"), Reason::Success);
}

#[test]
fn a_late_pair_row_does_not_bring_an_old_word_back() {
    let mut w = World::new();
    w.deliver = false;
    w.list(&own("u2"), List::Deny, add(&["u1"]));
    w.list(&own("u2"), List::Deny, remove(&["u1"]));
    let rows: Vec<_> = w.outbox.drain(..).map(|(_, _, inbox)| inbox).collect();
    for n in [1, 0, 1, 0] {
        w.deliver_one(rows[n].clone());
    }
    assert_eq!(w.reason(&person("u1", "u2"), "u1"), Reason::Success);
}

#[test]
fn a_persons_list_has_a_limit_that_says_so() {
    let mut w = World::new();
    w.deliver = false;
    let chunk = |n: usize| (0..1_000).map(|i| uid(&format!("{n}-{i}"))).collect();
    for n in 0..10 {
        w.list(&own("u1"), List::Deny, SetChange::Add(chunk(n)));
    }
    let more = Write::Lists {
        channel: own("u1"),
        list: List::Deny,
        change: add(&["one more"]),
    };
    let refused = wk_chat::Reply::Refused(Reason::RateLimit);
    assert_eq!(w.write(more), refused);
    w.list(&own("u1"), List::Deny, remove(&["0-0"]));
}

#[test]
fn denying_who_still_receives_takes_no_conversation() {
    let mut w = World::new();
    let visitors = channel("v1", ChannelType::VISITORS);
    w.command(&visitors.command(), "____system");
    w.list(&visitors, List::Deny, add(&["v1", "u2"]));
    assert!(w.conversation("v1", &visitors).unwrap().command.is_some());
}

#[test]
fn temp_channels_have_lists_without_conversations() {
    let mut w = World::new();
    let temp = channel("t1", ChannelType::TEMP);
    w.list(&temp, List::Deny, add(&["u1"]));
    w.list(&temp, List::Deny, remove(&["u1"]));
    assert_eq!(w.conversation("u1", &temp), None);
}

#[test]
fn a_pair_has_no_lists_of_its_own() {
    let mut w = World::new();
    let write = Write::Lists {
        channel: person("u1", "u2"),
        list: List::Deny,
        change: add(&["u3"]),
    };
    assert_eq!(
        w.write(write),
        wk_chat::Reply::Refused(Reason::ChannelIdError)
    );
}

#[test]
fn an_allow_list_emptied_while_staged_does_not_bind() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    let stage = SetChange::Stage {
        token: 1,
        uids: uids(&["u2"]),
    };
    w.list(&g, List::Allow, stage);
    w.list(&g, List::Allow, remove(&["u2"]));
    w.list(&g, List::Allow, SetChange::Switch { token: 1 });
    assert_eq!(w.reason(&g, "u1"), Reason::Success);
}
