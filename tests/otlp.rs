//! Spans, metrics and log records reach a collector, as protocol buffers or as JSON, and nothing that a collector does is in the way of
//! a request. What arrives is read by the messages that the OpenTelemetry project publishes.

mod harness;

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use harness::{Backend, Client, Config, Tradewind, cli, eventually, put, stdout, until};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest,
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::{HistogramDataPoint, Metric, metric::Data, number_data_point::Value as Number},
    trace::v1::Span,
};
use prost::Message;

/// A header whose value has a space in it, as those of collectors have.
const KEY: &str = "Bearer the canary-secret";

/// What a collector was sent so far.
#[derive(Default)]
struct Sent {
    spans: Vec<Span>,
    /// The last ones.
    metrics: Vec<Metric>,
    records: Vec<LogRecord>,
}

fn collector(json: bool) -> (Backend, Arc<Mutex<Sent>>) {
    let sent: Arc<Mutex<Sent>> = Arc::default();
    let seen = sent.clone();
    let collector = Backend::serving("collector", move |call| {
        let kind = if json { "application/json" } else { "application/x-protobuf" };
        assert_eq!((call.method.as_str(), call.header("content-type")), ("POST", Some(kind)));
        assert_eq!(call.header("authorization"), Some(KEY));
        let body = call.body()?;
        let mut seen = seen.lock().unwrap();
        match call.path.as_str() {
            "/v1/traces" => {
                let request: ExportTraceServiceRequest = read(json, &body);
                let [of] = &request.resource_spans[..] else { panic!("{request:?}") };
                identified(&of.resource.as_ref().unwrap().attributes);
                seen.spans.extend(of.scope_spans[0].spans.clone());
            }
            "/v1/metrics" => {
                let request: ExportMetricsServiceRequest = read(json, &body);
                let [of] = &request.resource_metrics[..] else { panic!("{request:?}") };
                identified(&of.resource.as_ref().unwrap().attributes);
                seen.metrics = of.scope_metrics[0].metrics.clone();
            }
            "/v1/logs" => {
                let request: ExportLogsServiceRequest = read(json, &body);
                let [of] = &request.resource_logs[..] else { panic!("{request:?}") };
                identified(&of.resource.as_ref().unwrap().attributes);
                seen.records.extend(of.scope_logs[0].log_records.clone());
            }
            other => panic!("{other} is no path of a collector"),
        }
        drop(seen);
        call.answer(200, &[("content-type", kind)], if json { b"{}" } else { b"" })
    });
    (collector, sent)
}

fn read<M: Message + Default + serde::de::DeserializeOwned>(json: bool, body: &[u8]) -> M {
    if json { serde_json::from_slice(body).unwrap() } else { M::decode(body).unwrap() }
}

fn identified(attributes: &[KeyValue]) {
    assert_eq!(text(attributes, "service.name"), "tradewind");
    assert_eq!(text(attributes, "service.instance.id").len(), 32);
}

/// The value of an attribute, as text.
fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let found = found.unwrap_or_else(|| panic!("there is no {key} in {attributes:?}"));
    match found.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    }
}

/// The points of a histogram; none if it is not there.
fn histogram<'m>(metrics: &'m [Metric], name: &str) -> &'m [HistogramDataPoint] {
    let Some(metric) = metrics.iter().find(|metric| metric.name == name) else { return &[] };
    let Some(Data::Histogram(of)) = &metric.data else { panic!("{metric:?}") };
    for point in &of.data_points {
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
        assert!(point.time_unix_nano > point.start_time_unix_nano && point.start_time_unix_nano > 0);
    }
    &of.data_points
}

/// The attributes of the points of a histogram, one line for each, and how many values each has.
fn lines(metrics: &[Metric], name: &str) -> Vec<String> {
    let line = |point: &HistogramDataPoint| {
        let mut words: Vec<String> = point
            .attributes
            .iter()
            .map(|attribute| format!("{}={}", attribute.key, text(&point.attributes, &attribute.key)))
            .collect();
        words.sort();
        format!("{} {}", point.count, words.join(" "))
    };
    let mut lines: Vec<String> = histogram(metrics, name).iter().map(line).collect();
    lines.sort();
    lines
}

