//! What a node cost in the past, as far as a source remembers it.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use super::{
    FeedFault, FileSource, PriceKey, PriceSettings, PriceSource, Quote, Want, aws::AwsPrices,
    guard::plausible, view::serves,
};
use crate::model::{Backend, BackendId, Cloud, Offer, Timestamp};

/// One price over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceSeries {
    /// Whose node.
    pub backend: BackendId,
    /// The machine.
    pub instance_type: Arc<str>,
    /// The provider's region.
    pub region: Arc<str>,
    /// The zone; `None` if the price holds for the region.
    pub zone: Option<Arc<str>>,
    /// The terms.
    pub offer: Offer,
    /// Who says so.
    pub source: Arc<str>,
    /// The moment from which it was asked for.
    pub since: Timestamp,
    /// The moment until which it was; of a replay, the recorded one at which it starts.
    pub until: Timestamp,
    /// Changes, oldest first; never empty. The first may have been before `since`, and held then.
    pub changes: Vec<PriceChange>,
}

/// The price from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PriceChange {
    /// The moment.
    pub at: Timestamp,
    /// US dollars for an hour.
    pub usd_per_hour: f64,
}

/// What was found, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PriceHistory {
    /// One for each price of each backend.
    pub series: Vec<PriceSeries>,
    /// What could not be had, a sentence each.
    pub faults: Vec<String>,
}

/// The prices that `backends` had to pay in the time `span` before `now`, from every source that remembers any. For a replay,
/// before the recorded moment at which it starts. Blocks while files are read.
///
/// AWS remembers spot prices of about 90 days; Google Cloud and AWS's Price List say only what holds now.
pub async fn history(
    settings: &PriceSettings,
    backends: &[Arc<Backend>],
    span: Duration,
    now: Timestamp,
) -> PriceHistory {
    let mut found = PriceHistory::default();
    for source in &settings.sources {
        match source {
            PriceSource::File { .. } => of_file(source, settings, backends, span, now, &mut found),
            PriceSource::Aws(aws) => {
                of_aws(&source.name(), &AwsPrices::new(aws), backends, span, now, &mut found).await;
            }
            PriceSource::Gcp(_) if backends.iter().any(|b| b.cloud == Cloud::Gcp && b.node.is_some()) => {
                found
                    .faults
                    .push("gcp: the Catalog says only what holds now; keep a price file for history".into());
            }
            PriceSource::Gcp(_) => {}
        }
    }
    found
}

fn of_file(
    source: &PriceSource,
    settings: &PriceSettings,
    backends: &[Arc<Backend>],
    span: Duration,
    now: Timestamp,
    found: &mut PriceHistory,
) {
    let Some(file) = FileSource::new(source, settings.refresh, now) else { return };
    let until = file.virtual_time(now);
    let time = (until.checked_sub(span).unwrap_or(Timestamp::MIN), until);
    match file.between(time.0, time.1) {
        Ok(quotes) => add(&source.name(), backends, quotes, time, found),
        Err(FeedFault(fault)) => found.faults.push(fault),
    }
}

async fn of_aws(
    source: &Arc<str>,
    aws: &AwsPrices,
    backends: &[Arc<Backend>],
    span: Duration,
    now: Timestamp,
    found: &mut PriceHistory,
) {
    let since = now.checked_sub(span).unwrap_or(Timestamp::MIN);
    let mut quotes = Vec::new();
    for want in Want::of(backends, Cloud::Aws) {
        match aws.spot_history(&want, since, now).await {
            Ok(of_want) => quotes.extend(of_want),
            Err(FeedFault(fault)) if found.faults.contains(&fault) => {}
            Err(FeedFault(fault)) => found.faults.push(fault),
        }
    }
    add(source, backends, quotes, (since, now), found);
}

/// Sorts quotes, oldest first for each key, into the series of the backends that pay them.
fn add(
    source: &Arc<str>,
    backends: &[Arc<Backend>],
    quotes: Vec<Quote>,
    (since, until): (Timestamp, Timestamp),
    found: &mut PriceHistory,
) {
    for backend in backends {
        let mut series: Vec<(&PriceKey, Vec<PriceChange>)> = Vec::new();
        for quote in quotes.iter().filter(|quote| pays(backend, &quote.key)) {
            // What is no price is left out here, as it is held back when it comes.
            let Some(usd) = plausible(quote.usd_per_hour) else { continue };
            let change = PriceChange { at: quote.at, usd_per_hour: usd.get() };
            match series.iter_mut().find(|(key, _)| **key == quote.key) {
                Some((_, changes)) => changes.push(change),
                None => series.push((&quote.key, vec![change])),
            }
        }
        series.sort_by_key(|(key, _)| (key.offer, key.zone.clone()));
        found.series.extend(series.into_iter().map(|(key, changes)| PriceSeries {
            backend: backend.id.clone(),
            instance_type: key.instance_type.clone(),
            region: key.region.clone(),
            zone: key.zone.clone(),
            offer: key.offer,
            source: source.clone(),
            since,
            until,
            changes,
        }));
    }
}

fn pays(backend: &Backend, key: &PriceKey) -> bool {
    let machine = backend.node.as_ref().is_some_and(|node| node.priced_as() == *key.instance_type);
    machine
        && backend.cloud == key.cloud
        && backend.region == *key.region
        && serves(backend, key.zone.as_deref())
}
