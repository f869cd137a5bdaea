//! What is said between nodes: taking messages and answering, and who may use a link.

use wk_chat::Write;
use wk_chat::control::BindResult;
use wk_proto::{Mono, NodeId};

use super::machine::{BIND_AGAIN_MS, Formation};
use super::message::{Formed, Message, Refusal, Stage, Status};
use super::peers::{ALIVE_MS, PROBE_MS, Trouble, other_disk};
use super::state::{Admission, Effect, Held, LinkState};

impl Formation {
    /// Whether a link that says it comes from this node and disk may be used, and for what. Ask at the hello, and again after
    /// [`Effect::SeatsChanged`].
    pub fn admits(&self, node: NodeId, uuid: u128, now: Mono) -> Admission {
        if node == self.setup.node {
            return Admission::Refused(LinkState::IdConflict, self.own_id(uuid));
        }
        let Some(peer) = self.peers.get(&node) else {
            let text = format!(
                "node {node} is not in cluster.initNodes of node {}",
                self.setup.node
            );
            return Admission::Refused(LinkState::ForeignCluster, text);
        };
        match self.seat(node) {
            Some(seat) if seat == uuid => Admission::Full,
            Some(seat) => Admission::Refused(LinkState::IdConflict, other_disk(node, seat, uuid)),
            None => match peer.status {
                Some(known) if known.uuid != uuid && peer.is_alive(now) => {
                    let text = format!("another directory is node {node} at this moment");
                    Admission::Refused(LinkState::IdConflict, text)
                }
                _ => Admission::FormationOnly,
            },
        }
    }

    fn own_id(&self, uuid: u128) -> String {
        let node = self.setup.node;
        if uuid == self.setup.disk_uuid {
            format!("the directory of node {node} runs twice (a copy?): stop one of them")
        } else {
            format!("two nodes have the id {node}: give one of them another cluster.nodeId")
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            node: self.setup.node,
            uuid: self.setup.disk_uuid,
            incarnation: self.setup.incarnation,
            list_hash: self.pledge().hash(),
            stage: match self.held {
                Held::Fresh => Stage::Fresh,
                Held::Promised(_) => Stage::Promised,
                Held::Voting { .. } => Stage::Voting,
                Held::Formed { .. } => Stage::Formed,
            },
        }
    }

    fn send(&mut self, node: NodeId, message: Message) {
        self.effects.push_back(Effect::Send(node, message));
    }

    /// What a connected peer is told first, and whenever it asks: a formed node tells of its cluster.
    pub(super) fn greet(&mut self, node: NodeId) {
        if !self.peers.get(&node).is_some_and(|p| p.is_connected()) {
            return;
        }
        if let Some(formed) = self.formed() {
            self.send(node, Message::Formed(Box::new(formed)));
        }
    }

    fn formed(&self) -> Option<Formed> {
        let Held::Formed {
            cluster_id,
            pledge,
            seats,
        } = &self.held
        else {
            return None;
        };
        // Before the state is open again, what is held says the same of those that were bound then; others cannot be told apart.
        let view = self.view.as_ref()?;
        debug_assert!(
            seats.contains_key(&self.setup.node),
            "a formed node is bound"
        );
        Some(Formed {
            status: self.status(),
            cluster_id: *cluster_id,
            pledge: pledge.clone(),
            members: view.members.iter().map(|m| (m.node, m.uuid)).collect(),
        })
    }

    /// Says who this node is to every peer that is due, as long as it has not formed.
    pub(super) fn probe(&mut self, now: Mono) {
        let status = self.status();
        if status.stage == Stage::Formed {
            return;
        }
        for (node, peer) in &mut self.peers {
            if !peer.is_connected() || now < peer.next_probe {
                continue;
            }
            peer.next_probe = now.plus_ms(PROBE_MS);
            let message = if status.stage == Stage::Fresh {
                Message::Probe(status)
            } else {
                Message::Promise(status)
            };
            self.effects.push_back(Effect::Send(*node, message));
        }
    }

    pub(super) fn request_bind(&mut self, node: NodeId) {
        let status = self.status();
        self.send(node, Message::BindRequest(status));
    }

    pub(super) fn on_message(&mut self, from: NodeId, message: Message, now: Mono) {
        match message {
            Message::Probe(status) => {
                if self.hear(from, &status, now) {
                    self.answer(from, &status, now);
                }
            }
            Message::Promise(status) => {
                if self.hear(from, &status, now) {
                    if let Some(peer) = self.peers.get_mut(&from) {
                        peer.promise = Some(status.list_hash);
                    }
                    self.answer(from, &status, now);
                }
            }
            Message::Formed(formed) => {
                if self.hear(from, &formed.status, now) {
                    self.on_formed(from, *formed, now);
                }
            }
            Message::BindRequest(status) => {
                if self.hear(from, &status, now) {
                    self.on_bind_request(&status, now);
                }
            }
            Message::BindAnswer {
                cluster_id,
                node,
                result,
            } => self.on_bind_answer(from, cluster_id, node, result, now),
            Message::Refuse { refusal, text } => {
                let state = match refusal {
                    Refusal::IdConflict => LinkState::IdConflict,
                    Refusal::ForeignList | Refusal::ForeignCluster => LinkState::ForeignCluster,
                };
                self.trouble(from, state, format!("node {from} refuses: {text}"), now);
            }
        }
    }

