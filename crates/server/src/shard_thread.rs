//! The driver of one shard: takes what arrived, lets the shard do one turn, performs what it wants, in order.
//!
//! Failure policy: a panic in a turn is a broken invariant of the shard: the node stops serving ([`crate::running`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wk_chat::Effect;
use wk_chat::request::{CallError, Why};
use wk_cluster::formation::Event;
use wk_proto::{ChannelKey, GroupId, MessageSeq, Mono, NodeId, Record, SessionRef, Term};
use wk_replica::{After, Input, Output, PeerMessage, Shard, WalMark};
use wk_store::{Frozen, View};

use crate::clock::thread_cpu;
use crate::delivery::{Job, Outgoing, is_pair, receives};
use crate::former;
use crate::hub::Wakes;
use crate::limits::{BEAT_MS, CALL_MS, TURN_INPUTS_MAX, TURN_INPUTS_MIN, TURN_TARGET};
use crate::parts::Parts;
use crate::peer::{News, Remote};
use crate::read_pool::Read;
use crate::route::{RouteInput, Submission, asked_call, outbox_call};
use crate::wal_thread::{Batch, LogRead};

/// What others see of a shard.
#[derive(Debug, Default)]
pub(crate) struct ShardStatus {
    pub(crate) led: AtomicUsize,
    /// What is led here, with proof: at most half a heartbeat old.
    pub(crate) offices: Mutex<Vec<(GroupId, Term)>>,
    pub(crate) dirty_rows: AtomicUsize,
    pub(crate) dirty_bytes: AtomicUsize,
    pub(crate) faults: Mutex<Vec<(GroupId, String)>>,
}

/// The thread, and everything it hands work to.
pub(crate) struct ShardThread {
    pub(crate) number: usize,
    pub(crate) shard: Shard,
    pub(crate) parts: Arc<Parts>,
    pub(crate) frozen: mpsc::Sender<Vec<Frozen>>,
}

/// How many inputs a turn takes, so that it stays below [`TURN_TARGET`] (D9): heartbeats and durability wait for it.
struct Pace {
    inputs: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            inputs: TURN_INPUTS_MAX,
        }
    }
}

impl Pace {
    fn learn(&mut self, took: Duration) {
        if took > TURN_TARGET {
            self.inputs = (self.inputs / 2).max(TURN_INPUTS_MIN);
        } else if took < TURN_TARGET / 2 {
            self.inputs = (self.inputs * 2).min(TURN_INPUTS_MAX);
        }
    }
}

/// What one turn hands on at its end.
#[derive(Default)]
struct Turn {
    outputs: Vec<Output>,
    /// Newest mark given to the WAL, over all turns.
    persisted: WalMark,
    news: Vec<RouteInput>,
    calls: Vec<Submission>,
    jobs: Vec<Job>,
    /// Messages of pairs, pushed by this thread.
    pairs: Vec<(ChannelKey, Vec<Outgoing>)>,
    wakes: Wakes,
    /// Raft messages that may only leave when something is on disk.
    mail: VecDeque<(WalMark, NodeId, PeerMessage)>,
    /// Everything up to here is.
    durable: WalMark,
    /// Changes that other nodes must know before answers go out.
    announced: Option<u64>,
    /// Those answers.
    held: Vec<RouteInput>,
    /// Messages appended in this turn.
    appended: usize,
    /// The view taken last, and of which group.
    view: Option<(GroupId, View)>,
    /// When the list of offices was published, and whether it changed since.
    offices_at: Mono,
    is_office_news: bool,
}

