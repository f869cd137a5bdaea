//! Bugs on purpose. A simulator that finds none of them proves nothing.

use std::fmt;

/// What one run does wrong. All of them sit in the drivers the simulator plays: the crates under test are unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// Nothing.
    #[default]
    Nothing,
    /// `Durable` is reported when the bytes are written, before the fsync.
    AckBeforeFsync,
    /// Messages that must wait for the log leave at once.
    IgnoreAfter,
    /// A vote is not written to the log.
    ForgetVote,
    /// Some outbox rows are reported as applied and never delivered.
    LoseOutbox,
    /// Message files are not synced before the commit that lists them.
    SkipMessageSync,
    /// The log is released when a checkpoint begins, not when it is on disk.
    ReleaseEarly,
}

impl Plant {
    /// All bugs.
    pub const ALL: [Self; 6] = [
        Self::AckBeforeFsync,
        Self::IgnoreAfter,
        Self::ForgetVote,
        Self::LoseOutbox,
        Self::SkipMessageSync,
        Self::ReleaseEarly,
    ];

    /// By the name [`fmt::Display`] gives it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.to_string() == name)
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::IgnoreAfter => "ignore-after",
            Self::ForgetVote => "forget-vote",
            Self::LoseOutbox => "lose-outbox",
            Self::SkipMessageSync => "skip-message-sync",
            Self::ReleaseEarly => "release-early",
        })
    }
}
