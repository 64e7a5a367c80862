//! From files and options to a scenario.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::Args;
use crate::{
    config::{PriceSource, Prices, Settings},
    model::{Backend, BackendId, InterruptionRate, Offer, RateBasis, Route, Share, Timestamp},
    plan::recording,
    signals::{
        notices::assumed_per_node_hour,
        prices::{PriceSeries, history},
    },
    simulate::{
        SITES_MAX, Scenario, Site,
        availability::Availability,
        demand::{Demand, TICKS_MAX},
        market::{Course, NodePrices, of_zones},
    },
};

/// Largest recording: some ten million rows.
const RECORDING_BYTES_MAX: u64 = 256 << 20;

/// Largest factor on requests, and largest mean response: beyond, sums are no numbers any more.
const SCALE_MAX: f64 = 1e9;
const RESPONSE_BYTES_MAX: f64 = 1e12;

/// A tick is at least so long, and at most: a decision accounts for no more than a minute since the one before.
const TICK: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Everything that is simulated, and what one should know about it.
pub(super) async fn scenario(args: &Args, settings: &Settings) -> Result<(Scenario, Vec<String>), String> {
    check("--scale", args.scale, f64::MIN_POSITIVE, SCALE_MAX)?;
    check("--response-bytes", args.response_bytes, 0.0, RESPONSE_BYTES_MAX)?;
    if !TICK.contains(&args.tick) {
        return Err(format!("--tick: found {:?}, expected 1 s to 1 min", args.tick));
    }
    if args.utilization == Share::ZERO {
        return Err("--utilization: found 0%, expected more".to_owned());
    }
    let route = route(args, settings)?;
    let tick_seconds = args.tick.as_secs_f64();
    let demand = demand(args, tick_seconds)?;
    let backends = backends(args, settings, route)?;
    let mut notes = Vec::new();
    let (from, prices) = prices(args, &backends).await?;
    let availability = availability(args)?;
    let mut sites = Vec::with_capacity(backends.len());
    for backend in backends {
        let prices = node_prices(&backend, &prices);
        complain_of_missing(&backend, &prices, &args.prices)?;
        note_of_prices(&backend, &prices, &mut notes);
        let supply = availability.of(&backend).filter(|_| backend.has_spot_nodes());
        let interruptions = interruptions(&backend);
        if supply.is_none() && backend.has_spot_nodes() {
            notes.push(format!(
                "{}: no recording says how many spot nodes could be had: any number, each lost by chance {} times an hour ({})",
                backend.id,
                interruptions.per_node_hour,
                interruptions.basis.as_str()
            ));
        }
        if let (Some(begins), Some(_)) = (supply.as_ref().and_then(Course::begins), &supply)
            && begins > 0.0
        {
            notes.push(format!("{}: availability before {begins} s is taken from its first row", backend.id));
        }
        sites.push(Site { backend, prices, supply, interruptions });
    }
    if route.slo.ttft_p95.is_none() {
        notes.push(format!("route {} has no `slo`: no request counts as late", route.id));
    }
    if settings.rules.contains_key(&route.policy.id) || route.policy.keep_warm > Share::ZERO {
        notes.push(
            "the optimum and the other routers know neither the rules nor the `keep_warm` of the policy"
                .into(),
        );
    }
    let scenario = Scenario {
        route: route.id.clone(),
        slo: route.slo.ttft_p95,
        policy: (*route.policy).clone(),
        rules: settings.rules.get(&route.policy.id).cloned().unwrap_or_default(),
        sites,
        demand,
        from,
        tick_seconds,
        patience: args.patience,
        utilization: args.utilization.get(),
        response_bytes: args.response_bytes,
    };
    Ok((scenario, notes))
}

fn check(name: &str, amount: f64, least: f64, most: f64) -> Result<(), String> {
    let within = (least..=most).contains(&amount);
    let least = if least == f64::MIN_POSITIVE { "more than 0".to_owned() } else { least.to_string() };
    within.then_some(()).ok_or_else(|| format!("{name}: found {amount}, expected {least} to {most}"))
}

