//! What decisions make of capacity that is seen: reported replicas, queues, and nodes that leave.

use std::time::Duration;

use proptest::prelude::*;

use super::{room::SPILL_FROM, worlds::World};
use crate::model::{Action, Replicas, Share, Slo};

/// Two backends of 10 requests a second a replica, both with these replicas ready; 50 requests a second, all at `a`.
fn world(a: u32, b: u32) -> World {
    let mut world = World::new(&[("a", 1.0), ("b", 1.2)]);
    for name in ["a", "b"] {
        world.configure(name, |backend| {
            backend.replicas =
                Some(Replicas { min: 0, max: 100, rps: 10.0, cold_start: Duration::from_secs(60) });
        });
    }
    world.tick();
    assert_eq!(world.share("a"), 1.0);
    report(&mut world, a, b);
    world
}

fn report(world: &mut World, a: u32, b: u32) {
    world.view_mut("a").load.ready_replicas = Some(a);
    world.view_mut("b").load.ready_replicas = Some(b);
}

#[test]
fn what_exceeds_ready_capacity_goes_at_once_where_some_is_ready() {
    let mut world = world(5, 5);
    world.tick();
    assert_eq!(world.share("a"), 1.0, "it fits");
    // Two of five replicas are gone.
    report(&mut world, 3, 5);
    let decision = world.tick();
    assert!((world.share("a") - 0.6).abs() < 1e-9, "{}", world.share("a"));
    // The target stays, and is what the autoscaler prepares for.
    assert!((decision.backends[0].planned_rps - 50.0).abs() < 1e-9);
    assert_eq!(decision.action, Action::Stay, "no move: it comes back");
    report(&mut world, 6, 5);
    world.run(60);
    assert_eq!(world.share("a"), 1.0);
}

#[test]
fn without_room_elsewhere_it_stays_where_it_is() {
    let mut world = world(3, 0);
    world.tick();
    assert_eq!(world.share("a"), 1.0);
    // With a little room, as much as fits.
    report(&mut world, 3, 1);
    world.tick();
    assert!((world.share("b") - 0.2).abs() < 1e-9, "{}", world.share("b"));
}

#[test]
fn a_queue_is_given_room_to_go() {
    let mut world = world(5, 5);
    // 300 requests wait: for a minute, 5 a second stay away.
    world.view_mut("a").load.queued = Some(300.0);
    world.tick();
    assert!((world.share("a") - 0.9).abs() < 1e-9, "{}", world.share("a"));
}

#[test]
fn where_requests_wait_there_is_no_room_though_nobody_says_what_is_ready() {
    let mut world = world(3, 7);
    world.view_mut("a").load.queued = Some(70.0);
    world.view_mut("b").load.queued = Some(75.0);
    world.tick();
    assert_eq!(world.share("a"), 1.0, "requests wait at both");
    world.view_mut("b").load.ready_replicas = None;
    world.tick();
    assert_eq!(world.share("a"), 1.0);
    world.view_mut("b").load.queued = None;
    world.tick();
    assert_eq!(world.share("a"), 1.0, "a queue that nobody tells of any more is not gone");
    world.view_mut("b").load.queued = Some(0.0);
    world.tick();
    assert!(world.share("b") > 0.4, "{}", world.share("b"));
}

#[test]
fn leaving_nodes_count_as_gone() {
    let mut world = world(5, 9);
    world.view_mut("a").leaving = Share::new(0.5).unwrap();
    world.tick();
    assert!((world.share("a") - 0.5).abs() < 1e-9, "{}", world.share("a"));
}

