//! What one message costs in this crate, in nanoseconds. By hand: `cargo bench -p wk-proto --bench hot_path`.
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use wk_proto::crypto::{Cipher, SendSign, agree, public_key, salt};
use wk_proto::frame::{Frame, RecvParts, Send};
use wk_proto::{jsonrpc, wire};

const PAYLOAD_BYTES: usize = 128;

fn main() {
    // Without --bench (that is, under `cargo test --all-targets`) only see that it runs.
    let rounds = if std::env::args().any(|a| a == "--bench") {
        200_000
    } else {
        10
    };
    let cipher = cipher();
    let payload = [b'p'; PAYLOAD_BYTES];
    let parts = parts(&payload);
    let mut out = BytesMut::with_capacity(4096);

    run("RECV encrypt + encode", rounds, || {
        out.clear();
        wire::encode_recv(black_box(&parts), 5, Some(&cipher), &mut out).ok();
    });
    run("RECV encode, plain", rounds, || {
        out.clear();
        wire::encode_recv(black_box(&parts), 5, None, &mut out).ok();
    });
    run("RECV encode, JSON", rounds, || {
        out.clear();
        jsonrpc::encode_recv(black_box(&parts), &mut out);
    });
    run("payload encrypt", rounds, || {
        out.clear();
        cipher.encrypt_payload(black_box(&payload), &mut out);
    });

    let bytes = send_frame(&cipher, &payload);
    run("SEND decode", rounds, || {
        black_box(wire::decode(black_box(&bytes), 5).ok());
    });
    let Ok(Some((Frame::Send(send), _))) = wire::decode(&bytes, 5) else {
        return;
    };
    let mut scratch = BytesMut::with_capacity(4096);
    run("SEND open (msgKey + decrypt)", rounds, || {
        scratch.reserve(1024);
        black_box(cipher.open_send(black_box(&send), &mut scratch).ok());
    });
    run("key exchange (public key + agree)", rounds / 100, || {
        black_box(public_key(black_box(&[3; 32])));
        black_box(agree(black_box(&[3; 32]), &public_key_of_client()).ok());
    });
}

fn run(name: &str, rounds: u32, mut once: impl FnMut()) {
    const REPEATS: u32 = 5;
    let best = (0..REPEATS).map(|_| {
        let start = Instant::now();
        (0..rounds).for_each(|_| once());
        start.elapsed().as_nanos() / u128::from(rounds.max(1))
    });
    println!("{name:36} {:>8} ns", best.min().unwrap_or(0));
}

fn public_key_of_client() -> [u8; 44] {
    use std::sync::LazyLock;
    static KEY: LazyLock<[u8; 44]> = LazyLock::new(|| public_key(&[2; 32]));
    *KEY
}

fn cipher() -> Cipher {
    let secret = agree(&[1; 32], &public_key_of_client()).expect("a good key");
    Cipher::new(&secret, salt([7; 16]))
}

fn parts(payload: &[u8]) -> RecvParts<'_> {
    RecvParts {
        from_uid: b"user-000123",
        channel_id: b"group-000042",
        channel_type: 2,
        client_msg_no: b"0123456789abcdef0123456789abcdef",
        message_id: 1_892_387_461_234_567_168,
        message_seq: 4711,
        timestamp: 1_700_000_000,
        payload,
        ..RecvParts::default()
    }
}

fn send_frame(cipher: &Cipher, plain: &[u8]) -> Bytes {
    let mut payload = BytesMut::new();
    cipher.encrypt_payload(plain, &mut payload);
    let mut send = Send {
        client_seq: 7,
        client_msg_no: "0123456789abcdef0123456789abcdef".into(),
        channel_id: "group-000042".into(),
        channel_type: 2,
        payload: payload.freeze(),
        ..Send::default()
    };
    let msg_key = cipher.send_msg_key(&SendSign::of(&send));
    send.msg_key = Bytes::copy_from_slice(&msg_key);
    let mut out = BytesMut::new();
    wire::encode(&Frame::Send(send), 5, &mut out).expect("a small frame");
    out.freeze()
}
