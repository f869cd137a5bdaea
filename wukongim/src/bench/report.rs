//! What a run says, for people and for machines.

use std::time::Instant;

use serde_json::{Value, json};

use super::books::Balance;
use super::histogram::Histogram;
use super::{Target, process};

/// Operations and CPU between two moments: both are read at the same two, so the quotient holds even when the generator is
/// the bottleneck.
pub struct Meter {
    at: Instant,
    done: u64,
    server_cpu: Option<f64>,
    own_cpu: Option<f64>,
}

/// What a [`Meter`] saw.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Operations.
    pub ops: u64,
    /// Seconds.
    pub secs: f64,
    /// Seconds of the server's CPU; `None` without a process to look at.
    pub server_cpu: Option<f64>,
    /// Seconds of the generator's CPU. Near `secs`: the generator is the limit.
    pub own_cpu: Option<f64>,
}

impl Meter {
    /// Begins, with so many operations done before.
    pub fn start(target: &Target, done: u64) -> Self {
        Self {
            at: Instant::now(),
            done,
            server_cpu: target.pid.and_then(process::cpu_secs),
            own_cpu: process::cpu_secs(std::process::id()),
        }
    }

    /// Ends, with so many operations done in all.
    pub fn stop(self, target: &Target, done: u64) -> Measured {
        let server_cpu = target.pid.and_then(process::cpu_secs);
        let own_cpu = process::cpu_secs(std::process::id());
        let used = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Measured {
            ops: done - self.done,
            secs: self.at.elapsed().as_secs_f64(),
            server_cpu: used(server_cpu, self.server_cpu),
            own_cpu: used(own_cpu, self.own_cpu),
        }
    }
}

impl Measured {
    fn rate(&self) -> f64 {
        self.ops as f64 / self.secs
    }

    fn cpu_us_per_op(&self) -> Option<f64> {
        (self.ops > 0).then_some(self.server_cpu? * 1e6 / self.ops as f64)
    }
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Latency {
    /// Of nanoseconds.
    pub fn of(histogram: &Histogram) -> Self {
        let us = |ns: u64| ns as f64 / 1_000.0;
        Self {
            count: histogram.total(),
            p50: us(histogram.quantile(500)),
            p99: us(histogram.quantile(990)),
            p999: us(histogram.quantile(999)),
            max: us(histogram.max()),
        }
    }

    fn json(&self) -> Value {
        json!({"count": self.count, "p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999, "max_us": self.max})
    }
}

/// One scenario's result.
pub struct Row {
    /// Scenario.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// How it was run.
    pub parameters: Value,
    /// Rate and CPU.
    pub measured: Measured,
    /// By what was timed; the first is the row's own.
    pub latencies: Vec<(&'static str, Latency)>,
    /// The books.
    pub balance: Balance,
    /// Whether payloads were encrypted, where there were any.
    pub encrypted: Option<bool>,
    /// Counters of the server's write path after the run.
    pub varz: Option<Varz>,
}

/// Counters that must stay small (0 rows per message, turns below a millisecond).
#[derive(Clone, Debug, Default)]
pub struct Varz {
    rows_per_message: Option<f64>,
    turn_us_p999: Option<u64>,
    turn_us_max: Option<u64>,
}

impl Varz {
    /// What the server's `/varz` has of them; `None` if nothing.
    pub async fn of(target: &Target) -> Option<Self> {
        let varz = target.api.get("/varz").await.ok()?;
        let read = Self {
            rows_per_message: varz["kv_rows_per_message"].as_f64(),
            turn_us_p999: varz["shard_turn_us_p999"].as_u64(),
            turn_us_max: varz["shard_turn_us_max"].as_u64(),
        };
        let any = read.rows_per_message.is_some() || read.turn_us_max.is_some();
        any.then_some(read)
    }

    fn json(&self) -> Value {
        json!({
            "kv_rows_per_message": self.rows_per_message,
            "shard_turn_us_p999": self.turn_us_p999, "shard_turn_us_max": self.turn_us_max,
        })
    }
}

impl Row {
    fn json(&self) -> Value {
        let latencies: serde_json::Map<_, _> = self
            .latencies
            .iter()
            .map(|(name, l)| ((*name).to_owned(), l.json()))
            .collect();
        let Measured {
            ops,
            secs,
            server_cpu,
            own_cpu,
        } = self.measured;
        json!({
            "scenario": self.name, "unit": self.unit, "parameters": self.parameters, "encrypted": self.encrypted,
            "ops": ops, "seconds": secs, "rate": self.measured.rate(),
            "server_cpu_us_per_op": self.measured.cpu_us_per_op(), "server_cores_used": server_cpu.map(|c| c / secs),
            "generator_cores_used": own_cpu.map(|c| c / secs), "latency": latencies, "books": self.balance.json(),
            "varz": self.varz.as_ref().map(Varz::json),
        })
    }
}

/// The JSON of a whole run.
pub fn json(rows: &[Row], ready_ms: Option<u64>) -> Value {
    let list: Vec<Value> = rows.iter().map(Row::json).collect();
    let balanced = rows.iter().all(|r| r.balance.holds());
    json!({"balanced": balanced, "node_ready_ms": ready_ms, "rows": list})
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<10} {:>12} {:<10} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7} {:>7}  books",
        "scenario", "per second", "", "p50", "p99", "p99.9", "max", "CPU/op", "server", "gener."
    )
}

/// A line of the table, and lines for what is worth a look.
pub fn lines(row: &Row) -> String {
    let m = &row.measured;
    let latency = row.latencies.first().map(|(_, l)| *l);
    let latency = latency.filter(|l| l.count > 0);
    let time = |pick: fn(Latency) -> f64| latency.map_or("-".to_owned(), |l| duration(pick(l)));
    let cores = |cpu: Option<f64>| cpu.map_or("-".to_owned(), |c| format!("{:.2}", c / m.secs));
    let per_op = m.cpu_us_per_op();
    let mut text = format!(
        "{:<10} {:>12.0} {:<10} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7} {:>7}  {}: {}",
        row.name,
        m.rate(),
        row.unit,
        time(|l| l.p50),
        time(|l| l.p99),
        time(|l| l.p999),
        time(|l| l.max),
        per_op.map_or("-".to_owned(), duration),
        cores(m.server_cpu),
        cores(m.own_cpu),
        if row.balance.holds() {
            "balanced"
        } else {
            "WRONG"
        },
        row.balance.text(),
    );
    for (name, l) in row.latencies.iter().skip(1).filter(|(_, l)| l.count > 0) {
        let [p50, p99, p999, max] = [l.p50, l.p99, l.p999, l.max].map(duration);
        text += &format!(
            "\n{:<10} {name:>23} {p50:>9} {p99:>9} {p999:>9} {max:>9}",
            ""
        );
    }
    if let Some(varz) = &row.varz {
        text += &format!("\n{:<10} {}", "", varz_text(varz));
    }
    text
}

fn varz_text(varz: &Varz) -> String {
    let rows = varz
        .rows_per_message
        .map_or("?".to_owned(), |r| format!("{r:.3}"));
    let turn = |us: Option<u64>| us.map_or("?".to_owned(), |us| duration(us as f64));
    let (p999, max) = (turn(varz.turn_us_p999), turn(varz.turn_us_max));
    format!(
        "kv_rows_per_message {rows}, shard_turn_us p99.9 {p999} max {max} (since the node's start)"
    )
}

fn duration(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.1}µs"),
        us if us < 1_000_000.0 => format!("{:.2}ms", us / 1e3),
        us => format!("{:.2}s", us / 1e6),
    }
}
