//! The driver of the formation: its events come from here, its effects are done here, one after the other (H52, cluster 7.2).
//!
//! A node without a list of nodes has no formation: its cluster of one was founded with its directory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use wk_chat::control::ControlView;
use wk_chat::{Answer, Query, Reply, Request, Write};
use wk_cluster::formation::{
    Admission, ControlNews, Effect, Event, Formation, Held, Hold, Listeners, OwnReplica, Phase,
    PhaseState, Report, Setup, SlotsNews,
};
use wk_proto::{GroupId, LogIndex, Mono, NodeId, ReplicaId, Term};
use wk_replica::{Input, membership};
use wk_store::home::Home;
use wk_store::{Disk, Recovered, ReplicaMeta, Store, View};

use crate::clock::Clock;
use crate::held;
use crate::limits::SUMMARY_MS;
use crate::node::obstacles;
use crate::parts::Parts;
use crate::start::group;

/// The formation, for everybody who has news for it or a question.
#[derive(Debug)]
pub(crate) struct Former {
    clock: Clock,
    formation: Option<Mutex<Formation>>,
    wake: Notify,
    gave_up: AtomicBool,
}

impl Former {
    pub(crate) fn new(setup: Option<Setup>, clock: Clock) -> Self {
        let formation = setup.map(|setup| Mutex::new(Formation::new(setup, clock.now())));
        Self {
            clock,
            formation,
            wake: Notify::new(),
            gave_up: AtomicBool::new(false),
        }
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.gave_up.load(Relaxed)
    }

    /// Takes an event. Never waits.
    pub(crate) fn tell(&self, event: Event) {
        if let Some(formation) = &self.formation {
            formation.lock().handle(event, self.clock.now());
            self.wake.notify_one();
        }
    }

    /// Whether a node on this disk may talk to this one.
    pub(crate) fn admits(&self, node: NodeId, disk: u128) -> Admission {
        let now = self.clock.now();
        let formation = self.formation.as_ref();
        formation.map_or(Admission::Full, |f| f.lock().admits(node, disk, now))
    }

    /// Everything there is to say; `None`: there is no formation.
    pub(crate) fn report(&self) -> Option<Report> {
        let formation = self.formation.as_ref()?;
        Some(formation.lock().report(self.clock.now()))
    }

    fn next(&self) -> Option<Effect> {
        self.formation.as_ref()?.lock().poll()
    }

    /// Waits for the next event or the time at which something is due.
    async fn rest(&self) {
        let Some(formation) = &self.formation else {
            return std::future::pending().await;
        };
        let due = self.clock.until(formation.lock().deadline());
        if timeout(due, self.wake.notified()).await.is_err() {
            formation.lock().tick(self.clock.now());
        }
    }
}

/// What the effects need beside the running parts.
pub(crate) struct Founder {
    pub(crate) parts: Arc<Parts>,
    pub(crate) store: Arc<Store>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) home: Arc<Mutex<Home>>,
    /// The cluster, as the disk has it.
    pub(crate) cluster: Option<Box<ControlView>>,
    /// When the next summary is due.
    pub(crate) summary_at: Mono,
    /// Replicas that run.
    pub(crate) running: BTreeSet<ReplicaId>,
}

impl Founder {
    /// Does what the formation wants until the node is gone.
    pub(crate) async fn run(mut self) {
        self.begin();
        loop {
            while let Some(effect) = self.parts.former.next() {
                if let Err(cause) = self.perform(effect).await {
                    return self.parts.gate.fail(format!("formation: {cause}"));
                }
            }
            self.parts.former.rest().await;
            self.summarize();
        }
    }

    /// For whoever reads the log while the node waits (R-OBS-2).
    fn summarize(&mut self) {
        let now = self.parts.clock.now();
        if now < self.summary_at {
            return;
        }
        self.summary_at = now.plus_ms(SUMMARY_MS);
        if let Some(report) = self.parts.former.report().filter(|r| !r.ready) {
            let phase = report.phase.name();
            let texts = obstacles(&report).join("; ");
            tracing::info!(phase, "not ready: {texts}");
        }
    }

