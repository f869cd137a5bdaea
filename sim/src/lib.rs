//! Deterministic simulation: the real shards, stores, logs, machines and routers of a whole cluster in one thread, under virtual
//! time, on disks and a network that do their worst.
//!
//! A seed is a run: same seed, same trace. Clients record what they were told; [`oracle`] holds it against the invariants of
//! Spec: cluster 7.1 while the run goes on, [`check`] when it is over. [`Plant`] puts bugs into the drivers played here, which
//! must be found.
//!
//! * [`world`]: time, events, the way of a call; [`drive`]: what cores ask for, performed; [`faults`]: what goes wrong;
//! * [`node`], [`disk`], [`log`], [`net`]: one node's process and its surroundings;
//! * [`load`]: the clients; [`oracle`], [`check`]: what must hold.
//!
//! Not simulated: sockets, TLS and threads (process tests do that), and the drivers of the server itself: those played here are as
//! thin as can be.

mod check;
mod dice;
mod disk;
mod drive;
mod faults;
mod load;
mod log;
mod net;
mod node;
mod oracle;
mod plan;
mod plant;
mod trace;
mod world;

use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::Scenario;
pub use plant::Plant;

use plan::Plan;
use world::World;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// Names the run, with `scenario`.
    pub seed: u64,
    /// Which family.
    pub scenario: Scenario,
    /// The bug on purpose.
    pub plant: Plant,
    /// The first violation of an invariant.
    pub failure: Option<String>,
    /// Of everything that happened.
    pub hash: u64,
    /// Things that happened.
    pub events: u64,
    /// Messages acknowledged.
    pub acks: u64,
    /// Reads answered.
    pub reads: u64,
    /// Virtual time it took, in ms.
    pub virtual_ms: u64,
    /// Damage was found on so many disks that the cluster stopped: a legal end.
    pub stopped: bool,
}

impl fmt::Display for Report {
    /// One line, and for a failure a second one that repeats the run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failure) = &self.failure else {
            return write!(
                f,
                "seed {} {}: {} acks, {} reads, {} events in {} ms, trace {:016x}",
                self.seed,
                self.scenario,
                self.acks,
                self.reads,
                self.events,
                self.virtual_ms,
                self.hash
            );
        };
        writeln!(f, "seed {} {}: {failure}", self.seed, self.scenario)?;
        write!(
            f,
            "replay: make sim SEED={} SCENARIO={}",
            self.seed, self.scenario
        )?;
        match self.plant {
            Plant::Nothing => Ok(()),
            plant => write!(f, " PLANT={plant}"),
        }
    }
}

/// Plays one run. Its trace also goes to `dump`, line by line.
pub fn run(scenario: Scenario, seed: u64, plant: Plant, dump: Option<Box<dyn Write>>) -> Report {
    let mut world = World::new(Plan::new(scenario, seed, plant), dump);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    if let Err(panic) = played {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        world.fail(format!("panicked: {}", text.unwrap_or("no text")));
    }
    Report {
        seed,
        scenario,
        plant,
        failure: world.failure.take(),
        hash: world.trace.hash(),
        events: world.trace.lines(),
        acks: world.oracle.acks,
        reads: world.oracle.reads,
        virtual_ms: world.now.0 / 1_000,
        stopped: world.is_beyond_repair(),
    }
}
