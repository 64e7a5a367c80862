//! What a request costs from now on, told to the request path: the average that a decision found, and over how many tokens it
//! is spread.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    model::{BackendId, Decision, Route, RouteId, Timestamp},
    signals::traffic::Meters,
};

/// Time constant of the mean number of tokens: long enough for a mean, short enough to follow another use.
const MEMORY: Duration = Duration::from_secs(300);

/// Tokens and requests of a route at a backend: what was counted up to the last turn, and sums that fade.
#[derive(Debug, Default)]
struct Flow {
    seen: (u64, u64),
    tokens: f64,
    requests: f64,
}

impl Flow {
    /// The mean after these totals, with `keep` of what was known.
    fn advance(&mut self, totals: (u64, u64), keep: f64) -> Option<f64> {
        let (tokens, requests) = (totals.0 - self.seen.0, totals.1 - self.seen.1);
        self.seen = totals;
        if requests > 0 || self.requests > 1.0 {
            // A backend without traffic keeps the last request's worth of what was known.
            self.tokens = self.tokens * keep + tokens as f64;
            self.requests = self.requests * keep + requests as f64;
        }
        (self.requests > 0.0).then(|| self.tokens / self.requests)
    }
}

/// Prices requests.
#[derive(Debug, Default)]
pub(super) struct Rates {
    flows: HashMap<(RouteId, BackendId), (Option<Timestamp>, Flow)>,
}

impl Rates {
    /// Tells what the requests of a route cost at each backend from now on.
    pub(super) fn publish(&mut self, route: &RouteId, decision: &Decision, meters: &Meters, now: Timestamp) {
        for verdict in &decision.backends {
            let meter = meters.get(Some(route), Some(&verdict.backend));
            let (at, flow) = self.flows.entry((route.clone(), verdict.backend.clone())).or_default();
            let elapsed = at.replace(now).map_or(Duration::ZERO, |at| now.duration_since(at).unsigned_abs());
            let keep = (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
            let mean = flow.advance(meter.ledger.totals(), keep);
            meter.rate.set(verdict.average_usd_per_1k.map(|usd| usd / 1000.0), mean);
        }
    }

    /// Drops what belongs to routes and backends that are no longer configured.
    pub(super) fn forget_removed(&mut self, routes: &[Arc<Route>]) {
        let pairs: usize = routes.iter().map(|route| route.backends.len()).sum();
        if self.flows.len() > pairs {
            self.flows.retain(|(id, backend), _| {
                routes.iter().any(|route| route.id == *id && route.backends.contains(backend))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{policy::worlds::World, signals::ledger::Tokens};

    #[test]
    fn the_sum_over_requests_is_what_they_cost_on_average() {
        // 0.1 USD per 1,000 requests.
        let mut world = World::new(&[("a", 3.6)]);
        world.snapshot.demand_rps = 100.0;
        let decision = world.tick();
        let (route, backend) = (world.snapshot.route.clone(), decision.backends[0].backend.clone());
        let meters = Meters::default();
        let meter = meters.get(Some(&route), Some(&backend));
        let mut rates = Rates::default();
        rates.publish(&route, &decision, &meters, decision.at);
        let serve = |turn: u64| {
            for n in 0..100 {
                // Nine short ones for each long one.
                let output = if n % 10 == 0 { 910 + turn } else { 10 };
                let tokens = Tokens { input: 0, output, reported: true };
                let usd = meter.rate.usd(Some(&tokens));
                meter.ledger.add(Some(&tokens), usd);
            }
        };
        for turn in 0..100 {
            serve(turn % 7);
            let now = decision.at + Duration::from_secs(turn);
            rates.publish(&route, &decision, &meters, now);
        }
        let expected = 10_000.0 * 0.0001;
        let usd = meter.ledger.usd();
        assert!((usd - expected).abs() < 0.02 * expected, "{usd} instead of {expected}");
        let long = meter.rate.usd(Some(&Tokens { input: 900, output: 10, reported: false })).unwrap();
        assert!((long / 0.0001 - 9.1).abs() < 0.1, "{long}");
    }

    #[test]
    fn an_idle_backend_keeps_its_mean() {
        let mut flow = Flow::default();
        assert_eq!(flow.advance((0, 0), 1.0), None);
        assert_eq!(flow.advance((1000, 10), 1.0), Some(100.0));
        for _ in 0..10_000 {
            flow.advance((1000, 10), 0.9);
        }
        let mean = flow.advance((1000, 10), 0.9).unwrap();
        assert!((mean - 100.0).abs() < 1e-9, "{mean}");
    }
}
