//! A day without a network, in virtual time: prices age, the stated fallback is taken, and no traffic moves for it.

use std::sync::Arc;

use tradewind::{
    config,
    model::{
        Backend, BackendView, Cloud, Decision, Health, InterruptionRate, Live, LoadReport, Offer, PriceState,
        Route, Share, Snapshot, Timestamp,
    },
    policy::{self, State},
    signals::prices::{FeedFault, PriceBook, PriceKey, Quote},
};

/// Two clouds at recorded prices: on demand and as spot capacity.
const CONFIG: &str = r#"
[prices]
sources = ["aws", "gcp"]
refresh = "5m"
stale_after = "2h"
[backends.eks]
url = "https://eks.example.com"
cloud = "aws"
region = "us-east-1"
node = { instance_type = "g4dn.2xlarge", spot = "90%" }
replicas = { max = 100, rps = 10, cold_start = "3m" }
[backends.gke]
url = "https://gke.example.com"
cloud = "gcp"
region = "us-central1"
node = { instance_type = "g2-standard-8", spot = "90%" }
replicas = { max = 100, rps = 10, cold_start = "3m" }
[routes.chat]
match = { path = "/*" }
backends = ["eks", "gke"]
"#;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_761_955_200 + second).expect("a time")
}

struct World {
    settings: config::Settings,
    book: PriceBook,
    state: State,
}

impl World {
    fn new() -> World {
        let loaded = config::parse(CONFIG, std::path::Path::new("t.toml"));
        let settings = loaded.unwrap_or_else(|faults| panic!("{faults}")).settings;
        let book = PriceBook::new(&settings.prices);
        World { settings, book, state: State::default() }
    }

    fn backend(&self, id: &str) -> &Arc<Backend> {
        self.settings.backends.iter().find(|backend| backend.id.as_str() == id).expect("it is configured")
    }

    /// The provider of `id` says what its node costs.
    fn says(&mut self, id: &str, spot: f64, on_demand: f64, second: i64) {
        let backend = self.backend(id).clone();
        let node = backend.node.as_ref().expect("it has a node");
        let quote = |offer, usd_per_hour| Quote {
            key: PriceKey {
                cloud: backend.cloud,
                region: backend.region.as_str().into(),
                zone: None,
                instance_type: node.priced_as().into(),
                offer,
            },
            at: at(second),
            usd_per_hour,
        };
        let quotes = vec![quote(Offer::Spot, spot), quote(Offer::OnDemand, on_demand)];
        self.book.apply(&source(backend.cloud), Ok(quotes).into(), at(second));
    }

    /// Nobody can be reached.
    fn silence(&mut self, second: i64) {
        for cloud in [Cloud::Aws, Cloud::Gcp] {
            let fault = FeedFault(format!("{cloud}: no answer in time"));
            self.book.apply(&source(cloud), Err(fault).into(), at(second));
        }
    }

    fn decide(&mut self, second: i64) -> (Snapshot, Decision) {
        let route: &Route = &self.settings.routes[0];
        let view = |backend: &Arc<Backend>| {
            let (spot, on_demand) = self.book.view(backend, at(second));
            BackendView {
                backend: backend.clone(),
                spot,
                on_demand,
                interruptions: InterruptionRate::default(),
                health: Health::Healthy,
                probe: None,
                live: Live::default(),
                load: LoadReport::default(),
                ejected: None,
                leaving: Share::ZERO,
                load_elsewhere_rps: 0.0,
                resolved: true,
            }
        };
        let snapshot = Snapshot {
            at: at(second),
            route: route.id.clone(),
            slo: route.slo.clone(),
            demand_rps: 200.0,
            response_bytes: Some(4096.0),
            backends: self.settings.backends.iter().map(view).collect(),
            overrides: Vec::new(),
            rulings: Default::default(),
        };
        let (decision, next) = policy::decide(&route.policy, &snapshot, &self.state, at(second));
        self.state = next;
        (snapshot, decision)
    }
}

fn source(cloud: Cloud) -> Arc<str> {
    cloud.to_string().into()
}

fn shares(decision: &Decision) -> Vec<f64> {
    decision.backends.iter().map(|verdict| verdict.share).collect()
}

#[test]
fn a_day_without_a_network_changes_no_share() {
    let mut world = World::new();
    world.says("eks", 0.2256, 0.752, 0);
    world.says("gke", 0.279952, 0.853624, 0);
    let before = shares(&world.decide(0).1);
    assert_eq!(before, [1.0, 0.0]);
    let mut fell_back_at = None;
    for second in (MINUTE..=24 * HOUR).step_by(MINUTE as usize) {
        if second % (5 * MINUTE) == 0 {
            world.silence(second);
        }
        let (snapshot, decision) = world.decide(second);
        assert_eq!(shares(&decision), before, "after {second} s");
        for view in &snapshot.backends {
            let (spot, on_demand) =
                (view.spot.as_ref().expect("a price"), view.on_demand.as_ref().expect("a price"));
            assert_eq!(
                at(second).duration_since(on_demand.fetched_at).as_secs(),
                second,
                "the age is visible"
            );
            let expected = match second <= 2 * HOUR {
                true => (PriceState::Fresh, PriceState::Fresh),
                false => (PriceState::Fallback, PriceState::Stale),
            };
            assert_eq!((spot.state, on_demand.state), expected, "after {second} s");
            if spot.state == PriceState::Fallback {
                fell_back_at.get_or_insert(second);
                assert_eq!(spot.usd_per_hour, on_demand.usd_per_hour);
                assert!(spot.note.as_ref().is_some_and(|note| note.contains("stands in")), "{spot:?}");
            }
        }
    }
    assert_eq!(fell_back_at, Some(2 * HOUR + MINUTE));
    assert!(world.book.faults().iter().all(|feed| feed.fault.is_some() && feed.last_good == Some(at(0))));

    // The network is back, and what happened meanwhile counts: on AWS spot nodes are dearer than on demand.
    let back = 24 * HOUR + MINUTE;
    world.says("eks", 0.9, 0.752, back);
    world.says("gke", 0.279952, 0.853624, back);
    let moved = (back..back + 2 * HOUR).step_by(MINUTE as usize).any(|second| {
        if second % (5 * MINUTE) == 0 {
            world.says("eks", 0.9, 0.752, second);
            world.says("gke", 0.279952, 0.853624, second);
        }
        shares(&world.decide(second).1) == [0.0, 1.0]
    });
    assert!(moved, "{:?}", world.decide(back + 2 * HOUR).1.reason);
}

#[test]
fn a_provider_that_falls_silent_attracts_no_traffic() {
    // Each in turn falls silent, while the other stays as it is, or becomes twice as dear.
    for (silent, place, factor) in [("eks", 0, 1.0), ("gke", 1, 1.0), ("gke", 1, 2.0)] {
        let mut world = World::new();
        world.says("eks", 0.2256, 0.752, 0);
        world.says("gke", 0.279952, 0.853624, 0);
        let mut before = shares(&world.decide(0).1);
        for second in (MINUTE..=24 * HOUR).step_by(MINUTE as usize) {
            // Later than it could be a reason while the silent one was still believed.
            let factor = if second > 3 * HOUR { factor } else { 1.0 };
            match silent {
                "eks" => world.says("gke", 0.279952 * factor, 0.853624 * factor, second),
                _ => world.says("eks", 0.2256 * factor, 0.752 * factor, second),
            }
            let now = shares(&world.decide(second).1);
            assert!(now[place] <= before[place], "{silent} gained at {second} s: {before:?}, then {now:?}");
            before = now;
        }
    }
}
