//! What nodes cost in the hours of the month that is priced.

use serde::Serialize;

use super::{MONTH_HOURS, day::HOURS};
use crate::model::Timestamp;

/// The hours that stand for the month.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Window {
    /// When the first of them began; `None` where prices do not change, and one day stands for all.
    pub from: Option<Timestamp>,
    /// The hour of the day (UTC) of the first, 0 to 23.
    pub first_hour_of_day: usize,
    /// How many there are: whole days, at least one.
    pub hours: usize,
}

impl Window {
    /// One day that stands for all: prices do not change.
    pub const DAY: Window = Window { from: None, first_hour_of_day: 0, hours: HOURS };

    /// Hours of the month that each hour of the window stands for.
    pub fn weight(&self) -> f64 {
        MONTH_HOURS / self.hours as f64
    }

    /// The hour of the day of an hour of the window.
    pub(super) fn hour_of_day(&self, hour: usize) -> usize {
        (self.first_hour_of_day + hour) % HOURS
    }
}

/// A price that holds from one hour of the window on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The hour of the window, from 0.
    pub from_hour: usize,
    /// USD for an hour of a node.
    pub usd_per_hour: f64,
    /// From when the provider charges it.
    pub observed_at: Timestamp,
}

/// The prices of a node over the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// Who says so, `file:prices.csv`.
    pub source: String,
    /// By time; the first is from hour 0. Never empty.
    pub steps: Vec<Step>,
    /// What is unusual about it, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Course {
    /// The price in an hour of the window.
    pub fn at(&self, hour: usize) -> f64 {
        let begun = self.steps.partition_point(|step| step.from_hour <= hour).max(1);
        self.steps[begun - 1].usd_per_hour
    }

    /// Whether it changes.
    pub fn changes(&self) -> bool {
        self.steps.iter().any(|step| step.usd_per_hour != self.steps[0].usd_per_hour)
    }

    /// The price, if it is always the same; otherwise what `usd` for `node_hours` is for one, or the mean if there are none.
    pub(super) fn unit(&self, usd: f64, node_hours: f64, window: &Window) -> f64 {
        if !self.changes() {
            self.steps[0].usd_per_hour
        } else if node_hours > 0.0 {
            usd / node_hours
        } else {
            self.mean(window)
        }
    }

    /// Its mean over the window.
    pub(super) fn mean(&self, window: &Window) -> f64 {
        (0..window.hours).map(|hour| self.at(hour)).sum::<f64>() / window.hours as f64
    }

    /// Source and date, for people.
    pub(super) fn said_by(&self) -> String {
        if self.changes() {
            return format!("{}, the mean of the hours used, of {} prices", self.source, self.steps.len());
        }
        format!("{}, charged from {}", self.source, self.steps[0].observed_at.strftime("%Y-%m-%d"))
    }
}

/// What nodes of a backend cost, or why that is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePrices {
    /// As spot.
    pub spot: Result<Course, String>,
    /// On demand.
    pub on_demand: Result<Course, String>,
}
