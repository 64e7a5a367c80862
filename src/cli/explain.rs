//! `tradewind explain`: why a route's traffic goes where it goes, term by term.

use std::fmt::Write as _;

use http::Method;

use super::{
    Failure,
    admin_client::{AdminArgs, segment},
    status::fallback_sentence,
    table::{self, Align, Cell, Ink, Table, UNKNOWN},
};
use crate::{
    admin::views::{CostInputs, Explanation, LoadView},
    cost::per_million_tokens,
    model::{Decision, InterruptionRate, Managed, RateBasis, Rule, Ruled, UnitCost, Verdict, units::percent},
    signals::prices::{PriceReport, ReportState},
};

/// Explain the last decision of a route: the gap, the threshold, and every term in dollars
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// The route
    route: String,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the admin API and prints the answer.
///
/// # Errors
/// When the API cannot be reached or knows no such route.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let path = format!("/v1/routes/{}/explain", segment(&args.route));
    let reply = args.admin.call::<Explanation>(Method::GET, &path).await?;
    let text = if args.admin.json { reply.json() } else { render(&reply.value, Ink::of_stdout()) };
    table::print(&text);
    Ok(())
}

fn render(explanation: &Explanation, ink: Ink) -> String {
    let decision = &explanation.decision;
    let mut out =
        format!("{}  {}\n\n", ink.strong(explanation.route.as_str()), table::printable(&explanation.summary));
    for (name, text) in facts(explanation) {
        let _ = writeln!(out, "  {name:<22}{}", table::printable(&text));
    }
    if let Some(sentence) = fallback_sentence(decision.fallback) {
        let _ = writeln!(out, "  {}", ink.bad(sentence));
    }
    let _ = write!(
        out,
        "\n{}\n{}",
        ink.strong("One more request, in USD per 1,000"),
        costs_table(decision).render("  ", ink)
    );
    out += &recipes(explanation);
    out += &per_tokens(explanation);
    let _ = write!(out, "\n{}\n{}", ink.strong("Shares"), shares_table(decision).render("  ", ink));
    for cost in &explanation.binding_costs {
        let (constraint, usd) = (table::printable(&cost.to_string()), table::usd(cost.usd_per_day));
        let _ = writeln!(out, "  Being without {constraint} would save {usd} a day");
    }
    if decision.backends.iter().any(|verdict| !verdict.rules.is_empty()) {
        let _ =
            write!(out, "\n{}\n{}", ink.strong("Rules that bind"), rules_table(decision).render("  ", ink));
    }
    explanation.load.iter().for_each(|load| out += &seen_of(load));
    if !explanation.prices.is_empty() {
        let prices = prices_table(&explanation.prices).render("  ", ink);
        let _ = write!(out, "\n{}\n{prices}", ink.strong("Prices of a node, in USD per hour"));
    }
    for price in &explanation.prices {
        if let Some(note) = &price.note {
            let _ = writeln!(out, "  {} {}: {}", price.backend, price.offer, table::printable(note));
        }
    }
    out
}

/// What there is to say in one line each, most important first.
fn facts(explanation: &Explanation) -> Vec<(&'static str, String)> {
    let decision = &explanation.decision;
    let hourly = |amount: Option<f64>| amount.map(|usd| format!("{} per hour", table::usd(usd)));
    let mut facts = vec![(
        "decided",
        format!(
            "{} at {} ({})",
            decision.action.as_str(),
            table::moment(decision.at),
            decision.reason.code()
        ),
    )];
    let mut add = |name, text: Option<String>| facts.extend(text.map(|text| (name, text)));
    add("gap", Some(decision.gap.map_or("none: nothing to compare".into(), percent)));
    add("policy", Some(format!("{}: {}", decision.policy, rule_sentence(&decision.rule))));
    add("load costs here", hourly(decision.cost_here_usd_per_hour));
    add("would cost there", hourly(decision.cost_there_usd_per_hour));
    add("placed", Some(format!("{:.4} requests per second", decision.demand_rps)));
    add("if one is lost", decision.n_minus_one.as_ref().map(ToString::to_string));
    add("binding constraint", explanation.binding.clone());
    add("what would change it", Some(explanation.what_would_change_it.clone()));
    add(
        "last move",
        explanation.last_move.as_ref().map(|l| format!("{}: {}", table::moment(l.at), l.reason)),
    );
    facts
}

