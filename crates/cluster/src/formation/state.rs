//! What goes into a formation and what comes out: its data, without behaviour.

use std::collections::BTreeMap;

use wk_chat::Write;
use wk_chat::control::{BindResult, ControlView, Secret, Voters};
use wk_proto::{GroupId, NodeId, ReplicaId, SlotId, Term};

use super::list::{NodeList, Pledge};
use super::message::Message;
use super::report::{Phase, PhaseState, Report};

/// What the data directory says of the formation, durable as a whole. It only ever goes down this list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Nothing was promised to anybody.
    #[default]
    Fresh,
    /// This list and no other.
    Promised(Pledge),
    /// Part of the control group's votes may be on this disk.
    Voting {
        /// The founding list.
        pledge: Pledge,
        /// The disks this node lets take part, by node: its own, those that promised, those of the cluster.
        seats: BTreeMap<NodeId, u128>,
    },
    /// Part of this cluster, as the node its disk is bound to.
    Formed {
        /// Which.
        cluster_id: u128,
        /// As above.
        pledge: Pledge,
        /// As above.
        seats: BTreeMap<NodeId, u128>,
    },
}

impl Held {
    /// What a directory holds that was founded alone, before clusters were: its control group has no `Genesis` yet and gets one
    /// from its leader. `slot_count` is the number of slots on the disk.
    pub fn founded_alone(node: NodeId, disk_uuid: u128, slot_count: u16) -> Self {
        Self::Voting {
            pledge: Pledge {
                nodes: vec![node],
                slot_count,
                slot_replicas: 3,
                channel_replicas: 3,
            },
            seats: BTreeMap::from([(node, disk_uuid)]),
        }
    }

    /// What was promised, if anything.
    pub fn pledge(&self) -> Option<&Pledge> {
        match self {
            Self::Fresh => None,
            Self::Promised(pledge) | Self::Voting { pledge, .. } | Self::Formed { pledge, .. } => {
                Some(pledge)
            }
        }
    }
}

/// What a node starts its formation with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub node: NodeId,
    /// Its directory.
    pub disk_uuid: u128,
    /// Counts the starts of the directory, from 1.
    pub incarnation: u64,
    /// What the directory holds.
    pub held: Held,
    /// The configured founders ([`NodeList::parse`], or [`NodeList::alone`]).
    pub list: NodeList,
    /// What follows from the configuration; its nodes are those of `list`.
    pub pledge: Pledge,
    /// `cluster.seed`, if configured and the list is not.
    pub seed: Option<String>,
    /// `cluster.startTimeout` in ms; `None` = unlimited.
    pub start_timeout_ms: Option<u64>,
    /// Random: the id of the cluster if this node's `Genesis` is the first. Not 0.
    pub cluster_id: u128,
    /// Random, likewise.
    pub secret: Secret,
    /// This build, for the report.
    pub version: String,
}

/// How the link to a peer is, as the driver sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// The name has no address.
    DnsFailed,
    /// No answer, or none yet.
    #[default]
    Unreachable,
    /// Nobody listens there.
    Refused,
    /// The other side cannot prove that it belongs here.
    AuthFailed,
    /// The other side is part of another cluster or promised to another list.
    ForeignCluster,
    /// The other side speaks no version we do.
    VersionMismatch,
    /// Another directory is this node.
    IdConflict,
    /// Messages go to and fro.
    Connected,
    /// Connected, and its replicas keep up. Only in reports.
    InSync,
}

/// A link's state with what a report shows beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkNews {
    /// The state.
    pub state: LinkState,
    /// Addresses the name resolved to.
    pub resolved: Vec<String>,
    /// Why, for a state that is not `Connected`.
    pub error: Option<String>,
    /// Attempts to connect so far.
    pub attempts: u64,
    /// Round trip in µs, if known.
    pub rtt_us: Option<u64>,
    /// The peer's build, if known.
    pub version: Option<String>,
}

/// The control group as this node's replica sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlNews {
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: Term,
    /// Committed up to here.
    pub commit: u64,
    /// Applied up to here.
    pub applied: u64,
    /// The replica is at most 2 s behind.
    pub caught_up: bool,
}

