//! When a request is sent to another backend, when not, and what becomes of answers that break off.

mod harness;

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use harness::{Answer, Backend, Config, Tradewind, client::Exchange, eventually, http2, pause};
use http_body_util::BodyExt;

const JSON: (&str, &str) = ("content-type", "application/json");

/// A backend that answers with what it was sent.
fn echo(name: &str) -> Backend {
    Backend::serving(name, |call| {
        let body = call.body()?;
        call.answer(200, &[], &body)
    })
}

/// The bad one is cheaper, and the route has these keys.
fn start(bad: &Backend, good: &Backend, keys: &str) -> Tradewind {
    let route = format!(
        "[routes.chat]\nmatch = {{ path = \"/*\" }}\nbackends = [\"{}\", \"{}\"]\n{keys}\n",
        bad.name, good.name
    );
    Tradewind::start(&Config::new(&[(bad, 1.0), (good, 2.0)]).routes(&route))
}

fn post(tradewind: &Tradewind, body: &str) -> Answer {
    tradewind.client().request("POST", "/v1/chat/completions", &[JSON], body.as_bytes()).unwrap()
}

fn retries(tradewind: &Tradewind, reason: &str) -> Option<f64> {
    tradewind
        .metric(&format!("tradewind_retries_total{{route=\"chat\",backend=\"bad\",reason=\"{reason}\"}}"))
}

#[test]
fn a_status_is_another_try_only_where_the_route_says_so() {
    let bad = Backend::serving("bad", |call| call.answer(503, &[("x-own", "kept")], b"busy"));
    let good = Backend::named("good");
    let plain = start(&bad, &good, "");
    assert_eq!(plain.fetch("/").status, 503);
    let tradewind = start(&bad, &good, "retry_on = [\"502\", \"503\"]");
    assert_eq!((tradewind.fetch("/").status, tradewind.fetch("/").text()), (200, "good".into()));
    assert_eq!(retries(&tradewind, "status"), Some(2.0));
    let answer = post(&tradewind, "{}");
    assert_eq!((answer.status, answer.header("x-own"), answer.text()), (503, Some("kept"), "busy".into()));
    let inference = start(&bad, &good, "retry_on = [\"503\"]\nretry_inference = true");
    assert_eq!(post(&inference, "{}").text(), "good");
}

#[test]
fn the_last_backends_answer_is_passed_on() {
    let (bad, worse) = (
        Backend::serving("bad", |call| call.answer(503, &[], b"bad")),
        Backend::serving("worse", |call| call.answer(502, &[], b"worse")),
    );
    let tradewind = start(&bad, &worse, "retry_on = [\"502\", \"503\"]");
    let answer = tradewind.fetch("/");
    assert_eq!((answer.status, answer.text()), (502, "worse".into()));
    assert_eq!((bad.requests(), worse.requests()), (1, 1));
}

#[test]
fn inference_is_sent_again_as_a_whole_or_not_at_all() {
    let bad = Backend::serving("bad", |call| {
        call.body()?;
        call.cut()
    });
    let good = echo("good");
    let keys = "retry_inference = true";
    let tradewind = start(&bad, &good, keys);
    for size in [0, 1, 65_536, 70_000, 600_000] {
        let body = "x".repeat(size);
        // It need not be JSON.
        for headers in [&[JSON][..], &[]] {
            let answer = tradewind.client().request("POST", "/", headers, body.as_bytes()).unwrap();
            assert_eq!(answer.status, 200, "{size}");
            assert!(answer.text() == body, "the body of {size} bytes was changed");
        }
    }
    assert_eq!(retries(&tradewind, "broken"), Some(10.0));
    let asked = good.requests();
    let answer = post(&tradewind, &"x".repeat(2_000_000));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &"backend_failed".into()));
    assert_eq!(good.requests(), asked, "a body over the limit is not there to be sent again");
}