impl ShardThread {
    pub(crate) fn run(mut self) {
        let mut turn = Turn::default();
        let mut arrived = Vec::new();
        let mut waiting: VecDeque<Input> = VecDeque::new();
        let mut pace = Pace::default();
        self.turn(&mut turn);
        loop {
            let timeout = if waiting.is_empty() {
                let due = self.shard.next_timeout();
                due.map(|at| self.parts.clock.until(at))
            } else {
                Some(Duration::ZERO)
            };
            let gather = turn.persisted > turn.durable && waiting.is_empty();
            let inbox = &self.parts.inboxes[self.number];
            let mut found = inbox.wait(timeout, gather, &mut arrived);
            waiting.extend(arrived.drain(..));
            if found.durable.is_some() {
                // On a core that has other work, let it run first: what it brings joins this turn and the next fsync. On an idle
                // one this returns at once.
                std::thread::yield_now();
                let more = inbox.wait(Some(Duration::ZERO), false, &mut arrived);
                waiting.extend(arrived.drain(..));
                found.durable = found.durable.max(more.durable);
                found.closed |= more.closed;
            }
            turn.durable = turn.durable.max(found.durable.unwrap_or_default());
            if found.closed && waiting.is_empty() {
                return;
            }
            let started = (Instant::now(), thread_cpu());
            self.take(found.durable, &mut waiting, pace.inputs);
            self.post(&mut turn);
            self.turn(&mut turn);
            let worked = thread_cpu().saturating_sub(started.1);
            self.parts.totals.turns.record(started.0.elapsed());
            self.parts.totals.turns_cpu.record(worked);
            // By its own work: being preempted is no reason for smaller batches.
            pace.learn(worked);
        }
    }

    /// Gives the shard what is due: time and durability first, then inputs in order, as many as one turn should have.
    fn take(&mut self, durable: Option<WalMark>, waiting: &mut VecDeque<Input>, inputs: usize) {
        let (now, wall) = (self.parts.clock.now(), self.parts.clock.wall());
        if self.shard.next_timeout().is_some_and(|at| at <= now) {
            self.shard.handle(now, wall, Input::Tick);
        }
        if let Some(mark) = durable {
            self.shard.handle(now, wall, Input::Durable(mark));
        }
        for input in waiting.drain(..waiting.len().min(inputs)) {
            self.shard.handle(now, wall, input);
        }
    }

    /// Sends what waited for the disk. The shard was told before: an answer cannot overtake that.
    fn post(&self, turn: &mut Turn) {
        while let Some((mark, ..)) = turn.mail.front()
            && *mark <= turn.durable
            && let Some((_, node, message)) = turn.mail.pop_front()
        {
            self.parts.mesh.raft(node, message);
        }
    }

    fn turn(&mut self, turn: &mut Turn) {
        let (now, wall) = (self.parts.clock.now(), self.parts.clock.wall());
        let mut outputs = std::mem::take(&mut turn.outputs);
        self.shard.poll(now, wall, &mut outputs);
        for output in outputs.drain(..) {
            self.perform(output, turn);
        }
        turn.outputs = outputs;
        turn.view = None;
        self.publish_status(std::mem::take(&mut turn.appended));
        self.publish_offices(turn);
        self.parts.delivery.put(&mut turn.jobs);
        self.push_pairs(turn);
        // Answers last: whoever gets one finds what it promises done.
        self.hold_answers(turn);
        let route = &self.parts.route;
        route.report(&mut turn.news, &mut turn.wakes);
        route.submit(&mut turn.calls);
        self.parts.hub.wake(std::mem::take(&mut turn.wakes));
    }

