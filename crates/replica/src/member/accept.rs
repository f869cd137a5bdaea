//! What of a peer's messages may reach raft.
//!
//! Raft takes a message at its word and panics where it contradicts what must hold; so what cannot be is sorted out here.

use raft::eraftpb::{Message, MessageType};
use wk_proto::{NodeId, ReplicaId};

use super::{Fault, Member};
use crate::limits::READIES_IN_FLIGHT_MAX;

impl Member {
    /// What the network brought from `node`. `Ok(false)`: not acceptable, dropped.
    pub(crate) fn step(&mut self, node: NodeId, mut message: Message) -> Result<bool, Fault> {
        if message.to != self.id.0 || self.voters.get(&ReplicaId(message.from)) != Some(&node) {
            return Ok(false);
        }
        if !self.is_acceptable(&message)? {
            return Ok(false);
        }
        if message.reject
            && message.msg_type == MessageType::MsgAppendResponse
            && !self.is_news(&mut message)
        {
            return Ok(false);
        }
        self.hear(&mut message);
        Ok(self.raft.step(message).is_ok())
    }

    /// Whether a follower's rejection is not overtaken by what it acknowledged since; a hint that is gets corrected.
    ///
    /// Raft 0.7 would probe below what the follower is known to hold (fixed upstream after 0.7.0). Those entries may have left
    /// memory, and then the follower would never be served again.
    fn is_news(&self, rejection: &mut Message) -> bool {
        let Some(progress) = self.raft.raft.prs().get(rejection.from) else {
            return false;
        };
        if rejection.index <= progress.matched {
            return false;
        }
        let mut probe = rejection.reject_hint;
        if rejection.log_term > 0 {
            let log = &self.raft.raft.raft_log;
            probe = log.find_conflict_by_term(probe, rejection.log_term).0;
        }
        if probe < progress.matched {
            rejection.reject_hint = progress.matched;
            rejection.log_term = 0;
        }
        true
    }

    /// Whether it can be true. An error: it is true, and this replica has lost what it promised to keep.
    fn is_acceptable(&self, m: &Message) -> Result<bool, Fault> {
        let last = self.raft.raft.raft_log.last_index();
        let current = m.term >= self.raft.raft.term;
        Ok(match m.msg_type {
            MessageType::MsgAppend => {
                m.term > 0
                    && m.log_term <= m.term
                    // Raft takes term 0 for the term of any index beyond its log.
                    && (m.log_term == 0) == (m.index == 0)
                    && terms_ascend(m)
                    && self.writes.len() < READIES_IN_FLIGHT_MAX
                    && !self.is_paused()
                    && m.from != self.id.0
            }
            MessageType::MsgHeartbeat if current && m.commit > last => {
                return Err(Fault(format!(
                    "the leader knows this replica to hold entries up to {}, but its log ends at {last}",
                    m.commit
                )));
            }
            MessageType::MsgHeartbeat => m.term > 0,
            MessageType::MsgAppendResponse => m.index <= last && m.reject_hint <= last,
            // A candidate's own vote must be durable before it counts others: raft relies on it.
            MessageType::MsgRequestVoteResponse => self.writes.is_empty(),
            _ => m.term > 0,
        })
    }
}

fn terms_ascend(m: &Message) -> bool {
    let mut last = m.log_term;
    m.entries.iter().all(|e| {
        let ascends = e.term >= last.max(1) && e.term <= m.term;
        last = e.term;
        ascends
    })
}
