//! What constraints cost.

use proptest::prelude::*;

use super::*;
use crate::{
    model::{BindingCost, Cloud, Constraint, Domain, Effect, NMinusOne, Ruled},
    policy::shadow::binding_costs,
};

fn costs(world: &World) -> Vec<BindingCost> {
    binding_costs(&world.policy, &world.snapshot, &world.state)
}

fn only(world: &World) -> BindingCost {
    let costs = costs(world);
    assert_eq!(costs.len(), 1, "{costs:?}");
    costs.into_iter().next().unwrap()
}

/// 50 requests a second at 10 a replica. In whole nodes half of the last one serves nobody: n nodes' load costs n + 0.5 prices.
fn world() -> World {
    let mut world = World::new(&[("a", 1.0), ("b", 3.0)]);
    world.run(700);
    world
}

#[test]
fn where_nothing_binds_nothing_costs() {
    assert_eq!(costs(&world()), []);
}

#[test]
fn a_capacity_limit_costs_what_the_overflow_costs_more() {
    let mut world = world();
    world.configure("a", |backend| backend.replicas.as_mut().unwrap().max = 3);
    world.run(700);
    let cost = only(&world);
    // 3.5 nodes at 1 and 2.5 at 3 USD, where 5.5 at 1 would do.
    assert_eq!(cost.constraint, Constraint::Capacity);
    assert!(near(cost.usd_per_day, 24.0 * (3.5 + 7.5 - 5.5)), "{cost:?}");
    assert_eq!(cost.to_string(), "the capacity limit of a");
}

#[test]
fn what_operators_impose_has_its_price() {
    let all_at_b = 24.0 * 5.5 * 2.0;
    for (kind, backend, constraint) in
        [(OverrideKind::Drain, "a", Constraint::Drain), (OverrideKind::Pin, "b", Constraint::Pin)]
    {
        let mut world = world();
        world.impose(kind, Some(backend), None);
        world.tick();
        let cost = only(&world);
        assert_eq!((cost.constraint, cost.backend), (constraint, Some(id(backend))));
        assert!(near(cost.usd_per_day, all_at_b), "{}", cost.usd_per_day);
        assert_eq!(cost.name, Some(format!("{kind}-1")));
    }
    let mut world = world();
    world.impose(OverrideKind::Cap, Some("a"), Some(0.4));
    world.tick();
    let cost = only(&world);
    assert!(near(cost.usd_per_day, 24.0 * (2.5 + 3.5 * 3.0 - 5.5)), "{cost:?}");
    assert_eq!(cost.to_string(), "the cap (cap-1) of a");
}

#[test]
fn a_rule_costs_what_it_keeps_from_the_cheapest() {
    let mut world = world();
    for effect in [Effect::Deny, Effect::Cap(Share::new(0.4).unwrap())] {
        let ruled = Ruled { rule: "no bulk".into(), effect, undecided: false };
        world.snapshot.rulings.backends = vec![vec![ruled], Vec::new()];
        world.tick();
        let cost = only(&world);
        let expected = if effect == Effect::Deny { 11.0 } else { 7.5 };
        assert!(near(cost.usd_per_day, 24.0 * expected), "{cost:?}");
        assert_eq!(cost.to_string(), "the rule \"no bulk\" of a");
    }
    let floor = |share| Ruled {
        rule: "both".into(),
        effect: Effect::Floor(Share::new(share).unwrap()),
        undecided: false,
    };
    world.snapshot.rulings.backends = vec![vec![floor(0.1)], vec![floor(0.4)]];
    let cost = only(&world);
    assert_eq!((cost.backend.as_ref(), cost.to_string()), (None, "the rule \"both\"".to_owned()));
    assert!(near(cost.usd_per_day, 24.0 * (3.5 + 2.5 * 3.0 - 5.5)), "{cost:?}");
}

#[test]
fn the_latency_objective_has_a_price_while_it_keeps_the_cheapest_out() {
    let mut world = world();
    world.snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    let live = &mut world.view_mut("a").live;
    (live.samples, live.ttfb_p95) = (100, Some(Duration::from_millis(900)));
    world.tick();
    let cost = only(&world);
    assert!(near(cost.usd_per_day, 24.0 * 11.0), "{cost:?}");
    assert_eq!(cost.to_string(), "the latency objective of a");
    // It stays out for `hold` though it is not slow any more: lifting the objective lets it in.
    world.view_mut("a").live = crate::model::Live::default();
    world.tick();
    assert_eq!(only(&world).constraint, Constraint::Slo);
}

