//! Keeps the accounts: what the requests of every route cost, what they would have cost elsewhere, and when that is journaled.

use std::{collections::HashMap, time::Duration};

use super::{savings::Added, shadow::Followed};

use crate::{
    model::{BackendId, Decision, Route, RouteId, Snapshot, Timestamp},
    policy::{State, explain},
    record::{Account, BackendAccount, Stay, reckoning::Reckoning},
    signals::traffic::Meters,
};

/// Longest time that an account is about.
const ACCOUNT_EVERY: Duration = Duration::from_secs(60);

/// Shortest time of an account that ends because the reason of the decision changed without a move: reasons that change from
/// turn to turn must not fill the journal.
const ACCOUNT_SPACING: Duration = Duration::from_secs(10);

/// Longest turn whose time is counted: a machine that was suspended ran no replicas for us to count.
const TURN_MAX: Duration = Duration::from_secs(60);

/// The counters of a route and a backend as they were last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    requests: u64,
    failures: u64,
    /// First bytes beyond the objective, and all, up to then; with the objective they were counted by.
    late: u64,
    timed: u64,
    objective: Option<Duration>,
}

/// A route's account that is still open.
#[derive(Debug, Default)]
struct Open {
    account: Account,
    at: Option<Timestamp>,
    reason: &'static str,
    refused: u64,
}

/// The accounts of all routes.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    open: HashMap<RouteId, Open>,
    marks: HashMap<(RouteId, BackendId), Mark>,
    spent_usd: HashMap<(RouteId, BackendId), f64>,
    saved_usd: HashMap<RouteId, f64>,
}

/// One route's turn.
pub(super) struct RouteTurn<'a> {
    pub(super) route: &'a Route,
    pub(super) snapshot: &'a Snapshot,
    pub(super) decision: &'a Decision,
    /// What the decision left.
    pub(super) state: &'a State,
    /// Its shadow policies, which have decided.
    pub(super) shadows: &'a mut [Followed],
    /// What savings are measured against; chosen anew for every UTC day.
    pub(super) stay: &'a mut Option<Stay>,
    /// What all routes saved in this turn.
    pub(super) added: &'a mut Added,
}

impl Accounts {
    /// Adds a turn; gives the account of the route if it is due.
    pub(super) fn turn(&mut self, turn: RouteTurn<'_>, meters: &Meters) -> Option<Account> {
        let RouteTurn { route, snapshot, decision, state, shadows, stay, added } = turn;
        let now = decision.at;
        let served = self.served(route, snapshot, meters);
        let reckoning = Reckoning::new(snapshot, decision, &served).with_standby(state, route.policy.hold);
        let day = |at: Timestamp| at.as_second().div_euclid(86_400);
        if stay.as_ref().is_none_or(|stay| day(stay.since) != day(now)) {
            let chosen = reckoning.cheapest_alone();
            *stay = chosen.map(|backend| Stay { backend: backend.clone(), since: now });
        }
        let code = decision.reason.code();
        let open = self.open.entry(route.id.clone()).or_default();
        if open.account.stay != *stay && open.account.seconds == 0.0 {
            open.account.stay.clone_from(stay);
        }
        let from = *open.account.from.get_or_insert(now);
        let elapsed = open.at.map_or(Duration::ZERO, |at| now.duration_since(at).unsigned_abs());
        open.at = Some(now);
        let (before, uncompared) = (open.account.saved_usd, open.account.uncompared);
        let seconds = elapsed.min(TURN_MAX).as_secs_f64();
        open.account.add(&reckoning, seconds);
        for (followed, policy) in shadows.iter_mut().zip(&route.shadow) {
            let difference = followed.add(&reckoning, policy, seconds);
            let backend = followed.decision.as_ref().and_then(Decision::main_backend);
            let account = open.account.shadow(&followed.policy);
            account.backend = backend.cloned();
            account.moves += u64::from(difference.moved);
            match difference.more_usd {
                Some(usd) => account.more_usd += usd,
                None => account.uncompared += reckoning.requests(),
            }
        }
        let saved_usd = open.account.saved_usd - before;
        *self.saved_usd.entry(route.id.clone()).or_default() += saved_usd;
        added.usd += saved_usd;
        added.requests += reckoning.requests();
        added.uncompared += open.account.uncompared - uncompared;
        for (index, backend) in reckoning.backends().enumerate() {
            let spent = self.spent_usd.entry((route.id.clone(), backend.clone())).or_default();
            *spent += reckoning.usd(index).unwrap_or(0.0);
        }
        let age = now.duration_since(from).unsigned_abs();
        let changed = std::mem::replace(&mut open.reason, code) != code && age >= ACCOUNT_SPACING;
        let due = age >= ACCOUNT_EVERY || changed || explain::is_move(decision) || open.account.stay != *stay;
        due.then(|| self.close(route, now, stay, meters)).flatten()
    }

