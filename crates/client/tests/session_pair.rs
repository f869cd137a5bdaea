//! The client's core against the server's session, both without sockets, in virtual time: bytes come in pieces, connections
//! break at any point, answers and deliveries get lost with them. Whatever happens, every message is stored once, in order,
//! acknowledged once, and received once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use wk_client::core::{Core, Output};
use wk_client::{Encryption, Event, Options, Refusal, SendAck};
use wk_proto::record::Body;
use wk_proto::{
    ChannelKey, ChannelType, Fence, Flags, MessageId, MessageSeq, Mono, NodeId, Reason, Record,
    WallMs, frame,
};
use wk_session::{Config, Delivery, Effect, SendResult, Session, Transport};

/// Reproducible choices.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One channel, in which alice talks to herself and everything reaches her: it exercises both directions at once. Idempotent
/// as the real store is.
#[derive(Default)]
struct Log {
    stored: Vec<(String, Record)>,
    /// Deliveries pushed although the client had them.
    again: usize,
}

impl Log {
    fn append(&mut self, number: &str, payload: &[u8]) -> SendResult {
        let at = self.stored.iter().position(|(n, _)| n == number);
        let at = at.unwrap_or_else(|| {
            let id = MessageId(1_000 + self.stored.len() as i64);
            let body = Body {
                flags: Flags(Flags::RED_DOT),
                message_id: id,
                time: WallMs(77_000),
                from_uid: "bob",
                client_msg_no: number,
                payload,
                ..Body::default()
            };
            self.stored.push((number.to_owned(), body.encode()));
            self.stored.len() - 1
        });
        SendResult {
            message_id: MessageId(1_000 + at as i64),
            message_seq: MessageSeq(at as u64 + 1),
            reason: Reason::Success,
        }
    }

    fn delivery(&self, at: usize) -> Arc<Delivery> {
        let id = wk_proto::ChannelId::parse("g").unwrap();
        Arc::new(Delivery {
            channel: ChannelKey::new(id, ChannelType::GROUP),
            seq: Some(MessageSeq(at as u64 + 1)),
            record: self.stored[at].1.clone(),
        })
    }
}

struct World {
    core: Core<u32>,
    session: Option<Session>,
    config: Arc<Config>,
    log: Log,
    /// Messages already pushed to the present session.
    pushed: usize,
    now: Mono,
    to_server: BytesMut,
    to_client: BytesMut,
    pending: VecDeque<wk_session::Event>,
    acked: BTreeMap<u32, u32>,
    received: Vec<(u32, Bytes)>,
}

impl World {
    fn new(encryption: bool) -> Self {
        let options = Options {
            encryption: Encryption::Auto,
            ..Options::new("alice")
        };
        let config = Config {
            node: NodeId(1),
            encryption,
            json_rpc: true,
            idle_ms: 180_000,
            handshake_ms: 2_000,
            retry_interval_ms: 60_000,
            retry_max: 5,
            proxy_protocol: true,
        };
        Self {
            core: Core::new(options),
            session: None,
            config: Arc::new(config),
            log: Log::default(),
            pushed: 0,
            now: Mono(1),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            pending: VecDeque::new(),
            acked: BTreeMap::new(),
            received: Vec::new(),
        }
    }

    /// What was on its way in either direction is gone.
    fn reconnect(&mut self, dice: &mut Dice) {
        let seed = [(); 48].map(|()| dice.below(256) as u8);
        let private = [(); 32].map(|()| dice.below(256) as u8);
        self.to_server.clear();
        self.to_client.clear();
        self.pending.clear();
        self.session = Some(Session::new(
            self.config.clone(),
            Transport::Tcp,
            self.now,
            seed,
        ));
        self.core.lost();
        self.core.start(self.now, WallMs(1), private).unwrap();
        // What did not arrive comes again, and some of what did: its RECVACK may have been lost.
        let have = self.received.len();
        let again = have.min(dice.below(4) as usize);
        self.log.again += again;
        self.pushed = have - again;
    }

