//! Threads that answer queries from views, so that a long read holds up no shard (H46).
//!
//! Failure policy: a read that fails is logged and answered as faulty; a panic ends the process's trust in nothing but that query.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::{Condvar, Mutex};
use wk_chat::request::{CallError, Why};
use wk_chat::{Query, Reply};
use wk_proto::Ticket;
use wk_store::View;

use crate::hub::{Hub, Wakes};
use crate::limits::READS_MAX;
use crate::route::{Route, RouteInput};

/// One proven read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) ticket: Ticket,
    pub(crate) view: View,
    pub(crate) query: Box<Query>,
}

#[derive(Debug, Default)]
struct State {
    reads: VecDeque<Read>,
    closed: bool,
}

/// The queue of the pool.
#[derive(Debug, Default)]
pub(crate) struct ReadPool {
    state: Mutex<State>,
    wake: Condvar,
}

impl ReadPool {
    /// Queues a read, or hands back its ticket at the bound.
    pub(crate) fn put(&self, read: Read) -> Result<(), Ticket> {
        let mut state = self.state.lock();
        if state.reads.len() >= READS_MAX {
            return Err(read.ticket);
        }
        state.reads.push_back(read);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }

    /// What one thread of the pool does until the pool is closed.
    pub(crate) fn run(&self, route: &Route, hub: &Hub) {
        while let Some(read) = self.next() {
            let ticket = read.ticket;
            let answer = catch_unwind(AssertUnwindSafe(|| answer(read)))
                .unwrap_or(Err(CallError::NotSent(Why::Faulty)));
            let mut wakes = Wakes::default();
            route.report(&mut vec![RouteInput::Result(ticket, answer)], &mut wakes);
            hub.wake(wakes);
        }
    }

    fn next(&self) -> Option<Read> {
        let mut state = self.state.lock();
        loop {
            if let Some(read) = state.reads.pop_front() {
                return Some(read);
            }
            if state.closed {
                return None;
            }
            self.wake.wait(&mut state);
        }
    }
}

/// The answer; the view is dropped with the read (H40).
pub(crate) fn answer(read: Read) -> Result<Reply, CallError> {
    match read.query.answer(&read.view) {
        Ok(answer) => Ok(Reply::Answer(Box::new(answer))),
        Err(error) => {
            tracing::error!(%error, query = ?read.query, "a read failed");
            Err(CallError::NotSent(Why::Faulty))
        }
    }
}
