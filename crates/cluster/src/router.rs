//! Lanes, parking and retries: every request of this node goes through here.
//!
//! ```text
//!  submit ─▶ [lane: FIFO per (lane, group), pinned to one leader term] ─▶ ToShard / ToPeer ─▶ on_result ─▶ Done
//!                   │ no leader, busy, leadership lost                        │
//!                   └────────────── parked, in order, until its deadline ◀────┘
//! ```
//!
//! * H30: while a group has no leader its calls wait here, bounded by bytes, until their deadline.
//! * H31: a lane's calls to a group go to one leader term at a time; nothing goes to a newer term until everything sent to the older
//!   one is resolved, and what has to be sent again goes first, in the order it was submitted. Each call names its term, so that one
//!   that was long on its way is not taken by a later leader.
//! * H32: after an unknown outcome only a call marked [`Retry::IfIdempotent`] is sent again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use wk_chat::request::{CallError, Why};
use wk_chat::{Reply, Request};
use wk_proto::{GroupId, Mono, NodeId, Term, Ticket};

/// Keeps the order of one caller's requests to one group: a connection, or an API request with several steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// Whether a call may be sent again when nobody knows if it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Applying it twice is the same as once.
    IfIdempotent,
    /// The caller is told `Unknown`.
    Never,
}

/// One request on its way.
#[derive(Clone, Debug)]
pub struct Call {
    /// What to ask.
    pub request: Request,
    /// What to do about an unknown outcome.
    pub retry: Retry,
    /// When to give up.
    pub deadline: Mono,
}

/// Bounds of the router; at each one `submit` hands the call back.
#[derive(Clone, Copy, Debug)]
pub struct RouterLimits {
    /// Calls neither answered nor given up.
    pub calls_max: usize,
    /// Bytes of all calls (H30). Above it only calls of at most [`SMALL_BYTES`] are taken: a flood of large messages must not shut
    /// out logins and queries, and those are bounded by their number.
    pub bytes_max: usize,
    /// Bytes sent to one group and not resolved; above it calls wait here, in order, so that a leader need not refuse them
    /// one by one (which could invert a lane).
    pub group_bytes_max: usize,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            calls_max: 200_000,
            bytes_max: 256 * 1024 * 1024,
            group_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// What the driver must do.
#[derive(Debug)]
pub enum RouterOut<O> {
    /// Hand to the local shard that owns the group, for its leader of this term alone; report with `on_result`.
    ToShard(Ticket, GroupId, Term, Request),
    /// Hand to a peer, likewise; report with `on_result`.
    ToPeer(NodeId, Ticket, GroupId, Term, Request),
    /// The end of the call that was submitted with this origin.
    Done(O, Result<Reply, CallError>),
}

/// Hash maps here are only looked up, never walked: order cannot leak.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<std::hash::DefaultHasher>>;

#[derive(Debug)]
struct Pending<O> {
    origin: O,
    call: Call,
    group: GroupId,
    lane: Option<LaneId>,
    state: State,
    cost: usize,
    /// An earlier attempt may have had its effect: that nothing was sent can no longer be said.
    maybe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Sent to the leader of this term.
    Sent(Term),
    /// Waiting for a leader, for room, or for its turn in the lane.
    Waiting,
}

/// Calls of one lane to one group that are not resolved, in the order they were submitted.
#[derive(Debug, Default)]
struct Lane {
    order: VecDeque<Ticket>,
    /// How many of them are out.
    sent: usize,
    /// The term they were sent at.
    sent_term: Term,
    /// One of them came back and must be sent again before anything else goes out: wait until all that are out are resolved.
    held: bool,
    /// Already in `GroupState::parked_lanes`.
    parked: bool,
}

#[derive(Debug, Default)]
struct GroupState {
    term: Term,
    leader: Option<NodeId>,
    /// Bytes out.
    bytes: usize,
    /// The leader was busy or lost office: nothing goes out before this time.
    retry_at: Option<Mono>,
    /// Calls without a lane that wait.
    parked: VecDeque<Ticket>,
    /// Lanes with something that waits.
    parked_lanes: VecDeque<LaneId>,
    /// Whose turn it was last.
    singles_first: bool,
}

/// See the module. `O` names the caller: a connection and its ticket, an API request, an outbox row.
#[derive(Debug)]
pub struct Router<O> {
    slot_count: u16,
    node: NodeId,
    limits: RouterLimits,
    next_ticket: u64,
    calls: Map<Ticket, Pending<O>>,
    /// Cost of all `calls`.
    bytes: usize,
    lanes: Map<(LaneId, GroupId), Lane>,
    groups: Vec<GroupState>,
    /// Nodes without a link: what they lead is as good as led by nobody.
    cut_off: BTreeSet<NodeId>,
    /// In order of submission. Callers use few different time-outs, so expiry looks at the front; a short one behind a long one
    /// ends with the long one.
    deadlines: VecDeque<(Mono, Ticket)>,
    out: Vec<RouterOut<O>>,
}

/// What a call costs that is taken whatever the others weigh: logins, queries, writes, short messages.
pub const SMALL_BYTES: usize = 4 * 1024;

/// How long a group whose leader just refused is left alone.
const RETRY_AFTER_MS: u64 = 10;

impl<O: Copy> Router<O> {
    /// A router of `node` that knows no leader yet.
    pub fn new(node: NodeId, slot_count: u16, limits: RouterLimits) -> Self {
        Self {
            slot_count,
            node,
            limits,
            next_ticket: 1,
            calls: Map::default(),
            bytes: 0,
            lanes: Map::default(),
            groups: (0..=slot_count).map(|_| GroupState::default()).collect(),
            cut_off: BTreeSet::new(),
            deadlines: VecDeque::new(),
            out: Vec::new(),
        }
    }

