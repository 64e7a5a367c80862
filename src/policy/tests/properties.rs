//! What holds whatever happens: many worlds, drawn, and what every decision about them has in common.

use proptest::prelude::*;

use super::*;
use crate::{
    model::{BackendView, Ejected, EjectedFor, Live, LoadReport, ProbeView, Ramp},
    policy::worlds::at,
};

/// One change to a world, drawn by the property tests.
#[derive(Clone, Debug)]
enum Event {
    Price(usize, f64),
    Health(usize, u8),
    Demand(f64),
    Elsewhere(usize, f64),
    Drain(usize),
    Cap(usize, f64),
    Pin(usize, f64),
    Clear,
    Load(usize, Option<u32>, f64),
    Slow(usize, bool),
    Leaving(usize, f64),
    Lost(usize),
    Outlier(usize, bool),
    Wait(i64),
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

const OBJECTIVE: Duration = Duration::from_millis(800);

fn happen(world: &mut World, event: Event) {
    match event {
        Event::Price(b, usd) => world.set_price(NAMES[b], usd),
        Event::Health(b, 0) => world.set_health(NAMES[b], Health::Unknown),
        Event::Health(b, 1) => world.set_health(NAMES[b], Health::Unhealthy),
        Event::Health(b, _) => world.set_health(NAMES[b], Health::Healthy),
        Event::Demand(rps) => world.snapshot.demand_rps = rps,
        Event::Elsewhere(b, rps) => world.view_mut(NAMES[b]).load_elsewhere_rps = rps,
        Event::Drain(b) => world.impose(OverrideKind::Drain, Some(NAMES[b]), None),
        Event::Cap(b, s) => world.impose(OverrideKind::Cap, Some(NAMES[b]), Some(s)),
        Event::Pin(b, s) => world.impose(OverrideKind::Pin, Some(NAMES[b]), Some(s)),
        Event::Clear => world.snapshot.overrides.clear(),
        Event::Load(b, ready_replicas, queued) => {
            let queued = Some(queued).filter(|queued| *queued < 50.0);
            world.view_mut(NAMES[b]).load = LoadReport { ready_replicas, queued, ..LoadReport::default() };
        }
        Event::Slow(b, slow) => {
            let live = &mut world.view_mut(NAMES[b]).live;
            (live.samples, live.ttfb_p95) = (100, Some(if slow { OBJECTIVE * 2 } else { OBJECTIVE / 2 }));
        }
        Event::Leaving(b, part) => world.view_mut(NAMES[b]).leaving = Share::new(part).unwrap(),
        Event::Lost(b) => {
            let view = world.view_mut(NAMES[b]);
            (view.spot, view.live, view.load) = (None, Live::default(), LoadReport::default());
        }
        Event::Outlier(b, out) => {
            let ejected = Ejected { reason: EjectedFor::Latency, why: String::new(), until: at(0) };
            world.view_mut(NAMES[b]).ejected = Some(ejected).filter(|_| out);
        }
        Event::Wait(seconds) => world.now += seconds,
    }
}

/// Whether nobody is meant to have more than its limit while another that may serve has room. Beside a pin it may: that is
/// the operator's word.
fn within_limits(world: &World, decision: &Decision) -> bool {
    let pinned = world.snapshot.overrides.iter().any(|o| o.kind == OverrideKind::Pin);
    let capped = |b: &Verdict| b.limited_by == Some(Cause::Capped);
    let over = decision.backends.iter().any(|b| b.eligible && b.target > b.limit + 1e-6);
    let room = decision.backends.iter().any(|b| b.eligible && !capped(b) && b.target < b.limit - 1e-6);
    pinned || !over || !room
}

/// Whether nobody has a share who may not serve; one that is slow keeps what nobody else is ready for.
fn serves_where_it_may(world: &World, decision: &Decision) -> bool {
    let demand = world.snapshot.demand_rps;
    let is_full = |(verdict, view): (&Verdict, &BackendView)| {
        let ready = verdict.ready_rps.map_or(1.0, |rps| (rps - view.load_elsewhere_rps) / demand);
        // Something else than its capacity may keep it from more: it reports that it is at its limit, say.
        let kept = verdict.limited_by.is_some_and(|cause| cause != Cause::Capacity);
        !verdict.eligible || kept || verdict.share >= ready.min(verdict.limit) - 1e-6
    };
    decision.backends.iter().all(|verdict| {
        let keeps = matches!(verdict.limited_by, Some(Cause::OverSlo | Cause::LatencyOutlier));
        let others_are_full = || decision.backends.iter().zip(&world.snapshot.backends).all(is_full);
        verdict.eligible || verdict.share.abs() < 1e-9 || keeps && others_are_full()
    })
}

fn decide_next(world: &World) -> (Decision, State) {
    decide(&world.policy, &world.snapshot, &world.state, at(world.now + 1))
}

/// The same decision from what the journal would have kept.
fn through_json(world: &World) -> (Decision, State) {
    let text = serde_json::to_string(&(&world.snapshot, &world.state, &world.policy)).unwrap();
    let (snapshot, state, policy): (Snapshot, State, Policy) = serde_json::from_str(&text).unwrap();
    decide(&policy, &snapshot, &state, at(world.now + 1))
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (0..4usize, 0.01..10.0).prop_map(|(b, p)| Event::Price(b, p)),
        (0..4usize, 0..3u8).prop_map(|(b, h)| Event::Health(b, h)),
        (0.0..5000.0).prop_map(Event::Demand),
        (0..4usize, 0.0..2000.0).prop_map(|(b, l)| Event::Elsewhere(b, l)),
        (0..4usize).prop_map(Event::Drain),
        (0..4usize, 0.0..1.0).prop_map(|(b, s)| Event::Cap(b, s)),
        (0..4usize, 0.0..1.0).prop_map(|(b, s)| Event::Pin(b, s)),
        Just(Event::Clear),
        (0..4usize, prop::option::of(0..20u32), 0.0..100.0).prop_map(|(b, n, q)| Event::Load(b, n, q)),
        (0..4usize, any::<bool>()).prop_map(|(b, slow)| Event::Slow(b, slow)),
        (0..4usize, 0.0..1.0).prop_map(|(b, s)| Event::Leaving(b, s)),
        (0..4usize).prop_map(Event::Lost),
        (0..4usize, any::<bool>()).prop_map(|(b, out)| Event::Outlier(b, out)),
        (-5000..5000i64).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..60)
}

