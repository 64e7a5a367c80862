//! The recent past of every route, in memory: what the dashboard draws. Gone with the process; the journal stays.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::RoutePicture;
use crate::{
    admin::board::{Move, Point, Sample, Trend},
    model::{BackendId, RouteId, Timestamp},
    policy::explain,
};

/// Samples of a route at most: at the widest spacing those of a day.
const SAMPLES_MAX: usize = 720;

/// Spacing of the first samples. It doubles whenever the place is used up, so that the first minutes are seen too.
const SPACING_MIN: Duration = Duration::from_secs(1);

/// Spacing from which on the oldest sample is dropped for a new one: with it a day is kept.
const SPACING_MAX: Duration = Duration::from_secs(128);

/// Points of all routes at most, of 36 bytes: thousands of routes get shorter memories, not more of it.
const POINTS_MAX: usize = 600_000;

/// How long a move is shown.
const MOVES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Moves that are kept at most: the page is read by people.
const MOVES_MAX: usize = 200;

/// The past of one route.
#[derive(Debug)]
struct Kept {
    backends: Arc<[BackendId]>,
    samples: VecDeque<Sample>,
    spacing: Duration,
}

/// The past of all routes.
#[derive(Debug, Default)]
pub(super) struct Trends {
    routes: HashMap<RouteId, Kept>,
    /// Oldest first.
    moves: VecDeque<Move>,
}

impl Trends {
    /// Adds a turn of the loop.
    pub(super) fn add(&mut self, routes: &[RoutePicture], now: Timestamp) {
        let points: usize = routes.iter().map(|picture| picture.snapshot.backends.len()).sum();
        let room = (POINTS_MAX / points.max(1)).clamp(2, SAMPLES_MAX);
        for picture in routes {
            let route = &picture.snapshot.route;
            let moved = explain::is_move(&picture.decision);
            self.routes.entry(route.clone()).or_insert_with(Kept::empty).add(picture, moved, room, now);
            if moved {
                self.note(Move {
                    at: picture.decision.at,
                    route: route.clone(),
                    action: picture.decision.action,
                    reason: picture.decision.reason.to_string(),
                });
            }
        }
        // Only then: each of many routes is looked for among all of them.
        if self.routes.len() > routes.len() {
            self.routes.retain(|route, _| routes.iter().any(|picture| picture.snapshot.route == *route));
        }
        let old = |moved: &Move| now.duration_since(moved.at).unsigned_abs() > MOVES_KEPT;
        while self.moves.front().is_some_and(old) {
            self.moves.pop_front();
        }
    }

    /// Adds a move, in the order of their times.
    pub(super) fn note(&mut self, moved: Move) {
        if self.moves.len() == MOVES_MAX {
            self.moves.pop_front();
        }
        self.moves.push_back(moved);
    }

    /// Moves of the last 24 hours, newest first.
    pub(super) fn moves(&self) -> Vec<Move> {
        self.moves.iter().rev().cloned().collect()
    }

    /// The past of a route.
    pub(super) fn of(&self, route: &RouteId) -> Trend {
        self.routes.get(route).map_or_else(Trend::default, |kept| Trend {
            backends: kept.backends.clone(),
            samples: kept.samples.iter().cloned().collect(),
            spacing_seconds: kept.spacing.as_secs_f64(),
        })
    }
}

impl Kept {
    fn empty() -> Kept {
        Kept { backends: Arc::new([]), samples: VecDeque::new(), spacing: SPACING_MIN }
    }

    fn add(&mut self, picture: &RoutePicture, moved: bool, room: usize, now: Timestamp) {
        let views = &picture.snapshot.backends;
        if !views.iter().map(|view| &view.backend.id).eq(self.backends.iter()) {
            *self = Kept {
                backends: views.iter().map(|view| view.backend.id.clone()).collect(),
                ..Kept::empty()
            };
        }
        if self.make_room(moved, room, now) {
            let points = picture.decision.backends.iter().zip(views).map(|(verdict, view)| Point {
                share: verdict.share as f32,
                usd_per_1k: verdict.unit_cost.map(|cost| cost.total() as f32),
                p95_seconds: view.live.ttfb_p95.map(|time| time.as_secs_f32()),
                spot_usd_per_hour: view.spot.as_ref().map(|price| price.usd_per_hour.get() as f32),
                on_demand_usd_per_hour: view.on_demand.as_ref().map(|price| price.usd_per_hour.get() as f32),
            });
            self.samples.push_back(Sample { at: now, points: points.collect() });
        }
    }

    /// Whether a sample is due; then there is a place for it.
    fn make_room(&mut self, moved: bool, room: usize, now: Timestamp) -> bool {
        // A move is seen at once, but a route that moves at every turn does not use up the place for all others.
        let spacing = if moved { SPACING_MIN } else { self.spacing };
        let since = |last: &Sample| now.duration_since(last.at).unsigned_abs();
        if self.samples.back().is_some_and(|last| since(last) < spacing) {
            return false;
        }
        while self.samples.len() >= room {
            if self.spacing < SPACING_MAX {
                self.spacing *= 2;
                let mut odd = false;
                self.samples.retain(|_| {
                    odd = !odd;
                    odd
                });
            } else {
                self.samples.pop_front();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_seen_closely_and_a_day_as_a_whole() {
        let mut kept = Kept::empty();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for second in 0..2 * 86_400 {
            if kept.make_room(false, SAMPLES_MAX, at(second)) {
                kept.samples.push_back(Sample { at: at(second), points: Arc::new([]) });
            }
            assert!(kept.samples.len() <= SAMPLES_MAX);
            let first = kept.samples[0].at.as_second();
            assert!(
                first == 0 || second - first >= 86_000,
                "of second {second} only {} are left",
                second - first
            );
            if second == 600 {
                assert_eq!(kept.samples.len(), 601);
            }
        }
        assert_eq!(kept.spacing, SPACING_MAX);
        let last = kept.samples.back().unwrap().at.as_second();
        assert!(!kept.make_room(true, SAMPLES_MAX, at(last)), "two moves in one second are one sample");
        assert!(kept.make_room(true, SAMPLES_MAX, at(last + 1)));
    }
}
