//! Replacing the configuration while running: all or nothing.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::{runtime::Handle, sync::watch, task::JoinHandle, time::timeout};

use super::{Active, Control, audit::Change, lock};
use crate::{
    admin::{rehearsal, views::ReloadError},
    config::{self, Https, Settings},
    model::{Cloud, Timestamp},
    signals::prices::{PriceFeed, PriceSettings, Want},
    store::EntryKind,
};

/// How long a reload waits for the names of new backends, and then for their first probes. One that answers later joins when
/// it does. Decisions wait as long, so it is short.
const NEW_SIGNALS_WAIT: Duration = Duration::from_secs(1);

/// The task that reads prices.
pub(super) struct Feed {
    settings: PriceSettings,
    /// What providers are asked for.
    wants: Vec<Want>,
    silent: watch::Receiver<usize>,
    stop: watch::Sender<bool>,
    _task: JoinHandle<()>,
}

impl Control {
    /// Reads the configuration file again and takes it up as a whole, or leaves everything as it is. Blocks; call it from a
    /// thread that may wait, within the runtime.
    pub(super) fn reload_as(&self, author: &str, expected: Option<u64>) -> Result<u64, ReloadError> {
        let _one_at_a_time = lock(&self.reloading);
        let now = Timestamp::now();
        let before = self.active.load().clone();
        if let Some(seen) = expected.filter(|seen| *seen != before.generation) {
            return Err(ReloadError::NotAsSeen(format!(
                "configuration {} is in force, not {seen}, which was seen: look at it again first",
                before.generation
            )));
        }
        // Before the files are read: a change after this is seen by the watch as a new one.
        *lock(&self.seen) = Seen::of(self.config_path.iter().chain(&before.settings.watched));
        // Whatever comes of the rest: whoever moved the file away waits for a new one.
        self.access.iter().for_each(|access| access.reopen());
        let outcome = self.load_and_take_up();
        match &outcome {
            Ok(generation) => {
                self.config_error.store(None);
                lock(&self.seen).add(&self.active.load().settings.watched);
                tracing::info!(generation, author, "the configuration was reloaded");
                let body = json!({ "event": "reloaded", "author": author, "generation": generation });
                self.note(now, EntryKind::Config, None, body);
                self.audit_reload(now, author, &before);
            }
            Err(error) => {
                self.reload_failures.fetch_add(1, Relaxed);
                self.config_error.store(Some(Arc::new(error.to_string())));
                tracing::error!(
                    author,
                    "the configuration was not reloaded, the running one stays:\n{error}"
                );
                let body = json!({ "event": "refused", "author": author, "why": error.to_string() });
                self.note(now, EntryKind::Config, None, body);
                self.renew_certificates();
            }
        }
        outcome
    }

    /// Takes up the certificates of the running configuration that have changed, as far as they can be used: they must not
    /// expire while something else is wrong.
    fn renew_certificates(&self) {
        let active = self.active.load();
        self.renew_admin_certificate(&active.settings);
        let Some(https) = &active.settings.listen.https else { return };
        let (tls, problems) = config::renewed(https);
        for problem in problems {
            tracing::error!("a certificate was not renewed, the one in use stays: {problem}");
        }
        if tls == https.tls {
            return;
        }
        let mut settings = active.settings.clone();
        settings.listen.https = Some(Https { tls, ..https.clone() });
        match self.open_door(&settings) {
            Ok(()) => {
                tracing::info!("certificates were renewed");
                self.active.store(Arc::new(Active { settings, generation: active.generation }));
            }
            Err(error) => tracing::error!(%error, "certificates were not renewed, those in use stay"),
        }
    }

    /// Connections to the admin API get its certificate as it is in its files now. One that cannot be used is not taken up.
    fn renew_admin_certificate(&self, settings: &Settings) {
        let (Some(certificate), Some(files)) = (&self.admin_certificate, &settings.admin.tls) else { return };
        if let Err(error) = certificate.renew(files) {
            tracing::error!("the admin API's certificate was not renewed, the one in use stays: {error}");
        }
    }

