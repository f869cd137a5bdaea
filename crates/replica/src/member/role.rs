//! The changes of role, and what they mean for those who wait.

use std::collections::VecDeque;

use raft::StateRole;
use wk_chat::request::{CallError, Why};
use wk_proto::{Fence, ReplicaId, Term};
use wk_store::SlotStore;

use super::{Caller, Fault, Leading, Member, Proposal, Role, Turn, decide};
use crate::limits::LOST_LEADERSHIP_MS_MAX;
use crate::shard::Output;

impl Member {
    /// Follows raft's role: the one place where it changes here.
    pub(super) fn note_role(&mut self, turn: &mut Turn<'_>) {
        let term = Term(self.raft.raft.term);
        let leads = self.raft.raft.state == StateRole::Leader;
        if self.leader_term().is_some_and(|led| !leads || led != term) {
            self.become_follower(turn);
        }
        if leads && self.leader_term().is_none() {
            self.become_elected(term, turn);
        }
        let leader = self
            .voters
            .get(&ReplicaId(self.raft.raft.leader_id))
            .copied();
        if self.told != (term, leader) {
            self.told = (term, leader);
            turn.outputs.push(Output::Leader(self.group, term, leader));
        }
    }

    fn become_elected(&mut self, term: Term, turn: &mut Turn<'_>) {
        self.role = Role::Elected(term);
        self.lost_until = None;
        // Our log is the group's now: an entry of ours that is not in it never will be.
        let log = &self.raft.raft.raft_log;
        let (kept, gone): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.proposals)
            .into_iter()
            .partition(|p| log.term(p.index).is_ok_and(|term| term == p.term));
        self.proposals = kept;
        for proposal in gone {
            self.abandon(proposal, CallError::NotSent(Why::LostLeadership), turn);
        }
    }

    /// Has applied an entry of its own term.
    pub(super) fn become_leader(&mut self, term: Term) -> Result<(), Fault> {
        let next = self.store.applied().next();
        let last_id = self.store.begin(next).last_message_id();
        if let Some((_, newest)) = self.store.view().by_id(last_id)? {
            self.last_time = self.last_time.max(newest.record.time());
        }
        self.role = Role::Leader(Leading {
            term,
            fence: Fence { term, n: 0 },
            last_id,
            sweep_at: None,
        });
        self.outbox.become_leader();
        Ok(())
    }

    fn become_follower(&mut self, turn: &mut Turn<'_>) {
        self.role = Role::Follower;
        self.outbox.become_follower();
        self.lost_until = Some(turn.now.plus_ms(LOST_LEADERSHIP_MS_MAX));
        self.refuse_undecided(CallError::NotSent(Why::LostLeadership), turn);
    }

    fn leader_term(&self) -> Option<Term> {
        match &self.role {
            Role::Follower => None,
            Role::Elected(term) => Some(*term),
            Role::Leader(leading) => Some(leading.term),
        }
    }

    /// Elected, perhaps not yet [`Self::is_proven`].
    pub(crate) fn leads(&self) -> bool {
        self.leader_term().is_some()
    }

    /// Leads, in this term if one is named.
    pub(crate) fn leads_in(&self, term: Option<Term>) -> bool {
        let led = self.leader_term();
        led.is_some() && (term.is_none() || led == term)
    }

    /// Leads, and has applied an entry of its own term: that took a quorum.
    pub(crate) fn is_proven(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The term of the proven office.
    pub(crate) fn proven(&self) -> Option<Term> {
        self.leader_term().filter(|_| self.is_proven())
    }

    /// What remains of it after [`Self::stop`].
    pub(crate) fn into_store(self) -> SlotStore {
        self.store
    }

    /// The member stops for good: everybody who waits is told what is known.
    pub(crate) fn stop(&mut self, turn: &mut Turn<'_>) {
        self.role = Role::Follower;
        let faulty = CallError::NotSent(Why::Faulty);
        self.refuse_undecided(faulty, turn);
        let drafts = std::mem::take(&mut self.drafts);
        let drafted = drafts
            .iter()
            .flat_map(|d| &d.callers)
            .filter_map(Caller::ticket);
        let serving = std::mem::take(&mut self.serving);
        let served = serving.iter().map(|(ticket, ..)| *ticket);
        for ticket in drafted.chain(served).chain(self.deciding.take()) {
            turn.reply(ticket, Err(faulty));
        }
        for proposal in std::mem::take(&mut self.proposals) {
            self.abandon(proposal, CallError::Unknown(Why::Faulty), turn);
        }
        let mut released = Vec::new();
        self.held.release_all(&mut released);
        for (ticket, reply) in released {
            turn.reply(ticket, Ok(reply));
        }
    }

    /// Gives leadership to the most advanced voter that is there, if any.
    pub(crate) fn transfer(&mut self) {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader || raft.lead_transferee.is_some() {
            return;
        }
        let best = self
            .others()
            .filter(|(_, p)| p.recent_active)
            .max_by_key(|(id, p)| (p.matched, *id));
        if let Some((id, _)) = best {
            self.raft.transfer_leader(id);
        }
    }

    /// Calls, reads and questions that have had no effect yet end with `error`.
    pub(super) fn refuse_undecided(&mut self, error: CallError, turn: &mut Turn<'_>) {
        for (ticket, request) in std::mem::take(&mut self.calls) {
            self.inflight_bytes = self.inflight_bytes.saturating_sub(decide::weight(&request));
            turn.reply(ticket, Err(error));
        }
        for (ticket, ..) in self.reads.take_all() {
            turn.reply(ticket, Err(error));
        }
        for ticket in self.asks.take_all() {
            turn.reply(ticket, Err(error));
        }
    }

    pub(super) fn abandon(&mut self, proposal: Proposal, error: CallError, turn: &mut Turn<'_>) {
        self.inflight_bytes = self.inflight_bytes.saturating_sub(proposal.bytes);
        for ticket in proposal.callers.iter().filter_map(Caller::ticket) {
            turn.reply(ticket, Err(error));
        }
    }
}
