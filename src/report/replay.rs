//! Making journaled decisions again, from all that they were made from.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    model::{RouteId, Timestamp},
    policy,
    record::Inputs,
};

/// Most fields of a difference that are shown, and most entries that differ: a hundred of the same kind say no more.
pub const SHOWN_MAX: usize = 100;

/// A decision that comes out differently.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// When it was made.
    pub at: Timestamp,
    /// The route.
    pub route: RouteId,
    /// The code that made it; absent in entries of versions that did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What differs, at most [`SHOWN_MAX`] fields.
    pub fields: Vec<Field>,
}

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Field {
    /// Where it is in the decision, as a JSON pointer.
    pub field: String,
    /// What the journal has; `null` if it is not there.
    pub journaled: Value,
    /// What comes out now; `null` if it is not there.
    pub replayed: Value,
}

/// What came of making decisions again.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Decisions that were made again.
    pub decisions: u64,
    /// Those among them that came out differently.
    pub different: u64,
    /// The first of them, at most [`SHOWN_MAX`].
    pub differences: Vec<Difference>,
    /// Decisions by the code that made them, where that is another than the present one.
    pub other_code: BTreeMap<String, u64>,
    /// Decisions that could not be made again, by the reason.
    pub skipped: BTreeMap<String, u64>,
}

impl Outcome {
    /// Whether every decision came out as it was, and could be made again unless it was written by a version that did not
    /// keep what it takes.
    pub fn all_the_same(&self) -> bool {
        self.different == 0
    }
}

/// Makes decisions again, one entry after the other.
#[derive(Clone, Debug)]
pub struct Replay {
    code: String,
    outcome: Outcome,
}

impl Replay {
    /// Nothing yet; `code` is the present version.
    pub fn new(code: String) -> Replay {
        Replay { code, outcome: Outcome::default() }
    }

    /// What came of it.
    pub fn finish(self) -> Outcome {
        self.outcome
    }

    /// Makes a decision again.
    pub fn take(&mut self, at: Timestamp, route: &RouteId, body: &Map<String, Value>) {
        if !["policy", "snapshot", "state"].iter().all(|name| body.contains_key(*name)) {
            return self.skip(
                "they do not carry policy and state: a version before these were kept made them".into(),
            );
        }
        let Inputs { policy, snapshot, state } = match serde_json::from_value(Value::Object(body.clone())) {
            Ok(inputs) => inputs,
            Err(error) => return self.skip(format!("what they were made from cannot be read: {error}")),
        };
        let code = body.get("code").and_then(Value::as_str).map(str::to_owned);
        if code.as_ref() != Some(&self.code) {
            *self.outcome.other_code.entry(code.clone().unwrap_or_else(|| "unknown".into())).or_default() +=
                1;
        }
        let (decision, _) = policy::decide(&policy, &snapshot, &state, snapshot.at);
        self.outcome.decisions += 1;
        let now = serde_json::to_value(&decision).unwrap_or_default();
        let journaled = body.get("decision").cloned().unwrap_or_default();
        let mut fields = Vec::new();
        differ(&mut String::new(), &journaled, &now, &mut fields);
        // An entry whose snapshot is of another moment or route was put together from two.
        let head = [
            ("(at)", at.to_string(), snapshot.at.to_string()),
            ("(route)", route.to_string(), snapshot.route.to_string()),
        ];
        for (field, journaled, replayed) in head.into_iter().filter(|(_, old, new)| old != new) {
            fields.push(Field {
                field: field.into(),
                journaled: journaled.into(),
                replayed: replayed.into(),
            });
        }
        if fields.is_empty() {
            return;
        }
        self.outcome.different += 1;
        fields.truncate(SHOWN_MAX);
        if self.outcome.differences.len() < SHOWN_MAX {
            self.outcome.differences.push(Difference { at, route: route.clone(), code, fields });
        }
    }

    fn skip(&mut self, why: String) {
        *self.outcome.skipped.entry(why).or_default() += 1;
    }
}

