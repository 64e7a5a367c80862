//! Backends: where they are, what they consist of, what they cost.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::leaf::{LoadPlace, ProbePath, Rate, ServerName, ServerUrl, Text},
    SecretRef, seconds,
};
use crate::model::{ClientCredentials, Cloud, Endpoint, Platform, Protocol, Share, ZonePrice};

/// One deployment of the model in one cluster.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Backend {
    /// Where it is reached. Without a path: requests keep their own.
    pub(in crate::config) url: Text<Endpoint>,
    /// Who bills it.
    #[schemars(with = "String", extend("enum" = ["aws", "gcp", "other"]))]
    pub(in crate::config) cloud: Cloud,
    /// What runs its replicas.
    #[schemars(with = "String", extend("enum" = ["eks", "gke", "fargate", "cloud-run", "vertex-ai", "sagemaker", "other"]))]
    #[serde(default)]
    pub(in crate::config) platform: Platform,
    /// The provider's name of its region.
    #[schemars(length(min = 1), extend("examples" = ["us-east-1"]))]
    pub(in crate::config) region: String,
    /// Availability zones that its nodes run in; all of the region unless given.
    #[schemars(inner(length(min = 1)))]
    #[serde(default)]
    pub(in crate::config) zones: Vec<String>,
    /// Which of its zones' spot prices it pays: that of the cheapest zone (nodes are bought where they are cheapest), the
    /// mean (they are spread evenly) or that of the dearest.
    #[schemars(with = "String", extend("enum" = ["cheapest", "mean", "dearest"]))]
    #[serde(default)]
    pub(in crate::config) zone_price: ZonePrice,
    /// HTTP versions: `auto` is HTTP/1.1 over plain text and what ALPN agrees on over TLS; `http2` over plain text is h2c.
    #[schemars(with = "String", extend("enum" = ["auto", "http1", "http2"]))]
    #[serde(default)]
    pub(in crate::config) protocol: Protocol,
    /// File with the certificates (PEM) that its certificate must chain to; the system's unless given.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ca: Option<String>,
    /// The name that it is asked for (SNI) and that its certificate must be for; the host of `url` unless given.
    #[schemars(extend("examples" = ["llama.internal.example.com"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) server_name: Option<Text<ServerName>>,
    /// File with the certificate chain (PEM) that it is shown, for backends that ask for one.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) client_cert: Option<String>,
    /// File with the private key of `client_cert` in PEM.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) client_key: Option<String>,
    /// How its health is probed.
    #[serde(default)]
    pub(in crate::config) probe: Probe,
    /// How many requests may be under way there at once, of all routes; more go elsewhere, wait, or are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) limit: Option<Limit>,
    /// When it gets no requests for a while because too many of them fail, though its probes succeed; `{}` for the values
    /// below. Without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ejection: Option<Ejection>,
    /// The machine under a replica. Without it or `managed`, what the backend costs is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) node: Option<Node>,
    /// What its platform charges for a replica, where that is not by the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) managed: Option<Managed>,
    /// Its capacity. Without it, what the backend costs is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) replicas: Option<Replicas>,
    /// Where it is read how much it has to do. Without it, that is modelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) load: Option<Load>,
    /// How Tradewind shows the backend who it is, in place of the client (see credentials.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) auth: Option<Auth>,
    /// Whether the backend sees the credentials of clients (`authorization`, `proxy-authorization`, `x-api-key`, `api-key`) and their
    /// cookies: `pass` or `strip`. Unless given, they are taken out where the
    /// backend has `auth`, or `listen.authentication` is required.
    #[schemars(with = "Option<String>", extend("enum" = ["pass", "strip"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) client_credentials: Option<ClientCredentials>,
    /// What 10^9 bytes on the way to the client cost, in USD. Unless given, what the tables of fees say about the way from
    /// its region, by way of `location`; for `other` 0.
    #[schemars(range(min = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) egress_usd_per_gb: Option<f64>,
}

