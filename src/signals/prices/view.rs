//! What a backend's node costs, out of the book.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    PriceBook,
    book::{Entry, Market, Slot},
    guard::Good,
};
use crate::model::{Backend, BackendId, Node, Offer, Price, PriceState, Timestamp, UsdPerHour, ZonePrice};

/// One price in use, or missing, for people and for `GET /v1/prices`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PriceReport {
    /// Whose node.
    pub backend: BackendId,
    /// The machine.
    pub instance_type: String,
    /// The provider's region.
    pub region: String,
    /// The zone whose price is in use; `None` if it holds for the region, or none is known.
    #[schema(value_type = Option<String>)]
    pub zone: Option<Arc<str>>,
    /// The terms.
    pub offer: Offer,
    /// The price; `None` if missing.
    pub usd_per_hour: Option<f64>,
    /// Who says so.
    #[schema(value_type = Option<String>)]
    pub source: Option<Arc<str>>,
    /// From when the provider charges it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub observed_at: Option<Timestamp>,
    /// When the source last confirmed it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fetched_at: Option<Timestamp>,
    /// How far it can be trusted.
    pub state: ReportState,
    /// Why, in words; `None` where nothing is unusual.
    #[schema(value_type = Option<String>)]
    pub note: Option<Arc<str>>,
}

/// The state of a price in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// Its source confirmed it recently.
    Fresh,
    /// Its source has been silent for too long, and there is nothing better.
    Stale,
    /// Its source now says something implausible; this is the last plausible price.
    Held,
    /// The spot price is stale; this is the on-demand price in its place.
    Fallback,
    /// No price is known.
    Missing,
}

impl ReportState {
    /// As metrics and the API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportState::Fresh => "fresh",
            ReportState::Stale => "stale",
            ReportState::Held => "held",
            ReportState::Fallback => "fallback",
            ReportState::Missing => "missing",
        }
    }
}

impl From<PriceState> for ReportState {
    fn from(state: PriceState) -> ReportState {
        match state {
            PriceState::Fresh => ReportState::Fresh,
            PriceState::Stale => ReportState::Stale,
            PriceState::Held => ReportState::Held,
            PriceState::Fallback => ReportState::Fallback,
        }
    }
}

/// A price, and the zone it is from.
#[derive(Clone, Debug)]
struct InUse {
    zone: Option<Arc<str>>,
    price: Price,
}

/// One entry of the book as a candidate.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    slot: &'a Slot,
    entry: &'a Entry,
    good: &'a Good,
    stale: bool,
    /// Place of its source in the settings.
    rank: usize,
}

impl Candidate<'_> {
    fn usd(&self) -> f64 {
        self.good.usd_per_hour.get()
    }
}

impl PriceBook {
    /// What a spot node and an on-demand node of `backend` cost at `now`; `None` if never known.
    ///
    /// - Of several zones, those that the backend names or all of its region if it names none, the cheapest, the mean or the
    ///   dearest counts, as its `zone_price` says; a price for the whole region takes part too. A zone whose price is stale
    ///   counts only if all are.
    /// - A spot price that is stale gives way to the on-demand price (state `fallback`), unless that would make the
    ///   backend cheaper: silence must not attract traffic.
    /// - A spot price above the on-demand price is believed (it happens), and the note says so.
    pub fn view(&self, backend: &Backend, now: Timestamp) -> (Option<Price>, Option<Price>) {
        let (spot, on_demand) = self.in_use(backend, now);
        (spot.map(|found| found.price), on_demand.map(|found| found.price))
    }

    /// Both prices of `backend` at `now`, with what is missing. Empty for a backend without a node: none is looked for.
    pub fn report(&self, backend: &Backend, now: Timestamp) -> Vec<PriceReport> {
        let Some(node) = &backend.node else { return Vec::new() };
        let (spot, on_demand) = self.in_use(backend, now);
        let line = |offer: Offer, found: Option<InUse>| {
            let (zone, price) = found.map_or((None, None), |found| (found.zone, Some(found.price)));
            PriceReport {
                backend: backend.id.clone(),
                instance_type: node.priced_as().into_owned(),
                region: backend.region.clone(),
                zone,
                offer,
                usd_per_hour: price.as_ref().map(|price| price.usd_per_hour.get()),
                source: price.as_ref().map(|price| price.source.clone()),
                observed_at: price.as_ref().map(|price| price.observed_at),
                fetched_at: price.as_ref().map(|price| price.fetched_at),
                state: price.as_ref().map_or(ReportState::Missing, |price| price.state.into()),
                note: match price {
                    Some(price) => price.note,
                    None => Some(self.why_missing(backend, node, offer)),
                },
            }
        };
        vec![line(Offer::Spot, spot), line(Offer::OnDemand, on_demand)]
    }

