//! One group's raft log as raft sees it (its `Storage`): the newest entries in memory, the older ones by way of the WAL.
//!
//! ```text
//!      start            base                                last
//!        │  in the WAL    │  in the WAL and in memory          │
//!   ─────┼────────────────┼────────────────────────────────────┤
//!        │ terms of all of them: a few runs                    │
//! ```
//!
//! Entries are here from the moment they are handed to the WAL; what is durable is not this module's business. Entries up to
//! `base` are asked for only by a leader with a slow follower. They are fetched one piece at a time: `entries` says "later" and
//! notes what it wants ([`Log::take_wanted`]); the piece comes with [`Log::fetched`] and lives until the caller is done with it.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Log {
    /// Last index the WAL has forgotten.
    start: u64,
    /// `(first index, term)`, ascending; the first run covers `start`.
    terms: VecDeque<(u64, u64)>,
    /// Last index not in memory.
    base: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    voters: Vec<u64>,
    fetch: RefCell<Fetch>,
}

/// What is wanted from the WAL; one piece at a time.
#[derive(Debug, Default)]
enum Fetch {
    #[default]
    Nothing,
    Wanted(GetEntriesContext, u64, u64),
    UnderWay(GetEntriesContext),
    Here(Vec<Entry>),
}

impl Log {
    /// A log that starts after (`index`, `term`) and holds `entries`, which follow it without a gap.
    pub(crate) fn new(
        (index, term): (u64, u64),
        entries: Vec<Entry>,
        hard_state: HardState,
        voters: Vec<u64>,
    ) -> Self {
        let mut log = Self {
            start: index,
            terms: VecDeque::from([(index, term)]),
            base: index,
            entries: VecDeque::new(),
            bytes: 0,
            hard_state,
            voters,
            fetch: RefCell::default(),
        };
        log.append(&entries);
        log
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
        while self.terms.len() > 1 && self.terms.back().is_some_and(|run| run.0 >= first.index) {
            self.terms.pop_back();
        }
        for entry in entries {
            if self.terms.back().is_none_or(|run| run.1 != entry.term) {
                self.terms.push_back((entry.index, entry.term));
            }
            self.bytes += weight(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Forgets entries in memory up to `index`; the caller has applied them.
    pub(crate) fn forget(&mut self, index: u64) {
        while self.entries.front().is_some_and(|e| e.index <= index) {
            self.pop_front();
        }
    }

    /// Forgets the oldest entries in memory up to `index` until at most `bytes` are left.
    pub(crate) fn shrink(&mut self, bytes: usize, index: u64) {
        while self.bytes > bytes && self.entries.front().is_some_and(|e| e.index <= index) {
            self.pop_front();
        }
    }

    /// The WAL forgets up to `index`, which is applied; answers with its term. `None`: it has forgotten that much already.
    pub(crate) fn release(&mut self, index: u64) -> Option<u64> {
        if index <= self.start {
            return None;
        }
        let term = self.term(index).ok()?;
        self.forget(index);
        self.start = index;
        while self.terms.get(1).is_some_and(|run| run.0 <= index) {
            self.terms.pop_front();
        }
        Some(term)
    }

    /// A piece to read from the WAL, `first..=last`; then give it to [`Self::fetched`].
    pub(crate) fn take_wanted(&mut self) -> Option<(u64, u64)> {
        match self.fetch.take() {
            Fetch::Wanted(context, low, high) => {
                self.fetch.replace(Fetch::UnderWay(context));
                Some((low, high - 1))
            }
            other => {
                self.fetch.replace(other);
                None
            }
        }
    }

    /// The piece is here, or it cannot be had (empty). Answers with whom to serve from it; then [`Self::fetch_done`].
    pub(crate) fn fetched(&mut self, entries: Vec<Entry>) -> Option<GetEntriesContext> {
        match self.fetch.take() {
            Fetch::UnderWay(context) if !entries.is_empty() => {
                self.fetch.replace(Fetch::Here(entries));
                Some(context)
            }
            Fetch::UnderWay(_) => None,
            other => {
                self.fetch.replace(other);
                None
            }
        }
    }

    /// Frees the piece, or gives up waiting for it; something new may be wanted then.
    pub(crate) fn fetch_done(&mut self) {
        let fetch = self.fetch.take();
        if matches!(fetch, Fetch::Wanted(..)) {
            self.fetch.replace(fetch);
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
            self.base = entry.index;
        }
    }

    fn last(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Entries from before what is in memory.
    fn old_entries(
        &self,
        low: u64,
        high: u64,
        max_size: u64,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let mut fetch = self.fetch.borrow_mut();
        if let Fetch::Here(entries) = &*fetch {
            let from = entries.partition_point(|e| e.index < low);
            let until = entries.partition_point(|e| e.index < high);
            if entries.get(from).is_some_and(|e| e.index == low) {
                return Ok(limited(entries[from..until].iter(), max_size));
            }
        }
        if !context.can_async() {
            return Err(StorageError::Compacted.into());
        }
        // One piece at a time; whoever finds it taken is tried again with the next heartbeat.
        if matches!(*fetch, Fetch::Nothing | Fetch::Here(_)) {
            *fetch = Fetch::Wanted(context, low, high.min(self.base + 1));
        }
        Err(StorageError::LogTemporarilyUnavailable.into())
    }
}

/// As many as `max_size` allows, but one at least.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, max_size: u64) -> Vec<Entry> {
    let mut room = max_size;
    let mut taken = Vec::new();
    for entry in entries {
        let size = weight(entry) as u64;
        if size > room && !taken.is_empty() {
            break;
        }
        room = room.saturating_sub(size);
        taken.push(entry.clone());
    }
    taken
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
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.start {
            return Err(StorageError::Compacted.into());
        }
        if low > high || high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        if low <= self.base {
            return self.old_entries(low, high, max_size, context);
        }
        let from = (low - self.base - 1) as usize;
        let until = (high - self.base - 1) as usize;
        Ok(limited(self.entries.range(from..until), max_size))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.start {
            return Err(StorageError::Compacted.into());
        }
        if index > self.last() {
            return Err(StorageError::Unavailable.into());
        }
        let after = self.terms.partition_point(|run| run.0 <= index);
        Ok(self.terms[after - 1].1)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Never at hand: a follower that needs entries the WAL has forgotten waits (see the crate's documentation).
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

    /// Entries 5..=8: two of term 2, two of term 3.
    fn log() -> Log {
        let entries = (5..=8).map(|i| entry(i, 2 + i / 7)).collect();
        Log::new((4, 1), entries, HardState::default(), vec![1])
    }

    fn read(log: &Log, low: u64, high: u64, bytes: u64) -> raft::Result<Vec<u64>> {
        let got = log.entries(low, high, bytes, GetEntriesContext::empty(true))?;
        Ok(got.iter().map(|e| e.index).collect())
    }

    #[test]
    fn a_slice_ends_at_the_size_but_has_one_entry() {
        let log = log();
        assert_eq!(read(&log, 5, 9, u64::MAX), Ok(vec![5, 6, 7, 8]));
        assert_eq!(read(&log, 6, 9, 1), Ok(vec![6]));
        let two = 2 * weight(&entry(1, 1)) as u64;
        assert_eq!(read(&log, 5, 9, two), Ok(vec![5, 6]));
    }

    #[test]
    fn an_append_replaces_what_it_conflicts_with() {
        let mut log = log();
        log.append(&[entry(6, 4)]);
        assert_eq!(log.last_index().unwrap(), 6);
        let terms: Vec<u64> = (4..=6).map(|i| log.term(i).unwrap()).collect();
        assert_eq!(terms, [1, 2, 4]);
        assert_eq!(log.bytes, 2 * weight(&entry(1, 1)));
    }

    #[test]
    fn terms_are_known_as_long_as_the_wal_has_the_entries() {
        let mut log = log();
        log.forget(7);
        assert_eq!(log.base, 7);
        let terms: Vec<u64> = (4..=8).map(|i| log.term(i).unwrap()).collect();
        assert_eq!(terms, [1, 2, 2, 3, 3]);
        assert_eq!(log.term(9), Err(StorageError::Unavailable.into()));
        assert_eq!(log.release(6), Some(2));
        assert_eq!(log.release(6), None);
        assert_eq!(log.term(5), Err(StorageError::Compacted.into()));
        assert_eq!((log.term(6).unwrap(), log.term(7).unwrap()), (2, 3));
        assert_eq!(read(&log, 6, 9, 1), Err(StorageError::Compacted.into()));
    }

    #[test]
    fn a_release_past_memory_frees_memory() {
        let mut log = log();
        assert_eq!(log.release(8), Some(3));
        assert_eq!((log.base, log.bytes, log.last_index().unwrap()), (8, 0, 8));
        log.append(&[entry(9, 3)]);
        assert_eq!(read(&log, 9, 10, 1), Ok(vec![9]));
    }

    #[test]
    fn old_entries_are_fetched_one_piece_at_a_time() {
        let mut log = log();
        log.shrink(0, 7);
        let later = Err(StorageError::LogTemporarilyUnavailable.into());
        assert_eq!(read(&log, 5, 9, u64::MAX), later);
        assert_eq!(read(&log, 6, 9, u64::MAX), later, "noted once");
        assert_eq!(log.take_wanted(), Some((5, 7)));
        assert_eq!(log.take_wanted(), None);
        assert_eq!(read(&log, 5, 9, u64::MAX), later, "under way");
        assert_eq!(log.take_wanted(), None);
        assert!(log.fetched(vec![entry(5, 2), entry(6, 2)]).is_some());
        assert_eq!(read(&log, 5, 9, u64::MAX), Ok(vec![5, 6]));
        assert_eq!(read(&log, 7, 9, u64::MAX), later);
        log.fetch_done();
        assert_eq!(log.take_wanted(), Some((7, 7)), "what was wanted meanwhile");
        assert!(log.fetched(Vec::new()).is_none(), "the WAL could not");
        assert_eq!(read(&log, 7, 9, u64::MAX), later);
        assert_eq!(log.take_wanted(), Some((7, 7)), "asked again");
    }
}
