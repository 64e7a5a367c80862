//! What was received, and what follows from it.
//!
//! No clock and no I/O: time is an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    Lost, Notice, assumed::ASSUMED_WEIGHT_NODE_HOURS, assumed_per_node_hour, departures::Departures,
};
use crate::model::{Backend, BackendId, Cloud, InterruptionRate, RateBasis, Share, Timestamp};

/// What arrives again within this time under the same name counts once: senders restart, and send again.
const SAME_EVENT_WITHIN: Duration = Duration::from_secs(3600);

/// Names of events that are remembered; beyond that the oldest are forgotten. A whole cluster that goes at once has fewer.
pub(super) const EVENTS_MAX: usize = 4096;

/// After this time an observation counts half: long enough to learn about rare events, short enough to follow a
/// provider's change of fortune.
const HALF_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// For so long after an interruption its absence counts as calm. Later it may as well be that nobody sends any longer.
const SILENCE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest time between two looks that counts as observed, ten times the slowest tick. What is longer was a stopped process or
/// a clock that was set: notices of that time were not received.
const UNSEEN_AFTER: Duration = Duration::from_secs(600);

/// More nodes than this are a mistake, not a cluster: it bounds what one bad figure can do to the sums.
const NODES_MAX: f64 = 1e6;

/// Counts interruptions and the node-hours in which they happened, by backend.
///
/// The rate is that of the gamma-Poisson model with exposure (*Bayesian Data Analysis*, 3rd edition, section 2.6): interruptions
/// over node-hours, each with what was assumed beforehand added to it. So it begins at the assumed rate and moves towards
/// what is observed as node-hours pass. Observations fade with a half-life of 30 days.
///
/// Without a notice nobody knows whether any would be sent, and silence must not make spot nodes look safe. So node-hours
/// count from the first interruption on, and until 30 days after the latest. That leaves a known bias, on the side of caution: the
/// first interruption counts without the wait before it. It weighs at most what was lost then over the weight of the
/// assumption, and fades as node-hours pass. (Counting all node-hours since the start errs to the other side where notices
/// are connected later: a busy backend then looks calm for weeks.) After a long silence the rate drifts back to the assumed one.
#[derive(Debug, Default)]
pub struct NoticeBoard {
    /// Until when everything below was accounted for; `None` before the first look.
    pub(super) seen_until: Option<Timestamp>,
    /// Spot nodes of each backend at the last look.
    pub(super) nodes: BTreeMap<BackendId, f64>,
    /// Backends that were interrupted.
    pub(super) records: BTreeMap<BackendId, Record>,
    /// Names of events, oldest first.
    pub(super) events: VecDeque<Event>,
    /// Nodes that go.
    pub(super) departures: Departures,
}

/// What was observed of one backend, faded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record {
    /// Nodes that were taken back.
    pub(super) interruptions: f64,
    /// Hours of spot nodes in which that was observed.
    pub(super) node_hours: f64,
    /// The latest interruption.
    pub(super) last: Timestamp,
}

/// A named event that was received.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) at: Timestamp,
    pub(super) backend: BackendId,
    pub(super) id: String,
    pub(super) instance: Option<String>,
}

/// What became of a notice. Written as `"outcome": "counted", "nodes": 2.0`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// It counts as the interruption of so many spot nodes.
    Counted {
        /// At least 1; not always whole, where the backend's nodes are modelled from its load.
        nodes: f64,
    },
    /// It says nothing about how often spot nodes are taken back.
    Noted,
    /// The same event was received within the hour.
    Duplicate,
}

impl NoticeBoard {
    /// Takes a notice that was received at `now`. It counts at that time, whenever its nodes go.
    pub fn record(&mut self, notice: &Notice, now: Timestamp) -> Outcome {
        self.pass(now);
        if self.is_known(notice, now) {
            return Outcome::Duplicate;
        }
        if let Some(id) = &notice.id {
            let (backend, instance) = (notice.backend.clone(), notice.instance.clone());
            self.events.push_back(Event { at: now, backend, id: id.clone(), instance });
        }
        if !notice.kind.is_interruption() {
            return Outcome::Noted;
        }
        let nodes = self.nodes_lost(notice);
        let empty = Record { interruptions: 0.0, node_hours: 0.0, last: now };
        let record = self.records.entry(notice.backend.clone()).or_insert(empty);
        record.interruptions += nodes;
        record.last = record.last.max(now);
        Outcome::Counted { nodes }
    }

    /// Takes capacity from a backend whose nodes are taken back, from `now` until they are gone and replaced. `dated`: whether
    /// the notice says when they go. Call it for each notice that [`record`](Self::record) counted.
    pub fn note_departure(&mut self, notice: &Notice, dated: bool, backend: &Backend, now: Timestamp) {
        let spot_nodes = self.nodes.get(&backend.id).copied().unwrap_or(0.0);
        let spot = backend.node.as_ref().map_or(0.0, |node| node.spot.get());
        let nodes = if spot > 0.0 { spot_nodes / spot } else { 0.0 };
        self.departures.add(notice, dated, backend, nodes, now);
    }

