//! What a route came to on a day: what a report is added up from.

use std::collections::BTreeMap;

use super::{Money, Traffic};
use crate::{model::BackendId, record::BackendAccount};

/// What a route came to on a day.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteDay {
    pub(super) traffic: Traffic,
    pub(super) requests_usd: f64,
    pub(super) standby_usd: f64,
    pub(super) saved_usd: f64,
    pub(super) doubtful_usd: f64,
    pub(super) unpriced: u64,
    pub(super) uncompared: u64,
    pub(super) moves: u64,
    pub(super) backends: BTreeMap<BackendId, BackendDay>,
}

/// What the requests of a route at a backend came to on a day.
#[derive(Clone, Debug, Default)]
pub(super) struct BackendDay {
    pub(super) traffic: Traffic,
    pub(super) usd: f64,
    pub(super) unpriced: u64,
    pub(super) minimum_usd: Option<f64>,
    pub(super) instead_usd: f64,
    pub(super) possible: u64,
}

impl RouteDay {
    /// Its amounts; `cheapest` is where all of the route would have cost least over the whole period.
    pub(super) fn money(&self, cheapest: Option<&BackendId>) -> Money {
        let alone = cheapest.and_then(|backend| self.backends.get(backend));
        // On a day on which that backend was not configured there was no such choice.
        let against_alone = alone.map_or(self.saved_usd, |of| of.instead_usd - self.standby_usd);
        let mut money = Money::default();
        money.add(&Money {
            requests_usd: self.requests_usd,
            standby_usd: self.standby_usd,
            avoidable_usd: self.requests_usd + self.standby_usd,
            saved_usd: self.saved_usd,
            saved_against_cheapest_usd: against_alone,
            doubtful_usd: self.doubtful_usd,
            unpriced_requests: self.unpriced,
            uncompared_requests: self.uncompared,
            ..Money::default()
        });
        money
    }
}

impl BackendDay {
    pub(super) fn add(&mut self, account: &BackendAccount) {
        self.traffic.add(&Traffic::of(account));
        self.usd += account.usd;
        self.unpriced += account.unpriced;
        if let Some(usd) = account.minimum_usd {
            *self.minimum_usd.get_or_insert(0.0) += usd;
        }
        self.instead_usd += account.instead_usd.unwrap_or(0.0);
        self.possible += account.possible;
    }
}
