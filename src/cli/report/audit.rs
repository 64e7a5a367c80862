//! `tradewind report --audit`: who changed what, what was refused, and whether the chain is whole.

use serde_json::{Value, json};

use super::{Failure, Source};
use crate::{
    cli::table::{self, Align, Ink, Table, UNKNOWN},
    model::Timestamp,
    store::{EntryKind, audit::Chain, journal::archive::Line},
};

/// Follows the whole chain, and prints the entries of the period.
///
/// # Errors
/// A journal that cannot be read, or a chain that is broken.
pub(super) fn run(source: &Source, as_json: bool) -> Result<(), Failure> {
    let (since, until) = source.period(Timestamp::now())?;
    let (mut chain, mut shown, mut faults) = (Chain::default(), Vec::new(), Vec::new());
    source.each(|line| match line {
        Line::Entry(entry) if entry.kind == EntryKind::Audit => {
            let at = entry.at;
            let written = json!(*entry);
            if let Err(why) = chain.take(&written) {
                faults.push(format!("the entry of {at}: {why}"));
            }
            if (since..=until).contains(&at) {
                shown.push(written);
            }
        }
        Line::Damaged { place, why } => faults.push(format!("{place}: this line is damaged: {why}")),
        Line::Entry(_) | Line::Unfinished => {}
    })?;
    let last = chain.last().unwrap_or(UNKNOWN);
    if as_json {
        let outcome =
            json!({ "entries": shown, "whole": faults.is_empty(), "faults": faults, "last_hash": last });
        table::print(&format!("{outcome:#}\n"));
    } else {
        table::print(&render(&shown, Ink::of_stdout()));
        println!("\nlast hash: {last}");
    }
    match faults.as_slice() {
        [] => Ok(()),
        faults => Err(Failure::Input(format!("the chain is broken:\n  {}", faults.join("\n  ")))),
    }
}

fn render(entries: &[Value], ink: Ink) -> String {
    let mut columns = Table::new(&[
        ("WHEN", Align::Left),
        ("WHO", Align::Left),
        ("WHAT", Align::Left),
        ("OUTCOME", Align::Left),
        ("ABOUT", Align::Left),
        ("WHY", Align::Left),
    ]);
    for entry in entries {
        let text =
            |key: &str| entry[key].as_str().filter(|text| !text.is_empty()).unwrap_or(UNKNOWN).to_owned();
        let at = text("at").parse().map_or_else(|_| text("at"), table::moment);
        let about = match (&entry["after"], &entry["before"]) {
            (Value::Null, Value::Null) => text("from"),
            (Value::Null, item) | (item, _) => about(item),
        };
        let cells = [at, text("author"), text("event"), text("outcome"), about, text("why")];
        columns.row(cells.map(Into::into));
    }
    columns.render("", ink)
}

/// What a change is about, in a few words.
fn about(item: &Value) -> String {
    let word = |key: &str| item[key].as_str().map(str::to_owned);
    if let Some(generation) = item["generation"].as_u64() {
        let changed =
            item["changed"].as_array().into_iter().flatten().filter_map(|change| change["key"].as_str());
        let keys: Vec<&str> = changed.collect();
        return format!(
            "configuration {generation}: {}",
            if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
        );
    }
    let parts = [word("id"), word("kind"), word("backend"), word("route").map(|route| format!("on {route}"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
