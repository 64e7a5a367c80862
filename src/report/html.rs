//! The report as one page that needs nothing else: no scripts, no fonts, pictures within. It reads on a phone, by night and in
//! print.

use std::fmt::Write as _;

use super::{Money, Point, Report, Traffic};
use crate::{
    chart::{Axis, COLOURS, escaped, short, text},
    model::Timestamp,
};

/// Size of a plot in its own units; the page makes it as wide as it is. Narrow, so that its text stays legible on a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 26.0;

/// Labels of the time axis, about.
const LABELS: usize = 5;

/// Rows of moves and overrides that the page has: the newest. The JSON has all.
const ROWS_MAX: usize = 100;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.5rem 0}\
.period,.small{color:#555;font-size:.875rem}\
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem;margin:1rem 0}\
dl div{border:1px solid #ccc;border-radius:.5rem;padding:.5rem .75rem}\
dt{font-size:.8rem;color:#555}dd{margin:0;font-size:1.35rem;font-variant-numeric:tabular-nums}dd small{display:block;font-size:.8rem;color:#555}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}\
th,td{padding:.3rem .6rem .3rem 0;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
th.n,td.n{text-align:right;white-space:nowrap}\
svg{width:100%;height:auto;background:#fff;border-radius:.5rem}\
.note{border-left:4px solid #d55e00;padding-left:.75rem}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}.period,.small,dt,dd small{color:#aaa}dl div{border-color:#444}th,td{border-color:#333}}\
@media print{body{max-width:none;padding:0;color:#000;background:#fff;font-size:10pt}h2{break-after:avoid}table,svg,dl{break-inside:avoid}.scroll{overflow:visible}}";

/// The page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>Tradewind report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Tradewind report</h1>\n\
         <p class=\"period\">{} to {}, UTC</p>\n",
        minute(report.since),
        minute(report.until)
    );
    for note in &report.notes {
        let _ = writeln!(out, "<p class=\"note\">{}</p>", escaped(note));
    }
    summary(&mut out, report);
    if !report.series.is_empty() {
        out.push_str("<h2>What was spent, and what staying would have cost</h2>\n");
        out.push_str(&spend(&report.series));
        out.push_str("<h2>Who served</h2>\n");
        let names: Vec<&str> = report.backends.iter().map(|b| b.backend.as_str()).collect();
        out.push_str(&served(&report.series, &names));
    }
    tables(&mut out, report);
    let _ = write!(
        out,
        "<h2>How this was reckoned</h2>\n<p class=\"small\">{}</p>\n<p class=\"small\">All amounts are USD by the cost model at the \
         prices in use, beyond which a provider may charge more; \u{201c}paid anyway\u{201d} is what the configured minimum of \
         replicas costs.</p>\n</body>\n</html>\n",
        escaped(report.counterfactual)
    );
    out
}

fn summary(out: &mut String, report: &Report) {
    let Report { money, traffic, .. } = report;
    let tile = |out: &mut String, name: &str, value: String, more: String| {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}<small>{}</small></dd></div>", escaped(&more));
    };
    out.push_str("<dl>\n");
    let anyway = format!("{} of it paid anyway", usd(report.minimum_usd));
    tile(out, "Spent", usd(report.spent_usd), anyway);
    let standby = format!("{} of it left behind by moves", usd(money.standby_usd));
    tile(out, "Avoidable", usd(money.avoidable_usd), standby);
    tile(out, "Saved", usd(money.saved_usd), interval(money));
    tile(
        out,
        "Requests",
        traffic.requests.to_string(),
        format!("{} errors, {} refused", traffic.errors, traffic.refused),
    );
    tile(out, "Over the objective", span(traffic.over_slo_seconds), late(traffic));
    let moves: u64 = report.routes.iter().map(|route| route.moves).sum();
    tile(out, "Moves", moves.to_string(), format!("{} overrides", report.overrides.len()));
    out.push_str("</dl>\n");
}

fn tables(out: &mut String, report: &Report) {
    let figures = |money: &Money, traffic: &Traffic| {
        [
            traffic.requests.to_string(),
            usd(money.avoidable_usd),
            usd(money.saved_usd),
            interval(money),
            span(traffic.over_slo_seconds),
        ]
    };
    let columns = ["requests", "avoidable", "saved", "interval", "over SLO", "moves"];
    table(
        out,
        "By route",
        "route",
        &columns,
        report.routes.iter().map(|route| {
            let cells = figures(&route.money, &route.traffic).into_iter().chain([route.moves.to_string()]);
            (route.route.to_string(), cells.collect())
        }),
    );
    table(
        out,
        "By backend",
        "backend",
        &["requests", "errors", "requests, USD", "paid anyway"],
        report.backends.iter().map(|of| {
            let cells = vec![
                of.traffic.requests.to_string(),
                of.traffic.errors.to_string(),
                usd(of.requests_usd),
                of.minimum_usd.map_or("unknown".into(), usd),
            ];
            (of.backend.to_string(), cells)
        }),
    );
    table(
        out,
        "By day",
        "day (UTC)",
        &columns,
        report.days.iter().map(|day| {
            let cells = figures(&day.money, &day.traffic).into_iter().chain([day.moves.to_string()]);
            (day.day.clone(), cells.collect())
        }),
    );
    let shadows = report.routes.iter().flat_map(|route| route.shadows.iter().map(move |s| (route, s)));
    table(
        out,
        "Shadow policies",
        "route",
        &["policy", "would be at", "would have cost", "live", "moves"],
        shadows.map(|(route, s)| {
            let at = s.backend.as_ref().map_or("nobody".to_owned(), ToString::to_string);
            let cells =
                vec![s.policy.to_string(), at, usd(s.shadow_usd), usd(s.live_usd), s.moves.to_string()];
            (route.route.to_string(), cells)
        }),
    );
    words(
        out,
        "Moves",
        ["when (UTC)", "route", "why"],
        report.moves.iter().rev().take(ROWS_MAX).map(|of| {
            [minute(of.at), of.route.to_string(), format!("{}: {}", of.action.as_str(), of.reason)]
        }),
    );
    words(
        out,
        "Overrides",
        ["since (UTC)", "what and by whom", "why"],
        report.overrides.iter().rev().take(ROWS_MAX).map(|of| {
            let order = &of.order;
            let backend = order.backend.as_ref().map_or(String::new(), |backend| format!(" {backend}"));
            let share = order.share.map_or(String::new(), |share| format!(" {share}"));
            let held = span(of.held_seconds);
            let what = format!("{}{backend}{share} by {}, for {held}", order.kind, order.author);
            [minute(order.created_at), what, order.reason.clone()]
        }),
    );
    words(
        out,
        "Gaps",
        ["from (UTC)", "to", "why"],
        report.gaps.iter().map(|gap| [minute(gap.from), minute(gap.to), gap.why.to_owned()]),
    );
}

/// A table of names and numbers; nothing without rows.
fn table(
    out: &mut String,
    title: &str,
    first: &str,
    columns: &[&str],
    rows: impl Iterator<Item = (String, Vec<String>)>,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = write!(out, "<h2>{title}</h2>\n<div class=\"scroll\"><table><tr><th>{first}</th>");
    for name in columns {
        let _ = write!(out, "<th class=\"n\">{name}</th>");
    }
    out.push_str("</tr>\n");
    for (name, cells) in rows {
        let _ = write!(out, "<tr><td>{}</td>", escaped(&name));
        for cell in cells {
            let _ = write!(out, "<td class=\"n\">{}</td>", escaped(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// A table of words; nothing without rows.
fn words(out: &mut String, title: &str, columns: [&str; 3], rows: impl Iterator<Item = [String; 3]>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let _ = write!(out, "<h2>{title}</h2>\n<div class=\"scroll\"><table><tr>");
    for name in columns {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr>\n");
    for cells in rows {
        out.push_str("<tr>");
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", escaped(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

/// A plot's frame: its axis of values and of time.
fn frame(series: &[Point], axis: &Axis, label: impl Fn(f64) -> String, description: &str) -> String {
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" font-family=\"sans-serif\" font-size=\"12\" \
         fill=\"#333333\">\n",
        escaped(description)
    );
    for tick in axis.ticks() {
        let y = axis.pixel(tick);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>"
        );
        text(&mut out, LEFT - 6.0, y + 4.0, "end", "", &label(tick));
    }
    let hourly = series.len() < 2 || series[1].second - series[0].second < 86_400;
    let every = series.len().div_ceil(LABELS).max(1);
    for (index, point) in series.iter().enumerate().step_by(every) {
        let format = if hourly { "%d %b %H:%M" } else { "%d %b" };
        let at = Timestamp::from_second(point.second).unwrap_or(Timestamp::UNIX_EPOCH);
        let (x, width) = bar(index, series.len());
        let place = if index == 0 { (x, "start") } else { (x + width / 2.0, "middle") };
        text(&mut out, place.0, HEIGHT - 8.0, place.1, "", &at.strftime(format).to_string());
    }
    out
}

/// Left edge and width of a bar.
fn bar(index: usize, count: usize) -> (f64, f64) {
    let step = (RIGHT - LEFT) / count as f64;
    (LEFT + step * (index as f64 + 0.08), (step * 0.84).max(0.5))
}

fn rect(out: &mut String, index: usize, count: usize, axis: &Axis, from: f64, to: f64, style: &str) {
    let (x, width) = bar(index, count);
    let (top, bottom) = (axis.pixel(to), axis.pixel(from));
    if bottom - top > 0.0 {
        let height = bottom - top;
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {style}/>"
        );
    }
}

/// Avoidable spend, with what was saved on top of it.
fn spend(series: &[Point]) -> String {
    let tops = series.iter().map(|p| p.avoidable_usd.max(p.avoidable_usd + p.saved_usd));
    let axis = Axis::linear(0.0, tops.fold(1e-9, f64::max), BOTTOM, TOP);
    let description = "Avoidable USD over time, and what staying would have cost";
    let mut out = frame(series, &axis, |tick| format!("${}", short((tick * 1e6).round() / 1e6)), description);
    let [spent, lost, saved] = [COLOURS[0], COLOURS[1], COLOURS[2]];
    for (index, point) in series.iter().enumerate() {
        let stayed = (point.avoidable_usd + point.saved_usd).max(0.0);
        let mut add = |from: f64, to: f64, style: String| {
            rect(&mut out, index, series.len(), &axis, from, to, &style);
        };
        add(0.0, point.avoidable_usd.min(stayed), format!("fill=\"{spent}\""));
        add(stayed, point.avoidable_usd, format!("fill=\"{lost}\""));
        let dashed =
            format!("fill=\"{saved}\" fill-opacity=\"0.25\" stroke=\"{saved}\" stroke-dasharray=\"3 2\"");
        add(point.avoidable_usd, stayed, dashed);
    }
    out.push_str("</svg>\n");
    legend(
        &mut out,
        &[("spent", spent), ("saved against staying", saved), ("more than staying would have cost", lost)],
    );
    out
}

/// Part of the requests by backend.
fn served(series: &[Point], names: &[&str]) -> String {
    let axis = Axis::linear(0.0, 1.0, BOTTOM, TOP);
    let label = |tick: f64| format!("{:.0}%", tick * 100.0);
    let mut out = frame(series, &axis, label, "Part of the requests by backend over time");
    let colour = |place: usize| COLOURS[place % COLOURS.len()];
    for (index, point) in series.iter().enumerate() {
        let all: u64 = point.requests.iter().sum();
        let mut below = 0.0;
        for (place, requests) in point.requests.iter().enumerate() {
            let part = *requests as f64 / all.max(1) as f64;
            rect(
                &mut out,
                index,
                series.len(),
                &axis,
                below,
                below + part,
                &format!("fill=\"{}\"", colour(place)),
            );
            below += part;
        }
    }
    out.push_str("</svg>\n");
    let entries: Vec<(&str, &str)> =
        names.iter().enumerate().map(|(place, name)| (*name, colour(place))).collect();
    legend(&mut out, &entries);
    out
}

fn legend(out: &mut String, entries: &[(&str, &str)]) {
    out.push_str("<p class=\"small\">");
    for (name, colour) in entries {
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 10 10\" style=\"width:.8em;border-radius:2px\" aria-hidden=\"true\"><rect width=\"10\" height=\"10\" \
             fill=\"{colour}\"/></svg> {} &nbsp; ",
            escaped(name)
        );
    }
    out.push_str("</p>\n");
}

fn interval(money: &Money) -> String {
    format!("{} to {}", usd(money.saved_low_usd), usd(money.saved_high_usd))
}

fn late(traffic: &Traffic) -> String {
    match traffic.timed {
        0 => "no objective".into(),
        timed => format!("{} of {timed} first bytes too late", traffic.over_slo),
    }
}

/// Cents, or what is needed to see that there is something.
fn usd(amount: f64) -> String {
    let size = amount.abs();
    let decimals = if (5e-7..0.995).contains(&size) { 6 } else { 2 };
    let sign = if amount < 0.0 && size >= 5e-7 { "-" } else { "" };
    format!("{sign}${size:.decimals$}")
}

fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        0 if seconds > 0.0 => format!("{seconds:.0} s"),
        0..60 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M").to_string()
}
