//! Makes requests at a given rate, whether or not those before were answered, and says how long the first byte of each answer (or
//! the first event of each stream) took from the moment at which its request was due. One line of JSON on standard output;
//! exit code 1 when an answer was wrong.
//!
//! A request that finds no connection free waits, and the wait counts: a slow answer can't put off the requests that would have
//! shown how slow it was.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};
use proxy_bench_tools::answer::is_whole_receipt;
use proxy_bench_tools::{SSE_AT_ONCE_PATH, Spread, monotonic_ns, stream};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Longest time that an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Start of the sequence of arrivals, which is the same for every proxy.
const SEED: u64 = 0x7261_6465_7769_6e64;

/// A bounded open-loop load: arrivals as of many clients that know nothing of each other (exponential gaps).
#[derive(Parser, Clone, Copy)]
struct Args {
    /// Address of the proxy, or of the backend itself.
    #[arg(long)]
    target: SocketAddr,
    /// What is asked for.
    #[arg(long, value_enum)]
    ask: Ask,
    /// Requests (or streams) a second, on average.
    #[arg(long)]
    rate: f64,
    /// How long requests are due, in seconds.
    #[arg(long)]
    seconds: u64,
    /// Connections, opened and used once before the first request is due.
    #[arg(long)]
    connections: u32,
    /// Events that a stream must have.
    #[arg(long, default_value_t = 64)]
    chunks: u64,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Ask {
    /// A GET of 100 bytes.
    Get,
    /// A stream whose first event comes with its head.
    Sse,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    first_ns: Vec<u64>,
    late_ns: Vec<u64>,
}

#[derive(Serialize)]
struct Report {
    requests: usize,
    rate: f64,
    failed: u64,
    failure: Option<String>,
    /// From the moment at which a request was due to the first byte, or the first event, in microseconds.
    first_us: Spread,
    /// The part of it before the request was sent: the load's own, or a wait for a connection.
    late_us: Spread,
}

type Due = Arc<Mutex<mpsc::UnboundedReceiver<u64>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let args = Args::parse();
    if !(args.rate > 0.0 && args.rate < 1e6) {
        return Err(format!("--rate: expected more than 0 and less than a million, got {}", args.rate).into());
    }
    let (queue, due) = mpsc::unbounded_channel();
    let due: Due = Arc::new(Mutex::new(due));
    let opened = (0..args.connections).map(|_| open(args.target)).collect::<JoinSet<_>>().join_all().await;
    let mut clients = JoinSet::new();
    for connection in opened {
        clients.spawn(client(connection?, args, due.clone()));
    }
    let arriving = std::thread::spawn(move || arrive(args, &queue));
    let (mut first_ns, mut late_ns, mut failed, mut failure) = (Vec::new(), Vec::new(), 0, None);
    for (seen, result) in clients.join_all().await {
        first_ns.extend(seen.first_ns);
        late_ns.extend(seen.late_ns);
        if let Err(reason) = result {
            failed += 1;
            failure.get_or_insert(reason);
        }
    }
    arriving.join().map_err(|_| "the thread of arrivals panicked")??;
    let (requests, rate) = (first_ns.len(), args.rate);
    let (first_us, late_us) = (Spread::of(first_ns), Spread::of(late_ns));
    println!("{}", serde_json::to_string(&Report { requests, rate, failed, failure, first_us, late_us })?);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A connection that has been used: what a proxy does for a new one is not what is measured.
async fn open(target: SocketAddr) -> Result<TcpStream, String> {
    let mut connection =
        TcpStream::connect(target).await.map_err(|error| format!("no connection: {error}"))?;
    connection.set_nodelay(true).map_err(|error| error.to_string())?;
    get(&mut connection, target).await?;
    Ok(connection)
}

/// Puts the moment of every request into the queue when it has come. On a thread of its own, since the kernel wakes one to the
/// microsecond; tokio's timers, to the millisecond, would let requests come in batches.
fn arrive(args: Args, queue: &mpsc::UnboundedSender<u64>) -> std::io::Result<()> {
    // The least there is: 0 would mean the default, 50 microseconds.
    set_timerslack(1)?;
    let (mut random, mut after_s) = (SEED, 0.0);
    let start_ns = monotonic_ns()?;
    loop {
        after_s -= uniform(&mut random).ln() / args.rate;
        if after_s > args.seconds as f64 {
            return Ok(());
        }
        let due_ns = start_ns + (after_s * 1e9) as u64;
        let due = TimeSpec::from(Duration::from_nanos(due_ns));
        clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &due)?;
        // Where no client is left, their results say why.
        let _ = queue.send(due_ns);
    }
}

/// More than 0, at most 1 (SplitMix64).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + f64::EPSILON / 2.0
}

/// Asks for what is due, one after the other, over one connection. The one that has been free for longest takes the next.
async fn client(mut connection: TcpStream, args: Args, due: Due) -> (Seen, Result<(), String>) {
    let mut seen = Seen::default();
    loop {
        let next = due.lock().await.recv().await;
        let Some(due_ns) = next else { return (seen, Ok(())) };
        let asked = async {
            match args.ask {
                Ask::Get => get(&mut connection, args.target).await,
                Ask::Sse => first_event(&mut connection, args).await,
            }
        };
        match timeout(ANSWER_MAX, asked).await {
            Ok(Ok((sent_ns, first_ns))) => {
                seen.first_ns.push(first_ns.saturating_sub(due_ns));
                seen.late_ns.push(sent_ns.saturating_sub(due_ns));
            }
            Ok(Err(reason)) => return (seen, Err(reason)),
            Err(_) => return (seen, Err(format!("an answer took longer than {ANSWER_MAX:?}"))),
        }
    }
}

/// When a GET was sent, and when the first byte of its answer arrived.
async fn get(connection: &mut TcpStream, target: SocketAddr) -> Result<(u64, u64), String> {
    let now = || monotonic_ns().map_err(|error| error.to_string());
    let request = format!("GET / HTTP/1.1\r\nhost: {target}\r\n\r\n");
    let sent_ns = now()?;
    let unsent = |error| format!("could not send a request: {error}");
    connection.write_all(request.as_bytes()).await.map_err(unsent)?;
    let (mut answer, mut first_ns) = (Vec::with_capacity(1024), None);
    while !is_whole_receipt(&answer)? {
        if connection.read_buf(&mut answer).await.map_err(|error| format!("an answer broke: {error}"))? == 0 {
            return Err(format!("a connection was closed after {} bytes of an answer", answer.len()));
        }
        first_ns = first_ns.or(Some(now()?));
    }
    Ok((sent_ns, first_ns.unwrap_or(sent_ns)))
}

/// When a stream was asked for, and when its first event arrived. Waits for the whole stream.
async fn first_event(connection: &mut TcpStream, args: Args) -> Result<(u64, u64), String> {
    let shown = stream::ask(connection, args.target, SSE_AT_ONCE_PATH, args.chunks, &mut Vec::new()).await?;
    Ok((shown.asked_ns, shown.first_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_of_exponential_ones() {
        let mut random = SEED;
        let mean = (0..100_000).map(|_| -uniform(&mut random).ln()).sum::<f64>() / 1e5;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }
}
