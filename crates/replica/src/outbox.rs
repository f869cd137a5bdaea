//! Delivery of outbox rows by the leader of the group that owes them (H6): at least once, until a result says that the row is
//! applied at its group; then the row's removal is proposed. A new leader starts again from the rows in the store.

use std::collections::BTreeMap;

use wk_chat::Effect;
use wk_chat::request::{Inbox, OutboxKey};
use wk_proto::Mono;

use crate::limits::{
    OUTBOX_DONE_MAX, OUTBOX_OUTSTANDING_MAX, OUTBOX_RESULT_MS_MAX, OUTBOX_RETRY_MS,
    OUTBOX_RETRY_MS_MAX,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    owed: BTreeMap<OutboxKey, Owed>,
    /// Delivered; their removal is to be proposed.
    done: Vec<OutboxKey>,
    /// Largest key taken over; rows beyond it are only in the store.
    cursor: Option<OutboxKey>,
    /// Rows beyond `cursor` may be in the store.
    more: bool,
    /// The removals have waited long enough for an entry to ride on.
    flush: bool,
}

#[derive(Debug)]
struct Owed {
    inbox: Inbox,
    attempts: u32,
    /// When to send (again).
    due: Mono,
}

impl Outbox {
    /// This replica leads and has applied everything: nothing is known, everything is in the store.
    pub(crate) fn become_leader(&mut self) {
        *self = Self {
            more: true,
            ..Self::default()
        };
    }

    /// Another replica delivers from now on.
    pub(crate) fn become_follower(&mut self) {
        *self = Self::default();
    }

    /// A row was written by the entry just applied.
    pub(crate) fn push(&mut self, key: OutboxKey, inbox: Inbox, now: Mono) {
        if self.more || self.owed.len() >= OUTBOX_OUTSTANDING_MAX {
            self.more = true;
            return;
        }
        self.take_over(key, inbox, now);
    }

    /// How many rows to read from the store, after which key; `None` = none now.
    pub(crate) fn wants_page(&self) -> Option<(Option<OutboxKey>, usize)> {
        let room = OUTBOX_OUTSTANDING_MAX - self.owed.len();
        (self.more && room >= OUTBOX_OUTSTANDING_MAX / 2).then_some((self.cursor, room))
    }

    /// The rows read for [`Self::wants_page`] with `limit`.
    pub(crate) fn page(&mut self, rows: Vec<Effect>, limit: usize, now: Mono) {
        self.more = rows.len() >= limit;
        for row in rows {
            if let Effect::Outbox(key, inbox) = row {
                self.take_over(key, inbox, now);
            }
        }
    }

    /// What became of a row. Unknown rows (of an earlier leadership) are ignored.
    pub(crate) fn result(&mut self, key: OutboxKey, applied: bool, now: Mono) {
        if applied {
            if self.owed.remove(&key).is_some() {
                self.done.push(key);
            }
        } else if let Some(owed) = self.owed.get_mut(&key) {
            owed.due = now.plus_ms(pause_ms(owed.attempts));
        }
    }

    /// Rows to send now.
    pub(crate) fn due(&mut self, now: Mono, out: &mut Vec<(OutboxKey, Inbox)>) {
        for (key, owed) in &mut self.owed {
            if owed.due <= now {
                owed.attempts += 1;
                owed.due = now.plus_ms(OUTBOX_RESULT_MS_MAX);
                out.push((*key, owed.inbox.clone()));
            }
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self) {
        self.flush = !self.done.is_empty();
    }

    /// Keys for one `OutboxDone`, at most [`OUTBOX_DONE_MAX`]; give them back with [`Self::restore`] if they are not proposed.
    /// `riding`: an entry is made anyway; without one they wait for the next tick.
    pub(crate) fn take_done(&mut self, riding: bool) -> Vec<OutboxKey> {
        if !riding && !self.flush && self.done.len() < OUTBOX_DONE_MAX {
            return Vec::new();
        }
        self.flush = false;
        let count = self.done.len().min(OUTBOX_DONE_MAX);
        self.done.drain(..count).collect()
    }

    /// See [`Self::take_done`].
    pub(crate) fn restore(&mut self, keys: Vec<OutboxKey>) {
        self.done.splice(..0, keys);
    }

    /// Whether rows are sent and not yet answered, or due.
    pub(crate) fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.done.is_empty() && !self.more
    }

