//! Bytes that have arrived and the next message in them.
//!
//! What arrives whole is decoded where it is; only a message cut by the end of a read is copied.

use bytes::{Buf, Bytes, BytesMut};
use wk_proto::frame::Frame;
use wk_proto::jsonrpc::{Decoded, Decoder, Message, Rejection};
use wk_proto::wire;

/// Which codec reads the bytes. Decided at the first ones, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// WKProto in this version: 0 until CONNECT was read.
    Binary(u8),
    JsonRpc,
}

/// What the front of the inbox is.
pub(crate) enum Next {
    /// Not a whole message yet.
    More,
    Binary(Frame),
    Json(Message),
    /// A JSON message that is answered with an error; the stream goes on.
    Rejected(Rejection),
    /// Not JSON: nothing behind it can be trusted.
    Syntax,
    /// Malformed or too long: the connection cannot go on.
    Broken,
}

/// The unread end of the byte stream.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Bytes,
    /// `bytes` is a buffer of ours rather than a part of the driver's.
    own: bool,
    json: Decoder,
}

impl Inbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends what the socket gave.
    pub(crate) fn append(&mut self, more: Bytes) {
        if more.is_empty() {
            return;
        }
        if self.bytes.is_empty() {
            self.bytes = more;
            self.own = false;
            return;
        }
        // Unique unless a decoded frame still points into it; then it is copied, once.
        let rest = std::mem::take(&mut self.bytes);
        let mut joined = rest
            .try_into_mut()
            .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        joined.extend_from_slice(&more);
        self.bytes = joined.freeze();
        self.own = true;
    }

    /// Drops the first `n` bytes. Only between messages.
    pub(crate) fn skip(&mut self, n: usize) {
        self.bytes.advance(n);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Called when the driver's turn ends: what is left must not hold on to its read buffer.
    pub(crate) fn detach(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Bytes::new();
        } else if !self.own {
            self.bytes = Bytes::copy_from_slice(&self.bytes);
            self.own = true;
        }
    }

    /// Takes the next message.
    pub(crate) fn next(&mut self, protocol: Protocol) -> Next {
        match protocol {
            Protocol::Binary(version) => self.next_binary(version),
            Protocol::JsonRpc => self.next_json(),
        }
    }

    fn next_binary(&mut self, version: u8) -> Next {
        match wire::decode(&self.bytes, version) {
            Ok(None) => Next::More,
            Ok(Some((frame, taken))) => {
                self.skip(taken);
                Next::Binary(frame)
            }
            Err(_) => Next::Broken,
        }
    }

    fn next_json(&mut self) -> Next {
        match self.json.decode(&self.bytes) {
            Decoded::NeedMore(leading) => {
                self.skip(leading);
                Next::More
            }
            Decoded::Message(message, taken) => {
                self.skip(taken);
                Next::Json(message)
            }
            Decoded::Rejected(rejection, taken) => {
                self.skip(taken);
                Next::Rejected(rejection)
            }
            Decoded::Syntax => Next::Syntax,
            Decoded::TooLong => Next::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cut_anywhere_is_found_once() {
        let text = b" {\"method\":\"ping\",\"id\":\"1\"}";
        for cut in 0..text.len() {
            let mut inbox = Inbox::default();
            inbox.append(Bytes::from_static(&text[..cut]));
            assert!(matches!(inbox.next(Protocol::JsonRpc), Next::More));
            inbox.detach();
            inbox.append(Bytes::from_static(&text[cut..]));
            assert!(matches!(inbox.next(Protocol::JsonRpc), Next::Json(_)));
            assert!(matches!(inbox.next(Protocol::JsonRpc), Next::More));
            assert_eq!(inbox.len(), 0);
        }
    }

    #[test]
    fn the_drivers_buffer_is_let_go() {
        let read = Bytes::from(vec![0x30, 0x7F, 1, 2, 3]);
        let mut inbox = Inbox::default();
        inbox.append(read.clone());
        assert!(matches!(inbox.next(Protocol::Binary(5)), Next::More));
        assert!(!read.is_unique());
        inbox.detach();
        assert!(read.is_unique());
        let copy = inbox.bytes.as_ptr();
        inbox.append(Bytes::new());
        inbox.detach();
        assert_eq!(inbox.bytes.as_ptr(), copy, "a long message is copied once");
    }
}
