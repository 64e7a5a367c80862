//! What the requests of one turn of the loop cost, and what they would have cost elsewhere, in avoidable dollars.
//!
//! Two questions, two answers. *What did they cost?* Their part of what each backend costs beyond its paid minimum, at the
//! average of the load they were part of: the parts of all routes add up to the whole. *What would have been spent more or
//! less had they been elsewhere?* The difference that this route makes there, `C(elsewhere + own) - C(elsewhere)` with the
//! backend's [`Curve::usd_per_hour`](crate::cost::Curve::usd_per_hour), less the difference that it makes here: what others
//! send stays where it is. With one route both answers agree.
//!
//! Where a backend could not have served, or not all (it was down, over its objective, full, or an operator said so), what it
//! could not have served costs what it did cost: no saving is counted where there was no choice.

use crate::{
    cost::{self, Costing},
    model::{BackendId, Decision, Offer, PriceState, Snapshot},
    policy::{State, site},
};
use std::time::Duration;

/// Load at which costs are compared when no request arrives, as in decisions.
const DEMAND_MIN_RPS: f64 = 1e-3;

/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// What was not spent because traffic did not stay somewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saved {
    /// USD; negative when it would have been cheaper to stay.
    pub usd: f64,
    /// Whether a price behind it was not fresh.
    pub doubtful: bool,
}

/// The requests of a route that ended in one turn.
#[derive(Debug)]
pub struct Reckoning<'a> {
    snapshot: &'a Snapshot,
    decision: &'a Decision,
    served: &'a [u64],
    costs: Vec<Option<Costing>>,
    fresh: Vec<bool>,
    demand_rps: f64,
    /// What the requests made the clouds charge, beyond what others had made them.
    here_usd: Option<f64>,
    standby_usd_per_hour: f64,
}

impl<'a> Reckoning<'a> {
    /// `served` are the requests that ended at each backend of `snapshot`, `decision` was made from it.
    pub fn new(snapshot: &'a Snapshot, decision: &'a Decision, served: &'a [u64]) -> Reckoning<'a> {
        let bytes = site::response_bytes(snapshot);
        let costs: Vec<Option<Costing>> =
            snapshot.backends.iter().map(|view| cost::cost_of(view, bytes).ok()).collect();
        let is_fresh = |view: &crate::model::BackendView| {
            [(Offer::Spot, &view.spot), (Offer::OnDemand, &view.on_demand)].iter().all(|(offer, price)| {
                let fresh = price.as_ref().is_some_and(|price| price.state == PriceState::Fresh);
                view.backend.managed.is_some() || !view.backend.needs(*offer) || fresh
            })
        };
        let mut reckoning = Reckoning {
            snapshot,
            decision,
            served,
            costs,
            fresh: snapshot.backends.iter().map(is_fresh).collect(),
            demand_rps: snapshot.demand_rps.max(DEMAND_MIN_RPS),
            here_usd: None,
            standby_usd_per_hour: 0.0,
        };
        let shares = decision.backends.iter().map(|verdict| verdict.share);
        let added = shares.enumerate().map(|(index, share)| match served[index] {
            0 => Some(0.0),
            requests => Some(requests as f64 * reckoning.usd_per_request(index, share)?),
        });
        reckoning.here_usd = added.sum();
        reckoning
    }

    /// Counts what replicas cost that a move has left behind: they run on for `hold`, so that the load can come back.
    /// `state` is what the decision left.
    pub fn with_standby(mut self, state: &State, hold: Duration) -> Reckoning<'a> {
        self.standby_usd_per_hour = self.standby(state, hold);
        self
    }

    /// Its backends, in order.
    pub fn backends(&self) -> impl Iterator<Item = &BackendId> {
        self.snapshot.backends.iter().map(|view| &view.backend.id)
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.served.iter().sum()
    }

    /// Requests at one backend.
    pub fn served(&self, index: usize) -> u64 {
        self.served[index]
    }

