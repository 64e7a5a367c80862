//! The world as a whole.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    model::{Replicas, Rule, Share},
    plan::recording::Row,
    policy::worlds::{at, policy, view},
};

/// A site at a price that may change; no minimum, 10 requests a second a replica, no spot node is lost.
fn site(name: &str, steps: &[(f64, f64)]) -> Site {
    let mut backend = (*view(name, 1.0).backend).clone();
    backend.replicas = Some(Replicas { min: 0, max: 50, rps: 10.0, cold_start: Duration::from_secs(120) });
    Site {
        backend: Arc::new(backend),
        prices: NodePrices { spot: Course::new(steps.to_vec()), on_demand: Course::new(vec![(0.0, 3.0)]) },
        supply: None,
        interruptions: InterruptionRate::default(),
    }
}

/// So many minutes of 95 requests a second.
fn scenario(sites: Vec<Site>, minutes: usize) -> Scenario {
    let rows = [Row { offset_seconds: 0.0, requests: 5700.0, tokens: None }];
    Scenario {
        route: "chat".parse().unwrap(),
        slo: Some(Duration::from_secs(2)),
        policy: crate::model::Policy { rule: Rule::BreakEven { move_usd: 0.0 }, ..policy() },
        rules: RuleSet::default(),
        sites,
        demand: Demand::new(&rows, 60.0, 1.0, Some(minutes)).unwrap(),
        from: at(0),
        tick_seconds: 60.0,
        patience: Duration::from_secs(30),
        utilization: 0.8,
        response_bytes: 0.0,
    }
}

fn standing<'a>(report: &'a Report, name: &str) -> &'a Standing {
    report.policies.iter().find(|policy| policy.name == name).unwrap_or_else(|| panic!("{name} took part"))
}

#[test]
fn a_seed_gives_the_same_figures_and_another_one_others() {
    let two = scenario(vec![site("a", &[(0.0, 1.0), (3600.0, 2.0)]), site("b", &[(0.0, 1.3)])], 300);
    let figures = |seed| simulate(&two, &[seed], false, Vec::new()).policies;
    assert_eq!(figures(1), figures(1));
    assert_ne!(figures(1), figures(2));
}

#[test]
fn constant_traffic_costs_what_its_nodes_cost() {
    let one = scenario(vec![site("a", &[(0.0, 1.5)])], 600);
    let report = simulate(&one, &[1], false, Vec::new());
    let configured = standing(&report, "configured");
    // 95 a second at 10 each are 10 nodes, or 11 while chance has it; ten hours of them.
    assert!((149.9..=166.0).contains(&configured.usd_billed), "{configured:?}");
    assert_eq!((configured.refused, configured.moves_per_day), (0.0, 0.0));
    let on_demand = standing(&report, "on-demand");
    assert!((on_demand.usd_billed / standing(&report, "alone:a").usd_billed - 2.0).abs() < 1e-9);
}

#[test]
fn nothing_moves_where_nothing_is_to_be_saved() {
    let quiet = scenario(vec![site("a", &[(0.0, 1.0)]), site("b", &[(0.0, 1.05)])], 2000);
    let report = simulate(&quiet, &[1, 2], false, Vec::new());
    for name in ["configured", "threshold", "break-even", "saving-disruption"] {
        assert_eq!(standing(&report, name).moves_per_day, 0.0, "{name}");
    }
    let configured = standing(&report, "configured");
    assert!(configured.ratio_to_optimum < 1.01, "{configured:?}");
}

