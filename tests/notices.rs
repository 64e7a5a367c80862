//! Notices that nodes are taken back: what a request costs follows them, they outlive a crash, and nonsense is refused.

mod harness;

use std::fs;

use harness::{Backend, Client, Config, Tradewind, eventually, stdout, until};
use serde_json::{Value, json};

/// Assumed of AWS, as long as nothing is known.
const ASSUMED: f64 = 0.387;

/// `spot` has spot nodes of AWS at 3.6 USD an hour, each serving 10 requests a second: 0.1 USD per 1,000 requests, and an
/// interruption costs an hour of one. So many of them are paid whatever the load. `steady` is on demand, at 0.2.
fn two(paid: u32) -> (Backend, Backend, Config) {
    let (spot, steady) = (Backend::named("spot"), Backend::named("steady"));
    let table = format!(
        "url = \"{}\"\ncloud = \"aws\"\nregion = \"us-east-1\"\nnode = {{ instance_type = \"node\", spot = \"100%\" }}\n\
         replicas = {{ min = {paid}, max = 50, rps = 10, cold_start = \"1h\" }}\n\
         probe = {{ path = \"/health\", interval = \"300ms\", timeout = \"300ms\", fall = 3, rise = 2 }}",
        spot.url()
    );
    let prices = harness::config::prices(&[("steady", 7.2)])
        + "2026-01-01T00:00:00Z,aws,us-east-1,,node,spot,3.6\n2026-01-01T00:00:00Z,aws,us-east-1,,node,on_demand,9\n";
    let config =
        Config::new(&[]).table("spot", &table).backend("steady", &steady.url(), "").price_file(&prices);
    (spot, steady, config)
}

fn of<'a>(explained: &'a Value, list: &str, backend: &str) -> &'a Value {
    let list = if list == "inputs" { &explained["inputs"] } else { &explained["decision"]["backends"] };
    list.as_array().unwrap().iter().find(|item| item["backend"] == backend).unwrap()
}

/// The rate of `spot`, and how it is known.
fn rate(tradewind: &Tradewind) -> (f64, String) {
    let explained = tradewind.explain();
    let known = &of(&explained, "inputs", "spot")["interruptions"];
    (known["per_node_hour"].as_f64().unwrap(), known["basis"].as_str().unwrap().to_owned())
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 0.01 * b.abs()
}

fn send(tradewind: &Tradewind, notice: Value) -> Value {
    let (status, receipt) = tradewind.call("POST", "/v1/notices", Some(notice));
    assert_eq!(status, 202, "{receipt}");
    receipt
}

/// Waits until an event is on disk.
fn stored(tradewind: &Tradewind, event: &str) {
    let path = tradewind.dir().join("state/notices.json");
    eventually("the notice is on disk", || fs::read_to_string(&path).is_ok_and(|text| text.contains(event)));
}

#[test]
fn an_interruption_raises_the_rate_and_the_cost() {
    let (_spot, _steady, config) = two(10);
    let tradewind = Tradewind::start(&config);
    let explained = tradewind.explain();
    let inputs = of(&explained, "inputs", "spot");
    assert_eq!(inputs["interruptions"], json!({ "per_node_hour": ASSUMED, "basis": "assumed" }));
    assert_eq!(inputs["interruption_seconds"], 3600.0);
    assert_eq!(of(&explained, "inputs", "steady")["interruptions"], Value::Null);
    let term = |explained: &Value, backend: &str| {
        of(explained, "backends", backend)["unit_cost"]["interruption"].as_f64().unwrap()
    };
    // The whole price of the node, 0.1 USD per 1,000 requests, so many times.
    assert!(close(term(&explained, "spot"), 0.1 * ASSUMED), "{explained}");
    assert_eq!(term(&explained, "steady"), 0.0);

    // 40% of the ten nodes that are paid anyway.
    let receipt = send(&tradewind, json!({ "backend": "spot", "kind": "spot-interruption", "lost": 0.4 }));
    assert_eq!((&receipt["outcome"], &receipt["nodes"]), (&"counted".into(), &json!(4.0)));
    let learned = (ASSUMED * 20.0 + 4.0) / 20.0;
    assert!(close(receipt["interruptions"]["per_node_hour"].as_f64().unwrap(), learned), "{receipt}");
    let explained = until("the next decision knows it", || {
        let explained = tradewind.explain();
        (of(&explained, "inputs", "spot")["interruptions"]["basis"] == "learned").then_some(explained)
    });
    assert!(close(rate(&tradewind).0, learned), "{:?}", rate(&tradewind));
    assert!(close(term(&explained, "spot"), 0.1 * learned), "{explained}");

    let noted =
        send(&tradewind, json!({ "backend": "spot", "kind": "rebalance-recommendation", "nodes": 1 }));
    assert_eq!((&noted["outcome"], &noted["nodes"]), (&"noted".into(), &Value::Null));
    let steady = send(&tradewind, json!({ "backend": "steady", "kind": "preemption", "nodes": 1 }));
    assert_eq!(steady["interruptions"], Value::Null, "it has no spot nodes");

    let series =
        |basis| format!("tradewind_interruptions_per_node_hour{{backend=\"spot\",basis=\"{basis}\"}}");
    assert!(close(tradewind.metric(&series("learned")).unwrap(), learned));
    assert_eq!(tradewind.metric(&series("assumed")), None);
    for (backend, kind) in
        [("spot", "spot-interruption"), ("spot", "rebalance-recommendation"), ("steady", "preemption")]
    {
        let counted = format!("tradewind_notices_total{{backend=\"{backend}\",kind=\"{kind}\"}}");
        assert_eq!(tradewind.metric(&counted), Some(1.0), "{counted}");
    }
    let entry = until("it is in the journal", || {
        let journal = tradewind.json("/v1/decisions");
        let entries = journal["decisions"].as_array().unwrap().clone();
        entries.into_iter().rev().find(|entry| entry["kind"] == "notice")
    });
    assert_eq!((&entry["author"], &entry["receipt"]), (&"local".into(), &receipt));
}

