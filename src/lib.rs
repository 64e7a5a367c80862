//! Tradewind sends every inference request where it costs least within its latency objective.
//!
//! Signals in, one pure decision, one table out; a request only reads the table. The rooms, in the order in which to read:
//!
//! - [`model`]: the nouns. No I/O, no clock, no async.
//! - [`cost`]: what one more request at a backend costs, term by term, in dollars. Pure.
//! - [`policy`]: `decide(policy, snapshot, state, now)`. Pure.
//! - [`chart`]: pieces of pictures. Pure.
//! - [`plan`]: what a month costs under each strategy of providing capacity. Pure.
//! - [`rules`]: conditions that operators write, compiled, and worked out on a snapshot. Pure.
//! - [`record`]: what the journal keeps of decisions and of money. Pure.
//! - [`config`]: the TOML file, checked as a whole. Knows files; nobody else does.
//! - [`simulate`]: a virtual world around the same `decide`: what it saves on real history, beside others and the optimum.
//! - [`store`]: what outlives a restart.
//! - [`signals`]: where observations come from: prices, probes, names.
//! - [`proxy`]: the request path, on Pingora.
//! - [`admin`]: the HTTP API for operators.
//! - [`control`]: the loop: collect, decide, publish, journal; start-up and shutdown.
//! - [`telemetry`]: logs and metrics.
//! - [`demo`]: the whole product on one machine.
//! - [`cli`]: one file a subcommand.

pub mod admin;
pub mod chart;
pub mod cli;
pub mod config;
pub mod control;
pub mod cost;
pub mod demo;
pub mod model;
pub mod plan;
pub mod policy;
pub mod proxy;
pub mod record;
pub mod report;
pub mod rules;
pub mod signals;
pub mod simulate;
pub mod store;
pub mod telemetry;
