//! What peers say, handed to those it is for. Also what the beginning and the end of a connection mean to them.

use std::collections::BTreeSet;

use wk_chat::request::{CallError, Why};
use wk_chat::{KICK_TEXT, Reply, Request};
use wk_cluster::formation::{Event, LinkState};
use wk_cluster::{Liveness, PublishId};
use wk_proto::{ConnId, GroupId, NodeId, Term, Ticket};
use wk_replica::{Input, PeerMessage};

use super::hello::Purpose;
use super::mesh::Mesh;
use super::message::{Message, News, Push, SessionOp};
use super::outbox::LinkId;
use crate::hub::Wakes;
use crate::parts::Parts;
use crate::route::RouteInput;

/// What one connection has brought so far.
#[derive(Debug)]
pub(super) struct Intake {
    node: NodeId,
    link: LinkId,
    /// Its disk has a seat; otherwise it may only talk about forming a cluster.
    is_full: bool,
    /// It has said something in this batch.
    is_heard: bool,
    /// Sessions named since the peer began to list all of them.
    listed: Option<BTreeSet<ConnId>>,
    /// The list was complete once: from now on publications can be acknowledged.
    is_synced: bool,
    /// To acknowledge.
    applied: Option<PublishId>,
    /// Scratch: by shard.
    inputs: Vec<Vec<Input>>,
    news: Vec<RouteInput>,
    wakes: Wakes,
}

impl Intake {
    pub(super) fn new(node: NodeId, link: LinkId, is_full: bool, parts: &Parts) -> Self {
        Self {
            node,
            link,
            is_full,
            is_heard: false,
            listed: None,
            is_synced: false,
            applied: None,
            inputs: parts.inboxes.iter().map(|_| Vec::new()).collect(),
            news: Vec::new(),
            wakes: Wakes::default(),
        }
    }

    /// Takes what one read has brought, in order.
    pub(super) fn take(&mut self, parts: &Parts, messages: impl Iterator<Item = Message>) {
        for message in messages {
            self.is_heard = true;
            self.one(parts, message);
        }
        if std::mem::take(&mut self.is_heard) {
            parts.mesh.seen(self.node, parts.clock.now());
        }
        for (inputs, inbox) in self.inputs.iter_mut().zip(&parts.inboxes) {
            if !inputs.is_empty() && inbox.put(inputs) {
                inbox.wake();
            }
        }
        if let Some(id) = self.applied.take() {
            self.answer(parts, &Message::SessionsAck(id));
        }
        parts.route.report(&mut self.news, &mut self.wakes);
        parts.hub.wake(std::mem::take(&mut self.wakes));
    }

    fn one(&mut self, parts: &Parts, message: Message) {
        match message {
            Message::Form(message) => parts.former.tell(Event::Message(self.node, message)),
            _ if !self.is_full => {}
            Message::Raft(message) => self.raft(parts, &message),
            Message::Beat(offices) => {
                let news = parts.mesh.heard(self.node, offices, parts.clock.now());
                self.news.extend(news);
            }
            Message::Call(ticket, group, term, request) => {
                if let Err(error) = self.call(parts, ticket, (group, term), request) {
                    parts.mesh.answer(self.node, self.link, ticket, &Err(error));
                }
            }
            Message::Reply(ticket, outcome) => {
                parts.mesh.resolved(self.node, ticket);
                let outcome = outcome.and_then(|reply| {
                    // What cannot be read may have had its effect.
                    Reply::decode(reply).map_err(|_| CallError::Unknown(Why::Link))
                });
                self.news.push(RouteInput::Result(ticket, outcome));
            }
            Message::SessionsBegin => self.listed = Some(BTreeSet::new()),
            Message::Sessions(ops) => ops.into_iter().for_each(|op| self.session(parts, op)),
            Message::SessionsEnd(id) => {
                let listed = self.listed.take().unwrap_or_default();
                parts
                    .presence
                    .peer_has(self.node, |conn| listed.contains(&conn));
                self.is_synced = true;
                self.applied = Some(id);
            }
            Message::SessionsAck(id) => {
                parts.presence.peer_knows(self.node, id, &mut self.wakes);
            }
            Message::Push(push) => self.push(parts, &push),
            Message::News(id, news) => {
                self.learn(parts, news);
                self.answer(parts, &Message::NewsAck(id));
            }
            Message::NewsAck(id) => self.news.extend(parts.mesh.acknowledged(self.node, id)),
            Message::Unknown => {}
        }
    }

    fn answer(&self, parts: &Parts, message: &Message) {
        if let Some(peer) = parts.mesh.peer(self.node) {
            peer.outbox(Purpose::Calls)
                .put_on(self.link, message.encode());
        }
    }

    fn raft(&mut self, parts: &Parts, message: &PeerMessage) {
        for (shard, part) in message.split(|group| parts.route.shard_of(group)) {
            self.inputs[shard].push(Input::Peer(self.node, part));
        }
    }

