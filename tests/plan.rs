//! What `plan` promises: every figure can be recomputed from what is shown beside it.

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

/// Two machines in AWS and one in Google Cloud, whose recorded prices are in `tests/data`, and a managed service.
const CONFIG: &str = r#"[prices]
sources = [{ file = "prices.csv" }]
[backends.eks-p3]
url = "https://p3.example.com"
cloud = "aws"
platform = "eks"
region = "us-east-1"
node = { instance_type = "p3.2xlarge", spot = "80%", disk = { class = "gp3", gb = 100 } }
replicas = { min = 1, max = 30, rps = 16, cold_start = "4m" }
[backends.eks-g4dn]
url = "https://g4dn.example.com"
cloud = "aws"
platform = "eks"
region = "us-east-1"
node = { instance_type = "g4dn.2xlarge", interruptions = { per_node_hour = 0.05, work_lost = "30s" } }
replicas = { min = 1, max = 30, rps = 6, cold_start = "4m" }
[backends.gke-g2]
url = "https://g2.example.com"
cloud = "gcp"
platform = "gke"
region = "us-central1"
node = { instance_type = "g2-standard-8", spot = "90%", replicas_per_node = 2, disk = { class = "pd-balanced", gb = 100 } }
replicas = { min = 2, max = 40, rps = 5.5, cold_start = "5m" }
[backends.run]
url = "https://run.example.com"
cloud = "gcp"
platform = "cloud-run"
region = "us-central1"
managed = { vcpus = 8, memory = 32, gpu = "nvidia-l4" }
replicas = { max = 40, rps = 9 }
[routes.chat]
match = { path = "/*" }
backends = ["eks-p3", "eks-g4dn", "gke-g2", "run"]
"#;

/// Two regions whose prices cross twice in three days. Synthetic.
const CROSSING: &str = "at,cloud,region,zone,instance_type,offer,usd_per_hour
2026-01-01T00:00:00Z,aws,us-east-1,,p3.2xlarge,on_demand,3.06
2026-01-01T00:00:00Z,aws,us-east-1,,p3.2xlarge,spot,0.9
2026-01-02T03:00:00Z,aws,us-east-1,,p3.2xlarge,spot,2.4
2026-01-03T15:30:00Z,aws,us-east-1,,p3.2xlarge,spot,0.8
2026-01-01T00:00:00Z,gcp,us-central1,,g2-standard-8,on_demand,1.2
2026-01-01T00:00:00Z,gcp,us-central1,,g2-standard-8,spot,0.9
2026-01-02T20:00:00Z,gcp,us-central1,,g2-standard-8,spot,1.1
";

fn directory(config: &str, prices: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("t.toml"), config).expect("it can be written");
    fs::write(dir.path().join("prices.csv"), prices).expect("it can be written");
    dir
}

fn recorded() -> TempDir {
    directory(CONFIG, include_str!("data/prices_recorded.csv"))
}

fn plan(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind"));
    command.args(["plan", "--config", "t.toml"]).args(args).current_dir(dir);
    command.output().expect("the binary starts")
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let output = plan(dir, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&stdout(&output)).expect("it is JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-7 * a.abs().max(b.abs()).max(1e-3)
}

/// A backend of the plan, as someone with a pencil reads it.
struct Sheet<'a> {
    plan: &'a Value,
    facts: &'a Value,
}

