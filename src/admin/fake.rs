//! A desk for tests, and the server around it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{Desk, Options, Refusal};
use crate::{
    admin::board::{Board, InFull, Past, Preview, RoutePreview, Savings, Trend},
    admin::rehearsal::{Candidate, Rehearsal},
    admin::views::{
        Explanation, NewOverride, NoticeError, NoticeReceipt, OverrideError, OverrideStatus, ReloadError,
        Status,
    },
    config::{Fault, Faults, Role, Severity, Token},
    model::{BackendId, Digest, Fallback, InterruptionRate, Override, RateBasis, RouteId, Timestamp},
    signals::{
        notices::{NewNotice, Notice, Outcome},
        prices::PriceReport,
    },
    store::journal::JournalQuery,
};

/// Answers from what a test put there.
#[derive(Default)]
pub(crate) struct FakeDesk {
    pub(crate) not_ready: Option<String>,
    pub(crate) metrics: String,
    pub(crate) asked: Mutex<Vec<JournalQuery>>,
    pub(crate) overrides: Mutex<Vec<OverrideStatus>>,
    /// What adding an override fails with.
    pub(crate) refusal: Option<fn(String) -> OverrideError>,
    /// Who sent what.
    pub(crate) notices: Mutex<Vec<(String, Notice)>>,
    /// What a notice fails with.
    pub(crate) notice_refusal: Option<fn(String) -> NoticeError>,
    /// What was refused.
    pub(crate) refusals: Mutex<Vec<Refusal>>,
    /// What a reload fails with.
    pub(crate) reload_refusal: Option<fn() -> ReloadError>,
    /// Adding an override says here that it has begun, and waits until the sender of the second is dropped.
    pub(crate) gate: Mutex<Option<(oneshot::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Desk for FakeDesk {
    fn ready(&self) -> Result<(), String> {
        self.not_ready.clone().map_or(Ok(()), Err)
    }

    fn status(&self) -> Status {
        Status {
            version: "0.1.0".into(),
            uptime_seconds: 60.0,
            config_generation: 1,
            config_error: None,
            decision_age_seconds: 0.5,
            draining: false,
            warnings: Vec::new(),
            routes: vec![crate::admin::views::RouteStatus {
                route: "chat".parse().unwrap(),
                demand_rps: 0.0,
                slo_seconds: None,
                reason: "no other placement is cheaper".into(),
                reason_code: "cheapest".into(),
                fallback: Fallback::None,
                n_minus_one: None,
                backends: Vec::new(),
                shadows: Vec::new(),
            }],
            overrides: self.overrides(),
        }
    }

    fn explain(&self, route: &str) -> Option<Explanation> {
        let explanation = json!({
            "route": "chat", "summary": "no other placement is cheaper", "what_would_change_it": "a gap of 15%",
            "inputs": [], "response_bytes": 4096.0, "prices": [],
            "decision": {
                "at": "2026-03-02T10:00:00Z", "policy": "default", "rule": "threshold", "shift_at": 0.15,
                "return_at": 0.05, "action": "stay", "reason": {"code": "cheapest"}, "gap": null,
                "cost_here_usd_per_hour": null, "cost_there_usd_per_hour": null, "demand_rps": 0.0,
                "fallback": "none", "backends": []
            }
        });
        (route == "chat").then(|| serde_json::from_value(explanation).unwrap())
    }

    fn journal(&self, query: &JournalQuery) -> Result<Vec<Value>, String> {
        self.asked.lock().unwrap().push(query.clone());
        // Of a route that is no longer configured there is something old.
        let is_known = query.route.as_ref().is_none_or(|route| route.as_str() == "chat");
        let is_old =
            query.route.as_ref().is_some_and(|route| route.as_str() == "gone" && query.since.is_none());
        let entries = [json!({"at": "2026-03-02T10:00:00Z", "kind": "decision"})];
        Ok(entries.into_iter().filter(|_| is_known || is_old).collect())
    }

    fn prices(&self) -> Vec<PriceReport> {
        Vec::new()
    }

    fn overrides(&self) -> Vec<OverrideStatus> {
        self.overrides.lock().unwrap().clone()
    }

    fn add_override(
        &self,
        new: NewOverride,
        author: &str,
        _key: Option<&str>,
    ) -> Result<OverrideStatus, OverrideError> {
        if let Some((begun, go_on)) = self.gate.lock().unwrap().take() {
            begun.send(()).unwrap();
            let _ = go_on.recv();
        }
        if let Some(refusal) = self.refusal {
            return Err(refusal("refused for the test".into()));
        }
        let mut overrides = self.overrides.lock().unwrap();
        let stored = OverrideStatus {
            item: Override {
                id: format!("o-{}", overrides.len() + 1),
                kind: new.kind,
                route: new.route,
                backend: new.backend,
                share: new.share,
                reason: new.reason,
                author: author.into(),
                created_at: "2026-03-02T10:00:00Z".parse().unwrap(),
                expires_at: "2026-03-02T10:30:00Z".parse().unwrap(),
            },
            remaining_seconds: 1800.0,
        };
        overrides.push(stored.clone());
        Ok(stored)
    }

    fn preview(&self, new: &NewOverride, _author: &str) -> Result<Preview, OverrideError> {
        if let Some(refusal) = self.refusal {
            return Err(refusal("refused for the test".into()));
        }
        let routes = new.route.iter().map(|route| RoutePreview {
            route: route.clone(),
            summary: "b 100%: override drain.".into(),
            reason: format!("override drain (preview): {}", new.reason),
            reason_code: "override".into(),
            fallback: Fallback::None,
            backends: Vec::new(),
            now_usd_per_hour: Some(1.0),
            then_usd_per_hour: None,
        });
        Ok(Preview { dry_run: true, ttl_seconds: 1800.0, routes: routes.collect() })
    }

    fn end_override(&self, id: &str, _author: &str) -> Result<Option<Override>, OverrideError> {
        let mut overrides = self.overrides.lock().unwrap();
        let index = overrides.iter().position(|o| o.item.id == id);
        Ok(index.map(|index| overrides.remove(index).item))
    }

    fn notice(&self, backend: BackendId, new: NewNotice, author: &str) -> Result<NoticeReceipt, NoticeError> {
        if let Some(refusal) = self.notice_refusal {
            return Err(refusal("refused for the test".into()));
        }
        let notice = new.of(backend, "2026-03-02T10:00:00Z".parse().unwrap());
        self.notices.lock().unwrap().push((author.into(), notice.clone()));
        let interruptions = InterruptionRate { per_node_hour: 0.487, basis: RateBasis::Learned };
        let outcome = Outcome::Counted { nodes: 2.0 };
        Ok(NoticeReceipt { notice, outcome, interruptions: Some(interruptions) })
    }

    fn config(&self) -> Value {
        json!({"generation": 1})
    }

    fn reload(&self, _author: &str, _expected: Option<u64>) -> Result<u64, ReloadError> {
        self.reload_refusal.map_or(Ok(2), |refusal| Err(refusal()))
    }

    fn rehearse_reload(&self, _candidate: Option<Candidate>) -> Result<Rehearsal, ReloadError> {
        Ok(Rehearsal {
            dry_run: true,
            generation: 1,
            changes: Vec::new(),
            needs_restart: Vec::new(),
            warnings: Vec::new(),
            assumed_healthy: Vec::new(),
            removed_routes: Vec::new(),
            routes: Vec::new(),
        })
    }

    fn board(&self, _only: &str) -> Board {
        Board {
            at: "2026-03-02T10:00:00Z".parse().unwrap(),
            status: self.status(),
            full: self
                .explain("chat")
                .map(|explanation| InFull { place: 0, explanation, trend: Trend::default() })
                .into_iter()
                .collect(),
            prices: self.prices(),
            signals: Vec::new(),
            moves: Vec::new(),
            savings: Savings::default(),
        }
    }

    fn past(&self, _route: &RouteId, _at: Timestamp) -> Result<Option<Past>, String> {
        Ok(None)
    }

    fn revisions(&self) -> watch::Receiver<u64> {
        watch::channel(1).1
    }

    fn note_refusal(&self, refusal: Refusal) {
        self.refusals.lock().unwrap().push(refusal);
    }

    fn metrics(&self) -> String {
        self.metrics.clone()
    }
}

/// A configuration with one fault.
pub(crate) fn faulty() -> ReloadError {
    let fault = Fault {
        file: "tradewind.toml".into(),
        line: 3,
        column: 1,
        message: "unknown key `lisen`".into(),
        hint: Some("did you mean `listen`?".into()),
        severity: Severity::Error,
    };
    ReloadError::Invalid(Faults { faults: vec![fault], omitted: 0 })
}

/// One token of each role, `viewer-secret` and so on.
pub(crate) fn tokens() -> Arc<ArcSwap<Vec<Token>>> {
    let tokens = [
        ("eve", Role::Viewer, "viewer-secret"),
        ("oncall", Role::Operator, "operator-secret"),
        ("root", Role::Admin, "admin-secret"),
    ]
    .map(|(name, role, value)| Token {
        name: name.into(),
        role,
        digest: Digest::of(value.as_bytes()),
        expires: None,
    });
    Arc::new(ArcSwap::from_pointee(tokens.into()))
}

/// A server on a free port of loopback.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: oneshot::Sender<()>,
    pub(crate) done: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn start(desk: Arc<FakeDesk>, options: Options) -> Server {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, stopped) = oneshot::channel();
    let done = tokio::spawn(super::serve(Some(listener), options, desk, async {
        let _ = stopped.await;
    }));
    Server { address, shutdown, done }
}
