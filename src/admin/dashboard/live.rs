//! The part of the page that changes.

use std::fmt::Write as _;

use super::{
    html::{UNKNOWN, ago, bad, in_query, table, text, usd},
    picture::Look,
    route,
};
use crate::{
    admin::{
        board::{Board, InFull, Move, Saving},
        views::{OverrideStatus, RouteStatus},
    },
    model::{units::percent, words},
    signals::prices::ReportState,
};

/// Rows of a table at most: the page stays below 100 KB. The API has all.
const ROWS_MAX: usize = 25;

/// Everything that changes; with `only`, of routes only that one.
pub(super) fn render(board: &Board, operates: bool, only: &str) -> String {
    let mut out = String::new();
    header(&mut out, board);
    routes(&mut out, board, only);
    overrides(&mut out, &board.status.overrides, operates);
    moves(&mut out, &board.moves);
    prices(&mut out, board);
    signals(&mut out, board);
    out
}

fn header(out: &mut String, board: &Board) {
    let status = &board.status;
    let _ = writeln!(
        out,
        "<p class=\"soft\">{} UTC · decided {} ago · up {} · configuration {}{}</p>",
        board.at.strftime("%Y-%m-%d %H:%M:%S"),
        words::span(status.decision_age_seconds),
        words::span(status.uptime_seconds),
        status.config_generation,
        if status.draining { " · <span class=\"bad\">draining</span>" } else { "" },
    );
    if let Some(error) = &status.config_error {
        let _ = writeln!(
            out,
            "<p class=\"note\"><strong>The last reload was refused</strong>; the running configuration stays: {}</p>",
            text(error)
        );
    }
    for warning in status.warnings.iter().take(ROWS_MAX) {
        let _ = writeln!(out, "<p class=\"note\"><strong>Warning</strong>: {}</p>", text(warning));
    }
    let savings = &board.savings;
    let Some(since) = savings.since else { return };
    let tile = |name: &str, of: &Saving| {
        let value = if of.requests == of.uncompared && of.requests > 0 {
            UNKNOWN.to_owned()
        } else {
            words::usd(of.usd)
        };
        let left_out = match of.uncompared {
            0 => String::new(),
            some => format!("; {some} are not in it: a cost was unknown"),
        };
        format!("<div><dt>{name}</dt><dd>{value}<small>{} requests{left_out}</small></dd></div>", of.requests)
    };
    let _ = writeln!(
        out,
        "<dl aria-label=\"Saved\">{}{}</dl><p class=\"soft\">Against staying, day by day, where all of a route would have been cheapest at the \
         first decision of the UTC day; what moves cost is taken off. Modelled costs, not an invoice; counted since {} UTC. \
         <code>tradewind report</code> gives the interval.</p>",
        tile("Saved today (UTC)", &savings.today),
        tile("Saved this month", &savings.month),
        since.strftime("%Y-%m-%d %H:%M"),
    );
}

fn routes(out: &mut String, board: &Board, only: &str) {
    let all = &board.status.routes;
    let backends = board.full.iter().map(|shown| all[shown.place].backends.len()).sum();
    let look = Look::new(&board.moves, board.at, backends);
    for InFull { place, explanation, trend } in &board.full {
        route::render(out, &all[*place], explanation, trend, &look);
    }
    if !only.is_empty() {
        let _ = writeln!(out, "<p><a href=\"/\">All routes</a></p>");
        return;
    }
    if board.full.is_empty() {
        out.push_str("<p>No decision was made yet.</p>\n");
    }
    let in_full = |place: usize| board.full.iter().any(|shown| shown.place == place);
    let rest = all.iter().enumerate().filter(|(place, _)| !in_full(*place));
    let rest: Vec<&RouteStatus> = rest.map(|(_, status)| status).collect();
    if rest.is_empty() {
        return;
    }
    let _ = writeln!(out, "<section aria-labelledby=\"more\"><h2 id=\"more\">More routes</h2>");
    let left_out = rest.len().saturating_sub(ROWS_MAX);
    let rows = rest.into_iter().take(ROWS_MAX).map(|status| {
        let serving = status.backends.iter().filter(|backend| backend.share > 0.0);
        let shares = serving.map(|b| format!("{} {}", b.backend, percent(b.share)));
        let name = status.route.as_str();
        vec![
            format!("<a href=\"/?only={}\">{}</a>", in_query(name), text(name)),
            text(shares.collect::<Vec<_>>().join(", ")),
            format!("{:.1}", status.demand_rps),
            text(&status.reason),
        ]
    });
    table(
        out,
        "More routes",
        &[("Route", false), ("Now at", false), ("Requests/s", true), ("Why", false)],
        rows,
    );
    more(out, left_out, "tradewind status");
    out.push_str("</section>\n");
}

