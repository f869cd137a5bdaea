//! A node on free ports in a temporary directory, and a client that speaks WKProto over TCP or WebSocket.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wk_chat::Policy;
use wk_chat::request::{ChannelFlags, SetChange};
use wk_chat::{Reply, Request, Write};
use wk_proto::crypto::{self, Cipher, SendSign};
use wk_proto::frame::{Connack, Connect, Frame, Recv, Recvack, Send, Sendack};
use wk_proto::{ChannelId, ChannelKey, ChannelType, Flags, NodeId, Uid, wire};
use wk_server::{ListenConfig, Node, NodeConfig};
use wk_session::Config;

/// Longest any step of a test may take: far above what it does take.
pub const PATIENCE: Duration = Duration::from_secs(10);

const VERSION: u8 = 5;

pub fn config(dir: &Path) -> NodeConfig {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    NodeConfig {
        node: NodeId(1),
        data_dir: dir.to_owned(),
        listen: ListenConfig {
            tcp: Some(any),
            ws: Some(any),
        },
        cluster: None,
        policy: Policy {
            slot_count: 4,
            ..Policy::new()
        },
        session: Config {
            node: NodeId(1),
            encryption: false,
            json_rpc: true,
            idle_ms: 180_000,
            handshake_ms: 2_000,
            retry_interval_ms: 60_000,
            retry_max: 5,
            proxy_protocol: false,
        },
        shards: 2,
        connections_max: 10_000,
    }
}

pub async fn start(config: NodeConfig) -> Node {
    let node = Node::start(config).await.unwrap();
    until(|| node.readiness().ready).await;
    node
}

/// Waits for something that happens by itself.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("never happened");
}

pub fn uid(name: &str) -> Uid {
    Uid::parse(name).unwrap()
}

pub fn group(id: &str) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(id), ChannelType::GROUP)
}

pub async fn write(node: &Node, write: Write) {
    let reply = node.call(Request::Write(Box::new(write))).await;
    assert_eq!(reply, Ok(Reply::Done));
}

pub async fn make_group(node: &Node, id: &str, members: &[&str]) {
    write(
        node,
        Write::SetChannel {
            channel: group(id),
            flags: ChannelFlags::default(),
            create_only: false,
        },
    )
    .await;
    let uids = members.iter().map(|name| uid(name)).collect();
    set_members(node, id, SetChange::Add(uids)).await;
}

pub async fn set_members(node: &Node, id: &str, change: SetChange) {
    let channel = group(id);
    write(node, Write::Members { channel, change }).await;
}

pub struct Client {
    socket: TcpStream,
    ws: bool,
    /// What came from the socket and is not unwrapped.
    pub raw: BytesMut,
    frames: BytesMut,
    next_seq: u32,
    cipher: Option<Cipher>,
}

/// The private key of every encrypting test client.
const PRIVATE: [u8; 32] = [42; 32];

impl Client {
    pub async fn tcp(node: &Node) -> Self {
        Self::open(node.listening().tcp.unwrap(), false).await
    }

