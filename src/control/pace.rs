//! When the loop turns: every tick, and when a backend's health or addresses change.
//!
//! A turn decides about every route, so it costs the more the more routes there are, and with many backends their health changes
//! often: at a start each of them becomes known on its own. So what changes soon after a turn waits, for a multiple of what that
//! turn took, and one turn answers all of it. A change after a quiet time is answered at once.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};

use super::Control;
use crate::model::Timestamp;

/// Turns that signals wake the loop for are at least this far apart, so that a flapping name does not make it spin.
const WAKE_SPACING: Duration = Duration::from_millis(20);

/// After a turn signals do not wake the loop for so many times as long as it took: turns take a fifth of a core at most, but for
/// those of the tick.
const REST: u32 = 4;

/// The loop: a turn every tick, and when woken.
pub(super) async fn turns(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    let mut rested = Instant::now();
    loop {
        let tick = control.active.load().settings.tick;
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = due(&control.wake, tick, rested) => {}
        }
        let begun = Instant::now();
        let turning = control.clone();
        let turned = tokio::task::spawn_blocking(move || turning.turn(Timestamp::now())).await;
        if let Err(error) = turned {
            tracing::error!(%error, "a decision failed; traffic goes on as before, and it is tried again");
        }
        rested = Instant::now() + rest_after(begun.elapsed());
    }
}

/// How long nothing but the tick is answered after a turn that took this long.
fn rest_after(turn: Duration) -> Duration {
    WAKE_SPACING.max(turn.saturating_mul(REST))
}

/// Waits for the next turn: for the tick, or for something that wakes the loop once it is rested.
async fn due(wake: &Notify, tick: Duration, rested: Instant) {
    let woken = async {
        wake.notified().await;
        sleep_until(rested).await;
    };
    // What has woken it when the tick comes first is answered by that turn.
    tokio::select! {
        () = sleep(tick) => {}
        () = woken => {}
    }
}

/// Wakes the loop when a backend's health or addresses change.
pub(super) async fn wakes(control: Arc<Control>, mut stopped: watch::Receiver<bool>) {
    let mut health = control.signals.probes.changes();
    let mut names = control.signals.resolver.changes();
    let mut credentials = control.signals.credentials.changes();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            changed = health.changed() => if changed.is_err() { return },
            changed = names.changed() => if changed.is_err() { return },
            changed = credentials.changed() => if changed.is_err() { return },
        }
        control.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(1);
    const TURN: Duration = Duration::from_millis(100);

    /// Turns until `end`; gives their number.
    async fn turn_until(end: Instant, wake: &Notify) -> u32 {
        let (mut rested, mut turns) = (Instant::now(), 0);
        while Instant::now() < end {
            due(wake, TICK, rested).await;
            sleep(TURN).await;
            rested = Instant::now() + rest_after(TURN);
            turns += 1;
        }
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn changes_one_by_one_take_a_bounded_part_of_a_core() {
        let wake = Arc::new(Notify::new());
        let changes = wake.clone();
        tokio::spawn(async move {
            for _ in 0..1000 {
                sleep(Duration::from_millis(10)).await;
                changes.notify_one();
            }
        });
        let turns = turn_until(Instant::now() + Duration::from_secs(10), &wake).await;
        // A turn and its rest are half a second.
        assert!((20..=21).contains(&turns), "{turns}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_change_is_answered_at_once_and_one_right_after_a_turn_when_it_has_rested() {
        let wake = Notify::new();
        let waited = async |rested| {
            let begun = Instant::now();
            due(&wake, TICK, rested).await;
            begun.elapsed()
        };
        wake.notify_one();
        assert_eq!(waited(Instant::now()).await, Duration::ZERO);
        wake.notify_one();
        assert_eq!(waited(Instant::now() + rest_after(TURN)).await, REST * TURN);
        wake.notify_one();
        let long = Instant::now() + rest_after(TICK);
        assert_eq!(waited(long).await, TICK, "the tick does not wait for rest");
        assert_eq!(waited(long).await, TICK, "that turn has answered it");
        assert_eq!(rest_after(Duration::ZERO), WAKE_SPACING);
    }
}
