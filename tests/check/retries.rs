//! What is said about second attempts.

use insta::assert_snapshot;

use super::with;

fn route(keys: &str) -> String {
    with("backends = [\"a\", \"b\"]", &format!("backends = [\"a\", \"b\"]\n{keys}"))
}

#[test]
fn second_attempts() {
    let good = "retry_on = [\"connect\", \"reset\", \"timeout\", \"429\", \"500\", \"502\", \"503\", \"504\"]\n\
                retry_inference = true\nsilence_timeout = \"30s\"";
    assert_eq!(route(good), "");
    assert_eq!(route("retry_on = []"), "");
    assert_snapshot!(route("retry_on = [\"conect\", 503, \"501\"]"), @r#"
    t.toml:18:13: error: routes.chat.retry_on[0]: found "conect", expected "connect", "reset", "timeout", "429", "500", "502", "503", "504"
        hint: did you mean "connect"?
    t.toml:18:23: error: routes.chat.retry_on[1]: found an integer, expected a string
    t.toml:18:28: error: routes.chat.retry_on[2]: found "501", expected "connect", "reset", "timeout", "429", "500", "502", "503", "504"
        hint: did you mean "500"?
    "#);
    assert_snapshot!(route("retry_inferense = true\nsilence_timeout = \"1ms\""), @"
    t.toml:18:1: error: routes.chat: unknown key `retry_inferense`
        hint: did you mean `retry_inference`?
    t.toml:19:19: error: routes.chat.silence_timeout: found 1ms, expected 10ms to 1d
    ");
    let hedge = "hedge = { after = \"800ms\", at_least = \"100ms\", budget = \"2%\" }";
    for good in ["hedge = {}", "hedge = { after = \"p95\" }", hedge] {
        assert_eq!(route(good), "");
    }
    assert_snapshot!(route("hedge = { after = \"p99\", delay = \"1s\" }"), @r#"
    t.toml:18:19: error: routes.chat.hedge.after: `p99` is not a duration: expected numbers with the units d, h, m, s or ms, such as "10m"
        hint: write it like "p95" or "800ms"
    t.toml:18:26: error: routes.chat.hedge: unknown key `delay`
        hint: known here: `after`, `at_least`, `budget`
    "#);
    assert_snapshot!(route("hedge = { after = \"2h\", at_least = \"0s\", budget = 0 }"), @"
    t.toml:18:19: error: routes.chat.hedge.after: found 2h, expected 1ms to 1h
    t.toml:18:36: error: routes.chat.hedge.at_least: found 0s, expected 1ms to 1h
    t.toml:18:51: error: routes.chat.hedge.budget: found 0%, expected more
        hint: without `hedge`, no request is sent twice
    ");
    let alone = with("backends = [\"a\", \"b\"]", "backends = [\"a\"]\nhedge = {}");
    assert_snapshot!(alone, @"
    t.toml:9:11: warning: backends.b: no route uses it
    t.toml:18:1: error: routes.chat.hedge: the route has a single backend
        hint: a second request goes to another backend
    ");
    assert_snapshot!(route("ttfb_timeout = \"5s\"\nidle_timeout = \"5s\""), @"
    t.toml:18:1: error: routes.chat: unknown key `ttfb_timeout`
        hint: this version times the wait for an answer and the gaps in it alike: use `silence_timeout`
    t.toml:19:1: error: routes.chat: unknown key `idle_timeout`
        hint: this version times the wait for an answer and the gaps in it alike: use `silence_timeout`
    ");
}
