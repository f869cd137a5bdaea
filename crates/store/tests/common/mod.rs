//! What the store's tests share: a replica on a disk, a reference model of it, and the comparison of both.
#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "each test binary uses its part of this"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wk_proto::record::Body;
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, GroupId, LogIndex, MessageId, MessageSeq, Record,
    ReplicaId, SlotId, Term, WallMs,
};
use wk_store::{Dir, Disk, Frozen, Head, IoBudget, Limit, ReplicaMeta, SlotStore, Store, Stored};
use wk_store::{Table, Tx, View};

pub struct NoBudget;

impl IoBudget for NoBudget {
    fn take(&mut self, _: usize) {}
}

pub const TABLES: [Table; 2] = [Table(1), Table(7)];
pub const SENDERS: [&str; 3] = ["u1", "u2", "ux"];
pub const NUMBERS: [&str; 4] = ["", "n1", "n2", "u1"];

pub fn channel(n: usize) -> ChannelKey {
    let ids = ["g1", "g2", "u1@u2", "g10", "a"];
    let key = ChannelKey::new(
        ChannelId::trusted(ids[n % 5]),
        ChannelType(1 + (n % 2) as u8),
    );
    if n % 10 < 5 { key } else { key.command() }
}

pub const CHANNELS: usize = 10;

pub fn meta(replica: u64) -> ReplicaMeta {
    ReplicaMeta {
        replica: ReplicaId(replica),
        group: GroupId::Slot(SlotId(replica as u16)),
        membership: Bytes::new(),
        applied: LogIndex(0),
        applied_term: Term(0),
    }
}

pub fn record(id: i64, time: u64, from: &str, number: &str, payload: &[u8]) -> Record {
    Body {
        message_id: MessageId(id),
        time: WallMs(time),
        from_uid: from,
        client_msg_no: number,
        payload,
        ..Body::default()
    }
    .encode()
}

pub fn open(disk: &Arc<dyn Disk>) -> Store {
    Store::open(Arc::clone(disk)).expect("the store opens")
}

pub fn freeze(slot: &mut SlotStore) -> Option<Frozen> {
    let membership = Bytes::from(format!("members at {}", slot.applied()));
    slot.freeze(membership, Term(slot.applied().0 / 2))
}

pub fn checkpoint(store: &Store, slots: &mut [&mut SlotStore]) {
    let frozen: Vec<Frozen> = slots.iter_mut().filter_map(|s| freeze(s)).collect();
    let done = store.checkpoint(&frozen, &mut NoBudget).unwrap();
    for slot in slots {
        slot.release(&done);
    }
}

/// One write of a transaction.
#[derive(Clone, Debug)]
pub enum Action {
    Put(usize, u8, u8),
    Delete(usize, u8),
    Append {
        channel: usize,
        from: usize,
        number: usize,
        payload: usize,
        time: u64,
    },
}

pub fn row_key(k: u8) -> Vec<u8> {
    // Some keys are prefixes of others.
    match k % 8 {
        0 => vec![1],
        1 => vec![1, 0],
        2 => vec![1, 255],
        3 => vec![1, 255, 255],
        4 => vec![2],
        5 => vec![255],
        6 => vec![255, 255],
        _ => vec![],
    }
}

/// What a replica must show.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Model {
    pub applied: u64,
    pub rows: BTreeMap<(Table, Vec<u8>), Bytes>,
    pub channels: BTreeMap<ChannelKey, Vec<Stored>>,
    pub journal: Vec<(ChannelKey, Stored)>,
    pub time: u64,
}

impl Model {
    pub fn last_id(&self) -> i64 {
        self.journal
            .last()
            .map_or(0, |(_, m)| m.record.message_id().0)
    }

    pub fn head(&self, key: &ChannelKey) -> Option<Head> {
        let newest = self.channels.get(key)?.last()?;
        Some(Head {
            seq: newest.seq,
            id: newest.record.message_id(),
            time: newest.record.time(),
            from: wk_proto::Uid::trusted(newest.record.from_uid()),
        })
    }

