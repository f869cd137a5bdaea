//! Entries: the bytes other builds wrote, and that applying them depends on nothing else.

use bytes::Bytes;
use wk_chat::command::{Append, Consumer, DecodeError, RulesVersion};
use wk_chat::request::{
    ChannelFlags, DeviceLevel, Inbox, List, Mark, MembershipChange, OutboxKey, SetChange,
};
use wk_chat::{Batch, Command, Stamp, Write};
use wk_proto::record::Body;
use wk_proto::{ConnId, Epoch, Flags, LogIndex, MessageId, MessageSeq, NodeId, SessionRef, WallMs};

use crate::world::{World, group, own, person, uid, uids};

fn append() -> Command {
    let record = Body {
        flags: Flags(2),
        setting: 0,
        expire: 0,
        message_id: MessageId(77),
        time: WallMs(1_000),
        from_uid: "u1",
        client_msg_no: "n",
        topic: "",
        stream_no: "",
        payload: b"hi",
    };
    Command::Append(Append {
        channel: group("g").command(),
        record: record.encode(),
        dedupe_since: WallMs(5),
        conversation: true,
        origin: Some(SessionRef {
            node: NodeId(3),
            conn: ConnId(9),
        }),
    })
}

fn epoch() -> Epoch {
    Epoch {
        index: LogIndex(300),
        position: 2,
    }
}

/// One of every kind, with every variant of the parts.
fn writes() -> Vec<Write> {
    let members = |change| Write::Members {
        channel: group("g"),
        change,
    };
    let list = |list, change| Write::Lists {
        channel: own("u1"),
        list,
        change,
    };
    let mark = |channel, mark| Write::Mark {
        uid: uid("u1"),
        channel,
        mark,
    };
    let inbox = |change| {
        Write::Inbox(Inbox::Membership {
            uid: uid("u1"),
            channel: person("u1", "u2"),
            epoch: epoch(),
            change,
            time: WallMs(1_000),
        })
    };
    let (one, two) = (uids(&["a"]), uids(&["a", "b"]));
    let flags = ChannelFlags {
        ban: true,
        disband: false,
        send_ban: true,
        allow_stranger: false,
        large: true,
    };
    vec![
        Write::SetToken {
            uid: uid("u1"),
            device_flag: 99,
            level: DeviceLevel::Master,
            token: "t".into(),
        },
        Write::QuitDevices {
            uid: uid("u1"),
            device_flag: None,
        },
        Write::QuitDevices {
            uid: uid("u1"),
            device_flag: Some(0),
        },
        Write::SetChannel {
            channel: group("g"),
            flags,
            create_only: true,
        },
        Write::Disband {
            channel: group("g"),
        },
        members(SetChange::Add(two.clone())),
        members(SetChange::Remove(one.clone())),
        members(SetChange::Replace(vec![])),
        members(SetChange::Stage {
            token: 1 << 63,
            uids: one.clone(),
        }),
        members(SetChange::Switch { token: 1 << 63 }),
        list(List::Deny, SetChange::Add(one.clone())),
        list(List::Allow, SetChange::Remove(two.clone())),
        mark(group("g"), Mark::Read(MessageSeq(1))),
        mark(group("g").command(), Mark::Unread(MessageSeq(0))),
        mark(person("a", "b"), Mark::Deleted(MessageSeq(1 << 40))),
        inbox(MembershipChange::Join {
            read: MessageSeq(4),
            command_read: Some(MessageSeq(0)),
        }),
        inbox(MembershipChange::Join {
            read: MessageSeq(0),
            command_read: None,
        }),
        inbox(MembershipChange::Leave {
            command_until: MessageSeq(6),
        }),
        inbox(MembershipChange::Command {
            read: MessageSeq(7),
        }),
        Write::Inbox(Inbox::Pair {
            owner: uid("u1"),
            uid: uid("u2"),
            list: List::Allow,
            present: true,
            epoch: epoch(),
        }),
        Write::OutboxDone {
            keys: vec![OutboxKey {
                index: LogIndex(5),
                position: 1,
            }],
        },
        Write::SystemUids {
            uids: two,
            add: true,
        },
        Write::Sweep {
            tombstones: WallMs(9),
            temporaries: WallMs(7),
        },
        Write::Genesis(Box::new(crate::control::genesis())),
        Write::Bind {
            node: NodeId(3),
            uuid: 0xabc << 100,
        },
    ]
}

fn batch(commands: Vec<Command>) -> Batch {
    Batch {
        stamp: Stamp {
            time: WallMs(1_700_000_000_000),
            rules: RulesVersion::CURRENT,
            cursors: vec![
                (Consumer::Deliver, MessageId(70)),
                (Consumer::Notify, MessageId(60)),
                (Consumer::PersistAfter, MessageId(-1)),
            ],
        },
        commands,
    }
}

