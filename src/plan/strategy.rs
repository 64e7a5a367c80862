//! Ways of providing capacity, and what a month of each costs.

use serde::{Serialize, Serializer};

use super::{
    HOUR_SECONDS, Question,
    day::HOURS,
    line::{Kind as LineKind, Line, Unit},
    site::{Site, Terms, Usage, said_by, whole},
};
use crate::model::{BackendId, Cloud, units::percent};

/// A way of providing capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// On-demand nodes for the busiest hour, all month.
    StaticOnDemand,
    /// On-demand nodes for each hour.
    AutoscaleOnDemand,
    /// Nodes for each hour, spot but for a rest.
    AutoscaleSpot,
    /// Two clusters as `AutoscaleSpot`, each with half of the traffic.
    TwoCloudsFixed,
    /// Two clusters as `AutoscaleSpot`, the traffic of each hour at the one that is cheaper then, but for what the paid minimum of
    /// the other serves.
    TwoCloudsShifting,
    /// Instances of a managed platform for each hour.
    Managed,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Kind; 6] = [
        Kind::StaticOnDemand,
        Kind::AutoscaleOnDemand,
        Kind::AutoscaleSpot,
        Kind::TwoCloudsFixed,
        Kind::TwoCloudsShifting,
        Kind::Managed,
    ];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::StaticOnDemand => "static_on_demand",
            Kind::AutoscaleOnDemand => "autoscale_on_demand",
            Kind::AutoscaleSpot => "autoscale_spot",
            Kind::TwoCloudsFixed => "two_clouds_fixed",
            Kind::TwoCloudsShifting => "two_clouds_shifting",
            Kind::Managed => "managed",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A strategy that can be priced.
#[derive(Clone, Debug, Serialize)]
pub struct Strategy {
    /// Its name: the kind, and where: `autoscale_spot/gke-usc1`.
    pub id: String,
    /// What kind it is.
    #[serde(rename = "strategy")]
    pub kind: Kind,
    /// The backends it uses.
    pub backends: Vec<BackendId>,
    /// What else is to be known about it, a sentence each.
    pub notes: Vec<String>,
    #[serde(skip)]
    rented: Rented,
    #[serde(skip)]
    duties: Vec<Duty>,
}

/// A strategy that cannot be priced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unpriced {
    /// Its name.
    pub id: String,
    /// What kind it is.
    #[serde(rename = "strategy")]
    pub kind: Kind,
    /// What is missing, in a sentence.
    pub why: String,
}

/// What capacity is made of.
#[derive(Clone, Debug)]
enum Rented {
    /// Nodes under these terms.
    Nodes(Terms),
    /// Instances of a managed platform.
    Instances { usd_per_hour: f64, usd_per_request: f64, replicas_each: f64, what: String, source: String },
}

/// The part of a backend in a strategy, in some hours of the month.
#[derive(Clone, Debug)]
struct Duty {
    site: usize,
    takes: Takes,
    /// By hour of the day: how many hours of the month, and what a node costs in them together, in USD.
    hours: [f64; HOURS],
    spot_usd: [f64; HOURS],
    on_demand_usd: [f64; HOURS],
}

/// What a backend takes of the traffic of an hour.
#[derive(Clone, Copy, Debug)]
enum Takes {
    /// This part of it.
    Part(f64),
    /// What it is for the cheaper of two.
    Cheaper(Two),
    /// What it is for the other one.
    Dearer(Two),
}

/// What two backends serve, in requests per second: within the replicas that are paid anyway, and at most.
#[derive(Clone, Copy, Debug)]
struct Two {
    cheaper_paid: f64,
    cheaper_most: f64,
    dearer_paid: f64,
}

impl Takes {
    fn of(self, rps: f64) -> f64 {
        match self {
            Takes::Part(part) => rps * part,
            Takes::Cheaper(two) => rps - two.at_the_dearer(rps),
            Takes::Dearer(two) => two.at_the_dearer(rps),
        }
    }
}

