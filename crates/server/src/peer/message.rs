//! What nodes say to each other once they know who they are. Decoding is total: any bytes give a message or `None`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use wk_chat::request::{CallError, Why};
use wk_cluster::formation;
use wk_cluster::{Entry, PublishId};
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, ConnId, Fence, GroupId, MessageSeq, NodeId, Record,
    SessionRef, Term, Ticket, Uid,
};
use wk_replica::PeerMessage;
use wk_session::Delivery;

use super::frame::{self, Frame, Reader, put_bytes};
use crate::delivery::Outgoing;

/// Frame kinds after the hello. A number never changes its meaning.
mod kind {
    pub(super) const RAFT: u8 = 16;
    pub(super) const BEAT: u8 = 17;
    pub(super) const CALL: u8 = 18;
    pub(super) const REPLY: u8 = 19;
    pub(super) const SESSIONS_BEGIN: u8 = 20;
    pub(super) const SESSIONS: u8 = 21;
    pub(super) const SESSIONS_END: u8 = 22;
    pub(super) const SESSIONS_ACK: u8 = 23;
    pub(super) const PUSH: u8 = 24;
    pub(super) const NEWS: u8 = 25;
    pub(super) const NEWS_ACK: u8 = 26;
    pub(super) const FORM: u8 = 27;
}

/// One change of what a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionOp {
    /// A session, under its publication.
    Add(PublishId, Uid, Entry),
    /// It ended.
    Remove(Uid, ConnId),
}

/// Something committed at a leader that concerns the sessions or the rules of every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// See `Effect::Kick`.
    Kick {
        uid: Uid,
        device_flag: Option<u8>,
        /// The empty text, or the one text there is.
        has_text: bool,
        delay_ms: u64,
    },
    /// See `Effect::SendBan`.
    SendBan { uid: Uid, on: bool },
    /// See `Effect::SystemUids`.
    SystemUids(Arc<[Uid]>),
}

/// Messages of one channel for connections of the receiving node.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) conns: Vec<ConnId>,
    pub(crate) messages: Vec<Outgoing>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Raft(PeerMessage),
    /// Alive, and the leader of these groups (H56).
    Beat(Vec<(GroupId, Term)>),
    /// For the leader of this term of the group (H31).
    Call(Ticket, GroupId, Term, Bytes),
    Reply(Ticket, Result<Bytes, CallError>),
    /// All sessions follow, up to the end; what is not among them is gone.
    SessionsBegin,
    Sessions(Vec<SessionOp>),
    SessionsEnd(PublishId),
    /// Everything up to here is applied.
    SessionsAck(PublishId),
    Push(Push),
    News(u64, News),
    NewsAck(u64),
    /// About forming a cluster: all that a disk without a seat may say.
    Form(formation::Message),
    /// A kind of a newer version.
    Unknown,
}

const WHYS: [Why; 7] = [
    Why::NotLeader,
    Why::Busy,
    Why::Timeout,
    Why::LostLeadership,
    Why::Faulty,
    Why::Draining,
    Why::Link,
];

