//! Greedy filling against a solver of linear programs.

use microlp::{ComparisonOp, OptimizationDirection, Problem};
use proptest::prelude::*;

use super::*;
use crate::{
    model::{Effect, Replicas, Ruled, Rulings},
    policy::{allocate::cheapest, room::FULL, site, worlds::at},
};

/// A backend as the solver sees it, made from what is drawn and not from what the program makes of it.
#[derive(Clone, Debug)]
struct Drawn {
    price: f64,
    rps: f64,
    min: u32,
    max: u32,
    elsewhere_rps: f64,
    egress_usd_per_gb: f64,
    cap: Option<f64>,
    floor: f64,
    prefer: f64,
}

/// Bytes of an answer: 10 MB make egress as dear as nodes.
const RESPONSE_BYTES: f64 = 1e7;

impl Drawn {
    fn most_rps(&self, demand: f64) -> f64 {
        let free = (f64::from(self.max) * self.rps - self.elsewhere_rps).clamp(0.0, demand);
        free.min(self.cap.map_or(demand, |cap| cap * demand))
    }

    /// What is paid anyway serves less than it could, so that chance makes no autoscaler act.
    fn paid_rps(&self) -> f64 {
        (f64::from(self.min) * self.rps * FULL - self.elsewhere_rps).max(0.0)
    }

    fn least_rps(&self, demand: f64) -> f64 {
        (self.floor * demand).min(self.most_rps(demand))
    }

    /// USD per hour of a request a second within what is paid, and beyond, as counted when compared.
    fn usd_per_rps(&self) -> (f64, f64) {
        let bytes = RESPONSE_BYTES / 1e9 * self.egress_usd_per_gb * 3600.0;
        let counted = 1.0 - self.prefer;
        (bytes * counted, (bytes + self.price / self.rps) * counted)
    }

