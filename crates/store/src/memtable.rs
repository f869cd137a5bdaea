//! What was applied since the last freeze, in memory: multi-version rows and an append-only journal of messages.
//!
//! One writer (the shard), readers on any thread. A reader names what it may see: rows at a log index, messages below a
//! journal position. What is below never changes, so a picture taken once stays true while the writer goes on. The lock is
//! held for at most [`READ_STEP`] items: a reader of 10,000 messages never stops the shard for longer than a few µs.
//!
//! ```text
//!  journal   | m0 | m1 | m2 | m3 | …      id order = log order; chunks, so that growth never copies
//!  channel   positions of its messages    seq order
//!  maps      hash → newest position, linked to older ones through the journal
//! ```
//!
//! No disk here, and no knowledge of what rows mean.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use wk_proto::{ChannelKey, LogIndex, MessageId, MessageSeq, Record, WallMs};

use crate::layer::{Channel, Collector, IdCollector, Layer, SeqRange};
use crate::{Dir, Error, Head, Result, Stored, Table};

/// Messages or rows copied under one hold of the lock.
const READ_STEP: usize = 256;
/// Messages in one chunk of the journal.
const CHUNK: usize = 1024;
/// Independent parts of a hash map, so that growing one never rehashes more than this share on the shard thread.
const MAP_PARTS: usize = 64;
/// Bytes the memtable needs beside a record, counted so that tiny messages cannot outgrow the memory bound.
const MESSAGE_OVERHEAD: usize = 112;
/// Bytes a row version needs beside key and value.
const ROW_OVERHEAD: usize = 96;
/// Sees everything, also what is not committed: the writer's own view.
const ALL: u32 = u32::MAX;
/// End of a chain.
const NONE: u32 = u32::MAX;

/// One generation of changes of one replica. Written until frozen, then immutable.
#[derive(Default)]
pub(crate) struct Mem(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    rows: BTreeMap<Table, BTreeMap<Bytes, Vec<Version>>>,
    row_versions: usize,
    bytes: usize,
    logs: Vec<Log>,
    journal: Journal,
    /// Channel hash → newest log of that hash.
    channels: SplitMap,
    /// Hash of (channel, sender, client_msg_no) → newest message.
    numbers: SplitMap,
    /// Hash of (channel, sender) → newest message.
    senders: SplitMap,
}

struct Version {
    at: LogIndex,
    /// `None` = removed.
    value: Option<Bytes>,
}

struct Log {
    key: ChannelKey,
    /// Next log with the same hash.
    same_hash: u32,
    /// Journal positions, seqs ascending.
    positions: Vec<u32>,
}

struct Entry {
    log: u32,
    older_number: u32,
    older_by_sender: u32,
    seq: MessageSeq,
    record: Record,
}

impl Entry {
    fn stored(&self) -> Stored {
        Stored {
            seq: self.seq,
            record: self.record.clone(),
        }
    }

    fn head(&self) -> Head {
        Head::of(self.seq, &self.record)
    }
}

/// Rows of one transaction, not visible to anybody else yet.
pub(crate) type RowWrites = BTreeMap<Table, BTreeMap<Bytes, Option<Bytes>>>;

