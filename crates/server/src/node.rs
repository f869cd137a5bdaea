//! A running node and its handle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use wk_chat::request::CallError;
use wk_chat::{Policy, Reply, Request};
use wk_cluster::Entry;
use wk_cluster::formation::{LinkState, Reason, Report};
use wk_proto::{ConnId, GroupId, NodeId, Uid, WallMs};

use crate::hub::Conn;
use crate::parts::Parts;
use crate::running::Running;
use crate::start::start;

/// Where clients connect. `None` = off. Port 0 picks a free one.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// WKProto and JSON-RPC over TCP.
    pub tcp: Option<SocketAddr>,
    /// The same in WebSocket.
    pub ws: Option<SocketAddr>,
}

/// The cluster a node is a part of.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where peers connect.
    pub addr: SocketAddr,
    /// Every node, this one included, with the address (`host:port`) under which the others reach it. The same numbers on every
    /// node, for ever: they found the cluster. Addresses may change, and names are looked up for every attempt.
    pub nodes: BTreeMap<NodeId, String>,
    /// Longest the node may take to be ready for the first time, in ms; then it gives up ([`Node::has_given_up`]). `None`: no limit.
    pub start_timeout_ms: Option<u64>,
    /// What nodes prove to each other to know. Without one, peers are told by the addresses in `nodes` (H53).
    pub secret: Option<String>,
}

/// Everything a node needs to know to start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node's number.
    pub node: NodeId,
    /// Data directory of v2's key `dataDir`; ours is the sub-folder `wukongim` of it.
    pub data_dir: PathBuf,
    /// Client listeners.
    pub listen: ListenConfig,
    /// The other nodes; `None`: there are none, and never will be in this directory.
    pub cluster: Option<ClusterConfig>,
    /// Rules of the leader.
    pub policy: Policy,
    /// Settings of every session.
    pub session: wk_session::Config,
    /// Shard threads; 0 = min(cores, slots).
    pub shards: usize,
    /// Sockets at most; above it new ones are closed at once.
    pub connections_max: usize,
}

/// Why a node did not start. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is unusable (in use, foreign, newer, v2's, read-only).
    #[error("{0}")]
    Directory(String),
    /// A listener could not be bound.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Which address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The cluster's configuration contradicts itself.
    #[error("cluster: {0}")]
    Cluster(String),
    /// Disk or store failure.
    #[error(transparent)]
    Store(#[from] wk_store::Error),
    /// The system refused a thread or the like.
    #[error("{0}")]
    System(String),
}

/// Whether requests can be served, from live leadership (H56).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Every group has a leader whose office is proven, here or lately told by the node that holds it.
    pub ready: bool,
    /// Groups with one.
    pub groups_led: usize,
    /// Groups in all, control included.
    pub groups: usize,
    /// Why not, in words; empty when ready.
    pub waiting_for: Vec<String>,
}

/// Totals since start.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "names as in v2's varz")]
pub struct Counters {
    pub connections: u64,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
    /// Sockets closed because their client did not read.
    pub slow_clients: u64,
    /// Messages that were stored and not pushed, because delivery was overloaded or recipients could not be read.
    pub undelivered: u64,
    /// WAL fsyncs.
    pub fsyncs: u64,
    /// Longest shard turn so far, µs, and the 99.9th percentile.
    pub shard_turn_us_max: u64,
    pub shard_turn_us_p999: u64,
    /// The same in CPU time: without what other threads did meanwhile.
    pub shard_turn_cpu_us_max: u64,
    pub shard_turn_cpu_us_p999: u64,
    /// Metadata rows that became dirty in turns that appended messages, per message: near 0 unless the messages were the first of
    /// their pairs (H39).
    pub kv_rows_per_message: f64,
}