proptest! {
    #[test]
    fn whatever_happens_the_shares_are_a_division_among_the_eligible(
        events in events(),
        min in 0..5u32,
        keep_warm in 0.0..0.2,
        cold_start in 0..60u64,
        slow_start in 0..60u64,
    ) {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0)]);
        world.snapshot.slo.ttft_p95 = Some(OBJECTIVE);
        world.policy.keep_warm = Share::new(keep_warm).unwrap();
        world.policy.hold = Duration::from_secs(20);
        world.policy.slow_start = Duration::from_secs(slow_start);
        for name in NAMES {
            world.configure(name, |b| {
                let replicas = b.replicas.as_mut().unwrap();
                replicas.min = min;
                replicas.cold_start = Duration::from_secs(cold_start);
            });
        }
        for event in events {
            happen(&mut world, event);
            let decision = world.tick();
            let sum: f64 = decision.backends.iter().map(|b| b.share).sum();
            if decision.fallback == Fallback::NothingEligible {
                prop_assert_eq!(sum, 0.0);
            } else {
                prop_assert!((sum - 1.0).abs() < 1e-6, "sum {} of {:?}", sum, decision);
            }
            for (verdict, view) in decision.backends.iter().zip(&world.snapshot.backends) {
                prop_assert!(verdict.share.is_finite() && verdict.share >= -1e-9 && verdict.target >= -1e-9);
                prop_assert!(view.health != Health::Unhealthy || verdict.share == 0.0, "{:?}", decision);
            }
            prop_assert!(serves_where_it_may(&world, &decision), "{:?}", decision);
            prop_assert!(within_limits(&world, &decision), "{:?}", decision);
            prop_assert_eq!(through_json(&world), decide_next(&world));
        }
    }

    #[test]
    fn taking_a_price_away_never_raises_a_share(prices in prop::collection::vec(0.1..5.0, 3), which in 0..3usize) {
        let names = ["a", "b", "c"];
        let with: Vec<(&str, f64)> = names.iter().copied().zip(prices.iter().copied()).collect();
        let mut known = World::new(&with);
        let mut unknown = World::new(&with);
        unknown.view_mut(names[which]).spot = None;
        known.run(700);
        unknown.run(700);
        prop_assert!(unknown.share(names[which]) <= known.share(names[which]) + 1e-9);
    }
}

