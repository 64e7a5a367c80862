//! What was spent and saved is told from the journal, and every decision in it can be made again.

mod harness;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use harness::{Backend, Config, Load, Tradewind, eventually, load, pause, stdout, until};
use serde_json::{Value, json};

/// The report or replay of a directory: no service is asked.
fn offline(args: &[&str], dir: &Path) -> Output {
    let mut command = harness::command(dir);
    command.args(args).arg("--journal").arg(dir).env_remove("TRADEWIND_CONFIG");
    command.output().expect("the binary starts")
}

fn report(dir: &Path) -> Value {
    let output = offline(&["report", "--json"], dir);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{found} is no number"));
    assert!((found - expected).abs() <= 1e-6 + expected.abs() * 1e-6, "{found} instead of {expected}");
}

/// A copy of a state directory as an operator takes it away: only the files.
fn copied(state: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    fs::create_dir(copy.path().join("journal")).expect("it is empty");
    for entry in fs::read_dir(state.join("journal")).expect("there is a journal") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, copy.path().join("journal").join(path.file_name().unwrap()))
            .expect("it can be copied");
    }
    copy
}

fn journal_text(state: &Path) -> String {
    fs::read_to_string(state.join("journal/current.jsonl")).expect("there is a journal")
}

/// p2.16xlarge in us-east-1b rises from 4.32 to 14.40 USD an hour within twelve days of April 2021 and falls back; in
/// us-east-1a it stays at 4.32: traffic leaves and returns.
fn replayed(a: &Backend, b: &Backend) -> Config {
    let zone = |backend: &Backend, zone: &str| {
        format!(
            "url = \"{}\"\ncloud = \"aws\"\nregion = \"us-east-1\"\nzones = [\"{zone}\"]\n\
             node = {{ instance_type = \"p2.16xlarge\", spot = \"100%\" }}\nreplicas = {{ min = 0, max = 100000, rps = 10 }}",
            backend.url()
        )
    };
    let source = "sources = [{ file = \"prices.csv\", from = \"2021-04-05T00:00:00Z\", speed = 400000 }]";
    Config::new(&[])
        .table("zone-b", &zone(a, "us-east-1b"))
        .table("zone-a", &zone(b, "us-east-1a"))
        .prices(source)
        .price_file(&fs::read_to_string("tests/data/prices_p2_16xlarge.csv").unwrap())
        .policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"1000%/s\"")
        .slo("10s")
}

fn moves(tradewind: &Tradewind) -> usize {
    let journal = tradewind.json("/v1/decisions?route=chat&limit=1000");
    let entries = journal["decisions"].as_array().unwrap();
    entries.iter().filter(|e| matches!(e["action"].as_str(), Some("shift" | "return"))).count()
}

