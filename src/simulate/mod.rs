//! A virtual world in virtual time around the production `decide`: what the configured policy, other policies and other routers would have paid
//! for real traffic at real prices, beside the best schedule in hindsight.
//!
//! A [`Scenario`] goes in, a [`Report`] comes out; nothing is read or written here, and a seed gives the same figures again.
//! Read in this order: [`market`], [`availability`] and [`demand`] (what is known beforehand), [`cluster`] (nodes, autoscaler, queue and
//! bill), [`world`] (the loop), [`contenders`] and `baselines` (who decides), `hindsight` (the optimum), [`score`] (what it came to),
//! [`plot`]. `docs/simulation.md` says what the model leaves out.

pub mod availability;
mod baselines;
pub mod cluster;
pub mod contenders;
pub mod demand;
mod hindsight;
pub mod market;
pub mod plot;
pub mod score;
#[cfg(test)]
mod tests;
pub mod world;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::Serialize;

use crate::{
    model::{Backend, InterruptionRate, Policy, RouteId, Timestamp},
    rules::RuleSet,
};
use contenders::Entry;
use demand::{Arrivals, Demand};
use hindsight::{Capacity, Clairvoyant, Planner, Schedule, Trajectory};
use market::{Course, NodePrices};
use plot::Series;
use score::{Score, Standing};
use world::World;

/// Most backends of a route that are simulated: a schedule writes down a favourite in a byte.
pub const SITES_MAX: usize = 100;

/// A backend, and what happens to it.
#[derive(Clone, Debug)]
pub struct Site {
    /// The backend; with `replicas`, and with `node` or `managed`.
    pub backend: Arc<Backend>,
    /// What its nodes cost; what its spot share needs is there.
    pub prices: NodePrices,
    /// Spot nodes that can be had; `None` for any number, lost by chance at the rate of interruptions.
    pub supply: Option<Course>,
    /// How often a spot node is taken back, as decisions and chance have it.
    pub interruptions: InterruptionRate,
}

impl Site {
    /// Requests per second with what the autoscaler may have and the supply allows.
    fn obtainable_rps(&self, seconds: f64) -> f64 {
        let Some(replicas) = &self.backend.replicas else { return 0.0 };
        let (Some(node), Some(supply)) = (&self.backend.node, &self.supply) else {
            return replicas.capacity_rps(replicas.max);
        };
        let nodes = supply.at(seconds).unwrap_or(0.0);
        let all = cluster::mixed(replicas.max, node.spot.get());
        let spot = f64::from(all.spot).min((nodes * node.replicas_per_node).floor());
        (spot + f64::from(all.on_demand)) * replicas.rps
    }

    /// What a request per second costs at the first prices, to rank by.
    fn unit_usd_at_start(&self, scenario: &Scenario) -> f64 {
        let Some(replicas) = &self.backend.replicas else { return f64::MAX };
        let egress = self.backend.egress_usd_per_gb.unwrap_or(0.0) * scenario.response_bytes / 1e9 * 3600.0;
        let hourly = match (&self.backend.managed, &self.backend.node) {
            (Some(managed), _) => managed.usd_per_replica_hour,
            (None, Some(node)) => {
                let spot = self.prices.spot.at(0.0).unwrap_or(0.0) * node.spot.get();
                let on_demand = self.prices.on_demand.at(0.0).unwrap_or(0.0) * (1.0 - node.spot.get());
                (spot + on_demand) / node.replicas_per_node
            }
            (None, None) => return f64::MAX,
        };
        hourly / replicas.rps + egress
    }
}

