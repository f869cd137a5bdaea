//! Text to messages.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::params::{self, Text};
use super::scan::{Scan, Scanner};
use super::{ErrorCode, Message, Rejection};
use crate::crypto::base64_decode_into;
use crate::frame::{Connect, Disconnect, Frame, Recvack, Send};
use crate::wire::LATEST;

/// What the front of the buffer is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "returned once per message, never stored"
)]
pub enum Decoded {
    /// Not a whole message yet. The `usize` bytes before it are whitespace and must be dropped.
    NeedMore(usize),
    /// A message, and the bytes to drop.
    Message(Message, usize),
    /// A message we do not take, and the bytes to drop. The stream goes on behind it.
    Rejected(Rejection, usize),
    /// Not JSON, or nested too deep. Answer with [`Rejection::syntax`]; nothing after it on this stream can be trusted:
    /// close, or drop the rest of the WebSocket message. The decoder has forgotten it.
    Syntax,
    /// More than `JSON_BYTES_MAX` in one message: close.
    TooLong,
}

impl Rejection {
    /// The answer to [`Decoded::Syntax`].
    pub const fn syntax() -> Self {
        Self {
            id: None,
            code: ErrorCode::Parse,
            message: "not JSON",
        }
    }
}

/// Finds messages in a byte stream. Holds no bytes, only how far it has looked.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    scanner: Scanner,
}

impl Decoder {
    /// Decodes the first message of `buf`. After every call drop the bytes it names from the front of the buffer, append
    /// new ones only at the end: the decoder goes on where it stopped.
    pub fn decode(&mut self, buf: &Bytes) -> Decoded {
        match self.scanner.scan(buf) {
            Scan::NeedMore => {
                let leading = self.scanner.leading();
                self.scanner.forget(leading);
                Decoded::NeedMore(leading)
            }
            Scan::Value { start, end } => {
                self.reset();
                match parse(&buf.slice(start..end)) {
                    Ok(message) => Decoded::Message(message, end),
                    Err(rejection) if rejection.code == ErrorCode::Parse => Decoded::Syntax,
                    Err(rejection) => Decoded::Rejected(rejection, end),
                }
            }
            Scan::Syntax => {
                self.reset();
                Decoded::Syntax
            }
            Scan::TooLong => {
                self.reset();
                Decoded::TooLong
            }
        }
    }

    /// Forgets a half-read message, which the caller drops.
    pub fn reset(&mut self) {
        self.scanner = Scanner::default();
    }
}

/// Parses one bracketed value.
fn parse(text: &Bytes) -> Result<Message, Rejection> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(text).map_err(|_| reject_unparsable(text))?;
    let id = envelope
        .id(text)
        .map_err(|(code, message)| reject(None, code, message))?;
    let with_id = |(code, message)| reject(id.clone(), code, message);
    let method = envelope.method().map_err(with_id)?;
    let (frame, end) = message(&method.0, id.is_some(), envelope.params, text).map_err(with_id)?;
    Ok(Message { id, end, frame })
}

/// A batch is valid JSON that we do not take; the rest is not JSON.
fn reject_unparsable(text: &Bytes) -> Rejection {
    if text.starts_with(b"[") && serde_json::from_slice::<&RawValue>(text).is_ok() {
        reject(None, ErrorCode::InvalidRequest, "batches are not supported")
    } else {
        Rejection::syntax()
    }
}

fn reject(id: Option<Bytes>, code: ErrorCode, message: &'static str) -> Rejection {
    Rejection { id, code, message }
}

