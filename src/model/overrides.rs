//! What an operator may impose for a while.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BackendId, RouteId, Share, Timestamp};

/// The kinds of override. Where several hold, drain wins over pin, pin over cap, cap over freeze.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OverrideKind {
    /// The backend gets no new request.
    Drain,
    /// The backend gets exactly the share, or everything.
    Pin,
    /// The backend gets at most the share.
    Cap,
    /// Nothing moves for money; what must move (a dead backend) still does.
    Freeze,
}

impl OverrideKind {
    /// Every kind, strongest first.
    pub const ALL: [OverrideKind; 4] =
        [OverrideKind::Drain, OverrideKind::Pin, OverrideKind::Cap, OverrideKind::Freeze];

    /// As the API and the command line spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            OverrideKind::Drain => "drain",
            OverrideKind::Pin => "pin",
            OverrideKind::Cap => "cap",
            OverrideKind::Freeze => "freeze",
        }
    }
}

impl fmt::Display for OverrideKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An instruction of an operator, which ends by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Override {
    /// Unique name, given when stored.
    pub id: String,
    /// What it does.
    pub kind: OverrideKind,
    /// The only route it holds for; without it, every route (of the backend).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteId>,
    /// The backend it is about; only `freeze` may go without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// The share of `pin` (default: all) and `cap` (required).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// Why, in the operator's words.
    pub reason: String,
    /// The name of the token that gave it.
    pub author: String,
    /// When it was stored.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

impl Override {
    /// Whether it still holds at `now`.
    pub fn active(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Whether it speaks about `backend` on `route`.
    pub fn concerns(&self, route: &RouteId, backend: &BackendId) -> bool {
        self.route.as_ref().is_none_or(|r| r == route) && self.backend.as_ref().is_none_or(|b| b == backend)
    }
}
