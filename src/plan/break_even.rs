//! Where the cheapest strategy changes.

use serde::Serialize;

use super::{
    Traffic,
    strategy::{Kind, Strategy},
};

/// Looks between two points of the traffic. Costs rise in steps, a node at a time, so the order of two strategies may change
/// more than once between two points.
const LOOKS: usize = 32;

/// A change is found to within this part of the traffic at which it happens.
const PRECISION: f64 = 1e-4;

/// Two costs that differ by less than this part of them are the same.
const SAME: f64 = 1e-9;

/// Most changes that are kept: two strategies of about the same cost take turns at every step.
const CHANGES_MAX: usize = 200;

/// Who is the cheapest from where to where.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BreakEvens {
    /// From the least to the most traffic.
    pub changes: Vec<Change>,
    /// Changes that were found beyond those.
    pub changes_left_out: usize,
    /// For each strategy that is the cheapest somewhere, in the order of its first such traffic.
    pub cheapest: Vec<Reign>,
    /// Strategies that are nowhere the cheapest.
    pub nowhere_cheapest: Vec<String>,
}

/// The cheapest strategy changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The cheapest below; `None` if none carries the traffic.
    pub before: Option<String>,
    /// The cheapest above.
    pub after: Option<String>,
    /// It is still `before` at this traffic, in requests per second on average,
    pub above_rps: f64,
    /// and already `after` at this.
    pub at_rps: f64,
}

/// Where a strategy is the cheapest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reign {
    /// Its name.
    pub id: String,
    /// The least traffic at which it was found to be the cheapest, in requests per second on average.
    pub from_rps: f64,
    /// The most.
    pub to_rps: f64,
    /// Whether others are the cheapest in between.
    pub with_gaps: bool,
}

/// What is asked first: whether to do a thing at all, against doing without it.
const STEPS: [(Kind, Kind); 5] = [
    (Kind::AutoscaleOnDemand, Kind::StaticOnDemand),
    (Kind::AutoscaleSpot, Kind::AutoscaleOnDemand),
    (Kind::TwoCloudsFixed, Kind::AutoscaleSpot),
    (Kind::TwoCloudsShifting, Kind::TwoCloudsFixed),
    (Kind::Managed, Kind::AutoscaleOnDemand),
];

/// Where a kind of strategy costs less than another, or carries what the other does not; each at its cheapest backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The kind.
    pub strategy: Kind,
    /// The kind that it is compared with.
    pub against: Kind,
    /// The least traffic at which it pays, in requests per second on average; `None` if it pays nowhere.
    pub pays_from_rps: Option<f64>,
    /// The most.
    pub pays_to_rps: Option<f64>,
    /// Whether it does not pay somewhere in between.
    pub with_gaps: bool,
}

/// Looks where each kind pays. `cost` says what the cheapest of a kind costs at a traffic; `None` if none carries it. Kinds of
/// which there is no strategy are left out.
pub(super) fn steps(
    traffic: &Traffic,
    strategies: &[Strategy],
    cost: impl Fn(Kind, f64) -> Option<f64>,
) -> Vec<Step> {
    let there = |kind: Kind| strategies.iter().any(|strategy| strategy.kind == kind);
    let asked = STEPS.into_iter().filter(|(kind, against)| there(*kind) && there(*against));
    asked
        .map(|(strategy, against)| {
            let pays = |rps: f64| {
                let pays = match (cost(strategy, rps), cost(against, rps)) {
                    (Some(usd), Some(other)) => usd < other * (1.0 - SAME),
                    (usd, other) => usd.is_some() && other.is_none(),
                };
                // What does not pay reigns too: else a gap would not show.
                Some(if pays { strategy } else { against }.as_str().to_owned())
            };
            let found = search(traffic, &[], pays);
            let reign = found.cheapest.into_iter().find(|reign| reign.id == strategy.as_str());
            Step {
                strategy,
                against,
                pays_from_rps: reign.as_ref().map(|reign| reign.from_rps),
                pays_to_rps: reign.as_ref().map(|reign| reign.to_rps),
                with_gaps: reign.is_some_and(|reign| reign.with_gaps),
            }
        })
        .collect()
}

/// Looks for all changes over the range. `cheapest` says who is at a traffic.
pub(super) fn search(
    traffic: &Traffic,
    strategies: &[Strategy],
    cheapest: impl Fn(f64) -> Option<String>,
) -> BreakEvens {
    let mut found = BreakEvens::default();
    let mut here = (traffic.points()[0], cheapest(traffic.points()[0]));
    found.reigns(&here);
    for rps in looks(traffic) {
        let there = (rps, cheapest(rps));
        while here.1 != there.1 {
            let (last, first) = narrow(here.clone(), there.clone(), &cheapest);
            found.reigns(&last);
            found.changes(&last, &first);
            found.reigns(&first);
            here = first;
        }
        found.reigns(&there);
        here = there;
    }
    let reigns = |strategy: &&Strategy| !found.cheapest.iter().any(|reign| reign.id == strategy.id);
    found.nowhere_cheapest = strategies.iter().filter(reigns).map(|strategy| strategy.id.clone()).collect();
    found
}

/// The traffic at which to look, after the first point.
fn looks(traffic: &Traffic) -> impl Iterator<Item = f64> {
    traffic.points().windows(2).flat_map(|pair| {
        let factor = pair[1] / pair[0];
        (1..=LOOKS).map(move |look| match look {
            LOOKS => pair[1],
            look => pair[0] * factor.powf(look as f64 / LOOKS as f64),
        })
    })
}

/// Traffic, and who is the cheapest there.
type Look = (f64, Option<String>);

/// The last look like `low` and the first that is different, next to each other.
fn narrow(mut low: Look, mut high: Look, cheapest: &impl Fn(f64) -> Option<String>) -> (Look, Look) {
    // Each turn halves what is between; from the whole range down to the precision takes less than 50.
    while high.0 - low.0 > low.0 * PRECISION {
        let middle = low.0 + (high.0 - low.0) / 2.0;
        let look = (middle, cheapest(middle));
        if look.1 == low.1 { low = look } else { high = look }
    }
    (low, high)
}

impl BreakEvens {
    fn changes(&mut self, last: &Look, first: &Look) {
        if self.changes.len() == CHANGES_MAX {
            self.changes_left_out += 1;
            return;
        }
        self.changes.push(Change {
            before: last.1.clone(),
            after: first.1.clone(),
            above_rps: last.0,
            at_rps: first.0,
        });
    }

    /// `look` was taken, in rising order of traffic.
    fn reigns(&mut self, look: &Look) {
        let (rps, Some(id)) = look else { return };
        let others = self.cheapest.iter().filter(|reign| reign.id != *id);
        let last_other = others.map(|reign| reign.to_rps).fold(0.0, f64::max);
        match self.cheapest.iter_mut().find(|reign| reign.id == *id) {
            Some(reign) => {
                reign.with_gaps |= last_other > reign.to_rps;
                reign.to_rps = *rps;
            }
            None => {
                self.cheapest.push(Reign { id: id.clone(), from_rps: *rps, to_rps: *rps, with_gaps: false })
            }
        }
    }
}
