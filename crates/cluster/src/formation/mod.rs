//! How nodes become a cluster (H45, H52; cluster 7.2, 7.3). Sans-IO: a value that takes events and lists effects.
//!
//! ```text
//!  Fresh ──majority met──▶ Promised ──majority of equal promises──▶ Voting ──Genesis names this disk──▶ Formed
//!    │                         │                                      ▲              ▲
//!    └─────────────────────────┴──a listed peer has formed: Bind──────┘──Bind────────┘
//! ```
//!
//! * Nothing here needs a peer to keep the process alive, and no time-out is fatal unless one is configured.
//! * What is held ([`Held`]) is durable before anybody is told of it.
//! * A promise is for the life of the directory. Two clusters can only come of one list if a majority of its directories are lost.
//! * Raft messages go only between disks with a seat ([`Formation::admits`]): a disk that forgot its votes has none.
//! * Addresses are never identity.
//!
//! It opens no socket, and does not know what a raft group is: the driver runs the replicas that [`Effect`]s name.

mod list;
mod machine;
mod message;
mod peers;
mod phases;
mod placement;
mod readiness;
mod report;
mod state;
mod talk;

pub use list::{DEFAULT_PORT, ListError, ListHash, NodeList, Pledge};
pub use machine::Formation;
pub use message::{BadMessage, Formed, MESSAGE_BYTES_MAX, Message, Refusal, Stage, Status};
pub use placement::control_voters;
pub use report::{
    ControlReport, PeerReport, Phase, PhaseReport, PhaseState, QuorumReport, Readiness, Reason,
    Report, SlotsReport,
};
pub use state::{
    Admission, ControlNews, Effect, Event, Held, Hold, LinkNews, LinkState, Listeners, OwnReplica,
    Setup, SlotNotReady, SlotsNews,
};

#[cfg(test)]
mod tests;
