//! Messages between connected clients: 1:1 and group, closed and open loop.
//!
//! One task per connection on one thread. Phases: every channel's first message (it creates the channel, so it is not
//! measured), then a warm-up, the measured part, and a drain in which nothing new is sent.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use wk_proto::ChannelType;
use wk_proto::frame::{Frame, Send};
use wk_proto::record::Flags;

use super::books::{Balance, Books, LastSeqs, MESSAGES_MAX, NUMBER_BYTES};
use super::conn::Conn;
use super::report::{Latency, Meter, Row};
use super::{Common, Target, process, store};

/// Connections being opened at once.
const OPENING_MAX: usize = 64;
/// Seconds for the first messages of all channels; then the run is off.
const PRIME_SECS: u64 = 60;
/// Seconds for what is still on its way at the end; then it counts as missing.
const DRAIN_SECS: u64 = 15;
/// Seconds of load before the measured part.
const WARMUP_SECS: f64 = 1.0;
/// Channels whose whole history is compared with the acks; of all others, only the length.
const HISTORIES: usize = 5;
/// Members added in one request.
const MEMBERS_PER_REQUEST: usize = 1_000;

/// When a sender sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many unacknowledged.
    Acks(u64),
    /// So many not yet delivered to everybody.
    Complete(u64),
    /// One each so many seconds, starting after so many, whatever comes back.
    Every(f64, f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Prime,
    Run(Instant),
    Stop,
}

/// What all connections of a run share.
struct World {
    books: RefCell<Books>,
    phase: watch::Receiver<Phase>,
    /// Messages got their last copy.
    completed: Notify,
    epoch: Instant,
    payload: usize,
    /// The first thing that broke a connection.
    broken: RefCell<Option<String>>,
}

impl World {
    fn now_ns(&self) -> u64 {
        self.at_ns(Instant::now())
    }

    fn is_settled(&self, first: u64) -> bool {
        let books = self.books.borrow();
        let answered = books.offered() >= first && books.answered() == books.offered();
        answered && books.delivered >= books.expected()
    }

    fn at_ns(&self, at: Instant) -> u64 {
        at.duration_since(self.epoch).as_nanos() as u64
    }
}

/// A scenario before it runs: who sends where, who receives.
struct Cast {
    name: &'static str,
    /// Sender's uid, channel id, its type, how fast.
    senders: Vec<(String, String, ChannelType, Pace)>,
    receivers: Vec<String>,
    /// Receivers of each message.
    copies: u32,
    unit: &'static str,
    parameters: serde_json::Value,
}

/// `conns` senders, each with one receiver online. `rate`: open loop, messages per second in all.
pub async fn one_to_one(
    common: &Common,
    target: &Target,
    name: &'static str,
    (conns, pipeline): (usize, u64),
    rate: Option<f64>,
) -> Result<Row> {
    process::allow_sockets(2 * conns)?;
    let (run, pace) = (common.run_name(), |i: usize| match rate {
        Some(rate) => Pace::Every(conns as f64 / rate, i as f64 / rate),
        None => Pace::Acks(pipeline),
    });
    let uid = |role: &str, i: usize| format!("{run}{role}{i}");
    let cast = Cast {
        name,
        senders: (0..conns)
            .map(|i| (uid("s", i), uid("r", i), ChannelType::PERSON, pace(i)))
            .collect(),
        receivers: (0..conns).map(|i| uid("r", i)).collect(),
        copies: 1,
        unit: "messages",
        parameters: json!({"conns": conns, "pipeline": pipeline, "rate": rate, "payload": common.payload}),
    };
    play(common, target, cast).await
}

/// One sender in a group of `members` others, all online.
pub async fn fanout(
    common: &Common,
    target: &Target,
    name: &'static str,
    members: usize,
    pace: Pace,
) -> Result<Row> {
    process::allow_sockets(members + 1)?;
    let run = common.run_name();
    let group = format!("{run}g");
    let sender = format!("{run}s");
    let receivers: Vec<String> = (0..members).map(|i| format!("{run}m{i}")).collect();
    let all: Vec<&String> = receivers.iter().chain([&sender]).collect();
    for some in all.chunks(MEMBERS_PER_REQUEST) {
        let body = json!({"channel_id": group, "channel_type": 2, "subscribers": some});
        target.api.post("/channel/subscriber_add", &body).await?;
    }
    let cast = Cast {
        name,
        senders: vec![(sender, group, ChannelType::GROUP, pace)],
        copies: u32::try_from(members)?,
        receivers,
        unit: "deliveries",
        parameters: json!({"members": members, "pace": format!("{pace:?}"), "payload": common.payload}),
    };
    play(common, target, cast).await
}

