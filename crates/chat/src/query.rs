//! Linearizable reads, answered from a [`View`] after a proof of leadership, on any thread (H35, H46).

use std::collections::BTreeSet;

use wk_proto::{ChannelKey, GroupId, MessageId, MessageSeq, Uid, WallMs};
use wk_store::{Dir, Head, Limit, Stored, View};

use crate::control::{self, ControlView};
use crate::request::{ChannelFlags, List};
use crate::tables::Set;
use crate::{conversations, rows, sets, users};

/// What may be read of one group.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Subscribers of a channel, by (length, bytes), after `after`, at most `limit` and [`crate::PAGE_UIDS_MAX`]. Its recipients
    /// are these and [`crate::implicit_recipients`].
    Members {
        /// Which.
        channel: ChannelKey,
        /// Exclusive start.
        after: Option<Uid>,
        /// Most uids.
        limit: usize,
    },
    /// Entries of a deny or allow list, likewise, with their times.
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
    /// The cluster (control group).
    Cluster,
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

/// One entry of a deny or allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Who.
    pub uid: Uid,
    /// When he came onto the list.
    pub created: WallMs,
    /// When he was last put there.
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
    /// To `Members`: the page, and whether more follow.
    Uids(Vec<Uid>, bool),
    /// To `Listed`, likewise.
    Listed(Vec<ListEntry>, bool),
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
    /// To `Cluster`; `None` before `Genesis`.
    Cluster(Option<Box<ControlView>>),
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
            Self::SystemUids | Self::Cluster => GroupId::Control,
        }
    }

    /// Answers from a picture of the group's state.
    pub fn answer(&self, view: &View) -> wk_store::Result<Answer> {
        match self {
            Self::Members {
                channel,
                after,
                limit,
            } => {
                let (uids, more) = sets::page(view, channel, Set::Members, after.as_ref(), *limit)?;
                Ok(Answer::Uids(uids, more))
            }
            Self::Listed {
                channel,
                list,
                after,
                limit,
            } => {
                let (entries, more) =
                    sets::listed(view, channel, (*list).into(), after.as_ref(), *limit)?;
                Ok(Answer::Listed(entries, more))
            }
            Self::Channel(channel) => {
                let row = rows::Channel::read(view, channel)?;
                Ok(Answer::Channel(row.info.map(|i| i.flags())))
            }
            Self::Recents(wanted) => recents(view, wanted).map(Answer::Recents),
            Self::Messages {
                channel,
                first,
                last,
                dir,
                limit,
            } => {
                let limit = Limit {
                    count: *limit,
                    bytes: ANSWER_BYTES_MAX,
                };
                view.range(channel, *first, *last, *dir, limit)
                    .map(Answer::Messages)
            }
            Self::Pick {
                channel,
                seqs,
                ids,
                client_msg_nos,
            } => pick(view, channel, seqs, ids, client_msg_nos).map(Answer::Messages),
            Self::Conversations { uid, limit } => {
                conversations::of_user(view, uid, *limit).map(Answer::Conversations)
            }
            Self::SystemUids => users::system_uids(view).map(Answer::SystemUids),
            Self::Cluster => Ok(Answer::Cluster(control::view(view)?.map(Box::new))),
        }
    }
}

/// Bytes of records in one answer. Reached, the answer is shorter: a range keeps the end `dir` asks for, and later channels of
/// `Recents` get one message each.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

fn recents(view: &View, wanted: &[RecentsOf]) -> wk_store::Result<Vec<Recents>> {
    let mut bytes = ANSWER_BYTES_MAX;
    wanted
        .iter()
        .map(|of| {
            let found = recents_of(view, of, bytes)?;
            let used: usize = found.messages.iter().map(record_bytes).sum();
            bytes = bytes.saturating_sub(used);
            Ok(found)
        })
        .collect()
}

fn record_bytes(stored: &Stored) -> usize {
    stored.record.as_bytes().len()
}

fn recents_of(view: &View, of: &RecentsOf, bytes: usize) -> wk_store::Result<Recents> {
    let head = view.head(&of.channel)?;
    let own_last = match &head {
        Some(_) => view.last_by(&of.channel, of.uid.as_str())?,
        None => None,
    };
    let messages = match &head {
        Some(head) if of.count > 0 && of.from <= head.seq => {
            let limit = Limit {
                count: of.count,
                bytes,
            };
            view.range(&of.channel, of.from, head.seq, of.dir, limit)?
        }
        _ => Vec::new(),
    };
    Ok(Recents {
        head,
        own_last: own_last.unwrap_or_default(),
        messages,
    })
}

/// Each message once, where it is first named; stops at [`ANSWER_BYTES_MAX`].
fn pick(
    view: &View,
    channel: &ChannelKey,
    seqs: &[MessageSeq],
    ids: &[MessageId],
    client_msg_nos: &[String],
) -> wk_store::Result<Vec<Stored>> {
    let mut picked = Picked::default();
    for &seq in seqs {
        let one = Limit {
            count: 1,
            bytes: ANSWER_BYTES_MAX,
        };
        let found = view.range(channel, seq, seq, Dir::Up, one)?;
        picked.add(found.into_iter().next());
    }
    for &id in ids {
        let found = view.by_id(id)?.filter(|(c, _)| c == channel);
        picked.add(found.map(|(_, stored)| stored));
    }
    for number in client_msg_nos {
        let found = view.by_client_msg_no(channel, number, 1)?;
        picked.add(found.into_iter().next());
    }
    Ok(picked.messages)
}

#[derive(Default)]
struct Picked {
    messages: Vec<Stored>,
    seen: BTreeSet<MessageSeq>,
    bytes: usize,
}

impl Picked {
    fn add(&mut self, found: Option<Stored>) {
        if let Some(stored) = found
            && self.bytes < ANSWER_BYTES_MAX
            && self.seen.insert(stored.seq)
        {
            self.bytes += record_bytes(&stored);
            self.messages.push(stored);
        }
    }
}

/// Unread count of a conversation, and the read position to report. Pure; see messaging 7.4.
///
/// `last`: newest seq; `own`: newest seq sent by the user; `last_is_own`: the newest message is his. Deleted messages count as
/// read; so does everything before the user's own last message.
pub fn unread(
    read: MessageSeq,
    deleted: MessageSeq,
    last: MessageSeq,
    own: MessageSeq,
    last_is_own: bool,
) -> (u64, MessageSeq) {
    if last_is_own {
        return (0, last);
    }
    let read = read.max(deleted).max(own);
    (last.0.saturating_sub(read.0), read)
}
