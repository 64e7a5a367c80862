//! What operators' rules say in a turn, and what is told about those that cannot be decided.

use std::{collections::HashSet, sync::Arc};

use super::RoutePicture;
use crate::model::RouteId;

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
