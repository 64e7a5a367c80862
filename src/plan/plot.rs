//! A plan as a picture (SVG 1.1): the month's cost over the traffic, a line for each kind of strategy.

use std::fmt::Write as _;

use super::{Kind, Plan, traffic::rounded};
use crate::chart::{Axis, escaped, short, text};

/// Size of the picture and of the field inside it, in pixels.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 600.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 770.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 520.0;

/// Least distance of two labels above the field, in pixels; nearer ones are left out.
const LABEL_GAP: f64 = 64.0;

/// How a kind is drawn. Colours by Okabe and Ito (2008), which people with any colour vision tell apart; dashes and markers for
/// print in black. Of lines on top of each other the markers show both.
struct Look {
    kind: Kind,
    colour: &'static str,
    dashes: &'static str,
    marker: Marker,
}

#[derive(Clone, Copy)]
enum Marker {
    Circle,
    Square,
    Diamond,
    Triangle,
    TriangleDown,
    Cross,
}

const LOOKS: [Look; 6] = [
    Look { kind: Kind::StaticOnDemand, colour: "#000000", dashes: "none", marker: Marker::Square },
    Look { kind: Kind::AutoscaleOnDemand, colour: "#0072b2", dashes: "9 4", marker: Marker::Circle },
    Look { kind: Kind::AutoscaleSpot, colour: "#009e73", dashes: "3 3", marker: Marker::Triangle },
    Look { kind: Kind::TwoCloudsFixed, colour: "#d55e00", dashes: "12 4 3 4", marker: Marker::Diamond },
    Look {
        kind: Kind::TwoCloudsShifting,
        colour: "#cc79a7",
        dashes: "6 3 2 3 2 3",
        marker: Marker::TriangleDown,
    },
    Look { kind: Kind::Managed, colour: "#8a6d00", dashes: "2 5", marker: Marker::Cross },
];

/// The picture as an XML document.
pub fn svg(plan: &Plan) -> String {
    let x = Axis::of(plan.points.iter().map(|point| point.rps), LEFT, RIGHT);
    let costs = LOOKS.iter().flat_map(|look| series(plan, look.kind)).map(|(_, usd)| usd);
    let costs: Vec<f64> = costs.collect();
    let y = Axis::of(costs.iter().copied(), BOTTOM, TOP);
    let mut out = String::new();
    head(&mut out, plan);
    grid(&mut out, &x, &y);
    changes(&mut out, plan, &x);
    for look in &LOOKS {
        curve(&mut out, plan, look, &x, &y);
    }
    legend(&mut out, plan);
    out.push_str("</svg>\n");
    out
}

/// Traffic and the cost of the cheapest strategy of a kind, where one carries the traffic.
fn series(plan: &Plan, kind: Kind) -> impl Iterator<Item = (f64, f64)> + '_ {
    let cheapest = move |point: &super::Point| Some((point.rps, point.cheapest_of(plan, kind)?.1));
    plan.points.iter().filter_map(cheapest)
}

// Writing to a String cannot fail, here and below.
fn head(out: &mut String, plan: &Plan) {
    let description = format!(
        "Cost of a month in USD over the mean traffic in requests per second, for {} strategies.",
        plan.strategies.len()
    );
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-labelledby=\"title desc\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title id=\"title\">What a month of traffic costs</title>\n<desc id=\"desc\">{}</desc>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n",
        escaped(&description)
    );
    text(out, LEFT, 30.0, "start", "font-size=\"18\" font-weight=\"bold\"", "What a month of traffic costs");
    let day = format!("{} hours; {}", plan.month_hours, plan.day.source);
    text(out, LEFT, 50.0, "start", "fill=\"#444444\"", &day);
    let middle = f64::midpoint(LEFT, RIGHT);
    text(out, middle, HEIGHT - 28.0, "middle", "", "requests per second, on average over the day");
    let centre = f64::midpoint(TOP, BOTTOM);
    let _ = writeln!(
        out,
        "<text transform=\"translate(22 {centre}) rotate(-90)\" text-anchor=\"middle\">USD a month</text>"
    );
}

