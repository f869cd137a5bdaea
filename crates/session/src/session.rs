//! The session's vocabulary, entry points and states.
//!
//! ```text
//!  Handshake ──CONNECT──▶ Admission ──Visible──▶ Open ──▶ Closed      each may close at any time; Closed is for ever
//! ```

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wk_proto::{
    ChannelKey, Fence, MessageId, MessageSeq, Mono, NodeId, Reason, Record, Ticket, Uid, WallMs,
};

use crate::admission::Admission;
use crate::handshake::{Handshake, expects_proxy};
use crate::open::Open;
use crate::output::Output;

/// How the bytes travel. Frames are written back to back on TCP, one per WebSocket message otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A byte stream; may start with a PROXY header.
    Tcp,
    /// WebSocket; the driver unwraps messages and wraps each `Transmit`.
    WebSocket,
}

/// Settings of all sessions of a node. Shared.
#[derive(Clone, Debug)]
pub struct Config {
    /// Written into CONNACK.
    pub node: NodeId,
    /// `disableEncryption`.
    pub encryption: bool,
    /// `disableJSONRPC` turned round.
    pub json_rpc: bool,
    /// `connIdleTime` in ms (180,000); 0 = no limit.
    pub idle_ms: u64,
    /// Silence before a complete CONNECT, in ms (2,000). In all it may take two and a half times as long (5,000).
    pub handshake_ms: u64,
    /// `messageRetry.interval` in ms (60,000).
    pub retry_interval_ms: u64,
    /// `messageRetry.maxCount` (5).
    pub retry_max: u8,
    /// Accept a PROXY header on TCP.
    pub proxy_protocol: bool,
}

/// What a CONNECT asked for; the driver turns it into an `Admit` request at slot(uid).
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Who.
    pub uid: Uid,
    /// Secret: not in Debug output.
    pub token: Arc<str>,
    /// Device class.
    pub device_flag: u8,
    /// Client's device id.
    pub device_id: Arc<str>,
}

impl std::fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ConnectRequest({} flag {} device {:?})",
            self.uid, self.device_flag, self.device_id
        )
    }
}

/// What others need to know of an authenticated session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Whose.
    pub uid: Uid,
    /// Device class.
    pub device_flag: u8,
    /// Client's device id.
    pub device_id: Arc<str>,
    /// Master device.
    pub master: bool,
    /// Negotiated protocol version.
    pub version: u8,
    /// Speaks JSON-RPC.
    pub json: bool,
}

/// One SEND after decryption and validation, for the driver to turn into a slot's request.
#[derive(Clone, Debug, PartialEq)]
pub struct SendPacket {
    /// Stored channel: pair id for persons and agents.
    pub channel: ChannelKey,
    /// Header flags.
    pub flags: wk_proto::Flags,
    /// Setting byte.
    pub setting: u8,
    /// Seconds; 0 = for ever.
    pub expire: u32,
    /// Idempotency key; may be empty.
    pub client_msg_no: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Stream number.
    pub stream_no: Arc<str>,
    /// Plain payload. May share the driver's read buffer: copy what outlives the call.
    pub payload: Bytes,
}

/// Result of a SEND, as [`wk_proto`] types so that this crate needs no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendResult {
    /// Assigned id, never 0.
    pub message_id: MessageId,
    /// Position; 0 if none.
    pub message_seq: MessageSeq,
    /// Success or refusal.
    pub reason: Reason,
}

/// One message for this session's user. Shared by all receivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Where it was sent.
    pub channel: ChannelKey,
    /// Position; `None` = not persistent.
    pub seq: Option<MessageSeq>,
    /// The body.
    pub record: Record,
}

/// What happens to a session.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes from the socket (unwrapped from WebSocket messages, one event for each). None at all is activity, too: a WebSocket ping.
    Bytes(Bytes),
    /// The socket ended.
    Eof,
    /// slot(uid) admitted it.
    Admitted {
        /// Master device.
        master: bool,
        /// SENDs are refused with 25.
        send_ban: bool,
        /// Orders admissions.
        fence: Fence,
    },
    /// Every node that may deliver knows it: CONNACK may go out (H17).
    Visible,
    /// CONNECT was refused for good.
    Refused(Reason),
    /// CONNECT cannot be decided now: hold, then close silently (H29).
    Unavailable,
    /// Result of an earlier `Call`.
    Done(Ticket, SendResult),
    /// A message to push.
    Deliver(Arc<Delivery>),
    /// An EVENT frame to push: protocol ≥ 5 and JSON-RPC only.
    PushEvent(Arc<wk_proto::frame::Event>),
    /// The user's send ban changed (H2).
    SendBan(bool),
    /// DISCONNECT 12 with this text, then close after `delay_ms`; nothing is accepted from now on.
    Kick {
        /// Reason text; `None` = silently.
        notice: Option<&'static str>,
        /// Milliseconds until the close.
        delay_ms: u64,
    },
    /// `next_timeout` was reached.
    Timeout,
    /// The server is going down: finish what is in flight, then close silently.
    Drain,
}

