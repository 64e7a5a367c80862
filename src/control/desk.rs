//! What operators ask of the running program.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Control, RoutePicture, audit::Change, lock, rules, shadow::Followed};
use crate::{
    admin::{
        Desk, Refusal,
        board::{Board, Past, Preview},
        rehearsal::{Candidate, Rehearsal},
        views::{
            BackendStatus, CostInputs, Explanation, LoadView, NewOverride, NoticeError, NoticeReceipt,
            OVERRIDE_REASON_LEN_MAX, OVERRIDE_TTL_MAX, OverrideError, OverrideStatus, ReloadError,
            RouteStatus, ShadowShare, ShadowStatus, Status,
        },
    },
    config,
    model::{BackendId, BackendView, Digest, Override, OverrideKind, RouteId, Share, Timestamp},
    policy::{explain, shadow, turning},
    signals::{notices::NewNotice, prices::PriceReport},
    store::{EntryKind, JournalEntry, JournalQuery, StoreError},
    telemetry::{logs, metrics},
};

impl Desk for Control {
    fn ready(&self) -> Result<(), String> {
        if self.draining.load(Relaxed) {
            return Err("draining: requests under way are finished, new ones belong elsewhere".into());
        }
        if self.picture.load().is_none() {
            return Err("starting: no decision was made yet".into());
        }
        // Once ready, a backend that a reload adds does not take the whole front door out of its load balancer.
        if !self.was_ready.load(Relaxed) && !self.signals.probes.all_known() {
            return Err("starting: not every backend was probed yet".into());
        }
        self.was_ready.store(true, Relaxed);
        Ok(())
    }

    fn status(&self) -> Status {
        let now = Timestamp::now();
        let picture = self.picture.load();
        let routes = picture.as_ref().map_or_else(Vec::new, |picture| {
            picture.routes.iter().map(|route| self.route_status(route, now)).collect()
        });
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            config_generation: self.active.load().generation,
            config_error: self.config_error.load().as_deref().cloned(),
            decision_age_seconds: self.decision_age().as_secs_f64(),
            draining: self.draining.load(Relaxed),
            warnings: self.warnings(),
            routes,
            overrides: self.overrides_at(now),
        }
    }

    fn explain(&self, route: &str) -> Option<Explanation> {
        let mut explanation = self.explanation(route)?;
        let picture = self.picture.load();
        let of = picture.as_ref()?.routes.iter().find(|of| of.snapshot.route == explanation.route)?;
        explanation.turning_points = turning::turning_points(&of.policy, &of.snapshot, &of.state);
        Some(explanation)
    }

    fn journal(&self, query: &JournalQuery) -> Result<Vec<Value>, String> {
        self.journal.read(query).map_err(|error| error.to_string())
    }

    fn prices(&self) -> Vec<PriceReport> {
        let now = Timestamp::now();
        let book = lock(&self.signals.book);
        self.active.load().settings.backends.iter().flat_map(|backend| book.report(backend, now)).collect()
    }

    fn overrides(&self) -> Vec<OverrideStatus> {
        self.overrides_at(Timestamp::now())
    }

    fn add_override(
        &self,
        new: NewOverride,
        author: &str,
        key: Option<&str>,
    ) -> Result<OverrideStatus, OverrideError> {
        let now = Timestamp::now();
        let ttl = self.check(&new)?;
        let _one_at_a_time = key.map(|_| lock(&self.giving));
        let item = Override {
            id: key.map_or_else(|| self.overrides.unused_id(), |key| id_of(author, key)),
            kind: new.kind,
            route: new.route,
            backend: new.backend,
            share: new.share,
            reason: new.reason,
            author: author.to_owned(),
            created_at: now,
            expires_at: now + ttl,
        };
        let active = self.overrides.active(now);
        if let Some(given) = active.iter().find(|o| key.is_some() && o.id == item.id) {
            return given_before(given, &item, now);
        }
        self.overrides.add(item.clone()).map_err(refused)?;
        self.journal_override(now, "added", &item, author);
        self.turn(Timestamp::now());
        Ok(OverrideStatus { remaining_seconds: ttl.as_secs_f64(), item })
    }

    fn preview(&self, new: &NewOverride, author: &str) -> Result<Preview, OverrideError> {
        self.preview_of(new, author)
    }

    fn end_override(&self, id: &str, author: &str) -> Result<Option<Override>, OverrideError> {
        let now = Timestamp::now();
        let Some(ended) = self.overrides.end(id).map_err(refused)? else { return Ok(None) };
        self.journal_override(now, "ended", &ended, author);
        self.turn(Timestamp::now());
        Ok(Some(ended))
    }

    fn notice(&self, backend: BackendId, new: NewNotice, author: &str) -> Result<NoticeReceipt, NoticeError> {
        self.take_notice(&backend, new, author)
    }

    fn config(&self) -> Value {
        let active = self.active.load();
        json!({ "generation": active.generation, "config": active.settings.redacted_json() })
    }

    fn reload(&self, author: &str, expected: Option<u64>) -> Result<u64, ReloadError> {
        self.reload_as(author, expected)
    }

    fn rehearse_reload(&self, candidate: Option<Candidate>) -> Result<Rehearsal, ReloadError> {
        self.rehearse(candidate)
    }

    fn board(&self, only: &str) -> Board {
        self.board_at(Timestamp::now(), only)
    }

    fn past(&self, route: &RouteId, at: Timestamp) -> Result<Option<Past>, String> {
        self.past_of(route, at)
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    fn note_refusal(&self, refusal: Refusal) {
        self.audit_refusal(Timestamp::now(), &refusal);
    }

    fn metrics(&self) -> String {
        self.metrics_view().render()
    }
}

