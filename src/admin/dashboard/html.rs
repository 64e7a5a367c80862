//! Pieces of pages.

use std::fmt::{Display, Write as _};

use crate::{
    chart::{COLOURS, escaped},
    model::words,
};

/// Stands where something is not known: never a number.
pub(super) const UNKNOWN: &str = "n/a";

/// So many colours there are before they repeat.
pub(super) const COLOURS_COUNT: usize = COLOURS.len();

/// A column of a table: its name, and whether it holds numbers.
pub(super) type Column<'a> = (&'a str, bool);

/// A table of cells that are HTML already. `caption` is what a screen reader says first.
pub(super) fn table(
    out: &mut String,
    caption: &str,
    columns: &[Column<'_>],
    rows: impl IntoIterator<Item = Vec<String>>,
) {
    let caption = escaped(caption);
    // Writing to a String cannot fail, here and below. It can have the focus, so that the keyboard scrolls it.
    let _ = write!(
        out,
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table aria-label=\"{caption}\"><thead><tr>"
    );
    for (name, number) in columns {
        let class = if *number { " class=\"n\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{name}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for cells in rows {
        out.push_str("<tr>");
        for ((name, number), cell) in columns.iter().zip(cells) {
            let class = if *number {
                " class=\"n\""
            } else if *name == "Why" {
                " class=\"why\""
            } else {
                ""
            };
            let _ = write!(out, "<td{class}>{cell}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

/// Text of others, made harmless.
pub(super) fn text(of: impl Display) -> String {
    escaped(&of.to_string())
}

/// What is wrong, in words and in colour.
pub(super) fn bad(of: impl Display) -> String {
    format!("<span class=\"bad\">{}</span>", text(of))
}

/// A number, or that it is not known.
pub(super) fn or_unknown(value: Option<f64>, shown: impl FnOnce(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| text(shown(value)))
}

/// An amount, or that it is not known.
pub(super) fn usd(value: Option<f64>) -> String {
    or_unknown(value, words::usd)
}

/// How long ago, or that it is not known.
pub(super) fn ago(seconds: Option<f64>) -> String {
    or_unknown(seconds, |seconds| format!("{} ago", words::span(seconds)))
}

/// The colour of a backend by its place in the route.
pub(super) fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

/// A name with its colour before it.
pub(super) fn keyed(place: usize, name: impl Display) -> String {
    format!(
        "<svg class=\"key\" viewBox=\"0 0 1 1\" aria-hidden=\"true\"><rect width=\"1\" height=\"1\" fill=\"{}\"/></svg>&nbsp;{}",
        colour(place),
        text(name)
    )
}

/// A part of an address after `?`.
pub(super) fn in_query(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}
