//! Frames to effects: whole frames, in order, merged on TCP.

use bytes::{BufMut, BytesMut};
use wk_proto::frame::{Connack, Disconnect, Event, Frame, RecvParts, Sendack};
use wk_proto::jsonrpc::{self, ErrorCode};
use wk_proto::wire::{self, TooLong};
use wk_proto::{Flags, Reason};

use crate::inflight::{Answer, Origin};
use crate::limits::TRANSMIT_BYTES_TARGET;
use crate::session::Transport;
use crate::{CloseKind, Effect};

/// Where a turn's effects go.
pub(crate) struct Output<'a> {
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) transport: Transport,
}

impl Output<'_> {
    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn close(&mut self, kind: CloseKind) {
        self.effect(Effect::Close(kind));
    }

    /// Writes one binary frame. A frame no client could read is dropped, and says so.
    pub(crate) fn binary(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), TooLong>,
    ) -> Result<(), TooLong> {
        let buffer = self.buffer(false);
        let written = encode(buffer);
        if buffer.is_empty() {
            self.effects.pop();
        }
        written
    }

    /// Writes one frame of ours, which always fits.
    pub(crate) fn frame(&mut self, frame: &Frame, version: u8) {
        let written = self.binary(|out| wire::encode(frame, version, out));
        debug_assert!(written.is_ok(), "answers echo fields that were decoded");
    }

    /// Writes one JSON object.
    pub(crate) fn json(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let transport = self.transport;
        let buffer = self.buffer(true);
        encode(buffer);
        if transport == Transport::Tcp {
            buffer.put_u8(jsonrpc::TCP_SEPARATOR);
        }
    }

    /// The buffer of the next frame: on TCP the one before it, while it is not too long.
    fn buffer(&mut self, text: bool) -> &mut BytesMut {
        let merges = self.transport == Transport::Tcp
            && matches!(self.effects.last(), Some(Effect::Transmit { bytes, text: t })
                if *t == text && bytes.len() < TRANSMIT_BYTES_TARGET);
        if !merges {
            self.effects.push(Effect::Transmit {
                bytes: BytesMut::new(),
                text,
            });
        }
        match self.effects.last_mut() {
            Some(Effect::Transmit { bytes, .. }) => bytes,
            _ => unreachable!("the last effect is the one found or pushed above"),
        }
    }
}

/// How an authenticated client is spoken to.
#[derive(Debug)]
pub(crate) enum Dialect {
    Binary {
        version: u8,
        /// `None`: encryption is off.
        cipher: Option<wk_proto::crypto::Cipher>,
    },
    JsonRpc {
        /// Makes clientMsgNo where the client left it out.
        numbers: crate::numbers::Numbers,
    },
}

impl Dialect {
    pub(crate) fn sendack(&self, answer: &Answer, out: &mut Output<'_>) {
        let mut ack = Sendack {
            flags: answer.flags,
            message_id: answer.result.message_id.0,
            client_seq: 0,
            // 64 bits inside, 32 on the wire, as the protocol has it.
            message_seq: answer.result.message_seq.0 as u32,
            reason_code: answer.result.reason.code(),
        };
        match (self, &answer.origin) {
            (Self::Binary { version, .. }, Origin::Seq(client_seq)) => {
                ack.client_seq = *client_seq;
                out.frame(&Frame::Sendack(ack), *version);
            }
            (_, Origin::Request(id, end)) => {
                out.json(|to| jsonrpc::encode_sendack(id, &ack, *end, to));
            }
            (Self::JsonRpc { .. }, Origin::Seq(_)) => {
                debug_assert!(false, "a JSON-RPC send has a request id");
            }
        }
    }

    /// Whether it was written: a message that fits no frame is not.
    pub(crate) fn recv(&self, parts: &RecvParts<'_>, out: &mut Output<'_>) -> bool {
        match self {
            Self::Binary { version, cipher } => out
                .binary(|to| wire::encode_recv(parts, *version, cipher.as_ref(), to))
                .is_ok(),
            Self::JsonRpc { .. } => {
                out.json(|to| jsonrpc::encode_recv(parts, to));
                true
            }
        }
    }

    /// Older binary clients do not know the frame, one of them throws on it.
    pub(crate) fn event(&self, event: &Event, out: &mut Output<'_>) {
        match self {
            Self::Binary { version, .. } if *version < 5 => {}
            Self::Binary { version, .. } => {
                let _too_long_for_anyone =
                    out.binary(|to| wire::encode(&Frame::Event(event.clone()), *version, to));
            }
            Self::JsonRpc { .. } => out.json(|to| jsonrpc::encode_event(event, to)),
        }
    }

    pub(crate) fn kick(&self, text: &'static str, out: &mut Output<'_>) {
        let disconnect = Disconnect {
            flags: Flags::default(),
            reason_code: Reason::ConnectKick.code(),
            reason: bytes::Bytes::from_static(text.as_bytes()),
        };
        match self {
            Self::Binary { version, .. } => out.frame(&Frame::Disconnect(disconnect), *version),
            Self::JsonRpc { .. } => out.json(|to| jsonrpc::encode_disconnect(&disconnect, to)),
        }
    }
}

/// How a client that is not authenticated yet is answered.
#[derive(Debug)]
pub(crate) enum Caller {
    Binary { version: u8 },
    JsonRpc { id: Box<[u8]> },
}

impl Caller {
    pub(crate) fn connack(&self, connack: &Connack, out: &mut Output<'_>) {
        match self {
            Self::Binary { version } => out.frame(&Frame::Connack(connack.clone()), *version),
            Self::JsonRpc { id } => match Reason::from_code(connack.reason_code) {
                Some(Reason::Success) => out.json(|to| jsonrpc::encode_connect(id, connack, to)),
                reason => {
                    let reason = reason.unwrap_or(Reason::Unknown);
                    out.json(|to| jsonrpc::encode_refusal(id, reason, to));
                }
            },
        }
    }
}

/// Answers a JSON message that is not taken.
pub(crate) fn json_error(id: Option<&[u8]>, code: ErrorCode, text: &str, out: &mut Output<'_>) {
    out.json(|to| jsonrpc::encode_error(id, code, text, to));
}
