//! How traffic comes back to who was away.

use super::*;
use crate::model::{Ejected, EjectedFor};

fn eject(world: &mut World, name: &str, reason: EjectedFor) {
    let until = at(world.now + 30);
    world.view_mut(name).ejected = Some(Ejected { reason, why: "test".into(), until });
}

/// A world in which moves are done within a tick, so that nothing but `slow_start` holds traffic back.
fn hasty(backends: &[(&str, f64)], slow_start: u64) -> World {
    let mut world = World::new(backends);
    world.policy.hold = Duration::ZERO;
    world.policy.ramp = crate::model::Ramp::new(1.0, Duration::from_secs(1)).unwrap();
    world.policy.slow_start = Duration::from_secs(slow_start);
    world
}

fn limited_by(decision: &Decision, place: usize) -> Option<Cause> {
    decision.backends[place].limited_by
}

#[test]
fn an_ejected_backend_comes_back_by_the_ramp() {
    for reason in EjectedFor::ALL {
        let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
        world.policy.hold = Duration::from_secs(20);
        world.run(30);
        eject(&mut world, "a", reason);
        let decision = world.tick();
        assert_eq!((decision.action, world.share("a")), (Action::Evacuate, 0.0));
        world.run(30);
        world.view_mut("a").ejected = None;
        let mut before = 0.0;
        for _ in 0..20 {
            world.tick();
            let share = world.share("a");
            assert!(
                share <= before + 0.1 + 1e-9,
                "a tenth a second, without a slow start: {before} to {share}"
            );
            before = share;
        }
        assert!(near(before, 1.0), "{before}");
    }
}

#[test]
fn one_that_is_far_slower_than_others_serves_where_nobody_else_may() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    eject(&mut world, "a", EjectedFor::Latency);
    let decision = world.tick();
    assert_eq!(limited_by(&decision, 0), Some(Cause::LatencyOutlier));
    assert!(near(world.share("b"), 1.0));
    world.impose(OverrideKind::Drain, Some("b"), None);
    let decision = world.tick();
    assert_eq!(decision.fallback, Fallback::Slo);
    assert!(near(world.share("a"), 1.0), "slow is better than not at all");
    // One that fails is not.
    eject(&mut world, "a", EjectedFor::Failures);
    assert_eq!(world.tick().fallback, Fallback::NothingEligible);
}

#[test]
fn one_that_is_far_slower_keeps_what_nobody_else_is_ready_for() {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(10);
    // Three replicas of 10 requests a second, of 50 that arrive.
    world.view_mut("b").load.ready_replicas = Some(3);
    world.configure("b", |b| b.replicas.as_mut().unwrap().cold_start = Duration::from_secs(600));
    eject(&mut world, "a", EjectedFor::Latency);
    world.tick();
    assert!(near(world.share("b"), 0.6) && near(world.share("a"), 0.4), "{}", world.share("b"));
    // To be left for failures is to be left.
    eject(&mut world, "a", EjectedFor::Failures);
    world.tick();
    assert!(near(world.share("b"), 1.0));
}

#[test]
fn one_that_was_away_starts_slowly() {
    for away in [Health::Unhealthy, Health::Unknown] {
        let mut world = hasty(&[("a", 1.0), ("b", 3.0)], 10);
        world.run(12);
        world.set_health("a", Health::Unhealthy);
        world.run(5);
        world.set_health("a", away);
        world.run(5);
        assert!(near(world.share("b"), 1.0));
        world.set_health("a", Health::Healthy);
        for second in 1..10 {
            let decision = world.tick();
            assert!(near(world.share("a"), f64::from(second) * 0.1), "{second}: {}", world.share("a"));
            assert_eq!(limited_by(&decision, 0), Some(Cause::SlowStart));
            assert!(near(world.state.target[0], 1.0), "the autoscaler prepares for all of it");
        }
        let decision = world.tick();
        assert!(near(world.share("a"), 1.0));
        assert_eq!(limited_by(&decision, 0), None);
    }
}

#[test]
fn what_must_leave_goes_first_to_who_was_there() {
    let mut world = hasty(&[("a", 1.0), ("b", 3.0), ("c", 4.0)], 100);
    world.run(200);
    world.set_health("b", Health::Unhealthy);
    world.run(5);
    world.set_health("b", Health::Healthy);
    world.run(10);
    // a falls away: b would be the cheapest, but came back ten seconds ago.
    world.set_health("a", Health::Unhealthy);
    world.tick();
    assert!(near(world.share("b"), 0.11) && near(world.share("c"), 0.89), "{}", world.share("b"));
    // Who is cold is better than nobody.
    world.set_health("c", Health::Unhealthy);
    world.tick();
    assert!(near(world.share("b"), 1.0));
    // What it has had to take it keeps.
    world.set_health("c", Health::Healthy);
    world.tick();
    assert!(near(world.share("b"), 1.0));
}

#[test]
fn nobody_starts_slowly_after_an_outage_or_at_the_first_placement() {
    let mut world = hasty(&[("a", 1.0), ("b", 3.0)], 100);
    world.tick();
    assert!(near(world.share("a"), 1.0));
    ["a", "b"].iter().for_each(|name| world.set_health(name, Health::Unhealthy));
    world.run(5);
    ["a", "b"].iter().for_each(|name| world.set_health(name, Health::Healthy));
    world.tick();
    assert!(near(world.share("a") + world.share("b"), 1.0));
}
