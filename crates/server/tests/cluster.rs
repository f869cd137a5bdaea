//! Three nodes in one process: what one takes, the others deliver, answer and obey. What happens when one dies is tested with
//! processes, beside the binary.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use common::{Client, config, make_group, uid, until, write};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wk_chat::request::{CallError, DeviceLevel};
use wk_chat::{Answer, Query, Reply, Request, Write};
use wk_proto::frame::Frame;
use wk_proto::{ChannelKey, ChannelType, MessageSeq, NodeId};
use wk_server::{ClusterConfig, Node, NodeConfig};
use wk_store::Dir;

/// Longest a cluster may take to form on a busy machine; usually it takes two seconds.
const FORMS: Duration = Duration::from_secs(30);

struct Cluster {
    configs: Vec<NodeConfig>,
    nodes: Vec<Node>,
    _dirs: Vec<TempDir>,
}

fn configs(count: u32) -> (Vec<NodeConfig>, Vec<TempDir>) {
    // All are held until every number is known: free ports, and no two the same.
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addrs: Vec<SocketAddr> = held.iter().map(|l| l.local_addr().unwrap()).collect();
    let nodes: BTreeMap<_, _> = (1..)
        .map(NodeId)
        .zip(addrs.iter().map(ToString::to_string))
        .collect();
    let dirs: Vec<_> = addrs.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    let configs = (1..).zip(&addrs).zip(&dirs).map(|((n, addr), dir)| {
        let mut config = config(dir.path());
        config.node = NodeId(n);
        config.session.node = NodeId(n);
        config.cluster = Some(ClusterConfig {
            addr: *addr,
            nodes: nodes.clone(),
            start_timeout_ms: None,
            secret: Some("known to all".to_owned()),
        });
        // Groups meet their shards in another order on every node.
        config.shards = n as usize;
        config
    });
    (configs.collect(), dirs)
}

