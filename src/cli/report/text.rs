//! The report for people in a terminal.

use std::fmt::Write as _;

use super::super::table::{self, Align, Cell, Ink, Table, UNKNOWN};
use crate::{
    model::units::percent,
    report::{Money, OverrideReport, Report, Traffic},
};

/// Moves and overrides that are shown: the newest. JSON and HTML have more.
const ROWS_MAX: usize = 20;

/// The whole page.
pub(super) fn page(report: &Report, ink: Ink) -> String {
    let mut out = format!("{} to {}\n", table::moment(report.since), table::moment(report.until));
    for note in &report.notes {
        let _ = writeln!(out, "{}", ink.bad(&format!("note: {}", table::printable(note))));
    }
    if report.first.is_none() {
        return out;
    }
    summary(&mut out, report);
    section(&mut out, "By route", by_route(report), ink);
    section(&mut out, "By backend", by_backend(report), ink);
    section(&mut out, "By day (UTC)", by_day(report), ink);
    if report.routes.iter().any(|route| !route.shadows.is_empty()) {
        section(&mut out, "Shadow policies", shadows(report), ink);
    }
    if !report.moves.is_empty() {
        section(&mut out, &newest("Moves", report.moves.len()), moves(report), ink);
    }
    if !report.overrides.is_empty() {
        section(&mut out, &newest("Overrides", report.overrides.len()), overrides(report), ink);
    }
    if !report.gaps.is_empty() {
        section(&mut out, "Gaps: nothing is known of these times", gaps(report), ink);
    }
    let _ = write!(out, "\n{}\n", wrapped(report.counterfactual));
    out
}

fn summary(out: &mut String, report: &Report) {
    let Report { money, traffic, .. } = report;
    let _ = writeln!(
        out,
        "\nspent      {}: {} paid anyway (minimum of replicas), {} avoidable",
        table::usd(report.spent_usd),
        table::usd(report.minimum_usd),
        table::usd(money.avoidable_usd)
    );
    if money.standby_usd > 0.0 {
        let _ = writeln!(
            out,
            "           {} of it for replicas that moves left behind",
            table::usd(money.standby_usd)
        );
    }
    let _ = writeln!(out, "saved      {}, between {}", table::usd(money.saved_usd), interval(money));
    let unknown = [
        (money.unpriced_requests, "whose cost is unknown, in no amount"),
        (money.uncompared_requests, "for which it cannot be told what was saved"),
    ];
    for (count, what) in unknown.iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(out, "           {count} requests {what}");
    }
    let _ = writeln!(
        out,
        "requests   {}, {} errors at backends, {} refused",
        traffic.requests, traffic.errors, traffic.refused
    );
    if traffic.timed > 0 {
        let _ = writeln!(
            out,
            "objective  {} with more than 5% late; {} of {} first bytes too late",
            table::span(traffic.over_slo_seconds),
            traffic.over_slo,
            traffic.timed
        );
    }
}

fn interval(money: &Money) -> String {
    format!("{} and {}", table::usd(money.saved_low_usd), table::usd(money.saved_high_usd))
}

fn section(out: &mut String, title: &str, columns: Table, ink: Ink) {
    let _ = write!(out, "\n{}\n{}", ink.strong(title), columns.render("  ", ink));
}

fn newest(title: &str, count: usize) -> String {
    if count > ROWS_MAX { format!("{title}, the newest {ROWS_MAX} of {count}") } else { title.into() }
}

const FIGURES: [(&str, Align); 7] = [
    ("REQUESTS", Align::Right),
    ("AVOIDABLE", Align::Right),
    ("SAVED", Align::Right),
    ("AT LEAST", Align::Right),
    ("AT MOST", Align::Right),
    ("OVER SLO", Align::Right),
    ("MOVES", Align::Right),
];

fn figures(money: &Money, traffic: &Traffic, moves: u64) -> Vec<Cell> {
    vec![
        traffic.requests.to_string().into(),
        table::usd(money.avoidable_usd).into(),
        table::usd(money.saved_usd).into(),
        table::usd(money.saved_low_usd).into(),
        table::usd(money.saved_high_usd).into(),
        over_slo(traffic),
        moves.to_string().into(),
    ]
}

