//! A machine that fails: killed processes, full disks, more load than it can take. What was acknowledged is there, once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::load::Load;
use common::raw::Raw;
use common::{Place, Setup, until};
use rustix::process::Signal;
use wk_client::{Client, Encryption, Options, PendingAck, SendError, SendOptions};
use wk_proto::ChannelType;

/// Rounds of `kill -9` in a usual run.
const ROUNDS: usize = 8;

#[test]
fn killed_in_the_middle_nothing_acknowledged_is_lost() {
    kill_rounds(ROUNDS);
}

#[test]
#[ignore = "minutes; the same with more rounds"]
fn killed_a_hundred_times_nothing_acknowledged_is_lost() {
    kill_rounds(100);
}

fn kill_rounds(rounds: usize) {
    let place = Place::new();
    let setup = Setup::new(&place).env("WK_TOKENAUTHON", "true");
    let mut server = setup.start();
    common::load::prepare(&server);
    let load = Load::start(&server);
    // Rows by the thousand: checkpoints run while the process is killed.
    let stir = Stir::start(&server);
    for round in 0..rounds {
        let acked = load.books.acked();
        until("some acknowledgements of this round", || {
            load.books.acked() > acked + 50 + (round as u64 * 37) % 200
        });
        server.kill();
        server = setup.start();
        let (_, most) = server.memory_mib();
        assert!(most < 500, "{most} MiB after round {round}");
    }
    let books = load.finish();
    let made = stir.finish();
    books.check(&server);
    assert_eq!(books.refused(), 0);
    for channel in made {
        let path = format!("/cluster/channels/{channel}/2/subscribers");
        let members = server.get(&path).text().matches("\"member").count();
        assert_eq!(members, STIRRED, "{channel}");
    }
    common::load::check_state(&server);
    books.check_resend(&server);
    // Once more, cleanly: nothing changes.
    server.stop(Signal::TERM);
    let mut server = setup.start();
    books.check(&server);
    server.assert_well();
}

/// Subscribers of each channel that [`Stir`] makes.
const STIRRED: usize = 1_500;

