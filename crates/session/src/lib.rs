//! One client connection, from the first byte to the close: a sans-IO state machine.
//!
//! Bytes and results go in as [`Event`]s, bytes and wishes come out as [`Effect`]s; time is an argument, keys and salts are made from
//! a seed. Nothing here knows sockets, slots or other sessions: a hostile peer can only hurt its own session.
//!
//! ```text
//!  socket ──Bytes──▶ ┌─────────┐ ──Transmit──▶ socket        Admit ─▶ slot(uid) ─▶ Admitted
//!  slot  ──Done────▶ │ Session │ ──Call──────▶ router        Publish ─▶ directory ─▶ Visible ─▶ CONNACK
//!  delivery ────────▶└─────────┘ ──Close─────▶ driver
//! ```
//!
//! A driver's turn: hand over every event that is there with one list of effects, perform the effects in order, read from the socket
//! only while [`Session::wants_bytes`], send [`Event::Timeout`] at [`Session::next_timeout`], and stop at [`Effect::Close`]. What waits
//! for a slow socket is the driver's to bound (H24): a session keeps nothing that was written.
//!
//! Chosen where the protocol leaves it open: texts that are not UTF-8 are refused (they could not be given back as they came): a CONNECT
//! with reason 2, a SEND with 16 (channel id) or 9 (anything else). SENDs that were accepted before a kick are still acknowledged.
//! Deliveries between publication and CONNACK wait for CONNACK.

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
