//! What forming nodes tell each other, and its bytes (prost; a tag never changes its meaning, unknown fields are skipped).
//!
//! A message says who sent it, but the link it came over decides: the driver names the link's node, and a message that says
//! otherwise is a conflict.

use bytes::Bytes;
use prost::Message as _;
use wk_chat::control::{BindResult, FOUNDERS_MAX};
use wk_proto::NodeId;

use super::list::{ListHash, Pledge};

/// Bytes of the longest message; a longer one is not read.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// Longest text of a [`Message::Refuse`]; the rest is cut.
const TEXT_BYTES_MAX: usize = 1_024;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It promised nothing.
    Fresh,
    /// It promised its list.
    Promised,
    /// Its control replica runs.
    Voting,
    /// It is part of a cluster.
    Formed,
}

/// Who a node is and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id, as configured.
    pub node: NodeId,
    /// Its directory.
    pub uuid: u128,
    /// Which start of the directory this is.
    pub incarnation: u64,
    /// The list it would form with: configured, or promised.
    pub list_hash: ListHash,
    /// How far it is.
    pub stage: Stage,
}

/// A cluster, as one of its nodes describes it to one that is not part of it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formed {
    /// Who says so.
    pub status: Status,
    /// Which cluster.
    pub cluster_id: u128,
    /// Its founding list: who votes in its control group.
    pub pledge: Pledge,
    /// Its nodes, and the disks of those that are bound. Ascending.
    pub members: Vec<(NodeId, Option<u128>)>,
}

/// Why a node will have nothing to do with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It promised another list, or is configured with one.
    ForeignList,
    /// It is part of another cluster.
    ForeignCluster,
    /// Another directory is this node, here or now.
    IdConflict,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "This is who I am." Sent again and again by nodes that have not formed; formed ones answer [`Message::Formed`].
    Probe(Status),
    /// "I found this list's cluster or none." Fsynced before it is sent.
    Promise(Status),
    /// "There is a cluster."
    Formed(Box<Formed>),
    /// "Bind my disk": to a formed node.
    BindRequest(Status),
    /// The answer.
    BindAnswer {
        /// Which cluster.
        cluster_id: u128,
        /// For whom.
        node: NodeId,
        /// What became of it.
        result: BindResult,
    },
    /// "I will not form with you."
    Refuse {
        /// Why.
        refusal: Refusal,
        /// For people, with the remedy.
        text: String,
    },
}

/// Not a message of any build we can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed formation message: {0}")]
pub struct BadMessage(String);

fn bad(what: &str) -> BadMessage {
    BadMessage(what.to_owned())
}