impl Mem {
    /// Row versions, and bytes of rows and messages.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = self.0.read();
        (inner.row_versions, inner.bytes)
    }

    /// Number of messages; the position of the next one.
    pub(crate) fn messages(&self) -> u32 {
        self.0.read().journal.len()
    }

    /// Appends to a channel whose head is in this generation; `None` if it is not.
    pub(crate) fn append_next(
        &self,
        channel: &Channel<'_>,
        record: &Record,
    ) -> Option<Result<MessageSeq>> {
        let mut inner = self.0.write();
        let log = inner.log(channel)?;
        let newest = *inner.logs[log as usize].positions.last()?;
        let seq = inner.journal.get(newest).seq.next();
        Some(inner.append(channel, log, seq, record).map(|()| seq))
    }

    /// Appends the first message of a channel in this generation.
    pub(crate) fn append_first(
        &self,
        channel: &Channel<'_>,
        seq: MessageSeq,
        record: &Record,
    ) -> Result<()> {
        let mut inner = self.0.write();
        let log = match inner.log(channel) {
            Some(log) => log,
            None => inner.add_log(channel)?,
        };
        inner.append(channel, log, seq, record)
    }

    /// Forgets messages from position `from` on: a transaction that was not committed. No view has ever seen them.
    pub(crate) fn undo(&self, from: u32) {
        let mut inner = self.0.write();
        while inner.journal.len() > from {
            inner.undo_last();
        }
    }

    /// Makes rows visible from log index `at` on. Versions that only a view in the future of `viewed` could have seen are
    /// dropped on the way: a row written by every entry does not pile up.
    pub(crate) fn commit_rows(&self, at: LogIndex, viewed: LogIndex, writes: RowWrites) {
        let mut inner = self.0.write();
        for (table, rows) in writes {
            for (key, value) in rows {
                inner.put_row(table, key, Version { at, value }, viewed);
            }
        }
    }

    /// Newest version of every row, in (table, key) order. Only for frozen generations: holds the lock.
    pub(crate) fn for_each_row<E>(
        &self,
        mut f: impl FnMut(Table, &Bytes, Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let inner = self.0.read();
        for (table, rows) in &inner.rows {
            for (key, versions) in rows {
                if let Some(newest) = versions.last() {
                    f(*table, key, newest.value.as_ref())?;
                }
            }
        }
        Ok(())
    }

    /// Every message, by channel key, then seq. Only for frozen generations: holds the lock.
    pub(crate) fn for_each_message(
        &self,
        mut f: impl FnMut(&ChannelKey, MessageSeq, &Record) -> Result<()>,
    ) -> Result<()> {
        let inner = self.0.read();
        let mut order: Vec<&Log> = inner.logs.iter().collect();
        order.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for log in order {
            for &position in &log.positions {
                let entry = inner.journal.get(position);
                f(&log.key, entry.seq, &entry.record)?;
            }
        }
        Ok(())
    }
}

impl Inner {
    fn log(&self, channel: &Channel<'_>) -> Option<u32> {
        let mut log = self.channels.get(channel.hash)?;
        while log != NONE {
            let candidate = &self.logs[log as usize];
            if candidate.key == *channel.key {
                return Some(log);
            }
            log = candidate.same_hash;
        }
        None
    }

    fn add_log(&mut self, channel: &Channel<'_>) -> Result<u32> {
        let log = position(self.logs.len())?;
        let same_hash = self.channels.insert(channel.hash, log).unwrap_or(NONE);
        self.logs.push(Log {
            key: channel.key.clone(),
            same_hash,
            positions: Vec::new(),
        });
        Ok(log)
    }

    fn append(
        &mut self,
        channel: &Channel<'_>,
        log: u32,
        seq: MessageSeq,
        record: &Record,
    ) -> Result<()> {
        let at = position(self.journal.len() as usize)?;
        let sender = channel.sender(record.from_uid());
        let older_by_sender = self.senders.insert(sender, at).unwrap_or(NONE);
        let number = record.client_msg_no();
        let older_number = if number.is_empty() {
            NONE
        } else {
            let key = channel.number(number).with_sender(sender);
            self.numbers.insert(key, at).unwrap_or(NONE)
        };
        self.bytes += record.as_bytes().len() + MESSAGE_OVERHEAD;
        self.journal.push(Entry {
            log,
            older_number,
            older_by_sender,
            seq,
            record: record.clone(),
        });
        self.logs[log as usize].positions.push(at);
        Ok(())
    }

    fn undo_last(&mut self) {
        let Some(entry) = self.journal.pop() else {
            return;
        };
        let log = &mut self.logs[entry.log as usize];
        log.positions.pop();
        let channel = Channel::new(&log.key);
        let sender = channel.sender(entry.record.from_uid());
        self.senders.restore(sender, entry.older_by_sender);
        let number = entry.record.client_msg_no();
        if !number.is_empty() {
            let key = channel.number(number).with_sender(sender);
            self.numbers.restore(key, entry.older_number);
        }
        self.bytes -= entry.record.as_bytes().len() + MESSAGE_OVERHEAD;
    }

