//! From a configuration to a running node: what is opened and created, and what is started. How it ends: [`crate::running`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use wk_chat::control::Secret;
use wk_chat::{Answer, Query, Reply, Request};
use wk_cluster::formation::{Held, ListError, NodeList, Pledge, Setup};
use wk_proto::{GroupId, ReplicaId};
use wk_replica::{Group, Shard, ShardConfig, membership};
use wk_session::Transport;
use wk_store::home::{Home, OnV2Data, Owner};
use wk_store::{Disk, Frozen, Recovered, ReplicaMeta, Store, Wal, WalOptions};

use crate::checkpoint_thread::CheckpointThread;
use crate::clock::Clock;
use crate::delivery::Worker;
use crate::former::{self, Founder};
use crate::founding;
use crate::gateway::{Gateway, accept_all, bind};
use crate::held;
use crate::hub::wake_all;
use crate::limits::{READ_THREADS, SUMMARY_MS};
use crate::node::{ListenConfig, NodeConfig, StartError};
use crate::parts::Parts;
use crate::peer::{self, Own, Purpose};
use crate::route::{self, shard_of};
use crate::running::{Part, Running};
use crate::shard_thread::ShardThread;
use crate::timers;
use crate::wal_thread::WalThread;

/// What the disk holds.
struct Opened {
    home: Home,
    disk: Arc<dyn Disk>,
    store: Store,
    wal: Wal,
    groups: Vec<Group>,
    /// Without one, the node was founded alone.
    setup: Option<Setup>,
}

/// Starts a node.
pub(crate) async fn start(
    config: NodeConfig,
) -> Result<(Arc<Parts>, Running, ListenConfig), StartError> {
    check_cluster(&config)?;
    let (listeners, listening) = bind_all(&config.listen).await?;
    let mut peers = None;
    if let Some(cluster) = &config.cluster {
        peers = Some(listen(cluster.addr).await?.0);
    }
    let opening = config.clone();
    let opening = move || {
        let home = open_home(&opening)?;
        let disk = home.disk();
        open(&opening, home, disk)
    };
    let opened = tokio::task::spawn_blocking(opening)
        .await
        .map_err(|error| StartError::System(format!("opening the data directory: {error}")))??;
    let (parts, mut running) = launch(config, opened)?;
    meet_peers(&parts, peers, &mut running);
    accept(&parts, listeners, &mut running);
    Ok((parts, running, listening))
}

fn check_cluster(config: &NodeConfig) -> Result<(), StartError> {
    let Some(cluster) = &config.cluster else {
        return Ok(());
    };
    if !cluster.nodes.contains_key(&config.node) {
        return Err(StartError::Cluster(format!(
            "the list of nodes does not name this node, {}",
            config.node
        )));
    }
    if cluster.secret.as_ref().is_some_and(String::is_empty) {
        return Err(StartError::Cluster("the secret is empty".to_owned()));
    }
    Ok(())
}

/// Starts the listener for peers, and the dialling of those with larger numbers.
fn meet_peers(parts: &Arc<Parts>, listener: Option<TcpListener>, running: &mut Running) {
    if let Some(listener) = listener {
        running.task(peer::accept_all(parts.clone(), listener));
    }
    let larger = parts.mesh.nodes().filter(|node| *node > parts.config.node);
    for node in larger {
        for purpose in Purpose::ALL {
            running.task(peer::dial(parts.clone(), node, purpose));
        }
    }
    if parts.mesh.has_peers() {
        running.task(peer::beat(parts.clone()));
    }
}

type Listeners = Vec<(TcpListener, Transport)>;

async fn bind_all(config: &ListenConfig) -> Result<(Listeners, ListenConfig), StartError> {
    let mut listeners = Vec::new();
    let mut bound = config.clone();
    let wanted = [
        (&mut bound.tcp, Transport::Tcp),
        (&mut bound.ws, Transport::WebSocket),
    ];
    for (addr, kind) in wanted {
        if let Some(addr) = addr {
            let (listener, real) = listen(*addr).await?;
            *addr = real;
            listeners.push((listener, kind));
        }
    }
    Ok((listeners, bound))
}

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    bind(addr)
        .await
        .map_err(|source| StartError::Listen { addr, source })
}

fn open_home(config: &NodeConfig) -> Result<Home, StartError> {
    let owner = Owner {
        node: config.node,
        disk_uuid: rand::random(),
        now: Clock::new().wall(),
        on_v2_data: OnV2Data::Refuse,
    };
    Home::open(&config.data_dir, &owner).map_err(|error| StartError::Directory(error.to_string()))
}

