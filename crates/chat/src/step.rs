//! One command being applied: where it is in the log, what it writes, what it causes.

use wk_proto::{Epoch, LogIndex, WallMs};
use wk_store::Tx;

use crate::command::{Effect, Outcome};
use crate::request::{Inbox, OutboxKey, Reply};
use crate::tables;
use crate::wire;

/// Bits of an outbox position for the row's number within its command: 2^20 rows a command, 4,096 commands an entry. Batches are
/// cut at 256 commands (D6); the largest command is a switched person list, `2 * PERSON_LIST_MAX` rows.
const ROW_BITS: u32 = 20;

/// Mutable side of `apply`, handed down to the module of the command.
pub(crate) struct Step<'a, 't> {
    /// Writes.
    pub tx: &'a mut Tx<'t>,
    /// Stamp's time.
    pub time: WallMs,
    at: LogIndex,
    first: u32,
    effects: &'a mut Vec<Effect>,
    owed: Vec<OutboxKey>,
}

impl<'a, 't> Step<'a, 't> {
    pub(crate) fn new(
        at: LogIndex,
        position: u32,
        time: WallMs,
        tx: &'a mut Tx<'t>,
        effects: &'a mut Vec<Effect>,
    ) -> Self {
        debug_assert!(
            position < 1 << (32 - ROW_BITS),
            "an entry holds few commands"
        );
        Self {
            tx,
            time,
            at,
            first: position << ROW_BITS,
            effects,
            owed: Vec::new(),
        }
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Epoch of what this command does now. Distinct for each row it owes.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch {
            index: self.at,
            position: self.first + self.owed.len() as u32,
        }
    }

    /// Writes an outbox row: another slot is told, at least once, and this command's answer waits for it (H6).
    pub(crate) fn owe(&mut self, inbox: Inbox) {
        debug_assert!(self.owed.len() < 1 << ROW_BITS, "a command owes few rows");
        let Epoch { index, position } = self.epoch();
        let key = OutboxKey { index, position };
        let value = wire::encode_inbox(&inbox);
        self.tx.put(tables::OUTBOX, &tables::outbox(key), value);
        self.owed.push(key);
        self.effects.push(Effect::Outbox(key, inbox));
    }

    pub(crate) fn finish(self, reply: Reply) -> Outcome {
        Outcome {
            reply,
            outbox: self.owed,
        }
    }
}
