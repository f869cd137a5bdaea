//! The replicated machine of one slot: users, tokens, channels, members, lists, messages, conversations.
//!
//! Pure: no runtime, clock, configuration, randomness or file layout. A leader calls `needs → decide` with facts in memory and turns
//! a [`Request`] into a [`Command`]; every replica applies the command to a store transaction and gets the same [`Outcome`].
//!
//! * [`request`]: what may be asked of a slot, and what it answers;
//! * [`command`]: what goes into the log;
//! * [`machine`]: `needs`, `decide`, `apply`;
//! * [`query`]: reads, from a [`wk_store::View`];
//! * [`control`]: the cluster as the control group has it;
//! * [`policy`]: what a leader knows besides the state.

pub mod command;
pub mod control;
pub mod machine;
pub mod policy;
pub mod query;
pub mod request;

mod conversations;
mod cursors;
mod entry;
mod facts;
mod lists;
mod members;
mod messages;
mod outbox;
mod permission;
mod rows;
mod sets;
mod step;
mod sweep;
mod tables;
mod users;
mod wire;

pub use command::{Batch, Command, ControlChange, Effect, Outcome, Stamp};
pub use control::{BindResult, ClusterMember, ControlView, Genesis, Secret, Voters};
pub use machine::{Context, Facts, Machine, Needs, Verdict};
pub use messages::implicit_recipients;
pub use policy::Policy;
pub use query::{Answer, Query};
pub use request::{CallError, Reply, Request, SendRequest, SendResult, Why, Write};
pub use sets::PAGE_UIDS_MAX;
pub use users::KICK_TEXT;
