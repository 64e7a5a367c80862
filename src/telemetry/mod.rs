//! Logs, the access log, metrics and traces.

pub mod access;
pub mod logs;
pub mod metrics;
pub mod otlp;
