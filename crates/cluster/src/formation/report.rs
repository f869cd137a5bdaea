//! `GET /cluster/formation` and `/readyz` as data (cluster 7.3). Field names are those of the JSON.

use wk_proto::{NodeId, WallMs};

use super::state::{LinkState, Listeners, SlotNotReady};

/// A step of the formation, in order. A node goes through either `ControlElection` or `Join`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the API's")]
pub enum Phase {
    Config,
    StorageOpen,
    WalReplay,
    Transport,
    Peers,
    ControlElection,
    Join,
    ControlCatchup,
    SlotLeaders,
    Catchup,
    Listeners,
    Ready,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 12] = [
        Self::Config,
        Self::StorageOpen,
        Self::WalReplay,
        Self::Transport,
        Self::Peers,
        Self::ControlElection,
        Self::Join,
        Self::ControlCatchup,
        Self::SlotLeaders,
        Self::Catchup,
        Self::Listeners,
        Self::Ready,
    ];

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::StorageOpen => "storage_open",
            Self::WalReplay => "wal_replay",
            Self::Transport => "transport",
            Self::Peers => "peers",
            Self::ControlElection => "control_election",
            Self::Join => "join",
            Self::ControlCatchup => "control_catchup",
            Self::SlotLeaders => "slot_leaders",
            Self::Catchup => "catchup",
            Self::Listeners => "listeners",
            Self::Ready => "ready",
        }
    }
}

/// Where a phase is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PhaseState {
    /// Not begun.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Over.
    Done,
    /// It cannot go on without an operator.
    Failed,
}

impl PhaseState {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Why a node may not take clients: the fixed set of R-READY-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub enum Reason {
    Starting,
    Storage,
    NoQuorum,
    Joining,
    ControlLag,
    SlotsWithoutLeader,
    CatchingUp,
    Draining,
    Maintenance,
    Clock,
    Disk,
}

impl Reason {
    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Storage => "storage",
            Self::NoQuorum => "no_quorum",
            Self::Joining => "joining",
            Self::ControlLag => "control_lag",
            Self::SlotsWithoutLeader => "slots_without_leader",
            Self::CatchingUp => "catching_up",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Clock => "clock",
            Self::Disk => "disk",
        }
    }
}

impl LinkState {
    /// Its name in the API.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DnsFailed => "dns_failed",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::AuthFailed => "auth_failed",
            Self::ForeignCluster => "foreign_cluster",
            Self::VersionMismatch => "version_mismatch",
            Self::IdConflict => "id_conflict",
            Self::Connected => "connected",
            Self::InSync => "in_sync",
        }
    }
}

/// Body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Clients may come.
    pub ready: bool,
    /// Why not.
    pub reason: Option<Reason>,
    /// More about it, for people: `3/64`, or what to do.
    pub detail: String,
    /// The phase that is under way.
    pub phase: Phase,
    /// Nodes that are needed and not connected.
    pub waiting_for: Vec<NodeId>,
}

/// One phase in a report. Times are ms on the monotonic clock since the process's formation began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct PhaseReport {
    pub phase: Phase,
    pub state: PhaseState,
    pub started_ms: Option<u64>,
    pub took_ms: Option<u64>,
    pub progress: Option<String>,
}

/// Who is needed and who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct QuorumReport {
    pub needed: usize,
    pub have: usize,
    pub missing: Vec<NodeId>,
}

/// One listed peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct PeerReport {
    pub id: NodeId,
    pub addr: String,
    pub resolved: Vec<String>,
    pub state: LinkState,
    pub last_error: Option<String>,
    pub attempts: u64,
    /// Ms ago.
    pub last_seen_ms: Option<u64>,
    pub rtt_us: Option<u64>,
    pub version: Option<String>,
}

/// The control group as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct ControlReport {
    pub leader: Option<NodeId>,
    pub term: u64,
    pub commit: u64,
    pub applied: u64,
}

/// The slots as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct SlotsReport {
    pub total: u16,
    pub with_leader: u16,
    pub led_here: u16,
    pub not_ready: Vec<SlotNotReady>,
}

/// Body of `/cluster/formation`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the API's")]
pub struct Report {
    pub node_id: NodeId,
    /// `None` until formed; 32 hex digits in the API.
    pub cluster_id: Option<u128>,
    pub incarnation: u64,
    pub version: String,
    pub ready: bool,
    pub reason: Option<Reason>,
    pub detail: String,
    pub phase: Phase,
    /// When the phase began, on the wall clock: the driver's start plus `phases[phase].started_ms`. Filled in by the driver.
    pub since: Option<WallMs>,
    pub uptime_ms: u64,
    pub phases: Vec<PhaseReport>,
    pub quorum: QuorumReport,
    pub peers: Vec<PeerReport>,
    pub control: ControlReport,
    pub slots: SlotsReport,
    pub listeners: Listeners,
    pub warnings: Vec<String>,
}
