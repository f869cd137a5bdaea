//! From committed entries to state, effects and replies; and the outbox rows they leave behind.

use raft::eraftpb::{Entry, EntryType};
use wk_chat::command::{Batch, Outcome};
use wk_chat::request::{CallError, Inbox, OutboxKey, Reply, Why};
use wk_chat::{Effect, Machine};
use wk_proto::{ChannelId, ChannelKey, ChannelType, LogIndex, Term, Ticket};

use super::{Caller, Fault, Member, Proposal, Role, Turn};
use crate::held::Line;
use crate::ids::Ids;
use crate::shard::Output;

impl Member {
    /// Applies one committed entry as one unit.
    pub(super) fn apply(&mut self, entry: Entry, turn: &mut Turn<'_>) -> Result<(), Fault> {
        let (index, term) = (entry.index, entry.term);
        let (outcomes, mut effects) = self.execute(entry, &mut turn.ids)?;
        self.applied_term = Term(term);
        if matches!(self.role, Role::Elected(elected) if elected.0 == term) {
            self.become_leader(Term(term))?;
        }
        if !self.leads() {
            effects.retain(Effect::is_everywhere);
        }
        self.emit(LogIndex(index), effects, turn);
        turn.work += outcomes.len();
        self.resolve(index, term, outcomes, turn);
        Ok(())
    }

    fn execute(
        &mut self,
        entry: Entry,
        ids: &mut Ids,
    ) -> Result<(Vec<Outcome>, Vec<Effect>), Fault> {
        let at = LogIndex(entry.index);
        if entry.entry_type != EntryType::EntryNormal {
            return Err(Fault(format!(
                "entry {at} changes members: unknown to this build"
            )));
        }
        let mut outcomes = Vec::new();
        let mut effects = Vec::new();
        // A new leader's first entry is empty: it only moves the index.
        if entry.data.is_empty() {
            self.store.begin(at).commit();
            return Ok((outcomes, effects));
        }
        let batch = Batch::decode(entry.data).map_err(|e| Fault(format!("entry {at}: {e}")))?;
        let mut tx = self.store.begin(at);
        Machine::apply_stamp(&batch.stamp, &mut tx)?;
        for (position, command) in batch.commands.into_iter().enumerate() {
            let position = position as u32;
            let outcome =
                self.machine
                    .apply(at, position, &batch.stamp, command, &mut tx, &mut effects)?;
            outcomes.push(outcome);
        }
        ids.raise(tx.last_message_id());
        tx.commit();
        self.last_time = self.last_time.max(batch.stamp.time);
        Ok((outcomes, effects))
    }

