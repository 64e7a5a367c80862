//! What the backend and the SSE client agree on: the path of the stream, the events in it, and the clock that stamps them.

pub mod answer;

use nix::time::{ClockId, clock_gettime};

/// Path of the stream on the backend.
pub const SSE_PATH: &str = "/sse";

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
