//! The leader's way from calls to log entries, and to answers that need no entry.
//!
//! Everything that waits is decided against the state as it is, and what shall change goes into as few entries as bounds allow (D6).
//! What changes nothing (a refusal, an admission, a query, a message that is not stored) is true only while this replica leads, so it is
//! answered after a proof of leadership (H35): a refusal as it was decided here, the others as they are decided then.

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use wk_chat::command::{Append, Batch, RulesVersion, Stamp};
use wk_chat::request::{CallError, OutboxKey, SetChange, Why, Write};
use wk_chat::{Answer, Command, Context, Facts, Machine, Needs, Query, Reply, Request, Verdict};
use wk_proto::limits::ENTRY_BYTES_MAX;
use wk_proto::{ChannelKey, MessageId, Ticket, WallMs};
use wk_store::View;

use super::{Caller, Fault, Leading, Member, Proposal, Role, Turn, mix};
use crate::asks::Wait;
use crate::held::Line;
use crate::ids::Ids;
use crate::limits::{
    ASK_WAIT_MS, BATCH_COMMANDS_MAX, BATCHES_IN_FLIGHT_MAX, GROUP_CALLS_MAX, READS_WAITING_MAX,
    SWEEP_PERIOD_MS, TURN_WORK_MAX,
};
use crate::reads::Read;
use crate::shard::Output;

/// Rules this build writes. Replicated per slot once there is a second version (H47).
const RULES: RulesVersion = RulesVersion(1);

/// Bytes of a message in an entry or a queue besides its record, or its texts and payload, and its channel: an upper bound.
const SEND_OVERHEAD: usize = 256;

/// Bytes of any other call besides its lists: ids and fixed parts, an upper bound.
const WRITE_OVERHEAD: usize = 2_048;

impl Member {
    /// A call arrives at the leader ([`Self::leads_in`]). An error has had no effect.
    pub(crate) fn call(
        &mut self,
        ticket: Ticket,
        request: Request,
        inflight_bytes_max: usize,
    ) -> Result<(), Why> {
        let weight = weight(&request);
        if self.inflight_bytes + weight > inflight_bytes_max.max(weight) {
            return Err(Why::Busy);
        }
        match request {
            Request::Query(_) | Request::Admit(_) if self.reads.len() >= READS_WAITING_MAX => {
                return Err(Why::Busy);
            }
            Request::Query(_) | Request::Admit(_) => self.reads.push((ticket, request, None)),
            Request::Send(_) | Request::Write(_) if self.calls.len() >= GROUP_CALLS_MAX => {
                return Err(Why::Busy);
            }
            Request::Send(_) | Request::Write(_) => {
                self.inflight_bytes += weight;
                self.calls.push_back((ticket, request));
            }
        }
        Ok(())
    }

    /// Another group answered a question of [`Output::Ask`].
    pub(crate) fn asked(&mut self, ticket: Ticket, answer: Option<Answer>, turn: &mut Turn<'_>) {
        let Some(Answer::Channel(flags)) = answer else {
            for ticket in self.asks.end(ticket) {
                turn.reply(ticket, Err(CallError::NotSent(Why::Timeout)));
            }
            return;
        };
        let Some((Request::Send(send), behind)) = self.asks.take(ticket) else {
            return;
        };
        let mut send = (*send).clone();
        send.receiver_allows_strangers = Some(flags.is_some_and(|f| f.allow_stranger));
        // To the front, in their order: what came later is still in the queue. Those behind ask for themselves, for what the receiver
        // allows may have changed since this question.
        let first = (ticket, Request::Send(send.into()));
        for call in std::iter::once(first).chain(behind).rev() {
            self.inflight_bytes += weight(&call.1);
            self.calls.push_front(call);
        }
    }

    /// Whether this ticket waits for [`Member::asked`].
    pub(crate) fn asks(&self, ticket: Ticket) -> bool {
        self.asks.contains(ticket)
    }

