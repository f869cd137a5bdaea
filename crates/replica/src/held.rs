//! Replies that wait for outbox rows (H6), and those behind them.
//!
//! The reply to a command that owes rows to other slots waits until they are applied there, but not for ever: after a bounded time
//! the message is acknowledged anyway, for it is durable. Replies to later messages of the same channel wait behind it, so
//! acknowledgements of one channel never swap; replies to changes of a channel's lists wait behind earlier changes of them, so that a
//! repetition that finds nothing to change is not answered before what the first one owed is delivered ([`Line`]).
//!
//! What is promised, then: what an answered call owes is visible in the other slots, if the answer came within that time. A later
//! answer promises that the rows are durable here and delivered as soon as their slot can be reached; until then a read there,
//! though linearizable in its own slot, may miss them. No slot knows what others owe it: H6 (b) would have a slot ask all others before
//! it counts as reachable again, and even that would not cover two slots that are both there and cannot reach each other.

use std::collections::{BTreeMap, VecDeque};

use wk_chat::Reply;
use wk_chat::request::OutboxKey;
use wk_proto::{ChannelKey, Mono, Ticket};

use crate::limits::HELD_REPLIES_MAX;

/// Replies that keep their order among themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// To the messages of a channel.
    Messages(ChannelKey),
    /// To changes of a channel's members and lists.
    Changes(ChannelKey),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Number of the next waiter.
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Which waiter each row is for.
    rows: BTreeMap<OutboxKey, u64>,
    /// Lines somebody waits in, in order of commit.
    lines: BTreeMap<Line, VecDeque<u64>>,
}

#[derive(Debug)]
struct Waiter {
    /// Who is told what; nobody if the reply was another leader's to give.
    reply: Option<Released>,
    rows_left: usize,
    /// When it stops waiting for rows.
    until: Mono,
    /// At most one for a reply; more for a row that nobody here waits for.
    lines: Vec<Line>,
}

/// A reply whose time has come.
pub(crate) type Released = (Ticket, Reply);

