//! Why something could not be stored or read, in the words of whoever can repair it.

use std::{io, path::Path};

use super::overrides::OVERRIDES_MAX;

/// Why something could not be stored or read. Each message says what failed, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the quota is full, or the file would be larger than allowed.
    #[error(
        "cannot {action} {place}: no space is left ({cause}); free space there or raise the limit, then try again"
    )]
    NoSpace {
        /// What was attempted, `write`.
        action: &'static str,
        /// The file or directory.
        place: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The file or directory may not be used, or its file system is read-only.
    #[error(
        "cannot {action} {place}: {cause}; give the user that runs tradewind read and write access to it, or set \
         `state.dir` to a directory that it may write"
    )]
    NotWritable {
        /// What was attempted, `write`.
        action: &'static str,
        /// The file or directory.
        place: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("{file} is corrupt: {why}")]
    Corrupt {
        /// The file.
        file: String,
        /// What is wrong with it, and what became of it.
        why: String,
    },
    /// Another process uses the state directory.
    #[error(
        "the state directory {dir} is in use by {}; wait until that process has ended, or set `state.dir` to another \
         directory",
        .pid.map_or_else(|| "another process".to_owned(), |pid| format!("the process with pid {pid}"))
    )]
    InUse {
        /// The state directory.
        dir: String,
        /// The other process, in the numbering of its own container; `None` if it left no number.
        pid: Option<u32>,
    },
    /// As many overrides as allowed are active.
    #[error(
        "{OVERRIDES_MAX} overrides are active, which is the limit: end one, or let one expire, then try again"
    )]
    TooMany,
    /// What was to be stored cannot be stored anywhere: the fault is in the request.
    #[error("cannot store {what}: {why}")]
    Refused {
        /// What was to be stored.
        what: String,
        /// What is wrong with it, and what is allowed.
        why: String,
    },
    /// Anything else that the system reports.
    #[error("cannot {action} {place}: {cause}; check the disk and the path in `state.dir`")]
    Io {
        /// What was attempted, `write`.
        action: &'static str,
        /// The file or directory.
        place: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl StoreError {
    /// Sorts what the system said while it was to do `action` at `path`.
    pub(super) fn from_io(action: &'static str, path: &Path, cause: io::Error) -> StoreError {
        let place = path.display().to_string();
        match cause.kind() {
            // ENOSPC, EDQUOT, EFBIG: for the operator one and the same.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::NoSpace { action, place, cause }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::NotWritable { action, place, cause }
            }
            _ => StoreError::Io { action, place, cause },
        }
    }
}
