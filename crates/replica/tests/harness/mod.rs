//! A cluster of shards in one thread: virtual time, a network that drops, doubles, delays and cuts, WALs whose fsync is an event,
//! crashes that lose what was not synced. Everything is decided by one seed.
//!
//! The shards, machines and stores are the real ones; only what a driver does is played here.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod net;
pub mod node;
pub mod wal;
pub mod work;

use std::collections::BTreeMap;
use std::sync::Arc;

use wk_chat::request::{CallError, Inbox, OutboxKey, Why};
use wk_chat::{Answer, Policy, Query, Reply, Request, Write};
use wk_proto::{GroupId, Mono, NodeId, ReplicaId, SlotId, Ticket, WallMs};
use wk_replica::{Input, Output, PeerMessage, Shard, WalMark};

use net::Net;
use node::Node;

/// Wall time at the start of every run.
const START_MS: u64 = 1_700_000_000_000;
/// Tickets the harness uses itself begin here.
const OWN_TICKETS: u64 = 1 << 40;

/// A splitmix64 sequence.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// Next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    /// `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }
    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What happens at a point in time.
#[derive(Debug)]
pub enum Event {
    /// The shard's own timeout.
    Timer(NodeId),
    /// A message arrives.
    Peer {
        to: NodeId,
        from: NodeId,
        message: PeerMessage,
    },
    /// The fsync that began with everything up to this mark ends.
    Synced(NodeId, WalMark),
    /// An input of the driver's making.
    Input(NodeId, Input),
    /// An outbox row reaches the leader of its group.
    Outbox {
        owing: NodeId,
        group: GroupId,
        key: OutboxKey,
        inbox: Box<Inbox>,
    },
}

/// What a test may care about, in the order it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Trace {
    /// Handed to the WAL, not durable.
    Written(NodeId, WalMark),
    /// Durable.
    Synced(NodeId, WalMark),
    /// A call ended.
    Reply(NodeId, Ticket, Result<Reply, CallError>),
    /// Effects on the leader: group, log index, how many.
    Committed(NodeId, GroupId, u64, usize),
    /// A message left a node.
    Sent(NodeId, NodeId),
    /// A row left for its group.
    Outbox(NodeId, OutboxKey),
    /// Entries a slow follower needed from the WAL.
    ReadLog(NodeId, usize),
    /// A group stopped.
    Fault(NodeId, GroupId, String),
    /// A node's opinion of who leads.
    Leader(NodeId, GroupId, u64, Option<NodeId>),
}

/// How a cluster is built.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: u32,
    pub slots: u16,
    pub seed: u64,
    /// An fsync takes this long, in µs.
    pub sync_us: u64,
    pub policy: Policy,
    /// As [`wk_replica::ShardConfig::dirty_bytes_max`].
    pub dirty_bytes_max: usize,
    /// Mutation for tests of the harness itself: send what should wait for the WAL at once.
    pub ignore_after: bool,
    /// Mutation: report durable before it is.
    pub lie_about_sync: bool,
}

impl Plan {
    pub fn new(nodes: u32, slots: u16, seed: u64) -> Self {
        let policy = Policy {
            slot_count: slots,
            ..Policy::new()
        };
        Self {
            nodes,
            slots,
            seed,
            sync_us: 200,
            policy,
            dirty_bytes_max: usize::MAX,
            ignore_after: false,
            lie_about_sync: false,
        }
    }
}

/// The cluster.
pub struct World {
    pub plan: Plan,
    pub now: Mono,
    pub dice: Dice,
    pub net: Net,
    pub nodes: BTreeMap<NodeId, Node>,
    pub trace: Vec<Trace>,
    pub replies: BTreeMap<Ticket, Result<Reply, CallError>>,
    /// Rows are kept from their groups while this is set.
    pub hold_outbox: bool,
    /// Questions to other groups stay without an answer while this is set.
    pub ignore_asks: bool,
    /// Hold what happens against what must hold.
    pub check: bool,
    /// The wall clock is behind by this.
    pub clock_back_ms: u64,
    elected: BTreeMap<(GroupId, u64), NodeId>,
    open: BTreeMap<Ticket, NodeId>,
    events: BTreeMap<(Mono, u64), Event>,
    next_event: u64,
    next_ticket: u64,
    /// Own calls: what to do with their results.
    own: BTreeMap<Ticket, Own>,
}

enum Own {
    Outbox {
        owing: NodeId,
        group: GroupId,
        key: OutboxKey,
    },
    Ask {
        asking: NodeId,
        ticket: Ticket,
    },
}

