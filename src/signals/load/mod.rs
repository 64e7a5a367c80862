//! What backends report of themselves: ready replicas, waiting requests, saturation.
//!
//! Three sources, each with its own task or none: the metrics of the backend's own server (`metrics.rs`), a Prometheus
//! server (`promql.rs`), and the ORCA reports that answers carry (`orca.rs`). The [`LoadBoard`] asks, keeps the last word of
//! each, and says what is recent enough to be believed. What is not known is `None`, never zero.

mod board;
mod metrics;
mod orca;
mod promql;
mod reading;
mod sum;

/// What `sum.rs` is made of: elsewhere it is tried with another kind.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

pub use board::{LoadBoard, LoadStatus};
pub use orca::{ORCA_HEADER, ORCA_HEADER_BIN, ORCA_REQUEST_HEADER, Tally};
