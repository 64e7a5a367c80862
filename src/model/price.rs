//! What a node costs, and how far that figure can be trusted.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Timestamp, UsdPerHour};

/// The terms under which a node is bought.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// Spare capacity that the provider may take back (spot on AWS, Spot VM on Google Cloud).
    Spot,
    /// The list price, for as long as one likes.
    OnDemand,
}

impl Offer {
    /// As files, metrics and the API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Offer::Spot => "spot",
            Offer::OnDemand => "on_demand",
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How far a price can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceState {
    /// Its source confirmed it recently.
    Fresh,
    /// Its source has been silent for longer than `stale_after`, and there is nothing better.
    Stale,
    /// Its source now says something implausible; this is the last plausible price.
    Held,
    /// The spot price is stale; this is the on-demand price in its place.
    Fallback,
}

impl PriceState {
    /// As metrics and the API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            PriceState::Fresh => "fresh",
            PriceState::Stale => "stale",
            PriceState::Held => "held",
            PriceState::Fallback => "fallback",
        }
    }
}

/// A price in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// What an hour of the node costs.
    pub usd_per_hour: UsdPerHour,
    /// Who says so, `file:prices.csv`.
    pub source: Arc<str>,
    /// From when the provider charges it.
    pub observed_at: Timestamp,
    /// When the source last confirmed it.
    pub fetched_at: Timestamp,
    /// How far it can be trusted.
    pub state: PriceState,
    /// Why the state is not `fresh`, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Arc<str>>,
}
