//! Operators' rules in the running service.

mod harness;

use harness::{Backend, Config, Tradewind, eventually, put, stdout, until};
use serde_json::json;

const POLICY: &str = "shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"100%/s\"\n";

/// The keys of a policy with one rule.
fn policy(name: &str, when: &str, then: &str) -> String {
    format!("{POLICY}[[policies.default.rules]]\nname = \"{name}\"\nwhen = \"{when}\"\nthen = {{ {then} }}\n")
}

fn reload(tradewind: &Tradewind, config: &Config) {
    config.write(tradewind.dir());
    let (status, answer) = tradewind.call("POST", "/v1/reload", None);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_rule_denies_by_region_and_a_reload_changes_it() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let free = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    // The region of a test's backend is called like itself.
    let denied = free.clone().policy(&policy("not in region a", "backend.region == 'a'", "deny = true"));
    let tradewind = Tradewind::start(&denied);
    tradewind.wait_for_share("b", 1.0);
    assert!((0..20).all(|_| tradewind.fetch("/").text() == "b"), "the dearer one serves");
    let status = tradewind.backend("a");
    assert_eq!(
        (&status["limited_by"], &status["limited_by_rule"]),
        (&json!("rule"), &json!("not in region a"))
    );
    let explanation = tradewind.explain();
    let binding = explanation["binding"].as_str().expect("one binds");
    assert!(
        binding.contains("a would be the cheapest, but a rule denies it (\"not in region a\")"),
        "{binding}"
    );
    let verdict = &explanation["decision"]["backends"][0];
    assert_eq!(verdict["rules"], json!([{ "rule": "not in region a", "effect": "deny" }]));
    let shown = stdout(&tradewind.cli(&["explain", "chat"]));
    assert!(shown.contains("no: a rule denies it (\"not in region a\")"), "{shown}");
    assert!(shown.contains("Rules that bind"), "{shown}");
    assert!(stdout(&tradewind.cli(&["status"])).contains("a: a rule denies it (not in region a)"));

    reload(&tradewind, &free);
    tradewind.wait_for_share("a", 1.0);
    assert_eq!(tradewind.fetch("/").text(), "a");
    let capped = free.policy(&policy("half of a", "backend.id.startsWith('a')", "cap = \"50%\""));
    reload(&tradewind, &capped);
    tradewind.wait_for_share("a", 0.5);
    assert!(tradewind.share("b") > 0.49);
    // The journal has the decision with what the rules said, so that it can be replayed.
    let journal = tradewind.json("/v1/decisions");
    let entries = journal["decisions"].as_array().expect("a list");
    let of = |entry: &&serde_json::Value| entry["decision"]["reason"]["rule"] == "half of a";
    let entry = entries.iter().find(of).unwrap_or_else(|| panic!("{journal:#}"));
    assert_eq!(entry["snapshot"]["rulings"]["backends"][0][0]["rule"], "half of a");
}

#[test]
fn a_rule_with_a_slip_is_refused_and_the_running_one_stays() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let free = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let denied = free.clone().policy(&policy("not in region a", "backend.region == 'a'", "deny = true"));
    let tradewind = Tradewind::start(&denied);
    tradewind.wait_for_share("b", 1.0);
    let slip = free.policy(&policy("not in region b", "backend.regoin == 'b'", "deny = true"));
    slip.write(tradewind.dir());
    let (status, problem) = tradewind.call("POST", "/v1/reload", None);
    assert_eq!(status, 422);
    let faults = problem["faults"].as_array().expect("a list");
    let fault = faults.iter().find(|fault| fault["severity"] == "error").expect("one is an error");
    assert!(
        fault["message"].as_str().is_some_and(|said| said.contains("unknown field `regoin`")),
        "{problem}"
    );
    assert_eq!(fault["hint"], "did you mean `region`?");
    let line = slip.text().lines().position(|line| line.contains("regoin")).expect("it is there") + 1;
    assert_eq!((&fault["line"], &fault["column"]), (&json!(line), &json!(17)));
    let file = tradewind.dir().join("t.toml");
    let check =
        harness::command(tradewind.dir()).arg("check").arg("--config").arg(file).output().expect("it runs");
    assert_eq!(check.status.code(), Some(1));
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(said.contains(&format!("t.toml:{line}:17: error:")), "{said}");
    assert_eq!(tradewind.backend("a")["limited_by_rule"], "not in region a");
}

#[test]
fn a_rule_that_cannot_be_decided_is_said() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let when = "backend.id == 'b' && backend.price.spot > 2.0";
    let config = Config::new(&[(&a, 1.0), (&b, 0.5)]).policy(&policy("not when dear", when, "deny = true"));
    // Nobody states a spot price: whether b is denied cannot be said, so it gets nothing, cheap as it is.
    let tradewind = Tradewind::start(&config);
    tradewind.wait_for_share("a", 1.0);
    assert_eq!(tradewind.backend("b")["limited_by"], "rule_undecided");
    let warning = until("the status says it", || {
        let status = tradewind.json("/v1/status");
        let warnings = status["warnings"].as_array().expect("a list").clone();
        warnings.into_iter().find(|warning| warning.to_string().contains("not when dear"))
    });
    assert_eq!(
        warning,
        "chat: the rule \"not when dear\" cannot be decided for b: backend.price.spot is not known; until it can, the backend \
         gets no more than it has"
    );
    eventually("the log says it", || tradewind.log().contains("cannot be decided for b"));
    assert_eq!(tradewind.log().matches("cannot be decided for b").count(), 1, "once, not in every tick");
    // A price becomes known.
    let prices = harness::config::prices(&[("a", 1.0), ("b", 0.5)]);
    put(tradewind.dir(), "prices.csv", &format!("{prices}2026-01-01T00:00:00Z,other,b,,node,spot,0.3\n"));
    tradewind.wait_for_share("b", 1.0);
    assert_eq!(tradewind.json("/v1/status")["warnings"], json!([]));
}
