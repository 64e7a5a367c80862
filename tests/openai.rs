//! The `openai` clients, for Python and for Node, work through Tradewind unchanged. `make test` provides them; see scripts/setup.sh.

mod harness;

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use harness::{Backend, Config, Tradewind, backend::Call, node, pause, python};
use serde_json::{Value, json};

const WORDS: [&str; 5] = ["From", " the", " east,", " all", " year."];

/// Runs a scenario of both clients against Tradewind.
fn passes(scenario: &str, base_url: &str) {
    python::passes("openai/client.py", scenario, &[base_url]);
    node::passes("openai/client.cjs", scenario, &[base_url]);
}

fn base_url(tradewind: &Tradewind) -> String {
    format!("http://{}/v1", tradewind.http)
}

/// A server in the shape of the OpenAI API.
fn server() -> Backend {
    let (flaky, later) = (AtomicU64::new(0), AtomicU64::new(0));
    Backend::serving("llm", move |call| {
        let body = call.body()?;
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (&*call.path, request["model"].as_str().unwrap_or_default()) {
            ("/v1/models", _) => {
                let model = json!({ "id": "trade-1", "object": "model", "created": 0, "owned_by": "tests" });
                answer(call, 200, &json!({ "object": "list", "data": [model] }))
            }
            ("/v1/embeddings", _) => {
                let vector = json!({ "object": "embedding", "index": 0, "embedding": [0.25, -0.5] });
                let usage = json!({ "prompt_tokens": 1, "total_tokens": 1 });
                answer(
                    call,
                    200,
                    &json!({ "object": "list", "model": "trade-1", "data": [vector], "usage": usage }),
                )
            }
            (_, "busy") => refuse(call, 429, "rate_limit_exceeded"),
            (_, "unknown") => refuse(call, 404, "model_not_found"),
            (_, "flaky") if flaky.fetch_add(1, SeqCst) % 3 < 2 => refuse(call, 500, "odd"),
            (_, "later") => match later.fetch_add(1, SeqCst) % 3 {
                0 => call.answer(429, &[("retry-after", "1")], b"{}"),
                1 => call.answer(503, &[("retry-after", "1")], b"{}"),
                _ => complete(call),
            },
            (_, model) if request["stream"] == true => stream(call, model == "broken"),
            _ => complete(call),
        }
    })
}

fn answer(call: &mut Call, status: u16, body: &Value) -> io::Result<()> {
    call.answer(status, &[("content-type", "application/json")], body.to_string().as_bytes())
}

fn refuse(call: &mut Call, status: u16, code: &str) -> io::Result<()> {
    let error = json!({ "message": "as the test wants it", "type": "test", "param": null, "code": code });
    answer(call, status, &json!({ "error": error }))
}

fn usage() -> Value {
    json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 })
}

fn complete(call: &mut Call) -> io::Result<()> {
    let message = json!({ "role": "assistant", "content": WORDS.concat() });
    let choice = json!({ "index": 0, "finish_reason": "stop", "message": message });
    let completion = json!({
        "id": "c-1", "object": "chat.completion", "created": 0, "model": "trade-1", "choices": [choice], "usage": usage()
    });
    answer(call, 200, &completion)
}

fn stream(call: &mut Call, broken: bool) -> io::Result<()> {
    call.begin("text/event-stream")?;
    let event = |call: &mut Call, choices: Value, usage: Value| {
        let chunk = json!({
            "id": "c-1", "object": "chat.completion.chunk", "created": 0, "model": "trade-1", "choices": choices,
            "usage": usage
        });
        call.chunk(format!("data: {chunk}\n\n").as_bytes())
    };
    for word in WORDS {
        let choice =
            json!({ "index": 0, "finish_reason": null, "delta": { "role": "assistant", "content": word } });
        event(call, json!([choice]), Value::Null)?;
        pause(Duration::from_millis(20));
        if broken {
            return call.cut();
        }
    }
    event(call, json!([]), usage())?;
    call.chunk(b"data: [DONE]\n\n")?;
    call.end()
}

#[test]
fn completions_streams_models_and_embeddings_work() {
    let server = server();
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]));
    passes("answers", &base_url(&tradewind));
}

#[test]
fn errors_and_broken_streams_of_a_backend_are_raised() {
    let server = server();
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]));
    passes("errors", &base_url(&tradewind));
}

#[test]
fn clients_try_again_when_the_backend_says() {
    let server = server();
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]));
    passes("retries", &base_url(&tradewind));
}

#[test]
fn tenants_are_refused_as_the_api_refuses_and_tokens_are_those_that_the_client_sees() {
    let server = server();
    let key = tradewind::model::Digest::of(b"sk-test");
    let routes = format!(
        "[routes.chat]\nmatch = {{ path = \"/v1/*\" }}\nbackends = [\"llm\"]\n[tenants.acme]\n\
         keys = [{{ sha256 = \"{key}\" }}]\nmodels = [\"trade-*\"]\nrequests_per_minute = 2"
    );
    let config = Config::new(&[(&server, 1.0)]).listen("authentication = \"required\"").routes(&routes);
    let tradewind = Tradewind::start(&config);
    // By one client, since it uses up what the tenant has.
    python::passes("openai/client.py", "tenants", &[&base_url(&tradewind)]);
    let tokens = |kind: &str| {
        let series = "tradewind_tenant_tokens_total{tenant=\"acme\"";
        tradewind.metric(&format!("{series},kind=\"{kind}\",source=\"reported\"}}")).unwrap_or_default()
    };
    harness::eventually("tokens of all answers are counted", || {
        let answers = server.requests() as f64;
        (tokens("input"), tokens("output")) == (7.0 * answers, 5.0 * answers)
    });
}

#[test]
fn refusals_of_tradewind_are_raised_as_errors_of_the_api() {
    let server = server();
    let routes = "[routes.chat]\nmatch = { path = \"/v1/*\" }\nbackends = [\"llm\"]";
    let tradewind = Tradewind::start(&Config::new(&[(&server, 1.0)]).routes(routes));
    server.set_healthy(false);
    tradewind.wait_for_reason("nothing_eligible");
    passes("refusals", &base_url(&tradewind));
    passes("no_route", &format!("http://{}/v2", tradewind.http));
}
