use super::*;

fn parse(entries: &[&str]) -> Result<NodeList, ListError> {
    NodeList::parse(entries, NodeId(1), "a:11110")
}

fn nodes(list: &NodeList) -> Vec<(u32, &str)> {
    list.nodes.iter().map(|(n, a)| (n.0, a.as_str())).collect()
}

#[test]
fn entries_have_ids_hosts_and_ports() {
    let list = parse(&[
        "1@a",
        " 3@10.0.0.3:9 ",
        "2@tcp://B.Example:7",
        "4@[::1]:5",
        "5@[fe80::1]",
    ])
    .unwrap();
    let expected = [
        (1, "a:11110"),
        (2, "b.example:7"),
        (3, "10.0.0.3:9"),
        (4, "[::1]:5"),
        (5, "[fe80::1]:11110"),
    ];
    assert_eq!(nodes(&list), expected);
    assert!(list.warnings.is_empty());
}

#[test]
fn an_empty_list_is_this_node_alone() {
    assert_eq!(parse(&[]), Ok(NodeList::alone(NodeId(1), "a:11110")));
}

#[test]
fn odd_lists_are_taken_with_a_warning() {
    let without_self = parse(&["2@b", "3@c"]).unwrap();
    assert_eq!(nodes(&without_self)[0], (1, "a:11110"));
    assert!(without_self.warnings[0].contains("lacks this node (id 1)"));
    let twice = parse(&["1@a", "2@b", "2@b:11110"]).unwrap();
    assert_eq!(twice.warnings, ["cluster.initNodes lists node 2 twice"]);
    let port = parse(&["1@a:7", "2@b"]).unwrap();
    assert!(port.warnings[0].contains("at a:7, but it listens at a:11110"));
}

#[test]
fn wrong_lists_are_refused_by_name() {
    let cases = [
        ("a:11110", "there is no @"),
        ("@a", "not a number"),
        ("x@a", "not a number"),
        ("4294967296@a", "not a number"),
        ("0@a", "ids start at 1"),
        ("1@", "the host"),
        ("1@:11110", "the host"),
        ("1@a b", "the host"),
        ("1@http://a:1", "IPv6"),
        ("1@a:0", "the port"),
        ("1@a:65536", "the port"),
        ("1@a:", "the port"),
        ("1@::1", "IPv6"),
        ("1@[::1", "[ without ]"),
        ("1@[]:1", "empty"),
        ("1@[::1]1", "the port"),
    ];
    for (entry, why) in cases {
        let error = parse(&[entry]).expect_err(entry).to_string();
        assert!(error.contains(why) && error.contains(entry), "{error}");
    }
    let contradiction = parse(&["1@a", "2@b", "2@b:7"]).unwrap_err().to_string();
    assert!(contradiction.contains("node 2 is listed as b:11110 and as b:7"));
    let same = parse(&["1@a", "2@b", "3@B:11110"]).unwrap_err().to_string();
    assert!(same.contains("nodes 2 and 3 are both at b:11110"));
    let many: Vec<_> = (1..=10).map(|n| format!("{n}@h{n}")).collect();
    let error = NodeList::parse(&many, NodeId(1), "h1").unwrap_err();
    assert_eq!(error, ListError::TooMany(10));
}

#[test]
fn the_hash_is_of_ids_and_counts_and_never_changes() {
    let hash = |entries: &[&str], counts: [u16; 3]| {
        let list = parse(entries).unwrap();
        Pledge::new(&list, counts[0], counts[1], counts[2])
            .unwrap()
            .hash()
    };
    let first = hash(&["1@a", "2@b", "3@c"], [64, 3, 3]);
    assert_eq!(first, hash(&["3@c", "1@elsewhere:7", "2@b"], [64, 3, 3]));
    assert_ne!(first, hash(&["1@a", "2@b"], [64, 3, 3]));
    assert_ne!(first, hash(&["1@a", "2@b", "4@c"], [64, 3, 3]));
    for counts in [[63, 3, 3], [64, 2, 3], [64, 3, 2]] {
        assert_ne!(first, hash(&["1@a", "2@b", "3@c"], counts));
    }
    assert_eq!(first.to_string(), "94fdd123d9ee1b4d", "builds compare it");
}

#[test]
fn counts_nobody_can_have_are_refused() {
    let list = parse(&[]).unwrap();
    for counts in [
        (0, 3, 3),
        (1_025, 3, 3),
        (64, 0, 3),
        (64, 10, 3),
        (64, 3, 0),
    ] {
        let pledge = Pledge::new(&list, counts.0, counts.1, counts.2);
        assert!(matches!(pledge, Err(ListError::Count { .. })), "{counts:?}");
    }
}
