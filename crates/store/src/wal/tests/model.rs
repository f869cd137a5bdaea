//! A log as a map, random histories of it, and the comparison.

use std::collections::BTreeMap;

use super::*;

/// One replica. Keeps released entries, since the real log may show some of them again after a restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    state: Option<(Term, u64, LogIndex)>,
    /// By a `Start` record.
    start: Option<(LogIndex, Term)>,
    /// By a release: at or after `start`.
    released: Option<(LogIndex, Term)>,
    entries: BTreeMap<u64, (Term, u8, Bytes)>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) logs: BTreeMap<ReplicaId, Log>,
}

/// What is done to a log, one thing at a time.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Batch(Vec<WalRecord>),
    Sync,
    Release(ReplicaId, LogIndex, Term),
}

impl Model {
    pub(super) fn apply(&mut self, record: &WalRecord) {
        match record {
            WalRecord::Removed { replica } => {
                self.logs.remove(replica);
            }
            WalRecord::State {
                replica,
                term,
                vote,
                commit,
            } => self.log(*replica).state = Some((*term, *vote, *commit)),
            WalRecord::Entry {
                replica,
                term,
                index,
                kind,
                data,
            } => {
                let log = self.log(*replica);
                log.entries.split_off(&index.0);
                log.entries.insert(index.0, (*term, *kind, data.clone()));
            }
            WalRecord::Start {
                replica,
                index,
                term,
            } => {
                let log = self.log(*replica);
                let same = log
                    .entries
                    .get(&index.0)
                    .is_some_and(|entry| entry.0 == *term);
                log.entries = if same {
                    log.entries.split_off(&(index.0 + 1))
                } else {
                    BTreeMap::new()
                };
                log.start = Some((*index, *term));
                log.released = log.start;
            }
        }
    }

    pub(super) fn release(&mut self, replica: ReplicaId, index: LogIndex, term: Term) {
        self.log(replica).released = Some((index, term));
    }

    fn log(&mut self, replica: ReplicaId) -> &mut Log {
        self.logs.entry(replica).or_default()
    }

    /// Whether a log that was opened shows this history.
    pub(super) fn matches(&self, found: &[(ReplicaId, Recovered)]) -> bool {
        let mut found: BTreeMap<_, _> = found.iter().map(|(id, found)| (*id, found)).collect();
        let is_same = |(id, log): (&ReplicaId, &Log)| match found.remove(id) {
            Some(found) => log.matches(found),
            None => false,
        };
        // Not `all`: every replica of the model is taken out of what was found.
        let differing = self.logs.iter().map(is_same).filter(|same| !same).count();
        differing == 0 && found.is_empty()
    }
}

impl Log {
    /// First index not released, last entry.
    pub(super) fn range(&self) -> (u64, u64) {
        let first = self.released.map_or(0, |(index, _)| index.0) + 1;
        let last = self.entries.keys().next_back().copied().unwrap_or(0);
        (first, last.max(first - 1))
    }

    pub(super) fn entries(&self, first: u64, last: u64) -> Vec<LogEntry> {
        let range = self.entries.range(first..=last);
        range
            .map(|(i, (term, kind, data))| (LogIndex(*i), *term, *kind, data.clone()))
            .collect()
    }

    fn matches(&self, found: &Recovered) -> bool {
        let index = |start: Option<(LogIndex, Term)>| start.map_or(0, |(index, _)| index.0);
        let start = index(found.start);
        let term_is_right = match self.entries.get(&start) {
            Some((term, ..)) => found.start.is_some_and(|found| found.1 == *term),
            None => found.start == self.start || found.start == self.released,
        };
        found.state == self.state
            && (index(self.start)..=index(self.released)).contains(&start)
            && term_is_right
            && found.entries == self.entries(start + 1, u64::MAX)
    }
}

