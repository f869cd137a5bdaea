//! The part of one group's raft log that is in memory, as raft's `Storage`.
//!
//! Holds a contiguous tail `first..=last` and the (index, term) before it. What is durable is the WAL's business; entries are here
//! from the moment they are handed to it. Applied entries leave memory as soon as no other voter needs them.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Log {
    base_index: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    voters: Vec<u64>,
}

impl Log {
    /// A log that starts after `base` and holds `entries`, which follow it without a gap.
    pub(crate) fn new(
        (base_index, base_term): (u64, u64),
        entries: VecDeque<Entry>,
        hard_state: HardState,
        voters: Vec<u64>,
    ) -> Self {
        let bytes = entries.iter().map(weight).sum();
        Self {
            base_index,
            base_term,
            entries,
            bytes,
            hard_state,
            voters,
        }
    }

    /// Adds entries, replacing whatever was at their indexes and after.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else {
            return;
        };
        while self.last() >= first.index {
            match self.entries.pop_back() {
                Some(entry) => self.bytes -= weight(&entry),
                None => break,
            }
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Forgets entries up to `index`; the caller has applied them.
    pub(crate) fn forget(&mut self, index: u64) {
        while self.entries.front().is_some_and(|e| e.index <= index) {
            self.pop_front();
        }
    }

    /// Forgets the oldest entries up to `index` until at most `bytes` are left.
    pub(crate) fn shrink(&mut self, bytes: usize, index: u64) {
        while self.bytes > bytes && self.entries.front().is_some_and(|e| e.index <= index) {
            self.pop_front();
        }
    }

    /// Last index before what is held.
    pub(crate) fn base(&self) -> (u64, u64) {
        (self.base_index, self.base_term)
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
            self.base_index = entry.index;
            self.base_term = entry.term;
        }
    }

    fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }
}

fn weight(entry: &Entry) -> usize {
    entry.data.len() + size_of::<Entry>()
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut conf = ConfState::default();
        conf.set_voters(self.voters.clone());
        Ok(RaftState::new(self.hard_state.clone(), conf))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base_index {
            return Err(StorageError::Compacted.into());
        }
        if low > high || high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let from = (low - self.base_index - 1) as usize;
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut taken = Vec::new();
        for entry in self.entries.range(from..from + (high - low) as usize) {
            let size = weight(entry) as u64;
            if size > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            taken.push(entry.clone());
        }
        Ok(taken)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base_index {
            return Ok(self.base_term);
        }
        if index < self.base_index {
            return Err(StorageError::Compacted.into());
        }
        self.entries
            .get((index - self.base_index - 1) as usize)
            .map(|e| e.term)
            .ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Never at hand: a follower that needs entries from before [`Log::base`] waits (see the crate's documentation).
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![7; 100].into(),
            ..Entry::default()
        }
    }

    fn log() -> Log {
        let entries = (5..=8).map(|i| entry(i, 2)).collect();
        Log::new((4, 1), entries, HardState::default(), vec![1])
    }

    fn indexes(log: &Log, low: u64, high: u64, bytes: u64) -> Vec<u64> {
        let got = log.entries(low, high, bytes, GetEntriesContext::empty(false));
        got.unwrap().iter().map(|e| e.index).collect()
    }

    #[test]
    fn a_slice_ends_at_the_size_but_has_one_entry() {
        let log = log();
        assert_eq!(indexes(&log, 5, 9, u64::MAX), [5, 6, 7, 8]);
        assert_eq!(indexes(&log, 6, 9, 1), [6]);
        let two = 2 * weight(&entry(1, 1)) as u64;
        assert_eq!(indexes(&log, 5, 9, two), [5, 6]);
    }

    #[test]
    fn an_append_replaces_what_it_conflicts_with() {
        let mut log = log();
        log.append(&[entry(7, 3)]);
        assert_eq!(log.last_index().unwrap(), 7);
        assert_eq!((log.term(6).unwrap(), log.term(7).unwrap()), (2, 3));
        assert_eq!(log.bytes, 3 * weight(&entry(1, 1)));
    }

    #[test]
    fn what_is_forgotten_leaves_its_last_term_behind() {
        let mut log = log();
        log.forget(6);
        assert_eq!(log.base(), (6, 2));
        assert_eq!(log.term(6).unwrap(), 2);
        assert_eq!(log.term(5), Err(StorageError::Compacted.into()));
        assert_eq!(log.term(9), Err(StorageError::Unavailable.into()));
        log.shrink(0, 7);
        assert_eq!(log.base(), (7, 2));
    }
}
