//! What happened and why, one JSON object a line, in files of limited size and number.
//!
//! `journal/current.jsonl` is appended to; when it is full it becomes `journal/<number>.jsonl`, and the oldest go. Every
//! append opens the file anew. That is some microseconds for something that happens a few times a second, and there is no
//! state to go wrong: files that an operator deletes to make room, a line cut short by a crash or by a full disk.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub mod archive;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{StoreError, lines::LinesFromEnd, local::create_durably};
use crate::model::{RouteId, Timestamp};

/// Longest line in bytes. A decision over 50 backends has some 70 KB.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Most entries that one query gives.
pub const QUERY_ENTRIES_MAX: usize = 1_000;
/// Most bytes of journal that one query gives: bounds the memory of a reader whatever the lines hold.
pub const QUERY_BYTES_MAX: usize = 8 * 1024 * 1024;

const CURRENT: &str = "current.jsonl";

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// What was decided for a route.
    Decision,
    /// What the requests of a route came to since the account before.
    Account,
    /// An override was given, ended or expired.
    Override,
    /// The configuration was loaded, or refused.
    Config,
    /// A price or its source changed its state.
    Price,
    /// A backend became healthy or unhealthy.
    Health,
    /// Nodes of a backend go away.
    Notice,
    /// State on disk was lost or repaired.
    State,
    /// The process started or ended.
    Process,
    /// Who changed what, or was refused: entries of a chain ([`super::audit`]).
    Audit,
}

/// One line of the journal: `{"at": ..., "kind": ..., "route": ..., <fields of the body>}`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct JournalEntry {
    /// When it happened.
    pub at: Timestamp,
    /// What it is about.
    pub kind: EntryKind,
    /// The route it concerns; `None` if all or none.
    #[serde(default)]
    pub route: Option<RouteId>,
    /// An object, whose fields stand beside those above, or null. It may repeat `at`, `kind` and `route` with the same
    /// values only: what has a `kind` of its own, such as an override, belongs into a field, `{"override": {...}}`.
    #[serde(flatten)]
    pub body: Value,
}

impl Serialize for JournalEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let invalid = |why: String| serde::ser::Error::custom(why);
        let head = [
            ("at", Some(serde_json::to_value(self.at).map_err(serde::ser::Error::custom)?)),
            ("kind", Some(serde_json::to_value(self.kind).map_err(serde::ser::Error::custom)?)),
            ("route", self.route.as_ref().map(|route| Value::from(route.as_str()))),
        ];
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &head {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        let body = match &self.body {
            Value::Null => None,
            Value::Object(body) => Some(body),
            other => return Err(invalid(format!("its body is `{other}`; expected an object or null"))),
        };
        for (name, value) in body.into_iter().flatten() {
            match head.iter().find(|(reserved, _)| reserved == name) {
                None => map.serialize_entry(name, value)?,
                Some((_, Some(same))) if same == value => {}
                Some(_) => {
                    let why = format!(
                        "its body has `{name}`: `{value}`, which every entry has; put it into a field"
                    );
                    return Err(invalid(why));
                }
            }
        }
        map.end()
    }
}

/// How much of the journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Bytes after which a new file is begun.
    pub file_bytes: u64,
    /// Files that are kept, with the one being written; at least one is.
    pub files: usize,
}

impl Default for JournalLimits {
    /// 8 files of 16 MiB.
    fn default() -> JournalLimits {
        JournalLimits { file_bytes: 16 * 1024 * 1024, files: 8 }
    }
}

/// Which entries to read. By default the last 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalQuery {
    /// Only entries of this route.
    pub route: Option<RouteId>,
    /// Only entries about this; `None` for all but accounts, of which there are many and which say nothing of decisions.
    pub kind: Option<EntryKind>,
    /// Only entries of this time or later.
    pub since: Option<Timestamp>,
    /// Only entries of this time or earlier.
    pub until: Option<Timestamp>,
    /// At most so many; never more than [`QUERY_ENTRIES_MAX`].
    pub limit: usize,
}

impl Default for JournalQuery {
    fn default() -> JournalQuery {
        JournalQuery { route: None, kind: None, since: None, until: None, limit: 100 }
    }
}

/// A journal in a directory of its own. One process at a time may write it: hold the [`super::LocalDir`] it lies in.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    limits: JournalLimits,
    /// Held by whoever writes, and for as long as a reader opens the files, not while it reads them.
    writing: Mutex<()>,
}

impl Journal {
    /// Opens the journal in `journal` below the state directory `dir`, which is created where it is missing. A full disk
    /// is no error here: appending fails then, until there is room.
    pub fn open(dir: &Path, limits: JournalLimits) -> Result<Journal, StoreError> {
        let dir = dir.join("journal");
        match create_durably(&dir) {
            Ok(()) | Err(StoreError::NoSpace { .. }) => Ok(Journal { dir, limits, writing: Mutex::new(()) }),
            Err(error) => Err(error),
        }
    }

    /// Adds a line, which the system writes to disk in its own time: a power cut may lose the last seconds.
    ///
    /// After an error the journal is as before, and later appends work as soon as the cause is gone.
    pub fn append(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.append_line(entry, false)
    }

    /// Adds a line that survives a power cut when this returns `Ok`: for the audit of what operators do.
    pub fn append_durable(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        self.append_line(entry, true)
    }

