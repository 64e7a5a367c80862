//! `tradewind plan`: from which traffic on autoscaling, spot, a second cloud or managed endpoints pay.

mod prices;
mod text;

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Failure,
    table::{self, Ink},
};
use crate::{
    config::{self, Settings},
    model::{Backend, Timestamp},
    plan::{self, Day, Plan, Question, Traffic, plot},
    signals::notices,
};

/// Largest recording of requests: some ten million rows.
const REQUESTS_BYTES_MAX: u64 = 256 << 20;

/// Largest mean response: beyond, it is no longer one response.
const RESPONSE_BYTES_MAX: f64 = 1e12;

/// Most that anybody pays for running one cluster, in USD a month.
const OPERATION_USD_MAX: f64 = 1e9;

/// From which traffic on does autoscaling, spot, a second cloud or a managed endpoint pay? The cost of a month, line by line
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file
    #[arg(long, short, value_name = "FILE", env = "TRADEWIND_CONFIG")]
    config: PathBuf,

    /// Least traffic, in requests per second on average over the day [default: a thousandth of --to]
    #[arg(long, value_name = "RPS")]
    from: Option<f64>,

    /// Most traffic [default: what the two largest backends carry together]
    #[arg(long, value_name = "RPS")]
    to: Option<f64>,

    /// How many values of traffic to show, 2 to 200
    #[arg(long, value_name = "N", default_value_t = 25)]
    points: usize,

    /// Traffic whose cost is shown line by line [default: the one in the middle]
    #[arg(long, value_name = "RPS")]
    at: Option<f64>,

    /// Recorded requests whose mean day is taken in place of the built-in one (CSV: offset_seconds,requests)
    #[arg(long, value_name = "FILE", conflicts_with = "flat")]
    requests: Option<PathBuf>,

    /// The same traffic in every hour of the day
    #[arg(long)]
    flat: bool,

    /// Mean size of a response
    #[arg(long, value_name = "BYTES", default_value_t = 4096.0)]
    response_bytes: f64,

    /// What running a cluster costs in people's work, in USD a month; 0 leaves it out
    #[arg(long, value_name = "USD", default_value_t = 0.0)]
    operation_usd_per_cluster: f64,

    /// Take the prices of the 30 days before this time from the price files [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,

    /// Take the present prices for the whole month, also where price files hold history
    #[arg(long, conflicts_with = "until")]
    present_prices: bool,

    /// Everything as JSON
    #[arg(long)]
    json: bool,

    /// Draw it
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// Prices every strategy and says where the cheapest one changes.
///
/// # Errors
/// A wrong configuration, range or recording; nothing that can be priced.
pub async fn run(args: Args) -> Result<(), Failure> {
    check_amount("--response-bytes", args.response_bytes, RESPONSE_BYTES_MAX)?;
    check_amount("--operation-usd-per-cluster", args.operation_usd_per_cluster, OPERATION_USD_MAX)?;
    let loaded = config::load(&args.config).map_err(|faults| Failure::Input(faults.to_string()))?;
    let settings = &loaded.settings;
    let day = day(&args)?;
    let (traffic, at_rps) = traffic(&args, &settings.backends, &day)?;
    let time = match (args.until, args.present_prices) {
        (Some(until), _) => prices::Time::Until(until),
        (None, true) => prices::Time::Present,
        (None, false) => prices::Time::Now,
    };
    let known = prices::load(settings, time, Timestamp::now()).await;
    for fault in &known.faults {
        eprintln!("warning: {fault}");
    }
    let question = Question {
        backends: &settings.backends,
        prices: &known.of_backends,
        window: &known.window,
        fees: &settings.fees,
        day: &day,
        response_bytes: args.response_bytes,
        operation_usd_per_cluster: args.operation_usd_per_cluster,
        assumed_interruptions: notices::assumed_per_node_hour,
    };
    let plan = plan::plan(&question, &traffic, at_rps);
    if plan.strategies.is_empty() {
        return Err(Failure::Input(nothing_priced(&args.config, settings, &plan)));
    }
    if let Some(path) = &args.plot {
        let failed = |error| Failure::Input(format!("--plot: {} cannot be written: {error}", path.display()));
        fs::write(path, plot::svg(&plan)).map_err(failed)?;
    }
    if args.json {
        let json = serde_json::to_string_pretty(&plan)
            .map_err(|error| Failure::Input(format!("the plan cannot be written as JSON: {error}")))?;
        table::print(&format!("{json}\n"));
    } else {
        table::print(&text::page(&plan, Ink::of_stdout()));
    }
    Ok(())
}

fn check_amount(name: &str, amount: f64, most: f64) -> Result<(), Failure> {
    if (0.0..=most).contains(&amount) {
        return Ok(());
    }
    Err(Failure::Input(format!("{name}: found {amount}, expected 0 to {most}")))
}

/// How the traffic of a day is spread over its hours.
fn day(args: &Args) -> Result<Day, Failure> {
    let Some(path) = &args.requests else {
        return Ok(if args.flat { Day::flat() } else { Day::recorded() });
    };
    let content = read(path).map_err(|problem| {
        Failure::Input(format!("--requests: {} cannot be read: {problem}", path.display()))
    })?;
    Day::of_requests(&path.display().to_string(), &content)
        .map_err(|problem| Failure::Input(format!("--requests: {problem}")))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(REQUESTS_BYTES_MAX + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() as u64 > REQUESTS_BYTES_MAX {
        return Err(format!("it is longer than {REQUESTS_BYTES_MAX} bytes"));
    }
    Ok(content)
}

/// The range of traffic, and the one to show line by line.
fn traffic(args: &Args, backends: &[Arc<Backend>], day: &Day) -> Result<(Traffic, f64), Failure> {
    let replicas = backends.iter().filter_map(|backend| backend.replicas.as_ref());
    let mut capacities: Vec<f64> = replicas.map(|replicas| replicas.capacity_rps(replicas.max)).collect();
    capacities.sort_by(|a, b| b.total_cmp(a));
    let capacity_rps: f64 = capacities.iter().take(2).sum();
    if capacity_rps == 0.0 {
        return Err(Failure::Input(format!(
            "{}: no backend says what it can serve: give one `node` and `replicas`",
            args.config.display()
        )));
    }
    for (name, rps) in [("--from", args.from), ("--to", args.to)] {
        rps.map_or(Ok(0.0), |rps| Traffic::check(name, rps)).map_err(Failure::Input)?;
    }
    let (least, most) = Traffic::up_to(capacity_rps / day.peak());
    let to = args.to.unwrap_or_else(|| args.from.map_or(most, |from| f64::max(most, from * 1000.0)));
    let from = args.from.unwrap_or_else(|| if args.to.is_some() { to / 1000.0 } else { least });
    let traffic = Traffic::new(from, to, args.points).map_err(Failure::Input)?;
    let at_rps = args.at.map_or(Ok(traffic.middle()), |rps| Traffic::check("--at", rps));
    Ok((traffic, at_rps.map_err(Failure::Input)?))
}

fn nothing_priced(file: &Path, settings: &Settings, plan: &Plan) -> String {
    let backends = settings.backends.len();
    let mut message =
        format!("{}: none of its {backends} backends can be priced under any strategy:", file.display());
    for unknown in &plan.unknown {
        message.push_str(&format!("\n  {}: {}", unknown.id, unknown.why));
    }
    message
}
