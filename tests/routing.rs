//! Which backend a request reaches, in which protocol, and what each side is told.

mod harness;

use std::io::{BufRead, BufReader, Write};

use harness::{
    Answer, Backend, Client, Config, Tradewind, eventually,
    http2::{self, Authority, ModernBackend, Speaks},
};
use serde_json::{Value, json};

/// A backend that answers with what it was sent.
fn mirror(name: &str) -> Backend {
    let own = name.to_owned();
    Backend::serving(name, move |call| {
        let headers: Vec<Value> =
            call.headers.iter().map(|(name, value)| json!([name.to_lowercase(), value])).collect();
        let body = String::from_utf8_lossy(&call.body()?).into_owned();
        let seen =
            json!({ "by": own, "method": call.method, "path": call.path, "headers": headers, "body": body });
        call.answer(200, &[("x-own", "kept")], seen.to_string().as_bytes())
    })
}

/// All values of a header that a mirror was sent.
fn sent(seen: &Value, name: &str) -> Vec<String> {
    let headers = seen["headers"].as_array().expect("headers");
    let values = headers
        .iter()
        .filter(|header| header[0] == name)
        .map(|header| header[1].as_str().unwrap().to_owned());
    values.collect()
}

/// Host, path and more headers of a request, and the route that it takes.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

#[test]
fn the_most_specific_route_wins() {
    let names =
        ["exact-host", "deep-host", "wide-host", "exact-path", "long-path", "short-path", "gold", "gold-eu"];
    let backends: Vec<Backend> = names.iter().map(|name| Backend::named(name)).collect();
    let matches = [
        "host = \"api.example.com\"",
        "host = \"*.eu.example.com\"",
        "host = \"*.example.com\"",
        "path = \"/v1/models\"",
        "path = \"/v1/chat/*\"",
        "path = \"/v1/*\"",
        "path = \"/v1/*\", header = { x-tier = \"gold\" }",
        "path = \"/v1/*\", header = { x-tier = \"gold\", x-region = \"eu\" }",
    ];
    let routes: String = names
        .iter()
        .zip(matches)
        .map(|(name, conditions)| {
            format!("[routes.{name}]\nmatch = {{ {conditions} }}\nbackends = [\"{name}\"]\n")
        })
        .collect();
    let priced: Vec<(&Backend, f64)> = backends.iter().map(|backend| (backend, 1.0)).collect();
    let tradewind = Tradewind::start(&Config::new(&priced).routes(&routes));

    const GOLD: (&str, &str) = ("x-tier", "gold");
    let cases: [Case; 14] = [
        ("api.example.com", "/v1/models", &[], "exact-host"),
        ("API.Example.COM:8080", "/", &[GOLD], "exact-host"),
        ("x.eu.example.com", "/v1/models", &[], "deep-host"),
        ("x.example.com", "/v1/models", &[], "wide-host"),
        ("other.org", "/v1/models", &[], "exact-path"),
        ("other.org", "/v1/models", &[GOLD], "exact-path"),
        ("other.org", "/v1/models?limit=1", &[], "exact-path"),
        ("other.org", "/v1/models/x", &[], "short-path"),
        ("other.org", "/v1/chat/completions", &[GOLD], "long-path"),
        ("other.org", "/v1/chat", &[], "long-path"),
        ("other.org", "/v1/chatter", &[], "short-path"),
        ("other.org", "/v1", &[], "short-path"),
        ("other.org", "/v1/embeddings", &[GOLD], "gold"),
        ("other.org", "/v1/embeddings", &[GOLD, ("x-region", "eu")], "gold-eu"),
    ];
    let mut client = tradewind.client();
    for (host, path, headers, expected) in cases {
        let headers = [&[("host", host)], headers].concat();
        let answer = client.request("GET", path, &headers, b"").unwrap();
        assert_eq!(answer.text(), expected, "{host} {path} {headers:?}");
        assert_eq!(answer.header("x-tradewind-backend"), Some(expected));
    }
    for (host, path) in [("other.org", "/v2"), ("other.org", "/v1x"), ("example.com", "/"), ("", "/")] {
        let answer = client.request("GET", path, &[("host", host)], b"").unwrap();
        assert_no_route(&answer);
    }
    let mut absolute = |host: &str| {
        client.request("GET", "http://api.example.com/v1/models", &[("host", host)], b"").unwrap()
    };
    assert_eq!(absolute("api.example.com").text(), "exact-host");
    assert_eq!(absolute("other.org").status, 400, "whose request is it?");
    assert_eq!(tradewind.metric("tradewind_requests_total{route=\"\",backend=\"\",code=\"404\"}"), Some(4.0));
}

