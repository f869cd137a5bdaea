//! Rows owed to other slots: written by the causing command ([`crate::step::Step::owe`]), removed when delivered (H6).

use wk_store::Result;

use crate::command::Effect;
use crate::request::{OutboxKey, Reply};
use crate::rows::{self, Rows};
use crate::step::Step;
use crate::tables;
use crate::wire;

/// Forgets delivered rows.
pub(crate) fn done(step: &mut Step<'_, '_>, keys: &[OutboxKey]) -> Reply {
    for key in keys {
        step.tx.delete(tables::OUTBOX, &tables::outbox(*key));
    }
    Reply::Done
}

/// Rows after `after`, at most `limit`, in order of their causes.
pub(crate) fn owed(
    rows: &impl Rows,
    after: Option<OutboxKey>,
    limit: usize,
) -> Result<Vec<Effect>> {
    let after = after.map(tables::outbox);
    rows.rows(tables::OUTBOX, &[], after.as_deref(), limit)?
        .into_iter()
        .map(|(key, value)| {
            let key = tables::outbox_key(&key)
                .ok_or_else(|| rows::corrupt(tables::OUTBOX, "a key of another length"))?;
            let inbox = wire::decode_inbox(value)
                .map_err(|e| rows::corrupt(tables::OUTBOX, &e.to_string()))?;
            Ok(Effect::Outbox(key, inbox))
        })
        .collect()
}
