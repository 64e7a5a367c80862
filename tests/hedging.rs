//! Requests that are late and are sent to a second backend beside the first: who wins, who is left, what is counted.

mod harness;

use std::{
    fs, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use harness::{Answer, Backend, Config, Tradewind, client::Exchange, eventually, http2, pause, until};
use http_body_util::BodyExt;

const JSON: (&str, &str) = ("content-type", "application/json");

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// The first one is the cheaper one, and the route has these keys.
fn config(a: &Backend, b: &Backend, keys: &str) -> Config {
    let route = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\", \"b\"]\nretry_inference = true";
    Config::new(&[(a, 1.0), (b, 2.0)]).listen("expose_routing = true").routes(&format!("{route}\n{keys}\n"))
}

fn start(a: &Backend, b: &Backend, keys: &str) -> Tradewind {
    let tradewind = Tradewind::start(&config(a, b, keys));
    tradewind.wait_for_share("a", 1.0);
    tradewind
}

const AFTER: &str = "hedge = { after = \"100ms\" }";

/// A backend that never answers, and says whether the other side has closed the connection.
fn silent(name: &str) -> (Backend, mpsc::Receiver<bool>) {
    let (say, said) = mpsc::channel();
    let say = Mutex::new(say);
    let backend = Backend::serving(name, move |call| {
        call.body()?;
        let closed = call.wait_for_close();
        // The test may be over.
        let _ = say.lock().unwrap().send(closed);
        Err(io::Error::other("it was left"))
    });
    (backend, said)
}

/// A backend that answers with this status once for each time that it is told to.
fn told(name: &str, status: u16) -> (Backend, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (told, text) = (Mutex::new(told), name.to_owned());
    let backend = Backend::serving(name, move |call| {
        call.body()?;
        told.lock().unwrap().recv_timeout(LONG).map_err(io::Error::other)?;
        call.answer(status, &[], text.as_bytes())
    });
    (backend, tell)
}

fn post(tradewind: &Tradewind, body: &str) -> Answer {
    tradewind.client().request("POST", "/v1/chat/completions", &[JSON], body.as_bytes()).unwrap()
}

/// The same beside what the test does.
fn post_aside(tradewind: &Tradewind, body: &'static str) -> thread::JoinHandle<Answer> {
    let mut client = tradewind.client();
    thread::spawn(move || client.request("POST", "/v1/chat/completions", &[JSON], body.as_bytes()).unwrap())
}

fn hedges(tradewind: &Tradewind, backend: &str, outcome: &str) -> f64 {
    let labels = format!("route=\"chat\",backend=\"{backend}\",outcome=\"{outcome}\"");
    tradewind.metric(&format!("tradewind_hedges_total{{{labels}}}")).unwrap_or(0.0)
}

fn requests(tradewind: &Tradewind, backend: &str, code: u16) -> f64 {
    let labels = format!("route=\"chat\",backend=\"{backend}\",code=\"{code}\"");
    tradewind.metric(&format!("tradewind_requests_total{{{labels}}}")).unwrap_or(0.0)
}

fn nothing_is_under_way(tradewind: &Tradewind) {
    for backend in ["a", "b"] {
        let series = format!("tradewind_requests_in_flight{{route=\"chat\",backend=\"{backend}\"}}");
        eventually("nothing is under way", || tradewind.metric(&series) == Some(0.0));
    }
}

#[test]
fn a_request_that_is_late_is_answered_by_another_backend() {
    let (a, closed) = silent("a");
    let b = Backend::serving("b", |call| {
        let length = call.header("content-length").map(str::to_owned);
        let body = call.body()?;
        assert!(length.is_none_or(|length| length == body.len().to_string()));
        call.answer(200, &[], &body)
    });
    let keys = format!("{AFTER}\n[routes.chat.models]\nsmall = \"llama-3-8b\"");
    let dir = tempfile::tempdir().unwrap();
    let listen = "expose_routing = true\n[log.access]\nfile = \"access.log\"";
    let tradewind = Tradewind::start_in(dir.path(), &config(&a, &b, &keys).listen(listen));
    tradewind.wait_for_share("a", 1.0);
    for size in [0, 1, 65_536, 70_000, 600_000] {
        let body = "x".repeat(size);
        let answer = tradewind.client().request("POST", "/", &[], body.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.header("x-tradewind-backend")), (200, Some("b")), "{size}");
        assert!(answer.text() == body, "the body of {size} bytes was changed");
        assert!(closed.recv_timeout(LONG).unwrap(), "a was left");
    }
    let renamed = post(&tradewind, "{\"model\":\"small\",\"n\":1}");
    assert_eq!(renamed.text(), "{\"model\":\"llama-3-8b\",\"n\":1}");
    // One connection, request after request.
    let mut client = tradewind.client();
    for _ in 0..2 {
        let answer = client.request("GET", "/x?y=z", &[("x-own", "kept")], b"").unwrap();
        assert_eq!((answer.status, answer.text()), (200, String::new()));
    }
    assert_eq!((hedges(&tradewind, "b", "won"), hedges(&tradewind, "b", "lost")), (8.0, 0.0));
    nothing_is_under_way(&tradewind);
    assert_eq!((requests(&tradewind, "b", 200), requests(&tradewind, "a", 200)), (8.0, 0.0));
    assert_eq!((a.requests(), b.requests()), (8, 8));
    let first_bytes = "tradewind_time_to_first_byte_seconds_count{route=\"chat\",backend=\"a\"}";
    assert_eq!(tradewind.metric(first_bytes), Some(8.0), "how slow a was is not forgotten");
    let lines: Vec<serde_json::Value> = until("all are written down", || {
        let log = fs::read_to_string(dir.path().join("access.log")).ok()?;
        let lines: Vec<_> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= 8).then_some(lines)
    });
    assert_eq!(lines.len(), 8, "one line for each request of a client: {lines:?}");
    let third = &lines[2];
    assert_eq!(
        (&third["backend"], &third["attempts"], &third["status"]),
        (&"b".into(), &2.into(), &200.into())
    );
    assert_eq!((&third["bytes_received"], &third["bytes_sent"]), (&65_536.into(), &65_536.into()));
}