impl<'a> Sheet<'a> {
    fn of(plan: &'a Value, id: &Value) -> Sheet<'a> {
        let facts = list(&plan["backends"]).iter().find(|facts| facts["id"] == *id).expect("its facts");
        Sheet { plan, facts }
    }

    fn fact(&self, name: &str) -> f64 {
        number(&self.facts[name])
    }

    fn capacity(&self, replicas: &str) -> f64 {
        self.fact(replicas) * self.fact("rps_per_replica")
    }

    /// The price of an hour of the window.
    fn price(&self, offer: &str, hour: usize) -> f64 {
        let begun = |step: &&Value| step["from_hour"].as_u64().expect("an hour") as usize <= hour;
        let steps = list(&self.facts[offer]["steps"]);
        number(&steps.iter().rfind(begun).expect("a first step")["usd_per_hour"])
    }

    fn mixed(&self, hour: usize) -> f64 {
        let spot = self.fact("spot_share");
        spot * self.price("spot", hour) + (1.0 - spot) * self.price("on_demand", hour)
    }

    fn nodes(&self, rps: f64, replicas_per_node: f64) -> f64 {
        let needed = (rps / self.fact("rps_per_replica") - 1e-6).ceil().max(self.fact("replicas_min"));
        (needed / replicas_per_node - 1e-6).ceil()
    }

    /// What a request on a full node costs in an hour; the egress is its first tier's.
    fn unit_cost(&self, hour: usize, egress_usd_per_gb: f64) -> f64 {
        let lost = self.fact("spot_share")
            * self.fact("interruptions_per_node_hour")
            * self.fact("hours_lost_per_interruption");
        let node = (self.mixed(hour) + self.fact("disk_usd_per_hour")) * (1.0 + lost);
        node / (self.fact("replicas_per_node") * self.fact("rps_per_replica") * 3600.0)
            + number(&self.plan["response_bytes"]) / 1e9 * egress_usd_per_gb
    }
}

/// The lines of a bill that are of a kind and a backend.
fn lines<'a>(bill: &'a Value, kind: &str, backend: &Value) -> Vec<&'a Value> {
    let of = |line: &&Value| line["kind"] == kind && line["backend"] == *backend;
    list(&bill["lines"]).iter().filter(of).collect()
}

/// Requests per second that go to the first and to the second of two backends in an hour.
fn division(strategy: &str, first: &Sheet, second: &Sheet, first_is_cheaper: bool, rps: f64) -> [f64; 2] {
    if strategy == "two_clouds_fixed" {
        return [rps / 2.0, rps / 2.0];
    }
    let (cheaper, dearer) = if first_is_cheaper { (first, second) } else { (second, first) };
    let mut left = rps;
    let mut take = |most: f64| {
        let taken = left.min(most);
        left -= taken;
        taken
    };
    let paid = cheaper.capacity("replicas_min");
    let mut at_cheaper = take(paid);
    let mut at_dearer = take(dearer.capacity("replicas_min"));
    at_cheaper += take(cheaper.capacity("replicas_max") - paid);
    at_dearer += take(f64::INFINITY);
    if first_is_cheaper { [at_cheaper, at_dearer] } else { [at_dearer, at_cheaper] }
}

