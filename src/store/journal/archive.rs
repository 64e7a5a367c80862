//! Reading a whole journal, oldest line first, also while a process writes it, and from a copy of its directory.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Take},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    vec,
};

use serde_json::{Map, Value};

use super::{CURRENT, JournalEntry, LINE_BYTES_MAX, number_of};
use crate::store::StoreError;

/// A line, or why it cannot be read.
#[derive(Debug)]
pub enum Line {
    /// An entry, and the fields of its body.
    Entry(Box<JournalEntry>),
    /// What is no entry.
    Damaged {
        /// Where it is, `journal/current.jsonl:7`.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The last line has no end: it is being written, or a crash cut it short.
    Unfinished,
}

/// The lines of a journal.
#[derive(Debug)]
pub struct Archive {
    files: vec::IntoIter<(PathBuf, File, u64)>,
    open: Option<(PathBuf, BufReader<Take<File>>, u64)>,
}

impl Archive {
    /// Opens all files as they are now; what is appended later is not looked at. Takes no lock and writes nothing.
    ///
    /// # Errors
    /// When the directory is not there or cannot be read.
    pub fn open(dir: &Path) -> Result<Archive, StoreError> {
        let failed = |e| StoreError::from_io("read the directory", dir, e);
        let mut opened = Vec::new();
        let mut seen = HashSet::new();
        let mut open = |order: u64, path: PathBuf| -> Result<(), StoreError> {
            match File::open(&path).and_then(|file| file.metadata().map(|m| (file, m))) {
                Ok((file, metadata)) => {
                    if seen.insert(metadata.ino()) {
                        opened.push((order, path, file, metadata.len()));
                    }
                    Ok(())
                }
                // Deleted to make room since the directory was read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(e) => Err(StoreError::from_io("open", &path, e)),
            }
        };
        // The current file first: should it get its number meanwhile, it is found twice and not missed.
        open(u64::MAX, dir.join(CURRENT))?;
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if let Some(number) = path.file_name().and_then(number_of) {
                open(number, path)?;
            }
        }
        opened.sort_by_key(|(order, ..)| *order);
        let files: Vec<_> = opened.into_iter().map(|(_, path, file, len)| (path, file, len)).collect();
        Ok(Archive { files: files.into_iter(), open: None })
    }

    /// Files that are still to be read, with the one at hand.
    pub fn files(&self) -> usize {
        self.files.len() + usize::from(self.open.is_some())
    }

    fn parse(path: &Path, number: u64, line: &[u8]) -> Line {
        let damaged = |why: String| Line::Damaged { place: format!("{}:{number}", path.display()), why };
        if line.len() > LINE_BYTES_MAX {
            return damaged(format!("it is longer than {LINE_BYTES_MAX} bytes"));
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(Value::Object(fields)) => match entry_of(fields) {
                Ok(entry) => Line::Entry(Box::new(entry)),
                Err(why) => damaged(why),
            },
            Ok(_) => damaged("it is no JSON object".into()),
            Err(error) => damaged(format!("it is no whole JSON object: {error}")),
        }
    }
}

/// An entry whose body keeps the order and the figures of the line: going through a flattened structure would not.
fn entry_of(mut fields: Map<String, Value>) -> Result<JournalEntry, String> {
    let mut take = |name: &str| fields.shift_remove(name);
    let at = take("at").ok_or("it has no `at`")?;
    let kind = take("kind").ok_or("it has no `kind`")?;
    let route = take("route").unwrap_or(Value::Null);
    Ok(JournalEntry {
        at: serde_json::from_value(at).map_err(|error| format!("`at`: {error}"))?,
        kind: serde_json::from_value(kind).map_err(|error| format!("`kind`: {error}"))?,
        route: serde_json::from_value(route).map_err(|error| format!("`route`: {error}"))?,
        body: Value::Object(fields),
    })
}

impl Iterator for Archive {
    type Item = Result<Line, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.open.is_none() {
                let (path, file, len) = self.files.next()?;
                self.open = Some((path, BufReader::new(file.take(len)), 0));
            }
            let last_file = self.files.len() == 0;
            let (path, reader, number) = self.open.as_mut()?;
            let mut line = Vec::new();
            // A line that is too long is read in pieces and given up as a whole.
            let read = reader.by_ref().take(LINE_BYTES_MAX as u64 + 2).read_until(b'\n', &mut line);
            match read {
                Err(error) => {
                    let failed = StoreError::from_io("read", path, error);
                    self.open = None;
                    return Some(Err(failed));
                }
                Ok(0) => self.open = None,
                Ok(_) => {
                    *number += 1;
                    let whole = line.ends_with(b"\n");
                    if !whole && line.len() > LINE_BYTES_MAX {
                        if let Err(error) = skip_line(reader) {
                            return Some(Err(StoreError::from_io("read", path, error)));
                        }
                    } else if !whole && last_file {
                        return Some(Ok(Line::Unfinished));
                    }
                    let line = line.strip_suffix(b"\n").unwrap_or(&line);
                    if !line.is_empty() {
                        return Some(Ok(Archive::parse(path, *number, line)));
                    }
                }
            }
        }
    }
}

/// Passes over the rest of a line.
fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (used, end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(used);
        if end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        model::Timestamp,
        store::{EntryKind, Journal, JournalLimits},
    };

    fn entry(n: i64, filler: usize) -> JournalEntry {
        let body = json!({"n": n, "filler": "x".repeat(filler)});
        JournalEntry { at: Timestamp::from_second(n).unwrap(), kind: EntryKind::State, route: None, body }
    }

    fn seen(dir: &Path) -> Vec<String> {
        let lines = Archive::open(dir).unwrap();
        lines
            .map(|line| match line.unwrap() {
                Line::Entry(entry) => entry.body["n"].to_string(),
                Line::Damaged { place, .. } => {
                    format!("damaged {}", place.rsplit_once('/').unwrap().1)
                }
                Line::Unfinished => "unfinished".into(),
            })
            .collect()
    }

    #[test]
    fn all_files_are_read_from_the_oldest_line_on_and_what_is_wrong_is_said() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::open(home.path(), JournalLimits { file_bytes: 400, files: 9 }).unwrap();
        (0..10).for_each(|n| journal.append(&entry(n, 90)).unwrap());
        let dir = home.path().join("journal");
        let all: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(seen(&dir), all);
        let first = dir.join("00000001.jsonl");
        let text = fs::read_to_string(&first).unwrap();
        let long = "y".repeat(3 * LINE_BYTES_MAX);
        fs::write(&first, text.replacen("\"kind\":\"state\"", "\"kind\":\"state", 1) + &long + "\n[]\n")
            .unwrap();
        let current = dir.join(CURRENT);
        fs::write(&current, fs::read_to_string(&current).unwrap() + "{\"at\":").unwrap();
        let seen = seen(&dir);
        assert_eq!(seen[0], "damaged 00000001.jsonl:1");
        let damaged: Vec<&String> = seen.iter().filter(|line| line.starts_with("damaged")).collect();
        assert_eq!((damaged.len(), seen.len(), seen.last().unwrap().as_str()), (3, 13, "unfinished"));
    }

    #[test]
    fn a_journal_that_is_not_there_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let error = Archive::open(&home.path().join("nowhere")).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        assert_eq!(Archive::open(home.path()).unwrap().count(), 0);
    }
}
