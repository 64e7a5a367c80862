//! What clients ask for: requests and work, tick by tick.

use fastrand::Rng;

use crate::plan::recording::Row;

/// Part of an output token's time that a prompt token takes. Assumed: prompts are read in parallel, answers are written token
/// by token; how much that is differs from model to model.
pub const PROMPT_WEIGHT: f64 = 0.1;

/// Most ticks of a simulation: twenty years of minutes.
pub const TICKS_MAX: usize = 20 * 366 * 24 * 60;

/// Most requests of a tick: a million million is more than anybody serves, and beyond sums are no numbers any more.
const REQUESTS_MAX: f64 = 1e12;

/// Above this mean a Poisson number is drawn from the normal distribution of the same mean and variance: the difference
/// is then below what a seed changes.
const NORMAL_FROM: f64 = 50.0;

/// Expected requests of every tick, and their work in mean requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// By tick.
    requests: Vec<f32>,
    /// Work of a request over that of the mean request, by tick; empty if all are alike.
    weights: Vec<f32>,
}

/// What came of chance: requests and work of every tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrivals {
    /// Requests by tick.
    pub requests: Vec<f32>,
    /// Their work in mean requests, by tick.
    pub work: Vec<f32>,
}

impl Demand {
    /// Sorts recorded rows into ticks. Requests of a period are spread evenly over it; the last period is as long as the one
    /// before it, and a recording that is shorter than `ticks` is repeated.
    ///
    /// # Errors
    /// What is wrong with the recording, in one sentence.
    pub fn new(rows: &[Row], tick_seconds: f64, scale: f64, ticks: Option<usize>) -> Result<Demand, String> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Err("found no request, expected a row at least".to_owned());
        };
        let mean_pause = match rows.len() {
            1 => tick_seconds,
            count => (last.offset_seconds - first.offset_seconds) / (count - 1) as f64,
        };
        let single = first.tokens.is_some();
        let end = last.offset_seconds + mean_pause.max(f64::MIN_POSITIVE);
        let recorded = (end / tick_seconds - 1e-9).ceil().max(1.0) as usize;
        if recorded > TICKS_MAX {
            return Err(format!("found {recorded} ticks of requests, expected at most {TICKS_MAX}"));
        }
        let (mut requests, mut work) = (vec![0.0; recorded], vec![0.0; recorded]);
        let mean = mean_work(rows);
        for (place, row) in rows.iter().enumerate() {
            let until = rows.get(place + 1).map_or(end, |next| next.offset_seconds);
            let weight = row.tokens.map_or(1.0, |tokens| tokens_work(tokens) / mean);
            let length = if single { 0.0 } else { until - row.offset_seconds };
            spread(row.offset_seconds, length, tick_seconds, recorded, |tick, part| {
                requests[tick] += row.requests * part * scale;
                work[tick] += row.requests * part * scale * weight;
            });
        }
        if requests.iter().sum::<f64>() <= 0.0 {
            return Err("found 0 requests in all, expected some".to_owned());
        }
        if let Some(many) = requests.iter().chain(&work).find(|count| !(0.0..=REQUESTS_MAX).contains(*count))
        {
            return Err(format!("found {many} requests in a tick, expected at most {REQUESTS_MAX:e}"));
        }
        let ticks = ticks.unwrap_or(recorded);
        let repeated =
            |values: &[f64]| values.iter().cycle().take(ticks).map(|value| *value as f32).collect();
        let weights: Vec<f64> =
            requests.iter().zip(&work).map(|(n, work)| if *n > 0.0 { work / n } else { 1.0 }).collect();
        Ok(Demand {
            requests: repeated(&requests),
            weights: if single { repeated(&weights) } else { Vec::new() },
        })
    }

    /// Number of ticks.
    pub fn ticks(&self) -> usize {
        self.requests.len()
    }

    /// One draw: each tick's requests from the Poisson distribution around what is expected.
    pub fn draw(&self, seed: u64) -> Arrivals {
        let mut chance = Rng::with_seed(seed);
        let requests: Vec<f32> =
            self.requests.iter().map(|mean| poisson(&mut chance, f64::from(*mean)) as f32).collect();
        let weight = |tick: usize| self.weights.get(tick).copied().unwrap_or(1.0);
        let work = requests.iter().enumerate().map(|(tick, n)| n * weight(tick)).collect();
        Arrivals { requests, work }
    }
}

