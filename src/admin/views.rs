//! The answers of the admin API: plain data, read from the last decisions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    model::{
        BackendId, BindingCost, Cause, Decision, Ejected, Fallback, Health, InterruptionRate, Managed,
        OverrideKind, PolicyId, Redundancy, RouteId, Share, Timestamp, TurningPoint, UnitCost,
    },
    signals::{
        load::LoadStatus,
        notices::{Notice, Outcome},
    },
};

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// Counts successful loads of the configuration, from 1.
    pub config_generation: u64,
    /// Why the last reload was refused; absent when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// Seconds since the last decision was published. Grows when the control loop is stuck; traffic goes on.
    pub decision_age_seconds: f64,
    /// Whether the process is draining.
    pub draining: bool,
    /// Feeds and other signals that are at fault, one sentence each.
    pub warnings: Vec<String>,
    /// Every route.
    pub routes: Vec<RouteStatus>,
    /// Overrides that hold now.
    pub overrides: Vec<OverrideStatus>,
}

/// One route in `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RouteStatus {
    /// Its name.
    pub route: RouteId,
    /// Requests per second that clients send.
    pub demand_rps: f64,
    /// Time to first byte that 95% of the requests are promised, in seconds; absent without an objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_seconds: Option<f64>,
    /// Why traffic goes where it goes, in words.
    pub reason: String,
    /// The same as a stable name.
    pub reason_code: String,
    /// Which constraint had to be given up.
    pub fallback: Fallback,
    /// What the worst loss of a cloud or region would mean; absent where the policy has no `n_minus_one`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_minus_one: Option<Redundancy>,
    /// Its backends, in the operator's order.
    pub backends: Vec<BackendStatus>,
    /// What its shadow policies would do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowStatus>,
}

/// What a shadow policy of a route would do, and what it would have cost.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShadowStatus {
    /// Its name.
    pub policy: PolicyId,
    /// Since when it is followed.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Where it would have traffic now.
    pub shares: Vec<ShadowShare>,
    /// Why, in words.
    pub reason: String,
    /// Avoidable USD of the policy in force in this time.
    pub live_usd: f64,
    /// What this one would have cost in their place.
    pub shadow_usd: f64,
    /// Moves that it would have made.
    pub moves: u64,
    /// Requests for which it cannot be told, since a cost was unknown.
    pub uncompared_requests: u64,
}

/// A backend's part under a shadow policy.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShadowShare {
    /// The backend.
    pub backend: BackendId,
    /// Part of the route's requests, above 0.
    pub share: f64,
}

/// One backend of a route in `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendStatus {
    /// Its name.
    pub backend: BackendId,
    /// Part of the route's requests that go there.
    pub share: f64,
    /// Part towards which the ramp moves.
    pub target_share: f64,
    /// What the probes say.
    pub health: Health,
    /// What the last failed probe said; absent while healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_error: Option<String>,
    /// That it gets no requests because too many of them failed; absent if it may have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// What keeps it from serving, or from serving more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<Cause>,
    /// The name of the rule that does, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limited_by_rule: Option<String>,
    /// Median time to first byte over the last minute, in seconds.
    pub latency_p50_seconds: Option<f64>,
    /// 95th percentile of it.
    pub latency_p95_seconds: Option<f64>,
    /// Smoothed time to the first byte of a probe, in seconds.
    pub probe_seconds: Option<f64>,
    /// What it reports of itself, and which part of it goes away; absent where nothing is read and nothing goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadView>,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests per second over the last minute.
    pub rps: f64,
    /// What one more request costs there beyond the paid minimum, in USD per 1,000 requests, term by term.
    pub unit_cost: Option<UnitCost>,
    /// The sum of the terms.
    pub unit_cost_usd_per_1k: Option<f64>,
    /// Seconds since the price behind it was last confirmed.
    pub price_age_seconds: Option<f64>,
}

/// An override with the time it has left.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OverrideStatus {
    /// The override.
    #[serde(flatten)]
    pub item: crate::model::Override,
    /// Seconds until it ends by itself.
    pub remaining_seconds: f64,
}

