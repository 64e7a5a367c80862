//! What tenants have used of what they may: requests and tokens a minute, dollars a day and a month.
//!
//! Rates are leaky buckets (the generic cell rate algorithm): one number, the moment at which the bucket will be full again, tells how
//! much is in it, so that taking is one exchange without a lock. An answer is paid for after it has ended, whatever it came to:
//! the bucket may then be in debt, and gives nothing until that is paid. (This is why it is not the crate `governor`: its
//! cells refuse what exceeds them, and know no debt.)

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, Tokens, as_parts, from_parts};
use crate::model::{Allowance, TenantId, Timestamp};

/// What a full bucket holds is used up by the limit's rate in this time: a whole minute's worth may be taken at once.
const WINDOW_NS: u64 = 60_000_000_000;

/// Longest time for which a debt keeps a tenant out: a mistake in what one answer says must not do so for days.
const DEBT_MAX_NS: u64 = 600_000_000_000;

/// Seconds in a day.
const DAY: i64 = 86_400;

/// Nanoseconds since the first look at this clock, which no change of the time of day moves. It begins late enough that no bucket
/// ever looked full before it.
fn clock_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + WINDOW_NS
}

/// How much is left of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What a minute allows.
    pub limit: u64,
    /// What may be taken now.
    pub remaining: u64,
    /// When all of it may be taken again.
    pub reset: Duration,
}

/// A rate.
#[derive(Debug, Default)]
struct Bucket {
    full_at_ns: AtomicU64,
}

impl Bucket {
    fn cost_ns(limit: u64, count: u64) -> u64 {
        (count as f64 * WINDOW_NS as f64 / limit.max(1) as f64) as u64
    }

    fn standing(&self, limit: u64, now_ns: u64) -> Standing {
        let used_ns = self.full_at_ns.load(Relaxed).saturating_sub(now_ns);
        let used = (used_ns as f64 * limit as f64 / WINDOW_NS as f64 - 1e-6).ceil() as u64;
        Standing { limit, remaining: limit.saturating_sub(used), reset: Duration::from_nanos(used_ns) }
    }

    /// Takes one; or how long that has to wait.
    fn take(&self, limit: u64, now_ns: u64) -> Result<(), Duration> {
        let one = Bucket::cost_ns(limit, 1);
        let after = |full_at: u64| full_at.max(now_ns).saturating_add(one);
        let taken = self.full_at_ns.fetch_update(Relaxed, Relaxed, |full_at| {
            Some(after(full_at)).filter(|after| after - now_ns <= WINDOW_NS)
        });
        taken.map(drop).map_err(|full_at| Duration::from_nanos(after(full_at) - now_ns - WINDOW_NS))
    }

    /// How long it is until there is one, if there is none.
    fn wait(&self, limit: u64, now_ns: u64) -> Option<Duration> {
        let after = self.full_at_ns.load(Relaxed).max(now_ns).saturating_add(Bucket::cost_ns(limit, 1));
        (after - now_ns > WINDOW_NS).then(|| Duration::from_nanos(after - now_ns - WINDOW_NS))
    }

    /// Takes what was used, be it there or not, up to a debt.
    fn settle(&self, limit: u64, count: u64, now_ns: u64) {
        let cost = Bucket::cost_ns(limit, count);
        let settled = |full_at: u64| {
            Some(full_at.max(now_ns).saturating_add(cost).min(now_ns.saturating_add(WINDOW_NS + DEBT_MAX_NS)))
        };
        // It always is some.
        let _: Result<u64, u64> = self.full_at_ns.fetch_update(Relaxed, Relaxed, settled);
    }
}

/// Dollars of a period.
#[derive(Debug, Default)]
struct Spending {
    period: AtomicU64,
    parts: AtomicU64,
}

impl Spending {
    fn add(&self, period: u64, usd: f64) {
        let known = self.period.load(Relaxed);
        // Whoever is first in a new period clears the sum. What another one adds in that moment may be lost: a request's worth.
        if known != period && self.period.compare_exchange(known, period, Relaxed, Relaxed).is_ok() {
            self.parts.store(0, Relaxed);
        }
        self.parts.fetch_add(as_parts(usd), Relaxed);
    }

    fn usd(&self, period: u64) -> f64 {
        if self.period.load(Relaxed) == period { from_parts(self.parts.load(Relaxed)) } else { 0.0 }
    }
}

/// The UTC day and month of a moment, as numbers that only grow, and when the next ones begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Calendar {
    day: u64,
    day_ends: Duration,
    month: u64,
    month_ends: Duration,
}

