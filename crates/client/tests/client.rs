//! The client against a server made by hand, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wk_client::{
    ChannelType, Client, Encryption, Error, Event, Options, Refusal, SendError, SendOptions,
};
use wk_proto::frame::{Connack, Disconnect, Frame, Recv, Send, Sendack};
use wk_proto::wire;

/// The server's end of one connection.
struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        Self {
            stream: listener.accept().await.unwrap().0,
            input: BytesMut::new(),
        }
    }

    /// Accepts and logs in.
    async fn welcome(listener: &TcpListener) -> Self {
        let mut peer = Self::accept(listener).await;
        let Some(Frame::Connect(_)) = peer.read().await else {
            panic!("CONNECT comes first");
        };
        peer.write(&Frame::Connack(connack(1))).await;
        peer
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            let bytes = self.input.clone().freeze();
            if let Some((frame, len)) = wire::decode(&bytes, 5).unwrap() {
                let _ = self.input.split_to(len);
                return Some(frame);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap() == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self) -> Send {
        match self.read().await {
            Some(Frame::Send(send)) => send,
            other => panic!("{other:?}"),
        }
    }

    async fn write(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        wire::encode(frame, 5, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn ack(&mut self, client_seq: u32, reason_code: u8) {
        let ack = Sendack {
            message_id: 1,
            client_seq,
            message_seq: client_seq,
            reason_code,
            ..Sendack::default()
        };
        self.write(&Frame::Sendack(ack)).await;
    }
}

fn connack(reason_code: u8) -> Connack {
    Connack {
        server_version: Some(5),
        reason_code,
        ..Connack::default()
    }
}

fn recv(seq: u32) -> Frame {
    Frame::Recv(Recv {
        message_id: i64::from(seq),
        message_seq: seq,
        payload: Bytes::from(seq.to_string()),
        ..Recv::default()
    })
}

fn options() -> Options {
    Options {
        encryption: Encryption::Off,
        ..Options::new("alice")
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

async fn pair(listener: &TcpListener, address: &str) -> (Client, wk_client::Inbox, Peer) {
    let (client, peer) = tokio::join!(Client::connect(address, options()), Peer::welcome(listener));
    let (client, mut inbox) = client.unwrap();
    assert!(matches!(inbox.next().await, Ok(Event::Connected { .. })));
    (client, inbox, peer)
}

async fn submit(client: &Client, text: &'static str) -> wk_client::PendingAck {
    let submitted = client.submit("bob", ChannelType::PERSON, text, SendOptions::default());
    submitted.await.unwrap()
}

#[tokio::test]
async fn pipelined_messages_keep_their_order_and_get_their_own_answers() {
    let (listener, address) = listen().await;
    let (client, _inbox, mut peer) = pair(&listener, &address).await;
    let one = submit(&client, "one").await;
    let two = submit(&client, "two").await;
    let sends = [peer.send().await, peer.send().await];
    assert_eq!(sends[0].payload, "one");
    assert_eq!(sends[1].payload, "two");
    assert_ne!(sends[0].client_msg_no, sends[1].client_msg_no);
    peer.ack(sends[1].client_seq, 25).await;
    peer.ack(sends[0].client_seq, 1).await;
    assert_eq!(two.await, Err(SendError::Refused(Refusal(25))));
    assert_eq!(one.await.unwrap().message_seq, 1);
}

#[tokio::test]
async fn a_broken_connection_is_dialled_again_and_loses_nothing() {
    let (listener, address) = listen().await;
    let (client, mut inbox, mut peer) = pair(&listener, &address).await;
    let one = submit(&client, "one").await;
    let two = submit(&client, "two").await;
    let first = [peer.send().await, peer.send().await];
    peer.ack(first[0].client_seq, 1).await;
    assert!(one.await.is_ok());
    drop(peer);
    let mut peer = Peer::welcome(&listener).await;
    let again = peer.send().await;
    assert_eq!(again, first[1]);
    peer.ack(again.client_seq, 1).await;
    assert!(two.await.is_ok());
    assert!(matches!(inbox.next().await, Ok(Event::Disconnected(_))));
    assert!(matches!(inbox.next().await, Ok(Event::Connected { .. })));
}

#[tokio::test]
async fn ends_are_told_apart() {
    let unreachable = {
        let (_, address) = listen().await;
        Client::connect(&address, options()).await.err()
    };
    assert!(matches!(unreachable, Some(Error::Disconnected(_))));
    let nonsense = Client::connect("wss://host:1", options()).await.err();
    assert_eq!(nonsense, Some(Error::Address("wss://host:1".to_owned())));

    let (listener, address) = listen().await;
    let refuse = async {
        let mut peer = Peer::accept(&listener).await;
        peer.read().await;
        peer.write(&Frame::Connack(connack(2))).await;
    };
    let (refused, ()) = tokio::join!(Client::connect(&address, options()), refuse);
    assert_eq!(refused.err(), Some(Error::Refused(Refusal(2))));

    let (client, mut inbox, mut peer) = pair(&listener, &address).await;
    let waiting = submit(&client, "never answered").await;
    let kick = Disconnect {
        reason_code: 12,
        ..Disconnect::default()
    };
    peer.write(&Frame::Disconnect(kick)).await;
    let kicked = Error::Kicked {
        code: Refusal(12),
        text: String::new(),
    };
    assert_eq!(inbox.next().await, Err(kicked.clone()));
    assert_eq!(inbox.next().await, Err(kicked.clone()), "again and again");
    assert_eq!(waiting.await, Err(SendError::Ended(kicked.clone())));
    let late = client.send("bob", ChannelType::PERSON, "x", SendOptions::default());
    assert_eq!(late.await, Err(SendError::Ended(kicked)));
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_says_goodbye() {
    let (listener, address) = listen().await;
    let (client, mut inbox, mut peer) = pair(&listener, &address).await;
    let waiting = submit(&client, "last words").await;
    client.close().await;
    assert_eq!(peer.send().await.payload, "last words");
    assert!(matches!(peer.read().await, Some(Frame::Disconnect(_))));
    assert_eq!(peer.read().await, None);
    assert_eq!(waiting.await, Err(SendError::Ended(Error::Closed)));
    assert_eq!(inbox.next().await, Err(Error::Closed));
}

#[tokio::test]
async fn dropping_every_handle_ends_the_client() {
    let (listener, address) = listen().await;
    let (client, mut inbox, mut peer) = pair(&listener, &address).await;
    drop(client);
    assert!(matches!(peer.read().await, Some(Frame::Disconnect(_))));
    assert_eq!(inbox.next().await, Err(Error::Closed));
}

/// More than the inbox and the sockets hold: the client stops reading, and nothing is lost or twice.
#[tokio::test]
async fn a_full_inbox_holds_the_server_back() {
    const MESSAGES: u32 = 4_000;
    let (listener, address) = listen().await;
    let (_client, mut inbox, mut peer) = pair(&listener, &address).await;
    // All before the first is taken, so that one read alone overfills the inbox.
    for seq in 1..=MESSAGES {
        peer.write(&recv(seq)).await;
    }
    let serve = async {
        for seq in 1..=MESSAGES {
            match peer.read().await {
                Some(Frame::Recvack(ack)) => assert_eq!(ack.message_seq, seq),
                other => panic!("{other:?}"),
            }
        }
    };
    let take = async {
        for seq in 1..=MESSAGES {
            match inbox.next().await {
                Ok(Event::Message(m)) => assert_eq!(m.message_seq, seq),
                other => panic!("{other:?}"),
            }
        }
    };
    let both = async { tokio::join!(serve, take) };
    tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .unwrap();
}

#[tokio::test]
async fn nobody_listening_is_no_reason_to_stop() {
    let (listener, address) = listen().await;
    let (client, inbox, mut peer) = pair(&listener, &address).await;
    drop(inbox);
    for seq in 1..=2_000 {
        peer.write(&recv(seq)).await;
    }
    let sent = submit(&client, "still here").await;
    let mut acks = 0;
    let seq = loop {
        match peer.read().await {
            Some(Frame::Recvack(_)) => acks += 1,
            Some(Frame::Send(send)) => break send.client_seq,
            other => panic!("{other:?}"),
        }
    };
    peer.ack(seq, 1).await;
    assert!(sent.await.is_ok());
    while acks < 2_000 {
        assert!(matches!(peer.read().await, Some(Frame::Recvack(_))));
        acks += 1;
    }
}

/// The upgrade and one exchange, with the server's frames and masks made by hand.
#[tokio::test]
async fn websocket_carries_the_same_conversation() {
    let (listener, address) = listen().await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /im HTTP/1.1\r\n"));
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap();
        let accept = accept_of(key.split("\r\n").next().unwrap());
        let answer = format!("HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert!(matches!(unmasked(&mut stream).await, Frame::Connect(_)));
        let mut bytes = BytesMut::new();
        wire::encode(&Frame::Connack(connack(1)), 5, &mut bytes).unwrap();
        wire::encode(&recv(1), 5, &mut bytes).unwrap();
        // Cut where it hurts: one frame over two messages, in one write.
        let (a, b) = bytes.split_at(bytes.len() - 3);
        let mut out = vec![0x82, a.len() as u8];
        out.extend_from_slice(a);
        out.extend_from_slice(&[0x82, b.len() as u8]);
        out.extend_from_slice(b);
        stream.write_all(&out).await.unwrap();
        assert!(matches!(unmasked(&mut stream).await, Frame::Recvack(_)));
    };
    let url = format!("ws://{address}/im");
    let converse = async {
        let (client, mut inbox) = Client::connect(&url, options()).await.unwrap();
        assert!(matches!(inbox.next().await, Ok(Event::Connected { .. })));
        assert!(matches!(inbox.next().await, Ok(Event::Message(m)) if m.payload == "1"));
        client
    };
    tokio::join!(serve, converse);
}

fn accept_of(key: &str) -> String {
    use base64::Engine;
    use sha1::{Digest, Sha1};
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// One short masked message that holds one frame.
async fn unmasked(stream: &mut TcpStream) -> Frame {
    assert_eq!(stream.read_u8().await.unwrap(), 0x82);
    let len = stream.read_u8().await.unwrap();
    assert!((0x80..0x80 + 126).contains(&len), "masked and short");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.unwrap();
    let mut bytes = vec![0; usize::from(len & 0x7F)];
    stream.read_exact(&mut bytes).await.unwrap();
    for (byte, m) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= m;
    }
    wire::decode(&Bytes::from(bytes), 5).unwrap().unwrap().0
}
