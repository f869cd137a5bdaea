//! One replica's state: rows and messages. One writer ([`SlotStore`], owned by a shard), readers on any thread ([`View`]).
//!
//! Rows are `(table, key) → value` bytes; the catalogue of tables and keys belongs to the state machine above. Appending a
//! message writes **zero rows** (H39): head, last-by-sender, ids and the duplicate index come from the message store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use wk_proto::{ChannelKey, LogIndex, MessageId, MessageSeq, Record, ReplicaId, WallMs};

use crate::layer::{Channel, Collector, IdCollector, SeqRange};
use crate::layers::Layers;
use crate::memtable::{Mem, MemView, RowWrites};
use crate::{Error, Result, Store};

/// A table of rows. Numbers are stable for ever; the state machine owns the list. 0 and 240..=255 belong to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u8);

/// The newest message of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Last seq; the next append gets one more.
    pub seq: MessageSeq,
    /// Its id.
    pub id: MessageId,
    /// Its time.
    pub time: WallMs,
    /// Its sender.
    pub from: wk_proto::Uid,
}

/// A message with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Position in the channel.
    pub seq: MessageSeq,
    /// The body.
    pub record: Record,
}

/// Which end of a range a limit keeps. Results are always ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    /// The lowest seqs.
    Up,
    /// The highest seqs.
    Down,
}

/// Bound of one read: it ends at whichever comes first, but returns at least one message if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Messages or rows.
    pub count: usize,
    /// Bytes of records.
    pub bytes: usize,
}

/// One replica's state; single writer, never waits for the disk on writes.
pub struct SlotStore {
    pub(crate) store: Store,
    pub(crate) replica: ReplicaId,
    pub(crate) applied: LogIndex,
    pub(crate) flushed: LogIndex,
    pub(crate) last_id: MessageId,
    /// What is written now.
    pub(crate) active: Arc<Mem>,
    /// What is on its way to disk, and the index it stands at.
    pub(crate) frozen: Option<(LogIndex, Arc<Mem>)>,
    /// Largest index a view was ever taken at: row versions above it can be replaced in place.
    pub(crate) viewed: AtomicU64,
}

impl std::fmt::Debug for SlotStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotStore")
            .field("replica", &self.replica)
            .field("applied", &self.applied)
            .field("flushed", &self.flushed)
            .finish_non_exhaustive()
    }
}

impl SlotStore {
    /// Which replica this is; the first part of all its keys.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Index of the last committed transaction.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Index of the last checkpoint: the WAL may forget up to here.
    pub fn flushed(&self) -> LogIndex {
        self.flushed
    }

    /// Starts the transaction of one log entry, `at` > [`Self::applied`]. Its writes become visible to views, all together,
    /// by [`Tx::commit`]. Panics if the entry is applied already: a caller's bug that would double a message.
    pub fn begin(&mut self, at: LogIndex) -> Tx<'_> {
        assert!(at > self.applied, "entry {at} is applied already");
        let layers = self.layers(MemView::all(Arc::clone(&self.active)));
        let first_position = self.active.messages();
        Tx {
            last_id: self.last_id,
            store: self,
            at,
            layers,
            rows: RowWrites::new(),
            first_position,
            committed: false,
        }
    }

    /// An immutable picture of everything applied so far.
    pub fn view(&self) -> View {
        self.viewed.fetch_max(self.applied.0, Ordering::Relaxed);
        let active = MemView::committed(Arc::clone(&self.active), self.applied);
        View {
            applied: self.applied,
            layers: Arc::new(self.layers(active)),
        }
    }

    fn layers(&self, active: MemView) -> Layers {
        let frozen = self.frozen.as_ref().map(|(at, mem)| (*at, Arc::clone(mem)));
        Layers::new(self.store.base(), self.replica, frozen, active)
    }
}

/// The writes of one log entry. Reads see its own writes. Not committed = nothing happened.
pub struct Tx<'a> {
    store: &'a mut SlotStore,
    at: LogIndex,
    layers: Layers,
    rows: RowWrites,
    last_id: MessageId,
    /// Where this transaction's messages begin in the memtable; views do not see beyond it.
    first_position: u32,
    committed: bool,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx")
            .field("replica", &self.store.replica)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.store.active.undo(self.first_position);
        }
    }
}

