//! What a seed decides before a run begins.

use std::fmt;

use crate::dice::Dice;
use crate::plant::Plant;

/// A family of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A cluster of one: everything its disk can do to it.
    OneNode,
    /// Three voters of every group: crashes, the network, disks.
    ThreeNodes,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Self; 2] = [Self::OneNode, Self::ThreeNodes];

    /// By name, or by its first word.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "one" | "one_node" => Some(Self::OneNode),
            "three" | "three_nodes" => Some(Self::ThreeNodes),
            _ => None,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneNode => "one_node",
            Self::ThreeNodes => "three_nodes",
        })
    }
}

/// Of 100 runs, this many have a flipped bit.
const FLIP_PERCENT: u64 = 15;

/// One run, before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) plant: Plant,
    pub(crate) nodes: u32,
    pub(crate) slots: u16,
    pub(crate) clients: usize,
    /// How long faults go on, in virtual ms.
    pub(crate) storm_ms: u64,
    /// Longest pause between two acts of a client, in ms.
    pub(crate) pause_ms: u64,
    /// One raft tick, in ms.
    pub(crate) tick_ms: u64,
    /// Longest pause between two faults, in ms.
    pub(crate) calm_ms: u64,
    pub(crate) segment_bytes: u64,
    /// Longest pause between two checkpoints, in ms.
    pub(crate) checkpoint_ms: u64,
    /// An fsync takes between these, in µs.
    pub(crate) sync_us: (u64, u64),
    /// Longest pause before a dead node is started again, in ms.
    pub(crate) down_ms: u64,
    /// A bit of some file is flipped after so many ms, in a folder. Not in `rows.redb`: the database checks its pages when it repairs
    /// itself, not when it reads them.
    pub(crate) flip: Option<(u64, &'static str)>,
    /// Bytes added to every message.
    pub(crate) padding: usize,
}

impl Plan {
    pub(crate) fn new(scenario: Scenario, seed: u64, plant: Plant) -> Self {
        let mut dice = Dice::new(seed, "plan");
        let (nodes, storm_ms, down_ms, calm_ms) = match scenario {
            Scenario::OneNode => (1, 3_000, 200, [100, 300, 800]),
            Scenario::ThreeNodes => (3, 6_000, 1_500, [200, 500, 1_500]),
        };
        let flip = match dice.chance(FLIP_PERCENT) {
            true => Some((
                dice.between(500, storm_ms),
                *dice.pick(&["wal", "messages"]),
            )),
            false => None,
        };
        Self {
            seed,
            scenario,
            plant,
            nodes,
            slots: *dice.pick(&[1, 2, 4]),
            clients: dice.between(3, 6) as usize,
            storm_ms,
            pause_ms: *dice.pick(&[10, 30, 80]),
            calm_ms: *dice.pick(&calm_ms),
            tick_ms: *dice.pick(&[20, 100]),
            segment_bytes: *dice.pick(&[8, 32, 128]) * 1024,
            checkpoint_ms: *dice.pick(&[50, 200, 1_000]),
            sync_us: *dice.pick(&[(50, 300), (200, 2_000), (1_000, 20_000)]),
            down_ms,
            flip,
            padding: *dice.pick(&[0, 0, 0, 100, 3_000, 50_000]),
        }
    }
}
