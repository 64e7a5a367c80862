//! What clients see while backends fail, and what backends see when they come back.

mod harness;

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use harness::{
    Answer, Backend, Client, Config, Load, Tradewind, eventually, http2, load,
    shares::{assert_no_faster, follow},
    throughout,
};

/// The first one is the cheaper one.
fn two() -> (Backend, Backend, Config) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    (a, b, config)
}

fn wait_for_health(tradewind: &Tradewind, name: &str, health: &str) {
    eventually(&format!("{name} is {health}"), || tradewind.backend(name)["health"] == health);
}

/// An error of Tradewind itself, as SDKs for the OpenAI API read it.
fn assert_refusal(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty()));
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code);
    assert!(error["message"].is_string() && error["type"].is_string(), "{error}");
}

#[test]
fn a_killed_backend_fails_no_request_that_can_be_made_elsewhere() {
    let (a, b, config) = two();
    let tradewind = Tradewind::start(&config);
    let posts = 2;
    let load = Load::start(tradewind.http, &["GET", "GET", "POST", "POST"], Duration::from_millis(2));
    eventually("there is traffic", || load.count() > 100);
    assert_eq!(b.requests(), 0);

    a.stop();
    let stopped = Instant::now();
    wait_for_health(&tradewind, "a", "unhealthy");
    tradewind.wait_for_share("b", 1.0);
    let now = load.count();
    eventually("there is traffic after it", || load.count() > now + 100);

    let records = load.finish();
    let failures = load::failures(&records);
    // A POST that a backend may have begun to work on must not be made twice: each client may lose the one under way.
    let lost: usize = failures.values().sum();
    assert!(failures.keys().all(|(method, _)| *method == "POST") && lost <= posts, "{failures:?}");
    let late: Vec<_> = records.iter().filter(|r| r.begun > stopped && r.outcome.is_err()).collect();
    assert!(late.is_empty(), "never sent, and yet failed: {late:?}");
    let retries =
        tradewind.metric("tradewind_retries_total{route=\"chat\",backend=\"a\",reason=\"connect\"}");
    assert!(retries.is_some_and(|count| count > 0.0), "{retries:?}");
}

#[test]
fn a_backend_gets_no_request_after_its_probe_failed() {
    let (a, b, config) = two();
    let tradewind = Tradewind::start(&config);
    let load = Load::start(tradewind.http, &["GET", "POST"], Duration::from_millis(2));
    eventually("there is traffic", || a.requests() > 50);
    // It still serves whoever asks, so that a request that is sent to it would be seen.
    a.set_healthy(false);
    wait_for_health(&tradewind, "a", "unhealthy");
    tradewind.wait_for_share("a", 0.0);
    let error = tradewind.backend("a")["health_error"].to_string();
    assert!(error.contains("HTTP 503 to GET /health"), "{error}");
    // A request that had been sent before that was seen may still be on its way.
    let mut before = a.requests();
    eventually("what was under way has ended", || {
        let now = a.requests();
        tradewind.backend("a")["in_flight"] == 0 && std::mem::replace(&mut before, now) == now
    });
    throughout(Duration::from_secs(1), || assert_eq!(a.requests(), before));
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
    assert!(b.requests() > 50);
    assert_eq!(tradewind.metric("tradewind_backend_healthy{backend=\"a\"}"), Some(0.0));
}

#[test]
fn a_backend_that_returns_is_warmed_not_stampeded() {
    let (a, _b, config) = two();
    let tradewind = Tradewind::start(
        &config.policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"50%/s\""),
    );
    a.stop();
    tradewind.wait_for_share("b", 1.0);
    let load = Load::start(tradewind.http, &["GET", "GET"], Duration::from_millis(5));
    eventually("there is traffic", || load.count() > 20);

    a.restart();
    let samples = follow(&tradewind, "a", 1.0);
    let finished = Instant::now();
    assert_no_faster(&samples, 0.5);
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
    let first = records.iter().find(|record| record.outcome.as_deref() == Ok("a")).expect("it is used again");
    let (warmed, all) = load::served(&records, "a", first.begun, finished);
    let part = warmed as f64 / all as f64;
    assert!((0.25..0.75).contains(&part), "{warmed} of {all} requests went to it while it was warmed");
}

