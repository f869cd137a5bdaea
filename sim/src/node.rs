//! One node: its disk, and the process that runs on it while it is up.

use std::collections::BTreeMap;
use std::sync::Arc;

use wk_chat::Policy;
use wk_chat::request::OutboxKey;
use wk_cluster::{Router, RouterLimits};
use wk_proto::{GroupId, LogIndex, Mono, NodeId, ReplicaId, SlotId, Term, Ticket, WallMs};
use wk_replica::{Group, Shard, ShardConfig, membership};
use wk_store::disk::Faults;
use wk_store::{Disk, Frozen, Recovered, ReplicaMeta, SimDisk, Store, Wal, WalOptions};

use crate::disk::Door;
use crate::log::LogDriver;
use crate::plan::Plan;
use crate::plant::Plant;

/// Who submitted a call to a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An operation of a client, on one of its connections.
    Client { client: usize, conn: u64, op: u64 },
    /// An outbox row of a group here.
    Outbox { group: GroupId, key: OutboxKey },
    /// A question of a group here.
    Ask(Ticket),
}

/// Who called a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// The router of the same node.
    Router(Ticket),
    /// The router of a peer, over one life of the link.
    Peer {
        node: NodeId,
        life: u64,
        ticket: Ticket,
    },
}

/// See the module.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) faults: Faults,
    /// Counts starts and ends: events of another life are void.
    pub(crate) life: u64,
    pub(crate) up: Option<Up>,
    /// Added to the wall clock.
    pub(crate) skew_ms: u64,
    /// An fsync takes between these, in µs.
    pub(crate) sync_us: (u64, u64),
    /// Bits were flipped.
    pub(crate) damaged: bool,
    /// Syncs of the log until a flipped bit in it cannot pass for a torn tail any more.
    pub(crate) doubt: u32,
    /// Damage was found: it stays down, waiting for a repair that is not simulated.
    pub(crate) lost: Option<String>,
}

/// A process.
pub(crate) struct Up {
    pub(crate) door: Door,
    pub(crate) shard: Shard,
    pub(crate) log: LogDriver,
    pub(crate) store: Store,
    pub(crate) router: Router<Origin>,
    /// Calls the shard has not answered.
    pub(crate) callers: BTreeMap<Ticket, Caller>,
    next_ticket: u64,
    /// Calls at peers: ticket → (node, life of the link).
    pub(crate) remote: BTreeMap<Ticket, (NodeId, u64)>,
    /// A checkpoint runs; its parts, once frozen.
    pub(crate) checkpoint: Option<Vec<Frozen>>,
    pub(crate) checkpoint_failures: u32,
    pub(crate) router_timer: Option<Mono>,
}

impl Up {
    /// A name for one call to the shard.
    pub(crate) fn ticket(&mut self, caller: Caller) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.callers.insert(ticket, caller);
        ticket
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, plan: &Plan) -> Self {
        Self {
            id,
            disk: SimDisk::new(),
            faults: Faults::default(),
            life: 0,
            up: None,
            skew_ms: 0,
            sync_us: plan.sync_us,
            damaged: false,
            doubt: 0,
            lost: None,
        }
    }

    /// Starts a process from what the disk holds.
    pub(crate) fn boot(&mut self, plan: &Plan, now: Mono, wall: WallMs) -> wk_store::Result<()> {
        let door = Door::new(self.disk.clone(), plan.plant == Plant::SkipMessageSync);
        let started = self.boot_behind(&door, plan, now, wall);
        if started.is_err() {
            door.shut();
        }
        self.up = Some(started?);
        self.life += 1;
        Ok(())
    }

    fn boot_behind(
        &self,
        door: &Door,
        plan: &Plan,
        now: Mono,
        wall: WallMs,
    ) -> wk_store::Result<Up> {
        let disk: Arc<dyn Disk> = Arc::new(door.clone());
        let options = WalOptions {
            segment_bytes: plan.segment_bytes,
            spare_segments: 2,
        };
        let (wal, recovered) = Wal::open(Arc::clone(&disk), options)?;
        let mut logs: BTreeMap<ReplicaId, Recovered> = recovered.into_iter().collect();
        let store = Store::open(disk)?;
        if store.replicas()?.is_empty() {
            store.create(&metas(self.id, plan))?;
        }
        let mut groups = Vec::new();
        for meta in store.replicas()? {
            groups.push(Group {
                group: meta.group,
                replica: meta.replica,
                voters: membership::decode(&meta.membership).ok_or_else(|| {
                    wk_store::Error::Corrupt {
                        what: format!("membership of {}", meta.group),
                        why: "it cannot be read".into(),
                    }
                })?,
                store: store.slot(meta.replica)?,
                applied_term: meta.applied_term,
                log: logs.remove(&meta.replica).unwrap_or_default(),
            });
        }
        let config = ShardConfig {
            seed: plan.seed,
            tick_ms: plan.tick_ms,
            ..ShardConfig::new(self.id)
        };
        Ok(Up {
            door: door.clone(),
            shard: Shard::new(config, policy(plan), groups, now, wall),
            log: LogDriver::new(wal, plan.plant),
            store,
            router: Router::new(self.id, plan.slots, RouterLimits::default()),
            callers: BTreeMap::new(),
            next_ticket: 0,
            remote: BTreeMap::new(),
            checkpoint: None,
            checkpoint_failures: 0,
            router_timer: None,
        })
    }

    /// Ends the process without a word. Unsynced bytes stay until the power fails.
    pub(crate) fn kill(&mut self) {
        self.life += 1;
        if let Some(up) = self.up.take() {
            up.door.shut();
        }
    }

    /// Cuts the power: the process is gone, and of what was not synced `seed` picks what stays.
    pub(crate) fn cut_power(&mut self, seed: u64) {
        self.kill();
        self.disk = self.disk.crash(seed);
        self.faults = Faults {
            capacity: self.faults.capacity,
            ..Faults::default()
        };
        self.disk.set_faults(self.faults.clone());
    }

    pub(crate) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.disk.set_faults(self.faults.clone());
    }

    /// Whether an error of the disk is one that was injected.
    pub(crate) fn may_fail(&self) -> bool {
        let f = &self.faults;
        f.capacity.is_some() || f.fail_write_at.is_some() || f.fail_sync_at.is_some()
    }
}

/// All groups of a plan.
pub(crate) fn groups(plan: &Plan) -> Vec<GroupId> {
    let slots = (0..plan.slots).map(|s| GroupId::Slot(SlotId(s)));
    std::iter::once(GroupId::Control).chain(slots).collect()
}

/// Raft id of a group's member on a node.
pub(crate) fn replica_id(group: GroupId, node: NodeId) -> ReplicaId {
    ReplicaId(u64::from(group.to_u32()) * 100 + u64::from(node.0))
}

fn metas(node: NodeId, plan: &Plan) -> Vec<ReplicaMeta> {
    let voters = |group| {
        (1..=plan.nodes)
            .map(|n| (replica_id(group, NodeId(n)), NodeId(n)))
            .collect()
    };
    groups(plan)
        .into_iter()
        .map(|group| ReplicaMeta {
            replica: replica_id(group, node),
            group,
            membership: membership::encode(&voters(group)),
            applied: LogIndex(0),
            applied_term: Term(0),
        })
        .collect()
}

fn policy(plan: &Plan) -> Arc<Policy> {
    Arc::new(Policy {
        slot_count: plan.slots,
        ..Policy::new()
    })
}
