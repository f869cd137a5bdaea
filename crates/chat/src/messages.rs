//! Appending messages: idempotency (H33), and the conversation rows a first message makes (H6–H8).

use std::collections::BTreeSet;

use wk_proto::{ChannelKey, ChannelType, MessageSeq, Reason, Uid, channel::SYSTEM_UID};
use wk_store::{Result, Stored, View};

use crate::command::{Append, Effect};
use crate::members;
use crate::request::{MembershipChange, Reply, SendRequest, SendResult};
use crate::rows::{Channel, made_bit};
use crate::step::Step;

/// Users a channel reaches without being subscribed, without repetition: the pair of a person or agent channel, the visitor of a
/// visitors channel (its id) or of a customer-service channel (its id up to the first `|`). At most two. Spec: messaging 2.3.
pub fn implicit_recipients(channel: &ChannelKey) -> Vec<Uid> {
    match channel.kind {
        ChannelType::PERSON | ChannelType::AGENT => match channel.pair() {
            Some((a, b)) if a == b => vec![a],
            Some((a, b)) => vec![a, b],
            None => Vec::new(),
        },
        ChannelType::VISITORS => vec![Uid::trusted(channel.base.as_str())],
        ChannelType::CUSTOMER_SERVICE => match channel.base.as_str().split_once('|') {
            Some((visitor, _)) if !visitor.is_empty() => vec![Uid::trusted(visitor)],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Person channels whose conversations are all made: their messages read no row (H7). Nothing unmakes them, so an entry holds for
/// every later state of the group; a machine never outlives its store.
#[derive(Debug, Default)]
pub(crate) struct Made(BTreeSet<ChannelKey>);

/// Channels in [`Made`]. At it, all are forgotten and read again: a row look-up each.
const MADE_MAX: usize = 16_384;

impl Made {
    fn add(&mut self, channel: &ChannelKey) {
        if channel.kind != ChannelType::PERSON {
            return;
        }
        if self.0.len() >= MADE_MAX {
            self.0.clear();
        }
        self.0.insert(channel.clone());
    }
}

/// Appends a message, unless it is a copy of the newest with its key: then the first result again, and nothing happens.
pub(crate) fn append(step: &mut Step<'_, '_>, made: &mut Made, append: Append) -> Result<Reply> {
    let Append {
        channel,
        record,
        dedupe_since,
        conversation,
        origin,
    } = append;
    let id = record.message_id();
    if let Some(original) = original(step, &channel, &record, dedupe_since)? {
        return Ok(original);
    }
    if id <= step.tx.last_message_id() {
        // Ids order the slot's journal (H14); a leader that breaks this gets a recorded error, not a crash.
        return Ok(sent(id, MessageSeq(0), Reason::SystemError));
    }
    let seq = step.tx.append(&channel, record.clone())?;
    if conversation && !made.0.contains(&channel) {
        make_conversations(step, made, &channel, record.from_uid(), seq)?;
    }
    step.effect(Effect::Appended {
        channel,
        first: seq,
        messages: vec![(record, origin)],
    });
    Ok(sent(id, seq, Reason::Success))
}

fn original(
    step: &Step<'_, '_>,
    channel: &ChannelKey,
    record: &wk_proto::Record,
    since: wk_proto::WallMs,
) -> Result<Option<Reply>> {
    let number = record.client_msg_no();
    if since.0 == 0 || number.is_empty() {
        return Ok(None);
    }
    let newest = step
        .tx
        .duplicate(channel, record.from_uid(), number, since)?;
    Ok(newest.and_then(|old| result_of(&old, record.payload_ref())))
}

/// The first result of a message, if the stored one is its copy and not merely has its number (H33).
fn result_of(old: &Stored, payload: &[u8]) -> Option<Reply> {
    let is_copy = old.record.payload_ref() == payload;
    is_copy.then(|| sent(old.record.message_id(), old.seq, Reason::Success))
}

/// What a SEND was answered that is stored already. Asked for before a refusal: who lost the right to send meanwhile still has to be
/// told what became of the first copy.
pub(crate) fn result_of_first(
    view: &View,
    send: &SendRequest,
    since: wk_proto::WallMs,
) -> Result<Option<Reply>> {
    let (from, number) = (send.from.as_str(), &send.client_msg_no);
    let newest = view.duplicate(&send.channel, from, number, since)?;
    Ok(newest.and_then(|old| result_of(&old, &send.payload)))
}

/// The answer to a SEND.
pub(crate) fn sent(id: wk_proto::MessageId, seq: MessageSeq, reason: Reason) -> Reply {
    Reply::Sent(SendResult {
        message_id: id,
        message_seq: seq,
        reason,
    })
}

/// Owes the rows of implicit recipients who have none yet. Subscribers got theirs when they joined, so a message to a group
/// reads and writes no row at all (H39).
fn make_conversations(
    step: &mut Step<'_, '_>,
    made: &mut Made,
    channel: &ChannelKey,
    from: &str,
    seq: MessageSeq,
) -> Result<()> {
    let Some(all) = all_made(channel) else {
        return Ok(());
    };
    let mut row = Channel::read(step.tx, channel)?;
    if row.made & all == all {
        made.add(channel);
        return Ok(());
    }
    for (number, uid) in implicit_recipients(channel).iter().enumerate() {
        let has_one = row.made & made_bit(number, channel.twin) != 0;
        // The server itself reads no conversations; its row count would grow with every user.
        if has_one || uid.as_str() == SYSTEM_UID {
            continue;
        }
        let read = if uid.as_str() == from {
            seq
        } else {
            MessageSeq(0)
        };
        let change = if channel.twin {
            MembershipChange::Command { read }
        } else {
            MembershipChange::Join {
                read,
                command_read: None,
            }
        };
        members::owe(step, channel, uid, change);
    }
    row.made |= all;
    row.write(step.tx, channel);
    Ok(())
}

/// Bits of a channel whose conversations are all made; `None` for channels whose messages make none.
fn all_made(channel: &ChannelKey) -> Option<u32> {
    let recipients = match channel.kind {
        ChannelType::PERSON => 2,
        ChannelType::AGENT if channel.twin => 2,
        ChannelType::CUSTOMER_SERVICE => 1,
        ChannelType::VISITORS if channel.twin => 1,
        _ => return None,
    };
    Some((0..recipients).fold(0, |bits, n| bits | made_bit(n, channel.twin)))
}

/// Whether messages of this channel may make conversations: the leader's half of the rule (messaging 7.2).
pub(crate) fn makes_conversations(channel: &ChannelKey, whitelist_off_of_person: bool) -> bool {
    match channel.kind {
        ChannelType::PERSON => channel.twin || whitelist_off_of_person,
        ChannelType::CUSTOMER_SERVICE => true,
        ChannelType::AGENT | ChannelType::VISITORS => channel.twin,
        _ => false,
    }
}
