//! A backend with everything that its month is made of.

use std::sync::Arc;

use serde::Serialize;

use super::{
    HOUR_SECONDS, MONTH_HOURS, Question,
    line::{Kind, Line, Unit},
    price::{Course, NodePrices, Window},
};
use crate::{
    cost::{
        BYTES_PER_GB,
        fees::{Fee, Fees, Tiers},
    },
    model::{Backend, Node, Replicas, Share},
};

/// Part of the nodes that is bought as spot where the configuration buys none: what is left keeps a service alive while all
/// spot nodes are gone.
pub const SPOT_SHARE_ASSUMED: f64 = 0.9;

/// A hair below a whole number of replicas or nodes counts as that number, as in the decision: what comes of divisions is not
/// exact.
const HAIR: f64 = 1e-6;

/// The terms under which nodes are bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Terms {
    /// All on demand.
    OnDemand,
    /// The backend's mix of spot and on demand.
    Spot,
}

/// What bytes to clients cost.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Egress {
    /// The provider's list price, by the volume of the month.
    Tiers(Tiers),
    /// The same price for any volume, as the configuration has it.
    Stated(f64),
}

/// A backend, and what the tables and prices say about it.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub backend: Arc<Backend>,
    pub prices: Option<NodePrices>,
    pub egress: Result<Egress, String>,
    /// An hour of its cluster; `None` where none is charged.
    pub cluster: Result<Option<Fee>, String>,
    /// Interruptions in an hour of one spot node, and where that comes from.
    pub interruptions: (f64, &'static str),
}

/// What a strategy uses of a backend in a month.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Hours of nodes, or of managed instances.
    pub node_hours: f64,
    /// What these hours would cost if all were spot, and if all were on demand, in USD.
    pub spot_usd: f64,
    pub on_demand_usd: f64,
    /// Requests served.
    pub requests: f64,
}

impl Site {
    pub(super) fn of(question: &Question<'_>, index: usize) -> Site {
        let backend = question.backends[index].clone();
        let configured = backend.node.as_ref().and_then(|node| node.interruptions.per_node_hour);
        let interruptions = match configured {
            Some(rate) => (rate, "configured"),
            None => ((question.assumed_interruptions)(backend.cloud), "assumed from recordings"),
        };
        Site {
            prices: question.prices[index].clone(),
            egress: egress(&backend, question.fees),
            cluster: question.fees.cluster_hour(backend.platform).map_err(|unknown| unknown.to_string()),
            interruptions,
            backend,
        }
    }

    pub(super) fn replicas(&self) -> Result<&Replicas, String> {
        let none = || format!("backend `{}` has no `replicas`: say what it can serve", self.backend.id);
        self.backend.replicas.as_ref().ok_or_else(none)
    }

    pub(super) fn node(&self) -> Result<&Node, String> {
        let none = || format!("backend `{}` has no `node`: say which machine runs it", self.backend.id);
        self.backend.node.as_ref().ok_or_else(none)
    }

    /// Part of the nodes that is spot under these terms.
    pub(super) fn spot_share(&self, terms: Terms) -> f64 {
        let configured = self.backend.node.as_ref().map_or(Share::ZERO, |node| node.spot).get();
        match terms {
            Terms::OnDemand => 0.0,
            Terms::Spot if configured > 0.0 => configured,
            Terms::Spot => SPOT_SHARE_ASSUMED,
        }
    }

    /// The first thing that is missing to price nodes under these terms.
    pub(super) fn missing(&self, terms: Terms) -> Option<String> {
        let share = self.spot_share(terms);
        let course = |needed: bool, course: &Result<Course, String>| match course {
            Err(why) if needed => Some(why.clone()),
            _ => None,
        };
        let no_prices = || Some(format!("nobody says what nodes of backend `{}` cost", self.backend.id));
        let price = match &self.prices {
            None => no_prices(),
            Some(prices) => {
                course(share > 0.0, &prices.spot).or_else(|| course(share < 1.0, &prices.on_demand))
            }
        };
        let first = self.node().err().or_else(|| self.replicas().err()).or(price);
        first.or_else(|| self.egress.clone().err()).or_else(|| self.cluster.clone().err())
    }

