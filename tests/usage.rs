//! What requests took: tokens as answers say or estimated, dollars that add up to the accounts, and the access log.

mod harness;

use std::{fs, path::Path, time::Duration};

use harness::{Backend, Config, Tradewind, eventually, throughout, until};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A server in the shape of the OpenAI API that answers as its model says.
fn server() -> Backend {
    Backend::serving("llm", |call| {
        let request: Value = serde_json::from_slice(&call.body()?).unwrap_or_default();
        let usage = |output: u64| json!({ "prompt_tokens": 7, "completion_tokens": output });
        let event =
            |usage: Value| format!("data: {}\n\n", json!({ "choices": [{ "delta": {} }], "usage": usage }));
        match request["model"].as_str().unwrap_or_default() {
            "stream" | "quiet" | "broken" => {
                let model = request["model"].clone();
                call.begin("text/event-stream")?;
                for _ in 0..5 {
                    call.chunk(event(Value::Null).as_bytes())?;
                }
                match model.as_str() {
                    Some("broken") => return call.cut(),
                    Some("stream") => call.chunk(event(usage(50)).as_bytes())?,
                    _ => {}
                }
                call.chunk(b"data: [DONE]\n\n")?;
                call.end()
            }
            "packed" => {
                let headers = [JSON, ("content-encoding", "gzip")];
                call.answer(200, &headers, &[0x1f; 400])
            }
            "refused" => call.answer(400, &[JSON], json!({ "usage": usage(9) }).to_string().as_bytes()),
            "picture" => call.answer(200, &[("content-type", "image/png")], &[0; 400]),
            "long" => call.answer(200, &[JSON], json!({ "usage": usage(93) }).to_string().as_bytes()),
            _ => call.answer(200, &[JSON], json!({ "usage": usage(5) }).to_string().as_bytes()),
        }
    })
}

fn ask(tradewind: &Tradewind, model: &str) {
    let body = json!({ "model": model, "messages": [] }).to_string();
    // A stream that breaks off is an error to the client.
    let _ = tradewind.client().request("POST", "/v1/chat/completions?key=hunter2", &[JSON], body.as_bytes());
}

fn tokens(tradewind: &Tradewind, kind: &str, source: &str) -> f64 {
    let series = format!(
        "tradewind_tokens_total{{route=\"chat\",backend=\"llm\",kind=\"{kind}\",source=\"{source}\"}}"
    );
    tradewind.metric(&series).unwrap_or_default()
}

#[test]
fn tokens_are_those_that_answers_say_and_estimated_where_they_say_none() {
    let server = server();
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]));
    let counted = |kind| (tokens(&tradewind, kind, "reported"), tokens(&tradewind, kind, "estimated"));
    ask(&tradewind, "plain");
    eventually("a document is counted", || (counted("input"), counted("output")) == ((7.0, 0.0), (5.0, 0.0)));
    ask(&tradewind, "stream");
    eventually("the last event is counted", || counted("output") == (55.0, 0.0));
    ask(&tradewind, "quiet");
    eventually("each event is a token", || counted("output") == (55.0, 6.0) && counted("input").1 > 5.0);
    ask(&tradewind, "broken");
    eventually("what came before the break is", || counted("output") == (55.0, 11.0));
    ask(&tradewind, "packed");
    eventually("four bytes are a token", || counted("output") == (55.0, 111.0));
    for model in ["refused", "picture"] {
        ask(&tradewind, model);
    }
    tradewind.fetch("/v1/models");
    throughout(Duration::from_millis(300), || assert_eq!(counted("output"), (55.0, 111.0)));
}

#[test]
fn nothing_is_counted_where_it_is_switched_off() {
    let server = server();
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]).listen("count_tokens = false"));
    ask(&tradewind, "plain");
    let cost = "tradewind_request_cost_usd_total{route=\"chat\",backend=\"llm\"}";
    // Every request is an average one then.
    eventually("it is priced", || tradewind.metric(cost).is_some_and(|usd| usd > 0.0));
    assert_eq!(tokens(&tradewind, "output", "reported") + tokens(&tradewind, "output", "estimated"), 0.0);
}

