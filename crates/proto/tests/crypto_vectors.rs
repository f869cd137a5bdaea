//! Every crypto vector: keys, payloads, msgKeys and the whole frames made of them. Spec: wire-protocol 10.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{number, text, unhex, vectors};
use serde_json::Value;
use wk_proto::crypto::{Cipher, KeyError, OpenError, RecvSign, SendSign, agree, public_key};
use wk_proto::frame::{Frame, RecvParts, Send};
use wk_proto::record::Flags;
use wk_proto::wire;

fn key(hex: &Value) -> [u8; 32] {
    unhex(hex).as_ref().try_into().unwrap()
}

/// The vector's cipher, agreed on by both sides.
fn ciphers(v: &Value) -> [Cipher; 2] {
    let salt = text(v, "salt").as_ref().try_into().unwrap();
    let (client, server) = (key(&v["client_private_hex"]), key(&v["server_private_hex"]));
    assert_eq!(public_key(&client)[..], text(v, "client_key"));
    assert_eq!(public_key(&server)[..], text(v, "server_key"));
    [
        (server, text(v, "client_key")),
        (client, text(v, "server_key")),
    ]
    .map(|(private, peer)| Cipher::new(&agree(&private, &peer).ok().unwrap(), salt))
}

fn exchanges() -> Vec<(String, Value)> {
    let all = vectors("crypto");
    all.into_iter()
        .filter(|(_, v)| !v["salt"].is_null())
        .collect()
}

#[test]
fn a_key_of_low_order_is_refused() {
    let all = vectors("crypto");
    let (_, v) = all
        .iter()
        .find(|(name, _)| name == "low_order_client_key_all_zero")
        .unwrap();
    let agreed = agree(&key(&v["server_private_hex"]), &text(v, "client_key"));
    assert_eq!(agreed.err(), Some(KeyError::Unusable));
}

#[test]
fn payloads_and_keys_are_those_of_the_reference() {
    let mut messages = 0;
    for (name, v) in exchanges() {
        for cipher in ciphers(&v) {
            for m in v["messages"].as_array().unwrap() {
                let (plain, sealed) = (unhex(&m["plain_hex"]), text(m, "wire_payload"));
                let mut out = BytesMut::from(&b"before"[..]);
                cipher.encrypt_payload(&plain, &mut out);
                assert_eq!(out[6..], sealed, "{name}");
                out.truncate(6);
                cipher.decrypt_payload(&sealed, &mut out).unwrap();
                assert_eq!(out[6..], plain, "{name}");

                let (send, recv) = (&m["send"], &m["recv"]);
                let sign = SendSign {
                    client_seq: number(send, "clientSeq"),
                    client_msg_no: &text(send, "clientMsgNo"),
                    channel_id: &text(send, "channelId"),
                    channel_type: number(send, "channelType"),
                    payload: &sealed,
                };
                assert_eq!(
                    cipher.send_msg_key(&sign)[..],
                    text(send, "msgKey"),
                    "{name}"
                );
                let sign = RecvSign {
                    message_id: number(recv, "messageId"),
                    message_seq: number(recv, "messageSeq"),
                    client_msg_no: &text(recv, "clientMsgNo"),
                    timestamp: number(recv, "timestamp"),
                    from_uid: &text(recv, "fromUid"),
                    channel_id: &text(recv, "channelId"),
                    channel_type: number(recv, "channelType"),
                    payload: &sealed,
                };
                assert_eq!(
                    cipher.recv_msg_key(&sign)[..],
                    text(recv, "msgKey"),
                    "{name}"
                );
                messages += 1;
            }
        }
    }
    assert_eq!(messages, 2 * 6, "each message by both sides");
}

