//! Random histories of two replicas against a model: whatever freezes, checkpoints, merges and restarts happen in between, the
//! writer and every view ever taken answer as a plain map would.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;

use common::{Action, Model, NoBudget, checkpoint, freeze, meta, open};
use proptest::prelude::*;
use wk_proto::ReplicaId;
use wk_store::disk::{RealDisk, SimDisk};
use wk_store::{Checkpointed, Disk, Frozen, SlotStore, Store, View};

#[derive(Clone, Debug)]
enum Op {
    Apply(usize, Vec<Action>),
    Abort(usize, Vec<Action>),
    TakeView(usize),
    DropView,
    Freeze(usize),
    Write,
    Release,
    Checkpoint,
    Merge,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let payload = prop_oneof![8 => 0usize..100, 2 => 2_000usize..6_000, 1 => 17_000usize..20_000];
    let append = (
        0usize..common::CHANNELS,
        0usize..3,
        0usize..4,
        payload,
        0u64..5,
    );
    let append = append.prop_map(|(channel, from, number, payload, time)| Action::Append {
        channel,
        from,
        number,
        payload,
        time,
    });
    prop_oneof![
        2 => (0usize..2, 0u8..8, any::<u8>()).prop_map(|(t, k, v)| Action::Put(t, k, v)),
        1 => (0usize..2, 0u8..8).prop_map(|(t, k)| Action::Delete(t, k)),
        4 => append,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let actions = || proptest::collection::vec(action(), 0..8);
    prop_oneof![
        12 => (0usize..2, actions()).prop_map(|(r, a)| Op::Apply(r, a)),
        1 => (0usize..2, actions()).prop_map(|(r, a)| Op::Abort(r, a)),
        3 => (0usize..2).prop_map(Op::TakeView),
        1 => Just(Op::DropView),
        2 => (0usize..2).prop_map(Op::Freeze),
        2 => Just(Op::Write),
        2 => Just(Op::Release),
        5 => Just(Op::Checkpoint),
        3 => Just(Op::Merge),
        1 => Just(Op::Reopen),
    ]
}

/// A node with two replicas, and what it must show.
struct World {
    disk: Arc<dyn Disk>,
    /// `None` only while reopening: two stores must never share a disk.
    store: Option<Store>,
    slots: Vec<SlotStore>,
    models: Vec<Model>,
    /// As of the last checkpoint that was written.
    durable: Vec<Model>,
    frozen: Vec<(usize, Model, Frozen)>,
    written: Vec<Checkpointed>,
    views: Vec<(Model, View)>,
}

impl World {
    fn new(disk: Arc<dyn Disk>) -> Self {
        let store = open(&disk);
        store.create(&[meta(1), meta(2)]).unwrap();
        Self {
            slots: slots(&store),
            store: Some(store),
            disk,
            models: vec![Model::default(); 2],
            durable: vec![Model::default(); 2],
            frozen: Vec::new(),
            written: Vec::new(),
            views: Vec::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Apply(r, actions) => self.models[*r].apply(&mut self.slots[*r], actions),
            Op::Abort(r, actions) => self.abort(*r, actions),
            Op::TakeView(r) => self
                .views
                .push((self.models[*r].clone(), self.slots[*r].view())),
            Op::DropView => drop(self.views.pop()),
            Op::Freeze(r) => {
                let frozen = freeze(&mut self.slots[*r]);
                self.frozen
                    .extend(frozen.map(|f| (*r, self.models[*r].clone(), f)));
            }
            Op::Write => self.write(),
            Op::Release => self.release(),
            Op::Checkpoint => {
                self.write();
                self.release();
                let store = self.store().clone();
                checkpoint(&store, &mut self.slots.iter_mut().collect::<Vec<_>>());
                self.durable = self.models.clone();
            }
            Op::Merge => while self.store().merge_step(&mut NoBudget).unwrap() {},
            Op::Reopen => self.reopen(),
        }
    }

    fn abort(&mut self, r: usize, actions: &[Action]) {
        let mut model = self.models[r].clone();
        let mut tx = self.slots[r].begin(wk_proto::LogIndex(model.applied + 1));
        for action in actions {
            model.act(&mut tx, action);
        }
    }

    fn write(&mut self) {
        let (who, frozen): (Vec<_>, Vec<Frozen>) = self
            .frozen
            .drain(..)
            .map(|(r, model, f)| ((r, model), f))
            .unzip();
        let done = self.store().checkpoint(&frozen, &mut NoBudget).unwrap();
        self.written.push(done);
        for (r, model) in who {
            self.durable[r] = model;
        }
    }

    fn release(&mut self) {
        for done in self.written.drain(..) {
            self.slots.iter_mut().for_each(|slot| slot.release(&done));
        }
    }

    fn reopen(&mut self) {
        self.frozen.clear();
        self.written.clear();
        self.views.clear();
        self.slots.clear();
        self.store = None;
        self.store = Some(open(&self.disk));
        self.slots = slots(self.store());
        self.models = self.durable.clone();
    }

    fn check(&self) {
        for (model, slot) in self.models.iter().zip(&self.slots) {
            model.check(&slot.view());
        }
        for (model, view) in &self.views {
            model.check(view);
        }
    }
}

fn slots(store: &Store) -> Vec<SlotStore> {
    [1, 2].map(|r| store.slot(ReplicaId(r)).unwrap()).into()
}

fn run(disk: Arc<dyn Disk>, ops: &[Op]) {
    let mut world = World::new(disk);
    for (n, op) in ops.iter().enumerate() {
        world.run(op);
        if n % 16 == 15 {
            world.check();
        }
    }
    world.check();
    world.run(&Op::Checkpoint);
    world.run(&Op::Merge);
    world.check();
    world.run(&Op::Reopen);
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_back(ops in proptest::collection::vec(op(), 1..160)) {
        run(Arc::new(SimDisk::new()), &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_back_from_a_real_disk(ops in proptest::collection::vec(op(), 40..80)) {
        let dir = tempfile::tempdir().unwrap();
        run(Arc::new(RealDisk::new(dir.path()).unwrap()), &ops);
    }
}