/// Says that a table is not complete.
fn more(out: &mut String, left_out: usize, command: &str) {
    if left_out > 0 {
        let _ = writeln!(out, "<p class=\"soft\">{left_out} more: <code>{command}</code></p>");
    }
}

fn overrides(out: &mut String, all: &[OverrideStatus], operates: bool) {
    out.push_str("<section aria-labelledby=\"overrides\"><h2 id=\"overrides\">Overrides</h2>\n");
    if all.is_empty() {
        out.push_str("<p>None holds: policies decide.</p></section>\n");
        return;
    }
    let rows = all.iter().take(ROWS_MAX).map(|OverrideStatus { item, remaining_seconds }| {
        let share = item.share.map_or(String::new(), |share| format!(" {share}"));
        let backend = item.backend.as_ref().map_or(String::new(), |backend| format!(" {backend}"));
        let route = item.route.as_ref().map_or("all routes".to_owned(), ToString::to_string);
        let id = text(&item.id);
        let button = if operates {
            format!(
                "<form method=\"post\" action=\"/overrides/{id}/end\"><button id=\"end-{id}\" aria-label=\"End {id}: {}\">End</button></form>",
                text(format!("{}{backend}", item.kind))
            )
        } else {
            String::new()
        };
        vec![
            text(format!("{}{backend}{share}", item.kind)),
            text(route),
            words::span(remaining_seconds.max(0.0)),
            text(&item.reason),
            text(&item.author),
            button,
        ]
    });
    let columns = [
        ("What", false),
        ("Route", false),
        ("Ends in", true),
        ("Why", false),
        ("By", false),
        ("<span class=\"soft\">End it</span>", false),
    ];
    table(out, "Overrides that hold", &columns, rows);
    more(out, all.len().saturating_sub(ROWS_MAX), "tradewind override list");
    out.push_str("</section>\n");
}

fn moves(out: &mut String, all: &[Move]) {
    out.push_str("<section aria-labelledby=\"moves\"><h2 id=\"moves\">Moves of the last 24 hours</h2>\n");
    if all.is_empty() {
        out.push_str("<p>No traffic moved.</p></section>\n");
        return;
    }
    let rows = all.iter().take(ROWS_MAX).map(|of| {
        let (route, at) = (in_query(of.route.as_str()), in_query(&of.at.to_string()));
        let link = format!("<a href=\"/decisions?route={route}&amp;at={at}\">{}</a>", words::moment(of.at));
        vec![link, text(&of.route), of.action.as_str().to_owned(), text(&of.reason)]
    });
    table(out, "Moves", &[("When", false), ("Route", false), ("What", false), ("Why", false)], rows);
    more(out, all.len().saturating_sub(ROWS_MAX), "tradewind report --since 24h");
    out.push_str("</section>\n");
}

fn prices(out: &mut String, board: &Board) {
    if board.prices.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"prices\"><h2 id=\"prices\">Prices of a node</h2>\n");
    let rows = board.prices.iter().take(ROWS_MAX).map(|price| {
        let age = price.fetched_at.map(|at| board.at.duration_since(at).as_secs_f64().max(0.0));
        let state = match price.state {
            ReportState::Fresh => "fresh".to_owned(),
            other => bad(other.as_str()),
        };
        let note = price.note.as_ref().map_or(String::new(), text);
        let place = price.zone.as_ref().map_or_else(|| price.region.clone(), ToString::to_string);
        vec![
            text(&price.backend),
            text(format!("{} in {place}", price.instance_type)),
            text(price.offer.to_string().replace('_', " ")),
            usd(price.usd_per_hour),
            state,
            ago(age),
            price.source.as_ref().map_or_else(|| UNKNOWN.to_owned(), text),
            note,
        ]
    });
    let columns = [
        ("Backend", false),
        ("Node", false),
        ("Offer", false),
        ("USD/h", true),
        ("State", false),
        ("Confirmed", true),
        ("Source", false),
        ("Note", false),
    ];
    table(out, "Prices of a node in USD per hour", &columns, rows);
    more(out, board.prices.len().saturating_sub(ROWS_MAX), "tradewind prices --config FILE");
    out.push_str("</section>\n");
}

fn signals(out: &mut String, board: &Board) {
    if board.signals.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"signals\"><h2 id=\"signals\">Signals</h2>\n");
    let rows = board.signals.iter().take(ROWS_MAX).map(|signal| {
        let says = match &signal.fault {
            None => text(&signal.says),
            Some(fault) => format!("{}; {}", text(&signal.says), bad(fault)),
        };
        vec![signal.kind.to_owned(), text(&signal.name), ago(signal.age_seconds), says]
    });
    let columns = [("Signal", false), ("Of", false), ("Last good", true), ("Says", false)];
    table(out, "Signals", &columns, rows);
    more(out, board.signals.len().saturating_sub(ROWS_MAX), "tradewind status");
    out.push_str("</section>\n");
}
