//! `tradewind prices`: what every backend's node costs, who says so, and whether the sources can be asked at all.

mod check;
mod plot;

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::watch, time};

use super::{
    Failure,
    table::{self, Align, Cell, Ink, Table, UNKNOWN},
};
use crate::{
    config::{self, Settings, parse_duration},
    control::PRICES_BLOB,
    model::{Backend, Offer, Timestamp, units::percent},
    signals::prices::{FeedStatus, PriceBook, PriceFeed, PriceReport, ReportState, history},
};

/// How often the table is drawn again: ages go on, and what was fetched meanwhile shows.
const REDRAW: Duration = Duration::from_secs(2);

/// The part of the table's screen that clears it: cursor to the top, then everything below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What every backend's node costs, on demand and spot, who says so, and how old that is
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG", global = true)]
    config: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,

    /// Go on asking as `prices.refresh` says, and draw the table again, until interrupted
    #[arg(long, short, conflicts_with_all = ["json", "history"])]
    watch: bool,

    /// Show how prices went instead, over the last two weeks or another time (`90d` is what AWS remembers)
    #[arg(long, value_name = "SPAN", num_args = 0..=1, default_missing_value = "14d", value_parser = span)]
    history: Option<Duration>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Try every source, say which permission or key is missing, and print what the providers have to allow
    Check,
}

/// Longest time that history is asked for: what AWS keeps, and files rarely hold more than years.
const HISTORY_DAYS_MAX: u64 = 3660;

fn span(text: &str) -> Result<Duration, String> {
    // Days can be more than a duration of the configuration allows.
    if let Some(days) = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok()) {
        return match days {
            1..=HISTORY_DAYS_MAX => Ok(Duration::from_secs(days * 86_400)),
            _ => Err(format!("expected 1d to {HISTORY_DAYS_MAX}d")),
        };
    }
    parse_duration(text).and_then(|span| match span.is_zero() {
        true => Err("expected more than 0".into()),
        false => Ok(span),
    })
}

/// Asks every source of the configuration and prints what it says.
///
/// # Errors
/// The configuration is wrong (`Input`); or a price that some backend's cost depends on could not be had (`Unreachable`; what
/// could is printed all the same).
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let path = args.config.ok_or_else(|| {
        Failure::Input("which configuration? give --config FILE, or set TRADEWIND_CONFIG".into())
    })?;
    let loaded = config::load(&path).map_err(|faults| Failure::Input(faults.to_string()))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let settings = loaded.settings;
    if let Some(Command::Check) = args.command {
        return check::run(&settings, args.json).await;
    }
    if let Some(span) = args.history {
        let found = history(&settings.prices, &settings.backends, span, Timestamp::now()).await;
        let text = if args.json { json(&found)? } else { plot::render(&found, span, Ink::of_stdout()) };
        table::print(&text);
        return match found.series.is_empty() && !found.faults.is_empty() {
            true => Err(Failure::Unreachable(found.faults.join("\n"))),
            false => {
                found.faults.iter().for_each(|fault| eprintln!("{fault}"));
                Ok(())
            }
        };
    }
    let book = Arc::new(Mutex::new(remembered(&settings)));
    let mut feed = PriceFeed::new(&settings.prices, &settings.backends, book.clone(), Timestamp::now());
    if args.watch {
        feed.load_now(Timestamp::now());
        return watch(&settings, feed, &book).await;
    }
    if std::io::stderr().is_terminal() && settings.prices.sources.iter().any(|source| !source.is_file()) {
        eprintln!("asking the providers ...");
    }
    feed.fetch_now(Timestamp::now()).await;
    let shown = Shown::of(&settings, &lock(&book), Timestamp::now());
    let text = if args.json { json(&shown)? } else { shown.render(&settings.backends, Ink::of_stdout()) };
    table::print(&text);
    shown.verdict(&settings.backends)
}

/// The last good prices that a Tradewind with this configuration has left, so that a provider that cannot be asked now is shown
/// with what it said last.
pub(super) fn remembered(settings: &Settings) -> PriceBook {
    let mut book = PriceBook::new(&settings.prices);
    if let Ok(text) = std::fs::read_to_string(settings.state_dir.join(PRICES_BLOB))
        && let Err(why) = book.restore_json(&text, Timestamp::now())
    {
        eprintln!("warning: {PRICES_BLOB}: {why}");
    }
    book
}

async fn watch(settings: &Settings, feed: PriceFeed, book: &Mutex<PriceBook>) -> Result<(), Failure> {
    let (_stop, stopped) = watch::channel(false);
    let following = tokio::spawn(feed.run(stopped));
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let interrupted = tokio::signal::ctrl_c();
    let drawing = async {
        loop {
            let now = Timestamp::now();
            let shown = Shown::of(settings, &lock(book), now);
            let text = shown.render(&settings.backends, Ink::of_stdout());
            table::print(&format!("{clear}{}\n{text}\n", table::moment(now)));
            time::sleep(REDRAW).await;
        }
    };
    tokio::select! {
        _ = interrupted => {}
        () = drawing => {}
    }
    following.abort();
    Ok(())
}

fn lock(book: &Mutex<PriceBook>) -> MutexGuard<'_, PriceBook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Input(format!("the answer cannot be written as JSON: {error}")))?;
    Ok(text + "\n")
}

