//! `tradewind replay`: every journaled decision made again, from what it was made from.

use std::fmt::Write as _;

use super::{
    Failure,
    report::{Source, UNFINISHED},
    table,
};
use crate::{
    model::Timestamp,
    record,
    report::replay::{Outcome, Replay},
    store::{EntryKind, journal::archive::Line},
};

/// Make every journaled decision again, and say which come out differently
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,

    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

/// Makes the decisions again.
///
/// # Errors
/// A wrong configuration or option, a journal that cannot be read, a decision that comes out differently.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let (since, until) = args.source.period(Timestamp::now())?;
    let only = args.source.route.as_ref();
    let mut replay = Replay::new(record::code_version());
    let mut damaged: Vec<String> = Vec::new();
    let unfinished = args.source.each(|line| match line {
        Line::Entry(entry) if entry.kind == EntryKind::Decision => {
            let (Some(route), Some(body)) = (&entry.route, entry.body.as_object()) else { return };
            if (since..=until).contains(&entry.at) && only.is_none_or(|only| only == route) {
                replay.take(entry.at, route, body);
            }
        }
        Line::Damaged { place, why } => {
            damaged.push(format!("{place}: this line is damaged and left out: {why}"))
        }
        Line::Entry(_) | Line::Unfinished => {}
    })?;
    damaged.extend(unfinished.then(|| UNFINISHED.to_owned()));
    damaged.iter().for_each(|what| eprintln!("note: {}", table::printable(what)));
    let outcome = replay.finish();
    let text = render(&outcome);
    if args.json {
        let json = serde_json::to_string_pretty(&outcome)
            .map_err(|error| Failure::Input(format!("the outcome cannot be written as JSON: {error}")))?;
        table::print(&format!("{json}\n"));
    } else {
        table::print(&text);
    }
    match outcome.different {
        0 => Ok(()),
        different => Err(Failure::Input(format!(
            "{different} of {} decisions come out differently",
            outcome.decisions
        ))),
    }
}

fn render(outcome: &Outcome) -> String {
    let mut out = String::new();
    for of in &outcome.differences {
        let code = of.code.as_deref().map_or(String::new(), |code| format!(", made by {code}"));
        let _ = writeln!(out, "{} {}{}", of.at, of.route, table::printable(&code));
        for field in &of.fields {
            let (old, new) = (field.journaled.to_string(), field.replayed.to_string());
            let _ =
                writeln!(out, "  {}: {} -> {}", field.field, table::printable(&old), table::printable(&new));
        }
    }
    let hidden = outcome.different - outcome.differences.len() as u64;
    if hidden > 0 {
        let _ = writeln!(out, "and {hidden} more that come out differently");
    }
    for (code, count) in &outcome.other_code {
        let _ = writeln!(
            out,
            "{count} decisions were made by another version of the code, {}",
            table::printable(code)
        );
    }
    for (why, count) in &outcome.skipped {
        let _ = writeln!(out, "{count} decisions cannot be made again: {}", table::printable(why));
    }
    if outcome.decisions == 0 {
        out.push_str("no decisions of this period to make again\n");
    } else if outcome.all_the_same() {
        let _ = writeln!(out, "{} decisions, all the same", outcome.decisions);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::report::replay::{Difference, Field};

    #[test]
    fn what_differs_is_said_field_by_field() {
        let field = |field: &str, old, new| Field { field: field.into(), journaled: old, replayed: new };
        insta::assert_snapshot!(render(&Outcome::default()), @"no decisions of this period to make again");
        let mut outcome = Outcome { decisions: 12, ..Outcome::default() };
        insta::assert_snapshot!(render(&outcome), @"12 decisions, all the same");
        outcome.different = 1;
        outcome.differences.push(Difference {
            at: "2026-03-02T10:00:00Z".parse().unwrap(),
            route: "chat".parse().unwrap(),
            code: Some("0.0.9".into()),
            fields: vec![
                field("/action", json!("stay"), json!("shift")),
                field("/backends/0/share", json!(1.0), json!(0.9)),
            ],
        });
        outcome.other_code = BTreeMap::from([("0.0.9".into(), 12)]);
        outcome.skipped = BTreeMap::from([("it was written before".into(), 2)]);
        insta::assert_snapshot!(render(&outcome), @r#"
        2026-03-02T10:00:00Z chat, made by 0.0.9
          /action: "stay" -> "shift"
          /backends/0/share: 1.0 -> 0.9
        12 decisions were made by another version of the code, 0.0.9
        2 decisions cannot be made again: it was written before
        "#);
    }
}
