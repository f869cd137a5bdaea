//! The driver of the router: requests of this node's callers in, their results out, in batches.
//!
//! What leaves the router is handed on while its lock is held, so that the order it chose (lanes, H31) is the order the shard inboxes
//! and the mailboxes of the connections see. Lock order: router → {waiting | hub → mailbox | inbox}. Threads are woken after unlocking.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wk_chat::request::{CallError, DeviceLevel, OutboxKey, Why};
use wk_chat::{Answer, Reply, Request, Write};
use wk_cluster::{Call, LaneId, Retry, Router, RouterLimits, RouterOut};
use wk_proto::{
    ChannelKey, ConnId, GroupId, MessageId, MessageSeq, Mono, NodeId, Reason, Term, Ticket, WallMs,
};
use wk_replica::Input;
use wk_session::{Delivery, Event, SendResult};

use crate::clock::Clock;
use crate::gate::Gate;
use crate::hub::{Hub, Wakes};
use crate::inbox::Inbox;
use crate::limits::{CALL_MS, ROUTE_TICK_MS};
use crate::peer::Mesh;

pub(crate) type Outcome = Result<Reply, CallError>;

/// Who waits for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A session's SEND, by the session's ticket.
    Send(ConnId, Ticket),
    /// A session's admission.
    Admit(ConnId),
    /// Something in the waiting table.
    Waiting(u64),
    /// An outbox row of a group.
    Outbox(GroupId, OutboxKey),
    /// A fact of another group that a shard needs to decide a call (by number and the call's ticket).
    Asked(usize, Ticket),
    /// Nobody: the effect is all that counts.
    Nobody,
}

/// One request of a caller.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) lane: Option<LaneId>,
    pub(crate) origin: Origin,
    pub(crate) call: Call,
}

/// News for the router.
#[derive(Debug)]
pub(crate) enum RouteInput {
    /// The end of a `ToShard`.
    Result(Ticket, Outcome),
    /// Who leads a group.
    Leader(GroupId, Term, Option<NodeId>),
}

/// Callers that are not connections.
#[derive(Debug)]
enum Waiting {
    Caller(oneshot::Sender<Outcome>),
    Redelivery(ConnId, ChannelKey),
}

#[derive(Debug)]
struct Core {
    router: Router<Origin>,
    /// Scratch: what the router wants.
    out: Vec<RouterOut<Origin>>,
    /// Scratch: by shard.
    inputs: Vec<Vec<Input>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Route {
    node: NodeId,
    clock: Clock,
    gate: Arc<Gate>,
    hub: Arc<Hub>,
    shards: Vec<Arc<Inbox>>,
    mesh: Arc<Mesh>,
    core: Mutex<Core>,
    /// Bounded by the router's calls.
    waiting: Mutex<HashMap<u64, Waiting>>,
    next_waiting: AtomicU64,
    last_id: AtomicI64,
}

/// What is done once the router is unlocked.
#[derive(Debug, Default)]
struct After {
    wakes: Wakes,
    shards: Vec<usize>,
}

impl Route {
    pub(crate) fn new(
        node: NodeId,
        slot_count: u16,
        clock: Clock,
        gate: Arc<Gate>,
        hub: Arc<Hub>,
        shards: Vec<Arc<Inbox>>,
        mesh: Arc<Mesh>,
    ) -> Self {
        // All nodes together stay below what a leader takes from a group: a refusal in the middle of a lane could invert it.
        let mut limits = RouterLimits::default();
        limits.group_bytes_max /= mesh.nodes().count() + 1;
        let mut router = Router::new(node, slot_count, limits);
        for peer in mesh.nodes() {
            router.on_link(peer, false);
        }
        Self {
            node,
            clock,
            gate,
            hub,
            core: Mutex::new(Core {
                router,
                out: Vec::new(),
                inputs: shards.iter().map(|_| Vec::new()).collect(),
            }),
            shards,
            mesh,
            waiting: Mutex::default(),
            next_waiting: AtomicU64::new(1),
            last_id: AtomicI64::new(0),
        }
    }

    /// The shard that owns a group: modulo, not stored (D10).
    pub(crate) fn shard_of(&self, group: GroupId) -> usize {
        shard_of(group, self.shards.len())
    }

