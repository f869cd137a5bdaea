//! The one catalogue of tables and keys (decisions D4). A number or a key layout here never changes its meaning.
//!
//! | No | Table | Key | Value | Lives in |
//! |---|---|---|---|---|
//! | 1 | `DEVICES` | uid, flag | `rows::Device` | slot(uid) |
//! | 2 | `CHANNELS` | type, base | `rows::Channel` | slot(channel); a user's own row: type 1, base = uid |
//! | 3 | `SET_ENTRIES` | type, base, set, generation, uid | `rows::Entry` | slot(channel) |
//! | 4 | `GARBAGE` | type, base, set, generation | empty | slot(channel) |
//! | 5 | `CONVERSATIONS` | uid, base, type | `rows::Conversation` | slot(uid) |
//! | 6 | `PAIRS` | pair id, owner | `rows::Pair` | slot(pair) |
//! | 7 | `OUTBOX` | log index, position | `wire::Inbox` | slot of the cause |
//! | 8 | `SYSTEM_UIDS` | uid | empty | control group |
//! | 9 | `USERS` | uid | `rows::User` | slot(uid) |
//! | 10 | `CURSORS` | consumer | message id, 8 bytes big-endian | every slot |
//! | 11 | `EXPIRIES` | [`Expiring`], time in ms, key of the row | empty | slot of the row |
//! | 12 | `CLUSTER` | empty | `control::Cluster` | control group |
//! | 13 | `NODES` | node | `control::Node` | control group |
//! | 14 | `PLACEMENT` | [`wk_proto::GroupId::to_u32`] | `control::Placement` | control group |
//!
//! A text part is its length (u16, big-endian) and its bytes; numbers are big-endian; a type, flag or set is one byte. So no key
//! is a prefix of another part's key, scans by leading parts are exact, and texts sort by (length, bytes). Replica and table are
//! added by the store.

use wk_proto::{ChannelKey, Uid};
use wk_store::Table;

use crate::request::{List, OutboxKey};

pub(crate) const DEVICES: Table = Table(1);
pub(crate) const CHANNELS: Table = Table(2);
pub(crate) const SET_ENTRIES: Table = Table(3);
pub(crate) const GARBAGE: Table = Table(4);
pub(crate) const CONVERSATIONS: Table = Table(5);
pub(crate) const PAIRS: Table = Table(6);
pub(crate) const OUTBOX: Table = Table(7);
pub(crate) const SYSTEM_UIDS: Table = Table(8);
pub(crate) const USERS: Table = Table(9);
pub(crate) const CURSORS: Table = Table(10);
pub(crate) const EXPIRIES: Table = Table(11);
pub(crate) const CLUSTER: Table = Table(12);
pub(crate) const NODES: Table = Table(13);
pub(crate) const PLACEMENT: Table = Table(14);

/// What a row of `EXPIRIES` is about. The number is part of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Expiring {
    /// A row in `CONVERSATIONS` without parts.
    Tombstone = 1,
    /// A row in `CHANNELS` of type TEMP.
    Temporary = 2,
}

/// The sets of uids a channel has. The number is part of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Set {
    Members = 0,
    Deny = 1,
    Allow = 2,
}

impl From<List> for Set {
    fn from(list: List) -> Self {
        match list {
            List::Deny => Self::Deny,
            List::Allow => Self::Allow,
        }
    }
}

/// A key under construction.
#[derive(Default)]
struct Key(Vec<u8>);

impl Key {
    fn text(mut self, text: &str) -> Self {
        let len = u16::try_from(text.len()).expect("ids are at most 1,025 bytes");
        self.0.extend_from_slice(&len.to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
        self
    }
    fn byte(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }
    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }
    /// Type and base. The twin has no rows of its own: it uses its base's (messaging 3.3).
    fn channel(self, channel: &ChannelKey) -> Self {
        self.byte(channel.kind.0).text(channel.base.as_str())
    }
}

/// Key in `DEVICES`.
pub(crate) fn device(uid: &Uid, flag: u8) -> Vec<u8> {
    Key::default().text(uid.as_str()).byte(flag).0
}

/// Prefix of all devices of a user.
pub(crate) fn devices_of(uid: &Uid) -> Vec<u8> {
    user(uid)
}

/// The flag of a key in `DEVICES`.
pub(crate) fn device_flag(key: &[u8]) -> Option<u8> {
    key.last().copied()
}

/// Key in `CHANNELS`, and prefix in `GARBAGE`.
pub(crate) fn channel(channel: &ChannelKey) -> Vec<u8> {
    Key::default().channel(channel).0
}

/// Prefix of one generation of one set in `SET_ENTRIES`, and key in `GARBAGE`.
pub(crate) fn generation(channel: &ChannelKey, set: Set, generation: u64) -> Vec<u8> {
    Key::default()
        .channel(channel)
        .byte(set as u8)
        .number(generation)
        .0
}

/// Key in `SET_ENTRIES`.
pub(crate) fn entry(channel: &ChannelKey, set: Set, number: u64, uid: &Uid) -> Vec<u8> {
    Key(generation(channel, set, number)).text(uid.as_str()).0
}

/// Key in `CONVERSATIONS`.
pub(crate) fn conversation(uid: &Uid, channel: &ChannelKey) -> Vec<u8> {
    Key::default()
        .text(uid.as_str())
        .text(channel.base.as_str())
        .byte(channel.kind.0)
        .0
}

/// Key in `USERS` and `SYSTEM_UIDS`, prefix of a user's rows elsewhere.
pub(crate) fn user(uid: &Uid) -> Vec<u8> {
    Key::default().text(uid.as_str()).0
}

