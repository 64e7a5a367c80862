//! Spans of sampled requests, on their way to a collector: begun and ended by the request path, which waits for nothing, and taken
//! from a queue of limited length by whoever exports them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::model::Share;

/// Spans that may wait to be exported: a second of a busy front door at 1%. What comes on top is dropped and counted.
pub const QUEUE_LEN: usize = 4_096;

/// The header of W3C Trace Context.
pub const TRACEPARENT: &str = "traceparent";

/// Length of a `traceparent` of version 00.
const TRACEPARENT_LEN: usize = 55;

/// Whether the sender of a `traceparent` keeps its span.
const SAMPLED: u8 = 1;

/// What became of spans, or of anything else that was to be sent to a collector.
#[derive(Debug, Default)]
pub struct ExportCounts {
    /// A collector took them.
    pub exported: AtomicU64,
    /// The queue was full.
    pub dropped: AtomicU64,
    /// No collector took them.
    pub failed: AtomicU64,
    /// A collector took what they were sent with, and not them.
    pub rejected: AtomicU64,
}

/// Says which requests have a span, and takes the spans.
#[derive(Debug)]
pub struct Tracer {
    /// Of 2^64 requests that come without a trace, so many have one.
    threshold: u64,
    queue: Sender<Span>,
    counts: Arc<ExportCounts>,
}

/// A span that has begun.
#[derive(Clone, Debug)]
pub struct Begun {
    trace_id: u128,
    span_id: u64,
    parent: Option<u64>,
    started_at: SystemTime,
}

/// A span that has ended.
#[derive(Debug)]
pub struct Span {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
    /// The span of the client, if it has one.
    pub parent: Option<u64>,
    /// `POST chat`: the method and the route.
    pub name: String,
    /// When the request arrived.
    pub started_at: SystemTime,
    /// How long it took, to the end of its answer.
    pub duration: Duration,
    /// Whether it failed.
    pub failed: bool,
    /// By the semantic conventions of OpenTelemetry, and our own.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// Any other number.
    Decimal(f64),
    /// Whether something is so.
    Flag(bool),
}

impl Tracer {
    /// A tracer, and the end of its queue.
    pub fn new(sample: Share, counts: Arc<ExportCounts>) -> (Tracer, Receiver<Span>) {
        let (queue, spans) = channel(QUEUE_LEN);
        // 1 is 2^64, which saturates to one less: nobody misses one of 2^64.
        let threshold = (sample.get() * 2_f64.powi(64)) as u64;
        (Tracer { threshold, queue, counts }, spans)
    }

    /// Begins the span of a request. A client that traces decides whether there is one; else it is drawn by lot.
    pub fn begin(&self, traceparent: Option<&[u8]>) -> Option<Box<Begun>> {
        let (trace_id, parent) = match traceparent.and_then(parse) {
            Some((_, _, flags)) if flags & SAMPLED == 0 => return None,
            Some((trace_id, parent, _)) => (trace_id, Some(parent)),
            None if fastrand::u64(..) < self.threshold => (fastrand::u128(1..), None),
            None => return None,
        };
        Some(Box::new(Begun { trace_id, span_id: fastrand::u64(1..), parent, started_at: SystemTime::now() }))
    }

    /// Ends it. Never waits: where the queue is full, it is dropped.
    pub fn end(
        &self,
        begun: &Begun,
        name: String,
        duration: Duration,
        failed: bool,
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        let Begun { trace_id, span_id, parent, started_at } = *begun;
        let span = Span { trace_id, span_id, parent, name, started_at, duration, failed, attributes };
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Begun {
    /// What the backend is told: that it is called by this span, which is kept.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

/// Trace, parent and flags of a `traceparent`; `None` if it is none. One of a later version begins as one of version 00.
fn parse(value: &[u8]) -> Option<(u128, u64, u8)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (head, more) = text.split_at_checked(TRACEPARENT_LEN)?;
    let mut parts = head.split('-');
    let mut hex = |len: usize| {
        let part = parts.next()?;
        let lower = part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        (part.len() == len && lower).then_some(part)
    };
    let (version, trace, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let later = version != "00";
    if version == "ff"
        || (!later && !more.is_empty())
        || (later && !more.is_empty() && !more.starts_with('-'))
    {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    Some((trace, parent, u8::from_str_radix(flags, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer(sample: f64) -> (Tracer, Receiver<Span>) {
        Tracer::new(Share::new(sample).unwrap(), Arc::default())
    }

    #[test]
    fn a_client_that_traces_decides() {
        let (never, _spans) = tracer(0.0);
        let begun = never.begin(Some(PARENT)).expect("the client keeps its span");
        assert_eq!(
            (begun.trace_id, begun.parent),
            (0x4bf92f3577b34da6a3ce929d0e0e4736, Some(0x00f067aa0ba902b7))
        );
        let told = begun.traceparent();
        assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && told.ends_with("-01"), "{told}");
        assert!(!told.contains("00f067aa0ba902b7"), "{told}");
        let (always, _spans) = tracer(1.0);
        let unsampled = [&PARENT[..53], b"00"].concat();
        assert!(always.begin(Some(&unsampled)).is_none());
        assert!(never.begin(None).is_none());
        assert!(always.begin(None).is_some_and(|begun| begun.parent.is_none()));
    }

    #[test]
    fn what_is_no_trace_context_is_passed_over() {
        let text = String::from_utf8(PARENT.to_vec()).unwrap();
        for bad in [
            "",
            "00",
            &text[1..],
            &text.to_uppercase(),
            &format!("{text}-more"),
            &text.replacen("00", "ff", 1),
            &text.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &text.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &"ä".repeat(40),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
        let later = format!("{}-what comes later", text.replacen("00", "01", 1));
        assert!(parse(later.as_bytes()).is_some());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (tracer, mut spans) = tracer(1.0);
        let begun = tracer.begin(None).unwrap();
        for _ in 0..QUEUE_LEN + 3 {
            tracer.end(&begun, "GET chat".into(), Duration::ZERO, false, Vec::new());
        }
        assert_eq!(tracer.counts.dropped.load(Relaxed), 3);
        assert!(spans.try_recv().is_ok());
    }

    #[test]
    fn the_part_that_is_drawn_is_the_one_that_was_asked_for() {
        let (tracer, _spans) = tracer(0.25);
        let drawn = (0..10_000).filter(|_| tracer.begin(None).is_some()).count();
        assert!((2_000..3_000).contains(&drawn), "{drawn}");
    }
}
