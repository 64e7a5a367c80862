//! What each constraint that binds costs: the shadow price, found by dividing the demand anew with that one constraint lifted.
//!
//! It is the difference between two optima, the cheapest division with all constraints and the cheapest without the one. What
//! waits for a gap, for `hold` or for the ramp is not in it: that is no constraint but a move that has not been made. Lifting two
//! at once may save more, or less, than the sum.

use std::sync::Arc;

use super::{SHARE_EPSILON, allocate, around_pins, pins, redundancy, site, state::State};
use crate::model::{
    BackendView, BindingCost, Cause, Constraint, Effect, Fallback, Live, OverrideKind, Policy, Share,
    Snapshot,
};

/// Most that are named: who reads more than a few lines?
const NAMED_MAX: usize = 5;

/// Most that are tried: each asks for a division among all backends.
const TRIED_MAX: usize = 100;

/// What is not worth a line, in USD per day.
const USD_PER_DAY_MIN: f64 = 0.005;

/// Hours in a day.
const DAY: f64 = 24.0;

/// What the constraints that bind cost, dearest first. `state` is what the decision about this snapshot returned.
pub fn binding_costs(policy: &Policy, snapshot: &Snapshot, state: &State) -> Vec<BindingCost> {
    let world =
        World { policy: policy.clone(), snapshot: snapshot.clone(), state: state.aligned_to(snapshot) };
    let Some(bound) = world.divide() else { return Vec::new() };
    let mut costs: Vec<BindingCost> = lifts(&world, &bound)
        .into_iter()
        .take(TRIED_MAX)
        .filter_map(|lift| {
            let free = lift.applied_to(&world).divide()?;
            let usd_per_day = bound.saved_by(&free)? * DAY;
            let Lift { constraint, name, places } = lift;
            let backend = match places.as_slice() {
                [place] => Some(snapshot.backends[*place].backend.id.clone()),
                _ => None,
            };
            Some(BindingCost { constraint, name, backend, usd_per_day })
        })
        .collect();
    if let Some(usd_per_hour) = bound.reserve_usd_per_hour {
        let usd_per_day = usd_per_hour * DAY;
        costs.push(BindingCost { constraint: Constraint::NMinusOne, name: None, backend: None, usd_per_day });
    }
    costs.retain(|cost| cost.usd_per_day >= USD_PER_DAY_MIN);
    costs.sort_by(|a, b| b.usd_per_day.total_cmp(&a.usd_per_day));
    costs.truncate(NAMED_MAX);
    costs
}

/// What a division of the demand depends on.
#[derive(Clone)]
struct World {
    policy: Policy,
    snapshot: Snapshot,
    state: State,
}

/// The cheapest division of the demand within all constraints.
struct Division {
    /// USD per hour at the backends whose cost is known.
    usd_per_hour: f64,
    /// USD per hour of what is kept ready beside it in case a cloud is lost. It divides nothing, so it is not in what other
    /// constraints cost: one that leaves nobody to be ready would seem to save.
    reserve_usd_per_hour: Option<f64>,
    /// The shares of the others.
    unknown: Vec<f64>,
    shares: Vec<f64>,
    limits: Vec<f64>,
    over_slo: Vec<bool>,
    /// What one more request costs where it is not paid anyway, in USD per 1,000.
    unit: Vec<f64>,
}

impl Division {
    /// USD per hour that `free` costs less; `None` where that depends on a cost that is not known.
    fn saved_by(&self, free: &Division) -> Option<f64> {
        let same = allocate::close(&self.unknown, &free.unknown, SHARE_EPSILON);
        same.then_some(self.usd_per_hour - free.usd_per_hour)
    }
}

impl World {
    /// `None` if nobody may serve.
    fn divide(&self) -> Option<Division> {
        let (snapshot, mut state) = (&self.snapshot, self.state.clone());
        let mut sites = site::survey(&self.policy, snapshot, &mut state, snapshot.at);
        let over_slo = sites.iter().map(|site| site.limited_by == Some(Cause::OverSlo)).collect();
        if site::impose_overrides(snapshot, &mut sites) == Fallback::NothingEligible {
            return None;
        }
        let pins = pins(snapshot, &mut sites);
        let shares = around_pins(&sites, &pins, allocate::cheapest(&sites, Some(&self.state.shares)));
        state.target.clone_from(&shares);
        state.shares.clone_from(&shares);
        let kept = redundancy::keep_reserve(&self.policy, &sites, &mut state, snapshot.demand_rps);
        let reserve_usd_per_hour = kept.and_then(|kept| kept.reserve_usd_per_hour);
        let mut usd_per_hour = 0.0;
        let mut unknown = Vec::new();
        for (site, share) in sites.iter().zip(&shares) {
            match site.usd_per_hour(*share) {
                Some(usd) => usd_per_hour += usd,
                None => unknown.push(*share),
            }
        }
        let limits = sites.iter().map(|site| site.limit).collect();
        let unit = sites.iter().map(|site| site.costing.map_or(f64::MAX, |c| c.unit.total())).collect();
        Some(Division { usd_per_hour, reserve_usd_per_hour, unknown, shares, limits, over_slo, unit })
    }

