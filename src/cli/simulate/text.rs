//! A report for people.

use std::fmt::Write as _;

use crate::{
    cli::table::{Align, Cell, Ink, Table},
    simulate::{Report, score::Standing},
};

/// What was simulated, in a line.
pub(super) fn heading(report: &Report) -> String {
    let days = report.seconds / 86_400.0;
    let seeds = match report.seeds.as_slice() {
        [only] => format!("seed {only}"),
        [first, .., last] => format!("seeds {first} to {last}"),
        [] => "no seed".to_owned(),
    };
    format!(
        "Route {}, {days:.1} days from {:.0}, {:.0} requests, {seeds}",
        report.route, report.from, report.requests
    )
}

/// The table, and how to read it.
pub(super) fn page(report: &Report, ink: Ink) -> String {
    let mut out = format!("{}\n\n", ink.strong(&heading(report)));
    let mut table = Table::new(&[
        ("POLICY", Align::Left),
        ("BILLED USD", Align::Right),
        ("AVOIDABLE USD", Align::Right),
        ("TO OPTIMUM", Align::Right),
        ("OVER SLO", Align::Right),
        ("REFUSED", Align::Right),
        ("MOVES/DAY", Align::Right),
        ("FASTEST SHIFT/MIN", Align::Right),
    ]);
    for policy in &report.policies {
        table.row(row(policy, report.requests));
    }
    out.push_str(&table.render("", ink));
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "\nThe best schedule known in hindsight was billed {:.2} USD. OVER SLO and REFUSED are parts of all requests.\n",
        report.optimum_usd
    );
    if report.seeds.len() > 1 {
        let _ = writeln!(out, "± is half the 95% confidence interval over {} seeds.", report.seeds.len());
    }
    for note in &report.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn row(policy: &Standing, requests: f64) -> Vec<Cell> {
    let with = |value: f64, half_width: f64, digits: usize| match half_width {
        0.0 => format!("{value:.digits$}"),
        half_width => format!("{value:.digits$} ±{half_width:.digits$}"),
    };
    let part = |count: f64| {
        let percent = if requests > 0.0 { count / requests * 100.0 } else { 0.0 };
        let text = format!("{percent:.3}%");
        if count >= 0.5 { Cell::bad(text) } else { Cell::from(text) }
    };
    vec![
        policy.name.clone().into(),
        with(policy.usd_billed, policy.ci95.usd_billed, 2).into(),
        with(policy.usd_avoidable, policy.ci95.usd_avoidable, 2).into(),
        with(policy.ratio_to_optimum, policy.ci95.ratio_to_optimum, 4).into(),
        part(policy.over_slo),
        part(policy.refused),
        format!("{:.2}", policy.moves_per_day).into(),
        format!("{:.1}%", policy.fastest_shift_per_minute * 100.0).into(),
    ]
}
