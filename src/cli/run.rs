//! `tradewind run`: serve until told to stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::{
    admin::Desk,
    config,
    control::{
        Control,
        handover::{self, Predecessor},
        serve,
    },
    telemetry::logs,
};

/// Options of `tradewind run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,
    /// Take over from the process that runs with the same state directory: its sockets, so that no connection is refused, and
    /// its state. It finishes what is under way and ends.
    #[arg(long)]
    upgrade: bool,
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

    let predecessor = if args.upgrade { Some(predecessor(&loaded.settings.state_dir).await?) } else { None };
    let mut running = serve::start(loaded.settings, Some(args.config), predecessor)
        .await
        .map_err(|error| Failure::Input(error.to_string()))?;
    handover::tell_service_manager();
    let shown = |address: Option<SocketAddr>| address.map_or_else(|| "none".to_owned(), |a| a.to_string());
    let (http, https, admin) = (shown(running.http), shown(running.https), running.admin_shown());
    tracing::info!(%http, %https, %admin, "serving");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(running.control.clone()),
            successor = running.successor() => {
                tracing::info!("a successor asks for everything");
                match running.hand_over(successor).await {
                    Ok(()) => break,
                    Err(error) => tracing::error!(%error, "the successor did not serve; this process goes on"),
                }
            }
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

async fn predecessor(state_dir: &Path) -> Result<Predecessor, Failure> {
    Predecessor::at(state_dir).await.map_err(|error| {
        let dir = state_dir.display();
        Failure::Input(format!(
            "there is no process to take over from: nothing answers at {dir}/upgrade.sock ({error}); start without --upgrade"
        ))
    })
}

fn handler(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::Input(format!("cannot handle signals: {error}")))
}

/// Reloads beside whatever else goes on; the outcome is in the log and in status.
fn reload(control: Arc<Control>) {
    drop(tokio::task::spawn_blocking(move || drop(control.reload("SIGHUP", None))));
}
