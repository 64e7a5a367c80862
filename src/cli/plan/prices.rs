//! What nodes cost in the hours of the month: now, and hour by hour where price files hold history.
//!
//! History is read by replaying the files into a price book, an hour a step, as a running service would: so zones, precedence
//! and doubts count here as they do there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;

use crate::{
    cli::prices::remembered,
    config::{PriceSource, Prices, Replay, Settings},
    model::{Backend, Offer, Price, PriceState, Timestamp},
    plan::{Course, HOURS, NodePrices, Step, Window},
    signals::prices::{PriceBook, PriceFeed},
};

/// Hours of history that are looked at: 30 days.
const HISTORY_HOURS: usize = 30 * HOURS;

/// Seconds in an hour: the speed at which a replayed second is an hour.
const HOUR_SECONDS: i64 = 3600;

/// The time whose prices are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Time {
    /// The 30 days before now.
    Now,
    /// This moment's, for the whole month.
    Present,
    /// The 30 days before a moment. Providers are not asked: they know no price but today's.
    Until(Timestamp),
}

/// What is known.
pub(super) struct Known {
    /// The hours that the prices are for.
    pub(super) window: Window,
    /// By backend; `None` for one without nodes.
    pub(super) of_backends: Vec<Option<NodePrices>>,
    /// What went wrong with sources.
    pub(super) faults: Vec<String>,
}

/// The prices of one backend and offer: at the end, and by hour.
struct Series {
    present: Result<Price, String>,
    /// Empty where there is no history; otherwise a price for each hour from one on that is not before the first known.
    hours: Vec<Option<Price>>,
}

/// Reads every source, and asks every provider once unless an earlier time is asked for.
pub(super) async fn load(settings: &Settings, time: Time, now: Timestamp) -> Known {
    let end = match time {
        Time::Until(end) => end,
        Time::Now | Time::Present => recorded_now(&settings.prices).unwrap_or(now),
    };
    let (mut series, mut faults) = if let Time::Until(end) = time {
        let mut replay = Playing::from(&settings.prices, end, now);
        replay.step(0);
        (replay.look(&settings.backends), replay.faults())
    } else {
        let book = Arc::new(Mutex::new(remembered(settings)));
        let mut feed = PriceFeed::new(&settings.prices, &settings.backends, book.clone(), now);
        feed.fetch_now(now).await;
        // A provider may have taken a while.
        let book = lock(&book);
        (look(&book, &settings.backends, Timestamp::now().max(now)), faults_of(&book))
    };
    let mut first_hour = Timestamp::UNIX_EPOCH;
    if time != Time::Present {
        let (start, history) = history(settings, end, now);
        first_hour = start;
        for (series, hours) in series.iter_mut().zip(history) {
            let from_file =
                |price: &Price| price.source.starts_with("file:") || price.source.starts_with("replay:");
            if series.present.as_ref().is_ok_and(from_file) {
                series.hours = hours;
            }
        }
    }
    faults.dedup();
    let window = window(&series, first_hour);
    let skipped = HISTORY_HOURS - window.hours;
    let mut courses = series.iter().map(|series| course(series, window.from.is_some(), skipped));
    let of_backends = settings
        .backends
        .iter()
        .map(|backend| {
            let (spot, on_demand) = (courses.next()?, courses.next()?);
            backend.node.is_some().then_some(NodePrices { spot, on_demand })
        })
        .collect();
    Known { window, of_backends, faults }
}

/// The longest window of whole days in which every price that has history is known; a day that stands for all if there is
/// none, or if nothing changed in it.
fn window(series: &[Series], first_hour: Timestamp) -> Window {
    let with_history = || series.iter().filter(|series| !series.hours.is_empty());
    let unknown =
        with_history().map(|series| series.hours.iter().take_while(|price| price.is_none()).count());
    let skipped = unknown.max().unwrap_or(HISTORY_HOURS);
    let hours = (HISTORY_HOURS - skipped) / HOURS * HOURS;
    let skipped = HISTORY_HOURS - hours;
    let changes = |series: &Series| {
        let present = series.present.as_ref().map(|price| price.usd_per_hour).ok();
        series.hours[skipped..].iter().flatten().any(|price| Some(price.usd_per_hour) != present)
    };
    if hours == 0 || !with_history().any(changes) {
        return Window::DAY;
    }
    let from = first_hour + SignedDuration::from_hours(skipped as i64);
    let first_hour_of_day = (from.as_second().div_euclid(HOUR_SECONDS) as usize) % HOURS;
    Window { from: Some(from), first_hour_of_day, hours }
}

