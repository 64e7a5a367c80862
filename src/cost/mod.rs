//! What one more request at a backend costs, term by term, in US dollars. Pure.
//!
//! Marginal, not average: replicas up to the configured minimum are paid anyway, so within them compute costs nothing.
//! Beyond them each request costs its part of a node. A backend's cost therefore only ever rises with its load.

use std::fmt;

use crate::model::{BackendView, Managed, Node, Price, PriceState, Replicas, UnitCost};

pub mod fees;

/// Bytes in the GB by which egress is priced here, for all providers alike.
pub const BYTES_PER_GB: f64 = 1e9;

/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// What is missing to know a cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The configuration names no machine.
    Node,
    /// The configuration gives no capacity.
    Replicas,
    /// No spot price has ever been known.
    SpotPrice,
    /// No on-demand price has ever been known.
    OnDemandPrice,
    /// Nothing says what bytes on the way to the client cost.
    Egress,
    /// A price is stale, or stands in for one that is.
    Trust,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Node => "the configuration has no `node`, so the cost is unknown",
            Missing::Replicas => "the configuration has no `replicas`, so the cost is unknown",
            Missing::SpotPrice => "no spot price is known",
            Missing::OnDemandPrice => "no on-demand price is known",
            Missing::Egress => "nothing says what bytes on the way to the client cost (`egress_usd_per_gb`)",
            Missing::Trust => "the price is not confirmed any more",
        })
    }
}

/// What serving costs as a function of load: within what is paid anyway only `always`, beyond it `always + beyond`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Requests per second that the paid minimum serves.
    pub paid_rps: f64,
    /// USD per 1,000 requests at any load: egress, and what a platform charges for each request.
    pub always: f64,
    /// USD per 1,000 requests on top, beyond the paid minimum: nodes or managed replicas.
    pub beyond: f64,
    /// Requests per second of what is bought at once: a node, or a managed replica.
    pub step_rps: f64,
}

impl Curve {
    /// USD per hour that a load of `rps` costs beyond what is paid anyway.
    pub fn usd_per_hour(&self, rps: f64) -> f64 {
        (rps * self.always + (rps - self.paid_rps).max(0.0) * self.beyond) * HOUR / 1000.0
    }

    /// USD per hour that a load of about `rps` costs beyond what is paid anyway, in whole nodes: half of the last node serves
    /// nobody on average, and less than a node's load still needs one. Large nodes for little load cost more than their
    /// price says.
    pub fn whole_usd_per_hour(&self, rps: f64) -> f64 {
        let beyond_rps = (rps - self.paid_rps).max(0.0);
        let idle_rps = 0.5 * beyond_rps.min(self.step_rps);
        self.usd_per_hour(rps) + idle_rps * self.beyond * HOUR / 1000.0
    }

    /// USD per 1,000 requests that a load of `rps` costs on average beyond what is paid anyway.
    pub fn average(&self, rps: f64) -> f64 {
        if rps > 0.0 { self.usd_per_hour(rps) / (rps * HOUR) * 1000.0 } else { self.marginal(0.0) }
    }

    /// USD per 1,000 requests of one more request at a load of `rps`.
    pub fn marginal(&self, rps: f64) -> f64 {
        if rps < self.paid_rps { self.always } else { self.always + self.beyond }
    }
}

/// A backend's cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costing {
    /// What one more request costs beyond the paid minimum.
    pub unit: UnitCost,
    /// Cost as a function of load.
    pub curve: Curve,
    /// Whether every price behind it is what its source says, or said until it began to talk nonsense. A cost that is not
    /// trusted is shown, and ranks backends when traffic must move; it is no reason for a move.
    pub trusted: bool,
}

