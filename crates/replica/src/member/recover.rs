//! From what disk holds to a member: the checkpoint's state, and the log after it.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};
use raft::{Config, RawNode};
use wk_chat::Machine;
use wk_proto::{LogIndex, ReplicaId, Term, WallMs};
use wk_store::Recovered;

use super::{Fault, Member, Role};
use crate::limits::{
    APPEND_BYTES_MAX, APPENDS_IN_FLIGHT_MAX, GROUP_TAIL_BYTES_MAX, SHARD_TAIL_BYTES_MAX,
    TURN_APPLY_BYTES_MAX,
};
use crate::log::Log;
use crate::shard::{Group, ShardConfig};
use crate::unreleased::Unreleased;

/// A group whose disk contents do not fit together; the store is handed back for reading.
pub(crate) struct Unusable {
    pub(crate) group: Group,
    pub(crate) fault: Fault,
}

impl Member {
    /// Starts a group where disk left it. `groups`: how many share the shard.
    pub(crate) fn recover(
        config: &ShardConfig,
        group: Group,
        groups: usize,
    ) -> Result<Self, Box<Unusable>> {
        match raft_node(config, &group) {
            Err(fault) => Err(Box::new(Unusable { group, fault })),
            Ok(raft) => Ok(Self::new(group, raft, groups)),
        }
    }

    fn new(group: Group, raft: RawNode<Log>, groups: usize) -> Self {
        Self {
            campaign: group.voters.len() == 1,
            group: group.group,
            id: group.replica,
            voters: group.voters,
            unreleased: unreleased(&group.log),
            everywhere: 0,
            store: group.store,
            machine: Machine::default(),
            applied_term: group.applied_term,
            raft,
            role: Role::Follower,
            told: (Term(0), None),
            committed: VecDeque::new(),
            writes: VecDeque::new(),
            calls: VecDeque::new(),
            deciding: None,
            drafts: Vec::new(),
            serving: VecDeque::new(),
            proposals: VecDeque::new(),
            inflight_bytes: 0,
            lost_until: None,
            reads: Default::default(),
            asks: Default::default(),
            held: Default::default(),
            outbox: Default::default(),
            last_time: WallMs(0),
            fetch_until: None,
            tail_bytes_max: GROUP_TAIL_BYTES_MAX.min(SHARD_TAIL_BYTES_MAX / groups.max(1)),
        }
    }
}

fn unreleased(log: &Recovered) -> Unreleased {
    let mut unreleased = Unreleased::default();
    for (index, _, _, data) in &log.entries {
        unreleased.write(index.0, data.len());
    }
    unreleased
}

fn raft_node(config: &ShardConfig, group: &Group) -> Result<RawNode<Log>, Fault> {
    if group.voters.contains_key(&ReplicaId(0)) {
        return Err(Fault("0 is no replica id".into()));
    }
    if !group.voters.contains_key(&group.replica) {
        return Err(Fault(format!(
            "replica {} is not a voter of its own group",
            group.replica
        )));
    }
    let applied = group.store.applied();
    let log = log(group, applied)?;
    let raft = Config {
        id: group.replica.0,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        // Followers learn of a commit with the next append or heartbeat; only the leader answers anyway.
        skip_bcast_commit: true,
        max_committed_size_per_ready: TURN_APPLY_BYTES_MAX,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    Ok(RawNode::new(&raft, log, &logger)?)
}

/// The log as raft sees it: as many entries as the WAL kept, for the other voters; at least from the checkpoint on.
fn log(group: &Group, applied: LogIndex) -> Result<Log, Fault> {
    let Recovered {
        state,
        start,
        entries,
    } = &group.log;
    let checkpoint = (applied.0, group.applied_term.0);
    let mut base = start.map_or((0, 0), |(index, term)| (index.0, term.0));
    if base.0 > applied.0 {
        return Err(Fault(format!(
            "the log starts after {}, but the checkpoint ends at {applied}",
            base.0
        )));
    }
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for (index, term, kind, data) in entries.iter().filter(|e| e.0.0 > base.0) {
        let expected = base.0 + kept.len() as u64 + 1;
        if index.0 != expected {
            return Err(Fault(format!(
                "the log has {index} where {expected} belongs"
            )));
        }
        if *kind != EntryType::EntryNormal as u8 {
            return Err(Fault(format!(
                "entry {index} is of the unknown kind {kind}"
            )));
        }
        kept.push(entry((*index, *term, *kind, data.clone())));
    }
    // The WAL may have forgotten what the checkpoint holds.
    if base.0 + (kept.len() as u64) < applied.0 {
        kept.clear();
        base = checkpoint;
    }
    let last = base.0 + kept.len() as u64;
    let hard_state = hard_state(*state, &kept, applied.0, last)?;
    let voters = group.voters.keys().map(|r| r.0).collect();
    Ok(Log::new(base, kept, hard_state, voters))
}

/// An entry as the WAL has it.
pub(super) fn entry((index, term, _, data): (LogIndex, Term, u8, Bytes)) -> Entry {
    Entry {
        index: index.0,
        term: term.0,
        data,
        ..Entry::default()
    }
}

fn hard_state(
    state: Option<(Term, u64, LogIndex)>,
    entries: &[Entry],
    applied: u64,
    last: u64,
) -> Result<HardState, Fault> {
    let (term, vote, commit) = state.unwrap_or((Term(0), 0, LogIndex(0)));
    if entries.last().is_some_and(|e| e.term > term.0) {
        return Err(Fault(format!(
            "the log has entries after its term {term}: votes may be lost"
        )));
    }
    Ok(HardState {
        term: term.0,
        vote,
        // A hint: the checkpoint knows more, and what follows the log's end was never ours to promise.
        commit: commit.0.clamp(applied, last),
        ..HardState::default()
    })
}
