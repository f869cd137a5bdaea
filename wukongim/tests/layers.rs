//! ARCHITECTURE.md's arrows, held against the manifests: a crate uses only what is below it, and a core only what decides nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

/// Crate, and the crates of this workspace it may use.
const BELOW: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("store", &["proto"]),
    ("chat", &["proto", "store"]),
    ("session", &["proto"]),
    ("client", &["proto"]),
    ("cluster", &["proto", "chat"]),
    ("replica", &["proto", "chat", "store"]),
    (
        "server",
        &["proto", "chat", "store", "session", "cluster", "replica"],
    ),
];

/// Crates without runtime, clock, socket, thread or random source, and what they may use from outside.
const CORES: [&str; 5] = ["proto", "session", "chat", "replica", "cluster"];
const HARMLESS: [&str; 14] = [
    "aes",
    "base64",
    "bytes",
    "cbc",
    "crc32fast",
    "md-5",
    "prost",
    "raft",
    "serde",
    "serde_json",
    "slog",
    "thiserror",
    "x25519-dalek",
    "xxhash-rust",
];

/// Names under `[dependencies]` of a crate's manifest.
fn dependencies(name: &str) -> BTreeSet<String> {
    let path = format!("{}/../crates/{name}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(path).unwrap();
    let lines = manifest.lines().skip_while(|l| *l != "[dependencies]");
    let section = lines.skip(1).take_while(|l| !l.starts_with('['));
    let names = section.filter_map(|l| l.split(['.', ' ', '=']).next());
    names
        .filter(|n| !n.is_empty() && !n.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

#[test]
fn arrows_point_down() {
    for (name, below) in BELOW {
        let found = dependencies(name);
        assert!(!found.is_empty(), "{name} has dependencies");
        for used in found.iter().filter_map(|d| d.strip_prefix("wk-")) {
            assert!(below.contains(&used), "{name} uses {used}");
        }
    }
}

#[test]
fn cores_bring_no_runtime_clock_or_random_source() {
    for name in CORES {
        for used in dependencies(name).iter().filter(|d| !d.starts_with("wk-")) {
            assert!(HARMLESS.contains(&used.as_str()), "{name} uses {used}");
        }
    }
}
