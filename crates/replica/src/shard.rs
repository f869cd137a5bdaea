//! The shard's vocabulary and entry points, and the order of work in one turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use wk_chat::request::{CallError, Inbox, OutboxKey, Why};
use wk_chat::{Answer, Batch, Command, Effect, Policy, Query, Reply, Request};
use wk_proto::{GroupId, LogIndex, MessageId, Mono, NodeId, ReplicaId, Term, Ticket, WallMs};
use wk_store::{Checkpointed, Frozen, Recovered, SlotStore, View, WalRecord};

use crate::ids::Ids;
use crate::limits::{
    PEER_QUEUE_BYTES_MAX, SHARD_DIRTY_ROWS_MAX, SHARD_INFLIGHT_BYTES_MAX, TURN_WORK_MAX,
};
use crate::mail::Mail;
use crate::member::{Fault, Member, Turn};
use crate::wire;

/// Bounds and times of a shard.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// This node. Its low 10 bits are the worker number in message ids (H15).
    pub node: NodeId,
    /// Which of the node's shards this is, from 0, and how many there are: no two of them may give out the same message id.
    pub shard: (u16, u16),
    /// One raft tick, in ms (100).
    pub tick_ms: u64,
    /// Ticks without a leader before an election (10), randomised up to twice that from `seed`.
    pub election_ticks: usize,
    /// Ticks between heartbeats (2).
    pub heartbeat_ticks: usize,
    /// For election jitter.
    pub seed: u64,
    /// Proposed and not yet applied bytes of one group; above it: `Busy` (8 MiB, D11).
    pub group_inflight_bytes: usize,
    /// Longest an answer waits for its outbox rows, in ms (1,000, H6).
    pub outbox_wait_ms: u64,
    /// Bytes of all groups applied and not yet frozen for a checkpoint (96 MiB). Above it leaders answer `Busy`; followers stop
    /// applying and go on acknowledging what they have durably, as far as memory allows (H40, D11).
    pub dirty_bytes_max: usize,
}

impl ShardConfig {
    /// The default bounds and times, for the only shard of a node.
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            shard: (0, 1),
            tick_ms: 100,
            election_ticks: 10,
            heartbeat_ticks: 2,
            seed: u64::from(node.0),
            group_inflight_bytes: 8 * 1024 * 1024,
            outbox_wait_ms: 1_000,
            dirty_bytes_max: 96 * 1024 * 1024,
        }
    }
}

/// One group this shard owns.
#[derive(Debug)]
pub struct Group {
    /// Which.
    pub group: GroupId,
    /// This node's member.
    pub replica: ReplicaId,
    /// All voters: raft id → node.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// Its state, at the last checkpoint.
    pub store: SlotStore,
    /// Term of the entry at the store's applied index.
    pub applied_term: Term,
    /// What the WAL holds.
    pub log: Recovered,
}

/// Names a point in the WAL stream of this shard; marks ascend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalMark(pub u64);

/// Messages of many groups for one peer, encoded (own layout; D13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage(pub Bytes);

impl PeerMessage {
    /// Sorts by `part_of` the groups inside: a peer may spread them over its shards in another way. Malformed bytes give nothing.
    pub fn split(&self, part_of: impl Fn(GroupId) -> usize) -> BTreeMap<usize, Self> {
        let parts = wire::split(&self.0, part_of).into_iter();
        parts.map(|(part, bytes)| (part, Self(bytes))).collect()
    }
}

/// What must be durable before an output may leave the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Now,
    /// Everything up to this mark.
    Durable(WalMark),
}

