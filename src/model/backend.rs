//! What the operator says about a backend.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AuthSpec, BackendId, KeyPair, Offer, Share};

/// Where a backend's nodes are billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// Amazon Web Services.
    Aws,
    /// Google Cloud.
    Gcp,
    /// Anything else; prices come from files.
    Other,
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cloud::Aws => "aws",
            Cloud::Gcp => "gcp",
            Cloud::Other => "other",
        })
    }
}

/// What runs the replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are those of the products")]
pub enum Platform {
    Eks,
    Gke,
    Fargate,
    CloudRun,
    VertexAi,
    #[serde(rename = "sagemaker")]
    SageMaker,
    #[default]
    Other,
}

impl Platform {
    /// As the configuration and rules spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Platform::Eks => "eks",
            Platform::Gke => "gke",
            Platform::Fargate => "fargate",
            Platform::CloudRun => "cloud-run",
            Platform::VertexAi => "vertex-ai",
            Platform::SageMaker => "sagemaker",
            Platform::Other => "other",
        }
    }
}

/// Which HTTP versions are spoken to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1 over plain text; over TLS whatever ALPN agrees on, HTTP/2 preferred.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; over plain text with prior knowledge (h2c).
    Http2,
}

/// The address part of a backend's URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// TLS, verified against the name in `host`.
    pub tls: bool,
    /// DNS name or IP address (IPv6 without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// `host` or `host:port`, as the `Host` header has it.
    pub fn authority(&self) -> String {
        let default_port = if self.tls { 443 } else { 80 };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// The machine under a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The provider's name of the machine, `g5.2xlarge`.
    pub instance_type: String,
    /// Part of the nodes bought as spot or preemptible capacity.
    pub spot: Share,
    /// Replicas that share one node.
    pub replicas_per_node: f64,
    /// Accelerators that are attached to the machine and billed apart from it (`n1` with T4 on Google Cloud).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Accelerator>,
    /// What the node's disks cost, in USD for an hour of the node: they come and go with it.
    #[serde(default)]
    pub disk_usd_per_hour: f64,
    /// How often spot nodes are taken back, and what that costs.
    #[serde(default)]
    pub interruptions: Interruptions,
}

impl Node {
    /// Name under which its price is kept and found: the machine, and what is attached to it, `n1-standard-8+1xnvidia-tesla-t4`.
    pub fn priced_as(&self) -> Cow<'_, str> {
        match &self.accelerator {
            None => Cow::Borrowed(&self.instance_type),
            Some(Accelerator { kind, count }) => Cow::Owned(format!("{}+{count}x{kind}", self.instance_type)),
        }
    }
}

/// Accelerators attached to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accelerator {
    /// The provider's name of it, `nvidia-tesla-t4`.
    pub kind: String,
    /// How many of them.
    pub count: u32,
}

/// How often a provider takes spot nodes back, and what is lost then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interruptions {
    /// Interruptions in an hour of one spot node; `None` to learn it from notices.
    pub per_node_hour: Option<f64>,
    /// Time of the node whose work has to be done again, beside the cold start of its successor.
    pub work_lost: Duration,
}

/// Which of its zones' spot prices a backend pays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZonePrice {
    /// The lowest: the autoscaler buys where it is cheapest.
    #[default]
    Cheapest,
    /// The mean: nodes are spread evenly.
    Mean,
    /// The highest: nobody says where nodes are bought.
    Dearest,
}

/// What a managed platform charges for replicas, in place of a node's price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Managed {
    /// An hour of one replica, in USD.
    pub usd_per_replica_hour: f64,
    /// Each request on top, in USD, also within the paid minimum.
    pub usd_per_request: f64,
}

/// How much a backend can serve, and how fast it grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Replicas {
    /// Replicas that run, and are paid, whatever the load.
    pub min: u32,
    /// Replicas that the autoscaler never exceeds.
    pub max: u32,
    /// Requests per second that one replica serves within the objective.
    pub rps: f64,
    /// From the wish for a replica to its first answer.
    pub cold_start: Duration,
}

impl Replicas {
    /// Requests per second with `count` replicas.
    pub fn capacity_rps(&self, count: u32) -> f64 {
        f64::from(count) * self.rps
    }
}

/// How a backend's health is probed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// Path for a GET that must answer 2xx; without it a TCP connection (and TLS handshake) is enough.
    pub path: Option<String>,
    /// From one probe to the next, jittered by up to a tenth.
    pub interval: Duration,
    /// A probe that takes longer has failed.
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy backend healthy.
    pub rise: u32,
    /// Failures in a row that make a healthy backend unhealthy.
    pub fall: u32,
}

/// How many requests may be under way at a backend, and how many may wait for a place there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitSpec {
    /// Requests under way, of all routes.
    pub max_in_flight: u64,
    /// Requests that wait.
    pub max_waiting: u64,
    /// How long one waits at most.
    pub wait_timeout: Duration,
}

/// When a backend gets no requests for a while because too many of them fail, or it is far slower than others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EjectionSpec {
    /// Failures in a row.
    pub consecutive: u32,
    /// Part of the requests in `window`.
    pub error_rate: Share,
    /// Requests in `window` below which no part of them says anything.
    pub min_requests: u64,
    /// How far back the part is looked at.
    pub window: Duration,
    /// How long it gets no requests the first time; each time in a row it doubles.
    pub time: Duration,
    /// How long at most.
    pub time_max: Duration,
    /// Part of a route's backends that may be out so at once.
    pub max_ejected: Share,
    /// When it goes out for being slower than the others; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<OutlierSpec>,
}

