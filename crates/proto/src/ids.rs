//! Newtypes for every number and string that must not meet another one (decisions D2).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::limits::ID_BYTES_MAX;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Hash partition, `0..slot_count`. Everything keyed to it lives in one raft group.
    SlotId(u16)
);
number!(
    /// A server process, as configured (`cluster.nodeId`).
    NodeId(u32)
);
number!(
    /// One node's member of one group, allocated by the control group and never reused: the raft id (H45).
    ReplicaId(u64)
);
number!(
    /// Position in one channel's log: from 1, natively contiguous, never reused. 0 = not stored.
    MessageSeq(u64)
);
number!(
    /// Unique in the cluster, strictly increasing per slot in log order (H14). Never 0.
    MessageId(i64)
);
number!(
    /// Position in one group's log. A different thing from [`MessageSeq`].
    LogIndex(u64)
);
number!(
    /// Election number of one group.
    Term(u64)
);
number!(
    /// One accepted socket of one node. Counts up from 1, never reused within a process.
    ConnId(u64)
);
number!(
    /// Names one outstanding call of the node that issued it.
    Ticket(u64)
);

impl MessageSeq {
    /// The seq after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LogIndex {
    /// The index after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A raft group: the control group or one slot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupId {
    /// Nodes, settings, secrets, system uids, desired placement.
    Control,
    /// Everything keyed to one slot.
    Slot(SlotId),
}

impl GroupId {
    /// Stable number on disk and on the wire: 0 is control, slot `n` is `n + 1`.
    pub const fn to_u32(self) -> u32 {
        match self {
            Self::Control => 0,
            Self::Slot(s) => s.0 as u32 + 1,
        }
    }

    /// Inverse of [`Self::to_u32`]; `None` when out of range.
    pub fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Control),
            n => u16::try_from(n - 1).ok().map(|s| Self::Slot(SlotId(s))),
        }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Slot(s) => write!(f, "slot {s}"),
        }
    }
}

/// Which change of a channel's membership caused a row in a user's slot (H7). Larger wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Log index in the channel's slot.
    pub index: LogIndex,
    /// Position inside that entry.
    pub position: u32,
}

/// Orders two admissions of one user across slot leaders (H19). Larger wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    /// Term of the slot leader that admitted.
    pub term: Term,
    /// Counter within that term.
    pub n: u64,
}

/// Where a session's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    /// Node that holds the socket.
    pub node: NodeId,
    /// The connection on that node.
    pub conn: ConnId,
}

/// Why a string is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or white space only.
    #[error("must not be empty")]
    Blank,
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("must be at most {ID_BYTES_MAX} bytes")]
    TooLong,
    /// Contains `@`, `#`, `&` or a control character.
    #[error("must not contain '@', '#', '&' or control characters")]
    Forbidden,
    /// Ends with the suffix the server reserves for command channels.
    #[error("must not end with '____cmd'")]
    Reserved,
}

fn check(s: &str) -> Result<(), IdError> {
    if s.trim().is_empty() {
        return Err(IdError::Blank);
    }
    if s.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong);
    }
    if s.contains(|c: char| c.is_control()) {
        return Err(IdError::Forbidden);
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// A user. Any string: there is no registration. Parsed, not validated later.
    Uid
);
text_id!(
    /// A channel id as stored: a person channel's is the pair id `a@b`, never the peer's uid.
    ChannelId
);

impl Uid {
    /// The one entrance for uids from outside: not blank, at most 512 bytes, without `@ # &` and control characters.
    pub fn parse(s: &str) -> Result<Self, IdError> {
        check(s)?;
        if s.contains(['@', '#', '&']) {
            return Err(IdError::Forbidden);
        }
        Ok(Self(s.into()))
    }

    /// For text this process stored itself.
    pub fn trusted(s: &str) -> Self {
        Self(s.into())
    }
}

impl ChannelId {
    /// For ids users choose: not blank, at most 512 bytes, no `@ # &`, not ending in the command suffix.
    pub fn parse(s: &str) -> Result<Self, IdError> {
        if s.len() > ID_BYTES_MAX {
            return Err(IdError::TooLong);
        }
        let id = Self::parse_generated(s)?;
        if s.contains(['@', '#', '&']) {
            return Err(IdError::Forbidden);
        }
        Ok(id)
    }

    /// For ids the server composes of two (`a@b`, `visitor|x`, `community@topic`): as [`Self::parse`], but `@ # &` may occur and
    /// it may be as long as two ids.
    pub fn parse_generated(s: &str) -> Result<Self, IdError> {
        if s.len() > 2 * ID_BYTES_MAX + 1 {
            return Err(IdError::TooLong);
        }
        if s.trim().is_empty() {
            return Err(IdError::Blank);
        }
        if s.contains(|c: char| c.is_control()) {
            return Err(IdError::Forbidden);
        }
        if s.ends_with(crate::channel::COMMAND_SUFFIX) {
            return Err(IdError::Reserved);
        }
        Ok(Self(s.into()))
    }

    /// For text this process stored itself.
    pub fn trusted(s: &str) -> Self {
        Self(s.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_the_protocol_forbids() {
        assert_eq!(Uid::parse("  "), Err(IdError::Blank));
        assert_eq!(Uid::parse("a@b"), Err(IdError::Forbidden));
        assert_eq!(Uid::parse("a\0b"), Err(IdError::Forbidden));
        assert_eq!(Uid::parse(&"x".repeat(513)), Err(IdError::TooLong));
        assert!(Uid::parse(&"x".repeat(512)).is_ok());
        assert_eq!(ChannelId::parse("g____cmd"), Err(IdError::Reserved));
        assert!(ChannelId::parse_generated("a@b").is_ok());
        assert_eq!(ChannelId::parse(&"x".repeat(513)), Err(IdError::TooLong));
    }

    #[test]
    fn group_numbers_round_trip() {
        for g in [
            GroupId::Control,
            GroupId::Slot(SlotId(0)),
            GroupId::Slot(SlotId(65_535)),
        ] {
            assert_eq!(GroupId::from_u32(g.to_u32()), Some(g));
        }
        assert_eq!(GroupId::from_u32(70_000), None);
    }
}
