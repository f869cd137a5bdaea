//! What may be asked of a slot, from a session, the HTTP API or another slot's outbox, and what it answers.

use std::sync::Arc;

use bytes::Bytes;
use wk_proto::{
    ChannelKey, Epoch, Fence, Flags, GroupId, LogIndex, MessageId, MessageSeq, NodeId, Reason,
    SessionRef, Uid, WallMs,
};

use crate::command::DecodeError;
use crate::control::{BindResult, Genesis};
use crate::query::{Answer, Query};
use crate::wire;

/// One request to one group.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A message, persistent or not.
    Send(Arc<SendRequest>),
    /// CONNECT of a session, at slot(uid). A linearizable read: nothing is logged (H19).
    Admit(Box<AdmitRequest>),
    /// Any other change of replicated state.
    Write(Box<Write>),
    /// A linearizable read.
    Query(Box<Query>),
}

impl Request {
    /// The group that holds the state this request is about.
    pub fn group(&self, slot_count: u16) -> GroupId {
        match self {
            Self::Send(s) => GroupId::Slot(s.channel.slot(slot_count)),
            Self::Admit(a) => GroupId::Slot(wk_proto::channel::slot_of(a.uid.as_str(), slot_count)),
            Self::Write(w) => w.group(slot_count),
            Self::Query(q) => q.group(slot_count),
        }
    }

    /// For a peer link.
    pub fn encode(&self) -> Bytes {
        wire::encode_request(self)
    }

    /// Inverse of [`Self::encode`]; the payload is a slice of `data`.
    pub fn decode(data: Bytes) -> Result<Self, DecodeError> {
        wire::decode_request(data)
    }
}

impl Request {
    /// Bytes this request holds while it is on its way, roughly: what queues are bounded by.
    pub fn cost(&self) -> usize {
        /// A request without its payload: enum, texts, map entries.
        const FIXED: usize = 512;
        match self {
            Self::Send(s) => {
                let texts = s.client_msg_no.len() + s.topic.len() + s.stream_no.len();
                FIXED + s.payload.len() + texts
            }
            Self::Admit(_) | Self::Query(_) => FIXED,
            // At most UIDS_PER_WRITE_MAX uids of typical length.
            Self::Write(_) => 8 * FIXED,
        }
    }
}

/// Who is behind a SEND. "System" is an internal fact, never derived from a client's string (N1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's session: all sender checks apply, and this session does not get its own message back.
    Client(SessionRef),
    /// The HTTP API, a plugin: sender checks (membership, lists) are skipped, ban and disband are not.
    Server,
}

/// One message on its way to its channel.
#[derive(Clone, Debug, PartialEq)]
pub struct SendRequest {
    /// Stored channel (pair id for persons, twin for commands).
    pub channel: ChannelKey,
    /// Sender.
    pub from: Uid,
    /// Session or server.
    pub origin: Origin,
    /// Header flags; `NO_PERSIST` messages are delivered and not stored.
    pub flags: Flags,
    /// Setting byte, verbatim.
    pub setting: u8,
    /// Seconds; 0 = for ever.
    pub expire: u32,
    /// Idempotency key with `channel` and `from`; empty = none.
    pub client_msg_no: Arc<str>,
    /// Topic; empty = none.
    pub topic: Arc<str>,
    /// Stream number; usually empty.
    pub stream_no: Arc<str>,
    /// Plain payload, at most `PAYLOAD_BYTES_MAX`.
    pub payload: Bytes,
    /// Explicit recipients of an online-only command; `None` = those of the channel.
    pub recipients: Option<Arc<[Uid]>>,
    /// `allow_stranger` of the receiver's own row; `None` until [`crate::Verdict::Ask`] asks for it.
    pub receiver_allows_strangers: Option<bool>,
}

impl SendRequest {
    /// Whether it is recognised when it comes again (H33): it has a number, and it is stored.
    pub fn is_numbered(&self) -> bool {
        !self.client_msg_no.is_empty() && !self.flags.has(Flags::NO_PERSIST)
    }
}

/// What became of a SEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendResult {
    /// Assigned id; of the original if this was a duplicate. Never 0 once a leader saw the message.
    pub message_id: MessageId,
    /// Position; 0 if refused or not persistent.
    pub message_seq: MessageSeq,
    /// `Success`, or why not.
    pub reason: Reason,
}

/// CONNECT as slot(uid) sees it. Keys and encryption stay in the session.
#[derive(Clone, PartialEq, Eq)]
pub struct AdmitRequest {
    /// Who.
    pub uid: Uid,
    /// Compared in constant time; never logged.
    pub token: Arc<str>,
    /// Device class.
    pub device_flag: u8,
    /// Client's device id.
    pub device_id: Arc<str>,
}

impl std::fmt::Debug for AdmitRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "AdmitRequest({} flag {} device {:?})",
            self.uid, self.device_flag, self.device_id
        )
    }
}

