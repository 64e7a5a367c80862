//! What rules do to a decision.

use proptest::prelude::*;

use super::*;
use crate::model::{Cause, Effect, Ruled, ruling};

/// A rule that binds, named after what it does.
fn ruled(effect: Effect) -> Ruled {
    Ruled { rule: format!("the {effect} rule").into(), effect, undecided: false }
}

fn undecided(effect: Effect) -> Ruled {
    Ruled { undecided: true, ..ruled(effect) }
}

fn share(share: f64) -> Share {
    Share::new(share).unwrap()
}

impl World {
    /// From now on these rules bind these backends, and no others.
    fn rule(&mut self, rules: &[(&str, Ruled)]) {
        let of = |view: &crate::model::BackendView| {
            let own = rules.iter().filter(|(name, _)| view.backend.id == id(name));
            own.map(|(_, ruled)| ruled.clone()).collect()
        };
        self.snapshot.rulings.backends = self.snapshot.backends.iter().map(of).collect();
    }
}

#[test]
fn a_denied_backend_is_left_at_once_and_the_rule_is_named() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.run(20);
    world.rule(&[("a", ruled(Effect::Deny))]);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Evacuate);
    assert_eq!(decision.reason.to_string(), "a is left: a rule denies it (\"the deny rule\")");
    assert!(near(world.share("b"), 1.0));
    let a = &decision.backends[0];
    assert_eq!((a.eligible, a.limited_by, a.share), (false, Some(Cause::Rule), 0.0));
    assert_eq!(a.limiting_rule().unwrap().rule.as_ref(), "the deny rule");
    let binding = crate::policy::explain::binding(&decision).unwrap();
    assert_eq!(binding, "a would be the cheapest, but a rule denies it (\"the deny rule\") (at most 0%)");
    // The rule ends: traffic comes back after `hold`.
    world.rule(&[]);
    assert_eq!(world.tick().reason.code(), "recovered_holding");
    world.run(700);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn a_denial_is_never_given_up() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.run(20);
    world.rule(&[("a", ruled(Effect::Deny)), ("b", ruled(Effect::Deny))]);
    let decision = world.tick();
    assert_eq!(
        (decision.fallback, world.share("a"), world.share("b")),
        (Fallback::NothingEligible, 0.0, 0.0)
    );
    // Not for a pin, nor because nobody's health is known.
    world.rule(&[("a", ruled(Effect::Deny))]);
    world.impose(OverrideKind::Pin, Some("a"), None);
    world.set_health("a", Health::Unknown);
    world.set_health("b", Health::Unknown);
    world.run(5);
    assert!(near(world.share("a"), 0.0) && near(world.share("b"), 1.0));
}

#[test]
fn a_cap_limits_the_share_and_goes_without_a_trace() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.run(20);
    world.rule(&[("a", ruled(Effect::Cap(share(0.3))))]);
    let decision = world.tick();
    assert_eq!(decision.reason.to_string(), "a gives up a part: a rule caps it (\"the cap 30% rule\")");
    assert!(near(world.share("a"), 0.3) && near(decision.backends[0].limit, 0.3));
    world.run(700);
    assert!(near(world.share("a"), 0.3));
    world.rule(&[]);
    world.run(700);
    assert!(near(world.share("a"), 1.0), "it is meant to have all it can take");
}

#[test]
fn traffic_that_moves_under_a_cap_moves_up_to_it() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.rule(&[("b", ruled(Effect::Cap(share(0.25))))]);
    world.run(700);
    world.set_price("b", 0.5);
    assert_eq!(world.tick().action, Action::Shift);
    let decision = world.run(100);
    assert!(near(world.share("b"), 0.25));
    assert_eq!(decision.action, Action::Stay, "{:?}", decision.reason);
}

#[test]
fn a_cap_gives_way_only_where_nobody_else_may_serve() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.configure("b", |b| b.replicas.as_mut().unwrap().max = 1);
    world.rule(&[("a", ruled(Effect::Cap(share(0.3))))]);
    world.run(700);
    assert!(near(world.share("a"), 0.3), "b takes the rest, though it is full");
    world.set_health("b", Health::Unhealthy);
    world.tick();
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn an_override_is_stronger_than_a_cap() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.rule(&[("a", ruled(Effect::Cap(share(0.3))))]);
    world.impose(OverrideKind::Cap, Some("a"), Some(0.1));
    world.run(5);
    assert!(near(world.share("a"), 0.1), "both hold");
    world.snapshot.overrides.clear();
    world.impose(OverrideKind::Pin, Some("a"), Some(0.8));
    world.run(5);
    assert!(near(world.share("a"), 0.8), "what is said today counts");
}

