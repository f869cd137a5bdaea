//! Requests tests send, and what they look at afterwards.

use std::sync::Arc;

use wk_chat::request::{ChannelFlags, List, Origin, SetChange, Write};
use wk_chat::{Answer, Query, Reply, Request, SendRequest, SendResult};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, ConnId, Flags, MessageSeq, NodeId, Reason, SessionRef, Uid,
};
use wk_store::{Dir, Stored};

use super::World;

pub fn uid(name: &str) -> Uid {
    Uid::trusted(name)
}

/// A public channel: anybody may send, no conversations.
pub fn info(name: &str) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(name), ChannelType::INFO)
}

pub fn group(name: &str) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(name), ChannelType::GROUP)
}

/// A message of a client.
pub fn send(channel: &ChannelKey, from: &str, no: &str) -> SendRequest {
    SendRequest {
        channel: channel.clone(),
        from: uid(from),
        origin: Origin::Client(SessionRef {
            node: NodeId(1),
            conn: ConnId(1),
        }),
        flags: Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: no.into(),
        topic: "".into(),
        stream_no: "".into(),
        payload: format!("payload of {no}").into(),
        recipients: None,
        receiver_allows_strangers: None,
    }
}

pub fn send_call(channel: &ChannelKey, from: &str, no: &str) -> Request {
    Request::Send(Arc::new(send(channel, from, no)))
}

pub fn write(write: Write) -> Request {
    Request::Write(Box::new(write))
}

pub fn join(channel: &ChannelKey, users: &[&str]) -> Request {
    write(Write::Members {
        channel: channel.clone(),
        change: SetChange::Add(users.iter().map(|u| uid(u)).collect()),
    })
}

pub fn leave(channel: &ChannelKey, users: &[&str]) -> Request {
    write(Write::Members {
        channel: channel.clone(),
        change: SetChange::Remove(users.iter().map(|u| uid(u)).collect()),
    })
}

/// A change of somebody's allow list.
pub fn allow(owner: &str, user: &str, add: bool) -> Request {
    let uids = vec![uid(user)];
    write(Write::Lists {
        channel: ChannelKey::new(ChannelId::trusted(owner), ChannelType::PERSON),
        list: List::Allow,
        change: match add {
            true => SetChange::Add(uids),
            false => SetChange::Remove(uids),
        },
    })
}

pub fn set_channel(channel: &ChannelKey, flags: ChannelFlags) -> Request {
    write(Write::SetChannel {
        channel: channel.clone(),
        flags,
        create_only: false,
    })
}

pub fn history_query(channel: &ChannelKey) -> Query {
    Query::Messages {
        channel: channel.clone(),
        first: MessageSeq(1),
        last: MessageSeq(u64::MAX >> 1),
        dir: Dir::Up,
        limit: 10_000,
    }
}

/// The result of an accepted message; panics on anything else.
pub fn accepted(reply: &Reply) -> SendResult {
    match reply {
        Reply::Sent(result) if result.reason == Reason::Success => *result,
        other => panic!("not accepted: {other:?}"),
    }
}

impl World {
    /// The messages of a channel, read at its leader.
    pub fn history(&mut self, node: NodeId, channel: &ChannelKey) -> Vec<Stored> {
        match self.query(node, history_query(channel)) {
            Ok(Answer::Messages(messages)) => messages,
            other => panic!("no history: {other:?}"),
        }
    }
}