/// Makes channels until told to stop, and knows which are acknowledged.
struct Stir {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Stir {
    fn start(server: &common::Server) -> Self {
        let (stop, to) = (Arc::new(AtomicBool::new(false)), server.http());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut made = Vec::new();
            for n in 0.. {
                if stopped.load(Relaxed) {
                    break;
                }
                let members: Vec<String> = (0..STIRRED).map(|m| format!("member{n}-{m}")).collect();
                let channel = format!("stir{n}");
                let body = serde_json::json!({"channel_id": channel, "channel_type": 2, "subscribers": members});
                let answer =
                    common::http::try_request(to, "POST", "/channel", body.to_string().as_bytes());
                if answer.is_some_and(|a| a.status == 200) {
                    made.push(channel);
                }
            }
            made
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// Killed at each step of the first start, and of the recovery after it: the next start goes on.
#[test]
fn killed_during_the_start_it_starts_again() {
    let steps = ["lock", "node.json", "rows.redb", "wal", "secrets.json"];
    let place = Place::new();
    let setup = Setup::new(&place);
    for step in steps {
        let path = place.home().join(step);
        let mut server = setup.spawn();
        until(step, || path.exists() || server.has_ended());
        assert!(!server.has_ended(), "{}", server.said());
        server.kill();
    }
    let mut server = setup.start();
    server.assert_well();
    for _ in steps {
        server.kill();
        server = setup.spawn();
        until("it listens", || server.readiness().is_some());
    }
    server.wait_ready();
    server.assert_well();
    let newest =
        server.get("/channel/max_message_seq?login_uid=doctor&channel_id=patient&channel_type=1");
    assert_eq!(newest.json()["message_seq"], 2);
}

/// Clients that neither read nor finish their requests do not delay the end.
#[test]
fn nobody_holds_up_the_end() {
    let place = Place::new();
    let mut server = Setup::new(&place).start();
    let mut deaf = Raw::login(server.tcp(), "deaf");
    let mut flood = Raw::login(server.tcp(), "flood");
    flood
        .socket
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    while flood.write(&[0x70; 64 * 1024]) {}
    let half = b"POST /message/send HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{";
    let mut slow = std::net::TcpStream::connect(server.http()).unwrap();
    slow.write_all(half).unwrap();
    let silent = std::net::TcpStream::connect(server.http()).unwrap();
    deaf.send(&wk_proto::frame::Frame::Ping);
    let took = server.stop(Signal::TERM);
    assert!(took < Duration::from_millis(5_000), "{took:?}");
    drop((silent, slow));
}

/// SIGTERM and SIGINT under load: everything accepted is answered, in five seconds, and the clients find the next start by themselves.
#[test]
fn stopped_under_load_everything_accepted_is_answered() {
    let place = Place::new();
    let setup = Setup::new(&place).env("WK_TOKENAUTHON", "true");
    let mut server = setup.start();
    common::load::prepare(&server);
    let load = Load::start(&server);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        let acked = load.books.acked();
        until("load", || load.books.acked() > acked + 100);
        let took = server.stop(signal);
        assert!(took < Duration::from_secs(5), "{took:?}");
        server = setup.start();
    }
    let books = load.finish();
    books.check(&server);
    assert_eq!(books.refused(), 0);
    common::load::check_state(&server);
    let said = server.said();
    assert!(
        !said.contains("ERROR") && !said.contains("work left"),
        "{said}"
    );
}

/// A small file system of its own, unmounted when this is dropped.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// `None`: only root may mount.
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let size = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&at)
            .output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self { at });
        }
        eprintln!("SKIPPED: this needs root, to mount a file system of its own");
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.at)
            .status();
        assert!(status.unwrap().success());
    }

    /// Leaves only so many bytes.
    fn fill(&self, left: u64) {
        let mut file = std::fs::File::create(self.at.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            let piece = vec![7; size];
            while file.write_all(&piece).is_ok() {}
        }
        let len = file.metadata().unwrap().len();
        file.set_len(len - left).unwrap();
    }

    fn free(&self) {
        // It may be gone already.
        let _ = std::fs::remove_file(self.at.join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// Something else takes the last byte.
#[test]
fn a_full_disk_loses_nothing() {
    full_disk(0, 0);
}

/// The node itself does: it is faster than its look at the free space.
#[test]
fn a_disk_filled_by_messages_loses_nothing() {
    full_disk(6 << 20, 32 * 1024);
}

/// The disk fills up to the last `left` bytes under load in messages of `size`. Either the node waits for space and goes on, or it
/// ends and says so; what was acknowledged stays.
fn full_disk(left: u64, size: usize) {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.data(), "192m") else {
        return;
    };
    // Ciphers of a debug build would make it a light load.
    let setup = Setup::new(&place)
        .env("WK_TOKENAUTHON", "true")
        .env("WK_DISABLEENCRYPTION", "true");
    let mut server = setup.start();
    common::load::prepare(&server);
    let load = Load::of_size(&server, size);
    until("load", || load.books.acked() > 100);
    disk.fill(left);
    let mut ended = false;
    until("it notices", || {
        ended = server.has_ended();
        ended || server.readiness() == Some(503)
    });
    if !ended {
        let health = server.get("/readyz").text();
        assert!(
            health.contains("free disk space") || health.contains("restart"),
            "{health}"
        );
        disk.free();
        until("it goes on or ends", || {
            ended = server.has_ended();
            ended || server.readiness() == Some(200)
        });
    }
    if ended {
        assert_eq!(server.wait().code(), Some(1));
        let said = server.said();
        assert!(said.contains("No space left on device"), "{said}");
        assert!(said.contains("start it again"), "{said}");
        // Still no space, perhaps: a clear sentence, or it comes up and waits.
        let (code, said) = setup.fail_or_answer();
        assert!(matches!(code, None | Some(1 | 78)), "{code:?}: {said}");
        disk.free();
        server = setup.start();
    }
    let acked = load.books.acked();
    until("load again", || load.books.acked() > acked + 100);
    let books = load.finish();
    books.check(&server);
    common::load::check_state(&server);
    server.kill();
    let mut server = setup.start();
    books.check(&server);
    server.assert_well();
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.data(), "64m") else {
        return;
    };
    disk.fill(0);
    let setup = Setup::new(&place);
    let (code, said) = setup.fail();
    assert!(matches!(code, Some(1 | 78)), "{code:?}: {said}");
    assert!(
        said.contains("No space left on device") && said.contains("node/data"),
        "{said}"
    );
    disk.free();
    setup.start().assert_well();
}