#[test]
fn what_was_spent_and_saved_agrees_with_the_metrics_and_every_decision_comes_out_the_same() {
    let (a, b) = (Backend::named("zone-b"), Backend::named("zone-a"));
    let mut tradewind = Tradewind::start(&replayed(&a, &b));
    let load = Load::start(tradewind.http, &["GET"], Duration::from_millis(5));
    eventually("traffic has left and returned", || {
        pause(Duration::from_millis(100));
        moves(&tradewind) >= 2
    });
    // While it runs: no lock is in the way.
    let state = tradewind.dir().join("state");
    let running = report(&state);
    assert!(running["moves"].as_array().unwrap().len() >= 2, "{running}");
    // An account was made at each move; who asks for decisions does not get them.
    let kinds = |query: &str| {
        let journal = tradewind.json(&format!("/v1/decisions?route=chat&{query}"));
        let entries = journal["decisions"].as_array().unwrap().clone();
        entries.into_iter().map(|entry| entry["kind"].clone()).collect::<Vec<Value>>()
    };
    assert!(kinds("limit=100").iter().all(|kind| kind == "decision"));
    let accounts = kinds("kind=account");
    assert!(accounts.len() >= 2 && accounts.iter().all(|kind| kind == "account"), "{accounts:?}");
    let order =
        json!({"kind": "cap", "backend": "zone-a", "share": 0.9, "ttl": "30m", "reason": "quota is low"});
    let id = tradewind.impose(order);
    assert_eq!(tradewind.call("DELETE", &format!("/v1/overrides/{id}"), None).0, 200);

    let records = load.finish();
    assert!(load::failures(&records).is_empty());
    let cost = |backend: &str| {
        let series = format!("tradewind_cost_usd_total{{route=\"chat\",backend=\"{backend}\"}}");
        tradewind.metric(&series).unwrap_or_else(|| panic!("there is no {series}"))
    };
    let metrics = until("all requests are counted", || {
        let before = (cost("zone-a"), cost("zone-b"));
        pause(Duration::from_millis(200));
        (before == (cost("zone-a"), cost("zone-b"))).then_some(before)
    });
    let saved = tradewind.metric("tradewind_saved_usd_total{route=\"chat\"}").expect("it is there");
    assert!(saved > 0.0, "traffic was at the cheaper side while prices were apart: {saved}");
    tradewind.signal("TERM");
    until("it has ended", || tradewind.ended());

    let told = report(&state);
    let of = |name: &str| {
        let backends = told["backends"].as_array().unwrap();
        backends.iter().find(|of| of["backend"] == name).unwrap().clone()
    };
    close(&of("zone-a")["requests_usd"], metrics.0);
    close(&of("zone-b")["requests_usd"], metrics.1);
    close(&told["money"]["requests_usd"], metrics.0 + metrics.1);
    close(&told["money"]["saved_usd"], saved);
    let (low, high) = (&told["money"]["saved_low_usd"], &told["money"]["saved_high_usd"]);
    assert!(
        low.as_f64() <= told["money"]["saved_usd"].as_f64() && high.as_f64() >= Some(saved - 1e-6),
        "{told}"
    );
    assert_eq!(told["traffic"]["requests"], records.len());
    assert_eq!(told["traffic"]["errors"], 0);
    assert_eq!((&told["traffic"]["timed"], &told["traffic"]["over_slo"]), (&json!(records.len()), &json!(0)));
    assert_eq!(told["overrides"][0]["reason"], "quota is low");
    assert_eq!(
        (&told["overrides"][0]["author"], &told["overrides"][0]["ended_by"]),
        (&json!("local"), &json!("local"))
    );
    let copy = copied(&state);
    assert_eq!(report(copy.path())["money"], told["money"]);

    let output = offline(&["replay"], copy.path());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let decisions = journal_text(copy.path()).matches("\"kind\":\"decision\"").count();
    assert!(decisions >= 3 && text.contains(&format!("{decisions} decisions, all the same")), "{text}");
    let before = offline(
        &["replay", "--route", "chat", "--until", "2020-01-01", "--since", "2019-12-01"],
        copy.path(),
    );
    assert!(stdout(&before).contains("no decisions of this period"), "{}", stdout(&before));
}

#[test]
fn a_tampered_decision_is_found() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]));
    tradewind.set_prices(&[("a", 1.0), ("b", 0.5)]);
    tradewind.wait_for_share("b", 1.0);
    let state = tradewind.dir().join("state");
    let copy = until("the move is journaled", || {
        let copy = copied(&state);
        journal_text(copy.path()).contains("\"action\":\"shift\"").then_some(copy)
    });
    let file = copy.path().join("journal/current.jsonl");
    let text = journal_text(copy.path());
    let (before, line) = text.split_at(text.find("\"action\":\"shift\"").unwrap());
    // Somebody makes the price at the time of the move look better than it was.
    let tampered = line.replacen("\"usd_per_hour\":0.5", "\"usd_per_hour\":0.4", 1);
    assert_ne!(tampered, line);
    fs::write(&file, format!("{before}{tampered}")).unwrap();
    let output = offline(&["replay"], copy.path());
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("  /gap: 0.5 -> 0.59999") && text.contains("/unit_cost/compute: "), "{text}");
    let json = offline(&["replay", "--json"], copy.path());
    let outcome: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&outcome["different"], &outcome["differences"][0]["route"]), (&json!(1), &json!("chat")));
}

