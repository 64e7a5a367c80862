//! A simulation as a picture (SVG 1.1): prices, where the configured policy sent the traffic, and what everybody spent, over
//! the same time.

use std::fmt::Write as _;

use super::{
    Scenario,
    world::{Order, Record},
};
use crate::chart::{Axis, COLOURS, DASHES, escaped, short, text};

/// Most points of a curve: more than the picture has pixels for.
const POINTS_MAX: usize = 1200;

/// Seconds in a day.
const DAY: f64 = 86_400.0;

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub struct Series {
    names: Vec<String>,
    /// By point, in days since the start.
    days: Vec<f64>,
    /// Price of a node at its mix, by backend and point, in USD an hour.
    prices: Vec<Vec<f64>>,
    curves: Vec<Curve>,
    ticks_per_point: usize,
}

/// One run, thinned out.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    name: String,
    ticks_per_point: usize,
    usd: f64,
    /// Spent since the start, by point.
    spent: Vec<f64>,
    /// Shares by point.
    shares: Vec<Vec<f64>>,
}

impl Record for Curve {
    fn tick(&mut self, tick: usize, order: &Order, usd: f64, _: f64, _: f64) {
        self.usd += usd;
        if tick.is_multiple_of(self.ticks_per_point) {
            self.spent.push(self.usd);
            self.shares.push(order.shares.clone());
        }
    }
}

impl Series {
    pub(super) fn new(scenario: &Scenario) -> Series {
        let ticks = scenario.demand.ticks();
        let ticks_per_point = ticks.div_ceil(POINTS_MAX).max(1);
        let seconds: Vec<f64> =
            (0..ticks).step_by(ticks_per_point).map(|tick| tick as f64 * scenario.tick_seconds).collect();
        let mix = |site: &super::Site, at: f64| {
            let node = site.backend.node.as_ref().filter(|_| site.backend.managed.is_none());
            let Some(node) = node else {
                return site.backend.managed.map_or(0.0, |managed| managed.usd_per_replica_hour);
            };
            let part = |share: f64, course: &super::Course| {
                if share > 0.0 { share * course.at(at).unwrap_or(0.0) } else { 0.0 }
            };
            part(node.spot.get(), &site.prices.spot) + part(1.0 - node.spot.get(), &site.prices.on_demand)
        };
        Series {
            names: scenario.sites.iter().map(|site| site.backend.id.to_string()).collect(),
            prices: scenario
                .sites
                .iter()
                .map(|site| seconds.iter().map(|at| mix(site, *at)).collect())
                .collect(),
            days: seconds.iter().map(|at| at / DAY).collect(),
            curves: Vec::new(),
            ticks_per_point,
        }
    }

    pub(super) fn curve(&self, name: &str) -> Curve {
        Curve { name: name.to_owned(), ticks_per_point: self.ticks_per_point, ..Curve::default() }
    }

    pub(super) fn add(&mut self, curve: Curve) {
        self.curves.push(curve);
    }
}

/// Size of the picture and of its panels, in pixels.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 770.0;
const TOP: f64 = 84.0;
const PANEL: f64 = 190.0;
const GAP: f64 = 54.0;
const HEIGHT: f64 = TOP + 3.0 * PANEL + 2.0 * GAP + 60.0;

/// The picture as an XML document. `heading` says what was simulated.
pub fn svg(series: &Series, heading: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-labelledby=\"title desc\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title id=\"title\">A simulation</title>\n<desc id=\"desc\">Prices, shares of the traffic and spend over time: {}</desc>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
        escaped(heading)
    );
    text(
        &mut out,
        LEFT,
        30.0,
        "start",
        "font-size=\"18\" font-weight=\"bold\"",
        "What traffic would have cost",
    );
    text(&mut out, LEFT, 50.0, "start", "fill=\"#444444\"", heading);
    let panel = |place: f64| (TOP + place * (PANEL + GAP), TOP + place * (PANEL + GAP) + PANEL);
    let last = series.days.last().copied().unwrap_or(1.0).max(1e-9);
    let x = Axis::linear(0.0, last, LEFT, RIGHT);
    draw_prices(&mut out, series, &x, panel(0.0));
    draw_shares(&mut out, series, &x, panel(1.0));
    draw_spend(&mut out, series, &x, panel(2.0));
    let middle = f64::midpoint(LEFT, RIGHT);
    text(&mut out, middle, HEIGHT - 22.0, "middle", "", "days since the start");
    out.push_str("</svg>\n");
    out
}

