//! The drivers: they perform what shards and routers ask for, in order, and report back. No decision is made here.

use wk_chat::request::CallError;
use wk_chat::request::Why;
use wk_chat::{Effect, Query, Reply, Request, Write, implicit_recipients};
use wk_cluster::{Retry, RouterOut};
use wk_proto::{ChannelKey, GroupId, LogIndex, MessageId, Mono, NodeId, ReplicaId, Term, Ticket};
use wk_replica::{Input, Output, PeerMessage, WalMark};
use wk_store::{Frozen, IoBudget, View};

use crate::load::members;
use crate::node::{Caller, Origin, replica_id};
use crate::oracle::client_of;
use crate::plant::Plant;
use crate::world::{Event, Packet, World};

/// How long an outbox row may be on its way before it is tried again, in ms.
const OUTBOX_MS: u64 = 3_000;
/// How long a question of a group may take, in ms.
const ASK_MS: u64 = 2_000;
/// When both ends know that their link broke, in µs.
const LINK_BROKEN_US: u64 = 2_000;
/// Failed checkpoints in a row after which the process stops.
const CHECKPOINT_FAILURES_MAX: u32 = 5;
/// Turns in a row that leave work behind: more is a loop.
const TURNS_MAX: u32 = 10_000;

struct Unlimited;

impl IoBudget for Unlimited {
    fn take(&mut self, _bytes: usize) {}
}

impl World {
    /// Gives an input to a node's shard and lets the node work.
    pub(crate) fn input(&mut self, id: NodeId, input: Input) {
        let life = self.nodes[&id].life;
        self.hand(id, life, input);
        self.turn(id);
    }

    /// Gives an input to a node's shard, for the turn that follows.
    pub(crate) fn hand(&mut self, id: NodeId, life: u64, input: Input) {
        let (now, wall) = (self.now, self.wall(id));
        let node = self.node(id);
        if let Some(up) = node.up.as_mut().filter(|_| node.life == life) {
            up.shard.handle(now, wall, input);
        }
    }

    /// Lets a node work until nothing is left for now.
    pub(crate) fn turn(&mut self, id: NodeId) {
        let (now, wall) = (self.now, self.wall(id));
        let life = self.nodes[&id].life;
        for _ in 0..TURNS_MAX {
            let Some(up) = &mut self.node(id).up else {
                return;
            };
            let (mut out, mut routed) = (Vec::new(), Vec::new());
            up.shard.poll(now, wall, &mut out);
            up.router.poll(&mut routed);
            let is_behind = up.shard.next_timeout().is_some_and(|due| due <= now);
            if out.is_empty() && routed.is_empty() && !is_behind {
                return self.after_turn(id);
            }
            if is_behind {
                self.hand(id, life, Input::Tick);
            }
            // What a process wanted ends with it: the disk may fail at any output.
            for output in out {
                if self.nodes[&id].life == life {
                    self.perform(id, output);
                }
            }
            for output in routed {
                if self.nodes[&id].life == life {
                    self.route(id, output);
                }
            }
            if self.nodes[&id].life != life {
                return;
            }
        }
        self.fail(format!("{id} has work for ever"));
    }

    fn after_turn(&mut self, id: NodeId) {
        let (now, life) = (self.now, self.nodes[&id].life);
        let begins = self.node(id).up.as_mut().is_some_and(|up| up.log.begin());
        if begins {
            let us = self.net_dice.between(5, 50);
            self.after_us(us, Event::LogWrite(id, life));
        }
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let due = up.router.next_timeout();
        if let Some(due) = due.filter(|due| up.router_timer.is_none_or(|armed| *due < armed)) {
            up.router_timer = Some(due);
            self.at(due.max(now), Event::RouterTimer(id, life));
        }
    }

    pub(crate) fn shard_timer(&mut self, id: NodeId) {
        self.input(id, Input::Tick);
        self.arm(id);
    }

    /// Waits for the shard's next timeout.
    pub(crate) fn arm(&mut self, id: NodeId) {
        let (now, life) = (self.now, self.nodes[&id].life);
        let due = self.nodes[&id]
            .up
            .as_ref()
            .and_then(|up| up.shard.next_timeout());
        if let Some(due) = due {
            self.at(due.max(now), Event::ShardTimer(id, life));
        }
    }

