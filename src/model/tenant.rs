//! Who may send requests, and how much.

use super::{Digest, ModelPattern, RouteId, TenantId};

/// Someone who may send requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Digests of its keys, which have 256 random bits. No two tenants share one.
    pub keys: Vec<Digest>,
    /// Routes that it may use; empty for all.
    pub routes: Vec<RouteId>,
    /// Models that it may ask for; empty for all.
    pub models: Vec<ModelPattern>,
    /// How much.
    pub allowance: Allowance,
}

/// How much a tenant may ask for; `None` for as much as it likes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowance {
    /// Requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, prompts and answers together.
    pub tokens_per_minute: Option<u64>,
    /// USD in a UTC day.
    pub usd_per_day: Option<f64>,
    /// USD in a UTC month.
    pub usd_per_month: Option<f64>,
}
