//! The best schedule in hindsight.
//!
//! A schedule says which backend is the favourite in every tick: it gets what its ready capacity takes, after what is paid
//! anyway is used everywhere, and the rest goes to the next cheapest. First each backend is the favourite for the whole time, in a world of its
//! own: that is what being there costs, tick by tick. Then dynamic programming over all ticks finds the schedule of the least cost, where a change
//! costs what both sides running at once costs: the new one from its cold start on, the old one until it has scaled down.
//! That schedule is then run like any other contender, with capacity ordered a cold start ahead of the demand, and once more with
//! autoscalers left to themselves, which is cheaper where a little waiting is allowed.

use std::collections::VecDeque;

use super::{
    Scenario,
    cluster::{SCALE_DOWN_AFTER_SECONDS, Wish},
    contenders::Contender,
    demand::Arrivals,
    world::{Order, Record, Scene},
};

/// What being at one backend costs, tick by tick.
#[derive(Clone, Debug, Default)]
pub(super) struct Trajectory {
    /// USD beyond the minimum, by tick.
    pub(super) usd: Vec<f32>,
    /// Requests that were refused or late, by tick.
    pub(super) amiss: Vec<f32>,
}

impl Record for Trajectory {
    fn tick(&mut self, _: usize, _: &Order, usd: f64, floor_usd: f64, amiss: f64) {
        self.usd.push((usd - floor_usd) as f32);
        self.amiss.push(amiss as f32);
    }
}

/// Times the dearest unit cost that a request which is refused or late costs: so much that no schedule saves by refusing.
const AMISS_WEIGHT: f64 = 20.0;

/// The favourite of every tick.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule(pub(super) Vec<u8>);

impl Schedule {
    pub(super) fn always(place: usize, ticks: usize) -> Schedule {
        Schedule(vec![place as u8; ticks])
    }

    /// The schedule of the least cost, given what being at each backend costs and what a request costs at most, in USD.
    pub(super) fn best(scenario: &Scenario, trajectories: &[Trajectory], request_usd: f64) -> Schedule {
        let count = trajectories.len();
        let ticks = trajectories.first().map_or(0, |first| first.usd.len());
        let amiss_usd = request_usd * AMISS_WEIGHT;
        let in_ticks = |seconds: f64| (seconds / scenario.tick_seconds).ceil() as usize;
        let cold: Vec<usize> = scenario
            .sites
            .iter()
            .map(|site| in_ticks(site.backend.replicas.as_ref().map_or(0.0, |r| r.cold_start.as_secs_f64())))
            .collect();
        let tail = in_ticks(SCALE_DOWN_AFTER_SECONDS);
        let sums: Vec<Vec<f64>> =
            trajectories.iter().map(|trajectory| running_sum(&trajectory.usd)).collect();
        let between =
            |place: usize, from: usize, to: usize| sums[place][to.min(ticks)] - sums[place][from.min(ticks)];
        let mut best = vec![0.0; count];
        let mut came_from: Vec<u8> = Vec::with_capacity(ticks * count);
        let mut next = vec![0.0; count];
        for tick in 0..ticks {
            let tails: Vec<f64> = (0..count).map(|place| between(place, tick, tick + tail)).collect();
            // Leaving costs the same wherever one goes, so only the cheapest and the second cheapest to leave matter; with
            // the few backends of a route, trying all is as quick.
            for place in 0..count {
                let warm_up = between(place, tick.saturating_sub(cold[place]), tick);
                let moved = |from: usize| {
                    let change = if from == place || tick == 0 { 0.0 } else { tails[from] + warm_up };
                    best[from] + change
                };
                let from = (0..count).min_by(|a, b| moved(*a).total_cmp(&moved(*b))).unwrap_or(place);
                let from = if moved(place) <= moved(from) { place } else { from };
                let trajectory = &trajectories[place];
                next[place] = moved(from)
                    + f64::from(trajectory.usd[tick])
                    + f64::from(trajectory.amiss[tick]) * amiss_usd;
                came_from.push(from as u8);
            }
            best.copy_from_slice(&next);
        }
        let mut place = (0..count).min_by(|a, b| best[*a].total_cmp(&best[*b])).unwrap_or(0);
        let mut schedule = vec![0; ticks];
        for tick in (0..ticks).rev() {
            schedule[tick] = place as u8;
            place = usize::from(came_from[tick * count + place]);
        }
        Schedule(schedule)
    }
}

fn running_sum(values: &[f32]) -> Vec<f64> {
    let mut sum = 0.0;
    let sums = values.iter().map(|value| {
        sum += f64::from(*value);
        sum
    });
    std::iter::once(0.0).chain(sums).collect()
}

/// Who orders capacity for a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capacity {
    /// The schedule, a cold start before it is needed.
    Ahead,
    /// The autoscalers, when the load is there; what a change of the favourite needs is ordered ahead.
    AsItComes,
}

/// Follows a schedule with perfect foresight of demand and supply.
pub(super) struct Clairvoyant {
    schedule: Schedule,
    /// Load to prepare for in every tick, by backend: the greatest that comes within its cold start.
    planned: Vec<Vec<f32>>,
    load_rps: Vec<f32>,
    capacity: Capacity,
    /// By backend, how many ticks its cold start takes.
    cold: Vec<usize>,
}

