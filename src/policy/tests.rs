//! What the decision promises, one behaviour a test.

use std::time::Duration;

use super::worlds::{World, at, id, policy};
use super::*;
use crate::model::{Health, PriceState, Share};

/// That what is chosen is the cheapest there is.
mod optimum;
/// What is paid anyway.
mod paid;
mod pins;
/// What holds whatever happens.
mod properties;
/// What is kept ready for the loss of a cloud.
mod redundancy;
/// How traffic comes back to who was away.
mod returning;
/// What rules do to a decision, in a file of their own for its length.
mod rules;
/// What constraints cost.
mod shadow;
/// At which prices it turns.
mod turning;

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn the_first_placement_is_the_cheapest() {
    let mut world = World::new(&[("a", 1.0), ("b", 0.9)]);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Place);
    assert!(near(world.share("b"), 1.0));
}

#[test]
fn a_gap_below_the_threshold_moves_nothing() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.tick();
    world.set_price("b", 0.86);
    let decision = world.run(2000);
    assert!(near(world.share("a"), 1.0));
    assert_eq!(decision.reason.code(), "gap_below_threshold");
    assert!(near(decision.gap.unwrap(), 0.14), "{:?}", decision.gap);
}

#[test]
fn a_gap_at_the_threshold_moves_by_the_ramp() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.set_price("b", 0.85);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Shift);
    assert!(near(world.share("b"), 0.1), "{}", world.share("b"));
    for step in 2..=10 {
        world.tick();
        assert!(near(world.share("b"), f64::from(step) * 0.1));
    }
    world.tick();
    assert_eq!(world.share("b"), 1.0);
}

#[test]
fn traffic_returns_only_when_the_gap_has_closed() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.set_price("b", 0.8);
    world.run(700);
    assert!(near(world.share("b"), 1.0));
    world.set_price("b", 0.92);
    let decision = world.run(700);
    assert_eq!(decision.reason.code(), "away");
    assert!(near(world.share("b"), 1.0), "inside the band nothing moves");
    world.set_price("b", 0.96);
    assert_eq!(world.tick().action, Action::Return);
    world.run(10);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn inside_hold_nothing_moves() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.set_price("b", 0.5);
    world.run(11);
    assert!(near(world.share("b"), 1.0));
    world.set_price("b", 5.0);
    let decision = world.run(595);
    assert_eq!(decision.reason.code(), "holding");
    assert!(near(world.share("b"), 1.0));
    world.run(20);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn the_paid_minimum_leaves_nothing_to_save() {
    for rule in [policy().rule, Rule::BreakEven { move_usd: 0.01 }] {
        let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
        world.policy.rule = rule;
        for name in ["a", "b"] {
            world.configure(name, |b| b.replicas.as_mut().unwrap().min = 6);
        }
        world.run(601);
        assert!(near(world.share("a"), 1.0));
        world.set_price("b", 0.1);
        let decision = world.run(100);
        assert!(near(world.share("a"), 1.0), "{decision:?}");
        assert_eq!((decision.action, &decision.reason), (Action::Stay, &Reason::NothingToSave));
        assert!(!explain::is_move(&decision));
    }
}

#[test]
fn an_unhealthy_backend_is_left_at_once_and_comes_back_by_the_ramp_after_hold() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    world.set_health("a", Health::Unhealthy);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Evacuate);
    assert_eq!((world.share("a"), world.share("b")), (0.0, 1.0));
    world.set_health("a", Health::Healthy);
    assert_eq!(world.run(500).reason.code(), "recovered_holding");
    assert_eq!(world.share("a"), 0.0);
    world.run(99);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Restore);
    assert!(world.share("a") <= 0.1 + 1e-9, "warmed, not stampeded: {}", world.share("a"));
    world.run(11);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn nothing_healthy_means_no_share_and_recovery_is_immediate() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    world.set_health("a", Health::Unhealthy);
    world.set_health("b", Health::Unhealthy);
    let decision = world.tick();
    assert_eq!(decision.fallback, Fallback::NothingEligible);
    assert_eq!(world.share("a") + world.share("b"), 0.0);
    world.set_health("b", Health::Healthy);
    world.tick();
    assert!(near(world.share("b"), 1.0), "any server beats none");
}