    pub(super) fn can_decide_more(&self) -> bool {
        let calls = self.may_propose() && !self.calls.is_empty();
        self.is_proven() && (calls || self.reads.can_begin())
    }

    /// With enough entries on their way to disk, new calls gather for a larger one.
    fn may_propose(&self) -> bool {
        self.writes.iter().filter(|w| w.has_entries).count() < BATCHES_IN_FLIGHT_MAX
    }

    /// Decides what waits, begins the proofs, and proposes: in this order, so that a refusal is never overtaken by a later success
    /// on the way to the same voters.
    pub(super) fn propose_calls(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if !self.is_proven() {
            return Ok(());
        }
        if self.may_propose() {
            let time = turn.wall.max(self.last_time);
            self.draft_done(time);
            self.draft_sweep(time, turn)?;
            self.decide_calls(time, turn)?;
        }
        let round = self.reads.begin();
        if let Some(round) = round {
            self.raft.read_index(round.to_le_bytes().to_vec());
        }
        for draft in std::mem::take(&mut self.drafts) {
            self.propose(draft, turn);
        }
        if let Some(round) = round {
            self.reads
                .begun(round, self.raft.raft.raft_log.last_index());
        }
        Ok(())
    }

    fn decide_calls(&mut self, time: WallMs, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if self.calls.is_empty() {
            return Ok(());
        }
        let view = self.store.view();
        let mut ids = 0..0;
        while turn.work < TURN_WORK_MAX {
            let Some((ticket, request)) = self.calls.pop_front() else {
                break;
            };
            turn.work += 1;
            self.inflight_bytes = self.inflight_bytes.saturating_sub(weight(&request));
            let joined = self.asks.join((ticket, request));
            let Some((ticket, request)) = waited(joined, turn) else {
                continue;
            };
            match self.verdict(ticket, &view, &request, &mut ids, time, turn)? {
                Verdict::Propose(command) => {
                    let caller = caller(ticket, &request);
                    self.draft_command(command, caller, time);
                }
                Verdict::Answer(refusal) => {
                    self.read_or_busy((ticket, request, Some(refusal)), turn);
                }
                Verdict::Transient(..) => self.read_or_busy((ticket, request, None), turn),
                Verdict::Ask(query) => self.ask(ticket, request, query, turn),
            }
        }
        Ok(())
    }

    /// What the group itself has to say goes first.
    fn draft_done(&mut self, time: WallMs) {
        let keys = self.outbox.take_done(!self.calls.is_empty());
        if !keys.is_empty() {
            let command = Command::Write(Box::new(Write::OutboxDone { keys }));
            self.draft_command(command, Caller::Nobody, time);
        }
    }

    /// What time made superfluous. Every group looks at another moment; not while there is no room for what a sweep writes.
    fn draft_sweep(&mut self, time: WallMs, turn: &Turn<'_>) -> Result<(), Fault> {
        let first = turn.now.plus_ms(mix(self.id.0) % SWEEP_PERIOD_MS);
        let Role::Leader(leading) = &mut self.role else {
            return Ok(());
        };
        if *leading.sweep_at.get_or_insert(first) > turn.now || turn.is_full {
            return Ok(());
        }
        leading.sweep_at = Some(turn.now.plus_ms(SWEEP_PERIOD_MS));
        if let Some(write) = Machine::sweep(&self.store.view(), turn.policy, time)? {
            self.draft_command(Command::Write(Box::new(write)), Caller::Nobody, time);
        }
        Ok(())
    }

    fn draft_command(&mut self, command: Command, caller: Caller, time: WallMs) {
        match self.drafts.last_mut() {
            Some(draft) if draft.has_room_for(&command) => draft.push(command, caller),
            _ => {
                let mut draft = Draft::new(time);
                draft.push(command, caller);
                self.drafts.push(draft);
            }
        }
    }

