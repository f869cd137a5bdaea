use super::*;
use crate::delivery::Outgoing;
use std::collections::BTreeMap;
use wk_proto::record::Body;
use wk_proto::{ChannelId, ChannelType, GroupId, LogIndex, NodeId, ReplicaId, Term};
use wk_replica::membership;
use wk_store::{ReplicaMeta, SimDisk, Store, View};

const PAYLOAD: &[u8] = &[7; 100];

fn view() -> View {
    let replica = ReplicaId(1);
    let store = Store::open(Arc::new(SimDisk::new())).unwrap();
    store
        .create(&[ReplicaMeta {
            replica,
            group: GroupId::Control,
            membership: membership::encode(&BTreeMap::from([(replica, NodeId(1))])),
            applied: LogIndex(0),
            applied_term: Term(0),
        }])
        .unwrap();
    store.slot(replica).unwrap().view()
}

fn channel(id: &str) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(id), ChannelType::GROUP)
}

fn push(id: &str, seq: u64) -> Job {
    let record = Body {
        payload: PAYLOAD,
        ..Body::default()
    };
    let message = Outgoing::new(channel(id), Some(MessageSeq(seq)), record.encode(), None);
    Job::Push {
        channel: channel(id),
        messages: vec![message],
        view: view(),
    }
}

/// A queue that holds two messages.
fn small() -> Queue {
    Queue {
        bytes_max: push("x", 1).bytes() * 2,
        ..Queue::new(Arc::default())
    }
}

fn put(queue: &Queue, jobs: impl IntoIterator<Item = Job>) {
    queue.put(jobs.into_iter());
}

/// Everything in the order a worker would see it: `(channel, seq, read back?)`.
fn drain(queue: &Queue) -> Vec<(String, u64, bool)> {
    queue.close();
    let mut seen = Vec::new();
    while let Some(work) = queue.take() {
        match work {
            Work::Jobs(jobs) => {
                for job in jobs {
                    if let Job::Push {
                        channel, messages, ..
                    } = job
                    {
                        let seqs = messages.iter().filter_map(|m| m.delivery.seq);
                        seen.extend(seqs.map(|s| (channel.base.to_string(), s.0, false)));
                    }
                }
            }
            Work::ReadBack(channel, first, origins) => {
                let seqs = (first.0..).take(origins.len());
                seen.extend(seqs.map(|s| (channel.base.to_string(), s, true)));
            }
        }
    }
    seen
}

fn of<'a>(seen: &'a [(String, u64, bool)], id: &'a str) -> Vec<u64> {
    let his = seen.iter().filter(|(channel, ..)| channel == id);
    his.map(|(_, seq, _)| *seq).collect()
}

#[test]
fn beyond_the_bound_positions_are_kept_in_order_and_nothing_is_lost() {
    let queue = small();
    put(&queue, (1..=10).map(|seq| push("a", seq)));
    put(&queue, (1..=5).map(|seq| push("b", seq)));
    assert!(queue.state.lock().bytes <= queue.bytes_max);
    let seen = drain(&queue);
    assert_eq!(of(&seen, "a"), (1..=10).collect::<Vec<_>>());
    assert_eq!(of(&seen, "b"), (1..=5).collect::<Vec<_>>());
    assert_eq!(seen.iter().filter(|(.., read_back)| *read_back).count(), 13);
}

#[test]
fn a_lagging_channel_stays_behind_until_its_lag_is_read_even_if_there_is_room() {
    let queue = small();
    put(&queue, (1..=4).map(|seq| push("a", seq)));
    // The worker takes what is queued: room again, but 3 and 4 come before 5.
    let Some(Work::Jobs(jobs)) = queue.take() else {
        panic!("jobs first");
    };
    assert_eq!(jobs.len(), 2);
    put(&queue, [push("a", 5), push("b", 1)]);
    let seen = drain(&queue);
    assert_eq!(of(&seen, "a"), [3, 4, 5]);
    assert_eq!(of(&seen, "b"), [1]);
    assert_eq!(queue.state.lock().lag_len, 0);
}

#[test]
fn what_was_queued_before_the_lag_goes_first() {
    let queue = small();
    put(&queue, [push("a", 1), push("b", 1), push("a", 2)]);
    let seen = drain(&queue);
    assert_eq!(of(&seen, "a"), [1, 2]);
}

#[test]
fn long_lags_are_read_in_portions_and_take_turns() {
    let queue = small();
    let many = DELIVERY_READ_MAX as u64 * 2 + 3;
    put(&queue, [push("x", 1), push("x", 2)]);
    put(&queue, (1..=many).map(|seq| push("a", seq)));
    put(&queue, (1..=3).map(|seq| push("b", seq)));
    let seen = drain(&queue);
    assert_eq!(of(&seen, "a"), (1..=many).collect::<Vec<_>>());
    let b = seen.iter().position(|(id, ..)| id == "b").unwrap();
    let last_a = seen.iter().rposition(|(id, ..)| id == "a").unwrap();
    assert!(b < last_a, "b does not wait for all of a");
}

#[test]
fn messages_that_are_not_stored_are_dropped_under_overload_and_counted() {
    let queue = small();
    put(&queue, [push("a", 1), push("a", 2)]);
    let message = Outgoing::new(channel("a"), None, Body::default().encode(), None);
    put(
        &queue,
        [Job::Transient {
            channel: channel("a"),
            message,
            recipients: None,
            view: view(),
        }],
    );
    assert_eq!(queue.totals.undelivered.get(), 1);
}
