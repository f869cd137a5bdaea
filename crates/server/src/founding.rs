//! The replicas a node begins with: those of a cluster of one, or its part of a cluster whose nodes all have the same list.
//!
//! The list founds the cluster without a word between the nodes: everybody computes the same replicas from it, once, on an empty
//! directory, and binds the directory to the list for ever. A directory bound to another list is refused, here and by the peers.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use wk_proto::{GroupId, LogIndex, NodeId, ReplicaId, SlotId, Term};
use wk_replica::membership;
use wk_store::ReplicaMeta;

/// Replicas of one slot; with fewer nodes, all of them.
const SLOT_REPLICAS: usize = 3;

/// Voters of the control group at most (H55).
const CONTROL_REPLICAS: usize = 5;

/// The id of the cluster that this list founds. Addresses may change, so they are no part of it.
pub(crate) fn cluster_id(nodes: &[NodeId], slot_count: u16) -> u128 {
    let mut hash = Sha256::new_with_prefix(b"wukongim cluster 1");
    hash.update(slot_count.to_le_bytes());
    for node in nodes {
        hash.update(node.0.to_le_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    let (half, _) = hash.split_at(16);
    half.iter().fold(0, |id, byte| id << 8 | u128::from(*byte))
}

/// What `node` of the ascending `nodes` holds at the beginning.
pub(crate) fn replicas(node: NodeId, nodes: &[NodeId], slot_count: u16) -> Vec<ReplicaMeta> {
    let groups =
        std::iter::once(GroupId::Control).chain((0..slot_count).map(|s| GroupId::Slot(SlotId(s))));
    let metas = groups.filter_map(|group| {
        let voters = voters(group, nodes);
        let own = voters.iter().find(|(_, of)| **of == node);
        own.map(|(replica, _)| ReplicaMeta {
            replica: *replica,
            group,
            membership: membership::encode(&voters),
            applied: LogIndex(0),
            applied_term: Term(0),
        })
    });
    metas.collect()
}

/// Round-robin from the group's own number on: load and leaders spread.
fn voters(group: GroupId, nodes: &[NodeId]) -> BTreeMap<ReplicaId, NodeId> {
    let number = group.to_u32() as usize;
    let count = match group {
        GroupId::Control => CONTROL_REPLICAS,
        GroupId::Slot(_) => SLOT_REPLICAS,
    };
    let members = (0..nodes.len().min(count)).map(|n| (number + n) % nodes.len());
    let voters = members.map(|at| {
        let replica = 1 + number * nodes.len() + at;
        (ReplicaId(replica as u64), nodes[at])
    });
    voters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_node_computes_its_part_of_the_same_groups() {
        let nodes: Vec<_> = (1..=5).map(NodeId).collect();
        let mut ids = BTreeSet::new();
        let mut by_group: BTreeMap<GroupId, Vec<_>> = BTreeMap::new();
        for node in &nodes {
            for meta in replicas(*node, &nodes, 64) {
                assert!(ids.insert(meta.replica), "{:?} twice", meta.replica);
                by_group
                    .entry(meta.group)
                    .or_default()
                    .push(meta.membership);
            }
        }
        assert_eq!(by_group.len(), 65);
        for (group, memberships) in by_group {
            let wanted = if group == GroupId::Control { 5 } else { 3 };
            assert_eq!(memberships.len(), wanted);
            assert!(memberships.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }

    #[test]
    fn alone_a_node_holds_everything() {
        let metas = replicas(NodeId(7), &[NodeId(7)], 4);
        let numbers: Vec<_> = metas.iter().map(|meta| meta.replica.0).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn another_list_is_another_cluster() {
        let id = |nodes: &[u32], slots| {
            let nodes: Vec<_> = nodes.iter().copied().map(NodeId).collect();
            cluster_id(&nodes, slots)
        };
        assert_ne!(id(&[1, 2], 64), id(&[1, 2, 3], 64));
        assert_ne!(id(&[1, 2], 64), id(&[1, 2], 65));
    }
}