/// How each cost is made: with the prices below, every dollar can be recomputed.
fn recipes(explanation: &Explanation) -> String {
    let mut out = String::new();
    for inputs in &explanation.inputs {
        let Some(capacity) = capacity_cost(inputs) else { continue };
        let _ = writeln!(
            out,
            "  {}: {capacity}, free up to {} replicas; egress {:.0} bytes x {} USD/GB{}",
            inputs.backend,
            inputs.replicas_min.unwrap_or_default(),
            explanation.response_bytes,
            inputs.egress_usd_per_gb.map_or("unknown".into(), |usd| usd.to_string()),
            interruptions(inputs),
        );
    }
    out
}

/// What nodes or managed replicas cost per 1,000 requests; `None` where it is not known what serves them.
fn capacity_cost(inputs: &CostInputs) -> Option<String> {
    let rps = inputs.rps_per_replica?;
    if let Some(Managed { usd_per_replica_hour, usd_per_request }) = inputs.managed {
        return Some(format!(
            "{usd_per_replica_hour} USD a replica-hour / ({rps} requests/s x 3600) x 1000 + {usd_per_request} USD a request x 1000"
        ));
    }
    let (spot, per_node) = (inputs.spot_share?, inputs.replicas_per_node?);
    let disk = match inputs.disk_usd_per_hour {
        Some(disk) if disk > 0.0 => format!(" + disk {disk:.6} USD/h"),
        _ => String::new(),
    };
    Some(format!(
        "({} spot + {} on demand{disk}) / ({per_node} replicas a node x {rps} requests/s x 3600) x 1000",
        percent(spot),
        percent(1.0 - spot),
    ))
}

/// The same costs by what a request produces, where its tokens are known.
fn per_tokens(explanation: &Explanation) -> String {
    let Some(tokens) = explanation.tokens_per_request else { return String::new() };
    let mut out = String::new();
    for Verdict { backend, unit_cost, .. } in &explanation.decision.backends {
        let usd = unit_cost.and_then(|cost| per_million_tokens(cost.total(), Some(tokens)));
        if let Some(usd) = usd {
            let _ =
                writeln!(out, "  {backend}: {} per million tokens, at {tokens} a request", table::usd(usd));
        }
    }
    out
}

/// What interruptions add to the node's time, and how their rate is known. Nothing where nothing can be taken back.
fn interruptions(inputs: &CostInputs) -> String {
    let (Some(InterruptionRate { per_node_hour, basis }), Some(seconds)) =
        (inputs.interruptions, inputs.interruption_seconds)
    else {
        return String::new();
    };
    let basis = match basis {
        RateBasis::Configured => "configured",
        RateBasis::Learned => "learned from notices",
        RateBasis::Assumed => "assumed, no notice has arrived",
    };
    format!(
        "; interruptions {per_node_hour:.4} a spot node-hour ({basis}), each costs {} of a node",
        table::span(seconds)
    )
}

/// What a backend reports of itself, and what of it goes away.
fn seen_of(load: &LoadView) -> String {
    let mut out = String::new();
    let backend = &load.backend;
    if let Some(reported) = &load.reported {
        let figures = [
            reported.ready_replicas.map(|count| format!("{count} ready replicas")),
            reported.queued.map(|count| format!("{count:.1} requests wait")),
            reported.running.map(|count| format!("{count:.1} are worked on")),
            reported.saturation.map(|part| format!("{} in use", percent(part))),
        ];
        let figures: Vec<String> = figures.into_iter().flatten().collect();
        let _ = match reported.age_seconds {
            Some(age) => {
                writeln!(out, "  {backend} reports: {} ({} ago)", figures.join(", "), table::span(age))
            }
            None => writeln!(out, "  {backend} reports nothing now: its load is modelled"),
        };
        for fault in &reported.faults {
            let _ = writeln!(out, "  {backend}: {}", table::printable(fault));
        }
    }
    if load.leaving > 0.0 {
        let part = percent(load.leaving);
        let _ = writeln!(
            out,
            "  {backend}: {part} of its nodes go away or are not replaced yet, by the notices received"
        );
    }
    out
}

