//! Backends that answer their probes and fail their requests, or are far slower than their peers: for a while they get none.
//!
//! The request path only counts. Each turn of the control loop looks at the counters, and a backend that is out shows in the
//! snapshot, so that traffic leaves it by the same decision, with the same reasons and limits, as one whose probes fail.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::traffic::{Meter, Meters};
use crate::model::{
    Backend, BackendId, BackendView, Ejected, EjectedFor, EjectionSpec, Health, Route, Timestamp,
    units::percent,
};
use outlier::Paces;

mod outlier;

/// Marks kept in a window, whatever the tick; the oldest ones thin out what is looked at, never lengthen it.
const MARKS_MAX: usize = 64;

/// Who is out, and for how long.
#[derive(Debug)]
pub struct EjectionBoard {
    meters: Arc<Meters>,
    seen: Mutex<Seen>,
}

/// What was seen of all backends.
#[derive(Debug, Default)]
struct Seen {
    standings: HashMap<BackendId, Standing>,
    paces: Paces,
}

/// Whether one that may be ejected is out, and how often it was, in the order of [`EjectedFor::ALL`].
pub type Tally = (BackendId, bool, [u64; EjectedFor::ALL.len()]);

/// What is known about one backend.
#[derive(Debug, Default)]
struct Standing {
    /// Attempts and failures at past turns, the oldest first.
    marks: VecDeque<(Timestamp, u64, u64)>,
    out: Option<Ejected>,
    /// Ejections in a row, and in all.
    in_a_row: u32,
    counts: [u64; EjectedFor::ALL.len()],
    back_at: Option<Timestamp>,
}

impl EjectionBoard {
    /// A board on which nobody is out.
    pub fn new(meters: Arc<Meters>) -> EjectionBoard {
        EjectionBoard { meters, seen: Mutex::default() }
    }

    /// Looks at what became of requests since the last turn.
    pub fn advance(&self, backends: &[Arc<Backend>], routes: &[Arc<Route>], now: Timestamp) {
        let watched: Vec<_> = backends.iter().filter_map(|b| Some((&b.id, b.ejection.as_ref()?))).collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { standings, paces } = &mut *seen;
        standings.retain(|id, _| watched.iter().any(|(watched, _)| *watched == id));
        if watched.is_empty() {
            *paces = Paces::default();
            return;
        }
        let mut meters: HashMap<BackendId, Vec<Arc<Meter>>> = HashMap::new();
        for ((_, backend), meter) in self.meters.all() {
            if let Some(backend) = backend {
                meters.entry(backend).or_default().push(meter);
            }
        }
        paces.advance(&self.meters, &watched, routes, now);
        for (id, spec) in watched {
            let own = meters.get(id).map_or(&[][..], Vec::as_slice);
            let standing = standings.entry(id.clone()).or_default();
            if standing.comes_back(id, spec, own, now) {
                paces.forget(id);
            }
            if standing.out.is_some() {
                continue;
            }
            let failing = standing.failing(spec, own, now).map(|why| (EjectedFor::Failures, why));
            let is_out = |other: &BackendId| standings.get(other).is_some_and(|s| s.out.is_some());
            let slow = || {
                let why = paces.outlier(id, spec.latency.as_ref()?, routes, is_out)?;
                Some((EjectedFor::Latency, why))
            };
            let Some((reason, why)) = failing.or_else(slow) else { continue };
            let room = routes.iter().filter(|route| route.backends.contains(id)).all(|route| {
                let out = route.backends.iter().filter(|other| is_out(other)).count();
                out as f64 + 1.0 <= route.backends.len() as f64 * spec.max_ejected.get() + 1e-9
            });
            if room && let Some(standing) = standings.get_mut(id) {
                let out = standing.eject(spec, reason, why, own, now);
                tracing::warn!(backend = %id, until = %out.until, "ejected: {}", out.why);
            }
        }
    }

    /// Marks the backends of a route that are out; none if it would then have less than half of them: failures everywhere are
    /// no reason to leave any one of them.
    pub fn mark(&self, views: &mut [BackendView]) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let out = |view: &BackendView| seen.standings.get(&view.backend.id).and_then(|s| s.out.clone());
        let missing =
            views.iter().filter(|view| view.health == Health::Unhealthy || out(view).is_some()).count();
        if missing * 2 <= views.len() {
            views.iter_mut().for_each(|view| view.ejected = out(view));
        }
    }

    /// Of each watched backend whether it is out, and how often it was, sorted by name.
    pub fn all(&self) -> Vec<Tally> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            seen.standings.iter().map(|(id, s)| (id.clone(), s.out.is_some(), s.counts)).collect();
        all.sort();
        all
    }
}

impl Standing {
    /// Ends an ejection whose time is over, and says whether one ended.
    fn comes_back(
        &mut self,
        id: &BackendId,
        spec: &EjectionSpec,
        meters: &[Arc<Meter>],
        now: Timestamp,
    ) -> bool {
        let ends = self.out.as_ref().is_some_and(|out| now >= out.until);
        if ends {
            tracing::info!(backend = %id, "tried again after its ejection");
            self.out = None;
            self.back_at = Some(now);
            self.forget(meters);
        }
        if self.back_at.is_some_and(|at| elapsed(at, now) > spec.time_max) {
            (self.in_a_row, self.back_at) = (0, None);
        }
        ends
    }

    /// Why the backend should go out for its failures, if it should.
    fn failing(&mut self, spec: &EjectionSpec, meters: &[Arc<Meter>], now: Timestamp) -> Option<String> {
        let (attempts, failures) = meters
            .iter()
            .map(|meter| meter.attempts())
            .fold((0, 0), |(attempts, failures), (a, f)| (attempts + a, failures + f));
        self.marks.retain(|(at, ..)| *at <= now && elapsed(*at, now) <= spec.window);
        let (_, attempts_before, failures_before) =
            self.marks.front().copied().unwrap_or((now, attempts, failures));
        let (recent, failed) = (attempts - attempts_before, failures - failures_before);
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((now, attempts, failures));
        let in_a_row = meters.iter().map(|meter| meter.failures_in_a_row()).max().unwrap_or(0);
        if in_a_row >= u64::from(spec.consecutive) {
            return Some(format!("{in_a_row} requests in a row failed"));
        }
        let rate = failed as f64 / recent.max(1) as f64;
        let much = recent >= spec.min_requests.max(1) && rate >= spec.error_rate.get();
        much.then(|| format!("{failed} of {recent} requests failed ({})", percent(rate)))
    }

    fn eject(
        &mut self,
        spec: &EjectionSpec,
        reason: EjectedFor,
        why: String,
        meters: &[Arc<Meter>],
        now: Timestamp,
    ) -> &Ejected {
        // A day of doublings is far beyond any longest time.
        let time = spec.time.saturating_mul(1 << self.in_a_row.min(16)).min(spec.time_max);
        self.in_a_row += 1;
        self.counts[reason as usize] += 1;
        self.forget(meters);
        self.out.insert(Ejected { reason, why, until: now + time })
    }

    /// What was before says nothing about what comes.
    fn forget(&mut self, meters: &[Arc<Meter>]) {
        self.marks.clear();
        meters.iter().for_each(|meter| meter.forgive());
    }
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).unsigned_abs()
}

#[cfg(test)]
mod tests;
