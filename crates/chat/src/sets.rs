//! Sets of uids with generations (H11): members, deny and allow lists. Knows nothing of conversations or pair rows: callers act on
//! the [`Delta`].
//!
//! A set is the entries of its current generation. Replacing makes a new generation and leaves the old entries to a sweep of at most
//! [`SWEEP_ROWS`] rows a later write, so that no entry is larger than its input.

use bytes::Bytes;
use wk_proto::{ChannelKey, Uid, WallMs};
use wk_store::Result;

use crate::query::ListEntry;
use crate::request::SetChange;
use crate::rows::{self, Channel, Entry, Rows, Stage};
use crate::step::Step;
use crate::tables::{self, Set};

/// Rows of abandoned generations removed by one write to the channel.
const SWEEP_ROWS: usize = 1_000;

/// Uids in one answer; a larger `limit` of a query is cut to it, and the answer says that more follow.
pub const PAGE_UIDS_MAX: usize = 10_000;

/// What became visible, or will with the switch.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub added: Vec<Uid>,
    pub removed: Vec<Uid>,
}

/// How much of a replacement the caller wants to know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// New uids only, and when they are staged: bounded by the input.
    Added,
    /// Both directions, and when they become visible: reads the whole old set.
    Both,
}

/// Changes one set; the caller writes `row` afterwards.
pub(crate) fn change(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    row: &mut Channel,
    set: Set,
    change: SetChange,
    detail: Detail,
) -> Result<Delta> {
    let mut sets = Sets {
        step,
        channel,
        row,
        set,
    };
    let delta = match change {
        SetChange::Add(uids) => sets.add(uids)?,
        SetChange::Remove(uids) => sets.remove(uids)?,
        SetChange::Replace(uids) => sets.replace(&uids, detail)?,
        SetChange::Stage { token, uids } => sets.stage(token, uids, detail)?,
        SetChange::Switch { token } => sets.switch(token, detail)?,
    };
    sweep(step, channel)?;
    Ok(delta)
}

struct Sets<'s, 'a, 't> {
    step: &'s mut Step<'a, 't>,
    channel: &'s ChannelKey,
    row: &'s mut Channel,
    set: Set,
}

