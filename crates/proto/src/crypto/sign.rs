//! msgKey: lower-case hex MD5 of the encrypted concatenation of a message's fields. Spec: wire-protocol 10.3.

use aes::Aes128Enc;
use md5::{Digest, Md5};

use super::SALT_BYTES;
use super::cipher::encrypt;
use crate::frame::{RecvParts, Send};

/// Characters of a msgKey.
pub const MSG_KEY_BYTES: usize = 32;

/// The text of a msgKey.
pub type MsgKey = [u8; MSG_KEY_BYTES];

/// What the msgKey of a SEND covers.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct SendSign<'a> {
    pub client_seq: u32,
    pub client_msg_no: &'a [u8],
    pub channel_id: &'a [u8],
    pub channel_type: u8,
    /// As on the wire: the base64 text.
    pub payload: &'a [u8],
}

impl<'a> SendSign<'a> {
    /// The fields of a SEND as it is on the wire.
    pub fn of(send: &'a Send) -> Self {
        Self {
            client_seq: send.client_seq,
            client_msg_no: &send.client_msg_no,
            channel_id: &send.channel_id,
            channel_type: send.channel_type,
            payload: &send.payload,
        }
    }

    pub(super) fn msg_key(&self, aes: &Aes128Enc, iv: &[u8; SALT_BYTES]) -> MsgKey {
        digest(
            aes,
            iv,
            &[
                Decimal::new(self.client_seq.into()).text(),
                self.client_msg_no,
                self.channel_id,
                Decimal::new(self.channel_type.into()).text(),
                self.payload,
            ],
        )
    }
}

/// What the msgKey of a RECV covers.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct RecvSign<'a> {
    pub message_id: i64,
    pub message_seq: u32,
    pub client_msg_no: &'a [u8],
    pub timestamp: i32,
    pub from_uid: &'a [u8],
    pub channel_id: &'a [u8],
    pub channel_type: u8,
    /// As on the wire: the base64 text.
    pub payload: &'a [u8],
}

impl<'a> RecvSign<'a> {
    /// The fields of `parts`, with the payload as it is on the wire.
    pub fn of(parts: &RecvParts<'a>, sealed: &'a [u8]) -> Self {
        Self {
            message_id: parts.message_id,
            message_seq: parts.message_seq,
            client_msg_no: parts.client_msg_no,
            timestamp: parts.timestamp,
            from_uid: parts.from_uid,
            channel_id: parts.channel_id,
            channel_type: parts.channel_type,
            payload: sealed,
        }
    }

    pub(super) fn msg_key(&self, aes: &Aes128Enc, iv: &[u8; SALT_BYTES]) -> MsgKey {
        digest(
            aes,
            iv,
            &[
                Decimal::new(self.message_id).text(),
                Decimal::new(self.message_seq.into()).text(),
                self.client_msg_no,
                Decimal::new(self.timestamp.into()).text(),
                self.from_uid,
                self.channel_id,
                Decimal::new(self.channel_type.into()).text(),
                self.payload,
            ],
        )
    }
}

fn digest(aes: &Aes128Enc, iv: &[u8; SALT_BYTES], parts: &[&[u8]]) -> MsgKey {
    let mut md5 = Md5::new();
    encrypt(aes, iv, parts, &mut |text| md5.update(text));
    hex(md5.finalize().into())
}

/// Lower-case hex.
pub(super) fn hex(digest: [u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// Compares without an early exit, so that timing does not tell how much of a guess is right.
pub(super) fn equal_in_constant_time(expected: &MsgKey, given: &[u8]) -> bool {
    let Ok(given) = <&MsgKey>::try_from(given) else {
        return false;
    };
    let differing = expected.iter().zip(given).fold(0, |d, (a, b)| d | (a ^ b));
    std::hint::black_box(differing) == 0
}

/// A number's decimal text on the stack.
struct Decimal {
    /// Filled from the end: the text is `at..`.
    digits: [u8; 20],
    at: usize,
}

impl Decimal {
    fn new(n: i64) -> Self {
        let mut this = Self {
            digits: [0; 20],
            at: 20,
        };
        let mut rest = n.unsigned_abs();
        loop {
            this.push(b'0' + (rest % 10) as u8);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if n < 0 {
            this.push(b'-');
        }
        this
    }

    fn push(&mut self, digit: u8) {
        self.at -= 1;
        self.digits[self.at] = digit;
    }

    fn text(&self) -> &[u8] {
        &self.digits[self.at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_those_of_the_standard_library() {
        for n in [0, 7, 10, 42, -1, i64::from(i32::MIN), i64::MAX, i64::MIN] {
            assert_eq!(Decimal::new(n).text(), n.to_string().as_bytes());
        }
    }

    #[test]
    fn a_key_of_another_length_is_another_key() {
        assert!(equal_in_constant_time(&[b'a'; 32], &[b'a'; 32]));
        assert!(!equal_in_constant_time(&[b'a'; 32], &[b'a'; 31]));
        assert!(!equal_in_constant_time(&[b'a'; 32], b""));
        let mut other = [b'a'; 32];
        other[31] = b'b';
        assert!(!equal_in_constant_time(&[b'a'; 32], &other));
    }
}