#[test]
fn a_floor_is_kept_while_the_backend_may_serve() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
    world.policy.keep_warm = share(0.05);
    world.rule(&[("c", ruled(Effect::Floor(share(0.2)))), ("b", ruled(Effect::Floor(share(0.01))))]);
    world.run(50);
    assert!(near(world.share("c"), 0.2) && near(world.share("b"), 0.05));
    world.set_health("c", Health::Unhealthy);
    world.tick();
    assert!(near(world.share("c"), 0.0));
    // Never above what else limits it.
    world.set_health("c", Health::Healthy);
    world.rule(&[("c", ruled(Effect::Floor(share(0.2)))), ("c", ruled(Effect::Cap(share(0.1))))]);
    world.run(1400);
    assert!(near(world.share("c"), 0.1));
}

#[test]
fn a_preferred_backend_counts_as_cheaper_and_shows_what_it_costs() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.05)]);
    world.run(700);
    assert!(near(world.share("a"), 1.0));
    world.rule(&[("b", ruled(Effect::Prefer(share(0.1))))]);
    let decision = world.tick();
    // 1 - 0.9 * 1.05: a saving, but not one of 15%.
    assert_eq!(decision.reason.code(), "gap_below_threshold");
    assert!((decision.gap.unwrap() - 0.055).abs() < 1e-6);
    assert!(
        (decision.cost_here_usd_per_hour.unwrap() * 1.05 - decision.cost_there_usd_per_hour.unwrap()).abs()
            < 1e-9
    );
    let told = crate::policy::explain::summary(&decision);
    assert!(told.contains("b counts as 10% cheaper than it is (rule \"the prefer 10% rule\")"), "{told}");
    let change = crate::policy::explain::what_would_change_it(&decision);
    // 0.85 * $5.50 / 0.9 is what b may cost; it costs $5.775 in whole nodes.
    assert!(change.contains("at most $5.1944 an hour at b (now $5.7750)"), "{change}");
    world.rule(&[("b", ruled(Effect::Prefer(share(0.2))))]);
    let decision = world.tick();
    assert_eq!((decision.action, decision.reason.code()), (Action::Shift, "gap_reached"));
    // The real unit cost of b: 1.05 USD for an hour of 10 requests a second.
    assert!((decision.backends[1].unit_cost.unwrap().total() - 1.05 / 36.0).abs() < 1e-9);
    world.rule(&[]);
    world.run(700);
    assert!(near(world.share("a"), 1.0), "without the rule it is not worth it");
}

#[test]
fn a_preference_adds_up_in_the_break_even_rule() {
    let mut world = World::new(&[("a", 1.0), ("b", 1.05)]);
    world.policy.rule = Rule::BreakEven { move_usd: 0.01 };
    world.policy.hold = Duration::ZERO;
    world.run(100);
    assert!(near(world.share("a"), 1.0));
    world.rule(&[("b", ruled(Effect::Prefer(share(0.1))))]);
    // Being at b would have cost $0.275 an hour more for 100 seconds; now it counts as $5.50 - 0.9 * $5.775 less. So what that
    // was, and the cent that a move costs, are made up for in 210 seconds.
    let moved = (0..300).find(|_| world.tick().action == Action::Shift);
    assert!(moved.is_some_and(|second| (205..217).contains(&second)), "{moved:?}");
}

#[test]
fn nothing_moves_for_money_while_a_rule_holds() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.run(700);
    world.set_price("b", 0.1);
    world.rule(&[("b", ruled(Effect::Hold))]);
    let decision = world.tick();
    assert_eq!(decision.action, Action::Stay);
    assert_eq!(decision.reason.to_string(), "nothing moves for money: the rule \"the hold rule\" matches b");
    world.rule(&[("b", undecided(Effect::Hold))]);
    let said = world.tick().reason.to_string();
    assert_eq!(said, "nothing moves for money: the rule \"the hold rule\" cannot be decided for b");
    // What must move does.
    world.set_health("a", Health::Unhealthy);
    assert_eq!(world.tick().action, Action::Evacuate);
    world.set_health("a", Health::Healthy);
    world.rule(&[]);
    world.run(1400);
    assert!(near(world.share("b"), 1.0));
}

