//! One node: from settings to parts, until a signal.

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use wk_edge::http::{Addresses, ApiConfig, Build};
use wk_proto::{NodeId, Uid};
use wk_server::{ClusterConfig, ListenConfig, Node, NodeConfig, StartError};

use crate::config::{Effect, Given, Settings};
use crate::descriptors::Shares;
use crate::secrets::{Loaded, Secrets};
use crate::{EXIT_CONFIG, EXIT_NOT_READY, Failure};

/// Runs until SIGINT or SIGTERM, or until the node cannot go on.
pub fn run(given: &Given, settings: Settings) -> Result<ExitCode, Failure> {
    start_log(&settings);
    let started = Instant::now();
    for line in notices(given, &settings) {
        tracing::warn!("{line}");
    }
    let shares = Shares::claim();
    if let Some(line) = shares.notice(settings.connections_max) {
        tracing::warn!("{line}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?;
    let ended = runtime.block_on(serve(settings, shares, started));
    // Not waiting for a directory that is still being opened: it recovers at the next start as after any other end.
    runtime.shutdown_background();
    ended
}

/// What an operator should hear before the start: keys without effect, and everything that is open to the network.
pub fn notices(given: &Given, settings: &Settings) -> Vec<String> {
    let mut lines = given.warnings.clone();
    let with = |effect: Effect| -> Vec<&str> {
        given
            .iter()
            .filter(|(k, _)| k.effect == effect)
            .map(|(k, _)| k.name)
            .collect()
    };
    for (names, what) in [
        (with(Effect::NotYet), "not supported yet"),
        (with(Effect::Dead), "without effect here"),
    ] {
        if !names.is_empty() {
            lines.push(format!("configuration keys {what}: {}", names.join(", ")));
        }
    }
    if let Some(cluster) = &settings.cluster {
        lines.extend(cluster.nodes.warnings.iter().cloned());
        if cluster.secret.is_none() {
            lines.push(
                "nodes know each other by address only (cluster.secret is not set)".to_owned(),
            );
        }
    }
    let reachable = |addr: Option<SocketAddr>| addr.is_some_and(|a| !a.ip().is_loopback());
    if !settings.token_auth && (reachable(settings.addr) || reachable(settings.ws_addr)) {
        lines.push("clients connect without a token (tokenAuthOn is false) and the client ports are open to the network".to_owned());
    }
    if settings.api_open && settings.manager_token.is_none() {
        lines.push("the HTTP API answers everybody (api.openToNetwork is true and managerToken is not set)".to_owned());
    }
    lines
}

/// What ends a node on purpose.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::runtime);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(settings: Settings, shares: Shares, started: Instant) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let node = tokio::select! {
        node = Node::start(node_config(&settings, &shares)) => node.map_err(|e| start_failure(&settings, e))?,
        // Recovery can take a while; nothing was accepted yet.
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    let secrets =
        Secrets::load_or_create(&settings.data_dir.join("wukongim")).map_err(secrets_failure)?;
    let (stop_api, stopping) = tokio::sync::oneshot::channel::<()>();
    let api = wk_edge::http::serve(
        node.clone(),
        api_config(&settings, &shares, &node, &secrets),
        async {
            let _ = stopping.await;
        },
    )
    .await
    .map_err(|e| {
        Failure::runtime(format!(
            "cannot listen on {}: {e} (httpAddr)",
            settings.http_addr
        ))
    })?;
    wait_ready(&node).await;
    greet(&settings, &node, api.addr(), &secrets, started);

    let failed = tokio::select! {
        () = signals.next() => None,
        why = node.failed() => Some(why),
    };
    if failed.is_none() {
        tracing::info!("stopping");
    }
    let _ = stop_api.send(());
    tokio::join!(api.stopped(), node.stop());
    match failed {
        Some(message) if node.has_given_up() => Err(Failure {
            message,
            code: EXIT_NOT_READY,
        }),
        Some(why) => Err(Failure::runtime(format!(
            "{why}; nothing acknowledged is lost, start it again when the cause is gone"
        ))),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// A single node is ready within milliseconds; the greeting tells the truth either way.
async fn wait_ready(node: &Node) {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);
    const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(5);
    let end = Instant::now() + PATIENCE;
    while !node.readiness().ready && Instant::now() < end {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a node runs with.
pub fn node_config(settings: &Settings, shares: &Shares) -> NodeConfig {
    let mut policy = wk_chat::Policy::new();
    policy.token_auth = settings.token_auth;
    policy.manager_uid = Uid::trusted(&settings.manager_uid);
    policy.manager_token = settings.manager_token.clone();
    policy.visitor_suffix = settings.visitor_suffix.clone();
    policy.whitelist_off_of_person = settings.whitelist_off_of_person;
    policy.temp_retention_ms = settings.temp_retention_ms;
    NodeConfig {
        node: NodeId(settings.node_id),
        data_dir: settings.data_dir.clone(),
        listen: ListenConfig {
            tcp: settings.addr,
            ws: settings.ws_addr,
        },
        cluster: settings.cluster.as_ref().map(|cluster| ClusterConfig {
            addr: cluster.addr,
            nodes: cluster.nodes.nodes.clone(),
            start_timeout_ms: cluster.start_timeout_ms,
            secret: cluster.secret.clone(),
        }),
        policy,
        session: wk_session::Config {
            node: NodeId(settings.node_id),
            encryption: settings.encryption,
            json_rpc: settings.json_rpc,
            idle_ms: settings.conn_idle_ms,
            handshake_ms: HANDSHAKE_MS,
            retry_interval_ms: settings.retry_interval_ms,
            retry_max: settings.retry_max,
            proxy_protocol: true,
        },
        shards: settings.shards,
        connections_max: match settings.connections_max {
            0 => shares.clients,
            given => given.min(shares.clients),
        },
    }
}

/// Wire-protocol 11.1: until the first complete frame.
const HANDSHAKE_MS: u64 = 2_000;

fn api_config(settings: &Settings, shares: &Shares, node: &Node, secrets: &Loaded) -> ApiConfig {
    let listening = node.listening();
    let external = &settings.external;
    let host = if external.ip.is_empty() {
        own_address().to_string()
    } else {
        external.ip.clone()
    };
    let derive = |given: &str, scheme: &str, port: Option<u16>| match port {
        _ if !given.is_empty() => given.to_owned(),
        Some(port) => format!("{scheme}{host}:{port}"),
        None => String::new(),
    };
    let mut config = ApiConfig::new(settings.http_addr);
    config.manager_token = settings
        .manager_token
        .as_deref()
        .unwrap_or_default()
        .to_owned();
    config.api_token = secrets.secrets.api_token.clone();
    config.open_to_network = settings.api_open;
    config.connections_max = shares.api;
    config.mode = if settings.release { "release" } else { "debug" }.to_owned();
    config.addresses = Addresses {
        tcp: derive(&external.tcp_addr, "", listening.tcp.map(|a| a.port())),
        ws: derive(&external.ws_addr, "ws://", listening.ws.map(|a| a.port())),
        wss: external.wss_addr.clone(),
        manager: external.manager_addr.clone(),
        api: derive(
            &external.api_url,
            "http://",
            Some(settings.http_addr.port()),
        ),
        intranet_tcp: settings.intranet_tcp_addr.clone(),
    };
    config.build = Build {
        version: env!("CARGO_PKG_VERSION"),
        ..Build::default()
    };
    config.service.command_sync_off = settings.disable_command_sync;
    config.service.conversations_per_user_max = settings.conversations_max;
    config.service.online_command_channel = Arc::clone(&settings.online_command_channel);
    config
}

/// The address this machine would use to reach the network; nothing is sent.
fn own_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        // TEST-NET-1: never routed, but it selects the interface of the default route.
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

fn start_failure(settings: &Settings, error: StartError) -> Failure {
    match &error {
        StartError::Directory(_) | StartError::Cluster(_) => Failure {
            message: error.to_string(),
            code: EXIT_CONFIG,
        },
        StartError::Listen { addr, .. } => {
            let cluster = settings.cluster.as_ref().map(|cluster| cluster.addr);
            let key = if Some(*addr) == settings.addr {
                "addr"
            } else if Some(*addr) == cluster {
                "cluster.addr"
            } else {
                "wsAddr"
            };
            Failure::runtime(format!("{error} ({key})"))
        }
        StartError::Store(_) | StartError::System(_) => Failure::runtime(error),
    }
}

/// A damaged file stays damaged; the system may be in a better mood later.
fn secrets_failure(error: anyhow::Error) -> Failure {
    let is_damaged = error.downcast_ref::<serde_json::Error>().is_some();
    Failure {
        message: format!("{error:#}"),
        code: if is_damaged { EXIT_CONFIG } else { 1 },
    }
}

fn start_log(settings: &Settings) {
    let level = match settings.log_level {
        1 => "debug",
        3 => "warn",
        4.. => "error",
        _ if settings.release => "info",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| {
        tracing_subscriber::EnvFilter::new(format!("{level},hyper=warn,raft=warn"))
    });
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written (full disk, reader gone) is lost; reporting that on the same stream would panic.
        .log_internal_errors(false)
        .try_init();
}

/// The first lines an operator reads: where everything is, and one thing to try.
fn greet(settings: &Settings, node: &Node, api: SocketAddr, secrets: &Loaded, started: Instant) {
    let text = greeting(settings, node, api, secrets, started);
    // A reader that has gone (`| head`) or a full disk behind it is no reason not to serve.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn greeting(
    settings: &Settings,
    node: &Node,
    api: SocketAddr,
    secrets: &Loaded,
    started: Instant,
) -> String {
    let readiness = node.readiness();
    let state = if readiness.ready {
        format!("ready in {:.2} s", started.elapsed().as_secs_f64())
    } else {
        format!("waiting: {}", readiness.waiting_for.join("; "))
    };
    let listening = node.listening();
    let shown = |scheme: &str, addr: Option<SocketAddr>| {
        addr.map_or_else(|| "off".to_owned(), |a| format!("{scheme}{a}"))
    };
    let data = settings.data_dir.join("wukongim");
    let data = std::fs::canonicalize(&data).unwrap_or(data);
    let mut text = format!(
        "WuKongIM {} · node {} · {state}\n  clients   {}   {}\n  HTTP API  http://{api}\n  data      {}\n",
        env!("CARGO_PKG_VERSION"),
        settings.node_id,
        shown("tcp://", listening.tcp),
        shown("ws://", listening.ws),
        data.display()
    );
    if secrets.fresh {
        let made = &secrets.secrets;
        text += &format!(
            "  manager   user admin, password {}\n  API token {}   (header \"token\", for requests from other machines)\n            \
             both are shown this once and kept in {}\n",
            made.manager_password,
            made.api_token,
            secrets.path.display()
        );
    }
    let port = api.port();
    text += &format!(
        "  try       curl http://127.0.0.1:{port}/message/send -d '{{\"from_uid\":\"alice\",\"channel_id\":\"bob\",\"channel_type\":1,\"payload\":\"aGVsbG8=\"}}'\n"
    );
    text
}
