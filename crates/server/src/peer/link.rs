//! The sockets: dialling, accepting, introducing, reading and writing.
//!
//! Failure policy: whatever goes wrong with a connection ends it; who dials tries again, 100 ms to 1 s later.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use wk_cluster::formation::{Admission, LinkState};
use wk_proto::NodeId;

use super::frame::{self, BODY_BYTES_MAX, Frame, HELLO_BYTES_MAX};
use super::hello::{self, CHALLENGE, HELLO, Hello, Nonce, Purpose, REFUSAL, Refusal};
use super::message::Message;
use super::outbox::{LinkId, Outbox};
use super::receive::{self, Intake, Met};
use crate::limits::{
    ACCEPT_PAUSE_MS, DIAL_PAUSE_MS_MAX, DIAL_PAUSE_MS_MIN, DIAL_WAIT_MS, HELLO_WAIT_MS,
    PEER_SOCKETS_MAX, READ_BYTES_MAX,
};
use crate::parts::Parts;

/// Keeps one connection to a peer up until the task is aborted.
pub(crate) async fn dial(parts: Arc<Parts>, node: NodeId, purpose: Purpose) {
    let mut pause = DIAL_PAUSE_MS_MIN;
    loop {
        let started = Instant::now();
        if let Err(failed) = attempt(&parts, node, purpose).await
            && purpose == Purpose::Calls
        {
            let Failed(state, error) = failed;
            receive::linked(&parts, node, state, Some(error));
        }
        let lasted = started.elapsed() > Duration::from_millis(2 * DIAL_WAIT_MS);
        pause = if lasted {
            DIAL_PAUSE_MS_MIN
        } else {
            (pause * 2).min(DIAL_PAUSE_MS_MAX)
        };
        // All nodes may have lost the same peer at the same moment.
        let jittered = rand::random_range(pause / 2..=pause);
        let Some(peer) = parts.mesh.peer(node) else {
            return;
        };
        let _ = timeout(Duration::from_millis(jittered), peer.retry.notified()).await;
    }
}

/// Why there is no connection.
struct Failed(LinkState, String);

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let state = match error.kind() {
            io::ErrorKind::ConnectionRefused => LinkState::Refused,
            _ => LinkState::Unreachable,
        };
        Self(state, error.to_string())
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self(refusal.state(), refusal.to_string())
    }
}

/// One connection from its beginning to its end.
async fn attempt(parts: &Parts, node: NodeId, purpose: Purpose) -> Result<(), Failed> {
    let Some(peer) = parts.mesh.peer(node) else {
        return Ok(());
    };
    let addresses = lookup_host(&*peer.addr).await;
    let unknown = |error: io::Error| Failed(LinkState::DnsFailed, error.to_string());
    let addresses = addresses.map_err(unknown)?;
    let mut socket = connect(addresses.collect()).await?;
    let introduced = timeout(
        Duration::from_millis(HELLO_WAIT_MS),
        introduce(parts, node, purpose, &mut socket),
    );
    let silent = |_| Failed::from(io::Error::from(io::ErrorKind::TimedOut));
    let (met, read) = introduced.await.map_err(silent)??;
    run(parts, node, purpose, met, socket, read).await;
    Ok(())
}

async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, Failed> {
    let mut failed = Failed(LinkState::DnsFailed, "the name has no address".to_owned());
    for address in addresses {
        let wait = Duration::from_millis(DIAL_WAIT_MS);
        failed = match timeout(wait, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => error.into(),
            Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
        };
    }
    Err(failed)
}

