//! One turn of the loop: collect what is known, decide for every route, say what the request path shall read.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    accounts::{Accounts, RouteTurn},
    lock,
    rates::Rates,
    savings::{self, Added},
    shadow::{Followed, Shadows},
};
use crate::{
    admin::{board::Savings, views::LastMove},
    config::Settings,
    model::{
        Backend, BackendEntry, BackendId, BackendView, Decision, Health, Live, Override, Policy, Route,
        RouteEntry, RouteId, RoutingTable, Snapshot, Timestamp,
    },
    policy::{self, State},
    record::{Account, Stay},
    signals::{
        credentials::CredentialBoard,
        ejection::EjectionBoard,
        load::LoadBoard,
        notices::NoticeBoard,
        prices::PriceBook,
        probes::ProbeBoard,
        resolve::Resolver,
        traffic::{Meters, Volume, Window},
    },
};

/// Time constant of the demand's smoothing: long enough that a decision does not chase single requests, short enough that
/// a surge is seen within a few ticks.
const DEMAND_MEMORY: Duration = Duration::from_secs(10);

/// Weight of a new mean response size against what was known: answers of a minute ago still say most about the next ones.
const RESPONSE_WEIGHT: f64 = 0.1;

/// Where the observations come from.
pub(super) struct Signals {
    pub(super) meters: Arc<Meters>,
    pub(super) probes: ProbeBoard,
    pub(super) load: LoadBoard,
    pub(super) ejection: EjectionBoard,
    pub(super) resolver: Resolver,
    pub(super) credentials: Arc<CredentialBoard>,
    pub(super) book: Arc<Mutex<PriceBook>>,
    pub(super) notices: Mutex<NoticeBoard>,
}

/// What is known and decided about one route at one moment.
#[derive(Clone, Debug)]
pub(super) struct RoutePicture {
    pub(super) snapshot: Snapshot,
    pub(super) decision: Decision,
    /// With the policy and the snapshot, all that the decision was made from.
    pub(super) before: State,
    pub(super) policy: Arc<Policy>,
    pub(super) shadows: Vec<Followed>,
    /// What the decision hands to the next one.
    pub(super) state: State,
    pub(super) last_move: Option<LastMove>,
}

/// What outlives a restart of what was decided.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) states: HashMap<RouteId, State>,
    pub(super) last_moves: HashMap<RouteId, LastMove>,
    /// Without them every start would begin with a demand of nothing, and compare costs over that.
    #[serde(default)]
    flows: HashMap<RouteId, Flow>,
    /// What savings of the day are measured against.
    #[serde(default)]
    stays: HashMap<RouteId, Stay>,
    /// What shadow policies would have done.
    #[serde(default)]
    pub(super) shadows: Shadows,
    /// What was saved today and this month.
    #[serde(default)]
    pub(super) savings: Savings,
}

/// Smoothed figures of a route that no single backend has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Flow {
    #[serde(skip)]
    arrived: Option<Arrived>,
    demand_rps: f64,
    response_bytes: Option<f64>,
}

/// Requests of a route that had arrived by some time, since the process began.
#[derive(Clone, Debug)]
struct Arrived {
    at: Timestamp,
    /// Those of each backend; of none for those that no backend got.
    by_backend: Vec<(Option<BackendId>, u64)>,
}

impl Flow {
    /// Smooths what has arrived since the last time. One that was not among the backends then counts from now on: what it got
    /// before, for this route or until it was taken out of it, does not arrive once more.
    fn arrive(&mut self, arrived: Arrived) {
        if let Some(before) = &self.arrived {
            let seconds = arrived.at.duration_since(before.at).as_secs_f64();
            if seconds > 0.0 {
                let known = |(place, (id, count)): (usize, &(Option<BackendId>, u64))| {
                    let same = before.by_backend.get(place).filter(|(other, _)| other == id);
                    let (_, before) =
                        same.or_else(|| before.by_backend.iter().find(|(other, _)| other == id))?;
                    Some(*count as f64 - *before as f64)
                };
                // One that goes on from a backend to another is taken from the first.
                let more: f64 = arrived.by_backend.iter().enumerate().filter_map(known).sum();
                let rate = more.max(0.0) / seconds;
                let keep = (-seconds / DEMAND_MEMORY.as_secs_f64()).exp();
                self.demand_rps = rate + (self.demand_rps - rate) * keep;
            }
        }
        self.arrived = Some(arrived);
    }
}

/// What the loop remembers from one turn to the next.
#[derive(Default)]
pub(super) struct Brain {
    pub(super) memory: Memory,
    windows: HashMap<(RouteId, BackendId), Window>,
    accounts: Accounts,
    rates: Rates,
}

