//! Values of rows: encodings, and reading them from a transaction or a view. What they mean is decided by the modules that write them.

use bytes::Bytes;
use prost::Message;
use wk_proto::{ChannelKey, LogIndex, Uid};
use wk_store::{Error, Result, Table, Tx, View};

use crate::request::ChannelFlags;
use crate::tables::{self, Set};

/// What a transaction and a view can both be asked.
pub(crate) trait Rows {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;
    fn rows(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>>;

    /// A row's value; its default if there is no row.
    fn load<M: Message + Default>(&self, table: Table, key: &[u8]) -> Result<M> {
        Ok(self.find(table, key)?.unwrap_or_default())
    }
    /// A row's value, if there is a row.
    fn find<M: Message + Default>(&self, table: Table, key: &[u8]) -> Result<Option<M>> {
        self.row(table, key)?
            .map(|value| decode(table, value))
            .transpose()
    }
}

impl Rows for Tx<'_> {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.get(table, key)
    }
    fn rows(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.scan(table, prefix, after, limit)
    }
}

impl Rows for View {
    fn row(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.get(table, key)
    }
    fn rows(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        self.scan(table, prefix, after, limit)
    }
}

/// Decodes a row's value.
pub(crate) fn decode<M: Message + Default>(table: Table, value: Bytes) -> Result<M> {
    M::decode(value).map_err(|e| corrupt(table, &e.to_string()))
}

/// A row or key that no build of this program writes.
pub(crate) fn corrupt(table: Table, why: &str) -> Error {
    Error::Corrupt {
        what: format!("a row of table {}", table.0),
        why: why.to_owned(),
    }
}

/// Writes a row.
pub(crate) fn put(tx: &mut Tx<'_>, table: Table, key: &[u8], value: &impl Message) {
    tx.put(table, key, value.encode_to_vec().into());
}

/// Calls `each` for the rows under `prefix`, in key order, in steps of at most `SCAN_STEP_ROWS`, until it answers `false`.
pub(crate) fn each_row(
    rows: &impl Rows,
    table: Table,
    prefix: &[u8],
    after: Option<Vec<u8>>,
    mut each: impl FnMut(Bytes, Bytes) -> Result<bool>,
) -> Result<()> {
    let mut after = after;
    loop {
        let page = rows.rows(table, prefix, after.as_deref(), SCAN_STEP_ROWS)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        let (next, full) = (last.to_vec(), page.len() == SCAN_STEP_ROWS);
        for (key, value) in page {
            if !each(key, value)? {
                return Ok(());
            }
        }
        if !full {
            return Ok(());
        }
        after = Some(next);
    }
}

/// Rows a scan holds in memory at a time.
const SCAN_STEP_ROWS: usize = 1_000;

/// Position of a cause in a group's log.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Epoch {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint32, tag = "2")]
    pub position: u32,
}

impl From<wk_proto::Epoch> for Epoch {
    fn from(e: wk_proto::Epoch) -> Self {
        Self {
            index: e.index.0,
            position: e.position,
        }
    }
}

impl From<Epoch> for wk_proto::Epoch {
    fn from(e: Epoch) -> Self {
        Self {
            index: LogIndex(e.index),
            position: e.position,
        }
    }
}

/// A uid of a set: which command put it there, and when it was asked for first and last (ms).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Entry {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint32, tag = "2")]
    pub position: u32,
    #[prost(uint64, tag = "3")]
    pub created: u64,
    #[prost(uint64, tag = "4")]
    pub updated: u64,
}

/// Token of (uid, device flag).
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Device {
    /// Empty = logged out.
    #[prost(string, tag = "1")]
    pub token: String,
    #[prost(bool, tag = "2")]
    pub master: bool,
}

/// Everything about a channel that is not a list or a message. A row may exist without `info`: lists of an unknown channel.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Channel {
    /// The channel as the API knows it; absent = never created.
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
    #[prost(message, required, tag = "2")]
    pub members: SetState,
    #[prost(message, required, tag = "3")]
    pub deny: SetState,
    #[prost(message, required, tag = "4")]
    pub allow: SetState,
    /// Which conversation rows of the channel's implicit recipients exist (H7): bits of [`made_bit`].
    #[prost(uint32, tag = "5")]
    pub made: u32,
}

/// Bit of [`Channel::made`] for the n-th implicit recipient's chat part, or with `command` his command part.
pub(crate) const fn made_bit(recipient: usize, command: bool) -> u32 {
    1 << (recipient + if command { 4 } else { 0 })
}

