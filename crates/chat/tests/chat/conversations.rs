//! Conversation rows: who gets one, which marks move, what is owed.

use wk_chat::request::{Inbox, Mark, MembershipChange};
use wk_chat::{Effect, Write};
use wk_proto::{ChannelKey, ChannelType, Epoch, GroupId, LogIndex, MessageSeq, WallMs};

use crate::world::{SLOTS, World, channel, group, person, uid};

fn marks(w: &mut World, user: &str, channel: &ChannelKey) -> Option<(u64, u64)> {
    let row = w.conversation(user, channel)?;
    Some((row.read.0, row.deleted.0))
}

fn commands(w: &mut World, user: &str, channel: &ChannelKey) -> Option<(u64, u64)> {
    let row = w.conversation(user, channel)?;
    row.command.map(|(read, until)| (read.0, until.0))
}

#[test]
fn the_first_message_makes_both_conversations() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    w.say(&pair, "u1", "x");
    assert_eq!(marks(&mut w, "u1", &pair), Some((1, 0)));
    assert_eq!(marks(&mut w, "u2", &pair), Some((0, 0)));
    assert!(w.outbox.is_empty());
}

#[test]
fn what_is_owed_is_remembered_until_it_is_delivered() {
    let mut w = World::new();
    w.deliver = false;
    let pair = person("u1", "u2");
    w.say(&pair, "u1", "x");
    assert_eq!(w.conversation("u2", &pair), None);
    let group = GroupId::Slot(pair.slot(SLOTS));
    let expected: Vec<_> = w
        .outbox
        .iter()
        .map(|(_, key, inbox)| Effect::Outbox(*key, inbox.clone()))
        .collect();
    assert_eq!(expected.len(), 2);
    assert_eq!(w.owed(group), expected);
    w.deliver_all();
    assert_eq!(w.owed(group), vec![]);
    assert!(w.conversation("u2", &pair).is_some());
}

#[test]
fn talking_to_oneself_makes_one_conversation() {
    let mut w = World::new();
    let own = person("u1", "u1");
    w.say(&own, "u1", "note");
    assert_eq!(w.conversations("u1").len(), 1);
    assert_eq!(marks(&mut w, "u1", &own), Some((1, 0)));
}

#[test]
fn the_server_itself_collects_no_conversations() {
    let mut w = World::new();
    let pair = person("____system", "u1");
    w.say(&pair, "____system", "welcome");
    assert!(w.conversation("u1", &pair).is_some());
    assert_eq!(w.conversations("____system"), vec![]);
}

#[test]
fn customer_service_makes_the_visitors_conversation() {
    let mut w = World::new();
    let service = channel("v1|shop", ChannelType::CUSTOMER_SERVICE);
    w.say(&service, "agent", "hello");
    assert_eq!(marks(&mut w, "v1", &service), Some((0, 0)));
    assert_eq!(w.conversation("agent", &service), None);
}

#[test]
fn agents_visitors_and_data_make_none_by_messages() {
    let mut w = World::new();
    let agent = channel("u1@bot", ChannelType::AGENT);
    w.say(&agent, "u1", "x");
    let visitors = channel("v1", ChannelType::VISITORS);
    w.say(&visitors, "v1", "x");
    for user in ["u1", "bot", "v1"] {
        assert_eq!(w.conversations(user), vec![], "{user}");
    }
}

#[test]
fn a_command_to_a_pair_makes_command_parts_only() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    w.command(&pair.command(), "u1");
    let row = w.conversation("u2", &pair).unwrap();
    assert_eq!(
        (row.chat, row.command),
        (false, Some((MessageSeq(0), MessageSeq(0))))
    );
    assert_eq!(commands(&mut w, "u1", &pair), Some((1, 0)));
    let rows = w.rows();
    w.command(&pair.command(), "u2");
    assert_eq!(w.rows(), rows);
    // The chat parts come with the first message, whatever the twin has done.
    w.say(&pair, "u1", "x");
    let row = w.conversation("u2", &pair).unwrap();
    assert_eq!(
        (row.chat, row.command),
        (true, Some((MessageSeq(0), MessageSeq(0))))
    );
}

