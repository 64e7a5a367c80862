//! Backends that are used for no more than the replicas that are paid anyway.

use super::*;
use crate::{model::Rule, policy::room::FULL};

/// A pays for nothing that it does not need; B and its node are there anyway.
fn world(backends: &[(&str, f64)]) -> World {
    let mut world = World::new(backends);
    world.policy.rule = Rule::BreakEven { move_usd: 1000.0 };
    world.policy.hold = Duration::ZERO;
    world.configure("b", |b| b.replicas.as_mut().unwrap().min = 2);
    world
}

/// The share of what two replicas of ten requests a second serve with a reserve.
fn paid(demand_rps: f64) -> f64 {
    20.0 * FULL / demand_rps
}

#[test]
fn what_fills_a_paid_minimum_follows_the_demand_without_a_move() {
    let mut world = world(&[("a", 1.0), ("b", 2.0)]);
    world.run(30);
    for demand_rps in [50.0, 100.0, 25.0, 60.0] {
        world.snapshot.demand_rps = demand_rps;
        let decision = world.run(30);
        assert!(near(world.share("b"), paid(demand_rps)), "{demand_rps}: {}", world.share("b"));
        assert!(near(world.share("a"), 1.0 - paid(demand_rps)));
        assert_eq!(decision.action, Action::Stay);
    }
    // All that is asked for fits: then it stays where the rest is meant to be.
    world.snapshot.demand_rps = 10.0;
    world.run(30);
    assert!(near(world.share("a") + world.share("b"), 1.0));
}

#[test]
fn a_request_within_it_costs_nothing_more_and_one_beyond_it_does() {
    let mut world = world(&[("a", 1.0), ("b", 2.0)]);
    let decision = world.run(30);
    let b = &decision.backends[1];
    assert_eq!((b.average_usd_per_1k, b.marginal_usd_per_1k), (Some(0.0), Some(0.0)));
    // Other routes send it more than that.
    world.view_mut("b").load_elsewhere_rps = 40.0;
    let decision = world.run(1);
    let b = &decision.backends[1];
    // Ten requests a second for 2 USD an hour.
    let dear = 2.0 / 3600.0 / 10.0 * 1000.0;
    assert!(b.marginal_usd_per_1k.is_some_and(|usd| near(usd, dear)), "{:?}", b.marginal_usd_per_1k);
    assert!(b.average_usd_per_1k.is_some_and(|usd| usd > 0.0 && usd < dear), "{:?}", b.average_usd_per_1k);
}
