//! The reports of all backends.

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{
    metrics,
    orca::Tally,
    promql::{self, Figure},
    reading::{Feed, Reading, Said, joined},
};
use crate::{
    model::{Backend, BackendId, BackendTls, Endpoint, LoadReport, LoadSpec, Protocol, Timestamp},
    signals::{
        client::{Body, Client},
        resolve::Lookup,
        task::OwnedTask,
        traffic::Meters,
    },
};

/// Longest time that one question may take: a report that takes longer is stale before it is there.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Longest answer that is read. The metrics of a vLLM server have some 100 kB.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Shortest time between two questions, whatever is configured: asking must not become load.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Asks every backend that is configured for it, and knows what they said.
#[derive(Debug)]
pub struct LoadBoard {
    slots: Mutex<HashMap<BackendId, Slot>>,
    meters: Arc<Meters>,
}

#[derive(Debug)]
struct Slot {
    backend: Arc<Backend>,
    known: Arc<Mutex<Known>>,
    orca: Option<Arc<Tally>>,
    _tasks: Vec<OwnedTask>,
}

/// What the sources of one backend said.
#[derive(Debug, Default)]
struct Known {
    /// One for each expression, so that one that fails leaves the others what they are.
    promql: [Feed; Figure::ALL.len()],
    metrics: Feed,
    orca: Feed,
    /// Requests that this program had under way there when the loop last looked.
    in_flight: u64,
}

impl Known {
    /// What is recent, in the order in which it counts.
    fn recent(&self, spec: &LoadSpec, now: Timestamp) -> Vec<&Reading> {
        let feeds = self.promql.iter().chain([&self.metrics, &self.orca]);
        feeds.filter_map(|feed| feed.recent(spec.report_age_max(), now)).collect()
    }
}

/// What is known of a backend's reports, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoadStatus {
    /// Replicas that are ready.
    pub ready_replicas: Option<u32>,
    /// Requests that wait, as reported.
    pub queued: Option<f64>,
    /// Requests that are worked on, as reported.
    pub running: Option<f64>,
    /// Part of the scarcest resource in use, 0 to 1.
    pub saturation: Option<f64>,
    /// Age of the oldest figure of these in seconds; `None` when nothing is recent enough.
    pub age_seconds: Option<f64>,
    /// What was wrong with the last question to each source; empty if nothing.
    pub faults: Vec<String>,
}

impl LoadBoard {
    /// A board without backends. `meters` hold what answers say of the load.
    pub fn new(meters: Arc<Meters>) -> LoadBoard {
        LoadBoard { slots: Mutex::default(), meters }
    }

    /// Asks `backends` from now on, and no others. What a backend said stays as long as it is asked in the same way. Call it
    /// within a tokio runtime.
    pub fn reconcile(&self, backends: &[Arc<Backend>]) {
        let mut slots = lock(&self.slots);
        let wanted: HashSet<&BackendId> =
            backends.iter().filter(|backend| backend.load.is_read()).map(|backend| &backend.id).collect();
        slots.retain(|id, _| wanted.contains(id));
        for backend in backends.iter().filter(|backend| backend.load.is_read()) {
            if slots.get(&backend.id).is_some_and(|slot| same_way(&slot.backend, backend)) {
                continue;
            }
            let known = Arc::new(Mutex::new(Known::default()));
            let mut tasks = Vec::new();
            for source in Source::of(&backend.load) {
                tasks.push(OwnedTask::spawn(keep(backend.clone(), known.clone(), source)));
            }
            let orca = backend.load.orca.then(|| self.meters.tally(&backend.id));
            slots.insert(backend.id.clone(), Slot { backend: backend.clone(), known, orca, _tasks: tasks });
        }
    }