impl Two {
    /// Replicas that are paid anyway serve before any other is started, those of the cheaper backend first; beyond them the
    /// cheaper one serves as long as it can, and the other takes the rest.
    fn at_the_dearer(self, rps: f64) -> f64 {
        let beyond_first = (rps - self.cheaper_paid).max(0.0);
        let paid = beyond_first.min(self.dearer_paid);
        paid + (beyond_first - paid - (self.cheaper_most - self.cheaper_paid)).max(0.0)
    }
}

/// What a month of a strategy costs at some traffic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bill {
    /// The strategy's name.
    pub id: String,
    /// The sum of the lines; `None` if it does not carry the traffic.
    pub usd_per_month: Option<f64>,
    /// Why it does not carry the traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_carried: Option<String>,
    /// What the cost is made of; empty if it does not carry the traffic.
    pub lines: Vec<Line>,
}

/// All strategies that the question allows: those that can be priced, and those that cannot.
pub(super) fn all(question: &Question<'_>, sites: &[Site]) -> (Vec<Strategy>, Vec<Unpriced>) {
    let mut found = Vec::new();
    let of_nodes = [
        (Kind::StaticOnDemand, Terms::OnDemand),
        (Kind::AutoscaleOnDemand, Terms::OnDemand),
        (Kind::AutoscaleSpot, Terms::Spot),
    ];
    let with_nodes = || (0..sites.len()).filter(|site| sites[*site].backend.managed.is_none());
    for (kind, terms) in of_nodes {
        found.extend(with_nodes().map(|site| single(question, sites, site, kind, terms)));
    }
    found.extend(two_clouds(question, sites));
    for site in 0..sites.len() {
        found.extend(managed(question, sites, site));
    }
    let mut priced = Vec::new();
    let mut unpriced = Vec::new();
    for strategy in found {
        match strategy {
            Ok(strategy) => priced.push(strategy),
            Err(missing) => unpriced.push(missing),
        }
    }
    (priced, unpriced)
}

fn named(kind: Kind, backend: &BackendId) -> String {
    format!("{}/{backend}", kind.as_str())
}

fn single(
    question: &Question<'_>,
    sites: &[Site],
    index: usize,
    kind: Kind,
    terms: Terms,
) -> Result<Strategy, Unpriced> {
    let site = &sites[index];
    let id = named(kind, &site.backend.id);
    if let Some(why) = site.missing(terms) {
        return Err(Unpriced { id, kind, why });
    }
    let mut notes = Vec::new();
    if terms == Terms::Spot {
        notes.push(spot_note(site));
    }
    let duties = vec![Duty::new(question, site, index, Takes::Part(1.0), |_| true)];
    let backends = vec![site.backend.id.clone()];
    Ok(Strategy { id, kind, backends, notes, rented: Rented::Nodes(terms), duties })
}

fn spot_note(site: &Site) -> String {
    let (share, backend) = (percent(site.spot_share(Terms::Spot)), &site.backend.id);
    let configured = site.backend.node.as_ref().is_some_and(|node| node.spot.get() > 0.0);
    let from = if configured { "as configured" } else { "assumed, since the configuration buys none" };
    format!("{share} of the nodes of `{backend}` are spot, {from}")
}

