//! What `simulate` promises on the command line.

mod harness;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use harness::stdout;
use insta::assert_snapshot;
use serde_json::Value;
use tempfile::TempDir;

/// Two clouds whose prices cross once in two days. Synthetic.
const PRICES: &str = "at,cloud,region,zone,instance_type,offer,usd_per_hour
2026-01-01T00:00:00Z,aws,us-east-1,,g5.2xlarge,on_demand,1.212
2026-01-01T00:00:00Z,aws,us-east-1,us-east-1a,g5.2xlarge,spot,0.40
2026-01-02T00:00:00Z,aws,us-east-1,us-east-1a,g5.2xlarge,spot,0.90
2026-01-01T00:00:00Z,gcp,us-central1,,g2-standard-8,on_demand,0.85
2026-01-01T00:00:00Z,gcp,us-central1,,g2-standard-8,spot,0.60
";

const CONFIG: &str = r#"[prices]
sources = [{ file = "prices.csv" }]
[backends.eks-use1]
url = "https://a.example.com"
cloud = "aws"
platform = "eks"
region = "us-east-1"
node = { instance_type = "g5.2xlarge", spot = "100%", interruptions = { per_node_hour = 0 } }
replicas = { min = 1, max = 30, rps = 10, cold_start = "4m" }
[backends.gke-usc1]
url = "https://b.example.com"
cloud = "gcp"
platform = "gke"
region = "us-central1"
node = { instance_type = "g2-standard-8", spot = "100%", interruptions = { per_node_hour = 0 } }
replicas = { min = 1, max = 30, rps = 10, cold_start = "5m" }
[routes.chat]
match = { path = "/*" }
backends = ["eks-use1", "gke-usc1"]
slo = { ttft_p95 = "2s" }
policy = "p"
[policies.p]
rule = "break-even"
"#;

/// The files of a simulation in a directory of their own.
struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(TempDir::new().unwrap());
        desk.write("tradewind.toml", CONFIG);
        desk.write("prices.csv", PRICES);
        // A minute of 95 requests a second, to be repeated.
        desk.write("requests.csv", "offset_seconds,requests\n0,5700\n");
        desk
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, more: &[&str]) -> Output {
        let usual = [
            "simulate",
            "--config",
            "tradewind.toml",
            "--prices",
            "prices.csv",
            "--requests",
            "requests.csv",
        ];
        Command::new(env!("CARGO_BIN_EXE_tradewind"))
            .current_dir(self.path())
            .args(usual)
            .args(more)
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    }

    fn json(&self, more: &[&str]) -> Value {
        let output = self.run(&[&["--json"], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, more: &[&str]) -> String {
        let output = self.run(more);
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }
}

fn policy<'a>(report: &'a Value, name: &str) -> &'a Value {
    let policies = report["policies"].as_array().unwrap();
    policies.iter().find(|policy| policy["name"] == name).unwrap_or_else(|| panic!("{name} in {policies:?}"))
}

#[test]
fn the_report_has_the_promised_shape_and_a_seed_repeats_it() {
    let desk = Desk::new();
    let report = desk.json(&["--for", "2d", "--seed", "7", "--seeds", "2"]);
    assert!(report["optimum_usd"].as_f64().unwrap() > 0.0);
    for policy in report["policies"].as_array().unwrap() {
        for figure in [
            "usd_billed",
            "usd_avoidable",
            "ratio_to_optimum",
            "over_slo",
            "refused",
            "moves_per_day",
            "fastest_shift_per_minute",
        ] {
            assert!(policy[figure].as_f64().is_some_and(|value| value >= 0.0), "{figure} of {policy}");
        }
    }
    assert_eq!(report["policies"][0]["name"], "configured");
    assert_eq!(report["from"], "2026-01-01T00:00:00Z");
    assert_eq!(report["seeds"], serde_json::json!([7, 8]));
    assert_eq!(report, desk.json(&["--for", "2d", "--seed", "7", "--seeds", "2"]));
    assert_ne!(report, desk.json(&["--for", "2d", "--seed", "9", "--seeds", "2"]));
}

#[test]
fn a_lasting_gap_is_worth_one_move() {
    let desk = Desk::new();
    let report = desk.json(&["--for", "2d", "--seeds", "3"]);
    let configured = policy(&report, "configured");
    assert_eq!(configured["moves_per_day"], 0.5);
    assert!(configured["ratio_to_optimum"].as_f64().unwrap() < 1.03, "{configured}");
    let billed = |name| policy(&report, name)["usd_billed"].as_f64().unwrap();
    assert!(
        billed("configured") < billed("alone:eks-use1") && billed("configured") < billed("alone:gke-usc1")
    );
    assert_eq!(
        report["notes"],
        serde_json::json!([
            "eks-use1: no recording says how many spot nodes could be had: any number, each lost by chance 0 times an hour (configured)",
            "gke-usc1: no recording says how many spot nodes could be had: any number, each lost by chance 0 times an hour (configured)",
        ])
    );
}

