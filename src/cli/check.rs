//! `tradewind check`: all that is wrong with a configuration.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use super::{Failure, table};
use crate::{
    config::{self, Fault, Faults, Settings},
    model::Timestamp,
    signals::prices::{PriceBook, PriceFeed},
};

/// Options of `tradewind check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,

    /// The outcome as JSON: whether it is valid, and every fault with file, line, column and severity
    #[arg(long)]
    json: bool,
}

/// What a check found, for programs.
#[derive(Serialize)]
struct Outcome<'a> {
    valid: bool,
    /// Of the files of the configuration.
    faults: &'a [Fault],
    /// Faults beyond those listed.
    omitted: usize,
    /// Of sources of prices.
    price_faults: &'a [String],
    warnings: &'a [String],
}

/// Checks the file and all files that it names, prices included.
///
/// # Errors
/// All that is wrong, with file, line, column and a hint.
pub async fn run(args: Args) -> Result<(), Failure> {
    let (faults, settings) = match config::load(&args.config) {
        Ok(loaded) => (Faults { faults: loaded.warnings, omitted: 0 }, Some(loaded.settings)),
        Err(faults) => (faults, None),
    };
    let (price_faults, warnings) = settings.as_ref().map(check_prices).unwrap_or_default();
    let valid = settings.is_some() && price_faults.is_empty();
    if args.json {
        let Faults { faults, omitted } = &faults;
        let outcome =
            Outcome { valid, faults, omitted: *omitted, price_faults: &price_faults, warnings: &warnings };
        table::print(&format!("{:#}\n", serde_json::json!(outcome)));
        return if valid { Ok(()) } else { Err(Failure::Input("the configuration has faults".into())) };
    }
    let Some(settings) = settings else { return Err(Failure::Input(faults.to_string())) };
    faults.faults.iter().for_each(|warning| eprintln!("{warning}"));
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    if !price_faults.is_empty() {
        let lines: Vec<String> = price_faults.iter().map(|fault| format!("error: {fault}")).collect();
        return Err(Failure::Input(lines.join("\n")));
    }
    let (routes, backends) = (settings.routes.len(), settings.backends.len());
    println!("{}: valid; routes: {routes}, backends: {backends}", args.config.display());
    Ok(())
}

/// Reads every source of prices once; gives what is wrong with them, and what is odd. A running service goes on with a source
/// that fails; here it is a fault.
fn check_prices(settings: &Settings) -> (Vec<String>, Vec<String>) {
    let now = Timestamp::now();
    let book = Arc::new(Mutex::new(PriceBook::new(&settings.prices)));
    PriceFeed::new(&settings.prices, &settings.backends, book.clone(), now).load_now(now);
    let book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let faults: Vec<String> =
        book.faults().into_iter().filter_map(|feed| feed.fault.map(|fault| fault.to_string())).collect();
    let mut warnings = Vec::new();
    for backend in settings.backends.iter().filter(|_| faults.is_empty()) {
        // What a provider says is known only when it is asked: that is what `tradewind prices check` is for.
        if settings.prices.sources.iter().any(|source| source.asks(backend.cloud)) {
            continue;
        }
        for price in book.report(backend, now).iter().filter(|price| backend.needs(price.offer)) {
            if price.usd_per_hour.is_none() {
                let (note, offer) = (price.note.as_deref().unwrap_or("it is missing"), price.offer.as_str());
                warnings.push(format!(
                    "backend `{}` has no {offer} price, so its cost is unknown and nothing moves there for money: {note}",
                    backend.id
                ));
            }
        }
    }
    (faults, warnings)
}