    /// What holds for the connections of clients from now on.
    fn open_door(&self, settings: &Settings) -> io::Result<()> {
        let listen = &settings.listen;
        self.door.update(&listen.limits, &listen.trust, listen.https.as_ref().map(|https| &https.tls))
    }

    fn audit_reload(&self, now: Timestamp, author: &str, before: &Active) {
        let active = self.active.load();
        let changed = rehearsal::changes(&before.settings.redacted_json(), &active.settings.redacted_json());
        self.audit_change(
            now,
            Change {
                event: "config.reloaded",
                author,
                before: json!({ "generation": before.generation }),
                after: json!({ "generation": active.generation, "changed": changed }),
                why: "",
            },
        );
    }

    /// The file that a reload reads.
    pub(super) fn config_file(&self) -> Result<&Path, ReloadError> {
        self.config_path.as_deref().ok_or_else(|| {
            ReloadError::NeedsRestart(
                "the configuration was not read from a file, so there is nothing to reload".into(),
            )
        })
    }

    fn load_and_take_up(&self) -> Result<u64, ReloadError> {
        let path = self.config_file()?;
        let loaded = config::load(path).map_err(ReloadError::Invalid)?;
        let active = self.active.load();
        let stuck = needs_restart(&active.settings, &loaded.settings);
        if !stuck.is_empty() {
            return Err(ReloadError::NeedsRestart(format!(
                "{}: {} changed, which needs a restart; the rest was not taken up either",
                path.display(),
                stuck.join(", ")
            )));
        }
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        self.open_door(&loaded.settings).map_err(|error| {
            ReloadError::NeedsRestart(format!("{}: listen.https: {error}", path.display()))
        })?;
        let generation = active.generation + 1;
        self.take_up(loaded.settings, generation);
        Ok(generation)
    }

    /// Points every signal at the backends of `settings`, waits a little for what is new among them, and decides by the new
    /// settings. No decision is made in between, so that none sees backends of one configuration and signals of the other;
    /// the request path goes on as before.
    fn take_up(&self, settings: Settings, generation: u64) {
        self.renew_admin_certificate(&settings);
        let mut brain = lock(&self.brain);
        self.busy.at("waiting for what a reload has brought");
        self.follow_prices(&settings);
        Handle::current().block_on(async {
            tokio::join!(self.first_signals(&settings, NEW_SIGNALS_WAIT), self.first_prices(NEW_SIGNALS_WAIT))
        });
        self.tokens.store(Arc::new(settings.admin.tokens.clone()));
        self.active.store(Arc::new(Active { settings, generation }));
        self.turn_with(&mut brain, Timestamp::now());
        self.busy.done();
    }

    /// Follows the names and probes of these backends, and waits for the first news of those that are new: at most `limit` for
    /// their names, and as long again for their probes. Says whether all of them answered.
    pub(super) async fn first_signals(&self, settings: &Settings, limit: Duration) -> bool {
        self.signals.resolver.reconcile(&settings.backends);
        // Before the probes, which show them.
        self.signals.credentials.reconcile(&settings.backends);
        self.signals.probes.reconcile(&settings.backends);
        self.signals.load.reconcile(&settings.backends);
        let resolved = self.signals.resolver.resolve_all(limit).await;
        let mut changes = self.signals.probes.changes();
        let known = async { while !self.signals.probes.all_known() && changes.changed().await.is_ok() {} };
        let mut news = self.signals.credentials.changes();
        let found = async { while !self.signals.credentials.all_found() && news.changed().await.is_ok() {} };
        let (known, _) = tokio::join!(timeout(limit, known), timeout(limit, found));
        known.is_ok() && resolved
    }

