//! What backends report of themselves, end to end: who is full gets no more, whose nodes go away loses traffic at once, and
//! a report that is missing is never a zero.

mod harness;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::{Backend, Config, Load, Tradewind, eventually, stdout, until};
use serde_json::{Value, json};
use tradewind::model::Timestamp;

/// A text that a test changes while a server answers with it; with its status.
#[derive(Clone)]
struct Page(Arc<Mutex<(u16, String)>>);

impl Page {
    fn new(text: &str) -> Page {
        Page(Arc::new(Mutex::new((200, text.to_owned()))))
    }

    fn set(&self, status: u16, text: &str) {
        *self.0.lock().unwrap() = (status, text.to_owned());
    }
}

/// A server of models that has metrics.
fn with_metrics(name: &str, page: &Page) -> Backend {
    let (own, page) = (name.to_owned(), page.clone());
    Backend::serving(name, move |call| {
        if call.path == "/metrics" {
            let (status, text) = page.0.lock().unwrap().clone();
            return call.answer(status, &[], text.as_bytes());
        }
        call.answer(200, &[], own.as_bytes())
    })
}

fn vllm(waiting: f64, usage: f64) -> String {
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine=\"0\",model_name=\"m\"}} {waiting}\n\
         # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{engine=\"0\",model_name=\"m\"}} {usage}\n"
    )
}

const OWN_METRICS: &str = "load = { metrics = \"/metrics\", interval = \"100ms\" }";

fn reported(tradewind: &Tradewind, backend: &str) -> Value {
    tradewind.backend(backend)["load"]["reported"].clone()
}

fn warnings(tradewind: &Tradewind) -> String {
    tradewind.json("/v1/status")["warnings"].to_string()
}

#[test]
fn a_saturated_backend_gets_no_more_until_it_is_well_below() {
    let page = Page::new(&vllm(7.0, 0.97));
    let (a, b) = (Backend::named("a"), with_metrics("b", &page));
    let config = Config::new(&[(&a, 3.6)])
        .backend("b", &b.url(), OWN_METRICS)
        .price_file(&harness::config::prices(&[("a", 3.6), ("b", 7.2)]));
    let tradewind = Tradewind::start(&config);
    tradewind.wait_for_share("a", 1.0);
    eventually("the report is there", || reported(&tradewind, "b")["saturation"] == 0.97);
    assert_eq!(reported(&tradewind, "b")["queued"], 7.0);
    assert_eq!(tradewind.metric("tradewind_backend_queued{backend=\"b\"}"), Some(7.0));
    assert_eq!(tradewind.metric("tradewind_backend_saturation{backend=\"b\"}"), Some(0.97));
    assert!(
        tradewind.metric("tradewind_load_report_age_seconds{backend=\"b\"}").is_some_and(|age| age < 15.0)
    );
    assert_eq!(tradewind.metric("tradewind_ready_replicas{backend=\"b\"}"), None, "nobody says it");
    assert_eq!(tradewind.backend("a")["load"], Value::Null);

    tradewind.set_prices(&[("a", 3.6), ("b", 1.8)]);
    eventually("b is wanted", || tradewind.backend("b")["target_share"] == 1.0);
    harness::throughout(Duration::from_millis(500), || assert_eq!(tradewind.share("b"), 0.0));
    assert_eq!(tradewind.backend("b")["limited_by"], "saturated");
    let explained = stdout(&tradewind.cli(&["explain", "chat"]));
    assert!(
        explained.contains("b would be the cheapest, but it reports that it is at its limit"),
        "{explained}"
    );
    assert!(explained.contains("b reports: 7.0 requests wait, 97% in use"), "{explained}");

    page.set(200, &vllm(0.0, 0.3));
    tradewind.wait_for_share("b", 1.0);
}

#[test]
fn a_report_that_is_missing_is_told_and_is_no_zero() {
    let page = Page::new(&vllm(7.0, 0.97));
    let b = with_metrics("b", &page);
    let tradewind = Tradewind::start(
        &Config::new(&[])
            .backend("b", &b.url(), OWN_METRICS)
            .price_file(&harness::config::prices(&[("b", 7.2)])),
    );
    eventually("the report is there", || reported(&tradewind, "b")["queued"] == 7.0);
    page.set(503, "overloaded");
    eventually("it is told", || warnings(&tradewind).contains("/metrics: HTTP 503"));
    assert_eq!(tradewind.metric("tradewind_load_failing{backend=\"b\"}"), Some(1.0));
    assert_eq!(reported(&tradewind, "b")["queued"], 7.0, "the last word holds for a while");
    page.set(200, "vllm:num_requests_waiting NaN");
    eventually("it is told", || warnings(&tradewind).contains("`vllm:num_requests_waiting` is NaN"));
    page.set(200, "go_goroutines 7");
    eventually("it is told", || warnings(&tradewind).contains("none of the metrics that are understood"));
    page.set(200, &"x".repeat(2 << 20));
    eventually("it is told", || warnings(&tradewind).contains("longer than 1048576 bytes"));
    eventually("after 15 s it is no report", || {
        tradewind.metric("tradewind_backend_queued{backend=\"b\"}").is_none()
    });
    assert_eq!(tradewind.metric("tradewind_load_report_age_seconds{backend=\"b\"}"), None);
    assert_eq!(reported(&tradewind, "b")["queued"], Value::Null);
    page.set(200, &vllm(1.0, 0.1));
    eventually("it is back", || reported(&tradewind, "b")["queued"] == 1.0);
    eventually("nothing is at fault", || !warnings(&tradewind).contains("load"));
}