#[test]
fn what_is_kept_warm_or_ready_has_its_price() {
    let mut world = world();
    world.policy.keep_warm = Share::new(0.2).unwrap();
    world.run(20);
    let cost = only(&world);
    assert!(near(cost.usd_per_day, 24.0 * (4.5 + 1.5 * 3.0 - 5.5)), "{cost:?}");
    assert_eq!((cost.to_string().as_str(), cost.backend.as_ref()), ("`keep_warm`", None));
    world.policy.keep_warm = Share::ZERO;
    world.configure("b", |backend| backend.cloud = Cloud::Gcp);
    world.policy.n_minus_one = Some(NMinusOne { domain: Domain::Cloud, ready: Share::ONE });
    world.tick();
    let cost = only(&world);
    assert!(near(cost.usd_per_day, 24.0 * 5.5 * 3.0), "{cost:?}");
    assert_eq!(cost.constraint, Constraint::NMinusOne);
}

#[test]
fn the_dearest_come_first_and_few_are_named() {
    let mut world =
        World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0), ("e", 5.0), ("f", 6.0), ("g", 9.0)]);
    for name in ["a", "b", "c", "d", "e", "f"] {
        world.configure(name, |backend| backend.replicas.as_mut().unwrap().max = 1);
    }
    world.snapshot.demand_rps = 70.0;
    world.tick();
    let costs = costs(&world);
    let names: Vec<&str> = costs.iter().filter_map(|cost| Some(cost.backend.as_ref()?.as_str())).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert!(costs.windows(2).all(|pair| pair[0].usd_per_day >= pair[1].usd_per_day));
}

#[test]
fn what_depends_on_an_unknown_cost_is_not_priced() {
    let mut world = world();
    world.impose(OverrideKind::Drain, Some("a"), None);
    world.view_mut("a").spot = None;
    world.tick();
    assert_eq!(costs(&world), []);
    world.set_health("b", Health::Unhealthy);
    assert_eq!(costs(&world), [], "nobody serves");
}

/// USD per hour of the cheapest division among backends of a price and a number of replicas, in whole nodes of 10 requests a
/// second: worked out by hand and not by the program.
fn usd_per_hour(backends: &[(f64, f64)], demand: f64) -> f64 {
    let mut by_price = backends.to_vec();
    by_price.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut nodes = demand / 10.0;
    let cost = |(price, most): (f64, f64)| {
        let used = nodes.min(most);
        nodes -= used;
        price * (used + 0.5 * used.min(1.0))
    };
    by_price.into_iter().map(cost).sum()
}

proptest! {
    /// Every capacity limit that binds has the price that one finds by hand, and no other has one.
    #[test]
    fn capacity_limits_cost_what_one_finds_by_hand(
        backends in prop::collection::vec((0.1..5.0f64, 1..6u32), 2..5),
        used in 0.05..0.95f64,
    ) {
        let names = ["a", "b", "c", "d"];
        let prices: Vec<(&str, f64)> = names.into_iter().zip(backends.iter().map(|b| b.0)).collect();
        let mut world = World::new(&prices);
        let demand = used * backends.iter().map(|b| f64::from(b.1) * 10.0).sum::<f64>();
        world.snapshot.demand_rps = demand;
        for (name, (_, max)) in names.into_iter().zip(&backends) {
            world.configure(name, |backend| backend.replicas.as_mut().unwrap().max = *max);
        }
        world.tick();
        let costs = costs(&world);
        let limited: Vec<(f64, f64)> = backends.iter().map(|b| (b.0, f64::from(b.1))).collect();
        for (place, name) in names.into_iter().take(backends.len()).enumerate() {
            let mut free = limited.clone();
            free[place].1 = f64::INFINITY;
            let expected = 24.0 * (usd_per_hour(&limited, demand) - usd_per_hour(&free, demand));
            let named = costs.iter().find(|cost| cost.backend == Some(id(name)));
            match named {
                Some(cost) => prop_assert!(near(cost.usd_per_day, expected), "{cost:?}, by hand {expected}"),
                None => prop_assert!(expected < 0.005 + 1e-9, "{name} should be named with {expected}: {costs:?}"),
            }
        }
    }
}
