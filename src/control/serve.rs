//! Start-up and shutdown, top to bottom.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Active, Control, MEMORY_BLOB, PRICES_BLOB, TENANTS_BLOB, Told,
    audit::Refusals,
    board,
    brain::{Brain, Signals},
    lock,
    notices::{self, Intake, NOTICES_BLOB},
    reload::Seen,
    scribe::Scribe,
};
use crate::{
    admin,
    config::Settings,
    model::{RoutingTable, Timestamp},
    proxy::{Common, Front, FrontOptions, Publisher},
    signals::{
        credentials::CredentialBoard, ejection::EjectionBoard, load::LoadBoard, prices::PriceBook,
        probes::ProbeBoard, resolve::Resolver, traffic::Meters,
    },
    store::{Audit, Blobs, EntryKind, Journal, JournalLimits, LocalDir, Overrides, StoreError},
    telemetry::access::AccessLog,
};

/// How long start-up waits for the names of backends, and then for their first probes. A backend that answers later joins
/// when it does.
const FIRST_SIGNALS_WAIT: Duration = Duration::from_secs(3);

/// How long a restart waits for its predecessor to let go of the state directory.
const STATE_DIR_WAIT: Duration = Duration::from_secs(10);

/// How long the end of the process waits for a collector to take the last spans.
const LAST_SPANS_WAIT: Duration = Duration::from_secs(2);

/// How long the end of the process waits for the last lines of the access log.
const ACCESS_FLUSH: Duration = Duration::from_secs(2);

/// How often the configuration file and secrets are looked at for a change.
const FILE_WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Turns that signals wake the loop for are at least this far apart, so that a flapping name does not make it spin.
const WAKE_SPACING: Duration = Duration::from_millis(20);

/// Why the program could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {cause}; is another process using it?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The key in the configuration.
        key: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// The admin API's Unix socket cannot be opened.
    #[error("cannot listen on {path} (admin.socket): {cause}; is its directory there, and another process using it?", path = path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] StoreError),
    /// The access log cannot be written.
    #[error("cannot write the access log {} (log.access.file): {cause}", file.display())]
    Access {
        /// Where it goes.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The request path cannot be started.
    #[error("cannot start serving: {0}")]
    Front(io::Error),
}

/// The running program.
pub struct Running {
    /// What can be asked of it.
    pub control: Arc<Control>,
    /// Address for plain HTTP, if there is one.
    pub http: Option<SocketAddr>,
    /// Address of the admin API.
    pub admin: SocketAddr,
    front: Front,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts everything that `settings` ask for; returns when requests are being served. `config_path` is what a reload reads.
///
/// # Errors
/// When an address, the state directory or a certificate cannot be used. Nothing is left running then.
pub async fn start(settings: Settings, config_path: Option<PathBuf>) -> Result<Running, StartError> {
    let http = settings.listen.http.map(|address| bind(address, "listen.http")).transpose()?;
    let https = match &settings.listen.https {
        Some(https) => Some((bind(https.addr, "listen.https")?, https.cert.clone(), https.key.clone())),
        None => None,
    };
    let admin_socket = bind(settings.admin.listen, "admin.listen")?;
    let local = settings.admin.socket.as_deref().map(bind_local).transpose()?.map(Arc::new);
    let admin = admin_socket.local_addr().unwrap_or(settings.admin.listen);

    let control = Arc::new(open(settings, config_path).await?);
    let settings = control.active.load().settings.clone();
    control.follow_prices(&settings);
    let (answered, ()) = tokio::join!(
        control.first_signals(&settings, FIRST_SIGNALS_WAIT),
        control.first_prices(FIRST_SIGNALS_WAIT)
    );
    if !answered {
        tracing::warn!("not every backend answered its first probe in time; those that did not are left out");
    }
    control.turn(Timestamp::now());

    let threads = settings.listen.threads.unwrap_or_else(cores);
    let options = FrontOptions { http, https, threads };
    let front = Front::start(&control.publisher, options).map_err(StartError::Front)?;

    let (stop, stopped) = watch::channel(false);
    let mut tasks = vec![
        tokio::spawn(turns(control.clone(), stopped.clone())),
        tokio::spawn(wakes(control.clone(), stopped.clone())),
        tokio::spawn(serve_admin(control.clone(), admin_socket, local, stopped.clone())),
    ];
    if control.config_path.is_some() {
        tasks.push(tokio::spawn(watch_files(control.clone(), stopped)));
    }
    let body = json!({ "event": "started", "version": env!("CARGO_PKG_VERSION") });
    control.note(Timestamp::now(), EntryKind::Process, None, body);
    Ok(Running { http: front.http(), control, admin, front, stop, tasks })
}

impl Running {
    /// Readiness goes down, nothing more is accepted, and requests under way finish within the configured time. Returns how
    /// many were cut off at its end.
    pub async fn drain(self) -> u64 {
        let Running { control, front, stop, tasks, .. } = self;
        control.start_draining();
        let deadline = control.active.load().settings.listen.drain_timeout;
        let cut_off = front.drain(deadline).await;
        stop.send_replace(true);
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task had failed before the shutdown");
            }
        }
        let body = json!({ "event": "stopped", "cut_off": cut_off });
        let now = Timestamp::now();
        control.turn(now);
        let accounts = {
            let settings = &control.active.load().settings;
            let mut brain = lock(&control.brain);
            let accounts = brain.close_accounts(settings, &control.signals, now);
            control.save_memory(&brain);
            accounts
        };
        control.note_accounts(accounts, now);
        control.note(now, EntryKind::Process, None, body);
        control.save_prices(&control.active.load().settings);
        control.save_notices(true);
        control.save_tenants(&control.active.load().settings, now);
        if let Some(access) = &control.access {
            access.flush(ACCESS_FLUSH);
        }
        control.send_spans().await;
        cut_off
    }
}

