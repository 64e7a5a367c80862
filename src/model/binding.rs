//! What a constraint that binds costs.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::BackendId;

/// A kind of constraint that keeps traffic from where it would be cheapest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// A backend can have no more replicas.
    Capacity,
    /// A backend is over the latency objective.
    Slo,
    /// An operator drains a backend.
    Drain,
    /// An operator caps it.
    Cap,
    /// An operator pins traffic to it.
    Pin,
    /// A rule of the policy.
    Rule,
    /// What the policy keeps at every backend.
    KeepWarm,
    /// What is kept ready in case a cloud or a region is lost.
    NMinusOne,
}

/// What a constraint costs: how much less the cheapest division of the demand would cost without it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BindingCost {
    /// Its kind.
    pub constraint: Constraint,
    /// The id of the override, or the name of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The backend it is about; absent for one that is about several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// USD per day at the present demand and prices.
    pub usd_per_day: f64,
}

impl fmt::Display for BindingCost {
    /// "the capacity limit of eks-use1": what one could be without.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        match self.constraint {
            Constraint::Capacity => f.write_str("the capacity limit")?,
            Constraint::Slo => f.write_str("the latency objective")?,
            Constraint::Drain => write!(f, "the drain ({name})")?,
            Constraint::Cap => write!(f, "the cap ({name})")?,
            Constraint::Pin => write!(f, "the pin ({name})")?,
            Constraint::Rule => write!(f, "the rule \"{name}\"")?,
            Constraint::KeepWarm => f.write_str("`keep_warm`")?,
            Constraint::NMinusOne => f.write_str("`n_minus_one`")?,
        }
        match &self.backend {
            Some(backend) => write!(f, " of {backend}"),
            None => Ok(()),
        }
    }
}