impl Control {
    /// What metrics are made from, now.
    pub(super) fn metrics_view(&self) -> metrics::View {
        let now = Timestamp::now();
        let active = self.active.load();
        let picture = self.picture.load();
        // One lock at a time: the loop takes several, in an order of its own.
        let (prices, feeds) = {
            let book = lock(&self.signals.book);
            (active.settings.backends.iter().flat_map(|b| book.report(b, now)).collect(), book.faults())
        };
        let shifts = lock(&self.told).shifts.iter().map(|((r, c), n)| (r.clone(), *c, *n)).collect();
        let routes =
            picture.as_ref().map(|p| p.routes.iter().map(|r| (r.snapshot.clone(), r.decision.clone())));
        let load = active.settings.backends.iter();
        let load = load.filter_map(|b| Some((b.id.clone(), self.signals.load.status(&b.id, now)?)));
        metrics::View {
            load: load.collect(),
            meters: self.signals.meters.all(),
            active: self.signals.meters.active.clone(),
            connections: self.signals.meters.connections.clone(),
            certificates: {
                let https = active.settings.listen.https.iter();
                let pairs = https.flat_map(|https| &https.tls.pairs);
                let pairs = pairs.map(|pair| ("https", pair.file.clone(), pair.expires));
                let admin = self.admin_certificate.iter().map(|certificate| {
                    let (file, expires) = certificate.expiry();
                    ("admin", file, expires)
                });
                pairs.chain(admin).collect()
            },
            models: self.signals.meters.models(),
            tenants: self.signals.meters.tenants(),
            access_lost: self.access.as_ref().map(|access| access.lost()),
            budgets: self.signals.meters.budgets(),
            routes: routes.map(Iterator::collect).unwrap_or_default(),
            prices,
            feeds,
            shifts,
            waiting: self
                .publisher
                .gates()
                .into_iter()
                .map(|(backend, gate)| (backend, gate.waiting(), gate.refused()))
                .collect(),
            ejections: self.signals.ejection.all(),
            notices: lock(&self.intake).counts(),
            overrides: self.overrides.active(now),
            reload_failures: self.reload_failures.load(Relaxed),
            exports: active.settings.otlp.as_ref().map(|_| self.exports.clone()),
            reload_failing: self.config_error.load().is_some(),
            journal_lost: self.scribe.lost(),
            state_write_seconds: self.scribe.writing().unwrap_or_default().as_secs_f64(),
            log_lost: logs::lost(),
            turns: self.turns.load(Relaxed),
            turning_seconds: Duration::from_micros(self.turning_micros.load(Relaxed)).as_secs_f64(),
            decision_age_seconds: picture.as_ref().map_or(f64::NAN, |p| p.taken.elapsed().as_secs_f64()),
            spent_usd: picture.as_ref().map(|p| p.spent_usd.clone()).unwrap_or_default(),
            saved_usd: picture.as_ref().map(|p| p.saved_usd.clone()).unwrap_or_default(),
            config_generation: active.generation,
        }
    }
}

