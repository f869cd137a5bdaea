//! The formation itself: what follows from what is known. How messages change what is known: [`super::talk`]; what is said about it:
//! [`super::readiness`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wk_chat::Write;
use wk_chat::control::ControlView;
use wk_proto::{GroupId, Mono, NodeId, SlotId};

use super::list::Pledge;
use super::message::Formed;
use super::peers::{Peer, other_disk};
use super::phases::Phases;
use super::placement;
use super::state::{
    ControlNews, Effect, Event, Held, Hold, LinkNews, Listeners, OwnReplica, Setup, SlotsNews,
};

/// How long a majority that is there waits for the rest before it promises, in ms: one of the rest may have formed long ago.
const GRACE_MS: u64 = 1_000;
/// How long the first leader waits for the disks of connected peers before it proposes `Genesis`, in ms; the others bind later.
const GENESIS_WAIT_MS: u64 = 1_000;
/// Between two proposals of the same thing, in ms.
const PROPOSE_AGAIN_MS: u64 = 2_000;
/// Between two requests to be bound, in ms.
pub(super) const BIND_AGAIN_MS: u64 = 500;
/// Between two looks at what time changes, in ms: while forming, and afterwards.
const TICK_MS: (u64, u64) = (100, 1_000);
/// Most texts remembered as logged. Reached, the oldest is forgotten, and logged again if it is still so.
const LOGGED_MAX: usize = 64;

/// One node's formation, from its start to its end.
#[derive(Debug)]
pub struct Formation {
    pub(super) setup: Setup,
    /// What is durable.
    pub(super) held: Held,
    /// What is on its way to the disk.
    persisting: Option<Held>,
    pub(super) peers: BTreeMap<NodeId, Peer>,
    pub(super) view: Option<Box<ControlView>>,
    pub(super) control: ControlNews,
    pub(super) slots: SlotsNews,
    pub(super) listeners: Listeners,
    pub(super) all_open: bool,
    pub(super) holds: BTreeSet<Hold>,
    pub(super) phases: Phases,
    pub(super) began: Mono,
    /// Why nothing goes on without an operator.
    pub(super) blocked: Option<String>,
    /// What is odd about the configuration.
    pub(super) warnings: Vec<String>,
    /// What the log has: it is not told again and again.
    logged: VecDeque<String>,
    /// It is part of a cluster that others founded.
    pub(super) joining: bool,
    /// A cluster that said this disk is bound.
    pub(super) bound_to: Option<u128>,
    /// Clients could be taken before: fewer slots are enough to go on.
    pub(super) served: bool,
    control_asked: bool,
    control_started: bool,
    slots_asked: bool,
    pub(super) slots_started: bool,
    majority_since: Option<Mono>,
    leading_since: Option<Mono>,
    propose_due: Mono,
    bind_due: Mono,
    bind_turn: usize,
    /// Binds proposed for others: answered when they are decided, proposed again not before this time. One per listed node.
    pub(super) binding: BTreeMap<NodeId, (u128, Mono)>,
    next_tick: Mono,
    gave_up: bool,
    pub(super) effects: VecDeque<Effect>,
}

impl Formation {
    /// Begins, or goes on where the directory says. The first effects are there at once.
    pub fn new(setup: Setup, now: Mono) -> Self {
        let held = setup.held.clone();
        let mut this = Self {
            peers: peers_of(&setup),
            warnings: setup.list.warnings.clone(),
            logged: VecDeque::new(),
            setup,
            held,
            persisting: None,
            view: None,
            control: ControlNews::default(),
            slots: SlotsNews::default(),
            listeners: Listeners::default(),
            all_open: false,
            holds: BTreeSet::new(),
            phases: Phases::new(now),
            began: now,
            blocked: None,
            joining: false,
            bound_to: None,
            served: false,
            control_asked: false,
            control_started: false,
            slots_asked: false,
            slots_started: false,
            majority_since: None,
            leading_since: None,
            propose_due: now,
            bind_due: now,
            bind_turn: 0,
            binding: BTreeMap::new(),
            next_tick: now,
            gave_up: false,
            effects: VecDeque::new(),
        };
        this.compare_lists();
        for text in this.warnings.clone() {
            this.warn(text);
        }
        this.advance(now);
        this
    }

