//! The configuration in the types that the rest of the program works with. Everything is checked and filled in.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::{
    model::Secret,
    signals::prices::{AwsSettings, GcpSettings, PriceSettings as Prices, PriceSource, Replay},
};

use crate::{
    cost::fees::Fees,
    model::{
        Backend, ClientLimits, Cloud, Digest, PolicyId, Route, Share, Tenant, Timestamp, TlsSpec, Trust, Url,
    },
    rules::RuleSet,
};

/// A configuration that has passed every check.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: Listen,
    /// The admin API.
    pub admin: Admin,
    /// Directory for what outlives a restart. It need not exist yet.
    pub state_dir: PathBuf,
    /// Where prices come from.
    pub prices: Prices,
    /// What is charged beside machines: the built-in tables, with the operator's own rows.
    pub fees: Arc<Fees>,
    /// Where this Tradewind runs; `None` if bytes are taken to go straight from a backend to the client.
    pub location: Option<Location>,
    /// From one decision to the next.
    pub tick: Duration,
    /// What is logged, and how.
    pub log: Log,
    /// A collector of spans, metrics and log records.
    pub otlp: Option<Otlp>,
    /// Backends in the order of the file.
    pub backends: Vec<Arc<Backend>>,
    /// Routes in the order of the file. Routes of the same policy share it.
    pub routes: Vec<Arc<Route>>,
    /// Everyone who may send requests; `None` if all may.
    pub tenants: Option<Vec<Arc<Tenant>>>,
    /// The rules of the policies that have some.
    pub rules: HashMap<PolicyId, RuleSet>,
    /// Files of certificates, keys and secrets, which a reload takes up.
    pub watched: Vec<PathBuf>,
    /// What [`Settings::redacted_json`] gives.
    pub effective: Arc<serde_json::Value>,
}

impl Settings {
    /// The configuration in force, defaults filled in, in the keys and notations of the file. Of a secret it holds only
    /// where it is read from.
    pub fn redacted_json(&self) -> serde_json::Value {
        (*self.effective).clone()
    }
}

/// A place in a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Who bills it.
    pub cloud: Cloud,
    /// The provider's region.
    pub region: String,
}

/// Where clients connect. At least one of `http` and `https` is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Address for plain HTTP/1.1 and h2c; port 0 lets the system choose.
    pub http: Option<SocketAddr>,
    /// Address and certificate for HTTP over TLS.
    pub https: Option<Https>,
    /// Worker threads; `None` for one a core.
    pub threads: Option<usize>,
    /// Whether responses name the backend that gave them.
    pub expose_routing: bool,
    /// How long requests in flight may take to end once the process was told to stop.
    pub drain_timeout: Duration,
    /// Longest body that is read to find the model of a request, in bytes.
    pub body_peek_max: usize,
    /// Header in which a client may name the model, in lower case. A valid name.
    pub model_header: String,
    /// How much clients may use.
    pub limits: ClientLimits,
    /// Whose word is taken for whom a request is.
    pub trust: Trust,
    /// Whether answers are read for the tokens that they took.
    pub count_tokens: bool,
}

/// An address served over TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Https {
    /// The address.
    pub addr: SocketAddr,
    /// How TLS is terminated; as many certificates as `files`.
    pub tls: TlsSpec,
    /// Where the certificates were read from.
    pub files: Vec<Tls>,
}

/// The admin API. Other than on loopback it has tokens and TLS.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its address; `None` if it is served on the socket alone.
    pub listen: Option<SocketAddr>,
    /// Its certificate; plain HTTP without.
    pub tls: Option<Tls>,
    /// Names by which it is reached beside `localhost` and IP addresses, in lower case; see [`crate::admin::Options`].
    pub hosts: Vec<String>,
    /// A Unix socket on which it is served.
    pub socket: Option<PathBuf>,
    /// Who may use it; without tokens everyone who can connect.
    pub tokens: Vec<Token>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The file of the certificate, as it is named in the configuration.
    pub name: String,
    /// Certificate chain in PEM, checked against `key`.
    pub cert: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

/// Someone who may use the admin API.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The name under which changes are recorded. Unique.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Of what its bearer presents.
    pub digest: Digest,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

/// What a token may do. Each role may do all that the ones before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read.
    Viewer,
    /// Give and take back overrides.
    Operator,
    /// Reload the configuration.
    Admin,
}

/// A collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// Its address; `/v1/traces` and the like are put behind its path.
    pub endpoint: Url,
    /// How messages are written.
    pub protocol: OtlpProtocol,
    /// Whether it gets spans.
    pub traces: bool,
    /// Whether it gets log records.
    pub logs: bool,
    /// How often it gets metrics; `None` if it gets none.
    pub metrics_every: Option<Duration>,
    /// Part of the requests without a trace of their own that have a span.
    pub sample: Share,
    /// Headers that it wants.
    pub headers: Vec<(String, Secret)>,
}

/// How messages to a collector are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum OtlpProtocol {
    /// As protocol buffers.
    #[default]
    #[serde(rename = "http/protobuf")]
    Protobuf,
    /// As JSON.
    #[serde(rename = "http/json")]
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A filter as `tracing-subscriber`'s `EnvFilter` reads it: `info`, `warn,tradewind=debug`. Valid.
    pub level: String,
    /// Where requests are written down; `None` for nowhere.
    pub access: Option<Access>,
}

/// Where requests are written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// A file; `None` for standard output.
    pub file: Option<PathBuf>,
    /// Part of them; above 0.
    pub sample: Share,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Admin);
    }
}
