//! The threshold rule: leave when the other side is cheaper by `shift_at`, return when that gap has closed below
//! `return_at`, never within `hold`.

use std::time::Duration;

use crate::model::{Action, Reason, Share};

use super::{
    DRIFT, Outcome, SHARE_EPSILON,
    allocate::{cheapest, close, largest, repair},
    site::Site,
    state::State,
};

/// What the load that would move costs here and there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// USD per hour that could be shed where the load is.
    pub here_usd_per_hour: f64,
    /// USD per hour that it would add at the other side.
    pub there_usd_per_hour: f64,
    /// USD per hour that are saved there, with what rules prefer counted as cheaper; negative when the other side is dearer.
    pub saving_usd_per_hour: f64,
    /// The saving as a part of what the load costs where it is, counted in the same way.
    pub gap: f64,
}

impl Comparison {
    /// The same comparison with the sides named the other way round; the gap stays the part of what the first side costs.
    fn turned(self) -> Comparison {
        Comparison {
            here_usd_per_hour: self.there_usd_per_hour,
            there_usd_per_hour: self.here_usd_per_hour,
            saving_usd_per_hour: -self.saving_usd_per_hour,
            gap: self.gap,
        }
    }
}

/// Compares over the load that would move from `here` to `there`: only what can be shed counts, so two clusters whose paid
/// minimum covers the traffic have no gap, whatever their prices. `None` when a cost involved is unknown.
pub(super) fn compare(sites: &[Site], here: &[f64], there: &[f64]) -> Option<Comparison> {
    let (mut shed, mut added) = (0.0, 0.0);
    let (mut shed_counted, mut added_counted) = (0.0, 0.0);
    for (site, (here, there)) in sites.iter().zip(here.iter().zip(there)) {
        if (here - there).abs() <= SHARE_EPSILON {
            continue;
        }
        let change = site.usd_per_hour(*there)? - site.usd_per_hour(*here)?;
        if there < here {
            shed -= change;
            shed_counted -= change * site.counted;
        } else {
            added += change;
            added_counted += change * site.counted;
        }
    }
    let gap = if shed_counted > 0.0 {
        1.0 - added_counted / shed_counted
    } else if added_counted > 0.0 {
        // Leaving saves nothing and arriving costs: dearer without bound. -1 says "twice as dear", enough for any rule.
        -1.0
    } else {
        0.0
    };
    let saving_usd_per_hour = shed_counted - added_counted;
    Some(Comparison { here_usd_per_hour: shed, there_usd_per_hour: added, saving_usd_per_hour, gap })
}

/// The site that gains, or with swapped arguments loses, most between two allocations.
pub(super) fn gains_most<'s, 'a>(sites: &'s [Site<'a>], from: &[f64], to: &[f64]) -> Option<&'s Site<'a>> {
    // A difference that is only rounding is no gain.
    let gain = |(to, from): (&f64, &f64)| if to - from > SHARE_EPSILON { to - from } else { 0.0 };
    let gains: Vec<f64> = to.iter().zip(from).map(gain).collect();
    largest(sites, &gains)
}

/// Moves `state.plan` if the rule says so; says why or why not.
pub(super) fn consider(
    (shift_at, return_at): (Share, Share),
    sites: &[Site],
    state: &mut State,
    remaining: Duration,
) -> Outcome {
    if let Some(outcome) = consider_return(sites, state, return_at, remaining) {
        return outcome;
    }
    let here = repair(sites, &state.plan_now(sites), &state.target);
    let there = cheapest(sites, Some(&here));
    // A percent here or there is not worth a move, whatever its price.
    let change = (!close(&here, &there, DRIFT)).then(|| gains_most(sites, &here, &there)).flatten();
    let Some((to, comparison)) = change.zip(compare(sites, &here, &there)) else {
        return away(sites, state, &here, return_at).unwrap_or_else(|| Outcome::stay(nothing_cheaper(sites)));
    };
    let to = to.view.backend.id.clone();
    let gap = comparison.gap;
    let outcome = |action, reason| Outcome { action, reason, comparison: Some(comparison) };
    if comparison.here_usd_per_hour <= 0.0 {
        return outcome(Action::Stay, Reason::NothingToSave);
    }
    if gap < shift_at.get() - 1e-9 {
        return match away(sites, state, &here, return_at) {
            Some(away) => away,
            None if gap <= 0.0 => outcome(Action::Stay, Reason::Cheapest),
            None => outcome(Action::Stay, Reason::GapBelowThreshold { to, gap, threshold: shift_at }),
        };
    }
    if !remaining.is_zero() {
        return outcome(Action::Stay, Reason::Holding { to, gap, remaining });
    }
    let from = gains_most(sites, &there, &here).map_or_else(|| to.clone(), |s| s.view.backend.id.clone());
    if state.home.is_none() {
        state.home = Some(state.plan.clone());
        state.home_fill.clone_from(&state.fill);
    }
    state.plan_for(sites, &there);
    outcome(Action::Shift, Reason::GapReached { from, to, gap, threshold: shift_at })
}

/// While away: how much cheaper the present side is than home. `None` at home, or when it cannot be told.
fn away(sites: &[Site], state: &State, here: &[f64], return_at: Share) -> Option<Outcome> {
    let home = state.home_now(sites)?;
    let comparison = compare(sites, &home, here)?;
    let home = largest(sites, &home)?.view.backend.id.clone();
    let reason = Reason::Away { home, gap: comparison.gap, threshold: return_at };
    // The load is here, not at home.
    Some(Outcome { action: Action::Stay, reason, comparison: Some(comparison.turned()) })
}

/// Returns home when the gap for which traffic left has closed. `None` when that is not the question.
fn consider_return(
    sites: &[Site],
    state: &mut State,
    return_at: Share,
    remaining: Duration,
) -> Option<Outcome> {
    let left = state.home_now(sites)?;
    let here = repair(sites, &state.plan_now(sites), &state.target);
    // Home as it could be now: some of it may be down or full.
    let home = repair(sites, &left, &here);
    if close(&here, &home, SHARE_EPSILON) {
        // Either this is home, or home cannot take anything back now.
        if close(&state.plan_now(sites), &left, SHARE_EPSILON) {
            state.home = None;
        }
        return None;
    }
    let comparison = compare(sites, &home, &here)?;
    if comparison.gap >= return_at.get() {
        return None;
    }
    let to = gains_most(sites, &here, &home)?.view.backend.id.clone();
    let from = gains_most(sites, &home, &here)?.view.backend.id.clone();
    let gap = comparison.gap;
    if !remaining.is_zero() {
        let way_back = compare(sites, &here, &home)?;
        let reason = Reason::Holding { to, gap: way_back.gap, remaining };
        return Some(Outcome { action: Action::Stay, reason, comparison: Some(way_back) });
    }
    state.plan = state.home.take().unwrap_or(home);
    state.fill = std::mem::take(&mut state.home_fill);
    let reason = Reason::GapClosed { from, to, gap, threshold: return_at };
    Some(Outcome { action: Action::Return, reason, comparison: Some(comparison.turned()) })
}

/// Nothing is cheaper, or it cannot be told because a cost is missing.
pub(super) fn nothing_cheaper(sites: &[Site]) -> Reason {
    let unknown = sites.iter().filter(|s| s.may_serve).find_map(|s| s.missing.map(|m| (s, m)));
    match unknown {
        Some((site, missing)) => {
            Reason::CostUnknown { backend: site.view.backend.id.clone(), what: missing.to_string() }
        }
        None => Reason::Cheapest,
    }
}
