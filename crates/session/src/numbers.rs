//! Numbers a session makes itself: ids of the SENDs it refuses, clientMsgNo of JSON-RPC sends without one.

use wk_proto::{MessageId, NodeId, WallMs};

/// The reference's snowflake epoch in ms: ids look like the slot leaders' ones.
const EPOCH_MS: u64 = 1_288_834_974_657;

/// Ids in SENDACKs of refusals decided here (H15). They name no message; they are not 0 and differ within a session.
#[derive(Debug, Default)]
pub(crate) struct RefusalIds {
    last: i64,
}

impl RefusalIds {
    pub(crate) fn next(&mut self, wall: WallMs, node: NodeId) -> MessageId {
        let ms = wall.0.saturating_sub(EPOCH_MS) & ((1 << 41) - 1);
        let id = (ms << 22 | u64::from(node.0 & 0x3FF) << 12) as i64;
        self.last = id.max(self.last + 1);
        MessageId(self.last)
    }
}

/// 32 hex digits each: 128 bits from the session's seed, then a bijective walk, so that no number repeats.
#[derive(Debug)]
pub(crate) struct Numbers {
    high: u64,
    low: u64,
}

impl Numbers {
    pub(crate) fn new(seed: &[u8; 16]) -> Self {
        let number = u128::from_le_bytes(*seed);
        Self {
            high: (number >> 64) as u64,
            low: number as u64,
        }
    }

    pub(crate) fn next(&mut self) -> String {
        self.low = self.low.wrapping_add(0x9E37_79B9_7F4A_7C15);
        format!("{:016x}{:016x}", self.high, mix(self.low))
    }
}

/// SplitMix64's finisher: a bijection of 64 bits.
fn mix(mut n: u64) -> u64 {
    n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ n >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_ids_grow_even_if_the_clock_does_not() {
        let mut ids = RefusalIds::default();
        let at = |ms| WallMs(EPOCH_MS + ms);
        let all = [
            ids.next(WallMs(0), NodeId(0)),
            ids.next(at(10), NodeId(1001)),
            ids.next(at(10), NodeId(1001)),
            ids.next(at(9), NodeId(1001)),
            ids.next(WallMs(u64::MAX), NodeId(u32::MAX)),
        ];
        assert!(all[0].0 > 0);
        assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    }

    #[test]
    fn numbers_are_32_hex_digits_and_differ() {
        let mut numbers = Numbers::new(&[7; 16]);
        let (a, b) = (numbers.next(), numbers.next());
        assert_ne!(a, b);
        for n in [a, b] {
            assert!(n.len() == 32 && n.bytes().all(|c| c.is_ascii_hexdigit()));
        }
    }
}