    fn in_use(&self, backend: &Backend, now: Timestamp) -> (Option<InUse>, Option<InUse>) {
        let Some(node) = &backend.node else { return (None, None) };
        let on_demand = self.choose(backend, node, Offer::OnDemand, now);
        let spot = self.choose(backend, node, Offer::Spot, now).map(|spot| match &on_demand {
            Some(on_demand) => beside_on_demand(spot, on_demand),
            None => spot,
        });
        (spot, on_demand)
    }

    fn market(&self, backend: &Backend, node: &Node, offer: Offer) -> Option<&BTreeMap<Slot, Entry>> {
        self.markets.get(&Market {
            cloud: backend.cloud,
            region: backend.region.as_str().into(),
            instance_type: node.priced_as().into(),
            offer,
        })
    }

    fn choose(&self, backend: &Backend, node: &Node, offer: Offer, now: Timestamp) -> Option<InUse> {
        let candidates = self.market(backend, node, offer)?.iter().filter_map(|(slot, entry)| {
            let good = entry.good.as_ref().filter(|_| serves(backend, slot.zone.as_deref()))?;
            let rank = self.feeds.iter().position(|feed| feed.source == slot.source)?;
            Some(Candidate { slot, entry, good, stale: self.is_stale(good, now), rank })
        });
        // Slots are sorted by zone, so the sources of one zone follow each other.
        let mut of_zones: Vec<Candidate<'_>> = Vec::new();
        let trust = |c: &Candidate<'_>| (c.stale, c.entry.doubt.is_some(), c.rank);
        for candidate in candidates {
            match of_zones.last_mut() {
                Some(last) if last.slot.zone == candidate.slot.zone => {
                    if trust(&candidate) < trust(last) {
                        *last = candidate;
                    }
                }
                _ => of_zones.push(candidate),
            }
        }
        if of_zones.iter().any(|zone| !zone.stale) {
            of_zones.retain(|zone| !zone.stale);
        }
        // A price for the whole region is one for each of its zones: it hides what later sources say of a zone.
        let regional = of_zones.iter().find(|c| c.slot.zone.is_none() && c.entry.doubt.is_none());
        if let Some(rank) = regional.map(|regional| regional.rank) {
            of_zones.retain(|c| c.slot.zone.is_none() || c.rank <= rank);
        }
        let by_price = |a: &Candidate<'_>, b: &Candidate<'_>| a.usd().total_cmp(&b.usd());
        match backend.zone_price {
            ZonePrice::Cheapest => Some(self.priced(of_zones.into_iter().min_by(by_price)?)),
            ZonePrice::Dearest => Some(self.priced(of_zones.into_iter().max_by(by_price)?)),
            ZonePrice::Mean => self.mean(&of_zones),
        }
    }

