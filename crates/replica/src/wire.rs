//! Raft messages of many groups for one peer, as bytes (D13). Own layout: raft's protobuf types never reach the wire.
//!
//! ```text
//! | ver=1 | messages…
//! message: | len u32 | group u32 | kind u8 | reject u8 | from u64 | to u64 | term u64 | log_term u64 | index u64 | commit u64
//!          | commit_term u64 | reject_hint u64 | context_len u8 | context | entries… to the end of len
//! entry:   | term u64 | len u32 | data |     its index is the message's + 1 + its position
//! ```
//!
//! In a heartbeat `index` is ours: up to there all voters have the log on their disks.
//!
//! All numbers are little-endian. Decoding is total: any bytes give messages or an error, never a panic, and nothing is allocated
//! for a length that is not there.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, Message, MessageType};
use wk_proto::GroupId;

use crate::limits::{CONTEXT_BYTES_MAX, NUMBER_MAX, PEER_MESSAGE_BYTES_MAX};

const VERSION: u8 = 1;
const FIXED: usize = 4 + 1 + 1 + 8 * 8 + 1;
const ENTRY_FIXED: usize = 8 + 4;

/// Bytes that are not a peer message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Kinds that travel between nodes; the number is the wire's. Everything else is local to a raft node or not used here.
const KINDS: [MessageType; 9] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// Adds one raft message. `false`: its kind does not travel, nothing was added.
pub(crate) fn put(out: &mut BytesMut, group: GroupId, message: &Message) -> bool {
    let Some(kind) = KINDS.iter().position(|k| *k == message.msg_type) else {
        return false;
    };
    if out.is_empty() {
        out.put_u8(VERSION);
    }
    let entries: usize = message
        .entries
        .iter()
        .map(|e| ENTRY_FIXED + e.data.len())
        .sum();
    out.put_u32_le((FIXED + message.context.len() + entries) as u32);
    out.put_u32_le(group.to_u32());
    out.put_u8(kind as u8);
    out.put_u8(u8::from(message.reject));
    for number in [
        message.from,
        message.to,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ] {
        out.put_u64_le(number);
    }
    debug_assert!(message.context.len() <= CONTEXT_BYTES_MAX);
    out.put_u8(message.context.len() as u8);
    out.put_slice(&message.context);
    for entry in message.entries.iter() {
        out.put_u64_le(entry.term);
        out.put_u32_le(entry.data.len() as u32);
        out.put_slice(&entry.data);
    }
    true
}

/// Sorts the messages of a peer by `part_of` their group, in order, without reading further into them. Bytes that are not a peer
/// message give nothing.
pub(crate) fn split(bytes: &Bytes, part_of: impl Fn(GroupId) -> usize) -> BTreeMap<usize, Bytes> {
    let parts = sort(bytes, part_of).unwrap_or_default();
    if parts.len() == 1 {
        return parts
            .into_keys()
            .map(|part| (part, bytes.clone()))
            .collect();
    }
    let freeze = |(part, bytes): (usize, BytesMut)| (part, bytes.freeze());
    parts.into_iter().map(freeze).collect()
}

fn sort(
    bytes: &Bytes,
    part_of: impl Fn(GroupId) -> usize,
) -> Result<BTreeMap<usize, BytesMut>, Malformed> {
    let mut rest = bytes.clone();
    if rest.len() > PEER_MESSAGE_BYTES_MAX || rest.is_empty() || rest.get_u8() != VERSION {
        return Err(Malformed);
    }
    let mut parts: BTreeMap<usize, BytesMut> = BTreeMap::new();
    while !rest.is_empty() {
        let len = take_u32(&mut rest)?;
        let message = take(&mut rest, len as usize)?;
        let group = take_u32(&mut message.clone())?;
        let group = GroupId::from_u32(group).ok_or(Malformed)?;
        let part = parts.entry(part_of(group)).or_default();
        if part.is_empty() {
            part.put_u8(VERSION);
        }
        part.put_u32_le(len);
        part.put_slice(&message);
    }
    Ok(parts)
}

/// Reads the messages of a peer; data are slices of `bytes`. Entries are plain ones: nothing else is replicated yet.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Vec<(GroupId, Message)>, Malformed> {
    if bytes.len() > PEER_MESSAGE_BYTES_MAX || bytes.is_empty() || bytes.get_u8() != VERSION {
        return Err(Malformed);
    }
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let len = take_u32(&mut bytes)? as usize;
        messages.push(message(take(&mut bytes, len)?)?);
    }
    Ok(messages)
}

