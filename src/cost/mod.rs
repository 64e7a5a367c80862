//! What one more request at a backend costs, term by term, in US dollars. Pure.
//!
//! Marginal, not average: replicas up to the configured minimum are paid anyway, so within them compute costs nothing.
//! Beyond them each request costs its part of a node. A backend's cost therefore only ever rises with its load.

use std::fmt;

use crate::model::{BackendView, Node, Price, PriceState, Replicas, UnitCost};

/// Bytes in the GB by which egress is priced here, for all providers alike.
const BYTES_PER_GB: f64 = 1e9;

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
    /// The price is stale and there is none to fall back to.
    Trust,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Node => "the configuration has no `node`, so the cost is unknown",
            Missing::Replicas => "the configuration has no `replicas`, so the cost is unknown",
            Missing::SpotPrice => "no spot price is known",
            Missing::OnDemandPrice => "no on-demand price is known",
            Missing::Trust => "the price is stale",
        })
    }
}

/// What serving costs as a function of load: within what is paid anyway only `always`, beyond it `always + beyond`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Requests per second that the paid minimum serves.
    pub paid_rps: f64,
    /// USD per 1,000 requests at any load (egress).
    pub always: f64,
    /// USD per 1,000 requests on top, beyond the paid minimum (compute).
    pub beyond: f64,
}

impl Curve {
    /// USD per hour that a load of `rps` costs beyond what is paid anyway.
    pub fn usd_per_hour(&self, rps: f64) -> f64 {
        (rps * self.always + (rps - self.paid_rps).max(0.0) * self.beyond) * HOUR / 1000.0
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
    /// Whether every price behind it is confirmed, held or a stated fallback. A cost that is not trusted may be shown but
    /// moves nothing.
    pub trusted: bool,
}

/// The cost of serving at a backend, with responses of `response_bytes` on average.
///
/// # Errors
/// What is missing, when a price that the node mix needs or the backend's capacity is unknown. Unknown is not free: the
/// caller must not treat such a backend as cheap.
pub fn cost_of(view: &BackendView, response_bytes: f64) -> Result<Costing, Missing> {
    let node = view.backend.node.as_ref().ok_or(Missing::Node)?;
    let replicas = view.backend.replicas.as_ref().ok_or(Missing::Replicas)?;
    let (usd_per_hour, trusted) = node_price(node, view.spot.as_ref(), view.on_demand.as_ref())?;
    let unit = UnitCost {
        compute: compute_per_1k(usd_per_hour, node, replicas),
        egress: response_bytes / BYTES_PER_GB * view.backend.egress_usd_per_gb * 1000.0,
    };
    let curve =
        Curve { paid_rps: replicas.capacity_rps(replicas.min), always: unit.egress, beyond: unit.compute };
    Ok(Costing { unit, curve, trusted })
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
            trusted &= price.state != PriceState::Stale;
        }
    }
    Ok((usd_per_hour, trusted))
}

/// Compute in USD per 1,000 requests: the node's price over the requests it serves in an hour.
fn compute_per_1k(node_usd_per_hour: f64, node: &Node, replicas: &Replicas) -> f64 {
    node_usd_per_hour / (node.replicas_per_node * replicas.rps * HOUR) * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::worlds::{price, view};

    #[test]
    fn compute_is_the_nodes_price_over_its_requests() {
        let here = view("a", 1.0);
        // 1 USD/h over 10 requests a second is 1 / 36,000 USD a request.
        let costing = cost_of(&here, 0.0).unwrap();
        assert!((costing.unit.compute - 1000.0 / 36_000.0).abs() < 1e-12);
        assert_eq!(costing.unit.egress, 0.0);
    }

    #[test]
    fn the_mix_of_spot_and_on_demand_is_weighted() {
        let node = Node {
            instance_type: "x".into(),
            spot: crate::model::Share::new(0.9).unwrap(),
            replicas_per_node: 1.0,
        };
        let (usd, trusted) = node_price(&node, Some(&price(1.0)), Some(&price(3.0))).unwrap();
        assert!((usd - 1.2).abs() < 1e-12);
        assert!(trusted);
    }

    #[test]
    fn a_missing_price_is_an_error_and_never_zero() {
        let mut here = view("a", 1.0);
        here.spot = None;
        assert_eq!(cost_of(&here, 0.0), Err(Missing::SpotPrice));
    }

    #[test]
    fn egress_counts_from_the_first_byte() {
        let mut here = view("a", 1.0);
        let mut backend = (*here.backend).clone();
        backend.egress_usd_per_gb = 0.09;
        here.backend = backend.into();
        // 1 MB a response is 1 GB per 1,000 requests.
        assert!((cost_of(&here, 1e6).unwrap().unit.egress - 0.09).abs() < 1e-12);
    }

    #[test]
    fn within_the_paid_minimum_compute_is_free() {
        let curve = Curve { paid_rps: 20.0, always: 0.01, beyond: 0.02 };
        assert_eq!(curve.marginal(19.9), 0.01);
        assert_eq!(curve.marginal(20.0), 0.03);
        assert!((curve.average(40.0) - 0.02).abs() < 1e-12);
        assert_eq!(curve.average(0.0), 0.01);
        assert!((curve.usd_per_hour(10.0) - 10.0 * 0.01 * 3.6).abs() < 1e-12);
        assert!((curve.usd_per_hour(30.0) - (30.0 * 0.01 + 10.0 * 0.02) * 3.6).abs() < 1e-12);
    }
}