/// How Tradewind shows a backend who it is: exactly one of the keys.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1, "examples" = [{ "bearer": { "file": "vllm.key" } }, { "google_id_token": {} }]))]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Auth {
    /// `Authorization: Bearer` with the secret read from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) bearer: Option<SecretRef>,
    /// A signature of AWS, version 4, with the credentials of the environment, shared files, web identity, container or instance. Bodies
    /// are then read first, up to `listen.body_peek_max`; a longer one is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) aws_sigv4: Option<AwsSigV4>,
    /// An access token of Google by application default credentials, as for Vertex AI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) google_access_token: Option<GoogleAccessToken>,
    /// An ID token of Google by application default credentials, as for Cloud Run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) google_id_token: Option<GoogleIdToken>,
}

/// A signature of AWS.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "service": "sagemaker" }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AwsSigV4 {
    /// The service by its name in signatures.
    #[schemars(length(min = 1, max = 63), extend("examples" = ["sagemaker", "bedrock", "execute-api"]))]
    pub(in crate::config) service: String,
    /// The region of the endpoint; that of the backend unless given.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) region: Option<String>,
    /// A profile in the shared files.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) profile: Option<String>,
}

/// An access token of Google.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct GoogleAccessToken {
    /// What it may be used for.
    #[schemars(length(min = 1, max = 20), inner(length(min = 1)))]
    pub(in crate::config) scopes: Vec<String>,
}

impl Default for GoogleAccessToken {
    fn default() -> GoogleAccessToken {
        GoogleAccessToken { scopes: vec!["https://www.googleapis.com/auth/cloud-platform".into()] }
    }
}

/// An ID token of Google.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct GoogleIdToken {
    /// Whom it is for; the URL of the backend unless given.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) audience: Option<String>,
}

/// How a backend's health is probed.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Probe {
    /// Path for a GET that must answer 2xx. Without it, a connection is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) path: Option<Text<ProbePath>>,
    /// From one probe to the next; at least 100ms.
    pub(in crate::config) interval: Text<Duration>,
    /// A probe that takes longer has failed; `"2s"`, or the interval if that is shorter, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) timeout: Option<Text<Duration>>,
    /// Successes in a row that make an unhealthy backend healthy.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) rise: u32,
    /// Failures in a row that make a healthy backend unhealthy.
    #[schemars(range(min = 1, max = 100))]
    pub(in crate::config) fall: u32,
}

impl Default for Probe {
    fn default() -> Probe {
        Probe { path: None, interval: seconds(5), timeout: None, rise: 2, fall: 2 }
    }
}

/// How many requests may be under way at a backend, and how many may wait.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "max_in_flight": 200 }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Limit {
    /// Requests under way.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) max_in_flight: u64,
    /// Requests that may wait for a place when no other backend has one either: those of high priority for each, normal ones
    /// for three quarters, low ones for a quarter.
    #[schemars(range(min = 0, max = 100_000))]
    #[serde(default)]
    pub(in crate::config) max_waiting: u64,
    /// How long one waits at most; at most 1h.
    #[serde(default = "five_seconds")]
    pub(in crate::config) wait_timeout: Text<Duration>,
}

/// When a backend gets no requests for a while. A request fails by an answer of 500 or above, a connection that is not made or
/// breaks, or silence.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Ejection {
    /// Requests in a row that fail.
    #[schemars(range(min = 1, max = 10_000))]
    pub(in crate::config) consecutive: u32,
    /// Part of the requests in `window` that fail.
    pub(in crate::config) error_rate: Text<Share>,
    /// Requests in `window` from which on that part counts.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) min_requests: u64,
    /// How far back that part is looked at; 1s to 5m.
    pub(in crate::config) window: Text<Duration>,
    /// How long it gets no requests the first time. Each time that follows, it doubles.
    pub(in crate::config) time: Text<Duration>,
    /// How long at most; after as long without an ejection, the next one is a first one.
    pub(in crate::config) time_max: Text<Duration>,
    /// Part of a route's backends that may be out so at once. If more than half of them are out, for this or because their
    /// probes fail, those out for this are used.
    pub(in crate::config) max_ejected: Text<Share>,
    /// When it also goes out for being far slower than the other backends of a route; `{}` for the values below. Without it,
    /// never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) latency: Option<LatencyEjection>,
}

