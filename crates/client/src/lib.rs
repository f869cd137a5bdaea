//! Client SDK of a WuKongIM server: WKProto over TCP or WebSocket, on tokio.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use wk_client::{ChannelType, Client, Event, Options, SendOptions};
//!
//! let (client, mut inbox) = Client::connect("127.0.0.1:5100", Options::new("alice")).await?;
//! let ack = client.send("bob", ChannelType::PERSON, "hello", SendOptions::default()).await?;
//! println!("stored as message {}", ack.message_seq);
//! while let Ok(event) = inbox.next().await {
//!     if let Event::Message(message) = event {
//!         println!("{:?}: {:?}", message.from_uid, message.payload);
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! What it promises:
//!
//! * **Order**: messages are sent in the order of the calls, also after a reconnect. Many may be unacknowledged at once
//!   ([`Client::submit`]).
//! * **No loss, no double**: an unacknowledged message is sent again after a reconnect under the same number, which the
//!   server recognises; a message received twice is reported once.
//! * **Clear ends**: what the server refuses for good ends the client with [`Error::Refused`] or [`Error::Kicked`]; a
//!   broken connection is dialled again in the background.
//! * **Bounds**: every queue has a named limit, see [`limits`].
//!
//! Inside, [`core::Core`] is the conversation as a value (no socket, clock or random source), [`link`] the codec of one
//! established connection (also for load generators, which bring their own loop), [`websocket`] the framing; a task per
//! client moves their bytes.

mod client;
pub mod core;
mod driver;
mod error;
pub mod limits;
pub mod link;
mod message;
mod options;
mod socket;
pub mod websocket;

pub use client::{Client, Inbox, PendingAck};
pub use error::{Error, Refusal, SendError};
pub use message::{Event, Message, SendAck, SendOptions};
pub use options::{Encryption, Options};
pub use wk_proto::{ChannelType, Reason};
