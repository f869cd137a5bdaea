//! The books of a run: what was offered must be acked, stored and delivered, each once and in order.
//!
//! A message is its number: `client_seq` is the number plus one, `client_msg_no` (and the beginning of the payload) spell it
//! out behind a tag of the run, so that neither old messages nor mixed-up contents go unnoticed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::histogram::Histogram;

/// Bytes of a message's text number.
pub const NUMBER_BYTES: usize = 20;
const TAG_BYTES: usize = 8;
/// Messages of a run, so that each has a client_seq of its own. At it nothing more is sent.
pub const MESSAGES_MAX: usize = u32::MAX as usize - 1;

/// One channel of the run.
pub struct Channel {
    /// As the sender names it.
    pub id: String,
    /// Type on the wire.
    pub kind: u8,
    /// Who may read its history.
    pub login: String,
    acked: u64,
    last_acked: Option<(u32, u32)>,
}

struct Message {
    due_ns: u64,
    channel: u32,
    /// 0 until it is acked.
    seq: u32,
    copies: u32,
}

/// The last seq a receiver got, per channel; most have one.
pub type LastSeqs = BTreeMap<u32, u32>;

/// Everything counted.
pub struct Books {
    tag: [u8; TAG_BYTES],
    messages: Vec<Message>,
    channels: Vec<Channel>,
    /// Receivers of every message.
    receivers: u32,
    /// Due moments that are measured.
    measured: std::ops::Range<u64>,
    /// From due to SENDACK.
    pub ack_latency: Histogram,
    /// From due to RECV.
    pub delivery_latency: Histogram,
    /// From due to the generator's write: its own share of the latencies.
    pub lateness: Histogram,
    /// Acks with success.
    pub acked: u64,
    /// Acks with another reason, by code.
    pub refused: BTreeMap<u8, u64>,
    /// RECVs.
    pub delivered: u64,
    /// Messages that all receivers have.
    pub complete: u64,
    /// What must not be, by name.
    faults: BTreeMap<&'static str, u64>,
}

impl Books {
    /// Empty books; `tag` tells runs apart.
    pub fn new(tag: u32, receivers: u32) -> Self {
        let mut text = [0; TAG_BYTES];
        write_hex(u64::from(tag), &mut text);
        Self {
            tag: text,
            messages: Vec::new(),
            channels: Vec::new(),
            receivers,
            measured: 0..0,
            ack_latency: Histogram::default(),
            delivery_latency: Histogram::default(),
            lateness: Histogram::default(),
            acked: 0,
            refused: BTreeMap::new(),
            delivered: 0,
            complete: 0,
            faults: BTreeMap::new(),
        }
    }

    /// Adds a channel; its index.
    pub fn channel(&mut self, id: String, kind: u8, login: String) -> u32 {
        self.channels.push(Channel {
            id,
            kind,
            login,
            acked: 0,
            last_acked: None,
        });
        self.channels.len() as u32 - 1
    }

    /// Only what is due in there enters the histograms.
    pub fn measure(&mut self, due_ns: std::ops::Range<u64>) {
        self.measured = due_ns;
    }

    /// Enters a message that is due at `due_ns` and written now: its client_seq and its text number.
    pub fn offer(&mut self, channel: u32, due_ns: u64, now_ns: u64) -> (u32, [u8; NUMBER_BYTES]) {
        let index = self.messages.len();
        self.messages.push(Message {
            due_ns,
            channel,
            seq: 0,
            copies: 0,
        });
        if self.measured.contains(&due_ns) {
            self.lateness.add(now_ns.saturating_sub(due_ns));
        }
        let mut number = [0; NUMBER_BYTES];
        number[..TAG_BYTES].copy_from_slice(&self.tag);
        write_hex(index as u64, &mut number[TAG_BYTES..]);
        (index as u32 + 1, number)
    }

    /// Enters a SENDACK. Those of one channel must come in the order of its messages, with seqs that follow each other.
    pub fn ack(&mut self, client_seq: u32, seq: u32, reason: u8, now_ns: u64) {
        let index = client_seq.wrapping_sub(1);
        let Some(message) = self.messages.get_mut(index as usize) else {
            return self.fault("acks of nothing");
        };
        if reason != wk_proto::Reason::Success.code() {
            *self.refused.entry(reason).or_default() += 1;
            return;
        }
        if message.seq != 0 {
            return self.fault("second acks");
        }
        message.seq = seq;
        self.acked += 1;
        if self.measured.contains(&message.due_ns) {
            self.ack_latency.add(now_ns.saturating_sub(message.due_ns));
        }
        let channel = &mut self.channels[message.channel as usize];
        channel.acked += 1;
        let follows = channel
            .last_acked
            .is_none_or(|(last_seq, last_index)| seq == last_seq + 1 && index > last_index);
        channel.last_acked = Some((seq, index));
        if !follows {
            self.fault("acks out of order");
        }
    }

