//! `tradewind report`: what was spent, saved and moved, from the journal. [`replay`](super::replay) reads the same.

mod audit;
mod text;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Failure,
    table::{self, Ink},
};
use crate::{
    config,
    model::{RouteId, Timestamp},
    report::{Gathering, csv, html},
    store::{
        EntryKind, JournalEntry,
        journal::archive::{Archive, Line},
    },
};

/// The period without `--since`, in seconds: 30 days.
const PERIOD_SECONDS: i64 = 30 * 86_400;

/// Which part of which journal is read.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Source {
    /// Configuration file, whose state directory has the journal
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: Option<PathBuf>,

    /// The journal itself, or the state directory it is in: of a running service or a copy
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    journal: Option<PathBuf>,

    /// Beginning of the period: a time (2026-03-02T00:00:00Z), a day (2026-03-02, UTC) or how long ago (24h)
    /// [default: 30 days before the end]
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,

    /// End of the period [default: now]
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,

    /// Only this route
    #[arg(long, value_name = "NAME")]
    pub(super) route: Option<RouteId>,
}

/// What was spent, saved and moved, from the journal
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,

    /// Everything as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// By day, route and backend, for spreadsheets
    #[arg(long)]
    csv: bool,

    /// Who changed what and what was refused, in place of the report; and whether the chain of these entries is whole
    #[arg(long, conflicts_with_all = ["csv", "html"])]
    audit: bool,

    /// Also write one page with plots, which needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Adds up the journal, and shows it.
///
/// # Errors
/// A wrong configuration or option, a journal that cannot be read, a page that cannot be written.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.audit {
        return audit::run(&args.source, args.json);
    }
    let (since, until) = args.source.period(Timestamp::now())?;
    let mut gathering = Gathering::new(since, until, args.source.route.clone());
    let unfinished = args.source.each(|line| match line {
        Line::Entry(entry) => {
            let JournalEntry { at, kind, route, body } = *entry;
            let Some(body) = body.as_object() else { return };
            gathering.take(at, name(kind), route.as_ref(), body);
        }
        Line::Damaged { place, why } => gathering.damaged(&place, &why),
        Line::Unfinished => {}
    })?;
    if unfinished {
        gathering.note(UNFINISHED.into());
    }
    let report = gathering.finish();
    if let Some(path) = &args.html {
        let failed = |error| Failure::Input(format!("--html: {} cannot be written: {error}", path.display()));
        fs::write(path, html::page(&report)).map_err(failed)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Input(format!("the report cannot be written as JSON: {error}")))?;
        table::print(&format!("{json}\n"));
    } else if args.csv {
        // What would not fit a spreadsheet must not be hidden either.
        report.notes.iter().for_each(|note| eprintln!("note: {}", table::printable(note)));
        table::print(&csv::text(&report.rows));
    } else {
        table::print(&text::page(&report, Ink::of_stdout()));
    }
    Ok(())
}

/// What is said of a last line without an end.
pub(super) const UNFINISHED: &str =
    "the last line has no end and is left out: it is being written, or a crash cut it short";

/// A kind as the journal spells it.
fn name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Decision => "decision",
        EntryKind::Account => "account",
        EntryKind::Override => "override",
        EntryKind::Config => "config",
        EntryKind::Price => "price",
        EntryKind::Health => "health",
        EntryKind::Notice => "notice",
        EntryKind::State => "state",
        EntryKind::Process => "process",
        EntryKind::Audit => "audit",
    }
}

impl Source {
    /// The beginning and the end.
    pub(super) fn period(&self, now: Timestamp) -> Result<(Timestamp, Timestamp), Failure> {
        let at = |name: &str, text: &Option<String>| match text {
            Some(text) => when(text, now).map(Some).map_err(|why| Failure::Input(format!("--{name}: {why}"))),
            None => Ok(None),
        };
        let until = at("until", &self.until)?.unwrap_or(now);
        let default = || until.checked_sub(jiff::SignedDuration::from_secs(PERIOD_SECONDS)).unwrap_or(until);
        let since = at("since", &self.since)?.unwrap_or_else(default);
        if since > until {
            return Err(Failure::Input(format!("--since: {since} is after the end of the period, {until}")));
        }
        Ok((since, until))
    }