/// splitmix64, as in the simulated disk: histories depend on the seed alone.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// A random history such as raft would make: it never replaces a released entry.
pub(super) struct History {
    random: Random,
    pub(super) model: Model,
    term: u64,
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            model: Model::default(),
            term: 1,
        }
    }

    /// The next step, already applied to the model.
    pub(super) fn step(&mut self) -> Step {
        match self.random.below(10) {
            0..=1 => Step::Sync,
            2..=3 => self.release().unwrap_or(Step::Sync),
            _ => {
                let mut batch = Vec::new();
                for _ in 0..1 + self.random.below(3) {
                    self.records(&mut batch);
                }
                Step::Batch(batch)
            }
        }
    }

    fn release(&mut self) -> Option<Step> {
        let replica = ReplicaId(1 + self.random.below(5));
        let (first, last) = self.model.logs.get(&replica)?.range();
        if first > last {
            return None;
        }
        let index = LogIndex(first + self.random.below(last - first + 1));
        let term = self.model.logs[&replica].entries[&index.0].0;
        self.model.release(replica, index, term);
        Some(Step::Release(replica, index, term))
    }

    fn records(&mut self, batch: &mut Vec<WalRecord>) {
        let replica = 1 + self.random.below(5);
        let log = self
            .model
            .logs
            .get(&ReplicaId(replica))
            .cloned()
            .unwrap_or_default();
        let (first, last) = log.range();
        match self.random.below(17) {
            0 => self.push(
                batch,
                WalRecord::Removed {
                    replica: ReplicaId(replica),
                },
            ),
            1 => {
                self.term += 1;
                let index = last + 1 + self.random.below(3);
                self.push(batch, start(replica, index, self.term));
            }
            2 if last > first => {
                let index = first + self.random.below(last - first);
                let term = log.entries[&index].0.0;
                self.push(batch, start(replica, index, term));
            }
            16 if last > first => {
                self.term += 1;
                let index = first + self.random.below(last - first);
                self.push(batch, start(replica, index, self.term));
            }
            3 if last > first => {
                self.term += 1;
                let index = first + self.random.below(last - first + 1);
                self.entries(batch, replica, index);
            }
            4..=6 => self.push(batch, state(replica, self.term)),
            _ => self.entries(batch, replica, last + 1),
        }
    }

    fn entries(&mut self, batch: &mut Vec<WalRecord>, replica: u64, first: u64) {
        for index in first..=first + self.random.below(4) {
            let len = match self.random.below(12) {
                0 => self.random.below(3000),
                _ => self.random.below(300),
            };
            let byte = self.random.below(256) as u8;
            self.push(
                batch,
                entry(replica, self.term, index, &vec![byte; len as usize]),
            );
        }
    }

    fn push(&mut self, batch: &mut Vec<WalRecord>, record: WalRecord) {
        self.model.apply(&record);
        batch.push(record);
    }
}

pub(super) fn perform(wal: &mut Wal, step: &Step) -> Result<()> {
    match step {
        Step::Batch(records) => wal.append(records),
        Step::Sync => wal.sync(),
        Step::Release(replica, index, term) => wal.release(*replica, *index, *term),
    }
}

fn check_reads(wal: &Wal, model: &Model, random: &mut Random) {
    for (replica, log) in &model.logs {
        let (first, last) = log.range();
        if first > last {
            assert!(
                wal.read(*replica, LogIndex(first), LogIndex(first), 1)
                    .is_err()
            );
            continue;
        }
        let first = first + random.below(last - first + 1);
        let last = first + random.below(last - first + 1);
        let found = wal.read(*replica, LogIndex(first), LogIndex(last), usize::MAX);
        assert_eq!(
            found.expect("read"),
            log.entries(first, last),
            "{replica:?}"
        );
    }
}

#[test]
fn random_histories_equal_the_model() {
    for seed in 0..60 {
        let disk = SimDisk::new();
        let mut history = History::new(seed);
        let mut random = Random(seed);
        let (mut wal, _) = open(&disk).expect("open");
        for n in 0..150 {
            let step = history.step();
            perform(&mut wal, &step).expect("step");
            check_reads(&wal, &history.model, &mut random);
            if random.below(15) == 0 {
                let (again, found) = open(&disk).expect("open");
                assert!(history.model.matches(&found), "seed {seed} step {n}");
                wal = again;
                // Releases that were not written are not known any more.
                for (replica, found) in found {
                    if let (Some(log), Some(_)) =
                        (history.model.logs.get_mut(&replica), &found.start)
                    {
                        log.released = found.start;
                    } else if let Some(log) = history.model.logs.get_mut(&replica) {
                        log.released = None;
                    }
                }
                check_reads(&wal, &history.model, &mut random);
            }
        }
        assert!(segments(&disk).len() >= 2, "it rolled");
    }
}

#[test]
fn the_real_disk_and_the_simulated_one_end_with_the_same_bytes() {
    use crate::{Disk, RealDisk};
    let dir = tempfile::tempdir().expect("temp dir");
    let real: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).expect("disk"));
    let sim: Arc<dyn Disk> = Arc::new(SimDisk::new());
    for (disk, is_last) in [(&real, false), (&sim, true)] {
        let mut history = History::new(5);
        let (mut wal, _) = Wal::open(disk.clone(), options()).expect("open");
        for _ in 0..60 {
            perform(&mut wal, &history.step()).expect("step");
        }
        drop(wal);
        let (_, found) = Wal::open(disk.clone(), options()).expect("open");
        assert!(history.model.matches(&found));
        if is_last {
            let names = real.list("wal").expect("list");
            assert_eq!(names, sim.list("wal").expect("list"));
            for name in names {
                let bytes = |disk: &Arc<dyn Disk>| {
                    let file = disk.open(&format!("wal/{name}"), false).expect("open");
                    let mut bytes = vec![0; file.len().expect("len") as usize];
                    file.read_at(0, &mut bytes).expect("read");
                    bytes
                };
                assert!(bytes(&real) == bytes(&sim), "{name}");
            }
        }
    }
}
