//! Formations on hosts in virtual time: a network that loses and delays, disks that survive crashes, and a control group that
//! commits where disks that admit each other are a majority. It finds lost votes: a leader whose disk lacks what was committed.

use std::collections::{BTreeMap, BTreeSet};

use wk_chat::Write;
use wk_chat::control::{BindResult, ControlView, Genesis, Secret};
use wk_proto::{Mono, NodeId, Term};

use crate::formation::*;

/// Length of a step, in ms.
const STEP_MS: u64 = 10;

pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct Disk {
    pub uuid: u128,
    pub incarnation: u64,
    pub held: Held,
    /// The control replica, if there is one: what it has acknowledged.
    pub log: Option<Vec<Write>>,
}

impl Disk {
    fn new(uuid: u128) -> Self {
        Self {
            uuid,
            incarnation: 0,
            held: Held::Fresh,
            log: None,
        }
    }
}

pub struct Host {
    pub node: NodeId,
    pub list: Vec<u32>,
    pub disk: Disk,
    pub up: Option<Formation>,
    pub seed: Option<String>,
    pub slot_replicas: u16,
    pub timeout_ms: Option<u64>,
    links: BTreeMap<NodeId, LinkState>,
    persisted: Option<(Held, u64)>,
    replies: Vec<(u64, Event)>,
    applied: usize,
    slots_run: bool,
    pub warned: Vec<String>,
    pub gave_up: Option<Report>,
    /// Effects performed since the last start.
    pub performed: usize,
    /// Crash before performing this effect, or after it.
    pub crash_at: Option<(usize, bool)>,
    restart_at: Option<u64>,
}

