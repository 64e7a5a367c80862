//! What is kept ready so that the loss of a cloud or a region can be borne.

use proptest::prelude::*;

use super::*;
use crate::model::{Cloud, Domain, NMinusOne, Redundancy, Replicas};

/// Two backends on AWS in two regions and one on Google Cloud, each of `max` replicas of 10 requests a second at most, which
/// start in a minute; 50 requests a second.
fn world(domain: Domain, ready: f64, max: u32) -> World {
    let mut world = World::new(&[("east", 1.0), ("west", 2.0), ("gcp", 3.0)]);
    world.policy.n_minus_one = Some(NMinusOne { domain, ready: Share::new(ready).unwrap() });
    for (name, cloud) in [("east", Cloud::Aws), ("west", Cloud::Aws), ("gcp", Cloud::Gcp)] {
        world.configure(name, |backend| {
            (backend.cloud, backend.region) = (cloud, name.into());
            let cold_start = Duration::from_secs(60);
            backend.replicas = Some(Replicas { min: 0, max, rps: 10.0, cold_start });
        });
    }
    world
}

fn told(decision: &Decision) -> &Redundancy {
    decision.n_minus_one.as_ref().unwrap()
}

fn planned(decision: &Decision) -> Vec<f64> {
    decision.backends.iter().map(|verdict| verdict.planned_rps).collect()
}

#[test]
fn without_the_demand_nothing_is_kept() {
    let mut world = world(Domain::Cloud, 0.5, 100);
    world.policy.n_minus_one = None;
    let decision = world.run(10);
    assert_eq!(decision.n_minus_one, None);
    assert_eq!(planned(&decision), [50.0, 0.0, 0.0]);
}

#[test]
fn half_of_what_a_cloud_serves_is_kept_ready_in_another() {
    let mut world = world(Domain::Cloud, 0.5, 100);
    let decision = world.tick();
    assert_eq!(planned(&decision), [50.0, 0.0, 25.0]);
    // Three nodes at 3 USD, the last of which would be half idle on average.
    let told = told(&decision);
    assert_eq!((told.domain.as_str(), told.missing_rps, told.unready_rps), ("aws", 0.0, 25.0));
    assert!(near(told.reserve_rps, 25.0) && near(told.reserve_usd_per_hour.unwrap(), 9.0), "{told:?}");
    let decision = world.run(61);
    assert!(near(told_unready(&decision), 0.0), "{decision:?}");
    assert_eq!(
        decision.n_minus_one.unwrap().to_string(),
        "the others could serve all without aws; kept ready for a loss: 25.0 requests per second, at $9.0000 an hour"
    );
}

fn told_unready(decision: &Decision) -> f64 {
    told(decision).unready_rps
}

#[test]
fn a_region_may_be_stood_in_for_by_another_of_the_same_cloud() {
    let mut world = world(Domain::Region, 0.5, 100);
    assert_eq!(planned(&world.tick()), [50.0, 25.0, 0.0]);
}

#[test]
fn what_the_others_cannot_take_is_said() {
    let mut world = world(Domain::Cloud, 0.5, 3);
    let decision = world.tick();
    // 60 requests a second could be served on AWS, 30 on Google Cloud.
    assert_eq!((told(&decision).domain.as_str(), told(&decision).missing_rps), ("aws", 20.0));
    assert!(
        told(&decision).to_string().starts_with("without aws, 20.0 requests per second could not be served"),
        "{}",
        told(&decision)
    );
    // Nothing can be lost that is not there.
    world.impose(OverrideKind::Drain, Some("gcp"), None);
    assert_eq!(told(&world.tick()).missing_rps, 50.0);
}

#[test]
fn one_of_unknown_capacity_is_not_counted_on() {
    let mut world = world(Domain::Cloud, 0.5, 100);
    world.configure("gcp", |backend| backend.replicas = None);
    let decision = world.tick();
    assert_eq!((told(&decision).missing_rps, told(&decision).reserve_rps), (50.0, 0.0));
}

#[test]
fn a_reserve_does_not_move_for_a_cent() {
    let mut world = world(Domain::Region, 0.5, 100);
    world.run(100);
    world.set_price("gcp", 1.99);
    assert_eq!(planned(&world.tick()), [50.0, 25.0, 0.0]);
    world.set_price("gcp", 1.6);
    assert_eq!(planned(&world.tick()), [50.0, 0.0, 25.0]);
    world.set_price("west", 1.5);
    assert_eq!(planned(&world.tick()), [50.0, 0.0, 25.0]);
}