/// Every leaf that differs.
fn differ(path: &mut String, journaled: &Value, replayed: &Value, fields: &mut Vec<Field>) {
    let len = path.len();
    let go = |path: &mut String, key: &str, a: Option<&Value>, b: Option<&Value>, fields: &mut Vec<Field>| {
        path.push('/');
        path.push_str(key);
        differ(path, a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null), fields);
        path.truncate(len);
    };
    match (journaled, replayed) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                go(path, key, a.get(key), b.get(key), fields);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                go(path, &index.to_string(), a.get(index), b.get(index), fields);
            }
        }
        (a, b) if a != b => {
            let (journaled, replayed) = (a.clone(), b.clone());
            fields.push(Field { field: path.clone(), journaled, replayed });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        model::{Health, OverrideKind},
        policy::worlds::{World, at},
    };

    /// What happens to a world before its next decision.
    #[derive(Clone, Debug)]
    enum Event {
        Price(bool, f64),
        Health(bool, Health),
        Demand(f64),
        Override(OverrideKind, bool, f64),
        End,
        Pause(i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy), Just(Health::Unknown)];
        prop_oneof![
            4 => (any::<bool>(), 0.001..10.0f64).prop_map(|(b, usd)| Event::Price(b, usd)),
            2 => (any::<bool>(), health).prop_map(|(b, health)| Event::Health(b, health)),
            2 => (0.0..2000.0f64).prop_map(Event::Demand),
            1 => (prop::sample::select(OverrideKind::ALL.to_vec()), any::<bool>(), 0.0..1.0f64)
                .prop_map(|(kind, b, share)| Event::Override(kind, b, share)),
            1 => Just(Event::End),
            2 => (1..2000i64).prop_map(Event::Pause),
        ]
    }

    fn name(second: bool) -> &'static str {
        if second { "b" } else { "a" }
    }

    fn happen(world: &mut World, event: Event) {
        match event {
            Event::Price(b, usd) => world.set_price(name(b), usd),
            Event::Health(b, health) => world.set_health(name(b), health),
            Event::Demand(rps) => world.snapshot.demand_rps = rps,
            Event::Override(kind, b, share) => {
                world.impose(kind, (kind != OverrideKind::Freeze).then(|| name(b)), Some(share))
            }
            Event::End => world.snapshot.overrides.clear(),
            Event::Pause(seconds) => world.now += seconds,
        }
    }

    /// The entries of a world as text, as a journal keeps them.
    fn journal(events: Vec<Event>) -> Vec<(Timestamp, String)> {
        let mut world = World::new(&[("a", 1.0), ("b", 0.9)]);
        world.configure("b", |backend| backend.replicas.as_mut().unwrap().min = 2);
        let mut entries = Vec::new();
        for event in events {
            happen(&mut world, event);
            let before = world.state.clone();
            let decision = world.tick();
            let body = json!({
                "code": "1.0",
                "decision": decision,
                "policy": world.policy,
                "state": before,
                "snapshot": world.snapshot,
            });
            entries.push((at(world.now), body.to_string()));
        }
        entries
    }

    fn replay(entries: &[(Timestamp, String)]) -> Outcome {
        let mut replay = Replay::new("1.0".into());
        for (at, text) in entries {
            let body: Map<String, Value> = serde_json::from_str(text).unwrap();
            replay.take(*at, &"chat".parse().unwrap(), &body);
        }
        replay.finish()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn decisions_come_out_the_same_and_a_changed_one_does_not(
            events in prop::collection::vec(event(), 1..40),
            victim in any::<prop::sample::Index>(),
        ) {
            let mut entries = journal(events);
            let outcome = replay(&entries);
            prop_assert_eq!((outcome.decisions, outcome.different), (entries.len() as u64, 0), "{:?}", outcome);
            prop_assert!(outcome.skipped.is_empty() && outcome.other_code.is_empty());
            let victim = victim.index(entries.len());
            let mut body: Value = serde_json::from_str(&entries[victim].1).unwrap();
            let share = body.pointer_mut("/decision/backends/0/share").unwrap();
            *share = json!(share.as_f64().unwrap() + 0.125);
            entries[victim].1 = body.to_string();
            let outcome = replay(&entries);
            prop_assert_eq!(outcome.different, 1);
            prop_assert_eq!(&outcome.differences[0].at, &entries[victim].0);
            prop_assert_eq!(&outcome.differences[0].fields[0].field, "/backends/0/share");
        }
    }

    fn prices(usd: &[f64]) -> Vec<(Timestamp, String)> {
        journal(usd.iter().map(|usd| Event::Price(false, *usd)).collect())
    }

    #[test]
    fn a_changed_price_is_found_by_the_decision_that_was_made_from_it() {
        let mut entries = prices(&[1.0, 1.0, 0.5, 1.0, 1.0]);
        let text = entries[0].1.replace("\"usd_per_hour\":1.0", "\"usd_per_hour\":0.3");
        assert_ne!(text, entries[0].1);
        entries[0].1 = text;
        let outcome = replay(&entries);
        assert!(!outcome.all_the_same());
        assert_eq!(outcome.differences[0].at, entries[0].0);
    }

    #[test]
    fn an_entry_put_together_from_two_is_found() {
        let mut entries = prices(&[1.0, 1.0]);
        entries[1].1 = entries[0].1.clone();
        let outcome = replay(&entries);
        assert_eq!((outcome.different, &*outcome.differences[0].fields[0].field), (1, "(at)"));
    }

    #[test]
    fn entries_of_other_code_and_of_versions_without_inputs_are_counted() {
        let entries = prices(&[1.0]);
        let mut replay = Replay::new("2.0".into());
        let body: Map<String, Value> = serde_json::from_str(&entries[0].1).unwrap();
        let route = "chat".parse().unwrap();
        replay.take(entries[0].0, &route, &body);
        let mut old = body;
        old.remove("state");
        replay.take(entries[0].0, &route, &old);
        let outcome = replay.finish();
        assert_eq!(outcome.other_code, BTreeMap::from([("1.0".into(), 1)]));
        assert_eq!((outcome.decisions, outcome.skipped.len()), (1, 1));
    }
}
