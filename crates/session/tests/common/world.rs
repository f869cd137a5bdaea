//! One session, its clock and its effects.

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::record::Body;
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, Fence, MessageId, MessageSeq, Mono, NodeId, Reason, Uid,
    WallMs,
};
use wk_session::{Config, Delivery, Effect, Event, SendResult, Session, Transport};

use super::client::CLIENT_MS;

pub fn config() -> Config {
    Config {
        node: NodeId(1001),
        encryption: true,
        json_rpc: true,
        idle_ms: 180_000,
        handshake_ms: 2_000,
        retry_interval_ms: 60_000,
        retry_max: 5,
        proxy_protocol: true,
    }
}

pub struct World {
    pub session: Session,
    pub now: Mono,
    closed: bool,
}

impl World {
    pub fn new(config: Config, transport: Transport) -> Self {
        let now = Mono(1_000_000);
        let seed = std::array::from_fn(|i| (i as u8).wrapping_mul(37).wrapping_add(11));
        Self {
            session: Session::new(Arc::new(config), transport, now, seed),
            now,
            closed: false,
        }
    }

    /// Handles one event and checks what holds for every event.
    pub fn event(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.event_into(event, &mut out);
        out
    }

    pub fn event_into(&mut self, event: Event, out: &mut Vec<Effect>) {
        let before = out.len();
        let wall = WallMs(CLIENT_MS as u64 + 37 + self.now.0 / 1_000 - 1_000);
        self.session.handle(self.now, wall, event, out);
        if self.closed {
            assert_eq!(out.len(), before, "nothing comes after Close");
        }
        let closes = out.iter().filter(|e| matches!(e, Effect::Close(_))).count();
        if closes > 0 {
            assert_eq!(closes, 1);
            assert!(
                matches!(out.last(), Some(Effect::Close(_))),
                "Close is last"
            );
            assert_eq!(self.session.next_timeout(), None);
            assert!(!self.session.wants_bytes());
            self.closed = true;
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Vec<Effect> {
        self.event(Event::Bytes(Bytes::copy_from_slice(bytes)))
    }

    /// Lets time pass, with a `Timeout` whenever the session wants one.
    pub fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let end = self.now.plus_ms(ms);
        let mut out = Vec::new();
        while let Some(due) = self.session.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.event_into(Event::Timeout, &mut out);
            assert!(
                self.session
                    .next_timeout()
                    .is_none_or(|next| next > self.now),
                "a timeout that is handled is over"
            );
        }
        self.now = end;
        out
    }

    pub fn admit(&mut self, master: bool, send_ban: bool) -> Vec<Effect> {
        self.event(Event::Admitted {
            master,
            send_ban,
            fence: Fence::default(),
        })
    }

    /// CONNECT to CONNACK; what the client got.
    pub fn log_in(&mut self, connect: &[u8]) -> Vec<u8> {
        let mut effects = self.bytes(connect);
        effects.extend(self.admit(false, false));
        effects.extend(self.event(Event::Visible));
        sent(&effects)
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The bytes of all transmits.
pub fn sent(effects: &[Effect]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for effect in effects {
        if let Effect::Transmit { bytes: b, .. } = effect {
            bytes.extend_from_slice(b);
        }
    }
    bytes
}

pub fn no_more(effects: &[Effect]) {
    assert_eq!(effects, [], "no effects expected");
}

pub fn result(id: i64, seq: u64) -> SendResult {
    SendResult {
        message_id: MessageId(id),
        message_seq: MessageSeq(seq),
        reason: Reason::Success,
    }
}

/// `1:a,b` is the person channel of a and b, `2:g` the group g, `2:g+` its command twin.
pub fn channel(text: &str) -> ChannelKey {
    let (kind, id) = text.split_once(':').expect("type:id");
    let kind = ChannelType(kind.parse().unwrap());
    let key = |id: &str| match id.split_once(',') {
        Some((a, b)) => ChannelKey::person(&Uid::trusted(a), &Uid::trusted(b)),
        None => ChannelKey::new(ChannelId::trusted(id), kind),
    };
    match id.strip_suffix('+') {
        Some(id) => key(id).command(),
        None => key(id),
    }
}

pub fn delivery(channel_text: &str, seq: Option<u64>, body: &Body<'_>) -> Arc<Delivery> {
    Arc::new(Delivery {
        channel: channel(channel_text),
        seq: seq.map(MessageSeq),
        record: body.encode(),
    })
}