#[test]
fn what_cannot_be_decided_takes_nothing_away_and_gives_nothing_more() {
    for effect in [Effect::Deny, Effect::Cap(share(0.3))] {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
        world.run(700);
        world.rule(&[("a", undecided(effect)), ("b", undecided(effect))]);
        let decision = world.tick();
        assert_eq!((decision.action, near(world.share("a"), 1.0)), (Action::Stay, true), "{effect}");
        world.set_price("b", 0.1);
        world.run(700);
        let most = if effect == Effect::Deny { 0.0 } else { 0.3 };
        assert!(near(world.share("b"), most), "{effect}: {}", world.share("b"));
    }
    // One that has nothing may not serve, even where nothing else may.
    let mut world = World::new(&[("a", 1.0)]);
    world.rule(&[("a", undecided(Effect::Deny))]);
    let decision = world.tick();
    assert_eq!(decision.fallback, Fallback::NothingEligible);
    assert_eq!(decision.backends[0].limited_by, Some(Cause::RuleUndecided));
    // Nor does unknown health, which could be given up, let it in.
    world.set_health("a", Health::Unknown);
    assert_eq!(world.tick().fallback, Fallback::NothingEligible);
    // One that serves goes on, also where that takes giving up the objective.
    let mut world = World::new(&[("a", 1.0)]);
    world.run(10);
    world.rule(&[("a", undecided(Effect::Deny))]);
    world.snapshot.slo.ttft_p95 = Some(Duration::from_millis(800));
    let live = &mut world.view_mut("a").live;
    (live.samples, live.ttfb_p95) = (100, Some(Duration::from_secs(2)));
    assert_eq!(world.tick().fallback, Fallback::Slo);
    assert!(near(world.share("a"), 1.0));
}

#[test]
fn a_recorded_snapshot_replays_with_its_rulings() {
    let mut world = World::new(&[("a", 1.0), ("b", 2.0)]);
    world.rule(&[("a", ruled(Effect::Deny)), ("b", undecided(Effect::Cap(share(0.5))))]);
    let (now, before) = (at(1), State::default());
    let first = crate::policy::decide(&world.policy, &world.snapshot, &before, now);
    let text = serde_json::to_string(&world.snapshot).unwrap();
    let replayed = crate::policy::decide(&world.policy, &serde_json::from_str(&text).unwrap(), &before, now);
    assert_eq!(first, replayed);
    // One from before there were rules.
    world.rule(&[]);
    let text = serde_json::to_string(&world.snapshot).unwrap();
    assert!(!text.contains("rulings"), "{text}");
    let back: crate::model::Snapshot = serde_json::from_str(&text).unwrap();
    assert!(back.rulings.is_empty());
}

fn any_ruled() -> impl Strategy<Value = Vec<Ruled>> {
    let effect = prop_oneof![
        Just(Effect::Allow),
        Just(Effect::Deny),
        (0.0..1.0).prop_map(|s| Effect::Cap(share(s))),
        (0.0..1.0).prop_map(|s| Effect::Floor(share(s))),
        (0.0..1.0).prop_map(|s| Effect::Prefer(share(s))),
        Just(Effect::Hold),
    ];
    prop::collection::vec(effect.prop_map(ruled), 0..3)
}

proptest! {
    #[test]
    fn whatever_rules_say_the_denied_get_nothing_caps_hold_and_shares_sum_to_one(
        turns in prop::collection::vec((prop::collection::vec(any_ruled(), 4), prop::collection::vec(0.01..10.0f64, 4), 0..5usize), 1..25),
        break_even in any::<bool>(),
        keep_warm in 0.0..0.2,
    ) {
        let names = ["a", "b", "c", "d"];
        let mut world = World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]);
        world.policy.keep_warm = share(keep_warm);
        world.policy.hold = Duration::from_secs(5);
        if break_even {
            world.policy.rule = Rule::BreakEven { move_usd: 0.0001 };
        }
        for (rules, prices, ill) in turns {
            for (place, name) in names.iter().enumerate() {
                world.set_price(name, prices[place]);
                world.set_health(name, if place == ill { Health::Unhealthy } else { Health::Healthy });
            }
            world.snapshot.rulings.backends = rules.clone();
            let decision = world.tick();
            let sum: f64 = decision.backends.iter().map(|b| b.share).sum();
            let denied = |place: usize| ruling::deny(&rules[place]).is_some();
            let cap = |place: usize| ruling::caps(&rules[place]).map(|(_, s)| s).fold(1.0, f64::min);
            let may_serve = |place: usize| !denied(place) && place != ill;
            let expected = f64::from(u8::from((0..4).any(may_serve)));
            prop_assert!((sum - expected).abs() < 1e-6, "{:?}", decision);
            let uncapped = (0..4).any(|place| may_serve(place) && cap(place) >= 1.0);
            for (place, verdict) in decision.backends.iter().enumerate() {
                prop_assert!(may_serve(place) || verdict.share == 0.0, "{} {:?}", place, decision);
                prop_assert!(!uncapped || verdict.share <= cap(place) + 1e-6, "{} {:?}", place, decision);
            }
        }
    }
}
