//! What operators' rules say in a turn, and what is told about those that cannot be decided.

use std::{collections::HashSet, sync::Arc};

use super::RoutePicture;
use crate::{
    cost,
    model::{BackendId, RouteId, Rulings, Snapshot},
    policy::site::response_bytes,
    rules::{Facts, RuleSet},
};

/// What the rules of a route say about its snapshot; `share`: what each backend has now.
pub(super) fn judge(rules: &RuleSet, snapshot: &Snapshot, share: impl Fn(&BackendId) -> f64) -> Rulings {
    let bytes = response_bytes(snapshot);
    let facts = snapshot.backends.iter().map(|view| Facts {
        share: share(&view.backend.id),
        unit_cost_usd_per_1k: cost::cost_of(view, bytes).ok().map(|costing| costing.unit.total()),
    });
    rules.judge(snapshot, &facts.collect::<Vec<_>>())
}

/// One sentence for each rule that cannot be decided now.
pub(super) fn warnings(routes: &[RoutePicture]) -> Vec<String> {
    let sentences = routes.iter().flat_map(|RoutePicture { snapshot, .. }| {
        snapshot.rulings.undecided.iter().map(move |undecided| format!("{}: {undecided}", snapshot.route))
    });
    sentences.collect()
}

/// The rules that could not be decided in the last turn. No more than there are rules of routes in the configuration.
#[derive(Default)]
pub(super) struct Undecidable(HashSet<(RouteId, Arc<str>)>);

impl Undecidable {
    /// Logs the rules that can no longer be decided: each once, until it could be decided again.
    pub(super) fn log(&mut self, routes: &[RoutePicture]) {
        let mut still = HashSet::new();
        for RoutePicture { snapshot, .. } in routes {
            for undecided in &snapshot.rulings.undecided {
                let key = (snapshot.route.clone(), undecided.rule.clone());
                if !self.0.contains(&key) {
                    tracing::warn!(route = %snapshot.route, "{undecided}");
                }
                still.insert(key);
            }
        }
        self.0 = still;
    }
}
