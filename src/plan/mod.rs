//! What a month of traffic costs under each strategy of providing capacity, line by line, and from which traffic on which is
//! the cheapest. Pure: prices, fees and the shape of the day are arguments.
//!
//! A [`Question`] goes in, a [`Plan`] comes out. [`site`] knows what a backend's month is made of, [`strategy`] which backends
//! a strategy uses in which hours, [`break_even`] where the cheapest one changes; [`plot`] draws it.
//! `docs/plan.md` has the formulas.

mod break_even;
mod day;
mod line;
pub mod plot;
mod price;
pub mod recording;
mod site;
mod strategy;
mod traffic;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Serialize;

pub use break_even::{BreakEvens, Change, Reign, Step as PayStep};
pub use day::{Day, HOURS};
pub use line::{Kind as LineKind, Line, Unit};
pub use price::{Course, NodePrices, Step, Window};
pub use site::SPOT_SHARE_ASSUMED;
pub use strategy::{Bill, Kind, Strategy, Unpriced};
pub use traffic::Traffic;

use crate::{
    cost::fees::{Fees, MONTH_HOURS},
    model::{Backend, BackendId, Cloud, Platform},
};
use site::{Site, Terms};

/// Seconds in an hour.
const HOUR_SECONDS: f64 = 3600.0;

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The backends to choose from.
    pub backends: &'a [Arc<Backend>],
    /// What their nodes cost, in the same order; `None` for one without nodes. Of the same length.
    pub prices: &'a [Option<NodePrices>],
    /// The hours that the prices are for.
    pub window: &'a Window,
    /// What is charged beside nodes.
    pub fees: &'a Fees,
    /// How the traffic of a day is spread over its hours.
    pub day: &'a Day,
    /// Mean size of a response, in bytes. Finite, not below 0.
    pub response_bytes: f64,
    /// What running a cluster costs in people's work, in USD a month; 0 if that is to be left out.
    pub operation_usd_per_cluster: f64,
    /// Interruptions in an hour of one spot node where none are configured.
    pub assumed_interruptions: fn(Cloud) -> f64,
}

/// The answer, with all it was made from.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Hours in the month.
    pub month_hours: f64,
    /// How traffic is spread over the day.
    pub day: Day,
    /// Mean size of a response, in bytes.
    pub response_bytes: f64,
    /// What running a cluster costs in people's work, in USD a month.
    pub operation_usd_per_cluster: f64,
    /// The hours that stand for the month.
    pub window: Window,
    /// What is known about each backend.
    pub backends: Vec<Facts>,
    /// The strategies that can be priced.
    pub strategies: Vec<Strategy>,
    /// Those that cannot, and why.
    pub unknown: Vec<Unpriced>,
    /// What each strategy costs at each traffic.
    pub points: Vec<Point>,
    /// The same at one traffic, to be shown line by line.
    pub at: Point,
    /// Where each kind of strategy costs less than the one before it.
    pub pays: Vec<PayStep>,
    /// Where the cheapest strategy changes.
    pub break_even: BreakEvens,
    /// What the figures leave out, a sentence each.
    pub not_included: Vec<String>,
}

/// What is known about a backend.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Its name.
    pub id: BackendId,
    /// Who bills it.
    pub cloud: Cloud,
    /// The provider's region.
    pub region: String,
    /// What runs it.
    pub platform: Platform,
    /// Its machine, with what is attached to it.
    pub instance_type: Option<String>,
    /// Replicas that always run, and at most.
    pub replicas_min: Option<u32>,
    #[allow(missing_docs, reason = "see `replicas_min`")]
    pub replicas_max: Option<u32>,
    /// Requests per second that one replica serves.
    pub rps_per_replica: Option<f64>,
    /// Replicas that share a node.
    pub replicas_per_node: Option<f64>,
    /// Part of the nodes that is spot in the strategies with spot.
    pub spot_share: f64,
    /// What a node's disks cost, in USD for an hour of it.
    pub disk_usd_per_hour: f64,
    /// Interruptions in an hour of one spot node.
    pub interruptions_per_node_hour: f64,
    /// Hours of a node that one interruption costs.
    pub hours_lost_per_interruption: f64,
    /// What a node costs as spot, over the window.
    pub spot: Option<Course>,
    /// What a node costs on demand, over the window.
    pub on_demand: Option<Course>,
}

