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
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::coop,
    time::{Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;

use super::{
    caps::Place,
    pace::{Admitted, Pace},
    socket::{Socket, take},
};

/// Less than this waits for more, or for a flush: the head of an answer and a short body go out as one segment.
const SEGMENT: usize = 1460;

/// Parts of a write that go to the kernel at once; Pingora writes a chunk in three.
const PARTS: usize = 4;

/// How much of what comes first is read at once. As Pingora does it: few heads are longer.
const FIRST_READ: usize = 4096;

/// Bytes that a connection of HTTP/2 may read for one unit of the runtime's budget, of which a task has 128 before others come
/// first: 16 KiB, which is a frame at its largest (by default) or 1,820 at their smallest. By itself the runtime counts reads, and
/// the thousands of frames in each cost nothing.
const BYTES_A_UNIT: usize = 128;

/// A connection of a client. Between requests it holds no buffer.
pub(super) struct Connection {
    transport: Transport,
    /// Read for a look at it.
    unread: BytesMut,
    /// Written, and not sent yet.
    unsent: Vec<u8>,
    /// What has come over HTTP/2 is read in turns.
    turns: Option<Box<Turns>>,
    socket_digest: Arc<SocketDigest>,
    ssl_digest: Option<Arc<SslDigest>>,
}

/// How a connection of HTTP/2 is read: in turns, and no faster than it may send.
struct Turns {
    pace: Pace,
    /// Runs while the client is held back.
    held: Option<Pin<Box<Sleep>>>,
    /// Whether it ever was.
    was_held: bool,
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
            turns: None,
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
        self.transport.place()
    }

    /// From now on HTTP/2 is spoken, from its preface on: others come first after every 16 KiB, however much has come.
    pub(super) fn take_turns(&mut self) {
        self.turns = Some(Box::new(Turns { pace: Pace::new(), held: None, was_held: false }));
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
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn place(&mut self) -> &mut Place {
        match self {
            Transport::Plain(socket) => socket.place(),
            Transport::Tls(stream) => stream.get_mut().0.place(),
        }
    }

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
        if self.turns.is_some() {
            return self.poll_turn(cx, buf);
        }
        if self.unread.is_empty() {
            return self.transport.poll_read(cx, buf);
        }
        take(&mut self.unread, buf);
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Connection {
    /// Reads as much as may be read in this turn.
    fn poll_turn(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Connection { transport, unread, turns: Some(turns), .. } = self else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some(held) = &mut turns.held {
                ready!(held.as_mut().poll(cx));
                turns.held = None;
            }
            let Admitted { bytes, held_until } = if unread.is_empty() {
                let before = buf.filled().len();
                ready!(transport.poll_read(cx, buf))?;
                let came = &buf.filled()[before..];
                if came.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let admitted = turns.pace.admit(came);
                unread.extend_from_slice(&came[admitted.bytes..]);
                buf.set_filled(before + admitted.bytes);
                admitted
            } else {
                ready!(coop::poll_proceed(cx)).made_progress();
                let admitted = turns.pace.admit(&unread[..unread.len().min(buf.remaining())]);
                buf.put_slice(&unread.split_to(admitted.bytes));
                if unread.is_empty() {
                    *unread = BytesMut::new();
                }
                admitted
            };
            spend(cx, bytes);
            turns.held = held_until.map(|until| Box::pin(sleep_until(until)));
            if turns.held.is_some() && !std::mem::replace(&mut turns.was_held, true) {
                transport.place().hold_back();
            }
            if bytes > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Tells the pace what is sent to the client.
    fn earned(&mut self, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Some(turns), Poll::Ready(Ok(bytes))) = (&mut self.turns, &sent) {
            turns.pace.sent(*bytes);
        }
        sent
    }
}

/// Takes from the task's budget what bytes cost. When there is none left, the next read waits for another turn.
fn spend(cx: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes.div_ceil(BYTES_A_UNIT) {
        match coop::poll_proceed(cx) {
            Poll::Ready(unit) => unit.made_progress(),
            Poll::Pending => return,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.unsent.len() + buf.len() <= SEGMENT {
            self.unsent.extend_from_slice(buf);
            return self.earned(Poll::Ready(Ok(buf.len())));
        }
        let sent = self.poll_send(cx, &[IoSlice::new(buf)]);
        self.earned(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.unsent.len() + len <= SEGMENT {
            parts.iter().for_each(|part| self.unsent.extend_from_slice(part));
            return self.earned(Poll::Ready(Ok(len)));
        }
        let sent = self.poll_send(cx, parts);
        self.earned(sent)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::{super::caps::Caps, *};
    use crate::{model::ClientLimits, signals::connections::ConnectionMeter};

    /// The most that is read of this at one go.
    async fn longest_turn(all: Vec<u8>, takes_turns: bool) -> usize {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, address) = listener.accept().await.unwrap();
        let caps = Arc::new(Caps::new(Arc::<ConnectionMeter>::default()));
        let place = caps.enter(&ClientLimits::default()).unwrap();
        let mut connection = Connection::plain(Socket::new(tcp, place, Duration::from_secs(60)), address);
        if takes_turns {
            connection.take_turns();
        }
        // No more than the kernel's buffers hold.
        client.write_all(&all).await.unwrap();
        let (mut read, mut longest, mut bytes) = (Vec::new(), 0, [0; 1024]);
        poll_fn(|cx| {
            let begun = read.len();
            loop {
                let mut buf = ReadBuf::new(&mut bytes);
                match Pin::new(&mut connection).poll_read(cx, &mut buf) {
                    Poll::Ready(read) => read.unwrap(),
                    Poll::Pending => break,
                }
                read.extend_from_slice(buf.filled());
            }
            longest = longest.max(read.len() - begun);
            if read.len() == all.len() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(read == all, "every byte comes once, in order");
        longest
    }

    /// Frames of DATA of this size, behind the preface.
    fn frames(count: usize, size: usize) -> Vec<u8> {
        let len = u32::try_from(size).unwrap().to_be_bytes();
        let frame = [&len[1..], &[0, 0, 0, 0, 0, 1], &vec![7; size]].concat();
        [vec![0; 24], frame.repeat(count)].concat()
    }

    #[tokio::test]
    async fn who_takes_turns_reads_a_part_of_what_has_come() {
        let turn = 128 * BYTES_A_UNIT;
        assert!(longest_turn(frames(4, 16 << 10), false).await > 2 * turn);
        let longest = longest_turn(frames(4, 16 << 10), true).await;
        assert!(longest <= turn, "{longest}");
    }
}
