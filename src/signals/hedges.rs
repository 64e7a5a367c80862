//! Second requests that are sent beside a first one that is late: how many there may be, and what became of them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How many second requests a route may send: so many as a part of its requests comes to, and a few at once.
#[derive(Debug)]
pub struct HedgeBudget {
    /// What is left, in millionths of a request.
    left: AtomicU64,
}

/// A request, in millionths of one.
const ONE: u64 = 1_000_000;

/// As many may be sent at once, if none were for a while.
const AT_ONCE: u64 = 10;

impl Default for HedgeBudget {
    fn default() -> HedgeBudget {
        HedgeBudget { left: AtomicU64::new(AT_ONCE * ONE) }
    }
}

impl HedgeBudget {
    /// A request has come, of which `part` may be spent on second ones.
    pub fn earn(&self, part: f64) {
        let more = |left: u64| Some((left + (part * ONE as f64) as u64).min(AT_ONCE * ONE));
        // It never refuses.
        let _ = self.left.fetch_update(Relaxed, Relaxed, more);
    }

    /// Takes one; says whether there was one left.
    pub fn spend(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(ONE)).is_ok()
    }
}

/// What became of a second request, or why there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeOutcome {
    /// It answered first.
    Won,
    /// The first one answered before it, or the client left.
    Lost,
    /// It failed.
    Failed,
    /// The budget was used up.
    OverBudget,
    /// No other backend could take it.
    NoBackend,
}

impl HedgeOutcome {
    /// Every outcome, in the order of the counters.
    pub const ALL: [HedgeOutcome; 5] = [
        HedgeOutcome::Won,
        HedgeOutcome::Lost,
        HedgeOutcome::Failed,
        HedgeOutcome::OverBudget,
        HedgeOutcome::NoBackend,
    ];

    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            HedgeOutcome::Won => "won",
            HedgeOutcome::Lost => "lost",
            HedgeOutcome::Failed => "failed",
            HedgeOutcome::OverBudget => "over_budget",
            HedgeOutcome::NoBackend => "no_backend",
        }
    }
}

/// How often each came about.
#[derive(Debug, Default)]
pub struct HedgeCounts([AtomicU64; HedgeOutcome::ALL.len()]);

impl HedgeCounts {
    /// One more.
    pub fn add(&self, outcome: HedgeOutcome) {
        self.0[outcome as usize].fetch_add(1, Relaxed);
    }

    /// How often each came about.
    pub fn all(&self) -> impl Iterator<Item = (HedgeOutcome, u64)> + '_ {
        HedgeOutcome::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Relaxed)))
    }
}

/// From when on an answer is late, as the control loop last saw it.
#[derive(Debug, Default)]
pub struct Lateness(AtomicU64);

impl Lateness {
    /// Answers below which a percentile says nothing.
    const SAMPLES_MIN: u64 = 20;

    /// Notes the 95th percentile of so many times to first byte.
    pub fn note(&self, p95: Option<Duration>, samples: u64) {
        let p95 = p95.filter(|_| samples >= Lateness::SAMPLES_MIN);
        self.0.store(p95.map_or(0, |time| time.as_micros() as u64), Relaxed);
    }

    /// That percentile; `None` where too few answers say so.
    pub fn p95(&self) -> Option<Duration> {
        let us = self.0.load(Relaxed);
        (us > 0).then(|| Duration::from_micros(us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_part_of_the_requests_and_a_few_at_once() {
        let budget = HedgeBudget::default();
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10);
        (0..19).for_each(|_| budget.earn(0.05));
        assert!(!budget.spend());
        budget.earn(0.05);
        assert!(budget.spend() && !budget.spend());
        (0..10_000).for_each(|_| budget.earn(0.05));
        assert_eq!((0..20).filter(|_| budget.spend()).count(), 10, "what was not used is not kept for ever");
    }

    #[test]
    fn few_answers_have_no_percentile() {
        let lateness = Lateness::default();
        assert_eq!(lateness.p95(), None);
        lateness.note(Some(Duration::from_millis(300)), 20);
        assert_eq!(lateness.p95(), Some(Duration::from_millis(300)));
        lateness.note(Some(Duration::from_millis(300)), 19);
        assert_eq!(lateness.p95(), None);
    }
}
