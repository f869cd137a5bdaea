//! Sockets: listeners, one task per connection, back-pressure. Decides nothing about messages: that is the session's.

mod driver;
mod listener;
mod outbox;
mod ws;

use std::sync::Arc;

use wk_session::Config;

use crate::parts::Parts;

pub(crate) use listener::{accept_all, bind};

/// What every connection task of the node uses.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) session: Arc<Config>,
    pub(crate) parts: Arc<Parts>,
}