fn route<'a>(args: &Args, settings: &'a Settings) -> Result<&'a Route, String> {
    let names = || settings.routes.iter().map(|route| route.id.as_str()).collect::<Vec<_>>().join(", ");
    match (&args.route, &settings.routes[..]) {
        (Some(name), routes) => routes
            .iter()
            .map(|route| &**route)
            .find(|route| route.id.as_str() == name)
            .ok_or_else(|| format!("--route: found {name}, expected one of {}", names())),
        (None, [only]) => Ok(only),
        (None, _) => Err(format!(
            "{} has {} routes, and one is simulated at a time: choose with --route among {}",
            args.config.display(),
            settings.routes.len(),
            names()
        )),
    }
}

fn demand(args: &Args, tick_seconds: f64) -> Result<Demand, String> {
    let ticks = match args.length {
        None => None,
        Some(length) => {
            let ticks = (length.as_secs_f64() / tick_seconds).ceil() as usize;
            if !(1..=TICKS_MAX).contains(&ticks) {
                return Err(format!(
                    "--for: found {ticks} ticks of {tick_seconds} s, expected 1 to {TICKS_MAX}"
                ));
            }
            Some(ticks)
        }
    };
    let file = args.requests.display().to_string();
    let content = read("--requests", &args.requests)?;
    let rows = recording::rows(&file, &content).map_err(|problem| format!("--requests: {problem}"))?;
    Demand::new(&rows, tick_seconds, args.scale, ticks)
        .map_err(|problem| format!("--requests: {file}: {problem}"))
}

fn availability(args: &Args) -> Result<Availability, String> {
    let mut availability = Availability::default();
    for path in &args.availability {
        let content = read("--availability", path)?;
        let added = availability.add(&path.display().to_string(), &content);
        added.map_err(|problem| format!("--availability: {problem}"))?;
    }
    Ok(availability)
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    let failed = |problem: String| format!("{option}: {} cannot be read: {problem}", path.display());
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(RECORDING_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| failed(error.to_string()))?;
    if content.len() as u64 > RECORDING_BYTES_MAX {
        return Err(failed(format!("it is longer than {RECORDING_BYTES_MAX} bytes")));
    }
    Ok(content)
}

/// The backends of the route, each of which says what it serves and what that costs.
fn backends(args: &Args, settings: &Settings, route: &Route) -> Result<Vec<Arc<Backend>>, String> {
    let find = |id: &BackendId| settings.backends.iter().find(|backend| backend.id == *id).cloned();
    let backends: Vec<Arc<Backend>> = route.backends.iter().filter_map(find).collect();
    if backends.len() > SITES_MAX {
        return Err(format!(
            "route {} has {} backends: found more than {SITES_MAX}",
            route.id,
            backends.len()
        ));
    }
    for backend in &backends {
        let missing = match (&backend.replicas, &backend.node, &backend.managed) {
            (None, _, _) => "`replicas`, which say what it serves",
            (_, None, None) => "a `node` (or `managed`), which says what it costs",
            _ if backend.egress_usd_per_gb.is_none() => "`egress_usd_per_gb`, which no table knows for it",
            _ => continue,
        };
        return Err(format!(
            "{}: backend {} cannot be simulated without {missing}",
            args.config.display(),
            backend.id
        ));
    }
    Ok(backends)
}

/// Steps of one price, in seconds since the start.
struct Steps {
    backend: BackendId,
    offer: Offer,
    course: Course,
}

/// The start, and every price of every backend over time.
async fn prices(args: &Args, backends: &[Arc<Backend>]) -> Result<(Timestamp, Vec<Steps>), String> {
    let mut files = Vec::with_capacity(args.prices.len());
    for named in &args.prices {
        let (path, laid_on) =
            match named.rsplit_once('@').map(|(path, time)| (path, time.parse::<Timestamp>())) {
                Some((path, Ok(time))) => (path, Some(time)),
                // A name with an @ in it.
                _ => (named.as_str(), None),
            };
        let settings = Prices {
            sources: vec![PriceSource::File { path: PathBuf::from(path), replay: None }],
            refresh: Duration::from_secs(1),
            stale_after: Duration::from_secs(2),
            max_step: 1.0,
        };
        let all_time = Timestamp::MAX.duration_since(Timestamp::MIN).unsigned_abs();
        let found = history(&settings, backends, all_time, Timestamp::MAX).await;
        if let Some(fault) = found.faults.first() {
            return Err(format!("--prices: {fault}"));
        }
        files.push((laid_on, found.series));
    }
    let first_row = files
        .iter()
        .filter(|(laid_on, _)| laid_on.is_none())
        .flat_map(|(_, series)| series)
        .filter_map(|series| series.changes.first())
        .map(|change| change.at)
        .min();
    let from = args.from.or(first_row).or_else(|| files.iter().find_map(|(laid_on, _)| *laid_on));
    let from = from.ok_or_else(|| nothing_priced(args, backends))?;
    let mut steps = Vec::new();
    for (laid_on, series) in files {
        steps.extend(of_file(backends, &series, laid_on.unwrap_or(from)));
    }
    Ok((from, steps))
}

