//! Whether to believe what a source says about one price.
//!
//! The rules, in this order:
//!
//! 1. What is not a price (not a number, infinite, zero, negative, or outside [`PLAUSIBLE_USD_PER_HOUR`]) is never believed.
//! 2. The first price for a key is believed: there is nothing to compare it with.
//! 3. A price within a factor of `max_step` of the last good one is believed at once.
//! 4. A larger jump is believed when a later fetch confirms it: one that comes at least `confirm_after` (the source's
//!    refresh interval) after the first that said so, and says about the same (within a factor of 2, or `max_step` if that
//!    is smaller). A fetch in between that says something else starts the wait again; one that fails does not.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use jiff::SignedDuration;

use crate::model::{Timestamp, UsdPerHour};

/// No provider sells a node outside of this range: the smallest machines cost about 0.002 USD an hour as spot, a whole rack
/// of accelerators less than a thousand. What is outside has its decimal point, or its unit, in the wrong place.
const PLAUSIBLE_USD_PER_HOUR: RangeInclusive<f64> = 0.000_01..=100_000.0;

/// Two fetches of one jump may differ by this factor and still confirm each other.
const SAME_PRICE_FACTOR: f64 = 2.0;

/// A price that was believed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Good {
    pub(super) usd_per_hour: UsdPerHour,
    pub(super) observed_at: Timestamp,
    pub(super) fetched_at: Timestamp,
}

/// What the source says now, and nobody believes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Doubt {
    /// What the first fetch said.
    pub(super) first_said: f64,
    /// When that was.
    pub(super) since: Timestamp,
    /// When it was said last.
    pub(super) said_at: Timestamp,
    /// Why it is not believed, in one sentence.
    pub(super) why: Arc<str>,
}

/// How strict to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_step: f64,
    pub(super) confirm_after: Duration,
}

/// What to do with a quote.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It is the price from now on.
    Believe(UsdPerHour),
    /// The last good price stays, if there is one.
    Hold(Doubt),
}

/// What is said, if it can be the price of a node at all.
pub(super) fn plausible(said: f64) -> Option<UsdPerHour> {
    UsdPerHour::new(said).filter(|usd| PLAUSIBLE_USD_PER_HOUR.contains(&usd.get()))
}

/// Judges one quote against the last good price and the doubt that is pending, if any.
pub(super) fn judge(
    said: f64,
    good: Option<&Good>,
    pending: Option<&Doubt>,
    now: Timestamp,
    limits: Limits,
) -> Verdict {
    let Some(usd) = plausible(said) else {
        let (first_said, since) = first(pending.filter(|p| same_nonsense(p, said)), said, now);
        return Verdict::Hold(Doubt { first_said, since, said_at: now, why: nonsense(said) });
    };
    // A limit below 1, or none at all, would hold back every price, even one that has not changed.
    let max_step = limits.max_step.max(1.0);
    let Some(good) = good else { return Verdict::Believe(usd) };
    if factor(said, good.usd_per_hour.get()) <= max_step {
        return Verdict::Believe(usd);
    }
    let confirms = |p: &&Doubt| factor(said, p.first_said) <= max_step.min(SAME_PRICE_FACTOR);
    let (first_said, since) = first(pending.filter(confirms), said, now);
    let waited = now.duration_since(since);
    let confirm_after = SignedDuration::try_from(limits.confirm_after).unwrap_or(SignedDuration::MAX);
    // Of the same fetch, two equal rows are one witness, not two: so some time must have passed.
    if waited > SignedDuration::ZERO && waited >= confirm_after {
        return Verdict::Believe(usd);
    }
    let why = format!(
        "{said} USD/h is {} than the last good price of {} USD/h by more than a factor of {max_step}; it counts once a \
         fetch at least {confirm_after:#} after {since:.0} still says so",
        if said > good.usd_per_hour.get() { "higher" } else { "lower" },
        good.usd_per_hour.get(),
    );
    Verdict::Hold(Doubt { first_said, since, said_at: now, why: why.into() })
}

/// What the pending doubt about the same claim said first, and when; otherwise what is said now. Later fetches are compared
/// with the first, not with one another: else a price could creep anywhere under cover of one doubt.
fn first(pending: Option<&Doubt>, said: f64, now: Timestamp) -> (f64, Timestamp) {
    // A clock that was set back must not make the wait longer.
    pending.map_or((said, now), |p| (p.first_said, p.since.min(now)))
}

fn same_nonsense(pending: &Doubt, said: f64) -> bool {
    pending.first_said == said || (pending.first_said.is_nan() && said.is_nan())
}