impl Message {
    pub(crate) fn encode(&self) -> Bytes {
        match self {
            Self::Raft(message) => encode(kind::RAFT, message.0.len(), |out| {
                out.put_slice(&message.0);
            }),
            Self::Beat(offices) => encode(kind::BEAT, offices.len() * 12 + 4, |out| {
                out.put_u32_le(offices.len() as u32);
                for (group, term) in offices {
                    out.put_u32_le(group.to_u32());
                    out.put_u64_le(term.0);
                }
            }),
            Self::Call(ticket, group, term, request) => {
                encode(kind::CALL, request.len() + 20, |out| {
                    out.put_u64_le(ticket.0);
                    out.put_u32_le(group.to_u32());
                    out.put_u64_le(term.0);
                    out.put_slice(request);
                })
            }
            Self::Reply(ticket, outcome) => {
                let size = outcome.as_ref().map_or(2, Bytes::len) + 9;
                encode(kind::REPLY, size, |out| {
                    out.put_u64_le(ticket.0);
                    put_outcome(out, outcome);
                })
            }
            Self::SessionsBegin => encode(kind::SESSIONS_BEGIN, 0, |_| {}),
            Self::Sessions(ops) => encode(kind::SESSIONS, ops.len() * 80, |out| {
                out.put_u32_le(ops.len() as u32);
                ops.iter().for_each(|op| put_op(out, op));
            }),
            Self::SessionsEnd(id) => encode(kind::SESSIONS_END, 8, |out| out.put_u64_le(id.0)),
            Self::SessionsAck(id) => encode(kind::SESSIONS_ACK, 8, |out| out.put_u64_le(id.0)),
            Self::Push(push) => encode(kind::PUSH, push.size(), |out| push.put(out)),
            Self::News(id, news) => encode(kind::NEWS, 64, |out| {
                out.put_u64_le(*id);
                put_news(out, news);
            }),
            Self::NewsAck(id) => encode(kind::NEWS_ACK, 8, |out| out.put_u64_le(*id)),
            Self::Form(message) => {
                let message = message.encode();
                encode(kind::FORM, message.len(), |out| out.put_slice(&message))
            }
            Self::Unknown => encode(u8::MAX, 0, |_| {}),
        }
    }

    /// Reads a frame of `from`.
    pub(super) fn decode(frame: Frame, from: NodeId) -> Option<Self> {
        let mut body = Reader(frame.body);
        Some(match frame.kind {
            kind::RAFT => Self::Raft(PeerMessage(body.rest())),
            kind::BEAT => Self::Beat(body.rows(12, |row| {
                Some((GroupId::from_u32(row.u32()?)?, Term(row.u64()?)))
            })?),
            kind::CALL => {
                let ticket = Ticket(body.u64()?);
                let group = GroupId::from_u32(body.u32()?)?;
                let term = Term(body.u64()?);
                Self::Call(ticket, group, term, body.rest())
            }
            kind::REPLY => Self::Reply(Ticket(body.u64()?), outcome(body)?),
            kind::SESSIONS_BEGIN => Self::SessionsBegin,
            kind::SESSIONS => Self::Sessions(body.rows(13, |row| op(row, from))?),
            kind::SESSIONS_END => Self::SessionsEnd(PublishId(body.u64()?)),
            kind::SESSIONS_ACK => Self::SessionsAck(PublishId(body.u64()?)),
            kind::PUSH => Self::Push(Push::read(&mut body)?),
            kind::NEWS => Self::News(body.u64()?, news(&mut body)?),
            kind::NEWS_ACK => Self::NewsAck(body.u64()?),
            // A newer version may have more to say.
            kind::FORM => {
                formation::Message::decode(&body.rest()).map_or(Self::Unknown, Self::Form)
            }
            _ => Self::Unknown,
        })
    }
}

fn encode(kind: u8, size: usize, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    frame::encode(kind, size, body)
}

fn put_outcome(out: &mut BytesMut, outcome: &Result<Bytes, CallError>) {
    let (tag, why) = match outcome {
        Ok(reply) => {
            out.put_u8(0);
            return out.put_slice(reply);
        }
        Err(CallError::NotSent(why)) => (1, why),
        Err(CallError::Unknown(why)) => (2, why),
    };
    out.put_u8(tag);
    let number = WHYS.iter().position(|known| known == why);
    out.put_u8(number.unwrap_or_default() as u8);
}

fn outcome(mut body: Reader) -> Option<Result<Bytes, CallError>> {
    let tag = body.u8()?;
    if tag == 0 {
        return Some(Ok(body.rest()));
    }
    let why = *WHYS.get(usize::from(body.u8()?))?;
    match tag {
        1 => Some(Err(CallError::NotSent(why))),
        2 => Some(Err(CallError::Unknown(why))),
        _ => None,
    }
}

fn put_uid(out: &mut BytesMut, uid: &Uid) {
    put_bytes(out, uid.as_str().as_bytes());
}

fn uid(body: &mut Reader) -> Option<Uid> {
    Some(Uid::trusted(&body.text()?))
}