    fn feed_session(&mut self, event: wk_session::Event) {
        let Some(session) = &mut self.session else {
            return;
        };
        let mut effects = Vec::new();
        session.handle(self.now, WallMs(2), event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Transmit { bytes, text } => {
                assert!(!text);
                self.to_client.extend_from_slice(&bytes);
            }
            Effect::Admit(_) => self.pending.push_back(wk_session::Event::Admitted {
                master: false,
                send_ban: false,
                fence: Fence::default(),
            }),
            Effect::Publish(..) => self.pending.push_back(wk_session::Event::Visible),
            Effect::Call(ticket, send) => {
                let result = self.log.append(&send.client_msg_no, &send.payload);
                self.pending
                    .push_back(wk_session::Event::Done(ticket, result));
            }
            Effect::Redeliver(..) | Effect::CommandRead(..) | Effect::PeerAddress(_) => {}
            Effect::Close(kind) => panic!("{kind:?}"),
        }
    }

    fn feed_core(&mut self, bytes: &[u8]) {
        self.core.receive(self.now, bytes).unwrap();
        while let Some(output) = self.core.poll() {
            match output {
                Output::Acked(tag, fate) => self.enter_ack(tag, fate),
                Output::Event(Event::Message(m)) => {
                    self.received.push((m.message_seq, m.payload));
                }
                Output::Event(Event::Connected { encrypted, .. }) => {
                    assert_eq!(encrypted, self.config.encryption);
                }
                Output::Event(other) => panic!("{other:?}"),
            }
        }
    }

    fn enter_ack(&mut self, tag: u32, fate: Result<SendAck, Refusal>) {
        let before = self.acked.insert(tag, fate.unwrap().message_seq);
        assert_eq!(before, None, "acknowledged twice");
    }

    /// One random thing.
    fn step(&mut self, dice: &mut Dice, may_break: bool) {
        self.to_server.unsplit(self.core.wire().split());
        match dice.below(if may_break { 40 } else { 39 }) {
            0..12 => {
                let n = self.to_server.len().min(1 + dice.below(200) as usize);
                let bytes = self.to_server.split_to(n).freeze();
                self.feed_session(wk_session::Event::Bytes(bytes));
            }
            12..24 => {
                let n = self.to_client.len().min(1 + dice.below(200) as usize);
                let bytes = self.to_client.copy_to_bytes(n);
                self.feed_core(&bytes);
            }
            24..34 => {
                if let Some(event) = self.pending.pop_front() {
                    self.feed_session(event);
                }
            }
            34..39 => {
                if self.session.as_ref().is_some_and(|s| s.info().is_some())
                    && self.pushed < self.log.stored.len()
                {
                    let delivery = self.log.delivery(self.pushed);
                    self.pushed += 1;
                    self.feed_session(wk_session::Event::Deliver(delivery));
                }
            }
            _ => self.reconnect(dice),
        }
    }

    fn send(&mut self, tag: u32) {
        let plain = frame::Send {
            client_msg_no: Bytes::from(format!("no{tag}")),
            channel_id: Bytes::from("g"),
            channel_type: 2,
            payload: Bytes::from(format!("message {tag}")),
            ..frame::Send::default()
        };
        self.core.send(self.now, plain, tag).unwrap();
    }

    fn is_done(&self, messages: u32) -> bool {
        self.core.outstanding() == 0 && self.received.len() >= messages as usize
    }
}

#[test]
fn every_message_is_stored_acknowledged_and_received_once_and_in_order() {
    const MESSAGES: u32 = 30;
    let mut repeated = 0;
    for seed in 1..=150u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut world = World::new(seed % 4 != 0);
        world.reconnect(&mut dice);
        let (mut sent, mut steps) = (0, 0);
        while sent < MESSAGES || !world.is_done(MESSAGES) {
            if sent < MESSAGES && dice.below(5) == 0 {
                sent += 1;
                world.send(sent);
            }
            world.step(&mut dice, steps < 2_000);
            steps += 1;
            assert!(steps < 50_000, "seed {seed} does not end");
        }
        let stored: Vec<&str> = world.log.stored.iter().map(|(n, _)| n.as_str()).collect();
        let wanted: Vec<String> = (1..=MESSAGES).map(|tag| format!("no{tag}")).collect();
        assert_eq!(stored, wanted, "seed {seed}");
        let acks: Vec<u32> = world.acked.values().copied().collect();
        assert_eq!(acks, (1..=MESSAGES).collect::<Vec<_>>(), "seed {seed}");
        let seqs: Vec<u32> = world.received.iter().map(|r| r.0).collect();
        assert_eq!(seqs, acks, "seed {seed}");
        assert_eq!(world.received[6].1, "message 7");
        repeated += world.log.again;
    }
    assert!(repeated > 150, "the network was too kind: {repeated}");
}