    pub(crate) fn router_timer(&mut self, id: NodeId) {
        let now = self.now;
        if let Some(up) = &mut self.node(id).up {
            up.router_timer = None;
            up.router.on_timeout(now);
        }
        self.turn(id);
    }

    fn perform(&mut self, id: NodeId, output: Output) {
        let life = self.nodes[&id].life;
        match output {
            Output::Persist(mark, records) => {
                if let Some(up) = &mut self.node(id).up {
                    up.log.push(mark, records);
                }
            }
            Output::Send(to, message, after) => {
                let up = self.node(id).up.as_mut();
                if let Some(message) = up.and_then(|up| up.log.hold(to, message, after)) {
                    self.send_raft(id, to, message);
                }
            }
            Output::Committed(group, index, effects) => {
                self.note(format_args!("{id} committed {group} {index} {effects:?}"));
                let us = self.net_dice.between(10, 500);
                let event = Event::Deliver {
                    at: (id, life),
                    group,
                    effects,
                };
                self.after_us(us, event);
            }
            Output::Read(ticket, view, query) => {
                let us = self.net_dice.between(10, 3_000);
                let event = Event::Read {
                    at: (id, life),
                    ticket,
                    view,
                    query,
                };
                self.after_us(us, event);
            }
            Output::Reply(ticket, result) => self.reply(id, ticket, result),
            Output::Ask(ticket, query) => {
                let (origin, request) = (Origin::Ask(ticket), Request::Query(query));
                self.submit(id, None, origin, request, Retry::IfIdempotent, ASK_MS);
            }
            Output::Outbox(group, key, inbox) => {
                let origin = Origin::Outbox { group, key };
                self.note(format_args!("{id} owes {group} {key:?} {inbox:?}"));
                if self.plan.plant == Plant::LoseOutbox && self.dice.chance(10) {
                    return self.done(id, origin, Ok(Reply::Done));
                }
                let request = Request::Write(Box::new(Write::Inbox(inbox)));
                self.submit(id, None, origin, request, Retry::IfIdempotent, OUTBOX_MS);
            }
            Output::Frozen(parts) => self.frozen(id, parts),
            Output::ReadLog {
                replica,
                first,
                last,
                bytes,
            } => {
                let us = self.net_dice.between(10, 3_000);
                let wanted = (replica, first, last, bytes);
                self.after_us(us, Event::ReadLog(id, life, wanted));
            }
            Output::Release(replica, index, term) => {
                self.note(format_args!("{id} releases {replica} up to {index}"));
                let up = self.node(id).up.as_mut();
                let released = up.map(|up| up.log.release(replica, index, term));
                if let Some(Err(error)) = released {
                    self.disk_failed(id, &error);
                }
            }
            Output::Leader(group, term, leader) => {
                self.note(format_args!("{id} {group} term {term} led by {leader:?}"));
                if leader == Some(id) {
                    let known = *self.leaders.entry((group, term)).or_insert(id);
                    if known != id {
                        self.fail(format!("I-9: {known} and {id} lead {group} in term {term}"));
                    }
                }
                if let Some(up) = &mut self.node(id).up {
                    up.router.on_leader(group, term, leader);
                }
            }
            Output::Fault(group, cause) => self.group_fault(id, group, cause),
        }
    }

    fn group_fault(&mut self, id: NodeId, group: GroupId, cause: String) {
        self.note(format_args!("{id} {group} stops: {cause}"));
        if self.nodes[&id].disk.is_off() {
            self.power_loss(id);
        } else if self.nodes[&id].damaged {
            self.damage_found(id, cause);
        } else {
            self.fail(format!("{group} of {id} stopped: {cause}"));
        }
    }

    fn route(&mut self, id: NodeId, output: RouterOut<Origin>) {
        match output {
            RouterOut::ToShard(ticket, group, term, request) => {
                self.call_shard(id, Caller::Router(ticket), group, term, request);
            }
            RouterOut::ToPeer(node, ticket, group, term, request) => {
                let life = self.net.life(id, node);
                if let Some(up) = &mut self.node(id).up {
                    up.remote.insert(ticket, (node, life));
                }
                let request = request.encode();
                self.send(
                    id,
                    node,
                    Packet::Call {
                        ticket,
                        group,
                        term,
                        request,
                    },
                );
            }
            RouterOut::Done(origin, result) => self.done(id, origin, result),
        }
    }

