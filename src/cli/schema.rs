//! `tradewind schema`: the JSON Schema of the configuration.

use super::Failure;
use crate::config;

/// Options of `tradewind schema`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the schema.
///
/// # Errors
/// None; the signature is that of every command.
pub async fn run(_args: Args) -> Result<(), Failure> {
    println!("{:#}", config::json_schema());
    Ok(())
}
