//! The RECVACK window: which persistent deliveries the client has not acknowledged (H25).
//!
//! Holds no payload: a message due again is read again, by (channel, seq). Entries stand in the order they are due, because every
//! one waits the same interval.

use std::collections::VecDeque;

use wk_proto::{ChannelKey, MessageId, MessageSeq, Mono};

use crate::limits::UNACKED_MAX;

/// One delivery without a RECVACK.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) channel: ChannelKey,
    pub(crate) seq: MessageSeq,
    id: MessageId,
    due: Mono,
    resends: u8,
    /// The driver was asked to read it again and has not delivered it yet.
    asked: bool,
}

/// At most [`UNACKED_MAX`] entries.
#[derive(Debug, Default)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Entries with `asked` set: mostly 0, and then a delivery needs no search.
    asked: usize,
    evicted: u64,
}

impl Window {
    /// A delivery goes out now and is due again at `due`.
    pub(crate) fn push(&mut self, id: MessageId, channel: &ChannelKey, seq: MessageSeq, due: Mono) {
        if self.entries.len() >= UNACKED_MAX {
            self.evicted += 1;
            self.remove(0);
        }
        self.entries.push_back(Entry {
            channel: channel.clone(),
            seq,
            id,
            due,
            resends: 0,
            asked: false,
        });
    }

    /// A RECVACK came. `None`: unknown, late or repeated.
    pub(crate) fn acknowledge(&mut self, id: MessageId) -> Option<Entry> {
        // Clients acknowledge in order, so this is almost always the first one.
        let at = self.entries.iter().position(|e| e.id == id)?;
        let entry = self.remove(at);
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // an idle session is small
        }
        entry
    }

    /// Whether `id` is a message this window asked for; if so it is no longer.
    pub(crate) fn take_asked(&mut self, id: MessageId) -> bool {
        if self.asked == 0 {
            return false;
        }
        let Some(entry) = self.entries.iter_mut().find(|e| e.asked && e.id == id) else {
            return false;
        };
        entry.asked = false;
        self.asked -= 1;
        true
    }

    /// The next message that is due at `now`, if it may be sent again; those sent `resends_max` times leave.
    pub(crate) fn pop_due(
        &mut self,
        now: Mono,
        resends_max: u8,
        next_due: Mono,
    ) -> Option<(ChannelKey, MessageSeq)> {
        loop {
            if self.entries.front()?.due > now {
                return None;
            }
            let mut entry = self.remove(0)?;
            if entry.resends >= resends_max {
                continue;
            }
            let wanted = (entry.channel.clone(), entry.seq);
            entry.resends += 1;
            entry.asked = true;
            entry.due = next_due;
            self.asked += 1;
            self.entries.push_back(entry);
            return Some(wanted);
        }
    }

    /// When the first entry is due.
    pub(crate) fn next_due(&self) -> Option<Mono> {
        self.entries.front().map(|e| e.due)
    }

    /// Entries that left unacknowledged because the window was full, since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn remove(&mut self, at: usize) -> Option<Entry> {
        let entry = self.entries.remove(at)?;
        self.asked -= usize::from(entry.asked);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::{ChannelId, ChannelType};

    fn channel() -> ChannelKey {
        ChannelKey::new(ChannelId::trusted("g"), ChannelType::GROUP)
    }

    fn filled(n: i64) -> Window {
        let mut window = Window::default();
        for id in 1..=n {
            window.push(
                MessageId(id),
                &channel(),
                MessageSeq(id as u64),
                Mono(id as u64),
            );
        }
        window
    }

    #[test]
    fn acknowledged_entries_leave_in_any_order() {
        let mut window = filled(3);
        assert_eq!(window.acknowledge(MessageId(2)).unwrap().seq, MessageSeq(2));
        assert!(window.acknowledge(MessageId(2)).is_none());
        assert!(window.acknowledge(MessageId(9)).is_none());
        assert_eq!(window.next_due(), Some(Mono(1)));
        assert!(window.acknowledge(MessageId(1)).is_some());
        assert_eq!(window.next_due(), Some(Mono(3)));
    }

    #[test]
    fn the_oldest_leaves_a_full_window() {
        let mut window = filled(UNACKED_MAX as i64 + 2);
        assert_eq!(window.evicted(), 2);
        assert!(window.acknowledge(MessageId(2)).is_none());
        assert!(window.acknowledge(MessageId(3)).is_some());
    }

    #[test]
    fn due_entries_are_asked_for_until_the_limit() {
        let mut window = filled(1);
        for round in 1..=2 {
            let (now, next) = (Mono(round * 100), Mono(round * 100 + 100));
            let wanted = window.pop_due(now, 2, next).unwrap();
            assert_eq!(wanted.1, MessageSeq(1));
            assert_eq!(
                window.pop_due(now, 2, next),
                None,
                "not before it is due again"
            );
            assert!(window.take_asked(MessageId(1)));
            assert!(!window.take_asked(MessageId(1)));
        }
        assert_eq!(window.pop_due(Mono(1_000), 2, Mono(1_100)), None);
        assert!(window.acknowledge(MessageId(1)).is_none());
    }

    #[test]
    fn an_empty_window_gives_its_memory_back() {
        let mut window = filled(100);
        for id in 1..=100 {
            window.acknowledge(MessageId(id));
        }
        assert_eq!(window.entries.capacity(), 0);
    }
}
