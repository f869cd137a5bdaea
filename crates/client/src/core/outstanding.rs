//! Messages sent and not yet acknowledged, in order.

use std::collections::BTreeMap;

use wk_proto::Mono;
use wk_proto::frame::Send;
use wk_proto::limits::PAYLOAD_BYTES_MAX;

use crate::limits::{OUTSTANDING_BYTES_MAX, OUTSTANDING_MAX, OUTSTANDING_OVERHEAD_BYTES};

pub(super) struct Outstanding<T> {
    /// By number; the low 32 bits of a number are the message's client_seq.
    messages: BTreeMap<u64, Pending<T>>,
    next: u64,
    bytes: usize,
}

struct Pending<T> {
    plain: Send,
    /// When its SENDACK began to be waited for.
    since: Mono,
    tag: T,
}

impl<T> Default for Outstanding<T> {
    fn default() -> Self {
        Self {
            messages: BTreeMap::new(),
            next: 1,
            bytes: 0,
        }
    }
}

impl<T> Outstanding<T> {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.messages.len() < OUTSTANDING_MAX
            && self.bytes + PAYLOAD_BYTES_MAX <= OUTSTANDING_BYTES_MAX
    }

    /// Numbers and keeps the message.
    pub(super) fn push(&mut self, now: Mono, mut plain: Send, tag: T) -> &Send {
        let number = self.next;
        self.next += 1;
        plain.client_seq = number as u32;
        self.bytes += cost(&plain);
        let pending = Pending {
            plain,
            since: now,
            tag,
        };
        &self.messages.entry(number).or_insert(pending).plain
    }

    /// Removes the message a SENDACK names.
    pub(super) fn take(&mut self, client_seq: u32) -> Option<T> {
        // The youngest number with these low bits: no more than OUTSTANDING_MAX are alive, so it is the only one.
        let age = (self.next as u32).wrapping_sub(client_seq);
        let number = self.next.checked_sub(u64::from(age))?;
        let pending = self.messages.remove(&number)?;
        self.bytes -= cost(&pending.plain);
        Some(pending.tag)
    }

    /// All messages in order, to be written again now.
    pub(super) fn again(&mut self, now: Mono) -> impl Iterator<Item = &Send> {
        self.messages.values_mut().map(move |pending| {
            pending.since = now;
            &pending.plain
        })
    }

    /// Waiting starts anew for all.
    pub(super) fn excuse(&mut self, now: Mono) {
        for pending in self.messages.values_mut() {
            pending.since = now;
        }
    }

    /// Since when the oldest is waited for.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.messages.values().next().map(|p| p.since)
    }
}

fn cost(send: &Send) -> usize {
    let texts = send.channel_id.len() + send.client_msg_no.len() + send.topic.len();
    OUTSTANDING_OVERHEAD_BYTES + send.payload.len() + texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(payload: usize) -> Send {
        Send {
            payload: Bytes::from(vec![0; payload]),
            ..Send::default()
        }
    }

    #[test]
    fn numbers_survive_the_wrap_of_client_seq() {
        let mut outstanding = Outstanding {
            next: u64::from(u32::MAX) - 1,
            ..Outstanding::default()
        };
        let seqs: Vec<u32> = (0..4)
            .map(|tag| outstanding.push(Mono(0), message(1), tag).client_seq)
            .collect();
        assert_eq!(seqs, [u32::MAX - 1, u32::MAX, 0, 1]);
        let again: Vec<u32> = outstanding.again(Mono(5)).map(|s| s.client_seq).collect();
        assert_eq!(again, seqs);
        for (tag, seq) in seqs.into_iter().enumerate().rev() {
            assert_eq!(outstanding.take(seq), Some(tag));
            assert_eq!(outstanding.take(seq), None);
        }
        assert_eq!((outstanding.len(), outstanding.bytes), (0, 0));
    }

    #[test]
    fn both_bounds_hold() {
        let mut by_count = Outstanding::default();
        while by_count.has_room() {
            by_count.push(Mono(0), message(0), ());
        }
        assert_eq!(by_count.len(), OUTSTANDING_MAX);
        let mut by_bytes = Outstanding::default();
        while by_bytes.has_room() {
            by_bytes.push(Mono(0), message(PAYLOAD_BYTES_MAX), ());
        }
        assert!(by_bytes.len() > 10 && by_bytes.bytes <= OUTSTANDING_BYTES_MAX + 64 * 1024);
        assert_eq!(by_bytes.take(1), Some(()));
        assert!(by_bytes.has_room());
    }
}
