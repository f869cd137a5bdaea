//! Channels: types, person ids, command twins, placement. Spec: messaging 0.2, 0.4, 2.2, 2.5.

use std::fmt;

use crate::ids::{ChannelId, SlotId, Uid};

/// Suffix of a command twin's visible id. Inside the server the twin is a bit of [`ChannelKey`].
pub const COMMAND_SUFFIX: &str = "____cmd";
/// Channel of online-only commands to explicit recipients (type [`ChannelType::TEMP`]).
pub const ONLINE_COMMAND_CHANNEL: &str = "systemcmdonline";
/// The server's own sender: hidden from recipients.
pub const SYSTEM_UID: &str = "____system";
/// Admin login (`managerUID` by default).
pub const MANAGER_UID: &str = "____manager";
/// Device id v2 trusted as its own; refused from clients (N1).
pub const SYSTEM_DEVICE: &str = "____device";

/// What kind of channel; the number on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelType(pub u8);

impl ChannelType {
    /// Two users; the stored id is the pair.
    pub const PERSON: Self = Self(1);
    /// A subscriber list.
    pub const GROUP: Self = Self(2);
    /// Old customer service, id `visitor|anything`.
    pub const CUSTOMER_SERVICE: Self = Self(3);
    /// Behaves as a group.
    pub const COMMUNITY: Self = Self(4);
    /// Behaves as a group, id `community@topic` by convention.
    pub const COMMUNITY_TOPIC: Self = Self(5);
    /// Public: anybody may send.
    pub const INFO: Self = Self(6);
    /// A group without conversations made by messages.
    pub const DATA: Self = Self(7);
    /// Explicit recipients.
    pub const TEMP: Self = Self(8);
    /// A group without any conversation.
    pub const LIVE: Self = Self(9);
    /// Id is the visitor's uid.
    pub const VISITORS: Self = Self(10);
    /// Id `user@agent`, sender first.
    pub const AGENT: Self = Self(11);
    /// Behaves as a group.
    pub const AGENT_GROUP: Self = Self(12);

    /// 1..=12; anything else is refused with [`crate::Reason::NotSupportChannelType`].
    pub const fn is_known(self) -> bool {
        matches!(self.0, 1..=12)
    }
}

impl fmt::Display for ChannelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one message log: a channel, or its command twin (messaging 2.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    /// Stored id without the command suffix; a person channel's pair id.
    pub base: ChannelId,
    /// Type; base and twin share it.
    pub kind: ChannelType,
    /// The command twin of `base`: own log and seq, same members, lists and slot (H3).
    pub twin: bool,
}

impl ChannelKey {
    /// An ordinary channel.
    pub fn new(base: ChannelId, kind: ChannelType) -> Self {
        Self {
            base,
            kind,
            twin: false,
        }
    }

    /// The person channel of two users.
    pub fn person(a: &Uid, b: &Uid) -> Self {
        Self::new(person_id(a, b), ChannelType::PERSON)
    }

    /// The same channel's command twin.
    pub fn command(&self) -> Self {
        Self {
            twin: true,
            ..self.clone()
        }
    }

    /// The channel a twin belongs to; itself if it is none.
    pub fn ordinary(&self) -> Self {
        Self {
            twin: false,
            ..self.clone()
        }
    }

    /// The id clients and the HTTP API know: with the command suffix for a twin.
    pub fn stored_id(&self) -> String {
        if self.twin {
            format!("{}{COMMAND_SUFFIX}", self.base)
        } else {
            self.base.as_str().to_owned()
        }
    }

    /// The two users of a person or agent channel, in stored order; `None` for other types or malformed ids.
    pub fn pair(&self) -> Option<(Uid, Uid)> {
        if self.kind != ChannelType::PERSON && self.kind != ChannelType::AGENT {
            return None;
        }
        let (a, b) = self.base.as_str().split_once('@')?;
        if a.is_empty() || b.is_empty() || b.contains('@') {
            return None;
        }
        Some((Uid::trusted(a), Uid::trusted(b)))
    }

    /// The other user of a pair; `uid` itself for a channel with oneself.
    pub fn peer_of(&self, uid: &Uid) -> Option<Uid> {
        let (a, b) = self.pair()?;
        if a == *uid {
            Some(b)
        } else if b == *uid {
            Some(a)
        } else {
            None
        }
    }

    /// The slot of the channel and of its twin.
    pub fn slot(&self, slot_count: u16) -> SlotId {
        slot_of(self.base.as_str(), slot_count)
    }
}

/// Person channel id: the uid with the larger CRC-32 first, joined by `@`; on a tie the byte-wise larger first.
pub fn person_id(a: &Uid, b: &Uid) -> ChannelId {
    let rank = |u: &Uid| (crc32fast::hash(u.as_str().as_bytes()), u.clone());
    let (first, second) = if rank(a) >= rank(b) { (a, b) } else { (b, a) };
    ChannelId::trusted(&format!("{first}@{second}"))
}

/// Slot of a uid or of a channel's base id: `crc32_ieee(key) % slot_count`. Spec: messaging 0.4, H3.
pub fn slot_of(key: &str, slot_count: u16) -> SlotId {
    assert!(slot_count > 0, "a cluster has at least one slot");
    let slot = crc32fast::hash(key.as_bytes()) % u32::from(slot_count);
    SlotId(slot as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(s: &str) -> Uid {
        Uid::parse(s).unwrap()
    }

    #[test]
    fn person_id_is_symmetric() {
        let (a, b) = (uid("u1"), uid("u2"));
        assert_eq!(person_id(&a, &b), person_id(&b, &a));
        let key = ChannelKey::person(&a, &b);
        assert_eq!(key.peer_of(&a), Some(b));
    }

    #[test]
    fn twin_shares_slot_and_shows_suffix() {
        let g = ChannelKey::new(ChannelId::parse("g1").unwrap(), ChannelType::GROUP);
        assert_eq!(g.command().stored_id(), "g1____cmd");
        assert_eq!(g.command().slot(64), g.slot(64));
        assert_eq!(g.command().ordinary(), g);
    }
}
