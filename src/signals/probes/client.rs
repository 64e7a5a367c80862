//! One probe: resolve, connect, shake hands, ask.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
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
    model::{Backend, Endpoint, Protocol},
    signals::{resolve::Lookup, task::OwnedTask},
};

/// How a probe introduces itself.
const USER_AGENT: &str = concat!("tradewind/", env!("CARGO_PKG_VERSION"), " probe");

/// Largest response header that a probe reads. A health check needs far less; more is an attack on this process.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// What a successful probe measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timing {
    /// TCP and TLS.
    pub(super) connect: Duration,
    /// From the start of the connection to the header of the answer; `None` when only connecting.
    pub(super) first_byte: Option<Duration>,
}

/// What to probe, made ready once.
pub(super) struct Target {
    endpoint: Endpoint,
    protocol: Protocol,
    path: Option<String>,
    timeout: Duration,
    tls: Option<Result<(TlsConnector, ServerName<'static>), String>>,
}

impl Target {
    /// May read the system's certificates: call it where blocking is allowed.
    pub(super) fn new(backend: &Backend) -> Target {
        Target {
            endpoint: backend.endpoint.clone(),
            protocol: backend.protocol,
            path: backend.probe.path.clone(),
            timeout: backend.probe.timeout,
            tls: backend.endpoint.tls.then(|| tls(backend)),
        }
    }

    /// Probes once. The timeout covers everything, resolving included.
    ///
    /// # Errors
    /// What failed and how, in a few words for a status line.
    pub(super) async fn probe(&self, lookup: &mut Lookup) -> Result<Timing, String> {
        let deadline = Instant::now() + self.timeout;
        let addresses = lookup.addresses(&self.endpoint, deadline).await?;
        let (tcp, started) = self.connect(&addresses, deadline).await?;
        let Some(tls) = &self.tls else {
            let connect = started.elapsed();
            let http2 = self.protocol == Protocol::Http2;
            return self.ask(tcp, http2, started, connect, deadline).await;
        };
        let (connector, name) = tls.as_ref().map_err(Clone::clone)?;
        let handshake = connector.connect(name.clone(), tcp);
        let stream = self
            .within(deadline, "in the TLS handshake", handshake)
            .await?
            .map_err(|error| format!("TLS handshake: {error}"))?;
        let connect = started.elapsed();
        let http2 = self.agreed_on_http2(&stream)?;
        self.ask(stream, http2, started, connect, deadline).await
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
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
        started: Instant,
        connect: Duration,
        deadline: Instant,
    ) -> Result<Timing, String> {
        let Some(path) = &self.path else { return Ok(Timing { connect, first_byte: None }) };
        let waiting_for = format!("waiting for the answer to GET {path}");
        let status = self.within(deadline, &waiting_for, self.get(path, stream, http2)).await??;
        if !status.is_success() {
            return Err(format!("HTTP {} to GET {path}", status.as_u16()));
        }
        Ok(Timing { connect, first_byte: Some(started.elapsed()) })
    }

    async fn get(
        &self,
        path: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http2: bool,
    ) -> Result<StatusCode, String> {
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
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| format!("GET {path}: {error}"))?;
        let io = TokioIo::new(stream);
        // Dropped with this future, whatever becomes of it: the connection serves one probe.
        let _connection;
        let response = if http2 {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(HEADER_BYTES_MAX as u32);
            let (mut sender, connection) = builder.handshake(io).await.map_err(failed)?;
            _connection = OwnedTask::spawn(async move {
                let _ = connection.await;
            });
            sender.send_request(request).await
        } else {
            let mut builder = hyper::client::conn::http1::Builder::new();
            builder.max_buf_size(HEADER_BYTES_MAX);
            let (mut sender, connection) = builder.handshake(io).await.map_err(failed)?;
            _connection = OwnedTask::spawn(async move {
                let _ = connection.await;
            });
            sender.send_request(request).await
        };
        Ok(response.map_err(failed)?.status())
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

fn tls(backend: &Backend) -> Result<(TlsConnector, ServerName<'static>), String> {
    let host = &backend.endpoint.host;
    let name = ServerName::try_from(host.clone())
        .map_err(|error| format!("TLS: `{host}` cannot be in a certificate: {error}"))?;
    let roots = if backend.ca.is_empty() { system_roots()? } else { own_roots(&backend.ca)? };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // What traffic would offer, so that the probe takes the same way.
    config.alpn_protocols = match backend.protocol {
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
