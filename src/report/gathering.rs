//! From entries to a report.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    BackendReport, COUNTERFACTUAL, DayReport, Gap, Money, Move, OverrideReport, Point, Report, RouteReport,
    ShadowReport, Traffic, csv, day::RouteDay, day_name, day_of,
};
use crate::{
    model::{Action, BackendId, Override, PolicyId, Reason, RouteId, Timestamp},
    record::Account,
};

/// Moves and overrides that are kept: a report with more of them is read by nobody, and its sums are right all the same.
const LISTED_MAX: usize = 10_000;

/// Damaged lines that are named one by one.
const DAMAGED_NAMED_MAX: usize = 5;

/// A pause between two accounts that is no gap: the next turn of the loop, and clocks that are adjusted.
const PAUSE_SECONDS: f64 = 10.0;

/// Time before the end of the period that the next account may still be about.
const END_SECONDS: f64 = 120.0;

/// Hours up to which plots are by the hour.
const HOURLY_MAX: i64 = 72;

/// A backend stands for "all traffic at one place" only if it could have served this part of the requests.
const POSSIBLE_MIN: f64 = 0.5;

#[derive(Clone, Debug)]
struct Shadow {
    since: Timestamp,
    backend: Option<BackendId>,
    live_usd: f64,
    more_usd: f64,
    moves: u64,
    uncompared: u64,
}

/// Takes the entries of a journal, oldest first.
#[derive(Clone, Debug)]
pub struct Gathering {
    since: Timestamp,
    until: Timestamp,
    only: Option<RouteId>,
    days: BTreeMap<(RouteId, i64), RouteDay>,
    hours: BTreeMap<i64, (f64, f64, BTreeMap<BackendId, u64>)>,
    shadows: BTreeMap<(RouteId, PolicyId), Shadow>,
    moves: Vec<Move>,
    overrides: Vec<OverrideReport>,
    gaps: Vec<Gap>,
    covered: Option<(Timestamp, Timestamp)>,
    stopped: bool,
    /// The first entry of any time: from here on the journal is kept.
    begins: Option<Timestamp>,
    damaged: u64,
    notes: Vec<String>,
    unlisted: u64,
}

#[derive(Deserialize)]
struct Decided {
    decision: Made,
}

#[derive(Deserialize)]
struct Made {
    action: Action,
    reason: Reason,
}

#[derive(Deserialize)]
struct Ordered {
    event: String,
    #[serde(default)]
    author: Option<String>,
    r#override: Override,
}

impl Gathering {
    /// Nothing yet: of entries from `since` to `until`, of one route or all.
    pub fn new(since: Timestamp, until: Timestamp, only: Option<RouteId>) -> Gathering {
        Gathering {
            since,
            until,
            only,
            days: BTreeMap::new(),
            hours: BTreeMap::new(),
            shadows: BTreeMap::new(),
            moves: Vec::new(),
            overrides: Vec::new(),
            gaps: Vec::new(),
            covered: None,
            stopped: false,
            begins: None,
            damaged: 0,
            notes: Vec::new(),
            unlisted: 0,
        }
    }

    /// A line that is no entry.
    pub fn damaged(&mut self, place: &str, why: &str) {
        self.damaged += 1;
        if self.notes.len() < DAMAGED_NAMED_MAX {
            self.notes.push(format!("{place}: this line is damaged and left out: {why}"));
        }
    }

    /// Something that the reader should know.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// An entry: its kind as the journal spells it, and the fields of its body.
    pub fn take(&mut self, at: Timestamp, kind: &str, route: Option<&RouteId>, body: &Map<String, Value>) {
        self.begins = Some(self.begins.map_or(at, |begins| begins.min(at)));
        let wanted = (self.since..=self.until).contains(&at)
            && route.is_none_or(|route| self.only.as_ref().is_none_or(|only| only == route));
        match (kind, route) {
            // Its start, which follows, says nothing about how it ended.
            ("process", _) => self.stopped |= body.get("event").is_some_and(|event| event == "stopped"),
            ("override", _) => self.take_override(at, body),
            ("account", Some(route)) if wanted => match read::<Account>(body) {
                Ok(account) => self.take_account(at, route, &account),
                Err(why) => self.damaged(&format!("account of {route} at {at}"), &why),
            },
            ("decision", Some(route)) if wanted => match read::<Decided>(body) {
                Ok(Decided { decision }) => self.take_decision(at, route, &decision),
                Err(why) => self.damaged(&format!("decision about {route} at {at}"), &why),
            },
            _ => {}
        }
    }

