//! Bounds of the drivers, each with its unit and what happens at it. The cores have their own.

use std::time::Duration;

use wk_proto::limits::FRAME_BYTES_MAX;

/// Bytes encoded for one socket and not written. Beyond: the mailbox of the connection is left alone until the socket takes some.
pub(crate) const CONN_OUT_BYTES_TARGET: usize = 256 * 1024;

/// Bytes encoded for one socket and not written, hard. Beyond: the client is slow, silent close (H24).
pub(crate) const CONN_OUT_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// Bytes of messages in one connection's mailbox (their bodies are shared by all receivers). Beyond: slow client, silent close.
pub(crate) const CONN_MAIL_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;

/// Messages in one connection's mailbox. Beyond: slow client, silent close.
pub(crate) const CONN_MAIL_ITEMS_MAX: usize = 16 * 1024;

/// Slots of a connection's queues kept when they run empty, so that an idle one is small.
pub(crate) const CONN_IDLE_SLOTS: usize = 4;

/// Bytes of the per-thread buffer all sockets of a thread read into; also the most one read takes.
pub(crate) const READ_BYTES_MAX: usize = 64 * 1024;

/// Rounds of read, handle and write in one poll of a connection. At it: the task yields to its neighbours.
pub(crate) const CONN_ROUNDS_MAX: usize = 8;

/// From the wish to close until the socket is dropped whatever the peer does, in ms: time to flush and to see its end.
pub(crate) const CLOSE_LINGER_MS: u64 = 1_000;

/// A WebSocket upgrade request. Beyond: 431 and close.
pub(crate) const UPGRADE_BYTES_MAX: usize = 16 * 1024;

/// Payload of one WebSocket message, all its fragments together. Beyond: close 1009.
pub(crate) const WS_MESSAGE_BYTES_MAX: usize = wk_proto::limits::JSON_BYTES_MAX + 64;

/// Resolution of connection timers, in ms: a timer fires up to this late.
pub(crate) const TIMER_TICK_MS: u64 = 100;

/// Buckets of the timer wheel: one turn is about 205 s, just above the usual idle time. Later timers go round again.
pub(crate) const TIMER_BUCKETS: usize = 2_048;

/// Longest pause between two looks at the router's deadlines, in ms.
pub(crate) const ROUTE_TICK_MS: u64 = 20;

/// Time-out of a call, in ms: how long it may park across an election (H30).
pub(crate) const CALL_MS: u64 = 5_000;

/// Time-out of an admission, in ms (H29).
pub(crate) const ADMIT_MS: u64 = 4_000;

/// Inputs a shard takes in one turn at most (D9). The rest waits for the next.
pub(crate) const TURN_INPUTS_MAX: usize = 1_024;

/// Inputs a shard takes in one turn however long it was: below this, batches are too small to pay.
pub(crate) const TURN_INPUTS_MIN: usize = 128;

/// Longest a turn should take. After a longer one the next takes half the inputs.
pub(crate) const TURN_TARGET: Duration = Duration::from_millis(1);

/// Queries waiting for the read pool. Beyond: `Busy`, the router tries again.
pub(crate) const READS_MAX: usize = 16 * 1024;

/// Threads that answer queries.
pub(crate) const READ_THREADS: usize = 2;

/// Threads that resolve recipients.
pub(crate) const DELIVERY_THREADS: usize = 1;

/// Bytes of records waiting for one delivery worker. Beyond: only their position is kept and they are read back from the log (H23).
pub(crate) const DELIVERY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Positions remembered for one lagging delivery worker, about 48 bytes each. Beyond: new ones are counted and not pushed;
/// clients find them when they next pull.
pub(crate) const DELIVERY_LAG_MAX: usize = 1_000_000;

/// Messages read back at once for a lagging channel.
pub(crate) const DELIVERY_READ_MAX: usize = 128;

/// Uids in the recipient plans of one delivery worker. Beyond: the plans used longest ago are dropped and read again when needed.
pub(crate) const PLAN_UIDS_MAX: usize = 2_000_000;

/// Uids read in one step when a plan is made.
pub(crate) const PLAN_PAGE: usize = 10_000;

/// Recipients of one channel. Beyond: nobody further gets a push, and a warning is logged; clients still pull.
pub(crate) const PLAN_RECIPIENTS_MAX: usize = 1_000_000;

