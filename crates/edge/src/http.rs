//! The business API over HTTP/1.1: routes, access, decoding, encoding. A thin layer over [`crate::service`].
//!
//! [`serve`] binds and answers until told to stop. Everything a route needs is in one row of the table in `routes`; the same table makes
//! the OpenAPI document. Does not know groups, slots or sessions.

mod access;
mod answer;
mod config;
mod decode;
mod docs;
mod handlers;
mod json;
mod message;
mod process;
mod query;
mod routes;
mod server;
mod text;

pub use config::{Addresses, ApiConfig, Build};
pub use server::{Serving, serve, serve_backend};