fn cost_inputs(view: &BackendView) -> CostInputs {
    let backend = &view.backend;
    let (node, replicas) = (backend.node.as_ref(), backend.replicas.as_ref());
    let interruptions = backend.has_spot_nodes().then_some(view.interruptions);
    CostInputs {
        backend: backend.id.clone(),
        spot_share: node.map(|node| node.spot.get()),
        replicas_per_node: node.map(|node| node.replicas_per_node),
        rps_per_replica: replicas.map(|replicas| replicas.rps),
        replicas_min: replicas.map(|replicas| replicas.min),
        disk_usd_per_hour: node.map(|node| node.disk_usd_per_hour),
        interruptions,
        interruption_seconds: match (interruptions, node, replicas) {
            (Some(_), Some(node), Some(replicas)) => {
                Some((replicas.cold_start + node.interruptions.work_lost).as_secs_f64())
            }
            _ => None,
        },
        managed: backend.managed,
        egress_usd_per_gb: backend.egress_usd_per_gb,
    }
}

/// `None` before its first decision.
fn shadow_status(of: &Followed) -> Option<ShadowStatus> {
    let decision = of.decision.as_ref()?;
    let serving = decision.backends.iter().filter(|verdict| verdict.share > 0.0);
    let share = |v: &crate::model::Verdict| ShadowShare { backend: v.backend.clone(), share: v.share };
    Some(ShadowStatus {
        policy: of.policy.clone(),
        since: of.since,
        shares: serving.map(share).collect(),
        reason: decision.reason.to_string(),
        live_usd: of.live_usd,
        shadow_usd: of.live_usd + of.more_usd,
        moves: of.moves,
        uncompared_requests: of.uncompared,
    })
}

/// The id of what an author gives by a key: the same key finds it again, also after a restart.
fn id_of(author: &str, key: &str) -> String {
    format!("ov-{}", &Digest::of(format!("{author}\n{key}").as_bytes()).to_string()[..16])
}

/// What a request gets that was sent before, by its key.
fn given_before(given: &Override, again: &Override, now: Timestamp) -> Result<OverrideStatus, OverrideError> {
    let span = |of: &Override| of.expires_at.duration_since(of.created_at);
    let terms = |of: &Override| {
        (of.kind, of.route.clone(), of.backend.clone(), of.share, of.reason.clone(), span(of))
    };
    if terms(given) != terms(again) {
        return Err(OverrideError::KeyReused(format!(
            "The key was used for another override, `{}`, which still holds: use a new key for a new one.",
            given.id
        )));
    }
    let remaining_seconds = given.expires_at.duration_since(now).as_secs_f64();
    Ok(OverrideStatus { item: given.clone(), remaining_seconds })
}

fn refused(error: StoreError) -> OverrideError {
    match error {
        StoreError::NoSpace { .. } => OverrideError::NoSpace(error.to_string()),
        StoreError::TooMany | StoreError::Refused { .. } => OverrideError::Invalid(error.to_string()),
        _ => OverrideError::NotStored(error.to_string()),
    }
}

impl Control {
    /// All of it but the turning points, which take some hundred decisions to find.
    pub(super) fn explanation(&self, route: &str) -> Option<Explanation> {
        let now = Timestamp::now();
        let picture = self.picture.load();
        let RoutePicture { snapshot, decision, state, last_move, .. } =
            picture.as_ref()?.routes.iter().find(|r| r.snapshot.route.as_str() == route)?;
        let routes = &self.active.load().settings.routes;
        let configured = routes.iter().find(|r| r.id == snapshot.route);
        // The longest part of it, and nobody shall wait for the prices meanwhile.
        let binding_costs =
            configured.map_or_else(Vec::new, |route| shadow::binding_costs(&route.policy, snapshot, state));
        let book = lock(&self.signals.book);
        Some(Explanation {
            route: snapshot.route.clone(),
            summary: explain::summary(decision),
            what_would_change_it: explain::what_would_change_it(decision),
            binding: explain::binding(decision),
            binding_costs,
            turning_points: Vec::new(),
            decision: decision.clone(),
            inputs: snapshot.backends.iter().map(cost_inputs).collect(),
            load: snapshot.backends.iter().filter_map(|view| self.load_of(view, now)).collect(),
            response_bytes: crate::policy::site::response_bytes(snapshot),
            tokens_per_request: configured.and_then(|route| route.tokens_per_request),
            prices: snapshot.backends.iter().flat_map(|view| book.report(&view.backend, now)).collect(),
            last_move: last_move.clone(),
        })
    }