impl Sets<'_, '_, '_> {
    /// A replacement under construction sees single changes too, or switching would undo them.
    fn add(&mut self, uids: Vec<Uid>) -> Result<Delta> {
        let mut delta = Delta::default();
        for uid in uids {
            if let Some(mut stage) = self.state().stage
                && self.insert(stage.generation, &uid)?
            {
                stage.count += 1;
                self.state_mut().stage = Some(stage);
            }
            if self.insert(self.state().generation, &uid)? {
                self.state_mut().count += 1;
                delta.added.push(uid);
            }
        }
        self.touch(&delta);
        Ok(delta)
    }

    fn remove(&mut self, uids: Vec<Uid>) -> Result<Delta> {
        let mut delta = Delta::default();
        for uid in uids {
            if let Some(mut stage) = self.state().stage
                && self.take(stage.generation, &uid)?
            {
                stage.count -= 1;
                self.state_mut().stage = Some(stage);
            }
            if self.take(self.state().generation, &uid)? {
                self.state_mut().count -= 1;
                delta.removed.push(uid);
            }
        }
        self.touch(&delta);
        Ok(delta)
    }

    fn replace(&mut self, uids: &[Uid], detail: Detail) -> Result<Delta> {
        self.abandon_stage();
        let generation = self.new_generation();
        let mut delta = Delta::default();
        let mut count = 0;
        for uid in uids {
            if self.insert(generation, uid)? {
                count += 1;
                if !self.has(self.state().generation, uid)? {
                    delta.added.push(uid.clone());
                }
            }
        }
        if detail == Detail::Both {
            delta.removed = self.only_in(self.state().generation, generation)?;
        }
        self.show(generation, count);
        Ok(delta)
    }

    fn stage(&mut self, token: u64, uids: Vec<Uid>, detail: Detail) -> Result<Delta> {
        let mut stage = match self.state().stage {
            Some(stage) if stage.token == token => stage,
            _ => {
                self.abandon_stage();
                Stage {
                    token,
                    generation: self.new_generation(),
                    count: 0,
                }
            }
        };
        let mut delta = Delta::default();
        for uid in uids {
            if self.insert(stage.generation, &uid)? {
                stage.count += 1;
                if detail == Detail::Added && !self.has(self.state().generation, &uid)? {
                    delta.added.push(uid);
                }
            }
        }
        self.state_mut().stage = Some(stage);
        Ok(delta)
    }

    /// A second switch with the same token finds no stage and changes nothing: a retry is harmless.
    fn switch(&mut self, token: u64, detail: Detail) -> Result<Delta> {
        let Some(stage) = self.state().stage.filter(|s| s.token == token) else {
            return Ok(Delta::default());
        };
        let mut delta = Delta::default();
        if detail == Detail::Both {
            let old = self.state().generation;
            delta.added = self.only_in(stage.generation, old)?;
            delta.removed = self.only_in(old, stage.generation)?;
        }
        self.state_mut().stage = None;
        self.show(stage.generation, stage.count);
        Ok(delta)
    }

    fn state(&self) -> &rows::SetState {
        self.row.set(self.set)
    }

    fn state_mut(&mut self) -> &mut rows::SetState {
        self.row.set_mut(self.set)
    }

    fn touch(&mut self, delta: &Delta) {
        if !delta.added.is_empty() || !delta.removed.is_empty() {
            self.state_mut().version += 1;
        }
    }

    fn new_generation(&mut self) -> u64 {
        let state = self.state_mut();
        state.last_generation += 1;
        state.last_generation
    }

    fn show(&mut self, generation: u64, count: u64) {
        let (old, empty) = (self.state().generation, self.state().count == 0);
        if !empty {
            self.discard(old);
        }
        let state = self.state_mut();
        state.generation = generation;
        state.count = count;
        state.version += 1;
    }

    fn abandon_stage(&mut self) {
        if let Some(stage) = self.state_mut().stage.take() {
            self.discard(stage.generation);
        }
    }

    fn discard(&mut self, generation: u64) {
        let key = tables::generation(self.channel, self.set, generation);
        self.step.tx.put(tables::GARBAGE, &key, Bytes::new());
    }

    fn has(&self, generation: u64, uid: &Uid) -> Result<bool> {
        let key = tables::entry(self.channel, self.set, generation, uid);
        Ok(self.step.tx.row(tables::SET_ENTRIES, &key)?.is_some())
    }

    /// `true` if it was not there. An entry that was is dated anew: who adds it again means it now.
    fn insert(&mut self, generation: u64, uid: &Uid) -> Result<bool> {
        let key = tables::entry(self.channel, self.set, generation, uid);
        let found: Option<Entry> = self.step.tx.find(tables::SET_ENTRIES, &key)?;
        let epoch = rows::Epoch::from(self.step.epoch());
        let mut entry = found.unwrap_or(Entry {
            index: epoch.index,
            position: epoch.position,
            created: self.step.time.0,
            updated: 0,
        });
        entry.updated = self.step.time.0;
        rows::put(self.step.tx, tables::SET_ENTRIES, &key, &entry);
        Ok(found.is_none())
    }

    fn take(&mut self, generation: u64, uid: &Uid) -> Result<bool> {
        if !self.has(generation, uid)? {
            return Ok(false);
        }
        let key = tables::entry(self.channel, self.set, generation, uid);
        self.step.tx.delete(tables::SET_ENTRIES, &key);
        Ok(true)
    }

    /// Uids of one generation that are not in another, in key order.
    fn only_in(&self, generation: u64, other: u64) -> Result<Vec<Uid>> {
        let mut out = Vec::new();
        each_uid(&*self.step.tx, self.channel, self.set, generation, |uid| {
            if !self.has(other, &uid)? {
                out.push(uid);
            }
            Ok(true)
        })?;
        Ok(out)
    }
}

/// Calls `each` for the uids of one generation, in key order, until it answers `false`.
fn each_uid(
    rows: &impl Rows,
    channel: &ChannelKey,
    set: Set,
    generation: u64,
    mut each: impl FnMut(Uid) -> Result<bool>,
) -> Result<()> {
    let prefix = tables::generation(channel, set, generation);
    rows::each_row(rows, tables::SET_ENTRIES, &prefix, None, |key, _| {
        each(uid_of(&key, &prefix)?)
    })
}

fn uid_of(key: &[u8], prefix: &[u8]) -> Result<Uid> {
    tables::text_after(key, prefix)
        .map(Uid::trusted)
        .ok_or_else(|| rows::corrupt(tables::SET_ENTRIES, "a key without a uid"))
}

