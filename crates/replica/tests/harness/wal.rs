//! A WAL in memory: what is written, and what of it is synced.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use wk_proto::{LogIndex, ReplicaId, Term};
use wk_replica::WalMark;
use wk_store::{Recovered, WalRecord};

#[derive(Debug, Default)]
pub struct MemWal {
    durable: BTreeMap<ReplicaId, Recovered>,
    written: VecDeque<(WalMark, Vec<WalRecord>)>,
}

impl MemWal {
    pub fn append(&mut self, mark: WalMark, records: Vec<WalRecord>) {
        assert!(
            self.written.back().is_none_or(|(last, _)| *last < mark),
            "marks ascend"
        );
        self.written.push_back((mark, records));
    }

    /// Last mark written and not synced.
    pub fn unsynced(&self) -> Option<WalMark> {
        self.written.back().map(|(mark, _)| *mark)
    }

    /// First mark written and not synced.
    pub fn first_unsynced(&self) -> Option<WalMark> {
        self.written.front().map(|(mark, _)| *mark)
    }

    /// Everything up to `mark` survives a crash from now on.
    pub fn synced(&mut self, mark: WalMark) {
        while self.written.front().is_some_and(|(m, _)| *m <= mark) {
            let (_, records) = self.written.pop_front().expect("just seen");
            records.into_iter().for_each(|r| self.keep(r));
        }
    }

    /// What was not synced is gone.
    pub fn crash(&mut self) {
        self.written.clear();
    }

    pub fn recovered(&self, replica: ReplicaId) -> Recovered {
        self.durable.get(&replica).cloned().unwrap_or_default()
    }

    /// Highest durable index of a replica.
    pub fn last(&self, replica: ReplicaId) -> u64 {
        let recovered = self.recovered(replica);
        recovered.entries.last().map_or(0, |e| e.0.0)
    }

    /// As [`wk_store::Wal::read`]; of what is synced.
    pub fn read(
        &self,
        replica: ReplicaId,
        first: LogIndex,
        last: LogIndex,
        bytes: usize,
    ) -> Vec<(LogIndex, Term, u8, Bytes)> {
        let mut room = bytes;
        let mut taken = self.recovered(replica).entries;
        taken.retain(|e| e.0 >= first && e.0 <= last);
        let fits = taken.iter().take_while(|e| {
            let fits = e.3.len() <= room;
            room = room.saturating_sub(e.3.len());
            fits
        });
        let count = fits.count().max(1);
        taken.truncate(count);
        taken
    }

    pub fn release(&mut self, replica: ReplicaId, index: LogIndex, term: Term) {
        self.keep(WalRecord::Start {
            replica,
            index,
            term,
        });
    }

    fn keep(&mut self, record: WalRecord) {
        match record {
            WalRecord::Entry {
                replica,
                term,
                index,
                kind,
                data,
            } => {
                let entries = &mut self.durable.entry(replica).or_default().entries;
                entries.retain(|e| e.0 < index);
                assert!(
                    entries.last().is_none_or(|e| e.0.next() == index),
                    "no gaps"
                );
                entries.push((index, term, kind, data));
            }
            WalRecord::State {
                replica,
                term,
                vote,
                commit,
            } => {
                self.durable.entry(replica).or_default().state = Some((term, vote, commit));
            }
            WalRecord::Start {
                replica,
                index,
                term,
            } => {
                let kept = self.durable.entry(replica).or_default();
                assert!(kept.start.is_none_or(|s| s.0 <= index), "releases ascend");
                kept.start = Some((index, term));
                kept.entries.retain(|e| e.0 > index);
            }
            WalRecord::Removed { replica } => {
                self.durable.remove(&replica);
            }
        }
    }
}
