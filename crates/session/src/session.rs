//! The session's vocabulary and entry points.

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{
    ChannelKey, Fence, MessageId, MessageSeq, Mono, NodeId, Reason, Record, Ticket, Uid, WallMs,
};

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
    /// `connIdleTime` in ms (180,000).
    pub idle_ms: u64,
    /// From accept to a complete CONNECT, in ms (2,000 idle, 5,000 in all).
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
    /// Plain payload.
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
    /// Bytes from the socket (unwrapped from WebSocket messages).
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
        /// The bytes.
        bytes: Bytes,
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
pub struct Session {}

impl Session {
    /// A freshly accepted connection. `seed`: 48 random bytes for the key pair and the salt.
    pub fn new(config: Arc<Config>, transport: Transport, now: Mono, seed: [u8; 48]) -> Self {
        let _ = (config, transport, now, seed);
        todo!()
    }
    /// Advances. `wall` is only written into CONNACK's timeDiff and never decides anything.
    pub fn handle(&mut self, now: Mono, wall: WallMs, event: Event, out: &mut Vec<Effect>) {
        let _ = (now, wall, event, out);
        todo!()
    }
    /// Earliest moment `Event::Timeout` is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        todo!()
    }
    /// False while too much of this client's is in flight: the driver stops reading (back-pressure).
    pub fn wants_bytes(&self) -> bool {
        todo!()
    }
    /// Set once CONNECT was read.
    pub fn info(&self) -> Option<&Info> {
        todo!()
    }
}
