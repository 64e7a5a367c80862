//! What was decided, and why: in fields for machines, in words for people.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    BackendId, OverrideKind, PolicyId, Redundancy, Rule, Ruled, Share, Timestamp, ruling, units::percent,
};

/// What one more request costs at a backend beyond its paid minimum, in USD per 1,000 requests, term by term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UnitCost {
    /// Nodes, at the mix of spot and on-demand price.
    pub compute: f64,
    /// The nodes' disks.
    #[serde(default)]
    pub storage: f64,
    /// What is lost when spot nodes are taken back.
    #[serde(default)]
    pub interruption: f64,
    /// Bytes sent to the client.
    pub egress: f64,
    /// What a managed platform charges for replicas and requests.
    #[serde(default)]
    pub managed: f64,
}

impl UnitCost {
    /// Every term with its name in metrics and `explain`.
    pub fn terms(&self) -> [(&'static str, f64); 5] {
        [
            ("compute", self.compute),
            ("storage", self.storage),
            ("interruption", self.interruption),
            ("egress", self.egress),
            ("managed", self.managed),
        ]
    }

    /// The sum of the terms.
    pub fn total(&self) -> f64 {
        self.terms().iter().map(|(_, usd)| usd).sum()
    }
}

/// What a decision does to the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// First placement: nothing was running before.
    Place,
    /// Nothing new; an earlier move may still be on its way.
    Stay,
    /// Traffic leaves for a cheaper side.
    Shift,
    /// Traffic returns to where it came from.
    Return,
    /// Traffic leaves because it must: a backend is down, over its objective, full, or an operator said so.
    Evacuate,
    /// What had to leave may come back: the cause is gone.
    Restore,
}

impl Action {
    /// As JSON and people spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Place => "place",
            Action::Stay => "stay",
            Action::Shift => "shift",
            Action::Return => "return",
            Action::Evacuate => "evacuate",
            Action::Restore => "restore",
        }
    }
}

/// Why a backend may not serve, or not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its probes fail.
    Unhealthy,
    /// Too many of its requests fail.
    Ejected,
    /// Its time to first byte is far above that of the other backends.
    LatencyOutlier,
    /// It has not been probed successfully yet.
    HealthUnknown,
    /// Its name resolves to no address.
    Unresolved,
    /// Its probes or its live traffic are slower than the objective.
    OverSlo,
    /// It is full.
    Capacity,
    /// By its own report it is at its limit: it gets no more.
    Saturated,
    /// It came back not long ago: it gets more step by step.
    SlowStart,
    /// Nodes of it go away, as notices say.
    Leaving,
    /// An operator drains it.
    Drained,
    /// An operator caps it.
    Capped,
    /// An operator pins the traffic elsewhere.
    PinnedElsewhere,
    /// A rule denies it.
    Rule,
    /// A rule caps it.
    RuleCap,
    /// A rule that may deny or cap it cannot be decided.
    RuleUndecided,
}

impl Cause {
    /// As JSON and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Unhealthy => "unhealthy",
            Cause::Ejected => "ejected",
            Cause::LatencyOutlier => "latency_outlier",
            Cause::HealthUnknown => "health_unknown",
            Cause::Unresolved => "unresolved",
            Cause::OverSlo => "over_slo",
            Cause::Capacity => "capacity",
            Cause::Saturated => "saturated",
            Cause::SlowStart => "slow_start",
            Cause::Leaving => "leaving",
            Cause::Drained => "drained",
            Cause::Capped => "capped",
            Cause::PinnedElsewhere => "pinned_elsewhere",
            Cause::Rule => "rule",
            Cause::RuleCap => "rule_cap",
            Cause::RuleUndecided => "rule_undecided",
        }
    }

    /// Whether a rule of the policy is the cause.
    pub fn is_rule(self) -> bool {
        matches!(self, Cause::Rule | Cause::RuleCap | Cause::RuleUndecided)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Cause::Unhealthy => "its probes fail",
            Cause::Ejected => "too many of its requests fail",
            Cause::LatencyOutlier => "its time to first byte is far above that of the others",
            Cause::HealthUnknown => "its health is not known yet",
            Cause::Unresolved => "its name resolves to no address",
            Cause::OverSlo => "its time to first byte is over the objective",
            Cause::Capacity => "it is at its capacity",
            Cause::Saturated => "it reports that it is at its limit",
            Cause::SlowStart => "it has just come back and is warming up",
            Cause::Leaving => "nodes of it go away",
            Cause::Drained => "an operator drains it",
            Cause::Capped => "an operator caps it",
            Cause::PinnedElsewhere => "an operator pins the traffic elsewhere",
            Cause::Rule => "a rule denies it",
            Cause::RuleCap => "a rule caps it",
            Cause::RuleUndecided => "a rule about it cannot be decided",
        })
    }
}

