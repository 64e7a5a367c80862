//! What others do, reduced to the rule by which they choose. Each sends nothing to a backend without a ready replica while
//! another has some, as any load balancer with health checks does.

use super::{
    Scenario,
    cluster::{Fleet, Wish},
    contenders::Contender,
    world::{Order, Scene, Sight},
};

/// One cluster serves everything; the others stay at their minimum.
pub(super) struct Alone {
    pub(super) place: usize,
}

impl Contender for Alone {
    fn direct(&mut self, _: &Scene<'_>, order: &mut Order) {
        only(self.place, order);
    }
}

/// One cluster, all on on-demand nodes; the others are not there.
pub(super) struct OnDemand {
    pub(super) place: usize,
}

impl Contender for OnDemand {
    fn direct(&mut self, _: &Scene<'_>, order: &mut Order) {
        only(self.place, order);
        order.wishes.fill(Wish::Closed);
        order.wishes[self.place] = Wish::Load { planned_rps: 0.0, spot_share: 0.0 };
    }
}

fn only(place: usize, order: &mut Order) {
    order.shares.fill(0.0);
    order.shares[place] = 1.0;
}

/// The cluster that is the cheapest on demand when time begins, of those whose on-demand price is known.
pub(super) fn cheapest_on_demand(scenario: &Scenario) -> Option<usize> {
    let usd_per_rps = |place: &usize| {
        let site = &scenario.sites[*place];
        let (node, replicas) = (site.backend.node.as_ref()?, site.backend.replicas.as_ref()?);
        let usd = site.prices.on_demand.at(0.0)?;
        let egress = site.backend.egress_usd_per_gb.unwrap_or(0.0) * scenario.response_bytes / 1e9 * 3600.0;
        Some(usd / (node.replicas_per_node * replicas.rps) + egress)
    };
    let places = (0..scenario.sites.len()).filter_map(|place| Some((place, usd_per_rps(&place)?)));
    places.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
}

/// The same share for everybody.
pub(super) struct Even;

impl Contender for Even {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        by_weight(scene.sights, &mut order.shares, |_| 1.0);
    }
}

/// The shortest wait; those within a millisecond of it share.
pub(super) struct Fastest;

impl Contender for Fastest {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        let alive = scene.sights.iter().filter(|sight| sight.ready_rps > 0.0);
        let least = alive.map(|sight| sight.wait_seconds).fold(f64::INFINITY, f64::min);
        by_weight(scene.sights, &mut order.shares, |sight| {
            f64::from(u8::from(sight.wait_seconds <= least + 1e-3))
        });
    }
}

/// All to the lowest price of this moment, up to its limit of requests, then to the next: LiteLLM's `cost-based-routing`, which
/// picks the lowest cost among deployments within their limits.
pub(super) struct CheapestNow;

impl Contender for CheapestNow {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        fill_in_order(scene.sights, scene.snapshot.demand_rps, scene.ranked, &mut order.shares);
    }
}

/// Shares by the inverse square of the price, as OpenRouter documents for its default load balancing.
pub(super) struct InverseSquare;

impl Contender for InverseSquare {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        by_weight(scene.sights, &mut order.shares, |sight| sight.unit_usd_per_1k.max(1e-9).powi(-2));
    }
}

/// Moves everything when what is saved in an hour reaches a threshold for each replica that is disrupted: the "consolidation
/// savings threshold" proposed for Karpenter (kubernetes-sigs/karpenter, designs/consolidation-cost-threshold.md), with its threshold and one unit
/// of disruption for a replica of default priority; that nodes near their end of life cost less is left out.
#[derive(Default)]
pub(super) struct SavingPerDisruption {
    here: Option<usize>,
}

/// USD an hour that must be saved for each replica that is disrupted.
const SAVING_USD_PER_REPLICA_HOUR: f64 = 0.01;

impl Contender for SavingPerDisruption {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        let Some(best) = scene.ranked.first().copied() else { return };
        let here = *self.here.get_or_insert(best);
        let demand_rps = scene.snapshot.demand_rps;
        let usd_per_hour = |place: usize| scene.sights[place].unit_usd_per_1k * demand_rps * 3.6;
        let disrupted = f64::from(scene.sights[here].ready.total());
        if usd_per_hour(here) - usd_per_hour(best) >= (SAVING_USD_PER_REPLICA_HOUR * disrupted).max(1e-9) {
            self.here = Some(best);
        }
        let mut wanted = vec![self.here.unwrap_or(best)];
        wanted.extend(scene.ranked.iter().copied().filter(|place| Some(*place) != self.here));
        fill_in_order(scene.sights, demand_rps, &wanted, &mut order.shares);
    }
}

/// Spot replicas spread over all backends as over zones, two more than needed; a backend that lost nodes is avoided until
/// all were; on-demand replicas stand in for spot replicas that are not ready. After "SkyServe: Serving AI Models across Regions
/// and Clouds with Spot Instances" (EuroSys '25): dynamic placement, over-provisioning and dynamic fallback.
pub(super) struct SpotHedge {
    avoided: Vec<bool>,
    spot: Vec<u32>,
}

/// Spot replicas beyond what the load needs: the paper's default.
const OVER_PROVISIONED: u32 = 2;

impl SpotHedge {
    pub(super) fn new(count: usize) -> SpotHedge {
        SpotHedge { avoided: vec![false; count], spot: vec![0; count] }
    }

