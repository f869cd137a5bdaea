//! The drivers: sockets, threads and clocks around the sans-IO cores. Decisions are made below, never here.
//!
//! ```text
//!  gateway (tokio, one task a connection) ⇄ router ⇄ shard threads ⇄ WAL thread (one fsync for all)
//!        ▲                                              │ committed effects
//!        └────────────── delivery workers ◀─────────────┘        checkpoint thread, read pool
//! ```
//!
//! [`Node`] is the handle everything above (HTTP API, CLI, tests) uses.

mod checkpoint_thread;
mod clock;
mod counters;
mod delivery;
mod former;
mod founding;
mod gate;
mod gateway;
mod held;
mod hub;
mod inbox;
mod limits;
pub mod node;
mod parts;
mod peer;
mod presence;
mod read_pool;
mod route;
mod rules;
mod running;
mod shard_thread;
mod start;
mod timers;
mod wal_thread;

pub use node::{
    ClusterConfig, ConnectionInfo, Counters, ListenConfig, Node, NodeConfig, Readiness, StartError,
};
