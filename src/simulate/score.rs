//! What a run came to, and what several runs say together.

use std::collections::VecDeque;

use serde::Serialize;

use super::cluster::Served;

/// Seconds in a day.
const DAY: f64 = 86_400.0;

/// Part of the requests that may be later than an objective for the 95th percentile.
const LATE_MAX: f64 = 0.05;

/// Part of the requests that may be refused: three nines are served.
const REFUSED_MAX: f64 = 0.001;

/// A move is over when less than this part of the traffic changes sides in a tick.
const STEP_MIN: f64 = 0.01;

/// A move has begun when so much of the traffic is on another side than after the move before. Less is drift: what the paid
/// minimum serves, as a share, changes with the demand.
const MOVE_MIN: f64 = 0.1;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Score {
    tick_seconds: f64,
    ticks: u64,
    usd_billed: f64,
    usd_floor: f64,
    requests: f64,
    late: f64,
    refused: f64,
    moves: u64,
    fastest_shift: f64,
    /// Shares of the last minute, the oldest first.
    last_minute: VecDeque<Vec<f64>>,
    shares: Vec<f64>,
    /// Where traffic was when the last move was over.
    at_rest: Vec<f64>,
    moving: bool,
}

impl Score {
    pub(super) fn new(count: usize, tick_seconds: f64) -> Score {
        Score { tick_seconds, shares: vec![0.0; count], at_rest: vec![0.0; count], ..Score::default() }
    }

    pub(super) fn add(&mut self, requests: f64, served: &Served) {
        self.requests += requests;
        self.late += served.late;
        self.refused += served.refused;
    }

    pub(super) fn tick(&mut self, shares: &[f64], usd: f64, floor_usd: f64) {
        self.usd_billed += usd;
        self.usd_floor += floor_usd;
        if self.ticks > 0 {
            let change = distance(&self.shares, shares);
            let minute_ago = self.last_minute.front().map_or(change, |before| distance(before, shares));
            self.fastest_shift = self.fastest_shift.max(minute_ago);
            let begins = !self.moving && distance(&self.at_rest, shares) >= MOVE_MIN;
            self.moves += u64::from(begins);
            self.moving = (self.moving || begins) && change >= STEP_MIN;
            if self.moving || begins {
                self.at_rest.copy_from_slice(shares);
            }
        } else {
            self.at_rest.copy_from_slice(shares);
        }
        self.ticks += 1;
        let ticks_a_minute = (60.0 / self.tick_seconds).ceil() as usize;
        let mut oldest = match self.last_minute.len() >= ticks_a_minute {
            true => self.last_minute.pop_front().unwrap_or_default(),
            false => Vec::new(),
        };
        oldest.clear();
        oldest.extend_from_slice(shares);
        self.last_minute.push_back(oldest);
        self.shares.copy_from_slice(shares);
    }

    /// Whether it keeps the objective, which is one for 95% of the requests, and refuses hardly any; or is late with no more, and
    /// refuses no more, than `other`.
    pub fn serves_as_well_as(&self, other: &Score) -> bool {
        self.late <= other.late.max(LATE_MAX * self.requests) + 1e-6
            && self.refused <= other.refused.max(REFUSED_MAX * self.requests) + 1e-6
    }

    pub(super) fn usd_billed(&self) -> f64 {
        self.usd_billed
    }

    fn figures(&self, optimum_usd: f64) -> [f64; FIGURES] {
        let days = (self.ticks as f64 * self.tick_seconds / DAY).max(f64::MIN_POSITIVE);
        [
            self.usd_billed,
            (self.usd_billed - self.usd_floor).max(0.0),
            if optimum_usd > 0.0 { self.usd_billed / optimum_usd } else { 1.0 },
            self.late,
            self.refused,
            self.moves as f64 / days,
            self.fastest_shift,
            self.requests,
        ]
    }
}

const FIGURES: usize = 8;

/// The part of the traffic that is on another side.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// A figure over all seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the 95% confidence interval of the mean; 0 with one seed.
    pub half_width: f64,
}

impl Estimate {
    /// By Student's t distribution: a few seeds are no large sample.
    fn of(values: &[f64]) -> Estimate {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n.max(1.0);
        if values.len() < 2 {
            return Estimate { mean, half_width: 0.0 };
        }
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Estimate { mean, half_width: t_95(values.len() - 1) * (variance / n).sqrt() }
    }
}

/// The 97.5% quantile of Student's t by degrees of freedom; between the rows of the usual table the wider one.
fn t_95(freedom: usize) -> f64 {
    const ROWS: [(usize, f64); 16] = [
        (1, 12.706),
        (2, 4.303),
        (3, 3.182),
        (4, 2.776),
        (5, 2.571),
        (6, 2.447),
        (7, 2.365),
        (8, 2.306),
        (9, 2.262),
        (10, 2.228),
        (12, 2.179),
        (15, 2.131),
        (20, 2.086),
        (30, 2.042),
        (60, 2.0),
        (120, 1.98),
    ];
    ROWS.iter().rev().find(|(row, _)| *row <= freedom).map_or(f64::INFINITY, |(_, t)| *t)
}

