//! Bytes on their way to one socket: everything queued goes out in as few writes as the socket takes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use crate::limits::CONN_IDLE_SLOTS;

/// Pieces up to this size are copied behind each other: cheaper than a slice each.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// Size at which a piece takes no more.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// Slices of one write.
const SLICES_MAX: usize = 16;

/// See the module. Bounded by the driver, which looks at [`Self::len`].
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<BytesMut>,
    len: usize,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends.
    pub(super) fn push(&mut self, bytes: BytesMut) {
        if bytes.len() <= COPY_BYTES_MAX
            && let Some(last) = self.pieces.back_mut()
            && last.len() < PIECE_BYTES_MAX
        {
            self.len += bytes.len();
            last.extend_from_slice(&bytes);
        } else if !bytes.is_empty() {
            self.len += bytes.len();
            self.pieces.push_back(bytes);
        }
    }

    /// Writes until nothing is left or the socket takes no more; then `Pending`, and the task is woken when it does. Returns the
    /// bytes written in this call through `written`.
    pub(super) fn poll_flush(
        &mut self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let n = ready!(self.poll_write(socket, cx))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += n;
            self.consume(n);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &self,
        socket: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let [one] = self.pieces.as_slices().0
            && self.pieces.len() == 1
        {
            return Pin::new(socket).poll_write(cx, one);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        Pin::new(socket).poll_write_vectored(cx, &slices[..count])
    }

    fn consume(&mut self, mut n: usize) {
        self.len -= n;
        while n > 0 {
            let Some(front) = self.pieces.front_mut() else {
                return;
            };
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.pieces.capacity() > CONN_IDLE_SLOTS {
            self.pieces.shrink_to(CONN_IDLE_SLOTS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// Takes a few bytes at a time, and sometimes none.
    struct Narrow {
        took: Vec<u8>,
        step: usize,
        calls: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Poll::Pending;
            }
            let n = buf.len().min(self.step);
            self.took.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn partial_writes_keep_the_rest_in_order() {
        let mut outbox = Outbox::default();
        let mut wanted = Vec::new();
        for n in 0..20u8 {
            let piece = vec![n; usize::from(n) * 700];
            wanted.extend_from_slice(&piece);
            outbox.push(BytesMut::from(&piece[..]));
        }
        let mut socket = Narrow {
            took: Vec::new(),
            step: 999,
            calls: 0,
        };
        let mut cx = Context::from_waker(Waker::noop());
        let mut written = 0;
        while outbox
            .poll_flush(&mut socket, &mut cx, &mut written)
            .is_pending()
        {}
        assert_eq!(written, wanted.len());
        assert_eq!(socket.took, wanted);
        assert!(outbox.is_empty() && outbox.pieces.is_empty());
    }

    #[test]
    fn small_pieces_share_a_buffer() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.push(BytesMut::from(&b"frame"[..]));
        }
        assert_eq!((outbox.pieces.len(), outbox.len()), (1, 500));
    }
}
