//! What every node costs, as far as anybody knows: the last good price of every key, and the doubts about it.
//!
//! No clock and no I/O: time is an argument, sources are read elsewhere.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::{
    FeedFault, Fetched, PriceKey, PriceSettings, PriceSource, Quote, Replay, Want,
    guard::{Doubt, Good, Limits, Verdict, judge},
};
use crate::model::{Cloud, Offer, Timestamp};

/// The prices in use, and who says so.
///
/// - A quote is judged on its own (see the rules in `guard.rs`); what is not believed leaves the last good price in use.
/// - A source that fails as a whole changes no price: its fault is recorded, and its prices age.
/// - A key that a source no longer mentions keeps its last price, and ages.
/// - Sources keep their prices apart. Where several know the same key, the first in the settings counts that is neither
///   stale nor in doubt.
#[derive(Debug)]
pub struct PriceBook {
    pub(super) stale_after: Duration,
    max_step: f64,
    pub(super) feeds: Vec<Feed>,
    pub(super) markets: HashMap<Market, BTreeMap<Slot, Entry>>,
    revision: u64,
}

/// What a backend looks up: everything about a price but its zone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Market {
    pub(super) cloud: Cloud,
    pub(super) region: Arc<str>,
    pub(super) instance_type: Arc<str>,
    pub(super) offer: Offer,
}

/// One price of a market. Zones sort together, the region-wide price first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    pub(super) zone: Option<Arc<str>>,
    pub(super) source: Arc<str>,
}

/// What is known about one price from one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    pub(super) good: Option<Good>,
    pub(super) doubt: Option<Doubt>,
}

/// What is known about one source.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) source: Arc<str>,
    pub(super) fault: Option<Arc<str>>,
    /// What is wrong with each part that is asked for at its own time.
    parts: BTreeMap<&'static str, Part>,
    /// The only cloud it knows; `None` for a file, which may hold any.
    pub(super) cloud: Option<Cloud>,
    confirm_after: Duration,
    replay: Option<Replay>,
    /// When the replay began.
    started: Option<Timestamp>,
    last_good: Option<Timestamp>,
}

/// The part of a source that is asked for all of its prices at once.
const WHOLE: &str = "";

/// What is known about a part of a source.
#[derive(Clone, Debug)]
struct Part {
    /// Whether the last fetch gave no price at all.
    silent: bool,
    /// What is wrong with it.
    faults: Vec<FeedFault>,
}

impl Feed {
    /// Whether no part of it gives any price now.
    pub(super) fn is_silent(&self) -> bool {
        self.parts.values().all(|part| part.silent)
    }
}

/// What came of a fetch.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// What changed for the worse or the better, for the log.
    pub(super) news: Vec<News>,
    /// Prices of this fetch that are held back.
    pub(super) held: usize,
}

/// How a source is doing, for status and metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// Its name.
    pub source: Arc<str>,
    /// The last fetch that worked; `None` if none has.
    pub last_good: Option<Timestamp>,
    /// Why the last fetch did not work; `None` if it did, or none was tried.
    pub fault: Option<Arc<str>>,
    /// Prices that the source states and that are not believed.
    pub held: usize,
}

/// What an operator should read in the log. `Display` says it in one sentence.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A source stopped working, or fails in another way than before.
    Failed {
        /// Its name.
        source: Arc<str>,
        /// What is wrong.
        fault: Arc<str>,
    },
    /// A source works again.
    Works {
        /// Its name.
        source: Arc<str>,
    },
    /// A price is not believed.
    Held {
        /// Which price.
        key: PriceKey,
        /// Who says so.
        source: Arc<str>,
        /// Why not.
        why: Arc<str>,
    },
    /// A price that was held back is believed now, or plausible again.
    Cleared {
        /// Which price.
        key: PriceKey,
        /// Who says so.
        source: Arc<str>,
        /// The price in use from now on, USD per hour.
        usd_per_hour: f64,
    },
}

impl News {
    /// Whether something got worse.
    pub fn is_bad(&self) -> bool {
        matches!(self, News::Failed { .. } | News::Held { .. })
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Failed { source, fault } => {
                write!(f, "what {source} does not say now keeps its last price: {fault}")
            }
            News::Works { source } => write!(f, "prices from {source} are read again"),
            News::Held { key, source, why } => {
                write!(f, "the price of {key} from {source} is held back: {why}")
            }
            News::Cleared { key, source, usd_per_hour } => {
                write!(f, "the price of {key} from {source} is no longer held back: {usd_per_hour} USD/h")
            }
        }
    }
}

