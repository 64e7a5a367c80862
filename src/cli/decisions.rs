//! `tradewind decisions`: what was decided, when and why, and what else the journal holds.

use std::{collections::HashSet, time::Duration};

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure,
    admin_client::{AdminArgs, query},
    table::{self, Ink},
};
use crate::{
    config::parse_duration,
    model::{RouteId, Timestamp},
    store::{EntryKind, journal::QUERY_ENTRIES_MAX},
};

/// How often the journal is asked for what is new. Decisions are taken once a second.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// List what was decided and why, oldest first; follow what comes
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Only this route
    #[arg(long)]
    route: Option<RouteId>,

    /// What to list: decision, override, notice, price, health, config, audit, account, state, process, or `all`
    #[arg(long, value_name = "KIND", default_value = "decision")]
    kind: String,

    /// Only what is not older: a time (2026-03-02T10:00:00Z), or how long ago it was ("2h")
    #[arg(long, value_name = "TIME|DURATION", value_parser = since)]
    since: Option<Timestamp>,

    /// Only the last so many, 1000 at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=QUERY_ENTRIES_MAX as i64))]
    limit: u16,

    /// Go on with what comes, until interrupted. While the service is away it is waited for.
    #[arg(long, short)]
    follow: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

/// A time, or a duration before now.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = parse_duration(text).map_err(|_| {
        "expected a time such as 2026-03-02T10:00:00Z, or how long ago it was such as \"2h\"".to_owned()
    })?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Entries {
    decisions: Vec<Value>,
}

/// Asks the admin API and prints the answer, one line an entry; with `--json` each as a JSON object.
///
/// # Errors
/// When the API cannot be reached or refuses.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let listed = args.ask(args.since, args.limit.into()).await?;
    let mut seen = Seen::default();
    let begun = Timestamp::now();
    if listed.is_empty() && !args.follow && !args.admin.json {
        eprintln!(
            "nothing of that kind was journaled in that time: without `--since` and `--route` there may be more"
        );
    }
    args.show(seen.new_ones(listed));
    if !args.follow {
        return Ok(());
    }
    let mut away = false;
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        match args.ask(Some(seen.last.unwrap_or(begun)), QUERY_ENTRIES_MAX).await {
            Ok(listed) => {
                if listed.len() == QUERY_ENTRIES_MAX {
                    eprintln!(
                        "note: more than {QUERY_ENTRIES_MAX} entries at once; those before these are left out"
                    );
                }
                args.show(seen.new_ones(listed));
                away = false;
            }
            Err(Failure::Unreachable(why)) => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("note: {why}; waiting for it");
                }
            }
            Err(refused) => return Err(refused),
        }
    }
}

impl Args {
    /// Entries of the journal, oldest first.
    async fn ask(&self, since: Option<Timestamp>, limit: usize) -> Result<Vec<Value>, Failure> {
        let kind = Some(self.kind.as_str()).filter(|kind| *kind != "all");
        let path = query(
            "/v1/decisions",
            &[
                ("route", self.route.as_ref().map(|route| route.to_string())),
                ("kind", kind.map(str::to_owned)),
                ("since", since.map(|at| at.to_string())),
                ("limit", Some(limit.to_string())),
            ],
        );
        let mut entries = self.admin.call::<Entries>(Method::GET, &path).await?.value.decisions;
        entries.reverse();
        Ok(entries)
    }

    fn show(&self, entries: impl Iterator<Item = Value>) {
        let ink = Ink::of_stdout();
        let lines =
            entries.map(|entry| if self.admin.json { format!("{entry}\n") } else { line(&entry, ink) });
        table::print(&lines.collect::<String>());
    }
}

/// What was shown of the last moment: entries of one moment may come in two answers.
#[derive(Default)]
struct Seen {
    last: Option<Timestamp>,
    then: HashSet<String>,
}

impl Seen {
    fn new_ones(&mut self, entries: Vec<Value>) -> impl Iterator<Item = Value> {
        entries.into_iter().filter(|entry| {
            let Some(at) = time_of(entry) else { return true };
            if self.last.is_none_or(|last| last < at) {
                (self.last, self.then) = (Some(at), HashSet::new());
            }
            self.last != Some(at) || self.then.insert(entry.to_string())
        })
    }
}

