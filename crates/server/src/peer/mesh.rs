//! The way out to the other nodes: their connections' queues, and what is known of them. Nothing here waits.
//!
//! A call's result comes back over the connection that took the call, or the loss of that connection is the result: what was not
//! written had no effect, of the rest nobody knows (D7).
//!
//! Lock order: whatever the caller holds → a peer's calls → its outbox. Tables here are leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;
use wk_chat::Request;
use wk_chat::request::{CallError, Why};
use wk_cluster::Liveness;
use wk_cluster::formation::{self, LinkNews, LinkState};
use wk_proto::{ConnId, GroupId, Mono, NodeId, Term, Ticket};
use wk_replica::PeerMessage;

use super::hello::{Purpose, Refusal};
use super::message::{Message, News, Push, SessionOp};
use super::outbox::{Full, LinkId, Outbox};
use crate::delivery::Outgoing;
use crate::limits::{
    CALL_FRAMES_MAX, CALL_LINK_BYTES_MAX, NEWS_PENDING_MAX, NEWS_WAIT_MS, PEER_ALIVE_MS,
    PEER_CALLS_MAX, PEER_GONE_MS, PUSH_BYTES_TARGET, PUSH_CONNS_MAX, RAFT_FRAMES_MAX,
    RAFT_LINK_BYTES_MAX,
};
use crate::route::{Outcome, RouteInput};

/// Set in the tickets of calls that came from peers.
const FOREIGN: u64 = 1 << 63;

/// Who this process is to its peers.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) node: NodeId,
    pub(crate) cluster: u128,
    pub(crate) disk: u128,
    pub(crate) incarnation: u64,
    pub(crate) secret: Option<Vec<u8>>,
}

/// What is known of one peer.
#[derive(Debug)]
struct Known {
    disk: Option<u128>,
    incarnation: Option<u64>,
    last_seen: Mono,
    liveness: Liveness,
    /// Its disk has a seat: the connection is for everything, not only for forming.
    is_full: bool,
    news: LinkNews,
}

/// One other node.
#[derive(Debug)]
pub(super) struct Peer {
    /// As configured: looked up again for every attempt.
    pub(super) addr: String,
    raft: Outbox,
    calls: Outbox,
    known: Mutex<Known>,
    /// Calls on the connection in use, without a result.
    outstanding: Mutex<BTreeSet<Ticket>>,
    /// Ends the connections.
    pub(super) end: Notify,
    /// Lets the next attempt to connect come at once.
    pub(super) retry: Notify,
    /// Held while a connection takes over or ends.
    pub(super) changing: Mutex<()>,
}

impl Peer {
    pub(super) fn is_full(&self) -> bool {
        self.known.lock().is_full
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.known.lock().is_full = is_full;
    }

    pub(super) fn outbox(&self, purpose: Purpose) -> &Outbox {
        match purpose {
            Purpose::Raft => &self.raft,
            Purpose::Calls => &self.calls,
        }
    }
}

/// A call of a peer that a shard works on.
#[derive(Clone, Copy, Debug)]
struct Foreign {
    node: NodeId,
    link: LinkId,
    ticket: Ticket,
}

/// News on their way, and the answers that wait for them.
#[derive(Debug)]
struct Announced {
    news: News,
    waiting_for: BTreeSet<NodeId>,
    until: Mono,
    held: Vec<RouteInput>,
}

/// Who leads what, as told.
#[derive(Clone, Copy, Debug)]
struct Office {
    term: Term,
    node: NodeId,
    seen: Mono,
}

/// Connections of other nodes that get the same messages.
pub(crate) type Remote = BTreeMap<NodeId, Vec<ConnId>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) own: Own,
    peers: BTreeMap<NodeId, Peer>,
    next_link: AtomicU64,
    next_foreign: AtomicU64,
    /// Bounded by [`PEER_CALLS_MAX`].
    foreign: Mutex<HashMap<u64, Foreign>>,
    next_news: AtomicU64,
    news: Mutex<BTreeMap<u64, Announced>>,
    /// By group; one entry per group that exists.
    offices: Mutex<BTreeMap<GroupId, Office>>,
}

