//! Requests that belong together go to the same backend, as far as shares, health and load allow.

mod harness;

use std::{collections::HashMap, sync::mpsc};

use harness::{Backend, Config, Tradewind, eventually};
use serde_json::json;

const JSON: (&str, &str) = ("content-type", "application/json");

/// Two backends with half of the traffic each.
fn halves(affinity: &str) -> ([Backend; 2], Tradewind) {
    let backends = ["a", "b"].map(Backend::named);
    let routes = format!(
        "[routes.chat]\nmatch = {{ path = \"/*\" }}\nbackends = [\"a\", \"b\"]\naffinity = {affinity}\n"
    );
    let tradewind =
        Tradewind::start(&Config::new(&[(&backends[0], 1.0), (&backends[1], 1.0)]).routes(&routes));
    tradewind.impose(json!({
        "kind": "pin", "route": "chat", "backend": "a", "share": 0.5, "ttl": "10m", "reason": "half of it"
    }));
    tradewind.wait_for_share("b", 0.5);
    (backends, tradewind)
}

/// Who serves a request.
fn served_by(tradewind: &Tradewind, headers: &[(&str, &str)], body: &str) -> String {
    let answer = tradewind.client().request("POST", "/v1/chat", headers, body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-tradewind-backend").expect("it is told").to_owned()
}

/// Each of many keys is served by one backend, and both have some. Gives who serves which.
fn keys_stay(tradewind: &Tradewind, ask: impl Fn(usize) -> String) -> HashMap<usize, String> {
    let found: HashMap<usize, String> = (0..40).map(|key| (key, ask(key))).collect();
    for _ in 0..3 {
        for (key, backend) in &found {
            assert_eq!(ask(*key), *backend, "key {key}");
        }
    }
    for backend in ["a", "b"] {
        let count = found.values().filter(|found| *found == backend).count();
        assert!((8..=32).contains(&count), "{backend} has {count} of 40: {}", tradewind.explain()["summary"]);
    }
    found
}

#[test]
fn a_session_stays_and_leaves_only_what_leaves() {
    let (_backends, tradewind) = halves("{ header = \"X-Session-Id\" }");
    let ask = |key: usize| served_by(&tradewind, &[("x-session-id", &format!("s{key}"))], "");
    let found = keys_stay(&tradewind, ask);
    // Those without a session are divided as ever.
    let without: Vec<String> = (0..10).map(|_| served_by(&tradewind, &[], "")).collect();
    assert!(["a", "b"].iter().all(|name| without.iter().any(|found| found == name)), "{without:?}");

    tradewind.impose(json!({
        "kind": "drain", "backend": "a", "ttl": "10m", "reason": "a session yields to that"
    }));
    tradewind.wait_for_share("a", 0.0);
    for (key, before) in found {
        let now = ask(key);
        assert_eq!(now, "b", "key {key}, served by {before} before");
    }
}

#[test]
fn cookies_users_and_prompts_keep_requests_together() {
    let (_backends, tradewind) = halves("{ cookie = \"sid\" }");
    keys_stay(&tradewind, |key| served_by(&tradewind, &[("cookie", &format!("x=1; sid=s{key}"))], ""));

    let (_backends, tradewind) = halves("{ user = true }");
    keys_stay(&tradewind, |key| {
        let body = json!({ "model": "m", "messages": [{ "content": key * 7 }], "user": format!("u{key}") });
        served_by(&tradewind, &[JSON], &body.to_string())
    });

    // A conversation grows; its beginning stays.
    let (_backends, tradewind) = halves("{ prompt = \"64\" }");
    let turns = std::cell::Cell::new(0);
    keys_stay(&tradewind, |key| {
        turns.set(turns.get() + 1);
        let first = json!({ "role": "system", "content": format!("{key} {}", "be brief, ".repeat(10)) });
        let next = json!({ "role": "user", "content": format!("turn {}", turns.get()) });
        served_by(&tradewind, &[JSON], &json!({ "model": "m", "messages": [first, next] }).to_string())
    });
}

/// Requests of one session that are under way at once are more than its backend's share of all.
#[test]
fn a_session_that_asks_for_too_much_is_shared() {
    let names = ["a", "b"];
    let (go, gate) = mpsc::channel::<()>();
    let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
    let backends = names.map(|name| {
        let gate = gate.clone();
        Backend::serving(name, move |call| {
            // Until the sender is gone.
            let _ = gate.lock().unwrap().recv();
            call.answer(200, &[], b"")
        })
    });
    let routes = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\", \"b\"]\naffinity = { header = \"x-s\" }\n";
    let tradewind =
        Tradewind::start(&Config::new(&[(&backends[0], 1.0), (&backends[1], 1.0)]).routes(routes));
    tradewind.impose(json!({
        "kind": "pin", "route": "chat", "backend": "a", "share": 0.5, "ttl": "10m", "reason": "half of it"
    }));
    tradewind.wait_for_share("b", 0.5);
    std::thread::scope(|scope| {
        for n in 1..=20u64 {
            scope.spawn(|| served_by(&tradewind, &[("x-s", "one")], ""));
            let under_way = || -> u64 {
                names.iter().map(|name| tradewind.backend(name)["in_flight"].as_u64().unwrap()).sum()
            };
            eventually("one more is under way", || under_way() == n);
        }
        for name in names {
            let at = tradewind.backend(name)["in_flight"].as_u64().unwrap();
            assert!((7..=13).contains(&at), "{at} of 20 at {name}");
        }
        drop(go);
    });
}
