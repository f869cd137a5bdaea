//! What the log holds, in memory: per replica its hard state, its start, and where its live entries are.
//!
//! Entries are not listed one by one. A [`Span`] says where a run of them begins; the rest are found by walking the frames from
//! there. A run ends when the log moves to another segment, when the term changes, when entries are replaced, and every
//! [`SPAN_BYTES`]; so of any index the last span at or before it leads to its only valid version.

use std::collections::{BTreeMap, VecDeque};

use wk_proto::{LogIndex, ReplicaId, Term};

use super::codec::{Position, RecordRef, What};

/// Log bytes between two spans of a replica: what a read walks at most before it finds its first entry. Memory is 32 bytes ×
/// replicas × live log ÷ this: 32 MiB for 64 replicas that are all in every part of 4 GiB.
const SPAN_BYTES: u32 = 256 * 1024;

/// Where a record is: its frame, and the byte of the payload it starts at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) frame: Position,
    pub(super) skip: u32,
}

/// A run of entries of one term in one segment, up to the next span or the last entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: LogIndex,
    pub(super) place: Place,
    term: Term,
}

/// What to do with an entry that leaves a hole after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnGap {
    /// The layer above made a mistake.
    Refuse,
    /// While replaying: the entries before were in a segment that is gone, so a later record releases or replaces them. What a
    /// replay holds is always the end of what the log held, without the part in such segments.
    Restart,
}

/// One replica. Its live entries are `first..=last` if there is a span, else there are none.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) state: Option<(Term, u64, LogIndex)>,
    pub(super) start: Option<(LogIndex, Term)>,
    /// The start moved by [`Index::release`] and no frame says so yet.
    start_is_unwritten: bool,
    first: LogIndex,
    last: LogIndex,
    /// Ascending by first index and by place. The first one holds entry `first`.
    spans: VecDeque<Span>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    logs: BTreeMap<ReplicaId, Log>,
}

impl Index {
    /// Takes in one record. An error says what is wrong with it, and nothing has changed.
    pub(super) fn apply(
        &mut self,
        record: &RecordRef<'_>,
        place: Place,
        on_gap: OnGap,
    ) -> Result<(), String> {
        if record.what == What::Removed {
            self.logs.remove(&record.replica);
            return Ok(());
        }
        let log = self.logs.entry(record.replica).or_default();
        match record.what {
            What::Entry { term, index, .. } => log
                .push(index, term, place, on_gap)
                .map_err(|why| format!("replica {}: entry {}: {why}", record.replica.0, index.0))?,
            What::State { term, vote, commit } => log.state = Some((term, vote, commit)),
            What::Start {
                index,
                term,
                is_continuation,
            } => log.start_at(index, term, is_continuation),
            What::Removed => {}
        }
        Ok(())
    }

    /// Moves a start forward; the frame that is written next must carry [`Self::take_unwritten_starts`].
    pub(super) fn release(
        &mut self,
        replica: ReplicaId,
        index: LogIndex,
        term: Term,
    ) -> Result<(), String> {
        let Some(log) = self.logs.get_mut(&replica) else {
            return Ok(());
        };
        if log.start.is_some_and(|(start, _)| index <= start) {
            return Ok(());
        }
        if let Some(known) = log.term_at(index)
            && known != term
        {
            return Err(format!(
                "replica {}: release of entry {} as of term {}, it is of term {}",
                replica.0, index.0, term.0, known.0
            ));
        }
        log.start_at(index, term, true);
        log.start_is_unwritten = true;
        Ok(())
    }

    /// Starts that no frame says yet; from now on they count as written.
    pub(super) fn take_unwritten_starts(&mut self, out: &mut Vec<RecordRef<'static>>) {
        for (replica, log) in &mut self.logs {
            if std::mem::take(&mut log.start_is_unwritten) {
                out.extend(log.start_record(*replica));
            }
        }
    }

    /// Bytes the next [`Self::take_unwritten_starts`] adds to a frame.
    pub(super) fn unwritten_starts_bytes(&self) -> usize {
        let unwritten = self.logs.iter().filter(|(_, log)| log.start_is_unwritten);
        let starts = unwritten.filter_map(|(replica, log)| log.start_record(*replica));
        starts.map(|start| start.encoded_bytes()).sum()
    }

    /// Hard state and start of every replica: what makes the segments before this one superfluous for them.
    pub(super) fn summary(&mut self, out: &mut Vec<RecordRef<'static>>) {
        for (replica, log) in &mut self.logs {
            log.start_is_unwritten = false;
            out.extend(log.start_record(*replica));
            out.extend(log.state.map(|(term, vote, commit)| RecordRef {
                replica: *replica,
                what: What::State { term, vote, commit },
            }));
        }
    }

