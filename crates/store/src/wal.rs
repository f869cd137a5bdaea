//! One write-ahead log for all groups of the node: recycled, pre-written segments, one fdatasync per batch (H43, H44).
//!
//! ```text
//! append(records) ─▶ one frame, one write ─▶ sync(): one fdatasync ─▶ durable; the next frame says so (`durable_upto`)
//!        │ segment full
//!        ▼
//! sync the old one ─▶ next file, next epoch ─▶ hard state and start of every replica ─▶ sync ─▶ go on
//! ```
//!
//! Because each segment begins with what must be known of every replica, an old segment is kept by live *entries* alone. Which
//! entries are live is the caller's word ([`Wal::release`]); the log never rewrites any.
//!
//! Not done here: threads, batching (the caller's batch is the batch), and deciding what a damaged log means for a group.

mod codec;
mod index;
mod read;
mod recover;
mod segments;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{LogIndex, ReplicaId, Term};

use crate::{Disk, Error, Result};
use codec::{Header, Position, RecordRef, What};
use index::{Index, OnGap, Place};
use segments::Segments;

pub use codec::DATA_BYTES_MAX;
pub(crate) use codec::FORMAT;

/// Folder of the segments.
const DIR: &str = "wal";

/// Payload at which a frame is closed. A larger batch becomes several frames and writes, still one fdatasync.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Smallest and largest [`WalOptions::segment_bytes`]; others are refused.
const SEGMENT_BYTES_MIN: u64 = 4 * 1024;
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// `(index, term, kind, data)`
type LogEntry = (LogIndex, Term, u8, Bytes);

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
    /// The log of this replica starts after `index` (checkpointed, or installed from a snapshot). If the log holds that entry with
    /// that term, later entries stay; if not, it holds another history, and all its entries go. Ignored at or before the start
    /// it has.
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
    /// Bytes of one segment. A batch that fits no segment makes one longer.
    pub segment_bytes: u64,
    /// Segments kept ready for reuse; more are removed.
    pub spare_segments: usize,
}

impl Default for WalOptions {
    /// Spares for what one checkpoint frees at its trigger of 256 MiB (H40).
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            spare_segments: 4,
        }
    }
}

