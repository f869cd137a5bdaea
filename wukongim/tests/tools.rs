//! The tools as a user runs them: this binary, a node of it, and what they print.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

fn wukongim(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wukongim"))
        .args(words)
        .output()
        .unwrap()
}

/// A process whose lines are read; it ends with its value.
struct Talker {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Talker {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads up to the first line with this in it.
    fn wait_for(&mut self, text: &str) {
        let mut lines = self.lines.by_ref().map(|line| line.unwrap());
        assert!(
            lines.any(|line| line.contains(text)),
            "no line with {text:?}"
        );
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// End of input; the exit code.
    fn leave(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node on free ports, ready; its TCP, WebSocket and HTTP addresses.
fn node(dir: &std::path::Path) -> (Talker, [String; 3]) {
    let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = held
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().to_string());
    drop(held);
    let [tcp, ws, http] = &addresses;
    let mut command = Command::new(env!("CARGO_BIN_EXE_wukongim"));
    command
        .env("WK_ROOTDIR", dir)
        .env("WK_ADDR", format!("tcp://{tcp}"))
        .env("WK_WSADDR", format!("ws://{ws}"))
        .env("WK_HTTPADDR", http)
        .stderr(Stdio::null());
    let mut node = Talker::start(&mut command);
    node.wait_for("ready in");
    (node, addresses)
}

fn chat(uid: &str, with: [&str; 2], server: &str, api: &str) -> Talker {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wukongim"));
    command
        .args(["chat", "--uid", uid, "--server", server, "--api", api])
        .args(with);
    let mut talker = Talker::start(&mut command);
    talker.wait_for("/quit leaves");
    talker
}

#[test]
fn chat_sends_shows_and_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, [tcp, ws, http]) = node(dir.path());
    let ws = format!("ws://{ws}");
    let mut alice = chat("alice", ["--to", "bob"], &tcp, &http);
    let mut bob = chat("bob", ["--to", "alice"], &ws, &http);
    alice.say("hello over there");
    bob.wait_for(" alice: hello over there");
    bob.say("hello yourself");
    alice.wait_for(" bob: hello yourself");
    alice.say("last words");
    assert_eq!(alice.leave(), Some(0), "waits for the answer, then leaves");
    bob.say("/quit");
    assert_eq!(bob.leave(), Some(0));

    let mut command = Command::new(env!("CARGO_BIN_EXE_wukongim"));
    let words = [
        "chat", "--uid", "bob", "--to", "alice", "--server", &tcp, "--api", &http,
    ];
    let mut bob = Talker::start(command.args(words));
    for line in [
        "alice: hello over there",
        "bob: hello yourself",
        "alice: last words",
    ] {
        bob.wait_for(line);
    }

    let mut alice = chat("alice", ["--group", "g1"], &tcp, &http);
    let mut carol = chat("carol", ["--group", "g1"], &tcp, &http);
    alice.say("hello group");
    carol.wait_for(" alice: hello group");
}

/// A short run on a node of its own: everything balances, and the JSON says so.
fn bench(words: &[&str]) -> serde_json::Value {
    let words = [&["bench", "--json", "--seconds", "0.3"], words].concat();
    let output = wukongim(&words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("balanced: offered"), "{said}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["balanced"], true);
    json["rows"][0].clone()
}

#[test]
fn bench_send_balances() {
    let row = bench(&["send", "--conns", "5", "--pipeline", "3"]);
    let books = &row["books"];
    assert!(books["offered"].as_u64() > Some(15), "{row}");
    assert_eq!(books["offered"], books["stored"]);
    assert_eq!(books["offered"], books["delivered"]);
    assert_eq!(row["encrypted"], true);
}

#[test]
fn bench_fanout_balances() {
    let row = bench(&["fanout", "--members", "7", "--rate", "50"]);
    let books = &row["books"];
    let [offered, delivered] = ["offered", "delivered"].map(|k| books[k].as_u64().unwrap());
    assert_eq!(delivered, 7 * offered);
}

#[test]
fn bench_connect_and_http_balance() {
    let row = bench(&["connect", "--conns", "2"]);
    assert!(row["ops"].as_u64() > Some(0));
    let row = bench(&["http", "--conns", "2"]);
    assert_eq!(row["books"]["stored"], row["books"]["acked"]);
}

#[test]
fn without_a_server_there_is_a_sentence_and_an_exit_code() {
    let nobody = ["--server", "127.0.0.1:1", "--api", "127.0.0.1:1"];
    for words in [&["bench", "send"][..], &["chat", "--uid", "a", "--to", "b"]] {
        let output = wukongim(&[words, &nobody].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        let code = if words[0] == "bench" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code));
        assert!(
            said.contains("cannot reach the server at 127.0.0.1:1"),
            "{said}"
        );
    }
}

#[test]
fn fill_fills_and_can_go_on_after_an_unclean_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let words = [
        "fill",
        "--data",
        data,
        "--messages",
        "3000",
        "--channels",
        "7",
    ];
    // 3,000 messages in turn over 7 channels: the first one gets 429 of them.
    let runs = [(&["--unclean"][..], "429\n"), (&[], "858\n")];
    for (more, newest) in runs {
        let output = wukongim(&[&words[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("fill: 3000 messages in"), "{said}");
        assert!(
            said.contains(&format!("fill0 now ends at message {newest}")),
            "{said}"
        );
    }
}
