//! Start-up and shutdown, top to bottom.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{UnixListener as LocalListener, UnixStream as LocalStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::json;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use super::{
    Active, Control, MEMORY_BLOB, PRICES_BLOB, TENANTS_BLOB, Told,
    audit::Refusals,
    board,
    brain::{Brain, Signals},
    handover::{self, LOCK, Other, Predecessor},
    lock,
    notices::{self, Intake, NOTICES_BLOB},
    pace,
    reload::Seen,
    scribe::Scribe,
    vigil::{self, Busy},
};
use crate::{
    admin,
    config::Settings,
    model::{RoutingTable, Timestamp},
    proxy::{Common, Door, Front, FrontOptions, Publisher},
    signals::{
        credentials::CredentialBoard, ejection::EjectionBoard, load::LoadBoard, prices::PriceBook,
        probes::ProbeBoard, resolve::Resolver, traffic::Meters,
    },
    store::{Audit, Blobs, EntryKind, Journal, JournalLimits, LocalDir, Overrides, StoreError},
    telemetry::{
        access::AccessLog,
        otlp::{Exporter, Exports},
    },
};

/// How long start-up waits for the names of backends, and then for their first probes. A backend that answers later joins
/// when it does.
const FIRST_SIGNALS_WAIT: Duration = Duration::from_secs(3);

/// How long a restart waits for its predecessor to let go of the state directory.
const STATE_DIR_WAIT: Duration = Duration::from_secs(10);

/// How long the end of the process waits for a collector to take what is left.
const LAST_EXPORT_WAIT: Duration = Duration::from_secs(2);

/// How long the end of the process waits for the last lines of the access log.
const ACCESS_FLUSH: Duration = Duration::from_secs(2);

/// How long the end of the process waits for what runs beside the requests: a little longer than calls of the admin API may take.
const WORK_END_WAIT: Duration = Duration::from_secs(6);

/// How long it waits for a last decision, which the policy's state and the accounts are written down after.
const LAST_DECISION_WAIT: Duration = Duration::from_secs(2);

/// The key of the admin API's address, by which a successor finds its listener.
const ADMIN: &str = "admin.listen";

/// How often the configuration file and secrets are looked at for a change.
const FILE_WATCH_INTERVAL: Duration = Duration::from_secs(1);

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
    /// The admin API's certificate cannot be used.
    #[error("admin.tls: {0}")]
    AdminTls(io::Error),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] StoreError),
    /// The predecessor did not hand over what it has.
    #[error("cannot take over from the running process: {0}; it goes on as before")]
    Handover(io::Error),
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
    /// Address for TLS, if there is one.
    pub https: Option<SocketAddr>,
    /// Address of the admin API, if it has one beside its socket.
    pub admin: Option<SocketAddr>,
    front: Front,
    work: Work,
    /// Copies of what is listened on, for a successor.
    sockets: Vec<(&'static str, TcpListener)>,
    dir: Arc<LocalDir>,
    /// Where a successor asks; `None` if that cannot be.
    bell: Option<UnixListener>,
    handed_over: bool,
}

