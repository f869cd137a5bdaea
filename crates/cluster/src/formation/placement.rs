//! Where replicas are when a cluster is founded. Pure: every founder reckons the same.

use std::collections::BTreeMap;

use wk_chat::control::{ClusterMember, Genesis, Secret, Voters};
use wk_proto::{NodeId, ReplicaId};

use super::list::{NodeList, Pledge};

/// Voters of the control group: every founder, replica ids from 1 in the order of the nodes. Known before anything is agreed, so
/// that the group can agree on the rest.
pub fn control_voters(pledge: &Pledge) -> Voters {
    (1..)
        .map(ReplicaId)
        .zip(pledge.nodes.iter().copied())
        .collect()
}

/// Voters of each slot: as many nodes as replicas are wanted (or there are), beginning one node later for each slot. Ids go on
/// where the control group's end and are never used again.
pub(crate) fn slot_voters(pledge: &Pledge) -> (Vec<Voters>, ReplicaId) {
    let nodes = &pledge.nodes;
    let replicas = usize::from(pledge.slot_replicas).clamp(1, nodes.len());
    let mut next = nodes.len() as u64 + 1;
    let slots = (0..usize::from(pledge.slot_count)).map(|slot| {
        let voters = (0..replicas).map(|r| nodes[(slot + r) % nodes.len()]);
        voters
            .map(|node| {
                next += 1;
                (ReplicaId(next - 1), node)
            })
            .collect()
    });
    let slots = slots.collect();
    (slots, ReplicaId(next))
}

/// What this node would have the cluster begin with.
pub(crate) fn genesis(
    pledge: &Pledge,
    list: &NodeList,
    seats: &BTreeMap<NodeId, u128>,
    cluster_id: u128,
    secret: Secret,
) -> Genesis {
    let (slots, next_replica) = slot_voters(pledge);
    let members = pledge.nodes.iter().map(|node| ClusterMember {
        node: *node,
        uuid: seats.get(node).copied(),
        addr: list.nodes.get(node).cloned().unwrap_or_default(),
    });
    Genesis {
        cluster_id,
        secret,
        list_hash: pledge.hash().0,
        members: members.collect(),
        control: control_voters(pledge),
        slots,
        next_replica,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pledge(nodes: u32, slot_count: u16, slot_replicas: u16) -> Pledge {
        Pledge {
            nodes: (1..=nodes).map(NodeId).collect(),
            slot_count,
            slot_replicas,
            channel_replicas: 3,
        }
    }

    #[test]
    fn one_node_has_the_ids_that_directories_founded_alone_have() {
        let pledge = pledge(1, 64, 3);
        let (slots, next) = slot_voters(&pledge);
        assert_eq!(
            control_voters(&pledge),
            Voters::from([(ReplicaId(1), NodeId(1))])
        );
        for (slot, voters) in (2..).zip(&slots) {
            assert_eq!(*voters, Voters::from([(ReplicaId(slot), NodeId(1))]));
        }
        assert_eq!((slots.len(), next), (64, ReplicaId(66)));
    }

    #[test]
    fn replicas_are_on_different_nodes_and_spread_evenly() {
        for (nodes, replicas) in [(2, 3), (3, 3), (5, 3), (7, 2), (9, 1)] {
            let pledge = pledge(nodes, 64, replicas);
            let (slots, next) = slot_voters(&pledge);
            let mut load = BTreeMap::<_, u32>::new();
            let mut ids: Vec<_> = control_voters(&pledge).into_keys().collect();
            for voters in &slots {
                let mut on: Vec<_> = voters.values().collect();
                on.sort();
                on.dedup();
                assert_eq!(on.len(), usize::from(replicas).min(nodes as usize));
                ids.extend(voters.keys());
                voters
                    .values()
                    .for_each(|node| *load.entry(*node).or_default() += 1);
            }
            assert_eq!(ids, (1..next.0).map(ReplicaId).collect::<Vec<_>>());
            let (least, most) = (load.values().min(), load.values().max());
            assert!(
                most.unwrap() - least.unwrap() <= u32::from(replicas),
                "{load:?}"
            );
        }
    }
}