/// The cost of serving at a backend, with responses of `response_bytes` on average.
///
/// # Errors
/// What is missing, when a price that the node mix needs or the backend's capacity is unknown. Unknown is not free: the
/// caller must not treat such a backend as cheap.
pub fn cost_of(view: &BackendView, response_bytes: f64) -> Result<Costing, Missing> {
    let backend = &view.backend;
    let replicas = backend.replicas.as_ref();
    let egress_usd_per_gb = backend.egress_usd_per_gb.ok_or(Missing::Egress)?;
    let egress = response_bytes / BYTES_PER_GB * egress_usd_per_gb * 1000.0;
    let (unit, per_request, trusted) = match (&backend.managed, &backend.node) {
        (Some(managed), _) => {
            let (hourly, per_request) = managed_per_1k(managed, replicas.ok_or(Missing::Replicas)?);
            (UnitCost { egress, managed: hourly + per_request, ..UnitCost::default() }, per_request, true)
        }
        (None, Some(node)) => {
            let (unit, trusted) = node_per_1k(view, node, replicas.ok_or(Missing::Replicas)?)?;
            (UnitCost { egress, ..unit }, 0.0, trusted)
        }
        (None, None) => return Err(Missing::Node),
    };
    let replicas = replicas.ok_or(Missing::Replicas)?;
    let always = egress + per_request;
    let per_step = match (&backend.managed, &backend.node) {
        (None, Some(node)) => node.replicas_per_node,
        _ => 1.0,
    };
    let curve = Curve {
        paid_rps: replicas.capacity_rps(replicas.min),
        always,
        beyond: unit.total() - always,
        step_rps: per_step * replicas.rps,
    };
    Ok(Costing { unit, curve, trusted })
}

/// What nodes cost per 1,000 requests, without egress, and whether the prices behind it are trusted.
///
/// An interruption costs the time of the node in which its successor starts (`cold_start`) and the work that has to be done
/// again (`work_lost`); spread over what the node serves in an hour.
fn node_per_1k(view: &BackendView, node: &Node, replicas: &Replicas) -> Result<(UnitCost, bool), Missing> {
    let (usd_per_hour, trusted) = node_price(node, view.spot.as_ref(), view.on_demand.as_ref())?;
    let per_1k = 1000.0 / (node.replicas_per_node * replicas.rps * HOUR);
    let lost_hours = (replicas.cold_start + node.interruptions.work_lost).as_secs_f64() / HOUR;
    let interruptions = node.spot.get() * view.interruptions.per_node_hour;
    let unit = UnitCost {
        compute: usd_per_hour * per_1k,
        storage: node.disk_usd_per_hour * per_1k,
        interruption: interruptions * lost_hours * (usd_per_hour + node.disk_usd_per_hour) * per_1k,
        ..UnitCost::default()
    };
    Ok((unit, trusted))
}

/// What managed replicas cost per 1,000 requests: by the hour, and for each request.
fn managed_per_1k(managed: &Managed, replicas: &Replicas) -> (f64, f64) {
    (managed.usd_per_replica_hour / (replicas.rps * HOUR) * 1000.0, managed.usd_per_request * 1000.0)
}

/// USD per million tokens of what costs `usd_per_1k` per 1,000 requests of `tokens` each (prompt and answer together).
/// `None` where the tokens are not known.
pub fn per_million_tokens(usd_per_1k: f64, tokens: Option<f64>) -> Option<f64> {
    tokens.filter(|tokens| *tokens > 0.0).map(|tokens| usd_per_1k / 1000.0 / tokens * 1e6)
}

/// USD per node-hour at the configured mix of spot and on demand, and whether the prices behind it are trusted.
fn node_price(node: &Node, spot: Option<&Price>, on_demand: Option<&Price>) -> Result<(f64, bool), Missing> {
    let spot_share = node.spot.get();
    let mut usd_per_hour = 0.0;
    let mut trusted = true;
    for (share, price, missing) in
        [(spot_share, spot, Missing::SpotPrice), (1.0 - spot_share, on_demand, Missing::OnDemandPrice)]
    {
        if share > 0.0 {
            let price = price.ok_or(missing)?;
            usd_per_hour += share * price.usd_per_hour.get();
            trusted &= matches!(price.state, PriceState::Fresh | PriceState::Held);
        }
    }
    Ok((usd_per_hour, trusted))
}

#[cfg(test)]
mod tests;