    fn newest(&self, key: &ChannelKey, f: impl Fn(&Record) -> bool) -> Option<Stored> {
        let messages = self.channels.get(key)?;
        messages.iter().rev().find(|m| f(&m.record)).cloned()
    }

    pub fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<(Bytes, Bytes)> {
        self.rows
            .iter()
            .filter(|((t, k), _)| *t == table && k.starts_with(prefix))
            .filter(|((_, k), _)| after.is_none_or(|after| &k[..] > after))
            .map(|((_, k), v)| (Bytes::copy_from_slice(k), v.clone()))
            .take(limit)
            .collect()
    }

    fn range(
        &self,
        key: &ChannelKey,
        first: u64,
        last: u64,
        dir: Dir,
        limit: Limit,
    ) -> Vec<Stored> {
        let inside = self.channels.get(key).into_iter().flatten();
        let inside = inside
            .filter(|m| (first..=last).contains(&m.seq.0))
            .cloned();
        match dir {
            Dir::Up => limited(inside, limit, |m| m.record.as_bytes().len()),
            Dir::Down => {
                let reversed = inside.collect::<Vec<_>>().into_iter().rev();
                let mut out = limited(reversed, limit, |m| m.record.as_bytes().len());
                out.reverse();
                out
            }
        }
    }

    /// Does the action to both, and checks what the open transaction answers.
    pub fn act(&mut self, tx: &mut Tx<'_>, action: &Action) {
        match *action {
            Action::Put(table, k, v) => {
                let value = Bytes::from(vec![v; usize::from(v % 7)]);
                tx.put(TABLES[table], &row_key(k), value.clone());
                self.rows.insert((TABLES[table], row_key(k)), value);
            }
            Action::Delete(table, k) => {
                tx.delete(TABLES[table], &row_key(k));
                self.rows.remove(&(TABLES[table], row_key(k)));
            }
            Action::Append {
                channel: c,
                from,
                number,
                payload,
                time,
            } => {
                let key = channel(c);
                let (from, number) = (SENDERS[from], NUMBERS[number]);
                self.time += time;
                let since = self.time.saturating_sub(20);
                let expected = self
                    .newest(&key, |r| {
                        r.from_uid() == from && r.client_msg_no() == number
                    })
                    .filter(|m| !number.is_empty() && m.record.time().0 >= since);
                let duplicate = tx.duplicate(&key, from, number, WallMs(since)).unwrap();
                assert_eq!(
                    duplicate, expected,
                    "duplicate of {from} {number} in {key:?}"
                );
                assert_eq!(tx.last_message_id().0, self.last_id());
                assert_eq!(tx.head(&key).unwrap(), self.head(&key));

                let id = self.last_id() + 1 + (c as i64 % 3);
                let record = record(id, self.time, from, number, &vec![c as u8; payload]);
                let seq = tx.append(&key, record.clone()).unwrap();
                let stored = Stored { seq, record };
                let messages = self.channels.entry(key.clone()).or_default();
                assert_eq!(seq.0, messages.last().map_or(1, |m| m.seq.0 + 1));
                messages.push(stored.clone());
                self.journal.push((key, stored));
            }
        }
    }

    /// Applies one entry to both.
    pub fn apply(&mut self, slot: &mut SlotStore, actions: &[Action]) {
        self.applied += 1;
        let mut tx = slot.begin(LogIndex(self.applied));
        for action in actions {
            self.act(&mut tx, action);
        }
        for table in TABLES {
            assert_eq!(
                tx.scan(table, &[], None, 100).unwrap(),
                self.scan(table, &[], None, 100)
            );
            assert_eq!(
                tx.get(table, &row_key(1)).unwrap().as_ref(),
                self.rows.get(&(table, row_key(1)))
            );
        }
        tx.commit();
        assert_eq!(slot.applied().0, self.applied);
    }

