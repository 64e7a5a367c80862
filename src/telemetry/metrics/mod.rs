//! Metrics, drawn up when they are asked for: in the OpenMetrics text format, or as points for a collector.

mod sink;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    model::{
        BackendId, Decision, EjectedFor, Health, Override, OverrideKind, Priority, Redundancy, RouteId,
        Snapshot, TenantId, Timestamp,
    },
    signals::{
        allowance::{Denied, Usage},
        budget::RetryBudget,
        connections::ConnectionMeter,
        conventions::Active,
        ejection,
        ledger::{Ledger, ModelLedger},
        load::LoadStatus,
        notices::NoticeKind,
        prices::{FeedStatus, PriceReport},
        traffic::{Meter, MeterKey},
    },
    telemetry::otlp::Exports,
};
use sink::{Labels, Sink, Written, family};
pub use sink::{Measured, Value};

/// Everything that metrics are made from, at one moment.
#[derive(Debug)]
pub struct View {
    /// Counters of the request path.
    pub meters: Vec<(MeterKey, Arc<Meter>)>,
    /// Requests under way, as a collector gets them.
    pub active: Arc<Active>,
    /// Counters of clients' connections.
    pub connections: Arc<ConnectionMeter>,
    /// When each certificate in use ceases to be valid, by where it is shown and its file.
    pub certificates: Vec<(&'static str, String, Timestamp)>,
    /// What the requests for each model took.
    pub models: Vec<(RouteId, Arc<ModelLedger>)>,
    /// What tenants have used.
    pub tenants: Vec<(TenantId, Arc<Usage>)>,
    /// Lines of the access log that could not be written; `None` if there is none.
    pub access_lost: Option<u64>,
    /// What second attempts each route may have.
    pub budgets: Vec<(RouteId, Arc<RetryBudget>)>,
    /// The last snapshot and decision of every route.
    pub routes: Vec<(Snapshot, Decision)>,
    /// What backends report of themselves; only those that are asked.
    pub load: Vec<(BackendId, LoadStatus)>,
    /// Prices in use.
    pub prices: Vec<PriceReport>,
    /// How each source of prices is doing.
    pub feeds: Vec<FeedStatus>,
    /// Moves by route and reason.
    pub shifts: Vec<(RouteId, &'static str, u64)>,
    /// Whether each backend that may be ejected is, and how often it was.
    pub ejections: Vec<ejection::Tally>,
    /// Requests that wait at each backend with a limit, and those that were refused, by priority.
    pub waiting: Vec<(BackendId, u64, [u64; Priority::ALL.len()])>,
    /// Notices by backend and kind.
    pub notices: Vec<(BackendId, NoticeKind, u64)>,
    /// Overrides that hold.
    pub overrides: Arc<[Override]>,
    /// Reloads that were refused.
    pub reload_failures: u64,
    /// What became of what was to be sent to a collector; `None` where there is none.
    pub exports: Option<Exports>,
    /// Whether the last one was.
    pub reload_failing: bool,
    /// Journal entries that could not be written.
    pub journal_lost: u64,
    /// Seconds that the write to the state directory under way has taken; 0 without one.
    pub state_write_seconds: f64,
    /// Lines of the log that could not be written.
    pub log_lost: u64,
    /// Turns of the control loop.
    pub turns: u64,
    /// Seconds that they took in all.
    pub turning_seconds: f64,
    /// Seconds since the last decision.
    pub decision_age_seconds: f64,
    /// Marginal dollars of what was served.
    pub spent_usd: Vec<(RouteId, BackendId, f64)>,
    /// Dollars saved, by route.
    pub saved_usd: Vec<(RouteId, f64)>,
    /// Counts successful loads of the configuration.
    pub config_generation: u64,
}

impl View {
    /// The text that `GET /metrics` answers with.
    pub fn render(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Text(self)));
        let mut out = String::new();
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            Err(error) => {
                tracing::error!(%error, "metrics could not be written");
                String::new()
            }
        }
    }

    /// The same for a collector.
    pub fn measured(&self) -> Vec<Measured> {
        let mut all = Vec::new();
        // Nothing is written there that could fail.
        let _ = self.encode(&mut Sink::Points(&mut all));
        all
    }
}

