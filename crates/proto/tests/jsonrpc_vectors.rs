//! Every JSON-RPC vector: what clients write, what the reference server writes. Spec: jsonrpc 11.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{frame, text, vectors};
use serde_json::Value;
use wk_proto::Reason;
use wk_proto::frame::*;
use wk_proto::jsonrpc::*;
use wk_proto::record::Flags;

/// Where the answer differs from the reference on purpose, and how. Spec: jsonrpc 2, 3, 4.3, 4.4, 8.
fn on_purpose(name: &str) -> Option<Option<ErrorCode>> {
    match name {
        "field_names_case_insensitive" => Some(Some(ErrorCode::InvalidRequest)),
        "send_channel_type_300" | "recvack_bad_message_id_becomes_0" => {
            Some(Some(ErrorCode::InvalidParams))
        }
        "ping_without_id" => Some(None),
        _ => None,
    }
}

/// Our code for a text of the reference. Spec: jsonrpc 6.
fn code_of(name: &str, reference: &str) -> ErrorCode {
    let has = |part: &str| reference.contains(part);
    if name.ends_with("subscribe") || has("unknown method") || has("unknown notification") {
        ErrorCode::MethodNotFound
    } else if has("missing params") || has("params:") {
        ErrorCode::InvalidParams
    } else {
        ErrorCode::InvalidRequest
    }
}

fn decode(input: &Bytes) -> Decoded {
    Decoder::default().decode(input)
}

#[test]
fn input_is_taken_or_refused() {
    for (name, v) in vectors("jsonrpc_in") {
        let input = text(&v, "input");
        let decoded = decode(&input);
        let expected_error = match (on_purpose(&name), v["outcome"].as_str().unwrap()) {
            (Some(ours), _) => ours,
            (None, "error") => Some(code_of(&name, v["reference_error"].as_str().unwrap())),
            (None, _) => None,
        };
        match (name.as_str(), expected_error) {
            ("truncated", _) => assert_eq!(decoded, Decoded::NeedMore(0)),
            ("garbage" | "trailing_comma", _) => assert_eq!(decoded, Decoded::Syntax, "{name}"),
            (_, None) => accepted(&name, &v, decoded, input.len()),
            (_, Some(code)) => rejected(&name, &v, decoded, input.len(), code),
        }
    }
}

fn accepted(name: &str, v: &Value, decoded: Decoded, len: usize) {
    let Decoded::Message(message, consumed) = decoded else {
        panic!("{name}: {decoded:?}");
    };
    assert_eq!(consumed, len, "{name}");
    if name == "ping_without_id" {
        assert_eq!((message.id, message.frame), (None, Frame::Ping));
        return;
    }
    assert_eq!(message.frame, frame(&v["frame"]), "{name}");
    assert_eq!(message.end, v["frame"]["flags"]["end"] == true, "{name}");
    assert_eq!(
        message.id.unwrap_or_default(),
        text(v, "request_id"),
        "{name}"
    );
}

fn rejected(name: &str, v: &Value, decoded: Decoded, len: usize, code: ErrorCode) {
    let Decoded::Rejected(rejection, consumed) = decoded else {
        panic!("{name}: {decoded:?}");
    };
    assert_eq!(consumed, len, "{name}");
    assert_eq!(rejection.code, code, "{name}");
    let Some(reply) = v["reference_error_response"].as_str() else {
        return;
    };
    let reply: Value = serde_json::from_str(reply).unwrap();
    assert_eq!(
        rejection.id.unwrap_or_default(),
        text(&reply, "id"),
        "{name}"
    );
}

#[test]
fn a_message_cut_anywhere_waits_and_goes_on() {
    for (name, v) in vectors("jsonrpc_in") {
        let input = text(&v, "input");
        let whole = decode(&input);
        for cut in 0..input.len() {
            let mut decoder = Decoder::default();
            let first = decoder.decode(&input.slice(..cut));
            if name != "truncated" {
                assert_eq!(first, Decoded::NeedMore(0), "{name} cut at {cut}");
            }
            assert_eq!(decoder.decode(&input), whole, "{name} cut at {cut}");
        }
    }
}