#[test]
fn when_no_backend_is_healthy_clients_are_told_at_once() {
    let (a, b, config) = two();
    let tradewind = Tradewind::start(&config);
    a.set_healthy(false);
    b.set_healthy(false);
    tradewind.wait_for_reason("nothing_eligible");
    let mut client = tradewind.client();
    let mut slowest = Duration::ZERO;
    for (n, method) in ["GET", "POST"].into_iter().cycle().take(40).enumerate() {
        let begun = Instant::now();
        let answer = client.request(method, "/v1/chat/completions", &[], b"").unwrap();
        slowest = slowest.max(begun.elapsed());
        assert_refusal(&answer, 503, "no_backend_available");
        let seconds: u64 =
            answer.header("retry-after").unwrap_or_else(|| panic!("answer {n}")).parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    // Also to who has sent only a part of a large request by the time of the answer.
    for _ in 0..5 {
        let answer = client.post("/v1/chat/completions", &vec![b'x'; 5_000_000]).unwrap();
        assert_refusal(&answer, 503, "no_backend_available");
    }
    eprintln!("no healthy backend: the slowest of 40 refusals took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "the slowest refusal took {slowest:?}");
    assert_eq!(a.requests() + b.requests(), 0);
    assert_eq!(
        tradewind.metric("tradewind_requests_total{route=\"chat\",backend=\"\",code=\"503\"}"),
        Some(45.0)
    );

    let (status, body) = http2::run(async {
        let mut connection = http2::connect(tradewind.http).await;
        let request = http2::request("POST", tradewind.http, "/", http2::whole(&"x".repeat(5_000_000)));
        let answer = connection.send_request(request).await.expect("it is answered");
        (answer.status().as_u16(), http2::text(answer.into_body()).await)
    });
    assert_eq!(status, 503);
    assert!(body.contains("no_backend_available"), "{body}");

    b.set_healthy(true);
    eventually("it serves again", || tradewind.fetch("/").text() == "b");
}

#[test]
fn until_probes_have_failed_an_unreachable_backend_is_a_502_and_no_hang() {
    let (a, b, config) = two();
    // The probes need some ten seconds to notice.
    let tradewind = Tradewind::start(&config.replace("interval = \"300ms\"", "interval = \"5s\""));
    a.stop();
    b.stop();
    let mut client = tradewind.client();
    for (method, size) in [("GET", 0), ("POST", 2), ("POST", 5_000_000), ("GET", 0)] {
        let begun = Instant::now();
        let answer = client.request(method, "/", &[], &vec![b'x'; size]).unwrap();
        assert_refusal(&answer, 502, "backend_unreachable");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    }
}

/// What a GET and a POST get when the cheaper backend treats them badly, and what the other backend saw.
fn meet(bad: Backend) -> (Answer, Answer, u64) {
    let good = Backend::named("good");
    let tradewind = Tradewind::start(&Config::new(&[(&bad, 1.0), (&good, 2.0)]));
    let got = tradewind.fetch("/");
    let seen = good.requests();
    let posted = tradewind.client().post("/", b"{}").unwrap();
    assert_eq!(good.requests(), seen, "a POST that was sent must not be made twice");
    (got, posted, bad.requests())
}

#[test]
fn a_backend_that_accepts_and_closes_loses_no_idempotent_request() {
    let (got, posted, asked) = meet(Backend::serving("bad", |call| call.cut()));
    assert_eq!((got.status, &*got.text()), (200, "good"));
    assert_refusal(&posted, 502, "backend_failed");
    assert_eq!(asked, 2);
}

#[test]
fn a_backend_that_speaks_garbage_loses_no_idempotent_request() {
    let (got, posted, _) = meet(Backend::serving("bad", |call| {
        call.raw(b"\x16\x03 this is no HTTP\r\n\r\n")?;
        call.cut()
    }));
    assert_eq!((got.status, &*got.text()), (200, "good"));
    assert_refusal(&posted, 502, "backend_failed");
}

#[test]
fn a_backend_that_stops_within_its_header_loses_no_idempotent_request() {
    let (got, posted, _) = meet(Backend::serving("bad", |call| {
        call.raw(b"HTTP/1.1 200 OK\r\ncontent-le")?;
        call.cut()
    }));
    assert_eq!((got.status, &*got.text()), (200, "good"));
    assert_refusal(&posted, 502, "backend_failed");
}

#[test]
fn slow_headers_are_waited_for_and_hold_up_nobody_else() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let slow = Backend::serving("slow", move |call| {
        if call.path == "/quick" {
            return call.answer(200, &[], b"quick");
        }
        call.raw(b"HTTP/1.1 200 OK\r\ncont")?;
        held.lock().unwrap().recv().map_err(std::io::Error::other)?;
        call.raw(b"ent-length: 4\r\n\r\nslow")
    });
    let tradewind = Tradewind::start(&Config::new(&[(&slow, 1.0)]));
    let to = tradewind.http;
    let waiting = std::thread::spawn(move || Client::new(to).get("/slow").unwrap());
    eventually("the slow request has arrived", || slow.requests() == 1);
    for _ in 0..20 {
        assert_eq!(tradewind.fetch("/quick").text(), "quick");
    }
    release.send(()).unwrap();
    assert_eq!(waiting.join().unwrap().text(), "slow");
}

#[test]
fn a_backend_over_the_latency_objective_loses_its_traffic() {
    let (slow, quick) = (Backend::slow("slow", Duration::from_millis(300)), Backend::named("quick"));
    let tradewind = Tradewind::start(&Config::new(&[(&slow, 1.0), (&quick, 2.0)]).slo("150ms"));
    assert_eq!(tradewind.share("slow"), 1.0);
    let load = Load::start(tradewind.http, &["GET"; 4], Duration::from_millis(10));
    tradewind.wait_for_share("quick", 1.0);
    let status = tradewind.backend("slow");
    assert_eq!(status["limited_by"], "over_slo");
    assert!(status["latency_p95_seconds"].as_f64().unwrap() >= 0.3, "{status}");
    let records = load.finish();
    assert!(load::failures(&records).is_empty(), "{:?}", load::failures(&records));
}

#[test]
fn a_backend_whose_probes_are_over_the_objective_loses_its_traffic_without_a_request() {
    let (a, _b, config) = two();
    let tradewind = Tradewind::start(&config.slo("100ms"));
    assert_eq!(tradewind.share("a"), 1.0);
    a.set_probe_delay(Duration::from_millis(200));
    tradewind.wait_for_share("b", 1.0);
    let status = tradewind.backend("a");
    assert_eq!((&status["health"], &status["limited_by"]), (&"healthy".into(), &"over_slo".into()));
    assert_eq!(a.requests(), 0);
}
