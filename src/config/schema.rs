//! The file as it is written: its keys, their notations and defaults. The JSON Schema, the check and the reference in
//! `docs/configuration.md` are all derived from these types; what a comment says here is what an editor shows.

mod backend;
mod policy;
mod prices;
mod tenant;

use std::{net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(super) use backend::{
    Accelerator, Architecture, Auth, AwsSigV4, Backend, Billing, Ejection, GoogleAccessToken, GoogleIdToken,
    LatencyEjection, Limit, Load, Managed, Probe, Replicas,
};
pub(super) use policy::{PolicyRule, Then};
pub(super) use prices::{Aws, Fees, Gcp, Location, PriceFile, PriceSource, Prices, Provider};
pub(super) use tenant::{Authentication, Key, Tenant};

use super::{
    leaf::{
        ByteSize, HeaderName, HeaderValue, HedgeAfter, LogFilter, ModelName, Named, OneOrMany, ServerUrl,
        Text,
    },
    settings::{LogFormat, OtlpProtocol, Role},
};
use crate::model::{
    BackendId, ClientLimits, HostPattern, ModelPattern, Network, PathPattern, PolicyId, Priority, Ramp,
    RetryOn, RetrySpec, RouteId, Share, TenantId, Timestamp,
};

const fn seconds(seconds: u64) -> Text<Duration> {
    Text(Duration::from_secs(seconds))
}

/// Configuration of Tradewind.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(title = "Tradewind configuration")]
#[serde(default, deny_unknown_fields)]
pub(super) struct Document {
    /// Where clients connect.
    pub(super) listen: Listen,
    /// The admin API.
    pub(super) admin: Admin,
    /// What outlives a restart: overrides and the journal.
    pub(super) state: State,
    /// Where prices come from.
    pub(super) prices: Prices,
    /// What is charged beside machines: bytes on their way, clusters, disks, managed platforms.
    pub(super) fees: Fees,
    /// Where this Tradewind runs, which bytes from backends elsewhere pass through. Without it, they are taken to go
    /// straight to the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<Location>,
    /// The control loop.
    pub(super) control: Control,
    /// What is logged, and how.
    pub(super) log: Log,
    /// Where spans of requests, metrics and log records are sent.
    pub(super) telemetry: Telemetry,
    /// One table for each deployment of the model in a cluster.
    pub(super) backends: Named<BackendId, Backend>,
    /// One table for each class of requests.
    pub(super) routes: Named<RouteId, Route>,
    /// One table for each one who may send requests, if `listen.authentication` is required.
    pub(super) tenants: Named<TenantId, Tenant>,
    /// Ways of choosing among backends. The policy `default` is there even if it is not written.
    pub(super) policies: Named<PolicyId, Policy>,
}

/// Where clients connect.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listen {
    /// Address for HTTP/1.1 and h2c; `"0.0.0.0:8080"` unless only `https` is given. Port 0 lets the system choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) http: Option<Text<SocketAddr>>,
    /// Address and certificate for HTTP over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) https: Option<Https>,
    /// Worker threads; one a core unless given.
    #[schemars(range(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) threads: Option<usize>,
    /// Tell clients in `x-tradewind-backend` and `Server-Timing` which backend answered.
    pub(super) expose_routing: bool,
    /// How long requests in flight may take to end once the process was told to stop.
    pub(super) drain_timeout: Text<Duration>,
    /// Longest body that is read to find the model of a request, where a route asks for it; 1 KiB to 64 MiB. So much may be
    /// held of each request under way.
    pub(super) body_peek_max: Text<ByteSize>,
    /// Header in which a client may name the model instead.
    pub(super) model_header: Text<HeaderName>,
    /// Proxies and load balancers before this one: of them is believed what `X-Forwarded-For`, `-Host` and `-Proto` say, or a
    /// PROXY header.
    #[schemars(length(max = 1000), extend("examples" = [["10.0.0.0/8"]]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) trusted_proxies: Vec<Text<Network>>,
    /// Every connection from `trusted_proxies` begins with a PROXY header (version 1 or 2) and is refused without; one from
    /// elsewhere does not.
    pub(super) proxy_protocol: bool,
    /// How long the head of a request may take from its first byte on, and a PROXY header and TLS handshake before it; between
    /// 100ms and 5m.
    pub(super) header_timeout: Text<Duration>,
    /// How long a client may send nothing of a request's body, or take nothing of its answer; between 1s and 1d.
    pub(super) silence_timeout: Text<Duration>,
    /// How long a connection may be open without a request; between 1s and 1d. Longer than what a load balancer before this one
    /// keeps its connections for (Google's: ten minutes).
    pub(super) idle_timeout: Text<Duration>,
    /// Longest head of a request; 4 KiB to 1000 KiB. A longer one is answered with 431.
    pub(super) head_max: Text<ByteSize>,
    /// Most headers of a request. One with more is answered with 431.
    #[schemars(range(min = 10, max = 250))]
    pub(super) headers_max: usize,
    /// Most requests at once on one HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub(super) streams_max: u32,
    /// Most connections of clients at once; one more is closed at once. Half of the files that the process may have open unless
    /// given.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_connections: Option<u64>,
    /// Most connections at once of one client address (IPv6: of one /64); no limit unless given.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_connections_per_ip: Option<u32>,
    /// Whether requests need the key of a tenant, as `Authorization: Bearer KEY`, `x-api-key` or `api-key`.
    pub(super) authentication: Authentication,
    /// Read in answers how many tokens they took (see usage.md).
    pub(super) count_tokens: bool,
}