impl fmt::Display for PriceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.zone.as_ref().unwrap_or(&self.region);
        write!(f, "{} {} in {} {place}", self.offer, self.instance_type, self.cloud)
    }
}

/// Faults of one source that are told in full; beyond that their number says enough.
const FAULTS_TOLD_MAX: usize = 3;

/// Several faults as one text.
fn in_one<'f>(faults: impl IntoIterator<Item = &'f FeedFault>) -> Option<Arc<str>> {
    let mut told: Vec<&str> = Vec::new();
    for FeedFault(fault) in faults {
        if !told.contains(&fault.as_str()) {
            told.push(fault);
        }
    }
    let more = told.len().saturating_sub(FAULTS_TOLD_MAX);
    told.truncate(FAULTS_TOLD_MAX);
    match (told.as_slice(), more) {
        ([], _) => None,
        (told, 0) => Some(told.join("; ").into()),
        (told, more) => Some(format!("{}; and {more} more", told.join("; ")).into()),
    }
}

impl PriceBook {
    /// An empty book.
    pub fn new(settings: &PriceSettings) -> PriceBook {
        let mut book = PriceBook {
            stale_after: settings.stale_after,
            max_step: settings.max_step,
            feeds: Vec::new(),
            markets: HashMap::new(),
            revision: 0,
        };
        book.reconfigure(settings);
        book
    }

    /// New settings. Prices of sources that are still there stay; those of sources that are gone go with them.
    pub fn reconfigure(&mut self, settings: &PriceSettings) {
        self.stale_after = settings.stale_after;
        self.max_step = settings.max_step;
        let old = std::mem::take(&mut self.feeds);
        for source in &settings.sources {
            let name = source.name();
            if self.feeds.iter().any(|feed| feed.source == name) {
                continue;
            }
            let replay = source.replay();
            let known = old.iter().find(|feed| feed.source == name);
            // A reload must not start the recording over; another recording starts at its own beginning.
            let started = known.filter(|feed| feed.replay == replay).and_then(|feed| feed.started);
            self.feeds.push(Feed {
                cloud: [Cloud::Aws, Cloud::Gcp].into_iter().find(|cloud| source.asks(*cloud)),
                confirm_after: source.confirm_after(settings.refresh),
                replay,
                started,
                last_good: known.and_then(|feed| feed.last_good),
                parts: known.map(|feed| feed.parts.clone()).unwrap_or_default(),
                fault: known.and_then(|feed| feed.fault.clone()),
                source: name,
            });
        }
        let feeds = &self.feeds;
        self.markets.retain(|_, slots| {
            slots.retain(|slot, _| feeds.iter().any(|feed| feed.source == slot.source));
            !slots.is_empty()
        });
    }

    /// When the replay of `source` began: `now` if it has not begun yet.
    pub(super) fn replay_start(&mut self, source: &PriceSource, now: Timestamp) -> Timestamp {
        let name = source.name();
        let feed = self.feeds.iter_mut().find(|feed| feed.source == name);
        feed.map_or(now, |feed| *feed.started.get_or_insert(now))
    }

    /// Takes what `source` said at `now`. What a source says that is not in the settings is ignored.
    ///
    /// The answer is what changed for the worse or the better, for the log.
    pub fn apply(&mut self, source: &Arc<str>, fetched: Fetched, now: Timestamp) -> Vec<News> {
        self.apply_part(source, WHOLE, fetched, now).news
    }

    /// The same of a source that is asked for its prices in parts, each at its own time: what is wrong with one part stays so
    /// until that part is asked again.
    pub(super) fn apply_part(
        &mut self,
        source: &Arc<str>,
        part: &'static str,
        fetched: Fetched,
        now: Timestamp,
    ) -> Applied {
        let stale_after = self.stale_after_signed();
        let Some(feed) = self.feeds.iter_mut().find(|feed| feed.source == *source) else {
            return Applied::default();
        };
        let source = &feed.source.clone();
        let Fetched { quotes, mut faults } = fetched;
        if quotes.is_empty() && faults.is_empty() {
            faults.push(FeedFault(format!("{source} states no price at all")));
        }
        feed.parts.insert(part, Part { silent: quotes.is_empty(), faults });
        let fault = in_one(feed.parts.values().flat_map(|part| &part.faults));
        let mut news = Vec::new();
        match &fault {
            None if feed.fault.is_some() => news.push(News::Works { source: source.clone() }),
            Some(fault) if feed.fault.as_ref() != Some(fault) => {
                news.push(News::Failed { source: source.clone(), fault: fault.clone() });
            }
            _ => {}
        }
        feed.fault = fault;
        if quotes.is_empty() {
            return Applied { news, held: 0 };
        }
        feed.last_good = Some(now);
        let limits = Limits { max_step: self.max_step, confirm_after: feed.confirm_after };
        // What the source has not said again for long is no doubt about anything any more.
        let entries = self.markets.values_mut().flatten().filter(|(slot, _)| slot.source == *source);
        for (_, entry) in entries {
            entry.doubt.take_if(|doubt| now.duration_since(doubt.said_at) > stale_after);
        }
        let mut held = 0;
        for quote in quotes {
            let (doubted, item) = self.take(source, quote, now, limits);
            held += usize::from(doubted);
            news.extend(item);
        }
        Applied { news, held }
    }

