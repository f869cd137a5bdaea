//! Many calls at once, bounded.

use std::collections::BTreeMap;
use std::future::Future;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use wk_chat::query::{Answer, Query, Recents, RecentsOf};

use super::error::Result;
use super::{Service, mismatch};

/// Calls of one request under way at a time; more wait for the first of them.
const CALLS_MAX: usize = 64;

/// Channels in one question to a slot; more become several questions.
const CHANNELS_PER_CALL_MAX: usize = 1_000;

/// Runs `calls`, at most [`CALLS_MAX`] at a time. Results in the order of the calls.
pub(super) async fn all<F: Future>(calls: Vec<F>) -> Vec<F::Output> {
    let mut waiting = calls.into_iter();
    let mut running: FuturesOrdered<F> = waiting.by_ref().take(CALLS_MAX).collect();
    let mut results = Vec::new();
    while let Some(result) = running.next().await {
        results.push(result);
        running.extend(waiting.next());
    }
    results
}

impl Service {
    /// Asks every slot once for all its channels of `wanted`. Answers in the order of `wanted`; an error if one slot fails, never a
    /// shorter list (H6).
    pub(super) async fn recents(&self, wanted: Vec<RecentsOf>) -> Result<Vec<Recents>> {
        let count = wanted.len();
        let questions = by_slot(wanted, self.slot_count());
        let calls = questions
            .into_iter()
            .map(|(places, list)| self.placed_recents(places, list))
            .collect();
        let mut answers: Vec<Option<Recents>> = vec![None; count];
        for answer in all(calls).await {
            let (places, found) = answer?;
            if places.len() != found.len() {
                return Err(mismatch(&found.len()));
            }
            for (place, recents) in places.into_iter().zip(found) {
                answers[place] = Some(recents);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    async fn placed_recents(
        &self,
        places: Vec<usize>,
        list: Vec<RecentsOf>,
    ) -> Result<(Vec<usize>, Vec<Recents>)> {
        Ok((places, self.recents_of_slot(list).await?))
    }

    async fn recents_of_slot(&self, list: Vec<RecentsOf>) -> Result<Vec<Recents>> {
        match self.query(Query::Recents(list)).await? {
            Answer::Recents(found) => Ok(found),
            other => Err(mismatch(&other)),
        }
    }
}

/// Groups by slot; each part knows the places of its channels in the whole.
fn by_slot(wanted: Vec<RecentsOf>, slot_count: u16) -> Vec<(Vec<usize>, Vec<RecentsOf>)> {
    let mut slots: BTreeMap<_, Vec<(Vec<usize>, Vec<RecentsOf>)>> = BTreeMap::new();
    for (place, of) in wanted.into_iter().enumerate() {
        let parts = slots.entry(of.channel.slot(slot_count)).or_default();
        if parts
            .last()
            .is_none_or(|(_, list)| list.len() >= CHANNELS_PER_CALL_MAX)
        {
            parts.push(Default::default());
        }
        if let Some((places, list)) = parts.last_mut() {
            places.push(place);
            list.push(of);
        }
    }
    slots.into_values().flatten().collect()
}