impl Default for Listen {
    fn default() -> Listen {
        let limits = ClientLimits::default();
        Listen {
            http: None,
            https: None,
            threads: None,
            expose_routing: false,
            drain_timeout: seconds(60),
            body_peek_max: Text(ByteSize(1 << 20)),
            model_header: Text(HeaderName("x-model".into())),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            header_timeout: Text(limits.header_timeout),
            silence_timeout: Text(limits.silence_timeout),
            idle_timeout: Text(limits.idle_timeout),
            head_max: Text(ByteSize(limits.head_max as u64)),
            headers_max: limits.headers_max,
            streams_max: limits.streams_max,
            max_connections: None,
            max_connections_per_ip: None,
            authentication: Authentication::Off,
            count_tokens: true,
        }
    }
}

/// An address served over TLS.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Https {
    /// The address.
    pub(super) addr: Text<SocketAddr>,
    /// File with the certificate chain in PEM.
    #[schemars(length(min = 1))]
    pub(super) cert: String,
    /// File with the private key in PEM.
    #[schemars(length(min = 1))]
    pub(super) key: String,
    /// Further certificates. A client gets one that is for the name that it asks for (SNI), else the first.
    #[schemars(length(max = 1000))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) certs: Vec<Tls>,
    /// The oldest version of TLS.
    #[serde(default)]
    pub(super) min_version: TlsVersion,
    /// File with the certificates (PEM) that clients' certificates must chain to. Without it, clients are asked for none.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_ca: Option<String>,
    /// What becomes of clients without a certificate; for `client_ca` only.
    #[serde(default)]
    pub(super) client_auth: ClientAuth,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub(super) enum TlsVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V13,
}

/// What becomes of clients without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientAuth {
    /// They are refused.
    #[default]
    Required,
    /// They are served; one with a wrong certificate is refused.
    Optional,
}

/// The admin API.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// Its address; `"127.0.0.1:9901"` unless only `socket` is given. Other than on loopback, `tls` and `tokens` are required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listen: Option<Text<SocketAddr>>,
    /// Its certificate; plain HTTP without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    /// Names by which it is reached, beside `localhost` and IP addresses; others are refused then. Without any, every name is
    /// served where there are tokens, and none where there are none.
    #[schemars(length(max = 100))]
    pub(super) hosts: Vec<String>,
    /// A Unix socket on which it is served, too, or alone, for this user only (mode 0600): whoever can open it may do all, without a
    /// token.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) socket: Option<String>,
    /// Who may use it; without tokens, everyone who can connect.
    #[schemars(length(max = 100))]
    pub(super) tokens: Vec<Token>,
}

/// A certificate and its key.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// File with the certificate chain in PEM.
    #[schemars(length(min = 1))]
    pub(super) cert: String,
    /// File with the private key in PEM.
    #[schemars(length(min = 1))]
    pub(super) key: String,
}

/// Someone who may use the admin API.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// The name under which its changes are recorded.
    #[schemars(extend("format" = "tradewind-name"))]
    pub(super) name: String,
    /// What it may do; each role may do all that the ones before it may.
    pub(super) role: Role,
    /// Where its value is read from, or the SHA-256 of it. Values are never written in this file.
    pub(super) value: TokenRef,
    /// From when on it is refused; without, it is good until it is taken out of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<Text<Timestamp>>,
}

/// What a token is known by: `env`, `file` or `sha256`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1, "examples" = [{ "file": "PATH" }, { "sha256": "HEX" }]))]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRef {
    /// Name of an environment variable with its value.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<String>,
    /// A file with its value; a line end at its end is not part of it.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// The SHA-256 of its value in 64 hexadecimal digits, as `printf %s "$TOKEN" | sha256sum` prints it. The value should have
    /// 128 random bits or more: what can be guessed can be guessed from this.
    #[schemars(length(min = 64, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "beginning")]
    pub(super) sha256: Option<String>,
}

