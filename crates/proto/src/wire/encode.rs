//! Frames to bytes: measure, check, reserve exactly, write.

use bytes::{BufMut, BytesMut};

use super::body::{self, Count, RECV_MSG_KEY_AT, Sink};
use super::{HAS_SERVER_VERSION, kind};
use crate::crypto::{Cipher, MSG_KEY_BYTES, sealed_len};
use crate::frame::{Frame, Recv, RecvParts};
use crate::limits::FRAME_BYTES_MAX;
use crate::record::Flags;

/// A string over `STR_BYTES_MAX` or a body over `FRAME_BYTES_MAX`: no client could read the frame. Limits at the
/// entrance make this impossible for messages; nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame or string is too long for the wire")]
pub struct TooLong;

/// Appends `frame` to `out` in the layout of `version`. Fields that the layout does not have are left out: a version 5
/// SEND or RECV never has stream fields, whatever its setting byte says. On error `out` is as before.
pub fn encode(frame: &Frame, version: u8, out: &mut BytesMut) -> Result<(), TooLong> {
    match frame {
        Frame::Connect(f) => write(kind::CONNECT, f.flags, out, |to| body::connect(f, to)),
        Frame::Connack(f) => write(kind::CONNACK, connack_flags(f.server_version), out, |to| {
            body::connack(f, version, to)
        }),
        Frame::Send(f) => write(kind::SEND, f.flags, out, |to| body::send(f, version, to)),
        Frame::Sendack(f) => write(kind::SENDACK, f.flags, out, |to| body::sendack(f, to)),
        Frame::Recv(f) => plain_recv(f, version, out),
        Frame::Recvack(f) => write(kind::RECVACK, f.flags, out, |to| body::recvack(f, to)),
        Frame::Ping => byte(kind::PING, out),
        Frame::Pong => byte(kind::PONG, out),
        Frame::Disconnect(f) => write(kind::DISCONNECT, f.flags, out, |to| body::disconnect(f, to)),
        Frame::Sub(f) => write(kind::SUB, f.flags, out, |to| body::sub(f, to)),
        Frame::Suback(f) => write(kind::SUBACK, f.flags, out, |to| body::suback(f, to)),
        Frame::Event(f) => write(kind::EVENT, f.flags, out, |to| body::event(f, to)),
    }
}

/// Appends a RECV to `out`: with a cipher, payload encrypted and msgKey computed for that connection; without one,
/// payload as it is and msgKey empty. The fan-out path: one reservation, no other allocation. On error `out` is as
/// before.
pub fn encode_recv(
    parts: &RecvParts<'_>,
    version: u8,
    cipher: Option<&Cipher>,
    out: &mut BytesMut,
) -> Result<(), TooLong> {
    let Some(cipher) = cipher else {
        recv_head(parts, b"", parts.payload.len(), version, out)?;
        out.put_slice(parts.payload);
        return Ok(());
    };
    // The key covers the encrypted payload, which comes after it: leave room, fill it in at the end.
    let sealed = sealed_len(parts.payload.len());
    let body_at = recv_head(parts, &[0; MSG_KEY_BYTES], sealed, version, out)?;
    let msg_key = cipher.seal_recv(parts, out);
    let key_at = body_at + RECV_MSG_KEY_AT;
    out[key_at..key_at + MSG_KEY_BYTES].copy_from_slice(&msg_key);
    Ok(())
}

fn plain_recv(f: &Recv, version: u8, out: &mut BytesMut) -> Result<(), TooLong> {
    recv_head(&f.parts(), &f.msg_key, f.payload.len(), version, out)?;
    out.put_slice(&f.payload);
    Ok(())
}

/// Writes a RECV up to its payload of `payload_len` bytes, with room reserved for that; the body's offset in `out`.
fn recv_head(
    parts: &RecvParts<'_>,
    msg_key: &[u8],
    payload_len: usize,
    version: u8,
    out: &mut BytesMut,
) -> Result<usize, TooLong> {
    let mut count = Count::default();
    body::recv_head(parts, msg_key, version, &mut count);
    count.len += payload_len;
    let body_at = start(kind::RECV, parts.flags, &count, out)?;
    body::recv_head(parts, msg_key, version, out);
    Ok(body_at)
}

/// A body that can be sent to either sink: closures cannot be generic, so both are spelled out.
fn write(
    kind: u8,
    flags: Flags,
    out: &mut BytesMut,
    body: impl Fn(&mut Either<'_>),
) -> Result<(), TooLong> {
    let mut count = Count::default();
    body(&mut Either::Count(&mut count));
    start(kind, flags, &count, out)?;
    body(&mut Either::Write(out));
    Ok(())
}

enum Either<'a> {
    Count(&'a mut Count),
    Write(&'a mut BytesMut),
}

impl Sink for Either<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        match self {
            Self::Count(count) => count.raw(bytes),
            Self::Write(out) => out.raw(bytes),
        }
    }

    fn str(&mut self, bytes: &[u8]) {
        match self {
            Self::Count(count) => count.str(bytes),
            Self::Write(out) => out.str(bytes),
        }
    }
}

/// Checks the measured body, reserves the whole frame and writes its header; the body's offset in `out`.
fn start(kind: u8, flags: Flags, body: &Count, out: &mut BytesMut) -> Result<usize, TooLong> {
    if body.string_too_long || body.len > FRAME_BYTES_MAX {
        return Err(TooLong);
    }
    let (length, length_bytes) = length(body.len);
    out.reserve(1 + length_bytes + body.len);
    out.put_u8(kind << 4 | flags.0 & 0x0F);
    out.put_slice(&length[..length_bytes]);
    Ok(out.len())
}

/// The "remaining length" in its shortest form, at least one byte; at most three below `FRAME_BYTES_MAX`.
fn length(mut value: usize) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    let mut used = 0;
    loop {
        bytes[used] = (value & 0x7F) as u8;
        value >>= 7;
        used += 1;
        if value == 0 {
            return (bytes, used);
        }
        bytes[used - 1] |= 0x80;
    }
}

fn connack_flags(server_version: Option<u8>) -> Flags {
    Flags(server_version.map_or(0, |_| HAS_SERVER_VERSION))
}

fn byte(kind: u8, out: &mut BytesMut) -> Result<(), TooLong> {
    out.put_u8(kind << 4);
    Ok(())
}
