//! Sends: what is stored, what is answered, what is written beside the message.

use std::sync::Arc;

use wk_chat::request::{Origin, SendRequest, SetChange};
use wk_chat::{Command, Effect, Query, Reply, Request, Verdict, Write};
use wk_proto::limits::{PAYLOAD_BYTES_MAX, STR_BYTES_MAX};
use wk_proto::{ChannelType, Flags, GroupId, MessageSeq, Reason};

use crate::world::{World, channel, client, group, message, person, uid, uids};

fn numbered(number: &str, payload: &str) -> SendRequest {
    SendRequest {
        client_msg_no: number.into(),
        ..message(&person("u1", "u2"), "u1", payload)
    }
}

#[test]
fn seqs_of_a_channel_count_from_one_and_ids_grow() {
    let mut w = World::new();
    let first = w.send(message(&person("u1", "u2"), "u1", "a"));
    let second = w.send(message(&person("u1", "u2"), "u2", "b"));
    assert_eq!((first.message_seq.0, second.message_seq.0), (1, 2));
    assert!(second.message_id > first.message_id);
}

#[test]
fn the_appended_effect_has_what_was_sent() {
    let mut w = World::new();
    w.say(&person("u1", "u2"), "u1", "hello");
    let effects = w.take_effects();
    let [
        Effect::Appended {
            channel,
            first,
            messages,
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!((channel, first.0), (&person("u1", "u2"), 1));
    let (record, origin) = &messages[0];
    assert_eq!(
        (record.from_uid(), &record.payload()[..]),
        ("u1", &b"hello"[..])
    );
    assert_eq!(
        Some(*origin),
        match client() {
            Origin::Client(session) => Some(Some(session)),
            Origin::Server => None,
        }
    );
}

#[test]
fn a_resend_gets_the_first_result_and_no_second_delivery() {
    let mut w = World::new();
    let first = w.send(numbered("n1", "hello"));
    w.take_effects();
    let again = w.send(numbered("n1", "hello"));
    assert_eq!(again, first);
    assert_eq!(w.take_effects(), vec![]);
    assert_eq!(w.say(&person("u1", "u2"), "u2", "next"), 2);
}

#[test]
fn copies_in_one_entry_coalesce() {
    let mut w = World::new();
    let request = Request::Send(Arc::new(numbered("n1", "hello")));
    let group = request.group(crate::world::SLOTS);
    let propose = |w: &mut World| match w.decide(group, &request) {
        Verdict::Propose(command) => command,
        other => panic!("{other:?}"),
    };
    let copies = vec![propose(&mut w), propose(&mut w)];
    let replies = w.entry(group, copies);
    assert_eq!(replies[0], replies[1]);
}

#[test]
fn another_payload_under_the_same_number_is_another_message() {
    let mut w = World::new();
    assert_eq!(w.send(numbered("n1", "one")).message_seq.0, 1);
    assert_eq!(w.send(numbered("n1", "two")).message_seq.0, 2);
    // Compared with the newest of the key only: the first payload again is not a resend any more.
    assert_eq!(w.send(numbered("n1", "one")).message_seq.0, 3);
    assert_eq!(w.send(numbered("n1", "one")).message_seq.0, 3);
}

#[test]
fn a_number_is_per_sender_and_channel() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    assert_eq!(w.send(numbered("n1", "x")).message_seq.0, 1);
    let of_u2 = SendRequest {
        from: uid("u2"),
        ..numbered("n1", "x")
    };
    assert_eq!(w.send(of_u2).message_seq.0, 2);
    let elsewhere = SendRequest {
        channel: person("u1", "u3"),
        ..numbered("n1", "x")
    };
    assert_eq!(w.send(elsewhere).message_seq.0, 1);
    assert_eq!(w.say(&pair, "u1", "x"), 3);
}

#[test]
fn the_window_of_resends_ends() {
    let mut w = World::new();
    w.send(numbered("n1", "x"));
    w.now.0 += w.policy.dedupe_window_ms + 10;
    assert_eq!(w.send(numbered("n1", "x")).message_seq.0, 2);
}

#[test]
fn a_window_longer_than_history_finds_everything() {
    let mut w = World::new();
    w.policy.dedupe_window_ms = u64::MAX;
    let first = w.send(numbered("n1", "x"));
    assert_eq!(w.send(numbered("n1", "x")), first);
}

#[test]
fn messages_without_a_number_are_never_duplicates() {
    let mut w = World::new();
    assert_eq!(w.send(numbered("", "x")).message_seq.0, 1);
    assert_eq!(w.send(numbered("", "x")).message_seq.0, 2);
}

#[test]
fn an_id_that_does_not_grow_is_a_recorded_error() {
    let mut w = World::new();
    let request = Request::Send(Arc::new(message(&person("u1", "u2"), "u1", "x")));
    let group = request.group(crate::world::SLOTS);
    let Verdict::Propose(command) = w.decide(group, &request) else {
        panic!("refused");
    };
    let replies = w.entry(group, vec![command.clone(), command]);
    let reasons: Vec<_> = replies
        .iter()
        .map(|r| match r {
            Reply::Sent(s) => (s.message_seq.0, s.reason),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(reasons, [(1, Reason::Success), (0, Reason::SystemError)]);
}

#[test]
fn not_persistent_is_delivered_and_not_stored() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    let result = w.send(SendRequest {
        flags: Flags(Flags::NO_PERSIST),
        ..message(&pair, "u1", "typing")
    });
    assert_eq!(
        (result.reason, result.message_seq),
        (Reason::Success, MessageSeq(0))
    );
    assert_ne!(result.message_id.0, 0);
    assert!(matches!(
        &w.take_effects()[..],
        [Effect::Transient {
            recipients: None,
            ..
        }]
    ));
    assert_eq!(w.view_of(&pair).head(&pair).unwrap(), None);
    assert!(w.log.is_empty());
}

#[test]
fn explicit_recipients_are_the_servers_and_never_stored() {
    let mut w = World::new();
    let temp = channel("systemcmdonline", ChannelType::TEMP);
    let send = SendRequest {
        origin: Origin::Server,
        flags: Flags(Flags::NO_PERSIST | Flags::SYNC_ONCE),
        recipients: Some(uids(&["u1", "u2"]).into()),
        ..message(&temp, "____system", "x")
    };
    assert_eq!(w.send(send.clone()).reason, Reason::Success);
    let stored = SendRequest {
        flags: Flags(0),
        ..send.clone()
    };
    assert_eq!(w.send(stored).reason, Reason::NotAllowSend);
    let clients = SendRequest {
        origin: client(),
        ..send
    };
    assert_eq!(w.send(clients).reason, Reason::NotAllowSend);
}

#[test]
fn what_does_not_fit_a_record_is_refused_and_does_not_panic() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    let of_bytes = |n| SendRequest {
        payload: vec![0; n].into(),
        ..message(&pair, "u1", "")
    };
    assert_eq!(w.send(of_bytes(PAYLOAD_BYTES_MAX)).reason, Reason::Success);
    let refused = w.send(of_bytes(PAYLOAD_BYTES_MAX + 1));
    assert_eq!(refused.reason, Reason::PayloadDecodeError);
    assert_ne!(refused.message_id.0, 0);
    let long: Arc<str> = "n".repeat(STR_BYTES_MAX + 1).into();
    let numbered = SendRequest {
        client_msg_no: long,
        ..message(&pair, "u1", "x")
    };
    assert_eq!(w.send(numbered).reason, Reason::PayloadDecodeError);
}

#[test]
fn a_pair_id_that_names_no_two_users_is_refused() {
    let mut w = World::new();
    for base in ["u1", "u1@", "@u2", "u1@u2@u3"] {
        let bad = channel(base, ChannelType::PERSON);
        assert_eq!(w.reason(&bad, "u1"), Reason::ChannelIdError, "{base}");
    }
    assert_eq!(w.reason(&person("u2", "u3"), "u1"), Reason::ChannelIdError);
}

#[test]
fn only_the_first_message_of_a_pair_writes_rows() {
    let mut w = World::new();
    let pair = person("u1", "u2");
    w.say(&pair, "u1", "first");
    let (rows, entries) = (w.rows(), w.log.len());
    for n in 0..20 {
        w.say(&pair, if n % 2 == 0 { "u1" } else { "u2" }, "more");
    }
    assert_eq!(w.rows(), rows);
    // One entry a message: nothing was owed, delivered and forgotten in between.
    assert_eq!(w.log.len(), entries + 20);
}

#[test]
fn a_message_to_a_group_writes_no_row_and_neither_does_a_command() {
    let mut w = World::new();
    let g = group("g1");
    w.add(&g, &["u1", "u2"]);
    let rows = w.rows();
    w.say(&g, "u1", "x");
    w.command(&g.command(), "____system");
    assert_eq!(w.rows(), rows);
}

#[test]
fn a_query_is_not_decided() {
    let mut w = World::new();
    let request = Request::Query(Box::new(Query::SystemUids));
    assert_eq!(
        w.decide(GroupId::Control, &request),
        Verdict::Answer(Reply::Refused(Reason::SystemError))
    );
}

#[test]
fn writes_nothing_could_make_right_are_not_logged() {
    let mut w = World::new();
    let many: Vec<_> = (0..1_001).map(|n| uid(&n.to_string())).collect();
    let change = SetChange::Add(many);
    let cases = [
        (group("g1"), change, Reason::RateLimit),
        (
            group("g1").command(),
            SetChange::Add(vec![]),
            Reason::ChannelIdError,
        ),
        (
            person("u1", "u2"),
            SetChange::Add(vec![]),
            Reason::ChannelIdError,
        ),
    ];
    for (channel, change, reason) in cases {
        let reply = w.write(Write::Members { channel, change });
        assert_eq!(reply, Reply::Refused(reason));
    }
    assert!(w.log.is_empty());
}

#[test]
fn batches_can_be_closed_by_size() {
    let mut w = World::new();
    let request = Request::Send(Arc::new(message(&group("g"), "____system", "hello")));
    let group = request.group(crate::world::SLOTS);
    let Verdict::Propose(append) = w.decide(group, &request) else {
        panic!("refused");
    };
    let done = Command::Write(Box::new(Write::OutboxDone { keys: vec![] }));
    let len = |commands: Vec<Command>| {
        let stamp = wk_chat::Stamp {
            time: w.now,
            rules: wk_chat::command::RulesVersion::CURRENT,
            cursors: vec![],
        };
        wk_chat::Batch { stamp, commands }.encode().len()
    };
    let empty = len(vec![]);
    for command in [append, done] {
        assert_eq!(len(vec![command.clone()]) - empty, command.encoded_len());
    }
}
