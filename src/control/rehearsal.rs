//! What a reload would change: the file checked and compared, and every route decided about by it. Nothing is taken up.

use std::collections::HashMap;

use super::{
    Active, Control, RoutePicture,
    brain::{Observed, concerns},
    lock,
    preview::{self, Sides},
    reload,
};
use crate::{
    admin::{
        board::RoutePreview,
        rehearsal::{self, Candidate, Rehearsal},
        views::ReloadError,
    },
    config::{self, Settings},
    model::{BackendId, BackendView, Health, Live, Route, RouteId, Snapshot, Timestamp},
    policy::{self, State},
};

/// Shares that differ by less are shown as the same.
const SHOWN: f64 = 0.0005;

impl Control {
    /// What [`Control::reload_as`] would change, or would if the candidate were in the files.
    pub(super) fn rehearse(&self, candidate: Option<Candidate>) -> Result<Rehearsal, ReloadError> {
        let path = self.config_file()?;
        let loaded = match candidate {
            None => config::load(path),
            Some(candidate) => {
                let files: Vec<_> = candidate.files.into_iter().map(|file| (file.name, file.text)).collect();
                config::load_instead(&files, path)
            }
        };
        let loaded = loaded.map_err(ReloadError::Invalid)?;
        let (active, new) = (self.active.load(), &loaded.settings);
        let old = &active.settings;
        let removed = old.routes.iter().filter(|route| !new.routes.iter().any(|r| r.id == route.id));
        let mut rehearsal = Rehearsal {
            dry_run: true,
            generation: active.generation,
            changes: rehearsal::changes(&old.redacted_json(), &new.redacted_json()),
            needs_restart: reload::needs_restart(old, new).into_iter().map(str::to_owned).collect(),
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
            assumed_healthy: new_backends(old, new),
            removed_routes: removed.map(|route| route.id.clone()).collect(),
            routes: Vec::new(),
        };
        if rehearsal.needs_restart.is_empty() {
            rehearsal.routes = self.routes_by(&active, new, &rehearsal.assumed_healthy);
        }
        Ok(rehearsal)
    }

    /// The routes that would be decided about differently.
    fn routes_by(&self, active: &Active, new: &Settings, assumed: &[BackendId]) -> Vec<RoutePreview> {
        let now = Timestamp::now();
        let picture = self.picture.load();
        let pictures: HashMap<&RouteId, &RoutePicture> =
            picture.iter().flat_map(|picture| &picture.routes).map(|of| (&of.snapshot.route, of)).collect();
        let observed = Observed::all(new, &self.signals, now);
        let views = |id: &BackendId| {
            let mut view = observed.get(id)?.template.clone();
            if assumed.contains(id) {
                (view.health, view.resolved) = (Health::Healthy, true);
            }
            Some(view)
        };
        let overrides = self.overrides.active(now);
        new.routes
            .iter()
            .filter_map(|route| {
                let present = pictures.get(&route.id).copied();
                let mut snapshot = snapshot_by(route, present, views, now);
                snapshot.overrides = overrides.iter().filter(|o| concerns(o, route)).cloned().collect();
                let state = lock(&self.brain).memory.states.get(&route.id).cloned().unwrap_or_default();
                let outcome = self.route_by(new, route, snapshot, &state, present, now);
                let known = active.settings.routes.iter().any(|r| r.id == route.id);
                (!known || present.is_none_or(|present| differs(present, &outcome))).then_some(outcome)
            })
            .collect()
    }

    fn route_by(
        &self,
        new: &Settings,
        route: &Route,
        mut snapshot: Snapshot,
        state: &State,
        present: Option<&RoutePicture>,
        now: Timestamp,
    ) -> RoutePreview {
        if let Some(rules) = new.rules.get(&route.policy.id) {
            let bytes = policy::site::response_bytes(&snapshot);
            snapshot.rulings = rules.judge_at(&snapshot, bytes, |id| state.share_of(id));
        }
        let (next, _) = policy::decide(&route.policy, &snapshot, state, now);
        let present = present.map(|of| Sides { snapshot: &of.snapshot, decision: &of.decision });
        preview::between(present, Sides { snapshot: &snapshot, decision: &next })
    }
}

/// All that is known about a route, as if `route` were configured.
fn snapshot_by(
    route: &Route,
    present: Option<&RoutePicture>,
    views: impl Fn(&BackendId) -> Option<BackendView>,
    now: Timestamp,
) -> Snapshot {
    let known = present.map(|of| &of.snapshot);
    let backends = route.backends.iter().filter_map(|id| {
        let seen = known.and_then(|known| known.backends.iter().find(|view| view.backend.id == *id));
        let mut view = views(id)?;
        if let Some(seen) = seen {
            view.live = seen.live;
            view.load_elsewhere_rps = seen.load_elsewhere_rps;
            view.ejected.clone_from(&seen.ejected);
        } else {
            view.live = Live::default();
        }
        Some(view)
    });
    Snapshot {
        at: now,
        route: route.id.clone(),
        slo: route.slo.clone(),
        demand_rps: known.map_or(0.0, |known| known.demand_rps),
        response_bytes: known.and_then(|known| known.response_bytes),
        backends: backends.collect(),
        overrides: Vec::new(),
        rulings: Default::default(),
    }
}

/// Backends that are new, or elsewhere than before: what is known of them says nothing.
fn new_backends(old: &Settings, new: &Settings) -> Vec<BackendId> {
    let known = |backend: &crate::model::Backend| {
        old.backends.iter().any(|b| b.id == backend.id && b.endpoint == backend.endpoint)
    };
    new.backends.iter().filter(|backend| !known(backend)).map(|backend| backend.id.clone()).collect()
}

/// Whether a reader would see another decision.
fn differs(present: &RoutePicture, then: &RoutePreview) -> bool {
    let now = &present.decision;
    let target = |id: &BackendId| now.backends.iter().find(|v| v.backend == *id).map(|v| v.target);
    let moved = then.backends.iter().any(|backend| {
        target(&backend.backend).is_none_or(|target| (target - backend.target_share).abs() > SHOWN)
    });
    moved || now.reason.code() != then.reason_code || now.backends.len() != then.backends.len()
}
