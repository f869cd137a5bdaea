//! Key exchange, payload encryption and msgKey of one connection. Spec: wire-protocol 10.
//!
//! Weak by design (64 bits of key entropy, one IV per connection, MD5) and kept for compatibility: real protection
//! needs TLS. There is no random source here: private keys and salts are arguments.
//!
//! A server calls [`agree`] with a fresh private key and the client's key, [`salt`] with fresh random bytes, and keeps
//! a [`Cipher`]; per message it calls [`Cipher::open_send`] and [`crate::wire::encode_recv`].

mod base64;
mod cipher;
mod sign;

use ::base64::Engine;
use md5::{Digest, Md5};
use x25519_dalek::{PublicKey, StaticSecret};

pub use cipher::{Cipher, OpenError, sealed_len};
pub use sign::{MSG_KEY_BYTES, MsgKey, RecvSign, SendSign};

pub(crate) use base64::{BASE64, decode_into as base64_decode_into};

use crate::Reason;

/// Bytes of an X25519 key.
pub const KEY_BYTES: usize = 32;

/// Characters of a public key as base64 text.
pub const KEY_TEXT_BYTES: usize = 44;

/// Characters of a salt, which are the bytes of the AES IV.
pub const SALT_BYTES: usize = 16;

/// Why a peer's public key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("the key is empty")]
    Empty,
    /// Not base64 of 32 bytes, or of low order: the secret would be known to everybody.
    #[error("the key is unusable")]
    Unusable,
}

impl KeyError {
    /// The reason in CONNACK. Spec: wire-protocol 11.2 step 7.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Empty => Reason::ClientKeyIsEmpty,
            Self::Unusable => Reason::AuthFail,
        }
    }
}

/// What both sides know after the exchange. Never all zero.
pub struct SharedSecret([u8; KEY_BYTES]);

/// The public key of `private` as the text of CONNECT and CONNACK.
pub fn public_key(private: &[u8; KEY_BYTES]) -> [u8; KEY_TEXT_BYTES] {
    let public = PublicKey::from(&StaticSecret::from(*private));
    key_text(public.as_bytes())
}

/// X25519 of the own private key (clamped here) and the peer's key text.
pub fn agree(private: &[u8; KEY_BYTES], peer_key: &[u8]) -> Result<SharedSecret, KeyError> {
    if peer_key.is_empty() {
        return Err(KeyError::Empty);
    }
    let peer = PublicKey::from(parse_key(peer_key).ok_or(KeyError::Unusable)?);
    let secret = StaticSecret::from(*private).diffie_hellman(&peer);
    if !secret.was_contributory() {
        return Err(KeyError::Unusable);
    }
    Ok(SharedSecret(secret.to_bytes()))
}

/// 16 characters of `[0-9a-zA-Z]` from 16 random bytes. The bytes are one number in base 62, which leaves 32 bits
/// more than the result needs: no character is measurably more likely than another.
pub fn salt(random: [u8; SALT_BYTES]) -> [u8; SALT_BYTES] {
    const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut number = u128::from_le_bytes(random);
    [(); SALT_BYTES].map(|()| {
        let digit = (number % 62) as usize;
        number /= 62;
        ALPHABET[digit]
    })
}

impl SharedSecret {
    /// The AES key: the first 16 hex *characters* of MD5(base64(secret)).
    fn aes_key(&self) -> [u8; 16] {
        let hex = sign::hex(Md5::digest(key_text(&self.0)).into());
        *hex.first_chunk().expect("32 characters are more than 16")
    }
}

fn key_text(key: &[u8; KEY_BYTES]) -> [u8; KEY_TEXT_BYTES] {
    let mut text = [0; KEY_TEXT_BYTES];
    let written = BASE64.encode_slice(key, &mut text);
    debug_assert_eq!(written, Ok(KEY_TEXT_BYTES));
    text
}

fn parse_key(text: &[u8]) -> Option<[u8; KEY_BYTES]> {
    // Two bytes more than a key: the decoder wants room for its estimate, not for what comes out.
    let mut bytes = [0; KEY_BYTES + 2];
    let len = BASE64.decode_slice(text, &mut bytes).ok()?;
    bytes[..len].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_used_have_their_reasons() {
        let refused = |key: &[u8]| agree(&[7; 32], key).err().map(KeyError::reason);
        assert_eq!(refused(b""), Some(Reason::ClientKeyIsEmpty));
        for key in [&b"abc"[..], b"****", &key_text(&[0; 32])] {
            assert_eq!(refused(key), Some(Reason::AuthFail));
        }
        for len in [0, 1, 31, 33, 34, 64, 1000] {
            let text = BASE64.encode(vec![9; len]);
            let expected = if len == 0 {
                Reason::ClientKeyIsEmpty
            } else {
                Reason::AuthFail
            };
            assert_eq!(refused(text.as_bytes()), Some(expected), "{len} bytes");
        }
        assert_eq!(refused(&public_key(&[8; 32])), None);
    }

    #[test]
    fn salts_use_the_whole_alphabet() {
        let mut seen = [false; 256];
        for n in 0u8..=255 {
            for c in salt([n.wrapping_mul(37).wrapping_add(11); 16]) {
                assert!(c.is_ascii_alphanumeric());
                seen[usize::from(c)] = true;
            }
        }
        assert_eq!(seen.iter().filter(|&&s| s).count(), 62);
        assert_eq!(&salt([0; 16]), b"0000000000000000");
    }
}
