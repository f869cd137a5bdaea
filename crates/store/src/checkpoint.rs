//! The node's rows and message files, and the only way they advance (H40): freeze, write and sync the message files, then one
//! redb transaction with the changed rows, the list of message files and the applied indexes. That commit is the only switch;
//! recovery is "open redb, replay the WAL from the applied indexes".

use std::sync::Arc;

use wk_proto::{GroupId, LogIndex, ReplicaId};

use crate::{Disk, Result, SlotStore};

/// What must be known of a replica before its log is read. Kept in redb; changed only by a durable commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaMeta {
    /// The raft id of this member.
    pub replica: ReplicaId,
    /// Which group it is a member of.
    pub group: GroupId,
    /// Membership as of `applied`, encoded by the replica layer.
    pub membership: bytes::Bytes,
    /// Log index the rows and message files stand at.
    pub applied: LogIndex,
    /// Term of that entry.
    pub applied_term: wk_proto::Term,
}

/// Pace of background writes (H21). Called before each step of at most 1 MiB; may block the calling (background) thread.
pub trait IoBudget: Send {
    /// Takes `bytes` from the budget.
    fn take(&mut self, bytes: usize);
}

/// All replicas' rows and message files on this node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

/// The dirty part of one replica, immutable, on its way to disk.
#[derive(Debug)]
pub struct Frozen {}

/// Proof that a set of [`Frozen`] is on disk: hand it back to each [`SlotStore`].
#[derive(Clone, Debug)]
pub struct Checkpointed {
    /// New flushed index per replica.
    pub flushed: Vec<(ReplicaId, LogIndex)>,
}

impl Store {
    /// Opens or creates the rows (`rows.redb`) and message files (`messages/`) of a data directory.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self> {
        let _ = disk;
        todo!()
    }
    /// Replicas on disk, by id.
    pub fn replicas(&self) -> Result<Vec<ReplicaMeta>> {
        todo!()
    }
    /// Makes new empty replicas durable in one commit.
    pub fn create(&self, replicas: &[ReplicaMeta]) -> Result<()> {
        let _ = replicas;
        todo!()
    }
    /// The single writer of a replica, standing at its last checkpoint.
    pub fn slot(&self, replica: ReplicaId) -> Result<SlotStore> {
        let _ = replica;
        todo!()
    }
    /// Writes frozen parts of any set of replicas. Blocking; one at a time. On an error nothing has switched: the old checkpoint
    /// stands, and the same frozen parts may be tried again (ENOSPC) on new files.
    pub fn checkpoint(&self, frozen: &[Frozen], budget: &mut dyn IoBudget) -> Result<Checkpointed> {
        let _ = (frozen, budget);
        todo!()
    }
    /// Merges message files if worthwhile (H41); one bounded step. `false` = nothing to do.
    pub fn merge_step(&self, budget: &mut dyn IoBudget) -> Result<bool> {
        let _ = budget;
        todo!()
    }
}

impl SlotStore {
    /// What was applied since the last freeze, or `None`. At most one frozen part is outstanding: `None` until released.
    pub fn freeze(&mut self, membership: bytes::Bytes, term: wk_proto::Term) -> Option<Frozen> {
        let _ = (membership, term);
        todo!()
    }
    /// The frozen part is on disk: forget it.
    pub fn release(&mut self, done: &Checkpointed) {
        let _ = done;
        todo!()
    }
    /// Rows and message bytes not yet frozen; what triggers a checkpoint.
    pub fn dirty(&self) -> (usize, usize) {
        todo!()
    }
}
