//! What a decision hands to the next one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{BackendId, Snapshot, Timestamp};

/// What is remembered of one backend's capacity where nothing reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Warmth {
    /// Replicas taken to be ready.
    pub ready: u32,
    /// Since when more are wanted than are ready.
    pub growing_since: Option<Timestamp>,
    /// Since when fewer are needed than are ready.
    pub idle_since: Option<Timestamp>,
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
    /// Modelled capacity.
    pub warmth: Vec<Warmth>,
    /// When each backend was last seen over the latency objective.
    pub over_slo_at: Vec<Option<Timestamp>>,
}

impl State {
    /// Whether a first placement was made.
    pub fn placed(&self) -> bool {
        self.plan.iter().sum::<f64>() > 0.0
    }

    /// Time since the last decision: never negative, whatever the clock did, and at most `max`.
    pub(super) fn elapsed(&mut self, now: Timestamp, max: Duration) -> Duration {
        let elapsed = self
            .at
            .and_then(|at| Duration::try_from(now.duration_since(at)).ok())
            .unwrap_or(Duration::ZERO)
            .min(max);
        self.at = Some(now);
        elapsed
    }

    /// This state for the snapshot's backends: what it knows of them by name, nothing of new ones. Shares of backends that
    /// are gone leave a hole, which the decision fills.
    pub(super) fn aligned_to(&self, snapshot: &Snapshot) -> State {
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
            home: self.home.as_deref().map(pick).filter(|home| home.iter().sum::<f64>() > 0.0),
            target: pick(&self.target),
            shares: pick(&self.shares),
            moved_at: self.moved_at,
            warmth: places
                .iter()
                .map(|p| p.and_then(|p| self.warmth.get(p).copied()).unwrap_or_default())
                .collect(),
            over_slo_at: places
                .iter()
                .map(|p| p.and_then(|p| self.over_slo_at.get(p).copied()).flatten())
                .collect(),
        }
    }
}
