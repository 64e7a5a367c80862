//! At which price a decision would turn.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{BackendId, Offer};

/// The price of a node at which traffic would begin to move, with everything else as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TurningPoint {
    /// Whose node.
    pub backend: BackendId,
    /// Which of its prices.
    pub offer: Offer,
    /// The price now, in USD per hour.
    pub usd_per_hour: f64,
    /// The price at which it turns, in USD per hour: below the present one where the backend would gain, above it where it would
    /// lose.
    pub turns_at_usd_per_hour: f64,
}