    /// The entries that `query` asks for, newest first, as they were written. Lines that are not whole entries (cut short
    /// by a crash) are passed over. The answer is shorter than asked for where it would exceed [`QUERY_BYTES_MAX`].
    pub fn read(&self, query: &JournalQuery) -> Result<Vec<Value>, StoreError> {
        let limit = query.limit.min(QUERY_ENTRIES_MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (path, file, len) in self.open_files()? {
            for line in LinesFromEnd::new(file, len, LINE_BYTES_MAX) {
                if entries.len() >= limit {
                    return Ok(entries);
                }
                let line = line.map_err(|e| StoreError::from_io("read", &path, e))?;
                let Some(entry) = query.select(&line) else { continue };
                bytes += line.len();
                if bytes > QUERY_BYTES_MAX {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn append_line(&self, entry: &JournalEntry, durable: bool) -> Result<(), StoreError> {
        let refused = |why| StoreError::Refused { what: "a journal entry".into(), why };
        let mut line = serde_json::to_vec(entry).map_err(|e| refused(e.to_string()))?;
        if line.len() > LINE_BYTES_MAX {
            return Err(refused(format!(
                "it has {} bytes; at most {LINE_BYTES_MAX} are allowed",
                line.len()
            )));
        }
        line.push(b'\n');

        let _writing = self.writing();
        let path = self.dir.join(CURRENT);
        let failed = |e| StoreError::from_io("append to", &path, e);
        let (mut file, mut len) = self.open_current()?;
        if len > 0 && len + line.len() as u64 > self.limits.file_bytes {
            self.rotate()?;
            (file, len) = self.open_current()?;
        }
        if !ends_with_newline(&file, len).map_err(failed)? {
            line.insert(0, b'\n');
        }
        let mut written = file.write_all(&line);
        if durable {
            written = written.and_then(|()| file.sync_all()).and_then(|()| File::open(&self.dir)?.sync_all());
        }
        written.map_err(|e| {
            // The part that was written goes, so that a refused change leaves no line. If even that fails, the next
            // append begins a new line, and readers pass over this one.
            let _ = file.set_len(len);
            failed(e)
        })
    }

    fn open_current(&self) -> Result<(File, u64), StoreError> {
        let path = self.dir.join(CURRENT);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let opened = match options.open(&path) {
            // The directory is gone, or could not be created at the start.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                create_durably(&self.dir)?;
                options.open(&path)
            }
            opened => opened,
        };
        opened
            .and_then(|file| file.metadata().map(|metadata| (file, metadata.len())))
            .map_err(|e| StoreError::from_io("open", &path, e))
    }

    /// Gives the current file a number, and deletes the oldest files that are too many.
    fn rotate(&self) -> Result<(), StoreError> {
        let mut numbers = self.numbers()?;
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        let current = self.dir.join(CURRENT);
        fs::rename(&current, self.numbered(next)).map_err(|e| StoreError::from_io("rename", &current, e))?;
        numbers.push(next);
        let kept = self.limits.files.saturating_sub(1);
        for &number in &numbers[..numbers.len().saturating_sub(kept)] {
            // What stays behind is tried again at the next rotation.
            let _ = fs::remove_file(self.numbered(number));
        }
        Ok(())
    }

    /// Numbers of the full files, oldest first.
    fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        let failed = |e| StoreError::from_io("read the directory", &self.dir, e);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(number_of(&name));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.dir.join(numbered_name(number))
    }

    /// All files, newest first, with the length they have now: what is appended later is not looked at.
    fn open_files(&self) -> Result<Vec<(PathBuf, File, u64)>, StoreError> {
        let _writing = self.writing();
        let numbered = match self.dir.exists() {
            true => self.numbers()?.into_iter().rev().map(|n| self.numbered(n)).collect(),
            false => Vec::new(),
        };
        let mut files = Vec::new();
        for path in [self.dir.join(CURRENT)].into_iter().chain(numbered) {
            match File::open(&path).and_then(|file| file.metadata().map(|m| (file, m.len()))) {
                Ok((file, len)) => files.push((path, file, len)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(StoreError::from_io("open", &path, e)),
            }
        }
        Ok(files)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JournalQuery {
    /// The entry in `line`, if it is one that is asked for.
    fn select(&self, line: &[u8]) -> Option<Value> {
        #[derive(Deserialize)]
        struct Head {
            at: Timestamp,
            kind: EntryKind,
            #[serde(default)]
            route: Option<RouteId>,
        }
        // Most lines fail here, before anything is allocated for their bodies. All files are looked through even for a
        // recent `since`: where the clock was set, the lines are not in the order of their times.
        let head: Head = serde_json::from_slice(line).ok()?;
        let wanted = self.since.is_none_or(|since| head.at >= since)
            && self.until.is_none_or(|until| head.at <= until)
            && self.kind.map_or(head.kind != EntryKind::Account, |kind| head.kind == kind)
            && self.route.as_ref().is_none_or(|route| head.route.as_ref() == Some(route));
        if wanted { serde_json::from_slice(line).ok() } else { None }
    }
}

fn numbered_name(number: u64) -> String {
    format!("{number:08}.jsonl")
}

/// The number of a full file by its name; `None` for any other file.
fn number_of(name: &OsStr) -> Option<u64> {
    let number = name.to_str()?.strip_suffix(".jsonl")?.parse().ok()?;
    (*name == *numbered_name(number)).then_some(number)
}

fn ends_with_newline(file: &File, len: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if len > 0 {
        file.read_exact_at(&mut last, len - 1)?;
    }
    Ok(last == [b'\n'])
}

#[cfg(test)]
mod tests;
