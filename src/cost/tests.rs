//! Costs: what they are made of, and what always holds.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::worlds::{price, view};

#[test]
fn compute_is_the_nodes_price_over_its_requests() {
    let here = view("a", 1.0);
    // 1 USD/h over 10 requests a second is 1 / 36,000 USD a request.
    let costing = cost_of(&here, 0.0).unwrap();
    assert!((costing.unit.compute - 1000.0 / 36_000.0).abs() < 1e-12);
    assert_eq!(costing.unit.egress, 0.0);
}

#[test]
fn the_mix_of_spot_and_on_demand_is_weighted() {
    let spot = crate::model::Share::new(0.9).unwrap();
    let node = Node { spot, ..view("a", 1.0).backend.node.clone().unwrap() };
    let (usd, trusted) = node_price(&node, Some(&price(1.0)), Some(&price(3.0))).unwrap();
    assert!((usd - 1.2).abs() < 1e-12);
    assert!(trusted);
}

#[test]
fn a_missing_price_is_an_error_and_never_zero() {
    let mut here = view("a", 1.0);
    here.spot = None;
    assert_eq!(cost_of(&here, 0.0), Err(Missing::SpotPrice));
}

#[test]
fn egress_counts_from_the_first_byte() {
    let mut here = view("a", 1.0);
    let mut backend = (*here.backend).clone();
    backend.egress_usd_per_gb = Some(0.09);
    here.backend = backend.into();
    // 1 MB a response is 1 GB per 1,000 requests.
    assert!((cost_of(&here, 1e6).unwrap().unit.egress - 0.09).abs() < 1e-12);
}

#[test]
fn within_the_paid_minimum_compute_is_free() {
    let curve = Curve { paid_rps: 20.0, always: 0.01, beyond: 0.02, step_rps: 10.0 };
    assert_eq!(curve.marginal(19.9), 0.01);
    assert_eq!(curve.marginal(20.0), 0.03);
    assert!((curve.average(40.0) - 0.02).abs() < 1e-12);
    assert_eq!(curve.average(0.0), 0.01);
    assert!((curve.usd_per_hour(10.0) - 10.0 * 0.01 * 3.6).abs() < 1e-12);
    assert!((curve.usd_per_hour(30.0) - (30.0 * 0.01 + 10.0 * 0.02) * 3.6).abs() < 1e-12);
}

#[test]
fn every_term_can_be_computed_by_hand() {
    let mut here = view("a", 0.5);
    let mut backend = (*here.backend).clone();
    let node = backend.node.as_mut().unwrap();
    node.disk_usd_per_hour = 0.01;
    node.replicas_per_node = 2.0;
    node.interruptions.work_lost = Duration::from_secs(60);
    backend.replicas.as_mut().unwrap().cold_start = Duration::from_secs(240);
    backend.egress_usd_per_gb = Some(0.12);
    here.backend = backend.into();
    here.interruptions.per_node_hour = 0.2;
    let Costing { unit, curve, .. } = cost_of(&here, 10_000.0).unwrap();
    // A node serves 2 x 10 x 3,600 = 72,000 requests an hour.
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    close(unit.compute, 0.5 / 72.0);
    close(unit.storage, 0.01 / 72.0);
    // 0.2 times an hour 300 s of a node that costs 0.51.
    close(unit.interruption, 0.2 * (300.0 / 3600.0) * 0.51 / 72.0);
    close(unit.egress, 0.0012);
    // Capacity is bought by the node, of two replicas.
    close(curve.step_rps, 20.0);
    close(unit.total(), unit.compute + unit.storage + unit.interruption + unit.egress);
}

#[test]
fn a_managed_replica_takes_the_place_of_a_node() {
    let mut here = view("a", 1.0);
    let mut backend = (*here.backend).clone();
    backend.node = None;
    backend.managed = Some(Managed { usd_per_replica_hour: 1.8, usd_per_request: 0.000_4 });
    here.backend = backend.into();
    let costing = cost_of(&here, 0.0).unwrap();
    // 1.8 USD over 36,000 requests, and 0.40 USD for 1,000 of them, which the paid minimum does not cover.
    assert!((costing.unit.managed - (0.05 + 0.4)).abs() < 1e-12);
    assert_eq!(costing.curve.step_rps, 10.0);
    assert!((costing.curve.always - 0.4).abs() < 1e-12 && (costing.curve.beyond - 0.05).abs() < 1e-12);
}

#[test]
fn tokens_divide_what_a_request_costs() {
    // 1 USD per 1,000 requests of 500 tokens is 2 USD per million tokens.
    assert_eq!(per_million_tokens(1.0, Some(500.0)), Some(2.0));
    assert_eq!(per_million_tokens(1.0, None), None);
    assert_eq!(per_million_tokens(1.0, Some(0.0)), None);
}

