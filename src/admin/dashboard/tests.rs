//! What is drawn from a board that no small installation has.

use std::sync::Arc;

use super::live;
use crate::admin::{
    Desk,
    board::{Board, InFull, Move, Point, Sample, Signal, Trend, in_full},
    fake::FakeDesk,
    views::BackendStatus,
};

/// A board of many routes, each with six backends and a full memory.
fn crowded(routes: usize, only: &str) -> Board {
    let desk = FakeDesk::default();
    let mut board = desk.board("");
    let name = |of: &str, index: usize| format!("{of}-{index}").parse().unwrap();
    let backend = |index: usize| -> BackendStatus {
        serde_json::from_value(serde_json::json!({
            "backend": format!("backend-{index}"), "share": 1.0 / 6.0, "target_share": 1.0 / 6.0, "health": "healthy",
            "in_flight": 3, "rps": 11.1, "latency_p95_seconds": 0.34, "unit_cost_usd_per_1k": 0.0133,
            "unit_cost": {"compute": 0.0124, "storage": 0.0, "interruption": 0.0, "egress": 0.0009, "managed": 0.0}
        }))
        .unwrap()
    };
    let at = |second: usize| board.at - std::time::Duration::from_secs(second as u64 * 120);
    let samples = (0..720)
        .rev()
        .map(|index| Sample { at: at(index), points: (0..6).map(|place| wavy(index * 7 + place)).collect() });
    let trend = Trend {
        backends: (0..6).map(|index| name("backend", index)).collect::<Vec<_>>().into(),
        samples: samples.collect(),
        spacing_seconds: 120.0,
    };
    let reason = "gke-usc1 is cheaper than eks-use1 by 18%, which reaches the threshold of 15%";
    let moves = (0..200).map(|index| Move {
        at: at(index),
        route: name_of(index % 4),
        action: crate::model::Action::Shift,
        reason: reason.into(),
    });
    board.moves = moves.collect();
    let mut status = board.status.routes.remove(0);
    status.backends = (0..6).map(backend).collect();
    status.reason = reason.into();
    let explanation = board.full.remove(0).explanation;
    board.status.routes = (0..routes)
        .map(|index| crate::admin::views::RouteStatus { route: name_of(index), ..status.clone() })
        .collect();
    let full = in_full(&board.status.routes, only).into_iter();
    let (explanation, trend) = (&explanation, &trend);
    let shown = full.map(|place| InFull { place, explanation: explanation.clone(), trend: trend.clone() });
    board.full = shown.collect();
    let price = serde_json::from_value(serde_json::json!({
        "backend": "backend-1", "instance_type": "g5.2xlarge", "region": "us-east-1", "zone": "us-east-1a", "offer": "spot",
        "usd_per_hour": 0.5361, "source": "aws", "observed_at": "2026-03-02T09:00:00Z",
        "fetched_at": "2026-03-02T09:59:30Z", "state": "stale", "note": "its source is silent for 3 h"
    }));
    board.prices = vec![price.unwrap(); 1_000];
    let signal = Signal {
        kind: "probe",
        name: "backend-1".into(),
        says: "unhealthy".into(),
        age_seconds: Some(3.0),
        fault: Some("connection refused".into()),
    };
    board.signals = vec![signal; 1_000];
    board
}

fn name_of(index: usize) -> crate::model::RouteId {
    format!("route-{index}").parse().unwrap()
}

/// Different at every place, unknown at some.
fn wavy(index: usize) -> Point {
    let value = ((index as f32 * 0.37).sin() + 1.0) / 2.0;
    let known = !index.is_multiple_of(11);
    let value_of = known.then_some(value);
    Point {
        share: value / 3.0,
        usd_per_1k: value_of,
        p95_seconds: value_of,
        spot_usd_per_hour: value_of,
        on_demand_usd_per_hour: value_of,
    }
}

#[test]
fn the_page_stays_small_however_much_there_is() {
    let frame = super::STYLE.len() + super::SCRIPT.len() + 8_000;
    for routes in [1, 4, 1_000] {
        let size = live::render(&crowded(routes, ""), true, "").len() + frame;
        assert!(size < 100_000, "{routes} routes make {size} bytes");
    }
    let one = live::render(&crowded(1_000, "route-999"), true, "route-999");
    assert!(one.contains("id=\"route-route-999\"") && !one.contains("id=\"route-route-0\""));
}

#[test]
fn a_line_is_not_drawn_through_what_is_not_known() {
    let mut board = crowded(1, "");
    board.status.routes[0].backends.truncate(1);
    let backends: Arc<[_]> = board.full[0].trend.backends[..1].into();
    let at = |seconds: u64| board.at - std::time::Duration::from_secs(seconds);
    let sample = |ago: u64, usd: Option<f32>| Sample {
        at: at(ago),
        points: Arc::new([Point {
            share: 1.0,
            usd_per_1k: usd,
            p95_seconds: None,
            spot_usd_per_hour: usd,
            on_demand_usd_per_hour: None,
        }]),
    };
    let samples = vec![sample(60, Some(1.0)), sample(40, None), sample(20, Some(2.0))];
    board.full[0].trend = Trend { backends, samples, spacing_seconds: 20.0 };
    board.moves.clear();
    let html = live::render(&board, false, "");
    let costs = html.split("One more request").nth(1).unwrap();
    let line = costs.split("fill=\"none\"").next().unwrap().rsplit("d=\"").next().unwrap().to_owned();
    assert_eq!(line.matches('M').count(), 2, "{line}");
    assert!(html.contains("n/a: nothing is known in this time."), "no latency is not a latency of 0");
}