impl Mesh {
    pub(crate) fn new(own: Own, peers: BTreeMap<NodeId, String>, now: Mono) -> Self {
        let peers = peers.into_iter().map(|(node, addr)| {
            let peer = Peer {
                addr,
                raft: Outbox::new(Full::DropOldest, RAFT_LINK_BYTES_MAX, RAFT_FRAMES_MAX),
                calls: Outbox::new(Full::Refuse, CALL_LINK_BYTES_MAX, CALL_FRAMES_MAX),
                known: Mutex::new(Known {
                    disk: None,
                    incarnation: None,
                    last_seen: now,
                    liveness: Liveness::Unknown,
                    is_full: false,
                    news: LinkNews::default(),
                }),
                outstanding: Mutex::default(),
                end: Notify::new(),
                retry: Notify::new(),
                changing: Mutex::default(),
            };
            (node, peer)
        });
        Self {
            own,
            peers: peers.collect(),
            next_link: AtomicU64::new(1),
            next_foreign: AtomicU64::new(1),
            foreign: Mutex::default(),
            next_news: AtomicU64::new(1),
            news: Mutex::default(),
            offices: Mutex::default(),
        }
    }

    /// The mesh of a node without peers.
    #[cfg(test)]
    pub(crate) fn alone(node: NodeId) -> Self {
        let own = Own {
            node,
            cluster: 0,
            disk: 0,
            incarnation: 0,
            secret: None,
        };
        Self::new(own, BTreeMap::new(), Mono(0))
    }