    /// A deadline for a call made now.
    pub(crate) fn deadline(&self, ms: u64) -> Mono {
        self.clock.now().plus_ms(ms)
    }

    /// Takes a batch of requests. Each gets its result through its origin, also when it is refused at once.
    pub(crate) fn submit(&self, batch: &mut Vec<Submission>) {
        if batch.is_empty() {
            return;
        }
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            for one in batch.drain(..) {
                let origin = one.origin;
                let taken = self.gate.check(&one.call.request).and_then(|()| {
                    let taken = core.router.submit(one.lane, origin, one.call);
                    taken.map_err(|_| CallError::NotSent(Why::Busy))
                });
                if let Err(error) = taken {
                    self.done(origin, Err(error), &mut core.inputs, &mut after);
                }
            }
            self.settle(&mut core, &mut after);
        }
        self.finish(after);
    }

    /// Takes a batch of results and news, in order. The caller wakes the connections, with others it has touched.
    pub(crate) fn report(&self, batch: &mut Vec<RouteInput>, wakes: &mut Wakes) {
        batch.retain_mut(|input| self.is_ours(input));
        if batch.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut after = After {
            wakes: std::mem::take(wakes),
            shards: Vec::new(),
        };
        {
            let mut core = self.core.lock();
            for input in batch.drain(..) {
                match input {
                    RouteInput::Result(ticket, outcome) => {
                        core.router.on_result(now, ticket, outcome);
                    }
                    RouteInput::Leader(group, term, node) => {
                        core.router.on_leader(group, term, node);
                    }
                }
            }
            self.settle(&mut core, &mut after);
        }
        *wakes = std::mem::take(&mut after.wakes);
        self.finish(after);
    }

    /// Sends the results of peers' calls home; the others are for the router.
    fn is_ours(&self, input: &mut RouteInput) -> bool {
        let RouteInput::Result(ticket, outcome) = input else {
            return true;
        };
        if Mesh::is_foreign(*ticket) {
            self.mesh.reply(*ticket, outcome);
            return false;
        }
        // While this node hands over what it leads, its callers wait for the successor.
        if *outcome == Err(CallError::NotSent(Why::Draining)) && self.mesh.has_peers() {
            *outcome = Err(CallError::NotSent(Why::NotLeader));
        }
        true
    }

