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
    pub(super) fn add(
        &mut self,
        notice: &Notice,
        dated: bool,
        backend: &Backend,
        nodes: f64,
        now: Timestamp,
    ) {
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
    pub(super) fn leaving(
        &self,
        backend: &BackendId,
        ready_seen_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Share {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Replicas,
        signals::{fixture, notices::NoticeBoard},
    };

    const NOW: i64 = 1_700_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW + seconds).unwrap()
    }

    /// It replaces a node within three minutes.
    fn backend() -> Backend {
        let cold_start = Duration::from_secs(180);
        let replicas = Some(Replicas { min: 0, max: 10, rps: 1.0, cold_start });
        Backend { replicas, ..(*fixture::backend("spot", "http", "127.0.0.1", 80)).clone() }
    }

    fn notice(kind: NoticeKind, lost: Lost) -> Notice {
        Notice { backend: "spot".parse().unwrap(), kind, lost, at: at(0), id: None, instance: None }
    }

    fn part(share: f64) -> Lost {
        Lost::Part(Share::new(share).unwrap())
    }

    fn left(departures: &Departures, seen: Option<i64>, now: i64) -> f64 {
        departures.leaving(&"spot".parse().unwrap(), seen.map(at), at(now)).get()
    }

    #[test]
    fn it_holds_from_the_notice_until_the_node_is_replaced() {
        for (kind, dated, until) in [
            (NoticeKind::SpotInterruption, false, 300),
            (NoticeKind::Preemption, false, 210),
            (NoticeKind::SpotInterruption, true, 180),
        ] {
            let mut departures = Departures::default();
            departures.add(&notice(kind, part(0.5)), dated, &backend(), 4.0, at(0));
            assert_eq!(left(&departures, None, 0), 0.5, "{kind}: at once");
            assert_eq!(left(&departures, None, until - 1), 0.5, "{kind}");
            assert_eq!(left(&departures, None, until), 0.0, "{kind}");
            departures.forget(at(until));
            assert_eq!(departures, Departures::default());
        }
        assert_eq!(left(&Departures::default(), None, 0), 0.0);
    }

    #[test]
    fn several_add_up_and_nodes_are_a_part_of_those_that_run() {
        let mut departures = Departures::default();
        departures.add(&notice(NoticeKind::Preemption, part(0.5)), true, &backend(), 4.0, at(0));
        departures.add(&notice(NoticeKind::Preemption, Lost::Nodes(1)), true, &backend(), 4.0, at(1));
        assert_eq!(left(&departures, None, 2), 1.0 - 0.5 * 0.75);
        let mut departures = Departures::default();
        departures.add(&notice(NoticeKind::Preemption, Lost::Nodes(3)), true, &backend(), 0.0, at(0));
        assert_eq!(left(&departures, None, 2), 1.0, "it has at least those that go");
    }

    #[test]
    fn a_count_from_after_they_went_has_them_out_already() {
        let mut departures = Departures::default();
        departures.add(&notice(NoticeKind::SpotInterruption, part(0.5)), false, &backend(), 4.0, at(0));
        assert_eq!(left(&departures, Some(119), 130), 0.5, "they were counted before they went");
        assert_eq!(left(&departures, Some(121), 130), 0.0);
    }

    #[test]
    fn a_restart_forgets_none() {
        let mut board = NoticeBoard::default();
        board.note_departure(&notice(NoticeKind::SpotInterruption, part(0.5)), false, &backend(), at(0));
        let mut again = NoticeBoard::default();
        again.restore_json(&board.to_json().unwrap(), at(60)).unwrap();
        assert_eq!(again.leaving(&"spot".parse().unwrap(), None, at(299)).get(), 0.5);
        again.advance(at(300), []);
        assert_eq!(again.departures, Departures::default());
        // What an older version wrote knows of none.
        let text = NoticeBoard::default().to_json().unwrap().replace(",\"departures\":{}", "");
        assert!(!text.contains("departures"));
        assert_eq!(again.restore_json(&text, at(300)), Ok(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut departures = Departures::default();
        for _ in 0..1000 {
            departures.add(&notice(NoticeKind::Preemption, part(0.1)), true, &backend(), 4.0, at(0));
        }
        assert_eq!(departures.0.values().map(VecDeque::len).sum::<usize>(), DEPARTURES_MAX);
        assert!(left(&departures, None, 0) > 0.999_999);
    }
}
