//! Stories over real HTTP against a real node on a temporary directory. One node per story: they run in parallel.

#![allow(clippy::unwrap_used, reason = "a story fails where it cannot go on")]

mod channels;
mod conversations;
mod failures;
mod host;
mod hostile;
mod messages;
mod model;
mod plumbing;
mod users;
