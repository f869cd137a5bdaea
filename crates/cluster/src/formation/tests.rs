//! Whole formations in virtual time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod net;
mod refusals;

use wk_proto::NodeId;

use super::*;
use net::Net;

fn permutations(n: u32) -> Vec<Vec<u32>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(n - 1);
    let insert = |list: &Vec<u32>| {
        let list = list.clone();
        (0..=list.len()).map(move |at| {
            let mut list = list.clone();
            list.insert(at, n);
            list
        })
    };
    shorter.iter().flat_map(insert).collect()
}

fn assert_formed(net: &Net, n: u32, what: &str) {
    let ready = net.ready();
    if ready != (1..=n).collect::<Vec<_>>() {
        let states: Vec<_> = net
            .hosts
            .values()
            .map(|h| (&h.disk.held, &h.warned))
            .collect();
        panic!("{what}: ready {ready:?}\n{states:#?}");
    }
    assert_eq!(net.clusters().len(), 1, "{what}");
}

#[test]
fn a_node_alone_is_ready_at_once() {
    let mut net = Net::of(1, 1);
    net.start(1);
    net.run(500);
    assert_formed(&net, 1, "alone");
    let report = net.report(1);
    assert!(
        report.uptime_ms <= 500 && report.warnings.is_empty(),
        "{report:?}"
    );
    assert_eq!((report.phase, report.quorum.needed), (Phase::Ready, 1));
    assert!(
        report
            .phases
            .iter()
            .filter(|p| p.phase > Phase::Transport)
            .all(|p| p.state == PhaseState::Done)
    );
    net.stop(1);
    net.start(1);
    net.run(500);
    assert_formed(&net, 1, "again");
    assert_eq!(net.geneses, 1);
}

#[test]
fn three_nodes_form_in_every_order_and_with_every_gap() {
    for order in permutations(3) {
        for gap in [0, 30, 900, 1_100, 4_000, 60_000] {
            for loss in [0, 30] {
                let mut net = Net::of(3, gap + loss);
                net.loss_percent = loss;
                for id in &order {
                    net.start(*id);
                    net.run(gap.min(5_000));
                    net.idle(gap - gap.min(5_000));
                }
                net.run_until_ready(8_000);
                assert_formed(&net, 3, &format!("{order:?} every {gap} ms, {loss} % lost"));
            }
        }
    }
}

#[test]
fn five_nodes_form_in_every_order() {
    for (seed, order) in (0..).zip(permutations(5)) {
        let mut net = Net::of(5, seed);
        let gap = [0, 40, 1_200][seed as usize % 3];
        for id in &order {
            net.start(*id);
            net.run(gap);
        }
        net.run_until_ready(4_000);
        assert_formed(&net, 5, &format!("{order:?} every {gap} ms"));
    }
}

#[test]
fn a_majority_is_ready_within_seconds() {
    let mut net = Net::of(3, 3);
    net.start(1);
    net.start(3);
    net.run(2_500);
    assert_eq!(net.ready(), [1, 3]);
    net.start(2);
    net.run_until_ready(2_000);
    assert_formed(&net, 3, "the late one");
    let report = net.report(2);
    assert!(
        report
            .phases
            .iter()
            .any(|p| p.phase == Phase::Join && p.state == PhaseState::Done)
    );
    assert!(report.peers.iter().all(|p| p.state == LinkState::InSync));
}

#[test]
fn the_first_node_waits_for_hours_and_promises_nothing() {
    let mut net = Net::of(3, 4);
    net.start(2);
    for _ in 0..1_000 {
        net.run(50);
        net.idle(20_000);
    }
    let host = net.host(2);
    assert_eq!(
        host.disk.held,
        Held::Fresh,
        "its list can still be corrected"
    );
    assert!(host.performed < 20, "nothing piles up: {}", host.performed);
    let readiness = net.readiness(2);
    assert_eq!(readiness.reason, Some(Reason::NoQuorum));
    assert_eq!(readiness.waiting_for, [NodeId(1), NodeId(3)]);
    assert_eq!(readiness.phase, Phase::Peers);
    let peers = net
        .report(2)
        .phases
        .into_iter()
        .find(|p| p.phase == Phase::Peers);
    assert_eq!(peers.unwrap().progress.as_deref(), Some("1/3"));
    net.start(1);
    net.start(3);
    net.run_until_ready(3_000);
    assert_formed(&net, 3, "hours later");
}

#[test]
fn a_formed_node_needs_no_list_any_more() {
    let mut net = Net::of(3, 12);
    (1..=3).for_each(|id| net.start(id));
    net.run_until_ready(4_000);
    net.stop(2);
    net.host(2).list = vec![];
    net.start(2);
    net.run_until_ready(4_000);
    assert_formed(&net, 3, "without a list");
    let up = net.host(2).up.take().unwrap();
    let expected = [(NodeId(1), "h1:11110"), (NodeId(3), "h3:11110")];
    assert_eq!(up.addresses().collect::<Vec<_>>(), expected);
}

