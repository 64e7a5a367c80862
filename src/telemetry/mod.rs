//! Logs, the access log, and metrics.

pub mod access;
pub mod logs;
pub mod metrics;
