//! Sessions of a whole node: who is let in, who has to go, and how the node ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{Client, PATIENCE, config, make_group, start, uid, until, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wk_chat::Write;
use wk_chat::request::DeviceLevel;
use wk_proto::frame::{Disconnect, Frame};
use wk_proto::{ChannelType, Reason};
use wk_server::Node;

fn kicked(frame: Option<Frame>) -> String {
    match frame {
        Some(Frame::Disconnect(Disconnect {
            reason_code,
            reason,
            ..
        })) => {
            assert_eq!(reason_code, Reason::ConnectKick.code());
            String::from_utf8(reason.to_vec()).unwrap()
        }
        other => panic!("no DISCONNECT: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_device_replaces_its_older_session_silently() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut old = Client::tcp(&node).await;
    old.hello("ann", "phone").await;
    let mut new = Client::tcp(&node).await;
    new.hello("ann", "phone").await;
    assert_eq!(node.sessions(&uid("ann")).len(), 1);

    // Nothing is delivered to the old one from now on, and it ends.
    let mut bob = Client::login(&node, "bob").await;
    bob.say("ann", "hi").await;
    assert_eq!(&new.recv().await.payload[..], b"hi");
    assert_eq!(old.frame().await, None);
    until(|| node.counters().connections == 2).await;
    drop((old, new, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_connection_is_told_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let conn = node.connections()[0].id;
    node.close(&uid("bob"), conn, None);
    ann.is_quiet().await;
    node.close(&uid("ann"), conn, Some("server kick"));
    assert_eq!(kicked(ann.frame().await), "server kick");
    assert!(node.sessions(&uid("ann")).is_empty());
    ann.ended().await;
    drop(ann);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_connection_is_closed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let started = Instant::now();
    node.close(&uid("ann"), node.connections()[0].id, None);
    assert_eq!(ann.frame().await, None);
    assert!(started.elapsed() < Duration::from_millis(1_500));
    drop(ann);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_token_kicks_and_then_the_master_rules() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.policy.token_auth = true;
    let node = start(config).await;
    let token = |token: &str| Write::SetToken {
        uid: uid("ann"),
        device_flag: 0,
        level: DeviceLevel::Master,
        token: token.into(),
    };
    write(&node, token("t1")).await;
    let mut wrong = Client::tcp(&node).await;
    assert_eq!(
        wrong.hello_with("ann", "a", "nope").await.reason_code,
        Reason::AuthFail.code()
    );
    let mut first = Client::tcp(&node).await;
    assert_eq!(first.hello_with("ann", "a", "t1").await.reason_code, 1);
    assert!(node.sessions(&uid("ann"))[0].master);

    let mut second = Client::tcp(&node).await;
    assert_eq!(second.hello_with("ann", "b", "t1").await.reason_code, 1);
    assert_eq!(kicked(first.frame().await), "login in other device");

    write(&node, token("t2")).await;
    assert_eq!(kicked(second.frame().await), wk_chat::KICK_TEXT);
    assert!(node.sessions(&uid("ann")).is_empty());
    drop((wrong, first, second));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_ban_binds_the_next_send() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let flags = wk_chat::request::ChannelFlags {
        send_ban: true,
        ..Default::default()
    };
    let channel =
        wk_proto::ChannelKey::new(wk_proto::ChannelId::trusted("ann"), ChannelType::PERSON);
    write(
        &node,
        Write::SetChannel {
            channel,
            flags,
            create_only: false,
        },
    )
    .await;
    assert_eq!(
        ann.say("bob", "x").await.reason_code,
        Reason::SendBan.code()
    );
    drop(ann);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_and_nobody_else_suffers() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    make_group(&node, "g", &["ann", "bob", "sloth"]).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::login(&node, "bob").await;
    let sloth = Client::login(&node, "sloth").await;
    let text = "x".repeat(400 * 1024);
    let mut sent = 0;
    while node.counters().slow_clients == 0 {
        ann.post("g", ChannelType::GROUP, &text).await;
        assert_eq!(ann.sendack().await.reason_code, 1);
        assert_eq!(bob.recv().await.payload.len(), text.len());
        sent += 1;
        assert!(sent < 200, "never closed");
    }
    until(|| node.sessions(&uid("sloth")).is_empty()).await;
    ann.is_quiet().await;
    bob.is_quiet().await;
    drop(sloth);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_silent_connections_are_closed_after_the_handshake_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.session.handshake_ms = 300;
    let node = start(config).await;
    let (tcp, ws) = (node.listening().tcp.unwrap(), node.listening().ws.unwrap());
    let mut sockets = Vec::new();
    for n in 0..1_000 {
        let addr = if n % 2 == 0 { tcp } else { ws };
        sockets.push(TcpStream::connect(addr).await.unwrap());
    }
    for socket in &mut sockets {
        let end = timeout(PATIENCE, socket.read(&mut [0])).await;
        assert!(!matches!(end.expect("still open"), Ok(n) if n > 0));
    }
    drop(sockets);
    until(|| node.counters().connections == 0).await;
    let mut ann = Client::login(&node, "ann").await;
    ann.is_quiet().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_the_maximum_new_sockets_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.connections_max = 1;
    let node = start(config).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut late = TcpStream::connect(node.listening().tcp.unwrap())
        .await
        .unwrap();
    let end = timeout(PATIENCE, late.read(&mut [0])).await.unwrap();
    assert!(!matches!(end, Ok(n) if n > 0));
    ann.is_quiet().await;
    drop(ann);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_everything_that_was_accepted() {
    const COUNT: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    for n in 0..COUNT {
        ann.post("bob", ChannelType::PERSON, &n.to_string()).await;
    }
    // The server has taken them once it has answered the first.
    let first = ann.sendack().await;
    assert_eq!((first.reason_code, first.message_seq), (1, 1));
    let stopping = tokio::spawn({
        let node = node.clone();
        async move {
            let started = Instant::now();
            node.stop().await;
            started.elapsed()
        }
    });
    let mut acked = 1;
    while let Some(frame) = ann.frame().await {
        let Frame::Sendack(ack) = frame else {
            panic!("{frame:?}");
        };
        acked += 1;
        assert_eq!((ack.reason_code, ack.message_seq as usize), (1, acked));
    }
    drop(ann);
    assert!(stopping.await.unwrap() < Duration::from_secs(5));

    // Whatever was stored was acknowledged.
    let again = start(common::config(dir.path())).await;
    assert_eq!(stored(&again).await, acked);
    again.stop().await;
}

async fn stored(node: &Node) -> usize {
    let channel = wk_proto::ChannelKey::person(&uid("ann"), &uid("bob"));
    let query = wk_chat::Query::Messages {
        channel,
        first: wk_proto::MessageSeq(1),
        last: wk_proto::MessageSeq(u64::MAX),
        dir: wk_store::Dir::Up,
        limit: 1_000,
    };
    match node.call(wk_chat::Request::Query(Box::new(query))).await {
        Ok(wk_chat::Reply::Answer(answer)) => match *answer {
            wk_chat::Answer::Messages(messages) => messages.len(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_end_only_their_own_connection() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let inputs: [&[u8]; 4] = [&[0; 64], &[0xff; 4_096], b"GET / HTTP/1.1\r\n\r\n", &[0x10]];
    for addr in [node.listening().tcp, node.listening().ws] {
        for input in inputs {
            let mut socket = TcpStream::connect(addr.unwrap()).await.unwrap();
            socket.write_all(input).await.unwrap();
            socket.shutdown().await.unwrap();
            // An answer may come (400, 426); the end must.
            let mut answer = Vec::new();
            let end = timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
            assert!(end.is_ok(), "{input:?} is still open");
        }
    }
    ann.is_quiet().await;
    drop(ann);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_outlives_its_handles_and_refuses_work_once_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let tcp = node.listening().tcp.unwrap();
    let mut ann = Client::login(&node, "ann").await;
    let other = node.clone();
    drop(node);
    assert_eq!(ann.say("bob", "still here").await.reason_code, 1);
    drop(ann);
    other.stop().await;
    let query = wk_chat::Request::Query(Box::new(wk_chat::Query::SystemUids));
    assert!(timeout(PATIENCE, other.call(query)).await.unwrap().is_err());
    assert!(TcpStream::connect(tcp).await.is_err());
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_cannot_use_the_same_directory() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let refused = Node::start(config(dir.path())).await.unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    node.stop().await;
    start(config(dir.path())).await.stop().await;
}
