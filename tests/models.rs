//! Routes by model: the backend is asked for the model that the client asked for, whatever the size of the body, the
//! protocol and the number of attempts, and its body is otherwise the client's, byte for byte.

mod harness;

use std::io::{BufRead, BufReader, Write};

use harness::{
    Answer, Backend, Client, Config, Tradewind, client, eventually,
    http2::{self, ModernBackend, Speaks},
};
use hyper::body::Bytes;
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

/// What Tradewind may read of a body in these tests.
const PEEK_MAX: usize = 512 * 1024;

/// A backend that answers with its name, what it was told of the body, and the body.
fn mirror(name: &str) -> Backend {
    let own = name.to_owned();
    Backend::serving(name, move |call| {
        let told: Vec<Value> = ["content-length", "transfer-encoding", "expect", "x-model"]
            .map(|name| call.header(name).map_or(Value::Null, Value::from))
            .into();
        let body = String::from_utf8_lossy(&call.body()?).into_owned();
        call.answer(200, &[], json!({ "by": own, "told": told, "body": body }).to_string().as_bytes())
    })
}

fn route(name: &str, conditions: &str, more: &str) -> String {
    format!("[routes.{name}]\nmatch = {{ {conditions} }}\nbackends = [\"{name}\"]\n{more}\n")
}

fn start(backends: &[&Backend], routes: &[String]) -> Tradewind {
    let priced: Vec<(&Backend, f64)> = backends.iter().map(|backend| (*backend, 1.0)).collect();
    let config = Config::new(&priced).routes(&routes.concat());
    Tradewind::start(&config.listen("expose_routing = true\nbody_peek_max = \"512KiB\""))
}

/// Three backends, by model and for the rest.
fn three() -> ([Backend; 3], Tradewind) {
    let backends = ["llama", "mistral", "rest"].map(mirror);
    let routes = [
        route("llama", "path = \"/v1/*\", model = \"llama-*\"", ""),
        route("mistral", "path = \"/v1/*\", model = [\"mistral-7b\", \"mixtral\"]", ""),
        route("rest", "path = \"/v1/*\"", ""),
    ];
    let tradewind = start(&[&backends[0], &backends[1], &backends[2]], &routes);
    (backends, tradewind)
}

