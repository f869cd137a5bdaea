//! The log against a model: reopened, crashed at every operation, damaged.

mod crash;
mod damage;
mod model;

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{LogIndex, ReplicaId, Term};

use super::{LogEntry, Recovered, Wal, WalOptions, WalRecord};
use crate::{Error, Result, SimDisk};

/// Small segments, so that everything rolls all the time.
fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        spare_segments: 2,
    }
}

fn open(disk: &SimDisk) -> Result<(Wal, Vec<(ReplicaId, Recovered)>)> {
    Wal::open(Arc::new(disk.clone()), options())
}

fn entry(replica: u64, term: u64, index: u64, data: &[u8]) -> WalRecord {
    WalRecord::Entry {
        replica: ReplicaId(replica),
        term: Term(term),
        index: LogIndex(index),
        kind: 1,
        data: Bytes::copy_from_slice(data),
    }
}

fn state(replica: u64, term: u64) -> WalRecord {
    WalRecord::State {
        replica: ReplicaId(replica),
        term: Term(term),
        vote: 7,
        commit: LogIndex(0),
    }
}

fn start(replica: u64, index: u64, term: u64) -> WalRecord {
    WalRecord::Start {
        replica: ReplicaId(replica),
        index: LogIndex(index),
        term: Term(term),
    }
}

fn read(wal: &Wal, replica: u64, first: u64, last: u64, bytes: usize) -> Result<Vec<LogEntry>> {
    wal.read(ReplicaId(replica), LogIndex(first), LogIndex(last), bytes)
}

fn indexes(entries: &[LogEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.0.0).collect()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    use crate::Disk;
    disk.list("wal").expect("list")
}

#[test]
fn an_empty_directory_gives_an_empty_log() {
    let disk = SimDisk::new();
    let (wal, found) = open(&disk).expect("open");
    assert!(found.is_empty());
    assert_eq!(wal.usage().1, []);
    drop(wal);
    assert!(open(&disk).expect("again").1.is_empty());
    assert_eq!(segments(&disk), ["0000000001.seg"]);
}

#[test]
fn what_was_appended_comes_back() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    wal.append(&[entry(1, 2, 1, b"a"), entry(2, 5, 1, b"x"), state(1, 2)])
        .expect("append");
    wal.append(&[entry(1, 2, 2, b"b"), state(1, 3), entry(1, 3, 2, b"c")])
        .expect("append");
    wal.sync().expect("sync");
    let (_, found) = open(&disk.crash(1)).expect("open");
    let ids: Vec<u64> = found.iter().map(|(replica, _)| replica.0).collect();
    assert_eq!(ids, [1, 2]);
    let one = &found[0].1;
    assert_eq!(one.state, Some((Term(3), 7, LogIndex(0))));
    assert_eq!(one.start, None);
    let first = (LogIndex(1), Term(2), 1, Bytes::from_static(b"a"));
    let second = (LogIndex(2), Term(3), 1, Bytes::from_static(b"c"));
    assert_eq!(one.entries, [first, second]);
    assert_eq!(found[1].1.entries.len(), 1);
}

#[test]
fn a_start_keeps_its_continuation_and_drops_another_history() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    let log: Vec<_> = (1..=6).map(|i| entry(1, 1, i, b"")).collect();
    wal.append(&log).expect("append");
    wal.append(&[start(1, 2, 1)]).expect("same history");
    assert_eq!(
        indexes(&read(&wal, 1, 3, 6, 99).expect("read")),
        [3, 4, 5, 6]
    );
    assert!(read(&wal, 1, 2, 6, 99).is_err());
    wal.append(&[start(1, 5, 9)]).expect("another history");
    assert!(read(&wal, 1, 6, 6, 99).is_err());
    wal.append(&[entry(1, 9, 6, b"new")]).expect("append");
    let (_, found) = open(&disk).expect("open");
    assert_eq!(found[0].1.start, Some((LogIndex(5), Term(9))));
    assert_eq!(found[0].1.entries.len(), 1);
    assert_eq!(found[0].1.entries[0].3, "new");
}

#[test]
fn reads_are_bounded_by_bytes_but_give_one() {
    let (mut wal, _) = open(&SimDisk::new()).expect("open");
    let log: Vec<_> = (1..=20).map(|i| entry(1, 1, i, &[i as u8; 500])).collect();
    wal.append(&log).expect("append");
    assert_eq!(indexes(&read(&wal, 1, 3, 20, 1499).expect("read")), [3, 4]);
    assert_eq!(
        indexes(&read(&wal, 1, 3, 20, 1500).expect("read")),
        [3, 4, 5]
    );
    assert_eq!(indexes(&read(&wal, 1, 20, 20, 0).expect("read")), [20]);
    assert_eq!(read(&wal, 1, 1, 20, 1 << 20).expect("read").len(), 20);
    assert!(read(&wal, 1, 3, 21, 1).is_err(), "beyond the log");
    assert!(read(&wal, 2, 1, 1, 1).is_err(), "unknown replica");
}

