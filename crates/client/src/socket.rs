//! A socket to a server, plain or WebSocket, as one byte stream. Reading and writing never block: the driver waits.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::Error;
use crate::limits::{CONNECT_MS, READ_BYTES};
use crate::websocket;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `host:port`.
    host: String,
    /// Path of the WebSocket; `None` = plain TCP.
    path: Option<String>,
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let (host, path) = match text.split_once("://") {
            None | Some(("tcp", _)) => {
                let host = text.trim_start_matches("tcp://").trim_end_matches('/');
                (host, None)
            }
            Some(("ws", rest)) => match rest.find('/') {
                Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
                None => (rest, Some("/".to_owned())),
            },
            Some(_) => return Err(Error::Address(text.to_owned())),
        };
        let port = host.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) || text.contains(char::is_whitespace) {
            return Err(Error::Address(text.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            path,
        })
    }
}

pub(crate) struct Socket {
    stream: TcpStream,
    websocket: Option<WebSocket>,
    /// For the socket.
    out: BytesMut,
}

#[derive(Default)]
struct WebSocket {
    input: BytesMut,
    bytes: BytesMut,
}

/// An established socket, or why there is none, within [`CONNECT_MS`].
pub(crate) async fn dial(address: Address) -> io::Result<Socket> {
    match tokio::time::timeout(Duration::from_millis(CONNECT_MS), connect(&address)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "timed out")),
    }
}

async fn connect(address: &Address) -> io::Result<Socket> {
    let mut stream = TcpStream::connect(&address.host).await?;
    stream.set_nodelay(true)?;
    let websocket = match &address.path {
        None => None,
        Some(path) => Some(upgrade(&mut stream, &address.host, path).await?),
    };
    Ok(Socket {
        stream,
        websocket,
        out: BytesMut::new(),
    })
}

async fn upgrade(stream: &mut TcpStream, host: &str, path: &str) -> io::Result<WebSocket> {
    let nonce = rand::random();
    let request = websocket::upgrade_request(host, path, nonce);
    stream.write_all(request.as_bytes()).await?;
    let mut input = BytesMut::new();
    while !websocket::take_upgrade_response(&mut input, nonce).map_err(io::Error::other)? {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(WebSocket {
        input,
        bytes: BytesMut::new(),
    })
}

impl Socket {
    /// Takes all of `bytes` for writing.
    pub(crate) fn queue(&mut self, bytes: &mut BytesMut) {
        if bytes.is_empty() {
            return;
        }
        if self.websocket.is_some() {
            websocket::push_binary(bytes, rand::random, &mut self.out);
            bytes.clear();
        } else if self.out.is_empty() {
            std::mem::swap(&mut self.out, bytes);
        } else {
            self.out.extend_from_slice(bytes);
            bytes.clear();
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.out.len()
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.stream.writable().await
    }

    /// Writes what the kernel takes of the queued bytes.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(written) => self.out.advance(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads once and hands the bytes of the stream to `sink`; an error also at the end.
    pub(crate) fn try_read<E>(
        &mut self,
        buffer: &mut [u8; READ_BYTES],
        sink: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> io::Result<Result<(), E>> {
        let read = match self.stream.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => &buffer[..read],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(())),
            Err(e) => return Err(e),
        };
        let Some(ws) = &mut self.websocket else {
            return Ok(sink(read));
        };
        ws.input.extend_from_slice(read);
        let taken =
            websocket::take_frames(&mut ws.input, rand::random, &mut ws.bytes, &mut self.out);
        // What came before a close frame counts.
        let result = sink(&ws.bytes);
        ws.bytes.clear();
        match (result, taken) {
            (Err(e), _) => Ok(Err(e)),
            (Ok(()), Err(e)) => Err(io::Error::other(e)),
            (Ok(()), Ok(())) => Ok(Ok(())),
        }
    }

    /// Writes the rest and closes; gives up silently.
    pub(crate) async fn finish(mut self) {
        if self.websocket.is_some() {
            websocket::push_close(rand::random(), &mut self.out);
        }
        if self.stream.write_all(&self.out).await.is_ok() {
            // The peer closes, too; nothing is left to learn from how.
            let _ = self.stream.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let plain = |host: &str| Address {
            host: host.to_owned(),
            path: None,
        };
        assert_eq!(
            Address::parse("127.0.0.1:5100"),
            Ok(plain("127.0.0.1:5100"))
        );
        assert_eq!(
            Address::parse("tcp://im.example:1"),
            Ok(plain("im.example:1"))
        );
        assert_eq!(Address::parse("[::1]:5100"), Ok(plain("[::1]:5100")));
        let ws = Address::parse("ws://h:5200/a?b=c").unwrap();
        assert_eq!((&*ws.host, ws.path.as_deref()), ("h:5200", Some("/a?b=c")));
        assert_eq!(
            Address::parse("ws://h:5200").unwrap().path.as_deref(),
            Some("/")
        );
        for bad in [
            "",
            "host",
            "h:port",
            "h:70000",
            "wss://h:1",
            "h:1 x",
            "ws://h",
        ] {
            assert_eq!(Address::parse(bad), Err(Error::Address(bad.to_owned())));
        }
    }
}