    fn verdict(
        &mut self,
        ticket: Ticket,
        view: &View,
        request: &Request,
        ids: &mut std::ops::Range<i64>,
        time: WallMs,
        turn: &mut Turn<'_>,
    ) -> Result<Verdict, Fault> {
        let waiting = self.calls.len() + 1;
        self.deciding = Some(ticket);
        let Role::Leader(leading) = &mut self.role else {
            return Err(Fault("decides without leading".into()));
        };
        if ids.is_empty() {
            *ids = leading.reserve(&mut turn.ids, turn.wall, waiting);
        }
        let mut needs = Needs::default();
        self.machine.needs(request, &mut needs);
        let facts = Facts::fetch(view, &needs)?;
        let mut next_id = MessageId(ids.start);
        let mut context = Context {
            now: time,
            term: leading.term,
            policy: turn.policy,
            next_id: &mut next_id,
            fence: &mut leading.fence,
        };
        let verdict = self.machine.decide(&facts, &mut context, request);
        ids.start = next_id.0;
        self.deciding = None;
        Ok(verdict)
    }

    fn read_or_busy(&mut self, read: Read, turn: &mut Turn<'_>) {
        if self.reads.len() >= READS_WAITING_MAX {
            turn.reply(read.0, Err(CallError::NotSent(Why::Busy)));
        } else {
            self.reads.push(read);
        }
    }

    fn ask(&mut self, ticket: Ticket, request: Request, query: Query, turn: &mut Turn<'_>) {
        let until = turn.now.plus_ms(ASK_WAIT_MS);
        match self.asks.ask((ticket, request), until) {
            Wait::Ask => turn.outputs.push(Output::Ask(ticket, Box::new(query))),
            other => drop(waited(other, turn)),
        }
    }

    fn propose(&mut self, draft: Draft, turn: &mut Turn<'_>) {
        let data = draft.batch.encode();
        let proposal = Proposal {
            index: self.raft.raft.raft_log.last_index() + 1,
            term: self.raft.raft.term,
            bytes: data.len(),
            callers: draft.callers,
        };
        self.inflight_bytes += proposal.bytes;
        match self.raft.step(proposition(self.id.0, data)) {
            Ok(()) => {
                self.last_time = draft.batch.stamp.time;
                self.proposals.push_back(proposal);
            }
            // Leadership is being given away.
            Err(_) => {
                self.abandon(proposal, CallError::NotSent(Why::NotLeader), turn);
                self.outbox.restore(draft.done);
            }
        }
    }

    /// Answers the reads whose proof is there.
    pub(super) fn serve_reads(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if !self.is_proven() {
            return Ok(());
        }
        self.serving = self.reads.ready(self.store.applied().0).into();
        if self.serving.is_empty() {
            return Ok(());
        }
        let view = self.store.view();
        while let Some((ticket, request, refusal)) = self.serving.pop_front() {
            match refusal {
                Some(refusal) => self.refuse(ticket, &request, refusal, &view, turn)?,
                None => self.serve(ticket, request, &view, turn)?,
            }
        }
        Ok(())
    }

    /// Refuses a call, unless it is another copy of a message that is stored: then it is answered as the first copy was, also if the
    /// sender may not send any more.
    fn refuse(
        &mut self,
        ticket: Ticket,
        request: &Request,
        refusal: Reply,
        view: &View,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        let Request::Send(send) = request else {
            turn.reply(ticket, Ok(refusal));
            return Ok(());
        };
        let time = turn.wall.max(self.last_time);
        match Machine::result_of_first(view, turn.policy, time, send)? {
            Some(result) => {
                let line = Line::Messages(send.channel.clone());
                self.hold(ticket, result, &[], Some(&line), turn);
            }
            None => turn.reply(ticket, Ok(refusal)),
        }
        Ok(())
    }

