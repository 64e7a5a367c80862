//! What the recorded prices make of the traffic: the same configuration, prices and decisions as in the demo, without
//! sockets and with a clock of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    scenario::{CLUSTERS, PRICES_CSV, PRICES_FILE, Window, configuration},
    workspace::Workspace,
};
use crate::{
    config::{self, Settings},
    model::{Action, BackendView, Health, Live, LoadReport, Route, Share, Snapshot, Timestamp},
    policy::{self, State},
    signals::prices::{PriceBook, PriceFeed},
};

const TICK: Duration = Duration::from_millis(200);

fn settings(workspace: &Workspace, speed: f64) -> Settings {
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let backends: Vec<_> = (0..).take(CLUSTERS.len()).map(|n| address(9_000 + n)).collect();
    let text = configuration(address(0), address(0), &backends, speed);
    workspace.write(PRICES_FILE, PRICES_CSV).expect("room for a file");
    let path = workspace.write("tradewind.toml", &text).expect("room for a file");
    let loaded = config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    loaded.settings
}

fn snapshot(settings: &Settings, route: &Route, book: &PriceBook, now: Timestamp) -> Snapshot {
    let backends = settings.backends.iter().map(|backend| {
        let (spot, on_demand) = book.view(backend, now);
        BackendView {
            backend: backend.clone(),
            spot,
            on_demand,
            interruptions: Default::default(),
            health: Health::Healthy,
            probe: None,
            live: Live::default(),
            load: LoadReport::default(),
            ejected: None,
            leaving: Share::ZERO,
            load_elsewhere_rps: 0.0,
            resolved: true,
        }
    });
    Snapshot {
        at: now,
        route: route.id.clone(),
        slo: route.slo.clone(),
        demand_rps: 104.0,
        response_bytes: Some(6_500.0),
        backends: backends.collect(),
        overrides: Vec::new(),
        rulings: Default::default(),
    }
}

/// Every move of a demo that takes `duration`: recorded day, verb, receiver.
fn moves(duration: Duration) -> Vec<(String, &'static str, String)> {
    let window = Window::recorded();
    let speed = window.length().as_secs_f64() / duration.as_secs_f64();
    let workspace = Workspace::create().expect("a directory");
    let settings = settings(&workspace, speed);
    let route = settings.routes.first().expect("a route");
    let began: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a valid time");

    let prices = settings.prices.clone();
    let book = Arc::new(std::sync::Mutex::new(PriceBook::new(&prices)));
    let mut feed = PriceFeed::new(&prices, &settings.backends, book.clone(), began);
    let (mut state, mut found, mut now) = (State::default(), Vec::new(), began);
    while now < began + duration {
        feed.load_now(now);
        let snapshot = snapshot(&settings, route, &book.lock().expect("no panic"), now);
        assert!(snapshot.backends.iter().all(|b| b.spot.is_some()), "a price is missing at {now}");
        let decision;
        (decision, state) = policy::decide(&route.policy, &snapshot, &state, now);
        if decision.action != Action::Stay {
            let elapsed = Duration::try_from(now.duration_since(began)).expect("time goes forward");
            let day = window.at(elapsed, speed).strftime("%m-%d").to_string();
            let to = (0..settings.backends.len()).max_by(|a, b| state.plan[*a].total_cmp(&state.plan[*b]));
            let to = to.map(|n| settings.backends[n].id.to_string()).unwrap_or_default();
            found.push((day, decision.action.as_str(), to));
        }
        now += TICK;
    }
    found
}

#[test]
fn the_recorded_prices_move_the_traffic_three_times() {
    for seconds in [20, 60, 120] {
        let found = moves(Duration::from_secs(seconds));
        let path: Vec<_> = found.iter().map(|(_, verb, to)| (*verb, to.as_str())).collect();
        let expected = [
            ("place", "eks-us-east-1"),
            ("shift", "gke-us-central1"),
            ("return", "eks-us-east-1"),
            ("shift", "gke-europe-west4"),
        ];
        assert_eq!(path, expected, "in {seconds} s: {found:?}");
    }
}
