//! Carries what sources say into the book.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tokio::{runtime::Builder, sync::watch, task, time};

use super::{
    FileSource, News, PriceBook, PriceSettings, PriceSource,
    provider::{Inquiry, Urgency},
};
use crate::model::{Backend, Timestamp};

/// A changed file is noticed within this time.
const LIVE_POLL: Duration = Duration::from_secs(1);

/// In a replay rows come due all the time: ten looks a second keep a replay at 3,600 times the speed of time within six of
/// its minutes.
const REPLAY_POLL: Duration = Duration::from_millis(100);

/// However short the refresh interval, looking at files must stay cheap.
const POLL_MIN: Duration = Duration::from_millis(20);

/// A file in the wrong currency holds back every price in it: the log needs some of them, not all.
const NEWS_LINES_MAX: usize = 10;

/// Where work is done that nobody waits for: a little slower is better than in the way of requests. Half of the way to the
/// least urgent.
const NICE: i32 = 10;

/// The sources of prices, and the book they write into.
pub struct PriceFeed {
    files: Arc<Mutex<Vec<FileSource>>>,
    inquiries: Vec<Inquiry>,
    book: Arc<Mutex<PriceBook>>,
    poll_every: Duration,
    /// What has not been answered yet, well or badly, since this feed began.
    silent: watch::Sender<usize>,
}

impl PriceFeed {
    /// Gives `book` the new settings; what it knows stays, and so does the progress of a replay that is in both. Providers
    /// will be asked for what `backends` need. Reads nothing yet.
    pub fn new(
        settings: &PriceSettings,
        backends: &[Arc<Backend>],
        book: Arc<Mutex<PriceBook>>,
        now: Timestamp,
    ) -> PriceFeed {
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
        let inquire = |source| Inquiry::of(source, settings, backends);
        let inquiries: Vec<_> = settings.sources.iter().flat_map(inquire).collect();
        let replays = |source: &PriceSource| matches!(source, PriceSource::File { replay: Some(_), .. });
        let longest = if settings.sources.iter().any(replays) { REPLAY_POLL } else { LIVE_POLL };
        PriceFeed {
            files: Arc::new(Mutex::new(files)),
            silent: watch::Sender::new(inquiries.len()),
            inquiries,
            book,
            poll_every: settings.refresh.clamp(POLL_MIN, longest),
        }
    }

    /// Reads every file once, now, on this thread. Faults are in the book afterwards. Providers are not asked.
    pub fn load_now(&mut self, now: Timestamp) {
        poll(&self.files, &self.book, now);
    }

    /// Reads every file and asks every provider once. Faults are in the book afterwards.
    pub async fn fetch_now(&mut self, now: Timestamp) {
        self.load_now(now);
        let mut asking = task::JoinSet::new();
        for mut inquiry in self.inquiries.drain(..) {
            asking.spawn(async move {
                let fetched = inquiry.ask().await;
                (inquiry, fetched)
            });
        }
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok((inquiry, fetched)) => {
                    let now = Timestamp::now();
                    lock(&self.book).apply_part(inquiry.source(), inquiry.part(), fetched, now);
                    self.inquiries.push(inquiry);
                }
                Err(error) => tracing::error!(%error, "asking a provider has failed"),
            }
        }
    }

    /// How much of what is asked of providers has not been answered yet, well or badly. Where the last good prices are all there
    /// nobody has to wait.
    pub fn silent(&self) -> watch::Receiver<usize> {
        self.silent.subscribe()
    }

    /// Looks at every source again and again, on threads that may block, until `shutdown` says `true` or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        self.follow_providers(shutdown.clone());
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

    /// Asks providers on a thread of their own: what they answer is large, and taking it apart must delay no probe.
    fn follow_providers(&mut self, mut shutdown: watch::Receiver<bool>) {
        let inquiries = std::mem::take(&mut self.inquiries);
        if inquiries.is_empty() {
            return;
        }
        let now = Timestamp::now();
        let (book, silent) = (self.book.clone(), self.silent.clone());
        let following = async move {
            let mut asking = task::JoinSet::new();
            for inquiry in inquiries {
                let urgency = urgency(&inquiry, &lock(&book), now);
                if urgency == Urgency::None {
                    silent.send_modify(|count| *count -= 1);
                }
                asking.spawn(follow(inquiry, urgency, book.clone(), silent.clone()));
            }
            let all = async {
                while let Some(ended) = asking.join_next().await {
                    tracing::error!(
                        ?ended,
                        "asking a provider has failed; its last prices stay in use and age"
                    );
                }
            };
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => {}
                () = all => {}
            }
        };
        let spawned = thread::Builder::new().name("tradewind-prices".into()).spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "prices are fetched at the usual priority");
            }
            match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(following),
                Err(error) => tracing::error!(%error, "no provider can be asked for prices"),
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no provider can be asked for prices: no thread could be started");
        }
    }
}

fn urgency(inquiry: &Inquiry, book: &PriceBook, now: Timestamp) -> Urgency {
    match () {
        () if book.knows(inquiry.source(), inquiry.wants(), now) => Urgency::None,
        () if book.knows_any(inquiry.source()) => Urgency::Some,
        () => Urgency::Nothing,
    }
}

async fn follow(
    inquiry: Inquiry,
    urgency: Urgency,
    book: Arc<Mutex<PriceBook>>,
    silent: watch::Sender<usize>,
) {
    let (source, part) = (inquiry.source().clone(), inquiry.part());
    let mut first = urgency != Urgency::None;
    let tell = |fetched| {
        let applied = lock(&book).apply_part(&source, part, fetched, Timestamp::now());
        report(&source, &applied.news);
        if std::mem::take(&mut first) {
            silent.send_modify(|count| *count -= 1);
        }
        applied.held
    };
    inquiry.follow(urgency, tell).await;
}

fn poll(files: &Mutex<Vec<FileSource>>, book: &Mutex<PriceBook>, now: Timestamp) {
    for file in lock(files).iter_mut() {
        let Some(quotes) = file.poll(now) else { continue };
        // The book is locked only for the comparison, never while a file is read.
        let news = lock(book).apply(file.name(), quotes.into(), now);
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