    /// Enters a RECV; whether its content shall be looked at. Each receiver must get each seq of a channel in rising order,
    /// so that the right number of copies also means the right ones.
    pub fn deliver(&mut self, last: &mut LastSeqs, number: &[u8], seq: u32, now_ns: u64) -> bool {
        const LOOK_EVERY: u64 = 16;
        let Some(index) = self.index(number) else {
            self.fault("foreign messages");
            return false;
        };
        let message = &mut self.messages[index];
        message.copies += 1;
        self.delivered += 1;
        self.complete += u64::from(message.copies == self.receivers);
        if self.measured.contains(&message.due_ns) {
            self.delivery_latency
                .add(now_ns.saturating_sub(message.due_ns));
        }
        let last_seq = last.entry(message.channel).or_default();
        let rises = seq > *last_seq;
        *last_seq = seq;
        // The ack may still be on its way.
        let same_seq = message.seq == 0 || message.seq == seq;
        if !rises {
            self.fault("deliveries out of order or twice");
        }
        if !same_seq {
            self.fault("deliveries with another seq than the ack");
        }
        self.delivered.is_multiple_of(LOOK_EVERY)
    }

    /// Enters a look at a content.
    pub fn content(&mut self, number: &[u8], payload: Option<&[u8]>) {
        let right = payload.is_some_and(|p| p.starts_with(&number[..number.len().min(p.len())]));
        if !right {
            self.fault("wrong contents");
        }
    }

    /// Counts something that must not be.
    pub fn fault(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    fn index(&self, number: &[u8]) -> Option<usize> {
        let digits = number.strip_prefix(&self.tag)?;
        let digits = std::str::from_utf8(digits).ok()?;
        let index = usize::from_str_radix(digits, 16).ok()?;
        (number.len() == NUMBER_BYTES && index < self.messages.len()).then_some(index)
    }

    /// Messages so far.
    pub fn offered(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Acks so far, refusals included.
    pub fn answered(&self) -> u64 {
        self.acked + self.refused.values().sum::<u64>()
    }

    /// Deliveries that must have come in the end.
    pub fn expected(&self) -> u64 {
        self.acked * u64::from(self.receivers)
    }

    /// All channels.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// Compares the whole history of a channel, as (seq, client_msg_no), with its acks.
    pub fn history(&mut self, channel: u32, stored: &[(u64, String)]) {
        let acked = self.messages.iter().enumerate();
        let acked = acked.filter(|(_, m)| m.channel == channel && m.seq != 0);
        let acked = acked.map(|(i, m)| (u64::from(m.seq), Some(i)));
        let stored = stored
            .iter()
            .map(|(seq, number)| (*seq, self.index(number.as_bytes())));
        if !acked.eq(stored) {
            self.fault("histories that differ from the acks");
        }
    }

    /// Closes the books. `stored`: newest seq of every channel, as the store has it; `None` = not asked.
    pub fn close(mut self, stored: Option<&[u64]>) -> Balance {
        let missing = |have: u64, want: u64| want.saturating_sub(have);
        let unanswered = missing(self.answered(), self.offered());
        let undelivered = missing(self.delivered, self.expected());
        let too_many = missing(self.expected(), self.delivered);
        let wrong_copies = self.messages.iter();
        let wrong_copies = wrong_copies.filter(|m| m.seq != 0 && m.copies != self.receivers);
        let wrong_copies = wrong_copies.count() as u64;
        let mut add = |what, n| {
            if n > 0 {
                *self.faults.entry(what).or_default() += n;
            }
        };
        add("messages never answered", unanswered);
        add("messages refused", self.refused.values().sum());
        add("deliveries missing", undelivered);
        add("deliveries too many", too_many);
        add("messages without the right number of copies", wrong_copies);
        if let Some(stored) = stored {
            let pairs = self.channels.iter().zip(stored);
            let wrong = pairs.filter(|(c, stored)| c.acked != **stored).count() as u64;
            add("channels whose store differs from their acks", wrong);
        }
        Balance {
            offered: self.messages.len() as u64,
            acked: self.acked,
            stored: stored.map(|s| s.iter().sum()),
            delivered: self.delivered,
            receivers: self.receivers,
            faults: self.faults,
            refused: self.refused,
        }
    }
}

/// Books closed.
#[derive(Clone, Debug)]
pub struct Balance {
    offered: u64,
    acked: u64,
    stored: Option<u64>,
    delivered: u64,
    receivers: u32,
    faults: BTreeMap<&'static str, u64>,
    refused: BTreeMap<u8, u64>,
}

impl Balance {
    /// For scenarios without messages: operations tried and those that went wrong, by what was wrong.
    pub fn of_operations(
        tried: u64,
        stored: Option<u64>,
        faults: BTreeMap<&'static str, u64>,
    ) -> Self {
        let failed: u64 = faults.values().sum();
        Self {
            offered: tried,
            acked: tried - failed.min(tried),
            stored,
            delivered: 0,
            receivers: 0,
            faults,
            refused: BTreeMap::new(),
        }
    }

    /// Nothing is wrong.
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }

    /// In a line.
    pub fn text(&self) -> String {
        let stored = self.stored.map_or("?".to_owned(), |s| s.to_string());
        let mut text = format!(
            "offered {} acked {} stored {stored}",
            self.offered, self.acked
        );
        if self.receivers > 0 {
            text += &format!(" delivered {} ({} each)", self.delivered, self.receivers);
        }
        for (what, n) in &self.faults {
            text += &format!("; {n} {what}");
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "balanced": self.holds(), "offered": self.offered, "acked": self.acked, "stored": self.stored,
            "delivered": self.delivered, "receivers": self.receivers, "faults": self.faults,
            "refused_by_reason": self.refused,
        })
    }
}

