//! The `tradewind` program: parse the command line, do what it says, turn the outcome into an exit code.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use tradewind::{cli::Cli, telemetry::logs};

/// A request makes some hundred small allocations, most of them in Pingora; this allocator halves what they cost (see
/// `benches/proxy/README.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time that the end of the program gives to threads that still wait for a disk or a resolver. Nothing of theirs is needed
/// any more.
const STRAGGLERS_WAIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli.run());
    runtime.shutdown_timeout(STRAGGLERS_WAIT);
    logs::flush();
    code
}
