//! What the demo's clients saw.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Most different reasons of failure that are kept; the rest is counted together.
const REASONS_MAX: usize = 20;
/// Bucket `n` holds durations up to `BUCKET_GROWTH^n` times [`BUCKET_FIRST`]: quantiles are exact to 5%.
const BUCKET_GROWTH: f64 = 1.05;
const BUCKET_FIRST: Duration = Duration::from_micros(100);
/// Reaches beyond a minute.
const BUCKETS: usize = 280;

/// Durations, counted so that quantiles can be told however many there are.
#[derive(Clone, Debug)]
struct Quantiles {
    buckets: Vec<u64>,
    count: u64,
}

impl Quantiles {
    fn new() -> Quantiles {
        Quantiles { buckets: vec![0; BUCKETS], count: 0 }
    }

    fn record(&mut self, duration: Duration) {
        let ratio = (duration.as_secs_f64() / BUCKET_FIRST.as_secs_f64()).max(1.0);
        let bucket = (ratio.ln() / BUCKET_GROWTH.ln()).ceil() as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
    }

    /// The smallest bucket limit that a part `q` of the durations does not exceed; `None` without any.
    fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = ((self.count as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(BUCKET_FIRST.mul_f64(BUCKET_GROWTH.powi(bucket as i32)))
    }
}

/// What the clients saw so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests answered completely.
    pub served: u64,
    /// Requests that were not.
    pub failed: u64,
    /// Tokens that arrived in streams.
    pub streamed_tokens: u64,
    /// Median time from sending a request to the first token of its stream.
    pub first_token_p50: Option<Duration>,
    /// 95th percentile of it.
    pub first_token_p95: Option<Duration>,
    /// How often each reason made a request fail.
    pub failures: BTreeMap<String, u64>,
}

/// A request that was answered completely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answered {
    /// Tokens that arrived in a stream; 0 for an answer in one piece.
    pub(super) streamed_tokens: u32,
    /// Time to the first token of a stream.
    pub(super) first_token: Option<Duration>,
}

/// Counts for many clients.
#[derive(Debug)]
pub struct Tally(Mutex<(Totals, Quantiles)>);

impl Tally {
    pub(super) fn new() -> Tally {
        Tally(Mutex::new((Totals::default(), Quantiles::new())))
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let counts = self.counts();
        let (totals, first_token) = &*counts;
        Totals {
            first_token_p50: first_token.quantile(0.50),
            first_token_p95: first_token.quantile(0.95),
            ..totals.clone()
        }
    }

    pub(super) fn record(&self, outcome: Result<Answered, String>) {
        let (totals, first_token) = &mut *self.counts();
        match outcome {
            Ok(answered) => {
                totals.served += 1;
                totals.streamed_tokens += u64::from(answered.streamed_tokens);
                if let Some(duration) = answered.first_token {
                    first_token.record(duration);
                }
            }
            Err(reason) => {
                totals.failed += 1;
                let known = totals.failures.len() < REASONS_MAX || totals.failures.contains_key(&reason);
                let reason = if known { reason } else { "other reasons".to_owned() };
                *totals.failures.entry(reason).or_default() += 1;
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, (Totals, Quantiles)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close() {
        let mut quantiles = Quantiles::new();
        assert_eq!(quantiles.quantile(0.5), None);
        for ms in 1..=1000 {
            quantiles.record(Duration::from_millis(ms));
        }
        for (q, expected) in [(0.5, 0.5), (0.95, 0.95)] {
            let found = quantiles.quantile(q).expect("there are samples").as_secs_f64();
            assert!((found / expected - 1.0).abs() < 0.06, "{q}: {found}");
        }
        quantiles.record(Duration::from_secs(3600));
    }

    #[test]
    fn reasons_are_kept_but_not_without_limit() {
        let tally = Tally::new();
        tally.record(Ok(Answered { streamed_tokens: 7, first_token: Some(Duration::from_millis(20)) }));
        for n in 0..100 {
            tally.record(Err(format!("reason {n}")));
        }
        let totals = tally.totals();
        assert_eq!((totals.served, totals.failed, totals.streamed_tokens), (1, 100, 7));
        assert_eq!(totals.failures.len(), REASONS_MAX + 1);
        assert_eq!(totals.failures.values().sum::<u64>(), 100);
    }
}