/// The two cheapest backends of different providers, or of different regions if there is only one provider.
fn pair(question: &Question<'_>, sites: &[Site]) -> Result<(usize, usize), String> {
    let hours = question.window.hours;
    let mean = |site: &Site| {
        let sum: Option<f64> =
            (0..hours).map(|hour| site.usd_per_1k(Terms::Spot, hour, question.response_bytes)).sum();
        sum.map(|sum| sum / hours as f64)
    };
    let usable = |(index, site): (usize, &Site)| {
        let known = site.backend.managed.is_none() && site.missing(Terms::Spot).is_none();
        known.then(|| mean(site)).flatten().map(|usd| (index, usd))
    };
    let mut ranked: Vec<(usize, f64)> = sites.iter().enumerate().filter_map(usable).collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
    let place = |index: usize| (sites[index].backend.cloud, &sites[index].backend.region);
    let mut ranked = ranked.into_iter().map(|(index, _)| index);
    let nobody = "no backend has nodes whose cost as spot is known";
    let first = ranked.next().ok_or(nobody)?;
    let others: Vec<usize> = ranked.collect();
    let elsewhere = others.iter().find(|other| place(**other).0 != place(first).0);
    let second = elsewhere.or_else(|| others.iter().find(|other| place(**other) != place(first)));
    let (cloud, region) = (sites[first].backend.cloud, &sites[first].backend.region);
    second.map(|second| (first, *second)).ok_or_else(|| {
        format!("there is no second backend, whose cost as spot is known, outside of {cloud} {region}")
    })
}

fn two_clouds(question: &Question<'_>, sites: &[Site]) -> [Result<Strategy, Unpriced>; 2] {
    let kinds = [Kind::TwoCloudsFixed, Kind::TwoCloudsShifting];
    let (first, second) = match pair(question, sites) {
        Ok(pair) => pair,
        Err(why) => {
            return kinds.map(|kind| Err(Unpriced { id: kind.as_str().into(), kind, why: why.clone() }));
        }
    };
    let both = [first, second];
    let cheaper = |hour: usize| {
        let usd = both.map(|site| sites[site].usd_per_1k(Terms::Spot, hour, question.response_bytes));
        if usd[1] < usd[0] { second } else { first }
    };
    let duty = |site: usize, takes, when: &dyn Fn(usize) -> bool| {
        Duty::new(question, &sites[site], site, takes, when)
    };
    kinds.map(|kind| {
        let mut notes: Vec<String> = both.iter().map(|site| spot_note(&sites[*site])).collect();
        let duties = if kind == Kind::TwoCloudsFixed {
            both.map(|site| duty(site, Takes::Part(0.5), &|_| true)).to_vec()
        } else {
            notes.push(shifting_note(question, sites, both, cheaper));
            let turns = |[here, there]: [usize; 2]| {
                [
                    duty(here, Takes::Cheaper(two(&sites[here], &sites[there])), &|hour| {
                        cheaper(hour) == here
                    }),
                    duty(here, Takes::Dearer(two(&sites[there], &sites[here])), &|hour| {
                        cheaper(hour) != here
                    }),
                ]
            };
            [turns(both), turns([second, first])].concat()
        };
        let backends = both.map(|site| sites[site].backend.id.clone()).to_vec();
        let id = format!("{}/{}+{}", kind.as_str(), backends[0], backends[1]);
        Ok(Strategy { id, kind, backends, notes, rented: Rented::Nodes(Terms::Spot), duties })
    })
}

fn two(cheaper: &Site, dearer: &Site) -> Two {
    let ((cheaper_paid, cheaper_most), (dearer_paid, _)) = (cheaper.serves_rps(), dearer.serves_rps());
    Two { cheaper_paid, cheaper_most, dearer_paid }
}

/// Who is the cheaper one, and how often that changes.
fn shifting_note(
    question: &Question<'_>,
    sites: &[Site],
    [first, second]: [usize; 2],
    cheaper: impl Fn(usize) -> usize,
) -> String {
    let hours = question.window.hours;
    let at_first = (0..hours).filter(|hour| cheaper(*hour) == first).count();
    let moves = (1..hours).filter(|hour| cheaper(*hour) != cheaper(hour - 1)).count();
    let (a, b) = (&sites[first].backend.id, &sites[second].backend.id);
    match moves {
        0 => {
            let always = if at_first > 0 { a } else { b };
            format!(
                "`{always}` is the cheaper one in every hour: shifting for money saves nothing at these prices"
            )
        }
        moves => format!(
            "`{a}` is the cheaper one in {at_first} of {hours} hours, `{b}` in {}; the traffic moves {moves} times, at once \
             and free of charge",
            hours - at_first
        ),
    }
}

