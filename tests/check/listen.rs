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
    assert_eq!(listen("max_connections = 1\nmax_connections_per_ip = 1\nhead_max = \"4KiB\"\nheaders_max = 250"), "");
    assert_snapshot!(listen("proxy_protocol = true"), @"");
    assert_snapshot!(listen("trusted_proxies = [\"10.0.0.1/8\"]"), @"");
    assert_snapshot!(listen("trusted_proxies = [\"lb.example.com\"]"), @"");
    assert_snapshot!(
        listen("header_timeout = \"10ms\"\nsilence_timeout = \"0s\"\nidle_timeout = \"2d\"\nhead_max = \"1KiB\"\nheaders_max = 300\nstreams_max = 0"),
        @""
    );
}

/// What is said about these keys of `listen.https`, in a directory with a good certificate, one for nobody, one that has
/// expired, and a key of another.
fn https(keys: &str) -> String {
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
    write("garbage.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let https = format!("[listen]\nhttps = {{ addr = \"0.0.0.0:8443\", {keys} }}\n{GOOD}");
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
    assert_snapshot!(https("cert = \"old.crt\", key = \"old.key\""), @"");
    assert_snapshot!(https("cert = \"a.crt\", key = \"old.key\", certs = [{ cert = \"nobody.crt\", key = \"nobody.key\" }]"), @"");
    assert_snapshot!(https("cert = \"nobody.crt\", key = \"nobody.key\", certs = [{ cert = \"nobody.crt\", key = \"nobody.key\" }]"), @"");
    assert_snapshot!(https("cert = \"garbage.crt\", key = \"none.key\", client_ca = \"garbage.crt\""), @"");
    assert_snapshot!(https("cert = \"a.crt\", key = \"a.key\", client_auth = \"optional\""), @"");
    assert_snapshot!(https("cert = \"a.crt\", key = \"a.key\", min_version = \"1.1\""), @"");
}

#[test]
fn the_tls_of_backends() {
    let backend = |keys: &str| with("region = \"us-east-1\"", &format!("region = \"us-east-1\"\n{keys}"));
    assert_eq!(backend("server_name = \"Inside.example.com\""), "");
    assert_snapshot!(backend("server_name = \"a b\""), @"");
    assert_snapshot!(backend("client_cert = \"client.crt\""), @"");
    assert_snapshot!(backend("client_cert = \"client.crt\"\nclient_key = \"client.key\""), @"");
    let plain = with("https://a.example.com\"", "http://a.example.com\"\nserver_name = \"b.example.com\"");
    assert_snapshot!(plain, @"");
}
