//! What the dashboard shows: everything at one moment, in plain data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::views::{Explanation, RouteStatus, Status};
use crate::{
    model::{Action, BackendId, Decision, Fallback, Override, RouteId, Timestamp},
    signals::prices::PriceReport,
};

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Board {
    /// The moment.
    pub at: Timestamp,
    /// Routes, backends, overrides, warnings.
    pub status: Status,
    /// The routes that are shown in full; of the others there is a line.
    pub full: Vec<InFull>,
    /// Every price in use or missing.
    pub prices: Vec<PriceReport>,
    /// Every other signal.
    pub signals: Vec<Signal>,
    /// Moves of the last 24 hours, newest first.
    pub moves: Vec<Move>,
    /// What was saved.
    pub savings: Savings,
}

/// A route that is shown in full.
#[derive(Clone, Debug)]
pub struct InFull {
    /// Its place in `status.routes`.
    pub place: usize,
    /// Its last decision.
    pub explanation: Explanation,
    /// Its recent past.
    pub trend: Trend,
}

/// Routes that are shown in full at most, and their backends in all: the page stays below 100 KB.
const ROUTES_FULL: usize = 3;
const BACKENDS_FULL: usize = 18;

/// The places of the routes that are shown in full: the one that is asked for, or the first ones.
pub fn in_full(routes: &[RouteStatus], only: &str) -> Vec<usize> {
    if !only.is_empty() {
        return routes.iter().position(|status| status.route.as_str() == only).into_iter().collect();
    }
    let mut backends = 0;
    let fits = |(place, status): &(usize, &RouteStatus)| {
        backends += status.backends.len();
        *place == 0 || backends <= BACKENDS_FULL
    };
    routes.iter().enumerate().take(ROUTES_FULL).take_while(fits).map(|(place, _)| place).collect()
}

/// One source of observations.
#[derive(Clone, Debug)]
pub struct Signal {
    /// What it is: `prices`, `probe`, `load`, `notices`.
    pub kind: &'static str,
    /// Its source or backend.
    pub name: String,
    /// What it says, in words.
    pub says: String,
    /// Seconds since it last said something that could be used; `None` if it never did.
    pub age_seconds: Option<f64>,
    /// What is wrong with it; `None` while nothing is.
    pub fault: Option<String>,
}

/// What a route did over the last hours.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    /// Its backends, in the operator's order.
    pub backends: Arc<[BackendId]>,
    /// Oldest first.
    pub samples: Vec<Sample>,
    /// Seconds between two samples, about.
    pub spacing_seconds: f64,
}

/// A route at one moment of the past.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The moment.
    pub at: Timestamp,
    /// One for each backend of the trend.
    pub points: Arc<[Point]>,
}

/// A backend at one moment of the past. Single precision: it is drawn, and there are many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Its part of the route's requests.
    pub share: f32,
    /// What one more request cost there, in USD per 1,000; `None` if unknown.
    pub usd_per_1k: Option<f32>,
    /// 95th percentile of its time to first byte in seconds; `None` without requests.
    pub p95_seconds: Option<f32>,
    /// What a spot node of it cost, in USD per hour; `None` if unknown, or without nodes.
    pub spot_usd_per_hour: Option<f32>,
    /// The same on demand.
    pub on_demand_usd_per_hour: Option<f32>,
}

/// A move of traffic.
#[derive(Clone, Debug)]
pub struct Move {
    /// When it was decided.
    pub at: Timestamp,
    /// The route.
    pub route: RouteId,
    /// What it did.
    pub action: Action,
    /// Why, in words.
    pub reason: String,
}

/// What was saved against staying where all of a route would have been cheapest at the first decision of the UTC day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Savings {
    /// Since when it is counted: of the month before that, nothing is known. `None` before the first decision.
    pub since: Option<Timestamp>,
    /// Until when it is counted.
    pub until: Option<Timestamp>,
    /// Of the present UTC day.
    pub today: Saving,
    /// Of the present UTC month.
    pub month: Saving,
}

/// What was saved in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saving {
    /// USD; negative when staying would have been cheaper.
    pub usd: f64,
    /// Requests that are in it.
    pub requests: u64,
    /// Requests that are not, since a cost was unknown.
    pub uncompared: u64,
}

/// A decision of the past, in words.
#[derive(Clone, Debug)]
pub struct Past {
    /// The route.
    pub route: RouteId,
    /// It in words.
    pub summary: String,
    /// What would have had to change for another one.
    pub what_would_change_it: String,
    /// The constraint that bound; `None` when none did.
    pub binding: Option<String>,
    /// It field by field.
    pub decision: Decision,
    /// The overrides that held then.
    pub overrides: Vec<Override>,
}

/// `POST /v1/overrides?dry_run=true`: what an override would do. Nothing is stored.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Preview {
    /// Always true: an answer without it was a change.
    pub dry_run: bool,
    /// Seconds for which it would hold.
    pub ttl_seconds: f64,
    /// Every route it concerns.
    pub routes: Vec<RoutePreview>,
}

/// What an override would do to one route.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RoutePreview {
    /// The route.
    pub route: RouteId,
    /// The decision that would follow, in words.
    pub summary: String,
    /// Why, in words.
    pub reason: String,
    /// The same as a stable name.
    pub reason_code: String,
    /// Which constraint would have to be given up.
    pub fallback: Fallback,
    /// Its backends, in the operator's order.
    pub backends: Vec<BackendPreview>,
    /// What the present demand costs by the shares that are aimed at now, beyond what is paid anyway; `null` if unknown.
    pub now_usd_per_hour: Option<f64>,
    /// What it would cost once the override's shares are reached; `null` if unknown.
    pub then_usd_per_hour: Option<f64>,
}

/// What an override would do to one backend of a route.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendPreview {
    /// The backend.
    pub backend: BackendId,
    /// Its share now.
    pub share: f64,
    /// Its share at once.
    pub next_share: f64,
    /// Its share in the end, as fast as the ramp allows.
    pub target_share: f64,
}
