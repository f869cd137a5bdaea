//! Bounds of a client, each with its unit and what happens at it.

use wk_proto::limits::{FRAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Messages sent and not yet acknowledged. At it sending waits.
pub const OUTSTANDING_MAX: usize = 4_096;

/// Bytes of those messages (payload, texts, [`OUTSTANDING_OVERHEAD_BYTES`] each). At it sending waits.
pub const OUTSTANDING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a message counts besides its payload and texts.
pub const OUTSTANDING_OVERHEAD_BYTES: usize = 256;

/// Calls on their way to the client's task. At it callers wait; also how many are written together.
pub const CALLS_MAX: usize = 64;

/// Events the application has not taken yet. At it the socket is not read (acknowledgements included) until it takes some.
pub const INBOX_MAX: usize = 1_024;

/// Received messages remembered to recognise a second copy: between this many and twice as many. Older copies count as new.
pub const SEEN_MAX: usize = 8_192;

/// Bytes read from the socket at once.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes waiting for a socket that the server does not read. At it the socket is not read either, so that no more RECVACKs
/// come up, until some are written or the server counts as silent.
pub const OUT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of one WebSocket frame from the server; a longer one ends the connection.
pub const WEBSOCKET_FRAME_BYTES_MAX: usize = FRAME_BYTES_MAX + 8;

/// Bytes put into one WebSocket message at most; more become several messages.
pub const WEBSOCKET_SEND_BYTES: usize = 64 * 1024;

/// Bytes of the server's answer to the WebSocket upgrade; a longer one is an error.
pub const UPGRADE_BYTES_MAX: usize = 8 * 1024;

/// Milliseconds from dialling to an established socket, and from CONNECT to CONNACK. Then the attempt counts as failed.
pub const CONNECT_MS: u64 = 10_000;

/// Milliseconds without PONG (or anything else) after a PING. Then the connection counts as broken.
pub const PONG_MS: u64 = 10_000;

/// Milliseconds a message may wait for its SENDACK. Then the connection counts as broken, and all unacknowledged
/// messages go out again, in order, on the next one. Longer than a server parks messages during an election (5 s).
pub const ACK_MS: u64 = 15_000;

/// Milliseconds before the first attempt to reconnect; doubled after each failure.
pub const RECONNECT_FIRST_MS: u64 = 200;

/// Milliseconds between attempts to reconnect, at most.
pub const RECONNECT_LAST_MS: u64 = 10_000;

/// Milliseconds a closing client tries to write what it has queued.
pub const CLOSE_MS: u64 = 1_000;

const _: () = assert!(
    OUT_BYTES_MAX > OUTSTANDING_BYTES_MAX / 3 * 4 + OUTSTANDING_MAX * 128,
    "messages alone, encrypted, never stop the reading: both sides would wait for each other"
);
const _: () = assert!(
    OUTSTANDING_BYTES_MAX >= PAYLOAD_BYTES_MAX + 128 * 1024,
    "any legal message fits an empty queue"
);
