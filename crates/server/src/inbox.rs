//! The mailbox of a shard thread: batches in, everything out at once.
//!
//! Its size is bounded by what is allowed in before it: calls by the router's limits, the rest by what the shard itself asked for.
//!
//! While the shard has something on its way to the disk, writes do not wake it: they could not join that fsync any more, and taken
//! together after it they cost one turn instead of many. Nothing waits longer for it than it would have waited for the next fsync.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wk_chat::Request;
use wk_replica::{Input, WalMark};

use crate::limits::TURN_INPUTS_MAX;

#[derive(Debug, Default)]
struct State {
    queue: Vec<Input>,
    /// Newest durable mark; overtakes the queue (D9).
    durable: Option<WalMark>,
    sleeping: bool,
    /// The sleeper wants to be left alone by writes.
    gathering: bool,
    /// Something in the queue is not a write.
    urgent: bool,
    closed: bool,
}

impl State {
    fn is_due(&self, gather: bool) -> bool {
        let full = self.queue.len() >= TURN_INPUTS_MAX;
        let queued = !self.queue.is_empty() && (!gather || self.urgent || full);
        queued || self.durable.is_some() || self.closed
    }
}

/// Whether this must be seen at once even while the disk is busy.
fn is_urgent(input: &Input) -> bool {
    !matches!(
        input,
        Input::Call(_, _, _, Request::Send(_) | Request::Write(_))
    )
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
        if !state.urgent {
            state.urgent = batch.iter().any(is_urgent);
        }
        state.queue.append(batch);
        let wake = state.sleeping && state.is_due(state.gathering);
        state.sleeping &= !wake;
        wake
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

    /// Takes everything into the empty `into`, waiting at most `timeout` for something (`None`: as long as it takes). `gather`: only
    /// writes are nothing to wake up for.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
        gather: bool,
        into: &mut Vec<Input>,
    ) -> Found {
        let mut state = self.state.lock();
        if !state.is_due(gather) {
            state.sleeping = true;
            state.gathering = gather;
            match timeout {
                Some(timeout) => drop(self.wake.wait_for(&mut state, timeout)),
                None => self.wake.wait(&mut state),
            }
            state.sleeping = false;
        }
        std::mem::swap(&mut state.queue, into);
        state.urgent = false;
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
        let found = inbox.wait(None, false, &mut taken);
        assert_eq!(found.durable, Some(WalMark(5)));
        assert_eq!(taken.len(), 1);
        taken.clear();
        let none = inbox.wait(Some(Duration::ZERO), false, &mut taken);
        assert_eq!((none.durable, taken.len()), (None, 0));
    }

    #[test]
    fn writes_gather_while_the_disk_is_busy() {
        let write = || {
            let write = wk_chat::Write::OutboxDone { keys: Vec::new() };
            Input::Call(
                wk_proto::Ticket(1),
                wk_proto::GroupId::Control,
                None,
                Request::Write(Box::new(write)),
            )
        };
        let inbox = Inbox::default();
        {
            let mut state = inbox.state.lock();
            state.sleeping = true;
            state.gathering = true;
        }
        assert!(!inbox.put(&mut vec![write()]), "a write lets it sleep");
        assert!(inbox.put(&mut vec![Input::Tick]), "anything else wakes it");
        let mut taken = Vec::new();
        inbox.wait(None, true, &mut taken);
        assert_eq!(taken.len(), 2);
        taken.clear();
        inbox.push(write());
        inbox.durable(WalMark(1));
        assert!(inbox.wait(None, true, &mut taken).durable.is_some());
        assert_eq!(taken.len(), 1);
    }

    #[test]
    fn a_closed_inbox_still_hands_out_what_it_holds() {
        let inbox = Inbox::default();
        inbox.push(Input::Tick);
        inbox.close();
        let mut taken = Vec::new();
        assert!(inbox.wait(None, false, &mut taken).closed);
        assert_eq!(taken.len(), 1);
    }
}