    fn take_over(&mut self, key: OutboxKey, inbox: Inbox, now: Mono) {
        self.cursor = self.cursor.max(Some(key));
        self.owed.insert(
            key,
            Owed {
                inbox,
                attempts: 0,
                due: now,
            },
        );
    }
}

fn pause_ms(attempts: u32) -> u64 {
    let doubled = OUTBOX_RETRY_MS.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(OUTBOX_RETRY_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_chat::request::List;
    use wk_proto::{Epoch, LogIndex, Uid};

    fn row(index: u64) -> (OutboxKey, Inbox) {
        let key = OutboxKey {
            index: LogIndex(index),
            position: 0,
        };
        let inbox = Inbox::Pair {
            owner: Uid::trusted("a"),
            uid: Uid::trusted("b"),
            list: List::Deny,
            present: true,
            epoch: Epoch::default(),
        };
        (key, inbox)
    }

    fn effects(range: std::ops::RangeInclusive<u64>) -> Vec<Effect> {
        range.map(row).map(|(k, i)| Effect::Outbox(k, i)).collect()
    }

    fn due(outbox: &mut Outbox, ms: u64) -> Vec<u64> {
        let mut out = Vec::new();
        outbox.due(Mono(ms * 1_000), &mut out);
        out.into_iter().map(|(k, _)| k.index.0).collect()
    }

    #[test]
    fn a_row_is_sent_again_after_a_growing_pause_until_it_is_applied() {
        let mut outbox = Outbox::default();
        let (key, inbox) = row(1);
        outbox.push(key, inbox, Mono(0));
        assert_eq!(due(&mut outbox, 0), [1]);
        assert_eq!(due(&mut outbox, 1), [0; 0], "once");
        outbox.result(key, false, Mono(0));
        assert_eq!(due(&mut outbox, 99), [0; 0]);
        assert_eq!(due(&mut outbox, 100), [1]);
        outbox.result(key, false, Mono(100_000));
        assert_eq!(due(&mut outbox, 299), [0; 0]);
        assert_eq!(due(&mut outbox, 300), [1]);
        assert_eq!(
            due(&mut outbox, 300 + OUTBOX_RESULT_MS_MAX),
            [1],
            "no result at all"
        );
        outbox.result(key, true, Mono(0));
        assert_eq!(outbox.take_done(false), [], "waits for company");
        outbox.tick();
        assert_eq!(outbox.take_done(false), [key]);
        assert!(outbox.is_idle());
    }

    #[test]
    fn a_new_leader_resumes_from_the_store_in_pages() {
        let mut outbox = Outbox::default();
        outbox.become_leader();
        let (after, limit) = outbox.wants_page().unwrap();
        assert_eq!(after, None);
        outbox.page(effects(1..=limit as u64), limit, Mono(0));
        assert_eq!(outbox.wants_page(), None, "full");
        let (key, inbox) = row(999);
        outbox.push(key, inbox, Mono(0));
        assert_eq!(
            due(&mut outbox, 0).len(),
            limit,
            "the new row waits in the store"
        );
        for i in 1..=limit as u64 {
            outbox.result(row(i).0, true, Mono(0));
        }
        let (after, limit) = outbox.wants_page().unwrap();
        assert_eq!(after.unwrap().index.0, OUTBOX_OUTSTANDING_MAX as u64);
        outbox.page(effects(999..=999), limit, Mono(0));
        assert_eq!(outbox.wants_page(), None);
        assert_eq!(due(&mut outbox, 0), [999]);
    }
}
