//! The drivers: sockets, threads and clocks around the sans-IO cores. Decisions are made below, never here.
//!
//! ```text
//!  gateway (tokio, one task a connection) ⇄ router ⇄ shard threads ⇄ WAL thread (one fsync for all)
//!        ▲                                              │ committed effects
//!        └────────────── delivery workers ◀─────────────┘        checkpoint thread, read pool
//! ```
//!
//! [`Node`] is the handle everything above (HTTP API, CLI, tests) uses.

pub mod node;

pub use node::{ConnectionInfo, Counters, ListenConfig, Node, NodeConfig, Readiness, StartError};