    /// Replicas that run at this many requests per second, without regard to the most there may be.
    pub(super) fn replicas_for(&self, rps: f64) -> f64 {
        let Some(replicas) = &self.backend.replicas else { return 0.0 };
        whole(rps / replicas.rps).max(f64::from(replicas.min))
    }

    /// Requests per second that it serves with the replicas that always run, and at most.
    pub(super) fn serves_rps(&self) -> (f64, f64) {
        let of = |replicas: &Replicas| [replicas.min, replicas.max].map(|count| replicas.capacity_rps(count));
        let [paid, most] = self.backend.replicas.as_ref().map_or([0.0; 2], of);
        (paid, most)
    }

    /// USD per 1,000 requests on full nodes under these terms in an hour of the window, as the router counts it. `None` if
    /// something is missing.
    pub(super) fn usd_per_1k(&self, terms: Terms, hour: usize, response_bytes: f64) -> Option<f64> {
        let (node, replicas) = (self.node().ok()?, self.replicas().ok()?);
        let share = self.spot_share(terms);
        let per_1k = 1000.0 / (node.replicas_per_node * replicas.rps * HOUR_SECONDS);
        let node_usd = self.mixed(share, |course| course.at(hour))? + node.disk_usd_per_hour;
        let lost = share * self.interruptions.0 * self.lost_hours();
        let egress_usd_per_gb = match self.egress.as_ref().ok()? {
            Egress::Tiers(tiers) => tiers.first().usd,
            Egress::Stated(usd) => *usd,
        };
        Some(node_usd * (1.0 + lost) * per_1k + response_bytes / BYTES_PER_GB * egress_usd_per_gb * 1000.0)
    }

    /// The price of a node of which `share` is spot.
    fn mixed(&self, share: f64, of: impl Fn(&Course) -> f64) -> Option<f64> {
        let prices = self.prices.as_ref()?;
        let part = |share: f64, course: &Result<Course, String>| match course {
            _ if share <= 0.0 => Some(0.0),
            Ok(course) => Some(share * of(course)),
            Err(_) => None,
        };
        Some(part(share, &prices.spot)? + part(1.0 - share, &prices.on_demand)?)
    }

    /// Hours of a node that one interruption costs.
    pub(super) fn lost_hours(&self) -> f64 {
        let cold_start = self.backend.replicas.as_ref().map(|replicas| replicas.cold_start);
        let work_lost = self.backend.node.as_ref().map(|node| node.interruptions.work_lost);
        [cold_start, work_lost].into_iter().flatten().map(|time| time.as_secs_f64() / HOUR_SECONDS).sum()
    }

    /// The lines of nodes in use: compute, storage, interruption, egress, cluster and operation.
    pub(super) fn node_lines(&self, terms: Terms, usage: Usage, question: &Question<'_>) -> Vec<Line> {
        let share = self.spot_share(terms);
        let mut lines = self.compute(share, usage, question.window);
        let compute_usd: f64 = lines.iter().map(|line| line.usd_per_month).sum();
        let disk = self.backend.node.as_ref().map_or(0.0, |node| node.disk_usd_per_hour);
        let source = if disk > 0.0 { "node.disk" } else { "no `node.disk` is configured" };
        lines.push(self.line(Kind::Storage, "disks", usage.node_hours, Unit::NodeHour, disk, source.into()));
        if share > 0.0 {
            let (rate, from) = self.interruptions;
            let lost_hours = self.lost_hours();
            let node_usd = if usage.node_hours > 0.0 {
                compute_usd / usage.node_hours
            } else {
                self.mixed(share, |course| course.mean(question.window)).unwrap_or(0.0)
            };
            let source = format!(
                "{rate} an hour of a spot node ({from}), each for {:.0} s",
                lost_hours * HOUR_SECONDS
            );
            let quantity = usage.node_hours * share * rate * lost_hours;
            let what = "time lost to interruptions";
            lines.push(self.line(
                Kind::Interruption,
                what,
                quantity,
                Unit::NodeHour,
                node_usd + disk,
                source,
            ));
        }
        lines.extend(self.egress_lines(usage.requests, question.response_bytes));
        if let Ok(Some(fee)) = &self.cluster {
            let what = "control plane of the cluster";
            lines.push(self.line(Kind::Fees, what, MONTH_HOURS, Unit::ClusterHour, fee.usd, said_by(fee)));
        }
        let usd = question.operation_usd_per_cluster;
        let source = if usd > 0.0 { "--operation-usd-per-cluster" } else { "not included" };
        lines.push(self.line(Kind::Operation, "running the cluster", 1.0, Unit::Cluster, usd, source.into()));
        lines
    }