#[test]
fn a_read_only_directory_is_named() {
    let place = Place::new();
    let Some(disk) = SmallDisk::mount(place.data(), "64m") else {
        return;
    };
    let mut setup = Setup::new(&place);
    for past in [false, true] {
        setup.log = place.path(&format!("log-{past}"));
        disk.remount("ro");
        let (code, said) = setup.fail();
        assert_eq!(code, Some(78), "{said}");
        assert!(
            said.contains("cannot be written") && said.contains("dataDir"),
            "{said}"
        );
        disk.remount("rw");
        setup.start().stop(Signal::TERM);
    }
}

/// Far more than it can take, in large messages: memory stays bounded, what is acknowledged is stored, and it recovers.
#[test]
fn overload_is_bounded_and_passes() {
    const CROWD: usize = 150;
    const WANTED: u64 = 1_500;
    let place = Place::new();
    // The load is made in the same debug build: ciphers would make it a light one.
    let setup = Setup::new(&place).env("WK_DISABLEENCRYPTION", "true");
    let mut server = setup.start();
    let address = server.tcp().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let acked = Arc::new(AtomicU64::new(0));
    let (s, a) = (stop.clone(), acked.clone());
    let crowd = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for n in 0..CROWD {
                all.spawn(shout(address.clone(), n, s.clone(), a.clone()));
            }
            let mut books = Vec::new();
            while let Some(sent) = all.join_next().await {
                books.push(sent.unwrap());
            }
            books
        })
    });
    until("much was acknowledged", || acked.load(Relaxed) > WANTED);
    // Others get an answer meanwhile, and in time.
    let before = Instant::now();
    let body = serde_json::json!({"from_uid": "guest", "channel_id": "host", "channel_type": 1, "payload": "aGk="});
    let status = server.post("/message/send", &body).status;
    assert!(matches!(status, 200 | 503), "{status}");
    let waited = before.elapsed();
    stop.store(true, Relaxed);
    let books = crowd.join().unwrap();
    let (_, most) = server.memory_mib();
    println!(
        "{} acknowledged, {most} MiB, another waited {waited:?}",
        acked.load(Relaxed)
    );
    // The sum of the bounds of two shards, and what the allocator keeps of freed pages for a while.
    assert!(most < 2_000, "{most} MiB");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    for (n, newest) in books {
        let path = format!(
            "/channel/max_message_seq?login_uid=shouter{n}&channel_id=wall{n}&channel_type=1"
        );
        let stored = server.get(&path).json()["message_seq"].as_u64().unwrap();
        assert!(
            stored >= newest,
            "shouter{n}: {newest} acknowledged, {stored} stored"
        );
    }
    let before = Instant::now();
    server.assert_well();
    assert!(before.elapsed() < Duration::from_secs(2));
}

/// Sends as fast as the client allows until told to stop; `n` and the highest acknowledged seq.
async fn shout(
    address: String,
    n: usize,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
) -> (usize, u64) {
    let mut options = Options::new(format!("shouter{n}"));
    options.give_up_after = common::PATIENCE;
    options.encryption = Encryption::Off;
    // Under load a login may be given up; a client comes back then.
    let client = loop {
        match Client::connect(&address, options.clone()).await {
            Ok((client, _)) => break client,
            Err(wk_client::Error::Disconnected(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let payload = bytes::Bytes::from(vec![b'!'; 64 * 1024]);
    let mut pending: std::collections::VecDeque<PendingAck> = std::collections::VecDeque::new();
    let wall = format!("wall{n}");
    let mut newest = 0;
    loop {
        let stopped = stop.load(Relaxed);
        if pending.len() >= 64 || stopped {
            let Some(oldest) = pending.pop_front() else {
                break;
            };
            match oldest.await {
                Ok(ack) => {
                    newest = newest.max(u64::from(ack.message_seq));
                    acked.fetch_add(1, Relaxed);
                }
                // An answer, too: not stored, and the sender knows.
                Err(SendError::Refused(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("neither taken nor refused: {error}"),
            }
        } else {
            let sent = client.submit(
                &wall,
                ChannelType::PERSON,
                payload.clone(),
                SendOptions::default(),
            );
            pending.push_back(sent.await.unwrap());
        }
    }
    client.close().await;
    (n, newest)
}