/// A figure that somebody stops to tell.
#[derive(Clone, Copy, Debug)]
enum Signal {
    Price,
    LiveLatency,
    ProbeLatency,
    Health,
    Load,
}

fn silence(world: &mut World, name: &str, signal: Signal) {
    let view = world.view_mut(name);
    match signal {
        Signal::Price => view.spot = None,
        Signal::LiveLatency => view.live = Live::default(),
        Signal::ProbeLatency => view.probe = None,
        Signal::Health => view.health = Health::Unknown,
        Signal::Load => view.load = LoadReport::default(),
    }
}

/// Moves for money within 60 decisions a minute apart, at these prices, which change every 20 decisions.
fn moves(rule: &Rule, stages: &[(f64, f64)], noise: &[(f64, f64, f64)]) -> usize {
    let mut world = World::new(&[("a", stages[0].0), ("b", stages[0].1)]);
    world.policy.rule = rule.clone();
    world.policy.hold = Duration::from_secs(60);
    world.policy.ramp = Ramp::new(1.0, Duration::from_secs(1)).unwrap();
    // Where traffic begins is no move, and may be a matter of a cent.
    world.tick();
    let mut moves = 0;
    for (a, b) in stages {
        for minute in 0..20 {
            // Each disturbance is followed by its opposite, so that none is a trend.
            let sign = if minute % 2 == 0 { 1.0 } else { -1.0 };
            let (of_a, of_b, of_demand) = noise.get(minute / 2).copied().unwrap_or_default();
            world.set_price("a", a * (1.0 + sign * of_a));
            world.set_price("b", b * (1.0 + sign * of_b));
            world.snapshot.demand_rps = 50.0 * (1.0 + sign * of_demand);
            world.now += 59;
            moves += usize::from(matches!(world.tick().action, Action::Shift | Action::Return));
        }
    }
    moves
}

/// Whether a gap between two prices is so far from what moves traffic that a percent of noise on either does not decide.
fn is_clear(a: f64, b: f64) -> bool {
    [1.0 - a / b, 1.0 - b / a].iter().all(|gap| (gap - 0.15).abs() > 0.025 && (gap - 0.05).abs() > 0.025)
}

/// Prices of two backends, stage by stage.
fn stages(may_be: fn(f64, f64) -> bool) -> impl Strategy<Value = Vec<(f64, f64)>> {
    let prices =
        (0.5..1.5f64, 0.5..1.5f64).prop_filter("noise must not decide", move |(a, b)| may_be(*a, *b));
    prop::collection::vec(prices, 1..5)
}

fn one_percent() -> impl Strategy<Value = Vec<(f64, f64, f64)>> {
    prop::collection::vec((-0.01..0.01, -0.01..0.01, -0.01..0.01), 10)
}

