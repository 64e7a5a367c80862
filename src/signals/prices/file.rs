//! A price file, read when it changes.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;

use super::{FeedFault, PriceSource, Quote, Replay, table::PriceTable};
use crate::model::Timestamp;

/// Largest price file. A row is about 70 bytes: this holds some 3.5 million, years of history of a whole provider, and
/// still fits into memory several times over.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A file that changed less than this ago may still be growing, or change again without its time stamp showing it.
const YOUNG: SignedDuration = SignedDuration::from_secs(2);

/// A CSV file as a source of prices. All methods block: call them off the threads that serve requests.
#[derive(Debug)]
pub struct FileSource {
    name: Arc<str>,
    path: PathBuf,
    replay: Option<Playing>,
    /// From one fetch to the next when nothing changes.
    every: Duration,
    read: Option<LastRead>,
    /// When quotes were last handed out.
    told_at: Option<Timestamp>,
    /// When (in the file's time) the next row begins to hold.
    next_change: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Playing {
    replay: Replay,
    started: Timestamp,
}

/// The outcome of reading the file, and which state of the file it was. A bad file is not parsed again until it changes.
#[derive(Debug)]
struct LastRead {
    state: FileState,
    /// The file was too young to be sure that the same state means the same content.
    young: bool,
    outcome: Result<PriceTable, FeedFault>,
}

/// What changes when a file is written to or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> FileState {
        FileState {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn young(&self, now: Timestamp) -> bool {
        let nanosecond = i32::try_from(self.modified.1).unwrap_or(0);
        Timestamp::new(self.modified.0, nanosecond).is_ok_and(|at| now.duration_since(at).abs() < YOUNG)
    }
}

impl FileSource {
    /// `refresh` is the real time from one fetch to the next when nothing changes. A replay begins at `started`.
    /// `None` for a source that is no file.
    pub fn new(source: &PriceSource, refresh: Duration, started: Timestamp) -> Option<FileSource> {
        let PriceSource::File { path, replay } = source else { return None };
        Some(FileSource {
            name: source.name(),
            path: path.clone(),
            replay: replay.map(|replay| Playing { replay, started }),
            // Of a replay at least as often as its time passes, since that is how it confirms.
            every: refresh.min(source.confirm_after(refresh)),
            read: None,
            told_at: None,
            next_change: None,
        })
    }

    /// Its name in reports, `file:prices.csv`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The file's "now": that of the world, or for a replay that of the recording.
    pub fn virtual_time(&self, now: Timestamp) -> Timestamp {
        let Some(Playing { replay, started }) = self.replay else { return now };
        let played = now.duration_since(started).as_secs_f64().max(0.0) * replay.speed;
        let played = SignedDuration::try_from_secs_f64(played).unwrap_or(SignedDuration::MAX);
        replay.from.saturating_add(played).unwrap_or(Timestamp::MAX)
    }

    /// One fetch, if there is reason for one: the file changed, a row came due, or the refresh interval passed. `None` when
    /// there is not. Costs one `stat` then; the file is parsed only after it changed.
    ///
    /// # Errors
    /// The file cannot be read, is not a price file, or none of its rows holds yet: said again at each call while it lasts.
    pub fn poll(&mut self, now: Timestamp) -> Option<Result<Vec<Quote>, FeedFault>> {
        let reread = match self.read_if_changed(now) {
            Ok(reread) => reread,
            Err(fault) => {
                // When it comes back it has changed, whatever its time stamps say.
                self.read = None;
                return Some(Err(fault));
            }
        };
        let table = match &self.read.as_ref()?.outcome {
            Ok(table) => table,
            Err(fault) => return Some(Err(fault.clone())),
        };
        let time = self.virtual_time(now);
        let due = self.next_change.is_some_and(|next| next <= time);
        // A clock that was set back must not silence the source until it has caught up.
        let refresh = self.told_at.is_none_or(|told| {
            let silent = now.duration_since(told);
            silent.is_negative() || Duration::try_from(silent).is_ok_and(|silent| silent >= self.every)
        });
        if !(reread || due || refresh) {
            return None;
        }
        self.told_at = Some(now);
        self.next_change = table.next_change(time);
        let quotes = table.at(time);
        if quotes.is_empty() {
            return Some(Err(self.nothing_holds(table.len(), time)));
        }
        Some(Ok(quotes))
    }

