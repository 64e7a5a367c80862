//! What a decision hands to the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SHARE_EPSILON;
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
    /// When it was last seen to have more to do than it is ready for.
    #[serde(default)]
    pub overloaded_at: Option<Timestamp>,
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
    /// Backends that had to be left or limited, for another reason than capacity, and have not been let back yet.
    pub barred: Vec<bool>,
}

impl State {
    /// Whether a first placement was made.
    pub fn placed(&self) -> bool {
        self.plan.iter().sum::<f64>() > 0.0
    }

    /// Time since the last decision: never negative, whatever the clock did, and at most `max`.
    ///
    /// A clock that was set back leaves times of the future behind; they become `now`, so that what waits for them waits
    /// once more and no longer.
    pub(super) fn advance_to(&mut self, now: Timestamp, max: Duration) -> Duration {
        let times = self.over_slo_at.iter_mut().chain(std::iter::once(&mut self.moved_at));
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
        let figures =
            self.plan.iter().chain(&self.target).chain(&self.shares).chain(self.home.iter().flatten());
        let regrets_fit = self.regret_usd.is_empty() || self.regret_usd.len() == count;
        lengths.iter().all(|len| *len == count)
            && regrets_fit
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
        State {
            backends: snapshot.backends.iter().map(|view| view.backend.id.clone()).collect(),
            at: self.at,
            plan: pick(&self.plan),
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
            over_slo_at: places
                .iter()
                .map(|p| p.and_then(|p| self.over_slo_at.get(p).copied()).flatten())
                .collect(),
            regret_usd: pick(&self.regret_usd),
            barred: places
                .iter()
                .map(|p| p.is_some_and(|p| self.barred.get(p).copied() == Some(true)))
                .collect(),
        }
    }
}
