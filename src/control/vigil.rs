//! Notices what does not end, a decision or a write to the state directory, and says so: in the log, in status and in metrics.
//! Nothing here waits for what it watches.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Control, lock};

/// What takes longer is said. A decision over a thousand routes takes a fraction of a second, a write to a busy disk a few.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many ticks without a decision are said, if that is longer.
const TICKS_MISSED: u32 = 3;

/// What lasts is said again so often.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How often this looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a thread is at, and since when.
#[derive(Default)]
pub(super) struct Busy(Mutex<Option<(&'static str, Instant)>>);

impl Busy {
    /// It begins this.
    pub(super) fn at(&self, what: &'static str) {
        *lock(&self.0) = Some((what, Instant::now()));
    }

    /// It waits for something to do.
    pub(super) fn done(&self) {
        *lock(&self.0) = None;
    }

    /// What it is at, and for how long.
    pub(super) fn now(&self) -> Option<(&'static str, Duration)> {
        lock(&self.0).map(|(what, since)| (what, since.elapsed()))
    }
}

impl Control {
    /// Time since the last decision; since the start before the first one.
    pub(super) fn decision_age(&self) -> Duration {
        self.picture.load().as_ref().map_or(self.started, |picture| picture.taken).elapsed()
    }

    /// What there is to say when no decision was made for long.
    pub(super) fn stuck_loop(&self) -> Option<String> {
        stuck_loop(self.decision_age(), self.active.load().settings.tick, self.busy.now())
    }

    /// What there is to say when the state directory does not take what is written there.
    pub(super) fn stuck_disk(&self) -> Option<String> {
        stuck_disk(self.scribe.writing()?)
    }
}

fn stuck_loop(age: Duration, tick: Duration, busy: Option<(&'static str, Duration)>) -> Option<String> {
    let (age, late) = (age.as_secs(), age > PATIENCE.max(tick * TICKS_MISSED));
    let what = match busy {
        Some((what, time)) => format!("it has been {what} for {} s", time.as_secs()),
        None => "it was not run".into(),
    };
    late.then(|| {
        format!(
            "the control loop has made no decision for {age} s: {what}; requests go on by the last decision, and a restart \
             reads the state again"
        )
    })
}

fn stuck_disk(writing: Duration) -> Option<String> {
    (writing > PATIENCE).then(|| {
        format!(
            "a write to the state directory has not ended for {} s: its disk hangs; decisions and requests go on, and what \
             waits to be written is lost if the process ends before",
            writing.as_secs()
        )
    })
}

/// Looks again and again.
pub(super) async fn watch(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    let (mut decisions, mut writes) = (Complaint::default(), Complaint::default());
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let now = Instant::now();
        match decisions.about(control.stuck_loop(), now) {
            Some(Say::StillStuck(sentence)) => tracing::warn!("{sentence}"),
            Some(Say::Over) => tracing::info!("the control loop makes decisions again"),
            None => {}
        }
        match writes.about(control.stuck_disk(), now) {
            Some(Say::StillStuck(sentence)) => tracing::warn!("{sentence}"),
            Some(Say::Over) => tracing::info!("the state directory takes writes again"),
            None => {}
        }
    }
}

/// What was said last about something that does not end.
#[derive(Default)]
struct Complaint(Option<Instant>);

#[derive(Debug, PartialEq)]
enum Say {
    StillStuck(String),
    Over,
}

impl Complaint {
    /// What is to be said now: that it is stuck, when that begins and from time to time; that it is over, once.
    fn about(&mut self, stuck: Option<String>, now: Instant) -> Option<Say> {
        let due = |said: Instant| now.duration_since(said) >= AGAIN_AFTER;
        match (stuck, self.0) {
            (Some(sentence), said) if said.is_none_or(due) => {
                self.0 = Some(now);
                Some(Say::StillStuck(sentence))
            }
            (None, Some(_)) => {
                self.0 = None;
                Some(Say::Over)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{atomic::Ordering::Relaxed, mpsc},
        thread,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        runtime::Builder,
    };

    use super::*;
    use crate::{config, control::serve};

    #[test]
    fn what_is_stuck_is_said_at_once_then_every_minute_and_its_end_once() {
        let (mut complaint, start) = (Complaint::default(), Instant::now());
        let mut at = |second, stuck: bool| {
            complaint.about(stuck.then(|| "stuck".into()), start + Duration::from_secs(second))
        };
        let stuck = Some(Say::StillStuck("stuck".into()));
        assert_eq!(at(0, false), None);
        assert_eq!(at(1, true), stuck);
        assert_eq!(at(60, true), None);
        assert_eq!(at(61, true), stuck);
        assert_eq!(at(62, false), Some(Say::Over));
        assert_eq!(at(63, false), None);
        assert_eq!(at(64, true), stuck, "it is another time");
    }

    #[test]
    fn a_decision_is_late_after_ten_seconds_or_three_ticks() {
        let seconds = Duration::from_secs;
        assert_eq!(stuck_loop(seconds(10), seconds(1), None), None);
        assert_eq!(stuck_loop(seconds(179), seconds(60), None), None);
        let said = stuck_loop(seconds(181), seconds(60), None).unwrap();
        assert!(said.contains("no decision for 181 s: it was not run"), "{said}");
        let said = stuck_loop(seconds(11), seconds(1), Some(("deciding", seconds(9)))).unwrap();
        assert!(said.contains("it has been deciding for 9 s"), "{said}");
        assert_eq!(stuck_disk(seconds(10)), None);
        assert!(stuck_disk(seconds(12)).unwrap().contains("has not ended for 12 s"));
    }

    #[test]
    fn a_decision_that_hangs_holds_up_neither_requests_nor_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[listen]\nhttp = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[state]\ndir = \"state\"\n\
                    [control]\ntick = \"50ms\"\n\
                    [backends.a]\nurl = \"http://127.0.0.1:9\"\ncloud = \"other\"\nregion = \"a\"\n\
                    [routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\"]\n";
        let loaded =
            config::parse(text, &dir.path().join("t.toml")).unwrap_or_else(|faults| panic!("{faults}"));
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let running = serve::start(loaded.settings, None, None).await.unwrap();
            let control = running.control.clone();
            let (held, (holds, holding)) = (control.clone(), mpsc::channel());
            let (release, released) = mpsc::channel::<()>();
            let hanging = thread::spawn(move || {
                let _brain = lock(&held.brain);
                held.busy.at("deciding");
                holds.send(()).unwrap();
                // An error means that the test has failed before.
                let _ = released.recv();
            });
            holding.recv().unwrap();
            let (age, turns) = (control.decision_age(), control.turns.load(Relaxed));
            let mut client = TcpStream::connect(running.http.unwrap()).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 50"), "nobody listens there: {answer}");
            let begun = Instant::now();
            assert_eq!(running.drain().await, 0);
            assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
            assert_eq!(control.turns.load(Relaxed), turns, "no decision was made meanwhile");
            assert!(control.decision_age() > age);
            assert!(control.metrics_view().decision_age_seconds >= 2.0, "it was waited for");
            drop(release);
            hanging.join().unwrap();
        });
    }

    #[test]
    fn whoever_is_busy_says_with_what() {
        let busy = Busy::default();
        assert_eq!(busy.now(), None);
        busy.at("deciding");
        assert_eq!(busy.now().unwrap().0, "deciding");
        busy.done();
        assert_eq!(busy.now(), None);
    }
}
