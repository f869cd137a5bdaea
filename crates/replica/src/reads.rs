//! Calls that wait for a proof of leadership: ReadIndex, never a lease (H35).
//!
//! One round of heartbeats proves leadership for all reads that were waiting when it began. A read is answered from a state that
//! contains everything committed before its round.

use std::collections::VecDeque;

use wk_chat::{Reply, Request};
use wk_proto::Ticket;

use crate::limits::READ_ROUNDS_MAX;

/// A call that changes nothing: its answer is true only if this replica still leads. With a reply, that is the answer: a refusal
/// as of the state the call met in its turn (unless it turns out to be the copy of a message that is stored). Were it decided anew, it could be accepted behind later calls of the same sender.
pub(crate) type Read = (Ticket, Request, Option<Reply>);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<Read>,
    rounds: VecDeque<Round>,
    next: u64,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// The index that must be applied; known once the round is proven.
    index: Option<u64>,
    /// One more: see [`Reads::begun`].
    floor: u64,
    reads: Vec<Read>,
}

impl Reads {
    /// A read arrives.
    pub(crate) fn push(&mut self, read: Read) {
        self.waiting.push(read);
    }

    /// Reads not yet answered.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.rounds.iter().map(|r| r.reads.len()).sum::<usize>()
    }

    /// Whether [`Self::begin`] would begin a round.
    pub(crate) fn can_begin(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.len() < READ_ROUNDS_MAX
    }

    /// Begins a round for what is waiting; its number is the context to prove. `None`: nothing waits, or too many rounds run.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        if !self.can_begin() {
            return None;
        }
        self.next += 1;
        self.rounds.push_back(Round {
            number: self.next,
            index: None,
            floor: 0,
            reads: std::mem::take(&mut self.waiting),
        });
        Some(self.next)
    }

    /// The round has begun, and the log ends at `last`.
    ///
    /// A message may be refused whose first copy is in that log and not yet applied: the copy was decided on an older state. Such a
    /// refusal waits until it can be seen whether there is one.
    pub(crate) fn begun(&mut self, number: u64, last: u64) {
        if let Some(round) = self.rounds.iter_mut().find(|r| r.number == number)
            && round.reads.iter().any(refuses_numbered)
        {
            round.floor = last;
        }
    }

    /// The round is proven: it may be answered once `index` is applied.
    pub(crate) fn proven(&mut self, number: u64, index: u64) {
        if let Some(round) = self.rounds.iter_mut().find(|r| r.number == number) {
            round.index = Some(index);
        }
    }

    /// Reads that may be answered from a state at `applied`.
    pub(crate) fn ready(&mut self, applied: u64) -> Vec<Read> {
        let mut ready = Vec::new();
        while let Some(round) = self.rounds.front_mut() {
            if round
                .index
                .is_none_or(|index| index.max(round.floor) > applied)
            {
                break;
            }
            ready.append(&mut round.reads);
            self.rounds.pop_front();
        }
        ready
    }

    /// Leadership is lost or the group stops: none of them had an effect.
    pub(crate) fn take_all(&mut self) -> Vec<Read> {
        let rounds = std::mem::take(&mut self.rounds);
        let mut all: Vec<Read> = rounds.into_iter().flat_map(|r| r.reads).collect();
        all.append(&mut self.waiting);
        all
    }
}

fn refuses_numbered((_, request, refusal): &Read) -> bool {
    let is_numbered = matches!(request, Request::Send(send) if send.is_numbered());
    is_numbered && refusal.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_chat::Query;

    fn read(n: u64) -> Read {
        (Ticket(n), Request::Query(Box::new(Query::SystemUids)), None)
    }

    fn tickets(reads: Vec<Read>) -> Vec<u64> {
        reads.into_iter().map(|(t, ..)| t.0).collect()
    }

    #[test]
    fn a_round_serves_what_waited_when_it_began_once_its_index_is_applied() {
        let mut reads = Reads::default();
        reads.push(read(1));
        reads.push(read(2));
        let first = reads.begin().unwrap();
        reads.push(read(3));
        reads.proven(first, 10);
        assert_eq!(tickets(reads.ready(9)), [0; 0]);
        assert_eq!(tickets(reads.ready(10)), [1, 2]);
        assert_eq!(
            tickets(reads.ready(99)),
            [0; 0],
            "3 came after the round began"
        );
        let second = reads.begin().unwrap();
        assert_ne!(first, second);
        reads.proven(first, 99);
        assert_eq!(
            tickets(reads.ready(99)),
            [0; 0],
            "an old proof proves nothing"
        );
        assert_eq!(tickets(reads.take_all()), [3]);
    }

    #[test]
    fn rounds_in_flight_are_bounded() {
        let mut reads = Reads::default();
        for n in 0..READ_ROUNDS_MAX as u64 {
            reads.push(read(n));
            assert!(reads.begin().is_some());
        }
        reads.push(read(99));
        assert_eq!(reads.begin(), None);
        assert_eq!(reads.len(), READ_ROUNDS_MAX + 1);
    }
}