/// What tells digests apart and does not give them away.
fn beginning<S: serde::Serializer>(digest: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer
        .serialize_str(&format!("{}...", digest.as_deref().and_then(|hex| hex.get(..8)).unwrap_or_default()))
}

/// Where a secret is read from: `env` or `file`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1, "examples" = [{ "env": "NAME" }, { "file": "PATH" }]))]
#[serde(deny_unknown_fields)]
pub(super) struct SecretRef {
    /// Name of an environment variable.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<String>,
    /// A file; a line end at its end is not part of the secret.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
}

/// What outlives a restart.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct State {
    /// Directory; made when it does not exist.
    #[schemars(length(min = 1))]
    pub(super) dir: String,
}

impl Default for State {
    fn default() -> State {
        State { dir: "state".into() }
    }
}

/// The control loop.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Control {
    /// From one decision to the next; between 50ms and 1m.
    pub(super) tick: Text<Duration>,
}

impl Default for Control {
    fn default() -> Control {
        Control { tick: seconds(1) }
    }
}

/// What is logged, and how.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    /// The form of a line.
    pub(super) format: LogFormat,
    /// Level, or levels by module.
    pub(super) level: Text<LogFilter>,
    /// Write down each request that has ended, as one JSON object a line (see usage.md).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<Access>,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Text, level: Text(LogFilter("info".into())), access: None }
    }
}

/// Where requests are written down. `{}` for all of them to standard output.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "file": "access.log", "sample": "10%" }]))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Access {
    /// A file that is appended to, and opened by its name again at a reload (SIGHUP); standard output unless given.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// Part of the requests that are written down, chosen at random.
    pub(super) sample: Text<Share>,
}

impl Default for Access {
    fn default() -> Access {
        Access { file: None, sample: Text(Share::ONE) }
    }
}

/// Where spans of requests, metrics and log records are sent.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Telemetry {
    /// A collector that takes OTLP over HTTP; without it, nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) otlp: Option<Otlp>,
}

/// A collector of OpenTelemetry.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    /// Its address; `/v1/traces`, `/v1/metrics` and `/v1/logs` are put behind it.
    pub(super) endpoint: Text<ServerUrl>,
    /// How messages are written: every collector takes the first one.
    #[serde(default)]
    pub(super) protocol: OtlpProtocol,
    /// What is sent; all of it unless given.
    #[schemars(length(min = 1, max = 3), extend("examples" = [["traces", "metrics"]]))]
    #[serde(default = "OtlpSignal::all")]
    pub(super) signals: Vec<OtlpSignal>,
    /// How often metrics are sent; between 1s and 1h.
    #[serde(default = "thirty_seconds")]
    pub(super) interval: Text<Duration>,
    /// Part of the requests without a trace of their own that have a span. A client that sends `traceparent` decides for itself.
    #[serde(default = "one_percent")]
    pub(super) sample: Text<Share>,
    /// Headers that the collector wants, such as an API key. Their values are read from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) headers: Option<Named<HeaderName, SecretRef>>,
}

/// Something that is sent to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OtlpSignal {
    /// Spans of sampled requests.
    Traces,
    /// What `GET /metrics` has.
    Metrics,
    /// What is logged.
    Logs,
}

impl OtlpSignal {
    fn all() -> Vec<OtlpSignal> {
        vec![OtlpSignal::Traces, OtlpSignal::Metrics, OtlpSignal::Logs]
    }
}

fn thirty_seconds() -> Text<Duration> {
    seconds(30)
}

fn one_percent() -> Text<Share> {
    Text(Share::new(0.01).unwrap_or(Share::ZERO))
}