fn written(write: impl FnOnce(&mut BytesMut)) -> String {
    let mut out = BytesMut::new();
    write(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn recv(write: impl FnOnce(&mut RecvParts<'_>)) -> String {
    let mut parts = RecvParts {
        message_id: 1,
        message_seq: 2,
        timestamp: 3,
        channel_id: b"g1",
        channel_type: 2,
        ..RecvParts::default()
    };
    write(&mut parts);
    written(|out| encode_recv(&parts, out))
}

fn connack(server_version: u8, time_diff: i64, reason_code: u8, node_id: u64) -> Connack {
    Connack {
        server_version: Some(server_version),
        time_diff,
        reason_code,
        node_id,
        ..Connack::default()
    }
}

fn sendack(flags: u8, message_id: i64, message_seq: u32, reason_code: u8) -> Sendack {
    Sendack {
        flags: Flags(flags),
        message_id,
        message_seq,
        reason_code,
        ..Sendack::default()
    }
}

/// What we write for the packet a vector is about.
fn ours(name: &str) -> Option<String> {
    const ID: i64 = 1_892_387_461_234_567_168;
    let connect = |c: Connack| written(|out| encode_connect(b"c1", &c, out));
    let send = |id: &[u8], a: Sendack| written(|out| encode_sendack(id, &a, false, out));
    let disconnect = |reason: &'static str| Disconnect {
        reason_code: 12,
        reason: reason.into(),
        ..Disconnect::default()
    };
    Some(match name {
        "connect_result" => connect(connack(5, -15, 1, 1001)),
        "connect_result_time_diff_zero_omitted" => connect(connack(5, 0, 1, 1001)),
        "connect_result_with_keys" => connect(Connack {
            server_key: "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=".into(),
            salt: "AbCdEfGh01234567".into(),
            ..connack(5, 1, 1, 1001)
        }),
        "connect_failed_as_reference_would_write" => connect(connack(0, 0, 2, 0)),
        "send_result" => send(b"s1", sendack(Flags::RED_DOT, ID, 42, 1)),
        "send_result_no_flags" => send(b"s1", sendack(0, ID, 42, 1)),
        "send_result_failed" => send(b"s1", sendack(0, ID, 0, 13)),
        "send_result_empty_id" => send(b"", sendack(0, 1, 1, 1)),
        "pong" => written(|out| encode_ok(b"p1", out)),
        "recv" => recv(|r| {
            *r = RecvParts {
                flags: Flags(Flags::RED_DOT),
                message_id: ID,
                message_seq: 42,
                client_msg_no: b"cmn-7",
                timestamp: 1_700_000_000,
                channel_id: b"u1",
                channel_type: 1,
                from_uid: b"u1",
                payload: br#"{"type":1,"content":"hi"}"#,
                ..RecvParts::default()
            };
        }),
        "recv_all_fields" => recv(|r| {
            r.flags = Flags(15);
            r.setting = 0xAA;
            r.expire = 60;
            r.client_msg_no = b"c";
            r.stream_no = b"sn";
            r.stream_id = 77;
            r.stream_flag = 1;
            r.topic = b"tp";
            r.from_uid = b"u2";
            r.payload = b"<&>";
        }),
        "recv_no_encrypt_setting_only" => recv(|r| r.setting = 0x10),
        "recv_nil_payload" => recv(|r| {
            r.channel_id = b"g1<&>";
            r.from_uid = "用户".as_bytes();
        }),
        "event" => written(|out| {
            let event = Event {
                id: "evt-1".into(),
                kind: "stream.delta".into(),
                timestamp: 1_700_000_000_123,
                data: r#"{"a":"<b>"}"#.into(),
                ..Event::default()
            };
            encode_event(&event, out);
        }),
        "disconnect" => written(|out| encode_disconnect(&disconnect("server kick"), out)),
        "disconnect_empty_reason" => written(|out| encode_disconnect(&disconnect(""), out)),
        // A SUBACK has no JSON form and no writer.
        "suback_not_convertible" => return None,
        other => panic!("unknown vector {other}"),
    })
}

/// The reference's text with our deliberate differences applied. Spec: jsonrpc 4.4, 5.1.
fn adjusted(name: &str, reference: &str) -> String {
    match name {
        "pong" => reference.replace("\"p1\"}", "\"p1\",\"result\":{}}"),
        "recv_all_fields" => reference
            .replace("\"msgKey\":\"k\",", "")
            .replace("\"streamId\":\"sn\"", "\"streamId\":\"77\""),
        "recv_nil_payload" => reference.replace("\"payload\":null", "\"payload\":\"\""),
        _ => reference.to_owned(),
    }
}

#[test]
fn output_is_that_of_the_reference_byte_for_byte() {
    for (name, v) in vectors("jsonrpc_out") {
        let reference = v["output"].as_str().map(|o| adjusted(&name, o));
        assert_eq!(ours(&name), reference, "{name}");
    }
}

#[test]
fn errors_and_echoes() {
    let refused = written(|out| encode_refusal(b"r-1", Reason::AuthFail, out));
    assert_eq!(
        refused,
        r#"{"jsonrpc":"2.0","id":"r-1","error":{"code":2,"message":"ReasonAuthFail"}}"#
    );
    let error = written(|out| encode_error(None, ErrorCode::Parse, "not JSON", out));
    assert_eq!(
        error,
        r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"not JSON"}}"#
    );
    let echoed = written(|out| encode_sendack(b"s", &sendack(0, 1, 1, 1), true, out));
    assert!(echoed.contains(r#""header":{"end":true}"#));
    let id = written(|out| encode_ok("\"\u{2028}\u{1}\\é".as_bytes(), out));
    assert!(id.contains(r#""id":"\"\u2028\u0001\\é""#), "{id}");
    let bytes = written(|out| encode_ok(b"a\xff\xc3z", out));
    assert!(bytes.contains(r#""id":"a\ufffd\ufffdz""#), "{bytes}");
}

#[test]
fn messages_follow_each_other() {
    let stream: &[u8] =
        b" {\"method\":\"ping\",\"id\":\"1\"}[1]\r\n\t{\"method\":\"ping\",\"id\":\"}\\\"{\"} ";
    let mut buf = Bytes::from_static(stream);
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    loop {
        let consumed = match decoder.decode(&buf) {
            Decoded::Message(message, consumed) => {
                seen.push(message.id.unwrap());
                consumed
            }
            Decoded::Rejected(rejection, consumed) => {
                assert_eq!(rejection.code, ErrorCode::InvalidRequest);
                seen.push("rejected".into());
                consumed
            }
            Decoded::NeedMore(leading) => {
                assert_eq!(leading, buf.len());
                break;
            }
            other => panic!("{other:?}"),
        };
        buf = buf.slice(consumed..);
    }
    assert_eq!(seen, ["1", "rejected", "}\"{"]);
}

#[test]
fn whitespace_is_dropped_while_waiting() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.decode(&"  \n".into()), Decoded::NeedMore(3));
    assert_eq!(decoder.decode(&" {".into()), Decoded::NeedMore(1));
    let rest = Bytes::from_static(b"{\"method\":\"ping\"}");
    assert!(matches!(decoder.decode(&rest), Decoded::Message(_, 17)));
}

#[test]
fn limits_are_limits() {
    let deep = |n: usize| Bytes::from("[".repeat(n));
    let depth = usize::from(JSON_DEPTH_MAX);
    assert_eq!(decode(&deep(depth)), Decoded::NeedMore(0));
    assert_eq!(decode(&deep(depth + 1)), Decoded::Syntax);

    let long = |n: usize| Bytes::from(format!("{{\"a\":\"{}", "x".repeat(n)));
    let max = wk_proto::limits::JSON_BYTES_MAX;
    assert_eq!(decode(&long(max - 6)), Decoded::NeedMore(0));
    assert_eq!(decode(&long(max - 5)), Decoded::TooLong);

    let with_id = |n: usize| {
        Bytes::from(format!(
            "{{\"method\":\"ping\",\"id\":\"{}\"}}",
            "i".repeat(n)
        ))
    };
    assert!(matches!(decode(&with_id(256)), Decoded::Message(..)));
    let Decoded::Rejected(rejection, _) = decode(&with_id(257)) else {
        panic!("taken");
    };
    assert_eq!(
        (rejection.id, rejection.code),
        (None, ErrorCode::InvalidRequest)
    );

    let with_uid = |n: usize| {
        let uid = "u".repeat(n);
        Bytes::from(format!(
            "{{\"method\":\"connect\",\"id\":\"c\",\"params\":{{\"uid\":\"{uid}\"}}}}"
        ))
    };
    assert!(matches!(decode(&with_uid(32_767)), Decoded::Message(..)));
    assert!(matches!(decode(&with_uid(32_768)), Decoded::Rejected(..)));
}

#[test]
fn params_are_read_as_by_the_reference() {
    let frame = |params: &str| {
        let text = format!("{{\"method\":\"send\",\"id\":\"s\",\"params\":{params}}}");
        match decode(&text.into()) {
            Decoded::Message(
                Message {
                    frame: Frame::Send(send),
                    ..
                },
                _,
            ) => Some(send),
            Decoded::Rejected(rejection, _) => {
                assert_eq!(rejection.code, ErrorCode::InvalidParams);
                None
            }
            other => panic!("{other:?}"),
        }
    };
    let channel = |params: &str| frame(params).map(|s| s.channel_id);
    assert_eq!(
        channel(r#"{"channelId":"a","channelId":"b"}"#),
        Some("b".into())
    );
    assert_eq!(channel(r#"{"channelId":null}"#), Some("".into()));
    assert_eq!(channel(r#"{"channel\u0049d":"\u00e9"}"#), Some("é".into()));
    assert_eq!(channel(r#"{"header":[true]}"#), None);
    assert_eq!(channel(r#"{"header":{"redDot":1}}"#), None);
    assert_eq!(channel(r#"{"channelType":-1}"#), None);
    assert_eq!(channel(r#"{"channelType":1.0}"#), None);
    assert_eq!(channel(r#"{"expire":4294967296}"#), None);
    let wrapped = frame(r#"{"payload":"aGVs\nbG8=\r\n"}"#).unwrap();
    assert_eq!(&wrapped.payload[..], b"hello");
}