    /// Everything a view answers.
    pub fn check(&self, view: &View) {
        assert_eq!(view.applied().0, self.applied);
        self.check_rows(view);
        let end = self.last_id() + 5;
        for n in 0..CHANNELS {
            self.check_channel(view, &channel(n));
        }
        for id in 0..end {
            let expected = self
                .journal
                .iter()
                .find(|(_, m)| m.record.message_id().0 == id);
            assert_eq!(
                view.by_id(MessageId(id)).unwrap().as_ref(),
                expected,
                "by id {id}"
            );
        }
        for after in (0..end).step_by(3) {
            let limit = Limit {
                count: 7,
                bytes: 9_000,
            };
            let newer = self
                .journal
                .iter()
                .filter(|(_, m)| m.record.message_id().0 > after);
            let expected = limited(newer.cloned(), limit, |(_, m)| m.record.as_bytes().len());
            assert_eq!(view.by_id_after(MessageId(after), limit).unwrap(), expected);
        }
        let heads: Vec<_> = self
            .channels
            .keys()
            .filter_map(|k| Some((k.clone(), self.head(k)?)))
            .collect();
        assert_eq!(view.channels(None, 100).unwrap(), heads);
        let mut paged = Vec::new();
        while let [.., last] = &view.channels(paged.last().map(|(k, _)| k), 3).unwrap()[..] {
            let page = view.channels(paged.last().map(|(k, _)| k), 3).unwrap();
            assert_eq!(page.last(), Some(last));
            paged.extend(page);
        }
        assert_eq!(paged, heads);
    }

    fn check_rows(&self, view: &View) {
        for table in TABLES {
            for k in 0..8 {
                let key = row_key(k);
                let expected = self.rows.get(&(table, key.clone()));
                assert_eq!(view.get(table, &key).unwrap().as_ref(), expected);
                for limit in [1, 3, 100] {
                    assert_eq!(
                        view.scan(table, &key, None, limit).unwrap(),
                        self.scan(table, &key, None, limit)
                    );
                    assert_eq!(
                        view.scan(table, &[1], Some(&key), limit).unwrap(),
                        self.scan(table, &[1], Some(&key), limit)
                    );
                }
            }
        }
    }

    fn check_channel(&self, view: &View, key: &ChannelKey) {
        assert_eq!(view.head(key).unwrap(), self.head(key));
        for from in SENDERS {
            let expected = self.newest(key, |r| r.from_uid() == from).map(|m| m.seq);
            assert_eq!(view.last_by(key, from).unwrap(), expected);
        }
        let last = self.head(key).map_or(0, |h| h.seq.0);
        let limits = [(1, 1), (3, 1 << 30), (1_000, 6_000), (1_000, 1 << 30)];
        for (count, bytes) in limits {
            let limit = Limit { count, bytes };
            for dir in [Dir::Up, Dir::Down] {
                for (first, last) in [
                    (0, u64::MAX),
                    (2, last),
                    (last, last + 3),
                    (last / 2, last - last / 4),
                ] {
                    assert_eq!(
                        view.range(key, MessageSeq(first), MessageSeq(last), dir, limit)
                            .unwrap(),
                        self.range(key, first, last, dir, limit),
                        "{first}..={last} {dir:?} {limit:?}"
                    );
                }
            }
        }
        for number in NUMBERS {
            let messages = self.channels.get(key).into_iter().flatten().rev();
            let expected: Vec<Stored> = messages
                .filter(|m| !number.is_empty() && m.record.client_msg_no() == number)
                .take(4)
                .cloned()
                .collect();
            assert_eq!(view.by_client_msg_no(key, number, 4).unwrap(), expected);
        }
    }
}

fn limited<T>(items: impl Iterator<Item = T>, limit: Limit, size: impl Fn(&T) -> usize) -> Vec<T> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for item in items {
        bytes += size(&item);
        if !out.is_empty() && (out.len() >= limit.count || bytes > limit.bytes) {
            break;
        }
        out.push(item);
    }
    out
}
