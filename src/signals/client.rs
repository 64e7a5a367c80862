//! One GET over a connection of its own: resolve, connect, shake hands, ask. For what is asked beside the traffic: probes,
//! reports of load.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    model::{Endpoint, Protocol},
    signals::{resolve::Lookup, task::OwnedTask},
};

/// How it introduces itself.
const USER_AGENT: &str = concat!("tradewind/", env!("CARGO_PKG_VERSION"), " probe");

/// Largest response header that is read. A health check needs far less; more is an attack on this process.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// How much of an answer's body is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Nothing: the header says it all.
    Unread,
    /// All of it, at most so many bytes.
    UpTo(usize),
}

/// An answer, and the times until it came.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// TCP and TLS.
    pub(super) connect: Duration,
    /// From the start of the connection to the header of the answer.
    pub(super) first_byte: Duration,
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body; empty if it was not to be read.
    pub(super) body: Bytes,
}

/// When a connection began, how long it took, and until when all must be done.
struct Times {
    started: Instant,
    connect: Duration,
    deadline: Instant,
}

/// Whom to ask, made ready once.
pub(super) struct Client {
    endpoint: Endpoint,
    protocol: Protocol,
    timeout: Duration,
    tls: Option<Result<(TlsConnector, ServerName<'static>), String>>,
}

impl Client {
    /// `ca`: certificates (DER) that the server's must chain to; empty for the system's. May read those: call it where
    /// blocking is allowed.
    pub(super) fn new(endpoint: &Endpoint, protocol: Protocol, ca: &[Vec<u8>], timeout: Duration) -> Client {
        Client {
            endpoint: endpoint.clone(),
            protocol,
            timeout,
            tls: endpoint.tls.then(|| tls(endpoint, protocol, ca)),
        }
    }

    /// Connects and shakes hands, and nothing else. The timeout covers everything, resolving included.
    ///
    /// # Errors
    /// What failed and how, in a few words for a status line.
    pub(super) async fn reach(&self, lookup: &mut Lookup) -> Result<Duration, String> {
        let deadline = Instant::now() + self.timeout;
        let (tcp, started) = self.open(lookup, deadline).await?;
        if self.tls.is_some() {
            self.shake_hands(tcp, deadline).await?;
        }
        Ok(started.elapsed())
    }

    /// Asks for `path`. The timeout covers everything, from resolving to the last byte of the body.
    ///
    /// # Errors
    /// As for [`reach`](Self::reach); also when the body is longer than it may be. A status is no error.
    pub(super) async fn get(&self, path: &str, body: Body, lookup: &mut Lookup) -> Result<Reply, String> {
        self.get_as(None, path, body, lookup).await
    }

    /// As [`get`](Self::get), shown this as `authorization`.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub(super) async fn get_as(
        &self,
        shown: Option<HeaderValue>,
        path: &str,
        body: Body,
        lookup: &mut Lookup,
    ) -> Result<Reply, String> {
        let deadline = Instant::now() + self.timeout;
        let (tcp, started) = self.open(lookup, deadline).await?;
        if self.tls.is_none() {
            let http2 = self.protocol == Protocol::Http2;
            let times = Times { started, connect: started.elapsed(), deadline };
            return self.ask(shown, path, body, tcp, http2, times).await;
        }
        let stream = self.shake_hands(tcp, deadline).await?;
        let http2 = self.agreed_on_http2(&stream)?;
        let times = Times { started, connect: started.elapsed(), deadline };
        self.ask(shown, path, body, stream, http2, times).await
    }

    async fn open(&self, lookup: &mut Lookup, deadline: Instant) -> Result<(TcpStream, Instant), String> {
        let addresses = lookup.addresses(&self.endpoint, deadline).await?;
        self.connect(&addresses, deadline).await
    }

    async fn shake_hands(&self, tcp: TcpStream, deadline: Instant) -> Result<TlsStream<TcpStream>, String> {
        let Some(tls) = &self.tls else { return Err("TLS: this endpoint has none".into()) };
        let (connector, name) = tls.as_ref().map_err(Clone::clone)?;
        let handshake = connector.connect(name.clone(), tcp);
        let stream = self
            .within(deadline, "in the TLS handshake", handshake)
            .await?
            .map_err(|error| format!("TLS handshake: {error}"))?;
        self.agreed_on_http2(&stream)?;
        Ok(stream)
    }

