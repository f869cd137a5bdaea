//! Decoders allocate in proportion to what has arrived, never to what it announces; encoders only for their output.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

mod checks;
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use common::{number, text, unhex, vectors};
use wk_proto::frame::{Frame, RecvParts};
use wk_proto::jsonrpc::{self, Decoder};
use wk_proto::{proxy, wire};

/// Counts what each thread asks for, so that tests do not disturb each other.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

// SAFETY: everything is passed on to the system allocator; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (calls, bytes) = ALLOCATED.get();
        ALLOCATED.set((calls + 1, bytes + layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Calls to the allocator, and bytes asked for, during `work`.
fn allocated<T>(work: impl FnOnce() -> T) -> (usize, usize) {
    let before = ALLOCATED.get();
    let result = work();
    let after = ALLOCATED.get();
    drop(result);
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn frames_are_decoded_in_place() {
    for (name, v) in vectors("frames") {
        let version = number(&v, "version");
        // The first slice of a Vec's bytes makes them shared, which is one allocation of the caller's.
        let bytes = unhex(&v["hex"]);
        let _shared = bytes.clone();
        let (calls, _) = allocated(|| wire::decode(&bytes, version));
        assert_eq!(calls, 0, "{name}");
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    let announced = Bytes::from_static(b"\x30\xff\xff\x3f");
    assert_eq!(allocated(|| wire::decode(&announced, 5)).0, 0);
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    assert_eq!(allocated(|| proxy::parse(v2)).0, 0);
    let open = Bytes::from_static(b"{\"method\":\"send\",\"params\":[[[[");
    assert_eq!(allocated(|| Decoder::default().decode(&open)).0, 0);
}

#[test]
fn json_costs_no_more_than_its_text() {
    for (name, v) in vectors("jsonrpc_in") {
        let input = text(&v, "input");
        let (_, bytes) = allocated(|| Decoder::default().decode(&input));
        assert!(bytes <= 2 * input.len() + 256, "{name}: {bytes}");
    }
    // Many small values, which a tree of values would blow up.
    let many = format!(
        "{{\"x\":[{}{{}}],\"method\":\"ping\"}}",
        "[],".repeat(100_000)
    );
    let input = Bytes::from(many);
    let (_, bytes) = allocated(|| Decoder::default().decode(&input));
    assert!(bytes <= 1024, "{bytes}");
}

#[test]
fn fan_out_allocates_only_its_output() {
    let cipher = checks::cipher();
    for len in [0, 100, 5_000, 200_000] {
        let payload = vec![b'p'; len];
        let parts = RecvParts {
            from_uid: b"u1",
            channel_id: b"g1",
            payload: &payload,
            ..RecvParts::default()
        };
        for cipher in [None, Some(&cipher)] {
            let mut out = BytesMut::new();
            let (calls, bytes) = allocated(|| wire::encode_recv(&parts, 5, cipher, &mut out));
            assert_eq!(calls, 1, "{len}");
            assert_eq!(bytes, out.len(), "{len}");
            out.clear();
            let again = allocated(|| wire::encode_recv(&parts, 5, cipher, &mut out));
            assert_eq!(again.0, 0, "{len}");
        }
        let mut out = BytesMut::with_capacity(len * 2 + 1024);
        let json = allocated(|| jsonrpc::encode_recv(&parts, &mut out));
        assert_eq!(json.0, 0, "{len}");
    }
}

#[test]
fn opening_a_send_uses_the_scratch() {
    let (_, v) = vectors("frames")
        .into_iter()
        .find(|(name, _)| name == "send_basic_v5")
        .unwrap();
    let Ok(Some((Frame::Send(mut send), _))) = wire::decode(&unhex(&v["hex"]), 5) else {
        panic!("not a SEND");
    };
    let cipher = checks::cipher();
    let mut sealed = BytesMut::new();
    cipher.encrypt_payload(&[7; 3_000], &mut sealed);
    send.payload = sealed.freeze();
    let sign = wk_proto::crypto::SendSign::of(&send);
    send.msg_key = Bytes::copy_from_slice(&cipher.send_msg_key(&sign));

    let mut scratch = BytesMut::with_capacity(8_192);
    let _first = cipher.open_send(&send, &mut scratch).unwrap();
    assert_eq!(allocated(|| cipher.open_send(&send, &mut scratch)).0, 0);
}
