//! State in a directory of this machine, for one process at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Blobs, StoreError};

/// Longest name of a blob; file systems allow 255 bytes, and the temporary file needs some more than the name.
pub const BLOB_NAME_LEN_MAX: usize = 200;

const LOCK_FILE: &str = "lock";
const TEMP_SUFFIX: &str = ".tmp";

/// A directory that holds one file a blob. No other process can open it until this value is dropped.
#[derive(Debug)]
pub struct LocalDir {
    path: PathBuf,
    /// Open for as long as the directory is used, so that syncing it needs no file descriptor that may be lacking.
    directory: File,
    /// Holds the lock; the system lets go of it when the process ends, however it ends.
    lock: File,
    temps: AtomicU64,
}

impl LocalDir {
    /// Opens the directory, creates it (mode 0700) where it is missing, takes its lock, and removes what a write that was
    /// cut short left behind.
    ///
    /// Fails with [`StoreError::InUse`] while another process holds the lock: at a restart that overlaps, try again until
    /// the old process has ended.
    pub fn open(path: impl Into<PathBuf>) -> Result<LocalDir, StoreError> {
        let path = path.into();
        create_durably(&path)?;
        let lock = lock(&path)?;
        LocalDir::locked(path, lock)
    }

    /// Opens the directory with its lock, which another process has handed over and which both hold as long as both live. That
    /// one must write no more.
    pub fn open_with(path: impl Into<PathBuf>, lock: File) -> Result<LocalDir, StoreError> {
        sign(&lock);
        LocalDir::locked(path.into(), lock)
    }

    fn locked(path: PathBuf, lock: File) -> Result<LocalDir, StoreError> {
        let directory = File::open(&path).map_err(|e| StoreError::from_io("open", &path, e))?;
        remove_temps(&path)?;
        // A file system that cannot sync a directory cannot keep the promise of `put`: better known now than at the
        // first override.
        directory.sync_all().map_err(|e| StoreError::from_io("sync", &path, e))?;
        Ok(LocalDir { path, directory, lock, temps: AtomicU64::new(0) })
    }

    /// The lock, to be handed over.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let chars_ok = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !starts_well || !chars_ok || name.len() > BLOB_NAME_LEN_MAX || name == LOCK_FILE {
            return Err(StoreError::Refused {
                what: format!("`{}`", name.escape_default()),
                why: format!(
                    "expected a name of at most {BLOB_NAME_LEN_MAX} letters, digits, `-`, `_` and `.`, which starts with a \
                     letter or digit and is not `{LOCK_FILE}`"
                ),
            });
        }
        Ok(self.path.join(name))
    }

    /// Writes and syncs a file beside `target`, then gives it the name of `target`.
    fn replace(&self, target: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        // A blob's name never starts with a dot, so this name is never one.
        let temp =
            self.path.join(format!(".{name}.{}{TEMP_SUFFIX}", self.temps.fetch_add(1, Ordering::Relaxed)));
        let written = write_synced(&temp, bytes)
            .and_then(|()| fs::rename(&temp, target))
            .map_err(|e| StoreError::from_io("write", target, e));
        if written.is_err() {
            // It may not even exist. What cannot be removed now is removed at the next start.
            let _ = fs::remove_file(&temp);
        }
        written
    }
}

impl Blobs for LocalDir {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.file(name)?;
        let before = self.get(name)?;
        self.replace(&target, name, bytes)?;
        self.directory.sync_all().map_err(|cause| {
            // The new content is visible, but may be gone after a power cut: an acknowledgement would be a lie, and so
            // would be a refusal that takes effect. A disk that fails here may fail to restore as well; then only its
            // repair tells which of the two contents it holds.
            let _ = match &before {
                Some(bytes) => self.replace(&target, name, bytes).is_ok(),
                None => fs::remove_file(&target).is_ok(),
            };
            StoreError::from_io("sync", &self.path, cause)
        })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let file = self.file(name)?;
        match fs::read(&file) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::from_io("read", &file, e)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let file = self.file(name)?;
        match fs::remove_file(&file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::from_io("delete", &file, e)),
            _ => self.directory.sync_all().map_err(|e| StoreError::from_io("sync", &self.path, e)),
        }
    }

    fn locate(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Creates a directory and those above it, and makes their names durable.
pub(super) fn create_durably(path: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|e| StoreError::from_io("create the directory", path, e))?;
    for directory in missing {
        let parent = match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent).and_then(|p| p.sync_all()).map_err(|e| StoreError::from_io("sync", parent, e))?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| StoreError::from_io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(StoreError::InUse { dir: dir.display().to_string(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(StoreError::from_io("lock", &path, e)),
    }
    sign(&file);
    Ok(file)
}

/// Writes into a lock whose it is. Padded, so that it covers the number of any process before. Only for a message: on a full disk
/// the lock holds without it.
fn sign(lock: &File) {
    let _ = lock.write_all_at(format!("{:<10}\n", std::process::id()).as_bytes(), 0);
}

fn remove_temps(dir: &Path) -> Result<(), StoreError> {
    let reading = |e| StoreError::from_io("read the directory", dir, e);
    for entry in fs::read_dir(dir).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(TEMP_SUFFIX) {
            fs::remove_file(entry.path()).map_err(|e| StoreError::from_io("delete", &entry.path(), e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
