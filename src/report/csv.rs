//! The report for spreadsheets: a row for each day, route and backend, and one for each day and route. No figure is in two
//! rows, so every column can be summed as it is.

use std::fmt::Write as _;

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// `2026-03-02`.
    pub day: String,
    /// The route.
    pub route: String,
    /// The backend; empty in the row that has what belongs to the route as a whole.
    pub backend: String,
    /// The figures, in the order of [`COLUMNS`]; empty where the row has none.
    pub figures: [Option<f64>; COLUMNS.len()],
}

/// The figures of a row.
pub const COLUMNS: [&str; 13] = [
    "requests",
    "errors",
    "timed",
    "over_slo",
    "requests_usd",
    "unpriced_requests",
    "refused",
    "over_slo_seconds",
    "standby_usd",
    "saved_usd",
    "saved_against_cheapest_usd",
    "doubtful_usd",
    "uncompared_requests",
];

/// The rows with a header.
pub fn text(rows: &[Row]) -> String {
    let mut out = format!("day,route,backend,{}\n", COLUMNS.join(","));
    for row in rows {
        // Names hold no commas and no quotes.
        let _ = write!(out, "{},{},{}", row.day, row.route, row.backend);
        for figure in &row.figures {
            let _ = match figure {
                Some(figure) => write!(out, ",{figure}"),
                None => write!(out, ","),
            };
        }
        out.push('\n');
    }
    out
}
