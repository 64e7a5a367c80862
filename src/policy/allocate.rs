//! Filling the demand from the cheapest marginal cost upward. For rising step costs this greedy filling is the optimum of
//! the linear program.

use super::{SHARE_EPSILON, room::FULL, site::Site};
use crate::model::Cause;

/// A piece of a backend's cost curve: `share` of the demand at one marginal cost.
struct Step {
    site: usize,
    /// USD per 1,000 requests.
    marginal: f64,
    /// What the piece after this one costs: breaks ties between pieces that are paid anyway.
    then: f64,
    share: f64,
    /// Whether replicas that are paid anyway serve it.
    paid: bool,
}

/// The cheapest allocation: every backend that may serve keeps its floor, the rest goes where one more request costs least.
///
/// `stay`: shares that a backend keeps whose cost is unknown or not trusted (it must not become attractive, and nothing says
/// what leaving it would save); `None` at the first placement, where backends of unknown cost come last, in the operator's
/// order.
pub fn cheapest(sites: &[Site], stay: Option<&[f64]>) -> Vec<f64> {
    let mut shares = base(sites, stay);
    fill(sites, &mut shares, Filling { untrusted_too: stay.is_none(), ..Filling::within(&limits(sites)) });
    shares
}

/// What the allocation would be if `favourite` were the place to be: what is paid anyway is used everywhere, the rest is the
/// favourite's, and what does not fit there goes to the cheapest. `stay` as for [`cheapest`].
pub fn favouring(sites: &[Site], stay: &[f64], favourite: usize) -> Vec<f64> {
    let mut shares = base(sites, Some(stay));
    let limits = limits(sites);
    let filling = Filling { favourite: Some(favourite), untrusted_too: false, ..Filling::within(&limits) };
    fill(sites, &mut shares, filling);
    shares
}

/// What every backend has before anything is given to the cheapest.
fn base(sites: &[Site], stay: Option<&[f64]>) -> Vec<f64> {
    let mut shares: Vec<f64> = sites
        .iter()
        .enumerate()
        .map(|(i, site)| match (site.trusted_costing(), stay) {
            (None, Some(stay)) => stay[i].min(site.limit),
            _ => site.floor.min(site.limit),
        })
        .collect();
    let sum: f64 = shares.iter().sum();
    if sum > 1.0 {
        shares.iter_mut().for_each(|share| *share /= sum);
    }
    shares
}

/// What an allocation means beyond this moment: a backend that is filled to its capacity, or to a rule's cap, is meant to have
/// all it can take. Capacity as a share moves with the demand, and a cap with the hour; written down as a number either would
/// ask for a move at every change.
pub fn intent(sites: &[Site], shares: &[f64]) -> Vec<f64> {
    let full = |site: &Site, share: f64| {
        let for_now = matches!(site.limited_by, Some(Cause::Capacity | Cause::RuleCap));
        for_now && share > 0.0 && share >= site.limit - SHARE_EPSILON
    };
    sites.iter().zip(shares).map(|(site, share)| if full(site, *share) { 1.0 } else { *share }).collect()
}

/// The share that the paid minimum of a backend serves for nothing but what every request costs there, with a reserve: filled to
/// the brim, chance alone would make the autoscaler add a node, and keep it.
fn paid_share(site: &Site) -> f64 {
    let paid_rps = site.trusted_costing().map_or(0.0, |costing| costing.curve.paid_rps);
    ((paid_rps * FULL - site.view.load_elsewhere_rps) / site.demand_rps).clamp(0.0, 1.0)
}

/// Which backends an allocation uses for no more than their paid minimum. Never all of them: the one that has most is where the
/// rest is meant to be, should the demand grow.
pub fn fills(sites: &[Site], shares: &[f64]) -> Vec<bool> {
    let fills = |(site, share): (&Site, &f64)| *share > 0.0 && *share <= paid_share(site) + SHARE_EPSILON;
    let mut all: Vec<bool> = sites.iter().zip(shares).map(fills).collect();
    let is_main = |place: usize| !all[place] && shares[place] > sites[place].floor + SHARE_EPSILON;
    if !(0..sites.len()).any(is_main) {
        let most = (0..sites.len()).rev().max_by(|a, b| shares[*a].total_cmp(&shares[*b]));
        most.into_iter().for_each(|most| all[most] = false);
    }
    all
}

