//! SENDs without an answer yet, and the order of their SENDACKs.
//!
//! Acks of one channel leave in the order of its SENDs, whatever the order of the results: an ack waits for its predecessor on the
//! same channel, also when it is a refusal decided here. Acks of different channels pass each other.

use std::collections::VecDeque;

use wk_proto::{Flags, Ticket};

use crate::SendResult;
use crate::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_SENDS_MAX};

/// How the client recognises the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A binary SEND's clientSeq.
    Seq(u32),
    /// A JSON-RPC request's id, and its `header.end`, which is echoed.
    Request(Box<[u8]>, bool),
}

/// One answer, ready to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) origin: Origin,
    pub(crate) flags: Flags,
    pub(crate) result: SendResult,
}

/// Names the acks that keep their order: a hash of the channel. Two channels that collide only wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order(u64);

impl Order {
    /// FNV-1a over the id's bytes and the type.
    pub(crate) fn of(id: &[u8], kind: u8) -> Self {
        const PRIME: u64 = 0x0100_0000_01b3;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in id.iter().chain([&kind]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        Self(hash)
    }
}

#[derive(Debug)]
struct Pending {
    origin: Origin,
    flags: Flags,
    order: Order,
    bytes: u32,
    /// An earlier SEND of the same order has not been answered.
    blocked: bool,
    result: Option<SendResult>,
    /// The next SEND of the same order.
    next: Option<Ticket>,
}

/// At most [`IN_FLIGHT_SENDS_MAX`] tickets apart and about [`IN_FLIGHT_BYTES_MAX`] of payload.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// `slots[i]` is ticket `first + i`; `None` = answered.
    slots: VecDeque<Option<Pending>>,
    first: u64,
    bytes: usize,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 1,
            bytes: 0,
        }
    }
}

