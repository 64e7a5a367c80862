//! What the demo shows: three clusters, real prices, and a configuration like any user's.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use super::cluster::{ClusterSpec, Latency};
use crate::model::Timestamp;

/// Recorded prices; where they come from, and what was done to them, is in `config/demo/README.md`.
pub const PRICES_CSV: &str = include_str!("../../config/demo/prices.csv");
/// The name of the file with [`PRICES_CSV`], beside the configuration.
pub const PRICES_FILE: &str = "prices.csv";
/// Recorded requests; see `config/demo/README.md`.
pub const REQUESTS_CSV: &str = include_str!("../../config/demo/requests.csv");
/// The name of the model that the clusters pretend to serve.
pub const MODEL: &str = "demo-70b";
/// The route that all of the demo's traffic takes.
pub const ROUTE: &str = "chat";
/// How many recorded seconds of requests pass in one second.
pub const REQUESTS_SPEED: f64 = 20.0;
/// The part of the recorded output tokens that is asked for: one in so many.
pub const TOKENS_DIVISOR: u32 = 8;

const WINDOW_FROM: &str = "2021-03-15T00:00:00Z";
const WINDOW_UNTIL: &str = "2021-05-31T00:00:00Z";

/// What the reader must know about the data before believing the figures: one sentence a line.
pub const ALIGNMENT: [&str; 3] = [
    "Prices are real spot prices: AWS us-east-1a of March to May 2021; Google Cloud of 2024 and 2025, with all times shifted by \
     1,379 days to fall on the AWS ones. Machines, zone and shift were chosen so that something happens.",
    "Throughput is assumed, in the ratio of the nodes' GPU memory bandwidth; latency is synthetic; no model runs.",
    "The policy's waits are shortened to fit the replay: hold 1 s and ramp 4000%/m, where 10 min and 10%/m are usual.",
];

/// A cluster of the demo: how it behaves, and what its operator says about it.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Name of the backend.
    pub name: &'static str,
    /// `cloud` in the configuration.
    pub cloud: &'static str,
    /// `platform` in the configuration.
    pub platform: &'static str,
    /// The provider's region.
    pub region: &'static str,
    /// The zones of its node pool; empty for all.
    pub zones: &'static [&'static str],
    /// The machine under a replica.
    pub instance_type: &'static str,
    /// Requests per second that one node is assumed to serve.
    pub rps: f64,
    /// There and back.
    pub network: Latency,
    /// From the arrival of a request to its first token.
    pub first_token: Latency,
    /// From one token to the next.
    pub per_token: Latency,
}

const fn ms(micros: u64, spread: f64) -> Latency {
    Latency { median: Duration::from_micros(micros), spread }
}

/// The three clusters. The proxy stands near `us-east-1`; the networks differ accordingly. All latency is synthetic.
pub const CLUSTERS: [Cluster; 3] = [
    Cluster {
        name: "eks-us-east-1",
        cloud: "aws",
        platform: "eks",
        region: "us-east-1",
        zones: &["us-east-1a"],
        instance_type: "p3dn.24xlarge",
        rps: 4.0,
        network: ms(3_000, 0.2),
        first_token: ms(22_000, 0.35),
        per_token: ms(2_500, 0.3),
    },
    Cluster {
        name: "gke-us-central1",
        cloud: "gcp",
        platform: "gke",
        region: "us-central1",
        zones: &[],
        instance_type: "a3-highgpu-8g",
        rps: 14.9,
        network: ms(12_000, 0.2),
        first_token: ms(16_000, 0.35),
        per_token: ms(1_500, 0.3),
    },
    Cluster {
        name: "gke-europe-west4",
        cloud: "gcp",
        platform: "gke",
        region: "europe-west4",
        zones: &[],
        instance_type: "a3-highgpu-8g",
        rps: 14.9,
        network: ms(45_000, 0.1),
        first_token: ms(16_000, 0.35),
        per_token: ms(1_500, 0.3),
    },
];

impl Cluster {
    /// How its server behaves.
    pub fn spec(&self) -> ClusterSpec {
        ClusterSpec {
            model: MODEL.to_owned(),
            network: self.network,
            first_token: self.first_token,
            per_token: self.per_token,
        }
    }
}

/// The part of the recording that is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Its first moment.
    pub from: Timestamp,
    /// Its end. Prices hold beyond it as they are then.
    pub until: Timestamp,
}

impl Window {
    /// The window in which all prices of `config/demo/prices.csv` are known.
    pub fn recorded() -> Window {
        let moment = |text: &str| text.parse().expect("a literal time in RFC 3339");
        Window { from: moment(WINDOW_FROM), until: moment(WINDOW_UNTIL) }
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.until.duration_since(self.from).unsigned_abs()
    }

    /// The recorded moment that is shown `elapsed` after the start of the replay.
    pub fn at(&self, elapsed: Duration, speed: f64) -> Timestamp {
        let replayed = elapsed.mul_f64(speed).min(self.length());
        self.from.checked_add(replayed).unwrap_or(self.until)
    }
}

/// The configuration: what a user would write for these clusters, but for the waits. Its directory holds [`PRICES_FILE`].
///
/// `backends` holds the address of each of [`CLUSTERS`].
pub fn configuration(http: SocketAddr, admin: SocketAddr, backends: &[SocketAddr], speed: f64) -> String {
    let mut text = format!(
        r#"# Written by `tradewind demo`.

[listen]
http = "{http}"
expose_routing = true
drain_timeout = "10s"

[admin]
listen = "{admin}"

[state]
dir = "state"

[control]
tick = "200ms"

[prices]
sources = [{{ file = "{PRICES_FILE}", from = "{WINDOW_FROM}", speed = {speed:?} }}]
"#
    );
    for (cluster, address) in CLUSTERS.iter().zip(backends) {
        text.push_str(&backend_section(cluster, *address));
    }
    let names: Vec<_> = CLUSTERS.iter().map(|c| format!("{:?}", c.name)).collect();
    let _ = write!(
        text,
        r#"
[routes.{ROUTE}]
match = {{ path = "/v1/*" }}
backends = [{}]
policy = "default"
slo = {{ ttft_p95 = "800ms" }}

[policies.default]
rule = "threshold"
shift_at = "15%"
return_at = "5%"
hold = "1s"
ramp = "4000%/m"
keep_warm = "2%"
"#,
        names.join(", ")
    );
    text
}

fn backend_section(cluster: &Cluster, address: SocketAddr) -> String {
    let Cluster { name, cloud, platform, region, zones, instance_type, rps, .. } = cluster;
    let zones = match zones {
        [] => String::new(),
        some => format!("zones = {some:?}\n"),
    };
    format!(
        r#"
[backends.{name}]
url = "http://{address}"
cloud = "{cloud}"
platform = "{platform}"
region = "{region}"
{zones}probe = {{ path = "/health", interval = "500ms", fall = 3 }}
node = {{ instance_type = "{instance_type}", spot = "100%" }}
replicas = {{ min = 0, max = 100, rps = {rps:?}, cold_start = "1s" }}
"#
    )
}
