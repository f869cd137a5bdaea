//! The binary in the hands of a clumsy operator: what it says, and the code it ends with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use common::{Place, Server, Setup, http, raw, run};
use rustix::process::Signal;
use serde_json::json;

/// The configuration or the data directory cannot be used.
const UNUSABLE: Option<i32> = Some(78);

/// One line for a person, not a dump of the program's inside.
fn assert_sentence(said: &str, parts: &[&str]) {
    let line = said.lines().find(|line| line.starts_with("wukongim: "));
    let line = line.unwrap_or_else(|| panic!("no sentence: {said}"));
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    for port in ["addr", "wsAddr", "httpAddr"] {
        let place = Place::new();
        let mut setup = Setup::new(&place);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        match port {
            "addr" => setup.ports.tcp = number,
            "wsAddr" => setup.ports.ws = number,
            _ => setup.ports.http = number,
        }
        let (code, said) = setup.fail();
        assert_eq!(code, Some(1), "{said}");
        let addr = format!("127.0.0.1:{number}");
        assert_sentence(&said, &["cannot listen on", &addr, port, "in use"]);
        assert!(
            !said.contains("password"),
            "shown before anybody could use it: {said}"
        );
    }
}

#[test]
fn a_directory_in_use_is_refused() {
    let place = Place::new();
    let mut first = Setup::new(&place).start();
    let mut second = Setup::new(&place);
    second.log = place.path("second");
    let (code, said) = second.fail();
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["is in use by process", &first.pid().to_string()]);
    first.assert_well();
}

#[test]
fn a_foreign_directory_is_refused() {
    let place = Place::new();
    Setup::new(&place).start().stop(Signal::TERM);
    let mut other = Setup::new(&place).env("WK_CLUSTER_NODEID", "7");
    other.log = place.path("other");
    let (code, said) = other.fail();
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["belongs to node 1001", "cluster.nodeId"]);
}

#[test]
fn a_newer_or_damaged_directory_is_refused_and_not_changed() {
    let place = Place::new();
    Setup::new(&place).start().stop(Signal::TERM);
    let file = place.home().join("node.json");
    let good = fs::read_to_string(&file).unwrap();
    let spoilt = [
        (good.replace("\"wal\": 1", "\"wal\": 9"), "newer version"),
        (
            good.replace("\"format\": 1", "\"format\": 2"),
            "newer version",
        ),
        (good[..good.len() / 2].to_owned(), "damaged"),
        (String::new(), "damaged"),
    ];
    for (number, (text, part)) in spoilt.into_iter().enumerate() {
        assert_ne!(text, good);
        fs::write(&file, &text).unwrap();
        let mut setup = Setup::new(&place);
        setup.log = place.path(&format!("log-{number}"));
        let (code, said) = setup.fail();
        assert_eq!(code, UNUSABLE, "{said}");
        assert_sentence(&said, &[part]);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::write(&file, &good).unwrap();
    Setup::new(&place).start().assert_well();
}

#[test]
fn a_v2_directory_is_refused_and_not_touched() {
    let place = Place::new();
    let data = place.data().join("data");
    fs::create_dir_all(data.join("db/wukongimdb")).unwrap();
    let (code, said) = Setup::new(&place).fail();
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["WuKongIM v2", "db/wukongimdb", "dataDir"]);
    let names: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["db"]);
}

#[test]
fn a_data_directory_that_is_a_file_is_named() {
    let place = Place::new();
    let file = place.write("file", "not a directory");
    let file = file.to_str().unwrap();
    for (number, dir) in [file.to_owned(), format!("{file}/below")]
        .iter()
        .enumerate()
    {
        let mut setup = Setup::new(&place).env("WK_DATADIR", dir);
        setup.log = place.path(&format!("log-{number}"));
        let (code, said) = setup.fail();
        assert_eq!(code, UNUSABLE, "{said}");
        assert_sentence(&said, &[file]);
    }
}

