//! The `tradewind` program: parse the command line, do what it says, turn the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    tradewind::cli::Cli::parse().run().await
}
