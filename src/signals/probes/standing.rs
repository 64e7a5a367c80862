//! What a row of probes says about a backend. Pure: time is an argument.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use super::target::Timing;
use crate::model::{Health, ProbeSpec, ProbeView, Timestamp};

/// Weight of the newest probe in the smoothed times: after five probes a step has arrived to five sixths.
const NEWEST_WEIGHT: f64 = 0.3;

/// Health and smoothed times of one backend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    health: Health,
    successes: u32,
    failures: u32,
    probe: Option<ProbeView>,
    last_at: Option<Timestamp>,
    last_error: Option<Arc<str>>,
}

impl Standing {
    /// Nothing is known yet.
    pub(super) const UNKNOWN: Standing = Standing {
        health: Health::Unknown,
        successes: 0,
        failures: 0,
        probe: None,
        last_at: None,
        last_error: None,
    };

    /// Takes the outcome of a probe that ended at `now`. Whether the health changed.
    pub(super) fn note(&mut self, outcome: Result<Timing, String>, spec: &ProbeSpec, now: Timestamp) -> bool {
        let before = self.health;
        self.last_at = Some(now);
        match outcome {
            Ok(timing) => self.note_success(timing, spec, now),
            Err(error) => self.note_failure(&error, spec),
        }
        self.health != before
    }

    fn note_success(&mut self, timing: Timing, spec: &ProbeSpec, now: Timestamp) {
        self.successes = self.successes.saturating_add(1);
        self.failures = 0;
        self.last_error = None;
        // After an outage the times from before say nothing: the backend may have moved, or its replicas be new.
        let afresh = self.health == Health::Unhealthy && self.successes == 1;
        let known = self.probe.filter(|_| !afresh);
        self.probe = Some(ProbeView {
            connect: smooth(known.map(|known| known.connect), timing.connect),
            first_byte: timing.first_byte.map(|new| smooth(known.and_then(|known| known.first_byte), new)),
            at: now,
        });
        // `rise` and `fall` keep a single odd probe from overturning what is known. While nothing is known there is nothing
        // to protect, and every further probe would only keep clients waiting.
        if self.health == Health::Unknown || self.successes >= spec.rise {
            self.health = Health::Healthy;
        }
    }

    fn note_failure(&mut self, error: &str, spec: &ProbeSpec) {
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        self.last_error = Some(error.into());
        if self.health == Health::Unknown || self.failures >= spec.fall {
            self.health = Health::Unhealthy;
        }
    }

    /// Health at `now`, and the last successful probe. A result that is older than three whole probes is no news any more,
    /// whether the task that should bring them died or the clock jumped.
    pub(super) fn view(&self, spec: &ProbeSpec, now: Timestamp) -> (Health, Option<ProbeView>) {
        let oldest = spec.interval.saturating_add(spec.timeout).saturating_mul(3);
        let oldest = SignedDuration::try_from(oldest).unwrap_or(SignedDuration::MAX);
        let fresh = self.last_at.is_some_and(|at| now.duration_since(at) <= oldest);
        (if fresh { self.health } else { Health::Unknown }, self.probe)
    }

    /// Whether there has been a probe.
    pub(super) fn is_known(&self) -> bool {
        self.last_at.is_some()
    }

    /// Why the last probe failed; `None` if it did not.
    pub(super) fn last_error(&self) -> Option<Arc<str>> {
        self.last_error.clone()
    }
}

fn smooth(known: Option<Duration>, new: Duration) -> Duration {
    known.map_or(new, |known| known.mul_f64(1.0 - NEWEST_WEIGHT) + new.mul_f64(NEWEST_WEIGHT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: ProbeSpec = ProbeSpec {
        path: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ok(ms: u64) -> Result<Timing, String> {
        Ok(Timing { connect: Duration::from_millis(ms), first_byte: Some(Duration::from_millis(10 * ms)) })
    }

    fn bad() -> Result<Timing, String> {
        Err("HTTP 503".into())
    }

    #[test]
    fn health_follows_rise_and_fall_but_at_first_one_probe_is_enough() {
        let mut standing = Standing::UNKNOWN;
        assert_eq!(standing.view(&SPEC, at(0)), (Health::Unknown, None));
        assert!(standing.note(ok(1), &SPEC, at(0)), "the first success is enough");
        for (second, changed) in [(1, false), (2, false), (3, true)] {
            assert_eq!(standing.note(bad(), &SPEC, at(second)), changed);
        }
        assert_eq!(standing.last_error().as_deref(), Some("HTTP 503"));
        assert!(!standing.note(ok(1), &SPEC, at(4)));
        assert!(!standing.note(bad(), &SPEC, at(5)), "successes must be in a row");
        assert!(!standing.note(ok(1), &SPEC, at(6)));
        assert!(standing.note(ok(1), &SPEC, at(7)));
        assert_eq!(standing.view(&SPEC, at(7)).0, Health::Healthy);
        assert_eq!(standing.last_error(), None);
        let mut other = Standing::UNKNOWN;
        assert!(other.note(bad(), &SPEC, at(0)), "the first failure is enough");
        assert_eq!(other.view(&SPEC, at(0)).0, Health::Unhealthy);
    }

    #[test]
    fn times_are_smoothed_and_start_afresh_after_an_outage() {
        let mut standing = Standing::UNKNOWN;
        let _ = standing.note(ok(100), &SPEC, at(0));
        let _ = standing.note(ok(200), &SPEC, at(1));
        let view = standing.view(&SPEC, at(1)).1.unwrap();
        assert_eq!(view.connect, Duration::from_millis(130));
        assert_eq!(view.first_byte, Some(Duration::from_millis(1300)));
        for second in 2..5 {
            let _ = standing.note(bad(), &SPEC, at(second));
        }
        let _ = standing.note(ok(20), &SPEC, at(5));
        let view = standing.view(&SPEC, at(5)).1.unwrap();
        assert_eq!((view.connect, view.at), (Duration::from_millis(20), at(5)));
    }

    #[test]
    fn silence_makes_health_unknown() {
        let mut standing = Standing::UNKNOWN;
        let _ = standing.note(ok(1), &SPEC, at(0));
        assert_eq!(standing.view(&SPEC, at(21)).0, Health::Healthy);
        let (health, probe) = standing.view(&SPEC, at(22));
        assert_eq!(health, Health::Unknown);
        assert_eq!(probe.unwrap().at, at(0), "its age can be seen");
    }
}
