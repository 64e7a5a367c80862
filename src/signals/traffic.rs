//! What live traffic says: counters that the request path only adds to, and the windows that the control loop cuts from them.
//!
//! A [`Meter`] belongs to one route and one backend and lives as long as the process, so counters never fall, whatever is
//! reloaded. The request path holds it by `Arc` from the routing table: no lock, no look-up.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Deref,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    allowance::{SavedAll, Usage},
    budget::RetryBudget,
    connections::ConnectionMeter,
    conventions::{Active, Conventional},
    hedges::{HedgeBudget, HedgeCounts, Lateness},
    ledger::{Ledger, ModelLedger, Rate},
    load::Tally,
};
use crate::model::{BackendId, Live, RouteId, TenantId, Timestamp};

/// Status codes counted one by one: those that the IANA registry names. Any other is counted by its class, so that a
/// backend cannot make the number of series grow.
const CODES: [u16; 64] = [
    100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305,
    306, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417,
    418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508,
    511,
];

/// The status by which a request is counted whose client left before it was answered (nginx's convention). It says nothing
/// about the backend.
pub const CLIENT_LEFT: u16 = 499;

/// Labels for codes that are not in [`CODES`], by hundreds; the last is for what is no status code at all.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// The code itself, if it has a name; else the first of its class; `None` for what is no status code at all.
pub fn named_code(code: u16) -> Option<u16> {
    match code {
        _ if CODES.binary_search(&code).is_ok() => Some(code),
        100..=599 => Some(code / 100 * 100),
        _ => None,
    }
}

/// Slots of the code counters.
const CODE_SLOTS: usize = CODES.len() + CLASSES.len();

/// Buckets for each doubling of time: a percentile is off by at most an eighth of itself.
const BUCKETS_PER_DOUBLING: usize = 8;

/// Doublings covered, from [`BUCKET_MIN_US`] up: 2^21 x 128 us is 268 s.
const DOUBLINGS: usize = 21;

/// Upper bound of the first bucket, in microseconds.
const BUCKET_MIN_US: u64 = 128;

/// Number of buckets; the last one has no upper bound.
const BUCKETS: usize = DOUBLINGS * BUCKETS_PER_DOUBLING + 2;

/// How far back a [`Live`] figure looks.
const WINDOW: Duration = Duration::from_secs(60);

/// Marks kept in a window, whatever the tick: bounds its memory to about 18 kB.
const MARKS_MAX: usize = 13;

/// A histogram of durations that any thread may add to.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

/// The bucket of a duration: linear within each doubling.
fn bucket_of(us: u64) -> usize {
    if us <= BUCKET_MIN_US {
        return 0;
    }
    let doubling = (us - 1) / BUCKET_MIN_US;
    let exponent = doubling.ilog2() as usize;
    if exponent >= DOUBLINGS {
        return BUCKETS - 1;
    }
    let start = BUCKET_MIN_US << exponent;
    let within = ((us - 1 - start) * BUCKETS_PER_DOUBLING as u64 / start) as usize;
    1 + exponent * BUCKETS_PER_DOUBLING + within
}

/// Upper bound of a bucket in microseconds.
fn bound_of(bucket: usize) -> u64 {
    if bucket == 0 {
        return BUCKET_MIN_US;
    }
    let (exponent, within) = ((bucket - 1) / BUCKETS_PER_DOUBLING, (bucket - 1) % BUCKETS_PER_DOUBLING);
    let start = BUCKET_MIN_US << exponent;
    start + start * (within as u64 + 1) / BUCKETS_PER_DOUBLING as u64
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn counts(&self) -> Box<[u64; BUCKETS]> {
        let mut counts = Box::new([0; BUCKETS]);
        counts.iter_mut().zip(&self.buckets).for_each(|(count, bucket)| *count = bucket.load(Relaxed));
        counts
    }

    /// Durations beyond `limit`, and all. One within its bucket may count on either side: decisions see the same.
    pub fn later_than(&self, limit: Duration) -> (u64, u64) {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let counts = self.counts();
        let later =
            counts.iter().enumerate().filter(|(bucket, _)| bound_of((*bucket).min(BUCKETS - 2)) > limit);
        (later.map(|(_, count)| count).sum(), counts.iter().sum())
    }

    /// For an exporter: sum in seconds, count, and cumulative counts at whole doublings with their bounds in seconds.
    pub fn cumulative(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let counts = self.counts();
        let mut total = 0;
        let mut bounds = Vec::with_capacity(DOUBLINGS + 1);
        for (bucket, count) in counts.iter().enumerate().take(BUCKETS - 1) {
            total += count;
            if bucket % BUCKETS_PER_DOUBLING == 0 {
                bounds.push((bound_of(bucket) as f64 / 1e6, total));
            }
        }
        total += counts[BUCKETS - 1];
        (self.sum_us.load(Relaxed) as f64 / 1e6, total, bounds)
    }
}