type Invalid = (ErrorCode, &'static str);

/// The frame of a method and its `header.end`. Spec: jsonrpc 4, 6.
fn message(
    method: &str,
    has_id: bool,
    params: Option<&RawValue>,
    source: &Bytes,
) -> Result<(Frame, bool), Invalid> {
    match (method, has_id) {
        ("connect", true) => connect(required(params)?, source),
        ("send", true) => send(required(params)?, source),
        ("ping", _) => ping(params),
        ("disconnect", true) => disconnect(required(params)?, source),
        ("recvack", false) => recvack(required(params)?),
        ("recv" | "event" | "disconnect", false) => {
            Err((ErrorCode::InvalidRequest, "only a server sends this"))
        }
        ("subscribe" | "unsubscribe", true) => {
            Err((ErrorCode::MethodNotFound, "subscriptions are not supported"))
        }
        (_, true) => Err((ErrorCode::MethodNotFound, "unknown method")),
        (_, false) => Err((ErrorCode::MethodNotFound, "unknown notification")),
    }
}

fn required(params: Option<&RawValue>) -> Result<&RawValue, Invalid> {
    params.ok_or((ErrorCode::InvalidParams, "params are missing"))
}

fn invalid<E>(_: E) -> Invalid {
    (ErrorCode::InvalidParams, "params are invalid")
}

fn str_field(text: Text<'_>, source: &Bytes) -> Result<Bytes, Invalid> {
    text.into_str_field(source)
        .ok_or((ErrorCode::InvalidParams, "a string is too long"))
}

fn connect(raw: &RawValue, source: &Bytes) -> Result<(Frame, bool), Invalid> {
    let p: params::Connect<'_> = params::parse(raw).map_err(invalid)?;
    let frame = Connect {
        flags: p.header.flags(),
        version: if p.version == 0 { LATEST } else { p.version },
        device_flag: p.device_flag,
        device_id: str_field(p.device_id, source)?,
        uid: str_field(p.uid, source)?,
        token: str_field(p.token, source)?,
        client_timestamp: p.client_timestamp,
        client_key: str_field(p.client_key, source)?,
    };
    Ok((Frame::Connect(frame), p.header.end))
}

fn send(raw: &RawValue, source: &Bytes) -> Result<(Frame, bool), Invalid> {
    let p: params::Send<'_> = params::parse(raw).map_err(invalid)?;
    let frame = Send {
        flags: p.header.flags(),
        setting: p.setting.byte(),
        client_seq: 0,
        client_msg_no: str_field(p.client_msg_no, source)?,
        stream_no: str_field(p.stream_no, source)?,
        channel_id: str_field(p.channel_id, source)?,
        channel_type: p.channel_type,
        expire: p.expire,
        msg_key: str_field(p.msg_key, source)?,
        topic: str_field(p.topic, source)?,
        payload: payload(&p.payload)?,
    };
    Ok((Frame::Send(frame), p.header.end))
}

fn payload(text: &Text<'_>) -> Result<Bytes, Invalid> {
    let mut plain = BytesMut::new();
    base64_decode_into(text.0.as_bytes(), &mut plain)
        .ok_or((ErrorCode::InvalidParams, "payload is not base64"))?;
    Ok(plain.freeze())
}

fn ping(params: Option<&RawValue>) -> Result<(Frame, bool), Invalid> {
    if let Some(raw) = params {
        params::parse::<params::Ping<'_>>(raw).map_err(invalid)?;
    }
    Ok((Frame::Ping, false))
}

fn recvack(raw: &RawValue) -> Result<(Frame, bool), Invalid> {
    let p: params::Recvack<'_> = params::parse(raw).map_err(invalid)?;
    let frame = Recvack {
        flags: p.header.flags(),
        message_id: p.message_id.0.parse().map_err(invalid)?,
        message_seq: p.message_seq,
    };
    Ok((Frame::Recvack(frame), p.header.end))
}

fn disconnect(raw: &RawValue, source: &Bytes) -> Result<(Frame, bool), Invalid> {
    let p: params::Disconnect<'_> = params::parse(raw).map_err(invalid)?;
    let frame = Disconnect {
        flags: p.header.flags(),
        reason_code: p.reason_code,
        reason: str_field(p.reason, source)?,
    };
    Ok((Frame::Disconnect(frame), p.header.end))
}