#[test]
fn a_configured_rate_comes_first_and_counts_the_work_that_is_lost() {
    let (_spot, _steady, config) = two(10);
    let text = config.text();
    let learning = "spot = \"100%\" }";
    assert!(text.contains(learning));
    let configured = "spot = \"100%\", interruptions = { per_node_hour = 0.01, work_lost = \"30m\" } }";
    let tradewind = Tradewind::start(&config);
    let receipt = send(&tradewind, json!({ "backend": "spot", "kind": "preemption", "nodes": 1 }));
    assert_eq!(receipt["interruptions"]["basis"], "learned");

    tradewind.put("t.toml", &text.replace(learning, configured));
    eventually("the configuration is taken up", || rate(&tradewind) == (0.01, "configured".into()));
    let explained = tradewind.explain();
    assert_eq!(of(&explained, "inputs", "spot")["interruption_seconds"], 5400.0);
    let unit = &of(&explained, "backends", "spot")["unit_cost"];
    assert!(close(unit["interruption"].as_f64().unwrap(), 0.1 * 0.01 * 1.5), "{unit}");
    let receipt = send(&tradewind, json!({ "backend": "spot", "kind": "preemption", "nodes": 1 }));
    assert_eq!(
        (&receipt["outcome"], &receipt["interruptions"]["basis"]),
        (&"counted".into(), &"configured".into())
    );

    tradewind.put("t.toml", &text);
    // What arrived meanwhile was learned.
    eventually("what was learned counts again", || {
        let (learned, basis) = rate(&tradewind);
        basis == "learned" && close(learned, (ASSUMED * 20.0 + 2.0) / 20.0)
    });
}

#[test]
fn traffic_leaves_where_nodes_are_taken_back_too_often() {
    let (_spot, _steady, config) = two(0);
    let tradewind = Tradewind::start(&config);
    assert_eq!(tradewind.share("spot"), 1.0, "0.139 USD per 1,000 requests are less than 0.2");
    send(&tradewind, json!({ "backend": "spot", "kind": "spot-interruption", "nodes": 50 }));
    tradewind.wait_for_share("steady", 1.0);
    assert_eq!(tradewind.fetch("/").text(), "steady");
}

