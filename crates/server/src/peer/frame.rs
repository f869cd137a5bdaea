//! Frames between nodes (D13): what is on every peer connection, in both directions.
//!
//! ```text
//! | len u32 | kind u8 | ver u8 | flags u16 | body: len bytes |      little-endian
//! ```
//!
//! A kind that is not known is skipped by its length, so that newer nodes can say more. Decoding is total.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before the body.
pub(super) const HEADER: usize = 8;

/// Bytes of a body. A longer announcement ends the connection; what we would have to send longer is refused where it arises.
pub(super) const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a body before the peer has proven who it is.
pub(super) const HELLO_BYTES_MAX: usize = 1_024;

const VERSION: u8 = 1;

/// An announcement beyond the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes")]
pub(super) struct TooLong(usize);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) body: Bytes,
}

/// Writes a frame around what `body` writes.
pub(super) fn encode(kind: u8, size: usize, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + size);
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_u8(VERSION);
    out.put_u16_le(0);
    body(&mut out);
    // A body that does not fit its length field is beyond the bound and never leaves: see `Outbox::put`.
    let len = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&len.to_le_bytes());
    out.freeze()
}

/// Takes the first frame out of what was read; `None`: it is not complete.
pub(super) fn take(read: &mut BytesMut, body_max: usize) -> Result<Option<Frame>, TooLong> {
    let Some(mut header) = read.get(..HEADER) else {
        return Ok(None);
    };
    let len = header.get_u32_le() as usize;
    if len > body_max {
        return Err(TooLong(len));
    }
    let kind = header.get_u8();
    if read.len() < HEADER + len {
        read.reserve(HEADER + len - read.len());
        return Ok(None);
    }
    read.advance(HEADER);
    let body = read.split_to(len).freeze();
    Ok(Some(Frame { kind, body }))
}

/// Reads fields in order; everything is `None` once one does not fit.
#[derive(Debug)]
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16_le().ok()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32_le().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64_le().ok()
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.0.try_get_u128_le().ok()
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    pub(super) fn take(&mut self, len: usize) -> Option<Bytes> {
        (self.0.len() >= len).then(|| self.0.split_to(len))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?[..].try_into().ok()
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).ok().map(str::to_owned)
    }

    /// As many rows as announced, as long as each can have `least` bytes.
    pub(super) fn rows<T>(
        &mut self,
        least: usize,
        mut row: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = self.u32()? as usize;
        if count.checked_mul(least)? > self.0.len() {
            return None;
        }
        (0..count).map(|_| row(self)).collect()
    }

    pub(super) fn rest(self) -> Bytes {
        self.0
    }
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_in_any_portions() {
        let frame = encode(7, 3, |out| out.put_slice(b"abc"));
        let mut read = BytesMut::new();
        for (n, byte) in frame.iter().enumerate() {
            assert_eq!(take(&mut read, 3), Ok(None), "{n} bytes");
            read.put_u8(*byte);
        }
        read.put_u8(9);
        let body = Bytes::from_static(b"abc");
        assert_eq!(take(&mut read, 3), Ok(Some(Frame { kind: 7, body })));
        assert_eq!(read.len(), 1, "the next frame's first byte stays");
        let mut read = BytesMut::from(&frame[..]);
        assert_eq!(take(&mut read, 2), Err(TooLong(3)));
    }

    #[test]
    fn rows_that_cannot_be_there_are_not_allocated_for() {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(u32::MAX);
        assert_eq!(Reader(bytes.freeze()).rows(8, Reader::u64), None);
    }
}
