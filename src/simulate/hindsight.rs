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

/// What being at one backend costs, tick by tick, over a stretch of time.
#[derive(Clone, Debug)]
pub(super) struct Trajectory {
    /// The first tick of which something is kept.
    first: usize,
    /// USD beyond the minimum until before each tick, from `first` on; one more than there are ticks.
    usd_until: VecDeque<f64>,
    /// Requests that were refused or late, by tick.
    amiss: VecDeque<f32>,
}

impl Default for Trajectory {
    fn default() -> Trajectory {
        Trajectory { first: 0, usd_until: [0.0].into(), amiss: VecDeque::new() }
    }
}

impl Record for Trajectory {
    fn tick(&mut self, _: usize, _: &Order, usd: f64, floor_usd: f64, amiss: f64) {
        let so_far = self.usd_until.back().copied().unwrap_or(0.0);
        // Rounded, so that two clusters that cost the same to the last digit but one are equals.
        self.usd_until.push_back(so_far + f64::from((usd - floor_usd) as f32));
        self.amiss.push_back(amiss as f32);
    }
}

impl Trajectory {
    /// The first tick that is not there yet.
    fn end(&self) -> usize {
        self.first + self.amiss.len()
    }

    /// USD from one tick until before another, of what there is.
    fn usd(&self, from: usize, to: usize) -> f64 {
        self.usd_until[to.min(self.end()) - self.first] - self.usd_until[from.min(self.end()) - self.first]
    }

    fn amiss(&self, tick: usize) -> f64 {
        f64::from(self.amiss[tick - self.first])
    }

    /// Lets go what was before a tick.
    fn forget_before(&mut self, tick: usize) {
        let many = tick.saturating_sub(self.first).min(self.amiss.len());
        self.usd_until.drain(..many);
        self.amiss.drain(..many);
        self.first += many;
    }
}

/// Times the dearest unit cost that a request which is refused or late costs: so much that no schedule saves by refusing.
const AMISS_WEIGHT: f64 = 20.0;

/// The favourite of every tick.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Schedule {
    /// One place all the time.
    Always(usize),
    /// By tick.
    Changing(Vec<u8>),
}

impl Schedule {
    fn at(&self, tick: usize) -> usize {
        match self {
            Schedule::Always(place) => *place,
            Schedule::Changing(places) => usize::from(places[tick]),
        }
    }
}

/// Finds the schedule of the least cost by dynamic programming, as the trajectories come in. What it keeps of each tick is a byte a
/// backend.
pub(super) struct Planner {
    /// By backend, how many ticks its cold start takes.
    cold: Vec<usize>,
    /// How many ticks a cluster that is left goes on to cost.
    tail: usize,
    /// What a request costs that is refused or late.
    amiss_usd: f64,
    /// The least cost of ending up at each backend.
    best: Vec<f64>,
    /// Where one came from, by tick and backend.
    came_from: Vec<u8>,
    next: usize,
}

impl Planner {
    /// Begins; `request_usd` is what a request costs at most, in USD.
    pub(super) fn new(scenario: &Scenario, request_usd: f64) -> Planner {
        let in_ticks = |seconds: f64| (seconds / scenario.tick_seconds).ceil() as usize;
        let cold_seconds =
            |site: &super::Site| site.backend.replicas.as_ref().map_or(0.0, |r| r.cold_start.as_secs_f64());
        Planner {
            cold: scenario.sites.iter().map(|site| in_ticks(cold_seconds(site))).collect(),
            tail: in_ticks(SCALE_DOWN_AFTER_SECONDS),
            amiss_usd: request_usd * AMISS_WEIGHT,
            best: vec![0.0; scenario.sites.len()],
            came_from: Vec::with_capacity(scenario.demand.ticks() * scenario.sites.len()),
            next: 0,
        }
    }

