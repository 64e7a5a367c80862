//! Traffic goes where it costs least, moves no faster than the ramp, and stays where it is when moving does not pay.

mod harness;

use std::time::{Duration, Instant};

use harness::{
    Backend, Config, Load, Tradewind, eventually, load, pause,
    shares::{assert_no_faster, follow, seconds_between, verdict},
    stdout, throughout, until,
};
use serde_json::Value;

/// Two backends, both with the price of the first one's choice.
fn two(a: f64, b: f64) -> (Backend, Backend, Config) {
    let (first, second) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&first, a), (&second, b)]);
    (first, second, config)
}

#[test]
fn all_traffic_goes_to_the_cheaper_of_two() {
    let (a, b, config) = two(1.0, 0.5);
    let tradewind = Tradewind::start(&config);
    let mut client = tradewind.client();
    for _ in 0..50 {
        assert_eq!(client.get("/v1/models").unwrap().text(), "b");
    }
    assert_eq!((a.requests(), b.requests()), (0, 50));
    assert_eq!(
        tradewind.explain()["last_move"]["reason"],
        "first placement: b has the lowest cost for one more request of those that may serve"
    );
}

#[test]
fn a_price_change_past_the_threshold_moves_traffic_no_faster_than_the_ramp() {
    let (_a, _b, config) = two(0.5, 1.0);
    let tradewind = Tradewind::start(
        &config.policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"50%/s\""),
    );
    let load = Load::start(tradewind.http, &["GET", "POST"], Duration::from_millis(5));
    eventually("there is traffic", || load.count() > 20);
    assert_eq!(tradewind.share("a"), 1.0);

    tradewind.set_prices(&[("a", 0.5), ("b", 0.2)]);
    let samples = follow(&tradewind, "b", 1.0);
    let finished = Instant::now();
    assert_no_faster(&samples, 0.5);

    // The requests themselves follow the shares: half of them while the share goes from none to all.
    let after = Instant::now();
    let settled = load.count();
    eventually("there is traffic after the move", || load.count() > settled + 20);
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
    let began = records.iter().find(|record| record.outcome.as_deref() == Ok("b")).expect("b serves").begun;
    let (moved, all) = load::served(&records, "b", began, finished);
    let part = moved as f64 / all as f64;
    assert!((0.25..0.75).contains(&part), "{moved} of {all} requests went to b during the ramp");
    let (at_b, all) = load::served(&records, "b", after, Instant::now());
    assert_eq!(at_b, all, "all requests after the move");
}

