//! Messages through a whole node: over sockets, to disk, to the recipients.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Client, config, group, make_group, set_members, start, uid};
use wk_chat::request::SetChange;
use wk_chat::{Answer, Query, Reply, Request};
use wk_proto::frame::Frame;
use wk_proto::{ChannelKey, ChannelType, MessageSeq};
use wk_server::Node;
use wk_store::Dir;

async fn history(node: &Node, channel: ChannelKey) -> Vec<(u64, Vec<u8>)> {
    let query = Query::Messages {
        channel,
        first: MessageSeq(1),
        last: MessageSeq(u64::MAX),
        dir: Dir::Up,
        limit: 1_000,
    };
    let reply = node.call(Request::Query(Box::new(query))).await.unwrap();
    let Reply::Answer(answer) = reply else {
        panic!("{reply:?}");
    };
    let Answer::Messages(messages) = *answer else {
        panic!("{answer:?}");
    };
    let messages = messages.into_iter();
    messages
        .map(|m| (m.seq.0, m.record.payload().to_vec()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_its_recipient_over_tcp_and_websocket() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::ws(&node).await;
    assert_eq!(bob.hello("bob", "b").await.reason_code, 1);

    let ack = ann.say("bob", "hi bob").await;
    assert_eq!((ack.reason_code, ack.message_seq), (1, 1));
    let got = bob.recv().await;
    assert_eq!(&got.payload[..], b"hi bob");
    assert_eq!((&got.from_uid[..], got.message_seq), (&b"ann"[..], 1));
    assert_eq!(got.message_id, ack.message_id);

    let ack = bob.say("ann", "hi ann").await;
    assert_eq!((ack.reason_code, ack.message_seq), (1, 2));
    assert_eq!(&ann.recv().await.payload[..], b"hi ann");
    ann.is_quiet().await;
    bob.is_quiet().await;
    drop((ann, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_sessions_read_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.session.encryption = true;
    let node = start(config).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::login(&node, "bob").await;
    assert_eq!(ann.say("bob", "secret").await.reason_code, 1);
    assert_eq!(&bob.recv().await.payload[..], b"secret");
    let pair = ChannelKey::person(&uid("ann"), &uid("bob"));
    assert_eq!(history(&node, pair).await, [(1, b"secret".to_vec())]);
    drop((ann, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_by_the_server_reaches_a_group_that_spans_many_locks() {
    const MEMBERS: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let names: Vec<String> = (0..3_000).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for chunk in names.chunks(1_000) {
        make_group(&node, "big", chunk).await;
    }
    let mut online = Vec::new();
    for name in names.iter().step_by(names.len() / MEMBERS) {
        online.push(Client::login(&node, name).await);
    }
    for n in 1..=20 {
        let reply = node.call(from_server("big", n)).await.unwrap();
        assert!(matches!(reply, Reply::Sent(sent) if sent.message_seq.0 == n));
    }
    for client in &mut online {
        for n in 1..=20 {
            assert_eq!(u64::from(client.recv().await.message_seq), n);
        }
    }
    assert_eq!(node.counters().out_msgs as usize, MEMBERS * 20);
    drop(online);
    node.stop().await;
}

fn from_server(id: &str, n: u64) -> Request {
    Request::Send(std::sync::Arc::new(wk_chat::SendRequest {
        channel: group(id),
        from: uid("u1"),
        origin: wk_chat::request::Origin::Server,
        flags: wk_proto::Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: format!("n{n}").into(),
        topic: "".into(),
        stream_no: "".into(),
        payload: bytes::Bytes::from_static(b"notice"),
        recipients: None,
        receiver_allows_strangers: None,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_stored_is_pushed_once_and_leaves_no_history() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::login(&node, "bob").await;
    let flags = wk_proto::Flags(wk_proto::Flags::NO_PERSIST);
    ann.post_with(flags, "bob", ChannelType::PERSON, "typing")
        .await;
    let ack = ann.sendack().await;
    assert_eq!((ack.reason_code, ack.message_seq), (1, 0));
    assert_eq!(&bob.recv().await.payload[..], b"typing");
    let pair = ChannelKey::person(&uid("ann"), &uid("bob"));
    assert!(history(&node, pair).await.is_empty());
    drop((ann, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_not_acknowledged_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.session.retry_interval_ms = 200;
    let node = start(config).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::login(&node, "bob").await;
    ann.say("bob", "hello?").await;
    for _ in 0..2 {
        let Some(Frame::Recv(recv)) = bob.frame().await else {
            panic!("no RECV");
        };
        assert_eq!((&recv.payload[..], recv.message_seq), (&b"hello?"[..], 1));
    }
    drop((ann, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_other_devices_get_it_and_the_sending_session_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut phone = Client::tcp(&node).await;
    phone.hello("ann", "phone").await;
    let mut desk = Client::tcp(&node).await;
    desk.hello("ann", "desk").await;
    assert_eq!(node.sessions(&uid("ann")).len(), 2);

    assert_eq!(phone.say("bob", "x").await.reason_code, 1);
    assert_eq!(&desk.recv().await.payload[..], b"x");
    phone.is_quiet().await;
    drop((phone, desk));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_sends_are_acknowledged_and_delivered_in_order() {
    const COUNT: u32 = 300;
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::login(&node, "bob").await;
    for n in 0..COUNT {
        ann.post("bob", ChannelType::PERSON, &n.to_string()).await;
    }
    for n in 1..=COUNT {
        let ack = ann.sendack().await;
        assert_eq!(
            (ack.reason_code, ack.client_seq, ack.message_seq),
            (1, n, n)
        );
    }
    for n in 0..COUNT {
        assert_eq!(&bob.recv().await.payload[..], n.to_string().as_bytes());
    }
    drop((ann, bob));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_message_reaches_exactly_the_members() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    make_group(&node, "g", &["ann", "bob", "cat"]).await;
    let mut ann = Client::login(&node, "ann").await;
    let mut bob = Client::login(&node, "bob").await;
    let mut cat = Client::login(&node, "cat").await;
    let mut dan = Client::login(&node, "dan").await;

    ann.post("g", ChannelType::GROUP, "one").await;
    assert_eq!(ann.sendack().await.reason_code, 1);
    assert_eq!(&bob.recv().await.payload[..], b"one");
    assert_eq!(&cat.recv().await.payload[..], b"one");

    // Who was removed gets nothing from the next message on; who was added does.
    set_members(&node, "g", SetChange::Remove(vec![uid("cat")])).await;
    set_members(&node, "g", SetChange::Add(vec![uid("dan")])).await;
    ann.post("g", ChannelType::GROUP, "two").await;
    assert_eq!(ann.sendack().await.reason_code, 1);
    assert_eq!(&bob.recv().await.payload[..], b"two");
    assert_eq!(&dan.recv().await.payload[..], b"two");
    cat.is_quiet().await;
    dan.post("g", ChannelType::GROUP, "three").await;
    assert_eq!(dan.sendack().await.reason_code, 1);
    cat.post("g", ChannelType::GROUP, "no").await;
    assert_eq!(cat.sendack().await.reason_code, 3, "not a subscriber");
    drop((ann, bob, cat, dan));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_crowd_everybody_sees_every_message_once_and_in_the_same_order() {
    const CLIENTS: usize = 12;
    const EACH: usize = 25;
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let names: Vec<String> = (0..CLIENTS).map(|n| format!("c{n}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    make_group(&node, "g", &members).await;
    let mut clients = Vec::new();
    for name in &names {
        clients.push(Client::login(&node, name).await);
    }
    let mut tasks = Vec::new();
    for (n, mut client) in clients.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for k in 0..EACH {
                client
                    .post("g", ChannelType::GROUP, &format!("{n}:{k}"))
                    .await;
            }
            let mut own = Vec::new();
            while seen.len() + own.len() < CLIENTS * EACH {
                match client.frame().await {
                    Some(Frame::Sendack(ack)) => {
                        assert_eq!(ack.reason_code, 1);
                        own.push(ack.message_seq);
                    }
                    Some(Frame::Recv(recv)) => seen.push(recv.message_seq),
                    other => panic!("{other:?}"),
                }
            }
            client.is_quiet().await;
            assert!(seen.is_sorted_by(|a, b| a < b), "deliveries in order");
            assert!(own.is_sorted_by(|a, b| a < b), "answers in order");
            seen.extend(own);
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(1..=(CLIENTS * EACH) as u32));
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let pair = ChannelKey::person(&uid("ann"), &uid("bob"));
    let node = start(config(dir.path())).await;
    let mut ann = Client::login(&node, "ann").await;
    for text in ["a", "b", "c"] {
        assert_eq!(ann.say("bob", text).await.reason_code, 1);
    }
    drop(ann);
    node.stop().await;

    let node = start(config(dir.path())).await;
    let expected = [(1, b"a".to_vec()), (2, b"b".to_vec()), (3, b"c".to_vec())];
    assert_eq!(history(&node, pair.clone()).await, expected);
    let mut ann = Client::login(&node, "ann").await;
    assert_eq!(ann.say("bob", "d").await.message_seq, 4);
    drop(ann);
    node.stop().await;
    assert_eq!(history_len(dir.path(), pair).await, 4);
}

async fn history_len(dir: &std::path::Path, channel: ChannelKey) -> usize {
    let node = start(config(dir)).await;
    let len = history(&node, channel).await.len();
    node.stop().await;
    len
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_without_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    make_group(&node, "g", &["ann"]).await;
    let mut ann = Client::login(&node, "ann").await;
    ann.post("g", ChannelType::GROUP, "kept").await;
    assert_eq!(ann.sendack().await.reason_code, 1);
    // As after kill -9: a copy of what the disk holds at this moment, no checkpoint, no farewell.
    let copy = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), copy.path());
    let again = start(config(copy.path())).await;
    assert_eq!(history(&again, group("g")).await, [(1, b"kept".to_vec())]);
    again.stop().await;
    drop(ann);
    node.stop().await;
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