proptest! {
    /// Two worlds that are alike until one backend's signal is missing in one: there its share becomes no larger than in the
    /// other, or than it was. For as long as the latency objective remembers, which is `hold`.
    #[test]
    fn a_signal_that_falls_silent_attracts_nothing(
        before in prop::collection::vec((events(), 1..20usize), 1..4),
        which in 0..4usize,
        signal in prop::sample::select(vec![
            Signal::Price, Signal::LiveLatency, Signal::ProbeLatency, Signal::Health, Signal::Load,
        ]),
        slow_probe in any::<bool>(),
    ) {
        let mut known = World::new(&[("a", 1.0), ("b", 1.1), ("c", 1.2), ("d", 1.3)]);
        known.snapshot.slo.ttft_p95 = Some(OBJECTIVE);
        let first_byte = Some(if slow_probe { OBJECTIVE * 2 } else { OBJECTIVE / 2 });
        known.view_mut(NAMES[which]).probe = Some(ProbeView { connect: OBJECTIVE / 8, first_byte, at: at(0) });
        for (events, seconds) in before {
            events.into_iter().for_each(|event| happen(&mut known, event));
            known.run(seconds);
        }
        // Somebody must be there who can do without the one in question.
        known.snapshot.overrides.clear();
        known.snapshot.demand_rps = 50.0;
        for other in (0..4).filter(|place| *place != which) {
            let view = known.view_mut(NAMES[other]);
            (view.health, view.live, view.load) = (Health::Healthy, Live::default(), LoadReport::default());
            (view.leaving, view.load_elsewhere_rps, view.spot) = (Share::ZERO, 0.0, Some(worlds::price(1.1)));
            view.ejected = None;
        }
        known.set_health(NAMES[which], Health::Healthy);
        known.run(700);
        let before = known.share(NAMES[which]);
        let mut silent = World {
            policy: known.policy.clone(),
            snapshot: known.snapshot.clone(),
            state: known.state.clone(),
            now: known.now,
        };
        silence(&mut silent, NAMES[which], signal);
        let mut most = before;
        for _ in 0..500 {
            known.tick();
            silent.tick();
            most = most.max(known.share(NAMES[which]));
            prop_assert!(silent.share(NAMES[which]) <= most + 1e-6, "{} rather than {most}", silent.share(NAMES[which]));
        }
    }

    /// However long a pause was, and whichever way the clock went, nobody gains more for money than the ramp allows in a minute.
    #[test]
    fn no_jump_of_the_clock_is_a_jump_of_traffic(
        steps in prop::collection::vec((0..3usize, 0.1..5.0f64, prop_oneof![0..5i64, Just(3599), -3600..3600i64]), 1..60),
        per_second in 0.0005..0.05f64,
    ) {
        let mut world = World::new(&[("a", 1.0), ("b", 2.0), ("c", 3.0)]);
        world.policy.hold = Duration::from_secs(5);
        world.policy.ramp = Ramp::new(per_second, Duration::from_secs(1)).unwrap();
        world.tick();
        for (which, usd, pause) in steps {
            world.set_price(NAMES[which], usd);
            world.now += pause;
            let before = world.state.shares.clone();
            world.tick();
            let most = per_second * (pause + 1).clamp(0, 60) as f64;
            for (before, after) in before.iter().zip(&world.state.shares) {
                prop_assert!(after - before <= most + 1e-9, "{before} to {after}, at most {most} more");
            }
        }
    }

    #[test]
    fn one_percent_of_noise_adds_no_move_to_the_threshold(
        stages in stages(is_clear),
        noise in one_percent(),
    ) {
        let rule = worlds::policy().rule;
        prop_assert!(moves(&rule, &stages, &noise) <= moves(&rule, &stages, &[]));
    }

    #[test]
    fn one_percent_of_noise_adds_no_move_to_break_even(
        // A gap of a percent is what the noise is.
        stages in stages(|a, b| (a / b - 1.0).abs() > 0.03),
        move_usd in 0.2..2.0f64,
        noise in one_percent(),
    ) {
        let rule = Rule::BreakEven { move_usd };
        prop_assert!(moves(&rule, &stages, &noise) <= moves(&rule, &stages, &[]));
    }
}