/// Lower-case digits, filling `out`.
fn write_hex(mut n: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages in one channel, for two receivers; `n` of each in text.
    fn books() -> (Books, Vec<[u8; NUMBER_BYTES]>) {
        let mut books = Books::new(0xABC, 2);
        let channel = books.channel("g".to_owned(), 2, "u".to_owned());
        books.measure(0..100);
        let numbers = (0..2).map(|i| books.offer(channel, i, i).1).collect();
        (books, numbers)
    }

    fn deliver_all(books: &mut Books, numbers: &[[u8; NUMBER_BYTES]]) {
        for _ in 0..2 {
            let mut last = LastSeqs::new();
            for (i, number) in numbers.iter().enumerate() {
                books.deliver(&mut last, number, i as u32 + 1, 50);
                books.content(number, Some(number));
            }
        }
    }

    #[test]
    fn a_clean_run_balances() {
        let (mut books, numbers) = books();
        books.ack(1, 1, 1, 10);
        deliver_all(&mut books, &numbers);
        books.ack(2, 2, 1, 20);
        assert_eq!((books.complete, books.answered()), (2, 2));
        assert_eq!(
            (books.ack_latency.total(), books.ack_latency.max()),
            (2, 19)
        );
        assert_eq!(books.delivery_latency.total(), 4);
        let balance = books.close(Some(&[2]));
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(
            balance.text(),
            "offered 2 acked 2 stored 2 delivered 4 (2 each)"
        );
    }

    #[test]
    fn a_history_is_compared_message_by_message() {
        let (mut books, numbers) = books();
        books.ack(1, 1, 1, 10);
        books.ack(2, 2, 1, 10);
        let text = |i: usize| String::from_utf8(numbers[i].to_vec()).unwrap();
        books.history(0, &[(1, text(0)), (2, text(1))]);
        assert!(books.faults.is_empty());
        let wrong = [
            vec![(1, text(1)), (2, text(0))],
            vec![(1, text(0))],
            vec![(1, text(0)), (3, text(1))],
            vec![(1, text(0)), (2, "foreign".to_owned())],
            vec![(1, text(0)), (2, text(1)), (3, text(1))],
        ];
        let found = wrong.len() as u64;
        for stored in &wrong {
            books.history(0, stored);
        }
        assert_eq!(books.faults["histories that differ from the acks"], found);
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let broken = |act: &dyn Fn(&mut Books, &[[u8; NUMBER_BYTES]])| {
            let (mut books, numbers) = books();
            act(&mut books, &numbers);
            books
                .close(Some(&[2]))
                .faults
                .into_keys()
                .collect::<Vec<_>>()
        };
        let acks = |books: &mut Books| {
            books.ack(1, 1, 1, 10);
            books.ack(2, 2, 1, 10);
        };
        assert_eq!(
            broken(&|b, n| {
                b.ack(2, 1, 1, 9);
                b.ack(1, 2, 1, 9);
                deliver_all(b, n);
            }),
            [
                "acks out of order",
                "deliveries with another seq than the ack"
            ]
        );
        assert_eq!(
            broken(&|b, n| {
                acks(b);
                b.ack(2, 3, 1, 10);
                b.ack(9, 3, 1, 10);
                deliver_all(b, n);
            }),
            ["acks of nothing", "second acks"]
        );
        let lost = broken(&|b, n| {
            acks(b);
            b.deliver(&mut LastSeqs::new(), &n[0], 1, 10);
            b.deliver(&mut LastSeqs::new(), b"00000abd000000000000", 1, 10);
        });
        assert_eq!(
            lost,
            [
                "deliveries missing",
                "foreign messages",
                "messages without the right number of copies"
            ]
        );
        let twice = broken(&|b, n| {
            acks(b);
            deliver_all(b, n);
            let mut last = LastSeqs::from([(0, 2)]);
            b.deliver(&mut last, &n[1], 2, 10);
            b.content(&n[1], Some(b"other"));
            b.content(&n[1], None);
        });
        assert!(twice.contains(&"deliveries out of order or twice"));
        assert!(twice.contains(&"deliveries too many") && twice.contains(&"wrong contents"));
        let refused = broken(&|b, _| {
            b.ack(1, 0, 13, 10);
        });
        assert_eq!(
            refused,
            [
                "channels whose store differs from their acks",
                "messages never answered",
                "messages refused"
            ]
        );
    }
}