/// All prices at one moment.
#[derive(Serialize)]
struct Shown {
    at: Timestamp,
    prices: Vec<PriceReport>,
    sources: Vec<FeedStatus>,
}

impl Shown {
    fn of(settings: &Settings, book: &PriceBook, now: Timestamp) -> Shown {
        let prices = settings.backends.iter().flat_map(|backend| book.report(backend, now)).collect();
        Shown { at: now, prices, sources: book.faults() }
    }

    fn price(&self, backend: &Backend, offer: Offer) -> Option<&PriceReport> {
        self.prices.iter().find(|price| price.backend == backend.id && price.offer == offer)
    }

    fn render(&self, backends: &[Arc<Backend>], ink: Ink) -> String {
        let mut columns = Table::new(&[
            ("BACKEND", Align::Left),
            ("MACHINE", Align::Left),
            ("ZONE OR REGION", Align::Left),
            ("ON DEMAND", Align::Right),
            ("SPOT", Align::Right),
            ("DISCOUNT", Align::Right),
            ("SOURCE", Align::Left),
            ("AGE", Align::Right),
            ("STATE", Align::Left),
        ]);
        for backend in backends {
            columns.row(self.row(backend));
        }
        let mut out = columns.render("", ink);
        for backend in backends {
            for offer in [Offer::OnDemand, Offer::Spot] {
                let price = self.price(backend, offer).filter(|_| backend.needs(offer));
                // Why nothing is known is said once for each source, below.
                let price = price.filter(|price| price.state != ReportState::Missing || !self.at_fault());
                if let Some(note) = price.and_then(|price| price.note.as_ref()) {
                    out.push_str(&format!("{}, {offer}: {}\n", backend.id, table::printable(note)));
                }
            }
        }
        for feed in &self.sources {
            if let Some(fault) = &feed.fault {
                out.push_str(&format!("{}\n", ink.bad(&table::printable(fault))));
            }
        }
        out
    }

    fn at_fault(&self) -> bool {
        self.sources.iter().any(|feed| feed.fault.is_some())
    }

    fn row(&self, backend: &Backend) -> [Cell; 9] {
        let hourly = |usd: Option<f64>| usd.map_or(UNKNOWN.into(), |usd| Cell::from(format!("${usd:.4}/h")));
        if let Some(managed) = &backend.managed {
            let price = Cell::from(format!("${:.4}/h", managed.usd_per_replica_hour));
            let place = backend.region.as_str().into();
            let (machine, source) = ("managed replica".into(), "tables or configuration".into());
            let id = backend.id.as_str().into();
            return [id, machine, place, price, "".into(), "".into(), source, "".into(), "".into()];
        }
        let (spot, on_demand) = (self.price(backend, Offer::Spot), self.price(backend, Offer::OnDemand));
        let usd = |price: Option<&PriceReport>| price.and_then(|price| price.usd_per_hour);
        let discount = match (usd(spot), usd(on_demand)) {
            (Some(spot), Some(on_demand)) => percent(1.0 - spot / on_demand),
            _ => UNKNOWN.into(),
        };
        let both = |of: &dyn Fn(&PriceReport) -> String| {
            let (spot, on_demand) = (spot.map(of), on_demand.map(of));
            match (on_demand, spot) {
                (Some(on_demand), Some(spot)) if on_demand != spot => format!("{on_demand}, spot {spot}"),
                (Some(same), _) | (None, Some(same)) => same,
                (None, None) => UNKNOWN.into(),
            }
        };
        let age = |price: &PriceReport| {
            price
                .fetched_at
                .map_or(UNKNOWN.into(), |at| table::span(self.at.duration_since(at).as_secs_f64()))
        };
        let state = both(&|price| price.state.as_str().into());
        let trusted = |price: Option<&PriceReport>| price.is_some_and(|p| p.state == ReportState::Fresh);
        let fine = [(Offer::Spot, spot), (Offer::OnDemand, on_demand)]
            .iter()
            .all(|(offer, price)| !backend.needs(*offer) || trusted(*price));
        let place = spot.and_then(|price| price.zone.as_deref()).unwrap_or(&backend.region);
        [
            backend.id.as_str().into(),
            backend.node.as_ref().map_or(UNKNOWN.into(), |node| Cell::from(node.priced_as())),
            place.into(),
            hourly(usd(on_demand)),
            hourly(usd(spot)),
            discount.into(),
            both(&|price| price.source.as_deref().unwrap_or(UNKNOWN).to_owned()).into(),
            both(&age).into(),
            if fine { state.into() } else { Cell::bad(state) },
        ]
    }

    /// Whether everything that a cost depends on is known.
    fn verdict(&self, backends: &[Arc<Backend>]) -> Result<(), Failure> {
        let missing: Vec<String> = backends
            .iter()
            .flat_map(|backend| [Offer::OnDemand, Offer::Spot].map(|offer| (backend, offer)))
            .filter(|(backend, offer)| {
                let price = self.price(backend, *offer);
                backend.needs(*offer) && price.is_none_or(|price| price.usd_per_hour.is_none())
            })
            .map(|(backend, offer)| format!("no {offer} price of {}", backend.id))
            .collect();
        match missing.as_slice() {
            [] => Ok(()),
            missing => Err(Failure::Unreachable(format!(
                "{}: their cost is unknown; `tradewind prices check` tries each source and says what it lacks",
                missing.join(", ")
            ))),
        }
    }
}
