//! One connection of the generator: the client's codec over a socket, no queues, no tasks of its own.

use std::cell::RefCell;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;
use wk_client::link::{self, Hello, HelloError, Link};
use wk_client::{Encryption, Options};
use wk_proto::WallMs;
use wk_proto::frame::{Frame, Recv, Send};

/// Seconds from dialling to CONNACK; then the attempt has failed.
const LOGIN_SECS: u64 = 10;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A logged-in connection.
pub struct Conn {
    stream: TcpStream,
    link: Link,
    input: BytesMut,
    out: BytesMut,
    scratch: BytesMut,
}

impl Conn {
    /// Dials and logs in.
    pub async fn open(server: &str, uid: &str, encryption: Encryption) -> Result<Self> {
        let limit = Duration::from_secs(LOGIN_SECS);
        tokio::time::timeout(limit, Self::login(server, uid, encryption))
            .await
            .with_context(|| format!("{server}: no answer to CONNECT within {LOGIN_SECS} s"))?
    }

    async fn login(server: &str, uid: &str, encryption: Encryption) -> Result<Self> {
        let options = Options {
            device_id: String::new(),
            encryption,
            ..Options::new(uid)
        };
        let mut stream = TcpStream::connect(server)
            .await
            .with_context(|| format!("cannot reach the server at {server}"))?;
        stream.set_nodelay(true)?;
        let hello = Hello::new(&options, rand::random());
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        hello.push_connect(&options, wall(), &mut out)?;
        write_all(&mut stream, &mut out).await?;
        let link = loop {
            let mut frames = link::complete_frames(&mut input)?;
            match link::next_frame(&mut frames, hello.version())? {
                Some(Frame::Connack(ack)) => break finish(&hello, &ack)?,
                Some(_) => bail!("{server}: not a CONNACK"),
                None => fill(&stream, &mut input).await?,
            }
        };
        Ok(Self {
            stream,
            link,
            input,
            out,
            scratch: BytesMut::new(),
        })
    }

    /// Waits for bytes and returns the complete frames in them, possibly none.
    pub async fn read(&mut self) -> Result<Bytes> {
        fill(&self.stream, &mut self.input).await?;
        Ok(link::complete_frames(&mut self.input)?)
    }

    /// Takes the next of the frames that [`Self::read`] returned.
    pub fn next(&self, frames: &mut Bytes) -> Result<Option<Frame>> {
        Ok(link::next_frame(frames, self.link.version())?)
    }

    /// Queues a SEND; payload in clear.
    pub fn send(&mut self, plain: Send) -> Result<()> {
        Ok(self.link.push_send(plain, &mut self.out)?)
    }

    /// Queues the RECVACK.
    pub fn recvack(&mut self, recv: &Recv) {
        self.link.push_recvack(recv, &mut self.out);
    }

    /// The payload, msgKey checked; `None` if it is wrong.
    pub fn payload(&mut self, recv: &Recv) -> Option<Bytes> {
        self.link.open(recv, &mut self.scratch).ok()
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> Result<()> {
        write_all(&mut self.stream, &mut self.out).await
    }

    /// Whether payloads are encrypted.
    pub fn encrypted(&self) -> bool {
        self.link.encrypted()
    }
}

fn finish(hello: &Hello, ack: &wk_proto::frame::Connack) -> Result<Link> {
    hello.finish(ack).map_err(|e| match e {
        HelloError::Terminal(error) => anyhow!(error),
        HelloError::Nonsense(what) => anyhow!(what),
    })
}

thread_local! {
    /// Where bytes are read before a connection keeps what it needs: one for all, since a buffer of this size for each of
    /// thousands would be most of the generator's memory.
    static READ: RefCell<Box<[u8; READ_BYTES]>> = RefCell::new(Box::new([0; READ_BYTES]));
}

async fn fill(stream: &TcpStream, input: &mut BytesMut) -> Result<()> {
    loop {
        stream.readable().await?;
        let read = READ.with_borrow_mut(|buffer| {
            let read = stream.try_read(&mut buffer[..])?;
            input.extend_from_slice(&buffer[..read]);
            io::Result::Ok(read)
        });
        match read {
            Ok(0) => bail!("the server closed the connection"),
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e.into()),
        }
    }
}

async fn write_all(stream: &mut TcpStream, out: &mut BytesMut) -> Result<()> {
    while !out.is_empty() {
        match stream.try_write(out) {
            Ok(written) => out.advance(written),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn wall() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    WallMs(since.map_or(0, |d| d.as_millis() as u64))
}
