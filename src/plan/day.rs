//! How the traffic of a day is spread over its hours.

use serde::Serialize;

use super::recording;

/// Hours in a day.
pub const HOURS: usize = 24;

/// Seconds in an hour, and in a day.
const HOUR_SECONDS: f64 = 3600.0;
const DAY_SECONDS: f64 = 86_400.0;

/// Requests by hour of the day over 14 days of the Azure Functions trace; `docs/plan.md` says how they were counted.
const RECORDED: &str = include_str!("day.csv");

/// The traffic of each hour of the day, over the mean of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Day {
    /// Where it comes from, in words.
    pub source: String,
    /// By hour from midnight (UTC) on; their mean is 1, none is below 0.
    pub hourly_factors: [f64; HOURS],
}

impl Day {
    /// The recorded day that comes with the program.
    pub fn recorded() -> Day {
        let mut requests = [0.0; HOURS];
        for (hour, line) in RECORDED.lines().skip(1).enumerate() {
            let count = line.split_once(',').and_then(|(_, count)| count.parse().ok());
            requests[hour] = count.expect("a test reads every row");
        }
        let source = "14 days of Microsoft Azure Functions (CC-BY 4.0), mean of each hour of the day";
        Day { source: source.into(), hourly_factors: normalized(requests) }
    }

    /// The same traffic in every hour.
    pub fn flat() -> Day {
        Day { source: "flat: the same traffic in every hour".into(), hourly_factors: [1.0; HOURS] }
    }

    /// The mean day of recorded requests: CSV with the columns `offset_seconds,requests` (one row a period), or
    /// `offset_seconds,prompt_tokens,output_tokens` (one row a request). Offset 0 is a midnight; what is beyond the last whole
    /// day is left out. `file` is its name in errors.
    ///
    /// # Errors
    /// The first bad line, with line, column, found and expected; less than a day; no request at all.
    pub fn of_requests(file: &str, content: &[u8]) -> Result<Day, String> {
        let rows = recording::rows(file, content)?;
        let last = rows.last().map_or(0.0, |row| row.offset_seconds);
        // A recording ends one mean pause after its last row.
        let mean_pause = if rows.len() > 1 { last / (rows.len() - 1) as f64 } else { 0.0 };
        let days = ((last + mean_pause) / DAY_SECONDS).floor();
        if days < 1.0 {
            return Err(format!(
                "{file}: found {:.1} hours of requests, expected a day or more: use --flat if nothing is known about the \
                 hours of the day",
                (last + mean_pause) / HOUR_SECONDS
            ));
        }
        let mut requests = [0.0; HOURS];
        for row in rows.into_iter().filter(|row| row.offset_seconds < days * DAY_SECONDS) {
            requests[(row.offset_seconds % DAY_SECONDS / HOUR_SECONDS) as usize % HOURS] += row.requests;
        }
        let total: f64 = requests.iter().sum();
        if !(total.is_finite() && total > 0.0) {
            return Err(format!("{file}: found {total} requests in all, expected some"));
        }
        Ok(Day { source: format!("{file}, mean day of {days}"), hourly_factors: normalized(requests) })
    }

    /// The traffic of the busiest hour, over the mean.
    pub fn peak(&self) -> f64 {
        self.hourly_factors.iter().copied().fold(0.0, f64::max)
    }
}

fn normalized(requests: [f64; HOURS]) -> [f64; HOURS] {
    let mean = requests.iter().sum::<f64>() / HOURS as f64;
    requests.map(|count| count / mean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mean(day: &Day) -> f64 {
        day.hourly_factors.iter().sum::<f64>() / HOURS as f64
    }

    #[test]
    fn the_recorded_day_is_whole() {
        let numbered = RECORDED.lines().skip(1).enumerate();
        assert!(numbered.clone().all(|(hour, line)| line.starts_with(&format!("{hour},"))));
        assert_eq!(numbered.count(), HOURS);
        let day = Day::recorded();
        assert!((mean(&day) - 1.0).abs() < 1e-12);
        // 665,767,877 of 6,144,093,847 requests came between 18 and 19 o'clock.
        assert!((day.peak() - 665_767_877.0 * 24.0 / 6_144_093_847.0).abs() < 1e-9, "{}", day.peak());
    }

    #[test]
    fn a_day_is_the_mean_of_whole_days() {
        let mut csv = String::from("offset_seconds,requests\n");
        for hour in 0..60 {
            // The second day has twice the traffic of the first; the rest of the third is left out.
            let count = if hour % 24 == 3 { 100.0 } else { 10.0 } * if hour >= 24 { 2.0 } else { 1.0 };
            csv += &format!("{},{count}\n", hour * 3600);
        }
        let day = Day::of_requests("r.csv", csv.as_bytes()).unwrap();
        assert!((day.hourly_factors[3] / day.hourly_factors[4] - 10.0).abs() < 1e-9);
        assert!((mean(&day) - 1.0).abs() < 1e-12);
        assert_eq!(day.source, "r.csv, mean day of 2");
    }

    #[test]
    fn one_row_a_request_is_read_too() {
        let row = |hour: u32| format!("{},7,9\n", hour * 3600);
        let csv =
            format!("offset_seconds,prompt_tokens,output_tokens\n{}", (0..24).map(row).collect::<String>());
        assert_eq!(Day::of_requests("r.csv", csv.as_bytes()).unwrap().hourly_factors, [1.0; HOURS]);
    }

    #[test]
    fn bad_recordings_are_named() {
        let said = |csv: &str| Day::of_requests("r.csv", csv.as_bytes()).unwrap_err();
        insta::assert_snapshot!(said(""), @"r.csv is empty: expected the header `offset_seconds,requests`");
        insta::assert_snapshot!(said("a,b\n"), @"r.csv, line 1: found the header `a,b`, expected `offset_seconds,requests` or `offset_seconds,prompt_tokens,output_tokens`");
        insta::assert_snapshot!(said("offset_seconds,requests\n0,5\n60,many\n"), @"r.csv, line 3, column 2 (requests): found `many`, expected a number of requests, 0 or more");
        insta::assert_snapshot!(said("offset_seconds,requests\n-1,5\n"), @"r.csv, line 2, column 1 (offset_seconds): found `-1`, expected seconds since the start such as 60");
        insta::assert_snapshot!(said("offset_seconds,requests\n60,5\n0,5\n"), @"r.csv, line 3, column 1 (offset_seconds): found 0, expected no less than in the line before");
        insta::assert_snapshot!(said("offset_seconds,requests\n0,5\n60,5\n"), @"r.csv: found 0.0 hours of requests, expected a day or more: use --flat if nothing is known about the hours of the day");
        insta::assert_snapshot!(said("offset_seconds,requests\n0,0\n43200,0\n"), @"r.csv: found 0 requests in all, expected some");
    }

    proptest! {
        /// No bytes make the reader panic, and what it accepts has a mean of 1.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), with_header: bool) {
            let top: &[u8] = if with_header { b"offset_seconds,requests\n" } else { b"" };
            if let Ok(day) = Day::of_requests("r.csv", &[top, &bytes].concat()) {
                prop_assert!((mean(&day) - 1.0).abs() < 1e-9);
            }
        }
    }
}
