use super::*;

fn owner(node: u32) -> Owner {
    Owner {
        node: NodeId(node),
        disk_uuid: 0xfeed,
        now: WallMs(1_700_000_000_000),
        on_v2_data: OnV2Data::Refuse,
    }
}

fn data_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("temp dir")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[test]
fn an_identity_is_made_once_and_kept() {
    let dir = data_dir();
    let data = dir.path().join("not/there/yet");
    let home = Home::open(&data, &owner(1)).expect("new");
    assert!(home.is_new());
    assert_eq!(home.identity().disk_uuid, 0xfeed);
    assert_eq!(home.identity().cluster_id, None);
    assert_eq!(home.path(), data.join("wukongim"));
    drop(home);
    let other = Owner {
        disk_uuid: 0xdead,
        now: WallMs(5),
        ..owner(1)
    };
    let home = Home::open(&data, &other).expect("again");
    assert!(!home.is_new());
    assert_eq!(home.identity().disk_uuid, 0xfeed);
    assert_eq!(home.identity().created_ms, 1_700_000_000_000);
    home.disk().open("rows.redb", true).expect("our files");
}

#[test]
fn a_second_user_is_refused_and_told_who() {
    let dir = data_dir();
    let first = Home::open(dir.path(), &owner(1)).expect("first");
    let refused = Home::open(dir.path(), &owner(1)).expect_err("second");
    assert!(matches!(refused, HomeError::InUse { .. }));
    let who = format!("process {}", std::process::id());
    assert!(refused.to_string().contains(&who), "{refused}");
    drop(first);
    Home::open(dir.path(), &owner(1)).expect("free again");
}

#[test]
fn another_node_is_refused_and_nothing_changes() {
    let dir = data_dir();
    drop(Home::open(dir.path(), &owner(1)).expect("node 1"));
    let before = fs::read(dir.path().join("wukongim/node.json")).expect("read");
    let refused = Home::open(dir.path(), &owner(2)).expect_err("node 2");
    assert!(matches!(
        refused,
        HomeError::ForeignNode {
            found: 1,
            wanted: 2,
            ..
        }
    ));
    assert!(
        refused.to_string().contains("belongs to node 1"),
        "{refused}"
    );
    assert_eq!(
        fs::read(dir.path().join("wukongim/node.json")).expect("read"),
        before
    );
}

#[test]
fn a_cluster_is_for_ever() {
    let dir = data_dir();
    let mut home = Home::open(dir.path(), &owner(1)).expect("open");
    home.bind_cluster(42).expect("bind");
    home.bind_cluster(42).expect("same");
    assert!(matches!(
        home.bind_cluster(43),
        Err(HomeError::ForeignCluster { found: 42, .. })
    ));
    drop(home);
    let home = Home::open(dir.path(), &owner(1)).expect("open");
    assert_eq!(home.identity().cluster_id, Some(42));
}

#[test]
fn v2_data_is_refused_untouched() {
    for marker in V2_MARKERS {
        let dir = data_dir();
        fs::create_dir_all(dir.path().join(marker)).expect("v2");
        let before = files(dir.path());
        let refused = Home::open(dir.path(), &owner(1)).expect_err("v2");
        assert!(matches!(refused, HomeError::V2Data { .. }));
        assert!(refused.to_string().contains("wukongim import"), "{refused}");
        assert_eq!(files(dir.path()), before);
    }
}

#[test]
fn v2_data_may_be_ignored_on_purpose() {
    let dir = data_dir();
    fs::create_dir_all(dir.path().join("db/wukongimdb")).expect("v2");
    let ignore = Owner {
        on_v2_data: OnV2Data::Ignore,
        ..owner(1)
    };
    drop(Home::open(dir.path(), &ignore).expect("ignored"));
    let home = Home::open(dir.path(), &owner(1)).expect("stays ignored");
    assert_eq!(home.identity().v2_data, V2Data::Ignored);
}

#[test]
fn v2_data_that_appears_later_is_noticed() {
    let dir = data_dir();
    drop(Home::open(dir.path(), &owner(1)).expect("ours alone"));
    fs::create_dir_all(dir.path().join("db/wukongimdb")).expect("v2 ran here");
    assert!(matches!(
        Home::open(dir.path(), &owner(1)),
        Err(HomeError::V2Data { .. })
    ));
}

#[test]
fn an_import_must_end() {
    let dir = data_dir();
    fs::create_dir_all(dir.path().join("db/wukongimdb")).expect("v2");
    let import = Owner {
        on_v2_data: OnV2Data::Import,
        ..owner(1)
    };
    drop(Home::open(dir.path(), &import).expect("begun"));
    let refused = Home::open(dir.path(), &owner(1)).expect_err("half");
    assert!(refused.to_string().contains("interrupted"), "{refused}");
    let mut home = Home::open(dir.path(), &import).expect("again");
    home.finish_import().expect("done");
    drop(home);
    Home::open(dir.path(), &owner(1)).expect("complete");
}

#[test]
fn a_folder_that_cannot_be_made_says_so() {
    let dir = data_dir();
    fs::write(dir.path().join("file"), b"").expect("write");
    let refused = Home::open(&dir.path().join("file"), &owner(1)).expect_err("a file");
    assert!(matches!(refused, HomeError::Io { .. }), "{refused:?}");
    let denied = io_error(Path::new("/x"), io::ErrorKind::ReadOnlyFilesystem.into());
    assert!(denied.to_string().contains("write permission"), "{denied}");
}
