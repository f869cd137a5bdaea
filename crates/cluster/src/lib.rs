//! What a node knows of the others, and how requests and sessions find each other. Sans-IO.
//!
//! * [`router`]: one way to reach a group, local or remote, with order and known effect (H30–H32);
//! * [`formation`]: how nodes become a cluster (H45, H52);
//! * [`directory`]: who is connected where (H17–H20).
//!
//! It does not know what a request means, and owns no socket, thread or clock.

pub mod directory;
pub mod formation;
pub mod router;

pub use directory::{Directory, Entry, Liveness, PublishId};
pub use formation::Formation;
pub use router::{Call, LaneId, Retry, Router, RouterLimits, RouterOut};