fn rule_sentence(rule: &Rule) -> String {
    match rule {
        Rule::Threshold { shift_at, return_at } => {
            format!("leave when the gap reaches {shift_at}, return when it is below {return_at}")
        }
        Rule::BreakEven { move_usd } if *move_usd > 0.0 => format!(
            "break-even: leave when staying has cost as much more as a move costs (both sides running, and {} on top)",
            table::usd(*move_usd)
        ),
        Rule::BreakEven { .. } => {
            "break-even: leave when staying has cost as much more as a move costs (both sides running)".into()
        }
    }
}

fn costs_table(decision: &Decision) -> Table {
    // Terms that no backend has would only make the line longer; so the columns always add up.
    let terms: Vec<(usize, String)> = UnitCost::default()
        .terms()
        .iter()
        .enumerate()
        .filter(|(place, (name, _))| {
            let costs = decision.backends.iter().filter_map(|verdict| verdict.unit_cost);
            matches!(*name, "compute" | "egress")
                || costs.map(|cost| cost.terms()[*place].1).any(|usd| usd != 0.0)
        })
        .map(|(place, (name, _))| (place, name.to_uppercase()))
        .collect();
    let mut heads = vec![("BACKEND", Align::Left)];
    heads.extend(terms.iter().map(|(_, name)| (name.as_str(), Align::Right)));
    heads.extend([("SUM", Align::Right), ("AT PRESENT LOAD", Align::Right)]);
    let mut columns = Table::new(&heads);
    let or_unknown = |amount: Option<f64>| Cell::from(amount.map_or(UNKNOWN.into(), table::usd_aligned));
    for Verdict { backend, unit_cost, marginal_usd_per_1k, .. } in &decision.backends {
        let mut row: Vec<Cell> = vec![backend.as_str().into()];
        row.extend(terms.iter().map(|(place, _)| or_unknown(unit_cost.map(|cost| cost.terms()[*place].1))));
        row.extend([or_unknown(unit_cost.map(|cost| cost.total())), or_unknown(*marginal_usd_per_1k)]);
        columns.row(row);
    }
    columns
}

fn shares_table(decision: &Decision) -> Table {
    let mut columns = Table::new(&[
        ("BACKEND", Align::Left),
        ("SHARE", Align::Right),
        ("TARGET", Align::Right),
        ("LIMIT", Align::Right),
        ("PLANNED RPS", Align::Right),
        ("READY RPS", Align::Right),
        ("MAY SERVE", Align::Left),
    ]);
    for verdict in &decision.backends {
        columns.row([
            verdict.backend.as_str().into(),
            percent(verdict.share).into(),
            percent(verdict.target).into(),
            percent(verdict.limit).into(),
            format!("{:.1}", verdict.planned_rps).into(),
            verdict.ready_rps.map_or(UNKNOWN.into(), |rps| format!("{rps:.1}")).into(),
            may_serve_cell(verdict),
        ]);
    }
    columns
}

fn rules_table(decision: &Decision) -> Table {
    let mut columns = Table::new(&[("BACKEND", Align::Left), ("THEN", Align::Left), ("RULE", Align::Left)]);
    for Verdict { backend, rules, .. } in &decision.backends {
        for Ruled { rule, effect, undecided } in rules {
            let then = if *undecided { format!("{effect}, undecided") } else { effect.to_string() };
            columns.row([backend.as_str().into(), then.into(), table::printable(rule).into()]);
        }
    }
    columns
}

fn may_serve_cell(verdict: &Verdict) -> Cell {
    match (verdict.eligible, verdict.limited_because().map(|because| table::printable(&because))) {
        (true, None) => "yes".into(),
        (true, Some(because)) => format!("yes, but {because}").into(),
        (false, None) => Cell::bad("no"),
        (false, Some(because)) => Cell::bad(format!("no: {because}")),
    }
}