fn all() -> Batch {
    let writes = writes().into_iter().map(|w| Command::Write(Box::new(w)));
    batch(std::iter::once(append()).chain(writes).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A change of this file means that older logs can no longer be read: add a command version instead.
#[test]
fn the_bytes_of_an_entry_never_change() {
    let mut batches = vec![batch(vec![])];
    batches.extend(all().commands.into_iter().map(|command| {
        let mut one = batch(vec![command]);
        one.stamp.cursors.clear();
        one
    }));
    let lines: Vec<_> = batches.iter().map(|b| hex(&b.encode())).collect();
    let golden = include_str!("golden-entries.txt");
    assert_eq!(
        lines,
        golden.lines().collect::<Vec<_>>(),
        "\n{}",
        lines.join("\n")
    );
}

#[test]
fn entries_read_back() {
    let batch = all();
    assert_eq!(Batch::decode(batch.encode()), Ok(batch));
}

#[test]
fn records_are_slices_of_the_entry() {
    let data = batch(vec![append()]).encode();
    let Ok(Batch { commands, .. }) = Batch::decode(data.clone()) else {
        panic!("not decoded");
    };
    let Command::Append(append) = &commands[0] else {
        panic!("another command");
    };
    let bytes = append.record.as_bytes();
    assert!(data.as_ptr_range().contains(&bytes.as_ptr()));
}

#[test]
fn a_cut_entry_is_an_error_at_every_length() {
    let data = all().encode();
    for len in 0..data.len() {
        assert!(Batch::decode(data.slice(..len)).is_err(), "{len} bytes");
    }
    let mut longer = data.to_vec();
    longer.push(0);
    assert!(Batch::decode(longer.into()).is_err());
}

#[test]
fn what_a_newer_build_writes_stops_the_group() {
    let empty = batch(vec![]).encode().len();
    let changed = |at: usize, value: u8| {
        let mut data = batch(vec![append()]).encode().to_vec();
        data[at] = value;
        Batch::decode(data.into())
    };
    let unknown = |kind, version| Err(DecodeError::Unknown { kind, version });
    assert_eq!(changed(0, 2), unknown(0, 2));
    assert_eq!(changed(2, 2), unknown(0, 2));
    assert_eq!(changed(empty, 200), unknown(200, 1));
    assert_eq!(changed(empty + 2, 2), unknown(1, 2));
}

#[test]
fn no_bytes_make_decoding_panic() {
    let data = all().encode();
    for at in 0..data.len() {
        for flip in [1u8, 0x80, 0xFF] {
            let mut bytes = data.to_vec();
            bytes[at] ^= flip;
            let _ = Batch::decode(Bytes::from(bytes));
        }
    }
}

#[test]
fn the_same_entries_make_the_same_rows_whatever_the_configuration() {
    let mut leader = World::new();
    let g = group("g1");
    leader.add(&g, &["u1", "u2"]);
    leader.say(&g, "u1", "x");
    leader.say(&person("u1", "u2"), "u1", "x");
    leader.command(&g.command(), "____system");
    leader.list(&own("u2"), List::Allow, SetChange::Add(uids(&["u1"])));
    leader.list(&own("u2"), List::Allow, SetChange::Replace(uids(&["u3"])));
    leader.members(&g, SetChange::Replace(uids(&["u3"])));
    leader.remove(&g, &["u3"]);
    leader.mark("u1", &g, Mark::Read(MessageSeq(1)));

    let mut follower = World::new();
    follower.policy.whitelist_off_of_person = false;
    follower.policy.token_auth = true;
    for (group, at, data) in leader.log.clone() {
        follower.apply(group, at, data);
    }
    assert_eq!(follower.dump(), leader.dump());
    for channel in [g.clone(), g.command(), person("u1", "u2")] {
        let head = |w: &World| w.view_of(&channel).head(&channel).unwrap();
        assert_eq!(head(&follower), head(&leader));
    }
}

#[test]
fn positions_of_consumers_only_advance() {
    let mut w = World::new();
    let g = wk_proto::GroupId::Slot(wk_proto::SlotId(0));
    let cursor = |w: &World, c| wk_chat::Machine::cursor(&w.view(g), c).unwrap().0;
    let entry = |cursors| {
        let mut batch = batch(vec![]);
        batch.stamp.cursors = cursors;
        batch.encode()
    };
    assert_eq!(cursor(&w, Consumer::Deliver), 0);
    let first = vec![
        (Consumer::Deliver, MessageId(7)),
        (Consumer::Notify, MessageId(3)),
    ];
    w.apply(g, LogIndex(1), entry(first));
    w.apply(
        g,
        LogIndex(2),
        entry(vec![(Consumer::Deliver, MessageId(5))]),
    );
    w.apply(
        g,
        LogIndex(3),
        entry(vec![(Consumer::Notify, MessageId(4))]),
    );
    assert_eq!(cursor(&w, Consumer::Deliver), 7);
    assert_eq!(cursor(&w, Consumer::Notify), 4);
    assert_eq!(cursor(&w, Consumer::PersistAfter), 0);
}
