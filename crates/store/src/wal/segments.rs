//! The files of the log: which are in use, which wait to be used again, and how the next one is taken into use.
//!
//! ```text
//!            sync       released by all        a synced frame says so
//! active ──▶ sealed ──────────▶ freed ─────────────────▶ spare ──▶ active, with the next epoch
//!   ▲                                            └ too many ──▶ removed
//!   └── created, if there is no spare
//! ```
//!
//! A freed segment waits until a *durable* frame names a later one as the oldest: were it overwritten before, a crash would
//! find a log that still asks for it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::codec::Position;
use super::{DIR, WalOptions};
use crate::{Disk, Error, File, Result};

/// Zeros written ahead of the log in a file that is not yet at its full length, so that fdatasync has no length to update. Small,
/// because it is done in the way of a batch, and because an empty directory must be ready at once.
const AHEAD_BYTES: u64 = 1024 * 1024;

/// Free space of the disk in bytes below which nothing is written ahead: the rest is for what must be written.
const RESERVE_BYTES: u64 = 16 * AHEAD_BYTES;

/// One file in use.
pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) epoch: u32,
    pub(super) file: Arc<dyn File>,
    /// First byte that is not part of the log.
    pub(super) end: u32,
    /// Length of the file.
    pub(super) len: u64,
}

pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    options: WalOptions,
    /// Ascending epochs without a hole; the last one is active. Bounded by the log budget of the layers above (H43).
    live: VecDeque<Segment>,
    /// (id, epoch), ascending.
    freed: VecDeque<(u32, u32)>,
    /// Ids, the one to use next first. At most [`WalOptions::spare_segments`].
    spares: VecDeque<u32>,
    next_id: u32,
}