/// The log. One owner (the WAL thread); recovery happens in `open`.
///
/// After an error of any method but [`Wal::read`] the log is dead: every later call fails. What the last batches left on disk is
/// decided by the next `open`.
pub struct Wal {
    segments: Segments,
    index: Index,
    /// The frame being built, header included; reused.
    frame: Vec<u8>,
    records: u32,
    /// Everything before it is synced.
    durable: Position,
    /// The end after [`Self::prepare`] wrote that all before was synced.
    confirmed: Position,
    /// First epoch needed, as of the last release; and as said by the last frame written.
    oldest: u32,
    oldest_written: u32,
    /// Where the active segment's summary ends: a record that does not fit goes to the next segment unless this one is empty.
    summary_end: u32,
    segment_bytes: u64,
    is_dead: bool,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("end", &self.segments.end())
            .field("durable", &self.durable)
            .field("oldest", &self.oldest)
            .field("is_dead", &self.is_dead)
            .finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the folder `wal/`, cuts a torn tail, refuses damage before it (H44), and returns what it holds by replica.
    ///
    /// Everything returned is durable. [`Error::Corrupt`] names segment and position, and the replicas whose records are hit as far
    /// as the damage lets one know. Damage to the last synced batch looks like a torn tail unless something was written after it.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: WalOptions,
    ) -> Result<(Self, Vec<(ReplicaId, Recovered)>)> {
        let segment_bytes = options.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
            return Err(Error::Invalid(format!(
                "log segments of {segment_bytes} bytes: allowed are {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            )));
        }
        // Also makes durable what an earlier process created in it and did not live to sync.
        disk.sync_dir(DIR).map_err(|source| Error::Io {
            what: format!("creating {DIR}"),
            source,
        })?;
        let recovery = recover::recover(disk, options)?;
        let mut wal = Self {
            durable: recovery.segments.end(),
            confirmed: Position::default(),
            oldest: recovery.segments.oldest_epoch(),
            oldest_written: 0,
            segments: recovery.segments,
            index: recovery.index,
            frame: Vec::new(),
            records: 0,
            summary_end: 0,
            segment_bytes,
            is_dead: false,
        };
        codec::begin_frame(&mut wal.frame);
        if recovery.needs_segment {
            wal.roll()?;
        }
        let mut entries = recovery.entries;
        let recovered = wal.index.logs().map(|(replica, log)| {
            let recovered = Recovered {
                state: log.state,
                start: log.start,
                entries: entries.remove(&replica).unwrap_or_default().into(),
            };
            (replica, recovered)
        });
        let recovered = recovered.collect();
        Ok((wal, recovered))
    }

    /// Writes one batch, not yet durable. Rolls to a new segment as needed (which syncs what is before it).
    ///
    /// After a crash without [`Self::sync`], a batch may be there up to any of its records. [`Error::Invalid`]: an entry leaves a
    /// hole, is at or before the start, or has more than [`DATA_BYTES_MAX`].
    pub fn append(&mut self, records: &[WalRecord]) -> Result<()> {
        self.guard(|wal| {
            if records.is_empty() {
                return Ok(());
            }
            wal.put_starts()?;
            for record in records {
                let record = wal.decide(RecordRef::from(record));
                wal.put(record)?;
            }
            wal.write_frame()
        })
    }

    /// Everything appended is durable when this returns. After an error the log is dead.
    pub fn sync(&mut self) -> Result<()> {
        self.guard(|wal| {
            if wal.durable == wal.segments.end() {
                return Ok(());
            }
            wal.sync_active()
        })
    }

    /// The replica no longer needs entries up to `index` (checkpointed and not wanted by a follower); frees whole segments.
    ///
    /// Its log then starts after `index`; the next batch says so on disk. Nothing happens if it starts there or later already, or
    /// if the log does not know the replica. [`Error::Invalid`]: the entry has another term.
    pub fn release(&mut self, replica: ReplicaId, index: LogIndex, term: Term) -> Result<()> {
        self.guard(|wal| {
            wal.index
                .release(replica, index, term)
                .map_err(Error::Invalid)?;
            wal.free();
            Ok(())
        })
    }

    /// One step of work for moments without any: call it when no batch came for a while, and at shutdown, until `false`.
    ///
    /// First it lets an empty frame say that the last batch was synced, so that damage to that batch is told from a torn tail too.
    /// Then, piece by piece, it writes zeros ahead in a file that is not yet at its full length, so that later batches need not.
    ///
    /// A disk that is full or nearly so is no error here: nothing is written, and the answer is `false`.
    pub fn prepare(&mut self) -> Result<bool> {
        self.guard(|wal| {
            let is_unconfirmed = wal.confirmed != wal.segments.end();
            if is_unconfirmed && wal.can_confirm() {
                if wal.durable != wal.segments.end() {
                    wal.sync_active()?;
                }
                // A frame that names a later oldest segment carries what the segments before it said.
                wal.put_starts()?;
                wal.write_any_frame()?;
                wal.confirmed = wal.segments.end();
            } else if !wal.segments.extend()? {
                return Ok(false);
            }
            wal.sync_active()?;
            Ok(true)
        })
    }

    /// Whether the frame of [`Self::prepare`] goes to bytes of the active file that were written before: that needs no space.
    fn can_confirm(&self) -> bool {
        let starts = self.index.unwritten_starts_bytes();
        let frame = (self.frame.len() + starts).next_multiple_of(codec::ALIGN) as u64;
        let is_one_frame = starts <= FRAME_BYTES_MAX;
        is_one_frame && self.fits(starts) && self.segments.is_written_ahead(frame)
    }

    /// Bytes in live segments, and the replicas pinning the oldest one.
    pub fn usage(&self) -> (u64, Vec<ReplicaId>) {
        let oldest = self.segments.oldest_epoch();
        (self.segments.live_bytes(), self.index.pinners(oldest))
    }

    /// Entries `first..=last` of a replica, at most `bytes` of data but at least one entry: for a follower that is behind what memory
    /// holds. Sees what is appended, synced or not. [`Error::Invalid`]: the log does not hold all of them.
    pub fn read(
        &self,
        replica: ReplicaId,
        first: LogIndex,
        last: LogIndex,
        bytes: usize,
    ) -> Result<Vec<(LogIndex, Term, u8, Bytes)>> {
        self.check_alive()?;
        let log = self.index.get(replica);
        let held = log.and_then(|log| Some((log, log.range()?)));
        let Some((log, _)) = held.filter(|(_, held)| held.0 <= first && last <= held.1) else {
            return Err(Error::Invalid(format!(
                "the log does not hold entries {}..={} of replica {}",
                first.0, last.0, replica.0
            )));
        };
        let mut wanted = read::Wanted {
            replica,
            next: first,
            last,
            bytes,
            found: Vec::new(),
        };
        let mut spans = log.spans_from(first).peekable();
        while let (Some(span), false) = (spans.next(), wanted.is_done()) {
            let until = spans.peek().map_or(last.next(), |next| next.first);
            let segment = self.segments.by_epoch(span.place.frame.epoch);
            let segment = segment.ok_or_else(|| Error::Invalid("segment not live".to_owned()))?;
            read::collect(segment, span.place, until, &mut wanted)?;
        }
        Ok(wanted.found)
    }

    /// Runs a step unless the log is dead, and makes it dead if the step fails.
    fn guard<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check_alive()?;
        let result = step(self);
        self.is_dead = result.is_err();
        result
    }

    fn check_alive(&self) -> Result<()> {
        if !self.is_dead {
            return Ok(());
        }
        Err(Error::Io {
            what: format!("using {DIR}"),
            source: std::io::Error::other("the log stopped at an earlier error"),
        })
    }

    /// Starts moved by releases, ahead of everything else: the first frame that names a later oldest segment carries them.
    fn put_starts(&mut self) -> Result<()> {
        let mut starts = Vec::new();
        self.index.take_unwritten_starts(&mut starts);
        starts.into_iter().try_for_each(|start| self.put(start))
    }

    /// Settles what a start means for the entries the log has, so that a replay need not know them.
    fn decide<'a>(&self, mut record: RecordRef<'a>) -> RecordRef<'a> {
        if let What::Start {
            index,
            term,
            is_continuation,
        } = &mut record.what
        {
            *is_continuation = self.index.has(record.replica, *index, *term);
        }
        record
    }

    /// Adds a record to the frame, or to a new one in this or the next segment.
    fn put(&mut self, record: RecordRef<'_>) -> Result<()> {
        if let What::Entry { data, .. } = record.what
            && data.len() > DATA_BYTES_MAX
        {
            return Err(Error::Invalid(format!(
                "an entry of {} bytes: at most {DATA_BYTES_MAX} are allowed",
                data.len()
            )));
        }
        let bytes = record.encoded_bytes();
        if self.frame.len() + bytes > codec::HEADER_BYTES + FRAME_BYTES_MAX {
            self.write_frame()?;
        }
        if !self.fits(bytes) {
            self.write_frame()?;
            self.roll()?;
        }
        let place = Place {
            frame: self.segments.end(),
            skip: (self.frame.len() - codec::HEADER_BYTES) as u32,
        };
        self.index
            .apply(&record, place, OnGap::Refuse)
            .map_err(Error::Invalid)?;
        record.encode(&mut self.frame);
        self.records += 1;
        Ok(())
    }

    fn fits(&self, bytes: usize) -> bool {
        let end = self.segments.end().offset;
        let is_empty = end == self.summary_end && self.records == 0;
        let frame = (self.frame.len() + bytes).next_multiple_of(codec::ALIGN) as u64;
        is_empty || u64::from(end) + frame <= self.segment_bytes
    }

    /// Writes the frame if it has a record.
    fn write_frame(&mut self) -> Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        self.write_any_frame()
    }

    fn write_any_frame(&mut self) -> Result<()> {
        let id = self.segments.active().map_or(0, |segment| segment.id);
        let header = Header::new(id, self.segments.end(), self.durable, self.oldest);
        codec::end_frame(&mut self.frame, 0, self.records, header);
        self.segments.write(&self.frame)?;
        self.oldest_written = self.oldest;
        self.frame.clear();
        self.records = 0;
        codec::begin_frame(&mut self.frame);
        Ok(())
    }

    /// Goes on in the next segment, which begins with a summary of all replicas. Both are synced: a first frame that is not intact
    /// was never followed by anything, and says for certain where the segment before ends.
    fn roll(&mut self) -> Result<()> {
        if self.durable != self.segments.end() {
            self.sync_active()?;
        }
        self.segments.advance()?;
        self.free();
        let mut summary = Vec::new();
        self.index.summary(&mut summary);
        for record in &summary {
            record.encode(&mut self.frame);
        }
        self.records = summary.len() as u32;
        self.write_any_frame()?;
        self.summary_end = self.segments.end().offset;
        self.sync_active()
    }

    fn sync_active(&mut self) -> Result<()> {
        self.segments.sync()?;
        self.durable = self.segments.end();
        self.segments.recycle_before(self.oldest_written)
    }

    /// Gives up the segments without live entries before the first one that has some.
    fn free(&mut self) {
        let active = self.segments.end().epoch;
        self.oldest = self.index.oldest_epoch().unwrap_or(active);
        self.segments.free_before(self.oldest);
    }
}

#[cfg(test)]
mod tests;