    fn put_row(&mut self, table: Table, key: Bytes, version: Version, viewed: LogIndex) {
        let cost = |key: &Bytes, v: &Version| {
            key.len() + v.value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD
        };
        self.bytes += cost(&key, &version);
        self.row_versions += 1;
        let versions = self.rows.entry(table).or_default();
        if let Some(versions) = versions.get_mut(&key) {
            while let Some(older) = versions.pop_if(|older| older.at > viewed) {
                self.bytes -= cost(&key, &older);
                self.row_versions -= 1;
            }
            versions.push(version);
        } else {
            versions.insert(key, vec![version]);
        }
    }

    /// The part of a log's positions a reader of messages below `upto` sees.
    fn visible(&self, log: u32, upto: u32) -> &[u32] {
        let positions = &self.logs[log as usize].positions;
        if positions.last().is_none_or(|&last| last < upto) {
            return positions;
        }
        &positions[..positions.partition_point(|&p| p < upto)]
    }

    fn newest(&self, channel: &Channel<'_>, upto: u32) -> Option<&Entry> {
        let newest = *self.visible(self.log(channel)?, upto).last()?;
        Some(self.journal.get(newest))
    }
}

/// Journal positions and log numbers are 32 bits: memory ends long before.
fn position(n: usize) -> Result<u32> {
    u32::try_from(n)
        .ok()
        .filter(|&n| n != NONE)
        .ok_or_else(|| Error::Invalid("too many messages between two checkpoints".into()))
}

/// Append-only list in chunks: growth never moves entries.
#[derive(Default)]
struct Journal {
    chunks: Vec<Vec<Entry>>,
    len: u32,
}

impl Journal {
    fn len(&self) -> u32 {
        self.len
    }

    fn push(&mut self, entry: Entry) {
        if self.len as usize == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.len as usize / CHUNK;
        self.chunks[chunk].push(entry);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Entry> {
        let last = self.len.checked_sub(1)?;
        let entry = self.chunks[last as usize / CHUNK].pop();
        self.len = last;
        entry
    }

    fn get(&self, position: u32) -> &Entry {
        &self.chunks[position as usize / CHUNK][position as usize % CHUNK]
    }

    /// First position with an id > `after`, among those below `upto`.
    fn after(&self, after: MessageId, upto: u32) -> u32 {
        let (mut low, mut high) = (0, self.len.min(upto));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).record.message_id() <= after {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "only u64 keys");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// Hash → position, never iterated. See [`MAP_PARTS`].
struct SplitMap(Box<[HashMap<u64, u32, BuildHasherDefault<Identity>>]>);

impl Default for SplitMap {
    fn default() -> Self {
        Self((0..MAP_PARTS).map(|_| HashMap::default()).collect())
    }
}

impl SplitMap {
    fn part(hash: u64) -> usize {
        (hash >> 32) as usize % MAP_PARTS
    }

    fn get(&self, hash: u64) -> Option<u32> {
        self.0[Self::part(hash)].get(&hash).copied()
    }

    fn insert(&mut self, hash: u64, position: u32) -> Option<u32> {
        self.0[Self::part(hash)].insert(hash, position)
    }

    fn restore(&mut self, hash: u64, older: u32) {
        let part = &mut self.0[Self::part(hash)];
        if older == NONE {
            part.remove(&hash);
        } else {
            part.insert(hash, older);
        }
    }
}

/// What one reader sees of a generation.
#[derive(Clone)]
pub(crate) struct MemView {
    mem: Arc<Mem>,
    at: LogIndex,
    upto: u32,
}

impl MemView {
    /// Everything: the writer's view, and that of a frozen generation.
    pub(crate) fn all(mem: Arc<Mem>) -> Self {
        Self {
            mem,
            at: LogIndex(u64::MAX),
            upto: ALL,
        }
    }

    /// Everything committed at `at`; there must be no open transaction.
    pub(crate) fn committed(mem: Arc<Mem>, at: LogIndex) -> Self {
        let upto = mem.messages();
        Self { mem, at, upto }
    }

    /// `None` = nothing is known here; `Some(None)` = removed here.
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<Option<Bytes>> {
        let inner = self.mem.0.read();
        let versions = inner.rows.get(&table)?.get(key)?;
        Some(self.pick(versions)?.value.clone())
    }

    fn pick<'v>(&self, versions: &'v [Version]) -> Option<&'v Version> {
        versions.iter().rev().find(|v| v.at <= self.at)
    }

