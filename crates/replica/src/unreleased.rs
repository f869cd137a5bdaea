//! How many bytes of a group's log the WAL holds: what its budget is about (H43).

use std::collections::VecDeque;

/// Bytes between two marks: the answer is never too low, and too high by less than this.
const STEP_BYTES: u64 = 1024 * 1024;

/// Counts what is written and what is released. Marks are as many as the budget has steps, for beyond it everything is released.
#[derive(Debug, Default)]
pub(crate) struct Unreleased {
    written: u64,
    released: u64,
    /// (index, bytes written up to it), ascending.
    marks: VecDeque<(u64, u64)>,
}

impl Unreleased {
    /// An entry was written; it replaces what was at its index and after. (What is replaced goes on counting: it is in the WAL.)
    pub(crate) fn write(&mut self, index: u64, bytes: usize) {
        while self.marks.back().is_some_and(|mark| mark.0 >= index) {
            self.marks.pop_back();
        }
        self.written += bytes as u64;
        let last = self.marks.back().map_or(self.released, |mark| mark.1);
        if self.written - last >= STEP_BYTES {
            self.marks.push_back((index, self.written));
        }
    }

    /// Everything up to `index` was released.
    pub(crate) fn release(&mut self, index: u64) {
        while let Some((_, bytes)) = self.marks.pop_front_if(|mark| mark.0 <= index) {
            self.released = bytes;
        }
    }

    /// Bytes written and not released.
    pub(crate) fn bytes(&self) -> u64 {
        self.written - self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: usize = STEP_BYTES as usize / 2;

    #[test]
    fn what_is_released_does_not_count_although_the_log_is_never_empty() {
        let mut unreleased = Unreleased::default();
        for index in 1..=1_000 {
            unreleased.write(index, HALF);
            unreleased.release(index.saturating_sub(2));
            assert!(unreleased.bytes() <= 3 * STEP_BYTES, "at {index}");
        }
        assert!(unreleased.bytes() >= STEP_BYTES, "two entries are there");
    }

    #[test]
    fn without_a_release_everything_counts_also_what_was_replaced() {
        let mut unreleased = Unreleased::default();
        for _ in 0..2 {
            for index in 1..=10 {
                unreleased.write(index, HALF);
            }
        }
        assert_eq!(unreleased.bytes(), 10 * STEP_BYTES);
        unreleased.release(10);
        assert!(unreleased.bytes() < STEP_BYTES);
    }
}
