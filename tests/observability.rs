//! Alert rules and the dashboard for Grafana are about metrics that there are, and say what they should.

mod harness;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Backend, Config, Tradewind, eventually};
use serde_json::Value;

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/observability").join(name)
}

/// A tool that `scripts/setup.sh test` brings; `None`, and said so, where it is not.
fn tool(name: &str) -> Option<Command> {
    let target = Path::new(env!("CARGO_BIN_EXE_tradewind")).ancestors().nth(2)?;
    let brought = target.join("prometheus/usr/bin").join(name);
    let on_path =
        env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.exists());
    let Some(path) = Some(brought).filter(|path| path.exists()).or(on_path) else {
        eprintln!("SKIPPED: there is no {name}; `scripts/setup.sh test` brings it");
        return None;
    };
    let mut command = Command::new(path);
    command.current_dir(deployed(""));
    Some(command)
}

fn succeeds(name: &str, args: &[&str]) {
    let Some(mut command) = tool(name) else { return };
    let output = command.args(args).output().expect("it starts");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {}", said.join("\n"));
}

#[test]
fn the_rules_say_what_their_tests_expect() {
    succeeds("promtool", &["test", "rules", "alerts.test.yaml"]);
    succeeds("promtool", &["check", "rules", "--lint-fatal", "alerts.yaml"]);
}

#[test]
fn the_example_of_an_alertmanager_is_one() {
    succeeds("amtool", &["check-config", "alertmanager.yaml"]);
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tradewind_")).map(str::to_owned).collect()
}

/// The names under which a scrape stores what `/metrics` describes.
fn stored(metrics: &str) -> BTreeSet<String> {
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .flat_map(|(name, kind)| {
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["", "_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

#[test]
fn rules_dashboard_and_documentation_name_metrics_that_there_are() {
    let a = Backend::named("a");
    // What counts lines of an access log is there only with one.
    let config = Config::new(&[(&a, 1.0)]).admin("[log]\naccess = { file = \"access.log\" }");
    let tradewind = Tradewind::start(&config);
    let there = stored(&tradewind.get("/metrics").unwrap().text());
    assert!(there.len() > 40, "{there:?}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in [deployed("alerts.yaml"), deployed("grafana-dashboard.json"), root.join("docs/metrics.md")] {
        let named = metrics_in(&fs::read_to_string(&path).unwrap());
        let unknown: Vec<&String> = named.difference(&there).collect();
        assert!(unknown.is_empty(), "{}: there are no {unknown:?}", path.display());
        assert!(named.len() > 10, "{}: {named:?}", path.display());
    }
    let documented = metrics_in(&fs::read_to_string(root.join("docs/metrics.md")).unwrap());
    let silent: Vec<&String> = there
        .difference(&documented)
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"))
        .collect();
    let silent: Vec<&&String> = silent.iter().filter(|name| !name.ends_with("_bucket")).collect();
    assert!(silent.is_empty(), "docs/metrics.md has no {silent:?}");
}

#[test]
fn every_alert_has_a_runbook_that_there_is() {
    let rules = fs::read_to_string(deployed("alerts.yaml")).unwrap();
    let alerts = rules.matches("- alert:").count();
    let runbooks: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: docs/operations.md#")).collect();
    assert_eq!(alerts, runbooks.len());
    let operations = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let headings: Vec<String> = fs::read_to_string(operations)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .collect();
    for runbook in runbooks {
        assert!(
            headings.iter().any(|heading| heading == runbook),
            "docs/operations.md has no #{runbook}: {headings:?}"
        );
    }
}

#[test]
fn the_dashboard_is_one_for_grafana() {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(deployed("grafana-dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{} is there twice", panel["id"]);
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().unwrap();
            assert!(
                !targets.is_empty()
                    && targets.iter().all(|t| t["expr"].as_str().is_some_and(|e| !e.is_empty()))
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel} has no unit");
        }
    }
}

#[test]
fn what_alerts_look_at_is_what_happens() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]).slo("5s");
    let tradewind = Tradewind::start(&config);
    assert_eq!(tradewind.metric("tradewind_route_eligible_backends{route=\"chat\"}"), Some(2.0));
    assert_eq!(tradewind.metric("tradewind_override_ends_seconds{kind=\"drain\"}"), None);
    tradewind
        .impose(serde_json::json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "a test" }));
    let ends = tradewind.metric("tradewind_override_ends_seconds{kind=\"drain\"}").expect("it ends");
    assert!((500.0..=600.0).contains(&ends), "{ends}");
    eventually("it is said to be drained", || {
        tradewind.metric("tradewind_backend_limited{route=\"chat\",backend=\"a\",cause=\"drained\"}")
            == Some(1.0)
    });
    assert_eq!(tradewind.metric("tradewind_route_eligible_backends{route=\"chat\"}"), Some(1.0));

    let mut client = tradewind.client();
    for _ in 0..5 {
        client.get("/").unwrap();
    }
    eventually("they are timed", || {
        tradewind.metric("tradewind_slo_requests_total{route=\"chat\"}") == Some(5.0)
    });
    assert_eq!(tradewind.metric("tradewind_slo_late_total{route=\"chat\"}"), Some(0.0));
    assert_eq!(tradewind.metric("tradewind_slo_seconds{route=\"chat\"}"), Some(5.0));

    assert_eq!(tradewind.metric("tradewind_config_reload_failing{}"), Some(0.0));
    tradewind.put("t.toml", "nonsense = 1\n");
    eventually("the reload is refused", || {
        tradewind.metric("tradewind_config_reload_failing{}") == Some(1.0)
    });
    config.write(tradewind.dir());
    eventually("it is taken up", || tradewind.metric("tradewind_config_reload_failing{}") == Some(0.0));
}