    /// Rows (also removed ones) with the prefix from `from` on, in key order, fetched in steps.
    pub(crate) fn rows<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
        from: Bound<Bytes>,
    ) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + 'a {
        let mut next = Some(from);
        let mut step = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(row) = step.next() {
                    return Some(row);
                }
                let (rows, resume) = self.row_step(table, prefix, next.take()?);
                next = resume;
                step = rows.into_iter();
            }
        })
    }

    #[allow(clippy::type_complexity, reason = "rows, and where to go on")]
    fn row_step(
        &self,
        table: Table,
        prefix: &[u8],
        from: Bound<Bytes>,
    ) -> (Vec<(Bytes, Option<Bytes>)>, Option<Bound<Bytes>>) {
        let inner = self.mem.0.read();
        let Some(rows) = inner.rows.get(&table) else {
            return (Vec::new(), None);
        };
        let mut out = Vec::new();
        for (n, (key, versions)) in rows.range((from, Bound::Unbounded)).enumerate() {
            if !key.starts_with(prefix) {
                return (out, None);
            }
            if let Some(version) = self.pick(versions) {
                out.push((key.clone(), version.value.clone()));
            }
            if n + 1 == READ_STEP {
                return (out, Some(Bound::Excluded(key.clone())));
            }
        }
        (out, None)
    }

    /// One step of [`Layer::range`]: `false` when nothing is left or the collector is full.
    fn range_step(
        &self,
        channel: &Channel<'_>,
        seqs: &mut SeqRange,
        dir: Dir,
        into: &mut Collector,
    ) -> bool {
        let inner = self.mem.0.read();
        let Some(log) = inner.log(channel) else {
            return false;
        };
        let positions = inner.visible(log, self.upto);
        let seq = |p: &u32| inner.journal.get(*p).seq;
        let low = positions.partition_point(|p| seq(p) < seqs.first);
        let high = positions.partition_point(|p| seq(p) <= seqs.last);
        let inside = &positions[low.min(high)..high];
        let step = inside.len().min(READ_STEP);
        match dir {
            Dir::Up => {
                for p in &inside[..step] {
                    seqs.first = seq(p).next();
                    if !into.push(inner.journal.get(*p).stored()) {
                        return false;
                    }
                }
            }
            Dir::Down => {
                for p in inside[inside.len() - step..].iter().rev() {
                    seqs.last = MessageSeq(seq(p).0.saturating_sub(1));
                    if !into.push(inner.journal.get(*p).stored()) {
                        return false;
                    }
                }
            }
        }
        step < inside.len()
    }
}

impl Layer for MemView {
    fn head(&self, channel: &Channel<'_>) -> Result<Option<Head>> {
        let inner = self.mem.0.read();
        Ok(inner.newest(channel, self.upto).map(Entry::head))
    }

    fn head_seq(&self, channel: &Channel<'_>) -> Result<Option<MessageSeq>> {
        let inner = self.mem.0.read();
        Ok(inner.newest(channel, self.upto).map(|e| e.seq))
    }

    fn last_by(&self, channel: &Channel<'_>, from: &str) -> Result<Option<MessageSeq>> {
        let inner = self.mem.0.read();
        let Some(log) = inner.log(channel) else {
            return Ok(None);
        };
        let mut at = inner.senders.get(channel.sender(from)).unwrap_or(NONE);
        while at != NONE {
            let entry = inner.journal.get(at);
            if at < self.upto && entry.log == log && entry.record.from_uid() == from {
                return Ok(Some(entry.seq));
            }
            at = entry.older_by_sender;
        }
        Ok(None)
    }