impl Held {
    /// A command was applied. Its reply comes out at once, or later from another method.
    ///
    /// `line`: where it may not overtake.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        reply: Reply,
        rows: &[OutboxKey],
        line: Option<&Line>,
        until: Mono,
        out: &mut Vec<Released>,
    ) {
        let behind = line.is_some_and(|line| self.lines.contains_key(line));
        if rows.is_empty() && !behind {
            return out.push((ticket, reply));
        }
        if self.waiters.len() >= HELD_REPLIES_MAX {
            self.release_all(out);
            return out.push((ticket, reply));
        }
        self.wait(
            Waiter {
                reply: Some((ticket, reply)),
                rows_left: rows.len(),
                until,
                lines: line.cloned().into_iter().collect(),
            },
            rows,
        );
    }

    /// A row is owed since before this replica led: a repetition of the call that caused it finds it done, and must not be answered
    /// earlier than the call itself would have been. `lines`: where that call may have its place.
    pub(crate) fn inherit(&mut self, row: OutboxKey, lines: Vec<Line>, until: Mono) {
        if self.rows.contains_key(&row) || self.waiters.len() >= HELD_REPLIES_MAX {
            return;
        }
        self.wait(
            Waiter {
                reply: None,
                rows_left: 1,
                until,
                lines,
            },
            &[row],
        );
    }

    fn wait(&mut self, waiter: Waiter, rows: &[OutboxKey]) {
        let number = self.next;
        self.next += 1;
        for row in rows {
            self.rows.insert(*row, number);
        }
        for line in &waiter.lines {
            let queue = self.lines.entry(line.clone()).or_default();
            queue.push_back(number);
        }
        self.waiters.insert(number, waiter);
    }

    /// A row is applied at its slot.
    pub(crate) fn row_done(&mut self, row: OutboxKey, out: &mut Vec<Released>) {
        let Some(number) = self.rows.remove(&row) else {
            return;
        };
        if let Some(waiter) = self.waiters.get_mut(&number) {
            waiter.rows_left -= 1;
            if waiter.rows_left == 0 {
                self.ready(number, out);
            }
        }
    }

    /// Time passed: whoever has waited long enough is acknowledged.
    pub(crate) fn expire(&mut self, now: Mono, out: &mut Vec<Released>) {
        let due: Vec<u64> = self
            .waiters
            .iter()
            .filter(|(_, w)| w.rows_left > 0 && w.until <= now)
            .map(|(n, _)| *n)
            .collect();
        if due.is_empty() {
            return;
        }
        self.rows
            .retain(|_, number| due.binary_search(number).is_err());
        for number in due {
            if let Some(waiter) = self.waiters.get_mut(&number) {
                waiter.rows_left = 0;
            }
            self.ready(number, out);
        }
    }

    /// All of them, in order of commit: the group stops, or too many wait.
    pub(crate) fn release_all(&mut self, out: &mut Vec<Released>) {
        self.rows.clear();
        self.lines.clear();
        let all = std::mem::take(&mut self.waiters);
        out.extend(all.into_values().filter_map(|w| w.reply));
    }

    fn ready(&mut self, number: u64, out: &mut Vec<Released>) {
        let lines = self.waiters.get(&number).map(|w| w.lines.clone());
        let lines = lines.unwrap_or_default();
        if lines.is_empty() {
            self.release(number, out);
        }
        for line in lines {
            self.drain(line, out);
        }
    }

    /// Whoever is at the front and ready is released. (One that was released in another line is ready here.)
    fn drain(&mut self, line: Line, out: &mut Vec<Released>) {
        let mut queue = self.lines.remove(&line).unwrap_or_default();
        while let Some(number) = queue.front().copied() {
            if self.waiters.get(&number).is_some_and(|w| w.rows_left > 0) {
                break;
            }
            queue.pop_front();
            self.release(number, out);
        }
        if !queue.is_empty() {
            self.lines.insert(line, queue);
        }
    }

    fn release(&mut self, number: u64, out: &mut Vec<Released>) {
        out.extend(self.waiters.remove(&number).and_then(|w| w.reply));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::{ChannelId, ChannelType, LogIndex};

    const LATER: Mono = Mono(1_000);

    fn row(index: u64) -> OutboxKey {
        OutboxKey {
            index: LogIndex(index),
            position: 0,
        }
    }

    fn channel(name: &str) -> Line {
        Line::Messages(key(name))
    }

    fn changes(name: &str) -> Line {
        Line::Changes(key(name))
    }

    fn key(name: &str) -> ChannelKey {
        ChannelKey::new(ChannelId::trusted(name), ChannelType::GROUP)
    }

    struct Fixture {
        held: Held,
        out: Vec<Released>,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                held: Held::default(),
                out: Vec::new(),
            }
        }
        fn push(&mut self, ticket: u64, rows: &[OutboxKey], line: Option<&Line>) {
            self.held.push(
                Ticket(ticket),
                Reply::Done,
                rows,
                line,
                LATER,
                &mut self.out,
            );
        }
        fn done(&mut self, row: OutboxKey) {
            self.held.row_done(row, &mut self.out);
        }
        fn tickets(&mut self) -> Vec<u64> {
            self.out.drain(..).map(|(t, _)| t.0).collect()
        }
    }

    #[test]
    fn later_messages_of_the_channel_wait_behind_the_one_that_owes() {
        let mut f = Fixture::new();
        let (a, b) = (channel("a"), channel("b"));
        f.push(1, &[row(1), row(2)], Some(&a));
        f.push(2, &[], Some(&a));
        f.push(3, &[], Some(&b));
        f.push(4, &[], None);
        assert_eq!(f.tickets(), [3, 4]);
        f.done(row(1));
        assert_eq!(f.tickets(), [0; 0]);
        f.done(row(2));
        assert_eq!(f.tickets(), [1, 2]);
        f.push(5, &[], Some(&a));
        assert_eq!(f.tickets(), [5]);
    }

    #[test]
    fn rows_done_out_of_order_do_not_swap_replies() {
        let mut f = Fixture::new();
        let a = channel("a");
        f.push(1, &[row(1)], Some(&a));
        f.push(2, &[row(2)], Some(&a));
        f.done(row(2));
        assert_eq!(f.tickets(), [0; 0]);
        f.done(row(1));
        assert_eq!(f.tickets(), [1, 2]);
    }

    #[test]
    fn the_wait_ends() {
        let mut f = Fixture::new();
        let a = channel("a");
        f.push(1, &[row(1)], Some(&a));
        f.push(2, &[], Some(&a));
        f.held.expire(Mono(999), &mut f.out);
        assert_eq!(f.tickets(), [0; 0]);
        f.held.expire(LATER, &mut f.out);
        assert_eq!(f.tickets(), [1, 2]);
        f.done(row(1));
        assert_eq!(f.tickets(), [0; 0], "a late result changes nothing");
    }

    #[test]
    fn rows_owed_by_an_earlier_leader_hold_up_their_channel_alone() {
        let mut f = Fixture::new();
        let (a, b) = (channel("a"), channel("b"));
        f.held.inherit(row(1), vec![a.clone()], LATER);
        f.push(1, &[], Some(&a));
        f.push(2, &[], Some(&b));
        assert_eq!(f.tickets(), [2]);
        f.done(row(1));
        assert_eq!(f.tickets(), [1]);
        f.held.inherit(row(2), vec![a.clone()], LATER);
        f.push(3, &[], Some(&a));
        f.held.expire(LATER, &mut f.out);
        assert_eq!(f.tickets(), [3], "not for ever");
    }

    #[test]
    fn a_write_that_owes_holds_up_nobody() {
        let mut f = Fixture::new();
        f.push(1, &[row(1)], None);
        f.push(2, &[], Some(&channel("a")));
        assert_eq!(f.tickets(), [2]);
        f.done(row(1));
        assert_eq!(f.tickets(), [1]);
    }

    #[test]
    fn a_repeated_change_waits_for_what_the_first_one_owes() {
        let mut f = Fixture::new();
        f.push(1, &[row(1)], Some(&changes("a")));
        f.push(2, &[], Some(&changes("a")));
        f.push(3, &[], Some(&changes("b")));
        f.push(4, &[], Some(&channel("a")));
        assert_eq!(f.tickets(), [3, 4], "messages do not wait for changes");
        f.done(row(1));
        assert_eq!(f.tickets(), [1, 2]);
    }

    #[test]
    fn a_row_of_an_earlier_leader_holds_up_each_of_its_lines() {
        let mut f = Fixture::new();
        let lines = vec![channel("a"), changes("a")];
        f.held.inherit(row(1), lines, LATER);
        f.push(1, &[], Some(&changes("a")));
        f.push(2, &[], Some(&channel("a")));
        f.push(3, &[row(2)], Some(&changes("a")));
        assert_eq!(f.tickets(), [0; 0]);
        f.done(row(1));
        assert_eq!(f.tickets(), [2, 1]);
        f.done(row(2));
        assert_eq!(f.tickets(), [3]);
    }
}
