//! Channel rows and subscribers, and what they mean for the users' conversations. Spec: messaging 2.1, 2.4; http-api 3.1–3.4.

use wk_proto::{ChannelKey, ChannelType, MessageSeq, Reason, Uid, WallMs};
use wk_store::Result;

use crate::command::Effect;
use crate::messages::implicit_recipients;
use crate::request::{ChannelFlags, Inbox, MembershipChange, Reply, SetChange};
use crate::rows::{Channel, Info, made_bit};
use crate::sets::{self, Detail};
use crate::step::Step;
use crate::sweep;
use crate::tables::{self, Expiring, Set};

/// `POST /channel`, `/channel/info`: overwrites all flags.
pub(crate) fn set_channel(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    flags: ChannelFlags,
    create_only: bool,
) -> Result<Reply> {
    let mut row = Channel::read(step.tx, channel)?;
    if create_only && row.info.is_some() {
        return Ok(Reply::Done);
    }
    let was = row.flags();
    let created = row.info.as_ref().map_or(step.time.0, |i| i.created);
    row.info = Some(Info::new(flags, created, step.time.0));
    row.write(step.tx, channel);
    if let Some(uid) = owner(channel)
        && was.send_ban != flags.send_ban
    {
        let on = flags.send_ban;
        step.effect(Effect::SendBan { uid, on });
    }
    Ok(Reply::Done)
}

/// Whose own row this is: type 1 with a uid as base. A pair id is no uid, it contains '@'.
pub(crate) fn owner(channel: &ChannelKey) -> Option<Uid> {
    let base = channel.base.as_str();
    (channel.kind == ChannelType::PERSON && !base.contains('@')).then(|| Uid::trusted(base))
}

/// `POST /channel/delete`: refuses sends from now on; everything stays readable.
pub(crate) fn disband(step: &mut Step<'_, '_>, channel: &ChannelKey) -> Result<Reply> {
    let mut row = Channel::read(step.tx, channel)?;
    if let Some(info) = &mut row.info {
        info.disband = true;
        info.updated = step.time.0;
        row.write(step.tx, channel);
    }
    Ok(Reply::Done)
}

/// Changes the subscribers. Ex-members of a replacement keep their conversations, as in v2; `Remove` takes them away.
pub(crate) fn change_members(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    change: SetChange,
) -> Result<Reply> {
    if channel.kind == ChannelType::PERSON || channel.twin {
        return Ok(Reply::Refused(Reason::ChannelIdError));
    }
    let creates = !matches!(change, SetChange::Remove(_));
    let mut row = Channel::read(step.tx, channel)?;
    let version = row.members.version;
    let delta = sets::change(step, channel, &mut row, Set::Members, change, Detail::Added)?;
    if creates {
        create(step, channel, &mut row);
    }
    forget_made(channel, &mut row, &delta.removed);
    row.write(step.tx, channel);
    if row.members.version != version {
        step.effect(Effect::MembersChanged(channel.clone()));
    }
    let heads = Heads::read(step, channel)?;
    for uid in &delta.added {
        if let Some(change) = heads.joined() {
            owe(step, channel, uid, change);
        }
    }
    for uid in &delta.removed {
        if let Some(change) = heads.left() {
            owe(step, channel, uid, change);
        }
    }
    Ok(Reply::Done)
}

/// Makes the row if there is none. A temporary channel made so is not kept for ever (H9); every new list counts as a use.
fn create(step: &mut Step<'_, '_>, channel: &ChannelKey, row: &mut Channel) {
    let now = step.time.0;
    let is_temporary = channel.kind == ChannelType::TEMP;
    match &mut row.info {
        Some(info) if is_temporary => info.updated = now,
        Some(_) => {}
        None => {
            row.info = Some(Info::new(ChannelFlags::default(), now, now));
            if is_temporary {
                sweep::note(step, Expiring::Temporary, now, &tables::channel(channel));
            }
        }
    }
}