/// A place at the backend that was late is free again while the other one still answers.
#[test]
fn the_one_that_was_late_is_left_before_the_answer_has_ended() {
    let (a, closed) = silent("a");
    let (b, go_on) = Backend::pausing("b");
    let tradewind = start(&a, &b, AFTER);
    let mut answer = Exchange::begin(tradewind.http, "GET", "/stream", &[], b"").unwrap();
    assert_eq!(answer.piece().unwrap().as_deref(), Some(&b"data: 1\n\n"[..]));
    assert!(closed.recv_timeout(LONG).unwrap(), "a was left");
    let series = "tradewind_requests_in_flight{route=\"chat\",backend=\"a\"}";
    eventually("nothing is under way at a", || tradewind.metric(series) == Some(0.0));
    go_on.send(()).unwrap();
    assert_eq!(answer.rest().unwrap(), b"data: 2\n\n");
    nothing_is_under_way(&tradewind);
}

#[test]
fn the_first_answer_wins_and_the_other_request_is_left() {
    let (a, tell) = told("a", 200);
    let (b, closed) = silent("b");
    // Were a place not given back, there would be none for the next.
    let limited = config(&a, &b, AFTER).replace("probe = ", "limit = { max_in_flight = 1 }\nprobe = ");
    let tradewind = Tradewind::start(&limited);
    tradewind.wait_for_share("a", 1.0);
    for round in 1..=3 {
        let answer = post_aside(&tradewind, "{}");
        eventually("b was asked too", || b.requests() == round);
        tell.send(()).unwrap();
        assert_eq!(answer.join().unwrap().text(), "a");
        assert!(closed.recv_timeout(LONG).unwrap(), "b was left");
    }
    assert_eq!((hedges(&tradewind, "b", "lost"), hedges(&tradewind, "b", "won")), (3.0, 0.0));
    nothing_is_under_way(&tradewind);
    assert_eq!((requests(&tradewind, "a", 200), requests(&tradewind, "b", 200)), (3.0, 0.0));
    assert!(tradewind.metric("tradewind_backend_ejected{backend=\"b\"}").is_none_or(|out| out == 0.0));
}

