//! The conversation against frames built by hand, in virtual time.

use super::*;
use crate::limits::OUTSTANDING_MAX;
use crate::options::Encryption;
use wk_proto::crypto::{self, Cipher};
use wk_proto::frame::{Connack, Disconnect, RecvParts};
use wk_proto::record::Flags;

const SERVER: [u8; 32] = [9; 32];
const CLIENT: [u8; 32] = [7; 32];
const SALT: [u8; 16] = *b"0123456789abcdef";

/// A core and the other end of its wire.
struct Pair {
    core: Core<u32>,
    cipher: Option<Cipher>,
    now: Mono,
}

impl Pair {
    fn new(options: Options) -> Self {
        Self {
            core: Core::new(options),
            cipher: None,
            now: Mono(1_000_000),
        }
    }

    fn open() -> Self {
        let mut pair = Self::new(options());
        pair.connect(true);
        assert!(matches!(
            pair.core.poll(),
            Some(Output::Event(Event::Connected { .. }))
        ));
        pair
    }

    /// CONNECT, CONNACK.
    fn connect(&mut self, encrypt: bool) {
        self.core.start(self.now, WallMs(5), CLIENT).unwrap();
        let Some(Frame::Connect(connect)) = self.sent().pop() else {
            panic!("CONNECT comes first");
        };
        self.cipher = encrypt.then(|| {
            let secret = crypto::agree(&SERVER, &connect.client_key).unwrap();
            Cipher::new(&secret, SALT)
        });
        let ack = connack(encrypt);
        assert_eq!(self.give(&Frame::Connack(ack)), Ok(()));
    }

    fn send(&mut self, tag: u32, payload: &'static str) -> Result<(), Rejected<u32>> {
        let plain = frame::Send {
            client_msg_no: Bytes::from(format!("no{tag}")),
            channel_id: Bytes::from("bob"),
            channel_type: 1,
            payload: Bytes::from(payload),
            ..frame::Send::default()
        };
        self.core.send(self.now, plain, tag)
    }

    /// Takes the frames the core has written.
    fn sent(&mut self) -> Vec<Frame> {
        let mut bytes = self.core.wire().split().freeze();
        let mut frames = Vec::new();
        while let Some(frame) = link::next_frame(&mut bytes, 5).unwrap() {
            frames.push(frame);
        }
        assert!(bytes.is_empty(), "whole frames only");
        frames
    }

    /// SENDs the core has written, opened.
    fn sends(&mut self) -> Vec<(u32, Bytes, Bytes)> {
        let open = |frame| match frame {
            Frame::Send(send) => {
                let payload = match &self.cipher {
                    Some(cipher) => cipher.open_send(&send, &mut BytesMut::new()).unwrap(),
                    None => send.payload.clone(),
                };
                (send.client_seq, send.client_msg_no, payload)
            }
            other => panic!("{other:?}"),
        };
        let mut bytes = self.core.wire().split().freeze();
        let mut sends = Vec::new();
        while let Some(frame) = link::next_frame(&mut bytes, 5).unwrap() {
            sends.push(open(frame));
        }
        sends
    }

    fn give(&mut self, frame: &Frame) -> Result<(), Fault> {
        let mut bytes = BytesMut::new();
        wire::encode(frame, 5, &mut bytes).unwrap();
        self.core.receive(self.now, &bytes)
    }

    fn ack(&mut self, client_seq: u32, reason_code: u8) {
        let ack = Sendack {
            message_id: 70 + i64::from(client_seq),
            client_seq,
            message_seq: client_seq,
            reason_code,
            ..Sendack::default()
        };
        self.give(&Frame::Sendack(ack)).unwrap();
    }

    fn recv(&self, seq: u32, payload: &[u8]) -> BytesMut {
        let parts = RecvParts {
            flags: Flags(Flags::RED_DOT),
            from_uid: b"bob",
            channel_id: b"bob",
            channel_type: 1,
            client_msg_no: b"x",
            message_id: 1_000 + i64::from(seq),
            message_seq: seq,
            timestamp: 77,
            payload,
            ..RecvParts::default()
        };
        let mut bytes = BytesMut::new();
        wire::encode_recv(&parts, 5, self.cipher.as_ref(), &mut bytes).unwrap();
        bytes
    }

    fn outputs(&mut self) -> Vec<Output<u32>> {
        std::iter::from_fn(|| self.core.poll()).collect()
    }

    fn payloads(&mut self) -> Vec<Bytes> {
        let payload = |output| match output {
            Output::Event(Event::Message(m)) => m.payload,
            other => panic!("{other:?}"),
        };
        self.outputs().into_iter().map(payload).collect()
    }

    fn later(&mut self, ms: u64) -> Result<(), Fault> {
        self.now = self.now.plus_ms(ms);
        self.core.handle_timeout(self.now)
    }
}

