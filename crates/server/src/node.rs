//! A running node and its handle.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use wk_chat::request::CallError;
use wk_chat::{Policy, Reply, Request};
use wk_cluster::Entry;
use wk_proto::{ConnId, NodeId, Uid, WallMs};

/// Where clients connect. `None` = off. Port 0 picks a free one.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// WKProto and JSON-RPC over TCP.
    pub tcp: Option<SocketAddr>,
    /// The same in WebSocket.
    pub ws: Option<SocketAddr>,
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
    /// Every group has a leader whose office is proven.
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
    /// WAL fsyncs.
    pub fsyncs: u64,
    /// Longest shard turn so far, µs, and the 99.9th percentile.
    pub shard_turn_us_max: u64,
    pub shard_turn_us_p999: u64,
    /// Metadata rows written by appending messages, per message (must stay 0).
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
#[derive(Clone, Debug)]
pub struct Node {}

impl Node {
    /// Opens the data directory, recovers, starts threads and listeners. Returns as soon as listeners accept; [`Self::readiness`] tells
    /// when requests are served (milliseconds later on one node). Must be called inside a tokio runtime.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let _ = config;
        todo!()
    }
    /// One request to its group, wherever it is led; waits at most 5 s (parked while there is no leader, H30). Not ordered with others.
    /// Sends must carry a `client_msg_no`: they may be retried.
    pub async fn call(&self, request: Request) -> Result<Reply, CallError> {
        let _ = request;
        todo!()
    }
    /// Live sessions of a user, cluster-wide.
    pub fn sessions(&self, uid: &Uid) -> Vec<Entry> {
        let _ = uid;
        todo!()
    }
    /// Kicks (`notice` = DISCONNECT 12 text, delay 2 s) or removes (`None`, at once) one connection of this node, if it is `uid`'s.
    pub fn close(&self, uid: &Uid, conn: ConnId, notice: Option<&'static str>) {
        let _ = (uid, conn, notice);
        todo!()
    }
    /// This node's sockets.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        todo!()
    }
    /// Totals.
    pub fn counters(&self) -> Counters {
        todo!()
    }
    /// See [`Readiness`].
    pub fn readiness(&self) -> Readiness {
        todo!()
    }
    /// Current rules.
    pub fn policy(&self) -> Arc<Policy> {
        todo!()
    }
    /// This node's number.
    pub fn id(&self) -> NodeId {
        todo!()
    }
    /// Bound client addresses (real ports).
    pub fn listening(&self) -> ListenConfig {
        todo!()
    }
    /// Stops accepting, answers what was accepted, closes sessions silently, checkpoints, returns within 5 s.
    pub async fn stop(&self) {
        todo!()
    }
}
