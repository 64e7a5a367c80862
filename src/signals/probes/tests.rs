//! Probes against real sockets on this machine.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::ProbeBoard;
use crate::{
    model::{Backend, BackendId, Health, Protocol, Timestamp},
    signals::{fixture, task::OwnedTask},
};

const LIMIT: Duration = Duration::from_secs(20);

/// A server that answers `status` to a GET of `/health` that names its host and its author, and 400 to anything else.
struct Server {
    port: u16,
    status: Arc<AtomicU16>,
    probes: Arc<AtomicUsize>,
    ca: Vec<u8>,
    _task: OwnedTask,
}

#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    Http1,
    Http2,
    Tls(&'static [&'static str]),
}

async fn serve(speaks: Speaks) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (status, probes) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let ca = key.cert.der().to_vec();
    let acceptor = if let Speaks::Tls(alpn) = speaks { Some(acceptor(&key, alpn)) } else { None };
    let (says, count) = (status.clone(), probes.clone());
    let task = OwnedTask::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (acceptor, says, count) = (acceptor.clone(), says.clone(), count.clone());
            tokio::spawn(async move {
                match acceptor {
                    None => answer(tcp, speaks == Speaks::Http2, port, says, count).await,
                    Some(acceptor) => {
                        let Ok(stream) = acceptor.accept(tcp).await else { return };
                        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        answer(stream, http2, port, says, count).await;
                    }
                }
            });
        }
    });
    Server { port, status, probes, ca, _task: task }
}

fn acceptor(key: &rcgen::CertifiedKey<rcgen::KeyPair>, alpn: &[&str]) -> TlsAcceptor {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    port: u16,
    status: Arc<AtomicU16>,
    probes: Arc<AtomicUsize>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        probes.fetch_add(1, Ordering::SeqCst);
        let host = match request.uri().authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => request.headers()["host"].to_str().unwrap().to_owned(),
        };
        let author = request.headers()["user-agent"].to_str().unwrap();
        let expected = request.uri().path() == "/health"
            && host.ends_with(&format!(":{port}"))
            && author.starts_with("tradewind/")
            && author.ends_with(" probe");
        let code = if expected { status.load(Ordering::SeqCst) } else { 400 };
        let mut response = Response::new(Full::new(Bytes::from_static(b"ok")));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    let io = TokioIo::new(stream);
    if http2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

fn backend(scheme: &str, host: &str, port: u16, change: impl FnOnce(&mut Backend)) -> Arc<Backend> {
    let mut backend = (*fixture::backend("a", scheme, host, port)).clone();
    change(&mut backend);
    Arc::new(backend)
}

fn a() -> BackendId {
    "a".parse().unwrap()
}

fn health(board: &ProbeBoard) -> Health {
    board.view(&a(), Timestamp::now()).0
}

async fn until(board: &ProbeBoard, wanted: Health) {
    let mut changes = board.changes();
    let reached = changes.wait_for(|_| health(board) == wanted);
    if timeout(LIMIT, reached).await.is_err() {
        panic!("{wanted:?} was not reached: {:?}, {:?}", health(board), board.last_error(&a()));
    }
}

/// What becomes of a backend that is probed, and why.
async fn outcome(backend: Arc<Backend>) -> (Health, Option<Arc<str>>, ProbeBoard) {
    let board = ProbeBoard::new();
    board.reconcile(&[backend]);
    let mut changes = board.changes();
    timeout(LIMIT, changes.wait_for(|_| board.all_known())).await.expect("a probe in time").unwrap();
    (health(&board), board.last_error(&a()), board)
}

async fn error(backend: Arc<Backend>) -> String {
    let (health, error, _) = outcome(backend).await;
    assert_eq!(health, Health::Unhealthy);
    error.unwrap().to_string()
}