/// Computes one bill again from the facts, and compares every line.
fn recompute(plan: &Value, strategy: &Value, point: &Value, bill: &Value) {
    let kind = strategy["strategy"].as_str().expect("a kind");
    let rps = number(&point["rps"]);
    let factors: Vec<f64> = list(&plan["day"]["hourly_factors"]).iter().map(number).collect();
    let peak = factors.iter().copied().fold(0.0, f64::max);
    assert!(near(number(&point["peak_rps"]), rps * peak));
    let hours = plan["window"]["hours"].as_u64().expect("hours") as usize;
    let first_hour = plan["window"]["first_hour_of_day"].as_u64().expect("an hour") as usize;
    let weight = number(&plan["month_hours"]) / hours as f64;
    let backends = list(&strategy["backends"]);
    let sheets: Vec<Sheet> = backends.iter().map(|id| Sheet::of(plan, id)).collect();
    let managed = kind == "managed";
    // An hour of the first tier's egress is the first line of it.
    let egress_usd = |id: &Value| number(&lines(bill, "egress", id)[0]["usd_per_unit"]);

    for (index, (id, sheet)) in backends.iter().zip(&sheets).enumerate() {
        let per_node = sheet.facts["replicas_per_node"].as_f64().unwrap_or(1.0);
        let (mut node_hours, mut spot, mut on_demand, mut requests) = (0.0, 0.0, 0.0, 0.0);
        for hour in 0..hours {
            let factor = factors[(first_hour + hour) % 24];
            let share = |rps: f64| match &sheets[..] {
                [a, b] => {
                    let usd = [(a, &backends[0]), (b, &backends[1])]
                        .map(|(sheet, id)| sheet.unit_cost(hour, egress_usd(id)));
                    division(kind, a, b, usd[0] <= usd[1], rps)[index]
                }
                _ => rps,
            };
            let load = share(rps * factor);
            let provided = if kind == "static_on_demand" { share(rps * peak) } else { load };
            let nodes = sheet.nodes(provided, per_node) * weight;
            node_hours += nodes;
            requests += load * weight * 3600.0;
            if !managed {
                spot += nodes * sheet.price("spot", hour);
                on_demand += nodes * sheet.price("on_demand", hour);
            }
        }
        let amount =
            |kind: &str| lines(bill, kind, id).iter().map(|line| number(&line["usd_per_month"])).sum::<f64>();
        let quantity =
            |kind: &str| lines(bill, kind, id).iter().map(|line| number(&line["quantity"])).sum::<f64>();
        let spot_share = if kind.ends_with("on_demand") { 0.0 } else { sheet.fact("spot_share") };
        assert!(near(quantity("compute"), node_hours), "{}: {node_hours}", bill["id"]);
        assert!(near(quantity("storage"), node_hours));
        assert!(near(quantity("egress"), requests * number(&plan["response_bytes"]) / 1e9));
        if managed {
            assert!(near(quantity("fees"), requests));
            continue;
        }
        let compute = spot_share * spot + (1.0 - spot_share) * on_demand;
        assert!(near(amount("compute"), compute), "{}: {compute}", bill["id"]);
        assert!(near(amount("storage"), node_hours * sheet.fact("disk_usd_per_hour")));
        let lost = spot_share
            * sheet.fact("interruptions_per_node_hour")
            * sheet.fact("hours_lost_per_interruption");
        let node_usd = compute / node_hours + sheet.fact("disk_usd_per_hour");
        assert!(near(amount("interruption"), node_hours * lost * node_usd));
        assert!(near(quantity("fees"), number(&plan["month_hours"])));
        assert!(near(amount("operation"), number(&plan["operation_usd_per_cluster"])));
    }
}

/// All figures of a plan: lines, totals, who is the cheapest, where that changes.
fn recompute_all(plan: &Value) -> usize {
    let mut bills = 0;
    let strategies = list(&plan["strategies"]);
    for point in list(&plan["points"]).iter().chain([&plan["at"]]) {
        let mut least: Option<(f64, &Value)> = None;
        for (strategy, bill) in strategies.iter().zip(list(&point["bills"])) {
            assert_eq!(strategy["id"], bill["id"]);
            if bill["usd_per_month"].is_null() {
                assert!(bill["not_carried"].is_string());
                continue;
            }
            let mut total = 0.0;
            for line in list(&bill["lines"]) {
                let usd = number(&line["usd_per_month"]);
                assert!(near(usd, number(&line["quantity"]) * number(&line["usd_per_unit"])), "{line}");
                assert!(!line["source"].as_str().expect("a source").is_empty());
                total += usd;
            }
            assert!(near(number(&bill["usd_per_month"]), total));
            recompute(plan, strategy, point, bill);
            if least.is_none_or(|(usd, _)| total < usd - 1e-9) {
                least = Some((total, &bill["id"]));
            }
            bills += 1;
        }
        assert_eq!(&point["cheapest"], least.map_or(&Value::Null, |(_, id)| id));
    }
    bills
}

#[test]
fn every_figure_can_be_recomputed() {
    let dir = recorded();
    let plan = json(dir.path(), &["--operation-usd-per-cluster", "500", "--response-bytes", "150000"]);
    assert_eq!(plan["window"]["from"], Value::Null);
    let bills = recompute_all(&plan);
    assert!(bills > 200, "{bills} bills were compared");
    // So much traffic reaches the second tier.
    let tiers = list(&plan["points"]).iter().flat_map(|point| list(&point["bills"]));
    assert!(tiers.flat_map(|bill| list(&bill["lines"])).any(|line| line["what"] == "responses, tier 2"));
}

