//! Why a use case has no result.

use std::borrow::Cow;

use wk_chat::request::{CallError, Why};
use wk_proto::Reason;

/// Why a use case has no result. Whether it had an effect is part of the answer (D7).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is wrong; nothing happened. The text is part of the API.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// What was asked for does not exist; nothing happened.
    #[error("not found")]
    NotFound,
    /// The user or channel is banned or disbanded, and the like; nothing happened. Callers look at the reason.
    #[error("refused: {0:?}")]
    Refused(Reason),
    /// The group did not answer; see [`CallError`] for what may have happened.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A group's refusal. What is wrong with the request is said in words, so that it cannot be taken for an answer.
    pub(super) fn refusal(reason: Reason) -> Self {
        match reason {
            Reason::ChannelIdError => Self::invalid("频道ID不合法！"),
            Reason::NotSupportChannelType => Self::invalid("频道类型错误！"),
            Reason::RateLimit => Self::invalid("数量超过上限！"),
            // The leader could not look at its own state.
            Reason::SystemError => Self::Call(CallError::NotSent(Why::Busy)),
            other => Self::Refused(other),
        }
    }

    pub(crate) fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(text.into())
    }
}

/// Fails with `text` unless `holds`.
pub(super) fn ensure(holds: bool, text: &'static str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::invalid(text))
    }
}
