use std::sync::Arc;

use proptest::prelude::*;
use wk_chat::Query;
use wk_proto::SlotId;

use super::*;

const GROUP: GroupId = GroupId::Control;
const NODE: NodeId = NodeId(1);

fn call(deadline_ms: u64, retry: Retry) -> Call {
    Call {
        request: Request::Query(Box::new(Query::SystemUids)),
        retry,
        deadline: Mono(0).plus_ms(deadline_ms),
    }
}

fn ok() -> Result<Reply, CallError> {
    Ok(Reply::Done)
}

struct Harness {
    router: Router<u32>,
    out: Vec<(Ticket, NodeId)>,
    done: Vec<(u32, Result<Reply, CallError>)>,
}

impl Harness {
    fn new() -> Self {
        Self {
            router: Router::new(NODE, 4, RouterLimits::default()),
            out: Vec::new(),
            done: Vec::new(),
        }
    }

    fn poll(&mut self) {
        let mut out = Vec::new();
        self.router.poll(&mut out);
        for item in out {
            match item {
                RouterOut::ToShard(t, ..) => self.out.push((t, NODE)),
                RouterOut::ToPeer(n, t, ..) => self.out.push((t, n)),
                RouterOut::Done(o, r) => self.done.push((o, r)),
            }
        }
    }

    fn submit(&mut self, origin: u32, lane: Option<u64>, deadline_ms: u64, retry: Retry) {
        self.router
            .submit(lane.map(LaneId), origin, call(deadline_ms, retry))
            .expect("below the bound");
        self.poll();
    }

    fn leader(&mut self, term: u64, node: u32) {
        self.router.on_leader(GROUP, Term(term), Some(NodeId(node)));
        self.poll();
    }

    fn result(&mut self, now_ms: u64, ticket: Ticket, result: Result<Reply, CallError>) {
        self.router
            .on_result(Mono(0).plus_ms(now_ms), ticket, result);
        self.poll();
    }

    fn time(&mut self, now_ms: u64) {
        self.router.on_timeout(Mono(0).plus_ms(now_ms));
        self.poll();
    }

    fn take_out(&mut self) -> Vec<(Ticket, NodeId)> {
        std::mem::take(&mut self.out)
    }
}

#[test]
fn calls_park_without_a_leader_and_go_when_one_is_known() {
    let mut h = Harness::new();
    h.submit(1, None, 5_000, Retry::Never);
    h.submit(2, Some(7), 5_000, Retry::Never);
    assert!(h.out.is_empty());
    h.leader(1, 1);
    assert_eq!(h.out.len(), 2);
}

#[test]
fn a_parked_call_ends_with_not_sent_at_its_deadline() {
    let mut h = Harness::new();
    h.submit(1, Some(7), 5_000, Retry::IfIdempotent);
    assert_eq!(h.router.next_timeout(), Some(Mono(0).plus_ms(5_000)));
    h.time(4_999);
    assert!(h.done.is_empty());
    h.time(5_000);
    assert_eq!(h.done, [(1, Err(CallError::NotSent(Why::Timeout)))]);
    assert_eq!(h.router.in_flight(), 0);
}

#[test]
fn a_call_names_the_term_it_is_meant_for() {
    let mut h = Harness::new();
    let mut terms = Vec::new();
    for (term, node) in [(3, 1), (4, 2)] {
        h.router.on_leader(GROUP, Term(term), Some(NodeId(node)));
        h.router
            .submit(None, 1, call(5_000, Retry::Never))
            .expect("below the bound");
        let mut out = Vec::new();
        h.router.poll(&mut out);
        terms.extend(out.into_iter().map(|item| match item {
            RouterOut::ToShard(_, _, term, _) | RouterOut::ToPeer(_, _, _, term, _) => term,
            RouterOut::Done(..) => panic!("nobody answered"),
        }));
    }
    assert_eq!(terms, [Term(3), Term(4)]);
}

#[test]
fn an_unknown_outcome_is_retried_only_if_idempotent() {
    let mut h = Harness::new();
    h.leader(1, 1);
    h.submit(1, None, 5_000, Retry::Never);
    h.submit(2, None, 5_000, Retry::IfIdempotent);
    let out = h.take_out();
    for (ticket, _) in &out {
        h.result(0, *ticket, Err(CallError::Unknown(Why::LostLeadership)));
    }
    assert_eq!(h.done, [(1, Err(CallError::Unknown(Why::LostLeadership)))]);
    h.time(10);
    assert_eq!(h.take_out(), [out[1]], "the same call again");
}

#[test]
fn after_an_unknown_attempt_nobody_is_told_that_nothing_was_sent() {
    let mut h = Harness::new();
    h.leader(1, 1);
    h.submit(1, None, 5_000, Retry::IfIdempotent);
    let out = h.take_out();
    h.result(0, out[0].0, Err(CallError::Unknown(Why::Link)));
    h.time(5_000);
    assert_eq!(h.done, [(1, Err(CallError::Unknown(Why::Timeout)))]);
}

