//! Totals for `/varz` and the bench: one writer each or relaxed adds, never read by decisions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A total.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Everything this node counts.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) in_msgs: Count,
    pub(crate) out_msgs: Count,
    pub(crate) in_bytes: Count,
    pub(crate) out_bytes: Count,
    pub(crate) slow_clients: Count,
    pub(crate) fsyncs: Count,
    /// Messages not pushed because delivery was overloaded.
    pub(crate) undelivered: Count,
    /// Messages appended, and metadata rows that became dirty in the same turns.
    pub(crate) appended: Count,
    pub(crate) rows_beside: Count,
    /// Elapsed times of shard turns: what others wait for, preemption included.
    pub(crate) turns: Turns,
    /// CPU times of the same turns: what they do.
    pub(crate) turns_cpu: Turns,
}

impl Totals {
    pub(crate) fn rows_per_message(&self) -> f64 {
        match self.appended.get() {
            0 => 0.0,
            messages => self.rows_beside.get() as f64 / messages as f64,
        }
    }
}

/// Buckets per power of two.
const STEPS: usize = 4;
/// 2^0 … 2^31 µs.
const BUCKETS: usize = 32 * STEPS;

/// Histogram of shard turn times in µs, four buckets per power of two.
#[derive(Debug)]
pub(crate) struct Turns {
    buckets: [AtomicU64; BUCKETS],
    max: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            max: AtomicU64::new(0),
        }
    }
}

impl Turns {
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Relaxed);
        self.max.fetch_max(us, Relaxed);
    }

    pub(crate) fn max_us(&self) -> u64 {
        self.max.load(Relaxed)
    }

    /// Upper end of the bucket that holds the quantile `per_mille`.
    pub(crate) fn quantile_us(&self, per_mille: u64) -> u64 {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let mut left = total - total * per_mille / 1_000;
        for (at, count) in counts.iter().enumerate().rev() {
            if *count > left {
                return upper(at);
            }
            left -= count;
        }
        0
    }
}

fn bucket(us: u64) -> usize {
    if us < 4 {
        return us as usize;
    }
    let log = 63 - us.leading_zeros() as usize;
    let step = (us >> (log - 2)) as usize & (STEPS - 1);
    (log * STEPS + step - STEPS).min(BUCKETS - 1)
}

fn upper(at: usize) -> u64 {
    if at < 4 {
        return at as u64;
    }
    let (log, step) = ((at + STEPS) / STEPS, (at + STEPS) % STEPS);
    (((STEPS + step + 1) as u64) << (log - 2)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_above_its_buckets_end_and_close_below_it() {
        for us in (0..100).chain([1_000, 4_097, 65_535, 1_000_000]) {
            let end = upper(bucket(us));
            assert!(end >= us && end <= us + us / 4 + 1, "{us} in ..={end}");
        }
    }

    #[test]
    fn the_quantile_finds_the_one_slow_turn_in_a_thousand() {
        let turns = Turns::default();
        for _ in 0..998 {
            turns.record(Duration::from_micros(10));
        }
        turns.record(Duration::from_micros(5_000));
        turns.record(Duration::from_micros(5_000));
        assert!(turns.quantile_us(999) >= 5_000);
        assert!(turns.quantile_us(990) < 20);
        assert_eq!(turns.max_us(), 5_000);
    }
}