/// What a session wants, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Bytes for the socket: one or more whole frames on TCP; exactly one frame per item on WebSocket.
    Transmit {
        /// The bytes. On TCP a later `handle` with the same list of effects appends to the last buffer, so a driver that feeds many
        /// events before it writes gets one buffer for many frames.
        bytes: BytesMut,
        /// Text message (JSON-RPC) rather than binary.
        text: bool,
    },
    /// Ask slot(uid).
    Admit(ConnectRequest),
    /// Tell the directory; answer with `Visible`.
    Publish(Info, Fence),
    /// Send a message; answer with `Done`. Results of one channel come back in order.
    Call(Ticket, SendPacket),
    /// A master device acknowledged a command message: advance its command mark.
    CommandRead(ChannelKey, MessageSeq),
    /// The real peer address from a PROXY header.
    PeerAddress(std::net::SocketAddr),
    /// Re-read and deliver this message again with `Event::Deliver` (its RECVACK did not come, H25).
    Redeliver(ChannelKey, MessageSeq),
    /// Close the socket after flushing.
    Close(CloseKind),
}

/// How a connection ends (H29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseKind {
    /// The client was told and will not come back.
    Terminal(Reason),
    /// It reconnects and re-sends.
    Silent,
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    transport: Transport,
    state: State,
}

/// Boxed, so that a session is as large as what it is doing now.
#[derive(Debug)]
pub(crate) enum State {
    Handshake(Box<Handshake>),
    Admission(Box<Admission>),
    Open(Box<Open>),
    Closed,
}

/// What one call of [`Session::handle`] may use.
pub(crate) struct Turn<'a> {
    pub(crate) now: Mono,
    pub(crate) wall: WallMs,
    pub(crate) config: &'a Config,
    pub(crate) out: Output<'a>,
}

/// The last effect of every session.
pub(crate) fn closed(turn: &mut Turn<'_>, kind: CloseKind) -> State {
    turn.out.close(kind);
    State::Closed
}

impl Session {
    /// A freshly accepted connection. `seed`: 48 random bytes for the key pair and the salt.
    pub fn new(config: Arc<Config>, transport: Transport, now: Mono, seed: [u8; 48]) -> Self {
        let proxy = expects_proxy(transport, config.proxy_protocol);
        Self {
            state: State::Handshake(Box::new(Handshake::new(seed, now, proxy))),
            config,
            transport,
        }
    }

    /// Advances. Effects are appended to `out`. `wall` is only written into CONNACK's timeDiff and the ids of refused SENDs, and never
    /// decides anything.
    ///
    /// Exactly one `Close` comes, and nothing after it. Events that do not fit the state are ignored; a `Timeout` may come early.
    pub fn handle(&mut self, now: Mono, wall: WallMs, event: Event, out: &mut Vec<Effect>) {
        let mut turn = Turn {
            now,
            wall,
            config: &self.config,
            out: Output {
                effects: out,
                transport: self.transport,
            },
        };
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Handshake(handshake) => handshake.handle(event, &mut turn),
            State::Admission(admission) => admission.handle(event, &mut turn),
            State::Open(open) => open.handle(event, &mut turn),
            State::Closed => State::Closed,
        };
    }

    /// Earliest moment `Event::Timeout` is due. Moves with every byte: a driver may keep an earlier timer, a `Timeout` too soon does
    /// nothing.
    pub fn next_timeout(&self) -> Option<Mono> {
        match &self.state {
            State::Handshake(handshake) => Some(handshake.deadline(self.config.handshake_ms)),
            State::Admission(admission) => Some(admission.deadline),
            State::Open(open) => open.next_timeout(self.config.idle_ms),
            State::Closed => None,
        }
    }

    /// False while too much of this client's is in flight: the driver stops reading (back-pressure).
    pub fn wants_bytes(&self) -> bool {
        match &self.state {
            State::Handshake(_) => true,
            State::Admission(admission) => admission.wants_bytes(),
            State::Open(open) => open.wants_bytes(),
            State::Closed => false,
        }
    }

    /// Set once CONNECT was read, until the close; `master` is known from `Admitted` on.
    pub fn info(&self) -> Option<&Info> {
        match &self.state {
            State::Admission(admission) => Some(&admission.info),
            State::Open(open) => Some(&open.info),
            State::Handshake(_) | State::Closed => None,
        }
    }

    /// Deliveries that left the RECVACK window unacknowledged because it was full (H25), so far. A metric; 0 after the close.
    pub fn evicted(&self) -> u64 {
        match &self.state {
            State::Open(open) => open.evicted(),
            State::Handshake(_) | State::Admission(_) | State::Closed => 0,
        }
    }
}
