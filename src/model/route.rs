//! Which requests belong together, and what they are promised.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{BackendId, Policy, RouteId, Share};

/// Longest name of a model in bytes. What asks for a longer one asks for none that is known.
pub const MODEL_LEN_MAX: usize = 256;

/// A host condition. Compared without case and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPattern {
    /// Every host.
    Any,
    /// `*.example.com`, kept as `.example.com`: every name below, not the name itself.
    Suffix(String),
    /// One host, in lower case.
    Exact(String),
}

/// A path condition, by whole segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathPattern {
    /// `/v1/*`, kept as `/v1`: that path and all below it. `/*`, kept as the empty text, is every path.
    Prefix(String),
    /// One path.
    Exact(String),
}

/// A condition on the model that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPattern {
    /// `llama-*`, kept as `llama-`: every name that begins so. `*`, kept as the empty text, is every model, but not none.
    Prefix(String),
    /// One name.
    Exact(String),
}

impl ModelPattern {
    /// Whether a name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            ModelPattern::Prefix(prefix) => name.starts_with(prefix.as_str()),
            ModelPattern::Exact(exact) => name == exact,
        }
    }
}

/// A header that must be present with this very value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: String,
    /// Exact value.
    pub value: String,
}

/// The condition of a route. All parts must hold.
///
/// Where several routes match, the more specific wins: exact host before suffix (longest first) before any; then exact
/// path before prefix (longest first); then exact model before prefix (longest first) before any; then the route with more
/// header conditions. Two routes never have equal conditions: the configuration refuses that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RouteMatch {
    /// Host condition.
    pub host: HostPattern,
    /// Path condition.
    pub path: PathPattern,
    /// Models, of which one must be asked for; empty: any, or none.
    #[serde(default)]
    pub models: Vec<ModelPattern>,
    /// Header conditions, sorted by name; all must hold.
    pub headers: Vec<HeaderMatch>,
}

/// Who may wait when backends are full. The order is that of importance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Waits only while few others do.
    Low,
    /// Leaves some room for those that matter more.
    #[default]
    Normal,
    /// Waits as long as there is room.
    High,
}

impl Priority {
    /// Every priority, in order.
    pub const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

    /// As the configuration, clients and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }

    /// How many places of a queue it may take.
    pub fn places(self, all: u64) -> u64 {
        match self {
            Priority::Low => all / 4,
            Priority::Normal => all - all / 4,
            Priority::High => all,
        }
    }
}

/// What of an attempt makes another one at another backend worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryOn {
    /// No connection was made, or the backend said that it did not process the request (HTTP/2).
    Connect,
    /// The connection broke before the answer began.
    Reset,
    /// The backend was silent for too long before its answer began.
    Timeout,
    /// It answered 429.
    #[serde(rename = "429")]
    TooManyRequests,
    /// It answered 500.
    #[serde(rename = "500")]
    InternalServerError,
    /// It answered 502.
    #[serde(rename = "502")]
    BadGateway,
    /// It answered 503.
    #[serde(rename = "503")]
    ServiceUnavailable,
    /// It answered 504.
    #[serde(rename = "504")]
    GatewayTimeout,
}

impl RetryOn {
    /// The status that is meant, if it is one.
    pub fn status(self) -> Option<u16> {
        match self {
            RetryOn::Connect | RetryOn::Reset | RetryOn::Timeout => None,
            RetryOn::TooManyRequests => Some(429),
            RetryOn::InternalServerError => Some(500),
            RetryOn::BadGateway => Some(502),
            RetryOn::ServiceUnavailable => Some(503),
            RetryOn::GatewayTimeout => Some(504),
        }
    }
}

/// When a request is sent to another backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrySpec {
    /// After what.
    pub on: Vec<RetryOn>,
    /// Whether also requests that a backend may have begun to work on and whose methods are not idempotent, such as POST.
    pub inference: bool,
}

impl Default for RetrySpec {
    fn default() -> RetrySpec {
        RetrySpec { on: vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Timeout], inference: false }
    }
}

/// When a request that is late is sent to a second backend beside the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HedgeSpec {
    /// After so long without an answer; `None` for the 95th percentile of the backend's time to first byte.
    pub after: Option<Duration>,
    /// Never before.
    pub at_least: Duration,
    /// Part of the route's requests that may be sent so.
    pub budget: Share,
}

/// The latency objective of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// 95% of the requests see their first byte within this time.
    pub ttft_p95: Option<Duration>,
}

/// What tells which requests belong together: those that are alike in it go to the same backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// The value of a header, by its lower-case name.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// `user` in a JSON body, as the OpenAI API has it.
    User,
    /// So many bytes of the prompt in a JSON body from its start on: what a backend has in its cache of prefixes.
    Prompt(usize),
}

impl Affinity {
    /// Whether the body has to be read for it.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Affinity::User | Affinity::Prompt(_))
    }
}

/// Requests that match the same condition, the backends that may serve them, and how to choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub id: RouteId,
    /// Which requests.
    pub matches: RouteMatch,
    /// Models by the names that clients use, and the names that backends know them by.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// Who may serve them, in the operator's order. Never empty, no name twice.
    pub backends: Vec<BackendId>,
    /// How to choose among them.
    pub policy: Arc<Policy>,
    /// Policies that decide beside it without effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow: Vec<Arc<Policy>>,
    /// What the requests are promised.
    pub slo: Slo,
    /// When they are sent to another backend.
    #[serde(default)]
    pub retry: RetrySpec,
    /// When they are sent to a second one beside it; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<HedgeSpec>,
    /// Who may wait when backends are full, unless a request says otherwise.
    #[serde(default)]
    pub priority: Priority,
    /// Longest silence of a backend, before its answer and within it; `None` to wait as long as the client does.
    #[serde(default)]
    pub silence_timeout: Option<Duration>,
    /// What keeps requests at one backend; `None` if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tokens of a request on average, prompt and answer together; `None` if nobody says.
    pub tokens_per_request: Option<f64>,
}