#[test]
fn as_many_are_sent_twice_as_the_budget_allows() {
    let a = Backend::slow("a", Duration::from_millis(400));
    let b = Backend::named("b");
    let tradewind = start(&a, &b, "hedge = { after = \"20ms\", budget = \"1%\" }");
    let answers: Vec<String> = (0..12).map(|_| post(&tradewind, "{}").text()).collect();
    // Ten at once, and a hundredth of a dozen.
    assert_eq!(b.requests(), 10, "{answers:?}");
    assert_eq!((&answers[10], &answers[11]), (&"a".to_owned(), &"a".to_owned()));
    assert_eq!(hedges(&tradewind, "b", "won") + hedges(&tradewind, "b", "lost"), 10.0);
    assert_eq!(hedges(&tradewind, "a", "over_budget"), 2.0);
}

#[test]
fn only_what_may_be_repeated_is_sent_twice() {
    let slow = Arc::new(AtomicU64::new(300));
    let time = slow.clone();
    let a = Backend::serving("a", move |call| {
        pause(Duration::from_millis(time.load(SeqCst)));
        call.answer(200, &[], b"a")
    });
    let b = Backend::named("b");
    let tradewind = Tradewind::start(
        &config(&a, &b, AFTER).listen("body_peek_max = \"2KiB\"").routes(&format!(
            "[routes.plain]\nmatch = {{ path = \"/plain\" }}\nbackends = [\"a\", \"b\"]\n{AFTER}\n\
             [routes.chat]\nmatch = {{ path = \"/*\" }}\nbackends = [\"a\", \"b\"]\nretry_inference = true\n{AFTER}"
        )),
    );
    tradewind.wait_for_share("a", 1.0);
    let ask = |method: &str, path: &str, body: &str| {
        tradewind.client().request(method, path, &[JSON], body.as_bytes()).unwrap().text()
    };
    assert_eq!(ask("POST", "/plain", "{}"), "a", "a POST that may not be repeated");
    assert_eq!(ask("POST", "/", &"x".repeat(3000)), "a", "a body that is not held");
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    assert_eq!(tradewind.client().request("POST", "/", &grpc, b"x").unwrap().text(), "a");
    assert_eq!(b.requests(), 0);
    // Long enough for any machine.
    slow.store(10_000, SeqCst);
    assert_eq!(ask("GET", "/plain", ""), "b");
    assert_eq!(ask("POST", "/", "{}"), "b");
}

#[test]
fn who_has_no_place_or_is_drained_is_not_asked() {
    let a = Backend::slow("a", Duration::from_millis(300));
    let (b, push) = Backend::pausing("b");
    let b_only = "[routes.stream]\nmatch = { path = \"/stream\" }\nbackends = [\"b\"]";
    let route = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\", \"b\"]\nretry_inference = true";
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)])
        .replace("probe = ", "limit = { max_in_flight = 1 }\nprobe = ")
        .routes(&format!("{route}\n{AFTER}\n{b_only}"));
    let tradewind = Tradewind::start(&config);
    tradewind.wait_for_share("a", 1.0);
    let mut stream = Exchange::begin(tradewind.http, "GET", "/stream", &[], b"").unwrap();
    assert!(stream.piece().unwrap().is_some());
    assert_eq!(post(&tradewind, "{}").text(), "a");
    assert_eq!((hedges(&tradewind, "a", "no_backend"), b.requests()), (1.0, 1));
    push.send(()).unwrap();
    stream.rest().unwrap();
    eventually("b has a place again", || post(&tradewind, "{}").text() == "b");

    let asked = b.requests();
    tradewind
        .impose(serde_json::json!({ "kind": "drain", "backend": "b", "ttl": "10m", "reason": "a test" }));
    eventually("b is drained", || tradewind.backend("b")["limited_by"] == "drained");
    assert_eq!(post(&tradewind, "{}").text(), "a");
    assert_eq!(b.requests(), asked);
}