fn name(key: &MeterKey) -> Labels<'_> {
    let (route, backend) = key;
    vec![
        ("route", route.as_ref().map_or("", RouteId::as_str)),
        ("backend", backend.as_ref().map_or("", BackendId::as_str)),
    ]
}

fn with<'a>(mut labels: Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    labels.push((name, value));
    labels
}

/// The tokens of a ledger, by who counted them and by kind.
fn by_source(ledger: &Ledger) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
    [("reported", true), ("estimated", false)].into_iter().flat_map(|(source, reported)| {
        let (input, output) = ledger.tokens(reported);
        [(source, "input", input), (source, "output", output)]
    })
}

/// What the text is made from.
#[derive(Debug)]
struct Text(View);

impl Collector for Text {
    fn encode(&self, encoder: DescriptorEncoder) -> Written {
        self.0.encode(&mut Sink::Text(encoder))
    }
}

impl View {
    fn encode(&self, sink: &mut Sink<'_>) -> Written {
        self.encode_traffic(sink)?;
        self.encode_connections(sink)?;
        self.encode_use(sink)?;
        self.encode_tenants(sink)?;
        self.encode_decisions(sink)?;
        self.encode_objectives(sink)?;
        self.encode_load(sink)?;
        self.encode_prices(sink)?;
        self.encode_notices(sink)?;
        self.encode_process(sink)
    }

    fn encode_traffic(&self, sink: &mut Sink<'_>) -> Written {
        let help = "Requests answered, by status code; without a backend: by Tradewind itself";
        let mut requests = family(sink, "tradewind_requests", help, MetricType::Counter)?;
        for (key, meter) in &self.meters {
            for (code, count) in meter.by_code() {
                requests.counter(with(name(key), "code", &code), count)?;
            }
        }
        let help = "From the arrival of a request to the end of its answer";
        let mut duration = family(sink, "tradewind_request_duration_seconds", help, MetricType::Histogram)?;
        // A meter that has counted nothing (no unmatched request yet) would be a series without a meaning.
        for (key, meter) in self.meters.iter().filter(|(_, meter)| meter.requests() > 0) {
            duration.histogram(name(key), &meter.duration)?;
        }
        let help = "From the choice of a backend to the first byte of its answer's body";
        let mut first = family(sink, "tradewind_time_to_first_byte_seconds", help, MetricType::Histogram)?;
        for (key, meter) in self.backends_only() {
            first.histogram(name(key), &meter.first_byte)?;
        }
        let mut in_flight =
            family(sink, "tradewind_requests_in_flight", "Requests under way", MetricType::Gauge)?;
        for (key, meter) in self.backends_only() {
            in_flight.gauge(name(key), meter.in_flight() as f64)?;
        }
        let help = "Body bytes from clients";
        let mut received = family(sink, "tradewind_request_bytes", help, MetricType::Counter)?;
        for (key, meter) in &self.meters {
            received.counter(name(key), meter.bytes().0)?;
        }
        let help = "Body bytes to clients";
        let mut sent = family(sink, "tradewind_response_bytes", help, MetricType::Counter)?;
        for (key, meter) in &self.meters {
            sent.counter(name(key), meter.bytes().1)?;
        }
        let help = "Attempts that failed at a backend and were made elsewhere";
        let mut retries = family(sink, "tradewind_retries", help, MetricType::Counter)?;
        for (key, meter) in self.backends_only() {
            for (reason, count) in meter.by_retry_reason() {
                retries.counter(with(name(key), "reason", reason.as_str()), count)?;
            }
        }
        let help = "Attempts at another backend that were not made because too many were under way";
        let mut exhausted = family(sink, "tradewind_retry_budget_exhausted", help, MetricType::Counter)?;
        for (route, budget) in &self.budgets {
            exhausted.counter(vec![("route", route.as_str())], budget.exhausted())?;
        }
        let help =
            "Requests that were late and were sent to this backend beside the first, or not, by outcome";
        let mut hedges = family(sink, "tradewind_hedges", help, MetricType::Counter)?;
        for (key, meter) in self.backends_only() {
            for (outcome, count) in meter.hedges.all().filter(|(_, count)| *count > 0) {
                hedges.counter(with(name(key), "outcome", outcome.as_str()), count)?;
            }
        }
        let help = "Answers that broke after they had begun";
        let mut broken = family(sink, "tradewind_answers_broken_off", help, MetricType::Counter)?;
        for (key, meter) in self.backends_only() {
            broken.counter(name(key), meter.broken_off())?;
        }
        let help = "1 while the backend has asked for no requests (Retry-After)";
        let mut paused = family(sink, "tradewind_backend_paused", help, MetricType::Gauge)?;
        for (key, meter) in self.backends_only() {
            paused.gauge(name(key), f64::from(u8::from(meter.is_paused())))?;
        }
        Ok(())
    }

