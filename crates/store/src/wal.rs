//! One write-ahead log for all groups of the node: recycled, pre-written segments, one fdatasync per batch (H43, H44).

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{LogIndex, ReplicaId, Term};

use crate::{Disk, Result};

/// One thing to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalRecord {
    /// A raft log entry. A later record for the same or a smaller index of the replica replaces everything from there on.
    Entry {
        /// Whose log.
        replica: ReplicaId,
        /// Its term.
        term: Term,
        /// Its index.
        index: LogIndex,
        /// Raft's entry type, opaque here.
        kind: u8,
        /// Its content.
        data: Bytes,
    },
    /// Raft's hard state; the last one counts.
    State {
        /// Whose.
        replica: ReplicaId,
        /// Current term.
        term: Term,
        /// Replica voted for in it, 0 = none.
        vote: u64,
        /// Highest index known committed (a hint).
        commit: LogIndex,
    },
    /// The log of this replica starts after `index` (checkpointed, or installed from a snapshot).
    Start {
        /// Whose.
        replica: ReplicaId,
        /// Last index before the log.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// The replica is gone; forget all about it.
    Removed {
        /// Whose.
        replica: ReplicaId,
    },
}

/// What the log holds of one replica after [`Wal::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Last hard state `(term, vote, commit)`.
    pub state: Option<(Term, u64, LogIndex)>,
    /// Last `Start`, if the log has one.
    pub start: Option<(LogIndex, Term)>,
    /// Entries after it, contiguous, ascending.
    pub entries: Vec<(LogIndex, Term, u8, Bytes)>,
}

/// Sizes, and what to do at them.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Segments kept ready for reuse.
    pub spare_segments: usize,
}

/// The log. One owner (the WAL thread); recovery happens in `open`.
#[derive(Debug)]
pub struct Wal {}

impl Wal {
    /// Opens the folder `wal/`, cuts a torn tail, refuses damage before it (H44), and returns what it holds by replica.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
    ) -> Result<(Self, Vec<(ReplicaId, Recovered)>)> {
        let _ = (disk, options);
        todo!()
    }
    /// Writes one batch, not yet durable. Rolls to a new segment as needed.
    pub fn append(&mut self, records: &[WalRecord]) -> Result<()> {
        let _ = records;
        todo!()
    }
    /// Everything appended is durable when this returns. After an error the log is dead.
    pub fn sync(&mut self) -> Result<()> {
        todo!()
    }
    /// The replica no longer needs entries up to `index` (checkpointed and not wanted by a follower); frees whole segments.
    pub fn release(&mut self, replica: ReplicaId, index: LogIndex, term: Term) -> Result<()> {
        let _ = (replica, index, term);
        todo!()
    }
    /// Bytes in live segments, and the replicas pinning the oldest one.
    pub fn usage(&self) -> (u64, Vec<ReplicaId>) {
        todo!()
    }
    /// Entries `first..=last` of a replica, at most `bytes` but at least one: for a follower that is behind what memory holds.
    pub fn read(
        &self,
        replica: ReplicaId,
        first: LogIndex,
        last: LogIndex,
        bytes: usize,
    ) -> Result<Vec<(LogIndex, Term, u8, Bytes)>> {
        let _ = (replica, first, last, bytes);
        todo!()
    }
}