    fn serve(
        &mut self,
        ticket: Ticket,
        request: Request,
        view: &View,
        turn: &mut Turn<'_>,
    ) -> Result<(), Fault> {
        if let Request::Query(query) = request {
            turn.outputs.push(Output::Read(ticket, view.clone(), query));
            return Ok(());
        }
        let time = turn.wall.max(self.last_time);
        match self.verdict(ticket, view, &request, &mut (0..0), time, turn)? {
            Verdict::Answer(reply) => turn.reply(ticket, Ok(reply)),
            Verdict::Transient(effect, reply) => {
                let effects = vec![effect];
                turn.outputs
                    .push(Output::Committed(self.group, view.applied(), effects));
                turn.reply(ticket, Ok(reply));
            }
            Verdict::Ask(query) => self.ask(ticket, request, query, turn),
            // Admissions and messages that are not stored never change the log.
            Verdict::Propose(_) => {
                return Err(Fault(
                    "a call that changes nothing was to be proposed".into(),
                ));
            }
        }
        Ok(())
    }
}

impl Leading {
    /// Ids for the next `waiting` commands, or as many as come in one piece.
    fn reserve(&mut self, ids: &mut Ids, wall: WallMs, waiting: usize) -> std::ops::Range<i64> {
        let count = waiting.min(BATCH_COMMANDS_MAX).min(ids.range_max());
        let first = ids.reserve(wall, self.last_id, count).0;
        let end = first + count as i64;
        self.last_id = MessageId(end - 1);
        first..end
    }
}

/// An entry in the making.
#[derive(Debug)]
pub(super) struct Draft {
    batch: Batch,
    pub(super) callers: Vec<Caller>,
    /// Outbox rows it removes.
    done: Vec<OutboxKey>,
    bytes: usize,
}

impl Draft {
    fn new(time: WallMs) -> Self {
        let stamp = Stamp {
            time,
            rules: RULES,
            cursors: Vec::new(),
        };
        Self {
            batch: Batch {
                stamp,
                commands: Vec::new(),
            },
            callers: Vec::new(),
            done: Vec::new(),
            bytes: 0,
        }
    }

    fn has_room_for(&self, command: &Command) -> bool {
        self.batch.commands.len() < BATCH_COMMANDS_MAX
            && self.bytes + command_bytes(command) <= ENTRY_BYTES_MAX
    }

    fn push(&mut self, command: Command, caller: Caller) {
        if let Command::Write(write) = &command
            && let Write::OutboxDone { keys } = write.as_ref()
        {
            self.done.extend(keys);
        }
        self.bytes += command_bytes(&command);
        self.batch.commands.push(command);
        self.callers.push(caller);
    }
}

/// The call, if it need not wait.
fn waited(wait: Wait, turn: &mut Turn<'_>) -> Option<(Ticket, Request)> {
    match wait {
        Wait::No(call) => return Some(call),
        Wait::Full(ticket) => turn.reply(ticket, Err(CallError::NotSent(Why::Busy))),
        Wait::Ask | Wait::Behind => {}
    }
    None
}

fn caller(ticket: Ticket, request: &Request) -> Caller {
    let line = match request {
        Request::Send(send) => Some(Line::Messages(send.channel.clone())),
        Request::Write(write) => changed(write).map(|channel| Line::Changes(channel.ordinary())),
        Request::Admit(_) | Request::Query(_) => None,
    };
    match line {
        Some(line) => Caller::InLine(ticket, line),
        None => Caller::Single(ticket),
    }
}

/// The channel whose members or lists this changes.
fn changed(write: &Write) -> Option<&ChannelKey> {
    match write {
        Write::Members { channel, .. } | Write::Lists { channel, .. } => Some(channel),
        _ => None,
    }
}

/// As [`raft::RawNode::propose`], without a copy of the data.
fn proposition(from: u64, data: Bytes) -> Message {
    let entry = Entry {
        data,
        ..Entry::default()
    };
    Message {
        msg_type: MessageType::MsgPropose,
        from,
        entries: vec![entry].into(),
        ..Message::default()
    }
}