/// The duration below which `part` of the counted ones lie: the upper bound of its bucket. `None` when nothing was counted.
fn percentile(counts: &[u64; BUCKETS], part: f64) -> Option<Duration> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = (part * total as f64).ceil().max(1.0) as u64;
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(Duration::from_micros(bound_of(bucket.min(BUCKETS - 2))))
}

/// Why a request was sent a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection could be made.
    Connect,
    /// The backend refused the stream before it processed it.
    Refused,
    /// A request broke before its answer began.
    Broken,
    /// The backend was silent for too long.
    Timeout,
    /// The backend answered with a status for which the route has another try.
    Status,
}

impl RetryReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [RetryReason; 5] = [
        RetryReason::Connect,
        RetryReason::Refused,
        RetryReason::Broken,
        RetryReason::Timeout,
        RetryReason::Status,
    ];

    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            RetryReason::Connect => "connect",
            RetryReason::Refused => "refused",
            RetryReason::Broken => "broken",
            RetryReason::Timeout => "timeout",
            RetryReason::Status => "status",
        }
    }
}

/// Counters of one route and one backend.
#[derive(Debug)]
pub struct Meter {
    codes: [AtomicU64; CODE_SLOTS],
    retries: [AtomicU64; RetryReason::ALL.len()],
    in_flight: AtomicU64,
    failures: AtomicU64,
    /// Failures since the last success.
    in_a_row: AtomicU64,
    broken_off: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    /// Until when the backend asked for no requests; 0 if it did not.
    paused_until_ms: AtomicU64,
    /// From the arrival of a request to the end of its answer.
    pub duration: Histogram,
    /// From the choice of the backend to the first byte of the answer's body, recorded when it comes; failures are left out.
    pub first_byte: Histogram,
    /// Second requests sent there beside a first one that was late, and those that were not sent though the one there was late.
    pub hedges: HedgeCounts,
    /// From when on an answer from there is late.
    pub lateness: Lateness,
    /// What its requests took.
    pub ledger: Ledger,
    /// What they cost now.
    pub rate: Rate,
    /// What is counted besides where a collector takes metrics.
    pub conventional: Conventional,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            codes: [const { AtomicU64::new(0) }; CODE_SLOTS],
            retries: Default::default(),
            in_flight: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            in_a_row: AtomicU64::new(0),
            broken_off: AtomicU64::new(0),
            paused_until_ms: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            duration: Histogram::default(),
            first_byte: Histogram::default(),
            hedges: HedgeCounts::default(),
            lateness: Lateness::default(),
            ledger: Ledger::default(),
            rate: Rate::default(),
            conventional: Conventional::default(),
        }
    }
}

/// Milliseconds since the first look at this clock, which no change of the time of day moves.
fn clock_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Status that the client saw; 0 when it saw none.
    pub code: u16,
    /// Whether the backend failed: no connection, broken, or a 5xx answer.
    pub failed: bool,
    /// From its arrival to the end of its answer.
    pub duration: Duration,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
}

/// A request is on its way until this is dropped, however its task ends.
#[derive(Debug)]
pub struct UnderWay(Arc<Meter>);