/// One socket of this node, for `/connz`.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "names as in v2's connz")]
pub struct ConnectionInfo {
    pub id: ConnId,
    pub uid: Option<Uid>,
    pub peer: SocketAddr,
    pub connected: WallMs,
    pub last_activity: WallMs,
    pub device_flag: u8,
    pub device_id: Arc<str>,
    pub master: bool,
    pub version: u8,
    pub in_msgs: u64,
    pub out_msgs: u64,
    pub in_msg_bytes: u64,
    pub out_msg_bytes: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_packet_bytes: u64,
    pub out_packet_bytes: u64,
}

/// A running node. Cheap to clone; the node stops with [`Node::stop`], not with the last clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Arc<Parts>,
    listening: ListenConfig,
    /// Taken by the first `stop`; held by it, so that others wait for it.
    running: tokio::sync::Mutex<Option<Running>>,
    /// Tells the keeper that it may let go.
    stopped: tokio::sync::Notify,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id())
            .field("listening", &self.inner.listening)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the data directory, recovers, starts threads and listeners. Returns as soon as listeners accept; [`Self::readiness`] tells
    /// when requests are served (milliseconds later on one node). Must be called inside a tokio runtime.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let (parts, running, listening) = start(config).await?;
        let inner = Inner {
            parts,
            listening,
            running: tokio::sync::Mutex::new(Some(running)),
            stopped: tokio::sync::Notify::new(),
        };
        let inner = Arc::new(inner);
        // The keeper: the node runs until it is stopped or the runtime ends, whoever else lets go of it.
        let kept = inner.clone();
        tokio::spawn(async move { kept.stopped.notified().await });
        Ok(Self { inner })
    }

    /// One request to its group, wherever it is led; waits at most 5 s (parked while there is no leader, H30). Not ordered with others.
    /// Sends must carry a `client_msg_no`: they may be retried.
    pub async fn call(&self, request: Request) -> Result<Reply, CallError> {
        self.parts().route.call(request).await
    }

    /// Live sessions of a user, cluster-wide.
    pub fn sessions(&self, uid: &Uid) -> Vec<Entry> {
        self.parts().presence.directory().sessions(uid).to_vec()
    }

    /// Kicks (`notice` = DISCONNECT 12 text, delay 2 s) or removes (`None`, at once) one connection of this node, if it is `uid`'s.
    pub fn close(&self, uid: &Uid, conn: ConnId, notice: Option<&'static str>) {
        self.parts().presence.kick_one(uid, conn, notice);
    }

    /// This node's sockets, by id.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let mut all: Vec<_> = self.parts().hub.all().iter().map(|c| describe(c)).collect();
        all.sort_by_key(|info| info.id);
        all
    }

    /// Totals.
    pub fn counters(&self) -> Counters {
        let parts = self.parts();
        let totals = &parts.totals;
        Counters {
            connections: parts.hub.len() as u64,
            in_msgs: totals.in_msgs.get(),
            out_msgs: totals.out_msgs.get(),
            in_bytes: totals.in_bytes.get(),
            out_bytes: totals.out_bytes.get(),
            slow_clients: totals.slow_clients.get(),
            undelivered: totals.undelivered.get(),
            fsyncs: totals.fsyncs.get(),
            shard_turn_us_max: totals.turns.max_us(),
            shard_turn_us_p999: totals.turns.quantile_us(999),
            shard_turn_cpu_us_max: totals.turns_cpu.max_us(),
            shard_turn_cpu_us_p999: totals.turns_cpu.quantile_us(999),
            kv_rows_per_message: totals.rows_per_message(),
        }
    }

    /// See [`Readiness`].
    pub fn readiness(&self) -> Readiness {
        let parts = self.parts();
        let groups = u32::from(parts.config.policy.slot_count) + 1;
        let offices = parts.offices();
        let now = parts.clock.now();
        let is_led = |group| {
            offices.iter().any(|(led, _)| *led == group) || parts.mesh.leader(group, now).is_some()
        };
        let led = (0..groups).filter_map(GroupId::from_u32);
        let groups_led = led.filter(|group| is_led(*group)).count();
        let groups = groups as usize;
        let mut waiting_for = Vec::new();
        match parts.former.report() {
            Some(report) if !report.ready => waiting_for.extend(obstacles(&report)),
            None if groups_led < groups => {
                waiting_for.push(format!("leaders of {} groups", groups - groups_led));
            }
            _ => {}
        }
        if !parts.rules.is_complete() {
            waiting_for.push("the list of system accounts".to_owned());
        }
        if let Some(cause) = parts.gate.cause() {
            waiting_for.push(format!("a restart: {cause}"));
        }
        if parts.gate.is_disk_low() {
            waiting_for.push("free disk space".to_owned());
        }
        for status in &parts.statuses {
            for (group, cause) in status.faults.lock().iter() {
                waiting_for.push(format!("repair of {group:?}: {cause}"));
            }
        }
        Readiness {
            ready: waiting_for.is_empty(),
            groups_led,
            groups,
            waiting_for,
        }
    }

    /// Waits until the node cannot go on (its disk failed, a thread died) and says why. Nothing is served any more then; the process
    /// should end.
    pub async fn failed(&self) -> String {
        self.parts().gate.failed().await
    }

    /// How this node becomes, or became, part of its cluster (cluster 7.3); `None`: it is alone and has none.
    pub fn formation(&self) -> Option<Report> {
        self.parts().former.report()
    }

    /// Whether [`Self::failed`] is no failure but [`ClusterConfig::start_timeout_ms`] having passed.
    pub fn has_given_up(&self) -> bool {
        self.parts().former.has_given_up()
    }

    /// Current rules.
    pub fn policy(&self) -> Arc<Policy> {
        self.parts().rules.get()
    }

    /// This node's number.
    pub fn id(&self) -> NodeId {
        self.parts().config.node
    }

    /// Bound client addresses (real ports).
    pub fn listening(&self) -> ListenConfig {
        self.inner.listening.clone()
    }

    /// Stops accepting, answers what was accepted, closes sessions silently, checkpoints, returns within 5 s.
    pub async fn stop(&self) {
        let mut running = self.inner.running.lock().await;
        if let Some(running) = running.take() {
            running.stop().await;
            self.inner.stopped.notify_one();
        }
    }

    fn parts(&self) -> &Parts {
        &self.inner.parts
    }
}