/// `GET /v1/routes/{route}/explain`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// The route.
    pub route: RouteId,
    /// The decision in words.
    pub summary: String,
    /// What would have to change for another decision, in words.
    pub what_would_change_it: String,
    /// The constraint that binds, in words; absent when none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// What the constraints that bind cost, dearest first; empty when none does, or when a cost that it takes is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binding_costs: Vec<BindingCost>,
    /// The prices of a node at which traffic would begin to move, the nearest to its present price first; empty where something other
    /// than a price decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub turning_points: Vec<TurningPoint>,
    /// The decision, field by field.
    pub decision: Decision,
    /// What each backend's cost is made of besides its prices.
    pub inputs: Vec<CostInputs>,
    /// What backends report of themselves, and which part of them goes away; only those of which something is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load: Vec<LoadView>,
    /// Mean size of a response by which egress is priced, in bytes.
    pub response_bytes: f64,
    /// Tokens of a request on average, as configured; absent where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_request: Option<f64>,
    /// The prices behind each backend's cost.
    pub prices: Vec<crate::signals::prices::PriceReport>,
    /// The last move of this route; absent when none was made since the state was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_move: Option<LastMove>,
}

/// What a backend's cost is made of besides its prices: with them, every dollar of `unit_cost` can be recomputed by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CostInputs {
    /// The backend.
    pub backend: BackendId,
    /// Part of the nodes bought at the spot price; `None` without a configured machine.
    pub spot_share: Option<f64>,
    /// Replicas on one node.
    pub replicas_per_node: Option<f64>,
    /// Requests per second of one replica.
    pub rps_per_replica: Option<f64>,
    /// Replicas that are paid whatever the load.
    pub replicas_min: Option<u32>,
    /// USD for an hour of a node's disks.
    #[serde(default)]
    pub disk_usd_per_hour: Option<f64>,
    /// How often a spot node is taken back, and how that is known; `None` without spot nodes.
    #[serde(default)]
    pub interruptions: Option<InterruptionRate>,
    /// Time of a node that an interruption costs: the cold start of its successor and the work that is done again, in seconds.
    #[serde(default)]
    pub interruption_seconds: Option<f64>,
    /// What a managed platform charges in place of a node; `None` without one.
    #[serde(default)]
    pub managed: Option<Managed>,
    /// USD for 10^9 bytes on the way to the client; `None` if nobody knows.
    pub egress_usd_per_gb: Option<f64>,
}

/// What is seen of a backend's capacity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LoadView {
    /// The backend.
    pub backend: BackendId,
    /// What it reports; absent where nothing is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<LoadStatus>,
    /// Part of its ready replicas that goes away, or went and is not replaced yet, by the notices received.
    pub leaving: f64,
}

/// When and why traffic of a route last moved.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LastMove {
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// The body of `POST /v1/overrides`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOverride {
    /// What it does.
    pub kind: OverrideKind,
    /// The only route it holds for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteId>,
    /// The backend it is about; required but for `freeze`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// Required for `cap`, optional for `pin`, refused for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// How long it holds, `"30m"`.
    pub ttl: String,
    /// Why: at most 500 bytes, on one line, without control characters.
    pub reason: String,
}

/// Longest time an override may hold: it is for incidents; what lasts belongs into the configuration.
pub const OVERRIDE_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest reason accepted, in bytes.
pub const OVERRIDE_REASON_LEN_MAX: usize = 500;

/// Why an override was refused.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// What was asked for makes no sense: 422.
    #[error("{0}")]
    Invalid(String),
    /// The key was used for another override: 422.
    #[error("{0}")]
    KeyReused(String),
    /// The state directory is full: 507.
    #[error("{0}")]
    NoSpace(String),
    /// It could not be stored for another reason: 503.
    #[error("{0}")]
    NotStored(String),
}

/// What became of `POST /v1/notices`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NoticeReceipt {
    /// What the notice was taken for.
    pub notice: Notice,
    /// Whether it counts.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How often a spot node of the backend is taken back, from now on, and how that is known; `None` without spot nodes.
    pub interruptions: Option<InterruptionRate>,
}

/// Why a notice was refused.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// It makes no sense: 422.
    #[error("{0}")]
    Invalid(String),
    /// Too many arrive: 429.
    #[error("{0}")]
    TooMany(String),
}

/// Why a reload was refused. The running configuration stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has faults: 422.
    #[error("{0}")]
    Invalid(crate::config::Faults),
    /// What changed cannot change while running: 409.
    #[error("{0}")]
    NeedsRestart(String),
    /// Another configuration is in force than the caller has seen: 412.
    #[error("{0}")]
    NotAsSeen(String),
}
