//! Tenants: who may send requests, and how much.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::leaf::Text;
use crate::model::{Digest, ModelPattern, RouteId};

/// Whether clients must show a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Authentication {
    /// No key is looked at.
    #[default]
    Off,
    /// A request needs the key of a tenant.
    Required,
}

/// Someone who may send requests.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Tenant {
    /// Its API keys: any of them will do, so that one can take the place of another.
    #[schemars(length(min = 1, max = 100), extend("examples" = [[{ "sha256": "9f86..." }]]))]
    pub(in crate::config) keys: Vec<Key>,
    /// Names of the routes that it may use; all unless given.
    #[schemars(length(min = 1, max = 10_000), extend("examples" = [["chat"]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::config) routes: Vec<Text<RouteId>>,
    /// Models that it may ask for; all unless given. Bodies are then read, up to `listen.body_peek_max`; one whose model cannot
    /// be read is refused.
    #[schemars(length(min = 1, max = 1_000), extend("examples" = [["llama-*"]]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::config) models: Vec<Text<ModelPattern>>,
    /// Requests in a minute. So many may come at once, and then as many as come back evenly.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) requests_per_minute: Option<u64>,
    /// Tokens in a minute, prompts and answers together, counted when an answer has ended.
    #[schemars(range(min = 1, max = 1_000_000_000_000u64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) tokens_per_minute: Option<u64>,
    /// USD in a UTC day.
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) usd_per_day: Option<f64>,
    /// USD in a UTC month.
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) usd_per_month: Option<f64>,
}

/// An API key: `sha256`, `env` or `file`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1, "examples" = [{ "sha256": "9f86..." }, { "file": "acme.key" }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Key {
    /// Its SHA-256 in hexadecimal digits, as `tradewind key` prints it: the key itself is nowhere then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) sha256: Option<Text<Digest>>,
    /// Name of an environment variable that holds the key.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) env: Option<String>,
    /// A file that holds the key, or `sha256:` and its hash.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) file: Option<String>,
}