#[test]
fn a_lasting_gap_is_followed_and_the_optimum_is_no_dearer_than_anybody() {
    let cross = [(0.0, 1.0), (30_000.0, 2.0)];
    let crossing = scenario(vec![site("a", &cross), site("b", &[(0.0, 1.3)])], 1000);
    let report = simulate(&crossing, &[1, 2, 3], false, Vec::new());
    let configured = standing(&report, "configured");
    assert!(configured.moves_per_day > 1.0 && configured.moves_per_day < 2.0, "{configured:?}");
    assert!(configured.ratio_to_optimum < 1.05, "{configured:?}");
    assert!(configured.usd_billed < standing(&report, "alone:a").usd_billed);
    assert!(configured.usd_billed < standing(&report, "alone:b").usd_billed);
    for policy in &report.policies {
        // Only who is late or refuses can be cheaper, or another deployment.
        let served = policy.refused < 0.001 * report.requests && policy.over_slo < 0.05 * report.requests;
        if served && !["on-demand", "spothedge-like"].contains(&policy.name.as_str()) {
            assert!(policy.ratio_to_optimum > 1.0 - 1e-9, "{policy:?}");
        }
    }
    assert_eq!(standing(&report, "optimum").ratio_to_optimum, 1.0);
}

#[test]
fn a_cluster_that_loses_its_nodes_is_left_while_another_stands() {
    let mut lost = site("a", &[(0.0, 1.0)]);
    lost.supply = Some(Course::new(vec![(0.0, 50.0), (6000.0, 0.0)]));
    let report = simulate(&scenario(vec![lost, site("b", &[(0.0, 1.2)])], 400), &[1], false, Vec::new());
    let (configured, alone) = (standing(&report, "configured"), standing(&report, "alone:a"));
    assert!(alone.refused > 0.7 * report.requests, "{alone:?}");
    // Minutes of an outage, until the other side is warm.
    assert!(configured.refused < 0.02 * report.requests, "{configured:?}");
}

#[test]
fn spot_nodes_that_come_late_are_waited_for_elsewhere() {
    let mut scarce = site("a", &[(0.0, 1.0)]);
    // Enough for half of the load.
    scarce.supply = Some(Course::new(vec![(0.0, 6.0)]));
    let report = simulate(&scenario(vec![scarce, site("b", &[(0.0, 2.0)])], 600), &[1], false, Vec::new());
    let configured = standing(&report, "configured");
    assert!(configured.refused < 0.01 * report.requests, "{configured:?}");
    assert!(configured.usd_billed < standing(&report, "alone:b").usd_billed, "what is cheap is used");
}

#[test]
fn the_picture_is_whole() {
    let two = scenario(vec![site("a", &[(0.0, 1.0), (3600.0, 2.0)]), site("b", &[(0.0, 1.3)])], 300);
    let report = simulate(&two, &[1], true, Vec::new());
    let svg = plot::svg(&report.series, "a & b");
    assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("a &amp; b") && !svg.contains("NaN"));
    assert_eq!(svg.matches("fill-opacity").count(), 2, "an area for each backend");
}

#[test]
fn share_of_spot_is_bought_as_configured() {
    let mut half = site("a", &[(0.0, 1.0)]);
    let mut backend = (*half.backend).clone();
    backend.node.as_mut().unwrap().spot = Share::new(0.5).unwrap();
    half.backend = Arc::new(backend);
    let report = simulate(&scenario(vec![half], 600), &[1], false, Vec::new());
    // Of 10 replicas 5 at 1 and 5 at 3, beside 10 at 3.
    let mean = standing(&report, "configured").usd_billed / standing(&report, "on-demand").usd_billed;
    assert!((mean - 2.0 / 3.0).abs() < 0.01, "{mean}");
}

#[test]
fn rules_hold_in_a_simulation_too() {
    let mut two = scenario(vec![site("a", &[(0.0, 1.0)]), site("b", &[(0.0, 2.0)])], 100);
    let deny = crate::rules::CompiledRule::compile("no a", "backend.id == 'a'", crate::model::Effect::Deny);
    two.rules = RuleSet::new(vec![deny.unwrap()]);
    let report = simulate(&two, &[1], false, Vec::new());
    let billed = |name| standing(&report, name).usd_billed;
    assert!(billed("configured") > 1.9 * billed("alone:a"), "all of it goes where it is dear");
}