#[test]
fn a_record_larger_than_a_segment_fits() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    let large = vec![5; 50_000];
    wal.append(&[
        entry(1, 1, 1, b"small"),
        entry(1, 1, 2, &large),
        entry(1, 1, 3, b""),
    ])
    .expect("append");
    assert_eq!(read(&wal, 1, 2, 3, 1 << 20).expect("read")[0].3, large);
    let (_, found) = open(&disk).expect("open");
    assert_eq!(found[0].1.entries.len(), 3);
    let (mut wal, _) = open(&disk).expect("open");
    let huge = vec![0; super::DATA_BYTES_MAX + 1];
    assert!(matches!(
        wal.append(&[entry(1, 1, 4, &huge)]),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn a_mistake_of_the_caller_stops_the_log() {
    for wrong in [
        entry(1, 1, 7, b"hole"),
        entry(1, 1, 2, b"at the start"),
        entry(1, 1, 0, b"zero"),
    ] {
        let (mut wal, _) = open(&SimDisk::new()).expect("open");
        wal.append(&[start(1, 2, 1), entry(1, 1, 3, b"")])
            .expect("append");
        assert!(matches!(wal.append(&[wrong]), Err(Error::Invalid(_))));
        assert!(wal.append(&[state(1, 1)]).is_err());
        assert!(wal.sync().is_err());
    }
}

#[test]
fn released_segments_are_used_again_and_extra_ones_removed() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    let mut index = 0;
    let mut most = 0;
    for round in 0..40 {
        for _ in 0..20 {
            index += 1;
            wal.append(&[entry(1, 1, index, &[round; 400]), state(2, 1)])
                .expect("append");
        }
        wal.sync().expect("sync");
        let (live, pinning) = wal.usage();
        assert!(live <= 6 * 4096, "{live}");
        assert_eq!(pinning, [ReplicaId(1)]);
        wal.release(ReplicaId(1), LogIndex(index), Term(1))
            .expect("release");
        assert_eq!(wal.usage().1, [], "nothing is needed");
        most = most.max(segments(&disk).len());
    }
    assert!(most <= 8, "{most} files for 160 segments of log");
    let (_, found) = open(&disk).expect("open");
    assert_eq!(found[0].1.start, Some((LogIndex(index - 20), Term(1))));
    assert_eq!(
        found[1].1.state,
        Some((Term(1), 7, LogIndex(0))),
        "states move on"
    );
}

#[test]
fn an_idle_replica_pins_its_segment_until_released() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    wal.append(&[entry(9, 1, 1, b"idle")]).expect("append");
    for index in 1..=50 {
        wal.append(&[entry(1, 1, index, &[0; 400])])
            .expect("append");
        wal.release(ReplicaId(1), LogIndex(index), Term(1))
            .expect("release");
    }
    let (live, pinning) = wal.usage();
    assert!(live > 20_000);
    assert_eq!(pinning, [ReplicaId(9)]);
    wal.release(ReplicaId(9), LogIndex(1), Term(1))
        .expect("release");
    assert!(wal.usage().0 <= 4096);
    wal.append(&[WalRecord::Removed {
        replica: ReplicaId(9),
    }])
    .expect("append");
    let (_, found) = open(&disk).expect("open");
    assert_eq!(found.len(), 1);
}

#[test]
fn preparing_extends_the_file_once() {
    use crate::Disk;
    let disk = SimDisk::new();
    let large = WalOptions {
        segment_bytes: 3 << 20,
        spare_segments: 1,
    };
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), large).expect("open");
    let len = || {
        disk.open("wal/0000000001.seg", false)
            .and_then(|f| f.len())
            .expect("len")
    };
    assert!(len() < 2 << 20, "ready at once");
    while wal.prepare().expect("prepare") {}
    assert_eq!(len(), 3 << 20);
    wal.append(&[entry(1, 1, 1, b"x")]).expect("append");
    wal.sync().expect("sync");
    assert_eq!(len(), 3 << 20);
}

#[test]
fn a_full_disk_is_no_error_of_preparing() {
    let disk = SimDisk::new();
    let large = WalOptions {
        segment_bytes: 3 << 20,
        spare_segments: 1,
    };
    let (mut wal, _) = Wal::open(Arc::new(disk.clone()), large).expect("open");
    wal.append(&[entry(1, 1, 1, &[7; 1000])]).expect("append");
    wal.sync().expect("sync");
    let full = |free: u64| {
        let (left, total) = crate::Disk::space(&disk).expect("space");
        let used = total - left;
        disk.set_faults(crate::disk::Faults {
            capacity: Some(used + free),
            ..crate::disk::Faults::default()
        });
    };
    full(10);
    assert!(wal.prepare().expect("confirms in the space it has"));
    assert!(!wal.prepare().expect("no space for zeros"));
    wal.append(&[entry(1, 1, 2, b"x")]).expect("append");
    wal.sync().expect("the log is alive");
    disk.set_faults(crate::disk::Faults::default());
    while wal.prepare().expect("prepare") {}
    let len = crate::Disk::open(&disk, "wal/0000000001.seg", false).and_then(|f| f.len());
    assert_eq!(len.expect("len"), 3 << 20);
}

#[test]
fn options_out_of_range_are_refused() {
    for segment_bytes in [0, 4095, 2 << 30] {
        let options = WalOptions {
            segment_bytes,
            spare_segments: 0,
        };
        let opened = Wal::open(Arc::new(SimDisk::new()), options);
        assert!(matches!(opened, Err(Error::Invalid(_))));
    }
}
