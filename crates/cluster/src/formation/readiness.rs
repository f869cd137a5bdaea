//! What is said about a formation: phases, readiness, the report.

use wk_proto::{Mono, NodeId};

use super::machine::Formation;
use super::phases::{is_drivers, order};
use super::report::{
    ControlReport, PeerReport, Phase, PhaseReport, PhaseState, QuorumReport, Readiness, Reason,
    Report, SlotsReport,
};
use super::state::{Effect, Held, Hold, LinkState};

/// Percentage of slots with a leader that a node needs to stay ready; to become ready it needs all (R-READY-4). One lost group does
/// not take every node out.
const SLOTS_TO_STAY_PERCENT: u32 = 90;

impl Formation {
    pub(super) fn set_phase(&mut self, phase: Phase, state: PhaseState, now: Mono) {
        if let Some(ms) = self.phases.set(phase, state, now) {
            self.effects
                .push_back(Effect::PhaseChanged(phase, state, ms));
        }
    }

    /// Moves the phases on: those that are over, and the one that is under way.
    pub(super) fn progress(&mut self, now: Mono) {
        for phase in order(self.joining).filter(|phase| !is_drivers(*phase)) {
            if self.phases.state(phase) == PhaseState::Done {
                continue;
            }
            if !self.is_over(phase) {
                let state = match &self.blocked {
                    Some(_) => PhaseState::Failed,
                    None => PhaseState::Running,
                };
                self.set_phase(phase, state, now);
                break;
            }
            self.set_phase(phase, PhaseState::Done, now);
        }
        self.served |= self.obstacle().is_none();
    }

    fn is_over(&self, phase: Phase) -> bool {
        let voting = matches!(self.held, Held::Voting { .. } | Held::Formed { .. });
        match phase {
            Phase::Config | Phase::StorageOpen | Phase::WalReplay | Phase::Transport => true,
            Phase::Peers => voting || self.joining,
            Phase::Join => voting,
            Phase::ControlElection => self.view.is_some() || self.control.leader.is_some(),
            Phase::ControlCatchup => self.is_formed() && self.control.caught_up,
            Phase::SlotLeaders => self.all_led(),
            Phase::Catchup => self.slots.behind == 0,
            Phase::Listeners => self.all_open,
            Phase::Ready => self.obstacle().is_none(),
        }
    }

    fn is_formed(&self) -> bool {
        matches!(self.held, Held::Formed { .. }) && self.view.is_some()
    }

    fn all_led(&self) -> bool {
        let slots = &self.slots;
        self.slots_started && slots.total > 0 && slots.with_leader == slots.total
    }

    /// Enough slots have leaders: all to become ready, most to stay.
    fn enough_led(&self) -> bool {
        let slots = &self.slots;
        let led = u32::from(slots.with_leader) * 100;
        let enough = led >= u32::from(slots.total) * SLOTS_TO_STAY_PERCENT;
        self.all_led() || (self.served && slots.total > 0 && enough)
    }

    /// Everything but the client listeners is there: open them.
    pub fn may_serve(&self) -> bool {
        matches!(self.obstacle(), None | Some((Reason::Starting, Some(_))))
    }

    /// Why clients cannot come; with `Starting`, a text if it is only the listeners.
    fn obstacle(&self) -> Option<(Reason, Option<&'static str>)> {
        if let Some(hold) = self.holds.first() {
            let reason = match hold {
                Hold::Storage => Reason::Storage,
                Hold::Draining => Reason::Draining,
                Hold::Maintenance => Reason::Maintenance,
                Hold::Clock => Reason::Clock,
                Hold::Disk => Reason::Disk,
            };
            return Some((reason, None));
        }
        if !self.is_formed() {
            let reason = self.unformed();
            return Some((reason, None));
        }
        if self.control.leader.is_none() && !self.has_majority() {
            return Some((Reason::NoQuorum, None));
        }
        if !self.control.caught_up {
            return Some((Reason::ControlLag, None));
        }
        if !self.enough_led() {
            return Some((Reason::SlotsWithoutLeader, None));
        }
        if self.slots.behind > 0 && !self.served {
            return Some((Reason::CatchingUp, None));
        }
        if !self.all_open {
            return Some((Reason::Starting, Some("listeners")));
        }
        None
    }

    fn unformed(&self) -> Reason {
        if self.joining {
            Reason::Joining
        } else if self.has_majority() {
            Reason::Starting
        } else {
            Reason::NoQuorum
        }
    }

    fn has_majority(&self) -> bool {
        let needed = self.pledge().majority();
        self.pledge().nodes.len() - self.missing().len() >= needed
    }