    fn encode_connections(&self, sink: &mut Sink<'_>) -> Written {
        let meter = &self.connections;
        family(sink, "tradewind_connections", "Connections of clients that are open", MetricType::Gauge)?
            .gauge(vec![], meter.open() as f64)?;
        family(sink, "tradewind_connections_accepted", "Connections of clients", MetricType::Counter)?
            .counter(vec![], meter.accepted())?;
        let help = "Connections of clients that were refused or ended here, by reason";
        let mut turned_away = family(sink, "tradewind_connections_turned_away", help, MetricType::Counter)?;
        for (why, count) in meter.turned_away() {
            turned_away.counter(vec![("reason", why.as_str())], count)?;
        }
        let help = "Connections of clients that sent frames which carry nothing faster than they may, and were read more slowly";
        family(sink, "tradewind_connections_held_back", help, MetricType::Counter)?
            .counter(vec![], meter.held_back())?;
        let help = "When the certificate in use, from this file, ceases to be valid";
        let name = "tradewind_certificate_expiry_timestamp_seconds";
        let mut expiry = family(sink, name, help, MetricType::Gauge)?;
        for (listener, file, at) in &self.certificates {
            expiry.gauge(vec![("file", file), ("listener", listener)], at.as_second() as f64)?;
        }
        Ok(())
    }

    /// Tokens and dollars of requests.
    fn encode_use(&self, sink: &mut Sink<'_>) -> Written {
        let help = "Tokens of requests, as answers say or estimated";
        let mut tokens = family(sink, "tradewind_tokens", help, MetricType::Counter)?;
        for (key, meter) in self.backends_only() {
            for (source, kind, count) in by_source(&meter.ledger) {
                tokens.counter(with(with(name(key), "kind", kind), "source", source), count)?;
            }
        }
        let help = "Cost of requests, each by its tokens, at the price of its moment";
        let mut usd = family(sink, "tradewind_request_cost_usd", help, MetricType::Counter)?;
        for (key, meter) in self.backends_only() {
            usd.counter_f64(name(key), meter.ledger.usd())?;
        }
        let help = "Requests whose cost was not known";
        let mut unpriced = family(sink, "tradewind_requests_unpriced", help, MetricType::Counter)?;
        for (key, meter) in self.backends_only() {
            unpriced.counter(name(key), meter.ledger.unpriced())?;
        }
        let help = "Tokens of requests by the models that the configuration names";
        let mut tokens = family(sink, "tradewind_model_tokens", help, MetricType::Counter)?;
        for (route, model) in &self.models {
            for (source, kind, count) in by_source(&model.ledger) {
                let labels = vec![("route", route.as_str()), ("model", &*model.model)];
                tokens.counter(with(with(labels, "kind", kind), "source", source), count)?;
            }
        }
        let help = "Cost of requests by the models that the configuration names";
        let mut usd = family(sink, "tradewind_model_cost_usd", help, MetricType::Counter)?;
        for (route, model) in &self.models {
            usd.counter_f64(vec![("route", route.as_str()), ("model", &*model.model)], model.ledger.usd())?;
        }
        if let Some(lost) = self.access_lost {
            let help = "Lines of the access log that could not be written";
            family(sink, "tradewind_access_log_lost", help, MetricType::Counter)?.counter(vec![], lost)?;
        }
        Ok(())
    }