/// All that is simulated.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The route.
    pub route: RouteId,
    /// Its objective for the time to the first byte; here for the time that a request waits. `None` for none.
    pub slo: Option<Duration>,
    /// Its policy.
    pub policy: Policy,
    /// The rules of that policy, for it and for the other rules of moving that are compared with it.
    pub rules: RuleSet,
    /// Its backends, in the operator's order; 1 to [`SITES_MAX`].
    pub sites: Vec<Site>,
    /// What clients ask for.
    pub demand: Demand,
    /// The moment of the first tick.
    pub from: Timestamp,
    /// Length of a tick, in seconds: from one decision to the next.
    pub tick_seconds: f64,
    /// A request that would wait for longer is refused.
    pub patience: Duration,
    /// Part of what a replica can do that its `rps` are, above 0 and at most 1.
    pub utilization: f64,
    /// Mean size of a response.
    pub response_bytes: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The route.
    pub route: RouteId,
    /// The moment of the first tick.
    pub from: Timestamp,
    /// Simulated time, in seconds.
    pub seconds: f64,
    /// Seeds, from the first one on.
    pub seeds: Vec<u64>,
    /// Mean number of requests over the seeds.
    pub requests: f64,
    /// What the best schedule known in hindsight was billed, in USD; the mean over the seeds. The cheapest that keeps the
    /// objective: see [`Score::serves_as_well_as`].
    pub optimum_usd: f64,
    /// Everybody who took part; the configured policy first, the optimum last.
    pub policies: Vec<Standing>,
    /// What one should know about the figures, a sentence each.
    pub notes: Vec<String>,
    /// The run of the first seed, to be drawn; empty unless asked for.
    #[serde(skip)]
    pub series: Series,
}

/// Runs everybody through the scenario once for each seed, on all cores; `drawn`: and the first seed once more for the plot.
pub fn simulate(scenario: &Scenario, seeds: &[u64], drawn: bool, notes: Vec<String>) -> Report {
    let entries = contenders::all(scenario);
    let arrivals: Vec<Arrivals> = in_parallel(seeds.len(), |place| scenario.demand.draw(seeds[place]));
    let runs = run_all(scenario, &entries, seeds, &arrivals);
    let schedules = schedules(scenario, seeds, &arrivals);
    let optimal: Vec<Score> = in_parallel(seeds.len(), |place| {
        let follow = |capacity| {
            let schedule = schedules[place].clone();
            let mut clairvoyant = Clairvoyant::new(scenario, &arrivals[place], schedule, capacity);
            World::new(scenario, seeds[place]).run(&arrivals[place], &mut clairvoyant, &mut ())
        };
        let (ahead, as_it_comes) = (follow(Capacity::Ahead), follow(Capacity::AsItComes));
        // Dynamic programming knows the cost of a change only nearly. Who kept the objective for less was the better schedule.
        let comparable = entries.iter().zip(&runs).filter(|(entry, _)| entry.is_comparable);
        let others = comparable.map(|(_, of_seeds)| &of_seeds[place]).chain([&as_it_comes]);
        let as_good = others.filter(|score| score.serves_as_well_as(&ahead));
        let cheapest = as_good.min_by(|a, b| a.usd_billed().total_cmp(&b.usd_billed()));
        cheapest.filter(|best| best.usd_billed() < ahead.usd_billed()).unwrap_or(&ahead).clone()
    });
    let optimum_usd: Vec<f64> = optimal.iter().map(Score::usd_billed).collect();
    let standing = |name: &str, scores: Vec<Score>| {
        let of_seeds: Vec<(Score, f64)> = scores.into_iter().zip(optimum_usd.iter().copied()).collect();
        (Standing::of(name, &of_seeds), Standing::requests(&of_seeds))
    };
    let mut policies = Vec::with_capacity(entries.len() + 1);
    for (entry, scores) in entries.iter().zip(runs) {
        policies.push(standing(&entry.name, scores).0);
    }
    let (optimum, requests) = standing("optimum", optimal);
    policies.push(optimum);
    let series = match drawn {
        true => draw_series(scenario, &entries, seeds, &arrivals, &schedules),
        false => Series::default(),
    };
    Report {
        route: scenario.route.clone(),
        from: scenario.from,
        seconds: scenario.demand.ticks() as f64 * scenario.tick_seconds,
        seeds: seeds.to_vec(),
        requests,
        optimum_usd: optimum_usd.iter().sum::<f64>() / seeds.len().max(1) as f64,
        policies,
        notes,
        series,
    }
}

