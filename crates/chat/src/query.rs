//! Linearizable reads, answered from a [`View`] after a proof of leadership, on any thread (H35, H46).

use wk_proto::{ChannelKey, GroupId, MessageId, MessageSeq, Uid, WallMs};
use wk_store::{Dir, Head, Stored, View};

use crate::request::{ChannelFlags, List};

/// What may be read of one group.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Recipients of a channel: subscribers in key order after `after`, at most `limit`.
    Members {
        /// Which.
        channel: ChannelKey,
        /// Exclusive start.
        after: Option<Uid>,
        /// Most uids.
        limit: usize,
    },
    /// Entries of a deny or allow list, likewise.
    Listed {
        /// Whose (person: base = owner's uid).
        channel: ChannelKey,
        /// Which list.
        list: List,
        /// Exclusive start.
        after: Option<Uid>,
        /// Most uids.
        limit: usize,
    },
    /// A channel row.
    Channel(ChannelKey),
    /// Heads, own last seqs and recent messages of many channels of this slot, in the order asked.
    Recents(Vec<RecentsOf>),
    /// Messages of one channel by seq.
    Messages {
        /// Which.
        channel: ChannelKey,
        /// Lowest seq wanted.
        first: MessageSeq,
        /// Highest seq wanted.
        last: MessageSeq,
        /// Which end `limit` keeps.
        dir: Dir,
        /// Most messages.
        limit: usize,
    },
    /// Single messages of one channel: by seqs, then ids, then client_msg_nos (newest each); missing ones are left out.
    Pick {
        /// Which.
        channel: ChannelKey,
        /// By position.
        seqs: Vec<MessageSeq>,
        /// By id; ids of other channels do not match.
        ids: Vec<MessageId>,
        /// By client_msg_no.
        client_msg_nos: Vec<String>,
    },
    /// Conversation rows of a user (at slot(uid)), tombstones left out, at most `limit`, newest `updated` first.
    Conversations {
        /// Whose.
        uid: Uid,
        /// Most rows.
        limit: usize,
    },
    /// System accounts (control group).
    SystemUids,
}

/// One channel of [`Query::Recents`].
#[derive(Clone, Debug, PartialEq)]
pub struct RecentsOf {
    /// Which.
    pub channel: ChannelKey,
    /// For own-last-seq.
    pub uid: Uid,
    /// Messages below are not wanted.
    pub from: MessageSeq,
    /// Newest `count` of the rest; 0 = heads only.
    pub count: usize,
    /// Newest first, or oldest first starting at `from`.
    pub dir: Dir,
}

/// One conversation row (H7): chat and command part share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Base channel.
    pub channel: ChannelKey,
    /// The chat part is there.
    pub chat: bool,
    /// Everything up to here is read.
    pub read: MessageSeq,
    /// Everything up to here is hidden.
    pub deleted: MessageSeq,
    /// The command part: `(read, until)`; `until` 0 = open end.
    pub command: Option<(MessageSeq, MessageSeq)>,
    /// When the row came to be.
    pub created: WallMs,
    /// Last change of the row.
    pub updated: WallMs,
}

/// One channel of an answer to [`Query::Recents`].
#[derive(Clone, Debug, PartialEq)]
pub struct Recents {
    /// Newest message; `None` = never had one.
    pub head: Option<Head>,
    /// Newest message of the asking user.
    pub own_last: MessageSeq,
    /// As asked, ascending.
    pub messages: Vec<Stored>,
}

/// Answers, paired with [`Query`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Members` and `Listed`: the page, and whether more follow.
    Uids(Vec<Uid>, bool),
    /// To `Channel`.
    Channel(Option<ChannelFlags>),
    /// To `Recents`.
    Recents(Vec<Recents>),
    /// To `Messages` and `Pick`.
    Messages(Vec<Stored>),
    /// To `Conversations`.
    Conversations(Vec<Conversation>),
    /// To `SystemUids`.
    SystemUids(Vec<Uid>),
}

impl Query {
    /// The group that can answer.
    pub fn group(&self, slot_count: u16) -> GroupId {
        let slot = |c: &ChannelKey| GroupId::Slot(c.slot(slot_count));
        match self {
            Self::Members { channel, .. }
            | Self::Listed { channel, .. }
            | Self::Channel(channel)
            | Self::Messages { channel, .. }
            | Self::Pick { channel, .. } => slot(channel),
            // All channels of one query share a slot; an empty query may go anywhere.
            Self::Recents(list) => list.first().map_or(GroupId::Control, |r| slot(&r.channel)),
            Self::Conversations { uid, .. } => {
                GroupId::Slot(wk_proto::channel::slot_of(uid.as_str(), slot_count))
            }
            Self::SystemUids => GroupId::Control,
        }
    }

    /// Answers from a picture of the group's state.
    pub fn answer(&self, view: &View) -> wk_store::Result<Answer> {
        let _ = view;
        todo!()
    }
}

/// Unread count of a conversation, and the read position to report. Pure; see messaging 7.4.
///
/// `last`: newest seq; `own`: newest seq sent by the user; `last_is_own`: the newest message is his.
pub fn unread(
    read: MessageSeq,
    deleted: MessageSeq,
    last: MessageSeq,
    own: MessageSeq,
    last_is_own: bool,
) -> (u64, MessageSeq) {
    let _ = (read, deleted, last, own, last_is_own);
    todo!()
}
