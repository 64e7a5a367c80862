//! What the dashboard shows, collected; and when that is another picture.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::{Control, Picture, RoutePicture, lock, trends::Trends};
use crate::{
    admin::{
        Desk,
        board::{self, Board, InFull, Move, Past, Signal},
    },
    model::{BackendId, Decision, Health, Override, RouteId, Timestamp},
    policy::explain,
    signals::prices::PriceReport,
    store::{EntryKind, Journal, JournalQuery, journal::QUERY_ENTRIES_MAX},
};

/// Figures that flow (latency, demand, ages) count as another picture after so many seconds: often enough to be live, too
/// seldom to keep a hundred pages busy.
const FLOW_SECONDS: i64 = 5;

/// How far back moves are read from the journal at the start, in seconds.
const MOVES_SECONDS: i64 = 24 * 3600;

impl Control {
    pub(super) fn board_at(&self, now: Timestamp, only: &str) -> Board {
        let status = self.status();
        let full = board::in_full(&status.routes, only).into_iter().filter_map(|place| {
            let route = &status.routes[place].route;
            let explanation = self.explanation(route.as_str())?;
            Some(InFull { place, explanation, trend: lock(&self.trends).of(route) })
        });
        let full = full.collect();
        let moves = lock(&self.trends).moves();
        let savings = self.picture.load().as_ref().map(|picture| picture.savings).unwrap_or_default();
        let signals = self.signals_at(now);
        let settings = &self.active.load().settings;
        let needed = |price: &PriceReport| {
            let backend = settings.backends.iter().find(|backend| backend.id == price.backend);
            price.usd_per_hour.is_some() || backend.is_some_and(|backend| backend.needs(price.offer))
        };
        // That nobody states what no cost is made of is no news.
        let prices = self.prices().into_iter().filter(needed).collect();
        Board { at: now, status, full, prices, signals, moves, savings }
    }

    /// The decision about a route that was journaled at a moment.
    pub(super) fn past_of(&self, route: &RouteId, at: Timestamp) -> Result<Option<Past>, String> {
        let query = JournalQuery {
            route: Some(route.clone()),
            kind: Some(EntryKind::Decision),
            since: Some(at),
            until: Some(at),
            limit: 1,
        };
        let Some(entry) = Desk::journal(self, &query)?.pop() else { return Ok(None) };
        let unreadable = |why: serde_json::Error| format!("the decision of {at} cannot be read: {why}");
        let decision: Decision = serde_json::from_value(entry["decision"].clone()).map_err(unreadable)?;
        let overrides = match &entry["snapshot"]["overrides"] {
            Value::Null => Vec::new(),
            listed => serde_json::from_value(listed.clone()).map_err(unreadable)?,
        };
        Ok(Some(Past {
            route: route.clone(),
            summary: explain::summary(&decision),
            what_would_change_it: explain::what_would_change_it(&decision),
            binding: explain::binding(&decision),
            decision,
            overrides,
        }))
    }

    fn signals_at(&self, now: Timestamp) -> Vec<Signal> {
        let age = |at: Timestamp| now.duration_since(at).as_secs_f64().max(0.0);
        let mut signals = Vec::new();
        for feed in lock(&self.signals.book).faults() {
            let says = match feed.held {
                0 => "node prices".to_owned(),
                held => format!("node prices; {held} are not believed, the last good ones stay in use"),
            };
            signals.push(Signal {
                kind: "prices",
                name: feed.source.to_string(),
                says,
                age_seconds: feed.last_good.map(age),
                fault: feed.fault.map(|fault| fault.to_string()),
            });
        }
        let notices = lock(&self.intake).counts();
        for backend in &self.active.load().settings.backends {
            let id = &backend.id;
            signals.push(self.probe_signal(id, now));
            if let Some(load) = self.signals.load.status(id, now) {
                signals.push(Signal {
                    kind: "load",
                    name: id.to_string(),
                    says: load.ready_replicas.map_or_else(
                        || "queues and saturation".into(),
                        |ready| format!("{ready} ready replicas"),
                    ),
                    age_seconds: load.age_seconds,
                    fault: (!load.faults.is_empty()).then(|| load.faults.join("; ")),
                });
            }
            let received: u64 = notices.iter().filter(|(of, ..)| of == id).map(|(.., count)| count).sum();
            if received > 0 {
                signals.push(Signal {
                    kind: "notices",
                    name: id.to_string(),
                    says: format!("{received} received since the start"),
                    age_seconds: None,
                    fault: None,
                });
            }
        }
        signals
    }

    fn probe_signal(&self, backend: &BackendId, now: Timestamp) -> Signal {
        let (health, probe) = self.signals.probes.view(backend, now);
        let says = match health {
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
            Health::Unknown => "not known yet",
        };
        let error = self.signals.probes.last_error(backend).map(|why| why.to_string());
        let fault = self.signals.resolver.fault(backend).map(|why| why.to_string()).or(error);
        Signal {
            kind: "probe",
            name: backend.to_string(),
            says: says.into(),
            age_seconds: probe.map(|probe| now.duration_since(probe.at).as_secs_f64().max(0.0)),
            fault,
        }
    }
}

/// What a reader would see as one picture, as a number.
pub(super) fn hash(
    picture: &Picture,
    overrides: &[Override],
    generation: u64,
    prices: u64,
    now: Timestamp,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (generation, prices, now.as_second().div_euclid(FLOW_SECONDS)).hash(&mut hasher);
    overrides.iter().for_each(|order| order.id.hash(&mut hasher));
    for RoutePicture { decision, snapshot, .. } in &picture.routes {
        decision.reason.code().hash(&mut hasher);
        for (verdict, view) in decision.backends.iter().zip(&snapshot.backends) {
            // Tenths of a percent, as they are shown.
            let shown = |share: f64| (share * 1000.0).round() as i64;
            (shown(verdict.share), shown(verdict.target), verdict.limited_by, view.health).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The moves of the last day, from the journal: what is remembered at the start.
pub(super) fn remembered(journal: &Journal, now: Timestamp) -> Trends {
    let query = JournalQuery {
        kind: Some(EntryKind::Decision),
        since: now.checked_sub(jiff::SignedDuration::from_secs(MOVES_SECONDS)).ok(),
        limit: QUERY_ENTRIES_MAX,
        ..JournalQuery::default()
    };
    let mut trends = Trends::default();
    let entries = journal.read(&query).unwrap_or_else(|error| {
        tracing::warn!("{error}; the dashboard does not show the moves before this start");
        Vec::new()
    });
    entries.into_iter().rev().filter_map(|entry| moved(&entry)).for_each(|moved| trends.note(moved));
    trends
}

/// The move that an entry of the journal is about.
fn moved(entry: &Value) -> Option<Move> {
    let decision: Decision = serde_json::from_value(entry.get("decision")?.clone()).ok()?;
    let route = entry.get("route")?.as_str()?.parse().ok()?;
    let (at, action, reason) = (decision.at, decision.action, decision.reason.to_string());
    explain::is_move(&decision).then_some(Move { at, route, action, reason })
}