fn nothing_priced(args: &Args, backends: &[Arc<Backend>]) -> String {
    let machines: Vec<String> = backends
        .iter()
        .filter_map(|b| Some(format!("{} in {} {}", b.node.as_ref()?.priced_as(), b.cloud, b.region)))
        .collect();
    if machines.is_empty() {
        return "--from: nothing says when to start, for no backend needs a price: give a time".to_owned();
    }
    format!("--prices: {} has no row for {}", args.prices.join(", "), machines.join(", "))
}

/// The prices of one file, zone by zone put together as each backend's `zone_price` says.
fn of_file(backends: &[Arc<Backend>], series: &[PriceSeries], start: Timestamp) -> Vec<Steps> {
    let mut zones: HashMap<(BackendId, Offer), Vec<Course>> = HashMap::new();
    for one in series {
        let steps = one.changes.iter().map(|change| {
            let seconds = change.at.duration_since(start).as_secs_f64();
            (seconds, change.usd_per_hour)
        });
        zones.entry((one.backend.clone(), one.offer)).or_default().push(Course::new(steps.collect()));
    }
    let mut all = Vec::new();
    for backend in backends {
        for offer in [Offer::Spot, Offer::OnDemand] {
            if let Some(zones) = zones.remove(&(backend.id.clone(), offer)) {
                let course = of_zones(&zones, backend.zone_price);
                all.push(Steps { backend: backend.id.clone(), offer, course });
            }
        }
    }
    all
}

/// What a backend's nodes cost: of several files that price them, the first counts.
fn node_prices(backend: &Backend, prices: &[Steps]) -> NodePrices {
    let of = |offer: Offer| {
        let first = prices.iter().find(|steps| steps.backend == backend.id && steps.offer == offer);
        first.map_or_else(Course::default, |steps| steps.course.clone())
    };
    NodePrices { spot: of(Offer::Spot), on_demand: of(Offer::OnDemand) }
}

fn of_offer(prices: &NodePrices, offer: Offer) -> &Course {
    match offer {
        Offer::Spot => &prices.spot,
        Offer::OnDemand => &prices.on_demand,
    }
}

fn complain_of_missing(backend: &Backend, prices: &NodePrices, files: &[String]) -> Result<(), String> {
    for offer in [Offer::Spot, Offer::OnDemand] {
        if backend.managed.is_none() && backend.needs(offer) && of_offer(prices, offer).begins().is_none() {
            let machine =
                backend.node.as_ref().map_or_else(String::new, |node| node.priced_as().into_owned());
            let zones = match backend.zones.as_slice() {
                [] => String::new(),
                zones => format!(" (zone {}, or the whole region)", zones.join(" or ")),
            };
            return Err(format!(
                "--prices: {} has no {offer} price of {machine} in {} {}{zones}, which backend {} needs",
                files.join(", "),
                backend.cloud,
                backend.region,
                backend.id
            ));
        }
    }
    Ok(())
}

fn note_of_prices(backend: &Backend, prices: &NodePrices, notes: &mut Vec<String>) {
    for offer in [Offer::Spot, Offer::OnDemand] {
        let begins = of_offer(prices, offer).begins().filter(|begins| *begins > 0.0);
        if let Some(begins) = begins.filter(|_| backend.managed.is_none() && backend.needs(offer)) {
            notes.push(format!(
                "{}: its {offer} price is first recorded {:.1} days after the start, and taken for the time before",
                backend.id,
                begins / 86_400.0
            ));
        }
    }
}

fn interruptions(backend: &Backend) -> InterruptionRate {
    if !backend.has_spot_nodes() {
        return InterruptionRate::default();
    }
    let configured = backend.node.as_ref().and_then(|node| node.interruptions.per_node_hour);
    match configured {
        Some(per_node_hour) => InterruptionRate { per_node_hour, basis: RateBasis::Configured },
        None => InterruptionRate {
            per_node_hour: assumed_per_node_hour(backend.cloud),
            basis: RateBasis::Assumed,
        },
    }
}