#[test]
fn every_figure_can_be_recomputed_where_prices_change() {
    let dir = directory(CONFIG, CROSSING);
    let plan = json(dir.path(), &["--until", "2026-01-04T06:20:00Z", "--to", "80"]);
    // From 1 January, 0 o'clock, there are 78 hours; three whole days of them.
    assert_eq!(plan["window"]["from"], "2026-01-01T06:00:00Z");
    assert_eq!(plan["window"]["hours"], 72);
    let shifting = list(&plan["strategies"]).iter().find(|one| one["strategy"] == "two_clouds_shifting");
    let notes = list(&shifting.expect("two clouds")["notes"]);
    assert!(
        notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains("moves 2 times"))),
        "{notes:?}"
    );
    assert!(recompute_all(&plan) > 150);

    // Two clouds that shift cost no more than two that do not.
    let kind = |kind: &str| list(&plan["strategies"]).iter().position(|one| one["strategy"] == kind);
    let (fixed, shifting) =
        (kind("two_clouds_fixed").expect("one"), kind("two_clouds_shifting").expect("one"));
    for point in list(&plan["points"]) {
        let usd = |index: usize| point["bills"][index]["usd_per_month"].as_f64();
        if let Some(fixed) = usd(fixed) {
            assert!(usd(shifting).expect("it carries that too") < fixed, "at {}", point["rps"]);
        }
    }
}

/// The changes are where it says: the cheapest is computed anew on both sides.
#[test]
fn break_evens_hold_when_asked_again() {
    let dir = recorded();
    let first = json(dir.path(), &[]);
    let changes = list(&first["break_even"]["changes"]);
    assert!(!changes.is_empty());
    for change in changes.iter().take(5) {
        for (side, rps) in [("before", "above_rps"), ("after", "at_rps")] {
            let again = json(dir.path(), &["--at", &change[rps].to_string(), "--points", "2"]);
            assert_eq!(again["at"]["cheapest"], change[side], "{change}");
        }
    }
}

