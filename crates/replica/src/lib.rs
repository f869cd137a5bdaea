//! Many raft groups in one value: everything a shard thread does, as data (decisions §3.3). Raft is a private detail.
//!
//! ```text
//!  Call ─▶ decide ─▶ propose ─▶ Persist(mark) ─▶ [driver: write + fsync] ─▶ Durable(mark) ─▶ commit ─▶ apply ─▶ Committed, Reply
//!                          └──▶ Send(peers), in parallel with the fsync
//! ```
//!
//! No thread, socket, clock, file or random source: the WAL, the network and the checkpoint are the driver's, so the simulator
//! runs this very code.

mod held;
mod ids;
mod limits;
mod log;
mod mail;
mod member;
pub mod membership;
mod outbox;
mod reads;
pub mod shard;
mod wire;

pub use shard::{After, Group, Input, Output, PeerMessage, Shard, ShardConfig, WalMark};
