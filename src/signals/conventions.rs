//! What requests are counted by where a collector takes metrics: as the semantic conventions of OpenTelemetry have it, beside what a
//! [`Meter`](super::traffic::Meter) counts anyway.
//!
//! A combination of attributes comes to be when it is first seen. There are few: methods, codes and operations are fixed words, models
//! those that the configuration names. To count by one that is there is a look-up without a lock, and two counters.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ahash::AHashMap;
use arc_swap::ArcSwap;

use super::{
    ledger::Tokens,
    traffic::{CLIENT_LEFT, Outcome, named_code},
};

/// Upper bounds that the conventions advise for `http.server.request.duration`, in microseconds.
pub const REQUEST_BOUNDS: [u64; 14] = [
    5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// Those for `gen_ai.server.request.duration`, in microseconds.
pub const OPERATION_BOUNDS: [u64; 14] = [
    10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000, 10_240_000,
    20_480_000, 40_960_000, 81_920_000,
];

/// Those for `gen_ai.server.time_to_first_token`, in microseconds.
pub const FIRST_TOKEN_BOUNDS: [u64; 16] = [
    1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
    2_500_000, 5_000_000, 7_500_000, 10_000_000,
];

/// Those for `gen_ai.client.token.usage`, in tokens.
pub const TOKEN_BOUNDS: [u64; 14] =
    [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];

/// How often values lay below which of `N` bounds.
#[derive(Debug)]
pub struct Distribution<const N: usize> {
    within: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Distribution<N> {
    fn default() -> Self {
        let within = [const { AtomicU64::new(0) }; N];
        Distribution { within, beyond: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Distribution<N> {
    /// Counts a value by these bounds, each of which is within its bucket.
    fn record(&self, bounds: &[u64; N], value: u64) {
        let bucket = bounds.partition_point(|bound| *bound < value);
        self.within.get(bucket).unwrap_or(&self.beyond).fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// How many lay in each bucket, the last of which has no bound; and the sum of all.
    pub fn counts(&self) -> (Vec<u64>, u64) {
        let all = self.within.iter().chain([&self.beyond]);
        (all.map(|count| count.load(Relaxed)).collect(), self.sum.load(Relaxed))
    }
}

/// Counters by what tells them apart.
#[derive(Debug)]
pub struct Series<K, V>(ArcSwap<AHashMap<K, Arc<V>>>);

impl<K, V> Default for Series<K, V> {
    fn default() -> Self {
        Series(ArcSwap::from_pointee(AHashMap::new()))
    }
}

impl<K: Clone + Eq + Hash, V: Default> Series<K, V> {
    /// The one of this key, made when first asked for.
    fn at(&self, key: &K) -> Arc<V> {
        if let Some(known) = self.0.load().get(key) {
            return known.clone();
        }
        let fresh = Arc::<V>::default();
        self.0.rcu(|all| {
            let mut all = AHashMap::clone(all);
            all.entry(key.clone()).or_insert_with(|| fresh.clone());
            all
        });
        // Somebody else may have been first.
        self.0.load().get(key).cloned().unwrap_or(fresh)
    }

    /// All of them.
    pub fn all(&self) -> Vec<(K, Arc<V>)> {
        self.0.load().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// Its method, if it is one of HTTP's own; else `_OTHER`.
    pub method: &'static str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The version of HTTP, as the conventions write it.
    pub version: &'static str,
}

/// What an error is told by, of a small number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The status that was answered.
    Status(u16),
    /// The client left before it was answered.
    ClientLeft,
    /// The answer broke after it had begun.
    BrokenOff,
    /// A status that is none.
    Other,
}

impl Failure {
    /// As `error.type` has it.
    pub fn text(self) -> String {
        match self {
            Failure::Status(code) => code.to_string(),
            Failure::ClientLeft => "client_left".into(),
            Failure::BrokenOff => "broken_off".into(),
            Failure::Other => "_OTHER".into(),
        }
    }
}

/// The status that the client was told, and the error where it is one from `from` on. A code that has no name counts as the first of its
/// class, which is how clients have to take it (RFC 9110, 15).
fn ended(outcome: &Outcome, from: u16) -> (Option<u16>, Option<Failure>) {
    let code = named_code(outcome.code);
    match code {
        Some(CLIENT_LEFT) => (None, Some(Failure::ClientLeft)),
        Some(code) if code >= from => (Some(code), Some(Failure::Status(code))),
        Some(code) => (Some(code), outcome.failed.then_some(Failure::BrokenOff)),
        None => (None, Some(Failure::Other)),
    }
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answered {
    /// How it came.
    pub way: Way,
    /// The status that the client was told; `None` if it was told none.
    pub status: Option<u16>,
    /// Why it failed, if it did: by a status from 500 on, or without one.
    pub error: Option<Failure>,
}

/// What a model was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inference {
    /// `chat`, `text_completion`, `embeddings` or `generate_content`.
    pub operation: &'static str,
    /// Whose API that is, as far as the backend's address or the path of the request says.
    pub provider: &'static str,
    /// The model that the client named; `None` if the configuration does not name it.
    pub asked: Option<Arc<str>>,
    /// The name that the backend was given in its place.
    pub given: Option<Arc<str>>,
}

impl Inference {
    /// Whether its answer is made of tokens.
    fn has_output(&self) -> bool {
        self.operation != "embeddings"
    }
}

/// Which way tokens go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// To the model.
    Input,
    /// From it.
    Output,
}

impl TokenKind {
    /// As the conventions spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenKind::Input => "input",
            TokenKind::Output => "output",
        }
    }
}

/// What the requests of one route and one backend are counted by.
#[derive(Debug, Default)]
pub struct Conventional {
    /// How long requests took, from their arrival to the end of their answer.
    pub requests: Series<Answered, Distribution<14>>,
    /// The same of those that asked a model for something, by why they failed: a status from 400 on is an error there.
    pub operations: Series<(Inference, Option<Failure>), Distribution<14>>,
    /// The time to the first byte of the answers of those that succeeded.
    pub first_tokens: Series<Inference, Distribution<16>>,
    /// The tokens that answers reported.
    pub tokens: Series<(Inference, TokenKind), Distribution<14>>,
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

impl Conventional {
    /// Counts a request that has ended.
    pub fn finish(&self, way: Way, outcome: &Outcome) {
        let (status, error) = ended(outcome, 500);
        let of = self.requests.at(&Answered { way, status, error });
        of.record(&REQUEST_BOUNDS, micros(outcome.duration));
    }

    /// Counts one that asked a model for something, with its tokens and the time to its first byte where they are known.
    pub fn infer(
        &self,
        what: Inference,
        outcome: &Outcome,
        tokens: Option<&Tokens>,
        first_byte: Option<Duration>,
    ) {
        let (_, error) = ended(outcome, 400);
        let of = self.operations.at(&(what.clone(), error));
        of.record(&OPERATION_BOUNDS, micros(outcome.duration));
        if let (None, Some(time)) = (error, first_byte) {
            self.first_tokens.at(&what).record(&FIRST_TOKEN_BOUNDS, micros(time));
        }
        // The conventions have no place for estimates.
        let Some(tokens) = tokens.filter(|tokens| tokens.reported) else { return };
        let (output, has_output) = (tokens.output, what.has_output());
        self.tokens.at(&(what.clone(), TokenKind::Input)).record(&TOKEN_BOUNDS, tokens.input);
        if has_output {
            self.tokens.at(&(what, TokenKind::Output)).record(&TOKEN_BOUNDS, output);
        }
    }
}

/// Requests under way, by method and scheme.
#[derive(Debug, Default)]
pub struct Active(Series<(&'static str, &'static str), AtomicU64>);

/// A request under way, until it is dropped.
#[derive(Debug)]
pub struct Ongoing(Arc<AtomicU64>);

impl Active {
    /// A request has come.
    pub fn enter(&self, way: Way) -> Ongoing {
        let count = self.0.at(&(way.method, way.scheme));
        count.fetch_add(1, Relaxed);
        Ongoing(count)
    }

    /// How many there are, by method and scheme.
    pub fn all(&self) -> Vec<((&'static str, &'static str), u64)> {
        self.0.all().into_iter().map(|(key, count)| (key, count.load(Relaxed))).collect()
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way = Way { method: "POST", scheme: "https", version: "2" };

    fn outcome(code: u16, failed: bool, ms: u64) -> Outcome {
        let duration = Duration::from_millis(ms);
        Outcome { code, failed, duration, bytes_received: 0, bytes_sent: 0 }
    }

    fn chat(operation: &'static str) -> Inference {
        Inference { operation, provider: "openai", asked: Some("large".into()), given: None }
    }

    #[test]
    fn bounds_rise_and_belong_to_the_bucket_below_them() {
        assert!(REQUEST_BOUNDS.is_sorted() && OPERATION_BOUNDS.is_sorted());
        assert!(FIRST_TOKEN_BOUNDS.is_sorted() && TOKEN_BOUNDS.is_sorted());
        let of = Distribution::default();
        for value in [0, 1, 2, 4, 5, u64::from(u32::MAX)] {
            of.record(&TOKEN_BOUNDS, value);
        }
        let (counts, sum) = of.counts();
        assert_eq!(counts, [2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum, 12 + u64::from(u32::MAX));
    }

    #[test]
    fn an_end_is_told_by_its_status_or_by_why_there_is_none() {
        let of = |code, failed| ended(&outcome(code, failed, 1), 500);
        assert_eq!(of(404, false), (Some(404), None));
        assert_eq!(of(502, true), (Some(502), Some(Failure::Status(502))));
        assert_eq!(of(200, true), (Some(200), Some(Failure::BrokenOff)));
        assert_eq!(of(CLIENT_LEFT, false), (None, Some(Failure::ClientLeft)));
        assert_eq!(of(599, true), (Some(500), Some(Failure::Status(500))), "a backend cannot make up series");
        assert_eq!(of(777, true), (None, Some(Failure::Other)));
        assert_eq!(ended(&outcome(429, false, 1), 400).1, Some(Failure::Status(429)));
    }

    #[test]
    fn requests_that_are_alike_are_counted_together() {
        let counts = Conventional::default();
        counts.finish(WAY, &outcome(200, false, 30));
        counts.finish(WAY, &outcome(200, false, 70));
        counts.finish(WAY, &outcome(503, true, 1));
        let all = counts.requests.all();
        assert_eq!(all.len(), 2);
        let (_, good) = all.iter().find(|(of, _)| of.error.is_none()).unwrap();
        let (buckets, sum) = good.counts();
        assert_eq!((buckets[3], buckets[4], sum), (1, 1, 100_000));
    }

    #[test]
    fn estimates_failures_and_embeddings_leave_out_what_they_have_not() {
        let counts = Conventional::default();
        let tokens = |reported| Tokens { input: 12, output: 5, reported };
        let first = Some(Duration::from_millis(3));
        counts.infer(chat("chat"), &outcome(200, false, 30), Some(&tokens(false)), first);
        assert_eq!((counts.tokens.all().len(), counts.first_tokens.all().len()), (0, 1));
        counts.infer(chat("chat"), &outcome(429, false, 30), None, first);
        assert_eq!((counts.first_tokens.all()[0].1.counts().0[1], counts.operations.all().len()), (1, 2));
        counts.infer(chat("embeddings"), &outcome(200, false, 30), Some(&tokens(true)), first);
        let kinds: Vec<TokenKind> = counts.tokens.all().iter().map(|((_, kind), _)| *kind).collect();
        assert_eq!(kinds, [TokenKind::Input]);
        counts.infer(chat("chat"), &outcome(200, false, 30), Some(&tokens(true)), first);
        assert_eq!(counts.tokens.all().len(), 3);
    }

    #[test]
    fn a_request_is_under_way_until_it_is_dropped() {
        let active = Active::default();
        let one = active.enter(WAY);
        drop(active.enter(WAY));
        assert_eq!(active.all(), [(("POST", "https"), 1)]);
        drop(one);
        assert_eq!(active.all(), [(("POST", "https"), 0)]);
    }

    #[test]
    fn those_who_come_first_together_count_by_one() {
        let counts = Conventional::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| counts.finish(WAY, &outcome(200, false, 1))));
            }
        });
        let all = counts.requests.all();
        assert_eq!((all.len(), all[0].1.counts().0[0]), (1, 400));
    }
}
