use super::*;

fn given(yaml: &str, env: &[(&str, &str)]) -> Result<Given, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wk.yaml");
    std::fs::write(&path, yaml).unwrap();
    Given::load(
        Some(&path),
        env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
    )
}

#[test]
fn environment_beats_file_and_case_does_not_matter() {
    let g = given(
        "ADDR: tcp://1.2.3.4:1\ncluster:\n  nodeid: 7\n",
        &[("WK_ADDR", "tcp://5.6.7.8:9")],
    )
    .unwrap();
    assert_eq!(g.get("addr").unwrap().value, "tcp://5.6.7.8:9");
    assert_eq!(g.get("cluster.nodeId").unwrap().value, "7");
}

#[test]
fn a_typo_is_reported_with_the_key_that_was_meant() {
    let g = given(
        "tokenAuthON: true\nwebhok:\n  httpAddr: x\n",
        &[("WK_CLUSTER_NODEIDD", "3")],
    )
    .unwrap();
    assert_eq!(g.get("tokenAuthOn").unwrap().value, "true");
    assert!(
        g.warnings[0].contains("wk.yaml:3") && g.warnings[0].contains("\"webhook.httpAddr\""),
        "{:?}",
        g.warnings
    );
    assert!(
        g.warnings[1].contains("\"cluster.nodeId\""),
        "{:?}",
        g.warnings
    );
}

#[test]
fn a_value_that_does_not_fit_names_its_line() {
    let e = given("mode: release\nconnIdleTime: soon\n", &[]).unwrap_err();
    assert!(
        e.0.contains("wk.yaml:2: connIdleTime must be a duration"),
        "{e}"
    );
    let e = given("tokenAuthOn: maybe\n", &[]).unwrap_err();
    assert!(e.0.contains("true or false"), "{e}");
    assert!(given("a: [\n", &[]).is_err(), "broken YAML is fatal");
}

#[test]
fn durations_are_gos_and_days() {
    for (text, ms) in [
        ("3m", 180_000),
        ("1m30s", 90_000),
        ("30d", 2_592_000_000),
        ("60000000000", 60_000),
        ("1.5s", 1_500),
    ] {
        assert_eq!(value::duration_ms(text), Some(ms), "{text}");
    }
    for text in ["", "s", "5x", "5 s", "-1s", "10"] {
        assert_eq!(value::duration_ms(text), None, "{text}");
    }
}

#[test]
fn every_key_has_one_entry_and_a_variable() {
    let mut names: Vec<String> = KEYS.iter().map(|k| k.name.to_lowercase()).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(all >= 148, "all keys of v2.2.5");
    assert_eq!(
        find("cluster.nodeId").unwrap().env_name(),
        "WK_CLUSTER_NODEID"
    );
    assert!(find("cluster.channelDestroyAfterIdleTick").is_some());
}

#[test]
fn lists_may_be_words() {
    let g = given("cluster:\n  initNodes:\n    - 1@a\n    - 2@b\n", &[]).unwrap();
    assert_eq!(g.get("cluster.initNodes").unwrap().value, "1@a 2@b");
}

#[test]
fn the_documentation_lists_the_keys_as_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let documented = std::fs::read_to_string(path).unwrap();
    assert!(
        documented.contains(&table()),
        "run: wukongim config keys, and put the table into docs/configuration.md"
    );
}