    /// Ends the account of a route, and begins the next one; `None` if nothing was counted yet.
    pub(super) fn close(
        &mut self,
        route: &Route,
        now: Timestamp,
        stay: &Option<Stay>,
        meters: &Meters,
    ) -> Option<Account> {
        let open = self.open.get_mut(&route.id)?;
        let next = Account { from: Some(now), stay: stay.clone(), ..Account::default() };
        let mut account = std::mem::replace(&mut open.account, next);
        let refused = meters.get(Some(&route.id), None).requests();
        account.refused = refused.saturating_sub(std::mem::replace(&mut open.refused, refused));
        account.slo_seconds = route.slo.ttft_p95.map(|time| time.as_secs_f64());
        for backend in &mut account.backends {
            self.count(route, backend, meters);
        }
        (account.seconds > 0.0 || account.requests() > 0).then(|| account.rounded())
    }

    /// USD spent since the start, by route and backend.
    pub(super) fn spent_usd(&self) -> Vec<(RouteId, BackendId, f64)> {
        self.spent_usd.iter().map(|((route, backend), usd)| (route.clone(), backend.clone(), *usd)).collect()
    }

    /// USD saved since the start, by route.
    pub(super) fn saved_usd(&self) -> Vec<(RouteId, f64)> {
        self.saved_usd.iter().map(|(route, usd)| (route.clone(), *usd)).collect()
    }

    /// Drops what belongs to routes and backends that are no longer configured. What was spent and saved stays.
    pub(super) fn forget_removed(&mut self, routes: &[std::sync::Arc<Route>]) {
        let pairs: usize = routes.iter().map(|route| route.backends.len()).sum();
        if self.open.len() > routes.len() {
            self.open.retain(|id, _| routes.iter().any(|route| route.id == *id));
        }
        if self.marks.len() > pairs {
            self.marks.retain(|(id, backend), _| {
                routes.iter().any(|route| route.id == *id && route.backends.contains(backend))
            });
        }
    }

    /// Requests that have ended at each backend since the last turn.
    fn served(&mut self, route: &Route, snapshot: &Snapshot, meters: &Meters) -> Vec<u64> {
        let of = |view: &crate::model::BackendView| {
            let backend = &view.backend.id;
            let meter = meters.get(Some(&route.id), Some(backend));
            let requests = meter.requests();
            let key = (route.id.clone(), backend.clone());
            // What was counted before this was first looked at belongs to no account.
            let mark = self.marks.entry(key).or_insert_with(|| {
                let objective = route.slo.ttft_p95;
                let (late, timed) = objective.map_or((0, 0), |limit| meter.first_byte.later_than(limit));
                Mark { requests, failures: meter.failures(), late, timed, objective }
            });
            requests - std::mem::replace(&mut mark.requests, requests)
        };
        snapshot.backends.iter().map(of).collect()
    }

    /// Fills in what is counted once an account.
    fn count(&mut self, route: &Route, account: &mut BackendAccount, meters: &Meters) {
        let meter = meters.get(Some(&route.id), Some(&account.backend));
        let Some(mark) = self.marks.get_mut(&(route.id.clone(), account.backend.clone())) else { return };
        let failures = meter.failures();
        account.errors = failures - std::mem::replace(&mut mark.failures, failures);
        let objective = route.slo.ttft_p95;
        let (late, timed) = objective.map_or((0, 0), |limit| meter.first_byte.later_than(limit));
        // With another objective other times are late: counting begins anew.
        if mark.objective == objective {
            account.over_slo = late.saturating_sub(mark.late);
            account.timed = timed.saturating_sub(mark.timed);
        }
        (mark.late, mark.timed, mark.objective) = (late, timed, objective);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{HostPattern, PathPattern, RouteMatch, Slo},
        policy::worlds::World,
        signals::traffic::Outcome,
    };

    /// A world, its requests and its accounts.
    struct Books {
        world: World,
        route: Route,
        meters: Meters,
        accounts: Accounts,
        stay: Option<Stay>,
    }