#[test]
fn an_error_is_no_answer_while_the_other_may_give_one() {
    let (a, tell) = told("a", 200);
    let b = Backend::serving("b", |call| call.answer(503, &[], b"busy"));
    let tradewind = start(&a, &b, AFTER);
    let answer = post_aside(&tradewind, "{}");
    eventually("b has refused it", || b.requests() == 1);
    pause(Duration::from_millis(50));
    tell.send(()).unwrap();
    let answer = answer.join().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "a".into()));
    assert_eq!(hedges(&tradewind, "b", "failed"), 1.0);
    nothing_is_under_way(&tradewind);
    assert_eq!((requests(&tradewind, "b", 503), requests(&tradewind, "a", 200)), (0.0, 1.0));

    // The first one fails while the second one is under way.
    let ((a, tell_a), (b, tell_b)) = (told("a", 500), told("b", 200));
    let tradewind = start(&a, &b, AFTER);
    let answer = post_aside(&tradewind, "{}");
    eventually("b was asked too", || b.requests() == 1);
    tell_a.send(()).unwrap();
    pause(Duration::from_millis(50));
    tell_b.send(()).unwrap();
    let answer = answer.join().unwrap();
    assert_eq!((answer.status, answer.text()), (200, "b".into()));
    assert_eq!((hedges(&tradewind, "b", "won"), requests(&tradewind, "a", 500)), (1.0, 0.0));

    // Both fail: the first one's error is the answer.
    let ((a, tell_a), (b, tell_b)) = (told("a", 500), told("b", 503));
    let tradewind = start(&a, &b, AFTER);
    let answer = post_aside(&tradewind, "{}");
    eventually("b was asked too", || b.requests() == 1);
    tell_b.send(()).unwrap();
    pause(Duration::from_millis(50));
    tell_a.send(()).unwrap();
    let answer = answer.join().unwrap();
    assert_eq!((answer.status, answer.text()), (500, "a".into()));
    nothing_is_under_way(&tradewind);
    assert_eq!((hedges(&tradewind, "b", "failed"), requests(&tradewind, "a", 500)), (1.0, 1.0));

    // A broken connection is tried again by itself, and is no answer either.
    let a = Backend::serving("a", |call| {
        call.body()?;
        pause(Duration::from_millis(200));
        call.cut()
    });
    let (b, tell) = told("b", 200);
    let tradewind = start(&a, &b, AFTER);
    let answer = post_aside(&tradewind, "{}");
    eventually("b was asked", || b.requests() >= 1);
    (0..2).for_each(|_| tell.send(()).unwrap());
    assert_eq!(answer.join().unwrap().text(), "b");
    nothing_is_under_way(&tradewind);
}