    fn route_status(&self, picture: &RoutePicture, now: Timestamp) -> RouteStatus {
        let RoutePicture { snapshot, decision, .. } = picture;
        let seconds = |d: Duration| d.as_secs_f64();
        let backends = decision
            .backends
            .iter()
            .zip(&snapshot.backends)
            .map(|(verdict, view)| BackendStatus {
                backend: verdict.backend.clone(),
                share: verdict.share,
                target_share: verdict.target,
                health: view.health,
                health_error: self.signals.probes.last_error(&verdict.backend).map(|why| why.to_string()),
                ejected: view.ejected.clone(),
                limited_by: verdict.limited_by,
                limited_by_rule: verdict.limiting_rule().map(|ruled| ruled.rule.to_string()),
                latency_p50_seconds: view.live.ttfb_p50.map(seconds),
                latency_p95_seconds: view.live.ttfb_p95.map(seconds),
                probe_seconds: view.probe.map(|p| seconds(p.first_byte.unwrap_or(p.connect))),
                load: self.load_of(view, now),
                in_flight: view.live.in_flight,
                rps: view.live.rps,
                unit_cost: verdict.unit_cost,
                unit_cost_usd_per_1k: verdict.unit_cost.map(|cost| cost.total()),
                price_age_seconds: view
                    .spot
                    .as_ref()
                    .or(view.on_demand.as_ref())
                    .map(|price| now.duration_since(price.fetched_at).as_secs_f64().max(0.0)),
            })
            .collect();
        RouteStatus {
            route: snapshot.route.clone(),
            demand_rps: snapshot.demand_rps,
            slo_seconds: snapshot.slo.ttft_p95.map(seconds),
            reason: decision.reason.to_string(),
            reason_code: decision.reason.code().into(),
            fallback: decision.fallback,
            n_minus_one: decision.n_minus_one.clone(),
            backends,
            shadows: picture.shadows.iter().filter_map(shadow_status).collect(),
        }
    }

    /// What a backend reports of itself, and what it loses; `None` where nothing is read and nothing goes.
    fn load_of(&self, view: &BackendView, now: Timestamp) -> Option<LoadView> {
        let reported = self.signals.load.status(&view.backend.id, now);
        (reported.is_some() || view.leaving > Share::ZERO).then(|| LoadView {
            backend: view.backend.id.clone(),
            reported,
            leaving: view.leaving.get(),
        })
    }

    fn overrides_at(&self, now: Timestamp) -> Vec<OverrideStatus> {
        let status = |item: &Override| OverrideStatus {
            remaining_seconds: item.expires_at.duration_since(now).as_secs_f64(),
            item: item.clone(),
        };
        self.overrides.active(now).iter().map(status).collect()
    }

