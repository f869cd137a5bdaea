//! The packets of WKProto as values. Their bytes are [`crate::wire`]'s business. Spec: wire-protocol 5.
//!
//! Strings are [`Bytes`]: the protocol never promises UTF-8, and the codec must give back what it read.

use bytes::Bytes;

use crate::record::Flags;

/// One packet, either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum Frame {
    Connect(Connect),
    Connack(Connack),
    Send(Send),
    Sendack(Sendack),
    Recv(Recv),
    Recvack(Recvack),
    Ping,
    Pong,
    Disconnect(Disconnect),
    Sub(Sub),
    Suback(Suback),
    Event(Event),
}

/// 5.1
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Connect {
    pub flags: Flags,
    pub version: u8,
    pub device_flag: u8,
    pub device_id: Bytes,
    pub uid: Bytes,
    pub token: Bytes,
    /// Milliseconds since 1970 (some clients: seconds); only used for timeDiff.
    pub client_timestamp: i64,
    /// Base64 of a 32-byte X25519 public key, or empty.
    pub client_key: Bytes,
}

/// 5.2
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Connack {
    /// `Some` sets flag bit 0 and writes the byte.
    pub server_version: Option<u8>,
    pub time_diff: i64,
    pub reason_code: u8,
    pub server_key: Bytes,
    pub salt: Bytes,
    /// Written from version 4 on.
    pub node_id: u64,
}

/// 5.3
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Send {
    pub flags: Flags,
    pub setting: u8,
    pub client_seq: u32,
    pub client_msg_no: Bytes,
    /// Only on the wire for 2 <= version < 5 with the stream bit.
    pub stream_no: Bytes,
    pub channel_id: Bytes,
    pub channel_type: u8,
    /// Only on the wire from version 3 on.
    pub expire: u32,
    pub msg_key: Bytes,
    /// Only on the wire with the topic bit.
    pub topic: Bytes,
    pub payload: Bytes,
}

/// 5.4
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Sendack {
    pub flags: Flags,
    pub message_id: i64,
    pub client_seq: u32,
    pub message_seq: u32,
    pub reason_code: u8,
}

/// 5.5
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Recv {
    pub flags: Flags,
    pub setting: u8,
    pub msg_key: Bytes,
    pub from_uid: Bytes,
    pub channel_id: Bytes,
    pub channel_type: u8,
    pub expire: u32,
    pub client_msg_no: Bytes,
    /// Stream fields: only for 2 <= version < 5 with the stream bit.
    pub stream_flag: u8,
    pub stream_no: Bytes,
    pub stream_id: u64,
    pub message_id: i64,
    pub message_seq: u32,
    /// Seconds.
    pub timestamp: i32,
    pub topic: Bytes,
    pub payload: Bytes,
}

impl Recv {
    /// The same packet without its msgKey, borrowed.
    pub fn parts(&self) -> RecvParts<'_> {
        RecvParts {
            flags: self.flags,
            setting: self.setting,
            from_uid: &self.from_uid,
            channel_id: &self.channel_id,
            channel_type: self.channel_type,
            expire: self.expire,
            client_msg_no: &self.client_msg_no,
            stream_flag: self.stream_flag,
            stream_no: &self.stream_no,
            stream_id: self.stream_id,
            message_id: self.message_id,
            message_seq: self.message_seq,
            timestamp: self.timestamp,
            topic: &self.topic,
            payload: &self.payload,
        }
    }
}

/// A RECV in pieces, so that fan-out encodes one message for many connections without owning anything: a
/// [`crate::Record`] lends most fields. There is no msgKey: it belongs to a connection, not to a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's; see Recv")]
pub struct RecvParts<'a> {
    pub flags: Flags,
    pub setting: u8,
    pub from_uid: &'a [u8],
    pub channel_id: &'a [u8],
    pub channel_type: u8,
    pub expire: u32,
    pub client_msg_no: &'a [u8],
    pub stream_flag: u8,
    pub stream_no: &'a [u8],
    pub stream_id: u64,
    pub message_id: i64,
    pub message_seq: u32,
    /// Seconds.
    pub timestamp: i32,
    pub topic: &'a [u8],
    /// In clear; whoever encodes for an encrypted connection encrypts it.
    pub payload: &'a [u8],
}

/// 5.6
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Recvack {
    pub flags: Flags,
    pub message_id: i64,
    pub message_seq: u32,
}

/// 5.9
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Disconnect {
    pub flags: Flags,
    pub reason_code: u8,
    pub reason: Bytes,
}

/// 5.10
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Sub {
    pub flags: Flags,
    pub setting: u8,
    pub sub_no: Bytes,
    pub channel_id: Bytes,
    pub channel_type: u8,
    pub action: u8,
    pub param: Bytes,
}

/// 5.11
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Suback {
    pub flags: Flags,
    pub sub_no: Bytes,
    pub channel_id: Bytes,
    pub channel_type: u8,
    pub action: u8,
    pub reason_code: u8,
}

/// 5.12
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Event {
    pub flags: Flags,
    pub id: Bytes,
    pub kind: Bytes,
    /// Intended unit: milliseconds.
    pub timestamp: i64,
    /// UTF-8 JSON text.
    pub data: Bytes,
}