impl Channel {
    /// Row of a channel, of a twin's base, or of a user.
    pub(crate) fn read(rows: &impl Rows, channel: &ChannelKey) -> Result<Self> {
        rows.load(tables::CHANNELS, &tables::channel(channel))
    }
    pub(crate) fn write(&self, tx: &mut Tx<'_>, channel: &ChannelKey) {
        put(tx, tables::CHANNELS, &tables::channel(channel), self);
    }
    pub(crate) fn flags(&self) -> ChannelFlags {
        self.info.as_ref().map(Info::flags).unwrap_or_default()
    }
    pub(crate) fn set(&self, set: Set) -> &SetState {
        match set {
            Set::Members => &self.members,
            Set::Deny => &self.deny,
            Set::Allow => &self.allow,
        }
    }
    pub(crate) fn set_mut(&mut self, set: Set) -> &mut SetState {
        match set {
            Set::Members => &mut self.members,
            Set::Deny => &mut self.deny,
            Set::Allow => &mut self.allow,
        }
    }
    /// Whether `uid` is in the visible generation of a set. Costs no read for an empty set.
    pub(crate) fn contains(
        &self,
        rows: &impl Rows,
        channel: &ChannelKey,
        set: Set,
        uid: &Uid,
    ) -> Result<bool> {
        let state = self.set(set);
        if state.count == 0 {
            return Ok(false);
        }
        let key = tables::entry(channel, set, state.generation, uid);
        Ok(rows.row(tables::SET_ENTRIES, &key)?.is_some())
    }
}

/// Flags and times of a created channel.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Info {
    #[prost(bool, tag = "1")]
    pub ban: bool,
    #[prost(bool, tag = "2")]
    pub disband: bool,
    #[prost(bool, tag = "3")]
    pub send_ban: bool,
    #[prost(bool, tag = "4")]
    pub allow_stranger: bool,
    #[prost(bool, tag = "5")]
    pub large: bool,
    #[prost(uint64, tag = "6")]
    pub created: u64,
    #[prost(uint64, tag = "7")]
    pub updated: u64,
}

impl Info {
    pub(crate) fn new(flags: ChannelFlags, created: u64, updated: u64) -> Self {
        Self {
            ban: flags.ban,
            disband: flags.disband,
            send_ban: flags.send_ban,
            allow_stranger: flags.allow_stranger,
            large: flags.large,
            created,
            updated,
        }
    }
    pub(crate) fn flags(&self) -> ChannelFlags {
        ChannelFlags {
            ban: self.ban,
            disband: self.disband,
            send_ban: self.send_ban,
            allow_stranger: self.allow_stranger,
            large: self.large,
        }
    }
}

/// One set of uids (H11).
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct SetState {
    /// Generation whose entries are the set.
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// Largest generation ever given out: numbers are not reused.
    #[prost(uint64, tag = "2")]
    pub last_generation: u64,
    /// Entries of `generation`.
    #[prost(uint64, tag = "3")]
    pub count: u64,
    /// Counts up with every visible change.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// A replacement under construction.
    #[prost(message, optional, tag = "5")]
    pub stage: Option<Stage>,
}

impl SetState {
    /// No entries, staged ones included.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0 && self.stage.is_none_or(|stage| stage.count == 0)
    }
}

/// A generation not yet visible.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Stage {
    #[prost(uint64, tag = "1")]
    pub token: u64,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    #[prost(uint64, tag = "3")]
    pub count: u64,
}

/// What `owner`'s lists say about the other user of the pair (H1).
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Pair {
    #[prost(message, required, tag = "1")]
    pub deny: PairEntry,
    #[prost(message, required, tag = "2")]
    pub allow: PairEntry,
}

/// Last word about one list; kept when `present` is false so that an older word cannot come back.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct PairEntry {
    #[prost(bool, tag = "1")]
    pub present: bool,
    #[prost(message, required, tag = "2")]
    pub epoch: Epoch,
}

/// Conversation of (uid, base channel) (H7, H8). Neither part = a tombstone that keeps the epochs.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Conversation {
    /// The chat part is there.
    #[prost(bool, tag = "1")]
    pub chat: bool,
    #[prost(uint64, tag = "2")]
    pub read: u64,
    #[prost(uint64, tag = "3")]
    pub deleted: u64,
    #[prost(uint64, tag = "4")]
    pub created: u64,
    #[prost(uint64, tag = "5")]
    pub updated: u64,
    #[prost(message, optional, tag = "6")]
    pub command: Option<CommandPart>,
    /// Last change of the chat part by the channel's slot. The parts have an epoch each: a later `Command` must not make an
    /// earlier `Join` look stale.
    #[prost(message, required, tag = "7")]
    pub chat_epoch: Epoch,
    #[prost(message, required, tag = "8")]
    pub command_epoch: Epoch,
}

impl Conversation {
    /// Nothing but epochs is left.
    pub(crate) fn is_tombstone(&self) -> bool {
        !self.chat && self.command.is_none()
    }
}

/// Marks in the command twin.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CommandPart {
    #[prost(uint64, tag = "1")]
    pub read: u64,
    /// 0 = open end.
    #[prost(uint64, tag = "2")]
    pub until: u64,
}

/// Counters of a user.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct User {
    /// Rows in `CONVERSATIONS`, tombstones included.
    #[prost(uint64, tag = "1")]
    pub conversations: u64,
}
