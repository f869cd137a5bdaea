//! What goes out and what comes in.

use bytes::Bytes;
use wk_proto::frame;
use wk_proto::record::{Flags, setting};

/// Options of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// Do not store; the message gets no seq and only reaches who is online.
    pub no_persist: bool,
    /// Count as unread.
    pub red_dot: bool,
    /// A command: consumed once, in a log of its own.
    pub sync_once: bool,
    /// Seconds until it expires; 0 = never.
    pub expire: u32,
    /// Free text; empty = none.
    pub topic: String,
    /// The message's number, by which the server recognises a copy; `None` = a new one.
    pub client_msg_no: Option<String>,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            no_persist: false,
            red_dot: true,
            sync_once: false,
            expire: 0,
            topic: String::new(),
            client_msg_no: None,
        }
    }
}

impl SendOptions {
    /// The SEND of a message, without its client_seq; `payload` in clear.
    pub(crate) fn frame(
        self,
        channel_id: &str,
        channel_type: u8,
        client_msg_no: String,
        payload: Bytes,
    ) -> frame::Send {
        frame::Send {
            flags: Flags(0)
                .with(Flags::NO_PERSIST, self.no_persist)
                .with(Flags::RED_DOT, self.red_dot)
                .with(Flags::SYNC_ONCE, self.sync_once),
            setting: if self.topic.is_empty() {
                0
            } else {
                setting::TOPIC
            },
            client_msg_no: Bytes::from(client_msg_no),
            channel_id: Bytes::copy_from_slice(channel_id.as_bytes()),
            channel_type,
            expire: self.expire,
            topic: Bytes::from(self.topic),
            payload,
            ..frame::Send::default()
        }
    }
}

/// The server has the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendAck {
    /// Unique in the cluster.
    pub message_id: i64,
    /// Position in the channel; 0 for one that is not stored.
    pub message_seq: u32,
}

/// A received message. Texts are bytes as on the wire, normally UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Unique in the cluster.
    pub message_id: i64,
    /// Position in the channel, from 1; 0 = not stored.
    pub message_seq: u32,
    /// The sender; empty = the system.
    pub from_uid: Bytes,
    /// From the receiver's point of view: of a person's messages, the other person.
    pub channel_id: Bytes,
    /// See [`wk_proto::ChannelType`].
    pub channel_type: u8,
    /// The sender's number.
    pub client_msg_no: Bytes,
    /// Seconds since 1970.
    pub timestamp: i32,
    /// Seconds; 0 = never.
    pub expire: u32,
    /// Empty = none.
    pub topic: Bytes,
    /// Header flags.
    pub flags: Flags,
    /// Setting byte.
    pub setting: u8,
    /// In clear.
    pub payload: Bytes,
}

impl Message {
    pub(crate) fn new(recv: frame::Recv, payload: Bytes) -> Self {
        Self {
            message_id: recv.message_id,
            message_seq: recv.message_seq,
            from_uid: recv.from_uid,
            channel_id: recv.channel_id,
            channel_type: recv.channel_type,
            client_msg_no: recv.client_msg_no,
            timestamp: recv.timestamp,
            expire: recv.expire,
            topic: recv.topic,
            flags: recv.flags,
            setting: recv.setting,
            payload,
        }
    }
}

/// What an [`crate::Inbox`] hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Logged in, for the first time or again.
    Connected {
        /// Node that holds the connection; 0 below protocol 4.
        node_id: u64,
        /// Negotiated version.
        version: u8,
        /// Whether payloads are encrypted.
        encrypted: bool,
    },
    /// The connection broke; the client dials again.
    Disconnected(String),
    /// A message.
    Message(Message),
    /// An EVENT frame (stream output and the like).
    Notice(frame::Event),
    /// A message whose msgKey or encryption is wrong: somebody changed it on the way. Not acknowledged.
    Corrupt {
        /// As announced, unverified.
        message_id: i64,
    },
}
