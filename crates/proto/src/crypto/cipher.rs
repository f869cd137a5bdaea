//! AES-128-CBC and base64 over payloads, in chunks that live on the stack.

use aes::Aes128Enc;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit, KeyIvInit};
use base64::Engine;
use bytes::{Bytes, BytesMut};

use super::base64::{BASE64, decode_into};
use super::sign::{MsgKey, RecvSign, SendSign, equal_in_constant_time};
use super::{SALT_BYTES, SharedSecret};
use crate::frame::{RecvParts, Send};

const BLOCK: usize = 16;

/// Plain bytes handled at once: three AES blocks, 64 base64 characters, one MD5 block. So small on purpose: a CPU then
/// encrypts the next chunk while it still hashes the last one (5 % faster than chunks of 768 bytes).
const CHUNK: usize = 3 * BLOCK;
const CHUNK_TEXT: usize = CHUNK / 3 * 4;

/// Key and IV of one connection, both directions.
///
/// The key schedule is not kept: with AES-NI expanding it costs some 25 ns a message, while the portable type that
/// holds it takes 704 bytes, a sixth of what an idle connection may cost.
#[derive(Clone)]
pub struct Cipher {
    key: [u8; BLOCK],
    iv: [u8; SALT_BYTES],
}

const _: () = assert!(size_of::<Cipher>() == 32);

/// Why a SEND cannot be read. Always answered with SENDACK 9. Spec: wire-protocol 10.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The msgKey is not the one of these fields.
    #[error("msgKey does not match")]
    MsgKey,
    /// Not base64 of whole, correctly padded AES blocks.
    #[error("payload cannot be decrypted")]
    Payload,
}

/// Bytes on the wire of a payload of `plain` bytes: PKCS#7 always pads, base64 takes 4 for 3.
pub const fn sealed_len(plain: usize) -> usize {
    let padded = plain / BLOCK * BLOCK + BLOCK;
    padded.div_ceil(3) * 4
}

impl Cipher {
    /// Derives the key; the salt is the IV.
    pub fn new(secret: &SharedSecret, salt: [u8; SALT_BYTES]) -> Self {
        Self {
            key: secret.aes_key(),
            iv: salt,
        }
    }

    /// Checks the msgKey of `send` (in constant time), then decrypts its payload: msgKey first, so that nobody can
    /// probe the padding. `scratch` is only storage, cleared here: the result is split off its front and the rest of its
    /// capacity serves the next calls, so that one buffer per thread makes one allocation for many messages (and lives
    /// as long as any of them).
    pub fn open_send(&self, send: &Send, scratch: &mut BytesMut) -> Result<Bytes, OpenError> {
        let expected = self.send_msg_key(&SendSign::of(send));
        if !equal_in_constant_time(&expected, &send.msg_key) {
            return Err(OpenError::MsgKey);
        }
        scratch.clear();
        self.decrypt_payload(&send.payload, scratch)?;
        Ok(scratch.split().freeze())
    }

    /// Appends the wire form of `plain` to `out`: [`sealed_len`] bytes.
    pub fn encrypt_payload(&self, plain: &[u8], out: &mut BytesMut) {
        out.reserve(sealed_len(plain.len()));
        encrypt(&self.expand(), &self.iv, &[plain], &mut |text| {
            out.extend_from_slice(text);
        });
    }

    /// Appends the plain form of the wire payload `sealed` to `out`; on error `out` is as before.
    pub fn decrypt_payload(&self, sealed: &[u8], out: &mut BytesMut) -> Result<(), OpenError> {
        let start = out.len();
        decode_into(sealed, out).ok_or(OpenError::Payload)?;
        let plain = cbc::Decryptor::<aes::Aes128Dec>::new(&self.key.into(), &self.iv.into())
            .decrypt_padded_mut::<Pkcs7>(&mut out[start..])
            .map(<[u8]>::len);
        out.truncate(start + plain.unwrap_or(0));
        plain.map(|_| ()).map_err(|_| OpenError::Payload)
    }

    /// The msgKey of a SEND.
    pub fn send_msg_key(&self, sign: &SendSign<'_>) -> MsgKey {
        sign.msg_key(&self.expand(), &self.iv)
    }

    /// The msgKey of a RECV.
    pub fn recv_msg_key(&self, sign: &RecvSign<'_>) -> MsgKey {
        sign.msg_key(&self.expand(), &self.iv)
    }

    /// Appends the encrypted payload of `parts` to `out`, which has room for it; its msgKey. One key expansion for both.
    pub(crate) fn seal_recv(&self, parts: &RecvParts<'_>, out: &mut BytesMut) -> MsgKey {
        let aes = self.expand();
        let payload_at = out.len();
        encrypt(&aes, &self.iv, &[parts.payload], &mut |text| {
            out.extend_from_slice(text);
        });
        RecvSign::of(parts, &out[payload_at..]).msg_key(&aes, &self.iv)
    }

    fn expand(&self) -> Aes128Enc {
        Aes128Enc::new(&self.key.into())
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// Pads and encrypts the concatenation of `parts` and hands its base64 text to `sink`, chunk after chunk.
pub(super) fn encrypt(
    aes: &Aes128Enc,
    iv: &[u8; SALT_BYTES],
    parts: &[&[u8]],
    sink: &mut impl FnMut(&[u8]),
) {
    let mut cbc = cbc::Encryptor::<&Aes128Enc>::inner_iv_init(aes, iv.into());
    let mut chunk = [0u8; CHUNK];
    let mut filled = 0;
    for mut part in parts.iter().copied() {
        while !part.is_empty() {
            let take = part.len().min(CHUNK - filled);
            chunk[filled..filled + take].copy_from_slice(&part[..take]);
            filled += take;
            part = &part[take..];
            // A full chunk is never the last: padding still has to follow.
            if filled == CHUNK {
                encrypt_chunk(&mut cbc, &mut chunk, sink);
                filled = 0;
            }
        }
    }
    let padding = BLOCK - filled % BLOCK;
    let end = filled + padding;
    chunk[filled..end].fill(padding as u8);
    encrypt_chunk(&mut cbc, &mut chunk[..end], sink);
}

fn encrypt_chunk(
    cbc: &mut cbc::Encryptor<&Aes128Enc>,
    chunk: &mut [u8],
    sink: &mut impl FnMut(&[u8]),
) {
    for block in chunk.chunks_exact_mut(BLOCK) {
        cbc.encrypt_block_mut(block.into());
    }
    let mut text = [0u8; CHUNK_TEXT];
    let written = BASE64.encode_slice(chunk, &mut text);
    let len = written.expect("the text of a chunk fits CHUNK_TEXT");
    sink(&text[..len]);
}