    /// Every line of the journal, oldest first; says whether the last one has no end. A route that nobody knows is refused.
    pub(super) fn each(&self, mut take: impl FnMut(Line)) -> Result<bool, Failure> {
        let (dir, mut known) = self.find()?;
        let refused = |error: crate::store::StoreError| Failure::Input(error.to_string());
        let mut unfinished = false;
        for line in Archive::open(&dir).map_err(refused)? {
            let line = line.map_err(refused)?;
            unfinished |= matches!(line, Line::Unfinished);
            if let Line::Entry(entry) = &line
                && let Some(route) = entry.route.as_ref().filter(|route| !known.contains(*route))
            {
                known.insert(route.clone());
            }
            take(line);
        }
        self.check_route(&known)?;
        Ok(unfinished)
    }

    /// Refuses a route that neither the configuration nor any entry of the journal has.
    fn check_route(&self, known: &BTreeSet<RouteId>) -> Result<(), Failure> {
        let Some(route) = self.route.as_ref().filter(|route| !known.contains(*route)) else { return Ok(()) };
        let asked = if self.journal.is_some() { "the journal has" } else { "configuration and journal have" };
        let names = || known.iter().map(|route| route.as_str());
        let meant = match config::closest(route.as_str(), names()) {
            Some(meant) => format!("did you mean `{meant}`? "),
            None => String::new(),
        };
        let listed = if known.is_empty() { "none".into() } else { names().collect::<Vec<_>>().join(", ") };
        Err(Failure::Input(format!("--route: {asked} no route `{route}`; {meant}known: {listed}")))
    }

    /// The directory with the lines, and the routes that are configured.
    fn find(&self) -> Result<(PathBuf, BTreeSet<RouteId>), Failure> {
        let within = |dir: &Path| dir.join("journal");
        let mut routes = BTreeSet::new();
        let (dir, said) = match (&self.journal, &self.config) {
            (Some(dir), _) if within(dir).is_dir() => (within(dir), "--journal"),
            (Some(dir), _) => (dir.clone(), "--journal"),
            (None, Some(path)) => {
                let loaded = config::load(path).map_err(|faults| Failure::Input(faults.to_string()))?;
                routes.extend(loaded.settings.routes.iter().map(|route| route.id.clone()));
                (within(&loaded.settings.state_dir), "its configuration")
            }
            (None, None) => {
                let text = "no journal is named: give `--config FILE`, whose state directory has it, or `--journal DIR`";
                return Err(Failure::Input(text.into()));
            }
        };
        if dir.is_dir() {
            return Ok((dir, routes));
        }
        Err(Failure::Input(format!(
            "{}: there is no journal ({said} names this directory): it is made when `tradewind run` starts",
            dir.display()
        )))
    }
}

/// A moment, a day or a time before now.
fn when(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(at) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(at);
    }
    let ago = config::parse_duration(text).map_err(|_| {
        format!("`{text}` is no time: expected 2026-03-02T00:00:00Z, a day such as 2026-03-02, or how long ago, such as 24h")
    })?;
    now.checked_sub(ago).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_at_a_time_a_day_or_some_time_ago() {
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-03-01T06:00:00Z", "2026-03-01T06:00:00Z"),
            ("2026-03-01", "2026-03-01T00:00:00Z"),
            ("24h", "2026-03-01T12:00:00Z"),
        ] {
            assert_eq!(when(text, now).unwrap().to_string(), expected);
        }
        assert!(when("yesterday", now).unwrap_err().contains("how long ago"));
        let all = Source { config: None, journal: None, since: None, until: None, route: None };
        assert_eq!(all.period(now).unwrap().0.to_string(), "2026-01-31T12:00:00Z");
        let wrong = Source { since: Some("2027-01-01".into()), ..all };
        assert!(wrong.period(now).is_err());
    }
}
