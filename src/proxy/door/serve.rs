//! What is spoken on a connection: HTTP/1.1, request after request, or HTTP/2.
//!
//! Pingora can do both by itself. But it holds its buffers and the state of a whole request for a connection on which nothing
//! happens, waits for the next request without limit, and for the head of one for as long as a client likes.

use std::{
    future::{Future, pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::{
    apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::http::{
        ServerSession,
        v2::server::{H2Options, default_h2_options},
    },
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    connection::Connection,
    head::{Found, Scan, blank},
};
use crate::{
    model::ClientLimits,
    proxy::{answers::Refusal, handler::Handler},
    signals::connections::{ConnectionMeter, TurnedAway},
};

/// How an HTTP/2 connection begins: with what would be a request of a method `PRI`, which no HTTP/1.1 client sends (RFC
/// 9113, 3.4 and 11.6).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of it that tell it from HTTP/1.1. There are requests as short as 18 bytes: `OPTIONS / HTTP/1.0`, HAProxy's default
/// health check, has no more, and a client may wait for its answer.
const PREFACE_START: usize = 3;

/// How long a new connection may stay silent.
const FIRST_SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a connection without a request stays open once the process is told to stop: a client that uses it all the time
/// hears with its next answer that it ends, instead of losing a request.
pub(in crate::proxy) const LAST_REQUEST: Duration = Duration::from_secs(1);

/// After an answer to what was no whole request: so much of what the client still sends is read, for so long. A connection that
/// is closed before is reset, and the client may lose the answer.
const LINGER_BYTES: usize = 1 << 20;
const LINGER_TIME: Duration = Duration::from_secs(1);

/// Serves connections by one proxy, and so by one pool of connections to backends.
pub(super) struct Server {
    pub(super) proxy: Arc<HttpProxy<Handler>>,
    pub(super) meter: Arc<ConnectionMeter>,
}

/// How the wait for a request ended.
enum Heard {
    /// With its head, and whatever came with it.
    Request(BytesMut),
    /// There will be none.
    Nothing,
    /// With something that is not taken.
    Refused(Refusal, TurnedAway),
}

/// How long is waited on a connection, and until what. The timer lives as long as the connection, and is wound up again only when
/// it has run down: one for each request would cost more than the wait for it.
struct Patience<'a> {
    limits: &'a ClientLimits,
    until: Instant,
    timer: Pin<&'a mut Sleep>,
    /// `None` once the process was told to stop.
    stop: Option<Pin<&'a mut (dyn Future<Output = ()> + Send)>>,
}

impl Server {
    /// Serves a connection to its end.
    pub(super) async fn serve(
        &self,
        mut connection: Box<Connection>,
        limits: Arc<ClientLimits>,
        stop: ShutdownWatch,
    ) {
        let until = Instant::now() + FIRST_SILENCE_MAX.min(limits.idle_timeout);
        let mut watch = stop.clone();
        let told = pin!(async move {
            // Who would tell is gone only together with all connections.
            let _ = watch.wait_for(|stop| *stop).await;
        });
        let mut patience =
            Patience { limits: &limits, until, timer: pin!(sleep_until(until)), stop: Some(told) };
        let http2 = match patience.speaks_http2(&mut connection).await {
            Ok(Some(http2)) => http2,
            // Closed or silent: there is nobody to answer.
            Ok(None) | Err(_) => return,
        };
        if http2 {
            connection.take_turns();
            let app = Arc::new(Http2::new(self, limits.clone()));
            app.process_new(connection.into_stream(), &stop).await;
        } else {
            self.http1(connection, patience, &stop).await;
        }
    }

    async fn http1(&self, mut connection: Box<Connection>, mut patience: Patience<'_>, stop: &ShutdownWatch) {
        let mut kept: Option<HttpPersistentSettings> = None;
        loop {
            let head = match patience.request(&mut connection).await {
                Ok(Heard::Request(head)) => head,
                Ok(Heard::Nothing) | Err(_) => return,
                Ok(Heard::Refused(refusal, why)) => {
                    connection.place().turn_away(why);
                    return refuse(connection, refusal).await;
                }
            };
            let mut session = ServerSession::new_http1(connection.into_stream());
            if let Some(kept) = kept.take() {
                kept.apply_to_session(&mut session);
            }
            session.set_read_timeout(Some(patience.limits.silence_timeout));
            // What a client sends behind its request does not break that off: the connection closes behind the answer. Where it comes
            // together with the request, it always does.
            session.set_pipelining_enabled(true);
            // Pingora parses what is there before it reads on: nothing is copied.
            session.set_pipelined_prefix(head);
            let Some(reused) = self.proxy.process_new_http(session, stop).await else { return };
            let (stream, settings) = reused.consume();
            let Some(back) = Connection::back(stream) else { return };
            (connection, kept) = (back, settings);
            patience.until = Instant::now() + patience.limits.idle_timeout;
        }
    }
}

impl Patience<'_> {
    /// Whether the client begins with HTTP/2; `None` if it begins with nothing.
    async fn speaks_http2(&mut self, connection: &mut Connection) -> io::Result<Option<bool>> {
        let start = match connection.agreed_on_http2() {
            Some(false) => return Ok(Some(false)),
            Some(true) => PREFACE.len(),
            None if self.something(connection).await? => PREFACE_START,
            None => return Ok(None),
        };
        let looking = async {
            look(connection, start).await?;
            let maybe = connection.unread().starts_with(&PREFACE[..PREFACE_START]);
            if maybe {
                // All of it, because Pingora would wait for it without limit.
                look(connection, PREFACE.len()).await?;
            }
            Ok(Some(maybe))
        };
        match timeout(self.limits.header_timeout, looking).await {
            Ok(http2) => http2,
            Err(_) => {
                connection.place().turn_away(TurnedAway::Slow);
                Ok(None)
            }
        }
    }

    /// Waits for the next request.
    async fn request(&mut self, connection: &mut Connection) -> io::Result<Heard> {
        if connection.unread().is_empty() && !self.something(connection).await? {
            return Ok(Heard::Nothing);
        }
        let mut head = pin!(head(connection, self.limits));
        // Nearly every head is there as a whole, and needs no timer.
        if let Poll::Ready(heard) = poll_fn(|cx| Poll::Ready(head.as_mut().poll(cx))).await {
            return heard;
        }
        let slow = |_| Ok(Heard::Refused(Refusal::SlowRequest, TurnedAway::Slow));
        timeout(self.limits.header_timeout, head).await.unwrap_or_else(slow)
    }

    /// Waits until something comes; `false` if nothing does for too long.
    async fn something(&mut self, connection: &Connection) -> io::Result<bool> {
        loop {
            let stopped = async {
                match &mut self.stop {
                    Some(stop) => stop.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                readable = connection.readable() => return readable.map(|()| true),
                () = self.timer.as_mut() => {
                    if Instant::now() >= self.until {
                        return Ok(false);
                    }
                }
                () = stopped => {
                    self.stop = None;
                    self.until = self.until.min(Instant::now() + LAST_REQUEST);
                }
            }
            self.timer.as_mut().reset(self.until);
        }
    }
}

async fn look(connection: &mut Connection, len: usize) -> io::Result<()> {
    while connection.unread().len() < len {
        if connection.more().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// The head of a request, of which something has come.
async fn head(connection: &mut Connection, limits: &ClientLimits) -> io::Result<Heard> {
    let refused = Heard::Refused(Refusal::HeadTooLarge, TurnedAway::HeadTooLarge);
    let (mut scan, mut skipped) = (Scan::default(), 0);
    loop {
        let unread = connection.unread();
        if scan.is_at_start() {
            let blank = blank(unread);
            unread.advance(blank);
            skipped += blank;
        }
        match scan.look(unread) {
            Found::End { len, headers } if len > limits.head_max || headers > limits.headers_max => {
                return Ok(refused);
            }
            Found::End { .. } => return Ok(Heard::Request(std::mem::take(unread))),
            Found::Part if skipped + unread.len() >= limits.head_max => return Ok(refused),
            Found::Part => {}
        }
        if connection.more().await? == 0 {
            return Ok(Heard::Nothing);
        }
    }
}

/// Answers what is no request, and ends the connection.
async fn refuse(mut connection: Box<Connection>, refusal: Refusal) {
    let goodbye = async {
        connection.write_all(&refusal.as_bytes()).await?;
        AsyncWriteExt::shutdown(&mut connection).await?;
        let mut left = LINGER_BYTES;
        loop {
            connection.unread().clear();
            let read = connection.more().await?;
            if read == 0 || read > left {
                return Ok::<_, io::Error>(());
            }
            left -= read;
        }
    };
    // Whether it was heard is the client's affair.
    let _ = timeout(LINGER_TIME, goodbye).await;
}

/// The proxy, as Pingora's HTTP/2 server calls it.
struct Http2 {
    proxy: Arc<HttpProxy<Handler>>,
    meter: Arc<ConnectionMeter>,
    limits: Arc<ClientLimits>,
    options: HttpServerOptions,
}

impl Http2 {
    fn new(server: &Server, limits: Arc<ClientLimits>) -> Http2 {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        options.h2_idle_timeout = Some(limits.idle_timeout);
        Http2 { proxy: server.proxy.clone(), meter: server.meter.clone(), limits, options }
    }
}

#[async_trait]
impl HttpServerApp for Http2 {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.req_header().headers.len() > self.limits.headers_max {
            self.meter.turn_away(TurnedAway::HeadTooLarge);
            let refusal = Refusal::HeadTooLarge;
            // The stream ends with it; whether it was heard is the client's affair.
            let _ = session.respond_error_with_body(refusal.status(), refusal.body()).await;
            return None;
        }
        self.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        // Options of one's own begin without limits.
        let mut options = default_h2_options();
        options.max_header_list_size(u32::try_from(self.limits.head_max).unwrap_or(u32::MAX));
        options.max_concurrent_streams(self.limits.streams_max);
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
