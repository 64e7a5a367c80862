//! The last good prices as JSON, so that they survive a restart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    PriceBook, PriceKey,
    guard::{Good, plausible},
};
use crate::model::{Backend, Timestamp, UsdPerHour};

/// Changes when the shape below does. A file of another shape is refused, and prices are fetched anew.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    prices: Vec<SavedPrice>,
}

#[derive(Serialize, Deserialize)]
struct SavedPrice {
    #[serde(flatten)]
    key: PriceKey,
    source: Arc<str>,
    usd_per_hour: UsdPerHour,
    observed_at: Timestamp,
    fetched_at: Timestamp,
}

impl PriceBook {
    /// The last good price of everything that `backends` could use. Prices of a replay are left out: after a restart it
    /// begins anew.
    ///
    /// # Errors
    /// None in practice: the value has only names, numbers and times.
    pub fn to_json(&self, backends: &[Arc<Backend>]) -> serde_json::Result<String> {
        let mut prices = Vec::new();
        for (market, slots) in &self.markets {
            let in_use = |backend: &Arc<Backend>| {
                backend.cloud == market.cloud
                    && backend.region == *market.region
                    && backend.node.as_ref().is_some_and(|node| node.priced_as() == *market.instance_type)
            };
            if !backends.iter().any(in_use) {
                continue;
            }
            for (slot, entry) in slots.iter().filter(|(slot, _)| !self.is_replay(&slot.source)) {
                let Some(good) = &entry.good else { continue };
                let key = PriceKey {
                    cloud: market.cloud,
                    region: market.region.clone(),
                    zone: slot.zone.clone(),
                    instance_type: market.instance_type.clone(),
                    offer: market.offer,
                };
                let Good { usd_per_hour, observed_at, fetched_at } = good.clone();
                prices.push(SavedPrice {
                    key,
                    source: slot.source.clone(),
                    usd_per_hour,
                    observed_at,
                    fetched_at,
                });
            }
        }
        serde_json::to_string(&Saved { version: VERSION, prices })
    }

    /// Takes back what [`to_json`](Self::to_json) gave, and says how many prices it used: those of sources that are in the
    /// settings, and that the book does not know better already. Call it before the first fetch.
    ///
    /// # Errors
    /// The text is not what `to_json` writes; the book is unchanged then.
    pub fn restore_json(&mut self, text: &str, now: Timestamp) -> Result<usize, String> {
        let saved: Saved =
            serde_json::from_str(text).map_err(|error| format!("saved prices cannot be read: {error}"))?;
        if saved.version != VERSION {
            return Err(format!("saved prices have version {}, expected {VERSION}", saved.version));
        }
        let mut used = 0;
        for SavedPrice { key, source, usd_per_hour, observed_at, fetched_at } in saved.prices {
            if !self.feeds.iter().any(|feed| feed.source == source) {
                continue;
            }
            // What was damaged on disk, or written before a rule was: as if it had not been there.
            if plausible(usd_per_hour.get()).is_none() {
                continue;
            }
            let entry = self.entry(&key, &source);
            if entry.good.is_none() {
                // A clock that was ahead when this was saved must not keep it fresh for ever.
                entry.good = Some(Good { usd_per_hour, observed_at, fetched_at: fetched_at.min(now) });
                used += 1;
            }
        }
        Ok(used)
    }
}