/// The prices over the window, which begins `skipped` hours after the history.
fn course(series: &Series, with_history: bool, skipped: usize) -> Result<Course, String> {
    let present = series.present.clone()?;
    let mut steps: Vec<Step> = Vec::new();
    let hours: &[Option<Price>] =
        if with_history && !series.hours.is_empty() { &series.hours[skipped..] } else { &[] };
    for (from_hour, price) in hours.iter().enumerate() {
        let Some(price) = price else { continue };
        let usd_per_hour = price.usd_per_hour.get();
        if steps.last().is_none_or(|last| last.usd_per_hour != usd_per_hour) {
            steps.push(Step { from_hour, usd_per_hour, observed_at: price.observed_at });
        }
    }
    if steps.is_empty() {
        let (usd_per_hour, observed_at) = (present.usd_per_hour.get(), present.observed_at);
        steps.push(Step { from_hour: 0, usd_per_hour, observed_at });
    }
    let note = (present.state != PriceState::Fresh || present.note.is_some()).then(|| {
        let why = present.note.as_deref().unwrap_or("no reason is known");
        format!("{}: {why}", present.state.as_str())
    });
    Ok(Course { source: present.source.to_string(), steps, note })
}

/// "Now" in a replay that is configured: the moment from which it starts.
fn recorded_now(prices: &Prices) -> Option<Timestamp> {
    prices.sources.iter().find_map(|source| match source {
        PriceSource::File { replay: Some(replay), .. } => Some(replay.from),
        _ => None,
    })
}

/// When the 30 days before `end` began, and for each backend its prices as spot and on demand in every hour from then on.
fn history(settings: &Settings, end: Timestamp, now: Timestamp) -> (Timestamp, Vec<Vec<Option<Price>>>) {
    let whole = end.as_second().div_euclid(HOUR_SECONDS) * HOUR_SECONDS;
    let start = Timestamp::from_second(whole - HISTORY_HOURS as i64 * HOUR_SECONDS).unwrap_or(Timestamp::MIN);
    let mut of_backends = vec![Vec::new(); settings.backends.len() * 2];
    let mut replay = Playing::from(&settings.prices, start, now);
    for hour in 0..HISTORY_HOURS {
        replay.step(hour);
        for (hours, series) in of_backends.iter_mut().zip(replay.look(&settings.backends)) {
            hours.push(series.present.ok());
        }
    }
    (start, of_backends)
}

/// The price files as a replay.
struct Playing {
    book: Arc<Mutex<PriceBook>>,
    feed: PriceFeed,
    began: Timestamp,
    now: Timestamp,
    /// Names of sources in the replay, and as they are configured.
    names: Vec<(Arc<str>, Arc<str>)>,
}

impl Playing {
    /// Every file from a recorded moment on.
    fn from(prices: &Prices, from: Timestamp, now: Timestamp) -> Playing {
        let mut sources = Vec::new();
        let mut names = Vec::new();
        for source in &prices.sources {
            let PriceSource::File { path, .. } = source else { continue };
            let replay = Some(Replay { from, speed: HOUR_SECONDS as f64 });
            let replayed = PriceSource::File { path: path.clone(), replay };
            names.push((replayed.name(), source.name()));
            sources.push(replayed);
        }
        let replayed = Prices { sources, ..prices.clone() };
        let book = Arc::new(Mutex::new(PriceBook::new(&replayed)));
        let feed = PriceFeed::new(&replayed, &[], book.clone(), now);
        Playing { book, feed, began: now, now, names }
    }

    /// Goes on to an hour after the start.
    fn step(&mut self, hour: usize) {
        self.now = self.began + SignedDuration::from_secs(hour as i64);
        self.feed.load_now(self.now);
    }

    fn look(&self, backends: &[Arc<Backend>]) -> Vec<Series> {
        let mut series = look(&lock(&self.book), backends, self.now);
        for price in series.iter_mut().filter_map(|series| series.present.as_mut().ok()) {
            if let Some((_, configured)) = self.names.iter().find(|(replayed, _)| *replayed == price.source) {
                price.source = configured.clone();
            }
        }
        series
    }

    fn faults(&self) -> Vec<String> {
        faults_of(&lock(&self.book))
    }
}

/// The prices of each backend at a moment, as spot and on demand in turn.
fn look(book: &PriceBook, backends: &[Arc<Backend>], now: Timestamp) -> Vec<Series> {
    let mut all = Vec::with_capacity(backends.len() * 2);
    for backend in backends {
        let (spot, on_demand) = book.view(backend, now);
        let reports =
            if spot.is_none() || on_demand.is_none() { book.report(backend, now) } else { Vec::new() };
        for (offer, price) in [(Offer::Spot, spot), (Offer::OnDemand, on_demand)] {
            let why = || {
                let report = reports.iter().find(|report| report.offer == offer);
                let note = report.and_then(|report| report.note.as_deref());
                note.unwrap_or("the backend has no `node`").to_owned()
            };
            all.push(Series { present: price.ok_or_else(why), hours: Vec::new() });
        }
    }
    all
}

fn faults_of(book: &PriceBook) -> Vec<String> {
    book.faults().into_iter().filter_map(|feed| feed.fault.map(|fault| fault.to_string())).collect()
}

/// A panic while the lock was held leaves prices that were each put in whole: they can be used.
fn lock(book: &Mutex<PriceBook>) -> MutexGuard<'_, PriceBook> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
