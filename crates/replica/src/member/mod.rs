//! One member of one group: its raft node, its state, and the calls on their way through it.
//!
//! * [`recover`]: from what disk holds to a member;
//! * [`accept`]: what of a peer's messages may reach raft;
//! * [`role`]: the changes of role, and what they mean for those who wait;
//! * [`decide`]: the leader's way from calls to log entries;
//! * [`apply`]: from committed entries to state, effects and replies;
//! * this module: raft's cycle (ready, persist, send), the log's retention, and time.
//!
//! A [`Fault`] from any method means that an invariant broke; the shard then stops this member and no other (H58).

mod accept;
mod apply;
mod decide;
mod recover;
mod role;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft::RawNode;
use raft::eraftpb::{Entry, Message, MessageType};
use wk_chat::request::{CallError, Reply, Why};
use wk_chat::{Machine, Policy, Request};
use wk_proto::{
    Fence, GroupId, LogIndex, MessageId, Mono, NodeId, ReplicaId, Term, Ticket, WallMs,
};
use wk_store::{SlotStore, WalRecord};

use crate::asks::Asks;
use crate::held::{Held, Line};
use crate::ids::Ids;
use crate::limits::{
    APPEND_BYTES_MAX, FETCH_WAIT_MS, LOG_BUDGET_BYTES_MAX, PAUSED_BYTES_MAX, TURN_WORK_MAX,
};
use crate::log::Log;
use crate::mail::Mail;
use crate::outbox::Outbox;
use crate::reads::{Read, Reads};
use crate::shard::{Output, ShardConfig, WalMark};
use crate::unreleased::Unreleased;

/// Why a member must stop; the text goes to the operator.
#[derive(Debug)]
pub(crate) struct Fault(pub String);

impl From<wk_store::Error> for Fault {
    fn from(error: wk_store::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<raft::Error> for Fault {
    fn from(error: raft::Error) -> Self {
        Self(format!("raft: {error}"))
    }
}

/// What one turn of the shard knows and collects, over all its members.
pub(crate) struct Turn<'a> {
    pub(crate) now: Mono,
    pub(crate) wall: WallMs,
    pub(crate) config: &'a ShardConfig,
    pub(crate) policy: &'a Policy,
    /// Memory is full of what is applied and not checkpointed.
    pub(crate) is_full: bool,
    /// Commands decided and applied so far.
    pub(crate) work: usize,
    pub(crate) ids: Ids,
    /// Names the end of `records`.
    pub(crate) mark: WalMark,
    pub(crate) records: Vec<WalRecord>,
    pub(crate) mail: Mail,
    /// Everything that comes after the writes and the mail.
    pub(crate) outputs: Vec<Output>,
}

impl Turn<'_> {
    fn reply(&mut self, ticket: Ticket, result: Result<Reply, CallError>) {
        self.outputs.push(Output::Reply(ticket, result));
    }
}

/// See the module.
pub(crate) struct Member {
    pub(crate) group: GroupId,
    pub(crate) id: ReplicaId,
    voters: BTreeMap<ReplicaId, NodeId>,
    raft: RawNode<Log>,
    store: SlotStore,
    machine: Machine,
    applied_term: Term,
    role: Role,
    /// Last (term, leader) reported.
    told: (Term, Option<NodeId>),
    /// Committed, durable here, and not yet applied: empty between turns unless applying is paused.
    committed: VecDeque<Entry>,
    /// Readies handed to the WAL and not yet durable, oldest first.
    writes: VecDeque<PendingWrite>,
    /// Single voter: stand for election as soon as the known commit index is applied.
    campaign: bool,

