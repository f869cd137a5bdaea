//! What is encoded decodes to the same, for frames of any content.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockEncryptMut, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use wk_proto::crypto::{OpenError, SendSign, sealed_len};
use wk_proto::frame::*;
use wk_proto::jsonrpc::{Decoded, Decoder, encode_recv};
use wk_proto::limits::{FRAME_BYTES_MAX, STR_BYTES_MAX};
use wk_proto::record::Flags;
use wk_proto::wire::{self, TooLong};

fn string() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => vec(any::<u8>(), 120..300),
    ]
    .prop_map(Bytes::from)
}

fn flags() -> impl Strategy<Value = Flags> {
    (0u8..16).prop_map(Flags)
}

prop_compose! {
    fn connect()(flags in flags(), (version, device_flag, client_timestamp) in any::<(u8, u8, i64)>(),
        device_id in string(), uid in string(), token in string(), client_key in string()) -> Frame {
        Frame::Connect(Connect { flags, version, device_flag, device_id, uid, token, client_timestamp, client_key })
    }
}

prop_compose! {
    fn connack()((server_version, time_diff, reason_code, node_id) in any::<(Option<u8>, i64, u8, u64)>(),
        server_key in string(), salt in string()) -> Frame {
        Frame::Connack(Connack { server_version, time_diff, reason_code, server_key, salt, node_id })
    }
}

prop_compose! {
    fn send()(flags in flags(), (setting, client_seq, channel_type, expire) in any::<(u8, u32, u8, u32)>(),
        client_msg_no in string(), stream_no in string(), channel_id in string(), msg_key in string(),
        topic in string(), payload in string()) -> Frame {
        Frame::Send(Send { flags, setting, client_seq, client_msg_no, stream_no, channel_id, channel_type, expire,
            msg_key, topic, payload })
    }
}

prop_compose! {
    fn recv()(flags in flags(), (setting, channel_type, expire, stream_flag) in any::<(u8, u8, u32, u8)>(),
        (stream_id, message_id, message_seq, timestamp) in any::<(u64, i64, u32, i32)>(),
        msg_key in string(), from_uid in string(), channel_id in string(), client_msg_no in string(),
        stream_no in string(), topic in string(), payload in string()) -> Recv {
        Recv { flags, setting, msg_key, from_uid, channel_id, channel_type, expire, client_msg_no, stream_flag,
            stream_no, stream_id, message_id, message_seq, timestamp, topic, payload }
    }
}