#[test]
fn what_is_not_listed_is_not_tried_again() {
    let bad = Backend::serving("bad", |call| call.cut());
    let good = Backend::named("good");
    let tradewind = start(&bad, &good, "retry_on = [\"connect\"]");
    assert_eq!(tradewind.fetch("/").status, 502);
    assert_eq!(good.requests(), 0);
}

#[test]
fn a_storm_of_errors_is_not_made_worse() {
    const CLIENTS: usize = 40;
    const EACH: usize = 25;
    let failing = |name: &str| {
        Backend::serving(name, |call| {
            pause(Duration::from_millis(20));
            call.answer(503, &[], b"busy")
        })
    };
    let (bad, good) = (failing("bad"), failing("good"));
    let tradewind = start(&bad, &good, "retry_on = [\"503\"]");
    let together = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (mut client, together) = (tradewind.client(), together.clone());
            thread::spawn(move || {
                together.wait();
                (0..EACH).for_each(|_| assert_eq!(client.get("/").unwrap().status, 503));
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let (sent, seen) = ((CLIENTS * EACH) as f64, (bad.requests() + good.requests()) as f64);
    assert!(seen > sent, "some are tried again");
    assert!(seen <= sent * 1.2 + 10.0, "{sent} requests became {seen}");
    let denied = tradewind.metric("tradewind_retry_budget_exhausted_total{route=\"chat\"}");
    assert!(denied.is_some_and(|denied| denied > 0.0), "{denied:?}");
}

/// All wait for a place at their second backend when the first of them gets there: leave for it was given before.
#[test]
fn a_storm_is_not_made_worse_where_requests_wait_either() {
    const CLIENTS: u64 = 40;
    let together = Arc::new(Barrier::new(CLIENTS as usize));
    let bad = Backend::serving("bad", move |call| {
        together.wait();
        call.answer(503, &[], b"busy")
    });
    let good = Backend::serving("good", |call| {
        pause(Duration::from_millis(20));
        call.answer(503, &[], b"busy")
    });
    let route =
        "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"bad\", \"good\"]\nretry_on = [\"503\"]\n";
    let limit = "limit = { max_in_flight = 1, max_waiting = 100, wait_timeout = \"30s\" }";
    let config = Config::new(&[(&bad, 1.0)]).backend("good", &good.url(), limit).routes(route);
    let tradewind = Tradewind::start(&config.price_file(&format!(
        "{}2026-01-01T00:00:00Z,other,good,,node,on_demand,2\n",
        harness::config::prices(&[("bad", 1.0)])
    )));
    tradewind.wait_for_share("bad", 1.0);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = tradewind.client();
            thread::spawn(move || assert_eq!(client.get("/").unwrap().status, 503))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(bad.requests(), CLIENTS);
    // A fifth of 40, and the few that are always allowed.
    assert!((1..=11).contains(&good.requests()), "{} were tried again", good.requests());
}

#[test]
fn a_backend_that_says_nothing_is_given_up() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let bad = Backend::serving("bad", move |call| {
        call.body()?;
        // Until the end of the test.
        let _ = held.lock().unwrap().recv();
        call.cut()
    });
    let good = echo("good");
    let tradewind = start(&bad, &good, "silence_timeout = \"300ms\"");
    let begun = Instant::now();
    assert_eq!(tradewind.fetch("/").status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(retries(&tradewind, "timeout"), Some(1.0));
    let answer = post(&tradewind, "{}");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (504, &"backend_timeout".into()));
    assert!(answer.json()["error"]["message"].is_string());
    let inference = start(&bad, &good, "silence_timeout = \"300ms\"\nretry_inference = true");
    assert_eq!(post(&inference, "{\"a\":1}").text(), "{\"a\":1}");
    drop(release);
}

/// A backend that begins an answer in chunks and then falls silent, or breaks.
fn half(content_type: &'static str, silent: bool) -> (Backend, Arc<AtomicBool>) {
    let done = Arc::new(AtomicBool::new(false));
    let end = done.clone();
    let backend = Backend::serving("bad", move |call| {
        call.begin(content_type)?;
        call.chunk(b"data: {\"n\":1}\n\n")?;
        while silent && !end.load(SeqCst) {
            pause(Duration::from_millis(10));
        }
        call.cut()
    });
    (backend, done)
}

#[test]
fn events_that_break_off_end_with_an_error() {
    for (silent, code) in [(true, "backend_timeout"), (false, "backend_failed")] {
        let (bad, done) = half("text/event-stream; charset=utf-8", silent);
        let good = Backend::named("good");
        let tradewind = start(&bad, &good, "silence_timeout = \"300ms\"\nretry_inference = true");
        let mut stream = Exchange::begin(tradewind.http, "POST", "/", &[JSON], b"{}").unwrap();
        let mut text = String::new();
        let end = loop {
            match stream.piece() {
                Ok(Some(piece)) => text += &String::from_utf8(piece).unwrap(),
                other => break other,
            }
        };
        assert!(end.is_err(), "it ended as if it were complete: {text}");
        let events: Vec<&str> = text.split("\n\n").filter(|event| !event.trim().is_empty()).collect();
        let [first, last] = events[..] else { panic!("{text}") };
        assert_eq!(first, "data: {\"n\":1}");
        let error: serde_json::Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(error["error"]["code"], code);
        eventually("it is counted", || {
            tradewind.metric("tradewind_answers_broken_off_total{route=\"chat\",backend=\"bad\"}")
                == Some(1.0)
        });
        let over_http2 = http2::run(async {
            let mut connection = http2::connect(tradewind.http).await;
            let request = http2::request("POST", tradewind.http, "/", http2::whole("{}"));
            let mut body = connection.send_request(request).await.unwrap().into_body();
            let mut text = String::new();
            while let Some(Ok(frame)) = body.frame().await {
                text += std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap();
            }
            text
        });
        assert!(over_http2.contains(code), "{over_http2}");
        assert_eq!(good.requests(), 0, "a client that has a part of an answer gets no other");
        done.store(true, SeqCst);
    }
}

#[test]
fn other_answers_that_fall_silent_break() {
    let (bad, done) = half("application/json", true);
    let good = Backend::named("good");
    let tradewind = start(&bad, &good, "silence_timeout = \"300ms\"");
    let mut stream = Exchange::begin(tradewind.http, "GET", "/", &[], b"").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: {\"n\":1}\n\n");
    assert!(stream.piece().is_err(), "it ended as if it were complete");
    done.store(true, SeqCst);
}

#[test]
fn a_backend_that_asks_for_a_pause_gets_one_while_another_can_serve() {
    let bad = Backend::serving("bad", |call| call.answer(429, &[("retry-after", "3000")], b"enough"));
    let good = Backend::named("good");
    let tradewind = start(&bad, &good, "");
    assert_eq!(tradewind.share("bad"), 1.0);
    assert_eq!(tradewind.fetch("/").status, 429);
    for _ in 0..20 {
        assert_eq!(tradewind.fetch("/").text(), "good");
    }
    assert_eq!(bad.requests(), 1);
    assert_eq!(tradewind.metric("tradewind_backend_paused{route=\"chat\",backend=\"bad\"}"), Some(1.0));

    good.set_healthy(false);
    eventually("good is out", || tradewind.backend("good")["health"] == "unhealthy");
    eventually("there is no other", || tradewind.fetch("/").status == 429);

    let short = Backend::serving("bad", |call| call.answer(503, &[("retry-after", "1")], b"soon"));
    let good = Backend::named("good");
    let tradewind = start(&short, &good, "");
    assert_eq!((tradewind.fetch("/").status, tradewind.fetch("/").status), (503, 200));
    eventually("the pause has ended", || tradewind.fetch("/").status == 503);
}
