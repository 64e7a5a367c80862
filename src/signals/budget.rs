//! How many second attempts there may be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Leave for a second attempt, until it is dropped.
#[derive(Debug)]
pub struct Leave(Arc<RetryBudget>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

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

    /// Leave for one more, while so many requests are under way, second attempts included. If there is none, that is counted.
    /// It is taken up here, not when the attempt begins: that may have to wait for a place, and all that fail together would get leave.
    pub fn grant(self: &Arc<RetryBudget>, in_flight: u64) -> Option<Leave> {
        let more = |retries: u64| {
            let first = in_flight.saturating_sub(retries) as f64;
            let allowed = retries < RetryBudget::FREE || (retries + 1) as f64 <= first * RetryBudget::PART;
            allowed.then_some(retries + 1)
        };
        let granted = self.under_way.fetch_update(Relaxed, Relaxed, more).is_ok();
        if !granted {
            self.exhausted.fetch_add(1, Relaxed);
        }
        granted.then(|| Leave(self.clone()))
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
        let budget = Arc::new(RetryBudget::default());
        let mut leave: Vec<Leave> = (0..3).map(|_| budget.grant(1).unwrap()).collect();
        assert!(budget.grant(22).is_none());
        drop(budget.grant(23).expect("20 first attempts"));
        assert_eq!(budget.exhausted(), 1);
        leave.pop();
        leave.push(budget.grant(3).unwrap());
        assert!(budget.grant(3).is_none(), "what was granted counts before an attempt is made of it");
    }
}