/// The cells of a line of a table, which stand two spaces or more apart.
fn cells(line: &str) -> Vec<&str> {
    line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[test]
fn the_printed_lines_add_up() {
    let dir = recorded();
    let text = stdout(&plan(dir.path(), &["--at", "37", "--response-bytes", "150000"]));
    let details = text.split_once("\nAt 37 requests/s").expect("details").1;
    let details = details.split("\nUnknown\n").next().expect("details");
    assert!(!text.contains("Prices to doubt"), "all are fresh");
    let mut compared = 0;
    for bill in details.split("\n\n").skip(1) {
        let mut lines = bill.lines();
        let title = lines.next().expect("a title");
        let Some((_, total)) = title.rsplit_once(": ") else { panic!("{title:?}") };
        let Some(total) = total.split(" USD a month").next().and_then(|usd| usd.parse::<f64>().ok()) else {
            assert!(total.contains("does not carry it"), "{title}");
            continue;
        };
        let mut sum = 0.0;
        for line in lines.filter(|line| !line.trim_start().starts_with("LINE")) {
            let cells = cells(line);
            let number = |index: usize| cells.get(index).and_then(|cell| cell.parse::<f64>().ok());
            let (Some(quantity), Some(price), Some(usd)) = (number(3), number(5), number(6)) else {
                assert!(cells.len() == 1, "a note, or a line of the bill: {line:?}");
                continue;
            };
            // What rounding to the digits shown can do.
            let slack = 0.005 + 0.000_05 * price + 0.000_000_000_05 * quantity + 1e-9;
            assert!((quantity * price - usd).abs() <= slack, "{line}");
            assert!(cells.len() == 8, "every line has a source: {line}");
            sum += usd;
            compared += 1;
        }
        assert!((sum - total).abs() < 0.05, "{sum} in lines, {total} in {title}");
    }
    assert!(compared > 40, "{compared} lines");
}

#[test]
fn what_people_read() {
    let dir = recorded();
    let text = stdout(&plan(dir.path(), &["--from", "1", "--to", "300", "--points", "6", "--at", "30"]));
    let (overview, details) = text.split_once("\nAt 30 ").expect("details");
    assert_snapshot!(overview, @"
    A month of traffic, in USD
      month       730 hours; node prices do not change in it
      day         14 days of Microsoft Azure Functions (CC-BY 4.0), mean of each hour of the day; busiest hour 2.601 times the mean
      response    4096 bytes on average
      STATIC      static_on_demand: nodes for the busiest hour all month, on demand
      ON DEMAND   autoscale_on_demand: nodes for each hour, on demand
      SPOT        autoscale_spot: nodes for each hour, spot
      2 FIXED     two_clouds_fixed: two clusters, spot, half of the traffic each
      2 SHIFTING  two_clouds_shifting: two clusters, spot, the traffic where it is cheaper
      MANAGED     managed: instances of a managed platform for each hour

      REQUESTS/S   STATIC  ON DEMAND      SPOT  2 FIXED  2 SHIFTING  MANAGED  CHEAPEST
               1  $622.93    $622.93  *$277.77  $603.73     $603.85  $687.17  autoscale_spot/eks-g4dn
            3.13  $709.91    $670.74  *$296.82  $606.04     $606.41  $746.42  autoscale_spot/eks-g4dn
            9.79    $1984    $955.35  *$432.43  $702.28     $645.75    $1468  autoscale_spot/gke-g2
            30.6    $5175      $2194  *$942.08    $1284       $1081    $3861  autoscale_spot/gke-g2
            95.9   $36035     $14457     $6613    $3224      *$2664   $14701  two_clouds_shifting/gke-g2+eks-g4dn
             300        -          -         -        -           -        -  none carries it
      *: the cheapest. Of several backends, the cheapest is shown; -: none carries this traffic.

    What pays (costs less, or carries what the other does not), each kind at its cheapest backend
      autoscale_on_demand pays over static_on_demand from 2.3072 to 184.56 requests/s, but not everywhere in between.
      autoscale_spot pays over autoscale_on_demand from 1 to 184.56 requests/s.
      two_clouds_fixed pays over autoscale_spot from 84.597 to 138.43 requests/s.
      two_clouds_shifting pays over two_clouds_fixed from 4.6144 to 153.8 requests/s.
      managed pays over autoscale_on_demand from 86.137 to 110.54 requests/s, but not everywhere in between.

    Break-even, 1 to 300 requests/s
      autoscale_spot/eks-g4dn is the cheapest from 1 to 4.8971 requests/s.
      autoscale_spot/gke-g2 is the cheapest from 4.8975 to 84.591 requests/s.
      two_clouds_shifting/gke-g2+eks-g4dn is the cheapest from 84.597 to 153.8 requests/s.
      autoscale_spot/eks-p3 is the cheapest from 153.81 to 184.56 requests/s.
      Nowhere the cheapest: static_on_demand/eks-p3, static_on_demand/eks-g4dn, static_on_demand/gke-g2, autoscale_on_demand/eks-p3, autoscale_on_demand/eks-g4dn, autoscale_on_demand/gke-g2, two_clouds_fixed/gke-g2+eks-g4dn, managed/eks-p3:ml.p3.2xlarge, managed/eks-g4dn:ml.g4dn.2xlarge, managed/run.
      Between 4.89713 and 4.89747: from autoscale_spot/eks-g4dn to autoscale_spot/gke-g2.
      Between 84.591 and 84.5969: from autoscale_spot/gke-g2 to two_clouds_shifting/gke-g2+eks-g4dn.
      Between 153.8 and 153.811: from two_clouds_shifting/gke-g2+eks-g4dn to autoscale_spot/eks-p3.
      Between 184.563 and 184.575: from autoscale_spot/eks-p3 to none that carries the traffic.
    ");
    let one = details.split("\n\n").find(|bill| bill.contains("autoscale_spot/gke-g2:")).expect("its lines");
    assert_snapshot!(one, @"
    autoscale_spot/gke-g2: 930.83 USD a month, the cheapest
      90% of the nodes of `gke-g2` are spot, as configured
      LINE          BACKEND  WHAT                          QUANTITY  UNIT              USD/UNIT  USD/MONTH  SOURCE
      compute       gke-g2   spot nodes                     2135.25  node-hour      0.268444071     573.20  file:prices.csv, charged from 2024-05-23
      compute       gke-g2   on-demand nodes                 237.25  node-hour      0.853624271     202.52  file:prices.csv, charged from 2023-04-24
      storage       gke-g2   disks                           2372.5  node-hour     0.0136986301      32.50  node.disk
      interruption  gke-g2   time lost to interruptions     39.6801  node-hour     0.3406607211      13.52  0.223 an hour of a spot node (assumed from recordings), each for 300 s
      egress        gke-g2   responses, tier 1             322.9286  GB             0.111758709      36.09  https://cloud.google.com/vpc/network-pricing, as of 2026-09-20
      fees          gke-g2   control plane of the cluster       730  cluster-hour           0.1      73.00  https://cloud.google.com/kubernetes-engine/pricing, as of 2026-10-01
      operation     gke-g2   running the cluster                  1  cluster                  0       0.00  not included
    ");
    let end = details.split_once("\nUnknown\n").expect("what is unknown").1;
    assert_snapshot!(end, @"
      managed/gke-g2:g2-standard-8: what an hour of `g2-standard-8` costs for online prediction on Vertex AI in us-central1 is not known: state it in a file of fees by the row `gcp,vertex-ai,g2-standard-8,us-central1,hour,0,USD,YYYY-MM-DD,SOURCE`

    Not included
      taxes, discounts, commitments, contracts and free allowances
      load balancers, NAT gateways, public addresses, logs, storage of models, this router itself
      peaks within an hour, and spare nodes for them: an hour has as many nodes as its mean traffic needs
      storage of managed endpoints, and differences in speed between machines beyond the configured `rps`
      operation: people's work (say what it costs with --operation-usd-per-cluster)
    ");
}

/// Whether a text is well-formed XML, as far as ours goes; gives the texts in it.
fn texts_of_xml(xml: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut texts = Vec::new();
    let mut rest = xml.trim_start_matches("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    while let Some((text, after)) = rest.split_once('<') {
        let (tag, after) = after.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(!text.contains('>'), "{text}");
        for entity in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known)), "{text}");
        }
        if !text.trim().is_empty() {
            assert!(!open.is_empty(), "{text} is in no element");
            texts.push(text.trim().to_owned());
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().expect("a name")),
        }
        rest = after;
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    texts
}