#[test]
fn commands_to_implicit_recipients_make_their_parts() {
    let mut w = World::new();
    let cases = [
        (channel("u1@bot", ChannelType::AGENT), &["u1", "bot"][..]),
        (channel("v1", ChannelType::VISITORS), &["v1"]),
        (channel("v2|x", ChannelType::CUSTOMER_SERVICE), &["v2"]),
    ];
    for (channel, users) in cases {
        w.command(&channel.command(), "____system");
        for user in users {
            assert_eq!(commands(&mut w, user, &channel), Some((0, 0)), "{user}");
        }
    }
}

#[test]
fn a_temp_channels_members_get_its_commands() {
    let mut w = World::new();
    let temp = channel("17922244540036557902", ChannelType::TEMP);
    w.add(&temp, &["u1", "u2"]);
    w.command(&temp.command(), "____system");
    assert_eq!(commands(&mut w, "u1", &temp), Some((0, 0)));
    w.mark("u1", &temp.command(), Mark::Read(MessageSeq(1)));
    assert_eq!(commands(&mut w, "u1", &temp), Some((1, 0)));
}

#[test]
fn read_never_lowers_and_unread_sets_exactly() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    for (mark, read) in [
        (Mark::Read(MessageSeq(5)), 5),
        (Mark::Read(MessageSeq(3)), 5),
        (Mark::Unread(MessageSeq(2)), 2),
        (Mark::Unread(MessageSeq(9)), 9),
    ] {
        w.mark("u1", &g, mark);
        assert_eq!(marks(&mut w, "u1", &g), Some((read, 0)), "{mark:?}");
    }
}

#[test]
fn marks_create_rows_only_where_they_mean_something() {
    let mut w = World::new();
    let g = group("g1");
    w.mark("u1", &g, Mark::Deleted(MessageSeq(4)));
    w.mark("u1", &g, Mark::Read(MessageSeq(0)));
    w.mark("u1", &g.command(), Mark::Read(MessageSeq(4)));
    assert_eq!(w.conversation("u1", &g), None);
    w.mark("u1", &g, Mark::Read(MessageSeq(4)));
    assert_eq!(marks(&mut w, "u1", &g), Some((4, 0)));
    w.mark("u2", &g, Mark::Unread(MessageSeq(0)));
    assert_eq!(marks(&mut w, "u2", &g), Some((0, 0)));
}

#[test]
fn deleting_hides_and_keeps_the_read_mark() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    w.mark("u1", &g, Mark::Deleted(MessageSeq(5)));
    w.mark("u1", &g, Mark::Deleted(MessageSeq(3)));
    assert_eq!(marks(&mut w, "u1", &g), Some((0, 5)));
}

#[test]
fn marks_of_the_twin_move_the_command_part_alone() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1"]);
    w.mark("u1", &g.command(), Mark::Read(MessageSeq(3)));
    w.mark("u1", &g.command(), Mark::Read(MessageSeq(2)));
    w.mark("u1", &g.command(), Mark::Unread(MessageSeq(1)));
    assert_eq!(commands(&mut w, "u1", &g), Some((3, 0)));
    assert_eq!(marks(&mut w, "u1", &g), Some((0, 0)));
}

#[test]
fn rows_are_listed_newest_change_first_up_to_the_limit() {
    let mut w = World::new();
    for base in ["a", "b", "c"] {
        w.add(&group(base), &["u1"]);
    }
    w.mark("u1", &group("b"), Mark::Read(MessageSeq(1)));
    let order: Vec<_> = w
        .conversations("u1")
        .into_iter()
        .map(|r| r.channel.base.as_str().to_owned())
        .collect();
    assert_eq!(order, ["b", "c", "a"]);
    let query = wk_chat::Query::Conversations {
        uid: uid("u1"),
        limit: 2,
    };
    let wk_chat::Answer::Conversations(rows) = w.query(query) else {
        panic!("another answer");
    };
    assert_eq!(rows.len(), 2);
}

