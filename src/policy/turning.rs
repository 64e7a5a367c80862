//! At which price of a node the decision would turn: found by making it again with that one price changed.
//!
//! No formula says it as truly: minimum replicas, disks, egress, rules that prefer and capacity all stand between a price and a
//! gap, and the decision itself knows them all.

use super::{State, decide};
use crate::model::{
    Action, BackendId, BackendView, Decision, Offer, Policy, Price, Reason, Rule, Snapshot, TurningPoint,
    UsdPerHour,
};

/// A price is looked for up to so many times the present one. Beyond that it says nothing about a market.
const RISE_MAX: f64 = 64.0;

/// How exactly a price is found, as a part of the present one.
const PRECISION: f64 = 1e-5;

/// Most backends that are tried: each takes some twenty decisions.
const TRIED_MAX: usize = 16;

/// The prices at which the route would begin to move, the nearest to its present price first. Empty where something other than
/// money decides, where a move is under way or waits for `hold`, and under the break-even rule, which weighs time as well. `state`
/// is what the decision about this snapshot returned.
pub fn turning_points(policy: &Policy, snapshot: &Snapshot, state: &State) -> Vec<TurningPoint> {
    let Rule::Threshold { .. } = policy.rule else { return Vec::new() };
    let (now, _) = decide(policy, snapshot, state, snapshot.at);
    if now.moving() || !money_decides(&now) {
        return Vec::new();
    }
    let search = Search { policy, snapshot, state };
    let mut points: Vec<TurningPoint> =
        (0..snapshot.backends.len()).take(TRIED_MAX).filter_map(|place| search.at(place, &now)).collect();
    let distance = |point: &TurningPoint| (point.turns_at_usd_per_hour / point.usd_per_hour).ln().abs();
    points.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    points
}

fn money_decides(decision: &Decision) -> bool {
    let stays = decision.action == Action::Stay;
    stays
        && matches!(
            decision.reason,
            Reason::Cheapest | Reason::GapBelowThreshold { .. } | Reason::Away { .. }
        )
}

struct Search<'a> {
    policy: &'a Policy,
    snapshot: &'a Snapshot,
    state: &'a State,
}

impl Search<'_> {
    /// The price of the backend at `place` at which traffic would go there, or leave it if most of it is there.
    fn at(&self, place: usize, now: &Decision) -> Option<TurningPoint> {
        let verdict = &now.backends[place];
        let backend = &verdict.backend;
        let (offer, price) = priced(&self.snapshot.backends[place])?;
        let here = now.backends.iter().all(|other| other.target <= verdict.target);
        let turns = |usd: f64| self.turns(place, offer, usd, backend, here);
        let turned = if here { price * RISE_MAX } else { price * PRECISION };
        if !verdict.eligible || !turns(turned) {
            return None;
        }
        let (mut calm, mut turned) = (price, turned);
        while (calm - turned).abs() > price * PRECISION {
            // A quotient halves the way through orders of magnitude, a mean the rest of it.
            let middle = if turned / calm > 2.0 { (calm * turned).sqrt() } else { (calm + turned) / 2.0 };
            match turns(middle) {
                true => turned = middle,
                false => calm = middle,
            }
        }
        let backend = backend.clone();
        Some(TurningPoint { backend, offer, usd_per_hour: price, turns_at_usd_per_hour: turned })
    }

    /// Whether the decision with this price moves traffic to the backend, or away from it, or would if `hold` allowed it.
    fn turns(&self, place: usize, offer: Offer, usd: f64, backend: &BackendId, here: bool) -> bool {
        let mut snapshot = self.snapshot.clone();
        let Some(usd) = UsdPerHour::new(usd) else { return false };
        let view = &mut snapshot.backends[place];
        let price = match offer {
            Offer::Spot => &mut view.spot,
            Offer::OnDemand => &mut view.on_demand,
        };
        *price = price.take().map(|price| Price { usd_per_hour: usd, ..price });
        let (next, _) = decide(self.policy, &snapshot, self.state, self.snapshot.at);
        let to = match &next.reason {
            Reason::GapReached { to, .. } | Reason::GapClosed { to, .. } | Reason::Holding { to, .. } => to,
            _ => return false,
        };
        (to == backend) != here
    }
}

/// The price that most of a backend's nodes are bought at; `None` where none is known.
fn priced(view: &BackendView) -> Option<(Offer, f64)> {
    let node = view.backend.node.as_ref()?;
    let spot = (node.spot.get() >= 0.5).then_some((Offer::Spot, view.spot.as_ref()));
    let (offer, price) = spot.unwrap_or((Offer::OnDemand, view.on_demand.as_ref()));
    Some((offer, price?.usd_per_hour.get()))
}