#[test]
fn the_plot_is_drawn() {
    let dir = recorded();
    let output = plan(dir.path(), &["--plot", "plan.svg"]);
    assert!(output.status.success());
    let svg = fs::read_to_string(dir.path().join("plan.svg")).expect("it is there");
    let texts = texts_of_xml(&svg);
    let labels = [
        "What a month of traffic costs",
        "requests per second, on average over the day",
        "USD a month",
        "static_on_demand",
        "autoscale_on_demand",
        "autoscale_spot",
        "two_clouds_fixed",
        "two_clouds_shifting",
        "managed",
    ];
    for label in labels {
        assert!(texts.iter().any(|text| text == label), "{label} is not in the picture");
        if label.contains('_') || label == "managed" {
            assert!(svg.contains(&format!("<g id=\"{label}\">")), "{label} is not drawn");
        }
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "every place is a number");
    let refused = plan(dir.path(), &["--plot", "no/such/plan.svg"]);
    assert_eq!(refused.status.code(), Some(1));
}

/// Exit code and what was said.
fn refused(dir: &Path, args: &[&str]) -> String {
    let output = plan(dir, args);
    assert_eq!(stdout(&output), "");
    let said = String::from_utf8_lossy(&output.stderr);
    format!("{}: {said}", output.status.code().expect("an exit code"))
}

#[test]
fn bad_input_is_named() {
    let dir = recorded();
    let said = |args: &[&str]| refused(dir.path(), args);
    assert_snapshot!(said(&["--from", "10", "--to", "5"]), @"1: --from: found 10, expected less than --to, which is 5");
    assert_snapshot!(said(&["--points", "1"]), @"1: --points: found 1, expected 2 to 200");
    assert_snapshot!(said(&["--to", "inf"]), @"1: --to: found inf requests per second, expected 0.000001 to 1000000000");
    assert_snapshot!(said(&["--at", "0"]), @"1: --at: found 0 requests per second, expected 0.000001 to 1000000000");
    assert_snapshot!(said(&["--response-bytes", "NaN"]), @"1: --response-bytes: found NaN, expected 0 to 1000000000000");
    assert_snapshot!(said(&["--operation-usd-per-cluster=-1"]), @"1: --operation-usd-per-cluster: found -1, expected 0 to 1000000000");
    assert_snapshot!(said(&["--requests", "no.csv"]), @"1: --requests: no.csv cannot be read: No such file or directory (os error 2)");
    fs::write(dir.path().join("r.csv"), "offset_seconds,requests\n0,10\n60,ten\n")
        .expect("it can be written");
    assert_snapshot!(said(&["--requests", "r.csv"]), @"1: --requests: r.csv, line 3, column 2 (requests): found `ten`, expected a number of requests, 0 or more");
    assert_eq!(plan(dir.path(), &["--requests", "r.csv", "--flat"]).status.code(), Some(2));
    assert_eq!(plan(dir.path(), &["--points", "many"]).status.code(), Some(2));
}

