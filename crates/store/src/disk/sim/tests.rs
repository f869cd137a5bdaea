use super::*;

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.sync_dir("d").expect("folder");
    disk
}

fn read(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, false).expect("open");
    let mut buf = vec![0; file.len().expect("len") as usize];
    file.read_at(0, &mut buf).expect("read");
    buf
}

#[test]
fn a_crash_keeps_what_was_synced_and_any_part_of_the_rest() {
    let disk = disk();
    let file = disk.open("d/f", true).expect("open");
    file.write_at(0, &[1; 5000]).expect("write");
    file.sync().expect("sync");
    disk.sync_dir("d").expect("sync_dir");
    file.write_at(1000, &[2; 8000]).expect("write");
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let bytes = read(&disk.crash(seed), "d/f");
        assert!((5000..=9000).contains(&bytes.len()));
        assert!(bytes[..1000].iter().all(|b| *b == 1), "synced");
        for (at, byte) in bytes.iter().enumerate() {
            let old = if at < 5000 { 1 } else { 0 };
            assert!(*byte == 2 || *byte == old, "at {at}: {byte}");
        }
        let sectors = || bytes.chunks(512).skip(2);
        match (
            bytes.len() == 9000 && bytes[1000..].iter().all(|b| *b == 2),
            bytes.len() == 5000 && bytes[1000..].iter().all(|b| *b == 1),
        ) {
            (true, _) => kept += 1,
            (_, true) => lost += 1,
            _ => torn += 1,
        }
        assert!(sectors().all(|s| s.iter().all(|b| *b == s[0]) || s.len() < 512 || s[0] == 1));
    }
    assert!(kept > 10 && lost > 10 && torn > 50, "{kept} {lost} {torn}");
}

#[test]
fn the_same_seed_gives_the_same_crash() {
    let make = || {
        let disk = disk();
        for n in 0..20u8 {
            let file = disk.open(&format!("d/{n}"), true).expect("open");
            file.write_at(u64::from(n) * 100, &[n; 3000])
                .expect("write");
        }
        disk
    };
    for seed in 0..20 {
        let (a, b) = (make().crash(seed), make().crash(seed));
        let names = a.list("d").expect("list");
        assert_eq!(names, b.list("d").expect("list"));
        for name in names {
            let path = format!("d/{name}");
            assert_eq!(read(&a, &path), read(&b, &path));
        }
    }
}

#[test]
fn names_are_durable_by_sync_dir_only() {
    let disk = disk();
    disk.open("d/a", true).expect("open");
    disk.sync_dir("d").expect("sync_dir");
    disk.open("d/b", true).expect("open");
    disk.rename("d/a", "d/c").expect("rename");
    let outcomes: BTreeSet<Vec<String>> = (0..100)
        .map(|seed| disk.crash(seed).list("d").expect("list"))
        .collect();
    let outcomes: Vec<String> = outcomes.iter().map(|names| names.join("")).collect();
    assert_eq!(
        outcomes,
        ["a", "ab", "bc", "c"],
        "a rename is whole or not at all"
    );

    let disk = self::disk();
    disk.open("d/a", true).expect("open");
    disk.sync_dir("d").expect("sync_dir");
    assert!((0..100).all(|seed| disk.crash(seed).list("d").expect("list") == ["a"]));
}

#[test]
fn links_are_one_file() {
    let disk = disk();
    let file = disk.open("d/a", true).expect("open");
    disk.link("d/a", "d/b").expect("link");
    assert!(disk.link("d/a", "d/b").is_err(), "exists");
    file.write_at(0, b"x").expect("write");
    file.sync().expect("sync");
    disk.sync_dir("d").expect("sync_dir");
    let disk = disk.crash(1);
    let file = disk.open("d/a", false).expect("open");
    file.write_at(0, b"y").expect("write");
    assert_eq!(read(&disk, "d/b"), b"y");
    disk.remove("d/a").expect("remove");
    assert_eq!(read(&disk, "d/b"), b"y");
}

