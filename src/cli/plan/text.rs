//! A plan as people read it.

use std::fmt::Write as _;

use crate::{
    cli::table::{Align, Cell, Ink, Table, UNKNOWN, printable, usd},
    plan::{Bill, Kind, Line, Plan, Point, Strategy},
};

/// Changes of the cheapest strategy that are told; all are in the JSON.
const CHANGES_TOLD_MAX: usize = 12;

/// The columns of the table: kinds of strategies, what they are.
static COLUMNS: [(Kind, &str, &str); 6] = [
    (Kind::StaticOnDemand, "STATIC", "nodes for the busiest hour all month, on demand"),
    (Kind::AutoscaleOnDemand, "ON DEMAND", "nodes for each hour, on demand"),
    (Kind::AutoscaleSpot, "SPOT", "nodes for each hour, spot"),
    (Kind::TwoCloudsFixed, "2 FIXED", "two clusters, spot, half of the traffic each"),
    (Kind::TwoCloudsShifting, "2 SHIFTING", "two clusters, spot, the traffic where it is cheaper"),
    (Kind::Managed, "MANAGED", "instances of a managed platform for each hour"),
];

/// All of it.
pub(super) fn page(plan: &Plan, ink: Ink) -> String {
    let parts = [
        summary(plan, ink),
        table(plan, ink),
        pays(plan, ink),
        break_even(plan, ink),
        details(plan, ink),
        doubts(plan, ink),
        unknown(plan, ink),
        not_included(plan, ink),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn summary(plan: &Plan, ink: Ink) -> String {
    let mut out = format!("{}\n", ink.strong("A month of traffic, in USD"));
    line(&mut out, &format!("month       {} hours; {}", plan.month_hours, prices(plan)));
    line(
        &mut out,
        &format!(
            "day         {}; busiest hour {} times the mean",
            plan.day.source,
            number(plan.day.peak(), 4)
        ),
    );
    line(&mut out, &format!("response    {} bytes on average", plan.response_bytes));
    for (kind, column, meaning) in shown(plan) {
        line(&mut out, &format!("{column:12}{}: {meaning}", kind.as_str()));
    }
    out
}

/// The columns of which there is a strategy.
fn shown(plan: &Plan) -> impl Iterator<Item = &'static (Kind, &'static str, &'static str)> {
    let there = |kind: Kind| plan.strategies.iter().any(|strategy| strategy.kind == kind);
    COLUMNS.iter().filter(move |(kind, ..)| there(*kind))
}

fn prices(plan: &Plan) -> String {
    match plan.window.from {
        None => "node prices do not change in it".into(),
        Some(from) => format!(
            "node prices hour by hour as in the {} days from {}",
            plan.window.hours / 24,
            from.strftime("%Y-%m-%d %H:%MZ")
        ),
    }
}

/// One row for each traffic, with the cheapest of each kind.
fn table(plan: &Plan, ink: Ink) -> String {
    let shown: Vec<_> = shown(plan).collect();
    let mut columns = vec![("REQUESTS/S", Align::Right)];
    columns.extend(shown.iter().map(|(_, column, _)| (*column, Align::Right)));
    columns.push(("CHEAPEST", Align::Left));
    let mut table = Table::new(&columns);
    for point in &plan.points {
        let mut cells: Vec<Cell> = vec![number(point.rps, 4).into()];
        for (kind, ..) in &shown {
            cells.push(match point.cheapest_of(plan, *kind) {
                None => UNKNOWN.into(),
                Some((bill, amount)) => {
                    let mark = if point.cheapest.as_ref() == Some(&bill.id) { "*" } else { "" };
                    format!("{mark}{}", usd(amount)).into()
                }
            });
        }
        cells.push(point.cheapest.as_deref().unwrap_or("none carries it").into());
        table.row(cells);
    }
    let mut out = table.render("  ", ink);
    line(
        &mut out,
        "*: the cheapest. Of several backends, the cheapest is shown; -: none carries this traffic.",
    );
    out
}

/// From which traffic on each kind costs less than the one before it.
fn pays(plan: &Plan, ink: Ink) -> String {
    let mut out = format!(
        "{}\n",
        ink.strong(
            "What pays (costs less, or carries what the other does not), each kind at its cheapest backend"
        )
    );
    for step in &plan.pays {
        let (strategy, against) = (step.strategy.as_str(), step.against.as_str());
        let sentence = match (step.pays_from_rps, step.pays_to_rps) {
            (Some(from), Some(to)) => {
                let gaps = if step.with_gaps { ", but not everywhere in between" } else { "" };
                let (from, to) = (number(from, 5), number(to, 5));
                format!("{strategy} pays over {against} from {from} to {to} requests/s{gaps}.")
            }
            _ => format!("{strategy} nowhere pays over {against}."),
        };
        line(&mut out, &sentence);
    }
    if plan.pays.is_empty() { String::new() } else { out }
}

fn break_even(plan: &Plan, ink: Ink) -> String {
    let found = &plan.break_even;
    let (from, to) = (plan.points.first(), plan.points.last());
    let range = |point: Option<&Point>| point.map_or_else(String::new, |point| number(point.rps, 4));
    let mut out =
        format!("{}\n", ink.strong(&format!("Break-even, {} to {} requests/s", range(from), range(to))));
    for reign in &found.cheapest {
        let gaps = if reign.with_gaps { ", with others in between" } else { "" };
        let sentence = format!(
            "{} is the cheapest from {} to {} requests/s{gaps}.",
            reign.id,
            number(reign.from_rps, 5),
            number(reign.to_rps, 5)
        );
        line(&mut out, &sentence);
    }
    if !found.nowhere_cheapest.is_empty() {
        line(&mut out, &format!("Nowhere the cheapest: {}.", found.nowhere_cheapest.join(", ")));
    }
    let name = |id: &Option<String>| id.clone().unwrap_or_else(|| "none that carries the traffic".into());
    for change in found.changes.iter().take(CHANGES_TOLD_MAX) {
        let (before, after) = (name(&change.before), name(&change.after));
        let (above, at) = (number(change.above_rps, 6), number(change.at_rps, 6));
        line(&mut out, &format!("Between {above} and {at}: from {before} to {after}."));
    }
    let more = found.changes.len().saturating_sub(CHANGES_TOLD_MAX) + found.changes_left_out;
    if more > 0 {
        line(&mut out, &format!("And {more} more changes; --json has them."));
    }
    out
}

/// The lines of every strategy at one traffic.
fn details(plan: &Plan, ink: Ink) -> String {
    let at = &plan.at;
    let title = format!(
        "At {} requests/s on average, {} in the busiest hour",
        number(at.rps, 6),
        number(at.peak_rps, 6)
    );
    let mut out = format!("{}\n", ink.strong(&title));
    for (strategy, bill) in plan.strategies.iter().zip(&at.bills) {
        let total = match bill.usd_per_month {
            Some(usd) => format!("{usd:.2} USD a month"),
            None => "does not carry it".into(),
        };
        let mark = if at.cheapest.as_ref() == Some(&bill.id) { ", the cheapest" } else { "" };
        let _ = writeln!(out, "\n  {}: {total}{mark}", ink.strong(&printable(&bill.id)));
        out.push_str(&bill_text(strategy, bill, ink));
    }
    out
}

fn bill_text(strategy: &Strategy, bill: &Bill, ink: Ink) -> String {
    let mut out = String::new();
    for note in &strategy.notes {
        let _ = writeln!(out, "    {}", printable(note));
    }
    if let Some(why) = &bill.not_carried {
        let _ = writeln!(out, "    {}", printable(why));
        return out;
    }
    let mut table = Table::new(&[
        ("LINE", Align::Left),
        ("BACKEND", Align::Left),
        ("WHAT", Align::Left),
        ("QUANTITY", Align::Right),
        ("UNIT", Align::Left),
        ("USD/UNIT", Align::Right),
        ("USD/MONTH", Align::Right),
        ("SOURCE", Align::Left),
    ]);
    for line in &bill.lines {
        let Line { kind, backend, what, quantity, unit, usd_per_unit, usd_per_month, source } = line;
        table.row([
            kind.as_str().into(),
            backend.as_str().into(),
            what.as_str().into(),
            decimals(*quantity, 4).into(),
            unit.to_string().into(),
            decimals(*usd_per_unit, 10).into(),
            format!("{usd_per_month:.2}").into(),
            source.as_str().into(),
        ]);
    }
    out.push_str(&table.render("    ", ink));
    out
}

/// What is unusual about prices.
fn doubts(plan: &Plan, ink: Ink) -> String {
    let mut out = format!("{}\n", ink.strong("Prices to doubt"));
    let title = out.len();
    for facts in &plan.backends {
        for (offer, course) in [("spot", &facts.spot), ("on_demand", &facts.on_demand)] {
            if let Some(note) = course.as_ref().and_then(|course| course.note.as_ref()) {
                line(&mut out, &format!("{} {offer}: {note}", facts.id));
            }
        }
    }
    if out.len() == title { String::new() } else { out }
}

fn unknown(plan: &Plan, ink: Ink) -> String {
    if plan.unknown.is_empty() {
        return String::new();
    }
    let mut out = format!("{}\n", ink.strong("Unknown"));
    for strategy in &plan.unknown {
        line(&mut out, &format!("{}: {}", strategy.id, strategy.why));
    }
    out
}

fn not_included(plan: &Plan, ink: Ink) -> String {
    let mut out = format!("{}\n", ink.strong("Not included"));
    for sentence in &plan.not_included {
        line(&mut out, sentence);
    }
    out
}

fn line(out: &mut String, text: &str) {
    let _ = writeln!(out, "  {}", printable(text).trim_end());
}

/// With at most so many significant digits, and no zeros that say nothing.
fn number(number: f64, digits: usize) -> String {
    let before = if number >= 1.0 { number.log10().floor() as usize + 1 } else { 1 };
    decimals(number, digits.saturating_sub(before))
}

/// With at most so many decimals, and no zeros that say nothing.
fn decimals(number: f64, most: usize) -> String {
    let text = format!("{number:.most$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