#[test]
fn the_webhook_of_the_termination_handler_is_understood() {
    let (_spot, _steady, config) = two(10);
    let tradewind = Tradewind::start(&config);
    // As it is sent without a template: the line break at the end of the description is not escaped.
    let text = "{\"text\":\"[NTH][Instance Interruption] EventID: spot-itn-1f3a - Kind: SPOT_ITN - Instance: i-0b662ef9 - Node: \
                ip-10-0-1-7.ec2.internal - Description: Spot ITN received. Instance will be interrupted at TIME \n - Start \
                Time: TIME\"}";
    let start = tradewind::model::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
    let template = r#"{"kind": "SPOT_ITN", "id": "spot-itn-77", "instance": "i-77", "nodes": 1}"#;
    let post = |path: &str, body: &str| {
        let kind = [("content-type", "application/json")];
        let answer = Client::new(tradewind.admin).request("POST", path, &kind, body.as_bytes()).unwrap();
        (answer.status, answer.json())
    };
    let text = text.replace("TIME", &start);
    let (status, receipt) = post("/v1/notices?backend=spot", &text);
    assert_eq!((status, &receipt["outcome"], &receipt["nodes"]), (202, &"counted".into(), &json!(1.0)));
    let notice = &receipt["notice"];
    assert_eq!((&notice["kind"], &notice["id"]), (&"spot-interruption".into(), &"spot-itn-1f3a".into()));
    assert_eq!((&notice["instance"], &notice["backend"]), (&"i-0b662ef9".into(), &"spot".into()));
    assert_eq!(post("/v1/notices?backend=spot", &text).1["outcome"], "duplicate");
    assert_eq!(post("/v1/notices?backend=spot", template).1["outcome"], "counted");
    assert_eq!(post("/v1/notices", &text).0, 422, "nobody says whose node it is");
    eventually("both count", || close(rate(&tradewind).0, (ASSUMED * 20.0 + 2.0) / 20.0));
}

#[test]
fn what_was_learned_survives_sigkill() {
    let (_spot, _steady, config) = two(10);
    let mut tradewind = Tradewind::start(&config);
    let notice = json!({ "backend": "spot", "kind": "spot-interruption", "nodes": 3, "id": "event-1" });
    send(&tradewind, notice.clone());
    stored(&tradewind, "event-1");
    tradewind.kill();
    tradewind.start_again();
    let (learned, basis) = rate(&tradewind);
    assert_eq!(basis, "learned");
    assert!(close(learned, (ASSUMED * 20.0 + 3.0) / 20.0), "{learned}");
    assert_eq!(send(&tradewind, notice)["outcome"], "duplicate");

    tradewind.kill();
    fs::write(tradewind.dir().join("state/notices.json"), "{\"version\": 1").unwrap();
    tradewind.start_again();
    assert_eq!(rate(&tradewind), (ASSUMED, "assumed".into()));
    assert!(tradewind.log().contains("learning begins anew"), "{}", tradewind.log());
}

#[test]
fn what_was_learned_survives_a_shutdown() {
    let (_spot, _steady, config) = two(10);
    let mut tradewind = Tradewind::start(&config);
    send(&tradewind, json!({ "backend": "spot", "kind": "preemption", "nodes": 1 }));
    tradewind.signal("TERM");
    until("it ends", || tradewind.ended());
    tradewind.start_again();
    assert_eq!(rate(&tradewind).1, "learned");
}