/// A class of requests.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Which requests. Where several routes match, the more specific one counts.
    pub(super) r#match: Match,
    /// Models by the names that clients use, and the names that the backends know them by: the request is sent on with the
    /// latter. `match` sees the name that the client used.
    #[schemars(extend("maxProperties" = 1000, "examples" = [{ "gpt-4o": "llama-3-8b" }]))]
    #[serde(default, skip_serializing_if = "no_names")]
    pub(super) models: Named<ModelName, Text<ModelName>>,
    /// Names of the backends that may serve them. Without known prices, the first one serves.
    #[schemars(length(min = 1, max = 1000), extend("examples" = [["eks-use1", "gke-usc1"]]))]
    pub(super) backends: Vec<Text<BackendId>>,
    /// Name of the policy that chooses among them.
    #[serde(default = "default_policy")]
    pub(super) policy: Text<PolicyId>,
    /// Names of policies that decide beside it without effect: `status` and `report` show what they would do and cost.
    #[schemars(length(max = 10), extend("examples" = [["break-even"]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) shadow: Vec<Text<PolicyId>>,
    /// What the requests are promised.
    #[serde(default, skip_serializing_if = "Slo::is_empty")]
    pub(super) slo: Slo,
    /// After what a request is sent to another backend, at most twice: no connection (`connect`), a connection that broke
    /// (`reset`) or a backend that was silent for too long (`timeout`) before an answer began, or a status.
    #[schemars(schema_with = "retry_on")]
    #[serde(default = "default_retry_on")]
    pub(super) retry_on: Vec<RetryOn>,
    /// Send also requests to another backend that one may have begun to work on and that are not idempotent, such as POST, as
    /// long as no answer has begun. Their bodies are read first, up to `listen.body_peek_max`.
    #[serde(default)]
    pub(super) retry_inference: bool,
    /// Sends a request that is late to a second backend beside the first, and gives the client the first answer of the two: what
    /// `retry_on` and `retry_inference` let be sent again. `{}` for the values below. Without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hedge: Option<Hedge>,
    /// Who may wait when backends with a `limit` are full, and who is refused first. A request may say so itself in
    /// `x-priority`.
    #[schemars(with = "String", extend("enum" = ["low", "normal", "high"]))]
    #[serde(default)]
    pub(super) priority: Priority,
    /// Longest silence of a backend: before its answer (then 504, or another backend) and within it (then the answer is
    /// broken off); at least 10ms. Without it, clients wait as long as they like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) silence_timeout: Option<Text<Duration>>,
    /// What keeps requests that belong together at the same backend, as far as shares, health and load allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) affinity: Option<Affinity>,
    /// Tokens of a request on average, prompt and answer together: with it, costs are shown per million tokens too.
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokens_per_request: Option<f64>,
}

/// When a request is late, and how many may be sent twice.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hedge {
    /// After how long without an answer: a time, or `p95` for the 95th percentile of the backend's time to first byte on this route within
    /// the last minute, once it has given 20 answers in it.
    pub(super) after: Text<HedgeAfter>,
    /// Never before this time, whatever the percentile is; 1ms to 1h.
    pub(super) at_least: Text<Duration>,
    /// Part of the route's requests that may be sent so, and ten at once; above 0.
    pub(super) budget: Text<Share>,
}

impl Default for Hedge {
    fn default() -> Hedge {
        Hedge {
            after: Text(HedgeAfter::P95),
            at_least: Text(Duration::from_millis(50)),
            budget: Text(Share::new(0.05).expect("a twentieth is a share")),
        }
    }
}

/// What keeps requests together: exactly one of these.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "header": "x-session-id" }, { "prompt": "1KiB" }]))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Affinity {
    /// The value of this header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) header: Option<Text<HeaderName>>,
    /// The value of this cookie.
    #[schemars(length(min = 1, max = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cookie: Option<String>,
    /// The text `user` of a JSON body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<bool>,
    /// So much of the prompt of a JSON body (`messages`, `prompt` or `input`) from its start on: what a backend has in its cache of
    /// prefixes; 16 bytes to 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt: Option<Text<ByteSize>>,
}

fn retry_on(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": { "type": "string", "enum": ["connect", "reset", "timeout", "429", "500", "502", "503", "504"] },
        "examples": [["connect", "reset", "timeout", "502", "503"]],
    })
}

fn default_retry_on() -> Vec<RetryOn> {
    RetrySpec::default().on
}

fn no_names(models: &Named<ModelName, Text<ModelName>>) -> bool {
    models.0.is_empty()
}

fn default_policy() -> Text<PolicyId> {
    Text("default".parse().expect("`default` is a valid name"))
}

/// Which requests. All that is given must hold.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "examples" = [{ "path": "/v1/*" }]))]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// Host, without port; `*.example.com` is every name below example.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<Text<HostPattern>>,
    /// Path; `/v1/*` is `/v1` and every path below it, by whole segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<Text<PathPattern>>,
    /// Model that the request asks for, in its JSON body or in the header `listen.model_header`; one, or a list of which one
    /// must be asked for. `llama-*` is every name that begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<OneOrMany<ModelPattern>>,
    /// Headers that must be there with exactly these values.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16, "examples" = [{ "x-tier": "gold" }]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) header: Option<Named<HeaderName, Text<HeaderValue>>>,
}

/// What requests are promised.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Slo {
    /// 95% of the requests see the first byte of their answer within this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttft_p95: Option<Text<Duration>>,
}