    /// What a backend reports, as far as it is recent at `now`; nothing where nothing is configured. `in_flight`: requests
    /// that this program has under way there. Call it in every turn of the loop.
    pub fn view(&self, id: &BackendId, in_flight: u64, now: Timestamp) -> LoadReport {
        let slots = lock(&self.slots);
        let Some(slot) = slots.get(id) else { return LoadReport::default() };
        let mut known = lock(&slot.known);
        known.in_flight = in_flight;
        if let Some(outcome) = slot.orca.as_ref().and_then(|tally| tally.take()) {
            let reading = |said| Reading { said, at: now, in_flight, of_one_replica: true };
            known.orca.note(outcome.map(reading));
        }
        joined(&known.recent(&slot.backend.load, now), in_flight)
    }

    /// When the number of ready replicas was last reported, if that is recent at `now`.
    pub fn ready_seen_at(&self, id: &BackendId, now: Timestamp) -> Option<Timestamp> {
        let slots = lock(&self.slots);
        let slot = slots.get(id)?;
        let known = lock(&slot.known);
        let recent = known.recent(&slot.backend.load, now);
        recent.iter().find(|reading| reading.said.ready.is_some()).map(|reading| reading.at)
    }

    /// What is known of a backend's reports; `None` where nothing is configured.
    pub fn status(&self, id: &BackendId, now: Timestamp) -> Option<LoadStatus> {
        let slots = lock(&self.slots);
        let slot = slots.get(id)?;
        let known = lock(&slot.known);
        let recent = known.recent(&slot.backend.load, now);
        let report = joined(&recent, known.in_flight);
        let age = |reading: &&Reading| now.duration_since(reading.at).as_secs_f64().max(0.0);
        let faults = known.promql.iter().map(|feed| ("prometheus", feed));
        let faults = faults.chain([("metrics", &known.metrics), ("orca", &known.orca)]);
        Some(LoadStatus {
            ready_replicas: report.ready_replicas,
            queued: report.queued,
            running: recent.iter().find_map(|reading| reading.said.running),
            saturation: report.saturation,
            age_seconds: recent.iter().map(age).reduce(f64::max),
            faults: faults
                .filter_map(|(name, feed)| Some(format!("{name}: {}", feed.fault.as_ref()?)))
                .collect(),
        })
    }
}

fn same_way(old: &Backend, new: &Backend) -> bool {
    old.load == new.load && old.protocol == new.protocol && old.tls == new.tls
}

/// What a task asks.
#[derive(Clone, Copy, Debug)]
enum Source {
    Metrics,
    Promql(Figure),
}

impl Source {
    /// The sources that are asked, by configuration.
    fn of(spec: &LoadSpec) -> Vec<Source> {
        let expressions = spec.promql.iter().flat_map(promql::expressions);
        let figures = expressions.map(|(figure, _)| Source::Promql(figure));
        figures.chain(spec.metrics.iter().map(|_| Source::Metrics)).collect()
    }
}

/// Asks one source of one backend again and again, at random moments at first, so that backends configured together are not
/// asked together.
async fn keep(backend: Arc<Backend>, known: Arc<Mutex<Known>>, source: Source) {
    let interval = backend.load.interval.max(INTERVAL_MIN);
    let made = backend.clone();
    let Ok(Some(question)) = spawn_blocking(move || Question::new(&made, source)).await else {
        tracing::error!(backend = %backend.id, ?source, "the question for its load cannot be made ready");
        return;
    };
    let question = Arc::new(question);
    let mut lookup = Lookup::system();
    let mut gap = interval.mul_f64(0.1 + 0.9 * fastrand::f64());
    loop {
        let started = Instant::now();
        let outcome;
        (outcome, lookup) = guarded(&question, lookup).await;
        note(&backend.id, &mut lock(&known), &question, outcome);
        sleep_until(started + gap).await;
        gap = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
    }
}

/// One question in a task of its own: a panic in it is a fault, not the end of asking.
async fn guarded(question: &Arc<Question>, mut lookup: Lookup) -> (Result<Said, String>, Lookup) {
    let mut asking = JoinSet::new();
    let question = question.clone();
    asking.spawn(async move { (question.ask(&mut lookup).await, lookup) });
    match asking.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => (Err(format!("the question itself failed: {error}")), Lookup::system()),
        None => (Err("the question was not asked".into()), Lookup::system()),
    }
}