fn message(mut bytes: Bytes) -> Result<(GroupId, Message), Malformed> {
    if bytes.len() < FIXED {
        return Err(Malformed);
    }
    let group = GroupId::from_u32(bytes.get_u32_le()).ok_or(Malformed)?;
    let kind = *KINDS.get(usize::from(bytes.get_u8())).ok_or(Malformed)?;
    let reject = match bytes.get_u8() {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    let mut numbers = [0; 8];
    for number in &mut numbers {
        *number = bytes.get_u64_le();
        if *number > NUMBER_MAX {
            return Err(Malformed);
        }
    }
    let [
        from,
        to,
        term,
        log_term,
        index,
        commit,
        commit_term,
        reject_hint,
    ] = numbers;
    let context_len = usize::from(bytes.get_u8());
    if context_len > CONTEXT_BYTES_MAX {
        return Err(Malformed);
    }
    let message = Message {
        msg_type: kind,
        reject,
        from,
        to,
        term,
        log_term,
        index,
        commit,
        commit_term,
        reject_hint,
        context: take(&mut bytes, context_len)?,
        entries: entries(bytes, index)?.into(),
        ..Message::default()
    };
    Ok((group, message))
}

fn entries(mut bytes: Bytes, mut index: u64) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < ENTRY_FIXED {
            return Err(Malformed);
        }
        let term = bytes.get_u64_le();
        let len = bytes.get_u32_le() as usize;
        if term > NUMBER_MAX {
            return Err(Malformed);
        }
        index += 1;
        entries.push(Entry {
            term,
            index,
            data: take(&mut bytes, len)?,
            ..Entry::default()
        });
    }
    Ok(entries)
}

fn take(bytes: &mut Bytes, len: usize) -> Result<Bytes, Malformed> {
    if bytes.len() < len {
        return Err(Malformed);
    }
    Ok(bytes.split_to(len))
}

fn take_u32(bytes: &mut Bytes) -> Result<u32, Malformed> {
    Ok(take(bytes, 4)?.get_u32_le())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wk_proto::SlotId;

    fn any_message() -> impl Strategy<Value = (GroupId, Message)> {
        let numbers = proptest::array::uniform8(0..=NUMBER_MAX - 100);
        let entries = proptest::collection::vec(
            (
                0..=NUMBER_MAX,
                proptest::collection::vec(any::<u8>(), 0..50),
            ),
            0..5,
        );
        let context = proptest::collection::vec(any::<u8>(), 0..=CONTEXT_BYTES_MAX);
        (
            0..KINDS.len(),
            any::<bool>(),
            numbers,
            context,
            entries,
            0..70u32,
        )
            .prop_map(|(kind, reject, n, context, entries, group)| {
                let entries: Vec<_> = entries
                    .into_iter()
                    .enumerate()
                    .map(|(i, (term, data))| Entry {
                        term,
                        index: n[4] + 1 + i as u64,
                        data: data.into(),
                        ..Entry::default()
                    })
                    .collect();
                let message = Message {
                    msg_type: KINDS[kind],
                    reject,
                    from: n[0],
                    to: n[1],
                    term: n[2],
                    log_term: n[3],
                    index: n[4],
                    commit: n[5],
                    commit_term: n[6],
                    reject_hint: n[7],
                    context: context.into(),
                    entries: entries.into(),
                    ..Message::default()
                };
                (GroupId::from_u32(group).unwrap(), message)
            })
    }

    proptest! {
        #[test]
        fn reads_back_what_was_put(messages in proptest::collection::vec(any_message(), 1..5)) {
            let mut out = BytesMut::new();
            for (group, message) in &messages {
                prop_assert!(put(&mut out, *group, message));
            }
            prop_assert_eq!(decode(out.freeze()), Ok(messages));
        }

        #[test]
        fn any_bytes_are_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(bytes.into());
        }

        #[test]
        fn one_changed_byte_never_panics(message in any_message(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut out = BytesMut::new();
            put(&mut out, message.0, &message.1);
            let mut bytes = out.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(bytes.into());
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut out = BytesMut::new();
        let message = Message {
            msg_type: MessageType::MsgHeartbeat,
            context: vec![1, 2, 3].into(),
            ..Message::default()
        };
        assert!(put(&mut out, GroupId::Slot(SlotId(3)), &message));
        let bytes = out.freeze();
        for n in 2..bytes.len() {
            assert_eq!(decode(bytes.slice(..n)), Err(Malformed), "cut at {n}");
        }
        assert_eq!(
            decode(Bytes::from_static(&[9])),
            Err(Malformed),
            "another version"
        );
    }

    #[test]
    fn messages_are_sorted_by_group_and_keep_their_order() {
        let message = |index| Message {
            msg_type: MessageType::MsgAppend,
            index,
            ..Message::default()
        };
        let slot = |n| GroupId::Slot(SlotId(n));
        let mut out = BytesMut::new();
        for (n, index) in [(0, 1), (1, 2), (0, 3)] {
            put(&mut out, slot(n), &message(index));
        }
        let bytes = out.freeze();
        let parts = split(&bytes, |group| group.to_u32() as usize % 2);
        let indexes = |part: usize| -> Vec<u64> {
            let messages = decode(parts[&part].clone()).unwrap();
            messages.iter().map(|(_, m)| m.index).collect()
        };
        assert_eq!((indexes(1), indexes(0)), (vec![1, 3], vec![2]));
        let all = split(&bytes, |_| 7);
        assert_eq!(all, BTreeMap::from([(7, bytes.clone())]));
        for n in 0..bytes.len() {
            let _ = split(&bytes.slice(..n), |_| 0);
        }
    }

    #[test]
    fn local_kinds_do_not_travel() {
        let message = Message {
            msg_type: MessageType::MsgPropose,
            ..Message::default()
        };
        assert!(!put(&mut BytesMut::new(), GroupId::Control, &message));
    }
}
