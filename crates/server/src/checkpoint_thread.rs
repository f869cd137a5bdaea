//! Checkpoints: when something is dirty enough or old enough, freeze, write, switch, let the log forget (H40). Also merges message
//! files and watches the free space.
//!
//! Failure policy: a failed checkpoint leaves the old one standing; it is tried again after a pause, with the same frozen parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wk_replica::Input;
use wk_store::{Disk, Frozen, IoBudget, Store};

use crate::limits::{
    CHECKPOINT_AGE_MS, CHECKPOINT_MESSAGE_BYTES, CHECKPOINT_RETRY_MS, CHECKPOINT_ROWS,
    CHECKPOINT_WAL_BYTES, FREE_BYTES_MIN, IO_BYTES_PER_S,
};
use crate::parts::Parts;
use crate::shard_thread::ShardStatus;

/// Pause between two looks at the triggers.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks between two looks at the free space.
const SPACE_EVERY: u32 = 4;

/// Longest wait for the shards to freeze: a turn each.
const FREEZE_WAIT: Duration = Duration::from_secs(5);

/// What the thread is asked.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A last checkpoint, then the end. Answered when it is done or failed.
    Finish(oneshot::Sender<()>),
}

/// The thread.
pub(crate) struct CheckpointThread {
    pub(crate) store: Arc<Store>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) parts: Arc<Parts>,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) frozen: mpsc::Receiver<Vec<Frozen>>,
    /// Do not pace any more.
    pub(crate) hurry: Arc<AtomicBool>,
}

/// What is on its way.
struct State {
    budget: TokenBucket,
    last: Instant,
    /// Frozen and not on disk: a failed checkpoint's.
    kept: Vec<Frozen>,
    retry_at: Option<Instant>,
    looks: u32,
}

impl CheckpointThread {
    pub(crate) fn run(self) {
        let mut state = State {
            budget: TokenBucket::new(IO_BYTES_PER_S, self.hurry.clone()),
            last: Instant::now(),
            kept: Vec::new(),
            retry_at: None,
            looks: 0,
        };
        loop {
            match self.asks.recv_timeout(LOOK_EVERY) {
                Ok(Ask::Finish(done)) => {
                    self.checkpoint(&mut state);
                    // Nobody waits any more: the node is stopping anyway.
                    let _ = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.look(&mut state),
            }
        }
    }

    fn look(&self, state: &mut State) {
        if self.parts.gate.is_broken() {
            return;
        }
        if state.looks.is_multiple_of(SPACE_EVERY) {
            self.watch_space();
        }
        state.looks = state.looks.wrapping_add(1);
        if state.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        if !state.kept.is_empty() || self.is_due(state.last) {
            self.checkpoint(state);
        } else if let Err(error) = self.store.merge_step(&mut state.budget) {
            tracing::error!(%error, "message files cannot be merged");
            state.retry_at = Some(Instant::now() + Duration::from_millis(CHECKPOINT_RETRY_MS));
        }
    }

    fn is_due(&self, last: Instant) -> bool {
        let sum = |of: fn(&ShardStatus) -> usize| self.parts.statuses.iter().map(of).sum::<usize>();
        let rows = sum(|s| s.dirty_rows.load(Relaxed));
        let bytes = sum(|s| s.dirty_bytes.load(Relaxed));
        let old = last.elapsed() >= Duration::from_millis(CHECKPOINT_AGE_MS);
        rows >= CHECKPOINT_ROWS
            || bytes >= CHECKPOINT_MESSAGE_BYTES
            || self.parts.wal.used() >= CHECKPOINT_WAL_BYTES && rows + bytes > 0
            || old && rows + bytes > 0
    }

    fn checkpoint(&self, state: &mut State) {
        let mut frozen = std::mem::take(&mut state.kept);
        if frozen.is_empty() {
            frozen = self.freeze();
        }
        state.last = Instant::now();
        if frozen.is_empty() {
            return;
        }
        match self.store.checkpoint(&frozen, &mut state.budget) {
            Ok(done) => {
                state.retry_at = None;
                for shard in &self.parts.inboxes {
                    shard.push(Input::Flushed(done.clone()));
                }
            }
            Err(error) => {
                tracing::error!(%error, "a checkpoint failed; the last one stands");
                state.kept = frozen;
                state.retry_at = Some(Instant::now() + Duration::from_millis(CHECKPOINT_RETRY_MS));
            }
        }
    }

    fn freeze(&self) -> Vec<Frozen> {
        for shard in &self.parts.inboxes {
            shard.push(Input::Freeze);
        }
        let mut all = Vec::new();
        for _ in &self.parts.inboxes {
            match self.frozen.recv_timeout(FREEZE_WAIT) {
                Ok(frozen) => all.extend(frozen),
                // The shard is gone, and with it the node.
                Err(_) => break,
            }
        }
        all
    }

    fn watch_space(&self) {
        match self.disk.space() {
            Ok((free, total)) => self.parts.gate.set_disk_low(is_low(free, total)),
            Err(error) => tracing::warn!(%error, "the free space is unknown"),
        }
    }
}

fn is_low(free: u64, total: u64) -> bool {
    // On a small disk two per cent are less than the fixed mark, and the smaller of both decides: it was chosen for the WAL.
    free < FREE_BYTES_MIN.min(total / 50)
}

/// Paces background writes.
struct TokenBucket {
    per_second: usize,
    tokens: f64,
    at: Instant,
    hurry: Arc<AtomicBool>,
}

impl TokenBucket {
    fn new(per_second: usize, hurry: Arc<AtomicBool>) -> Self {
        Self {
            per_second,
            tokens: 0.0,
            at: Instant::now(),
            hurry,
        }
    }

    /// How long a write of `bytes` has to wait at `now`. At most a tenth of a second's worth is saved up.
    fn wait_for(&mut self, bytes: usize, now: Instant) -> Duration {
        let rate = self.per_second as f64;
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * rate;
        self.at = now;
        self.tokens = (self.tokens + earned).min(rate / 10.0) - bytes as f64;
        Duration::from_secs_f64((-self.tokens).max(0.0) / rate)
    }
}

impl IoBudget for TokenBucket {
    fn take(&mut self, bytes: usize) {
        if self.hurry.load(Relaxed) {
            return;
        }
        let wait = self.wait_for(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_holds_the_rate_and_saves_little() {
        let mut bucket = TokenBucket::new(1_000, Arc::default());
        let start = bucket.at;
        assert_eq!(bucket.wait_for(500, start), Duration::from_millis(500));
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.wait_for(100, later), Duration::ZERO);
        assert_eq!(bucket.wait_for(100, later), Duration::from_millis(100));
    }

    #[test]
    fn low_is_the_smaller_mark() {
        let gib = 1 << 30;
        assert!(is_low(100 << 20, 100 * gib));
        assert!(!is_low(300 << 20, 1_000 * gib));
        assert!(!is_low(100 << 20, gib), "a small disk");
    }
}