#[test]
fn a_minority_never_starts() {
    for up in [vec![1], vec![4, 2]] {
        let mut net = Net::of(5, 5);
        up.iter().for_each(|id| net.start(*id));
        net.run(30_000);
        assert!(net.ready().is_empty() && net.clusters().is_empty());
        assert!(net.hosts.values().all(|h| h.disk.log.is_none()));
    }
    // Nor does what is left of a cluster.
    let mut net = Net::of(3, 6);
    (1..=3).for_each(|id| net.start(id));
    net.run(4_000);
    (1..=3).for_each(|id| net.stop(id));
    net.start(2);
    net.run(20_000);
    assert!(net.ready().is_empty());
    net.start(1);
    net.run(4_000);
    assert_eq!(net.ready(), [1, 2]);
}

#[test]
fn partitions_of_founders_never_become_two_clusters() {
    for seed in 0..40 {
        let mut net = Net::of(5, seed);
        net.unrest = true;
        net.loss_percent = 20;
        for (a, b) in [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)] {
            net.cut.insert((NodeId(a), NodeId(b)));
        }
        (1..=5).for_each(|id| net.start(id));
        net.run(200 * (seed % 20));
        let heal = seed % 3 == 0;
        if heal {
            net.cut.clear();
        } else {
            net.run(5_000);
            assert!(net.ready().iter().all(|id| *id > 2), "{:?}", net.ready());
            net.cut.clear();
        }
        net.run_until_ready(8_000);
        assert_formed(&net, 5, &format!("seed {seed}"));
    }
}

#[test]
fn the_cluster_is_founded_once_whoever_leads() {
    for seed in 0..30 {
        let mut net = Net::of(3, seed);
        net.unrest = true;
        net.loss_percent = 40;
        for id in [1, 2, 3] {
            net.start(id);
            net.run(seed * 37 % 500);
        }
        net.run_until_ready(10_000);
        assert_formed(&net, 3, &format!("seed {seed}"));
    }
}

#[test]
fn a_crash_at_every_effect_of_every_node_is_survived() {
    for victim in 1..=3 {
        for at in 1..40 {
            for after in [false, true] {
                let mut net = Net::of(3, at as u64);
                net.loss_percent = 10;
                net.host(victim).crash_at = Some((at, after));
                (1..=3).for_each(|id| net.start(id));
                net.run_until_ready(9_000);
                assert_formed(&net, 3, &format!("node {victim} at {at}, after {after}"));
            }
        }
    }
}

#[test]
fn crashes_of_all_nodes_at_random_effects_are_survived() {
    for seed in 0..100 {
        let mut net = Net::of(3, seed);
        net.unrest = seed % 2 == 0;
        net.loss_percent = 20;
        for round in 0..4 {
            for id in 1..=3 {
                let at = 1 + net.rng.below(25) as usize;
                net.host(id).crash_at = Some((at, round % 2 == 0));
                if round == 0 {
                    net.start(id);
                }
            }
            net.run(1_500);
        }
        (1..=3).for_each(|id| net.host(id).crash_at = None);
        net.run_until_ready(9_000);
        assert_formed(&net, 3, &format!("seed {seed}"));
    }
}

#[test]
fn a_single_node_survives_a_crash_at_every_effect() {
    for at in 1..20 {
        for after in [false, true] {
            let mut net = Net::of(1, at as u64);
            net.host(1).crash_at = Some((at, after));
            net.start(1);
            net.run_until_ready(2_500);
            assert_formed(&net, 1, &format!("at {at}, after {after}"));
        }
    }
}

#[test]
fn a_directory_founded_alone_by_an_older_build_gets_its_genesis() {
    let mut net = Net::of(1, 9);
    let host = net.host(1);
    host.disk.held = Held::founded_alone(NodeId(1), host.disk.uuid, 8);
    host.disk.log = Some(Vec::new());
    net.start(1);
    net.run(500);
    assert_formed(&net, 1, "older");
    assert_eq!(net.geneses, 1);
}

#[test]
fn a_start_timeout_gives_up_once_with_a_report() {
    let mut net = Net::of(3, 10);
    net.host(1).timeout_ms = Some(5_000);
    net.start(1);
    net.run(4_900);
    assert_eq!(net.host(1).gave_up, None);
    net.run(500);
    let report = net.host(1).gave_up.take().expect("a report");
    assert_eq!(report.quorum.missing, [NodeId(2), NodeId(3)]);
    net.run(5_000);
    assert_eq!(net.host(1).gave_up, None, "once");
    // A node that was ready never gives up.
    let mut net = Net::of(1, 11);
    net.host(1).timeout_ms = Some(5_000);
    net.start(1);
    net.run(10_000);
    assert_eq!(net.host(1).gave_up, None);
}
