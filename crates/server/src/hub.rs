//! The connections of this node, and the one way to reach them from another thread: their mailboxes.
//!
//! A connection task sleeps until its socket or its mailbox has something. Threads push any number of events to any number of
//! mailboxes and then wake all of them with one call ([`Hub::wake`]): one hand-over to the runtime per batch, not per connection.
//!
//! Locks (see docs/locks.md): a table shard is held for one look-up; a mailbox for one push or one swap, and nothing is locked below it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use wk_proto::{ConnId, Mono, WallMs};
use wk_session::{Delivery, Event, Info};

use crate::limits::{CONN_IDLE_SLOTS, CONN_MAIL_BYTES_MAX, CONN_MAIL_ITEMS_MAX};

/// What waits for a connection, and who to wake for it.
#[derive(Debug, Default)]
struct Mailbox {
    events: VecDeque<Event>,
    /// Bytes of the deliveries among them.
    bytes: usize,
    /// Set while the task sleeps with an empty mailbox.
    waker: Option<Waker>,
    /// A timer may be due.
    timer: bool,
    /// A bound was reached: the connection will be closed, further deliveries are dropped.
    overflow: bool,
    /// The task ended.
    closed: bool,
}

impl Mailbox {
    fn take(&mut self, bytes: usize, into: &mut VecDeque<Event>) {
        if self.bytes <= bytes {
            self.bytes = 0;
            into.append(&mut self.events);
        } else {
            let mut taken = 0;
            while taken < bytes
                && let Some(event) = self.events.pop_front()
            {
                if let Event::Deliver(delivery) = &event {
                    taken += cost(delivery);
                }
                into.push_back(event);
            }
            self.bytes -= taken;
        }
        if self.events.is_empty() && self.events.capacity() > 4 * CONN_IDLE_SLOTS {
            self.events.shrink_to(CONN_IDLE_SLOTS);
        }
    }
}

/// Bytes a delivery counts for in a mailbox.
fn cost(delivery: &Delivery) -> usize {
    delivery.record.as_bytes().len()
}

/// Numbers of one connection, for `/connz`. Written by its own task.
#[derive(Debug, Default)]
pub(crate) struct ConnStats {
    pub(crate) last_activity_ms: AtomicU64,
    pub(crate) in_msgs: AtomicU64,
    pub(crate) out_msgs: AtomicU64,
    pub(crate) in_msg_bytes: AtomicU64,
    pub(crate) out_msg_bytes: AtomicU64,
    pub(crate) in_packets: AtomicU64,
    pub(crate) out_packets: AtomicU64,
    pub(crate) in_packet_bytes: AtomicU64,
    pub(crate) out_packet_bytes: AtomicU64,
}

/// Adds without a locked instruction: there is one writer.
pub(crate) fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// What others may know of a connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) connected: WallMs,
    pub(crate) stats: ConnStats,
    mailbox: Mutex<Mailbox>,
    /// Earliest moment the timer wheel will look at this connection, µs.
    armed: AtomicU64,
    public: Mutex<Public>,
}

#[derive(Debug)]
struct Public {
    peer: SocketAddr,
    info: Option<Box<Info>>,
}

/// What a connection task finds when it looks into its mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    pub(crate) timer: bool,
    pub(crate) overflow: bool,
}

impl Conn {
    /// Waits for mail and moves events into `into`, deliveries up to about `bytes`; with 0 only timers and overflow count as mail.
    pub(crate) fn poll_mail(
        &self,
        cx: &Context<'_>,
        bytes: usize,
        into: &mut VecDeque<Event>,
    ) -> Poll<Mail> {
        let mut mailbox = self.mailbox.lock();
        let mail = Mail {
            timer: std::mem::take(&mut mailbox.timer),
            overflow: mailbox.overflow,
        };
        let found = bytes > 0 && !mailbox.events.is_empty();
        if found {
            mailbox.take(bytes, into);
        }
        if found || mail.timer || mail.overflow {
            return Poll::Ready(mail);
        }
        match &mailbox.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => mailbox.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Puts an event that must not be lost; their number is bounded by what the session has asked for.
    pub(crate) fn push(&self, event: Event, wakes: &mut Wakes) {
        let mut mailbox = self.mailbox.lock();
        if !mailbox.closed {
            mailbox.events.push_back(event);
            wakes.add(mailbox.waker.take());
        }
    }

    /// Puts messages to push. At a bound the connection is marked for closing instead (H24).
    pub(crate) fn deliver<'a>(
        &self,
        deliveries: impl Iterator<Item = &'a Arc<Delivery>>,
        wakes: &mut Wakes,
    ) {
        let mut mailbox = self.mailbox.lock();
        if mailbox.closed || mailbox.overflow {
            return;
        }
        for delivery in deliveries {
            mailbox.bytes += cost(delivery);
            mailbox.events.push_back(Event::Deliver(delivery.clone()));
        }
        mailbox.overflow =
            mailbox.bytes > CONN_MAIL_BYTES_MAX || mailbox.events.len() > CONN_MAIL_ITEMS_MAX;
        if !mailbox.events.is_empty() {
            wakes.add(mailbox.waker.take());
        }
    }

