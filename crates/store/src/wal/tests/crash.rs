//! Power loss at every operation, failing writes and syncs, a full disk.

use super::model::{History, Model, Step, perform};
use super::*;
use crate::disk::Faults;

/// What an interrupted run left: the models after each record, from the last synced one to the last appended one.
struct Outcome {
    possible: Vec<Model>,
    is_finished: bool,
}

/// Runs a history until it ends or the disk fails.
fn run(disk: &SimDisk, seed: u64, steps: usize) -> Outcome {
    let mut history = History::new(seed);
    let mut model = Model::default();
    let mut possible = vec![model.clone()];
    let Ok((mut wal, _)) = open(disk) else {
        return Outcome {
            possible,
            is_finished: false,
        };
    };
    for _ in 0..steps {
        let step = history.step();
        match &step {
            Step::Batch(records) => {
                for record in records {
                    model.apply(record);
                    possible.push(model.clone());
                }
            }
            Step::Release(replica, index, term) => {
                model.release(*replica, *index, *term);
                possible.push(model.clone());
            }
            Step::Sync => {}
        }
        if perform(&mut wal, &step).is_err() {
            assert!(wal.append(&[state(1, 1)]).is_err(), "the log is dead");
            return Outcome {
                possible,
                is_finished: false,
            };
        }
        if matches!(step, Step::Sync) {
            possible = vec![model.clone()];
        }
    }
    Outcome {
        possible,
        is_finished: true,
    }
}

fn is_possible(outcome: &Outcome, found: &[(ReplicaId, Recovered)]) -> bool {
    outcome.possible.iter().any(|model| model.matches(found))
}

/// After recovery the log must work, and nothing that was cut may come back.
fn check_goes_on(disk: &SimDisk, wal: &mut Wal, found: &[(ReplicaId, Recovered)]) {
    let mut expected: Vec<(ReplicaId, Recovered)> = found.to_vec();
    for (replica, log) in &mut expected {
        let last = log.entries.last().map(|e| e.0).or(log.start.map(|s| s.0));
        let index = last.map_or(1, |last| last.0 + 1);
        for index in index..index + 3 {
            wal.append(&[entry(replica.0, 99, index, b"after")])
                .expect("append");
            let entry = (LogIndex(index), Term(99), 1, Bytes::from_static(b"after"));
            log.entries.push(entry);
        }
    }
    wal.sync().expect("sync");
    let (_, again) = open(&disk.crash(7)).expect("open");
    assert!(again == expected);
}

#[test]
fn a_crash_at_any_operation_keeps_every_synced_record() {
    for seed in 0..6 {
        let disk = SimDisk::new();
        assert!(run(&disk, seed, 60).is_finished);
        let operations = disk.operations();
        assert!(operations > 60);
        for at in 1..=operations {
            for luck in 0..4 {
                let disk = SimDisk::new();
                disk.set_faults(Faults {
                    power_loss_at: Some(at),
                    ..Faults::default()
                });
                let outcome = run(&disk, seed, 60);
                assert!(!outcome.is_finished || at == operations);
                let disk = disk.crash(seed ^ at << 8 ^ luck << 32);
                let (mut wal, found) =
                    open(&disk).unwrap_or_else(|e| panic!("seed {seed} at {at} luck {luck}: {e}"));
                assert!(
                    is_possible(&outcome, &found),
                    "seed {seed} at {at} luck {luck}"
                );
                check_goes_on(&disk, &mut wal, &found);
            }
        }
    }
}

#[test]
fn a_crash_while_recovering_changes_nothing() {
    for seed in 10..13 {
        let disk = SimDisk::new();
        run(&disk, seed, 60);
        for at in (1..=disk.operations()).step_by(3) {
            let disk = SimDisk::new();
            disk.set_faults(Faults {
                power_loss_at: Some(at),
                ..Faults::default()
            });
            let outcome = run(&disk, seed, 60);
            let mut disk = disk.crash(at);
            for again in 1..8 {
                disk.set_faults(Faults {
                    power_loss_at: Some(again),
                    ..Faults::default()
                });
                let _ = open(&disk);
                disk = disk.crash(at << 8 | again);
            }
            let (mut wal, found) = open(&disk).expect("open");
            assert!(is_possible(&outcome, &found), "seed {seed} at {at}");
            check_goes_on(&disk, &mut wal, &found);
        }
    }
}

#[test]
fn frames_after_a_torn_one_never_come_back() {
    // Three unsynced frames of equal size, the first one torn: if the log went on in place, a new frame of that size would make the
    // second one valid again.
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("open");
    wal.append(&[entry(1, 1, 1, &[1; 400])]).expect("append");
    wal.sync().expect("sync");
    for index in 2..=4 {
        wal.append(&[entry(1, 1, index, &[1; 400])])
            .expect("append");
    }
    let torn = wal.segments.end().offset - 2 * 480 - 100;
    disk.flip_bit("wal/0000000001.seg", u64::from(torn) * 8)
        .expect("flip");
    let (mut wal, found) = open(&disk).expect("the tail is cut");
    assert_eq!(indexes(&found[0].1.entries), [1]);
    wal.append(&[entry(1, 2, 2, &[2; 400])]).expect("append");
    wal.sync().expect("sync");
    let (_, found) = open(&disk.crash(3)).expect("open");
    assert_eq!(indexes(&found[0].1.entries), [1, 2]);
    assert_eq!(found[0].1.entries[1].1, Term(2));
}

#[test]
fn a_clean_log_goes_on_in_its_segment() {
    let disk = SimDisk::new();
    for index in 1..=10 {
        let (mut wal, _) = open(&disk).expect("open");
        wal.append(&[entry(1, 1, index, b"x")]).expect("append");
        wal.sync().expect("sync");
    }
    assert_eq!(segments(&disk).len(), 1);
}

#[test]
fn a_failed_write_or_sync_stops_the_log() {
    for seed in 20..26 {
        for nth in 1..40 {
            for is_sync in [false, true] {
                let disk = SimDisk::new();
                disk.set_faults(Faults {
                    fail_write_at: (!is_sync).then_some(nth),
                    fail_sync_at: is_sync.then_some(nth),
                    ..Faults::default()
                });
                let outcome = run(&disk, seed, 80);
                // The process starts again, first on the same running system, then after a power loss.
                disk.set_faults(Faults::default());
                let (_, found) = open(&disk).expect("open");
                assert!(is_possible(&outcome, &found), "seed {seed} nth {nth}");
                let (mut wal, again) = open(&disk.crash(nth)).expect("open");
                assert!(found == again, "what a start returned is durable");
                drop(wal.append(&[state(1, 1)]));
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    for capacity in (2_000..40_000).step_by(1_000) {
        let disk = SimDisk::new();
        disk.set_faults(Faults {
            capacity: Some(capacity),
            ..Faults::default()
        });
        let outcome = run(&disk, 30, 120);
        disk.set_faults(Faults::default());
        let (mut wal, found) = open(&disk).expect("open");
        assert!(is_possible(&outcome, &found), "capacity {capacity}");
        check_goes_on(&disk, &mut wal, &found);
    }
}