/// The sum of all points of a metric.
fn sum(metrics: &[Metric], name: &str) -> f64 {
    let Some(metric) = metrics.iter().find(|metric| metric.name == name) else { return 0.0 };
    let points = match &metric.data {
        Some(Data::Sum(of)) => &of.data_points,
        Some(Data::Gauge(of)) => &of.data_points,
        other => panic!("{other:?}"),
    };
    let value = |number: &Option<Number>| match number {
        Some(Number::AsInt(whole)) => *whole as f64,
        Some(Number::AsDouble(decimal)) => *decimal,
        None => panic!("{metric:?}"),
    };
    points.iter().map(|point| value(&point.value)).sum()
}

fn start(backend: &Backend, endpoint: &str, more: &str) -> (tempfile::TempDir, Tradewind) {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "key", &format!("{KEY}\n"));
    let otlp = format!(
        "[telemetry.otlp]\nendpoint = \"{endpoint}\"\nsample = \"100%\"\ninterval = \"1s\"\n\
         headers = {{ authorization = {{ file = \"key\" }} }}\n{more}"
    );
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(backend, 1.0)]).listen(&otlp));
    (dir, tradewind)
}

fn everything_arrives(json: bool) {
    let (collector, sent) = collector(json);
    let a = Backend::named("a");
    let protocol = if json { "protocol = \"http/json\"" } else { "" };
    let (_dir, mut tradewind) = start(&a, &collector.url(), protocol);
    let mut client = Client::new(tradewind.http);
    for _ in 0..3 {
        assert_eq!(client.request("GET", "/x", &[], b"").unwrap().status, 200);
    }
    eventually("the metrics have them", || {
        let sent = sent.lock().unwrap();
        let of = "3 http.request.method=GET http.response.status_code=200 http.route=chat network.protocol.version=1.1 \
                  tradewind.backend=a tradewind.route=chat url.scheme=http";
        lines(&sent.metrics, "http.server.request.duration") == [of]
    });
    eventually("the spans are there", || sent.lock().unwrap().spans.len() == 3);
    eventually("what is logged is there", || {
        sent.lock().unwrap().records.iter().any(|record| {
            let body = record.body.as_ref().and_then(|body| body.value.clone());
            body == Some(Value::StringValue("serving".into()))
                && text(&record.attributes, "http") == tradewind.http.to_string()
        })
    });
    eventually("what arrived is counted", || {
        let exported = |signal: &str| {
            tradewind.metric(&format!("tradewind_otlp_exported_total{{signal=\"{signal}\"}}")).unwrap()
        };
        exported("spans") == 3.0 && exported("metric_points") > 10.0 && exported("log_records") > 0.0
    });
    {
        let sent = sent.lock().unwrap();
        let span = &sent.spans[0];
        assert_eq!((span.trace_id.len(), span.span_id.len(), span.kind), (16, 8, 2), "{span:?}");
        assert_eq!(text(&span.attributes, "tradewind.backend"), "a");
        let severities: Vec<&str> = sent.records.iter().map(|record| &*record.severity_text).collect();
        assert!(severities.contains(&"INFO"), "{severities:?}");
        assert_eq!(lines(&sent.metrics, "tradewind_request_duration_seconds"), ["3 backend=a route=chat"]);
        assert!(
            histogram(&sent.metrics, "gen_ai.server.time_to_first_token").is_empty(),
            "no model was asked"
        );
        assert_eq!(sum(&sent.metrics, "tradewind_requests"), 3.0);
        assert_eq!(sum(&sent.metrics, "tradewind_backend_share"), 1.0);
    }
    let shown = cli(&["config", "show"], &format!("http://{}", tradewind.admin));
    assert!(stdout(&shown).contains("authorization") && !stdout(&shown).contains("canary"), "{shown:?}");
    // What happens last is sent before the process ends.
    assert_eq!(client.request("GET", "/last", &[], b"").unwrap().status, 200);
    drop(client);
    tradewind.signal("TERM");
    until("it ends", || tradewind.ended());
    let sent = sent.lock().unwrap();
    assert_eq!(text(&sent.spans.last().unwrap().attributes, "url.path"), "/last");
    assert_eq!(sum(&sent.metrics, "tradewind_requests"), 4.0);
    assert!(!tradewind.log().contains("canary"));
    let said = format!("{:?}{:?}{:?}", sent.spans, sent.metrics, sent.records);
    assert!(!said.contains("canary"));
}

#[test]
fn everything_arrives_as_protocol_buffers() {
    everything_arrives(false);
}

#[test]
fn everything_arrives_as_json() {
    everything_arrives(true);
}

