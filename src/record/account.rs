//! What the requests of a route came to in some time: the `account` entries of the journal.
//!
//! Numbers that are 0 are left out of the JSON, and so is what is not known; of which fields the latter can be true, their
//! comments say.

use serde::{Deserialize, Serialize};

use super::reckoning::Reckoning;
use crate::model::{BackendId, PolicyId, Timestamp};

/// Digits after the point of an amount in USD in the journal: a millionth of a request's cost, and sums of a year of
/// accounts are right to a cent.
const DIGITS: f64 = 1e9;

/// Where the traffic would be had it stayed: what savings are measured against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// The backend that would have served all of the route at the least cost, at the first decision of the UTC day.
    pub backend: BackendId,
    /// That moment.
    pub since: Timestamp,
}

/// What a route came to from one moment to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// The beginning; the end is when the entry was made. Absent before the first turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Its length in seconds.
    pub seconds: f64,
    /// Requests that no backend served: Tradewind answered them itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// Its backends, in the operator's order.
    pub backends: Vec<BackendAccount>,
    /// What savings are measured against; absent while no backend's cost is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stay: Option<Stay>,
    /// Avoidable USD that were not spent because traffic did not stay there; negative when it would have been cheaper to
    /// stay. What moves cost is taken off (`standby_usd`).
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub saved_usd: f64,
    /// USD for replicas that a move left behind, and that still ran.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub standby_usd: f64,
    /// The part of the savings, added up without sign, that comes from prices that were not fresh.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub doubtful_usd: f64,
    /// Requests for which it cannot be told what was saved, since a cost was unknown: nothing is counted for them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncompared: u64,
    /// Time to first byte that 95% of the requests are promised, in seconds; absent without an objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_seconds: Option<f64>,
    /// What shadow policies would have done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowAccount>,
}

/// What the requests at one backend came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendAccount {
    /// The backend.
    pub backend: BackendId,
    /// Finished requests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests: u64,
    /// Attempts that failed there: no connection, broken, or a 5xx answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: u64,
    /// First bytes that came, where the route has an objective.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timed: u64,
    /// Those that came later than the objective allows; a time within an eighth above it may be among them or not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub over_slo: u64,
    /// USD that the requests cost beyond what is paid anyway.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub usd: f64,
    /// Requests whose cost was unknown: they are in no amount.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unpriced: u64,
    /// USD that the backend's minimum of replicas costs in this time, whatever is served, for all routes together; absent
    /// when its cost is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_usd: Option<f64>,
    /// USD that all of the route's requests would have cost more had they been served here, as far as that was possible;
    /// negative for less. Absent when it was possible at no time, or the cost is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_usd: Option<f64>,
    /// Requests of the route that `instead_usd` is about: those that could have been served here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub possible: u64,
}

/// What a shadow policy would have done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowAccount {
    /// The policy.
    pub policy: PolicyId,
    /// Where it would have most of the traffic at the end of this time; absent when nobody could serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// USD that it would have cost more, what its moves cost included; negative for less.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub more_usd: f64,
    /// Moves that it would have made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moves: u64,
    /// Requests for which it cannot be told, since a cost was unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncompared: u64,
}

impl Account {
    /// Finished requests at all backends.
    pub fn requests(&self) -> u64 {
        self.backends.iter().map(|backend| backend.requests).sum()
    }

    /// USD spent beyond what is paid anyway.
    pub fn usd(&self) -> f64 {
        self.backends.iter().map(|backend| backend.usd).sum()
    }

    /// The part of a shadow policy, made when first asked for.
    pub fn shadow(&mut self, policy: &PolicyId) -> &mut ShadowAccount {
        let place = self.shadows.iter().position(|shadow| shadow.policy == *policy).unwrap_or_else(|| {
            self.shadows.push(ShadowAccount {
                policy: policy.clone(),
                backend: None,
                more_usd: 0.0,
                moves: 0,
                uncompared: 0,
            });
            self.shadows.len() - 1
        });
        &mut self.shadows[place]
    }

    /// Whether more requests were late than the objective allows: 5% of those that were timed.
    pub fn is_over_slo(&self) -> bool {
        let (timed, over) = self.backends.iter().fold((0, 0), |sum, b| (sum.0 + b.timed, sum.1 + b.over_slo));
        over as f64 > timed as f64 * 0.05
    }

    /// Adds a turn of the loop, `reckoning` being over the requests that ended in it and `seconds` its length.
    pub fn add(&mut self, reckoning: &Reckoning<'_>, seconds: f64) {
        self.seconds += seconds;
        for (index, backend) in reckoning.backends().enumerate() {
            let place = self.place_of(backend, index);
            let account = &mut self.backends[place];
            let served = reckoning.served(index);
            account.requests += served;
            match reckoning.usd(index) {
                Some(usd) => account.usd += usd,
                None => account.unpriced += served,
            }
            if let Some(per_hour) = reckoning.minimum_usd_per_hour(index) {
                *account.minimum_usd.get_or_insert(0.0) += per_hour * seconds / 3600.0;
            }
            if let Some((more, possible)) = reckoning.all_at(index) {
                *account.instead_usd.get_or_insert(0.0) += more;
                account.possible += possible;
            }
        }
        let standby = reckoning.standby_usd_per_hour() * seconds / 3600.0;
        self.standby_usd += standby;
        self.saved_usd -= standby;
        let stay = self.stay.as_ref().and_then(|stay| reckoning.backends().position(|b| *b == stay.backend));
        match stay.and_then(|stay| reckoning.stayed_at(stay)) {
            Some(saved) => {
                self.saved_usd += saved.usd;
                self.doubtful_usd += if saved.doubtful { saved.usd.abs() } else { 0.0 };
            }
            None => self.uncompared += reckoning.requests(),
        }
    }

