//! Carries what sources say into the book.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task, time};

use super::{FileSource, News, PriceBook, PriceSettings, PriceSource};
use crate::model::Timestamp;

/// A changed file is noticed within this time.
const LIVE_POLL: Duration = Duration::from_secs(1);

/// In a replay rows come due all the time: ten looks a second keep a replay at 3,600 times the speed of time within six of
/// its minutes.
const REPLAY_POLL: Duration = Duration::from_millis(100);

/// However short the refresh interval, looking at files must stay cheap.
const POLL_MIN: Duration = Duration::from_millis(20);

/// A file in the wrong currency holds back every price in it: the log needs some of them, not all.
const NEWS_LINES_MAX: usize = 10;

/// The sources of prices, and the book they write into.
#[derive(Debug)]
pub struct PriceFeed {
    files: Arc<Mutex<Vec<FileSource>>>,
    book: Arc<Mutex<PriceBook>>,
    poll_every: Duration,
}

impl PriceFeed {
    /// Gives `book` the new settings; what it knows stays, and so does the progress of a replay that is in both. Reads
    /// nothing yet.
    pub fn new(settings: &PriceSettings, book: Arc<Mutex<PriceBook>>, now: Timestamp) -> PriceFeed {
        let mut files: Vec<FileSource> = Vec::new();
        {
            let mut book = lock(&book);
            book.reconfigure(settings);
            for source in &settings.sources {
                let started = book.replay_start(source, now);
                let Some(file) = FileSource::new(source, settings.refresh, started) else { continue };
                // Named twice, it is still one file.
                if files.iter().all(|known| known.name() != file.name()) {
                    files.push(file);
                }
            }
        }
        let replays = |source: &PriceSource| matches!(source, PriceSource::File { replay: Some(_), .. });
        let longest = if settings.sources.iter().any(replays) { REPLAY_POLL } else { LIVE_POLL };
        PriceFeed {
            files: Arc::new(Mutex::new(files)),
            book,
            poll_every: settings.refresh.clamp(POLL_MIN, longest),
        }
    }

    /// Reads every source once, now, on this thread. Faults are in the book afterwards.
    pub fn load_now(&mut self, now: Timestamp) {
        poll(&self.files, &self.book, now);
    }

    /// Looks at every source again and again, on threads that may block, until `shutdown` says `true` or its sender is gone.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = time::interval(self.poll_every);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            let (files, book) = (self.files.clone(), self.book.clone());
            let polled = task::spawn_blocking(move || poll(&files, &book, Timestamp::now())).await;
            if let Err(error) = polled {
                tracing::error!(%error, "reading prices failed; the last prices stay in use, and it is tried again");
            }
        }
    }
}

fn poll(files: &Mutex<Vec<FileSource>>, book: &Mutex<PriceBook>, now: Timestamp) {
    for file in lock(files).iter_mut() {
        let Some(quotes) = file.poll(now) else { continue };
        // The book is locked only for the comparison, never while a file is read.
        let news = lock(book).apply(file.name(), quotes, now);
        report(file.name(), &news);
    }
}

fn report(source: &str, news: &[News]) {
    for item in news.iter().take(NEWS_LINES_MAX) {
        if item.is_bad() {
            tracing::warn!(source, "{item}");
        } else {
            tracing::info!(source, "{item}");
        }
    }
    let more = news.len().saturating_sub(NEWS_LINES_MAX);
    if more > 0 {
        tracing::warn!(source, "and {more} more prices changed between held back and believed");
    }
}

/// A panic while the lock was held leaves prices that were each put in whole: they can be used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
