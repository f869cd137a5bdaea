//! A client and a session talking in virtual time.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its part of it"
)]

pub mod client;
pub mod world;

pub use client::Client;
pub use world::{World, config, delivery, no_more, result};