impl Deref for UnderWay {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Meter {
    /// A request is on its way.
    pub fn under_way(self: &Arc<Meter>) -> UnderWay {
        self.in_flight.fetch_add(1, Relaxed);
        UnderWay(self.clone())
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Counts a finished request.
    pub fn finish(&self, outcome: &Outcome) {
        let slot = CODES.binary_search(&outcome.code).unwrap_or_else(|_| {
            CODES.len() + (usize::from(outcome.code) / 100).wrapping_sub(1).min(CLASSES.len() - 1)
        });
        self.codes[slot].fetch_add(1, Relaxed);
        if outcome.failed {
            self.failures.fetch_add(1, Relaxed);
            self.in_a_row.fetch_add(1, Relaxed);
        } else if outcome.code < CLIENT_LEFT && self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
        self.duration.record(outcome.duration);
        self.bytes_received.fetch_add(outcome.bytes_received, Relaxed);
        self.bytes_sent.fetch_add(outcome.bytes_sent, Relaxed);
    }

    /// Counts an attempt that is made elsewhere, and whether the backend failed it.
    pub fn retried(&self, reason: RetryReason, failed: bool) {
        self.retries[reason as usize].fetch_add(1, Relaxed);
        if failed {
            self.failures.fetch_add(1, Relaxed);
            self.in_a_row.fetch_add(1, Relaxed);
        }
    }

    /// Attempts that have ended, and those that the backend failed.
    pub fn attempts(&self) -> (u64, u64) {
        let retried: u64 = self.retries.iter().map(|count| count.load(Relaxed)).sum();
        (self.requests() + retried, self.failures.load(Relaxed))
    }

    /// Failures since the last success.
    pub fn failures_in_a_row(&self) -> u64 {
        self.in_a_row.load(Relaxed)
    }

    /// Begins to count failures in a row anew.
    pub fn forgive(&self) {
        self.in_a_row.store(0, Relaxed);
    }

    /// Counts an answer that broke after it had begun.
    pub fn broke_off(&self) {
        self.broken_off.fetch_add(1, Relaxed);
    }

    /// Answers that broke after they had begun.
    pub fn broken_off(&self) -> u64 {
        self.broken_off.load(Relaxed)
    }

    /// The backend asks for no requests for so long.
    pub fn pause(&self, time: Duration) {
        self.paused_until_ms.store(clock_ms() + time.as_millis() as u64, Relaxed);
    }

    /// Whether the backend has asked for no requests now.
    pub fn is_paused(&self) -> bool {
        match self.paused_until_ms.load(Relaxed) {
            // The usual case costs no look at the clock.
            0 => false,
            until if clock_ms() < until => true,
            _ => {
                self.paused_until_ms.store(0, Relaxed);
                false
            }
        }
    }

    /// Finished requests.
    pub fn requests(&self) -> u64 {
        self.codes.iter().map(|c| c.load(Relaxed)).sum()
    }

    /// Attempts that failed at the backend.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Non-zero counts by status code.
    pub fn by_code(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        self.codes.iter().enumerate().filter_map(|(slot, count)| {
            let count = count.load(Relaxed);
            let label = || match CODES.get(slot) {
                Some(code) => code.to_string(),
                None => CLASSES[slot - CODES.len()].to_owned(),
            };
            (count > 0).then(|| (label(), count))
        })
    }

    /// Attempts made elsewhere, by reason.
    pub fn by_retry_reason(&self) -> impl Iterator<Item = (RetryReason, u64)> + '_ {
        RetryReason::ALL.into_iter().zip(self.retries.iter().map(|r| r.load(Relaxed)))
    }

    /// Body bytes from clients and to clients.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_received.load(Relaxed), self.bytes_sent.load(Relaxed))
    }
}

/// Whose requests a meter counts. Without a backend: answers that Tradewind gave itself; without a route: requests that
/// matched none.
pub type MeterKey = (Option<RouteId>, Option<BackendId>);

/// All meters of the process.
#[derive(Debug, Default)]
pub struct Meters {
    // Only the control loop and exporters come here; the request path holds its meters by Arc.
    all: Mutex<HashMap<MeterKey, Arc<Meter>>>,
    tallies: Mutex<HashMap<BackendId, Arc<Tally>>>,
    budgets: Mutex<HashMap<RouteId, Arc<RetryBudget>>>,
    hedges: Mutex<HashMap<RouteId, Arc<HedgeBudget>>>,
    tenants: Mutex<BTreeMap<TenantId, Arc<Usage>>>,
    models: Mutex<HashMap<RouteId, BTreeMap<String, Arc<ModelLedger>>>>,
    /// Connections of clients.
    pub connections: Arc<ConnectionMeter>,
    /// Requests under way, counted where a collector takes metrics.
    pub active: Arc<Active>,
}

