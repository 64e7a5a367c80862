//! The control loop: collect, decide, publish, journal. It may be late, wrong-footed or dead: traffic goes on with the last
//! table.
//!
//! Read in this order: [`serve`] (start-up and shutdown as a list), this file (a turn of the loop and what may be asked of it), `pace.rs` (when it turns),
//! `brain.rs` (one turn), `rules.rs` (what operators' rules say in it), `accounts.rs` (what it came to), `rates.rs` (what a request costs from then on), `shadow.rs` (what other policies
//! would do), `desk.rs` (what operators ask), `board.rs` (what the dashboard shows) with `trends.rs` and `savings.rs` (what it
//! remembers), `preview.rs` (what an override would do), `rehearsal.rs` (what a reload would do), `audit.rs` (who changed what), `notices.rs` (what is told about nodes), `reload.rs`, `handover.rs` (to a successor), `scribe.rs` (what is written to
//! disk) and `vigil.rs` (what is said when something does not end).

mod accounts;
mod audit;
mod board;
mod brain;
mod desk;
pub mod handover;
mod notices;
mod pace;
mod preview;
mod rates;
mod rehearsal;
mod reload;
mod rules;
mod savings;
mod scribe;
pub mod serve;
mod shadow;
mod trends;
mod vigil;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::{
    admin::{Certificate, board::Savings},
    config::{self, Settings},
    model::{
        Action, Backend, BackendId, Decision, Health, Offer, Price, PriceState, RouteId, RoutingTable,
        Timestamp,
    },
    policy::explain,
    proxy::{Common, Door, Publisher, tenant::Guests},
    record::{self, Account, inputs::policy_version},
    signals::traces::Tracer,
    store::{EntryKind, JournalEntry, Overrides},
    telemetry::{
        access::AccessLog,
        otlp::{Exporter, Exports},
    },
};
use audit::Refusals;
use brain::{Brain, RoutePicture, Signals, Turn};
use notices::Intake;
use reload::{Feed, Seen};
use scribe::{Note, Scribe};
use trends::Trends;
use vigil::Busy;

/// Blob in which the policy's state outlives a restart.
const MEMORY_BLOB: &str = "policy.json";

/// Blob in which the last good prices outlive a restart.
pub(crate) const PRICES_BLOB: &str = "prices.json";

/// Blob in which what tenants have spent outlives a restart.
const TENANTS_BLOB: &str = "tenants.json";

/// A reason that changes without a move is journaled at most so often for each route: prices that hover around a threshold
/// must not fill the journal.
const REASON_SPACING: Duration = Duration::from_secs(10);

/// How often prices, notices and the policy's state are written down when nothing moves, in turns of the loop.
const SAVE_EVERY: u64 = 60;

/// The configuration in force.
struct Active {
    settings: Settings,
    generation: u64,
}

/// Everything as the last turn left it: what status and metrics read.
struct Picture {
    taken: Instant,
    routes: Vec<RoutePicture>,
    spent_usd: Vec<(RouteId, BackendId, f64)>,
    saved_usd: Vec<(RouteId, f64)>,
    savings: Savings,
}