    /// The connection to a peer came up or broke.
    pub(crate) fn link(&self, peer: NodeId, is_up: bool) {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            core.router.on_link(peer, is_up);
            self.settle(&mut core, &mut after);
        }
        self.finish(after);
    }

    /// Gives up what is due and tries again what waits.
    pub(crate) fn tick(&self) {
        self.pass_time(self.clock.now());
    }

    /// Gives up every call there is.
    pub(crate) fn give_up(&self) {
        self.pass_time(Mono(u64::MAX));
    }

    fn pass_time(&self, now: Mono) {
        let mut after = After::default();
        {
            let mut core = self.core.lock();
            if core.router.next_timeout().is_none_or(|at| at > now) {
                return;
            }
            core.router.on_timeout(now);
            self.settle(&mut core, &mut after);
        }
        self.finish(after);
    }

    /// Calls neither answered nor given up.
    pub(crate) fn in_flight(&self) -> usize {
        self.core.lock().router.in_flight()
    }

    /// One request of a caller that can wait. Dropping the future forgets the caller, not the request.
    pub(crate) async fn call(&self, request: Request) -> Outcome {
        let (sender, receiver) = oneshot::channel();
        let slot = self.wait_for(Waiting::Caller(sender));
        let _forget = Forget { route: self, slot };
        self.submit(&mut vec![Submission {
            lane: None,
            origin: Origin::Waiting(slot),
            call: Call {
                retry: retry_of(&request),
                request,
                deadline: self.deadline(CALL_MS),
            },
        }]);
        receiver
            .await
            .unwrap_or(Err(CallError::Unknown(Why::Draining)))
    }

    /// Prepares the reading of one message for delivering it again.
    pub(crate) fn redelivery(
        &self,
        conn: ConnId,
        channel: ChannelKey,
        seq: MessageSeq,
    ) -> Submission {
        let request = Request::Query(Box::new(wk_chat::Query::Messages {
            channel: channel.clone(),
            first: seq,
            last: seq,
            dir: wk_store::Dir::Up,
            limit: 1,
        }));
        let slot = self.wait_for(Waiting::Redelivery(conn, channel));
        Submission {
            lane: None,
            origin: Origin::Waiting(slot),
            call: Call {
                request,
                retry: Retry::IfIdempotent,
                deadline: self.deadline(CALL_MS),
            },
        }
    }

    fn wait_for(&self, waiting: Waiting) -> u64 {
        let slot = self.next_waiting.fetch_add(1, Relaxed);
        self.waiting.lock().insert(slot, waiting);
        slot
    }

    /// Hands on what the router wants, until it wants nothing.
    fn settle(&self, core: &mut Core, after: &mut After) {
        let mut out = std::mem::take(&mut core.out);
        loop {
            core.router.poll(&mut out);
            if out.is_empty() {
                break;
            }
            for item in out.drain(..) {
                self.hand_on(item, core, after);
            }
        }
        core.out = out;
        for (shard, inputs) in core.inputs.iter_mut().enumerate() {
            if !inputs.is_empty() && self.shards[shard].put(inputs) {
                after.shards.push(shard);
            }
        }
    }

    fn hand_on(&self, item: RouterOut<Origin>, core: &mut Core, after: &mut After) {
        match item {
            RouterOut::ToShard(ticket, group, term, request) => {
                let shard = self.shard_of(group);
                core.inputs[shard].push(Input::Call(ticket, group, Some(term), request));
            }
            RouterOut::ToPeer(node, ticket, group, term, request) => {
                if let Err(why) = self.mesh.call(node, ticket, (group, term), &request) {
                    // The router hears it in the same breath, and the call parks.
                    let refused = Err(CallError::NotSent(why));
                    core.router.on_result(self.clock.now(), ticket, refused);
                }
            }
            RouterOut::Done(origin, outcome) => {
                self.done(origin, outcome, &mut core.inputs, after);
            }
        }
    }

    fn finish(&self, after: After) {
        for shard in after.shards {
            self.shards[shard].wake();
        }
        if !after.wakes.is_empty() {
            self.hub.wake(after.wakes);
        }
    }

    fn done(&self, origin: Origin, outcome: Outcome, inputs: &mut [Vec<Input>], after: &mut After) {
        match origin {
            Origin::Send(conn, ticket) => {
                let result = self.send_result(&outcome);
                self.hub
                    .push(conn, Event::Done(ticket, result), &mut after.wakes);
            }
            Origin::Admit(conn) => self.hub.push(conn, admission(&outcome), &mut after.wakes),
            Origin::Waiting(slot) => self.answer(slot, outcome, after),
            Origin::Outbox(group, key) => {
                let applied = matches!(outcome, Ok(Reply::Done));
                let input = Input::OutboxResult(group, key, applied);
                inputs[self.shard_of(group)].push(input);
            }
            Origin::Asked(shard, ticket) => {
                let answer = match outcome {
                    Ok(Reply::Answer(answer)) => Some(*answer),
                    _ => None,
                };
                inputs[shard].push(Input::Asked(ticket, answer));
            }
            Origin::Nobody => {}
        }
    }

    fn answer(&self, slot: u64, outcome: Outcome, after: &mut After) {
        let waiting = self.waiting.lock().remove(&slot);
        match waiting {
            // A caller that went away is not interested any more.
            Some(Waiting::Caller(sender)) => drop(sender.send(outcome)),
            Some(Waiting::Redelivery(conn, channel)) => {
                if let Some(delivery) = redelivered(channel, outcome) {
                    let event = Event::Deliver(Arc::new(delivery));
                    self.hub.push(conn, event, &mut after.wakes);
                }
            }
            None => {}
        }
    }

    /// What a session is told about its SEND. An outcome nobody knows, or that has to wait too long, is 15 (H30, H32).
    fn send_result(&self, outcome: &Outcome) -> SendResult {
        let (id, seq, reason) = match outcome {
            Ok(Reply::Sent(sent)) => (sent.message_id, sent.message_seq, sent.reason),
            Ok(Reply::Refused(reason)) => (MessageId(0), MessageSeq(0), *reason),
            _ => (MessageId(0), MessageSeq(0), Reason::SystemError),
        };
        SendResult {
            message_id: if id.0 == 0 { self.failure_id() } else { id },
            message_seq: seq,
            reason,
        }
    }

    /// An id for a SENDACK of a message that was not stored: unique on this node, never 0. Spec: messaging 4.3, H15.
    pub(crate) fn failure_id(&self) -> MessageId {
        let floor = snowflake(self.clock.wall(), self.node);
        let mut id = floor;
        // `fetch_update` with a function that always answers cannot fail.
        let _ = self.last_id.fetch_update(Relaxed, Relaxed, |last| {
            id = floor.max(last + 1);
            Some(id)
        });
        MessageId(id)
    }
}

