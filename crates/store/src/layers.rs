//! A picture of one replica: the active memtable, perhaps a frozen one, and what the last commit put on disk. Newer places hide
//! older ones.
//!
//! The picture pins all three, so it does not matter what the writer, a checkpoint or a merge does meanwhile. The one trap is a
//! frozen part that the commit has already put on disk: it is left out, or its messages would show twice.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{ChannelKey, LogIndex, MessageSeq, ReplicaId, WallMs};

use crate::base::{Base, ReplicaBase};
use crate::layer::{Channel, Layer};
use crate::memtable::{Mem, MemView};
use crate::{Dir, Head, Result, Stored, Table};

pub(crate) struct Layers {
    replica: ReplicaId,
    active: MemView,
    frozen: Option<MemView>,
    base: Arc<Base>,
    disk: Arc<ReplicaBase>,
}

/// Rows of one place; `None` hides older ones.
type Rows<'a> = Peekable<Box<dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>> + 'a>>;

impl Layers {
    pub(crate) fn new(
        base: Arc<Base>,
        replica: ReplicaId,
        frozen: Option<(LogIndex, Arc<Mem>)>,
        active: MemView,
    ) -> Self {
        let disk = base.replica(replica);
        let frozen = frozen
            .filter(|(at, _)| *at > disk.row.meta.applied)
            .map(|(_, mem)| MemView::all(mem));
        Self {
            replica,
            active,
            frozen,
            base,
            disk,
        }
    }

    /// Places that hold messages.
    pub(crate) fn newest_first(&self) -> impl DoubleEndedIterator<Item = &dyn Layer> {
        let memory = std::iter::once(&self.active as &dyn Layer);
        let frozen = self.frozen.iter().map(|f| f as &dyn Layer);
        let disk = self.disk.sections.iter().rev().map(|s| s as &dyn Layer);
        memory.chain(frozen).chain(disk)
    }

    /// The same, starting from the end that `dir` names.
    pub(crate) fn towards(&self, dir: Dir) -> Box<dyn Iterator<Item = &dyn Layer> + '_> {
        match dir {
            Dir::Down => Box::new(self.newest_first()),
            Dir::Up => Box::new(self.newest_first().rev()),
        }
    }

    pub(crate) fn head(&self, channel: &ChannelKey) -> Result<Option<Head>> {
        let channel = Channel::new(channel);
        for layer in self.newest_first() {
            if let Some(head) = layer.head(&channel)? {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// See [`crate::Tx::duplicate`].
    pub(crate) fn duplicate(
        &self,
        channel: &ChannelKey,
        from: &str,
        client_msg_no: &str,
        since: WallMs,
    ) -> Result<Option<Stored>> {
        if client_msg_no.is_empty() {
            return Ok(None);
        }
        let channel = Channel::new(channel);
        for layer in self.newest_first() {
            if let Some(newest) = layer.duplicate(&channel, from, client_msg_no, since)? {
                return Ok(Some(newest).filter(|m| m.record.time() >= since));
            }
        }
        Ok(None)
    }

    /// Newest seq outside of the active memtable.
    pub(crate) fn head_seq_before_active(
        &self,
        channel: &Channel<'_>,
    ) -> Result<Option<MessageSeq>> {
        for layer in self.newest_first().skip(1) {
            if let Some(seq) = layer.head_seq(channel)? {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }

    pub(crate) fn channels(
        &self,
        after: Option<&ChannelKey>,
        limit: usize,
    ) -> Result<Vec<(ChannelKey, Head)>> {
        let mut merged = BTreeMap::new();
        for layer in self.towards(Dir::Up) {
            merged.extend(layer.channels(after, limit)?);
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let in_memory = self.active.get(table, key);
        match in_memory.or_else(|| self.frozen.as_ref()?.get(table, key)) {
            Some(known) => Ok(known),
            None => self.base.rows.get(self.replica, table, key),
        }
    }

    /// Merges the rows of all places; `own` are those of an open transaction, newer than everything.
    pub(crate) fn scan(
        &self,
        own: Option<&BTreeMap<Bytes, Option<Bytes>>>,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(Bytes::copy_from_slice(after)),
            _ => Bound::Included(Bytes::copy_from_slice(prefix)),
        };
        let mut places: Vec<Rows<'_>> = Vec::with_capacity(4);
        if let Some(own) = own {
            let rows = own
                .range((from.clone(), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(key, value)| Ok((key.clone(), value.clone())));
            places.push(boxed(rows));
        }
        for memory in std::iter::once(&self.active).chain(&self.frozen) {
            let rows = memory.rows(table, prefix, from.clone());
            places.push(boxed(rows.map(Ok)));
        }
        let start = from.as_ref().map(|key| &key[..]);
        let disk = self.base.rows.scan(self.replica, table, prefix, start)?;
        places.push(boxed(disk.map(|row| row.map(|(k, v)| (k, Some(v))))));
        merge(places, limit)
    }
}

fn boxed<'a>(rows: impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> + 'a) -> Rows<'a> {
    let rows: Box<dyn Iterator<Item = _> + 'a> = Box::new(rows);
    rows.peekable()
}

/// Of rows with the same key the first place's wins.
fn merge(mut places: Vec<Rows<'_>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
    let mut out = Vec::new();
    while out.len() < limit {
        let mut lowest: Option<Bytes> = None;
        for place in &mut places {
            match place.peek() {
                Some(Ok((key, _))) if lowest.as_ref().is_none_or(|low| key < low) => {
                    lowest = Some(key.clone());
                }
                Some(Err(_)) => lowest = lowest.or(Some(Bytes::new())),
                _ => {}
            }
        }
        let Some(lowest) = lowest else {
            break;
        };
        let mut winner = None;
        for place in &mut places {
            let same = |row: &Result<(Bytes, _)>| row.as_ref().map_or(true, |(k, _)| *k == lowest);
            if let Some(row) = place.next_if(same) {
                winner = winner.or(Some(row?));
            }
        }
        if let Some((key, Some(value))) = winner {
            out.push((key, value));
        }
    }
    Ok(out)
}
