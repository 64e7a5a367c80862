//! Who is far slower than the other backends of a route.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    model::{BackendId, EjectionSpec, Live, OutlierSpec, Route, RouteId, Timestamp, words::latency},
    signals::traffic::{Meters, Window},
};

/// How fast each backend has answered each route lately.
#[derive(Debug, Default)]
pub(super) struct Paces(HashMap<(RouteId, BackendId), Pace>);

#[derive(Debug)]
struct Pace {
    window: Window,
    live: Live,
}

impl Paces {
    /// Looks at the routes that have a backend which is compared with the others.
    pub(super) fn advance(
        &mut self,
        meters: &Meters,
        watched: &[(&BackendId, &EjectionSpec)],
        routes: &[Arc<Route>],
        now: Timestamp,
    ) {
        let mut windows: HashMap<(RouteId, BackendId), Duration> = HashMap::new();
        for route in routes {
            let of = |id: &BackendId| watched.iter().find(|(watched, _)| *watched == id)?.1.latency.as_ref();
            // One that is only compared with is looked at for as long as those which are judged.
            let lengths = route.backends.iter().filter_map(|id| Some(of(id)?.window));
            let Some(longest) = lengths.max() else { continue };
            for id in &route.backends {
                let length = of(id).map_or(longest, |spec| spec.window);
                windows.insert((route.id.clone(), id.clone()), length);
            }
        }
        self.0.retain(|key, pace| windows.get(key) == Some(&pace.window.length()));
        for ((route, backend), length) in windows {
            let new = || Window::over(meters.get(Some(&route), Some(&backend)), length);
            let key = (route.clone(), backend.clone());
            let pace = self.0.entry(key).or_insert_with(|| Pace { window: new(), live: Live::default() });
            (pace.live, _) = pace.window.advance(now);
        }
    }

    /// Begins anew with a backend: what was before its ejection says nothing about what comes after.
    pub(super) fn forget(&mut self, backend: &BackendId) {
        self.0.retain(|(_, id), _| id != backend);
    }

    /// Why a backend is far slower than the others of a route, those that are out left aside; `None` if it is not, or too few
    /// answers say so.
    pub(super) fn outlier(
        &self,
        backend: &BackendId,
        spec: &OutlierSpec,
        routes: &[Arc<Route>],
        is_out: impl Fn(&BackendId) -> bool,
    ) -> Option<String> {
        routes.iter().filter(|route| route.backends.contains(backend)).find_map(|route| {
            let median = |id: &BackendId| {
                let live = &self.0.get(&(route.id.clone(), id.clone()))?.live;
                live.ttfb_p50.filter(|_| live.samples >= spec.min_requests.max(1))
            };
            let own = median(backend)?;
            let others = route.backends.iter().filter(|id| *id != backend && !is_out(id));
            let others = typical(others.filter_map(median).collect())?;
            let slow = own > others.mul_f64(spec.factor) && own > others + spec.margin;
            slow.then(|| {
                let (own, others) = (latency(own.as_secs_f64()), latency(others.as_secs_f64()));
                format!(
                    "its median time to first byte is {own}, that of the others {others} (route {})",
                    route.id
                )
            })
        })
    }
}

/// The median of medians; of an even number the later of the two in the middle, so that more than half of the others are faster by
/// far. `None` of none.
fn typical(mut medians: Vec<Duration>) -> Option<Duration> {
    medians.sort();
    medians.get(medians.len() / 2).copied()
}