#[test]
fn replicas_that_do_not_come_are_not_counted_on_for_a_while() {
    let mut world = world(2, 5);
    // A cold start and a half, and a minute: 150 s.
    world.run(140);
    assert_eq!(world.state.target, [1.0, 0.0]);
    let decision = world.run(20);
    assert!((decision.backends[0].target - 0.4).abs() < 1e-9, "{:?}", decision.backends[0]);
    assert!((decision.backends[1].planned_rps - 30.0).abs() < 1e-9, "the other side prepares");
    assert!((decision.backends[0].planned_rps - 50.0).abs() < 1e-9, "and they are asked for all the same");
    // After the hold it is counted on again.
    world.run(600);
    assert_eq!(world.state.target, [1.0, 0.0]);
}

#[test]
fn when_half_of_it_is_gone_others_prepare_at_once() {
    let mut world = world(6, 0);
    world.tick();
    report(&mut world, 3, 0);
    world.tick();
    let decision = world.tick();
    assert!((decision.backends[1].planned_rps - 20.0).abs() < 1e-9, "{:?}", decision.backends[1]);
    assert_eq!(world.share("a"), 1.0, "nobody else is ready yet");
}

#[test]
fn what_was_placed_while_nobody_asked_comes_back_after_a_drain() {
    // At no demand everything fits into what is paid anyway.
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    for name in ["a", "b"] {
        world.configure(name, |backend| backend.replicas.as_mut().unwrap().min = 1);
    }
    world.snapshot.demand_rps = 0.0;
    world.run(10);
    world.snapshot.demand_rps = 30.0;
    world.run(100);
    let before = world.share("a");
    assert!(before > 0.6, "{before}");
    world.impose(crate::model::OverrideKind::Drain, Some("a"), None);
    world.run(10);
    assert_eq!(world.share("a"), 0.0);
    world.snapshot.overrides.clear();
    world.run(1300);
    assert!((world.share("a") - before).abs() < 0.02, "{} after {before}", world.share("a"));
}

#[test]
fn a_floor_does_not_become_the_place_to_be_when_the_demand_grows() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.12)]);
    world.policy.keep_warm = Share::new(0.02).unwrap();
    world.configure("a", |backend| backend.replicas.as_mut().unwrap().min = 2);
    world.snapshot.demand_rps = 2.0;
    world.run(100);
    world.snapshot.demand_rps = 80.0;
    world.run(100);
    assert!(world.share("a") > 0.9, "{}", world.share("a"));
}

#[test]
fn replicas_that_flap_below_what_is_wanted_are_not_a_sign_that_they_come() {
    let mut world = world(2, 5);
    for second in 0..200 {
        report(&mut world, 2 + second % 2, 5);
        world.tick();
    }
    assert!(world.state.target[1] > 0.3, "{:?}", world.state.target);
}

#[test]
fn a_few_requests_that_wait_do_not_excuse_slowness() {
    let mut world = world(20, 20);
    world.snapshot.slo = Slo { ttft_p95: Some(Duration::from_millis(500)) };
    let view = world.view_mut("a");
    (view.load.queued, view.load.arrived_since) = (Some(2.0), 3.0);
    (view.live.samples, view.live.ttfb_p95) = (100, Some(Duration::from_secs(2)));
    world.run(3);
    assert_eq!(world.share("a"), 0.0);
}

#[test]
fn routes_that_share_a_backend_take_its_excess_away_together_and_not_each() {
    // 50 a second of this route and 150 of others on 16 replicas: 40 are too many, of which 10 are this route's.
    let mut world = world(16, 9);
    world.view_mut("a").load_elsewhere_rps = 150.0;
    world.tick();
    assert!((world.share("a") - 0.8).abs() < 1e-9, "{}", world.share("a"));
}

#[test]
fn a_spill_is_explained() {
    let mut world = world(3, 5);
    let decision = world.tick();
    assert_eq!(decision.backends[0].limited_by, Some(crate::model::Cause::Capacity));
}

