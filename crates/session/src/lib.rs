//! One client connection, from the first byte to the close: a sans-IO state machine (decisions §3.5).
//!
//! Bytes and results go in as [`Event`]s, bytes and wishes come out as [`Effect`]s; time is an argument, keys and salts are made from
//! a seed. Nothing here knows sockets, slots or other sessions: a hostile peer can only hurt its own session.
//!
//! ```text
//!  socket ──Bytes──▶ ┌─────────┐ ──Transmit──▶ socket        Admit ─▶ slot(uid) ─▶ Admitted
//!  slot  ──Done────▶ │ Session │ ──Call──────▶ router        Publish ─▶ directory ─▶ Visible ─▶ CONNACK
//!  delivery ────────▶└─────────┘ ──Close─────▶ driver
//! ```

mod admission;
mod handshake;
mod inbox;
mod inflight;
mod limits;
mod numbers;
mod open;
mod output;
mod recent;
mod send;
pub mod session;
mod target;
mod view;
mod window;

pub use session::{
    CloseKind, Config, ConnectRequest, Delivery, Effect, Event, Info, SendPacket, SendResult,
    Session, Transport,
};