/// Scores by entry and seed.
fn run_all(scenario: &Scenario, entries: &[Entry], seeds: &[u64], arrivals: &[Arrivals]) -> Vec<Vec<Score>> {
    let mut scores = in_parallel(entries.len() * seeds.len(), |place| {
        let (entry, seed) = (place / seeds.len(), place % seeds.len());
        let mut contender = (entries[entry].start)(scenario);
        World::new(scenario, seeds[seed]).run(&arrivals[seed], &mut *contender, &mut ())
    })
    .into_iter();
    entries.iter().map(|_| scores.by_ref().take(seeds.len()).collect()).collect()
}

/// Ticks after which the planner takes what the worlds have found out: so that no more has to be kept, however long time is.
const STRETCH_TICKS: usize = 4096;

/// The best schedule for each seed.
fn schedules(scenario: &Scenario, seeds: &[u64], arrivals: &[Arrivals]) -> Vec<Schedule> {
    let count = scenario.sites.len();
    let unit_usd = |site: &Site| site.unit_usd_at_start(scenario) / 3600.0;
    let request_usd = scenario.sites.iter().map(unit_usd).filter(|usd| usd.is_finite()).fold(0.0, f64::max);
    (0..seeds.len())
        .map(|seed| {
            let alone = |place: usize| {
                let schedule = Schedule::Always(place);
                let clairvoyant = Clairvoyant::new(scenario, &arrivals[seed], schedule, Capacity::Ahead);
                Mutex::new((World::new(scenario, seeds[seed]), clairvoyant, Trajectory::default()))
            };
            let mut worlds: Vec<_> = (0..count).map(alone).collect();
            let mut planner = Planner::new(scenario, request_usd);
            let ticks = scenario.demand.ticks();
            for until in (0..ticks).step_by(STRETCH_TICKS).skip(1).chain([ticks]) {
                in_parallel(count, |place| {
                    let mut world = worlds[place].lock().unwrap_or_else(PoisonError::into_inner);
                    let (world, clairvoyant, trajectory) = &mut *world;
                    world.advance(until, &arrivals[seed], clairvoyant, trajectory);
                });
                let mut trajectories: Vec<&mut Trajectory> = worlds
                    .iter_mut()
                    .map(|world| &mut world.get_mut().unwrap_or_else(PoisonError::into_inner).2)
                    .collect();
                planner.go_on(&mut trajectories, until == ticks);
            }
            planner.finish()
        })
        .collect()
}

/// Runs the first seed once more for the plot.
fn draw_series(
    scenario: &Scenario,
    entries: &[Entry],
    seeds: &[u64],
    arrivals: &[Arrivals],
    schedules: &[Schedule],
) -> Series {
    let (Some(seed), Some(arrivals), Some(schedule)) = (seeds.first(), arrivals.first(), schedules.first())
    else {
        return Series::default();
    };
    let mut series = Series::new(scenario);
    for entry in entries {
        let mut curve = series.curve(&entry.name);
        World::new(scenario, *seed).run(arrivals, &mut *(entry.start)(scenario), &mut curve);
        series.add(curve);
    }
    let mut curve = series.curve("optimum");
    let mut clairvoyant = Clairvoyant::new(scenario, arrivals, schedule.clone(), Capacity::Ahead);
    World::new(scenario, *seed).run(arrivals, &mut clairvoyant, &mut curve);
    series.add(curve);
    series
}

/// Does `count` pieces of work on all cores; the results come in order.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Relaxed);
                    if place >= count {
                        return;
                    }
                    let result = work(place);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}
