//! The binary as a child process, the plainest HTTP client there is, and what the system says about a process.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

pub mod http;
pub mod load;
pub mod raw;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use http::Answer;

/// Longest any step of a test may take: far above what it does take, also in a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at something that happens by itself.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for something that happens by itself.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(LOOK);
    }
}

/// A directory for one node, and one for what it says; both gone with this.
pub struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// v2's `rootDir`.
    pub fn data(&self) -> PathBuf {
        self.root.path().join("node")
    }

    /// Where the server keeps what it has.
    pub fn home(&self) -> PathBuf {
        self.data().join("data").join("wukongim")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// Ports of the loopback interface: free when they were taken, and the same over restarts.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub tcp: u16,
    pub ws: u16,
    pub http: u16,
}

impl Ports {
    pub fn free() -> Self {
        // All held until all are known, so that none is given twice.
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [tcp, ws, http] = held.each_ref().map(|l| l.local_addr().unwrap().port());
        Self { tcp, ws, http }
    }
}

/// How to start a node.
pub struct Setup {
    pub root: PathBuf,
    pub log: PathBuf,
    pub ports: Ports,
    pub env: Vec<(String, String)>,
    pub args: Vec<String>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub files_max: Option<u64>,
}

impl Setup {
    pub fn new(place: &Place) -> Self {
        Self {
            root: place.data(),
            log: place.path("log"),
            ports: Ports::free(),
            env: Vec::new(),
            args: Vec::new(),
            files_max: None,
        }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn args(mut self, words: &[&str]) -> Self {
        self.args.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    pub fn files_max(mut self, files: u64) -> Self {
        self.files_max = Some(files);
        self
    }

    /// Starts the process and waits for nothing. What it says is appended to the log.
    pub fn spawn(&self) -> Server {
        let mut command = match self.files_max {
            None => Command::new(env!("CARGO_BIN_EXE_wukongim")),
            Some(files) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
                shell.args(["-c", &script, env!("CARGO_BIN_EXE_wukongim")]);
                shell
            }
        };
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WK_")) {
            command.env_remove(name);
        }
        let mut log = fs::OpenOptions::new();
        let log = log.create(true).append(true).open(&self.log).unwrap();
        let Ports { tcp, ws, http } = self.ports;
        let child = command
            .env("WK_ROOTDIR", &self.root)
            .env("WK_ADDR", format!("tcp://127.0.0.1:{tcp}"))
            .env("WK_WSADDR", format!("ws://127.0.0.1:{ws}"))
            .env("WK_HTTPADDR", format!("127.0.0.1:{http}"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Server {
            child,
            ports: self.ports,
            log: self.log.clone(),
        }
    }

    /// Starts it and waits until it serves.
    pub fn start(&self) -> Server {
        let mut server = self.spawn();
        server.wait_ready();
        server
    }

    /// Starts it and waits until it serves, says that it does not, or has ended by itself.
    pub fn fail_or_answer(&self) -> (Option<i32>, String) {
        let mut server = self.spawn();
        until("an end or an answer", || {
            server.has_ended() || server.readiness().is_some()
        });
        let code = server.has_ended().then(|| server.wait().code());
        (code.flatten(), server.said())
    }

    /// Starts it and waits until it has ended by itself: exit code and what it said.
    pub fn fail(&self) -> (Option<i32>, String) {
        let mut server = self.spawn();
        let status = server.wait();
        (status.code(), server.said())
    }
}

/// A running node; killed when this is dropped.
pub struct Server {
    child: Child,
    pub ports: Ports,
    log: PathBuf,
}

impl Server {
    pub fn tcp(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.tcp).into()
    }

    pub fn ws(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.ws).into()
    }

    pub fn http(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports.http).into()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn wait_ready(&mut self) {
        let start = Instant::now();
        while self.readiness() != Some(200) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended at once ({status}):\n{}", self.said());
            }
            assert!(start.elapsed() < PATIENCE, "not ready:\n{}", self.said());
            std::thread::sleep(LOOK);
        }
    }

    /// Status of `/readyz`; `None`: no answer.
    pub fn readiness(&self) -> Option<u16> {
        http::try_request(self.http(), "GET", "/readyz", b"").map(|a| a.status)
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn get(&self, path: &str) -> Answer {
        http::request(self.http(), "GET", path, b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_raw(path, body.to_string().as_bytes())
    }

    pub fn post_raw(&self, path: &str, body: &[u8]) -> Answer {
        http::request(self.http(), "POST", path, body)
    }

    /// It still runs, serves, and takes a message.
    pub fn assert_well(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.said());
        assert_eq!(self.get("/readyz").status, 200);
        let body = serde_json::json!({"from_uid": "doctor", "channel_id": "patient", "channel_type": 1, "payload": "aGk="});
        let answer = self.post("/message/send", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the end of the process", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Stops it as an operator does; returns how long that took.
    pub fn stop(&mut self, signal: Signal) -> Duration {
        let start = Instant::now();
        self.signal(signal);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.said());
        start.elapsed()
    }

    /// Everything it (and those before it with the same log) printed.
    pub fn said(&self) -> String {
        let is_file = fs::metadata(&self.log).is_ok_and(|log| log.is_file());
        let bytes = is_file.then(|| fs::read(&self.log).unwrap());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    }

    /// Resident memory: now, and the most so far, in MiB.
    pub fn memory_mib(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name));
            let kib = line.and_then(|line| line.split_whitespace().nth(1));
            kib.map_or(0, |kib| kib.parse::<u64>().unwrap() / 1024)
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Sockets its gateway holds.
    pub fn connections(&self) -> u64 {
        self.get("/varz").json()["connections"].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary to its end: exit code and both outputs.
pub fn run(args: &[&str], env: &[(&str, &str)], dir: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_wukongim"))
        .args(args)
        .envs(env.iter().copied())
        .current_dir(dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}
