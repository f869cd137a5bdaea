//! Encodings of commands other than `Append`, of outbox rows, and of requests and answers between nodes: prost messages written by
//! hand. A field's tag never changes its meaning; a change of meaning is a new command version (D5, H47).
//!
//! Decoding checks shapes, not ids: texts come from a log or a peer of the same cluster, which parsed them at its entrance.

mod control;
mod reply;
mod request;

use bytes::Bytes;
use prost::Message;
use wk_proto::{
    ChannelId, ChannelKey, ChannelType, Epoch, LogIndex, MessageSeq, SessionRef, Uid, WallMs,
};

use crate::command::DecodeError;
use crate::request::{
    ChannelFlags, DeviceLevel, Inbox, List, Mark, MembershipChange, OutboxKey, SetChange, Write,
};

pub(crate) use reply::{decode_reply, encode_reply};
pub(crate) use request::{decode_request, encode_request};

/// Kinds of commands in the log; 1 is `Append`. Catalogue: never renumbered.
pub(crate) mod kind {
    pub(crate) const APPEND: u16 = 1;
    pub(crate) const SET_TOKEN: u16 = 2;
    pub(crate) const QUIT_DEVICES: u16 = 3;
    pub(crate) const SET_CHANNEL: u16 = 4;
    pub(crate) const DISBAND: u16 = 5;
    pub(crate) const MEMBERS: u16 = 6;
    pub(crate) const LISTS: u16 = 7;
    pub(crate) const MARK: u16 = 8;
    pub(crate) const INBOX: u16 = 9;
    pub(crate) const OUTBOX_DONE: u16 = 10;
    pub(crate) const SYSTEM_UIDS: u16 = 11;
    pub(crate) const SWEEP: u16 = 12;
    pub(crate) const GENESIS: u16 = 13;
    pub(crate) const BIND: u16 = 14;
}

/// Version of every command body written by this build.
pub(crate) const VERSION: u16 = 1;

type Result<T, E = DecodeError> = std::result::Result<T, E>;

fn malformed(what: &str) -> DecodeError {
    DecodeError::Malformed(what.to_owned())
}

fn parse<M: Message + Default>(data: Bytes) -> Result<M> {
    M::decode(data).map_err(|e| DecodeError::Malformed(e.to_string()))
}

fn narrow<T, U: TryFrom<T>>(number: T, what: &str) -> Result<U> {
    U::try_from(number).map_err(|_| malformed(what))
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Channel {
    #[prost(string, tag = "1")]
    base: String,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(bool, tag = "3")]
    twin: bool,
}

impl From<&ChannelKey> for Channel {
    fn from(c: &ChannelKey) -> Self {
        Self {
            base: c.base.as_str().to_owned(),
            kind: u32::from(c.kind.0),
            twin: c.twin,
        }
    }
}

impl Channel {
    fn key(&self) -> Result<ChannelKey> {
        Ok(ChannelKey {
            base: ChannelId::trusted(&self.base),
            kind: ChannelType(narrow(self.kind, "channel type")?),
            twin: self.twin,
        })
    }
}

fn texts(uids: &[Uid]) -> Vec<String> {
    uids.iter().map(|u| u.as_str().to_owned()).collect()
}

