//! At which prices a decision turns.

use super::*;
use crate::policy::turning::turning_points;

/// `(backend, price at which it turns)`, nearest first.
fn points(world: &World) -> Vec<(String, f64)> {
    let points = turning_points(&world.policy, &world.snapshot, &world.state);
    points.into_iter().map(|point| (point.backend.to_string(), point.turns_at_usd_per_hour)).collect()
}

fn assert_points(world: &World, expected: &[(&str, f64)]) {
    let found = points(world);
    let same = |(found, expected): (&(String, f64), &(&str, f64))| {
        found.0 == expected.0 && (found.1 - expected.1).abs() < 1e-4
    };
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(same),
        "{found:?}, not {expected:?}"
    );
}

#[test]
fn below_the_threshold_either_price_may_turn_it() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.set_price("b", 0.909);
    assert_eq!(world.tick().reason.code(), "gap_below_threshold");
    // 0.85 of what `a` costs, or `b` being 0.85 of it.
    assert_points(&world, &[("b", 0.85), ("a", 0.909 / 0.85)]);
}

#[test]
fn a_turning_point_is_where_it_turns() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1), ("c", 1.3)]);
    world.run(601);
    for (name, price) in points(&world) {
        let present = world.snapshot.clone();
        let step = if name == "a" { 0.999 } else { 1.001 };
        world.set_price(&name, price * step);
        assert_eq!(world.tick().action, Action::Stay, "{name} at {price} x {step}");
        world.set_price(&name, price);
        assert_eq!(world.tick().action, Action::Shift, "{name} at {price}");
        (world.snapshot, world.state, world.now) = (present, State::default(), world.now + 1);
        world.run(601);
    }
}

#[test]
fn away_from_home_it_is_the_way_back_that_is_told() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.set_price("b", 0.8);
    assert_eq!(world.run(700).reason.code(), "away");
    // It returns once the gap is below 5%.
    assert_points(&world, &[("a", 0.8 / 0.95), ("b", 0.95)]);
}

#[test]
fn within_hold_it_is_told_all_the_same() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.set_price("b", 0.8);
    world.run(12);
    assert_eq!(world.tick().reason.code(), "away");
    assert_points(&world, &[("a", 0.8 / 0.95), ("b", 0.95)]);
}

#[test]
fn nothing_is_told_where_no_price_decides() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    world.run(601);
    world.view_mut("b").health = Health::Unhealthy;
    world.tick();
    assert_points(&world, &[]);

    // Both are within their paid minimum: no price makes a difference.
    let mut world = World::new(&[("a", 1.0), ("b", 1.1)]);
    for name in ["a", "b"] {
        let view = world.view_mut(name);
        let mut backend = (*view.backend).clone();
        backend.replicas.as_mut().unwrap().min = 50;
        view.backend = std::sync::Arc::new(backend);
    }
    world.run(601);
    assert_points(&world, &[]);
}