fn prices_table(prices: &[PriceReport]) -> Table {
    let mut columns = Table::new(&[
        ("BACKEND", Align::Left),
        ("MACHINE", Align::Left),
        ("WHERE", Align::Left),
        ("OFFER", Align::Left),
        ("USD/H", Align::Right),
        ("STATE", Align::Left),
        ("CHARGED FROM", Align::Left),
        ("CONFIRMED", Align::Left),
        ("SOURCE", Align::Left),
    ]);
    let or_unknown = |text: Option<String>| Cell::from(text.unwrap_or(UNKNOWN.into()));
    for price in prices {
        let fresh = price.state == ReportState::Fresh;
        columns.row([
            price.backend.as_str().into(),
            price.instance_type.as_str().into(),
            price.zone.as_deref().unwrap_or(&price.region).into(),
            price.offer.as_str().into(),
            or_unknown(price.usd_per_hour.map(table::usd_aligned)),
            if fresh { "fresh".into() } else { Cell::bad(price.state.as_str()) },
            or_unknown(price.observed_at.map(table::moment)),
            or_unknown(price.fetched_at.map(table::moment)),
            or_unknown(price.source.as_deref().map(str::to_owned)),
        ]);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::views::LastMove,
        model::{Action, BindingCost, Cause, Fallback, Offer, Reason, Share},
    };

    fn verdict(name: &str, share: f64, compute: f64) -> Verdict {
        Verdict {
            backend: name.parse().unwrap(),
            eligible: true,
            limited_by: None,
            share,
            target: share,
            limit: 1.0,
            planned_rps: 40.0 * share,
            ready_rps: Some(24.0),
            unit_cost: Some(UnitCost {
                compute,
                interruption: 0.0003,
                egress: 0.0009,
                ..UnitCost::default()
            }),
            average_usd_per_1k: Some(compute + 0.0012),
            marginal_usd_per_1k: Some(compute + 0.0012),
            rules: Vec::new(),
        }
    }

    fn price(name: &str, usd_per_hour: Option<f64>, state: ReportState) -> PriceReport {
        let known = usd_per_hour.is_some();
        PriceReport {
            backend: name.parse().unwrap(),
            instance_type: "g5.2xlarge".into(),
            region: "us-east-1".into(),
            zone: None,
            offer: Offer::Spot,
            usd_per_hour,
            source: known.then(|| "file:prices.csv".into()),
            observed_at: known.then(|| "2026-03-02T09:00:00Z".parse().unwrap()),
            fetched_at: known.then(|| "2026-03-02T09:59:30Z".parse().unwrap()),
            state,
            note: (!known).then(|| "no source has a price for it".into()),
        }
    }

    fn explanation() -> Explanation {
        let share = |text: &str| text.parse::<Share>().unwrap();
        let reason =
            Reason::GapBelowThreshold { to: "gke-usc1".parse().unwrap(), gap: 0.08, threshold: share("15%") };
        let mut full = verdict("gke-euw4", 0.0, 0.0101);
        full.eligible = false;
        full.limited_by = Some(Cause::OverSlo);
        full.unit_cost = None;
        full.marginal_usd_per_1k = None;
        full.ready_rps = None;
        Explanation {
            route: "chat".parse().unwrap(),
            summary: reason.to_string(),
            what_would_change_it: "a gap of 15% or more".into(),
            binding_costs: vec![BindingCost {
                constraint: crate::model::Constraint::Slo,
                name: None,
                backend: Some("gke-euw4".parse().unwrap()),
                usd_per_day: 7.25,
            }],
            binding: Some("the latency objective keeps gke-euw4 out".into()),
            decision: Decision {
                at: "2026-03-02T10:00:00.123Z".parse().unwrap(),
                policy: "default".parse().unwrap(),
                rule: Rule::Threshold { shift_at: share("15%"), return_at: share("5%") },
                action: Action::Stay,
                reason,
                gap: Some(0.08),
                cost_here_usd_per_hour: Some(1.9152),
                cost_there_usd_per_hour: Some(1.762),
                demand_rps: 40.0,
                fallback: Fallback::None,
                n_minus_one: Some(crate::model::Redundancy {
                    domain: "aws".into(),
                    missing_rps: 0.0,
                    unready_rps: 9.5,
                    reserve_rps: 19.0,
                    reserve_usd_per_hour: Some(1.0722),
                }),
                backends: vec![verdict("eks-use1", 0.95, 0.0124), verdict("gke-usc1", 0.05, 0.0113), full],
            },
            inputs: vec![CostInputs {
                backend: "eks-use1".parse().unwrap(),
                spot_share: Some(0.9),
                replicas_per_node: Some(1.0),
                rps_per_replica: Some(12.0),
                replicas_min: Some(2),
                disk_usd_per_hour: Some(0.0),
                interruptions: Some(InterruptionRate { per_node_hour: 0.387, basis: RateBasis::Assumed }),
                interruption_seconds: Some(240.0),
                managed: None,
                egress_usd_per_gb: Some(0.09),
            }],
            load: vec![LoadView {
                backend: "eks-use1".parse().unwrap(),
                reported: Some(crate::signals::load::LoadStatus {
                    ready_replicas: Some(2),
                    queued: Some(3.0),
                    running: None,
                    saturation: Some(0.875),
                    age_seconds: Some(4.0),
                    faults: vec!["metrics: http://eks/metrics: HTTP 503".into()],
                }),
                leaving: 0.5,
            }],
            response_bytes: 10_000.0,
            tokens_per_request: Some(1_240.0),
            prices: vec![
                price("eks-use1", Some(0.5361), ReportState::Fresh),
                price("gke-usc1", None, ReportState::Missing),
            ],
            last_move: Some(LastMove {
                at: "2026-03-01T08:00:00Z".parse().unwrap(),
                reason: "gke-usc1 may serve again".into(),
            }),
        }
    }

    #[test]
    fn gap_threshold_and_terms_are_there() {
        insta::assert_snapshot!(render(&explanation(), Ink::Plain), @"
        chat  gke-usc1 is cheaper by 8%, below the threshold of 15%

          decided               stay at 2026-03-02 10:00:00Z (gap_below_threshold)
          gap                   8%
          policy                default: leave when the gap reaches 15%, return when it is below 5%
          load costs here       $1.9152 per hour
          would cost there      $1.7620 per hour
          placed                40.0000 requests per second
          if one is lost        the others could serve all without aws; replicas for 9.5 of those that should be ready for it are not yet; kept ready for a loss: 19.0 requests per second, at $1.0722 an hour
          binding constraint    the latency objective keeps gke-euw4 out
          what would change it  a gap of 15% or more
          last move             2026-03-01 08:00:00Z: gke-usc1 may serve again

        One more request, in USD per 1,000
          BACKEND     COMPUTE  INTERRUPTION     EGRESS        SUM  AT PRESENT LOAD
          eks-use1  $0.012400     $0.000300  $0.000900  $0.013600        $0.013600
          gke-usc1  $0.011300     $0.000300  $0.000900  $0.012500        $0.012500
          gke-euw4          -             -          -          -                -
          eks-use1: (90% spot + 10% on demand) / (1 replicas a node x 12 requests/s x 3600) x 1000, free up to 2 replicas; egress 10000 bytes x 0.09 USD/GB; interruptions 0.3870 a spot node-hour (assumed, no notice has arrived), each costs 4 min 0 s of a node
          eks-use1: $0.0110 per million tokens, at 1240 a request
          gke-usc1: $0.0101 per million tokens, at 1240 a request

        Shares
          BACKEND   SHARE  TARGET  LIMIT  PLANNED RPS  READY RPS  MAY SERVE
          eks-use1    95%     95%   100%         38.0       24.0  yes
          gke-usc1     5%      5%   100%          2.0       24.0  yes
          gke-euw4     0%      0%   100%          0.0          -  no: its time to first byte is over the objective
          Being without the latency objective of gke-euw4 would save $7.2500 a day
          eks-use1 reports: 2 ready replicas, 3.0 requests wait, 87.5% in use (4 s ago)
          eks-use1: metrics: http://eks/metrics: HTTP 503
          eks-use1: 50% of its nodes go away or are not replaced yet, by the notices received

        Prices of a node, in USD per hour
          BACKEND   MACHINE     WHERE      OFFER      USD/H  STATE    CHARGED FROM          CONFIRMED             SOURCE
          eks-use1  g5.2xlarge  us-east-1  spot   $0.536100  fresh    2026-03-02 09:00:00Z  2026-03-02 09:59:30Z  file:prices.csv
          gke-usc1  g5.2xlarge  us-east-1  spot           -  missing  -                     -                     -
          gke-usc1 spot: no source has a price for it
        ");
    }

    #[test]
    fn what_travels_as_json_is_what_was_said() {
        let text = serde_json::to_string(&explanation()).unwrap();
        let back: Explanation = serde_json::from_str(&text).unwrap();
        assert_eq!(render(&back, Ink::Plain), render(&explanation(), Ink::Plain));
    }
}
