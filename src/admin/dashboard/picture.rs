//! A route over the last hours: shares, unit costs, node prices, latency, on one axis of time with the moves.

use std::fmt::Write as _;

use super::html::{COLOURS_COUNT, colour, text as escape};
use crate::{
    admin::{
        board::{Move, Point, Sample, Trend},
        views::RouteStatus,
    },
    chart::{Axis, DASHES, text},
    model::{Timestamp, words},
};

/// Size of a picture in its own units; the page makes it as wide as it has room, never much wider.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 22.0;

/// Columns of a picture at most: about one in three pixels of a phone.
const COLUMNS_MAX: usize = 96;

/// Columns of all pictures of a page, counted for every backend. Each has up to 90 bytes: so a page of much that moves
/// stays below 100 KB.
const COLUMNS_PAGE: usize = 240;

/// Moves that are marked at most, the newest: each has its reason with it.
const MARKS_MAX: usize = 12;

/// A picture shows at least this time, in seconds, so that the first minute does not look like a day.
const SPAN_MIN: f64 = 60.0;

/// A value on the vertical axis at least: an axis of nothing has no scale.
const HIGH_MIN: f64 = 1e-9;

/// What all pictures of a page share.
pub(super) struct Look<'a> {
    moves: &'a [Move],
    now: Timestamp,
    columns: usize,
}

impl<'a> Look<'a> {
    /// For pictures of so many backends in all.
    pub(super) fn new(moves: &'a [Move], now: Timestamp, backends: usize) -> Look<'a> {
        Look { moves, now, columns: (COLUMNS_PAGE / backends.max(1)).clamp(1, COLUMNS_MAX) }
    }
}

/// One moment that is drawn, and where.
struct Column<'a> {
    x: f64,
    points: &'a [Point],
}

/// One value of a backend over time, and how its line is drawn.
struct Series {
    value: fn(&Point) -> Option<f32>,
    /// Attributes of the line beside its colour.
    style: &'static str,
}

/// A line that is told from others by its colour, and where colours repeat by its dashes.
const PLAIN: &str = "stroke-width=\"2\"";

/// The second line of a backend.
const DOTTED: &str = "stroke-width=\"2\" stroke-dasharray=\"2 3\"";

const COST: Series = Series { value: |point| point.usd_per_1k, style: PLAIN };
const LATENCY: Series = Series { value: |point| point.p95_seconds, style: PLAIN };
const SPOT: Series = Series { value: |point| point.spot_usd_per_hour, style: PLAIN };
const ON_DEMAND: Series = Series { value: |point| point.on_demand_usd_per_hour, style: DOTTED };

/// Up to four pictures; nothing before there are two samples.
pub(super) fn render(out: &mut String, status: &RouteStatus, trend: &Trend, look: &Look<'_>) {
    let Look { moves, now, columns } = *look;
    let [first, _, ..] = &trend.samples[..] else { return };
    let seconds = seconds_between(first.at, now).max(SPAN_MIN);
    let shown =
        |of: &&Move| of.route == status.route && (0.0..=seconds).contains(&seconds_between(of.at, now));
    let time = Time { to: now, seconds, moves: moves.iter().filter(shown).take(MARKS_MAX).collect() };
    let columns = moments(&trend.samples, &time, columns);
    let span = words::span(time.seconds);
    out.push_str("<div class=\"charts\">\n");
    figure(out, &format!("Share of requests, last {span}; a triangle marks a move"), |out| {
        shares(out, &columns, trend, &time, status.route.as_str());
    });
    let usd = |axis_value: f64| format!("${}", round(axis_value));
    figure(out, "One more request, USD per 1,000", |out| {
        lines(out, &columns, &[COST], None, usd, &time, "USD per 1,000 requests over time");
    });
    // Platforms without nodes have no such prices.
    let known =
        |of: &Series| columns.iter().any(|c| c.points.iter().any(|point| (of.value)(point).is_some()));
    let prices: Option<(&str, &[Series])> = match (known(&SPOT), known(&ON_DEMAND)) {
        (true, true) => Some(("; solid: spot, dotted: on demand", &[SPOT, ON_DEMAND])),
        (true, false) => Some((", spot", &[SPOT])),
        (false, true) => Some((", on demand", &[Series { style: PLAIN, ..ON_DEMAND }])),
        (false, false) => None,
    };
    if let Some((which, series)) = prices {
        figure(out, &format!("A node, USD per hour{which}"), |out| {
            let said = "Prices of a node in USD per hour over time; those of now are in the table of prices";
            lines(out, &columns, series, None, usd, &time, said);
        });
    }
    let limit = status.slo_seconds;
    let caption = if limit.is_some() { "First byte, p95; dashed: the objective" } else { "First byte, p95" };
    figure(out, caption, |out| {
        lines(out, &columns, &[LATENCY], limit, words::latency, &time, "Time to first byte over time");
    });
    out.push_str("</div>\n");
}

