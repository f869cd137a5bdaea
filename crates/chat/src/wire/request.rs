//! Requests between nodes.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use wk_proto::{Flags, MessageId, MessageSeq, Uid};
use wk_store::Dir;

use super::{Channel, Result, Session, malformed, narrow, parse};
use crate::query::{Query, RecentsOf};
use crate::request::{AdmitRequest, Origin, Request, SendRequest};

#[derive(Clone, PartialEq, Message)]
struct RequestOf {
    #[prost(oneof = "Asked", tags = "1, 2, 3, 4")]
    asked: Option<Asked>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Asked {
    #[prost(message, tag = "1")]
    Send(Send),
    #[prost(message, tag = "2")]
    Admit(Admit),
    #[prost(message, tag = "3")]
    Write(WriteOf),
    #[prost(message, tag = "4")]
    Query(QueryOf),
}

#[derive(Clone, PartialEq, Message)]
struct Send {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(string, tag = "2")]
    from: String,
    /// Absent = the server.
    #[prost(message, optional, tag = "3")]
    session: Option<Session>,
    #[prost(uint32, tag = "4")]
    flags: u32,
    #[prost(uint32, tag = "5")]
    setting: u32,
    #[prost(uint32, tag = "6")]
    expire: u32,
    #[prost(string, tag = "7")]
    client_msg_no: String,
    #[prost(string, tag = "8")]
    topic: String,
    #[prost(string, tag = "9")]
    stream_no: String,
    #[prost(bytes = "bytes", tag = "10")]
    payload: Bytes,
    /// Absent = those of the channel; an empty list is nobody.
    #[prost(message, optional, tag = "11")]
    recipients: Option<Texts>,
    #[prost(bool, optional, tag = "12")]
    allows_strangers: Option<bool>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    texts: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Admit {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(uint32, tag = "3")]
    device_flag: u32,
    #[prost(string, tag = "4")]
    device_id: String,
}

/// A write as the log has it.
#[derive(Clone, PartialEq, Eq, Message)]
struct WriteOf {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(uint32, tag = "2")]
    version: u32,
    #[prost(bytes = "bytes", tag = "3")]
    body: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct QueryOf {
    #[prost(oneof = "Wanted", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    wanted: Option<Wanted>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Wanted {
    #[prost(message, tag = "1")]
    Members(Page),
    #[prost(message, tag = "2")]
    Listed(Page),
    #[prost(message, tag = "3")]
    Channel(Channel),
    #[prost(message, tag = "4")]
    Recents(RecentsList),
    #[prost(message, tag = "5")]
    Messages(Range),
    #[prost(message, tag = "6")]
    Pick(Pick),
    #[prost(message, tag = "7")]
    Conversations(ConversationsOf),
    #[prost(message, tag = "8")]
    SystemUids(Nothing),
    #[prost(message, tag = "9")]
    Cluster(Nothing),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Eq, Message)]
