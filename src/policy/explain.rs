//! A decision in words.

use crate::model::{
    Action, BackendId, Cause, Decision, Effect, Fallback, Reason, Rule, Verdict, units::percent,
};

/// What was decided, in a few sentences.
pub fn summary(decision: &Decision) -> String {
    let shares: Vec<String> = decision
        .backends
        .iter()
        .filter(|b| b.share > 0.0)
        .map(|b| format!("{} {}", b.backend, percent(b.share)))
        .collect();
    let serving = if shares.is_empty() { "nobody serves".to_owned() } else { shares.join(", ") };
    let mut text = format!("{serving}: {}.", decision.reason);
    if let (Some(gap), Some(here), Some(there)) =
        (decision.gap, decision.cost_here_usd_per_hour, decision.cost_there_usd_per_hour)
    {
        let rule = match decision.rule {
            Rule::Threshold { shift_at, return_at } => {
                format!("Traffic leaves at {shift_at} and returns below {return_at}.")
            }
            Rule::BreakEven { .. } => {
                "Traffic leaves when the difference has added up to what a move costs.".into()
            }
        };
        let (here_is, there_is) = match &decision.reason {
            Reason::Away { home, .. } => ("where it is".to_owned(), format!("at {home}, which it left")),
            Reason::GapClosed { from, to, .. }
            | Reason::GapReached { from, to, .. }
            | Reason::BreakEvenReached { from, to, .. } => (format!("at {from}"), format!("at {to}")),
            _ => ("where it is".to_owned(), "where it would go".to_owned()),
        };
        text += &format!(
            " The load in question costs ${here:.4} an hour {here_is} and ${there:.4} {there_is}: a gap of {}. {rule}",
            percent(gap)
        );
        text += &preferences(decision);
    }
    match decision.fallback {
        Fallback::None | Fallback::NothingEligible => {}
        Fallback::StaleSignals => {
            text += " No backend is known to be healthy: those never probed yet are used."
        }
        Fallback::Slo => {
            text += " Every backend is too slow for the latency objective or beside others: that is given up to serve at all."
        }
    }
    if decision.moving() {
        text += " The move is still on its way.";
    }
    text
}

/// What rules prefer, so that the gap can be recomputed from the costs beside it.
fn preferences(decision: &Decision) -> String {
    let mut text = String::new();
    for verdict in &decision.backends {
        for ruled in &verdict.rules {
            if let Effect::Prefer(share) = ruled.effect {
                text += &format!(
                    " In the gap {} counts as {share} cheaper than it is (rule \"{}\").",
                    verdict.backend, ruled.rule
                );
            }
        }
    }
    text
}

/// The constraint that keeps traffic from the cheapest backend; `None` when money alone decides.
pub fn binding(decision: &Decision) -> Option<String> {
    let cost = |b: &Verdict| b.marginal_usd_per_1k.unwrap_or(f64::MAX);
    let known = decision.backends.iter().filter(|b| b.marginal_usd_per_1k.is_some());
    let cheapest = known.min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
    if let Some(cause @ (Cause::Saturated | Cause::Leaving | Cause::SlowStart)) = cheapest.limited_by {
        let (backend, share) = (&cheapest.backend, percent(cheapest.share));
        return Some(format!("{backend} would be the cheapest, but {cause} (it keeps {share} for now)"));
    }
    let because = cheapest.limited_because()?;
    if cheapest.share >= cheapest.limit - 1e-9 {
        Some(format!(
            "{} would be the cheapest, but {because} (at most {})",
            cheapest.backend,
            percent(cheapest.limit)
        ))
    } else {
        None
    }
}

