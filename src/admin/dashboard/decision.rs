//! The explanation of a decision of the past, as the journal has it.

use std::fmt::Write as _;

use super::{
    html::{UNKNOWN, keyed, or_unknown, table, text, usd},
    page::frame,
};
use crate::{
    admin::board::Past,
    model::{Rule, UnitCost, units::percent, words},
};

/// The page.
pub(super) fn render(nonce: &str, past: &Past) -> String {
    let decision = &past.decision;
    let mut out = format!(
        "<header><h1>{}: {} at {}</h1></header>\n<main>\n<p><a href=\"/#moves\">Back to the dashboard</a></p>\n<p>{}</p>\n",
        text(&past.route),
        decision.action.as_str(),
        words::moment(decision.at),
        text(&past.summary)
    );
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(out, "<p><strong>{name}</strong>: {value}.</p>");
    };
    fact("Why", &text(&decision.reason));
    fact("What would have changed it", &text(&past.what_would_change_it));
    if let Some(binding) = &past.binding {
        fact("Binding constraint", &text(binding));
    }
    let rule = match &decision.rule {
        Rule::Threshold { shift_at, return_at } => {
            format!("traffic leaves at a gap of {shift_at} and returns below {return_at}")
        }
        Rule::BreakEven { .. } => "traffic leaves when staying has cost as much as a move".into(),
    };
    fact("Policy", &text(format!("{}: {rule}", decision.policy)));
    let hourly = |value: Option<f64>| or_unknown(value, |usd| format!("{} per hour", words::usd(usd)));
    let gap = format!(
        "{}; the load in question cost {} where it was and would have cost {} there",
        or_unknown(decision.gap, percent),
        hourly(decision.cost_here_usd_per_hour),
        hourly(decision.cost_there_usd_per_hour)
    );
    fact("Gap", &gap);
    fact("Demand", &format!("{:.2} requests/s", decision.demand_rps));
    for order in &past.overrides {
        let said = format!(
            "{} ({}) by {}, until {}: {}",
            order.kind,
            order.id,
            order.author,
            words::moment(order.expires_at),
            order.reason
        );
        fact("Override in force", &text(said));
    }
    backends(&mut out, past);
    let (route, at) =
        (super::html::in_query(past.route.as_str()), super::html::in_query(&decision.at.to_string()));
    let _ = writeln!(
        out,
        "<p><a href=\"/v1/decisions?route={route}&amp;kind=decision&amp;since={at}&amp;until={at}\">All that it was made from, as JSON</a></p>\n</main>"
    );
    let title = format!("{}: {}", past.route, decision.action.as_str());
    frame(nonce, &title, "", &out)
}

fn backends(out: &mut String, past: &Past) {
    let mut columns = vec![("Backend", false), ("Share", true), ("Target", true)];
    columns.extend(UnitCost::default().terms().map(|(term, _)| (term, true)));
    columns.extend([("USD/1,000", true), ("at this load", true), ("Limited by", false)]);
    let rows = past.decision.backends.iter().enumerate().map(|(place, verdict)| {
        let mut cells = vec![keyed(place, &verdict.backend), percent(verdict.share), percent(verdict.target)];
        cells.extend((0..UnitCost::default().terms().len()).map(|index| match verdict.unit_cost {
            Some(cost) => words::usd_aligned(cost.terms()[index].1),
            None => UNKNOWN.to_owned(),
        }));
        cells.push(usd(verdict.unit_cost.map(|cost| cost.total())));
        cells.push(usd(verdict.marginal_usd_per_1k));
        cells.push(verdict.limited_because().map_or_else(|| "nothing".to_owned(), text));
        cells
    });
    out.push_str("<h2>Backends then</h2>\n");
    table(out, "Backends, with the costs in USD per 1,000 requests", &columns, rows);
}