impl Message {
    /// Its bytes, at most [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self) -> Bytes {
        let said = match self {
            Self::Probe(status) => Said::Probe(StatusOf::from(*status)),
            Self::Promise(status) => Said::Promise(StatusOf::from(*status)),
            Self::Formed(formed) => Said::Formed(FormedOf::from(&**formed)),
            Self::BindRequest(status) => Said::BindRequest(StatusOf::from(*status)),
            Self::BindAnswer {
                cluster_id,
                node,
                result,
            } => Said::BindAnswer(answer_of(*cluster_id, *node, *result)),
            Self::Refuse { refusal, text } => Said::Refuse(RefuseOf {
                refusal: *refusal as u32 + 1,
                text: cut(text).to_owned(),
            }),
        };
        MessageOf { said: Some(said) }.encode_to_vec().into()
    }

    /// Inverse of [`Self::encode`].
    pub fn decode(data: &[u8]) -> Result<Self, BadMessage> {
        if data.len() > MESSAGE_BYTES_MAX {
            return Err(bad("too long"));
        }
        let said = MessageOf::decode(data).map_err(|e| BadMessage(e.to_string()))?;
        match said.said.ok_or_else(|| bad("unknown kind"))? {
            Said::Probe(status) => Ok(Self::Probe(status.status()?)),
            Said::Promise(status) => Ok(Self::Promise(status.status()?)),
            Said::Formed(formed) => Ok(Self::Formed(Box::new(formed.formed()?))),
            Said::BindRequest(status) => Ok(Self::BindRequest(status.status()?)),
            Said::BindAnswer(answer) => answer.answer(),
            Said::Refuse(refuse) => Ok(Self::Refuse {
                refusal: match refuse.refusal {
                    1 => Refusal::ForeignList,
                    2 => Refusal::ForeignCluster,
                    3 => Refusal::IdConflict,
                    _ => return Err(bad("refusal")),
                },
                text: cut(&refuse.text).to_owned(),
            }),
        }
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn id(number: u128) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn id_from(bytes: &[u8]) -> Result<u128, BadMessage> {
    let bytes = bytes.try_into().map_err(|_| bad("id of 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MessageOf {
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5, 6")]
    said: Option<Said>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Said {
    #[prost(message, tag = "1")]
    Probe(StatusOf),
    #[prost(message, tag = "2")]
    Promise(StatusOf),
    #[prost(message, tag = "3")]
    Formed(FormedOf),
    #[prost(message, tag = "4")]
    BindRequest(StatusOf),
    #[prost(message, tag = "5")]
    BindAnswer(AnswerOf),
    #[prost(message, tag = "6")]
    Refuse(RefuseOf),
}

/// `stage` is 1 fresh, 2 promised, 3 voting, 4 formed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StatusOf {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(bytes = "vec", tag = "2")]
    uuid: Vec<u8>,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(fixed64, tag = "4")]
    list_hash: u64,
    #[prost(uint32, tag = "5")]
    stage: u32,
}

impl From<Status> for StatusOf {
    fn from(s: Status) -> Self {
        Self {
            node: s.node.0,
            uuid: id(s.uuid),
            incarnation: s.incarnation,
            list_hash: s.list_hash.0,
            stage: s.stage as u32 + 1,
        }
    }
}

impl StatusOf {
    fn status(&self) -> Result<Status, BadMessage> {
        Ok(Status {
            node: NodeId(self.node),
            uuid: id_from(&self.uuid)?,
            incarnation: self.incarnation,
            list_hash: ListHash(self.list_hash),
            stage: match self.stage {
                1 => Stage::Fresh,
                2 => Stage::Promised,
                3 => Stage::Voting,
                4 => Stage::Formed,
                _ => return Err(bad("stage")),
            },
        })
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct FormedOf {
    #[prost(message, required, tag = "1")]
    status: StatusOf,
    #[prost(bytes = "vec", tag = "2")]
    cluster_id: Vec<u8>,
    #[prost(uint32, repeated, tag = "3")]
    nodes: Vec<u32>,
    #[prost(uint32, tag = "4")]
    slot_count: u32,
    #[prost(uint32, tag = "5")]
    slot_replicas: u32,
    #[prost(uint32, tag = "6")]
    channel_replicas: u32,
    #[prost(message, repeated, tag = "7")]
    members: Vec<MemberOf>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MemberOf {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(bytes = "vec", optional, tag = "2")]
    uuid: Option<Vec<u8>>,
}

impl From<&Formed> for FormedOf {
    fn from(f: &Formed) -> Self {
        let members = f.members.iter().map(|(node, uuid)| MemberOf {
            node: node.0,
            uuid: uuid.map(id),
        });
        Self {
            status: f.status.into(),
            cluster_id: id(f.cluster_id),
            nodes: f.pledge.nodes.iter().map(|n| n.0).collect(),
            slot_count: f.pledge.slot_count.into(),
            slot_replicas: f.pledge.slot_replicas.into(),
            channel_replicas: f.pledge.channel_replicas.into(),
            members: members.collect(),
        }
    }
}

impl FormedOf {
    fn formed(&self) -> Result<Formed, BadMessage> {
        let ascending = self.nodes.windows(2).all(|w| w[0] < w[1]);
        if !ascending || self.nodes.is_empty() || self.nodes.len() > FOUNDERS_MAX {
            return Err(bad("founding list"));
        }
        let count = |n: u32| u16::try_from(n).map_err(|_| bad("count"));
        let member = |m: &MemberOf| {
            let uuid = m.uuid.as_deref().map(id_from).transpose()?;
            Ok((NodeId(m.node), uuid))
        };
        Ok(Formed {
            status: self.status.status()?,
            cluster_id: id_from(&self.cluster_id)?,
            pledge: Pledge {
                nodes: self.nodes.iter().copied().map(NodeId).collect(),
                slot_count: count(self.slot_count)?,
                slot_replicas: count(self.slot_replicas)?,
                channel_replicas: count(self.channel_replicas)?,
            },
            members: self.members.iter().map(member).collect::<Result<_, _>>()?,
        })
    }
}

/// `result` is 1 bound, 2 other disk, 3 not a member, 4 not formed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct AnswerOf {
    #[prost(bytes = "vec", tag = "1")]
    cluster_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    node: u32,
    #[prost(uint32, tag = "3")]
    result: u32,
    #[prost(bytes = "vec", tag = "4")]
    uuid: Vec<u8>,
}

fn answer_of(cluster_id: u128, node: NodeId, result: BindResult) -> AnswerOf {
    let (result, uuid) = match result {
        BindResult::Bound => (1, Vec::new()),
        BindResult::OtherDisk(uuid) => (2, id(uuid)),
        BindResult::NotMember => (3, Vec::new()),
        BindResult::NotFormed => (4, Vec::new()),
    };
    AnswerOf {
        cluster_id: id(cluster_id),
        node: node.0,
        result,
        uuid,
    }
}

impl AnswerOf {
    fn answer(&self) -> Result<Message, BadMessage> {
        Ok(Message::BindAnswer {
            cluster_id: id_from(&self.cluster_id)?,
            node: NodeId(self.node),
            result: match self.result {
                1 => BindResult::Bound,
                2 => BindResult::OtherDisk(id_from(&self.uuid)?),
                3 => BindResult::NotMember,
                4 => BindResult::NotFormed,
                _ => return Err(bad("answer to a bind")),
            },
        })
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct RefuseOf {
    #[prost(uint32, tag = "1")]
    refusal: u32,
    #[prost(string, tag = "2")]
    text: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