#[test]
fn cut_and_grown_reads_zeros_and_syncs_them() {
    let disk = disk();
    let file = disk.open("d/f", true).expect("open");
    disk.sync_dir("d").expect("sync_dir");
    file.write_at(0, &[7; 10_000]).expect("write");
    file.sync().expect("sync");
    file.set_len(100).expect("cut");
    let lengths: BTreeSet<usize> = (0..50).map(|s| read(&disk.crash(s), "d/f").len()).collect();
    assert_eq!(lengths, BTreeSet::from([100, 10_000]));

    let disk = disk.crash(lengths.len() as u64);
    let file = disk.open("d/f", false).expect("open");
    file.set_len(100).expect("cut");
    file.set_len(9_000).expect("grow");
    file.sync().expect("sync");
    let bytes = read(&disk.crash(3), "d/f");
    assert_eq!(bytes.len(), 9_000);
    assert!(bytes[..100].iter().all(|b| *b == 7));
    assert!(bytes[100..].iter().all(|b| *b == 0));
}

#[test]
fn after_a_failed_sync_bytes_are_readable_but_never_durable() {
    let disk = disk();
    let file = disk.open("d/f", true).expect("open");
    disk.sync_dir("d").expect("sync_dir");
    file.write_at(0, &[1; 512]).expect("write");
    file.sync().expect("sync");
    disk.set_faults(Faults {
        fail_sync_at: Some(2),
        ..Faults::default()
    });
    file.write_at(0, &[2; 512]).expect("write");
    assert!(file.sync().is_err());
    file.sync().expect("the second sync says all is well");
    assert_eq!(read(&disk, "d/f"), [2; 512]);
    assert!((0..50).any(|seed| read(&disk.crash(seed), "d/f") == [1; 512]));
}

#[test]
fn faults_hit_the_operation_they_name() {
    let disk = disk();
    let file = disk.open("d/f", true).expect("open");
    disk.set_faults(Faults {
        fail_write_at: Some(2),
        capacity: Some(1000),
        unreadable: BTreeSet::from(["d/f".to_owned()]),
        ..Faults::default()
    });
    file.write_at(0, &[1; 900]).expect("first write");
    assert_eq!(
        file.write_at(0, b"x").err().and_then(|e| e.raw_os_error()),
        Some(libc::EIO)
    );
    let full = file.write_at(900, &[1; 200]).expect_err("full");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.write_at(800, &[1; 200]).expect("fits");
    assert_eq!(disk.space().expect("space"), (0, 1000));
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    disk.remove("d/f").expect("remove");
    assert_eq!(disk.space().expect("space"), (1000, 1000));
}

#[test]
fn power_loss_stops_everything_until_the_crash() {
    let disk = disk();
    let file = disk.open("d/f", true).expect("open");
    disk.sync_dir("d").expect("sync_dir");
    let next = disk.operations() + 1;
    disk.set_faults(Faults {
        power_loss_at: Some(next),
        ..Faults::default()
    });
    assert!(file.write_at(0, b"abc").is_err());
    assert!(disk.is_off());
    assert!(file.len().is_err());
    assert!(disk.list("d").is_err());
    assert!(disk.sync_dir("d").is_err());
    let seen: BTreeSet<Vec<u8>> = (0..50).map(|s| read(&disk.crash(s), "d/f")).collect();
    assert!(
        seen.contains(&b""[..]) && seen.contains(&b"abc"[..]),
        "{seen:?}"
    );
}

#[test]
fn a_flipped_bit_is_on_the_medium() {
    let disk = disk();
    let file = disk.open("d/f", true).expect("open");
    file.write_at(0, &[0; 5000]).expect("write");
    file.sync().expect("sync");
    disk.sync_dir("d").expect("sync_dir");
    disk.flip_bit("d/f", 8 * 4097 + 3).expect("flip");
    assert!(disk.flip_bit("d/f", 8 * 5000).is_err());
    for bytes in [read(&disk, "d/f"), read(&disk.crash(0), "d/f")] {
        assert_eq!(bytes[4097], 8);
        assert_eq!(bytes.iter().filter(|b| **b != 0).count(), 1);
    }
}
