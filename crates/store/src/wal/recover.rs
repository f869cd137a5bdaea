//! Reading the log at start: which segments belong to it, where it ends, what it holds (H44).
//!
//! ```text
//!   first frame of epoch e+1 is synced before anything follows it, and says where epoch e ends
//!   ───────────────┬──────────────────────────────────────────────────────────────────────────
//!   epoch e        │ epoch e+1 (the newest)
//!   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓│ ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓ ✗ ▓▓▓ … stale bytes
//!                    │                 └ first frame that does not validate: the cut …
//!                    └ largest durable_upto of any valid frame: … unless it is beyond the cut: then this is damage
//! ```
//!
//! Frames beyond the cut were written by the same life of the segment and would validate again if the log grew exactly up to
//! them, so then the log goes on in a fresh segment. Frames of earlier lives carry other epochs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use wk_proto::ReplicaId;

use super::codec::{self, ALIGN, Frame, HEADER_BYTES, Position, RecordRef, What};
use super::index::{Index, OnGap, Place};
use super::segments::{self, Segment, Segments};
use super::{DIR, LogEntry, WalOptions};
use crate::{Disk, Error, File, Result};

/// Replicas named in the text of one error; more are counted.
const NAMED_MAX: usize = 16;

/// The log as found.
pub(super) struct Recovery {
    pub(super) segments: Segments,
    pub(super) index: Index,
    pub(super) entries: BTreeMap<ReplicaId, VecDeque<LogEntry>>,
    /// The log may not go on in its last segment (or has none).
    pub(super) needs_segment: bool,
}

/// One file of the folder.
struct Found {
    id: u32,
    file: Arc<dyn File>,
    len: u64,
    /// Of its first frame, if that is intact.
    first: Option<codec::Header>,
}

/// What the newest segment says.
struct Tail {
    bytes: Vec<u8>,
    /// The cut.
    end: u32,
    /// Everything before it was synced, for certain.
    durable_upto: Position,
    oldest: u32,
    has_frames_beyond: bool,
}

pub(super) fn recover(disk: Arc<dyn Disk>, options: WalOptions) -> Result<Recovery> {
    let found = find(disk.as_ref())?;
    let newest = found
        .iter()
        .filter(|f| f.first.is_some())
        .max_by_key(|f| f.epoch());
    let Some(newest) = newest else {
        check_headless(&found, 0)?;
        let spares = found.iter().map(|f| f.id).collect();
        return Ok(Recovery {
            segments: Segments::new(disk, options, VecDeque::new(), spares)?,
            index: Index::default(),
            entries: BTreeMap::new(),
            needs_segment: true,
        });
    };
    let tail = Tail::read(newest)?;
    check_headless(&found, tail.oldest)?;
    let chain = chain(&found, tail.oldest, newest.epoch())?;
    let (replay, live) = replay(&chain, &tail)?;
    tail.make_durable(newest)?;
    let used: BTreeSet<u32> = live.iter().map(|segment| segment.id).collect();
    let spares = found.iter().map(|f| f.id).filter(|id| !used.contains(id));
    Ok(Recovery {
        segments: Segments::new(disk, options, live, spares.collect())?,
        index: replay.index,
        entries: replay.entries,
        needs_segment: tail.has_frames_beyond,
    })
}

/// Reads the whole log, oldest segment first. Changes nothing on disk.
fn replay(chain: &[&Found], tail: &Tail) -> Result<(Replay, VecDeque<Segment>)> {
    let mut replay = Replay::default();
    let mut live = VecDeque::new();
    for (n, segment) in chain.iter().enumerate() {
        let end = match chain.get(n + 1).and_then(|next| next.first) {
            Some(next) => {
                let end = end_of(segment, next.durable_upto)?;
                replay.segment(segment, &segment.load(u64::from(end))?, end)?;
                end
            }
            None => {
                replay.segment(segment, &tail.bytes, tail.end)?;
                tail.end
            }
        };
        live.push_back(segment.in_use(end));
    }
    replay.check()?;
    Ok((replay, live))
}

/// Opens every segment file and reads its first frame.
fn find(disk: &dyn Disk) -> Result<Vec<Found>> {
    let names = disk.list(DIR).map_err(|source| Error::Io {
        what: format!("listing {DIR}"),
        source,
    })?;
    let mut found = Vec::new();
    for id in names.iter().filter_map(|name| segments::parse_name(name)) {
        let file = disk.open(&segments::path(id), false);
        let file = file.map_err(|e| segments::io(id, "opening", e))?;
        let len = file.len().map_err(|e| segments::io(id, "measuring", e))?;
        let mut segment = Found {
            id,
            file,
            len,
            first: None,
        };
        segment.first = segment.first_frame()?;
        found.push(segment);
    }
    Ok(found)
}