impl World {
    /// Creates and starts all nodes.
    pub fn new(plan: Plan) -> Self {
        let mut world = Self {
            now: Mono(1_000_000),
            dice: Dice(plan.seed),
            net: Net::default(),
            nodes: BTreeMap::new(),
            trace: Vec::new(),
            replies: BTreeMap::new(),
            hold_outbox: false,
            ignore_asks: false,
            check: true,
            clock_back_ms: 0,
            elected: BTreeMap::new(),
            open: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_ticket: 0,
            own: BTreeMap::new(),
            plan,
        };
        for n in 1..=world.plan.nodes {
            let node = Node::create(NodeId(n), &world.plan);
            world.nodes.insert(NodeId(n), node);
            world.start(NodeId(n));
        }
        world
    }

    pub fn wall(&self) -> WallMs {
        WallMs(START_MS + self.now.0 / 1_000 - self.clock_back_ms)
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, id: NodeId) {
        let (now, wall) = (self.now, self.wall());
        let plan = self.plan.clone();
        self.node(id).start(&plan, now, wall);
        self.turn(id);
        self.set_timer(id);
    }

    /// Kills a node: what was not synced is gone.
    pub fn crash(&mut self, id: NodeId) {
        let seed = self.dice.roll();
        self.node(id).crash(seed);
        self.open.retain(|_, node| *node != id);
        let lost = |e: &Event| match e {
            Event::Timer(n) | Event::Synced(n, _) | Event::Input(n, _) => *n == id,
            Event::Peer { .. } | Event::Outbox { .. } => false,
        };
        self.events.retain(|_, e| !lost(e));
    }