#[test]
fn a_client_that_leaves_takes_both_with_it() {
    let ((a, a_closed), (b, b_closed)) = (silent("a"), silent("b"));
    let tradewind = start(&a, &b, AFTER);
    let mut stream = harness::client::connect(tradewind.http).unwrap();
    io::Write::write_all(&mut stream, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    eventually("both were asked", || (a.requests(), b.requests()) == (1, 1));
    drop(stream);
    assert!(a_closed.recv_timeout(LONG).unwrap() && b_closed.recv_timeout(LONG).unwrap());
    nothing_is_under_way(&tradewind);
    eventually("it is counted once", || requests(&tradewind, "a", 499) == 1.0);
    assert_eq!(requests(&tradewind, "b", 499), 0.0);
}

/// A backend that begins an answer in events, and breaks where the switch is on.
fn events(name: &str, breaks: Arc<AtomicBool>) -> Backend {
    Backend::serving(name, move |call| {
        call.body()?;
        call.begin("text/event-stream")?;
        call.chunk(b"data: {\"n\":1}\n\n")?;
        pause(Duration::from_millis(100));
        if breaks.load(SeqCst) {
            return call.cut();
        }
        call.chunk(b"data: {\"n\":2}\n\n")?;
        call.chunk(b"data: [DONE]\n\n")?;
        call.end()
    })
}

#[test]
fn a_stream_comes_as_it_is_and_one_that_breaks_off_ends_with_an_error() {
    let (a, _closed) = silent("a");
    let breaks = Arc::new(AtomicBool::new(false));
    let b = events("b", breaks.clone());
    let tradewind = start(&a, &b, AFTER);
    let mut stream = Exchange::begin(tradewind.http, "POST", "/", &[JSON], b"{}").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: {\"n\":1}\n\n");
    assert_eq!(stream.rest().unwrap(), b"data: {\"n\":2}\n\ndata: [DONE]\n\n");
    breaks.store(true, SeqCst);
    let mut stream = Exchange::begin(tradewind.http, "POST", "/", &[JSON], b"{}").unwrap();
    let mut text = String::new();
    let end = loop {
        match stream.piece() {
            Ok(Some(piece)) => text += &String::from_utf8(piece).unwrap(),
            other => break other,
        }
    };
    assert!(end.is_err(), "it ended as if it were complete: {text}");
    assert!(text.contains("backend_failed"), "{text}");
    eventually("it is counted", || {
        tradewind.metric("tradewind_answers_broken_off_total{route=\"chat\",backend=\"b\"}") == Some(1.0)
    });
    nothing_is_under_way(&tradewind);
}

#[test]
fn clients_of_http2_are_served_alike() {
    let (a, _closed) = silent("a");
    let breaks = Arc::new(AtomicBool::new(false));
    let b = events("b", breaks.clone());
    let tradewind = start(&a, &b, AFTER);
    let ask = |method: &'static str| {
        http2::run(async {
            let mut connection = http2::connect(tradewind.http).await;
            let body = http2::whole(if method == "POST" { "{\"a\":1}" } else { "" });
            let request = http2::request(method, tradewind.http, "/v1", body);
            let answer = connection.send_request(request).await.unwrap();
            assert_eq!(
                (answer.status(), &answer.headers()["x-tradewind-backend"]),
                (http::StatusCode::OK, &"b".parse().unwrap())
            );
            let (mut text, mut body) = (String::new(), answer.into_body());
            while let Some(Ok(frame)) = body.frame().await {
                text += std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap();
            }
            text
        })
    };
    for method in ["GET", "POST"] {
        assert!(ask(method).ends_with("data: [DONE]\n\n"));
    }
    breaks.store(true, SeqCst);
    assert!(ask("POST").contains("backend_failed"));
    nothing_is_under_way(&tradewind);
}

#[test]
fn a_draining_process_waits_for_it() {
    let (a, _closed) = silent("a");
    let (b, push) = Backend::pausing("b");
    let mut tradewind = start(&a, &b, AFTER);
    let mut stream = Exchange::begin(tradewind.http, "GET", "/stream", &[], b"").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    tradewind.signal("TERM");
    eventually("it drains", || tradewind.log().contains("draining"));
    push.send(()).unwrap();
    assert_eq!(stream.rest().unwrap(), b"data: 2\n\n");
    assert_eq!(until("it ends", || tradewind.ended()).code(), Some(0));
}