#[test]
fn a_lane_sends_nothing_to_a_new_term_before_the_old_one_is_resolved() {
    let mut h = Harness::new();
    h.leader(1, 2);
    h.submit(1, Some(7), 5_000, Retry::IfIdempotent);
    h.submit(2, Some(7), 5_000, Retry::IfIdempotent);
    let first = h.take_out();
    assert_eq!(first.len(), 2);
    h.leader(2, 3);
    h.submit(3, Some(7), 5_000, Retry::IfIdempotent);
    assert!(h.out.is_empty(), "two calls are still out at term 1");
    h.result(1, first[0].0, Err(CallError::Unknown(Why::LostLeadership)));
    assert!(h.out.is_empty());
    h.result(1, first[1].0, ok());
    h.time(11);
    let again = h.take_out();
    assert_eq!(
        again[0],
        (first[0].0, NodeId(3)),
        "the unresolved one goes first"
    );
    assert_eq!(again.len(), 2);
}

#[test]
fn a_late_result_after_the_deadline_is_ignored() {
    let mut h = Harness::new();
    h.leader(1, 1);
    h.submit(1, Some(7), 100, Retry::IfIdempotent);
    let out = h.take_out();
    h.time(100);
    assert_eq!(h.done, [(1, Err(CallError::Unknown(Why::Timeout)))]);
    h.result(101, out[0].0, ok());
    assert_eq!(h.done.len(), 1);
}

#[test]
fn the_bound_hands_the_call_back() {
    let limits = RouterLimits {
        calls_max: 1,
        ..RouterLimits::default()
    };
    let mut router: Router<u32> = Router::new(NODE, 4, limits);
    assert!(router.submit(None, 1, call(1, Retry::Never)).is_ok());
    assert!(router.submit(None, 2, call(1, Retry::Never)).is_err());
}

fn message(bytes: usize) -> Call {
    let send = wk_chat::SendRequest {
        channel: wk_proto::ChannelKey::new(
            wk_proto::ChannelId::trusted("c"),
            wk_proto::ChannelType::GROUP,
        ),
        from: wk_proto::Uid::trusted("u"),
        origin: wk_chat::request::Origin::Server,
        flags: wk_proto::Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: Arc::from("n"),
        topic: Arc::from(""),
        stream_no: Arc::from(""),
        payload: vec![0; bytes].into(),
        recipients: None,
        receiver_allows_strangers: None,
    };
    Call {
        request: Request::Send(Arc::new(send)),
        ..call(1, Retry::Never)
    }
}

/// A flood of large messages ends at the bound, and others still get in.
#[test]
fn bytes_are_bounded_and_small_calls_go_on() {
    let limits = RouterLimits {
        bytes_max: 100_000,
        ..RouterLimits::default()
    };
    let mut router: Router<u32> = Router::new(NODE, 4, limits);
    let taken = (0..100).take_while(|&n| router.submit(None, n, message(9_000)).is_ok());
    assert_eq!(taken.count(), 10);
    assert!(router.submit(None, 100, call(1, Retry::Never)).is_ok());
    assert!(router.submit(None, 101, message(100)).is_ok());
    // Room comes back with the end of calls, whatever it was.
    router.on_timeout(Mono(0).plus_ms(2));
    assert_eq!(router.in_flight(), 0);
    assert!(router.submit(None, 102, message(99_000)).is_ok());
    assert!(router.submit(None, 103, message(9_000)).is_err());
}

/// One lane that always wants more, one that wants a little, and a call without a lane: all get their turn.
#[test]
fn nobody_starves_behind_a_busy_lane() {
    let limits = RouterLimits {
        group_bytes_max: 1_024,
        ..RouterLimits::default()
    };
    let mut h = Harness {
        router: Router::new(NODE, 4, limits),
        out: Vec::new(),
        done: Vec::new(),
    };
    h.leader(1, 1);
    for n in 0..10 {
        h.submit(n, Some(1), 5_000, Retry::Never);
    }
    h.submit(100, Some(2), 5_000, Retry::Never);
    h.submit(101, None, 5_000, Retry::Never);
    let mut rounds = 0;
    while !(h.done.iter().any(|(n, _)| *n == 100) && h.done.iter().any(|(n, _)| *n == 101)) {
        rounds += 1;
        assert!(rounds < 12, "{:?}", h.done);
        let (ticket, _) = h.out.remove(0);
        h.result(1, ticket, ok());
        // The busy one has more at once, and the room just made.
        h.submit(10 + rounds, Some(1), 5_000, Retry::Never);
    }
    while !h.out.is_empty() {
        let (ticket, _) = h.out.remove(0);
        h.result(1, ticket, ok());
    }
    assert_eq!(h.router.in_flight(), 0, "nobody is forgotten");
}

#[test]
fn bytes_out_are_bounded_per_group() {
    let limits = RouterLimits {
        group_bytes_max: 1_024,
        ..RouterLimits::default()
    };
    let mut h = Harness {
        router: Router::new(NODE, 4, limits),
        out: Vec::new(),
        done: Vec::new(),
    };
    h.leader(1, 1);
    for n in 0..10 {
        h.submit(n, Some(7), 5_000, Retry::Never);
    }
    assert_eq!(h.out.len(), 2, "512 bytes each");
    while let Some((ticket, _)) = h.out.pop() {
        h.result(1, ticket, ok());
    }
    assert_eq!(h.done.len(), 10);
}