    calls: VecDeque<(Ticket, Request)>,
    /// The call in hand, and what was decided in this turn: empty between turns, unless one was cut short by a fault.
    deciding: Option<Ticket>,
    drafts: Vec<decide::Draft>,
    serving: VecDeque<Read>,
    proposals: VecDeque<Proposal>,
    /// Bytes of `calls` and `proposals`.
    inflight_bytes: usize,
    /// Until when a deposed leader looks for the fate of its proposals.
    lost_until: Option<Mono>,
    reads: Reads,
    /// Calls that wait for an answer from another group.
    asks: Asks,
    held: Held,
    outbox: Outbox,

    /// Largest time of any entry applied or proposed here.
    last_time: WallMs,
    /// Until when a piece of the log may come from the WAL.
    fetch_until: Option<Mono>,
    /// What the WAL holds.
    unreleased: Unreleased,
    /// Every voter has the log up to here on its disk, as leaders said in their heartbeats.
    everywhere: u64,
    /// Applied bytes of the log kept in memory.
    tail_bytes_max: usize,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Elected; entries of earlier terms may still be on their way into the state.
    Elected(Term),
    /// Has applied an entry of its own term: knows everything that was ever committed before it.
    Leader(Leading),
}

/// A leader's counters.
#[derive(Debug)]
struct Leading {
    term: Term,
    fence: Fence,
    /// Largest message id in the log.
    last_id: MessageId,
    /// When to look for what a sweep would remove; `None`: not yet decided.
    sweep_at: Option<Mono>,
}

#[derive(Debug)]
struct PendingWrite {
    mark: WalMark,
    /// Raft's number of the (last) ready it covers.
    number: u64,
    has_entries: bool,
}

/// One entry of ours in the log, and who waits for it.
#[derive(Debug)]
struct Proposal {
    index: u64,
    term: u64,
    bytes: usize,
    /// By position of the command.
    callers: Vec<Caller>,
}

/// Who waits for one command.
#[derive(Debug)]
enum Caller {
    /// The shard itself.
    Nobody,
    /// Its reply keeps its place in this line.
    InLine(Ticket, Line),
    /// Its reply may overtake any other.
    Single(Ticket),
}

impl Caller {
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Nobody => None,
            Self::InLine(ticket, _) | Self::Single(ticket) => Some(*ticket),
        }
    }
}

impl Member {
    /// One raft tick.
    pub(crate) fn tick(&mut self, turn: &mut Turn<'_>) {
        // Raft draws its election timeout from the thread's random source at each change of term; ours replaces it before it counts.
        let timeout = self.election_timeout(turn.config);
        self.raft.raft.set_randomized_election_timeout(timeout);
        self.raft.tick();
        self.outbox.tick();
        self.expire(turn);
    }

    fn election_timeout(&self, config: &ShardConfig) -> usize {
        let ticks = config.election_ticks as u64;
        let noise = mix(config.seed ^ mix(self.id.0 ^ mix(self.raft.raft.term)));
        (ticks + noise % ticks) as usize
    }

    /// Everything written up to `mark` is on disk.
    pub(crate) fn on_durable(&mut self, mark: WalMark) -> bool {
        let mut number = None;
        while self.writes.front().is_some_and(|w| w.mark <= mark) {
            number = self.writes.pop_front().map(|w| w.number);
        }
        if let Some(number) = number {
            self.raft.on_persist_ready(number);
        }
        number.is_some()
    }

    /// One turn: decide, propose, write, send, apply, answer. `true`: there is more to do at once.
    pub(crate) fn turn(&mut self, turn: &mut Turn<'_>) -> Result<bool, Fault> {
        self.note_role(turn);
        self.propose_calls(turn)?;
        self.cycle(turn)?;
        self.apply_committed(turn)?;
        if self.campaign && self.store.applied().0 >= self.raft.raft.raft_log.committed {
            self.campaign = false;
            self.raft.campaign()?;
            self.note_role(turn);
            self.cycle(turn)?;
        }
        self.serve_reads(turn)?;
        self.work_outbox(turn)?;
        self.fetch_log(turn);
        self.forget_log();
        let can_apply = !self.committed.is_empty() && self.may_apply(turn);
        Ok(self.raft.has_ready() || self.campaign || can_apply || self.can_decide_more())
    }