    /// Tells the task that time passed.
    pub(crate) fn fire(&self, wakes: &mut Wakes) {
        let mut mailbox = self.mailbox.lock();
        if !mailbox.closed {
            mailbox.timer = true;
            wakes.add(mailbox.waker.take());
        }
    }

    /// Notes that a timer is wanted at `at`. Returns whether the wheel must be told: it will not look that early by itself.
    pub(crate) fn arm(&self, at: Mono) -> bool {
        if at.0 >= self.armed.load(Relaxed) {
            return false;
        }
        self.armed.store(at.0, Relaxed);
        true
    }

    /// The wheel looked: it must be told of the next timer.
    pub(crate) fn disarm(&self) {
        self.armed.store(u64::MAX, Relaxed);
    }

    pub(crate) fn set_info(&self, info: Info) {
        self.public.lock().info = Some(Box::new(info));
    }

    pub(crate) fn set_peer(&self, peer: SocketAddr) {
        self.public.lock().peer = peer;
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.public.lock().peer
    }

    pub(crate) fn with_info<T>(&self, read: impl FnOnce(Option<&Info>) -> T) -> T {
        read(self.public.lock().info.as_deref())
    }

    /// The task ended: nothing can reach it any more.
    fn close(&self) {
        let mut mailbox = self.mailbox.lock();
        mailbox.closed = true;
        mailbox.events = VecDeque::new();
        mailbox.waker = None;
    }
}

/// Tasks to wake once a batch is complete.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Vec<Waker>);

impl Wakes {
    fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Connection ids count up: spreading them is enough.
#[derive(Debug, Default)]
pub(crate) struct SpreadHasher(u64);

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0 ^ n)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

type Table = HashMap<ConnId, Arc<Conn>, BuildHasherDefault<SpreadHasher>>;

/// Batches of connections to wake.
pub(crate) type WakeQueue = mpsc::UnboundedReceiver<Vec<Waker>>;

/// Parts of the table, so that threads seldom meet.
const PARTS: usize = 64;

/// Up to this many wakers are called in place; more are handed to the runtime in one go.
const WAKE_INLINE: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    parts: Vec<RwLock<Table>>,
    next: AtomicU64,
    count: AtomicUsize,
    draining: AtomicBool,
    waker: mpsc::UnboundedSender<Vec<Waker>>,
    idle: tokio::sync::Notify,
}

