//! The access log: one JSON object a line for each request that has ended. Without bodies, headers and queries: what clients ask
//! and who they are is no business of a log.
//!
//! A thread of its own writes. The request path hands over what it knows, and drops it, counted, when the thread is far behind: a
//! disk that hangs holds up no request.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use serde::Serialize;

use crate::{
    config::Access,
    model::{BackendId, RouteId, TenantId, Timestamp},
};

/// Lines that may wait for the thread: about 3 MB, or a second of 8,000 requests.
const WAITING_MAX: usize = 8192;

/// Bytes that are written at once.
const BATCH: usize = 64 << 10;

/// Longest path that is written; the rest of a longer one is left out.
const PATH_LEN_MAX: usize = 512;

/// A request that has ended. What is not known, or does not apply, is left out of its line.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// When it ended.
    pub time: Timestamp,
    /// Its name in the headers.
    pub request_id: String,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The tenant whose key it carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// `GET`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: &'static str,
    /// The route that it matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteId>,
    /// The model by the name in the configuration, or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Arc<str>>,
    /// Who answered, or was asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// How many backends were asked.
    pub attempts: usize,
    /// What the client was told; 499 if it left before.
    pub status: u16,
    /// Why Tradewind itself answered, as in the `code` of the error; or `broken_off`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// From the choice of the backend to the first byte of its answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<f64>,
    /// From its arrival to the end of its answer.
    pub duration_ms: f64,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Tokens that it asked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens that were answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Who counted them: `reported` or `estimated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<&'static str>,
    /// What it cost; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usd: Option<f64>,
}

impl Entry {
    /// A path as it is written.
    pub fn path_of(path: &str) -> String {
        let end = (0..=PATH_LEN_MAX.min(path.len())).rev().find(|end| path.is_char_boundary(*end));
        path[..end.unwrap_or(0)].to_owned()
    }
}

/// A time in milliseconds, to the microsecond.
pub fn in_ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

enum Message {
    Line(Box<Entry>),
    Reopen,
    Flush(SyncSender<()>),
}

/// Where requests are written down.
#[derive(Debug)]
pub struct AccessLog {
    sender: SyncSender<Message>,
    sample: f64,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread not be started.
    pub fn start(settings: &Access) -> io::Result<AccessLog> {
        let place = Place::open(settings.file.clone())?;
        let (sender, waiting) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { place, lost: lost.clone(), failing: false };
        thread::Builder::new().name("tradewind-access".into()).spawn(move || writer.run(&waiting))?;
        Ok(AccessLog { sender, sample: settings.sample.get(), lost })
    }

    /// Whether the next request is one of those that are written down.
    pub fn wants(&self) -> bool {
        self.sample >= 1.0 || fastrand::f64() < self.sample
    }

    /// Writes a request down, if the thread keeps up.
    pub fn note(&self, entry: Entry) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender.try_send(Message::Line(Box::new(entry)))
        {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Opens the file by its name again: it may have been moved away. Waits for nothing.
    pub fn reopen(&self) {
        if self.sender.try_send(Message::Reopen).is_err() {
            tracing::warn!("the access log is far behind, and its file was not opened again");
        }
    }

    /// Waits until all that was noted is written, for so long at most.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            // After the limit, what is not written is lost.
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(limit);
        }
    }

    /// Lines that were not written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

/// Standard output or a file.
enum Place {
    Stdout,
    File { path: PathBuf, file: File },
}

fn append(path: &Path) -> io::Result<File> {
    // It holds addresses of clients: not for everyone on the machine.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

impl Place {
    fn open(path: Option<PathBuf>) -> io::Result<Place> {
        Ok(match path {
            None => Place::Stdout,
            Some(path) => Place::File { file: append(&path)?, path },
        })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Place::File { file, .. } => file.write_all(lines),
            Place::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
        }
    }

    fn reopen(&mut self) {
        let Place::File { path, file } = self else { return };
        match append(path) {
            Ok(opened) => *file = opened,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the access log could not be opened again; the old file is written on");
            }
        }
    }
}

struct Writer {
    place: Place,
    lost: Arc<AtomicU64>,
    failing: bool,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH + 1024);
        while let Ok(message) = waiting.recv() {
            let mut next = Some(message);
            let (mut lines, mut done) = (0, None);
            while let Some(message) = next.take() {
                match message {
                    Message::Line(entry) => {
                        // Numbers that JSON does not have are the only reason for an error; there are none.
                        if serde_json::to_writer(&mut batch, &entry).is_ok() {
                            batch.push(b'\n');
                            lines += 1;
                        }
                    }
                    Message::Reopen => {
                        self.write(&mut batch, std::mem::take(&mut lines));
                        self.place.reopen();
                    }
                    Message::Flush(asked) => done = Some(asked),
                }
                if batch.len() < BATCH && done.is_none() {
                    next = waiting.try_recv().ok();
                }
            }
            self.write(&mut batch, lines);
            if let Some(done) = done {
                // Who asked may have gone.
                let _: Result<(), TrySendError<()>> = done.try_send(());
            }
        }
    }

    fn write(&mut self, batch: &mut Vec<u8>, lines: u64) {
        match self.place.write(batch) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.lost.fetch_add(lines, Relaxed);
                // Once, not for every batch: it is counted.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the access log cannot be written");
                }
            }
        }
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Share;

    fn entry(path: &str) -> Entry {
        Entry {
            time: Timestamp::UNIX_EPOCH,
            request_id: "a".into(),
            client: None,
            tenant: None,
            method: "GET".into(),
            path: Entry::path_of(path),
            protocol: "HTTP/1.1",
            route: None,
            model: None,
            backend: None,
            attempts: 0,
            status: 200,
            error: None,
            first_byte_ms: None,
            duration_ms: in_ms(Duration::from_micros(1500)),
            bytes_received: 0,
            bytes_sent: 0,
            input_tokens: None,
            output_tokens: None,
            tokens: None,
            usd: None,
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_written_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let [file, moved] = ["a.log", "a.log.1"].map(|name| dir.path().join(name));
        let log = AccessLog::start(&Access { file: Some(file.clone()), sample: Share::ONE }).unwrap();
        log.note(entry("/one"));
        log.flush(Duration::from_secs(20));
        std::fs::rename(&file, &moved).unwrap();
        log.note(entry("/two"));
        log.reopen();
        log.note(entry(&"/ä".repeat(1000)));
        log.flush(Duration::from_secs(20));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let expected = r#"{"time":"1970-01-01T00:00:00Z","request_id":"a","method":"GET","path":"/one","protocol":"HTTP/1.1","attempts":0,"status":200,"duration_ms":1.5,"bytes_received":0,"bytes_sent":0}"#;
        assert_eq!(read(&moved).lines().next(), Some(expected));
        assert_eq!((read(&moved).lines().count(), read(&file).lines().count(), log.lost()), (2, 1, 0));
        assert!(read(&file).len() < 800);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let full = Access { file: Some("/dev/full".into()), sample: Share::ONE };
        let log = AccessLog::start(&full).unwrap();
        (0..3).for_each(|_| log.note(entry("/")));
        log.flush(Duration::from_secs(20));
        assert_eq!(log.lost(), 3);
        let nowhere = Access { file: Some("/nowhere/a.log".into()), sample: Share::ONE };
        assert!(AccessLog::start(&nowhere).is_err());
    }
}