    /// Takes what raft wants done, once.
    fn cycle(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        if !self.raft.has_ready() {
            return Ok(());
        }
        let mut ready = self.raft.ready();
        let number = ready.number();
        let entries = ready.take_entries();
        if ready.must_sync() {
            self.write(&entries, turn);
            self.raft.mut_store().append(&entries);
            self.writes.push_back(PendingWrite {
                mark: turn.mark,
                number,
                has_entries: !entries.is_empty(),
            });
        }
        for message in ready.take_messages() {
            self.post(message, None, turn);
        }
        let after = self.writes.back().map(|w| w.mark);
        for message in ready.take_persisted_messages() {
            self.post(message, after, turn);
        }
        for state in ready.take_read_states() {
            if let Ok(number) = <[u8; 8]>::try_from(state.request_ctx.as_slice()) {
                self.reads.proven(u64::from_le_bytes(number), state.index);
            }
        }
        self.committed.extend(ready.take_committed_entries());
        self.raft.advance_append_async(ready);
        match self.writes.back_mut() {
            // Nothing of its own to write: durable with what was written before it.
            Some(last) => last.number = number,
            None => self.raft.on_persist_ready(number),
        }
        self.note_role(turn);
        Ok(())
    }

    /// Applies what is committed and durable here; followers only as far as memory allows.
    fn apply_committed(&mut self, turn: &mut Turn<'_>) -> Result<(), Fault> {
        while self.may_apply(turn) && turn.work < TURN_WORK_MAX {
            let Some(entry) = self.committed.pop_front() else {
                break;
            };
            self.apply(entry, turn)?;
        }
        let applied = self.store.applied().0;
        if applied > self.raft.raft.raft_log.applied {
            self.raft.advance_apply_to(applied);
        }
        Ok(())
    }

    fn may_apply(&self, turn: &Turn<'_>) -> bool {
        self.leads() || !turn.is_full
    }

    /// Applying is paused, and enough waits for it.
    fn is_paused(&self) -> bool {
        let waiting: usize = self.committed.iter().map(|e| e.data.len()).sum();
        waiting > PAUSED_BYTES_MAX
    }

    fn write(&mut self, entries: &[Entry], turn: &mut Turn<'_>) {
        let state = self.raft.raft.hard_state();
        turn.records.push(WalRecord::State {
            replica: self.id,
            term: Term(state.term),
            vote: state.vote,
            commit: LogIndex(state.commit),
        });
        for entry in entries {
            self.unreleased.write(entry.index, entry.data.len());
            turn.records.push(WalRecord::Entry {
                replica: self.id,
                term: Term(entry.term),
                index: LogIndex(entry.index),
                kind: entry.entry_type as u8,
                data: entry.data.clone(),
            });
        }
    }

    fn post(&self, mut message: Message, after: Option<WalMark>, turn: &mut Turn<'_>) {
        if message.msg_type == MessageType::MsgHeartbeat {
            // Raft does not use it in a heartbeat; see `hear`.
            message.index = self.held_by_all();
        }
        if let Some(node) = self.voters.get(&ReplicaId(message.to)) {
            turn.mail.put(*node, after, self.group, &message);
        }
    }

    /// Takes what a heartbeat carries besides raft's. It is true whatever became of the leader that said it: an entry all voters
    /// have is never replaced.
    fn hear(&mut self, message: &mut Message) {
        if message.msg_type == MessageType::MsgHeartbeat {
            self.everywhere = self.everywhere.max(std::mem::take(&mut message.index));
        }
    }

    /// Nobody will ask for entries up to here: every voter has them on its disk, as far as this replica knows.
    fn held_by_all(&self) -> u64 {
        if !self.leads() {
            return self.everywhere;
        }
        let matched = self.raft.raft.prs().iter().map(|(_, p)| p.matched).min();
        self.everywhere.max(matched.unwrap_or(0))
    }

