//! The driver of one shard: takes what arrived, lets the shard do one turn, performs what it wants, in order.
//!
//! Failure policy: a panic in a turn is a broken invariant of the shard: the node stops serving.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use wk_chat::request::{CallError, Why};
use wk_chat::{Effect, Policy};
use wk_proto::{ChannelKey, GroupId, MessageSeq, Record, SessionRef};
use wk_replica::{Input, Output, Shard};
use wk_store::{Frozen, View};

use crate::clock::Clock;
use crate::counters::Totals;
use crate::delivery::{Delivery, Job, Outgoing, is_pair, receives};
use crate::gate::Gate;
use crate::hub::{Hub, Wakes};
use crate::inbox::Inbox;
use crate::limits::{CALL_MS, TURN_INPUTS_MAX};
use crate::presence::Presence;
use crate::read_pool::{Read, ReadPool};
use crate::route::{Route, RouteInput, Submission, outbox_call};
use crate::wal_thread::{Batch, WalQueue};

/// What others see of a shard.
#[derive(Debug, Default)]
pub(crate) struct ShardStatus {
    pub(crate) led: AtomicUsize,
    pub(crate) groups: AtomicUsize,
    pub(crate) dirty_rows: AtomicUsize,
    pub(crate) dirty_bytes: AtomicUsize,
    pub(crate) faults: Mutex<Vec<(GroupId, String)>>,
}

/// The rules, replaced as a whole.
#[derive(Debug)]
pub(crate) struct Rules {
    policy: RwLock<Arc<Policy>>,
    shards: Vec<Arc<Inbox>>,
}

impl Rules {
    pub(crate) fn new(policy: Policy, shards: Vec<Arc<Inbox>>) -> Self {
        Self {
            policy: RwLock::new(Arc::new(policy)),
            shards,
        }
    }

    pub(crate) fn get(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// The set of system accounts changed: every shard decides by it from its next input on.
    pub(crate) fn set_system_uids(&self, uids: impl Iterator<Item = wk_proto::Uid>) {
        let uids = Arc::new(uids.collect());
        let mut policy = self.policy.write();
        let changed = Arc::new(Policy {
            system_uids: uids,
            ..Policy::clone(&policy)
        });
        *policy = changed.clone();
        for shard in &self.shards {
            shard.push(Input::Policy(changed.clone()));
        }
    }
}

/// The thread, and everything it hands work to.
pub(crate) struct ShardThread {
    pub(crate) number: usize,
    pub(crate) shard: Shard,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) status: Arc<ShardStatus>,
    pub(crate) clock: Clock,
    pub(crate) gate: Arc<Gate>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) route: Arc<Route>,
    pub(crate) wal: Arc<WalQueue>,
    pub(crate) reads: Arc<ReadPool>,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) frozen: mpsc::Sender<Vec<Frozen>>,
}

/// What one turn hands on at its end.
#[derive(Default)]
struct Turn {
    outputs: Vec<Output>,
    news: Vec<RouteInput>,
    calls: Vec<Submission>,
    jobs: Vec<Job>,
    /// Messages of pairs, pushed by this thread.
    pairs: Vec<(ChannelKey, Vec<Outgoing>)>,
    wakes: Wakes,
    /// Views taken in this turn: one per group.
    view: Option<(GroupId, View)>,
}

impl ShardThread {
    pub(crate) fn run(mut self) {
        let gate = self.gate.clone();
        let ran = catch_unwind(AssertUnwindSafe(|| self.turns()));
        if ran.is_err() {
            gate.fail("a shard thread panicked".to_owned());
        }
    }

    fn turns(&mut self) {
        let mut turn = Turn::default();
        let mut arrived = Vec::new();
        let mut waiting: VecDeque<Input> = VecDeque::new();
        self.turn(&mut turn);
        loop {
            let timeout = if waiting.is_empty() {
                self.shard.next_timeout().map(|at| self.clock.until(at))
            } else {
                Some(std::time::Duration::ZERO)
            };
            let found = self.inbox.wait(timeout, &mut arrived);
            waiting.extend(arrived.drain(..));
            if found.closed && waiting.is_empty() {
                return;
            }
            let started = Instant::now();
            let (now, wall) = (self.clock.now(), self.clock.wall());
            if self.shard.next_timeout().is_some_and(|at| at <= now) {
                self.shard.handle(now, wall, Input::Tick);
            }
            if let Some(mark) = found.durable {
                self.shard.handle(now, wall, Input::Durable(mark));
            }
            for input in waiting.drain(..waiting.len().min(TURN_INPUTS_MAX)) {
                self.shard.handle(now, wall, input);
            }
            self.turn(&mut turn);
            self.totals.turns.record(started.elapsed());
        }
    }