    fn begin(&mut self) {
        let former = &self.parts.former;
        if let Some(cluster) = self.cluster.take() {
            former.tell(Event::Cluster(cluster));
        }
        for phase in [
            Phase::Config,
            Phase::StorageOpen,
            Phase::WalReplay,
            Phase::Transport,
        ] {
            former.tell(Event::Phase(phase, PhaseState::Done));
        }
        let listen = &self.parts.config.listen;
        former.tell(Event::Listeners {
            open: Listeners {
                cluster: true,
                tcp: listen.tcp.is_some(),
                ws: listen.ws.is_some(),
                ..Listeners::default()
            },
            all_open: true,
        });
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Persist(held) => self.persist(held).await?,
            Effect::Send(node, message) => self.parts.mesh.form(node, &message),
            Effect::StartControl(own) => {
                self.start(vec![own]).await?;
                self.parts.former.tell(Event::ControlStarted);
            }
            Effect::StartSlots(own) => {
                self.start(own).await?;
                self.parts.former.tell(Event::SlotsStarted);
            }
            Effect::Propose(write) => {
                // Not waited for: it may take a leader that this very task has to help into office.
                tokio::spawn(propose(self.parts.clone(), write));
            }
            Effect::SeatsChanged => self.parts.mesh.seats_changed(|node, disk| {
                matches!(self.parts.former.admits(node, disk), Admission::Full)
            }),
            Effect::PhaseChanged(phase, state, ms) => {
                tracing::info!(phase = phase.name(), state = state.name(), ms, "formation");
            }
            Effect::Warn(text) => tracing::warn!("{text}"),
            Effect::GiveUp(report) => {
                self.parts.former.gave_up.store(true, Relaxed);
                let texts = obstacles(&report).join("; ");
                return Err(format!("not ready within cluster.startTimeout: {texts}"));
            }
        }
        Ok(())
    }

    async fn persist(&self, held: Held) -> Result<(), String> {
        let (disk, home) = (self.disk.clone(), self.home.clone());
        let write = move || {
            if let Held::Formed { cluster_id, .. } = &held {
                let bound = home.lock().bind_cluster(*cluster_id);
                bound.map_err(|error| error.to_string())?;
            }
            held::save(&*disk, &held).map_err(|error| error.to_string())
        };
        blocking(write).await?;
        self.parts.former.tell(Event::Persisted);
        Ok(())
    }

    /// Creates what is not there, durably, and runs what does not run.
    async fn start(&mut self, own: Vec<OwnReplica>) -> Result<(), String> {
        let metas = own.into_iter().map(|own| ReplicaMeta {
            replica: own.replica,
            group: own.group,
            membership: membership::encode(&own.voters),
            applied: LogIndex(0),
            applied_term: Term(0),
        });
        let missing: Vec<_> = metas
            .filter(|meta| !self.running.contains(&meta.replica))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.running.extend(missing.iter().map(|meta| meta.replica));
        let store = self.store.clone();
        let create = move || {
            store.create(&missing).map_err(|error| error.to_string())?;
            let groups = missing.into_iter();
            let groups = groups.map(|meta| group(&store, meta, Recovered::default()));
            let groups: Result<Vec<_>, _> = groups.collect();
            groups.map_err(|error| error.to_string())
        };
        for group in blocking(create).await? {
            let shard = self.parts.route.shard_of(group.group);
            self.parts.inboxes[shard].push(Input::Start(Box::new(group)));
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())?
}

async fn propose(parts: Arc<Parts>, write: Write) {
    let bind = match &write {
        Write::Bind { node, uuid } => Some((*node, *uuid)),
        _ => None,
    };
    let outcome = parts.route.call(Request::Write(Box::new(write))).await;
    let Some((node, uuid)) = bind else {
        return;
    };
    let result = match outcome {
        Ok(Reply::Bind(result)) => Some(result),
        _ => None,
    };
    parts.former.tell(Event::Bound { node, uuid, result });
}

/// What the heartbeat sees of the groups.
pub(crate) fn look(parts: &Parts) {
    let former = &parts.former;
    if former.formation.is_none() {
        return;
    }
    let now = parts.clock.now();
    let offices = parts.offices();
    let office = |group| {
        let own = offices.iter().find(|(led, _)| *led == group);
        own.map(|(_, term)| (parts.config.node, *term))
            .or_else(|| parts.mesh.leader(group, now))
    };
    let control = office(GroupId::Control);
    former.tell(Event::Control(ControlNews {
        leader: control.map(|(node, _)| node),
        term: control.map_or(Term(0), |(_, term)| term),
        caught_up: control.is_some(),
        ..ControlNews::default()
    }));
    let total = parts.config.policy.slot_count;
    let slots = (1..=u32::from(total)).filter_map(GroupId::from_u32);
    let with_leader = slots.filter(|group| office(*group).is_some()).count();
    let led_here = offices.iter().filter(|(g, _)| *g != GroupId::Control);
    former.tell(Event::Slots(SlotsNews {
        total,
        with_leader: u16::try_from(with_leader).unwrap_or(total),
        led_here: u16::try_from(led_here.count()).unwrap_or(total),
        ..SlotsNews::default()
    }));
    former.tell(Event::Hold(Hold::Storage, parts.gate.is_broken()));
    former.tell(Event::Hold(Hold::Disk, parts.gate.is_disk_low()));
}

/// What the state of the control group says of the cluster, if there is one.
pub(crate) fn cluster_of(view: &View) -> Option<Box<ControlView>> {
    match Query::Cluster.answer(view) {
        Ok(Answer::Cluster(cluster)) => cluster,
        Ok(_) => None,
        Err(error) => {
            tracing::error!(%error, "the cluster cannot be read");
            None
        }
    }
}