#[test]
fn ready_replicas_that_prometheus_sees_move_traffic() {
    let ready = Page::new("5");
    let answers = ready.clone();
    let prometheus = Backend::serving("prometheus", move |call| {
        let value = answers.0.lock().unwrap().1.clone();
        let sample = match call.path.as_str() {
            "/prom/api/v1/query?query=sum%28ready%7Bapp%3D%27llama%27%7D%29" if value.is_empty() => {
                String::new()
            }
            "/prom/api/v1/query?query=sum%28ready%7Bapp%3D%27llama%27%7D%29" => {
                format!("{{\"metric\":{{}},\"value\":[1700000000.5,\"{value}\"]}}")
            }
            "/prom/api/v1/query?query=wait" => "{\"metric\":{},\"value\":[1700000000.5,\"2.5\"]}".into(),
            _ => return call.answer(400, &[], b"{\"status\":\"error\",\"error\":\"parse error\"}"),
        };
        let body = format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{sample}]}}}}"
        );
        call.answer(200, &[], body.as_bytes())
    });
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let load = format!(
        "load = {{ prometheus = \"{}/prom\", ready = \"sum(ready{{app='llama'}})\", queued = \"wait\", \
         saturation = \"(\", interval = \"100ms\" }}",
        prometheus.url()
    );
    let config = Config::new(&[(&b, 7.2)])
        .backend("a", &a.url(), &load)
        .price_file(&harness::config::prices(&[("a", 3.6), ("b", 7.2)]));
    let tradewind = Tradewind::start(&config);
    tradewind.wait_for_share("a", 1.0);
    eventually("the report is there", || {
        tradewind.metric("tradewind_ready_replicas{backend=\"a\"}") == Some(5.0)
    });
    assert_eq!(reported(&tradewind, "a")["queued"], 2.5);
    assert!(
        warnings(&tradewind).contains("`saturation` ((): refused: parse error"),
        "{}",
        warnings(&tradewind)
    );

    ready.set(200, "0");
    tradewind.wait_for_share("b", 1.0);
    assert_eq!(tradewind.fetch("/").text(), "b");
    // Nobody knows now: that is no reason to come back.
    ready.set(200, "");
    eventually("it is told", || warnings(&tradewind).contains("no sample: nothing matches"));
    harness::throughout(Duration::from_millis(500), || assert_eq!(tradewind.share("a"), 0.0));
    ready.set(200, "3");
    tradewind.wait_for_share("a", 1.0);
}

#[test]
fn orca_reports_are_read_and_not_passed_on() {
    let header = Page::new("named_metrics.kv_cache_usage_perc=0.75,named_metrics.num_requests_waiting=3");
    let says = header.clone();
    let a = Backend::serving("a", move |call| {
        let wish = call.header("endpoint-load-metrics-format").unwrap_or("none").to_owned();
        let report = says.0.lock().unwrap().1.clone();
        let headers = [("endpoint-load-metrics", &*report), ("endpoint-load-metrics-bin", "AAAA")];
        call.answer(200, &headers, wish.as_bytes())
    });
    let prices = harness::config::prices(&[("a", 3.6)]);
    let read = Config::new(&[]).backend("a", &a.url(), "load = { orca = true }").price_file(&prices);
    let tradewind = Tradewind::start(&read);
    let answer = tradewind.fetch("/");
    assert_eq!(answer.text(), "TEXT", "vLLM and Triton report to whoever asks");
    assert_eq!(
        (answer.header("endpoint-load-metrics"), answer.header("endpoint-load-metrics-bin")),
        (None, None)
    );
    eventually("the report is there", || reported(&tradewind, "a")["saturation"] == 0.75);
    assert_eq!(reported(&tradewind, "a")["queued"], 3.0);
    header.set(200, "TEXT cpu_utilization=often");
    tradewind.fetch("/");
    eventually("it is told", || {
        warnings(&tradewind).contains("a value of `cpu_utilization` is not a number")
    });
    assert_eq!(reported(&tradewind, "a")["queued"], 3.0, "the last word holds for a while");

    // Where it is not read, it is none of our business.
    let plain = Tradewind::start(&Config::new(&[]).backend("a", &a.url(), "").price_file(&prices));
    let answer = plain.fetch("/");
    assert_eq!((answer.text().as_str(), answer.header("endpoint-load-metrics").is_some()), ("none", true));
}

