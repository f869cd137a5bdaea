//! A client that may break every rule: a blocking socket, frames encoded by the product's codec or by hand.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use wk_proto::crypto::{self, Cipher, SendSign};
use wk_proto::frame::{Connack, Connect, Frame, Send};
use wk_proto::wire;

use super::PATIENCE;

const VERSION: u8 = 5;
const PRIVATE: [u8; 32] = [42; 32];

pub struct Raw {
    pub socket: TcpStream,
    buffer: BytesMut,
    pub cipher: Option<Cipher>,
}

impl Raw {
    pub fn open(to: SocketAddr) -> Self {
        Self::from(TcpStream::connect_timeout(&to, PATIENCE).unwrap())
    }

    pub fn from(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: BytesMut::new(),
            cipher: None,
        }
    }

    pub fn login(to: SocketAddr, uid: &str) -> Self {
        let mut raw = Self::open(to);
        let connack = raw.hello(uid.as_bytes(), b"").expect("a CONNACK");
        assert_eq!(connack.reason_code, 1);
        raw
    }

    /// CONNECT and its answer; `None` if the server closed.
    pub fn hello(&mut self, uid: &[u8], token: &[u8]) -> Option<Connack> {
        self.send(&Frame::Connect(connect(uid, token)));
        match self.next() {
            Some(Frame::Connack(connack)) => {
                if !connack.server_key.is_empty() {
                    let secret = crypto::agree(&PRIVATE, &connack.server_key).unwrap();
                    let salt = connack.salt[..].try_into().unwrap();
                    self.cipher = Some(Cipher::new(&secret, salt));
                }
                Some(connack)
            }
            None => None,
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    /// Not an error if the server has closed: what it has said is still to be read.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, frame: &Frame) -> bool {
        let mut bytes = BytesMut::new();
        wire::encode(frame, VERSION, &mut bytes).unwrap();
        self.write(&bytes)
    }

    /// The next frame; `None`: the server closed.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decode() {
                return Some(frame);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn decode(&mut self) -> Option<Frame> {
        let bytes = self.buffer.clone().freeze();
        let (frame, len) = wire::decode(&bytes, VERSION).unwrap()?;
        self.buffer.advance(len);
        Some(frame)
    }

    /// Reads once; false: the server closed.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither an answer nor the end of the connection in {PATIENCE:?}")
            }
            Err(_) => false,
        }
    }

    /// Everything until the server closes, in bytes.
    pub fn drain(&mut self) -> Vec<u8> {
        while self.fill() {}
        self.buffer.split().to_vec()
    }

    /// Waits for the end of the connection for a while only.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut chunk = [0; 1024];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return true,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }
}

pub fn connect(uid: &[u8], token: &[u8]) -> Connect {
    Connect {
        version: VERSION,
        device_id: Bytes::from_static(b"raw"),
        uid: Bytes::copy_from_slice(uid),
        token: Bytes::copy_from_slice(token),
        client_timestamp: 1,
        client_key: Bytes::copy_from_slice(&crypto::public_key(&PRIVATE)),
        ..Connect::default()
    }
}

/// A SEND to a person, sealed if the connection is.
pub fn send_to(cipher: Option<&Cipher>, to: &[u8], seq: u32, payload: &[u8]) -> Send {
    let mut send = Send {
        client_seq: seq,
        client_msg_no: Bytes::from(format!("raw-{seq}")),
        channel_id: Bytes::copy_from_slice(to),
        channel_type: 1,
        payload: Bytes::copy_from_slice(payload),
        ..Send::default()
    };
    seal(cipher, &mut send);
    send
}

pub fn seal(cipher: Option<&Cipher>, send: &mut Send) {
    if let Some(cipher) = cipher {
        let mut sealed = BytesMut::new();
        cipher.encrypt_payload(&send.payload, &mut sealed);
        send.payload = sealed.freeze();
        let key = cipher.send_msg_key(&SendSign::of(send));
        send.msg_key = Bytes::copy_from_slice(&key[..]);
    }
}