/// What runs beside the requests.
struct Work {
    stop: watch::Sender<bool>,
    /// With what each does, in words.
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

/// Starts everything that `settings` ask for; returns when requests are being served. `config_path` is what a reload reads. A
/// predecessor serves until then, and ends.
///
/// # Errors
/// When an address, the state directory or a certificate cannot be used. Nothing is left running then, but a predecessor.
pub async fn start(
    settings: Settings,
    config_path: Option<PathBuf>,
    mut predecessor: Option<Predecessor>,
) -> Result<Running, StartError> {
    let mut bind = |address, key| match predecessor.as_mut().and_then(|old| old.listener(key, address)) {
        Some(listener) => Ok(listener),
        None => bind(address, key),
    };
    let http = settings.listen.http.map(|address| bind(address, "listen.http")).transpose()?;
    let https = settings.listen.https.as_ref();
    let https = https.map(|https| bind(https.addr, "listen.https")).transpose()?;
    let admin = settings.admin.listen.map(|address| bind(address, ADMIN)).transpose()?;
    let mut sockets = Vec::new();
    for (key, socket) in [("listen.http", &http), ("listen.https", &https), (ADMIN, &admin)] {
        if let Some(socket) = socket {
            sockets.push((key, socket.try_clone().map_err(StartError::Front)?));
        }
    }

    let dir = match &mut predecessor {
        None => open_state_dir(&settings.state_dir).await?,
        Some(old) => {
            let lock = old.state().await.map_err(StartError::Handover)?;
            LocalDir::open_with(&settings.state_dir, lock)?
        }
    };
    let dir = Arc::new(dir);
    let control = Arc::new(open(settings, config_path, dir.clone())?);
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
    let options = FrontOptions { http, https, door: control.door.clone(), threads };
    let front = Front::start(&control.publisher, options).map_err(StartError::Front)?;

    let work = Work::start(&control, &sockets)?;
    let bell = bell(dir.path());
    if let Some(old) = predecessor {
        old.serving().await.map_err(StartError::Handover)?;
    }
    control.note_start();
    let (http, https) = (front.http(), front.https());
    let admin = admin.and_then(|socket| socket.local_addr().ok());
    Ok(Running { http, https, control, admin, front, work, sockets, dir, bell, handed_over: false })
}

impl Work {
    /// # Errors
    /// When the admin API cannot be reached. Nothing runs then.
    fn start(control: &Arc<Control>, sockets: &[(&'static str, TcpListener)]) -> Result<Work, StartError> {
        // Here, since a predecessor takes its own away when it has handed over.
        let settings = control.active.load().settings.clone();
        let local = settings.admin.socket.as_deref().map(bind_local).transpose()?.map(Arc::new);
        let admin = sockets.iter().find(|(key, _)| *key == ADMIN);
        let admin = admin.map(|(_, socket)| socket.try_clone()).transpose().map_err(StartError::Front)?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = vec![
            ("the control loop", tokio::spawn(pace::turns(control.clone(), stopped.clone()))),
            ("what wakes the control loop", tokio::spawn(pace::wakes(control.clone(), stopped.clone()))),
            ("what watches the control loop", tokio::spawn(vigil::watch(control.clone(), stopped.clone()))),
            ("sending metrics", tokio::spawn(measures(control.clone(), stopped.clone()))),
            ("the admin API", tokio::spawn(serve_admin(control.clone(), admin, local, stopped.clone()))),
        ];
        if control.config_path.is_some() {
            tasks.push(("reading the configuration", tokio::spawn(watch_files(control.clone(), stopped))));
        }
        Ok(Work { stop, tasks })
    }

    /// Waits until nothing of it runs any more, but not for what hangs: that is left behind, and said.
    async fn end(&mut self) {
        self.stop.send_replace(true);
        let end = tokio::time::Instant::now() + WORK_END_WAIT;
        for (what, mut task) in self.tasks.drain(..) {
            match tokio::time::timeout_at(end, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "{what} had failed before the shutdown"),
                Err(_) => {
                    tracing::error!("{what} has not ended in time and is not waited for any longer");
                    task.abort();
                }
            }
        }
    }
}

impl Running {
    /// Where the admin API is, as `--admin` takes it but for the scheme of an address.
    pub fn admin_shown(&self) -> String {
        let socket = &self.control.active.load().settings.admin.socket;
        match (self.admin, socket) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => "none".to_owned(),
        }
    }

    /// Readiness goes down, nothing more is accepted, and requests under way finish within the configured time. Returns how
    /// many were cut off at its end.
    pub async fn drain(self) -> u64 {
        let Running { control, front, mut work, sockets, bell, handed_over, .. } = self;
        control.start_draining();
        // Or another successor would wait here for as long as streams last, in place of asking the one that serves now.
        drop(bell);
        // Or connections would wait for somebody to accept them.
        drop(sockets);
        let deadline = control.active.load().settings.listen.drain_timeout;
        let cut_off = front.drain(deadline).await;
        if !handed_over {
            work.end().await;
            control.close_in_time(json!({ "event": "stopped", "cut_off": cut_off })).await;
        }
        if let Some(access) = &control.access {
            access.flush(ACCESS_FLUSH);
        }
        control.send_the_rest().await;
        cut_off
    }

