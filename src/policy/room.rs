//! What a backend can take now and later, and the model of ready replicas where nothing reports them.

use std::time::Duration;

use crate::model::{BackendView, Policy, Replicas, Share, Snapshot, Timestamp};

use super::{
    site::Site,
    state::{State, Warmth},
};

/// From this part of what is ready on a backend is taken to be full: chance alone makes queues then.
pub(super) const FULL: f64 = 0.9;

/// From this part of what is ready on load goes elsewhere at once. What a replica serves within the objective is not where it
/// breaks, and autoscalers let load rise above it before they act: a tenth is the tolerance of Kubernetes' HorizontalPodAutoscaler.
pub(super) const SPILL_FROM: f64 = 1.1;

/// What a backend can take.
pub(super) struct Room {
    /// Share that is ready.
    pub(super) ready_share: f64,
    /// Share beyond which load goes elsewhere at once.
    pub(super) spill_share: f64,
    /// The same in requests per second, all routes together; `None` without `replicas`.
    pub(super) ready_rps: Option<f64>,
    /// Whether that was seen and not modelled.
    pub(super) is_seen: bool,
    /// Replicas that are ready; 1 without `replicas`.
    pub(super) replicas: f64,
    /// Share with all replicas that the autoscaler may have.
    pub(super) most_share: f64,
    /// The largest attainable share: that, or what is ready where replicas do not come.
    pub(super) limit: f64,
    /// Whether replicas do not come.
    pub(super) stalled: bool,
}

impl Room {
    /// Whether it is seen to have more to do than it is ready for, or `queues` beyond the objective: then it is slow because of
    /// that, and what helps is to take the excess away, not all.
    pub(super) fn is_overloaded(&self, view: &BackendView, own_load_rps: f64, queues: bool) -> bool {
        let full = self.ready_rps.is_some_and(|ready| own_load_rps + view.load_elsewhere_rps >= ready * FULL);
        self.is_seen && (full || queues)
    }
}

/// What a backend can take now and later. Where nothing reports the replicas, they are modelled: what runs the present load
/// is ready, and so is what had its cold start.
pub(super) fn room(
    policy: &Policy,
    view: &BackendView,
    warmth: &Warmth,
    own_load_rps: f64,
    demand_rps: f64,
    now: Timestamp,
) -> Room {
    let Some(replicas) = &view.backend.replicas else {
        return Room {
            ready_share: 1.0,
            spill_share: 1.0,
            ready_rps: None,
            is_seen: false,
            replicas: 1.0,
            most_share: 1.0,
            limit: 1.0,
            stalled: false,
        };
    };
    let elsewhere = view.load_elsewhere_rps;
    let reported = view.load.ready_replicas.map(|count| count.min(replicas.max));
    let ready = match reported {
        Some(count) => count,
        None if reported_lately(policy, replicas, warmth, now) => warmth.ready.min(replicas.max),
        None if replicas.cold_start.is_zero() => replicas.max,
        None => running(replicas, warmth, own_load_rps + elsewhere),
    };
    let ready_rps = replicas.capacity_rps(ready) * (1.0 - view.leaving.get());
    let share_of = |rps: f64| ((rps - elsewhere) / demand_rps).clamp(0.0, 1.0);
    let (ready_share, most_share) = (share_of(ready_rps), share_of(replicas.capacity_rps(replicas.max)));
    let stalled = is_stalled(policy, replicas, warmth, now);
    Room {
        ready_share,
        spill_share: share_of(ready_rps * SPILL_FROM),
        ready_rps: Some(ready_rps),
        is_seen: reported.is_some() || view.leaving > Share::ZERO,
        replicas: f64::from(ready),
        most_share,
        limit: if stalled { ready_share.min(most_share) } else { most_share },
        stalled,
    }
}

/// Time after which replicas that were wanted and have not come are not counted on: half as much again as a cold start, and
/// a minute for the autoscaler to see the wish.
fn patience(replicas: &Replicas) -> Duration {
    replicas.cold_start.mul_f64(1.5) + Duration::from_secs(60)
}

/// Time after which a backend whose replicas did not come is counted on again.
fn retry_after(policy: &Policy, replicas: &Replicas) -> Duration {
    policy.hold.max(replicas.cold_start * 2)
}

/// Whether it is not counted on for more than is ready.
fn is_stalled(policy: &Policy, replicas: &Replicas, warmth: &Warmth, now: Timestamp) -> bool {
    let since = warmth.stalled_at.map(|at| now.duration_since(at).unsigned_abs());
    since.is_some_and(|since| since < retry_after(policy, replicas))
}

/// Whether a backend that reports no ready replicas now did so not long ago. So long it counts for what it reported: that a
/// report is missing makes nothing ready. After that it is modelled.
fn reported_lately(policy: &Policy, replicas: &Replicas, warmth: &Warmth, now: Timestamp) -> bool {
    let silent = warmth.reported_at.map(|at| now.duration_since(at).unsigned_abs());
    silent.is_some_and(|silent| silent < retry_after(policy, replicas))
}

/// Replicas that run: those that had their cold start, and what the present load needs.
fn running(replicas: &Replicas, warmth: &Warmth, load_rps: f64) -> u32 {
    warmth.ready.max(replicas_for(load_rps, replicas.rps)).clamp(replicas.min, replicas.max)
}

