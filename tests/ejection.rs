//! Backends that answer their probes and fail their requests, or are far slower than others; and how they come back.

mod harness;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use harness::{
    Backend, Config, Load, Tradewind, eventually, pause,
    shares::{assert_no_faster, follow, verdict},
    throughout,
};

/// A backend that fails while the switch is on.
fn failing(name: &str) -> (Backend, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(true));
    let (switch, text) = (fails.clone(), name.to_owned());
    let backend = Backend::serving(name, move |call| match switch.load(SeqCst) {
        true => call.answer(500, &[], b"broken"),
        false => call.answer(200, &[], text.as_bytes()),
    });
    (backend, fails)
}

/// The first one is the cheaper one.
fn start(backends: &[&Backend], ejection: &str) -> Tradewind {
    start_with(backends, ejection, "")
}

fn start_with(backends: &[&Backend], ejection: &str, policy: &str) -> Tradewind {
    let priced: Vec<(&Backend, f64)> = backends.iter().zip([1.0, 2.0]).map(|(b, usd)| (*b, usd)).collect();
    let config =
        Config::new(&priced).replace("probe = ", &format!("ejection = {{ {ejection} }}\nprobe = ")).policy(
            &format!("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"100%/s\"\n{policy}"),
        );
    Tradewind::start(&config)
}

fn is_out(tradewind: &Tradewind, name: &str) -> bool {
    tradewind.metric(&format!("tradewind_backend_ejected{{backend=\"{name}\"}}")) == Some(1.0)
}

#[test]
fn a_backend_that_fails_its_requests_gets_none_for_a_while() {
    let (a, fails) = failing("a");
    let b = Backend::named("b");
    let tradewind = start(&[&a, &b], "time = \"1s\"");
    let load = Load::start(tradewind.http, &["POST", "POST"], Duration::from_millis(10));
    tradewind.wait_for_share("b", 1.0);
    let status = tradewind.backend("a");
    assert_eq!((&status["health"], &status["limited_by"]), (&"healthy".into(), &"ejected".into()));
    assert!(status["ejected"]["why"].as_str().is_some_and(|why| why.contains("failed")), "{status}");
    assert_eq!(verdict(&tradewind.explain(), "a")["limited_by"], "ejected");
    assert_eq!(tradewind.metric("tradewind_backend_healthy{backend=\"a\"}"), Some(1.0));
    let text = harness::stdout(&tradewind.cli(&["status"]));
    assert!(text.contains("too many of its requests fail"), "{text}");

    let ejections = || {
        tradewind
            .metric("tradewind_backend_ejections_total{backend=\"a\",reason=\"failures\"}")
            .expect("it is counted")
    };
    eventually("it was tried again and failed again", || ejections() >= 2.0);
    fails.store(false, SeqCst);
    tradewind.wait_for_share("a", 1.0);
    assert!(!is_out(&tradewind, "a") && tradewind.backend("a")["ejected"].is_null());
    load.finish();
}

#[test]
fn where_nothing_else_can_serve_nobody_is_ejected() {
    let (a, _fails) = failing("a");
    let alone = start(&[&a], "");
    for _ in 0..20 {
        assert_eq!(alone.fetch("/").status, 500);
    }
    throughout(Duration::from_millis(300), || assert!(!is_out(&alone, "a")));

    let b = Backend::named("b");
    let tradewind = start(&[&a, &b], "");
    eventually("a is out", || tradewind.fetch("/").status == 200 && is_out(&tradewind, "a"));
    tradewind.wait_for_share("b", 1.0);
    b.set_healthy(false);
    // A backend that fails some requests is better than none.
    tradewind.wait_for_share("a", 1.0);
    assert_eq!(tradewind.fetch("/").text(), "broken");
}

#[test]
fn a_backend_that_is_far_slower_than_the_others_gets_none_for_a_while() {
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let a = Backend::serving("a", move |call| {
        if is_slow.load(SeqCst) {
            pause(Duration::from_millis(400));
        }
        call.answer(200, &[], b"a")
    });
    let b = Backend::named("b");
    let latency = "factor = 3, margin = \"200ms\", min_requests = 5, window = \"5s\"";
    let ejection = format!("time = \"1s\", latency = {{ {latency} }}");
    let tradewind = start_with(&[&a, &b], &ejection, "keep_warm = \"20%\"");
    let load = Load::start(tradewind.http, &["POST"; 8], Duration::from_millis(10));
    tradewind.wait_for_share("b", 1.0);
    let status = tradewind.backend("a");
    assert_eq!((&status["health"], &status["limited_by"]), (&"healthy".into(), &"latency_outlier".into()));
    assert_eq!(status["ejected"]["reason"], "latency");
    assert!(
        status["ejected"]["why"].as_str().is_some_and(|why| why.contains("time to first byte")),
        "{status}"
    );
    assert_eq!(verdict(&tradewind.explain(), "a")["limited_by"], "latency_outlier");
    let text = harness::stdout(&tradewind.cli(&["status"]));
    assert!(text.contains("far above that of the others"), "{text}");
    let ejections = |reason: &str| {
        let labels = format!("backend=\"a\",reason=\"{reason}\"");
        tradewind.metric(&format!("tradewind_backend_ejections_total{{{labels}}}")).expect("it is counted")
    };
    eventually("it was tried again and was slow again", || ejections("latency") >= 2.0);
    assert_eq!(ejections("failures"), 0.0);
    let decisions = tradewind.json("/v1/decisions?limit=500").to_string();
    assert!(decisions.contains("\"latency_outlier\""), "the journal has it: {decisions}");
    slow.store(false, SeqCst);
    tradewind.wait_for_share("a", 0.8);
    assert!(!is_out(&tradewind, "a"));
    load.finish();
}

#[test]
fn a_backend_that_comes_back_starts_slowly() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let tradewind = start_with(&[&a, &b], "", "slow_start = \"4s\"");
    tradewind.wait_for_share("a", 1.0);
    a.set_healthy(false);
    tradewind.wait_for_share("b", 1.0);
    a.set_healthy(true);
    let samples = follow(&tradewind, "a", 1.0);
    // The ramp of this policy would have been done within a second.
    assert_no_faster(&samples, 0.25);
}