/// A request of the OpenAI API with a prompt of this length. The model comes last, as the SDK for Python writes it.
fn chat(model: &str, prompt_len: usize) -> String {
    let prompt = "tell \\\"me\\\" more, ".repeat(prompt_len.div_ceil(18));
    format!(r#"{{"messages":[{{"role":"user","content":"{prompt}"}}], "model": "{model}" }}"#)
}

fn ask(tradewind: &Tradewind, headers: &[(&str, &str)], body: &str) -> Value {
    let answer =
        tradewind.client().request("POST", "/v1/chat/completions", headers, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn the_model_in_the_body_decides() {
    let (_backends, tradewind) = three();
    let cases = [
        (chat("llama-3-8b", 10), "llama"),
        (chat("mistral-7b", 10), "mistral"),
        (chat("mixtral", 10), "mistral"),
        (chat("mixtral-8x7b", 10), "rest"),
        (chat("Llama-3-8b", 10), "rest"),
        (chat(r"ll\u0061ma-2", 10), "llama"),
        (r#"{"model":"mixtral","model":"llama-2"}"#.into(), "llama"),
        (r#"{"model":"llama-2","x":{"model":"mixtral"}}"#.into(), "llama"),
        (r#"{"model":"llama-2""#.into(), "rest"),
        (r#"{"model":5}"#.into(), "rest"),
        ("".into(), "rest"),
        ("not json".into(), "rest"),
    ];
    for (body, expected) in cases {
        let seen = ask(&tradewind, &[JSON], &body);
        assert_eq!((&seen["by"], &seen["body"]), (&expected.into(), &body.as_str().into()));
    }
    let plain = ask(&tradewind, &[("content-type", "text/plain")], &chat("llama-2", 1));
    assert_eq!(plain["by"], "rest", "only JSON is read");
    let named = ask(&tradewind, &[JSON, ("x-model", "mixtral")], &chat("llama-2", 1));
    assert_eq!(named["by"], "mistral", "a header counts before the body");
    let answer = tradewind.client().request("GET", "/v1/models", &[("x-model", "llama-2")], b"").unwrap();
    assert_eq!(answer.json()["by"], "llama");
}

#[test]
fn bodies_of_every_size_arrive_as_they_were_sent() {
    let (_backends, tradewind) = three();
    let sizes =
        [1, 4_000, 40_000, 65_000, 65_536, 70_000, 131_072, 300_000, PEEK_MAX - 100, PEEK_MAX + 1, 3_000_000];
    for size in sizes {
        let body = chat("llama-3-8b", size);
        let expected = if body.len() <= PEEK_MAX { "llama" } else { "rest" };
        let seen = ask(&tradewind, &[JSON], &body);
        assert_eq!(seen["by"], expected, "{size}");
        assert_eq!(seen["told"][0], body.len().to_string(), "{size}");
        assert!(seen["body"] == body, "the body of {size} bytes was changed");
    }
}

/// Sends a body in chunks of a size.
fn in_chunks(to: std::net::SocketAddr, body: &[u8], chunk: usize) -> Value {
    let mut stream = client::connect(to).unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for piece in body.chunks(chunk) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
        stream.write_all(piece).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut exchange = client::Exchange::read_head(BufReader::new(stream), "POST").unwrap();
    assert_eq!(exchange.status, 200);
    serde_json::from_slice(&exchange.rest().unwrap()).unwrap()
}

#[test]
fn a_body_without_a_length_is_read_up_to_48_kib() {
    let (_backends, tradewind) = three();
    for (size, expected) in [(10, "llama"), (40_000, "llama"), (200_000, "rest")] {
        let body = chat("llama-3-8b", size);
        for chunk in [1_000, 16_384, 65_536, 1_000_000] {
            let seen = in_chunks(tradewind.http, body.as_bytes(), chunk);
            assert_eq!(seen["by"], expected, "{size} in chunks of {chunk}");
            assert!(seen["body"] == body, "the body of {size} bytes in chunks of {chunk} was changed");
        }
    }
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on_once() {
    let (_backends, tradewind) = three();
    let body = chat("llama-3-8b", 100_000);
    let mut stream = BufReader::new(client::connect(tradewind.http).unwrap());
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes()).unwrap();
    let mut status = String::new();
    stream.read_line(&mut status).unwrap();
    assert!(status.starts_with("HTTP/1.1 100 "), "{status}");
    assert_eq!(stream.read_line(&mut String::new()).unwrap(), 2);
    stream.get_mut().write_all(body.as_bytes()).unwrap();
    status.clear();
    stream.read_line(&mut status).unwrap();
    assert!(status.starts_with("HTTP/1.1 200 "), "{status}");
    let headers = client::headers(&mut stream).unwrap();
    let mut answer = vec![0; client::find(&headers, "content-length").unwrap().parse().unwrap()];
    std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
    let seen: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((&seen["by"], &seen["told"][2]), (&"llama".into(), &Value::Null));
    assert!(seen["body"] == body);
}

#[test]
fn http2_clients_and_backends_see_the_same() {
    let (_backends, tradewind) = three();
    let modern = ModernBackend::serving(Speaks::H2c, |request| {
        let (sender, body) = http2::piped();
        tokio::spawn(async move {
            let text = http2::text(request.into_body()).await;
            // The client may be gone.
            let _ = sender.send(Ok(Bytes::from(text))).await;
        });
        hyper::Response::new(body)
    });
    let config = Config::new(&[])
        .backend("modern", &format!("http://{}", modern.address()), "protocol = \"http2\"")
        .routes(&route("modern", "path = \"/v1/*\", model = \"llama-*\"", ""));
    let to_modern = Tradewind::start(&config);
    for size in [1, 20_000, 70_000, 300_000] {
        let body = chat("llama-3-8b", size);
        let seen = http2::run(async {
            let mut connection = http2::connect(tradewind.http).await;
            let mut request =
                http2::request("POST", tradewind.http, "/v1/chat/completions", http2::whole(&body));
            request.headers_mut().insert("content-type", "application/json".parse().unwrap());
            request.headers_mut().insert("content-length", body.len().into());
            let answer = connection.send_request(request).await.expect("it is answered");
            http2::text(answer.into_body()).await
        });
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["by"], "llama", "{size}");
        assert!(seen["body"] == body, "the body of {size} bytes was changed");
        let answer = to_modern.client().request("POST", "/v1/x", &[JSON], body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text() == body, "the body of {size} bytes was changed on its way to HTTP/2");
    }
}

#[test]
fn an_alias_is_replaced_and_nothing_else() {
    let backends = ["llama", "rest"].map(mirror);
    let models =
        "[routes.llama.models]\n\"gpt-4o\" = \"meta/llama \\\"3\\\" 8b\"\n\"long-name-of-a-model\" = \"m\"";
    let routes = [route("llama", "path = \"/v1/*\"", models), route("rest", "path = \"/*\"", "")];
    let tradewind = start(&[&backends[0], &backends[1]], &routes);
    let cases = [
        (
            r#" {"model" : "gpt-4o", "n":1.0e2,"s":"\u00e4ä"} "#,
            r#" {"model" : "meta/llama \"3\" 8b", "n":1.0e2,"s":"\u00e4ä"} "#,
        ),
        (r#"{"model":"long-name-of-a-model"}"#, r#"{"model":"m"}"#),
        (r#"{"model":"gpt\u002d4o"}"#, r#"{"model":"meta/llama \"3\" 8b"}"#),
        (r#"{"model":"x","model":"gpt-4o"}"#, r#"{"model":"x","model":"meta/llama \"3\" 8b"}"#),
        (r#"{"model":"other"}"#, r#"{"model":"other"}"#),
        (r#"{"prompt":"gpt-4o"}"#, r#"{"prompt":"gpt-4o"}"#),
    ];
    for (sent, expected) in cases {
        let seen = ask(&tradewind, &[JSON], sent);
        assert_eq!(seen["body"], expected);
        assert_eq!(seen["told"][0], expected.len().to_string());
        assert_eq!(in_chunks(tradewind.http, sent.as_bytes(), 5)["body"], expected);
    }
    for size in [60_000, 65_536, 200_000] {
        let expected = chat("m", size);
        let seen = ask(&tradewind, &[JSON], &chat("long-name-of-a-model", size));
        assert!(seen["body"] == expected, "{size}");
    }
    let named = ask(&tradewind, &[JSON, ("x-model", "long-name-of-a-model")], "{}");
    assert_eq!(named["told"][3], "m");
}

#[test]
fn another_attempt_sends_the_same_body() {
    let (dead, live) = (mirror("dead"), mirror("live"));
    let config = Config::new(&[(&dead, 1.0), (&live, 2.0)])
        .replace("interval = \"300ms\"", "interval = \"5s\"")
        .routes(
            "[routes.chat]\nmatch = { model = \"*\" }\nbackends = [\"dead\", \"live\"]\nmodels = { a = \"model-a\" }",
        );
    let tradewind = Tradewind::start(&config);
    assert_eq!(ask(&tradewind, &[JSON], &chat("b", 1))["by"], "dead");
    dead.stop();
    for size in [1, 66_000, 300_000] {
        for (model, expected) in [("b", "b"), ("a", "model-a")] {
            let seen = ask(&tradewind, &[JSON], &chat(model, size));
            assert_eq!(seen["by"], "live");
            assert!(seen["body"] == chat(expected, size), "the body of {size} bytes was changed");
        }
    }
    let retries =
        tradewind.metric("tradewind_retries_total{route=\"chat\",backend=\"dead\",reason=\"connect\"}");
    assert_eq!(retries, Some(6.0));
}

#[test]
fn a_client_that_leaves_within_its_body_is_no_backends_business() {
    let (backends, tradewind) = three();
    let mut stream = client::connect(tradewind.http).unwrap();
    let head =
        "POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"{\"model\":").unwrap();
    drop(stream);
    eventually("it is counted", || {
        tradewind.metric("tradewind_requests_total{route=\"\",backend=\"\",code=\"499\"}") == Some(1.0)
    });
    assert_eq!(backends.iter().map(Backend::requests).sum::<u64>(), 0);
}

#[test]
fn a_body_that_stops_coming_over_http2_is_given_up() {
    let ([llama, other, rest], _) = three();
    let routes = route("llama", "path = \"/v1/*\", model = \"llama-*\"", "");
    let config = Config::new(&[(&llama, 1.0)]).listen("silence_timeout = \"1s\"").routes(&routes);
    let tradewind = Tradewind::start(&config);
    http2::run(async {
        let mut connection = http2::connect(tradewind.http).await;
        let (sender, body) = http2::piped();
        let mut request = http2::request("POST", tradewind.http, "/v1/x", body);
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        let answer = connection.send_request(request);
        sender.send(Ok(Bytes::from("{\"model\":"))).await.unwrap();
        assert!(answer.await.is_err(), "the stream is reset");
        // The connection is not.
        let next = http2::request("GET", tradewind.http, "/", http2::whole(""));
        assert_eq!(connection.send_request(next).await.unwrap().status(), 404);
    });
    assert_eq!([llama, other, rest].map(|backend| backend.requests()), [0, 0, 0]);
}

#[test]
fn without_a_route_for_the_rest_other_models_have_none() {
    let llama = mirror("llama");
    let tradewind = start(&[&llama], &[route("llama", "model = \"llama-3-8b\"", "")]);
    let mut client: Client = tradewind.client();
    let mut post =
        |body: &str| -> Answer { client.request("POST", "/v1/x", &[JSON], body.as_bytes()).unwrap() };
    assert_eq!(post(&chat("llama-3-8b", 1)).status, 200);
    for body in [chat("other", 1), chat("other", 2_000_000), chat("other", 100_000), "{}".into()] {
        let answer = post(&body);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &"no_route".into()));
    }
    assert_eq!(post(&chat("llama-3-8b", 1)).status, 200, "the connection is usable");
}