/// Master or slave: decides who kicks whom and who counts as offline for push (messaging 1.4, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceLevel {
    /// Coexists with other devices of its flag.
    #[default]
    Slave,
    /// The one device of its flag.
    Master,
}

/// What an admitted session may do (H2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// From the stored token; slave without token auth.
    pub level: DeviceLevel,
    /// Socket SENDs of this user are refused with 25.
    pub send_ban: bool,
}

/// Flags of a channel row. Absent in a request = 0 (v2 overwrites all).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are v2's")]
pub struct ChannelFlags {
    pub ban: bool,
    pub disband: bool,
    pub send_ban: bool,
    pub allow_stranger: bool,
    pub large: bool,
}

/// Which list of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum List {
    /// Blacklist.
    Deny,
    /// Whitelist.
    Allow,
}

/// How a set of uids changes. At most `UIDS_PER_WRITE_MAX` uids a write; callers chunk (H11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// Insert those not present, in order.
    Add(Vec<Uid>),
    /// Remove those present.
    Remove(Vec<Uid>),
    /// Remove all, then insert. For sets larger than one write: `Stage`… then `Switch`.
    Replace(Vec<Uid>),
    /// Insert into the next generation, invisible until `Switch` (H11).
    Stage {
        /// Chosen by the caller, the same for all chunks of one replacement.
        token: u64,
        /// This chunk.
        uids: Vec<Uid>,
    },
    /// Make the staged generation the set, atomically.
    Switch {
        /// Token of the chunks.
        token: u64,
    },
}

/// A change of replicated state. Each is applied once and atomically in its group.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create or overwrite the token of (uid, flag). Refused with 19/24 if the user is banned/disbanded.
    SetToken {
        /// Whose.
        uid: Uid,
        /// Device class.
        device_flag: u8,
        /// Stored level.
        level: DeviceLevel,
        /// The token.
        token: Arc<str>,
    },
    /// Empty the tokens of one flag, or of all (`None`). Answers the flags that had rows.
    QuitDevices {
        /// Whose.
        uid: Uid,
        /// Which; `None` = all.
        device_flag: Option<u8>,
    },
    /// Create or fully overwrite a channel row (for a person: the user's own row, base = uid).
    SetChannel {
        /// Which; never a twin.
        channel: ChannelKey,
        /// All flags.
        flags: ChannelFlags,
        /// Leave an existing row as it is.
        create_only: bool,
    },
    /// `disband = 1` on an existing row; no row: nothing.
    Disband {
        /// Which.
        channel: ChannelKey,
    },
    /// Change the subscribers; conversations of the users follow through the outbox. Creates the channel row if absent on `Add`.
    Members {
        /// Which; never a person channel, never a twin.
        channel: ChannelKey,
        /// How.
        change: SetChange,
    },
    /// Change a deny or allow list. For a person channel `channel.base` is the owner's uid; pair rows follow through the outbox (H1).
    Lists {
        /// Whose.
        channel: ChannelKey,
        /// Which.
        list: List,
        /// How.
        change: SetChange,
    },
    /// Marks of one conversation row, at slot(uid). See [`Mark`] for which create the row.
    Mark {
        /// Whose.
        uid: Uid,
        /// Stored channel (twin = its command part).
        channel: ChannelKey,
        /// What.
        mark: Mark,
    },
    /// Rows owed by another slot, delivered at least once, applied once by epoch (H6, H7).
    Inbox(Inbox),
    /// These outbox rows of this slot have been delivered.
    OutboxDone {
        /// Their keys.
        keys: Vec<OutboxKey>,
    },
    /// Remove what is older than these times, at most a bounded number of rows (D20).
    Sweep {
        /// Tombstones of memberships unchanged since.
        tombstones: WallMs,
        /// Temporary channels unused since, with their members' rows.
        temporaries: WallMs,
    },
    /// Add or remove system accounts (control group).
    SystemUids {
        /// Which.
        uids: Vec<Uid>,
        /// Add or remove.
        add: bool,
    },
    /// Found the cluster (control group). There is one already: `Done`, and nothing changes.
    Genesis(Box<Genesis>),
    /// Bind a disk to a node, once and for ever (control group, H45). Answers [`Reply::Bind`].
    Bind {
        /// Whose.
        node: NodeId,
        /// The disk.
        uuid: u128,
    },
}

impl Write {
    /// See [`Request::group`].
    pub fn group(&self, slot_count: u16) -> GroupId {
        let of = |key: &str| GroupId::Slot(wk_proto::channel::slot_of(key, slot_count));
        match self {
            Self::SetToken { uid, .. } | Self::QuitDevices { uid, .. } | Self::Mark { uid, .. } => {
                of(uid.as_str())
            }
            Self::SetChannel { channel, .. }
            | Self::Disband { channel }
            | Self::Members { channel, .. }
            | Self::Lists { channel, .. } => GroupId::Slot(channel.slot(slot_count)),
            Self::Inbox(inbox) => inbox.group(slot_count),
            // Addressed by the shard itself: never routed.
            Self::OutboxDone { .. }
            | Self::Sweep { .. }
            | Self::SystemUids { .. }
            | Self::Genesis(_)
            | Self::Bind { .. } => GroupId::Control,
        }
    }
}

