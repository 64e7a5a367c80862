//! A connection of a client as Pingora reads and writes it: with TLS or without.

use std::{
    borrow::Cow,
    fmt,
    future::{Future, poll_fn},
    io::{self, IoSlice, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType, l4::socket::SocketAddr as PingoraAddress, raw_connect::ProxyDigest,
    tls::SslDigest,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{
    caps::Place,
    socket::{Socket, take},
};

/// Less than this waits for more, or for a flush: the head of an answer and a short body go out as one segment.
const SEGMENT: usize = 1460;

/// Parts of a write that go to the kernel at once; Pingora writes a chunk in three.
const PARTS: usize = 4;

/// How much of what comes first is read at once. As Pingora does it: few heads are longer.
const FIRST_READ: usize = 4096;

/// A connection of a client. Between requests it holds no buffer.
pub(super) struct Connection {
    transport: Transport,
    /// Read for a look at it.
    unread: BytesMut,
    /// Written, and not sent yet.
    unsent: Vec<u8>,
    socket_digest: Arc<SocketDigest>,
    ssl_digest: Option<Arc<SslDigest>>,
}

enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Connection {
    /// A plain connection from `client`.
    pub(super) fn plain(socket: Socket, client: SocketAddr) -> Connection {
        Connection::over(Transport::Plain(socket), client, None)
    }

    /// A connection over TLS, whose handshake is done.
    pub(super) fn tls(stream: TlsStream<Socket>, client: SocketAddr) -> Connection {
        let session = stream.get_ref().1;
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let cipher =
            session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let digest = SslDigest::new(Cow::Borrowed(cipher), Cow::Borrowed(version), None, None, Vec::new());
        Connection::over(Transport::Tls(Box::new(stream)), client, Some(Arc::new(digest)))
    }

    fn over(transport: Transport, client: SocketAddr, ssl_digest: Option<Arc<SslDigest>>) -> Connection {
        let fd = match &transport {
            Transport::Plain(socket) => socket.as_raw_fd(),
            Transport::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        };
        let digest = SocketDigest::from_raw_fd(fd);
        // Behind a load balancer that says so, the client is not the peer.
        let _ = digest.peer_addr.set(Some(PingoraAddress::Inet(client)));
        Connection {
            transport,
            unread: BytesMut::new(),
            unsent: Vec::new(),
            socket_digest: Arc::new(digest),
            ssl_digest,
        }
    }

    /// As Pingora wants it; [`back`](Self::back) undoes it.
    pub(super) fn into_stream(self: Box<Self>) -> Stream {
        self
    }

    /// The connection in a stream that was made of one.
    pub(super) fn back(stream: Stream) -> Option<Box<Connection>> {
        stream.into_any().downcast().ok()
    }

    /// Whether the handshake agreed on HTTP/2; `None` without TLS.
    pub(super) fn agreed_on_http2(&self) -> Option<bool> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => Some(stream.get_ref().1.alpn_protocol() == Some(b"h2")),
        }
    }

    pub(super) fn place(&mut self) -> &mut Place {
        match &mut self.transport {
            Transport::Plain(socket) => socket.place(),
            Transport::Tls(stream) => stream.get_mut().0.place(),
        }
    }

    /// Waits until there may be something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| match &self.transport {
            _ if !self.unread.is_empty() => Poll::Ready(Ok(())),
            Transport::Plain(socket) => socket.poll_readable(cx),
            Transport::Tls(stream) => match stream.get_ref() {
                // It does not want to read while it has something for us.
                (_, session) if !session.wants_read() => Poll::Ready(Ok(())),
                (socket, _) => socket.poll_readable(cx),
            },
        })
        .await
    }

    /// What was read and not taken yet.
    pub(super) fn unread(&mut self) -> &mut BytesMut {
        &mut self.unread
    }

    /// Reads some more ahead. 0 at the end; nothing is lost when the wait is given up.
    pub(super) async fn more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            let unread = &mut self.unread;
            if unread.len() == unread.capacity() {
                unread.reserve(unread.len().max(FIRST_READ));
            }
            match &mut self.transport {
                Transport::Plain(socket) => pin!(socket.read_buf(unread)).poll(cx),
                Transport::Tls(stream) => pin!(stream.read_buf(unread)).poll(cx),
            }
        })
        .await
    }

    /// Sends all parts, behind what is not sent yet. Gives how much of the parts is gone, at least one byte.
    fn poll_send(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let unsent = self.unsent.len();
            let mut all = [IoSlice::new(&self.unsent); PARTS + 1];
            let count = parts.len().min(PARTS);
            all[1..=count].copy_from_slice(&parts[..count]);
            let first = usize::from(unsent == 0);
            let sent = ready!(self.transport.poll_write_vectored(cx, &all[first..=count]))?;
            self.unsent.drain(..sent.min(unsent));
            match sent.saturating_sub(unsent) {
                0 if sent == 0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                0 => {}
                gone => return Poll::Ready(Ok(gone)),
            }
        }
    }
}

impl Transport {
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Transport::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, parts),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            take(&mut self.unread, buf);
            if self.unread.is_empty() {
                self.unread = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() + buf.len() <= SEGMENT {
            self.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.unsent.len() + len <= SEGMENT {
            parts.iter().for_each(|part| self.unsent.extend_from_slice(part));
            return Poll::Ready(Ok(len));
        }
        self.poll_send(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Connection { transport, unsent, .. } = &mut *self;
        while !unsent.is_empty() {
            let sent = ready!(transport.poll_write_vectored(cx, &[IoSlice::new(unsent)]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            unsent.drain(..sent);
        }
        *unsent = Vec::new();
        match transport {
            Transport::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Drop for Connection {
    /// What was written of an answer that broke leaves the process: the client shall see that there was one. Nothing can be
    /// waited for here.
    fn drop(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        // Whether it arrives is not known anyway.
        let _ = match &mut self.transport {
            Transport::Plain(socket) => socket.try_write(&self.unsent),
            Transport::Tls(stream) => {
                let (socket, session) = stream.get_mut();
                session.writer().write(&self.unsent).and_then(|_| session.write_tls(&mut AtOnce(socket)))
            }
        };
    }
}

/// Writes what can be written without waiting.
struct AtOnce<'a>(&'a Socket);

impl Write for AtOnce<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Peek for Connection {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        while self.unread.len() < buf.len() {
            if self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        buf.copy_from_slice(&self.unread[..buf.len()]);
        Ok(true)
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // A client that is gone already needs no goodbye.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        match &self.transport {
            Transport::Plain(socket) => socket.as_raw_fd(),
            Transport::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

impl Ssl for Connection {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.ssl_digest.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.agreed_on_http2().map(|http2| if http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Connection {
    // Nobody reads it, and it would be made anew for each request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket_digest.clone())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.id())
    }
}
