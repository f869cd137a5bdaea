//! One file's bytes twice: as read now, and as the medium has them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::Dice;

/// Unit of copying: a page is shared between both pictures until it is written again.
const PAGE_BYTES: usize = 4096;
/// Unit of survival.
const SECTOR_BYTES: usize = 512;
const SECTORS: usize = PAGE_BYTES / SECTOR_BYTES;
const _: () = assert!(SECTORS == 8, "a page's sectors fit the bits of a u8");

type Page = [u8; PAGE_BYTES];

static ZEROS: Page = [0; PAGE_BYTES];

/// Pages of a file; `None` = zeros.
#[derive(Clone, Debug, Default)]
struct Picture {
    pages: Vec<Option<Arc<Page>>>,
    len: u64,
}

#[derive(Debug, Default)]
pub(super) struct Content {
    now: Picture,
    durable: Picture,
    /// Unsynced sectors, a bit each, by page.
    dirty: BTreeMap<usize, u8>,
    /// Sectors whose sync failed: no later sync keeps them, a crash may.
    lost: BTreeMap<usize, u8>,
    /// Shortest length since the last sync, if the file was cut.
    cut_to: Option<u64>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.now.len
    }

    pub(super) fn read(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.now.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, from, part) in parts(at, buf.len()) {
            let bytes = self.now.page(page);
            let len = part.len();
            buf[part].copy_from_slice(&bytes[from..from + len]);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, at: u64, buf: &[u8]) {
        if buf.is_empty() {
            return;
        }
        self.grow(at + buf.len() as u64);
        for (page, from, part) in parts(at, buf.len()) {
            self.now.put(page, from, &buf[part.clone()]);
            self.touch(page, sectors(from, part.len()));
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.now.len {
            self.now.cut(len);
            self.cut_to = Some(self.cut_to.map_or(len, |low| low.min(len)));
        } else {
            self.grow(len);
        }
    }

    pub(super) fn sync(&mut self) {
        if let Some(low) = self.cut_to.take()
            && low < self.durable.len
        {
            self.durable.cut(low);
        }
        self.durable.grow(self.now.len);
        for page in std::mem::take(&mut self.dirty).into_keys() {
            let lost = self.lost.get(&page).copied().unwrap_or(0);
            if page >= self.now.pages.len() {
                continue;
            }
            if lost == 0 {
                self.durable.pages[page] = self.now.pages[page].clone();
            } else {
                let bytes = *self.now.page(page);
                self.durable.put_sectors(page, &bytes, !lost);
            }
        }
        self.durable.cut(self.now.len);
    }

    pub(super) fn sync_failed(&mut self) {
        for (page, mask) in std::mem::take(&mut self.dirty) {
            *self.lost.entry(page).or_default() |= mask;
        }
    }

    pub(super) fn flip_bit(&mut self, bit: u64) -> io::Result<()> {
        let (at, mask) = (bit / 8, 1 << (bit % 8));
        if at >= self.now.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.now.flip(at, mask);
        if at < self.durable.len {
            self.durable.flip(at, mask);
        }
        Ok(())
    }

    /// The content as found after a power loss.
    pub(super) fn survivor(&self, dice: &mut Dice) -> Self {
        let chance = dice.chance();
        let mut picture = self.durable.clone();
        let low = self.cut_to.unwrap_or(u64::MAX);
        if low < picture.len && dice.one_in(2) {
            picture.cut(low);
        }
        let grown = self.now.len.saturating_sub(picture.len);
        let len = picture.len
            + match chance {
                0 => 0,
                256 => grown,
                _ => dice.below(grown + 1),
            };
        picture.resize(self.now.pages.len());
        for (&page, &mask) in self.dirty.iter().chain(&self.lost) {
            let kept = (0..SECTORS).filter(|_| dice.hit(chance));
            let kept = kept.fold(0u8, |bits, sector| bits | 1 << sector) & mask;
            if kept != 0 && page < picture.pages.len() {
                let bytes = *self.now.page(page);
                picture.put_sectors(page, &bytes, kept);
            }
        }
        picture.cut(len);
        Self {
            durable: picture.clone(),
            now: picture,
            ..Self::default()
        }
    }

    fn grow(&mut self, len: u64) {
        let old = self.now.len;
        self.now.grow(len);
        // A file cut and grown again reads as zeros where the medium still has the old bytes: those sectors are unsynced too.
        if self.cut_to.is_some() && old < self.durable.len && old < len {
            let end = len.min(self.durable.len);
            for (page, from, part) in parts(old, (end - old) as usize) {
                self.touch(page, sectors(from, part.len()));
            }
        }
    }

    fn touch(&mut self, page: usize, mask: u8) {
        *self.dirty.entry(page).or_default() |= mask;
        // Written again after a failed sync: a later sync counts again.
        if let Some(lost) = self.lost.get_mut(&page) {
            *lost &= !mask;
        }
    }
}

impl Picture {
    fn page(&self, page: usize) -> &Page {
        match self.pages.get(page) {
            Some(Some(bytes)) => bytes,
            _ => &ZEROS,
        }
    }

    fn page_mut(&mut self, page: usize) -> &mut Page {
        Arc::make_mut(self.pages[page].get_or_insert_with(|| Arc::new(ZEROS)))
    }

    /// At least `count` pages.
    fn resize(&mut self, count: usize) {
        if count > self.pages.len() {
            self.pages.resize(count, None);
        }
    }

    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
        self.resize(pages(self.len));
    }

    fn put(&mut self, page: usize, from: usize, bytes: &[u8]) {
        if bytes.len() == PAGE_BYTES && bytes == ZEROS {
            self.pages[page] = None;
        } else {
            self.page_mut(page)[from..from + bytes.len()].copy_from_slice(bytes);
        }
    }

    fn put_sectors(&mut self, page: usize, bytes: &Page, mask: u8) {
        for sector in (0..SECTORS).filter(|sector| mask & 1 << sector != 0) {
            let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            self.put(page, range.start, &bytes[range]);
        }
    }

    fn flip(&mut self, at: u64, mask: u8) {
        let (page, from) = ((at / PAGE_BYTES as u64) as usize, at % PAGE_BYTES as u64);
        self.page_mut(page)[from as usize] ^= mask;
    }

    /// Sets the length; bytes beyond it become zeros.
    fn cut(&mut self, len: u64) {
        self.len = len;
        self.pages.resize(pages(len), None);
        let tail = (len % PAGE_BYTES as u64) as usize;
        if tail > 0 {
            self.put(pages(len) - 1, tail, &ZEROS[tail..]);
        }
    }
}

fn pages(len: u64) -> usize {
    len.div_ceil(PAGE_BYTES as u64) as usize
}

/// The bits of the sectors that `len` > 0 bytes from `from` of a page touch.
fn sectors(from: usize, len: usize) -> u8 {
    let (first, last) = (from / SECTOR_BYTES, (from + len - 1) / SECTOR_BYTES);
    (first..=last).fold(0, |bits, sector| bits | 1 << sector)
}

/// Cuts `len` bytes at `at` into pieces of one page: (page, offset in it, range of the buffer).
fn parts(at: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = at + done as u64;
        let from = (position % PAGE_BYTES as u64) as usize;
        let part = done..len.min(done + PAGE_BYTES - from);
        done = part.end;
        Some(((position / PAGE_BYTES as u64) as usize, from, part))
    })
}