async fn play(common: &Common, target: &Target, cast: Cast) -> Result<Row> {
    let (phase, phases) = watch::channel(Phase::Prime);
    let world = Rc::new(World {
        books: RefCell::new(Books::new(rand::random(), cast.copies)),
        phase: phases,
        completed: Notify::new(),
        epoch: Instant::now(),
        payload: common.payload.max(NUMBER_BYTES),
        broken: RefCell::new(None),
    });
    let receivers = connect_all(common, target, &cast.receivers).await?;
    let uids: Vec<String> = cast.senders.iter().map(|s| s.0.clone()).collect();
    let senders = connect_all(common, target, &uids).await?;
    let encrypted = senders.first().is_some_and(Conn::encrypted);

    let mut tasks = JoinSet::new();
    for conn in receivers {
        tasks.spawn_local(guard(world.clone(), receive(world.clone(), conn)));
    }
    let first = cast.senders.len() as u64;
    for (conn, (uid, id, kind, pace)) in senders.into_iter().zip(cast.senders) {
        let channel = world.books.borrow_mut().channel(id.clone(), kind.0, uid);
        let sender = Sender::new(world.clone(), conn, channel, (id, kind), pace);
        tasks.spawn_local(guard(world.clone(), sender.run()));
    }
    let primed = settle(&world, PRIME_SECS, first).await?;
    ensure!(
        primed,
        "{}: the first messages did not arrive in {PRIME_SECS} s",
        cast.name
    );

    let start = Instant::now();
    let from = start + Duration::from_secs_f64(WARMUP_SECS);
    let to = from + Duration::from_secs_f64(common.seconds);
    let measured = world.at_ns(from)..world.at_ns(to);
    world.books.borrow_mut().measure(measured);
    phase.send_replace(Phase::Run(start));
    let done = || match cast.unit {
        "deliveries" => world.books.borrow().delivered,
        _ => world.books.borrow().acked,
    };
    tokio::time::sleep_until(from).await;
    let meter = Meter::start(target, done());
    tokio::time::sleep_until(to).await;
    let measured = meter.stop(target, done());
    phase.send_replace(Phase::Stop);
    settle(&world, DRAIN_SECS, first).await?;
    // Copies that should not exist would come now.
    tokio::time::sleep(Duration::from_millis(100)).await;
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}

    let Some(world) = Rc::into_inner(world) else {
        bail!("a connection is still running");
    };
    let mut books = world.books.into_inner();
    for channel in 0..books.channels().len().min(HISTORIES) {
        let stored = store::history(target, &books.channels()[channel]).await?;
        books.history(channel as u32, &stored);
    }
    let stored = store::newest_seqs(target, books.channels()).await?;
    let latencies = latencies(&books, cast.unit);
    Ok(Row {
        name: cast.name,
        unit: cast.unit,
        parameters: cast.parameters,
        measured,
        latencies,
        balance: books.close(Some(&stored)),
        encrypted: Some(encrypted),
        varz: None,
    })
}

/// The row's own first. Without a late message (closed loops have none) lateness says nothing.
fn latencies(books: &Books, unit: &str) -> Vec<(&'static str, Latency)> {
    let mut all = vec![
        ("ack", Latency::of(&books.ack_latency)),
        ("delivery", Latency::of(&books.delivery_latency)),
    ];
    if unit == "deliveries" {
        all.swap(0, 1);
    }
    const WORTH_TELLING_NS: u64 = 100_000;
    if books.lateness.max() > WORTH_TELLING_NS {
        all.push(("generator_lateness", Latency::of(&books.lateness)));
    }
    all
}