/// What each strategy costs at one traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Requests per second, on average over the day.
    pub rps: f64,
    /// Requests per second in the busiest hour.
    pub peak_rps: f64,
    /// The name of the cheapest strategy that carries it; `None` if none does.
    pub cheapest: Option<String>,
    /// In the order of the strategies.
    pub bills: Vec<Bill>,
}

impl Point {
    /// The cheapest bill of a kind of strategy, if one carries the traffic.
    pub fn cheapest_of<'p>(&'p self, plan: &Plan, kind: Kind) -> Option<(&'p Bill, f64)> {
        let of_kind = plan.strategies.iter().zip(&self.bills).filter(|(strategy, _)| strategy.kind == kind);
        let carried = of_kind.filter_map(|(_, bill)| Some((bill, bill.usd_per_month?)));
        carried.min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Prices every strategy over a range of traffic, and at `at_rps` requests per second.
pub fn plan(question: &Question<'_>, traffic: &Traffic, at_rps: f64) -> Plan {
    let sites: Vec<Site> = (0..question.backends.len()).map(|index| Site::of(question, index)).collect();
    let (strategies, unknown) = strategy::all(question, &sites);
    let point = |rps: f64| {
        let bills: Vec<Bill> =
            strategies.iter().map(|strategy| strategy.bill(question, &sites, rps)).collect();
        let carried = bills.iter().filter_map(|bill| Some((bill.usd_per_month?, &bill.id)));
        let cheapest = carried.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, id)| id.clone());
        Point { rps, peak_rps: rps * question.day.peak(), cheapest, bills }
    };
    let points: Vec<Point> = traffic.points().iter().copied().map(point).collect();
    let at = point(at_rps);
    let cost = |kind: Kind, rps: f64| {
        let of_kind = strategies.iter().filter(|strategy| strategy.kind == kind);
        of_kind.filter_map(|strategy| strategy.bill(question, &sites, rps).usd_per_month).reduce(f64::min)
    };
    let pays = break_even::steps(traffic, &strategies, cost);
    let break_even = break_even::search(traffic, &strategies, |rps| point(rps).cheapest);
    Plan {
        month_hours: MONTH_HOURS,
        day: question.day.clone(),
        response_bytes: question.response_bytes,
        operation_usd_per_cluster: question.operation_usd_per_cluster,
        window: *question.window,
        backends: sites.iter().map(facts).collect(),
        points,
        at,
        pays,
        break_even,
        not_included: not_included(question),
        strategies,
        unknown,
    }
}

fn facts(site: &Site) -> Facts {
    let backend = &site.backend;
    let (node, replicas) = (backend.node.as_ref(), backend.replicas.as_ref());
    let prices = site.prices.as_ref();
    Facts {
        id: backend.id.clone(),
        cloud: backend.cloud,
        region: backend.region.clone(),
        platform: backend.platform,
        instance_type: node.map(|node| node.priced_as().into_owned()),
        replicas_min: replicas.map(|replicas| replicas.min),
        replicas_max: replicas.map(|replicas| replicas.max),
        rps_per_replica: replicas.map(|replicas| replicas.rps),
        replicas_per_node: node.map(|node| node.replicas_per_node),
        spot_share: site.spot_share(Terms::Spot),
        disk_usd_per_hour: node.map_or(0.0, |node| node.disk_usd_per_hour),
        interruptions_per_node_hour: site.interruptions.0,
        hours_lost_per_interruption: site.lost_hours(),
        spot: prices.and_then(|prices| prices.spot.clone().ok()),
        on_demand: prices.and_then(|prices| prices.on_demand.clone().ok()),
    }
}

fn not_included(question: &Question<'_>) -> Vec<String> {
    let mut all: Vec<String> = [
        "taxes, discounts, commitments, contracts and free allowances",
        "load balancers, NAT gateways, public addresses, logs, storage of models, this router itself",
        "peaks within an hour, and spare nodes for them: an hour has as many nodes as its mean traffic needs",
        "storage of managed endpoints, and differences in speed between machines beyond the configured `rps`",
    ]
    .map(String::from)
    .to_vec();
    if question.operation_usd_per_cluster == 0.0 {
        all.push("operation: people's work (say what it costs with --operation-usd-per-cluster)".into());
    }
    all
}
