//! What goes into the log, and what applying it causes (decisions D5, D6).

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{ChannelKey, MessageId, MessageSeq, NodeId, Record, SessionRef, Uid, WallMs};

use crate::entry;
use crate::request::{Inbox, OutboxKey, Reply, Write};

/// Meaning of the commands: apply matches on it, replicas agree on it through the log (H47). First is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulesVersion(pub u16);

impl RulesVersion {
    /// The newest meaning this build knows.
    pub const CURRENT: Self = Self(1);
}

/// A consumer of the message log with a replicated position (H13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Consumer {
    /// Fan-out to sessions.
    Deliver = 1,
    /// msg.notify webhooks.
    Notify = 2,
    /// Plugins' PersistAfter.
    PersistAfter = 3,
}

/// Chosen by the leader before the log. Apply reads no clock, configuration, randomness or file layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Leader's time: at least that of every message before, and of every entry the leader applied or proposed since it started
    /// (D17). Only a restart on a checkpoint with a clock that went back can make it less than that of an earlier write.
    pub time: WallMs,
    /// How to read the commands.
    pub rules: RulesVersion,
    /// Consumers' positions that ride along: everything up to the id is done.
    pub cursors: Vec<(Consumer, MessageId)>,
}

/// One raft entry of a slot: many commands, applied as one unit (D6).
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// For all commands.
    pub stamp: Stamp,
    /// In order.
    pub commands: Vec<Command>,
}

impl Batch {
    /// Encodes into one entry's data. Records are copied once, here; after the log they are slices of the entry.
    pub fn encode(&self) -> Bytes {
        entry::encode(self)
    }
    /// Decodes an entry's data. An unknown kind or version is an error that stops the group (D5), never a skip.
    pub fn decode(data: Bytes) -> Result<Self, DecodeError> {
        entry::decode(data)
    }
}

/// Why an entry cannot be read: the group becomes `Faulty` (H58).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer build.
    #[error("command kind {kind} version {version} is unknown to this build")]
    Unknown {
        /// Kind number; 0 = the batch itself, whose version is that of its layout or its rules.
        kind: u16,
        /// Version of its body.
        version: u16,
    },
    /// Not what any build writes.
    #[error("malformed entry: {0}")]
    Malformed(String),
}

/// One command. Everything apply needs was resolved by the leader.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Append a message (idempotent by (channel, from, client_msg_no) since `dedupe_since`, H33).
    Append(Append),
    /// Any other write; what depended on configuration is in `Resolved`.
    Write(Box<Write>),
}

impl Command {
    /// Bytes this command adds to an encoded batch; for closing batches below `ENTRY_BYTES_MAX`.
    pub fn encoded_len(&self) -> usize {
        entry::encoded_len(self)
    }
}

/// A message, ready for the channel's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// Where to.
    pub channel: ChannelKey,
    /// The body, with id and time.
    pub record: Record,
    /// Look for a duplicate with a time at or after this; 0 = do not look.
    pub dedupe_since: WallMs,
    /// Whether the pair's or recipients' conversation rows may be created (leader's `whitelistOffOfPerson`, type rules).
    pub conversation: bool,
    /// Session that must not get it back.
    pub origin: Option<SessionRef>,
}

/// What happened to one command; the same on every replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer.
    pub reply: Reply,
    /// Outbox rows this command wrote: the answer waits for them (H6).
    pub outbox: Vec<OutboxKey>,
}

/// What changed in the control group's picture of the cluster; the picture itself is read from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlChange {
    /// `Genesis` was applied: there is a cluster.
    Founded,
    /// A disk was bound to this node.
    Bound(NodeId),
}

/// What the world must do because an entry was applied. On the leader these are acted upon; elsewhere dropped, but for those that
/// [`Effect::is_everywhere`] names.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Messages were appended to one channel, contiguous from `first`.
    Appended {
        /// Where.
        channel: ChannelKey,
        /// Seq of the first.
        first: MessageSeq,
        /// Each with the session it came from.
        messages: Vec<(Record, Option<SessionRef>)>,
    },
    /// A message that is not stored: deliver at most once.
    Transient {
        /// Where.
        channel: ChannelKey,
        /// The body.
        record: Record,
        /// Session it came from.
        origin: Option<SessionRef>,
        /// Explicit recipients.
        recipients: Option<Arc<[Uid]>>,
    },
    /// Recipients of a channel changed: cached plans are stale.
    MembersChanged(ChannelKey),
    /// Deliver this to the group of `inbox` until it is applied there, then propose `OutboxDone`.
    Outbox(OutboxKey, Inbox),
    /// Close sessions of this user and device flag (`None` = all): token changed to master, or quit.
    Kick {
        /// Whose.
        uid: Uid,
        /// Device class.
        device_flag: Option<u8>,
        /// DISCONNECT's reason text.
        text: &'static str,
        /// Milliseconds between the notice and the close.
        delay_ms: u64,
    },
    /// `send_ban` of this user changed: sessions get a new grant before the writer gets its answer (H2).
    SendBan {
        /// Whose.
        uid: Uid,
        /// New value.
        on: bool,
    },
    /// The set of system accounts is now this (control group).
    SystemUids(Arc<[Uid]>),
    /// The cluster changed (control group): every node with a replica reads it again.
    Control(ControlChange),
}

impl Effect {
    /// Whether every replica's node acts upon it, not only the leader's.
    pub const fn is_everywhere(&self) -> bool {
        matches!(self, Self::Control(_))
    }
}