/// Removes a caller that does not wait any more.
struct Forget<'a> {
    route: &'a Route,
    slot: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.route.waiting.lock().remove(&self.slot);
    }
}

/// See [`Route::shard_of`].
pub(crate) fn shard_of(group: GroupId, shards: usize) -> usize {
    group.to_u32() as usize % shards
}

/// Drives the router's deadlines until the node is gone.
pub(crate) async fn run(route: Arc<Route>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(ROUTE_TICK_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        route.tick();
    }
}

/// Milliseconds of the id's epoch after 1970.
const ID_EPOCH_MS: u64 = 1_288_834_974_657;

fn snowflake(now: WallMs, node: NodeId) -> i64 {
    let ms = now.0.saturating_sub(ID_EPOCH_MS) as i64;
    (ms << 22) | (i64::from(node.0 & 0x3ff) << 12)
}

/// Whether sending it twice is the same as once. Sends carry a `client_msg_no`; writes may meet other writers in between.
fn retry_of(request: &Request) -> Retry {
    match request {
        Request::Send(send) if send.client_msg_no.is_empty() => Retry::Never,
        Request::Send(_) | Request::Admit(_) | Request::Query(_) => Retry::IfIdempotent,
        Request::Write(write) if matches!(**write, Write::Inbox(_)) => Retry::IfIdempotent,
        Request::Write(_) => Retry::Never,
    }
}

/// A call for an outbox row: idempotent by its epoch.
pub(crate) fn outbox_call(
    group: GroupId,
    key: OutboxKey,
    inbox: wk_chat::request::Inbox,
    deadline: Mono,
) -> Submission {
    Submission {
        lane: None,
        origin: Origin::Outbox(group, key),
        call: Call {
            request: Request::Write(Box::new(Write::Inbox(inbox))),
            retry: Retry::IfIdempotent,
            deadline,
        },
    }
}

/// A call for a fact another group has.
pub(crate) fn asked_call(
    shard: usize,
    ticket: Ticket,
    query: Box<wk_chat::Query>,
    deadline: Mono,
) -> Submission {
    Submission {
        lane: None,
        origin: Origin::Asked(shard, ticket),
        call: Call {
            request: Request::Query(query),
            retry: Retry::IfIdempotent,
            deadline,
        },
    }
}

fn admission(outcome: &Outcome) -> Event {
    match outcome {
        Ok(Reply::Admitted(grant, fence)) => Event::Admitted {
            master: grant.level == DeviceLevel::Master,
            send_ban: grant.send_ban,
            fence: *fence,
        },
        Ok(Reply::Refused(reason)) => Event::Refused(*reason),
        _ => Event::Unavailable,
    }
}