    fn call_shard(
        &mut self,
        id: NodeId,
        caller: Caller,
        group: GroupId,
        term: Term,
        request: Request,
    ) {
        let life = self.nodes[&id].life;
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let ticket = up.ticket(caller);
        self.hand(id, life, Input::Call(ticket, group, Some(term), request));
    }

    /// A shard's call ended.
    fn reply(&mut self, id: NodeId, ticket: Ticket, result: Result<Reply, CallError>) {
        let now = self.now;
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        match up.callers.remove(&ticket) {
            None => self.fail(format!("{id} answered call {ticket} twice: {result:?}")),
            Some(Caller::Router(ticket)) => up.router.on_result(now, ticket, result),
            Some(Caller::Peer { node, life, ticket }) => {
                if self.net.life(id, node) == life {
                    let result = result.map(|reply| reply.encode());
                    self.send(id, node, Packet::Result { ticket, result });
                }
            }
        }
    }

    fn send_raft(&mut self, from: NodeId, to: NodeId, message: PeerMessage) {
        for us in self.net.datagram(&mut self.net_dice) {
            let packet = Packet::Raft(message.clone());
            let event = Event::Packet {
                from,
                to,
                life: None,
                packet,
            };
            self.after_us(us, event);
        }
    }

    /// Sends over the ordered link, or breaks it.
    fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        let now = self.now;
        match self.net.send(now, &mut self.net_dice, from, to) {
            Some((at, life)) => {
                let life = Some(life);
                self.at(
                    at,
                    Event::Packet {
                        from,
                        to,
                        life,
                        packet,
                    },
                );
            }
            None => self.break_link(from, to),
        }
    }

    /// Everything on the link is lost; both ends hear of it.
    pub(crate) fn break_link(&mut self, a: NodeId, b: NodeId) {
        let link = self.net.life(a, b);
        let known = Mono(self.now.0 + LINK_BROKEN_US);
        self.net.break_link(known, a, b);
        for (node, peer) in [(a, b), (b, a)] {
            let life = self.nodes[&node].life;
            let event = Event::LinkBroken {
                at: (node, life),
                peer,
                life: link,
            };
            self.after_us(LINK_BROKEN_US, event);
        }
    }

    /// Calls that were out over that life of the link have an unknown outcome.
    pub(crate) fn link_broken(&mut self, id: NodeId, peer: NodeId, link: u64) {
        let now = self.now;
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let lost: Vec<Ticket> = up
            .remote
            .iter()
            .filter(|(_, (node, life))| *node == peer && *life <= link)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in lost {
            up.remote.remove(&ticket);
            up.router
                .on_result(now, ticket, Err(CallError::Unknown(Why::Link)));
        }
        self.turn(id);
    }

    pub(crate) fn packet(&mut self, from: NodeId, to: NodeId, life: Option<u64>, packet: Packet) {
        if self.net.is_cut(from, to) {
            if life.is_some() {
                self.break_link(from, to);
            }
            return;
        }
        if life.is_some_and(|life| life != self.net.life(from, to)) {
            return;
        }
        if self.nodes[&to].up.is_none() {
            if life.is_some() {
                self.break_link(from, to);
            }
            return;
        }
        self.received(from, to, life.unwrap_or_default(), packet);
        self.turn(to);
    }

    fn received(&mut self, from: NodeId, to: NodeId, life: u64, packet: Packet) {
        let (now, own) = (self.now, self.nodes[&to].life);
        match packet {
            Packet::Raft(message) => self.hand(to, own, Input::Peer(from, message)),
            Packet::Call {
                ticket,
                group,
                term,
                request,
            } => match Request::decode(request) {
                Ok(request) => {
                    let node = from;
                    let caller = Caller::Peer { node, life, ticket };
                    self.call_shard(to, caller, group, term, request);
                }
                Err(error) => self.fail(format!("a request cannot be read: {error}")),
            },
            Packet::Result { ticket, result } => {
                let result = match result.map(Reply::decode) {
                    Ok(Ok(reply)) => Ok(reply),
                    Ok(Err(error)) => return self.fail(format!("a reply cannot be read: {error}")),
                    Err(error) => Err(error),
                };
                if let Some(up) = &mut self.node(to).up
                    && up.remote.remove(&ticket).is_some()
                {
                    up.router.on_result(now, ticket, result);
                }
            }
            Packet::Push {
                client,
                channel,
                seq,
                id,
            } => self.pushed(to, client, channel, seq, id),
        }
    }

    pub(crate) fn log_write(&mut self, id: NodeId) {
        let node = self.node(id);
        let (low, high) = node.sync_us;
        let life = node.life;
        let Some(up) = &mut node.up else {
            return;
        };
        match up.log.write() {
            Err(error) => self.disk_failed(id, &error),
            Ok(mark) => {
                let us = self.net_dice.between(low, high);
                self.after_us(us, Event::LogSync(id, life, mark));
                if self.plan.plant == Plant::AckBeforeFsync {
                    self.input(id, Input::Durable(mark));
                }
            }
        }
    }

    pub(crate) fn log_sync(&mut self, id: NodeId, mark: WalMark) {
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        if let Err(error) = up.log.sync(mark) {
            return self.disk_failed(id, &error);
        }
        let node = self.node(id);
        node.doubt = node.doubt.saturating_sub(1);
        // The shard first: a peer's answer must not overtake it.
        self.input(id, Input::Durable(mark));
        let released = self.node(id).up.as_mut().map(|up| up.log.released(mark));
        for (to, message) in released.unwrap_or_default() {
            self.send_raft(id, to, message);
        }
        let hash = self.nodes[&id].up.as_ref().map_or(0, |up| up.door.hash());
        self.note(format_args!("{id} synced {mark:?} disk {hash:x}"));
        self.after_turn(id);
    }

    pub(crate) fn read_log(
        &mut self,
        id: NodeId,
        (replica, first, last, bytes): (ReplicaId, LogIndex, LogIndex, usize),
    ) {
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let read = up.log.read(replica, first, last, bytes);
        self.note(format_args!("{id} reads {replica} {first}..={last}"));
        match read {
            Ok(entries) => self.input(id, Input::Log(replica, entries)),
            Err(wk_store::Error::Invalid(_)) => self.input(id, Input::Log(replica, Vec::new())),
            Err(error) => self.disk_failed(id, &error),
        }
    }

    /// A checkpoint begins.
    pub(crate) fn freeze(&mut self, id: NodeId) {
        let life = self.nodes[&id].life;
        let ms = self.dice.between(1, self.plan.checkpoint_ms);
        self.after_us(ms * 1_000, Event::Freeze(id, life));
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        if up.checkpoint.is_none() {
            up.checkpoint = Some(Vec::new());
            self.input(id, Input::Freeze);
        }
    }

    fn frozen(&mut self, id: NodeId, parts: Vec<Frozen>) {
        let life = self.nodes[&id].life;
        if self.plan.plant == Plant::ReleaseEarly {
            self.release_early(id);
        }
        if let Some(up) = &mut self.node(id).up {
            up.checkpoint = Some(parts);
        }
        let us = self.dice.between(100, 20_000);
        self.after_us(us, Event::Checkpoint(id, life));
    }

    fn release_early(&mut self, id: NodeId) {
        for group in crate::node::groups(&self.plan) {
            let Some(up) = &mut self.node(id).up else {
                return;
            };
            let replica = replica_id(group, id);
            let applied = up.shard.view(group).map(|view| view.applied());
            let Some(applied) = applied else { continue };
            if let Some(term) = up.log.term_of(replica, applied) {
                // The planted bug may fail as it likes.
                let _ = up.log.release(replica, applied, term);
            }
        }
    }

    pub(crate) fn checkpoint(&mut self, id: NodeId) {
        let life = self.nodes[&id].life;
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let Some(parts) = up.checkpoint.take() else {
            return;
        };
        match up.store.checkpoint(&parts, &mut Unlimited) {
            Ok(done) => {
                up.checkpoint_failures = 0;
                let hash = up.door.hash();
                self.note(format_args!("{id} checkpoint {done:?} disk {hash:x}"));
                let us = self.dice.between(10, 2_000);
                self.after_us(us, Event::Flushed(id, life, done));
                self.upkeep(id);
            }
            Err(error) => {
                up.checkpoint = Some(parts);
                up.checkpoint_failures += 1;
                let failures = up.checkpoint_failures;
                self.checkpoint_failed(id, failures, &error);
            }
        }
    }

    /// A full disk is waited for; after anything else, the store says no until a new process opens it.
    fn checkpoint_failed(&mut self, id: NodeId, failures: u32, error: &wk_store::Error) {
        let node = &self.nodes[&id];
        let life = node.life;
        let injected = node.may_fail() || failures > 1;
        if node.disk.is_off() || node.damaged || !injected {
            return self.disk_failed(id, error);
        }
        self.note(format_args!("{id} checkpoint failed: {error}"));
        if failures < CHECKPOINT_FAILURES_MAX {
            self.after_us(200_000, Event::Checkpoint(id, life));
        } else {
            self.kill(id);
        }
    }

    /// What a node does when nothing else is to be done: merges message files, prepares the log.
    fn upkeep(&mut self, id: NodeId) {
        let merges = self.dice.chance(50);
        let prepares = self.dice.chance(20);
        let Some(up) = &mut self.node(id).up else {
            return;
        };
        let merged = match merges {
            true => up.store.merge_step(&mut Unlimited),
            false => Ok(false),
        };
        let prepared = match prepares && merged.is_ok() {
            true => up.log.prepare(),
            false => Ok(false),
        };
        let is_full = self.nodes[&id].faults.capacity.is_some() && !self.nodes[&id].disk.is_off();
        match (merged, prepared) {
            (_, Err(error)) if is_storage_full(&error) => {
                self.fail(format!("{id} stops over what it need not write: {error}"));
            }
            // The log is dead after any error; a merge that finds no room is tried again later.
            (_, Err(error)) => self.disk_failed(id, &error),
            (Err(error), _) if !is_full => self.disk_failed(id, &error),
            _ => {}
        }
    }

    pub(crate) fn read(&mut self, id: NodeId, ticket: Ticket, view: &View, query: &Query) {
        match query.answer(view) {
            Ok(answer) => self.reply(id, ticket, Ok(Reply::Answer(Box::new(answer)))),
            Err(error) => {
                self.note(format_args!("{id} cannot read: {error}"));
                if self.nodes[&id].disk.is_off() {
                    self.power_loss(id);
                } else if self.nodes[&id].damaged {
                    self.damage_found(id, error.to_string());
                } else {
                    self.fail(format!("{id} cannot answer {query:?}: {error}"));
                }
            }
        }
        self.turn(id);
    }

    /// Sends what an entry caused to the receivers' nodes.
    pub(crate) fn deliver(&mut self, id: NodeId, group: GroupId, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Appended {
                channel,
                first,
                messages,
            } = effect
            {
                for (n, (record, _)) in messages.iter().enumerate() {
                    let seq = first.0 + n as u64;
                    self.push(id, group, &channel, seq, record.message_id());
                }
            }
        }
    }

    fn push(
        &mut self,
        from: NodeId,
        group: GroupId,
        channel: &ChannelKey,
        seq: u64,
        id: MessageId,
    ) {
        for client in self.recipients(from, group, channel) {
            let Some(conn) = self.clients.get(client).and_then(|c| c.conn) else {
                continue;
            };
            if conn.node == from {
                self.pushed(from, client, channel.clone(), seq, id);
                continue;
            }
            let packet = Packet::Push {
                client,
                channel: channel.clone(),
                seq,
                id,
            };
            self.send(from, conn.node, packet);
        }
    }

    fn recipients(&self, id: NodeId, group: GroupId, channel: &ChannelKey) -> Vec<usize> {
        let view = self.nodes[&id]
            .up
            .as_ref()
            .and_then(|up| up.shard.view(group));
        let members = view.and_then(|view| members(&channel.ordinary()).answer(&view).ok());
        let mut uids = implicit_recipients(channel);
        if let Some(wk_chat::Answer::Uids(members, _)) = members {
            uids.extend(members);
        }
        uids.iter().filter_map(client_of).collect()
    }

    fn pushed(&mut self, at: NodeId, client: usize, channel: ChannelKey, seq: u64, id: MessageId) {
        let client = &mut self.clients[client];
        if client.conn.is_some_and(|conn| conn.node == at) {
            client.received.push((channel, seq, id));
        }
    }
}

fn is_storage_full(error: &wk_store::Error) -> bool {
    let full = std::io::ErrorKind::StorageFull;
    matches!(error, wk_store::Error::Io { source, .. } if source.kind() == full)
}
