//! Recognises a second copy of a received message.

use std::collections::HashSet;

use crate::limits::SEEN_MAX;

/// The last [`SEEN_MAX`] to twice as many messages, in two generations: when the young one is full, it becomes the old one
/// and the old one is forgotten. A message is its id *and* seq: the id already names channel and seq within one cluster, and
/// both together stay right when a server starts over with an empty disk.
#[derive(Default)]
pub(super) struct Seen {
    young: HashSet<(i64, u32)>,
    old: HashSet<(i64, u32)>,
}

impl Seen {
    /// Whether this is the first copy; remembers it. Messages that are not stored (seq 0) are never sent again and always new.
    pub(super) fn is_new(&mut self, message_id: i64, message_seq: u32) -> bool {
        let key = (message_id, message_seq);
        if message_seq == 0 {
            return true;
        }
        if self.old.contains(&key) || !self.young.insert(key) {
            return false;
        }
        if self.young.len() >= SEEN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_at_least_so_many_and_forgets_the_rest() {
        let mut seen = Seen::default();
        let n = SEEN_MAX as u32;
        for seq in 1..=3 * n {
            assert!(seen.is_new(7, seq));
            assert!(!seen.is_new(7, seq));
            let back = seq.saturating_sub(n - 1).max(1);
            assert!(!seen.is_new(7, back), "{back} after {seq}");
        }
        assert!(seen.is_new(7, 1), "forgotten");
        assert!(seen.is_new(8, 3 * n), "another message with the same seq");
        assert!(seen.is_new(9, 0) && seen.is_new(9, 0), "not stored");
    }
}
