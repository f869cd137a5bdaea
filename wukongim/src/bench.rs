//! `wukongim bench`: what this machine's server does, with its books checked.
//!
//! One generator thread with one task per connection, the client SDK's codec under it. Without `--server` it starts a node of
//! its own. Latency runs from the moment a message was due. Every message offered must be acked, stored and delivered, once
//! and in order; otherwise the exit code is 1 and the table says what is wrong (2: there was no run). Numbers of two runs compare only on the same quiet
//! machine; for exact ones pin server and generator to cores of their own (`taskset`).

mod books;
mod conn;
mod connect;
mod histogram;
mod http;
mod node;
mod process;
mod report;
mod store;
mod traffic;

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use wk_client::Encryption;

use crate::http_client::Api;
use node::OwnNode;
use report::{Row, Varz};
use traffic::Pace;

/// Measure a server.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to measure
    #[command(subcommand)]
    scenario: Option<Scenario>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Scenario {
    /// 1:1 messages, receivers online
    Send {
        /// Senders, each with one receiver
        #[arg(long, default_value_t = 1_000)]
        conns: usize,
        /// Unacknowledged messages of each sender
        #[arg(long, default_value_t = 1)]
        pipeline: u64,
        /// Open loop: messages per second in all, whatever comes back
        #[arg(long)]
        rate: Option<f64>,
    },
    /// One sender in a group, everybody online
    Fanout {
        /// Members besides the sender
        #[arg(long, default_value_t = 8_000)]
        members: usize,
        /// Messages not yet delivered to everybody
        #[arg(long, default_value_t = 4)]
        pipeline: u64,
        /// Open loop: messages per second
        #[arg(long)]
        rate: Option<f64>,
    },
    /// Logins
    Connect {
        /// At a time
        #[arg(long, default_value_t = 64)]
        conns: usize,
    },
    /// POST /message/send
    Http {
        /// Kept connections
        #[arg(long, default_value_t = 64)]
        conns: usize,
    },
    /// All of them, one after the other (the default)
    All {
        /// Members of the group
        #[arg(long, default_value_t = 8_000)]
        members: usize,
    },
}

/// What every scenario needs to know.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// A running server (host:port of its TCP listener); without it a node is started for the run
    #[arg(long, global = true)]
    server: Option<String>,
    /// Its HTTP API
    #[arg(long, global = true, default_value = "http://127.0.0.1:5001")]
    api: String,
    /// Token of its HTTP API
    #[arg(long, global = true, default_value = "")]
    api_token: String,
    /// Its process, if on this machine: for CPU per operation
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Measured seconds of each scenario
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of a message
    #[arg(long, global = true, default_value_t = 128)]
    payload: usize,
    /// Offer no key: for servers with disableEncryption
    #[arg(long = "plain", global = true, default_value = "auto", num_args = 0, default_missing_value = "off", value_parser = encryption)]
    encryption: Encryption,
    /// The result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
}

fn encryption(text: &str) -> Result<Encryption, std::convert::Infallible> {
    Ok(match text {
        "off" => Encryption::Off,
        _ => Encryption::Auto,
    })
}

impl Common {
    /// A new name for each scenario, so that users and channels are new.
    fn run_name(&self) -> String {
        format!("b{:08x}", rand::random::<u32>())
    }
}

/// The server under test.
#[derive(Clone, Debug)]
struct Target {
    server: String,
    api: Api,
    pid: Option<u32>,
}

/// There was no run, so nothing is known of the books.
const EXIT_NO_RUN: u8 = 2;

/// Runs to the end: exit code 0 if all books balance, 1 if not, 2 if there was no run.
pub async fn run(args: Args) -> Result<ExitCode> {
    Ok(generate(args).await.unwrap_or_else(|e| {
        eprintln!("bench: {e:#}");
        ExitCode::from(EXIT_NO_RUN)
    }))
}

async fn generate(args: Args) -> Result<ExitCode> {
    // A thread and a runtime of its own: connections are tasks that share state without locks.
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        tokio::task::LocalSet::new().block_on(&runtime, measure_unless_stopped(args))
    };
    tokio::task::spawn_blocking(run)
        .await
        .context("the generator failed")?
}

