//! What requests took: tokens and dollars, added up by the request path as each ends, and the rates by which the control loop
//! prices them.
//!
//! A request costs its part of what the requests of its route cost at its backend at that moment: beyond what is paid anyway, at
//! the average of the load, exactly as the accounts count it. Its part is its tokens over the tokens that a request there has on
//! average; one whose tokens nobody knows is an average one. So the sum over requests is what the accounts say.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Sums are kept in this part of a dollar: fine enough for a token, and 64 bits hold 18 million dollars.
const PER_USD: f64 = 1e12;

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// What it asked with.
    pub input: u64,
    /// What was answered.
    pub output: u64,
    /// Whether the backend said so; otherwise it is an estimate.
    pub reported: bool,
}

impl Tokens {
    /// Both together.
    pub fn all(&self) -> u64 {
        self.input + self.output
    }
}

/// What a group of requests took.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Input and output: estimated, then reported.
    tokens: [[AtomicU64; 2]; 2],
    counted: AtomicU64,
    spent: AtomicU64,
    unpriced: AtomicU64,
}

impl Ledger {
    /// Adds a request that has ended, with its tokens and its cost as far as they are known.
    pub fn add(&self, tokens: Option<&Tokens>, usd: Option<f64>) {
        if let Some(tokens) = tokens {
            let [input, output] = &self.tokens[usize::from(tokens.reported)];
            input.fetch_add(tokens.input, Relaxed);
            output.fetch_add(tokens.output, Relaxed);
            self.counted.fetch_add(1, Relaxed);
        }
        match usd {
            Some(usd) => self.spent.fetch_add(as_parts(usd), Relaxed),
            None => self.unpriced.fetch_add(1, Relaxed),
        };
    }

    /// Input and output tokens, as reported or as estimated.
    pub fn tokens(&self, reported: bool) -> (u64, u64) {
        let [input, output] = &self.tokens[usize::from(reported)];
        (input.load(Relaxed), output.load(Relaxed))
    }

    /// All tokens, and the requests that had them.
    pub fn totals(&self) -> (u64, u64) {
        let all = self.tokens.iter().flatten().map(|count| count.load(Relaxed)).sum();
        (all, self.counted.load(Relaxed))
    }

    /// USD.
    pub fn usd(&self) -> f64 {
        from_parts(self.spent.load(Relaxed))
    }

    /// Requests whose cost was not known.
    pub fn unpriced(&self) -> u64 {
        self.unpriced.load(Relaxed)
    }
}

/// The name under which requests for models are counted that the configuration does not name.
pub const OTHER_MODELS: &str = "other";

/// What the requests of a route for one model took.
#[derive(Debug)]
pub struct ModelLedger {
    /// The model, as clients name it, or [`OTHER_MODELS`].
    pub model: Arc<str>,
    /// What they took.
    pub ledger: Ledger,
}

impl ModelLedger {
    /// An empty one.
    pub fn new(model: &str) -> ModelLedger {
        ModelLedger { model: model.into(), ledger: Ledger::default() }
    }
}

/// An amount as sums hold it.
pub(super) fn as_parts(usd: f64) -> u64 {
    // The cast takes what is negative or no number for 0, and what is too large for the largest.
    (usd * PER_USD) as u64
}

/// An amount as sums hold it, in USD.
pub(super) fn from_parts(parts: u64) -> f64 {
    parts as f64 / PER_USD
}

/// What requests cost now. The control loop writes it, the request path reads it.
#[derive(Debug)]
pub struct Rate {
    usd_per_request: AtomicU64,
    usd_per_token: AtomicU64,
}

impl Default for Rate {
    fn default() -> Rate {
        let unknown = || AtomicU64::new(f64::NAN.to_bits());
        Rate { usd_per_request: unknown(), usd_per_token: unknown() }
    }
}

impl Rate {
    /// From now on a request costs so much on average, and has so many tokens; `None` for what is not known.
    pub fn set(&self, usd_per_request: Option<f64>, tokens_per_request: Option<f64>) {
        let per_request = usd_per_request.unwrap_or(f64::NAN);
        let per_token = match tokens_per_request {
            Some(tokens) if tokens > 0.0 => per_request / tokens,
            _ => f64::NAN,
        };
        self.usd_per_request.store(per_request.to_bits(), Relaxed);
        self.usd_per_token.store(per_token.to_bits(), Relaxed);
    }

    /// What a request of these tokens costs, in USD; `None` if that is not known.
    pub fn usd(&self, tokens: Option<&Tokens>) -> Option<f64> {
        let known = |rate: &AtomicU64| Some(f64::from_bits(rate.load(Relaxed))).filter(|usd| usd.is_finite());
        let by_tokens = tokens.and_then(|tokens| Some(known(&self.usd_per_token)? * tokens.all() as f64));
        by_tokens.or_else(|| known(&self.usd_per_request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_costs_its_part_by_its_tokens() {
        let rate = Rate::default();
        let tokens = |input, output| Tokens { input, output, reported: true };
        assert_eq!(rate.usd(Some(&tokens(1, 1))), None, "unknown is not free");
        rate.set(Some(0.002), None);
        assert_eq!(rate.usd(Some(&tokens(1000, 0))), Some(0.002), "an average one while no mean is known");
        rate.set(Some(0.002), Some(100.0));
        let usd = rate.usd(Some(&tokens(150, 50))).unwrap();
        assert!((usd - 0.004).abs() < 1e-15, "{usd}");
        assert_eq!(rate.usd(None), Some(0.002));
        rate.set(None, Some(100.0));
        assert_eq!(rate.usd(Some(&tokens(1, 1))), None);
    }

    #[test]
    fn a_ledger_adds_up() {
        let ledger = Ledger::default();
        ledger.add(Some(&Tokens { input: 7, output: 5, reported: true }), Some(0.25));
        ledger.add(Some(&Tokens { input: 10, output: 0, reported: false }), Some(1e-9));
        ledger.add(None, None);
        assert_eq!((ledger.tokens(true), ledger.tokens(false), ledger.totals()), ((7, 5), (10, 0), (22, 2)));
        assert!((ledger.usd() - 0.250_000_001).abs() < 1e-15, "{}", ledger.usd());
        assert_eq!(ledger.unpriced(), 1);
        ledger.add(None, Some(f64::NAN));
        ledger.add(None, Some(-1.0));
        assert!(ledger.usd() < 0.26);
    }
}