#[test]
fn a_slow_backend_is_left_and_stays_out_for_hold() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    world.run(10);
    let live = &mut world.view_mut("a").live;
    live.samples = 100;
    live.ttfb_p95 = Some(Duration::from_millis(900));
    let decision = world.tick();
    assert_eq!(decision.backends[0].limited_by, Some(Cause::OverSlo));
    assert!(near(world.share("b"), 1.0));
    world.view_mut("a").live.ttfb_p95 = None;
    world.run(590);
    assert_eq!(world.share("a"), 0.0);
    world.run(40);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn when_all_are_slow_the_objective_is_given_up_and_said_so() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    for name in ["a", "b"] {
        let live = &mut world.view_mut(name).live;
        live.samples = 100;
        live.ttfb_p95 = Some(Duration::from_millis(900));
    }
    let decision = world.tick();
    assert_eq!(decision.fallback, Fallback::Slo);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn unknown_health_is_used_only_when_nothing_better_is_known() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.set_health("a", Health::Unknown);
    world.tick();
    assert!(near(world.share("b"), 1.0));
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.set_health("a", Health::Unknown);
    world.set_health("b", Health::Unknown);
    assert_eq!(world.tick().fallback, Fallback::StaleSignals);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn a_drain_moves_everything_within_a_tick_and_its_end_brings_it_back() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(700);
    world.impose(OverrideKind::Drain, Some("a"), None);
    let decision = world.tick();
    assert_eq!(decision.reason.code(), "override");
    assert_eq!((world.share("a"), world.share("b")), (0.0, 1.0));
    assert_eq!(world.run(100).reason.code(), "override");
    world.snapshot.overrides.clear();
    world.run(520);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn beneath_a_drain_the_plan_moves_and_nothing_is_called_a_move() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.policy.hold = Duration::from_secs(15);
    world.run(20);
    world.set_price("b", 0.5);
    world.run(30);
    assert!(near(world.share("b"), 1.0));
    world.impose(OverrideKind::Drain, Some("b"), None);
    assert_eq!(world.tick().action, Action::Evacuate);
    // Were it not drained, traffic would return now.
    world.set_price("b", 1.1);
    for _ in 0..40 {
        let decision = world.tick();
        assert_eq!(decision.action, Action::Stay, "{:?}", decision.reason);
        assert!(matches!(decision.reason, Reason::Override { kind: OverrideKind::Drain, .. }));
    }
    world.snapshot.overrides.clear();
    for _ in 0..40 {
        assert_eq!(world.tick().action, Action::Stay, "it is where it belongs by now");
    }
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn overrides_rank_drain_pin_cap_freeze() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0), ("c", 4.0)]);
    world.run(10);
    world.impose(OverrideKind::Cap, Some("a"), Some(0.3));
    world.tick();
    assert!(near(world.share("a"), 0.3) && near(world.share("b"), 0.7));
    world.impose(OverrideKind::Pin, Some("c"), None);
    world.tick();
    assert!(near(world.share("c"), 1.0));
    world.impose(OverrideKind::Drain, Some("c"), None);
    world.tick();
    assert!(near(world.share("c"), 0.0) && near(world.share("a"), 0.3) && near(world.share("b"), 0.7));
}

#[test]
fn a_pin_with_a_share_divides_the_rest_as_before() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    world.impose(OverrideKind::Pin, Some("b"), Some(0.25));
    world.tick();
    assert!(near(world.share("b"), 0.25) && near(world.share("a"), 0.75));
}

#[test]
fn freeze_stops_money_but_not_health() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(700);
    world.impose(OverrideKind::Freeze, None, None);
    world.set_price("b", 0.1);
    world.run(100);
    assert!(near(world.share("a"), 1.0));
    world.set_health("a", Health::Unhealthy);
    world.tick();
    assert!(near(world.share("b"), 1.0));
}

#[test]
fn a_backend_without_a_price_never_attracts() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(700);
    world.view_mut("b").spot = None;
    let decision = world.run(100);
    assert!(near(world.share("a"), 1.0));
    assert_eq!(decision.reason.code(), "cost_unknown");
}

#[test]
fn a_stale_price_moves_nothing() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(700);
    world.set_price("b", 0.1);
    world.view_mut("b").spot.as_mut().unwrap().state = PriceState::Stale;
    let decision = world.run(100);
    assert!(near(world.share("a"), 1.0));
    assert_eq!(
        decision.reason.to_string(),
        "nothing moves for money: the price is not confirmed any more of b"
    );
}

#[test]
fn keep_warm_leaves_a_floor_everywhere() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0), ("c", 4.0)]);
    world.policy.keep_warm = Share::new(0.05).unwrap();
    world.tick();
    assert!(near(world.share("a"), 0.9) && near(world.share("b"), 0.05) && near(world.share("c"), 0.05));
}