fn put_op(out: &mut BytesMut, op: &SessionOp) {
    match op {
        SessionOp::Add(id, uid, entry) => {
            out.put_u8(1);
            put_uid(out, uid);
            out.put_u64_le(entry.session.conn.0);
            out.put_u64_le(id.0);
            out.put_u8(entry.device_flag);
            out.put_u8(u8::from(entry.master));
            put_bytes(out, entry.device_id.as_bytes());
            out.put_u64_le(entry.fence.term.0);
            out.put_u64_le(entry.fence.n);
        }
        SessionOp::Remove(uid, conn) => {
            out.put_u8(2);
            put_uid(out, uid);
            out.put_u64_le(conn.0);
        }
    }
}

fn op(body: &mut Reader, node: NodeId) -> Option<SessionOp> {
    let tag = body.u8()?;
    let uid = uid(body)?;
    let conn = ConnId(body.u64()?);
    match tag {
        1 => {
            let id = PublishId(body.u64()?);
            let entry = Entry {
                session: SessionRef { node, conn },
                device_flag: body.u8()?,
                master: body.u8()? != 0,
                device_id: body.text()?.into(),
                fence: Fence {
                    term: Term(body.u64()?),
                    n: body.u64()?,
                },
            };
            Some(SessionOp::Add(id, uid, entry))
        }
        2 => Some(SessionOp::Remove(uid, conn)),
        _ => None,
    }
}

fn put_news(out: &mut BytesMut, news: &News) {
    match news {
        News::Kick {
            uid,
            device_flag,
            has_text,
            delay_ms,
        } => {
            out.put_u8(1);
            put_uid(out, uid);
            out.put_u8(u8::from(device_flag.is_some()));
            out.put_u8(device_flag.unwrap_or_default());
            out.put_u8(u8::from(*has_text));
            out.put_u64_le(*delay_ms);
        }
        News::SendBan { uid, on } => {
            out.put_u8(2);
            put_uid(out, uid);
            out.put_u8(u8::from(*on));
        }
        News::SystemUids(uids) => {
            out.put_u8(3);
            out.put_u32_le(uids.len() as u32);
            uids.iter().for_each(|uid| put_uid(out, uid));
        }
    }
}

fn news(body: &mut Reader) -> Option<News> {
    match body.u8()? {
        1 => {
            let uid = uid(body)?;
            let (is_one, flag) = (body.u8()? != 0, body.u8()?);
            Some(News::Kick {
                uid,
                device_flag: is_one.then_some(flag),
                has_text: body.u8()? != 0,
                delay_ms: body.u64()?,
            })
        }
        2 => Some(News::SendBan {
            uid: uid(body)?,
            on: body.u8()? != 0,
        }),
        3 => Some(News::SystemUids(body.rows(4, uid)?.into())),
        _ => None,
    }
}

/// Position of a message that is not stored.
const TRANSIENT: u64 = 0;

impl Push {
    fn size(&self) -> usize {
        let records = self.messages.iter();
        let records: usize = records
            .map(|m| m.delivery.record.as_bytes().len() + 26)
            .sum();
        records + self.conns.len() * 8 + 600
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u32_le(self.conns.len() as u32);
        self.conns.iter().for_each(|conn| out.put_u64_le(conn.0));
        let channel = self.messages.first().map(|m| &m.delivery.channel);
        let base = channel.map_or("", |c| c.base.as_str());
        put_bytes(out, base.as_bytes());
        out.put_u8(channel.map_or(0, |c| c.kind.0));
        out.put_u8(u8::from(channel.is_some_and(|c| c.twin)));
        out.put_u32_le(self.messages.len() as u32);
        for Outgoing { delivery, origin } in &self.messages {
            out.put_u64_le(delivery.seq.map_or(TRANSIENT, |seq| seq.0));
            // Node numbers start at 1.
            out.put_u32_le(origin.map_or(0, |origin| origin.node.0));
            out.put_u64_le(origin.map_or(0, |origin| origin.conn.0));
            put_bytes(out, delivery.record.as_bytes());
        }
    }

