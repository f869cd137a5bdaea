//! Bytes of a message file: constants, and reading numbers without panics.

use bytes::Bytes;
use wk_proto::record::RecordError;

use crate::{Error, Result};

pub(super) const MAGIC: &[u8; 8] = b"wkmsgs\r\n";
/// Layout written by this build; others are refused.
pub(super) const VERSION: u32 = 1;
/// Magic, version, crc32c of both.
pub(super) const HEADER_LEN: usize = 16;
/// Footer offset u64, footer length u64, footer crc u32, version u32, magic, crc of all before, zero u32.
pub(super) const TRAILER_LEN: usize = 40;

/// Target of a block's content; a larger record gets a block of its own.
pub(super) const BLOCK_BYTES: usize = 16 * 1024;
/// Largest block a reader accepts: one record of any legal size.
pub(super) const BLOCK_BYTES_MAX: usize =
    BLOCK_BYTES + ENTRY_HEADER + wk_proto::limits::RECORD_BYTES_MAX;
/// crc32c before a block's content.
pub(super) const BLOCK_HEADER: usize = 4;
/// seq u64, len u32.
pub(super) const ENTRY_HEADER: usize = 12;
/// One section in the footer's directory.
pub(super) const SECTION_LEN: usize = 144;
/// One channel of a section.
pub(super) const CHANNEL_LEN: usize = 64;
/// Hash u64, channel number u32.
pub(super) const HASH_LEN: usize = 12;
/// Offset u64, first seq u64.
pub(super) const BLOCK_LEN: usize = 16;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

/// 0 outside of `bytes`: every caller slices to a checked length first.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// `len` bytes at `at`, or why not.
pub(super) fn part(bytes: &Bytes, at: usize, len: usize) -> Option<Bytes> {
    let end = at.checked_add(len)?;
    (end <= bytes.len()).then(|| bytes.slice(at..end))
}

/// Something at a position of a file is not what was written.
pub(super) fn corrupt(path: &str, at: u64, why: impl Into<String>) -> Error {
    Error::Corrupt {
        what: format!("{path} at byte {at}"),
        why: why.into(),
    }
}

pub(super) fn bad_record(path: &str, at: u64, why: RecordError) -> Error {
    corrupt(path, at, format!("record: {why}"))
}

/// Adds the operation and the file to a system error.
pub(super) fn io<T>(result: std::io::Result<T>, doing: &str, path: &str) -> Result<T> {
    result.map_err(|source| Error::Io {
        what: format!("{doing} {path}"),
        source,
    })
}
