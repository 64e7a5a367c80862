//! What a decision hands to the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SHARE_EPSILON, allocate, site::Site};
use crate::model::{BackendId, Snapshot, Timestamp};

/// What is remembered of one backend's capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Warmth {
    /// Replicas taken to be ready: as last reported, or as modelled where nothing reports them.
    pub ready: u32,
    /// Since when more are wanted than are ready.
    pub growing_since: Option<Timestamp>,
    /// Since when fewer are needed than are ready.
    pub idle_since: Option<Timestamp>,
    /// When replicas that were wanted had not come in time; for a while the backend is not counted on for more than is ready.
    #[serde(default)]
    pub stalled_at: Option<Timestamp>,
    /// The most that were ready since more are wanted: only more than that is a sign that they come.
    #[serde(default)]
    pub most_ready: u32,
    /// When it was last seen to have more to do than it is ready for.
    #[serde(default)]
    pub overloaded_at: Option<Timestamp>,
    /// When `ready` was last reported; for a while after it, the backend counts for no more than that.
    #[serde(default)]
    pub reported_at: Option<Timestamp>,
    /// When the backend was last seen with its scarcest resource in use; `None` once it reported otherwise, or nothing for long.
    #[serde(default)]
    pub full_at: Option<Timestamp>,
    /// The same of more requests waiting there than it works off in time.
    #[serde(default)]
    pub late_at: Option<Timestamp>,
}

/// What a decision hands to the next one. All vectors are parallel to `backends`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The backends, in the order of the vectors.
    pub backends: Vec<BackendId>,
    /// When the last decision was made.
    pub at: Option<Timestamp>,
    /// What the policy wants for money, before repair and overrides.
    pub plan: Vec<f64>,
    /// Which backends the plan uses for nothing but what is paid there anyway: how much that is, as a share, changes with the
    /// demand. Empty for none.
    #[serde(default)]
    pub fill: Vec<bool>,
    /// The same of `home`.
    #[serde(default)]
    pub home_fill: Vec<bool>,
    /// The plan that was left for a cheaper one, to which traffic returns; `None` when at home.
    pub home: Option<Vec<f64>>,
    /// The plan after repair and overrides: where the ramp leads.
    pub target: Vec<f64>,
    /// The shares in force.
    pub shares: Vec<f64>,
    /// When traffic last moved.
    pub moved_at: Option<Timestamp>,
    /// Whether the shares are on their way to a target that was set by a move.
    pub moving: bool,
    /// Modelled capacity.
    pub warmth: Vec<Warmth>,
    /// When each backend was last seen over the latency objective.
    pub over_slo_at: Vec<Option<Timestamp>>,
    /// What staying where the plan is has cost more than being at each backend would have, in USD; of the break-even rule.
    #[serde(default)]
    pub regret_usd: Vec<f64>,
    /// Share of the demand that each backend is kept ready for beyond its target, in case others are lost. Empty where the policy
    /// does not ask for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserve: Vec<f64>,
    /// When each backend was last seen unable to serve; `None` once `slow_start` has passed. Empty if that is so of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent_at: Vec<Option<Timestamp>>,
    /// Backends that had to be left or limited, for another reason than capacity, and have not been let back yet.
    pub barred: Vec<bool>,
}

impl State {
    /// Whether a first placement was made.
    pub fn placed(&self) -> bool {
        self.plan.iter().sum::<f64>() > 0.0
    }

    /// The share in force of a backend; 0 for one that is not known.
    pub fn share_of(&self, backend: &BackendId) -> f64 {
        let place = self.backends.iter().position(|id| id == backend);
        place.and_then(|place| self.shares.get(place).copied()).unwrap_or(0.0)
    }

    /// What the backend at `place` keeps ready beyond its target.
    pub(super) fn reserved(&self, place: usize) -> f64 {
        self.reserve.get(place).copied().unwrap_or(0.0)
    }

    /// The larger of the share in force of a backend and the one towards which it moves; 0 for one that is not known.
    pub fn wanted_at(&self, backend: &BackendId) -> f64 {
        let place = self.backends.iter().position(|id| id == backend);
        let target = place.and_then(|place| self.target.get(place).copied()).unwrap_or(0.0);
        target.max(self.share_of(backend))
    }

    /// Sets the plan to an allocation.
    pub(super) fn plan_for(&mut self, sites: &[Site], shares: &[f64]) {
        self.plan = allocate::intent(sites, shares);
        self.fill = allocate::fills(sites, shares);
    }

    /// The plan for the demand of now.
    pub(super) fn plan_now(&self, sites: &[Site]) -> Vec<f64> {
        allocate::at_present(sites, &self.plan, &self.fill)
    }