    fn trouble(&mut self, node: NodeId, state: LinkState, text: String, now: Mono) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.trouble = Some(Trouble {
                state,
                text: text.clone(),
                until: now.plus_ms(ALIVE_MS),
            });
            self.warn(text);
        }
    }

    /// Believes what a peer says of itself, or refuses it by name.
    fn hear(&mut self, from: NodeId, status: &Status, now: Mono) -> bool {
        let conflict = if status.node == self.setup.node {
            Err(self.own_id(status.uuid))
        } else {
            let seat = self.seat(from);
            match self.peers.get_mut(&from) {
                Some(peer) => peer.hear(from, status, seat, now),
                None => return false,
            }
        };
        match conflict {
            Ok(()) => true,
            Err(text) => {
                self.refuse(from, Refusal::IdConflict, LinkState::IdConflict, text, now);
                false
            }
        }
    }

    fn refuse(&mut self, to: NodeId, refusal: Refusal, state: LinkState, text: String, now: Mono) {
        self.trouble(to, state, text.clone(), now);
        self.send(to, Message::Refuse { refusal, text });
    }

    fn answer(&mut self, from: NodeId, status: &Status, now: Mono) {
        if let Held::Formed { .. } = self.held {
            return self.greet(from);
        }
        let ours = self.pledge();
        if status.list_hash != ours.hash() {
            let text = format!(
                "node {from} would found a cluster of another list ({}) than node {} ({}: {ours}): make cluster.initNodes, cluster.slotCount and \
                 the replica counts equal on all nodes; a directory that promised another list has to be emptied first",
                status.list_hash,
                self.setup.node,
                ours.hash(),
            );
            let (refusal, state) = (Refusal::ForeignList, LinkState::ForeignCluster);
            self.refuse(from, refusal, state, text, now);
        }
    }

    fn on_formed(&mut self, from: NodeId, formed: Formed, now: Mono) {
        if let Held::Formed { cluster_id, .. } = &self.held
            && *cluster_id != formed.cluster_id
        {
            let text = format!(
                "node {from} is part of cluster {:032x}, node {} of {cluster_id:032x}: clusters are never merged; correct cluster.initNodes or the \
                 address of node {from}",
                formed.cluster_id, self.setup.node
            );
            let (refusal, state) = (Refusal::ForeignCluster, LinkState::ForeignCluster);
            return self.refuse(from, refusal, state, text, now);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.formed = Some(formed);
        }
    }

    /// Only a formed node can have a disk bound; others stay silent, and are not asked.
    fn on_bind_request(&mut self, status: &Status, now: Mono) {
        let (Held::Formed { cluster_id, .. }, Some(view)) = (&self.held, &self.view) else {
            return;
        };
        let cluster_id = *cluster_id;
        let (node, uuid) = (status.node, status.uuid);
        let result = match view.member(node).map(|member| member.uuid) {
            None => BindResult::NotMember,
            Some(Some(bound)) if bound == uuid => BindResult::Bound,
            Some(Some(bound)) => BindResult::OtherDisk(bound),
            Some(None) => return self.propose_bind(node, uuid, now),
        };
        let answer = Message::BindAnswer {
            cluster_id,
            node,
            result,
        };
        self.send(node, answer);
    }

    fn propose_bind(&mut self, node: NodeId, uuid: u128, now: Mono) {
        if let Some((_, due)) = self.binding.get(&node)
            && now < *due
        {
            return;
        }
        self.binding
            .insert(node, (uuid, now.plus_ms(BIND_AGAIN_MS)));
        self.effects
            .push_back(Effect::Propose(Write::Bind { node, uuid }));
    }

    /// A proposed bind was decided.
    pub(super) fn on_bound(&mut self, node: NodeId, uuid: u128, result: Option<BindResult>) {
        if self
            .binding
            .get(&node)
            .is_some_and(|(asked, _)| *asked == uuid)
        {
            self.binding.remove(&node);
        }
        let (Held::Formed { cluster_id, .. }, Some(result)) = (&self.held, result) else {
            return;
        };
        let cluster_id = *cluster_id;
        let peer = self.peers.get(&node);
        if peer.and_then(|p| p.status).is_some_and(|s| s.uuid == uuid) {
            let answer = Message::BindAnswer {
                cluster_id,
                node,
                result,
            };
            self.send(node, answer);
        }
    }

    fn on_bind_answer(
        &mut self,
        from: NodeId,
        cluster_id: u128,
        node: NodeId,
        result: BindResult,
        now: Mono,
    ) {
        if node != self.setup.node {
            return;
        }
        match result {
            BindResult::Bound => self.bound_to = Some(cluster_id),
            BindResult::OtherDisk(bound) => {
                let text = other_disk(node, bound, self.setup.disk_uuid);
                self.trouble(from, LinkState::IdConflict, text, now);
            }
            BindResult::NotMember | BindResult::NotFormed => {}
        }
    }
}
