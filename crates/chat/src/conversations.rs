//! Conversation rows in slot(uid): what channels' slots tell them, and the marks users set. Spec: messaging 7, 8; decisions H7, H8.

use wk_proto::{ChannelKey, ChannelType, Epoch, MessageSeq, Uid, WallMs};
use wk_store::Result;

use crate::request::{Mark, MembershipChange, Reply};
use crate::rows::{self, CommandPart, Conversation, Rows, User};
use crate::step::Step;
use crate::sweep;
use crate::tables::{self, Expiring};

/// Rows of one user, tombstones included. At it, the [`EVICTED_ROWS`] rows least worth keeping make room for a new one: tombstones
/// first, then commands of temporary channels, of which each list of recipients makes one, then the longest unchanged. Their messages
/// stay; a later mark or membership makes the row anew.
pub(crate) const CONVERSATIONS_PER_USER_MAX: u64 = 50_000;
/// Rows evicted at once, so that a user at the limit pays for the scan once per this many new rows.
const EVICTED_ROWS: usize = 500;

/// A membership changed in the channel's slot.
pub(crate) fn apply_membership(
    step: &mut Step<'_, '_>,
    uid: &Uid,
    channel: &ChannelKey,
    epoch: Epoch,
    change: MembershipChange,
    time: WallMs,
) -> Result<Reply> {
    let key = tables::conversation(uid, channel);
    let found: Option<Conversation> = step.tx.find(tables::CONVERSATIONS, &key)?;
    let is_new = found.is_none();
    let mut row = found.unwrap_or_default();
    if told(&mut row, epoch, change, time) {
        write(step, uid, &key, &row, is_new)?;
    }
    Ok(Reply::Done)
}

/// Folds a change into a row; `false` if it is older than what the row knows. For changes one channel can cause (its epochs and
/// seqs grow together), any order and repetition of deliveries ends in the same chat part.
fn told(row: &mut Conversation, epoch: Epoch, change: MembershipChange, time: WallMs) -> bool {
    let chat = epoch > row.chat_epoch.into();
    let command = epoch > row.command_epoch.into();
    let told = match change {
        MembershipChange::Join { read, command_read } => {
            if chat {
                join_chat(row, read, time);
            }
            match command_read {
                Some(read) => {
                    if command {
                        open_command(row, read);
                    }
                    (chat, command)
                }
                None => (chat, false),
            }
        }
        MembershipChange::Leave { command_until } => {
            if chat {
                row.chat = false;
                row.read = 0;
                row.deleted = 0;
            }
            if command {
                close_command(row, command_until);
            }
            (chat, command)
        }
        MembershipChange::Command { read } => {
            if command {
                open_command(row, read);
            }
            (false, command)
        }
    };
    if told.0 {
        row.chat_epoch = epoch.into();
    }
    if told.1 {
        row.command_epoch = epoch.into();
    }
    if told.0 || told.1 {
        row.updated = row.updated.max(time.0);
        if row.created == 0 {
            row.created = time.0;
        }
    }
    told.0 || told.1
}

fn join_chat(row: &mut Conversation, read: MessageSeq, time: WallMs) {
    row.chat = true;
    row.read = row.read.max(read.0);
    row.created = time.0;
}

/// Commands of an earlier membership that are still unread stay so: losing "you were removed" is worse than a few more commands.
fn open_command(row: &mut Conversation, read: MessageSeq) {
    row.command = Some(CommandPart {
        read: row.command.map_or(read.0, |old| old.read),
        until: 0,
    });
}

fn close_command(row: &mut Conversation, until: MessageSeq) {
    row.command = row
        .command
        .filter(|old| old.read < until.0)
        .map(|old| CommandPart {
            read: old.read,
            until: until.0,
        });
}

/// A user, or his back-end, moves a mark.
pub(crate) fn mark(
    step: &mut Step<'_, '_>,
    uid: &Uid,
    channel: &ChannelKey,
    mark: Mark,
) -> Result<Reply> {
    let key = tables::conversation(uid, channel);
    let found: Option<Conversation> = step.tx.find(tables::CONVERSATIONS, &key)?;
    let is_new = found.is_none();
    let mut row = found.unwrap_or_default();
    let changed = if channel.twin {
        mark_command(&mut row, mark)
    } else {
        mark_chat(&mut row, mark, step.time)
    };
    if changed {
        row.updated = step.time.0;
        write(step, uid, &key, &row, is_new)?;
    }
    Ok(Reply::Done)
}

fn mark_chat(row: &mut Conversation, mark: Mark, time: WallMs) -> bool {
    let before = row.clone();
    let creates = match mark {
        Mark::Read(seq) => seq.0 != 0,
        Mark::Unread(_) => true,
        Mark::Deleted(_) => false,
    };
    if !row.chat {
        if !creates {
            return false;
        }
        row.chat = true;
        row.created = time.0;
    }
    match mark {
        Mark::Read(seq) => row.read = row.read.max(seq.0),
        Mark::Unread(seq) => row.read = seq.0,
        Mark::Deleted(seq) => row.deleted = row.deleted.max(seq.0),
    }
    *row != before
}