#[test]
fn late_is_what_is_later_than_most() {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let a = Backend::serving("a", move |call| {
        if is_slow.load(SeqCst) {
            pause(Duration::from_secs(1));
        }
        call.answer(200, &[], b"a")
    });
    let b = Backend::named("b");
    let tradewind = start(&a, &b, "hedge = { at_least = \"200ms\" }");
    slow.store(true, SeqCst);
    assert_eq!(post(&tradewind, "{}").text(), "a", "nothing is known yet");
    slow.store(false, SeqCst);
    for _ in 0..100 {
        assert_eq!(post(&tradewind, "{}").text(), "a");
    }
    slow.store(true, SeqCst);
    eventually("a request is late", || post(&tradewind, "{}").text() == "b");
    assert!(hedges(&tradewind, "b", "won") >= 1.0);
}

#[test]
fn backends_over_http2_win_and_are_left_alike() {
    let (a, _closed) = silent("a");
    let b = http2::ModernBackend::serving(http2::Speaks::H2c, |request| {
        let length =
            request.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
        http::Response::new(http2::whole(&format!("{:?} {length:?}", request.version())))
    });
    let modern = format!("http://{}", b.address());
    let route = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\", \"b\"]\nretry_inference = true";
    let two = Config::new(&[(&a, 1.0)]).backend("b", &modern, "protocol = \"http2\"");
    let tradewind = Tradewind::start(&two.routes(&format!("{route}\n{AFTER}")));
    tradewind.wait_for_share("a", 1.0);
    assert_eq!(post(&tradewind, "{\"a\":1}").text(), "HTTP/2.0 Some(\"7\")");
    nothing_is_under_way(&tradewind);
    drop(tradewind);

    // The one that is late speaks it. Its stream ends, not its connection.
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let a = http2::ModernBackend::serving(http2::Speaks::H2c, move |_| {
        if is_slow.swap(false, SeqCst) {
            pause(Duration::from_secs(2));
        }
        http::Response::new(http2::whole("a"))
    });
    let b = Backend::named("b");
    let modern = format!("http://{}", a.address());
    let two = Config::new(&[(&b, 2.0)]).backend("a", &modern, "protocol = \"http2\"");
    let tradewind = Tradewind::start(&two.routes(&format!("{route}\nhedge = {{ after = \"500ms\" }}")));
    tradewind.impose(
        serde_json::json!({ "kind": "pin", "backend": "a", "share": 1.0, "ttl": "10m", "reason": "a test" }),
    );
    tradewind.wait_for_share("a", 1.0);
    assert_eq!(post(&tradewind, "{}").text(), "b");
    nothing_is_under_way(&tradewind);
    eventually("a serves again", || post(&tradewind, "{}").text() == "a");
}

#[test]
fn a_head_alone_is_no_answer() {
    for breaks in [false, true] {
        let a = Backend::serving("a", move |call| {
            call.body()?;
            call.begin("text/event-stream")?;
            if breaks {
                pause(Duration::from_millis(300));
                return call.cut();
            }
            call.wait_for_close();
            Err(io::Error::other("it was left"))
        });
        let (b, tell) = told("b", 200);
        let tradewind = start(&a, &b, AFTER);
        let answer = post_aside(&tradewind, "{}");
        eventually("b was asked too", || b.requests() == 1);
        if breaks {
            pause(Duration::from_millis(400));
        }
        tell.send(()).unwrap();
        let answer = answer.join().unwrap();
        assert_eq!((answer.status, answer.text()), (200, "b".into()));
        nothing_is_under_way(&tradewind);
        assert_eq!((requests(&tradewind, "b", 200), requests(&tradewind, "a", 200)), (1.0, 0.0));
    }
    // Where there is no other, it breaks as it would without.
    let a = Backend::serving("a", |call| {
        call.begin("application/json")?;
        call.cut()
    });
    let b = Backend::named("b");
    let tradewind = start(&a, &b, AFTER);
    let mut answer = Exchange::begin(tradewind.http, "GET", "/", &[], b"").unwrap();
    assert!(answer.piece().is_err(), "it ended as if it were complete");
    nothing_is_under_way(&tradewind);
}
