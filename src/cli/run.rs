//! `tradewind run`: serve until told to stop.

use std::{path::PathBuf, sync::Arc};

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::{
    admin::Desk,
    config,
    control::{Control, serve},
    telemetry::logs,
};

/// Options of `tradewind run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,
}

/// Serves until SIGTERM or SIGINT, then finishes what is under way. SIGHUP reloads.
///
/// # Errors
/// When the configuration is wrong, or an address or the state directory cannot be used.
pub async fn run(args: Args) -> Result<(), Failure> {
    let loaded = config::load(&args.config).map_err(|faults| Failure::Input(faults.to_string()))?;
    logs::init(&loaded.settings.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // Before anything is served, so that a signal never meets a process without a handler.
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hang_up = handler(SignalKind::hangup())?;

    let running = serve::start(loaded.settings, Some(args.config))
        .await
        .map_err(|error| Failure::Input(error.to_string()))?;
    let http = running.http.map_or_else(|| "none".to_owned(), |address| address.to_string());
    tracing::info!(%http, admin = %running.admin, "serving");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(running.control.clone()),
        }
    }
    tracing::info!("draining: finishing what is under way; a second signal ends at once");
    let cut_off = tokio::select! {
        cut_off = running.drain() => cut_off,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if cut_off > 0 {
        tracing::warn!(
            cut_off,
            "requests were still under way at the end of the drain time and were cut off"
        );
    } else {
        tracing::info!("drained: every request under way has ended");
    }
    Ok(())
}

fn handler(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::Input(format!("cannot handle signals: {error}")))
}

/// Reloads beside whatever else goes on; the outcome is in the log and in status.
fn reload(control: Arc<Control>) {
    drop(tokio::task::spawn_blocking(move || drop(control.reload("SIGHUP", None))));
}