    fn perform(&mut self, output: Output, turn: &mut Turn) {
        match output {
            Output::Persist(mark, records) => {
                turn.persisted = mark;
                self.parts.wal.persist(Batch {
                    shard: self.number,
                    mark,
                    records,
                });
            }
            Output::Committed(group, _, effects) => {
                for effect in effects {
                    self.effect(group, effect, turn);
                }
            }
            Output::Read(ticket, view, query) => {
                if let Err(ticket) = self.parts.reads.put(Read {
                    ticket,
                    view,
                    query,
                }) {
                    let busy = Err(CallError::NotSent(Why::Busy));
                    turn.news.push(RouteInput::Result(ticket, busy));
                }
            }
            Output::Reply(ticket, outcome) => {
                let answer = RouteInput::Result(ticket, outcome);
                match turn.announced {
                    Some(_) => turn.held.push(answer),
                    None => turn.news.push(answer),
                }
            }
            Output::Outbox(group, key, inbox) => {
                let deadline = self.parts.route.deadline(CALL_MS);
                turn.calls.push(outbox_call(group, key, inbox, deadline));
            }
            Output::Ask(ticket, query) => {
                let deadline = self.parts.route.deadline(CALL_MS);
                let call = asked_call(self.number, ticket, query, deadline);
                turn.calls.push(call);
            }
            // The checkpoint thread is only gone when the node is.
            Output::Frozen(frozen) => drop(self.frozen.send(frozen)),
            Output::ReadLog {
                replica,
                first,
                last,
                bytes,
            } => self.parts.wal.read(LogRead {
                shard: self.number,
                replica,
                first,
                last,
                bytes,
            }),
            Output::Release(replica, index, term) => self.parts.wal.release(replica, index, term),
            Output::Leader(group, term, node) => {
                turn.is_office_news = true;
                turn.news.push(RouteInput::Leader(group, term, node));
            }
            Output::Fault(group, cause) => {
                tracing::error!(?group, cause, "a group stopped");
                self.parts.statuses[self.number]
                    .faults
                    .lock()
                    .push((group, cause));
            }
            Output::Send(node, message, After::Durable(mark)) if mark > turn.durable => {
                turn.mail.push_back((mark, node, message));
            }
            Output::Send(node, message, _) => self.parts.mesh.raft(node, message),
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
                let presence = &self.parts.presence;
                presence.kick_user(&uid, device_flag, text, delay_ms, &mut turn.wakes);
                self.announce(
                    turn,
                    News::Kick {
                        uid,
                        device_flag,
                        has_text: !text.is_empty(),
                        delay_ms,
                    },
                );
            }
            Effect::SendBan { uid, on } => {
                self.parts.presence.send_ban(&uid, on, &mut turn.wakes);
                self.announce(turn, News::SendBan { uid, on });
            }
            Effect::SystemUids(uids) => {
                self.parts.rules.system_uids_are(&uids);
                self.announce(turn, News::SystemUids(uids));
            }
            Effect::Control(_) => self.tell_cluster(group),
            // The shard itself asks for these to be delivered.
            Effect::Outbox(..) => {}
        }
    }

    fn tell_cluster(&self, control: GroupId) {
        if let Some(view) = self.shard.view(control)
            && let Some(cluster) = former::cluster_of(&view)
        {
            self.parts.former.tell(Event::Cluster(cluster));
        }
    }

    /// Other nodes have sessions of the user, too, and decide by the same rules.
    fn announce(&self, turn: &mut Turn, news: News) {
        let id = self.parts.mesh.announce(news, self.parts.clock.now());
        turn.announced = id.or(turn.announced);
    }

    /// Peers acknowledge in order: the last of the turn's changes stands for all of them.
    fn hold_answers(&self, turn: &mut Turn) {
        if let Some(id) = turn.announced.take() {
            let held = std::mem::take(&mut turn.held);
            turn.news.extend(self.parts.mesh.hold(id, held));
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
        turn.appended += messages.len();
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
        let directory = self.parts.presence.directory();
        let sender = self.parts.delivery.sender();
        for (channel, messages) in turn.pairs.drain(..) {
            let mut remote = Remote::new();
            for uid in wk_chat::implicit_recipients(&channel) {
                if receives(&uid) {
                    let wakes = &mut turn.wakes;
                    sender.to_user(&directory, &uid, &messages, wakes, &mut remote);
                }
            }
            sender.to_nodes(remote, &messages);
        }
    }

    fn publish_offices(&self, turn: &mut Turn) {
        let status = &self.parts.statuses[self.number];
        let now = self.parts.clock.now();
        let is_due = turn.offices_at.plus_ms(BEAT_MS / 2) <= now;
        if std::mem::take(&mut turn.is_office_news) || is_due {
            *status.offices.lock() = self.shard.offices().collect();
            turn.offices_at = now;
        }
    }

    fn publish_status(&self, appended: usize) {
        let ((led, _), (rows, bytes)) = (self.shard.led(), self.shard.dirty());
        let status = &self.parts.statuses[self.number];
        if appended > 0 {
            let grown = rows.saturating_sub(status.dirty_rows.load(Relaxed));
            self.parts.totals.appended.add(appended as u64);
            self.parts.totals.rows_beside.add(grown as u64);
        }
        status.led.store(led, Relaxed);
        status.dirty_rows.store(rows, Relaxed);
        status.dirty_bytes.store(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_turns_take_less_and_short_ones_more_again() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.learn(TURN_TARGET * 2);
        }
        assert_eq!(pace.inputs, TURN_INPUTS_MIN);
        pace.learn(TURN_TARGET);
        assert_eq!(pace.inputs, TURN_INPUTS_MIN);
        for _ in 0..20 {
            pace.learn(Duration::ZERO);
        }
        assert_eq!(pace.inputs, TURN_INPUTS_MAX);
    }
}