/// Opens what the disk holds; on an empty one, founds what the configuration says.
fn open(config: &NodeConfig, home: Home, disk: Arc<dyn Disk>) -> Result<Opened, StartError> {
    let store = Store::open(disk.clone())?;
    let (wal, recovered) = Wal::open(disk.clone(), WalOptions::default())?;
    let slot_count = config.policy.slot_count;
    let mut replicas = store.replicas()?;
    let held = held::load(&*disk).map_err(|error| StartError::Directory(error.to_string()))?;
    let setup = setup(config, &home, held, !replicas.is_empty())?;
    if replicas.is_empty() && setup.is_none() {
        store.create(&founding::replicas(config.node, slot_count))?;
        replicas = store.replicas()?;
    }
    if setup.is_none() && replicas.len() != usize::from(slot_count) + 1 {
        return Err(StartError::Directory(format!(
            "{} holds {} slots, the configuration says {slot_count}; the number of slots is fixed when the cluster is founded",
            home.path().display(),
            replicas.len().saturating_sub(1),
        )));
    }
    let mut recovered: BTreeMap<ReplicaId, Recovered> = recovered.into_iter().collect();
    let groups = replicas.into_iter().map(|meta| {
        let log = recovered.remove(&meta.replica).unwrap_or_default();
        group(&store, meta, log)
    });
    let groups = groups.collect::<Result<_, StartError>>()?;
    Ok(Opened {
        home,
        disk,
        store,
        wal,
        groups,
        setup,
    })
}

