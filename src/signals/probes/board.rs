//! The probes of all backends.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{
    standing::Standing,
    target::{Target, Timing},
};
use crate::{
    model::{Backend, BackendId, Health, ProbeSpec, ProbeView, Timestamp},
    signals::{
        credentials::{Badge, CredentialBoard},
        resolve::Lookup,
        task::OwnedTask,
    },
};

/// Shortest time between two probes of a backend, whatever is configured: probing must not become load.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Probes every backend in a task of its own, and knows what they say.
#[derive(Debug)]
pub struct ProbeBoard {
    slots: Mutex<HashMap<BackendId, Slot>>,
    credentials: Arc<CredentialBoard>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Slot {
    backend: Arc<Backend>,
    standing: Arc<Mutex<Standing>>,
    _task: OwnedTask,
}

impl Default for ProbeBoard {
    fn default() -> ProbeBoard {
        ProbeBoard::new()
    }
}

impl ProbeBoard {
    /// A board without backends.
    pub fn new() -> ProbeBoard {
        ProbeBoard::showing(Arc::default())
    }

    /// A board without backends, whose probes show these credentials.
    pub fn showing(credentials: Arc<CredentialBoard>) -> ProbeBoard {
        ProbeBoard { slots: Mutex::default(), credentials, changes: watch::Sender::new(0) }
    }

    /// Probes `backends` from now on, and no others. What is known about a backend stays as long as the way to it is the
    /// same; a new way to probe it starts at once. Call it within a tokio runtime.
    pub fn reconcile(&self, backends: &[Arc<Backend>]) {
        let mut slots = lock(&self.slots);
        let wanted: HashSet<&BackendId> = backends.iter().map(|backend| &backend.id).collect();
        slots.retain(|id, _| wanted.contains(id));
        for backend in backends {
            let known = slots.get(&backend.id).filter(|slot| same_way(&slot.backend, backend));
            let alike =
                |slot: &Slot| slot.backend.probe == backend.probe && slot.backend.auth == backend.auth;
            if known.is_some_and(alike) {
                continue;
            }
            let standing = known.map_or_else(
                || Arc::new(Mutex::new(Standing::UNKNOWN)),
                |slot| Arc::new(Mutex::new(lock(&slot.standing).clone())),
            );
            let badge = self.credentials.badge(&backend.id);
            let task = OwnedTask::spawn(keep(backend.clone(), badge, standing.clone(), self.changes.clone()));
            slots.insert(backend.id.clone(), Slot { backend: backend.clone(), standing, _task: task });
        }
        drop(slots);
        self.changes.send_modify(|version| *version += 1);
    }

    /// The health of a backend at `now`, and its last successful probe. Health is unknown when there is no result, or none
    /// for three times the interval and timeout: a probe task that died does not freeze what is seen.
    pub fn view(&self, id: &BackendId, now: Timestamp) -> (Health, Option<ProbeView>) {
        let slots = lock(&self.slots);
        let Some(slot) = slots.get(id) else { return (Health::Unknown, None) };
        lock(&slot.standing).view(&slot.backend.probe, now)
    }

    /// Why the last probe of a backend failed, `HTTP 503 to GET /health`; `None` if it did not.
    pub fn last_error(&self, id: &BackendId) -> Option<Arc<str>> {
        lock(&self.slots).get(id).and_then(|slot| lock(&slot.standing).last_error())
    }

    /// Whether every backend has been probed at least once.
    pub fn all_known(&self) -> bool {
        lock(&self.slots).values().all(|slot| lock(&slot.standing).is_known())
    }

    /// Wakes its holder when the health of a backend changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn same_way(old: &Backend, new: &Backend) -> bool {
    old.endpoint == new.endpoint && old.protocol == new.protocol && old.ca == new.ca
}

/// Probes one backend again and again: the first time at once, so that start-up is quick, then at a random moment within an
/// interval, so that backends configured together are not probed together, then every interval with a tenth of jitter.
async fn keep(
    backend: Arc<Backend>,
    badge: Option<Arc<Badge>>,
    standing: Arc<Mutex<Standing>>,
    changes: watch::Sender<u64>,
) {
    let spec = &backend.probe;
    let interval = spec.interval.max(INTERVAL_MIN);
    let made = backend.clone();
    let Ok(target) = spawn_blocking(move || Target::new(&made, badge)).await else {
        tracing::error!(backend = %backend.id, "the probe cannot be made ready; its health stays unknown");
        return;
    };
    let target = Arc::new(target);
    let mut lookup = Lookup::system();
    let mut gap = interval.mul_f64(0.1 + 0.9 * fastrand::f64());
    loop {
        let started = Instant::now();
        let outcome;
        (outcome, lookup) = guarded(&target, lookup).await;
        note(&backend.id, &mut lock(&standing), outcome, spec, &changes);
        sleep_until(started + gap).await;
        gap = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
    }
}

/// One probe in a task of its own: a panic in it is a failed probe, not the end of probing.
async fn guarded(target: &Arc<Target>, mut lookup: Lookup) -> (Result<Timing, String>, Lookup) {
    let mut probe = JoinSet::new();
    let target = target.clone();
    probe.spawn(async move { (target.probe(&mut lookup).await, lookup) });
    match probe.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => (Err(format!("the probe itself failed: {error}")), Lookup::system()),
        None => (Err("the probe was not started".into()), Lookup::system()),
    }
}

fn note(
    id: &BackendId,
    standing: &mut Standing,
    outcome: Result<Timing, String>,
    spec: &ProbeSpec,
    changes: &watch::Sender<u64>,
) {
    let now = Timestamp::now();
    let failed = outcome.as_ref().err().cloned();
    if !standing.note(outcome, spec, now) {
        return;
    }
    match failed {
        Some(error) => tracing::warn!(backend = %id, "unhealthy: {error}"),
        None => tracing::info!(backend = %id, "healthy"),
    }
    changes.send_modify(|version| *version += 1);
}

/// What is under these locks is whole even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
