//! The cluster and its clients in one thread: a heap of events under virtual time.
//!
//! ```text
//!  client ─Arrive─▶ router ─▶ shard ─▶ log driver ─Write─▶ ─Sync─▶ shard ─▶ router ─Answer─▶ client ─▶ oracle
//!                     └──Packet──▶ a peer's shard                  └─▶ delivery ─Packet─▶ receivers
//! ```
//!
//! This module owns time, events and the way of a call; [`crate::drive`] performs what cores ask for, [`crate::faults`] breaks things,
//! [`crate::check`] looks at the end.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use wk_chat::request::{CallError, Why};
use wk_chat::{Effect, Query, Reply, Request};
use wk_cluster::{Call, LaneId, Retry};
use wk_proto::{
    ChannelKey, GroupId, LogIndex, MessageId, Mono, NodeId, ReplicaId, Term, Ticket, WallMs,
};
use wk_replica::{Input, PeerMessage, WalMark};
use wk_store::{Checkpointed, Disk as _, View};

use crate::dice::Dice;
use crate::load::{Attempt, Client, Conn, Ending};
use crate::net::Net;
use crate::node::{Node, Origin};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::trace::Trace;

/// Wall time at the start of every run.
const START_MS: u64 = 1_700_000_000_000;
/// Way between a client and its node, in µs.
const CLIENT_WAY_US: u64 = 50;
/// How long a call may take before the router gives up, in ms (H30).
const CALL_MS: u64 = 5_000;
/// Free space below which a node takes no new calls, in bytes (D12).
const RESERVE_BYTES: u64 = 256 * 1024;

/// What travels between nodes.
#[derive(Debug)]
pub(crate) enum Packet {
    Raft(PeerMessage),
    Call {
        ticket: Ticket,
        group: GroupId,
        term: Term,
        request: Bytes,
    },
    Result {
        ticket: Ticket,
        result: Result<Bytes, CallError>,
    },
    /// A message for a client of the receiving node.
    Push {
        client: usize,
        channel: ChannelKey,
        seq: u64,
        id: MessageId,
    },
}

/// What happens at a point in time. Events of a process name its life and are void in another.
#[derive(Debug)]
pub(crate) enum Event {
    Boot(NodeId),
    ShardTimer(NodeId, u64),
    RouterTimer(NodeId, u64),
    LogWrite(NodeId, u64),
    LogSync(NodeId, u64, WalMark),
    Freeze(NodeId, u64),
    Checkpoint(NodeId, u64),
    Flushed(NodeId, u64, Checkpointed),
    ReadLog(NodeId, u64, (ReplicaId, LogIndex, LogIndex, usize)),
    Read {
        at: (NodeId, u64),
        ticket: Ticket,
        view: View,
        query: Box<Query>,
    },
    Deliver {
        at: (NodeId, u64),
        group: GroupId,
        effects: Vec<Effect>,
    },
    Packet {
        from: NodeId,
        to: NodeId,
        /// Life of the link; `None` for datagrams.
        life: Option<u64>,
        packet: Packet,
    },
    LinkBroken {
        at: (NodeId, u64),
        peer: NodeId,
        life: u64,
    },
    Act(usize),
    Arrive {
        client: usize,
        conn: Conn,
        attempt: Box<Attempt>,
    },
    Answer {
        client: usize,
        conn: u64,
        op: u64,
        result: Result<Reply, CallError>,
    },
    Disconnected {
        client: usize,
        conn: u64,
    },
    Stopped(NodeId, u64),
    Fault,
    Flip,
    /// A fault that lasts ends.
    Mend(NodeId),
}

