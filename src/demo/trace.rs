//! Recorded requests: when each came, and how long its answer was.

use std::time::Duration;

use serde::Deserialize;

/// One recorded request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// When it came, counted from the start of the recording.
    pub offset: Duration,
    /// Length of its answer, in tokens.
    pub output_tokens: u32,
}

/// A recording that is played over and over. Never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    requests: Vec<Recorded>,
    cycle: Duration,
}

#[derive(Deserialize)]
struct Row {
    offset_seconds: f64,
    output_tokens: u32,
}

impl Trace {
    /// Reads `offset_seconds,prompt_tokens,output_tokens`. A round ends one mean pause after the last request.
    pub fn parse(csv: &str) -> Result<Trace, String> {
        let mut requests: Vec<Recorded> = Vec::new();
        for row in csv::Reader::from_reader(csv.as_bytes()).deserialize::<Row>() {
            let row = row.map_err(|e| format!("recorded requests: {e}"))?;
            let offset = Duration::try_from_secs_f64(row.offset_seconds)
                .map_err(|e| format!("recorded requests: offset {}: {e}", row.offset_seconds))?;
            if requests.last().is_some_and(|last| last.offset > offset) {
                return Err(format!("recorded requests: offset {} is out of order", row.offset_seconds));
            }
            requests.push(Recorded { offset, output_tokens: row.output_tokens });
        }
        let last = requests.last().ok_or("recorded requests: there is none")?.offset;
        let count = u32::try_from(requests.len()).map_err(|_| "recorded requests: too many".to_owned())?;
        let cycle = last + (last / count).max(Duration::from_millis(1));
        Ok(Trace { requests, cycle })
    }

    /// The `number`-th request, over all rounds, with its offset from the start of the first.
    pub fn request(&self, number: u64) -> Recorded {
        let len = self.requests.len() as u64;
        let recorded = self.requests[(number % len) as usize];
        Recorded { offset: self.cycle.mul_f64((number / len) as f64) + recorded.offset, ..recorded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scenario::REQUESTS_CSV;

    #[test]
    fn the_recording_goes_round() {
        let trace =
            Trace::parse("offset_seconds,prompt_tokens,output_tokens\n0,5,8\n2,5,16\n").expect("valid");
        let offsets: Vec<_> = (0..5).map(|n| trace.request(n).offset.as_secs()).collect();
        assert_eq!(offsets, [0, 2, 3, 5, 6]);
        assert_eq!(trace.request(3).output_tokens, 16);
    }

    #[test]
    fn the_recording_of_the_demo_stays_within_what_two_cores_can_do() {
        let trace = Trace::parse(REQUESTS_CSV).expect("the embedded file is valid");
        let speed = crate::demo::scenario::REQUESTS_SPEED;
        let per_second = trace.requests.len() as f64 / trace.cycle.as_secs_f64() * speed;
        assert!((90.0..130.0).contains(&per_second), "{per_second} requests/s");
    }

    #[test]
    fn a_bad_recording_is_refused() {
        for bad in ["a,b\n1,2\n", "offset_seconds,output_tokens\n", "offset_seconds,output_tokens\n-1,2\n"] {
            assert!(Trace::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(Trace::parse("offset_seconds,output_tokens\n2,2\n1,2\n").is_err());
    }
}
