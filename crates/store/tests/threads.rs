//! Views on other threads while the writer applies, checkpoints and merges: each shows one moment, whole.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use common::{NoBudget, channel, checkpoint, meta, open, record};
use wk_proto::{LogIndex, MessageId, MessageSeq, ReplicaId};
use wk_store::disk::SimDisk;
use wk_store::{Dir, Disk, Limit, Table, View};

const ENTRIES: u64 = 3_000;
const CHANNELS: u64 = 7;
const ROW: (Table, &[u8]) = (Table(3), b"written by every entry");
const ALL: Limit = Limit {
    count: usize::MAX,
    bytes: usize::MAX,
};

/// Entry `n` is one message with id `n` in channel `n % CHANNELS`, and a row that says `n`.
fn check(view: &View) {
    let n = view.applied().0;
    let row = view.get(ROW.0, ROW.1).unwrap().unwrap();
    assert_eq!(row[..], n.to_le_bytes());
    assert_eq!(
        view.scan(ROW.0, b"", None, 10).unwrap(),
        [(Bytes::from_static(ROW.1), row)]
    );
    let recent = MessageId(n as i64 - 40);
    let journal = view.by_id_after(recent, ALL).unwrap();
    let ids: Vec<i64> = journal
        .iter()
        .map(|(_, m)| m.record.message_id().0)
        .collect();
    assert_eq!(ids, (recent.0.max(0) + 1..=n as i64).collect::<Vec<_>>());
    for c in 0..CHANNELS {
        let key = channel(c as usize);
        let expected = (1..=n).filter(|id| id % CHANNELS == c).count() as u64;
        let range = (MessageSeq(1), MessageSeq(u64::MAX));
        let all = view.range(&key, range.0, range.1, Dir::Up, ALL).unwrap();
        assert!(
            all.iter().map(|m| m.seq.0).eq(1..=expected),
            "entry {n}, channel {c}"
        );
        assert_eq!(view.head(&key).unwrap().map_or(0, |h| h.seq.0), expected);
    }
}

fn reader(views: Receiver<View>) -> u64 {
    let mut held: Option<View> = None;
    let mut checked = 0;
    for view in views {
        check(&view);
        // Some are looked at again after the writer went on.
        if let Some(old) = held.replace(view) {
            check(&old);
        }
        checked += 1;
    }
    checked
}

#[test]
fn readers_see_whole_entries_whatever_the_writer_does() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let store = open(&disk);
    store.create(&[meta(1)]).unwrap();
    let mut slot = store.slot(ReplicaId(1)).unwrap();
    let (senders, readers): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            let (sender, views) = sync_channel(2);
            (sender, std::thread::spawn(move || reader(views)))
        })
        .unzip();
    for n in 1..=ENTRIES {
        let mut tx = slot.begin(LogIndex(n));
        let record = record(n as i64, n, "u", &format!("no{n}"), &[0; 300]);
        tx.append(&channel((n % CHANNELS) as usize), record)
            .unwrap();
        tx.put(ROW.0, ROW.1, Bytes::copy_from_slice(&n.to_le_bytes()));
        tx.commit();
        // A full queue is no reason to wait: the writer never does.
        let _ = senders[(n % 2) as usize].try_send(slot.view());
        if n % 150 == 0 {
            checkpoint(&store, &mut [&mut slot]);
            while store.merge_step(&mut NoBudget).unwrap() {}
        }
    }
    drop(senders);
    let checked: u64 = readers.into_iter().map(|r| r.join().unwrap()).sum();
    assert!(checked > 4, "{checked} views");
    check(&slot.view());
}
