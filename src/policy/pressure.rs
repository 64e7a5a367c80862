//! Whether a backend is at its limit by its own report: then it gets no more than it has.
//!
//! It is a limit to growth only: what must go for capacity goes by what is seen to be ready, and by a queue that needs room to go
//! (`spill` in [`super::ramp`]).

use std::time::Duration;

use super::state::Warmth;
use crate::model::{LoadReport, Policy, Slo, Timestamp};

/// Part of its scarcest resource in use from which a backend gets no more: above it servers begin to queue and to preempt.
const SATURATION_FROM: f64 = 0.95;

/// Part below which it gets more again: so far below that the next steps of a ramp do not bring it to its limit at once.
const SATURATION_UNTIL: f64 = 0.85;

/// Time that waiting requests may take to be worked off where the route has no objective.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Part of that time below which a backend gets more again.
const WAIT_UNTIL: f64 = 0.5;

/// What of a backend is ready, all routes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) replicas: f64,
    /// Requests per second of all of them.
    pub(super) rps: f64,
}

/// Whether a backend is at its limit: saturated, or with more waiting than what is ready works off within the objective. It
/// stays so until it reports that it is well below; where it falls silent, for `hold`. Without `ready` only saturation counts.
pub(super) fn is_saturated(
    policy: &Policy,
    slo: &Slo,
    load: &LoadReport,
    ready: Option<Ready>,
    warmth: &mut Warmth,
    now: Timestamp,
) -> bool {
    let full_from = if warmth.full_at.is_some() { SATURATION_UNTIL } else { SATURATION_FROM };
    let full = load.saturation.map(|part| part >= full_from);
    let wait_max = slo.ttft_p95.unwrap_or(WAIT_MAX).as_secs_f64();
    let wait_from = if warmth.late_at.is_some() { wait_max * WAIT_UNTIL } else { wait_max };
    let late = ready.and_then(|Ready { replicas, rps }| {
        // Where nothing is ready, whatever waits waits too long.
        load.waiting(replicas).map(|waiting| waiting > wait_from * rps)
    });
    let is_full = still_seen(&mut warmth.full_at, full, policy.hold, now);
    still_seen(&mut warmth.late_at, late, policy.hold, now) || is_full
}

