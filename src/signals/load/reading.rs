//! What a source said, and what it is worth later. Pure: time is an argument.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;

use crate::model::{LoadReport, Timestamp};

/// Saturation that counts as full use: servers that overcommit say a little more than 1. More than twice is a percentage.
const OVERCOMMIT_MAX: f64 = 2.0;

/// What one source says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// Replicas that are ready.
    pub(super) ready: Option<u32>,
    /// Requests that wait.
    pub(super) queued: Option<f64>,
    /// Requests that are worked on.
    pub(super) running: Option<f64>,
    /// Part of the scarcest resource in use, 0 to 1.
    pub(super) saturation: Option<f64>,
}

/// A figure that makes sense: finite, not negative, and a part if it shall be one.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn checked(name: &str, value: f64, is_part: bool) -> Result<f64, String> {
    if !value.is_finite() || value < 0.0 {
        return Err(format!("`{name}` is {value}, expected a finite number from 0 on"));
    }
    if !is_part {
        return Ok(value);
    }
    match value <= OVERCOMMIT_MAX {
        true => Ok(value.min(1.0)),
        false => Err(format!("`{name}` is {value}, expected 0 to 1: a part, not a percentage")),
    }
}

/// What one source said last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) said: Said,
    /// When.
    pub(super) at: Timestamp,
    /// Requests that this program had under way there at that time.
    pub(super) in_flight: u64,
    /// Whether it speaks of one replica, and not of all.
    pub(super) of_one_replica: bool,
}

/// The last word of a source, and its last fault.
#[derive(Clone, Debug, Default)]
pub(super) struct Feed {
    pub(super) reading: Option<Reading>,
    pub(super) fault: Option<Arc<str>>,
}

impl Feed {
    /// Takes an answer, or why there is none: then what was said last stays, and ages.
    pub(super) fn note(&mut self, outcome: Result<Reading, String>) {
        match outcome {
            Ok(reading) => *self = Feed { reading: Some(reading), fault: None },
            Err(fault) => self.fault = Some(fault.into()),
        }
    }

    /// What was said, if it is no older than `age_max`. Said in the future counts as old: the clock was set back, and nobody
    /// knows when it was.
    pub(super) fn recent(&self, age_max: Duration, now: Timestamp) -> Option<&Reading> {
        let age_max = SignedDuration::try_from(age_max).unwrap_or(SignedDuration::MAX);
        let age = |reading: &Reading| now.duration_since(reading.at);
        self.reading.as_ref().filter(|reading| age(reading) <= age_max && age(reading) >= -age_max)
    }
}

/// What all sources together say, each figure from the first that has it. `in_flight`: requests that this program has under
/// way there now.
pub(super) fn joined(readings: &[&Reading], in_flight: u64) -> LoadReport {
    let queue = readings.iter().find(|reading| reading.said.queued.is_some());
    LoadReport {
        ready_replicas: readings.iter().find_map(|reading| reading.said.ready),
        queued: queue.and_then(|reading| reading.said.queued),
        queued_at_one: queue.is_some_and(|reading| reading.of_one_replica),
        arrived_since: queue.map_or(0.0, |reading| in_flight.saturating_sub(reading.in_flight) as f64),
        saturation: readings.iter().find_map(|reading| reading.said.saturation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn reading(said: Said, in_flight: u64, of_one_replica: bool) -> Reading {
        Reading { said, at: at(0), in_flight, of_one_replica }
    }

    #[test]
    fn what_is_old_is_no_report_and_a_fault_leaves_the_last_word() {
        let mut feed = Feed::default();
        feed.note(Err("refused".into()));
        assert!(feed.recent(Duration::from_secs(15), at(0)).is_none(), "never zero");
        feed.note(Ok(reading(Said { queued: Some(1.0), ..Said::default() }, 0, false)));
        assert_eq!(feed.fault, None);
        feed.note(Err("refused".into()));
        assert!(feed.recent(Duration::from_secs(15), at(15)).is_some());
        assert!(feed.recent(Duration::from_secs(15), at(16)).is_none());
        assert!(feed.recent(Duration::from_secs(15), at(-16)).is_none(), "the clock was set back");
        assert_eq!(feed.fault.as_deref(), Some("refused"));
    }

    #[test]
    fn each_figure_is_that_of_the_first_source_that_has_it() {
        let all = reading(Said { ready: Some(4), ..Said::default() }, 9, false);
        let own = Said { ready: None, queued: Some(2.0), running: Some(8.0), saturation: Some(0.5) };
        let own = reading(own, 10, true);
        let orca = reading(Said { saturation: Some(0.9), ..Said::default() }, 0, true);
        let report = joined(&[&all, &own, &orca], 13);
        let expected = LoadReport {
            ready_replicas: Some(4),
            queued: Some(2.0),
            queued_at_one: true,
            arrived_since: 3.0,
            saturation: Some(0.5),
        };
        assert_eq!(report, expected);
        // Two at each of four replicas, and three that came since.
        assert_eq!(report.waiting(4.0), Some(11.0));
        assert_eq!(joined(&[&own], 4).arrived_since, 0.0, "fewer than then are no queue that has gone");
        assert_eq!(joined(&[], 13), LoadReport::default(), "of what nobody reports nothing is known");
        assert_eq!(LoadReport { arrived_since: 5.0, ..LoadReport::default() }.waiting(1.0), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (value, is_part) in [(f64::NAN, false), (f64::INFINITY, false), (-0.1, true), (85.0, true)] {
            assert!(checked("x", value, is_part).is_err(), "{value}");
        }
        assert_eq!(checked("x", 85.0, false), Ok(85.0));
        assert_eq!(checked("x", 1.02, true), Ok(1.0));
    }
}
