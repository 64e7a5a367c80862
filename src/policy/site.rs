//! What each backend may get at this moment, what keeps it from more, and what it costs.

use std::time::Duration;

use crate::{
    cost::{self, Costing, Missing},
    model::{
        BackendView, Cause, Fallback, Health, OverrideKind, Policy, Replicas, Share, Slo, Snapshot, Timestamp,
    },
};

use super::state::{State, Warmth};

/// Live requests needed before their latency counts: below that one slow request would be a percentile.
const SLO_SAMPLES_MIN: u64 = 20;

/// Response size that egress is priced by until the first answer was seen: that of a short chat answer. Were it 0, a backend
/// with dear egress would look cheap after every start.
const RESPONSE_BYTES_ASSUMED: f64 = 4096.0;

/// From this part of what is ready on a backend is taken to be full: chance alone makes queues then.
pub(super) const FULL: f64 = 0.9;

/// Live latencies are those of the last minute, and what made them so may have begun and ended within it: for this time after
/// an overload they say nothing else about a backend.
const OVERLOAD_SEEN_FOR: Duration = Duration::from_secs(120);

/// A queue shall be gone within this time: the time for which live latencies are remembered.
const QUEUE_GONE_WITHIN_SECONDS: f64 = 60.0;

/// Load at which costs are compared when no request arrives, in requests per second: small enough never to leave a paid
/// minimum, above zero so that ratios exist.
const DEMAND_MIN_RPS: f64 = 1e-3;

/// A backend as the decision sees it.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// What is known about it.
    pub view: &'a BackendView,
    /// Whether it may serve at all. One that is full still may, if all are full.
    pub may_serve: bool,
    /// Largest share that it should have now, 0 when it may not serve.
    pub limit: f64,
    /// What keeps it at that limit.
    pub limited_by: Option<Cause>,
    /// Largest share that is ready, at most `limit`; growth by the ramp stops here.
    pub ready_share: f64,
    /// Share that is ready and leaves a reserve, at most `ready_share`.
    pub easy_share: f64,
    /// Requests per second that it can serve now, all routes together; `None` if unknown.
    pub ready_rps: Option<f64>,
    /// Whether what is ready was seen (reported, or announced to leave), not modelled: load beyond it goes elsewhere at once.
    pub ready_is_seen: bool,
    /// Share of the demand that would have to stay away for its queue to be gone within a minute; 0 where none is reported.
    pub queue_share: f64,
    /// Share that it shall prepare for beyond its target: replicas that did not come in time are asked for all the same.
    pub awaited_share: f64,
    /// Its cost, when it is known. Only one that is trusted is a reason to move; any ranks backends when traffic must.
    pub costing: Option<Costing>,
    /// What is missing to know or to trust its cost.
    pub missing: Option<Missing>,
    /// Load at which shares are compared, in requests per second.
    pub demand_rps: f64,
    /// The constraint that may be given up for it, should nothing else be left.
    waivable: Option<Cause>,
    /// Limit by capacity alone.
    capacity_limit: f64,
}

impl Site<'_> {
    /// Its cost, if that may be a reason to move.
    pub fn trusted_costing(&self) -> Option<Costing> {
        self.costing.filter(|costing| costing.trusted)
    }

    /// USD per hour that `share` of the demand costs there in whole nodes, on top of what other routes send; `None` if that is
    /// unknown or not trusted.
    pub fn usd_per_hour(&self, share: f64) -> Option<f64> {
        let elsewhere = self.view.load_elsewhere_rps;
        let curve = self.trusted_costing()?.curve;
        Some(
            curve.whole_usd_per_hour(elsewhere + share * self.demand_rps)
                - curve.whole_usd_per_hour(elsewhere),
        )
    }

    /// Largest share to which the ramp may raise it: where what is ready is seen, a reserve stays.
    pub(super) fn growth_share(&self) -> f64 {
        if self.ready_is_seen { self.easy_share } else { self.ready_share }
    }

    /// Whether something other than its capacity keeps it from its share.
    pub fn barred(&self) -> bool {
        self.limited_by.is_some_and(|cause| cause != Cause::Capacity)
    }

    /// Notes that an operator pins traffic to others, unless something stronger keeps it from its share already.
    pub(super) fn pinned_elsewhere(&mut self) {
        if !self.barred() {
            self.limited_by = Some(Cause::PinnedElsewhere);
        }
    }

    /// Keeps it at what it has until it is let back.
    pub(super) fn wait_at(&mut self, share: f64) {
        self.limit = self.limit.min(share);
        self.ready_share = self.ready_share.min(share);
    }

    fn forbid(&mut self, cause: Cause) {
        self.may_serve = false;
        self.limit = 0.0;
        self.ready_share = 0.0;
        self.limited_by = Some(cause);
    }
}

/// Mean response size by which egress is priced, in bytes.
pub fn response_bytes(snapshot: &Snapshot) -> f64 {
    snapshot.response_bytes.unwrap_or(RESPONSE_BYTES_ASSUMED)
}

