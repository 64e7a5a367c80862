//! Small worlds for tests: a few backends, their prices, one clock.

use std::{sync::Arc, time::Duration};

use crate::model::{
    Backend, BackendId, BackendView, Cloud, Decision, Endpoint, Health, InterruptionRate, Interruptions,
    Live, LoadReport, Node, Override, OverrideKind, Platform, Policy, Price, PriceState, ProbeSpec, Protocol,
    Ramp, Replicas, Rule, Share, Slo, Snapshot, Timestamp, UsdPerHour, ZonePrice,
};

use super::{State, decide};

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

pub(crate) fn id(name: &str) -> BackendId {
    name.parse().unwrap()
}

pub(crate) fn price(usd: f64) -> Price {
    Price {
        usd_per_hour: UsdPerHour::new(usd).unwrap(),
        source: "test".into(),
        observed_at: at(0),
        fetched_at: at(0),
        state: PriceState::Fresh,
        note: None,
    }
}

/// A healthy backend on spot nodes at `usd` an hour, 10 requests a second a replica, no paid minimum, no egress.
pub(crate) fn view(name: &str, usd: f64) -> BackendView {
    let backend = Backend {
        id: id(name),
        endpoint: Endpoint { tls: false, host: "127.0.0.1".into(), port: 80 },
        protocol: Protocol::Auto,
        tls: Default::default(),
        cloud: Cloud::Other,
        platform: Platform::Other,
        region: "r".into(),
        zones: Vec::new(),
        zone_price: ZonePrice::Cheapest,
        node: Some(Node {
            instance_type: "n".into(),
            spot: Share::ONE,
            replicas_per_node: 1.0,
            accelerator: None,
            disk_usd_per_hour: 0.0,
            interruptions: Interruptions::default(),
        }),
        replicas: Some(Replicas { min: 0, max: 100, rps: 10.0, cold_start: Duration::ZERO }),
        managed: None,
        egress_usd_per_gb: Some(0.0),
        probe: ProbeSpec {
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 2,
        },
        limit: None,
        ejection: None,
        auth: None,
        client_credentials: None,
        load: Default::default(),
    };
    BackendView {
        backend: Arc::new(backend),
        spot: Some(price(usd)),
        on_demand: None,
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
}

/// The policy of the documentation, with a ramp that is done within ten seconds.
pub(crate) fn policy() -> Policy {
    Policy {
        id: "default".parse().unwrap(),
        rule: Rule::Threshold { shift_at: Share::new(0.15).unwrap(), return_at: Share::new(0.05).unwrap() },
        hold: Duration::from_secs(600),
        ramp: Ramp::new(0.1, Duration::from_secs(1)).unwrap(),
        slow_start: Duration::ZERO,
        keep_warm: Share::ZERO,
        n_minus_one: None,
    }
}

/// A world that is decided about once a second.
pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) snapshot: Snapshot,
    pub(crate) state: State,
    pub(crate) now: i64,
}

impl World {
    /// Backends by name and spot price, 50 requests a second.
    pub(crate) fn new(backends: &[(&str, f64)]) -> World {
        let snapshot = Snapshot {
            at: at(0),
            route: "chat".parse().unwrap(),
            slo: Slo::default(),
            demand_rps: 50.0,
            response_bytes: None,
            backends: backends.iter().map(|(name, usd)| view(name, *usd)).collect(),
            overrides: Vec::new(),
            rulings: Default::default(),
        };
        World { policy: policy(), snapshot, state: State::default(), now: 0 }
    }

    pub(crate) fn view_mut(&mut self, name: &str) -> &mut BackendView {
        self.snapshot.backends.iter_mut().find(|v| v.backend.id == id(name)).unwrap()
    }

    /// Changes what the operator says about a backend.
    pub(crate) fn configure(&mut self, name: &str, change: impl FnOnce(&mut Backend)) {
        let view = self.view_mut(name);
        let mut backend = (*view.backend).clone();
        change(&mut backend);
        view.backend = Arc::new(backend);
    }

    pub(crate) fn set_price(&mut self, name: &str, usd: f64) {
        self.view_mut(name).spot = Some(price(usd));
    }

    pub(crate) fn set_health(&mut self, name: &str, health: Health) {
        self.view_mut(name).health = health;
    }

    pub(crate) fn impose(&mut self, kind: OverrideKind, backend: Option<&str>, share: Option<f64>) {
        self.snapshot.overrides.push(Override {
            id: format!("{kind}-1"),
            kind,
            route: None,
            backend: backend.map(id),
            share: share.and_then(Share::new),
            reason: "test".into(),
            author: "oncall".into(),
            created_at: at(self.now),
            expires_at: at(self.now + 3600),
        });
    }

    /// The next decision, a second after the last.
    pub(crate) fn tick(&mut self) -> Decision {
        self.now += 1;
        self.snapshot.at = at(self.now);
        let (decision, state) = decide(&self.policy, &self.snapshot, &self.state, at(self.now));
        self.state = state;
        decision
    }

    /// The decision after `seconds` more of them.
    pub(crate) fn run(&mut self, seconds: usize) -> Decision {
        (1..seconds).for_each(|_| drop(self.tick()));
        self.tick()
    }

    pub(crate) fn share(&self, name: &str) -> f64 {
        let place = self.state.backends.iter().position(|b| *b == id(name)).unwrap();
        self.state.shares[place]
    }
}