async fn ready(nodes: &[Node]) {
    let all = async {
        while !nodes.iter().all(|node| node.readiness().ready) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let formed = tokio::time::timeout(FORMS, all).await;
    let states: Vec<_> = nodes.iter().map(Node::readiness).collect();
    formed.unwrap_or_else(|_| panic!("never ready: {states:?}"));
}

async fn three() -> Cluster {
    let (configs, dirs) = configs(3);
    let mut nodes = Vec::new();
    for config in &configs {
        nodes.push(Node::start(config.clone()).await.unwrap());
    }
    ready(&nodes).await;
    Cluster {
        configs,
        nodes,
        _dirs: dirs,
    }
}

impl Cluster {
    async fn stop(self) {
        let stops = self
            .nodes
            .into_iter()
            .map(|node| tokio::spawn(async move { node.stop().await }));
        for stop in stops.collect::<Vec<_>>() {
            stop.await.unwrap();
        }
    }
}

async fn history(node: &Node, channel: ChannelKey) -> Vec<Vec<u8>> {
    let query = Query::Messages {
        channel,
        first: MessageSeq(1),
        last: MessageSeq(u64::MAX),
        dir: Dir::Up,
        limit: 1_000,
    };
    let reply = node.call(Request::Query(Box::new(query))).await;
    let Ok(Reply::Answer(answer)) = reply else {
        panic!("{reply:?}");
    };
    let Answer::Messages(messages) = *answer else {
        panic!("{answer:?}");
    };
    messages
        .iter()
        .map(|m| m.record.payload().to_vec())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_nodes_both_ways_and_history_is_the_same_everywhere() {
    let cluster = three().await;
    let [a, b, c] = &cluster.nodes[..] else {
        unreachable!()
    };
    let mut ann = Client::login(a, "ann").await;
    let mut bob = Client::login(b, "bob").await;
    for n in 1..=20_u32 {
        let ack = ann.say("bob", &format!("to bob {n}")).await;
        assert_eq!((ack.reason_code, ack.message_seq), (1, 2 * n - 1));
        let got = bob.recv().await;
        assert_eq!(got.payload, format!("to bob {n}"));
        assert_eq!(got.message_id, ack.message_id);
        assert_eq!(bob.say("ann", "back").await.message_seq, 2 * n);
        assert_eq!(ann.recv().await.message_seq, 2 * n);
    }
    let pair = || ChannelKey::person(&uid("ann"), &uid("bob"));
    let seen = history(a, pair()).await;
    assert_eq!(seen.len(), 40);
    assert_eq!(history(b, pair()).await, seen);
    assert_eq!(history(c, pair()).await, seen);

    // A group with members everywhere, and one who is on two nodes at once.
    make_group(b, "g", &["ann", "bob", "cat"]).await;
    let mut cat = Client::login(c, "cat").await;
    let mut twice = Client::tcp(a).await;
    twice.hello("cat", "another device").await;
    for node in &cluster.nodes {
        assert_eq!(node.sessions(&uid("cat")).len(), 2, "known before CONNACK");
    }
    ann.post("g", ChannelType::GROUP, "all").await;
    assert_eq!(ann.sendack().await.reason_code, 1);
    for client in [&mut bob, &mut cat, &mut twice] {
        assert_eq!(&client.recv().await.payload[..], b"all");
    }
    cat.post("g", ChannelType::GROUP, "from cat").await;
    assert_eq!(cat.sendack().await.reason_code, 1);
    for client in [&mut ann, &mut bob, &mut twice] {
        assert_eq!(&client.recv().await.payload[..], b"from cat");
        client.is_quiet().await;
    }
    cat.is_quiet().await;
    drop((ann, bob, cat, twice));
    for node in &cluster.nodes {
        until(|| node.sessions(&uid("cat")).is_empty()).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kicks_and_bans_reach_sessions_on_other_nodes_before_the_answer() {
    let cluster = three().await;
    let [a, b, c] = &cluster.nodes[..] else {
        unreachable!()
    };
    let mut ann = Client::login(a, "ann").await;
    let channel = ChannelKey::new(wk_proto::ChannelId::trusted("ann"), ChannelType::PERSON);
    let flags = wk_chat::request::ChannelFlags {
        send_ban: true,
        ..Default::default()
    };
    for (through, send_ban, reason) in [(b, true, 25), (c, false, 1)] {
        write(
            through,
            Write::SetChannel {
                channel: channel.clone(),
                flags: wk_chat::request::ChannelFlags { send_ban, ..flags },
                create_only: false,
            },
        )
        .await;
        let ack = ann.say("bob", "may I").await;
        assert_eq!(ack.reason_code, reason, "ban: {send_ban}");
    }

    // A master's token on one node ends the session on another.
    write(
        c,
        Write::SetToken {
            uid: uid("ann"),
            device_flag: 0,
            level: DeviceLevel::Master,
            token: "t".into(),
        },
    )
    .await;
    let Some(Frame::Disconnect(_)) = ann.frame().await else {
        panic!("no DISCONNECT");
    };
    // Device rules: the same device again, elsewhere.
    let mut first = Client::login(a, "dan").await;
    let _second = Client::login(b, "dan").await;
    first.ended().await;
    until(|| c.sessions(&uid("dan")).len() == 1).await;

    // System accounts are known everywhere when the answer comes.
    let uids = vec![uid("boss")];
    write(a, Write::SystemUids { uids, add: true }).await;
    for node in &cluster.nodes {
        assert!(node.policy().is_system(&uid("boss")));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_start_in_any_order_and_a_minority_neither_serves_nor_claims_to() {
    let (configs, _dirs) = configs(3);
    let third = Node::start(configs[2].clone()).await.unwrap();
    let write = || {
        Request::Write(Box::new(Write::SystemUids {
            uids: vec![uid("x")],
            add: true,
        }))
    };
    assert!(matches!(
        third.call(write()).await,
        Err(CallError::NotSent(_))
    ));
    let readiness = third.readiness();
    assert!(!readiness.ready && readiness.waiting_for.iter().any(|w| w.contains("node 1")));

    let first = Node::start(configs[0].clone()).await.unwrap();
    ready(&[first.clone(), third.clone()]).await;
    let second = Node::start(configs[1].clone()).await.unwrap();
    let mut nodes = vec![first, second, third];
    ready(&nodes).await;
    assert_eq!(nodes[1].call(write()).await, Ok(Reply::Done));

    // Planned stops hand over: nobody waits for an election. The last one has no majority any more.
    nodes.remove(1).stop().await;
    assert_eq!(nodes[0].call(write()).await, Ok(Reply::Done));
    nodes.remove(0).stop().await;
    let last = &nodes[0];
    until(|| !last.readiness().ready).await;
    let refused = last.call(write()).await;
    assert!(refused.is_err(), "{refused:?}");
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_forgot_its_votes_is_refused_and_the_others_go_on() {
    let mut cluster = three().await;
    let wiped = cluster.nodes.remove(1);
    wiped.stop().await;
    let mut config = cluster.configs[1].clone();
    let empty = tempfile::tempdir().unwrap();
    config.data_dir = empty.path().to_owned();
    let wiped = Node::start(config).await.unwrap();
    until(|| said_of_peer(&wiped, "id_conflict")).await;
    assert!(!wiped.readiness().ready);
    let mut ann = Client::login(&cluster.nodes[0], "ann").await;
    assert_eq!(ann.say("bob", "two are enough").await.reason_code, 1);
    wiped.stop().await;

    // With its own directory it is welcome again, and everybody has formed for good.
    let back = Node::start(cluster.configs[1].clone()).await.unwrap();
    cluster.nodes.push(back);
    ready(&cluster.nodes).await;
    let ids: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| node.formation().unwrap().cluster_id)
        .collect();
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]));
    // The new process was told of the sessions there are.
    until(|| cluster.nodes[2].sessions(&uid("ann")).len() == 1).await;
    let mut bob = Client::login(&cluster.nodes[2], "bob").await;
    assert_eq!(bob.say("ann", "back again").await.reason_code, 1);
    assert_eq!(&ann.recv().await.payload[..], b"back again");
    assert_eq!(ann.say("bob", "welcome").await.reason_code, 1);
    assert_eq!(&bob.recv().await.payload[..], b"welcome");
    drop((ann, bob));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_on_the_cluster_port_are_dropped_and_do_no_harm() {
    let cluster = three().await;
    let addr = cluster.configs[0].cluster.as_ref().unwrap().addr;
    for said in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[0xff; 64]] {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(said).await.unwrap();
        // A challenge, perhaps a refusal, and the end.
        let mut heard = Vec::new();
        let _ = socket.read_to_end(&mut heard).await;
        assert!(heard.len() < 100);
    }
    // Another cluster's node, and one that does not know the secret.
    let (mut others, _dirs) = configs(2);
    let listed = cluster.configs[0].cluster.as_ref().unwrap();
    let mut stranger = others.remove(0);
    stranger
        .cluster
        .as_mut()
        .unwrap()
        .nodes
        .insert(NodeId(2), listed.nodes[&NodeId(2)].clone());
    let stranger = Node::start(stranger).await.unwrap();
    until(|| said_of_peer(&stranger, "id_conflict")).await;
    let mut liar = others.remove(0);
    let config = liar.cluster.as_mut().unwrap();
    config.nodes = listed.nodes.clone();
    config.secret = Some("guessed".to_owned());
    liar.node = NodeId(2);
    let liar = Node::start(liar).await.unwrap();
    until(|| said_of_peer(&liar, "auth_failed")).await;
    assert!(!stranger.readiness().ready && !liar.readiness().ready);
    ready(&cluster.nodes).await;
    let mut ann = Client::login(&cluster.nodes[0], "ann").await;
    assert_eq!(ann.say("bob", "still here").await.reason_code, 1);
    stranger.stop().await;
    liar.stop().await;
    drop(ann);
    cluster.stop().await;
}

fn said_of_peer(node: &Node, state: &str) -> bool {
    let readiness = node.readiness();
    readiness
        .waiting_for
        .iter()
        .any(|text| text.contains(state))
}
