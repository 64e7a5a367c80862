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
    model::{
        Decision, InterruptionRate, Managed, RateBasis, Rule, Ruled, TurningPoint, UnitCost, Verdict,
        units::percent,
    },
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
    out += &turning_points(explanation, ink);
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

/// The prices at which traffic would begin to move.
fn turning_points(explanation: &Explanation, ink: Ink) -> String {
    if explanation.turning_points.is_empty() {
        return String::new();
    }
    let mut columns = Table::new(&[
        ("BACKEND", Align::Left),
        ("OFFER", Align::Left),
        ("NOW", Align::Right),
        ("MOVES AT", Align::Right),
        ("CHANGE", Align::Right),
    ]);
    for TurningPoint { backend, offer, usd_per_hour, turns_at_usd_per_hour } in &explanation.turning_points {
        let change = turns_at_usd_per_hour / usd_per_hour - 1.0;
        let sign = if change > 0.0 { "+" } else { "" };
        columns.row([
            backend.as_str().into(),
            offer.as_str().into(),
            table::usd_aligned(*usd_per_hour).into(),
            table::usd_aligned(*turns_at_usd_per_hour).into(),
            format!("{sign}{}", percent(change)).into(),
        ]);
    }
    let title =
        ink.strong("Traffic would begin to move at these prices of a node, in USD per hour, each by itself");
    format!("\n{title}\n{}", columns.render("  ", ink))
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
mod tests;