    /// Its state.
    pub(crate) fn store(&self) -> &SlotStore {
        &self.store
    }

    /// Bytes of calls on their way.
    pub(crate) fn inflight_bytes(&self) -> usize {
        self.inflight_bytes
    }

    /// Ends everything that has waited long enough.
    fn expire(&mut self, turn: &mut Turn<'_>) {
        if self.lost_until.is_some_and(|until| until <= turn.now) {
            self.lost_until = None;
            for proposal in std::mem::take(&mut self.proposals) {
                self.abandon(proposal, CallError::Unknown(Why::LostLeadership), turn);
            }
        }
        for ticket in self.asks.expire(turn.now) {
            turn.reply(ticket, Err(CallError::NotSent(Why::Timeout)));
        }
        if self.fetch_until.is_some_and(|until| until <= turn.now) {
            self.fetch_until = None;
            self.raft.mut_store().fetch_done();
        }
        let mut released = Vec::new();
        self.held.expire(turn.now, &mut released);
        for (ticket, reply) in released {
            turn.reply(ticket, Ok(reply));
        }
    }

    fn others(&self) -> impl Iterator<Item = (u64, &raft::Progress)> {
        let progress = self.raft.raft.prs().iter();
        progress
            .map(|(id, p)| (*id, p))
            .filter(|(id, _)| *id != self.id.0)
    }

    /// Drops applied entries from memory that nobody here will ask for.
    fn forget_log(&mut self) {
        let applied = self.raft.raft.raft_log.applied;
        let needless = self.held_by_all();
        let tail = self.tail_bytes_max;
        let log = self.raft.mut_store();
        log.forget(needless.min(applied));
        log.shrink(tail, applied);
    }

    /// Takes part in a checkpoint.
    pub(crate) fn freeze(&mut self) -> Option<wk_store::Frozen> {
        let membership = crate::membership::encode(&self.voters);
        self.store.freeze(membership, self.applied_term)
    }

    /// The checkpoint is on disk.
    pub(crate) fn flushed(&mut self, done: &wk_store::Checkpointed) {
        self.store.release(done);
    }

    /// What the WAL need not keep any more, as (index, term): it is in the last checkpoint, and all voters have it, or it has grown
    /// beyond its budget. A follower keeps as much as a leader: it may be the next one.
    pub(crate) fn release_log(&mut self) -> Option<(LogIndex, Term)> {
        let mut index = self.store.flushed().0;
        if self.unreleased.bytes() <= LOG_BUDGET_BYTES_MAX {
            index = index.min(self.held_by_all());
        }
        let term = self.raft.mut_store().release(index)?;
        self.unreleased.release(index);
        Some((LogIndex(index), Term(term)))
    }

    /// What a slow follower needs from the WAL.
    fn fetch_log(&mut self, turn: &mut Turn<'_>) {
        if let Some((first, last)) = self.raft.mut_store().take_wanted() {
            self.fetch_until = Some(turn.now.plus_ms(FETCH_WAIT_MS));
            turn.outputs.push(Output::ReadLog {
                replica: self.id,
                first: LogIndex(first),
                last: LogIndex(last),
                bytes: APPEND_BYTES_MAX as usize,
            });
        }
    }

    /// The answer to [`Output::ReadLog`]; empty if it cannot be had.
    pub(crate) fn fetched(&mut self, entries: Vec<(LogIndex, Term, u8, Bytes)>) {
        let entries = entries.into_iter().map(recover::entry).collect();
        let log = self.raft.mut_store();
        if let Some(context) = log.fetched(entries) {
            self.raft.on_entries_fetched(context);
            self.raft.mut_store().fetch_done();
        }
        self.fetch_until = None;
    }
}

/// Bits of a number, well mixed (splitmix64's finaliser).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