    impl Books {
        /// a at 0.1, b at 0.2 USD per 1,000 requests.
        fn new() -> Books {
            let mut world = World::new(&[("a", 3.6), ("b", 7.2)]);
            // Nothing runs on after a move.
            world.policy.hold = Duration::ZERO;
            // Its clock starts on a full minute before midnight.
            world.now = (86_400 - 1_700_000_000i64.rem_euclid(86_400)) - 120;
            let matches = RouteMatch {
                host: HostPattern::Any,
                path: PathPattern::Prefix(String::new()),
                models: Vec::new(),
                headers: Vec::new(),
            };
            let route = Route {
                id: "chat".parse().unwrap(),
                matches,
                backends: vec!["a".parse().unwrap(), "b".parse().unwrap()],
                policy: Arc::new(world.policy.clone()),
                shadow: Vec::new(),
                slo: Slo { ttft_p95: Some(Duration::from_millis(100)) },
                aliases: Default::default(),
                retry: Default::default(),
                priority: Default::default(),
                silence_timeout: None,
                affinity: None,
                hedge: None,
                tokens_per_request: None,
            };
            Books { world, route, meters: Meters::default(), accounts: Accounts::default(), stay: None }
        }

        fn serve(&self, backend: &str, requests: u64) {
            let meter = self.meters.get(Some(&self.route.id), Some(&backend.parse().unwrap()));
            for n in 0..requests {
                let duration = Duration::from_millis(if n % 10 == 0 { 500 } else { 10 });
                meter.first_byte.record(duration);
                meter.finish(&Outcome {
                    code: 200,
                    failed: false,
                    duration,
                    bytes_received: 0,
                    bytes_sent: 0,
                });
            }
        }

        fn turn(&mut self) -> Option<Account> {
            let decision = self.world.tick();
            let turn = RouteTurn {
                route: &self.route,
                snapshot: &self.world.snapshot,
                decision: &decision,
                state: &self.world.state,
                shadows: &mut [],
                stay: &mut self.stay,
                added: &mut Added::default(),
            };
            self.accounts.turn(turn, &self.meters)
        }
    }

    #[test]
    fn there_is_an_account_at_a_move_every_minute_and_at_midnight() {
        let mut books = Books::new();
        books.turn();
        let mut due = Vec::new();
        for second in 2..=125 {
            books.serve("a", 10);
            due.extend(books.turn().map(|account| (second, account)));
        }
        let seconds: Vec<i32> = due.iter().map(|(second, _)| *second).collect();
        // The first turn is a placement, and midnight is after two minutes.
        assert_eq!(seconds, [61, 120]);
        let account = &due[0].1;
        assert_eq!((account.seconds, account.requests()), (60.0, 600));
        assert_eq!((account.backends[0].timed, account.backends[0].over_slo), (600, 60));
        assert!((account.usd() - 0.06).abs() < 1e-9 && account.is_over_slo(), "{account:?}");
        assert_eq!(account.stay.as_ref().unwrap().backend.as_str(), "a");
        // Closed at the end of the process, with what was counted since.
        let last =
            books.accounts.close(&books.route, due[1].1.from.unwrap(), &books.stay, &books.meters).unwrap();
        assert_eq!(last.requests(), 50);
    }

    #[test]
    fn savings_are_against_the_cheapest_at_the_first_decision_of_the_day() {
        let mut books = Books::new();
        books.turn();
        assert_eq!(books.stay.as_ref().unwrap().backend.as_str(), "a");
        // a becomes ten times as dear, and traffic goes to b.
        books.world.set_price("a", 36.0);
        books.world.run(60);
        books.serve("b", 1000);
        books.turn();
        let saved = books.accounts.saved_usd()[0].1;
        assert!((saved - (1.0 - 0.2)).abs() < 1e-9, "{saved}");
        let spent = books.accounts.spent_usd();
        assert!((spent.iter().map(|(_, _, usd)| usd).sum::<f64>() - 0.2).abs() < 1e-9, "{spent:?}");
        // The next day begins with b: staying there saves nothing.
        books.world.run(120);
        books.turn();
        assert_eq!(books.stay.as_ref().unwrap().backend.as_str(), "b");
        let before = books.accounts.saved_usd()[0].1;
        books.serve("b", 1000);
        books.turn();
        assert!((books.accounts.saved_usd()[0].1 - before).abs() < 1e-9);
    }

    #[test]
    fn what_was_served_before_belongs_to_no_account() {
        let mut books = Books::new();
        books.serve("a", 100);
        books.turn();
        books.turn();
        assert_eq!(books.accounts.spent_usd().iter().map(|(_, _, usd)| *usd).sum::<f64>(), 0.0);
    }
}