    /// The first of `addresses` that accepts a connection, and when connecting to it began.
    async fn connect(
        &self,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<(TcpStream, Instant), String> {
        let mut last_error = String::new();
        for (index, address) in addresses.iter().enumerate() {
            let started = Instant::now();
            // An address that swallows packets must leave time for the others.
            let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(started) / left;
            match timeout_at(started + share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A probe is one small packet; it must not wait for more.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, started));
                }
                Ok(Err(error)) => last_error = format!("TCP connect to {address}: {error}"),
                Err(_) => last_error = format!("{} in the TCP connect to {address}", self.timed_out()),
            }
        }
        Err(last_error)
    }

    fn agreed_on_http2(&self, stream: &TlsStream<TcpStream>) -> Result<bool, String> {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if self.protocol == Protocol::Http2 && !http2 {
            return Err(
                "TLS handshake: the server did not agree to HTTP/2, which this backend is configured for"
                    .into(),
            );
        }
        Ok(http2)
    }

    async fn ask(
        &self,
        shown: Option<HeaderValue>,
        path: &str,
        body: Body,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
        Times { started, connect, deadline }: Times,
    ) -> Result<Reply, String> {
        let waiting_for = format!("waiting for the answer to GET {path}");
        let (response, _connection) =
            self.within(deadline, &waiting_for, self.send(shown, path, stream, http2)).await??;
        let (first_byte, status) = (started.elapsed(), response.status());
        let body = match body {
            Body::Unread => Bytes::new(),
            Body::UpTo(bytes_max) => {
                let reading = format!("in the body of the answer to GET {path}");
                let whole = Limited::new(response.into_body(), bytes_max).collect();
                let whole =
                    self.within(deadline, &reading, whole).await?.map_err(|error| match error
                        .is::<LengthLimitError>()
                    {
                        true => format!("GET {path}: the body is longer than {bytes_max} bytes"),
                        false => format!("GET {path}: {}", chain(&*error)),
                    })?;
                whole.to_bytes()
            }
        };
        Ok(Reply { connect, first_byte, status, body })
    }

    /// The head of the answer, and the connection, which ends when it is dropped: it serves one request.
    async fn send(
        &self,
        shown: Option<HeaderValue>,
        path: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
    ) -> Result<(Response<Incoming>, OwnedTask), String> {
        let failed = |error: hyper::Error| format!("GET {path}: {}", chain(&error));
        let authority = self.endpoint.authority();
        let request = Request::get(if http2 { format!("{}{path}", self.endpoint) } else { path.to_owned() })
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "*/*");
        let request = if http2 {
            request
        } else {
            request.header(header::HOST, authority).header(header::CONNECTION, "close")
        };
        let request = match shown {
            Some(shown) => request.header(header::AUTHORIZATION, shown),
            None => request,
        };
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| format!("GET {path}: {error}"))?;
        let io = TokioIo::new(stream);
        let driver;
        let response = if http2 {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(HEADER_BYTES_MAX as u32);
            let (mut sender, connection) = builder.handshake(io).await.map_err(failed)?;
            driver = OwnedTask::spawn(async move {
                let _ = connection.await;
            });
            sender.send_request(request).await
        } else {
            let mut builder = hyper::client::conn::http1::Builder::new();
            builder.max_buf_size(HEADER_BYTES_MAX);
            let (mut sender, connection) = builder.handshake(io).await.map_err(failed)?;
            driver = OwnedTask::spawn(async move {
                let _ = connection.await;
            });
            sender.send_request(request).await
        };
        Ok((response.map_err(failed)?, driver))
    }

    async fn within<T>(
        &self,
        deadline: Instant,
        doing: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, String> {
        timeout_at(deadline, work).await.map_err(|_| format!("{} {doing}", self.timed_out()))
    }

    fn timed_out(&self) -> String {
        format!("timed out after {:?}", self.timeout)
    }
}

/// An error with its causes: hyper's own text names the layer, the cause says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn tls(
    endpoint: &Endpoint,
    protocol: Protocol,
    ca: &[Vec<u8>],
) -> Result<(TlsConnector, ServerName<'static>), String> {
    let host = &endpoint.host;
    let name = ServerName::try_from(host.clone())
        .map_err(|error| format!("TLS: `{host}` cannot be in a certificate: {error}"))?;
    let roots = if ca.is_empty() { system_roots()? } else { own_roots(ca)? };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // What traffic would offer, so that the probe takes the same way.
    config.alpn_protocols = match protocol {
        Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The system's certificates, read once: there are hundreds.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        Arc::new(store)
    });
    if roots.is_empty() {
        return Err("TLS: the system has no root certificates; install them (ca-certificates), or set the backend's `ca`".into());
    }
    Ok(roots.clone())
}

fn own_roots(ca: &[Vec<u8>]) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    for der in ca {
        store.add(CertificateDer::from(der.as_slice())).map_err(|error| {
            format!("TLS: the backend's `ca` holds something that is not a certificate: {error}")
        })?;
    }
    Ok(Arc::new(store))
}
