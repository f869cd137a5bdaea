//! What waits to be written to one peer connection: bounded, and lost with the connection.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use wk_chat::request::Why;
use wk_proto::Ticket;

use super::frame::BODY_BYTES_MAX;

/// What to do when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The oldest gives way: it will be sent again.
    DropOldest,
    /// The newest is refused.
    Refuse,
}

/// Names one connection of this process; ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(pub(super) u64);

#[derive(Debug, Default)]
struct State {
    link: Option<LinkId>,
    queue: VecDeque<(Bytes, Option<Ticket>)>,
    bytes: usize,
}

/// See the module. Without a connection nothing is taken.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    full: Full,
    bytes_max: usize,
    frames_max: usize,
    ready: Arc<Notify>,
}

impl Outbox {
    pub(super) fn new(full: Full, bytes_max: usize, frames_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            full,
            bytes_max,
            frames_max,
            ready: Arc::default(),
        }
    }

    /// Queues a frame; `call`: the call it carries, to tell afterwards what was never written.
    pub(super) fn put(&self, frame: Bytes, call: Option<Ticket>) -> Result<(), Why> {
        let mut state = self.state.lock();
        if state.link.is_none() {
            return Err(Why::Link);
        }
        if frame.len() > BODY_BYTES_MAX {
            return Err(Why::Busy);
        }
        while state.bytes + frame.len() > self.bytes_max || state.queue.len() >= self.frames_max {
            if self.full == Full::Refuse && !state.queue.is_empty() {
                return Err(Why::Busy);
            }
            match state.queue.pop_front() {
                Some((oldest, _)) => state.bytes -= oldest.len(),
                None => break,
            }
        }
        state.push(frame, call);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Queues a frame however full it is: its sender bounds what it sends.
    pub(super) fn put_always(&self, frame: Bytes) {
        let mut state = self.state.lock();
        if state.link.is_some() {
            state.push(frame, None);
            drop(state);
            self.ready.notify_one();
        }
    }

    /// As [`Self::put_always`], if the connection is still this one.
    pub(super) fn put_on(&self, link: LinkId, frame: Bytes) {
        let mut state = self.state.lock();
        if state.link == Some(link) {
            state.push(frame, None);
            drop(state);
            self.ready.notify_one();
        }
    }

    /// The connection in use.
    pub(super) fn link(&self) -> Option<LinkId> {
        self.state.lock().link
    }

    /// A new connection takes over.
    pub(super) fn open(&self, link: LinkId) {
        *self.state.lock() = State {
            link: Some(link),
            ..State::default()
        };
    }

    /// The connection broke. The calls that were never written, if it was this one that was in use.
    pub(super) fn close(&self, link: LinkId) -> Option<Vec<Ticket>> {
        let mut state = self.state.lock();
        if state.link != Some(link) {
            return None;
        }
        let State { queue, .. } = std::mem::take(&mut *state);
        drop(state);
        self.ready.notify_one();
        Some(queue.into_iter().filter_map(|(_, call)| call).collect())
    }

    /// Everything queued, once there is something; `None`: the connection is not in use any more.
    pub(super) async fn take(&self, link: LinkId) -> Option<VecDeque<(Bytes, Option<Ticket>)>> {
        loop {
            let ready = self.ready.notified();
            {
                let mut state = self.state.lock();
                if state.link != Some(link) {
                    // The notice may have been for the connection that took over.
                    self.ready.notify_one();
                    return None;
                }
                if !state.queue.is_empty() {
                    state.bytes = 0;
                    return Some(std::mem::take(&mut state.queue));
                }
            }
            ready.await;
        }
    }
}

impl State {
    fn push(&mut self, frame: Bytes, call: Option<Ticket>) {
        self.bytes += frame.len();
        self.queue.push_back((frame, call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Bytes = Bytes::from_static(b"1234");

    #[tokio::test]
    async fn bounds_hold_and_say_what_gives_way() {
        let dropping = Outbox::new(Full::DropOldest, 10, 100);
        let refusing = Outbox::new(Full::Refuse, 10, 100);
        for outbox in [&dropping, &refusing] {
            assert_eq!(outbox.put(ONE, None), Err(Why::Link), "no connection");
            outbox.open(LinkId(1));
            assert_eq!(outbox.put(ONE, Some(Ticket(1))), Ok(()));
            assert_eq!(outbox.put(ONE, Some(Ticket(2))), Ok(()));
        }
        assert_eq!(dropping.put(ONE, Some(Ticket(3))), Ok(()));
        assert_eq!(refusing.put(ONE, Some(Ticket(3))), Err(Why::Busy));
        assert_eq!(dropping.close(LinkId(1)), Some(vec![Ticket(2), Ticket(3)]));
        assert_eq!(refusing.close(LinkId(1)), Some(vec![Ticket(1), Ticket(2)]));
    }

    #[tokio::test]
    async fn a_connection_that_was_replaced_finds_its_end_and_takes_nothing() {
        let outbox = Outbox::new(Full::Refuse, 10, 100);
        outbox.open(LinkId(1));
        outbox.open(LinkId(2));
        assert_eq!(outbox.put(ONE, None), Ok(()));
        assert!(outbox.take(LinkId(1)).await.is_none());
        assert_eq!(outbox.close(LinkId(1)), None);
        assert_eq!(
            outbox.take(LinkId(2)).await.map(|taken| taken.len()),
            Some(1)
        );
    }
}
