//! Bytes that changed on the medium.

use super::model::{History, Step, perform};
use super::*;
use crate::Disk;

/// Several segments of synced batches, with something after each batch that says it was synced.
fn filled() -> SimDisk {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    for index in 1..=30 {
        wal.append(&[entry(3, 1, index, &[1; 300]), entry(8, 1, index, &[2; 100])])
            .expect("append");
        wal.sync().expect("sync");
    }
    disk
}

fn fork(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    copy.sync_dir("wal").expect("folder");
    for name in segments(disk) {
        let path = format!("wal/{name}");
        let file = disk.open(&path, false).expect("open");
        let mut bytes = vec![0; file.len().expect("len") as usize];
        file.read_at(0, &mut bytes).expect("read");
        copy.open(&path, true)
            .and_then(|f| f.write_at(0, &bytes))
            .expect("copy");
    }
    copy
}

/// Every frame: segment name, offset, header and payload bytes.
fn frames(disk: &SimDisk) -> Vec<(String, u64, u64)> {
    let mut frames = Vec::new();
    for name in segments(disk) {
        let file = disk.open(&format!("wal/{name}"), false).expect("open");
        let mut bytes = vec![0; file.len().expect("len") as usize];
        file.read_at(0, &mut bytes).expect("read");
        let mut at = 0;
        while let Some(frame) = super::super::codec::Frame::decode(&bytes[at..]) {
            let covered = 48 + frame.header.payload_bytes as usize;
            frames.push((format!("wal/{name}"), at as u64, covered as u64));
            at += frame.header.frame_bytes();
        }
    }
    frames
}

#[test]
fn a_flipped_bit_before_the_durable_end_is_refused_by_name() {
    let disk = filled();
    let frames = frames(&disk);
    assert!(frames.len() > 30);
    let (newest, ..) = frames.last().expect("frames").clone();
    for (n, (path, at, covered)) in frames.iter().enumerate() {
        let is_last = n + 1 == frames.len();
        let is_only_summary =
            *path == newest && frames.iter().filter(|f| f.0 == newest).count() == 1;
        for byte in [0, 9, 20, 44, 60, covered - 1] {
            let disk = fork(&disk);
            if byte >= *covered {
                continue;
            }
            disk.flip_bit(path, (at + byte) * 8 + 2).expect("flip");
            match open(&disk) {
                // Nothing after the last batch says that it was synced: it looks torn.
                Ok((_, found)) => {
                    assert!(is_last, "{path} at {at}+{byte}");
                    assert!(is_only_summary || found[0].1.entries.len() == 29);
                }
                Err(Error::Corrupt { what, why }) => {
                    assert!(!is_last, "{what}: {why}");
                    let missing = *at == 0 && what == "wal";
                    assert!(
                        missing || what == format!("{path} at {at}"),
                        "{what}: {why}"
                    );
                    if byte == covered - 1 && *at > 0 {
                        let hit = ["replicas 3, 8", "replicas 3", "replicas 8"];
                        assert!(hit.iter().any(|hit| why.ends_with(hit)), "{why}");
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_missing_or_shortened_or_doubled_segment_is_refused() {
    let disk = filled();
    let names = segments(&disk);
    assert!(names.len() >= 3);
    for name in &names[..names.len() - 1] {
        let path = format!("wal/{name}");
        let disk = fork(&disk);
        disk.remove(&path).expect("remove");
        // Without the first one the log looks as if it began later, but says that it does not.
        assert!(matches!(open(&disk), Err(Error::Corrupt { .. })), "{name}");
        let disk = fork(&filled());
        let file = disk.open(&path, false).expect("open");
        file.set_len(2000).expect("cut");
        assert!(matches!(open(&disk), Err(Error::Corrupt { .. })), "{name}");
    }
    let disk = fork(&disk);
    disk.rename("wal/0000000002.seg", "wal/0000000077.seg")
        .expect("rename");
    assert!(matches!(open(&disk), Err(Error::Corrupt { .. })));
}

#[test]
fn after_an_idle_step_the_last_batch_is_protected_too() {
    let disk = filled();
    let (mut wal, _) = open(&disk).expect("open");
    wal.append(&[entry(3, 1, 31, b"last")]).expect("append");
    assert!(wal.prepare().expect("confirmed"));
    while wal.prepare().expect("extended") {}
    let end = wal.segments.end();
    assert!(!wal.prepare().expect("idle"));
    assert_eq!(wal.segments.end(), end, "said once");
    let (path, at, covered) = frames(&disk)
        .into_iter()
        .rev()
        .nth(1)
        .expect("the last batch");
    let (_, found) = open(&disk).expect("open");
    assert_eq!(found[0].1.entries.len(), 31);
    disk.flip_bit(&path, (at + covered - 1) * 8).expect("flip");
    assert!(matches!(open(&disk), Err(Error::Corrupt { .. })));
}

#[test]
fn foreign_files_are_left_alone() {
    let disk = filled();
    for name in [
        "wal/x.seg",
        "wal/1.seg",
        "wal/notes.txt",
        "wal/00000000aa.seg",
    ] {
        disk.open(name, true)
            .and_then(|f| f.write_at(0, b"hello"))
            .expect("write");
    }
    let (_, found) = open(&disk).expect("open");
    assert_eq!(found[0].1.entries.len(), 30);
    assert!(disk.open("wal/notes.txt", false).is_ok());
}

#[test]
fn bytes_of_an_earlier_use_never_validate() {
    // Every segment is used many times; the log is cut back to its first frame in each, so that only stale frames follow.
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    let mut history = History::new(77);
    for _ in 0..600 {
        let step = history.step();
        perform(&mut wal, &step).expect("step");
        let releases: Vec<_> = history
            .model
            .logs
            .iter()
            .map(|(id, log)| (*id, log.range()))
            .collect();
        for (replica, (first, last)) in releases {
            if last < first + 3 {
                continue;
            }
            let entry = &history.model.logs[&replica].entries(last - 2, last - 2)[0];
            let step = Step::Release(replica, entry.0, entry.1);
            history.model.release(replica, entry.0, entry.1);
            perform(&mut wal, &step).expect("release");
        }
    }
    wal.append(&[state(1, 1_000)]).expect("append");
    history.model.apply(&state(1, 1_000));
    assert!(wal.segments.end().epoch > 20, "{wal:?}");
    assert!(segments(&disk).len() < 15);
    let (_, found) = open(&disk).expect("open");
    assert!(history.model.matches(&found));
}

#[test]
fn a_read_of_damaged_bytes_is_an_error() {
    let disk = filled();
    let (wal, _) = open(&disk).expect("open");
    assert_eq!(read(&wal, 3, 1, 30, usize::MAX).expect("read").len(), 30);
    disk.flip_bit("wal/0000000001.seg", 1000 * 8).expect("flip");
    let failed = read(&wal, 3, 1, 30, usize::MAX).expect_err("damaged");
    assert!(
        failed.to_string().contains("wal/0000000001.seg at "),
        "{failed}"
    );
    let mut unreadable = crate::disk::Faults::default();
    unreadable
        .unreadable
        .insert("wal/0000000002.seg".to_owned());
    disk.set_faults(unreadable);
    assert!(matches!(open(&disk), Err(Error::Io { .. })));
}