/// Which constraint had to be given up to serve at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// None.
    #[default]
    None,
    /// Backends whose health is not known are used.
    StaleSignals,
    /// Backends over the objective, or far slower than others, are used.
    Slo,
    /// No backend may serve: requests are refused.
    NothingEligible,
}

/// Why traffic goes where it goes. `Display` says it in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", tag = "code")]
pub enum Reason {
    /// First placement, at the lowest marginal cost.
    Initial {
        /// Where most of the traffic goes.
        to: BackendId,
    },
    /// No cost is known, so the first eligible backend in the operator's order serves.
    InitialWithoutPrices {
        /// Where the traffic goes.
        to: BackendId,
    },
    /// The present placement is the cheapest.
    Cheapest,
    /// Another placement is cheaper, but by less than the threshold.
    GapBelowThreshold {
        /// Where it would be cheaper.
        to: BackendId,
        /// By how much, as a part of what the load costs where it is.
        gap: f64,
        /// What the gap must reach.
        threshold: Share,
    },
    /// Another placement is cheaper by the threshold or more, but traffic moved recently.
    Holding {
        /// Where it would go.
        to: BackendId,
        /// By how much it is cheaper there.
        gap: f64,
        /// Time until a move is allowed.
        #[schema(value_type = Object)]
        remaining: Duration,
    },
    /// The gap reached the threshold.
    GapReached {
        /// The side that is left.
        from: BackendId,
        /// The side that receives.
        to: BackendId,
        /// The gap, as a part of what the load costs where it was.
        gap: f64,
        /// The threshold it reached.
        threshold: Share,
    },
    /// The gap for which traffic had left has closed.
    GapClosed {
        /// The side that is left.
        from: BackendId,
        /// The side to which traffic returns.
        to: BackendId,
        /// What is left of the gap; negative when the old side is now the cheaper one.
        gap: f64,
        /// The limit it fell below.
        threshold: Share,
    },
    /// Traffic had left for a cheaper side, and the gap has not closed yet.
    Away {
        /// The side to which traffic would return.
        home: BackendId,
        /// What is left of the gap.
        gap: f64,
        /// What it must fall below.
        threshold: Share,
    },
    /// Staying has cost more than another side would have, but not yet as much as a move costs.
    BreakEvenPending {
        /// The side that would have been cheaper.
        to: BackendId,
        /// What staying has cost more so far, in USD.
        lost_usd: f64,
        /// What a move there costs, in USD.
        move_usd: f64,
    },
    /// Staying has cost as much more as a move costs.
    BreakEvenReached {
        /// The side that is left.
        from: BackendId,
        /// The side that receives.
        to: BackendId,
        /// What staying has cost more, in USD.
        lost_usd: f64,
        /// What the move costs, in USD.
        move_usd: f64,
    },
    /// The load that would move costs nothing where it is: it is within what is paid anyway.
    NothingToSave,
    /// A cost needed for the comparison is not known or not trusted; nothing moves for money.
    CostUnknown {
        /// The backend whose cost is missing.
        backend: BackendId,
        /// What is missing.
        what: String,
    },
    /// Only one backend may serve.
    OnlyOne {
        /// That backend.
        backend: BackendId,
    },
    /// A backend had to be left.
    MustLeave {
        /// The backend.
        backend: BackendId,
        /// Why.
        cause: Cause,
    },
    /// A backend that had been left may be used again.
    Recovered {
        /// The backend.
        backend: BackendId,
    },
    /// A backend that had been left may be used again, but traffic moved recently.
    RecoveredHolding {
        /// The backend.
        backend: BackendId,
        /// Time until a move is allowed.
        #[schema(value_type = Object)]
        remaining: Duration,
    },
    /// An operator's override decides.
    Override {
        /// Its kind.
        kind: OverrideKind,
        /// Its id.
        id: String,
        /// The operator's reason.
        reason: String,
    },
    /// A backend had to be left, or to give up a part, because a rule says so.
    Rule {
        /// The backend.
        backend: BackendId,
        /// What the rule does to it.
        cause: Cause,
        /// The rule.
        #[schema(value_type = String)]
        rule: Arc<str>,
    },
    /// A rule keeps the traffic where it is.
    RuleHolds {
        /// The backend for which it does.
        backend: BackendId,
        /// The rule.
        #[schema(value_type = String)]
        rule: Arc<str>,
        /// Whether that is only because it cannot be decided.
        undecided: bool,
    },
    /// No backend may serve.
    NothingEligible,
}

