//! Logs: to standard error, for people or as JSON lines; and to a collector, where one takes them.
//!
//! A thread of its own writes. Whoever reads standard error may stop reading, and then a pipe takes no more: nobody who has
//! something to say waits for that, neither requests nor decisions. What does not fit into the queue is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use super::otlp::Tap;
use crate::config::{Log, LogFormat};

/// Of the AWS SDK only what is wrong: with every fetch it tells which credentials it looked for and did not need. Who wants
/// more names these modules in the filter.
const QUIET: &str = "aws_config=error,aws_runtime=error,aws_credential_types=error";

/// Lines that may wait for standard error: a second of a log at its most talkative level, about 1 MB.
const WAITING_MAX: usize = 8192;

/// How long the end of the program waits for lines that wait.
const FLUSH_WAIT: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();
static LOST: AtomicU64 = AtomicU64::new(0);

/// Starts logging. `RUST_LOG` wins over the configuration, as it does everywhere. A second call changes nothing.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{QUIET},{}", log.level)));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<_> + Send + Sync> = match log.format {
        LogFormat::Json => Box::new(lines.json()),
        LogFormat::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            Box::new(lines.with_ansi(colours))
        }
    };
    let started = Registry::default().with(lines).with(Tap).with(filter).try_init();
    // Only a test that starts the program twice in one process gets here; the first subscriber stays.
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
}

/// Lines that were lost since the start.
pub fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// Waits until what was logged is written, but not for long.
pub fn flush() {
    let Some(Some(Queue(queue))) = QUEUE.get() else { return };
    let (written, done) = sync_channel(1);
    if queue.try_send(Message::Flush(written)).is_ok() {
        // Who does not read by now loses the last lines: the program must be able to end.
        let _ = done.recv_timeout(FLUSH_WAIT);
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Where lines wait.
#[derive(Clone)]
struct Queue(SyncSender<Message>);

impl Queue {
    /// `None` if there is no thread to be had.
    fn start() -> Option<Queue> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let thread = thread::Builder::new().name("tradewind-log".into());
        thread.spawn(move || write(&waiting, &mut io::stderr())).ok().map(|_| Queue(queue))
    }
}

impl Write for Queue {
    /// Takes a whole line, or drops it. Never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            LOST.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a line is written with.
fn writer() -> Box<dyn Write> {
    match QUEUE.get_or_init(Queue::start) {
        Some(queue) => Box::new(queue.clone()),
        None => Box::new(io::stderr()),
    }
}

fn write(waiting: &Receiver<Message>, to: &mut impl Write) {
    let mut told = 0;
    for message in waiting {
        match message {
            Message::Line(line) => {
                // Where standard error is closed there is nobody to tell.
                let _ = to.write_all(&line);
                let lost = lost();
                if lost > told {
                    tracing::warn!(
                        "{} lines of the log were lost: nobody read standard error in time",
                        lost - told
                    );
                    told = lost;
                }
            }
            // Who asked may have waited long enough.
            Message::Flush(written) => drop(written.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_nobody_takes_are_lost_and_hold_nobody_up() {
        let (sender, waiting) = sync_channel(2);
        let mut queue = Queue(sender);
        let before = lost();
        for line in ["a\n", "b\n", "c\n"] {
            queue.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(lost() - before, 1);
        drop(queue);
        let mut out = Vec::new();
        write(&waiting, &mut out);
        assert_eq!(out, b"a\nb\n");
    }
}