/// When a backend is far slower than the other backends of a route: its median time to first byte against theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutlierSpec {
    /// How many times theirs; above 1.
    pub factor: f64,
    /// How much more than theirs at least.
    pub margin: Duration,
    /// Answers in `window`, its own and those of each of the others, below which a median says nothing.
    pub min_requests: u64,
    /// How far back is looked.
    pub window: Duration,
}

/// Where something is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Url {
    /// Whom to ask.
    pub endpoint: Endpoint,
    /// Path, with or without a query; begins with `/`.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.endpoint, self.path)
    }
}

/// The metrics of a backend's own server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsSource {
    /// Where they are read.
    pub url: Url,
    /// Whether they are those of one replica, whichever a load balancer chose, and not of all of them.
    pub of_one_replica: bool,
}

/// What a Prometheus server is asked about a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromqlSource {
    /// The server; its path stands before `/api/v1/query`.
    pub server: Url,
    /// Expression for the number of ready replicas.
    pub ready: Option<String>,
    /// Expression for the number of requests that wait, over all replicas.
    pub queued: Option<String>,
    /// Expression for the part of the scarcest resource in use, 0 to 1.
    pub saturation: Option<String>,
}

/// Where it is read what a backend says of its own load. Of two that say the same, the first in this order counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// A Prometheus server that knows it.
    pub promql: Option<PromqlSource>,
    /// Its own metrics.
    pub metrics: Option<MetricsSource>,
    /// Whether its answers carry ORCA reports.
    pub orca: bool,
    /// From one question to the next, jittered by up to a tenth.
    pub interval: Duration,
}

impl LoadSpec {
    /// Whether anything is read.
    pub fn is_read(&self) -> bool {
        self.promql.is_some() || self.metrics.is_some() || self.orca
    }

    /// Age from which a report is no report: a few questions may fail, and answers may be late, before what was said last is
    /// forgotten.
    pub fn report_age_max(&self) -> Duration {
        self.interval.saturating_mul(3).max(Duration::from_secs(15))
    }
}

/// How a backend's TLS is verified, and what it is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendTls {
    /// Certificates (DER) that its certificate must chain to; empty for the system's roots.
    pub ca: Vec<Vec<u8>>,
    /// The name that it is asked for and its certificate must be for; `None` for the host of its URL.
    pub server_name: Option<String>,
    /// The certificate that it is shown; `None` for none.
    pub client: Option<Arc<KeyPair>>,
}

/// What becomes of the headers by which a client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCredentials {
    /// The backend sees them.
    Pass,
    /// They are taken out.
    Strip,
}

/// One deployment of the model in one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name.
    pub id: BackendId,
    /// Where it is reached.
    pub endpoint: Endpoint,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// How its TLS is verified, and what it is shown.
    #[serde(skip)]
    pub tls: BackendTls,
    /// Who bills it.
    pub cloud: Cloud,
    /// What runs it.
    pub platform: Platform,
    /// The provider's region.
    pub region: String,
    /// Availability zones its nodes run in; empty for all of the region.
    pub zones: Vec<String>,
    /// Which of the zones' spot prices it pays.
    #[serde(default)]
    pub zone_price: ZonePrice,
    /// The machine under a replica; without it the backend's compute cost is unknown.
    pub node: Option<Node>,
    /// Its capacity; without it the backend's compute cost is unknown.
    pub replicas: Option<Replicas>,
    /// What its platform charges for replicas, if that is not by the node.
    #[serde(default)]
    pub managed: Option<Managed>,
    /// What a GB (10^9 bytes) sent on the whole way to the client costs, in USD; `None` if no table knows, and then the
    /// backend's cost is unknown.
    pub egress_usd_per_gb: Option<f64>,
    /// How its health is probed.
    pub probe: ProbeSpec,
    /// How much it is asked at once; `None` for no limit.
    #[serde(default)]
    pub limit: Option<LimitSpec>,
    /// When it gets no requests because too many of them fail, or it is far slower than others; `None` for never.
    #[serde(default)]
    pub ejection: Option<EjectionSpec>,
    /// Where its own report of its load is read.
    #[serde(default)]
    pub load: LoadSpec,
    /// What it is shown of who Tradewind is. Of no matter to decisions, so no record of them has it.
    #[serde(skip)]
    pub auth: Option<AuthSpec>,
    /// Whether it sees the credentials and cookies of clients; `None` for what is safe by the rest of the configuration.
    #[serde(default)]
    pub client_credentials: Option<ClientCredentials>,
}

impl Backend {
    /// Whether its cost depends on the price of its node under these terms.
    pub fn needs(&self, offer: Offer) -> bool {
        match (&self.node, offer) {
            (None, _) => false,
            (Some(node), Offer::Spot) => node.spot.get() > 0.0,
            (Some(node), Offer::OnDemand) => node.spot.get() < 1.0,
        }
    }

    /// Whether any of its nodes is bought as spot or preemptible capacity, so that it may be taken back.
    pub fn has_spot_nodes(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.spot.get() > 0.0)
    }
}