/// The axis of time, and what is marked on it.
struct Time<'a> {
    to: Timestamp,
    seconds: f64,
    moves: Vec<&'a Move>,
}

impl Time<'_> {
    fn x(&self, at: Timestamp) -> f64 {
        RIGHT - seconds_between(at, self.to) / self.seconds * (RIGHT - LEFT)
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// At most so many moments: of each column's width, the last one.
fn moments<'a>(samples: &'a [Sample], time: &Time<'_>, most: usize) -> Vec<Column<'a>> {
    let width = (RIGHT - LEFT) / most as f64;
    let mut columns: Vec<Column<'a>> = Vec::new();
    for sample in samples {
        let x = time.x(sample.at);
        match columns.last_mut() {
            Some(last) if (x / width).floor() == (last.x / width).floor() => last.points = &sample.points,
            _ => columns.push(Column { x, points: &sample.points }),
        }
    }
    columns
}

fn figure(out: &mut String, caption: &str, draw: impl FnOnce(&mut String)) {
    let _ = write!(out, "<figure><figcaption>{}</figcaption>", escape(caption));
    draw(out);
    out.push_str("</figure>\n");
}

/// A frame with its axes.
fn open(
    out: &mut String,
    axis: &Axis,
    ticks: &[f64],
    label: impl Fn(f64) -> String,
    time: &Time<'_>,
    said: &str,
) {
    let _ = write!(
        out,
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" font-family=\"sans-serif\" font-size=\"11\" \
         fill=\"#333\">",
        escape(said)
    );
    for tick in ticks {
        let y = axis.pixel(*tick);
        let _ = write!(out, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>");
        text(out, LEFT - 5.0, y + 4.0, "end", "", &label(*tick));
    }
    text(out, LEFT, HEIGHT - 7.0, "start", "", &format!("{} ago", words::span(time.seconds)));
    text(out, RIGHT, HEIGHT - 7.0, "end", "", &format!("{} UTC", time.to.strftime("%H:%M:%S")));
}

/// Lines at the moves, with a triangle on top. What each was for shows when pointed at, where that is `told`; it stands in the
/// table of moves too.
fn mark(out: &mut String, time: &Time<'_>, told: bool) {
    let draw = |out: &mut String, moves: &[&Move]| {
        let (mut lines, mut triangles) = (String::new(), String::new());
        for of in moves {
            let x = time.x(of.at);
            let _ = write!(lines, "M{x:.1} {BOTTOM}V1");
            let _ = write!(triangles, "M{x:.1} 10l-5-9h10z");
        }
        // The dashes of the line would fray the triangle.
        let _ = write!(
            out,
            "<path d=\"{lines}\" stroke=\"#000\" stroke-dasharray=\"2 2\"/><path d=\"{triangles}\"/>"
        );
    };
    if told {
        for of in &time.moves {
            let (at, reason) = (words::moment(of.at), escape(&of.reason));
            let _ = write!(out, "<g><title>{at}: {reason}</title>");
            draw(out, &[of]);
            out.push_str("</g>");
        }
    } else if !time.moves.is_empty() {
        draw(out, &time.moves);
    }
}

fn shares(out: &mut String, columns: &[Column<'_>], trend: &Trend, time: &Time<'_>, route: &str) {
    let axis = Axis::linear(0.0, 1.0, BOTTOM, TOP);
    let percent = |tick: f64| format!("{:.0}%", tick * 100.0);
    open(out, &axis, &[0.0, 0.5, 1.0], percent, time, &format!("Shares of {route} over time"));
    let mut lower = vec![0.0; columns.len()];
    for (place, backend) in trend.backends.iter().enumerate() {
        let share =
            |column: &Column<'_>| column.points.get(place).map_or(0.0, |point| f64::from(point.share));
        let upper: Vec<f64> =
            columns.iter().zip(&lower).map(|(column, below)| below + share(column)).collect();
        if upper.iter().zip(&lower).any(|(upper, lower)| upper > lower) {
            let mut path = steps(columns, &upper, &axis);
            path += &backwards(columns, &lower, &axis);
            let _ = write!(
                out,
                "<path d=\"{path}z\" fill=\"{}\"><title>{}</title></path>",
                colour(place),
                escape(backend)
            );
        }
        lower = upper;
    }
    mark(out, time, true);
    out.push_str("</svg>");
}

/// From left to right: each value holds until the next moment.
fn steps(columns: &[Column<'_>], values: &[f64], axis: &Axis) -> String {
    let mut path = String::new();
    let mut drawn = None;
    for (column, value) in columns.iter().zip(values) {
        let y = axis.pixel(*value);
        match drawn {
            None => {
                let _ = write!(path, "M{:.1} {y:.1}", column.x);
            }
            Some(before) if before != *value => {
                let _ = write!(path, "H{:.1}V{y:.1}", column.x);
            }
            Some(_) => {}
        }
        drawn = Some(*value);
    }
    let _ = write!(path, "H{RIGHT}");
    path
}

/// The same from right to left, as the lower edge of an area.
fn backwards(columns: &[Column<'_>], values: &[f64], axis: &Axis) -> String {
    let Some(last) = values.last() else { return String::new() };
    let mut path = format!("V{:.1}", axis.pixel(*last));
    for (index, column) in columns.iter().enumerate().skip(1).rev() {
        if values[index - 1] != values[index] {
            let _ = write!(path, "H{:.1}V{:.1}", column.x, axis.pixel(values[index - 1]));
        }
    }
    let _ = write!(path, "H{:.1}", columns[0].x);
    path
}

/// A line for each backend and series; `limit` is a dashed one across.
fn lines(
    out: &mut String,
    columns: &[Column<'_>],
    series: &[Series],
    limit: Option<f64>,
    label: impl Fn(f64) -> String,
    time: &Time<'_>,
    said: &str,
) {
    let values = |of: &Series| {
        let known = columns.iter().flat_map(|column| column.points.iter().filter_map(of.value));
        known.map(f64::from).fold(None, |high: Option<f64>, value| Some(high.unwrap_or(0.0).max(value)))
    };
    let highest = series.iter().filter_map(values).reduce(f64::max);
    let high = highest.into_iter().chain(limit).fold(HIGH_MIN, f64::max);
    if highest.is_none() {
        out.push_str("<p class=\"soft\">n/a: nothing is known in this time.</p>");
        return;
    }
    let axis = Axis::linear(0.0, high * 1.05, BOTTOM, TOP);
    let ticks: Vec<f64> = axis.ticks().into_iter().step_by(2).collect();
    open(out, &axis, &ticks, label, time, said);
    if let Some(limit) = limit {
        let y = axis.pixel(limit);
        let _ =
            write!(out, "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#a30000\" stroke-dasharray=\"6 3\"/>");
    }
    for place in 0..columns.first().map_or(0, |column| column.points.len()) {
        for of in series {
            line(out, columns, &|point| (of.value)(point).map(f64::from), place, of.style, &axis);
        }
    }
    mark(out, time, false);
    out.push_str("</svg>");
}

/// The line of the backend at a place. It breaks where nothing is known: it never goes through what was not seen.
fn line(
    out: &mut String,
    columns: &[Column<'_>],
    value: &dyn Fn(&Point) -> Option<f64>,
    place: usize,
    style: &str,
    axis: &Axis,
) {
    let at = |column: &Column<'_>| column.points.get(place).and_then(value);
    let mut path = String::new();
    for run in columns.chunk_by(|a, b| at(a).is_some() == at(b).is_some()) {
        let values: Vec<f64> = run.iter().filter_map(at).collect();
        if values.is_empty() {
            continue;
        }
        path += &joined(run, &values, axis);
        // What is known now holds now.
        if run.last().map(|column| column.x) == columns.last().map(|column| column.x) {
            let _ = write!(path, "H{RIGHT}");
        }
    }
    if path.is_empty() {
        return;
    }
    let dash = match style {
        PLAIN => format!(" stroke-dasharray=\"{}\"", DASHES[place / COLOURS_COUNT % DASHES.len()]),
        _ => String::new(),
    };
    let _ = write!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" {style}{dash}/>", colour(place));
}

/// A line through the values of moments that follow each other; points that add nothing to it are left out.
fn joined(columns: &[Column<'_>], values: &[f64], axis: &Axis) -> String {
    let mut path = String::new();
    for (index, (column, value)) in columns.iter().zip(values).enumerate() {
        let flat = |other: Option<&f64>| other.is_some_and(|other| other == value);
        let before = index.checked_sub(1).and_then(|index| values.get(index));
        if flat(before) && flat(values.get(index + 1)) {
            continue;
        }
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", column.x, axis.pixel(*value));
    }
    if values.len() == 1 {
        // A single moment would be no line at all.
        path.push_str("h1");
    }
    path
}

/// Ticks are sums of steps, which are not exact.
fn round(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}
