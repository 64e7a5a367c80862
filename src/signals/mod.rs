//! Where observations come from. Each ends in a field of the [`Snapshot`](crate::model::Snapshot).
//!
//! - [`prices`]: what a node costs, from AWS, Google Cloud and files; guarded against feeds that talk nonsense.
//! - [`load`]: what backends report of themselves: ready replicas, queues, saturation.
//! - [`notices`]: how often spot nodes are taken back, learned from the notices that arrive.
//! - [`ejection`]: which backends answer their probes and fail their requests.
//! - [`probes`]: whether a backend answers, and how fast.
//! - [`allowance`]: what tenants have used of what they may.
//! - [`credentials`]: what backends are shown of who Tradewind is.
//! - [`budget`]: how many second attempts there may be.
//! - [`hedges`]: how many requests may be sent to two backends, and what became of that.
//! - [`connections`]: how many connections clients have, and how many were ended by us.
//! - [`ledger`]: what requests took, in tokens and dollars.
//! - [`traffic`]: what live traffic says: rates, latency, errors; and [`conventions`]: the same as OpenTelemetry has it.
//! - [`resolve`]: which addresses a backend's name has now.
//!
//! They run beside the request path and never in it. When one of them fails, what it said last stays, is marked, and ages
//! into a stated fallback.

pub mod allowance;
pub mod budget;
mod client;
pub mod connections;
pub mod conventions;
pub mod credentials;
pub mod ejection;
#[cfg(test)]
mod fixture;
pub mod hedges;
pub mod ledger;
pub mod load;
pub mod notices;
pub mod prices;
pub mod probes;
pub mod resolve;
mod task;
pub mod traces;
pub mod traffic;