/// What a policy came to over all seeds. Counts are means as well.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The policy.
    pub name: String,
    /// All that was billed, in USD.
    pub usd_billed: f64,
    /// Of it, what is beyond the configured minimum, in USD.
    pub usd_avoidable: f64,
    /// What was billed over what the optimum was billed.
    pub ratio_to_optimum: f64,
    /// Requests that were answered later than the objective.
    pub over_slo: f64,
    /// Requests that were refused.
    pub refused: f64,
    /// Moves of traffic a day.
    pub moves_per_day: f64,
    /// The largest part of the traffic that changed sides within a minute.
    pub fastest_shift_per_minute: f64,
    /// Half the width of the 95% confidence interval of each figure, under the same names.
    pub ci95: Widths,
}

/// Half the widths of confidence intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "as in `Standing`")]
pub struct Widths {
    pub usd_billed: f64,
    pub usd_avoidable: f64,
    pub ratio_to_optimum: f64,
    pub over_slo: f64,
    pub refused: f64,
}

impl Standing {
    /// `runs`: by seed, with what the optimum was billed for the same seed.
    pub(super) fn of(name: &str, runs: &[(Score, f64)]) -> Standing {
        let by_run: Vec<[f64; FIGURES]> =
            runs.iter().map(|(score, optimum)| score.figures(*optimum)).collect();
        let estimate = |place: usize| Estimate::of(&by_run.iter().map(|run| run[place]).collect::<Vec<_>>());
        let [billed, avoidable, ratio, late, refused] = [0, 1, 2, 3, 4].map(estimate);
        Standing {
            name: name.to_owned(),
            usd_billed: billed.mean,
            usd_avoidable: avoidable.mean,
            ratio_to_optimum: ratio.mean,
            over_slo: late.mean,
            refused: refused.mean,
            moves_per_day: estimate(5).mean,
            fastest_shift_per_minute: by_run.iter().map(|run| run[6]).fold(0.0, f64::max),
            ci95: Widths {
                usd_billed: billed.half_width,
                usd_avoidable: avoidable.half_width,
                ratio_to_optimum: ratio.half_width,
                over_slo: late.half_width,
                refused: refused.half_width,
            },
        }
    }

    /// Mean number of requests of a run.
    pub(super) fn requests(runs: &[(Score, f64)]) -> f64 {
        runs.iter().map(|(score, _)| score.requests).sum::<f64>() / runs.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(shares: &[f64]) -> (u64, f64) {
        let mut score = Score::new(2, 60.0);
        shares.iter().for_each(|share| score.tick(&[*share, 1.0 - share], 1.0, 0.25));
        (score.moves, score.fastest_shift)
    }

    #[test]
    fn a_ramp_is_one_move_and_drift_is_none() {
        assert_eq!(moves(&[1.0, 0.9, 0.8, 0.7, 0.7, 0.8]).0, 2);
        assert!((moves(&[1.0, 0.9, 0.7]).1 - 0.2).abs() < 1e-12);
        assert_eq!(moves(&[1.0, 0.99, 0.98, 0.98, 0.97]).0, 0);
        // Over hours even drift is another distribution.
        let drift: Vec<f64> = (0..1000).map(|n| 1.0 - f64::from(n) * 0.0005).collect();
        assert_eq!(moves(&drift).0, 4);
        assert_eq!(moves(&[0.0]).0, 0, "the first placement is no move");
    }

    #[test]
    fn a_shift_is_measured_over_a_minute_whatever_a_tick_is() {
        let mut score = Score::new(2, 20.0);
        [1.0, 0.9, 0.8, 0.7, 0.6, 0.7].iter().for_each(|share| score.tick(&[*share, 1.0 - share], 1.0, 0.0));
        assert!((score.fastest_shift - 0.3).abs() < 1e-12, "{}", score.fastest_shift);
    }

    #[test]
    fn estimates_are_students() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((estimate.mean - 3.0).abs() < 1e-12);
        assert!((estimate.half_width - 2.776 * (2.5f64 / 5.0).sqrt()).abs() < 1e-9);
        assert_eq!(Estimate::of(&[7.0]), Estimate { mean: 7.0, half_width: 0.0 });
        assert_eq!([1, 11, 40, 1000].map(t_95), [12.706, 2.228, 2.042, 1.98]);
    }

    #[test]
    fn what_the_minimum_costs_is_not_avoidable() {
        let mut score = Score::new(1, 60.0);
        score.tick(&[1.0], 3.0, 1.0);
        score.tick(&[1.0], 2.0, 1.0);
        let standing = Standing::of("a", &[(score, 4.0)]);
        assert_eq!(
            (standing.usd_billed, standing.usd_avoidable, standing.ratio_to_optimum),
            (5.0, 3.0, 1.25)
        );
    }
}