/// Every backend of the route before overrides. Constraints that can be waived are waived in order if nothing is left.
pub fn survey<'a>(
    policy: &Policy,
    snapshot: &'a Snapshot,
    state: &mut State,
    now: Timestamp,
) -> Vec<Site<'a>> {
    let demand_rps = snapshot.demand_rps.max(DEMAND_MIN_RPS);
    let response_bytes = response_bytes(snapshot);
    let mut sites = Vec::with_capacity(snapshot.backends.len());
    for (i, view) in snapshot.backends.iter().enumerate() {
        let cost = cost::cost_of(view, response_bytes);
        let own_load_rps = state.shares[i] * demand_rps;
        let room = room(policy, view, &state.warmth[i], own_load_rps, demand_rps, now);
        let overloaded_at = &mut state.warmth[i].overloaded_at;
        if room.is_overloaded(view, own_load_rps) {
            *overloaded_at = Some(now);
        }
        let overloaded =
            overloaded_at.is_some_and(|at| now.duration_since(at).unsigned_abs() <= OVERLOAD_SEEN_FOR);
        let over_slo = over_slo(policy, &snapshot.slo, view, overloaded, &mut state.over_slo_at[i], now);
        let stalled = room.stalled;
        let mut site = Site {
            view,
            may_serve: true,
            limit: room.limit,
            limited_by: (room.limit < 1.0).then_some(Cause::Capacity),
            ready_share: room.ready_share,
            easy_share: room.easy_share,
            ready_rps: room.ready_rps,
            ready_is_seen: room.is_seen,
            queue_share: view.load.queued.unwrap_or(0.0) / QUEUE_GONE_WITHIN_SECONDS / demand_rps,
            awaited_share: if stalled {
                state.plan.get(i).copied().unwrap_or(0.0).min(room.most_share)
            } else {
                0.0
            },
            costing: cost.ok(),
            missing: match cost {
                Ok(costing) => (!costing.trusted).then_some(Missing::Trust),
                Err(missing) => Some(missing),
            },
            demand_rps,
            waivable: None,
            capacity_limit: room.limit,
        };
        if !view.resolved {
            site.forbid(Cause::Unresolved);
        } else if view.health == Health::Unhealthy {
            site.forbid(Cause::Unhealthy);
        } else if view.health == Health::Unknown {
            // One that serves keeps what it has: silence is no failure, and leaving it would send everything to whoever
            // happens to be probed first.
            site.waivable = Some(Cause::HealthUnknown);
            let has = state.shares[i].min(site.limit);
            if has > 0.0 {
                (site.limit, site.ready_share) = (has, has);
                site.limited_by = Some(Cause::HealthUnknown);
            } else {
                site.forbid(Cause::HealthUnknown);
            }
        } else if over_slo {
            site.forbid(Cause::OverSlo);
            site.waivable = Some(Cause::OverSlo);
        }
        sites.push(site);
    }
    waive(&mut sites);
    sites
}

/// Takes out what operators drain and cap; says which constraint had to be given up to serve at all.
pub fn impose_overrides(snapshot: &Snapshot, sites: &mut [Site]) -> Fallback {
    let of = |site: &Site, kind: OverrideKind| {
        let id = site.view.backend.id.clone();
        snapshot.overrides.iter().filter(move |o| o.kind == kind && o.backend.as_ref() == Some(&id))
    };
    for site in sites.iter_mut() {
        if of(site, OverrideKind::Drain).next().is_some() {
            site.forbid(Cause::Drained);
            site.waivable = None;
        }
    }
    let fallback = waive(sites);
    for site in sites.iter_mut() {
        let cap = of(site, OverrideKind::Cap).filter_map(|o| o.share).map(|s| s.get()).reduce(f64::min);
        // A pin is stronger than a cap on the same backend.
        if let Some(cap) = cap
            && of(site, OverrideKind::Pin).next().is_none()
            && site.limit > cap
        {
            site.limit = cap;
            site.ready_share = site.ready_share.min(cap);
            site.limited_by = Some(Cause::Capped);
        }
    }
    fallback
}

/// If nothing may serve, gives up first on unknown health, then on the latency objective: never on health, residency or an
/// operator's word.
fn waive(sites: &mut [Site]) -> Fallback {
    for (cause, fallback) in [(Cause::HealthUnknown, Fallback::StaleSignals), (Cause::OverSlo, Fallback::Slo)]
    {
        if sites.iter().any(|s| s.may_serve) {
            break;
        }
        for site in sites.iter_mut().filter(|s| s.waivable == Some(cause) && !s.may_serve) {
            site.may_serve = true;
            site.limit = site.capacity_limit;
            site.ready_share = site.capacity_limit;
        }
        if sites.iter().any(|s| s.may_serve) {
            return fallback;
        }
    }
    match sites.iter().find(|s| s.may_serve) {
        None => Fallback::NothingEligible,
        // A first pass (before overrides) may already have waived the constraint.
        Some(_) if sites.iter().filter(|s| s.may_serve).all(|s| s.waivable == Some(Cause::HealthUnknown)) => {
            Fallback::StaleSignals
        }
        Some(_) if sites.iter().filter(|s| s.may_serve).all(|s| s.waivable == Some(Cause::OverSlo)) => {
            Fallback::Slo
        }
        Some(_) => Fallback::None,
    }
}