/// A position in a conversation. Seqs are absolute: the caller asked the channel's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Everything up to here is read; never lowers. Creates the row if absent and the seq is not 0.
    Read(MessageSeq),
    /// Exactly this read position, also lower (setUnread). Creates the row if absent: not for channels without messages.
    Unread(MessageSeq),
    /// Hide everything up to here. No row: nothing.
    Deleted(MessageSeq),
}

/// A fact another slot owes to this one.
#[derive(Clone, Debug, PartialEq)]
pub enum Inbox {
    /// Membership of `uid` in `channel` changed (H7): applied only if `epoch` is larger than the row's.
    Membership {
        /// Whose row.
        uid: Uid,
        /// Base channel or twin; they share one row (H8).
        channel: ChannelKey,
        /// Which change.
        epoch: Epoch,
        /// What changed.
        change: MembershipChange,
        /// Leader's time of the causing entry.
        time: WallMs,
    },
    /// `owner`'s deny/allow list says this about `uid`: the pair row SENDs are checked against (H1).
    Pair {
        /// Whose list.
        owner: Uid,
        /// About whom.
        uid: Uid,
        /// Which list.
        list: List,
        /// On the list or not.
        present: bool,
        /// Which change.
        epoch: Epoch,
    },
}

impl Inbox {
    /// See [`Request::group`].
    pub fn group(&self, slot_count: u16) -> GroupId {
        let key = match self {
            Self::Membership { uid, .. } => uid.as_str().to_owned(),
            Self::Pair { owner, uid, .. } => {
                wk_proto::channel::person_id(owner, uid).as_str().to_owned()
            }
        };
        GroupId::Slot(wk_proto::channel::slot_of(&key, slot_count))
    }
}

/// What a membership row is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// The chat part exists from now on, with everything up to `read` read.
    Join {
        /// Initial read position.
        read: MessageSeq,
        /// The command part exists too, with everything up to here read if it is new (H8: subscribing creates both).
        command_read: Option<MessageSeq>,
    },
    /// The chat row disappears; a command part lives until it is read up to `command_until` (H8).
    Leave {
        /// Last seq of the twin.
        command_until: MessageSeq,
    },
    /// The command part exists from now on, with everything up to `read` read if it is new.
    Command {
        /// Initial read position.
        read: MessageSeq,
    },
}

/// Names an outbox row: (kind, causing log position).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxKey {
    /// Log index of the entry that wrote it.
    pub index: LogIndex,
    /// Running number inside the entry.
    pub position: u32,
}

/// Most uids in one write.
pub const UIDS_PER_WRITE_MAX: usize = 1_000;

/// An answer. Variants pair with [`Request`]'s.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Send`: accepted or refused.
    Sent(SendResult),
    /// To `Admit`: go on with this grant…
    Admitted(Grant, Fence),
    /// …or to `Admit` and `Write`: refused.
    Refused(Reason),
    /// To `Write`: applied, and everything it owed other slots is applied there too.
    Done,
    /// To `QuitDevices`: the flags that had rows.
    Flags(Vec<u8>),
    /// To `Bind`.
    Bind(BindResult),
    /// To `Query`.
    Answer(Box<Answer>),
}

impl Reply {
    /// For a peer link.
    pub fn encode(&self) -> Bytes {
        wire::encode_reply(self)
    }

    /// Inverse of [`Self::encode`]; records are slices of `data`.
    pub fn decode(data: Bytes) -> Result<Self, DecodeError> {
        wire::decode_reply(data)
    }
}

/// Why a call has no reply. A refusal is a [`Reply`], not an error (D7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request had no effect; it may be tried again.
    #[error("not sent: {0}")]
    NotSent(Why),
    /// The request may have had its effect; only an idempotent one may be tried again.
    #[error("outcome unknown: {0}")]
    Unknown(Why),
}

/// What stood in the way of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The group has no leader, or it is elsewhere.
    #[error("no leader for this group here")]
    NotLeader,
    /// A bound on bytes or calls in flight was reached (D11).
    #[error("busy")]
    Busy,
    /// The deadline passed.
    #[error("timed out")]
    Timeout,
    /// The leader lost its office before the entry was committed.
    #[error("leadership was lost")]
    LostLeadership,
    /// The group is stopped because of a failed invariant or disk (H58).
    #[error("this group is faulty")]
    Faulty,
    /// This node is shutting down.
    #[error("shutting down")]
    Draining,
    /// The peer's link broke.
    #[error("the link to the node broke")]
    Link,
}