    /// Calls neither answered nor given up.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// Takes a call. With a `lane`, its order among the lane's calls to the same group is kept. At the bound the call comes back:
    /// nothing was done, the caller answers "busy".
    pub fn submit(&mut self, lane: Option<LaneId>, origin: O, call: Call) -> Result<(), Call> {
        let cost = call.request.cost();
        let is_full = self.calls.len() >= self.limits.calls_max;
        let is_heavy = self.bytes + cost > self.limits.bytes_max && cost > SMALL_BYTES;
        if is_full || is_heavy {
            return Err(call);
        }
        self.bytes += cost;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let group = call.request.group(self.slot_count);
        self.deadlines.push_back((call.deadline, ticket));
        self.calls.insert(
            ticket,
            Pending {
                origin,
                call,
                group,
                lane,
                state: State::Waiting,
                cost,
                maybe: false,
            },
        );
        match lane {
            Some(lane) => {
                self.lanes
                    .entry((lane, group))
                    .or_default()
                    .order
                    .push_back(ticket);
                self.advance_lane(lane, group);
            }
            None => self.advance_single(ticket, group),
        }
        Ok(())
    }

    /// A newer term of a group, or its leader, became known. Older news is ignored.
    pub fn on_leader(&mut self, group: GroupId, term: Term, node: Option<NodeId>) {
        let Some(state) = self.groups.get_mut(index(group)) else {
            return;
        };
        if term < state.term || (term == state.term && node.is_none()) {
            return;
        }
        state.term = term;
        state.leader = node;
        if node.is_some() {
            state.retry_at = None;
            self.release(group);
        }
    }

    /// The link to a peer came up (as the router assumes of every peer) or broke. Calls for groups it leads wait while there is none; what was on its way when it broke
    /// is the driver's to report.
    pub fn on_link(&mut self, peer: NodeId, is_up: bool) {
        if !is_up {
            self.cut_off.insert(peer);
            return;
        }
        self.cut_off.remove(&peer);
        for number in 0..self.groups.len() {
            if self.groups[number].leader == Some(peer)
                && let Some(group) = GroupId::from_u32(number as u32)
            {
                self.release(group);
            }
        }
    }

