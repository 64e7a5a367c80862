//! Opens streams at the same time, again and again on the same connections, checks every one and says how long the first
//! event and each event took. One line of JSON on standard output; exit code 1 when a stream was wrong.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use proxy_bench_tools::{SSE_PATH, Spread, stream};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A bounded load of server-sent event streams.
#[derive(Parser, Clone, Copy)]
struct Args {
    /// Address of the proxy, or of the backend itself.
    #[arg(long)]
    target: SocketAddr,
    /// Streams open at the same time, each on a connection of its own.
    #[arg(long, default_value_t = 200)]
    streams: u32,
    /// Streams that each connection asks for, one after the other.
    #[arg(long, default_value_t = 1)]
    each: u32,
    /// Events that a stream must have.
    #[arg(long, default_value_t = 64)]
    chunks: u64,
    /// Time over which the connections start, in milliseconds, so that not all chunks come in the same instant.
    #[arg(long, default_value_t = 5)]
    stagger_ms: u64,
    /// Longest time that one stream may take, in seconds.
    #[arg(long, default_value_t = 10)]
    timeout_s: u64,
}

/// What is known of the streams of one connection.
#[derive(Default)]
struct Seen {
    streams: u64,
    events: u64,
    chunks: u64,
    first_ns: Vec<u64>,
    delay_ns: Vec<u64>,
    stream_ns: Vec<u64>,
    /// Streams whose first event arrived before their last one was sent.
    streamed: u64,
}

#[derive(Serialize)]
struct Report {
    streams: u64,
    events: u64,
    /// HTTP chunks: fewer than events where a proxy puts some together.
    http_chunks: u64,
    streamed: u64,
    failed: u64,
    failure: Option<String>,
    /// From the request to its first event, in microseconds.
    first_event_us: Spread,
    /// From the backend's sending of an event to its arrival, in microseconds.
    event_delay_us: Spread,
    /// From the request to the end of the answer, in microseconds.
    stream_us: Spread,
}

fn main() -> std::io::Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(all(args));
    println!("{}", serde_json::to_string(&report)?);
    Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn all(args: Args) -> Report {
    let mut connections = JoinSet::new();
    for number in 0..args.streams {
        connections.spawn(async move {
            let start = Duration::from_millis(args.stagger_ms) * number / args.streams;
            sleep(start).await;
            let mut seen = Seen::default();
            let result = connection(args, &mut seen).await;
            (seen, result)
        });
    }
    let (mut sum, mut failed, mut failure) = (Seen::default(), 0, None);
    while let Some(joined) = connections.join_next().await {
        let result = match joined {
            Ok((seen, result)) => {
                sum.add(seen);
                result
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = result {
            failed += 1;
            failure.get_or_insert(reason);
        }
    }
    sum.report(failed, failure)
}

async fn connection(args: Args, seen: &mut Seen) -> Result<(), String> {
    let limit = Duration::from_secs(args.timeout_s);
    let mut stream =
        TcpStream::connect(args.target).await.map_err(|error| format!("no connection: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    for _ in 0..args.each {
        let late = |_| format!("a stream took longer than {} s", args.timeout_s);
        timeout(limit, one_stream(&mut stream, args, seen)).await.map_err(late)??;
    }
    Ok(())
}

async fn one_stream(stream: &mut TcpStream, args: Args, seen: &mut Seen) -> Result<(), String> {
    let shown = stream::ask(stream, args.target, SSE_PATH, args.chunks, &mut seen.delay_ns).await?;
    seen.streams += 1;
    seen.events += args.chunks;
    seen.chunks += shown.http_chunks;
    seen.streamed += u64::from(shown.first_ns < shown.last_sent_ns);
    seen.first_ns.push(shown.first_ns.saturating_sub(shown.asked_ns));
    seen.stream_ns.push(shown.ended_ns.saturating_sub(shown.asked_ns));
    Ok(())
}

impl Seen {
    fn add(&mut self, other: Seen) {
        self.streams += other.streams;
        self.events += other.events;
        self.chunks += other.chunks;
        self.streamed += other.streamed;
        self.first_ns.extend(other.first_ns);
        self.delay_ns.extend(other.delay_ns);
        self.stream_ns.extend(other.stream_ns);
    }

    fn report(self, failed: u64, failure: Option<String>) -> Report {
        Report {
            streams: self.streams,
            events: self.events,
            http_chunks: self.chunks,
            streamed: self.streamed,
            failed,
            failure,
            first_event_us: Spread::of(self.first_ns),
            event_delay_us: Spread::of(self.delay_ns),
            stream_us: Spread::of(self.stream_ns),
        }
    }
}