/// The dialling side. Returns whom it met, and what came after the hello.
async fn introduce(
    parts: &Parts,
    node: NodeId,
    purpose: Purpose,
    socket: &mut TcpStream,
) -> Result<(Met, BytesMut), Failed> {
    let own = &parts.mesh.own;
    let mut read = BytesMut::new();
    let challenge = expect(socket, &mut read).await?;
    let seen = (challenge.kind == CHALLENGE)
        .then(|| hello::read_challenge(challenge.body))
        .flatten()
        .ok_or(Refusal::Malformed)?;
    let said = greeting(parts, node, purpose);
    let frame = said.encode(&seen, own.secret.as_deref());
    socket.write_all(&frame).await?;
    let answer = expect(socket, &mut read).await?;
    let met = match answer.kind {
        HELLO => Hello::decode(answer.body, &said.nonce, own.secret.as_deref())
            .and_then(|hello| check(parts, &hello, Some((node, purpose)))),
        REFUSAL => Err(Refusal::decode(answer.body)),
        _ => Err(Refusal::Malformed),
    };
    Ok((met?, read))
}

fn greeting(parts: &Parts, to: NodeId, purpose: Purpose) -> Hello {
    let own = &parts.mesh.own;
    Hello {
        purpose,
        cluster: own.cluster,
        node: own.node,
        to,
        disk: own.disk,
        incarnation: own.incarnation,
        nonce: rand::random(),
    }
}

/// Whether this is a node of ours, and for what; `expected`: the one that was dialled.
fn check(
    parts: &Parts,
    hello: &Hello,
    expected: Option<(NodeId, Purpose)>,
) -> Result<Met, Refusal> {
    let mesh = &parts.mesh;
    let clusters = [hello.cluster, mesh.own.cluster];
    if clusters[0] != clusters[1] && !clusters.contains(&0) {
        return Err(Refusal::ForeignCluster);
    }
    let is_expected = expected.is_none_or(|known| known == (hello.node, hello.purpose));
    if hello.to != mesh.own.node || !is_expected {
        return Err(Refusal::IdConflict);
    }
    let is_full = match parts.former.admits(hello.node, hello.disk) {
        Admission::Full => true,
        Admission::FormationOnly if hello.purpose == Purpose::Calls => false,
        Admission::FormationOnly => return Err(Refusal::NoSeat),
        Admission::Refused(state, text) => {
            tracing::warn!("{text}");
            return Err(Refusal::of(&state));
        }
    };
    let now = parts.clock.now();
    let is_new = mesh.admit(hello.node, hello.disk, hello.incarnation, now)?;
    Ok(Met { is_new, is_full })
}