/// How many times the larger of two numbers is the smaller; not a number when that makes no sense.
fn factor(a: f64, b: f64) -> f64 {
    if a >= b { a / b } else { b / a }
}

fn nonsense(said: f64) -> Arc<str> {
    format!(
        "{said} USD/h is not a price: expected a number between {} and {}",
        PLAUSIBLE_USD_PER_HOUR.start(),
        PLAUSIBLE_USD_PER_HOUR.end()
    )
    .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_step: 5.0, confirm_after: Duration::from_secs(300) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn good(usd: f64) -> Good {
        Good { usd_per_hour: UsdPerHour::new(usd).unwrap(), observed_at: at(0), fetched_at: at(0) }
    }

    fn held(verdict: Verdict) -> Doubt {
        match verdict {
            Verdict::Hold(doubt) => doubt,
            Verdict::Believe(usd) => panic!("{usd:?} was believed"),
        }
    }

    #[test]
    fn nonsense_is_never_believed_however_often_it_is_said() {
        for said in [0.0, -1.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-300, 1e300] {
            let mut doubt = None;
            for second in [0, 300, 600, 100_000] {
                doubt = Some(held(judge(said, Some(&good(1.0)), doubt.as_ref(), at(second), LIMITS)));
            }
            assert_eq!(doubt.unwrap().since, at(0), "{said} is one claim, not several");
            held(judge(said, None, None, at(0), LIMITS));
        }
    }

    #[test]
    fn a_jump_is_believed_when_a_fetch_a_refresh_later_confirms_it() {
        let last = good(1.0);
        let first = held(judge(1000.0, Some(&last), None, at(0), LIMITS));
        let early = held(judge(1000.0, Some(&last), Some(&first), at(299), LIMITS));
        assert_eq!(early.since, at(0));
        assert_eq!(
            judge(1100.0, Some(&last), Some(&early), at(300), LIMITS),
            Verdict::Believe(UsdPerHour::new(1100.0).unwrap())
        );
    }

    #[test]
    fn a_jump_that_changes_its_mind_starts_again() {
        let last = good(1.0);
        let first = held(judge(1000.0, Some(&last), None, at(0), LIMITS));
        let other = held(judge(10.0, Some(&last), Some(&first), at(300), LIMITS));
        assert_eq!(other.since, at(300));
    }

    /// Found by the property test of the book.
    #[test]
    fn a_jump_that_creeps_on_is_not_confirmed() {
        let last = good(50.0);
        let first = held(judge(884.0, Some(&last), None, at(0), LIMITS));
        let second = held(judge(536.0, Some(&last), Some(&first), at(15), LIMITS));
        assert_eq!(second.since, at(0));
        let third = held(judge(334.0, Some(&last), Some(&second), at(300), LIMITS));
        assert_eq!(third.since, at(300));
    }

    #[test]
    fn within_one_fetch_nothing_confirms_itself() {
        let limits = Limits { confirm_after: Duration::ZERO, ..LIMITS };
        let first = held(judge(1000.0, Some(&good(1.0)), None, at(0), limits));
        held(judge(1000.0, Some(&good(1.0)), Some(&first), at(0), limits));
    }

    proptest! {
        /// Whatever is said, whenever: what is believed is a price, and a jump only after the wait.
        #[test]
        fn what_is_believed_is_plausible(
            says in prop::collection::vec((prop_oneof![any::<f64>(), 0.01f64..100.0, Just(0.0), Just(f64::NAN)], 0i64..400), 1..60)
        ) {
            let (mut last, mut doubt, mut time): (Option<Good>, Option<Doubt>, i64) = (None, None, 0);
            let mut doubtful_since: Option<i64> = None;
            for (said, pause) in says {
                time += pause;
                match judge(said, last.as_ref(), doubt.as_ref(), at(time), LIMITS) {
                    Verdict::Believe(usd) => {
                        prop_assert!(usd.get().is_finite() && usd.get() > 0.0);
                        if let Some(before) = &last {
                            let step = factor(usd.get(), before.usd_per_hour.get());
                            let waited = doubtful_since.map_or(0, |since| time - since);
                            prop_assert!(step <= 5.0 || waited >= 300, "a step of {step} after {waited} s");
                        }
                        last = Some(Good { usd_per_hour: usd, observed_at: at(time), fetched_at: at(time) });
                        (doubt, doubtful_since) = (None, None);
                    }
                    Verdict::Hold(new) => {
                        doubtful_since.get_or_insert(time);
                        doubt = Some(new);
                    }
                }
            }
        }
    }
}
