//! The nouns: what the other rooms talk about. No I/O, no clock, no async.
//!
//! Read in this order: [`id`] and [`units`] (the words), [`backend`], [`auth`], [`route`], [`policy`], [`redundancy`], [`tenant`] and [`clients`] (what the operator
//! configures), [`price`], [`overrides`], [`ruling`] and [`snapshot`] (what is known at one moment), [`decision`] and [`binding`] (what follows
//! from it), [`table`] (what the request path reads) and [`words`] (how amounts are shown).

pub mod auth;
pub mod backend;
pub mod binding;
pub mod clients;
pub mod decision;
pub mod id;
pub mod overrides;
pub mod policy;
pub mod price;
pub mod redundancy;
pub mod route;
pub mod ruling;
pub mod secret;
pub mod snapshot;
pub mod table;
pub mod tenant;
pub mod turning;
pub mod units;
pub mod words;

pub use auth::{AuthSpec, AwsSigV4};
pub use backend::{
    Accelerator, Backend, BackendTls, ClientCredentials, Cloud, EjectionSpec, Endpoint, Interruptions,
    LimitSpec, LoadSpec, Managed, MetricsSource, Node, OutlierSpec, Platform, ProbeSpec, PromqlSource,
    Protocol, Replicas, Url, ZonePrice,
};
pub use binding::{BindingCost, Constraint};
pub use clients::{ClientLimits, KeyPair, Network, TlsSpec, Trust};
pub use decision::{Action, Cause, Decision, Fallback, Reason, UnitCost, Verdict};
pub use id::{BackendId, PolicyId, RouteId, TenantId};
pub use overrides::{Override, OverrideKind};
pub use policy::{Policy, Rule};
pub use price::{Offer, Price, PriceState};
pub use redundancy::{Domain, NMinusOne, Redundancy};
pub use route::{
    Affinity, HeaderMatch, HedgeSpec, HostPattern, ModelPattern, PathPattern, Priority, RetryOn, RetrySpec,
    Route, RouteMatch, Slo,
};
pub use ruling::{Effect, Ruled, Rulings, Undecided};
pub use secret::{Digest, Secret};
pub use snapshot::{
    BackendView, Ejected, EjectedFor, Health, InterruptionRate, Live, LoadReport, ProbeView, RateBasis,
    Snapshot,
};
pub use table::{BackendEntry, RouteEntry, RoutingTable};
pub use tenant::{Allowance, Tenant};
pub use turning::TurningPoint;
pub use units::{Ramp, Share, UsdPerHour};

/// A point in time, UTC, with nanosecond resolution. Pure rooms receive it as an argument and never ask a clock.
pub type Timestamp = jiff::Timestamp;
