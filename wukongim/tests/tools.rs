//! The tools as a user runs them: this binary, a node of it, and what they print.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn wukongim(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wukongim"))
        .args(words)
        .output()
        .unwrap()
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
    assert!(row["latency"]["ack"]["count"].as_u64() > Some(0));
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
    for more in [&["--unclean"][..], &[]] {
        let output = wukongim(&[&words[..], more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("fill: 3000 messages in"), "{said}");
    }
}
