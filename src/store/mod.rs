//! What outlives a restart: overrides, small pieces of state and the journal, in a local directory.
//!
//! Read in this order: [`Blobs`] (what a place for state must promise) and [`local`] (a directory that does),
//! [`overrides`] (acknowledged means durable) and [`journal`] (best effort, never in the way). Everything here blocks on
//! the disk: call it from a thread that may wait. No clock: time is an argument.

pub mod audit;
pub mod error;
pub mod journal;
mod lines;
pub mod local;
pub mod overrides;

#[cfg(test)]
mod full_disk;

pub use audit::Audit;
pub use error::StoreError;
pub use journal::{EntryKind, Journal, JournalEntry, JournalLimits, JournalQuery};
pub use local::LocalDir;
pub use overrides::{OVERRIDES_MAX, Overrides};

/// A place for small named pieces of state, each read and replaced as a whole.
///
/// Names hold ASCII letters, digits, `-`, `_` and `.`, start with a letter or digit, and have at most
/// [`local::BLOB_NAME_LEN_MAX`] characters.
pub trait Blobs: Send + Sync {
    /// Replaces what `name` holds. `Ok` means that the bytes survive a crash and a power cut; on an error `name` holds
    /// what it held before. Never a mixture.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// What `name` holds; `None` if it was never put, or deleted.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// Forgets `name`, durably. Not an error if there is nothing.
    fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// Where `name` is, for messages to an operator.
    fn locate(&self, name: &str) -> String;
}
