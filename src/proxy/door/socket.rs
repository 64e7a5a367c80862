//! The bytes of a connection as they are on the wire.

use std::{
    future::Future,
    io,
    os::fd::{AsRawFd, RawFd},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::caps::Place;
use crate::signals::connections::TurnedAway;

/// How much is read at once where more may have come than is asked for: two records of TLS, which by itself reads them in
/// quarters.
const AHEAD: usize = 32 << 10;

/// A connection of a client. It holds no buffer while nothing comes, and ends when the client takes nothing for too long.
pub(super) struct Socket {
    tcp: TcpStream,
    /// Read, and not taken yet.
    ahead: BytesMut,
    /// Whether as much as there is is read ahead.
    greedy: bool,
    silence_max: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    place: Place,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, place: Place, silence_max: Duration) -> Socket {
        Socket { tcp, ahead: BytesMut::new(), greedy: false, silence_max, stalled: None, place }
    }

    pub(super) fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Reads ahead from now on.
    pub(super) fn read_ahead(&mut self) {
        self.greedy = true;
    }

    /// What was read and not taken yet.
    pub(super) fn ahead(&mut self) -> &mut BytesMut {
        &mut self.ahead
    }

    /// Reads some more of what has come, ahead of who will take it. 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.tcp.poll_read_ready(cx)?.is_pending() {
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Pending;
        }
        self.ahead.reserve(AHEAD);
        pin!(self.tcp.read_buf(&mut self.ahead)).poll(cx)
    }

    /// Whether there may be something to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() { self.tcp.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Sends what can be sent without waiting.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.try_write(bytes)
    }

    /// Ends a wait for a client that takes nothing.
    fn progress<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let silence_max = self.silence_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(silence_max)));
        ready!(stalled.as_mut().poll(cx));
        self.place.turn_away(TurnedAway::Stalled);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer")))
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            if !self.greedy {
                return Pin::new(&mut self.tcp).poll_read(cx, buf);
            }
            ready!(self.poll_fill(cx))?;
        }
        take(&mut self.ahead, buf);
        if self.ahead.is_empty() && !self.greedy {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Moves as much as fits.
pub(super) fn take(from: &mut BytesMut, to: &mut ReadBuf<'_>) {
    let len = from.len().min(to.remaining());
    to.put_slice(&from[..len]);
    from.advance(len);
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel sends at once what it is given.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