#[test]
fn the_break_even_rule_moves_when_staying_has_cost_as_much_as_a_move() {
    let (_a, _b, config) = two(3.6, 7.2);
    // No cold start and no hold: a move costs what `move_usd` says.
    let rule = "rule = \"break-even\"\nmove_usd = 0.005\nhold = \"0s\"\nramp = \"100%/s\"";
    let tradewind = Tradewind::start(&config.policy(rule));
    let load = Load::start(tradewind.http, &["GET", "POST"], Duration::from_millis(5));
    eventually("demand is seen", || tradewind.explain()["decision"]["demand_rps"].as_f64() > Some(50.0));
    assert_eq!(tradewind.share("a"), 1.0);
    // At some 200 requests a second 1.60 USD for each 36,000 of them: from -0.005 to 0.005 USD in some seconds.
    tradewind.set_prices(&[("a", 3.6), ("b", 2.0)]);
    let pending = tradewind.wait_for_reason("break_even_pending");
    let reason = &pending["decision"]["reason"];
    assert_eq!((reason["to"].as_str(), reason["move_usd"].as_f64()), (Some("b"), Some(0.005)), "{reason}");
    tradewind.wait_for_share("b", 1.0);
    let last_move = tradewind.explain()["last_move"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(last_move.contains("as much as the move costs ($0.0050)"), "{last_move}");
    assert!(load::failures(&load.finish()).is_empty());
}

#[test]
fn a_price_change_below_the_threshold_leaves_traffic_where_it_is() {
    let (_a, b, config) = two(0.5, 1.0);
    let tradewind = Tradewind::start(&config);
    tradewind.set_prices(&[("a", 0.5), ("b", 0.45)]);
    let explained = tradewind.wait_for_reason("gap_below_threshold");
    assert!((explained["decision"]["gap"].as_f64().unwrap() - 0.1).abs() < 1e-6, "{explained}");
    let mut client = tradewind.client();
    throughout(Duration::from_secs(1), || {
        assert_eq!(tradewind.share("a"), 1.0);
        assert_eq!(client.get("/").unwrap().text(), "a");
    });
    assert_eq!(b.requests(), 0);
}

#[test]
fn inside_hold_nothing_moves() {
    let (_a, _b, config) = two(0.5, 1.0);
    let hold = 3.0;
    let tradewind = Tradewind::start(
        &config.policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"3s\"\nramp = \"1000%/s\""),
    );
    tradewind.set_prices(&[("a", 0.5), ("b", 0.2)]);
    tradewind.wait_for_share("b", 1.0);
    // Now the opposite pays, and still nothing moves until the hold is over.
    tradewind.set_prices(&[("a", 0.1), ("b", 0.2)]);
    let explained = tradewind.wait_for_reason("holding");
    assert_eq!(explained["decision"]["reason"]["to"], "a");
    assert!(explained["summary"].as_str().unwrap().contains("the next move is allowed in"), "{explained}");
    tradewind.wait_for_share("a", 1.0);

    let journal = tradewind.json("/v1/decisions?route=chat");
    let entries = journal["decisions"].as_array().unwrap();
    let of = |action: &str| entries.iter().filter(|e| e["action"] == action).collect::<Vec<_>>();
    let (shifts, returns) = (of("shift"), of("return"));
    assert_eq!((shifts.len(), returns.len()), (1, 1), "{journal}");
    let apart = seconds_between(&shifts[0]["at"], &returns[0]["at"]);
    assert!(apart >= hold, "the second move came {apart} s after the first");
}

