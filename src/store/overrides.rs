//! The overrides in force: durable before they are acknowledged, gone when their time is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use serde::{Deserialize, Serialize};

use super::{Blobs, StoreError};
use crate::model::{Override, Timestamp};

/// Most overrides that may be active at a time.
///
/// Each change writes all of them, and each decision reads all of them: 1,000 are some 400 KB and a few milliseconds. An
/// operator has a handful; thousands are a script that went wrong, which must not slow down every decision.
pub const OVERRIDES_MAX: usize = 1_000;

const BLOB: &str = "overrides.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored<List> {
    version: u32,
    overrides: List,
}

/// The overrides in force, in the order in which they were given.
pub struct Overrides {
    blobs: Arc<dyn Blobs>,
    /// Never held while the disk is waited for: a disk that hangs must not stop the control loop.
    memory: Mutex<Memory>,
    /// Held while the blob is written, so that writes come one after the other.
    disk: Mutex<Disk>,
}

struct Memory {
    live: Arc<[Override]>,
    /// Ended by time, and not given out by [`Overrides::expire`] yet.
    ended: Vec<Override>,
}

#[derive(Default)]
struct Disk {
    /// Overrides in the blob. Those in force are among them, so a larger number tells that some have ended.
    held: usize,
    /// A corrupt blob that could not be set aside yet. It must be before the blob is written again.
    corrupt: Option<Vec<u8>>,
}

impl Overrides {
    /// Reads what is stored. Overrides that ended while no process ran are the first that [`Overrides::expire`] gives.
    ///
    /// A blob that cannot be understood is set aside as `overrides.json.corrupt-<n>`, and the second value says so: log
    /// it as an error and put it into the journal. An `Err` means that the blob could not even be read; whether one may
    /// start without knowing the overrides is for the caller to say.
    pub fn open(
        blobs: Arc<dyn Blobs>,
        now: Timestamp,
    ) -> Result<(Overrides, Option<StoreError>), StoreError> {
        let mut disk = Disk::default();
        let mut warning = None;
        let stored = match blobs.get(BLOB)? {
            None => Vec::new(),
            Some(bytes) => match parse(&bytes) {
                Ok(stored) => {
                    disk.held = stored.len();
                    stored
                }
                // To refuse to start would turn a bad file into an outage, and a process that restarts on its own would
                // never come back. To go on in silence would undo what an operator was told is in force. So: serve,
                // say it loudly, and keep the bytes, from which a person can still read what was meant.
                Err(why) => {
                    disk.corrupt = Some(bytes);
                    let kept = set_aside(blobs.as_ref(), &mut disk);
                    warning = Some(corrupt_warning(blobs.as_ref(), &why, kept));
                    Vec::new()
                }
            },
        };
        let memory = Memory { live: stored.into(), ended: Vec::new() };
        let overrides = Overrides { blobs, memory: Mutex::new(memory), disk: Mutex::new(disk) };
        overrides.memory().sweep(now);
        Ok((overrides, warning))
    }

    /// The overrides that hold at `now`. Never waits for the disk.
    ///
    /// Once an override has been found to be over it never comes back, even if the clock is set back.
    pub fn active(&self, now: Timestamp) -> Arc<[Override]> {
        let mut memory = self.memory();
        memory.sweep(now);
        memory.live.clone()
    }

    /// A short id that no override in force has.
    pub fn unused_id(&self) -> String {
        loop {
            let id = format!("ov-{:08x}", fastrand::u32(..));
            if !self.memory().live.iter().any(|o| o.id == id) {
                return id;
            }
        }
    }

    /// Stores an override, then puts it in force. On an error nothing has changed, neither in memory nor on disk.
    ///
    /// Its id must not be in use ([`Overrides::unused_id`]), and it must end after it was created.
    pub fn add(&self, new: Override) -> Result<(), StoreError> {
        let mut disk = lock(&self.disk);
        let live = self.memory().live.clone();
        if live.len() >= OVERRIDES_MAX {
            return Err(StoreError::TooMany);
        }
        let refused =
            |why: &str| StoreError::Refused { what: format!("override `{}`", new.id), why: why.into() };
        if live.iter().any(|o| o.id == new.id) {
            return Err(refused("an override with this id is in force; expected a new id"));
        }
        if new.expires_at <= new.created_at {
            return Err(refused("it would end before it begins; expected an end after its creation"));
        }
        let list: Arc<[Override]> = live.iter().chain([&new]).cloned().collect();
        self.write(&mut disk, &list)?;
        // Others may have ended by time meanwhile, so the list just written is not simply taken over.
        let mut memory = self.memory();
        memory.live = memory.live.iter().cloned().chain([new]).collect();
        Ok(())
    }

