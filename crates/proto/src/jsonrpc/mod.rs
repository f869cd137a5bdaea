//! The client conversation as JSON-RPC 2.0. Spec: jsonrpc 1–6, 8.
//!
//! [`Decoder`] cuts a byte stream into JSON objects and turns each into a [`Message`]: a [`Frame`] as the binary
//! protocol would carry it, plus the request id. The `encode_*` functions write one object each, byte for byte in the
//! member order of the reference server. Which message is welcome in which state, how many errors a connection may
//! make and what separates objects on TCP ([`TCP_SEPARATOR`]) is the session's business.

mod decode;
mod encode;
mod envelope;
mod params;
mod scan;

use bytes::Bytes;

use crate::frame::Frame;

pub use decode::{Decoded, Decoder};
pub use encode::{
    encode_connect, encode_disconnect, encode_error, encode_event, encode_ok, encode_recv,
    encode_refusal, encode_sendack,
};
pub use scan::JSON_DEPTH_MAX;

/// Written after each object on TCP, so that people can read the stream; never inside a WebSocket message.
pub const TCP_SEPARATOR: u8 = b'\n';

/// Bytes of a request id. A longer one is an invalid request, answered without an id.
pub const REQUEST_ID_BYTES_MAX: usize = 256;

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Of a request: copied unchanged into the response, where an empty one is left out. `None`: a notification (or a
    /// ping without id), which gets no response.
    pub id: Option<Bytes>,
    /// `header.end`: no meaning, but echoed in the result of a send.
    pub end: bool,
    /// CONNECT, SEND, RECVACK, PING or DISCONNECT. A SEND has no client_seq, and its payload is plain.
    pub frame: Frame,
}

/// Valid JSON that is not a message we take: answer with [`encode_error`], then go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The id to answer with, where the message had a usable one.
    pub id: Option<Bytes>,
    /// Why.
    pub code: ErrorCode,
    /// For people; not a contract.
    pub message: &'static str,
}

/// `error.code` of JSON-RPC 2.0. A refused connect has a reason code instead: [`encode_refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ErrorCode {
    /// Not JSON.
    Parse = -32700,
    /// JSON, but not a request, or not one a client may make now.
    InvalidRequest = -32600,
    /// No such method, or not with (or without) an id.
    MethodNotFound = -32601,
    /// Params are missing, of the wrong type or out of range.
    InvalidParams = -32602,
    /// Our fault.
    Internal = -32603,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        self as i32
    }
}
