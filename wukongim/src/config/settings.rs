//! The keys that work, typed, with v2's defaults.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use wk_cluster::formation::NodeList;
use wk_proto::NodeId;

use super::{ConfigError, Given, value};

/// What the node runs with.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names are the keys")]
pub struct Settings {
    pub release: bool,
    pub data_dir: PathBuf,
    pub addr: Option<SocketAddr>,
    pub ws_addr: Option<SocketAddr>,
    pub http_addr: SocketAddr,
    pub encryption: bool,
    pub json_rpc: bool,
    pub conn_idle_ms: u64,
    pub external: External,
    pub intranet_tcp_addr: String,
    pub token_auth: bool,
    pub manager_token: Option<Arc<str>>,
    pub manager_uid: Arc<str>,
    pub visitor_suffix: Option<Arc<str>>,
    pub log_level: i64,
    pub whitelist_off_of_person: bool,
    pub disable_command_sync: bool,
    pub retry_interval_ms: u64,
    pub retry_max: u8,
    pub conversations_max: usize,
    pub online_command_channel: Arc<str>,
    pub node_id: u32,
    pub cluster: Option<Cluster>,
    pub api_open: bool,
    pub temp_retention_ms: u64,
    pub shards: usize,
    pub connections_max: usize,
}

/// The nodes of a cluster of more than one.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names are the keys")]
pub struct Cluster {
    pub addr: SocketAddr,
    pub nodes: NodeList,
    pub start_timeout_ms: Option<u64>,
    pub secret: Option<String>,
}

/// Addresses told to clients; empty = derived.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are the keys")]
pub struct External {
    pub ip: String,
    pub tcp_addr: String,
    pub ws_addr: String,
    pub wss_addr: String,
    pub manager_addr: String,
    pub api_url: String,
}

impl Settings {
    /// Types what was given and fills in the defaults.
    pub fn new(given: &Given) -> Result<Self, ConfigError> {
        let read = Read(given);
        let home = std::env::var("HOME").unwrap_or_else(|_| ".".to_owned());
        let root_dir = PathBuf::from(read.text("rootDir", &format!("{home}/wukongim")));
        let data_dir = match read.text("dataDir", "").as_str() {
            "" => root_dir.join("data"),
            dir => PathBuf::from(dir),
        };
        let stress = read.bool("stress", false);
        let visitors = read.bool("customerService.visitorsOn", false);
        let suffix = read.text("customerService.visitorsSuffix", "___vstr");
        let manager_token = read.text("managerToken", "");
        let node_id = read.int("cluster.nodeId", 1001, 1, i64::from(u32::MAX))? as u32;
        Ok(Self {
            // Without a mode v2 runs in debug, which floods its log; ours defaults to release (operations 1.4).
            release: !matches!(read.text("mode", "release").as_str(), "debug" | "test"),
            data_dir,
            addr: read.listener("addr", "tcp://0.0.0.0:5100")?,
            ws_addr: read.listener("wsAddr", "ws://0.0.0.0:5200")?,
            http_addr: read
                .listener("httpAddr", "0.0.0.0:5001")?
                .ok_or_else(|| ConfigError("httpAddr must not be empty".to_owned()))?,
            encryption: !read.bool("disableEncryption", false),
            json_rpc: !read.bool("disableJSONRPC", false),
            conn_idle_ms: read.duration("connIdleTime", 180_000),
            external: External {
                ip: read.text("external.ip", ""),
                tcp_addr: read.text("external.tcpAddr", ""),
                ws_addr: read.text("external.wsAddr", ""),
                wss_addr: read.text("external.wssAddr", ""),
                manager_addr: read.text("external.managerAddr", ""),
                api_url: read.text("external.apiUrl", ""),
            },
            intranet_tcp_addr: read.text("intranet.tcpAddr", ""),
            token_auth: read.bool("tokenAuthOn", false) && !stress,
            manager_token: (!manager_token.trim().is_empty()).then(|| manager_token.into()),
            manager_uid: read
                .text("managerUID", wk_proto::channel::MANAGER_UID)
                .into(),
            visitor_suffix: visitors.then(|| suffix.into()),
            log_level: read.int("logger.level", 0, 0, 7)?,
            whitelist_off_of_person: read.bool("whitelistOffOfPerson", true),
            disable_command_sync: read.bool("disableCMDMessageSync", false),
            retry_interval_ms: read.duration("messageRetry.interval", 60_000),
            retry_max: read.int("messageRetry.maxCount", 5, 0, 255)? as u8,
            conversations_max: read.int("conversation.userMaxCount", 1_000, 1, 50_000)? as usize,
            online_command_channel: read
                .text(
                    "channel.onlineCmdChannelId",
                    wk_proto::channel::ONLINE_COMMAND_CHANNEL,
                )
                .into(),
            node_id,
            cluster: read.cluster(NodeId(node_id))?,
            api_open: read.bool("api.openToNetwork", false),
            temp_retention_ms: read.duration("cmd.tempRetention", 30 * 24 * 3_600_000),
            shards: read.int("shards", 0, 0, 1_024)? as usize,
            connections_max: read.int("connectionsMax", 0, 0, 100_000_000)? as usize,
        })
    }
}