    /// Ends an override before its time and gives it back; `None` if none with this id is in force. On an error it still
    /// holds, in memory and on disk.
    pub fn end(&self, id: &str) -> Result<Option<Override>, StoreError> {
        let mut disk = lock(&self.disk);
        let live = self.memory().live.clone();
        let Some(found) = live.iter().find(|o| o.id == id) else {
            return Ok(None);
        };
        let rest: Vec<Override> = live.iter().filter(|o| o.id != id).cloned().collect();
        self.write(&mut disk, &rest)?;
        let mut memory = self.memory();
        memory.live = memory.live.iter().filter(|o| o.id != id).cloned().collect();
        // If its time ended during the write, it must not be announced twice.
        memory.ended.retain(|o| o.id != id);
        Ok(Some(found.clone()))
    }

    /// The overrides that ended by time since the last call, each given once. Does not touch the disk: see
    /// [`tidy`](Self::tidy).
    pub fn expire(&self, now: Timestamp) -> Vec<Override> {
        let mut memory = self.memory();
        memory.sweep(now);
        std::mem::take(&mut memory.ended)
    }

    /// Removes from disk what has ended. Waits for the disk. Where that fails, or another thread is writing, the next call
    /// tries again: until then a restart may announce an end a second time.
    pub fn tidy(&self) {
        let mut disk = match self.disk.try_lock() {
            Ok(disk) => disk,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let live = self.memory().live.clone();
        // Only the ends are written here: whatever was added is on disk already.
        if disk.held > live.len() {
            // Best effort: each of them ends by its time at a restart as well.
            let _ = self.write(&mut disk, &live);
        }
    }

    fn write(&self, disk: &mut Disk, list: &[Override]) -> Result<(), StoreError> {
        set_aside(self.blobs.as_ref(), disk)?;
        let bytes = serde_json::to_vec(&Stored { version: VERSION, overrides: list })
            .map_err(|e| StoreError::Refused { what: "the overrides".into(), why: e.to_string() })?;
        self.blobs.put(BLOB, &bytes)?;
        disk.held = list.len();
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }
}

impl Memory {
    /// Takes what is over at `now` out of force.
    fn sweep(&mut self, now: Timestamp) {
        if self.live.iter().all(|o| o.active(now)) {
            return;
        }
        let (live, ended): (Vec<_>, Vec<_>) = self.live.iter().cloned().partition(|o| o.active(now));
        self.live = live.into();
        self.ended.extend(ended);
    }
}

/// A thread that panicked left whole values behind: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(bytes: &[u8]) -> Result<Vec<Override>, String> {
    let stored: Stored<serde_json::Value> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if stored.version != VERSION {
        return Err(format!("found version {}, expected version {VERSION}", stored.version));
    }
    serde_json::from_value(stored.overrides).map_err(|e| e.to_string())
}

/// Copies a corrupt blob, if there is one, to the first free name, then deletes it. Gives the name.
fn set_aside(blobs: &dyn Blobs, disk: &mut Disk) -> Result<Option<String>, StoreError> {
    let Some(bytes) = &disk.corrupt else {
        return Ok(None);
    };
    let mut number = 1_u32;
    let name = loop {
        let name = format!("{BLOB}.corrupt-{number}");
        match blobs.get(&name)? {
            None => {
                blobs.put(&name, bytes)?;
                break name;
            }
            // The copy succeeded before, the deletion did not: one copy is enough.
            Some(kept) if kept == *bytes => break name,
            Some(_) => number += 1,
        }
    };
    disk.corrupt = None;
    // If this fails, the next write replaces it, or the next start finds it again.
    let _ = blobs.delete(BLOB);
    Ok(Some(name))
}

fn corrupt_warning(blobs: &dyn Blobs, why: &str, kept: Result<Option<String>, StoreError>) -> StoreError {
    let fate = match kept {
        Ok(name) => format!("it is kept as {}", blobs.locate(&name.unwrap_or_default())),
        Err(error) => {
            format!("it stays where it is, and no override can be stored until it can be copied ({error})")
        }
    };
    let why = format!("{why}; {fate}; NO override that it held is in force: read it, and give them again");
    StoreError::Corrupt { file: blobs.locate(BLOB), why }
}

#[cfg(test)]
mod tests;
