//! The message object of every route that returns messages (http-api 1.7, messaging 5.4).

use wk_proto::channel::SYSTEM_UID;
use wk_proto::record::Flags;
use wk_proto::{ChannelKey, ChannelType};
use wk_store::Stored;

use super::json::{Json, push_base64, push_int, push_text};

/// Bytes of a message object without its texts and payload.
const FIXED_BYTES: usize = 384;

/// Roughly what `messages` take as JSON.
pub(crate) fn size_hint(messages: &[Stored]) -> usize {
    messages
        .iter()
        .map(|m| FIXED_BYTES + m.record.as_bytes().len() * 4 / 3)
        .sum()
}

/// The begin of a message object, by its flags: no_persist 1, red_dot 2, sync_once 4.
const HEADERS: [&[u8]; 8] = [
    br#"{"header":{"no_persist":0,"red_dot":0,"sync_once":0},"setting":"#,
    br#"{"header":{"no_persist":1,"red_dot":0,"sync_once":0},"setting":"#,
    br#"{"header":{"no_persist":0,"red_dot":1,"sync_once":0},"setting":"#,
    br#"{"header":{"no_persist":1,"red_dot":1,"sync_once":0},"setting":"#,
    br#"{"header":{"no_persist":0,"red_dot":0,"sync_once":1},"setting":"#,
    br#"{"header":{"no_persist":1,"red_dot":0,"sync_once":1},"setting":"#,
    br#"{"header":{"no_persist":0,"red_dot":1,"sync_once":1},"setting":"#,
    br#"{"header":{"no_persist":1,"red_dot":1,"sync_once":1},"setting":"#,
];

/// Writes one message of `channel`. Most of a `/conversation/sync` of thousands of messages is spent here: fixed pieces, no look back.
pub(crate) fn write(json: &mut Json, channel: &ChannelKey, stored: &Stored) {
    let record = &stored.record;
    let flags = record.flags();
    let from = record.from_uid();
    let shown_from = if from == SYSTEM_UID { "" } else { from };
    let id = record.message_id().0;
    let bit = |mask, value| if flags.has(mask) { value } else { 0 };
    let header = bit(Flags::NO_PERSIST, 1) | bit(Flags::RED_DOT, 2) | bit(Flags::SYNC_ONCE, 4);
    json.by_hand(|out| {
        out.extend_from_slice(HEADERS[header]);
        push_int(out, record.setting());
        out.extend_from_slice(br#","message_id":"#);
        push_int(out, id);
        out.extend_from_slice(br#","message_idstr":""#);
        push_int(out, id);
        out.extend_from_slice(br#"","client_msg_no":"#);
        push_text(out, record.client_msg_no());
        out.extend_from_slice(br#","message_seq":"#);
        push_int(out, stored.seq.0);
        out.extend_from_slice(br#","from_uid":"#);
        push_text(out, shown_from);
        out.extend_from_slice(br#","channel_id":"#);
        push_text(out, shown_channel(channel, from));
        out.extend_from_slice(br#","channel_type":"#);
        push_int(out, channel.kind.0);
        let topic = record.topic();
        if !topic.is_empty() {
            out.extend_from_slice(br#","topic":"#);
            push_text(out, topic);
        }
        out.extend_from_slice(br#","expire":"#);
        push_int(out, record.expire());
        out.extend_from_slice(br#","timestamp":"#);
        push_int(out, record.time().0 / 1_000);
        out.extend_from_slice(br#","payload":"#);
        push_base64(out, record.payload_ref());
        out.push(b'}');
    });
}

/// The channel id as callers see it: for persons the *receiver* of the message; never the command suffix.
pub(crate) fn shown_channel<'a>(channel: &'a ChannelKey, from: &str) -> &'a str {
    let base = channel.base.as_str();
    if channel.kind != ChannelType::PERSON {
        return base;
    }
    let Some((first, second)) = base.split_once('@') else {
        return base;
    };
    if first == second {
        return base;
    }
    if second == from { first } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::record::Body;
    use wk_proto::{ChannelId, MessageId, MessageSeq, WallMs};

    fn stored(from: &str, topic: &str) -> Stored {
        let body = Body {
            flags: Flags(Flags::RED_DOT | Flags::SYNC_ONCE),
            setting: 0x08,
            expire: 30,
            message_id: MessageId(1_948_310_293_847_474_176),
            time: WallMs(1_767_225_600_123),
            from_uid: from,
            client_msg_no: "c-<1>",
            topic,
            stream_no: "",
            payload: b"hello?>",
        };
        Stored {
            seq: MessageSeq(7),
            record: body.encode(),
        }
    }

    fn person(id: &str) -> ChannelKey {
        ChannelKey::new(ChannelId::trusted(id), ChannelType::PERSON)
    }

    #[test]
    fn golden() {
        let mut json = Json::default();
        write(&mut json, &person("bob@alice"), &stored("alice", "t"));
        assert_eq!(
            String::from_utf8(json.into_bytes()).unwrap(),
            concat!(
                r#"{"header":{"no_persist":0,"red_dot":1,"sync_once":1},"setting":8,"message_id":1948310293847474176,"#,
                r#""message_idstr":"1948310293847474176","client_msg_no":"c-\u003c1\u003e","message_seq":7,"from_uid":"alice","#,
                r#""channel_id":"bob","channel_type":1,"topic":"t","expire":30,"timestamp":1767225600,"payload":"aGVsbG8/Pg=="}"#
            )
        );
    }

    #[test]
    fn the_system_account_is_hidden() {
        let mut json = Json::default();
        write(&mut json, &person("u1@____system"), &stored(SYSTEM_UID, ""));
        let text = String::from_utf8(json.into_bytes()).unwrap();
        assert!(text.contains(r#""from_uid":"","channel_id":"u1","channel_type":1,"expire""#));
    }

    #[test]
    fn persons_are_shown_as_the_receiver() {
        for (id, from, shown) in [
            ("bob@alice", "alice", "bob"),
            ("bob@alice", "bob", "alice"),
            ("a@a", "a", "a@a"),
            ("u1@____system", SYSTEM_UID, "u1"),
            ("____system@u7", SYSTEM_UID, "u7"),
        ] {
            assert_eq!(shown_channel(&person(id), from), shown, "{id} from {from}");
        }
        let group = ChannelKey::new(ChannelId::trusted("g1"), ChannelType::GROUP).command();
        assert_eq!(shown_channel(&group, "x"), "g1");
        let agent = ChannelKey::new(ChannelId::trusted("u@ai"), ChannelType::AGENT);
        assert_eq!(shown_channel(&agent, "u"), "u@ai");
    }
}
