//! The control group's picture of the cluster: which nodes, which disk is which node, where each group's replicas are (H45, H52, H53).
//!
//! Written once by [`Genesis`], then bound node by node. It decides nothing about elections: a group's own log says who votes in it
//! (H55); this is the placement that was wanted when the cluster was founded.

use std::collections::BTreeMap;
use std::fmt;

use prost::Message;
use wk_proto::{NodeId, ReplicaId};
use wk_store::{Result, View};

use crate::command::{ControlChange, Effect};
use crate::request::Reply;
use crate::rows::{self, Rows, corrupt};
use crate::step::Step;
use crate::tables;

/// Most nodes of a founding list: a full mesh is promised up to here (H18). A larger `Genesis` is refused.
pub const FOUNDERS_MAX: usize = 9;
/// Most slots of a cluster. A larger `Genesis` is refused.
pub const SLOTS_MAX: usize = 1_024;

/// Voters of one group.
pub type Voters = BTreeMap<ReplicaId, NodeId>;

/// The cluster's secret: links prove with it that they belong here (H53). Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMember {
    /// Which.
    pub node: NodeId,
    /// Its disk; `None` until the node has bound itself. Once bound, no other disk is ever this node.
    pub uuid: Option<u128>,
    /// Where it was said to be, `host:port`: for display. Addresses are never identity.
    pub addr: String,
}

/// How a cluster begins. The first one applied counts, later ones change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Random; names the cluster for ever. Not 0.
    pub cluster_id: u128,
    /// Random.
    pub secret: Secret,
    /// What the founders had promised each other.
    pub list_hash: u64,
    /// Ascending by node, each once.
    pub members: Vec<ClusterMember>,
    /// Voters of the control group.
    pub control: Voters,
    /// Voters of each slot, from slot 0.
    pub slots: Vec<Voters>,
    /// The next replica id to give out: above all of the above.
    pub next_replica: ReplicaId,
}

impl Genesis {
    /// Whether any cluster may begin like this.
    pub(crate) fn is_sound(&self) -> bool {
        let ascending = self.members.windows(2).all(|w| w[0].node < w[1].node);
        let known = |node: &NodeId| self.members.binary_search_by_key(node, |m| m.node).is_ok();
        let groups = || std::iter::once(&self.control).chain(&self.slots);
        let mut replicas: Vec<_> = groups().flat_map(|v| v.keys().copied()).collect();
        let total = replicas.len();
        replicas.sort_unstable();
        replicas.dedup();
        self.cluster_id != 0
            && (1..=FOUNDERS_MAX).contains(&self.members.len())
            && (1..=SLOTS_MAX).contains(&self.slots.len())
            && ascending
            && groups().all(|voters| !voters.is_empty() && voters.values().all(known))
            && replicas.len() == total
            && replicas.first().is_some_and(|first| first.0 > 0)
            && replicas
                .last()
                .is_some_and(|last| *last < self.next_replica)
    }
}

/// The cluster as the control group has it. Answer to `Query::Cluster`; holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlView {
    /// Names the cluster.
    pub cluster_id: u128,
    /// What the founders had promised each other.
    pub list_hash: u64,
    /// Ascending by node.
    pub members: Vec<ClusterMember>,
    /// Voters of the control group.
    pub control: Voters,
    /// Voters of each slot, from slot 0.
    pub slots: Vec<Voters>,
    /// The next replica id to give out.
    pub next_replica: ReplicaId,
}

impl ControlView {
    /// The member with this id.
    pub fn member(&self, node: NodeId) -> Option<&ClusterMember> {
        self.members.iter().find(|m| m.node == node)
    }
}