#[tokio::test]
async fn a_backend_that_answers_2xx_is_healthy_whatever_it_speaks() {
    let plain = serve(Speaks::Http1).await;
    let h2c = serve(Speaks::Http2).await;
    let tls1 = serve(Speaks::Tls(&["http/1.1"])).await;
    let tls2 = serve(Speaks::Tls(&["h2"])).await;
    let silent = serve(Speaks::Tls(&[])).await;
    for backend in [
        backend("http", "127.0.0.1", plain.port, |_| ()),
        backend("http", "localhost", plain.port, |_| ()),
        backend("http", "127.0.0.1", h2c.port, |b| b.protocol = Protocol::Http2),
        backend("https", "localhost", tls1.port, |b| b.tls.ca = vec![tls1.ca.clone()]),
        backend("https", "127.0.0.1", tls2.port, |b| b.tls.ca = vec![tls2.ca.clone()]),
        backend("https", "localhost", silent.port, |b| b.tls.ca = vec![silent.ca.clone()]),
    ] {
        let (health, error, board) = outcome(backend.clone()).await;
        assert_eq!((health, error), (Health::Healthy, None), "{} {:?}", backend.endpoint, backend.protocol);
        let probe = board.view(&a(), Timestamp::now()).1.unwrap();
        assert!(probe.first_byte.unwrap() > probe.connect);
    }
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let server = serve(Speaks::Http1).await;
    let (health, _, board) =
        outcome(backend("http", "127.0.0.1", server.port, |b| b.probe.path = None)).await;
    assert_eq!(health, Health::Healthy);
    assert_eq!(board.view(&a(), Timestamp::now()).1.unwrap().first_byte, None);
    assert_eq!(server.probes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_fails_is_said() {
    let server = serve(Speaks::Http1).await;
    server.status.store(503, Ordering::SeqCst);
    assert_eq!(error(backend("http", "127.0.0.1", server.port, |_| ())).await, "HTTP 503 to GET /health");
    server.status.store(301, Ordering::SeqCst);
    assert_eq!(error(backend("http", "127.0.0.1", server.port, |_| ())).await, "HTTP 301 to GET /health");

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = error(backend("http", "127.0.0.1", free.port(), |_| ())).await;
    assert!(refused.starts_with(&format!("TCP connect to {free}: Connection refused")), "{refused}");

    // Accepts connections (the system does that) and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = mute.local_addr().unwrap().port();
    let short = |b: &mut Backend| b.probe.timeout = Duration::from_millis(50);
    let silent = error(backend("http", "127.0.0.1", port, short)).await;
    assert_eq!(silent, "timed out after 50ms waiting for the answer to GET /health");
    let silent = error(backend("https", "127.0.0.1", port, short)).await;
    assert!(
        silent == "timed out after 50ms in the TLS handshake" || silent.contains("no root certificates"),
        "{silent}"
    );
}

#[tokio::test]
async fn certificates_are_verified() {
    let (server, other) =
        (serve(Speaks::Tls(&["h2", "http/1.1"])).await, serve(Speaks::Tls(&["http/1.1"])).await);
    let stranger =
        error(backend("https", "localhost", server.port, |b| b.tls.ca = vec![other.ca.clone()])).await;
    assert!(stranger.starts_with("TLS handshake: invalid peer certificate"), "{stranger}");
    let garbage =
        error(backend("https", "localhost", server.port, |b| b.tls.ca = vec![b"garbage".to_vec()])).await;
    assert!(garbage.contains("not a certificate"), "{garbage}");
    let http2 = backend("https", "localhost", other.port, |b| {
        b.tls.ca = vec![other.ca.clone()];
        b.protocol = Protocol::Http2;
    });
    assert!(error(http2).await.starts_with("TLS handshake: "));
}

#[tokio::test]
async fn health_follows_the_backend_down_and_up_again() {
    let server = serve(Speaks::Http1).await;
    let board = ProbeBoard::new();
    assert!(board.all_known(), "nothing is unknown of no backends");
    board.reconcile(&[backend("http", "127.0.0.1", server.port, |b| (b.probe.rise, b.probe.fall) = (2, 3))]);
    assert_eq!(health(&board), Health::Unknown);
    until(&board, Health::Healthy).await;
    server.status.store(500, Ordering::SeqCst);
    until(&board, Health::Unhealthy).await;
    assert_eq!(board.last_error(&a()).as_deref(), Some("HTTP 500 to GET /health"));
    server.status.store(200, Ordering::SeqCst);
    until(&board, Health::Healthy).await;
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_the_same_backend() {
    let server = serve(Speaks::Http1).await;
    let same = backend("http", "127.0.0.1", server.port, |b| b.probe.interval = Duration::from_secs(600));
    let (_, _, board) = outcome(same.clone()).await;
    let before = board.view(&a(), Timestamp::now());
    board.reconcile(&[backend("http", "127.0.0.1", server.port, |b| {
        b.probe.interval = Duration::from_secs(600);
        b.egress_usd_per_gb = Some(9.0);
    })]);
    assert_eq!(board.view(&a(), Timestamp::now()), before, "no probe of its own");
    board.reconcile(&[backend("http", "127.0.0.1", server.port, |b| b.probe.fall = 7)]);
    assert_eq!(health(&board), Health::Healthy, "the health is that of the same place");
    board.reconcile(&[backend("http", "localhost", server.port, |_| ())]);
    assert_eq!(health(&board), Health::Unknown, "another place");
    until(&board, Health::Healthy).await;
    board.reconcile(&[]);
    assert_eq!(health(&board), Health::Unknown);
}
