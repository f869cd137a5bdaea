//! `wukongim fill`: many messages in an offline data directory, to see how a node with history starts.
//!
//! Runs a node in this process without listeners and gives it the messages as calls: the same log, the same commit, the same
//! checkpoints as in production, only without sockets. The channels are groups without members, so nothing is delivered.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use tokio::task::JoinSet;
use wk_chat::request::Origin;
use wk_chat::{Answer, CallError, Query, Reply, Request, SendRequest, Why};
use wk_proto::{ChannelId, ChannelKey, ChannelType, Flags, MessageSeq, Reason, Uid};
use wk_server::Node;
use wk_store::slot::Dir;

use crate::config::{Given, Settings};
use crate::descriptors::Shares;
use crate::run::node_config;

/// Calls in flight; the node batches what is there at the same time.
const IN_FLIGHT: u64 = 4_096;
/// Attempts of one message before the run is off; the router has parked it for 5 s in each.
const ATTEMPTS_MAX: u32 = 12;
/// Seconds until the node must lead all its groups.
const READY_SECS: u64 = 60;

/// Fill a data directory with messages; its node must not be running.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The data directory (configuration key dataDir)
    #[arg(long)]
    data: PathBuf,
    /// Messages in all
    #[arg(long, default_value_t = 10_000_000)]
    messages: u64,
    /// Group channels they are spread over evenly
    #[arg(long, default_value_t = 10_000)]
    channels: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Leave as kill -9 would: what the last checkpoint does not have is replayed at the next start
    #[arg(long)]
    unclean: bool,
}

/// Runs until all messages are committed.
pub async fn run(args: Args) -> Result<ExitCode> {
    ensure!(args.channels > 0, "--channels must be above 0");
    ensure!(
        args.payload <= wk_proto::limits::PAYLOAD_BYTES_MAX,
        "--payload is over the limit of {} bytes",
        wk_proto::limits::PAYLOAD_BYTES_MAX
    );
    let node = start(&args).await?;
    let start = Instant::now();
    fill(&node, &args).await?;
    let secs = start.elapsed().as_secs_f64();
    let rate = args.messages as f64 / secs;
    eprintln!(
        "fill: {} messages in {secs:.1} s, {rate:.0}/s",
        args.messages
    );
    let newest = newest_seq(&node, channel_key(0)).await?;
    eprintln!(
        "fill: {} now ends at message {newest}",
        channel_key(0).stored_id()
    );
    if args.unclean {
        // No destructor of the node may run.
        std::process::exit(0);
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn start(args: &Args) -> Result<Node> {
    let mut given = Given::default();
    let dir = args.data.to_str().context("--data is not valid text")?;
    given.set_flag("dataDir", "--data", dir);
    let mut config = node_config(&Settings::new(&given)?, &Shares::claim());
    config.listen.tcp = None;
    config.listen.ws = None;
    let node = Node::start(config).await?;
    let limit = Instant::now() + Duration::from_secs(READY_SECS);
    while !node.readiness().ready {
        let readiness = node.readiness();
        ensure!(
            Instant::now() < limit,
            "the node is not ready: {}",
            readiness.waiting_for.join("; ")
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(node)
}

async fn fill(node: &Node, args: &Args) -> Result<()> {
    let run: Arc<str> = format!("{:08x}", rand::random::<u32>()).into();
    let payload = Bytes::from(vec![b'x'; args.payload]);
    let next = Arc::new(AtomicU64::new(0));
    let mut workers: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..IN_FLIGHT.min(args.messages) {
        let (node, run, payload, next) = (node.clone(), run.clone(), payload.clone(), next.clone());
        let Args {
            messages, channels, ..
        } = *args;
        workers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= messages {
                    return Ok(());
                }
                send(&node, message(&run, n, n % channels, payload.clone())).await?;
            }
        });
    }
    let mut every = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                None => return Ok(()),
                Some(result) => result??,
            },
            _ = every.tick() => {
                let given = next.load(Ordering::Relaxed).min(args.messages);
                eprintln!("fill: {given} of {}", args.messages);
            }
        }
    }
}

fn channel_key(n: u64) -> ChannelKey {
    let id = ChannelId::trusted(&format!("fill{n}"));
    ChannelKey::new(id, ChannelType::GROUP)
}

async fn newest_seq(node: &Node, channel: ChannelKey) -> Result<MessageSeq> {
    let query = Query::Messages {
        channel,
        first: MessageSeq(1),
        last: MessageSeq(u64::MAX),
        dir: Dir::Down,
        limit: 1,
    };
    match node.call(Request::Query(Box::new(query))).await? {
        Reply::Answer(answer) => match *answer {
            Answer::Messages(messages) => Ok(messages.last().map_or(MessageSeq(0), |m| m.seq)),
            other => bail!("not an answer to the question: {other:?}"),
        },
        other => bail!("the question was refused: {other:?}"),
    }
}

fn message(run: &str, n: u64, channel: u64, payload: Bytes) -> Request {
    let empty: Arc<str> = "".into();
    Request::Send(Arc::new(SendRequest {
        channel: channel_key(channel),
        from: Uid::trusted(&format!("u{channel}")),
        origin: Origin::Server,
        flags: Flags(Flags::RED_DOT),
        setting: 0,
        expire: 0,
        client_msg_no: format!("{run}-{n:x}").into(),
        topic: empty.clone(),
        stream_no: empty,
        payload,
        recipients: None,
        receiver_allows_strangers: None,
    }))
}

/// A message has a number, so trying again cannot double it.
async fn send(node: &Node, message: Request) -> Result<()> {
    let mut attempt = 1;
    loop {
        match node.call(message.clone()).await {
            Ok(Reply::Sent(result)) if result.reason == Reason::Success => return Ok(()),
            Ok(other) => bail!("a message was refused: {other:?}"),
            Err(CallError::NotSent(Why::Busy) | CallError::Unknown(_))
                if attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
            }
            Err(e) => return Err(anyhow!(e)),
        }
    }
}