impl Control {
    /// Sends the spans that still wait. No request is under way any more.
    async fn send_spans(&self) {
        let Some(exporter) = lock(&self.exporter).take() else { return };
        let task = exporter.task;
        drop(exporter.tracer);
        // The table has the other tracer.
        self.publisher.publish(&RoutingTable::default(), Common::default());
        if tokio::time::timeout(LAST_SPANS_WAIT, task).await.is_err() {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|cause| StartError::Listen { address, key, cause })
}

/// Opens a Unix socket that only this user can open. Made in a directory of its own, so that there is no moment at which others
/// can, and put in place as a whole, over one that a crash left.
fn bind_local(path: &Path) -> Result<UnixListener, StartError> {
    let failed = |cause: io::Error| StartError::Socket { path: path.to_owned(), cause };
    if UnixStream::connect(path).is_ok() {
        return Err(failed(io::ErrorKind::AddrInUse.into()));
    }
    let beside = path.with_file_name(format!(".tradewind-socket.{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&beside).map_err(failed)?;
    let made = beside.join("s");
    let bound = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    // Nothing of it is needed once the socket is where it belongs.
    let _ = fs::remove_dir_all(&beside);
    bound.map_err(failed)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Opens what outlives a restart and puts the parts together. Nothing runs yet.
async fn open(settings: Settings, config_path: Option<PathBuf>) -> Result<Control, StartError> {
    let now = Timestamp::now();
    let seen = Seen::of(config_path.iter().chain(&settings.watched));
    let dir = Arc::new(open_state_dir(&settings.state_dir).await?);
    let blobs: Arc<dyn Blobs> = dir.clone();
    let (overrides, warning) = Overrides::open(blobs.clone(), now)?;
    let journal = Arc::new(Journal::open(dir.path(), JournalLimits::default())?);
    let overrides = Arc::new(overrides);
    let scribe =
        Scribe::start(journal.clone(), blobs.clone(), overrides.clone()).map_err(StartError::Front)?;

    let mut book = PriceBook::new(&settings.prices);
    if let Some(text) = read_blob(&*blobs, PRICES_BLOB)
        && let Err(why) = book.restore_json(&text, now)
    {
        tracing::warn!("{PRICES_BLOB}: {why}; prices are read anew");
    }
    let memory = read_blob(&*blobs, MEMORY_BLOB).and_then(|text| {
        serde_json::from_str(&text)
            .inspect_err(|why| tracing::warn!("{MEMORY_BLOB}: {why}; traffic is placed anew"))
            .ok()
    });
    let access = match &settings.log.access {
        Some(access) => Some(Arc::new(AccessLog::start(access).map_err(|cause| StartError::Access {
            file: access.file.clone().unwrap_or_else(|| "standard output".into()),
            cause,
        })?)),
        None => None,
    };
    let meters = Arc::new(Meters::default());
    let tokens = Arc::new(ArcSwap::from_pointee(settings.admin.tokens.clone()));
    if let Some(text) = read_blob(&*blobs, TENANTS_BLOB) {
        match serde_json::from_str(&text) {
            Ok(saved) => meters.restore_tenants(&saved),
            Err(why) => tracing::warn!("{TENANTS_BLOB}: {why}; what tenants have spent is counted anew"),
        }
    }
    let credentials = Arc::new(CredentialBoard::default());
    let signals = Signals {
        meters: meters.clone(),
        probes: ProbeBoard::showing(credentials.clone()),
        load: LoadBoard::new(meters.clone()),
        ejection: EjectionBoard::new(meters.clone()),
        resolver: Resolver::new(),
        credentials: credentials.clone(),
        book: Arc::new(Mutex::new(book)),
        notices: Mutex::new(notices::restored(read_blob(&*blobs, NOTICES_BLOB), now)),
    };
    let control = Control {
        started: Instant::now(),
        config_path,
        active: ArcSwap::from_pointee(Active { settings, generation: 1 }),
        signals,
        publisher: Publisher::new(meters),
        access,
        overrides,
        journal: journal.clone(),
        audit: Audit::open(journal.clone()),
        refusals: Refusals::default(),
        giving: Mutex::new(()),
        exporter: Mutex::new(None),
        spans: Arc::default(),
        tokens,
        scribe,
        brain: Mutex::new(memory.map_or_else(Brain::default, Brain::resuming)),
        picture: ArcSwapOption::empty(),
        published: Mutex::new(RoutingTable::default()),
        told: Mutex::new(Told::default()),
        intake: Mutex::new(Intake::new(Instant::now())),
        feed: Mutex::new(None),
        reloading: Mutex::new(()),
        seen: Mutex::new(seen),
        was_ready: AtomicBool::new(false),
        config_error: ArcSwapOption::empty(),
        reload_failures: Default::default(),
        turns: Default::default(),
        saved_prices: Default::default(),
        draining: AtomicBool::new(false),
        trends: Mutex::new(board::remembered(&journal, now)),
        revision: watch::Sender::new(0),
        shown: Default::default(),
        wake: tokio::sync::Notify::new(),
    };
    if let Some(warning) = warning {
        tracing::error!("{warning}");
        control.note(now, EntryKind::State, None, json!({ "event": "lost", "why": warning.to_string() }));
    }
    Ok(control)
}

/// Opens the state directory; a predecessor that is just ending is waited for.
async fn open_state_dir(path: &Path) -> Result<LocalDir, StoreError> {
    let end = Instant::now() + STATE_DIR_WAIT;
    loop {
        match LocalDir::open(path) {
            Err(error @ StoreError::InUse { .. }) if Instant::now() < end => {
                tracing::info!("{error}; waiting");
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            other => return other,
        }
    }
}

fn read_blob(blobs: &dyn Blobs, name: &str) -> Option<String> {
    match blobs.get(name) {
        Ok(bytes) => String::from_utf8(bytes?).inspect_err(|why| tracing::warn!("{name}: {why}")).ok(),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}

/// The loop: a turn every tick, and at once when woken.
async fn turns(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    loop {
        let tick = control.active.load().settings.tick;
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(tick) => {}
            () = control.wake.notified() => {}
        }
        let turning = control.clone();
        let turned = tokio::task::spawn_blocking(move || turning.turn(Timestamp::now())).await;
        if let Err(error) = turned {
            tracing::error!(%error, "a decision failed; traffic goes on as before, and it is tried again");
        }
        tokio::time::sleep(WAKE_SPACING).await;
    }
}

/// Wakes the loop when a backend's health or addresses change.
async fn wakes(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    let mut health = control.signals.probes.changes();
    let mut names = control.signals.resolver.changes();
    let mut credentials = control.signals.credentials.changes();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            changed = health.changed() => if changed.is_err() { return },
            changed = names.changed() => if changed.is_err() { return },
            changed = credentials.changed() => if changed.is_err() { return },
        }
        control.wake.notify_one();
    }
}

async fn serve_admin(
    control: Arc<Control>,
    listener: TcpListener,
    socket: Option<Arc<UnixListener>>,
    mut stopped: watch::Receiver<bool>,
) {
    let admin = &control.active.load().settings.admin;
    let options = admin::Options {
        tokens: control.tokens.clone(),
        hosts: admin.hosts.clone(),
        socket,
        tls: admin.tls.clone(),
    };
    let shutdown = async move {
        // An error means that the program is ending without having said so.
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    if let Err(error) = admin::serve(listener, options, control.clone(), shutdown).await {
        tracing::error!(%error, "the admin API has ended; traffic goes on");
    }
    if let Some(path) = &admin.socket {
        // Nobody answers there any more.
        let _ = fs::remove_file(path);
    }
}

/// Reloads when the configuration or a secret changes, also by a swapped symbolic link as Kubernetes does it.
async fn watch_files(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(FILE_WATCH_INTERVAL) => {}
        }
        if !lock(&control.seen).has_changed() {
            continue;
        }
        let reloading = control.clone();
        let reloaded =
            tokio::task::spawn_blocking(move || reloading.reload_as("file watch", None).is_ok()).await;
        if let Err(error) = reloaded {
            tracing::error!(%error, "a reload failed");
        }
    }
}
