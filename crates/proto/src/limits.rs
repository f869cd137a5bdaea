//! Bounds of the wire, each with its unit and what happens at it. Spec: wire-protocol 3, decisions H38.

/// Bytes of a uid or channel id. Longer ones are refused at the entrance.
pub const ID_BYTES_MAX: usize = 512;

/// Remaining length of one WKProto frame. A longer announcement closes the connection at once.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Plain payload of one message, checked after decryption: above it SENDACK 9, HTTP 400.
pub const PAYLOAD_BYTES_MAX: usize = 700 * 1024;

/// Bytes a connection may send before its CONNECT is complete (the largest legal CONNECT is about 131 KiB).
pub const PREAUTH_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a `str` field: the wire counts with a signed 16-bit number.
pub const STR_BYTES_MAX: usize = 32_767;

/// One JSON-RPC message.
pub const JSON_BYTES_MAX: usize = 1536 * 1024;

/// One HTTP body.
pub const HTTP_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One message body as stored ([`crate::record`]): payload, texts and header.
pub const RECORD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 4 * STR_BYTES_MAX + 64;

/// One raft entry; also the target at which a batch of commands is closed.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!(
    PAYLOAD_BYTES_MAX / 3 * 4 + 24 + 3 * ID_BYTES_MAX + 1024 <= FRAME_BYTES_MAX,
    "an encrypted RECV of any accepted message is decodable by every client"
);
const _: () = assert!(
    RECORD_BYTES_MAX + 4096 <= ENTRY_BYTES_MAX,
    "any accepted message fits one entry"
);
const _: () = assert!(
    PAYLOAD_BYTES_MAX / 3 * 4 + 4096 <= JSON_BYTES_MAX,
    "any accepted message fits one JSON-RPC message"
);
const _: () = assert!(
    PAYLOAD_BYTES_MAX / 3 * 4 + 4096 <= HTTP_BODY_BYTES_MAX,
    "any accepted message fits one HTTP body"
);
