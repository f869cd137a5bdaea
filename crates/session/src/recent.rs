//! Which messages were delivered a moment ago: a new slot leader pushes its last seconds again (H16).

use wk_proto::MessageId;

use crate::limits::RECENT_MAX;

/// The last [`RECENT_MAX`] message ids. Small enough to search for each delivery.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    ids: [i64; RECENT_MAX],
    next: u8,
}

impl Recent {
    pub(crate) fn contains(&self, id: MessageId) -> bool {
        // Without an early exit the search is a few vector instructions. An id is never 0.
        self.ids
            .iter()
            .fold(false, |hit, seen| hit | (*seen == id.0))
    }

    pub(crate) fn insert(&mut self, id: MessageId) {
        self.ids[usize::from(self.next)] = id.0;
        self.next = (self.next + 1) % RECENT_MAX as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_ones() {
        let mut recent = Recent::default();
        for id in 1..=RECENT_MAX as i64 + 1 {
            assert!(!recent.contains(MessageId(id)));
            recent.insert(MessageId(id));
        }
        assert!(!recent.contains(MessageId(1)));
        assert!((2..=RECENT_MAX as i64 + 1).all(|id| recent.contains(MessageId(id))));
    }
}
