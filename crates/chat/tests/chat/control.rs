//! The cluster in the control group: founded once, bound once.

use wk_chat::control::{BindResult, ClusterMember, ControlView, Genesis, Secret, Voters};
use wk_chat::{Answer, ControlChange, Effect, Machine, Query, Reply, Request, Verdict, Write};
use wk_proto::{GroupId, NodeId, ReplicaId};

use crate::world::World;

fn voters(first: u64, nodes: &[u32]) -> Voters {
    let nodes = nodes.iter().map(|n| NodeId(*n));
    (first..).map(ReplicaId).zip(nodes).collect()
}

/// Three nodes, of which the third is not bound; three slots.
pub fn genesis() -> Genesis {
    let member = |node, uuid| ClusterMember {
        node: NodeId(node),
        uuid,
        addr: format!("h{node}:11110"),
    };
    Genesis {
        cluster_id: u128::MAX - 7,
        secret: Secret([9; 32]),
        list_hash: 1 << 60,
        members: vec![member(1, Some(11)), member(2, Some(22)), member(300, None)],
        control: voters(1, &[1, 2, 300]),
        slots: vec![
            voters(4, &[1, 2]),
            voters(6, &[2, 300]),
            voters(8, &[300, 1]),
        ],
        next_replica: ReplicaId(10),
    }
}

fn found(w: &mut World, genesis: Genesis) -> Reply {
    w.write(Write::Genesis(Box::new(genesis)))
}

fn bind(w: &mut World, node: u32, uuid: u128) -> BindResult {
    let node = NodeId(node);
    match w.write(Write::Bind { node, uuid }) {
        Reply::Bind(result) => result,
        other => panic!("{other:?}"),
    }
}

fn cluster(w: &mut World) -> Option<ControlView> {
    match w.query(Query::Cluster) {
        Answer::Cluster(view) => view.map(|v| *v),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cluster_is_founded_once() {
    let mut w = World::new();
    assert_eq!(cluster(&mut w), None);
    assert_eq!(
        Machine::cluster_secret(&w.view(GroupId::Control)).unwrap(),
        None
    );
    assert_eq!(found(&mut w, genesis()), Reply::Done);
    let first = cluster(&mut w).expect("founded");
    let g = genesis();
    let expected = ControlView {
        cluster_id: g.cluster_id,
        list_hash: g.list_hash,
        members: g.members,
        control: g.control,
        slots: g.slots,
        next_replica: g.next_replica,
    };
    assert_eq!(first, expected);
    let other = Genesis {
        cluster_id: 5,
        secret: Secret([1; 32]),
        members: genesis().members[..2].to_vec(),
        control: voters(1, &[1, 2]),
        slots: vec![voters(3, &[1])],
        ..genesis()
    };
    assert_eq!(found(&mut w, other), Reply::Done);
    assert_eq!(cluster(&mut w), Some(first), "the first one counts");
    let view = w.view(GroupId::Control);
    assert_eq!(
        Machine::cluster_secret(&view).unwrap(),
        Some(Secret([9; 32]))
    );
    assert_eq!(w.take_effects(), [Effect::Control(ControlChange::Founded)]);
}

#[test]
fn a_node_has_one_disk_for_ever() {
    let mut w = World::new();
    assert_eq!(bind(&mut w, 1, 11), BindResult::NotFormed);
    found(&mut w, genesis());
    w.take_effects();
    assert_eq!(bind(&mut w, 1, 11), BindResult::Bound);
    assert_eq!(bind(&mut w, 1, 12), BindResult::OtherDisk(11));
    assert_eq!(bind(&mut w, 9, 1), BindResult::NotMember);
    assert!(w.take_effects().is_empty(), "nothing changed");
    assert_eq!(bind(&mut w, 300, 33), BindResult::Bound);
    assert_eq!(bind(&mut w, 300, 34), BindResult::OtherDisk(33));
    assert_eq!(bind(&mut w, 300, 33), BindResult::Bound);
    let bound = ControlChange::Bound(NodeId(300));
    assert_eq!(w.take_effects(), [Effect::Control(bound)]);
    let view = cluster(&mut w).unwrap();
    let member = view.member(NodeId(300)).unwrap();
    assert_eq!((member.uuid, &*member.addr), (Some(33), "h300:11110"));
}

#[test]
fn slots_are_in_order_however_many() {
    let mut w = World::new();
    let slots: Vec<_> = (0..1_024).map(|n| voters(4 + n, &[1])).collect();
    let many = Genesis {
        slots: slots.clone(),
        next_replica: ReplicaId(2_000),
        ..genesis()
    };
    assert_eq!(found(&mut w, many), Reply::Done);
    assert_eq!(cluster(&mut w).unwrap().slots, slots);
}

#[test]
fn what_no_cluster_can_begin_with_is_refused_before_the_log() {
    let spoil: [fn(&mut Genesis); 10] = [
        |g| g.cluster_id = 0,
        |g| g.members.clear(),
        |g| g.members.swap(0, 1),
        |g| g.members[1].node = NodeId(1),
        |g| g.slots.clear(),
        |g| g.slots = vec![voters(4, &[1]); 1_025],
        |g| g.slots[0] = voters(1, &[1]),
        |g| g.slots[1] = Voters::new(),
        |g| g.control = voters(1, &[1, 2, 4]),
        |g| g.next_replica = ReplicaId(9),
    ];
    let mut w = World::new();
    for (n, spoil) in spoil.iter().enumerate() {
        let mut bad = genesis();
        spoil(&mut bad);
        let request = Request::Write(Box::new(Write::Genesis(Box::new(bad))));
        let verdict = w.decide(GroupId::Control, &request);
        let refused = matches!(verdict, Verdict::Answer(Reply::Refused(_)));
        assert!(refused, "case {n}: {verdict:?}");
    }
}

#[test]
fn secrets_are_not_printed() {
    assert!(!format!("{:?}", genesis()).contains("9, 9"));
}

#[test]
fn every_node_acts_upon_changes_of_the_cluster_and_of_nothing_else() {
    assert!(Effect::Control(ControlChange::Founded).is_everywhere());
    assert!(!Effect::SystemUids(Vec::new().into()).is_everywhere());
}
