//! Reads `vectors/wkproto.json`: conformance vectors made with the reference server's own codec.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use serde_json::Value;
use wk_proto::frame::*;
use wk_proto::record::Flags;

/// The entries of one array of the vectors, with their names.
pub fn vectors(array: &str) -> Vec<(String, Value)> {
    let all: Value = serde_json::from_str(include_str!("../vectors/wkproto.json")).unwrap();
    let entries = all[array].as_array().unwrap();
    assert!(!entries.is_empty());
    entries
        .iter()
        .map(|e| (e["name"].as_str().unwrap().to_owned(), e.clone()))
        .collect()
}

pub fn unhex(text: &Value) -> Bytes {
    let text = text.as_str().unwrap().as_bytes();
    let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
    text.chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

pub fn text(entry: &Value, key: &str) -> Bytes {
    match &entry[key] {
        Value::Null => Bytes::new(),
        value => Bytes::from(value.as_str().unwrap().to_owned()),
    }
}

/// A number, absent (0), plain or as decimal text.
pub fn number<T: TryFrom<i128>>(entry: &Value, key: &str) -> T {
    let n: i128 = match &entry[key] {
        Value::Null => 0,
        Value::String(text) => text.parse().unwrap(),
        value => value.to_string().parse().unwrap(),
    };
    T::try_from(n).ok().unwrap()
}

pub fn flags(decoded: &Value) -> Flags {
    let on = |name: &str| decoded["flags"][name].as_bool().unwrap_or(false);
    Flags::default()
        .with(Flags::NO_PERSIST, on("noPersist"))
        .with(Flags::RED_DOT, on("redDot"))
        .with(Flags::SYNC_ONCE, on("syncOnce"))
        .with(Flags::DUP, on("dup"))
}

fn hex_field(decoded: &Value, key: &str) -> Bytes {
    match &decoded[key] {
        Value::Null => Bytes::new(),
        value => unhex(value),
    }
}

/// The frame a vector describes.
pub fn frame(d: &Value) -> Frame {
    match d["type"].as_str().unwrap() {
        "PING" => Frame::Ping,
        "PONG" => Frame::Pong,
        "CONNECT" => Frame::Connect(Connect {
            flags: flags(d),
            version: number(d, "version"),
            device_flag: number(d, "deviceFlag"),
            device_id: text(d, "deviceId"),
            uid: text(d, "uid"),
            token: text(d, "token"),
            client_timestamp: number(d, "clientTimestamp"),
            client_key: text(d, "clientKey"),
        }),
        "CONNACK" => Frame::Connack(Connack {
            server_version: (d["flags"]["hasServerVersion"] == true)
                .then(|| number(d, "serverVersion")),
            time_diff: number(d, "timeDiff"),
            reason_code: number(d, "reasonCode"),
            server_key: text(d, "serverKey"),
            salt: text(d, "salt"),
            node_id: number(d, "nodeId"),
        }),
        "SEND" => Frame::Send(Send {
            flags: flags(d),
            setting: number(d, "setting"),
            client_seq: number(d, "clientSeq"),
            client_msg_no: text(d, "clientMsgNo"),
            stream_no: text(d, "streamNo"),
            channel_id: text(d, "channelId"),
            channel_type: number(d, "channelType"),
            expire: number(d, "expire"),
            msg_key: text(d, "msgKey"),
            topic: text(d, "topic"),
            payload: hex_field(d, "payload_hex"),
        }),
        "SENDACK" => Frame::Sendack(Sendack {
            flags: flags(d),
            message_id: number(d, "messageId"),
            client_seq: number(d, "clientSeq"),
            message_seq: number(d, "messageSeq"),
            reason_code: number(d, "reasonCode"),
        }),
        "RECV" => Frame::Recv(Recv {
            flags: flags(d),
            setting: number(d, "setting"),
            msg_key: text(d, "msgKey"),
            from_uid: text(d, "fromUid"),
            channel_id: text(d, "channelId"),
            channel_type: number(d, "channelType"),
            expire: number(d, "expire"),
            client_msg_no: text(d, "clientMsgNo"),
            stream_flag: number(d, "streamFlag"),
            stream_no: text(d, "streamNo"),
            stream_id: number(d, "streamId"),
            message_id: number(d, "messageId"),
            message_seq: number(d, "messageSeq"),
            timestamp: number(d, "timestamp"),
            topic: text(d, "topic"),
            payload: hex_field(d, "payload_hex"),
        }),
        "RECVACK" => Frame::Recvack(Recvack {
            flags: flags(d),
            message_id: number(d, "messageId"),
            message_seq: number(d, "messageSeq"),
        }),
        "DISCONNECT" => Frame::Disconnect(Disconnect {
            flags: flags(d),
            reason_code: number(d, "reasonCode"),
            reason: text(d, "reason"),
        }),
        "SUB" => Frame::Sub(Sub {
            flags: flags(d),
            setting: number(d, "setting"),
            sub_no: text(d, "subNo"),
            channel_id: text(d, "channelId"),
            channel_type: number(d, "channelType"),
            action: number(d, "action"),
            param: text(d, "param"),
        }),
        "SUBACK" => Frame::Suback(Suback {
            flags: flags(d),
            sub_no: text(d, "subNo"),
            channel_id: text(d, "channelId"),
            channel_type: number(d, "channelType"),
            action: number(d, "action"),
            reason_code: number(d, "reasonCode"),
        }),
        "EVENT" => Frame::Event(Event {
            flags: flags(d),
            id: text(d, "id"),
            kind: text(d, "eventType"),
            timestamp: number(d, "timestamp"),
            data: hex_field(d, "data_hex"),
        }),
        other => panic!("unknown type {other}"),
    }
}
