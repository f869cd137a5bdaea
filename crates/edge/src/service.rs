//! The use cases of the server, one function each: typed requests, validation, calls to the groups that hold the state (H60).
//!
//! HTTP, the manager, plugins and the command line are thin layers over this module; it knows none of them. Texts of [`Error::Invalid`]
//! are v2's, because callers show them.

mod backend;
mod channels;
mod commands;
mod conversations;
mod error;
mod fanout;
mod history;
mod ids;
mod lists;
mod marks;
mod members;
mod nodes;
mod send;
mod users;

use std::sync::Arc;

use wk_chat::query::{Answer, Query};
use wk_chat::request::{CallError, Reply, Request, Why, Write};

pub use backend::{Backend, Calling};
pub use channels::{ChannelInfo, CreateChannel};
pub use conversations::{ChannelMessages, ConversationView, SyncConversations};
pub use error::{Error, Result};
pub use history::{History, HistoryWindow, Page, PullMode};
pub use ids::{online_target, temporary_channel};
pub use lists::{ListChange, Listed};
pub use marks::MarkTarget;
pub use members::ChangeMembers;
pub use send::{Broadcast, Broadcasted, SendMessage, Sent};
pub use users::{Online, SetToken};

/// What the use cases need to know besides the state.
#[derive(Clone, Debug)]
pub struct Config {
    /// `disableCMDMessageSync`: commands are never handed out by [`Service::commands`].
    pub command_sync_off: bool,
    /// `conversation.userMaxCount`: conversations one sync considers.
    pub conversations_per_user_max: usize,
    /// `channel.onlineCmdChannelId`.
    pub online_command_channel: Arc<str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            command_sync_off: false,
            conversations_per_user_max: 1_000,
            online_command_channel: wk_proto::channel::ONLINE_COMMAND_CHANNEL.into(),
        }
    }
}

/// The use cases. Cheap to share behind an `Arc`; holds no state but [`commands::Handed`], which is a hint.
#[derive(Debug)]
pub struct Service {
    backend: Arc<dyn Backend>,
    config: Config,
    handed: commands::Handed,
}

impl Service {
    /// Use cases over `backend`.
    pub fn new(backend: Arc<dyn Backend>, config: Config) -> Self {
        Self {
            backend,
            config,
            handed: commands::Handed::default(),
        }
    }

    /// A write that has nothing to tell but that it is done.
    async fn write(&self, write: Write) -> Result<()> {
        match self.backend.call(Request::Write(Box::new(write))).await? {
            Reply::Done | Reply::Flags(_) => Ok(()),
            Reply::Refused(reason) => Err(Error::refusal(reason)),
            other => Err(mismatch(&other)),
        }
    }

    async fn query(&self, query: Query) -> Result<Answer> {
        match self.backend.call(Request::Query(Box::new(query))).await? {
            Reply::Answer(answer) => Ok(*answer),
            Reply::Refused(reason) => Err(Error::refusal(reason)),
            other => Err(mismatch(&other)),
        }
    }

    fn slot_count(&self) -> u16 {
        self.backend.policy().slot_count
    }
}

/// An answer that does not belong to its request: a bug of the group's code, reported as a fault of the group.
fn mismatch(found: &dyn std::fmt::Debug) -> Error {
    tracing::error!(?found, "an answer does not belong to its request");
    Error::Call(CallError::Unknown(Why::Faulty))
}
