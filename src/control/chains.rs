//! Journals decisions so that each can be made again: with all that it was made from, whole now and then, and in between as
//! what changed.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{
    model::{RouteId, Timestamp},
    record::inputs::{self, Last},
    store::{EntryKind, Journal, JournalEntry, StoreError, journal::Place},
};

/// Entries of a route that may follow a whole one as changes: what a reader loses at most to a damaged line.
const CHANGES_MAX: u32 = 63;

/// Routes whose last inputs are remembered, at some 2 kB for each of their backends. Beyond, all begin anew with whole ones:
/// longer entries, but no more memory.
const ROUTES_MAX: usize = 1_000;

/// A decision to journal.
pub(super) struct DecisionNote {
    /// When it was made.
    pub(super) at: Timestamp,
    /// The route.
    pub(super) route: RouteId,
    /// Counts loads of the configuration: after each, entries begin whole.
    pub(super) generation: u64,
    /// What the entry says besides its inputs.
    pub(super) body: Map<String, Value>,
    /// What it was made from, as [`crate::record::Inputs`] in JSON.
    pub(super) inputs: Value,
}

/// The last entry of a route.
struct Link {
    at: Timestamp,
    generation: u64,
    /// As text, which takes a fifth of the memory.
    inputs: String,
    place: Place,
    changes: u32,
}

/// The last entry of every route.
#[derive(Default)]
pub(super) struct Chains {
    links: HashMap<RouteId, Link>,
}

impl Chains {
    /// Appends a decision: as changes where the entry before is near, of the same configuration and in the same file, so that
    /// no reader needs a file that is gone; else whole.
    pub(super) fn append(&mut self, journal: &Journal, note: DecisionNote) -> Result<(), StoreError> {
        let DecisionNote { at, route, generation, body, inputs } = note;
        let entry = |fields: Map<String, Value>| {
            let body =
                Value::Object(body.iter().map(|(k, v)| (k.clone(), v.clone())).chain(fields).collect());
            JournalEntry { at, kind: EntryKind::Decision, route: Some(route.clone()), body }
        };
        // Whatever happens below, nothing builds on an entry of which it is not known whether it was written.
        let before = self.links.remove(&route);
        let before = before.filter(|link| link.generation == generation && link.changes < CHANGES_MAX);
        let short = before.and_then(|link| {
            let last = Last { at: link.at, inputs: serde_json::from_str(&link.inputs).ok()? };
            Some((entry(inputs::since(&last, &inputs)), link))
        });
        let follows = short.as_ref().map(|(short, link)| (short, link.place));
        let (place, followed) = journal.append_following(follows, &entry(inputs::whole(&inputs)))?;
        let changes = match &short {
            Some((_, link)) if followed => link.changes + 1,
            _ => 0,
        };
        if self.links.len() >= ROUTES_MAX {
            self.links.clear();
        }
        self.links.insert(route, Link { at, generation, inputs: inputs.to_string(), place, changes });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{JournalLimits, JournalQuery};

    fn note(second: i64, generation: u64, n: u64) -> DecisionNote {
        DecisionNote {
            at: Timestamp::from_second(second).unwrap(),
            route: "chat".parse().unwrap(),
            generation,
            body: Map::from_iter([("action".to_owned(), json!("stay"))]),
            inputs: json!({"policy": 0, "snapshot": {"n": n, "filler": "x".repeat(500)}, "state": 0}),
        }
    }

    /// Whether each entry is whole, oldest first.
    fn wholes(journal: &Journal) -> Vec<bool> {
        let entries = journal.read(&JournalQuery { limit: 1000, ..JournalQuery::default() }).unwrap();
        entries.iter().rev().map(|entry| entry.get("snapshot").is_some()).collect()
    }

    #[test]
    fn entries_are_whole_at_first_after_a_reload_and_now_and_then() {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::open(home.path(), JournalLimits::default()).unwrap();
        let mut chains = Chains::default();
        for n in 0..3 {
            chains.append(&journal, note(n, 1, n as u64)).unwrap();
        }
        chains.append(&journal, note(3, 2, 3)).unwrap();
        chains.append(&journal, note(4, 2, 4)).unwrap();
        Chains::default().append(&journal, note(5, 2, 5)).unwrap();
        assert_eq!(wholes(&journal), [true, false, false, true, false, true]);
        for n in 6..100 {
            chains.append(&journal, note(n, 2, 0)).unwrap();
        }
        let whole = wholes(&journal)[6..].iter().position(|whole| *whole).unwrap();
        assert_eq!(whole, CHANGES_MAX as usize - 1);
    }

    #[test]
    fn every_file_begins_with_whole_entries() {
        let home = tempfile::tempdir().unwrap();
        let limits = JournalLimits { file_bytes: 2000, files: 3 };
        let journal = Journal::open(home.path(), limits).unwrap();
        let mut chains = Chains::default();
        for n in 0..100 {
            chains.append(&journal, note(n, 1, n as u64)).unwrap();
            if n == 90 {
                std::fs::remove_file(home.path().join("journal/current.jsonl")).unwrap();
            }
        }
        let mut files = 0;
        for entry in std::fs::read_dir(home.path().join("journal")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(lines[0].get("snapshot").is_some() && lines[1].get("changes").is_some(), "{text}");
            files += 1;
        }
        assert_eq!(files, 3);
    }
}
