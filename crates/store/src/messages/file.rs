//! Opens a message file: checks it and keeps its footer.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use wk_proto::{MessageId, ReplicaId, WallMs};

use super::format::{
    BLOCK_LEN, CHANNEL_LEN, HASH_LEN, HEADER_LEN, MAGIC, SECTION_LEN, TRAILER_LEN, VERSION,
    corrupt, io, part, u32_at, u64_at,
};
use super::table::{self, Table};
use crate::{Disk, Error, File, Result};

/// One open file.
pub(crate) struct MessageFile {
    pub(super) id: u64,
    pub(super) path: String,
    pub(super) file: Arc<dyn File>,
    pub(super) sections: Vec<Section>,
}

/// One replica's part, as the footer describes it.
pub(super) struct Section {
    pub(super) replica: ReplicaId,
    pub(super) first_id: MessageId,
    pub(super) last_id: MessageId,
    pub(super) time_max: WallMs,
    pub(super) channels: Bytes,
    pub(super) hashes: Bytes,
    /// One more than there are blocks: the end of the last one.
    pub(super) blocks: Bytes,
    pub(super) texts: Bytes,
    pub(super) ids: Table,
    pub(super) numbers: Table,
    pub(super) senders: Table,
    pub(super) number_filter: Filter,
    pub(super) sender_filter: Filter,
}

pub(super) struct Filter {
    pub(super) at: u64,
    pub(super) len: usize,
    pub(super) crc: u32,
    pub(super) lines: OnceLock<Bytes>,
}

impl Filter {
    fn new(entry: &[u8], at: usize) -> Self {
        Self {
            at: u64_at(entry, at),
            len: u32_at(entry, at + 8) as usize,
            crc: u32_at(entry, at + 12),
            lines: OnceLock::new(),
        }
    }
}

impl MessageFile {
    /// Opens a complete file and keeps its footer.
    pub(crate) fn open(disk: &dyn Disk, id: u64) -> Result<Self> {
        let path = super::path(id);
        let file = io(disk.open(&path, false), "open", &path)?;
        let len = io(file.len(), "length of", &path)?;
        check_header(&*file, &path, len)?;
        let footer = read_footer(&*file, &path, len)?;
        let sections = parse_footer(&footer)
            .ok_or_else(|| corrupt(&path, len, "the footer's parts do not fit together"))?;
        Ok(Self {
            id,
            path,
            file,
            sections,
        })
    }

    /// Its number in the list of files.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

fn check_header(file: &dyn File, path: &str, len: u64) -> Result<()> {
    if len < (HEADER_LEN + TRAILER_LEN) as u64 {
        return Err(corrupt(path, len, "the file is too short"));
    }
    let mut header = [0; HEADER_LEN];
    io(file.read_at(0, &mut header), "read", path)?;
    if header[..8] != *MAGIC || crc32c::crc32c(&header[..12]) != u32_at(&header, 12) {
        return Err(corrupt(path, 0, "not the header of a message file"));
    }
    match u32_at(&header, 8) {
        VERSION => Ok(()),
        newer => Err(Error::Invalid(format!(
            "{path} has message file format {newer}, this build knows {VERSION}: start the version that wrote it"
        ))),
    }
}

fn read_footer(file: &dyn File, path: &str, len: u64) -> Result<Bytes> {
    let at = len - TRAILER_LEN as u64;
    let mut trailer = [0; TRAILER_LEN];
    io(file.read_at(at, &mut trailer), "read", path)?;
    if trailer[24..32] != *MAGIC || crc32c::crc32c(&trailer[..32]) != u32_at(&trailer, 32) {
        return Err(corrupt(path, at, "checksum of the trailer"));
    }
    let (footer_at, footer_len) = (u64_at(&trailer, 0), u64_at(&trailer, 8));
    if footer_at.checked_add(footer_len) != Some(at) {
        return Err(corrupt(path, at, "the trailer names no footer"));
    }
    let mut footer = BytesMut::zeroed(usize::try_from(footer_len).unwrap_or(usize::MAX));
    io(file.read_at(footer_at, &mut footer), "read", path)?;
    if crc32c::crc32c(&footer) != u32_at(&trailer, 16) {
        return Err(corrupt(path, footer_at, "checksum of the footer"));
    }
    Ok(footer.freeze())
}

fn parse_footer(footer: &Bytes) -> Option<Vec<Section>> {
    let count = u32_at(footer, 0) as usize;
    let directory = part(footer, 12, count.checked_mul(SECTION_LEN)?)?;
    let parts = footer.slice(12 + directory.len()..);
    if parts.len() as u64 != u64_at(footer, 4) {
        return None;
    }
    directory
        .chunks_exact(SECTION_LEN)
        .map(|entry| parse_section(entry, &parts))
        .collect()
}

fn parse_section(entry: &[u8], parts: &Bytes) -> Option<Section> {
    let mut at = usize::try_from(u64_at(entry, 32)).ok()?;
    let mut next = |len: usize| {
        let bytes = part(parts, at, len)?;
        at += len;
        Some(bytes)
    };
    let channels = u32_at(entry, 40) as usize;
    let texts_len = u32_at(entry, 44) as usize;
    let blocks = u32_at(entry, 48) as usize;
    let channel_bytes = next(channels.checked_mul(CHANNEL_LEN)?)?;
    let hashes = next(channels.checked_mul(HASH_LEN)?)?;
    let blocks = next((blocks + 1).checked_mul(BLOCK_LEN)?)?;
    let texts = next(texts_len)?;
    let mut table = |at: usize| {
        let facts = usize::try_from(u64_at(entry, at + 8)).ok()?;
        Some(Table {
            at: u64_at(entry, at),
            facts,
            fences: next(table::fences_len(facts))?,
        })
    };
    Some(Section {
        replica: ReplicaId(u64_at(entry, 0)),
        first_id: MessageId(u64_at(entry, 8) as i64),
        last_id: MessageId(u64_at(entry, 16) as i64),
        time_max: WallMs(u64_at(entry, 24)),
        channels: channel_bytes,
        hashes,
        blocks,
        texts,
        ids: table(56)?,
        numbers: table(72)?,
        senders: table(88)?,
        number_filter: Filter::new(entry, 104),
        sender_filter: Filter::new(entry, 120),
    })
}