/// A send as clients make them, to have one test on a slot's group.
#[test]
fn routes_by_the_channel_of_a_send() {
    let from = wk_proto::Uid::trusted("a");
    let request = Request::Send(Arc::new(wk_chat::SendRequest {
        channel: wk_proto::ChannelKey::person(&from, &wk_proto::Uid::trusted("b")),
        from,
        origin: wk_chat::request::Origin::Server,
        flags: wk_proto::Flags(0),
        setting: 0,
        expire: 0,
        client_msg_no: "".into(),
        topic: "".into(),
        stream_no: "".into(),
        payload: Default::default(),
        recipients: None,
        receiver_allows_strangers: None,
    }));
    let group = request.group(64);
    assert!(matches!(group, GroupId::Slot(SlotId(n)) if n < 64));
}

proptest! {
    /// Whatever fails and in whichever order results arrive: each lane's accepted calls take effect in submission order, and every call
    /// ends exactly once.
    #[test]
    fn lanes_keep_order_and_every_call_ends_once(script in proptest::collection::vec((0u8..6, any::<u8>()), 1..200)) {
        let mut h = Harness::new();
        let (mut term, mut now, mut submitted) = (1u64, 0u64, 0u32);
        // What the current leader accepted: applied in order of arrival at that leader; a result is chosen later.
        let mut outstanding: Vec<(Ticket, u64)> = Vec::new();
        let mut effects: std::collections::BTreeMap<u64, Vec<Ticket>> = Default::default();
        let mut lost_at: std::collections::BTreeMap<(u64, u64), Ticket> = Default::default();
        let mut lane_of: std::collections::BTreeMap<Ticket, u64> = Default::default();
        h.leader(term, 1);
        for (op, arg) in script {
            match op {
                0 | 1 => {
                    submitted += 1;
                    h.submit(submitted, Some(u64::from(arg % 3)), 1_000_000, Retry::IfIdempotent);
                    lane_of.insert(Ticket(u64::from(submitted)), u64::from(arg % 3));
                }
                2 => { term += 1; h.leader(term, u32::from(arg % 3) + 1); }
                3 => { now += 10; h.time(now); }
                _ if !outstanding.is_empty() => {
                    let (ticket, sent_term) = outstanding.remove(usize::from(arg) % outstanding.len());
                    // A leader's log is a sequence: what it lost is a suffix of what it took.
                    let lane = lane_of[&ticket];
                    let later_kept = effects.get(&lane).is_some_and(|done: &Vec<Ticket>| done.iter().any(|t| *t > ticket));
                    let earlier_lost = lost_at.get(&(lane, sent_term)).is_some_and(|first| *first < ticket);
                    let lost = (sent_term < term && !later_kept) || earlier_lost;
                    if lost {
                        let first = lost_at.entry((lane, sent_term)).or_insert(ticket);
                        *first = (*first).min(ticket);
                    } else {
                        effects.entry(lane).or_default().push(ticket);
                    }
                    let error = if arg & 1 == 0 { CallError::Unknown(Why::LostLeadership) } else { CallError::NotSent(Why::NotLeader) };
                    h.result(now, ticket, if lost { Err(error) } else { ok() });
                }
                _ => {}
            }
            for (ticket, _) in h.take_out() {
                let lane = lane_of[&ticket];
                let later_out = outstanding.iter().any(|(t, _)| lane_of[t] == lane && *t > ticket);
                prop_assert!(!later_out, "{ticket:?} goes out behind a later call of its lane");
                let older_term = outstanding.iter().any(|(t, at)| lane_of[t] == lane && *at < term);
                prop_assert!(!older_term, "{ticket:?} goes to a new term while an older one is unresolved");
                let later_effect = effects.get(&lane).is_some_and(|done| done.iter().any(|t| *t >= ticket));
                prop_assert!(!later_effect, "{ticket:?} goes out after it, or a later call, took effect");
                outstanding.push((ticket, term));
            }
        }
        let mut origins: Vec<u32> = h.done.iter().map(|(o, _)| *o).collect();
        origins.sort_unstable();
        let total = origins.len();
        origins.dedup();
        prop_assert_eq!(total, origins.len());
        prop_assert_eq!(h.router.in_flight() + total, submitted as usize);
    }
}

#[test]
fn calls_for_a_leader_without_a_link_wait_and_go_when_it_is_back() {
    let mut h = Harness::new();
    h.leader(1, 2);
    h.router.on_link(NodeId(2), false);
    h.submit(1, None, 1_000, Retry::Never);
    h.submit(2, Some(7), 1_000, Retry::Never);
    assert_eq!(h.take_out(), []);
    h.router.on_link(NodeId(2), true);
    h.poll();
    let nodes: Vec<_> = h.take_out().into_iter().map(|(_, node)| node).collect();
    assert_eq!(nodes, [NodeId(2), NodeId(2)]);
}