    fn compute(&self, share: f64, usage: Usage, window: &Window) -> Vec<Line> {
        let Some(prices) = &self.prices else { return Vec::new() };
        let parts = [
            (share, &prices.spot, usage.spot_usd, "spot nodes"),
            (1.0 - share, &prices.on_demand, usage.on_demand_usd, "on-demand nodes"),
        ];
        let bought = parts.into_iter().filter(|(share, ..)| *share > 0.0);
        bought
            .filter_map(|(share, course, usd, what)| {
                let course = course.as_ref().ok()?;
                let price = course.unit(usd, usage.node_hours, window);
                let hours = usage.node_hours * share;
                Some(self.line(Kind::Compute, what, hours, Unit::NodeHour, price, course.said_by()))
            })
            .collect()
    }

    pub(super) fn egress_lines(&self, requests: f64, response_bytes: f64) -> Vec<Line> {
        let gb = requests * response_bytes / BYTES_PER_GB;
        match &self.egress {
            Err(_) => Vec::new(),
            Ok(Egress::Stated(usd)) => {
                let source = "the configuration, or the whole way by its `location`; for any volume";
                vec![self.line(Kind::Egress, "responses", gb, Unit::Gb, *usd, source.into())]
            }
            Ok(Egress::Tiers(tiers)) => {
                let parts = tiers.parts(gb).enumerate();
                parts
                    .map(|(tier, (gb, fee))| {
                        let what = format!("responses, tier {}", tier + 1);
                        self.line(Kind::Egress, &what, gb, Unit::Gb, fee.usd, said_by(fee))
                    })
                    .collect()
            }
        }
    }

    pub(super) fn line(
        &self,
        kind: Kind,
        what: &str,
        quantity: f64,
        unit: Unit,
        usd_per_unit: f64,
        source: String,
    ) -> Line {
        let usd_per_month = quantity * usd_per_unit;
        let backend = self.backend.id.clone();
        Line { kind, backend, what: what.into(), quantity, unit, usd_per_unit, usd_per_month, source }
    }
}

/// The next whole number.
pub(super) fn whole(number: f64) -> f64 {
    (number - HAIR).ceil().max(0.0)
}

/// Date and source of a fee, for people.
pub(super) fn said_by(fee: &Fee) -> String {
    format!("{}, as of {}", fee.source, fee.as_of)
}

/// A backend whose price of egress is that of its provider's first tier goes through the tiers; any other price is the
/// operator's, or holds for a way of several legs, and does not depend on the volume.
fn egress(backend: &Backend, fees: &Fees) -> Result<Egress, String> {
    let listed = fees.internet_egress(backend.cloud, &backend.region);
    match (backend.egress_usd_per_gb, listed) {
        (Some(usd), Ok(tiers)) if (usd - tiers.first().usd).abs() < 1e-9 => Ok(Egress::Tiers(tiers)),
        (Some(usd), _) => Ok(Egress::Stated(usd)),
        (None, Ok(tiers)) => Ok(Egress::Tiers(tiers)),
        (None, Err(unknown)) => Err(unknown.to_string()),
    }
}
