//! The log's driver: append and sync are separate events, one sync at a time, and what must be durable first waits.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use wk_proto::{LogIndex, NodeId, ReplicaId, Term};
use wk_replica::{After, PeerMessage, WalMark};
use wk_store::{Wal, WalRecord};

use crate::plant::Plant;

/// See the module.
pub(crate) struct LogDriver {
    wal: Wal,
    plant: Plant,
    waiting: Vec<WalRecord>,
    /// Last mark handed over; and durable.
    last: WalMark,
    durable: WalMark,
    /// A write or sync is on its way.
    busy: bool,
    held: VecDeque<(WalMark, NodeId, PeerMessage)>,
    /// Kept for the bug that releases too early: it needs the terms of entries.
    terms: BTreeMap<(ReplicaId, LogIndex), Term>,
}

impl LogDriver {
    pub(crate) fn new(wal: Wal, plant: Plant) -> Self {
        Self {
            wal,
            plant,
            waiting: Vec::new(),
            last: WalMark(0),
            durable: WalMark(0),
            busy: false,
            held: VecDeque::new(),
            terms: BTreeMap::new(),
        }
    }

    pub(crate) fn push(&mut self, mark: WalMark, mut records: Vec<WalRecord>) {
        self.last = mark;
        match self.plant {
            Plant::ForgetVote => forget_votes(&mut records),
            Plant::ReleaseEarly => self.note_terms(&records),
            _ => {}
        }
        self.waiting.append(&mut records);
    }

    /// Whether a write is to begin now; the caller schedules it.
    pub(crate) fn begin(&mut self) -> bool {
        let begins = !self.busy && self.durable < self.last;
        self.busy |= begins;
        begins
    }

    /// Writes what waits; the mark it ends at.
    pub(crate) fn write(&mut self) -> wk_store::Result<WalMark> {
        let records = std::mem::take(&mut self.waiting);
        self.wal.append(&records)?;
        Ok(self.last)
    }

    /// Syncs what was written up to `mark`.
    pub(crate) fn sync(&mut self, mark: WalMark) -> wk_store::Result<()> {
        self.wal.sync()?;
        self.durable = mark;
        self.busy = false;
        Ok(())
    }

    /// One step of preparing later writes.
    pub(crate) fn prepare(&mut self) -> wk_store::Result<bool> {
        self.wal.prepare()
    }

    /// Entries of a replica, with their terms, kinds and contents.
    pub(crate) fn read(
        &self,
        replica: ReplicaId,
        first: LogIndex,
        last: LogIndex,
        bytes: usize,
    ) -> wk_store::Result<Vec<(LogIndex, Term, u8, Bytes)>> {
        self.wal.read(replica, first, last, bytes)
    }

    pub(crate) fn release(
        &mut self,
        replica: ReplicaId,
        index: LogIndex,
        term: Term,
    ) -> wk_store::Result<()> {
        self.terms
            .retain(|key, _| key.0 != replica || key.1 > index);
        self.wal.release(replica, index, term)
    }

    /// The message if it may leave now; else it waits.
    pub(crate) fn hold(
        &mut self,
        to: NodeId,
        message: PeerMessage,
        after: After,
    ) -> Option<PeerMessage> {
        match after {
            After::Durable(mark) if mark > self.durable && self.plant != Plant::IgnoreAfter => {
                self.held.push_back((mark, to, message));
                None
            }
            _ => Some(message),
        }
    }

    /// Messages that waited for what is durable now.
    pub(crate) fn released(&mut self, mark: WalMark) -> Vec<(NodeId, PeerMessage)> {
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(m, ..)| *m <= mark);
        self.held = held;
        let ready: VecDeque<(WalMark, NodeId, PeerMessage)> = ready;
        ready.into_iter().map(|(_, to, m)| (to, m)).collect()
    }

    /// Term of an entry handed over by this process, for [`Plant::ReleaseEarly`].
    pub(crate) fn term_of(&self, replica: ReplicaId, index: LogIndex) -> Option<Term> {
        self.terms.get(&(replica, index)).copied()
    }

    fn note_terms(&mut self, records: &[WalRecord]) {
        for record in records {
            if let WalRecord::Entry {
                replica,
                term,
                index,
                ..
            } = record
            {
                self.terms.insert((*replica, *index), *term);
            }
        }
    }
}

/// Drops hard states that come without entries: terms and votes.
fn forget_votes(records: &mut Vec<WalRecord>) {
    let with_entries: Vec<ReplicaId> = records
        .iter()
        .filter_map(|record| match record {
            WalRecord::Entry { replica, .. } => Some(*replica),
            _ => None,
        })
        .collect();
    records.retain(|record| match record {
        WalRecord::State { replica, .. } => with_entries.contains(replica),
        _ => true,
    });
}