    fn read(body: &mut Reader) -> Option<Self> {
        let conns = body.rows(8, |row| row.u64().map(ConnId))?;
        let channel = ChannelKey {
            base: ChannelId::trusted(&body.text()?),
            kind: ChannelType(body.u8()?),
            twin: body.u8()? != 0,
        };
        let messages = body.rows(24, |row| {
            let seq = row.u64()?;
            let origin = SessionRef {
                node: NodeId(row.u32()?),
                conn: ConnId(row.u64()?),
            };
            let record = Record::parse(row.bytes()?).ok()?;
            Some(Outgoing {
                delivery: Arc::new(Delivery {
                    channel: channel.clone(),
                    seq: (seq != TRANSIENT).then_some(MessageSeq(seq)),
                    record,
                }),
                origin: (origin.node.0 != 0).then_some(origin),
            })
        })?;
        Some(Self { conns, messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use wk_proto::record::Body;

    fn one_of_each() -> Vec<Message> {
        let uid = Uid::trusted("ann");
        let session = |node, conn| SessionRef {
            node: NodeId(node),
            conn: ConnId(conn),
        };
        let entry = Entry {
            session: session(2, 5),
            device_flag: 1,
            device_id: "d".into(),
            master: true,
            fence: Fence {
                term: Term(3),
                n: 4,
            },
        };
        let record = Body::default().encode();
        let channel = ChannelKey::new(ChannelId::trusted("g"), ChannelType::GROUP);
        let outgoing = |seq: Option<u64>, origin| {
            Outgoing::new(channel.clone(), seq.map(MessageSeq), record.clone(), origin)
        };
        vec![
            Message::Raft(PeerMessage(Bytes::from_static(b"raft"))),
            Message::Beat(vec![(GroupId::Control, Term(7))]),
            Message::Call(
                Ticket(1),
                GroupId::Control,
                Term(3),
                Bytes::from_static(b"ask"),
            ),
            Message::Reply(Ticket(1), Ok(Bytes::from_static(b"yes"))),
            Message::Reply(Ticket(1), Err(CallError::NotSent(Why::NotLeader))),
            Message::Reply(Ticket(1), Err(CallError::Unknown(Why::Link))),
            Message::SessionsBegin,
            Message::Sessions(vec![
                SessionOp::Add(PublishId(9), uid.clone(), entry),
                SessionOp::Remove(uid.clone(), ConnId(5)),
            ]),
            Message::SessionsEnd(PublishId(9)),
            Message::SessionsAck(PublishId(9)),
            Message::Push(Push {
                conns: vec![ConnId(1), ConnId(2)],
                messages: vec![outgoing(Some(3), Some(session(1, 8))), outgoing(None, None)],
            }),
            Message::News(
                1,
                News::Kick {
                    uid: uid.clone(),
                    device_flag: Some(0),
                    has_text: true,
                    delay_ms: 10,
                },
            ),
            Message::News(
                2,
                News::SendBan {
                    uid: uid.clone(),
                    on: true,
                },
            ),
            Message::News(3, News::SystemUids([uid].into())),
            Message::NewsAck(3),
            Message::Unknown,
        ]
    }

    fn read(frame: &Bytes) -> Option<Message> {
        let mut bytes = BytesMut::from(&frame[..]);
        let frame = frame::take(&mut bytes, frame::BODY_BYTES_MAX)
            .unwrap()
            .unwrap();
        Message::decode(frame, NodeId(2))
    }

    #[test]
    fn every_message_reads_back_and_no_part_of_it_panics() {
        for message in one_of_each() {
            let frame = message.encode();
            let back = read(&frame).expect("what we write is readable");
            assert_eq!(format!("{back:?}"), format!("{message:?}"));
            for at in frame::HEADER..frame.len() {
                let body = frame.slice(frame::HEADER..at);
                let _ = Message::decode(
                    Frame {
                        kind: frame[4],
                        body,
                    },
                    NodeId(2),
                );
                let mut changed = frame[frame::HEADER..].to_vec();
                changed[at - frame::HEADER] ^= 0xff;
                let body = changed.into();
                let _ = Message::decode(
                    Frame {
                        kind: frame[4],
                        body,
                    },
                    NodeId(2),
                );
            }
        }
    }
}