impl InFlight {
    /// Whether another SEND may be read.
    pub(crate) fn has_room(&self) -> bool {
        self.slots.len() < IN_FLIGHT_SENDS_MAX && self.bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Whether everything has been answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A SEND leaves for its slot.
    pub(crate) fn submit(
        &mut self,
        order: Order,
        origin: Origin,
        flags: Flags,
        payload_bytes: usize,
    ) -> Ticket {
        self.enter(Pending {
            origin,
            flags,
            order,
            bytes: u32::try_from(payload_bytes).unwrap_or(u32::MAX),
            blocked: false,
            result: None,
            next: None,
        })
    }

    /// A SEND was refused here: its answer, or `None` if it has to wait for earlier ones.
    pub(crate) fn refuse(&mut self, order: Order, answer: Answer) -> Option<Answer> {
        if self.last_of(order).is_none() {
            return Some(answer);
        }
        self.enter(Pending {
            origin: answer.origin,
            flags: answer.flags,
            order,
            bytes: 0,
            blocked: false,
            result: Some(answer.result),
            next: None,
        });
        None
    }

    /// A result came: hands every answer that may leave now to `emit`. Unknown and repeated tickets are ignored.
    pub(crate) fn settle(
        &mut self,
        ticket: Ticket,
        result: SendResult,
        mut emit: impl FnMut(Answer),
    ) {
        let Some(pending) = self.get_mut(ticket) else {
            return;
        };
        if pending.result.is_some() {
            return;
        }
        pending.result = Some(result);
        if !pending.blocked {
            self.release(ticket, &mut emit);
        }
        self.trim();
    }

    /// Answers `ticket` and the settled ones behind it, and unblocks the first that is not.
    fn release(&mut self, ticket: Ticket, emit: &mut impl FnMut(Answer)) {
        let mut next = Some(ticket);
        while let Some(ticket) = next {
            let Some(slot) = self.slot_mut(ticket) else {
                return;
            };
            let Some(result) = slot.as_ref().and_then(|p| p.result) else {
                if let Some(pending) = slot {
                    pending.blocked = false;
                }
                return;
            };
            let Some(pending) = slot.take() else {
                return;
            };
            self.bytes -= pending.bytes as usize;
            next = pending.next;
            emit(Answer {
                origin: pending.origin,
                flags: pending.flags,
                result,
            });
        }
    }

    fn enter(&mut self, mut pending: Pending) -> Ticket {
        let ticket = Ticket(self.first + self.slots.len() as u64);
        if let Some(before) = self.last_of(pending.order) {
            before.next = Some(ticket);
            pending.blocked = true;
        }
        self.bytes += pending.bytes as usize;
        self.slots.push_back(Some(pending));
        ticket
    }

    /// The newest unanswered SEND of `order`. From the back: a busy client mostly repeats its last channel.
    fn last_of(&mut self, order: Order) -> Option<&mut Pending> {
        let mut unanswered = self.slots.iter_mut().rev().flatten();
        unanswered.find(|p| p.order == order)
    }

    fn slot_mut(&mut self, ticket: Ticket) -> Option<&mut Option<Pending>> {
        let index = ticket.0.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Pending> {
        self.slot_mut(ticket)?.as_mut()
    }

    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        if self.slots.is_empty() {
            self.slots = VecDeque::new(); // an idle session is small
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::{MessageId, MessageSeq, Reason};

    const NONE: [u32; 0] = [];

    fn result(id: i64) -> SendResult {
        SendResult {
            message_id: MessageId(id),
            message_seq: MessageSeq(1),
            reason: Reason::Success,
        }
    }

    fn order(n: u8) -> Order {
        Order::of(&[n], 2)
    }

    fn submit(f: &mut InFlight, channel: u8, seq: u32) -> Ticket {
        f.submit(order(channel), Origin::Seq(seq), Flags(0), 10)
    }

    fn settle(f: &mut InFlight, ticket: Ticket) -> Vec<u32> {
        let mut seqs = Vec::new();
        f.settle(ticket, result(1), |a| match a.origin {
            Origin::Seq(s) => seqs.push(s),
            Origin::Request(..) => unreachable!(),
        });
        seqs
    }

    #[test]
    fn acks_of_one_channel_wait_for_their_predecessors_only() {
        let mut f = InFlight::default();
        let a1 = submit(&mut f, 1, 1);
        let b1 = submit(&mut f, 2, 2);
        let a2 = submit(&mut f, 1, 3);
        let a3 = submit(&mut f, 1, 4);
        assert_eq!(settle(&mut f, a3), NONE);
        assert_eq!(settle(&mut f, b1), [2]);
        assert_eq!(settle(&mut f, a1), [1]);
        assert_eq!(
            settle(&mut f, a1),
            NONE,
            "a repeated result changes nothing"
        );
        assert_eq!(settle(&mut f, a2), [3, 4]);
        assert!(f.is_empty());
        assert_eq!(f.bytes, 0);
    }

    #[test]
    fn a_refusal_does_not_overtake() {
        let mut f = InFlight::default();
        let refusal = |seq| Answer {
            origin: Origin::Seq(seq),
            flags: Flags(0),
            result: result(9),
        };
        assert!(f.refuse(order(1), refusal(1)).is_some());
        let first = submit(&mut f, 1, 2);
        assert!(f.refuse(order(1), refusal(3)).is_none());
        assert!(f.refuse(order(2), refusal(4)).is_some());
        let last = submit(&mut f, 1, 5);
        assert_eq!(settle(&mut f, last), NONE);
        assert_eq!(settle(&mut f, first), [2, 3, 5]);
        assert!(f.is_empty());
    }

    #[test]
    fn both_bounds_close_the_door_and_open_it_again() {
        let mut f = InFlight::default();
        let tickets: Vec<_> = (0..IN_FLIGHT_SENDS_MAX as u32)
            .map(|n| submit(&mut f, 1, n))
            .collect();
        assert!(!f.has_room());
        settle(&mut f, tickets[0]);
        assert!(f.has_room());

        let mut f = InFlight::default();
        let big = f.submit(order(1), Origin::Seq(1), Flags(0), IN_FLIGHT_BYTES_MAX);
        assert!(!f.has_room());
        settle(&mut f, big);
        assert!(f.has_room());
    }

    #[test]
    fn tickets_nobody_issued_are_ignored() {
        let mut f = InFlight::default();
        assert_eq!(settle(&mut f, Ticket(0)), NONE);
        assert_eq!(settle(&mut f, Ticket(u64::MAX)), NONE);
    }
}
