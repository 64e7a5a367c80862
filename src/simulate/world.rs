//! The tick loop: prices and supply change, a contender says where requests go, clusters serve, scale and bill.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use jiff::SignedDuration;

use super::{
    Scenario,
    cluster::{Cluster, Fleet, Pace, Wish},
    contenders::Contender,
    demand::Arrivals,
    market::Reader,
    score::Score,
};
use crate::{
    cost::{self, Costing},
    model::{
        BackendView, Health, Live, LoadReport, Price, PriceState, Share, Slo, Snapshot, Timestamp, UsdPerHour,
    },
};

/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// What a contender sees of a backend beside the snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    /// What one more request costs beyond the minimum at the prices of now, in USD per 1,000.
    pub unit_usd_per_1k: f64,
    /// Requests per second that it serves now.
    pub ready_rps: f64,
    /// Requests per second with all replicas that the autoscaler may have.
    pub most_rps: f64,
    /// Requests per second of the minimum.
    pub least_rps: f64,
    /// How long a request that arrives now waits.
    pub wait_seconds: f64,
    /// Replicas that serve.
    pub ready: Fleet,
    /// Whether it lost spot nodes in this tick.
    pub interrupted: bool,
}

/// What a contender decides by.
pub struct Scene<'a> {
    /// The tick, from 0.
    pub tick: usize,
    /// Its moment.
    pub now: Timestamp,
    /// What the production engine decides by.
    pub snapshot: &'a Snapshot,
    /// The backends, in the order of the snapshot.
    pub sights: &'a [Sight],
    /// Their places from the cheapest on, in the operator's order among equals.
    pub ranked: &'a [usize],
}

/// What a contender decides. All vectors are as long as there are backends.
#[derive(Clone, Debug)]
pub struct Order {
    /// Share of the requests by backend; they sum to 1.
    pub shares: Vec<f64>,
    /// What each cluster is asked for.
    pub wishes: Vec<Wish>,
}

/// What is written down of a run beside its score.
pub trait Record {
    /// A tick has ended; `usd` is what it cost everywhere.
    fn tick(&mut self, tick: usize, order: &Order, usd: f64, floor_usd: f64, amiss: f64);
}

impl Record for () {
    fn tick(&mut self, _: usize, _: &Order, _: f64, _: f64, _: f64) {}
}

