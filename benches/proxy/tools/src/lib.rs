//! What the backend and the clients agree on: the paths of the streams, the events in them, and the clock that stamps them; and
//! what the clients share.

pub mod answer;
pub mod stream;
pub mod tls;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Path of the stream on the backend.
pub const SSE_PATH: &str = "/sse";

/// Path of the stream whose first event comes with the head, as from a server that has its first token at once.
pub const SSE_AT_ONCE_PATH: &str = "/sse/at-once";

/// Path of chat completions on the backend, as OpenAI's API has it.
pub const CHAT_PATH: &str = "/v1/chat/completions";

/// Nanoseconds of the machine's monotonic clock, which is the same in every process, so that a time stamped by the backend
/// can be subtracted in the client.
///
/// # Errors
/// When the system has no such clock.
pub fn monotonic_ns() -> std::io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}

/// How times are spread, in microseconds.
#[derive(Serialize, Default)]
pub struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    /// Of times in nanoseconds, which may be none.
    pub fn of(mut times_ns: Vec<u64>) -> Spread {
        times_ns.sort_unstable();
        let at = |share: f64| {
            let index = (times_ns.len().saturating_sub(1) as f64 * share).round() as usize;
            times_ns.get(index).map_or(0.0, |&ns| ns as f64 / 1000.0)
        };
        Spread { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

/// One server-sent event, of the size that a chat completion's token has. All events have the same length.
pub fn event(index: u64, sent_ns: u64) -> String {
    format!(
        "data: {{\"index\":{index:>3},\"sent_ns\":{sent_ns:>20},\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\
         \"delta\":{{\"content\":\" wind\"}}}}]}}\n\n"
    )
}

/// Index and time of sending of an event without its closing blank line; `None` if it is not one of [`event`]'s.
pub fn read_event(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("data: {\"index\":")?;
    let (index, rest) = rest.split_once(",\"sent_ns\":")?;
    let (sent_ns, _) = rest.split_once(',')?;
    Some((index.trim().parse().ok()?, sent_ns.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_back() {
        assert_eq!(read_event(event(7, 123_456).trim_end()), Some((7, 123_456)));
        assert_eq!(read_event("data: [DONE]"), None);
    }
}