/// When a backend is far slower than the others: its median time to first byte on a route against the median of theirs.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct LatencyEjection {
    /// How many times theirs. Regions, machines and clouds differ by themselves.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 1))]
    pub(in crate::config) factor: f64,
    /// How much more than theirs at least; at most 1h.
    pub(in crate::config) margin: Text<Duration>,
    /// Answers in `window` that it and another one need each to be compared.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) min_requests: u64,
    /// How far back is looked; 1s to 10m.
    pub(in crate::config) window: Text<Duration>,
}

impl Default for LatencyEjection {
    fn default() -> LatencyEjection {
        LatencyEjection {
            factor: 5.0,
            margin: Text(Duration::from_millis(500)),
            min_requests: 20,
            window: seconds(60),
        }
    }
}

impl Default for Ejection {
    fn default() -> Ejection {
        let half = || Text(Share::new(0.5).expect("a half is a share"));
        Ejection {
            consecutive: 5,
            error_rate: half(),
            min_requests: 20,
            window: seconds(10),
            time: seconds(30),
            time_max: seconds(300),
            max_ejected: half(),
            latency: None,
        }
    }
}

/// Where it is read how much a backend has to do (see load.md).
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "metrics": "/metrics" }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Load {
    /// Where metrics are read: a path for those of its own server, which are taken for those of one replica; or a URL, which
    /// is taken to speak for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) metrics: Option<Text<LoadPlace>>,
    /// Whether to read ORCA reports in the headers of its answers.
    #[serde(default)]
    pub(in crate::config) orca: bool,
    /// A Prometheus server, for the expressions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) prometheus: Option<Text<ServerUrl>>,
    /// PromQL for the number of its ready replicas.
    #[schemars(length(min = 1), extend("examples" = ["sum(kube_deployment_status_replicas_ready{deployment='llama'})"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ready: Option<String>,
    /// PromQL for the number of requests that wait there, over all replicas.
    #[schemars(length(min = 1), extend("examples" = ["sum(vllm:num_requests_waiting{service='llama'})"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) queued: Option<String>,
    /// PromQL for the part of its scarcest resource in use, 0 to 1.
    #[schemars(length(min = 1), extend("examples" = ["avg(vllm:kv_cache_usage_perc{service='llama'})"]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) saturation: Option<String>,
    /// From one question to the next; at least 100ms.
    #[serde(default = "five_seconds")]
    pub(in crate::config) interval: Text<Duration>,
}

fn five_seconds() -> Text<Duration> {
    seconds(5)
}

/// The machine under a replica.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Node {
    /// The provider's name of the machine.
    #[schemars(length(min = 1), extend("examples" = ["g5.2xlarge", "g2-standard-8"]))]
    pub(in crate::config) instance_type: String,
    /// Part of the nodes bought as spot capacity.
    #[serde(default = "zero_share")]
    pub(in crate::config) spot: Text<Share>,
    /// Replicas that share one node.
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(default = "one")]
    pub(in crate::config) replicas_per_node: f64,
    /// Accelerators that are attached to the machine and billed apart from it (`n1` machines on Google Cloud).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) accelerator: Option<Accelerator>,
    /// The disk of each node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) disk: Option<Disk>,
    /// How often spot nodes are taken back.
    #[serde(default)]
    pub(in crate::config) interruptions: Interruptions,
}

