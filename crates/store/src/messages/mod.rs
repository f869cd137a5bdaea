//! Message files: immutable, written once, checked on every read.
//!
//! ```text
//!  header   magic, version, crc
//!  section  per replica, by replica id:
//!    blocks   crc32c, then entries of (seq u64, len u32, record); channels in key order, seqs ascending; ≤ 16 KiB unless a
//!             single record is larger; small channels share a block
//!    tables   sorted 20-byte entries (key u64, sub u32, seq u64) in pages of 4 KiB, crc32c each:
//!             ids      message id,                channel number      → seq     the journal (H14)
//!             numbers  hash(channel, client_msg_no), hash32(sender)   → seq     duplicates (H34)
//!             senders  hash(channel, sender),     0                   → newest seq
//!    filters  10 bits a key: (channel, sender, client_msg_no), and (channel, sender)
//!  footer   directory of the sections, and per section: channels by key with first, last, count and head; the same by
//!           hash; block offsets; first key of each table page
//!  trailer  where the footer is, crc
//! ```
//!
//! Numbers are little-endian. **The footer stays in memory** while the file is open: 76 bytes + key + last sender per
//! (channel, file), 16 per block, 12 per 204 table entries; so a head, a channel's absence and the block of a seq cost no
//! read, and opening never looks at messages. Filters are loaded when first asked, and only for files young enough to matter.
//!
//! A flush file holds sections of many replicas, a merged file of one (H41). A section refers to nothing outside itself.

mod file;
mod format;
mod section;
mod table;
mod writer;

pub(crate) use file::MessageFile;
pub(crate) use section::SectionLayer;
pub(crate) use writer::FileWriter;

/// Folder of the message files.
pub(crate) const DIR: &str = "messages";

/// Path of a message file. Ids are never reused.
pub(crate) fn path(id: u64) -> String {
    format!("{DIR}/{}", name(id))
}

fn name(id: u64) -> String {
    format!("{id:016x}.msg")
}

/// Inverse of the file name; `None` for files that are not ours.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name.strip_suffix(".msg")?, 16).ok()?;
    (self::name(id) == name).then_some(id)
}
