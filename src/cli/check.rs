//! `tradewind check`: all that is wrong with a configuration.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::Failure;
use crate::{
    config::{self, Settings},
    model::Timestamp,
    signals::prices::{PriceBook, PriceFeed},
};

/// Options of `tradewind check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,
}

/// Checks the file and all files that it names, prices included.
///
/// # Errors
/// All that is wrong, with file, line, column and a hint.
pub async fn run(args: Args) -> Result<(), Failure> {
    let loaded = config::load(&args.config).map_err(|faults| Failure::Input(faults.to_string()))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    check_prices(&loaded.settings)?;
    let (routes, backends) = (loaded.settings.routes.len(), loaded.settings.backends.len());
    println!("{}: valid; routes: {routes}, backends: {backends}", args.config.display());
    Ok(())
}

/// Reads every source of prices once. A running service goes on with a source that fails; here it is a fault.
fn check_prices(settings: &Settings) -> Result<(), Failure> {
    let now = Timestamp::now();
    let book = Arc::new(Mutex::new(PriceBook::new(&settings.prices)));
    PriceFeed::new(&settings.prices, &settings.backends, book.clone(), now).load_now(now);
    let book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let faults: Vec<String> = book
        .faults()
        .into_iter()
        .filter_map(|feed| feed.fault.map(|fault| format!("error: {fault}")))
        .collect();
    if !faults.is_empty() {
        return Err(Failure::Input(faults.join("\n")));
    }
    for backend in &settings.backends {
        // What a provider says is known only when it is asked: that is what `tradewind prices check` is for.
        if settings.prices.sources.iter().any(|source| source.asks(backend.cloud)) {
            continue;
        }
        for price in book.report(backend, now).iter().filter(|price| backend.needs(price.offer)) {
            if price.usd_per_hour.is_none() {
                let (note, offer) = (price.note.as_deref().unwrap_or("it is missing"), price.offer.as_str());
                eprintln!(
                    "warning: backend `{}` has no {offer} price, so its cost is unknown and nothing moves there for money: \
                     {note}",
                    backend.id
                );
            }
        }
    }
    Ok(())
}
