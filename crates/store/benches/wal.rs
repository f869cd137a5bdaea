//! What the log costs on this machine's disk: `cargo bench -p wk-store --bench wal [-- <directory>]`.
//!
//! One thread, append + sync per batch. "fresh" creates and extends its files, "recycled" writes over released segments, which is
//! how a server runs after its first checkpoint. The directory (default: the build's `target`) must be on the disk to be measured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wk_proto::{LogIndex, ReplicaId, Term};
use wk_store::{RealDisk, Wal, WalOptions, WalRecord};

const REPLICAS: u64 = 64;
const ENTRY_BYTES: usize = 200;
const TERM: Term = Term(1);

struct Bench {
    wal: Wal,
    /// Last index of each replica.
    last: Vec<u64>,
}

impl Bench {
    fn batch(&mut self, replicas: u64, entries: u64) -> Vec<WalRecord> {
        let mut records = Vec::new();
        for replica in 1..=replicas {
            for _ in 0..entries {
                self.last[replica as usize] += 1;
                records.push(WalRecord::Entry {
                    replica: ReplicaId(replica),
                    term: TERM,
                    index: LogIndex(self.last[replica as usize]),
                    kind: 0,
                    data: Bytes::from(vec![0xa5; ENTRY_BYTES]),
                });
            }
        }
        records
    }

    fn run(&mut self, name: &str, batches: usize, replicas: u64, entries: u64) {
        let mut appends = Duration::ZERO;
        let mut took = Vec::with_capacity(batches);
        for _ in 0..batches {
            let records = self.batch(replicas, entries);
            let start = Instant::now();
            self.wal.append(&records).expect("append");
            appends += start.elapsed();
            self.wal.sync().expect("sync");
            took.push(start.elapsed());
        }
        report(name, appends, took, replicas * entries);
    }

    fn release_all(&mut self) {
        for replica in 1..=REPLICAS {
            let last = LogIndex(self.last[replica as usize]);
            let released = self.wal.release(ReplicaId(replica), last, TERM);
            released.expect("release");
        }
    }
}

fn report(name: &str, appends: Duration, mut took: Vec<Duration>, entries: u64) {
    let total: Duration = took.iter().sum();
    let count = took.len() as f64 * entries as f64;
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "{name:24} {:>9.0} entries/s  {:>8.3} µs/entry, of it {:>6.3} not in fsync  p50 {:>6.0} µs  p99 {:>6.0} µs  p99.9 {:>6.0} µs",
        count / total.as_secs_f64(),
        total.as_secs_f64() * 1e6 / count,
        appends.as_secs_f64() * 1e6 / count,
        at(0.5),
        at(0.99),
        at(0.999),
    );
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --all-targets` runs this too and does not.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let parent = given.map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")),
        PathBuf::from,
    );
    let dir = tempfile::tempdir_in(&parent).expect("directory");
    let disk = Arc::new(RealDisk::new(dir.path()).expect("disk"));
    let start = Instant::now();
    let (wal, _) = Wal::open(disk.clone(), WalOptions::default()).expect("open");
    println!("open, empty directory    {:.1} ms", ms(start));
    let mut bench = Bench {
        wal,
        last: vec![0; REPLICAS as usize + 1],
    };
    bench.run("64 x 16, fresh", 1_000, REPLICAS, 16);
    bench.release_all();
    bench.run("64 x 16, recycled", 1_000, REPLICAS, 16);
    bench.run("1 x 1, recycled", 3_000, 1, 1);
    let first = bench.last[1] - 10_000;
    let start = Instant::now();
    let (first, last) = (LogIndex(first), LogIndex(bench.last[1]));
    let read = bench.wal.read(ReplicaId(1), first, last, usize::MAX);
    println!(
        "read, {} entries      {:.1} ms",
        read.expect("read").len(),
        ms(start)
    );
    let (live, _) = bench.wal.usage();
    drop(bench);
    let start = Instant::now();
    let (_, found) = Wal::open(disk, WalOptions::default()).expect("open");
    let entries: usize = found.iter().map(|(_, found)| found.entries.len()).sum();
    println!(
        "open, {} MiB, {entries} entries  {:.0} ms",
        live >> 20,
        ms(start)
    );
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
