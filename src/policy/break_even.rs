//! The break-even rule: leave when staying has cost as much more than another side would have as a move costs.
//!
//! For two backends between which a move costs the same either way this is the deterministic algorithm for metrical task
//! systems with two states; for n backends it is the work function algorithm. It costs at most 2n - 1 times as much as the best
//! schedule in hindsight, up to a constant that does not grow with time, and no deterministic rule can promise less (Borodin,
//! Linial and Saks, "An optimal on-line algorithm for metrical task system", J. ACM 39, 1992). The bound holds for `hold = "0s"`, a ramp that is done within a tick, and a cost
//! of moving that is the same between all backends and at all times; it counts both sides' dollars from the same start.
//!
//! There is no gap to tune: a large gap is left soon, a small one late, noise around zero never adds up.

use std::time::Duration;

use super::{
    DRIFT, Outcome, Pause,
    allocate::{close, favouring, largest, repair},
    site::Site,
    state::State,
    threshold::{Comparison, compare, gains_most, nothing_cheaper},
};
use crate::model::{Action, Policy, Reason};

/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// A move is never taken to be cheaper than this, in USD: below it the rule would follow rounding.
const MOVE_USD_MIN: f64 = 1e-9;

/// Being at another backend, beside being where the plan is.
struct Alternative {
    place: usize,
    shares: Vec<f64>,
    comparison: Comparison,
    /// What it costs to go there, in USD.
    move_usd: f64,
}

impl Alternative {
    /// USD per hour that staying costs more.
    fn saves(&self) -> f64 {
        self.comparison.saving_usd_per_hour
    }
}

/// Adds up what staying has cost, and moves `state.plan` when that reaches what a move costs; says why or why not.
pub(super) fn consider(
    policy: &Policy,
    move_usd: f64,
    sites: &[Site],
    state: &mut State,
    Pause { elapsed, remaining }: Pause,
) -> Outcome {
    state.regret_usd.resize(sites.len(), 0.0);
    // Left by another rule, before this policy had this one.
    state.home = None;
    let here = repair(sites, &state.plan_now(sites), &state.target);
    let alternatives: Vec<Alternative> =
        (0..sites.len()).filter_map(|place| alternative(policy, move_usd, sites, &here, place)).collect();
    add_up(&alternatives, &mut state.regret_usd, elapsed);

    let reached = |a: &&Alternative| state.regret_usd[a.place] / a.move_usd;
    let best = alternatives.iter().max_by(|a, b| reached(a).total_cmp(&reached(b)));
    let Some(best) = best else { return Outcome::stay(nothing_cheaper(sites)) };
    let outcome = |action, reason| Outcome { action, reason, comparison: Some(best.comparison) };
    let lost_usd = state.regret_usd[best.place];
    let to = sites[best.place].view.backend.id.clone();
    if lost_usd < best.move_usd * (1.0 - 1e-9) {
        let nothing_to_shed = alternatives.iter().all(|a| a.comparison.here_usd_per_hour <= 0.0);
        return outcome(
            Action::Stay,
            match lost_usd > 0.0 {
                true => Reason::BreakEvenPending { to, lost_usd, move_usd: best.move_usd },
                false if nothing_to_shed => Reason::NothingToSave,
                false => Reason::Cheapest,
            },
        );
    }
    if !remaining.is_zero() {
        return outcome(Action::Stay, Reason::Holding { to, gap: best.comparison.gap, remaining });
    }
    let from = gains_most(sites, &best.shares, &here).or_else(|| largest(sites, &here));
    let from = from.map_or_else(|| to.clone(), |site| site.view.backend.id.clone());
    // Seen from there: going back would now have to be earned from the beginning.
    state.regret_usd.iter_mut().for_each(|usd| *usd -= lost_usd);
    state.plan_for(sites, &best.shares);
    outcome(Action::Shift, Reason::BreakEvenReached { from, to, lost_usd, move_usd: best.move_usd })
}

/// Being at `place`; `None` where that is where the plan is, or cannot be compared.
fn alternative(
    policy: &Policy,
    move_usd: f64,
    sites: &[Site],
    here: &[f64],
    place: usize,
) -> Option<Alternative> {
    let site = sites.get(place).filter(|site| site.may_serve && site.trusted_costing().is_some())?;
    let shares = favouring(sites, here, place);
    if close(here, &shares, DRIFT) {
        return None;
    }
    let comparison = compare(sites, here, &shares)?;
    let cold_start =
        site.view.backend.replicas.as_ref().map_or(Duration::ZERO, |replicas| replicas.cold_start);
    // While the new side warms up, and until the old one has scaled down, both are paid.
    let overlap_usd = comparison.there_usd_per_hour * cold_start.as_secs_f64() / HOUR
        + comparison.here_usd_per_hour * policy.hold.as_secs_f64() / HOUR;
    Some(Alternative {
        place,
        shares,
        comparison,
        move_usd: (overlap_usd.max(0.0) + move_usd).max(MOVE_USD_MIN),
    })
}

