//! Opens streams at the same time, again and again on the same connections, checks every one and says how long the first
//! event and each event took. One line of JSON on standard output; exit code 1 when a stream was wrong.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use proxy_bench_tools::answer::Answer;
use proxy_bench_tools::{SSE_PATH, monotonic_ns, read_event};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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

#[derive(Serialize, Default)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
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
    let now = || monotonic_ns().map_err(|error| error.to_string());
    let request =
        format!("GET {SSE_PATH} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", args.target);
    let asked_ns = now()?;
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| format!("could not send a request: {error}"))?;
    let (mut answer, mut events, mut piece) = (Answer::default(), Vec::new(), vec![0; 16 * 1024]);
    let (mut next, mut first_ns, mut last_sent_ns) = (0, 0, 0);
    while !answer.is_complete() {
        let bytes = stream.read(&mut piece).await.map_err(|error| format!("a stream broke: {error}"))?;
        if bytes == 0 {
            return Err(format!("a stream was cut off after {next} of {} events", args.chunks));
        }
        let arrived_ns = now()?;
        answer.receive(&piece[..bytes], &mut events)?;
        for line in events.drain(..) {
            let (index, sent_ns) =
                read_event(&line).ok_or_else(|| format!("not an event of the backend: `{line}`"))?;
            if index != next {
                return Err(format!("expected event {next}, got event {index}"));
            }
            if index == 0 {
                first_ns = arrived_ns;
            }
            next += 1;
            last_sent_ns = sent_ns;
            seen.delay_ns.push(arrived_ns.saturating_sub(sent_ns));
        }
    }
    if next != args.chunks {
        return Err(format!("expected {} events, got {next}", args.chunks));
    }
    seen.streams += 1;
    seen.events += next;
    seen.chunks += answer.chunks;
    seen.streamed += u64::from(first_ns < last_sent_ns);
    seen.first_ns.push(first_ns.saturating_sub(asked_ns));
    seen.stream_ns.push(now()?.saturating_sub(asked_ns));
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

impl Spread {
    /// Of times in nanoseconds, which may be none.
    fn of(mut times_ns: Vec<u64>) -> Spread {
        times_ns.sort_unstable();
        let at = |share: f64| {
            let index = (times_ns.len().saturating_sub(1) as f64 * share).round() as usize;
            times_ns.get(index).map_or(0.0, |&ns| ns as f64 / 1000.0)
        };
        Spread { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}