/// A signal ends the run in an orderly way, so that an own node and its directory go, too.
async fn measure_unless_stopped(args: Args) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = measure(args) => result,
        _ = terminate.recv() => bail!("stopped"),
        _ = interrupt.recv() => bail!("stopped"),
    }
}

async fn measure(args: Args) -> Result<ExitCode> {
    let Args { scenario, common } = args;
    ensure!(common.seconds > 0.0, "--seconds must be above 0");
    let scenario = scenario.unwrap_or(Scenario::All { members: 8_000 });
    // Before a node is started, which inherits the limit.
    process::allow_sockets(scenario.sockets())?;
    let own = match &common.server {
        Some(_) => None,
        None => Some(OwnNode::start().await?),
    };
    let target = match (&own, &common.server) {
        (Some(node), _) => node.target.clone(),
        (None, server) => Target {
            server: server.clone().unwrap_or_default(),
            api: Api::new(&common.api, &common.api_token)?,
            pid: common.pid,
        },
    };
    let ready_ms = own.as_ref().map(|node| node.ready_ms);
    if let Some(ms) = ready_ms {
        eprintln!("bench: own node at {}, ready after {ms} ms", target.server);
    }
    eprintln!("{}", report::head());
    let mut rows = Vec::new();
    for step in scenario.steps() {
        let mut row = step.run(&common, &target).await?;
        row.varz = Varz::of(&target).await;
        eprintln!("{}", report::lines(&row));
        rows.push(row);
    }
    if let Some(bytes) = target.pid.and_then(process::resident_bytes) {
        eprintln!("bench: the server now has {} MiB in memory", bytes >> 20);
    }
    if common.json {
        println!("{:#}", report::json(&rows, ready_ms));
    }
    let balanced = rows.iter().all(|row| row.balance.holds());
    Ok(ExitCode::from(u8::from(!balanced)))
}

/// One row of the table.
enum Step {
    Send(&'static str, usize, u64, Option<f64>),
    Fanout(&'static str, usize, Pace),
    Connect(usize),
    Http(usize),
}

impl Step {
    async fn run(&self, common: &Common, target: &Target) -> Result<Row> {
        match *self {
            Self::Send(name, conns, pipeline, rate) => {
                traffic::one_to_one(common, target, name, (conns, pipeline), rate).await
            }
            Self::Fanout(name, members, pace) => {
                traffic::fanout(common, target, name, members, pace).await
            }
            Self::Connect(conns) => connect::run(common, target, conns).await,
            Self::Http(conns) => http::run(common, target, conns).await,
        }
    }
}

impl Scenario {
    fn steps(&self) -> Vec<Step> {
        match *self {
            Self::Send {
                conns,
                pipeline,
                rate,
            } => vec![Step::Send("send", conns.max(1), pipeline.max(1), rate)],
            Self::Fanout {
                members,
                pipeline,
                rate,
            } => {
                let pace = rate.map_or(Pace::Complete(pipeline.max(1)), |r| {
                    Pace::Every(1.0 / r, 0.0)
                });
                vec![Step::Fanout("fanout", members.max(1), pace)]
            }
            Self::Connect { conns } => vec![Step::Connect(conns.max(1))],
            Self::Http { conns } => vec![Step::Http(conns.max(1))],
            Self::All { members } => vec![
                Step::Send("ack", 100, 1, Some(100.0)),
                Step::Send("send", 1_000, 1, None),
                Step::Send("send ×16", 200, 16, None),
                Step::Fanout("fanout", members.max(1), Pace::Complete(4)),
                Step::Fanout("fanout ×64", members.max(1), Pace::Complete(64)),
                Step::Connect(64),
                Step::Http(64),
            ],
        }
    }

    fn sockets(&self) -> usize {
        match *self {
            Self::Send { conns, .. } => 2 * conns,
            Self::Fanout { members, .. } => members,
            Self::Connect { conns } | Self::Http { conns } => conns,
            Self::All { members } => members.max(2_000),
        }
    }
}

#[cfg(test)]
mod tests;
