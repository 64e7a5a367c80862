//! Where the load of backends is read.

use insta::assert_snapshot;

use super::with;

/// What is said about a backend with this `load`.
fn load(table: &str) -> String {
    with("region = \"us-east-1\"", &format!("region = \"us-east-1\"\nload = {table}"))
}

#[test]
fn every_source_is_taken() {
    for table in [
        r#"{ metrics = "/metrics" }"#,
        r#"{ metrics = "http://aggregator:9100/metrics", interval = "15s" }"#,
        "{ orca = true }",
        r#"{ prometheus = "https://mimir.example.com/prometheus", ready = "sum(up{a='b'})" }"#,
        r#"{ prometheus = "http://p:9090", queued = "a", saturation = "b", metrics = "/metrics", orca = true }"#,
    ] {
        assert_eq!(load(table), "", "{table}");
    }
}

#[test]
fn faults() {
    assert_snapshot!(load("{}"), @"
    t.toml:7:1: error: backends.a.load: nothing is read: it does not say where
        hint: give `metrics`, `prometheus` with an expression, or `orca = true`; or leave `load` out
    ");
    assert_snapshot!(load(r#"{ metric = "/metrics" }"#), @"
    t.toml:7:10: error: backends.a.load: unknown key `metric`
        hint: did you mean `metrics`?
    ");
    assert_snapshot!(load(r#"{ metrics = "metrics" }"#), @r#"
    t.toml:7:20: error: backends.a.load.metrics: `metrics` is not a place of metrics: expected a path that begins with `/`, or a URL
        hint: write it like "/metrics" or "http://10.0.0.7:9100/metrics"
    "#);
    assert_snapshot!(load(r#"{ metrics = "http://bob:hunter2@x/metrics" }"#), @r#"
    t.toml:7:20: error: backends.a.load.metrics: the URL holds a user name or password (not shown here): expected none
        hint: write it like "/metrics" or "http://10.0.0.7:9100/metrics"
    "#);
    assert_snapshot!(load(r#"{ prometheus = "prometheus:9090", ready = "up" }"#), @r#"
    t.toml:7:23: error: backends.a.load.prometheus: `prometheus:9090` is not the URL of a server: expected http://HOST or https://HOST, with :PORT and /PATH if needed
        hint: write it like "http://prometheus:9090"
    "#);
    assert_snapshot!(load(r#"{ prometheus = "http://p:9090" }"#), @"
    t.toml:7:23: error: backends.a.load.prometheus: nothing is asked there
        hint: add an expression: `ready`, `queued` or `saturation`
    ");
    assert_snapshot!(load(r#"{ metrics = "/metrics", ready = "up" }"#), @r#"
    t.toml:7:40: error: backends.a.load.ready: no server is given that could be asked
        hint: add `prometheus = "http://HOST:9090"`
    "#);
    assert_snapshot!(load(r#"{ metrics = "/metrics", interval = "10ms" }"#), @"t.toml:7:43: error: backends.a.load.interval: found 10ms, expected 100ms to 1h");
    assert_snapshot!(load(r#"{ prometheus = "http://p:9090", ready = "" }"#), @r#"
    t.toml:7:48: error: backends.a.load.ready: the text is empty
        hint: write it like "sum(kube_deployment_status_replicas_ready{deployment='llama'})"
    "#);
    let long = format!("{{ prometheus = \"http://p:9090\", queued = \"{}\" }}", "a".repeat(2501));
    assert_snapshot!(load(&long), @"
    t.toml:7:49: error: backends.a.load.queued: found 2501 bytes, expected at most 2500
        hint: let a recording rule of Prometheus compute it
    ");
}

#[test]
fn ready_replicas_without_replicas_are_of_no_use() {
    let text = super::GOOD.replacen(
        "replicas = { max = 3, rps = 12 }",
        "load = { prometheus = \"http://p:9090\", ready = \"up\" }",
        1,
    );
    assert_snapshot!(super::said(&text), @"
    t.toml:3:11: warning: backends.a: without `replicas` its cost is unknown
        hint: traffic never moves to or from it for money
    t.toml:8:48: warning: backends.a.load.ready: without `replicas` it is not used
        hint: say what one replica serves: `replicas = { max = .., rps = .. }`
    ");
}
