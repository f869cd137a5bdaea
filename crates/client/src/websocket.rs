//! The client's side of WebSocket (RFC 6455) around a byte stream: upgrade, masked frames out, frames in. Spec: wire-protocol 12.2.
//!
//! Messages carry a byte stream here: their boundaries and opcodes mean nothing, so fragments need no assembly. No
//! extensions, no sub-protocols, no TLS.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, BytesMut};
use sha1::{Digest, Sha1};

use crate::limits::{UPGRADE_BYTES_MAX, WEBSOCKET_FRAME_BYTES_MAX, WEBSOCKET_SEND_BYTES};

const ACCEPT_SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MASK_BIT: u8 = 0x80;
const FINAL_BIT: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why the connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not 101; the status line.
    #[error("the server does not speak WebSocket here: {0}")]
    Upgrade(String),
    /// A frame that a server must not send.
    #[error("broken WebSocket frame")]
    Frame,
    /// The server said goodbye.
    #[error("the server closed the WebSocket")]
    Closed,
}

/// The request that upgrades a connection. `nonce`: 16 random bytes.
pub fn upgrade_request(host: &str, path: &str, nonce: [u8; 16]) -> String {
    let key = STANDARD.encode(nonce);
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Takes the server's answer off `input`; false while it is incomplete. What follows it are frames.
pub fn take_upgrade_response(input: &mut BytesMut, nonce: [u8; 16]) -> Result<bool, Error> {
    let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if input.len() > UPGRADE_BYTES_MAX {
            Err(Error::Upgrade("an endless answer".to_owned()))
        } else {
            Ok(false)
        };
    };
    let head = String::from_utf8_lossy(&input[..end]).into_owned();
    input.advance(end + 4);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"))
        .map(|(_, value)| value.trim());
    let switched = status.split(' ').nth(1) == Some("101");
    if switched && accept == Some(&accept_of(nonce)) {
        Ok(true)
    } else {
        Err(Error::Upgrade(status.chars().take(100).collect()))
    }
}

fn accept_of(nonce: [u8; 16]) -> String {
    let key = STANDARD.encode(nonce);
    STANDARD.encode(Sha1::digest(format!("{key}{ACCEPT_SALT}")))
}

/// Appends `bytes` as binary messages, each masked with the next of `masks` (random, one per message).
pub fn push_binary(mut bytes: &[u8], mut mask: impl FnMut() -> [u8; 4], out: &mut BytesMut) {
    while !bytes.is_empty() {
        let (chunk, rest) = bytes.split_at(bytes.len().min(WEBSOCKET_SEND_BYTES));
        push_frame(BINARY, chunk, mask(), out);
        bytes = rest;
    }
}

/// Appends a close frame (1000).
pub fn push_close(mask: [u8; 4], out: &mut BytesMut) {
    push_frame(CLOSE, &1_000u16.to_be_bytes(), mask, out);
}

fn push_frame(opcode: u8, payload: &[u8], mask: [u8; 4], out: &mut BytesMut) {
    out.reserve(14 + payload.len());
    out.put_u8(FINAL_BIT | opcode);
    match payload.len() {
        len @ 0..=125 => out.put_u8(MASK_BIT | len as u8),
        len @ 126..=0xFFFF => {
            out.put_u8(MASK_BIT | 126);
            out.put_u16(len as u16);
        }
        len => {
            out.put_u8(MASK_BIT | 127);
            out.put_u64(len as u64);
        }
    }
    out.put_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
}

/// Takes the complete frames off `input` and appends their payloads to `bytes`; answers PINGs into `out`. Bytes before an
/// error are kept.
pub fn take_frames(
    input: &mut BytesMut,
    mut mask: impl FnMut() -> [u8; 4],
    bytes: &mut BytesMut,
    out: &mut BytesMut,
) -> Result<(), Error> {
    while let Some(header) = Header::read(input)? {
        if input.len() < header.len + header.payload_len {
            break;
        }
        input.advance(header.len);
        let payload = input.split_to(header.payload_len);
        match header.opcode {
            CONTINUATION | TEXT | BINARY => bytes.extend_from_slice(&payload),
            PING => push_frame(PONG, &payload, mask(), out),
            PONG => {}
            CLOSE => return Err(Error::Closed),
            _ => return Err(Error::Frame),
        }
    }
    Ok(())
}

struct Header {
    opcode: u8,
    len: usize,
    payload_len: usize,
}

