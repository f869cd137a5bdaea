//! WKProto 0–5: frames to bytes and back. Spec: wire-protocol 1–5, 13.
//!
//! [`decode`] is total: any input is a frame, an error, or a reason to wait, and a length over the limit is an error
//! as soon as its bytes are there, before anything is buffered for it. Strings and payloads of a decoded frame are
//! slices of the input buffer, so they keep it alive: copy what must outlive the turn.
//!
//! [`encode`] writes any frame; [`encode_recv`] is the fan-out path, from borrowed parts (and a connection's cipher)
//! straight into an output buffer. What a frame may or must do in which state is the session's business.

mod decode;
mod encode;
mod fields;

pub use decode::{DecodeError, decode, frame_len};
pub use encode::{TooLong, encode, encode_recv};

/// Newest version this codec speaks. The version of a connection is `min(client's, LATEST)`. Spec: wire-protocol 4.
pub const LATEST: u8 = 5;

/// Low nibble of a CONNACK: the body starts with the server version byte.
const HAS_SERVER_VERSION: u8 = 1;

/// Packet types: the high nibble of the first byte. Spec: wire-protocol 2.1.
mod kind {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const SEND: u8 = 3;
    pub const SENDACK: u8 = 4;
    pub const RECV: u8 = 5;
    pub const RECVACK: u8 = 6;
    pub const PING: u8 = 7;
    pub const PONG: u8 = 8;
    pub const DISCONNECT: u8 = 9;
    pub const SUB: u8 = 10;
    pub const SUBACK: u8 = 11;
    pub const EVENT: u8 = 12;
}

/// Which optional fields a SEND or RECV has: decided by version and setting byte alone. Spec: wire-protocol 4.
#[derive(Clone, Copy)]
struct Layout {
    stream: bool,
    expire: bool,
    topic: bool,
}

impl Layout {
    fn of(version: u8, setting: u8) -> Self {
        use crate::record::setting::{STREAM, TOPIC};
        Self {
            stream: (2..5).contains(&version) && setting & STREAM != 0,
            expire: version >= 3,
            topic: setting & TOPIC != 0,
        }
    }
}
