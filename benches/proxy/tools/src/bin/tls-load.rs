//! Asks for one GET on each connection over TLS, and opens the next one when it is answered, for a fixed time. One line of JSON on
//! standard output; exit code 1 when an answer was wrong.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use proxy_bench_tools::{Spread, answer::is_whole_receipt, monotonic_ns, tls};
use rustls::HandshakeKind;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// Longest time that a connection may take, from the attempt to open it to its end.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// A bounded load of TLS handshakes, each full, with one request.
#[derive(Parser, Clone, Copy)]
struct Args {
    /// Address of the proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Connections open at the same time.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// How long connections are opened, in seconds.
    #[arg(long)]
    seconds: u64,
}

#[derive(Serialize)]
struct Report {
    requests: usize,
    seconds: f64,
    failed: u64,
    failure: Option<String>,
    /// From the attempt to connect to the last byte of the answer, in microseconds.
    request_us: Spread,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let args = Args::parse();
    let connector = tls::connector("http/1.1")?;
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for _ in 0..args.connections {
        clients.spawn(client(args.target, connector.clone(), end));
    }
    let (mut times_ns, mut failed, mut failure) = (Vec::new(), 0, None);
    for (seen, result) in clients.join_all().await {
        times_ns.extend(seen);
        if let Err(reason) = result {
            failed += 1;
            failure.get_or_insert(reason);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let report =
        Report { requests: times_ns.len(), seconds, failed, failure, request_us: Spread::of(times_ns) };
    println!("{}", serde_json::to_string(&report)?);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One connection after the other until `end`: how long each took, and why it ended earlier, if it did.
async fn client(target: SocketAddr, connector: TlsConnector, end: Instant) -> (Vec<u64>, Result<(), String>) {
    let mut times_ns = Vec::new();
    while Instant::now() < end {
        match timeout(CONNECTION_MAX, connection(target, &connector)).await {
            Ok(Ok(ns)) => times_ns.push(ns),
            Ok(Err(reason)) => return (times_ns, Err(reason)),
            Err(_) => return (times_ns, Err(format!("a connection took longer than {CONNECTION_MAX:?}"))),
        }
    }
    (times_ns, Ok(()))
}

/// Opens a connection, asks once, and waits until the proxy closes it. Nanoseconds until the answer was whole.
async fn connection(target: SocketAddr, connector: &TlsConnector) -> Result<u64, String> {
    let text = |error: std::io::Error| error.to_string();
    let began_ns = monotonic_ns().map_err(text)?;
    let stream = TcpStream::connect(target).await.map_err(|error| format!("no connection: {error}"))?;
    stream.set_nodelay(true).map_err(text)?;
    let name = ServerName::try_from(tls::SERVER_NAME).map_err(|error| error.to_string())?;
    let mut stream =
        connector.connect(name, stream).await.map_err(|error| format!("no handshake: {error}"))?;
    if stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Full) {
        return Err(format!("expected a full handshake, got {:?}", stream.get_ref().1.handshake_kind()));
    }
    let request = format!("GET / HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| format!("could not send a request: {error}"))?;
    let mut answer = Vec::with_capacity(1024);
    while !is_whole_receipt(&answer)? {
        if stream.read_buf(&mut answer).await.map_err(|error| format!("an answer broke: {error}"))? == 0 {
            return Err(format!("a connection was closed after {} bytes of an answer", answer.len()));
        }
    }
    let whole_ns = monotonic_ns().map_err(text)?;
    // Some proxies say goodbye over TLS, some only close: either is an end.
    while stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
    is_whole_receipt(&answer)?;
    Ok(whole_ns.saturating_sub(began_ns))
}
