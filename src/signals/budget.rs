//! How many second attempts there may be.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Limits how many of a route's requests are at their second or third backend at once: when everything fails, clients try
/// again too, and the product of both is what backends see.
#[derive(Debug, Default)]
pub struct RetryBudget {
    under_way: AtomicU64,
    exhausted: AtomicU64,
}

impl RetryBudget {
    /// Second attempts per first one: so backends get at most 1.2 times the requests that clients send.
    const PART: f64 = 0.2;

    /// As many second attempts may always be under way: with little traffic a part of it would be less than one.
    const FREE: u64 = 3;

    /// Whether one more may be made, while so many requests are under way, second attempts included. If not, it is counted.
    pub fn allows(&self, in_flight: u64) -> bool {
        let retries = self.under_way.load(Relaxed);
        let first = in_flight.saturating_sub(retries) as f64;
        let allowed = retries < RetryBudget::FREE || (retries + 1) as f64 <= first * RetryBudget::PART;
        if !allowed {
            self.exhausted.fetch_add(1, Relaxed);
        }
        allowed
    }

    /// A second attempt begins.
    pub fn enter(&self) {
        self.under_way.fetch_add(1, Relaxed);
    }

    /// A second attempt has ended.
    pub fn leave(&self) {
        self.under_way.fetch_sub(1, Relaxed);
    }

    /// Attempts that were not made for want of budget.
    pub fn exhausted(&self) -> u64 {
        self.exhausted.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_fifth_of_the_first_attempts_and_at_least_three() {
        let budget = RetryBudget::default();
        for _ in 0..3 {
            assert!(budget.allows(1));
            budget.enter();
        }
        assert!(!budget.allows(22));
        assert!(budget.allows(23), "20 first attempts");
        assert_eq!(budget.exhausted(), 1);
        budget.leave();
        assert!(budget.allows(3));
    }
}
