//! What operators impose holds at once, for as long as they said, through crashes; what cannot be kept is refused.

mod harness;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use harness::{
    Backend, Client, Config, Load, Tradewind, client::Exchange, eventually, load, stdout, throughout, until,
};
use serde_json::{Value, json};

/// The first one is the cheaper one.
fn two() -> (Backend, Backend, Config) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    (a, b, config)
}

fn drain(backend: &str, ttl: &str) -> Value {
    json!({ "kind": "drain", "backend": backend, "ttl": ttl, "reason": "a test" })
}

fn ids(tradewind: &Tradewind) -> Vec<String> {
    let listed = tradewind.json("/v1/overrides");
    let overrides = listed["overrides"].as_array().expect("a list");
    overrides.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_drain_moves_all_traffic_at_once_and_cuts_nothing_off() {
    let (a, push) = Backend::pausing("a");
    let b = Backend::named("b");
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]));
    let mut stream = Exchange::begin(tradewind.http, "POST", "/stream", &[], b"{}").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    let load = Load::start(tradewind.http, &["GET", "POST"], Duration::from_millis(2));
    eventually("there is traffic", || load.count() > 50);

    let begun = Instant::now();
    tradewind.impose(drain("a", "10m"));
    tradewind.wait_for_share("a", 0.0);
    eprintln!("a drain: all traffic moved within {:?}", begun.elapsed());
    let moved = Instant::now();
    let count = load.count();
    eventually("there is traffic after it", || load.count() > count + 50);
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
    let (at_b, all) = load::served(&records, "b", moved, Instant::now());
    assert_eq!(at_b, all, "requests that went to b after the drain");

    push.send(()).unwrap();
    assert_eq!(stream.rest().unwrap(), b"data: 2\n\n");
    let explained = tradewind.explain();
    assert_eq!(explained["decision"]["reason"]["kind"], "drain");
    assert_eq!(explained["decision"]["reason"]["reason"], "a test");
    assert_eq!(tradewind.metric("tradewind_overrides_active{kind=\"drain\"}"), Some(1.0));
}

