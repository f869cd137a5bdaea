//! Reads one replica's section of a message file. What is not in the footer is read and checked when asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, MessageId, MessageSeq, Record, ReplicaId, Uid, WallMs,
};

use super::file::{Filter, MessageFile, Section};
use super::format::{
    BLOCK_BYTES_MAX, BLOCK_HEADER, BLOCK_LEN, CHANNEL_LEN, ENTRY_HEADER, HASH_LEN, bad_record,
    corrupt, io, u16_at, u32_at, u64_at,
};
use super::table;
use super::writer::id_key;
use crate::layer::{Channel, Collector, IdCollector, Layer, SeqRange};
use crate::{Dir, Error, Head, Result, Stored};

/// Blocks kept while messages are read in id order, which hops between channels.
const HOP_BLOCKS: usize = 64;

/// A channel's entry in a section, decoded.
#[derive(Clone, Copy)]
struct Entry {
    number: usize,
    first_seq: u64,
    last_seq: u64,
    block: usize,
    start: usize,
}

/// One replica's messages in one file. Keeps the file alive.
#[derive(Clone)]
pub(crate) struct SectionLayer {
    file: Arc<MessageFile>,
    section: usize,
}

impl SectionLayer {
    /// `None` if the file holds nothing of this replica.
    pub(crate) fn new(file: Arc<MessageFile>, replica: ReplicaId) -> Option<Self> {
        let section = file.sections.iter().position(|s| s.replica == replica)?;
        Some(Self { file, section })
    }

    pub(crate) fn file(&self) -> &Arc<MessageFile> {
        &self.file
    }

    /// Largest id in the section.
    pub(crate) fn last_id(&self) -> MessageId {
        self.section().last_id
    }

    /// Bytes of blocks: what a merge has to copy.
    pub(crate) fn data_bytes(&self) -> u64 {
        let section = self.section();
        let end = section.blocks.len() - BLOCK_LEN;
        u64_at(&section.blocks, end) - u64_at(&section.blocks, 0)
    }

    /// How many channels there are.
    pub(crate) fn channel_count(&self) -> usize {
        self.section().channels.len() / CHANNEL_LEN
    }

    /// Key of the n-th channel in key order.
    pub(crate) fn channel_key(&self, n: usize) -> Result<ChannelKey> {
        let at = n * CHANNEL_LEN;
        let channels = &self.section().channels;
        let text = self.text(u32_at(channels, at), u16_at(channels, at + 4))?;
        Ok(ChannelKey {
            base: ChannelId::trusted(text),
            kind: ChannelType(channels[at + 6]),
            twin: channels[at + 7] != 0,
        })
    }

    /// All messages of the n-th channel, seqs ascending. `last` keeps the last block between calls: neighbouring channels share
    /// blocks.
    pub(crate) fn for_each(
        &self,
        n: usize,
        last: &mut Option<(usize, Bytes)>,
        mut f: impl FnMut(MessageSeq, Record) -> Result<()>,
    ) -> Result<()> {
        let entry = self.entry(n);
        for number in entry.block..=self.last_block(entry).0 {
            let block = match last {
                Some((at, block)) if *at == number => block.clone(),
                _ => self.block(number)?,
            };
            *last = Some((number, block.clone()));
            for item in self.items(&block, entry, number) {
                let (seq, record) = item?;
                f(MessageSeq(seq), self.record(&block, number, record)?)?;
            }
        }
        Ok(())
    }

    fn section(&self) -> &Section {
        &self.file.sections[self.section]
    }

    fn corrupt(&self, at: u64, why: &str) -> Error {
        corrupt(&self.file.path, at, why)
    }

    fn text(&self, at: u32, len: u16) -> Result<&str> {
        let at = at as usize;
        self.section()
            .texts
            .get(at..at + usize::from(len))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(|| self.corrupt(0, "a name in the footer"))
    }

    fn entry(&self, number: usize) -> Entry {
        let channels = &self.section().channels;
        let at = number * CHANNEL_LEN;
        Entry {
            number,
            first_seq: u64_at(channels, at + 16),
            last_seq: u64_at(channels, at + 24),
            block: u32_at(channels, at + 36) as usize,
            start: u32_at(channels, at + 40) as usize,
        }
    }

