//! Frames to bytes: measure, check, reserve exactly, write.

use bytes::{BufMut, BytesMut};

use super::fields::{self, Fields, RECV_MSG_KEY_AT};
use super::{HAS_SERVER_VERSION, kind};
use crate::crypto::{Cipher, MSG_KEY_BYTES, sealed_len};
use crate::frame::{Frame, RecvParts};
use crate::limits::{FRAME_BYTES_MAX, STR_BYTES_MAX};
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
        Frame::Ping => byte(kind::PING, out),
        Frame::Pong => byte(kind::PONG, out),
        Frame::Connect(f) => write(kind::CONNECT, f.flags, f, version, out),
        Frame::Connack(f) => write(
            kind::CONNACK,
            connack_flags(f.server_version),
            f,
            version,
            out,
        ),
        Frame::Send(f) => write(kind::SEND, f.flags, f, version, out),
        Frame::Sendack(f) => write(kind::SENDACK, f.flags, f, version, out),
        Frame::Recv(f) => write(kind::RECV, f.flags, f, version, out),
        Frame::Recvack(f) => write(kind::RECVACK, f.flags, f, version, out),
        Frame::Disconnect(f) => write(kind::DISCONNECT, f.flags, f, version, out),
        Frame::Sub(f) => write(kind::SUB, f.flags, f, version, out),
        Frame::Suback(f) => write(kind::SUBACK, f.flags, f, version, out),
        Frame::Event(f) => write(kind::EVENT, f.flags, f, version, out),
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

/// Writes a RECV up to its payload of `payload_len` bytes, with room reserved for that; the body's offset in `out`.
fn recv_head(
    parts: &RecvParts<'_>,
    msg_key: &[u8],
    payload_len: usize,
    version: u8,
    out: &mut BytesMut,
) -> Result<usize, TooLong> {
    let mut count = Count::default();
    fields::recv_head(parts, msg_key, version, &mut count);
    count.len += payload_len;
    let body_at = start(kind::RECV, parts.flags, &count, out)?;
    fields::recv_head(parts, msg_key, version, out);
    Ok(body_at)
}

fn write(
    kind: u8,
    flags: Flags,
    frame: &impl Fields,
    version: u8,
    out: &mut BytesMut,
) -> Result<(), TooLong> {
    let mut count = Count::default();
    frame.write(version, &mut count);
    start(kind, flags, &count, out)?;
    frame.write(version, out);
    Ok(())
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

/// Takes the fields of a body one after the other.
pub(super) trait Sink {
    fn raw(&mut self, bytes: &[u8]);
    /// A length-prefixed string. Its length is checked by [`Count`], which always runs first.
    fn str(&mut self, bytes: &[u8]);

    fn u8(&mut self, n: u8) {
        self.raw(&[n]);
    }
    fn u32(&mut self, n: u32) {
        self.raw(&n.to_be_bytes());
    }
    fn i32(&mut self, n: i32) {
        self.raw(&n.to_be_bytes());
    }
    fn u64(&mut self, n: u64) {
        self.raw(&n.to_be_bytes());
    }
    fn i64(&mut self, n: i64) {
        self.raw(&n.to_be_bytes());
    }
}

/// Adds up the length and notes whether every string fits its prefix.
#[derive(Default)]
struct Count {
    len: usize,
    string_too_long: bool,
}

impl Sink for Count {
    fn raw(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
    }

    fn str(&mut self, bytes: &[u8]) {
        self.string_too_long |= bytes.len() > STR_BYTES_MAX;
        self.len += 2 + bytes.len();
    }
}

impl Sink for BytesMut {
    fn raw(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    fn str(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= STR_BYTES_MAX);
        self.put_u16(bytes.len() as u16);
        self.put_slice(bytes);
    }
}