    /// Part of a backend's ready replicas that goes away, or went and is not replaced yet. Several notices add up: each takes
    /// its part of what the others leave. `ready_seen_at`: when its ready replicas were last counted.
    pub fn leaving(&self, backend: &BackendId, ready_seen_at: Option<Timestamp>, now: Timestamp) -> Share {
        self.departures.leaving(backend, ready_seen_at, now)
    }

    /// Accounts for the time since the last look, with the nodes that were there then, and takes down those that are there
    /// now: spot nodes by backend; one that is not named has none. Call it in every turn: what lies between two calls more
    /// than 10 minutes apart counts as not observed.
    pub fn advance(&mut self, now: Timestamp, nodes: impl IntoIterator<Item = (BackendId, f64)>) {
        self.pass(now);
        let plausible = |nodes: f64| if nodes.is_finite() { nodes.clamp(0.0, NODES_MAX) } else { 0.0 };
        self.nodes = nodes.into_iter().map(|(backend, nodes)| (backend, plausible(nodes))).collect();
    }

    /// How often a spot node of a backend is taken back: learned once an interruption was received, assumed before.
    pub fn rate(&self, backend: &BackendId, cloud: Cloud) -> InterruptionRate {
        let assumed = assumed_per_node_hour(cloud);
        let Some(record) = self.records.get(backend) else {
            return InterruptionRate { per_node_hour: assumed, basis: RateBasis::Assumed };
        };
        let interruptions = assumed * ASSUMED_WEIGHT_NODE_HOURS + record.interruptions;
        let node_hours = ASSUMED_WEIGHT_NODE_HOURS + record.node_hours;
        InterruptionRate { per_node_hour: interruptions / node_hours, basis: RateBasis::Learned }
    }

    /// The rate by which a backend is judged: none without spot nodes, what is configured, or else [`rate`](Self::rate).
    pub fn rate_in_force(&self, backend: &Backend) -> InterruptionRate {
        if !backend.has_spot_nodes() {
            return InterruptionRate::default();
        }
        match backend.node.as_ref().and_then(|node| node.interruptions.per_node_hour) {
            Some(per_node_hour) => InterruptionRate { per_node_hour, basis: RateBasis::Configured },
            None => self.rate(&backend.id, backend.cloud),
        }
    }

    /// Lets time pass until `now`: node-hours add up, observations fade, names of events are forgotten.
    fn pass(&mut self, now: Timestamp) {
        // Where the clock was set back nothing passes, and time goes on from there.
        let Some(passed) = self.seen_until.replace(now).and_then(|since| since_then(since, now)) else {
            return;
        };
        let kept = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        let observed_hours = if passed <= UNSEEN_AFTER { passed.as_secs_f64() / 3600.0 } else { 0.0 };
        for (backend, record) in &mut self.records {
            record.interruptions *= kept;
            record.node_hours *= kept;
            if since_then(record.last, now).is_none_or(|silence| silence <= SILENCE_MAX) {
                record.node_hours += self.nodes.get(backend).copied().unwrap_or(0.0) * observed_hours;
            }
        }
        self.forget(now);
    }

    /// Drops what no longer says anything, so that nothing grows for ever.
    fn forget(&mut self, now: Timestamp) {
        // What is left by then moves no rate by a thousandth of what it moved at first.
        let faded = HALF_LIFE * 10;
        self.departures.forget(now);
        self.records.retain(|_, record| since_then(record.last, now).is_none_or(|age| age <= faded));
        while self.events.front().is_some_and(|event| {
            self.events.len() > EVENTS_MAX
                || since_then(event.at, now).is_some_and(|age| age > SAME_EVENT_WITHIN)
        }) {
            self.events.pop_front();
        }
    }

    fn is_known(&self, notice: &Notice, now: Timestamp) -> bool {
        let Some(id) = &notice.id else { return false };
        self.events.iter().any(|event| {
            event.id == *id
                && event.instance == notice.instance
                && event.backend == notice.backend
                && since_then(event.at, now).is_none_or(|age| age <= SAME_EVENT_WITHIN)
        })
    }

    /// An interruption takes at least one node, whatever the model says about how many there are.
    fn nodes_lost(&self, notice: &Notice) -> f64 {
        let nodes = match notice.lost {
            Lost::Nodes(nodes) => f64::from(nodes),
            Lost::Part(part) => part.get() * self.nodes.get(&notice.backend).copied().unwrap_or(0.0),
        };
        nodes.clamp(1.0, NODES_MAX)
    }
}

/// The time from `then` to `now`; `None` if `then` is later.
fn since_then(then: Timestamp, now: Timestamp) -> Option<Duration> {
    let passed: SignedDuration = now.duration_since(then);
    passed.try_into().ok()
}
