//! Which requests belong together, and what they are promised.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{BackendId, Policy, RouteId};

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

/// The latency objective of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// 95% of the requests see their first byte within this time.
    pub ttft_p95: Option<Duration>,
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
    /// What the requests are promised.
    pub slo: Slo,
    /// Tokens of a request on average, prompt and answer together; `None` if nobody says.
    pub tokens_per_request: Option<f64>,
}