impl Hub {
    /// A hub, and the queue [`wake_all`] serves. The queue holds wakers of sleeping connections only: one each.
    pub(crate) fn new() -> (Self, WakeQueue) {
        let (waker, queue) = mpsc::unbounded_channel();
        let hub = Self {
            parts: (0..PARTS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            waker,
            idle: tokio::sync::Notify::new(),
        };
        (hub, queue)
    }

    /// Registers a connection; dropping the guard removes it, also when its task panics.
    pub(crate) fn add(self: &Arc<Self>, peer: SocketAddr, connected: WallMs) -> ConnGuard {
        let id = ConnId(self.next.fetch_add(1, Relaxed));
        let conn = Arc::new(Conn {
            id,
            connected,
            stats: ConnStats::default(),
            mailbox: Mutex::default(),
            armed: AtomicU64::new(u64::MAX),
            public: Mutex::new(Public { peer, info: None }),
        });
        conn.stats.last_activity_ms.store(connected.0, Relaxed);
        self.count.fetch_add(1, Relaxed);
        self.part(id).write().insert(id, conn.clone());
        if self.draining.load(SeqCst) {
            conn.push(Event::Drain, &mut Wakes::default());
        }
        ConnGuard {
            hub: self.clone(),
            conn,
        }
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<Arc<Conn>> {
        self.part(id).read().get(&id).cloned()
    }

    /// Puts an event into a connection's mailbox, if it is still there.
    pub(crate) fn push(&self, id: ConnId, event: Event, wakes: &mut Wakes) {
        if let Some(conn) = self.part(id).read().get(&id) {
            conn.push(event, wakes);
        }
    }

    /// Wakes what a batch has touched.
    pub(crate) fn wake(&self, wakes: Wakes) {
        if wakes.0.len() <= WAKE_INLINE {
            wakes.0.into_iter().for_each(Waker::wake);
        } else if let Err(back) = self.waker.send(wakes.0) {
            // The runtime is shutting down; its tasks may still be polled.
            back.0.into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// All connections, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Conn>> {
        let mut all = Vec::with_capacity(self.len());
        for part in &self.parts {
            all.extend(part.read().values().cloned());
        }
        all
    }

    /// Tells every connection, also those that come later, to finish and close.
    pub(crate) fn drain(&self) {
        self.leave(&Event::Drain);
    }

    /// Drops every connection now, unanswered; those that come later, before they are connected.
    pub(crate) fn expel(&self) {
        self.leave(&Event::Kick {
            notice: None,
            delay_ms: 0,
        });
    }

    fn leave(&self, event: &Event) {
        self.draining.store(true, SeqCst);
        let mut wakes = Wakes::default();
        for conn in self.all() {
            conn.push(event.clone(), &mut wakes);
        }
        self.wake(wakes);
    }

    /// Waits until no connection is left.
    pub(crate) async fn empty(&self) {
        loop {
            let mut changed = std::pin::pin!(self.idle.notified());
            changed.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn part(&self, id: ConnId) -> &RwLock<Table> {
        &self.parts[id.0 as usize % PARTS]
    }
}

/// Ownership of a connection's place in the hub.
#[derive(Debug)]
pub(crate) struct ConnGuard {
    hub: Arc<Hub>,
    pub(crate) conn: Arc<Conn>,
}

impl Drop for ConnGuard {
    fn drop(&mut self) {
        self.conn.close();
        self.hub.part(self.conn.id).write().remove(&self.conn.id);
        if self.hub.count.fetch_sub(1, Relaxed) == 1 {
            self.hub.idle.notify_waiters();
        }
    }
}

/// Wakes batches from inside the runtime, where it costs no system call each. Ends with the hub.
pub(crate) async fn wake_all(mut queue: WakeQueue) {
    while let Some(batch) = queue.recv().await {
        batch.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::record::Body;
    use wk_proto::{ChannelId, ChannelKey, ChannelType};

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new().0)
    }

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn delivery() -> Arc<Delivery> {
        Arc::new(Delivery {
            channel: ChannelKey::new(ChannelId::trusted("g"), ChannelType::GROUP),
            seq: None,
            record: Body::default().encode(),
        })
    }

    #[test]
    fn a_sleeping_task_is_woken_once_and_finds_everything_in_order() {
        let hub = hub();
        let guard = hub.add(peer(), WallMs(0));
        let cx = Context::from_waker(Waker::noop());
        let mut events = VecDeque::new();
        assert!(guard.conn.poll_mail(&cx, 1 << 30, &mut events).is_pending());
        let mut wakes = Wakes::default();
        hub.push(guard.conn.id, Event::SendBan(true), &mut wakes);
        hub.push(guard.conn.id, Event::Drain, &mut wakes);
        assert_eq!(wakes.0.len(), 1);
        assert!(guard.conn.poll_mail(&cx, 1 << 30, &mut events).is_ready());
        assert!(matches!(events[0], Event::SendBan(true)));
        assert!(matches!(events[1], Event::Drain));
    }

    #[test]
    fn a_mailbox_beyond_its_bound_marks_the_connection_slow_and_grows_no_further() {
        let hub = hub();
        let guard = hub.add(peer(), WallMs(0));
        let one = [delivery()];
        let mut wakes = Wakes::default();
        for _ in 0..CONN_MAIL_ITEMS_MAX + 10 {
            guard.conn.deliver(one.iter(), &mut wakes);
        }
        let cx = Context::from_waker(Waker::noop());
        let mut events = VecDeque::new();
        let mail = guard.conn.poll_mail(&cx, 1 << 30, &mut events);
        assert!(matches!(mail, Poll::Ready(mail) if mail.overflow));
        assert_eq!(events.len(), CONN_MAIL_ITEMS_MAX + 1);
    }

    #[test]
    fn deliveries_are_taken_in_portions() {
        let hub = hub();
        let guard = hub.add(peer(), WallMs(0));
        let many: Vec<_> = (0..10).map(|_| delivery()).collect();
        guard.conn.deliver(many.iter(), &mut Wakes::default());
        let cx = Context::from_waker(Waker::noop());
        let mut events = VecDeque::new();
        let portion = 3 * cost(&many[0]);
        assert!(guard.conn.poll_mail(&cx, portion, &mut events).is_ready());
        assert_eq!(events.len(), 3);
        assert!(guard.conn.poll_mail(&cx, 0, &mut events).is_pending());
        while guard.conn.poll_mail(&cx, portion, &mut events).is_ready() {}
        assert_eq!(events.len(), 10);
        assert_eq!(guard.conn.mailbox.lock().bytes, 0);
    }

    #[test]
    fn a_dropped_guard_leaves_no_trace() {
        let hub = hub();
        let guard = hub.add(peer(), WallMs(0));
        let id = guard.conn.id;
        drop(guard);
        assert!(hub.get(id).is_none());
        assert_eq!((hub.len(), hub.all().len()), (0, 0));
    }

    #[test]
    fn the_wheel_is_told_only_of_earlier_timers() {
        let hub = hub();
        let guard = hub.add(peer(), WallMs(0));
        assert!(guard.conn.arm(Mono(500)));
        assert!(!guard.conn.arm(Mono(600)));
        assert!(guard.conn.arm(Mono(400)));
        guard.conn.disarm();
        assert!(guard.conn.arm(Mono(600)));
    }
}
