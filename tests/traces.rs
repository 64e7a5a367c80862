//! A sampled request has one span, which goes on the trace of its client and is told to its backend; who collects it is in nobody's
//! way.

mod harness;

use std::sync::{Arc, Mutex};

use harness::{Answer, Backend, Client, Config, Tradewind, eventually, put, until};
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a server has seen so far.
type Seen<T> = Arc<Mutex<Vec<T>>>;

/// A collector, and what it was sent: the values of its header `x-api-key`, and the spans.
fn collector() -> (Backend, Seen<String>, Seen<Value>) {
    let (keys, spans): (Seen<String>, Seen<Value>) = Default::default();
    let (seen, taken) = (keys.clone(), spans.clone());
    let collector = Backend::serving("collector", move |call| {
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/otlp/v1/traces"));
        assert_eq!(call.header("content-type"), Some("application/json"));
        seen.lock().unwrap().push(call.header("x-api-key").unwrap_or_default().to_owned());
        let sent: Value = serde_json::from_slice(&call.body()?).unwrap();
        let resource = &sent["resourceSpans"][0];
        assert_eq!(text(&resource["resource"], "service.name"), "tradewind");
        taken.lock().unwrap().extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().iter().cloned());
        call.answer(200, &[("content-type", "application/json")], b"{}")
    });
    (collector, keys, spans)
}

/// The backend, and the `traceparent` of each of its requests.
fn traced_backend() -> (Backend, Seen<Option<String>>) {
    let told: Seen<Option<String>> = Arc::default();
    let seen = told.clone();
    let backend = Backend::serving("a", move |call| {
        seen.lock().unwrap().push(call.header("traceparent").map(str::to_owned));
        call.body()?;
        call.answer(if call.path == "/fail" { 500 } else { 200 }, &[], b"a")
    });
    (backend, told)
}

fn start(backend: &Backend, endpoint: &str, sample: &str) -> (tempfile::TempDir, Tradewind) {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "key", "collector-key\n");
    let otlp = format!(
        "expose_routing = true\n[telemetry]\notlp = {{ endpoint = \"{endpoint}/otlp\", sample = \"{sample}\", \
         protocol = \"http/json\", signals = [\"traces\"], \
         headers = {{ x-api-key = {{ file = \"key\" }} }} }}"
    );
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(backend, 1.0)]).listen(&otlp));
    (dir, tradewind)
}

fn send(tradewind: &Tradewind, path: &str, traceparent: Option<&str>) -> Answer {
    let headers: Vec<(&str, &str)> = traceparent.iter().map(|value| ("traceparent", *value)).collect();
    Client::new(tradewind.http).request("POST", path, &headers, b"{}").unwrap()
}

/// The value of an attribute, as text.
fn text(of: &Value, key: &str) -> String {
    let attributes = of["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let found = found.unwrap_or_else(|| panic!("there is no {key} in {of}"));
    let (_, value) = found["value"].as_object().unwrap().iter().next().unwrap();
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn a_span_goes_on_the_trace_of_its_client() {
    let (collector, keys, spans) = collector();
    let (a, told) = traced_backend();
    let (_dir, mut tradewind) = start(&a, &collector.url(), "0%");
    let parent = format!("00-{TRACE}-{PARENT}-01");
    send(&tradewind, "/v1/chat/completions", Some(&parent));
    let sent = until("the span is sent", || spans.lock().unwrap().first().cloned());
    assert_eq!((&sent["traceId"], &sent["parentSpanId"]), (&TRACE.into(), &PARENT.into()), "{sent}");
    assert_eq!((&sent["kind"], &sent["name"]), (&2.into(), &"POST chat".into()));
    let passed = told.lock().unwrap().last().cloned().flatten().expect("the backend is told");
    assert_eq!(passed, format!("00-{TRACE}-{}-01", sent["spanId"].as_str().unwrap()));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.path", "/v1/chat/completions"),
        ("url.scheme", "http"),
        ("tradewind.route", "chat"),
        ("tradewind.backend", "a"),
        ("client.address", "127.0.0.1"),
        ("gen_ai.operation.name", "chat"),
    ] {
        assert_eq!(text(&sent, key), value, "{sent}");
    }
    let nanos = |key: &str| sent[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanos("endTimeUnixNano") >= nanos("startTimeUnixNano"));
    assert_eq!(keys.lock().unwrap().first().map(String::as_str), Some("collector-key"));

    // By its time the decision is found in the journal.
    let decided = until("a span names its decision", || {
        send(&tradewind, "/fail", Some(&parent));
        let spans = spans.lock().unwrap();
        let last = spans.last()?;
        let named = last["attributes"]
            .as_array()?
            .iter()
            .any(|attribute| attribute["key"] == "tradewind.decision.at");
        named.then(|| last.clone())
    });
    let at = text(&decided, "tradewind.decision.at");
    let journal = tradewind.json(&format!("/v1/decisions?kind=decision&route=chat&since={at}&until={at}"));
    assert_eq!(journal["decisions"].as_array().unwrap().len(), 1, "{at}: {journal}");
    assert_eq!((&decided["status"]["code"], text(&decided, "error.type")), (&2.into(), "500".into()));

    // What the client does not keep has no span, and what it said is passed on.
    let count = spans.lock().unwrap().len();
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    send(&tradewind, "/", Some(&unsampled));
    assert_eq!(told.lock().unwrap().last().cloned().flatten(), Some(unsampled));
    send(&tradewind, "/", None);
    assert_eq!(told.lock().unwrap().last(), Some(&None));
    send(&tradewind, "/last", Some(&parent));
    // The last ones are sent before the process ends.
    tradewind.signal("TERM");
    until("it ends", || tradewind.ended());
    let spans = spans.lock().unwrap();
    assert!(spans.len() > count && text(spans.last().unwrap(), "url.path") == "/last", "{:?}", spans.last());
    assert!(spans.iter().all(|span| text(span, "url.path") != "/"));
    assert!(!tradewind.log().contains("collector-key"));
}

#[test]
fn a_collector_that_is_away_is_in_nobodys_way() {
    let (a, _told) = traced_backend();
    let (_dir, tradewind) = start(&a, "http://127.0.0.1:1", "100%");
    for _ in 0..20 {
        assert_eq!(send(&tradewind, "/", None).status, 200);
    }
    eventually("they are counted as lost", || {
        tradewind
            .metric("tradewind_otlp_lost_total{signal=\"spans\",reason=\"export\"}")
            .is_some_and(|lost| lost >= 20.0)
    });
    assert_eq!(tradewind.metric("tradewind_otlp_exported_total{signal=\"spans\"}"), Some(0.0));
    let said = tradewind.log().matches("the collector takes no spans").count();
    assert_eq!(said, 1, "an outage is one line");
}

#[test]
fn without_a_collector_there_are_no_spans() {
    let (a, told) = traced_backend();
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0)]));
    send(&tradewind, "/", None);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    send(&tradewind, "/", Some(&parent));
    assert_eq!(*told.lock().unwrap(), [None, Some(parent)]);
    assert_eq!(tradewind.metric("tradewind_otlp_exported_total{signal=\"spans\"}"), None);
}