/// Key in `PAIRS`.
pub(crate) fn pair(pair: &ChannelKey, owner: &Uid) -> Vec<u8> {
    Key::default()
        .text(pair.base.as_str())
        .text(owner.as_str())
        .0
}

/// Key in `OUTBOX`.
pub(crate) fn outbox(key: OutboxKey) -> Vec<u8> {
    let mut out = Key::default().number(key.index.0).0;
    out.extend_from_slice(&key.position.to_be_bytes());
    out
}

/// Inverse of [`outbox`].
pub(crate) fn outbox_key(key: &[u8]) -> Option<OutboxKey> {
    let (index, position) = key.split_first_chunk::<8>()?;
    Some(OutboxKey {
        index: wk_proto::LogIndex(u64::from_be_bytes(*index)),
        position: u32::from_be_bytes(position.try_into().ok()?),
    })
}

/// Key in `NODES` and `PLACEMENT`.
pub(crate) fn number(number: u64) -> Vec<u8> {
    Key::default().number(number).0
}

/// Inverse of [`number`].
pub(crate) fn as_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// Prefix in `EXPIRIES`.
pub(crate) fn expiries(what: Expiring) -> Vec<u8> {
    Key::default().byte(what as u8).0
}

/// Key in `EXPIRIES`.
pub(crate) fn expiry(what: Expiring, time: u64, row: &[u8]) -> Vec<u8> {
    let mut out = Key(expiries(what)).number(time).0;
    out.extend_from_slice(row);
    out
}

/// Time and row of a key in `EXPIRIES`.
pub(crate) fn expiry_parts(key: &[u8]) -> Option<(u64, &[u8])> {
    let (time, row) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*time), row))
}

/// Inverse of [`channel`].
pub(crate) fn channel_of(key: &[u8]) -> Option<ChannelKey> {
    let base = text_after(key, key.get(..1)?)?;
    Some(ChannelKey::new(
        wk_proto::ChannelId::trusted(base),
        wk_proto::ChannelType(*key.first()?),
    ))
}

/// Whose row a key in `CONVERSATIONS` is.
pub(crate) fn conversation_user(key: &[u8]) -> Option<Uid> {
    text_after(key, &[]).map(Uid::trusted)
}

/// The text part that follows `prefix` in `key`.
pub(crate) fn text_after<'a>(key: &'a [u8], prefix: &[u8]) -> Option<&'a str> {
    let rest = key.strip_prefix(prefix)?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    std::str::from_utf8(rest.get(..usize::from(u16::from_be_bytes(*len)))?).ok()
}

/// Base and type of a key in `CONVERSATIONS`; `prefix` is [`user`].
pub(crate) fn conversation_channel(key: &[u8], prefix: &[u8]) -> Option<ChannelKey> {
    let base = text_after(key, prefix)?;
    let kind = *key.last()?;
    Some(ChannelKey::new(
        wk_proto::ChannelId::trusted(base),
        wk_proto::ChannelType(kind),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wk_proto::{ChannelId, ChannelType, LogIndex};

    fn group(base: &str) -> ChannelKey {
        ChannelKey::new(ChannelId::trusted(base), ChannelType::GROUP)
    }

    #[test]
    fn no_users_rows_are_seen_in_a_scan_of_another() {
        // "a" is a prefix of "ab": the length in front keeps them apart.
        let scan = user(&Uid::trusted("a"));
        assert!(!conversation(&Uid::trusted("ab"), &group("x")).starts_with(&scan));
        assert!(conversation(&Uid::trusted("a"), &group("bx")).starts_with(&scan));
    }

    #[test]
    fn a_twin_shares_the_rows_of_its_base() {
        assert_eq!(channel(&group("g").command()), channel(&group("g")));
    }

    #[test]
    fn parts_are_read_back_from_keys() {
        let (u, g) = (Uid::trusted("u"), group("g"));
        let key = entry(&g, Set::Deny, 7, &u);
        assert_eq!(text_after(&key, &generation(&g, Set::Deny, 7)), Some("u"));
        assert_eq!(
            conversation_channel(&conversation(&u, &g), &user(&u)),
            Some(g.clone())
        );
        assert_eq!(conversation_user(&conversation(&u, &g)), Some(u.clone()));
        assert_eq!(channel_of(&channel(&g)), Some(g.clone()));
        assert_eq!(channel_of(b""), None);
        let dated = expiry(Expiring::Temporary, 1 << 40, b"row");
        assert_eq!(expiry_parts(&dated), Some((1 << 40, &b"row"[..])));
        assert_eq!(expiry_parts(b"short"), None);
        assert_eq!(device_flag(&device(&u, 99)), Some(99));
        let name = OutboxKey {
            index: LogIndex(1 << 40),
            position: 9,
        };
        assert_eq!(outbox_key(&outbox(name)), Some(name));
        assert_eq!(outbox_key(b"short"), None);
    }

    #[test]
    fn what_expires_first_sorts_first() {
        let key = |time, row| expiry(Expiring::Tombstone, time, row);
        assert!(key(255, b"z") < key(256, b"a"));
        assert!(key(u64::MAX, b"z") < expiry(Expiring::Temporary, 0, b""));
    }

    #[test]
    fn outbox_keys_sort_as_their_causes() {
        let key = |index, position| {
            outbox(OutboxKey {
                index: LogIndex(index),
                position,
            })
        };
        assert!(key(1, 300) < key(2, 0));
        assert!(key(255, 0) < key(256, 0));
        assert!(key(2, 255) < key(2, 256));
    }
}