impl Calendar {
    fn at(now: Timestamp) -> Calendar {
        let seconds = now.as_second();
        let date = jiff::tz::Offset::UTC.to_datetime(now).date();
        let into_day = seconds.rem_euclid(DAY);
        let days_left = i64::from(date.days_in_month() - date.day());
        let left = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        Calendar {
            day: seconds.div_euclid(DAY).unsigned_abs(),
            day_ends: left(DAY - into_day),
            month: u64::from(date.year().unsigned_abs()) * 12 + u64::from(date.month().unsigned_abs()),
            month_ends: left(days_left * DAY + DAY - into_day),
        }
    }
}

/// What a tenant has too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Requests in the last minute.
    Requests,
    /// Tokens in the last minute.
    Tokens,
    /// Dollars of the day.
    Day,
    /// Dollars of the month.
    Month,
}

/// Why a tenant's request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It may not use the route.
    Route,
    /// It may not ask for the model.
    Model,
    /// It has used what it may.
    Spent(Spent),
}

impl Denied {
    /// Every reason, in the order of the counters.
    pub const ALL: [Denied; 6] = [
        Denied::Route,
        Denied::Model,
        Denied::Spent(Spent::Requests),
        Denied::Spent(Spent::Tokens),
        Denied::Spent(Spent::Day),
        Denied::Spent(Spent::Month),
    ];

    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Denied::Route => "route",
            Denied::Model => "model",
            Denied::Spent(Spent::Requests) => "requests_per_minute",
            Denied::Spent(Spent::Tokens) => "tokens_per_minute",
            Denied::Spent(Spent::Day) => "usd_per_day",
            Denied::Spent(Spent::Month) => "usd_per_month",
        }
    }
}

/// What a tenant has asked for and used. It lives as long as the process; what it may use comes with each table.
#[derive(Debug, Default)]
pub struct Usage {
    /// What its requests took.
    pub ledger: Ledger,
    admitted: AtomicU64,
    denied: [AtomicU64; Denied::ALL.len()],
    requests: Bucket,
    tokens: Bucket,
    day: Spending,
    month: Spending,
}

/// What outlives a restart of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    day: u64,
    day_usd: f64,
    month: u64,
    month_usd: f64,
}

/// What outlives a restart, by tenant.
pub type SavedAll = BTreeMap<TenantId, Saved>;

impl Usage {
    /// Lets a request in, and counts it; or says what is used up, and for how long.
    ///
    /// # Errors
    /// When the tenant has used what it may.
    pub fn admit(&self, allowance: &Allowance) -> Result<(), (Spent, Duration)> {
        let admitted = self.admit_at(allowance, clock_ns(), Timestamp::now);
        if admitted.is_ok() {
            self.admitted.fetch_add(1, Relaxed);
        }
        admitted
    }

    fn admit_at(
        &self,
        allowance: &Allowance,
        now_ns: u64,
        now: impl Fn() -> Timestamp,
    ) -> Result<(), (Spent, Duration)> {
        if allowance.usd_per_day.is_some() || allowance.usd_per_month.is_some() {
            let calendar = Calendar::at(now());
            let over = |limit: Option<f64>, usd: f64| limit.is_some_and(|limit| usd >= limit);
            if over(allowance.usd_per_month, self.month.usd(calendar.month)) {
                return Err((Spent::Month, calendar.month_ends));
            }
            if over(allowance.usd_per_day, self.day.usd(calendar.day)) {
                return Err((Spent::Day, calendar.day_ends));
            }
        }
        if let Some(wait) = allowance.tokens_per_minute.and_then(|limit| self.tokens.wait(limit, now_ns)) {
            return Err((Spent::Tokens, wait));
        }
        match allowance.requests_per_minute {
            Some(limit) => self.requests.take(limit, now_ns).map_err(|wait| (Spent::Requests, wait)),
            None => Ok(()),
        }
    }

    /// Counts a refusal.
    pub fn deny(&self, why: Denied) {
        let place = Denied::ALL.iter().position(|denied| *denied == why).unwrap_or(0);
        self.denied[place].fetch_add(1, Relaxed);
    }

    /// Takes off what a request took, now that it has ended.
    pub fn settle(&self, allowance: &Allowance, tokens: Option<&Tokens>, usd: Option<f64>) {
        self.ledger.add(tokens, usd);
        if let (Some(limit), Some(tokens)) = (allowance.tokens_per_minute, tokens) {
            self.tokens.settle(limit, tokens.all(), clock_ns());
        }
        // Also without a budget: one that is given later counts what was spent before.
        if let Some(usd) = usd {
            let calendar = Calendar::at(Timestamp::now());
            self.day.add(calendar.day, usd);
            self.month.add(calendar.month, usd);
        }
    }

    /// What is left of its requests and tokens a minute, where they are limited.
    pub fn standings(&self, allowance: &Allowance) -> [Option<Standing>; 2] {
        let now = clock_ns();
        [
            allowance.requests_per_minute.map(|limit| self.requests.standing(limit, now)),
            allowance.tokens_per_minute.map(|limit| self.tokens.standing(limit, now)),
        ]
    }

