//! Every promise of the API over a real socket.

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

use super::{
    Certificate, Options,
    body::BODY_BYTES_MAX,
    fake::{FakeDesk, Server, faulty, start, tokens},
    serve,
};
use crate::{
    admin::views::{OverrideError, ReloadError},
    config::Tls,
};

/// Calls about notices, in a file of their own for its length.
mod notices;

const DRAIN: &str = r#"{"kind": "drain", "backend": "eks", "ttl": "30m", "reason": "incident"}"#;

const NOTICE: &str = r#"{"backend": "eks", "kind": "spot-interruption", "nodes": 2, "id": "e1"}"#;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The stable name of a problem.
    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let document = self.json();
        assert_eq!(document["status"], self.status);
        for field in ["type", "title", "detail"] {
            assert!(
                document[field].as_str().is_some_and(|text| !text.is_empty()),
                "no `{field}` in {document}"
            );
        }
        document["code"].as_str().unwrap().to_owned()
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    // A refusal may come, and the connection end, before all was sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.into(), body: body.into() }
}

/// `headers` are lines without their end.
async fn ask(address: SocketAddr, call: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = format!("{call} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|line| line.starts_with("host:")) {
        request.push_str(&format!("host: {address}\r\n"));
    }
    if !body.is_empty() && !headers.iter().any(|line| line.starts_with("transfer-encoding:")) {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for line in headers {
        request.push_str(&format!("{line}\r\n"));
    }
    converse(TcpStream::connect(address).await.unwrap(), &format!("{request}\r\n{body}")).await
}

fn open(desk: FakeDesk) -> (Arc<FakeDesk>, Server) {
    let desk = Arc::new(desk);
    let server = start(desk.clone(), Options::default());
    (desk, server)
}

#[tokio::test]
async fn every_call_answers() {
    let (desk, server) = open(FakeDesk::default());
    let at = server.address;
    for path in ["/openapi.json", "/v1/status", "/v1/routes/chat/explain", "/v1/config"] {
        let answer = ask(at, &format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.json().is_object());
    }
    for (path, list) in [("decisions", 1), ("prices", 0), ("overrides", 0)] {
        let answer = ask(at, &format!("GET /v1/{path}"), &[], "").await;
        assert_eq!(answer.json()[path].as_array().map(Vec::len), Some(list), "{path}");
    }

    let added = ask(at, "POST /v1/overrides", &["content-type: application/json"], DRAIN).await;
    assert_eq!((added.status, added.header("location")), (201, Some("/v1/overrides/o-1")), "{}", added.body);
    let (id, author) = (&added.json()["id"], &added.json()["author"]);
    assert_eq!((id, author), (&json!("o-1"), &json!("local")));
    assert_eq!(ask(at, "GET /v1/overrides/o-1", &[], "").await.json(), added.json());
    let ended = ask(at, "DELETE /v1/overrides/o-1", &[], "").await;
    assert_eq!((ended.status, &ended.json()["id"]), (200, &json!("o-1")));
    assert!(desk.overrides.lock().unwrap().is_empty());

    assert_eq!(ask(at, "POST /v1/reload", &[], "").await.json(), json!({"generation": 2}));
    let head = ask(at, "HEAD /v1/status", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn every_described_call_is_there_and_answers_as_described() {
    let (_, server) = open(FakeDesk::default());
    let description = super::openapi::json();
    assert_eq!(description["openapi"], "3.1.0");
    let mut calls = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let call = format!("{} {}", method.to_uppercase(), path.replace("{route}", "chat"));
            let answer = ask(server.address, &call, &[], "").await;
            let described = &operation["responses"][answer.status.to_string()];
            assert!(described.is_object(), "{call}: {} is not described", answer.status);
            let kind = answer.header("content-type").unwrap().split(';').next().unwrap();
            assert!(
                described["content"].get(kind).is_some() || path == "/metrics",
                "{call}: {kind}: {described}"
            );
            let unknown = matches!(answer.status, 404 | 405) && answer.code() != "unknown_override";
            assert!(!unknown, "{call}: {}", answer.body);
            calls += 1;
        }
    }
    assert_eq!(calls, 17);
}

#[test]
fn the_description_names_nothing_that_it_does_not_describe() {
    let description = super::openapi::json();
    let text = description.to_string();
    let named = text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
    for name in named {
        assert!(description["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
}

#[tokio::test]
async fn probes_say_ok_or_why_not() {
    let (_, ready) = open(FakeDesk::default());
    let (_, starting) = open(FakeDesk { not_ready: Some("no decision yet".into()), ..FakeDesk::default() });
    // A kubelet may send any name; nothing here is worth a name check.
    for path in ["GET /livez", "GET /readyz"] {
        let answer = ask(ready.address, path, &["host: pod.example"], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    assert_eq!(ask(starting.address, "GET /livez", &[], "").await.status, 200);
    let answer = ask(starting.address, "GET /readyz", &[], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "no decision yet\n"));
}

#[tokio::test]
async fn metrics_are_named_for_what_they_are() {
    let (_, old) = open(FakeDesk { metrics: "up 1\n".into(), ..FakeDesk::default() });
    let (_, new) = open(FakeDesk { metrics: "up 1\n# EOF\n".into(), ..FakeDesk::default() });
    let old = ask(old.address, "GET /metrics", &[], "").await;
    assert_eq!(old.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let new = ask(new.address, "GET /metrics", &[], "").await;
    assert_eq!(
        new.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(new.body, "up 1\n# EOF\n");
}

#[tokio::test]
async fn names_pointed_at_loopback_are_refused() {
    let (desk, server) = open(FakeDesk::default());
    for host in ["localhost", "LOCALHOST:9901", "127.0.0.1", "[::1]:9901"] {
        let answer = ask(server.address, "GET /v1/status", &[&format!("host: {host}")], "").await;
        assert_eq!(answer.status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:9901", "localhost.evil.example", "127.0.0.1.evil.example"] {
        let answer = ask(server.address, "POST /v1/overrides", &[&format!("host: {host}")], DRAIN).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_host"), "{host}");
    }
    for headers in [&["host: "][..], &["host: localhost", "host: evil.example"], &["host: a b"]] {
        assert_eq!(ask(server.address, "GET /v1/status", headers, "").await.status, 400, "{headers:?}");
    }
    assert!(desk.overrides.lock().unwrap().is_empty());
}

#[tokio::test]
async fn scripts_of_other_pages_change_nothing() {
    let (desk, server) = open(FakeDesk::default());
    let own = format!("origin: http://{}", server.address);
    for foreign in [
        "origin: https://evil.example",
        "origin: http://127.0.0.1:1",
        "origin: null",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ] {
        for call in ["POST /v1/overrides", "POST /v1/notices", "POST /v1/reload", "DELETE /v1/overrides/o-1"]
        {
            let answer = ask(server.address, call, &[foreign], DRAIN).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "foreign_origin"), "{call} {foreign}");
        }
        // Reading is no change, and without a CORS header the page does not see the answer.
        let read = ask(server.address, "GET /v1/status", &[foreign], "").await;
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None));
    }
    assert!(desk.overrides.lock().unwrap().is_empty());
    let own = ask(server.address, "POST /v1/overrides", &[&own, "sec-fetch-site: same-origin"], DRAIN).await;
    assert_eq!(own.status, 201);
}

#[tokio::test]
async fn each_role_may_do_its_part() {
    let desk = Arc::new(FakeDesk::default());
    let server = start(desk.clone(), Options { tokens: tokens(), ..Options::default() });
    // What a viewer, an operator and an admin get.
    let table = [
        ("GET /metrics", "", [200, 200, 200]),
        ("GET /fragment", "", [200, 200, 200]),
        ("GET /v1/status", "", [200, 200, 200]),
        ("GET /v1/routes/chat/explain", "", [200, 200, 200]),
        ("GET /v1/decisions", "", [200, 200, 200]),
        ("GET /v1/prices", "", [200, 200, 200]),
        ("GET /v1/overrides", "", [200, 200, 200]),
        ("POST /v1/overrides", DRAIN, [403, 201, 201]),
        ("DELETE /v1/overrides/o-9", "", [403, 404, 404]),
        ("POST /v1/notices", NOTICE, [403, 202, 202]),
        ("GET /v1/config", "", [403, 403, 200]),
        ("POST /v1/reload", "", [403, 403, 200]),
    ];
    for (call, body, expected) in table {
        for (secret, expected) in
            ["viewer-secret", "operator-secret", "admin-secret"].into_iter().zip(expected)
        {
            let answer = ask(server.address, call, &[&format!("authorization: Bearer {secret}")], body).await;
            assert_eq!(answer.status, expected, "{call} with {secret}: {}", answer.body);
            if expected == 403 {
                assert_eq!(answer.code(), "role");
            }
        }
        let nobody = ask(server.address, call, &[], body).await;
        assert_eq!((nobody.status, nobody.code().as_str()), (401, "no_token"), "{call}");
    }
    let authors: Vec<String> = desk.overrides.lock().unwrap().iter().map(|o| o.item.author.clone()).collect();
    assert_eq!(authors, ["oncall", "root"]);
    let senders: Vec<String> =
        desk.notices.lock().unwrap().iter().map(|(author, _)| author.clone()).collect();
    assert_eq!(senders, ["oncall", "root"]);
}

#[tokio::test]
async fn only_the_very_token_opens() {
    let server = start(Arc::default(), Options { tokens: tokens(), ..Options::default() });
    for header in ["authorization: Bearer viewer-secret", "authorization: bearer   viewer-secret"] {
        assert_eq!(ask(server.address, "GET /v1/status", &[header], "").await.status, 200, "{header}");
    }
    for (header, code) in [
        ("authorization: Bearer viewer-secre", "unknown_token"),
        ("authorization: Bearer viewer-secret2", "unknown_token"),
        ("authorization: Bearer ", "no_token"),
        ("authorization: Basic dmlld2VyLXNlY3JldA==", "no_token"),
        ("authorization: viewer-secret", "no_token"),
        ("x-token: viewer-secret", "no_token"),
    ] {
        for path in ["GET /v1/status", "GET /nowhere", "PUT /v1/status"] {
            let answer = ask(server.address, path, &[header], "").await;
            assert_eq!((answer.status, answer.code().as_str()), (401, code), "{header}");
            let challenge = answer.header("www-authenticate").unwrap_or("");
            assert!(challenge.starts_with("Bearer realm="), "{challenge}");
            assert!(!answer.body.contains("secret"), "{}", answer.body);
        }
    }
    assert_eq!(ask(server.address, "GET /readyz", &[], "").await.status, 200);
}

#[tokio::test]
async fn refusals_say_why() {
    let (_, server) = open(FakeDesk::default());
    let at = server.address;
    let json = "content-type: application/json";
    let huge = format!("{{\"reason\": \"{}\"}}", "x".repeat(BODY_BYTES_MAX));
    let chunked = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.len());
    for (call, header, body, status, code) in [
        ("GET /v1/nothing", json, "", 404, "unknown_path"),
        ("GET /v1/routes/nope/explain", json, "", 404, "unknown_route"),
        ("GET /v1/routes/%ff/explain", json, "", 404, "unknown_path"),
        ("DELETE /v1/overrides/o-9", json, "", 404, "unknown_override"),
        ("POST /v1/overrides", json, "{\"kind\": ", 400, "malformed_json"),
        ("POST /v1/overrides", json, "", 400, "malformed_json"),
        ("POST /v1/overrides", json, "{\"kind\": \"drain\"}", 422, "invalid_body"),
        ("POST /v1/overrides", json, "{\"kind\": \"drian\"}", 422, "invalid_body"),
        ("POST /v1/overrides", "content-type: text/plain", DRAIN, 415, "unsupported_media_type"),
        ("POST /v1/overrides", json, &huge, 413, "body_too_large"),
        ("POST /v1/overrides", "transfer-encoding: chunked", &chunked, 413, "body_too_large"),
        ("POST /v1/notices", json, "{\"kind\": ", 400, "malformed_json"),
        ("POST /v1/notices", json, "{\"kind\": \"spot\"}", 422, "invalid_body"),
        ("POST /v1/notices", json, "{\"kind\": \"other\", \"nodes\": 1}", 422, "invalid_notice"),
        ("POST /v1/notices?backend=gke", json, NOTICE, 422, "invalid_notice"),
        ("POST /v1/notices?backend=a%20b", json, NOTICE, 400, "bad_query"),
        ("POST /v1/notices?backnd=eks", json, NOTICE, 400, "bad_query"),
        ("POST /v1/notices", "content-type: text/plain", NOTICE, 415, "unsupported_media_type"),
        ("POST /v1/notices", json, &huge, 413, "body_too_large"),
        ("GET /v1/decisions?limit=0", json, "", 400, "bad_query"),
        ("GET /v1/decisions?limit=many", json, "", 400, "bad_query"),
        ("GET /v1/decisions?since=yesterday", json, "", 400, "bad_query"),
        ("GET /v1/decisions?rout=chat", json, "", 400, "bad_query"),
        ("GET /v1/decisions?route=a%20b", json, "", 400, "bad_query"),
        ("GET /v1/decisions?route=nope", json, "", 404, "unknown_route"),
    ] {
        let answer = ask(at, call, &[header], body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{call}: {}", answer.body);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    let detail = |answer: Answer| answer.json()["detail"].as_str().unwrap().to_owned();
    let unknown = detail(ask(at, "GET /v1/routes/nope/explain", &[], "").await);
    assert_eq!(unknown, "There is no route `nope`. Known: chat.");
    let unknown = detail(ask(at, "GET /v1/decisions?route=caht", &[], "").await);
    assert_eq!(unknown, "There is no route `caht`. Did you mean `chat`? Known: chat.");
    let gone = ask(at, "GET /v1/decisions?route=gone&since=2026-03-03T00:00:00Z", &[], "").await;
    assert_eq!((gone.status, gone.json()["decisions"].clone()), (200, json!([])), "the journal has it");
    let missing = detail(ask(at, "POST /v1/overrides", &[], "{\"kind\": \"drain\"}").await);
    assert!(missing.contains("missing field `ttl`"), "{missing}");
    for (call, allow) in [("PUT /v1/overrides", "GET,HEAD,POST"), ("GET /v1/reload", "POST")] {
        let answer = ask(at, call, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "unknown_method"));
        assert_eq!(answer.header("allow"), Some(allow), "{call}");
    }
}

#[tokio::test]
async fn the_journal_is_asked_for_what_was_asked() {
    let (desk, server) = open(FakeDesk::default());
    let call = "GET /v1/decisions?route=chat&since=2026-03-02T10:00:00%2B01:00&limit=5";
    assert_eq!(ask(server.address, call, &[], "").await.status, 200);
    assert_eq!(ask(server.address, "GET /v1/decisions?route=&since=&limit=", &[], "").await.status, 200);
    assert_eq!(ask(server.address, "GET /v1/decisions?kind=account", &[], "").await.status, 200);
    assert_eq!(ask(server.address, "GET /v1/decisions?kind=acount", &[], "").await.status, 400);
    let asked = desk.asked.lock().unwrap();
    assert_eq!(asked[0].route.as_ref().map(|route| route.as_str()), Some("chat"));
    assert_eq!(asked[0].since, "2026-03-02T09:00:00Z".parse().ok());
    assert_eq!(asked[0].limit, 5);
    assert_eq!((&asked[1].route, asked[1].since, asked[1].limit), (&None, None, 100));
    assert_eq!([asked[1].kind, asked[2].kind], [None, Some(crate::store::EntryKind::Account)]);
}

#[tokio::test]
async fn what_is_not_stored_is_not_acknowledged() {
    type Refusal = fn(String) -> OverrideError;
    let refusals: [(Refusal, u16, &str); 3] = [
        (OverrideError::Invalid, 422, "invalid_override"),
        (OverrideError::NoSpace, 507, "no_space"),
        (OverrideError::NotStored, 503, "not_stored"),
    ];
    for (refusal, status, code) in refusals {
        let (_, server) = open(FakeDesk { refusal: Some(refusal), ..FakeDesk::default() });
        let answer = ask(server.address, "POST /v1/overrides", &[], DRAIN).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        assert_eq!(answer.json()["detail"], "refused for the test");
    }
}

#[tokio::test]
async fn a_refused_reload_lists_every_fault() {
    let (_, server) = open(FakeDesk { reload_refusal: Some(faulty), ..FakeDesk::default() });
    let answer = ask(server.address, "POST /v1/reload", &[], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_config"));
    let fault = &answer.json()["faults"][0];
    assert_eq!((&fault["line"], &fault["column"]), (&json!(3), &json!(1)), "{}", answer.body);
    let restart = || ReloadError::NeedsRestart("`listen.http` changed".into());
    let (_, server) = open(FakeDesk { reload_refusal: Some(restart), ..FakeDesk::default() });
    let answer = ask(server.address, "POST /v1/reload", &[], "").await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "needs_restart"));
}

#[tokio::test]
async fn tls_is_spoken_where_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let tls =
        Tls { name: "tls.crt".into(), cert: dir.path().join("tls.crt"), key: dir.path().join("tls.key") };
    std::fs::write(&tls.cert, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(Arc::new(Certificate::new(&tls).unwrap()));
    let server = start(Arc::default(), Options { tokens: tokens(), tls, ..Options::default() });

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(server.address).await.unwrap();
    let stream = connector.connect("127.0.0.1".try_into().unwrap(), stream).await.unwrap();
    let answer = converse(
        stream,
        "GET /v1/status HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\nauthorization: Bearer viewer-secret\r\n\r\n",
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    let _ = plain.read_to_end(&mut got).await;
    assert!(!got.starts_with(b"HTTP/"), "plain text was answered");
}

#[tokio::test]
async fn an_exposed_address_needs_tokens_and_tls() {
    for options in [Options::default(), Options { tokens: tokens(), ..Options::default() }] {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let error =
            serve(Some(listener), options, Arc::new(FakeDesk::default()), async {}).await.unwrap_err();
        assert!(error.to_string().contains("needs tokens and TLS"), "{error}");
    }
}

#[test]
fn files_that_are_no_certificate_are_named() {
    let missing = Tls { name: "x".into(), cert: "no-such.crt".into(), key: "no-such.key".into() };
    let error = Certificate::new(&missing).unwrap_err();
    assert!(error.to_string().starts_with("no-such.crt: expected a certificate in PEM"), "{error}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_lets_calls_finish() {
    let (begun_sender, begun) = oneshot::channel();
    let (go_on, gate) = mpsc::channel();
    let desk = FakeDesk::default();
    *desk.gate.lock().unwrap() = Some((begun_sender, gate));
    let (_, server) = open(desk);
    let address = server.address;

    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut first = [0];
    idle.read_exact(&mut first).await.unwrap();
    let call = tokio::spawn(async move { ask(address, "POST /v1/overrides", &[], DRAIN).await });
    begun.await.unwrap();

    server.shutdown.send(()).unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    drop(go_on);
    assert_eq!(call.await.unwrap().status, 201);
    server.done.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "still listening");
}

/// The words of a shell line, quotes removed.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == ' ' => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.push(word);
    words
}

#[tokio::test]
async fn the_documented_commands_work() {
    const BASE: &str = "http://localhost:9901";
    let (_, server) = open(FakeDesk::default());
    // The page shows the override before it is set.
    assert_eq!(ask(server.address, "POST /v1/overrides", &[], DRAIN).await.status, 201);
    let mut asked = Vec::new();
    for line in
        include_str!("../../docs/admin-api.md").lines().filter(|l| l.starts_with("curl ") && l.contains(BASE))
    {
        let words = words(line);
        let after = |flag: &str| words.iter().position(|w| w == flag).map(|index| words[index + 1].as_str());
        let path = words.iter().find_map(|word| word.strip_prefix(BASE)).unwrap();
        let method = after("-X").unwrap_or("GET");
        let body = after("-d").unwrap_or("");
        let mut headers: Vec<&str> =
            words.windows(2).filter(|pair| pair[0] == "-H").map(|pair| pair[1].as_str()).collect();
        if !body.is_empty() && !headers.iter().any(|line| line.starts_with("content-type:")) {
            // As curl says it of what it was not told the type of.
            headers.push("content-type: application/x-www-form-urlencoded");
        }
        let answer = ask(server.address, &format!("{method} {path}"), &headers, body).await;
        assert!(matches!(answer.status, 200..=202), "{line}: {}", answer.body);
        asked.push(format!("{method} {}", path.split('?').next().unwrap()));
    }
    for call in [
        "GET /v1/status",
        "POST /v1/overrides",
        "DELETE /v1/overrides/o-1",
        "POST /v1/notices",
        "POST /v1/reload",
    ] {
        assert!(asked.iter().any(|asked| asked == call), "{call} has no example");
    }
}

#[test]
fn the_documented_answers_are_what_is_answered() {
    use crate::admin::views::{Explanation, NoticeReceipt, OverrideStatus, Status};
    let page = include_str!("../../docs/admin-api.md");
    let example = |heading: &str| -> Value {
        let section = page.split_once(heading).unwrap_or_else(|| panic!("no {heading}")).1;
        let text = section.split_once("```json\n").unwrap().1.split_once("```").unwrap().0;
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{heading}: {error}"))
    };
    // Reading and writing again keeps everything: there is no field that does not exist, and none is missing.
    fn same<T: serde::Serialize + serde::de::DeserializeOwned>(example: Value) {
        let read: T = serde_json::from_value(example.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), example);
    }
    same::<Status>(example("### `GET /v1/status`"));
    same::<Explanation>(example("### `GET /v1/routes/{route}/explain`"));
    same::<Vec<crate::signals::prices::PriceReport>>(example("### `GET /v1/prices`")["prices"].clone());
    same::<OverrideStatus>(example("### `POST /v1/overrides`"));
    let dry_run = page.split_once("With `?dry_run=true`").unwrap().1.split_once("```json\n").unwrap().1;
    let dry_run = serde_json::from_str(dry_run.split_once("```").unwrap().0).unwrap();
    same::<crate::admin::board::Preview>(dry_run);
    same::<NoticeReceipt>(example("### `POST /v1/notices?backend=`"));
}
