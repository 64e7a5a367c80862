//! Nodes that go away: what a backend lacks from the arrival of a notice until its autoscaler has replaced them.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Lost, Notice, NoticeKind};
use crate::model::{Backend, BackendId, Share, Timestamp};

/// Departures that are remembered of one backend; beyond that the oldest are forgotten. Each takes its part of what the ones
/// before have left, so this many leave nothing of it to tell.
const DEPARTURES_MAX: usize = 256;

/// A part of a backend's nodes that goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Departure {
    /// The part.
    part: Share,
    /// When they go, or went.
    at: Timestamp,
    /// From when they are taken to be replaced.
    until: Timestamp,
}

/// All departures that may be in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Departures(BTreeMap<BackendId, VecDeque<Departure>>);

/// Warning time of a provider, for notices that do not say when: AWS gives two minutes
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>), Google Cloud 30 seconds
/// (<https://cloud.google.com/compute/docs/instances/spot#preemption-process>).
pub(super) fn warning_time(kind: NoticeKind) -> Duration {
    match kind {
        NoticeKind::SpotInterruption => Duration::from_secs(120),
        NoticeKind::Preemption => Duration::from_secs(30),
        NoticeKind::RebalanceRecommendation | NoticeKind::ScheduledMaintenance | NoticeKind::Other => {
            Duration::ZERO
        }
    }
}

impl Departures {
    /// Takes an interruption that was received at `now`. `nodes`: nodes of the backend, spot and others. `dated`: whether the
    /// notice says when they go.
    pub(super) fn add(&mut self, notice: &Notice, dated: bool, backend: &Backend, nodes: f64, now: Timestamp) {
        let part = match notice.lost {
            Lost::Part(part) => part,
            // Of fewer nodes than go all go.
            Lost::Nodes(lost) => {
                Share::new(f64::from(lost) / nodes.max(f64::from(lost))).unwrap_or(Share::ONE)
            }
        };
        let at = if dated { notice.at } else { later(now, warning_time(notice.kind)) };
        let cold_start = backend.replicas.as_ref().map_or(Duration::ZERO, |replicas| replicas.cold_start);
        let all = self.0.entry(notice.backend.clone()).or_default();
        all.push_back(Departure { part, at, until: later(at, cold_start) });
        if all.len() > DEPARTURES_MAX {
            all.pop_front();
        }
    }

    /// The part of a backend's nodes that goes or has gone and is not replaced yet. `ready_seen_at`: when its ready replicas
    /// were last counted; what went before that is not among them.
    pub(super) fn leaving(&self, backend: &BackendId, ready_seen_at: Option<Timestamp>, now: Timestamp) -> Share {
        let all = self.0.get(backend).into_iter().flatten();
        let in_force = all.filter(|departure| now < departure.until);
        let unseen = in_force.filter(|departure| ready_seen_at.is_none_or(|seen| seen <= departure.at));
        let left: f64 = unseen.map(|departure| 1.0 - departure.part.get()).product();
        Share::new(1.0 - left).unwrap_or(Share::ZERO)
    }

    /// Forgets what is over.
    pub(super) fn forget(&mut self, now: Timestamp) {
        for all in self.0.values_mut() {
            all.retain(|departure| now < departure.until);
        }
        self.0.retain(|_, all| !all.is_empty());
    }
}

/// A time that is out of range is as good as never.
fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
