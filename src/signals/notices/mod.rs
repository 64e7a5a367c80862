//! How often spot nodes are taken back: notices that were received, and the rate learned from them.
//!
//! A notice comes in over the admin API as a [`NewNotice`]; the [`NoticeBoard`] counts it, and says what rate follows. What is
//! assumed before anything was received stands in `assumed.rs`, with the recordings it comes from.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::{BackendId, Share, Timestamp};

mod arrival;
mod assumed;
mod board;
mod departures;
mod saved;
mod termination_handler;
#[cfg(test)]
mod tests;

pub use arrival::{NAME_LEN_MAX, NewNotice};
pub use assumed::assumed_per_node_hour;
pub use board::{NoticeBoard, Outcome};

/// Most nodes in one notice: more are a mistake, and would be remembered for weeks.
pub const NODES_LOST_MAX: u32 = 10_000;

/// What a notice announces.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// AWS takes spot nodes back.
    SpotInterruption,
    /// AWS sees a raised risk that it will. Often nothing follows.
    RebalanceRecommendation,
    /// A machine is serviced or retired, spot or not.
    ScheduledMaintenance,
    /// Google Cloud takes spot nodes back.
    Preemption,
    /// Anything else that ends a node, such as an autoscaler that needs it no longer.
    Other,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [NoticeKind; 5] = [
        NoticeKind::SpotInterruption,
        NoticeKind::RebalanceRecommendation,
        NoticeKind::ScheduledMaintenance,
        NoticeKind::Preemption,
        NoticeKind::Other,
    ];

    /// Whether spot nodes are taken back: only that counts for the rate.
    pub fn is_interruption(self) -> bool {
        matches!(self, NoticeKind::SpotInterruption | NoticeKind::Preemption)
    }

    /// As JSON, metrics and people spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeKind::SpotInterruption => "spot-interruption",
            NoticeKind::RebalanceRecommendation => "rebalance-recommendation",
            NoticeKind::ScheduledMaintenance => "scheduled-maintenance",
            NoticeKind::Preemption => "preemption",
            NoticeKind::Other => "other",
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for NoticeKind {
    type Err = String;

    fn from_str(text: &str) -> Result<NoticeKind, String> {
        let found = NoticeKind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| arrival::unknown_kind(text))
    }
}

/// How much of a backend is lost. Written as one of two fields, `"lost": 0.4` or `"nodes": 2`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Lost {
    /// A part of its nodes.
    #[serde(rename = "lost")]
    Part(Share),
    /// So many nodes.
    #[serde(rename = "nodes")]
    Nodes(u32),
}

/// The announcement that nodes of a backend go away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Notice {
    /// Whose nodes.
    pub backend: BackendId,
    /// What happens to them.
    pub kind: NoticeKind,
    /// How many.
    #[serde(flatten)]
    pub lost: Lost,
    /// When they go, or went.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What the sender calls the event. What arrives twice under one name counts once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The machine, where there is only one. Part of the event's name: AWS Node Termination Handler gives all machines that
    /// are taken back at the same second the same event id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}
