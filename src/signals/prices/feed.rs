//! Carries what sources say into the book.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
use tokio::{runtime::Builder, sync::watch, task, time};

use super::{FileSource, News, PriceBook, PriceSettings, PriceSource, provider::ProviderSource};
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

/// The sources of prices, and the book they write into.
pub struct PriceFeed {
    files: Arc<Mutex<Vec<FileSource>>>,
    providers: Vec<ProviderSource>,
    book: Arc<Mutex<PriceBook>>,
    poll_every: Duration,
    /// Providers that have not answered yet, well or badly, since this feed began.
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
        let provider = |source| ProviderSource::new(source, settings, backends);
        let providers: Vec<_> = settings.sources.iter().filter_map(provider).collect();
        let replays = |source: &PriceSource| matches!(source, PriceSource::File { replay: Some(_), .. });
        let longest = if settings.sources.iter().any(replays) { REPLAY_POLL } else { LIVE_POLL };
        PriceFeed {
            files: Arc::new(Mutex::new(files)),
            silent: watch::Sender::new(providers.len()),
            providers,
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
        for provider in &mut self.providers {
            let fetched = provider.fetch().await;
            lock(&self.book).apply(provider.name(), fetched, Timestamp::now());
        }
    }

    /// How many providers have not answered yet, well or badly. Those whose last good prices are all there do not count: nobody
    /// has to wait for them.
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
        let providers = std::mem::take(&mut self.providers);
        if providers.is_empty() {
            return;
        }
        let now = Timestamp::now();
        let (book, silent) = (self.book.clone(), self.silent.clone());
        let following = async move {
            let mut asking = task::JoinSet::new();
            for provider in providers {
                let hurry = !lock(&book).knows(provider.name(), provider.wants(), now);
                if !hurry {
                    silent.send_modify(|count| *count -= 1);
                }
                asking.spawn(follow(provider, hurry, book.clone(), silent.clone()));
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
            if let Err(error) = give_way() {
                tracing::debug!(?error, "prices are fetched at the usual priority");
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

/// Lets this thread run only where nothing else would. A nice value does not do: the kernel lets even the nicest thread finish
/// its slice of a millisecond or more before a request gets the core. `benches/README.md` has the figures.
fn give_way() -> Result<(), thread_priority::Error> {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        ThreadPriority::Min,
        idle,
    )
}

async fn follow(
    provider: ProviderSource,
    hurry: bool,
    book: Arc<Mutex<PriceBook>>,
    silent: watch::Sender<usize>,
) {
    let name = provider.name().clone();
    let mut first = hurry;
    let tell = |fetched| {
        let (news, held) = {
            let mut book = lock(&book);
            (book.apply(&name, fetched, Timestamp::now()), book.holds_back(&name))
        };
        report(&name, &news);
        if std::mem::take(&mut first) {
            silent.send_modify(|count| *count -= 1);
        }
        held
    };
    provider.follow(hurry, tell).await;
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