    pub(crate) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    pub(super) fn new_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Relaxed))
    }

    /// A raft message; lost if there is no connection.
    pub(crate) fn raft(&self, node: NodeId, message: PeerMessage) {
        if let Some(peer) = self.peers.get(&node) {
            // Raft sends again.
            let _ = peer.raft.put(Message::Raft(message).encode(), None);
        }
    }

    /// Tells every peer what this node leads.
    pub(super) fn beat(&self, offices: Vec<(GroupId, Term)>) {
        let frame = Message::Beat(offices).encode();
        for peer in self.peers.values() {
            let _ = peer.raft.put(frame.clone(), None);
        }
    }

    /// Sends a call. Its result comes with the connection, unless this says that it did not leave.
    pub(crate) fn call(
        &self,
        node: NodeId,
        ticket: Ticket,
        (group, term): (GroupId, Term),
        request: &Request,
    ) -> Result<(), Why> {
        let peer = self.peers.get(&node).ok_or(Why::Link)?;
        let frame = Message::Call(ticket, group, term, request.encode()).encode();
        let mut outstanding = peer.outstanding.lock();
        peer.calls.put(frame, Some(ticket))?;
        outstanding.insert(ticket);
        Ok(())
    }

    /// The result of a call is here.
    pub(super) fn resolved(&self, node: NodeId, ticket: Ticket) {
        if let Some(peer) = self.peers.get(&node) {
            peer.outstanding.lock().remove(&ticket);
        }
    }

    /// The connection of a peer ended, with `unsent` never written: the ends of its calls.
    pub(super) fn lost_calls(&self, node: NodeId, unsent: &[Ticket]) -> Vec<RouteInput> {
        self.foreign.lock().retain(|_, call| call.node != node);
        let Some(peer) = self.peers.get(&node) else {
            return Vec::new();
        };
        let outstanding = std::mem::take(&mut *peer.outstanding.lock());
        let unsent: BTreeSet<_> = unsent.iter().collect();
        let ended = outstanding.into_iter().map(|ticket| {
            let error = if unsent.contains(&ticket) {
                CallError::NotSent(Why::Link)
            } else {
                CallError::Unknown(Why::Link)
            };
            RouteInput::Result(ticket, Err(error))
        });
        ended.collect()
    }

    /// Takes a call of a peer: its name here.
    pub(super) fn take_call(
        &self,
        node: NodeId,
        link: LinkId,
        ticket: Ticket,
    ) -> Result<Ticket, Why> {
        let mut foreign = self.foreign.lock();
        if foreign.len() >= PEER_CALLS_MAX {
            return Err(Why::Busy);
        }
        let number = self.next_foreign.fetch_add(1, Relaxed);
        foreign.insert(number, Foreign { node, link, ticket });
        Ok(Ticket(FOREIGN | number))
    }

    pub(crate) fn is_foreign(ticket: Ticket) -> bool {
        ticket.0 & FOREIGN != 0
    }

    /// The result of a call that came from a peer.
    pub(crate) fn reply(&self, ticket: Ticket, outcome: &Outcome) {
        let call = self.foreign.lock().remove(&(ticket.0 & !FOREIGN));
        let Some(call) = call else {
            return;
        };
        self.answer(call.node, call.link, call.ticket, outcome);
    }

    pub(super) fn answer(&self, node: NodeId, link: LinkId, ticket: Ticket, outcome: &Outcome) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let outcome = match outcome {
            Ok(reply) => Ok(reply.encode()),
            // This node's farewell is no reason for the caller to give up.
            Err(CallError::NotSent(Why::Draining)) => Err(CallError::NotSent(Why::NotLeader)),
            Err(error) => Err(*error),
        };
        let frame = Message::Reply(ticket, outcome).encode();
        let frame = if frame.len() > super::frame::BODY_BYTES_MAX {
            Message::Reply(ticket, Err(CallError::NotSent(Why::Faulty))).encode()
        } else {
            frame
        };
        // Bounded by the calls that were taken.
        peer.calls.put_on(link, frame);
    }

    /// Tells every connected peer of a change of this node's sessions. A peer that cannot keep up is cut off; it gets all of them
    /// when it is back.
    pub(crate) fn session(&self, op: SessionOp) {
        if self.peers.is_empty() {
            return;
        }
        let frame = Message::Sessions(vec![op]).encode();
        for peer in self.peers.values().filter(|peer| peer.is_full()) {
            if peer.calls.put(frame.clone(), None) == Err(Why::Busy) {
                peer.end.notify_waiters();
            }
        }
    }

    /// Messages for connections of other nodes. The number that could not be sent.
    pub(crate) fn push(&self, remote: Remote, messages: &[Outgoing]) -> usize {
        let mut lost = 0;
        for (node, conns) in remote {
            let Some(peer) = self.peers.get(&node) else {
                continue;
            };
            for messages in portions(messages) {
                for conns in conns.chunks(PUSH_CONNS_MAX) {
                    let push = Push {
                        conns: conns.to_vec(),
                        messages: messages.to_vec(),
                    };
                    if peer.calls.put(Message::Push(push).encode(), None).is_err() {
                        lost += messages.len();
                    }
                }
            }
        }
        lost
    }

    /// Sends news to every node that may have sessions. The number under which answers can wait for them; `None`: nobody to wait for.
    pub(crate) fn announce(&self, news: News, now: Mono) -> Option<u64> {
        let waiting_for: BTreeSet<NodeId> = self.present().collect();
        if waiting_for.is_empty() {
            return None;
        }
        let id = self.next_news.fetch_add(1, Relaxed);
        let frame = Message::News(id, news.clone()).encode();
        let mut pending = self.news.lock();
        if pending.len() >= NEWS_PENDING_MAX {
            pending.pop_first();
        }
        for node in &waiting_for {
            if let Some(peer) = self.peers.get(node) {
                // Without a connection it goes with the next.
                let _ = peer.calls.put(frame.clone(), None);
            }
        }
        let announced = Announced {
            news,
            waiting_for,
            until: now.plus_ms(NEWS_WAIT_MS),
            held: Vec::new(),
        };
        pending.insert(id, announced);
        Some(id)
    }

    /// Lets answers wait until the news arrived everywhere, at most [`NEWS_WAIT_MS`]. They come back if that has happened.
    pub(crate) fn hold(&self, id: u64, mut answers: Vec<RouteInput>) -> Vec<RouteInput> {
        match self.news.lock().get_mut(&id) {
            Some(announced) => announced.held.append(&mut answers),
            None => return answers,
        }
        Vec::new()
    }

    /// A peer has seen the news: answers that need not wait any more.
    pub(super) fn acknowledged(&self, node: NodeId, id: u64) -> Vec<RouteInput> {
        let mut pending = self.news.lock();
        let Some(announced) = pending.get_mut(&id) else {
            return Vec::new();
        };
        announced.waiting_for.remove(&node);
        if !announced.waiting_for.is_empty() {
            return Vec::new();
        }
        let announced = pending.remove(&id);
        announced.map_or_else(Vec::new, |announced| announced.held)
    }

    /// News that a peer may not have, over its new connection.
    pub(super) fn announce_again(&self, node: NodeId) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        for (id, announced) in self.news.lock().iter() {
            if announced.waiting_for.contains(&node) {
                let frame = Message::News(*id, announced.news.clone()).encode();
                peer.calls.put_always(frame);
            }
        }
    }

    /// Answers that have waited long enough, or for peers that are gone.
    pub(super) fn overdue(&self, now: Mono) -> Vec<RouteInput> {
        let present: BTreeSet<NodeId> = self.present().collect();
        let mut answers = Vec::new();
        self.news.lock().retain(|_, announced| {
            announced.waiting_for.retain(|node| present.contains(node));
            let is_done = announced.waiting_for.is_empty();
            if is_done || announced.until <= now {
                answers.append(&mut announced.held);
            }
            !is_done
        });
        answers
    }

    /// Whether some peer could take over what this node leads.
    pub(crate) fn is_anybody_here(&self) -> bool {
        self.peers.values().any(|peer| {
            let known = peer.known.lock();
            known.is_full && known.liveness == Liveness::Alive
        })
    }

    /// Peers that are not known to be gone.
    fn present(&self) -> impl Iterator<Item = NodeId> {
        let present = |peer: &Peer| {
            let known = peer.known.lock();
            known.is_full && known.liveness != Liveness::Gone
        };
        let peers = self.peers.iter().filter(move |(_, peer)| present(peer));
        peers.map(|(node, _)| *node)
    }

    /// A peer's heartbeat: the offices that are news.
    pub(super) fn heard(
        &self,
        node: NodeId,
        told: Vec<(GroupId, Term)>,
        now: Mono,
    ) -> Vec<RouteInput> {
        let mut offices = self.offices.lock();
        let mut news = Vec::new();
        for (group, term) in told {
            let known = offices.get(&group).map(|o| (o.term, o.node));
            if known.is_some_and(|(newest, _)| newest > term) {
                continue;
            }
            let seen = now;
            offices.insert(group, Office { term, node, seen });
            if known != Some((term, node)) {
                news.push(RouteInput::Leader(group, term, Some(node)));
            }
        }
        news
    }

    /// The peer that has said lately that it leads the group.
    pub(crate) fn leader(&self, group: GroupId, now: Mono) -> Option<(NodeId, Term)> {
        let office = self.offices.lock().get(&group).copied()?;
        let is_fresh = now < office.seen.plus_ms(PEER_GONE_MS);
        is_fresh.then_some((office.node, office.term))
    }

    /// A message about forming a cluster.
    pub(crate) fn form(&self, node: NodeId, message: &formation::Message) {
        if let Some(peer) = self.peers.get(&node) {
            // It is sent again.
            let frame = Message::Form(message.clone()).encode();
            let _ = peer.calls.put(frame, None);
        }
    }

    /// Other disks have seats: connections that are now for more, or for nothing, begin anew.
    pub(crate) fn seats_changed(&self, is_seated: impl Fn(NodeId, u128) -> bool) {
        for (node, peer) in &self.peers {
            let (disk, is_full) = {
                let known = peer.known.lock();
                (known.disk, known.is_full)
            };
            if disk.is_some_and(|disk| is_seated(*node, disk) != is_full) {
                peer.end.notify_waiters();
                peer.retry.notify_waiters();
            }
        }
    }

    /// A peer has said something.
    pub(super) fn seen(&self, node: NodeId, now: Mono) {
        if let Some(peer) = self.peers.get(&node) {
            peer.known.lock().last_seen = now;
        }
    }

    /// A peer that was gone has a connection again.
    pub(super) fn is_back(&self, node: NodeId) {
        if let Some(peer) = self.peers.get(&node) {
            peer.known.lock().liveness = Liveness::Unknown;
        }
    }

    /// What time says about the peers: changes only.
    pub(super) fn changes(&self, now: Mono) -> Vec<(NodeId, Liveness)> {
        let mut changes = Vec::new();
        for (node, peer) in &self.peers {
            let mut known = peer.known.lock();
            let is_silent = |ms| now >= known.last_seen.plus_ms(ms);
            let liveness = if is_silent(PEER_GONE_MS) {
                Liveness::Gone
            } else if is_silent(PEER_ALIVE_MS) || known.incarnation.is_none() {
                Liveness::Unknown
            } else {
                Liveness::Alive
            };
            if liveness != known.liveness {
                known.liveness = liveness;
                changes.push((*node, liveness));
            }
        }
        changes
    }

    /// Whether the process behind a hello may be this node; whether it is another run than the one known.
    pub(super) fn admit(
        &self,
        node: NodeId,
        disk: u128,
        incarnation: u64,
        now: Mono,
    ) -> Result<bool, Refusal> {
        let peer = self.peers.get(&node).ok_or(Refusal::IdConflict)?;
        let mut known = peer.known.lock();
        let is_other = known.disk.replace(disk) != Some(disk);
        let is_new = known.incarnation.replace(incarnation) != Some(incarnation) || is_other;
        known.last_seen = now;
        Ok(is_new)
    }

    /// How a link is, with the number of failures so far: what the formation is told.
    pub(super) fn set_state(
        &self,
        node: NodeId,
        state: LinkState,
        error: Option<String>,
    ) -> Option<LinkNews> {
        let mut known = self.peers.get(&node)?.known.lock();
        if known.news.state != state {
            tracing::info!(%node, state = state.name(), error, "peer");
        }
        let failed = u64::from(state != LinkState::Connected);
        known.news = LinkNews {
            state,
            error,
            attempts: known.news.attempts + failed,
            ..LinkNews::default()
        };
        Some(known.news.clone())
    }
}

