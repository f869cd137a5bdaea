//! What must not become a cluster, and what the operator is told.

use wk_proto::{Mono, NodeId};

use super::net::Net;
use crate::formation::*;

fn told(net: &mut Net, id: u32, text: &str) {
    let warned = &net.host(id).warned;
    assert!(
        warned.iter().any(|w| w.contains(text)),
        "{text}: {warned:#?}"
    );
}

#[test]
fn disjoint_lists_never_merge() {
    let mut net = Net::new(1);
    for (id, list) in [(1, [1, 2, 3]), (2, [1, 2, 3]), (3, [1, 2, 3])] {
        net.add(id, &list);
    }
    for id in [4, 5, 6] {
        net.add(id, &[4, 5, 6]);
    }
    (1..=6).for_each(|id| net.start(id));
    net.run(5_000);
    assert_eq!(net.ready(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(net.clusters().len(), 2);
    // Later one is told of the others: it stays what it is.
    net.stop(1);
    net.host(1).list = vec![1, 2, 3, 4, 5, 6];
    net.host(4).list = vec![1, 4, 5, 6];
    net.stop(4);
    net.start(1);
    net.start(4);
    net.run(5_000);
    assert_eq!(net.clusters().len(), 2);
    assert_eq!(net.ready(), [1, 2, 3, 4, 5, 6]);
    told(&mut net, 1, "never merged");
    told(&mut net, 1, "was founded as nodes 1, 2, 3 ");
}

#[test]
fn contradicting_lists_wait_and_say_so() {
    let mut net = Net::new(2);
    net.add(1, &[1, 2, 3]);
    net.add(2, &[1, 2]);
    net.add(3, &[2, 3]);
    (1..=3).for_each(|id| net.start(id));
    net.run(10_000);
    assert!(net.clusters().is_empty());
    told(&mut net, 1, "make cluster.initNodes");
    told(&mut net, 2, "make cluster.initNodes");
    let peers = net.report(1).peers;
    assert_eq!(peers[0].state, LinkState::ForeignCluster);
    assert!(peers[0].last_error.is_some());
    // Nobody promised anything: correcting the configuration is enough.
    for id in 1..=3 {
        assert_eq!(net.host(id).disk.held, Held::Fresh);
        net.stop(id);
        net.host(id).list = vec![1, 2, 3];
        net.start(id);
    }
    net.run(4_000);
    assert_eq!((net.ready().len(), net.clusters().len()), (3, 1));
}

#[test]
fn other_counts_are_another_list() {
    let mut net = Net::of(2, 3);
    net.host(2).slot_replicas = 2;
    net.start(1);
    net.start(2);
    net.run(5_000);
    assert!(net.clusters().is_empty());
    told(&mut net, 1, "replica counts");
}

#[test]
fn a_promise_is_for_life() {
    let mut net = Net::of(3, 4);
    let entries: Vec<_> = (1..=3).map(|n| format!("{n}@h{n}")).collect();
    let list = NodeList::parse(&entries, NodeId(1), "h1").unwrap();
    let pledge = Pledge::new(&list, 8, 3, 3).unwrap();
    net.host(1).disk.held = Held::Promised(pledge);
    for id in [1, 2] {
        net.host(id).list = vec![1, 2];
        net.start(id);
    }
    net.run(5_000);
    assert!(net.clusters().is_empty());
    told(
        &mut net,
        1,
        "this directory promised to found a cluster of nodes 1, 2, 3 ",
    );
    assert_eq!(net.readiness(1).phase, Phase::Peers);
    net.stop(1);
    net.wipe(1);
    net.start(1);
    net.run(4_000);
    assert_eq!(net.ready(), [1, 2], "an emptied directory is free again");
}

#[test]
fn a_wiped_member_is_refused_by_name() {
    let mut net = Net::of(3, 5);
    (1..=3).for_each(|id| net.start(id));
    net.run(4_000);
    let clusters = net.clusters();
    net.wipe(3);
    net.start(3);
    net.run(5_000);
    assert_eq!(net.ready(), [1, 2]);
    assert_eq!(net.host(3).disk.held, Held::Fresh);
    assert_eq!(net.report(1).peers[1].state, LinkState::IdConflict);
    // It cannot found another cluster with the survivors either.
    net.stop(2);
    net.stop(1);
    net.run(100);
    net.start(2);
    net.run(10_000);
    assert_eq!((net.ready().len(), net.clusters()), (0, clusters));
}

#[test]
fn a_disk_that_promised_and_was_wiped_is_not_let_back() {
    // Node 3 voted: whatever was lost with its disk may have been committed because of it.
    for seed in 0..30 {
        let mut net = Net::of(3, seed);
        net.unrest = true;
        (1..=3).for_each(|id| net.start(id));
        net.run(40 * seed);
        net.wipe(3);
        net.run(4_000);
        net.start(3);
        net.run(6_000);
        assert!(net.clusters().len() <= 1);
        assert!(
            net.ready().contains(&1) && net.ready().contains(&2),
            "seed {seed}"
        );
    }
}

#[test]
fn a_node_that_a_cluster_does_not_have_waits() {
    let mut net = Net::of(1, 6);
    net.start(1);
    net.run(500);
    net.add(2, &[1, 2]);
    net.stop(1);
    net.host(1).list = vec![1, 2];
    net.start(1);
    net.start(2);
    net.run(6_000);
    assert_eq!(net.ready(), [1]);
    assert_eq!(net.host(2).disk.held, Held::Fresh);
    told(&mut net, 2, "nodes cannot be added yet");
}

#[test]
fn a_seed_is_answered_visibly() {
    let mut net = Net::of(1, 7);
    net.host(1).seed = Some("9@elsewhere:11110".to_owned());
    net.start(1);
    net.run(2_000);
    assert!(net.clusters().is_empty());
    assert!(net.readiness(1).detail.starts_with("waiting to be joined"));
    told(&mut net, 1, "not supported yet");
}

/// A node of a list of three, with nobody around it.
struct One {
    formation: Formation,
    now: Mono,
}

impl One {
    fn new() -> Self {
        Self::holding(Held::Fresh)
    }

    fn pledge() -> (NodeList, Pledge) {
        let entries = ["1@a", "2@b", "3@c"];
        let list = NodeList::parse(&entries, NodeId(1), "a:11110").unwrap();
        let pledge = Pledge::new(&list, 8, 3, 3).unwrap();
        (list, pledge)
    }

    fn holding(held: Held) -> Self {
        let (list, pledge) = Self::pledge();
        let setup = Setup {
            node: NodeId(1),
            disk_uuid: 11,
            incarnation: 1,
            held,
            pledge,
            list,
            seed: None,
            start_timeout_ms: None,
            cluster_id: 1,
            secret: wk_chat::Secret([0; 32]),
            version: String::new(),
        };
        let now = Mono(0);
        Self {
            formation: Formation::new(setup, now),
            now,
        }
    }

    fn status(node: u32, uuid: u128, incarnation: u64) -> Status {
        Status {
            node: NodeId(node),
            uuid,
            incarnation,
            list_hash: Self::pledge().1.hash(),
            stage: Stage::Fresh,
        }
    }

    fn probe(&mut self, link: u32, node: u32, uuid: u128, incarnation: u64) -> Vec<Effect> {
        let status = Self::status(node, uuid, incarnation);
        self.hear(link, Message::Probe(status))
    }

    fn hear(&mut self, link: u32, message: Message) -> Vec<Effect> {
        self.now = self.now.plus_ms(10);
        let event = Event::Message(NodeId(link), message);
        self.formation.handle(event, self.now);
        std::iter::from_fn(|| self.formation.poll()).collect()
    }

    fn refused(effects: &[Effect], needle: &str) -> bool {
        effects.iter().any(|e| {
            matches!(e, Effect::Send(_, Message::Refuse { refusal: Refusal::IdConflict, text }) if text.contains(needle))
        })
    }
}

#[test]
fn two_directories_with_one_id_are_told_apart_while_both_live() {
    let mut one = One::new();
    assert!(!One::refused(&one.probe(2, 2, 22, 1), ""));
    let effects = one.probe(2, 2, 33, 1);
    assert!(One::refused(&effects, "two directories are node 2"));
    let state = &one.formation.report(one.now).peers[0].state;
    assert_eq!(*state, LinkState::IdConflict);
    let admits = one.formation.admits(NodeId(2), 33, one.now);
    assert!(matches!(
        admits,
        Admission::Refused(LinkState::IdConflict, _)
    ));
    // The first goes: the other may be node 2, as nothing depended on the first.
    one.now = one.now.plus_ms(10_000);
    assert!(!One::refused(&one.probe(2, 2, 33, 1), ""));
}

#[test]
fn copies_and_wrong_ids_are_refused() {
    let mut one = One::new();
    one.probe(2, 2, 22, 5);
    assert!(One::refused(&one.probe(2, 2, 22, 4), "older copy"));
    assert!(One::refused(&one.probe(3, 2, 22, 5), "listed as node 3"));
    assert!(One::refused(&one.probe(3, 1, 11, 1), "runs twice"));
    assert!(One::refused(
        &one.probe(3, 1, 99, 1),
        "two nodes have the id 1"
    ));
    let admits = |id, uuid| one.formation.admits(NodeId(id), uuid, one.now);
    assert!(matches!(
        admits(1, 11),
        Admission::Refused(LinkState::IdConflict, _)
    ));
    assert!(matches!(
        admits(9, 1),
        Admission::Refused(LinkState::ForeignCluster, _)
    ));
    assert_eq!(admits(2, 22), Admission::FormationOnly, "no seat yet");
}

#[test]
fn a_seat_is_kept_against_what_comes_over_an_open_link_too() {
    let seats = [(NodeId(1), 11), (NodeId(2), 22)].into();
    let pledge = One::pledge().1;
    let mut one = One::holding(Held::Voting { pledge, seats });
    let promise = |uuid| Message::Promise(One::status(2, uuid, 1));
    assert!(One::refused(
        &one.hear(2, promise(33)),
        "bound to another disk"
    ));
    assert!(!One::refused(&one.hear(2, promise(22)), ""));
    let full = |uuid| one.formation.admits(NodeId(2), uuid, one.now) == Admission::Full;
    assert!(full(22) && !full(33));
}

#[test]
fn only_a_majority_of_equal_promises_begins_to_vote() {
    let mut one = One::holding(Held::Promised(One::pledge().1));
    let voting = |effects: &[Effect]| {
        let persist = |e: &Effect| matches!(e, Effect::Persist(Held::Voting { .. }));
        effects.iter().any(persist)
    };
    one.formation.tick(one.now);
    let mut other = One::status(2, 22, 1);
    other.list_hash.0 += 1;
    assert!(!voting(&one.hear(2, Message::Promise(other))));
    // Who only says who it is promised nothing.
    assert!(!voting(&one.probe(3, 3, 33, 1)));
    let effects = one.hear(3, Message::Promise(One::status(3, 33, 1)));
    assert!(voting(&effects));
    let started = |e: &Effect| matches!(e, Effect::StartControl(_));
    assert!(!effects.iter().any(started), "not before it is durable");
    one.formation.handle(Event::Persisted, one.now);
    assert!(std::iter::from_fn(|| one.formation.poll()).any(|e| started(&e)));
}

#[test]
fn two_clusters_among_the_listed_are_a_mistake() {
    let mut one = One::new();
    for (node, cluster_id) in [(2, 7), (3, 8)] {
        let formed = Formed {
            status: Status {
                stage: Stage::Formed,
                ..One::status(node, u128::from(node), 1)
            },
            cluster_id,
            pledge: One::pledge().1,
            members: (1..=3).map(|n| (NodeId(n), None)).collect(),
        };
        one.hear(node, Message::Formed(Box::new(formed)));
    }
    let detail = one.formation.readiness(one.now).detail;
    assert!(
        detail.contains("nodes 2 and 3 are parts of different clusters"),
        "{detail}"
    );
}