impl Slo {
    fn is_empty(&self) -> bool {
        self.ttft_p95.is_none()
    }
}

/// A way of choosing among backends.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Policy {
    /// When traffic moves for money.
    pub(super) rule: RuleName,
    /// Traffic leaves when the other side is cheaper by this part of what the load costs where it is. For `threshold` only.
    pub(super) shift_at: Text<Share>,
    /// It returns when the gap has closed below this. At most `shift_at`. For `threshold` only.
    pub(super) return_at: Text<Share>,
    /// What a move costs beside both sides running at once, in USD: caches to refill, the risk for the objective. For
    /// `break-even` only.
    #[schemars(range(min = 0))]
    pub(super) move_usd: f64,
    /// Nothing moves for money within this time after traffic last moved.
    pub(super) hold: Text<Duration>,
    /// How fast the share of a receiving backend may grow.
    pub(super) ramp: Text<Ramp>,
    /// For so long a backend that comes back, or is new, is taken to be ready for a part only, which rises evenly; at most 1h. 0s
    /// for at once.
    pub(super) slow_start: Text<Duration>,
    /// Share that every backend keeps, so that it stays warm and measured.
    pub(super) keep_warm: Text<Share>,
    /// The loss of any one cloud, or region, shall leave enough: others keep replicas ready for a part of what it serves, and it
    /// is said when they could not take the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n_minus_one: Option<DomainName>,
    /// That part: it is served at once after a loss, the rest after a cold start.
    pub(super) n_minus_one_ready: Text<Share>,
    /// What an operator knows and prices do not say, in this order.
    #[schemars(length(max = 100))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<PolicyRule>,
}

/// When traffic moves for money.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RuleName {
    /// Leave at `shift_at`, return at `return_at`.
    Threshold,
    /// Leave when staying has cost as much more than another side would have as a move costs. Nothing to tune.
    BreakEven,
}

/// What may be lost as one.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DomainName {
    /// All of a cloud.
    Cloud,
    /// A region of a cloud.
    Region,
}

impl Default for Policy {
    fn default() -> Policy {
        let percent = |percent: f64| Text(Share::new(percent / 100.0).expect("a percentage is a share"));
        Policy {
            rule: RuleName::Threshold,
            shift_at: percent(15.0),
            return_at: percent(5.0),
            move_usd: 0.0,
            hold: seconds(600),
            ramp: Text(Ramp::new(0.1, Duration::from_secs(60)).expect("a tenth a minute is a ramp")),
            slow_start: seconds(0),
            keep_warm: percent(0.0),
            n_minus_one: None,
            n_minus_one_ready: percent(50.0),
            rules: Vec::new(),
        }
    }
}

/// The JSON Schema of the file. `null` is not a value in TOML, so it is taken out of what is derived for optional keys.
pub(super) fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    without_null(&mut schema);
    schema
}

fn without_null(schema: &mut serde_json::Value) {
    use serde_json::{Value, json};
    match schema {
        Value::Object(keys) => {
            keys.values_mut().for_each(without_null);
            keys.retain(|key, value| !(key == "default" && value.is_null()));
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    keys["type"] = only.clone();
                }
            }
            let Some(Value::Array(choices)) = keys.get_mut("anyOf") else { return };
            choices.retain(|choice| *choice != json!({ "type": "null" }));
            if let [Value::Object(only)] = choices.as_slice() {
                let only = only.clone();
                keys.remove("anyOf");
                keys.extend(only);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cloud, Platform, Protocol, ZonePrice};

    #[test]
    fn the_enumerations_of_the_schema_are_those_of_the_model() {
        fn all_read<T: serde::de::DeserializeOwned>(key: &str) {
            let schema = json_schema();
            let options = &schema["$defs"]["Backend"]["properties"][key]["enum"];
            serde_json::from_value::<Vec<T>>(options.clone()).expect(key);
        }
        all_read::<Cloud>("cloud");
        all_read::<Platform>("platform");
        all_read::<Protocol>("protocol");
        all_read::<ZonePrice>("zone_price");
        let priority = &json_schema()["$defs"]["Route"]["properties"]["priority"]["enum"];
        serde_json::from_value::<Vec<Priority>>(priority.clone()).expect("priority");
        let retry_on = &json_schema()["$defs"]["Route"]["properties"]["retry_on"]["items"]["enum"];
        serde_json::from_value::<Vec<RetryOn>>(retry_on.clone()).expect("retry_on");
    }

    #[test]
    fn null_is_nowhere_in_the_schema() {
        assert!(!json_schema().to_string().contains("null"));
    }
}