    /// Signals that are at fault, one sentence each.
    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.stuck_loop().into_iter().chain(self.stuck_disk()).collect();
        for feed in lock(&self.signals.book).faults() {
            if let Some(fault) = feed.fault {
                warnings.push(format!("what {} does not say now keeps its last price: {fault}", feed.source));
            }
            if feed.held > 0 {
                warnings.push(format!(
                    "prices from {} that are not believed: {}; the last good ones stay in use (see prices)",
                    feed.source, feed.held
                ));
            }
        }
        let now = Timestamp::now();
        for backend in &self.active.load().settings.backends {
            let load = self.signals.load.status(&backend.id, now);
            for fault in load.iter().flat_map(|load| &load.faults) {
                warnings.push(format!(
                    "the load of {} is modelled once its last report is old: {fault}",
                    backend.id
                ));
            }
            if let Some(fault) = self.signals.credentials.fault(&backend.id) {
                warnings.push(format!(
                    "{} gets no requests, since it cannot be shown credentials: {fault}",
                    backend.id
                ));
            }
            if let Some(fault) = self.signals.resolver.fault(&backend.id) {
                warnings.push(format!("{}: {fault}", backend.id));
            }
        }
        warnings.extend(self.picture.load().iter().flat_map(|picture| rules::warnings(&picture.routes)));
        if self.scribe.lost() > 0 {
            warnings.push(format!("{} entries of the journal could not be written", self.scribe.lost()));
        }
        warnings
    }

    /// What an override needs beyond its form; answers with its time to live.
    pub(super) fn check(&self, new: &NewOverride) -> Result<Duration, OverrideError> {
        let invalid = |text: String| Err(OverrideError::Invalid(text));
        let ttl = match config::parse_duration(&new.ttl) {
            Ok(ttl) if ttl.is_zero() => return invalid("`ttl` must be longer than 0".into()),
            Ok(ttl) if ttl > OVERRIDE_TTL_MAX => {
                return invalid(format!(
                    "`ttl` is {}; at most 7 days are allowed: what lasts belongs into the configuration",
                    new.ttl
                ));
            }
            Ok(ttl) => ttl,
            Err(why) => return invalid(format!("`ttl`: {why}")),
        };
        if new.reason.trim().is_empty() {
            return invalid("`reason` must say why: whoever reads it at night has nothing else".into());
        }
        if new.reason.len() > OVERRIDE_REASON_LEN_MAX {
            return invalid(format!(
                "`reason` has {} bytes; at most {OVERRIDE_REASON_LEN_MAX} are allowed",
                new.reason.len()
            ));
        }
        if let Some(found) = new.reason.chars().find(|c| c.is_control()) {
            return invalid(format!(
                "`reason` has the control character U+{:04X}; it goes to logs and terminals: write it as plain text \
                 on one line",
                u32::from(found)
            ));
        }
        let active = self.active.load();
        let routes = &active.settings.routes;
        if let Some(route) = &new.route
            && !routes.iter().any(|r| r.id == *route)
        {
            let known: Vec<&str> = routes.iter().map(|r| r.id.as_str()).collect();
            return invalid(format!("there is no route `{route}`; there are: {}", known.join(", ")));
        }
        match (&new.backend, new.kind) {
            (None, OverrideKind::Freeze) => {}
            (None, kind) => return invalid(format!("`{kind}` needs a `backend`")),
            (Some(_), OverrideKind::Freeze) => {
                return invalid("`freeze` is about routes, not about a backend: leave `backend` out".into());
            }
            (Some(backend), _) => {
                if !active.settings.backends.iter().any(|b| b.id == *backend) {
                    let known: Vec<&str> = active.settings.backends.iter().map(|b| b.id.as_str()).collect();
                    return invalid(format!(
                        "there is no backend `{backend}`; there are: {}",
                        known.join(", ")
                    ));
                }
                let serves = |r: &crate::model::Route| r.backends.contains(backend);
                if let Some(route) = routes.iter().find(|r| Some(&r.id) == new.route.as_ref())
                    && !serves(route)
                {
                    return invalid(format!("backend `{backend}` does not serve route `{}`", route.id));
                }
            }
        }
        match (new.kind, new.share) {
            (OverrideKind::Cap, None) => invalid("`cap` needs a `share`, such as 0.3".into()),
            (OverrideKind::Drain | OverrideKind::Freeze, Some(_)) => {
                invalid(format!("`{}` takes no `share`", new.kind))
            }
            _ => Ok(ttl),
        }
    }

    /// Writes down who changed what. The change itself is stored already: a journal that cannot be written does not undo it.
    fn journal_override(&self, at: Timestamp, event: &str, item: &Override, author: &str) {
        tracing::info!(event, id = %item.id, kind = %item.kind, author, reason = %item.reason, "override");
        let entry = JournalEntry {
            at,
            kind: EntryKind::Override,
            route: None,
            body: json!({ "event": event, "author": author, "override": item }),
        };
        if let Err(error) = self.journal.append_durable(&entry) {
            tracing::error!(%error, "the override holds, but its entry in the journal could not be written");
        }
        let (before, after) =
            if event == "ended" { (json!(item), Value::Null) } else { (Value::Null, json!(item)) };
        let event = format!("override.{event}");
        self.audit_change(at, Change { event: &event, author, before, after, why: &item.reason });
    }
}