#[test]
fn availability_limits_what_can_be_had() {
    let desk = Desk::new();
    desk.write(
        "availability.csv",
        "offset_seconds,cloud,region,zone,instance_type,available_nodes\n\
         0,aws,us-east-1,us-east-1a,g5.2xlarge,20\n36000,aws,us-east-1,us-east-1a,g5.2xlarge,0\n",
    );
    let report = desk.json(&["--for", "1d", "--seeds", "1", "--availability", "availability.csv"]);
    let refused = |name| policy(&report, name)["refused"].as_f64().unwrap();
    let requests = report["requests"].as_f64().unwrap();
    assert!(refused("alone:eks-use1") > 0.5 * requests, "{}", refused("alone:eks-use1") / requests);
    assert!(refused("configured") < 0.01 * requests, "{}", refused("configured") / requests);
}

#[test]
fn prices_of_another_time_are_laid_over() {
    let desk = Desk::new();
    desk.write(
        "old.csv",
        &PRICES
            .lines()
            .filter(|line| !line.contains("aws"))
            .map(|line| line.replace("2026", "2019") + "\n")
            .collect::<String>(),
    );
    desk.write(
        "prices.csv",
        &PRICES
            .lines()
            .filter(|line| !line.contains("gcp"))
            .map(|line| line.to_owned() + "\n")
            .collect::<String>(),
    );
    let shifted = desk.json(&["--for", "2d", "--seeds", "1", "--prices", "old.csv@2019-01-01T00:00:00Z"]);
    desk.write("prices.csv", PRICES);
    let plain = desk.json(&["--for", "2d", "--seeds", "1"]);
    assert_eq!(shifted["policies"], plain["policies"]);
}

#[test]
fn the_table_is_for_people_and_the_plot_is_a_picture() {
    let desk = Desk::new();
    let output = desk.run(&["--for", "6h", "--seeds", "1", "--plot", "s.svg"]);
    assert!(output.status.success());
    let text = stdout(&output);
    let first: Vec<&str> = text.lines().take(3).collect();
    assert_snapshot!(first.join("\n"), @"
    Route chat, 0.2 days from 2026-01-01T00:00:00Z, 2052007 requests, seed 1

    POLICY             BILLED USD  AVOIDABLE USD  TO OPTIMUM  OVER SLO  REFUSED  MOVES/DAY  FASTEST SHIFT/MIN
    ");
    assert!(text.contains("\noptimum ") && text.contains("The best schedule known in hindsight was billed"));
    let svg = fs::read_to_string(desk.path().join("s.svg")).unwrap();
    assert!(svg.starts_with("<?xml") && svg.contains("Price of a node, USD an hour"));
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let desk = Desk::new();
    assert_snapshot!(desk.refused(&["--route", "nope"]), @"--route: found nope, expected one of chat");
    assert_snapshot!(desk.refused(&["--availability", "nope.csv"]), @"--availability: nope.csv cannot be read: No such file or directory (os error 2)");
    assert_snapshot!(desk.refused(&["--scale", "0"]), @"--scale: found 0, expected more than 0 to 1000000000");
    assert_snapshot!(desk.refused(&["--for", "900d", "--tick", "1s"]), @"--for: found 77760000 ticks of 1 s, expected 1 to 10540800");
    assert_snapshot!(desk.refused(&["--tick", "2h"]), @"--tick: found 7200s, expected 1 s to 1 min");
    assert_snapshot!(desk.refused(&["--utilization", "0%"]), @"--utilization: found 0%, expected more");
    desk.write("requests.csv", "offset_seconds,requests\n0,many\n");
    assert_snapshot!(desk.refused(&[]), @"--requests: requests.csv, line 2, column 2 (requests): found `many`, expected a number of requests, 0 or more");
    desk.write("requests.csv", "offset_seconds,requests\n0,5700\n");
    desk.write("prices.csv", &PRICES.replace("g2-standard-8,spot", "g2-standard-4,spot"));
    assert_snapshot!(desk.refused(&[]), @"--prices: prices.csv has no spot price of g2-standard-8 in gcp us-central1, which backend gke-usc1 needs");
    desk.write("prices.csv", "at,cloud\n");
    assert_snapshot!(desk.refused(&[]), @"--prices: prices.csv, line 1: found the header `at,cloud`, expected `at,cloud,region,zone,instance_type,offer,usd_per_hour`");
    desk.write("prices.csv", PRICES);
    desk.write(
        "tradewind.toml",
        &CONFIG.replace("replicas = { min = 1, max = 30, rps = 10, cold_start = \"5m\" }\n", ""),
    );
    assert_snapshot!(desk.refused(&[]), @"tradewind.toml: backend gke-usc1 cannot be simulated without `replicas`, which say what it serves");
}