/// A plan for the demand of now: what it uses for their paid minimum gets that, as far as it now goes; the others divide the
/// rest as they did, above what every one of them keeps anyway.
pub fn at_present(sites: &[Site], plan: &[f64], fill: &[bool]) -> Vec<f64> {
    let is_fill = |place: usize| fill.get(place) == Some(&true);
    if !(0..plan.len()).any(is_fill) {
        return plan.to_vec();
    }
    let kept = |place: usize| match is_fill(place) {
        true => paid_share(&sites[place]).max(sites[place].floor).min(sites[place].limit),
        false => sites[place].floor.min(plan[place]),
    };
    let beyond = |place: usize| if is_fill(place) { 0.0 } else { plan[place] - kept(place) };
    let (all_kept, all_beyond) = (0..plan.len()).fold((0.0, 0.0), |(k, b), i| (k + kept(i), b + beyond(i)));
    let planned: f64 = (0..plan.len()).filter(|place| !is_fill(*place)).map(|place| plan[place]).sum();
    // Of those that are to have all they can take, each wants the whole.
    let scale = match all_beyond > 0.0 && planned <= 1.0 + SHARE_EPSILON {
        true => (1.0 - all_kept).max(0.0) / all_beyond,
        false => 1.0,
    };
    (0..plan.len()).map(|place| kept(place) + beyond(place) * scale).collect()
}

/// Takes out of `plan` what the limits do not allow, and gives it first to those that stand in for it now (`standing_in`,
/// the target so far), then to the cheapest of the rest: who stands in is not changed for a cent. Every backend that may
/// serve gets at least its floor.
///
/// A backend that is meant to have all it can take gets more as it can take more, at the cost of the dearest: unless some
/// cost is not trusted, for then nobody knows who that is, and it keeps what it has.
pub fn repair(sites: &[Site], plan: &[f64], standing_in: &[f64]) -> Vec<f64> {
    let trusted = sites.iter().filter(|site| site.may_serve).all(|site| site.trusted_costing().is_some());
    let planned = |planned: f64, has: f64| if trusted || has <= 0.0 { planned } else { planned.min(has) };
    let mut shares: Vec<f64> = sites
        .iter()
        .zip(plan.iter().zip(standing_in))
        .map(|(site, (plan, has))| planned(*plan, *has).min(site.limit))
        .collect();
    shed_excess(sites, &mut shares);
    let mut missing = 1.0 - shares.iter().sum::<f64>();
    for ((site, share), standing_in) in sites.iter().zip(&mut shares).zip(standing_in) {
        let more = (standing_in.min(site.limit) - *share).clamp(0.0, missing.max(0.0));
        *share += more;
        missing -= more;
    }
    fill(sites, &mut shares, Filling::within(&limits(sites)));
    keep_floor(sites, &mut shares);
    shares
}

/// Backends that are meant to have all they can take may together want more than there is: the dearest go without.
fn shed_excess(sites: &[Site], shares: &mut [f64]) {
    let mut excess = shares.iter().sum::<f64>() - 1.0;
    if excess <= SHARE_EPSILON {
        return;
    }
    let dearness =
        |place: &usize| sites[*place].costing.map_or(f64::MAX, |c| c.unit.total() * sites[*place].counted);
    let mut places: Vec<usize> = (0..sites.len()).collect();
    places.sort_by(|a, b| dearness(b).total_cmp(&dearness(a)));
    for place in places {
        let less = excess.min(shares[place]);
        shares[place] -= less;
        excess -= less;
    }
}

