//! Power failures and broken disks: a checkpoint or a merge happens as a whole or not at all.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{Action, Model, NoBudget, channel, checkpoint, freeze, meta, open, record};
use wk_proto::{LogIndex, MessageSeq, ReplicaId, WallMs};
use wk_store::disk::{Faults, SimDisk};
use wk_store::{Dir, Disk, Error, Frozen, IoBudget, Limit, Result, SlotStore, Store, Table};

/// Files of a tier that make one of the next.
const FAN_IN: u64 = 8;

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// The same files, all durable, on another disk.
fn copy(disk: &SimDisk) -> SimDisk {
    let to = SimDisk::new();
    for dir in ["", "messages"] {
        to.sync_dir(dir).unwrap();
        for name in disk.list(dir).unwrap() {
            let path = if dir.is_empty() {
                name
            } else {
                format!("{dir}/{name}")
            };
            let from = disk.open(&path, false).unwrap();
            let mut bytes = vec![0; from.len().unwrap() as usize];
            from.read_at(0, &mut bytes).unwrap();
            let file = to.open(&path, true).unwrap();
            file.write_at(0, &bytes).unwrap();
            file.sync().unwrap();
        }
        to.sync_dir(dir).unwrap();
    }
    to
}

/// Entry `n` of replica `r`: always the same.
fn entry(r: usize, n: u64) -> Vec<Action> {
    let mut actions = vec![Action::Put((n % 2) as usize, (n % 8) as u8, (n * 7) as u8)];
    if n.is_multiple_of(3) {
        actions.push(Action::Delete(0, (n % 5) as u8));
    }
    for i in 0..=n % 3 {
        actions.push(Action::Append {
            channel: (n + i) as usize * (r + 1) % 4,
            from: (n % 3) as usize,
            number: (n % 4) as usize,
            payload: (n * 331 % 3_000) as usize,
            time: 1,
        });
    }
    actions
}

struct Node {
    store: Store,
    slots: [SlotStore; 2],
}

impl Node {
    fn open(disk: &SimDisk) -> Result<Self> {
        let store = Store::open(shared(disk))?;
        let slots = [store.slot(ReplicaId(1))?, store.slot(ReplicaId(2))?];
        Ok(Self { store, slots })
    }

    fn apply(&mut self, models: &mut [Model; 2], upto: u64) {
        for (r, (model, slot)) in models.iter_mut().zip(&mut self.slots).enumerate() {
            while model.applied < upto {
                let actions = entry(r, model.applied + 1);
                model.apply(slot, &actions);
            }
        }
    }

    fn checkpoint(&mut self) -> Result<()> {
        let frozen: Vec<Frozen> = self.slots.iter_mut().filter_map(freeze).collect();
        let done = self.store.checkpoint(&frozen, &mut NoBudget)?;
        self.slots.iter_mut().for_each(|slot| slot.release(&done));
        Ok(())
    }

    fn check(&self, models: &[Model; 2]) {
        for (slot, model) in self.slots.iter().zip(models) {
            model.check(&slot.view());
        }
    }
}

/// A disk where one more checkpoint makes a merge worthwhile, and what it holds.
fn prepared() -> (SimDisk, [Model; 2]) {
    let disk = SimDisk::new();
    Store::open(shared(&disk))
        .unwrap()
        .create(&[meta(1), meta(2)])
        .unwrap();
    let mut node = Node::open(&disk).unwrap();
    let mut models = [Model::default(), Model::default()];
    for round in 1..FAN_IN {
        node.apply(&mut models, round * 2);
        node.checkpoint().unwrap();
    }
    drop(node);
    (disk, models)
}

/// The part that is interrupted: one checkpoint, both merges, garbage.
fn last_steps(node: &mut Node, models: &mut [Model; 2]) -> Result<()> {
    node.apply(models, FAN_IN * 2);
    node.checkpoint()?;
    while node.store.merge_step(&mut NoBudget)? {}
    node.store.merge_step(&mut NoBudget).map(drop)
}

