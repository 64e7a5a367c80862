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
    assert_snapshot!(route("hedge = { after = \"p99\", delay = \"1s\" }"), @"");
    assert_snapshot!(route("hedge = { after = \"2h\", at_least = \"0s\", budget = 0 }"), @"");
    let alone = with("backends = [\"a\", \"b\"]", "backends = [\"a\"]\nhedge = {}");
    assert_snapshot!(alone, @"");
    assert_snapshot!(route("ttfb_timeout = \"5s\"\nidle_timeout = \"5s\""), @"
    t.toml:18:1: error: routes.chat: unknown key `ttfb_timeout`
        hint: this version times the wait for an answer and the gaps in it alike: use `silence_timeout`
    t.toml:19:1: error: routes.chat: unknown key `idle_timeout`
        hint: this version times the wait for an answer and the gaps in it alike: use `silence_timeout`
    ");
}
