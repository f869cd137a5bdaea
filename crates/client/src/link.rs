//! The codec of one connection: handshake, then sealed SENDs out and opened RECVs in. Spec: wire-protocol 5, 10.
//!
//! [`Hello`] is the connection before CONNACK, [`Link`] after it; there is no way to a `Link` but an accepted CONNACK. Neither
//! remembers messages: that is [`crate::core`]. A load generator uses this module alone.

use bytes::{Buf, Bytes, BytesMut};
use wk_proto::WallMs;
use wk_proto::crypto::{self, Cipher, KEY_BYTES, RecvSign, SALT_BYTES, SendSign};
use wk_proto::frame::{Connack, Connect, Frame, Recv, Recvack, Send};
use wk_proto::wire::{self, DecodeError, TooLong};

use crate::error::{Error, Refusal};
use crate::options::{Encryption, Options};

/// Takes the complete frames off the front of `input`, leaving the incomplete tail. An error is reported once nothing good
/// precedes it, so that frames before a bad one are not lost.
pub fn complete_frames(input: &mut BytesMut) -> Result<Bytes, DecodeError> {
    let mut end = 0;
    loop {
        match wire::frame_len(&input[end..]) {
            Ok(Some(len)) if end + len <= input.len() => end += len,
            Ok(_) => break,
            Err(_) if end > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(input.split_to(end).freeze())
}

/// Decodes the next frame of `frames` and takes it off; `None` at the end. `version` as for [`wire::decode`].
pub fn next_frame(frames: &mut Bytes, version: u8) -> Result<Option<Frame>, DecodeError> {
    let Some((frame, len)) = wire::decode(frames, version)? else {
        return Ok(None);
    };
    frames.advance(len);
    Ok(Some(frame))
}

/// A connection between CONNECT and CONNACK.
pub struct Hello {
    private: [u8; KEY_BYTES],
    version: u8,
    encryption: Encryption,
}

/// Why there is no [`Link`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// For good.
    Terminal(Error),
    /// The answer makes no sense; another attempt may get a better one.
    Nonsense(&'static str),
}

impl Hello {
    /// `private`: 32 fresh random bytes.
    pub fn new(options: &Options, private: [u8; KEY_BYTES]) -> Self {
        Self {
            private,
            version: options.version.min(wire::LATEST),
            encryption: options.encryption,
        }
    }

    /// Appends the CONNECT.
    pub fn push_connect(
        &self,
        options: &Options,
        now: WallMs,
        out: &mut BytesMut,
    ) -> Result<(), TooLong> {
        let client_key = match self.encryption {
            Encryption::Off => Bytes::new(),
            Encryption::Auto | Encryption::Required => {
                Bytes::copy_from_slice(&crypto::public_key(&self.private))
            }
        };
        let text = |s: &str| Bytes::copy_from_slice(s.as_bytes());
        let connect = Connect {
            version: self.version,
            device_flag: options.device_flag,
            device_id: text(&options.device_id),
            uid: text(&options.uid),
            token: text(&options.token),
            client_timestamp: i64::try_from(now.0).unwrap_or(i64::MAX),
            client_key,
            ..Connect::default()
        };
        wire::encode(&Frame::Connect(connect), self.version, out)
    }

    /// Version whose layout the CONNACK has.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Reads the server's answer.
    pub fn finish(&self, ack: &Connack) -> Result<Link, HelloError> {
        if ack.reason_code != wk_proto::Reason::Success.code() {
            let refusal = Refusal(ack.reason_code);
            return Err(HelloError::Terminal(Error::Refused(refusal)));
        }
        let version = ack.server_version.unwrap_or(self.version);
        Ok(Link {
            version: version.min(self.version),
            node_id: ack.node_id,
            cipher: self.cipher(ack)?,
        })
    }

    fn cipher(&self, ack: &Connack) -> Result<Option<Cipher>, HelloError> {
        match (self.encryption, ack.server_key.is_empty()) {
            (Encryption::Required, true) => Err(HelloError::Terminal(Error::NotEncrypted)),
            (Encryption::Auto, true) | (Encryption::Off, _) => Ok(None),
            (Encryption::Auto | Encryption::Required, false) => {
                let secret = crypto::agree(&self.private, &ack.server_key)
                    .map_err(|_| HelloError::Nonsense("unusable server key"))?;
                let salt: [u8; SALT_BYTES] = ack
                    .salt
                    .as_ref()
                    .try_into()
                    .map_err(|_| HelloError::Nonsense("the salt is not 16 bytes"))?;
                Ok(Some(Cipher::new(&secret, salt)))
            }
        }
    }
}

/// msgKey or encryption of a RECV is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message was changed on its way")]
pub struct Corrupt;

/// A logged-in connection.
#[derive(Clone, Debug)]
pub struct Link {
    version: u8,
    node_id: u64,
    cipher: Option<Cipher>,
}

impl Link {
    /// Negotiated version: the layout of every frame from here on.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Node that holds the connection; 0 below protocol 4.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Whether payloads are encrypted.
    pub fn encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// Appends a SEND whose payload is in clear: encrypts it and computes its msgKey if the connection does that. On error
    /// `out` is as before.
    pub fn push_send(&self, plain: Send, out: &mut BytesMut) -> Result<(), TooLong> {
        let send = match &self.cipher {
            Some(cipher) => seal(cipher, plain),
            None => plain,
        };
        wire::encode(&Frame::Send(send), self.version, out)
    }

    /// Appends the RECVACK of `recv`, with the flags of the RECV: the server looks at them.
    pub fn push_recvack(&self, recv: &Recv, out: &mut BytesMut) {
        let ack = Recvack {
            flags: recv.flags,
            message_id: recv.message_id,
            message_seq: recv.message_seq,
        };
        let fits = wire::encode(&Frame::Recvack(ack), self.version, out);
        debug_assert!(fits.is_ok(), "a RECVACK has no strings");
    }

    /// The payload of `recv` in clear, after checking its msgKey. `scratch` is only storage.
    pub fn open(&self, recv: &Recv, scratch: &mut BytesMut) -> Result<Bytes, Corrupt> {
        let Some(cipher) = &self.cipher else {
            return Ok(recv.payload.clone());
        };
        let expected = cipher.recv_msg_key(&RecvSign::of(&recv.parts(), &recv.payload));
        if recv.msg_key != expected[..] {
            return Err(Corrupt);
        }
        scratch.clear();
        cipher
            .decrypt_payload(&recv.payload, scratch)
            .map_err(|_| Corrupt)?;
        Ok(scratch.split().freeze())
    }
}

fn seal(cipher: &Cipher, plain: Send) -> Send {
    let mut payload = BytesMut::with_capacity(crypto::sealed_len(plain.payload.len()));
    cipher.encrypt_payload(&plain.payload, &mut payload);
    let sealed = Send {
        payload: payload.freeze(),
        ..plain
    };
    let msg_key = cipher.send_msg_key(&SendSign::of(&sealed));
    Send {
        msg_key: Bytes::copy_from_slice(&msg_key),
        ..sealed
    }
}