/// What happens to a shard.
#[derive(Debug)]
pub enum Input {
    /// Time passed; due when `next_timeout` says so.
    Tick,
    /// From a peer's shard.
    Peer(NodeId, PeerMessage),
    /// A request for a group of this shard. With a term, only the leader of that term takes it: others answer `NotSent(NotLeader)`,
    /// so that a delayed call does not end up behind what was sent later (H31).
    Call(Ticket, GroupId, Option<Term>, Request),
    /// Everything up to this mark is on disk. Given to the shard **before** anything leaves the node that waited for it: a peer's
    /// answer must not overtake it.
    Durable(WalMark),
    /// The answer to [`Output::Ask`]; `None`: it could not be had.
    Asked(Ticket, Option<Answer>),
    /// The answer to [`Output::ReadLog`], from its first index on without a gap, as much of it as fits; empty: it cannot be had.
    Log(ReplicaId, Vec<(LogIndex, Term, u8, Bytes)>),
    /// A checkpoint begins: freeze what is dirty.
    Freeze,
    /// The frozen parts are on disk.
    Flushed(Checkpointed),
    /// An outbox row of the group named was (`true`) or was not (`false`) applied at the group it is for.
    OutboxResult(GroupId, OutboxKey, bool),
    /// A group that this shard owns from now on, as its disk has it. Without effect if it has one of this name.
    Start(Box<Group>),
    /// Settings changed.
    Policy(Arc<Policy>),
    /// Give leadership away where possible and refuse new calls (planned stop).
    Drain,
}

/// What a shard wants, in this order.
#[derive(Debug)]
pub enum Output {
    /// Write these to the WAL and report `Durable(mark)`. Batches of several turns may be joined into one fsync.
    Persist(WalMark, Vec<WalRecord>),
    /// For a peer, once `After` holds.
    Send(NodeId, PeerMessage, After),
    /// Effects of an applied entry (outbox rows excepted), on its leader only; or a message that is not stored, with the index of
    /// the state it was decided on. Act on them before the replies that follow.
    Committed(GroupId, LogIndex, Vec<Effect>),
    /// Leadership is proven for this query: answer it from the view, on any thread.
    Read(Ticket, View, Box<Query>),
    /// The end of a call.
    Reply(Ticket, Result<Reply, CallError>),
    /// A call cannot be decided without this answer of another group: ask [`Query::group`], report [`Input::Asked`]. The call ends
    /// with `Timeout` if no answer comes.
    Ask(Ticket, Box<Query>),
    /// The group named here owes this to the group of the inbox ([`Inbox::group`]): deliver as `Write::Inbox`, report
    /// `OutboxResult` with the group and key given here. Repeated until it succeeds.
    Outbox(GroupId, OutboxKey, Inbox),
    /// Answer to `Freeze`: what to checkpoint (may be empty).
    Frozen(Vec<Frozen>),
    /// A follower is behind what memory holds: read `first..=last` from the WAL ([`wk_store::Wal::read`]), report [`Input::Log`].
    ReadLog {
        /// Whose log.
        replica: ReplicaId,
        /// First index wanted.
        first: LogIndex,
        /// Last index wanted.
        last: LogIndex,
        /// Most bytes, but one entry at least.
        bytes: usize,
    },
    /// The WAL may forget entries of the replica up to here.
    Release(ReplicaId, LogIndex, Term),
    /// This replica's view of who leads the group.
    Leader(GroupId, Term, Option<NodeId>),
    /// The group stopped (H58); the others run.
    Fault(GroupId, String),
}

/// All groups of one thread.
///
/// The driver's loop: [`Self::handle`] everything that has arrived, [`Self::poll`], perform the outputs in order, sleep until
/// something arrives or [`Self::next_timeout`], in which case the next input is [`Input::Tick`].
pub struct Shard {
    config: ShardConfig,
    policy: Arc<Policy>,
    groups: BTreeMap<GroupId, State>,
    ids: Ids,
    next_mark: WalMark,
    next_tick: Mono,
    /// Groups with something to do in the next turn.
    dirty: BTreeSet<GroupId>,
    /// The first group not reached in the last turn; else the first of all.
    next_group: GroupId,
    peers: VecDeque<(NodeId, PeerMessage)>,
    peers_bytes: usize,
    durable: Option<WalMark>,
    tick: bool,
    others: Vec<Input>,
    /// Answers to calls that were refused at the door.
    refused: Vec<Output>,
    inflight_bytes: usize,
    /// Too much is applied and not checkpointed.
    is_full: bool,
    is_draining: bool,
    dropped_messages: u64,
    now: Mono,
}

/// A group of this shard.
enum State {
    Running(Box<Member>),
    /// Stopped for good (H58). Its state can still be looked at.
    Faulty(SlotStore),
}

impl State {
    fn store(&self) -> &SlotStore {
        match self {
            Self::Running(member) => member.store(),
            Self::Faulty(store) => store,
        }
    }

