//! Bounds of a shard, each with its unit and what happens at it.

use wk_proto::limits::{ENTRY_BYTES_MAX, RECORD_BYTES_MAX};

/// Commands of one raft entry (D6). A batch is closed at whichever comes first: this, or [`ENTRY_BYTES_MAX`].
pub const BATCH_COMMANDS_MAX: usize = 256;

/// Bytes of calls waiting or proposed in all groups of one shard; above it: `Busy` (D11).
pub const SHARD_INFLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Calls waiting for a decision in one group; above it: `Busy`.
pub const GROUP_CALLS_MAX: usize = 64 * 1024;

/// Commands decided and applied in one turn, over all groups; the groups not reached go first in the next turn (D9). A command costs
/// 1 to 4 us, so a turn stays below a millisecond: heartbeats and durability wait for it.
pub const TURN_WORK_MAX: usize = 256;

/// Bytes of committed entries handed to apply per group and turn; the rest waits for the next turn (D9).
pub const TURN_APPLY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Batches of a group written and not yet durable; above it new calls gather instead of making small entries.
pub const BATCHES_IN_FLIGHT_MAX: usize = 16;

/// Writes of a group not yet durable; above it appends from the leader are dropped (it sends them again).
pub const READIES_IN_FLIGHT_MAX: usize = 512;

/// Bytes of entries in one append message (one larger entry still goes alone).
pub const APPEND_BYTES_MAX: u64 = 1024 * 1024;

/// Append messages to one follower that are not yet answered; above it the leader waits for the follower.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// Bytes of peer messages waiting for a turn; above it they are dropped (raft sends again) and counted.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes at which a message to one peer is closed and a new one begun.
pub const PEER_MESSAGE_BYTES_TARGET: usize = 1024 * 1024;

/// Bytes of the longest peer message accepted; longer ones are dropped and counted.
pub const PEER_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a raft message's context: a read's number, or the mark of a transfer.
pub const CONTEXT_BYTES_MAX: usize = 32;

/// Numbers in a raft message (terms, indexes): larger ones are not what any node sends.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Applied bytes of a group's log kept in memory for the other voters. Beyond it the oldest entries leave memory (they are still
/// in the WAL), and a follower that needs them is served by reading the WAL.
pub const GROUP_TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same for all groups of a shard, divided evenly among them.
pub const SHARD_TAIL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Committed bytes of a group's log that wait because applying is paused; above it appends are dropped (the leader waits).
pub const PAUSED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Rows of a shard applied and not yet frozen for a checkpoint; at it the same happens as at `ShardConfig::dirty_bytes_max`.
pub const SHARD_DIRTY_ROWS_MAX: usize = 400_000;

/// Bytes of a group's log in the WAL of each replica that wait for a slow voter (H43). Beyond it the WAL is released to the
/// checkpoint, and that voter waits for a snapshot.
pub const LOG_BUDGET_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How long a piece of the log may take to come from the WAL, in ms; then it is asked for again.
pub const FETCH_WAIT_MS: u64 = 5_000;

/// Rounds of leadership proof of a group in flight; reads beyond them join the next round (H35).
pub const READ_ROUNDS_MAX: usize = 4;

/// Reads of a group waiting for a proof; above it: `Busy`.
pub const READS_WAITING_MAX: usize = 16 * 1024;

/// Calls of a group that wait for an answer of another group, or behind one that does; above it: `Busy`.
pub const ASKS_MAX: usize = 1_024;

/// How long an answer from another group may take, in ms; then `NotSent(Timeout)`.
pub const ASK_WAIT_MS: u64 = 2_000;

/// Outbox rows of a group being delivered at once; the others stay in the store until there is room.
pub const OUTBOX_OUTSTANDING_MAX: usize = 256;

/// Delivered outbox rows whose removal is proposed in one command.
pub const OUTBOX_DONE_MAX: usize = 256;

/// First pause before an outbox row is sent again, in ms; doubles up to [`OUTBOX_RETRY_MS_MAX`].
pub const OUTBOX_RETRY_MS: u64 = 100;

/// Longest pause between two attempts at an outbox row, in ms.
pub const OUTBOX_RETRY_MS_MAX: u64 = 2_000;

/// An outbox row without any result after this long is sent again, in ms.
pub const OUTBOX_RESULT_MS_MAX: u64 = 5_000;

/// Replies of a group that wait for outbox rows or behind one that does; at it all of them stop waiting, in order (what they
/// acknowledge is durable).
pub const HELD_REPLIES_MAX: usize = 16 * 1024;

/// Pause between two looks of a leader for what a sweep would remove, in ms; each proposes one bounded command at most (D20).
pub const SWEEP_PERIOD_MS: u64 = 60_000;

/// How long calls proposed by a deposed leader may wait to see what became of them, in ms; then `Unknown(LostLeadership)`.
pub const LOST_LEADERSHIP_MS_MAX: u64 = 2_000;

const _: () = assert!(
    PEER_MESSAGE_BYTES_TARGET + ENTRY_BYTES_MAX + APPEND_BYTES_MAX as usize + 4_096
        <= PEER_MESSAGE_BYTES_MAX,
    "a message that is not yet closed takes any raft message"
);
const _: () = assert!(
    RECORD_BYTES_MAX + 4_096 <= ENTRY_BYTES_MAX,
    "any command fits an entry of its own"
);