/// Accelerators attached to a machine.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "type": "nvidia-tesla-t4", "count": 1 }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Accelerator {
    /// The provider's name of it.
    #[schemars(length(min = 1), extend("examples" = ["nvidia-tesla-t4"]))]
    pub(in crate::config) r#type: String,
    /// How many are attached to one machine.
    #[schemars(range(min = 1, max = 64))]
    #[serde(default = "one_piece")]
    pub(in crate::config) count: u32,
}

fn one_piece() -> u32 {
    1
}

/// A node's disk. It comes and goes with the node.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "class": "gp3", "gb": 100 }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Disk {
    /// The provider's name of its kind.
    #[schemars(length(min = 1), extend("examples" = ["gp3", "pd-balanced"]))]
    pub(in crate::config) class: String,
    /// Its size, as the provider counts it.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub(in crate::config) gb: f64,
}

/// How often spot nodes are taken back, and what is lost then beside the cold start of a successor.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Interruptions {
    /// Interruptions in an hour of one spot node. Unless given, learned from notices, and assumed before the first.
    #[schemars(range(min = 0, max = 60))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) per_node_hour: Option<f64>,
    /// Time of the node whose work has to be done again.
    pub(in crate::config) work_lost: Text<Duration>,
}

impl Default for Interruptions {
    fn default() -> Interruptions {
        Interruptions { per_node_hour: None, work_lost: seconds(0) }
    }
}

/// What a managed platform charges for a replica: stated, or looked up in the tables of fees by what a replica is.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "examples" = [{ "instance_type": "ml.g5.xlarge" }, { "usd_per_replica_hour": 1.5 }]))]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Managed {
    /// An hour of one replica in USD, as in your contract; takes the place of all other keys but `usd_per_request`.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) usd_per_replica_hour: Option<f64>,
    /// What each request costs on top, in USD. Unless given, Cloud Run's fee with `billing = "request"`, otherwise 0.
    #[schemars(range(min = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) usd_per_request: Option<f64>,
    /// The machine of an endpoint (`sagemaker`: `ml.g5.xlarge`; `vertex-ai`: `a3-highgpu-1g`).
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) instance_type: Option<String>,
    /// Accelerators attached to it (`vertex-ai`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) accelerator: Option<Accelerator>,
    /// vCPUs of a replica (`fargate`, `cloud-run`).
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) vcpus: Option<f64>,
    /// Memory of a replica, in GB (`fargate`) or GiB (`cloud-run`).
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) memory: Option<f64>,
    /// The processor (`fargate`); `x86` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) architecture: Option<Architecture>,
    /// The GPU of a replica (`cloud-run`): `nvidia-l4`.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) gpu: Option<String>,
    /// Whether the GPU has zonal redundancy (`cloud-run`); `true` unless given, as it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) zonal_redundancy: Option<bool>,
    /// How it is billed (`cloud-run`); `instance` with a GPU, otherwise `request`, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) billing: Option<Billing>,
}

/// The processor of a Fargate task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Architecture {
    /// Intel and AMD.
    X86,
    /// Graviton.
    Arm,
}

/// How a Cloud Run service is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Billing {
    /// While requests are served, and for each request.
    Request,
    /// For as long as an instance lives.
    Instance,
}

fn zero_share() -> Text<Share> {
    Text(Share::ZERO)
}

fn one() -> f64 {
    1.0
}

/// How much a backend can serve, and how fast it grows.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Replicas {
    /// Replicas that run, and are paid, whatever the load.
    #[schemars(range(min = 0, max = 100_000))]
    #[serde(default)]
    pub(in crate::config) min: u32,
    /// Replicas that its autoscaler never exceeds.
    #[schemars(range(min = 1, max = 100_000))]
    pub(in crate::config) max: u32,
    /// Requests per second that one replica serves within the objective.
    pub(in crate::config) rps: Text<Rate>,
    /// From the wish for a replica to its first answer.
    #[serde(default = "no_time")]
    pub(in crate::config) cold_start: Text<Duration>,
}

fn no_time() -> Text<Duration> {
    seconds(0)
}
