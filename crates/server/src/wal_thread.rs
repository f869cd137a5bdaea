//! The one writer of the write-ahead log: while an fsync runs, everything all shards want to persist gathers for the next.
//!
//! Failure policy: after an error the log is dead; the node stops serving and nothing is reported durable any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};
use wk_proto::{LogIndex, ReplicaId, Term};
use wk_replica::WalMark;
use wk_store::{Wal, WalRecord};

use crate::counters::Totals;
use crate::gate::Gate;
use crate::inbox::Inbox;

/// What one shard wants on disk.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) shard: usize,
    pub(crate) mark: WalMark,
    pub(crate) records: Vec<WalRecord>,
}

#[derive(Debug, Default)]
struct State {
    batches: Vec<Batch>,
    releases: Vec<(ReplicaId, LogIndex, Term)>,
    sleeping: bool,
    closed: bool,
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

    /// Everything queued; waits for something. `closed` with empty lists is the end.
    fn take(&self) -> State {
        let mut state = self.state.lock();
        while state.batches.is_empty() && state.releases.is_empty() && !state.closed {
            state.sleeping = true;
            self.wake.wait(&mut state);
        }
        state.sleeping = false;
        State {
            batches: std::mem::take(&mut state.batches),
            releases: std::mem::take(&mut state.releases),
            sleeping: false,
            closed: state.closed,
        }
    }
}

/// The thread.
pub(crate) struct WalThread {
    pub(crate) wal: Wal,
    pub(crate) queue: Arc<WalQueue>,
    /// By shard number.
    pub(crate) shards: Vec<Arc<Inbox>>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) totals: Arc<Totals>,
}

impl WalThread {
    pub(crate) fn run(mut self) {
        loop {
            let work = self.queue.take();
            if work.closed && work.batches.is_empty() && work.releases.is_empty() {
                return;
            }
            if self.gate.is_broken() {
                continue;
            }
            if let Err(error) = self.work(work) {
                self.gate.fail(format!("write-ahead log: {error}"));
            }
        }
    }

    fn work(&mut self, mut work: State) -> wk_store::Result<()> {
        if !work.batches.is_empty() {
            for batch in &work.batches {
                self.wal.append(&batch.records)?;
            }
            self.wal.sync()?;
            self.totals.fsyncs.add(1);
            for batch in work.batches.drain(..) {
                self.shards[batch.shard].durable(batch.mark);
            }
        }
        let released = !work.releases.is_empty();
        for (replica, index, term) in work.releases {
            self.wal.release(replica, index, term)?;
        }
        if released || self.totals.fsyncs.get() % USAGE_EVERY == 0 {
            self.queue.set_used(self.wal.usage().0);
        }
        Ok(())
    }
}

/// Fsyncs between two looks at the log's size.
const USAGE_EVERY: u64 = 64;
