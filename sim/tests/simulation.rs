//! The simulator's own claims: a seed is one run; correct code passes; every planted bug is found.

use wk_sim::{Plant, Report, Scenario, run};

/// Seeds of each scenario in the test suite; `make sim` plays more.
const SEEDS: u64 = 20;
/// A planted bug must show within so many.
const PLANT_SEEDS: u64 = 200;

fn play(scenario: Scenario, seed: u64, plant: Plant) -> Report {
    run(scenario, seed, plant, None)
}

fn passes(scenario: Scenario, least_acks: u64) {
    let mut acks = 0;
    for seed in 0..SEEDS {
        let report = play(scenario, seed, Plant::Nothing);
        assert!(report.failure.is_none(), "{report}");
        acks += report.acks;
    }
    assert!(
        acks > least_acks,
        "the load got through between faults: {acks}"
    );
}

fn is_found(plant: Plant, scenario: Scenario) {
    let found = (0..PLANT_SEEDS)
        .map(|seed| play(scenario, seed, plant))
        .find(|report| report.failure.is_some());
    let found = found.unwrap_or_else(|| panic!("{plant} is not found in {scenario}"));
    let clean = play(scenario, found.seed, Plant::Nothing);
    assert!(clean.failure.is_none(), "it is not the bug: {clean}");
}

#[test]
fn one_node_keeps_its_promises() {
    passes(Scenario::OneNode, 1_000);
}

#[test]
fn three_nodes_keep_their_promises() {
    passes(Scenario::ThreeNodes, 800);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for scenario in Scenario::ALL {
        for seed in [3, 11] {
            let (first, second) = (
                play(scenario, seed, Plant::Nothing),
                play(scenario, seed, Plant::Nothing),
            );
            assert_eq!(first.hash, second.hash, "{first}\n{second}");
            assert_eq!(first.events, second.events);
            let other = play(scenario, seed + 1, Plant::Nothing);
            assert_ne!(first.hash, other.hash, "another seed is another run");
        }
    }
}

#[test]
fn a_failure_says_how_to_repeat_it() {
    let failed = Report {
        seed: 123,
        scenario: Scenario::ThreeNodes,
        plant: Plant::Nothing,
        failure: Some("I-1: gone".into()),
        hash: 0,
        events: 0,
        acks: 0,
        reads: 0,
        virtual_ms: 0,
        stopped: false,
    };
    assert_eq!(
        failed.to_string(),
        "seed 123 three_nodes: I-1: gone\nreplay: make sim SEED=123 SCENARIO=three_nodes"
    );
}

#[test]
fn an_ack_before_the_fsync_is_found() {
    is_found(Plant::AckBeforeFsync, Scenario::OneNode);
}

#[test]
fn a_message_that_does_not_wait_for_the_log_is_found() {
    is_found(Plant::IgnoreAfter, Scenario::ThreeNodes);
}

#[test]
fn a_forgotten_vote_is_found() {
    is_found(Plant::ForgetVote, Scenario::ThreeNodes);
}

#[test]
fn a_lost_outbox_row_is_found() {
    is_found(Plant::LoseOutbox, Scenario::OneNode);
    is_found(Plant::LoseOutbox, Scenario::ThreeNodes);
}

#[test]
fn a_commit_before_its_message_file_is_synced_is_found() {
    is_found(Plant::SkipMessageSync, Scenario::OneNode);
}

#[test]
fn a_log_released_too_early_is_found() {
    is_found(Plant::ReleaseEarly, Scenario::OneNode);
}
