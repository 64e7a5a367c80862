//! Live prices end to end: the real binary asks servers that speak the protocols of AWS and Google Cloud, decides by what they
//! say, and goes on with what they said last when they say nothing or nonsense.

mod harness;

use std::{
    path::Path,
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use harness::{
    Backend, Config, Tradewind,
    aws::{self, Aws, Market},
    eventually,
    gcp::{self, Catalog, KEY, table},
    put, stdout,
};
use serde_json::{Value, json};

const SKUS: &str = include_str!("data/gcp_skus_2024_10.csv");

const CREDENTIALS: &str =
    "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = a-secret/access+key\n";

/// g4dn.2xlarge in us-east-1: the recorded on-demand price, and the cheapest zone's spot price at the end of the recording.
const G4DN_ON_DEMAND: f64 = 0.752;
const G4DN_SPOT: f64 = 0.2256;

/// g2-standard-8 in us-central1, October 2024.
const G2_ON_DEMAND: f64 = 0.853624;
const G2_SPOT: f64 = 0.279952;

/// The table of a backend on machines of AWS.
fn on_aws(backend: &Backend) -> String {
    format!(
        "url = \"{}\"\ncloud = \"aws\"\nregion = \"us-east-1\"\nzones = [\"us-east-1a\", \"us-east-1b\"]\n\
         node = {{ instance_type = \"g4dn.2xlarge\", spot = \"90%\" }}\n\
         replicas = {{ max = 1000, rps = 10 }}\nprobe = {{ path = \"/health\", interval = \"300ms\" }}",
        backend.url()
    )
}

/// The table of a backend on machines of Google Cloud.
fn on_gcp(backend: &Backend) -> String {
    format!(
        "url = \"{}\"\ncloud = \"gcp\"\nregion = \"us-central1\"\n\
         node = {{ instance_type = \"g2-standard-8\", spot = \"90%\" }}\n\
         replicas = {{ max = 1000, rps = 10 }}\nprobe = {{ path = \"/health\", interval = \"300ms\" }}",
        backend.url()
    )
}

/// Two clouds, and how their services are asked.
struct World {
    dir: tempfile::TempDir,
    config: Config,
    _backends: (Backend, Backend),
}

impl World {
    fn new(aws: &Aws, gcp: &Catalog) -> World {
        World::with(aws, gcp, "1h")
    }

    fn with(aws: &Aws, gcp: &Catalog, stale_after: &str) -> World {
        let (eks, gke) = (Backend::named("eks"), Backend::named("gke"));
        let prices = format!(
            "sources = [\"aws\", \"gcp\"]\nrefresh = \"200ms\"\nstale_after = \"{stale_after}\"\n\
             aws = {{ ec2_endpoint = \"{aws}\", pricing_endpoint = \"{aws}\", timeout = \"3s\" }}\n\
             gcp = {{ endpoint = \"{}\", api_key = {{ file = \"gcp.key\" }}, timeout = \"3s\" }}",
            gcp.url(),
            aws = aws.url(),
        );
        let config = Config::new(&[]).table("eks", &on_aws(&eks)).table("gke", &on_gcp(&gke)).prices(&prices);
        let dir = tempfile::tempdir().expect("a directory");
        put(dir.path(), "aws-credentials", CREDENTIALS);
        put(dir.path(), "gcp.key", KEY);
        config.write(dir.path());
        World { dir, config, _backends: (eks, gke) }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `tradewind prices` with these arguments.
    fn prices(&self, args: &[&str]) -> Output {
        let mut command = harness::command(self.path());
        command.arg("prices").args(args).arg("--config").arg(self.path().join("t.toml"));
        command.output().expect("the binary starts")
    }

    fn start(&self) -> Tradewind {
        Tradewind::start_in(self.path(), &self.config)
    }
}

fn catalog() -> Catalog {
    Catalog::of(&table(SKUS), 50)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn price<'a>(answer: &'a Value, backend: &str, offer: &str) -> &'a Value {
    let prices = answer["prices"].as_array().expect("prices");
    prices.iter().find(|p| p["backend"] == backend && p["offer"] == offer).expect("the price is listed")
}

#[track_caller]
fn assert_usd(answer: &Value, backend: &str, offer: &str, expected: f64) {
    let price = price(answer, backend, offer);
    let usd = price["usd_per_hour"].as_f64().unwrap_or_else(|| panic!("{price}"));
    assert!((usd - expected).abs() < 1e-5, "{backend} {offer}: {price}");
    assert_eq!(price["state"], "fresh", "{price}");
}

#[test]
fn both_clouds_are_asked_once() {
    let (aws, gcp) = (Aws::of(Market::recorded()), catalog());
    let world = World::new(&aws, &gcp);
    let output = world.prices(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_usd(&answer, "eks", "on_demand", G4DN_ON_DEMAND);
    assert_usd(&answer, "eks", "spot", G4DN_SPOT);
    assert_usd(&answer, "gke", "on_demand", G2_ON_DEMAND);
    assert_usd(&answer, "gke", "spot", G2_SPOT);
    assert_eq!(price(&answer, "eks", "spot")["source"], "aws");

    let text = stdout(&world.prices(&[]));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("BACKEND  MACHINE"), "{text}");
    for says in ["eks", "g4dn.2xlarge", "us-east-1", "$0.7520/h", "$0.2256/h", "70%", "aws", "fresh"] {
        assert!(lines[1].contains(says), "'{says}' is not in: {text}");
    }
    assert!(lines[2].contains("$0.8536/h") && lines[2].contains("us-central1"), "{text}");
}

#[test]
fn history_is_shown_as_far_as_it_is_remembered() {
    let (aws, gcp) = (Aws::of(Market::recorded()), catalog());
    let world = World::new(&aws, &gcp);
    let output = world.prices(&["--history", "3650d"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(text.contains("us-east-1a") && text.contains("us-east-1b") && text.contains("$0.2256"), "{text}");
    assert!(stderr(&output).contains("gcp: the Catalog says only what holds now"), "{}", stderr(&output));
    let answer: Value =
        serde_json::from_slice(&world.prices(&["--history", "3650d", "--json"]).stdout).expect("JSON");
    assert!(answer["series"].as_array().is_some_and(|series| series.len() == 2), "{answer}");
    assert_eq!(world.prices(&["--history", "0d"]).status.code(), Some(2));
}

#[test]
fn check_says_what_is_there_and_what_is_needed() {
    let (aws, gcp) = (Aws::of(Market::recorded()), catalog());
    let world = World::new(&aws, &gcp);
    let output = world.prices(&["check"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}{}", stderr(&output));
    for says in [
        "ok    aws: credentials: an access key that ends in MPLE",
        "ok    aws: ec2:DescribeSpotPriceHistory in us-east-1: 2 prices",
        "ok    aws: pricing:GetProducts for us-east-1: g4dn.2xlarge: 0.752 USD/h",
        "ok    gcp: services.skus.list",
        "ok    gcp: price of spot g2-standard-8 in us-central1",
        "\"Action\": [\"ec2:DescribeSpotPriceHistory\", \"pricing:GetProducts\"]",
        "Cloud Billing API",
    ] {
        assert!(text.contains(says), "'{says}' is not in:\n{text}");
    }
    assert!(!text.contains(KEY) && !text.contains("a-secret"), "{text}");
}

#[test]
fn check_says_what_is_missing() {
    let denied =
        |call: &aws::Call| aws::refusal(call, 403, "UnauthorizedOperation", "You are not authorized");
    let aws = Aws::scripted(Market::recorded(), denied);
    let gcp = Catalog::broken(&table(SKUS), |_| {
        gcp::refusal(
            403,
            "PERMISSION_DENIED",
            "Cloud Billing API has not been used",
            Some("SERVICE_DISABLED"),
        )
    });
    let world = World::new(&aws, &gcp);
    let output = world.prices(&["check"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  aws: ec2:DescribeSpotPriceHistory in us-east-1"), "{text}");
    assert!(
        text.contains("FAIL  gcp: services.skus.list") && text.contains("gcloud services enable"),
        "{text}"
    );
    assert!(stderr(&output).contains("checks failed"), "{}", stderr(&output));

    // Without any credentials: one finding says so, and nothing is asked.
    std::fs::remove_file(world.path().join("aws-credentials")).expect("it was there");
    let json: Value = serde_json::from_slice(&world.prices(&["check", "--json"]).stdout).expect("JSON");
    let findings = json["findings"].as_array().expect("findings");
    let credentials = findings.iter().find(|f| f["what"] == "aws: credentials").expect("it is tried");
    assert_eq!(credentials["ok"], false, "{json}");
    assert_eq!(json["aws_policy"]["Statement"][0]["Effect"], "Allow");
}

#[test]
fn a_missing_price_is_no_price() {
    let gcp = Catalog::of(&table(SKUS), 50);
    let aws = Aws::of(Market { products: Vec::new(), ..Market::recorded() });
    let world = World::new(&aws, &gcp);
    let output = world.prices(&["--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(price(&answer, "eks", "on_demand")["state"], "missing");
    assert_eq!(price(&answer, "eks", "on_demand")["usd_per_hour"], Value::Null);
    assert_usd(&answer, "eks", "spot", G4DN_SPOT);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("no on_demand price of eks"), "{}", stderr(&output));
}

#[test]
fn traffic_goes_where_live_prices_say() {
    let (aws, gcp) = (Aws::of(Market::recorded()), catalog());
    let world = World::new(&aws, &gcp);
    let tradewind = world.start();
    // 0.9 x 0.2256 + 0.1 x 0.752 USD beside 0.9 x 0.28 + 0.1 x 0.85.
    tradewind.wait_for_share("eks", 1.0);
    let prices = tradewind.json("/v1/prices");
    assert_usd(&prices, "eks", "spot", G4DN_SPOT);
    assert_usd(&prices, "gke", "on_demand", G2_ON_DEMAND);
    assert_eq!(tradewind.metric("tradewind_price_source_failing{source=\"gcp\"}"), Some(0.0));
}

/// How the kernel schedules the threads of this name: 0 is the usual way, 5 is SCHED_IDLE (proc_pid_stat(5), field 41).
fn policies(pid: u32, name: &str) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .map(|task| task.expect("a thread").path());
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.join("stat")).ok());
    // The name is in parentheses, cut to 15 characters; field 3 comes after it.
    let fields = stats.filter_map(|stat| {
        let (head, rest) = stat.rsplit_once(") ")?;
        head.ends_with(&format!("({name}")).then(|| rest.split(' ').nth(38)?.parse().ok())?
    });
    fields.collect()
}

#[test]
fn a_fetch_gives_way_to_requests() {
    let (aws, gcp) = (Aws::of(Market::recorded()), catalog());
    let world = World::new(&aws, &gcp);
    let tradewind = world.start();
    eventually("prices are fetched on a thread that gives way", || {
        policies(tradewind.pid(), "tradewind-price") == [5]
    });
    let serving = policies(tradewind.pid(), "tradewind-data");
    assert!(!serving.is_empty() && serving.iter().all(|policy| *policy == 0), "{serving:?}");
}

/// From some moment on, both providers answer with something wrong.
fn ill_aws(ill: &Arc<AtomicBool>, kind: &Arc<AtomicU32>) -> Aws {
    let (ill, kind) = (ill.clone(), kind.clone());
    Aws::scripted(Market::recorded(), move |call| {
        if !ill.load(SeqCst) {
            return aws::Reply::Market;
        }
        match kind.load(SeqCst) {
            0 => aws::refusal(call, 503, "RequestLimitExceeded", "Request limit exceeded."),
            1 => aws::html(200),
            2 => aws::Reply::Close,
            3 => aws::Reply::Cut(b"{\"PriceList\":[\"{".as_slice().into()),
            _ => aws::Reply::Silence,
        }
    })
}

#[test]
fn whatever_a_provider_says_instead_the_last_price_stays() {
    let (ill, kind) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (aws, gcp) = (ill_aws(&ill, &kind), catalog());
    let world = World::new(&aws, &gcp);
    let tradewind = world.start();
    tradewind.wait_for_share("eks", 1.0);
    ill.store(true, SeqCst);
    let mut said = String::new();
    for n in 0..5 {
        kind.store(n, SeqCst);
        eventually("the fault is told", || {
            let status = tradewind.json("/v1/status");
            let warning = status["warnings"].as_array().into_iter().flatten().find_map(Value::as_str);
            let told = warning.is_some_and(|warning| warning.starts_with("what aws") && warning != said);
            if told {
                said = warning.unwrap_or_default().into();
            }
            told
        });
        let prices = tradewind.json("/v1/prices");
        assert_usd(&prices, "eks", "spot", G4DN_SPOT);
        assert_usd(&prices, "eks", "on_demand", G4DN_ON_DEMAND);
        assert_eq!(tradewind.share("eks"), 1.0);
    }
    ill.store(false, SeqCst);
    eventually("it is well again", || tradewind.json("/v1/status")["warnings"] == json!([]));
}

#[test]
fn at_stale_after_the_fallback_is_taken_and_journaled() {
    let ill = Arc::new(AtomicBool::new(false));
    let (aws, gcp) = (ill_aws(&ill, &Arc::new(AtomicU32::new(0))), catalog());
    let world = World::with(&aws, &gcp, "2s");
    let tradewind = world.start();
    tradewind.wait_for_share("eks", 1.0);
    ill.store(true, SeqCst);
    let journaled = || {
        let decisions = tradewind.json("/v1/decisions?limit=1000");
        let entries = decisions["decisions"].as_array().cloned().unwrap_or_default();
        entries.into_iter().find(|entry| {
            entry["kind"] == "price" && entry["backend"] == "eks" && entry["state"] == "fallback"
        })
    };
    let entry = harness::until("the fallback is journaled", journaled);
    assert_eq!((&entry["offer"], &entry["before"]), (&json!("spot"), &json!("fresh")), "{entry}");
    assert!(entry["why"].as_str().is_some_and(|why| why.contains("stands in for the spot price")), "{entry}");
    let price = price(&tradewind.json("/v1/prices"), "eks", "spot").clone();
    assert_eq!((&price["state"], &price["usd_per_hour"]), (&json!("fallback"), &json!(G4DN_ON_DEMAND)));
    assert!(
        tradewind
            .metric("tradewind_price_age_seconds{backend=\"eks\",offer=\"spot\"}")
            .is_some_and(|age| age > 2.0)
    );
    assert_eq!(tradewind.share("eks"), 1.0, "silence moves nothing");
}

#[test]
fn the_last_good_prices_are_used_before_the_first_fetch() {
    let ill = Arc::new(AtomicBool::new(false));
    let (aws, gcp) = (ill_aws(&ill, &Arc::new(AtomicU32::new(2))), catalog());
    let world = World::new(&aws, &gcp);
    let mut tradewind = world.start();
    tradewind.wait_for_share("eks", 1.0);
    let fetched_at = |tradewind: &Tradewind| {
        price(&tradewind.json("/v1/prices"), "eks", "on_demand")["fetched_at"].as_str().map(str::to_owned)
    };
    let saved = || std::fs::read_to_string(world.path().join("state/prices.json")).unwrap_or_default();
    // Of AWS two zones and the price on demand, of Google Cloud two.
    eventually("all five prices are on disk", || saved().matches("usd_per_hour").count() == 5);
    let before = fetched_at(&tradewind).expect("a time");
    ill.store(true, SeqCst);
    tradewind.kill();
    drop(gcp);
    tradewind.start_again();
    let prices = tradewind.json("/v1/prices");
    assert_usd(&prices, "eks", "spot", G4DN_SPOT);
    assert_usd(&prices, "gke", "spot", G2_SPOT);
    let after = fetched_at(&tradewind).expect("a time");
    assert!(after <= before || harness::shares::time(&json!(after)) <= harness::shares::time(&json!(before)));
    assert_eq!(tradewind.share("eks"), 1.0);

    // The command line knows them too, and says that they are not of now.
    let output = world.prices(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("does not work now"), "{}", stdout(&output));
}

#[test]
fn watching_draws_again() {
    let (aws, gcp) = (Aws::of(Market::recorded()), catalog());
    let world = World::new(&aws, &gcp);
    let mut command = harness::command(world.path());
    command.args(["prices", "--watch", "--config"]).arg(world.path().join("t.toml"));
    let out = world.path().join("watched");
    let mut child = command.stdout(std::fs::File::create(&out).expect("a file")).spawn().expect("it starts");
    let drawn = || std::fs::read_to_string(&out).unwrap_or_default();
    eventually("the table is drawn twice", || {
        drawn().matches("BACKEND").count() >= 2 && drawn().contains("$0.2256/h")
    });
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}