impl Header {
    /// `None` until it is complete. Refuses reserved bits, masked frames, long or fragmented control frames.
    fn read(input: &[u8]) -> Result<Option<Self>, Error> {
        let [first, second, rest @ ..] = input else {
            return Ok(None);
        };
        let (opcode, short_len) = (first & 0x0F, second & !MASK_BIT);
        let control_broken = opcode >= CLOSE && (first & FINAL_BIT == 0 || short_len > 125);
        if first & 0x70 != 0 || second & MASK_BIT != 0 || control_broken {
            return Err(Error::Frame);
        }
        let (len, payload_len) = match short_len {
            126 => match rest.first_chunk() {
                Some(bytes) => (4, u64::from(u16::from_be_bytes(*bytes))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (10, u64::from_be_bytes(*bytes)),
                None => return Ok(None),
            },
            len => (2, u64::from(len)),
        };
        match usize::try_from(payload_len) {
            Ok(payload_len) if payload_len <= WEBSOCKET_FRAME_BYTES_MAX => Ok(Some(Self {
                opcode,
                len,
                payload_len,
            })),
            _ => Err(Error::Frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(bytes: &[u8]) -> (Result<(), Error>, Vec<u8>, Vec<u8>) {
        let (mut input, mut payload, mut out) =
            (BytesMut::from(bytes), BytesMut::new(), BytesMut::new());
        let result = take_frames(&mut input, || [0; 4], &mut payload, &mut out);
        (result, payload.to_vec(), out.to_vec())
    }

    /// The example of RFC 6455, 1.3.
    #[test]
    fn upgrade_checks_the_accept_header() {
        let nonce = *b"the sample nonce";
        assert!(upgrade_request("h", "/", nonce).contains("dGhlIHNhbXBsZSBub25jZQ=="));
        let answer = |accept: &str| {
            let head = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-ACCEPT: ";
            BytesMut::from(format!("{head}{accept}\r\n\r\nFRAM").as_bytes())
        };
        let mut good = answer("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(take_upgrade_response(&mut good, nonce), Ok(true));
        assert_eq!(good.len(), 4, "frames stay");
        assert!(take_upgrade_response(&mut answer("other"), nonce).is_err());
        let mut partial = BytesMut::from(&b"HTTP/1.1 101 S"[..]);
        assert_eq!(take_upgrade_response(&mut partial, nonce), Ok(false));
        let mut refused = BytesMut::from(&b"HTTP/1.1 404 Not Found\r\n\r\n"[..]);
        assert_eq!(
            take_upgrade_response(&mut refused, nonce),
            Err(Error::Upgrade("HTTP/1.1 404 Not Found".to_owned()))
        );
    }

    #[test]
    fn frames_of_every_length_form_are_masked() {
        for (len, header) in [(5usize, 6), (126, 8), (65_535, 8), (65_536, 8)] {
            let mut out = BytesMut::new();
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            push_binary(&bytes, || [1, 2, 3, 4], &mut out);
            assert_eq!(out[0], 0x82);
            assert_eq!(out[1] & 0x80, 0x80);
            let first = if len == 65_536 { 14 } else { header };
            assert_eq!(out[first] ^ 1, bytes[0]);
            assert_eq!(out[first + 4] ^ 1, bytes[4]);
        }
        let mut out = BytesMut::new();
        push_binary(&vec![0; WEBSOCKET_SEND_BYTES + 1], || [0; 4], &mut out);
        assert_eq!(out.len(), 14 + WEBSOCKET_SEND_BYTES + 6 + 1);
    }

    #[test]
    fn fragments_are_one_stream_and_pings_are_answered() {
        let (result, bytes, out) = take(b"\x02\x02ab\x89\x01p\x00\x01c\x80\x01d\x81\x01");
        assert_eq!(result, Ok(()));
        assert_eq!(bytes, b"abcd");
        assert_eq!(out, b"\x8a\x81\0\0\0\0p");
    }

    #[test]
    fn what_a_server_must_not_send_ends_it() {
        for bad in [
            &b"\x82\x81\0\0\0\0x"[..],
            b"\xc2\x01x",
            b"\x83\x01x",
            b"\x09\x00",
            b"\x82\x7f\0\0\0\0\0\x20\0\0",
        ] {
            assert_eq!(take(bad).0, Err(Error::Frame), "{bad:x?}");
        }
        let (result, bytes, _) = take(b"\x82\x01x\x88\x02\x03\xe8\x82\x01y");
        assert_eq!((result, &bytes[..]), (Err(Error::Closed), &b"x"[..]));
    }
}
