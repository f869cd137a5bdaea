//! What every place that holds messages answers: a memtable generation, a section of a message file. A picture of a replica is
//! a list of layers; newer layers hold larger seqs and ids, so readers walk them from one end and stop.

use wk_proto::{ChannelKey, MessageId, MessageSeq, Record, WallMs};

use crate::hash::text_hash;
use crate::{Dir, Head, Limit, Result, Stored};

/// A channel with its hash, computed once per call.
#[derive(Clone, Copy)]
pub(crate) struct Channel<'a> {
    pub(crate) key: &'a ChannelKey,
    pub(crate) hash: u64,
}

/// Hash of (channel, client_msg_no). On disk: never change it without a new format version.
#[derive(Clone, Copy)]
pub(crate) struct NumberHash(pub(crate) u64);

impl NumberHash {
    /// Hash of (channel, sender, client_msg_no), from [`Channel::sender`].
    pub(crate) fn with_sender(self, sender: u64) -> u64 {
        self.0 ^ sender.rotate_left(17)
    }
}

impl<'a> Channel<'a> {
    pub(crate) fn new(key: &'a ChannelKey) -> Self {
        let seed = u64::from(key.kind.0) << 1 | u64::from(key.twin);
        let hash = text_hash(key.base.as_str(), seed);
        Self { key, hash }
    }

    /// Hash of (channel, sender).
    pub(crate) fn sender(&self, from: &str) -> u64 {
        text_hash(from, self.hash)
    }

    /// Hash of (channel, client_msg_no). Another seed than [`Self::sender`]: a number may be spelled like a uid.
    pub(crate) fn number(&self, number: &str) -> NumberHash {
        NumberHash(text_hash(number, !self.hash))
    }
}

/// Seqs `first..=last`.
#[derive(Clone, Copy)]
pub(crate) struct SeqRange {
    pub(crate) first: MessageSeq,
    pub(crate) last: MessageSeq,
}

impl Head {
    pub(crate) fn of(seq: MessageSeq, record: &Record) -> Self {
        Self {
            seq,
            id: record.message_id(),
            time: record.time(),
            from: wk_proto::Uid::trusted(record.from_uid()),
        }
    }
}

/// Room left by a [`Limit`]: the first item always fits.
struct Room {
    items: usize,
    count: usize,
    bytes: usize,
}

impl Room {
    fn new(limit: Limit) -> Self {
        Self {
            items: 0,
            count: limit.count.max(1),
            bytes: limit.bytes,
        }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.items == 0 || (self.items < self.count && bytes <= self.bytes);
        if fits {
            self.items += 1;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        fits
    }

    fn is_full(&self) -> bool {
        self.items >= self.count || (self.items > 0 && self.bytes == 0)
    }
}

/// Messages of one channel, gathered from one end.
pub(crate) struct Collector {
    room: Room,
    full: bool,
    found: Vec<Stored>,
}

impl Collector {
    pub(crate) fn new(limit: Limit) -> Self {
        Self {
            room: Room::new(limit),
            full: false,
            found: Vec::new(),
        }
    }

    /// `false` = stop.
    pub(crate) fn push(&mut self, stored: Stored) -> bool {
        if !self.room.take(stored.record.as_bytes().len()) {
            self.full = true;
            return false;
        }
        self.found.push(stored);
        self.full = self.room.is_full();
        !self.full
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Ascending, whichever end they were gathered from.
    pub(crate) fn ascending(mut self, dir: Dir) -> Vec<Stored> {
        if dir == Dir::Down {
            self.found.reverse();
        }
        self.found
    }
}

/// Messages of all channels in id order.
pub(crate) struct IdCollector {
    room: Room,
    full: bool,
    pub(crate) found: Vec<(ChannelKey, Stored)>,
}

impl IdCollector {
    pub(crate) fn new(limit: Limit) -> Self {
        Self {
            room: Room::new(limit),
            full: false,
            found: Vec::new(),
        }
    }

    /// `false` = stop.
    pub(crate) fn push(&mut self, key: ChannelKey, stored: Stored) -> bool {
        if !self.room.take(stored.record.as_bytes().len()) {
            self.full = true;
            return false;
        }
        self.found.push((key, stored));
        self.full = self.room.is_full();
        !self.full
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}

/// One place that holds messages of one replica.
pub(crate) trait Layer {
    /// Newest message of the channel in this layer.
    fn head(&self, channel: &Channel<'_>) -> Result<Option<Head>>;
    /// Its seq alone: what an append needs.
    fn head_seq(&self, channel: &Channel<'_>) -> Result<Option<MessageSeq>>;
    /// Newest seq of the channel by this sender.
    fn last_by(&self, channel: &Channel<'_>, from: &str) -> Result<Option<MessageSeq>>;
    /// Feeds messages with these seqs from the end `dir` names, until the collector is full.
    fn range(
        &self,
        channel: &Channel<'_>,
        seqs: SeqRange,
        dir: Dir,
        into: &mut Collector,
    ) -> Result<()>;
    /// The message with this id.
    fn by_id(&self, id: MessageId) -> Result<Option<(ChannelKey, Stored)>>;
    /// Feeds messages with larger ids, ascending, until the collector is full.
    fn after_id(&self, after: MessageId, into: &mut IdCollector) -> Result<()>;
    /// Newest message with this sender and client_msg_no. A layer whose messages are all older than `since` may skip the
    /// search; the caller checks the time of what is returned.
    fn duplicate(
        &self,
        channel: &Channel<'_>,
        from: &str,
        number: &str,
        since: WallMs,
    ) -> Result<Option<Stored>>;
    /// Adds messages with this client_msg_no, newest first, up to `limit` in total.
    fn by_number(
        &self,
        channel: &Channel<'_>,
        number: &str,
        limit: usize,
        into: &mut Vec<Stored>,
    ) -> Result<()>;
    /// The first `limit` channels with a key > `after`, ascending, with their newest message in this layer.
    fn channels(&self, after: Option<&ChannelKey>, limit: usize)
    -> Result<Vec<(ChannelKey, Head)>>;
}