/// See the module.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Mono,
    pub(crate) trace: Trace,
    pub(crate) net: Net,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) clients: Vec<Client>,
    pub(crate) oracle: Oracle,
    /// Who was seen to lead, by term (I-9).
    pub(crate) leaders: BTreeMap<(GroupId, Term), NodeId>,
    /// The first thing that went wrong; nothing happens after it.
    pub(crate) failure: Option<String>,
    pub(crate) dice: Dice,
    pub(crate) net_dice: Dice,
    pub(crate) load_dice: Dice,
    /// Clients start new operations.
    pub(crate) loads: bool,
    /// Faults go on.
    pub(crate) storms: bool,
    events: BTreeMap<(Mono, u64), Event>,
    next_event: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, dump: Option<Box<dyn Write>>) -> Self {
        let seed = plan.seed;
        let mut load_dice = Dice::new(seed, "load");
        let clients = (0..plan.clients)
            .map(|n| Client::new(n, &mut load_dice))
            .collect();
        let nodes = (1..=plan.nodes).map(NodeId);
        let nodes = nodes.map(|id| (id, Node::new(id, &plan))).collect();
        let mut world = Self {
            now: Mono(1_000_000),
            trace: Trace::new(dump),
            net: Net::default(),
            nodes,
            clients,
            oracle: Oracle::new(plan.padding),
            leaders: BTreeMap::new(),
            failure: None,
            dice: Dice::new(seed, "faults"),
            net_dice: Dice::new(seed, "net"),
            load_dice,
            loads: true,
            storms: true,
            events: BTreeMap::new(),
            next_event: 0,
            plan,
        };
        for id in world.ids() {
            world.after_us(0, Event::Boot(id));
        }
        for client in 0..world.clients.len() {
            world.after_us(1_000, Event::Act(client));
        }
        world.after_us(0, Event::Fault);
        if let Some((ms, _)) = world.plan.flip {
            world.after_us(ms * 1_000, Event::Flip);
        }
        world
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the plan")
    }

    /// A node's opinion of the time of day.
    pub(crate) fn wall(&self, id: NodeId) -> WallMs {
        WallMs(START_MS + self.nodes[&id].skew_ms + self.now.0 / 1_000)
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.trace.note(self.now, format_args!("VIOLATION {what}"));
        self.failure.get_or_insert(what);
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    pub(crate) fn after_us(&mut self, us: u64, event: Event) {
        self.at(Mono(self.now.0 + us), event);
    }

    pub(crate) fn at(&mut self, at: Mono, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// Runs until `done`, at most `ms` of virtual time. Whether it is done; a failure ends it.
    pub(crate) fn run_until(&mut self, ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.plus_ms(ms);
        while self.failure.is_none() {
            if done(self) {
                return true;
            }
            match self.events.first_key_value() {
                Some(((at, _), _)) if *at <= end => self.step(),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
        false
    }

    fn step(&mut self) {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return;
        };
        self.now = self.now.max(at);
        match event {
            Event::Boot(id) => self.boot(id),
            Event::ShardTimer(id, life) if self.lives(id, life) => self.shard_timer(id),
            Event::RouterTimer(id, life) if self.lives(id, life) => self.router_timer(id),
            Event::LogWrite(id, life) if self.lives(id, life) => self.log_write(id),
            Event::LogSync(id, life, mark) if self.lives(id, life) => self.log_sync(id, mark),
            Event::Freeze(id, life) if self.lives(id, life) => self.freeze(id),
            Event::Checkpoint(id, life) if self.lives(id, life) => self.checkpoint(id),
            Event::Flushed(id, life, done) if self.lives(id, life) => {
                self.input(id, Input::Flushed(done));
            }
            Event::ReadLog(id, life, wanted) if self.lives(id, life) => self.read_log(id, wanted),
            Event::Read {
                at: (id, life),
                ticket,
                view,
                query,
            } if self.lives(id, life) => self.read(id, ticket, &view, &query),
            Event::Deliver {
                at: (id, life),
                group,
                effects,
            } if self.lives(id, life) => self.deliver(id, group, effects),
            Event::Packet {
                from,
                to,
                life,
                packet,
            } => self.packet(from, to, life, packet),
            Event::LinkBroken {
                at: (id, life),
                peer,
                life: link,
            } if self.lives(id, life) => self.link_broken(id, peer, link),
            Event::Act(client) => self.act(client),
            Event::Arrive {
                client,
                conn,
                attempt,
            } => self.arrive(client, conn, *attempt),
            Event::Answer {
                client,
                conn,
                op,
                result,
            } => self.answer(client, conn, op, result),
            Event::Disconnected { client, conn } => self.disconnected(client, conn),
            Event::Stopped(id, life) if self.lives(id, life) => self.kill(id),
            Event::Fault => self.fault(),
            Event::Flip => self.flip(),
            Event::Mend(id) => self.mend(id),
            // Of a process that is gone.
            Event::ShardTimer(..)
            | Event::RouterTimer(..)
            | Event::LogWrite(..)
            | Event::LogSync(..)
            | Event::Freeze(..)
            | Event::Checkpoint(..)
            | Event::Flushed(..)
            | Event::ReadLog(..)
            | Event::Stopped(..)
            | Event::Read { .. }
            | Event::Deliver { .. }
            | Event::LinkBroken { .. } => {}
        }
    }

    fn lives(&self, id: NodeId, life: u64) -> bool {
        let node = &self.nodes[&id];
        node.life == life && node.up.is_some()
    }

    /// A client's turn.
    fn act(&mut self, client: usize) {
        let pause = self.load_dice.between(1, self.plan.pause_ms);
        self.after_us(pause * 1_000, Event::Act(client));
        self.connect(client);
        let (now, count) = (self.now, self.clients.len());
        let attempts = self.clients[client].act(
            now,
            self.loads,
            count,
            &mut self.load_dice,
            &mut self.oracle,
        );
        let Some(conn) = self.clients[client].conn else {
            return;
        };
        for attempt in attempts {
            let attempt = Box::new(attempt);
            self.after_us(
                CLIENT_WAY_US,
                Event::Arrive {
                    client,
                    conn,
                    attempt,
                },
            );
        }
    }

    fn connect(&mut self, client: usize) {
        if self.clients[client].conn.is_some() {
            return;
        }
        let up: Vec<(NodeId, u64)> = self
            .nodes
            .values()
            .filter(|n| n.up.is_some())
            .map(|n| (n.id, n.life))
            .collect();
        if up.is_empty() {
            return;
        }
        let (node, life) = *self.load_dice.pick(&up);
        self.clients[client].connect(node, life);
    }

    /// A request reaches the client's node.
    fn arrive(&mut self, client: usize, conn: Conn, attempt: Attempt) {
        if !self.lives(conn.node, conn.life) {
            return; // its client is told by `Disconnected`
        }
        let Attempt {
            op,
            lane,
            request,
            retry,
        } = attempt;
        let node = conn.node;
        match &request {
            Request::Send(send) => self.note(format_args!(
                "client {client}.{op} at {node} sends {:?} number {:?} bytes {}",
                send.channel,
                send.client_msg_no,
                send.payload.len()
            )),
            other => self.note(format_args!("client {client}.{op} at {node} {other:?}")),
        }
        let origin = Origin::Client {
            client,
            conn: conn.number,
            op,
        };
        let writes = matches!(request, Request::Send(_) | Request::Write(_));
        if writes && self.is_disk_full(conn.node) {
            return self.done(conn.node, origin, Err(CallError::NotSent(Why::Busy)));
        }
        self.submit(conn.node, Some(lane), origin, request, retry, CALL_MS);
        self.turn(conn.node);
    }

    fn is_disk_full(&self, id: NodeId) -> bool {
        let space = self.nodes[&id].disk.space();
        space.is_ok_and(|(free, _)| free < RESERVE_BYTES)
    }

    /// Hands a call to a node's router.
    pub(crate) fn submit(
        &mut self,
        id: NodeId,
        lane: Option<LaneId>,
        origin: Origin,
        request: Request,
        retry: Retry,
        ms: u64,
    ) {
        let deadline = self.now.plus_ms(ms);
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let call = Call {
            request,
            retry,
            deadline,
        };
        if up.router.submit(lane, origin, call).is_err() {
            self.done(id, origin, Err(CallError::NotSent(Why::Busy)));
        }
    }

    /// A router's call ended.
    pub(crate) fn done(&mut self, id: NodeId, origin: Origin, result: Result<Reply, CallError>) {
        let life = self.nodes[&id].life;
        match origin {
            Origin::Client { client, conn, op } => {
                let event = Event::Answer {
                    client,
                    conn,
                    op,
                    result,
                };
                self.after_us(CLIENT_WAY_US, event);
            }
            Origin::Outbox { group, key } => {
                let applied = result == Ok(Reply::Done);
                self.note(format_args!("{id} outbox {group} {key:?} {result:?}"));
                self.hand(id, life, Input::OutboxResult(group, key, applied));
            }
            Origin::Ask(ticket) => {
                let answer = match result {
                    Ok(Reply::Answer(answer)) => Some(*answer),
                    _ => None,
                };
                self.hand(id, life, Input::Asked(ticket, answer));
            }
        }
    }

    fn answer(&mut self, client: usize, conn: u64, op: u64, result: Result<Reply, CallError>) {
        let current = self.clients[client].conn.map(|c| c.number);
        if current != Some(conn) {
            return;
        }
        self.note(format_args!("client {client}.{op} told {result:?}"));
        let pause = self.load_dice.between(1, 100);
        let ending = Ending::Result(result);
        let (now, oracle) = (self.now, &mut self.oracle);
        let checked = self.clients[client].ended(op, ending, now, pause, oracle);
        if let Err(violation) = checked {
            self.fail(violation);
        }
    }

    fn disconnected(&mut self, client: usize, conn: u64) {
        if self.clients[client].conn.map(|c| c.number) == Some(conn) {
            self.note(format_args!("client {client} lost its connection"));
            let now = self.now;
            self.clients[client].disconnected(now, &mut self.oracle);
        }
    }

    /// Everything at the node and every connection to it ended.
    pub(crate) fn after_death(&mut self, id: NodeId) {
        for client in 0..self.clients.len() {
            if let Some(conn) = self.clients[client].conn.filter(|c| c.node == id) {
                let conn = conn.number;
                self.after_us(500, Event::Disconnected { client, conn });
            }
        }
        for other in self.ids().into_iter().filter(|o| *o != id) {
            self.break_link(id, other);
        }
    }
}