    /// What the world must do.
    fn emit(&mut self, at: LogIndex, effects: Vec<Effect>, turn: &mut Turn<'_>) {
        let mut others = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                // Before it is proven, a leader finds them in the store later.
                Effect::Outbox(key, inbox) if self.is_proven() => {
                    self.outbox.push(key, inbox, turn.now);
                }
                Effect::Outbox(..) => {}
                other => others.push(other),
            }
        }
        if !others.is_empty() {
            turn.outputs.push(Output::Committed(self.group, at, others));
        }
    }

    /// Tells the callers of the entry at `index`, and of any entry of ours that lost its place.
    fn resolve(&mut self, index: u64, term: u64, outcomes: Vec<Outcome>, turn: &mut Turn<'_>) {
        while self.proposals.front().is_some_and(|p| p.index <= index) {
            let Some(proposal) = self.proposals.pop_front() else {
                break;
            };
            if (proposal.index, proposal.term) == (index, term) {
                return self.answer(proposal, outcomes, turn);
            }
            // Another entry is committed where ours was: ours never will be.
            self.abandon(proposal, CallError::NotSent(Why::LostLeadership), turn);
        }
    }

    fn answer(&mut self, proposal: Proposal, outcomes: Vec<Outcome>, turn: &mut Turn<'_>) {
        self.inflight_bytes = self.inflight_bytes.saturating_sub(proposal.bytes);
        for (caller, outcome) in proposal.callers.into_iter().zip(outcomes) {
            let (ticket, line) = match &caller {
                Caller::Nobody => continue,
                Caller::InLine(ticket, line) => (*ticket, Some(line)),
                Caller::Single(ticket) => (*ticket, None),
            };
            let Outcome { reply, outbox } = outcome;
            self.hold(ticket, reply, &outbox, line, turn);
        }
    }

    /// Replies when what the call owes is delivered, and behind those in its line that wait (H6).
    pub(super) fn hold(
        &mut self,
        ticket: Ticket,
        reply: Reply,
        rows: &[OutboxKey],
        line: Option<&Line>,
        turn: &mut Turn<'_>,
    ) {
        let until = turn.now.plus_ms(turn.config.outbox_wait_ms);
        let mut released = Vec::new();
        self.held
            .push(ticket, reply, rows, line, until, &mut released);
        for (ticket, reply) in released {
            turn.reply(ticket, Ok(reply));
        }
    }

    /// What became of an outbox row.
    pub(crate) fn on_outbox_result(&mut self, key: OutboxKey, applied: bool, turn: &mut Turn<'_>) {
        self.outbox.result(key, applied, turn.now);
        if applied {
            let mut released = Vec::new();
            self.held.row_done(key, &mut released);
            for (ticket, reply) in released {
                turn.reply(ticket, Ok(reply));
            }
        }
    }

    /// Sends what is due, and fetches rows that had no room before.
    pub(super) fn work_outbox(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if !self.is_proven() || self.outbox.is_idle() {
            return Ok(());
        }
        if let Some((after, limit)) = self.outbox.wants_page() {
            let rows = Machine::owed(&self.store.view(), after, limit)?;
            self.inherit(&rows, turn);
            self.outbox.page(rows, limit, turn.now);
        }
        let mut due = Vec::new();
        self.outbox.due(turn.now, &mut due);
        for (key, inbox) in due {
            turn.outputs.push(Output::Outbox(self.group, key, inbox));
        }
        Ok(())
    }

    fn inherit(&mut self, rows: &[Effect], turn: &Turn<'_>) {
        let until = turn.now.plus_ms(turn.config.outbox_wait_ms);
        for row in rows {
            if let Effect::Outbox(key, inbox) = row {
                self.held.inherit(*key, lines_of(inbox), until);
            }
        }
    }
}

/// In which lines the call waits that owes this.
fn lines_of(inbox: &Inbox) -> Vec<Line> {
    match inbox {
        Inbox::Membership { channel, .. } => vec![
            Line::Messages(channel.clone()),
            Line::Changes(channel.clone()),
        ],
        Inbox::Pair { owner, .. } => {
            let id = ChannelId::trusted(owner.as_str());
            vec![Line::Changes(ChannelKey::new(id, ChannelType::PERSON))]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use wk_chat::Stamp;
    use wk_chat::command::{Consumer, RulesVersion};
    use wk_proto::{GroupId, MessageId, NodeId, ReplicaId, SlotId, WallMs};
    use wk_store::disk::SimDisk;
    use wk_store::{Recovered, ReplicaMeta, Store};

    use super::*;
    use crate::shard::{Group, ShardConfig};

    fn member() -> Member {
        let (node, replica) = (NodeId(1), ReplicaId(1));
        let group = GroupId::Slot(SlotId(0));
        let voters = BTreeMap::from([(replica, node)]);
        let store = Store::open(Arc::new(SimDisk::new())).unwrap();
        let meta = ReplicaMeta {
            replica,
            group,
            membership: crate::membership::encode(&voters),
            applied: LogIndex(0),
            applied_term: Term(0),
        };
        store.create(&[meta]).unwrap();
        let group = Group {
            group,
            replica,
            voters,
            store: store.slot(replica).unwrap(),
            applied_term: Term(0),
            log: Recovered::default(),
        };
        Member::recover(&ShardConfig::new(node), group, 1)
            .map_err(|unusable| unusable.fault)
            .unwrap()
    }

    #[test]
    fn what_an_entrys_stamp_carries_is_applied_with_it() {
        let mut member = member();
        let stamp = Stamp {
            time: WallMs(5),
            rules: RulesVersion::CURRENT,
            cursors: vec![(Consumer::Deliver, MessageId(7))],
        };
        let commands = Vec::new();
        let entry = Entry {
            index: 1,
            term: 1,
            data: Batch { stamp, commands }.encode(),
            ..Entry::default()
        };
        let mut ids = Ids::new(1, 0, 1);
        member.execute(entry, &mut ids).unwrap();
        let position = Machine::cursor(&member.store.view(), Consumer::Deliver);
        assert_eq!(position.unwrap(), MessageId(7));
        assert_eq!(member.last_time, WallMs(5));
    }
}
