//! What is removed because time passed (H7, H9, D20).
//!
//! Rows that may have to go are noted in `EXPIRIES` by time, so that finding those that are due reads nothing else. A note is a
//! reason to look, not a verdict: a row that came back to life meanwhile stays, and nobody takes notes back.
//!
//! The leader proposes a sweep ([`due`]) with the times it reckons from its clock and settings; apply only compares.

use wk_proto::WallMs;
use wk_store::{Result, View};

use crate::policy::Policy;
use crate::request::{Reply, Write};
use crate::rows::{self, Channel, Rows};
use crate::step::Step;
use crate::tables::{self, Expiring};
use crate::{conversations, members, sets};

/// Tombstones, and members of temporary channels, removed by one command; what is left waits for the next.
pub(crate) const SWEEP_ROWS_MAX: usize = 512;

/// How long a membership's tombstone keeps its epochs, in ms: longer than an older word about it can be on its way (H7).
pub(crate) const TOMBSTONE_MS: u64 = 7 * 24 * 3600 * 1000;

/// Notes that a row may have to go, counted from `time` (ms).
pub(crate) fn note(step: &mut Step<'_, '_>, what: Expiring, time: u64, row: &[u8]) {
    let key = tables::expiry(what, time, row);
    step.tx.put(tables::EXPIRIES, &key, bytes::Bytes::new());
}

/// The sweep to propose, if anything is old enough.
pub(crate) fn due(view: &View, policy: &Policy, now: WallMs) -> Result<Option<Write>> {
    let ago = |ms| WallMs(now.0.saturating_sub(ms));
    let (tombstones, temporaries) = (ago(TOMBSTONE_MS), ago(policy.temp_retention_ms));
    let is_due = !old(view, Expiring::Tombstone, tombstones, 1)?.is_empty()
        || !old(view, Expiring::Temporary, temporaries, 1)?.is_empty()
        || !view.rows(tables::GARBAGE, &[], None, 1)?.is_empty();
    Ok(is_due.then_some(Write::Sweep {
        tombstones,
        temporaries,
    }))
}

/// Notes from before a time, oldest first, at most `limit`.
fn old(
    rows: &impl Rows,
    what: Expiring,
    before: WallMs,
    limit: usize,
) -> Result<Vec<(bytes::Bytes, Vec<u8>)>> {
    let mut out = Vec::new();
    for (key, _) in rows.rows(tables::EXPIRIES, &tables::expiries(what), None, limit)? {
        let (time, row) = tables::expiry_parts(&key)
            .ok_or_else(|| rows::corrupt(tables::EXPIRIES, "a key without a time"))?;
        if time >= before.0 {
            break;
        }
        let row = row.to_vec();
        out.push((key, row));
    }
    Ok(out)
}

/// Applies [`Write::Sweep`].
pub(crate) fn sweep(
    step: &mut Step<'_, '_>,
    tombstones: WallMs,
    temporaries: WallMs,
) -> Result<Reply> {
    for (note, row) in old(step.tx, Expiring::Tombstone, tombstones, SWEEP_ROWS_MAX)? {
        conversations::forget_tombstone(step, &row, tombstones)?;
        step.tx.delete(tables::EXPIRIES, &note);
    }
    let mut budget = SWEEP_ROWS_MAX;
    for (note, row) in old(step.tx, Expiring::Temporary, temporaries, SWEEP_ROWS_MAX)? {
        match expire(step, &row, temporaries, budget)? {
            Some(left) => budget = left,
            None => break,
        }
        step.tx.delete(tables::EXPIRIES, &note);
    }
    sets::sweep_under(step, &[])?;
    Ok(Reply::Done)
}

/// Gives what is left of the budget; `None`: not done with this channel.
fn expire(
    step: &mut Step<'_, '_>,
    key: &[u8],
    before: WallMs,
    budget: usize,
) -> Result<Option<usize>> {
    let Some(row) = step.tx.find::<Channel>(tables::CHANNELS, key)? else {
        return Ok(Some(budget));
    };
    let channel = tables::channel_of(key)
        .ok_or_else(|| rows::corrupt(tables::CHANNELS, "a key without a channel"))?;
    let last_use = members::last_use(step, &channel, &row)?;
    if last_use >= before {
        note(step, Expiring::Temporary, last_use.0, key);
        return Ok(Some(budget));
    }
    members::expire(step, &channel, row, budget)
}
