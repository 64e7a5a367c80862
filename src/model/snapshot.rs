//! All that is known about one route at one moment: the only input of a decision besides policy and state.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Backend, Override, Price, RouteId, Rulings, Share, Slo, Timestamp};

/// What the probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not probed yet, or not for too long.
    Unknown,
    /// The last probes succeeded.
    Healthy,
    /// The last probes failed.
    Unhealthy,
}

/// The last successful probe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeView {
    /// Time to connect (TCP and TLS), smoothed.
    pub connect: Duration,
    /// Time from the start of the probe to the first byte of the answer, smoothed; `None` when only connecting.
    pub first_byte: Option<Duration>,
    /// When it was.
    pub at: Timestamp,
}

/// What a backend is ejected for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum EjectedFor {
    /// Too many of its requests fail.
    #[default]
    Failures,
    /// It is far slower than the other backends of a route.
    Latency,
}

impl EjectedFor {
    /// Every reason, in the order of counters.
    pub const ALL: [EjectedFor; 2] = [EjectedFor::Failures, EjectedFor::Latency];

    /// As JSON and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            EjectedFor::Failures => "failures",
            EjectedFor::Latency => "latency",
        }
    }
}

/// A backend that gets no requests for a while: too many of them failed, or it is far slower than others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ejected {
    /// What for.
    #[serde(default)]
    pub reason: EjectedFor,
    /// What was seen, in words.
    pub why: String,
    /// When it is tried again.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
}

/// What live traffic of this route says about a backend, over the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Requests per second.
    pub rps: f64,
    /// Requests behind the latency figures.
    pub samples: u64,
    /// Requests that failed at the backend: no connection, broken, or a 5xx answer.
    pub errors: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Median time to first byte; `None` without samples.
    pub ttfb_p50: Option<Duration>,
    /// 95th percentile of the time to first byte; `None` without samples.
    pub ttfb_p95: Option<Duration>,
}

/// How often one spot node is taken back, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct InterruptionRate {
    /// Interruptions in an hour of one spot node.
    pub per_node_hour: f64,
    /// Where the figure comes from.
    pub basis: RateBasis,
}

impl Default for InterruptionRate {
    /// None at all, assumed: for a backend without spot nodes.
    fn default() -> InterruptionRate {
        InterruptionRate { per_node_hour: 0.0, basis: RateBasis::Assumed }
    }
}

/// Where a rate of interruptions comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateBasis {
    /// The operator said so.
    Configured,
    /// From the notices that were received.
    Learned,
    /// Nothing is known about this backend: what was observed elsewhere.
    Assumed,
}

impl RateBasis {
    /// As JSON, metrics and people spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            RateBasis::Configured => "configured",
            RateBasis::Learned => "learned",
            RateBasis::Assumed => "assumed",
        }
    }
}

/// What a backend reports of its own load, no older than a decision may be built on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Replicas that are ready to serve; `None` if nothing says so.
    pub ready_replicas: Option<u32>,
    /// Requests that wait there, over all replicas or at one of them; `None` if nothing says so.
    pub queued: Option<f64>,
    /// Whether `queued` was seen at one replica only: a sample.
    #[serde(default)]
    pub queued_at_one: bool,
    /// Requests under way there, as this program counts, beyond those that were when `queued` was seen.
    #[serde(default)]
    pub arrived_since: f64,
    /// Part of its scarcest resource in use (KV cache, slots), 0 to 1; `None` if nothing says so.
    pub saturation: Option<f64>,
}

impl LoadReport {
    /// Requests that wait there now, over all of `replicas`: as reported, and what has come since. `None` if nothing says so.
    pub fn waiting(&self, replicas: f64) -> Option<f64> {
        let at_each = if self.queued_at_one { replicas } else { 1.0 };
        Some(self.queued? * at_each + self.arrived_since)
    }
}

/// What is known about one backend of the route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// What the operator says.
    pub backend: Arc<Backend>,
    /// Price of a spot node; `None` if never known.
    pub spot: Option<Price>,
    /// Price of an on-demand node; `None` if never known.
    pub on_demand: Option<Price>,
    /// How often its spot nodes are taken back.
    #[serde(default)]
    pub interruptions: InterruptionRate,
    /// What the probes say.
    pub health: Health,
    /// The last successful probe.
    pub probe: Option<ProbeView>,
    /// That it gets no requests because too many of them fail, or it is far slower than others; `None` if it may have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// What live traffic says.
    pub live: Live,
    /// What it reports of its own load; nothing where it reports nothing, or nothing recent.
    #[serde(default)]
    pub load: LoadReport,
    /// Part of its ready replicas that go away within minutes, as interruption notices say.
    #[serde(default)]
    pub leaving: Share,
    /// Requests per second that other routes send there: capacity that this route cannot have.
    pub load_elsewhere_rps: f64,
    /// Whether its name resolves to at least one address.
    pub resolved: bool,
}

/// All that is known about one route at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The moment.
    pub at: Timestamp,
    /// The route.
    pub route: RouteId,
    /// What its requests are promised.
    pub slo: Slo,
    /// Requests per second that clients send, smoothed.
    pub demand_rps: f64,
    /// Mean size of a response in bytes over all its backends: how long an answer is does not depend on who gives it.
    /// `None` until a first answer was seen.
    pub response_bytes: Option<f64>,
    /// Its backends, in the operator's order.
    pub backends: Vec<BackendView>,
    /// Overrides that hold at this moment and concern this route.
    pub overrides: Vec<Override>,
    /// What the rules of its policy say about all this.
    #[serde(default, skip_serializing_if = "Rulings::is_empty")]
    pub rulings: Rulings,
}
