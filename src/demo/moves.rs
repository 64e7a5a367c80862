//! The moves of the demo's traffic, read from the journal.

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Action, Reason, Timestamp};

/// Traffic that was sent elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// When it was decided, in real time.
    pub at: Timestamp,
    /// What was done.
    pub action: Action,
    /// Why, in words.
    pub reason: String,
}

#[derive(Deserialize)]
struct Entry {
    at: Timestamp,
    decision: Decided,
}

#[derive(Deserialize)]
struct Decided {
    action: Action,
    reason: Reason,
}

/// All moves so far. Entries of the journal are read once.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    list: Vec<Move>,
    newest: Option<Timestamp>,
}

impl Moves {
    /// The time from which the journal is still unread.
    pub fn unread_since(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Takes entries of the journal, newest first, as its API gives them.
    ///
    /// # Errors
    /// A decision that cannot be read: a move could be missing.
    pub fn read(&mut self, entries: &[Value]) -> Result<(), String> {
        for entry in entries.iter().rev().filter(|entry| entry["kind"] == "decision") {
            let Entry { at, decision } = Entry::deserialize(entry)
                .map_err(|error| format!("a decision in the journal cannot be read: {error}: {entry}"))?;
            if self.newest.is_some_and(|newest| at <= newest) {
                continue;
            }
            self.newest = Some(at);
            // The first placement is a beginning, and staying is none.
            if !matches!(decision.action, Action::Place | Action::Stay) {
                self.list.push(Move { at, action: decision.action, reason: decision.reason.to_string() });
            }
        }
        Ok(())
    }

    /// The moves, oldest first.
    pub fn list(&self) -> &[Move] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(second: u32, action: &str) -> Value {
        json!({
            "at": format!("2026-01-01T00:00:{second:02}Z"),
            "kind": "decision",
            "route": "chat",
            "decision": {
                "action": action,
                "reason": { "code": "gap_reached", "from": "a", "to": "b", "gap": 0.2, "threshold": 0.15 },
            },
        })
    }

    #[test]
    fn every_move_is_taken_once_and_in_order() {
        let mut moves = Moves::default();
        moves.read(&[entry(2, "shift"), entry(1, "place")]).expect("valid");
        let config = json!({ "at": "2026-01-01T00:00:09Z", "kind": "config" });
        moves.read(&[config, entry(4, "return"), entry(3, "stay"), entry(2, "shift")]).expect("valid");
        let found: Vec<_> = moves.list().iter().map(|m| (m.at.to_string(), m.action.as_str())).collect();
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
        assert_eq!(found, [(at(2), "shift"), (at(4), "return")]);
        assert!(moves.list()[0].reason.starts_with("b is cheaper than a by 20%"));
        assert_eq!(moves.unread_since().map(|t| t.to_string()), Some(at(4)));
    }

    #[test]
    fn a_decision_that_cannot_be_read_is_no_silence() {
        let odd =
            json!({ "at": "2026-01-01T00:00:00Z", "kind": "decision", "decision": { "action": "dance" } });
        assert!(Moves::default().read(&[odd]).is_err());
    }
}