    pub fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the plan")
    }

    /// The shard of a node that runs.
    pub fn shard(&self, id: NodeId) -> &Shard {
        self.nodes[&id].shard.as_ref().expect("it runs")
    }

    /// Calls without an answer whose node has not been killed since.
    pub fn unanswered(&self) -> Vec<Ticket> {
        self.open.keys().copied().collect()
    }

    /// Sends a call to a node; the result turns up in `replies`.
    pub fn call(&mut self, node: NodeId, request: Request) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.open.insert(ticket, node);
        self.input(node, self.call_input(ticket, request));
        ticket
    }

    fn call_input(&self, ticket: Ticket, request: Request) -> Input {
        Input::Call(ticket, request.group(self.plan.slots), None, request)
    }

    /// Hands an input to a node now and runs a turn.
    pub fn input(&mut self, id: NodeId, input: Input) {
        let (now, wall) = (self.now, self.wall());
        if let Some(shard) = &mut self.node(id).shard {
            shard.handle(now, wall, input);
            self.turn(id);
        }
    }

    /// Runs until `done`, at most `ms` of virtual time.
    pub fn run_until(&mut self, ms: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.plus_ms(ms);
        while !done(self) {
            match self.events.first_key_value() {
                Some(((at, _), _)) if *at <= end => self.step(),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
        true
    }

    /// Runs for `ms` of virtual time.
    pub fn run(&mut self, ms: u64) {
        self.run_until(ms, |_| false);
    }

    /// Runs until a call has ended; panics after 30 s.
    pub fn result(&mut self, ticket: Ticket) -> Result<Reply, CallError> {
        let ended = self.run_until(30_000, |w| w.replies.contains_key(&ticket));
        assert!(ended, "call {ticket} has no answer after 30 s");
        self.replies[&ticket].clone()
    }

    /// The node that leads `group` with a proven quorum in the highest term, if any.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        let told = self.nodes.values().filter(|n| n.shard.is_some());
        let best = told.filter_map(|n| {
            n.leaders
                .get(&group)
                .map(|(term, leader)| (*term, *leader, n.id))
        });
        let (_, leader, id) = best.filter(|(_, leader, id)| *leader == Some(*id)).max()?;
        (leader == Some(id)).then_some(id)
    }

    /// Whether every group has a proven leader.
    pub fn is_ready(&self) -> bool {
        let shards = self.nodes.values().filter_map(|n| n.shard.as_ref());
        let led: usize = shards.map(|s| s.led().0).sum();
        led >= usize::from(self.plan.slots) && slots(&self.plan).all(|g| self.leader(g).is_some())
    }

    /// Runs until every group has a proven leader; answers with the first group's. Panics after 20 s.
    pub fn elect(&mut self) -> NodeId {
        assert!(
            self.run_until(20_000, Self::is_ready),
            "no leaders after 20 s"
        );
        self.leader(GroupId::Slot(SlotId(0))).expect("just seen")
    }

    /// The nodes that run, but for one.
    pub fn others(&self, id: NodeId) -> Vec<NodeId> {
        let running = self.nodes.values().filter(|n| n.shard.is_some());
        running.map(|n| n.id).filter(|n| *n != id).collect()
    }

    /// One checkpoint of a node, at once.
    pub fn checkpoint(&mut self, id: NodeId) {
        self.input(id, Input::Freeze);
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return;
        };
        self.now = self.now.max(at);
        match event {
            Event::Timer(id) => self.on_timer(id),
            Event::Peer { to, from, message } => {
                if !self.net.is_cut(from, to) {
                    self.input(to, Input::Peer(from, message));
                }
            }
            Event::Synced(id, mark) => self.on_synced(id, mark),
            Event::Input(id, input) => self.input(id, input),
            Event::Outbox {
                owing,
                group,
                key,
                inbox,
            } => self.on_outbox(owing, group, key, *inbox),
        }
    }

    fn after_us(&mut self, us: u64, event: Event) {
        self.next_event += 1;
        let at = Mono(self.now.0 + us);
        self.events.insert((at, self.next_event), event);
    }

    fn set_timer(&mut self, id: NodeId) {
        let now = self.now;
        let due = self.node(id).shard.as_ref().and_then(|s| s.next_timeout());
        if let Some(due) = due {
            self.after_us(due.since(now), Event::Timer(id));
        }
    }

    fn on_timer(&mut self, id: NodeId) {
        self.input(id, Input::Tick);
        self.set_timer(id);
    }

    fn on_synced(&mut self, id: NodeId, mark: WalMark) {
        self.trace.push(Trace::Synced(id, mark));
        let node = self.node(id);
        node.wal.synced(mark);
        node.syncing = false;
        self.input(id, Input::Durable(mark));
        let released = self.node(id).take_released(mark);
        for (to, message) in released {
            self.send(id, to, message);
        }
        self.begin_sync(id);
    }

    /// One fsync at a time; it covers everything written when it begins.
    fn begin_sync(&mut self, id: NodeId) {
        let node = self.node(id);
        let us = node.sync_us;
        if node.syncing || node.shard.is_none() {
            return;
        }
        if let Some(mark) = node.wal.unsynced() {
            node.syncing = true;
            self.after_us(us, Event::Synced(id, mark));
        }
    }

    fn turn(&mut self, id: NodeId) {
        let (now, wall) = (self.now, self.wall());
        loop {
            let mut out = Vec::new();
            let Some(shard) = &mut self.node(id).shard else {
                return;
            };
            shard.poll(now, wall, &mut out);
            let is_behind = shard.next_timeout().is_some_and(|due| due <= now);
            for output in out {
                self.perform(id, output);
            }
            if !is_behind {
                break;
            }
        }
        self.begin_sync(id);
    }

    fn perform(&mut self, id: NodeId, output: Output) {
        match output {
            Output::Persist(mark, records) => {
                self.trace.push(Trace::Written(id, mark));
                self.node(id).wal.append(mark, records);
                if self.plan.lie_about_sync {
                    self.after_us(0, Event::Input(id, Input::Durable(mark)));
                }
            }
            Output::Send(to, message, after) => {
                let ignore = self.plan.ignore_after;
                if let Some(message) = self.node(id).hold(to, message, after, ignore) {
                    self.send(id, to, message);
                }
            }
            Output::Committed(group, index, effects) => {
                self.check_durable(group, index.0);
                self.trace
                    .push(Trace::Committed(id, group, index.0, effects.len()));
                self.node(id).committed.extend(effects);
            }
            Output::Read(ticket, view, query) => {
                let answer = query
                    .answer(&view)
                    .expect("simulated disks do not fail by themselves");
                self.reply(id, ticket, Ok(Reply::Answer(Box::new(answer))));
            }
            Output::Reply(ticket, result) => self.reply(id, ticket, result),
            Output::Ask(ticket, query) => self.ask(id, ticket, *query),
            Output::Outbox(group, key, inbox) => {
                self.trace.push(Trace::Outbox(id, key));
                let inbox = Box::new(inbox);
                self.after_us(
                    300,
                    Event::Outbox {
                        owing: id,
                        group,
                        key,
                        inbox,
                    },
                );
            }
            Output::Frozen(parts) => {
                let done = self.node(id).store().checkpoint(&parts);
                self.after_us(500, Event::Input(id, Input::Flushed(done)));
            }
            Output::ReadLog {
                replica,
                first,
                last,
                bytes,
            } => {
                let entries = self.node(id).wal.read(replica, first, last, bytes);
                self.trace.push(Trace::ReadLog(id, entries.len()));
                self.after_us(100, Event::Input(id, Input::Log(replica, entries)));
            }
            Output::Release(replica, index, term) => {
                self.node(id).wal.release(replica, index, term)
            }
            Output::Leader(group, term, leader) => {
                self.check_leader(id, group, term.0, leader);
                self.trace.push(Trace::Leader(id, group, term.0, leader));
                self.node(id).leaders.insert(group, (term, leader));
            }
            Output::Fault(group, cause) => self.trace.push(Trace::Fault(id, group, cause)),
        }
    }

    /// What is committed is synced by a majority (I-1).
    fn check_durable(&self, group: GroupId, index: u64) {
        if !self.check {
            return;
        }
        let synced = |n: &&Node| n.wal.last(replica_id(group, n.id)) >= index;
        let count = self.nodes.values().filter(synced).count();
        assert!(
            2 * count > self.nodes.len(),
            "{group}: entry {index} acted upon, but synced by {count} of {} nodes",
            self.nodes.len()
        );
    }

    /// One leader a term (I-9).
    fn check_leader(&mut self, id: NodeId, group: GroupId, term: u64, leader: Option<NodeId>) {
        if self.check && leader == Some(id) {
            let first = *self.elected.entry((group, term)).or_insert(id);
            assert_eq!(first, id, "{group}: two leaders in term {term}");
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        self.trace.push(Trace::Sent(from, to));
        self.net.note(from, to, &message);
        for us in self.net.deliveries(&mut self.dice) {
            let message = message.clone();
            self.after_us(us, Event::Peer { to, from, message });
        }
    }

    fn reply(&mut self, id: NodeId, ticket: Ticket, result: Result<Reply, CallError>) {
        if let Some(own) = self.own.remove(&ticket) {
            return self.own_result(own, result);
        }
        self.trace.push(Trace::Reply(id, ticket, result.clone()));
        self.open.remove(&ticket);
        let before = self.replies.insert(ticket, result);
        assert!(before.is_none(), "call {ticket} answered twice");
    }

    fn own_result(&mut self, own: Own, result: Result<Reply, CallError>) {
        let (node, input) = match own {
            Own::Outbox { owing, group, key } => {
                let applied = result == Ok(Reply::Done);
                (owing, Input::OutboxResult(group, key, applied))
            }
            Own::Ask { asking, ticket } => {
                let answer = match result {
                    Ok(Reply::Answer(answer)) => Some(*answer),
                    _ => None,
                };
                (asking, Input::Asked(ticket, answer))
            }
        };
        self.after_us(300, Event::Input(node, input));
    }

    fn own_call(&mut self, own: Own, request: Request) {
        let group = request.group(self.plan.slots);
        self.next_ticket += 1;
        let ticket = Ticket(OWN_TICKETS + self.next_ticket);
        match self.leader(group) {
            None => self.own_result(own, Err(CallError::NotSent(Why::NotLeader))),
            Some(leader) => {
                self.own.insert(ticket, own);
                let input = self.call_input(ticket, request);
                self.after_us(100, Event::Input(leader, input));
            }
        }
    }

    fn ask(&mut self, asking: NodeId, ticket: Ticket, query: Query) {
        if self.ignore_asks {
            return;
        }
        self.own_call(Own::Ask { asking, ticket }, Request::Query(Box::new(query)));
    }

    fn on_outbox(&mut self, owing: NodeId, group: GroupId, key: OutboxKey, inbox: Inbox) {
        let own = Own::Outbox { owing, group, key };
        if self.hold_outbox {
            return self.own_result(own, Err(CallError::NotSent(Why::Timeout)));
        }
        self.own_call(own, Request::Write(Box::new(Write::Inbox(inbox))));
    }

    /// A linearizable read at a node.
    pub fn query(&mut self, node: NodeId, query: Query) -> Result<Answer, CallError> {
        let ticket = self.call(node, Request::Query(Box::new(query)));
        match self.result(ticket)? {
            Reply::Answer(answer) => Ok(*answer),
            other => panic!("a query was answered with {other:?}"),
        }
    }
}

/// The slot groups of a plan.
pub fn slots(plan: &Plan) -> impl Iterator<Item = GroupId> + use<> {
    (0..plan.slots).map(|s| GroupId::Slot(SlotId(s)))
}

/// Raft id of a group's member on a node.
pub fn replica_id(group: GroupId, node: NodeId) -> ReplicaId {
    ReplicaId(u64::from(group.to_u32()) * 100 + u64::from(node.0))
}

/// Settings, shared.
pub fn policy(plan: &Plan) -> Arc<Policy> {
    Arc::new(plan.policy.clone())
}