/// The outcome of a turn.
pub(super) struct Turn {
    pub(super) routes: Vec<RoutePicture>,
    /// Accounts that are due.
    pub(super) accounts: Vec<(RouteId, Account)>,
    /// Dollars of all requests served so far, by route and backend.
    pub(super) spent_usd: Vec<(RouteId, BackendId, f64)>,
    /// Dollars saved so far, by route.
    pub(super) saved_usd: Vec<(RouteId, f64)>,
    pub(super) savings: Savings,
    pub(super) table: RoutingTable,
}

impl Brain {
    /// A brain that goes on where another one stopped.
    pub(super) fn resuming(memory: Memory) -> Brain {
        Brain { memory, ..Brain::default() }
    }

    /// Collects, decides, and draws up the table.
    pub(super) fn turn(
        &mut self,
        settings: &Settings,
        signals: &Signals,
        overrides: &[Override],
        generation: u64,
        now: Timestamp,
    ) -> Turn {
        let observed = Observed::all(settings, signals, now);
        signals.ejection.advance(&settings.backends, &settings.routes, now);
        let snapshots = self.collect(settings, signals, &observed, overrides, now);
        let mut routes = Vec::with_capacity(snapshots.len());
        let mut accounts = Vec::new();
        let mut added = Added::default();
        let mut spot_nodes: HashMap<BackendId, f64> = HashMap::new();
        for (route, mut snapshot) in settings.routes.iter().zip(snapshots) {
            if let Some(rules) = settings.rules.get(&route.policy.id) {
                let bytes = policy::site::response_bytes(&snapshot);
                snapshot.rulings = rules.judge_at(&snapshot, bytes, |id| self.share(&route.id, id));
            }
            let state = self.memory.states.entry(route.id.clone()).or_default();
            let (decision, next) = policy::decide(&route.policy, &snapshot, state, now);
            let before = std::mem::replace(state, next);
            for (view, nodes) in snapshot.backends.iter().zip(policy::room::spot_nodes(&snapshot, state)) {
                // Every route models all of the backend's load; what one of them keeps warm runs for all.
                let most = spot_nodes.entry(view.backend.id.clone()).or_default();
                *most = most.max(nodes.unwrap_or(0.0));
            }
            if policy::explain::is_move(&decision) {
                let last_move = LastMove { at: now, reason: decision.reason.to_string() };
                self.memory.last_moves.insert(route.id.clone(), last_move);
            }
            self.rates.publish(&route.id, &decision, &signals.meters, now);
            let shadows = self.memory.shadows.decide(route, &settings.rules, &snapshot, &before);
            let mut stay = self.memory.stays.remove(&route.id);
            let turn = RouteTurn {
                route,
                snapshot: &snapshot,
                decision: &decision,
                state,
                shadows,
                stay: &mut stay,
                added: &mut added,
            };
            let due = self.accounts.turn(turn, &signals.meters);
            accounts.extend(due.map(|account| (route.id.clone(), account)));
            self.memory.stays.extend(stay.map(|stay| (route.id.clone(), stay)));
            let last_move = self.memory.last_moves.get(&route.id).cloned();
            let (policy, state) = (route.policy.clone(), state.clone());
            let shadows = self.memory.shadows.of(&route.id).to_vec();
            routes.push(RoutePicture { snapshot, decision, before, policy, shadows, state, last_move });
        }
        savings::add(&mut self.memory.savings, added, now);
        lock(&signals.notices).advance(now, spot_nodes);
        self.forget_removed(settings);
        let table = table(settings, &observed, &routes, generation);
        let (spent_usd, saved_usd) = (self.accounts.spent_usd(), self.accounts.saved_usd());
        Turn { routes, accounts, table, spent_usd, saved_usd, savings: self.memory.savings }
    }

    /// Ends the accounts of all routes, as at the end of the process.
    pub(super) fn close_accounts(
        &mut self,
        settings: &Settings,
        signals: &Signals,
        now: Timestamp,
    ) -> Vec<(RouteId, Account)> {
        let mut closed = Vec::new();
        for route in &settings.routes {
            let stay = self.memory.stays.get(&route.id).cloned();
            let account = self.accounts.close(route, now, &stay, &signals.meters);
            closed.extend(account.map(|account| (route.id.clone(), account)));
        }
        closed
    }

