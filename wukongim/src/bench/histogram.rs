//! Latencies in buckets of equal relative width.

/// Buckets per power of two: a value is off by at most 1/64.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB as usize;

/// Counts of nanoseconds, any `u64`.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest, exactly; 0 if there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The smallest value that `per_mille` of 1,000 do not exceed, rounded up to its bucket's end; 0 if there is none.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (self.total * per_mille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_of(i).min(self.max);
            }
        }
        0
    }
}

/// Values below `SUB` have a bucket each; above, the top `SUB_BITS + 1` bits name it.
fn bucket(value: u64) -> usize {
    let shift = (63 - (value | SUB).leading_zeros()) - SUB_BITS;
    (u64::from(shift) * SUB + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / SUB).saturating_sub(1);
    let top = u128::from(bucket - shift * SUB + 1) << shift;
    u64::try_from(top - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_its_bucket() {
        let edges = (0..64).flat_map(|i| [1u64 << i, (1 << i) - 1, (1 << i) + 1]);
        let mut last = 0;
        let mut values: Vec<u64> = edges.chain([u64::MAX, 12_345_678]).collect();
        values.sort_unstable();
        for value in values {
            let at = bucket(value);
            assert!(at >= last && at < BUCKETS);
            last = at;
            assert!(last_of(at) >= value);
            assert!(at == 0 || last_of(at - 1) < value, "{value}");
            assert!(last_of(at) - value <= value / SUB, "{value}");
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let mut ramp = Histogram::default();
        assert_eq!((ramp.quantile(500), ramp.max()), (0, 0));
        for v in 1..=100_000 {
            ramp.add(v);
        }
        for per_mille in [1, 500, 990, 999] {
            let exact = per_mille * 100;
            let got = ramp.quantile(per_mille);
            assert!(
                got >= exact && got <= exact + exact / SUB,
                "{per_mille}: {got}"
            );
        }
        assert_eq!(ramp.quantile(1_000), 100_000);
    }
}