    /// USD that the requests at a backend cost beyond what is paid anyway; `None` when its cost is unknown.
    pub fn usd(&self, index: usize) -> Option<f64> {
        let per_1k = self.decision.backends.get(index)?.average_usd_per_1k?;
        Some(self.served[index] as f64 / 1000.0 * per_1k)
    }

    /// USD that all requests cost beyond what is paid anyway, those of unknown cost left out.
    pub fn avoidable_usd(&self) -> f64 {
        (0..self.served.len()).filter_map(|index| self.usd(index)).sum()
    }

    /// USD per hour of the replicas that a backend runs whatever is served; `None` when its cost is unknown.
    pub fn minimum_usd_per_hour(&self, index: usize) -> Option<f64> {
        let curve = self.costs[index]?.curve;
        Some(curve.paid_rps * curve.beyond * HOUR / 1000.0)
    }

    /// USD per hour of replicas that a move has left behind.
    pub fn standby_usd_per_hour(&self) -> f64 {
        self.standby_usd_per_hour
    }

    /// USD that the requests would have cost more had they been divided by `shares`; what these do not cover costs what it
    /// did. `None` when a cost is unknown.
    pub fn divided_by(&self, shares: &[f64]) -> Option<f64> {
        let requests = self.requests() as f64;
        let mut there = 0.0;
        for (index, share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
            there += requests * share * self.usd_per_request(index, *share)?;
        }
        Some(there - shares.iter().sum::<f64>() * self.here_usd?)
    }

    /// USD that the requests would have cost more had one backend served as many of them as it could, and how many that are.
    /// `None` when it could serve none, or a cost is unknown.
    pub fn all_at(&self, index: usize) -> Option<(f64, u64)> {
        let possible = self.possible(index);
        if possible <= 0.0 {
            return None;
        }
        let more = self.alone(index, possible)?;
        Some((more, (self.requests() as f64 * possible).round() as u64))
    }

    /// What was not spent because the requests were not all at this backend. `None` when that cannot be told; nothing where
    /// it could not have served.
    pub fn stayed_at(&self, index: usize) -> Option<Saved> {
        let usd = self.alone(index, self.possible(index))?;
        let involved = |(place, requests): (usize, &u64)| (*requests > 0 || place == index).then_some(place);
        let doubtful = self.served.iter().enumerate().filter_map(involved).any(|place| !self.fresh[place]);
        Some(Saved { usd, doubtful })
    }