impl Meters {
    /// The meter of a route and a backend, made when first asked for.
    pub fn get(&self, route: Option<&RouteId>, backend: Option<&BackendId>) -> Arc<Meter> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry((route.cloned(), backend.cloned())).or_default().clone()
    }

    /// Every meter, sorted by its key.
    pub fn all(&self) -> Vec<(MeterKey, Arc<Meter>)> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = all.iter().map(|(key, meter)| (key.clone(), meter.clone())).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    /// The retry budget of a route, made when first asked for.
    pub fn budget(&self, route: &RouteId) -> Arc<RetryBudget> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.entry(route.clone()).or_default().clone()
    }

    /// How many second requests a route may send, made when first asked for.
    pub fn hedge_budget(&self, route: &RouteId) -> Arc<HedgeBudget> {
        let mut hedges = self.hedges.lock().unwrap_or_else(PoisonError::into_inner);
        hedges.entry(route.clone()).or_default().clone()
    }

    /// Every retry budget, sorted by its route.
    pub fn budgets(&self) -> Vec<(RouteId, Arc<RetryBudget>)> {
        let budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<_> = budgets.iter().map(|(id, budget)| (id.clone(), budget.clone())).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    /// What the requests of a route for a model took, made when first asked for.
    pub fn model(&self, route: &RouteId, model: &str) -> Arc<ModelLedger> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let of_route = models.entry(route.clone()).or_default();
        of_route.entry(model.to_owned()).or_insert_with(|| Arc::new(ModelLedger::new(model))).clone()
    }

    /// What a tenant has used, made when first asked for.
    pub fn tenant(&self, tenant: &TenantId) -> Arc<Usage> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.entry(tenant.clone()).or_default().clone()
    }

    /// What every tenant has used, sorted by its name.
    pub fn tenants(&self) -> Vec<(TenantId, Arc<Usage>)> {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.iter().map(|(id, usage)| (id.clone(), usage.clone())).collect()
    }

    /// What outlives a restart of that.
    pub fn saved_tenants(&self, now: Timestamp) -> SavedAll {
        self.tenants().into_iter().map(|(id, usage)| (id, usage.saved(now))).collect()
    }

    /// Goes on from what was saved.
    pub fn restore_tenants(&self, saved: &SavedAll) {
        saved.iter().for_each(|(id, saved)| self.tenant(id).restore(saved));
    }

    /// What the requests for each model took, sorted by route and model.
    pub fn models(&self) -> Vec<(RouteId, Arc<ModelLedger>)> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(route, models): (&RouteId, &BTreeMap<String, Arc<ModelLedger>>)| {
            models.values().map(|model| (route.clone(), model.clone())).collect::<Vec<_>>()
        };
        let mut list: Vec<_> = models.iter().flat_map(of).collect();
        list.sort_by(|a, b| (&a.0, &a.1.model).cmp(&(&b.0, &b.1.model)));
        list
    }

    /// What the answers of a backend say of its load, made when first asked for.
    pub fn tally(&self, backend: &BackendId) -> Arc<Tally> {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.entry(backend.clone()).or_default().clone()
    }

    /// Requests under way at each backend, of all routes.
    pub fn in_flight_by_backend(&self) -> HashMap<BackendId, u64> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = HashMap::new();
        for ((_, backend), meter) in all.iter() {
            if let Some(backend) = backend {
                *counts.entry(backend.clone()).or_default() += meter.in_flight();
            }
        }
        counts
    }

    /// Requests under way at any backend.
    pub fn in_flight(&self) -> u64 {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().map(|meter| meter.in_flight()).sum()
    }
}

/// The counters of a meter at one moment.
#[derive(Clone, Debug)]
struct Mark {
    at: Timestamp,
    requests: u64,
    failures: u64,
    bytes_sent: u64,
    first_byte: Box<[u64; BUCKETS]>,
}

/// Cuts the last minute, or another time, out of a meter's counters.
#[derive(Debug)]
pub struct Window {
    meter: Arc<Meter>,
    length: Duration,
    marks: VecDeque<Mark>,
}

impl Window {
    /// A window of a minute that starts now.
    pub fn new(meter: Arc<Meter>) -> Window {
        Window::over(meter, WINDOW)
    }

    /// A window of this length that starts now.
    pub fn over(meter: Arc<Meter>, length: Duration) -> Window {
        Window { meter, length, marks: VecDeque::new() }
    }

    /// How far back it looks.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Advances to `now`; says what the window holds, and the bytes and requests in it.
    pub fn advance(&mut self, now: Timestamp) -> (Live, Volume) {
        let mark = Mark {
            at: now,
            requests: self.meter.requests(),
            failures: self.meter.failures.load(Relaxed),
            bytes_sent: self.meter.bytes_sent.load(Relaxed),
            first_byte: self.meter.first_byte.counts(),
        };
        // A clock that was set back makes marks of the future: they say nothing about the past.
        self.marks.retain(|m| m.at < now && now.duration_since(m.at).unsigned_abs() <= self.length);
        let (live, volume) = match self.marks.front() {
            Some(start) => self.between(start, &mark),
            None => (Live { in_flight: self.meter.in_flight(), ..Live::default() }, Volume::default()),
        };
        let spacing = self.length / MARKS_MAX as u32;
        let due = self.marks.back().is_none_or(|last| now.duration_since(last.at).unsigned_abs() >= spacing);
        if due {
            self.marks.push_back(mark);
        }
        (live, volume)
    }