impl Reason {
    /// Stable name: label of metrics, `code` in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::Initial { .. } => "initial",
            Reason::InitialWithoutPrices { .. } => "initial_without_prices",
            Reason::Cheapest => "cheapest",
            Reason::GapBelowThreshold { .. } => "gap_below_threshold",
            Reason::Holding { .. } => "holding",
            Reason::GapReached { .. } => "gap_reached",
            Reason::GapClosed { .. } => "gap_closed",
            Reason::BreakEvenPending { .. } => "break_even_pending",
            Reason::BreakEvenReached { .. } => "break_even_reached",
            Reason::Away { .. } => "away",
            Reason::NothingToSave => "nothing_to_save",
            Reason::CostUnknown { .. } => "cost_unknown",
            Reason::OnlyOne { .. } => "only_one",
            Reason::MustLeave { .. } => "must_leave",
            Reason::Recovered { .. } => "recovered",
            Reason::RecoveredHolding { .. } => "recovered_holding",
            Reason::Override { .. } => "override",
            Reason::Rule { .. } => "rule",
            Reason::RuleHolds { .. } => "rule_holds",
            Reason::NothingEligible => "nothing_eligible",
        }
    }
}

/// Whole seconds are enough for people; less than one is shown in milliseconds.
fn seconds(duration: &Duration) -> String {
    if duration.as_secs() > 0 {
        let whole = duration.as_secs();
        if whole >= 60 { format!("{} min {} s", whole / 60, whole % 60) } else { format!("{whole} s") }
    } else {
        format!("{} ms", duration.as_millis())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Initial { to } => {
                write!(
                    f,
                    "first placement: {to} has the lowest cost for one more request of those that may serve"
                )
            }
            Reason::InitialWithoutPrices { to } => {
                write!(f, "first placement without any known cost: {to} is the first eligible backend")
            }
            Reason::Cheapest => write!(f, "no other placement is cheaper"),
            Reason::GapBelowThreshold { to, gap, threshold } => {
                write!(f, "{to} is cheaper by {}, below the threshold of {threshold}", percent(*gap))
            }
            Reason::Holding { to, gap, remaining } => write!(
                f,
                "traffic would go to {to} (gap {}), but it moved recently: the next move is allowed in {}",
                percent(*gap),
                seconds(remaining)
            ),
            Reason::GapReached { from, to, gap, threshold } => write!(
                f,
                "{to} is cheaper than {from} by {}, which reaches the threshold of {threshold}",
                percent(*gap)
            ),
            Reason::GapClosed { from, to, gap, threshold } if *gap <= 0.0 => write!(
                f,
                "back to {to}: {from} is no longer cheaper (gap {}, return below {threshold})",
                percent(*gap)
            ),
            Reason::GapClosed { from, to, gap, threshold } => write!(
                f,
                "back to {to}: {from} is cheaper by only {}, below the return threshold of {threshold}",
                percent(*gap)
            ),
            Reason::Away { home, gap, threshold } => write!(
                f,
                "cheaper than {home} by {}; traffic returns when that falls below {threshold}",
                percent(*gap)
            ),
            Reason::BreakEvenPending { to, lost_usd, move_usd } => write!(
                f,
                "staying has cost ${lost_usd:.4} more than {to} would have; a move there costs ${move_usd:.4}"
            ),
            Reason::BreakEvenReached { from, to, lost_usd, move_usd } => write!(
                f,
                "{from} has cost ${lost_usd:.4} more than {to} would have, as much as the move costs (${move_usd:.4})"
            ),
            Reason::NothingToSave => {
                write!(f, "the load is within what is paid anyway: moving it would save nothing")
            }
            Reason::CostUnknown { backend, what } => {
                write!(f, "nothing moves for money: {what} of {backend}")
            }
            Reason::OnlyOne { backend } => write!(f, "only {backend} may serve"),
            Reason::MustLeave { backend, cause } => write!(f, "{backend} is left: {cause}"),
            Reason::Recovered { backend } => write!(f, "{backend} may serve again"),
            Reason::RecoveredHolding { backend, remaining } => write!(
                f,
                "{backend} may serve again, but traffic moved recently: it returns in {}",
                seconds(remaining)
            ),
            Reason::Override { kind, id, reason } => write!(f, "override {kind} ({id}): {reason}"),
            Reason::Rule { backend, cause, rule } => {
                let verb = if *cause == Cause::Rule { "is left" } else { "gives up a part" };
                write!(f, "{backend} {verb}: {cause} (\"{rule}\")")
            }
            Reason::RuleHolds { backend, rule, undecided } => {
                let why = if *undecided { "cannot be decided for" } else { "matches" };
                write!(f, "nothing moves for money: the rule \"{rule}\" {why} {backend}")
            }
            Reason::NothingEligible => write!(f, "no backend may serve: requests are refused"),
        }
    }
}