/// A backend that is managed, or what its provider's managed endpoints would cost in place of its nodes.
fn managed(question: &Question<'_>, sites: &[Site], index: usize) -> Option<Result<Strategy, Unpriced>> {
    let site = &sites[index];
    let backend = &site.backend;
    let kind = Kind::Managed;
    let mut id = named(kind, &backend.id);
    let mut notes = Vec::new();
    let rented = if let Some(managed) = &backend.managed {
        Ok(Rented::Instances {
            usd_per_hour: managed.usd_per_replica_hour,
            usd_per_request: managed.usd_per_request,
            replicas_each: 1.0,
            what: "managed replicas".into(),
            source: "`managed` of the configuration".into(),
        })
    } else {
        let node = backend.node.as_ref()?;
        let (product, instance, fee) = match backend.cloud {
            Cloud::Aws => {
                let instance = format!("ml.{}", node.instance_type);
                let fee = question.fees.sagemaker_hour(&backend.region, &instance);
                ("SageMaker", instance, fee)
            }
            Cloud::Gcp => {
                let accelerator = node.accelerator.as_ref();
                let fee = question.fees.vertex_hour(&backend.region, &node.instance_type, accelerator);
                ("Vertex AI", node.priced_as().into_owned(), fee)
            }
            Cloud::Other => return None,
        };
        id = format!("{id}:{instance}");
        notes.push(format!(
            "in place of the nodes of `{}`, with as many replicas each and the same limits",
            backend.id
        ));
        fee.map_err(|unknown| unknown.to_string()).map(|fee| Rented::Instances {
            usd_per_hour: fee.usd,
            usd_per_request: 0.0,
            replicas_each: node.replicas_per_node,
            what: format!("{product} endpoints on {instance}"),
            source: said_by(&fee),
        })
    };
    let missing = site.replicas().err().or_else(|| site.egress.clone().err());
    Some(match (rented, missing) {
        (Err(why), _) | (_, Some(why)) => Err(Unpriced { id, kind, why }),
        (Ok(rented), None) => {
            let duties = vec![Duty::new(question, site, index, Takes::Part(1.0), |_| true)];
            Ok(Strategy { id, kind, backends: vec![backend.id.clone()], notes, rented, duties })
        }
    })
}

impl Duty {
    /// `when` says in which hours of the window.
    fn new(
        question: &Question<'_>,
        site: &Site,
        index: usize,
        takes: Takes,
        when: impl Fn(usize) -> bool,
    ) -> Duty {
        let none = [0.0; HOURS];
        let mut duty = Duty { site: index, takes, hours: none, spot_usd: none, on_demand_usd: none };
        let window = question.window;
        let weight = window.weight();
        for hour in (0..window.hours).filter(|hour| when(*hour)) {
            let of_day = window.hour_of_day(hour);
            duty.hours[of_day] += weight;
            if let Some(prices) = &site.prices {
                duty.spot_usd[of_day] += prices.spot.as_ref().map_or(0.0, |course| course.at(hour)) * weight;
                duty.on_demand_usd[of_day] +=
                    prices.on_demand.as_ref().map_or(0.0, |course| course.at(hour)) * weight;
            }
        }
        duty
    }
}