    fn between(&self, start: &Mark, end: &Mark) -> (Live, Volume) {
        let mut first_byte = Box::new([0; BUCKETS]);
        for (count, (end, start)) in
            first_byte.iter_mut().zip(end.first_byte.iter().zip(start.first_byte.iter()))
        {
            *count = end - start;
        }
        let seconds = end.at.duration_since(start.at).as_secs_f64();
        let requests = end.requests - start.requests;
        let live = Live {
            rps: requests as f64 / seconds,
            samples: first_byte.iter().sum(),
            errors: end.failures - start.failures,
            in_flight: self.meter.in_flight(),
            ttfb_p50: percentile(&first_byte, 0.5),
            ttfb_p95: percentile(&first_byte, 0.95),
        };
        (live, Volume { requests, bytes_sent: end.bytes_sent - start.bytes_sent })
    }
}

/// Requests and the bytes of their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Volume {
    /// Finished requests.
    pub requests: u64,
    /// Body bytes sent to clients.
    pub bytes_sent: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finish(meter: &Meter, code: u16, first_byte_ms: u64) {
        if code < 500 {
            meter.first_byte.record(Duration::from_millis(first_byte_ms));
        }
        meter.finish(&Outcome {
            code,
            failed: code >= 500,
            duration: Duration::from_millis(first_byte_ms * 2),
            bytes_received: 10,
            bytes_sent: 1000,
        });
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn what_is_late_is_counted_by_whole_buckets() {
        let histogram = Histogram::default();
        for ms in [10, 40, 700, 2_000, 300_000] {
            histogram.record(Duration::from_millis(ms));
        }
        assert_eq!(histogram.later_than(Duration::from_millis(800)), (2, 5));
        assert_eq!(histogram.later_than(Duration::from_secs(10_000)).0, 0);
    }

    #[test]
    fn codes_are_sorted_for_the_search() {
        assert!(CODES.is_sorted());
    }

    #[test]
    fn unusual_codes_are_counted_by_class() {
        let meter = Meter::default();
        for code in [200, 299, 418, 599, 0, 999] {
            finish(&meter, code, 1);
        }
        let counts: Vec<(String, u64)> = meter.by_code().collect();
        let expected = [("200", 1), ("418", 1), ("2xx", 1), ("5xx", 1), ("other", 2)];
        assert_eq!(counts, expected.map(|(label, n)| (label.to_owned(), n)));
    }

    #[test]
    fn a_pause_ends() {
        let meter = Meter::default();
        assert!(!meter.is_paused());
        meter.pause(Duration::from_secs(60));
        assert!(meter.is_paused());
        meter.pause(Duration::ZERO);
        assert!(!meter.is_paused());
    }

    #[test]
    fn a_window_forgets_what_is_older_than_a_minute() {
        let meter = Arc::new(Meter::default());
        let mut window = Window::new(meter.clone());
        window.advance(at(0));
        (0..100).for_each(|_| finish(&meter, 200, 40));
        finish(&meter, 500, 900);
        let (live, volume) = window.advance(at(10));
        assert!((live.rps - 10.1).abs() < 1e-9);
        assert_eq!((live.samples, live.errors, volume.bytes_sent), (100, 1, 101_000));
        let p50 = live.ttfb_p50.unwrap().as_secs_f64();
        assert!((0.040..0.045).contains(&p50), "{p50}");
        window.advance(at(69));
        let (live, _) = window.advance(at(71));
        assert_eq!((live.samples, live.ttfb_p95), (0, None));
    }

    #[test]
    fn a_clock_set_back_starts_the_window_afresh() {
        let meter = Arc::new(Meter::default());
        let mut window = Window::new(meter.clone());
        window.advance(at(100));
        finish(&meter, 200, 1);
        assert_eq!(window.advance(at(0)).0.samples, 0);
        finish(&meter, 200, 1);
        assert_eq!(window.advance(at(1)).0.samples, 1);
    }

    proptest! {
        #[test]
        fn every_duration_is_below_the_bound_of_its_bucket_and_above_the_one_before(us in 0..400_000_000u64) {
            let bucket = bucket_of(us);
            if bucket < BUCKETS - 1 {
                prop_assert!(us <= bound_of(bucket), "{us} in {bucket} up to {}", bound_of(bucket));
            }
            if bucket > 0 {
                prop_assert!(us > bound_of(bucket - 1), "{us} in {bucket} from {}", bound_of(bucket - 1));
            }
        }
    }
}
