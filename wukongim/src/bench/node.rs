//! A node of our own to measure: this very binary as a child process, on free ports, with a directory that goes with it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Target;
use crate::http_client::Api;

/// Seconds until it must answer `/health` with 200; then the run is off.
const START_SECS: u64 = 30;
/// Milliseconds between two looks.
const LOOK_MS: u64 = 20;
/// Lines of its log shown when it does not start.
const LOG_LINES: usize = 20;

/// Ends with its process killed and its directory removed.
pub struct OwnNode {
    child: Child,
    dir: PathBuf,
    /// How to reach it.
    pub target: Target,
    /// From its start to its first 200 on `/health`.
    pub ready_ms: u64,
}

impl OwnNode {
    /// Starts it and waits until it is ready.
    pub async fn start() -> Result<Self> {
        let name = format!("wukongim-bench-{:016x}", rand::random::<u64>());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let [tcp, ws, http, manager, demo] = free_ports()?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WK_")) {
            command.env_remove(name);
        }
        let child = command
            .env("WK_ROOTDIR", &dir)
            .env("WK_ADDR", format!("tcp://127.0.0.1:{tcp}"))
            .env("WK_WSADDR", format!("ws://127.0.0.1:{ws}"))
            .env("WK_HTTPADDR", format!("127.0.0.1:{http}"))
            .env("WK_MANAGER_ADDR", format!("127.0.0.1:{manager}"))
            .env("WK_DEMO_ADDR", format!("127.0.0.1:{demo}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start a node of this binary")?;
        let target = Target {
            server: format!("127.0.0.1:{tcp}"),
            api: Api::new(&format!("127.0.0.1:{http}"), "")?,
            pid: Some(child.id()),
        };
        let mut node = Self {
            child,
            dir,
            target,
            ready_ms: 0,
        };
        node.wait().await?;
        Ok(node)
    }

    async fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(START_SECS) {
            if self.target.api.get("/health").await.is_ok() {
                self.ready_ms = start.elapsed().as_millis() as u64;
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the node ended at once ({status}):\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
        bail!(
            "the node is not ready after {START_SECS} s:\n{}",
            self.log_tail()
        )
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        // It may have ended by itself; what cannot be removed is in the system's temporary directory.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Free now; another process could take one before the node does, which then says so.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    // All held until all are known, so that none is given twice.
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