    fn take_decision(&mut self, at: Timestamp, route: &RouteId, made: &Made) {
        // The first placement is a beginning, and staying is none.
        if matches!(made.action, Action::Place | Action::Stay) {
            return;
        }
        self.days.entry((route.clone(), day_of(at))).or_default().moves += 1;
        if self.moves.len() >= LISTED_MAX {
            self.unlisted += 1;
            return;
        }
        let (code, reason) = (made.reason.code().to_owned(), made.reason.to_string());
        self.moves.push(Move { at, route: route.clone(), action: made.action, code, reason });
    }

    fn take_override(&mut self, at: Timestamp, body: &Map<String, Value>) {
        let Ordered { event, author, r#override: order } = match read(body) {
            Ok(ordered) => ordered,
            Err(why) => return self.damaged(&format!("override at {at}"), &why),
        };
        let other = self.only.is_some() && order.route.is_some() && order.route != self.only;
        if other || order.created_at > self.until {
            return;
        }
        // Without its beginning, which may be in a file that is gone, it is known by its end.
        let known = self.overrides.iter().position(|known| known.order.id == order.id);
        let place = known.unwrap_or_else(|| {
            self.overrides.push(OverrideReport { order, ended_at: None, ended_by: None, held_seconds: 0.0 });
            self.overrides.len() - 1
        });
        match &*event {
            "ended" => (self.overrides[place].ended_at, self.overrides[place].ended_by) = (Some(at), author),
            // What expired while no process ran is noted at the next start.
            "expired" => {
                self.overrides[place].ended_at = Some(self.overrides[place].order.expires_at.min(at));
            }
            _ => {}
        }
        if self.overrides.len() > LISTED_MAX {
            self.overrides.remove(0);
            self.unlisted += 1;
        }
    }

    fn take_account(&mut self, at: Timestamp, route: &RouteId, account: &Account) {
        self.cover(account.from.unwrap_or(at), at);
        // One that ends just after midnight is of the day before.
        let day = self.days.entry((route.clone(), day_of(account.from.unwrap_or(at)))).or_default();
        let mut total = Traffic { refused: account.refused, ..Traffic::default() };
        for backend in &account.backends {
            let of = day.backends.entry(backend.backend.clone()).or_default();
            of.add(backend);
            let traffic = Traffic::of(backend);
            total.add(&traffic);
            day.unpriced += backend.unpriced;
        }
        if account.is_over_slo() {
            total.over_slo_seconds = account.seconds;
        }
        day.traffic.add(&total);
        day.requests_usd += account.usd();
        day.standby_usd += account.standby_usd;
        day.saved_usd += account.saved_usd;
        day.doubtful_usd += account.doubtful_usd;
        day.uncompared += account.uncompared;

        let avoidable = account.usd() + account.standby_usd;
        let hour = self.hours.entry(at.as_second().div_euclid(3600)).or_default();
        hour.0 += avoidable;
        hour.1 += account.saved_usd;
        for backend in &account.backends {
            *hour.2.entry(backend.backend.clone()).or_default() += backend.requests;
        }
        for shadow in &account.shadows {
            let known = self.shadows.entry((route.clone(), shadow.policy.clone())).or_insert(Shadow {
                since: account.from.unwrap_or(at),
                backend: None,
                live_usd: 0.0,
                more_usd: 0.0,
                moves: 0,
                uncompared: 0,
            });
            known.backend.clone_from(&shadow.backend);
            known.live_usd += avoidable;
            known.more_usd += shadow.more_usd;
            known.moves += shadow.moves;
            known.uncompared += shadow.uncompared;
        }
    }

    /// Notes a time that accounts are about, and the gap before it.
    fn cover(&mut self, from: Timestamp, to: Timestamp) {
        let Some((first, last)) = self.covered else {
            self.covered = Some((from.min(to), to));
            return;
        };
        if from.duration_since(last).as_secs_f64() > PAUSE_SECONDS {
            let why = match self.stopped {
                true => "Tradewind was stopped",
                false => {
                    "no accounts: the process had ended without saying so, or the journal could not be written"
                }
            };
            self.gaps.push(Gap { from: last, to: from, why });
        }
        self.stopped = false;
        self.covered = Some((first, last.max(to)));
    }