#[test]
fn what_makes_no_sense_is_refused_in_words_and_changes_nothing() {
    let (_spot, _steady, config) = two(10);
    let tradewind = Tradewind::start(&config);
    let moment = |hours: i64| {
        let at = tradewind::model::Timestamp::now().as_second() + hours * 3600;
        tradewind::model::Timestamp::from_second(at).unwrap().to_string()
    };
    let kind = "spot-interruption";
    for (notice, word) in [
        (
            json!({ "backend": "sopt", "kind": kind, "nodes": 1 }),
            "there is no backend `sopt`; there are: spot, steady",
        ),
        (json!({ "kind": kind, "nodes": 1 }), "whose nodes"),
        (json!({ "backend": "spot", "kind": "spot", "nodes": 1 }), "there are: spot-interruption, rebalance"),
        (json!({ "backend": "spot", "nodes": 1 }), "`kind` is missing"),
        (json!({ "backend": "spot", "kind": kind }), "how much is lost"),
        (json!({ "backend": "spot", "kind": kind, "lost": 1.2 }), "`1.2` is not a share"),
        (json!({ "backend": "spot", "kind": kind, "lost": 0 }), "`lost` is 0"),
        (json!({ "backend": "spot", "kind": kind, "nodes": 0 }), "`nodes` is 0"),
        (json!({ "backend": "spot", "kind": kind, "nodes": 51 }), "`spot` has at most 50 nodes"),
        (json!({ "backend": "spot", "kind": kind, "lost": 0.1, "nodes": 1 }), "expected one of them"),
        (json!({ "backend": "spot", "kind": kind, "nodes": 1, "at": "today" }), "RFC 3339"),
        (json!({ "backend": "spot", "kind": kind, "nodes": 1, "at": moment(-2) }), "too far in the past"),
        (json!({ "backend": "spot", "kind": kind, "nodes": 1, "at": moment(2) }), "too far in the future"),
        (
            json!({ "backend": "spot", "kind": "scheduled-maintenance", "nodes": 1, "at": moment(61 * 24) }),
            "at most 1440 hours",
        ),
        (json!({ "backend": "spot", "kind": kind, "nodes": 1, "id": "x".repeat(257) }), "257 bytes"),
        (json!({ "backend": "spot", "kind": kind, "nodes": 1, "zone": "a" }), "unknown field `zone`"),
        (json!({ "backend": "spot", "text": "a disk is full" }), "AWS Node Termination Handler"),
    ] {
        let (status, problem) = tradewind.call("POST", "/v1/notices", Some(notice.clone()));
        assert_eq!(status, 422, "{notice}: {problem}");
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(detail.contains(word), "{notice} is refused without {word:?}: {detail}");
    }
    let huge = json!({ "backend": "spot", "kind": kind, "nodes": 1, "id": "x".repeat(70_000) });
    assert_eq!(tradewind.call("POST", "/v1/notices", Some(huge)).0, 413);
    let other = json!({ "backend": "spot", "kind": kind, "nodes": 1 });
    assert_eq!(tradewind.call("POST", "/v1/notices?backend=steady", Some(other)).0, 422);
    assert_eq!(rate(&tradewind), (ASSUMED, "assumed".into()));
    let counted = "tradewind_notices_total{backend=\"spot\",kind=\"spot-interruption\"}";
    assert_eq!(tradewind.metric(counted), None);
    // What only announces may be weeks ahead.
    let maintenance =
        json!({ "backend": "spot", "kind": "scheduled-maintenance", "nodes": 1, "at": moment(20 * 24) });
    assert_eq!(send(&tradewind, maintenance)["outcome"], "noted");
}

#[test]
fn only_operators_may_send_and_the_journal_names_them() {
    let (_spot, _steady, config) = two(10);
    let config = config.admin(
        "tokens = [{ name = \"node-watch\", role = \"operator\", value = { file = \"token\" } }, { name = \"dashboard\", role = \"viewer\", value = { file = \"weak\" } }]",
    );
    let dir = tempfile::tempdir().unwrap();
    let (strong, weak) = ("s".repeat(40), "w".repeat(40));
    harness::put(dir.path(), "token", &strong);
    harness::put(dir.path(), "weak", &weak);
    let tradewind = Tradewind::start_in(dir.path(), &config);
    let call = |method: &str, path: &str, token: &str, body: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", &*authorization), ("content-type", "application/json")];
        Client::new(tradewind.admin).request(method, path, &headers, body.as_bytes()).unwrap()
    };
    let notice = json!({ "backend": "spot", "kind": "spot-interruption", "nodes": 1 }).to_string();
    assert_eq!(call("POST", "/v1/notices", &weak, &notice).status, 403);
    assert_eq!(call("POST", "/v1/notices", "nobody", &notice).status, 401);
    assert_eq!(call("POST", "/v1/notices", &strong, &notice).status, 202);
    let entries = until("it is in the journal", || {
        let journal = call("GET", "/v1/decisions", &weak, "").json();
        let entries = journal["decisions"].as_array().unwrap().clone();
        let notices: Vec<Value> = entries.into_iter().filter(|entry| entry["kind"] == "notice").collect();
        (!notices.is_empty()).then_some(notices)
    });
    assert_eq!((entries.len(), &entries[0]["author"]), (1, &"node-watch".into()));
}

#[test]
fn the_command_line_sends_and_explains() {
    let (_spot, _steady, config) = two(10);
    let tradewind = Tradewind::start(&config);
    let explain = || stdout(&tradewind.cli(&["explain", "chat"]));
    assert!(
        explain().contains("interruptions 0.3870 a spot node-hour (assumed, no notice has arrived)"),
        "{}",
        explain()
    );
    let output = tradewind.cli(&["notice", "spot", "--kind", "spot-interruption", "--lost", "40%"]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.starts_with("counted: 4 spot nodes of spot\n") && said.contains("learned from notices"),
        "{said}"
    );
    eventually("explain names the basis", || explain().contains("(learned from notices)"));
    assert!(explain().contains("INTERRUPTION"), "{}", explain());
    let refused = tradewind.cli(&["notice", "sopt", "--kind", "preemption", "--nodes", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there are: spot, steady"));
}