impl Strategy {
    /// What a month at `rps` requests per second, on average over the day, costs.
    pub(super) fn bill(&self, question: &Question<'_>, sites: &[Site], rps: f64) -> Bill {
        if let Some(why) = self.overload(question, sites, rps) {
            return Bill {
                id: self.id.clone(),
                usd_per_month: None,
                not_carried: Some(why),
                lines: Vec::new(),
            };
        }
        let mut used: Vec<(usize, Usage)> = Vec::new();
        for duty in &self.duties {
            let usage = self.usage(duty, question, &sites[duty.site], rps);
            match used.iter_mut().find(|(site, _)| *site == duty.site) {
                Some((_, known)) => {
                    known.node_hours += usage.node_hours;
                    known.spot_usd += usage.spot_usd;
                    known.on_demand_usd += usage.on_demand_usd;
                    known.requests += usage.requests;
                }
                None => used.push((duty.site, usage)),
            }
        }
        let lines: Vec<Line> =
            used.into_iter().flat_map(|(site, usage)| self.lines(&sites[site], usage, question)).collect();
        let usd = lines.iter().map(|line| line.usd_per_month).sum();
        Bill { id: self.id.clone(), usd_per_month: Some(usd), not_carried: None, lines }
    }

    /// Why it cannot carry this traffic, if it cannot.
    fn overload(&self, question: &Question<'_>, sites: &[Site], rps: f64) -> Option<String> {
        self.duties.iter().find_map(|duty| {
            let site = &sites[duty.site];
            let max = f64::from(site.backend.replicas.as_ref()?.max);
            let factors = question.day.hourly_factors.iter().zip(duty.hours);
            let busy = factors.filter(|(_, hours)| *hours > 0.0).map(|(factor, _)| *factor);
            let peak = duty.takes.of(rps * busy.fold(0.0, f64::max));
            let needed = site.replicas_for(peak);
            (needed > max).then(|| {
                format!(
                    "`{}` would need {needed} replicas in the busiest hour ({peak:.1} requests/s), and may have {max}",
                    site.backend.id
                )
            })
        })
    }

    fn usage(&self, duty: &Duty, question: &Question<'_>, site: &Site, rps: f64) -> Usage {
        let replicas_each = match &self.rented {
            Rented::Nodes(_) => site.backend.node.as_ref().map_or(1.0, |node| node.replicas_per_node),
            Rented::Instances { replicas_each, .. } => *replicas_each,
        };
        let peak_rps = rps * question.day.peak();
        let mut usage = Usage::default();
        for (of_day, factor) in question.day.hourly_factors.iter().enumerate() {
            let load = duty.takes.of(rps * factor);
            let provided = if self.kind == Kind::StaticOnDemand { duty.takes.of(peak_rps) } else { load };
            let nodes = whole(site.replicas_for(provided) / replicas_each);
            usage.node_hours += nodes * duty.hours[of_day];
            usage.spot_usd += nodes * duty.spot_usd[of_day];
            usage.on_demand_usd += nodes * duty.on_demand_usd[of_day];
            usage.requests += load * duty.hours[of_day] * HOUR_SECONDS;
        }
        usage
    }

    fn lines(&self, site: &Site, usage: Usage, question: &Question<'_>) -> Vec<Line> {
        let (what, usd_per_hour, usd_per_request, source) = match &self.rented {
            Rented::Nodes(terms) => return site.node_lines(*terms, usage, question),
            Rented::Instances { usd_per_hour, usd_per_request, what, source, .. } => {
                (what, *usd_per_hour, *usd_per_request, source)
            }
        };
        let hours = usage.node_hours;
        let kept = "not included";
        let mut lines = vec![
            site.line(LineKind::Compute, what, hours, Unit::InstanceHour, usd_per_hour, source.clone()),
            site.line(LineKind::Storage, "disks", hours, Unit::InstanceHour, 0.0, kept.into()),
        ];
        lines.extend(site.egress_lines(usage.requests, question.response_bytes));
        let source = if usd_per_request > 0.0 { source.clone() } else { "none is charged".into() };
        lines.push(site.line(
            LineKind::Fees,
            "requests",
            usage.requests,
            Unit::Request,
            usd_per_request,
            source,
        ));
        let nobody = "there is no cluster to run";
        lines.push(site.line(LineKind::Operation, "clusters", 0.0, Unit::Cluster, 0.0, nobody.into()));
        lines
    }
}