/// Raises every backend that may serve to its floor, at the cost of those above theirs.
fn keep_floor(sites: &[Site], shares: &mut [f64]) {
    let floors: Vec<f64> = sites.iter().map(|site| site.floor.min(site.limit)).collect();
    let needed: f64 = shares.iter().zip(&floors).map(|(share, floor)| (floor - share).max(0.0)).sum();
    let spare: f64 = shares.iter().zip(&floors).map(|(share, floor)| (share - floor).max(0.0)).sum();
    if needed <= SHARE_EPSILON || spare <= 0.0 {
        return;
    }
    let given = needed.min(spare);
    for (share, floor) in shares.iter_mut().zip(&floors) {
        let (lack, over) = ((floor - *share).max(0.0), (*share - floor).max(0.0));
        *share += lack * given / needed - over * given / spare;
    }
}

/// Takes out of `plan` what the limits do not allow and gives it to the cheapest, leaving the shares in `fixed` as they are.
pub fn repair_around(sites: &[Site], plan: &[f64], fixed: &[Option<f64>]) -> Vec<f64> {
    let mut shares: Vec<f64> = sites
        .iter()
        .zip(plan.iter().zip(fixed))
        .map(|(site, (planned, fixed))| fixed.unwrap_or(planned.min(site.limit)))
        .collect();
    let open = |(site, fixed): (&Site, &Option<f64>)| if fixed.is_some() { 0.0 } else { site.limit };
    let open: Vec<f64> = sites.iter().zip(fixed).map(open).collect();
    fill(sites, &mut shares, Filling::within(&open));
    shares
}

/// How missing shares are given out.
struct Filling<'a> {
    /// The most that each backend gets.
    limits: &'a [f64],
    /// Whether backends whose cost is unknown or not trusted get some: those of unknown cost last.
    untrusted_too: bool,
    /// The backend that comes right after what is paid anyway, whatever it costs.
    favourite: Option<usize>,
    /// What a backend's cost is multiplied by on top of what rules prefer; empty for nothing.
    counted: &'a [f64],
}

impl<'a> Filling<'a> {
    fn within(limits: &'a [f64]) -> Filling<'a> {
        Filling { limits, untrusted_too: true, favourite: None, counted: &[] }
    }
}

fn limits(sites: &[Site]) -> Vec<f64> {
    sites.iter().map(|site| site.limit).collect()
}

/// Gives the share that is still missing to the cheapest pieces with room. When all are full, what is left goes to whoever
/// may serve, in proportion to the limits: a capacity figure from a model is no reason to refuse a request.
fn fill(sites: &[Site], shares: &mut [f64], filling: Filling) {
    let missing = 1.0 - shares.iter().sum::<f64>();
    let limits = filling.limits;
    let missing = fill_within(sites, shares, missing, filling);
    if missing > SHARE_EPSILON {
        overfill(sites, shares, missing, limits);
    }
}

/// Who would stand in for others, in the order of cost.
pub struct StandIns {
    steps: Vec<Step>,
    count: usize,
}

impl StandIns {
    /// Those who have room beyond their shares, within these limits. `counted`: what a backend's cost is multiplied by on top of
    /// what rules prefer.
    pub fn new(sites: &[Site], shares: &[f64], limits: &[f64], counted: &[f64]) -> StandIns {
        let filling = Filling { counted, ..Filling::within(limits) };
        StandIns { steps: sorted_steps(sites, shares, filling), count: sites.len() }
    }

    /// What each of them would take of `amount`, which those that are `lost` have served.
    pub fn take(&self, amount: f64, lost: impl Fn(usize) -> bool) -> Vec<f64> {
        let mut taken = vec![0.0; self.count];
        let able = self.steps.iter().filter(|step| !lost(step.site));
        give(able, amount, &mut taken);
        taken
    }
}

/// Gives `missing` to the cheapest pieces with room. Returns what is left when all are full.
fn fill_within(sites: &[Site], shares: &mut [f64], missing: f64, filling: Filling) -> f64 {
    if missing <= SHARE_EPSILON {
        return 0.0;
    }
    give(sorted_steps(sites, shares, filling).iter(), missing, shares)
}

/// Gives `missing` to these pieces in their order. Returns what is left.
fn give<'s>(steps: impl Iterator<Item = &'s Step>, mut missing: f64, shares: &mut [f64]) -> f64 {
    for step in steps {
        if missing <= SHARE_EPSILON {
            return 0.0;
        }
        let given = step.share.min(missing);
        shares[step.site] += given;
        missing -= given;
    }
    missing
}

