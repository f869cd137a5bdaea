//! Bounds of one session, each with its unit and what happens at it. Frame and text bounds are `wk_proto::limits`.

/// From a complete CONNECT to CONNACK, in ms. At it: silent close, the client tries again (H29).
pub const ADMISSION_MS: u64 = 4_000;

/// `Config::handshake_ms` is an idle limit; a peer that trickles bytes gets this many halves of it in all (2 s idle, 5 s in all).
pub const HANDSHAKE_HALVES: u64 = 5;

/// From `Event::Drain` to the close, in ms: as long as the router parks a SEND across an election (H30). At it: silent close.
pub const DRAIN_MS: u64 = 5_000;

/// SENDs between the oldest unanswered one and the newest. At it: the driver stops reading.
pub const IN_FLIGHT_SENDS_MAX: usize = 1_024;

/// Payload bytes of unanswered SENDs. At it: the driver stops reading; one frame may exceed it.
pub const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Persistent deliveries without a RECVACK (H25). At it: the oldest leaves, it is still in history.
pub const UNACKED_MAX: usize = 1_024;

/// Message ids remembered to drop what a new slot leader pushes again (H16). Beyond: the client sees a duplicate.
pub const RECENT_MAX: usize = 16;

/// Deliveries kept between the directory's publication and CONNACK. At it: the newest is dropped, the client's first sync has it.
pub const HELD_MAX: usize = 64;

/// Bytes of one `Transmit` after which the next frame starts another one.
pub const TRANSMIT_BYTES_TARGET: usize = 256 * 1024;

/// Errors answered on one JSON-RPC connection. One more: silent close.
pub const JSON_ERRORS_MAX: u8 = 20;

/// Effects of one read. A WebSocket message of PINGs would become as many PONG messages, each far larger than its PING; no client says
/// so much at once. More: silent close. On TCP answers share a buffer, which is one effect.
pub const READ_EFFECTS_MAX: usize = 8_192;

const _: () = assert!(
    READ_EFFECTS_MAX >= 2 * IN_FLIGHT_SENDS_MAX + HELD_MAX,
    "what is legal to have in flight may come in one read"
);
