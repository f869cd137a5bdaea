//! Deny and allow lists. Spec: messaging 2.4, http-api 3.5; decisions H1.
//!
//! A person's list lives twice: in slot(owner) for listing, and entry by entry as a pair row in the slot of the pair, where SENDs are
//! decided. Channels of other types keep theirs beside the channel.

use wk_proto::{ChannelId, ChannelKey, ChannelType, Epoch, Reason, Uid};
use wk_store::Result;

use crate::members::{self, Heads};
use crate::messages::implicit_recipients;
use crate::request::{Inbox, List, MembershipChange, Reply, SetChange};
use crate::rows::{self, Channel, Pair, Rows, made_bit};
use crate::sets::{self, Delta, Detail};
use crate::step::Step;
use crate::tables::{self, Set};

/// Entries of one person's list. A write that might pass it is refused with `RateLimit`: replacing a list tells every pair it
/// changes, in one entry.
pub(crate) const PERSON_LIST_MAX: u64 = 10_000;

/// Changes a list.
pub(crate) fn change_list(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    list: List,
    change: SetChange,
) -> Result<Reply> {
    if channel.twin {
        return Ok(Reply::Refused(Reason::ChannelIdError));
    }
    let mut row = Channel::read(step.tx, channel)?;
    if channel.kind == ChannelType::PERSON {
        return match members::owner(channel) {
            Some(owner) => change_of_person(step, channel, &owner, row, list, change),
            None => Ok(Reply::Refused(Reason::ChannelIdError)),
        };
    }
    // Clearing or replacing a deny list brings no conversation back, as in v2; only removals do.
    let delta = sets::change(step, channel, &mut row, list.into(), change, Detail::Added)?;
    row.write(step.tx, channel);
    if list == List::Deny {
        follow_deny(step, channel, &row, &delta)?;
    }
    Ok(Reply::Done)
}

fn change_of_person(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    owner: &Uid,
    mut row: Channel,
    list: List,
    change: SetChange,
) -> Result<Reply> {
    if size_after(row.set(list.into()), &change) > PERSON_LIST_MAX {
        return Ok(Reply::Refused(Reason::RateLimit));
    }
    let delta = sets::change(step, channel, &mut row, list.into(), change, Detail::Both)?;
    row.write(step.tx, channel);
    for (uids, present) in [(delta.added, true), (delta.removed, false)] {
        for uid in uids {
            step.owe(Inbox::Pair {
                owner: owner.clone(),
                uid,
                list,
                present,
                epoch: step.epoch(),
            });
        }
    }
    Ok(Reply::Done)
}

/// Most entries either generation can have after a change.
fn size_after(state: &rows::SetState, change: &SetChange) -> u64 {
    let staged = state.stage.map_or(0, |s| s.count);
    match change {
        SetChange::Add(uids) => state.count.max(staged) + uids.len() as u64,
        SetChange::Replace(uids) => uids.len() as u64,
        SetChange::Stage { uids, .. } => staged + uids.len() as u64,
        SetChange::Remove(_) | SetChange::Switch { .. } => 0,
    }
}

/// A denied stranger loses the conversation; who still receives, a subscriber or the visitor, keeps it (http-api 3.5).
fn follow_deny(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    row: &Channel,
    delta: &Delta,
) -> Result<()> {
    let heads = Heads::read(step, channel)?;
    let reached = implicit_recipients(channel);
    let parts = [
        (&delta.added, heads.left()),
        (&delta.removed, heads.rejoined()),
    ];
    for (uids, change) in parts {
        let Some(change) = change else {
            continue;
        };
        for uid in uids {
            let receives =
                reached.contains(uid) || row.contains(step.tx, channel, Set::Members, uid)?;
            if !receives {
                members::owe(step, channel, uid, change);
            }
        }
    }
    Ok(())
}

/// Applies a pair row in the slot of the pair. Being allowed gives `uid` the conversation, read 0, once (messaging 2.4).
pub(crate) fn apply_pair(
    step: &mut Step<'_, '_>,
    owner: &Uid,
    uid: &Uid,
    list: List,
    present: bool,
    epoch: Epoch,
) -> Result<Reply> {
    let pair = ChannelKey::person(owner, uid);
    let key = tables::pair(&pair, owner);
    let mut row: Pair = step.tx.load(tables::PAIRS, &key)?;
    let entry = match list {
        List::Deny => &mut row.deny,
        List::Allow => &mut row.allow,
    };
    if epoch <= entry.epoch.into() {
        return Ok(Reply::Done);
    }
    entry.present = present;
    entry.epoch = epoch.into();
    rows::put(step.tx, tables::PAIRS, &key, &row);
    if list == List::Allow && present && owner != uid {
        make_conversation(step, &pair, uid)?;
    }
    Ok(Reply::Done)
}

fn make_conversation(step: &mut Step<'_, '_>, pair: &ChannelKey, uid: &Uid) -> Result<()> {
    let mut row = Channel::read(step.tx, pair)?;
    let number = usize::from(pair.pair().is_none_or(|(first, _)| first != *uid));
    let bit = made_bit(number, false);
    if row.made & bit == 0 {
        row.made |= bit;
        row.write(step.tx, pair);
        let change = MembershipChange::Join {
            read: wk_proto::MessageSeq(0),
            command_read: None,
        };
        members::owe(step, pair, uid, change);
    }
    Ok(())
}

/// The row of a user himself: base is the uid.
pub(crate) fn own_row(uid: &Uid) -> ChannelKey {
    ChannelKey::new(ChannelId::trusted(uid.as_str()), ChannelType::PERSON)
}