/// The pieces with room beyond `shares`, the cheapest first.
fn sorted_steps(sites: &[Site], shares: &[f64], filling: Filling) -> Vec<Step> {
    let mut steps = Vec::with_capacity(sites.len() * 2);
    for (i, site) in sites.iter().enumerate() {
        let room = (filling.limits[i] - shares[i]).max(0.0);
        if room > 0.0 && (filling.untrusted_too || site.trusted_costing().is_some()) {
            let counted = site.counted * filling.counted.get(i).unwrap_or(&1.0);
            steps_of(site, i, shares[i], room, counted, &mut steps);
        }
    }
    // A stable sort keeps the operator's order among equals.
    let rank = |step: &Step| match filling.favourite {
        Some(favourite) if !step.paid => {
            if step.site == favourite {
                1
            } else {
                2
            }
        }
        _ => 0,
    };
    steps.sort_by(|a, b| {
        rank(a).cmp(&rank(b)).then(a.marginal.total_cmp(&b.marginal)).then(a.then.total_cmp(&b.then))
    });
    steps
}

/// Gives what nobody has room for to whoever may serve, in proportion to the limits.
fn overfill(sites: &[Site], shares: &mut [f64], missing: f64, limits: &[f64]) {
    let weigh = |weight: &dyn Fn(&Site) -> f64| -> Vec<f64> { sites.iter().map(weight).collect() };
    let one_if = |yes: bool| f64::from(u8::from(yes));
    // Caps give way only where nobody else may serve, an operator's last.
    let by_limit = sites.iter().zip(limits).map(|(site, limit)| limit * one_if(!site.is_capped())).collect();
    let uncapped = weigh(&|site| one_if(site.may_serve && !site.is_capped()));
    let by_rules = weigh(&|site| one_if(site.may_serve && !site.is_capped_by(Cause::Capped)));
    let anyone = weigh(&|site| one_if(site.may_serve));
    for weights in [by_limit, uncapped, by_rules, anyone] {
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 {
            shares.iter_mut().zip(&weights).for_each(|(share, weight)| *share += missing * weight / sum);
            return;
        }
    }
}

/// The pieces of one backend's curve between what it has and what it may have, its costs multiplied by `counted`.
fn steps_of(site: &Site, i: usize, from: f64, room: f64, counted: f64, steps: &mut Vec<Step>) {
    let Some(costing) = site.costing else {
        steps.push(Step { site: i, marginal: f64::MAX, then: f64::MAX, share: room, paid: false });
        return;
    };
    let curve = costing.curve;
    let always = curve.always * counted;
    let dear = always + curve.beyond * counted;
    let load = site.view.load_elsewhere_rps + from * site.demand_rps;
    let paid = ((curve.paid_rps * FULL - load) / site.demand_rps).clamp(0.0, room);
    if paid > 0.0 {
        steps.push(Step { site: i, marginal: always, then: dear, share: paid, paid: true });
    }
    if room > paid {
        steps.push(Step { site: i, marginal: dear, then: dear, share: room - paid, paid: false });
    }
}

/// The site with the largest share; `None` when all are zero.
pub fn largest<'s, 'a>(sites: &'s [Site<'a>], shares: &[f64]) -> Option<&'s Site<'a>> {
    let (site, share) = sites.iter().zip(shares).rev().max_by(|a, b| a.1.total_cmp(b.1))?;
    (*share > 0.0).then_some(site)
}

/// Whether two allocations differ nowhere by more than `by`.
pub fn close(a: &[f64], b: &[f64], by: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by)
}
