//! `tradewind demo`: the whole product on one machine, at real prices.

use std::time::Duration;

use super::{
    Failure,
    table::{self, Ink},
};
use crate::{config, demo};

/// Longest demo: beyond, one wants `tradewind run`.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);
/// Fastest replay: 100 recorded days in a second are gone before a move can be decided.
const SPEED_MAX: f64 = 100.0 * 86_400.0;

/// Watch Tradewind route between three simulated clusters at real spot prices
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long it takes, such as 60s or 2m
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    duration: Duration,

    /// Recorded seconds of prices that pass in one second [default: all of the recording passes in --for]
    #[arg(long, value_name = "N", value_parser = parse_speed)]
    speed: Option<f64>,

    /// Port of the front door on 127.0.0.1; 0 for a free one
    #[arg(long, default_value_t = 0)]
    port: u16,

    /// Port of the admin API on 127.0.0.1; 0 for a free one
    #[arg(long, default_value_t = 0)]
    admin_port: u16,

    /// Seed of the simulated latencies and answers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the demo and prints its summary, also when it is interrupted.
///
/// # Errors
/// When it cannot start, or a request failed.
pub async fn run(args: Args) -> Result<(), Failure> {
    let options = demo::Options {
        duration: args.duration,
        speed: args.speed,
        port: args.port,
        admin_port: args.admin_port,
        seed: args.seed,
        colour: Ink::of_stdout() == Ink::Colour,
    };
    let summary = demo::run(options).await.map_err(|error| Failure::Input(error.to_string()))?;
    table::print(&summary.to_string());
    match summary.totals.failed {
        0 => Ok(()),
        failed => {
            Err(Failure::Input(format!("{failed} requests of the demo failed; the summary has the reasons")))
        }
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    match config::parse_duration(text)? {
        Duration::ZERO => Err("the demo takes some time: expected more than 0s".into()),
        long if long > DURATION_MAX => Err(format!("`{text}` is too long: expected at most 24h")),
        duration => Ok(duration),
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| *speed > 0.0 && *speed <= SPEED_MAX);
    speed.ok_or_else(|| format!("`{text}` is not a speed: expected a number above 0, at most {SPEED_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_speeds_are_read_or_refused() {
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "60", "0s", "25h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(parse_speed("3600"), Ok(3600.0));
        for bad in ["0", "-1", "NaN", "inf", "x", "1e9"] {
            assert!(parse_speed(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