#[test]
fn a_crash_anywhere_in_checkpoint_and_merge_loses_nothing_and_invents_nothing() {
    let (disk, before) = prepared();
    let mut after = before.clone();
    let whole = copy(&disk);
    last_steps(&mut Node::open(&whole).unwrap(), &mut after).unwrap();

    let mut outcomes = [0, 0];
    let mut steps = 0;
    loop {
        steps += 1;
        let broken = copy(&disk);
        let mut node = Node::open(&broken).unwrap();
        broken.set_faults(Faults {
            power_loss_at: Some(broken.operations() + steps),
            ..Faults::default()
        });
        let finished = last_steps(&mut node, &mut before.clone()).is_ok();
        drop(node);
        for seed in 0..3 {
            let crashed = broken.crash(steps * 31 + seed);
            let mut node = Node::open(&crashed).unwrap();
            let applied = node.slots[0].applied().0;
            assert_eq!(
                node.slots[1].applied().0,
                applied,
                "one commit for all replicas"
            );
            let mut now = if applied == after[0].applied {
                after.clone()
            } else {
                before.clone()
            };
            outcomes[usize::from(applied == after[0].applied)] += 1;
            node.check(&now);
            node.apply(&mut now, FAN_IN * 2);
            assert_eq!(now, after);
            node.check(&after);
            node.checkpoint().unwrap();
            while node.store.merge_step(&mut NoBudget).unwrap() {}
            node.check(&after);
        }
        if finished {
            break;
        }
    }
    assert!(steps > 30, "only {steps} operations");
    assert!(outcomes.iter().all(|&n| n > 10), "{outcomes:?}");
}

#[test]
fn a_crash_anywhere_while_a_directory_is_made_leaves_one_that_opens() {
    for step in 1.. {
        let disk = SimDisk::new();
        disk.set_faults(Faults {
            power_loss_at: Some(step),
            ..Faults::default()
        });
        let made = Store::open(shared(&disk)).and_then(|s| s.create(&[meta(1), meta(2)]));
        for seed in 0..4 {
            let crashed = disk.crash(step * 17 + seed);
            let store = Store::open(shared(&crashed)).unwrap();
            let replicas = store.replicas().unwrap();
            assert!(replicas.is_empty() || replicas == [meta(1), meta(2)]);
            assert!(made.is_err() || replicas.len() == 2);
            if replicas.is_empty() {
                store.create(&[meta(1), meta(2)]).unwrap();
            }
        }
        if made.is_ok() {
            break;
        }
    }
}

#[test]
fn a_failed_write_leaves_the_old_checkpoint_and_the_same_parts_can_be_tried_again() {
    let (disk, before) = prepared();
    for nth in 1.. {
        let disk = copy(&disk);
        let mut node = Node::open(&disk).unwrap();
        let mut models = before.clone();
        node.apply(&mut models, FAN_IN * 2);
        let view = node.slots[0].view();
        let frozen: Vec<Frozen> = node.slots.iter_mut().filter_map(freeze).collect();
        let written = count_writes_to(&disk, 1_000);
        disk.set_faults(Faults {
            fail_write_at: Some(written + nth),
            ..Faults::default()
        });
        let first = node.store.checkpoint(&frozen, &mut NoBudget);
        disk.set_faults(Faults::default());
        node.check(&models);
        let done = node.store.checkpoint(&frozen, &mut NoBudget).unwrap();
        node.slots.iter_mut().for_each(|slot| slot.release(&done));
        node.check(&models);
        models[0].check(&view);
        drop((view, node));
        Node::open(&disk).unwrap().check(&models);
        if first.is_ok() {
            assert!(nth > 10, "only {nth} writes");
            break;
        }
    }
}

/// The disk does not tell how many writes it has seen: writes until a known number.
fn count_writes_to(disk: &SimDisk, known: u64) -> u64 {
    let probe = disk.open("probe", true).unwrap();
    disk.set_faults(Faults {
        fail_write_at: Some(known),
        ..Faults::default()
    });
    while probe.write_at(0, b"x").is_ok() {}
    known
}