/// Waits until everything offered (at least `first` messages) is answered and delivered; false at the time limit.
async fn settle(world: &World, secs: u64, first: u64) -> Result<bool> {
    let limit = Instant::now() + Duration::from_secs(secs);
    while Instant::now() < limit {
        if let Some(why) = world.broken.borrow().as_ref() {
            bail!("a connection broke: {why}");
        }
        if world.is_settled(first) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(false)
}

async fn connect_all(common: &Common, target: &Target, uids: &[String]) -> Result<Vec<Conn>> {
    let gate = Rc::new(Semaphore::new(OPENING_MAX));
    let mut opening = JoinSet::new();
    for (i, uid) in uids.iter().cloned().enumerate() {
        let (gate, server, encryption) = (gate.clone(), target.server.clone(), common.encryption);
        opening.spawn_local(async move {
            let _permit = gate.acquire().await?;
            Ok::<_, anyhow::Error>((i, Conn::open(&server, &uid, encryption).await?))
        });
    }
    let mut conns = Vec::with_capacity(uids.len());
    while let Some(opened) = opening.join_next().await {
        conns.push(opened??);
    }
    conns.sort_by_key(|(i, _)| *i);
    Ok(conns.into_iter().map(|(_, conn)| conn).collect())
}

async fn guard(world: Rc<World>, task: impl Future<Output = Result<()>>) {
    if let Err(e) = task.await {
        world.broken.borrow_mut().get_or_insert(format!("{e:#}"));
    }
}

/// Takes, checks and acknowledges everything, one write per read.
async fn receive(world: Rc<World>, mut conn: Conn) -> Result<()> {
    let mut last = LastSeqs::new();
    loop {
        let mut frames = conn.read().await?;
        let now = world.now_ns();
        let complete = world.books.borrow().complete;
        while let Some(frame) = conn.next(&mut frames)? {
            let Frame::Recv(recv) = frame else { continue };
            conn.recvack(&recv);
            let books = &world.books;
            let look =
                books
                    .borrow_mut()
                    .deliver(&mut last, &recv.client_msg_no, recv.message_seq, now);
            if look {
                let payload = conn.payload(&recv);
                books
                    .borrow_mut()
                    .content(&recv.client_msg_no, payload.as_deref());
            }
        }
        if world.books.borrow().complete > complete {
            world.completed.notify_waiters();
        }
        conn.flush().await?;
    }
}

struct Sender {
    world: Rc<World>,
    conn: Conn,
    channel: u32,
    channel_id: Bytes,
    kind: ChannelType,
    pace: Pace,
    sent: u64,
    answered: u64,
    /// Of those, in phase `Run`.
    run_sent: u64,
}

/// What a sender waited for.
enum Woken {
    Frames(Bytes),
    Other,
}

impl Sender {
    fn new(
        world: Rc<World>,
        conn: Conn,
        channel: u32,
        (id, kind): (String, ChannelType),
        pace: Pace,
    ) -> Self {
        Self {
            world,
            conn,
            channel,
            channel_id: Bytes::from(id),
            kind,
            pace,
            sent: 0,
            answered: 0,
            run_sent: 0,
        }
    }

    async fn run(mut self) -> Result<()> {
        let mut phases = self.world.phase.clone();
        loop {
            let phase = *phases.borrow_and_update();
            self.send_what_is_due(phase)?;
            self.conn.flush().await?;
            let woken = {
                let next_due = self.next_due(phase);
                let waits_for_copies = matches!(self.pace, Pace::Complete(_));
                tokio::select! {
                    frames = self.conn.read() => Woken::Frames(frames?),
                    () = until(next_due), if next_due.is_some() => Woken::Other,
                    () = self.world.completed.notified(), if waits_for_copies => Woken::Other,
                    changed = phases.changed() => {
                        changed?;
                        Woken::Other
                    }
                }
            };
            if let Woken::Frames(frames) = woken {
                self.take(frames)?;
            }
        }
    }

    fn send_what_is_due(&mut self, phase: Phase) -> Result<()> {
        match phase {
            Phase::Prime if self.sent == 0 => self.send(Instant::now()),
            Phase::Prime | Phase::Stop => Ok(()),
            Phase::Run(_) => {
                while let Some(due) = self.due_now(phase) {
                    self.send(due)?;
                    self.run_sent += 1;
                }
                Ok(())
            }
        }
    }

    /// The moment for which a message is due that should be written now.
    fn due_now(&self, phase: Phase) -> Option<Instant> {
        let now = Instant::now();
        match self.pace {
            Pace::Acks(k) => (self.sent - self.answered < k).then_some(now),
            Pace::Complete(k) => {
                let open = self.sent - self.world.books.borrow().complete.min(self.sent);
                (open < k).then_some(now)
            }
            Pace::Every(..) => self.next_due(phase).filter(|due| *due <= now),
        }
    }

    fn next_due(&self, phase: Phase) -> Option<Instant> {
        match (self.pace, phase) {
            (Pace::Every(period, offset), Phase::Run(start)) => {
                let after = offset + period * self.run_sent as f64;
                Some(start + Duration::from_secs_f64(after))
            }
            _ => None,
        }
    }

    fn send(&mut self, due: Instant) -> Result<()> {
        let world = &self.world;
        let (due, now) = (world.at_ns(due), world.now_ns());
        let mut books = world.books.borrow_mut();
        ensure!(
            books.offered() < MESSAGES_MAX as u64,
            "too many messages for one run"
        );
        let (client_seq, number) = books.offer(self.channel, due, now);
        let mut payload = vec![b'x'; world.payload];
        payload[..NUMBER_BYTES].copy_from_slice(&number);
        self.sent += 1;
        self.conn.send(Send {
            flags: Flags(Flags::RED_DOT),
            client_seq,
            client_msg_no: Bytes::copy_from_slice(&number),
            channel_id: self.channel_id.clone(),
            channel_type: self.kind.0,
            payload: Bytes::from(payload),
            ..Send::default()
        })
    }

    fn take(&mut self, mut frames: Bytes) -> Result<()> {
        let now = self.world.now_ns();
        while let Some(frame) = self.conn.next(&mut frames)? {
            if let Frame::Sendack(ack) = frame {
                self.answered += 1;
                let mut books = self.world.books.borrow_mut();
                books.ack(ack.client_seq, ack.message_seq, ack.reason_code, now);
            }
        }
        Ok(())
    }
}

/// The runtime's timers have a grain of a millisecond, which would be most of a good latency: the last one is spent
/// looking at the clock, while other tasks run.
async fn until(due: Option<Instant>) {
    const GRAIN: Duration = Duration::from_millis(2);
    let Some(due) = due else {
        return std::future::pending().await;
    };
    if let Some(early) = due.checked_sub(GRAIN) {
        tokio::time::sleep_until(early).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// The balance of a scenario that has only operations.
pub fn operations(tried: u64, stored: Option<u64>, failed: u64) -> Balance {
    let faults = [("operations failed", failed)];
    Balance::of_operations(
        tried,
        stored,
        faults.into_iter().filter(|f| f.1 > 0).collect(),
    )
}