    fn running(&self) -> Option<&Member> {
        match self {
            Self::Running(member) => Some(member),
            Self::Faulty(_) => None,
        }
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("config", &self.config)
            .field("groups", &self.groups.len())
            .field("led", &self.led())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// Starts the groups where disk left them. A group whose only voter is this replica leads at once. One whose disk contents do
    /// not fit together is faulty from the start.
    pub fn new(
        config: ShardConfig,
        policy: Arc<Policy>,
        groups: Vec<Group>,
        now: Mono,
        wall: WallMs,
    ) -> Self {
        let _ = wall;
        let mut shard = Self {
            ids: Ids::new(config.node.0, config.shard.0, config.shard.1),
            policy,
            dirty: BTreeSet::new(),
            next_group: GroupId::Control,
            groups: BTreeMap::new(),
            next_mark: WalMark(1),
            next_tick: now.plus_ms(config.tick_ms),
            peers: VecDeque::new(),
            peers_bytes: 0,
            durable: None,
            tick: false,
            others: Vec::new(),
            refused: Vec::new(),
            inflight_bytes: 0,
            is_full: false,
            is_draining: false,
            dropped_messages: 0,
            now,
            config,
        };
        let count = groups.len();
        for group in groups {
            shard.start(group, count);
        }
        shard
    }

    /// `count`: of how many groups this is one.
    fn start(&mut self, mut group: Group, count: usize) {
        let id = group.group;
        for last in last_ids(&mut group) {
            self.ids.raise(last);
        }
        let state = match Member::recover(&self.config, group, count) {
            Ok(member) => State::Running(Box::new(member)),
            Err(unusable) => {
                self.refused.push(Output::Fault(id, unusable.fault.0));
                State::Faulty(unusable.group.store)
            }
        };
        self.groups.insert(id, state);
        self.dirty.insert(id);
    }

    /// Takes one input. Cheap: work happens in [`Self::poll`].
    pub fn handle(&mut self, now: Mono, wall: WallMs, input: Input) {
        let _ = wall;
        self.now = now;
        match input {
            Input::Tick => self.tick = true,
            Input::Durable(mark) => self.durable = self.durable.max(Some(mark)),
            Input::Peer(node, message) => self.queue_peer(node, message),
            Input::Call(ticket, group, term, request) => {
                if let Err(why) = self.admit(ticket, group, term, request) {
                    let refusal = Err(CallError::NotSent(why));
                    self.refused.push(Output::Reply(ticket, refusal));
                }
            }
            Input::Policy(policy) => self.policy = policy,
            Input::Start(group) => {
                if !self.groups.contains_key(&group.group) {
                    self.start(*group, self.groups.len() + 1);
                }
            }
            Input::Drain => {
                self.is_draining = true;
                self.others.push(input);
            }
            Input::Asked(..)
            | Input::Log(..)
            | Input::Freeze
            | Input::Flushed(_)
            | Input::OutboxResult(..) => self.others.push(input),
        }
    }

    fn queue_peer(&mut self, node: NodeId, message: PeerMessage) {
        if self.peers_bytes + message.0.len() > PEER_QUEUE_BYTES_MAX {
            self.dropped_messages += 1;
            return;
        }
        self.peers_bytes += message.0.len();
        self.peers.push_back((node, message));
    }

    fn admit(
        &mut self,
        ticket: Ticket,
        group: GroupId,
        term: Option<Term>,
        request: Request,
    ) -> Result<(), Why> {
        let member = match self.groups.get_mut(&group) {
            None => return Err(Why::NotLeader),
            Some(State::Faulty(_)) => return Err(Why::Faulty),
            Some(State::Running(member)) => member,
        };
        if self.is_draining {
            return Err(Why::Draining);
        }
        if self.is_full || self.inflight_bytes > SHARD_INFLIGHT_BYTES_MAX {
            return Err(Why::Busy);
        }
        if !member.leads_in(term) {
            return Err(Why::NotLeader);
        }
        let before = member.inflight_bytes();
        member.call(ticket, request, self.config.group_inflight_bytes)?;
        self.inflight_bytes += member.inflight_bytes() - before;
        self.dirty.insert(group);
        Ok(())
    }

    /// Does one turn over the dirty groups and appends what it wants.
    pub fn poll(&mut self, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        self.now = now;
        let config = self.config.clone();
        let policy = Arc::clone(&self.policy);
        let mut turn = Turn {
            now,
            wall,
            config: &config,
            policy: &policy,
            is_full: self.is_full,
            work: 0,
            ids: self.ids,
            mark: self.next_mark,
            records: Vec::new(),
            mail: Mail::default(),
            outputs: std::mem::take(&mut self.refused),
        };
        self.take_durable(&mut turn);
        self.take_peers(&mut turn);
        self.take_tick(&mut turn);
        self.take_others(&mut turn);
        self.visit(&mut turn);
        let Turn {
            ids,
            records,
            mut mail,
            outputs,
            ..
        } = turn;
        self.ids = ids;
        if !records.is_empty() {
            out.push(Output::Persist(self.next_mark, records));
            self.next_mark.0 += 1;
        }
        mail.drain(out);
        out.extend(outputs);
        self.inflight_bytes = self.members().map(Member::inflight_bytes).sum();
    }

    /// Gives the dirty groups their turn, those not reached last time first.
    fn visit(&mut self, turn: &mut Turn<'_>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        let late = dirty.split_off(&self.next_group);
        let mut skipped = None;
        for group in late.into_iter().chain(dirty) {
            if turn.work >= TURN_WORK_MAX {
                skipped = skipped.or(Some(group));
                self.dirty.insert(group);
                continue;
            }
            if self.guard(group, turn, |member, turn| member.turn(turn)) == Some(true) {
                self.dirty.insert(group);
            }
        }
        self.next_group = skipped.unwrap_or(GroupId::Control);
    }

    fn take_durable(&mut self, turn: &mut Turn<'_>) {
        let Some(mark) = self.durable.take() else {
            return;
        };
        self.for_each(turn, |member, _| Ok(member.on_durable(mark)));
    }

    fn take_peers(&mut self, turn: &mut Turn<'_>) {
        self.peers_bytes = 0;
        for (node, message) in std::mem::take(&mut self.peers) {
            let Ok(messages) = wire::decode(message.0) else {
                self.dropped_messages += 1;
                continue;
            };
            for (group, message) in messages {
                let taken = self.guard(group, turn, |member, _| member.step(node, message));
                if taken == Some(true) {
                    self.dirty.insert(group);
                } else {
                    self.dropped_messages += 1;
                }
            }
        }
    }

    /// One tick at most: time this process did not run is not made up for, or waking from a pause would start elections.
    fn take_tick(&mut self, turn: &mut Turn<'_>) {
        if !std::mem::take(&mut self.tick) || turn.now < self.next_tick {
            return;
        }
        let due = self.next_tick.plus_ms(self.config.tick_ms);
        self.next_tick = if due > turn.now {
            due
        } else {
            turn.now.plus_ms(self.config.tick_ms)
        };
        if self.is_draining {
            self.transfer(turn);
        }
        self.for_each(turn, |member, turn| {
            member.tick(turn);
            Ok(true)
        });
        let (rows, bytes) = self.dirty();
        self.is_full = rows > SHARD_DIRTY_ROWS_MAX || bytes > self.config.dirty_bytes_max;
    }

    fn transfer(&mut self, turn: &mut Turn<'_>) {
        self.for_each(turn, |member, _| {
            member.transfer();
            Ok(true)
        });
    }

    fn take_others(&mut self, turn: &mut Turn<'_>) {
        for input in std::mem::take(&mut self.others) {
            match input {
                Input::Asked(ticket, answer) => self.take_answer(ticket, answer, turn),
                Input::OutboxResult(group, key, applied) => {
                    self.guard(group, turn, |member, turn| {
                        member.on_outbox_result(key, applied, turn);
                        Ok(())
                    });
                    self.dirty.insert(group);
                }
                Input::Log(replica, entries) => self.take_log(replica, entries, turn),
                Input::Drain => self.transfer(turn),
                Input::Freeze => self.freeze(turn),
                Input::Flushed(done) => self.flushed(&done, turn),
                Input::Tick
                | Input::Peer(..)
                | Input::Call(..)
                | Input::Durable(_)
                | Input::Start(_)
                | Input::Policy(_) => {}
            }
        }
    }

    fn take_answer(&mut self, ticket: Ticket, answer: Option<Answer>, turn: &mut Turn<'_>) {
        // The call may have ended meanwhile; then nobody asks any more.
        let Some(group) = self.members().find(|m| m.asks(ticket)).map(|m| m.group) else {
            return;
        };
        self.guard(group, turn, |member, turn| {
            member.asked(ticket, answer, turn);
            Ok(())
        });
        self.dirty.insert(group);
    }

    fn take_log(
        &mut self,
        replica: ReplicaId,
        entries: Vec<(LogIndex, Term, u8, Bytes)>,
        turn: &mut Turn<'_>,
    ) {
        let Some(group) = self.members().find(|m| m.id == replica).map(|m| m.group) else {
            return;
        };
        self.guard(group, turn, |member, _| {
            member.fetched(entries);
            Ok(())
        });
        self.dirty.insert(group);
    }

    fn freeze(&mut self, turn: &mut Turn<'_>) {
        let mut parts = Vec::new();
        self.for_each(turn, |member, turn| {
            parts.extend(member.freeze());
            // Also of groups that rest: a follower may have caught up since.
            release(member, turn);
            Ok(false)
        });
        turn.outputs.push(Output::Frozen(parts));
    }

    fn flushed(&mut self, done: &Checkpointed, turn: &mut Turn<'_>) {
        let replicas: BTreeSet<ReplicaId> = done.flushed.iter().map(|(r, _)| *r).collect();
        self.for_each(turn, |member, turn| {
            if replicas.contains(&member.id) {
                member.flushed(done);
                release(member, turn);
            }
            Ok(false)
        });
    }

    /// Calls `work` on every running group; `Ok(true)` makes the group dirty.
    fn for_each(
        &mut self,
        turn: &mut Turn<'_>,
        mut work: impl FnMut(&mut Member, &mut Turn<'_>) -> Result<bool, Fault>,
    ) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            if self.guard(group, turn, &mut work) == Some(true) {
                self.dirty.insert(group);
            }
        }
    }