fn options() -> Options {
    Options {
        token: "secret".to_owned(),
        device_id: "d".to_owned(),
        ..Options::new("alice")
    }
}

fn connack(encrypt: bool) -> Connack {
    let mut ack = Connack {
        server_version: Some(5),
        reason_code: 1,
        node_id: 3,
        ..Connack::default()
    };
    if encrypt {
        ack.server_key = Bytes::copy_from_slice(&crypto::public_key(&SERVER));
        ack.salt = Bytes::copy_from_slice(&SALT);
    }
    ack
}

#[test]
fn login_says_who_and_follows_the_server() {
    for (encrypt, version) in [(true, 5), (false, 3)] {
        let mut pair = Pair::new(options());
        pair.core.start(pair.now, WallMs(5), CLIENT).unwrap();
        let Some(Frame::Connect(connect)) = pair.sent().pop() else {
            panic!("CONNECT comes first");
        };
        assert_eq!(
            (&connect.uid[..], &connect.token[..]),
            (&b"alice"[..], &b"secret"[..])
        );
        assert_eq!((connect.version, connect.client_timestamp), (5, 5));
        let ack = Connack {
            server_version: Some(version),
            ..connack(encrypt)
        };
        pair.give(&Frame::Connack(ack)).unwrap();
        let connected = Event::Connected {
            node_id: 3,
            version,
            encrypted: encrypt,
        };
        assert_eq!(pair.outputs(), [Output::Event(connected)]);
    }
}

#[test]
fn refusals_are_terminal_and_nonsense_is_not() {
    let outcome = |options: Options, ack: Connack| {
        let mut pair = Pair::new(options);
        pair.core.start(pair.now, WallMs(5), CLIENT).unwrap();
        pair.give(&Frame::Connack(ack)).unwrap_err()
    };
    let refused = Connack {
        reason_code: 19,
        ..connack(true)
    };
    assert_eq!(
        outcome(options(), refused),
        Fault::Terminal(Error::Refused(Refusal(19)))
    );
    let required = Options {
        encryption: Encryption::Required,
        ..options()
    };
    assert_eq!(
        outcome(required, connack(false)),
        Fault::Terminal(Error::NotEncrypted)
    );
    for (key, salt) in [
        (&b"short"[..], &SALT[..]),
        (&crypto::public_key(&SERVER), b"s"),
    ] {
        let ack = Connack {
            server_key: Bytes::copy_from_slice(key),
            salt: Bytes::copy_from_slice(salt),
            ..connack(true)
        };
        assert!(matches!(outcome(options(), ack), Fault::Lost(_)));
    }
    let mut pair = Pair::new(options());
    pair.core.start(pair.now, WallMs(5), CLIENT).unwrap();
    assert!(matches!(pair.give(&Frame::Pong), Err(Fault::Lost(_))));
    assert_eq!(
        Pair::new(Options::new("u".repeat(40_000)))
            .core
            .start(Mono(0), WallMs(0), CLIENT),
        Err(Error::Options)
    );
}

#[test]
fn messages_are_sealed_in_order_and_their_acks_find_them() {
    let mut pair = Pair::open();
    for tag in 1..=3 {
        pair.send(tag, "hi").unwrap();
    }
    let sends = pair.sends();
    let seqs: Vec<u32> = sends.iter().map(|s| s.0).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert!(sends.iter().all(|s| s.2 == "hi"));
    pair.ack(2, 1);
    pair.ack(2, 1);
    pair.ack(1, 13);
    pair.ack(99, 1);
    let stored = SendAck {
        message_id: 72,
        message_seq: 2,
    };
    assert_eq!(
        pair.outputs(),
        [
            Output::Acked(2, Ok(stored)),
            Output::Acked(1, Err(Refusal(13)))
        ]
    );
    assert_eq!(pair.core.outstanding(), 1);
}

#[test]
fn unacknowledged_messages_go_out_again_as_they_were() {
    let mut pair = Pair::open();
    for tag in 1..=3 {
        pair.send(tag, "hi").unwrap();
    }
    let first = pair.sends();
    pair.ack(2, 1);
    pair.core.lost();
    pair.send(4, "while down").unwrap();
    assert!(pair.sent().is_empty(), "nowhere to write to");
    for encrypt in [false, true] {
        pair.connect(encrypt);
        let again = pair.sends();
        assert_eq!(again[..2], [first[0].clone(), first[2].clone()]);
        assert_eq!(again[2], (4, "no4".into(), "while down".into()));
        assert_eq!(again.len(), 3);
    }
}