fn uids(texts: &[String]) -> Vec<Uid> {
    texts.iter().map(|t| Uid::trusted(t)).collect()
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SetToken {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(uint32, tag = "2")]
    device_flag: u32,
    #[prost(bool, tag = "3")]
    master: bool,
    #[prost(string, tag = "4")]
    token: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct QuitDevices {
    #[prost(string, tag = "1")]
    uid: String,
    /// Absent = all.
    #[prost(uint32, optional, tag = "2")]
    device_flag: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SetChannel {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    #[prost(message, required, tag = "2")]
    flags: ChannelFlagsWire,
    #[prost(bool, tag = "3")]
    create_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct ChannelFlagsWire {
    #[prost(bool, tag = "1")]
    ban: bool,
    #[prost(bool, tag = "2")]
    disband: bool,
    #[prost(bool, tag = "3")]
    send_ban: bool,
    #[prost(bool, tag = "4")]
    allow_stranger: bool,
    #[prost(bool, tag = "5")]
    large: bool,
}

impl From<ChannelFlags> for ChannelFlagsWire {
    fn from(f: ChannelFlags) -> Self {
        Self {
            ban: f.ban,
            disband: f.disband,
            send_ban: f.send_ban,
            allow_stranger: f.allow_stranger,
            large: f.large,
        }
    }
}

impl From<ChannelFlagsWire> for ChannelFlags {
    fn from(f: ChannelFlagsWire) -> Self {
        Self {
            ban: f.ban,
            disband: f.disband,
            send_ban: f.send_ban,
            allow_stranger: f.allow_stranger,
            large: f.large,
        }
    }
}

/// Body of `Disband`, `Members` (no list) and `Lists`.
#[derive(Clone, PartialEq, Eq, Message)]
struct OfChannel {
    #[prost(message, required, tag = "1")]
    channel: Channel,
    /// [`list_number`].
    #[prost(uint32, tag = "2")]
    list: u32,
    #[prost(message, optional, tag = "3")]
    change: Option<Change>,
}

/// [`SetChange`]; `how` is 1 add, 2 remove, 3 replace, 4 stage, 5 switch.
#[derive(Clone, PartialEq, Eq, Message)]
struct Change {
    #[prost(uint32, tag = "1")]
    how: u32,
    #[prost(string, repeated, tag = "2")]
    uids: Vec<String>,
    #[prost(uint64, tag = "3")]
    token: u64,
}

impl From<&SetChange> for Change {
    fn from(change: &SetChange) -> Self {
        let (how, uids, token) = match change {
            SetChange::Add(uids) => (1, texts(uids), 0),
            SetChange::Remove(uids) => (2, texts(uids), 0),
            SetChange::Replace(uids) => (3, texts(uids), 0),
            SetChange::Stage { token, uids } => (4, texts(uids), *token),
            SetChange::Switch { token } => (5, Vec::new(), *token),
        };
        Self { how, uids, token }
    }
}

impl Change {
    fn value(&self) -> Result<SetChange> {
        let (uids, token) = (uids(&self.uids), self.token);
        match self.how {
            1 => Ok(SetChange::Add(uids)),
            2 => Ok(SetChange::Remove(uids)),
            3 => Ok(SetChange::Replace(uids)),
            4 => Ok(SetChange::Stage { token, uids }),
            5 => Ok(SetChange::Switch { token }),
            _ => Err(malformed("change of a set")),
        }
    }
}

fn list_number(list: List) -> u32 {
    match list {
        List::Deny => 1,
        List::Allow => 2,
    }
}

fn list_of(number: u32) -> Result<List> {
    match number {
        1 => Ok(List::Deny),
        2 => Ok(List::Allow),
        _ => Err(malformed("list")),
    }
}

/// `how` is 1 read, 2 unread, 3 deleted.
#[derive(Clone, PartialEq, Eq, Message)]
struct MarkOf {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(message, required, tag = "2")]
    channel: Channel,
    #[prost(uint32, tag = "3")]
    how: u32,
    #[prost(uint64, tag = "4")]
    seq: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Position {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint32, tag = "2")]
    position: u32,
}

impl From<Epoch> for Position {
    fn from(e: Epoch) -> Self {
        Self {
            index: e.index.0,
            position: e.position,
        }
    }
}

impl Position {
    fn epoch(self) -> Epoch {
        Epoch {
            index: LogIndex(self.index),
            position: self.position,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct InboxOf {
    #[prost(oneof = "Owed", tags = "1, 2")]
    owed: Option<Owed>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum Owed {
    #[prost(message, tag = "1")]
    Membership(Membership),
    #[prost(message, tag = "2")]
    Pair(PairOf),
}

/// `how` is 1 join (`first` = read, `second` = command_read), 2 leave (`first` = command_until), 3 command (`first` = read).
#[derive(Clone, PartialEq, Eq, Message)]
struct Membership {
    #[prost(string, tag = "1")]
    uid: String,
    #[prost(message, required, tag = "2")]
    channel: Channel,
    #[prost(message, required, tag = "3")]
    epoch: Position,
    #[prost(uint64, tag = "4")]
    time: u64,
    #[prost(uint32, tag = "5")]
    how: u32,
    #[prost(uint64, tag = "6")]
    first: u64,
    #[prost(uint64, optional, tag = "7")]
    second: Option<u64>,
}

impl Membership {
    fn change(&self) -> Result<MembershipChange> {
        let first = MessageSeq(self.first);
        match self.how {
            1 => Ok(MembershipChange::Join {
                read: first,
                command_read: self.second.map(MessageSeq),
            }),
            2 => Ok(MembershipChange::Leave {
                command_until: first,
            }),
            3 => Ok(MembershipChange::Command { read: first }),
            _ => Err(malformed("change of a membership")),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
struct PairOf {
    #[prost(string, tag = "1")]
    owner: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(uint32, tag = "3")]
    list: u32,
    #[prost(bool, tag = "4")]
    present: bool,
    #[prost(message, required, tag = "5")]
    epoch: Position,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Keys {
    #[prost(message, repeated, tag = "1")]
    keys: Vec<Position>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SystemUids {
    #[prost(string, repeated, tag = "1")]
    uids: Vec<String>,
    #[prost(bool, tag = "2")]
    add: bool,
}

/// Times in ms.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Sweep {
    #[prost(uint64, tag = "1")]
    tombstones: u64,
    #[prost(uint64, tag = "2")]
    temporaries: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Session {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(uint64, tag = "2")]
    conn: u64,
}

impl From<SessionRef> for Session {
    fn from(s: SessionRef) -> Self {
        Self {
            node: s.node.0,
            conn: s.conn.0,
        }
    }
}

impl Session {
    fn session(self) -> SessionRef {
        SessionRef {
            node: wk_proto::NodeId(self.node),
            conn: wk_proto::ConnId(self.conn),
        }
    }
}

/// An outbox row's value.
pub(crate) fn encode_inbox(inbox: &Inbox) -> Bytes {
    inbox_of(inbox).encode_to_vec().into()
}

/// Inverse of [`encode_inbox`].
pub(crate) fn decode_inbox(data: Bytes) -> Result<Inbox> {
    match parse::<InboxOf>(data)?.owed {
        Some(Owed::Membership(m)) => Ok(Inbox::Membership {
            uid: Uid::trusted(&m.uid),
            channel: m.channel.key()?,
            epoch: m.epoch.epoch(),
            change: m.change()?,
            time: WallMs(m.time),
        }),
        Some(Owed::Pair(p)) => Ok(Inbox::Pair {
            owner: Uid::trusted(&p.owner),
            uid: Uid::trusted(&p.uid),
            list: list_of(p.list)?,
            present: p.present,
            epoch: p.epoch.epoch(),
        }),
        None => Err(malformed("inbox")),
    }
}

fn inbox_of(inbox: &Inbox) -> InboxOf {
    let owed = match inbox {
        Inbox::Membership {
            uid,
            channel,
            epoch,
            change,
            time,
        } => {
            let (how, first, second) = match *change {
                MembershipChange::Join { read, command_read } => {
                    (1, read.0, command_read.map(|seq| seq.0))
                }
                MembershipChange::Leave { command_until } => (2, command_until.0, None),
                MembershipChange::Command { read } => (3, read.0, None),
            };
            Owed::Membership(Membership {
                uid: uid.as_str().to_owned(),
                channel: channel.into(),
                epoch: (*epoch).into(),
                time: time.0,
                how,
                first,
                second,
            })
        }
        Inbox::Pair {
            owner,
            uid,
            list,
            present,
            epoch,
        } => Owed::Pair(PairOf {
            owner: owner.as_str().to_owned(),
            uid: uid.as_str().to_owned(),
            list: list_number(*list),
            present: *present,
            epoch: (*epoch).into(),
        }),
    };
    InboxOf { owed: Some(owed) }
}

/// Kind and body of a write.
pub(crate) fn encode_write(write: &Write) -> (u16, Vec<u8>) {
    match write {
        Write::SetToken {
            uid,
            device_flag,
            level,
            token,
        } => {
            let body = SetToken {
                uid: uid.as_str().to_owned(),
                device_flag: u32::from(*device_flag),
                master: *level == DeviceLevel::Master,
                token: token.to_string(),
            };
            (kind::SET_TOKEN, body.encode_to_vec())
        }
        Write::QuitDevices { uid, device_flag } => {
            let body = QuitDevices {
                uid: uid.as_str().to_owned(),
                device_flag: device_flag.map(u32::from),
            };
            (kind::QUIT_DEVICES, body.encode_to_vec())
        }
        Write::SetChannel {
            channel,
            flags,
            create_only,
        } => {
            let body = SetChannel {
                channel: channel.into(),
                flags: (*flags).into(),
                create_only: *create_only,
            };
            (kind::SET_CHANNEL, body.encode_to_vec())
        }
        Write::Disband { channel } => (kind::DISBAND, of_channel(channel, None, None)),
        Write::Members { channel, change } => {
            (kind::MEMBERS, of_channel(channel, None, Some(change)))
        }
        Write::Lists {
            channel,
            list,
            change,
        } => (kind::LISTS, of_channel(channel, Some(*list), Some(change))),
        Write::Mark { uid, channel, mark } => (kind::MARK, mark_of(uid, channel, *mark)),
        Write::Inbox(inbox) => (kind::INBOX, inbox_of(inbox).encode_to_vec()),
        Write::OutboxDone { keys } => (kind::OUTBOX_DONE, keys_of(keys)),
        Write::Sweep {
            tombstones,
            temporaries,
        } => {
            let body = Sweep {
                tombstones: tombstones.0,
                temporaries: temporaries.0,
            };
            (kind::SWEEP, body.encode_to_vec())
        }
        Write::SystemUids { uids, add } => {
            let body = SystemUids {
                uids: texts(uids),
                add: *add,
            };
            (kind::SYSTEM_UIDS, body.encode_to_vec())
        }
        Write::Genesis(genesis) => {
            let body = control::genesis_of(genesis);
            (kind::GENESIS, body.encode_to_vec())
        }
        Write::Bind { node, uuid } => {
            let body = control::bind_of(*node, *uuid);
            (kind::BIND, body.encode_to_vec())
        }
    }
}

fn of_channel(channel: &ChannelKey, list: Option<List>, change: Option<&SetChange>) -> Vec<u8> {
    OfChannel {
        channel: channel.into(),
        list: list.map_or(0, list_number),
        change: change.map(Change::from),
    }
    .encode_to_vec()
}

fn mark_of(uid: &Uid, channel: &ChannelKey, mark: Mark) -> Vec<u8> {
    let (how, seq) = match mark {
        Mark::Read(seq) => (1, seq),
        Mark::Unread(seq) => (2, seq),
        Mark::Deleted(seq) => (3, seq),
    };
    MarkOf {
        uid: uid.as_str().to_owned(),
        channel: channel.into(),
        how,
        seq: seq.0,
    }
    .encode_to_vec()
}

fn keys_of(keys: &[OutboxKey]) -> Vec<u8> {
    let keys = keys
        .iter()
        .map(|k| Position {
            index: k.index.0,
            position: k.position,
        })
        .collect();
    Keys { keys }.encode_to_vec()
}

/// Inverse of [`encode_write`].
pub(crate) fn decode_write(kind: u16, version: u16, body: Bytes) -> Result<Write> {
    if version != VERSION {
        return Err(DecodeError::Unknown { kind, version });
    }
    match kind {
        kind::SET_TOKEN => set_token(parse(body)?),
        kind::QUIT_DEVICES => quit_devices(parse(body)?),
        kind::SET_CHANNEL => set_channel(parse(body)?),
        kind::DISBAND => {
            let body: OfChannel = parse(body)?;
            let channel = body.channel.key()?;
            Ok(Write::Disband { channel })
        }
        kind::MEMBERS => {
            let (body, change) = with_change(parse(body)?)?;
            let channel = body.channel.key()?;
            Ok(Write::Members { channel, change })
        }
        kind::LISTS => {
            let (body, change) = with_change(parse(body)?)?;
            Ok(Write::Lists {
                channel: body.channel.key()?,
                list: list_of(body.list)?,
                change,
            })
        }
        kind::MARK => mark(parse(body)?),
        kind::INBOX => decode_inbox(body).map(Write::Inbox),
        kind::OUTBOX_DONE => Ok(outbox_done(parse(body)?)),
        kind::SWEEP => {
            let body: Sweep = parse(body)?;
            Ok(Write::Sweep {
                tombstones: WallMs(body.tombstones),
                temporaries: WallMs(body.temporaries),
            })
        }
        kind::SYSTEM_UIDS => {
            let body: SystemUids = parse(body)?;
            Ok(Write::SystemUids {
                uids: uids(&body.uids),
                add: body.add,
            })
        }
        kind::GENESIS => {
            let genesis = control::genesis_from(parse(body)?)?;
            Ok(Write::Genesis(Box::new(genesis)))
        }
        kind::BIND => {
            let (node, uuid) = control::bind_from(&parse(body)?)?;
            Ok(Write::Bind { node, uuid })
        }
        _ => Err(DecodeError::Unknown { kind, version }),
    }
}

fn set_token(body: SetToken) -> Result<Write> {
    Ok(Write::SetToken {
        uid: Uid::trusted(&body.uid),
        device_flag: narrow(body.device_flag, "device flag")?,
        level: level_of(body.master),
        token: body.token.into(),
    })
}

fn level_of(master: bool) -> DeviceLevel {
    if master {
        DeviceLevel::Master
    } else {
        DeviceLevel::Slave
    }
}

fn quit_devices(body: QuitDevices) -> Result<Write> {
    let flag = body.device_flag.map(|f| narrow(f, "device flag"));
    Ok(Write::QuitDevices {
        uid: Uid::trusted(&body.uid),
        device_flag: flag.transpose()?,
    })
}

fn set_channel(body: SetChannel) -> Result<Write> {
    Ok(Write::SetChannel {
        channel: body.channel.key()?,
        flags: body.flags.into(),
        create_only: body.create_only,
    })
}

fn with_change(body: OfChannel) -> Result<(OfChannel, SetChange)> {
    let change = body
        .change
        .as_ref()
        .ok_or_else(|| malformed("a set without a change"))?
        .value()?;
    Ok((body, change))
}

fn mark(body: MarkOf) -> Result<Write> {
    let seq = MessageSeq(body.seq);
    let mark = match body.how {
        1 => Mark::Read(seq),
        2 => Mark::Unread(seq),
        3 => Mark::Deleted(seq),
        _ => return Err(malformed("mark")),
    };
    Ok(Write::Mark {
        uid: Uid::trusted(&body.uid),
        channel: body.channel.key()?,
        mark,
    })
}

fn outbox_done(body: Keys) -> Write {
    let keys = body
        .keys
        .into_iter()
        .map(|p| OutboxKey {
            index: LogIndex(p.index),
            position: p.position,
        })
        .collect();
    Write::OutboxDone { keys }
}