/// Adds what the time since the last decision has cost. No alternative is ever further behind than a move: whoever were there
/// could have come here. The place of the plan itself, and what cannot be compared now, keep what they have.
fn add_up(alternatives: &[Alternative], regret_usd: &mut [f64], elapsed: Duration) {
    let hours = elapsed.as_secs_f64() / HOUR;
    for a in alternatives {
        regret_usd[a.place] += a.saves() * hours;
    }
    let ahead = alternatives.iter().map(|a| regret_usd[a.place]).fold(0.0, f64::max);
    for a in alternatives {
        let behind_most = ahead.min(a.move_usd) - a.move_usd;
        regret_usd[a.place] = regret_usd[a.place].clamp(behind_most, a.move_usd);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{Ramp, Rule},
        policy::{
            decide, explain,
            worlds::{World, at, price},
        },
    };

    /// The longest step that the rule accounts for.
    const STEP_SECONDS: i64 = 60;

    /// 50 requests a second at 10 a replica: five nodes, and half a node that serves nobody.
    const NODES: f64 = 5.5;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn world(prices: &[f64], move_usd: f64) -> World {
        let backends: Vec<(&str, f64)> = NAMES.into_iter().zip(prices.iter().copied()).collect();
        let mut world = World::new(&backends);
        world.policy.rule = Rule::BreakEven { move_usd };
        world.policy.hold = Duration::ZERO;
        world.policy.ramp = Ramp::new(1.0, Duration::from_secs(1)).unwrap();
        world
    }

    /// A decision after a step, at these prices; says whether it moves for money.
    fn step(world: &mut World, prices: &[f64]) -> Stepped {
        for (view, usd) in world.snapshot.backends.iter_mut().zip(prices) {
            view.spot = Some(price(*usd));
        }
        world.now += STEP_SECONDS;
        world.snapshot.at = at(world.now);
        let (decision, state) = decide(&world.policy, &world.snapshot, &world.state, at(world.now));
        world.state = state;
        let place = world.state.shares.iter().position(|share| *share > 0.99).expect("all at one place");
        Stepped { place, moved: decision.action == Action::Shift, reason: decision.reason }
    }

    struct Stepped {
        place: usize,
        moved: bool,
        reason: Reason,
    }

    /// USD of a step at this price.
    fn step_usd(usd_per_hour: f64) -> f64 {
        NODES * usd_per_hour * STEP_SECONDS as f64 / HOUR
    }

    /// What the rule pays, and what the best schedule in hindsight would have paid, moves included. `next` gives the prices
    /// of the next step, knowing where traffic is.
    fn race(
        count: usize,
        steps: usize,
        move_usd: f64,
        mut next: impl FnMut(usize, usize) -> Vec<f64>,
    ) -> (f64, f64) {
        let mut world = world(&vec![1.0; count], move_usd);
        let mut place = step(&mut world, &vec![1.0; count]).place;
        let (mut paid, mut best) = (0.0, vec![move_usd; count]);
        best[place] = 0.0;
        for n in 0..steps {
            let prices = next(n, place);
            let outcome = step(&mut world, &prices);
            paid += step_usd(prices[outcome.place]) + if outcome.moved { move_usd } else { 0.0 };
            place = outcome.place;
            let from = best.iter().copied().fold(f64::INFINITY, f64::min) + move_usd;
            best = best.iter().zip(&prices).map(|(usd, price)| usd.min(from) + step_usd(*price)).collect();
        }
        (paid, best.into_iter().fold(f64::INFINITY, f64::min))
    }

    /// The bound, and what is not in it: the start, and that a step is only known when it is over.
    fn assert_bounded(count: usize, move_usd: f64, step_max: f64, (paid, best): (f64, f64)) {
        let factor = (2 * count - 1) as f64 * (1.0 + step_max / move_usd);
        let bound = factor * best + 2.0 * count as f64 * move_usd;
        assert!(paid <= bound, "paid {paid}, the best schedule {best}, bound {bound}");
    }

    #[test]
    fn what_would_change_it_is_said_in_hours_while_it_adds_up() {
        let mut world = world(&[1.0, 1.0], 100.0);
        let says = |world: &mut World, prices: &[f64]| {
            for (view, usd) in world.snapshot.backends.iter_mut().zip(prices) {
                view.spot = Some(price(*usd));
            }
            explain::what_would_change_it(&world.run(60))
        };
        let said = says(&mut world, &[1.0, 1.0]);
        assert!(
            said.contains("another backend becoming cheaper for long enough to pay for a move"),
            "{said}"
        );
        // 5.5 nodes at 50 cents less are 2.75 USD an hour, so 100 USD take 36.4 hours.
        let said = says(&mut world, &[1.0, 0.5]);
        assert!(said.contains("it moves to b in 36.3 h, when $100.0000 are reached"), "{said}");
        let said = says(&mut world, &[1.0, 1.1]);
        assert!(said.contains("b becoming cheaper again, for long enough"), "{said}");
    }

    #[test]
    fn a_large_gap_is_left_soon_and_a_small_one_late() {
        let steps_until = |there: f64| {
            let mut world = world(&[1.0, 1.0], 1.0);
            step(&mut world, &[1.0, 1.0]);
            (1..10_000).find(|_| step(&mut world, &[1.0, there]).moved)
        };
        // Half of 5.50 USD an hour is saved: 1 USD is reached after 22 minutes. A fiftieth of it after 9 hours.
        assert_eq!(steps_until(0.5), Some(22));
        assert_eq!(steps_until(0.98), Some(546));
        assert_eq!(steps_until(1.0), None);
    }

    #[test]
    fn what_is_added_up_is_said_and_what_was_left_must_be_earned_back() {
        let mut world = world(&[1.0, 1.0], 1.0);
        step(&mut world, &[1.0, 1.0]);
        let outcome = step(&mut world, &[1.0, 0.5]);
        let Reason::BreakEvenPending { to, lost_usd, move_usd } = outcome.reason else {
            panic!("{:?}", outcome.reason)
        };
        assert_eq!((to.as_str(), move_usd), ("b", 1.0));
        assert!((lost_usd - 2.75 / 60.0).abs() < 1e-9, "{lost_usd}");
        while !step(&mut world, &[1.0, 0.5]).moved {}
        // Back at once is twice as far: from -1 to 1.
        let back = (1..1000).find(|_| step(&mut world, &[0.5, 1.0]).moved);
        assert_eq!(back, Some(44));
    }

    #[test]
    fn noise_around_nothing_never_moves() {
        let mut world = world(&[1.0, 1.0], 1.0);
        step(&mut world, &[1.0, 1.0]);
        for n in 0..20_000 {
            let noise = if n % 2 == 0 { 0.05 } else { -0.05 };
            assert!(!step(&mut world, &[1.0 + noise, 1.0 - noise]).moved, "step {n}");
        }
    }

    #[test]
    fn what_a_move_costs_grows_with_cold_start_and_scale_down() {
        let mut world = world(&[1.0, 0.5], 0.0);
        world.policy.hold = Duration::from_secs(600);
        world.configure("b", |backend| {
            backend.replicas.as_mut().unwrap().cold_start = Duration::from_secs(360);
        });
        world.set_price("b", 1.0);
        step(&mut world, &[1.0, 1.0]);
        let outcome = step(&mut world, &[1.0, 0.5]);
        let Reason::BreakEvenPending { move_usd, .. } = outcome.reason else {
            panic!("{:?}", outcome.reason)
        };
        // Six minutes of 2.75 USD an hour there, ten of 5.50 USD here.
        assert!((move_usd - (2.75 * 0.1 + 5.5 / 6.0)).abs() < 1e-9, "{move_usd}");
    }

    #[test]
    fn without_a_trusted_price_nothing_is_added_up() {
        let mut world = world(&[1.0, 1.0], 1.0);
        step(&mut world, &[1.0, 1.0]);
        world.view_mut("b").spot = None;
        for _ in 0..1000 {
            world.now += STEP_SECONDS;
            let (decision, state) = decide(&world.policy, &world.snapshot, &world.state, at(world.now));
            assert!(matches!(decision.reason, Reason::CostUnknown { .. }), "{:?}", decision.reason);
            world.state = state;
        }
        assert_eq!(world.state.regret_usd, [0.0, 0.0]);
    }

    #[test]
    fn an_adversary_makes_it_pay_three_times_at_most() {
        // Wherever traffic is, is dear; everywhere else is nearly free.
        let cruel = |count: usize| {
            move |_: usize, place: usize| (0..count).map(|n| if n == place { 6.0 } else { 0.001 }).collect()
        };
        for count in 2..=4 {
            let (paid, best) = race(count, 20_000, 5.0, cruel(count));
            assert_bounded(count, 5.0, step_usd(6.0), (paid, best));
            assert!(paid > 1.5 * best, "the adversary did not hurt: {paid} beside {best}");
        }
    }

    #[test]
    fn constant_prices_cost_no_more_than_one_move() {
        let (paid, best) = race(3, 20_000, 5.0, |_, _| vec![1.0, 0.9, 0.7]);
        assert!(paid - best <= 2.0 * 5.0 + 1e-6, "{paid} beside {best}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn random_prices_stay_within_the_bound(
            count in 2usize..=4,
            move_usd in 1.0..20.0,
            seed in prop::collection::vec((0.01..6.0f64, 1usize..200), 4..60),
        ) {
            // Each backend has its own steps of different length.
            let next = |n: usize, _: usize| {
                (0..count).map(|b| {
                    let (_, length) = seed[b % seed.len()];
                    seed[(n / length + b * 7) % seed.len()].0
                }).collect()
            };
            assert_bounded(count, move_usd, step_usd(6.0), race(count, 4_000, move_usd, next));
        }
    }
}
