//! `tradewind simulate`: what the configured policy would have paid on recorded traffic and prices, beside others.

mod inputs;
mod text;

use std::{fs, path::PathBuf, time::Duration};

use super::{
    Failure,
    table::{self, Ink},
};
use crate::{
    config,
    model::{Share, Timestamp},
    simulate::{self, plot},
};

/// Most runs of everybody: confidence intervals hardly get narrower beyond.
const SEEDS_MAX: u64 = 1000;

/// Longest simulation: ten years.
const LENGTH_MAX: Duration = Duration::from_secs(3660 * 86_400);

/// What the configured policy would have paid on recorded traffic at recorded prices, beside other policies, other routers and
/// the best schedule in hindsight
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,

    /// Recorded prices (CSV); may be given several times. With @TIME that moment of the file is taken for --from, so that
    /// recordings of different years can be laid over each other
    #[arg(long, value_name = "FILE[@TIME]", required = true)]
    prices: Vec<String>,

    /// Recorded requests (CSV: offset_seconds,requests or offset_seconds,prompt_tokens,output_tokens)
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,

    /// How many spot nodes could be had (CSV); may be given several times. Without it spot nodes are lost by chance
    #[arg(long, value_name = "FILE")]
    availability: Vec<PathBuf>,

    /// The moment of offset 0 [default: the first price row]
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,

    /// Simulated time; shorter recordings of requests are repeated [default: as long as the recording]
    #[arg(long = "for", value_name = "DURATION", value_parser = length)]
    length: Option<Duration>,

    /// The route [default: the only one]
    #[arg(long, value_name = "NAME")]
    route: Option<String>,

    /// Factor on the number of requests
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,

    /// From one decision to the next
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    tick: Duration,

    /// A request that would wait for longer is refused
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    patience: Duration,

    /// Part of what a replica can do that its `rps` are: beyond all of it requests queue
    #[arg(long, value_name = "SHARE", default_value = "80%")]
    utilization: Share,

    /// Mean size of a response
    #[arg(long, value_name = "BYTES", default_value_t = 4096.0)]
    response_bytes: f64,

    /// The first seed: the same seed gives the same figures
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How many seeds, one after the other; what chance does shows as a confidence interval
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: u64,

    /// Everything as JSON
    #[arg(long)]
    json: bool,

    /// Draw prices, shares and spend over time
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
}

fn length(text: &str) -> Result<Duration, String> {
    config::parse_duration_within(text, LENGTH_MAX)
}

/// Simulates, and shows what came out.
///
/// # Errors
/// A wrong configuration, recording or option; a backend whose price is never known.
pub async fn run(args: Args) -> Result<(), Failure> {
    let loaded = config::load(&args.config).map_err(|faults| Failure::Input(faults.to_string()))?;
    let (scenario, notes) = inputs::scenario(&args, &loaded.settings).await.map_err(Failure::Input)?;
    let seeds: Vec<u64> = (0..args.seeds).map(|n| args.seed.wrapping_add(n)).collect();
    let report = simulate::simulate(&scenario, &seeds, args.plot.is_some(), notes);
    if let Some(path) = &args.plot {
        let failed = |error| Failure::Input(format!("--plot: {} cannot be written: {error}", path.display()));
        fs::write(path, plot::svg(&report.series, &text::heading(&report))).map_err(failed)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::Input(format!("the report cannot be written as JSON: {error}")))?;
        table::print(&format!("{json}\n"));
    } else {
        table::print(&text::page(&report, Ink::of_stdout()));
    }
    Ok(())
}
