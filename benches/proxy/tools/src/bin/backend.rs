//! The backend behind every proxy of the comparison. It has to cost far less than any proxy, so that the proxy is what
//! limits a run: HTTP/1.1 written by hand, one thread, answers made beforehand.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use proxy_bench_tools::{CHAT_PATH, SSE_AT_ONCE_PATH, SSE_PATH, event, monotonic_ns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest request body, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Length of the answers to GET and POST, in bytes.
const ANSWER_BYTES: usize = 100;

const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
                        transfer-encoding: chunked\r\n\r\n";

/// Answers GET and POST with 100 bytes, GET /sse and /sse/at-once with a stream of chunks, and POST /v1/chat/completions with a
/// completion.
#[derive(Parser, Clone, Copy)]
struct Args {
    /// Address to serve, such as 127.0.0.1:9000.
    #[arg(long)]
    listen: SocketAddr,
    /// Chunks in a stream, one event each.
    #[arg(long, default_value_t = 64)]
    chunks: u64,
    /// Time between two chunks, and before the first (but at /sse/at-once), in milliseconds.
    #[arg(long, default_value_t = 5)]
    gap_ms: u64,
}

/// What a request asks for, and where in the buffer it ends.
struct Request {
    wanted: Wanted,
    body_bytes: usize,
    head_bytes: usize,
}

/// What is answered, by path.
enum Wanted {
    /// How long the request's body was.
    Receipt,
    Stream,
    StreamAtOnce,
    Completion,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))?;
    Ok(())
}

async fn serve(args: Args) -> std::io::Result<()> {
    let listener = TcpListener::bind(args.listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // The proxy sees the closed connection and reports it as a failed request: nothing to add here.
            let _ = connection(stream, args).await;
        });
    }
}

async fn connection(mut stream: TcpStream, args: Args) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let Some(request) = next_request(&mut stream, &mut buffer).await? else { return Ok(()) };
        let whole = request.head_bytes + request.body_bytes;
        while buffer.len() < whole {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..whole);
        match request.wanted {
            Wanted::Stream => {
                stream.write_all(SSE_HEAD.as_bytes()).await?;
                send_events(&mut stream, args, 0).await?;
            }
            Wanted::StreamAtOnce => {
                let first = format!("{SSE_HEAD}{}", chunk(0, args)?);
                stream.write_all(first.as_bytes()).await?;
                send_events(&mut stream, args, 1).await?;
            }
            Wanted::Completion => stream.write_all(completion().as_bytes()).await?,
            Wanted::Receipt => stream.write_all(receipt(request.body_bytes).as_bytes()).await?,
        }
    }
}

/// Reads up to the end of the next head. `None` when the peer closed between two requests.
async fn next_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            return parse(&buffer[..end + 4]).map(Some);
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(std::io::Error::other("the request head is too long"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(head: &[u8]) -> std::io::Result<Request> {
    let head_bytes = head.len();
    let head = std::str::from_utf8(head).map_err(std::io::Error::other)?;
    let (first, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let mut body_bytes = 0;
    for (name, value) in fields.split("\r\n").filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            body_bytes = value.trim().parse().map_err(std::io::Error::other)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(std::io::Error::other("a chunked request: no client of this benchmark sends one"));
        }
    }
    if body_bytes > BODY_BYTES_MAX {
        return Err(std::io::Error::other("the request body is too long"));
    }
    let wanted = match first.split(' ').nth(1) {
        Some(SSE_PATH) => Wanted::Stream,
        Some(SSE_AT_ONCE_PATH) => Wanted::StreamAtOnce,
        Some(CHAT_PATH) => Wanted::Completion,
        _ => Wanted::Receipt,
    };
    Ok(Request { wanted, body_bytes, head_bytes })
}

/// 100 bytes of JSON that say how long the request's body was, so that the client can tell that it arrived whole.
fn receipt(body_bytes: usize) -> String {
    let body = format!("{{\"received\":{body_bytes}}}");
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {ANSWER_BYTES}\r\n\r\n{body:<ANSWER_BYTES$}"
    )
}

/// A chat completion as OpenAI's API gives it, its usage included: what reads answers must be able to read this one.
fn completion() -> String {
    let body = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"A fair wind."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":200,"completion_tokens":4,"total_tokens":204}}"#;
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A chunk every gap, from the one of this index on, as a model server does that has to compute each token.
async fn send_events(stream: &mut TcpStream, args: Args, from: u64) -> std::io::Result<()> {
    let start = Instant::now();
    let gap = Duration::from_millis(args.gap_ms);
    let mut due = start;
    for index in from..args.chunks {
        // Due times count from the start, so that a late chunk does not delay all that follow.
        due += gap;
        sleep_until(due).await;
        stream.write_all(chunk(index, args)?.as_bytes()).await?;
    }
    Ok(())
}

/// A chunk with one event, stamped now; with the end of the answer if it is the last.
fn chunk(index: u64, args: Args) -> std::io::Result<String> {
    let data = event(index, monotonic_ns()?);
    let end = if index + 1 == args.chunks { "0\r\n\r\n" } else { "" };
    Ok(format!("{:x}\r\n{data}\r\n{end}", data.len()))
}