    /// Waits until a successor asks for what this process has.
    pub async fn successor(&self) -> UnixStream {
        if let Some(bell) = &self.bell {
            match bell.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => tracing::warn!(%error, "no successor will be heard any more"),
            }
        }
        std::future::pending().await
    }

    /// Hands everything over to a successor; what is left then is to [`drain`](Self::drain).
    ///
    /// # Errors
    /// When it does not get as far as to serve. This process goes on as before.
    pub async fn hand_over(&mut self, to: UnixStream) -> io::Result<()> {
        let mut other = Other::new(to);
        let sockets = self.sockets.iter().map(|(name, socket)| (*name, socket.as_fd()));
        let all: Vec<_> = sockets.chain([(LOCK, self.dir.lock().as_fd())]).collect();
        other.give(&all)?;
        drop(all);
        other.hear("take").await?;
        // Requests go on by the last table.
        self.work.end().await;
        self.control.close_in_time(json!({ "event": "stopped", "handed_over": true })).await;
        if !self.control.scribe.finish() {
            tracing::error!("the journal could not be written to its end in time");
        }
        // Also if a decision that hangs goes on later: the state is the successor's then.
        self.control.scribe.rest(true);
        let served = async {
            other.say("yours").await?;
            other.hear("serving").await
        };
        let served = served.await;
        match served {
            Ok(()) => self.handed_over = true,
            Err(_) => {
                self.control.scribe.rest(false);
                self.work = Work::start(&self.control, &self.sockets).map_err(io::Error::other)?;
                self.bell = bell(self.dir.path());
                self.control.note_start();
            }
        }
        served
    }
}

impl Control {
    fn note_start(&self) {
        let body = json!({ "event": "started", "version": env!("CARGO_PKG_VERSION") });
        self.note(Timestamp::now(), EntryKind::Process, None, body);
    }

    /// As [`close`](Self::close), but a decision that hangs is not waited for: the process must be able to end.
    async fn close_in_time(self: &Arc<Control>, body: serde_json::Value) {
        let control = self.clone();
        let closing = tokio::task::spawn_blocking(move || control.close(body));
        match tokio::time::timeout(LAST_DECISION_WAIT, closing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the last decision failed; what it leaves is not written down")
            }
            Err(_) => tracing::error!(
                "the last decision has not ended in time: the policy's state is as it was written down last, and the last minute \
                 is in no account"
            ),
        }
    }

    /// The last words of this process, unless it goes on after all.
    fn close(&self, body: serde_json::Value) {
        let now = Timestamp::now();
        self.turn(now);
        let settings = &self.active.load().settings;
        let mut brain = lock(&self.brain);
        let accounts = brain.close_accounts(settings, &self.signals, now);
        self.save_memory(&brain);
        drop(brain);
        self.note_accounts(accounts, now);
        self.note(now, EntryKind::Process, None, body);
        self.save_prices(settings);
        self.save_notices(true);
        self.save_tenants(settings, now);
    }
}

/// Where a successor can ask. Without it everything else works.
fn bell(state_dir: &Path) -> Option<UnixListener> {
    let bell = handover::listen(state_dir);
    bell.inspect_err(|error| tracing::warn!(%error, "this process cannot be upgraded without a stop")).ok()
}

impl Control {
    /// Sends the metrics to a collector that wants them.
    async fn send_metrics(self: &Arc<Control>) {
        let wanted = |exporter: &Exporter| exporter.settings.metrics_every.is_some();
        let measures = lock(&self.exporter).as_ref().filter(|of| wanted(of)).map(|of| of.measures.clone());
        let Some(measures) = measures else { return };
        let control = self.clone();
        let view = tokio::task::spawn_blocking(move || control.metrics_view()).await;
        match view {
            Ok(view) => measures.send(&view, self.started_at).await,
            Err(error) => tracing::error!(%error, "metrics could not be drawn up"),
        }
    }