    /// The result of a `ToShard` or `ToPeer`. Results of unknown tickets belong to calls that were given up.
    pub fn on_result(&mut self, now: Mono, ticket: Ticket, result: Result<Reply, CallError>) {
        let Some(pending) = self.calls.get_mut(&ticket) else {
            return;
        };
        let State::Sent(_) = pending.state else {
            return;
        };
        let (lane, group) = (pending.lane, pending.group);
        pending.maybe |= matches!(result, Err(CallError::Unknown(_)));
        let again = may_retry(pending.call.retry, &result) && now < pending.call.deadline;
        if again {
            pending.state = State::Waiting;
            self.resolved(ticket, group, lane, true);
            self.groups[index(group)].retry_at = Some(now.plus_ms(RETRY_AFTER_MS));
        } else {
            self.resolved(ticket, group, lane, false);
            self.finish(ticket, result);
        }
        match lane {
            Some(lane) => self.advance_lane(lane, group),
            None if again => self.groups[index(group)].parked.push_back(ticket),
            None => {}
        }
        self.release_if_room(group);
    }

    /// Gives up what is due and tries again what waits.
    pub fn on_timeout(&mut self, now: Mono) {
        self.expire(now);
        for number in 0..self.groups.len() {
            let state = &mut self.groups[number];
            if state.retry_at.is_some_and(|at| at <= now) {
                state.retry_at = None;
                if let Some(group) = GroupId::from_u32(number as u32) {
                    self.release(group);
                }
            }
        }
    }

    /// When `on_timeout` is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        let retry = self.groups.iter().filter_map(|g| g.retry_at).min();
        [deadline, retry].into_iter().flatten().min()
    }

    /// Moves what the driver must do into `out`.
    pub fn poll(&mut self, out: &mut Vec<RouterOut<O>>) {
        out.append(&mut self.out);
    }

    /// Sends what the lane may send now, in order.
    fn advance_lane(&mut self, lane: LaneId, group: GroupId) {
        let Some(entry) = self.lanes.get_mut(&(lane, group)) else {
            return;
        };
        if entry.order.is_empty() {
            self.lanes.remove(&(lane, group));
            return;
        }
        let state = &mut self.groups[index(group)];
        if entry.sent > 0 && (entry.held || entry.sent_term != state.term) {
            return; // resolved() of the last one out comes back here
        }
        if entry.sent == 0 {
            entry.held = false;
        }
        // Waiting calls are a suffix now: everything that is out precedes them.
        for at in entry.sent..entry.order.len() {
            if !may_send(state, &self.limits, &self.cut_off) {
                if !entry.parked {
                    entry.parked = true;
                    state.parked_lanes.push_back(lane);
                }
                return;
            }
            let ticket = entry.order[at];
            entry.sent += 1;
            entry.sent_term = state.term;
            if let Some(pending) = self.calls.get_mut(&ticket) {
                self.out.push(send(self.node, state, ticket, pending));
            }
        }
    }

    fn advance_single(&mut self, ticket: Ticket, group: GroupId) {
        let state = &mut self.groups[index(group)];
        let Some(pending) = self.calls.get_mut(&ticket) else {
            return;
        };
        if may_send(state, &self.limits, &self.cut_off) {
            self.out.push(send(self.node, state, ticket, pending));
        } else {
            state.parked.push_back(ticket);
        }
    }

    /// Takes a call that was out back into account; `again` = it will be sent again.
    fn resolved(&mut self, ticket: Ticket, group: GroupId, lane: Option<LaneId>, again: bool) {
        let cost = self.calls.get(&ticket).map_or(0, |p| p.cost);
        let state = &mut self.groups[index(group)];
        assert!(state.bytes >= cost, "bytes out are counted at send");
        state.bytes -= cost;
        if let Some(entry) = lane.and_then(|l| self.lanes.get_mut(&(l, group))) {
            assert!(entry.sent > 0, "a result belongs to a call that is out");
            entry.sent -= 1;
            if again {
                entry.held = true;
            }
        }
    }

    fn release_if_room(&mut self, group: GroupId) {
        let state = &self.groups[index(group)];
        let waits = !state.parked.is_empty() || !state.parked_lanes.is_empty();
        if waits && state.bytes <= self.limits.group_bytes_max / 2 && state.retry_at.is_none() {
            self.release(group);
        }
    }

    /// Lets everything that waits for this group try again. Lanes and single calls come first in turn: whoever sends much would
    /// otherwise keep the others waiting for good.
    fn release(&mut self, group: GroupId) {
        let state = &mut self.groups[index(group)];
        state.singles_first = !state.singles_first;
        let singles_first = state.singles_first;
        let lanes = std::mem::take(&mut state.parked_lanes);
        let singles = std::mem::take(&mut state.parked);
        if singles_first {
            self.release_singles(singles, group);
            self.release_lanes(lanes, group);
        } else {
            self.release_lanes(lanes, group);
            self.release_singles(singles, group);
        }
    }

