//! Where prices come from, and what else costs.

use insta::assert_snapshot;
use tradewind::{
    config,
    model::{Accelerator, Backend, Managed, ZonePrice},
};

use super::{GOOD, and, examples, with};

/// The first backend of the good file with these keys in place of its node.
fn backend(keys: &str) -> Backend {
    let text = GOOD.replacen("node = { instance_type = \"g5.2xlarge\" }", keys, 1);
    let loaded = config::parse(&text, &examples().join("t.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    (*loaded.settings.backends[0]).clone()
}

fn managed(keys: &str) -> Managed {
    backend(keys).managed.expect("a managed backend")
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn providers_are_sources() {
    let all = "[\"aws\", \"gcp\", { file = \"prices.csv\" }]";
    assert_eq!(with("[{ file = \"prices.csv\" }]", all), "");
    assert_snapshot!(with("[{ file = \"prices.csv\" }]", "[\"AWS\", 3, \"aws\", \"aws\"]"), @r#"
    t.toml:2:12: error: prices.sources[0]: found "AWS", expected "aws", "gcp"
        hint: A provider that is asked for its prices.
    t.toml:2:19: error: prices.sources[1]: found an integer, expected a string
        hint: write it like "aws" or "gcp"
    "#);
    assert_snapshot!(with("[{ file = \"prices.csv\" }]", "[\"aws\", \"aws\"]"), @r#"
    t.toml:2:19: error: prices.sources[1]: aws is there twice
        hint: take one out
    t.toml:9:11: warning: backends.b: no source states prices of `gcp`: its cost is unknown
        hint: add "gcp" to `prices.sources`
    "#);
    assert_snapshot!(with("[{ file = \"prices.csv\" }]", "[{ flie = \"prices.csv\" }]"), @r#"
    t.toml:2:14: error: prices.sources[0]: unknown key `flie`
        hint: did you mean `file`?
    "#);
}

#[test]
fn how_providers_are_asked() {
    assert_snapshot!(with("[backends.a]", "[prices.aws]\ntimeout = \"1h\"\nec2_endpoint = \"vpce-1\"\n[backends.a]"), @r#"
    t.toml:5:16: error: prices.aws.ec2_endpoint: `vpce-1` is not the URL of a service: expected https://HOST or http://HOST
        hint: write it like "https://vpce-1.ec2.{region}.vpce.amazonaws.com"
    "#);
    assert_snapshot!(with("[backends.a]", "[prices.aws]\ntimeout = \"1h\"\n[backends.a]"), @r#"
    t.toml:3:9: warning: prices.aws: `sources` does not have "aws", so nobody is asked
        hint: sources = ["aws"]
    t.toml:4:11: error: prices.aws.timeout: found 1h, expected 1s to 10m
    "#);
    let gcp = "sources = [\"gcp\"]\ngcp = { api_key = { env = \"TRADEWIND_NO_SUCH_KEY\" } }";
    assert_snapshot!(with("sources = [{ file = \"prices.csv\" }]", gcp), @r#"
    t.toml:3:9: error: prices.gcp.api_key: the environment variable TRADEWIND_NO_SUCH_KEY is not set
    t.toml:4:11: warning: backends.a: no source states prices of `aws`: its cost is unknown
        hint: add "aws" to `prices.sources`
    "#);
}

#[test]
fn a_disk_costs_by_the_hour() {
    let of = |keys: &str| backend(keys).node.expect("a node");
    let node = of("node = { instance_type = \"g5.2xlarge\", disk = { class = \"gp3\", gb = 100 } }");
    // 0.08 USD a GB-month in us-east-1, over 730 hours.
    assert!(close(node.disk_usd_per_hour, 8.0 / 730.0), "{node:?}");
    assert_snapshot!(with("\"g5.2xlarge\"", "\"g5.2xlarge\", disk = { class = \"floppy\", gb = 1 }"), @"t.toml:7:40: error: backends.a.node.disk: what a GB-month of a `floppy` disk costs in aws us-east-1 is not known: state it in a file of fees by the row `aws,disk,floppy,us-east-1,GB-month,0,USD,YYYY-MM-DD,SOURCE`");
}

#[test]
fn machines_have_accelerators_and_are_interrupted() {
    let backend = backend(
        "node = { instance_type = \"n1-standard-8\", accelerator = { type = \"nvidia-tesla-t4\" }, \
         interruptions = { per_node_hour = 0.05, work_lost = \"30s\" } }\nzone_price = \"mean\"",
    );
    let node = backend.node.expect("a node");
    assert_eq!(node.accelerator, Some(Accelerator { kind: "nvidia-tesla-t4".into(), count: 1 }));
    assert_eq!(node.priced_as(), "n1-standard-8+1xnvidia-tesla-t4");
    assert_eq!(node.interruptions.per_node_hour, Some(0.05));
    assert_eq!(node.interruptions.work_lost.as_secs(), 30);
    assert_eq!(backend.zone_price, ZonePrice::Mean);
}

#[test]
fn managed_platforms_are_looked_up() {
    let sagemaker = managed("platform = \"sagemaker\"\nmanaged = { instance_type = \"ml.g5.xlarge\" }");
    assert_eq!(sagemaker, Managed { usd_per_replica_hour: 1.408, usd_per_request: 0.0 });
    let stated = managed("managed = { usd_per_replica_hour = 2.5, usd_per_request = 0.001 }");
    assert_eq!(stated, Managed { usd_per_replica_hour: 2.5, usd_per_request: 0.001 });
    // 4 vCPUs at 0.04048 and 16 GB at 0.004445 USD an hour.
    let fargate = managed("platform = \"fargate\"\nmanaged = { vcpus = 4, memory = 16 }");
    assert!(close(fargate.usd_per_replica_hour, 4.0 * 0.04048 + 16.0 * 0.004_445), "{fargate:?}");
}

#[test]
fn cloud_run_is_billed_by_request_or_by_instance() {
    let of = |keys: &str| {
        let text = GOOD.replacen(
            "node = { instance_type = \"g2-standard-8\" }",
            &format!("platform = \"cloud-run\"\nmanaged = {{ {keys} }}"),
            1,
        );
        let loaded = config::parse(&text, &examples().join("t.toml")).unwrap_or_else(|f| panic!("{f}"));
        loaded.settings.backends[1].managed.expect("a managed backend")
    };
    let request = of("vcpus = 8, memory = 32");
    // 0.000024 USD a vCPU-second, 0.0000025 a GiB-second, 0.40 USD a million requests (us-central1).
    assert!(close(request.usd_per_replica_hour, 3600.0 * (8.0 * 0.000_024 + 32.0 * 0.000_002_5)), "{request:?}");
    assert!(close(request.usd_per_request, 0.4e-6), "{request:?}");
    let instance = of("vcpus = 8, memory = 32, gpu = \"nvidia-l4\"");
    assert_eq!(instance.usd_per_request, 0.0);
    assert!(instance.usd_per_replica_hour > request.usd_per_replica_hour, "{instance:?}");
}

#[test]
fn what_a_managed_backend_lacks_is_said() {
    let replaced = |keys: &str| with("node = { instance_type = \"g5.2xlarge\" }", keys);
    assert_snapshot!(replaced("platform = \"sagemaker\"\nmanaged = { vcpus = 4 }"), @r#"t.toml:8:1: error: backends.a.managed: `vcpus` has no meaning here: expected managed = { instance_type = "ml.g5.xlarge" }, or `usd_per_replica_hour`"#);
    assert_snapshot!(replaced("platform = \"sagemaker\"\nmanaged = { instance_type = \"ml.none\" }"), @"t.toml:8:1: error: backends.a.managed: what an hour of `ml.none` costs on SageMaker real-time endpoints in us-east-1 is not known: state it in a file of fees by the row `aws,sagemaker,ml.none,us-east-1,hour,0,USD,YYYY-MM-DD,SOURCE`");
    assert_snapshot!(replaced("platform = \"eks\"\nmanaged = { vcpus = 4 }"), @"t.toml:8:1: error: backends.a.managed: this `platform` bills nodes: expected `usd_per_replica_hour`, or a `node`");
    assert_snapshot!(replaced("node = { instance_type = \"g5.2xlarge\" }\nmanaged = { usd_per_replica_hour = 1 }"), @"
    t.toml:8:1: error: backends.a.managed: a backend has `node` or `managed`, not both
        hint: `node` is for machines of your own, `managed` for what a platform charges in their place
    ");
    assert_snapshot!(replaced("platform = \"sagemaker\"\nmanaged = {}"), @r#"
    t.toml:8:1: error: backends.a.managed: found 0 keys, expected at least one of `usd_per_replica_hour`, `usd_per_request`, `instance_type`, `accelerator`, `vcpus`, `memory`, `architecture`, `gpu`, `zonal_redundancy`, `billing`
        hint: write it like { instance_type = "ml.g5.xlarge" } or { usd_per_replica_hour = 1.5 }
    "#);
}

#[test]
fn bytes_cost_by_their_way() {
    let egress = |more: &str| {
        let text = format!("{GOOD}{more}");
        let loaded = config::parse(&text, &examples().join("t.toml")).unwrap_or_else(|f| panic!("{f}"));
        loaded.settings.backends.iter().map(|b| b.egress_usd_per_gb.expect("known")).collect::<Vec<_>>()
    };
    let gib = 1e9 / 1_073_741_824.0;
    let direct = egress("");
    assert!(close(direct[0], 0.09) && close(direct[1], 0.12 * gib), "{direct:?}");
    // By a router on AWS: from Google Cloud out to the internet, and out again.
    let routed = egress("[location]\ncloud = \"aws\"\nregion = \"us-east-1\"");
    assert!(close(routed[0], 0.09) && close(routed[1], 0.12 * gib + 0.09), "{routed:?}");
    // Beyond 10 TiB in a month the next tier holds.
    assert!(close(egress("[fees]\negress_gb_per_month = 20000")[0], 0.085));
    let unknown = GOOD.replacen("us-central1", "asia-northeast1", 1);
    assert_snapshot!(super::said(&unknown), @"
    t.toml:9:11: warning: backends.b: its cost is unknown: what a GB from gcp asia-northeast1 to the internet costs is not known: state it in a file of fees by the row `gcp,internet-egress,*,asia-northeast1,GiB,0,USD,YYYY-MM-DD,SOURCE`
        hint: or say it with `egress_usd_per_gb`
    ");
}

#[test]
fn ones_own_fees_take_the_place_of_the_tables() {
    let dir = tempfile::tempdir().expect("a directory");
    let header = "cloud,service,item,region,unit,from,usd,as_of,source\n";
    let row = "aws,internet-egress,*,us-east-1,GB,0,0.04,2026-01-31,our contract\n";
    std::fs::write(dir.path().join("fees.csv"), format!("{header}{row}")).expect("written");
    std::fs::write(dir.path().join("prices.csv"), include_str!("../../config/prices.csv")).expect("written");
    let text = format!("{GOOD}[fees]\nfile = \"fees.csv\"");
    let loaded = config::parse(&text, &dir.path().join("t.toml")).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(loaded.settings.backends[0].egress_usd_per_gb, Some(0.04));
    std::fs::write(dir.path().join("fees.csv"), format!("{header}aws,internet-egress,*,us-east-1,GB,0,free,2026-01-31,x\n"))
        .expect("written");
    let faults = config::parse(&text, &dir.path().join("t.toml")).expect_err("a fault").to_string();
    assert!(faults.contains("fees.file: fees.csv, line 2, column 7"), "{faults}");
    assert_snapshot!(and("[fees]\nfile = \"none.csv\""), @"
    t.toml:19:8: error: fees.file: the file `none.csv`: there is no such file
        hint: relative paths start at the directory of this file
    ");
}
