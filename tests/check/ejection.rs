//! What is said about ejection.

use insta::assert_snapshot;

use super::with;

fn backend(ejection: &str) -> String {
    with("region = \"us-east-1\"", &format!("region = \"us-east-1\"\nejection = {{ {ejection} }}"))
}

#[test]
fn ejection() {
    assert_eq!(backend(""), "");
    let all = "consecutive = 3, error_rate = \"20%\", min_requests = 50, window = \"30s\", time = \"10s\", time_max = \"1m\", max_ejected = 0.34";
    assert_eq!(backend(all), "");
    assert_eq!(backend("latency = {}"), "");
    assert_eq!(backend("latency = { factor = 3, margin = \"1s\", min_requests = 50, window = \"5m\" }"), "");
    assert_snapshot!(backend("latency = { factor = 1.0, margins = \"1s\", window = \"1h\" }"), @"
    t.toml:7:35: error: backends.a.ejection.latency.factor: found 1, expected a number above 1
        hint: How many times theirs. Regions, machines and clouds differ by themselves.
    t.toml:7:40: error: backends.a.ejection.latency: unknown key `margins`
        hint: did you mean `margin`?
    ");
    assert_snapshot!(backend("latency = { factor = 2, margin = \"2h\", window = \"1h\" }"), @"
    t.toml:7:47: error: backends.a.ejection.latency.margin: found 2h, expected 0s to 1h
    t.toml:7:62: error: backends.a.ejection.latency.window: found 1h, expected 1s to 10m
    ");
    assert_snapshot!(backend("consecutiv = 0, error_rate = \"0%\""), @"
    t.toml:7:14: error: backends.a.ejection: unknown key `consecutiv`
        hint: did you mean `consecutive`?
    t.toml:7:27: error: backends.a.ejection.consecutive: found 0, expected at least 1
        hint: Requests in a row that fail.
    ");
    assert_snapshot!(backend("window = \"10m\", time = \"10m\", error_rate = 0"), @"
    t.toml:7:23: error: backends.a.ejection.window: found 10m, expected 1s to 5m
    t.toml:7:37: error: backends.a.ejection.time: 10m is more than `time_max` (5m)
    t.toml:7:57: error: backends.a.ejection.error_rate: found 0%, expected more
        hint: every request fails by that measure
    ");
    assert_snapshot!(backend("window = \"10m\", time = \"10m\", max_ejected = \"150%\""), @r#"
    t.toml:7:58: error: backends.a.ejection.max_ejected: `150%` is not a share: expected "0%" to "100%", or 0 to 1
        hint: write it like "15%" or "0.15"
    "#);
}
