//! What the kernel knows of a process. Linux only; elsewhere there are no numbers.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clock ticks per second in `/proc`: fixed by Linux's interface to user space.
const TICKS_PER_SEC: f64 = 100.0;
/// Files a process needs besides its sockets.
const OTHER_FILES: u64 = 200;

/// Seconds of CPU (user and system) a process has used; `None` if there is none or it cannot be read.
pub fn cpu_secs(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_cpu(&stat)
}

/// Resident bytes of a process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024)
}

/// The name of a process may contain anything, so count from its closing parenthesis.
fn parse_cpu(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SEC)
}

/// Makes room for so many sockets in this process and its children, or says what to do.
pub fn allow_sockets(sockets: usize) -> Result<()> {
    let wanted = sockets as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= wanted) {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or(wanted);
    ensure!(
        most >= wanted,
        "{sockets} connections need {wanted} open files, and this process may have {most}: \
         raise the limit (ulimit -n) or take fewer connections"
    );
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_of_a_process_with_a_hostile_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5";
        assert_eq!(parse_cpu(stat), Some(3.0));
        assert_eq!(parse_cpu("7 (x"), None);
    }

    #[test]
    fn this_process_has_numbers() {
        let me = std::process::id();
        assert!(cpu_secs(me).is_some() && resident_bytes(me) > Some(0));
        assert!(allow_sockets(10).is_ok());
    }
}