/// What became of a `Bind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindResult {
    /// The disk is the node's, now or since earlier.
    Bound,
    /// Another disk is the node's: this one never will be.
    OtherDisk(u128),
    /// The cluster has no such node.
    NotMember,
    /// There is no cluster yet.
    NotFormed,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Cluster {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    secret: Vec<u8>,
    #[prost(uint64, tag = "3")]
    list_hash: u64,
    #[prost(uint64, tag = "4")]
    next_replica: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Node {
    #[prost(bytes = "vec", optional, tag = "1")]
    uuid: Option<Vec<u8>>,
    #[prost(string, tag = "2")]
    addr: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Placement {
    #[prost(uint64, repeated, tag = "1")]
    replicas: Vec<u64>,
    #[prost(uint32, repeated, tag = "2")]
    nodes: Vec<u32>,
}

/// Writes the cluster's rows unless they are there.
pub(crate) fn genesis(step: &mut Step<'_, '_>, genesis: &Genesis) -> Result<Reply> {
    if cluster(step.tx)?.is_some() {
        return Ok(Reply::Done);
    }
    let row = Cluster {
        id: genesis.cluster_id.to_be_bytes().to_vec(),
        secret: genesis.secret.0.to_vec(),
        list_hash: genesis.list_hash,
        next_replica: genesis.next_replica.0,
    };
    rows::put(step.tx, tables::CLUSTER, &[], &row);
    for member in &genesis.members {
        put_member(step, member);
    }
    let groups = std::iter::once(&genesis.control).chain(&genesis.slots);
    for (group, voters) in (0..).zip(groups) {
        let row = Placement {
            replicas: voters.keys().map(|r| r.0).collect(),
            nodes: voters.values().map(|n| n.0).collect(),
        };
        let key = tables::number(group);
        rows::put(step.tx, tables::PLACEMENT, &key, &row);
    }
    step.effect(Effect::Control(ControlChange::Founded));
    Ok(Reply::Done)
}

fn put_member(step: &mut Step<'_, '_>, member: &ClusterMember) {
    let row = Node {
        uuid: member.uuid.map(|u| u.to_be_bytes().to_vec()),
        addr: member.addr.clone(),
    };
    let key = tables::number(u64::from(member.node.0));
    rows::put(step.tx, tables::NODES, &key, &row);
}

/// Binds a disk to a node, once and for ever.
pub(crate) fn bind(step: &mut Step<'_, '_>, node: NodeId, uuid: u128) -> Result<Reply> {
    if cluster(step.tx)?.is_none() {
        return Ok(Reply::Bind(BindResult::NotFormed));
    }
    let key = tables::number(u64::from(node.0));
    let Some(row) = step.tx.find::<Node>(tables::NODES, &key)? else {
        return Ok(Reply::Bind(BindResult::NotMember));
    };
    let member = member_of(node, row)?;
    let result = match member.uuid {
        Some(bound) if bound == uuid => BindResult::Bound,
        Some(bound) => BindResult::OtherDisk(bound),
        None => {
            let uuid = Some(uuid);
            put_member(step, &ClusterMember { uuid, ..member });
            step.effect(Effect::Control(ControlChange::Bound(node)));
            BindResult::Bound
        }
    };
    Ok(Reply::Bind(result))
}

fn cluster(rows: &impl Rows) -> Result<Option<Cluster>> {
    rows.find(tables::CLUSTER, &[])
}

fn member_of(node: NodeId, row: Node) -> Result<ClusterMember> {
    let uuid = row.uuid.map(|bytes| number(&bytes, tables::NODES));
    Ok(ClusterMember {
        node,
        uuid: uuid.transpose()?,
        addr: row.addr,
    })
}

fn number(bytes: &[u8], table: wk_store::Table) -> Result<u128> {
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| corrupt(table, "an id that is not 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

/// The cluster as this replica of the control group has it; `None` before `Genesis`.
pub(crate) fn view(view: &View) -> Result<Option<ControlView>> {
    let Some(row) = cluster(view)? else {
        return Ok(None);
    };
    let mut groups = placements(view)?;
    if groups.is_empty() {
        return Err(corrupt(tables::PLACEMENT, "no control group"));
    }
    Ok(Some(ControlView {
        cluster_id: number(&row.id, tables::CLUSTER)?,
        list_hash: row.list_hash,
        members: members(view)?,
        control: groups.remove(0),
        slots: groups,
        next_replica: ReplicaId(row.next_replica),
    }))
}

/// The secret; `None` before `Genesis`.
pub(crate) fn secret(view: &View) -> Result<Option<Secret>> {
    let Some(row) = cluster(view)? else {
        return Ok(None);
    };
    let bytes = row.secret.try_into();
    let bytes = bytes.map_err(|_| corrupt(tables::CLUSTER, "a secret that is not 32 bytes"))?;
    Ok(Some(Secret(bytes)))
}

fn members(view: &View) -> Result<Vec<ClusterMember>> {
    let mut members = Vec::new();
    rows::each_row(view, tables::NODES, &[], None, |key, value| {
        let id = tables::as_number(&key).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| corrupt(tables::NODES, "a key that is no node"))?;
        members.push(member_of(NodeId(id), rows::decode(tables::NODES, value)?)?);
        Ok(true)
    })?;
    Ok(members)
}

fn placements(view: &View) -> Result<Vec<Voters>> {
    let mut groups = Vec::new();
    rows::each_row(view, tables::PLACEMENT, &[], None, |_, value| {
        let row: Placement = rows::decode(tables::PLACEMENT, value)?;
        let replicas = row.replicas.into_iter().map(ReplicaId);
        groups.push(replicas.zip(row.nodes.into_iter().map(NodeId)).collect());
        Ok(true)
    })?;
    Ok(groups)
}
