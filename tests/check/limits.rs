//! What is said about limits and priorities.

use insta::assert_snapshot;

use super::with;

#[test]
fn limits() {
    let backend = |limit: &str| {
        with("region = \"us-east-1\"", &format!("region = \"us-east-1\"\nlimit = {{ {limit} }}"))
    };
    assert_eq!(backend("max_in_flight = 10"), "");
    assert_eq!(backend("max_in_flight = 10, max_waiting = 5, wait_timeout = \"1s\""), "");
    assert_snapshot!(backend("max_in_flite = 10"), @"
    t.toml:7:11: error: backends.a.limit: unknown key `max_in_flite`
        hint: did you mean `max_in_flight`?
    ");
    assert_snapshot!(backend("max_waiting = 5"), @"
    t.toml:7:1: error: backends.a.limit: the key `max_in_flight` is missing
        hint: Requests under way.
    ");
    assert_snapshot!(backend("max_in_flight = 0, wait_timeout = \"2h\""), @"
    t.toml:7:27: error: backends.a.limit.max_in_flight: found 0, expected at least 1
        hint: Requests under way.
    ");
    let route = |priority: &str| with("match = {", &format!("priority = \"{priority}\"\nmatch = {{"));
    assert_eq!(route("low"), "");
    assert_snapshot!(route("hihg"), @r#"
    t.toml:16:12: error: routes.chat.priority: found "hihg", expected "low", "normal", "high"
        hint: did you mean "high"?
    "#);
}