#[test]
fn what_bytes_cost_must_be_known() {
    let mut here = view("a", 1.0);
    let mut backend = (*here.backend).clone();
    backend.egress_usd_per_gb = None;
    here.backend = backend.into();
    assert_eq!(cost_of(&here, 1.0), Err(Missing::Egress));
}

/// A backend with every term, and the size of its responses.
fn any_backend() -> impl Strategy<Value = (BackendView, f64)> {
    let prices = (0.001..50.0, 0.001..50.0, 0.0..=1.0f64, 0.0..1.0, 0.0..2.0);
    let capacity = (0.01..200.0, 0u32..20, 0.1..8.0, 0u64..1200, 0u64..600, 0.0..5.0);
    let managed = prop::option::of((0.0..50.0, 0.0..0.01));
    (prices, capacity, managed, 0.0..1e8).prop_map(|(prices, capacity, managed, response_bytes)| {
        let (spot, on_demand, share, disk, egress) = prices;
        let (rps, min, per_node, cold_start, work_lost, interruptions) = capacity;
        let mut view = view("a", spot);
        view.on_demand = Some(price(on_demand));
        view.interruptions.per_node_hour = interruptions;
        let mut backend = (*view.backend).clone();
        let node = backend.node.as_mut().unwrap();
        node.spot = crate::model::Share::new(share).unwrap();
        node.disk_usd_per_hour = disk;
        node.replicas_per_node = per_node;
        node.interruptions.work_lost = Duration::from_secs(work_lost);
        let replicas = backend.replicas.as_mut().unwrap();
        (replicas.rps, replicas.min, replicas.cold_start) = (rps, min, Duration::from_secs(cold_start));
        backend.egress_usd_per_gb = Some(egress);
        backend.managed =
            managed.map(|(hour, request)| Managed { usd_per_replica_hour: hour, usd_per_request: request });
        view.backend = backend.into();
        (view, response_bytes)
    })
}

/// The same backend where everything that has a price costs `factor` times as much.
fn scaled(view: &BackendView, factor: f64) -> BackendView {
    let times = |price: &Price| Price {
        usd_per_hour: crate::model::UsdPerHour::new(price.usd_per_hour.get() * factor).unwrap(),
        ..price.clone()
    };
    let mut backend = (*view.backend).clone();
    backend.node.as_mut().unwrap().disk_usd_per_hour *= factor;
    backend.egress_usd_per_gb = backend.egress_usd_per_gb.map(|usd| usd * factor);
    if let Some(managed) = &mut backend.managed {
        managed.usd_per_replica_hour *= factor;
        managed.usd_per_request *= factor;
    }
    BackendView {
        backend: backend.into(),
        spot: view.spot.as_ref().map(times),
        on_demand: view.on_demand.as_ref().map(times),
        ..view.clone()
    }
}

proptest! {
    #[test]
    fn costs_are_finite_and_not_negative((view, bytes) in any_backend(), load in 0.0..1e6) {
        let Costing { unit, curve, .. } = cost_of(&view, bytes).unwrap();
        for (name, usd) in unit.terms() {
            prop_assert!(usd.is_finite() && usd >= 0.0, "{name}: {usd}");
        }
        for usd in [curve.usd_per_hour(load), curve.average(load), curve.marginal(load)] {
            prop_assert!(usd.is_finite() && usd >= 0.0, "{usd}");
        }
    }

    #[test]
    fn rising_load_never_lowers_the_marginal_cost(
        (view, bytes) in any_backend(), load in 0.0..1e4, more in 0.0..1e4,
    ) {
        let curve = cost_of(&view, bytes).unwrap().curve;
        prop_assert!(curve.marginal(load + more) >= curve.marginal(load));
        prop_assert!(curve.average(load + more) >= curve.average(load) * (1.0 - 1e-12));
        prop_assert!(curve.usd_per_hour(load + more) >= curve.usd_per_hour(load));
    }

    #[test]
    fn scaling_all_prices_scales_all_costs(
        (view, bytes) in any_backend(), factor in 0.01..100.0, load in 0.0..1e4,
    ) {
        let (once, times) = (cost_of(&view, bytes).unwrap(), cost_of(&scaled(&view, factor), bytes).unwrap());
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-12);
        for ((name, usd), (_, scaled)) in once.unit.terms().into_iter().zip(times.unit.terms()) {
            prop_assert!(close(usd * factor, scaled), "{name}: {usd} became {scaled}");
        }
        prop_assert!(close(once.curve.usd_per_hour(load) * factor, times.curve.usd_per_hour(load)));
    }
}