    fn release_singles(&mut self, singles: VecDeque<Ticket>, group: GroupId) {
        for ticket in singles {
            self.advance_single(ticket, group);
        }
    }

    /// Lanes that got something and want more go to the back.
    fn release_lanes(&mut self, lanes: VecDeque<LaneId>, group: GroupId) {
        let mut served = VecDeque::new();
        for lane in lanes {
            let Some(entry) = self.lanes.get_mut(&(lane, group)) else {
                continue;
            };
            entry.parked = false;
            let before = entry.sent;
            self.advance_lane(lane, group);
            let entry = self.lanes.get(&(lane, group));
            if entry.is_some_and(|e| e.parked && e.sent > before) {
                self.groups[index(group)].parked_lanes.pop_back();
                served.push_back(lane);
            }
        }
        self.groups[index(group)].parked_lanes.append(&mut served);
    }

    fn expire(&mut self, now: Mono) {
        while let Some((at, ticket)) = self.deadlines.front().copied() {
            let Some(pending) = self.calls.get(&ticket) else {
                self.deadlines.pop_front();
                continue;
            };
            if at > now {
                break;
            }
            self.deadlines.pop_front();
            let (lane, group, state) = (pending.lane, pending.group, pending.state);
            let error = match state {
                State::Waiting => CallError::NotSent(Why::Timeout),
                State::Sent(_) => {
                    self.resolved(ticket, group, lane, false);
                    CallError::Unknown(Why::Timeout)
                }
            };
            self.finish(ticket, Err(error));
            if let Some(lane) = lane {
                self.advance_lane(lane, group);
            }
            self.release_if_room(group);
        }
    }

    fn finish(&mut self, ticket: Ticket, result: Result<Reply, CallError>) {
        let Some(pending) = self.calls.remove(&ticket) else {
            return;
        };
        self.bytes -= pending.cost;
        if let Some(entry) = pending
            .lane
            .and_then(|l| self.lanes.get_mut(&(l, pending.group)))
        {
            match entry.order.iter().position(|t| *t == ticket) {
                Some(0) => drop(entry.order.pop_front()),
                Some(at) => drop(entry.order.remove(at)),
                None => {}
            }
        }
        while self
            .deadlines
            .front()
            .is_some_and(|(_, t)| !self.calls.contains_key(t))
        {
            self.deadlines.pop_front();
        }
        let result = match result {
            Err(CallError::NotSent(why)) if pending.maybe => Err(CallError::Unknown(why)),
            result => result,
        };
        self.out.push(RouterOut::Done(pending.origin, result));
    }
}

fn index(group: GroupId) -> usize {
    group.to_u32() as usize
}

/// Whether one more call may go out to this group now. Nobody overtakes those who wait.
fn may_send(state: &GroupState, limits: &RouterLimits, cut_off: &BTreeSet<NodeId>) -> bool {
    let is_reachable = state
        .leader
        .is_some_and(|leader| !cut_off.contains(&leader));
    let is_open = is_reachable && state.retry_at.is_none();
    let is_free = state.parked.is_empty() && state.parked_lanes.is_empty();
    is_open && is_free && state.bytes < limits.group_bytes_max
}

fn send<O>(
    own: NodeId,
    state: &mut GroupState,
    ticket: Ticket,
    pending: &mut Pending<O>,
) -> RouterOut<O> {
    pending.state = State::Sent(state.term);
    state.bytes += pending.cost;
    let (group, term) = (pending.group, state.term);
    let request = pending.call.request.clone();
    match state.leader {
        Some(node) if node != own => RouterOut::ToPeer(node, ticket, group, term, request),
        _ => RouterOut::ToShard(ticket, group, term, request),
    }
}

fn may_retry(retry: Retry, result: &Result<Reply, CallError>) -> bool {
    match result {
        Ok(_) | Err(CallError::NotSent(Why::Faulty | Why::Draining)) => false,
        Err(CallError::NotSent(_)) => true,
        Err(CallError::Unknown(_)) => retry == Retry::IfIdempotent,
    }
}

#[cfg(test)]
mod tests;