#[test]
fn what_cannot_be_priced_is_unknown() {
    let bare = "[backends.a]\nurl = \"http://127.0.0.1:1\"\ncloud = \"other\"\nregion = \"r\"\n\
                [routes.all]\nmatch = { path = \"/*\" }\nbackends = [\"a\"]\n";
    let dir = directory(bare, CROSSING);
    assert_snapshot!(refused(dir.path(), &[]), @"1: t.toml: no backend says what it can serve: give one `node` and `replicas`");

    let dir = directory(
        &CONFIG.replace("g2-standard-8", "g2-standard-96"),
        include_str!("data/prices_recorded.csv"),
    );
    let plan = json(dir.path(), &[]);
    let unknown: Vec<String> = list(&plan["unknown"])
        .iter()
        .map(|unknown| {
            format!("{}: {}\n", unknown["id"].as_str().expect("an id"), unknown["why"].as_str().expect("why"))
        })
        .collect();
    assert_snapshot!(unknown.concat(), @"
    static_on_demand/gke-g2: no source states a price for on_demand g2-standard-96 in gcp us-central1
    autoscale_on_demand/gke-g2: no source states a price for on_demand g2-standard-96 in gcp us-central1
    autoscale_spot/gke-g2: no source states a price for spot g2-standard-96 in gcp us-central1
    two_clouds_fixed: there is no second backend, whose cost as spot is known, outside of aws us-east-1
    two_clouds_shifting: there is no second backend, whose cost as spot is known, outside of aws us-east-1
    managed/gke-g2:g2-standard-96: what an hour of `g2-standard-96` costs for online prediction on Vertex AI in us-central1 is not known: state it in a file of fees by the row `gcp,vertex-ai,g2-standard-96,us-central1,hour,0,USD,YYYY-MM-DD,SOURCE`
    ");

    // Without any price, and without the managed service, there is nothing to compare.
    let nodes = CONFIG.split("[backends.run]").next().expect("the start");
    let config = format!(
        "{nodes}[routes.chat]\nmatch = {{ path = \"/*\" }}\nbackends = [\"eks-p3\", \"eks-g4dn\", \"gke-g2\"]\n"
    );
    let config = config.replace("us-east-1", "us-west-2").replace("g2-standard-8", "g2-standard-96");
    let dir = directory(&config, CROSSING);
    let said = refused(dir.path(), &["--until", "2026-01-04T00:00:00Z"]);
    assert!(
        said.starts_with("1: t.toml: none of its 3 backends can be priced under any strategy:\n"),
        "{said}"
    );
}

/// A whole recorded day in one's own file gives its own shape.
#[test]
fn a_recording_shapes_the_day() {
    let dir = recorded();
    let rows: String =
        (0..48).map(|half| format!("{},{}\n", half * 1800, if half / 2 == 9 { 120 } else { 10 })).collect();
    fs::write(dir.path().join("r.csv"), format!("offset_seconds,requests\n{rows}"))
        .expect("it can be written");
    let plan = json(dir.path(), &["--requests", "r.csv", "--points", "3"]);
    let factors: Vec<f64> = list(&plan["day"]["hourly_factors"]).iter().map(number).collect();
    assert!(near(factors[9], 24.0 * 12.0 / 35.0) && near(factors[8], 24.0 / 35.0), "{factors:?}");
    assert!(recompute_all(&plan) > 20);
    let flat = json(dir.path(), &["--flat", "--points", "3"]);
    assert!(list(&flat["day"]["hourly_factors"]).iter().all(|factor| number(factor) == 1.0));
}