#[test]
fn the_ramp_waits_for_capacity() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    for name in ["a", "b"] {
        world.configure(name, |b| b.replicas.as_mut().unwrap().cold_start = Duration::from_secs(30));
    }
    world.run(700);
    world.set_price("b", 0.5);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Shift);
    assert!(near(decision.backends[1].planned_rps, 50.0), "warm first");
    world.run(28);
    assert_eq!(world.share("b"), 0.0, "nothing is ready there yet");
    world.run(15);
    assert!(near(world.share("b"), 1.0));
}

#[test]
fn what_exceeds_a_backend_goes_to_the_next() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.configure("a", |b| b.replicas.as_mut().unwrap().max = 3);
    let decision = world.tick();
    assert!(near(world.share("a"), 0.6) && near(world.share("b"), 0.4));
    assert_eq!(decision.backends[0].limited_by, Some(Cause::Capacity));
}

#[test]
fn a_clock_set_back_or_forward_breaks_nothing() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.policy.ramp = crate::model::Ramp::new(0.001, Duration::from_secs(1)).unwrap();
    world.run(700);
    world.now -= 3600;
    world.run(5);
    assert!(near(world.share("a"), 1.0));
    world.now += 100_000;
    world.set_price("b", 0.5);
    world.tick();
    assert!(world.share("b") <= 0.06 + 1e-9, "an hour that was skipped does not move an hour's worth");
}

#[test]
fn a_backend_that_leaves_the_configuration_loses_its_share_at_once() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    world.snapshot.backends.remove(0);
    world.tick();
    assert_eq!(world.state.shares, vec![1.0]);
}

#[test]
fn a_full_backend_follows_the_demand_without_a_word_and_lets_money_move_traffic() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.configure("a", |b| b.replicas.as_mut().unwrap().max = 3);
    world.run(700);
    // Demand that wobbles by 10%: a's limit as a share wobbles with it.
    for tick in 0..700 {
        world.snapshot.demand_rps = if tick % 2 == 0 { 47.0 } else { 53.0 };
        let decision = world.tick();
        assert_eq!(decision.action, Action::Stay, "{:?}", decision.reason);
    }
    world.set_price("b", 0.5);
    assert_eq!(world.tick().action, Action::Shift);
}

#[test]
fn a_moment_of_unknown_health_moves_nothing() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(700);
    for name in ["a", "b"] {
        world.set_health(name, Health::Unknown);
    }
    world.tick();
    world.set_health("b", Health::Healthy);
    assert_eq!(world.tick().action, Action::Stay, "b was probed first, which is no reason to leave a");
    world.set_health("a", Health::Healthy);
    world.tick();
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn a_clock_set_back_by_a_day_holds_for_hold_and_no_longer() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    world.run(700);
    world.set_price("b", 0.5);
    world.run(20);
    assert!(near(world.share("b"), 1.0));
    world.now -= 86_400;
    world.set_price("b", 5.0);
    world.run(580);
    assert!(near(world.share("b"), 1.0), "held");
    world.run(60);
    assert!(near(world.share("a"), 1.0), "and no longer");
}

#[test]
fn who_stands_in_for_a_dead_backend_is_not_changed_for_a_cent() {
    let mut world = World::new(&[("a", 0.5), ("b", 1.0), ("c", 1.01)]);
    world.run(10);
    world.set_health("a", Health::Unhealthy);
    world.tick();
    assert!(near(world.share("b"), 1.0));
    world.set_price("c", 0.99);
    world.run(1500);
    assert!(near(world.share("b"), 1.0), "1% is below shift_at");
    world.set_price("c", 0.8);
    world.run(20);
    assert!(near(world.share("c"), 1.0));
}

#[test]
fn traffic_returns_though_a_warm_floor_of_home_is_down() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1), ("c", 5.0)]);
    world.policy.keep_warm = Share::new(0.05).unwrap();
    world.run(700);
    world.set_price("b", 0.5);
    world.run(700);
    assert!(near(world.share("b"), 0.9));
    world.set_health("c", Health::Unhealthy);
    world.run(700);
    world.set_price("b", 0.99);
    world.run(20);
    assert!(near(world.share("a"), 0.9), "{:?}", world.state);
}

#[test]
fn traffic_moves_on_though_home_left_the_configuration() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1), ("c", 5.0)]);
    world.run(700);
    world.set_price("b", 0.5);
    world.run(700);
    world.snapshot.backends.remove(0);
    world.tick();
    assert_eq!(world.state.home, None);
    world.set_price("c", 0.3);
    world.run(20);
    assert!(near(world.share("c"), 1.0));
}