    fn encode_tenants(&self, sink: &mut Sink<'_>) -> Written {
        let help = "Requests of a tenant that were let in";
        let mut admitted = family(sink, "tradewind_tenant_requests", help, MetricType::Counter)?;
        for (tenant, usage) in &self.tenants {
            admitted.counter(vec![("tenant", tenant.as_str())], usage.counts().0)?;
        }
        let help = "Requests of a tenant that were refused, by what it may not or has used up";
        let mut denied = family(sink, "tradewind_tenant_denied", help, MetricType::Counter)?;
        for (tenant, usage) in &self.tenants {
            for (why, count) in Denied::ALL.into_iter().zip(usage.counts().1) {
                denied.counter(vec![("tenant", tenant.as_str()), ("reason", why.as_str())], count)?;
            }
        }
        let help = "Tokens of a tenant's requests, as answers say or estimated";
        let mut tokens = family(sink, "tradewind_tenant_tokens", help, MetricType::Counter)?;
        for (tenant, usage) in &self.tenants {
            for (source, kind, count) in by_source(&usage.ledger) {
                tokens
                    .counter(vec![("tenant", tenant.as_str()), ("kind", kind), ("source", source)], count)?;
            }
        }
        let help = "Cost of a tenant's requests, each by its tokens, at the price of its moment";
        let mut usd = family(sink, "tradewind_tenant_cost_usd", help, MetricType::Counter)?;
        for (tenant, usage) in &self.tenants {
            usd.counter_f64(vec![("tenant", tenant.as_str())], usage.ledger.usd())?;
        }
        let help = "USD that count towards a tenant's budget of the UTC day and month; outlives a restart";
        let mut spent = family(sink, "tradewind_tenant_spent_usd", help, MetricType::Gauge)?;
        for (tenant, usage) in &self.tenants {
            let (day, month) = usage.spent(Timestamp::now());
            for (period, usd) in [("day", day), ("month", month)] {
                spent.gauge(vec![("tenant", tenant.as_str()), ("period", period)], usd)?;
            }
        }
        Ok(())
    }

    fn backends_only(&self) -> impl Iterator<Item = &(MeterKey, Arc<Meter>)> {
        self.meters.iter().filter(|((_, backend), _)| backend.is_some())
    }