/// A slot that cannot serve, as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotNotReady {
    /// Which.
    pub id: SlotId,
    /// Why, for people.
    pub reason: String,
    /// Where its replicas are.
    pub replicas: Vec<NodeId>,
    /// Which of these nodes are not connected.
    pub missing: Vec<NodeId>,
}

/// The slots as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotsNews {
    /// How many there are; 0 = not known yet.
    pub total: u16,
    /// How many have a leader that is confirmed within its lease.
    pub with_leader: u16,
    /// How many are led here.
    pub led_here: u16,
    /// Local replicas still catching up.
    pub behind: u16,
    /// Those without leader, at most as many as the driver cares to list.
    pub not_ready: Vec<SlotNotReady>,
}

/// Which sockets listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the listeners'")]
pub struct Listeners {
    pub cluster: bool,
    pub http: bool,
    pub manager: bool,
    pub tcp: bool,
    pub ws: bool,
    pub wss: bool,
}

/// Why a node is kept from clients although it formed. Set by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    /// The store cannot write.
    Storage,
    /// It was asked to go.
    Draining,
    /// An operator keeps it out.
    Maintenance,
    /// Its clock is off.
    Clock,
    /// Its disk is full.
    Disk,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The link to a listed node changed, or more is known of it.
    Link(NodeId, LinkNews),
    /// A formation message came over the link of this node.
    Message(NodeId, Message),
    /// The last [`Effect::Persist`] is on the disk.
    Persisted,
    /// The control group's replica runs here (after [`Effect::StartControl`]).
    ControlStarted,
    /// The control group as seen here. Whenever it changes, and at least each second.
    Control(ControlNews),
    /// The state of the control group's replica here has this cluster: at the start if it had one, and after each
    /// `Effect::Control` of the machine.
    Cluster(Box<ControlView>),
    /// What a [`Effect::Propose`]d `Bind` of this node and disk was answered; `None` = nothing came of it, or nobody knows.
    Bound {
        /// Whose.
        node: NodeId,
        /// Its disk.
        uuid: u128,
        /// The answer.
        result: Option<BindResult>,
    },
    /// All slot replicas of [`Effect::StartSlots`] run.
    SlotsStarted,
    /// The slots as seen from here.
    Slots(SlotsNews),
    /// Where a phase is that only the driver knows: config, storage_open, wal_replay, transport.
    Phase(Phase, PhaseState),
    /// Which sockets listen now. `all_open`: every configured one does.
    Listeners {
        /// Each.
        open: Listeners,
        /// Nothing is missing.
        all_open: bool,
    },
    /// A reason to keep clients away came or went.
    Hold(Hold, bool),
}

/// A slot's replica of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnReplica {
    /// Which group.
    pub group: GroupId,
    /// The replica on this node.
    pub replica: ReplicaId,
    /// All of the group's.
    pub voters: Voters,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make this what the directory holds, with fsync, then [`Event::Persisted`]. There is one at a time; what depends on it
    /// comes later.
    Persist(Held),
    /// Send over the link of this node; dropped if there is none.
    Send(NodeId, Message),
    /// Create the control group's replica durably unless it is there, and run it; then [`Event::ControlStarted`].
    StartControl(OwnReplica),
    /// Propose in the control group, routed to its leader. For a `Bind`, report [`Event::Bound`]; a `Genesis` needs no report.
    Propose(Write),
    /// Create these replicas durably unless they are there, and run them; then [`Event::SlotsStarted`]. May be empty.
    StartSlots(Vec<OwnReplica>),
    /// The cluster's nodes and their disks changed: links to others are closed (ask [`super::Formation::admits`]).
    SeatsChanged,
    /// For the log: a phase changed its state, after this many ms.
    PhaseChanged(Phase, PhaseState, u64),
    /// For the log, as a warning.
    Warn(String),
    /// `cluster.startTimeout` passed before the node was ready: stop cleanly, exit 75 with this.
    GiveUp(Box<Report>),
}

/// Whether a link may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// For everything, raft messages included.
    Full,
    /// For formation messages only: the disk has no seat yet.
    FormationOnly,
    /// For nothing; with the text to answer and report.
    Refused(LinkState, String),
}
