//! Writes one message file, front to back.

use std::sync::Arc;

use wk_proto::{ChannelKey, MessageId, MessageSeq, Record, ReplicaId};

use super::format::{
    BLOCK_BYTES, BLOCK_LEN, CHANNEL_LEN, HASH_LEN, MAGIC, SECTION_LEN, VERSION, io,
};
use super::table::{self, Fact};
use crate::layer::Channel;
use crate::{Disk, Error, File, IoBudget, Result};

/// Bytes written in one step, each preceded by the budget and followed by write-back (F3).
const STEP_BYTES: usize = 1024 * 1024;

/// Messages must come by replica, channel key and seq, all ascending.
pub(crate) struct FileWriter<'b> {
    out: Output<'b>,
    sections: Vec<Vec<u8>>,
    /// Parts of the footer after the directory.
    parts: Vec<u8>,
    section: Option<SectionWriter>,
}

/// Sequential output in steps.
struct Output<'b> {
    file: Arc<dyn File>,
    path: String,
    budget: &'b mut dyn IoBudget,
    buffer: Vec<u8>,
    written: u64,
}

impl Output<'_> {
    fn at(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for piece in bytes.chunks(STEP_BYTES) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() >= STEP_BYTES {
                self.step()?;
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        for piece in self.buffer.chunks(STEP_BYTES) {
            self.budget.take(piece.len());
            io(self.file.write_at(self.written, piece), "write", &self.path)?;
            let len = piece.len() as u64;
            io(
                self.file.flush_range(self.written, len),
                "write back",
                &self.path,
            )?;
            self.written += len;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// What one replica's part of the file needs until it is complete.
struct SectionWriter {
    replica: ReplicaId,
    channels: Vec<u8>,
    hashes: Vec<(u64, u32)>,
    texts: Vec<u8>,
    blocks: Vec<u8>,
    block: Vec<u8>,
    block_first_seq: u64,
    ids: Vec<Fact>,
    numbers: Vec<Fact>,
    filter: Vec<u64>,
    senders: Vec<Fact>,
    ids_range: (i64, i64),
    time_max: u64,
    channel: Option<ChannelWriter>,
}

struct ChannelWriter {
    key: ChannelKey,
    hash: u64,
    first_seq: u64,
    last_seq: u64,
    count: u32,
    block: u32,
    start: u32,
    senders_from: usize,
    last: Record,
}

impl<'b> FileWriter<'b> {
    /// Starts a new file. `path` must not exist yet.
    pub(crate) fn create(
        disk: &dyn Disk,
        path: &str,
        budget: &'b mut dyn IoBudget,
    ) -> Result<Self> {
        let file = io(disk.open(path, true), "create", path)?;
        let mut out = Output {
            file,
            path: path.to_owned(),
            budget,
            buffer: Vec::with_capacity(STEP_BYTES + BLOCK_BYTES),
            written: 0,
        };
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        let crc = crc32c::crc32c(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        out.put(&header)?;
        Ok(Self {
            out,
            sections: Vec::new(),
            parts: Vec::new(),
            section: None,
        })
    }

    /// Starts a replica's section.
    pub(crate) fn begin(&mut self, replica: ReplicaId) {
        debug_assert!(self.section.is_none());
        self.section = Some(SectionWriter::new(replica));
    }

    /// Adds the next message of the section.
    pub(crate) fn add(&mut self, key: &ChannelKey, seq: MessageSeq, record: &Record) -> Result<()> {
        match &mut self.section {
            Some(section) => section.add(&mut self.out, key, seq, record),
            None => Err(Error::Invalid("a message outside of a section".into())),
        }
    }

    /// Ends the section; an empty one leaves no trace.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(section) = self.section.take() else {
            return Ok(());
        };
        if section.ids.is_empty() && section.channel.is_none() {
            return Ok(());
        }
        let entry = section.finish(&mut self.out, &mut self.parts)?;
        self.sections.push(entry);
        Ok(())
    }

    /// Writes the footer and makes the content durable; the name is the caller's business.
    pub(crate) fn finish(mut self) -> Result<()> {
        let mut footer = (self.sections.len() as u32).to_le_bytes().to_vec();
        footer.extend_from_slice(&(self.parts.len() as u64).to_le_bytes());
        for section in &self.sections {
            footer.extend_from_slice(section);
        }
        footer.append(&mut self.parts);
        let at = self.out.at();
        self.out.put(&footer)?;
        let mut trailer = at.to_le_bytes().to_vec();
        trailer.extend_from_slice(&(footer.len() as u64).to_le_bytes());
        trailer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        trailer.extend_from_slice(&VERSION.to_le_bytes());
        trailer.extend_from_slice(MAGIC);
        let crc = crc32c::crc32c(&trailer);
        trailer.extend_from_slice(&crc.to_le_bytes());
        trailer.extend_from_slice(&[0; 4]);
        self.out.put(&trailer)?;
        self.out.step()?;
        io(self.out.file.sync(), "sync", &self.out.path)
    }
}

impl SectionWriter {
    fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            channels: Vec::new(),
            hashes: Vec::new(),
            texts: Vec::new(),
            blocks: Vec::new(),
            block: Vec::with_capacity(BLOCK_BYTES),
            block_first_seq: 0,
            ids: Vec::new(),
            numbers: Vec::new(),
            filter: Vec::new(),
            senders: Vec::new(),
            ids_range: (i64::MAX, i64::MIN),
            time_max: 0,
            channel: None,
        }
    }

    fn add(
        &mut self,
        out: &mut Output<'_>,
        key: &ChannelKey,
        seq: MessageSeq,
        record: &Record,
    ) -> Result<()> {
        let bytes = record.as_bytes();
        if !self.block.is_empty() && self.block.len() + bytes.len() > BLOCK_BYTES {
            self.end_block(out)?;
        }
        if self.channel.as_ref().is_none_or(|c| c.key != *key) {
            self.end_channel()?;
            self.begin_channel(key, seq, record)?;
        }
        if self.block.is_empty() {
            self.block_first_seq = seq.0;
        }
        self.block.extend_from_slice(&seq.0.to_le_bytes());
        self.block
            .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.block.extend_from_slice(bytes);
        self.index(seq, record)
    }

    fn begin_channel(&mut self, key: &ChannelKey, seq: MessageSeq, record: &Record) -> Result<()> {
        let hash = Channel::new(key).hash;
        self.hashes.push((hash, self.channel_number()?));
        self.channel = Some(ChannelWriter {
            key: key.clone(),
            hash,
            first_seq: seq.0,
            last_seq: 0,
            count: 0,
            block: narrow(self.blocks.len() / BLOCK_LEN)?,
            start: narrow(self.block.len())?,
            senders_from: self.senders.len(),
            last: record.clone(),
        });
        Ok(())
    }

    fn channel_number(&self) -> Result<u32> {
        narrow(self.channels.len() / CHANNEL_LEN)
    }

    /// Notes a message in the tables; the channel is begun.
    fn index(&mut self, seq: MessageSeq, record: &Record) -> Result<()> {
        let number_of_channel = self.channel_number()?;
        let Some(current) = &mut self.channel else {
            return Ok(());
        };
        current.last_seq = seq.0;
        current.count += 1;
        current.last = record.clone();
        let channel = Channel {
            key: &current.key,
            hash: current.hash,
        };
        let MessageId(id) = record.message_id();
        self.ids_range = (self.ids_range.0.min(id), self.ids_range.1.max(id));
        self.time_max = self.time_max.max(record.time().0);
        self.ids.push(Fact {
            key: id_key(MessageId(id)),
            sub: number_of_channel,
            seq: seq.0,
        });
        let sender = channel.sender(record.from_uid());
        self.senders.push(Fact {
            key: sender,
            sub: 0,
            seq: seq.0,
        });
        let number = record.client_msg_no();
        if !number.is_empty() {
            let hash = channel.number(number);
            self.numbers.push(Fact {
                key: hash.0,
                sub: sender as u32,
                seq: seq.0,
            });
            self.filter.push(hash.with_sender(sender));
        }
        Ok(())
    }

    fn end_channel(&mut self) -> Result<()> {
        let Some(channel) = self.channel.take() else {
            return Ok(());
        };
        self.keep_newest_by_sender(channel.senders_from);
        let key = channel.key.base.as_str();
        let from = channel.last.from_uid();
        let key_at = self.text(key)?;
        let from_at = self.text(from)?;
        let out = &mut self.channels;
        out.extend_from_slice(&key_at.to_le_bytes());
        out.extend_from_slice(&short(key)?.to_le_bytes());
        out.extend_from_slice(&[channel.key.kind.0, u8::from(channel.key.twin)]);
        out.extend_from_slice(&from_at.to_le_bytes());
        out.extend_from_slice(&short(from)?.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&channel.first_seq.to_le_bytes());
        out.extend_from_slice(&channel.last_seq.to_le_bytes());
        out.extend_from_slice(&channel.count.to_le_bytes());
        out.extend_from_slice(&channel.block.to_le_bytes());
        out.extend_from_slice(&channel.start.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&channel.last.message_id().0.to_le_bytes());
        out.extend_from_slice(&channel.last.time().0.to_le_bytes());
        debug_assert_eq!(out.len() % CHANNEL_LEN, 0);
        Ok(())
    }

    /// Of each sender only the newest seq is asked for.
    fn keep_newest_by_sender(&mut self, from: usize) {
        let mut newest = self.senders.split_off(from);
        newest.sort_unstable_by_key(|f| (f.key, std::cmp::Reverse(f.seq)));
        newest.dedup_by_key(|f| f.key);
        self.senders.append(&mut newest);
    }

    fn text(&mut self, text: &str) -> Result<u32> {
        let at = narrow(self.texts.len())?;
        self.texts.extend_from_slice(text.as_bytes());
        Ok(at)
    }

    fn end_block(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.blocks.extend_from_slice(&out.at().to_le_bytes());
        self.blocks
            .extend_from_slice(&self.block_first_seq.to_le_bytes());
        out.put(&crc32c::crc32c(&self.block).to_le_bytes())?;
        out.put(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Writes what is left, adds to the footer's parts, and returns the directory entry.
    fn finish(mut self, out: &mut Output<'_>, parts: &mut Vec<u8>) -> Result<Vec<u8>> {
        self.end_block(out)?;
        self.end_channel()?;
        // The end of the last block.
        self.blocks.extend_from_slice(&out.at().to_le_bytes());
        self.blocks.extend_from_slice(&0u64.to_le_bytes());
        self.hashes.sort_unstable();
        let mut hashes = Vec::with_capacity(self.hashes.len() * HASH_LEN);
        for (hash, channel) in &self.hashes {
            hashes.extend_from_slice(&hash.to_le_bytes());
            hashes.extend_from_slice(&channel.to_le_bytes());
        }

        let mut entry = Vec::with_capacity(SECTION_LEN);
        entry.extend_from_slice(&self.replica.0.to_le_bytes());
        entry.extend_from_slice(&self.ids_range.0.to_le_bytes());
        entry.extend_from_slice(&self.ids_range.1.to_le_bytes());
        entry.extend_from_slice(&self.time_max.to_le_bytes());
        entry.extend_from_slice(&(parts.len() as u64).to_le_bytes());
        entry.extend_from_slice(&narrow(self.hashes.len())?.to_le_bytes());
        entry.extend_from_slice(&narrow(self.texts.len())?.to_le_bytes());
        entry.extend_from_slice(&narrow(self.blocks.len() / BLOCK_LEN - 1)?.to_le_bytes());
        entry.extend_from_slice(&[0; 4]);
        for part in [&self.channels, &hashes, &self.blocks, &self.texts] {
            parts.extend_from_slice(part);
        }
        for facts in [&mut self.ids, &mut self.numbers, &mut self.senders] {
            facts.sort_unstable();
            let (pages, fences) = table::encode(facts);
            entry.extend_from_slice(&out.at().to_le_bytes());
            entry.extend_from_slice(&(facts.len() as u64).to_le_bytes());
            out.put(&pages)?;
            parts.extend_from_slice(&fences);
        }
        let senders: Vec<u64> = self.senders.iter().map(|f| f.key).collect();
        for keys in [&self.filter, &senders] {
            let filter = table::encode_filter(keys);
            entry.extend_from_slice(&out.at().to_le_bytes());
            entry.extend_from_slice(&narrow(filter.len())?.to_le_bytes());
            entry.extend_from_slice(&crc32c::crc32c(&filter).to_le_bytes());
            out.put(&filter)?;
        }
        entry.resize(SECTION_LEN, 0);
        Ok(entry)
    }
}

/// Ids as an unsigned number of the same order.
pub(super) fn id_key(id: MessageId) -> u64 {
    (id.0 as u64) ^ (1 << 63)
}

fn narrow(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::Invalid("a message file's section is too large".into()))
}

fn short(text: &str) -> Result<u16> {
    u16::try_from(text.len()).map_err(|_| Error::Invalid("a name longer than 65,535 bytes".into()))
}
