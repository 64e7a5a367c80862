//! Opens connections, makes one request on each, and holds them, doing nothing, while somebody else looks at the proxy's memory.
//! Says how many are open with a line of JSON, and goes on with each line of standard input: to the rest of the connections, then to
//! a last look at whether all are still open.

use std::future::poll_fn;
use std::io::BufRead;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use clap::{Parser, ValueEnum};
use proxy_bench_tools::answer::{RECEIPT_OF_GET, is_whole_receipt};
use proxy_bench_tools::tls;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Connections that are being opened at the same time. The proxy keeps about as many to its backend.
const OPENING: usize = 16;

/// Connections on which nothing happens.
#[derive(Parser, Clone, Copy)]
struct Args {
    /// Address of the proxy.
    #[arg(long)]
    target: SocketAddr,
    /// What is spoken.
    #[arg(long, value_enum)]
    ask: Front,
    /// Connections before the first pause: for what a proxy makes once.
    #[arg(long)]
    first: usize,
    /// Connections before the second pause.
    #[arg(long)]
    more: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Front {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/1.1 over TLS.
    Tls,
    /// HTTP/2 over TLS.
    H2,
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}
type Connection = Box<dyn Both>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let connector = match args.ask {
        Front::Http1 => None,
        Front::Tls => Some(tls::connector("http/1.1")?),
        Front::H2 => Some(tls::connector("h2")?),
    };
    let mut held = Vec::new();
    for count in [args.first, args.more] {
        open_all(args, connector.as_ref(), count, &mut held).await?;
        pause(held.len()).await?;
    }
    let mut open = 0;
    for connection in &mut held {
        open += usize::from(is_open(connection).await);
    }
    println!("{{\"open\": {open}}}");
    Ok(())
}

/// Says how many connections are open, and waits for a line; not on this thread, which hears meanwhile of connections that are closed.
async fn pause(open: usize) -> std::io::Result<()> {
    println!("{{\"open\": {open}}}");
    tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new())).await??;
    Ok(())
}

async fn open_all(
    args: Args,
    connector: Option<&TlsConnector>,
    count: usize,
    held: &mut Vec<Connection>,
) -> Result<(), String> {
    let turns = Arc::new(Semaphore::new(OPENING));
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (turns, connector) = (turns.clone(), connector.cloned());
        opening.spawn(async move {
            let _turn = turns.acquire().await.map_err(|error| error.to_string())?;
            open(args, connector).await
        });
    }
    for opened in opening.join_all().await {
        held.push(opened?);
    }
    Ok(())
}

/// A connection that has been used once.
async fn open(args: Args, connector: Option<TlsConnector>) -> Result<Connection, String> {
    let stream = TcpStream::connect(args.target).await.map_err(|error| format!("no connection: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut connection: Connection = match connector {
        None => Box::new(stream),
        Some(connector) => {
            let name = ServerName::try_from(tls::SERVER_NAME).map_err(|error| error.to_string())?;
            let agreed = connector.connect(name, stream).await;
            Box::new(agreed.map_err(|error| format!("no handshake: {error}"))?)
        }
    };
    match args.ask {
        Front::Http1 | Front::Tls => ask_http1(&mut connection, args.target).await?,
        Front::H2 => ask_h2(&mut connection).await?,
    }
    Ok(connection)
}

async fn ask_http1(connection: &mut Connection, target: SocketAddr) -> Result<(), String> {
    send(connection, format!("GET / HTTP/1.1\r\nhost: {target}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    while !is_whole_receipt(&answer)? {
        receive(connection, &mut answer).await?;
    }
    Ok(())
}

/// The least that HTTP/2 asks of a client that has one request: the preface, empty settings, the request, and the acknowledgement
/// of the server's settings.
async fn ask_h2(connection: &mut Connection) -> Result<(), String> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const ACK_OR_END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    // By HPACK's static table: GET, https, `/`, and the name of :authority, whose value follows with its length.
    let mut block = vec![0x82, 0x87, 0x84, 0x01, tls::SERVER_NAME.len() as u8];
    block.extend(tls::SERVER_NAME.as_bytes());
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    hello.extend(frame(HEADERS, ACK_OR_END_STREAM | END_HEADERS, 1, &block));
    send(connection, &hello).await?;
    let (mut received, mut body) = (Vec::new(), Vec::new());
    let (mut acknowledged, mut ended) = (false, false);
    while !(acknowledged && ended) {
        let Some((kind, flags, payload)) = take_frame(&mut received) else {
            receive(connection, &mut received).await?;
            continue;
        };
        match kind {
            SETTINGS if flags & ACK_OR_END_STREAM == 0 => {
                send(connection, &frame(SETTINGS, ACK_OR_END_STREAM, 0, &[])).await?;
                acknowledged = true;
            }
            DATA => body.extend(payload),
            _ => {}
        }
        ended |= matches!(kind, DATA | HEADERS) && flags & ACK_OR_END_STREAM != 0;
    }
    if !body.starts_with(RECEIPT_OF_GET) {
        return Err(format!("not the backend's answer: `{}`", String::from_utf8_lossy(&body)));
    }
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Kind, flags and payload of the first frame in `received`, once it is there as a whole.
fn take_frame(received: &mut Vec<u8>) -> Option<(u8, u8, Vec<u8>)> {
    let [a, b, c, kind, flags, ..] = received[..] else { return None };
    let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
    let payload = received.get(9..end)?.to_vec();
    received.drain(..end);
    Some((kind, flags, payload))
}

async fn send(connection: &mut Connection, bytes: &[u8]) -> Result<(), String> {
    let unsent = |error| format!("could not send a request: {error}");
    connection.write_all(bytes).await.map_err(unsent)?;
    connection.flush().await.map_err(unsent)
}

async fn receive(connection: &mut Connection, into: &mut Vec<u8>) -> Result<(), String> {
    match connection.read_buf(into).await {
        Ok(0) => Err(format!("a connection was closed after {} bytes", into.len())),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("an answer broke: {error}")),
    }
}

/// Whether the proxy has not closed a connection meanwhile.
async fn is_open(connection: &mut Connection) -> bool {
    let mut piece = [0; 4096];
    loop {
        let mut buffer = ReadBuf::new(&mut piece);
        let read =
            poll_fn(|context| Poll::Ready(Pin::new(&mut *connection).poll_read(context, &mut buffer))).await;
        match read {
            Poll::Pending => return true,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let whole = frame(1, 5, 1, b"block");
        for end in 0..whole.len() {
            assert_eq!(take_frame(&mut whole[..end].to_vec()), None);
        }
        let mut received = [whole.as_slice(), &[0]].concat();
        assert_eq!(take_frame(&mut received), Some((1, 5, b"block".to_vec())));
        assert_eq!(received, [0]);
    }
}
