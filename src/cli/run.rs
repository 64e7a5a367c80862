//! `tradewind run`: serve until told to stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::timeout,
};

use super::Failure;
use crate::{
    admin::Desk,
    config::{self, Settings},
    control::{
        Control,
        handover::{self, Predecessor},
        serve::{self, Running},
    },
    telemetry::logs,
};

/// A start-up that takes longer is said: a disk or a predecessor keeps it waiting.
const START_TIME: Duration = Duration::from_secs(15);

/// How long a start-up that is given up may take to let go of what it has.
const GIVE_UP_WAIT: Duration = Duration::from_millis(500);

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

    let mut running = match start(loaded.settings, args, [&mut terminate, &mut interrupt]).await? {
        Some(running) => running,
        None => return Ok(()),
    };
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

/// Starts serving, on a thread that may wait for a disk. `None` if a signal says to end before that.
async fn start(
    settings: Settings,
    args: Args,
    [terminate, interrupt]: [&mut Signal; 2],
) -> Result<Option<Running>, Failure> {
    let (give_up, given_up) = oneshot::channel::<()>();
    let starting = async move {
        let predecessor = if args.upgrade { Some(predecessor(&settings.state_dir).await?) } else { None };
        let started = serve::start(settings, Some(args.config), predecessor).await;
        started.map_err(|error| Failure::Input(error.to_string()))
    };
    let runtime = Handle::current();
    let mut starting = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                started = starting => started.map(Some),
                _ = given_up => Ok(None),
            }
        })
    });
    let slow = tokio::time::sleep(START_TIME);
    tokio::pin!(slow);
    loop {
        tokio::select! {
            started = &mut starting => {
                let failed = |error| Failure::Input(format!("start-up failed: {error}"));
                return started.map_err(failed).flatten();
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut slow, if !slow.is_elapsed() => tracing::warn!(
                "start-up has not ended after {} s: it waits for a disk (state.dir, certificates), or for the process that \
                 it takes over from",
                START_TIME.as_secs()
            ),
        }
    }
    tracing::warn!("told to end before it served: start-up is given up");
    drop(give_up);
    // What hangs is left behind.
    let _ = timeout(GIVE_UP_WAIT, starting).await;
    Ok(None)
}

async fn predecessor(state_dir: &Path) -> Result<Predecessor, Failure> {
    Predecessor::at(state_dir).await.map_err(|error| {
        let dir = state_dir.display();
        Failure::Input(format!(
            "there is no process to take over from: nothing answers at {dir}/upgrade.sock ({error}); start without --upgrade"
        ))
    })
}

fn handler(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::Input(format!("cannot handle signals: {error}")))
}

/// Reloads beside whatever else goes on; the outcome is in the log and in status.
fn reload(control: Arc<Control>) {
    drop(tokio::task::spawn_blocking(move || drop(control.reload("SIGHUP", None))));
}
