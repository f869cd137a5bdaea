//! Message ids (H14, H15): unique in the cluster, strictly increasing per slot in log order.
//!
//! ```text
//!  63        22            12          0
//!  | 0 | ms since 2010-11-04 | worker | n |      worker = the node's number, n = this shard's part of 4,096
//! ```
//!
//! Ids are handed out in ranges of one batch; a range never runs over into the worker bits, it moves on to the next millisecond.

use wk_proto::{MessageId, WallMs};

/// First millisecond an id can name: Twitter's epoch, as v2 has it.
const EPOCH_MS: u64 = 1_288_834_974_657;
const WORKER_BITS: u32 = 10;
const NUMBER_BITS: u32 = 12;
const TIME_SHIFT: u32 = WORKER_BITS + NUMBER_BITS;

/// Hands out ranges of ids; one per shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    worker: u64,
    /// This shard's numbers of each millisecond: `first..end`.
    first: u64,
    end: u64,
    last: u64,
}

impl Ids {
    /// `worker` is taken modulo 1,024; `shard` of `shards` (1..=4,096) is this one's part of the node.
    pub(crate) fn new(worker: u32, shard: u16, shards: u16) -> Self {
        let shards = u64::from(shards.clamp(1, 1 << NUMBER_BITS));
        let room = (1 << NUMBER_BITS) / shards;
        let first = room * (u64::from(shard) % shards);
        Self {
            worker: u64::from(worker) & ((1 << WORKER_BITS) - 1),
            first,
            end: first + room,
            last: 0,
        }
    }

    /// An id that is in a log of this node: no later one of ours may be smaller, in whichever group and however late the clock is
    /// after a restart.
    pub(crate) fn raise(&mut self, id: MessageId) {
        let id = u64::try_from(id.0).unwrap_or(0);
        if (id >> NUMBER_BITS) & ((1 << WORKER_BITS) - 1) == self.worker {
            self.last = self.last.max(id);
        }
    }

    /// Most ids of one range.
    pub(crate) fn range_max(&self) -> usize {
        (self.end - self.first) as usize
    }

    /// First id of a range of `count` ≤ [`Self::range_max`] ids, all larger than `floor` and than any id handed out before.
    pub(crate) fn reserve(&mut self, wall: WallMs, floor: MessageId, count: usize) -> MessageId {
        let after = self.last.max(u64::try_from(floor.0).unwrap_or(0));
        let mut ms = wall.0.saturating_sub(EPOCH_MS).max(after >> TIME_SHIFT);
        let mut start = self.at(ms, self.first);
        if start <= after {
            let next = after + 1;
            let ours = next >> NUMBER_BITS == start >> NUMBER_BITS
                && (next & ((1 << NUMBER_BITS) - 1)) + count as u64 <= self.end;
            if ours {
                start = next;
            } else {
                ms += 1;
                start = self.at(ms, self.first);
            }
        }
        self.last = start + count as u64 - 1;
        MessageId(start as i64)
    }

    fn at(&self, ms: u64, number: u64) -> u64 {
        (ms << TIME_SHIFT) | (self.worker << NUMBER_BITS) | number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMs = WallMs(1_700_000_000_000);

    fn worker(id: i64) -> i64 {
        (id >> NUMBER_BITS) & 0x3ff
    }

    #[test]
    fn ranges_ascend_and_never_leave_their_worker() {
        let mut ids = Ids::new(5, 0, 1);
        let mut last = 0;
        for _ in 0..100 {
            let first = ids.reserve(NOW, MessageId(0), 256).0;
            assert!(first > last);
            last = first + 255;
            assert_eq!((worker(first), worker(last)), (5, 5));
        }
        let late = ids.reserve(WallMs(NOW.0 + 60_000), MessageId(0), 1).0;
        assert!(
            late - last > 50_000 << TIME_SHIFT,
            "follows the clock again"
        );
    }

    #[test]
    fn a_clock_that_goes_back_does_not_matter() {
        let mut ids = Ids::new(1, 0, 1);
        let first = ids.reserve(NOW, MessageId(0), 10).0;
        assert!(ids.reserve(WallMs(0), MessageId(0), 10).0 >= first + 10);
    }

    #[test]
    fn a_restart_with_a_late_clock_goes_on_after_what_the_logs_hold() {
        let mut ids = Ids::new(1, 0, 1);
        let used = ids.reserve(NOW, MessageId(0), 10).0 + 9;
        let mut ids = Ids::new(1, 0, 1);
        ids.raise(MessageId(used));
        assert!(ids.reserve(WallMs(NOW.0 - 5_000), MessageId(0), 1).0 > used);
        let mut other = Ids::new(2, 0, 1);
        other.raise(MessageId(used));
        assert_eq!(
            other.reserve(NOW, MessageId(0), 1),
            Ids::new(2, 0, 1).reserve(NOW, MessageId(0), 1),
            "ids of other nodes do not hold up ours"
        );
    }

    #[test]
    fn ids_are_above_those_of_another_leader_with_a_faster_clock() {
        let theirs = Ids::new(9, 0, 1)
            .reserve(WallMs(NOW.0 + 5_000), MessageId(0), 256)
            .0
            + 255;
        let mut ids = Ids::new(2, 0, 1);
        let ours = ids.reserve(NOW, MessageId(theirs), 4).0;
        assert!(ours > theirs);
        assert_eq!(worker(ours + 3), 2);
    }

    #[test]
    fn shards_of_one_node_never_meet() {
        let mut shards: Vec<_> = (0..3).map(|i| Ids::new(7, i, 3)).collect();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            for ids in &mut shards {
                let first = ids.reserve(NOW, MessageId(0), 100).0;
                for id in first..first + 100 {
                    assert!(seen.insert(id), "{id} twice");
                    assert_eq!(worker(id), 7);
                }
            }
        }
    }
}