#[test]
fn a_reserve_that_is_not_reported_to_come_takes_no_capacity_away() {
    let mut world = world(Domain::Cloud, 0.5, 100);
    world.view_mut("east").load.ready_replicas = Some(6);
    world.view_mut("gcp").load.ready_replicas = Some(0);
    let decision = world.run(400);
    assert!(near(told_unready(&decision), 25.0), "{decision:?}");
    assert_eq!(decision.backends[2].limited_by, None);
}

#[test]
fn what_is_ready_serves_at_once_when_a_cloud_is_lost() {
    let mut world = world(Domain::Cloud, 0.5, 100);
    world.run(100);
    for name in ["east", "west"] {
        world.set_health(name, Health::Unhealthy);
    }
    let decision = world.tick();
    assert!(near(world.share("gcp"), 1.0), "{:?}", world.state);
    assert!(near(decision.backends[2].ready_rps.unwrap(), 30.0), "three whole replicas: {decision:?}");
    assert!(near(decision.backends[2].planned_rps, 50.0));
}

#[test]
fn a_policy_without_it_reads_as_before() {
    let world = World::new(&[("a", 1.0)]);
    let json = serde_json::to_value(&world.policy).unwrap();
    assert!(json.get("n_minus_one").is_none());
    assert_eq!(serde_json::from_value::<Policy>(json).unwrap(), world.policy);
}

/// Which domain each of four backends is in: at least two of three.
fn clouds() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..3usize, 4)
        .prop_filter("something must be left", |c| c.iter().any(|d| *d != c[0]))
}

proptest! {
    /// Where it holds, the loss of any one domain leaves shares only on the others, what is planned there carries the demand,
    /// and the part that was asked for is served by what is ready already.
    #[test]
    fn the_loss_of_any_domain_can_be_borne(
        clouds in clouds(),
        backends in prop::collection::vec((0.2..5.0f64, 0..4u32, 2..30u32, 1.0..20.0f64, 0.0..60.0f64), 4),
        demand in 1.0..200.0f64,
        ready in 0.0..1.0f64,
        keep_warm in 0.0..0.1f64,
    ) {
        let names = ["a", "b", "c", "d"];
        let mut world = World::new(&names.map(|name| (name, 1.0)));
        let ready = Share::new(ready).unwrap();
        world.policy.n_minus_one = Some(NMinusOne { domain: Domain::Region, ready });
        world.policy.keep_warm = Share::new(keep_warm).unwrap();
        world.snapshot.demand_rps = demand;
        for (place, (price, min, more, rps, elsewhere)) in backends.into_iter().enumerate() {
            world.set_price(names[place], price);
            world.view_mut(names[place]).load_elsewhere_rps = elsewhere;
            world.configure(names[place], |backend| {
                backend.region = format!("r{}", clouds[place]);
                let cold_start = Duration::from_secs(30);
                backend.replicas = Some(Replicas { min, max: min + more, rps, cold_start });
            });
        }
        let decision = world.run(120);
        let told = told(&decision);
        prop_assert!(told.missing_rps >= 0.0 && told.reserve_usd_per_hour.is_some_and(|usd| usd >= 0.0));
        prop_assume!(told.missing_rps == 0.0);
        prop_assert!(told.unready_rps < 1e-6, "{decision:?}");
        for lost in 0..3 {
            let is_lost = |place: usize| clouds[place] == lost;
            let mut after = World {
                policy: world.policy.clone(),
                snapshot: world.snapshot.clone(),
                state: world.state.clone(),
                now: world.now,
            };
            let inside: f64 = (0..4).filter(|p| is_lost(*p)).map(|p| decision.backends[p].share).sum();
            (0..4).filter(|p| is_lost(*p)).for_each(|p| after.set_health(names[p], Health::Unhealthy));
            let survived = after.tick();
            let (mut share, mut planned, mut at_once) = (0.0, 0.0, 0.0);
            for (place, verdict) in survived.backends.iter().enumerate() {
                prop_assert!(!is_lost(place) || verdict.share == 0.0 && verdict.planned_rps == 0.0, "{survived:?}");
                share += verdict.share;
                planned += verdict.planned_rps;
                let elsewhere = after.snapshot.backends[place].load_elsewhere_rps;
                let free = verdict.ready_rps.unwrap_or(0.0) - elsewhere;
                at_once += if is_lost(place) { 0.0 } else { free.max(0.0).min(verdict.share * demand) };
            }
            prop_assert!(near(share, 1.0), "{survived:?}");
            prop_assert!(planned >= demand * (1.0 - 1e-6), "{planned} of {demand}: {survived:?}");
            let needed = demand * (1.0 - inside * (1.0 - ready.get()));
            prop_assert!(at_once >= needed - 1e-6 * demand, "{at_once} of {needed}: {survived:?}");
        }
    }
}