    fn usd_per_hour(&self, rps: f64) -> f64 {
        let (within, beyond) = self.usd_per_rps();
        let paid = rps.min(self.paid_rps());
        within * paid + beyond * (rps - paid)
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let figures = (0.05..20.0, 0.5..50.0, 0..20u32, 0..40u32, prop_oneof![Just(0.0), 0.0..300.0]);
    let rules =
        (prop::option::of(0.0..1.0), prop_oneof![Just(0.0), 0.0..0.3], prop_oneof![Just(0.0), 0.0..0.5]);
    (figures, rules, prop_oneof![Just(0.0), 0.0..0.2]).prop_map(
        |((price, rps, min, more, elsewhere_rps), (cap, floor, prefer), egress_usd_per_gb)| Drawn {
            price,
            rps,
            min,
            max: min + more,
            elsewhere_rps,
            egress_usd_per_gb,
            cap,
            floor,
            prefer,
        },
    )
}

/// The same backends as the program sees them.
fn world(backends: &[Drawn], demand: f64) -> World {
    let names: Vec<String> = (0..backends.len()).map(|n| format!("b{n}")).collect();
    let prices: Vec<(&str, f64)> =
        names.iter().map(String::as_str).zip(backends.iter().map(|b| b.price)).collect();
    let mut world = World::new(&prices);
    world.snapshot.demand_rps = demand;
    world.snapshot.response_bytes = Some(RESPONSE_BYTES);
    let share = |share: f64| Share::new(share).unwrap();
    let ruled = |effect| Ruled { rule: "drawn".into(), effect, undecided: false };
    let mut rulings = Rulings::default();
    for (name, drawn) in names.iter().zip(backends) {
        world.configure(name, |backend| {
            let cold_start = Duration::ZERO;
            backend.replicas = Some(Replicas { min: drawn.min, max: drawn.max, rps: drawn.rps, cold_start });
            backend.egress_usd_per_gb = Some(drawn.egress_usd_per_gb);
        });
        world.view_mut(name).load_elsewhere_rps = drawn.elsewhere_rps;
        let cap = drawn.cap.map(|cap| ruled(Effect::Cap(share(cap))));
        let others = [ruled(Effect::Floor(share(drawn.floor))), ruled(Effect::Prefer(share(drawn.prefer)))];
        rulings.backends.push(cap.into_iter().chain(others).collect());
    }
    world.snapshot.rulings = rulings;
    world
}

/// USD per hour of the cheapest way to serve the demand; `None` where there is none within all limits.
fn optimum(backends: &[Drawn], demand: f64) -> Option<f64> {
    let mut problem = Problem::new(OptimizationDirection::Minimize);
    let mut all = Vec::new();
    for backend in backends {
        let (within, beyond) = backend.usd_per_rps();
        let paid = problem.add_var(within, (0.0, backend.paid_rps()));
        let bought = problem.add_var(beyond, (0.0, f64::INFINITY));
        problem.add_constraint([(paid, 1.0), (bought, 1.0)], ComparisonOp::Le, backend.most_rps(demand));
        problem.add_constraint([(paid, 1.0), (bought, 1.0)], ComparisonOp::Ge, backend.least_rps(demand));
        all.extend([(paid, 1.0), (bought, 1.0)]);
    }
    problem.add_constraint(&all, ComparisonOp::Eq, demand);
    let solution = problem.solve().ok()?.into_solution().ok()?;
    Some(solution.objective())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Costs rise with the load, step by step, so filling from the cheapest step upward is the optimum of the linear program.
    #[test]
    fn filling_from_the_cheapest_is_the_optimum(
        backends in prop::collection::vec(drawn(), 1..12),
        demand in prop_oneof![1.0..10.0f64, 10.0..1000.0f64],
    ) {
        let most: f64 = backends.iter().map(|b| b.most_rps(demand)).sum();
        let least: f64 = backends.iter().map(|b| b.least_rps(demand)).sum();
        // Where all are full the demand goes somewhere all the same, and floors that are too much give in proportion.
        prop_assume!(most > demand * (1.0 + 1e-6) && least < demand * (1.0 - 1e-6));
        let world = world(&backends, demand);
        let mut state = State::default().aligned_to(&world.snapshot);
        let sites = site::survey(&world.policy, &world.snapshot, &mut state, at(0));
        let shares = cheapest(&sites, None);

        let mut usd = 0.0;
        for (backend, share) in backends.iter().zip(&shares) {
            let rps = share * demand;
            prop_assert!(rps <= backend.most_rps(demand) + 1e-6 * demand, "{rps} at {backend:?}");
            prop_assert!(rps >= backend.least_rps(demand) - 1e-6 * demand, "{rps} at {backend:?}");
            usd += backend.usd_per_hour(rps);
        }
        prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        let best = optimum(&backends, demand).expect("limits and floors leave a way");
        prop_assert!((usd - best).abs() <= 1e-6 * best.max(1e-6), "greedy {usd}, the solver {best}: {shares:?}");
        // All costs are trusted: what was there before makes no difference.
        prop_assert_eq!(&cheapest(&sites, Some(&vec![0.0; backends.len()])), &shares);
    }

    /// Where all together cannot take the demand, each takes all that it can, and more.
    #[test]
    fn where_all_are_full_everyone_is_filled(
        backends in prop::collection::vec(drawn(), 1..12),
        demand in 5000.0..100_000.0f64,
    ) {
        let most: f64 = backends.iter().map(|b| b.most_rps(demand)).sum();
        prop_assume!(most < demand * (1.0 - 1e-6));
        prop_assert_eq!(optimum(&backends, demand), None);
        let world = world(&backends, demand);
        let mut state = State::default().aligned_to(&world.snapshot);
        let sites = site::survey(&world.policy, &world.snapshot, &mut state, at(0));
        let shares = cheapest(&sites, None);
        prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{shares:?}");
        for (backend, share) in backends.iter().zip(&shares) {
            prop_assert!(share * demand >= backend.most_rps(demand) - 1e-6 * demand, "{shares:?}");
        }
    }
}