#[test]
fn a_user_with_too_many_rows_loses_the_least_useful() {
    let mut w = World::new();
    let to = GroupId::Slot(wk_proto::channel::slot_of("u1", SLOTS));
    let told_of = |channel, n: u64, change| {
        let inbox = Inbox::Membership {
            uid: uid("u1"),
            channel,
            epoch: Epoch {
                index: LogIndex(n + 1),
                position: 0,
            },
            change,
            time: WallMs(n + 1),
        };
        wk_chat::Command::Write(Box::new(Write::Inbox(inbox)))
    };
    let told = |n: u64, change| told_of(group(&format!("g{n}")), n, change);
    let join = MembershipChange::Join {
        read: MessageSeq(0),
        command_read: None,
    };
    let leave = MembershipChange::Leave {
        command_until: MessageSeq(0),
    };
    // One tombstone and one list of recipients that are newer than all rows, then rows up to the limit.
    let listed = MembershipChange::Command {
        read: MessageSeq(0),
    };
    let list = channel("1", ChannelType::TEMP);
    let mut commands = vec![told(1 << 40, leave), told_of(list, 1 << 40, listed)];
    commands.extend((0..49_998).map(|n| told(n, join)));
    w.entry(to, commands.drain(..).take(4_096).collect());
    let mut rest = (4_094..49_998).map(|n| told(n, join)).collect::<Vec<_>>();
    while !rest.is_empty() {
        let chunk = rest.drain(..rest.len().min(4_096)).collect();
        w.entry(to, chunk);
    }
    assert_eq!(w.conversations("u1").len(), 49_999);
    w.entry(to, vec![told(50_000, join)]);
    let rows = w.conversations("u1");
    // 500 made room: the tombstone, the list and the 498 oldest.
    assert_eq!(rows.len(), 49_999 - 499 + 1);
    assert_eq!(rows[0].updated, WallMs(50_001));
    assert_eq!(rows.last().unwrap().updated, WallMs(499));
    // The room is for 500 new rows.
    w.entry(to, (50_001..50_500).map(|n| told(n, join)).collect());
    assert_eq!(w.conversations("u1").len(), 50_000);
}

#[test]
fn a_conversation_that_comes_late_keeps_what_was_marked() {
    let mut w = World::new();
    w.policy.whitelist_off_of_person = false;
    let pair = person("____system", "u2");
    w.say(&pair, "____system", "x");
    w.mark("u2", &pair, Mark::Read(MessageSeq(1)));
    w.policy.whitelist_off_of_person = true;
    w.say(&pair, "____system", "y");
    assert_eq!(marks(&mut w, "u2", &pair), Some((1, 0)));
}

#[test]
fn rows_owed_by_the_commands_of_one_entry_are_kept_apart() {
    let mut w = World::new();
    w.deliver = false;
    let pair = person("u1", "u2");
    let to = GroupId::Slot(pair.slot(SLOTS));
    let commands: Vec<_> = [pair.clone(), pair.command()]
        .iter()
        .map(|channel| {
            let send = crate::world::message(channel, "____system", "x");
            let send = wk_chat::SendRequest {
                origin: wk_chat::request::Origin::Server,
                ..send
            };
            let request = wk_chat::Request::Send(std::sync::Arc::new(send));
            match w.decide(to, &request) {
                wk_chat::Verdict::Propose(command) => command,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    w.entry(to, commands);
    assert_eq!(w.owed(to).len(), 4);
    w.deliver_all();
    for user in ["u1", "u2"] {
        let row = w.conversation(user, &pair).unwrap();
        assert!(row.chat && row.command.is_some());
    }
}
