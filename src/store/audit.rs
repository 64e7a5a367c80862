//! The audit: who changed what, and what was refused, as entries of the journal of which each holds the hash of the one before.
//! An entry that was changed, taken out or put in between breaks the chain; what was cut off at the end does not, so the log has
//! every hash too.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::{EntryKind, Journal, JournalEntry, JournalQuery, StoreError};
use crate::model::{Digest, Timestamp};

/// What the first entry of all has in place of a hash before it.
const GENESIS: &str = "none";

/// The end of the chain, to which the next entry is added.
pub struct Audit {
    journal: Arc<Journal>,
    /// The hash of the last entry; held while the next one is written.
    last: Mutex<String>,
}

impl Audit {
    /// Goes on where the journal ends. Where it cannot be read a new chain begins, which a verification tells.
    pub fn open(journal: Arc<Journal>) -> Audit {
        let query = JournalQuery { kind: Some(EntryKind::Audit), limit: 1, ..JournalQuery::default() };
        let last = journal.read(&query).ok().and_then(|entries| hash_of(entries.first()?).map(str::to_owned));
        Audit { journal, last: Mutex::new(last.unwrap_or_else(|| GENESIS.into())) }
    }

    /// Adds an entry, on disk when this returns; gives its hash. `body` is an object.
    ///
    /// # Errors
    /// When it cannot be written; then the chain is as before.
    pub fn add(&self, at: Timestamp, body: Value) -> Result<String, StoreError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fields = match body {
            Value::Object(fields) => fields,
            other => Map::from_iter([("event".to_owned(), other)]),
        };
        fields.insert("previous".into(), last.as_str().into());
        let mut entry = JournalEntry { at, kind: EntryKind::Audit, route: None, body: Value::Object(fields) };
        let hash = digest(&json!(entry));
        entry.body["hash"] = hash.as_str().into();
        self.journal.append_durable(&entry)?;
        last.clone_from(&hash);
        Ok(hash)
    }
}

fn hash_of(entry: &Value) -> Option<&str> {
    entry["hash"].as_str()
}

/// The hash of an entry as it is written, without the field that holds it.
fn digest(entry: &Value) -> String {
    let mut fields = entry.as_object().cloned().unwrap_or_default();
    fields.remove("hash");
    Digest::of(Value::Object(fields).to_string().as_bytes()).to_string()
}

/// Follows a chain from its oldest entry.
#[derive(Debug, Default)]
pub struct Chain {
    last: Option<String>,
}

impl Chain {
    /// Takes the next entry; says what is wrong with it or before it.
    ///
    /// # Errors
    /// Why the chain is broken here. It is followed from this entry on as if it were the first.
    pub fn take(&mut self, entry: &Value) -> Result<(), String> {
        let before = self.last.take();
        let own = hash_of(entry).unwrap_or_default();
        self.last = Some(own.to_owned());
        if digest(entry) != own {
            return Err("it was changed after it was written: its hash is another one".into());
        }
        match before {
            Some(before) if entry["previous"].as_str() != Some(&before) => Err(
                "what came before it is not what was written before it: entries are missing, or were put in"
                    .into(),
            ),
            _ => Ok(()),
        }
    }

    /// The hash of the last entry.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::JournalLimits;

    fn entries(journal: &Journal) -> Vec<Value> {
        let query = JournalQuery { kind: Some(EntryKind::Audit), ..JournalQuery::default() };
        let mut entries = journal.read(&query).unwrap();
        entries.reverse();
        entries
    }

    fn faults(entries: &[Value]) -> Vec<usize> {
        let mut chain = Chain::default();
        (0..entries.len()).filter(|n| chain.take(&entries[*n]).is_err()).collect()
    }

    #[test]
    fn what_is_changed_afterwards_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::open(dir.path(), JournalLimits::default()).unwrap());
        for n in 0..6 {
            // As after a restart each time.
            let audit = Audit::open(journal.clone());
            audit.add(Timestamp::UNIX_EPOCH, json!({ "event": "test", "n": n, "share": 0.1 + 0.2 })).unwrap();
        }
        let good = entries(&journal);
        assert_eq!(good.len(), 6);
        assert_eq!(good[0]["previous"], GENESIS);
        assert!(faults(&good).is_empty());
        let mut changed = good.clone();
        changed[2]["n"] = 7.into();
        assert_eq!(faults(&changed), [2]);
        let mut missing = good.clone();
        missing.remove(3);
        assert_eq!(faults(&missing), [3]);
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(faults(&swapped), [1, 2, 3]);
        // Changed, with a hash that fits: the next one does not.
        let mut forged = good.clone();
        forged[4]["n"] = 7.into();
        forged[4]["hash"] = digest(&forged[4]).into();
        assert_eq!(faults(&forged), [5]);
        assert!(faults(&good[2..]).is_empty(), "the oldest may be gone");
    }
}