    /// A snapshot of every route, in the order of the settings.
    fn collect(
        &mut self,
        settings: &Settings,
        signals: &Signals,
        observed: &HashMap<BackendId, Observed>,
        overrides: &[Override],
        now: Timestamp,
    ) -> Vec<Snapshot> {
        let demands: Vec<f64> =
            settings.routes.iter().map(|route| self.demand(route, &signals.meters, now)).collect();
        let loads = self.loads(settings, &demands);
        settings
            .routes
            .iter()
            .zip(&demands)
            .map(|(route, demand)| {
                let mut volume = Volume::default();
                let mut backends: Vec<BackendView> = route
                    .backends
                    .iter()
                    .filter_map(|id| observed.get(id))
                    .map(|observed| {
                        let id = &observed.backend.id;
                        let (live, part) = self.live(&route.id, id, &signals.meters, now);
                        volume.requests += part.requests;
                        volume.bytes_sent += part.bytes_sent;
                        let own = self.share(&route.id, id) * demand;
                        let all = loads.get(id).copied().unwrap_or(0.0);
                        observed.view(live, (all - own).max(0.0))
                    })
                    .collect();
                signals.ejection.mark(&mut backends);
                Snapshot {
                    at: now,
                    route: route.id.clone(),
                    slo: route.slo.clone(),
                    demand_rps: *demand,
                    response_bytes: self.response_bytes(&route.id, volume),
                    backends,
                    overrides: overrides.iter().filter(|o| concerns(o, route)).cloned().collect(),
                    // Rules are asked about the rest of it.
                    rulings: Default::default(),
                }
            })
            .collect()
    }

    /// Requests per second that arrive for a route: those finished and those begun, smoothed.
    fn demand(&mut self, route: &Route, meters: &Meters, now: Timestamp) -> f64 {
        let of = |backend: Option<&BackendId>| {
            let meter = meters.get(Some(&route.id), backend);
            (backend.cloned(), meter.requests() + meter.in_flight())
        };
        let by_backend = route.backends.iter().map(Some).chain([None]).map(of).collect();
        let flow = self.memory.flows.entry(route.id.clone()).or_default();
        flow.arrive(Arrived { at: now, by_backend });
        flow.demand_rps
    }

    /// The mean size of a route's responses, smoothed; what was known stays while nothing is served.
    fn response_bytes(&mut self, route: &RouteId, last_minute: Volume) -> Option<f64> {
        let flow = self.memory.flows.entry(route.clone()).or_default();
        if last_minute.requests > 0 {
            let mean = last_minute.bytes_sent as f64 / last_minute.requests as f64;
            flow.response_bytes =
                Some(flow.response_bytes.map_or(mean, |known| known + (mean - known) * RESPONSE_WEIGHT));
        }
        flow.response_bytes
    }

    /// Requests per second that all routes together send to each backend.
    fn loads(&self, settings: &Settings, demands: &[f64]) -> HashMap<BackendId, f64> {
        let mut loads = HashMap::new();
        for (route, demand) in settings.routes.iter().zip(demands) {
            for id in &route.backends {
                *loads.entry(id.clone()).or_insert(0.0) += self.share(&route.id, id) * demand;
            }
        }
        loads
    }

    fn share(&self, route: &RouteId, backend: &BackendId) -> f64 {
        self.memory.states.get(route).map_or(0.0, |state| state.share_of(backend))
    }

    fn live(
        &mut self,
        route: &RouteId,
        backend: &BackendId,
        meters: &Meters,
        now: Timestamp,
    ) -> (Live, Volume) {
        let window = self
            .windows
            .entry((route.clone(), backend.clone()))
            .or_insert_with(|| Window::new(meters.get(Some(route), Some(backend))));
        let (live, volume) = window.advance(now);
        meters.get(Some(route), Some(backend)).lateness.note(live.ttfb_p95, live.samples);
        (live, volume)
    }

    /// Drops what belongs to routes and backends that are no longer configured. What was spent stays.
    fn forget_removed(&mut self, settings: &Settings) {
        let known = |route: &RouteId| settings.routes.iter().any(|r| r.id == *route);
        if self.memory.states.len() > settings.routes.len() || self.memory.flows.len() > settings.routes.len()
        {
            self.memory.states.retain(|route, _| known(route));
            self.memory.last_moves.retain(|route, _| known(route));
            self.memory.flows.retain(|route, _| known(route));
            self.memory.stays.retain(|route, _| known(route));
            self.memory.shadows.retain(known);
        }
        self.accounts.forget_removed(&settings.routes);
        self.rates.forget_removed(&settings.routes);
        let pairs: usize = settings.routes.iter().map(|route| route.backends.len()).sum();
        if self.windows.len() > pairs {
            self.windows.retain(|(route, backend), _| {
                settings.routes.iter().any(|r| r.id == *route && r.backends.contains(backend))
            });
        }
    }
}

/// Whether an override is about a route, by name or through one of its backends.
pub(super) fn concerns(order: &Override, route: &Route) -> bool {
    order.route.as_ref().is_none_or(|r| *r == route.id)
        && order.backend.as_ref().is_none_or(|b| route.backends.contains(b))
}

/// What is observed of a backend, whatever the route.
pub(super) struct Observed {
    backend: Arc<Backend>,
    addresses: Arc<[SocketAddr]>,
    /// Without what only a route knows.
    pub(super) template: BackendView,
}

