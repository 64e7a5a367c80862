//! `decide(policy, snapshot, state, now) -> (Decision, State)`: pure, so that production, a simulator and a property
//! test run the same code, and a recorded snapshot replays to the same decision.
//!
//! Two layers. The *plan* is what the policy wants for money: who serves which share when nothing is in the way. The
//! *target* is the plan after repair: what is down, too slow, full or overridden by an operator is taken out, and what it
//! would have served goes to the cheapest of the rest. The *shares* follow the target, at once where they must, by the
//! ramp where they may.
//!
//! Read in this order: [`site`] (what each backend may get and what it costs), [`room`] (what it can take), `pressure` (what it
//! reports of its limit), [`allocate`] (filling from the cheapest upward), [`threshold`] and [`break_even`] (whether to move),
//! [`ramp`] (how fast), `redundancy` (what is kept ready for a loss), and this file (the order of it all). Beside it, [`shadow`]:
//! what constraints cost, and [`turning`]: at which prices it would move.

pub mod allocate;
pub mod break_even;
#[cfg(test)]
mod capacity_tests;
pub mod explain;
mod pressure;
pub mod ramp;
mod redundancy;
pub mod room;
pub mod shadow;
pub mod site;
pub mod state;
#[cfg(test)]
mod tests;
pub mod threshold;
pub mod turning;
#[cfg(test)]
pub(crate) mod worlds;

pub use state::State;

use std::time::Duration;

use crate::model::{
    Action, Cause, Decision, Fallback, OverrideKind, Policy, Reason, Rule, Snapshot, Timestamp, Verdict,
    ruling,
};
use allocate::{close, repair};
use site::Site;
use threshold::Comparison;

/// Differences between shares below this are rounding, not moves.
const SHARE_EPSILON: f64 = 1e-9;

/// A target that differs from the one before by less than this is followed without counting as a move: capacity limits,
/// expressed as shares, drift with the demand.
const DRIFT: f64 = 0.01;

/// Longest time between two decisions that the ramp makes use of. After a longer pause (a suspended machine, a clock set
/// forward) the traffic must not jump by what "should" have moved meanwhile.
const STEP_MAX: Duration = Duration::from_secs(60);

/// Decides where the requests of a route go from `now` on. `state` is what this function returned the last time, or
/// [`State::default`] at first.
pub fn decide(policy: &Policy, snapshot: &Snapshot, state: &State, now: Timestamp) -> (Decision, State) {
    let mut next = state.aligned_to(snapshot);
    let elapsed = next.advance_to(now, STEP_MAX);
    let mut sites = site::survey(policy, snapshot, &mut next, now);

    let step = Step { now, elapsed };
    let wish = make_plan(policy, snapshot, &sites, &mut next, step);
    let fallback = site::impose_overrides(snapshot, &mut sites);
    let outcome = settle(policy, snapshot, &mut sites, &mut next, wish, fallback, step);
    let n_minus_one = redundancy::keep_reserve(policy, &sites, &mut next, snapshot.demand_rps);
    room::follow_capacity(policy, &sites, &mut next, now);

    let decision = Decision {
        at: now,
        policy: policy.id.clone(),
        rule: policy.rule.clone(),
        action: outcome.action,
        reason: outcome.reason,
        gap: outcome.comparison.map(|c| c.gap),
        cost_here_usd_per_hour: outcome.comparison.map(|c| c.here_usd_per_hour),
        cost_there_usd_per_hour: outcome.comparison.map(|c| c.there_usd_per_hour),
        demand_rps: snapshot.demand_rps,
        fallback,
        n_minus_one,
        backends: verdicts(snapshot, &sites, &next),
    };
    (decision, next)
}

/// What to do and why, before it is written down as a [`Decision`].
struct Outcome {
    action: Action,
    reason: Reason,
    comparison: Option<Comparison>,
}

impl Outcome {
    fn stay(reason: Reason) -> Outcome {
        Outcome { action: Action::Stay, reason, comparison: None }
    }
}

/// Time until an optional move is allowed; zero when it is.
fn hold_remaining(policy: &Policy, state: &State, now: Timestamp) -> Duration {
    let Some(moved_at) = state.moved_at else { return Duration::ZERO };
    policy.hold.saturating_sub(now.duration_since(moved_at).unsigned_abs())
}

