//! What `check` promises: every fault is named with file, line, column and a hint, several at once, and no input is too
//! odd for an answer.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

#[path = "check/access.rs"]
mod access;
#[path = "check/costs.rs"]
mod costs;
#[path = "check/ejection.rs"]
mod ejection;
#[path = "check/limits.rs"]
mod limits;
#[path = "check/listen.rs"]
mod listen;
#[path = "check/load.rs"]
mod load;
#[path = "check/models.rs"]
mod models;
#[path = "check/retries.rs"]
mod retries;
#[path = "check/rules.rs"]
mod rules;
#[path = "check/sources.rs"]
mod sources;

use insta::assert_snapshot;
use serde_json::Value;
use tradewind::{
    config::{self, Loaded},
    model::Digest,
};

/// A file without a fault, to which a test adds its own.
const GOOD: &str = r#"[prices]
sources = [{ file = "prices.csv" }]
[backends.a]
url = "https://a.example.com"
cloud = "aws"
region = "us-east-1"
node = { instance_type = "g5.2xlarge" }
replicas = { max = 3, rps = 12 }
[backends.b]
url = "https://b.example.com"
cloud = "gcp"
region = "us-central1"
node = { instance_type = "g2-standard-8" }
replicas = { max = 3, rps = 12 }
[routes.chat]
match = { path = "/v1/*" }
backends = ["a", "b"]
"#;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// Everything `check` has to say about a text, under the name `t.toml` in the directory of the examples.
fn said(text: &str) -> String {
    let said = match config::parse(text, &examples().join("t.toml")) {
        Ok(Loaded { warnings, .. }) => warnings.iter().map(|fault| format!("{fault}\n")).collect(),
        Err(faults) => faults.to_string(),
    };
    said.replace(&format!("{}/", examples().display()), "")
}

/// What it says about the good file after one replacement.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old:?} is not in the file");
    said(&GOOD.replacen(old, new, 1))
}

/// What it says about the good file and more.
fn and(more: &str) -> String {
    said(&format!("{GOOD}{more}"))
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(said(GOOD), "");
}

