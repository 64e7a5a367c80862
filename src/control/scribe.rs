//! Writes what the loop has to say to disk, on a thread of its own: a disk that hangs must not stop the loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::vigil::Busy;
use crate::store::{Blobs, Journal, JournalEntry, Overrides};

/// Entries that may wait for the disk. At a few an hour this is never reached unless the disk hangs.
const QUEUE_LEN_MAX: usize = 1024;

/// How long the end of the process waits for the disk.
const CLOSING_WAIT: Duration = Duration::from_secs(2);

/// Something to write.
pub(super) enum Note {
    /// A line of the journal.
    Entry(Box<JournalEntry>),
    /// A blob of state, replaced as a whole.
    Blob {
        /// Its name.
        name: &'static str,
        /// What it holds from now on.
        bytes: Vec<u8>,
    },
    /// Overrides have ended: take them off the disk.
    Tidy,
    /// All before this is written: say so.
    Written(SyncSender<()>),
}

/// The writing thread.
pub(super) struct Scribe {
    queue: Option<SyncSender<Note>>,
    thread: Option<JoinHandle<()>>,
    lost: Arc<AtomicU64>,
    busy: Arc<Busy>,
    /// Nothing is taken: the state is another process's.
    resting: AtomicBool,
}

impl Scribe {
    pub(super) fn start(
        journal: Arc<Journal>,
        blobs: Arc<dyn Blobs>,
        overrides: Arc<Overrides>,
    ) -> std::io::Result<Scribe> {
        let (queue, notes) = sync_channel(QUEUE_LEN_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let busy = Arc::new(Busy::default());
        let (counter, at) = (lost.clone(), busy.clone());
        let thread = std::thread::Builder::new()
            .name("tradewind-scribe".into())
            .spawn(move || write(&notes, &journal, &*blobs, &overrides, &counter, &at))?;
        Ok(Scribe { queue: Some(queue), thread: Some(thread), lost, busy, resting: AtomicBool::new(false) })
    }

    /// Takes a note; never waits. A note that cannot be taken or written is counted as lost.
    pub(super) fn note(&self, note: Note) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.resting.load(Relaxed)) else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(note) {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Waits until all that was noted is written. `false` if a disk that hangs keeps it from that.
    pub(super) fn finish(&self) -> bool {
        let (written, done) = sync_channel(1);
        self.note(Note::Written(written));
        done.recv_timeout(CLOSING_WAIT).is_ok()
    }

    /// Takes no notes from now on, or takes them again.
    pub(super) fn rest(&self, resting: bool) {
        self.resting.store(resting, Relaxed);
    }

    /// How long the write under way has taken; `None` if there is none.
    pub(super) fn writing(&self) -> Option<Duration> {
        self.busy.now().map(|(_, time)| time)
    }

    /// Notes that were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}

impl Drop for Scribe {
    /// Writes what is waiting, and ends. A disk that hangs is not waited for: the process must be able to end.
    fn drop(&mut self) {
        drop(self.queue.take());
        let Some(thread) = self.thread.take() else { return };
        let (joined, done) = std::sync::mpsc::channel();
        let joiner = std::thread::Builder::new().spawn(move || joined.send(thread.join().is_ok()));
        if joiner.is_err() || done.recv_timeout(CLOSING_WAIT) != Ok(true) {
            tracing::error!("the last entries of the journal could not be written in time and are lost");
        }
    }
}

fn write(
    notes: &Receiver<Note>,
    journal: &Journal,
    blobs: &dyn Blobs,
    overrides: &Overrides,
    lost: &AtomicU64,
    busy: &Busy,
) {
    let mut failing = false;
    for note in notes {
        busy.at("writing");
        let written = match note {
            Note::Entry(entry) => journal.append(&entry),
            Note::Blob { name, bytes } => blobs.put(name, &bytes),
            Note::Tidy => {
                overrides.tidy();
                Ok(())
            }
            Note::Written(written) => {
                // Who asked may have waited long enough.
                let _ = written.send(());
                Ok(())
            }
        };
        match written {
            Ok(()) => failing = false,
            Err(error) => {
                lost.fetch_add(1, Relaxed);
                // Once for each time that it begins to fail: a line for every entry would say no more.
                if !failing {
                    tracing::error!(%error, "the journal or state could not be written; decisions go on without");
                }
                failing = true;
            }
        }
        busy.done();
    }
}