    fn encode_decisions(&self, sink: &mut Sink<'_>) -> Written {
        let help = "Part of the route's requests that go to the backend";
        self.encode_verdicts(sink, "tradewind_backend_share", help, |v| v.share)?;
        let help = "Part towards which the ramp moves";
        self.encode_verdicts(sink, "tradewind_backend_target_share", help, |v| v.target)?;
        let help =
            "Requests per second for which the backend should prepare: what its autoscaler may scale on";
        self.encode_verdicts(sink, "tradewind_planned_requests_per_second", help, |v| v.planned_rps)?;
        type Figure = fn(&Redundancy) -> Option<f64>;
        let figures: [(&str, &str, Figure); 3] = [
            (
                "tradewind_n_minus_one_missing_rps",
                "Requests per second that nobody could serve after the worst loss of a cloud or region",
                |told| Some(told.missing_rps),
            ),
            (
                "tradewind_n_minus_one_unready_rps",
                "Requests per second for which replicas should be ready for a loss and are not yet",
                |told| Some(told.unready_rps),
            ),
            (
                "tradewind_n_minus_one_reserve_usd_per_hour",
                "What replicas kept ready for a loss cost; absent if unknown",
                |told| told.reserve_usd_per_hour,
            ),
        ];
        for (name, help, figure) in figures {
            let mut gauge = family(sink, name, help, MetricType::Gauge)?;
            for (snapshot, decision) in &self.routes {
                if let Some(value) = decision.n_minus_one.as_ref().and_then(figure) {
                    gauge.gauge(vec![("route", snapshot.route.as_str())], value)?;
                }
            }
        }
        let help =
            "Cost of one more request beyond the paid minimum, in USD per 1,000 requests; absent if unknown";
        let mut cost = family(sink, "tradewind_unit_cost_usd", help, MetricType::Gauge)?;
        for (snapshot, decision) in &self.routes {
            for verdict in &decision.backends {
                for (term, usd) in verdict.unit_cost.iter().flat_map(|cost| cost.terms()) {
                    let labels = vec![
                        ("route", snapshot.route.as_str()),
                        ("backend", verdict.backend.as_str()),
                        ("term", term),
                    ];
                    cost.gauge(labels, usd)?;
                }
            }
        }
        let mut healthy =
            family(sink, "tradewind_backend_healthy", "1 if the probes succeed", MetricType::Gauge)?;
        for view in self.views() {
            let value = f64::from(u8::from(view.health == Health::Healthy));
            healthy.gauge(vec![("backend", view.backend.id.as_str())], value)?;
        }
        let help = "1 while the backend gets no requests because too many of them failed or it was far slower than others";
        let mut ejected = family(sink, "tradewind_backend_ejected", help, MetricType::Gauge)?;
        for (backend, out, _) in &self.ejections {
            ejected.gauge(vec![("backend", backend.as_str())], f64::from(u8::from(*out)))?;
        }
        let help = "How often the backend was taken out, for failures or for its latency";
        let mut ejections = family(sink, "tradewind_backend_ejections", help, MetricType::Counter)?;
        for (backend, _, counts) in &self.ejections {
            for (reason, count) in EjectedFor::ALL.into_iter().zip(counts) {
                let labels = vec![("backend", backend.as_str()), ("reason", reason.as_str())];
                ejections.counter(labels, *count)?;
            }
        }
        let help = "Requests that wait here for a place at a backend with a limit";
        let mut waiting = family(sink, "tradewind_requests_waiting", help, MetricType::Gauge)?;
        for (backend, count, _) in &self.waiting {
            waiting.gauge(vec![("backend", backend.as_str())], *count as f64)?;
        }
        let help = "Requests that were refused because every backend was full";
        let mut shed = family(sink, "tradewind_requests_shed", help, MetricType::Counter)?;
        for (backend, _, refused) in &self.waiting {
            for (priority, count) in Priority::ALL.into_iter().zip(refused) {
                let labels = vec![("backend", backend.as_str()), ("priority", priority.as_str())];
                shed.counter(labels, *count)?;
            }
        }
        let help = "Smoothed time to the first byte of a probe's answer, or to connect";
        let mut probe = family(sink, "tradewind_probe_seconds", help, MetricType::Gauge)?;
        for view in self.views() {
            if let Some(seen) = view.probe {
                let time = seen.first_byte.unwrap_or(seen.connect);
                probe.gauge(vec![("backend", view.backend.id.as_str())], time.as_secs_f64())?;
            }
        }
        let mut shifts = family(sink, "tradewind_shifts", "Moves of traffic", MetricType::Counter)?;
        for (route, reason, count) in &self.shifts {
            shifts.counter(vec![("route", route.as_str()), ("reason", reason)], *count)?;
        }
        let help = "Marginal cost of the requests served: what they added to what is paid anyway";
        let mut spent = family(sink, "tradewind_cost_usd", help, MetricType::Counter)?;
        for (route, backend, usd) in &self.spent_usd {
            spent.counter_f64(vec![("route", route.as_str()), ("backend", backend.as_str())], *usd)?;
        }
        let help = "Avoidable USD not spent because traffic did not stay where the day began; falls when staying would have been \
                    cheaper";
        // A gauge: OpenMetrics lets no counter fall, and the name is one that dashboards know.
        let mut saved = family(sink, "tradewind_saved_usd_total", help, MetricType::Gauge)?;
        for (route, usd) in &self.saved_usd {
            saved.gauge(vec![("route", route.as_str())], *usd)?;
        }
        Ok(())
    }

