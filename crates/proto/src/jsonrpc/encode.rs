//! Messages to text. Members come in the order of the reference server and are left out where it leaves them out, so
//! that its transcripts compare byte for byte; the few deliberate differences are marked.

use std::fmt::{Display, Write};

use base64::Engine;
use bytes::{BufMut, BytesMut};

use super::ErrorCode;
use crate::Reason;
use crate::crypto::BASE64;
use crate::frame::{Connack, Disconnect, Event, RecvParts, Sendack};
use crate::record::{Flags, setting};

/// Result of a connect that succeeded. A refused one must be an error: [`encode_refusal`].
pub fn encode_connect(id: &[u8], connack: &Connack, out: &mut BytesMut) {
    let mut message = Object::response(id, out);
    message.object("result", |result| {
        result.number_unless_zero("serverVersion", connack.server_version.unwrap_or(0));
        result.text_unless_empty("serverKey", &connack.server_key);
        result.text_unless_empty("salt", &connack.salt);
        result.number_unless_zero("timeDiff", connack.time_diff);
        result.number("reasonCode", connack.reason_code);
        result.number("nodeId", connack.node_id);
    });
    message.end();
}

/// Error of a connect that was refused: clients take any `result` for success. Spec: jsonrpc 4.1.
pub fn encode_refusal(id: &[u8], reason: Reason, out: &mut BytesMut) {
    let name = match reason {
        Reason::ChannelIdError => "ReasonChannelIDError".to_owned(),
        other => format!("Reason{other:?}"),
    };
    error(Some(id), i32::from(reason.code()), &name, out);
}

/// Error of anything else. Without an id it has none, which clients log and ignore.
pub fn encode_error(id: Option<&[u8]>, code: ErrorCode, message: &str, out: &mut BytesMut) {
    error(id, code.code(), message, out);
}

/// Result of a send, accepted or not: `end` is the `header.end` of the request.
pub fn encode_sendack(id: &[u8], ack: &Sendack, end: bool, out: &mut BytesMut) {
    let mut message = Object::response(id, out);
    message.object("result", |result| {
        result.header(ack.flags, end);
        result.quoted_number("messageId", ack.message_id);
        result.number("messageSeq", ack.message_seq);
        result.number("reasonCode", ack.reason_code);
    });
    message.end();
}

/// Answer to a ping or disconnect request. The reference leaves out `result`, which is not a valid response.
pub fn encode_ok(id: &[u8], out: &mut BytesMut) {
    let mut message = Object::response(id, out);
    message.object("result", |_| {});
    message.end();
}

/// The `recv` notification. An empty payload is `""`, and `streamId` is the id (the reference writes streamNo there).
pub fn encode_recv(recv: &RecvParts<'_>, out: &mut BytesMut) {
    out.reserve(recv.payload.len() / 3 * 4 + 384);
    notification("recv", out, |params| {
        params.header(recv.flags, false);
        params.setting(recv.setting);
        params.number_unless_zero("expire", recv.expire);
        params.quoted_number("messageId", recv.message_id);
        params.number("messageSeq", recv.message_seq);
        params.text_unless_empty("clientMsgNo", recv.client_msg_no);
        if !recv.stream_no.is_empty() {
            params.text("streamNo", recv.stream_no);
            params.quoted_number("streamId", recv.stream_id);
        }
        params.number_unless_zero("streamFlag", recv.stream_flag);
        params.number("timestamp", recv.timestamp);
        params.text("channelId", recv.channel_id);
        params.number("channelType", recv.channel_type);
        params.text_unless_empty("topic", recv.topic);
        params.text("fromUid", recv.from_uid);
        params.base64("payload", recv.payload);
    });
}

/// The `event` notification.
pub fn encode_event(event: &Event, out: &mut BytesMut) {
    notification("event", out, |params| {
        params.text("id", &event.id);
        params.text("type", &event.kind);
        params.number("timestamp", event.timestamp);
        params.text("data", &event.data);
    });
}

/// The `disconnect` notification.
pub fn encode_disconnect(disconnect: &Disconnect, out: &mut BytesMut) {
    notification("disconnect", out, |params| {
        params.number("reasonCode", disconnect.reason_code);
        params.text_unless_empty("reason", &disconnect.reason);
    });
}

fn error(id: Option<&[u8]>, code: i32, text: &str, out: &mut BytesMut) {
    let mut message = Object::response(id.unwrap_or_default(), out);
    message.object("error", |error| {
        error.number("code", code);
        error.text("message", text.as_bytes());
    });
    message.end();
}

