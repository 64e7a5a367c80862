//! Prices over time, a line of the terminal each.

use std::{fmt::Write as _, time::Duration};

use crate::{
    cli::table::{self, Align, Ink, Table},
    model::Timestamp,
    signals::prices::{PriceHistory, PriceSeries},
};

/// Characters of a plot: with the other columns it fits a terminal of 132.
const WIDTH: usize = 48;

/// From the lowest price of a line to its highest.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Where a price is not known yet.
const NOTHING: char = ' ';

/// Every series as a line: what it is, a plot of the time, its lowest, highest and last price.
pub(super) fn render(history: &PriceHistory, span: Duration, ink: Ink) -> String {
    if history.series.is_empty() {
        return match history.faults.is_empty() {
            true => "no source remembers a price of these backends\n".into(),
            false => String::new(),
        };
    }
    let mut columns = Table::new(&[
        ("BACKEND", Align::Left),
        ("ZONE OR REGION", Align::Left),
        ("OFFER", Align::Left),
        ("PRICE OVER TIME", Align::Left),
        ("LOW", Align::Right),
        ("HIGH", Align::Right),
        ("LAST", Align::Right),
        ("CHANGES", Align::Right),
    ]);
    for series in &history.series {
        let prices = || series.changes.iter().map(|change| change.usd_per_hour);
        let (low, high) = (prices().fold(f64::INFINITY, f64::min), prices().fold(0.0, f64::max));
        let usd = |price: f64| format!("${price:.4}");
        columns.row([
            series.backend.as_str().into(),
            series.zone.as_deref().unwrap_or(&series.region).into(),
            series.offer.as_str().into(),
            plot(series).into(),
            usd(low).into(),
            usd(high).into(),
            usd(prices().next_back().unwrap_or(low)).into(),
            (series.changes.len() - 1).to_string().into(),
        ]);
    }
    let mut out = columns.render("", ink);
    let _ = writeln!(
        out,
        "USD per hour; each line from its lowest to its highest price, from {} ago on the left to the last price on the right.",
        table::span(span.as_secs_f64())
    );
    out
}

/// The mean of each of [`WIDTH`] equal parts of the time, drawn between the lowest and the highest of them.
fn plot(series: &PriceSeries) -> String {
    let means = means(series);
    let known = || means.iter().flatten().copied();
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let level = |mean: f64| match high - low {
        width if width > 1e-12 => ((mean - low) / width * (LEVELS.len() - 1) as f64).round() as usize,
        _ => LEVELS.len() / 2 - 1,
    };
    means.iter().map(|mean| mean.map_or(NOTHING, |mean| LEVELS[level(mean)])).collect()
}

/// The mean price in each part of the time, weighed by how long each held; `None` before the first.
fn means(series: &PriceSeries) -> Vec<Option<f64>> {
    let PriceSeries { since, until, changes, .. } = series;
    let seconds = |at: Timestamp| at.duration_since(*since).as_secs_f64();
    let part = seconds(*until) / WIDTH as f64;
    let next = |n: usize| changes.get(n + 1).map_or(seconds(*until), |next| seconds(next.at));
    let mean = |index: usize| {
        let (from, to) = (part * index as f64, part * (index + 1) as f64);
        let (mut sum, mut time) = (0.0, 0.0);
        for (n, change) in changes.iter().enumerate() {
            let held = next(n).min(to) - seconds(change.at).max(from);
            if held > 0.0 {
                sum += held * change.usd_per_hour;
                time += held;
            }
        }
        (time > 0.0).then(|| sum / time)
    };
    (0..WIDTH).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Offer, signals::prices::PriceChange};

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_614_643_200 + hour * 3600).unwrap()
    }

    fn series(changes: &[(i64, f64)]) -> PriceSeries {
        PriceSeries {
            backend: "eks".parse().unwrap(),
            instance_type: "p2.16xlarge".into(),
            region: "us-east-1".into(),
            zone: None,
            offer: Offer::Spot,
            source: "file:p.csv".into(),
            since: at(0),
            until: at(WIDTH as i64),
            changes: changes
                .iter()
                .map(|(hour, usd)| PriceChange { at: at(*hour), usd_per_hour: *usd })
                .collect(),
        }
    }

    #[test]
    fn a_price_is_drawn_from_its_lowest_to_its_highest() {
        let line = plot(&series(&[(-5, 4.32), (24, 14.4), (36, 10.0)]));
        assert_eq!(line, "▁".repeat(24) + &"█".repeat(12) + &"▅".repeat(12));
    }

    #[test]
    fn nothing_is_drawn_where_nothing_is_known() {
        assert_eq!(plot(&series(&[(40, 1.0)])), " ".repeat(40) + &"▄".repeat(8));
    }

    #[test]
    fn a_part_shows_the_mean_of_what_held_in_it() {
        let mut short = series(&[(0, 1.0), (1, 3.0)]);
        short.until = at(2 * WIDTH as i64);
        assert_eq!(means(&short)[..2], [Some(2.0), Some(3.0)]);
    }
}