/// Spot nodes that run in each backend of the route, those of other routes' load included, in the order of the snapshot.
/// `state` is what the decision about this snapshot returned. Not always whole: they are a part of nodes that are modelled.
/// `None` for a backend without `node` or `replicas`.
pub fn spot_nodes(snapshot: &Snapshot, state: &State) -> Vec<Option<f64>> {
    let of = |(place, view): (usize, &BackendView)| {
        let (node, replicas) = (view.backend.node.as_ref()?, view.backend.replicas.as_ref()?);
        let load_rps = state.shares.get(place)? * snapshot.demand_rps + view.load_elsewhere_rps;
        let running = running(replicas, state.warmth.get(place)?, load_rps);
        Some(f64::from(running) / node.replicas_per_node * node.spot.get())
    };
    snapshot.backends.iter().enumerate().map(of).collect()
}

/// Replicas that a load needs. A hair below a whole number counts as that number.
fn replicas_for(load_rps: f64, rps: f64) -> u32 {
    (load_rps / rps - 1e-6).ceil().max(0.0) as u32
}

/// Advances the model of ready replicas towards what the targets need: up after the cold start, down after `hold`, so that
/// the giving side can take its load back until the move has held.
pub fn follow_capacity(policy: &Policy, sites: &[Site], state: &mut State, now: Timestamp) {
    let waited = |since: &mut Option<Timestamp>, time: Duration| {
        let start = *since.get_or_insert(now);
        if start > now {
            *since = Some(now);
        }
        Duration::try_from(now.duration_since(start)).is_ok_and(|waited| waited >= time)
    };
    for (i, site) in sites.iter().enumerate() {
        let Some(replicas) = &site.view.backend.replicas else { continue };
        let mut load = state.target[i].max(state.shares[i]) * site.demand_rps + site.view.load_elsewhere_rps;
        if site.view.load.ready_replicas.is_none() && site.may_serve {
            // Where replicas are reported, a reserve that does not come is no sign that what is served would not.
            load += state.reserved(i) * site.demand_rps;
        }
        let need = replicas_for(load, replicas.rps).clamp(replicas.min, replicas.max);
        let warmth = &mut state.warmth[i];
        if let Some(reported) = site.view.load.ready_replicas {
            let came = reported > warmth.most_ready;
            // Half of it gone at once is an outage, not a fluctuation: others must prepare now.
            let collapsed = warmth.ready > 0 && reported * 2 <= warmth.ready && need > reported;
            warmth.most_ready = match warmth.growing_since {
                Some(_) => warmth.most_ready.max(reported),
                None => reported,
            };
            warmth.ready = reported;
            warmth.reported_at = Some(now);
            warmth.idle_since = None;
            // Less does not make an autoscaler act.
            let enough = load <= replicas.capacity_rps(reported) * SPILL_FROM || need <= reported;
            if collapsed {
                (warmth.growing_since, warmth.stalled_at) = (None, Some(now));
            } else if enough {
                warmth.growing_since = None;
            } else if came {
                warmth.growing_since = Some(now);
            } else if waited(&mut warmth.growing_since, patience(replicas)) {
                (warmth.growing_since, warmth.stalled_at) = (None, Some(now));
            }
            continue;
        }
        if reported_lately(policy, replicas, warmth, now) {
            // What was waited for is waited for anew when the model takes over.
            (warmth.growing_since, warmth.idle_since) = (None, None);
            continue;
        }
        (warmth.stalled_at, warmth.reported_at) = (None, None);
        warmth.ready = warmth.ready.clamp(replicas.min, replicas.max);
        if need > warmth.ready {
            warmth.idle_since = None;
            if waited(&mut warmth.growing_since, replicas.cold_start) {
                *warmth = settled(need, warmth);
            }
        } else if need < warmth.ready {
            warmth.growing_since = None;
            if waited(&mut warmth.idle_since, policy.hold) {
                *warmth = settled(need, warmth);
            }
        } else {
            *warmth = settled(need, warmth);
        }
    }
}

/// So many replicas are ready and no others are wanted. What the backend reported of its limit stays.
fn settled(ready: u32, Warmth { full_at, late_at, overloaded_at, .. }: &Warmth) -> Warmth {
    let (full_at, late_at, overloaded_at) = (*full_at, *late_at, *overloaded_at);
    Warmth { ready, full_at, late_at, overloaded_at, ..Warmth::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::worlds::World;

    #[test]
    fn spot_nodes_are_those_that_run_and_not_those_that_could() {
        let mut world = World::new(&[("a", 1.0), ("b", 1.0)]);
        world.configure("a", |backend| {
            let node = backend.node.as_mut().unwrap();
            (node.spot, node.replicas_per_node) = (Share::new(0.5).unwrap(), 2.0);
            // Without a cold start all of them count as ready, though few run.
            backend.replicas = Some(Replicas { min: 2, max: 100, rps: 10.0, cold_start: Duration::ZERO });
        });
        world.configure("b", |backend| backend.node = None);
        world.view_mut("a").load_elsewhere_rps = 15.0;
        let world = world.snapshot;
        let mut state = State::default().aligned_to(&world);
        let nodes = |state: &State| spot_nodes(&world, state);
        // 15 requests a second from other routes need two replicas, which are one node.
        assert_eq!(nodes(&state), [Some(0.5), None]);
        // With all of the 50 of this route seven.
        state.shares = vec![1.0, 0.0];
        assert_eq!(nodes(&state), [Some(1.75), None]);
        // Those that are still warm run as well.
        state.warmth[0].ready = 20;
        assert_eq!(nodes(&state), [Some(5.0), None]);
        state.warmth[0].ready = 1000;
        assert_eq!(nodes(&state), [Some(25.0), None]);
    }
}