    /// The report.
    pub fn finish(mut self) -> Report {
        self.say_what_is_missing();
        for known in &mut self.overrides {
            let end = known.ended_at.unwrap_or(self.until).min(known.order.expires_at).min(self.until);
            let start = known.order.created_at.max(self.since);
            known.held_seconds = end.duration_since(start).as_secs_f64().max(0.0);
        }
        let (since, until) = (self.since, self.until);
        self.overrides.retain(|o| o.held_seconds > 0.0 || (since..=until).contains(&o.order.created_at));
        let cheapest = self.cheapest_alone();
        let routes = self.routes(&cheapest);
        let backends = self.backends();
        let days = self.by_day(&cheapest);
        let mut report = Report {
            since,
            until,
            first: self.covered.map(|(first, _)| first),
            last: self.covered.map(|(_, last)| last),
            counterfactual: COUNTERFACTUAL,
            traffic: Traffic::default(),
            money: Money::default(),
            minimum_usd: days.iter().map(|day| day.minimum_usd).sum(),
            spent_usd: 0.0,
            series: self.series(&backends),
            rows: self.rows(&cheapest),
            routes,
            backends,
            days,
            moves: self.moves,
            overrides: self.overrides,
            gaps: self.gaps,
            notes: self.notes,
        };
        for route in &report.routes {
            report.traffic.add(&route.traffic);
            report.money.add(&route.money);
        }
        report.spent_usd = report.minimum_usd + report.money.avoidable_usd;
        report
    }

    fn say_what_is_missing(&mut self) {
        if let Some((_, last)) = self.covered
            && self.until.duration_since(last).as_secs_f64() > END_SECONDS
        {
            let why = match self.stopped {
                true => "Tradewind was stopped",
                false => "no accounts up to the end of the period",
            };
            self.gaps.push(Gap { from: last, to: self.until, why });
        }
        if self.damaged > DAMAGED_NAMED_MAX as u64 {
            self.notes.push(format!("{} lines or entries are damaged in all", self.damaged));
        }
        if self.unlisted > 0 {
            self.notes.push(format!("{} moves or overrides are counted, but not listed", self.unlisted));
        }
        match (self.begins, self.covered) {
            (None, _) => self.notes.push("the journal is empty".into()),
            (Some(begins), _) if begins > self.since => self.notes.push(format!(
                "the journal begins at {}: about what was before it says nothing",
                begins.strftime("%Y-%m-%d %H:%M:%SZ")
            )),
            (Some(_), None) => {
                let about = self.only.as_ref().map_or(String::new(), |route| format!(" of route {route}"));
                self.notes.push(format!("the journal has no accounts{about} in this period"));
            }
            _ => {}
        }
    }