    /// Goes on as far as the trajectories, one a backend and all equally long, say what leaving costs; to their end if there
    /// comes no more. Lets go of them what is not needed any more.
    pub(super) fn go_on(&mut self, trajectories: &mut [&mut Trajectory], is_all: bool) {
        let end = trajectories.first().map_or(0, |first| first.end());
        let until = if is_all { end } else { end.saturating_sub(self.tail) };
        let mut arrived = vec![0.0; self.best.len()];
        while self.next < until {
            let tick = self.next;
            let tails: Vec<f64> = trajectories.iter().map(|t| t.usd(tick, tick + self.tail)).collect();
            // Leaving costs the same wherever one goes, so only the cheapest and the second cheapest to leave matter; with
            // the few backends of a route, trying all is as quick.
            for (place, trajectory) in trajectories.iter().enumerate() {
                let warm_up = trajectory.usd(tick.saturating_sub(self.cold[place]), tick);
                let moved = |from: usize| {
                    let change = if from == place || tick == 0 { 0.0 } else { tails[from] + warm_up };
                    self.best[from] + change
                };
                let from = (0..tails.len()).min_by(|a, b| moved(*a).total_cmp(&moved(*b))).unwrap_or(place);
                let from = if moved(place) <= moved(from) { place } else { from };
                arrived[place] =
                    moved(from) + trajectory.usd(tick, tick + 1) + trajectory.amiss(tick) * self.amiss_usd;
                self.came_from.push(from as u8);
            }
            self.best.copy_from_slice(&arrived);
            self.next += 1;
        }
        for (trajectory, cold) in trajectories.iter_mut().zip(&self.cold) {
            trajectory.forget_before(self.next.saturating_sub(*cold));
        }
    }

    /// The schedule of the least cost.
    pub(super) fn finish(self) -> Schedule {
        let count = self.best.len();
        let mut place = (0..count).min_by(|a, b| self.best[*a].total_cmp(&self.best[*b])).unwrap_or(0);
        let mut schedule = vec![0; self.next];
        for tick in (0..self.next).rev() {
            schedule[tick] = place as u8;
            place = usize::from(self.came_from[tick * count + place]);
        }
        Schedule::Changing(schedule)
    }
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
pub(super) struct Clairvoyant<'a> {
    scenario: &'a Scenario,
    arrivals: &'a Arrivals,
    schedule: Schedule,
    capacity: Capacity,
    /// By backend, how many ticks its cold start takes.
    cold: Vec<usize>,
    /// Places from the cheapest on.
    ranked: Vec<usize>,
    /// Load to prepare for: of the ticks from now on, as far as the longest cold start.
    ahead: VecDeque<Vec<f32>>,
    /// The first tick that is not in `ahead`.
    foreseen: usize,
    /// By backend, the greatest load that comes within its cold start.
    greatest: Vec<Greatest>,
}

/// The greatest of a window of loads that moves on.
#[derive(Clone, Debug, Default)]
struct Greatest {
    /// Ticks and loads that are greater than all after them.
    peaks: VecDeque<(usize, f32)>,
    /// The first tick that has not come in.
    end: usize,
}

impl Greatest {
    fn take_in(&mut self, load: f32) {
        while self.peaks.back().is_some_and(|(_, earlier)| *earlier <= load) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((self.end, load));
        self.end += 1;
    }

    /// The greatest from `tick` on.
    fn from(&mut self, tick: usize) -> f32 {
        while self.peaks.front().is_some_and(|(peak, _)| *peak < tick) {
            self.peaks.pop_front();
        }
        self.peaks.front().map_or(0.0, |(_, load)| *load)
    }
}

