//! The threads and tasks of a node, and the order in which they end.
//!
//! | Thread or task | Number | Ends when |
//! |---|---|---|
//! | `shard-N` | `NodeConfig::shards` | its inbox is closed |
//! | `wal` | 1 | its queue is closed, after the shards |
//! | `checkpoint` | 1 | it has made the last checkpoint |
//! | `read-N`, `deliver-N` | fixed | their queue is closed |
//! | listeners, timers, router deadlines, waker, small watchers | 1 each, tokio | they are aborted |
//! | connections | 1 each, tokio | their session ends |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use wk_cluster::formation::{Event, Hold};
use wk_replica::Input;

use crate::checkpoint_thread::Ask;
use crate::limits::{HAND_OVER_MS, STOP_ANSWER_MS};
use crate::node::StartError;
use crate::parts::Parts;

/// Which threads end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Shard,
    Wal,
    Checkpoint,
    Read,
    Deliver,
}

/// See the module. Dropping it without [`Self::stop`] ends the tasks and lets the threads end by themselves. The threads that write
/// hold the lock of the data directory for as long as they run.
#[derive(Debug)]
pub(crate) struct Running {
    parts: Arc<Parts>,
    asks: mpsc::Sender<Ask>,
    threads: Vec<(Part, thread::JoinHandle<()>)>,
    tasks: Vec<JoinHandle<()>>,
    listeners: Vec<AbortHandle>,
    /// Background writes need not spare the log any more.
    hurry: Arc<AtomicBool>,
}

/// Time for the last checkpoint. Without it the log is replayed at the next start.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(1_200);

/// Time for the threads to end.
const JOIN_WAIT: Duration = Duration::from_millis(500);

/// Pause between two looks at the calls in flight.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Running {
    pub(crate) fn new(parts: Arc<Parts>, asks: mpsc::Sender<Ask>, hurry: Arc<AtomicBool>) -> Self {
        Self {
            parts,
            asks,
            threads: Vec::new(),
            tasks: Vec::new(),
            listeners: Vec::new(),
            hurry,
        }
    }

    /// Starts a thread. If it panics an invariant of the node is broken: the node stops serving.
    pub(crate) fn thread(
        &mut self,
        part: Part,
        name: String,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let gate = self.parts.gate.clone();
        let whose = name.clone();
        let guarded = move || {
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                gate.fail(format!("thread {whose} panicked"));
            }
        };
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(guarded)
            .map_err(|error| StartError::System(format!("cannot start thread {name}: {error}")))?;
        self.threads.push((part, thread));
        Ok(())
    }

    pub(crate) fn task(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    pub(crate) fn listener(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.listeners.push(tokio::spawn(task).abort_handle());
    }

    /// Takes no new connection, answers what was accepted, then ends everything, within 5 s.
    pub(crate) async fn stop(mut self) {
        self.stop_listening();
        let parts = self.parts.clone();
        hand_over(&parts).await;
        parts.hub.drain();
        let answered = timeout(Duration::from_millis(STOP_ANSWER_MS), async {
            parts.hub.empty().await;
            while parts.route.in_flight() > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        if answered.await.is_err() {
            let (connections, calls) = (parts.hub.len(), parts.route.in_flight());
            tracing::warn!(connections, calls, "stopping with work left");
        }
        parts.gate.close();
        parts.route.give_up();
        drain(&parts);
        self.checkpoint().await;
        self.end_threads().await;
        self.end_tasks().await;
    }

    /// Sockets are closed when this is over: the port can be used again.
    async fn end_tasks(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let ended = timeout(JOIN_WAIT, async {
            for task in self.tasks.drain(..) {
                // It was aborted, or ended before.
                drop(task.await);
            }
        });
        if ended.await.is_err() {
            tracing::warn!("tasks do not end in time");
        }
    }

    fn stop_listening(&mut self) {
        for listener in self.listeners.drain(..) {
            listener.abort();
        }
    }

    async fn checkpoint(&self) {
        self.hurry.store(true, Relaxed);
        let (done, finished) = oneshot::channel();
        if self.asks.send(Ask::Finish(done)).is_ok()
            && timeout(CHECKPOINT_WAIT, finished).await.is_err()
        {
            tracing::warn!("no time for a last checkpoint; the next start replays the log");
        }
    }

    async fn end_threads(&mut self) {
        let parts = self.parts.clone();
        parts.delivery.close();
        self.join(Part::Deliver).await;
        parts.inboxes.iter().for_each(|inbox| inbox.close());
        self.join(Part::Shard).await;
        parts.reads.close();
        self.join(Part::Read).await;
        parts.wal.close();
        self.join(Part::Wal).await;
        self.join(Part::Checkpoint).await;
    }

    async fn join(&mut self, part: Part) {
        let ending = self.threads.extract_if(.., |(of, _)| *of == part);
        let ending: Vec<_> = ending.map(|(_, thread)| thread).collect();
        // A panic was reported where it happened.
        let joined = tokio::task::spawn_blocking(|| {
            ending.into_iter().for_each(|thread| drop(thread.join()));
        });
        if timeout(JOIN_WAIT, joined).await.is_err() {
            tracing::warn!(?part, "threads do not end in time");
        }
    }
}

fn drain(parts: &Parts) {
    for inbox in &parts.inboxes {
        inbox.push(Input::Drain);
    }
}

/// Lets the other nodes take over what this one leads; what its clients have sent goes there, too.
async fn hand_over(parts: &Parts) {
    if !parts.mesh.is_anybody_here() {
        return;
    }
    parts.former.tell(Event::Hold(Hold::Draining, true));
    drain(parts);
    let gone = timeout(Duration::from_millis(HAND_OVER_MS), async {
        while parts.statuses.iter().any(|s| s.led.load(Relaxed) > 0) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    if gone.await.is_err() {
        tracing::warn!("nobody took over some of what this node leads");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_listening();
        self.tasks.drain(..).for_each(|task| task.abort());
        let parts = &self.parts;
        parts.delivery.close();
        parts.inboxes.iter().for_each(|inbox| inbox.close());
        parts.reads.close();
        parts.wal.close();
    }
}