impl Segments {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        live: VecDeque<Segment>,
        spares: Vec<u32>,
    ) -> Result<Self> {
        let largest = live
            .iter()
            .map(|s| s.id)
            .chain(spares.iter().copied())
            .max();
        let mut segments = Self {
            disk,
            options,
            live,
            freed: VecDeque::new(),
            spares: VecDeque::new(),
            next_id: largest.unwrap_or(0) + 1,
        };
        for id in spares {
            segments.keep_or_remove(id)?;
        }
        Ok(segments)
    }

    pub(super) fn active(&self) -> Option<&Segment> {
        self.live.back()
    }

    /// Where the next frame goes; [`Position::default`] before there is a segment.
    pub(super) fn end(&self) -> Position {
        self.active().map_or_else(Position::default, |s| Position {
            epoch: s.epoch,
            offset: s.end,
        })
    }

    pub(super) fn by_epoch(&self, epoch: u32) -> Option<&Segment> {
        let oldest = self.live.front()?.epoch;
        self.live.get(epoch.checked_sub(oldest)? as usize)
    }

    /// Bytes of the log in files in use.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live.iter().map(|s| u64::from(s.end)).sum()
    }

    pub(super) fn oldest_epoch(&self) -> u32 {
        self.live.front().map_or(0, |s| s.epoch)
    }

    /// Writes at the end of the log, and zeros after it if the file ends there.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let ahead = self.options.segment_bytes;
        let segment = self.live.back_mut().ok_or_else(no_segment)?;
        let end = u32::try_from(u64::from(segment.end) + bytes.len() as u64)
            .map_err(|_| Error::Invalid("a log segment would exceed 4 GiB".to_owned()))?;
        segment
            .file
            .write_at(u64::from(segment.end), bytes)
            .map_err(|e| io(segment.id, "writing", e))?;
        segment.end = end;
        if u64::from(end) > segment.len {
            segment.len = u64::from(end);
            if segment.len < ahead {
                segment.write_ahead(ahead)?;
            }
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<()> {
        match self.active() {
            Some(segment) => segment
                .file
                .sync()
                .map_err(|e| io(segment.id, "syncing", e)),
            None => Ok(()),
        }
    }

    /// Writes one more piece of zeros ahead of the log; `false` = the active file is at its full length, or space is short.
    pub(super) fn extend(&mut self) -> Result<bool> {
        let ahead = self.options.segment_bytes;
        let has_space = self
            .disk
            .space()
            .is_ok_and(|(free, _)| free >= RESERVE_BYTES);
        match self.live.back_mut() {
            Some(segment) if segment.len < ahead && has_space => segment.write_ahead(ahead),
            _ => Ok(false),
        }
    }

    /// Whether so many bytes at the end of the log lie within the active file.
    pub(super) fn is_written_ahead(&self, bytes: u64) -> bool {
        self.active()
            .is_some_and(|s| u64::from(s.end) + bytes <= s.len)
    }

    /// Takes the next file into use, at its beginning. The old one must be synced.
    pub(super) fn advance(&mut self) -> Result<()> {
        let epoch = self.end().epoch.checked_add(1);
        let epoch =
            epoch.ok_or_else(|| Error::Invalid("the log's epochs are used up".to_owned()))?;
        let (id, is_new) = match self.spares.pop_front() {
            Some(id) => (id, false),
            None => (self.next_id, true),
        };
        let file = self.disk.open(&path(id), is_new);
        let file = file.map_err(|e| io(id, "opening", e))?;
        if is_new {
            self.next_id += 1;
            self.disk
                .sync_dir(DIR)
                .map_err(|e| io(id, "syncing the folder of", e))?;
        }
        let len = file.len().map_err(|e| io(id, "measuring", e))?;
        self.live.push_back(Segment {
            id,
            epoch,
            file,
            end: 0,
            len,
        });
        Ok(())
    }

    /// Nothing before the segment of this epoch is needed any more.
    pub(super) fn free_before(&mut self, epoch: u32) {
        while self.live.len() > 1 && self.oldest_epoch() < epoch {
            self.freed
                .extend(self.live.pop_front().map(|s| (s.id, s.epoch)));
        }
    }

    /// A durable frame says that nothing before this epoch is needed.
    pub(super) fn recycle_before(&mut self, epoch: u32) -> Result<()> {
        while let Some((id, _)) = self.freed.pop_front_if(|(_, freed)| *freed < epoch) {
            self.keep_or_remove(id)?;
        }
        Ok(())
    }

    fn keep_or_remove(&mut self, id: u32) -> Result<()> {
        if self.spares.len() < self.options.spare_segments {
            self.spares.push_back(id);
            return Ok(());
        }
        // Not made durable: should the file come back after a crash, it is a spare again.
        let removed = self.disk.remove(&path(id));
        removed.map_err(|e| io(id, "removing", e))
    }
}

impl Segment {
    /// `false`: the disk is full. That is no harm: what is there of the piece is zeros, and the log goes over it.
    fn write_ahead(&mut self, segment_bytes: u64) -> Result<bool> {
        let bytes = segment_bytes.saturating_sub(self.len).min(AHEAD_BYTES);
        let zeros = vec![0; bytes as usize];
        match self.file.write_at(self.len, &zeros) {
            Ok(()) => self.len += bytes,
            Err(e) if is_full(&e) => return Ok(false),
            Err(e) => return Err(io(self.id, "extending", e)),
        }
        Ok(true)
    }
}

/// A segment's file.
pub(super) fn path(id: u32) -> String {
    format!("{DIR}/{id:010}.seg")
}

/// The id in a file name, if it is a segment's.
pub(super) fn parse_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let id: u32 = digits.parse().ok()?;
    (digits.len() == 10 && id > 0).then_some(id)
}

pub(super) fn io(id: u32, what: &str, source: std::io::Error) -> Error {
    Error::Io {
        what: format!("{what} {}", path(id)),
        source,
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn no_segment() -> Error {
    Error::Invalid("the log has no segment".to_owned())
}