#[test]
fn requests_cost_by_their_tokens_and_add_up_to_the_accounts() {
    let server = server();
    let routes = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"llm\"]\nmodels = { short = \"a\", deep = \"long\" }";
    let tradewind = Tradewind::start(&Config::new(&[(&server, 36.0)]).routes(routes));
    let cost = |by: &str| tradewind.metric(&format!("tradewind_{by}}}")).unwrap_or_default();
    let of = |model: &str| cost(&format!("model_cost_usd_total{{route=\"chat\",model=\"{model}\""));
    // 12 tokens and 100.
    let serve = |count| (0..count).for_each(|n| ask(&tradewind, if n % 2 == 0 { "short" } else { "deep" }));
    serve(20);
    eventually("a short one costs less than an average one", || {
        let before = of("short");
        ask(&tradewind, "short");
        eventually("it is counted", || of("short") > before);
        of("short") - before < 0.0005
    });
    let all = "requests_total{route=\"chat\",backend=\"llm\",code=\"200\"";
    let counted = || eventually("all are counted", || cost(all) == server.requests() as f64);
    counted();
    let before = (of("short"), of("deep"));
    serve(200);
    ask(&tradewind, "nobody-knows-it");
    counted();
    let (short, deep) = (of("short") - before.0, of("deep") - before.1);
    assert!((deep / short / (100.0 / 12.0) - 1.0).abs() < 0.1, "{deep} and {short}");

    let accounts = || cost("cost_usd_total{route=\"chat\",backend=\"llm\"");
    eventually("all are accounted", || accounts() > 0.95 * server.requests() as f64 * 0.001);
    let spent = cost("request_cost_usd_total{route=\"chat\",backend=\"llm\"");
    assert!((spent / accounts() - 1.0).abs() < 0.15, "{spent} beside {}", accounts());
    assert!((of("short") + of("deep") + of("other") - spent).abs() < 1e-9);
    assert!(!tradewind.get("/metrics").unwrap().text().contains("nobody-knows-it"));
}

/// The lines of the access log.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn each_request_is_a_line_in_the_access_log() {
    let server = server();
    let routes = "[log.access]\nfile = \"access.log\"\n[routes.chat]\nmatch = { path = \"/v1/*\" }\nbackends = [\"llm\"]\n\
                  models = { said = \"stream\" }";
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]).routes(routes));
    let log = tradewind.dir().join("access.log");
    let secret = [("authorization", "Bearer hunter2"), ("cookie", "hunter2"), ("x-request-id", "mine")];
    tradewind.client().request("GET", "/other?key=hunter2", &secret, b"").unwrap();
    ask(&tradewind, "said");
    ask(&tradewind, "broken");
    let seen = until("three lines", || Some(lines(&log)).filter(|lines| lines.len() == 3));
    let known = |line: &Value, keys: &[&str]| keys.iter().map(|key| line[*key].clone()).collect::<Vec<_>>();
    assert_eq!(
        known(&seen[0], &["method", "path", "status", "error", "request_id", "client", "attempts", "route"]),
        [
            json!("GET"),
            json!("/other"),
            json!(404),
            json!("no_route"),
            json!("mine"),
            json!("127.0.0.1"),
            json!(0),
            json!(null)
        ]
    );
    assert_eq!(
        known(
            &seen[1],
            &["route", "backend", "model", "status", "input_tokens", "output_tokens", "tokens", "attempts"]
        ),
        [
            json!("chat"),
            json!("llm"),
            json!("said"),
            json!(200),
            json!(7),
            json!(50),
            json!("reported"),
            json!(1)
        ]
    );
    assert!(seen[1]["duration_ms"].as_f64() >= seen[1]["first_byte_ms"].as_f64() && seen[1]["usd"].is_f64());
    assert_eq!(
        known(&seen[2], &["model", "error", "tokens"]),
        [json!("other"), json!("broken_off"), json!("estimated")]
    );
    assert!(!fs::read_to_string(&log).unwrap().contains("hunter2"));

    let moved = tradewind.dir().join("access.log.1");
    fs::rename(&log, &moved).unwrap();
    tradewind.signal("HUP");
    eventually("there is a new file", || log.exists());
    ask(&tradewind, "plain");
    eventually("the next line is in it", || lines(&log).len() == 1);
    assert_eq!((lines(&moved).len(), tradewind.metric("tradewind_access_log_lost_total{}")), (3, Some(0.0)));
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let server = server();
    let config = Config::new(&[(&server, 1.0)]).admin("[log.access]\nfile = \"access.log\"");
    let mut tradewind = Tradewind::start(&config);
    for _ in 0..50 {
        ask(&tradewind, "plain");
    }
    tradewind.signal("TERM");
    eventually("it ends", || tradewind.ended().is_some());
    assert_eq!(lines(&tradewind.dir().join("access.log")).len(), 50);
}