fn notification(method: &str, out: &mut BytesMut, params: impl FnOnce(&mut Object<'_>)) {
    let mut message = Object::message(out);
    message.text("method", method.as_bytes());
    message.object("params", params);
    message.end();
}

/// An object being written: `{`, members, and `}` by [`Self::end`].
struct Object<'a> {
    out: &'a mut BytesMut,
    empty: bool,
}

impl<'a> Object<'a> {
    fn start(out: &'a mut BytesMut) -> Self {
        out.put_u8(b'{');
        Self { out, empty: true }
    }

    fn message(out: &'a mut BytesMut) -> Self {
        let mut message = Self::start(out);
        message.text("jsonrpc", b"2.0");
        message
    }

    fn response(id: &[u8], out: &'a mut BytesMut) -> Self {
        let mut message = Self::message(out);
        message.text_unless_empty("id", id);
        message
    }

    fn end(self) {
        self.out.put_u8(b'}');
    }

    /// Member names are ours and need no escaping.
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.put_u8(b',');
        }
        self.out.put_u8(b'"');
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
    }

    fn object(&mut self, name: &str, members: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        let mut object = Object::start(self.out);
        members(&mut object);
        object.end();
    }

    fn number(&mut self, name: &str, n: impl Display) {
        self.name(name);
        write!(self.out, "{n}").expect("a BytesMut takes any length");
    }

    fn number_unless_zero<N: Display + Default + PartialEq>(&mut self, name: &str, n: N) {
        if n != N::default() {
            self.number(name, n);
        }
    }

    /// A 64-bit number, which JavaScript could not hold, as text.
    fn quoted_number(&mut self, name: &str, n: impl Display) {
        self.name(name);
        write!(self.out, "\"{n}\"").expect("a BytesMut takes any length");
    }

    fn flag(&mut self, name: &str, on: bool) {
        if on {
            self.name(name);
            self.out.put_slice(b"true");
        }
    }

    fn text(&mut self, name: &str, text: &[u8]) {
        self.name(name);
        self.out.put_u8(b'"');
        for chunk in text.utf8_chunks() {
            escape(chunk.valid(), self.out);
            if !chunk.invalid().is_empty() {
                // One per byte, as the reference.
                for _ in chunk.invalid() {
                    self.out.put_slice(b"\\ufffd");
                }
            }
        }
        self.out.put_u8(b'"');
    }

    fn text_unless_empty(&mut self, name: &str, text: &[u8]) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    fn base64(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        self.out.put_u8(b'"');
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        BASE64
            .encode_slice(bytes, &mut self.out[start..])
            .expect("the text has exactly this length");
        self.out.put_u8(b'"');
    }

    fn header(&mut self, flags: Flags, end: bool) {
        if flags.0 == 0 && !end {
            return;
        }
        self.object("header", |header| {
            header.flag("noPersist", flags.has(Flags::NO_PERSIST));
            header.flag("redDot", flags.has(Flags::RED_DOT));
            header.flag("syncOnce", flags.has(Flags::SYNC_ONCE));
            header.flag("dup", flags.has(Flags::DUP));
            header.flag("end", end);
        });
    }

    fn setting(&mut self, byte: u8) {
        if byte == 0 {
            return;
        }
        self.object("setting", |object| {
            object.flag("receipt", byte & setting::RECEIPT != 0);
            object.flag("signal", byte & setting::SIGNAL != 0);
            object.flag("stream", byte & setting::STREAM != 0);
            object.flag("topic", byte & setting::TOPIC != 0);
        });
    }
}

/// As the reference: also `<`, `>`, `&` and the two line separators that JavaScript once took for line ends.
fn escape(text: &str, out: &mut BytesMut) {
    let special =
        |c: char| c < ' ' || matches!(c, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    let mut rest = text;
    while let Some(at) = rest.find(special) {
        out.put_slice(&rest.as_bytes()[..at]);
        let mut chars = rest[at..].chars();
        if let Some(c) = chars.next() {
            escape_char(c, out);
        }
        rest = chars.as_str();
    }
    out.put_slice(rest.as_bytes());
}

fn escape_char(c: char, out: &mut BytesMut) {
    match c {
        '"' => out.put_slice(b"\\\""),
        '\\' => out.put_slice(b"\\\\"),
        '\n' => out.put_slice(b"\\n"),
        '\r' => out.put_slice(b"\\r"),
        '\t' => out.put_slice(b"\\t"),
        c => write!(out, "\\u{:04x}", u32::from(c)).expect("a BytesMut takes any length"),
    }
}
