//! `tradewind check`: all that is wrong with a configuration.

use std::path::PathBuf;

use super::Failure;
use crate::config;

/// Options of `tradewind check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,
}

/// Checks the file and all files that it names.
///
/// # Errors
/// All that is wrong, with file, line, column and a hint.
pub async fn run(args: Args) -> Result<(), Failure> {
    let loaded = config::load(&args.config).map_err(|faults| Failure::Input(faults.to_string()))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let (routes, backends) = (loaded.settings.routes.len(), loaded.settings.backends.len());
    println!("{}: valid ({routes} routes, {backends} backends)", args.config.display());
    Ok(())
}
