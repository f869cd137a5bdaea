//! Every binary vector, both directions. Spec: wire-protocol 15.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{frame, number, unhex, vectors};
use wk_proto::frame::Frame;
use wk_proto::wire::{DecodeError, decode, encode, frame_len};

#[test]
fn every_frame_decodes_and_encodes_byte_for_byte() {
    for (name, v) in vectors("frames") {
        let (version, bytes, expected) = (number(&v, "version"), unhex(&v["hex"]), &v["decoded"]);
        let decoded = decode(&bytes, version);
        assert_eq!(decoded, Ok(Some((frame(expected), bytes.len()))), "{name}");
        let mut out = BytesMut::new();
        encode(&frame(expected), version, &mut out).unwrap();
        assert_eq!(out, bytes, "{name}");
        assert_eq!(frame_len(&bytes), Ok(Some(bytes.len())), "{name}");
    }
}

#[test]
fn a_frame_cut_anywhere_waits_for_the_rest() {
    for (name, v) in vectors("frames") {
        let (version, bytes) = (number(&v, "version"), unhex(&v["hex"]));
        for cut in 0..bytes.len() {
            assert_eq!(
                decode(&bytes.slice(..cut), version),
                Ok(None),
                "{name} cut at {cut}"
            );
        }
    }
}

#[test]
fn odd_input_is_taken_or_refused_as_by_the_reference() {
    for (name, v) in vectors("lenient") {
        let (version, bytes) = (number(&v, "version"), unhex(&v["hex"]));
        let outcome = decode(&bytes, version);
        match v["result"].as_str().unwrap() {
            // The reference waits for ever on type 0: ours closes.
            "need_more" if name == "empty_type0" => {
                assert_eq!(outcome, Err(DecodeError::Type(0)));
            }
            "need_more" => assert_eq!(outcome, Ok(None), "{name}"),
            "error" => assert!(outcome.is_err(), "{name}: {outcome:?}"),
            "ok" => {
                let (decoded, consumed) = outcome.unwrap().unwrap();
                assert_eq!(consumed, number::<usize>(&v, "consumed"), "{name}");
                if name == "invalid_utf8_string_kept" {
                    let Frame::Disconnect(d) = &decoded else {
                        panic!("{decoded:?}");
                    };
                    assert_eq!(&d.reason[..], b"\xff\xfe");
                } else {
                    assert_eq!(decoded, frame(&v["decoded"]), "{name}");
                }
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn streams_of_frames_come_apart() {
    for (name, v) in vectors("streams") {
        let (version, bytes) = (number(&v, "version"), unhex(&v["hex"]));
        let mut at = 0;
        for expected in v["frames"].as_array().unwrap() {
            let (decoded, consumed) = decode(&bytes.slice(at..), version).unwrap().unwrap();
            assert_eq!(decoded, frame(expected), "{name} at {at}");
            at += consumed;
        }
        assert_eq!(at, number::<usize>(&v, "consumed"), "{name}");
        assert_eq!(decode(&bytes.slice(at..), version), Ok(None), "{name}");
    }
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_body_arrives() {
    let over = |hex: &'static [u8]| frame_len(hex);
    assert_eq!(over(b"\x30\x80\x80\x40"), Ok(Some(4 + 1024 * 1024)));
    assert_eq!(over(b"\x30\x81\x80\x40"), Err(DecodeError::TooLong));
    assert_eq!(over(b"\x30\x80\x80\x80"), Ok(None));
    assert_eq!(over(b"\x30\x80\x80\x80\x80"), Err(DecodeError::TooLong));
    assert_eq!(over(b"\x30\x80\x80\x80\x01"), Err(DecodeError::TooLong));
}

#[test]
fn types_that_do_not_exist_are_refused_at_their_first_byte() {
    for kind in [0u8, 13, 14, 15] {
        for low in 0..16 {
            let bytes = Bytes::copy_from_slice(&[kind << 4 | low]);
            assert_eq!(decode(&bytes, 5), Err(DecodeError::Type(kind)));
        }
    }
}