    /// Where a backend is; it is added where it is not. Its place in the snapshot is where it is but after a reload.
    fn place_of(&mut self, backend: &BackendId, guess: usize) -> usize {
        if self.backends.get(guess).is_some_and(|of| of.backend == *backend) {
            return guess;
        }
        self.backends.iter().position(|of| of.backend == *backend).unwrap_or_else(|| {
            self.backends.push(BackendAccount::new(backend.clone()));
            self.backends.len() - 1
        })
    }

    /// The same with amounts rounded for the journal.
    pub fn rounded(mut self) -> Account {
        let round = |usd: &mut f64| *usd = (*usd * DIGITS).round() / DIGITS + 0.0;
        round(&mut self.seconds);
        [&mut self.saved_usd, &mut self.standby_usd, &mut self.doubtful_usd].into_iter().for_each(round);
        for backend in &mut self.backends {
            round(&mut backend.usd);
            backend.minimum_usd.iter_mut().for_each(round);
            backend.instead_usd.iter_mut().for_each(round);
        }
        self.shadows.iter_mut().for_each(|shadow| round(&mut shadow.more_usd));
        self
    }
}

impl BackendAccount {
    /// Nothing yet.
    pub fn new(backend: BackendId) -> BackendAccount {
        BackendAccount {
            backend,
            requests: 0,
            errors: 0,
            timed: 0,
            over_slo: 0,
            usd: 0.0,
            unpriced: 0,
            minimum_usd: None,
            instead_usd: None,
            possible: 0,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn is_nothing(usd: &f64) -> bool {
    *usd == 0.0
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::worlds::{World, at};

    /// Bytes of the entries about a route with so many backends, each with requests: an account, and a decision.
    fn entry_bytes(backends: usize) -> (usize, usize) {
        let names: Vec<String> = (0..backends).map(|n| format!("eks-us-east-{n:02}")).collect();
        let list: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.2345)).collect();
        let mut world = World::new(&list);
        for name in &names {
            let live = &mut world.view_mut(name).live;
            (live.rps, live.ttfb_p50) = (1.0 / 3.0, Some(std::time::Duration::from_micros(123_457)));
            world.configure(name, |backend| backend.replicas.as_mut().unwrap().min = 2);
        }
        let before = world.state.clone();
        let decision = world.tick();
        let served = vec![1234; backends];
        let mut account = Account {
            from: Some(at(0)),
            stay: Some(Stay { backend: names[0].parse().unwrap(), since: at(0) }),
            slo_seconds: Some(0.8),
            ..Account::default()
        };
        account.add(&Reckoning::new(&world.snapshot, &decision, &served), 59.987_654_321);
        for backend in &mut account.backends {
            (backend.timed, backend.over_slo, backend.errors) = (1234, 12, 1);
        }
        let body = json!({"decision": decision, "policy": world.policy, "state": before, "snapshot": world.snapshot});
        let head = r#"{"at":"2026-03-02T10:00:00.123456789Z","kind":"account","route":"chat"}"#.len();
        (head + json!(account.rounded()).to_string().len(), head + body.to_string().len())
    }

    /// docs/report.md says what a day takes.
    #[test]
    fn entries_are_as_long_as_the_documentation_says() {
        let (two, ten) = (entry_bytes(2), entry_bytes(10));
        println!("accounts {} {}, decisions {} {}", two.0, ten.0, two.1, ten.1);
        assert!(two.0 <= 700 && ten.0 <= 2_300 && two.1 <= 4_500 && ten.1 <= 20_000, "{two:?} {ten:?}");
    }

    #[test]
    fn what_is_zero_or_unknown_is_left_out_and_read_back() {
        let account =
            Account { backends: vec![BackendAccount::new("a".parse().unwrap())], ..Account::default() };
        let value: Value = json!(account);
        assert_eq!(value, json!({"seconds": 0.0, "backends": [{"backend": "a"}]}));
        assert_eq!(serde_json::from_value::<Account>(value).unwrap(), account);
    }

    #[test]
    fn a_time_is_over_the_objective_when_more_than_a_twentieth_is_late() {
        let mut account =
            Account { backends: vec![BackendAccount::new("a".parse().unwrap())], ..Account::default() };
        assert!(!account.is_over_slo());
        (account.backends[0].timed, account.backends[0].over_slo) = (100, 5);
        assert!(!account.is_over_slo());
        account.backends[0].over_slo = 6;
        assert!(account.is_over_slo());
    }
}
