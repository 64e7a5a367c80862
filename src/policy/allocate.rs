//! Filling the demand from the cheapest marginal cost upward. For rising step costs this greedy filling is the optimum of
//! the linear program.

use super::{SHARE_EPSILON, site::Site};

/// A piece of a backend's cost curve: `share` of the demand at one marginal cost.
struct Step {
    site: usize,
    /// USD per 1,000 requests.
    marginal: f64,
    /// What the piece after this one costs: breaks ties between pieces that are paid anyway.
    then: f64,
    share: f64,
}

/// The cheapest allocation: every backend that may serve keeps `floor`, the rest goes where one more request costs least.
///
/// `stay`: shares that a backend of unknown cost keeps (it must not become attractive, and nothing says what leaving it
/// would save); `None` at the first placement, where such backends come last, in the operator's order.
pub fn cheapest(sites: &[Site], floor: f64, stay: Option<&[f64]>) -> Vec<f64> {
    let mut shares: Vec<f64> = sites
        .iter()
        .enumerate()
        .map(|(i, site)| match (site.costing, stay) {
            (None, Some(stay)) => stay[i].min(site.limit),
            _ => floor.min(site.limit),
        })
        .collect();
    let sum: f64 = shares.iter().sum();
    if sum > 1.0 {
        shares.iter_mut().for_each(|share| *share /= sum);
    }
    fill(sites, &mut shares, |site| site.limit, stay.is_none());
    shares
}

/// Takes out of `plan` what the limits do not allow and gives it to the cheapest of the rest.
pub fn repair(sites: &[Site], plan: &[f64]) -> Vec<f64> {
    repair_around(sites, plan, &vec![None; sites.len()])
}

/// As [`repair`], leaving the shares in `fixed` as they are.
pub fn repair_around(sites: &[Site], plan: &[f64], fixed: &[Option<f64>]) -> Vec<f64> {
    let mut shares: Vec<f64> = sites
        .iter()
        .zip(plan.iter().zip(fixed))
        .map(|(site, (planned, fixed))| fixed.unwrap_or(planned.min(site.limit)))
        .collect();
    let open = |site: &Site| {
        let i = sites.iter().position(|s| std::ptr::eq(s.view, site.view));
        if i.is_some_and(|i| fixed[i].is_some()) { 0.0 } else { site.limit }
    };
    fill(sites, &mut shares, open, true);
    shares
}

/// Gives the share that is still missing to the cheapest pieces with room. When all are full, what is left goes to whoever
/// may serve, in proportion to the limits: a capacity figure from a model is no reason to refuse a request.
fn fill(sites: &[Site], shares: &mut [f64], limit: impl Fn(&Site) -> f64, unknown_last: bool) {
    let mut missing = 1.0 - shares.iter().sum::<f64>();
    if missing <= SHARE_EPSILON {
        return;
    }
    let mut steps = Vec::with_capacity(sites.len() * 2);
    for (i, site) in sites.iter().enumerate() {
        let room = (limit(site) - shares[i]).max(0.0);
        steps_of(site, i, shares[i], room, unknown_last, &mut steps);
    }
    // A stable sort keeps the operator's order among equals.
    steps.sort_by(|a, b| a.marginal.total_cmp(&b.marginal).then(a.then.total_cmp(&b.then)));
    for step in &steps {
        let given = step.share.min(missing);
        shares[step.site] += given;
        missing -= given;
        if missing <= SHARE_EPSILON {
            return;
        }
    }
    let by_limit: Vec<f64> = sites.iter().map(&limit).collect();
    let by_right: Vec<f64> = sites.iter().map(|site| f64::from(u8::from(site.may_serve))).collect();
    for weights in [by_limit, by_right] {
        let sum: f64 = weights.iter().sum();
        if sum > 0.0 {
            shares.iter_mut().zip(&weights).for_each(|(share, weight)| *share += missing * weight / sum);
            return;
        }
    }
}

/// The pieces of one backend's curve between what it has and what it may have.
fn steps_of(site: &Site, i: usize, from: f64, room: f64, unknown_last: bool, steps: &mut Vec<Step>) {
    if room <= 0.0 {
        return;
    }
    let Some(costing) = site.costing else {
        if unknown_last {
            steps.push(Step { site: i, marginal: f64::MAX, then: f64::MAX, share: room });
        }
        return;
    };
    let curve = costing.curve;
    let dear = curve.always + curve.beyond;
    let load = site.view.load_elsewhere_rps + from * site.demand_rps;
    let paid = ((curve.paid_rps - load) / site.demand_rps).clamp(0.0, room);
    if paid > 0.0 {
        steps.push(Step { site: i, marginal: curve.always, then: dear, share: paid });
    }
    if room > paid {
        steps.push(Step { site: i, marginal: dear, then: dear, share: room - paid });
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