    /// How the latency objectives are kept, and what keeps backends from serving.
    fn encode_objectives(&self, sink: &mut Sink<'_>) -> Written {
        let objectives: Vec<(&RouteId, Duration)> = self
            .routes
            .iter()
            .filter_map(|(snapshot, _)| Some((&snapshot.route, snapshot.slo.ttft_p95?)))
            .collect();
        let help =
            "Time to first byte that 95% of the route's requests are promised; absent without an objective";
        let mut promised = family(sink, "tradewind_slo_seconds", help, MetricType::Gauge)?;
        for (route, limit) in &objectives {
            promised.gauge(vec![("route", route.as_str())], limit.as_secs_f64())?;
        }
        let timed: Vec<(&RouteId, u64, u64)> = objectives
            .into_iter()
            .map(|(route, limit)| {
                let own = self
                    .meters
                    .iter()
                    .filter(|((of, backend), _)| of.as_ref() == Some(route) && backend.is_some());
                let counts = own.map(|(_, meter)| meter.first_byte.later_than(limit));
                let (late, all) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                (route, late, all)
            })
            .collect();
        let help = "Requests whose time to first byte counts for the objective; absent without one";
        let mut requests = family(sink, "tradewind_slo_requests", help, MetricType::Counter)?;
        for (route, _, all) in &timed {
            requests.counter(vec![("route", route.as_str())], *all)?;
        }
        let help = "Those of them that were later than the objective";
        let mut late = family(sink, "tradewind_slo_late", help, MetricType::Counter)?;
        for (route, count, _) in &timed {
            late.counter(vec![("route", route.as_str())], *count)?;
        }
        let help = "Backends of the route that may serve";
        let mut eligible = family(sink, "tradewind_route_eligible_backends", help, MetricType::Gauge)?;
        for (snapshot, decision) in &self.routes {
            let count = decision.backends.iter().filter(|verdict| verdict.eligible).count();
            eligible.gauge(vec![("route", snapshot.route.as_str())], count as f64)?;
        }
        let help =
            "1 for what keeps the backend from serving, or from serving more; absent while nothing does";
        let mut limited = family(sink, "tradewind_backend_limited", help, MetricType::Gauge)?;
        for (snapshot, decision) in &self.routes {
            for verdict in &decision.backends {
                let Some(cause) = verdict.limited_by else { continue };
                let labels = vec![
                    ("route", snapshot.route.as_str()),
                    ("backend", verdict.backend.as_str()),
                    ("cause", cause.as_str()),
                ];
                limited.gauge(labels, 1.0)?;
            }
        }
        Ok(())
    }

    fn encode_load(&self, sink: &mut Sink<'_>) -> Written {
        type Value = fn(&LoadStatus) -> Option<f64>;
        let gauges: [(&str, &str, Value); 4] = [
            (
                "tradewind_load_report_age_seconds",
                "Age of the report in use; absent when there is none",
                |load| load.age_seconds,
            ),
            ("tradewind_ready_replicas", "Ready replicas as reported; absent if unknown", |load| {
                load.ready_replicas.map(f64::from)
            }),
            ("tradewind_backend_queued", "Requests that wait as reported; absent if unknown", |load| {
                load.queued
            }),
            (
                "tradewind_backend_saturation",
                "Part of the scarcest resource in use as reported; absent if unknown",
                |load| load.saturation,
            ),
        ];
        for (name, help, value) in gauges {
            let mut gauge = family(sink, name, help, MetricType::Gauge)?;
            for (backend, load) in &self.load {
                if let Some(value) = value(load) {
                    gauge.gauge(vec![("backend", backend.as_str())], value)?;
                }
            }
        }
        let help = "1 if the last question for the load failed";
        let mut failing = family(sink, "tradewind_load_failing", help, MetricType::Gauge)?;
        for (backend, load) in &self.load {
            let value = f64::from(u8::from(!load.faults.is_empty()));
            failing.gauge(vec![("backend", backend.as_str())], value)?;
        }
        let help = "Part of the ready replicas that goes away, by the notices received";
        let mut leaving = family(sink, "tradewind_backend_leaving", help, MetricType::Gauge)?;
        for view in self.views() {
            leaving.gauge(vec![("backend", view.backend.id.as_str())], view.leaving.get())?;
        }
        Ok(())
    }