fn grid(out: &mut String, x: &Axis, y: &Axis) {
    let stroke = "stroke=\"#dddddd\"";
    for tick in x.ticks() {
        let at = x.pixel(tick);
        let _ = writeln!(out, "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" {stroke}/>");
        text(out, at, BOTTOM + 20.0, "middle", "", &short(tick));
    }
    for tick in y.ticks() {
        let at = y.pixel(tick);
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" {stroke}/>");
        text(out, LEFT - 8.0, at + 4.0, "end", "", &short(tick));
    }
    let (width, height) = (RIGHT - LEFT, BOTTOM - TOP);
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#444444\"/>"
    );
}

/// Where another kind of strategy becomes the cheapest.
fn changes(out: &mut String, plan: &Plan, x: &Axis) {
    let kind = |id: &Option<String>| {
        let strategy = plan.strategies.iter().find(|strategy| Some(&strategy.id) == id.as_ref());
        strategy.map(|strategy| strategy.kind)
    };
    let of_kind = plan.break_even.changes.iter().filter(|change| kind(&change.before) != kind(&change.after));
    let mut last = f64::NEG_INFINITY;
    for change in of_kind {
        let at = x.pixel(change.at_rps);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#444444\" stroke-dasharray=\"1 4\" stroke-width=\"1.5\"/>"
        );
        if at - last >= LABEL_GAP {
            text(out, at, TOP - 8.0, "middle", "font-size=\"11\"", &short(rounded(change.at_rps, 4)));
            last = at;
        }
    }
}

fn curve(out: &mut String, plan: &Plan, look: &Look, x: &Axis, y: &Axis) {
    let mut path = String::new();
    let mut markers = String::new();
    let mut drawing = false;
    for point in &plan.points {
        let Some((_, usd)) = point.cheapest_of(plan, look.kind) else {
            drawing = false;
            continue;
        };
        let (x, y) = (x.pixel(point.rps), y.pixel(usd));
        let _ = write!(path, "{}{x:.1} {y:.1}", if drawing { "L" } else { "M" });
        drawing = true;
        marker(&mut markers, look, x, y);
    }
    if path.is_empty() {
        return;
    }
    let Look { kind, colour, dashes, .. } = look;
    let _ = writeln!(
        out,
        "<g id=\"{}\"><path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dashes}\"/>\n{markers}</g>",
        kind.as_str()
    );
}

fn marker(out: &mut String, look: &Look, x: f64, y: f64) {
    let shape = match look.marker {
        Marker::Circle => "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
        Marker::Square => "M-3.5 -3.5h7v7h-7z",
        Marker::Diamond => "M0 -5L5 0L0 5L-5 0z",
        Marker::Triangle => "M0 -5L4.5 3.5H-4.5z",
        Marker::TriangleDown => "M0 5L4.5 -3.5H-4.5z",
        Marker::Cross => "M-4 -4L4 4M-4 4L4 -4",
    };
    let colour = look.colour;
    let _ = writeln!(
        out,
        "<path transform=\"translate({x:.1} {y:.1})\" d=\"{shape}\" fill=\"#ffffff\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
    );
}

/// Names of what is drawn, and how to read it.
fn legend(out: &mut String, plan: &Plan) {
    let x = RIGHT + 20.0;
    let mut y = TOP + 12.0;
    for look in LOOKS.iter().filter(|look| series(plan, look.kind).next().is_some()) {
        let Look { kind, colour, dashes, .. } = look;
        let (end, middle) = (x + 44.0, x + 22.0);
        let _ = writeln!(
            out,
            "<path d=\"M{x} {y}H{end}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>"
        );
        marker(out, look, middle, y);
        text(out, end + 8.0, y + 4.0, "start", "", kind.as_str());
        y += 26.0;
    }
    let notes =
        ["Each at its cheapest backend.", "A line ends where the traffic", "is more than it carries."];
    for note in notes {
        y += 18.0;
        text(out, x, y, "start", "font-size=\"12\" fill=\"#444444\"", note);
    }
    if !plan.break_even.changes.is_empty() {
        for note in ["Dotted: another kind becomes", "the cheapest."] {
            y += 18.0;
            text(out, x, y, "start", "font-size=\"12\" fill=\"#444444\"", note);
        }
    }
}