#[test]
fn traffic_returns_only_below_the_return_threshold() {
    let (_a, _b, config) = two(1.0, 2.0);
    let tradewind = Tradewind::start(
        &config.policy("shift_at = \"30%\"\nreturn_at = \"10%\"\nhold = \"0s\"\nramp = \"1000%/s\""),
    );
    tradewind.set_prices(&[("a", 1.0), ("b", 0.6)]);
    tradewind.wait_for_share("b", 1.0);
    // Less than what made it leave, more than what lets it return.
    tradewind.set_prices(&[("a", 1.0), ("b", 0.8)]);
    until("the gap is 20%", || {
        let explained = tradewind.wait_for_reason("away");
        let gap = explained["decision"]["gap"].as_f64().unwrap();
        ((gap - 0.2).abs() < 1e-6).then_some(())
    });
    throughout(Duration::from_millis(500), || assert_eq!(tradewind.share("b"), 1.0));
    tradewind.set_prices(&[("a", 1.0), ("b", 0.95)]);
    tradewind.wait_for_share("a", 1.0);
    let last = tradewind.explain()["last_move"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(last, "back to a: b is cheaper by only 5%, below the return threshold of 10%");
}

/// 100,000 bytes an answer at 0.09 USD per GB are 0.009 USD per 1,000; a node of 1.8 USD an hour that serves 10 requests
/// per second is 0.05 USD per 1,000.
#[test]
fn explain_states_gap_threshold_and_terms_in_dollars() {
    let answer = |name: &str| Backend::serving(name, |call| call.answer(200, &[], &[b'x'; 100_000]));
    let (a, b) = (answer("a"), answer("b"));
    let config = Config::new(&[(&a, 1.8), (&b, 1.9)])
        .replace("cloud = \"other\"", "cloud = \"other\"\negress_usd_per_gb = 0.09");
    let tradewind = Tradewind::start(&config);
    let mut client = tradewind.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").unwrap().body.len(), 100_000);
    }
    tradewind.set_prices(&[("a", 1.8), ("b", 1.7)]);
    let explained = until("the egress and the gap are known", || {
        let explained = tradewind.explain();
        let known = verdict(&explained, "a")["unit_cost"]["egress"].as_f64()? > 0.0;
        (known && explained["decision"]["reason"]["code"] == "gap_below_threshold").then_some(explained)
    });
    let decision = &explained["decision"];
    assert_eq!((&decision["shift_at"], &decision["return_at"]), (&0.15.into(), &0.05.into()));
    assert_eq!((&decision["reason"]["to"], &decision["reason"]["threshold"]), (&"b".into(), &0.15.into()));
    let close = |found: &Value, expected: f64| {
        let found = found.as_f64().unwrap_or_else(|| panic!("{found} is no number"));
        assert!((found - expected).abs() <= expected * 0.03, "{found} instead of {expected}: {explained}");
    };
    close(&verdict(&explained, "a")["unit_cost"]["compute"], 0.05);
    close(&verdict(&explained, "a")["unit_cost"]["egress"], 0.009);
    close(&verdict(&explained, "b")["unit_cost"]["compute"], 1.7 / 36.0);
    let (here, there) = (&decision["cost_here_usd_per_hour"], &decision["cost_there_usd_per_hour"]);
    let demand = decision["demand_rps"].as_f64().unwrap().max(1e-3);
    // In whole nodes: half of what is bought serves nobody, on average; below a node's load that is half of the load again.
    assert!(demand < 10.0);
    close(here, demand * 3.6 * (1.5 * 0.05 + 0.009));
    close(there, demand * 3.6 * (1.5 * 1.7 / 36.0 + 0.009));
    close(&decision["gap"], 1.0 - there.as_f64().unwrap() / here.as_f64().unwrap());

    let output = tradewind.cli(&["explain", "chat"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    for part in [
        "below the threshold of 15%",
        "COMPUTE",
        "EGRESS",
        "$0.0500",
        "$0.0090",
        "per hour",
        "what would change it",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// What has to hold while the price file is at fault: nothing moves, the last good prices stay.
fn nothing_has_moved(tradewind: &Tradewind) {
    assert_eq!((tradewind.share("a"), tradewind.share("b")), (1.0, 0.0));
    for (name, usd) in [("a", 0.5), ("b", 1.0)] {
        let price = price(tradewind, name);
        assert_eq!(price["usd_per_hour"], usd, "{price}");
        let series = format!("tradewind_price_usd_per_hour{{backend=\"{name}\",offer=\"on_demand\"}}");
        assert_eq!(tradewind.metric(&series), Some(usd));
    }
}

/// The on-demand price of a backend in `/v1/prices`.
fn price(tradewind: &Tradewind, name: &str) -> Value {
    let answer = tradewind.json("/v1/prices");
    let prices = answer["prices"].as_array().unwrap();
    prices.iter().find(|p| p["backend"] == name && p["offer"] == "on_demand").unwrap().clone()
}

#[test]
fn a_price_file_that_vanishes_or_turns_to_garbage_moves_nothing_and_is_named() {
    let (_a, _b, config) = two(0.5, 1.0);
    let tradewind = Tradewind::start(&config);
    let path = tradewind.dir().join("prices.csv");
    let series = format!("tradewind_price_source_failing{{source=\"file:{}\"}}", path.display());
    eventually("the source works", || tradewind.metric(&series) == Some(0.0));
    let faults = [
        (None, "cannot be read"),
        (Some("\u{0}\u{1}garbage\n\n;;;"), "expected"),
        (Some(""), "is empty"),
        (Some("2026-01-01T00:00:00Z,other,b,,node,on_demand,0.01\n"), "header"),
        (
            Some(
                "at,cloud,region,zone,instance_type,offer,usd_per_hour\n2026-01-01T00:00:00Z,other,b,,node,on_demand,cheap\n",
            ),
            "line 2",
        ),
        (
            Some(
                "at,cloud,region,zone,instance_type,offer,usd_per_hour\n2099-01-01T00:00:00Z,other,b,,node,on_demand,0.01\n",
            ),
            "2099",
        ),
    ];
    for (content, said) in faults {
        match content {
            Some(text) => tradewind.put("prices.csv", text),
            None => std::fs::remove_file(&path).unwrap(),
        }
        eventually(
            &format!("status says {said:?}, not {}", tradewind.json("/v1/status")["warnings"]),
            || {
                let warnings = tradewind.json("/v1/status")["warnings"].to_string();
                warnings.contains(said) && warnings.contains("prices.csv")
            },
        );
        let note = price(&tradewind, "b")["note"].to_string();
        assert!(note.contains(said), "the note of the price is {note}");
        assert_eq!(tradewind.metric(&series), Some(1.0), "after {said:?}");
        throughout(Duration::from_millis(200), || nothing_has_moved(&tradewind));
    }
    tradewind.set_prices(&[("a", 0.5), ("b", 0.2)]);
    tradewind.wait_for_share("b", 1.0);
    assert_eq!(tradewind.metric(&series), Some(0.0));
    assert_eq!(tradewind.json("/v1/status")["warnings"], serde_json::json!([]));
}

#[test]
fn absurd_prices_move_nothing_and_are_named() {
    let (_a, _b, config) = two(0.5, 1.0);
    // With the default of five minutes from one fetch to the next, the jump is not confirmed within the test.
    let tradewind = Tradewind::start(&config.prices(""));
    let rows = [
        ("a", "500", "factor"),
        ("b", "0.001", "factor"),
        ("b", "0", "0 USD/h is not a price"),
        ("b", "-1", "-1 USD/h is not a price"),
        ("b", "NaN", "NaN USD/h is not a price"),
        ("b", "inf", "inf USD/h is not a price"),
    ];
    for (name, said, why) in rows {
        let other = if name == "a" { ("b", "1") } else { ("a", "0.5") };
        let text: String = [(name, said), other]
            .iter()
            .map(|(name, usd)| format!("2026-01-01T00:00:00Z,other,{name},,node,on_demand,{usd}\n"))
            .collect();
        tradewind
            .put("prices.csv", &format!("at,cloud,region,zone,instance_type,offer,usd_per_hour\n{text}"));
        let held = until(&format!("{said} for {name} is held back"), || {
            let price = price(&tradewind, name);
            (price["state"] == "held" && price["note"].to_string().contains(why)).then_some(price)
        });
        nothing_has_moved(&tradewind);
        assert!(held["note"].to_string().contains(said), "{held}");
        let state = format!("tradewind_price_state{{backend=\"{name}\",offer=\"on_demand\",state=\"held\"}}");
        assert_eq!(tradewind.metric(&state), Some(1.0));
        let source = tradewind.dir().join("prices.csv").display().to_string();
        assert_eq!(
            tradewind.metric(&format!("tradewind_prices_held{{source=\"file:{source}\"}}")),
            Some(1.0)
        );
        let warnings = tradewind.json("/v1/status")["warnings"].to_string();
        assert!(warnings.contains(&source), "{warnings}");
    }
}

/// p2.16xlarge in us-east-1b rises from 4.32 to 14.40 USD an hour within twelve days of April 2021 and falls back; in
/// us-east-1a it stays at 4.32. The gap passes 15% at 5.2272 and falls below 5% at 4.4566.
#[test]
fn recorded_prices_move_traffic_when_replayed() {
    let (a, b) = (Backend::named("zone-b"), Backend::named("zone-a"));
    let zone = |backend: &Backend, zone: &str| {
        format!(
            "url = \"{}\"\ncloud = \"aws\"\nregion = \"us-east-1\"\nzones = [\"{zone}\"]\n\
             node = {{ instance_type = \"p2.16xlarge\", spot = \"100%\" }}\nreplicas = {{ min = 0, max = 100, rps = 10 }}",
            backend.url()
        )
    };
    let recorded = std::fs::read_to_string("tests/data/prices_p2_16xlarge.csv").unwrap();
    let replay = "sources = [{ file = \"prices.csv\", from = \"2021-04-05T00:00:00Z\", speed = 400000 }]";
    let config = Config::new(&[])
        .table("zone-b", &zone(&a, "us-east-1b"))
        .table("zone-a", &zone(&b, "us-east-1a"))
        .prices(replay)
        .price_file(&recorded)
        .policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"1000%/s\"");
    let tradewind = Tradewind::start(&config);
    assert_eq!(tradewind.share("zone-b"), 1.0);
    let moves = until("traffic has left and returned", || {
        let journal = tradewind.json("/v1/decisions?route=chat");
        let entries = journal["decisions"].as_array().unwrap();
        let moved = |entry: &&Value| matches!(entry["action"].as_str(), Some("shift" | "return"));
        let moves: Vec<Value> = entries.iter().rev().filter(moved).cloned().collect();
        if moves.len() < 2 {
            pause(Duration::from_millis(50));
        }
        (moves.len() >= 2).then_some(moves)
    });
    let spot = |entry: &Value| {
        let views = entry["snapshot"]["backends"].as_array().unwrap();
        let view = views.iter().find(|v| v["backend"]["id"] == "zone-b").unwrap();
        view["spot"]["usd_per_hour"].as_f64().unwrap()
    };
    let reasons: Vec<&Value> = moves.iter().map(|entry| &entry["decision"]["reason"]).collect();
    assert_eq!((&reasons[0]["code"], &reasons[0]["to"]), (&"gap_reached".into(), &"zone-a".into()));
    assert_eq!((&reasons[1]["code"], &reasons[1]["to"]), (&"gap_closed".into(), &"zone-b".into()));
    assert!(
        spot(&moves[0]) >= 5.2272 && spot(&moves[1]) <= 4.4566,
        "{} and {}",
        spot(&moves[0]),
        spot(&moves[1])
    );
    for entry in &moves {
        let row = format!("us-east-1b,p2.16xlarge,spot,{}\n", spot(entry));
        assert!(recorded.contains(&row), "{row} is not in the recording");
    }
}

#[test]
fn what_a_drain_and_a_reserve_cost_is_told() {
    let (_a, _b, config) = two(1.0, 2.0);
    let policy = "n_minus_one = \"region\"\nn_minus_one_ready = \"50%\"\nhold = \"0s\"\nramp = \"100%/s\"";
    let tradewind = Tradewind::start(&config.policy(policy));
    let load = Load::start(tradewind.http, &["GET"], Duration::from_millis(5));
    // b prepares for half of what a serves, and is paid for it.
    let reserve = until("a reserve is kept", || {
        let decision = tradewind.explain()["decision"].take();
        let told = decision["n_minus_one"].clone();
        (told["reserve_rps"].as_f64() > Some(20.0)).then_some((told, decision))
    });
    let (told, decision) = reserve;
    assert_eq!(
        (told["domain"].as_str(), told["missing_rps"].as_f64()),
        (Some("other/a"), Some(0.0)),
        "{told}"
    );
    let planned = decision["backends"][1]["planned_rps"].as_f64().unwrap();
    assert!((planned - decision["demand_rps"].as_f64().unwrap() / 2.0).abs() < 1e-6, "{decision}");
    assert!(told["reserve_usd_per_hour"].as_f64().unwrap() >= planned / 10.0 * 2.0, "{told}");
    assert_eq!(tradewind.metric("tradewind_n_minus_one_missing_rps{route=\"chat\"}"), Some(0.0));
    assert!(stdout(&tradewind.cli(&["status"])).contains("the others could serve all without other/a"));

    let drain = serde_json::json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "a test" });
    let id = tradewind.impose(drain);
    let costs = until("the drain has a price", || {
        let costs = tradewind.explain()["binding_costs"].take();
        (costs[0]["constraint"] == "drain").then_some(costs)
    });
    assert_eq!((costs[0]["name"].as_str(), costs[0]["backend"].as_str()), (Some(&*id), Some("a")), "{costs}");
    let explained = stdout(&tradewind.cli(&["explain", "chat"]));
    assert!(explained.contains(&format!("Being without the drain ({id}) of a would save $")), "{explained}");
    assert!(explained.contains("without other/b, "), "nobody could stand in for b now: {explained}");
    load.finish();
}