    fn encode_verdicts(
        &self,
        sink: &mut Sink<'_>,
        metric: &'static str,
        help: &'static str,
        value: impl Fn(&crate::model::Verdict) -> f64,
    ) -> Written {
        let mut gauges = family(sink, metric, help, MetricType::Gauge)?;
        for (snapshot, decision) in &self.routes {
            for verdict in &decision.backends {
                let labels = vec![("route", snapshot.route.as_str()), ("backend", verdict.backend.as_str())];
                gauges.gauge(labels, value(verdict))?;
            }
        }
        Ok(())
    }

    /// Every backend once, though several routes may use it.
    fn views(&self) -> impl Iterator<Item = &crate::model::BackendView> {
        let mut seen = std::collections::HashSet::new();
        self.routes
            .iter()
            .flat_map(|(snapshot, _)| &snapshot.backends)
            .filter(move |view| seen.insert(view.backend.id.clone()))
    }

    fn encode_prices(&self, sink: &mut Sink<'_>) -> Written {
        let labels = |price: &PriceReport| {
            vec![("backend", price.backend.as_str().to_owned()), ("offer", price.offer.as_str().to_owned())]
        };
        let now = crate::model::Timestamp::now();
        let help = "Price of a node in use";
        let mut usd = family(sink, "tradewind_price_usd_per_hour", help, MetricType::Gauge)?;
        for price in &self.prices {
            if let Some(value) = price.usd_per_hour {
                let labels = labels(price);
                usd.gauge(labels.iter().map(|(n, v)| (*n, v.as_str())).collect(), value)?;
            }
        }
        let help = "Time since the source last confirmed the price";
        let mut age = family(sink, "tradewind_price_age_seconds", help, MetricType::Gauge)?;
        for price in &self.prices {
            if let Some(fetched_at) = price.fetched_at {
                let labels = labels(price);
                let seconds = now.duration_since(fetched_at).as_secs_f64().max(0.0);
                age.gauge(labels.iter().map(|(n, v)| (*n, v.as_str())).collect(), seconds)?;
            }
        }
        let help = "1 for the state the price is in: fresh, stale, held, fallback or missing";
        let mut state = family(sink, "tradewind_price_state", help, MetricType::Gauge)?;
        for price in &self.prices {
            let mut labels = labels(price);
            labels.push(("state", price.state.as_str().to_owned()));
            state.gauge(labels.iter().map(|(n, v)| (*n, v.as_str())).collect(), 1.0)?;
        }
        let help = "1 if the last fetch from the source failed";
        let mut failing = family(sink, "tradewind_price_source_failing", help, MetricType::Gauge)?;
        for feed in &self.feeds {
            failing.gauge(vec![("source", &feed.source)], f64::from(u8::from(feed.fault.is_some())))?;
        }
        let help = "Prices that the source states and that are not believed";
        let mut held = family(sink, "tradewind_prices_held", help, MetricType::Gauge)?;
        for feed in &self.feeds {
            held.gauge(vec![("source", &feed.source)], feed.held as f64)?;
        }
        Ok(())
    }

    fn encode_notices(&self, sink: &mut Sink<'_>) -> Written {
        let help = "How often a spot node is taken back, and how that is known: configured, learned from notices or assumed";
        let mut rate = family(sink, "tradewind_interruptions_per_node_hour", help, MetricType::Gauge)?;
        for view in self.views().filter(|view| view.backend.has_spot_nodes()) {
            let known = view.interruptions;
            let labels = vec![("backend", view.backend.id.as_str()), ("basis", known.basis.as_str())];
            rate.gauge(labels, known.per_node_hour)?;
        }
        let help = "Notices that nodes of a backend go away, without those that were sent again";
        let mut notices = family(sink, "tradewind_notices", help, MetricType::Counter)?;
        for (backend, kind, count) in &self.notices {
            notices.counter(vec![("backend", backend.as_str()), ("kind", kind.as_str())], *count)?;
        }
        Ok(())
    }

