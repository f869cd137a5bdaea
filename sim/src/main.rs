//! `wk-sim`: plays seeds, says how fast, and repeats one.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use wk_sim::{Plant, Scenario, run};

/// Deterministic simulation of whole clusters. Exit code 1: a seed failed; the line to repeat it is printed.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Play this many seeds of each scenario
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Play this seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// one, three or all
    #[arg(long, default_value = "all")]
    scenario: String,
    /// Write the trace of every run to standard output
    #[arg(long)]
    trace: bool,
    /// Put this bug into the drivers
    #[arg(long)]
    plant: Option<String>,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(scenarios) = scenarios(&options.scenario) else {
        eprintln!(
            "--scenario is one, three or all, not {:?}",
            options.scenario
        );
        return ExitCode::from(64);
    };
    let Some(plant) = plant(options.plant.as_deref()) else {
        let known = Plant::ALL.map(|p| p.to_string()).join(", ");
        eprintln!("--plant is one of {known}");
        return ExitCode::from(64);
    };
    let failures = scenarios
        .into_iter()
        .map(|scenario| play(&options, scenario, plant))
        .sum::<u64>();
    ExitCode::from(u8::from(failures > 0))
}

fn scenarios(name: &str) -> Option<Vec<Scenario>> {
    match name {
        "all" => Some(Scenario::ALL.to_vec()),
        name => Scenario::parse(name).map(|scenario| vec![scenario]),
    }
}

fn plant(name: Option<&str>) -> Option<Plant> {
    name.map_or(Some(Plant::Nothing), Plant::parse)
}

/// Plays what was asked for; how many seeds failed.
fn play(options: &Options, scenario: Scenario, plant: Plant) -> u64 {
    let seeds = match options.seed {
        Some(seed) => seed..seed + 1,
        None => options.start..options.start + options.seeds,
    };
    let begun = Instant::now();
    let (mut played, mut failures, mut acks, mut stopped) = (0_u64, 0_u64, 0_u64, 0_u64);
    for seed in seeds {
        let dump: Option<Box<dyn std::io::Write>> = match options.trace {
            true => Some(Box::new(std::io::stdout())),
            false => None,
        };
        let report = run(scenario, seed, plant, dump);
        played += 1;
        acks += report.acks;
        stopped += u64::from(report.stopped);
        if report.failure.is_some() {
            failures += 1;
            println!("{report}");
            if !options.keep_going {
                break;
            }
        } else if options.seed.is_some() {
            println!("{report}");
        }
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!(
        "{scenario}: {played} seeds, {failures} failed, {stopped} stopped at damage, {acks} acks, {:.0} seeds/min",
        played as f64 / minutes.max(1e-9)
    );
    failures
}
