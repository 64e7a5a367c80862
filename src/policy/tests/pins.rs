//! Pins that do not add up to everything, as docs/admin-api.md has it.

use super::*;

fn pinned(backends: &[(&str, f64)], pins: &[(&str, f64)]) -> World {
    let mut world = World::new(backends);
    world.run(20);
    pins.iter().for_each(|(name, share)| world.impose(OverrideKind::Pin, Some(name), Some(*share)));
    world.tick();
    world
}

fn assert_shares(world: &World, expected: &[(&str, f64)]) {
    for (name, share) in expected {
        assert!(near(world.share(name), *share), "{name}: {} instead of {share}", world.share(name));
    }
}

const TWO: [(&str, f64); 2] = [("a", 1.0), ("b", 2.0)];
const THREE: [(&str, f64); 3] = [("a", 1.0), ("b", 2.0), ("c", 3.0)];

#[test]
fn of_more_than_everything_the_first_get_theirs() {
    assert_shares(&pinned(&TWO, &[("b", 0.8), ("a", 0.8)]), &[("a", 0.2), ("b", 0.8)]);
    let world = pinned(&THREE, &[("b", 0.8), ("c", 0.8), ("a", 0.5)]);
    assert_shares(&world, &[("a", 0.0), ("b", 0.8), ("c", 0.2)]);
}

#[test]
fn what_is_missing_goes_to_those_without_a_pin() {
    assert_shares(&pinned(&THREE, &[("a", 0.0), ("b", 0.3)]), &[("a", 0.0), ("b", 0.3), ("c", 0.7)]);
}

#[test]
fn where_all_are_pinned_what_is_missing_is_divided_evenly_on_top() {
    assert_shares(&pinned(&TWO, &[("a", 0.0), ("b", 0.3)]), &[("a", 0.35), ("b", 0.65)]);
    let mut world = pinned(&THREE, &[("a", 0.0), ("b", 0.3)]);
    world.impose(OverrideKind::Drain, Some("c"), None);
    world.tick();
    assert_shares(&world, &[("a", 0.35), ("b", 0.65), ("c", 0.0)]);
}

#[test]
fn of_two_on_one_backend_the_first_counts() {
    assert_shares(&pinned(&TWO, &[("b", 0.3), ("b", 0.9)]), &[("a", 0.7), ("b", 0.3)]);
}

#[test]
fn those_without_a_pin_may_be_capped() {
    let mut world = pinned(&TWO, &[("b", 0.3)]);
    world.impose(OverrideKind::Cap, Some("a"), Some(0.5));
    world.tick();
    assert_shares(&world, &[("a", 0.5), ("b", 0.5)]);
}