    fn turn(&mut self, turn: &mut Turn) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut outputs = std::mem::take(&mut turn.outputs);
        self.shard.poll(now, wall, &mut outputs);
        for output in outputs.drain(..) {
            self.perform(output, turn);
        }
        turn.outputs = outputs;
        turn.view = None;
        self.publish_status();
        self.delivery.put(&mut turn.jobs);
        self.push_pairs(turn);
        // Answers last: whoever gets one finds what it promises done.
        self.route.report(&mut turn.news);
        self.route.submit(&mut turn.calls);
        self.hub.wake(std::mem::take(&mut turn.wakes));
    }

    fn perform(&mut self, output: Output, turn: &mut Turn) {
        match output {
            Output::Persist(mark, records) => self.wal.persist(Batch {
                shard: self.number,
                mark,
                records,
            }),
            Output::Committed(group, _, effects) => {
                for effect in effects {
                    self.effect(group, effect, turn);
                }
            }
            Output::Read(ticket, view, query) => {
                if let Err(ticket) = self.reads.put(Read {
                    ticket,
                    view,
                    query,
                }) {
                    let busy = Err(CallError::NotSent(Why::Busy));
                    turn.news.push(RouteInput::Result(ticket, busy));
                }
            }
            Output::Reply(ticket, outcome) => turn.news.push(RouteInput::Result(ticket, outcome)),
            Output::Outbox(group, key, inbox) => {
                let deadline = self.route.deadline(CALL_MS);
                turn.calls.push(outbox_call(group, key, inbox, deadline));
            }
            // The checkpoint thread is only gone when the node is.
            Output::Frozen(frozen) => drop(self.frozen.send(frozen)),
            Output::Release(replica, index, term) => self.wal.release(replica, index, term),
            Output::Leader(group, term, node) => {
                turn.news.push(RouteInput::Leader(group, term, node));
            }
            Output::Fault(group, cause) => {
                tracing::error!(?group, cause, "a group stopped");
                self.status.faults.lock().push((group, cause));
            }
            Output::Send(node, ..) => tracing::debug!(%node, "no link to a peer"),
        }
    }

    fn effect(&mut self, group: GroupId, effect: Effect, turn: &mut Turn) {
        match effect {
            Effect::Appended {
                channel,
                first,
                messages,
            } => self.appended(group, channel, first, messages, turn),
            Effect::Transient {
                channel,
                record,
                origin,
                recipients,
            } => {
                let message = Outgoing::new(channel.clone(), None, record, origin);
                if recipients.is_none() && is_pair(&channel) {
                    turn.pairs.push((channel, vec![message]));
                } else if let Some(view) = self.view(group, turn) {
                    turn.jobs.push(Job::Transient {
                        channel,
                        message,
                        recipients,
                        view,
                    });
                }
            }
            Effect::MembersChanged(channel) => turn.jobs.push(Job::Forget(channel)),
            Effect::Kick {
                uid,
                device_flag,
                text,
                delay_ms,
            } => {
                let presence = &self.presence;
                presence.kick_user(&uid, device_flag, text, delay_ms, &mut turn.wakes);
            }
            Effect::SendBan { uid, on } => self.presence.send_ban(&uid, on, &mut turn.wakes),
            Effect::SystemUids(uids) => self.rules.set_system_uids(uids.iter().cloned()),
            // The shard itself asks for these to be delivered.
            Effect::Outbox(..) => {}
        }
    }

    fn appended(
        &mut self,
        group: GroupId,
        channel: ChannelKey,
        first: MessageSeq,
        messages: Vec<(Record, Option<SessionRef>)>,
        turn: &mut Turn,
    ) {
        let outgoing = messages.into_iter().zip(first.0..);
        let outgoing = outgoing.map(|((record, origin), seq)| {
            Outgoing::new(channel.clone(), Some(MessageSeq(seq)), record, origin)
        });
        let messages: Vec<_> = outgoing.collect();
        if is_pair(&channel) {
            turn.pairs.push((channel, messages));
        } else if let Some(view) = self.view(group, turn) {
            turn.jobs.push(Job::Push {
                channel,
                messages,
                view,
            });
        }
    }

    fn view(&self, group: GroupId, turn: &mut Turn) -> Option<View> {
        match &turn.view {
            Some((known, view)) if *known == group => Some(view.clone()),
            _ => {
                let view = self.shard.view(group)?;
                turn.view = Some((group, view.clone()));
                Some(view)
            }
        }
    }

    fn push_pairs(&self, turn: &mut Turn) {
        if turn.pairs.is_empty() {
            return;
        }
        let directory = self.presence.directory();
        let sender = self.delivery.sender();
        for (channel, messages) in turn.pairs.drain(..) {
            for uid in wk_chat::implicit_recipients(&channel) {
                if receives(&uid) {
                    sender.to_user(&directory, &uid, &messages, &mut turn.wakes);
                }
            }
        }
    }

    fn publish_status(&self) {
        let ((led, groups), (rows, bytes)) = (self.shard.led(), self.shard.dirty());
        let status = &self.status;
        status.led.store(led, Relaxed);
        status.groups.store(groups, Relaxed);
        status.dirty_rows.store(rows, Relaxed);
        status.dirty_bytes.store(bytes, Relaxed);
    }
}
