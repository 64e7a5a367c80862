//! What changes over time and is known beforehand: prices, and how many spot nodes can be had.

use crate::model::ZonePrice;

/// A value that holds from a moment until the next one. Moments are seconds since the start of the simulation; the first may
/// lie before it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    steps: Vec<(f64, f64)>,
}

impl Course {
    /// The steps in order of time; of two at the same moment the later one counts.
    pub fn new(mut steps: Vec<(f64, f64)>) -> Course {
        steps.sort_by(|a, b| a.0.total_cmp(&b.0));
        Course { steps }
    }

    /// The value at a moment; before the first step the first, `None` if there is none.
    pub fn at(&self, seconds: f64) -> Option<f64> {
        let begun = self.steps.partition_point(|(from, _)| *from <= seconds);
        self.steps.get(begun.saturating_sub(1)).map(|(_, value)| *value)
    }

    /// When the first value begins to hold; `None` without any.
    pub fn begins(&self) -> Option<f64> {
        self.steps.first().map(|(from, _)| *from)
    }

    fn moments(&self) -> impl Iterator<Item = f64> + '_ {
        self.steps.iter().map(|(from, _)| *from)
    }
}

/// Reads a course from one moment to the next, never back.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    steps: &'a [(f64, f64)],
    place: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(course: &'a Course) -> Reader<'a> {
        Reader { steps: &course.steps, place: 0 }
    }

    /// The value at a moment not before the last one asked for.
    pub(super) fn at(&mut self, seconds: f64) -> Option<f64> {
        while self.steps.get(self.place + 1).is_some_and(|(from, _)| *from <= seconds) {
            self.place += 1;
        }
        self.steps.get(self.place).map(|(_, value)| *value)
    }
}

/// What a backend's nodes cost over time, in USD an hour. Empty where nothing is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodePrices {
    /// A spot node.
    pub spot: Course,
    /// An on-demand node.
    pub on_demand: Course,
}

/// One price over time of those of several zones, as the backend's `zone_price` says. A zone takes part from its first price on.
pub fn of_zones(zones: &[Course], zone_price: ZonePrice) -> Course {
    if let [only] = zones {
        return only.clone();
    }
    let mut moments: Vec<f64> = zones.iter().flat_map(Course::moments).collect();
    moments.sort_by(f64::total_cmp);
    moments.dedup();
    let step = |seconds: f64| {
        let known: Vec<f64> = zones
            .iter()
            .filter(|zone| zone.begins().is_some_and(|begins| begins <= seconds))
            .filter_map(|zone| zone.at(seconds))
            .collect();
        let usd = match zone_price {
            ZonePrice::Cheapest => known.into_iter().fold(f64::INFINITY, f64::min),
            ZonePrice::Dearest => known.into_iter().fold(0.0, f64::max),
            ZonePrice::Mean => known.iter().sum::<f64>() / known.len() as f64,
        };
        (seconds, usd)
    };
    let mut steps: Vec<(f64, f64)> = moments.into_iter().map(step).collect();
    steps.dedup_by(|next, before| next.1 == before.1);
    Course { steps }
}

/// The sum of several courses; each counts as its first value before it begins.
pub fn sum(courses: &[Course]) -> Course {
    let mut moments: Vec<f64> = courses.iter().flat_map(Course::moments).collect();
    moments.sort_by(f64::total_cmp);
    moments.dedup();
    let total = |seconds: f64| (seconds, courses.iter().filter_map(|course| course.at(seconds)).sum());
    Course { steps: moments.into_iter().map(total).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_holds_until_its_next_step() {
        let course = Course::new(vec![(60.0, 2.0), (-5.0, 1.0)]);
        assert_eq!([-9.0, 0.0, 59.0, 60.0, 1e9].map(|t| course.at(t).unwrap()), [1.0, 1.0, 1.0, 2.0, 2.0]);
        let mut reader = Reader::new(&course);
        assert_eq!([-9.0, 59.0, 60.0, 60.0, 1e9].map(|t| reader.at(t).unwrap()), [1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(Course::default().at(0.0), None);
        assert_eq!(Reader::new(&Course::default()).at(0.0), None);
    }

    #[test]
    fn zones_count_as_the_policy_says_from_their_first_price_on() {
        let zones = [Course::new(vec![(0.0, 3.0), (20.0, 5.0)]), Course::new(vec![(10.0, 1.0)])];
        let at = |policy| [0.0, 10.0, 20.0].map(|t| of_zones(&zones, policy).at(t).unwrap());
        assert_eq!(at(ZonePrice::Cheapest), [3.0, 1.0, 1.0]);
        assert_eq!(at(ZonePrice::Dearest), [3.0, 3.0, 5.0]);
        assert_eq!(at(ZonePrice::Mean), [3.0, 2.0, 3.0]);
        assert_eq!([0.0, 10.0, 20.0].map(|t| sum(&zones).at(t).unwrap()), [4.0, 4.0, 6.0]);
    }
}