    /// What is held wins over what is configured; the operator is told.
    fn compare_lists(&mut self) {
        let configured = &self.setup.pledge;
        if let Held::Voting { pledge, .. } | Held::Formed { pledge, .. } = &self.held
            && pledge != configured
        {
            let text = format!(
                "this node's cluster was founded as {pledge}; the configuration says {configured}, which changes nothing: nodes cannot be added this way yet, and slots are for ever"
            );
            self.warnings.push(text);
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, event: Event, now: Mono) {
        match event {
            Event::Link(node, news) => self.on_link(node, news, now),
            Event::Message(node, message) => self.on_message(node, message, now),
            Event::Persisted => self.on_persisted(now),
            Event::ControlStarted => self.control_started = true,
            Event::Control(news) => self.on_control(news, now),
            Event::Cluster(view) => self.on_cluster(view),
            Event::Bound { node, uuid, result } => self.on_bound(node, uuid, result),
            Event::SlotsStarted => self.slots_started = true,
            Event::Slots(news) => self.slots = news,
            Event::Phase(phase, state) => self.set_phase(phase, state, now),
            Event::Listeners { open, all_open } => {
                self.listeners = open;
                self.all_open = all_open;
            }
            Event::Hold(hold, true) => {
                self.holds.insert(hold);
            }
            Event::Hold(hold, false) => {
                self.holds.remove(&hold);
            }
        }
        self.advance(now);
    }

    /// Lets time pass: call at [`Self::deadline`].
    pub fn tick(&mut self, now: Mono) {
        self.advance(now);
    }

    /// When [`Self::tick`] is due.
    pub fn deadline(&self) -> Mono {
        self.next_tick
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What is durable of this node's formation.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The cluster as last seen in the state.
    pub fn cluster(&self) -> Option<&ControlView> {
        self.view.as_deref()
    }

    /// Where each peer is said to be, `host:port`: as configured, or else as the cluster has it. Again after [`Event::Cluster`]: a
    /// node of a cluster needs no list.
    pub fn addresses(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let peers = self.peers.iter().map(|(node, p)| (*node, p.addr.as_str()));
        peers.filter(|(_, addr)| !addr.is_empty())
    }

    pub(super) fn pledge(&self) -> &Pledge {
        self.held.pledge().unwrap_or(&self.setup.pledge)
    }

    pub(super) fn seats(&self) -> Option<&BTreeMap<NodeId, u128>> {
        match &self.held {
            Held::Voting { seats, .. } | Held::Formed { seats, .. } => Some(seats),
            Held::Fresh | Held::Promised(_) => None,
        }
    }

    pub(super) fn seat(&self, node: NodeId) -> Option<u128> {
        self.seats()?.get(&node).copied()
    }

    pub(super) fn warn(&mut self, text: String) {
        if self.logged.contains(&text) {
            return;
        }
        if self.logged.len() == LOGGED_MAX {
            self.logged.pop_front();
        }
        self.logged.push_back(text.clone());
        self.effects.push_back(Effect::Warn(text));
    }

    fn on_link(&mut self, node: NodeId, news: LinkNews, now: Mono) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let was = peer.is_connected();
        peer.news = news;
        if peer.is_connected() && !was {
            peer.next_probe = now;
            self.greet(node);
        }
    }

    fn on_control(&mut self, news: ControlNews, now: Mono) {
        self.control = news;
        if news.leader == Some(self.setup.node) {
            self.leading_since.get_or_insert(now);
        } else {
            self.leading_since = None;
        }
    }

    fn on_persisted(&mut self, now: Mono) {
        let Some(held) = self.persisting.take() else {
            return;
        };
        let seats = self.seats().cloned();
        self.held = held;
        if seats.as_ref() != self.seats() {
            self.effects.push_back(Effect::SeatsChanged);
        }
        for peer in self.peers.values_mut() {
            peer.next_probe = now;
        }
        if matches!(self.held, Held::Formed { .. }) {
            self.greet_all();
        }
    }

    fn on_cluster(&mut self, view: Box<ControlView>) {
        for (node, peer) in &mut self.peers {
            if peer.addr.is_empty() {
                peer.addr = view
                    .member(*node)
                    .map_or_else(String::new, |m| m.addr.clone());
            }
        }
        let first = self.view.replace(view).is_none();
        if first {
            self.greet_all();
        }
    }

    fn greet_all(&mut self) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|node| self.greet(node));
    }

    /// One at a time: what comes meanwhile follows from what is durable then.
    fn persist(&mut self, held: Held) {
        if self.persisting.is_none() && held != self.held {
            self.persisting = Some(held.clone());
            self.effects.push_back(Effect::Persist(held));
        }
    }

    /// Everything that follows from what is known now.
    fn advance(&mut self, now: Mono) {
        self.blocked = None;
        match &self.held {
            Held::Fresh | Held::Promised(_) => self.agree(now),
            Held::Voting { .. } | Held::Formed { .. } => self.take_part(now),
        }
        if let Some(text) = self.blocked.clone() {
            self.warn(text);
        }
        self.probe(now);
        self.progress(now);
        self.give_up(now);
        let (forming, settled) = TICK_MS;
        let every = if self.served { settled } else { forming };
        self.next_tick = now.plus_ms(every);
    }

    /// Before anything of the control group is here.
    fn agree(&mut self, now: Mono) {
        match self.found_cluster() {
            Ok(Some(formed)) => return self.join(&formed, now),
            Ok(None) => {}
            Err(text) => {
                self.blocked = Some(text);
                return;
            }
        }
        if let Some(seed) = &self.setup.seed {
            self.blocked = Some(format!(
                "waiting to be joined: cluster.seed ({seed}) is not supported yet; list all founding nodes in cluster.initNodes"
            ));
        } else if matches!(self.held, Held::Fresh) {
            self.promise(now);
        } else {
            self.vote();
        }
    }

    /// The cluster that listed peers say there is, if this node is one of its members.
    fn found_cluster(&self) -> Result<Option<Formed>, String> {
        let mut found: Option<&Formed> = None;
        for formed in self.peers.values().filter_map(|p| p.formed.as_ref()) {
            match found {
                Some(first) if first.cluster_id != formed.cluster_id => {
                    return Err(format!(
                        "listed nodes {} and {} are parts of different clusters ({:032x} and {:032x}): correct cluster.initNodes",
                        first.status.node, formed.status.node, first.cluster_id, formed.cluster_id
                    ));
                }
                _ => found = Some(formed),
            }
        }
        let Some(formed) = found else {
            return Ok(None);
        };
        if formed
            .members
            .iter()
            .any(|(node, _)| *node == self.setup.node)
        {
            return Ok(Some(formed.clone()));
        }
        Err(format!(
            "node {} is part of cluster {:032x}, which was founded without node {}: nodes cannot be added yet; this node waits. \
             To found a new cluster of all listed nodes, empty their data directories",
            formed.status.node, formed.cluster_id, self.setup.node
        ))
    }

    /// Binds this disk in a cluster that exists, then takes part in it.
    fn join(&mut self, formed: &Formed, now: Mono) {
        self.joining |= !matches!(self.held, Held::Voting { .. });
        let node = self.setup.node;
        let bound = formed.members.iter().find(|(member, _)| *member == node);
        match bound.and_then(|(_, uuid)| *uuid) {
            Some(uuid) if uuid == self.setup.disk_uuid => {}
            Some(uuid) => {
                self.blocked = Some(other_disk(node, uuid, self.setup.disk_uuid));
                return;
            }
            None if self.bound_to == Some(formed.cluster_id) => {}
            None => return self.ask_to_bind(now),
        }
        let mut seats = self.seats().cloned().unwrap_or_default();
        seats.extend(formed.members.iter().filter_map(|(n, u)| Some((*n, (*u)?))));
        seats.insert(node, self.setup.disk_uuid);
        self.persist(Held::Voting {
            pledge: formed.pledge.clone(),
            seats,
        });
    }

    /// Asks one formed peer after the other.
    fn ask_to_bind(&mut self, now: Mono) {
        if now < self.bind_due {
            return;
        }
        let formed = self.peers.iter();
        let formed = formed.filter(|(_, p)| p.is_connected() && p.formed.is_some());
        let formed: Vec<_> = formed.map(|(node, _)| *node).collect();
        if formed.is_empty() {
            return;
        }
        self.bind_due = now.plus_ms(BIND_AGAIN_MS);
        self.bind_turn = self.bind_turn.wrapping_add(1);
        self.request_bind(formed[self.bind_turn % formed.len()]);
    }

    /// Promises once a majority is there and the rest had time to say that it has formed. A node that never met a majority
    /// promised nothing: its list can still be corrected.
    fn promise(&mut self, now: Mono) {
        let pledge = &self.setup.pledge;
        let hash = pledge.hash();
        let agree = self.peers.values().filter(|p| p.agrees(hash, now)).count();
        if agree + 1 < pledge.majority() {
            self.majority_since = None;
            return;
        }
        let since = *self.majority_since.get_or_insert(now);
        if agree == self.peers.len() || now >= since.plus_ms(GRACE_MS) {
            self.persist(Held::Promised(pledge.clone()));
        }
    }

    /// Begins to vote once a majority promised the same.
    fn vote(&mut self) {
        let pledge = self.pledge().clone();
        if pledge != self.setup.pledge {
            self.blocked = Some(format!(
                "this directory promised to found a cluster of {pledge}; the configuration says {}: give cluster.initNodes and the counts back their \
                 values, or empty the data directory (it holds no data yet)",
                self.setup.pledge
            ));
            return;
        }
        let seats = self.promised_seats(&pledge);
        if seats.len() >= pledge.majority() {
            self.persist(Held::Voting { pledge, seats });
        }
    }

    /// This disk and those that promised the same.
    fn promised_seats(&self, pledge: &Pledge) -> BTreeMap<NodeId, u128> {
        let hash = pledge.hash();
        let listed = self.peers.iter().filter(|(n, _)| pledge.nodes.contains(n));
        let promised = listed.filter_map(|(node, peer)| Some((*node, peer.promised(hash)?)));
        let own = (self.setup.node, self.setup.disk_uuid);
        promised.chain(std::iter::once(own)).collect()
    }

    /// With a control replica here.
    fn take_part(&mut self, now: Mono) {
        self.start_control();
        match self.view.take() {
            Some(view) => {
                self.settle(&view, now);
                self.view = Some(view);
            }
            None => self.await_genesis(now),
        }
        if matches!(self.held, Held::Formed { .. }) {
            self.start_slots();
        }
    }

    fn start_control(&mut self) {
        if self.control_asked {
            return;
        }
        let voters = placement::control_voters(self.pledge());
        let own = voters.iter().find(|(_, node)| **node == self.setup.node);
        let Some((replica, _)) = own.map(|(r, n)| (*r, *n)) else {
            let text = format!(
                "this directory belongs to a cluster of {} in which there is no node {}: correct cluster.nodeId",
                self.pledge(),
                self.setup.node
            );
            self.blocked = Some(text);
            return;
        };
        self.control_asked = true;
        self.effects.push_back(Effect::StartControl(OwnReplica {
            group: GroupId::Control,
            replica,
            voters,
        }));
    }

    /// The control group runs, and has no `Genesis` that is seen here.
    fn await_genesis(&mut self, now: Mono) {
        let Held::Voting { pledge, seats } = &self.held else {
            return;
        };
        let (pledge, seats) = (pledge.clone(), seats.clone());
        match self.found_cluster() {
            Ok(Some(formed)) if formed.pledge == pledge => return self.join(&formed, now),
            Ok(Some(formed)) => {
                self.blocked = Some(format!(
                    "this directory began to found a cluster of {pledge}, but node {} is part of cluster {:032x}, founded as {}: \
                     empty this data directory to join it (it holds no messages)",
                    formed.status.node, formed.cluster_id, formed.pledge
                ));
                return;
            }
            Ok(None) => {}
            // Ours may still be founded by those who promised; the operator sees that others are elsewhere.
            Err(text) => self.warn(text),
        }
        let mut more = self.promised_seats(&pledge);
        // Who has a seat keeps it.
        more.extend(seats.clone());
        self.persist(Held::Voting {
            pledge: pledge.clone(),
            seats: more,
        });
        self.propose_genesis(&pledge, &seats, now);
    }

    fn propose_genesis(&mut self, pledge: &Pledge, seats: &BTreeMap<NodeId, u128>, now: Mono) {
        let Some(since) = self.leading_since.filter(|_| self.control_started) else {
            return;
        };
        let seated =
            |(node, peer): (&NodeId, &Peer)| !peer.is_connected() || seats.contains_key(node);
        let all_seated = self.peers.iter().all(seated);
        let waited = all_seated || now >= since.plus_ms(GENESIS_WAIT_MS);
        if !waited || now < self.propose_due {
            return;
        }
        self.propose_due = now.plus_ms(PROPOSE_AGAIN_MS);
        let Setup {
            list,
            cluster_id,
            secret,
            ..
        } = &self.setup;
        let genesis = placement::genesis(pledge, list, seats, *cluster_id, *secret);
        let write = Write::Genesis(Box::new(genesis));
        self.effects.push_back(Effect::Propose(write));
    }

    /// There is a cluster: this disk is its node, becomes it, or never will be.
    fn settle(&mut self, view: &ControlView, now: Mono) {
        let node = self.setup.node;
        let Some(member) = view.member(node) else {
            self.blocked = Some(format!(
                "cluster {:032x} has no node {node}: correct cluster.nodeId",
                view.cluster_id
            ));
            return;
        };
        match member.uuid {
            Some(uuid) if uuid == self.setup.disk_uuid => self.become_formed(view),
            Some(uuid) => self.blocked = Some(other_disk(node, uuid, self.setup.disk_uuid)),
            None if now >= self.propose_due => {
                self.propose_due = now.plus_ms(PROPOSE_AGAIN_MS);
                let uuid = self.setup.disk_uuid;
                self.effects
                    .push_back(Effect::Propose(Write::Bind { node, uuid }));
            }
            None => {}
        }
    }

    fn become_formed(&mut self, view: &ControlView) {
        if let Held::Formed { cluster_id, .. } = &self.held
            && *cluster_id != view.cluster_id
        {
            self.blocked = Some(format!(
                "this directory is part of cluster {cluster_id:032x}, but its control group says {:032x}: the directory is mixed up",
                view.cluster_id
            ));
            return;
        }
        let mut seats = self.seats().cloned().unwrap_or_default();
        // A seat is a promise or a vote of a disk: a bound disk replaces it, nothing else does.
        seats.extend(view.members.iter().filter_map(|m| Some((m.node, m.uuid?))));
        self.persist(Held::Formed {
            cluster_id: view.cluster_id,
            pledge: self.pledge().clone(),
            seats,
        });
    }

    fn start_slots(&mut self) {
        let Some(view) = self.view.as_ref().filter(|_| self.control_started) else {
            return;
        };
        if std::mem::replace(&mut self.slots_asked, true) {
            return;
        }
        let node = self.setup.node;
        let own = (0..)
            .map(SlotId)
            .zip(&view.slots)
            .filter_map(|(slot, voters)| {
                let (replica, _) = voters.iter().find(|(_, on)| **on == node)?;
                Some(OwnReplica {
                    group: GroupId::Slot(slot),
                    replica: *replica,
                    voters: voters.clone(),
                })
            });
        let own = own.collect();
        self.effects.push_back(Effect::StartSlots(own));
    }

    fn give_up(&mut self, now: Mono) {
        let Some(limit) = self.setup.start_timeout_ms else {
            return;
        };
        if !self.served && !self.gave_up && now >= self.began.plus_ms(limit) {
            self.gave_up = true;
            let report = Box::new(self.report(now));
            self.effects.push_back(Effect::GiveUp(report));
        }
    }
}

/// Everybody listed or promised to, but this node.
fn peers_of(setup: &Setup) -> BTreeMap<NodeId, Peer> {
    let promised = setup.held.pledge().map_or(&[][..], |p| &p.nodes);
    let nodes = setup.list.nodes.keys().chain(promised);
    let others = nodes.filter(|node| **node != setup.node);
    let peer = |node: &NodeId| {
        let addr = setup.list.nodes.get(node).cloned().unwrap_or_default();
        let peer = Peer {
            addr,
            ..Peer::default()
        };
        (*node, peer)
    };
    others.map(peer).collect()
}