    /// By route, the backend where all of it would have cost least over the whole period.
    fn cheapest_alone(&self) -> HashMap<RouteId, BackendId> {
        /// USD more, and requests for which it was possible.
        type Alone<'a> = BTreeMap<&'a BackendId, (f64, u64)>;
        let mut sums: BTreeMap<&RouteId, (u64, Alone<'_>)> = BTreeMap::new();
        for ((route, _), day) in &self.days {
            let (requests, backends) = sums.entry(route).or_default();
            *requests += day.traffic.requests;
            for (backend, of) in &day.backends {
                let sum = backends.entry(backend).or_default();
                sum.0 += of.instead_usd;
                sum.1 += of.possible;
            }
        }
        let mut cheapest = HashMap::new();
        for (route, (requests, backends)) in sums {
            let able = backends.iter().filter(|(_, (_, possible))| {
                *possible > 0 && *possible as f64 >= requests as f64 * POSSIBLE_MIN
            });
            if let Some((backend, _)) = able.min_by(|a, b| a.1.0.total_cmp(&b.1.0)) {
                cheapest.insert(route.clone(), (*backend).clone());
            }
        }
        cheapest
    }

    fn routes(&self, cheapest: &HashMap<RouteId, BackendId>) -> Vec<RouteReport> {
        let mut routes: BTreeMap<&RouteId, RouteReport> = BTreeMap::new();
        for ((route, _), day) in &self.days {
            let of = routes.entry(route).or_insert_with(|| RouteReport {
                route: route.clone(),
                traffic: Traffic::default(),
                money: Money::default(),
                moves: 0,
                cheapest_alone: cheapest.get(route).cloned(),
                shadows: self.shadows_of(route),
            });
            of.traffic.add(&day.traffic);
            of.money.add(&day.money(cheapest.get(route)));
            of.moves += day.moves;
        }
        routes.into_values().collect()
    }

    fn shadows_of(&self, route: &RouteId) -> Vec<ShadowReport> {
        let of = self.shadows.iter().filter(|((of, _), _)| of == route);
        of.map(|((_, policy), shadow)| ShadowReport {
            policy: policy.clone(),
            since: shadow.since,
            backend: shadow.backend.clone(),
            live_usd: shadow.live_usd,
            shadow_usd: shadow.live_usd + shadow.more_usd,
            moves: shadow.moves,
            uncompared_requests: shadow.uncompared,
        })
        .collect()
    }

    fn backends(&self) -> Vec<BackendReport> {
        let mut backends: BTreeMap<&BackendId, BackendReport> = BTreeMap::new();
        for day in self.days.values() {
            for (backend, of) in &day.backends {
                let sum = backends.entry(backend).or_insert_with(|| BackendReport {
                    backend: backend.clone(),
                    traffic: Traffic::default(),
                    requests_usd: 0.0,
                    unpriced_requests: 0,
                    minimum_usd: None,
                });
                sum.traffic.add(&of.traffic);
                sum.requests_usd += of.usd;
                sum.unpriced_requests += of.unpriced;
            }
        }
        for ((backend, _), usd) in self.minimums() {
            if let Some(sum) = backends.get_mut(&backend) {
                *sum.minimum_usd.get_or_insert(0.0) += usd;
            }
        }
        backends.into_values().collect()
    }

    /// What minimums cost, by backend and day. Every route of a backend says it for all of them.
    fn minimums(&self) -> BTreeMap<(BackendId, i64), f64> {
        let mut minimums: BTreeMap<(BackendId, i64), f64> = BTreeMap::new();
        for ((_, day), of) in &self.days {
            for (backend, of) in &of.backends {
                if let Some(usd) = of.minimum_usd {
                    let most = minimums.entry((backend.clone(), *day)).or_default();
                    *most = most.max(usd);
                }
            }
        }
        minimums
    }

    fn by_day(&self, cheapest: &HashMap<RouteId, BackendId>) -> Vec<DayReport> {
        let mut days: BTreeMap<i64, DayReport> = BTreeMap::new();
        for ((route, day), of) in &self.days {
            let sum = days.entry(*day).or_insert_with(|| DayReport {
                day: day_name(*day),
                traffic: Traffic::default(),
                money: Money::default(),
                minimum_usd: 0.0,
                moves: 0,
            });
            sum.traffic.add(&of.traffic);
            sum.money.add(&of.money(cheapest.get(route)));
            sum.moves += of.moves;
        }
        for ((_, day), usd) in self.minimums() {
            if let Some(sum) = days.get_mut(&day) {
                sum.minimum_usd += usd;
            }
        }
        days.into_values().collect()
    }

    fn series(&self, backends: &[BackendReport]) -> Vec<Point> {
        let Some((first, last)) = self.hours.keys().next().zip(self.hours.keys().next_back()) else {
            return Vec::new();
        };
        let hours = if last - first <= HOURLY_MAX { 1 } else { 24 };
        let mut points: BTreeMap<i64, Point> = BTreeMap::new();
        for (hour, (avoidable, saved, requests)) in &self.hours {
            let step = hour.div_euclid(hours);
            let point = points.entry(step).or_insert_with(|| Point {
                second: step * hours * 3600,
                requests: vec![0; backends.len()],
                ..Point::default()
            });
            point.avoidable_usd += avoidable;
            point.saved_usd += saved;
            for (sum, backend) in point.requests.iter_mut().zip(backends) {
                *sum += requests.get(&backend.backend).copied().unwrap_or(0);
            }
        }
        points.into_values().collect()
    }

    fn rows(&self, cheapest: &HashMap<RouteId, BackendId>) -> Vec<csv::Row> {
        let mut rows = Vec::new();
        for ((route, day), of) in &self.days {
            let row = |backend: &str, filled: &[f64], before: usize| {
                let mut figures = [None; csv::COLUMNS.len()];
                figures.iter_mut().skip(before).zip(filled).for_each(|(place, value)| *place = Some(*value));
                csv::Row { day: day_name(*day), route: route.to_string(), backend: backend.into(), figures }
            };
            for (backend, of) in &of.backends {
                let Traffic { requests, errors, timed, over_slo, .. } = of.traffic;
                let counts = [requests, errors, timed, over_slo].map(|count| count as f64);
                let figures = [&counts[..], &[of.usd, of.unpriced as f64]].concat();
                rows.push(row(backend.as_str(), &figures, 0));
            }
            let money = of.money(cheapest.get(route));
            let figures = [
                of.traffic.refused as f64,
                of.traffic.over_slo_seconds,
                money.standby_usd,
                money.saved_usd,
                money.saved_against_cheapest_usd,
                money.doubtful_usd,
                money.uncompared_requests as f64,
            ];
            rows.push(row("", &figures, csv::COLUMNS.len() - figures.len()));
        }
        rows.sort_by(|a, b| a.day.cmp(&b.day));
        rows
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(body.clone())).map_err(|error| error.to_string())
}