/// Whether a backend breaks the objective by probe or by live traffic. Once seen over it, it stays out for `hold`, so that
/// traffic does not come back the moment its own absence has made the backend fast again. Live traffic says nothing about one
/// that is `overloaded`.
fn over_slo(
    policy: &Policy,
    slo: &Slo,
    view: &BackendView,
    overloaded: bool,
    over_slo_at: &mut Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let Some(limit) = slo.ttft_p95 else {
        *over_slo_at = None;
        return false;
    };
    let by_probe = view.probe.and_then(|p| p.first_byte).is_some_and(|t| t > limit);
    let by_traffic =
        !overloaded && view.live.samples >= SLO_SAMPLES_MIN && view.live.ttfb_p95.is_some_and(|t| t > limit);
    if by_probe || by_traffic {
        *over_slo_at = Some(now);
    }
    let since = over_slo_at.map(|at| now.duration_since(at).unsigned_abs());
    match since {
        Some(since) if since < policy.hold || by_probe || by_traffic => true,
        Some(_) => {
            *over_slo_at = None;
            false
        }
        None => false,
    }
}

/// What a backend can take.
struct Room {
    /// Share that is ready.
    ready_share: f64,
    /// Share that is ready and leaves a reserve.
    easy_share: f64,
    /// The same in requests per second, all routes together; `None` without `replicas`.
    ready_rps: Option<f64>,
    /// Whether that was seen and not modelled.
    is_seen: bool,
    /// Share with all replicas that the autoscaler may have.
    most_share: f64,
    /// The largest attainable share: that, or what is ready where replicas do not come.
    limit: f64,
    /// Whether replicas do not come.
    stalled: bool,
}

impl Room {
    /// Whether it is seen to have more to do than it is ready for: then it is slow because of that, and what helps is to take
    /// the excess away, not all.
    fn is_overloaded(&self, view: &BackendView, own_load_rps: f64) -> bool {
        let full = self.ready_rps.is_some_and(|ready| own_load_rps + view.load_elsewhere_rps >= ready * FULL);
        self.is_seen && (full || view.load.queued.is_some_and(|queued| queued > 0.0))
    }
}

/// What a backend can take now and later. Where nothing reports the replicas, they are modelled: what runs the present load
/// is ready, and so is what had its cold start.
fn room(
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
            easy_share: 1.0,
            ready_rps: None,
            is_seen: false,
            most_share: 1.0,
            limit: 1.0,
            stalled: false,
        };
    };
    let elsewhere = view.load_elsewhere_rps;
    let reported = view.load.ready_replicas.map(|count| count.min(replicas.max));
    let ready = match reported {
        Some(count) => count,
        None if replicas.cold_start.is_zero() => replicas.max,
        None => running(replicas, warmth, own_load_rps + elsewhere),
    };
    let ready_rps = replicas.capacity_rps(ready) * (1.0 - view.leaving.get());
    let share_of = |rps: f64| ((rps - elsewhere) / demand_rps).clamp(0.0, 1.0);
    let (ready_share, most_share) = (share_of(ready_rps), share_of(replicas.capacity_rps(replicas.max)));
    let stalled = warmth
        .stalled_at
        .is_some_and(|at| now.duration_since(at).unsigned_abs() < retry_after(policy, replicas));
    Room {
        ready_share,
        easy_share: share_of(ready_rps * FULL),
        ready_rps: Some(ready_rps),
        is_seen: reported.is_some() || view.leaving > Share::ZERO,
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
        let load = state.target[i].max(state.shares[i]) * site.demand_rps + site.view.load_elsewhere_rps;
        let need = replicas_for(load, replicas.rps).clamp(replicas.min, replicas.max);
        let warmth = &mut state.warmth[i];
        if let Some(reported) = site.view.load.ready_replicas {
            let came = reported > warmth.ready;
            warmth.ready = reported;
            warmth.idle_since = None;
            if need <= reported || came {
                warmth.growing_since = None;
            } else if waited(&mut warmth.growing_since, patience(replicas)) {
                (warmth.growing_since, warmth.stalled_at) = (None, Some(now));
            }
            continue;
        }
        warmth.stalled_at = None;
        warmth.ready = warmth.ready.clamp(replicas.min, replicas.max);
        if need > warmth.ready {
            warmth.idle_since = None;
            if waited(&mut warmth.growing_since, replicas.cold_start) {
                *warmth = Warmth { ready: need, overloaded_at: warmth.overloaded_at, ..Warmth::default() };
            }
        } else if need < warmth.ready {
            warmth.growing_since = None;
            if waited(&mut warmth.idle_since, policy.hold) {
                *warmth = Warmth { ready: need, overloaded_at: warmth.overloaded_at, ..Warmth::default() };
            }
        } else {
            *warmth = Warmth { ready: need, overloaded_at: warmth.overloaded_at, ..Warmth::default() };
        }
    }
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
