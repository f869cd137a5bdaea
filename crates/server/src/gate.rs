//! Why this node may not take work now: its disk failed, it is full, or the node is going down.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::watch;
use wk_chat::request::{CallError, Why};
use wk_chat::{Request, Write};
use wk_proto::Flags;

/// Shared by everything that takes work. Failure is final: nothing is retried on a disk that failed.
#[derive(Debug)]
pub(crate) struct Gate {
    failed: watch::Sender<Option<String>>,
    broken: AtomicBool,
    closed: AtomicBool,
    disk_low: AtomicBool,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            failed: watch::Sender::new(None),
            broken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
        }
    }

    /// The node cannot go on. The first cause is kept.
    pub(crate) fn fail(&self, cause: String) {
        tracing::error!(cause, "the node stops serving");
        self.broken.store(true, Relaxed);
        self.failed.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(cause);
            }
            first
        });
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// The node is going down: nothing further is taken.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn cause(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Waits for the failure.
    pub(crate) async fn failed(&self) -> String {
        let mut watch = self.failed.subscribe();
        match watch.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => String::new(),
        }
    }

    /// Free space fell below the mark, or is back (D12).
    pub(crate) fn set_disk_low(&self, low: bool) {
        if self.disk_low.swap(low, Relaxed) != low {
            tracing::warn!(low, "free disk space: appends are refused while it is low");
        }
    }

    pub(crate) fn is_disk_low(&self) -> bool {
        self.disk_low.load(Relaxed)
    }

    /// Whether a request may go on now.
    pub(crate) fn check(&self, request: &Request) -> Result<(), CallError> {
        if self.is_broken() {
            return Err(CallError::NotSent(Why::Faulty));
        }
        if self.closed.load(Relaxed) {
            return Err(CallError::NotSent(Why::Draining));
        }
        if self.is_disk_low() && grows(request) {
            return Err(CallError::NotSent(Why::Busy));
        }
        Ok(())
    }
}

/// Whether a request adds to the log. What others already owe (inboxes) is let through: it frees rows elsewhere.
fn grows(request: &Request) -> bool {
    match request {
        Request::Send(send) => !send.flags.has(Flags::NO_PERSIST),
        Request::Write(write) => !matches!(**write, Write::Inbox(_) | Write::OutboxDone { .. }),
        Request::Admit(_) | Request::Query(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_chat::Query;

    fn write() -> Request {
        Request::Write(Box::new(Write::SystemUids {
            uids: Vec::new(),
            add: true,
        }))
    }

    #[test]
    fn a_full_disk_still_serves_reads() {
        let gate = Gate::new();
        gate.set_disk_low(true);
        assert!(gate.check(&write()).is_err());
        let query = Request::Query(Box::new(Query::SystemUids));
        assert!(gate.check(&query).is_ok());
        gate.set_disk_low(false);
        assert!(gate.check(&write()).is_ok());
    }

    #[tokio::test]
    async fn the_first_cause_of_failure_stays() {
        let gate = Gate::new();
        gate.fail("disk".into());
        gate.fail("later".into());
        assert_eq!(gate.failed().await, "disk");
        let query = Request::Query(Box::new(Query::SystemUids));
        assert_eq!(gate.check(&query), Err(CallError::NotSent(Why::Faulty)));
    }
}