    pub async fn ws(node: &Node) -> Self {
        let mut client = Self::open(node.listening().ws.unwrap(), true).await;
        client
            .socket
            .write_all(
                b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )
            .await
            .unwrap();
        loop {
            if let Some(end) = client.raw.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = client.raw.split_to(end + 4);
                assert!(head.starts_with(b"HTTP/1.1 101 "));
                return client;
            }
            assert!(client.fill().await, "the upgrade was refused");
        }
    }

    async fn open(addr: SocketAddr, ws: bool) -> Self {
        Self {
            socket: TcpStream::connect(addr).await.unwrap(),
            ws,
            raw: BytesMut::new(),
            frames: BytesMut::new(),
            next_seq: 1,
            cipher: None,
        }
    }

    /// Connects as `name` and returns what CONNACK said.
    pub async fn hello(&mut self, name: &str, device: &str) -> Connack {
        self.hello_with(name, device, "").await
    }

    pub async fn hello_with(&mut self, name: &str, device: &str, token: &str) -> Connack {
        self.send_frame(&Frame::Connect(Connect {
            version: VERSION,
            device_id: Bytes::copy_from_slice(device.as_bytes()),
            uid: Bytes::copy_from_slice(name.as_bytes()),
            token: Bytes::copy_from_slice(token.as_bytes()),
            client_timestamp: 1,
            client_key: Bytes::copy_from_slice(&crypto::public_key(&PRIVATE)),
            ..Connect::default()
        }))
        .await;
        match self.frame().await {
            Some(Frame::Connack(connack)) => {
                if !connack.server_key.is_empty() {
                    let secret = crypto::agree(&PRIVATE, &connack.server_key).unwrap();
                    let salt = connack.salt[..].try_into().unwrap();
                    self.cipher = Some(Cipher::new(&secret, salt));
                }
                connack
            }
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// A client that is connected as `name`.
    pub async fn login(node: &Node, name: &str) -> Self {
        let mut client = Self::tcp(node).await;
        assert_eq!(client.hello(name, name).await.reason_code, 1);
        client
    }

    pub async fn send_frame(&mut self, frame: &Frame) {
        let mut bytes = BytesMut::new();
        wire::encode(frame, VERSION, &mut bytes).unwrap();
        self.write(&bytes).await;
    }

    /// Past any framing.
    pub async fn write_raw(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        if self.ws {
            let masked = masked(bytes);
            self.socket.write_all(&masked).await.unwrap();
        } else {
            self.socket.write_all(bytes).await.unwrap();
        }
    }

    /// Sends without waiting for the SENDACK; returns the client_seq.
    pub async fn post(&mut self, channel: &str, kind: ChannelType, text: &str) -> u32 {
        let flags = Flags(Flags::RED_DOT);
        self.post_with(flags, channel, kind, text).await
    }

    pub async fn post_with(
        &mut self,
        flags: Flags,
        channel: &str,
        kind: ChannelType,
        text: &str,
    ) -> u32 {
        let client_seq = self.next_seq;
        self.next_seq += 1;
        let mut send = Send {
            flags,
            client_seq,
            client_msg_no: format!("no-{client_seq}").into(),
            channel_id: Bytes::copy_from_slice(channel.as_bytes()),
            channel_type: kind.0,
            payload: Bytes::copy_from_slice(text.as_bytes()),
            ..Send::default()
        };
        if let Some(cipher) = &self.cipher {
            let mut sealed = BytesMut::new();
            cipher.encrypt_payload(&send.payload, &mut sealed);
            send.payload = sealed.freeze();
            let key = cipher.send_msg_key(&SendSign::of(&send));
            send.msg_key = Bytes::copy_from_slice(&key);
        }
        self.send_frame(&Frame::Send(send)).await;
        client_seq
    }

    /// Sends to a user and waits for the SENDACK.
    pub async fn say(&mut self, to: &str, text: &str) -> Sendack {
        self.post(to, ChannelType::PERSON, text).await;
        self.sendack().await
    }

    pub async fn sendack(&mut self) -> Sendack {
        match self.frame().await {
            Some(Frame::Sendack(ack)) => ack,
            other => panic!("no SENDACK: {other:?}"),
        }
    }

    /// The next message, decrypted and acknowledged.
    pub async fn recv(&mut self) -> Recv {
        let mut recv = match self.frame().await {
            Some(Frame::Recv(recv)) => recv,
            other => panic!("no RECV: {other:?}"),
        };
        self.send_frame(&Frame::Recvack(Recvack {
            flags: recv.flags,
            message_id: recv.message_id,
            message_seq: recv.message_seq,
        }))
        .await;
        if let Some(cipher) = &self.cipher {
            let mut plain = BytesMut::new();
            cipher.decrypt_payload(&recv.payload, &mut plain).unwrap();
            recv.payload = plain.freeze();
        }
        recv
    }

    /// The server answers and has nothing else to say: whatever it had for this client is processed.
    pub async fn is_quiet(&mut self) {
        self.send_frame(&Frame::Ping).await;
        assert_eq!(self.frame().await, Some(Frame::Pong));
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(len) = wire::frame_len(&self.frames).unwrap()
                && len <= self.frames.len()
            {
                let bytes = self.frames.split_to(len).freeze();
                let (frame, _) = wire::decode(&bytes, VERSION).unwrap().unwrap();
                return Some(frame);
            }
            if !self.unwrap_one() && !self.fill().await {
                return None;
            }
        }
    }

    /// Waits until the server has closed the connection.
    pub async fn ended(&mut self) {
        while self.fill().await {}
    }

    /// Reads some; false at the end.
    pub async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.raw));
        matches!(read.await.expect("the server is silent"), Ok(n) if n > 0)
    }

    /// Moves bytes of a message from the socket to the frames; false: nothing to move.
    fn unwrap_one(&mut self) -> bool {
        if !self.ws {
            let moved = !self.raw.is_empty();
            self.frames.unsplit(self.raw.split());
            return moved;
        }
        let [first, second, ..] = self.raw[..] else {
            return false;
        };
        assert!(second < 126, "the tests' messages are short");
        let len = usize::from(second);
        if self.raw.len() < 2 + len || first != 0x82 {
            return false;
        }
        self.raw.advance(2);
        let payload = self.raw.split_to(len);
        self.frames.extend_from_slice(&payload);
        true
    }
}

fn masked(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mask = [1, 2, 3, 4];
    let mut out = vec![0x82, 0x80 | payload.len() as u8];
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    out
}