#[test]
fn slowness_of_a_full_backend_is_no_reason_to_leave_it_altogether() {
    let mut world = world(5, 5);
    world.snapshot.slo = Slo { ttft_p95: Some(Duration::from_millis(500)) };
    let slow = |world: &mut World| {
        let live = &mut world.view_mut("a").live;
        (live.samples, live.ttfb_p95) = (100, Some(Duration::from_secs(2)));
    };
    slow(&mut world);
    world.tick();
    assert_eq!(world.share("a"), 1.0, "full, so that is why");
    // One with time to spare is slow in itself, once what overload has left is forgotten.
    report(&mut world, 9, 9);
    let decision = world.run(130);
    assert_eq!(world.share("a"), 0.0, "{decision:?}");
}

#[test]
fn one_that_is_slow_keeps_what_nobody_else_is_ready_for() {
    let mut world = world(9, 2);
    world.snapshot.slo = Slo { ttft_p95: Some(Duration::from_millis(500)) };
    let live = &mut world.view_mut("a").live;
    (live.samples, live.ttfb_p95) = (100, Some(Duration::from_secs(2)));
    let decision = world.tick();
    assert_eq!(decision.action, Action::Evacuate);
    assert!((world.share("b") - 0.4).abs() < 1e-9, "{}", world.share("b"));
    assert_eq!(world.tick().action, Action::Stay, "nothing more can leave now");
    report(&mut world, 9, 9);
    assert_eq!(world.tick().action, Action::Evacuate);
    assert_eq!(world.share("b"), 1.0);
}

#[test]
fn reports_that_come_late_do_not_make_shares_oscillate() {
    // Each side reports what was ready half a minute ago; both autoscalers follow their load at once.
    let mut world = world(6, 6);
    let mut ready = Vec::new();
    let mut shares = Vec::new();
    for _ in 0..3600 {
        world.tick();
        let of = |share: f64| (share * 50.0 / 8.0).ceil() as u32;
        ready.push((of(world.share("a")), of(world.share("b"))));
        let (a, b) = ready[ready.len().saturating_sub(30)];
        report(&mut world, a, b);
        shares.push(world.share("a"));
    }
    let turns = shares.windows(3).filter(|w| (w[1] - w[0]) * (w[2] - w[1]) < -1e-12).count();
    assert!(turns <= 2, "{turns} turns");
}

proptest! {
    /// Whatever is reported, shares sum to 1, and nobody keeps more than the tolerance above what is ready while another has
    /// room.
    #[test]
    fn shares_respect_what_is_ready(reports in prop::collection::vec((0u32..12, 0u32..12, 0.0f64..40.0), 1..40)) {
        let mut world = world(5, 5);
        for (a, b, queued) in reports {
            report(&mut world, a, b);
            world.view_mut("a").load.queued = Some(queued);
            world.tick();
            let (x, y) = (world.share("a"), world.share("b"));
            prop_assert!((x + y - 1.0).abs() < 1e-9 && x >= 0.0 && y >= 0.0);
            let (ready_a, ready_b) = (f64::from(a) / 5.0, f64::from(b) / 5.0);
            let has_room = |share: f64, ready: f64| share < ready - 1e-6;
            let is_over = |share: f64, ready: f64| share > ready * SPILL_FROM + 1e-6;
            prop_assert!(!(is_over(x, ready_a) && has_room(y, ready_b)), "a {a} {x}, b {b} {y}");
            // A queue takes nothing more in.
            prop_assert!(!(is_over(y, ready_b) && has_room(x, ready_a)) || queued > 0.0, "a {a} {x}, b {b} {y}");
        }
    }

    /// A report that stops coming never raises a backend's share beyond what the one that stays would have given it.
    #[test]
    fn a_missing_report_attracts_nothing(a in 0u32..12, b in 1u32..12) {
        let mut seen = world(a, b);
        let mut unseen = world(a, b);
        unseen.view_mut("b").load.ready_replicas = None;
        // What runs there is modelled from what it serves, which is nothing: it must warm up first.
        seen.tick();
        unseen.tick();
        prop_assert!(unseen.share("b") <= seen.share("b") + 1e-9);
    }
}
