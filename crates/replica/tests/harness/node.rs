//! One node: its disk, its shard while it runs, and what a driver keeps between outputs and inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use wk_chat::Effect;
use wk_proto::{GroupId, LogIndex, Mono, NodeId, ReplicaId, Term, WallMs};
use wk_replica::{After, Group, PeerMessage, Shard, ShardConfig, WalMark, membership};
use wk_store::disk::SimDisk;
use wk_store::{Checkpointed, Frozen, IoBudget, ReplicaMeta, Store};

use super::wal::MemWal;
use super::{Plan, policy, replica_id, slots};

pub struct Node {
    pub id: NodeId,
    /// `None` while it is down.
    pub shard: Option<Shard>,
    pub wal: MemWal,
    pub syncing: bool,
    /// An fsync takes this long.
    pub sync_us: u64,
    /// Its opinion of who leads.
    pub leaders: BTreeMap<GroupId, (Term, Option<NodeId>)>,
    /// Effects it was told as a leader.
    pub committed: Vec<Effect>,
    disk: SimDisk,
    store: Option<NodeStore>,
    held: Vec<(WalMark, NodeId, PeerMessage)>,
}

pub struct NodeStore(Store);

impl NodeStore {
    pub fn checkpoint(&self, parts: &[Frozen]) -> Checkpointed {
        self.0
            .checkpoint(parts, &mut Unlimited)
            .expect("the disk works")
    }
}

struct Unlimited;

impl IoBudget for Unlimited {
    fn take(&mut self, _bytes: usize) {}
}

impl Node {
    /// A node with empty replicas of all slots on its disk.
    pub fn create(id: NodeId, plan: &Plan) -> Self {
        let disk = SimDisk::new();
        let store = Store::open(Arc::new(disk.clone())).expect("an empty disk opens");
        let metas: Vec<_> = slots(plan)
            .map(|group| ReplicaMeta {
                replica: replica_id(group, id),
                group,
                membership: membership::encode(&voters(group, plan)),
                applied: LogIndex(0),
                applied_term: Term(0),
            })
            .collect();
        store.create(&metas).expect("an empty disk takes replicas");
        Self {
            id,
            shard: None,
            wal: MemWal::default(),
            syncing: false,
            sync_us: plan.sync_us,
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            disk,
            store: None,
            held: Vec::new(),
        }
    }

    /// Starts the shard from disk and WAL.
    pub fn start(&mut self, plan: &Plan, now: Mono, wall: WallMs) {
        assert!(self.shard.is_none(), "{} runs already", self.id);
        let store = Store::open(Arc::new(self.disk.clone())).expect("the disk opens again");
        let metas = store.replicas().expect("replicas are readable");
        let groups = metas
            .into_iter()
            .map(|meta| self.group(&store, meta))
            .collect();
        self.store = Some(NodeStore(store));
        let config = ShardConfig {
            seed: plan.seed,
            dirty_bytes_max: plan.dirty_bytes_max,
            ..ShardConfig::new(self.id)
        };
        self.shard = Some(Shard::new(config, policy(plan), groups, now, wall));
    }

    fn group(&self, store: &Store, meta: ReplicaMeta) -> Group {
        Group {
            group: meta.group,
            replica: meta.replica,
            voters: membership::decode(&meta.membership).expect("as encoded"),
            store: store.slot(meta.replica).expect("it was just listed"),
            applied_term: meta.applied_term,
            log: self.wal.recovered(meta.replica),
        }
    }

    pub fn crash(&mut self, seed: u64) {
        self.shard = None;
        self.store = None;
        self.disk = self.disk.crash(seed);
        self.wal.crash();
        self.syncing = false;
        self.leaders.clear();
        self.held.clear();
    }

    pub fn store(&self) -> &NodeStore {
        self.store.as_ref().expect("it runs")
    }

    /// The message, if it may leave now; else it is kept until its mark is durable.
    pub fn hold(
        &mut self,
        to: NodeId,
        message: PeerMessage,
        after: After,
        ignore: bool,
    ) -> Option<PeerMessage> {
        match after {
            After::Durable(mark) if !ignore && !self.is_synced(mark) => {
                self.held.push((mark, to, message));
                None
            }
            _ => Some(message),
        }
    }

    fn is_synced(&self, mark: WalMark) -> bool {
        self.wal.first_unsynced().is_none_or(|first| mark < first)
    }

    pub fn take_released(&mut self, mark: WalMark) -> Vec<(NodeId, PeerMessage)> {
        let (ready, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(m, ..)| *m <= mark);
        self.held = held;
        let ready: Vec<(WalMark, NodeId, PeerMessage)> = ready;
        ready
            .into_iter()
            .map(|(_, to, message)| (to, message))
            .collect()
    }
}

fn voters(group: GroupId, plan: &Plan) -> BTreeMap<ReplicaId, NodeId> {
    (1..=plan.nodes)
        .map(|n| (replica_id(group, NodeId(n)), NodeId(n)))
        .collect()
}
