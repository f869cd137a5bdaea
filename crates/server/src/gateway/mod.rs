//! Sockets: listeners, one task per connection, back-pressure. Decides nothing about messages: that is the session's.

mod driver;
mod listener;
mod outbox;
mod ws;

use std::sync::Arc;

use wk_proto::NodeId;
use wk_session::{Config, Transport};

use crate::clock::Clock;
use crate::counters::Totals;
use crate::hub::Hub;
use crate::presence::Presence;
use crate::route::Route;
use crate::timers::Timers;

pub(crate) use listener::{accept_all, bind};

/// What every connection task of the node uses.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) node: NodeId,
    pub(crate) clock: Clock,
    pub(crate) session: Arc<Config>,
    pub(crate) connections_max: usize,
    pub(crate) hub: Arc<Hub>,
    pub(crate) route: Arc<Route>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) totals: Arc<Totals>,
}

/// What a listener's sockets speak.
pub(crate) type Kind = Transport;
