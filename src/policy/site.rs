//! What each backend may get at this moment, what keeps it from more, and what it costs.

use std::time::Duration;

use crate::{
    cost::{self, Costing, Missing},
    model::{
        BackendView, Cause, EjectedFor, Fallback, Health, Override, OverrideKind, Policy, Ruled, Share, Slo,
        Snapshot, Timestamp, ruling,
    },
};

use super::{
    pressure::{Ready, is_saturated},
    room::room,
    state::State,
};

/// Live requests needed before their latency counts: below that one slow request would be a percentile.
const SLO_SAMPLES_MIN: u64 = 20;

/// Response size that egress is priced by until the first answer was seen: that of a short chat answer. Were it 0, a backend
/// with dear egress would look cheap after every start.
const RESPONSE_BYTES_ASSUMED: f64 = 4096.0;

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
    /// The rules that bind it.
    pub rules: &'a [Ruled],
    /// Share that it keeps as long as it may serve.
    pub floor: f64,
    /// What its cost is multiplied by when costs are compared: below 1 where a rule prefers it.
    pub counted: f64,
    /// Whether it may serve at all. One that is full still may, if all are full.
    pub may_serve: bool,
    /// Largest share that it should have now, 0 when it may not serve.
    pub limit: f64,
    /// What keeps it at that limit.
    pub limited_by: Option<Cause>,
    /// Largest share that is ready, at most `limit`; growth by the ramp stops here.
    pub ready_share: f64,
    /// Share beyond which load goes elsewhere at once, where what is ready is seen.
    pub spill_share: f64,
    /// Requests per second that it can serve now, all routes together; `None` if unknown.
    pub ready_rps: Option<f64>,
    /// Whether what is ready was seen (reported, or announced to leave), not modelled: load beyond it goes elsewhere at once.
    pub ready_is_seen: bool,
    /// Share of the demand that would have to stay away for its queue to be gone within a minute; 0 where it is no longer than the
    /// objective allows, or none is reported.
    pub queue_share: f64,
    /// Whether more wait there than the objective allows; where it falls silent, whether they did within `hold`.
    pub queues: bool,
    /// What keeps it from more than it has now, though not from its target: it comes when that is over.
    pub held_by: Option<Cause>,
    /// Share that it shall prepare for beyond its target: replicas that did not come in time are asked for all the same.
    pub wished_share: f64,
    /// Its cost, when it is known. Only one that is trusted is a reason to move; any ranks backends when traffic must.
    pub costing: Option<Costing>,
    /// What is missing to know or to trust its cost.
    pub missing: Option<Missing>,
    /// Load at which shares are compared, in requests per second.
    pub demand_rps: f64,
    /// What has to be given up for it, should nothing else be left.
    waivable: Option<Fallback>,
    /// Limit once that is given up: by capacity and rules.
    waived_limit: f64,
    /// Whether a rule or an operator caps it, whatever else limits it.
    capped: Option<Cause>,
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

    /// USD per hour of the replicas that serve `more` of the demand beyond `share`, while they serve nobody; `None` if that is
    /// unknown or not trusted.
    pub fn idle_usd_per_hour(&self, share: f64, more: f64) -> Option<f64> {
        if more <= 0.0 {
            return Some(0.0);
        }
        let always = self.trusted_costing()?.curve.always * more * self.demand_rps * 3600.0 / 1000.0;
        Some((self.usd_per_hour(share + more)? - self.usd_per_hour(share)? - always).max(0.0))
    }

    /// Whether something other than its capacity keeps it from its share.
    pub fn barred(&self) -> bool {
        self.limited_by.is_some_and(|cause| cause != Cause::Capacity)
    }

    /// What keeps it from serving more, as people are told: a reason of the moment says more than a full house.
    pub fn kept_by(&self) -> Option<Cause> {
        if self.barred() { self.limited_by } else { self.held_by.or(self.limited_by) }
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

    /// Whether an operator's word keeps it from more: a cap gives way only where nothing else may serve, an override after a
    /// rule.
    pub(super) fn is_capped_by(&self, cause: Cause) -> bool {
        self.capped == Some(cause)
    }

    /// Whether it is capped at all.
    pub(super) fn is_capped(&self) -> bool {
        self.capped.is_some()
    }

    fn forbid(&mut self, cause: Cause) {
        self.may_serve = false;
        self.limit = 0.0;
        self.ready_share = 0.0;
        self.limited_by = Some(cause);
    }

    fn cap(&mut self, share: f64, cause: Cause) {
        if self.limit > share {
            self.limit = share;
            self.ready_share = self.ready_share.min(share);
            self.limited_by = Some(cause);
            self.capped = Some(cause);
        }
    }

    /// Lets it keep the share that it `has`, for silence is no failure, and gives it no more; one that has none may not serve.
    fn keep(&mut self, has: f64, cause: Cause) {
        let has = has.min(self.limit);
        if has > 0.0 {
            (self.limit, self.ready_share) = (has, has);
            self.limited_by = Some(cause);
        } else {
            self.forbid(cause);
        }
    }

    /// Lets what is ready rise step by step where it may serve again, or for the first time, having been away (`Policy::slow_start`). What it has it
    /// keeps.
    fn start_slowly(&mut self, policy: &Policy, has: f64, absent_at: &mut Option<Timestamp>, now: Timestamp) {
        let away = matches!(
            self.limited_by,
            Some(
                Cause::Unresolved
                    | Cause::Unhealthy
                    | Cause::Ejected
                    | Cause::LatencyOutlier
                    | Cause::HealthUnknown
            )
        );
        if away && !self.may_serve {
            *absent_at = Some(now);
        }
        let Some(at) = *absent_at else { return };
        let since = now.duration_since(at).unsigned_abs();
        if since >= policy.slow_start {
            *absent_at = None;
        } else if self.may_serve {
            let part = since.as_secs_f64() / policy.slow_start.as_secs_f64();
            let warm = (self.ready_share * part).max(has);
            if warm < self.ready_share {
                self.ready_share = warm;
                self.held_by.get_or_insert(Cause::SlowStart);
            }
        }
    }

    /// Applies the rules' caps. A pin is an operator's word of today, which is stronger than a rule.
    fn follow_caps(&mut self, has: f64, pinned: bool) {
        if pinned {
            return;
        }
        for (ruled, share) in ruling::caps(self.rules) {
            match ruled.undecided && has > share {
                true => self.cap(has, Cause::RuleUndecided),
                false => self.cap(share, Cause::RuleCap),
            }
        }
        self.waived_limit = self.limit;
    }

    /// Applies a rule that denies, which is never given up. While none can be decided, the backend keeps the share that it has.
    fn follow_denial(&mut self, has: f64) {
        let Some(denial) = ruling::deny(self.rules) else { return };
        if !denial.undecided {
            self.forbid(Cause::Rule);
            self.waivable = None;
            return;
        }
        self.waived_limit = self.waived_limit.min(has);
        if self.may_serve {
            self.keep(has, Cause::RuleUndecided);
        }
        if has <= 0.0 {
            self.waivable = None;
        }
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
    let mut absent_at = std::mem::take(&mut state.absent_at);
    absent_at.resize(snapshot.backends.len(), None);
    for (i, view) in snapshot.backends.iter().enumerate() {
        let cost = cost::cost_of(view, response_bytes);
        let own_load_rps = state.shares[i] * demand_rps;
        let room = room(policy, view, &state.warmth[i], own_load_rps, demand_rps, now);
        let ready = room.ready_rps.map(|rps| Ready { replicas: room.replicas, rps });
        let saturated = is_saturated(policy, &snapshot.slo, &view.load, ready, &mut state.warmth[i], now);
        let queues = state.warmth[i].late_at.is_some();
        let overloaded_at = &mut state.warmth[i].overloaded_at;
        if room.is_overloaded(view, own_load_rps, queues) {
            *overloaded_at = Some(now);
        }
        let overloaded =
            overloaded_at.is_some_and(|at| now.duration_since(at).unsigned_abs() <= OVERLOAD_SEEN_FOR);
        let over_slo = over_slo(policy, &snapshot.slo, view, overloaded, &mut state.over_slo_at[i], now);
        let stalled = room.stalled;
        let rules = snapshot.rulings.of(i);
        let has = state.shares[i];
        let wants = has.max(state.target[i]);
        let held_by = match () {
            () if view.leaving > Share::ZERO && room.ready_share < wants => Some(Cause::Leaving),
            () if saturated => Some(Cause::Saturated),
            () => None,
        };
        let mut site = Site {
            view,
            rules,
            floor: policy.keep_warm.get().max(ruling::floor(rules)),
            counted: 1.0 - ruling::preference(rules),
            may_serve: true,
            limit: room.limit,
            limited_by: (room.limit < 1.0).then_some(Cause::Capacity),
            ready_share: if saturated { room.ready_share.min(has) } else { room.ready_share },
            spill_share: room.spill_share,
            ready_rps: room.ready_rps,
            ready_is_seen: room.is_seen,
            queue_share: match queues {
                true => {
                    view.load.waiting(room.replicas).unwrap_or(0.0) / QUEUE_GONE_WITHIN_SECONDS / demand_rps
                }
                false => 0.0,
            },
            queues,
            held_by,
            wished_share: if stalled {
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
            waived_limit: room.limit,
            capped: None,
        };
        let has = state.shares[i];
        let pinned = of(snapshot, &site, OverrideKind::Pin).next().is_some();
        site.follow_caps(has, pinned);
        if !view.resolved {
            site.forbid(Cause::Unresolved);
        } else if view.health == Health::Unhealthy {
            site.forbid(Cause::Unhealthy);
        } else if let Some(out) = &view.ejected {
            match out.reason {
                EjectedFor::Failures => site.forbid(Cause::Ejected),
                EjectedFor::Latency => {
                    site.forbid(Cause::LatencyOutlier);
                    site.waivable = Some(Fallback::Slo);
                }
            }
        } else if view.health == Health::Unknown {
            // Leaving it would send everything to whoever happens to be probed first.
            site.waivable = Some(Fallback::StaleSignals);
            site.keep(has, Cause::HealthUnknown);
        } else if over_slo {
            site.forbid(Cause::OverSlo);
            site.waivable = Some(Fallback::Slo);
        }
        site.start_slowly(policy, has, &mut absent_at[i], now);
        site.follow_denial(has);
        sites.push(site);
    }
    if absent_at.iter().any(Option::is_some) {
        state.absent_at = absent_at;
    }
    waive(&mut sites);
    sites
}

/// Takes out what operators drain and cap; says which constraint had to be given up to serve at all.
pub fn impose_overrides(snapshot: &Snapshot, sites: &mut [Site]) -> Fallback {
    for site in sites.iter_mut() {
        if of(snapshot, site, OverrideKind::Drain).next().is_some() {
            site.forbid(Cause::Drained);
            site.waivable = None;
        }
    }
    let fallback = waive(sites);
    for site in sites.iter_mut() {
        let cap =
            of(snapshot, site, OverrideKind::Cap).filter_map(|o| o.share).map(|s| s.get()).reduce(f64::min);
        // A pin is stronger than a cap on the same backend.
        if let Some(cap) = cap
            && of(snapshot, site, OverrideKind::Pin).next().is_none()
        {
            site.cap(cap, Cause::Capped);
        }
    }
    fallback
}

/// The overrides of a kind for a site.
fn of<'s>(snapshot: &'s Snapshot, site: &Site<'s>, kind: OverrideKind) -> impl Iterator<Item = &'s Override> {
    let id = &site.view.backend.id;
    snapshot.overrides.iter().filter(move |o| o.kind == kind && o.backend.as_ref() == Some(id))
}

/// If nothing may serve, gives up first on unknown health, then on speed: never on health, a rule or an operator's word.
fn waive(sites: &mut [Site]) -> Fallback {
    const ORDER: [Fallback; 2] = [Fallback::StaleSignals, Fallback::Slo];
    for fallback in ORDER {
        if sites.iter().any(|s| s.may_serve) {
            break;
        }
        for site in sites.iter_mut().filter(|s| s.waivable == Some(fallback) && !s.may_serve) {
            site.may_serve = true;
            site.limit = site.waived_limit;
            site.ready_share = site.waived_limit;
        }
        if sites.iter().any(|s| s.may_serve) {
            return fallback;
        }
    }
    let mut serving = sites.iter().filter(|s| s.may_serve);
    match serving.next() {
        None => Fallback::NothingEligible,
        // A first pass (before overrides) may already have waived the constraint.
        Some(site) => match site.waivable {
            Some(fallback) if serving.all(|s| s.waivable == Some(fallback)) => fallback,
            _ => Fallback::None,
        },
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