#[test]
fn a_full_disk_is_survived_and_a_failed_sync_is_the_end() {
    let (disk, before) = prepared();
    let mut node = Node::open(&disk).unwrap();
    let mut models = before.clone();
    node.apply(&mut models, FAN_IN * 2);
    let frozen: Vec<Frozen> = node.slots.iter_mut().filter_map(freeze).collect();
    let (free, total) = disk.space().unwrap();
    disk.set_faults(Faults {
        capacity: Some(total - free + 1_000),
        ..Faults::default()
    });
    let refused = node.store.checkpoint(&frozen, &mut NoBudget);
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    node.check(&models);
    disk.set_faults(Faults {
        fail_sync_at: Some(disk.syncs() + 2),
        ..Faults::default()
    });
    assert!(node.store.checkpoint(&frozen, &mut NoBudget).is_err());
    assert!(
        node.store.checkpoint(&frozen, &mut NoBudget).is_err(),
        "never again"
    );
    drop(node);
    Node::open(&disk.crash(1)).unwrap().check(&before);
}

fn flipped(disk: &SimDisk, path: &str, bit: u64) -> SimDisk {
    let disk = copy(disk);
    disk.flip_bit(path, bit).unwrap();
    disk
}

#[test]
fn damage_in_a_message_file_is_named_never_shown_and_never_a_panic() {
    let disk = SimDisk::new();
    let store = open(&shared(&disk));
    store.create(&[meta(1)]).unwrap();
    let mut slot = store.slot(ReplicaId(1)).unwrap();
    let mut model = Model::default();
    for n in 1..=6 {
        model.apply(&mut slot, &entry(0, n));
    }
    checkpoint(&store, &mut [&mut slot]);
    drop((slot, store));
    let [file] = &disk.list("messages").unwrap()[..] else {
        panic!("one file");
    };
    let path = format!("messages/{file}");
    let bits = disk.open(&path, false).unwrap().len().unwrap() * 8;
    let mut damaged = 0;
    for bit in (0..bits).step_by(97) {
        let disk = flipped(&disk, &path, bit);
        let seen = Store::open(shared(&disk)).and_then(|store| read_all(&store, &model));
        match seen {
            Ok(()) => {}
            Err(Error::Corrupt { what, .. }) => {
                assert!(what.starts_with(&path) && what.contains("byte"), "{what}");
                damaged += 1;
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
    // Everything but the padding of the trailer is covered, and read by one of the questions.
    assert!(damaged * 97 * 100 > bits * 98, "{damaged} of {}", bits / 97);
}

/// Reads everything; what is not an error must be right.
fn read_all(store: &Store, model: &Model) -> Result<()> {
    let mut slot = store.slot(ReplicaId(1))?;
    let view = slot.view();
    let limit = Limit {
        count: 1_000,
        bytes: 1 << 30,
    };
    for (key, messages) in &model.channels {
        let all = view.range(key, MessageSeq(1), MessageSeq(1_000), Dir::Up, limit)?;
        assert_eq!(&all, messages);
        for m in messages {
            let from = m.record.from_uid();
            assert!(view.last_by(key, from)? >= Some(m.seq));
            let number = m.record.client_msg_no();
            if !number.is_empty() {
                assert!(!view.by_client_msg_no(key, number, 10)?.is_empty());
                let tx = slot.begin(LogIndex(1_000));
                assert!(tx.duplicate(key, from, number, WallMs(0))?.is_some());
            }
        }
    }
    for (key, m) in &model.journal {
        let found = view.by_id(m.record.message_id())?;
        assert_eq!(found, Some((key.clone(), m.clone())));
    }
    Ok(())
}

#[test]
fn a_newer_format_is_refused_with_a_sentence() {
    let (disk, _) = prepared();
    let name = disk.list("messages").unwrap().remove(0);
    let file = disk.open(&format!("messages/{name}"), false).unwrap();
    let mut header = [0; 12];
    file.read_at(0, &mut header).unwrap();
    header[8] += 1;
    file.write_at(0, &header).unwrap();
    file.write_at(12, &crc32c::crc32c(&header).to_le_bytes())
        .unwrap();
    let refused = Store::open(shared(&disk)).unwrap_err();
    assert!(
        matches!(&refused, Error::Invalid(text) if text.contains(&name)),
        "{refused}"
    );
}

#[test]
fn a_missing_message_file_and_missing_rows_are_errors() {
    let (disk, _) = prepared();
    let other = copy(&disk);
    let name = disk.list("messages").unwrap().remove(0);
    disk.remove(&format!("messages/{name}")).unwrap();
    let error = Store::open(shared(&disk)).unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    other.remove("rows.redb").unwrap();
    assert!(matches!(
        Store::open(shared(&other)),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn files_that_a_merge_replaced_stay_until_the_last_view_is_gone() {
    let (disk, before) = prepared();
    let mut node = Node::open(&disk).unwrap();
    let mut models = before.clone();
    node.apply(&mut models, FAN_IN * 2);
    node.checkpoint().unwrap();
    let view = node.slots[0].view();
    while node.store.merge_step(&mut NoBudget).unwrap() {}
    assert_eq!(disk.list("messages").unwrap().len() as u64, FAN_IN + 2);
    models[0].check(&view);
    drop(view);
    node.store.merge_step(&mut NoBudget).unwrap();
    assert_eq!(disk.list("messages").unwrap().len(), 2, "one per replica");
    node.check(&models);
}

#[test]
fn appending_writes_no_rows() {
    let disk = SimDisk::new();
    let store = open(&shared(&disk));
    store.create(&[meta(1)]).unwrap();
    let mut slot = store.slot(ReplicaId(1)).unwrap();
    for n in 1..=10_000u64 {
        let mut tx = slot.begin(LogIndex(n));
        let record = record(n as i64, n, "u1", &format!("no{n}"), b"hello");
        tx.append(&channel(n as usize), record).unwrap();
        tx.commit();
    }
    assert_eq!(slot.dirty().0, 0);
    checkpoint(&store, &mut [&mut slot]);
    let view = slot.view();
    for table in 0..=255 {
        assert_eq!(view.scan(Table(table), &[], None, 10).unwrap(), []);
    }
    let kib = disk.open("rows.redb", false).unwrap().len().unwrap() / 1024;
    assert!(kib < 2_000, "{kib} KiB of rows for 10,000 messages");
}

/// Remembers what was asked for.
#[derive(Default)]
struct Meter(Vec<usize>);

impl IoBudget for Meter {
    fn take(&mut self, bytes: usize) {
        self.0.push(bytes);
    }
}

#[test]
fn background_writes_ask_the_budget_for_every_byte_in_steps() {
    let disk = SimDisk::new();
    let store = open(&shared(&disk));
    store.create(&[meta(1)]).unwrap();
    let mut slot = store.slot(ReplicaId(1)).unwrap();
    let mut tx = slot.begin(LogIndex(1));
    for n in 1..=30 {
        let record = record(n, 1, "u1", "", &vec![n as u8; 200_000]);
        tx.append(&channel(n as usize), record).unwrap();
        tx.put(Table(1), &n.to_be_bytes(), vec![0; 100_000].into());
    }
    tx.commit();
    let frozen = freeze(&mut slot).unwrap();
    let mut meter = Meter::default();
    store.checkpoint(&[frozen], &mut meter).unwrap();
    assert!(meter.0.iter().all(|&step| step <= 1024 * 1024));
    let asked: usize = meter.0.iter().sum();
    assert!((9_000_000..20_000_000).contains(&asked), "{asked} bytes");
}

#[test]
fn rows_written_again_and_again_do_not_grow_the_file() {
    let disk = SimDisk::new();
    let store = open(&shared(&disk));
    store.create(&[meta(1)]).unwrap();
    let mut slot = store.slot(ReplicaId(1)).unwrap();
    let mut after = Vec::new();
    for round in 0..60u64 {
        let mut tx = slot.begin(LogIndex(round + 1));
        for key in 0..500u64 {
            let value = bytes::Bytes::from(vec![round as u8; 100]);
            tx.put(Table(1), &(key * 7_919 % 500).to_be_bytes(), value);
        }
        tx.commit();
        checkpoint(&store, &mut [&mut slot]);
        after.push(disk.open("rows.redb", false).unwrap().len().unwrap());
    }
    assert!(after[59] <= after[9] * 3 / 2, "{after:?}");
}