    /// Reads prices from the sources of `settings` from now on. What is known stays.
    pub(super) fn follow_prices(&self, settings: &Settings) {
        let mut feed = lock(&self.feed);
        let wanted = settings.prices.clone();
        let clouds = [Cloud::Aws, Cloud::Gcp].into_iter();
        let asked = clouds.filter(|cloud| wanted.sources.iter().any(|source| source.asks(*cloud)));
        let wants: Vec<Want> = asked.flat_map(|cloud| Want::of(&settings.backends, cloud)).collect();
        if feed.as_ref().is_some_and(|feed| feed.settings == wanted && feed.wants == wants) {
            return;
        }
        if let Some(old) = feed.take() {
            old.stop.send_replace(true);
        }
        let now = Timestamp::now();
        let source = PriceFeed::new(&wanted, &settings.backends, self.signals.book.clone(), now);
        let silent = source.silent();
        let (stop, stopped) = watch::channel(false);
        let task = Handle::current().spawn(source.run(stopped));
        *feed = Some(Feed { settings: wanted, wants, silent, stop, _task: task });
    }

    /// Waits until every file with prices was read and every provider of prices has answered, well or badly; at most `limit`.
    pub(super) async fn first_prices(&self, limit: Duration) {
        let silent = lock(&self.feed).as_ref().map(|feed| feed.silent.clone());
        let Some(mut silent) = silent else { return };
        if timeout(limit, silent.wait_for(|count| *count == 0)).await.is_err() {
            tracing::warn!(
                "not every file or provider of prices answered in time; what is unknown costs nobody traffic"
            );
        }
    }
}

/// Keys that changed although what is bound or opened at start cannot change under way.
pub(super) fn needs_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        ("listen.http", old.listen.http != new.listen.http),
        ("listen.https", https_addr(old) != https_addr(new)),
        ("listen.threads", old.listen.threads != new.listen.threads),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.tls", old.admin.tls.is_some() != new.admin.tls.is_some()),
        ("admin.hosts", old.admin.hosts != new.admin.hosts),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("state.dir", old.state_dir != new.state_dir),
        ("log", old.log != new.log),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

fn https_addr(settings: &Settings) -> Option<SocketAddr> {
    settings.listen.https.as_ref().map(|https| https.addr)
}

/// Files as they were when they were last read.
pub(super) struct Seen(Vec<(PathBuf, Option<FileMark>)>);

impl Seen {
    /// These files as they are now.
    pub(super) fn of<'p>(files: impl Iterator<Item = &'p PathBuf>) -> Seen {
        Seen(files.map(|path| (path.clone(), FileMark::of(path))).collect())
    }

    /// Follows these files, too.
    fn add(&mut self, files: &[PathBuf]) {
        let new = files.iter().filter(|path| !self.0.iter().any(|(known, _)| known == *path));
        let new: Vec<_> = new.map(|path| (path.clone(), FileMark::of(path))).collect();
        self.0.extend(new);
    }

    /// All of them as they are now, if one is another one. A file that is missing for a moment is being replaced.
    pub(super) fn changed(&self) -> Option<Vec<Option<FileMark>>> {
        let now: Vec<Option<FileMark>> = self.0.iter().map(|(path, _)| FileMark::of(path)).collect();
        let differs = |((_, seen), now): (&(PathBuf, Option<FileMark>), &Option<FileMark>)| {
            now.is_some() && now != seen
        };
        self.0.iter().zip(&now).any(differs).then_some(now)
    }
}

/// What tells one content of a file, or of the files of a directory, from another without reading them.
#[derive(PartialEq)]
pub(super) struct FileMark(Vec<(PathBuf, Option<SystemTime>, u64, u64)>);

impl FileMark {
    /// `None` if there is no such file, or no file in the directory.
    fn of(path: &Path) -> Option<FileMark> {
        let mark = |path: PathBuf| {
            // Through symbolic links: Kubernetes replaces what they lead to.
            let metadata = std::fs::metadata(&path).ok()?;
            Some((path, metadata.modified().ok(), metadata.len(), metadata.ino()))
        };
        let marks: Option<Vec<_>> = config::files_at(path).into_iter().map(mark).collect();
        marks.filter(|marks| !marks.is_empty()).map(FileMark)
    }
}