pub struct Net {
    pub now: u64,
    pub rng: Rng,
    pub loss_percent: u64,
    pub hosts: BTreeMap<NodeId, Host>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    mail: Vec<(u64, NodeId, NodeId, bytes::Bytes)>,
    /// What was committed, by founding list.
    committed: BTreeMap<ListHash, Vec<Write>>,
    uuids: u128,
    /// Change leaders now and then.
    pub unrest: bool,
    pub geneses: usize,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            now: 0,
            rng: Rng::new(seed),
            loss_percent: 0,
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            mail: Vec::new(),
            committed: BTreeMap::new(),
            uuids: 0,
            unrest: false,
            geneses: 0,
        }
    }

    /// `n` hosts with the same list, all down.
    pub fn of(n: u32, seed: u64) -> Self {
        let mut net = Self::new(seed);
        let list: Vec<u32> = (1..=n).collect();
        for id in &list {
            net.add(*id, &list);
        }
        net
    }

    pub fn add(&mut self, id: u32, list: &[u32]) {
        self.uuids += 1;
        let host = Host {
            node: NodeId(id),
            list: list.to_vec(),
            disk: Disk::new(self.uuids),
            up: None,
            seed: None,
            slot_replicas: 3,
            timeout_ms: None,
            links: BTreeMap::new(),
            persisted: None,
            replies: Vec::new(),
            applied: 0,
            slots_run: false,
            warned: Vec::new(),
            gave_up: None,
            performed: 0,
            crash_at: None,
            restart_at: None,
        };
        self.hosts.insert(NodeId(id), host);
    }

    pub fn host(&mut self, id: u32) -> &mut Host {
        self.hosts.get_mut(&NodeId(id)).unwrap()
    }

    pub fn wipe(&mut self, id: u32) {
        self.stop(id);
        self.uuids += 1;
        let disk = Disk::new(self.uuids);
        self.host(id).disk = disk;
    }

    fn mono(&self) -> Mono {
        Mono(self.now * 1_000)
    }

    pub fn start(&mut self, id: u32) {
        let now = self.mono();
        let entropy = u128::from(self.rng.below(u64::MAX)) + 1;
        let host = self.hosts.get_mut(&NodeId(id)).unwrap();
        host.disk.incarnation += 1;
        let entries: Vec<_> = host.list.iter().map(|n| format!("{n}@h{n}")).collect();
        let list = NodeList::parse(&entries, host.node, &format!("h{id}:11110")).unwrap();
        let setup = Setup {
            node: host.node,
            disk_uuid: host.disk.uuid,
            incarnation: host.disk.incarnation,
            held: host.disk.held.clone(),
            pledge: Pledge::new(&list, 8, host.slot_replicas, 3).unwrap(),
            list,
            seed: host.seed.clone(),
            start_timeout_ms: host.timeout_ms,
            cluster_id: entropy,
            secret: Secret([7; 32]),
            version: "test".to_owned(),
        };
        host.links.clear();
        host.persisted = None;
        host.replies.clear();
        host.applied = 0;
        host.slots_run = false;
        host.performed = 0;
        host.restart_at = None;
        host.up = Some(Formation::new(setup, now));
        self.perform(NodeId(id));
    }

    pub fn stop(&mut self, id: u32) {
        self.host(id).up = None;
    }

    fn event(&mut self, node: NodeId, event: Event) {
        let now = self.mono();
        if let Some(up) = self.hosts.get_mut(&node).and_then(|h| h.up.as_mut()) {
            up.handle(event, now);
            self.perform(node);
        }
    }

    fn perform(&mut self, node: NodeId) {
        loop {
            let host = self.hosts.get_mut(&node).unwrap();
            let Some(effect) = host.up.as_mut().and_then(Formation::poll) else {
                return;
            };
            host.performed += 1;
            let crash = host.crash_at.filter(|(at, _)| *at == host.performed);
            if let Some((_, false)) = crash {
                return self.crash(node);
            }
            self.act(node, effect);
            if crash.is_some() {
                return self.crash(node);
            }
        }
    }

    fn crash(&mut self, node: NodeId) {
        let at = self.now + 700;
        let host = self.hosts.get_mut(&node).unwrap();
        // Written or not: either may be found.
        if let Some((held, _)) = host.persisted.take()
            && self.rng.below(2) == 0
        {
            host.disk.held = held;
        }
        host.up = None;
        host.crash_at = None;
        host.restart_at = Some(at);
    }

    fn act(&mut self, node: NodeId, effect: Effect) {
        let (now, delay) = (self.now, 1 + self.rng.below(30));
        let lost = self.rng.below(100) < self.loss_percent;
        let host = self.hosts.get_mut(&node).unwrap();
        match effect {
            Effect::Persist(held) => {
                assert!(host.persisted.is_none(), "one at a time");
                host.persisted = Some((held, now + delay));
            }
            Effect::Send(to, message) => {
                let bytes = message.encode();
                assert!(bytes.len() <= MESSAGE_BYTES_MAX);
                assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
                if let Message::Promise(status) = &message {
                    let pledge = host.disk.held.pledge().expect("a promise is durable");
                    assert_eq!(pledge.hash(), status.list_hash);
                }
                if !lost {
                    self.mail.push((now + delay, node, to, bytes));
                }
            }
            Effect::StartControl(own) => {
                assert!(matches!(
                    host.disk.held,
                    Held::Voting { .. } | Held::Formed { .. }
                ));
                let pledge = host.disk.held.pledge().unwrap();
                assert_eq!(own.voters, control_voters(pledge));
                assert_eq!(own.voters.get(&own.replica), Some(&node));
                host.disk.log.get_or_insert_default();
                host.replies.push((now + delay, Event::ControlStarted));
            }
            Effect::Propose(write) => self.propose(node, write),
            Effect::StartSlots(own) => {
                let Held::Formed { seats, .. } = &host.disk.held else {
                    panic!("slots start on formed nodes only");
                };
                assert_eq!(seats.get(&node), Some(&host.disk.uuid));
                assert!(own.iter().all(|o| o.voters.get(&o.replica) == Some(&node)));
                host.slots_run = true;
                host.replies.push((now + delay, Event::SlotsStarted));
            }
            Effect::Warn(text) => host.warned.push(text),
            Effect::GiveUp(report) => host.gave_up = Some(*report),
            Effect::SeatsChanged | Effect::PhaseChanged(..) => {}
        }
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += STEP_MS;
            self.step();
        }
    }

    /// Until all hosts are up and ready, and a little longer; at most so long.
    pub fn run_until_ready(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end && self.ready().len() < self.hosts.len() {
            self.run(50);
        }
        self.run(100);
    }

    /// Passes time quickly while nothing but time can change anything.
    pub fn idle(&mut self, ms: u64) {
        self.now += ms;
        self.step();
    }

    fn step(&mut self) {
        let nodes: Vec<_> = self.hosts.keys().copied().collect();
        for node in &nodes {
            self.wake(*node);
        }
        if self.now.is_multiple_of(50) {
            self.links(&nodes);
            self.elect();
            self.lead();
        }
        self.deliver();
    }

    fn wake(&mut self, node: NodeId) {
        let (now, mono) = (self.now, self.mono());
        let host = self.hosts.get_mut(&node).unwrap();
        if host.restart_at.is_some_and(|at| at <= now) {
            return self.start(node.0);
        }
        if host.persisted.as_ref().is_some_and(|(_, at)| *at <= now) {
            let (held, _) = host.persisted.take().unwrap();
            check_order(&host.disk.held, &held);
            host.disk.held = held;
            self.event(node, Event::Persisted);
        }
        let host = self.hosts.get_mut(&node).unwrap();
        let (due, later) = std::mem::take(&mut host.replies)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        host.replies = later;
        let due: Vec<(u64, Event)> = due;
        for (_, event) in due {
            self.event(node, event);
        }
        let host = self.hosts.get_mut(&node).unwrap();
        if let Some(up) = &mut host.up
            && up.deadline() <= mono
        {
            up.tick(mono);
            assert!(up.deadline() > mono, "no busy loop");
            self.perform(node);
        }
    }

    fn admission(&self, at: NodeId, of: NodeId) -> Option<Admission> {
        let up = self.hosts.get(&at)?.up.as_ref()?;
        let of = self.hosts.get(&of)?;
        of.up.as_ref()?;
        Some(up.admits(of.node, of.disk.uuid, self.mono()))
    }

    fn link(&self, at: NodeId, to: NodeId) -> LinkState {
        if self.cut.contains(&(at, to)) || self.cut.contains(&(to, at)) {
            return LinkState::Unreachable;
        }
        match (self.admission(at, to), self.admission(to, at)) {
            (None, _) | (_, None) => LinkState::Refused,
            (Some(Admission::Refused(state, _)), _) | (_, Some(Admission::Refused(state, _))) => {
                state
            }
            _ => LinkState::Connected,
        }
    }

    fn links(&mut self, nodes: &[NodeId]) {
        for (at, to) in nodes
            .iter()
            .flat_map(|a| nodes.iter().map(move |b| (*a, *b)))
        {
            if at == to || self.hosts[&at].up.is_none() {
                continue;
            }
            let state = self.link(at, to);
            let host = self.hosts.get_mut(&at).unwrap();
            if host.links.insert(to, state.clone()).as_ref() != Some(&state) {
                let news = LinkNews {
                    state,
                    ..LinkNews::default()
                };
                self.event(at, Event::Link(to, news));
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.mail)
            .into_iter()
            .partition(|m| m.0 <= now);
        self.mail = later;
        for (_, from, to, bytes) in due {
            let known = self.hosts.get(&to).and_then(|h| h.links.get(&from));
            if known == Some(&LinkState::Connected) {
                let message = Message::decode(&bytes).unwrap();
                self.event(to, Event::Message(from, message));
            }
        }
    }

    /// Voters that `node` can exchange raft messages with, itself included.
    fn electorate(&self, node: NodeId) -> Option<(ListHash, Vec<NodeId>, usize)> {
        let host = &self.hosts[&node];
        host.up.as_ref()?;
        host.disk.log.as_ref()?;
        let pledge = host.disk.held.pledge()?;
        let full = |a, b| {
            self.link(a, b) == LinkState::Connected
                && self.admission(a, b) == Some(Admission::Full)
                && self.admission(b, a) == Some(Admission::Full)
        };
        let same = |other: &NodeId| {
            let disk = &self.hosts[other].disk;
            disk.log.is_some() && disk.held.pledge() == Some(pledge)
        };
        let others = pledge
            .nodes
            .iter()
            .copied()
            .filter(|n| self.hosts.contains_key(n));
        let mut voters: Vec<_> = others
            .filter(|n| *n != node && same(n) && full(node, *n))
            .collect();
        voters.push(node);
        Some((pledge.hash(), voters, pledge.majority()))
    }

    /// Votes go to the longest log, as in raft; with unrest, to any that is as long as a majority's.
    fn leader(&self, of: NodeId) -> Option<(ListHash, NodeId, Vec<NodeId>)> {
        let (hash, voters, majority) = self.electorate(of)?;
        if voters.len() < majority {
            return None;
        }
        let len = |node: &NodeId| self.hosts[node].disk.log.as_ref().map_or(0, Vec::len);
        let turn = if self.unrest { self.now / 400 } else { 0 } as usize;
        let longest = voters.iter().map(len).max()?;
        let mut best: Vec<_> = voters.into_iter().filter(|v| len(v) == longest).collect();
        best.sort();
        let leader = best[turn % best.len()];
        let (_, followers, majority) = self.electorate(leader)?;
        (followers.len() >= majority).then_some((hash, leader, followers))
    }

    fn elect(&mut self) {
        let nodes: Vec<_> = self.hosts.keys().copied().collect();
        for node in nodes {
            if self.hosts[&node].disk.log.is_none() || self.hosts[&node].up.is_none() {
                continue;
            }
            let led = self.leader(node);
            if let Some((hash, leader, followers)) = &led {
                self.replicate(*hash, *leader, followers);
            }
            let news = ControlNews {
                leader: led.as_ref().map(|l| l.1),
                term: Term(self.now / 400),
                commit: 0,
                applied: 0,
                caught_up: led.is_some(),
            };
            self.event(node, Event::Control(news));
            self.apply(node);
        }
    }

    fn replicate(&mut self, hash: ListHash, leader: NodeId, followers: &[NodeId]) {
        let log = self.hosts[&leader].disk.log.clone().unwrap();
        let committed = self.committed.entry(hash).or_default();
        assert!(
            log.len() >= committed.len(),
            "node {leader} leads without what was committed: a vote was forgotten"
        );
        for node in followers {
            self.hosts.get_mut(node).unwrap().disk.log = Some(log.clone());
        }
        *committed = log;
    }

    fn apply(&mut self, node: NodeId) {
        let Some(log) = self.hosts[&node].disk.log.clone() else {
            return;
        };
        let host = self.hosts.get_mut(&node).unwrap();
        if host.applied < log.len() {
            host.applied = log.len();
            if let Some(view) = fold(&log) {
                self.event(node, Event::Cluster(Box::new(view)));
            }
        }
    }

    fn propose(&mut self, node: NodeId, write: Write) {
        let led = self.leader(node);
        let mut result = None;
        if let Some((hash, leader, followers)) = led {
            self.geneses += usize::from(matches!(write, Write::Genesis(_)));
            let log = self
                .hosts
                .get_mut(&leader)
                .unwrap()
                .disk
                .log
                .as_mut()
                .unwrap();
            log.push(write.clone());
            if let Write::Bind { node, uuid } = &write {
                result = Some(bind_result(log, *node, *uuid));
            }
            self.replicate(hash, leader, &followers);
        }
        if let Write::Bind { node: of, uuid } = write {
            let event = Event::Bound {
                node: of,
                uuid,
                result,
            };
            let at = self.now + 5;
            self.hosts.get_mut(&node).unwrap().replies.push((at, event));
        }
    }

    /// Slots have leaders where most of their nodes run them; listeners open when they may.
    fn lead(&mut self) {
        let nodes: Vec<_> = self.hosts.keys().copied().collect();
        let runs = |h: &Host| h.slots_run && h.up.is_some();
        for node in nodes {
            let host = &self.hosts[&node];
            if !runs(host) {
                continue;
            }
            let view = fold(host.disk.log.as_ref().unwrap()).unwrap();
            let led = |voters: &wk_chat::control::Voters| {
                let live = voters.values().filter(|n| runs(&self.hosts[n])).count();
                live > voters.len() / 2
            };
            let news = SlotsNews {
                total: view.slots.len() as u16,
                with_leader: view.slots.iter().filter(|v| led(v)).count() as u16,
                ..SlotsNews::default()
            };
            self.event(node, Event::Slots(news));
            let serve = self.hosts[&node]
                .up
                .as_ref()
                .is_some_and(Formation::may_serve);
            let open = Listeners::default();
            let all_open = serve;
            self.event(node, Event::Listeners { open, all_open });
        }
    }

    pub fn readiness(&self, id: u32) -> Readiness {
        let host = &self.hosts[&NodeId(id)];
        host.up.as_ref().expect("up").readiness(self.mono())
    }

    pub fn report(&self, id: u32) -> Report {
        let host = &self.hosts[&NodeId(id)];
        host.up.as_ref().expect("up").report(self.mono())
    }

    pub fn ready(&self) -> Vec<u32> {
        let up = self.hosts.values().filter(|h| h.up.is_some());
        let ready = up.filter(|h| self.readiness(h.node.0).ready);
        ready.map(|h| h.node.0).collect()
    }

    /// Ids of all clusters on all disks.
    pub fn clusters(&self) -> BTreeSet<u128> {
        let ids = self.hosts.values().filter_map(|h| match &h.disk.held {
            Held::Formed { cluster_id, .. } => Some(*cluster_id),
            _ => None,
        });
        ids.collect()
    }
}

