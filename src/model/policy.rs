//! How a route chooses among its backends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{NMinusOne, PolicyId, Ramp, Share};

/// When traffic moves for money.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum Rule {
    /// Leave when the other side is cheaper by `shift_at`, return when that gap has closed below `return_at`.
    Threshold {
        /// Gap, as a part of what the load costs where it is, from which traffic leaves.
        shift_at: Share,
        /// Gap below which traffic returns to where it came from. At most `shift_at`.
        return_at: Share,
    },
    /// Leave when staying has cost as much more than another side would have as a move costs.
    BreakEven {
        /// What a move costs beside both sides running at once, in USD: caches to refill, the risk for the objective.
        move_usd: f64,
    },
}

/// How a route chooses among its backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub id: PolicyId,
    /// When traffic moves for money.
    #[serde(flatten)]
    pub rule: Rule,
    /// No optional move within this time after traffic last moved.
    pub hold: Duration,
    /// How fast the share of a receiving backend may grow.
    pub ramp: Ramp,
    /// For how long a backend that may serve again is taken to be ready for a part only, which rises; zero for not at all.
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    pub slow_start: Duration,
    /// Share that every eligible backend keeps, so that it stays warm and measured.
    pub keep_warm: Share,
    /// That the loss of any one cloud or region can be borne; `None` for no such demand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_minus_one: Option<NMinusOne>,
}