fn over_slo(traffic: &Traffic) -> Cell {
    match (traffic.timed, traffic.over_slo_seconds) {
        (0, _) => UNKNOWN.into(),
        (_, 0.0) => "0 s".into(),
        (_, seconds) => Cell::bad(table::span(seconds)),
    }
}

fn by_route(report: &Report) -> Table {
    let mut columns = Table::new(&[&[("ROUTE", Align::Left)], &FIGURES[..]].concat());
    for route in &report.routes {
        let name: Cell = route.route.as_str().into();
        columns.row([vec![name], figures(&route.money, &route.traffic, route.moves)].concat());
    }
    columns
}

fn by_day(report: &Report) -> Table {
    let mut columns = Table::new(&[&[("DAY", Align::Left)], &FIGURES[..]].concat());
    for day in &report.days {
        let name: Cell = day.day.as_str().into();
        columns.row([vec![name], figures(&day.money, &day.traffic, day.moves)].concat());
    }
    columns
}

fn by_backend(report: &Report) -> Table {
    let mut columns = Table::new(&[
        ("BACKEND", Align::Left),
        ("REQUESTS", Align::Right),
        ("PART", Align::Right),
        ("ERRORS", Align::Right),
        ("REQUESTS USD", Align::Right),
        ("PAID ANYWAY", Align::Right),
    ]);
    for of in &report.backends {
        columns.row([
            of.backend.as_str().into(),
            of.traffic.requests.to_string().into(),
            percent(of.traffic.requests as f64 / report.traffic.requests.max(1) as f64).into(),
            of.traffic.errors.to_string().into(),
            table::usd(of.requests_usd).into(),
            of.minimum_usd.map_or(UNKNOWN.into(), table::usd).into(),
        ]);
    }
    columns
}

fn shadows(report: &Report) -> Table {
    let mut columns = Table::new(&[
        ("ROUTE", Align::Left),
        ("POLICY", Align::Left),
        ("WOULD BE AT", Align::Left),
        ("WOULD HAVE COST", Align::Right),
        ("LIVE", Align::Right),
        ("MOVES", Align::Right),
        ("SINCE", Align::Left),
    ]);
    for (route, of) in report.routes.iter().flat_map(|route| route.shadows.iter().map(move |of| (route, of)))
    {
        columns.row([
            route.route.as_str().into(),
            of.policy.as_str().into(),
            of.backend.as_ref().map_or("nobody", |backend| backend.as_str()).into(),
            table::usd(of.shadow_usd).into(),
            table::usd(of.live_usd).into(),
            of.moves.to_string().into(),
            table::moment(of.since).into(),
        ]);
    }
    columns
}

fn moves(report: &Report) -> Table {
    let mut columns = Table::new(&[
        ("AT", Align::Left),
        ("ROUTE", Align::Left),
        ("WHAT", Align::Left),
        ("WHY", Align::Left),
    ]);
    let hidden = report.moves.len().saturating_sub(ROWS_MAX);
    for of in &report.moves[hidden..] {
        let what = of.action.as_str();
        columns.row([
            table::moment(of.at).into(),
            of.route.as_str().into(),
            what.into(),
            of.reason.as_str().into(),
        ]);
    }
    columns
}

fn overrides(report: &Report) -> Table {
    let mut columns = Table::new(&[
        ("SINCE", Align::Left),
        ("HELD", Align::Right),
        ("KIND", Align::Left),
        ("BACKEND", Align::Left),
        ("ROUTE", Align::Left),
        ("SHARE", Align::Right),
        ("AUTHOR", Align::Left),
        ("REASON", Align::Left),
        ("ENDED", Align::Left),
    ]);
    let hidden = report.overrides.len().saturating_sub(ROWS_MAX);
    for OverrideReport { order, ended_at, ended_by, held_seconds } in &report.overrides[hidden..] {
        let ended = match (ended_at, ended_by) {
            (None, _) => "holds".to_owned(),
            (Some(_), Some(author)) => format!("by {author}"),
            (Some(_), None) => "by itself".to_owned(),
        };
        columns.row([
            table::moment(order.created_at).into(),
            table::span(*held_seconds).into(),
            order.kind.as_str().into(),
            order.backend.as_ref().map_or("all", |backend| backend.as_str()).into(),
            order.route.as_ref().map_or("all", |route| route.as_str()).into(),
            order.share.map_or(UNKNOWN.into(), |share| share.to_string()).into(),
            order.author.as_str().into(),
            order.reason.as_str().into(),
            ended.into(),
        ]);
    }
    columns
}