fn redelivered(channel: ChannelKey, outcome: Outcome) -> Option<Delivery> {
    let Ok(Reply::Answer(answer)) = outcome else {
        return None;
    };
    let Answer::Messages(messages) = *answer else {
        return None;
    };
    let stored = messages.into_iter().next()?;
    Some(Delivery {
        channel,
        seq: Some(stored.seq),
        record: stored.record,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::task::{Context, Waker};
    use wk_chat::request::Origin as Sender;
    use wk_chat::{SendRequest, SendResult as Sent};
    use wk_proto::{ChannelId, ChannelType, Flags, Uid};

    struct World {
        hub: Arc<Hub>,
        inbox: Arc<Inbox>,
        gate: Arc<Gate>,
        route: Route,
    }

    fn world() -> World {
        let (hub, _) = Hub::new();
        let hub = Arc::new(hub);
        let inbox = Arc::new(Inbox::default());
        let gate = Arc::new(Gate::new());
        let shards = vec![inbox.clone()];
        let route = Route::new(
            NodeId(1),
            4,
            Clock::new(),
            gate.clone(),
            hub.clone(),
            shards,
            Arc::new(Mesh::alone(NodeId(1))),
        );
        for group in 0..=4 {
            let group = GroupId::from_u32(group).expect("small numbers are groups");
            let leader = RouteInput::Leader(group, Term(1), Some(NodeId(1)));
            route.report(&mut vec![leader], &mut Wakes::default());
        }
        World {
            hub,
            inbox,
            gate,
            route,
        }
    }

    fn send(conn: ConnId, ticket: u64) -> Submission {
        let request = Request::Send(Arc::new(SendRequest {
            channel: ChannelKey::new(ChannelId::trusted("g"), ChannelType::GROUP),
            from: Uid::trusted("u"),
            origin: Sender::Server,
            flags: Flags(0),
            setting: 0,
            expire: 0,
            client_msg_no: "n".into(),
            topic: "".into(),
            stream_no: "".into(),
            payload: bytes::Bytes::new(),
            recipients: None,
            receiver_allows_strangers: None,
        }));
        Submission {
            lane: Some(LaneId(conn.0)),
            origin: Origin::Send(conn, Ticket(ticket)),
            call: Call {
                retry: retry_of(&request),
                request,
                deadline: Mono(u64::MAX),
            },
        }
    }

    fn calls(inbox: &Inbox) -> Vec<Ticket> {
        let mut inputs = Vec::new();
        inbox.wait(Some(Duration::ZERO), false, &mut inputs);
        let tickets = inputs.into_iter().filter_map(|input| match input {
            Input::Call(ticket, ..) => Some(ticket),
            _ => None,
        });
        tickets.collect()
    }

    #[test]
    fn results_reach_the_mailbox_in_the_order_of_the_calls() {
        let w = world();
        let guard = w.hub.add(([127, 0, 0, 1], 1).into(), WallMs(0));
        let id = guard.conn.id;
        w.route.submit(&mut vec![send(id, 7), send(id, 8)]);
        let tickets = calls(&w.inbox);
        assert_eq!(tickets.len(), 2);
        let sent = |ticket: Ticket| {
            RouteInput::Result(
                ticket,
                Ok(Reply::Sent(Sent {
                    message_id: MessageId(5),
                    message_seq: MessageSeq(1),
                    reason: Reason::Success,
                })),
            )
        };
        let mut news = tickets.into_iter().map(sent).collect();
        w.route.report(&mut news, &mut Wakes::default());
        let mut events = VecDeque::new();
        let cx = Context::from_waker(Waker::noop());
        assert!(guard.conn.poll_mail(&cx, 1, &mut events).is_ready());
        let done: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Done(ticket, result) => (ticket.0, result.reason),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(done, [(7, Reason::Success), (8, Reason::Success)]);
    }

    #[test]
    fn a_broken_node_answers_15_with_an_id_at_once() {
        let w = world();
        let guard = w.hub.add(([127, 0, 0, 1], 1).into(), WallMs(0));
        w.gate.fail("disk".into());
        w.route.submit(&mut vec![send(guard.conn.id, 1)]);
        assert!(calls(&w.inbox).is_empty());
        let mut events = VecDeque::new();
        let cx = Context::from_waker(Waker::noop());
        assert!(guard.conn.poll_mail(&cx, 1, &mut events).is_ready());
        let Some(Event::Done(_, result)) = events.pop_front() else {
            panic!("answered");
        };
        assert_eq!(result.reason, Reason::SystemError);
        assert_ne!(result.message_id, MessageId(0));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_is_forgotten() {
        let w = world();
        let query = Request::Query(Box::new(wk_chat::Query::SystemUids));
        {
            let call = std::pin::pin!(w.route.call(query));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(call.poll(&mut cx).is_pending());
        }
        assert!(w.route.waiting.lock().is_empty());
        assert_eq!(w.route.in_flight(), 1);
    }

    #[test]
    fn failure_ids_ascend() {
        let w = world();
        let ids: Vec<_> = (0..100).map(|_| w.route.failure_id()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
