//! What is said about where clients connect, and about the TLS of backends.

use std::{fs, path::Path};

use insta::assert_snapshot;
use tradewind::config::{self, Loaded};

use super::{GOOD, with};

fn listen(keys: &str) -> String {
    with("[prices]", &format!("[listen]\n{keys}\n[prices]"))
}

#[test]
fn limits_and_trust() {
    assert_eq!(listen("proxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\"]"), "");
    assert_eq!(
        listen("max_connections = 1\nmax_connections_per_ip = 1\nhead_max = \"4KiB\"\nheaders_max = 250"),
        ""
    );
    assert_snapshot!(listen("proxy_protocol = true"), @r#"
    t.toml:2:18: error: listen.proxy_protocol: nobody is trusted, so no connection would begin with a PROXY header
        hint: name the load balancers: trusted_proxies = ["10.0.0.0/8"]
    "#);
    assert_snapshot!(listen("trusted_proxies = [\"10.0.0.1/8\"]"), @r#"
    t.toml:2:20: error: listen.trusted_proxies[0]: `10.0.0.1/8` has bits beyond its prefix: write it as 10.0.0.0/8
        hint: write it like "10.0.0.0/8" or "2001:db8::/32" or "192.0.2.7"
    "#);
    assert_snapshot!(listen("trusted_proxies = [\"lb.example.com\"]"), @r#"
    t.toml:2:20: error: listen.trusted_proxies[0]: `lb.example.com` is not a network: expected an IP address, or one with /PREFIX
        hint: write it like "10.0.0.0/8" or "2001:db8::/32" or "192.0.2.7"
    "#);
    assert_snapshot!(
        listen("header_timeout = \"10ms\"\nsilence_timeout = \"0s\"\nidle_timeout = \"2d\"\nhead_max = \"1KiB\""),
        @"
    t.toml:2:18: error: listen.header_timeout: found 10ms, expected 100ms to 5m
    t.toml:3:19: error: listen.silence_timeout: found 0s, expected 1s to 1d
    t.toml:4:16: error: listen.idle_timeout: found 2d, expected 1s to 1d
    t.toml:5:12: error: listen.head_max: found 1KiB, expected 4KiB to 1000KiB
    "
    );
    assert_snapshot!(
        listen("headers_max = 300\nstreams_max = 0"),
        @"
    t.toml:2:15: error: listen.headers_max: found 300, expected at most 250
        hint: Most headers of a request. One with more is answered with 431.
    t.toml:3:15: error: listen.streams_max: found 0, expected at least 1
        hint: Most requests at once on one HTTP/2 connection.
    "
    );
}

#[test]
fn a_backend_is_not_the_process_itself() {
    let at = |url: &str, keys: &str| {
        let text = format!("{keys}\n{}", GOOD.replacen("https://a.example.com", url, 1));
        assert!(text.contains(url), "{text}");
        super::said(&text)
    };
    let own = "[listen]\nhttp = \"127.0.0.1:8280\"\n[admin]\nlisten = \"127.0.0.1:9901\"";
    assert_snapshot!(at("http://127.0.0.1:8280", own), @"
    t.toml:8:7: error: backends.a.url: `http://127.0.0.1:8280` leads to Tradewind's own `listen.http` (127.0.0.1:8280), expected another server
        hint: requests would come back to this process: write where the backend itself listens
    ");
    assert_snapshot!(at("https://localhost:9901", own), @"
    t.toml:8:7: error: backends.a.url: `https://localhost:9901` leads to Tradewind's own `admin.listen` (127.0.0.1:9901), expected another server
        hint: requests would come back to this process: write where the backend itself listens
    ");
    assert_snapshot!(at("http://localhost:8080", ""), @"
    t.toml:5:7: error: backends.a.url: `http://localhost:8080` leads to Tradewind's own `listen.http` (0.0.0.0:8080), expected another server
        hint: requests would come back to this process: write where the backend itself listens
    ");
    assert_eq!(at("http://127.0.0.1:8281", own), "");
    assert_eq!(at("http://127.0.0.1:8280", "[listen]\nhttp = \"127.0.0.1:0\""), "");
    assert!(!at("http://127.0.0.1:8080", "[listen]\nhttp = \"nowhere\"").contains("own"));
}

/// What is said about these keys of `listen.https`, in a directory with a good certificate, one for nobody, one that has
/// expired, and a key of another.
fn https(keys: &str) -> String {
    https_beside(keys, GOOD)
}

/// As [`https`], before another text than the good one.
fn https_beside(keys: &str, rest: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the file is written");
    let pair = |name: &str, names: &[&str], year: i32| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        write(&format!("{name}.crt"), &params.self_signed(&key).expect("a certificate").pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    };
    pair("a", &["a.test"], 3000);
    pair("old", &["old.test"], 2020);
    pair("nobody", &[], 3000);
    write("prices.csv", "");
    write("garbage.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let https = format!("[listen]\nhttps = {{ addr = \"0.0.0.0:8443\", {keys} }}\n{rest}");
    let said = match config::parse(&https, &dir.path().join("t.toml")) {
        Ok(Loaded { warnings, .. }) => warnings.iter().map(|fault| format!("{fault}\n")).collect(),
        Err(faults) => faults.to_string(),
    };
    let shown = |path: &Path| format!("{}/", path.display());
    said.replace(&shown(dir.path()), "")
}

#[test]
fn certificates() {
    assert_eq!(https("cert = \"a.crt\", key = \"a.key\", min_version = \"1.3\", client_ca = \"a.crt\""), "");
    assert_snapshot!(https("cert = \"old.crt\", key = \"old.key\""), @"
    t.toml:2:41: warning: listen.https.cert: the certificate in `old.crt` expired at 2020-01-01T00:00:00Z
        hint: renew it
    ");
    assert_snapshot!(https("cert = \"a.crt\", key = \"old.key\", certs = [{ cert = \"nobody.crt\", key = \"nobody.key\" }]"), @"
    t.toml:2:56: error: listen.https.key: the file `old.key`: it is not the key of the certificate: keys may not be consistent: KeyMismatch
    t.toml:2:85: warning: listen.https.certs[0].cert: the certificate in `nobody.crt` is for no DNS name: no client gets it
    ");
    assert_snapshot!(https("cert = \"nobody.crt\", key = \"nobody.key\", certs = [{ cert = \"nobody.crt\", key = \"nobody.key\" }]"), @"t.toml:2:93: warning: listen.https.certs[0].cert: the certificate in `nobody.crt` is for no DNS name: no client gets it");
    assert_snapshot!(https("cert = \"garbage.crt\", key = \"none.key\", client_ca = \"garbage.crt\""), @"
    t.toml:2:41: error: listen.https.cert: the file `garbage.crt`: its certificate 1 is none (X.509)
    t.toml:2:62: error: listen.https.key: the file `none.key`: there is no such file
        hint: relative paths start at the directory of this file
    t.toml:2:86: error: listen.https.client_ca: the file `garbage.crt`: its certificate 1 is none (X.509)
    ");
    assert_snapshot!(https("cert = \"a.crt\", key = \"a.key\", client_auth = \"optional\""), @"
    t.toml:2:79: error: listen.https.client_auth: without `client_ca` no client is asked for a certificate
        hint: name the authority of the clients' certificates in `client_ca`
    ");
    assert_snapshot!(https("cert = \"a.crt\", key = \"a.key\", min_version = \"1.1\""), @r#"
    t.toml:2:79: error: listen.https.min_version: found "1.1", expected "1.2", "1.3"
        hint: did you mean "1.2"?
    "#);
}

#[test]
fn a_backend_is_not_the_https_listener() {
    let at = |url: &str| {
        https_beside("cert = \"a.crt\", key = \"a.key\"", &GOOD.replacen("https://a.example.com", url, 1))
    };
    assert_snapshot!(at("https://127.0.0.1:8443"), @"
    t.toml:6:7: error: backends.a.url: `https://127.0.0.1:8443` leads to Tradewind's own `listen.https` (0.0.0.0:8443), expected another server
        hint: requests would come back to this process: write where the backend itself listens
    ");
    assert!(at("http://localhost:8443").contains("own `listen.https`"));
    assert_eq!(at("https://127.0.0.1:8444"), "");
}

#[test]
fn the_tls_of_backends() {
    let backend = |keys: &str| with("region = \"us-east-1\"", &format!("region = \"us-east-1\"\n{keys}"));
    assert_eq!(backend("server_name = \"Inside.example.com\""), "");
    assert_snapshot!(backend("server_name = \"a b\""), @r#"
    t.toml:7:15: error: backends.a.server_name: `a b` is no name in a certificate: expected a DNS name or an IP address
        hint: write it like "llama.internal.example.com"
    "#);
    assert_snapshot!(backend("client_cert = \"client.crt\""), @"t.toml:7:15: error: backends.a.client_cert: the key `client_key` is missing");
    assert_snapshot!(backend("client_cert = \"client.crt\"\nclient_key = \"client.key\""), @"
    t.toml:7:15: error: backends.a.client_cert: the file `client.crt`: there is no such file
        hint: relative paths start at the directory of this file
    t.toml:8:14: error: backends.a.client_key: the file `client.key`: there is no such file
        hint: relative paths start at the directory of this file
    ");
    let plain = with("https://a.example.com\"", "http://a.example.com\"\nserver_name = \"b.example.com\"");
    assert_snapshot!(plain, @"
    t.toml:5:15: warning: backends.a.server_name: it has no meaning without TLS
        hint: write https:// if it speaks TLS
    ");
}
