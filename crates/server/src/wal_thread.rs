//! The one writer of the write-ahead log: while an fsync runs, everything all shards want to persist gathers for the next.
//!
//! Failure policy: after an error the log is dead; the node stops serving and nothing is reported durable any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wk_proto::{LogIndex, ReplicaId, Term};
use wk_replica::{Input, WalMark};
use wk_store::{Wal, WalRecord};

use crate::parts::Parts;

/// What one shard wants on disk.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) shard: usize,
    pub(crate) mark: WalMark,
    pub(crate) records: Vec<WalRecord>,
}

/// Entries a shard wants back, for a follower that is behind what memory holds.
#[derive(Debug)]
pub(crate) struct LogRead {
    pub(crate) shard: usize,
    pub(crate) replica: ReplicaId,
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    /// Most bytes, but one entry at least.
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    batches: Vec<Batch>,
    /// At most one per replica: a shard asks again only after the answer.
    reads: Vec<LogRead>,
    releases: Vec<(ReplicaId, LogIndex, Term)>,
    sleeping: bool,
    closed: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.reads.is_empty() && self.releases.is_empty()
    }
}

/// The thread's mailbox. Bounded by what shards may have in flight (D11).
#[derive(Debug, Default)]
pub(crate) struct WalQueue {
    state: Mutex<State>,
    wake: Condvar,
    used: AtomicU64,
}

impl WalQueue {
    pub(crate) fn persist(&self, batch: Batch) {
        self.put(|state| state.batches.push(batch));
    }

    pub(crate) fn release(&self, replica: ReplicaId, index: LogIndex, term: Term) {
        self.put(|state| state.releases.push((replica, index, term)));
    }

    pub(crate) fn read(&self, read: LogRead) {
        self.put(|state| state.reads.push(read));
    }

    pub(crate) fn close(&self) {
        self.put(|state| state.closed = true);
    }

    /// Bytes in live segments.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(crate) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Relaxed);
    }

    fn put(&self, change: impl FnOnce(&mut State)) {
        let sleeping = {
            let mut state = self.state.lock();
            change(&mut state);
            std::mem::take(&mut state.sleeping)
        };
        if sleeping {
            self.wake.notify_one();
        }
    }

    /// Everything queued; waits for something, with `idle` at most so long. `closed` with empty lists is the end.
    fn take(&self, idle: Option<Duration>) -> State {
        let mut state = self.state.lock();
        while state.is_empty() && !state.closed {
            state.sleeping = true;
            let Some(idle) = idle else {
                self.wake.wait(&mut state);
                continue;
            };
            if self.wake.wait_for(&mut state, idle).timed_out() {
                break;
            }
        }
        state.sleeping = false;
        State {
            batches: std::mem::take(&mut state.batches),
            reads: std::mem::take(&mut state.reads),
            releases: std::mem::take(&mut state.releases),
            sleeping: false,
            closed: state.closed,
        }
    }
}

/// The thread.
pub(crate) struct WalThread {
    pub(crate) wal: Wal,
    pub(crate) parts: Arc<Parts>,
}

impl WalThread {
    pub(crate) fn run(mut self) {
        // There may be something to prepare for as long as the log says so.
        let mut idle = Some(PREPARE_AFTER);
        loop {
            let work = self.parts.wal.take(idle);
            let is_empty = work.is_empty();
            if work.closed && is_empty {
                return;
            }
            if self.parts.gate.is_broken() {
                idle = None;
                continue;
            }
            let done = if is_empty && self.parts.gate.is_disk_low() {
                // What is written ahead takes the space that what was accepted needs.
                Ok(false)
            } else if is_empty {
                self.wal.prepare()
            } else {
                self.work(work).map(|()| true)
            };
            match done {
                Ok(more) => idle = more.then_some(PREPARE_AFTER),
                Err(error) => self.parts.gate.fail(format!("write-ahead log: {error}")),
            }
        }
    }

    fn work(&mut self, mut work: State) -> wk_store::Result<()> {
        if !work.batches.is_empty() {
            for batch in &work.batches {
                self.wal.append(&batch.records)?;
            }
            self.wal.sync()?;
            self.parts.totals.fsyncs.add(1);
            for batch in work.batches.drain(..) {
                self.parts.inboxes[batch.shard].durable(batch.mark);
            }
        }
        for read in work.reads {
            self.read(read);
        }
        let released = !work.releases.is_empty();
        for (replica, index, term) in work.releases {
            self.wal.release(replica, index, term)?;
        }
        if released || self.parts.totals.fsyncs.get().is_multiple_of(USAGE_EVERY) {
            self.parts.wal.set_used(self.wal.usage().0);
        }
        Ok(())
    }
}

impl WalThread {
    /// An error of a read leaves the log alive: the shard is told that it cannot have the entries.
    fn read(&self, read: LogRead) {
        let LogRead {
            shard,
            replica,
            first,
            last,
            bytes,
        } = read;
        let entries = self.wal.read(replica, first, last, bytes);
        let entries = entries.unwrap_or_else(|error| {
            tracing::warn!(%error, "the log cannot be read for a follower");
            Vec::new()
        });
        self.parts.inboxes[shard].push(Input::Log(replica, entries));
    }
}

/// Silence after which the log is made ready for later batches, a step at a time.
const PREPARE_AFTER: Duration = Duration::from_millis(20);

/// Fsyncs between two looks at the log's size.
const USAGE_EVERY: u64 = 64;