/// Metadata rows changed since the last checkpoint that start one (H40).
pub(crate) const CHECKPOINT_ROWS: usize = 20_000;

/// Message bytes since the last checkpoint that start one.
pub(crate) const CHECKPOINT_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of WAL that start a checkpoint.
pub(crate) const CHECKPOINT_WAL_BYTES: u64 = 256 * 1024 * 1024;

/// Oldest age of something not checkpointed, in ms.
pub(crate) const CHECKPOINT_AGE_MS: u64 = 5 * 60 * 1_000;

/// Pause after a failed checkpoint, in ms: the old one stands (D12).
pub(crate) const CHECKPOINT_RETRY_MS: u64 = 10_000;

/// Background writes, bytes per second (H21).
pub(crate) const IO_BYTES_PER_S: usize = 48 * 1024 * 1024;

/// Free space below which appends are refused (D12): this many bytes, or two per cent.
pub(crate) const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Longest `Node::stop` waits for what was accepted, in ms; its whole time is at most 5 s.
pub(crate) const STOP_ANSWER_MS: u64 = 3_000;

/// Pause after `accept` failed for want of descriptors, in ms.
pub(crate) const ACCEPT_PAUSE_MS: u64 = 100;

const _: () = assert!(
    CONN_OUT_BYTES_MAX >= CONN_OUT_BYTES_TARGET + FRAME_BYTES_MAX,
    "a frame that is begun below the target fits"
);

/// Bytes of raft messages waiting for one peer's connection. Beyond: the oldest are dropped; raft sends again.
pub(crate) const RAFT_LINK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Raft messages and heartbeats waiting for one peer's connection. Beyond: the oldest are dropped.
pub(crate) const RAFT_FRAMES_MAX: usize = 16 * 1024;

/// Bytes of calls, session changes and pushes waiting for one peer's connection. Beyond: calls are not sent (`Busy`), pushes are
/// dropped and counted, a session change ends the connection (the next one begins with all sessions).
pub(crate) const CALL_LINK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The same, in frames.
pub(crate) const CALL_FRAMES_MAX: usize = 256 * 1024;

/// Calls of all peers that shards work on. Beyond: `Busy`.
pub(crate) const PEER_CALLS_MAX: usize = 200_000;

/// Sockets on the cluster port, strangers' included. Beyond: new ones are closed.
pub(crate) const PEER_SOCKETS_MAX: usize = 256;

/// Between two heartbeats to a peer, in ms (cluster 7.4).
pub(crate) const BEAT_MS: u64 = 100;

/// Silence after which a peer is not taken for alive any more, in ms.
pub(crate) const PEER_ALIVE_MS: u64 = 500;

/// Silence after which a peer is gone: the lease of its sessions and of what it said to lead, in ms (H20).
pub(crate) const PEER_GONE_MS: u64 = 2_000;

/// Pauses between attempts to connect to a peer, in ms: doubling from the first to the second, the later half of it at random.
pub(crate) const DIAL_PAUSE_MS_MIN: u64 = 100;
pub(crate) const DIAL_PAUSE_MS_MAX: u64 = 1_000;

/// Longest one attempt to connect may take, in ms.
pub(crate) const DIAL_WAIT_MS: u64 = 1_000;

/// Longest an introduction may take, in ms.
pub(crate) const HELLO_WAIT_MS: u64 = 2_000;

/// Bytes of messages in one push to a peer (one larger message still goes alone).
pub(crate) const PUSH_BYTES_TARGET: usize = 1024 * 1024;

/// Connections in one push to a peer.
pub(crate) const PUSH_CONNS_MAX: usize = 16 * 1024;

/// Session changes in one frame when all of them are told.
pub(crate) const SESSIONS_PER_FRAME: usize = 512;

/// How long the answer to a change waits until every node's sessions know of it, in ms; then it is given anyway.
pub(crate) const NEWS_WAIT_MS: u64 = 1_000;

/// Such changes that some node has not acknowledged. Beyond: the oldest is not repeated any more.
pub(crate) const NEWS_PENDING_MAX: usize = 1_024;

/// Longest a planned stop waits for other nodes to take over what this one leads, in ms.
pub(crate) const HAND_OVER_MS: u64 = 1_500;

/// Between two lines in the log about what a node that is not ready waits for, in ms (R-OBS-2).
pub(crate) const SUMMARY_MS: u64 = 10_000;
