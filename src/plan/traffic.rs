//! The range of traffic that a plan looks at.

/// Fewest and most points of a plan: two ends, and no more than anybody reads; each is priced line by line.
const POINTS: std::ops::RangeInclusive<usize> = 2..=200;

/// Least and most traffic, in requests per second: one request in some days, and more than all that is served on earth. Beyond, sums
/// of costs are no numbers any more.
const RPS: std::ops::RangeInclusive<f64> = 1e-6..=1e9;

/// Digits of the points between the ends, so that people can type them.
const DIGITS: i32 = 3;

/// Mean traffic from the least to the most that is looked at, in requests per second: each is greater than the one before
/// by about the same factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic(Vec<f64>);

impl Traffic {
    /// `points` of them, the ends among them.
    ///
    /// # Errors
    /// What is wrong with the range, in one sentence.
    pub fn new(from_rps: f64, to_rps: f64, points: usize) -> Result<Traffic, String> {
        Traffic::check("--from", from_rps)?;
        Traffic::check("--to", to_rps)?;
        if from_rps >= to_rps {
            return Err(format!("--from: found {from_rps}, expected less than --to, which is {to_rps}"));
        }
        if !POINTS.contains(&points) {
            return Err(format!("--points: found {points}, expected {} to {}", POINTS.start(), POINTS.end()));
        }
        let factor = (to_rps / from_rps).ln();
        let between = (1..points - 1).map(|i| {
            let exact = from_rps * (factor * i as f64 / (points - 1) as f64).exp();
            rounded(exact, DIGITS)
        });
        let mut all = vec![from_rps];
        for rps in between.chain([to_rps]) {
            // In a narrow range several are rounded to the same.
            if all.last().is_some_and(|last| *last < rps) && rps <= to_rps {
                all.push(rps);
            }
        }
        Ok(Traffic(all))
    }

    /// The least and the most of a range that ends just below `most_rps`: three decades.
    pub fn up_to(most_rps: f64) -> (f64, f64) {
        let digit = 10f64.powf(most_rps.log10().floor() - 1.0);
        let most = rounded((most_rps / digit).floor() * digit, 2).clamp(RPS.start() * 2e3, *RPS.end());
        (rounded(most / 1000.0, 2), most)
    }

    /// In rising order; at least two.
    pub fn points(&self) -> &[f64] {
        &self.0
    }

    /// The one in the middle.
    pub fn middle(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// Whether `rps` can be asked about.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(name: &str, rps: f64) -> Result<f64, String> {
        let within = RPS.contains(&rps);
        within.then_some(rps).ok_or_else(|| {
            format!("{name}: found {rps} requests per second, expected {} to {}", RPS.start(), RPS.end())
        })
    }
}

/// A positive number with so many significant digits.
pub(super) fn rounded(number: f64, digits: i32) -> f64 {
    format!("{number:.*e}", (digits - 1) as usize).parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn points_are_numbers_that_people_can_type() {
        let traffic = Traffic::new(1.0, 1000.0, 7).unwrap();
        assert_eq!(traffic.points(), [1.0, 3.16, 10.0, 31.6, 100.0, 316.0, 1000.0]);
        assert_eq!(traffic.middle(), 31.6);
        assert_eq!(Traffic::new(1.0, 1.001, 9).unwrap().points(), [1.0, 1.001]);
        assert_eq!(Traffic::up_to(138.426), (0.13, 130.0));
        assert_eq!(Traffic::up_to(0.0312), (0.000_031, 0.031));
    }

    #[test]
    fn a_bad_range_is_named() {
        let said = |from, to, points| Traffic::new(from, to, points).unwrap_err();
        insta::assert_snapshot!(said(5.0, 5.0, 9), @"--from: found 5, expected less than --to, which is 5");
        insta::assert_snapshot!(said(0.0, 5.0, 9), @"--from: found 0 requests per second, expected 0.000001 to 1000000000");
        insta::assert_snapshot!(said(1.0, f64::NAN, 9), @"--to: found NaN requests per second, expected 0.000001 to 1000000000");
        insta::assert_snapshot!(said(1.0, f64::INFINITY, 9), @"--to: found inf requests per second, expected 0.000001 to 1000000000");
        insta::assert_snapshot!(said(1.0, 5.0, 1), @"--points: found 1, expected 2 to 200");
    }

    proptest! {
        #[test]
        fn points_rise_from_end_to_end(from in 1e-6f64..1e6, factor in 1.000_001f64..1e3, points in 2usize..200) {
            let traffic = Traffic::new(from, from * factor, points).unwrap();
            let all = traffic.points();
            prop_assert!(all.len() >= 2 && all.len() <= points);
            prop_assert_eq!((all[0], *all.last().unwrap()), (from, from * factor));
            prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