#[test]
fn one_read_yields_its_messages_once_and_one_run_of_recvacks() {
    let mut pair = Pair::open();
    let mut bytes = pair.recv(1, b"one");
    bytes.extend_from_slice(&pair.recv(2, b"two"));
    bytes.extend_from_slice(&pair.recv(1, b"one"));
    let (head, tail) = bytes.split_at(bytes.len() - 7);
    pair.core.receive(pair.now, head).unwrap();
    pair.core.receive(pair.now, tail).unwrap();
    assert_eq!(pair.payloads(), ["one", "two"]);
    let acks = pair.sent();
    let seqs = acks.iter().map(|frame| match frame {
        Frame::Recvack(ack) if ack.flags.has(Flags::RED_DOT) => ack.message_seq,
        other => panic!("{other:?}"),
    });
    assert_eq!(
        seqs.collect::<Vec<_>>(),
        [1, 2, 1],
        "copies are acknowledged, too"
    );
}

#[test]
fn a_changed_message_is_reported_and_not_acknowledged() {
    let mut pair = Pair::open();
    let good = pair.recv(1, b"pay 10");
    for at in good.len() - 24..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        pair.core.receive(pair.now, &bad).unwrap();
    }
    let outputs = pair.outputs();
    assert_eq!(outputs.len(), 24);
    let corrupt = Output::Event(Event::Corrupt { message_id: 1_001 });
    assert!(outputs.iter().all(|o| *o == corrupt));
    assert!(pair.sent().is_empty());
    pair.core.receive(pair.now, &good).unwrap();
    assert_eq!(pair.payloads(), ["pay 10"]);
}

#[test]
fn good_frames_before_a_bad_one_count() {
    let mut pair = Pair::open();
    let mut bytes = pair.recv(1, b"one");
    bytes.extend_from_slice(&[0xD0, 0x00]);
    assert!(matches!(
        pair.core.receive(pair.now, &bytes),
        Err(Fault::Lost(_))
    ));
    assert_eq!(pair.payloads(), ["one"]);
}

#[test]
fn a_kick_is_terminal() {
    let mut pair = Pair::open();
    let kick = Disconnect {
        reason_code: 12,
        reason: Bytes::from("login in other device"),
        ..Disconnect::default()
    };
    let fault = pair.give(&Frame::Disconnect(kick)).unwrap_err();
    let Fault::Terminal(error) = fault else {
        panic!("{fault:?}");
    };
    assert_eq!(
        error.to_string(),
        "the server ended the session: ConnectKick (12), login in other device"
    );
}

#[test]
fn a_quiet_peer_is_pinged_and_a_silent_one_given_up() {
    let mut pair = Pair::open();
    assert_eq!(pair.core.next_timeout(), Some(pair.now.plus_ms(30_000)));
    assert_eq!(pair.later(29_999), Ok(()));
    assert!(pair.sent().is_empty(), "too early");
    assert_eq!(pair.later(1), Ok(()));
    assert_eq!(pair.sent(), [Frame::Ping]);
    assert_eq!(pair.later(9_999), Ok(()));
    assert_eq!(pair.give(&Frame::Pong), Ok(()));
    assert_eq!(pair.later(9_999), Ok(()), "answered");
    assert_eq!(pair.later(20_001), Ok(()));
    assert_eq!(pair.later(PONG_MS), Err(Fault::Lost("no answer to PING")));
}

#[test]
fn an_unanswered_login_or_message_breaks_the_connection() {
    let mut pair = Pair::new(options());
    pair.core.start(pair.now, WallMs(5), CLIENT).unwrap();
    assert_eq!(pair.later(CONNECT_MS - 1), Ok(()));
    assert!(pair.later(1).is_err());

    let mut pair = Pair::open();
    pair.send(1, "hi").unwrap();
    assert_eq!(pair.later(ACK_MS - 1), Ok(()));
    pair.core.resume(pair.now);
    assert_eq!(pair.later(ACK_MS - 1), Ok(()), "reading had stopped");
    assert_eq!(pair.later(1), Err(Fault::Lost("no answer to a message")));
    assert_eq!(pair.core.outstanding(), 1, "kept for the next connection");
}

#[test]
fn bounds_give_the_message_back() {
    let mut pair = Pair::new(options());
    let plain = |payload: usize, topic: usize| frame::Send {
        payload: Bytes::from(vec![0; payload]),
        topic: Bytes::from(vec![b't'; topic]),
        ..frame::Send::default()
    };
    let too_large = plain(PAYLOAD_BYTES_MAX + 1, 0);
    assert_eq!(
        pair.core.send(pair.now, too_large, 7),
        Err(Rejected::TooLong(7))
    );
    let too_long = plain(0, STR_BYTES_MAX + 1);
    assert_eq!(
        pair.core.send(pair.now, too_long, 8),
        Err(Rejected::TooLong(8))
    );
    for tag in 0..OUTSTANDING_MAX as u32 {
        pair.send(tag, "").unwrap();
    }
    assert_eq!(pair.send(9, ""), Err(Rejected::Full(9)));
    pair.connect(true);
    assert_eq!(pair.sends().len(), OUTSTANDING_MAX);
}
