//! What is kept ready so that the loss of a cloud or a region can be borne.
//!
//! For each domain the part of its load that shall be served at once is given to the cheapest of the others, as an evacuation
//! would. Each backend keeps ready the most that any one loss would bring it: two domains are not lost at once.

use super::{SHARE_EPSILON, allocate, site::Site, state::State};
use crate::model::{NMinusOne, Policy, Redundancy};

/// By this part a backend that keeps a reserve counts as cheaper than it is: where it is kept does not change for a cent, since
/// both sides run while it does.
const STAYS_FOR: f64 = 0.15;

/// What would be if one domain were lost.
struct Loss {
    domain: String,
    /// Share of the demand that it serves, or is to serve.
    inside: f64,
    /// Share of the demand that the others cannot take, whatever they prepare.
    missing: f64,
    /// Share of the demand for which they should be ready, and are not.
    unready: f64,
    /// The share that each backend should be ready to take.
    reserve: Vec<f64>,
}

/// Sets `state.reserve`, and says what the worst loss would mean; `None` where the policy does not ask.
pub(super) fn keep_reserve(
    policy: &Policy,
    sites: &[Site],
    state: &mut State,
    demand_rps: f64,
) -> Option<Redundancy> {
    let kept = std::mem::take(&mut state.reserve);
    let wanted = policy.n_minus_one?;
    let domains: Vec<String> = sites.iter().map(|site| wanted.domain.of(&site.view.backend)).collect();
    let has: Vec<f64> = sites
        .iter()
        .zip(state.target.iter().zip(&state.shares))
        .map(|(site, (target, share))| if site.may_serve { target.max(*share) } else { 0.0 })
        .collect();
    let mut losses: Vec<Loss> = Vec::new();
    for domain in &domains {
        if losses.iter().all(|loss| loss.domain != *domain) {
            let lost: Vec<bool> = domains.iter().map(|of| of == domain).collect();
            losses.push(lose(wanted, sites, &has, &state.shares, &kept, (domain, &lost)));
        }
    }
    let reserve = |place: usize| losses.iter().map(|loss| loss.reserve[place]).fold(0.0, f64::max);
    state.reserve = (0..sites.len()).map(reserve).collect();
    let rank = |loss: &Loss| [loss.missing, loss.unready, loss.inside];
    let worst =
        losses.iter().max_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal))?;
    let kept = sites.iter().zip(has.iter().zip(&state.reserve));
    let usd = kept.map(|(site, (has, reserve))| site.idle_usd_per_hour(*has, *reserve));
    Some(Redundancy {
        domain: worst.domain.clone(),
        missing_rps: worst.missing * demand_rps,
        unready_rps: worst.unready * demand_rps,
        reserve_rps: state.reserve.iter().sum::<f64>() * demand_rps,
        reserve_usd_per_hour: usd.sum(),
    })
}

/// The loss of one domain. `has` is what each backend serves or is to serve, `kept` the reserve so far.
fn lose(
    wanted: NMinusOne,
    sites: &[Site],
    has: &[f64],
    shares: &[f64],
    kept: &[f64],
    (domain, lost): (&str, &[bool]),
) -> Loss {
    let others = || (0..sites.len()).filter(|place| !lost[*place]).map(|place| (place, &sites[place]));
    // Nobody says what one without `replicas` can take: nothing is counted on.
    let counts = |site: &Site| site.may_serve && site.ready_rps.is_some();
    let inside: f64 = (0..sites.len()).filter(|place| lost[*place]).map(|place| has[place]).sum();
    let most: f64 = others().filter(|(_, site)| counts(site)).map(|(_, site)| site.limit).sum();
    let ready: f64 = others()
        .filter(|(_, site)| counts(site))
        .map(|(place, site)| (site.ready_share.min(site.limit) - shares[place]).max(0.0))
        .sum();
    let needed = inside * wanted.ready.get();
    let without: Vec<Site> = sites
        .iter()
        .enumerate()
        .map(|(place, site)| {
            let mut site = site.clone();
            if lost[place] || !counts(&site) {
                site.limit = 0.0;
            }
            if kept.get(place).is_some_and(|share| *share > SHARE_EPSILON) {
                site.counted *= 1.0 - STAYS_FOR;
            }
            site
        })
        .collect();
    let reserve = allocate::standing_in(&without, has, needed);
    let some = |share: f64| if share > SHARE_EPSILON { share } else { 0.0 };
    Loss {
        domain: domain.to_owned(),
        inside,
        missing: some(1.0 - most),
        unready: some(needed - ready),
        reserve,
    }
}