    /// The plan that was left, for the demand of now; `None` at home.
    pub(super) fn home_now(&self, sites: &[Site]) -> Option<Vec<f64>> {
        Some(allocate::at_present(sites, self.home.as_deref()?, &self.home_fill))
    }

    /// Time since the last decision: never negative, whatever the clock did, and at most `max`.
    ///
    /// A clock that was set back leaves times of the future behind; they become `now`, so that what waits for them waits
    /// once more and no longer.
    pub(super) fn advance_to(&mut self, now: Timestamp, max: Duration) -> Duration {
        let warmth = self.warmth.iter_mut().flat_map(|w| {
            [&mut w.reported_at, &mut w.full_at, &mut w.late_at, &mut w.stalled_at, &mut w.overloaded_at]
        });
        let times = self
            .over_slo_at
            .iter_mut()
            .chain(&mut self.absent_at)
            .chain(std::iter::once(&mut self.moved_at))
            .chain(warmth);
        times.flatten().for_each(|at| *at = (*at).min(now));
        let elapsed = self
            .at
            .and_then(|at| Duration::try_from(now.duration_since(at)).ok())
            .unwrap_or(Duration::ZERO)
            .min(max);
        self.at = Some(now);
        elapsed
    }

    /// Whether all vectors belong to the same backends: a file that was damaged on disk may hold anything.
    fn is_whole(&self) -> bool {
        let count = self.backends.len();
        let lengths = [
            self.plan.len(),
            self.target.len(),
            self.shares.len(),
            self.warmth.len(),
            self.over_slo_at.len(),
            self.barred.len(),
            self.home.as_ref().map_or(count, Vec::len),
        ];
        let figures = self
            .plan
            .iter()
            .chain(&self.target)
            .chain(&self.shares)
            .chain(self.home.iter().flatten())
            .chain(&self.reserve);
        let fills_fit =
            [&self.fill, &self.home_fill].iter().all(|fill| fill.is_empty() || fill.len() == count);
        let reserve_fits = self.reserve.is_empty() || self.reserve.len() == count;
        let absences_fit = self.absent_at.is_empty() || self.absent_at.len() == count;
        let regrets_fit = self.regret_usd.is_empty() || self.regret_usd.len() == count;
        lengths.iter().all(|len| *len == count)
            && regrets_fit
            && absences_fit
            && reserve_fits
            && fills_fit
            && self.regret_usd.iter().all(|usd| usd.is_finite())
            && figures.copied().all(|f| (0.0..=1.0 + SHARE_EPSILON).contains(&f))
    }

    /// This state for the snapshot's backends: what it knows of them by name, nothing of new ones. Shares of backends that
    /// are gone leave a hole, which the decision fills.
    pub(super) fn aligned_to(&self, snapshot: &Snapshot) -> State {
        if !self.is_whole() {
            return State::default().aligned_to(snapshot);
        }
        let same = self.backends.len() == snapshot.backends.len()
            && self.backends.iter().zip(&snapshot.backends).all(|(id, view)| *id == view.backend.id);
        if same {
            return self.clone();
        }
        let places: Vec<Option<usize>> = snapshot
            .backends
            .iter()
            .map(|view| self.backends.iter().position(|id| *id == view.backend.id))
            .collect();
        let pick = |values: &[f64]| -> Vec<f64> {
            places.iter().map(|place| place.and_then(|p| values.get(p).copied()).unwrap_or(0.0)).collect()
        };
        let pick_fill = |values: &[bool]| -> Vec<bool> {
            places.iter().map(|place| place.is_some_and(|p| values.get(p) == Some(&true))).collect()
        };
        let pick_time = |times: &[Option<Timestamp>]| -> Vec<Option<Timestamp>> {
            places.iter().map(|place| place.and_then(|p| times.get(p).copied()).flatten()).collect()
        };
        State {
            backends: snapshot.backends.iter().map(|view| view.backend.id.clone()).collect(),
            at: self.at,
            plan: pick(&self.plan),
            fill: pick_fill(&self.fill),
            home_fill: pick_fill(&self.home_fill),
            // A home that has lost a backend is no longer the place that was left.
            home: self
                .home
                .as_deref()
                .map(pick)
                .filter(|home| home.iter().sum::<f64>() > 1.0 - SHARE_EPSILON),
            target: pick(&self.target),
            shares: pick(&self.shares),
            moved_at: self.moved_at,
            moving: self.moving,
            warmth: places
                .iter()
                .map(|p| p.and_then(|p| self.warmth.get(p).copied()).unwrap_or_default())
                .collect(),
            over_slo_at: pick_time(&self.over_slo_at),
            absent_at: pick_time(&self.absent_at),
            regret_usd: pick(&self.regret_usd),
            reserve: pick(&self.reserve),
            barred: places
                .iter()
                .map(|p| p.is_some_and(|p| self.barred.get(p).copied() == Some(true)))
                .collect(),
        }
    }
}
