//! What is kept ready so that the loss of a cloud or a region can be borne.
//!
//! For each domain the part of its load that shall be served at once is given to the cheapest of the others, as an evacuation
//! would. Each backend keeps ready the most that any one loss would bring it: two domains are not lost at once.

use std::cmp::Ordering;

use super::{SHARE_EPSILON, allocate::StandIns, site::Site, state::State};
use crate::model::{Backend, NMinusOne, Policy, Redundancy};

/// By this part a backend that keeps a reserve counts as cheaper than it is: where it is kept does not change for a cent, since
/// both sides run while it does.
const STAYS_FOR: f64 = 0.15;

/// What would be if one domain were lost, in shares of the demand.
struct Loss<'a> {
    /// One of its backends.
    of: &'a Backend,
    /// What it serves, or is to serve.
    inside: f64,
    /// What the others cannot take, whatever they prepare.
    missing: f64,
    /// For how much they should be ready, and are not.
    unready: f64,
}

/// Sets `state.reserve`, and says what the worst loss would mean; `None` where the policy does not ask.
pub(super) fn keep_reserve(
    policy: &Policy,
    sites: &[Site],
    state: &mut State,
    demand_rps: f64,
) -> Option<Redundancy> {
    let kept = std::mem::take(&mut state.reserve);
    let NMinusOne { domain, ready } = policy.n_minus_one?;
    let has: Vec<f64> = sites
        .iter()
        .zip(state.target.iter().zip(&state.shares))
        .map(|(site, (target, share))| if site.may_serve { target.max(*share) } else { 0.0 })
        .collect();
    // Nobody says what one without `replicas` can take: nothing is counted on.
    let counts = |site: &Site| site.may_serve && site.ready_rps.is_some();
    let limits: Vec<f64> = sites.iter().map(|site| if counts(site) { site.limit } else { 0.0 }).collect();
    let spare =
        |(place, site): (usize, &Site)| (site.ready_share.min(limits[place]) - state.shares[place]).max(0.0);
    let spares: Vec<f64> = sites.iter().enumerate().map(spare).collect();
    let stays = |share: &f64| if *share > SHARE_EPSILON { 1.0 - STAYS_FOR } else { 1.0 };
    let counted: Vec<f64> = kept.iter().map(stays).collect();
    let stand_ins = StandIns::new(sites, &has, &limits, &counted);

    state.reserve = vec![0.0; sites.len()];
    let mut losses: Vec<Loss> = Vec::new();
    for site in sites {
        let of = &*site.view.backend;
        if losses.iter().any(|loss| domain.has_both(loss.of, of)) {
            continue;
        }
        let lost: Vec<bool> = sites.iter().map(|site| domain.has_both(&site.view.backend, of)).collect();
        let sum = |figures: &[f64], inside: bool| -> f64 {
            figures.iter().zip(&lost).filter(|(_, lost)| **lost == inside).map(|(figure, _)| figure).sum()
        };
        let inside = sum(&has, true);
        let needed = inside * ready.get();
        let some = |share: f64| if share > SHARE_EPSILON { share } else { 0.0 };
        let (missing, unready) = (some(1.0 - sum(&limits, false)), some(needed - sum(&spares, false)));
        losses.push(Loss { of, inside, missing, unready });
        let taken = stand_ins.take(needed, |place| lost[place]);
        state.reserve.iter_mut().zip(taken).for_each(|(reserve, taken)| *reserve = reserve.max(taken));
    }
    let rank = |loss: &Loss| (loss.missing, loss.unready, loss.inside);
    let worst = losses.iter().max_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(Ordering::Equal))?;
    let kept = sites.iter().zip(has.iter().zip(&state.reserve));
    let usd = kept.map(|(site, (has, reserve))| site.idle_usd_per_hour(*has, *reserve));
    Some(Redundancy {
        domain: domain.of(worst.of),
        missing_rps: worst.missing * demand_rps,
        unready_rps: worst.unready * demand_rps,
        reserve_rps: state.reserve.iter().sum::<f64>() * demand_rps,
        reserve_usd_per_hour: usd.sum(),
    })
}
