//! Shares as decision after decision set them.

use serde_json::Value;

use super::{Tradewind, until};

/// A backend's share from the moment of a decision on.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: jiff::Timestamp,
    pub share: f64,
}

/// What the explanation says about one backend.
pub fn verdict<'a>(explained: &'a Value, name: &str) -> &'a Value {
    let verdicts = explained["decision"]["backends"].as_array().expect("there are verdicts");
    verdicts.iter().find(|verdict| verdict["backend"] == name).expect("the backend is in the route")
}

/// A time in an answer of the API.
pub fn time(value: &Value) -> jiff::Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

/// Seconds from one time in an answer of the API to another.
pub fn seconds_between(earlier: &Value, later: &Value) -> f64 {
    time(later).duration_since(time(earlier)).as_secs_f64()
}

/// Follows the share of a backend until it reaches `end`.
pub fn follow(tradewind: &Tradewind, name: &str, end: f64) -> Vec<Sample> {
    let mut samples = Vec::new();
    until(&format!("the share of {name} is {end}"), || {
        let explained = tradewind.explain();
        let share = verdict(&explained, name)["share"].as_f64().expect("a share is a number");
        samples.push(Sample { at: time(&explained["decision"]["at"]), share });
        ((share - end).abs() < 1e-9).then_some(())
    });
    samples
}

/// Fails if the share ever grew by more than `per_second` allows in the time between the decisions themselves, whatever
/// the time between the looks at them was.
pub fn assert_no_faster(samples: &[Sample], per_second: f64) {
    for pair in samples.windows(2) {
        let seconds = pair[1].at.duration_since(pair[0].at).as_secs_f64();
        let grown = pair[1].share - pair[0].share;
        assert!(grown <= per_second * seconds + 1e-6, "the share grew by {grown} in {seconds} s");
    }
    let growing = samples.iter().filter(|sample| sample.share > 0.0 && sample.share < 1.0).count();
    assert!(growing >= 3, "the share was seen on its way {growing} times only: {samples:?}");
}
