//! Answers between nodes.

use bytes::Bytes;
use prost::Message;
use wk_proto::{Fence, MessageId, MessageSeq, Reason, Record, Term, Uid, WallMs};
use wk_store::{Head, Stored};

use super::control::{self, BoundOf, ClusterOf};
use super::{Channel, ChannelFlagsWire, Result, level_of, malformed, narrow, parse};
use crate::query::{Answer, Conversation, ListEntry, Recents};
use crate::request::{DeviceLevel, Grant, Reply, SendResult};

#[derive(Clone, PartialEq, Message)]
struct ReplyOf {
    #[prost(oneof = "Told", tags = "1, 2, 3, 4, 5, 6, 7")]
    told: Option<Told>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Told {
    #[prost(message, tag = "1")]
    Sent(Sent),
    #[prost(message, tag = "2")]
    Admitted(Admitted),
    #[prost(uint32, tag = "3")]
    Refused(u32),
    #[prost(message, tag = "4")]
    Done(Nothing),
    #[prost(bytes = "bytes", tag = "5")]
    Flags(Bytes),
    #[prost(message, tag = "6")]
    Answer(AnswerOf),
    #[prost(message, tag = "7")]
    Bind(BoundOf),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Nothing {}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Sent {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(uint32, tag = "3")]
    reason: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Admitted {
    #[prost(bool, tag = "1")]
    master: bool,
    #[prost(bool, tag = "2")]
    send_ban: bool,
    #[prost(uint64, tag = "3")]
    term: u64,
    #[prost(uint64, tag = "4")]
    n: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerOf {
    #[prost(oneof = "Found", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    found: Option<Found>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Found {
    #[prost(message, tag = "1")]
    Uids(Uids),
    #[prost(message, tag = "2")]
    Channel(ChannelFound),
    #[prost(message, tag = "3")]
    Recents(RecentsList),
    #[prost(message, tag = "4")]
    Messages(Messages),
    #[prost(message, tag = "5")]
    Conversations(Conversations),
    #[prost(message, tag = "6")]
    SystemUids(Uids),
    #[prost(message, tag = "7")]
    Listed(Listed),
    #[prost(message, tag = "8")]
    Cluster(MaybeCluster),
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MaybeCluster {
    #[prost(message, optional, tag = "1")]
    cluster: Option<ClusterOf>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Uids {
    #[prost(string, repeated, tag = "1")]
    uids: Vec<String>,
    #[prost(bool, tag = "2")]
    more: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<ListEntryOf>,
    #[prost(bool, tag = "2")]
    more: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ListEntryOf {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(uint64, tag = "2")]
    created: u64,
    #[prost(uint64, tag = "3")]
    updated: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ChannelFound {
    #[prost(message, optional, tag = "1")]
    flags: Option<ChannelFlagsWire>,
}

#[derive(Clone, PartialEq, Message)]
struct RecentsList {
    #[prost(message, repeated, tag = "1")]
    list: Vec<RecentsEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct RecentsEntry {
    #[prost(message, optional, tag = "1")]
    head: Option<HeadOf>,
    #[prost(uint64, tag = "2")]
    own_last: u64,
    #[prost(message, repeated, tag = "3")]
    messages: Vec<StoredOf>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct HeadOf {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(uint64, tag = "3")]
    time: u64,
    #[prost(string, tag = "4")]
    from: String,
}

#[derive(Clone, PartialEq, Message)]
struct Messages {
    #[prost(message, repeated, tag = "1")]
    messages: Vec<StoredOf>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredOf {
    #[prost(uint64, tag = "1")]
    seq: u64,
    /// A slice of the frame after decoding.
    #[prost(bytes = "bytes", tag = "2")]
    record: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Conversations {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<ConversationOf>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ConversationOf {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(bool, tag = "2")]
    chat: bool,
    #[prost(uint64, tag = "3")]
    read: u64,
    #[prost(uint64, tag = "4")]
    deleted: u64,
    #[prost(uint64, optional, tag = "5")]
    command_read: Option<u64>,
    #[prost(uint64, tag = "6")]
    command_until: u64,
    #[prost(uint64, tag = "7")]
    created: u64,
    #[prost(uint64, tag = "8")]
    updated: u64,
}

/// Encodes an answer for a peer link.
pub(crate) fn encode_reply(reply: &Reply) -> Bytes {
    let told = match reply {
        Reply::Sent(sent) => Told::Sent(Sent {
            id: sent.message_id.0,
            seq: sent.message_seq.0,
            reason: u32::from(sent.reason.code()),
        }),
        Reply::Admitted(grant, fence) => Told::Admitted(Admitted {
            master: grant.level == DeviceLevel::Master,
            send_ban: grant.send_ban,
            term: fence.term.0,
            n: fence.n,
        }),
        Reply::Refused(reason) => Told::Refused(u32::from(reason.code())),
        Reply::Done => Told::Done(Nothing {}),
        Reply::Flags(flags) => Told::Flags(flags.clone().into()),
        Reply::Bind(result) => Told::Bind(control::bound_of(*result)),
        Reply::Answer(answer) => Told::Answer(AnswerOf {
            found: Some(found_of(answer)),
        }),
    };
    ReplyOf { told: Some(told) }.encode_to_vec().into()
}

/// Inverse of [`encode_reply`]. Records are slices of `data`.
pub(crate) fn decode_reply(data: Bytes) -> Result<Reply> {
    let told = parse::<ReplyOf>(data)?.told;
    Ok(match told.ok_or_else(|| malformed("reply"))? {
        Told::Sent(sent) => Reply::Sent(SendResult {
            message_id: MessageId(sent.id),
            message_seq: MessageSeq(sent.seq),
            reason: reason_of(sent.reason)?,
        }),
        Told::Admitted(a) => {
            let grant = Grant {
                level: level_of(a.master),
                send_ban: a.send_ban,
            };
            let fence = Fence {
                term: Term(a.term),
                n: a.n,
            };
            Reply::Admitted(grant, fence)
        }
        Told::Refused(code) => Reply::Refused(reason_of(code)?),
        Told::Done(Nothing {}) => Reply::Done,
        Told::Flags(flags) => Reply::Flags(flags.to_vec()),
        Told::Bind(result) => Reply::Bind(control::bound_from(&result)?),
        Told::Answer(answer) => {
            let found = answer.found.ok_or_else(|| malformed("answer"))?;
            Reply::Answer(Box::new(answer_from(found)?))
        }
    })
}

fn reason_of(code: u32) -> Result<Reason> {
    Reason::from_code(narrow(code, "reason")?).ok_or_else(|| malformed("reason"))
}

fn found_of(answer: &Answer) -> Found {
    match answer {
        Answer::Uids(uids, more) => Found::Uids(Uids {
            uids: super::texts(uids),
            more: *more,
        }),
        Answer::Listed(entries, more) => Found::Listed(Listed {
            entries: entries.iter().map(list_entry_of).collect(),
            more: *more,
        }),
        Answer::Channel(flags) => Found::Channel(ChannelFound {
            flags: flags.map(ChannelFlagsWire::from),
        }),
        Answer::Recents(list) => Found::Recents(RecentsList {
            list: list.iter().map(recents_entry).collect(),
        }),
        Answer::Messages(messages) => Found::Messages(Messages {
            messages: messages.iter().map(stored_of).collect(),
        }),
        Answer::Conversations(rows) => Found::Conversations(Conversations {
            rows: rows.iter().map(conversation_of).collect(),
        }),
        Answer::SystemUids(uids) => Found::SystemUids(Uids {
            uids: super::texts(uids),
            more: false,
        }),
        Answer::Cluster(view) => Found::Cluster(MaybeCluster {
            cluster: view.as_deref().map(control::view_of),
        }),
    }
}

fn list_entry_of(entry: &ListEntry) -> ListEntryOf {
    ListEntryOf {
        uid: entry.uid.as_str().to_owned(),
        created: entry.created.0,
        updated: entry.updated.0,
    }
}

fn recents_entry(recents: &Recents) -> RecentsEntry {
    RecentsEntry {
        head: recents.head.as_ref().map(|head| HeadOf {
            seq: head.seq.0,
            id: head.id.0,
            time: head.time.0,
            from: head.from.as_str().to_owned(),
        }),
        own_last: recents.own_last.0,
        messages: recents.messages.iter().map(stored_of).collect(),
    }
}

fn stored_of(stored: &Stored) -> StoredOf {
    StoredOf {
        seq: stored.seq.0,
        record: stored.record.as_bytes().clone(),
    }
}

fn conversation_of(row: &Conversation) -> ConversationOf {
    ConversationOf {
        channel: (&row.channel).into(),
        chat: row.chat,
        read: row.read.0,
        deleted: row.deleted.0,
        command_read: row.command.map(|(read, _)| read.0),
        command_until: row.command.map_or(0, |(_, until)| until.0),
        created: row.created.0,
        updated: row.updated.0,
    }
}

fn answer_from(found: Found) -> Result<Answer> {
    Ok(match found {
        Found::Uids(page) => Answer::Uids(super::uids(&page.uids), page.more),
        Found::Listed(page) => {
            let entries = page.entries.into_iter().map(list_entry_from);
            Answer::Listed(entries.collect(), page.more)
        }
        Found::Channel(channel) => Answer::Channel(channel.flags.map(Into::into)),
        Found::Recents(list) => {
            let list: Result<_> = list.list.into_iter().map(recents_from).collect();
            Answer::Recents(list?)
        }
        Found::Messages(messages) => Answer::Messages(stored_list(messages.messages)?),
        Found::Conversations(list) => {
            let rows: Result<_> = list.rows.into_iter().map(conversation_from).collect();
            Answer::Conversations(rows?)
        }
        Found::SystemUids(page) => Answer::SystemUids(super::uids(&page.uids)),
        Found::Cluster(found) => {
            let view = found.cluster.map(control::view_from).transpose()?;
            Answer::Cluster(view.map(Box::new))
        }
    })
}

fn list_entry_from(entry: ListEntryOf) -> ListEntry {
    ListEntry {
        uid: Uid::trusted(&entry.uid),
        created: WallMs(entry.created),
        updated: WallMs(entry.updated),
    }
}

fn recents_from(entry: RecentsEntry) -> Result<Recents> {
    Ok(Recents {
        head: entry.head.map(|head| Head {
            seq: MessageSeq(head.seq),
            id: MessageId(head.id),
            time: WallMs(head.time),
            from: Uid::trusted(&head.from),
        }),
        own_last: MessageSeq(entry.own_last),
        messages: stored_list(entry.messages)?,
    })
}

fn stored_list(list: Vec<StoredOf>) -> Result<Vec<Stored>> {
    list.into_iter()
        .map(|stored| {
            let record = Record::parse(stored.record).map_err(|e| malformed(&e.to_string()))?;
            Ok(Stored {
                seq: MessageSeq(stored.seq),
                record,
            })
        })
        .collect()
}

fn conversation_from(row: ConversationOf) -> Result<Conversation> {
    let until = MessageSeq(row.command_until);
    Ok(Conversation {
        channel: row.channel.key()?,
        chat: row.chat,
        read: MessageSeq(row.read),
        deleted: MessageSeq(row.deleted),
        command: row.command_read.map(|read| (MessageSeq(read), until)),
        created: WallMs(row.created),
        updated: WallMs(row.updated),
    })
}