    /// Judges one quote: whether it is held back, and what is new about that.
    fn take(
        &mut self,
        source: &Arc<str>,
        quote: Quote,
        now: Timestamp,
        limits: Limits,
    ) -> (bool, Option<News>) {
        let entry = self.entry(&quote.key, source);
        let verdict = judge(quote.usd_per_hour, entry.good.as_ref(), entry.doubt.as_ref(), now, limits);
        match verdict {
            Verdict::Believe(usd_per_hour) => {
                let known = entry.good.as_ref().is_some_and(|good| good.usd_per_hour == usd_per_hour);
                entry.good = Some(Good { usd_per_hour, observed_at: quote.at, fetched_at: now });
                let cleared = entry.doubt.take().map(|_| News::Cleared {
                    key: quote.key,
                    source: source.clone(),
                    usd_per_hour: usd_per_hour.get(),
                });
                self.revision += u64::from(!known);
                (false, cleared)
            }
            Verdict::Hold(doubt) => {
                let known = entry.doubt.as_ref().is_some_and(|old| old.since == doubt.since);
                let why = doubt.why.clone();
                entry.doubt = Some(doubt);
                (true, (!known).then(|| News::Held { key: quote.key, source: source.clone(), why }))
            }
        }
    }

    pub(super) fn entry(&mut self, key: &PriceKey, source: &Arc<str>) -> &mut Entry {
        let market = Market {
            cloud: key.cloud,
            region: key.region.clone(),
            instance_type: key.instance_type.clone(),
            offer: key.offer,
        };
        let slot = Slot { zone: key.zone.clone(), source: source.clone() };
        self.markets.entry(market).or_default().entry(slot).or_default()
    }

    /// Grows whenever a price becomes known or changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether anything is known from `source`.
    pub(super) fn knows_any(&self, source: &Arc<str>) -> bool {
        self.markets.values().flatten().any(|(slot, entry)| slot.source == *source && entry.good.is_some())
    }

    /// Whether everything that is asked of `source` has a price from it that is not stale.
    pub(super) fn knows(&self, source: &Arc<str>, wants: &[Want], now: Timestamp) -> bool {
        let priced = |want: &Want, offer: Offer| {
            let market = Market {
                cloud: want.cloud,
                region: want.region.clone(),
                instance_type: want.priced_as.clone(),
                offer,
            };
            let mut slots = self.markets.get(&market).into_iter().flatten();
            slots.any(|(slot, entry)| {
                slot.source == *source && entry.good.as_ref().is_some_and(|good| !self.is_stale(good, now))
            })
        };
        wants.iter().all(|want| priced(want, Offer::OnDemand) && (!want.spot || priced(want, Offer::Spot)))
    }

    /// Whether the price was not confirmed for longer than `stale_after`.
    pub(super) fn is_stale(&self, good: &Good, now: Timestamp) -> bool {
        now.duration_since(good.fetched_at) > self.stale_after_signed()
    }

    pub(super) fn stale_after_signed(&self) -> SignedDuration {
        SignedDuration::try_from(self.stale_after).unwrap_or(SignedDuration::MAX)
    }

    pub(super) fn is_replay(&self, source: &Arc<str>) -> bool {
        self.feeds.iter().any(|feed| feed.source == *source && feed.replay.is_some())
    }

    /// How every source is doing, in the order of the settings.
    pub fn faults(&self) -> Vec<FeedStatus> {
        let held = |source: &Arc<str>| {
            let slots = self.markets.values().flatten();
            slots.filter(|(slot, entry)| slot.source == *source && entry.doubt.is_some()).count()
        };
        let status = |feed: &Feed| FeedStatus {
            source: feed.source.clone(),
            last_good: feed.last_good,
            fault: feed.fault.clone(),
            held: held(&feed.source),
        };
        self.feeds.iter().map(status).collect()
    }
}
