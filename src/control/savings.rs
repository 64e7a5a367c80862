//! What was saved today and this month, as the dashboard says it; `tradewind report` has the same with its interval.

use crate::{
    admin::board::{Saving, Savings},
    model::Timestamp,
};

/// What a turn of the loop adds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Added {
    pub(super) usd: f64,
    pub(super) requests: u64,
    pub(super) uncompared: u64,
}

/// Adds to the UTC day and month of `now`, which begin anew where those of the last time were others.
pub(super) fn add(savings: &mut Savings, added: Added, now: Timestamp) {
    let last = savings.until.replace(now);
    let name = |at: Timestamp, format: &str| at.strftime(format).to_string();
    if last.is_some_and(|last| name(last, "%F") != name(now, "%F")) {
        savings.today = Saving::default();
    }
    if last.is_some_and(|last| name(last, "%Y-%m") != name(now, "%Y-%m")) {
        savings.month = Saving::default();
    }
    savings.since.get_or_insert(now);
    for saving in [&mut savings.today, &mut savings.month] {
        saving.usd += added.usd;
        saving.requests += added.requests;
        saving.uncompared += added.uncompared;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_begin_anew() {
        let mut savings = Savings::default();
        for at in ["2026-03-30T23:59:59Z", "2026-03-31T00:00:01Z", "2026-03-31T00:00:02Z"] {
            let now = at.parse().unwrap();
            add(&mut savings, Added { usd: 1.0, requests: 2, uncompared: 1 }, now);
        }
        assert_eq!(savings.today, Saving { usd: 2.0, requests: 4, uncompared: 2 });
        assert_eq!(savings.month, Saving { usd: 3.0, requests: 6, uncompared: 3 });
        assert_eq!(savings.since, Some("2026-03-30T23:59:59Z".parse().unwrap()));
        add(&mut savings, Added::default(), "2026-04-01T00:00:00Z".parse().unwrap());
        assert_eq!((savings.today, savings.month), (Saving::default(), Saving::default()));
    }
}
