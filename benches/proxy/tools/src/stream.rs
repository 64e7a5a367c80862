//! Asks for one stream of events over a connection that stays open, and checks every event.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{answer::Answer, monotonic_ns, read_event};

/// When what happened in a stream, by the clock of [`monotonic_ns`].
pub struct Shown {
    /// Its request was about to be sent.
    pub asked_ns: u64,
    /// Its first event arrived.
    pub first_ns: u64,
    /// Its last event was sent by the backend.
    pub last_sent_ns: u64,
    /// Its end arrived.
    pub ended_ns: u64,
    /// HTTP chunks: fewer than events where a proxy puts some together.
    pub http_chunks: u64,
}

/// Asks for the stream at `path`, which must have so many events, in order. How long each took from its sending to its arrival
/// is added to `delay_ns`.
///
/// # Errors
/// When it could not be asked for, or was not that stream. The text says what was found.
pub async fn ask(
    connection: &mut TcpStream,
    host: SocketAddr,
    path: &str,
    events: u64,
    delay_ns: &mut Vec<u64>,
) -> Result<Shown, String> {
    let now = || monotonic_ns().map_err(|error| error.to_string());
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n\r\n");
    let mut shown = Shown { asked_ns: now()?, first_ns: 0, last_sent_ns: 0, ended_ns: 0, http_chunks: 0 };
    let unsent = |error| format!("could not send a request: {error}");
    connection.write_all(request.as_bytes()).await.map_err(unsent)?;
    let (mut answer, mut arrived, mut piece) = (Answer::default(), Vec::new(), vec![0; 16 * 1024]);
    let mut next = 0;
    while !answer.is_complete() {
        let bytes = connection.read(&mut piece).await.map_err(|error| format!("a stream broke: {error}"))?;
        if bytes == 0 {
            return Err(format!("a stream was cut off after {next} of {events} events"));
        }
        let arrived_ns = now()?;
        answer.receive(&piece[..bytes], &mut arrived)?;
        for line in arrived.drain(..) {
            let (index, sent_ns) =
                read_event(&line).ok_or_else(|| format!("not an event of the backend: `{line}`"))?;
            if index != next {
                return Err(format!("expected event {next}, got event {index}"));
            }
            if index == 0 {
                shown.first_ns = arrived_ns;
            }
            next += 1;
            shown.last_sent_ns = sent_ns;
            delay_ns.push(arrived_ns.saturating_sub(sent_ns));
        }
    }
    if next != events {
        return Err(format!("expected {events} events, got {next}"));
    }
    (shown.ended_ns, shown.http_chunks) = (now()?, answer.chunks);
    Ok(shown)
}