/// When a temporary channel was last used: got a list of members or a message.
pub(crate) fn last_use(step: &Step<'_, '_>, channel: &ChannelKey, row: &Channel) -> Result<WallMs> {
    let listed = row.info.as_ref().map_or(0, |info| info.updated);
    let mut last = WallMs(listed);
    for channel in [channel.ordinary(), channel.command()] {
        if let Some(head) = step.tx.head(&channel)? {
            last = last.max(head.time);
        }
    }
    Ok(last)
}

/// Takes up to `budget` members off an unused temporary channel, with all they have of it, and then the channel itself. Gives what
/// is left of the budget; `None`: the channel is not gone yet.
pub(crate) fn expire(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    mut row: Channel,
    budget: usize,
) -> Result<Option<usize>> {
    let uids = sets::some(step.tx, channel, &row, Set::Members, budget)?;
    let left = budget - uids.len();
    let remove = SetChange::Remove(uids.clone());
    sets::change(step, channel, &mut row, Set::Members, remove, Detail::Added)?;
    if !uids.is_empty() {
        step.effect(Effect::MembersChanged(channel.clone()));
    }
    for uid in &uids {
        let change = MembershipChange::Leave {
            command_until: MessageSeq(0),
        };
        owe(step, channel, uid, change);
    }
    if row.members.is_empty() {
        for set in [Set::Members, Set::Deny, Set::Allow] {
            sets::clear(step, channel, &mut row, set)?;
        }
        // A row made anew counts its generations from the start: none of the old entries may be left.
        if !sets::has_garbage(step, channel)? {
            step.tx.delete(tables::CHANNELS, &tables::channel(channel));
            return Ok(Some(left));
        }
    }
    row.write(step.tx, channel);
    Ok(None)
}

/// A removed subscriber may still be reached as a visitor: his next message makes his conversation anew.
fn forget_made(channel: &ChannelKey, row: &mut Channel, removed: &[Uid]) {
    if removed.is_empty() {
        return;
    }
    for (number, uid) in implicit_recipients(channel).iter().enumerate() {
        if removed.contains(uid) {
            row.made &= !(made_bit(number, false) | made_bit(number, true));
        }
    }
}

/// Owes a row in slot(uid).
pub(crate) fn owe(
    step: &mut Step<'_, '_>,
    channel: &ChannelKey,
    uid: &Uid,
    change: MembershipChange,
) {
    step.owe(Inbox::Membership {
        uid: uid.clone(),
        channel: channel.ordinary(),
        epoch: step.epoch(),
        change,
        time: step.time,
    });
}

/// Last seqs of a channel and its twin: where a new member's conversation begins and an old one's ends.
pub(crate) struct Heads {
    kind: ChannelType,
    chat: MessageSeq,
    command: MessageSeq,
}

impl Heads {
    pub(crate) fn read(step: &Step<'_, '_>, channel: &ChannelKey) -> Result<Self> {
        let last = |c: &ChannelKey| -> Result<MessageSeq> {
            Ok(step.tx.head(c)?.map_or(MessageSeq(0), |h| h.seq))
        };
        Ok(Self {
            kind: channel.kind,
            chat: last(&channel.ordinary())?,
            command: last(&channel.command())?,
        })
    }

    /// What a new subscriber's row is told (messaging 2.3): live channels have no conversation, temp channels commands only, data
    /// channels no commands.
    fn joined(&self) -> Option<MembershipChange> {
        match self.kind {
            ChannelType::LIVE => None,
            ChannelType::TEMP => Some(MembershipChange::Command { read: self.command }),
            ChannelType::DATA => self.rejoined(),
            _ => Some(MembershipChange::Join {
                read: self.chat,
                command_read: Some(self.command),
            }),
        }
    }

    pub(crate) fn left(&self) -> Option<MembershipChange> {
        (self.kind != ChannelType::LIVE).then_some(MembershipChange::Leave {
            command_until: self.command,
        })
    }

    /// The chat part alone, with nothing unread.
    pub(crate) fn rejoined(&self) -> Option<MembershipChange> {
        let has_chat = self.kind != ChannelType::LIVE && self.kind != ChannelType::TEMP;
        has_chat.then_some(MembershipChange::Join {
            read: self.chat,
            command_read: None,
        })
    }
}