impl Tx<'_> {
    /// One row, own writes included.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        match self.rows.get(&table).and_then(|rows| rows.get(key)) {
            Some(own) => Ok(own.clone()),
            None => self.layers.get(table, key),
        }
    }

    /// Rows whose key starts with `prefix`, in key order, after `after` (exclusive, a whole key); own writes included.
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let own = self.rows.get(&table);
        self.layers.scan(own, table, prefix, after, limit)
    }

    /// Inserts or replaces a row.
    pub fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.write(table, key, Some(value));
    }

    /// Removes a row if it is there.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.write(table, key, None);
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        let rows = self.rows.entry(table).or_default();
        rows.insert(Bytes::copy_from_slice(key), value);
    }

    /// Appends one message; returns its seq (head + 1). The id must be larger than [`Self::last_message_id`]: else
    /// [`Error::Invalid`], and nothing happened. The time must not be below an earlier message's (D17): [`Self::duplicate`]
    /// relies on it.
    pub fn append(&mut self, channel: &ChannelKey, record: Record) -> Result<MessageSeq> {
        let id = record.message_id();
        if id <= self.last_id {
            return Err(Error::Invalid(format!(
                "message id {id} is not larger than {}",
                self.last_id
            )));
        }
        let channel = Channel::new(channel);
        let active = &self.store.active;
        let seq = match active.append_next(&channel, &record) {
            Some(appended) => appended?,
            None => {
                let head = self.layers.head_seq_before_active(&channel)?;
                let seq = head.unwrap_or_default().next();
                active.append_first(&channel, seq, &record)?;
                seq
            }
        };
        self.last_id = id;
        Ok(seq)
    }

    /// Newest message of a channel, own appends included.
    pub fn head(&self, channel: &ChannelKey) -> Result<Option<Head>> {
        self.layers.head(channel)
    }

    /// Newest message of the channel with this sender and client_msg_no if its time is ≥ `since`, own appends included
    /// (H33, H34). Times of one replica never decrease (D17), so an older one cannot be young enough either. An empty
    /// client_msg_no names no message.
    pub fn duplicate(
        &self,
        channel: &ChannelKey,
        from: &str,
        client_msg_no: &str,
        since: WallMs,
    ) -> Result<Option<Stored>> {
        self.layers.duplicate(channel, from, client_msg_no, since)
    }

    /// Largest message id of this replica; own appends included.
    pub fn last_message_id(&self) -> MessageId {
        self.last_id
    }

    /// Makes the writes visible.
    pub fn commit(mut self) {
        self.committed = true;
        let rows = std::mem::take(&mut self.rows);
        if !rows.is_empty() {
            let viewed = LogIndex(self.store.viewed.load(Ordering::Relaxed));
            self.store.active.commit_rows(self.at, viewed, rows);
        }
        self.store.last_id = self.last_id;
        self.store.applied = self.at;
    }
}

/// An immutable picture of one replica at [`View::applied`]. Cheap to clone, readable from any thread; holding one longer than
/// a second keeps a checkpoint's garbage alive (H40), so materialise and drop.
#[derive(Clone)]
pub struct View {
    applied: LogIndex,
    layers: Arc<Layers>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

impl View {
    /// The log index this picture shows.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// One row.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.layers.get(table, key)
    }

    /// As [`Tx::scan`].
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.layers.scan(None, table, prefix, after, limit)
    }

    /// Newest message of a channel. No read: memtables, then the footers in memory.
    pub fn head(&self, channel: &ChannelKey) -> Result<Option<Head>> {
        self.layers.head(channel)
    }

    /// Newest seq this user sent to the channel.
    pub fn last_by(&self, channel: &ChannelKey, from: &str) -> Result<Option<MessageSeq>> {
        let channel = Channel::new(channel);
        for layer in self.layers.newest_first() {
            if let Some(seq) = layer.last_by(&channel, from)? {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    /// Messages with `first..=last`, the end chosen by `dir` up to `limit`, ascending. Seqs may have gaps (H49). Records from a
    /// file share the memory of their block (16 KiB): copy what is kept for long.
    pub fn range(
        &self,
        channel: &ChannelKey,
        first: MessageSeq,
        last: MessageSeq,
        dir: Dir,
        limit: Limit,
    ) -> Result<Vec<Stored>> {
        let mut found = Collector::new(limit);
        if first > last {
            return Ok(Vec::new());
        }
        let channel = Channel::new(channel);
        for layer in self.layers.towards(dir) {
            layer.range(&channel, SeqRange { first, last }, dir, &mut found)?;
            if found.is_full() {
                break;
            }
        }
        Ok(found.ascending(dir))
    }

    /// The message with this id, in any channel of the replica.
    pub fn by_id(&self, id: MessageId) -> Result<Option<(ChannelKey, Stored)>> {
        for layer in self.layers.newest_first() {
            if let Some(found) = layer.by_id(id)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Messages of all channels with id > `after`, in id (= log) order: the journal consumers walk (H14).
    pub fn by_id_after(&self, after: MessageId, limit: Limit) -> Result<Vec<(ChannelKey, Stored)>> {
        let mut found = IdCollector::new(limit);
        for layer in self.layers.towards(Dir::Up) {
            layer.after_id(after, &mut found)?;
            if found.is_full() {
                break;
            }
        }
        Ok(found.found)
    }

    /// As [`Tx::duplicate`], of this picture.
    pub fn duplicate(
        &self,
        channel: &ChannelKey,
        from: &str,
        client_msg_no: &str,
        since: WallMs,
    ) -> Result<Option<Stored>> {
        self.layers.duplicate(channel, from, client_msg_no, since)
    }

    /// Messages of the channel with this client_msg_no, any sender, newest first, at most `limit`. An empty one names none.
    /// Walks the channel's messages of the last minutes: for look-ups by people, not for the send path.
    pub fn by_client_msg_no(
        &self,
        channel: &ChannelKey,
        client_msg_no: &str,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        if client_msg_no.is_empty() {
            return Ok(found);
        }
        let channel = Channel::new(channel);
        for layer in self.layers.newest_first() {
            layer.by_number(&channel, client_msg_no, limit, &mut found)?;
        }
        Ok(found)
    }

    /// Channels that hold messages, in key order, after `after` (exclusive).
    pub fn channels(
        &self,
        after: Option<&ChannelKey>,
        limit: usize,
    ) -> Result<Vec<(ChannelKey, Head)>> {
        self.layers.channels(after, limit)
    }
}