    /// Works on one group, if it runs. A fault, or a panic of raft or the machine (that is how they report a broken invariant), stops
    /// this group and no other.
    fn guard<T>(
        &mut self,
        group: GroupId,
        turn: &mut Turn<'_>,
        work: impl FnOnce(&mut Member, &mut Turn<'_>) -> Result<T, Fault>,
    ) -> Option<T> {
        let Some(State::Running(member)) = self.groups.get_mut(&group) else {
            return None;
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(member, turn)));
        let fault = match result {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(fault)) => fault,
            Err(panic) => Fault(format!("panicked: {}", panic_text(&*panic))),
        };
        if let Some(State::Running(mut member)) = self.groups.remove(&group) {
            member.stop(turn);
            self.groups
                .insert(group, State::Faulty(member.into_store()));
        }
        turn.outputs.push(Output::Fault(group, fault.0));
        None
    }

    /// When `Tick` is due. In the past if the last turn left work behind.
    pub fn next_timeout(&self) -> Option<Mono> {
        Some(if self.dirty.is_empty() {
            self.next_tick
        } else {
            self.now
        })
    }

    /// Dirty rows and message bytes of all groups: what triggers a checkpoint.
    pub fn dirty(&self) -> (usize, usize) {
        self.members()
            .map(|m| m.store().dirty())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Groups led here with a quorum proven in the current term, of all groups owned: readiness (H56).
    pub fn led(&self) -> (usize, usize) {
        (
            self.members().filter(|m| m.is_proven()).count(),
            self.groups.len(),
        )
    }

    /// Which groups [`Self::led`] counts, with the term of the office: what other nodes are told (H56).
    pub fn offices(&self) -> impl Iterator<Item = (GroupId, Term)> {
        self.members().filter_map(|m| Some((m.group, m.proven()?)))
    }

    /// The current picture of a group, for tests, tools and delivery workers.
    pub fn view(&self, group: GroupId) -> Option<View> {
        self.groups.get(&group).map(|state| state.store().view())
    }

    /// Messages from peers that were not acceptable: malformed, misaddressed, contradicting what must hold, or too many.
    pub fn dropped_messages(&self) -> u64 {
        self.dropped_messages
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.groups.values().filter_map(State::running)
    }
}