    fn find(&self, channel: &Channel<'_>) -> Option<Entry> {
        let section = self.section();
        let hash = |n: usize| u64_at(&section.hashes, n * HASH_LEN);
        let (mut low, mut high) = (0, section.hashes.len() / HASH_LEN);
        let end = high;
        while low < high {
            let middle = (low + high) / 2;
            if hash(middle) < channel.hash {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low..end)
            .take_while(|&n| hash(n) == channel.hash)
            .map(|n| u32_at(&section.hashes, n * HASH_LEN + 8) as usize)
            .find(|&number| self.is(number, channel.key))
            .map(|number| self.entry(number))
    }

    fn is(&self, number: usize, key: &ChannelKey) -> bool {
        let at = number * CHANNEL_LEN;
        let channels = &self.section().channels;
        let same_text = self
            .text(u32_at(channels, at), u16_at(channels, at + 4))
            .is_ok_and(|text| text == key.base.as_str());
        same_text && channels[at + 6] == key.kind.0 && (channels[at + 7] != 0) == key.twin
    }

    fn head_of(&self, entry: Entry) -> Result<Head> {
        let at = entry.number * CHANNEL_LEN;
        let channels = &self.section().channels;
        let from = self.text(u32_at(channels, at + 8), u16_at(channels, at + 12))?;
        Ok(Head {
            seq: MessageSeq(entry.last_seq),
            id: MessageId(u64_at(channels, at + 48) as i64),
            time: WallMs(u64_at(channels, at + 56)),
            from: Uid::trusted(from),
        })
    }

    /// Last block with messages of the channel, and where they end in it (`None` = with the block).
    fn last_block(&self, entry: Entry) -> (usize, Option<usize>) {
        if entry.number + 1 == self.channel_count() {
            return (self.section().blocks.len() / BLOCK_LEN - 2, None);
        }
        let next = self.entry(entry.number + 1);
        match next.start {
            0 => (next.block.saturating_sub(1), None),
            start => (next.block, Some(start)),
        }
    }

    /// The block where `seq` of the channel is, if it is there.
    fn block_of(&self, entry: Entry, seq: u64) -> usize {
        // The first block may begin with another channel; all later ones begin with this one.
        let first_seq = |n: usize| u64_at(&self.section().blocks, n * BLOCK_LEN + 8);
        let (mut low, mut high) = (entry.block + 1, self.last_block(entry).0 + 1);
        while low < high {
            let middle = (low + high) / 2;
            if first_seq(middle) <= seq {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low - 1
    }

    fn block_at(&self, number: usize) -> u64 {
        u64_at(&self.section().blocks, number * BLOCK_LEN)
    }

    fn block(&self, number: usize) -> Result<Bytes> {
        let at = self.block_at(number);
        let len = self.block_at(number + 1).saturating_sub(at) as usize;
        if !(BLOCK_HEADER..=BLOCK_HEADER + BLOCK_BYTES_MAX).contains(&len) {
            return Err(self.corrupt(at, "length of a block"));
        }
        let mut bytes = BytesMut::zeroed(len);
        io(
            self.file.file.read_at(at, &mut bytes),
            "read",
            &self.file.path,
        )?;
        let content = bytes.split_off(BLOCK_HEADER).freeze();
        if crc32c::crc32c(&content) != u32_at(&bytes, 0) {
            return Err(self.corrupt(at, "checksum of a block"));
        }
        Ok(content)
    }

    /// Seq and position of the record of each message of the channel in one of its blocks.
    fn items<'b>(
        &'b self,
        block: &'b Bytes,
        entry: Entry,
        number: usize,
    ) -> impl Iterator<Item = Result<(u64, std::ops::Range<usize>)>> + 'b {
        let mut at = if number == entry.block {
            entry.start
        } else {
            0
        };
        let end = match self.last_block(entry) {
            (last, Some(end)) if last == number => end.min(block.len()),
            _ => block.len(),
        };
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let start = at + ENTRY_HEADER;
            let record = start..start + u32_at(block, at + 8) as usize;
            if record.end > end {
                at = end;
                return Some(Err(
                    self.corrupt(self.block_at(number), "entries of a block")
                ));
            }
            let seq = u64_at(block, at);
            at = record.end;
            Some(Ok((seq, record)))
        })
    }

    fn record(&self, block: &Bytes, number: usize, at: std::ops::Range<usize>) -> Result<Record> {
        Record::parse(block.slice(at))
            .map_err(|why| bad_record(&self.file.path, self.block_at(number), why))
    }

    fn stored(
        &self,
        block: &Bytes,
        number: usize,
        (seq, at): (u64, std::ops::Range<usize>),
    ) -> Result<Stored> {
        Ok(Stored {
            seq: MessageSeq(seq),
            record: self.record(block, number, at)?,
        })
    }

    /// One message, on its own: it does not keep its block in memory.
    fn message(&self, entry: Entry, seq: u64) -> Result<Option<Stored>> {
        let number = self.block_of(entry, seq);
        let block = self.block(number)?;
        self.message_in(&block, entry, number, seq)
    }

    fn message_in(
        &self,
        block: &Bytes,
        entry: Entry,
        number: usize,
        seq: u64,
    ) -> Result<Option<Stored>> {
        for item in self.items(block, entry, number) {
            let (found, at) = item?;
            if found == seq {
                let copy = Bytes::copy_from_slice(&block[at]);
                let record = Record::parse(copy)
                    .map_err(|why| bad_record(&self.file.path, self.block_at(number), why))?;
                return Ok(Some(Stored {
                    seq: MessageSeq(seq),
                    record,
                }));
            }
        }
        Ok(None)
    }

    fn range_up(&self, entry: Entry, seqs: SeqRange, into: &mut Collector) -> Result<()> {
        for number in self.block_of(entry, seqs.first.0)..=self.last_block(entry).0 {
            let block = self.block(number)?;
            for item in self.items(&block, entry, number) {
                let item = item?;
                if item.0 < seqs.first.0 {
                    continue;
                }
                if item.0 > seqs.last.0 || !into.push(self.stored(&block, number, item)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn range_down(&self, entry: Entry, seqs: SeqRange, into: &mut Collector) -> Result<()> {
        for number in (entry.block..=self.block_of(entry, seqs.last.0)).rev() {
            let block = self.block(number)?;
            let items: Vec<_> = self
                .items(&block, entry, number)
                .filter(|item| item.as_ref().map_or(true, |(seq, _)| *seq <= seqs.last.0))
                .collect::<Result<_>>()?;
            for item in items.into_iter().rev() {
                if item.0 < seqs.first.0 || !into.push(self.stored(&block, number, item)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether the key may be in the table behind the filter.
    fn may_have(&self, filter: &Filter, key: u64) -> Result<bool> {
        if let Some(lines) = filter.lines.get() {
            return Ok(table::filter_has(lines, key));
        }
        let mut lines = BytesMut::zeroed(filter.len);
        io(
            self.file.file.read_at(filter.at, &mut lines),
            "read",
            &self.file.path,
        )?;
        if crc32c::crc32c(&lines) != filter.crc {
            return Err(self.corrupt(filter.at, "checksum of a filter"));
        }
        let lines = filter.lines.get_or_init(|| lines.freeze());
        Ok(table::filter_has(lines, key))
    }
}

impl Layer for SectionLayer {
    fn head(&self, channel: &Channel<'_>) -> Result<Option<Head>> {
        self.find(channel)
            .map(|entry| self.head_of(entry))
            .transpose()
    }

    fn head_seq(&self, channel: &Channel<'_>) -> Result<Option<MessageSeq>> {
        Ok(self.find(channel).map(|entry| MessageSeq(entry.last_seq)))
    }

    /// By hash alone: a collision of 64 bits could show another member's newest seq instead.
    fn last_by(&self, channel: &Channel<'_>, from: &str) -> Result<Option<MessageSeq>> {
        let sender = channel.sender(from);
        if !self.may_have(&self.section().sender_filter, sender)? || self.find(channel).is_none() {
            return Ok(None);
        }
        let mut newest = None;
        let at = (sender, 0);
        let senders = &self.section().senders;
        senders.descend(&self.file.path, &*self.file.file, at, |seq| {
            newest = Some(MessageSeq(seq));
            Ok(false)
        })?;
        Ok(newest)
    }

    fn range(
        &self,
        channel: &Channel<'_>,
        seqs: SeqRange,
        dir: Dir,
        into: &mut Collector,
    ) -> Result<()> {
        let Some(entry) = self.find(channel) else {
            return Ok(());
        };
        if seqs.first.0 > entry.last_seq || seqs.last.0 < entry.first_seq {
            return Ok(());
        }
        match dir {
            Dir::Up => self.range_up(entry, seqs, into),
            Dir::Down => self.range_down(entry, seqs, into),
        }
    }

    fn by_id(&self, id: MessageId) -> Result<Option<(ChannelKey, Stored)>> {
        if id < self.section().first_id || id > self.last_id() {
            return Ok(None);
        }
        let mut found = None;
        let ids = &self.section().ids;
        ids.ascend(&self.file.path, &*self.file.file, (id_key(id), 0), |fact| {
            if fact.key == id_key(id) {
                found = Some((fact.sub as usize, fact.seq));
            }
            Ok(false)
        })?;
        let Some((number, seq)) = found else {
            return Ok(None);
        };
        if number >= self.channel_count() {
            return Err(self.corrupt(ids.at, "a channel number in the ids"));
        }
        let stored = self.message(self.entry(number), seq)?;
        let Some(stored) = stored else {
            return Err(self.corrupt(ids.at, "an id without message"));
        };
        Ok(Some((self.channel_key(number)?, stored)))
    }

    fn after_id(&self, after: MessageId, into: &mut IdCollector) -> Result<()> {
        if after >= self.last_id() {
            return Ok(());
        }
        let mut blocks: BTreeMap<usize, Bytes> = BTreeMap::new();
        let ids = &self.section().ids;
        let from = (id_key(after).saturating_add(1), 0);
        ids.ascend(&self.file.path, &*self.file.file, from, |fact| {
            let number = fact.sub as usize;
            if number >= self.channel_count() {
                return Err(self.corrupt(ids.at, "a channel number in the ids"));
            }
            let entry = self.entry(number);
            let at = self.block_of(entry, fact.seq);
            if !blocks.contains_key(&at) {
                if blocks.len() == HOP_BLOCKS {
                    blocks.clear();
                }
                blocks.insert(at, self.block(at)?);
            }
            let stored = self.message_in(&blocks[&at], entry, at, fact.seq)?;
            let stored = stored.ok_or_else(|| self.corrupt(ids.at, "an id without message"))?;
            Ok(into.push(self.channel_key(number)?, stored))
        })
    }

    fn duplicate(
        &self,
        channel: &Channel<'_>,
        from: &str,
        number: &str,
        since: WallMs,
    ) -> Result<Option<Stored>> {
        if self.section().time_max < since {
            return Ok(None);
        }
        // The filter before the channel: one cache line says no to nearly every new message.
        let (hash, sender) = (channel.number(number), channel.sender(from));
        let filter = &self.section().number_filter;
        if !self.may_have(filter, hash.with_sender(sender))? {
            return Ok(None);
        }
        let Some(entry) = self.find(channel) else {
            return Ok(None);
        };
        let mut found = None;
        let numbers = &self.section().numbers;
        let at = (hash.0, sender as u32);
        numbers.descend(&self.file.path, &*self.file.file, at, |seq| {
            let stored = self.message(entry, seq)?;
            found = stored
                .filter(|m| m.record.from_uid() == from && m.record.client_msg_no() == number);
            Ok(found.is_none())
        })?;
        Ok(found)
    }

    fn by_number(
        &self,
        channel: &Channel<'_>,
        number: &str,
        limit: usize,
        into: &mut Vec<Stored>,
    ) -> Result<()> {
        let Some(entry) = self.find(channel) else {
            return Ok(());
        };
        let hash = channel.number(number).0;
        let mut seqs = Vec::new();
        let numbers = &self.section().numbers;
        numbers.ascend(&self.file.path, &*self.file.file, (hash, 0), |fact| {
            let same = fact.key == hash;
            if same {
                seqs.push(fact.seq);
            }
            Ok(same)
        })?;
        seqs.sort_unstable();
        for seq in seqs.into_iter().rev() {
            if into.len() >= limit {
                break;
            }
            let stored = self.message(entry, seq)?;
            into.extend(stored.filter(|m| m.record.client_msg_no() == number));
        }
        Ok(())
    }

    fn channels(
        &self,
        after: Option<&ChannelKey>,
        limit: usize,
    ) -> Result<Vec<(ChannelKey, Head)>> {
        let (mut low, mut high) = (0, self.channel_count());
        while low < high {
            let middle = (low + high) / 2;
            let key = self.channel_key(middle)?;
            if after.is_some_and(|after| key <= *after) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low..self.channel_count())
            .take(limit)
            .map(|n| Ok((self.channel_key(n)?, self.head_of(self.entry(n))?)))
            .collect()
    }
}
