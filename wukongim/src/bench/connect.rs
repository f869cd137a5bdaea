//! Logins as fast as they go: dial, key exchange, CONNACK, close.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::conn::Conn;
use super::histogram::Histogram;
use super::report::{Latency, Meter, Row};
use super::{Common, Target, process, traffic};

/// Users that log in again and again.
const USERS: u64 = 20_000;

#[derive(Default)]
struct Counts {
    tried: u64,
    done: u64,
    failed: u64,
    why: Option<String>,
    latency: Histogram,
}

/// `parallel` clients at a time, for as long as the run lasts.
pub async fn run(common: &Common, target: &Target, parallel: usize) -> Result<Row> {
    process::allow_sockets(parallel)?;
    let counts = Rc::new(RefCell::new(Counts::default()));
    let end = Instant::now() + Duration::from_secs_f64(common.seconds);
    let meter = Meter::start(target, 0);
    let mut tasks = JoinSet::new();
    let run = common.run_name();
    for _ in 0..parallel {
        let (counts, server, run) = (counts.clone(), target.server.clone(), run.clone());
        let encryption = common.encryption;
        tasks.spawn_local(async move {
            while Instant::now() < end {
                let user = next_user(&counts);
                let start = Instant::now();
                let opened = Conn::open(&server, &format!("{run}c{user}"), encryption).await;
                counts.borrow_mut().enter(start.elapsed(), opened.err());
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    let measured = meter.stop(target, counts.borrow().done);
    let counts = counts.borrow();
    if let Some(why) = &counts.why {
        eprintln!("bench: a login failed: {why}");
    }
    Ok(Row {
        name: "connect",
        unit: "logins",
        parameters: json!({"parallel": parallel}),
        measured,
        latencies: vec![("login", Latency::of(&counts.latency))],
        balance: traffic::operations(counts.tried, None, counts.failed),
        encrypted: None,
        varz: None,
    })
}

fn next_user(counts: &RefCell<Counts>) -> u64 {
    let mut counts = counts.borrow_mut();
    counts.tried += 1;
    counts.tried % USERS
}

impl Counts {
    fn enter(&mut self, took: Duration, error: Option<anyhow::Error>) {
        match error {
            None => {
                self.done += 1;
                self.latency.add(took.as_nanos() as u64);
            }
            Some(e) => {
                self.failed += 1;
                self.why.get_or_insert(format!("{e:#}"));
            }
        }
    }
}
