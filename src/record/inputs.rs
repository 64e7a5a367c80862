//! What a decision was made from: policy, snapshot and the state before it. A whole one has some kilobytes for each backend,
//! and from one decision to the next little of it changes, so most entries carry only the changes.
//!
//! Changes are a flat object from JSON pointers (RFC 6901) to new values. Where the keys of an object or the length of a list
//! differ, the whole object or list is the new value: there is nothing to remove.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Policy, Snapshot, Timestamp};
use crate::policy::State;

/// What a decision was made from. Together with the moment in the snapshot, these are all arguments of `policy::decide`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs<P = Policy, S = Snapshot, T = State> {
    /// The policy in full.
    pub policy: P,
    /// What was known.
    pub snapshot: S,
    /// What the decision before had left.
    pub state: T,
}

/// The names of [`Inputs`] in an entry.
pub const FIELDS: [&str; 3] = ["policy", "snapshot", "state"];

/// What a reader or writer of a route's entries remembers of the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Last {
    /// When its decision was made; the next entry names it, so that no entry is put on the wrong one.
    pub at: Timestamp,
    /// Its inputs, whole.
    pub inputs: Value,
}

/// Why the inputs of an entry cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoInputs {
    /// The entry is from before inputs were journaled in full.
    #[error("it does not carry its policy and state: it was written by a version before they were")]
    NotKept,
    /// What it builds on is missing.
    #[error(
        "it holds what changed since the entry of {0}, which is missing or damaged before it: the next whole one can be read again"
    )]
    Broken(String),
    /// It holds something else than it should.
    #[error("{0}")]
    Malformed(String),
}

/// The fields of an entry whose inputs stand in it in full.
pub fn whole(inputs: &Value) -> Map<String, Value> {
    let object = inputs.as_object();
    FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), object?.get(*name)?.clone()))).collect()
}

/// The fields of an entry that says what changed since `last`.
pub fn since(last: &Last, inputs: &Value) -> Map<String, Value> {
    let mut changes = Map::new();
    compare(&mut String::new(), &last.inputs, inputs, &mut changes);
    let mut fields = Map::new();
    fields.insert("after".into(), Value::from(last.at.to_string()));
    fields.insert("changes".into(), Value::Object(changes));
    fields
}

/// The inputs of the entry `body`, which came after `last`, as whole JSON.
///
/// # Errors
/// When they are not in the entry, or the one it builds on is not `last`.
pub fn of_entry(body: &Map<String, Value>, last: Option<&Last>) -> Result<Value, NoInputs> {
    if let Some(after) = body.get("after").and_then(Value::as_str) {
        let last = last
            .filter(|last| last.at.to_string() == after)
            .ok_or_else(|| NoInputs::Broken(after.to_owned()))?;
        let changes = body.get("changes").and_then(Value::as_object);
        let changes =
            changes.ok_or_else(|| NoInputs::Malformed("it has `after` without `changes`".into()))?;
        let mut inputs = last.inputs.clone();
        for (pointer, value) in changes {
            let place = inputs.pointer_mut(pointer).ok_or_else(|| {
                NoInputs::Malformed(format!("it changes {pointer}, which the entry before it does not have"))
            })?;
            *place = value.clone();
        }
        return Ok(inputs);
    }
    let found = FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), body.get(*name)?.clone())));
    let found: Map<String, Value> = found.collect();
    if found.len() < FIELDS.len() { Err(NoInputs::NotKept) } else { Ok(Value::Object(found)) }
}

/// A name for a policy as it is written: it changes with every setting. 64 bits (FNV-1a) of its JSON in hexadecimal: enough
/// to tell one's own policies apart, no protection against forgery.
pub fn policy_version(policy: &impl Serialize) -> String {
    let text = serde_json::to_string(policy).unwrap_or_default();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn compare(path: &mut String, old: &Value, new: &Value, changes: &mut Map<String, Value>) {
    let len = path.len();
    match (old, new) {
        (Value::Object(a), Value::Object(b))
            if a.len() == b.len() && a.keys().all(|key| b.contains_key(key)) =>
        {
            for (key, old) in a {
                path.push('/');
                path.push_str(&key.replace('~', "~0").replace('/', "~1"));
                compare(path, old, &b[key], changes);
                path.truncate(len);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (old, new)) in a.iter().zip(b).enumerate() {
                path.push_str(&format!("/{index}"));
                compare(path, old, new, changes);
                path.truncate(len);
            }
        }
        (old, new) if old != new => {
            changes.insert(path.clone(), new.clone());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a/~]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec(("[a/~]{0,2}", inner), 0..3)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_changed_on_top_of_what_was_gives_what_is(a in value(), b in value(), same in value()) {
            let old = json!({"policy": same.clone(), "snapshot": a, "state": [a, same]});
            let new = json!({"policy": same, "snapshot": b, "state": [b, old["policy"]]});
            let last = Last { at: at(1), inputs: old };
            prop_assert_eq!(of_entry(&since(&last, &new), Some(&last)), Ok(new.clone()));
            prop_assert_eq!(of_entry(&whole(&new), None), Ok(new));
        }
    }

    #[test]
    fn an_entry_is_put_on_no_other_than_its_own() {
        let inputs = json!({"policy": 1, "snapshot": {"a": 1}, "state": 3});
        let last = Last { at: at(1), inputs: inputs.clone() };
        let body = since(&last, &json!({"policy": 1, "snapshot": {"a": 2}, "state": 3}));
        assert_eq!(body["changes"], json!({"/snapshot/a": 2}));
        let other = Last { at: at(2), inputs };
        let broken = Err(NoInputs::Broken("1970-01-01T00:00:01Z".into()));
        assert_eq!(of_entry(&body, Some(&other)), broken);
        assert_eq!(of_entry(&body, None), broken);
        assert_eq!(of_entry(&Map::new(), Some(&other)), Err(NoInputs::NotKept));
    }

    #[test]
    fn a_policy_has_another_name_once_a_setting_differs() {
        let policy = crate::policy::worlds::policy();
        let mut other = policy.clone();
        assert_eq!(policy_version(&policy), policy_version(&other));
        other.hold += std::time::Duration::from_secs(1);
        assert_ne!(policy_version(&policy), policy_version(&other));
    }
}