#[test]
fn a_collector_that_never_answers_is_in_nobodys_way() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = Backend::named("a");
    let (_dir, mut tradewind) = start(&a, &format!("http://{}", silent.local_addr().unwrap()), "");
    let mut client = Client::new(tradewind.http);
    for _ in 0..20 {
        assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, 200);
    }
    drop(client);
    eventually("what it does not take is counted as lost", || {
        let lost = tradewind.metric("tradewind_otlp_lost_total{signal=\"spans\",reason=\"export\"}");
        lost == Some(20.0)
    });
    tradewind.signal("TERM");
    until("it ends all the same", || tradewind.ended());
    assert!(tradewind.log().contains("the collector did not take the last"), "{}", tradewind.log());
}

#[test]
fn only_what_is_asked_for_is_sent() {
    let (collector, sent) = collector(false);
    let a = Backend::named("a");
    let (_dir, tradewind) = start(&a, &collector.url(), "signals = [\"metrics\"]");
    assert_eq!(Client::new(tradewind.http).request("GET", "/", &[], b"").unwrap().status, 200);
    eventually("metrics arrive", || sum(&sent.lock().unwrap().metrics, "tradewind_requests") == 1.0);
    let sent = sent.lock().unwrap();
    assert!(sent.spans.is_empty() && sent.records.is_empty());
}

/// A backend that has models: it says how many tokens it took, has a bad day for `/bad`, and is gone for `/cut`.
fn models() -> Backend {
    Backend::serving("a", |call| {
        call.body()?;
        match call.path.as_str() {
            "/bad" => call.answer(503, &[], b"no"),
            "/cut" => {
                call.begin("text/plain")?;
                call.chunk(b"begun")?;
                call.cut()
            }
            _ => {
                let usage = br#"{"usage":{"prompt_tokens":100,"completion_tokens":7}}"#;
                call.answer(200, &[("content-type", "application/json")], usage)
            }
        }
    })
}

#[test]
fn requests_are_told_apart_as_the_conventions_have_it() {
    let (collector, sent) = collector(false);
    let a = models();
    let (_dir, tradewind) = start(&a, &collector.url(), "");
    let ask = |method: &str, path: &str| {
        let _ = Client::new(tradewind.http).request(method, path, &[], b"");
    };
    ask("GET", "/x");
    // A client chooses words as it likes, and none of them becomes a series.
    ask("BREW", "/x");
    ask("STIR", "/x");
    ask("POST", "/bad");
    ask("GET", "/cut");
    let of = "network.protocol.version=1.1 tradewind.backend=a tradewind.route=chat url.scheme=http";
    let expected = [
        format!(
            "1 error.type=503 http.request.method=POST http.response.status_code=503 http.route=chat {of}"
        ),
        format!(
            "1 error.type=broken_off http.request.method=GET http.response.status_code=200 http.route=chat {of}"
        ),
        format!("1 http.request.method=GET http.response.status_code=200 http.route=chat {of}"),
        format!("2 http.request.method=_OTHER http.response.status_code=200 http.route=chat {of}"),
    ];
    eventually("all of them are counted", || {
        lines(&sent.lock().unwrap().metrics, "http.server.request.duration") == expected
    });
    eventually("nothing is under way any more", || {
        let sent = sent.lock().unwrap();
        let named = sent.metrics.iter().any(|metric| metric.name == "http.server.active_requests");
        named && sum(&sent.metrics, "http.server.active_requests") == 0.0
    });
    let sent = sent.lock().unwrap();
    let active = sent.metrics.iter().find(|metric| metric.name == "http.server.active_requests").unwrap();
    let Some(Data::Sum(of)) = &active.data else { panic!("{active:?}") };
    assert!(!of.is_monotonic && of.data_points.len() == 3, "{of:?}");
    let bounds = &histogram(&sent.metrics, "http.server.request.duration")[0].explicit_bounds;
    assert_eq!(bounds[..], [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]);
}

