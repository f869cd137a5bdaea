//! What a cluster of one begins with: every group, with this node as its only voter. Clusters of more form ([`crate::former`]).

use std::collections::BTreeMap;

use wk_proto::{GroupId, LogIndex, NodeId, ReplicaId, SlotId, Term};
use wk_replica::membership;
use wk_store::ReplicaMeta;

/// The replicas of a new cluster of one.
pub(crate) fn replicas(node: NodeId, slot_count: u16) -> Vec<ReplicaMeta> {
    let groups =
        std::iter::once(GroupId::Control).chain((0..slot_count).map(|s| GroupId::Slot(SlotId(s))));
    groups
        .zip(1..)
        .map(|(group, number)| {
            let replica = ReplicaId(number);
            ReplicaMeta {
                replica,
                group,
                membership: membership::encode(&BTreeMap::from([(replica, node)])),
                applied: LogIndex(0),
                applied_term: Term(0),
            }
        })
        .collect()
}