/// Some uids of a set, at most `limit`, staged ones first; with a `limit` above 0 none only if it is empty.
pub(crate) fn some(
    rows: &impl Rows,
    channel: &ChannelKey,
    row: &Channel,
    set: Set,
    limit: usize,
) -> Result<Vec<Uid>> {
    let state = row.set(set);
    let staged = state.stage.filter(|stage| stage.count > 0);
    let generation = staged.map_or(state.generation, |stage| stage.generation);
    let prefix = tables::generation(channel, set, generation);
    let found = rows.rows(tables::SET_ENTRIES, &prefix, None, limit)?;
    found.iter().map(|(key, _)| uid_of(key, &prefix)).collect()
}

/// A page of the visible set, of at most [`PAGE_UIDS_MAX`], and whether more follow.
pub(crate) fn page(
    rows: &impl Rows,
    channel: &ChannelKey,
    set: Set,
    after: Option<&Uid>,
    limit: usize,
) -> Result<(Vec<Uid>, bool)> {
    page_of(rows, channel, set, after, limit, |uid, _| Ok(uid))
}

/// The same with the entries' times.
pub(crate) fn listed(
    rows: &impl Rows,
    channel: &ChannelKey,
    set: Set,
    after: Option<&Uid>,
    limit: usize,
) -> Result<(Vec<ListEntry>, bool)> {
    page_of(rows, channel, set, after, limit, |uid, value| {
        let entry: Entry = rows::decode(tables::SET_ENTRIES, value)?;
        Ok(ListEntry {
            uid,
            created: WallMs(entry.created),
            updated: WallMs(entry.updated),
        })
    })
}

fn page_of<T>(
    rows: &impl Rows,
    channel: &ChannelKey,
    set: Set,
    after: Option<&Uid>,
    limit: usize,
    make: impl Fn(Uid, Bytes) -> Result<T>,
) -> Result<(Vec<T>, bool)> {
    let limit = limit.min(PAGE_UIDS_MAX);
    let generation = Channel::read(rows, channel)?.set(set).generation;
    let prefix = tables::generation(channel, set, generation);
    let after = after.map(|uid| tables::entry(channel, set, generation, uid));
    let found = rows.rows(tables::SET_ENTRIES, &prefix, after.as_deref(), limit + 1)?;
    let more = found.len() > limit;
    let page = found.into_iter().take(limit);
    let page: Result<_> = page
        .map(|(key, value)| make(uid_of(&key, &prefix)?, value))
        .collect();
    Ok((page?, more))
}

/// Empties a set and abandons its replacement, if there is anything.
pub(crate) fn clear(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    row: &mut Channel,
    set: Set,
) -> Result<()> {
    let state = row.set(set);
    if state.count > 0 || state.stage.is_some() {
        let nothing = SetChange::Replace(Vec::new());
        change(step, channel, row, set, nothing, Detail::Added)?;
    }
    Ok(())
}

/// Whether entries of abandoned generations of this channel are left.
pub(crate) fn has_garbage(step: &Step<'_, '_>, channel: &ChannelKey) -> Result<bool> {
    let prefix = tables::channel(channel);
    let found = step.tx.rows(tables::GARBAGE, &prefix, None, 1)?;
    Ok(!found.is_empty())
}

/// Removes some rows of the channel's abandoned generations.
fn sweep(step: &mut Step<'_, '_>, channel: &ChannelKey) -> Result<()> {
    sweep_under(step, &tables::channel(channel))
}

/// Removes some rows of one abandoned generation, of the channels under a prefix of `GARBAGE`.
pub(crate) fn sweep_under(step: &mut Step<'_, '_>, prefix: &[u8]) -> Result<()> {
    let found = step.tx.rows(tables::GARBAGE, prefix, None, 1)?;
    let Some((generation, _)) = found.first() else {
        return Ok(());
    };
    let entries = step
        .tx
        .rows(tables::SET_ENTRIES, generation, None, SWEEP_ROWS)?;
    for (key, _) in &entries {
        step.tx.delete(tables::SET_ENTRIES, key);
    }
    if entries.len() < SWEEP_ROWS {
        step.tx.delete(tables::GARBAGE, generation);
    }
    Ok(())
}