/// One run of a contender through the scenario.
pub(super) struct World<'a> {
    scenario: &'a Scenario,
    clusters: Vec<Cluster<'a>>,
    prices: Vec<[Reader<'a>; 2]>,
    supplies: Vec<Option<Reader<'a>>>,
    supply_now: Vec<Option<f64>>,
    usd_now: Vec<[f64; 2]>,
    snapshot: Snapshot,
    sights: Vec<Sight>,
    ranked: Vec<usize>,
    loss_per_node: Vec<f64>,
    pace: Pace,
    chance: Rng,
    order: Order,
    score: Score,
    /// The tick that comes next.
    tick: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, seed: u64) -> World<'a> {
        let tick_seconds = scenario.tick_seconds;
        let clusters: Vec<Cluster<'a>> = scenario
            .sites
            .iter()
            .filter_map(|site| Cluster::new(&site.backend, scenario.response_bytes))
            .collect();
        assert_eq!(
            clusters.len(),
            scenario.sites.len(),
            "a scenario has only sites that say what they serve"
        );
        let sites = &scenario.sites;
        let loss = |site: &super::Site| site.interruptions.per_node_hour * tick_seconds / HOUR;
        World {
            scenario,
            prices: sites
                .iter()
                .map(|site| [Reader::new(&site.prices.spot), Reader::new(&site.prices.on_demand)])
                .collect(),
            supplies: sites.iter().map(|site| site.supply.as_ref().map(Reader::new)).collect(),
            supply_now: vec![None; sites.len()],
            usd_now: vec![[f64::NAN; 2]; sites.len()],
            snapshot: Snapshot {
                at: scenario.from,
                route: scenario.route.clone(),
                slo: Slo { ttft_p95: scenario.slo },
                demand_rps: 0.0,
                response_bytes: Some(scenario.response_bytes),
                backends: sites.iter().map(view).collect(),
                overrides: Vec::new(),
                rulings: Default::default(),
            },
            sights: vec![Sight::default(); sites.len()],
            ranked: (0..sites.len()).collect(),
            loss_per_node: sites.iter().map(loss).collect(),
            pace: Pace {
                tick_seconds,
                late_after_seconds: scenario.slo.map(|slo| slo.as_secs_f64()),
                refused_after_seconds: scenario.patience.as_secs_f64(),
                utilization: scenario.utilization,
            },
            // Losses by chance are the same for every contender only as long as they hold the same nodes.
            chance: Rng::with_seed(seed ^ 0x5bd1_e995),
            order: Order {
                shares: vec![0.0; sites.len()],
                wishes: clusters
                    .iter()
                    .map(|cluster| Wish::Load { planned_rps: 0.0, spot_share: cluster.spot_share })
                    .collect(),
            },
            score: Score::new(sites.len(), tick_seconds),
            tick: 0,
            clusters,
        }
    }

    /// Lets `contender` decide about all of `arrivals`.
    pub(super) fn run(
        mut self,
        arrivals: &Arrivals,
        contender: &mut dyn Contender,
        record: &mut dyn Record,
    ) -> Score {
        self.advance(arrivals.work.len(), arrivals, contender, record);
        self.score
    }

    /// Goes on until before tick `until`, or the end of `arrivals`.
    pub(super) fn advance(
        &mut self,
        until: usize,
        arrivals: &Arrivals,
        contender: &mut dyn Contender,
        record: &mut dyn Record,
    ) {
        let tick_seconds = self.pace.tick_seconds;
        if self.tick == 0 {
            self.snapshot.demand_rps =
                arrivals.requests.first().map_or(0.0, |n| f64::from(*n) / tick_seconds);
        }
        while self.tick < until.min(arrivals.work.len()) {
            let (requests, work) =
                (f64::from(arrivals.requests[self.tick]), f64::from(arrivals.work[self.tick]));
            self.observe(self.tick, self.tick as f64 * tick_seconds);
            let scene = Scene {
                tick: self.tick,
                now: self.snapshot.at,
                snapshot: &self.snapshot,
                sights: &self.sights,
                ranked: &self.ranked,
            };
            contender.direct(&scene, &mut self.order);
            if self.tick == 0 {
                self.start_warm(work / tick_seconds);
            }
            self.serve(requests, work, record);
            // What is known of the demand when the next tick is decided.
            self.snapshot.demand_rps = requests / tick_seconds;
            self.tick += 1;
        }
    }

    /// Every cluster serves its share of a tick, scales and bills.
    fn serve(&mut self, requests: f64, work: f64, record: &mut dyn Record) {
        let tick_seconds = self.pace.tick_seconds;
        let end = self.tick as f64 * tick_seconds + tick_seconds;
        let (mut usd, mut floor_usd, mut amiss) = (0.0, 0.0, 0.0);
        for (place, cluster) in self.clusters.iter_mut().enumerate() {
            let (share, wish) = (self.order.shares[place], self.order.wishes[place]);
            let served = cluster.serve(requests * share, work * share, &self.pace);
            cluster.scale(wish, work * share / tick_seconds, self.supply_now[place], end);
            let [spot, on_demand] = self.usd_now[place];
            let bill = cluster.bill(spot, on_demand, served.answered, &self.pace);
            usd += bill.usd;
            floor_usd += if wish == Wish::Closed { 0.0 } else { bill.floor_usd };
            amiss += served.late + served.refused;
            self.score.add(requests * share, &served);
            let live = &mut self.snapshot.backends[place].live;
            live.rps = requests * share / tick_seconds;
            live.samples = (requests * share) as u64;
            live.ttfb_p95 =
                (requests * share >= 1.0).then(|| Duration::from_secs_f64(served.wait_p95_seconds.min(HOUR)));
        }
        self.score.tick(&self.order.shares, usd, floor_usd);
        record.tick(self.tick, &self.order, usd, floor_usd, amiss);
    }

    /// What runs when time begins is what the first order needs.
    fn start_warm(&mut self, load_rps: f64) {
        for (place, cluster) in self.clusters.iter_mut().enumerate() {
            let load_rps = load_rps * self.order.shares[place];
            cluster.start_warm(self.order.wishes[place], load_rps, self.supply_now[place]);
        }
    }

    /// Prices and nodes of this moment, and what is seen of them.
    fn observe(&mut self, tick: usize, now: f64) {
        let at = self.scenario.from + SignedDuration::from_secs_f64(now);
        self.snapshot.at = at;
        let mut any_changed = false;
        for (place, cluster) in self.clusters.iter_mut().enumerate() {
            let supply = self.supplies[place].as_mut().and_then(|reader| reader.at(now));
            self.supply_now[place] = supply;
            cluster.begin(now, supply, &mut self.chance, self.loss_per_node[place]);
            let [spot, on_demand] = &mut self.prices[place];
            let usd = [spot.at(now).unwrap_or(f64::NAN), on_demand.at(now).unwrap_or(f64::NAN)];
            let view = &mut self.snapshot.backends[place];
            let same = |(a, b): (&f64, &f64)| a == b || (a.is_nan() && b.is_nan());
            let changed = tick == 0 || !usd.iter().zip(&self.usd_now[place]).all(same);
            any_changed |= changed;
            if changed {
                self.usd_now[place] = usd;
                view.spot = price(usd[0], at);
                view.on_demand = price(usd[1], at);
            }
            let sight = &mut self.sights[place];
            if changed {
                // Without a cost nobody would be simulated: the scenario refuses such a site.
                let costing: Option<Costing> = cost::cost_of(view, self.scenario.response_bytes).ok();
                sight.unit_usd_per_1k = costing.map_or(f64::MAX, |costing| costing.unit.total());
            }
            sight.ready = cluster.ready();
            sight.ready_rps = cluster.ready_rps();
            sight.most_rps = cluster.most_rps();
            sight.least_rps = cluster.least_rps();
            sight.wait_seconds = cluster.wait_seconds(&self.pace);
            sight.interrupted = cluster.interrupted;
            // Before the first decision nothing runs yet that could report.
            view.load.ready_replicas = (tick > 0).then(|| sight.ready.total());
            view.load.queued = Some(cluster.queued());
        }
        if any_changed {
            let usd = |place: &usize| self.sights[*place].unit_usd_per_1k;
            self.ranked.sort_by(|a, b| usd(a).total_cmp(&usd(b)).then(a.cmp(b)));
        }
    }
}

/// A site as the engine sees it before anything has happened.
fn view(site: &super::Site) -> BackendView {
    BackendView {
        backend: site.backend.clone(),
        spot: None,
        on_demand: None,
        interruptions: site.interruptions,
        health: Health::Healthy,
        probe: None,
        live: Live::default(),
        load: LoadReport::default(),
        ejected: None,
        leaving: Share::ZERO,
        load_elsewhere_rps: 0.0,
        resolved: true,
    }
}

fn price(usd: f64, at: Timestamp) -> Option<Price> {
    Some(Price {
        usd_per_hour: UsdPerHour::new(usd)?,
        source: Arc::from("file"),
        observed_at: at,
        fetched_at: at,
        state: PriceState::Fresh,
        note: None,
    })
}