/// What the decision says about one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verdict {
    /// The backend.
    pub backend: BackendId,
    /// Whether it may serve.
    pub eligible: bool,
    /// What keeps it from serving, or from serving more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited_by: Option<Cause>,
    /// Share of the requests from now on.
    pub share: f64,
    /// Share towards which the ramp moves.
    pub target: f64,
    /// Largest share it may have now.
    pub limit: f64,
    /// Requests per second at the target share, and of what it keeps ready in case others are lost: what its autoscaler should
    /// prepare for.
    pub planned_rps: f64,
    /// Requests per second that it can serve now; `None` if unknown.
    pub ready_rps: Option<f64>,
    /// What one more request costs there beyond the paid minimum, per 1,000; `None` if unknown.
    pub unit_cost: Option<UnitCost>,
    /// What a request of the present load costs there on average beyond what is paid anyway, per 1,000; `None` if unknown.
    pub average_usd_per_1k: Option<f64>,
    /// What one more request costs there at the present load, per 1,000: less than the unit cost within the paid
    /// minimum; `None` if unknown.
    pub marginal_usd_per_1k: Option<f64>,
    /// The rules that bind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Ruled>,
}

impl Verdict {
    /// The rule that keeps it from serving, or from serving more.
    pub fn limiting_rule(&self) -> Option<&Ruled> {
        ruling::behind(&self.rules, self.limited_by?)
    }

    /// What keeps it from serving, or from serving more, in words; where that is a rule, with its name.
    pub fn limited_because(&self) -> Option<String> {
        let cause = self.limited_by?;
        Some(
            self.limiting_rule()
                .map_or_else(|| cause.to_string(), |ruled| format!("{cause} (\"{}\")", ruled.rule)),
        )
    }
}

/// What was decided for a route at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Decision {
    /// The moment.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The policy.
    pub policy: PolicyId,
    /// Its rule, with its thresholds.
    #[serde(flatten)]
    pub rule: Rule,
    /// What it does.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The gap that the rule looked at: saved dollars as a part of what the load that would move costs where it is; while
    /// away and on the way back, as a part of what it would cost where it came from. `None` when there was nothing to compare.
    pub gap: Option<f64>,
    /// What the load that would move costs where it is, in USD per hour.
    pub cost_here_usd_per_hour: Option<f64>,
    /// What it would add at the other side, in USD per hour.
    pub cost_there_usd_per_hour: Option<f64>,
    /// Requests per second that were placed.
    pub demand_rps: f64,
    /// Which constraint had to be given up.
    pub fallback: Fallback,
    /// What the worst loss of a cloud or region would mean; absent where the policy has no `n_minus_one`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_minus_one: Option<Redundancy>,
    /// Every backend of the route, in the operator's order.
    pub backends: Vec<Verdict>,
}

impl Decision {
    /// Whether traffic is still on its way to its target.
    pub fn moving(&self) -> bool {
        let serves = self.backends.iter().any(|b| b.share > 0.0);
        serves && self.backends.iter().any(|b| (b.share - b.target).abs() > 1e-9)
    }

    /// The backend with the largest share; `None` when nothing may serve.
    pub fn main_backend(&self) -> Option<&BackendId> {
        self.backends
            .iter()
            .filter(|b| b.share > 0.0)
            .max_by(|a, b| a.share.total_cmp(&b.share))
            .map(|b| &b.backend)
    }
}
