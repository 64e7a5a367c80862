//! The client against the real server.

use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::{
    admin::views::{NewOverride, OverrideError},
    admin::{
        Options,
        fake::{FakeDesk, Server, start, tokens},
    },
    config::Tls,
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    admin: AdminArgs,
}

fn args(url: &str, more: &[&str]) -> AdminArgs {
    Line::parse_from(["test", "--admin", url].iter().chain(more)).admin
}

fn drain() -> NewOverride {
    serde_json::from_str(r#"{"kind": "drain", "backend": "eks", "ttl": "30m", "reason": "incident"}"#)
        .unwrap()
}

fn input(failure: Failure) -> String {
    match failure {
        Failure::Input(sentence) => sentence,
        Failure::Unreachable(sentence) => panic!("not a fault of the input: {sentence}"),
    }
}

fn unreachable(failure: Failure) -> String {
    match failure {
        Failure::Unreachable(sentence) => sentence,
        Failure::Input(sentence) => panic!("a fault of the input: {sentence}"),
    }
}

/// A server with tokens and a certificate for `name`, and the operator's way to it.
fn start_tls(dir: &Path, name: &str) -> (Server, AdminArgs) {
    let made = rcgen::generate_simple_self_signed(vec![name.into()]).unwrap();
    let tls = Tls { name: "tls.crt".into(), cert: dir.join("tls.crt"), key: dir.join("tls.key") };
    std::fs::write(&tls.cert, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("token"), "operator-secret\n").unwrap();
    let ca = tls.cert.clone();
    let tls = Some(Arc::new(crate::admin::Certificate::new(&tls).unwrap()));
    let server = start(Arc::default(), Options { tokens: tokens(), tls, ..Options::default() });
    let mut admin = args(&format!("https://{}", server.address), &[]);
    admin.admin_ca = Some(ca);
    admin.token_file = Some(dir.join("token"));
    (server, admin)
}

#[tokio::test]
async fn answers_keep_their_fields() {
    let server = start(Arc::default(), Options::default());
    let admin = args(&format!("http://{}/", server.address), &[]);
    let reply = admin.call::<Value>(Method::GET, "/v1/config").await.unwrap();
    assert_eq!(reply.json(), "{\n  \"generation\": 1\n}\n");
    assert_eq!(admin.probe("/livez").await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn refusals_are_faults_of_the_input_and_breakdowns_are_not() {
    let server = start(Arc::default(), Options::default());
    let admin = args(&format!("http://{}", server.address), &[]);
    let refused = admin.call::<Value>(Method::GET, "/v1/routes/nope/explain").await.unwrap_err();
    assert_eq!(input(refused), "There is no route `nope`. Known: chat.");

    let desk = FakeDesk { refusal: Some(OverrideError::NoSpace), ..FakeDesk::default() };
    let full = start(Arc::new(desk), Options::default());
    let admin = args(&format!("http://{}", full.address), &[]);
    let broken = admin.post::<Value>("/v1/overrides", &drain()).await.unwrap_err();
    assert_eq!(unreachable(broken), "refused for the test");
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    // Bound and not listening: nobody else gets the port, and nobody answers on it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let sentence = unreachable(args(&url, &[]).probe("/livez").await.unwrap_err());
    assert!(sentence.contains(&url) && sentence.contains("TRADEWIND_ADMIN"), "{sentence}");
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sentence = unreachable(args(&url, &["--timeout", "10ms"]).probe("/livez").await.unwrap_err());
    assert!(sentence.contains("did not answer within 10ms"), "{sentence}");
}

#[tokio::test]
async fn addresses_are_checked() {
    let wrong =
        ["", "localhost:9901", "ftp://localhost", "http://", "http://user@localhost", "http://localhost?x=1"];
    for url in wrong {
        let sentence = input(args(url, &[]).probe("/livez").await.unwrap_err());
        assert!(sentence.contains("expected http://HOST:PORT"), "{url}: {sentence}");
    }
}

#[tokio::test]
async fn tokens_travel_encrypted_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "operator-secret").unwrap();
    // An address for documentation, which nobody has.
    let mut remote = args("http://192.0.2.1:9901", &[]);
    remote.token_file = Some(dir.path().join("token"));
    let sentence = input(remote.call::<Value>(Method::GET, "/v1/status").await.unwrap_err());
    assert!(sentence.contains("would travel unencrypted"), "{sentence}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, admin) = start_tls(dir.path(), "other.example");
    let sentence = unreachable(admin.call::<Value>(Method::GET, "/v1/status").await.unwrap_err());
    assert!(sentence.contains("no trusted TLS connection"), "{sentence}");
}

#[tokio::test]
async fn a_token_and_a_certificate_open_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, mut admin) = start_tls(dir.path(), "127.0.0.1");
    let stored = admin.post::<Value>("/v1/overrides", &drain()).await.unwrap();
    assert_eq!(stored.value["author"], "oncall");
    let refused = admin.call::<Value>(Method::POST, "/v1/reload").await.unwrap_err();
    assert!(input(refused).contains("needs the role `admin`"));

    std::fs::write(dir.path().join("token"), "something else").unwrap();
    let sentence = input(admin.call::<Value>(Method::GET, "/v1/status").await.unwrap_err());
    assert!(sentence.contains("does not hold a token"), "{sentence}");
    std::fs::write(dir.path().join("token"), "wrong").unwrap();
    let sentence = input(admin.call::<Value>(Method::GET, "/v1/status").await.unwrap_err());
    assert!(sentence.contains("--token-file"), "{sentence}");
    admin.token_file = Some(dir.path().join("missing"));
    let sentence = input(admin.call::<Value>(Method::GET, "/v1/status").await.unwrap_err());
    assert!(sentence.contains("cannot be read"), "{sentence}");
}

#[test]
fn names_become_segments() {
    assert_eq!(segment("eks-use1"), "eks-use1");
    assert_eq!(segment("a/b?c d%"), "a%2Fb%3Fc%20d%25");
}