    fn range(
        &self,
        channel: &Channel<'_>,
        mut seqs: SeqRange,
        dir: Dir,
        into: &mut Collector,
    ) -> Result<()> {
        while self.range_step(channel, &mut seqs, dir, into) {}
        Ok(())
    }

    fn by_id(&self, id: MessageId) -> Result<Option<(ChannelKey, Stored)>> {
        let inner = self.mem.0.read();
        let at = inner
            .journal
            .after(MessageId(id.0.saturating_sub(1)), self.upto);
        if at >= inner.journal.len().min(self.upto) {
            return Ok(None);
        }
        let entry = inner.journal.get(at);
        let found = entry.record.message_id() == id;
        Ok(found.then(|| (inner.logs[entry.log as usize].key.clone(), entry.stored())))
    }

    fn after_id(&self, after: MessageId, into: &mut IdCollector) -> Result<()> {
        let mut from = self.mem.0.read().journal.after(after, self.upto);
        loop {
            let inner = self.mem.0.read();
            let end = inner.journal.len().min(self.upto);
            let step = end.min(from.saturating_add(READ_STEP as u32));
            for at in from..step {
                let entry = inner.journal.get(at);
                if !into.push(inner.logs[entry.log as usize].key.clone(), entry.stored()) {
                    return Ok(());
                }
            }
            if step == end {
                return Ok(());
            }
            from = step;
        }
    }

    fn duplicate(
        &self,
        channel: &Channel<'_>,
        from: &str,
        number: &str,
        _since: WallMs,
    ) -> Result<Option<Stored>> {
        let inner = self.mem.0.read();
        let key = channel.number(number).with_sender(channel.sender(from));
        let Some(newest) = inner.numbers.get(key) else {
            return Ok(None);
        };
        let mut at = newest;
        while at != NONE {
            let entry = inner.journal.get(at);
            let same = inner.logs[entry.log as usize].key == *channel.key
                && entry.record.from_uid() == from
                && entry.record.client_msg_no() == number;
            if same && at < self.upto {
                return Ok(Some(entry.stored()));
            }
            at = entry.older_number;
        }
        Ok(None)
    }

    /// Walks the channel: nothing on the send path asks this, and an index for it would cost every append.
    fn by_number(
        &self,
        channel: &Channel<'_>,
        number: &str,
        limit: usize,
        into: &mut Vec<Stored>,
    ) -> Result<()> {
        let mut unread = usize::MAX;
        while unread > 0 && into.len() < limit {
            let inner = self.mem.0.read();
            let Some(log) = inner.log(channel) else {
                return Ok(());
            };
            let positions = inner.visible(log, self.upto);
            let end = unread.min(positions.len());
            let start = end.saturating_sub(READ_STEP);
            let entries = positions[start..end].iter().rev();
            let hits = entries
                .map(|&p| inner.journal.get(p))
                .filter(|e| e.record.client_msg_no() == number)
                .map(Entry::stored);
            let room = limit - into.len();
            into.extend(hits.take(room));
            unread = start;
        }
        Ok(())
    }

    fn channels(
        &self,
        after: Option<&ChannelKey>,
        limit: usize,
    ) -> Result<Vec<(ChannelKey, Head)>> {
        let mut first: BTreeMap<ChannelKey, Head> = BTreeMap::new();
        let mut from = 0;
        loop {
            let inner = self.mem.0.read();
            let end = inner.logs.len().min(from + READ_STEP);
            for log in from..end {
                let key = &inner.logs[log].key;
                let full = first.len() == limit;
                let beyond = full && first.last_key_value().is_some_and(|(last, _)| key > last);
                if after.is_some_and(|after| key <= after) || beyond || limit == 0 {
                    continue;
                }
                let Some(&newest) = inner.visible(log as u32, self.upto).last() else {
                    continue;
                };
                first.insert(key.clone(), inner.journal.get(newest).head());
                if first.len() > limit {
                    first.pop_last();
                }
            }
            if end == inner.logs.len() {
                return Ok(first.into_iter().collect());
            }
            from = end;
        }
    }
}
