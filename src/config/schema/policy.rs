//! Rules inside a policy, as they are written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::leaf::Text;
use crate::model::Share;

/// What an operator knows and prices do not say.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct PolicyRule {
    /// What it is called in decisions, `explain` and the journal. Once in a policy.
    #[schemars(length(min = 1, max = 120), extend("examples" = ["no bulk traffic to Europe in its morning peak"]))]
    pub(in super::super) name: String,
    /// A condition in the Common Expression Language, evaluated for each backend of the route in every tick, never for a request.
    /// It may ask for `backend`, `route`, `load` and `now` (see docs/deciding.md). At most 4 KiB.
    #[schemars(length(min = 1), extend("examples" = ["backend.region.startsWith('eu') && now.hour >= 7 && now.hour < 10"]))]
    pub(in super::super) when: String,
    /// What holds where it is true.
    pub(in super::super) then: Then,
}

/// What a rule does: exactly one of the keys.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1, "examples" = [{ "deny": true }, { "cap": "30%" }]))]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct Then {
    /// No later `deny` applies to the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) allow: Option<bool>,
    /// The backend may not serve, whatever else: if none is left, requests are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) deny: Option<bool>,
    /// The backend gets at most this share. The lowest counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) cap: Option<Text<Share>>,
    /// The backend gets at least this share while it may serve. The highest counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) floor: Option<Text<Share>>,
    /// When costs are compared, the backend counts as cheaper by this part: what you are willing to pay for it. The highest counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) prefer: Option<Text<Share>>,
    /// Nothing of the route moves for money.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in super::super) hold: Option<bool>,
}
