//! Routes and backends for benchmarks: as many as asked for.

use std::{sync::Arc, time::Duration};

use tradewind::model::{
    Backend, Cloud, Endpoint, HostPattern, Node, PathPattern, Platform, Policy, ProbeSpec, Protocol, Ramp,
    Replicas, Route, RouteMatch, Rule, Share, Slo,
};

/// Backend number `n`, at an address that nobody connects to.
pub fn backend(n: usize) -> Arc<Backend> {
    Arc::new(Backend {
        id: format!("backend-{n}").parse().expect("a valid name"),
        endpoint: Endpoint { tls: false, host: "127.0.0.1".into(), port: 8000 },
        protocol: Protocol::Auto,
        tls: Default::default(),
        cloud: Cloud::Other,
        platform: Platform::Other,
        region: format!("region-{}", n % 5),
        zones: Vec::new(),
        node: Some(Node {
            instance_type: "n".into(),
            spot: Share::ONE,
            replicas_per_node: 1.0,
            accelerator: None,
            disk_usd_per_hour: 0.0,
            interruptions: Default::default(),
        }),
        replicas: Some(Replicas { min: 2, max: 100, rps: 10.0, cold_start: Duration::from_secs(60) }),
        managed: None,
        zone_price: Default::default(),
        egress_usd_per_gb: Some(0.09),
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
    })
}

/// The policy of the documentation.
pub fn policy() -> Arc<Policy> {
    let share = |value| Share::new(value).expect("a share");
    Arc::new(Policy {
        id: "default".parse().expect("a valid name"),
        rule: Rule::Threshold { shift_at: share(0.15), return_at: share(0.05) },
        hold: Duration::from_secs(600),
        ramp: Ramp::new(0.1, Duration::from_secs(60)).expect("a ramp"),
        slow_start: Duration::ZERO,
        keep_warm: share(0.02),
        n_minus_one: None,
    })
}

/// Route number `n`, by path, over the given backends.
pub fn route(n: usize, backends: &[Arc<Backend>]) -> Arc<Route> {
    Arc::new(Route {
        id: format!("route-{n}").parse().expect("a valid name"),
        matches: RouteMatch {
            host: HostPattern::Any,
            path: PathPattern::Prefix(format!("/model-{n}/v1")),
            models: Vec::new(),
            headers: Vec::new(),
        },
        aliases: Default::default(),
        backends: backends.iter().map(|backend| backend.id.clone()).collect(),
        policy: policy(),
        slo: Slo::default(),
        shadow: Vec::new(),
        retry: Default::default(),
        priority: Default::default(),
        hedge: None,
        silence_timeout: None,
        affinity: None,
        tokens_per_request: None,
    })
}
