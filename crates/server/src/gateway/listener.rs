//! Accept loops.
//!
//! Failure policy: an error of one socket is that socket's; when descriptors run out, a reserve is spent to close the next waiting
//! peer (so that it does not hang), and the loop pauses.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use wk_session::{Session, Transport};

use super::Gateway;
use super::driver::Driver;
use crate::limits::ACCEPT_PAUSE_MS;

/// Binds a listener; port 0 picks a free one.
pub(crate) async fn bind(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

/// Serves a listener until the task is aborted.
pub(crate) async fn accept_all(gateway: Arc<Gateway>, listener: TcpListener, kind: Transport) {
    let mut reserve = reserve();
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => serve(&gateway, socket, peer, kind),
            Err(error) if is_exhausted(&error) => {
                tracing::warn!(%error, "no descriptor left for a client");
                drop(reserve.take());
                // The one that waits is closed; with no other way to tell it, it sees the end of the connection.
                let waiting = tokio::time::timeout(Duration::ZERO, listener.accept());
                drop(waiting.await);
                reserve = self::reserve();
                pause().await;
            }
            // The peer was gone before it was accepted.
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a client cannot be accepted");
                pause().await;
            }
        }
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
}

/// A descriptor to give up when there is none left.
fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

/// Starts the task of a connection. Owner: its guard in the hub. Ends: with its session. Failure: a panic ends this connection
/// alone, the guard cleans up.
fn serve(gateway: &Arc<Gateway>, socket: TcpStream, peer: SocketAddr, kind: Transport) {
    let parts = &gateway.parts;
    if parts.hub.len() >= parts.config.connections_max {
        return;
    }
    // Frames are small and answered at once; nothing is gained by waiting for more. A socket that is gone already will say so.
    let _ = socket.set_nodelay(true);
    let guard = parts.hub.add(peer, parts.clock.wall());
    let mut seed = [0; 48];
    rand::Rng::fill(&mut rand::rng(), &mut seed[..]);
    let session = Session::new(gateway.session.clone(), kind, parts.clock.now(), seed);
    let mut driver = Driver::new(gateway.clone(), guard, socket, session, kind);
    tokio::spawn(std::future::poll_fn(move |cx| driver.poll(cx)));
}
