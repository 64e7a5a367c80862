//! What the journal adds up to, and whether its decisions can be made again. Pure: it is given entries, oldest first, and knows
//! no file and no clock.
//!
//! [`Gathering`] takes entries and ends in a [`Report`]; [`csv`] and [`html`] write that down; [`replay`] makes decisions again.

pub mod csv;
mod day;
mod gathering;
pub mod html;
pub mod replay;
#[cfg(test)]
pub(crate) mod tests;

pub use gathering::Gathering;

use serde::Serialize;

use crate::{
    model::{Action, BackendId, Override, PolicyId, RouteId, Timestamp},
    record::BackendAccount,
};

/// What savings are measured against, in words.
pub const COUNTERFACTUAL: &str = "Saved is what was not spent beyond what is paid anyway because traffic did not stay where it \
    would have cost least at the first decision of each UTC day. Its interval reaches to what would have been spent with all traffic \
    at the one backend that turned out cheapest over the whole period, and counts all that rests on prices that were not fresh once \
    for and once against. Where a backend could not have served, nothing is saved.";

/// Amounts of a route, a day, or all. USD by the cost model; the provider's bill is another document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Money {
    /// What the requests cost beyond what is paid anyway: what `tradewind_cost_usd_total` counts.
    pub requests_usd: f64,
    /// What replicas cost that moves had left behind.
    pub standby_usd: f64,
    /// The two together: what fewer requests, or other places for them, could have avoided.
    pub avoidable_usd: f64,
    /// What was not spent because traffic did not stay, net of `standby_usd`.
    pub saved_usd: f64,
    /// The same against all traffic at the one backend that turned out cheapest over the whole period.
    pub saved_against_cheapest_usd: f64,
    /// What of it rests on prices that were not fresh, added up without sign.
    pub doubtful_usd: f64,
    /// The lower end of its interval. Of a sum it is that of the sums: those of its parts are further away.
    pub saved_low_usd: f64,
    /// The upper end of its interval.
    pub saved_high_usd: f64,
    /// Requests whose cost was unknown; they are in no amount.
    pub unpriced_requests: u64,
    /// Requests for which it cannot be told what was saved; nothing is counted for them.
    pub uncompared_requests: u64,
}

impl Money {
    fn add(&mut self, more: &Money) {
        self.requests_usd += more.requests_usd;
        self.standby_usd += more.standby_usd;
        self.avoidable_usd += more.avoidable_usd;
        self.saved_usd += more.saved_usd;
        self.saved_against_cheapest_usd += more.saved_against_cheapest_usd;
        self.doubtful_usd += more.doubtful_usd;
        self.unpriced_requests += more.unpriced_requests;
        self.uncompared_requests += more.uncompared_requests;
        self.saved_low_usd = self.saved_usd.min(self.saved_against_cheapest_usd) - self.doubtful_usd;
        self.saved_high_usd = self.saved_usd.max(self.saved_against_cheapest_usd) + self.doubtful_usd;
    }
}

/// Counts of a route, a backend, a day, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Finished requests at backends.
    pub requests: u64,
    /// Attempts that failed at a backend.
    pub errors: u64,
    /// Requests that no backend served.
    pub refused: u64,
    /// First bytes that were timed against an objective.
    pub timed: u64,
    /// Those that came too late.
    pub over_slo: u64,
    /// Seconds in which more than 5% of a route's first bytes came too late.
    pub over_slo_seconds: f64,
}

impl Traffic {
    fn of(account: &BackendAccount) -> Traffic {
        let BackendAccount { requests, errors, timed, over_slo, .. } = *account;
        Traffic { requests, errors, timed, over_slo, ..Traffic::default() }
    }

    fn add(&mut self, more: &Traffic) {
        self.requests += more.requests;
        self.errors += more.errors;
        self.refused += more.refused;
        self.timed += more.timed;
        self.over_slo += more.over_slo;
        self.over_slo_seconds += more.over_slo_seconds;
    }
}

