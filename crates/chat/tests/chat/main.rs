//! The machine through its public interface, on a real store.

#![allow(clippy::unwrap_used, reason = "tests")]

mod control;
mod conversations;
mod epochs;
mod lists;
mod log;
mod members;
mod messages;
mod queries;
mod sweep;
mod unread;
mod users;
mod world;