/// A file whose first frame is not intact is one that was about to be taken into use, unless the log needs what else is in it.
fn check_headless(found: &[Found], oldest: u32) -> Result<()> {
    for segment in found.iter().filter(|f| f.first.is_none()) {
        let bytes = segment.load(segment.len)?;
        if frames_beyond(segment.id, &bytes, 0).any(|frame| frame.header.at.epoch >= oldest.max(1))
        {
            return Err(damaged(segment.id, 0, &bytes));
        }
    }
    Ok(())
}

/// The segments of these epochs, each exactly once.
fn chain(found: &[Found], oldest: u32, newest: u32) -> Result<Vec<&Found>> {
    let mut by_epoch: BTreeMap<u32, &Found> = BTreeMap::new();
    for segment in found
        .iter()
        .filter(|f| f.first.is_some() && f.epoch() >= oldest)
    {
        if let Some(other) = by_epoch.insert(segment.epoch(), segment) {
            let why = format!(
                "{} says it is the same part of the log",
                segments::path(other.id)
            );
            return Err(corrupt(segments::path(segment.id), why));
        }
    }
    for epoch in oldest..=newest {
        if !by_epoch.contains_key(&epoch) {
            let why = format!(
                "part {epoch} of {oldest}..={newest} is missing or its beginning is damaged"
            );
            return Err(corrupt(DIR.to_owned(), why));
        }
    }
    Ok(by_epoch.into_values().collect())
}

/// Where a segment ends, as said by the first frame of the next one.
fn end_of(segment: &Found, end: Position) -> Result<u32> {
    if end.epoch != segment.epoch() || u64::from(end.offset) > segment.len {
        let why = format!(
            "the next one says it ends at {}, it has {}",
            end.offset, segment.len
        );
        return Err(corrupt(segments::path(segment.id), why));
    }
    Ok(end.offset)
}

impl Found {
    fn epoch(&self) -> u32 {
        self.first.map_or(0, |header| header.at.epoch)
    }

    fn load(&self, bytes: u64) -> Result<Vec<u8>> {
        let mut buf = vec![0; bytes.min(self.len) as usize];
        let read = self.file.read_at(0, &mut buf);
        read.map_err(|e| segments::io(self.id, "reading", e))?;
        Ok(buf)
    }

    fn first_frame(&self) -> Result<Option<codec::Header>> {
        let head = self.load(HEADER_BYTES as u64)?;
        let Some(header) = codec::decode_header(&head) else {
            return Ok(None);
        };
        let bytes = self.load(header.frame_bytes() as u64)?;
        Ok(frame_at(self.id, &bytes, 0).map(|frame| frame.header))
    }

    fn in_use(&self, end: u32) -> Segment {
        Segment {
            id: self.id,
            epoch: self.epoch(),
            file: self.file.clone(),
            end,
            len: self.len,
        }
    }
}

impl Tail {
    fn read(newest: &Found) -> Result<Self> {
        let bytes = newest.load(newest.len)?;
        let mut tail = Self {
            bytes: Vec::new(),
            end: 0,
            durable_upto: Position::default(),
            oldest: 0,
            has_frames_beyond: false,
        };
        let epoch = newest.epoch();
        let is_of_log = |frame: &Frame<'_>| frame.header.at.epoch == epoch;
        while let Some(frame) = frame_at(newest.id, &bytes, tail.end as usize).filter(is_of_log) {
            tail.end = frame.header.end().offset;
            tail.oldest = frame.header.oldest;
            tail.durable_upto = tail.durable_upto.max(frame.header.durable_upto);
        }
        let mut durable_upto = tail.durable_upto;
        for frame in frames_beyond(newest.id, &bytes, tail.end as usize).filter(is_of_log) {
            tail.has_frames_beyond = true;
            durable_upto = durable_upto.max(frame.header.durable_upto);
        }
        let end = Position {
            epoch,
            offset: tail.end,
        };
        if durable_upto > end {
            return Err(damaged(newest.id, tail.end as usize, &bytes));
        }
        tail.bytes = bytes;
        Ok(tail)
    }

    /// Part of what was read may never have been synced, or (its sync failed, the process died) may be in memory alone though the
    /// system thinks otherwise. Written and synced again, it is certain.
    fn make_durable(&self, newest: &Found) -> Result<()> {
        let from = match self.durable_upto {
            at if at.epoch == newest.epoch() => at.offset,
            _ => 0,
        };
        if from < self.end {
            let bytes = &self.bytes[from as usize..self.end as usize];
            let written = newest.file.write_at(u64::from(from), bytes);
            written.map_err(|e| segments::io(newest.id, "rewriting", e))?;
        }
        let synced = newest.file.sync();
        synced.map_err(|e| segments::io(newest.id, "syncing", e))
    }
}