/// A promise is for life: only a cluster that exists can lead elsewhere, and only before the control group runs here.
fn check_order(old: &Held, new: &Held) {
    let rank = |held: &Held| match held {
        Held::Fresh => 0,
        Held::Promised(_) => 1,
        Held::Voting { .. } => 2,
        Held::Formed { .. } => 3,
    };
    assert!(rank(old) <= rank(new), "{old:?} → {new:?}");
    if rank(old) >= 2 || rank(new) == 1 {
        assert!(old.pledge().is_none() || old.pledge() == new.pledge());
    }
}

/// The cluster after a log: as the control group's machine has it.
fn fold(log: &[Write]) -> Option<ControlView> {
    let mut view = None;
    for write in log {
        match (write, &mut view) {
            (Write::Genesis(genesis), None) => view = Some(first(genesis)),
            (Write::Bind { node, uuid }, Some(view)) => {
                let member = view.members.iter_mut().find(|m| m.node == *node);
                if let Some(member) = member {
                    member.uuid.get_or_insert(*uuid);
                }
            }
            _ => {}
        }
    }
    view
}

fn first(genesis: &Genesis) -> ControlView {
    ControlView {
        cluster_id: genesis.cluster_id,
        list_hash: genesis.list_hash,
        members: genesis.members.clone(),
        control: genesis.control.clone(),
        slots: genesis.slots.clone(),
        next_replica: genesis.next_replica,
    }
}

fn bind_result(log: &[Write], node: NodeId, uuid: u128) -> BindResult {
    match fold(log) {
        None => BindResult::NotFormed,
        Some(view) => match view.member(node).map(|m| m.uuid) {
            None => BindResult::NotMember,
            Some(Some(bound)) if bound == uuid => BindResult::Bound,
            Some(bound) => BindResult::OtherDisk(bound.unwrap_or(0)),
        },
    }
}
