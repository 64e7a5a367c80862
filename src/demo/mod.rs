//! The whole product on one machine, with nothing to set up.
//!
//! Three [`cluster`]s that pretend to generate, [`clients`] that ask them through the product, recorded prices that pass
//! quickly ([`scenario`]), a [`view`] of what happens and a [`summary`] of what it cost ([`ledger`]). Between clusters and
//! clients stands what `tradewind run` starts, from a configuration file like any other: see [`run()`].

mod answer;
pub mod clients;
pub mod cluster;
pub mod ledger;
pub mod moves;
#[cfg(test)]
mod recording;
mod run;
pub mod scenario;
mod screen;
pub mod summary;
pub mod tally;
mod text;
pub mod trace;
mod verify;
pub mod view;
mod workspace;

pub use run::{DemoError, Options, run};