#[test]
fn a_drain_survives_sigkill_and_is_gone_after_its_time() {
    let (a, _b, config) = two();
    let mut tradewind = Tradewind::start(&config);
    let id = tradewind.impose(drain("a", "8s"));
    tradewind.kill();
    tradewind.start_again();
    assert_eq!(ids(&tradewind), [&*id]);
    assert_eq!(tradewind.fetch("/").text(), "b");
    assert_eq!(tradewind.share("a"), 0.0);
    assert_eq!(a.requests(), 0);

    tradewind.wait_for_share("a", 1.0);
    assert_eq!(ids(&tradewind), [""; 0]);
    assert_eq!(tradewind.fetch("/").text(), "a");
    let journal = tradewind.json("/v1/decisions");
    let events: Vec<&Value> = journal["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["override"]["id"] == *id)
        .map(|entry| &entry["event"])
        .collect();
    assert_eq!(events, ["expired", "added"]);
    tradewind.kill();
    tradewind.start_again();
    assert_eq!(ids(&tradewind), [""; 0], "it does not come back");
}

#[test]
fn every_kind_does_what_it_says_until_it_is_ended() {
    let (_a, b, config) = two();
    let tradewind = Tradewind::start(&config);
    let impose = |mut order: Value| {
        order["ttl"] = "10m".into();
        order["reason"] = "a test".into();
        tradewind.impose(order)
    };
    let end = |id: &str| {
        let (status, ended) = tradewind.call("DELETE", &format!("/v1/overrides/{id}"), None);
        assert_eq!((status, &ended["id"]), (200, &id.into()));
        assert_eq!(tradewind.call("DELETE", &format!("/v1/overrides/{id}"), None).0, 404);
    };

    let pin = impose(json!({ "kind": "pin", "backend": "b", "share": 0.3 }));
    tradewind.wait_for_share("b", 0.3);
    let before = b.requests();
    let mut client = tradewind.client();
    for _ in 0..100 {
        client.get("/").unwrap();
    }
    let part = b.requests() - before;
    assert!((25..=35).contains(&part), "{part} of 100 requests went to b");
    end(&pin);
    tradewind.wait_for_share("b", 0.0);

    let cap = impose(json!({ "kind": "cap", "backend": "a", "share": 0.4, "route": "chat" }));
    tradewind.wait_for_share("a", 0.4);
    tradewind.wait_for_share("b", 0.6);
    // The stronger one of two wins.
    let drain = impose(json!({ "kind": "drain", "backend": "a" }));
    tradewind.wait_for_share("a", 0.0);
    end(&drain);
    tradewind.wait_for_share("a", 0.4);
    end(&cap);
    tradewind.wait_for_share("a", 1.0);

    let freeze = impose(json!({ "kind": "freeze" }));
    tradewind.set_prices(&[("a", 1.0), ("b", 0.5)]);
    let price = "tradewind_price_usd_per_hour{backend=\"b\",offer=\"on_demand\"}";
    eventually("the price is known", || tradewind.metric(price) == Some(0.5));
    throughout(Duration::from_millis(500), || assert_eq!(tradewind.share("a"), 1.0));
    end(&freeze);
    tradewind.wait_for_share("b", 1.0);
}

#[test]
fn what_cannot_be_done_is_refused_in_words_and_changes_nothing() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(&config);
    let orders = [
        (json!({ "kind": "drain", "backend": "a", "reason": "x" }), "ttl"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "10m" }), "reason"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "  " }), "reason"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "soon", "reason": "x" }), "ttl"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "0s", "reason": "x" }), "ttl"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "8d", "reason": "x" }), "7 days"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "x".repeat(501) }), "500"),
        (json!({ "kind": "drain", "backend": "c", "ttl": "10m", "reason": "x" }), "there are: a, b"),
        (
            json!({ "kind": "drain", "backend": "a", "route": "chta", "ttl": "10m", "reason": "x" }),
            "there are: chat",
        ),
        (json!({ "kind": "drain", "ttl": "10m", "reason": "x" }), "backend"),
        (json!({ "kind": "drain", "backend": "a", "share": 0.5, "ttl": "10m", "reason": "x" }), "share"),
        (json!({ "kind": "cap", "backend": "a", "ttl": "10m", "reason": "x" }), "share"),
        (json!({ "kind": "pin", "backend": "a", "share": 1.5, "ttl": "10m", "reason": "x" }), "1.5"),
        (json!({ "kind": "freeze", "backend": "a", "ttl": "10m", "reason": "x" }), "backend"),
        (json!({ "kind": "stop", "backend": "a", "ttl": "10m", "reason": "x" }), "drain"),
        (json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "x", "until": "noon" }), "until"),
    ];
    for (order, word) in orders {
        let (status, problem) = tradewind.call("POST", "/v1/overrides", Some(order.clone()));
        assert_eq!(status, 422, "{order}: {problem}");
        assert_eq!(problem["status"], 422);
        let detail = problem["detail"].as_str().expect("a sentence");
        assert!(detail.contains(word), "{order} is refused without {word:?}: {detail}");
    }
    let kind = [("content-type", "application/json")];
    let broken = Client::new(tradewind.admin).request("POST", "/v1/overrides", &kind, b"{\"kind\"").unwrap();
    assert_eq!((broken.status, broken.header("content-type")), (400, Some("application/problem+json")));
    assert_eq!(ids(&tradewind), [""; 0]);
    assert_eq!(tradewind.share("a"), 1.0);
}