    /// The mean of several zones. It is as old as the oldest of them, and as doubtful as the most doubtful.
    fn mean(&self, zones: &[Candidate<'_>]) -> Option<InUse> {
        let oldest = zones.iter().min_by_key(|zone| zone.good.fetched_at)?;
        let doubtful = zones.iter().find(|zone| zone.entry.doubt.is_some());
        let mut in_use = self.priced(*doubtful.unwrap_or(oldest));
        if let [_] = zones {
            return Some(in_use);
        }
        let usd = zones.iter().map(Candidate::usd).sum::<f64>() / zones.len() as f64;
        let mut note = format!("the mean of {} zones", zones.len());
        if let Some(more) = &in_use.price.note {
            note.push_str(&format!("; {more}"));
        }
        in_use.zone = None;
        in_use.price.usd_per_hour = UsdPerHour::new(usd)?;
        in_use.price.fetched_at = oldest.good.fetched_at;
        in_use.price.observed_at = zones.iter().map(|zone| zone.good.observed_at).max()?;
        in_use.price.note = Some(note.into());
        Some(in_use)
    }

    fn priced(&self, chosen: Candidate<'_>) -> InUse {
        let Candidate { slot, entry, good, stale, rank } = chosen;
        let mut notes: Vec<String> = Vec::new();
        if stale {
            notes.push(format!(
                "not confirmed since {:.0}, for longer than {:#}",
                good.fetched_at,
                self.stale_after_signed()
            ));
        }
        if let Some(doubt) = &entry.doubt {
            notes.push(format!("{} says something else that is not believed: {}", slot.source, doubt.why));
        }
        // A part of a source may fail while this price is confirmed as ever.
        let feed = self.feeds.get(rank).filter(|feed| stale || feed.is_silent());
        if let Some(fault) = feed.and_then(|feed| feed.fault.as_ref()) {
            notes.push(format!("{} does not work now: {fault}", slot.source));
        }
        let state = match (stale, &entry.doubt) {
            (true, _) => PriceState::Stale,
            (false, Some(_)) => PriceState::Held,
            (false, None) => PriceState::Fresh,
        };
        let price = Price {
            usd_per_hour: good.usd_per_hour,
            source: slot.source.clone(),
            observed_at: good.observed_at,
            fetched_at: good.fetched_at,
            state,
            note: (!notes.is_empty()).then(|| notes.join("; ").into()),
        };
        InUse { zone: slot.zone.clone(), price }
    }

    fn why_missing(&self, backend: &Backend, node: &Node, offer: Offer) -> Arc<str> {
        let zones = match &*backend.zones {
            [] => String::new(),
            zones => format!(" (zone {}, or the whole region)", zones.join(" or ")),
        };
        let mut note = format!(
            "no source states a price for {offer} {} in {} {}{zones}",
            node.priced_as(),
            backend.cloud,
            backend.region
        );
        let stated = self.market(backend, node, offer).into_iter().flatten();
        for (slot, entry) in stated.filter(|(slot, _)| serves(backend, slot.zone.as_deref())) {
            if let Some(doubt) = &entry.doubt {
                note.push_str(&format!(
                    "; {} says something that is not believed: {}",
                    slot.source, doubt.why
                ));
            }
        }
        for feed in self.feeds.iter().filter(|feed| feed.cloud.is_none_or(|cloud| cloud == backend.cloud)) {
            if let Some(fault) = &feed.fault {
                note.push_str(&format!("; {} does not work now: {fault}", feed.source));
            }
        }
        note.into()
    }
}

/// Whether a price counts for the zones of `backend`.
pub(super) fn serves(backend: &Backend, zone: Option<&str>) -> bool {
    let Some(zone) = zone else { return true };
    backend.zones.is_empty() || backend.zones.iter().any(|name| name == zone)
}

/// The spot price in use, given the on-demand price.
fn beside_on_demand(spot: InUse, on_demand: &InUse) -> InUse {
    let (spot_usd, on_demand_usd) = (spot.price.usd_per_hour.get(), on_demand.price.usd_per_hour.get());
    if spot.price.state == PriceState::Stale && spot_usd < on_demand_usd {
        let mut price = on_demand.price.clone();
        let mut note = format!(
            "the on-demand price stands in for the spot price, last known as {spot_usd} USD/h: {}",
            spot.price.note.as_deref().unwrap_or("it is stale")
        );
        if let Some(also) = &price.note {
            note.push_str(&format!("; of the on-demand price: {also}"));
        }
        price.state = PriceState::Fallback;
        price.note = Some(note.into());
        return InUse { zone: on_demand.zone.clone(), price };
    }
    if spot_usd > on_demand_usd {
        let mut spot = spot;
        let above = format!("above the on-demand price of {on_demand_usd} USD/h");
        spot.price.note = Some(match &spot.price.note {
            Some(note) => format!("{note}; {above}").into(),
            None => above.into(),
        });
        return spot;
    }
    spot
}
