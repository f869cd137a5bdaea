//! One replica's state: rows and messages. One writer ([`SlotStore`], owned by a shard), readers on any thread ([`View`]).
//!
//! Rows are `(table, key) → value` bytes; the catalogue of tables and keys belongs to the state machine above. Appending a
//! message writes **zero rows** (H39): head, last-by-sender, ids and the duplicate index come from the message store.

use bytes::Bytes;
use wk_proto::{ChannelKey, LogIndex, MessageId, MessageSeq, Record, ReplicaId, WallMs};

use crate::Result;

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
#[derive(Debug)]
pub struct SlotStore {}

impl SlotStore {
    /// Which replica this is; the first part of all its keys.
    pub fn replica(&self) -> ReplicaId {
        todo!()
    }
    /// Index of the last transaction dropped.
    pub fn applied(&self) -> LogIndex {
        todo!()
    }
    /// Index of the last checkpoint: the WAL may forget up to here.
    pub fn flushed(&self) -> LogIndex {
        todo!()
    }
    /// Starts the transaction of one log entry, `at` > [`Self::applied`]. Its writes become visible to views, all together,
    /// when it is dropped by [`Tx::commit`].
    pub fn begin(&mut self, at: LogIndex) -> Tx<'_> {
        let _ = at;
        todo!()
    }
    /// An immutable picture of everything applied so far.
    pub fn view(&self) -> View {
        todo!()
    }
}

/// The writes of one log entry. Reads see its own writes. Not committed = nothing happened.
#[derive(Debug)]
pub struct Tx<'a> {
    _store: &'a mut SlotStore,
}

impl Tx<'_> {
    /// One row, own writes included.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let _ = (table, key);
        todo!()
    }
    /// Rows whose key starts with `prefix`, in key order, after `after` (exclusive, a whole key); own writes included.
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let _ = (table, prefix, after, limit);
        todo!()
    }
    /// Inserts or replaces a row.
    pub fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        let _ = (table, key, value);
        todo!()
    }
    /// Removes a row if it is there.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let _ = (table, key);
        todo!()
    }
    /// Appends one message; returns its seq (head + 1). The id must be larger than [`Self::last_message_id`].
    pub fn append(&mut self, channel: &ChannelKey, record: Record) -> Result<MessageSeq> {
        let _ = (channel, record);
        todo!()
    }
    /// Newest message of a channel, own appends included.
    pub fn head(&self, channel: &ChannelKey) -> Result<Option<Head>> {
        let _ = channel;
        todo!()
    }
    /// Newest message of the channel with this sender and client_msg_no and a time ≥ `since`, own appends included (H33, H34).
    pub fn duplicate(
        &self,
        channel: &ChannelKey,
        from: &str,
        client_msg_no: &str,
        since: WallMs,
    ) -> Result<Option<Stored>> {
        let _ = (channel, from, client_msg_no, since);
        todo!()
    }
    /// Largest message id of this replica; own appends included.
    pub fn last_message_id(&self) -> MessageId {
        todo!()
    }
    /// Makes the writes visible.
    pub fn commit(self) {
        todo!()
    }
}

/// An immutable picture of one replica at [`View::applied`]. Cheap to clone, readable from any thread; holding one longer than
/// a second keeps a checkpoint's garbage alive (H40), so materialise and drop.
#[derive(Clone, Debug)]
pub struct View {}

impl View {
    /// The log index this picture shows.
    pub fn applied(&self) -> LogIndex {
        todo!()
    }
    /// One row.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let _ = (table, key);
        todo!()
    }
    /// As [`Tx::scan`].
    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let _ = (table, prefix, after, limit);
        todo!()
    }
    /// Newest message of a channel.
    pub fn head(&self, channel: &ChannelKey) -> Result<Option<Head>> {
        let _ = channel;
        todo!()
    }
    /// Newest seq this user sent to the channel.
    pub fn last_by(&self, channel: &ChannelKey, from: &str) -> Result<Option<MessageSeq>> {
        let _ = (channel, from);
        todo!()
    }
    /// Messages with `first..=last`, the end chosen by `dir` up to `limit`, ascending.
    pub fn range(
        &self,
        channel: &ChannelKey,
        first: MessageSeq,
        last: MessageSeq,
        dir: Dir,
        limit: Limit,
    ) -> Result<Vec<Stored>> {
        let _ = (channel, first, last, dir, limit);
        todo!()
    }
    /// The message with this id, in any channel of the replica.
    pub fn by_id(&self, id: MessageId) -> Result<Option<(ChannelKey, Stored)>> {
        let _ = id;
        todo!()
    }
    /// Messages of all channels with id > `after`, in id (= log) order: the journal consumers walk (H14).
    pub fn by_id_after(&self, after: MessageId, limit: Limit) -> Result<Vec<(ChannelKey, Stored)>> {
        let _ = (after, limit);
        todo!()
    }
    /// Messages of the channel with this client_msg_no, any sender, newest first, at most `limit`.
    pub fn by_client_msg_no(
        &self,
        channel: &ChannelKey,
        client_msg_no: &str,
        limit: usize,
    ) -> Result<Vec<Stored>> {
        let _ = (channel, client_msg_no, limit);
        todo!()
    }
    /// Channels that hold messages, in key order, after `after` (exclusive).
    pub fn channels(
        &self,
        after: Option<&ChannelKey>,
        limit: usize,
    ) -> Result<Vec<(ChannelKey, Head)>> {
        let _ = (after, limit);
        todo!()
    }
}