    /// No second hop: if this node does not lead the group, the caller hears so.
    fn call(
        &mut self,
        parts: &Parts,
        ticket: Ticket,
        (group, term): (GroupId, Term),
        request: bytes::Bytes,
    ) -> Result<(), CallError> {
        let request = Request::decode(request).map_err(|_| CallError::NotSent(Why::Faulty))?;
        if request.group(parts.config.policy.slot_count) != group {
            return Err(CallError::NotSent(Why::Faulty));
        }
        parts.gate.check(&request)?;
        let taken = parts.mesh.take_call(self.node, self.link, ticket);
        let ticket = taken.map_err(CallError::NotSent)?;
        let shard = parts.route.shard_of(group);
        self.inputs[shard].push(Input::Call(ticket, group, Some(term), request));
        Ok(())
    }

    fn session(&mut self, parts: &Parts, op: SessionOp) {
        match op {
            SessionOp::Add(id, uid, entry) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(entry.session.conn);
                }
                parts.presence.peer_adds(&uid, entry, &mut self.wakes);
                if self.is_synced {
                    self.applied = self.applied.max(Some(id));
                }
            }
            SessionOp::Remove(uid, conn) => {
                if let Some(listed) = &mut self.listed {
                    listed.remove(&conn);
                }
                parts.presence.peer_removes(self.node, &uid, conn);
            }
        }
    }

    fn push(&mut self, parts: &Parts, push: &Push) {
        for id in &push.conns {
            let Some(conn) = parts.hub.get(*id) else {
                continue;
            };
            let own = Some(parts.presence.reference(*id));
            let wanted = push.messages.iter().filter(|m| m.origin != own);
            conn.deliver(wanted.map(|m| &m.delivery), &mut self.wakes);
        }
    }

    fn learn(&mut self, parts: &Parts, news: News) {
        match news {
            News::Kick {
                uid,
                device_flag,
                has_text,
                delay_ms,
            } => {
                let text = if has_text { KICK_TEXT } else { "" };
                let presence = &parts.presence;
                presence.kick_user(&uid, device_flag, text, delay_ms, &mut self.wakes);
            }
            News::SendBan { uid, on } => parts.presence.send_ban(&uid, on, &mut self.wakes),
            News::SystemUids(uids) => parts.rules.system_uids_are(&uids),
        }
    }
}

/// What was found out about the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met {
    /// A run of the peer's process that was not known.
    pub(super) is_new: bool,
    /// Its disk has a seat.
    pub(super) is_full: bool,
}

/// A connection begins.
pub(super) fn opened(parts: &Parts, node: NodeId, purpose: Purpose, link: LinkId, met: Met) {
    let Some(peer) = parts.mesh.peer(node) else {
        return;
    };
    let _changing = peer.changing.lock();
    if let Some(old) = peer.outbox(purpose).link() {
        end(parts, node, purpose, old);
    }
    if met.is_new {
        // Numbers of connections start again with every run: what is known of the earlier one must not be used any more.
        parts.presence.peer_has(node, |_| false);
    }
    peer.outbox(purpose).open(link);
    if purpose == Purpose::Calls {
        peer.set_full(met.is_full);
        linked(parts, node, LinkState::Connected, None);
    }
    if purpose == Purpose::Calls && met.is_full {
        // It may deliver from now on: new sessions wait for it to know them.
        parts.mesh.is_back(node);
        let mut wakes = Wakes::default();
        parts.presence.peer_is(node, Liveness::Unknown, &mut wakes);
        parts.hub.wake(wakes);
        parts.presence.tell_all(|message| {
            peer.outbox(purpose).put_always(message.encode());
        });
        parts.mesh.announce_again(node);
        if parts.leads(GroupId::Control) && parts.rules.is_complete() {
            let policy = parts.rules.get();
            let uids = policy.system_uids.iter().cloned().collect();
            let news = Message::News(0, News::SystemUids(uids));
            peer.outbox(purpose).put_always(news.encode());
        }
        parts.route.link(node, true);
    }
    tracing::debug!(%node, ?purpose, "connected");
}

/// How the link to a peer is now.
pub(super) fn linked(parts: &Parts, node: NodeId, state: LinkState, error: Option<String>) {
    if let Some(news) = parts.mesh.set_state(node, state, error) {
        parts.former.tell(Event::Link(node, news));
    }
}

/// A connection ended.
pub(super) fn closed(parts: &Parts, node: NodeId, purpose: Purpose, link: LinkId) {
    let Some(peer) = parts.mesh.peer(node) else {
        return;
    };
    let _changing = peer.changing.lock();
    end(parts, node, purpose, link);
}

fn end(parts: &Parts, node: NodeId, purpose: Purpose, link: LinkId) {
    let mesh: &Mesh = &parts.mesh;
    let Some(unsent) = mesh
        .peer(node)
        .and_then(|peer| peer.outbox(purpose).close(link))
    else {
        return;
    };
    tracing::debug!(%node, ?purpose, "disconnected");
    if purpose == Purpose::Calls {
        linked(parts, node, LinkState::Unreachable, None);
        parts.route.link(node, false);
        let mut ended = mesh.lost_calls(node, &unsent);
        let mut wakes = Wakes::default();
        parts.route.report(&mut ended, &mut wakes);
        parts.hub.wake(wakes);
    }
}
