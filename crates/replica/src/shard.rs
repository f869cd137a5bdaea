//! The shard's vocabulary and entry points.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wk_chat::request::{CallError, Inbox, OutboxKey};
use wk_chat::{Effect, Policy, Query, Reply, Request};
use wk_proto::{GroupId, LogIndex, Mono, NodeId, ReplicaId, Term, Ticket, WallMs};
use wk_store::{Checkpointed, Frozen, Recovered, SlotStore, View, WalRecord};

/// Bounds and times of a shard.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// This node.
    pub node: NodeId,
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
    /// A request for a group of this shard.
    Call(Ticket, GroupId, Request),
    /// Everything up to this mark is on disk.
    Durable(WalMark),
    /// A checkpoint begins: freeze what is dirty.
    Freeze,
    /// The frozen parts are on disk.
    Flushed(Checkpointed),
    /// An outbox row was (`true`) or was not yet (`false`) applied at its group.
    OutboxResult(GroupId, OutboxKey, bool),
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
    /// Effects of an applied entry, on its leader only. Act on them before the replies that follow.
    Committed(GroupId, LogIndex, Vec<Effect>),
    /// Leadership is proven for this query: answer it from the view, on any thread.
    Read(Ticket, View, Box<Query>),
    /// The end of a call.
    Reply(Ticket, Result<Reply, CallError>),
    /// Deliver to the inbox's group as `Write::Inbox`; report `OutboxResult`. Repeated until it succeeds.
    Outbox(GroupId, OutboxKey, Inbox),
    /// Answer to `Freeze`: what to checkpoint (may be empty).
    Frozen(Vec<Frozen>),
    /// The WAL may forget entries of the replica up to here.
    Release(ReplicaId, LogIndex, Term),
    /// This replica's view of who leads the group.
    Leader(GroupId, Term, Option<NodeId>),
    /// The group stopped (H58); the others run.
    Fault(GroupId, String),
}

/// All groups of one thread.
#[derive(Debug)]
pub struct Shard {}

impl Shard {
    /// Starts the groups where disk left them. A group whose only voter is this replica leads at once.
    pub fn new(
        config: ShardConfig,
        policy: Arc<Policy>,
        groups: Vec<Group>,
        now: Mono,
        wall: WallMs,
    ) -> Self {
        let _ = (config, policy, groups, now, wall);
        todo!()
    }
    /// Takes one input. Cheap: work happens in [`Self::poll`].
    pub fn handle(&mut self, now: Mono, wall: WallMs, input: Input) {
        let _ = (now, wall, input);
        todo!()
    }
    /// Does one turn over the dirty groups and appends what it wants.
    pub fn poll(&mut self, now: Mono, wall: WallMs, out: &mut Vec<Output>) {
        let _ = (now, wall, out);
        todo!()
    }
    /// When `Tick` is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        todo!()
    }
    /// Dirty rows and message bytes of all groups: what triggers a checkpoint.
    pub fn dirty(&self) -> (usize, usize) {
        todo!()
    }
    /// Groups led here with a quorum proven in the current term, of all groups owned: readiness (H56).
    pub fn led(&self) -> (usize, usize) {
        todo!()
    }
    /// The current picture of a group, for tests, tools and delivery workers.
    pub fn view(&self, group: GroupId) -> Option<View> {
        let _ = group;
        todo!()
    }
}