#[test]
fn damaged_secrets_are_not_replaced() {
    let place = Place::new();
    Setup::new(&place).start().stop(Signal::TERM);
    let file = place.home().join("secrets.json");
    fs::write(&file, "{").unwrap();
    let mut setup = Setup::new(&place);
    setup.log = place.path("second");
    let (code, said) = setup.fail();
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["secrets.json", "damaged", "remove it"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{");
}

#[test]
fn configurations_that_cannot_be_used() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 9] = [
        ("addr: [\n", &["wk.yaml"]),
        ("a: 1\n  b: 2\n", &["wk.yaml", "line 2"]),
        ("just words\n", &["wk.yaml", "key: value"]),
        ("- a\n- b\n", &["wk.yaml", "key: value"]),
        (
            "tokenAuthOn: maybe\n",
            &["wk.yaml:1", "tokenAuthOn", "true or false", "maybe"],
        ),
        (
            "mode: release\nconnIdleTime: soon\n",
            &["wk.yaml:2", "connIdleTime", "duration"],
        ),
        (
            "cluster:\n  nodeId: -4\n",
            &["wk.yaml:2", "cluster.nodeId", "between"],
        ),
        (
            "cluster:\n  nodeId: 99999999999999999999\n",
            &["cluster.nodeId"],
        ),
        ("addr: tcp://nowhere\n", &["wk.yaml:1", "addr", "nowhere"]),
    ];
    for (yaml, parts) in cases {
        let file = place.write("wk.yaml", yaml);
        let file = file.to_str().unwrap();
        for words in [
            &["config", "check", "--config", file][..],
            &["--config", file],
        ] {
            let (code, said) = run(words, &[], &place.path(""));
            assert_eq!(code, UNUSABLE, "{yaml}: {said}");
            assert_sentence(&said, parts);
        }
    }
    let env = [("WK_TOKENAUTHON", "perhaps")];
    let (code, said) = run(&["config", "check"], &env, &place.path(""));
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["WK_TOKENAUTHON", "tokenAuthOn", "perhaps"]);
}

#[test]
fn typos_are_warnings_or_errors_as_asked() {
    let place = Place::new();
    let file = place.write(
        "wk.yaml",
        "tokenAuthOnn: true\nwssAddr: wss://0.0.0.0:5210\n",
    );
    let check = ["config", "check", "--config", file.to_str().unwrap()];
    let (code, said) = run(&check, &[], &place.path(""));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("wk.yaml:1: unknown key \"tokenAuthOnn\""),
        "{said}"
    );
    assert!(said.contains("did you mean \"tokenAuthOn\""), "{said}");
    assert!(said.contains("not supported yet: wssAddr"), "{said}");
    let mode = ["config", "check", "--mode", "fast"];
    let (code, said) = run(&mode, &[], &place.path(""));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("--mode: unknown mode \"fast\""), "{said}");
    let (code, _) = run(
        &[&mode[..], &["--strict-config"]].concat(),
        &[],
        &place.path(""),
    );
    assert_eq!(code, UNUSABLE);
    let strict = [&check[..], &["--strict-config"]].concat();
    let (code, said) = run(&strict, &[], &place.path(""));
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["wk.yaml:1", "tokenAuthOnn"]);
}

#[test]
fn a_missing_file_is_an_error_unless_it_may_be_missing() {
    let place = Place::new();
    let (code, said) = run(
        &["config", "check", "--config", "none.yaml"],
        &[],
        &place.path(""),
    );
    assert_eq!(code, UNUSABLE, "{said}");
    assert_sentence(&said, &["none.yaml"]);
    let may = ["-i", "--config", "none.yaml", "config", "check"];
    assert_eq!(run(&may, &[], &place.path("")).0, Some(0));
}

#[test]
fn the_environment_is_stronger_than_the_file_and_print_hides_secrets() {
    let place = Place::new();
    let file = place.write(
        "wk.yaml",
        "managerToken: s3cret-manager\ntokenAuthOn: false\njwt:\n  secret: s3cret-jwt\nauth:\n  users:\n    - admin:s3cret-user:*\n",
    );
    let env = [("WK_TOKENAUTHON", "true")];
    let print = ["config", "print", "--config", file.to_str().unwrap()];
    let (code, said) = run(&print, &env, &place.path(""));
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("tokenAuthOn = true    # WK_TOKENAUTHON"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
}

/// What an operator finds at the first start, and does not find again.
#[test]
fn secrets_are_shown_once_and_kept_private() {
    let place = Place::new();
    let setup = Setup::new(&place);
    let mut server = setup.start();
    common::until("the greeting", || server.said().contains("try       curl"));
    let file = place.home().join("secrets.json");
    let secrets: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&place.home()), 0o700);
    server.stop(Signal::TERM);
    let mut again = setup.start();
    common::until("the greeting", || {
        again.said().matches("try       curl").count() == 2
    });
    let said = again.said();
    for name in ["manager_password", "api_token"] {
        let secret = secrets[name].as_str().unwrap();
        assert_eq!(said.matches(secret).count(), 1, "{name}");
    }
    again.stop(Signal::TERM);
}