/// What a formation waits for, and how its peers are.
pub(crate) fn obstacles(report: &Report) -> Vec<String> {
    let reason = report.reason.map_or("starting", Reason::name);
    let mut texts = vec![format!("{reason}: {}", report.detail)];
    for peer in &report.peers {
        if matches!(peer.state, LinkState::Connected | LinkState::InSync) {
            continue;
        }
        let why = peer.last_error.as_deref().unwrap_or_default();
        texts.push(format!("node {}: {} {why}", peer.id, peer.state.name()));
    }
    texts
}

fn describe(conn: &Conn) -> ConnectionInfo {
    let stats = &conn.stats;
    let (uid, device_flag, device_id, master, version) = conn.with_info(|info| match info {
        Some(info) => (
            Some(info.uid.clone()),
            info.device_flag,
            info.device_id.clone(),
            info.master,
            info.version,
        ),
        None => (None, 0, "".into(), false, 0),
    });
    ConnectionInfo {
        id: conn.id,
        uid,
        peer: conn.peer(),
        connected: conn.connected,
        last_activity: WallMs(stats.last_activity_ms.load(Relaxed)),
        device_flag,
        device_id,
        master,
        version,
        in_msgs: stats.in_msgs.load(Relaxed),
        out_msgs: stats.out_msgs.load(Relaxed),
        in_msg_bytes: stats.in_msg_bytes.load(Relaxed),
        out_msg_bytes: stats.out_msg_bytes.load(Relaxed),
        in_packets: stats.in_packets.load(Relaxed),
        out_packets: stats.out_packets.load(Relaxed),
        in_packet_bytes: stats.in_packet_bytes.load(Relaxed),
        out_packet_bytes: stats.out_packet_bytes.load(Relaxed),
    }
}