#[test]
fn unknown_keys() {
    assert_snapshot!(with("replicas = { max", "replicas = { maxx"), @r#"
    t.toml:8:14: error: backends.a.replicas: unknown key `maxx`
        hint: did you mean `max`?
    "#);
    assert_snapshot!(with("region", "zzz = 1\nregion"), @"
    t.toml:6:1: error: backends.a: unknown key `zzz`
        hint: known here: `url`, `cloud`, `platform`, `region`, `zones`, `zone_price`, `protocol`, `ca`, `server_name`, `client_cert`, `client_key`, `probe`, `limit`, `ejection`, `node`, `managed`, `replicas`, `load`, `auth`, `client_credentials`, `egress_usd_per_gb`
    ");
    assert_snapshot!(with("[routes.chat]", "[route.chat]"), @r#"
    t.toml:15:2: error: unknown key `route`
        hint: did you mean `routes`?
    "#);
}

#[test]
fn wrong_types() {
    assert_snapshot!(with("max = 3", "max = \"3\""), @r#"
    t.toml:8:20: error: backends.a.replicas.max: found a string, expected an integer
        hint: write it without quotes
    "#);
    assert_snapshot!(with("max = 3", "max = 3.5"), @r#"
    t.toml:8:20: error: backends.a.replicas.max: found a number with a fraction, expected an integer
        hint: Replicas that its autoscaler never exceeds.
    "#);
    assert_snapshot!(with("[\"a\", \"b\"]", "\"a\""), @r#"
    t.toml:17:12: error: routes.chat.backends: found a string, expected an array
        hint: write it like ["eks-use1", "gke-usc1"]
    "#);
    assert_snapshot!(with("{ path = \"/v1/*\" }", "\"/v1/*\""), @r#"
    t.toml:16:9: error: routes.chat.match: found a string, expected a table
        hint: write it like { path = "/v1/*" }
    "#);
    assert_snapshot!(with("\"us-east-1\"", "2021-03-02"), @r#"
    t.toml:6:10: error: backends.a.region: found a date or time, expected a string
        hint: write it in quotes
    "#);
    assert_snapshot!(and("[admin]\ntokens = [{ name = \"x\", role = \"viewer\", value = \"hunter2\" }]"), @r#"
    t.toml:19:50: error: admin.tokens[0].value: found a string, expected a table
        hint: write it like { file = "PATH" } or { sha256 = "HEX" }
    "#);
    assert_snapshot!(with("cloud = \"aws\"", "cloud = \"AWS\""), @r#"
    t.toml:5:9: error: backends.a.cloud: found "AWS", expected "aws", "gcp", "other"
        hint: Who bills it.
    "#);
}

#[test]
fn missing_keys() {
    assert_snapshot!(with("url = \"https://a.example.com\"\n", ""), @r#"
    t.toml:3:11: error: backends.a: the key `url` is missing
        hint: Where it is reached. Without a path: requests keep their own. (write it like "https://llama.example.com" or "http://10.0.0.7:8000")
    "#);
    assert_snapshot!(with("{ path = \"/v1/*\" }", "{}"), @r#"
    t.toml:16:1: error: routes.chat.match: found 0 keys, expected at least one of `host`, `path`, `model`, `header`
        hint: write it like { path = "/v1/*" }
    "#);
    assert_snapshot!(and("[admin]\ntokens = [{ name = \"x\", role = \"viewer\", value = { env = \"A\", file = \"b\" } }]"), @r#"
    t.toml:19:42: error: admin.tokens[0].value: found 2 keys, expected exactly one of `env`, `file`, `sha256`
        hint: write it like { file = "PATH" } or { sha256 = "HEX" }
    "#);
}

#[test]
fn bad_values() {
    assert_snapshot!(and("slo = { ttft_p95 = \"800 ms\" }"), @r#"
    t.toml:18:20: error: routes.chat.slo.ttft_p95: `800 ms` is not a duration: expected numbers with the units d, h, m, s or ms, such as "10m"
        hint: write it like "500ms" or "10m" or "1h30m"
    "#);
    assert_snapshot!(and("slo = { ttft_p95 = \"-1s\" }"), @r#"
    t.toml:18:20: error: routes.chat.slo.ttft_p95: `-1s` is not a duration: expected numbers with the units d, h, m, s or ms, such as "10m"
        hint: write it like "500ms" or "10m" or "1h30m"
    "#);
    assert_snapshot!(and("[policies.default]\nshift_at = \"115%\"\nramp = \"10%\"\nkeep_warm = nan"), @r#"
    t.toml:19:12: error: policies.default.shift_at: `115%` is not a share: expected "0%" to "100%", or 0 to 1
        hint: write it like "15%" or "0.15"
    t.toml:20:8: error: policies.default.ramp: `10%` is not a ramp: expected a share in a time, such as "10%/m"
        hint: write it like "10%/m" or "1%/s"
    t.toml:21:13: error: policies.default.keep_warm: found nan, expected a finite number
        hint: Share that every backend keeps, so that it stays warm and measured.
    "#);
    assert_snapshot!(with("rps = 12", "rps = 0"), @r#"
    t.toml:8:29: error: backends.a.replicas.rps: `0` is not a rate: expected requests per second above 0, such as 12 or "12/s"
        hint: write it like "12/s" or "720/m"
    "#);
    assert_snapshot!(with("rps = 12", "rps = inf"), @r#"
    t.toml:8:29: error: backends.a.replicas.rps: found inf, expected a finite number
        hint: Requests per second that one replica serves within the objective.
    "#);
    assert_snapshot!(with("max = 3", "max = 99999999999999999999"), @r#"
    t.toml:8:20: error: backends.a.replicas.max: the number does not fit 64 bits
        hint: Replicas that its autoscaler never exceeds.
    "#);
    assert_snapshot!(with("max = 3", "max = 0x7fffffffffffffff"), @r#"
    t.toml:8:20: error: backends.a.replicas.max: found 9223372036854776000, expected at most 100000
        hint: Replicas that its autoscaler never exceeds.
    "#);
    assert_snapshot!(with("https://a.example.com", "https://bob:hunter2@a.example.com"), @r#"
    t.toml:4:7: error: backends.a.url: the URL holds a user name or password (not shown here): expected none
        hint: write it like "https://llama.example.com" or "http://10.0.0.7:8000"
    "#);
    assert_snapshot!(with("https://a.example.com", "https://a.example.com/v1"), @r#"
    t.toml:4:7: error: backends.a.url: `https://a.example.com/v1` is not the URL of a backend: it has a path or query, but requests keep their own
        hint: write it like "https://llama.example.com" or "http://10.0.0.7:8000"
    "#);
    assert_snapshot!(with("\"/v1/*\"", "\"/v1*\""), @r#"
    t.toml:16:18: error: routes.chat.match.path: `/v1*` is not a path pattern: `*` may only be its last segment, for that path and all below it
        hint: write it like "/v1/*" or "/v1/models" or "/*"
    "#);
    assert_snapshot!(with("[backends.a]", "[backends.\"a b\"]"), @r#"
    t.toml:3:11: error: backends: the name `a b` may hold letters, digits, `-`, `_` and `.`, and must start with a letter or digit
    t.toml:17:13: error: routes.chat.backends[0]: there is no backend `a`
        hint: known: `b`
    "#);
    assert_snapshot!(and("[log]\nlevel = \"info,=\""), @r#"
    t.toml:19:9: error: log.level: `info,=` is not a log filter: invalid filter directive
        hint: write it like "info" or "warn,tradewind=debug"
    "#);
}

#[test]
fn what_may_be_lost_must_leave_something_that_is_known() {
    let n_minus_one = "[policies.default]\nn_minus_one = \"cloud\"\n";
    assert_eq!(and(n_minus_one), "");
    let asking = |old: &str, new: &str| said(&format!("{}{n_minus_one}", GOOD.replacen(old, new, 1)));
    assert_snapshot!(asking("cloud = \"gcp\"", "cloud = \"aws\""), @r#"
    t.toml:9:11: warning: backends.b: its cost is unknown: what a GB from aws us-central1 to the internet costs is not known: state it in a file of fees by the row `aws,internet-egress,*,us-central1,GB,0,USD,YYYY-MM-DD,SOURCE`
        hint: or say it with `egress_usd_per_gb`
    t.toml:17:12: error: routes.chat.backends: policy `default` has n_minus_one = "cloud", but all backends are in one cloud: nothing would be left
        hint: add a backend elsewhere, or take `n_minus_one` out
    "#);
    assert_snapshot!(asking("replicas = { max = 3, rps = 12 }", ""), @r#"
    t.toml:3:11: warning: backends.a: without `replicas` its cost is unknown
        hint: traffic never moves to or from it for money
    t.toml:17:12: error: routes.chat.backends: policy `default` has n_minus_one = "cloud", but nothing says what `a` can take
        hint: give `a` `replicas`
    "#);
    assert_snapshot!(and("[policies.default]\nn_minus_one_ready = \"20%\""), @r#"
    t.toml:19:21: warning: policies.default.n_minus_one_ready: without `n_minus_one` nothing is kept ready
        hint: say what may be lost: n_minus_one = "cloud" or "region"
    "#);
    assert_snapshot!(and("[policies.default]\nn_minus_one = \"zone\""), @r#"
    t.toml:19:15: error: policies.default.n_minus_one: found "zone", expected "cloud", "region"
        hint: The loss of any one cloud, or region, shall leave enough: others keep replicas ready for a part of what it serves, and it is said when they could not take the rest.
    "#);
}

#[test]
fn what_a_later_version_knows() {
    assert_snapshot!(and("[state]\nurl = \"s3://bucket/tradewind\""), @r#"
    t.toml:19:1: error: state: unknown key `url`
        hint: this version keeps its state in a directory: use `dir`
    "#);
}

#[test]
fn routes() {
    assert_snapshot!(with("[\"a\", \"b\"]", "[\"a\", \"a\", \"gke-use1\"]"), @r#"
    t.toml:9:11: warning: backends.b: no route uses it
    t.toml:17:18: error: routes.chat.backends[1]: the backend `a` is there twice
        hint: take one out
    t.toml:17:23: error: routes.chat.backends[2]: there is no backend `gke-use1`
        hint: known: `a`, `b`
    "#);
    assert_snapshot!(with("[\"a\", \"b\"]", "[]"), @r#"
    t.toml:17:12: error: routes.chat.backends: the list is empty
        hint: write it like ["eks-use1", "gke-usc1"]
    "#);
    assert_snapshot!(and("[routes.two]\nmatch = { host = \"*\", path = \"/v1/*\" }\nbackends = [\"a\"]"), @r#"
    t.toml:19:1: error: routes.two.match: the route `chat` (line 15) matches the same requests
        hint: join the two, or give one of them a further condition
    "#);
    assert_snapshot!(and("policy = \"defualt\""), @r#"
    t.toml:18:10: error: routes.chat.policy: there is no policy `defualt`
        hint: did you mean `default`?
    "#);
    assert_snapshot!(and("shadow = [\"defualt\", \"default\"]"), @"
    t.toml:18:11: error: routes.chat.shadow[0]: there is no policy `defualt`
        hint: did you mean `default`?
    t.toml:18:22: error: routes.chat.shadow[1]: `default` is the policy of the route
        hint: a shadow is another policy than the one in force: take it out
    ");
    assert_snapshot!(with("{ path = ", "{ header = {}, path = "), @r#"
    t.toml:16:11: error: routes.chat.match.header: found 0 keys, expected 1 to 16
        hint: write it like { x-tier = "gold" }
    "#);
    assert_snapshot!(with("{ path = ", "{ header = { X-Tier = \"gold\", x-tier = \"free\" }, path = "), @r#"
    t.toml:16:11: error: routes.chat.match.header: `x-tier` is there twice
        hint: upper and lower case are the same here: take one out
    "#);
    assert_snapshot!(and("[policies.default]\nkeep_warm = \"60%\""), @r#"
    t.toml:17:12: error: routes.chat.backends: policy `default` keeps 60% at each of 2 backends: 120% in all
        hint: let `keep_warm` be at most 50%
    "#);
    assert_snapshot!(and("[policies.default]\nshift_at = \"3%\""), @r#"
    t.toml:18:11: error: policies.default.return_at: 5% is more than `shift_at` (3%)
        hint: traffic would return the moment it left: return at a smaller gap
    "#);
    assert_snapshot!(and("[policies.default]\nrule = \"break-even\"\nshift_at = \"20%\"\nmove_usd = 0.5"), @r#"
    t.toml:20:12: warning: policies.default.shift_at: the rule "break-even" does not use it
        hint: take it out
    "#);
    assert_snapshot!(and("[policies.default]\nmove_usd = 0.5"), @r#"
    t.toml:19:12: warning: policies.default.move_usd: the rule "threshold" does not use it
        hint: take it out
    "#);
    // What follows from a fault is no fault of its own.
    assert_snapshot!(and("[policies.default]\nshift_at = \"x\"\nreturn_at = \"20%\""), @r#"
    t.toml:19:12: error: policies.default.shift_at: `x` is not a share: expected "0%" to "100%", or 0 to 1
        hint: write it like "15%" or "0.15"
    "#);
}

#[test]
fn backends() {
    assert_snapshot!(with("max = 3", "min = 4, max = 3"), @r#"t.toml:8:20: error: backends.a.replicas.min: 4 is more than `max` (3)"#);
    assert_snapshot!(with("region", "ca = \"README.md\"\nprobe = { interval = \"1s\", timeout = \"2s\" }\nregion"), @r#"
    t.toml:6:6: error: backends.a.ca: the file `README.md`: it holds no certificate in PEM
    t.toml:7:38: error: backends.a.probe.timeout: found 2s, expected more than 0 and at most `interval`
        hint: `interval` is 1s
    "#);
    assert_snapshot!(with("[\"a\", \"b\"]", "[\"a\"]"), @r#"t.toml:9:11: warning: backends.b: no route uses it"#);
    assert_snapshot!(with("cloud = \"aws\"", "cloud = \"other\""), @r#"
    t.toml:3:11: warning: backends.a: nothing says what sending data to clients costs: taken as free
        hint: say what a GB costs with `egress_usd_per_gb`; 0 silences this warning
    "#);
    assert_snapshot!(with("node = { instance_type = \"g5.2xlarge\" }\n", ""), @r#"
    t.toml:3:11: warning: backends.a: without `node` its cost is unknown
        hint: traffic never moves to or from it for money
    "#);
    assert_snapshot!(with("sources = [{ file = \"prices.csv\" }]", ""), @r#"
    t.toml:1:2: warning: prices.sources: there is no source of prices: every cost is unknown
        hint: ask the providers, or give a file: sources = ["aws", "gcp", { file = "prices.csv" }]
    "#);
}

#[test]
fn files_and_secrets() {
    assert_snapshot!(with("prices.csv", "no.csv"), @r#"
    t.toml:2:21: error: prices.sources[0].file: the file `no.csv`: there is no such file
        hint: relative paths start at the directory of this file
    "#);
    assert_snapshot!(with("file = \"prices.csv\"", "file = \".\", speed = 60"), @r#"
    t.toml:2:21: error: prices.sources[0].file: the file `.`: it is a directory
    t.toml:2:34: error: prices.sources[0].speed: only a replay has a speed
        hint: say with `from` at which recorded moment the replay starts
    "#);
    assert_snapshot!(and(r#"[admin]
tls = { cert = "no.crt", key = "no.key" }
tokens = [
  { name = "a", role = "viewer", value = { env = "TRADEWIND_TEST_NOT_SET" } },
  { name = "b", role = "admin", value = { file = "no.token" } },
  { name = "c", role = "operator", value = { file = "minimal.toml" } },
]
[listen]
https = { addr = "0.0.0.0:8443", cert = "README.md", key = "README.md" }"#), @r#"
    t.toml:19:16: error: admin.tls.cert: the file `no.crt`: there is no such file
        hint: relative paths start at the directory of this file
    t.toml:19:32: error: admin.tls.key: the file `no.key`: there is no such file
        hint: relative paths start at the directory of this file
    t.toml:21:34: error: admin.tokens[0].value: the environment variable TRADEWIND_TEST_NOT_SET is not set
        hint: set it for the process, to the secret alone
    t.toml:22:33: error: admin.tokens[1].value: the file `no.token`: there is no such file
        hint: relative paths start at the directory of this file
    t.toml:23:36: error: admin.tokens[2].value: the secret holds a space, a control character or a letter outside ASCII (file minimal.toml)
        hint: the file must hold the secret alone, on one line, readable for this user
    t.toml:26:41: error: listen.https.cert: the file `README.md`: it holds no certificate in PEM
    "#);
    assert_snapshot!(and("[state]\ndir = \"README.md\""), @r#"t.toml:19:7: error: state.dir: `README.md` is there, but is not a directory"#);
}

#[test]
fn addresses() {
    assert_snapshot!(and("[admin]\nlisten = \"0.0.0.0:9901\""), @r#"
    t.toml:19:10: error: admin.listen: 0.0.0.0:9901 can be reached from other machines, but the admin API lacks `tls` and `tokens`
        hint: listen on 127.0.0.1, or give `tls` and `tokens`
    "#);
    assert_snapshot!(and("[admin]\nlisten = \"127.0.0.1:8080\""), @r#"
    t.toml:19:10: error: admin.listen: 127.0.0.1:8080 is taken by `listen.http`
        hint: use another port
    "#);
    assert_snapshot!(and("[listen]\nhttp = \":8080\""), @r#"
    t.toml:19:8: error: listen.http: `:8080` is not an address to listen on: expected IP:PORT
        hint: write it like "0.0.0.0:8080" or "[::1]:9901"
    "#);
}

#[test]
fn several_at_once() {
    assert_snapshot!(said(r#"
[listen]
http = 8080

[prices]
sources = [{ file = "prizes.csv" }]
refresh = "5 min"

[backends.eks-use1]
url = "llama.use1.example.com"
clowd = "aws"
region = "us-east-1"

[backends.gke-usc1]
url = "https://llama.usc1.example.com"
cloud = "gcp"
region = "us-central1"
probe = { path = "health" }

[routes.chat]
match = { path = "/v1/*" }
backends = ["eks-use1", "gke-usc2"]
polcy = "defalt"

[routes.bulk]
match = { path = "/v1/*" }
backends = []

[policies.default]
shift_at = 15
return_at = "5%"
"#), @r#"
    t.toml:3:8: error: listen.http: found an integer, expected a string
        hint: write it like "0.0.0.0:8080" or "[::1]:9901"
    t.toml:6:21: error: prices.sources[0].file: the file `prizes.csv`: there is no such file
        hint: relative paths start at the directory of this file
    t.toml:7:11: error: prices.refresh: `5 min` is not a duration: expected numbers with the units d, h, m, s or ms, such as "10m"
        hint: write it like "500ms" or "10m" or "1h30m"
    t.toml:10:7: error: backends.eks-use1.url: `llama.use1.example.com` is not the URL of a backend: it does not begin with http:// or https://
        hint: write it like "https://llama.example.com" or "http://10.0.0.7:8000"
    t.toml:11:1: error: backends.eks-use1: unknown key `clowd`
        hint: did you mean `cloud`?
    t.toml:14:11: warning: backends.gke-usc1: without `node` and `replicas` its cost is unknown
        hint: traffic never moves to or from it for money
    t.toml:18:18: error: backends.gke-usc1.probe.path: `health` is not a path to probe: expected one that begins with `/`
        hint: write it like "/health"
    t.toml:22:25: error: routes.chat.backends[1]: there is no backend `gke-usc2`
        hint: did you mean `gke-usc1`?
    t.toml:23:1: error: routes.chat: unknown key `polcy`
        hint: did you mean `policy`?
    t.toml:23:9: error: routes.chat.policy: there is no policy `defalt`
        hint: did you mean `default`?
    t.toml:27:12: error: routes.bulk.backends: the list is empty
        hint: write it like ["eks-use1", "gke-usc1"]
    t.toml:30:12: error: policies.default.shift_at: `15` is not a share: expected "0%" to "100%", or 0 to 1
        hint: write it like "15%" or "0.15"
    "#);
}

#[test]
fn odd_input() {
    assert_snapshot!(said(""), @r#"
    t.toml: error: the file has no backend: there is nothing to serve
        hint: add a table [backends.NAME]
    t.toml: error: the file has no route: there is nothing to serve
        hint: add a table [routes.NAME]
    "#);
    assert_snapshot!(said("a = \nb = 1\nc = [1,"), @r#"
    t.toml:1:5: error: not TOML: string values must be quoted, expected literal string
    t.toml:3:8: error: not TOML: unclosed array, expected `]`
    "#);
    assert_snapshot!(and("[backends.a]\nurl = \"https://c\""), @r#"
    t.toml:18:11: error: not TOML: duplicate key
    t.toml:19:1: error: not TOML: duplicate key
    "#);
    assert_snapshot!(said("value = \"hunter2"), @r#"t.toml:1:17: error: not TOML: invalid basic string, expected `"`"#);
    assert_snapshot!(said(&format!("x = {}{}", "[".repeat(500), "]".repeat(500))), @r#"t.toml:1:85: error: not TOML: cannot recurse further; max recursion depth met"#);
    assert_snapshot!(said(&format!("{}.b = 1", ["a"; 500].join("."))), @r#"t.toml:1:1: error: not TOML: recursion limit"#);
    assert_snapshot!(said(&"x\0".repeat(3)), @r#"t.toml:1:7: error: not TOML: key with no value, expected `=`"#);
    let many: String = (0..5000).map(|i| format!("key{i} = 1\n")).collect();
    assert!(said(&many).ends_with("\nand 4902 more"), "{}", said(&many));
}

/// A file within the limit must not keep anyone waiting, however wrong it is.
#[test]
fn the_worst_files_are_answered() {
    let backends: String = (0..900)
        .map(|i| format!("[backends.b{i}]\nurl = \"http://h{i}\"\ncloud = \"aws\"\nregion = \"r\"\n"))
        .collect();
    let names: Vec<String> = (0..900).map(|i| format!("\"x{i}\"")).collect();
    let routes: String = (0..30)
        .map(|i| format!("[routes.r{i}]\nmatch = {{ path = \"/*\" }}\nbackends = [{}]\n", names.join(",")))
        .collect();
    assert!(said(&(backends + &routes)).ends_with(" more"));
    let headers: String = (0..10_000).map(|i| format!("h{i}=\"\",")).collect();
    assert!(
        said(&format!("[routes.a]\nmatch = {{ header = {{ {headers} }} }}")).contains("expected 1 to 16")
    );
    assert!(said(&format!("{} = 1", "k".repeat(1 << 20))).contains("known here: `listen`"));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_fine() {
    let windows = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    assert_eq!(said(&windows), "");
    assert_snapshot!(said(&windows.replace("max = 3", "max = 0")), @r#"
    t.toml:8:20: error: backends.a.replicas.max: found 0, expected at least 1
        hint: Replicas that its autoscaler never exceeds.
    t.toml:14:20: error: backends.b.replicas.max: found 0, expected at least 1
        hint: Replicas that its autoscaler never exceeds.
    "#);
    assert_snapshot!(said("\u{feff}x = 1"), @"
    t.toml: error: the file has no backend: there is nothing to serve
        hint: add a table [backends.NAME]
    t.toml: error: the file has no route: there is nothing to serve
        hint: add a table [routes.NAME]
    t.toml:1:1: error: unknown key `x`
        hint: known here: `listen`, `admin`, `state`, `prices`, `fees`, `location`, `control`, `log`, `telemetry`, `backends`, `routes`, `tenants`, `policies`
    ");
}

#[test]
fn what_cannot_be_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let load = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).expect("the file is written");
        let said = config::load(&path).expect_err("the file is wrong").to_string();
        said.replace(&format!("{}/", dir.path().display()), "")
    };
    assert_snapshot!(load("latin1.toml", b"# fine\nx = \"caf\xe9\""), @r#"
    latin1.toml:2:9: error: this byte is not UTF-8
        hint: save the file as UTF-8
    "#);
    assert_snapshot!(load("long.toml", &b"# comment\n".repeat(200_000)), @r#"long.toml: error: cannot read the file: it is longer than 1048576 bytes"#);
    for missing in [dir.path().join("no.toml"), "".into()] {
        let said = config::load(&missing).expect_err("there is no file").to_string();
        assert!(said.contains("error: cannot read the file: "), "{said}");
    }
}

#[test]
fn secrets_are_read_and_never_shown() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the file is written");
    let key = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    write("tls.crt", &key.cert.pem());
    write("tls.key", &key.signing_key.serialize_pem());
    write("other.key", &other.signing_key.serialize_pem());
    write("oncall.token", "hunter2\n");
    write("prices.csv", "");
    let text = format!(
        r#"{GOOD}
[backends.a.probe]
path = "/health"
[admin]
listen = "0.0.0.0:9901"
tls = {{ cert = "tls.crt", key = "tls.key" }}
tokens = [{{ name = "oncall", role = "operator", value = {{ file = "oncall.token" }} }},
  {{ name = "ci", role = "viewer", value = {{ env = "CARGO_MANIFEST_DIR" }} }}]
[policies.default]
keep_warm = 0.05
"#
    );
    let text = text.replace("region", "ca = \"tls.crt\"\nregion");
    write("t.toml", &text);
    let settings = config::load(&dir.path().join("t.toml")).expect("the file is good").settings;
    assert_eq!(settings.admin.tokens[0].digest, Digest::of(b"hunter2"));
    assert_eq!(settings.admin.tokens[1].digest, Digest::of(env!("CARGO_MANIFEST_DIR").as_bytes()));
    assert_eq!(settings.admin.tls.as_ref().expect("TLS is on").key, dir.path().join("tls.key"));
    assert_eq!(settings.backends[0].tls.ca, [key.cert.der().to_vec()]);
    let shown = format!("{settings:?} {:#}", settings.redacted_json());
    assert!(!shown.contains("hunter2"), "{shown}");
    let document = settings.redacted_json();
    assert_eq!(document["admin"]["tokens"][0]["value"], serde_json::json!({ "file": "oncall.token" }));
    assert_eq!(document["policies"]["default"]["keep_warm"], "5%");
    // 0.12 USD for a GiB.
    let egress = document["backends"]["b"]["egress_usd_per_gb"].as_f64().expect("a number");
    assert!((egress - 0.12 * 1e9 / 1_073_741_824.0).abs() < 1e-9, "{egress}");

    write("t.toml", &text.replace("key = \"tls.key\"", "key = \"other.key\""));
    let said = config::load(&dir.path().join("t.toml")).expect_err("the key is another's").to_string();
    assert!(
        said.contains("admin.tls.key: the file `other.key`: it is not the key of the certificate"),
        "{said}"
    );
}

#[test]
fn the_configuration_in_force_is_a_configuration() {
    let path = examples().join("tradewind.toml");
    let settings = config::load(&path).expect("the example is good").settings;
    let text = toml::to_string(&settings.redacted_json()).expect("JSON without null is TOML");
    let again = config::parse(&text, &path).expect("it can be read again").settings;
    assert_eq!(again.redacted_json(), settings.redacted_json());
    assert_eq!(again.backends, settings.backends);
    assert_eq!(again.routes, settings.routes);
}

#[test]
fn every_example_loads() {
    let mut count = 0;
    for entry in fs::read_dir(examples()).expect("the directory of examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let loaded = config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
            let quiet = path.ends_with("minimal.toml") || loaded.warnings.is_empty();
            assert!(quiet, "{:?}", loaded.warnings);
            count += 1;
        }
    }
    assert!(count >= 2, "there are examples");
}

/// The keys below `path`, as lines of a table.
fn reference(root: &Value, schema: &Value, path: &str, lines: &mut String) {
    let target = |schema: &Value| match schema["$ref"].as_str() {
        Some(name) => {
            root.pointer(name.trim_start_matches('#')).expect("the reference leads somewhere").clone()
        }
        None => schema.clone(),
    };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let (full, about) = (format!("{path}{key}"), target(property));
        let description =
            property["description"].as_str().or(about["description"].as_str()).unwrap_or_default();
        let description = description.replace('\n', " ").replace('|', "\\|");
        let default = match &property["default"] {
            _ if required.contains(&key.as_str()) => "required".into(),
            Value::Null | Value::Object(_) => String::new(),
            default => format!("`{default}`"),
        };
        let form = match (about["format"].as_str(), about["type"].as_str()) {
            (Some(format), _) if format.starts_with("tradewind-") => {
                format["tradewind-".len()..].replace('-', " ")
            }
            (Some("date-time"), _) => "time".into(),
            (_, Some(kind)) => kind.replace("object", "table"),
            _ if about["anyOf"][1]["type"] == "array" => {
                let format = about["anyOf"][0]["format"].as_str().unwrap_or_default();
                format!("{}, or an array of them", format.trim_start_matches("tradewind-").replace('-', " "))
            }
            _ => "string".into(),
        };
        let options: Vec<&str> = ["enum", "oneOf"]
            .iter()
            .flat_map(|list| about[list].as_array().into_iter().flatten())
            .filter_map(|option| option.as_str().or(option["const"].as_str()))
            .collect();
        let form = if options.is_empty() { form } else { format!("`{}`", options.join("`, `")) };
        writeln!(lines, "| `{full}` | {form} | {default} | {description} |")
            .expect("a String takes everything");
        let (inner, path) = match () {
            () if about["additionalProperties"].is_object() => {
                (target(&about["additionalProperties"]), format!("{full}.NAME."))
            }
            () if about["items"].is_object() => {
                // Of what may be written as a text or as a table, the table has keys.
                let item = target(&about["items"]);
                let forms = item["anyOf"].as_array().cloned().unwrap_or_default();
                let table = forms.iter().map(target).find(|form| form["type"] == "object");
                (table.unwrap_or(item), format!("{full}[]."))
            }
            () => (about, format!("{full}.")),
        };
        reference(root, &inner, &path, lines);
    }
}

/// To write the reference anew: `UPDATE_DOCS=1 cargo test --test check`.
#[test]
fn the_reference_lists_every_key() {
    const MARK: &str = "<!-- Below: made from the JSON Schema by tests/check.rs. -->\n";
    let schema = config::json_schema();
    let mut made = "\n| key | form | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    reference(&schema, &schema, "", &mut made);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(&path).expect("the reference is there");
    let (before, below) = text.split_once(MARK).expect("the mark is there");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{MARK}{made}")).expect("the reference is written");
    } else {
        assert_eq!(below, made, "run `UPDATE_DOCS=1 cargo test --test check`");
    }
}