/// The running program, apart from its request path.
pub struct Control {
    started: Instant,
    /// The same by the clock on the wall: what was counted since then is always told with the same time.
    started_at: SystemTime,
    config_path: Option<PathBuf>,
    active: ArcSwap<Active>,
    signals: Signals,
    publisher: Publisher,
    access: Option<Arc<AccessLog>>,
    overrides: Arc<Overrides>,
    journal: Arc<crate::store::Journal>,
    audit: crate::store::Audit,
    refusals: Refusals,
    /// Held while an override is given by a key, so that two with the same do not both find none.
    giving: Mutex<()>,
    /// What sends to a collector; `None` where there is none.
    exporter: Mutex<Option<Exporter>>,
    exports: Exports,
    /// Who may call the admin API now.
    tokens: Arc<ArcSwap<Vec<config::Token>>>,
    /// What the admin API is served with; `None` if it is served without TLS.
    admin_certificate: Option<Arc<Certificate>>,
    scribe: Scribe,
    brain: Mutex<Brain>,
    /// What the holder of the brain does with it.
    busy: Busy,
    picture: ArcSwapOption<Picture>,
    published: Mutex<RoutingTable>,
    told: Mutex<Told>,
    intake: Mutex<Intake>,
    feed: Mutex<Option<Feed>>,
    reloading: Mutex<()>,
    /// The configuration file, and those of certificates and secrets that it names, as they were when they were last read.
    seen: Mutex<Seen>,
    door: Arc<Door>,
    was_ready: AtomicBool,
    config_error: ArcSwapOption<String>,
    reload_failures: AtomicU64,
    turns: AtomicU64,
    /// Time that turns took in all, in microseconds.
    turning_micros: AtomicU64,
    /// The revision of the price book that was written down last.
    saved_prices: AtomicU64,
    draining: AtomicBool,
    trends: Mutex<Trends>,
    /// Counts what a reader of the dashboard would see as another picture.
    revision: watch::Sender<u64>,
    /// What that was last, as a hash.
    shown: AtomicU64,
    wake: Notify,
}

