//! Backends for the tests of this room.

use std::{sync::Arc, time::Duration};

use crate::model::{
    Backend, Cloud, Endpoint, Interruptions, Node, Platform, ProbeSpec, Protocol, Share, ZonePrice,
};

/// A backend in `aws`, `us-east-1`, all zones, on p3.2xlarge nodes, probed often at `/health`.
pub(super) fn backend(id: &str, scheme: &str, host: &str, port: u16) -> Arc<Backend> {
    Arc::new(Backend {
        id: id.parse().unwrap(),
        endpoint: Endpoint { tls: scheme == "https", host: host.into(), port },
        protocol: Protocol::Auto,
        ca: Vec::new(),
        cloud: Cloud::Aws,
        platform: Platform::Eks,
        region: "us-east-1".into(),
        zones: Vec::new(),
        zone_price: ZonePrice::Cheapest,
        node: Some(Node {
            instance_type: "p3.2xlarge".into(),
            spot: Share::ONE,
            replicas_per_node: 1.0,
            accelerator: None,
            disk_usd_per_hour: 0.0,
            interruptions: Interruptions::default(),
        }),
        replicas: None,
        managed: None,
        egress_usd_per_gb: Some(0.0),
        probe: ProbeSpec {
            path: Some("/health".into()),
            interval: Duration::from_millis(20),
            timeout: Duration::from_secs(10),
            rise: 1,
            fall: 1,
        },
        limit: None,
        ejection: None,
        auth: None,
        client_credentials: None,
        load: Default::default(),
    })
}
