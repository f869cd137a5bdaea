//! The server's side of a WebSocket, sans-IO: the upgrade, then frames. Spec: RFC 6455, wire-protocol 12.2.
//!
//! Data is handed on as it comes, without waiting for the end of its message: to a session it is a byte stream. What a peer makes
//! this codec hold is a header, a control frame, or an unfinished upgrade request.

mod frames;
mod upgrade;

use bytes::BytesMut;

use frames::Decoder;
use upgrade::Upgrade;

pub(super) use frames::{Code, close_frame, data_header};

/// What came out of some input.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Unwrapped data.
    pub(super) data: BytesMut,
    /// To be written to the socket.
    pub(super) reply: BytesMut,
    /// The peer did something that is no data: it is alive.
    pub(super) alive: bool,
    /// Nothing further will be read: what had to be said is in `reply`.
    pub(super) ended: bool,
}

#[derive(Debug)]
enum State {
    Upgrade(Upgrade),
    Open(Box<Decoder>),
    Ended,
}

/// One WebSocket.
#[derive(Debug)]
pub(super) struct Ws {
    state: State,
}

impl Ws {
    pub(super) fn new() -> Self {
        Self {
            state: State::Upgrade(Upgrade::default()),
        }
    }

    /// Whether frames may be written.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes what the socket had.
    pub(super) fn read(&mut self, mut input: &[u8], out: &mut Output) {
        if let State::Upgrade(upgrade) = &mut self.state {
            match upgrade.read(input) {
                upgrade::Progress::More => return,
                upgrade::Progress::Refused(response) => {
                    out.reply.extend_from_slice(response.as_bytes());
                    return self.end(out);
                }
                upgrade::Progress::Done { response, used } => {
                    out.reply.extend_from_slice(response.as_bytes());
                    out.alive = true;
                    input = &input[used..];
                    self.state = State::Open(Box::default());
                }
            }
        }
        if let State::Open(decoder) = &mut self.state
            && let Err(code) = decoder.read(input, out)
        {
            close_frame(code, &mut out.reply);
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Output) {
        self.state = State::Ended;
        out.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /any?x=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn upgrade_and_first_frame_may_come_in_any_pieces() {
        let mut input = REQUEST.to_vec();
        input.extend_from_slice(&[0x82, 0x83, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, b'c' ^ 3]);
        for cut in 0..input.len() {
            let mut ws = Ws::new();
            let mut out = Output::default();
            ws.read(&input[..cut], &mut out);
            ws.read(&input[cut..], &mut out);
            assert_eq!(&out.data[..], b"abc", "cut at {cut}");
            let reply = String::from_utf8(out.reply.to_vec()).unwrap();
            assert!(reply.starts_with("HTTP/1.1 101 "));
            assert!(reply.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
            assert!(ws.is_open() && !out.ended);
        }
    }

    #[test]
    fn plain_http_is_told_what_is_missing() {
        let mut ws = Ws::new();
        let mut out = Output::default();
        ws.read(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &mut out);
        assert!(out.reply.starts_with(b"HTTP/1.1 426 "));
        assert!(out.ended && !ws.is_open());
        ws.read(b"anything", &mut out);
        assert!(out.data.is_empty());
    }
}
