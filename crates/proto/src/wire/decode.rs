//! Bytes to frames.

use bytes::Bytes;

use super::fields::Fields;
use super::kind;
use crate::frame::Frame;
use crate::limits::FRAME_BYTES_MAX;
use crate::record::Flags;

/// Length bytes of a frame at most; a continuation bit on the last one is an error.
const LENGTH_BYTES_MAX: usize = 4;

/// Why a connection cannot go on. Every variant closes it. Spec: wire-protocol 13.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Type 0 or 13–15.
    #[error("unknown packet type {0}")]
    Type(u8),
    /// The announced length is over `FRAME_BYTES_MAX`, or its encoding does not end.
    #[error("frame is too long")]
    TooLong,
    /// The body ends before its fields do, or a string length is negative.
    #[error("frame body is malformed")]
    Body,
}

/// Length in bytes of the frame `buf` starts with, header included; `None` until the length bytes are there. Reads
/// the header only, so it is cheap to call again as bytes arrive.
pub fn frame_len(buf: &[u8]) -> Result<Option<usize>, DecodeError> {
    Ok(header(buf)?.map(|h| h.len + h.body_len))
}

/// Decodes the frame `buf` starts with, in the layout of `version`: the frame and the bytes it took, or `None` if it
/// is not complete. `version` only matters for SEND, RECV and CONNACK: use 0 before CONNECT, the negotiated one after.
pub fn decode(buf: &Bytes, version: u8) -> Result<Option<(Frame, usize)>, DecodeError> {
    let Some(header) = header(buf)? else {
        return Ok(None);
    };
    let end = header.len + header.body_len;
    if buf.len() < end {
        return Ok(None);
    }
    let mut body = Body {
        bytes: buf,
        at: header.len,
        end,
    };
    Ok(Some((
        read(header.kind, header.flags, version, &mut body)?,
        end,
    )))
}

struct Header {
    kind: u8,
    flags: Flags,
    /// Type byte and length bytes.
    len: usize,
    body_len: usize,
}

fn header(buf: &[u8]) -> Result<Option<Header>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else {
        return Ok(None);
    };
    let (kind, flags) = (first >> 4, Flags(first & 0x0F));
    let (length_bytes, body_len) = match kind {
        kind::PING | kind::PONG => (0, 0),
        kind::CONNECT..=kind::EVENT => match body_len(rest)? {
            Some(read) => read,
            None => return Ok(None),
        },
        _ => return Err(DecodeError::Type(kind)),
    };
    Ok(Some(Header {
        kind,
        flags,
        len: 1 + length_bytes,
        body_len,
    }))
}

/// The "remaining length": bytes it took and its value. Over-long encodings are accepted.
fn body_len(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return if value <= FRAME_BYTES_MAX {
                Ok(Some((i + 1, value)))
            } else {
                Err(DecodeError::TooLong)
            };
        }
    }
    if bytes.len() < LENGTH_BYTES_MAX {
        Ok(None)
    } else {
        Err(DecodeError::TooLong)
    }
}

fn read(kind: u8, flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Frame, DecodeError> {
    Ok(match kind {
        kind::PING => Frame::Ping,
        kind::PONG => Frame::Pong,
        kind::CONNECT => Frame::Connect(Fields::read(flags, version, b)?),
        kind::CONNACK => Frame::Connack(Fields::read(flags, version, b)?),
        kind::SEND => Frame::Send(Fields::read(flags, version, b)?),
        kind::SENDACK => Frame::Sendack(Fields::read(flags, version, b)?),
        kind::RECV => Frame::Recv(Fields::read(flags, version, b)?),
        kind::RECVACK => Frame::Recvack(Fields::read(flags, version, b)?),
        kind::DISCONNECT => Frame::Disconnect(Fields::read(flags, version, b)?),
        kind::SUB => Frame::Sub(Fields::read(flags, version, b)?),
        kind::SUBACK => Frame::Suback(Fields::read(flags, version, b)?),
        kind::EVENT => Frame::Event(Fields::read(flags, version, b)?),
        _ => return Err(DecodeError::Type(kind)),
    })
}

/// A cursor over one frame's body, `at..end` of the input. Reading past `end` is an error; bytes left over are not.
pub(super) struct Body<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl Body<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = &self.bytes[self.at..self.end];
        let read = rest.first_chunk::<N>().ok_or(DecodeError::Body)?;
        self.at += N;
        Ok(*read)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn str(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.array().map(i16::from_be_bytes)?;
        let len = usize::try_from(len).map_err(|_| DecodeError::Body)?;
        if len > self.end - self.at {
            return Err(DecodeError::Body);
        }
        let read = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(read)
    }

    pub(super) fn rest(&mut self) -> Bytes {
        let read = self.bytes.slice(self.at..self.end);
        self.at = self.end;
        read
    }

    /// A field that this frame may not have; its default if so.
    pub(super) fn only_if<T: Default>(
        &mut self,
        present: bool,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if present {
            read(self)
        } else {
            Ok(T::default())
        }
    }
}