fn gaps(report: &Report) -> Table {
    let mut columns = Table::new(&[("FROM", Align::Left), ("TO", Align::Left), ("WHY", Align::Left)]);
    for gap in &report.gaps {
        columns.row([table::moment(gap.from).into(), table::moment(gap.to).into(), gap.why.into()]);
    }
    columns
}

/// Lines of at most 100 characters.
fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if !last.is_empty() && last.len() + 1 + word.len() > 100 {
            lines.push(word.to_owned());
        } else {
            *last += if last.is_empty() { "" } else { " " };
            *last += word;
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{example, gathering};

    #[test]
    fn a_page_says_all() {
        insta::assert_snapshot!(page(&example(), Ink::Plain), @"
        2026-03-01 00:00:00Z to 2026-03-08 00:00:00Z
        note: journal/00000001.jsonl:7: this line is damaged and left out: it is no whole JSON object
        note: the journal begins at 2026-03-02 09:58:59Z: about what was before it says nothing

        spent      $6.3750: $2.2500 paid anyway (minimum of replicas), $4.1250 avoidable
                   $0.1250 of it for replicas that moves left behind
        saved      $1.2500, between -$0.5875 and $1.3125
                   7 requests whose cost is unknown, in no amount
                   7 requests for which it cannot be told what was saved
        requests   4000, 2 errors at backends, 3 refused
        objective  1 min 0 s with more than 5% late; 60 of 1000 first bytes too late

        By route
          ROUTE  REQUESTS  AVOIDABLE     SAVED  AT LEAST   AT MOST   OVER SLO  MOVES
          chat       3000    $3.0000   $1.5000  -$0.3000   $1.5000  1 min 0 s      1
          embed      1000    $1.1250  -$0.2500  -$0.3125  -$0.1625          -      0

        By backend
          BACKEND  REQUESTS  PART  ERRORS  REQUESTS USD  PAID ANYWAY
          a               0    0%       0         $0.00      $0.7500
          b            4000  100%       2       $4.0000      $0.7500
          c               0    0%       0         $0.00      $0.7500

        By day (UTC)
          DAY         REQUESTS  AVOIDABLE    SAVED  AT LEAST  AT MOST   OVER SLO  MOVES
          2026-03-02      3000    $3.1250  $0.7500  -$0.4875  $0.8125  1 min 0 s      1
          2026-03-03      1000    $1.0000  $0.5000  -$0.1000  $0.5000          -      0

        Shadow policies
          ROUTE  POLICY  WOULD BE AT  WOULD HAVE COST     LIVE  MOVES  SINCE
          chat   eager   c                    $0.9500  $1.0000      2  2026-03-02 10:00:00Z

        Moves
          AT                    ROUTE  WHAT   WHY
          2026-03-02 10:00:10Z  chat   shift  b is cheaper than a by 25%, which reaches the threshold of 15%

        Overrides
          SINCE                       HELD  KIND   BACKEND  ROUTE  SHARE  AUTHOR  REASON     ENDED
          2026-03-02 10:00:30Z  1 min 30 s  drain  a        all        -  oncall  bad image  by lead

        Gaps: nothing is known of these times
          FROM                  TO                    WHY
          2026-03-02 10:01:00Z  2026-03-03 09:59:00Z  Tradewind was stopped
          2026-03-03 10:00:00Z  2026-03-08 00:00:00Z  no accounts up to the end of the period

        Saved is what was not spent beyond what is paid anyway because traffic did not stay where it would
        have cost least at the first decision of each UTC day. Its interval reaches to what would have been
        spent with all traffic at the one backend that turned out cheapest over the whole period, and counts
        all that rests on prices that were not fresh once for and once against. Where a backend could not
        have served, nothing is saved.
        ");
    }

    #[test]
    fn an_empty_journal_is_said() {
        insta::assert_snapshot!(page(&gathering().finish(), Ink::Plain), @"
        2026-03-01 00:00:00Z to 2026-03-08 00:00:00Z
        note: the journal is empty
        ");
    }

    #[test]
    fn lines_of_prose_are_short() {
        let text = wrapped(example().counterfactual);
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.len() <= 100), "{text}");
    }
}
