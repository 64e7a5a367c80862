//! `POST /v1/reload?dry_run=true`: what a reload would change. Nothing is taken up.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::board::RoutePreview;
use crate::model::{BackendId, RouteId};

/// Longest candidate in bytes of JSON: the longest configuration, with room for escapes.
pub(super) const CANDIDATE_BYTES_MAX: usize = 2 << 20;

/// The body of `POST /v1/reload?dry_run=true`: what to look at in place of the files that a reload would read.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Files of a configuration. Relative paths in them start where the present ones do.
    pub files: Vec<CandidateFile>,
}

/// One file.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CandidateFile {
    /// What faults call it.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What a reload would change.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Rehearsal {
    /// Always true: an answer without it was a change.
    pub dry_run: bool,
    /// The generation in force: a reload with `If-Match` on it is refused once another one is.
    pub generation: u64,
    /// Keys that have another value, defaults included; secrets are compared by where they are read from.
    pub changes: Vec<KeyChange>,
    /// Changed keys for which a running process would refuse the reload as a whole.
    pub needs_restart: Vec<String>,
    /// What is odd about the file, one sentence each.
    pub warnings: Vec<String>,
    /// Backends that are new. Nothing is known of them yet, so they are taken to be healthy here; a reload probes them first.
    pub assumed_healthy: Vec<BackendId>,
    /// Routes that are no longer there.
    pub removed_routes: Vec<RouteId>,
    /// Routes whose decision would be another one, or that are new.
    pub routes: Vec<RoutePreview>,
}

/// A key that has another value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct KeyChange {
    /// The key as it would be written in the file: `policies.default.shift_at`.
    pub key: String,
    /// Its value in force; absent if it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// Its value in the file; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
}

/// The keys in which two configurations differ, in their order. Lists are compared as a whole.
pub fn changes(before: &Value, after: &Value) -> Vec<KeyChange> {
    let mut found = Vec::new();
    compare(&mut Vec::new(), Some(before), Some(after), &mut found);
    found
}

fn compare<'v>(
    path: &mut Vec<String>,
    before: Option<&'v Value>,
    after: Option<&'v Value>,
    found: &mut Vec<KeyChange>,
) {
    let tables = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    // A table on one side only is named key by key as well: as one value it would be hard to read.
    let (old, new) = match tables {
        (Some(old), Some(new)) => (Some(old), Some(new)),
        (Some(old), None) if after.is_none() => (Some(old), None),
        (None, Some(new)) if before.is_none() => (None, Some(new)),
        _ => {
            let set = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
            let (before, after) = (set(before), set(after));
            if before != after {
                found.push(KeyChange { key: crate::config::dotted(path), before, after });
            }
            return;
        }
    };
    let in_old = old.into_iter().flatten();
    let only_new = new.into_iter().flatten().filter(|(key, _)| old.is_none_or(|old| !old.contains_key(*key)));
    for (key, _) in in_old.chain(only_new) {
        path.push(key.clone());
        compare(path, old.and_then(|old| old.get(key)), new.and_then(|new| new.get(key)), found);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_is_named_once() {
        let before = json!({
            "listen": { "http": "127.0.0.1:80", "https": null },
            "routes": { "chat": { "backends": ["a"] }, "old": { "backends": ["a"], "policy": "default" } },
        });
        let after = json!({
            "listen": { "http": "127.0.0.1:81", "https": null },
            "routes": { "chat": { "backends": ["a", "b"] }, "my route": { "backends": ["b"] } },
        });
        let lines: Vec<String> = changes(&before, &after)
            .into_iter()
            .map(|KeyChange { key, before, after }| {
                let text = |value: Option<Value>| value.map_or("-".to_owned(), |value| value.to_string());
                format!("{key}: {} > {}", text(before), text(after))
            })
            .collect();
        assert_eq!(
            lines,
            [
                "listen.http: \"127.0.0.1:80\" > \"127.0.0.1:81\"",
                "routes.chat.backends: [\"a\"] > [\"a\",\"b\"]",
                "routes.old.backends: [\"a\"] > -",
                "routes.old.policy: \"default\" > -",
                "routes.\"my route\".backends: - > [\"b\"]",
            ]
        );
        assert!(changes(&before, &before).is_empty());
    }
}