/// Takes connections of peers until the task is aborted, and ends them then.
pub(crate) async fn accept_all(parts: Arc<Parts>, listener: TcpListener) {
    let mut links = JoinSet::new();
    loop {
        while links.try_join_next().is_some() {}
        match listener.accept().await {
            // More than any cluster has: strangers.
            Ok(_) if links.len() >= PEER_SOCKETS_MAX => {}
            Ok((socket, from)) => {
                let parts = parts.clone();
                links.spawn(async move { accepted(&parts, socket, from.ip()).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a peer cannot be accepted");
                sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

async fn accepted(parts: &Parts, mut socket: TcpStream, from: IpAddr) {
    let wait = Duration::from_millis(HELLO_WAIT_MS);
    let welcomed = timeout(wait, welcome(parts, &mut socket, from)).await;
    match welcomed {
        Ok(Ok((hello, met, read))) => {
            run(parts, hello.node, hello.purpose, met, socket, read).await;
        }
        Ok(Err(refusal)) => {
            tracing::debug!(%from, %refusal, "a connection to the cluster port was refused");
            let refused = refusal.encode();
            let _ = timeout(wait, socket.write_all(&refused)).await;
        }
        Err(_) => tracing::debug!(%from, "a connection to the cluster port said nothing"),
    }
}

/// The accepting side.
async fn welcome(
    parts: &Parts,
    socket: &mut TcpStream,
    from: IpAddr,
) -> Result<(Hello, Met, BytesMut), Refusal> {
    let lost = |_| Refusal::Malformed;
    let own = &parts.mesh.own;
    let nonce: Nonce = rand::random();
    let challenge = hello::challenge(&nonce);
    socket.write_all(&challenge).await.map_err(lost)?;
    let mut read = BytesMut::new();
    let frame = expect(socket, &mut read).await.map_err(lost)?;
    if frame.kind != HELLO {
        return Err(Refusal::Malformed);
    }
    let hello = Hello::decode(frame.body, &nonce, own.secret.as_deref())?;
    if own.secret.is_none() && !is_listed(parts, hello.node, from).await {
        return Err(Refusal::Auth);
    }
    let met = check(parts, &hello, None)?;
    let mut answer = greeting(parts, hello.node, hello.purpose);
    answer.nonce = nonce;
    let frame = answer.encode(&hello.nonce, own.secret.as_deref());
    socket.write_all(&frame).await.map_err(lost)?;
    Ok((hello, met, read))
}

/// Without a secret the address is all there is to go by (H53).
async fn is_listed(parts: &Parts, node: NodeId, from: IpAddr) -> bool {
    let Some(peer) = parts.mesh.peer(node) else {
        return false;
    };
    match lookup_host(&*peer.addr).await {
        Ok(mut found) => found.any(|a| a.ip().to_canonical() == from.to_canonical()),
        Err(_) => false,
    }
}

/// The next frame of the introduction.
async fn expect(socket: &mut TcpStream, read: &mut BytesMut) -> io::Result<Frame> {
    loop {
        match frame::take(read, HELLO_BYTES_MAX) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        if socket.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Tells the node when the connection ends, however it ends.
struct Open<'a> {
    parts: &'a Parts,
    node: NodeId,
    purpose: Purpose,
    link: LinkId,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        receive::closed(self.parts, self.node, self.purpose, self.link);
    }
}

async fn run(
    parts: &Parts,
    node: NodeId,
    purpose: Purpose,
    met: Met,
    socket: TcpStream,
    read: BytesMut,
) {
    let Some(peer) = parts.mesh.peer(node) else {
        return;
    };
    // Frames are gathered before they are written; nothing is gained by waiting for more.
    let _ = socket.set_nodelay(true);
    let ended = peer.end.notified();
    let link = parts.mesh.new_link();
    receive::opened(parts, node, purpose, link, met);
    let _open = Open {
        parts,
        node,
        purpose,
        link,
    };
    let (from, to) = socket.into_split();
    let intake = Intake::new(node, link, met.is_full, parts);
    tokio::select! {
        why = receive_all(parts, intake, node, from, read) => {
            if let Err(error) = why {
                tracing::info!(%node, ?purpose, %error, "a peer's connection ends");
            }
        }
        _ = send_all(peer.outbox(purpose), link, to) => {}
        () = ended => {}
    }
}

async fn receive_all(
    parts: &Parts,
    mut intake: Intake,
    node: NodeId,
    mut from: OwnedReadHalf,
    mut read: BytesMut,
) -> io::Result<()> {
    let mut messages = Vec::new();
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed");
    loop {
        while let Some(frame) = frame::take(&mut read, BODY_BYTES_MAX).map_err(|_| malformed())? {
            messages.push(Message::decode(frame, node).ok_or_else(malformed)?);
        }
        intake.take(parts, messages.drain(..));
        read.reserve(READ_BYTES_MAX);
        if from.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// Frames up to this size are gathered into one write.
const GATHER_BYTES: usize = 64 * 1024;

async fn send_all(outbox: &Outbox, link: LinkId, mut to: OwnedWriteHalf) -> io::Result<()> {
    let mut gathered = BytesMut::new();
    while let Some(frames) = outbox.take(link).await {
        for (frame, _) in frames {
            send(&mut gathered, &frame, &mut to).await?;
        }
        to.write_all(&gathered).await?;
        gathered.clear();
    }
    Ok(())
}

async fn send(gathered: &mut BytesMut, frame: &Bytes, to: &mut OwnedWriteHalf) -> io::Result<()> {
    if gathered.len() + frame.len() > GATHER_BYTES {
        to.write_all(gathered).await?;
        gathered.clear();
    }
    if frame.len() > GATHER_BYTES {
        return to.write_all(frame).await;
    }
    gathered.extend_from_slice(frame);
    Ok(())
}
