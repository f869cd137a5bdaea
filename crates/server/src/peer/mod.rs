//! Connections between nodes: what they carry, and who may be on the other end. Decides nothing about what they carry.
//!
//! ```text
//!  route, shard threads, presence, delivery ──▶ mesh (bounded queues) ──▶ link ═══ peer
//!  route, shard inboxes, directory, mailboxes ◀── receive ◀───────────── link
//! ```
//!
//! Per pair of nodes there are two connections ([`hello::Purpose`]): raft with heartbeats, and calls with everything else. The node
//! with the smaller number dials. A connection is a session: results come back over it, and its end is told to everybody who
//! waits for one.

mod beats;
mod frame;
mod hello;
mod link;
mod mesh;
mod message;
mod outbox;
mod receive;

pub(crate) use beats::run as beat;
pub(crate) use link::{accept_all, dial};
pub(crate) use mesh::{Mesh, Own, Remote};
pub(crate) use message::{Message, News, SessionOp};

pub(crate) use hello::Purpose;