#[test]
fn what_models_are_asked_for_is_told_as_the_conventions_have_it() {
    let (collector, sent) = collector(false);
    let a = models();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "key", &format!("{KEY}\n"));
    let otlp = format!(
        "[telemetry.otlp]\nendpoint = \"{}\"\ninterval = \"1s\"\nsignals = [\"metrics\"]\n\
         headers = {{ authorization = {{ file = \"key\" }} }}\n",
        collector.url()
    );
    let config = Config::new(&[(&a, 1.0)]).listen(&otlp);
    let route = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\"]\nmodels = { fast = \"vendor/fast-8b\" }";
    let config = config.routes(route);
    let tradewind = Tradewind::start_in(dir.path(), &config);
    let mut client = Client::new(tradewind.http);
    let json = [("content-type", "application/json")];
    for model in ["fast", "fast", "whatever-a-client-likes", "and-another"] {
        let body = format!("{{\"model\":\"{model}\"}}");
        let answer = client.request("POST", "/v1/chat/completions", &json, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
    }
    let of = "gen_ai.operation.name=chat gen_ai.provider.name=openai";
    let (named, at) = (
        "gen_ai.request.model=fast gen_ai.response.model=vendor/fast-8b",
        "tradewind.backend=a tradewind.route=chat",
    );
    let expected = [
        format!("2 {of} {named} gen_ai.token.type=input {at}"),
        format!("2 {of} {named} gen_ai.token.type=output {at}"),
        format!("2 {of} gen_ai.token.type=input {at}"),
        format!("2 {of} gen_ai.token.type=output {at}"),
    ];
    eventually("their tokens are counted", || {
        lines(&sent.lock().unwrap().metrics, "gen_ai.client.token.usage") == expected
    });
    let sent = sent.lock().unwrap();
    for name in ["gen_ai.server.request.duration", "gen_ai.server.time_to_first_token"] {
        assert_eq!(
            lines(&sent.metrics, name),
            [format!("2 {of} {named} {at}"), format!("2 {of} {at}")],
            "{name}"
        );
    }
    let tokens = histogram(&sent.metrics, "gen_ai.client.token.usage");
    assert_eq!(tokens.iter().filter_map(|point| point.sum).sum::<f64>(), 4.0 * 107.0);
    assert_eq!(tokens[0].explicit_bounds[..3], [1.0, 4.0, 16.0]);
    let first = histogram(&sent.metrics, "gen_ai.server.time_to_first_token");
    assert_eq!((first[0].explicit_bounds[0], first[0].explicit_bounds.len()), (0.001, 16));
}

/// A collector that rejects one piece of whatever it is sent.
fn choosy(json: bool) -> Backend {
    Backend::serving("collector", move |call| {
        call.body()?;
        if json {
            let field = match call.path.as_str() {
                "/v1/traces" => "rejectedSpans",
                "/v1/metrics" => "rejectedDataPoints",
                _ => "rejectedLogRecords",
            };
            let said =
                format!("{{\"partialSuccess\":{{\"{field}\":\"1\",\"errorMessage\":\"one is odd\"}}}}");
            return call.answer(200, &[("content-type", "application/json")], said.as_bytes());
        }
        // The three messages are alike.
        let why = "one is odd".to_owned();
        let said = ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: why }),
        };
        call.answer(200, &[("content-type", "application/x-protobuf")], &said.encode_to_vec())
    })
}

#[test]
fn what_a_collector_rejects_is_counted_and_told_once() {
    for json in [false, true] {
        let (collector, a) = (choosy(json), Backend::named("a"));
        let protocol = if json { "protocol = \"http/json\"" } else { "" };
        let (_dir, mut tradewind) = start(&a, &collector.url(), protocol);
        let mut client = Client::new(tradewind.http);
        for round in 1..=2 {
            for _ in 0..3 {
                assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, 200);
            }
            eventually("what was rejected is counted, and the rest was taken", || {
                let count = |series: &str| tradewind.metric(series).unwrap();
                let rejected = count("tradewind_otlp_lost_total{signal=\"spans\",reason=\"rejected\"}");
                let taken = count("tradewind_otlp_exported_total{signal=\"spans\"}");
                rejected >= f64::from(round) && taken + rejected == f64::from(3 * round)
            });
        }
        let lost = |signal: &str, reason: &str| {
            let series = format!("tradewind_otlp_lost_total{{signal=\"{signal}\",reason=\"{reason}\"}}");
            tradewind.metric(&series).unwrap()
        };
        eventually("metrics and logs, too", || {
            lost("metric_points", "rejected") >= 2.0 && lost("log_records", "rejected") >= 1.0
        });
        assert_eq!((lost("spans", "export"), lost("spans", "queue")), (0.0, 0.0));
        drop(client);
        tradewind.signal("TERM");
        until("it ends", || tradewind.ended());
        let log = tradewind.log();
        let said: Vec<&str> = log.lines().filter(|line| line.contains("one is odd")).collect();
        for what in ["spans", "metrics", "log records"] {
            let of: Vec<_> =
                said.iter().filter(|line| line.contains(&format!(" {what}: one is odd"))).collect();
            assert_eq!(of.len(), 1, "{what}: {said:?}");
        }
    }
}