/// Bytes a call counts for while it waits.
pub(super) fn weight(request: &Request) -> usize {
    match request {
        Request::Send(send) => {
            let texts = [&send.client_msg_no, &send.topic, &send.stream_no];
            let texts: usize = texts.iter().map(|t| t.len()).sum();
            let ids = send.from.as_str().len() + send.channel.base.as_str().len();
            let recipients = send.recipients.as_ref().map_or(0, |r| uids_bytes(r));
            send.payload.len() + texts + ids + recipients + SEND_OVERHEAD
        }
        Request::Write(write) => write_bytes(write),
        Request::Admit(_) | Request::Query(_) => WRITE_OVERHEAD,
    }
}

fn command_bytes(command: &Command) -> usize {
    match command {
        Command::Append(Append {
            record, channel, ..
        }) => record.as_bytes().len() + channel.base.as_str().len() + SEND_OVERHEAD,
        Command::Write(write) => write_bytes(write),
    }
}

fn write_bytes(write: &Write) -> usize {
    let variable = match write {
        Write::SetToken { token, .. } => token.len(),
        Write::Members { change, .. } | Write::Lists { change, .. } => set_bytes(change),
        Write::SystemUids { uids, .. } => uids_bytes(uids),
        Write::OutboxDone { keys } => keys.len() * 16,
        // A placement's rows are small numbers; addresses are short.
        Write::Genesis(genesis) => genesis.slots.len() * 64 + genesis.members.len() * 64,
        _ => 0,
    };
    variable + WRITE_OVERHEAD
}

fn set_bytes(change: &SetChange) -> usize {
    match change {
        SetChange::Add(uids)
        | SetChange::Remove(uids)
        | SetChange::Replace(uids)
        | SetChange::Stage { uids, .. } => uids_bytes(uids),
        SetChange::Switch { .. } => 0,
    }
}

fn uids_bytes(uids: &[wk_proto::Uid]) -> usize {
    uids.iter().map(|u| u.as_str().len() + 8).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::record::Body;
    use wk_proto::{ChannelId, ChannelKey, ChannelType, Epoch, LogIndex, Uid};

    /// What is counted is an upper bound of what is written.
    fn assert_bounded(command: Command) {
        let mut draft = Draft::new(WallMs(1));
        let empty = draft.batch.encode().len();
        draft.push(command, Caller::Nobody);
        let written = draft.batch.encode().len() - empty;
        assert!(written <= draft.bytes, "{written} > {}", draft.bytes);
    }

    #[test]
    fn no_command_is_longer_than_it_counts() {
        let id = "x".repeat(512);
        let channel = ChannelKey::new(
            ChannelId::trusted(&format!("{id}@{id}")),
            ChannelType::GROUP,
        );
        let body = Body {
            from_uid: &id,
            payload: &[7; 5_000],
            ..Body::default()
        };
        assert_bounded(Command::Append(Append {
            channel: channel.clone(),
            record: body.encode(),
            dedupe_since: WallMs(1),
            conversation: true,
            origin: Some(wk_proto::SessionRef {
                node: wk_proto::NodeId(1),
                conn: wk_proto::ConnId(1),
            }),
        }));
        let write = |write| assert_bounded(Command::Write(Box::new(write)));
        write(Write::Members {
            channel: channel.clone(),
            change: SetChange::Replace(vec![Uid::trusted(&id); 1_000]),
        });
        write(Write::Inbox(wk_chat::request::Inbox::Membership {
            uid: Uid::trusted(&id),
            channel,
            epoch: Epoch::default(),
            change: wk_chat::request::MembershipChange::Command {
                read: wk_proto::MessageSeq(9),
            },
            time: WallMs(1),
        }));
        let key = OutboxKey {
            index: LogIndex(u64::MAX),
            position: u32::MAX,
        };
        write(Write::OutboxDone {
            keys: vec![key; 256],
        });
    }
}