#[test]
fn keep_warm_reaches_a_backend_that_comes_later() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.policy.keep_warm = Share::new(0.05).unwrap();
    world.set_health("b", Health::Unhealthy);
    world.run(10);
    assert!(near(world.share("a"), 1.0));
    world.set_health("b", Health::Healthy);
    world.run(10);
    assert!(near(world.share("b"), 0.05));
}

#[test]
fn after_a_blip_of_everything_traffic_is_where_it_was() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(700);
    for name in ["a", "b"] {
        world.set_health(name, Health::Unhealthy);
    }
    world.tick();
    world.set_health("b", Health::Healthy);
    world.tick();
    world.set_health("a", Health::Healthy);
    world.run(15);
    assert!(near(world.share("a"), 1.0), "an outage is no move: {:?}", world.state);
}

#[test]
fn a_cap_holds_against_overflow_and_waived_constraints() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.configure("b", |b| b.replicas.as_mut().unwrap().max = 3);
    world.impose(OverrideKind::Cap, Some("a"), Some(0.1));
    world.tick();
    assert!(near(world.share("a"), 0.1), "b is full, and still a is capped");

    let mut world = World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
    world.snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    for name in ["b", "c"] {
        let live = &mut world.view_mut(name).live;
        live.samples = 100;
        live.ttfb_p95 = Some(Duration::from_millis(900));
    }
    world.impose(OverrideKind::Drain, Some("a"), None);
    world.impose(OverrideKind::Cap, Some("b"), Some(0.1));
    world.tick();
    assert!(near(world.share("b"), 0.1) && near(world.share("c"), 0.9), "{:?}", world.state);
}

#[test]
fn a_damaged_state_is_no_state() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    world.state.shares.pop();
    world.state.plan[0] = f64::NAN;
    assert_eq!(world.tick().action, Action::Place);
}

#[test]
fn beside_a_pin_the_rest_still_moves_by_the_ramp() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0), ("c", 1.1)]);
    world.run(700);
    world.impose(OverrideKind::Pin, Some("b"), Some(0.2));
    world.tick();
    assert!(near(world.share("b"), 0.2) && near(world.share("a"), 0.8), "the pin holds at once");
    world.run(700);
    world.set_price("c", 0.5);
    world.tick();
    assert!(near(world.share("c"), 0.1) && near(world.share("a"), 0.7), "{:?}", world.state.shares);
    world.run(10);
    assert!(near(world.share("c"), 0.8) && near(world.share("b"), 0.2));
}

#[test]
fn the_end_of_a_pin_waits_for_hold_and_is_a_restore() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(700);
    world.impose(OverrideKind::Pin, Some("b"), None);
    world.tick();
    assert!(near(world.share("b"), 1.0));
    world.snapshot.overrides.clear();
    assert_eq!(world.run(500).reason.code(), "recovered_holding");
    assert!(near(world.share("b"), 1.0));
    world.run(90);
    while world.now < 2000 && world.share("a") == 0.0 {
        if world.tick().action == Action::Restore {
            break;
        }
    }
    assert!(near(world.share("a"), 0.1), "{}", world.share("a"));
    world.run(10);
    assert!(near(world.share("a"), 1.0));
}

/// The example of docs/why-did-it-not-move.md: small nodes with a replica each, and large ones with ten that are 20% cheaper
/// by the request.
#[test]
fn the_gap_is_over_whole_nodes_of_the_load_that_would_move() {
    for (demand, paid, here, there, gap) in [
        (1000.0, 0, 36.18, 30.24, 0.164),
        (200.0, 0, 7.38, 7.20, 0.024),
        (50.0, 0, 1.98, 2.16, -0.091),
        (200.0, 10, 3.78, 4.608, -0.219),
    ] {
        let mut world = World::new(&[("small", 0.36), ("large", 100.0)]);
        world.configure("large", |backend| backend.node.as_mut().unwrap().replicas_per_node = 10.0);
        world.configure("small", |backend| backend.replicas.as_mut().unwrap().min = paid);
        world.policy.rule = Rule::Threshold { shift_at: Share::ONE, return_at: Share::ZERO };
        world.snapshot.demand_rps = demand;
        world.tick();
        world.set_price("large", 2.88);
        let decision = world.tick();
        let unit = |place: usize| decision.backends[place].unit_cost.unwrap().total();
        assert!(near(unit(0), 0.01) && near(unit(1), 0.008));
        assert!(near(decision.cost_here_usd_per_hour.unwrap(), here), "{demand}, {paid}: {decision:?}");
        assert!(near(decision.cost_there_usd_per_hour.unwrap(), there), "{demand}, {paid}: {decision:?}");
        assert!((decision.gap.unwrap() - gap).abs() < 5e-4, "{demand}, {paid}: {decision:?}");
    }
}
