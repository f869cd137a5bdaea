//! What a WebSocket client sees that is not a message.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Buf;
use common::{Client, PATIENCE, config, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wk_server::Node;

async fn answer_to(node: &Node, request: &str) -> String {
    let addr = node.listening().ws.unwrap();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let end = timeout(PATIENCE, socket.read_to_string(&mut answer)).await;
    end.expect("closed after the answer").unwrap();
    answer
}

async fn raw(client: &mut Client, len: usize) -> Vec<u8> {
    while client.raw.len() < len {
        assert!(client.fill().await, "the connection ended");
    }
    let bytes = client.raw[..len].to_vec();
    client.raw.advance(len);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn other_requests_are_answered_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let plain = answer_to(&node, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 426 "), "{plain}");
    let broken = answer_to(&node, "hello\r\n\r\n").await;
    assert!(broken.starts_with("HTTP/1.1 400 "), "{broken}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_and_a_close_is_echoed_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut client = Client::ws(&node).await;
    client.hello("ann", "a").await;
    client
        .write_raw(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i'])
        .await;
    assert_eq!(raw(&mut client, 4).await, [0x8a, 2, b'h', b'i']);
    client.write_raw(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]).await;
    assert_eq!(raw(&mut client, 4).await, [0x88, 2, 3, 0xe8]);
    client.ended().await;
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmasked_frame_ends_with_1002() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut client = Client::ws(&node).await;
    client.write_raw(&[0x82, 1, 0]).await;
    assert_eq!(raw(&mut client, 4).await, [0x88, 2, 3, 0xea]);
    client.ended().await;
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_says_that_it_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(config(dir.path())).await;
    let mut client = Client::ws(&node).await;
    client.hello("ann", "a").await;
    let stopping = tokio::spawn({
        let node = node.clone();
        async move { node.stop().await }
    });
    assert_eq!(raw(&mut client, 4).await, [0x88, 2, 3, 0xe9]);
    client.ended().await;
    drop(client);
    stopping.await.unwrap();
}