/// Moves the plan if money says so and nothing forbids it. Overrides do not enter: when they end, the plan still stands.
fn make_plan(
    policy: &Policy,
    snapshot: &Snapshot,
    sites: &[Site],
    state: &mut State,
    Step { now, elapsed }: Step,
) -> Outcome {
    if !state.placed() {
        return place(sites, state);
    }
    if let Some(freeze) = snapshot.overrides.iter().find(|o| o.kind == OverrideKind::Freeze) {
        return Outcome::stay(Reason::Override {
            kind: freeze.kind,
            id: freeze.id.clone(),
            reason: freeze.reason.clone(),
        });
    }
    if let Some((place, hold)) = snapshot.rulings.hold() {
        let backend = sites[place].view.backend.id.clone();
        let (rule, undecided) = (hold.rule.clone(), hold.undecided);
        return Outcome::stay(Reason::RuleHolds { backend, rule, undecided });
    }
    let remaining = hold_remaining(policy, state, now);
    match policy.rule {
        Rule::Threshold { shift_at, return_at } => {
            // Of the other rule, should the policy have had it before: what was added up then is of no use later.
            state.regret_usd.clear();
            threshold::consider((shift_at, return_at), sites, state, remaining)
        }
        Rule::BreakEven { move_usd } => {
            break_even::consider(policy, move_usd, sites, state, Pause { elapsed, remaining })
        }
    }
}

/// Time since the last decision, and until an optional move is allowed.
#[derive(Clone, Copy)]
struct Pause {
    elapsed: Duration,
    remaining: Duration,
}

/// The first placement: all at the lowest marginal cost. Nothing is running yet, so there is nothing to hold or to ramp.
fn place(sites: &[Site], state: &mut State) -> Outcome {
    let known = sites.iter().any(|s| s.may_serve && s.costing.is_some());
    let shares = allocate::cheapest(sites, None);
    state.plan_for(sites, &shares);
    let Some(to) = allocate::largest(sites, &shares) else {
        return Outcome::stay(Reason::NothingEligible);
    };
    let to = to.view.backend.id.clone();
    let reason = if known { Reason::Initial { to } } else { Reason::InitialWithoutPrices { to } };
    Outcome { action: Action::Place, reason, comparison: None }
}

/// Turns the plan into a target and lets the shares follow it: at once where they must, by the ramp where they may.
fn settle(
    policy: &Policy,
    snapshot: &Snapshot,
    sites: &mut [Site],
    state: &mut State,
    wish: Outcome,
    fallback: Fallback,
    step: Step,
) -> Outcome {
    let pins = pins(snapshot, sites);
    bar(sites, state);
    if fallback == Fallback::NothingEligible {
        let served = state.shares.iter().any(|share| *share > 0.0);
        // The target stays: it is where traffic goes when the outage ends.
        state.shares = vec![0.0; sites.len()];
        let action = if served { Action::Evacuate } else { Action::Stay };
        return Outcome { action, reason: Reason::NothingEligible, comparison: None };
    }
    let homecoming = let_back(policy, sites, state, step.now);
    let wanted = repair(sites, &state.plan_now(sites), &state.target);
    let wanted = around_pins(sites, &pins, wanted);
    if wish.action == Action::Place {
        state.shares.clone_from(&wanted);
        state.target = wanted;
        note_spill(sites, ramp::spill(sites, state, &pins));
        return wish;
    }
    if state.shares.iter().sum::<f64>() < SHARE_EPSILON {
        state.shares.clone_from(&wanted);
        state.target = wanted;
        note_spill(sites, ramp::spill(sites, state, &pins));
        return end_of_outage(sites, state);
    }
    // Beneath an operator's order the plan may move while traffic cannot: that is no move.
    let stands = [&state.target, &state.shares].iter().all(|now| close(now, &wanted, SHARE_EPSILON));
    let wish = match standing(snapshot) {
        Some(reason) if stands => Outcome::stay(reason),
        _ => wish,
    };
    let must = must_leave(snapshot, sites, state, &wanted);
    state.target = wanted;
    let before = state.shares.clone();
    ramp::pin(state, &pins);
    ramp::evacuate(sites, state);
    // What is slow, and what nobody else is ready for, stays until somebody is.
    let leaves = !close(&before, &state.shares, SHARE_EPSILON);
    ramp::advance(sites, state, policy.ramp.within(step.elapsed));
    note_spill(sites, ramp::spill(sites, state, &pins));

    state.moving |=
        wish.action != Action::Stay || (must.is_some() && leaves) || homecoming.released.is_some();
    if state.moving {
        state.moved_at = Some(step.now);
        state.moving = !close(&state.shares, &state.target, DRIFT) && is_on_its_way(sites, state);
    }
    if wish.action != Action::Stay {
        return wish;
    }
    if let Some(reason) = must {
        let action = if leaves { Action::Evacuate } else { Action::Stay };
        return Outcome { action, reason, comparison: None };
    }
    let id = |place: usize| sites[place].view.backend.id.clone();
    if let Some(place) = homecoming.released {
        return Outcome {
            action: Action::Restore,
            reason: Reason::Recovered { backend: id(place) },
            comparison: None,
        };
    }
    if let Some((place, remaining)) = homecoming.waiting {
        return Outcome::stay(Reason::RecoveredHolding { backend: id(place), remaining });
    }
    explain_standing(snapshot, sites, wish)
}

