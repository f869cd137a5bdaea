//! How things end.

use std::fmt;

use wk_proto::Reason;

/// A reason code of the server, known to this build or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub u8);

impl Refusal {
    /// The code's name; `None` if this build does not know it.
    pub fn reason(self) -> Option<Reason> {
        Reason::from_code(self.0)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{reason:?} ({})", self.0),
            None => write!(f, "reason {}", self.0),
        }
    }
}

/// Why a client has ended; it does not come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// CONNACK with a reason: wrong token (2), banned (19), client key missing (21), … Trying again as it is will not help.
    #[error("the server refuses the login: {0}")]
    Refused(Refusal),
    /// DISCONNECT: logged in elsewhere, or removed by an operator.
    #[error("the server ended the session: {code}{}{text}", if .text.is_empty() { "" } else { ", " })]
    Kicked {
        /// The reason code.
        code: Refusal,
        /// The server's words; may be empty.
        text: String,
    },
    /// [`crate::Encryption::Required`], but the server does not encrypt.
    #[error("the server does not encrypt, which was required")]
    NotEncrypted,
    /// Not `host:port`, `tcp://host:port` or `ws://host:port/path`.
    #[error("{0:?} is not a server address like 127.0.0.1:5100 or ws://127.0.0.1:5200")]
    Address(String),
    /// The options do not fit the wire: a text is too long.
    #[error("uid, token or device id is too long")]
    Options,
    /// No connection, and reconnecting is off or was given up.
    #[error("no connection: {0}")]
    Disconnected(String),
    /// Closed by the application.
    #[error("closed")]
    Closed,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The server refused it; it is not stored.
    #[error("the server refuses the message: {0}")]
    Refused(Refusal),
    /// Payload over `PAYLOAD_BYTES_MAX` or a text over the wire's limit; nothing was sent.
    #[error("the message is too long")]
    TooLong,
    /// The client ended first. If the message was submitted before, it may be stored; sending it again under the same
    /// `client_msg_no` is safe.
    #[error("{0}")]
    Ended(#[from] Error),
}
