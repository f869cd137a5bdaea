//! Encodings of the control group's commands and answers.

use bytes::Bytes;
use prost::Message;
use wk_proto::{NodeId, ReplicaId};

use super::{Result, malformed};
use crate::control::{BindResult, ClusterMember, ControlView, Genesis, Secret, Voters};

/// A genesis, or a view without `secret`.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ClusterOf {
    #[prost(bytes = "bytes", tag = "1")]
    cluster_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    secret: Bytes,
    #[prost(uint64, tag = "3")]
    list_hash: u64,
    #[prost(message, repeated, tag = "4")]
    members: Vec<MemberOf>,
    /// The control group's, then each slot's.
    #[prost(message, repeated, tag = "5")]
    groups: Vec<VotersOf>,
    #[prost(uint64, tag = "6")]
    next_replica: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct MemberOf {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(bytes = "bytes", optional, tag = "2")]
    uuid: Option<Bytes>,
    #[prost(string, tag = "3")]
    addr: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct VotersOf {
    #[prost(uint64, repeated, tag = "1")]
    replicas: Vec<u64>,
    #[prost(uint32, repeated, tag = "2")]
    nodes: Vec<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct BindOf {
    #[prost(uint32, tag = "1")]
    pub(super) node: u32,
    #[prost(bytes = "bytes", tag = "2")]
    uuid: Bytes,
}

/// `result` is 1 bound, 2 other disk, 3 not a member, 4 not formed.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct BoundOf {
    #[prost(uint32, tag = "1")]
    result: u32,
    #[prost(bytes = "bytes", tag = "2")]
    uuid: Bytes,
}

fn id(number: u128) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn id_from(bytes: &[u8]) -> Result<u128> {
    let bytes = bytes.try_into().map_err(|_| malformed("id of 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

fn voters_of(voters: &Voters) -> VotersOf {
    VotersOf {
        replicas: voters.keys().map(|r| r.0).collect(),
        nodes: voters.values().map(|n| n.0).collect(),
    }
}

fn voters_from(of: VotersOf) -> Result<Voters> {
    let count = of.replicas.len();
    let replicas = of.replicas.into_iter().map(ReplicaId);
    let voters: Voters = replicas.zip(of.nodes.into_iter().map(NodeId)).collect();
    if voters.len() != count {
        return Err(malformed("voters"));
    }
    Ok(voters)
}

fn member_of(member: &ClusterMember) -> MemberOf {
    MemberOf {
        node: member.node.0,
        uuid: member.uuid.map(id),
        addr: member.addr.clone(),
    }
}

fn member_from(of: MemberOf) -> Result<ClusterMember> {
    Ok(ClusterMember {
        node: NodeId(of.node),
        uuid: of.uuid.map(|uuid| id_from(&uuid)).transpose()?,
        addr: of.addr,
    })
}

fn groups_of(control: &Voters, slots: &[Voters]) -> Vec<VotersOf> {
    std::iter::once(control)
        .chain(slots)
        .map(voters_of)
        .collect()
}

pub(super) fn genesis_of(genesis: &Genesis) -> ClusterOf {
    ClusterOf {
        cluster_id: id(genesis.cluster_id),
        secret: Bytes::copy_from_slice(&genesis.secret.0),
        list_hash: genesis.list_hash,
        members: genesis.members.iter().map(member_of).collect(),
        groups: groups_of(&genesis.control, &genesis.slots),
        next_replica: genesis.next_replica.0,
    }
}

pub(super) fn genesis_from(of: ClusterOf) -> Result<Genesis> {
    let secret = <[u8; 32]>::try_from(&*of.secret).map_err(|_| malformed("secret"))?;
    let view = view_from(of)?;
    Ok(Genesis {
        cluster_id: view.cluster_id,
        secret: Secret(secret),
        list_hash: view.list_hash,
        members: view.members,
        control: view.control,
        slots: view.slots,
        next_replica: view.next_replica,
    })
}

pub(super) fn view_of(view: &ControlView) -> ClusterOf {
    ClusterOf {
        cluster_id: id(view.cluster_id),
        secret: Bytes::new(),
        list_hash: view.list_hash,
        members: view.members.iter().map(member_of).collect(),
        groups: groups_of(&view.control, &view.slots),
        next_replica: view.next_replica.0,
    }
}

pub(super) fn view_from(of: ClusterOf) -> Result<ControlView> {
    let mut groups = of.groups.into_iter().map(voters_from);
    let control = groups.next().ok_or_else(|| malformed("control group"))??;
    Ok(ControlView {
        cluster_id: id_from(&of.cluster_id)?,
        list_hash: of.list_hash,
        members: of
            .members
            .into_iter()
            .map(member_from)
            .collect::<Result<_>>()?,
        control,
        slots: groups.collect::<Result<_>>()?,
        next_replica: ReplicaId(of.next_replica),
    })
}

pub(super) fn bind_of(node: NodeId, uuid: u128) -> BindOf {
    BindOf {
        node: node.0,
        uuid: id(uuid),
    }
}

pub(super) fn bind_from(of: &BindOf) -> Result<(NodeId, u128)> {
    Ok((NodeId(of.node), id_from(&of.uuid)?))
}

pub(super) fn bound_of(result: BindResult) -> BoundOf {
    let (result, uuid) = match result {
        BindResult::Bound => (1, Bytes::new()),
        BindResult::OtherDisk(uuid) => (2, id(uuid)),
        BindResult::NotMember => (3, Bytes::new()),
        BindResult::NotFormed => (4, Bytes::new()),
    };
    BoundOf { result, uuid }
}

pub(super) fn bound_from(of: &BoundOf) -> Result<BindResult> {
    match of.result {
        1 => Ok(BindResult::Bound),
        2 => Ok(BindResult::OtherDisk(id_from(&of.uuid)?)),
        3 => Ok(BindResult::NotMember),
        4 => Ok(BindResult::NotFormed),
        _ => Err(malformed("result of a bind")),
    }
}