struct Read<'a>(&'a Given);

impl Read<'_> {
    fn text(&self, key: &str, default: &str) -> String {
        self.0
            .get(key)
            .map_or_else(|| default.to_owned(), |e| e.value.clone())
    }

    fn bool(&self, key: &str, default: bool) -> bool {
        self.0
            .get(key)
            .and_then(|e| value::bool(&e.value))
            .unwrap_or(default)
    }

    fn duration(&self, key: &str, default_ms: u64) -> u64 {
        self.0
            .get(key)
            .and_then(|e| value::duration_ms(&e.value))
            .unwrap_or(default_ms)
    }

    fn int(&self, key: &str, default: i64, min: i64, max: i64) -> Result<i64, ConfigError> {
        let Some(entry) = self.0.get(key) else {
            return Ok(default);
        };
        let number = entry.value.parse().unwrap_or(i64::MIN);
        if (min..=max).contains(&number) {
            return Ok(number);
        }
        let (source, given) = (&entry.source, &entry.value);
        Err(ConfigError(format!(
            "{source}: {key} must be between {min} and {max}, not {given}"
        )))
    }

    /// With `cluster.initNodes` the node has peers, or will have.
    fn cluster(&self, node: NodeId) -> Result<Option<Cluster>, ConfigError> {
        let Some(listed) = self.0.get("cluster.initNodes") else {
            return Ok(None);
        };
        let entries: Vec<&str> = listed.value.split_whitespace().collect();
        let addr = self
            .listener("cluster.addr", "tcp://0.0.0.0:11110")?
            .ok_or_else(|| ConfigError("cluster.addr must not be empty".to_owned()))?;
        let reached = match self.text("cluster.serverAddr", "").as_str() {
            "" => addr.to_string(),
            given => given.trim_start_matches("tcp://").to_owned(),
        };
        let wrong = |error| ConfigError(format!("{}: {error}", listed.source));
        let nodes = NodeList::parse(&entries, node, &reached).map_err(wrong)?;
        let secret = self.text("cluster.secret", "");
        let limit = self.duration("cluster.startTimeout", 0);
        Ok(Some(Cluster {
            addr,
            nodes,
            start_timeout_ms: (limit > 0).then_some(limit),
            secret: (!secret.is_empty()).then_some(secret),
        }))
    }

    /// `scheme://host:port` or `host:port`; an empty text in the file turns the listener off.
    fn listener(&self, key: &str, default: &str) -> Result<Option<SocketAddr>, ConfigError> {
        let given = self.0.iter().find(|(k, _)| k.name == key).map(|(_, e)| e);
        if given.is_some_and(|e| e.value.is_empty()) {
            return Ok(None);
        }
        let text = given.map_or(default, |e| e.value.as_str());
        let host = text
            .split_once("://")
            .map_or(text, |(_, rest)| rest)
            .trim_end_matches('/');
        let host = if host.starts_with(':') {
            format!("0.0.0.0{host}")
        } else {
            host.to_owned()
        };
        let found = host.to_socket_addrs().ok().and_then(|mut all| all.next());
        let source = given.map_or("default", |e| e.source.as_str());
        found.map(Some).ok_or_else(|| {
            ConfigError(format!(
                "{source}: {key} must be an address like 0.0.0.0:5100, not \"{text}\""
            ))
        })
    }
}
