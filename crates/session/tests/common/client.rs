//! The client's half of WKProto: keys, SENDs, and the checks a careful client makes of what it receives.

use bytes::{Bytes, BytesMut};
use wk_proto::crypto::{self, Cipher, RecvSign, SendSign};
use wk_proto::frame::{Connack, Connect, Frame, Recv, Send};
use wk_proto::wire;

/// Milliseconds the clients believe it is when the tests begin.
pub const CLIENT_MS: i64 = 1_760_000_000_000;

pub struct Client {
    pub version: u8,
    private: [u8; 32],
    cipher: Option<Cipher>,
    received: Bytes,
}

impl Client {
    pub fn new(version: u8) -> Self {
        Self {
            version,
            private: [0x42; 32],
            cipher: None,
            received: Bytes::new(),
        }
    }

    pub fn connect(&self, uid: &str) -> Connect {
        Connect {
            version: self.version,
            device_id: Bytes::from_static(b"d1"),
            uid: Bytes::copy_from_slice(uid.as_bytes()),
            token: Bytes::from_static(b"secret"),
            client_timestamp: CLIENT_MS,
            client_key: Bytes::copy_from_slice(&crypto::public_key(&self.private)),
            ..Connect::default()
        }
    }

    /// Encrypts and signs, if keys have been agreed on.
    pub fn seal(&self, mut send: Send) -> Send {
        if let Some(cipher) = &self.cipher {
            let mut sealed = BytesMut::new();
            cipher.encrypt_payload(&send.payload, &mut sealed);
            send.payload = sealed.freeze();
            send.msg_key = self.sign(&send);
        }
        send
    }

    /// The msgKey of a SEND as it is.
    pub fn sign(&self, send: &Send) -> Bytes {
        let cipher = self.cipher.as_ref().expect("connected");
        Bytes::copy_from_slice(&cipher.send_msg_key(&SendSign::of(send)))
    }

    pub fn encode(&self, frame: &Frame) -> Bytes {
        let mut out = BytesMut::new();
        wire::encode(frame, self.version.min(5), &mut out).unwrap();
        out.freeze()
    }

    /// Whole frames of a stream, RECV payloads in clear. Panics on what a client could not read.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.received = [&self.received[..], bytes].concat().into();
        let mut frames = Vec::new();
        while let Some((frame, taken)) =
            wire::decode(&self.received, self.version.min(5)).expect("a server frame")
        {
            self.received = self.received.slice(taken..);
            frames.push(self.open(frame));
        }
        frames
    }

    fn open(&mut self, frame: Frame) -> Frame {
        match frame {
            Frame::Connack(ack) => {
                self.agree(&ack);
                Frame::Connack(ack)
            }
            Frame::Recv(recv) => Frame::Recv(self.open_recv(recv)),
            other => other,
        }
    }

    fn agree(&mut self, ack: &Connack) {
        if let Ok(salt) = ack.salt[..].try_into() {
            let secret = crypto::agree(&self.private, &ack.server_key).expect("a server key");
            self.cipher = Some(Cipher::new(&secret, salt));
        }
    }

    fn open_recv(&self, mut recv: Recv) -> Recv {
        let Some(cipher) = &self.cipher else {
            assert!(recv.msg_key.is_empty());
            return recv;
        };
        let key = cipher.recv_msg_key(&RecvSign::of(&recv.parts(), &recv.payload));
        assert_eq!(recv.msg_key, key[..], "msgKey of a RECV");
        let mut plain = BytesMut::new();
        cipher.decrypt_payload(&recv.payload, &mut plain).unwrap();
        recv.payload = plain.freeze();
        recv
    }
}