fn frame(out: &mut String, x: &Axis, y: &Axis, (top, bottom): (f64, f64), title: &str) {
    text(out, LEFT, top - 10.0, "start", "font-weight=\"bold\"", title);
    let stroke = "stroke=\"#dddddd\"";
    for tick in x.ticks() {
        let at = x.pixel(tick);
        let _ = writeln!(out, "<path d=\"M{at:.1} {top}V{bottom}\" {stroke}/>");
        text(out, at, bottom + 17.0, "middle", "", &short(tick));
    }
    for tick in y.ticks() {
        let at = y.pixel(tick);
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" {stroke}/>");
        text(out, LEFT - 8.0, at + 4.0, "end", "", &short(tick));
    }
}

fn line(out: &mut String, x: &Axis, y: &Axis, days: &[f64], values: &[f64], place: usize) {
    let mut path = String::new();
    for (n, (day, value)) in days.iter().zip(values).enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if n == 0 { "M" } else { "L" }, x.pixel(*day), y.pixel(*value));
    }
    let (colour, dashes) = (COLOURS[place % COLOURS.len()], DASHES[place / COLOURS.len() % DASHES.len()]);
    let _ = writeln!(
        out,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" stroke-dasharray=\"{dashes}\"/>"
    );
}

fn legend(out: &mut String, top: f64, names: &[(String, usize)], filled: bool) {
    let x = RIGHT + 18.0;
    for (row, (name, place)) in names.iter().enumerate() {
        let y = top + 8.0 + row as f64 * 17.0;
        let colour = COLOURS[place % COLOURS.len()];
        let dashes = DASHES[place / COLOURS.len() % DASHES.len()];
        let width = if filled { 10.0 } else { 2.0 };
        let _ = writeln!(
            out,
            "<path d=\"M{x} {y}H{}\" stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\"/>",
            x + 26.0
        );
        text(out, x + 34.0, y + 4.0, "start", "font-size=\"12\"", name);
    }
}

fn draw_prices(out: &mut String, series: &Series, x: &Axis, (top, bottom): (f64, f64)) {
    let most = series.prices.iter().flatten().copied().fold(0.0, f64::max);
    let y = Axis::linear(0.0, most.max(1e-9), bottom, top);
    frame(out, x, &y, (top, bottom), "Price of a node, USD an hour");
    for (place, prices) in series.prices.iter().enumerate() {
        // A price holds until the next one: steps, not slopes.
        let mut days = Vec::with_capacity(prices.len() * 2);
        let mut values = Vec::with_capacity(prices.len() * 2);
        for (n, (day, price)) in series.days.iter().zip(prices).enumerate() {
            let before = if n > 0 { prices[n - 1] } else { *price };
            if n > 0 && before == *price && n + 1 < prices.len() {
                continue;
            }
            days.extend([*day, *day]);
            values.extend([before, *price]);
        }
        line(out, x, &y, &days, &values, place);
    }
    let names: Vec<(String, usize)> = series.names.iter().cloned().zip(0..).collect();
    legend(out, top, &names, false);
}

fn draw_shares(out: &mut String, series: &Series, x: &Axis, (top, bottom): (f64, f64)) {
    let y = Axis::linear(0.0, 1.0, bottom, top);
    frame(out, x, &y, (top, bottom), "Share of the traffic under the configured policy");
    let Some(curve) = series.curves.first() else { return };
    let mut below = vec![0.0; curve.shares.len()];
    for place in 0..series.names.len() {
        let above: Vec<f64> =
            below.iter().zip(&curve.shares).map(|(below, shares)| below + shares[place]).collect();
        let mut path = String::new();
        for (n, (day, value)) in series.days.iter().zip(&above).enumerate() {
            let _ =
                write!(path, "{}{:.1} {:.1}", if n == 0 { "M" } else { "L" }, x.pixel(*day), y.pixel(*value));
        }
        for (day, value) in series.days.iter().zip(&below).rev() {
            let _ = write!(path, "L{:.1} {:.1}", x.pixel(*day), y.pixel(*value));
        }
        let colour = COLOURS[place % COLOURS.len()];
        let _ = writeln!(out, "<path d=\"{path}Z\" fill=\"{colour}\" fill-opacity=\"0.75\"/>");
        below = above;
    }
    let names: Vec<(String, usize)> = series.names.iter().cloned().zip(0..).collect();
    legend(out, top, &names, true);
}

fn draw_spend(out: &mut String, series: &Series, x: &Axis, (top, bottom): (f64, f64)) {
    let most = series.curves.iter().filter_map(|curve| curve.spent.last()).copied().fold(0.0, f64::max);
    let y = Axis::linear(0.0, most.max(1e-9), bottom, top);
    frame(out, x, &y, (top, bottom), "Spent since the start, USD");
    let mut names = Vec::new();
    for (place, curve) in series.curves.iter().enumerate() {
        line(out, x, &y, &series.days, &curve.spent, place);
        names.push((curve.name.clone(), place));
    }
    legend(out, top, &names, false);
}
