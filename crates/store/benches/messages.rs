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
use wk_store::{Dir, IoBudget, Limit, ReplicaMeta, SlotStore, Store, Table, View};

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

/// Nanoseconds this thread has run: on a busy machine elapsed time says little.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = stat.split(' ').next().and_then(|n| n.parse().ok());
    first.unwrap_or(0.0)
}

/// Elapsed and CPU time since.
struct Clock(Instant, f64);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), cpu_ns())
    }

    /// Microseconds.
    fn read(&self) -> (f64, f64) {
        let cpu = (cpu_ns() - self.1) / 1e3;
        (self.0.elapsed().as_secs_f64() * 1e6, cpu)
    }
}

fn report(what: &str, start: Clock, n: u64) {
    print(what, start.read(), n);
}

fn print(what: &str, (us, cpu): (f64, f64), n: u64) {
    let n = n as f64;
    println!("{what:<40}{:>12.3} µs each{:>12.3} µs CPU", us / n, cpu / n);
}

fn checkpoint(store: &Store, slot: &mut SlotStore) {
    let frozen: Vec<_> = slot.freeze(Bytes::new(), Term(1)).into_iter().collect();
    let done = store.checkpoint(&frozen, &mut NoBudget).unwrap();
    slot.release(&done);
}

/// Appends `records`; elapsed and CPU time, and the worst entry, in µs.
fn append(
    slot: &mut SlotStore,
    keys: &[ChannelKey],
    records: &[(u64, Record)],
) -> ((f64, f64), f64) {
    let start = Clock::start();
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
    (start.read(), worst)
}

fn tails(what: &str, view: &View, keys: &[ChannelKey]) {
    let limit = Limit {
        count: 20,
        bytes: usize::MAX,
    };
    let start = Clock::start();
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
    let start = Clock::start();
    for n in 0..READS {
        assert!(view.head(key(n)).unwrap().is_some());
    }
    report("head", start, READS);
    let start = Clock::start();
    for n in 0..READS {
        view.last_by(key(n), &format!("user{}", n % 997)).unwrap();
    }
    report("last_by", start, READS);
    let start = Clock::start();
    for n in 0..READS {
        let id = MessageId((n * 7_919 % MESSAGES) as i64 + 1);
        assert!(view.by_id(id).unwrap().is_some());
    }
    report("by_id", start, READS);
    let limit = Limit {
        count: 1_000,
        bytes: usize::MAX,
    };
    let start = Clock::start();
    for n in 0..50 {
        assert_eq!(
            view.by_id_after(MessageId(n * 1_000), limit).unwrap().len(),
            1_000
        );
    }
    report("by_id_after, a message", start, 50_000);
}

/// Rows as a checkpoint meets them: 20,000 at random keys among as many older ones.
fn rows(store: &Store, slot: &mut SlotStore) {
    let key = |user: u64, n: u64| [user.to_be_bytes(), n.to_be_bytes()].concat();
    for round in 0..2u64 {
        for batch in 0..200u64 {
            let mut tx = slot.begin(slot.applied().next());
            for n in 0..100 {
                let n = batch * 100 + n;
                let value = Bytes::from(vec![round as u8; 100]);
                tx.put(Table(1), &key(n % 4, n * 7_919 % 20_000), value);
            }
            tx.commit();
        }
        let view = slot.view();
        let start = Clock::start();
        for user in 0..4u64 {
            let found = view
                .scan(Table(1), &user.to_be_bytes(), None, 5_000)
                .unwrap();
            assert_eq!(found.len(), 5_000);
        }
        report("scan, a row, memtable over older", start, 20_000);
        drop(view);
        let start = Clock::start();
        checkpoint(store, slot);
        report("checkpoint of 20,000 rows, a row", start, 20_000);
    }
    let view = slot.view();
    let start = Clock::start();
    for user in 0..4u64 {
        view.scan(Table(1), &user.to_be_bytes(), None, 5_000)
            .unwrap();
    }
    report("scan, a row, redb", start, 20_000);
    let start = Clock::start();
    for n in 0..20_000u64 {
        assert!(
            view.get(Table(1), &key(n % 4, n * 7_919 % 20_000))
                .unwrap()
                .is_some()
        );
    }
    report("get, redb", start, 20_000);
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
    let (mut took, mut worst) = ((0.0, 0.0), 0.0f64);
    let mut written = Vec::new();
    for part in 0..MESSAGES / CHECKPOINT_EVERY {
        let numbers = part * CHECKPOINT_EVERY..(part + 1) * CHECKPOINT_EVERY;
        let records: Vec<(u64, Record)> = numbers.map(|n| (n, record(n))).collect();
        let (part_took, slowest) = append(&mut slot, &keys, &records);
        took = (took.0 + part_took.0, took.1 + part_took.1);
        worst = worst.max(slowest);
        if part == 0 {
            tails("tail(20), memtable", &slot.view(), &keys);
        }
        let start = Clock::start();
        checkpoint(&store, &mut slot);
        written.push(start.read().0 / 1e3);
    }
    print("append + duplicate check", took, MESSAGES);
    println!("worst entry of {PER_ENTRY}: {worst:.0} µs");
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
    let start = Clock::start();
    while store.merge_step(&mut NoBudget).unwrap() {}
    report("merge, a message", start, 2 * MESSAGES);
    tails("tail(20), merged", &slot.view(), &keys);
    points(&slot.view(), &keys);
    rows(&store, &mut slot);
    drop((slot, store));
    let start = Clock::start();
    let store = open();
    report("open, 2 M messages", start, 1);
    drop(store);
}