fn small() -> impl Strategy<Value = Frame> {
    let numbers = any::<(i64, u32, u32, u8, u8, u8)>();
    (flags(), numbers, string(), string(), string(), 0..8).prop_map(|(flags, n, a, b, c, kind)| {
        let (long, first, second, byte, channel_type, action) = n;
        match kind {
            0 => Frame::Ping,
            1 => Frame::Pong,
            2 => Frame::Sendack(Sendack {
                flags,
                message_id: long,
                client_seq: first,
                message_seq: second,
                reason_code: byte,
            }),
            3 => Frame::Recvack(Recvack {
                flags,
                message_id: long,
                message_seq: first,
            }),
            4 => Frame::Disconnect(Disconnect {
                flags,
                reason_code: byte,
                reason: a,
            }),
            5 => Frame::Sub(Sub {
                flags,
                setting: byte,
                sub_no: a,
                channel_id: b,
                channel_type,
                action,
                param: c,
            }),
            6 => Frame::Suback(Suback {
                flags,
                sub_no: a,
                channel_id: b,
                channel_type,
                action,
                reason_code: byte,
            }),
            _ => Frame::Event(Event {
                flags,
                id: a,
                kind: b,
                timestamp: long,
                data: c,
            }),
        }
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        connect(),
        connack(),
        send(),
        recv().prop_map(Frame::Recv),
        small()
    ]
}

/// The frame without what `version` does not carry.
fn carried(mut frame: Frame, version: u8) -> Frame {
    let stream = |setting: u8| (2..5).contains(&version) && setting & 0x02 != 0;
    match &mut frame {
        Frame::Connack(f) if version < 4 => f.node_id = 0,
        Frame::Send(f) => {
            if !stream(f.setting) {
                f.stream_no.clear();
            }
            if version < 3 {
                f.expire = 0;
            }
            if f.setting & 0x08 == 0 {
                f.topic.clear();
            }
        }
        Frame::Recv(f) => {
            if !stream(f.setting) {
                f.stream_no.clear();
                (f.stream_flag, f.stream_id) = (0, 0);
            }
            if version < 3 {
                f.expire = 0;
            }
            if f.setting & 0x08 == 0 {
                f.topic.clear();
            }
        }
        _ => {}
    }
    frame
}

/// Key and IV of `checks::cipher`, derived as the specification words it.
fn key_and_iv() -> ([u8; 16], [u8; 16]) {
    use x25519_dalek::{PublicKey, StaticSecret};

    let [own, peer] = [[1; 32], [2; 32]].map(StaticSecret::from);
    let shared = own.diffie_hellman(&PublicKey::from(&peer));
    let text = STANDARD.encode(shared.as_bytes());
    let hex = format!("{:x}", Md5::digest(text));
    (
        hex.as_bytes()[..16].try_into().unwrap(),
        *b"0123456789abcdef",
    )
}

/// msgKey as the specification words it, with nothing shared with the code under test.
fn plain_msg_key(sign: &[u8], key: &[u8; 16], iv: &[u8; 16]) -> String {
    let sealed = cbc::Encryptor::<aes::Aes128>::new(key.into(), iv.into())
        .encrypt_padded_vec_mut::<Pkcs7>(sign);
    let digest = Md5::digest(STANDARD.encode(sealed));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #[test]
    fn frames(frame in frame(), version in 0u8..=6) {
        let mut out = BytesMut::new();
        wire::encode(&frame, version, &mut out).unwrap();
        let bytes = out.freeze();
        let len = bytes.len();
        prop_assert_eq!(wire::decode(&bytes, version), Ok(Some((carried(frame, version), len))));
        prop_assert_eq!(wire::decode(&bytes.slice(..len - 1), version), Ok(None));
    }

    #[test]
    fn fan_out_without_a_cipher_is_the_plain_frame(recv in recv(), version in 0u8..=5) {
        let recv = Recv { msg_key: Bytes::new(), ..recv };
        let (mut fast, mut plain) = (BytesMut::new(), BytesMut::new());
        wire::encode_recv(&recv.parts(), version, None, &mut fast).unwrap();
        wire::encode(&Frame::Recv(recv), version, &mut plain).unwrap();
        prop_assert_eq!(fast, plain);
    }

    #[test]
    fn fan_out_with_a_cipher_decrypts(recv in recv(), version in 0u8..=5) {
        let cipher = checks::cipher();
        let mut out = BytesMut::new();
        wire::encode_recv(&recv.parts(), version, Some(&cipher), &mut out).unwrap();
        let Ok(Some((Frame::Recv(got), _))) = wire::decode(&out.freeze(), version) else {
            return Err(TestCaseError::fail("not a RECV"));
        };
        let mut plain = BytesMut::new();
        cipher.decrypt_payload(&got.payload, &mut plain).unwrap();
        prop_assert_eq!(&plain[..], &recv.payload[..]);
        let sign = wk_proto::crypto::RecvSign::of(&recv.parts(), &got.payload);
        prop_assert_eq!(cipher.recv_msg_key(&sign)[..].to_vec(), got.msg_key);
    }

    /// Around every chunk boundary of the streaming encryption, against a plain implementation.
    #[test]
    fn payloads_of_any_length(len in prop_oneof![0usize..200, 700usize..900, 20_000usize..20_100]) {
        let cipher = checks::cipher();
        let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut sealed = BytesMut::new();
        cipher.encrypt_payload(&plain, &mut sealed);
        prop_assert_eq!(sealed.len(), sealed_len(len));
        let mut opened = BytesMut::new();
        cipher.decrypt_payload(&sealed, &mut opened).unwrap();
        prop_assert_eq!(&opened[..], &plain[..]);

        let send = Send { client_seq: 9, channel_id: "u".into(), channel_type: 1, payload: sealed.freeze(), ..Send::default() };
        let (key, iv) = key_and_iv();
        let sign = [b"9u1", &send.payload[..]].concat();
        let msg_key = cipher.send_msg_key(&SendSign::of(&send));
        prop_assert_eq!(std::str::from_utf8(&msg_key).unwrap(), plain_msg_key(&sign, &key, &iv));

        let mut scratch = BytesMut::from(&b"old"[..]);
        prop_assert_eq!(cipher.open_send(&send, &mut scratch), Err(OpenError::MsgKey));
        let send = Send { msg_key: Bytes::copy_from_slice(&msg_key), ..send };
        prop_assert_eq!(cipher.open_send(&send, &mut scratch), Ok(Bytes::from(plain)));
        prop_assert!(scratch.is_empty());
    }

    #[test]
    fn json_recv_is_json(recv in recv()) {
        let mut out = BytesMut::new();
        encode_recv(&recv.parts(), &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        let params = &value["params"];
        prop_assert_eq!(&params["messageSeq"], &json!(recv.message_seq));
        prop_assert_eq!(&params["messageId"], &json!(recv.message_id.to_string()));
        prop_assert_eq!(&params["payload"], &json!(STANDARD.encode(&recv.payload)));
        if let Ok(text) = std::str::from_utf8(&recv.from_uid) {
            prop_assert_eq!(&params["fromUid"], &json!(text));
        }
    }

    #[test]
    fn json_send_reads_what_a_client_writes(
        (channel, number, topic) in any::<(String, String, String)>(), id in "[ -~é]{1,40}",
        (kind, expire, red_dot) in any::<(u8, u32, bool)>(), payload in vec(any::<u8>(), 0..100),
    ) {
        let text = json!({"method": "send", "id": id, "params": {
            "channelId": channel, "channelType": kind, "clientMsgNo": number, "topic": topic, "expire": expire,
            "header": {"redDot": red_dot}, "payload": STANDARD.encode(&payload),
        }});
        let Decoded::Message(message, _) = Decoder::default().decode(&text.to_string().into()) else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert_eq!(message.id, Some(Bytes::from(id)));
        let expected = Send {
            flags: Flags::default().with(Flags::RED_DOT, red_dot),
            client_msg_no: number.into(), channel_id: channel.into(), channel_type: kind, expire,
            topic: topic.into(), payload: payload.into(), ..Send::default()
        };
        prop_assert_eq!(message.frame, Frame::Send(expected));
    }
}

#[test]
fn what_no_client_could_read_is_not_written() {
    let encode = |frame: Frame| {
        let mut out = BytesMut::from(&b"kept"[..]);
        let result = wire::encode(&frame, 5, &mut out);
        assert!(result.is_ok() || &out[..] == b"kept");
        result
    };
    let reason = |len| {
        encode(Frame::Disconnect(Disconnect {
            reason: vec![b'r'; len].into(),
            ..Disconnect::default()
        }))
    };
    assert_eq!(reason(STR_BYTES_MAX), Ok(()));
    assert_eq!(reason(STR_BYTES_MAX + 1), Err(TooLong));

    let event = |len| {
        encode(Frame::Event(Event {
            data: vec![b'd'; len].into(),
            ..Event::default()
        }))
    };
    let head = 2 + 2 + 8;
    assert_eq!(event(FRAME_BYTES_MAX - head), Ok(()));
    assert_eq!(event(FRAME_BYTES_MAX - head + 1), Err(TooLong));

    let payload = vec![0; FRAME_BYTES_MAX * 3 / 4];
    let parts = RecvParts {
        payload: &payload,
        ..RecvParts::default()
    };
    let mut out = BytesMut::from(&b"kept"[..]);
    let cipher = checks::cipher();
    let result = wire::encode_recv(&parts, 5, Some(&cipher), &mut out);
    assert_eq!(result, Err(TooLong));
    assert_eq!(&out[..], b"kept");
}