/// What a node with a list of nodes forms its cluster with; `None`: it is alone.
fn setup(
    config: &NodeConfig,
    home: &Home,
    held: Option<Held>,
    has_replicas: bool,
) -> Result<Option<Setup>, StartError> {
    let Some(cluster) = &config.cluster else {
        return match held {
            None => Ok(None),
            Some(_) => Err(StartError::Cluster(format!(
                "{} is part of a cluster, and cluster.initNodes is empty",
                home.path().display()
            ))),
        };
    };
    if held.is_none() && has_replicas {
        return Err(StartError::Cluster(format!(
            "{} was founded as a cluster of one, which cannot be joined by others yet; remove cluster.initNodes, or give this node another dataDir",
            home.path().display()
        )));
    }
    let list = NodeList {
        nodes: cluster.nodes.clone(),
        warnings: Vec::new(),
    };
    let wrong = |error: ListError| StartError::Cluster(error.to_string());
    let pledge = Pledge::new(&list, config.policy.slot_count, REPLICAS, REPLICAS).map_err(wrong)?;
    Ok(Some(Setup {
        node: config.node,
        disk_uuid: home.identity().disk_uuid,
        // Later starts are larger, as long as the clock is not set back by more than a start takes.
        incarnation: Clock::new().wall().0,
        held: held.unwrap_or_default(),
        list,
        pledge,
        seed: None,
        start_timeout_ms: cluster.start_timeout_ms,
        cluster_id: rand::random::<u128>().max(1),
        secret: Secret(rand::random()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// Replicas of a slot, or fewer if there are fewer nodes: v2's default.
const REPLICAS: u16 = 3;

fn own(config: &NodeConfig, home: &Home) -> Own {
    let secret = config.cluster.as_ref().and_then(|c| c.secret.as_ref());
    Own {
        node: config.node,
        cluster: home.identity().cluster_id.unwrap_or_default(),
        disk: home.identity().disk_uuid,
        incarnation: rand::random(),
        secret: secret.map(|text| text.as_bytes().to_vec()),
    }
}

pub(crate) fn group(store: &Store, meta: ReplicaMeta, log: Recovered) -> Result<Group, StartError> {
    let voters = membership::decode(&meta.membership).ok_or_else(|| wk_store::Error::Corrupt {
        what: format!("membership of replica {}", meta.replica),
        why: "not what this version writes".to_owned(),
    })?;
    Ok(Group {
        group: meta.group,
        replica: meta.replica,
        voters,
        store: store.slot(meta.replica)?,
        applied_term: meta.applied_term,
        log,
    })
}

/// Shard threads by default: one per core, and never more than groups.
fn shard_count(configured: usize, groups: usize) -> usize {
    let wanted = match configured {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    wanted.clamp(1, groups)
}

/// Builds everything and starts the threads and tasks.
fn launch(config: NodeConfig, opened: Opened) -> Result<(Arc<Parts>, Running), StartError> {
    let Opened {
        home,
        disk,
        store,
        wal,
        groups,
        setup,
    } = opened;
    let shards = shard_count(config.shards, usize::from(config.policy.slot_count) + 1);
    let own = own(&config, &home);
    let is_forming = setup.is_some();
    let (parts, wakes) = Parts::new(config, own, setup, shards);
    let parts = Arc::new(parts);
    parts.wal.set_used(wal.usage().0);
    let (asks, asked) = mpsc::channel();
    let (frozen, froze) = mpsc::channel();
    let hurry = Arc::new(AtomicBool::new(false));
    // The lock of the directory: given up when the last thread that writes has ended.
    let home = Arc::new(Mutex::new(home));
    let store = Arc::new(store);
    let control = groups.iter().find(|g| g.group == GroupId::Control);
    let founder = Founder {
        parts: parts.clone(),
        store: store.clone(),
        disk: disk.clone(),
        home: home.clone(),
        summary_at: parts.clock.now().plus_ms(SUMMARY_MS),
        cluster: control.and_then(|g| former::cluster_of(&g.store.view())),
        running: groups.iter().map(|g| g.replica).collect(),
    };
    let mut running = Running::new(parts.clone(), asks, hurry.clone());
    for thread in shard_threads(&parts, groups, &frozen) {
        let name = format!("shard-{}", thread.number);
        running.thread(Part::Shard, name, move || thread.run())?;
    }
    let thread = WalThread {
        wal,
        parts: parts.clone(),
    };
    let lock = home.clone();
    running.thread(Part::Wal, "wal".to_owned(), move || {
        thread.run();
        drop(lock);
    })?;
    let thread = CheckpointThread {
        store,
        disk,
        parts: parts.clone(),
        asks: asked,
        frozen: froze,
        hurry,
    };
    running.thread(Part::Checkpoint, "checkpoint".to_owned(), move || {
        thread.run();
        drop(home);
    })?;
    helpers(&parts, &mut running)?;
    if is_forming {
        running.task(founder.run());
    }
    running.task(wake_all(wakes));
    running.task(timers::run(parts.clone()));
    running.task(route::run(parts.route.clone()));
    running.task(read_system_uids(parts.clone()));
    running.task(leave_on_failure(parts.clone()));
    Ok((parts, running))
}

fn shard_threads(
    parts: &Arc<Parts>,
    groups: Vec<Group>,
    frozen: &mpsc::Sender<Vec<Frozen>>,
) -> Vec<ShardThread> {
    let count = parts.inboxes.len();
    let mut by_shard: Vec<Vec<Group>> = (0..count).map(|_| Vec::new()).collect();
    for group in groups {
        by_shard[shard_of(group.group, count)].push(group);
    }
    let node = parts.config.node;
    let threads = by_shard
        .into_iter()
        .zip(0..)
        .map(|(groups, number): (_, u16)| {
            let config = ShardConfig {
                // As many as groups at most: 16 bits and one more, and one per core in practice.
                shard: (number, u16::try_from(count).unwrap_or(u16::MAX)),
                seed: rand::random(),
                ..ShardConfig::new(node)
            };
            let (now, wall) = (parts.clock.now(), parts.clock.wall());
            ShardThread {
                number: usize::from(number),
                shard: Shard::new(config, parts.rules.get(), groups, now, wall),
                parts: parts.clone(),
                frozen: frozen.clone(),
            }
        });
    threads.collect()
}

/// The read pool and the delivery workers.
fn helpers(parts: &Arc<Parts>, running: &mut Running) -> Result<(), StartError> {
    for number in 0..READ_THREADS {
        let parts = parts.clone();
        running.thread(Part::Read, format!("read-{number}"), move || {
            parts.reads.run(&parts.route, &parts.hub);
        })?;
    }
    for (number, queue) in parts.delivery.queues().iter().enumerate() {
        let worker = Worker {
            queue: queue.clone(),
            sender: parts.delivery.sender().clone(),
            route: parts.route.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        running.thread(Part::Deliver, format!("deliver-{number}"), move || {
            worker.run();
        })?;
    }
    Ok(())
}

fn accept(parts: &Arc<Parts>, listeners: Listeners, running: &mut Running) {
    let gateway = Arc::new(Gateway {
        session: Arc::new(parts.config.session.clone()),
        parts: parts.clone(),
    });
    for (listener, kind) in listeners {
        running.listener(accept_all(gateway.clone(), listener, kind));
    }
}

/// Reads the replicated list of system accounts once, so that leaders know them from the first request on.
async fn read_system_uids(parts: Arc<Parts>) {
    while !parts.gate.is_broken() {
        let query = Request::Query(Box::new(Query::SystemUids));
        match parts.route.call(query).await {
            Ok(Reply::Answer(answer)) => {
                if let Answer::SystemUids(uids) = *answer {
                    parts.rules.system_uids_were(&uids);
                }
                return;
            }
            other => {
                tracing::warn!(?other, "the list of system accounts cannot be read yet");
                tokio::time::sleep(READ_AGAIN).await;
            }
        }
    }
}

/// Pause before the list of system accounts is asked for again.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// A node that cannot serve drops its clients without a word: they come back, here or elsewhere, and send again what was not
/// answered (F9: an answer, even a failure, would make them forget it). Other callers are told at once.
async fn leave_on_failure(parts: Arc<Parts>) {
    parts.gate.failed().await;
    parts.hub.expel();
    parts.route.give_up();
}

#[cfg(test)]
mod tests;