    /// The backend that would serve all of the route at the least cost, the most of it where none can serve all. `None` when
    /// no cost of a backend that may serve is known.
    pub fn cheapest_alone(&self) -> Option<&BackendId> {
        let able = (0..self.costs.len()).filter(|index| self.possible(*index) > 0.0);
        let ranked = able.filter_map(|index| {
            let possible = self.possible(index);
            // Within the paid minimum all cost the same: then what lies beyond it decides.
            let beyond = self.costs[index]?.unit.total();
            Some((index, -possible, self.usd_per_request(index, possible)?, beyond))
        });
        let best = ranked.min_by(|a, b| {
            a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)).then(a.3.total_cmp(&b.3)).then(a.0.cmp(&b.0))
        })?;
        Some(&self.snapshot.backends[best.0].backend.id)
    }

    /// The share that a backend could have had.
    fn possible(&self, index: usize) -> f64 {
        let verdict = &self.decision.backends[index];
        if verdict.eligible { verdict.limit.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// [`Reckoning::divided_by`] with one backend.
    fn alone(&self, index: usize, share: f64) -> Option<f64> {
        if share <= 0.0 {
            return self.here_usd.map(|_| 0.0);
        }
        let there = self.requests() as f64 * self.usd_per_request(index, share)?;
        Some(share * (there - self.here_usd?))
    }

    /// USD that each of the requests adds when a backend has `share` of them.
    fn usd_per_request(&self, index: usize, share: f64) -> Option<f64> {
        let curve = self.costs[index]?.curve;
        let elsewhere = self.snapshot.backends[index].load_elsewhere_rps;
        let own = share * self.demand_rps;
        if own <= 0.0 {
            return Some(curve.marginal(elsewhere) / 1000.0);
        }
        Some((curve.usd_per_hour(elsewhere + own) - curve.usd_per_hour(elsewhere)) / (own * HOUR))
    }

    /// The route's part of what backends have that no route needs alone: as much as it has of the load on its backends. Of replicas
    /// that stand idle nobody knows whose they were; counted by each route, they would be counted as often as there are routes.
    fn part(&self) -> f64 {
        let own = self.snapshot.demand_rps;
        let others: f64 = self.snapshot.backends.iter().map(|view| view.load_elsewhere_rps).sum();
        if own > 0.0 { own / (own + others) } else { 0.0 }
    }

    /// USD per hour of replicas that moves have left behind, had these led to `state`: the route's part of it.
    pub fn standby(&self, state: &State, hold: Duration) -> f64 {
        let now = self.decision.at;
        if state.moved_at.is_none_or(|at| now.duration_since(at).unsigned_abs() > hold) {
            return 0.0;
        }
        let of = |(index, view): (usize, &crate::model::BackendView)| {
            let (curve, replicas) = (self.costs[index]?.curve, view.backend.replicas.as_ref()?);
            let warmth = state.warmth.get(index).filter(|warmth| warmth.idle_since.is_some())?;
            let share = state.shares.get(index)?.max(*state.target.get(index)?);
            let load = share * self.demand_rps + view.load_elsewhere_rps;
            let capacity = replicas.capacity_rps(warmth.ready);
            Some((capacity - load.max(curve.paid_rps)).max(0.0) * curve.beyond * HOUR / 1000.0)
        };
        self.part() * self.snapshot.backends.iter().enumerate().filter_map(of).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Health, Replicas},
        policy::worlds::{World, at},
        record::{Account, Stay},
    };

    /// a at 3.6 USD an hour, b at 7.2: 0.1 and 0.2 USD per 1,000 requests. All traffic is at a.
    fn world() -> (World, Decision) {
        let mut world = World::new(&[("a", 3.6), ("b", 7.2)]);
        world.snapshot.demand_rps = 100.0;
        let decision = world.tick();
        assert_eq!(world.share("a"), 1.0);
        (world, decision)
    }

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap_or_else(|| panic!("unknown instead of {expected}"));
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn what_was_spent_and_what_it_would_have_been_elsewhere() {
        let (world, decision) = world();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
        close(reckoning.usd(0), 0.1);
        close(reckoning.all_at(1).map(|(usd, _)| usd), 0.1);
        close(reckoning.stayed_at(0).map(|saved| saved.usd), 0.0);
        close(reckoning.divided_by(&[0.5, 0.5]), 0.05);
        assert_eq!(reckoning.cheapest_alone().unwrap().as_str(), "a");
    }

    #[test]
    fn what_is_paid_anyway_is_neither_spent_nor_saved() {
        let (mut world, _) = world();
        // A minimum of ten replicas serves all of the 100 requests a second, at both.
        for name in ["a", "b"] {
            world.configure(name, |backend| backend.replicas.as_mut().unwrap().min = 10);
        }
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
        close(reckoning.usd(0), 0.0);
        close(reckoning.all_at(1).map(|(usd, _)| usd), 0.0);
        close(reckoning.minimum_usd_per_hour(0), 36.0);
        // Equal at this load: the one whose further replicas are cheaper.
        assert_eq!(reckoning.cheapest_alone().unwrap().as_str(), "a");
    }

    #[test]
    fn no_saving_where_there_was_no_choice() {
        let (mut world, _) = world();
        world.set_health("b", Health::Unhealthy);
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
        assert_eq!(reckoning.all_at(1), None);
        assert_eq!(reckoning.stayed_at(1), Some(Saved { usd: 0.0, doubtful: false }));

        // A quarter of the load is all that b could have.
        world.set_health("b", Health::Healthy);
        world.configure("b", |backend| {
            backend.replicas = Some(Replicas { min: 0, max: 2, rps: 12.5, cold_start: Duration::ZERO });
        });
        world.set_price("b", 9.0);
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
        let (more, possible) = reckoning.all_at(1).unwrap();
        close(Some(more), 250.0 * (0.2 - 0.1) / 1000.0);
        assert_eq!(possible, 250);
    }

    #[test]
    fn an_unknown_cost_is_no_saving_and_is_counted() {
        let (mut world, _) = world();
        world.view_mut("b").spot = None;
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 10]);
        assert_eq!((reckoning.usd(1), reckoning.all_at(0), reckoning.stayed_at(0)), (None, None, None));
        let mut account = Account {
            stay: Some(Stay { backend: "a".parse().unwrap(), since: at(0) }),
            ..Account::default()
        };
        account.add(&reckoning, 1.0);
        assert_eq!((account.uncompared, account.backends[1].unpriced, account.saved_usd), (1010, 10, 0.0));
        close(Some(account.usd()), 0.1);
    }

    #[test]
    fn what_rests_on_prices_that_are_not_fresh_is_in_doubt() {
        let (mut world, _) = world();
        world.view_mut("b").spot.as_mut().unwrap().state = PriceState::Held;
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
        let mut account = Account {
            stay: Some(Stay { backend: "b".parse().unwrap(), since: at(0) }),
            ..Account::default()
        };
        account.add(&reckoning, 1.0);
        close(Some(account.saved_usd), 0.1);
        close(Some(account.doubtful_usd), 0.1);
    }

    /// 100 requests a second elsewhere are within or beyond a minimum: the route pays its part, and makes the difference.
    #[test]
    fn with_other_routes_the_part_and_the_difference_are_not_the_same() {
        let (mut world, _) = world();
        world.configure("a", |backend| backend.replicas.as_mut().unwrap().min = 10);
        world.view_mut("a").load_elsewhere_rps = 100.0;
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[1000, 0]);
        close(reckoning.usd(0), 0.05);
        // At b it would have cost 0.2; here it makes a difference of 0.1, since the minimum serves the others.
        close(reckoning.all_at(1).map(|(usd, _)| usd), 0.1);
    }

    #[test]
    fn replicas_that_a_move_left_behind_are_taken_off_the_saving() {
        let (mut world, _) = world();
        for name in ["a", "b"] {
            world.configure(name, |backend| {
                let replicas = backend.replicas.as_mut().unwrap();
                replicas.cold_start = Duration::from_secs(1);
            });
        }
        world.run(10);
        world.set_price("b", 1.8);
        world.run(60);
        assert!((world.share("b") - 1.0).abs() < 1e-9, "{}", world.share("b"));
        let decision = world.tick();
        let reckoning = Reckoning::new(&world.snapshot, &decision, &[0, 1000]);
        let hold = world.policy.hold;
        // The ten replicas at a still run, at 3.6 USD an hour each.
        let standby = reckoning.with_standby(&world.state, hold).standby_usd_per_hour();
        close(Some(standby), 36.0);
        // Three routes moved together: each takes its part, and the one that nobody uses takes none.
        for (own, others, usd) in [(40.0, 60.0, 14.4), (60.0, 40.0, 21.6), (0.0, 100.0, 0.0)] {
            let mut shared = world.snapshot.clone();
            shared.demand_rps = own;
            shared.backends[1].load_elsewhere_rps = others;
            let part = Reckoning::new(&shared, &decision, &[0, 1000]).with_standby(&world.state, hold);
            close(Some(part.standby_usd_per_hour()), usd);
        }
        world.run(hold.as_secs() as usize + 10);
        let decision = world.tick();
        let later = Reckoning::new(&world.snapshot, &decision, &[0, 1000]).with_standby(&world.state, hold);
        close(Some(later.standby_usd_per_hour()), 0.0);
    }
}
