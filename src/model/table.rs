//! What the request path reads: who gets which part of a route's requests.

use std::{net::SocketAddr, sync::Arc};

use super::{Backend, Route, Timestamp};

/// A backend as the request path needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendEntry {
    /// What the operator says.
    pub backend: Arc<Backend>,
    /// Addresses its name resolves to now. Empty: it cannot be reached.
    pub addresses: Arc<[SocketAddr]>,
}

/// A route and the shares in force.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteEntry {
    /// The route.
    pub route: Arc<Route>,
    /// Index into [`RoutingTable::backends`] and share, in the route's order. Shares sum to 1, or are all 0 when nothing
    /// may serve.
    pub shares: Vec<(usize, f64)>,
    /// Indices of the backends that a request may go to when its first choice cannot be reached, best first.
    pub failover: Vec<usize>,
    /// When the last decision about it was made that is in the journal; `None` where nobody asks.
    pub decision: Option<Timestamp>,
}

/// Everything the request path knows. Replaced as a whole, never changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingTable {
    /// Generation of the configuration it was made from.
    pub generation: u64,
    /// All backends.
    pub backends: Vec<BackendEntry>,
    /// All routes.
    pub routes: Vec<RouteEntry>,
}
