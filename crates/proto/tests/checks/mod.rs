//! What must hold for any bytes at all, one function per decoder. Shared by `tests/fuzz_smoke.rs` and the targets in
//! `fuzz/` at the top of the repository. A check fails by panicking.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each user of this file needs a part")]

use bytes::{Bytes, BytesMut};
use wk_proto::crypto::{Cipher, OpenError, agree, public_key};
use wk_proto::frame::Frame;
use wk_proto::jsonrpc::{Decoded, Decoder};
use wk_proto::limits::FRAME_BYTES_MAX;
use wk_proto::proxy::{self, Parsed};
use wk_proto::{Record, wire};

/// Frames that a stream of bytes decodes to; every one encodes to something that decodes to the same.
pub fn wire_decode(input: &[u8]) {
    let Some((&version, bytes)) = input.split_first() else {
        return;
    };
    let version = version % 7;
    let mut rest = Bytes::copy_from_slice(bytes);
    while let Ok(Some((frame, consumed))) = wire::decode(&rest, version) {
        assert!((1..=rest.len()).contains(&consumed));
        assert_eq!(wire::frame_len(&rest), Ok(Some(consumed)));
        encodes_again(&frame, version);
        rest = rest.slice(consumed..);
    }
    if let Ok(Some(len)) = wire::frame_len(&rest) {
        assert!(len <= FRAME_BYTES_MAX + 5);
    }
}

fn encodes_again(frame: &Frame, version: u8) {
    let mut out = BytesMut::new();
    wire::encode(frame, version, &mut out).unwrap();
    let decoded = wire::decode(&out.freeze(), version).unwrap().unwrap();
    assert_eq!(decoded.0, *frame);
}

/// Messages of a stream that arrives whole are those of the same stream arriving byte by byte, or in two parts.
pub fn jsonrpc_decode(input: &[u8]) {
    let cut = input.first().map_or(0, |&b| usize::from(b) % input.len());
    let whole = jsonrpc_items(&[input]);
    let parts = jsonrpc_items(&[&input[..cut], &input[cut..]]);
    assert_eq!(whole, parts);
}

fn jsonrpc_items(parts: &[&[u8]]) -> Vec<Decoded> {
    let (mut decoder, mut buf, mut items) = (Decoder::default(), Vec::new(), Vec::new());
    for part in parts {
        buf.extend_from_slice(part);
        loop {
            let decoded = decoder.decode(&Bytes::copy_from_slice(&buf));
            let (consumed, wait) = match &decoded {
                Decoded::NeedMore(leading) => (*leading, true),
                Decoded::Message(_, consumed) | Decoded::Rejected(_, consumed) => {
                    (*consumed, false)
                }
                Decoded::Syntax | Decoded::TooLong => {
                    items.push(decoded);
                    return items;
                }
            };
            assert!(wait || consumed > 0);
            buf.drain(..consumed);
            if wait {
                break;
            }
            items.push(forget_consumed(decoded));
        }
    }
    items
}

/// Leading whitespace is dropped earlier or later, depending on how the bytes arrive.
fn forget_consumed(decoded: Decoded) -> Decoded {
    match decoded {
        Decoded::Message(message, _) => Decoded::Message(message, 0),
        Decoded::Rejected(rejection, _) => Decoded::Rejected(rejection, 0),
        other => other,
    }
}

/// A record that parses has every part, and is its own encoding.
pub fn record_parse(input: &[u8]) {
    let Ok(record) = Record::parse(Bytes::copy_from_slice(input)) else {
        return;
    };
    let texts = [
        record.from_uid(),
        record.client_msg_no(),
        record.topic(),
        record.stream_no(),
    ];
    let len: usize = texts.iter().map(|t| t.len()).sum();
    assert_eq!(36 + len + record.payload().len(), input.len());
    assert_eq!(record.as_bytes(), input);
}

/// A verdict does not change when more bytes come.
pub fn proxy_parse(input: &[u8]) {
    let whole = proxy::parse(input);
    if let Ok(Parsed::Header(_, len)) = whole {
        assert!(len <= input.len());
    }
    let step = input.len() / 16 + 1;
    for cut in (0..input.len()).step_by(step) {
        match proxy::parse(&input[..cut]) {
            Ok(Parsed::NeedMore) => {}
            early => assert_eq!(early, whole),
        }
    }
}

/// What decrypts encrypts to the same text, unless that was written loosely; what does not leaves no trace.
pub fn payload_decrypt(input: &[u8]) {
    let cipher = cipher();
    let mut out = BytesMut::from(&b"kept"[..]);
    match cipher.decrypt_payload(input, &mut out) {
        Ok(()) => {
            assert!(out.len() - 4 < input.len());
            let mut again = BytesMut::new();
            cipher.encrypt_payload(&out[4..], &mut again);
            let mut plain = BytesMut::new();
            cipher.decrypt_payload(&again, &mut plain).unwrap();
            assert_eq!(plain, out[4..]);
        }
        Err(error) => {
            assert_eq!(error, OpenError::Payload);
            assert_eq!(&out[..], b"kept");
        }
    }
}

/// The cipher of two fixed private keys and a fixed salt.
pub fn cipher() -> Cipher {
    use std::sync::LazyLock;
    static CIPHER: LazyLock<Cipher> = LazyLock::new(|| {
        let secret = agree(&[1; 32], &public_key(&[2; 32])).ok().unwrap();
        Cipher::new(&secret, *b"0123456789abcdef")
    });
    CIPHER.clone()
}