#[test]
fn what_is_configured_anew_is_asked_anew() {
    let page = Page::new(&vllm(7.0, 0.5));
    let b = with_metrics("b", &page);
    let prices = harness::config::prices(&[("b", 7.2)]);
    let plain = Config::new(&[]).backend("b", &b.url(), "").price_file(&prices);
    let tradewind = Tradewind::start(&plain);
    assert_eq!(tradewind.backend("b")["load"], Value::Null);
    let asked = Config::new(&[]).backend("b", &b.url(), OWN_METRICS).price_file(&prices);
    tradewind.put("t.toml", &asked.text());
    eventually("the report is there", || reported(&tradewind, "b")["queued"] == 7.0);
    tradewind.put("t.toml", &plain.text());
    eventually("it is asked no more", || tradewind.backend("b")["load"] == Value::Null);
}

#[test]
fn a_notice_moves_traffic_at_once_and_it_comes_back() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    // Twelve requests a second are ready at each, and paid whatever the load; a is the one to be.
    let table = |backend: &Backend| {
        format!(
            "url = \"{}\"\ncloud = \"aws\"\nregion = \"{}\"\nnode = {{ instance_type = \"node\", spot = \"100%\" }}\n\
             replicas = {{ min = 12, max = 12, rps = 1, cold_start = \"2s\" }}\n\
             probe = {{ path = \"/health\", interval = \"300ms\", timeout = \"300ms\", fall = 3, rise = 2 }}",
            backend.url(),
            if backend.name == "a" { "us-east-1" } else { "us-west-2" }
        )
    };
    let rows = "at,cloud,region,zone,instance_type,offer,usd_per_hour\n\
                2026-01-01T00:00:00Z,aws,us-east-1,,node,spot,3.6\n2026-01-01T00:00:00Z,aws,us-west-2,,node,spot,7.2\n\
                2026-01-01T00:00:00Z,aws,us-east-1,,node,on_demand,9\n2026-01-01T00:00:00Z,aws,us-west-2,,node,on_demand,9\n";
    let config = Config::new(&[]).table("a", &table(&a)).table("b", &table(&b)).price_file(rows);
    let tradewind = Tradewind::start(&config);
    tradewind.wait_for_share("a", 1.0);
    let load = Load::start(tradewind.http, &["GET"], Duration::from_millis(100));
    eventually("the demand is seen", || {
        tradewind.json("/v1/status")["routes"][0]["demand_rps"].as_f64() > Some(6.0)
    });
    assert_eq!(tradewind.share("a"), 1.0);

    let at = (Timestamp::now() + Duration::from_secs(2)).to_string();
    let notice = json!({ "backend": "a", "kind": "spot-interruption", "lost": 0.5, "at": at, "id": "e-1" });
    let (status, receipt) = tradewind.call("POST", "/v1/notices", Some(notice));
    assert_eq!(status, 202, "{receipt}");
    let notice = json!({ "backend": "a", "kind": "spot-interruption", "lost": 0.5, "at": at, "id": "e-2" });
    tradewind.call("POST", "/v1/notices", Some(notice));
    // A quarter is left of twelve requests a second.
    let explained = until("a part moves", || {
        let explained = tradewind.explain();
        let a = &explained["decision"]["backends"][0];
        (a["share"].as_f64() < Some(0.75) && a["ready_rps"] == 3.0).then_some(explained)
    });
    assert_eq!(explained["load"][0]["leaving"], 0.75, "{explained}");
    assert_eq!(explained["decision"]["backends"][0]["limited_by"], "leaving");
    assert_eq!(explained["decision"]["backends"][0]["target"], 1.0, "it is to come back");
    assert_eq!(
        explained["binding"].as_str().map(|text| text.contains("nodes of it go away")),
        Some(true),
        "{explained}"
    );
    assert!(tradewind.metric("tradewind_backend_leaving{backend=\"a\"}").is_some());

    tradewind.wait_for_share("a", 1.0);
    assert_eq!(tradewind.backend("a")["load"], Value::Null, "the nodes are replaced");
    let failures = harness::load::failures(&load.finish());
    assert!(failures.is_empty(), "{failures:?}");
}
