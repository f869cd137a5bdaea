//! The message object of every route that returns messages (http-api 1.7, messaging 5.4).

use wk_proto::channel::SYSTEM_UID;
use wk_proto::record::Flags;
use wk_proto::{ChannelKey, ChannelType};
use wk_store::Stored;

use super::json::Json;

/// Bytes of a message object without its texts and payload.
const FIXED_BYTES: usize = 384;

/// Roughly what `messages` take as JSON.
pub(crate) fn size_hint(messages: &[Stored]) -> usize {
    messages
        .iter()
        .map(|m| FIXED_BYTES + m.record.as_bytes().len() * 4 / 3)
        .sum()
}

/// Writes one message of `channel`.
pub(crate) fn write(json: &mut Json, channel: &ChannelKey, stored: &Stored) {
    let record = &stored.record;
    let flags = record.flags();
    let from = record.from_uid();
    let shown_from = if from == SYSTEM_UID { "" } else { from };
    let id = record.message_id().0;
    json.object(|o| {
        o.key("header").object(|h| {
            let flag = |mask| u8::from(flags.has(mask));
            h.key("no_persist").int(flag(Flags::NO_PERSIST));
            h.key("red_dot").int(flag(Flags::RED_DOT));
            h.key("sync_once").int(flag(Flags::SYNC_ONCE));
        });
        o.key("setting").int(record.setting());
        o.key("message_id").int(id);
        o.key("message_idstr").int_text(id);
        o.key("client_msg_no").text(record.client_msg_no());
        o.key("message_seq").int(stored.seq.0);
        o.key("from_uid").text(shown_from);
        o.key("channel_id").text(shown_channel(channel, from));
        o.key("channel_type").int(channel.kind.0);
        if !record.topic().is_empty() {
            o.key("topic").text(record.topic());
        }
        o.key("expire").int(record.expire());
        o.key("timestamp").int(record.time().0 / 1_000);
        o.key("payload").base64(record.payload_ref());
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