    /// Where the next spot replica goes: where fewest are, the cheapest of them, among those that lost none lately.
    fn next(&self, scene: &Scene<'_>) -> Option<usize> {
        let usable = |place: &usize| spot_sold(scene, *place) && self.spot[*place] < most(scene, *place);
        let places = || (0..self.spot.len()).filter(usable);
        let fewest = |places: &mut dyn Iterator<Item = usize>| {
            let cost = |place: usize| scene.sights[place].unit_usd_per_1k;
            places.min_by(|a, b| self.spot[*a].cmp(&self.spot[*b]).then(cost(*a).total_cmp(&cost(*b))))
        };
        fewest(&mut places().filter(|place| !self.avoided[*place])).or_else(|| fewest(&mut places()))
    }
}

fn spot_sold(scene: &Scene<'_>, place: usize) -> bool {
    scene.snapshot.backends[place].backend.has_spot_nodes()
}

fn most(scene: &Scene<'_>, place: usize) -> u32 {
    scene.snapshot.backends[place].backend.replicas.as_ref().map_or(0, |replicas| replicas.max)
}

impl Contender for SpotHedge {
    fn direct(&mut self, scene: &Scene<'_>, order: &mut Order) {
        for (place, sight) in scene.sights.iter().enumerate() {
            if sight.interrupted {
                self.avoided[place] = true;
                self.spot[place] = sight.ready.spot;
            }
        }
        if self.avoided.iter().all(|avoided| *avoided) {
            self.avoided.fill(false);
        }
        let rps = |place: usize| {
            scene.snapshot.backends[place].backend.replicas.as_ref().map_or(1.0, |replicas| replicas.rps)
        };
        let ready_spot: f64 =
            scene.sights.iter().enumerate().map(|(place, s)| f64::from(s.ready.spot) * rps(place)).sum();
        let needed = scene.snapshot.demand_rps;
        let held = |spot: &[u32]| spot.iter().enumerate().map(|(p, n)| f64::from(*n) * rps(p)).sum::<f64>();
        // Take away while all would still be there, add while something is missing.
        let spare = |spot: &[u32], place: usize| {
            f64::from(spot.iter().sum::<u32>().saturating_sub(OVER_PROVISIONED)) > 0.0
                && held(spot) - rps(place) >= needed + f64::from(OVER_PROVISIONED) * rps(place)
        };
        for _ in 0..self.spot.iter().sum::<u32>() {
            let fullest = (0..self.spot.len()).max_by_key(|place| (self.avoided[*place], self.spot[*place]));
            match fullest.filter(|place| self.spot[*place] > 0 && spare(&self.spot, *place)) {
                Some(place) => self.spot[place] -= 1,
                None => break,
            }
        }
        while let Some(place) = self.next(scene) {
            if held(&self.spot) >= needed + f64::from(OVER_PROVISIONED) * rps(place) {
                break;
            }
            self.spot[place] += 1;
        }
        let missing = (needed - ready_spot).max(0.0);
        let on_demand_usd = |place: usize| {
            let price = scene.snapshot.backends[place].on_demand.as_ref()?;
            Some((place, price.usd_per_hour.get() / rps(place)))
        };
        let priced = (0..self.spot.len()).filter_map(on_demand_usd);
        let fallback = priced.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place);
        for place in 0..self.spot.len() {
            let on_demand = match fallback {
                Some(cheapest) if cheapest == place => (missing / rps(place)).ceil() as u32,
                _ => 0,
            };
            order.wishes[place] = Wish::Exactly(Fleet { spot: self.spot[place], on_demand });
        }
        if scene.tick == 0 {
            // Nothing runs yet: by what is asked for.
            let total = held(&self.spot).max(f64::MIN_POSITIVE);
            let shares = self.spot.iter().enumerate().map(|(place, n)| f64::from(*n) * rps(place) / total);
            order.shares.iter_mut().zip(shares).for_each(|(share, of)| *share = of);
        } else {
            by_weight(scene.sights, &mut order.shares, |sight| sight.ready_rps);
        }
    }
}

/// Gives each in turn what it may grow to; what is left when all are full goes to the first.
fn fill_in_order(sights: &[Sight], demand_rps: f64, order: &[usize], shares: &mut [f64]) {
    shares.fill(0.0);
    let mut missing = 1.0;
    let started = sights.iter().any(|sight| sight.ready_rps > 0.0);
    for place in order {
        let sight = &sights[*place];
        if started && sight.ready_rps <= 0.0 && sight.least_rps > 0.0 {
            continue;
        }
        let given = (sight.most_rps / demand_rps.max(1e-9)).min(missing);
        shares[*place] = given;
        missing -= given;
    }
    if let Some(first) = order.first() {
        shares[*first] += missing;
    }
}

/// Shares in proportion to weights, without the backends that have no ready replica while others have.
fn by_weight(sights: &[Sight], shares: &mut [f64], weight: impl Fn(&Sight) -> f64) {
    let started = sights.iter().any(|sight| sight.ready_rps > 0.0);
    // One whose minimum is 0 has none until a request comes: leaving it out would leave it out for ever.
    let alive = |sight: &Sight| !started || sight.ready_rps > 0.0 || sight.least_rps <= 0.0;
    let of = |sight: &Sight| if alive(sight) { weight(sight) } else { 0.0 };
    let sum: f64 = sights.iter().map(of).sum();
    for (share, sight) in shares.iter_mut().zip(sights) {
        *share = if sum > 0.0 { of(sight) / sum } else { 1.0 / sights.len() as f64 };
    }
}