    /// Whether entries of the replica follow this one: if the log has it with another term, or not at all, it is a snapshot of another
    /// history or of a later time, and replaces all.
    pub(super) fn has(&self, replica: ReplicaId, index: LogIndex, term: Term) -> bool {
        let log = self.logs.get(&replica);
        log.is_some_and(|log| log.term_at(index) == Some(term))
    }

    pub(super) fn get(&self, replica: ReplicaId) -> Option<&Log> {
        self.logs.get(&replica)
    }

    pub(super) fn logs(&self) -> impl Iterator<Item = (ReplicaId, &Log)> {
        self.logs.iter().map(|(replica, log)| (*replica, log))
    }

    /// Epoch of the oldest segment with a live entry, if there is any.
    pub(super) fn oldest_epoch(&self) -> Option<u32> {
        self.logs.values().filter_map(Log::oldest_epoch).min()
    }

    /// Replicas with live entries in the segment of that epoch, if it is the oldest.
    pub(super) fn pinners(&self, epoch: u32) -> Vec<ReplicaId> {
        self.logs()
            .filter(|(_, log)| log.oldest_epoch() == Some(epoch))
            .map(|(replica, _)| replica)
            .collect()
    }
}

impl Log {
    /// First and last live entry.
    pub(super) fn range(&self) -> Option<(LogIndex, LogIndex)> {
        (!self.spans.is_empty()).then_some((self.first, self.last))
    }

    /// Whether the entries follow the start without a hole.
    pub(super) fn is_contiguous(&self) -> bool {
        match (self.start, self.range()) {
            (Some((start, _)), Some((first, _))) => start.next() == first,
            _ => true,
        }
    }

    /// Spans from the one that holds `index` on.
    pub(super) fn spans_from(&self, index: LogIndex) -> impl Iterator<Item = &Span> {
        let after = self.spans.partition_point(|span| span.first <= index);
        self.spans.range(after.saturating_sub(1)..)
    }

    fn oldest_epoch(&self) -> Option<u32> {
        self.spans.front().map(|span| span.place.frame.epoch)
    }

    fn term_at(&self, index: LogIndex) -> Option<Term> {
        let (first, last) = self.range()?;
        if index < first || index > last {
            return None;
        }
        self.spans_from(index).next().map(|span| span.term)
    }

    fn start_record(&self, replica: ReplicaId) -> Option<RecordRef<'static>> {
        let (index, term) = self.start?;
        let what = What::Start {
            index,
            term,
            is_continuation: true,
        };
        Some(RecordRef { replica, what })
    }

    fn push(
        &mut self,
        index: LogIndex,
        term: Term,
        place: Place,
        on_gap: OnGap,
    ) -> Result<(), String> {
        if index == LogIndex(0) {
            return Err("entries count from 1".to_owned());
        }
        if let Some((start, _)) = self.start
            && index <= start
        {
            return Err(format!("the log starts after {}", start.0));
        }
        let next = match (self.range(), self.start) {
            (Some((_, last)), _) => last.next(),
            (None, Some((start, _))) => start.next(),
            (None, None) => index,
        };
        if index > next {
            if on_gap == OnGap::Refuse {
                return Err(format!("{} would be next", next.0));
            }
            self.spans.clear();
        }
        if index < next {
            self.cut_from(index);
        }
        self.extend(index, term, place, index != next);
        Ok(())
    }

    /// Forgets the entries from `index` on: they are replaced.
    fn cut_from(&mut self, index: LogIndex) {
        while self.spans.back().is_some_and(|span| span.first >= index) {
            self.spans.pop_back();
        }
        if index <= self.first {
            self.spans.clear();
        }
    }

    fn extend(&mut self, index: LogIndex, term: Term, place: Place, is_break: bool) {
        let continues = self.spans.back().is_some_and(|span| {
            let (begin, here) = (span.place.frame, place.frame);
            span.term == term
                && begin.epoch == here.epoch
                && here.offset - begin.offset < SPAN_BYTES
        });
        if self.spans.is_empty() {
            self.first = index;
        }
        if is_break || !continues {
            self.spans.push_back(Span {
                first: index,
                place,
                term,
            });
        }
        self.last = index;
    }

    /// The log starts after `index`; what it has after it stays or goes.
    fn start_at(&mut self, index: LogIndex, term: Term, is_continuation: bool) {
        if self.start.is_some_and(|(start, _)| index <= start) {
            return;
        }
        if is_continuation {
            self.forget_to(index);
        } else {
            self.spans.clear();
        }
        self.start = Some((index, term));
        self.start_is_unwritten = false;
    }

    fn forget_to(&mut self, index: LogIndex) {
        self.first = self.first.max(index.next());
        if self.first > self.last {
            self.spans.clear();
        }
        while self
            .spans
            .get(1)
            .is_some_and(|span| span.first <= self.first)
        {
            self.spans.pop_front();
        }
    }
}
