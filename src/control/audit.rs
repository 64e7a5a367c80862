//! What is written down of changes and of refusals.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Control, lock};
use crate::{admin::Refusal, model::Timestamp};

/// Refusals of one kind written down at once; beyond, they are counted. A journal must not be filled by who may not even call, and
/// what one kind does not write down, another one still does.
const REFUSALS: f64 = 10.0;

/// After so long, one more is written down.
const ONE_MORE_AFTER: Duration = Duration::from_secs(10);

/// How many more refusals of each kind are written down, and how many were not.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<&'static str, Allowance>>);

struct Allowance {
    left: f64,
    at: Instant,
    left_out: u64,
}

impl Refusals {
    /// How many were left out since the last one, if this one is to be written down.
    fn admit(&self, code: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = lock(&self.0);
        let allowance = kinds.entry(code).or_insert(Allowance { left: REFUSALS, at: now, left_out: 0 });
        let regained =
            now.saturating_duration_since(allowance.at).as_secs_f64() / ONE_MORE_AFTER.as_secs_f64();
        allowance.left = (allowance.left + regained).min(REFUSALS);
        allowance.at = now;
        if allowance.left < 1.0 {
            allowance.left_out += 1;
            return None;
        }
        allowance.left -= 1.0;
        Some(std::mem::take(&mut allowance.left_out))
    }
}

/// A change: who, what, before, after and why.
pub(super) struct Change<'a> {
    pub(super) event: &'a str,
    pub(super) author: &'a str,
    pub(super) before: Value,
    pub(super) after: Value,
    pub(super) why: &'a str,
}

impl Control {
    /// Writes down a change. It has been made already: a journal that cannot be written does not undo it.
    pub(super) fn audit_change(&self, at: Timestamp, change: Change<'_>) {
        let Change { event, author, before, after, why } = change;
        self.audit_entry(
            at,
            json!({ "event": event, "outcome": "done", "author": author, "before": before, "after": after, "why": why }),
        );
    }

    /// Writes down what was refused, unless there were very many lately.
    pub(super) fn audit_refusal(&self, at: Timestamp, refusal: &Refusal) {
        let Some(left_out) = self.refusals.admit(refusal.code, Instant::now()) else { return };
        let Refusal { who, what, code, status, from } = refusal;
        tracing::warn!(who, what, code, from, left_out, "admin API: refused");
        self.audit_entry(
            at,
            json!({
                "event": what, "outcome": "refused", "author": who, "why": code, "status": status, "from": from,
                "left_out_before": left_out,
            }),
        );
    }

    fn audit_entry(&self, at: Timestamp, body: Value) {
        let event = body["event"].clone();
        match self.audit.add(at, body) {
            Ok(hash) => tracing::info!(%event, hash, "audit"),
            Err(error) => tracing::error!(%error, %event, "an entry of the audit could not be written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written_down() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let written = (0..1000).filter(|_| refusals.admit("unknown_token", start).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(refusals.admit("role", start), Some(0), "another kind is written down");
        assert_eq!(refusals.admit("unknown_token", start + ONE_MORE_AFTER), Some(990));
        assert_eq!(refusals.admit("unknown_token", start + 3 * ONE_MORE_AFTER), Some(0));
    }
}
