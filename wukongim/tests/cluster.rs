//! Three processes of this binary as a cluster: killed, restarted, left alone. What was acknowledged is there, once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Far above what any step takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// A process that ends with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// SIGKILL, at once.
    fn kill(self) {
        drop(self);
    }

    /// SIGTERM; waits for the end.
    fn terminate(mut self) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert!(
            self.0.wait().unwrap().success(),
            "a planned stop is no failure"
        );
    }
}

/// What is needed to start each node, any number of times.
struct Plan {
    /// TCP, WebSocket, HTTP, cluster.
    addrs: Vec<[String; 4]>,
    dir: tempfile::TempDir,
}

impl Plan {
    fn new(nodes: usize) -> Self {
        let held: Vec<_> = (0..nodes)
            .map(|_| [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let addr = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        Self {
            addrs: held.iter().map(|four| four.each_ref().map(addr)).collect(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn root(&self, node: usize) -> std::path::PathBuf {
        self.dir.path().join(node.to_string())
    }

    /// Starts node `node`, from 0.
    fn start(&self, node: usize) -> Process {
        Process(self.command(node).spawn().unwrap())
    }

    fn command(&self, node: usize) -> Command {
        let [tcp, ws, http, cluster] = &self.addrs[node];
        let nodes = self.addrs.iter().enumerate();
        let nodes: Vec<_> = nodes.map(|(n, a)| format!("{}@{}", n + 1, a[3])).collect();
        let root = self.root(node);
        std::fs::create_dir_all(&root).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log(&root));
        let mut command = Command::new(env!("CARGO_BIN_EXE_wukongim"));
        command
            .env("WK_ROOTDIR", &root)
            .env("WK_ADDR", format!("tcp://{tcp}"))
            .env("WK_WSADDR", format!("ws://{ws}"))
            .env("WK_HTTPADDR", http)
            .env("WK_CLUSTER_NODEID", (node + 1).to_string())
            .env("WK_CLUSTER_ADDR", format!("tcp://{cluster}"))
            .env("WK_CLUSTER_INITNODES", nodes.join(" "))
            .env("WK_CLUSTER_SECRET", "of this test")
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        command
    }

    fn http(&self, node: usize) -> &str {
        &self.addrs[node][2]
    }

    fn is_ready(&self, node: usize) -> bool {
        request(self.http(node), "GET", "/readyz", "").is_ok_and(|(status, _)| status == 200)
    }

    fn wait_ready(&self, nodes: &[usize]) {
        self.until("ready", || nodes.iter().all(|node| self.is_ready(*node)));
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() > end {
                for node in 0..self.addrs.len() {
                    let text = std::fs::read_to_string(log(&self.root(node)));
                    eprintln!("--- node {}\n{}", node + 1, text.unwrap_or_default());
                }
                panic!("never {what}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One attempt to send; whether it was acknowledged.
    fn send(&self, node: usize, from: &str, to: &str, number: &str) -> bool {
        let body = json!({
            "from_uid": from, "channel_id": to, "channel_type": 1, "client_msg_no": number, "payload": "aGVsbG8=",
        });
        let answer = request(self.http(node), "POST", "/message/send", &body.to_string());
        answer.is_ok_and(|(status, body)| status == 200 && body["data"]["reason"] == 1)
    }

    /// Seqs and numbers of all messages between two, as this node tells it.
    fn history(&self, node: usize, from: &str, to: &str) -> Vec<(u64, String)> {
        let body = json!({
            "login_uid": to, "channel_id": from, "channel_type": 1, "start_message_seq": 0, "end_message_seq": 0,
            "limit": 10_000, "pull_mode": 1,
        });
        let path = "/channel/messagesync";
        let (status, body) = request(self.http(node), "POST", path, &body.to_string()).unwrap();
        assert_eq!(status, 200, "{body}");
        let messages = body["messages"].as_array().unwrap().iter();
        messages
            .map(|m| {
                let number = m["client_msg_no"].as_str().unwrap();
                (m["message_seq"].as_u64().unwrap(), number.to_owned())
            })
            .collect()
    }
}

fn log(root: &Path) -> std::path::PathBuf {
    root.join("log")
}

/// One HTTP request on a connection of its own.
fn request(addr: &str, method: &str, path: &str, body: &str) -> std::io::Result<(u16, Value)> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
    let status = head
        .get(9..12)
        .and_then(|s| s.parse().ok())
        .ok_or_else(cut)?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Messages each sender gets acknowledged, before and after the kill.
const EACH: usize = 25;
const SENDERS: usize = 6;

#[test]
fn a_killed_node_costs_no_acknowledged_message_and_catches_up() {
    let plan = Plan::new(3);
    // The third comes late: two are enough.
    let first = plan.start(0);
    let second = plan.start(1);
    plan.wait_ready(&[0, 1]);
    let third = plan.start(2);
    plan.wait_ready(&[0, 1, 2]);

    // Load through the nodes that stay, for leaders everywhere, while the second is killed.
    let acked = AtomicUsize::new(0);
    let mut second = Some(second);
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|n| {
                let (plan, acked) = (&plan, &acked);
                scope.spawn(move || {
                    let (from, to) = (format!("s{n}"), format!("r{n}"));
                    for k in 0..2 * EACH {
                        let number = format!("{n}-{k}");
                        // As a client does: the same message again until it is acknowledged.
                        plan.until("acknowledged", || {
                            plan.send(2 * (n % 2), &from, &to, &number)
                        });
                        acked.fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        plan.until("under load", || acked.load(Relaxed) > SENDERS * EACH / 2);
        second.take().unwrap().kill();
        for sender in senders {
            sender.join().unwrap();
        }
    });
    assert_complete(&plan, &[0, 2]);

    // Back again, it serves what it missed, and counts for a majority: the first may leave, in peace.
    let second = plan.start(1);
    plan.wait_ready(&[1]);
    first.terminate();
    assert_complete(&plan, &[1, 2]);
    plan.until("acknowledged", || plan.send(1, "late", "comer", "1"));

    // Alone it neither serves nor says so, and still answers.
    third.kill();
    plan.until("unready", || !plan.is_ready(1));
    assert!(
        !plan.send(1, "late", "comer", "2"),
        "no majority, no success"
    );
    let (status, _) = request(plan.http(1), "GET", "/healthz", "").unwrap();
    assert_eq!(status, 200);

    // Killed with everything it had in memory, and all started at once.
    second.kill();
    let _all = [plan.start(0), plan.start(1), plan.start(2)];
    plan.wait_ready(&[0, 1, 2]);
    assert_complete(&plan, &[0, 1, 2]);
    plan.until("acknowledged", || plan.send(0, "late", "comer", "3"));
    let history = plan.history(2, "late", "comer");
    assert_eq!(history[0], (1, "1".to_owned()));
}

#[test]
fn a_node_that_may_not_wait_for_ever_says_for_whom_it_waited() {
    let plan = Plan::new(3);
    let mut command = plan.command(0);
    command.env("WK_CLUSTER_STARTTIMEOUT", "300ms");
    let mut node = Process(command.spawn().unwrap());
    assert_eq!(node.0.wait().unwrap().code(), Some(75));
    let said = std::fs::read_to_string(log(&plan.root(0))).unwrap();
    let last = said.lines().last().unwrap();
    assert!(
        last.contains("startTimeout") && last.contains("node 3: refused"),
        "{said}"
    );
}

/// Every message of every sender, once, in order, on each of these nodes.
fn assert_complete(plan: &Plan, nodes: &[usize]) {
    for node in nodes {
        for n in 0..SENDERS {
            let history = plan.history(*node, &format!("s{n}"), &format!("r{n}"));
            let numbers: HashSet<_> = history.iter().map(|(_, number)| number).collect();
            assert_eq!(numbers.len(), history.len(), "doubled: {history:?}");
            assert_eq!(numbers.len(), 2 * EACH, "lost or invented: {history:?}");
            let seqs = history.iter().map(|(seq, _)| *seq);
            assert!(seqs.eq(1..=2 * EACH as u64), "{history:?}");
        }
    }
}
