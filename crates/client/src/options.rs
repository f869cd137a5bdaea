//! How to log in and how stubborn to be.

use std::time::Duration;

/// Payload encryption of the connection. Spec: wire-protocol 10.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the server wants.
    #[default]
    Auto,
    /// End with [`crate::Error::NotEncrypted`] if the server does not.
    Required,
    /// Offer no key. A server that encrypts refuses with 21.
    Off,
}

/// Options of [`crate::Client::connect`].
#[derive(Clone)]
pub struct Options {
    /// Who.
    pub uid: String,
    /// Empty if the server does not check tokens.
    pub token: String,
    /// Device class: 0 app, 1 web, 2 desktop.
    pub device_flag: u8,
    /// Distinguishes devices of one class; may be empty.
    pub device_id: String,
    /// Protocol version to offer, 0–5; the server may answer with a lower one.
    pub version: u8,
    /// Payload encryption.
    pub encryption: Encryption,
    /// Dial again when the connection breaks. The first connection is never retried.
    pub reconnect: bool,
    /// End with [`crate::Error::Disconnected`] after this long without a connection.
    pub give_up_after: Duration,
    /// PING after this long without a byte from the server.
    pub ping_interval: Duration,
}

impl Options {
    /// The usual ones: no token, device flag 0, a random device id, newest protocol, encryption as the server wants,
    /// PING each 30 s, reconnects for 10 minutes.
    pub fn new(uid: impl Into<String>) -> Self {
        Self {
            uid: uid.into(),
            token: String::new(),
            device_flag: 0,
            device_id: format!("{:016x}", rand::random::<u64>()),
            version: wk_proto::wire::LATEST,
            encryption: Encryption::Auto,
            reconnect: true,
            give_up_after: Duration::from_secs(600),
            ping_interval: Duration::from_secs(30),
        }
    }
}

/// Without the token.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("uid", &self.uid)
            .field("device_flag", &self.device_flag)
            .field("device_id", &self.device_id)
            .field("version", &self.version)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}