/// Puts the records of the log together again.
#[derive(Default)]
struct Replay {
    index: Index,
    entries: BTreeMap<ReplicaId, VecDeque<LogEntry>>,
}

impl Replay {
    /// All frames of a segment up to `end`; each must be intact.
    fn segment(&mut self, segment: &Found, bytes: &[u8], end: u32) -> Result<()> {
        let bytes = bytes.get(..end as usize).unwrap_or(bytes);
        let mut at = 0;
        while at < end as usize {
            let frame = frame_at(segment.id, bytes, at)
                .filter(|frame| frame.header.at.epoch == segment.epoch())
                .ok_or_else(|| damaged(segment.id, at, bytes))?;
            self.frame(segment.id, &frame)?;
            at += frame.header.frame_bytes();
        }
        Ok(())
    }

    fn frame(&mut self, id: u32, frame: &Frame<'_>) -> Result<()> {
        let mut records = 0;
        for (skip, record) in frame.records(0) {
            let place = Place {
                frame: frame.header.at,
                skip,
            };
            self.record(&record, place)
                .map_err(|why| corrupt(place_name(id, frame.header.at.offset as usize), why))?;
            records += 1;
        }
        if records != frame.header.records {
            let why = format!("{records} records, it says {}", frame.header.records);
            return Err(corrupt(
                place_name(id, frame.header.at.offset as usize),
                why,
            ));
        }
        Ok(())
    }

    fn record(&mut self, record: &RecordRef<'_>, place: Place) -> Result<(), String> {
        self.index.apply(record, place, OnGap::Restart)?;
        let Some(log) = self.index.get(record.replica) else {
            self.entries.remove(&record.replica);
            return Ok(());
        };
        let entries = self.entries.entry(record.replica).or_default();
        if let What::Entry {
            term,
            index,
            kind,
            data,
        } = record.what
        {
            while entries.pop_back_if(|e| e.0 >= index).is_some() {}
            if entries.back().is_some_and(|e| e.0.next() != index) {
                entries.clear();
            }
            entries.push_back(codec::entry(index, term, kind, data));
        }
        match log.range() {
            Some((first, _)) => while entries.pop_front_if(|e| e.0 < first).is_some() {},
            None => entries.clear(),
        }
        Ok(())
    }

    /// Holes are met while replaying, but none is left at the end.
    fn check(&self) -> Result<()> {
        for (replica, log) in self.index.logs() {
            let range = self
                .entries
                .get(&replica)
                .and_then(|e| Some((e.front()?.0, e.back()?.0)));
            if !log.is_contiguous() || log.range() != range {
                let why = format!("the entries of replica {} have a hole", replica.0);
                return Err(corrupt(DIR.to_owned(), why));
            }
        }
        Ok(())
    }
}

/// The intact frame at this place of a segment's bytes, of whichever epoch.
fn frame_at(id: u32, bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let frame = Frame::decode(bytes.get(at..)?)?;
    let header = &frame.header;
    let is_here = header.segment == id && header.at.offset as usize == at;
    (is_here && frame.is_intact).then_some(frame)
}

/// Intact frames anywhere from `at` on.
fn frames_beyond(id: u32, bytes: &[u8], at: usize) -> impl Iterator<Item = Frame<'_>> {
    let places = (at.next_multiple_of(ALIGN)..bytes.len()).step_by(ALIGN);
    places.filter_map(move |at| frame_at(id, bytes, at))
}

/// The error for a place that must be intact and is not.
fn damaged(id: u32, at: usize, bytes: &[u8]) -> Error {
    let why = match bytes.get(at..).and_then(Frame::decode) {
        Some(frame) if frame.header.segment == id => {
            format!(
                "its records fail their checksum; they are of {}",
                replicas_of(&frame)
            )
        }
        _ => "its header fails its checksum; its records may be of every replica".to_owned(),
    };
    corrupt(place_name(id, at), why)
}

/// As far as it can be told from damaged bytes.
fn replicas_of(frame: &Frame<'_>) -> String {
    let ids: BTreeSet<u64> = frame.records(0).map(|(_, r)| r.replica.0).collect();
    let named: Vec<String> = ids.iter().take(NAMED_MAX).map(u64::to_string).collect();
    match ids.len() {
        n if n <= NAMED_MAX => format!("replicas {}", named.join(", ")),
        n => format!("replicas {} and {} more", named.join(", "), n - NAMED_MAX),
    }
}

pub(super) fn place_name(id: u32, at: usize) -> String {
    format!("{} at {at}", segments::path(id))
}

pub(super) fn corrupt(what: String, why: String) -> Error {
    Error::Corrupt { what, why }
}
