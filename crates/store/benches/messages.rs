//! By hand: `cargo bench -p wk-store --bench messages [directory]`. Appends with the idempotency check, tail reads hot and from
//! files, the checkpoint, merging, reopening. One line each; the worst single append is shown because a shard stops for it.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wk_proto::record::Body;
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, GroupId, LogIndex, MessageId, MessageSeq, Record,
    ReplicaId, SlotId, Term, WallMs,
};
use wk_store::disk::RealDisk;
use wk_store::{Dir, IoBudget, Limit, ReplicaMeta, SlotStore, Store, View};

const MESSAGES: u64 = 1_000_000;
const CHANNELS: u64 = 10_000;
/// One entry carries this many messages.
const PER_ENTRY: u64 = 16;
/// 64 MiB of 200-byte records.
const CHECKPOINT_EVERY: u64 = 250_000;
const READS: u64 = 100_000;

struct NoBudget;

impl IoBudget for NoBudget {
    fn take(&mut self, _: usize) {}
}

fn record(n: u64) -> Record {
    Body {
        message_id: MessageId(n as i64 + 1),
        time: WallMs(1_700_000_000_000 + n / 100),
        from_uid: &format!("user{}", n % 997),
        client_msg_no: &format!("{n:032x}"),
        payload: &[b'x'; 124],
        ..Body::default()
    }
    .encode()
}

fn report(what: &str, start: Instant, n: u64) {
    let us = start.elapsed().as_secs_f64() * 1e6;
    println!(
        "{what:<44}{:>10.3} µs each {:>10.1} ms",
        us / n as f64,
        us / 1e3
    );
}

fn checkpoint(store: &Store, slot: &mut SlotStore) {
    let frozen: Vec<_> = slot.freeze(Bytes::new(), Term(1)).into_iter().collect();
    let done = store.checkpoint(&frozen, &mut NoBudget).unwrap();
    slot.release(&done);
}

/// Appends `records` and returns the seconds taken, and the worst entry in µs.
fn append(slot: &mut SlotStore, keys: &[ChannelKey], records: &[(u64, Record)]) -> (f64, f64) {
    let start = Instant::now();
    let mut worst = 0.0f64;
    for entry in records.chunks(PER_ENTRY as usize) {
        let began = Instant::now();
        let mut tx = slot.begin(slot.applied().next());
        for (n, record) in entry {
            let key = &keys[(n % CHANNELS) as usize];
            let (from, number) = (record.from_uid(), record.client_msg_no());
            assert!(
                tx.duplicate(key, from, number, WallMs(1_600_000_000_000))
                    .unwrap()
                    .is_none()
            );
            tx.append(key, record.clone()).unwrap();
        }
        tx.commit();
        worst = worst.max(began.elapsed().as_secs_f64() * 1e6);
    }
    (start.elapsed().as_secs_f64(), worst)
}

fn tails(what: &str, view: &View, keys: &[ChannelKey]) {
    let limit = Limit {
        count: 20,
        bytes: usize::MAX,
    };
    let start = Instant::now();
    for n in 0..READS {
        let key = &keys[(n * 7_919 % CHANNELS) as usize];
        let all = (MessageSeq(1), MessageSeq(u64::MAX));
        assert_eq!(
            view.range(key, all.0, all.1, Dir::Down, limit)
                .unwrap()
                .len(),
            20
        );
    }
    report(what, start, READS);
}

fn points(view: &View, keys: &[ChannelKey]) {
    let key = |n: u64| &keys[(n * 7_919 % CHANNELS) as usize];
    let start = Instant::now();
    for n in 0..READS {
        assert!(view.head(key(n)).unwrap().is_some());
    }
    report("head", start, READS);
    let start = Instant::now();
    for n in 0..READS {
        view.last_by(key(n), &format!("user{}", n % 997)).unwrap();
    }
    report("last_by", start, READS);
    let start = Instant::now();
    for n in 0..READS {
        let id = MessageId((n * 7_919 % MESSAGES) as i64 + 1);
        assert!(view.by_id(id).unwrap().is_some());
    }
    report("by_id", start, READS);
    let limit = Limit {
        count: 1_000,
        bytes: usize::MAX,
    };
    let start = Instant::now();
    for n in 0..50 {
        assert_eq!(
            view.by_id_after(MessageId(n * 1_000), limit).unwrap().len(),
            1_000
        );
    }
    report("by_id_after, a message", start, 50_000);
}

fn main() {
    let temporary = tempfile::tempdir().unwrap();
    let given = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let path = given.map_or(temporary.path().to_owned(), Into::into);
    let keys: Vec<ChannelKey> = (0..CHANNELS)
        .map(|n| ChannelKey::new(ChannelId::trusted(&format!("group{n}")), ChannelType::GROUP))
        .collect();
    let open = || Store::open(Arc::new(RealDisk::new(&path).unwrap())).unwrap();
    let store = open();
    let meta = ReplicaMeta {
        replica: ReplicaId(1),
        group: GroupId::Slot(SlotId(0)),
        membership: Bytes::new(),
        applied: LogIndex(0),
        applied_term: Term(0),
    };
    store.create(&[meta]).unwrap();
    let mut slot = store.slot(ReplicaId(1)).unwrap();
    let (mut seconds, mut worst) = (0.0, 0.0f64);
    let mut written = Vec::new();
    for part in 0..MESSAGES / CHECKPOINT_EVERY {
        let numbers = part * CHECKPOINT_EVERY..(part + 1) * CHECKPOINT_EVERY;
        let records: Vec<(u64, Record)> = numbers.map(|n| (n, record(n))).collect();
        let (took, slowest) = append(&mut slot, &keys, &records);
        seconds += took;
        worst = worst.max(slowest);
        if part == 0 {
            tails("tail(20), memtable", &slot.view(), &keys);
        }
        let start = Instant::now();
        checkpoint(&store, &mut slot);
        written.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let us = seconds * 1e6 / MESSAGES as f64;
    println!(
        "{:<44}{us:>10.3} µs each, worst entry of {PER_ENTRY} {worst:.0} µs",
        "append + duplicate check"
    );
    println!("checkpoints of {CHECKPOINT_EVERY} messages: {written:.0?} ms");
    tails("tail(20), files", &slot.view(), &keys);
    points(&slot.view(), &keys);
    // Rewriting the same amount again makes eight files.
    for part in 0..4 {
        let first = MESSAGES + part * CHECKPOINT_EVERY;
        let records: Vec<_> = (first..first + CHECKPOINT_EVERY)
            .map(|n| (n, record(n)))
            .collect();
        append(&mut slot, &keys, &records);
        checkpoint(&store, &mut slot);
    }
    let start = Instant::now();
    while store.merge_step(&mut NoBudget).unwrap() {}
    report("merge, a message", start, 2 * MESSAGES);
    tails("tail(20), merged", &slot.view(), &keys);
    points(&slot.view(), &keys);
    drop((slot, store));
    let start = Instant::now();
    let store = open();
    report("open, 2 M messages", start, 1);
    drop(store);
}
