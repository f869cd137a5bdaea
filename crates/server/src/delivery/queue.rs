//! A worker's queue with the log as its overflow: beyond a bound of bytes only the position of a message is kept (H23).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use wk_proto::{ChannelKey, MessageSeq, SessionRef};

use super::Job;
use crate::counters::Totals;
use crate::limits::{DELIVERY_BYTES_MAX, DELIVERY_LAG_MAX, DELIVERY_READ_MAX};

/// Messages of one channel that have to be read back: consecutive from `first`.
#[derive(Debug)]
struct Lag {
    first: MessageSeq,
    /// Where each came from.
    origins: VecDeque<Option<SessionRef>>,
    /// Jobs put before the lag began: they come first.
    after: u64,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// Jobs put and taken so far.
    put: u64,
    taken: u64,
    lags: HashMap<ChannelKey, Lag>,
    /// Lagging channels, longest first.
    order: VecDeque<ChannelKey>,
    lag_len: usize,
    sleeping: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    totals: Arc<Totals>,
    bytes_max: usize,
}

/// What a worker takes.
#[derive(Debug)]
pub(super) enum Work {
    /// In order.
    Jobs(VecDeque<Job>),
    /// Messages to read back: consecutive from the seq.
    ReadBack(ChannelKey, MessageSeq, Vec<Option<SessionRef>>),
}

impl Queue {
    pub(super) fn new(totals: Arc<Totals>) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            totals,
            bytes_max: DELIVERY_BYTES_MAX,
        }
    }

    /// Queues a batch; never waits.
    pub(super) fn put(&self, jobs: impl Iterator<Item = Job>) {
        let mut state = self.state.lock();
        for job in jobs {
            self.put_one(&mut state, job);
        }
        let sleeping = std::mem::take(&mut state.sleeping);
        drop(state);
        if sleeping {
            self.wake.notify_one();
        }
    }

    fn put_one(&self, state: &mut State, job: Job) {
        let bytes = job.bytes();
        let full = state.bytes + bytes > self.bytes_max && state.bytes > 0;
        match job {
            Job::Push {
                channel, messages, ..
            } if full || state.lags.contains_key(&channel) => {
                self.lag(state, channel, &messages);
            }
            Job::Transient { .. } if full => self.totals.undelivered.add(1),
            job => {
                state.bytes += bytes;
                state.put += 1;
                state.jobs.push_back(job);
            }
        }
    }

    fn lag(&self, state: &mut State, channel: ChannelKey, messages: &[super::Outgoing]) {
        let Some(first) = messages.first().and_then(|m| m.delivery.seq) else {
            return;
        };
        if state.lag_len + messages.len() > DELIVERY_LAG_MAX {
            self.totals.undelivered.add(messages.len() as u64);
            return;
        }
        let after = state.put;
        let known = state.lags.entry(channel.clone()).or_insert_with(|| {
            state.order.push_back(channel);
            Lag {
                first,
                origins: VecDeque::new(),
                after,
            }
        });
        let next = known.first.0 + known.origins.len() as u64;
        if next != first.0 {
            // Positions were dropped at the bound above: what is remembered must stay consecutive.
            self.totals.undelivered.add(messages.len() as u64);
            return;
        }
        known.origins.extend(messages.iter().map(|m| m.origin));
        state.lag_len += messages.len();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// The next work; `None` once closed and empty.
    pub(super) fn take(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if let Some(work) = state.take() {
                return Some(work);
            }
            if state.closed {
                return None;
            }
            state.sleeping = true;
            self.wake.wait(&mut state);
            state.sleeping = false;
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Work> {
        // What lags goes first as soon as everything before it is done, or it would starve while new jobs keep coming.
        if let Some(work) = self.read_back() {
            return Some(work);
        }
        if self.jobs.is_empty() {
            return None;
        }
        self.taken += self.jobs.len() as u64;
        self.bytes = 0;
        Some(Work::Jobs(std::mem::take(&mut self.jobs)))
    }

    fn read_back(&mut self) -> Option<Work> {
        let channel = self.order.front()?.clone();
        let taken = self.taken;
        let lag = self.lags.get_mut(&channel).filter(|l| l.after <= taken)?;
        let first = lag.first;
        let count = lag.origins.len().min(DELIVERY_READ_MAX);
        let origins: Vec<_> = lag.origins.drain(..count).collect();
        lag.first = MessageSeq(first.0 + count as u64);
        self.lag_len -= count;
        self.order.pop_front();
        if lag.origins.is_empty() {
            self.lags.remove(&channel);
        } else {
            self.order.push_back(channel.clone());
        }
        Some(Work::ReadBack(channel, first, origins))
    }
}

#[cfg(test)]
mod tests;
