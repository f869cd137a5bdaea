//! Walking the frames of one segment on behalf of [`super::Wal::read`].

use wk_proto::{LogIndex, ReplicaId};

use super::LogEntry;
use super::codec::{self, Frame, What};
use super::index::Place;
use super::recover::{corrupt, place_name};
use super::segments::{self, Segment};
use crate::Result;

/// Bytes read at once; more only for a single larger frame.
const WINDOW_BYTES: usize = 128 * 1024;

/// Which entries, and how many bytes of them; counts down.
pub(super) struct Wanted {
    pub(super) replica: ReplicaId,
    pub(super) next: LogIndex,
    pub(super) last: LogIndex,
    pub(super) bytes: usize,
    pub(super) found: Vec<LogEntry>,
}

impl Wanted {
    pub(super) fn is_done(&self) -> bool {
        self.next > self.last || (self.bytes == 0 && !self.found.is_empty())
    }

    /// Takes the record if it is the next entry. One that does not fit ends the read, unless it is the first.
    fn take(&mut self, replica: ReplicaId, what: What<'_>) {
        let What::Entry {
            term,
            index,
            kind,
            data,
        } = what
        else {
            return;
        };
        if replica != self.replica || index != self.next || self.is_done() {
            return;
        }
        if data.len() > self.bytes && !self.found.is_empty() {
            self.bytes = 0;
            return;
        }
        self.bytes = self.bytes.saturating_sub(data.len());
        self.found.push(codec::entry(index, term, kind, data));
        self.next = index.next();
    }
}

/// Collects entries from `place` on, up to and excluding index `until`.
pub(super) fn collect(
    segment: &Segment,
    place: Place,
    until: LogIndex,
    wanted: &mut Wanted,
) -> Result<()> {
    let mut window = Window {
        segment,
        start: place.frame.offset,
        bytes: Vec::new(),
    };
    let mut at = place.frame.offset;
    let mut skip = place.skip;
    while wanted.next < until && !wanted.is_done() {
        let frame = window.frame(at)?;
        for (_, record) in frame.records(std::mem::take(&mut skip)) {
            if wanted.next < until {
                wanted.take(record.replica, record.what);
            }
        }
        at = frame.header.end().offset;
    }
    Ok(())
}

/// A part of a segment in memory.
struct Window<'a> {
    segment: &'a Segment,
    start: u32,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The frame at `at` ≥ the last one asked for.
    fn frame(&mut self, at: u32) -> Result<Frame<'_>> {
        let (id, epoch) = (self.segment.id, self.segment.epoch);
        if !self.holds_frame(at) {
            self.load(at, WINDOW_BYTES)?;
            if let Some(header) = codec::decode_header(&self.bytes) {
                self.load(at, WINDOW_BYTES.max(header.frame_bytes()))?;
            }
        }
        let frame = self.bytes.get((at - self.start) as usize..);
        let frame = frame.and_then(Frame::decode);
        let is_here = |f: &Frame<'_>| {
            f.is_intact
                && f.header.segment == id
                && f.header.at.epoch == epoch
                && f.header.at.offset == at
        };
        frame.filter(is_here).ok_or_else(|| {
            let why = "no intact batch where one was written".to_owned();
            corrupt(place_name(id, at as usize), why)
        })
    }

    fn holds_frame(&self, at: u32) -> bool {
        let rest = self.bytes.get((at - self.start) as usize..).unwrap_or(&[]);
        codec::decode_header(rest).is_some_and(|header| header.frame_bytes() <= rest.len())
    }

    /// Makes the window hold `len` bytes from `at`, or up to the end of the log if that is nearer.
    fn load(&mut self, at: u32, len: usize) -> Result<()> {
        let len = len.min(self.segment.end.saturating_sub(at) as usize);
        if self.start == at && self.bytes.len() == len {
            return Ok(());
        }
        self.start = at;
        self.bytes.resize(len, 0);
        let read = self.segment.file.read_at(u64::from(at), &mut self.bytes);
        read.map_err(|e| segments::io(self.segment.id, "reading", e))
    }
}