/// Notes that these have less than their target since it is more than what is ready there.
fn note_spill(sites: &mut [Site], places: Vec<usize>) {
    for place in places {
        sites[place].held_by.get_or_insert(Cause::Capacity);
    }
}

/// The moment of a decision, and the time since the last one.
#[derive(Clone, Copy)]
struct Step {
    now: Timestamp,
    elapsed: Duration,
}

/// Whether anyone may grow towards its target. Where all who should are held, there is no move to wait for: what is held comes
/// when it is held no longer. One that starts slowly grows.
fn is_on_its_way(sites: &[Site], state: &State) -> bool {
    let gain = |place: usize| state.target[place] - state.shares[place];
    (0..sites.len()).any(|place| {
        gain(place) > SHARE_EPSILON && sites[place].held_by.is_none_or(|c| c == Cause::SlowStart)
    })
}

/// Remembers who may not have its share now. Being full is no such reason: it comes and goes with the demand.
fn bar(sites: &[Site], state: &mut State) {
    for (site, barred) in sites.iter().zip(&mut state.barred) {
        *barred |= site.barred();
    }
}

/// Who comes back.
#[derive(Default)]
struct Homecoming {
    released: Option<usize>,
    waiting: Option<(usize, Duration)>,
}

/// Lets backends that had been barred have their share again, once `hold` allows it. Until then they keep what they have.
fn let_back(policy: &Policy, sites: &mut [Site], state: &mut State, now: Timestamp) -> Homecoming {
    let mut homecoming = Homecoming::default();
    if !state.barred.iter().zip(sites.iter()).any(|(barred, site)| *barred && !site.barred()) {
        return homecoming;
    }
    let due = repair(sites, &state.plan_now(sites), &state.target);
    let remaining = hold_remaining(policy, state, now);
    let outage = state.shares.iter().sum::<f64>() < SHARE_EPSILON;
    for (place, site) in sites.iter_mut().enumerate() {
        if !state.barred[place] || site.barred() {
            continue;
        }
        let has = state.target[place].max(state.shares[place]);
        if due[place] <= has + DRIFT {
            state.barred[place] = false;
        } else if remaining.is_zero() || outage {
            state.barred[place] = false;
            homecoming.released = Some(place);
        } else {
            homecoming.waiting = Some((place, remaining));
            site.wait_at(has);
        }
    }
    homecoming
}

/// What is said when somebody may serve again after nobody could. No move: nothing was running that could be left.
fn end_of_outage(sites: &[Site], state: &State) -> Outcome {
    match allocate::largest(sites, &state.shares) {
        Some(site) => Outcome {
            action: Action::Restore,
            reason: Reason::Recovered { backend: site.view.backend.id.clone() },
            comparison: None,
        },
        None => Outcome::stay(Reason::NothingEligible),
    }
}

/// The strongest reason why shares must leave where they are. Being full is none: that is followed without a word, since a
/// limit that is capacity over demand moves with every request.
fn must_leave(snapshot: &Snapshot, sites: &[Site], state: &State, wanted: &[f64]) -> Option<Reason> {
    // Above its limit, and with somewhere to go: when all are limited, staying is as good as moving.
    let excess = |place: usize| state.shares[place] - sites[place].limit.max(wanted[place]);
    let place = (0..sites.len())
        .filter(|place| sites[*place].barred())
        .filter(|place| excess(*place) > SHARE_EPSILON)
        .max_by(|a, b| excess(*a).total_cmp(&excess(*b)));
    if let Some(site) = place.map(|place| &sites[place]) {
        return Some(leave_reason(snapshot, site, site.limited_by?));
    }
    let pin = snapshot.overrides.iter().find(|o| o.kind == OverrideKind::Pin)?;
    let by_pin = || Reason::Override { kind: pin.kind, id: pin.id.clone(), reason: pin.reason.clone() };
    (!close(wanted, &state.shares, DRIFT)).then(by_pin)
}

