//! Pseudo-random and mutated inputs for every decoder, the same on every run. A small count by default;
//! `WK_FUZZ_COUNT=1000000 cargo test --release -p wk-proto --test fuzz_smoke` for more.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod checks;
mod common;

use bytes::BytesMut;
use common::{text, unhex, vectors};
use wk_proto::record::{Body, Flags};
use wk_proto::{MessageId, WallMs};

/// Inputs per decoder, unless the environment says otherwise.
const COUNT_DEFAULT: u64 = 20_000;

/// Bytes of a random input at most; mutated ones are as long as their seed plus a little.
const INPUT_BYTES_MAX: u64 = 512;

/// xorshift64*: small, and good enough to reach odd places.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.next() % INPUT_BYTES_MAX;
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// A seed with a few bytes changed, inserted, removed or repeated.
    fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len());
            match self.below(6) {
                _ if input.is_empty() => input.push(self.next() as u8),
                0 => input[at] = self.next() as u8,
                1 => input[at] ^= 1 << self.below(8),
                2 => input.insert(at, self.next() as u8),
                3 => drop(input.remove(at)),
                4 => input.truncate(at),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    input.splice(at..at, other.iter().take(64).copied());
                }
            }
        }
        input
    }
}

fn drive(seed: u64, seeds: &[Vec<u8>], check: fn(&[u8])) {
    let count = std::env::var("WK_FUZZ_COUNT").map_or(COUNT_DEFAULT, |n| n.parse().unwrap());
    let mut random = Random(seed);
    seeds.iter().for_each(|input| check(input));
    for i in 0..count {
        let input = match i % 4 {
            0 => random.bytes(),
            _ => random.mutated(seeds),
        };
        check(&input);
    }
}

#[test]
fn wire() {
    let frames = vectors("frames").into_iter().chain(vectors("lenient"));
    let seeds: Vec<Vec<u8>> = frames
        .map(|(_, v)| {
            let version = v["version"].as_u64().unwrap() as u8;
            [&[version], &unhex(&v["hex"])[..]].concat()
        })
        .collect();
    drive(1, &seeds, checks::wire_decode);
}

#[test]
fn jsonrpc() {
    let seeds: Vec<Vec<u8>> = vectors("jsonrpc_in")
        .iter()
        .map(|(_, v)| text(v, "input").to_vec())
        .collect();
    drive(2, &seeds, checks::jsonrpc_decode);
}

#[test]
fn record() {
    let body = |from_uid, payload| Body {
        flags: Flags(2),
        message_id: MessageId(7),
        time: WallMs(9),
        from_uid,
        client_msg_no: "no-1",
        payload,
        ..Body::default()
    };
    let seeds = [body("", &b""[..]), body("u1", b"hello"), body("用户", b"x")]
        .map(|b| b.encode().as_bytes().to_vec());
    drive(3, &seeds, checks::record_parse);
}

#[test]
fn proxy() {
    let v2 = b"\r\n\r\n\0\r\nQUIT\n";
    let seeds = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 5678 80\r\n".to_vec(),
        b"PROXY TCP6 ::1 ::1 5678 80\r\n{".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        [
            &v2[..],
            b"\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\0\x51",
        ]
        .concat(),
        [&v2[..], b"\x20\0\0\0"].concat(),
    ];
    drive(4, &seeds, checks::proxy_parse);
}

#[test]
fn payload() {
    let seeds: Vec<Vec<u8>> = [0, 1, 15, 16, 47, 48, 767, 768, 769, 2000]
        .map(|len| {
            let mut sealed = BytesMut::new();
            checks::cipher().encrypt_payload(&vec![b'p'; len], &mut sealed);
            sealed.to_vec()
        })
        .into();
    drive(5, &seeds, checks::payload_decrypt);
}