/// What the journal was told last, so that it is told only what changed; and what metrics count of it.
#[derive(Default)]
struct Told {
    reasons: HashMap<RouteId, (&'static str, Timestamp)>,
    health: HashMap<BackendId, Health>,
    prices: HashMap<(BackendId, Offer), (Option<PriceState>, Timestamp)>,
    shifts: BTreeMap<(RouteId, &'static str), u64>,
    undecidable: rules::Undecidable,
}

impl Control {
    /// One turn of the loop. Also called right after what must take effect at once, such as a new override.
    fn turn(&self, now: Timestamp) {
        self.turn_with(&mut lock(&self.brain), now);
        self.busy.done();
    }

    fn turn_with(&self, brain: &mut Brain, now: Timestamp) {
        self.busy.at("deciding");
        let begun = Instant::now();
        let active = self.active.load();
        let expired = self.overrides.expire(now);
        if !expired.is_empty() {
            self.scribe.note(Note::Tidy);
        }
        for ended in expired {
            tracing::info!(id = %ended.id, kind = %ended.kind, "an override has expired");
            self.note(now, EntryKind::Override, None, json!({ "event": "expired", "override": ended }));
        }
        let in_force = self.overrides.active(now);
        let mut turn = brain.turn(&active.settings, &self.signals, &in_force, active.generation, now);
        let tracer = self.tracer(&active.settings);
        if tracer.is_some() {
            self.name_decisions(&mut turn.table);
        }

        self.busy.at("publishing what it has decided");
        let mut published = lock(&self.published);
        if *published != turn.table {
            let common = common(&active.settings, &self.signals, self.access.clone(), tracer);
            self.publisher.publish(&turn.table, common);
            published.clone_from(&turn.table);
        }
        drop(published);

        self.busy.at("noting what has changed");
        let moved = self.tell(&turn.routes, now);
        let due = self.turns.fetch_add(1, Relaxed).is_multiple_of(SAVE_EVERY);
        if moved || due {
            self.save_memory(brain);
        }
        if due {
            self.save_tenants(&active.settings, now);
        }
        let revision = lock(&self.signals.book).revision();
        if due || self.saved_prices.swap(revision, Relaxed) != revision {
            self.save_prices(&active.settings);
        }
        self.save_notices(due);
        let Turn { routes, accounts, spent_usd, saved_usd, savings, .. } = turn;
        self.note_accounts(accounts, now);
        lock(&self.trends).add(&routes, now);
        let picture = Picture { taken: Instant::now(), routes, spent_usd, saved_usd, savings };
        let shown = board::hash(&picture, &in_force, active.generation, revision, now);
        self.picture.store(Some(Arc::new(picture)));
        if self.shown.swap(shown, Relaxed) != shown {
            self.revision.send_modify(|revision| *revision += 1);
        }
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.turning_micros.fetch_add(took, Relaxed);
    }

    /// What makes spans by these settings: the one that does already, or a new one.
    fn tracer(&self, settings: &Settings) -> Option<Arc<Tracer>> {
        let mut exporter = lock(&self.exporter);
        let as_before = exporter.as_ref().map(|exporter| &exporter.settings) == settings.otlp.as_ref();
        if !as_before {
            // The one before ends by itself once the last request that has it is done.
            drop(exporter.take().map(Exporter::stop));
            *exporter = settings.otlp.as_ref().map(|otlp| Exporter::start(otlp, &self.exports));
        }
        exporter.as_ref().and_then(|exporter| exporter.tracer.clone())
    }

    /// Notes in the table which decision of the journal each route goes by: the last one that was told.
    fn name_decisions(&self, table: &mut RoutingTable) {
        let told = lock(&self.told);
        for entry in &mut table.routes {
            entry.decision = told.reasons.get(&entry.route.id).map(|(_, at)| *at);
        }
    }

    fn save_memory(&self, brain: &Brain) {
        match serde_json::to_vec(&brain.memory) {
            Ok(bytes) => self.scribe.note(Note::Blob { name: MEMORY_BLOB, bytes }),
            Err(error) => tracing::error!(%error, "the policy's state could not be written down"),
        }
    }

    /// Journals and logs what changed; says whether traffic moved or still moves.
    fn tell(&self, routes: &[RoutePicture], now: Timestamp) -> bool {
        let mut told = lock(&self.told);
        told.undecidable.log(routes);
        let mut moved = false;
        for picture in routes {
            let RoutePicture { snapshot, decision, .. } = picture;
            let route = &snapshot.route;
            let code = decision.reason.code();
            let is_move = explain::is_move(decision);
            moved |= is_move || decision.moving();
            let last = told.reasons.get(route);
            let news = last.is_none_or(|(known, at)| {
                *known != code && now.duration_since(*at).unsigned_abs() >= REASON_SPACING
            });
            if is_move || news {
                told.reasons.insert(route.clone(), (code, now));
            }
            if is_move {
                *told.shifts.entry((route.clone(), code)).or_default() += 1;
                log_move(route, decision);
            }
            if is_move || news {
                self.note_decision(picture, now);
            }
            for view in &snapshot.backends {
                let backend = &view.backend.id;
                if told.health.insert(backend.clone(), view.health) != Some(view.health) {
                    let unshown = self.signals.credentials.fault(backend);
                    let why = unshown.map(Arc::from).or_else(|| self.signals.probes.last_error(backend));
                    let body = json!({ "backend": backend, "health": view.health, "why": why });
                    self.note(now, EntryKind::Health, None, body);
                }
                for (offer, price) in [(Offer::Spot, &view.spot), (Offer::OnDemand, &view.on_demand)] {
                    self.tell_price(&mut told, &view.backend, offer, price.as_ref(), now);
                }
            }
        }
        moved
    }

    /// Journals and logs that a price became known, or can be trusted more or less than before.
    fn tell_price(
        &self,
        told: &mut Told,
        backend: &Backend,
        offer: Offer,
        price: Option<&Price>,
        now: Timestamp,
    ) {
        let state = price.map(|price| price.state);
        let key = (backend.id.clone(), offer);
        let before = match told.prices.get(&key) {
            Some((known, _)) if *known == state => return,
            Some((_, at)) if now.duration_since(*at).unsigned_abs() < REASON_SPACING => return,
            // What is missing from the start matters where a cost depends on it.
            None if state.is_none() && !backend.needs(offer) => return,
            Some((known, _)) => *known,
            None => None,
        };
        told.prices.insert(key, (state, now));
        let name = |state: Option<PriceState>| state.map_or("missing", PriceState::as_str);
        let why = match price {
            Some(price) => price.note.clone(),
            None => {
                let lines = lock(&self.signals.book).report(backend, now);
                lines.into_iter().find(|line| line.offer == offer).and_then(|line| line.note)
            }
        };
        let backend = &backend.id;
        match state {
            Some(PriceState::Fresh) => {
                tracing::info!(%backend, %offer, before = name(before), "the price is fresh")
            }
            _ => {
                let why = why.as_deref().unwrap_or("no source states it");
                tracing::warn!(%backend, %offer, before = name(before), "the price is {}: {why}", name(state));
            }
        }
        let body = json!({
            "backend": backend,
            "offer": offer,
            "before": name(before),
            "state": name(state),
            "usd_per_hour": price.map(|price| price.usd_per_hour),
            "source": price.map(|price| &price.source),
            "fetched_at": price.map(|price| price.fetched_at),
            "why": why,
        });
        self.note(now, EntryKind::Price, None, body);
    }

    /// Journals a decision with all that it takes to make it again ([`record::Inputs`]).
    fn note_decision(&self, picture: &RoutePicture, now: Timestamp) {
        let RoutePicture { snapshot, decision, before, policy, .. } = picture;
        let body = json!({
            "action": decision.action,
            "summary": explain::summary(decision),
            "code": record::code_version(),
            "policy_version": policy_version(policy),
            "decision": decision,
            "policy": policy,
            "state": before,
            "snapshot": snapshot,
        });
        self.note(now, EntryKind::Decision, Some(snapshot.route.clone()), body);
    }

    fn note_accounts(&self, accounts: Vec<(RouteId, Account)>, now: Timestamp) {
        for (route, account) in accounts {
            self.note(now, EntryKind::Account, Some(route), json!(account));
        }
    }

    fn note(&self, at: Timestamp, kind: EntryKind, route: Option<RouteId>, body: serde_json::Value) {
        self.scribe.note(Note::Entry(Box::new(JournalEntry { at, kind, route, body })));
    }

    fn save_prices(&self, settings: &Settings) {
        let saved = lock(&self.signals.book).to_json(&settings.backends);
        match saved {
            Ok(text) => self.scribe.note(Note::Blob { name: PRICES_BLOB, bytes: text.into_bytes() }),
            Err(error) => tracing::error!(%error, "the prices in use could not be written down"),
        }
    }

    /// What tenants have spent of their budgets.
    fn save_tenants(&self, settings: &Settings, now: Timestamp) {
        if settings.tenants.is_none() {
            return;
        }
        match serde_json::to_vec(&self.signals.meters.saved_tenants(now)) {
            Ok(bytes) => self.scribe.note(Note::Blob { name: TENANTS_BLOB, bytes }),
            Err(error) => tracing::error!(%error, "what tenants have spent could not be written down"),
        }
    }

    /// Readiness goes down; traffic goes on.
    fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }
}

/// What of the settings holds for requests of all routes.
fn common(
    settings: &Settings,
    signals: &Signals,
    access: Option<Arc<AccessLog>>,
    tracer: Option<Arc<Tracer>>,
) -> Common {
    let listen = &settings.listen;
    let collected = settings.otlp.as_ref().is_some_and(|otlp| otlp.metrics_every.is_some());
    let defaults = Common::default();
    Common {
        expose_routing: listen.expose_routing,
        body_peek_max: listen.body_peek_max,
        silence_timeout: listen.limits.silence_timeout,
        model_header: listen.model_header.parse().unwrap_or(defaults.model_header),
        trust: listen.trust.clone(),
        tracer,
        count_tokens: listen.count_tokens,
        active: collected.then(|| signals.meters.active.clone()),
        credentials: signals.credentials.clone(),
        guests: settings.tenants.as_ref().map(|tenants| Arc::new(Guests::new(tenants, &signals.meters))),
        access,
    }
}

fn log_move(route: &RouteId, decision: &Decision) {
    let summary = explain::summary(decision);
    match decision.action {
        Action::Evacuate => tracing::warn!(%route, "{summary}"),
        _ => tracing::info!(%route, "{summary}"),
    }
}

/// A panic while one of these locks was held leaves figures of one turn; the next turn makes new ones.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
