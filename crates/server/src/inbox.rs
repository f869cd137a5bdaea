//! The mailbox of a shard thread: batches in, everything out at once.
//!
//! Its size is bounded by what is allowed in before it: calls by the router's limits, the rest by what the shard itself asked for.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wk_replica::{Input, WalMark};

#[derive(Debug, Default)]
struct State {
    queue: Vec<Input>,
    /// Newest durable mark; overtakes the queue (D9).
    durable: Option<WalMark>,
    sleeping: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

/// What [`Inbox::wait`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) durable: Option<WalMark>,
    pub(crate) closed: bool,
}

impl Inbox {
    /// Moves a batch in. Returns whether the thread sleeps and [`Self::wake`] must follow.
    #[must_use]
    pub(crate) fn put(&self, batch: &mut Vec<Input>) -> bool {
        let mut state = self.state.lock();
        state.queue.append(batch);
        std::mem::take(&mut state.sleeping)
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Puts one input and wakes.
    pub(crate) fn push(&self, input: Input) {
        if self.put(&mut vec![input]) {
            self.wake();
        }
    }

    /// Everything up to `mark` is on disk.
    pub(crate) fn durable(&self, mark: WalMark) {
        let sleeping = {
            let mut state = self.state.lock();
            state.durable = state.durable.max(Some(mark));
            std::mem::take(&mut state.sleeping)
        };
        if sleeping {
            self.wake();
        }
    }

    /// The thread ends once it has taken everything.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake();
    }

    /// Takes everything into the empty `into`, waiting at most `timeout` for something (`None`: as long as it takes).
    pub(crate) fn wait(&self, timeout: Option<Duration>, into: &mut Vec<Input>) -> Found {
        let mut state = self.state.lock();
        if state.queue.is_empty() && state.durable.is_none() && !state.closed {
            state.sleeping = true;
            match timeout {
                Some(timeout) => drop(self.wake.wait_for(&mut state, timeout)),
                None => self.wake.wait(&mut state),
            }
            state.sleeping = false;
        }
        std::mem::swap(&mut state.queue, into);
        Found {
            durable: state.durable.take(),
            closed: state.closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durable_mark_overtakes_and_joins() {
        let inbox = Inbox::default();
        inbox.push(Input::Tick);
        inbox.durable(WalMark(2));
        inbox.durable(WalMark(5));
        let mut taken = Vec::new();
        let found = inbox.wait(None, &mut taken);
        assert_eq!(found.durable, Some(WalMark(5)));
        assert_eq!(taken.len(), 1);
        taken.clear();
        let none = inbox.wait(Some(Duration::ZERO), &mut taken);
        assert_eq!((none.durable, taken.len()), (None, 0));
    }

    #[test]
    fn a_closed_inbox_still_hands_out_what_it_holds() {
        let inbox = Inbox::default();
        inbox.push(Input::Tick);
        inbox.close();
        let mut taken = Vec::new();
        assert!(inbox.wait(None, &mut taken).closed);
        assert_eq!(taken.len(), 1);
    }
}
