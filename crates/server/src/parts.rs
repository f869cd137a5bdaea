//! What the threads and tasks of one node share.

use std::sync::Arc;

use wk_cluster::formation::Setup;
use wk_proto::{GroupId, Term};

use crate::clock::Clock;
use crate::counters::Totals;
use crate::delivery::{Delivery, Sender};
use crate::former::Former;
use crate::gate::Gate;
use crate::hub::{Hub, WakeQueue};
use crate::inbox::Inbox;
use crate::limits::DELIVERY_THREADS;
use crate::node::NodeConfig;
use crate::peer::{Mesh, Own};
use crate::presence::Presence;
use crate::read_pool::ReadPool;
use crate::route::Route;
use crate::rules::Rules;
use crate::shard_thread::ShardStatus;
use crate::timers::Timers;
use crate::wal_thread::WalQueue;

/// Made once, when the node starts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: NodeConfig,
    pub(crate) clock: Clock,
    pub(crate) gate: Arc<Gate>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) timers: Timers,
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) former: Former,
    pub(crate) presence: Arc<Presence>,
    pub(crate) rules: Rules,
    pub(crate) route: Arc<Route>,
    pub(crate) wal: WalQueue,
    pub(crate) reads: ReadPool,
    pub(crate) delivery: Delivery,
    /// By shard number, both.
    pub(crate) inboxes: Vec<Arc<Inbox>>,
    pub(crate) statuses: Vec<ShardStatus>,
}

impl Parts {
    /// Everything, at rest; and the queue of batches to wake.
    pub(crate) fn new(
        config: NodeConfig,
        own: Own,
        setup: Option<Setup>,
        shards: usize,
    ) -> (Self, WakeQueue) {
        let clock = Clock::new();
        let peers = config.cluster.as_ref().map(|cluster| {
            let others = cluster.nodes.iter();
            let others = others.filter(|(node, _)| **node != config.node);
            others.map(|(node, addr)| (*node, addr.clone())).collect()
        });
        let mesh = Arc::new(Mesh::new(own, peers.unwrap_or_default(), clock.now()));
        let gate = Arc::new(Gate::new());
        let totals = Arc::new(Totals::default());
        let (hub, wakes) = Hub::new();
        let hub = Arc::new(hub);
        let presence = Arc::new(Presence::new(config.node, hub.clone(), mesh.clone()));
        let inboxes: Vec<_> = (0..shards).map(|_| Arc::new(Inbox::default())).collect();
        let route = Route::new(
            config.node,
            config.policy.slot_count,
            clock,
            gate.clone(),
            hub.clone(),
            inboxes.clone(),
            mesh.clone(),
        );
        let sender = Sender {
            hub: hub.clone(),
            presence: presence.clone(),
            totals: totals.clone(),
            mesh: mesh.clone(),
        };
        let parts = Self {
            clock,
            gate,
            totals,
            hub,
            timers: Timers::new(),
            mesh,
            former: Former::new(setup, clock),
            presence,
            rules: Rules::new(config.policy.clone(), inboxes.clone()),
            route: Arc::new(route),
            wal: WalQueue::default(),
            reads: ReadPool::default(),
            delivery: Delivery::new(DELIVERY_THREADS, sender),
            statuses: inboxes.iter().map(|_| ShardStatus::default()).collect(),
            inboxes,
            config,
        };
        (parts, wakes)
    }

    /// Everything this node leads, with proof.
    pub(crate) fn offices(&self) -> Vec<(GroupId, Term)> {
        let offices = self.statuses.iter().map(|s| s.offices.lock().clone());
        offices.flatten().collect()
    }

    /// Whether it leads this group.
    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.offices().iter().any(|(led, _)| *led == group)
    }
}
