//! Rules inside policies.

use insta::assert_snapshot;
use tradewind::config;

use super::{GOOD, and, examples};

/// The good file with one rule.
fn rule(when: &str, then: &str) -> String {
    and(&format!("[[policies.default.rules]]\nname = \"r\"\nwhen = {when}\nthen = {then}\n"))
}

#[test]
fn the_rule_of_the_documentation_is_good() {
    let when = "\"backend.region.startsWith('eu') && now.hour >= 7 && now.hour < 10\"";
    for then in
        ["cap = \"30%\"", "allow = true", "deny = true", "floor = 0.1", "prefer = \"10%\"", "hold = true"]
    {
        assert_eq!(rule(when, &format!("{{ {then} }}")), "", "{then}");
    }
    let more = format!("[[policies.default.rules]]\nname = \"r\"\nwhen = {when}\nthen = {{ cap = \"30%\" }}");
    let loaded = config::parse(&format!("{GOOD}{more}"), &examples().join("t.toml")).expect("it is good");
    assert_eq!(loaded.settings.rules.len(), 1);
    let shown = loaded.settings.redacted_json();
    assert_eq!(shown["policies"]["default"]["rules"][0]["then"]["cap"], "30%");
}

#[test]
fn a_fault_in_a_condition_is_shown_where_it_is_written() {
    assert_snapshot!(rule("\"backend.regoin == 'eu'\"", "{ deny = true }"), @"
    t.toml:20:17: error: policies.default.rules[0].when: unknown field `regoin`
        hint: did you mean `region`?
    ");
    assert_snapshot!(rule("\"\"\"\n  now.hour >= 7 &&\n  backnd.region == \\\"eu\\\" && hour\"\"\"", "{ deny = true }"), @"
    t.toml:22:3: error: policies.default.rules[0].when: unknown variable `backnd`
        hint: did you mean `backend`?
    t.toml:22:30: error: policies.default.rules[0].when: unknown variable `hour`
        hint: there are: `backend`, `route`, `load`, `now`
    ");
    assert_snapshot!(rule("'backend.region.startsWith(\"eu\"'", "{ deny = true }"), @"t.toml:20:39: error: policies.default.rules[0].when: is not CEL: missing ')' at the end");
    assert_snapshot!(rule("\"backend.id == \\\"\\u00fc\\\" && backend.price.spot > 'x'\"", "{ deny = true }"), @"t.toml:20:57: error: policies.default.rules[0].when: `>` does not go between a number with a fraction and a text");
    assert_snapshot!(rule("\"backend.region\"", "{ deny = true }"), @"
    t.toml:20:9: error: policies.default.rules[0].when: is a text, expected a condition: true or false
        hint: compare it with something
    ");
    assert_snapshot!(rule("\"backend.zones.exists(z, z == 'a')\"", "{ deny = true }"), @"
    t.toml:20:23: error: policies.default.rules[0].when: `exists` goes through a list, which is not allowed: evaluation takes bounded time
        hint: `'us-east-1a' in backend.zones` looks into a list; a rule is evaluated for each backend anyway
    ");
}

#[test]
fn a_rule_does_exactly_one_thing() {
    assert_snapshot!(rule("\"true\"", "{}"), @r#"
    t.toml:21:1: error: policies.default.rules[0].then: found 0 keys, expected exactly one of `allow`, `deny`, `cap`, `floor`, `prefer`, `hold`
        hint: write it like { deny = true } or { cap = "30%" }
    "#);
    assert_snapshot!(rule("\"true\"", "{ deny = true, cap = \"30%\" }"), @r#"
    t.toml:21:1: error: policies.default.rules[0].then: found 2 keys, expected exactly one of `allow`, `deny`, `cap`, `floor`, `prefer`, `hold`
        hint: write it like { deny = true } or { cap = "30%" }
    "#);
    assert_snapshot!(rule("\"true\"", "{ deny = false }"), @"
    t.toml:21:17: error: policies.default.rules[0].then.deny: found false, expected true
        hint: a rule that does nothing is left out
    ");
    assert_snapshot!(rule("\"true\"", "{ cap = \"130%\" }"), @r#"
    t.toml:21:16: error: policies.default.rules[0].then.cap: `130%` is not a share: expected "0%" to "100%", or 0 to 1
        hint: write it like "15%" or "0.15"
    "#);
    assert_snapshot!(rule("\"true\"", "{ capp = \"30%\" }"), @"
    t.toml:21:10: error: policies.default.rules[0].then: unknown key `capp`
        hint: did you mean `cap`?
    ");
}

#[test]
fn what_may_be_unknown_is_said_where_that_limits_a_backend() {
    assert_snapshot!(rule("\"now.hour > 7 && backend.price.spot > 2.0\"", "{ deny = true }"), @"
    t.toml:20:39: warning: policies.default.rules[0].when: `backend.price.spot` may be unknown; then this cannot be decided, and the backend gets no more than it has
        hint: ask for it first: `has(backend.price.spot) && ...`, or `!has(backend.price.spot) || ...`
    ");
    assert_snapshot!(rule("\"backend.unit_cost > 0.5\"", "{ cap = \"10%\" }"), @"
    t.toml:20:17: warning: policies.default.rules[0].when: `backend.unit_cost` may be unknown; then this cannot be decided, and the backend gets no more than the cap or what it has
        hint: ask for it first: `has(backend.unit_cost) && ...`, or `!has(backend.unit_cost) || ...`
    ");
    assert_eq!(rule("\"!has(backend.price.spot) || backend.price.spot > 2.0\"", "{ deny = true }"), "");
    assert_eq!(rule("\"backend.price.spot < 2.0\"", "{ prefer = \"10%\" }"), "");
}

#[test]
fn rules_are_few_short_and_have_names_of_their_own() {
    let one = "[[policies.default.rules]]\nname = \"r\"\nwhen = \"true\"\nthen = { hold = true }\n";
    assert_snapshot!(and(&one.repeat(2)), @r#"
    t.toml:23:8: error: policies.default.rules[1].name: another rule of the policy is named "r"
        hint: decisions name the rule that binds: give each its own name
    "#);
    let many: String = (0..101).map(|n| one.replace("\"r\"", &format!("\"r{n}\""))).collect();
    assert_snapshot!(and(&many), @"t.toml:18:1: error: policies.default.rules: found 101 elements, expected at most 100");
    assert_snapshot!(and(&one.replace("\"r\"", &format!("\"{}\"", "r".repeat(121)))), @"
    t.toml:19:8: error: policies.default.rules[0].name: the text has 121 characters, expected at most 120
        hint: What it is called in decisions, `explain` and the journal. Once in a policy.
    ");
    assert_snapshot!(and(&one.replace("true\"", &format!("true{}\"", " && true".repeat(600)))), @"
    t.toml:20:9: error: policies.default.rules[0].when: has 4804 bytes, expected at most 4096
        hint: write it as several rules
    ");
    assert_snapshot!(and(&one.replace("name = \"r\"\n", "")), @r#"
    t.toml:18:1: error: policies.default.rules[0]: the key `name` is missing
        hint: What it is called in decisions, `explain` and the journal. Once in a policy. (write it like "no bulk traffic to Europe in its morning peak")
    "#);
}
