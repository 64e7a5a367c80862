//! Prices that depend on the volume of a month.

use serde::Serialize;

use super::row::{Fee, Row, in_gb};

/// What a GB (10^9 bytes) costs by the volume of the month: each part of the volume costs what its tier says.
///
/// Providers count the volume of all that an account sends, not only of what is sent here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tiers {
    /// The tier that every month begins in.
    first: Fee,
    /// The others, by the GB of the month from which they hold, in rising order.
    others: Vec<(f64, Fee)>,
}

impl Tiers {
    /// The tiers of a row, per GB. `None` for a row without steps.
    pub(super) fn of(row: &Row) -> Option<Tiers> {
        let mut steps = row.steps.iter().map(|(from, fee)| (in_gb(*from, fee.unit), fee.per_gb()));
        let (_, first) = steps.next()?;
        Some(Tiers { first, others: steps.collect() })
    }

    /// Price of the first GB of a month, in USD per GB: in the tables here the dearest tier.
    pub fn first(&self) -> &Fee {
        &self.first
    }

    /// Price of one more GB after `gb_per_month`, in USD per GB.
    pub fn at(&self, gb_per_month: f64) -> &Fee {
        let begun = self.others.partition_point(|(from, _)| *from <= gb_per_month);
        begun.checked_sub(1).and_then(|last| self.others.get(last)).map_or(&self.first, |(_, fee)| fee)
    }

    /// What `gb_per_month` cost, in USD a month. Less than nothing costs nothing.
    pub fn usd_for(&self, gb_per_month: f64) -> f64 {
        self.parts(gb_per_month).map(|(gb, fee)| gb * fee.usd).sum()
    }

    /// The GB of `gb_per_month` that fall into each tier, from the first to the last that is reached. Less than nothing is
    /// nothing in the first.
    pub fn parts(&self, gb_per_month: f64) -> impl Iterator<Item = (f64, &Fee)> {
        let begins = std::iter::once(0.0).chain(self.others.iter().map(|(from, _)| *from));
        let ends = self.others.iter().map(|(from, _)| *from).chain([f64::INFINITY]);
        let prices = std::iter::once(&self.first).chain(self.others.iter().map(|(_, fee)| fee));
        // `max` also makes 0 of NaN: what is no number is no volume.
        let volume = gb_per_month.max(0.0);
        let tiers = begins.zip(ends).zip(prices);
        let reached = tiers.filter(move |((begin, _), _)| *begin == 0.0 || *begin < volume);
        reached.map(move |((begin, end), fee)| ((volume.min(end) - begin).max(0.0), fee))
    }
}
