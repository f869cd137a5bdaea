//! Bytes to frames.

use bytes::Bytes;

use super::{HAS_SERVER_VERSION, Layout, kind};
use crate::frame::{
    Connack, Connect, Disconnect, Event, Frame, Recv, Recvack, Send, Sendack, Sub, Suback,
};
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

fn read(kind: u8, flags: Flags, version: u8, body: &mut Body<'_>) -> Result<Frame, DecodeError> {
    Ok(match kind {
        kind::CONNECT => Frame::Connect(connect(flags, body)?),
        kind::CONNACK => Frame::Connack(connack(flags, version, body)?),
        kind::SEND => Frame::Send(send(flags, version, body)?),
        kind::SENDACK => Frame::Sendack(sendack(flags, body)?),
        kind::RECV => Frame::Recv(recv(flags, version, body)?),
        kind::RECVACK => Frame::Recvack(recvack(flags, body)?),
        kind::PING => Frame::Ping,
        kind::PONG => Frame::Pong,
        kind::DISCONNECT => Frame::Disconnect(disconnect(flags, body)?),
        kind::SUB => Frame::Sub(sub(flags, body)?),
        kind::SUBACK => Frame::Suback(suback(flags, body)?),
        kind::EVENT => Frame::Event(event(flags, body)?),
        _ => return Err(DecodeError::Type(kind)),
    })
}

// Struct literals evaluate their fields in the order written, which is the order on the wire.

fn connect(flags: Flags, b: &mut Body<'_>) -> Result<Connect, DecodeError> {
    Ok(Connect {
        flags,
        version: b.u8()?,
        device_flag: b.u8()?,
        device_id: b.str()?,
        uid: b.str()?,
        token: b.str()?,
        client_timestamp: b.i64()?,
        client_key: b.str()?,
    })
}

fn connack(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Connack, DecodeError> {
    Ok(Connack {
        server_version: b.only_if(flags.has(HAS_SERVER_VERSION), |b| b.u8().map(Some))?,
        time_diff: b.i64()?,
        reason_code: b.u8()?,
        server_key: b.str()?,
        salt: b.str()?,
        node_id: b.only_if(version >= 4, Body::u64)?,
    })
}

fn send(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Send, DecodeError> {
    let setting = b.u8()?;
    let layout = Layout::of(version, setting);
    Ok(Send {
        flags,
        setting,
        client_seq: b.u32()?,
        client_msg_no: b.str()?,
        stream_no: b.only_if(layout.stream, Body::str)?,
        channel_id: b.str()?,
        channel_type: b.u8()?,
        expire: b.only_if(layout.expire, Body::u32)?,
        msg_key: b.str()?,
        topic: b.only_if(layout.topic, Body::str)?,
        payload: b.rest(),
    })
}

fn sendack(flags: Flags, b: &mut Body<'_>) -> Result<Sendack, DecodeError> {
    Ok(Sendack {
        flags,
        message_id: b.i64()?,
        client_seq: b.u32()?,
        message_seq: b.u32()?,
        reason_code: b.u8()?,
    })
}

fn recv(flags: Flags, version: u8, b: &mut Body<'_>) -> Result<Recv, DecodeError> {
    let setting = b.u8()?;
    let layout = Layout::of(version, setting);
    Ok(Recv {
        flags,
        setting,
        msg_key: b.str()?,
        from_uid: b.str()?,
        channel_id: b.str()?,
        channel_type: b.u8()?,
        expire: b.only_if(layout.expire, Body::u32)?,
        client_msg_no: b.str()?,
        stream_flag: b.only_if(layout.stream, Body::u8)?,
        stream_no: b.only_if(layout.stream, Body::str)?,
        stream_id: b.only_if(layout.stream, Body::u64)?,
        message_id: b.i64()?,
        message_seq: b.u32()?,
        timestamp: b.i32()?,
        topic: b.only_if(layout.topic, Body::str)?,
        payload: b.rest(),
    })
}

fn recvack(flags: Flags, b: &mut Body<'_>) -> Result<Recvack, DecodeError> {
    Ok(Recvack {
        flags,
        message_id: b.i64()?,
        message_seq: b.u32()?,
    })
}

fn disconnect(flags: Flags, b: &mut Body<'_>) -> Result<Disconnect, DecodeError> {
    Ok(Disconnect {
        flags,
        reason_code: b.u8()?,
        reason: b.str()?,
    })
}

fn sub(flags: Flags, b: &mut Body<'_>) -> Result<Sub, DecodeError> {
    Ok(Sub {
        flags,
        setting: b.u8()?,
        sub_no: b.str()?,
        channel_id: b.str()?,
        channel_type: b.u8()?,
        action: b.u8()?,
        param: b.str()?,
    })
}

fn suback(flags: Flags, b: &mut Body<'_>) -> Result<Suback, DecodeError> {
    Ok(Suback {
        flags,
        sub_no: b.str()?,
        channel_id: b.str()?,
        channel_type: b.u8()?,
        action: b.u8()?,
        reason_code: b.u8()?,
    })
}

fn event(flags: Flags, b: &mut Body<'_>) -> Result<Event, DecodeError> {
    Ok(Event {
        flags,
        id: b.str()?,
        kind: b.str()?,
        timestamp: b.i64()?,
        data: b.rest(),
    })
}

/// A cursor over one frame's body, `at..end` of the input. Reading past `end` is an error; bytes left over are not.
struct Body<'a> {
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

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    fn str(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.array().map(i16::from_be_bytes)?;
        let len = usize::try_from(len).map_err(|_| DecodeError::Body)?;
        if len > self.end - self.at {
            return Err(DecodeError::Body);
        }
        let read = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(read)
    }

    fn rest(&mut self) -> Bytes {
        let read = self.bytes.slice(self.at..self.end);
        self.at = self.end;
        read
    }

    /// A field that this frame may not have; its default if so.
    fn only_if<T: Default>(
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