    fn change(&mut self, place: usize, change: impl FnOnce(&mut BackendView)) {
        change(&mut self.snapshot.backends[place]);
    }
}

/// A constraint that may be lifted.
struct Lift {
    constraint: Constraint,
    name: Option<String>,
    /// The backends it is about; empty for all.
    places: Vec<usize>,
}

impl Lift {
    fn applied_to(&self, world: &World) -> World {
        let mut world = world.clone();
        match self.constraint {
            Constraint::Drain | Constraint::Cap | Constraint::Pin => {
                world.snapshot.overrides.retain(|o| Some(&o.id) != self.name.as_ref());
            }
            Constraint::Rule => {
                for ruled in &mut world.snapshot.rulings.backends {
                    ruled.retain(|ruled| Some(&*ruled.rule) != self.name.as_deref());
                }
            }
            Constraint::KeepWarm => world.policy.keep_warm = Share::ZERO,
            // It divides nothing.
            Constraint::NMinusOne => {}
            Constraint::Capacity => self.places.iter().for_each(|place| {
                world.state.warmth[*place].stalled_at = None;
                world.change(*place, |view| {
                    let replicas = &mut Arc::make_mut(&mut view.backend).replicas;
                    replicas.iter_mut().for_each(|replicas| replicas.max = u32::MAX);
                });
            }),
            Constraint::Slo => self.places.iter().for_each(|place| {
                world.state.over_slo_at[*place] = None;
                world.change(*place, |view| (view.live, view.probe) = (Live::default(), None));
            }),
        }
        world
    }
}

/// The constraints that may bind: those of the policy and of operators, then backends that are full or slow, the cheapest first.
fn lifts(world: &World, bound: &Division) -> Vec<Lift> {
    let World { policy, snapshot, .. } = world;
    let mut lifts = Vec::new();
    if policy.keep_warm > Share::ZERO {
        lifts.push(Lift { constraint: Constraint::KeepWarm, name: None, places: Vec::new() });
    }
    for order in &snapshot.overrides {
        let constraint = match order.kind {
            OverrideKind::Drain => Constraint::Drain,
            OverrideKind::Cap => Constraint::Cap,
            OverrideKind::Pin => Constraint::Pin,
            OverrideKind::Freeze => continue,
        };
        let is_it = |view: &BackendView| Some(&view.backend.id) == order.backend.as_ref();
        let places = snapshot.backends.iter().position(is_it).into_iter().collect();
        lifts.push(Lift { constraint, name: Some(order.id.clone()), places });
    }
    lifts.extend(rules(snapshot));
    let mut places: Vec<usize> = (0..snapshot.backends.len()).collect();
    places.sort_by(|a, b| bound.unit[*a].total_cmp(&bound.unit[*b]));
    for place in places {
        let one = |constraint| Lift { constraint, name: None, places: vec![place] };
        if bound.over_slo[place] {
            lifts.push(one(Constraint::Slo));
        } else if bound.shares[place] >= bound.limits[place] - SHARE_EPSILON && bound.limits[place] < 1.0 {
            lifts.push(one(Constraint::Capacity));
        }
    }
    lifts
}

/// Every rule that bears on a division, with the backends that it binds.
fn rules(snapshot: &Snapshot) -> Vec<Lift> {
    let mut lifts: Vec<Lift> = Vec::new();
    for (place, ruled) in snapshot.rulings.backends.iter().enumerate() {
        for ruled in ruled.iter().filter(|ruled| !matches!(ruled.effect, Effect::Allow | Effect::Hold)) {
            match lifts.iter_mut().find(|lift| lift.name.as_deref() == Some(&*ruled.rule)) {
                Some(lift) => lift.places.push(place),
                None => lifts.push(Lift {
                    constraint: Constraint::Rule,
                    name: Some(ruled.rule.to_string()),
                    places: vec![place],
                }),
            }
        }
    }
    lifts
}