impl<'a> Clairvoyant<'a> {
    pub(super) fn new(
        scenario: &'a Scenario,
        arrivals: &'a Arrivals,
        schedule: Schedule,
        capacity: Capacity,
    ) -> Clairvoyant<'a> {
        let count = scenario.sites.len();
        let costs: Vec<f64> = scenario.sites.iter().map(|site| site.unit_usd_at_start(scenario)).collect();
        let mut ranked: Vec<usize> = (0..count).collect();
        ranked.sort_by(|a, b| costs[*a].total_cmp(&costs[*b]));
        let cold_seconds = |site: &super::Site| {
            site.backend.replicas.as_ref().map_or(0.0, |replicas| replicas.cold_start.as_secs_f64())
        };
        // What is ordered at the end of a tick is ready a cold start later.
        let in_ticks = |site: &super::Site| (cold_seconds(site) / scenario.tick_seconds).ceil() as usize + 1;
        Clairvoyant {
            scenario,
            arrivals,
            schedule,
            capacity,
            cold: scenario.sites.iter().map(in_ticks).collect(),
            ranked,
            ahead: VecDeque::new(),
            foreseen: 0,
            greatest: vec![Greatest::default(); count],
        }
    }

    fn load_rps(&self, tick: usize) -> f32 {
        self.arrivals.work[tick] / self.scenario.tick_seconds as f32
    }

    /// The load of a tick by backend: what is paid anyway is used, then the favourite takes what can be had there, then the
    /// cheapest others.
    fn loads(&self, tick: usize) -> Vec<f32> {
        let seconds = tick as f64 * self.scenario.tick_seconds;
        let sites = &self.scenario.sites;
        let least =
            |place: usize| sites[place].backend.replicas.as_ref().map_or(0.0, |r| r.capacity_rps(r.min));
        let most = |place: usize| sites[place].obtainable_rps(seconds);
        let mut loads = vec![0f32; sites.len()];
        let mut missing = f64::from(self.load_rps(tick));
        let mut give = |place: usize, room: f64| {
            let given = (room - f64::from(loads[place])).clamp(0.0, missing);
            loads[place] += given as f32;
            missing -= given;
        };
        (0..sites.len()).for_each(|place| give(place, least(place).min(most(place))));
        let favourite = self.schedule.at(tick);
        give(favourite, most(favourite));
        self.ranked.iter().for_each(|place| give(*place, most(*place)));
        loads
    }

    /// Looks as far ahead of a tick as the longest cold start.
    fn foresee(&mut self, tick: usize) {
        let ticks = self.arrivals.work.len();
        let farthest = self.cold.iter().max().copied().unwrap_or(0);
        while self.foreseen < (tick + farthest + 1).min(ticks) {
            let loads = self.loads(self.foreseen);
            self.ahead.push_back(loads);
            self.foreseen += 1;
        }
        let first = self.foreseen - self.ahead.len();
        for (place, greatest) in self.greatest.iter_mut().enumerate() {
            while greatest.end < (tick + self.cold[place] + 1).min(ticks) {
                greatest.take_in(self.ahead[greatest.end - first][place]);
            }
        }
        self.ahead.drain(..(tick - first).min(self.ahead.len()));
    }

    /// Whether a backend becomes the favourite within its cold start.
    fn changes_to(&self, place: usize, tick: usize) -> bool {
        let last = (tick + self.cold[place]).min(self.arrivals.work.len().saturating_sub(1));
        self.schedule.at(last) == place && (tick..last).any(|tick| self.schedule.at(tick) != place)
    }
}

impl Contender for Clairvoyant<'_> {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        self.foresee(scene.tick);
        let planned: Vec<f64> =
            self.greatest.iter_mut().map(|greatest| f64::from(greatest.from(scene.tick))).collect();
        let load = f64::from(self.load_rps(scene.tick)).max(1e-9);
        let favourite = self.schedule.at(scene.tick);
        order.shares.fill(0.0);
        let mut missing = 1.0;
        for (place, wish) in order.wishes.iter_mut().enumerate() {
            let ahead = self.capacity == Capacity::Ahead || self.changes_to(place, scene.tick);
            if let Wish::Load { planned_rps, .. } = wish {
                *planned_rps = if ahead { planned[place] } else { 0.0 };
            }
        }
        let ready = |place: usize| match scene.tick {
            // Time begins with what is asked for.
            0 => planned[place],
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
        let greatest_ahead = |values: &[f32], ahead: usize| -> Vec<f32> {
            let mut greatest = Greatest::default();
            let of = |tick: usize| {
                values
                    .iter()
                    .take(tick + ahead + 1)
                    .skip(greatest.end)
                    .for_each(|load| greatest.take_in(*load));
                greatest.from(tick)
            };
            (0..values.len()).map(of).collect()
        };
        assert_eq!(greatest_ahead(&[1.0, 3.0, 2.0, 0.0, 5.0], 2), [3.0, 3.0, 5.0, 5.0, 5.0]);
        assert_eq!(greatest_ahead(&[1.0, 3.0], 0), [1.0, 3.0]);
        assert_eq!(greatest_ahead(&[], 3), [0f32; 0]);
    }

    #[test]
    fn a_trajectory_that_forgets_says_the_same() {
        let mut all = Trajectory::default();
        for tick in 0..10 {
            all.tick(tick, &Order { shares: vec![], wishes: vec![] }, tick as f64, 1.0, 0.5);
        }
        let mut late = all.clone();
        late.forget_before(4);
        assert_eq!(late.usd(4, 7), all.usd(4, 7));
        assert_eq!(late.usd(8, 99), 7.0 + 8.0);
        assert_eq!((late.end(), late.amiss(9)), (10, 0.5));
        late.forget_before(99);
        assert_eq!((late.end(), late.usd(10, 10)), (10, 0.0));
    }
}