    fn encode_process(&self, sink: &mut Sink<'_>) -> Written {
        let mut active =
            family(sink, "tradewind_overrides_active", "Overrides that hold", MetricType::Gauge)?;
        for kind in OverrideKind::ALL {
            let count = self.overrides.iter().filter(|o| o.kind == kind).count();
            active.gauge(vec![("kind", kind.as_str())], count as f64)?;
        }
        let help = "Time until the next override of the kind ends by itself; absent without one";
        let mut ends = family(sink, "tradewind_override_ends_seconds", help, MetricType::Gauge)?;
        let now = crate::model::Timestamp::now();
        for kind in OverrideKind::ALL {
            let of_kind = self.overrides.iter().filter(|o| o.kind == kind);
            let left = of_kind.map(|o| o.expires_at.duration_since(now).as_secs_f64().max(0.0));
            if let Some(next) = left.min_by(f64::total_cmp) {
                ends.gauge(vec![("kind", kind.as_str())], next)?;
            }
        }
        let sent: Vec<_> = self.exports.iter().flat_map(Exports::all).collect();
        let help = "Spans, metric points and log records that a collector took";
        let mut exported = family(sink, "tradewind_otlp_exported", help, MetricType::Counter)?;
        for (signal, counts) in &sent {
            exported.counter(vec![("signal", signal)], counts.exported.load(Relaxed))?;
        }
        let help =
            "Those that were lost: their queue was full, or no collector took them, or one rejected them";
        let mut lost = family(sink, "tradewind_otlp_lost", help, MetricType::Counter)?;
        for (signal, counts) in &sent {
            lost.counter(vec![("signal", signal), ("reason", "queue")], counts.dropped.load(Relaxed))?;
            lost.counter(vec![("signal", signal), ("reason", "export")], counts.failed.load(Relaxed))?;
            let rejected = counts.rejected.load(Relaxed);
            lost.counter(vec![("signal", signal), ("reason", "rejected")], rejected)?;
        }
        let help = "1 if the last reload was refused: the file is not what is in force";
        family(sink, "tradewind_config_reload_failing", help, MetricType::Gauge)?
            .gauge(vec![], f64::from(u8::from(self.reload_failing)))?;
        let help = "Reloads that were refused";
        family(sink, "tradewind_config_reload_failures", help, MetricType::Counter)?
            .counter(vec![], self.reload_failures)?;
        let help = "Counts successful loads of the configuration";
        family(sink, "tradewind_config_generation", help, MetricType::Gauge)?
            .gauge(vec![], self.config_generation as f64)?;
        let help = "Journal entries that could not be written";
        family(sink, "tradewind_journal_lost", help, MetricType::Counter)?
            .counter(vec![], self.journal_lost)?;
        let help = "How long the write to the state directory that is under way has taken; grows when its disk hangs";
        family(sink, "tradewind_state_write_seconds", help, MetricType::Gauge)?
            .gauge(vec![], self.state_write_seconds)?;
        let help = "Lines of the log that were lost because standard error did not take them in time";
        family(sink, "tradewind_log_lines_lost", help, MetricType::Counter)?
            .counter(vec![], self.log_lost)?;
        let help = "Turns of the control loop, of which each decides about every route";
        family(sink, "tradewind_turns", help, MetricType::Counter)?.counter(vec![], self.turns)?;
        let help = "Time that the turns of the control loop took in all";
        family(sink, "tradewind_turns_seconds", help, MetricType::Counter)?
            .counter_f64(vec![], self.turning_seconds)?;
        let help = "Time since the last decision; grows when the control loop is stuck";
        family(sink, "tradewind_decision_age_seconds", help, MetricType::Gauge)?
            .gauge(vec![], self.decision_age_seconds)
    }
}
