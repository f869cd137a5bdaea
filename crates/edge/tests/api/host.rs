//! A node with its API, and the smallest HTTP client that can talk to it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use wk_chat::Policy;
use wk_edge::http::{ApiConfig, Serving, serve};
use wk_proto::NodeId;
use wk_server::Node;
use wk_server::node::{ListenConfig, NodeConfig};

/// A running node with its API.
pub struct Host {
    pub addr: SocketAddr,
    pub node: Node,
    stop: oneshot::Sender<()>,
    serving: Serving,
    _dir: tempfile::TempDir,
}

/// One HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The value of a header; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or_default()
    }
}

impl Host {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut ApiConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::start(node_config(dir.path())).await.unwrap();
        ready(&node).await;
        let mut config = ApiConfig::new(([127, 0, 0, 1], 0).into());
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let serving = serve(node.clone(), config, shutdown).await.unwrap();
        Self {
            addr: serving.addr(),
            node,
            stop,
            serving,
            _dir: dir,
        }
    }

    /// Ends the API, then the node.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.serving.stopped().await;
        self.node.stop().await;
    }

    pub async fn request(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        request(self.addr, line, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let answer = self.request(&format!("GET {path}"), "", b"").await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.post_raw(path, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// The `msg` of a request that must be refused.
    pub async fn refused(&self, path: &str, body: Value) -> String {
        let answer = self.post_raw(path, &body.to_string()).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert_eq!(answer.json()["status"], 400);
        answer.json()["msg"].as_str().unwrap().to_owned()
    }

    pub async fn post_raw(&self, path: &str, body: &str) -> Answer {
        let line = format!("POST {path}");
        self.request(&line, "", body.as_bytes()).await
    }

    /// Sends `text` and gives the seq.
    pub async fn say(&self, from: &str, channel_id: &str, channel_type: u8, text: &str) -> u64 {
        let body = serde_json::json!({
            "from_uid": from, "channel_id": channel_id, "channel_type": channel_type, "payload": text.as_bytes(),
        });
        let sent = self.post("/message/send", body).await;
        assert_eq!(sent["data"]["reason"], 1, "{sent}");
        sent["data"]["message_seq"].as_u64().unwrap()
    }
}

/// One request on a connection of its own.
pub async fn request(addr: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses a long body may close before it is sent.
    let _ = socket.write_all(body).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Waits until every group has a leader.
async fn ready(node: &Node) {
    const LIMIT: Duration = Duration::from_secs(10);
    let leaders = async {
        while !node.readiness().ready {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let in_time = tokio::time::timeout(LIMIT, leaders).await;
    assert!(in_time.is_ok(), "{:?}", node.readiness());
}

fn node_config(dir: &std::path::Path) -> NodeConfig {
    let any = Some(([127, 0, 0, 1], 0).into());
    NodeConfig {
        node: NodeId(1),
        data_dir: dir.to_owned(),
        listen: ListenConfig { tcp: any, ws: None },
        cluster: None,
        policy: Policy::new(),
        session: wk_session::Config {
            node: NodeId(1),
            encryption: true,
            json_rpc: true,
            idle_ms: 180_000,
            handshake_ms: 2_000,
            retry_interval_ms: 60_000,
            retry_max: 5,
            proxy_protocol: false,
        },
        shards: 1,
        connections_max: 100,
    }
}