#[test]
fn fan_out_writes_the_reference_frame() {
    for (name, v) in exchanges() {
        let [cipher, _] = ciphers(&v);
        for m in v["messages"].as_array().unwrap() {
            let recv = &m["recv"];
            let parts = RecvParts {
                flags: Flags(Flags::RED_DOT),
                from_uid: &text(recv, "fromUid"),
                channel_id: &text(recv, "channelId"),
                channel_type: number(recv, "channelType"),
                client_msg_no: &text(recv, "clientMsgNo"),
                message_id: number(recv, "messageId"),
                message_seq: number(recv, "messageSeq"),
                timestamp: number(recv, "timestamp"),
                payload: &unhex(&m["plain_hex"]),
                ..RecvParts::default()
            };
            for (version, hex) in recv["frames"].as_object().unwrap() {
                let mut out = BytesMut::from(&b"before"[..]);
                let version = version.parse().unwrap();
                wire::encode_recv(&parts, version, Some(&cipher), &mut out).unwrap();
                assert_eq!(out[6..], unhex(hex), "{name} version {version}");
            }
        }
    }
}

/// The SEND frames of a vector, decoded, with what they say in clear.
fn sends() -> Vec<(Cipher, Send, Bytes)> {
    let mut sends = Vec::new();
    for (_, v) in exchanges() {
        for m in v["messages"].as_array().unwrap() {
            for (version, hex) in m["send"]["frames"].as_object().unwrap() {
                let version = version.parse().unwrap();
                let Some((Frame::Send(send), _)) = wire::decode(&unhex(hex), version).unwrap()
                else {
                    panic!("not a SEND");
                };
                sends.push((ciphers(&v)[0].clone(), send, unhex(&m["plain_hex"])));
            }
        }
    }
    sends
}

#[test]
fn sends_open_and_do_not_open_once_changed() {
    let mut scratch = BytesMut::new();
    for (cipher, send, plain) in sends() {
        assert_eq!(cipher.open_send(&send, &mut scratch), Ok(plain));
        let changes: [fn(&mut Send); 6] = [
            |s| s.client_seq += 1,
            |s| s.client_msg_no = "x".into(),
            |s| s.channel_id = "x".into(),
            |s| s.channel_type += 1,
            |s| s.msg_key = s.msg_key.to_ascii_uppercase().into(),
            |s| s.msg_key = Bytes::new(),
        ];
        for change in changes {
            let mut changed = send.clone();
            change(&mut changed);
            let opened = cipher.open_send(&changed, &mut scratch);
            assert_eq!(opened, Err(OpenError::MsgKey));
        }
        assert!(scratch.is_empty());
    }
}

#[test]
fn js_sends_of_the_frame_vectors_open() {
    let (_, alice_bob) = &exchanges()[0];
    let [cipher, _] = ciphers(alice_bob);
    let mut opened = 0;
    for (name, v) in vectors("frames") {
        if v["crypto_vector"].is_null() {
            continue;
        }
        let decoded = wire::decode(&unhex(&v["hex"]), number(&v, "version"));
        let Ok(Some((Frame::Send(send), _))) = decoded else {
            panic!("{name}: {decoded:?}");
        };
        let plain = cipher.open_send(&send, &mut BytesMut::new());
        assert_eq!(plain, Ok(text(&v, "payload_plain_text")), "{name}");
        opened += 1;
    }
    assert_eq!(opened, 11);
}

/// Spec 10.4: everything that upstream panics on is one answer here.
#[test]
fn payloads_that_are_no_payloads_are_refused() {
    let (_, v) = &exchanges()[0];
    let [cipher, _] = ciphers(v);
    let mut out = BytesMut::from(&b"kept"[..]);
    let mut bad_padding = BytesMut::new();
    cipher.encrypt_payload(&[0; 40], &mut bad_padding);
    bad_padding.truncate(bad_padding.len() / 2); // a whole block, but not the padded one
    let cases = [&b""[..], b"****", b"aGk", b"aGk=", b"AAAA", &bad_padding];
    for sealed in cases {
        let refused = cipher.decrypt_payload(sealed, &mut out);
        assert_eq!(refused, Err(OpenError::Payload), "{sealed:?}");
        assert_eq!(&out[..], b"kept");
    }
}

#[test]
fn wrapped_base64_is_read() {
    let (_, v) = &exchanges()[0];
    let [cipher, _] = ciphers(v);
    let mut sealed = BytesMut::new();
    cipher.encrypt_payload(b"hello", &mut sealed);
    let wrapped = [&sealed[..10], b"\r\n", &sealed[10..], b"\n"].concat();
    let mut out = BytesMut::new();
    cipher.decrypt_payload(&wrapped, &mut out).unwrap();
    assert_eq!(&out[..], b"hello");
}
