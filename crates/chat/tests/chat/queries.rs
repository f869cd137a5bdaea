//! Reads.

use std::sync::Arc;

use wk_chat::query::RecentsOf;
use wk_chat::request::{Origin, SendRequest};
use wk_chat::{Answer, Query, Reply, Request};
use wk_proto::{ChannelKey, MessageId, MessageSeq};
use wk_store::Dir;

use crate::world::{World, message, person, uid};

fn seqs(answer: Answer) -> Vec<u64> {
    match answer {
        Answer::Messages(list) => list.iter().map(|m| m.seq.0).collect(),
        other => panic!("{other:?}"),
    }
}

fn talk() -> (World, ChannelKey, Vec<MessageId>) {
    let mut w = World::new();
    let pair = person("u1", "u2");
    let mut ids = Vec::new();
    for (n, from) in ["u1", "u2", "u1", "u2", "u2"].iter().enumerate() {
        let send = SendRequest {
            client_msg_no: format!("n{n}").into(),
            ..message(&pair, from, "x")
        };
        ids.push(w.send(send).message_id);
    }
    (w, pair, ids)
}

#[test]
fn ranges_keep_the_end_that_was_asked_for() {
    let (mut w, pair, _) = talk();
    let mut range = |first, last, dir, limit| {
        seqs(w.query(Query::Messages {
            channel: pair.clone(),
            first: MessageSeq(first),
            last: MessageSeq(last),
            dir,
            limit,
        }))
    };
    assert_eq!(range(0, u64::MAX, Dir::Up, 2), [1, 2]);
    assert_eq!(range(0, u64::MAX, Dir::Down, 2), [4, 5]);
    assert_eq!(range(2, 4, Dir::Down, 10), [2, 3, 4]);
    assert_eq!(range(9, 12, Dir::Up, 10), Vec::<u64>::new());
}

#[test]
fn single_messages_are_found_by_each_name_once() {
    let (mut w, pair, ids) = talk();
    // In the same slot, so only the channel tells it apart.
    let foreign = SendRequest {
        origin: Origin::Server,
        ..message(&pair.command(), "u1", "x")
    };
    let foreign = w.send(foreign).message_id;
    let Answer::Messages(found) = w.query(Query::Pick {
        channel: pair,
        seqs: vec![MessageSeq(4), MessageSeq(99)],
        ids: vec![foreign, ids[0], ids[3], MessageId(1 << 40)],
        client_msg_nos: vec!["n2".to_owned(), "n0".to_owned(), "no".to_owned()],
    }) else {
        panic!("another answer");
    };
    let found: Vec<_> = found.iter().map(|m| m.record.message_id()).collect();
    assert_eq!(found, [ids[3], ids[0], ids[2]]);
}

#[test]
fn recents_have_head_own_last_and_the_newest() {
    let (mut w, pair, _) = talk();
    let of = |channel: ChannelKey, from, count, dir| RecentsOf {
        channel,
        uid: uid("u1"),
        from: MessageSeq(from),
        count,
        dir,
    };
    let never = pair.command();
    let Answer::Recents(found) = w.query(Query::Recents(vec![
        of(pair.clone(), 0, 2, Dir::Down),
        of(never, 0, 2, Dir::Down),
        of(pair.clone(), 2, 2, Dir::Up),
        of(pair.clone(), 6, 2, Dir::Down),
        of(pair, 0, 0, Dir::Down),
    ])) else {
        panic!("another answer");
    };
    let shape: Vec<_> = found
        .iter()
        .map(|r| {
            let seqs: Vec<_> = r.messages.iter().map(|m| m.seq.0).collect();
            (r.head.as_ref().map(|h| h.seq.0), r.own_last.0, seqs)
        })
        .collect();
    assert_eq!(
        shape,
        [
            (Some(5), 3, vec![4, 5]),
            (None, 0, vec![]),
            (Some(5), 3, vec![2, 3]),
            (Some(5), 3, vec![]),
            (Some(5), 3, vec![]),
        ]
    );
    assert_eq!(found[0].head.as_ref().unwrap().from, uid("u2"));
}

#[test]
fn no_bytes_from_a_peer_make_decoding_panic() {
    let (mut w, pair, ids) = talk();
    let query = Query::Pick {
        channel: pair.clone(),
        seqs: vec![MessageSeq(1)],
        ids,
        client_msg_nos: vec!["n".to_owned()],
    };
    let answer = w.query(query.clone());
    let request = Request::Query(Box::new(query)).encode();
    let reply = Reply::Answer(Box::new(answer)).encode();
    let send = Request::Send(Arc::new(message(&pair, "u1", "x"))).encode();
    for good in [request, reply, send] {
        for at in 0..good.len() {
            for flip in [1, 0x80, 0xFF] {
                let mut bytes = good.to_vec();
                bytes[at] ^= flip;
                let _ = Request::decode(bytes.clone().into());
                let _ = Reply::decode(bytes.into());
            }
            let _ = Request::decode(good.slice(..at));
            let _ = Reply::decode(good.slice(..at));
        }
    }
    assert!(Request::decode(Default::default()).is_err());
    assert!(Reply::decode(Default::default()).is_err());
}