#[test]
fn the_command_line_does_it_all_and_its_exit_codes_tell() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(&config);
    let code = |args: &[&str]| tradewind.cli(args).status.code();
    let text = |args: &[&str]| {
        let output = tradewind.cli(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        stdout(&output)
    };
    let json = |args: &[&str]| -> Value { serde_json::from_str(&text(args)).expect("it prints JSON") };

    assert!(text(&["override", "list"]).contains("no override holds now"));
    let said = text(&["override", "drain", "a", "--ttl", "30m", "--reason", "bad image"]);
    assert!(said.starts_with("stored: ") && said.contains("drain a on all routes"), "{said}");
    tradewind.wait_for_share("a", 0.0);
    let id = json(&["override", "list", "--json"])["overrides"][0]["id"].as_str().unwrap().to_owned();
    assert!(said.contains(&id));
    assert!(text(&["override", "list"]).contains("bad image"));
    for part in ["chat", "BACKEND", "a", "0%", "b", "100%", "bad image"] {
        assert!(text(&["status"]).contains(part), "{part:?} is not in\n{}", text(&["status"]));
    }
    assert_eq!(json(&["status", "--json"])["overrides"][0]["id"], *id);
    assert!(text(&["explain", "chat"]).contains(&format!("override drain ({id}): bad image")));
    assert_eq!(json(&["explain", "chat", "--json"])["route"], "chat");
    assert!(text(&["override", "end", &id]).starts_with("ended: "));
    tradewind.wait_for_share("a", 1.0);
    assert_eq!(text(&["status", "--ready"]), "");

    assert_eq!(code(&["override", "end", &id]), Some(1), "it has ended");
    assert_eq!(
        code(&["override", "drain", "c", "--ttl", "30m", "--reason", "x"]),
        Some(1),
        "there is no such backend"
    );
    assert_eq!(code(&["explain", "chta"]), Some(1), "there is no such route");
    assert_eq!(code(&["override", "drain", "a"]), Some(2), "time and reason are missing");
    assert_eq!(code(&["override", "stop", "a"]), Some(2));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
    let output = harness::cli(&["status"], &format!("http://{nobody}"));
    assert_eq!((output.status.code(), stdout(&output)), (Some(3), String::new()));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&nobody.to_string()));
}

#[test]
fn the_journal_says_what_was_decided_and_who_imposed_what() {
    let (a, b, _) = two();
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)])
        .admin("tokens = [{ name = \"ops-anna\", role = \"operator\", value = { file = \"token\" } }, { name = \"dashboard\", role = \"viewer\", value = { file = \"weak\" } }]");
    let dir = tempfile::tempdir().unwrap();
    let (strong, weak) = ("s".repeat(40), "w".repeat(40));
    harness::put(dir.path(), "token", &strong);
    harness::put(dir.path(), "weak", &weak);
    let tradewind = Tradewind::start_in(dir.path(), &config);
    let call = |method: &str, path: &str, token: &str, body: &str| {
        let authorization = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", &*authorization)];
        let headers = if token.is_empty() { &headers[..1] } else { &headers[..] };
        Client::new(tradewind.admin).request(method, path, headers, body.as_bytes()).unwrap()
    };
    let order = drain("a", "10m").to_string();
    assert_eq!(call("POST", "/v1/overrides", "", &order).status, 401);
    assert_eq!(call("POST", "/v1/overrides", &weak, &order).status, 403);
    assert_eq!(call("POST", "/v1/overrides", &"x".repeat(40), &order).status, 401);
    let stored = call("POST", "/v1/overrides", &strong, &order);
    assert_eq!((stored.status, &stored.json()["author"]), (201, &"ops-anna".into()));

    let entries = until("the decision is in the journal", || {
        let journal = call("GET", "/v1/decisions?route=chat&limit=10", &weak, "").json();
        let entries = journal["decisions"].as_array().unwrap().clone();
        (entries[0]["action"] == "evacuate").then_some(entries)
    });
    assert_eq!(entries.iter().map(|entry| &entry["action"]).collect::<Vec<_>>(), ["evacuate", "place"]);
    let evacuated = &entries[0];
    assert_eq!(evacuated["route"], "chat");
    assert!(evacuated["summary"].as_str().unwrap().contains("b 100%: override drain"), "{evacuated}");
    assert!(evacuated["snapshot"]["backends"].is_array() && evacuated["decision"]["backends"].is_array());
    let at = evacuated["at"].as_str().unwrap();
    let since = call("GET", &format!("/v1/decisions?route=chat&since={at}"), &weak, "").json();
    assert_eq!(since["decisions"].as_array().unwrap().len(), 1);
    let newest = call("GET", "/v1/decisions?limit=1", &weak, "").json();
    assert_eq!(newest["decisions"].as_array().unwrap().len(), 1);
    let all = call("GET", "/v1/decisions", &weak, "").json();
    let added = all["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["kind"] == "override")
        .unwrap()
        .clone();
    assert_eq!((&added["event"], &added["author"]), (&"added".into(), &"ops-anna".into()));
    assert!(!all.to_string().contains(&strong) && !tradewind.log().contains(&strong), "a token has leaked");
}