fn time_of(entry: &Value) -> Option<Timestamp> {
    entry["at"].as_str()?.parse().ok()
}

/// An entry in one line: when, what, of which route, and what it says.
fn line(entry: &Value, ink: Ink) -> String {
    let at = time_of(entry).map_or_else(|| table::UNKNOWN.to_owned(), table::moment);
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let route = if text("route").is_empty() { "" } else { text("route") };
    let (word, says) = said(entry);
    let moves = text("kind") == kind_name(EntryKind::Decision) && word != "stay";
    let word = if moves { ink.strong(&format!("{word:<9}")) } else { format!("{word:<9}") };
    let route = if route.is_empty() { String::new() } else { format!("{}  ", table::printable(route)) };
    format!("{at}  {word}  {route}{}\n", table::printable(&says))
}

/// What kind of event an entry is, in a word, and what it says.
fn said(entry: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let kind = text(&entry["kind"]);
    let names = |keys: &[&str]| {
        let parts = keys.iter().filter(|key| !entry[**key].is_null());
        parts
            .map(|key| format!("{} {}", key.replace('_', " "), text(&entry[*key])))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match kind.as_str() {
        "decision" => (text(&entry["action"]), text(&entry["summary"])),
        "override" => {
            let order = &entry["override"];
            let of = |key: &str| order[key].as_str().unwrap_or("all").to_owned();
            let says = format!(
                "{} {} on {} by {}: {} ({})",
                of("kind"),
                of("backend"),
                of("route"),
                of("author"),
                of("reason"),
                of("id")
            );
            (text(&entry["event"]), says)
        }
        _ => {
            let rest = entry.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
            let rest: Vec<&str> = rest.filter(|key| !matches!(*key, "at" | "kind" | "route")).collect();
            (kind, names(&rest))
        }
    }
}

fn kind_name(kind: EntryKind) -> String {
    serde_json::to_value(kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_a_line() {
        let entries = [
            json!({ "at": "2026-03-02T10:00:00.5Z", "kind": "decision", "route": "chat", "action": "shift", "summary": "gke 100%: cheaper.", "decision": {} }),
            json!({ "at": "2026-03-02T10:00:01Z", "kind": "override", "event": "added", "author": "oncall",
                "override": { "id": "o-1", "kind": "drain", "backend": "eks", "author": "oncall", "reason": "an\nincident" } }),
            json!({ "at": "2026-03-02T10:00:02Z", "kind": "health", "backend": "eks", "health": "unhealthy", "why": null }),
        ];
        let lines: String = entries.iter().map(|entry| line(entry, Ink::Plain)).collect();
        insta::assert_snapshot!(lines, @r"
        2026-03-02 10:00:00Z  shift      chat  gke 100%: cheaper.
        2026-03-02 10:00:01Z  added      drain eks on all by oncall: an�incident (o-1)
        2026-03-02 10:00:02Z  health     backend eks, health unhealthy
        ");
    }

    #[test]
    fn nothing_is_shown_twice_and_nothing_is_missed() {
        let entry =
            |second: u8, what: &str| json!({ "at": format!("2026-03-02T10:00:0{second}Z"), "what": what });
        let mut seen = Seen::default();
        let mut shown = |entries: &[Value]| seen.new_ones(entries.to_vec()).count();
        assert_eq!(shown(&[entry(1, "a"), entry(2, "b")]), 2);
        assert_eq!(shown(&[entry(2, "b"), entry(2, "c")]), 1);
        assert_eq!(shown(&[entry(2, "b"), entry(2, "c"), entry(3, "b")]), 1);
        assert_eq!(shown(&[entry(3, "b")]), 0);
    }

    #[test]
    fn times_are_moments_or_spans() {
        assert_eq!(since("2026-03-02T10:00:00Z").unwrap().to_string(), "2026-03-02T10:00:00Z");
        let ago = Timestamp::now().duration_since(since("2h").unwrap()).as_secs();
        assert!((7199..7300).contains(&ago), "{ago}");
        assert!(since("yesterday").is_err());
    }
}
