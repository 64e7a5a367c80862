//! HTTP/2 and TLS: a client with prior knowledge, and backends that speak either version, in the clear or over TLS.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::http2::SendRequest,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::DEADLINE;

pub type Content = BoxBody<Bytes, io::Error>;

/// A body that is known as a whole.
pub fn whole(text: &str) -> Content {
    Full::new(Bytes::from(text.to_owned())).map_err(|never: Infallible| match never {}).boxed()
}

/// A body that comes out of a channel; an error in it breaks the stream.
pub fn piped() -> (mpsc::Sender<io::Result<Bytes>>, Content) {
    let (sender, receiver) = mpsc::channel(4);
    (sender, BodyExt::boxed(Piped(receiver)))
}

struct Piped(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Piped {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}

/// Runs what a client does, on a runtime of its own.
pub fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let within = runtime.block_on(async { tokio::time::timeout(DEADLINE, client).await });
    within.expect("the client is answered in time")
}

/// A connection in HTTP/2 with prior knowledge.
pub async fn connect(to: SocketAddr) -> SendRequest<Content> {
    let stream = TcpStream::connect(to).await.expect("there is someone at the address");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("both speak HTTP/2");
    // How the connection ends is seen by the requests on it.
    tokio::spawn(async move { drop(connection.await) });
    sender
}

/// A request to `to`.
pub fn request(method: &str, to: SocketAddr, path: &str, body: Content) -> Request<Content> {
    Request::builder().method(method).uri(format!("http://{to}{path}")).body(body).expect("it is a request")
}

/// All of a body, as text.
pub async fn text(body: Incoming) -> String {
    let bytes = body.collect().await.expect("the body is complete").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A certificate authority for one test, and a server certificate of it.
pub struct Authority {
    pub ca_pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    chain: Vec<rustls::pki_types::CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    /// Issues a certificate for `localhost` and 127.0.0.1.
    pub fn new() -> Authority {
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test");
        let ca = params.self_signed(&ca_key).expect("a certificate");
        let issuer = rcgen::Issuer::new(params, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let leaf = rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate");
        let (chain, key) = (vec![leaf.der().clone()], key.serialize_der());
        Authority { ca_pem: ca.pem(), issuer, chain, key }
    }

    /// A certificate for these names, and its key, in PEM.
    pub fn issue(&self, names: &[&str]) -> (String, String) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// Writes such a certificate as `NAME.crt` and its key as `NAME.key`.
    pub fn write_pair(&self, dir: &Path, name: &str, names: &[&str]) {
        let (cert, key) = self.issue(names);
        super::put(dir, &format!("{name}.crt"), &cert);
        super::put(dir, &format!("{name}.key"), &key);
    }

    /// Writes the authority's certificate, for `ca = "FILE"`.
    pub fn write(&self, dir: &Path, name: &str) {
        super::put(dir, name, &self.ca_pem);
    }

    fn server(&self, alpn: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("it is a key");
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the versions are known")
                .with_no_client_auth()
                .with_single_cert(self.chain.clone(), key)
                .expect("key and certificate fit");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

type Handler = dyn Fn(Request<Incoming>) -> Response<Content> + Send + Sync;

/// A backend on hyper, on a runtime of its own.
pub struct ModernBackend {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    runtime: Option<Runtime>,
}

/// What a backend speaks.
pub enum Speaks {
    /// HTTP/2 in the clear.
    H2c,
    /// TLS, with these protocols in ALPN.
    Tls(Arc<ServerConfig>),
}

impl Speaks {
    /// TLS with a certificate of `authority`.
    pub fn tls(authority: &Authority, alpn: &[&str]) -> Speaks {
        Speaks::Tls(authority.server(alpn))
    }
}

impl ModernBackend {
    /// Answers as `handler` says. Probes are answered before it and not counted.
    pub fn serving(
        speaks: Speaks,
        handler: impl Fn(Request<Incoming>) -> Response<Content> + Send + Sync + 'static,
    ) -> ModernBackend {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener =
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::new(AtomicU64::new(0));
        let (counted, handler): (_, Arc<Handler>) = (requests.clone(), Arc::new(handler));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, handler) = (counted.clone(), handler.clone());
                match &speaks {
                    Speaks::H2c => _ = tokio::spawn(serve(stream, true, requests, handler)),
                    Speaks::Tls(config) => {
                        let acceptor = TlsAcceptor::from(config.clone());
                        tokio::spawn(async move {
                            // A client that does not trust the certificate ends here.
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            serve(stream, http2, requests, handler).await;
                        });
                    }
                }
            }
        });
        ModernBackend { address, requests, runtime: Some(runtime) }
    }

    /// Answers with the version of HTTP and the authority that it was asked for.
    pub fn echoing(speaks: Speaks) -> ModernBackend {
        ModernBackend::serving(speaks, |request| {
            let host = request.headers().get("host").and_then(|host| host.to_str().ok());
            let authority =
                request.uri().authority().map(|authority| authority.as_str()).or(host).unwrap_or("none");
            Response::new(whole(&format!("{:?} {authority}", request.version())))
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that arrived, without probes.
    pub fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }
}

impl Drop for ModernBackend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    requests: Arc<AtomicU64>,
    handler: Arc<Handler>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let probe = request.uri().path() == "/health";
        requests.fetch_add(u64::from(!probe), SeqCst);
        let response = if probe { Response::new(whole("")) } else { handler(request) };
        async move { Ok::<_, Infallible>(response) }
    });
    // How a connection ends is seen on the other side.
    if http2 {
        drop(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
    } else {
        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    }
}