fn tokens_work((prompt, output): (f64, f64)) -> f64 {
    prompt * PROMPT_WEIGHT + output
}

fn mean_work(rows: &[Row]) -> f64 {
    let works = rows.iter().filter_map(|row| row.tokens.map(tokens_work));
    let (count, sum) = works.fold((0.0, 0.0), |(count, sum), work| (count + 1.0, sum + work));
    if sum > 0.0 { sum / count } else { 1.0 }
}

/// Gives each tick its part of a period.
fn spread(from: f64, length: f64, tick_seconds: f64, ticks: usize, mut give: impl FnMut(usize, f64)) {
    let first = ((from / tick_seconds) as usize).min(ticks - 1);
    if length <= 0.0 {
        return give(first, 1.0);
    }
    let last = (((from + length) / tick_seconds) as usize).min(ticks - 1);
    for tick in first..=last {
        let begin = (tick as f64 * tick_seconds).max(from);
        let end = ((tick + 1) as f64 * tick_seconds).min(from + length);
        if end > begin {
            give(tick, (end - begin) / length);
        }
    }
}

/// A Poisson number with this mean: by Knuth's product of uniforms where it is small, by the normal distribution where large.
fn poisson(chance: &mut Rng, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 0.0;
    }
    if mean >= NORMAL_FROM {
        // Box and Muller; 1 - u is never 0.
        let radius = (-2.0 * (1.0 - chance.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * chance.f64()).cos();
        return (mean + mean.sqrt() * normal).round().max(0.0);
    }
    let limit = (-mean).exp();
    let (mut count, mut product) = (0.0, chance.f64());
    while product > limit {
        count += 1.0;
        product *= chance.f64();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(offset_seconds: f64, requests: f64) -> Row {
        Row { offset_seconds, requests, tokens: None }
    }

    #[test]
    fn periods_are_spread_over_ticks_and_repeated() {
        let rows = [counted(0.0, 60.0), counted(120.0, 30.0)];
        let demand = Demand::new(&rows, 60.0, 2.0, Some(6)).unwrap();
        assert_eq!(demand.requests, [60.0, 60.0, 30.0, 30.0, 60.0, 60.0]);
        // A period that ends within a tick.
        let demand = Demand::new(&rows, 80.0, 1.0, None).unwrap();
        assert_eq!(demand.requests, [40.0, 30.0, 20.0]);
    }

    #[test]
    fn requests_weigh_by_their_tokens() {
        let row = |offset_seconds, output| Row { offset_seconds, requests: 1.0, tokens: Some((0.0, output)) };
        let demand =
            Demand::new(&[row(0.0, 10.0), row(61.0, 30.0), row(62.0, 20.0)], 60.0, 1.0, None).unwrap();
        assert_eq!(demand.requests, [1.0, 2.0]);
        assert_eq!(demand.weights, [0.5, 1.25]);
    }

    #[test]
    fn a_recording_without_requests_is_refused() {
        let said = |rows: &[Row]| Demand::new(rows, 60.0, 1.0, None).unwrap_err();
        insta::assert_snapshot!(said(&[]), @"found no request, expected a row at least");
        insta::assert_snapshot!(said(&[counted(0.0, 0.0)]), @"found 0 requests in all, expected some");
        insta::assert_snapshot!(said(&[counted(0.0, 1e30)]), @"found 1000000000000000000000000000000 requests in a tick, expected at most 1e12");
        insta::assert_snapshot!(said(&[counted(0.0, 1.0), counted(1e12, 1.0)]), @"found 33333333334 ticks of requests, expected at most 10540800");
    }

    #[test]
    fn a_seed_gives_the_same_draw_and_draws_have_the_mean_and_variance_of_poisson() {
        for mean in [0.3, 7.0, 80.0] {
            let rows: Vec<Row> = (0..40_000).map(|n| counted(f64::from(n) * 60.0, mean)).collect();
            let demand = Demand::new(&rows, 60.0, 1.0, None).unwrap();
            let draw = demand.draw(7);
            assert_eq!(draw, demand.draw(7));
            assert_ne!(draw, demand.draw(8));
            let n = draw.requests.len() as f64;
            let found = draw.requests.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let variance = draw.requests.iter().map(|x| (f64::from(*x) - found).powi(2)).sum::<f64>() / n;
            assert!((found / mean - 1.0).abs() < 0.03, "{found} for {mean}");
            assert!((variance / mean - 1.0).abs() < 0.06, "{variance} for {mean}");
        }
    }
}