/// Commands can only be consumed; a closed part disappears with its last command (H8).
fn mark_command(row: &mut Conversation, mark: Mark) -> bool {
    let (Mark::Read(seq), Some(mut part)) = (mark, row.command) else {
        return false;
    };
    if seq.0 <= part.read {
        return false;
    }
    part.read = seq.0;
    let consumed = part.until != 0 && part.read >= part.until;
    row.command = (!consumed).then_some(part);
    true
}

fn write(
    step: &mut Step<'_, '_>,
    uid: &Uid,
    key: &[u8],
    row: &Conversation,
    is_new: bool,
) -> Result<()> {
    if is_new {
        make_room(step, uid)?;
    }
    rows::put(step.tx, tables::CONVERSATIONS, key, row);
    if row.is_tombstone() {
        sweep::note(step, Expiring::Tombstone, row.updated, key);
    }
    Ok(())
}

/// Removes a row that has been a tombstone since before `before`; a younger one has a note of its own.
pub(crate) fn forget_tombstone(step: &mut Step<'_, '_>, key: &[u8], before: WallMs) -> Result<()> {
    let found: Option<Conversation> = step.tx.find(tables::CONVERSATIONS, key)?;
    if found.is_none_or(|row| !row.is_tombstone() || row.updated >= before.0) {
        return Ok(());
    }
    let uid = tables::conversation_user(key)
        .ok_or_else(|| rows::corrupt(tables::CONVERSATIONS, "a key without a uid"))?;
    let counters = tables::user(&uid);
    let mut user: User = step.tx.load(tables::USERS, &counters)?;
    user.conversations = user.conversations.saturating_sub(1);
    rows::put(step.tx, tables::USERS, &counters, &user);
    step.tx.delete(tables::CONVERSATIONS, key);
    Ok(())
}

fn make_room(step: &mut Step<'_, '_>, uid: &Uid) -> Result<()> {
    let prefix = tables::user(uid);
    let mut user: User = step.tx.load(tables::USERS, &prefix)?;
    if user.conversations >= CONVERSATIONS_PER_USER_MAX {
        let victims = least_worth(step, &prefix)?;
        user.conversations -= victims.len() as u64;
        for key in victims {
            step.tx.delete(tables::CONVERSATIONS, &key);
        }
    }
    user.conversations += 1;
    rows::put(step.tx, tables::USERS, &prefix, &user);
    Ok(())
}

fn least_worth(step: &Step<'_, '_>, prefix: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    rows::each_row(
        &*step.tx,
        tables::CONVERSATIONS,
        prefix,
        None,
        |key, value| {
            let row: Conversation = rows::decode(tables::CONVERSATIONS, value)?;
            all.push((worth(&key, &row), row.updated, key.to_vec()));
            Ok(true)
        },
    )?;
    all.sort_unstable();
    all.truncate(EVICTED_ROWS);
    Ok(all.into_iter().map(|(_, _, key)| key).collect())
}

fn worth(key: &[u8], row: &Conversation) -> u8 {
    if row.is_tombstone() {
        0
    } else if key.last() == Some(&ChannelType::TEMP.0) {
        1
    } else {
        2
    }
}

/// Live rows of a user, newest `updated` first, equal ones in key order.
pub(crate) fn of_user(
    rows: &impl Rows,
    uid: &Uid,
    limit: usize,
) -> Result<Vec<crate::query::Conversation>> {
    let prefix = tables::user(uid);
    let mut out = Vec::new();
    rows::each_row(rows, tables::CONVERSATIONS, &prefix, None, |key, value| {
        let row: Conversation = rows::decode(tables::CONVERSATIONS, value)?;
        let channel = tables::conversation_channel(&key, &prefix)
            .ok_or_else(|| rows::corrupt(tables::CONVERSATIONS, "a key without a channel"))?;
        out.extend(shown(channel, &row));
        Ok(true)
    })?;
    out.sort_by_key(|row| std::cmp::Reverse(row.updated));
    out.truncate(limit);
    Ok(out)
}

fn shown(channel: ChannelKey, row: &Conversation) -> Option<crate::query::Conversation> {
    (!row.is_tombstone()).then(|| crate::query::Conversation {
        channel,
        chat: row.chat,
        read: MessageSeq(row.read),
        deleted: MessageSeq(row.deleted),
        command: row
            .command
            .map(|c| (MessageSeq(c.read), MessageSeq(c.until))),
        created: WallMs(row.created),
        updated: WallMs(row.updated),
    })
}