struct Page {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(uint32, tag = "2")]
    list: u32,
    #[prost(string, optional, tag = "3")]
    after: Option<String>,
    #[prost(uint64, tag = "4")]
    limit: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RecentsList {
    #[prost(message, repeated, tag = "1")]
    list: Vec<RecentsEntry>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RecentsEntry {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    count: u64,
    #[prost(bool, tag = "5")]
    down: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Range {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(uint64, tag = "2")]
    first: u64,
    #[prost(uint64, tag = "3")]
    last: u64,
    #[prost(bool, tag = "4")]
    down: bool,
    #[prost(uint64, tag = "5")]
    limit: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Pick {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(uint64, repeated, tag = "2")]
    seqs: Vec<u64>,
    #[prost(int64, repeated, tag = "3")]
    ids: Vec<i64>,
    #[prost(string, repeated, tag = "4")]
    client_msg_nos: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct ConversationsOf {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(uint64, tag = "2")]
    limit: u64,
}

/// Encodes a request for a peer link.
pub(crate) fn encode_request(request: &Request) -> Bytes {
    let asked = match request {
        Request::Send(send) => Asked::Send(send_of(send)),
        Request::Admit(admit) => Asked::Admit(Admit {
            uid: admit.uid.as_str().to_owned(),
            token: admit.token.to_string(),
            device_flag: u32::from(admit.device_flag),
            device_id: admit.device_id.to_string(),
        }),
        Request::Write(write) => {
            let (kind, body) = super::encode_write(write);
            Asked::Write(WriteOf {
                kind: u32::from(kind),
                version: u32::from(super::VERSION),
                body: body.into(),
            })
        }
        Request::Query(query) => Asked::Query(QueryOf {
            wanted: Some(wanted_of(query)),
        }),
    };
    RequestOf { asked: Some(asked) }.encode_to_vec().into()
}

/// Inverse of [`encode_request`].
pub(crate) fn decode_request(data: Bytes) -> Result<Request> {
    let asked = parse::<RequestOf>(data)?.asked;
    match asked.ok_or_else(|| malformed("request"))? {
        Asked::Send(send) => Ok(Request::Send(Arc::new(send_from(send)?))),
        Asked::Admit(admit) => Ok(Request::Admit(Box::new(AdmitRequest {
            uid: Uid::trusted(&admit.uid),
            token: admit.token.into(),
            device_flag: narrow(admit.device_flag, "device flag")?,
            device_id: admit.device_id.into(),
        }))),
        Asked::Write(write) => {
            let kind = narrow(write.kind, "kind of a write")?;
            let version = narrow(write.version, "version of a write")?;
            let write = super::decode_write(kind, version, write.body)?;
            Ok(Request::Write(Box::new(write)))
        }
        Asked::Query(query) => {
            let wanted = query.wanted.ok_or_else(|| malformed("query"))?;
            Ok(Request::Query(Box::new(query_from(wanted)?)))
        }
    }
}

fn send_of(send: &SendRequest) -> Send {
    Send {
        channel: (&send.channel).into(),
        from: send.from.as_str().to_owned(),
        session: match send.origin {
            Origin::Client(session) => Some(session.into()),
            Origin::Server => None,
        },
        flags: u32::from(send.flags.0),
        setting: u32::from(send.setting),
        expire: send.expire,
        client_msg_no: send.client_msg_no.to_string(),
        topic: send.topic.to_string(),
        stream_no: send.stream_no.to_string(),
        payload: send.payload.clone(),
        recipients: send.recipients.as_deref().map(|uids| Texts {
            texts: super::texts(uids),
        }),
        allows_strangers: send.receiver_allows_strangers,
    }
}

fn send_from(send: Send) -> Result<SendRequest> {
    Ok(SendRequest {
        channel: send.channel.key()?,
        from: Uid::trusted(&send.from),
        origin: match send.session {
            Some(session) => Origin::Client(session.session()),
            None => Origin::Server,
        },
        flags: Flags(narrow(send.flags, "flags")?),
        setting: narrow(send.setting, "setting")?,
        expire: send.expire,
        client_msg_no: send.client_msg_no.into(),
        topic: send.topic.into(),
        stream_no: send.stream_no.into(),
        payload: send.payload,
        recipients: send
            .recipients
            .map(|list| Arc::from(super::uids(&list.texts))),
        receiver_allows_strangers: send.allows_strangers,
    })
}

fn page_of(channel: &wk_proto::ChannelKey, list: u32, after: Option<&Uid>, limit: usize) -> Page {
    Page {
        channel: channel.into(),
        list,
        after: after.map(|uid| uid.as_str().to_owned()),
        limit: limit as u64,
    }
}

fn wanted_of(query: &Query) -> Wanted {
    match query {
        Query::Members {
            channel,
            after,
            limit,
        } => Wanted::Members(page_of(channel, 0, after.as_ref(), *limit)),
        Query::Listed {
            channel,
            list,
            after,
            limit,
        } => {
            let list = super::list_number(*list);
            Wanted::Listed(page_of(channel, list, after.as_ref(), *limit))
        }
        Query::Channel(channel) => Wanted::Channel(channel.into()),
        Query::Recents(list) => Wanted::Recents(RecentsList {
            list: list.iter().map(recents_entry).collect(),
        }),
        Query::Messages {
            channel,
            first,
            last,
            dir,
            limit,
        } => Wanted::Messages(Range {
            channel: channel.into(),
            first: first.0,
            last: last.0,
            down: *dir == Dir::Down,
            limit: *limit as u64,
        }),
        Query::Pick {
            channel,
            seqs,
            ids,
            client_msg_nos,
        } => Wanted::Pick(Pick {
            channel: channel.into(),
            seqs: seqs.iter().map(|s| s.0).collect(),
            ids: ids.iter().map(|i| i.0).collect(),
            client_msg_nos: client_msg_nos.clone(),
        }),
        Query::Conversations { uid, limit } => Wanted::Conversations(ConversationsOf {
            uid: uid.as_str().to_owned(),
            limit: *limit as u64,
        }),
        Query::SystemUids => Wanted::SystemUids(Nothing {}),
        Query::Cluster => Wanted::Cluster(Nothing {}),
    }
}

fn recents_entry(of: &RecentsOf) -> RecentsEntry {
    RecentsEntry {
        channel: (&of.channel).into(),
        uid: of.uid.as_str().to_owned(),
        from: of.from.0,
        count: of.count as u64,
        down: of.dir == Dir::Down,
    }
}

fn dir_of(down: bool) -> Dir {
    if down { Dir::Down } else { Dir::Up }
}

fn query_from(wanted: Wanted) -> Result<Query> {
    Ok(match wanted {
        Wanted::Members(page) => Query::Members {
            channel: page.channel.key()?,
            after: page.after.as_deref().map(Uid::trusted),
            limit: narrow(page.limit, "limit")?,
        },
        Wanted::Listed(page) => Query::Listed {
            channel: page.channel.key()?,
            list: super::list_of(page.list)?,
            after: page.after.as_deref().map(Uid::trusted),
            limit: narrow(page.limit, "limit")?,
        },
        Wanted::Channel(channel) => Query::Channel(channel.key()?),
        Wanted::Recents(list) => {
            let list: Result<_> = list.list.into_iter().map(recents_from).collect();
            Query::Recents(list?)
        }
        Wanted::Messages(range) => Query::Messages {
            channel: range.channel.key()?,
            first: MessageSeq(range.first),
            last: MessageSeq(range.last),
            dir: dir_of(range.down),
            limit: narrow(range.limit, "limit")?,
        },
        Wanted::Pick(pick) => Query::Pick {
            channel: pick.channel.key()?,
            seqs: pick.seqs.into_iter().map(MessageSeq).collect(),
            ids: pick.ids.into_iter().map(MessageId).collect(),
            client_msg_nos: pick.client_msg_nos,
        },
        Wanted::Conversations(of) => Query::Conversations {
            uid: Uid::trusted(&of.uid),
            limit: narrow(of.limit, "limit")?,
        },
        Wanted::SystemUids(Nothing {}) => Query::SystemUids,
        Wanted::Cluster(Nothing {}) => Query::Cluster,
    })
}

fn recents_from(entry: RecentsEntry) -> Result<RecentsOf> {
    Ok(RecentsOf {
        channel: entry.channel.key()?,
        uid: Uid::trusted(&entry.uid),
        from: MessageSeq(entry.from),
        count: narrow(entry.count, "count")?,
        dir: dir_of(entry.down),
    })
}
