//! Many raft groups in one value: everything a shard thread does, as data. Raft is a private detail.
//!
//! ```text
//!  Call ─▶ decide ─▶ propose ─▶ Persist(mark) ─▶ [driver: write + fsync] ─▶ Durable(mark) ─▶ commit ─▶ apply ─▶ Committed, Reply
//!                          └──▶ Send(peers), in parallel with the fsync
//! ```
//!
//! No thread, socket, clock, file or random source: the WAL, the network and the checkpoint are the driver's, so the simulator
//! runs this very code.
//!
//! # What the driver owes
//!
//! * Outputs are performed in order. `Persist` may be joined with others of other turns and shards into one fsync.
//! * [`Input::Durable`] reaches the shard **before** anything leaves the node that waited for that mark. It means an fsync that
//!   succeeded; after one that failed there is nothing to report any more: the node stops.
//! * Peer messages may be lost, doubled, delayed and overtaken, but not changed, and [`Input::Peer`] names the node that really sent
//!   them. (Changed ones are dropped or stop a group; they never end the process.)
//! * Every [`Output::Outbox`], [`Output::Ask`] and [`Output::ReadLog`] is answered, if only with a refusal. Silence is survived, slowly.
//!
//! # What is not here yet
//!
//! * **Snapshots.** A leader serves a follower from memory, or from the WAL as long as that holds the entries. Every replica, whatever
//!   its role, keeps them there until every voter has them (heartbeats say up to where that is), but no more than a budget per
//!   group: so whoever is elected next can serve the others. A follower that was away for longer, or lost its disk, is *not* brought up
//!   to date: raft is told that a snapshot is on its way, and the follower waits, counted by nobody's quorum. Nothing is lost, and
//!   the others run.
//! * **Membership changes.** The voters of a group are those it was created with; an entry that changes them stops the group.
//! * **Fast failover** on proof that the leader's process died (H36): elections wait for their timeout.

mod asks;
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
mod unreleased;
mod wire;

pub use shard::{After, Group, Input, Output, PeerMessage, Shard, ShardConfig, WalMark};
