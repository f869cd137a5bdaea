//! Sorted tables of fixed-size entries in checked pages, and the filter before one of them.

use bytes::{Bytes, BytesMut};

use super::format::{corrupt, io, u32_at, u64_at};
use crate::{File, Result};

/// One fact: under (`key`, `sub`) there is a message with `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fact {
    pub(super) key: u64,
    pub(super) sub: u32,
    pub(super) seq: u64,
}

const FACT_LEN: usize = 20;
/// Facts and their crc32c on one page.
const PAGE_FACTS: usize = (4096 - 4) / FACT_LEN;
const PAGE_LEN: usize = PAGE_FACTS * FACT_LEN + 4;
/// Key u64, sub u32 of a page's first fact.
const FENCE_LEN: usize = 12;

/// Bits of a filter per key, rounded up to whole 64-byte lines: about 1 % false answers.
const FILTER_BITS: usize = 10;
const FILTER_PROBES: u32 = 6;
const LINE: usize = 64;

fn pages(facts: usize) -> usize {
    facts.div_ceil(PAGE_FACTS)
}

/// Length of the fences of a table.
pub(super) fn fences_len(facts: usize) -> usize {
    pages(facts) * FENCE_LEN
}

/// Pages and fences of sorted facts.
pub(super) fn encode(facts: &[Fact]) -> (Vec<u8>, Vec<u8>) {
    debug_assert!(facts.is_sorted());
    let mut out = Vec::with_capacity(pages(facts.len()) * PAGE_LEN);
    let mut fences = Vec::with_capacity(fences_len(facts.len()));
    for page in facts.chunks(PAGE_FACTS) {
        fences.extend_from_slice(&page[0].key.to_le_bytes());
        fences.extend_from_slice(&page[0].sub.to_le_bytes());
        let start = out.len();
        for fact in page {
            out.extend_from_slice(&fact.key.to_le_bytes());
            out.extend_from_slice(&fact.sub.to_le_bytes());
            out.extend_from_slice(&fact.seq.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
    (out, fences)
}

/// A table in a file.
pub(super) struct Table {
    pub(super) at: u64,
    pub(super) facts: usize,
    pub(super) fences: Bytes,
}

/// One page in memory.
struct Page(Bytes);

impl Page {
    fn len(&self) -> usize {
        self.0.len() / FACT_LEN
    }

    fn get(&self, n: usize) -> Fact {
        let at = n * FACT_LEN;
        Fact {
            key: u64_at(&self.0, at),
            sub: u32_at(&self.0, at + 8),
            seq: u64_at(&self.0, at + 12),
        }
    }

    /// How many facts come before the first for which `before` is false.
    fn partition_point(&self, before: impl Fn(Fact) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if before(self.get(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl Table {
    fn page(&self, path: &str, file: &dyn File, n: usize) -> Result<Page> {
        let facts = PAGE_FACTS.min(self.facts - n * PAGE_FACTS);
        let at = self.at + (n * PAGE_LEN) as u64;
        let mut bytes = BytesMut::zeroed(facts * FACT_LEN + 4);
        io(file.read_at(at, &mut bytes), "read", path)?;
        let content = bytes.split_to(facts * FACT_LEN).freeze();
        if crc32c::crc32c(&content) != u32_at(&bytes, 0) {
            return Err(corrupt(path, at, "checksum of an index page"));
        }
        Ok(Page(content))
    }

    /// The last page whose first fact is before (`key`, `sub`): what is looked for starts there or on the next.
    fn page_before(&self, key: u64, sub: u32) -> usize {
        let (mut low, mut high) = (0, pages(self.facts));
        while low < high {
            let middle = (low + high) / 2;
            let at = middle * FENCE_LEN;
            if (u64_at(&self.fences, at), u32_at(&self.fences, at + 8)) < (key, sub) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.saturating_sub(1)
    }

    /// The last page whose first fact is not after (`key`, `sub`).
    fn page_upto(&self, key: u64, sub: u32) -> usize {
        match sub.checked_add(1) {
            Some(sub) => self.page_before(key, sub),
            None => self.page_before(key.saturating_add(1), 0),
        }
    }

    /// Facts from (`key`, `sub`) on, ascending, until `visit` says `false`.
    pub(super) fn ascend(
        &self,
        path: &str,
        file: &dyn File,
        (key, sub): (u64, u32),
        mut visit: impl FnMut(Fact) -> Result<bool>,
    ) -> Result<()> {
        for n in self.page_before(key, sub)..pages(self.facts) {
            let page = self.page(path, file, n)?;
            for i in page.partition_point(|f| (f.key, f.sub) < (key, sub))..page.len() {
                if !visit(page.get(i))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Facts of exactly (`key`, `sub`), largest seq first, until `visit` says `false`.
    pub(super) fn descend(
        &self,
        path: &str,
        file: &dyn File,
        (key, sub): (u64, u32),
        mut visit: impl FnMut(u64) -> Result<bool>,
    ) -> Result<()> {
        if self.facts == 0 {
            return Ok(());
        }
        for n in (0..=self.page_upto(key, sub)).rev() {
            let page = self.page(path, file, n)?;
            let end = page.partition_point(|f| (f.key, f.sub) <= (key, sub));
            for i in (0..end).rev() {
                let fact = page.get(i);
                if (fact.key, fact.sub) != (key, sub) || !visit(fact.seq)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A blocked Bloom filter: one cache line per question.
pub(super) fn encode_filter(keys: &[u64]) -> Vec<u8> {
    if keys.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![0u8; (keys.len() * FILTER_BITS).div_ceil(LINE * 8) * LINE];
    let n = lines.len() / LINE;
    for &key in keys {
        let line = &mut lines[filter_line(key, n) * LINE..][..LINE];
        for bit in filter_bits(key) {
            line[bit / 8] |= 1 << (bit % 8);
        }
    }
    lines
}

/// Whether the key may be there.
pub(super) fn filter_has(lines: &[u8], key: u64) -> bool {
    let n = lines.len() / LINE;
    if n == 0 {
        return false;
    }
    let line = &lines[filter_line(key, n) * LINE..][..LINE];
    filter_bits(key).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
}

fn filter_line(key: u64, lines: usize) -> usize {
    ((u128::from(key) * lines as u128) >> 64) as usize
}

fn filter_bits(key: u64) -> impl Iterator<Item = usize> {
    let mixed = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..FILTER_PROBES).map(move |i| (mixed >> (10 + 9 * i)) as usize % (LINE * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_knows_its_keys_and_few_others() {
        let key = |i: u64| crate::hash::text_hash(&i.to_string(), 0);
        let keys: Vec<u64> = (0..10_000).map(key).collect();
        let filter = encode_filter(&keys);
        assert!(keys.iter().all(|&k| filter_has(&filter, k)));
        let wrong = (10_000..20_000)
            .filter(|&i| filter_has(&filter, key(i)))
            .count();
        assert!(wrong < 300, "{wrong} false answers in 10,000");
    }
}