    /// Sends what a collector has not got yet. No request is under way any more.
    async fn send_the_rest(self: &Arc<Control>) {
        let rest = async {
            self.send_metrics().await;
            let Some(exporter) = lock(&self.exporter).take() else { return };
            // The table has a tracer, too.
            self.publisher.publish(&RoutingTable::default(), Common::default());
            exporter.stop().await;
        };
        if tokio::time::timeout(LAST_EXPORT_WAIT, rest).await.is_err() {
            tracing::warn!("the collector did not take the last spans, metrics and log records in time");
        }
    }
}

fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|cause| StartError::Listen { address, key, cause })
}

/// Opens a Unix socket that only this user can open. Made in a directory of its own, so that there is no moment at which others
/// can, and put in place as a whole, over one that a crash left.
fn bind_local(path: &Path) -> Result<LocalListener, StartError> {
    let failed = |cause: io::Error| StartError::Socket { path: path.to_owned(), cause };
    if LocalStream::connect(path).is_ok() {
        return Err(failed(io::ErrorKind::AddrInUse.into()));
    }
    let beside = path.with_file_name(format!(".tradewind-socket.{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&beside).map_err(failed)?;
    let made = beside.join("s");
    let bound = LocalListener::bind(&made).and_then(|listener| {
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
fn open(settings: Settings, config_path: Option<PathBuf>, dir: Arc<LocalDir>) -> Result<Control, StartError> {
    let now = Timestamp::now();
    let seen = Seen::of(config_path.iter().chain(&settings.watched));
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
    let listen = &settings.listen;
    let tls = listen.https.as_ref().map(|https| &https.tls);
    let door = Door::new(meters.connections.clone(), &listen.limits, &listen.trust, tls);
    let door = Arc::new(door.map_err(StartError::Front)?);
    let admin_certificate = settings.admin.tls.as_ref().map(admin::Certificate::new).transpose();
    let admin_certificate = admin_certificate.map_err(StartError::AdminTls)?.map(Arc::new);
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
        started_at: SystemTime::now(),
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
        exports: Exports::default(),
        tokens,
        admin_certificate,
        scribe,
        brain: Mutex::new(memory.map_or_else(Brain::default, Brain::resuming)),
        busy: Busy::default(),
        picture: ArcSwapOption::empty(),
        published: Mutex::new(RoutingTable::default()),
        told: Mutex::new(Told::default()),
        intake: Mutex::new(Intake::new(Instant::now())),
        feed: Mutex::new(None),
        reloading: Mutex::new(()),
        seen: Mutex::new(seen),
        door,
        was_ready: AtomicBool::new(false),
        config_error: ArcSwapOption::empty(),
        reload_failures: Default::default(),
        turns: Default::default(),
        turning_micros: Default::default(),
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
    let mut said = false;
    loop {
        match LocalDir::open(path) {
            Err(error @ StoreError::InUse { .. }) if Instant::now() < end => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("{error}; waiting");
                }
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

/// Sends metrics to a collector, as often as it wants them.
async fn measures(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    loop {
        let every = control.active.load().settings.otlp.as_ref().and_then(|otlp| otlp.metrics_every);
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            // A reload may begin it.
            () = tokio::time::sleep(every.unwrap_or(FILE_WATCH_INTERVAL)) => {}
        }
        if every.is_some() {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return,
                () = control.send_metrics() => {}
            }
        }
    }
}

async fn serve_admin(
    control: Arc<Control>,
    listener: Option<TcpListener>,
    socket: Option<Arc<LocalListener>>,
    mut stopped: watch::Receiver<bool>,
) {
    let admin = &control.active.load().settings.admin;
    let options = admin::Options {
        tokens: control.tokens.clone(),
        hosts: admin.hosts.clone(),
        socket,
        tls: control.admin_certificate.clone(),
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
    let mut before = None;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(FILE_WATCH_INTERVAL) => {}
        }
        let looking = control.clone();
        // A file system that hangs must not hold a thread of the runtime.
        let looked = tokio::task::spawn_blocking(move || lock(&looking.seen).changed()).await;
        // Certificate and key may be written one after the other: they fit once all have come to rest.
        let changed = looked.ok().flatten();
        let at_rest = changed.is_some() && changed == before;
        before = changed;
        if !at_rest {
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