/// What would have to change for another decision.
pub fn what_would_change_it(decision: &Decision) -> String {
    let (cheaper, back) = match decision.rule {
        Rule::Threshold { shift_at, return_at } => {
            (format!("by {shift_at}"), format!("is cheaper by less than {return_at}"))
        }
        Rule::BreakEven { .. } => {
            let enough = "for long enough to pay for a move".to_owned();
            (enough.clone(), format!("is dearer {enough}"))
        }
    };
    let here = decision.cost_here_usd_per_hour;
    match &decision.reason {
        Reason::GapBelowThreshold { to, threshold, gap } => match decision.cost_there_usd_per_hour {
            Some(there) => format!(
                "the load would move if it cost at most ${:.4} an hour at {to} (now ${:.4}), or if staying cost more",
                there * (1.0 - threshold.get()) / (1.0 - gap),
                there
            ),
            None => format!("a gap of {threshold} would move it to {to}"),
        },
        Reason::Away { home, threshold, gap } => match here.filter(|here| *here > 0.0) {
            Some(here) => format!(
                "traffic returns to {home} when serving it where it is costs more than ${:.4} an hour (now ${:.4}), or when \
                 {home} gets cheaper",
                here * (1.0 - threshold.get()) / (1.0 - gap),
                here
            ),
            None => format!("traffic returns to {home} when the gap falls below {threshold}"),
        },
        Reason::Holding { to, remaining, .. } => {
            format!("in {} s it moves to {to} if the prices stay as they are", remaining.as_secs() + 1)
        }
        Reason::RecoveredHolding { backend, remaining } => {
            format!("in {} s {backend} is used again if it stays healthy", remaining.as_secs() + 1)
        }
        Reason::CostUnknown { backend, .. } => {
            format!("a trusted price for {backend} would allow a comparison")
        }
        Reason::NothingToSave => "load beyond the paid minimum of replicas, or a smaller minimum".to_owned(),
        Reason::Override { id, .. } => format!("the end of override {id}"),
        Reason::RuleHolds { rule, undecided: false, .. } => {
            format!("the end of what the rule \"{rule}\" asks for")
        }
        Reason::RuleHolds { rule, .. } => format!("what the rule \"{rule}\" asks for becoming known"),
        Reason::OnlyOne { .. } | Reason::MustLeave { .. } | Reason::Rule { .. } => match excluded(decision) {
            Some((backend, because)) => format!("{backend} becoming eligible again; now {because}"),
            None => "another backend becoming eligible".to_owned(),
        },
        Reason::NothingEligible => "any backend becoming healthy".to_owned(),
        Reason::Cheapest | Reason::Initial { .. } | Reason::InitialWithoutPrices { .. } => {
            format!("another backend becoming cheaper {cheaper}, or this one failing")
        }
        Reason::BreakEvenPending { to, lost_usd, move_usd } => {
            let saved = here.zip(decision.cost_there_usd_per_hour).map_or(0.0, |(here, there)| here - there);
            match saved > 0.0 {
                _ if !preferences(decision).is_empty() => {
                    format!(
                        "it moves to {to} when ${move_usd:.4} are reached, ${:.4} from now",
                        move_usd - lost_usd
                    )
                }
                true => format!(
                    "at these prices it moves to {to} in {:.1} h, when ${move_usd:.4} are reached",
                    (move_usd - lost_usd) / saved
                ),
                false => format!("{to} becoming cheaper again, for long enough to pay for a move"),
            }
        }
        Reason::GapReached { to, .. } | Reason::BreakEvenReached { to, .. } => {
            format!("once there, traffic returns when {to} {back}")
        }
        Reason::GapClosed { .. } | Reason::Recovered { .. } => {
            format!("another backend becoming cheaper {cheaper}, after the hold")
        }
    }
}

fn excluded(decision: &Decision) -> Option<(&BackendId, String)> {
    let out = decision.backends.iter().find(|b| !b.eligible || b.limited_by.is_some_and(Cause::is_rule))?;
    out.limited_because().map(|because| (&out.backend, because))
}

/// Whether a decision is worth a line in the journal: it moves something.
pub fn is_move(decision: &Decision) -> bool {
    decision.action != Action::Stay
}
