//! What an override would do, decided by the very code that would decide it, and stored nowhere; and how the step from one
//! decision to another is told.

use super::{Control, RoutePicture, brain::concerns, lock};
use crate::{
    admin::{
        board::{BackendPreview, Preview, RoutePreview},
        views::{NewOverride, OverrideError},
    },
    cost,
    model::{BackendId, Decision, Override, Snapshot, Timestamp},
    policy::{self, explain, site::response_bytes},
};

/// Stands where a stored override has its id.
const ID: &str = "preview";

impl Control {
    pub(super) fn preview_of(&self, new: &NewOverride, author: &str) -> Result<Preview, OverrideError> {
        let ttl = self.check(new)?;
        let now = Timestamp::now();
        let order = Override {
            id: ID.into(),
            kind: new.kind,
            route: new.route.clone(),
            backend: new.backend.clone(),
            share: new.share,
            reason: new.reason.clone(),
            author: author.to_owned(),
            created_at: now,
            expires_at: now + ttl,
        };
        let picture = self.picture.load();
        let settings = &self.active.load().settings;
        let pictures = picture.iter().flat_map(|picture| &picture.routes);
        let concerned = pictures.filter(|of| {
            settings.routes.iter().any(|route| route.id == of.snapshot.route && concerns(&order, route))
        });
        let routes = concerned.map(|of| self.route_preview(of, &order, now)).collect();
        Ok(Preview { dry_run: true, ttl_seconds: ttl.as_secs_f64(), routes })
    }

    fn route_preview(&self, of: &RoutePicture, order: &Override, now: Timestamp) -> RoutePreview {
        let RoutePicture { snapshot, decision: present, policy, .. } = of;
        let state = lock(&self.brain).memory.states.get(&snapshot.route).cloned().unwrap_or_default();
        let mut imposed = snapshot.clone();
        imposed.overrides.push(order.clone());
        let (next, _) = policy::decide(policy, &imposed, &state, now);
        let present = Sides { snapshot, decision: present };
        between(Some(present), Sides { snapshot: &imposed, decision: &next })
    }
}

/// A decision and what it was made from.
#[derive(Clone, Copy)]
pub(super) struct Sides<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) decision: &'a Decision,
}

/// What the step from the decision in force, if there is one, to another one would do.
pub(super) fn between(present: Option<Sides<'_>>, then: Sides<'_>) -> RoutePreview {
    let next = then.decision;
    let verdicts = present.map_or(&[][..], |present| &present.decision.backends);
    let share = |id: &BackendId| verdicts.iter().find(|v| v.backend == *id).map_or(0.0, |v| v.share);
    let mut backends: Vec<BackendPreview> = next
        .backends
        .iter()
        .map(|after| BackendPreview {
            backend: after.backend.clone(),
            share: share(&after.backend),
            next_share: after.share,
            target_share: after.target,
        })
        .collect();
    for left in verdicts.iter().filter(|v| !next.backends.iter().any(|after| after.backend == v.backend)) {
        let (backend, share) = (left.backend.clone(), left.share);
        backends.push(BackendPreview { backend, share, next_share: 0.0, target_share: 0.0 });
    }
    RoutePreview {
        route: then.snapshot.route.clone(),
        summary: explain::summary(next),
        reason: next.reason.to_string(),
        reason_code: next.reason.code().into(),
        fallback: next.fallback,
        backends,
        now_usd_per_hour: present.and_then(|present| usd_per_hour(present.snapshot, present.decision)),
        then_usd_per_hour: usd_per_hour(then.snapshot, next),
    }
}

/// What the demand costs by the targets of a decision, beyond what is paid anyway; `None` when a cost is unknown.
fn usd_per_hour(snapshot: &Snapshot, decision: &Decision) -> Option<f64> {
    let bytes = response_bytes(snapshot);
    let served = snapshot.backends.iter().zip(&decision.backends).filter(|(_, verdict)| verdict.target > 0.0);
    served
        .map(|(view, verdict)| {
            let curve = cost::cost_of(view, bytes).ok()?.curve;
            let elsewhere = view.load_elsewhere_rps;
            let own = verdict.target * snapshot.demand_rps;
            Some(curve.usd_per_hour(elsewhere + own) - curve.usd_per_hour(elsewhere))
        })
        .sum()
}