#[test]
fn what_is_damaged_or_missing_is_said() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let mut tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]));
    let mut client = tradewind.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    let state = tradewind.dir().join("state");
    tradewind.signal("TERM");
    until("it has ended", || tradewind.ended());
    let file = state.join("journal/current.jsonl");
    let whole = journal_text(&state);
    fs::write(&file, format!("{{\"at\": nonsense\n{whole}{{\"at\":\"2026")).unwrap();
    let output = offline(&["report"], &state);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in [
        "current.jsonl:1: this line is damaged and left out",
        "the last line has no end",
        "the journal begins at",
        "requests   20, 0 errors at backends, 0 refused",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }

    let page = tradewind.dir().join("report.html");
    let csv = harness::command(&state)
        .args(["report", "--csv", "--config", "t.toml", "--html", "report.html", "--since", "24h"])
        .current_dir(tradewind.dir())
        .output()
        .unwrap();
    assert_eq!(csv.status.code(), Some(0), "{}", String::from_utf8_lossy(&csv.stderr));
    assert!(stdout(&csv).contains(",chat,a,20,0,"), "{}", stdout(&csv));
    assert!(String::from_utf8_lossy(&csv.stderr).contains("damaged"));
    let html = fs::read_to_string(page).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.contains("<svg"), "{html}");

    for (args, from) in [
        (&["report", "--journal", "."][..], "--route: the journal has no route `caht`"),
        (&["replay", "--journal", "."], "--route: the journal has no route `caht`"),
        (&["report", "--config", "../t.toml"], "--route: configuration and journal have no route `caht`"),
    ] {
        let mut command = harness::command(&state);
        command.args(args).args(["--route", "caht"]).current_dir(&state).env_remove("TRADEWIND_CONFIG");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(&format!("{from}; did you mean `chat`? known: chat")), "{args:?}: {said}");
    }

    fs::write(&file, "").unwrap();
    assert!(stdout(&offline(&["report"], &state)).contains("the journal is empty"));
    let nothing = tempfile::tempdir().unwrap();
    let output = offline(&["report"], &nothing.path().join("nowhere"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no journal"));
    let output = Command::new(env!("CARGO_BIN_EXE_tradewind"))
        .arg("report")
        .env_remove("TRADEWIND_CONFIG")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no journal is named"));
}

/// The policy in force moves at 15%, its shadow at 1%: b is 10% cheaper. 0.1 and 0.09 USD per 1,000 requests.
#[test]
fn a_shadow_policy_says_what_it_would_do_and_would_have_cost_and_moves_nothing() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let route = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\", \"b\"]\nshadow = [\"eager\"]\n\
                 [policies.eager]\nshift_at = \"1%\"\nreturn_at = \"0%\"\nhold = \"0s\"\nramp = \"1000%/s\"\n";
    let mut tradewind = Tradewind::start(&Config::new(&[(&a, 3.6), (&b, 7.2)]).routes(route));
    let shadow = |tradewind: &Tradewind| tradewind.json("/v1/status")["routes"][0]["shadows"][0].clone();
    assert_eq!(shadow(&tradewind)["shares"], json!([{"backend": "a", "share": 1.0}]));
    tradewind.set_prices(&[("a", 3.6), ("b", 3.24)]);
    let to_b = json!([{"backend": "b", "share": 1.0}]);
    eventually("the shadow has moved", || shadow(&tradewind)["shares"] == to_b);
    let mut client = tradewind.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").unwrap().text(), "a");
    }
    let gained = |of: &Value| of["live_usd"].as_f64().unwrap() - of["shadow_usd"].as_f64().unwrap();
    let seen = until("its requests are counted", || {
        let seen = shadow(&tradewind);
        (gained(&seen) > 1.995e-3).then_some(seen)
    });
    assert!((gained(&seen) - 200.0 / 1000.0 * 0.01).abs() < 1e-7, "{seen}");
    assert_eq!(seen["moves"], 1);
    let text = stdout(&tradewind.cli(&["status"]));
    assert!(text.contains("shadow eager: b 100%; since "), "{text}");

    // What it has come to outlives a restart, and is in the report.
    tradewind.signal("TERM");
    until("it has ended", || tradewind.ended());
    let told = report(&tradewind.dir().join("state"));
    let of = &told["routes"][0]["shadows"][0];
    close(&of["shadow_usd"], of["live_usd"].as_f64().unwrap() - gained(&seen));
    assert_eq!((&of["policy"], &of["backend"], &of["moves"]), (&json!("eager"), &json!("b"), &json!(1)));
    tradewind.start_again();
    let again = shadow(&tradewind);
    assert_eq!(again["since"], seen["since"]);
    assert!((gained(&again) - gained(&seen)).abs() < 1e-9, "{again}");
}