/// Everything a run says, at the chattiest level, against everything that is nobody's business.
#[test]
fn the_log_has_no_tokens_and_no_payloads() {
    let place = Place::new();
    let setup = Setup::new(&place)
        .args(&["--mode", "debug"])
        .env("WK_TOKENAUTHON", "true")
        .env("WK_MANAGERTOKEN", "hush-manager")
        .env("RUST_LOG", "trace");
    let mut server = setup.spawn();
    common::until("ready", || {
        http::try_raw(server.http(), b"GET /readyz HTTP/1.0\r\n\r\n")
            .is_some_and(|a| a.status == 200)
    });
    let post = |path: &str, body: serde_json::Value| {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\ntoken: hush-manager\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        http::try_raw(server.http(), head.as_bytes()).unwrap()
    };
    let token = json!({"uid": "ann", "token": "hush-token", "device_flag": 0, "device_level": 1});
    assert_eq!(post("/user/token", token).status, 200);
    let message = json!({"from_uid": "ann", "channel_id": "bob", "channel_type": 1, "payload": "aHVzaC1odHRw"});
    assert_eq!(post("/message/send", message).status, 200);
    assert_ne!(
        post(
            "/message/send",
            json!({"from_uid": 5, "payload": "hush-wrong"})
        )
        .status,
        200
    );
    let mut ann = raw::Raw::open(server.tcp());
    assert_eq!(ann.hello(b"ann", b"hush-token").unwrap().reason_code, 1);
    let send = raw::send_to(ann.cipher.as_ref(), b"bob", 1, b"hush-payload");
    ann.send(&wk_proto::frame::Frame::Send(send));
    ann.next().unwrap();
    let mut eve = raw::Raw::open(server.tcp());
    assert_ne!(eve.hello(b"ann", b"hush-guess").unwrap().reason_code, 1);
    // What a broken request looks like is said at this level.
    http::try_raw(server.http(), b"hush\r\n\r\n");
    server.stop(Signal::TERM);
    let said = server.said();
    assert!(said.contains("DEBUG"), "a chatty run: {said}");
    assert!(!said.contains('\x1b'), "colours are for terminals: {said}");
    for secret in ["hush", "aHVzaC1", "HVzaC", "aHVza"] {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

/// The first 200 of any of them is followed by a write that works.
#[test]
fn ready_means_that_a_write_works() {
    let message = json!({"from_uid": "a", "channel_id": "b", "channel_type": 1, "payload": "aGk="})
        .to_string();
    let place = Place::new();
    let setup = Setup::new(&place);
    for path in ["/readyz", "/health", "/readyz"] {
        let mut server = setup.spawn();
        common::until("the first answer", || {
            http::try_request(server.http(), "GET", path, b"").is_some_and(|a| a.status == 200)
        });
        let answer = server.post_raw("/message/send", message.as_bytes());
        assert_eq!(answer.status, 200, "after {path}: {}", answer.text());
        let mut raw = raw::Raw::open(server.tcp());
        assert_eq!(raw.hello(b"early", b"").expect("an answer").reason_code, 1);
        // Uncleanly: the next start has something to recover.
        server.kill();
    }
    let server = setup.start();
    assert_eq!(server.get("/healthz").status, 200);
}

/// `wukongim | head -1`, and an output on a full disk: nobody reads the greeting, and the server serves.
#[test]
fn an_output_nobody_reads_stops_nothing() {
    let place = Place::new();
    let mut setup = Setup::new(&place);
    setup.log = "/dev/full".into();
    let mut server = setup.start();
    server.assert_well();
    server.stop(Signal::TERM);
}

/// A signal while it starts is a signal.
#[test]
fn a_signal_during_the_start_ends_it() {
    let place = Place::new();
    let setup = Setup::new(&place);
    let mut server: Server = setup.spawn();
    common::until("the lock", || place.home().join("lock").exists());
    let time = server.stop(Signal::INT);
    assert!(time.as_secs() < 5, "{time:?}");
    setup.start().assert_well();
}
