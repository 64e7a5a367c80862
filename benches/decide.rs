//! Decisions for all routes of a configuration. Goals: under 1 ms for 100 routes of 10 backends, under 20 ms for 1,000 routes of
//! 50 backends, and no more than in proportion to the routes.

use std::sync::Arc;

use divan::Bencher;
use tradewind::{
    model::{
        BackendView, Domain, Effect, Health, Live, LoadReport, NMinusOne, Policy, Price, PriceState, Share,
        Slo, Snapshot, Timestamp, UsdPerHour,
    },
    policy::{self, State, decide},
    rules::{CompiledRule, Facts, RuleSet},
};

mod worlds;

fn main() {
    divan::main();
}

fn snapshot(route: usize, backends: usize, now: Timestamp) -> Snapshot {
    let all: Vec<_> = (0..backends).map(worlds::backend).collect();
    let price = |n: usize| Price {
        usd_per_hour: UsdPerHour::new(0.5 + n as f64 / 100.0).expect("a price"),
        source: Arc::from("bench"),
        observed_at: now,
        fetched_at: now,
        state: PriceState::Fresh,
        note: None,
    };
    Snapshot {
        at: now,
        route: worlds::route(route, &all).id.clone(),
        slo: Slo::default(),
        demand_rps: 200.0,
        response_bytes: Some(4000.0),
        backends: all
            .into_iter()
            .enumerate()
            .map(|(n, backend)| BackendView {
                backend,
                spot: Some(price(n)),
                on_demand: Some(price(n + 100)),
                interruptions: Default::default(),
                health: Health::Healthy,
                probe: None,
                live: Live::default(),
                load: LoadReport::default(),
                ejected: None,
                leaving: Share::ZERO,
                load_elsewhere_rps: 0.0,
                resolved: true,
            })
            .collect(),
        overrides: Vec::new(),
        rulings: Default::default(),
    }
}

#[divan::bench(args = [(100, 10), (10, 50), (100, 50), (1000, 50), (2000, 50)])]
fn all_routes(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    decide_all(bencher, size, &worlds::policy());
}

/// With replicas kept ready for the loss of a region.
#[divan::bench(args = [(100, 50), (1000, 50)])]
fn all_routes_n_minus_one(bencher: Bencher<'_, '_>, size: (usize, usize)) {
    let mut policy = (*worlds::policy()).clone();
    let ready = Share::new(0.5).expect("a share");
    policy.n_minus_one = Some(NMinusOne { domain: Domain::Region, ready });
    decide_all(bencher, size, &policy);
}

/// What constraints cost, as `explain` asks for one route.
#[divan::bench(args = [10, 50, 1000])]
fn binding_costs(bencher: Bencher<'_, '_>, backends: usize) {
    let now = Timestamp::from_second(1_700_000_000).expect("a time");
    let policy = worlds::policy();
    let snapshot = Snapshot { demand_rps: 1e6, ..snapshot(0, backends, now) };
    let state = decide(&policy, &snapshot, &State::default(), now).1;
    bencher.bench_local(|| policy::shadow::binding_costs(&policy, &snapshot, &state));
}

fn decide_all(bencher: Bencher<'_, '_>, (routes, backends): (usize, usize), policy: &Policy) {
    let now = Timestamp::from_second(1_700_000_000).expect("a time");
    let snapshots: Vec<Snapshot> = (0..routes).map(|route| snapshot(route, backends, now)).collect();
    let placed: Vec<State> =
        snapshots.iter().map(|snapshot| decide(policy, snapshot, &State::default(), now).1).collect();
    bencher.bench_local(|| {
        for (snapshot, state) in snapshots.iter().zip(&placed) {
            divan::black_box(decide(policy, snapshot, state, now));
        }
    });
}

/// What ten rules say about all routes.
#[divan::bench(args = [(10, 10), (100, 10)])]
fn ten_rules(bencher: Bencher<'_, '_>, (routes, backends): (usize, usize)) {
    let now = Timestamp::from_second(1_700_000_000).expect("a time");
    let when =
        "backend.region.startsWith('eu') && now.hour >= 7 && now.hour < 10 || backend.price.spot > 100.0";
    let rule =
        |n: usize| CompiledRule::compile(&format!("rule {n}"), when, Effect::Deny).expect("it is good");
    let rules = RuleSet::new((0..10).map(rule).collect());
    let snapshots: Vec<Snapshot> = (0..routes).map(|route| snapshot(route, backends, now)).collect();
    let facts = vec![Facts::default(); backends];
    bencher.bench(|| {
        for snapshot in &snapshots {
            divan::black_box(rules.judge(snapshot, &facts));
        }
    });
}