impl Observed {
    pub(super) fn all(
        settings: &Settings,
        signals: &Signals,
        now: Timestamp,
    ) -> HashMap<BackendId, Observed> {
        let in_flight = signals.meters.in_flight_by_backend();
        let (book, notices) = (lock(&signals.book), lock(&signals.notices));
        settings
            .backends
            .iter()
            .map(|backend| {
                let (spot, on_demand) = book.view(backend, now);
                let (health, probe) = signals.probes.view(&backend.id, now);
                // It would refuse every request.
                let unshown = backend.auth.is_some() && signals.credentials.fault(&backend.id).is_some();
                let health = if unshown { Health::Unhealthy } else { health };
                let addresses = signals.resolver.addresses(&backend.id);
                let template = BackendView {
                    backend: backend.clone(),
                    spot,
                    on_demand,
                    interruptions: notices.rate_in_force(backend),
                    health,
                    probe,
                    live: Live::default(),
                    load: signals.load.view(
                        &backend.id,
                        in_flight.get(&backend.id).copied().unwrap_or(0),
                        now,
                    ),
                    ejected: None,
                    leaving: notices.leaving(&backend.id, signals.load.ready_seen_at(&backend.id, now), now),
                    load_elsewhere_rps: 0.0,
                    resolved: !addresses.is_empty(),
                };
                (backend.id.clone(), Observed { backend: backend.clone(), addresses, template })
            })
            .collect()
    }

    fn view(&self, live: Live, load_elsewhere_rps: f64) -> BackendView {
        BackendView { live, load_elsewhere_rps, ..self.template.clone() }
    }
}

/// What the request path shall read.
fn table(
    settings: &Settings,
    observed: &HashMap<BackendId, Observed>,
    routes: &[RoutePicture],
    generation: u64,
) -> RoutingTable {
    let places: HashMap<&BackendId, usize> =
        settings.backends.iter().enumerate().map(|(i, backend)| (&backend.id, i)).collect();
    let backends = settings
        .backends
        .iter()
        .map(|backend| BackendEntry {
            backend: backend.clone(),
            // The very addresses that the decision was made with.
            addresses: observed[&backend.id].addresses.clone(),
        })
        .collect();
    let routes = settings
        .routes
        .iter()
        .zip(routes)
        .map(|(route, picture)| {
            let verdicts = &picture.decision.backends;
            let place = |id: &BackendId| places[id];
            RouteEntry {
                route: route.clone(),
                shares: verdicts.iter().map(|v| (place(&v.backend), v.share)).collect(),
                failover: failover(picture).into_iter().map(|id| place(&id)).collect(),
                decision: None,
            }
        })
        .collect();
    RoutingTable { generation, backends, routes }
}

/// Where a request may go when its first choice cannot be reached: backends that may serve, those with traffic first, then
/// by cost, the unknown last.
fn failover(picture: &RoutePicture) -> Vec<BackendId> {
    let mut able: Vec<_> = picture
        .decision
        .backends
        .iter()
        .zip(&picture.snapshot.backends)
        .filter(|(verdict, view)| verdict.eligible && view.health != Health::Unhealthy)
        .map(|(verdict, _)| verdict)
        .collect();
    let cost = |verdict: &crate::model::Verdict| verdict.marginal_usd_per_1k.unwrap_or(f64::MAX);
    able.sort_by(|a, b| b.share.total_cmp(&a.share).then(cost(a).total_cmp(&cost(b))));
    able.into_iter().map(|verdict| verdict.backend.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, counts: &[(&str, u64)]) -> Arrived {
        let by_backend = counts.iter().map(|(id, count)| (id.parse().ok(), *count)).collect();
        Arrived { at: Timestamp::from_second(second).unwrap(), by_backend }
    }

    #[test]
    fn demand_is_what_arrives_now_whoever_joins_the_route() {
        let mut flow = Flow::default();
        for second in 0..100 {
            flow.arrive(at(second, &[("a", 10 * second as u64), ("", second as u64)]));
        }
        assert!((flow.demand_rps - 11.0).abs() < 0.01, "{}", flow.demand_rps);
        // B was in the route before, and comes back with all it ever served.
        for second in 100..103 {
            flow.arrive(at(second, &[("b", 5_000_000), ("a", 10 * second as u64), ("", second as u64)]));
        }
        assert!((flow.demand_rps - 11.0).abs() < 0.01, "{}", flow.demand_rps);
        // What goes on from A to B has arrived once.
        flow.arrive(at(103, &[("b", 5_000_010), ("a", 1020), ("", 103)]));
        assert!((flow.demand_rps - 11.0).abs() < 0.01, "{}", flow.demand_rps);
        flow.arrive(at(103, &[("b", 6_000_000), ("a", 1020), ("", 103)]));
        assert!((flow.demand_rps - 11.0).abs() < 0.01, "a clock that stands still: {}", flow.demand_rps);
    }
}