    /// Requests that were let in, and refused by reason.
    pub fn counts(&self) -> (u64, [u64; Denied::ALL.len()]) {
        let denied = std::array::from_fn(|reason| self.denied[reason].load(Relaxed));
        (self.admitted.load(Relaxed), denied)
    }

    /// USD of the day and of the month.
    pub fn spent(&self, now: Timestamp) -> (f64, f64) {
        let calendar = Calendar::at(now);
        (self.day.usd(calendar.day), self.month.usd(calendar.month))
    }

    /// What outlives a restart.
    pub fn saved(&self, now: Timestamp) -> Saved {
        let ((day_usd, month_usd), calendar) = (self.spent(now), Calendar::at(now));
        Saved { day: calendar.day, day_usd, month: calendar.month, month_usd }
    }

    /// Goes on from what was saved.
    pub fn restore(&self, saved: &Saved) {
        self.day.add(saved.day, saved.day_usd);
        self.month.add(saved.month, saved.month_usd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ms(duration: Duration) -> u64 {
        duration.as_millis() as u64
    }

    #[test]
    fn a_minutes_worth_may_be_taken_at_once_and_comes_back_evenly() {
        let bucket = Bucket::default();
        let now = 100 * SECOND;
        for left in (0..60).rev() {
            assert_eq!(bucket.take(60, now), Ok(()));
            assert_eq!(bucket.standing(60, now).remaining, left);
        }
        assert_eq!(bucket.take(60, now).map_err(ms), Err(1000));
        assert_eq!(bucket.take(60, now + SECOND / 2).map_err(ms), Err(500));
        assert_eq!(bucket.take(60, now + SECOND), Ok(()));
        assert!(bucket.take(60, now + SECOND).is_err());
        assert_eq!(ms(bucket.standing(60, now).reset), 61_000);
        let later = bucket.standing(60, now + 1000 * SECOND);
        assert_eq!((later.remaining, later.reset), (60, Duration::ZERO));
    }

    #[test]
    fn what_was_used_beyond_it_is_paid_first() {
        let bucket = Bucket::default();
        let now = 100 * SECOND;
        assert_eq!(bucket.wait(600, now), None);
        bucket.settle(600, 900, now);
        assert_eq!((bucket.standing(600, now).remaining, bucket.wait(600, now).map(ms)), (0, Some(30_100)));
        assert_eq!(bucket.wait(600, now + 31 * SECOND), None);
        bucket.settle(600, u64::MAX, now);
        assert_eq!(bucket.wait(600, now).map(ms), Some(600_100));
    }

    #[test]
    fn dollars_are_those_of_the_day_and_the_month() {
        let usage = Usage::default();
        let allowance =
            Allowance { usd_per_day: Some(1.0), usd_per_month: Some(3.0), ..Allowance::default() };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let admit = |time: &'static str| usage.admit_at(&allowance, 1 << 40, || at(time));
        let spend = |time: &str, usd| {
            let calendar = Calendar::at(at(time));
            usage.day.add(calendar.day, usd);
            usage.month.add(calendar.month, usd);
        };
        spend("2026-02-27T23:00:00Z", 0.75);
        assert_eq!(admit("2026-02-27T23:00:00Z"), Ok(()));
        spend("2026-02-27T23:00:00Z", 0.25);
        assert_eq!(admit("2026-02-27T23:00:00Z"), Err((Spent::Day, Duration::from_secs(3600))));
        assert_eq!(admit("2026-02-28T00:00:00Z"), Ok(()), "a new day");
        spend("2026-02-28T00:00:00Z", 2.0);
        assert_eq!(admit("2026-02-28T23:59:00Z"), Err((Spent::Month, Duration::from_secs(60))));
        assert_eq!(admit("2026-03-01T00:00:00Z"), Ok(()), "a new month");

        let restored = Usage::default();
        let saved = serde_json::to_string(&usage.saved(at("2026-02-28T12:00:00Z"))).unwrap();
        restored.restore(&serde_json::from_str(&saved).unwrap());
        assert_eq!(restored.spent(at("2026-02-28T13:00:00Z")), (2.0, 3.0));
        assert_eq!(restored.spent(at("2026-03-01T13:00:00Z")), (0.0, 0.0));
    }

    #[test]
    fn many_threads_take_no_more_than_there_is() {
        let usage = Usage::default();
        let allowance = Allowance { requests_per_minute: Some(100), ..Allowance::default() };
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        // All at one moment, so that nothing comes back meanwhile.
                        let admitted = usage.admit_at(&allowance, 1 << 40, Timestamp::now);
                        taken.fetch_add(u64::from(admitted.is_ok()), Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.load(Relaxed), 100);
    }
}