/// Largest message ids of a group's checkpoint and of its log after it (ids ascend in log order).
fn last_ids(group: &mut Group) -> [MessageId; 2] {
    let next = group.store.applied().next();
    let stored = group.store.begin(next).last_message_id();
    let mut newest_first = group.log.entries.iter().rev();
    let logged = newest_first.find_map(|entry| last_id_of(entry.3.clone()));
    [stored, logged.unwrap_or_default()]
}

fn last_id_of(entry: Bytes) -> Option<MessageId> {
    let batch = Batch::decode(entry).ok()?;
    let ids = batch.commands.iter().filter_map(|command| match command {
        Command::Append(append) => Some(append.record.message_id()),
        Command::Write(_) => None,
    });
    ids.last()
}

fn release(member: &mut Member, turn: &mut Turn<'_>) {
    if let Some((index, term)) = member.release_log() {
        turn.outputs.push(Output::Release(member.id, index, term));
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<String>() {
        return text;
    }
    panic.downcast_ref::<&str>().copied().unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::SlotId;
    use wk_store::disk::SimDisk;
    use wk_store::{ReplicaMeta, Store};

    const NOW: Mono = Mono(0);
    const WALL: WallMs = WallMs(1_700_000_000_000);

    /// Two groups of one voter, ready.
    fn shard() -> Shard {
        let node = NodeId(1);
        let store = Store::open(Arc::new(SimDisk::new())).unwrap();
        let groups = [0, 1].map(|slot| {
            let (group, replica) = (GroupId::Slot(SlotId(slot)), ReplicaId(u64::from(slot) + 1));
            let voters = BTreeMap::from([(replica, node)]);
            let meta = ReplicaMeta {
                replica,
                group,
                membership: crate::membership::encode(&voters),
                applied: LogIndex(0),
                applied_term: Term(0),
            };
            store.create(&[meta]).unwrap();
            Group {
                group,
                replica,
                voters,
                store: store.slot(replica).unwrap(),
                applied_term: Term(0),
                log: Recovered::default(),
            }
        });
        let policy = Arc::new(Policy::new());
        let config = ShardConfig::new(node);
        let mut shard = Shard::new(config, policy, groups.into(), NOW, WALL);
        poll(&mut shard);
        shard.handle(NOW, WALL, Input::Durable(WalMark(1)));
        poll(&mut shard);
        assert_eq!(shard.led(), (2, 2));
        shard
    }

    fn poll(shard: &mut Shard) -> Vec<Output> {
        let mut out = Vec::new();
        shard.poll(NOW, WALL, &mut out);
        out
    }

    fn turn<'a>(shard: &Shard, config: &'a ShardConfig, policy: &'a Policy) -> Turn<'a> {
        Turn {
            now: NOW,
            wall: WALL,
            config,
            policy,
            work: 0,
            is_full: false,
            ids: shard.ids,
            mark: shard.next_mark,
            records: Vec::new(),
            mail: Mail::default(),
            outputs: Vec::new(),
        }
    }

    #[test]
    fn a_panic_stops_its_group_and_no_other_and_leaves_no_call_without_an_end() {
        let mut shard = shard();
        let [bad, good] = [0, 1].map(|slot| GroupId::Slot(SlotId(slot)));
        let query = || Request::Query(Box::new(Query::SystemUids));
        shard.handle(NOW, WALL, Input::Call(Ticket(1), bad, None, query()));
        let (config, policy) = (shard.config.clone(), Policy::new());
        let mut turn = turn(&shard, &config, &policy);
        let taken = shard.guard::<()>(bad, &mut turn, |_, _| panic!("an invariant"));
        assert_eq!(taken, None);
        match &turn.outputs[..] {
            [
                Output::Reply(Ticket(1), Err(CallError::NotSent(Why::Faulty))),
                Output::Fault(group, cause),
            ] => {
                assert_eq!((*group, cause.as_str()), (bad, "panicked: an invariant"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(shard.led(), (1, 2));
        shard.handle(NOW, WALL, Input::Call(Ticket(2), bad, None, query()));
        shard.handle(NOW, WALL, Input::Call(Ticket(3), good, None, query()));
        match &poll(&mut shard)[..] {
            [
                Output::Reply(Ticket(2), Err(CallError::NotSent(Why::Faulty))),
                Output::Read(Ticket(3), ..),
            ] => {}
            other => panic!("{other:?}"),
        }
    }
}
