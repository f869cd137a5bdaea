//! What the operating system tells about this process. Zero where it does not.

use std::time::Instant;

/// Bytes of memory in use (resident).
pub(super) fn resident_bytes() -> u64 {
    /// Size of the pages `/proc/self/statm` counts on the platforms we build for.
    const PAGE: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(1);
    pages.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * PAGE
}

/// CPU time used per time passed since `started`, in percent of one core.
pub(super) fn cpu_percent(started: Instant) -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command in parentheses may contain anything; user and system time are the 12th and 13th fields after it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    // 100 ticks a second: a tick is a percent of a second.
    let percent = ticks as f64 / started.elapsed().as_secs_f64().max(0.01);
    (percent * 100.0).round() / 100.0
}