/// Whether something is seen, or, where nobody says (`None`), was seen within `memory`.
pub(super) fn still_seen(
    seen_at: &mut Option<Timestamp>,
    seen: Option<bool>,
    memory: Duration,
    now: Timestamp,
) -> bool {
    match seen {
        Some(true) => *seen_at = Some(now),
        Some(false) => *seen_at = None,
        None => *seen_at = seen_at.filter(|at| now.duration_since(*at).unsigned_abs() < memory),
    }
    seen_at.is_some()
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, time::Duration};

    use proptest::prelude::*;

    use crate::{
        model::{Action, Cause, Decision, LoadReport, Replicas, Share},
        policy::{
            State, decide,
            worlds::{World, at},
        },
    };

    fn kept_by(decision: &Decision, place: usize) -> Option<Cause> {
        decision.backends[place].limited_by
    }

    /// b, at first empty and dear, becomes cheap: traffic begins to move there, 10% a second.
    fn moving_to_b() -> World {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
        world.run(700);
        world.set_price("b", 0.5);
        assert_eq!(world.tick().action, Action::Shift);
        world
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn a_saturated_backend_keeps_its_share_until_it_is_well_below() {
        let mut world = moving_to_b();
        world.view_mut("b").load.saturation = Some(0.95);
        let decision = world.run(100);
        assert!(near(world.share("b"), 0.1), "{}", world.share("b"));
        assert_eq!(kept_by(&decision, 1), Some(Cause::Saturated));
        assert!(near(decision.backends[1].target, 1.0), "what its autoscaler prepares for stays");
        world.view_mut("b").load.saturation = Some(0.86);
        world.run(100);
        assert!(near(world.share("b"), 0.1), "hysteresis");
        world.view_mut("b").load.saturation = Some(0.84);
        assert_eq!(kept_by(&world.tick(), 1), None);
        assert!(near(world.share("b"), 0.2));
        world.view_mut("b").load.saturation = Some(0.94);
        world.run(20);
        assert!(near(world.share("b"), 1.0), "below 95% it is not at its limit");
    }

    #[test]
    fn a_queue_counts_by_the_time_it_takes() {
        let mut world = moving_to_b();
        world.configure("b", |b| {
            b.replicas = Some(Replicas { min: 10, max: 10, rps: 10.0, cold_start: Duration::ZERO })
        });
        // 100 requests a second are ready.
        world.view_mut("b").load.queued = Some(101.0);
        world.run(20);
        assert!(near(world.share("b"), 0.1), "more than a second");
        world.view_mut("b").load.queued = Some(51.0);
        world.run(20);
        assert!(near(world.share("b"), 0.1), "not half of it yet");
        world.view_mut("b").load.queued = Some(50.0);
        world.tick();
        assert!(near(world.share("b"), 0.2));
        // Eleven at each of ten replicas are more than a second.
        let load = &mut world.view_mut("b").load;
        (load.queued, load.queued_at_one) = (Some(11.0), true);
        world.tick();
        assert!(near(world.share("b"), 0.2));
        let load = &mut world.view_mut("b").load;
        (load.queued, load.queued_at_one) = (Some(0.0), false);
        world.tick();
        assert!(near(world.share("b"), 0.3));
        world.view_mut("b").load.arrived_since = 101.0;
        world.tick();
        assert!(near(world.share("b"), 0.3), "what has come since the report waits too");
        world.snapshot.slo.ttft_p95 = Some(Duration::from_secs(3));
        world.view_mut("b").load.arrived_since = 140.0;
        world.tick();
        assert!(near(world.share("b"), 0.4), "within an objective of three seconds");
    }

    #[test]
    fn a_saturated_backend_holds_nothing_up() {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
        world.run(700);
        world.set_price("b", 0.5);
        world.tick();
        world.view_mut("b").load.saturation = Some(1.0);
        world.run(700);
        world.set_price("c", 0.2);
        assert_eq!(world.tick().action, Action::Shift, "hold has passed, though b never got its share");
        world.run(20);
        assert!(near(world.share("c"), 1.0));
    }

    #[test]
    fn when_a_saturated_backend_falls_silent_it_stays_so_for_hold() {
        let mut world = moving_to_b();
        world.view_mut("b").load.saturation = Some(1.0);
        world.run(10);
        world.view_mut("b").load = LoadReport::default();
        world.run(599);
        assert!(near(world.share("b"), 0.1));
        world.run(12);
        assert!(near(world.share("b"), 1.0), "then it is modelled");
    }

    #[test]
    fn when_no_one_else_is_left_a_saturated_backend_serves_all() {
        let mut world = moving_to_b();
        world.view_mut("b").load.saturation = Some(1.0);
        world.run(10);
        world.set_health("a", crate::model::Health::Unhealthy);
        world.tick();
        assert!(near(world.share("b"), 1.0));
    }

    #[test]
    fn nodes_that_leave_take_their_share_along_and_it_comes_back() {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
        for name in ["a", "b"] {
            let replicas = Replicas { min: 6, max: 10, rps: 10.0, cold_start: Duration::from_secs(60) };
            world.configure(name, |b| b.replicas = Some(replicas));
        }
        world.run(700);
        assert!(near(world.share("a"), 1.0), "50 requests a second for six replicas");
        world.view_mut("a").leaving = Share::new(0.5).unwrap();
        let decision = world.tick();
        assert!(near(world.share("a"), 0.6) && near(world.share("b"), 0.4), "{:?}", world.state.shares);
        assert_eq!(kept_by(&decision, 0), Some(Cause::Leaving));
        assert!(near(decision.backends[0].target, 1.0));
        world.run(100);
        assert!(near(world.share("a"), 0.6));
        world.view_mut("a").leaving = Share::ZERO;
        world.tick();
        assert!(near(world.share("a"), 0.7), "by the ramp");
        world.run(10);
        assert!(near(world.share("a"), 1.0));
    }

    /// Changes of direction of a share, of more than a percent each.
    fn turns(shares: &[f64]) -> usize {
        let (mut turns, mut extreme, mut rising) = (0, shares[0], None);
        for share in shares {
            let up = *share > extreme;
            if (share - extreme).abs() > 0.01 {
                turns += usize::from(rising.is_some_and(|rising| rising != up));
                rising = Some(up);
                extreme = *share;
            } else if rising == Some(up) {
                extreme = *share;
            }
        }
        turns
    }

    /// A cluster in small: what is wanted of it comes after a minute, what it cannot serve waits, and what it reports arrives
    /// 30 seconds late. `b` has an outage, so that traffic comes back to it; `steps` is how far the ramp goes in a second.
    fn shares_with_late_reports(step: f64, most: u32) -> Vec<f64> {
        const DELAY: usize = 30;
        let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
        world.policy.ramp = crate::model::Ramp::new(step, Duration::from_secs(1)).unwrap();
        let replicas = Replicas { min: 1, max: most, rps: 10.0, cold_start: Duration::from_secs(60) };
        world.configure("b", |b| b.replicas = Some(replicas.clone()));
        world.run(700);
        world.set_price("b", 0.4);
        let (mut ready, mut queued) = (1.0, 0.0_f64);
        let mut wishes: VecDeque<f64> = VecDeque::from(vec![1.0; 60]);
        let mut reports: VecDeque<LoadReport> = VecDeque::new();
        let mut shares = Vec::new();
        for _ in 0..3600 {
            let decision = world.tick();
            let share = world.share("b");
            shares.push(share);
            wishes.push_back(
                (decision.backends[1].planned_rps / replicas.rps).ceil().clamp(1.0, f64::from(most)),
            );
            ready = wishes.pop_front().unwrap_or(ready);
            let load = share * world.snapshot.demand_rps;
            queued = (queued + load - ready * replicas.rps).max(0.0);
            reports.push_back(LoadReport {
                ready_replicas: Some(ready as u32),
                queued: Some(queued),
                saturation: Some((load / (ready * replicas.rps)).min(1.0)),
                ..LoadReport::default()
            });
            if reports.len() > DELAY {
                world.view_mut("b").load = reports.pop_front().unwrap();
            }
        }
        shares
    }

    #[test]
    fn turns_are_counted() {
        assert_eq!(turns(&[0.0, 0.5, 0.2, 0.195, 0.6, 0.8]), 2);
        assert_eq!(turns(&[0.0, 0.1, 0.2, 0.2, 0.3]), 0);
    }

    #[test]
    fn reports_that_come_late_do_not_make_shares_swing() {
        for (step, most) in [(0.1, 100), (0.01, 100), (1.0, 100), (0.1, 3), (0.01, 3), (1.0, 3)] {
            let shares = shares_with_late_reports(step, most);
            assert!(turns(&shares) <= 2, "step {step}, at most {most}: {} turns", turns(&shares));
            let last = &shares[1800..];
            let (low, high) = last.iter().fold((1.0_f64, 0.0_f64), |(l, h), s| (l.min(*s), h.max(*s)));
            assert!(high - low < 0.01, "step {step}, at most {most}: it still moves from {low} to {high}");
        }
    }

    fn report() -> impl Strategy<Value = LoadReport> {
        let some = |range: std::ops::Range<f64>| prop::option::of(range);
        (prop::option::of(0..12u32), some(0.0..200.0), some(0.0..1.0), any::<bool>(), 0.0..50.0).prop_map(
            |(ready_replicas, queued, saturation, queued_at_one, arrived)| LoadReport {
                ready_replicas,
                queued,
                queued_at_one,
                arrived_since: if queued.is_some() { arrived } else { 0.0 },
                saturation,
            },
        )
    }

    /// `load` without some of its figures.
    fn without(load: LoadReport, ready: bool, queue: bool, saturation: bool) -> LoadReport {
        LoadReport {
            ready_replicas: load.ready_replicas.filter(|_| !ready),
            queued: load.queued.filter(|_| !queue),
            arrived_since: if queue { 0.0 } else { load.arrived_since },
            saturation: load.saturation.filter(|_| !saturation),
            ..load
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Two worlds that are alike until a figure of the last report is missing in one: there the share becomes no larger
        /// than in the other, or than it was.
        #[test]
        fn a_missing_signal_never_raises_a_share(
            reports in prop::collection::vec((0..2usize, report(), 1..90usize), 1..8),
            cold_start in prop::sample::select(vec![0u64, 5, 60]),
            prices in (0.2..3.0f64, 0.2..3.0f64),
            (which, missing) in (0..2usize, (any::<bool>(), any::<bool>(), any::<bool>())),
            silence in 1..60usize,
        ) {
            let names = ["a", "b"];
            let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
            for name in names {
                let cold_start = Duration::from_secs(cold_start);
                world.configure(name, |b| b.replicas = Some(Replicas { min: 2, max: 10, rps: 10.0, cold_start }));
            }
            world.run(5);
            for (place, report, seconds) in reports {
                world.view_mut(names[place]).load = report;
                world.run(seconds);
            }
            world.set_price("a", prices.0);
            world.set_price("b", prices.1);
            world.tick();
            let before = world.share(names[which]);
            let mut known = world;
            let load = known.view_mut(names[which]).load;
            let mut silent = World {
                policy: known.policy.clone(),
                snapshot: known.snapshot.clone(),
                state: known.state.clone(),
                now: known.now,
            };
            silent.view_mut(names[which]).load = without(load, missing.0, missing.1, missing.2);
            let mut most = before;
            for _ in 0..silence {
                known.tick();
                silent.tick();
                most = most.max(known.share(names[which]));
                prop_assert!(
                    silent.share(names[which]) <= most + 1e-6,
                    "{} rather than {most}: {:?}", silent.share(names[which]), load
                );
            }
        }
    }

    #[test]
    fn the_state_of_an_older_version_is_read() {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
        world.run(10);
        let mut json = serde_json::to_value(&world.state).unwrap();
        for warmth in json["warmth"].as_array_mut().unwrap() {
            for key in ["reported_at", "full_at", "late_at", "queued_at"] {
                assert!(warmth.as_object_mut().unwrap().remove(key).is_some(), "{key}");
            }
        }
        let read: State = serde_json::from_value(json).unwrap();
        assert_eq!(read, world.state);
        decide(&world.policy, &world.snapshot, &read, at(world.now + 1));
    }
}
