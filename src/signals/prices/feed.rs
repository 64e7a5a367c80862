//! Carries what sources say into the book.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    task, time,
};

use super::{
    FileSource, News, PriceBook, PriceSettings, PriceSource,
    provider::{Answer, Inquiry, Urgency},
};
use crate::model::{Backend, Timestamp};

/// A changed file is noticed within this time.
const LIVE_POLL: Duration = Duration::from_secs(1);

/// In a replay rows come due all the time: ten looks a second keep a replay at 3,600 times the speed of time within six of
/// its minutes.
const REPLAY_POLL: Duration = Duration::from_millis(100);

/// Reading that takes longer is said. A file of the largest size takes a few seconds.
const READ_TIME: Duration = Duration::from_secs(10);

/// However short the refresh interval, looking at files must stay cheap.
const POLL_MIN: Duration = Duration::from_millis(20);

/// A file in the wrong currency holds back every price in it: the log needs some of them, not all.
const NEWS_LINES_MAX: usize = 10;

/// Answers of providers that wait to be put into the book: each inquiry waits for its own, so there are never more.
const ANSWERS_WAITING_MAX: usize = 4;

/// The sources of prices, and the book they write into.
pub struct PriceFeed {
    files: Arc<Mutex<Vec<FileSource>>>,
    inquiries: Vec<Inquiry>,
    book: Arc<Mutex<PriceBook>>,
    poll_every: Duration,
    /// What has not been answered yet, well or badly, since this feed began; the files are one of it.
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
            silent: watch::Sender::new(inquiries.len() + usize::from(!files.is_empty())),
            files: Arc::new(Mutex::new(files)),
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
                let fetched = inquiry.ask(Duration::ZERO).await;
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

    /// How much of what is asked of providers has not been answered yet, well or badly, and one for files that were not read yet. Where the last good prices are all there
    /// nobody has to wait.
    pub fn silent(&self) -> watch::Receiver<usize> {
        self.silent.subscribe()
    }

    /// Looks at every source again and again, on threads that may block, until `shutdown` says `true` or its sender is gone.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        self.follow_providers(shutdown.clone());
        let mut unread = !lock(&self.files).is_empty();
        let mut ticks = time::interval(self.poll_every);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            let (files, book) = (self.files.clone(), self.book.clone());
            let mut polling = task::spawn_blocking(move || poll(&files, &book, Timestamp::now()));
            let mut slow = false;
            let polled = loop {
                tokio::select! {
                    _ = shutdown.wait_for(|stop| *stop) => return,
                    polled = &mut polling => break polled,
                    () = time::sleep(READ_TIME), if !slow => {
                        slow = true;
                        let seconds = READ_TIME.as_secs();
                        tracing::warn!(
                            "reading the price files has not ended for {seconds} s: a file system hangs; the last prices stay in \
                             use and age"
                        );
                    }
                }
            };
            if slow {
                tracing::info!("price files can be read again");
            }
            if let Err(error) = polled {
                tracing::error!(%error, "reading prices failed; the last prices stay in use, and it is tried again");
            }
            if std::mem::take(&mut unread) {
                self.silent.send_modify(|count| *count -= 1);
            }
        }
    }

    /// Asks providers on a thread of their own: what they answer is large, and taking it apart must delay no probe.
    fn follow_providers(&mut self, mut shutdown: watch::Receiver<bool>) {
        let inquiries = std::mem::take(&mut self.inquiries);
        if inquiries.is_empty() {
            return;
        }
        let (answer, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        task::spawn(take_down(answers, self.book.clone(), self.silent.clone()));
        let now = Timestamp::now();
        let with_urgency = |inquiry| {
            let urgency = urgency(&inquiry, &lock(&self.book), now);
            if urgency == Urgency::None {
                self.silent.send_modify(|count| *count -= 1);
            }
            (inquiry, urgency)
        };
        let inquiries: Vec<(Inquiry, Urgency)> = inquiries.into_iter().map(with_urgency).collect();
        let following = async move {
            let mut asking = task::JoinSet::new();
            for (inquiry, urgency) in inquiries {
                asking.spawn(inquiry.follow(urgency, answer.clone()));
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

fn urgency(inquiry: &Inquiry, book: &PriceBook, now: Timestamp) -> Urgency {
    match () {
        () if book.knows(inquiry.source(), inquiry.wants(), now) => Urgency::None,
        () if book.knows_any(inquiry.source()) => Urgency::Some,
        () => Urgency::Nothing,
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

/// Puts what providers answer into the book, on the runtime: the thread that asks may wait long for a core, and must not do so
/// with the book in its hands.
async fn take_down(
    mut answers: mpsc::Receiver<Answer>,
    book: Arc<Mutex<PriceBook>>,
    silent: watch::Sender<usize>,
) {
    while let Some(Answer { source, part, fetched, first, held }) = answers.recv().await {
        let applied = lock(&book).apply_part(&source, part, fetched, Timestamp::now());
        report(&source, &applied.news);
        if first {
            silent.send_modify(|count| *count -= 1);
        }
        // Whoever asked may have been stopped meanwhile.
        let _ = held.send(applied.held);
    }
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