/// Set for the second process: the directory on the tiny disk.
const TINY_DISK: &str = "TRADEWIND_TEST_TINY_DISK";
const NOT_PERMITTED: i32 = 77;

/// Runs the test `name` again in a mount namespace of its own, in which a directory is a disk of 1 MiB; there it gives the
/// directory. Nothing is left mounted, whatever happens.
fn tiny_disk(name: &str) -> Option<PathBuf> {
    if let Some(dir) = env::var_os(TINY_DISK) {
        return Some(dir.into());
    }
    let home = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=1m,mode=0700 tradewind-test \"$0\" || exit {NOT_PERMITTED}; exec \"$@\""
    );
    let launchers: [&[&str]; 2] =
        [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    for launcher in launchers {
        let output = Command::new(launcher[0])
            .args(&launcher[1..])
            .args(["sh", "-c", &script])
            .arg(home.path())
            .arg(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(TINY_DISK, home.path())
            .output();
        let Ok(output) = output else { continue };
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match output.status.code() {
            Some(0) => {
                assert!(text.contains("1 passed"), "the second process ran no test:\n{text}");
                return None;
            }
            // 1 is how `unshare` itself fails; a failed test ends with 101.
            Some(1 | NOT_PERMITTED) => {}
            code => panic!("in the second process ({code:?}):\n{text}"),
        }
    }
    eprintln!("SKIPPED {name}: this system does not permit mounting a tmpfs in a namespace");
    None
}

/// Writes until nothing more fits.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {
            assert!(file.metadata().unwrap().len() < 10_000_000, "the disk is not tiny");
        }
    }
    path
}

#[test]
fn a_full_disk_refuses_an_override_and_changes_nothing() {
    let Some(disk) = tiny_disk("a_full_disk_refuses_an_override_and_changes_nothing") else { return };
    let (_a, _b, config) = two();
    let mut tradewind = Tradewind::start_in(&disk, &config);
    let kept = tradewind
        .impose(json!({ "kind": "cap", "backend": "b", "share": 0.9, "ttl": "10m", "reason": "kept" }));
    let ballast = fill(&disk);
    let (status, problem) = tradewind.call("POST", "/v1/overrides", Some(drain("a", "10m")));
    assert_eq!((status, &problem["code"]), (507, &"no_space".into()), "{problem}");
    let output = tradewind.cli(&["override", "drain", "a", "--ttl", "10m", "--reason", "x"]);
    assert_eq!(output.status.code(), Some(3));
    let (status, problem) = tradewind.call("DELETE", &format!("/v1/overrides/{kept}"), None);
    assert_eq!(status, 507, "what cannot be ended for good is not ended: {problem}");
    throughout(Duration::from_millis(300), || {
        assert_eq!(ids(&tradewind), [&*kept]);
        assert_eq!(tradewind.share("a"), 1.0);
        assert_eq!(tradewind.fetch("/").text(), "a");
    });
    // Nor does it come to life by a crash.
    tradewind.kill();
    tradewind.start_again();
    assert_eq!(ids(&tradewind), [&*kept]);
    assert_eq!(tradewind.fetch("/").text(), "a");

    fs::remove_file(ballast).unwrap();
    tradewind.impose(drain("a", "10m"));
    tradewind.wait_for_share("a", 0.0);
}