/// Why a site is left: the operator's words where an override is the cause, the rule's name where a rule is.
fn leave_reason(snapshot: &Snapshot, site: &Site, cause: Cause) -> Reason {
    if let Some(ruled) = ruling::behind(site.rules, cause) {
        let backend = site.view.backend.id.clone();
        return Reason::Rule { backend, cause, rule: ruled.rule.clone() };
    }
    let kind = match cause {
        Cause::Drained => Some(OverrideKind::Drain),
        Cause::Capped => Some(OverrideKind::Cap),
        _ => None,
    };
    let order = snapshot
        .overrides
        .iter()
        .find(|o| Some(o.kind) == kind && o.concerns(&snapshot.route, &site.view.backend.id));
    match order {
        Some(o) => Reason::Override { kind: o.kind, id: o.id.clone(), reason: o.reason.clone() },
        None => Reason::MustLeave { backend: site.view.backend.id.clone(), cause },
    }
}

/// The strongest override that says where traffic may go.
fn standing(snapshot: &Snapshot) -> Option<Reason> {
    let orders = snapshot.overrides.iter().filter(|o| o.kind != OverrideKind::Freeze);
    let order = orders.min_by_key(|o| o.kind)?;
    Some(Reason::Override { kind: order.kind, id: order.id.clone(), reason: order.reason.clone() })
}

/// While nothing changes, a standing override or outage explains more than the comparison of costs.
fn explain_standing(snapshot: &Snapshot, sites: &[Site], wish: Outcome) -> Outcome {
    if let Some(reason) = standing(snapshot) {
        return Outcome::stay(reason);
    }
    let mut serving = sites.iter().filter(|s| s.may_serve);
    match (serving.next(), serving.next()) {
        (Some(only), None) => Outcome::stay(Reason::OnlyOne { backend: only.view.backend.id.clone() }),
        _ => wish,
    }
}

/// The shares that operators pin; a pinned backend that may not serve is not used. What the others lack for it they get back
/// as after any other order that has ended.
fn pins(snapshot: &Snapshot, sites: &mut [Site]) -> Vec<Option<f64>> {
    let mut fixed = vec![None; sites.len()];
    let mut left: f64 = 1.0;
    for pin in snapshot.overrides.iter().filter(|o| o.kind == OverrideKind::Pin) {
        let Some(index) = sites.iter().position(|s| Some(&s.view.backend.id) == pin.backend.as_ref()) else {
            continue;
        };
        if fixed[index].is_none() && sites[index].may_serve {
            let share = pin.share.map_or(1.0, |s| s.get()).min(sites[index].limit).min(left);
            fixed[index] = Some(share);
            left -= share;
        }
    }
    if fixed.iter().any(Option::is_some) {
        let others = sites.iter_mut().zip(&fixed).filter(|(site, fixed)| fixed.is_none() && site.may_serve);
        others.for_each(|(site, _)| site.pinned_elsewhere());
    }
    fixed
}

/// Puts the pinned shares in place; the rest is divided as before.
fn around_pins(sites: &[Site], pins: &[Option<f64>], wanted: Vec<f64>) -> Vec<f64> {
    if pins.iter().all(Option::is_none) {
        return wanted;
    }
    let left = 1.0 - pins.iter().flatten().sum::<f64>();
    let others: f64 = wanted.iter().zip(pins).filter(|(_, pin)| pin.is_none()).map(|(w, _)| w).sum();
    let scaled: Vec<f64> = wanted
        .iter()
        .zip(pins)
        .map(|(w, pin)| pin.unwrap_or(if others > 0.0 { w * left / others } else { 0.0 }))
        .collect();
    allocate::repair_around(sites, &scaled, pins)
}

/// What the decision says about each backend.
fn verdicts(snapshot: &Snapshot, sites: &[Site], state: &State) -> Vec<Verdict> {
    sites
        .iter()
        .enumerate()
        .map(|(i, site)| Verdict {
            backend: site.view.backend.id.clone(),
            eligible: site.may_serve,
            limited_by: site.kept_by(),
            share: state.shares[i],
            // Of one that may not serve the state remembers a target for the time after; now it has none.
            target: if site.may_serve { state.target[i] } else { 0.0 },
            limit: site.limit,
            planned_rps: match site.may_serve {
                true => {
                    // What is served beyond the target for now, since another is not ready, needs its replicas too.
                    let served = if site.ready_is_seen { state.shares[i] } else { 0.0 };
                    let share = state.target[i].max(site.wished_share).max(served);
                    (share + state.reserved(i)) * snapshot.demand_rps
                }
                false => 0.0,
            },
            ready_rps: site.ready_rps,
            unit_cost: site.costing.map(|c| c.unit),
            average_usd_per_1k: site
                .costing
                .map(|c| c.curve.average(site.view.load_elsewhere_rps + state.shares[i] * site.demand_rps)),
            marginal_usd_per_1k: site
                .costing
                .map(|c| c.curve.marginal(site.view.load_elsewhere_rps + state.shares[i] * site.demand_rps)),
            rules: site.rules.to_vec(),
        })
        .collect()
}