fn note(id: &BackendId, known: &mut Known, question: &Question, outcome: Result<Said, String>) {
    let in_flight = known.in_flight;
    let of_one_replica = question.of_one_replica();
    let feed = match question {
        Question::Metrics { .. } => &mut known.metrics,
        Question::Promql { figure, .. } => &mut known.promql[*figure as usize],
    };
    let was_at_fault = feed.fault.is_some();
    let reading = |said| Reading { said, at: Timestamp::now(), in_flight, of_one_replica };
    feed.note(outcome.map(reading));
    match (&feed.fault, was_at_fault) {
        (Some(fault), false) => tracing::warn!(backend = %id, "its load is not known: {fault}"),
        (None, true) => tracing::info!(backend = %id, "its load is known again"),
        _ => {}
    }
}

/// What to ask, made ready once.
enum Question {
    Metrics { client: Client, url: String, path: String, of_one_replica: bool },
    Promql { client: Client, server: String, path: String, figure: Figure, expression: String },
}

impl Question {
    /// May read the system's certificates: call it where blocking is allowed. `None` if that is not configured.
    fn new(backend: &Backend, source: Source) -> Option<Question> {
        // Only the backend itself is shown its certificate, and has its name.
        let others = BackendTls { ca: backend.tls.ca.clone(), ..BackendTls::default() };
        let client = |endpoint: &Endpoint, protocol| {
            let tls = if *endpoint == backend.endpoint { &backend.tls } else { &others };
            Client::new(endpoint, protocol, tls, TIMEOUT)
        };
        Some(match source {
            Source::Metrics => {
                let metrics = backend.load.metrics.as_ref()?;
                let own = metrics.url.endpoint == backend.endpoint;
                // Whoever else serves metrics may speak another version than the backend.
                let protocol = if own { backend.protocol } else { Protocol::Auto };
                Question::Metrics {
                    client: client(&metrics.url.endpoint, protocol),
                    url: metrics.url.to_string(),
                    path: metrics.url.path.clone(),
                    of_one_replica: metrics.of_one_replica,
                }
            }
            Source::Promql(figure) => {
                let source = backend.load.promql.as_ref()?;
                let (_, expression) =
                    promql::expressions(source).into_iter().find(|(known, _)| *known == figure)?;
                Question::Promql {
                    client: client(&source.server.endpoint, Protocol::Auto),
                    server: source.server.to_string(),
                    path: promql::question(&source.server.path, expression),
                    figure,
                    expression: expression.into(),
                }
            }
        })
    }

    fn of_one_replica(&self) -> bool {
        matches!(self, Question::Metrics { of_one_replica: true, .. })
    }

    async fn ask(&self, lookup: &mut Lookup) -> Result<Said, String> {
        match self {
            Question::Metrics { client, url, path, .. } => {
                let at = |why: &dyn Display| format!("{url}: {why}");
                let reply = client.get(path, Body::UpTo(BODY_BYTES_MAX), lookup).await.map_err(|e| at(&e))?;
                if !reply.status.is_success() {
                    return Err(at(&format_args!("HTTP {}", reply.status.as_u16())));
                }
                let text = std::str::from_utf8(&reply.body).map_err(|_| at(&"the answer is not text"))?;
                metrics::read(text).map_err(|why| at(&why))
            }
            Question::Promql { client, server, path, figure, expression } => {
                let at = |why: String| format!("{server}: {why}");
                let reply = client.get(path, Body::UpTo(BODY_BYTES_MAX), lookup).await.map_err(at)?;
                let value =
                    promql::value(*figure, expression, reply.status.as_u16(), &reply.body).map_err(at)?;
                let mut said = Said::default();
                match figure {
                    // A fraction is that of a replica that is not ready as a whole.
                    Figure::Ready => said.ready = Some(value.floor().min(f64::from(u32::MAX)) as u32),
                    Figure::Queued => said.queued = Some(value),
                    Figure::Saturation => said.saturation = Some(value),
                }
                Ok(said)
            }
        }
    }
}

/// What is under these locks is whole even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
