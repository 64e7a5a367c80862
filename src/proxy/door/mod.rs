//! Connections of clients: accepts them, counts them, terminates TLS, takes a PROXY header's word, ends them.
//!
//! Read in this order: this file (the life of a connection), [`caps`] (how many there may be), [`proxy_protocol`] (for whom one
//! is), [`tls`] (which certificate it gets), [`socket`] and [`connection`] (its bytes, as they are and as Pingora sees them), [`head`] and [`serve`] (what is spoken on it).

mod caps;
mod connection;
mod head;
mod pace;
mod proxy_protocol;
pub(super) mod serve;
mod socket;
mod tls;

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::{Buf, BytesMut};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{caps::Caps, connection::Connection, serve::Server, socket::Socket, tls::Tls};
use super::handler::Handler;
use crate::{
    model::{ClientLimits, TlsSpec, Trust},
    signals::connections::{ConnectionMeter, TurnedAway},
};

/// Pause after a failed accept: the usual cause, no free file descriptor, does not go away by asking at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A client that is gone without a word is noticed after about two minutes, also while an answer is on its way to it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 6;

/// What holds for new connections. It may be replaced while they come.
#[derive(Debug)]
pub struct Door {
    limits: ArcSwap<ClientLimits>,
    trust: ArcSwap<Trust>,
    tls: ArcSwapOption<Tls>,
    caps: Arc<Caps>,
    meter: Arc<ConnectionMeter>,
}

impl Door {
    /// A door that counts on `meter`.
    ///
    /// # Errors
    /// When a certificate cannot be used.
    pub fn new(
        meter: Arc<ConnectionMeter>,
        limits: &ClientLimits,
        trust: &Trust,
        tls: Option<&TlsSpec>,
    ) -> io::Result<Door> {
        Ok(Door {
            limits: ArcSwap::from_pointee(limits.clone()),
            trust: ArcSwap::from_pointee(trust.clone()),
            tls: ArcSwapOption::new(tls.map(|spec| Tls::new(spec, None).map(Arc::new)).transpose()?),
            caps: Arc::new(Caps::new(meter.clone())),
            meter,
        })
    }

    /// Connections that come from now on are treated so; those that are open go on as they are.
    ///
    /// # Errors
    /// When a certificate cannot be used. Nothing has changed then.
    pub fn update(&self, limits: &ClientLimits, trust: &Trust, tls: Option<&TlsSpec>) -> io::Result<()> {
        let before = self.tls.load_full();
        if before.as_ref().map(|tls| &tls.spec) != tls {
            let tls = tls.map(|spec| Tls::new(spec, before.as_deref()).map(Arc::new)).transpose()?;
            self.tls.store(tls);
        }
        self.limits.store(Arc::new(limits.clone()));
        self.trust.store(Arc::new(trust.clone()));
        Ok(())
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.meter.open()
    }
}

/// Whether a listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// Accepts connections and serves them.
#[derive(Clone)]
pub(super) struct Reception {
    door: Arc<Door>,
    server: Arc<Server>,
    stop: ShutdownWatch,
}

impl Reception {
    pub(super) fn new(door: Arc<Door>, proxy: Arc<HttpProxy<Handler>>, stop: ShutdownWatch) -> Reception {
        let server = Arc::new(Server { proxy, meter: door.meter.clone() });
        Reception { door, server, stop }
    }

    /// Accepts until the process is told to stop, and what had come until then.
    pub(super) async fn accept(self, listener: TcpListener, scheme: Scheme) {
        if let Err(error) = prepare(&listener) {
            tracing::warn!(%error, "connections are not set up as they should be");
        }
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => break,
                accepted = listener.accept() => match accepted {
                    Ok((tcp, peer)) => self.open(tcp, peer, scheme),
                    // That one client was gone before it was accepted.
                    Err(error) if is_of_one(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                },
            }
        }
        // Closing the socket resets what waits in its queue.
        while let Some(Ok((tcp, peer))) = now_or_never(&listener).await {
            self.open(tcp, peer, scheme);
        }
    }

    fn open(&self, tcp: TcpStream, peer: SocketAddr, scheme: Scheme) {
        let limits = self.door.limits.load_full();
        let Some(place) = self.door.caps.enter(&limits) else { return };
        let socket = Socket::new(tcp, place, limits.silence_timeout);
        let this = self.clone();
        tokio::spawn(async move {
            // In a box, because a handshake needs far more room than what follows it.
            let begun = Box::pin(this.begin(socket, peer, scheme, &limits));
            let connection = match timeout(limits.header_timeout, begun).await {
                Ok(connection) => connection,
                Err(_) => {
                    this.door.meter.turn_away(TurnedAway::Slow);
                    return;
                }
            };
            if let Some(connection) = connection {
                this.server.serve(connection, limits, this.stop.clone()).await;
            }
        });
    }

    /// What comes before any request.
    async fn begin(
        &self,
        mut socket: Socket,
        peer: SocketAddr,
        scheme: Scheme,
        limits: &ClientLimits,
    ) -> Option<Box<Connection>> {
        let trust = self.door.trust.load();
        let mut client = peer;
        if trust.proxy_protocol && trust.includes(peer.ip()) {
            match introduction(&mut socket).await {
                Ok(said) => client = said.unwrap_or(peer),
                Err(why) => {
                    socket.place().turn_away(TurnedAway::ProxyHeader);
                    tracing::debug!(%peer, "a connection was refused: its PROXY header: {why}");
                    return None;
                }
            }
        }
        drop(trust);
        client.set_ip(client.ip().to_canonical());
        if !socket.place().take_for(client.ip(), limits) {
            return None;
        }
        if scheme == Scheme::Http {
            return Some(Box::new(Connection::plain(socket, client)));
        }
        let tls = self.door.tls.load_full()?;
        socket.read_ahead();
        match TlsAcceptor::from(tls.config.clone()).accept(socket).await {
            Ok(stream) => Some(Box::new(Connection::tls(stream, client))),
            Err(error) => {
                self.door.meter.turn_away(TurnedAway::Handshake);
                tracing::debug!(%client, %error, "a TLS handshake failed");
                None
            }
        }
    }
}

/// Waits until the process is told to stop. Who would tell is gone only together with all that listens.
async fn told(stop: &mut ShutdownWatch) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// For whom a load balancer connects, by its PROXY header; `None` if for itself.
async fn introduction(socket: &mut Socket) -> Result<Option<SocketAddr>, String> {
    loop {
        if let Some(header) = proxy_protocol::parse(socket.ahead())? {
            let ahead = socket.ahead();
            ahead.advance(header.len);
            if ahead.is_empty() {
                *ahead = BytesMut::new();
            }
            return Ok(header.client);
        }
        match poll_fn(|cx| socket.poll_fill(cx)).await {
            Ok(0) => return Err("the connection ended within it".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Options of a listener that its connections inherit: so they need no calls of their own.
fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    // Without it the last part of an answer waits for the client's delayed acknowledgement.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Whether a failed accept says nothing about the next one.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

/// A connection that waits already.
async fn now_or_never(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    poll_fn(|cx| {
        Poll::Ready(match listener.poll_accept(cx) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        })
    })
    .await
}