    /// Every price that held at some time from `since` to `until`, oldest first for each key; the first of a key may begin
    /// before.
    ///
    /// # Errors
    /// The file cannot be read, or is not a price file.
    pub(super) fn between(&self, since: Timestamp, until: Timestamp) -> Result<Vec<Quote>, FeedFault> {
        let (content, _) = read(&self.path)?;
        Ok(PriceTable::parse(&self.path.display().to_string(), &content)?.between(since, until))
    }

    /// Whether the file was read.
    fn read_if_changed(&mut self, now: Timestamp) -> Result<bool, FeedFault> {
        let state = stat(&self.path)?;
        if self.read.as_ref().is_some_and(|read| read.state == state && !read.young) {
            return Ok(false);
        }
        let (content, state) = read(&self.path)?;
        let young = state.young(now);
        // Half of a number is a number too: while a file may still be growing, a line without an end is not trusted. The
        // first read cannot wait, for there is nothing else to go by.
        if young && self.read.is_some() && !content.ends_with(b"\n") {
            return Ok(false);
        }
        let outcome = PriceTable::parse(&self.path.display().to_string(), &content);
        self.read = Some(LastRead { state, young, outcome });
        Ok(true)
    }

    fn nothing_holds(&self, rows: usize, time: Timestamp) -> FeedFault {
        let file = self.path.display();
        match self.next_change {
            Some(first) => FeedFault(format!(
                "{file}: none of its {rows} rows holds at {time:.0}, the earliest begins at {first}; expected rows from before{}",
                if self.replay.is_some() { ", or a replay `from` a later time" } else { "" }
            )),
            None => FeedFault(format!("{file} has a header but no row: expected a row for each price")),
        }
    }
}

fn stat(path: &Path) -> Result<FileState, FeedFault> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(FeedFault(format!(
            "{} is not a regular file: expected a CSV file with prices",
            path.display()
        )));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(FeedFault(format!(
            "{} has {} bytes; at most {FILE_BYTES_MAX} are read: leave out machines, regions or years that are not used",
            path.display(),
            metadata.len()
        )));
    }
    Ok(FileState::of(&metadata))
}