fn assert_no_route(answer: &Answer) {
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&"no_route".into(), &"invalid_request_error".into()));
    assert!(error["message"].is_string());
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("x-tradewind-backend"), None);
}

#[test]
fn a_request_id_is_passed_on_or_made_and_told_to_both_sides() {
    let backend = mirror("a");
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let mut client = tradewind.client();
    let given = client.request("GET", "/", &[("x-request-id", "mine-1")], b"").unwrap();
    assert_eq!(given.header("x-request-id"), Some("mine-1"));
    assert_eq!(sent(&given.json(), "x-request-id"), ["mine-1"]);

    let made: Vec<String> = (0..2)
        .map(|_| {
            let answer = client.get("/").unwrap();
            let id = answer.header("x-request-id").expect("it has an id").to_owned();
            assert_eq!(sent(&answer.json(), "x-request-id"), [&*id]);
            id
        })
        .collect();
    assert!(made[0] != made[1] && made[0].len() >= 16, "{made:?}");
    let long = "x".repeat(4000);
    let answer = client.request("GET", "/", &[("x-request-id", &long)], b"").unwrap();
    assert!(answer.header("x-request-id").is_some_and(|id| !id.is_empty() && id.len() <= 128));
}

#[test]
fn clients_hear_which_backend_answered_only_if_they_shall() {
    let backend = mirror("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let open = Tradewind::start(&config).fetch("/");
    assert_eq!(open.header("x-tradewind-backend"), Some("a"));
    assert!(open.header("server-timing").is_some_and(|timing| timing.contains("a")), "{open:?}");
    let closed = Tradewind::start(&config.listen("expose_routing = false")).fetch("/");
    assert_eq!((closed.header("x-tradewind-backend"), closed.header("server-timing")), (None, None));
    assert_eq!(closed.header("x-own"), Some("kept"));
}

#[test]
fn the_backend_sees_its_own_host_and_who_asked() {
    let backend = mirror("a");
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let headers = [
        ("host", "api.example.com"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=6.6.6.6"),
        ("authorization", "Bearer sk-1"),
    ];
    let answer = tradewind.client().request("POST", "/v1/x?y=%20z", &headers, b"the body").unwrap();
    let seen = answer.json();
    assert_eq!((&seen["method"], &seen["path"]), (&"POST".into(), &"/v1/x?y=%20z".into()));
    assert_eq!(seen["body"], "the body");
    assert_eq!(sent(&seen, "host"), [backend.address().to_string()]);
    assert_eq!(sent(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(sent(&seen, "x-forwarded-host"), ["api.example.com"]);
    assert_eq!(sent(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(sent(&seen, "forwarded"), [""; 0]);
    assert_eq!(sent(&seen, "authorization"), ["Bearer sk-1"]);
}

#[test]
fn http2_without_tls_comes_in_on_the_same_port() {
    let backend = mirror("a");
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    http2::run(async {
        let mut connection = http2::connect(tradewind.http).await;
        for n in 0..5 {
            let request = http2::request("POST", tradewind.http, "/v1/x", http2::whole(&format!("body {n}")));
            let answer = connection.send_request(request).await.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
            assert_eq!(answer.headers()["x-tradewind-backend"], "a");
            let seen: Value = serde_json::from_str(&http2::text(answer.into_body()).await).unwrap();
            assert_eq!((&seen["body"], &seen["path"]), (&format!("body {n}").into(), &"/v1/x".into()));
            assert_eq!(sent(&seen, "host"), [backend.address().to_string()]);
            assert_eq!(sent(&seen, "x-forwarded-host"), [tradewind.http.to_string()]);
        }
    });
    assert_eq!(tradewind.fetch("/").status, 200, "and HTTP/1.1 beside it");
}

/// What a backend says that it was asked in, through a Tradewind with these keys in its table.
fn asked_in(url: &str, keys: &str, authority: Option<&Authority>) -> Answer {
    let dir = tempfile::tempdir().unwrap();
    if let Some(authority) = authority {
        authority.write(dir.path(), "ca.pem");
    }
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[]).backend("a", url, keys));
    let first = tradewind.fetch("/");
    assert_eq!(tradewind.fetch("/").text(), first.text(), "over a connection that is kept");
    let posted = tradewind.client().post("/", b"{}").unwrap();
    assert_eq!(posted.text(), first.text());
    first
}

#[test]
fn backends_are_asked_in_http2_without_tls() {
    let backend = ModernBackend::echoing(Speaks::H2c);
    let answer = asked_in(&format!("http://{}", backend.address()), "protocol = \"http2\"", None);
    assert_eq!((answer.status, answer.text()), (200, format!("HTTP/2.0 {}", backend.address())));
}

#[test]
fn backends_are_asked_over_tls_in_the_version_that_both_speak() {
    let authority = Authority::new();
    let cases: [(&[&str], &str, &str); 6] = [
        (&["h2", "http/1.1"], "", "HTTP/2.0"),
        (&["http/1.1"], "", "HTTP/1.1"),
        (&[], "", "HTTP/1.1"),
        (&["h2", "http/1.1"], "protocol = \"http1\"", "HTTP/1.1"),
        (&["h2"], "protocol = \"http2\"", "HTTP/2.0"),
        (&["h2", "http/1.1"], "protocol = \"auto\"", "HTTP/2.0"),
    ];
    for (alpn, protocol, version) in cases {
        let backend = ModernBackend::echoing(Speaks::tls(&authority, alpn));
        let name = format!("localhost:{}", backend.address().port());
        let answer =
            asked_in(&format!("https://{name}"), &format!("ca = \"ca.pem\"\n{protocol}"), Some(&authority));
        assert_eq!((answer.status, answer.text()), (200, format!("{version} {name}")), "{alpn:?} {protocol}");
    }
}

#[test]
fn a_backend_with_a_certificate_of_someone_else_gets_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let backend = ModernBackend::echoing(Speaks::tls(&other, &["h2", "http/1.1"]));
    let dir = tempfile::tempdir().unwrap();
    authority.write(dir.path(), "ca.pem");
    let url = format!("https://localhost:{}", backend.address().port());
    for (n, keys) in ["ca = \"ca.pem\"", ""].into_iter().enumerate() {
        let dir = dir.path().join(n.to_string());
        std::fs::create_dir(&dir).unwrap();
        authority.write(&dir, "ca.pem");
        let tradewind = Tradewind::start_in(&dir, &Config::new(&[]).backend("a", &url, keys));
        let answer = tradewind.client().post("/", b"secret").unwrap();
        assert!(matches!(answer.status, 502 | 503), "{}", answer.text());
        let error = tradewind.backend("a")["health_error"].to_string();
        assert!(error.contains("TLS handshake") && error.contains("certificate"), "{error}");
    }
    assert_eq!(backend.requests(), 0);
}

#[test]
fn a_backend_with_a_name_is_resolved() {
    let backend = Backend::named("a");
    let port = backend.address().port();
    let config = Config::new(&[]).backend("by-name", &format!("http://localhost:{port}"), "").backend(
        "nowhere",
        "http://tradewind-test.invalid:80",
        "",
    );
    let tradewind = Tradewind::start(&config);
    assert_eq!(tradewind.fetch("/").text(), "a");
    eventually("the name that does not exist is named", || {
        let warnings = tradewind.json("/v1/status")["warnings"].to_string();
        warnings.contains("nowhere: ") && warnings.contains("tradewind-test.invalid")
    });
    assert_eq!(tradewind.backend("nowhere")["share"], 0.0);
}

#[test]
fn head_and_options_are_requests_like_others() {
    let backend = mirror("a");
    let routes = "[routes.chat]\nmatch = { path = \"/v1/*\" }\nbackends = [\"a\"]";
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).routes(routes));
    let ask = |method: &str, path: &str| Client::new(tradewind.http).request(method, path, &[], b"").unwrap();
    let refused = ask("HEAD", "/nope");
    assert_eq!((refused.status, refused.body.len()), (404, 0));
    assert_eq!(ask("OPTIONS", "/v1/x").json()["method"], "OPTIONS");
    assert_eq!(ask("DELETE", "/v1/x").json()["method"], "DELETE");
}

#[test]
fn a_request_shorter_than_an_http2_preface_is_answered() {
    let backend = Backend::named("a");
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    // HAProxy's default health check: 22 bytes, and nothing after them.
    let mut stream = harness::client::connect(tradewind.http).expect("a connection");
    stream.write_all(b"OPTIONS / HTTP/1.0\r\n\r\n").expect("a request");
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first).expect("an answer");
    assert!(first.contains(" 200 "), "{first}");
}