/// What a route came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteReport {
    /// Its name.
    pub route: RouteId,
    /// Its requests.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Its amounts.
    #[serde(flatten)]
    pub money: Money,
    /// Moves of its traffic.
    pub moves: u64,
    /// The backend that would have been the cheapest for all of it over the whole period; absent when that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cheapest_alone: Option<BackendId>,
    /// What its shadow policies would have done.
    pub shadows: Vec<ShadowReport>,
}

/// What a shadow policy would have come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShadowReport {
    /// The policy.
    pub policy: PolicyId,
    /// Since when it was followed, within the period.
    pub since: Timestamp,
    /// Where it would have most of the traffic; absent when nobody could serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// Avoidable USD of the live policy in this time, its moves included.
    pub live_usd: f64,
    /// The same of this one.
    pub shadow_usd: f64,
    /// Moves that it would have made.
    pub moves: u64,
    /// Requests for which it cannot be told.
    pub uncompared_requests: u64,
}

/// What a backend came to, over all routes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendReport {
    /// Its name.
    pub backend: BackendId,
    /// Its requests.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// What they cost beyond what is paid anyway.
    pub requests_usd: f64,
    /// Requests whose cost was unknown.
    pub unpriced_requests: u64,
    /// What its minimum of replicas cost; absent if that was never known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_usd: Option<f64>,
}

/// What a day came to, in UTC.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DayReport {
    /// The day, `2026-03-02`.
    pub day: String,
    /// Its requests.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Its amounts.
    #[serde(flatten)]
    pub money: Money,
    /// What minimums of replicas cost.
    pub minimum_usd: f64,
    /// Moves of traffic.
    pub moves: u64,
}

/// Traffic that was sent elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// When it was decided.
    pub at: Timestamp,
    /// The route.
    pub route: RouteId,
    /// What was done.
    pub action: Action,
    /// Why, as a stable name.
    pub code: String,
    /// Why, in words.
    pub reason: String,
}

/// An override and how long it held.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverrideReport {
    /// What was imposed, by whom and why.
    #[serde(flatten)]
    pub order: Override,
    /// When it ended; absent while it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Who ended it; absent when it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// How long it held, up to the end of the period.
    pub held_seconds: f64,
}

/// A time about which the journal says nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gap {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// Why, as far as the journal says.
    pub why: &'static str,
}

/// An hour or a day in a plot.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Its beginning, in seconds since 1970.
    pub second: i64,
    /// Avoidable USD.
    pub avoidable_usd: f64,
    /// Saved USD.
    pub saved_usd: f64,
    /// Requests by backend, in the order of [`Report::backends`].
    pub requests: Vec<u64>,
}

/// What the journal adds up to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The beginning of the period.
    pub since: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// The first moment that accounts are about, within the period; absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    /// What savings are measured against.
    pub counterfactual: &'static str,
    /// All requests.
    pub traffic: Traffic,
    /// All amounts.
    pub money: Money,
    /// What minimums of replicas cost, whatever was served.
    pub minimum_usd: f64,
    /// `minimum_usd` and `avoidable_usd` together.
    pub spent_usd: f64,
    /// By route.
    pub routes: Vec<RouteReport>,
    /// By backend.
    pub backends: Vec<BackendReport>,
    /// By day.
    pub days: Vec<DayReport>,
    /// Moves, oldest first.
    pub moves: Vec<Move>,
    /// Overrides, oldest first.
    pub overrides: Vec<OverrideReport>,
    /// Times without accounts.
    pub gaps: Vec<Gap>,
    /// What the reader should know of the journal itself: damaged lines, what is missing.
    pub notes: Vec<String>,
    /// Requests and amounts over time, an hour or a day each.
    #[serde(skip)]
    pub series: Vec<Point>,
    /// Requests and amounts by day, route and backend, for spreadsheets.
    #[serde(skip)]
    pub rows: Vec<csv::Row>,
}

/// The day of a moment, in UTC, counted from 1970.
fn day_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

/// `2026-03-02`.
fn day_name(day: i64) -> String {
    Timestamp::from_second(day * 86_400).map_or_else(|_| day.to_string(), |at| at.strftime("%F").to_string())
}