impl Clairvoyant {
    pub(super) fn new(
        scenario: &Scenario,
        arrivals: &Arrivals,
        schedule: Schedule,
        capacity: Capacity,
    ) -> Clairvoyant {
        let count = scenario.sites.len();
        let ticks = arrivals.work.len();
        let load_rps: Vec<f32> =
            arrivals.work.iter().map(|work| work / scenario.tick_seconds as f32).collect();
        let mut loads = vec![vec![0f32; ticks]; count];
        let costs: Vec<f64> = scenario.sites.iter().map(|site| site.unit_usd_at_start(scenario)).collect();
        let mut ranked: Vec<usize> = (0..count).collect();
        ranked.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
        let replicas = |place: usize| scenario.sites[place].backend.replicas.as_ref();
        for tick in 0..ticks {
            let seconds = tick as f64 * scenario.tick_seconds;
            let least = |place: usize| replicas(place).map_or(0.0, |r| r.capacity_rps(r.min));
            let most = |place: usize| scenario.sites[place].obtainable_rps(seconds);
            let favourite = usize::from(schedule.0[tick]);
            let mut missing = f64::from(load_rps[tick]);
            let mut give = |place: usize, room: f64| {
                let given = (room - f64::from(loads[place][tick])).clamp(0.0, missing);
                loads[place][tick] += given as f32;
                missing -= given;
            };
            (0..count).for_each(|place| give(place, least(place).min(most(place))));
            give(favourite, most(favourite));
            ranked.iter().for_each(|place| give(*place, most(*place)));
        }
        let cold_seconds = |place: usize| replicas(place).map_or(0.0, |r| r.cold_start.as_secs_f64());
        // What is ordered at the end of a tick is ready a cold start later.
        let cold: Vec<usize> = (0..count)
            .map(|place| (cold_seconds(place) / scenario.tick_seconds).ceil() as usize + 1)
            .collect();
        let planned = loads.iter().zip(&cold).map(|(loads, cold)| greatest_ahead(loads, *cold)).collect();
        Clairvoyant { schedule, planned, load_rps, capacity, cold }
    }
}

/// Of every place the greatest of it and so many after it.
fn greatest_ahead(values: &[f32], ahead: usize) -> Vec<f32> {
    let mut greatest = vec![0.0; values.len()];
    let mut window: VecDeque<usize> = VecDeque::new();
    for place in (0..values.len()).rev() {
        while window.back().is_some_and(|later| values[*later] <= values[place]) {
            window.pop_back();
        }
        window.push_back(place);
        while window.front().is_some_and(|later| *later > place + ahead) {
            window.pop_front();
        }
        greatest[place] = window.front().map_or(0.0, |later| values[*later]);
    }
    greatest
}

impl Clairvoyant {
    /// Whether a backend becomes the favourite within its cold start.
    fn changes_to(&self, place: usize, tick: usize) -> bool {
        let favourite = |tick: usize| self.schedule.0.get(tick).map(|place| usize::from(*place));
        let last = (tick + self.cold[place]).min(self.schedule.0.len().saturating_sub(1));
        favourite(last) == Some(place) && (tick..last).any(|tick| favourite(tick) != Some(place))
    }
}

impl Contender for Clairvoyant {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        let load = f64::from(self.load_rps[scene.tick]).max(1e-9);
        let favourite = usize::from(self.schedule.0[scene.tick]);
        order.shares.fill(0.0);
        let mut missing = 1.0;
        for place in 0..order.shares.len() {
            let ahead = self.capacity == Capacity::Ahead || self.changes_to(place, scene.tick);
            if let Wish::Load { planned_rps, .. } = &mut order.wishes[place] {
                *planned_rps = if ahead { f64::from(self.planned[place][scene.tick]) } else { 0.0 };
            }
        }
        let ready = |place: usize| match scene.tick {
            // Time begins with what is asked for.
            0 => f64::from(self.planned[place][0]),
            _ => scene.sights[place].ready_rps,
        };
        let mut give = |shares: &mut [f64], place: usize, room_rps: f64| {
            let given = (room_rps / load - shares[place]).clamp(0.0, missing);
            shares[place] += given;
            missing -= given;
        };
        for place in 0..order.shares.len() {
            give(&mut order.shares, place, scene.sights[place].least_rps.min(ready(place)));
        }
        give(&mut order.shares, favourite, ready(favourite));
        for place in scene.ranked {
            give(&mut order.shares, *place, ready(*place));
        }
        order.shares[favourite] += missing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_looks_ahead() {
        assert_eq!(greatest_ahead(&[1.0, 3.0, 2.0, 0.0, 5.0], 2), [3.0, 3.0, 5.0, 5.0, 5.0]);
        assert_eq!(greatest_ahead(&[1.0, 3.0], 0), [1.0, 3.0]);
        assert_eq!(greatest_ahead(&[], 3), [0f32; 0]);
    }
}