/// The content, and the state of the file that it belongs to.
fn read(path: &Path) -> Result<(Vec<u8>, FileState), FeedFault> {
    let attempt = || -> io::Result<(Vec<u8>, FileState)> {
        let mut file = File::open(path)?;
        // Taken before reading: what is written meanwhile makes the state differ at the next poll.
        let state = FileState::of(&file.metadata()?);
        let mut content = Vec::with_capacity(usize::try_from(state.bytes.min(FILE_BYTES_MAX)).unwrap_or(0));
        file.by_ref().take(FILE_BYTES_MAX).read_to_end(&mut content)?;
        Ok((content, state))
    };
    attempt().map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> FeedFault {
    FeedFault(format!(
        "{} cannot be read: {error}; the prices that were read last stay in use",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "at,cloud,region,zone,instance_type,offer,usd_per_hour\n";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn later(seconds: i64) -> Timestamp {
        time("2021-03-02T00:00:00Z") + SignedDuration::from_secs(seconds)
    }

    fn source(path: &Path, replay: Option<Replay>) -> FileSource {
        let source = PriceSource::File { path: path.to_owned(), replay };
        FileSource::new(&source, Duration::from_secs(300), later(0)).unwrap()
    }

    fn write(path: &Path, rows: &str) {
        // Replaced as a whole, as editors and deployment tools do it.
        let new = path.with_extension("new");
        fs::write(&new, format!("{TOP}{rows}")).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn row(at: &str, usd: &str) -> String {
        format!("{at},aws,us-east-1,us-east-1a,p3.2xlarge,spot,{usd}\n")
    }

    fn says(poll: Option<Result<Vec<Quote>, FeedFault>>) -> Option<f64> {
        poll.map(|outcome| outcome.unwrap()[0].usd_per_hour)
    }

    #[test]
    fn a_fetch_happens_on_change_when_a_row_is_due_and_at_each_refresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        write(&path, &(row("2021-03-01T00:00:00Z", "1") + &row("2021-03-02T00:01:00Z", "2")));
        let mut file = source(&path, None);
        assert_eq!(says(file.poll(later(0))), Some(1.0));
        assert_eq!(says(file.poll(later(59))), None);
        assert_eq!(says(file.poll(later(60))), Some(2.0), "a row came due");
        assert_eq!(says(file.poll(later(61))), None);
        assert_eq!(says(file.poll(later(360))), Some(2.0), "the refresh interval passed");
        write(&path, &row("2021-03-01T00:00:00Z", "3"));
        assert_eq!(says(file.poll(later(361))), Some(3.0), "the file changed");
        assert_eq!(says(file.poll(later(0))), Some(3.0), "the clock was set back");
    }

    #[test]
    fn a_replay_plays_from_its_start_at_its_speed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        write(&path, &(row("2020-01-01T00:00:00Z", "1") + &row("2020-01-01T02:00:00Z", "2")));
        let from = time("2020-01-01T00:00:00Z");
        let mut file = source(&path, Some(Replay { from, speed: 3600.0 }));
        assert_eq!(file.virtual_time(later(1)), time("2020-01-01T01:00:00Z"));
        assert_eq!(file.virtual_time(later(-5)), from, "the clock was set back");
        assert_eq!(says(file.poll(later(0))), Some(1.0));
        assert_eq!(says(file.poll(later(2))), Some(2.0));
        file = source(&path, Some(Replay { from, speed: 1e300 }));
        assert_eq!(file.virtual_time(later(1)), Timestamp::MAX);
    }

    #[test]
    fn a_fault_is_said_until_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        let mut file = source(&path, None);
        let fault = |file: &mut FileSource, second| file.poll(later(second)).unwrap().unwrap_err().0;
        assert!(fault(&mut file, 0).contains("cannot be read"));
        write(&path, "garbage\n");
        assert!(fault(&mut file, 1).contains("line 2: found 1 fields"));
        assert!(fault(&mut file, 2).contains("line 2: found 1 fields"));
        write(&path, "");
        assert!(fault(&mut file, 3).contains("has a header but no row"));
        write(&path, &row("2021-04-01T00:00:00Z", "1"));
        assert!(fault(&mut file, 4).contains("none of its 1 rows holds"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(fault(&mut file, 5).contains("not a regular file"));
        fs::remove_dir(&path).unwrap();
        write(&path, &row("2021-03-01T00:00:00Z", "1"));
        assert_eq!(says(file.poll(later(6))), Some(1.0));
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let fault = source(&path, None).poll(later(0)).unwrap().unwrap_err().0;
        assert!(fault.contains("at most 268435456 are read"), "{fault}");
    }

    #[test]
    fn half_a_line_of_a_growing_file_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.csv");
        let whole = row("2021-03-01T00:00:00Z", "0.526");
        write(&path, &whole);
        let mut file = source(&path, None);
        assert_eq!(says(file.poll(Timestamp::now())), Some(0.526));
        // Two digits of the price have not been written yet.
        fs::write(&path, format!("{TOP}{}", &whole[..whole.len() - 3])).unwrap();
        assert_eq!(says(file.poll(Timestamp::now())), None);
        fs::write(&path, format!("{TOP}{whole}")).unwrap();
        assert_eq!(says(file.poll(Timestamp::now())), Some(0.526));
        // An hour later a missing line end is the writer's habit.
        fs::write(&path, format!("{TOP}{}", whole.trim_end())).unwrap();
        assert_eq!(says(file.poll(Timestamp::now() + SignedDuration::from_hours(1))), Some(0.526));
    }
}
