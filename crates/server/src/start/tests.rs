//! A whole node on a disk that fails.

use super::*;
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use wk_chat::Write;
use wk_chat::request::{CallError, DeviceLevel, Why};
use wk_proto::{NodeId, Uid};
use wk_store::SimDisk;
use wk_store::disk::Faults;

struct OnSimDisk {
    parts: Arc<Parts>,
    running: Running,
    disk: SimDisk,
    tcp: SocketAddr,
    _dir: tempfile::TempDir,
}

async fn on(disk: SimDisk) -> OnSimDisk {
    let dir = tempfile::tempdir().unwrap();
    let config = NodeConfig {
        node: NodeId(1),
        data_dir: dir.path().to_owned(),
        listen: ListenConfig {
            tcp: Some(([127, 0, 0, 1], 0).into()),
            ws: None,
        },
        cluster: None,
        policy: wk_chat::Policy {
            slot_count: 2,
            ..wk_chat::Policy::new()
        },
        session: wk_session::Config {
            node: NodeId(1),
            encryption: false,
            json_rpc: true,
            idle_ms: 60_000,
            handshake_ms: 60_000,
            retry_interval_ms: 60_000,
            retry_max: 5,
            proxy_protocol: false,
        },
        shards: 2,
        connections_max: 100,
    };
    let (listeners, listening) = bind_all(&config.listen).await.unwrap();
    let home = open_home(&config).unwrap();
    let opened = open(&config, home, Arc::new(disk.clone())).unwrap();
    let (parts, mut running) = launch(config, opened).unwrap();
    accept(&parts, listeners, &mut running);
    OnSimDisk {
        parts,
        running,
        disk,
        tcp: listening.tcp.unwrap(),
        _dir: dir,
    }
}

fn set_token(token: &str) -> Request {
    Request::Write(Box::new(Write::SetToken {
        uid: Uid::trusted("ann"),
        device_flag: 0,
        level: DeviceLevel::Slave,
        token: token.into(),
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_ends_all_service_at_once_and_loses_nothing_acknowledged() {
    let node = on(SimDisk::new()).await;
    let call = |token| node.parts.route.call(set_token(token));
    assert_eq!(call("kept").await, Ok(Reply::Done));
    let mut client = TcpStream::connect(node.tcp).await.unwrap();

    node.disk.set_faults(Faults {
        fail_sync_at: Some(node.disk.syncs() + 1),
        ..Faults::default()
    });
    let started = Instant::now();
    assert_eq!(
        call("lost").await,
        Err(CallError::Unknown(Why::Timeout)),
        "nobody knows"
    );
    assert!(started.elapsed() < Duration::from_secs(4), "told at once");
    assert!(node.parts.gate.failed().await.contains("write-ahead log"));
    assert_eq!(call("later").await, Err(CallError::NotSent(Why::Faulty)));
    // Connected clients are dropped, new ones too.
    assert!(!matches!(client.read(&mut [0]).await, Ok(n) if n > 0));
    let mut late = TcpStream::connect(node.tcp).await.unwrap();
    assert!(!matches!(late.read(&mut [0]).await, Ok(n) if n > 0));

    let survivor = node.disk.crash(7);
    node.running.stop().await;
    let again = on(survivor).await;
    let admit = wk_chat::request::AdmitRequest {
        uid: Uid::trusted("ann"),
        token: "kept".into(),
        device_flag: 0,
        device_id: "d".into(),
    };
    let admitted = again.parts.route.call(Request::Admit(Box::new(admit)));
    assert!(matches!(admitted.await, Ok(Reply::Admitted(..))));
    again.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_another_number_of_slots_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SimDisk::new();
    let first = on(disk.clone()).await;
    let config = NodeConfig {
        data_dir: dir.path().to_owned(),
        policy: wk_chat::Policy::new(),
        ..first.parts.config.clone()
    };
    first.running.stop().await;
    let home = open_home(&config).unwrap();
    let Err(refused) = open(&config, home, Arc::new(disk)) else {
        panic!("opened");
    };
    assert!(refused.to_string().contains("2 slots"), "{refused}");
}