    /// Founders that are not connected.
    fn missing(&self) -> Vec<NodeId> {
        let nodes = self.pledge().nodes.iter().copied();
        let gone = |node: &NodeId| {
            *node != self.setup.node && !self.peers.get(node).is_some_and(|p| p.is_connected())
        };
        nodes.filter(gone).collect()
    }

    /// `/readyz`.
    pub fn readiness(&self, now: Mono) -> Readiness {
        let obstacle = self.obstacle();
        Readiness {
            ready: obstacle.is_none(),
            reason: obstacle.map(|(reason, _)| reason),
            detail: self.detail(obstacle, now),
            phase: self.phases.current(self.joining),
            waiting_for: if obstacle.is_some() {
                self.missing()
            } else {
                Vec::new()
            },
        }
    }

    fn detail(&self, obstacle: Option<(Reason, Option<&'static str>)>, now: Mono) -> String {
        match (obstacle, &self.blocked) {
            (None, _) => String::new(),
            (Some(_), Some(text)) => text.clone(),
            (Some((Reason::SlotsWithoutLeader, _)), _) => {
                let slots = &self.slots;
                let without = slots.total.saturating_sub(slots.with_leader);
                format!("{without}/{}", slots.total)
            }
            (Some((Reason::NoQuorum, _)), _) => {
                let text = self.peers.values().find_map(|p| p.trouble(now));
                text.map_or_else(String::new, |trouble| trouble.text.clone())
            }
            (Some((_, text)), _) => text.unwrap_or_default().to_owned(),
        }
    }

    /// `/cluster/formation`.
    pub fn report(&self, now: Mono) -> Report {
        let readiness = self.readiness(now);
        let missing = self.missing();
        Report {
            node_id: self.setup.node,
            cluster_id: match &self.held {
                Held::Formed { cluster_id, .. } => Some(*cluster_id),
                _ => None,
            },
            incarnation: self.setup.incarnation,
            version: self.setup.version.clone(),
            ready: readiness.ready,
            reason: readiness.reason,
            detail: readiness.detail,
            phase: readiness.phase,
            since: None,
            uptime_ms: now.since(self.began) / 1_000,
            phases: self.phase_reports(),
            quorum: QuorumReport {
                needed: self.pledge().majority(),
                have: self.pledge().nodes.len() - missing.len(),
                missing,
            },
            peers: self.peer_reports(now),
            control: ControlReport {
                leader: self.control.leader,
                term: self.control.term.0,
                commit: self.control.commit,
                applied: self.control.applied,
            },
            slots: SlotsReport {
                total: self.slots.total,
                with_leader: self.slots.with_leader,
                led_here: self.slots.led_here,
                not_ready: self.slots.not_ready.clone(),
            },
            listeners: self.listeners,
            warnings: self.warnings.iter().chain(&self.blocked).cloned().collect(),
        }
    }

    fn phase_reports(&self) -> Vec<PhaseReport> {
        let mut reports = self.phases.report(self.joining);
        for report in &mut reports {
            let count = match report.phase {
                Phase::Peers => {
                    let all = self.pledge().nodes.len();
                    (all - self.missing().len(), all)
                }
                Phase::SlotLeaders => (self.slots.with_leader.into(), self.slots.total.into()),
                _ => continue,
            };
            if report.state != PhaseState::Pending {
                report.progress = Some(format!("{}/{}", count.0, count.1));
            }
        }
        reports
    }

    fn peer_reports(&self, now: Mono) -> Vec<PeerReport> {
        let reports = self.peers.iter().map(|(node, peer)| {
            let trouble = peer.trouble(now);
            let state = trouble.map_or(&peer.news.state, |t| &t.state);
            PeerReport {
                id: *node,
                addr: peer.addr.clone(),
                resolved: peer.news.resolved.clone(),
                state: self.shown(*node, state),
                last_error: trouble
                    .map(|t| t.text.clone())
                    .or_else(|| peer.news.error.clone()),
                attempts: peer.news.attempts,
                last_seen_ms: peer.seen.map(|seen| now.since(seen) / 1_000),
                rtt_us: peer.news.rtt_us,
                version: peer.news.version.clone(),
            }
        });
        reports.collect()
    }

    /// A connected member of our cluster is in sync as far as this node can see.
    fn shown(&self, node: NodeId, state: &LinkState) -> LinkState {
        if *state == LinkState::Connected && self.is_formed() && self.seat(node).is_some() {
            LinkState::InSync
        } else {
            state.clone()
        }
    }
}
