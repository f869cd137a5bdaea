//! A client and a session talking in virtual time.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "test code, of which each test binary uses a part"
)]

pub mod client;
pub mod world;

pub use client::Client;
pub use world::{World, config};