/// Runs of messages of about [`PUSH_BYTES_TARGET`].
fn portions(messages: &[Outgoing]) -> impl Iterator<Item = &[Outgoing]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|message| {
            let first = bytes == 0;
            bytes += message.bytes();
            first || bytes <= PUSH_BYTES_TARGET
        });
        let (portion, more) = rest.split_at(fits.count());
        rest = more;
        (!portion.is_empty()).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(2);

    fn mesh() -> Mesh {
        let own = Own {
            node: NodeId(1),
            cluster: 1,
            disk: 1,
            incarnation: 1,
            secret: None,
        };
        Mesh::new(own, BTreeMap::from([(A, String::new())]), Mono(0))
    }

    fn query() -> Request {
        Request::Query(Box::new(wk_chat::Query::SystemUids))
    }

    fn results(inputs: Vec<RouteInput>) -> Vec<(u64, CallError)> {
        let inputs = inputs.into_iter();
        inputs
            .map(|input| match input {
                RouteInput::Result(ticket, Err(error)) => (ticket.0, error),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn a_broken_link_ends_every_call_and_knows_which_never_left() {
        let mesh = mesh();
        let call = |n| mesh.call(A, Ticket(n), (GroupId::Control, Term(1)), &query());
        assert_eq!(call(1), Err(Why::Link));
        let peer = mesh.peer(A).unwrap();
        peer.calls.open(LinkId(1));
        assert_eq!((call(2), call(3)), (Ok(()), Ok(())));
        mesh.resolved(A, Ticket(2));
        peer.calls.take(LinkId(1)).await.unwrap();
        assert_eq!(call(4), Ok(()));
        let unsent = peer.calls.close(LinkId(1)).unwrap();
        let ended = results(mesh.lost_calls(A, &unsent));
        let (unknown, not_sent) = (CallError::Unknown(Why::Link), CallError::NotSent(Why::Link));
        assert_eq!(ended, [(3, unknown), (4, not_sent)]);
    }

    #[test]
    fn answers_wait_for_the_news_but_not_for_ever() {
        let mesh = mesh();
        mesh.peer(A).unwrap().calls.open(LinkId(1));
        mesh.peer(A).unwrap().set_full(true);
        let news = || News::SystemUids([].into());
        let answer = || {
            let error = Err(CallError::NotSent(Why::Busy));
            vec![RouteInput::Result(Ticket(9), error)]
        };
        let id = mesh.announce(news(), Mono(0)).unwrap();
        assert!(mesh.hold(id, answer()).is_empty());
        assert_eq!(mesh.acknowledged(A, id).len(), 1);
        assert_eq!(mesh.hold(id, answer()).len(), 1, "nothing to wait for");

        let id = mesh.announce(news(), Mono(0)).unwrap();
        assert!(mesh.hold(id, answer()).is_empty());
        assert!(mesh.overdue(Mono(0)).is_empty());
        assert_eq!(mesh.overdue(Mono(0).plus_ms(NEWS_WAIT_MS)).len(), 1);
    }

    #[test]
    fn a_leader_is_believed_by_term_and_only_for_a_while() {
        let mesh = mesh();
        let told = |term| vec![(GroupId::Control, Term(term))];
        assert_eq!(mesh.heard(A, told(3), Mono(0)).len(), 1);
        assert!(mesh.heard(A, told(3), Mono(0)).is_empty(), "known");
        assert!(mesh.heard(A, told(2), Mono(0)).is_empty(), "older");
        let leader = mesh.leader(GroupId::Control, Mono(0));
        assert_eq!(leader, Some((A, Term(3))));
        let late = Mono(0).plus_ms(PEER_GONE_MS);
        assert_eq!(mesh.leader(GroupId::Control, late), None);
        assert_eq!(mesh.changes(late), [(A, Liveness::Gone)]);
        assert_eq!(mesh.announce(News::SystemUids([].into()), late), None);
    }

    #[test]
    fn another_run_or_disk_is_new_and_a_stranger_is_none() {
        let mesh = mesh();
        assert_eq!(mesh.admit(A, 5, 1, Mono(0)), Ok(true));
        assert_eq!(mesh.admit(A, 5, 1, Mono(0)), Ok(false));
        assert_eq!(mesh.admit(A, 5, 2, Mono(0)), Ok(true));
        assert_eq!(mesh.admit(A, 6, 2, Mono(0)), Ok(true));
        assert_eq!(
            mesh.admit(NodeId(7), 6, 3, Mono(0)),
            Err(Refusal::IdConflict)
        );
    }
}
