//! Certificates and the versions that are spoken under them, with curl and rustls as clients.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{
    harness::{
        Backend, Config, Tradewind,
        client::{connect, framing, headers, line, piece},
        curl, eventually,
        http2::Authority,
        put,
    },
    turned_away,
};

/// A configuration with TLS, in a directory with what it names.
fn start(dir: &Path, backend: &Backend, more: &str) -> Tradewind {
    let https = format!("https = {{ addr = \"127.0.0.1:0\", cert = \"a.crt\", key = \"a.key\"{more} }}");
    Tradewind::start_in(dir, &Config::new(&[(backend, 1.0)]).listen(&https))
}

/// A connection over TLS, on which the handshake is done.
struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    fn connect(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Tls {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, connect(to).unwrap());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the handshake succeeds");
        }
        Tls(stream)
    }

    fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// Asks, and gives the body of the answer.
    fn get(&mut self) -> String {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").unwrap();
        let mut reader = BufReader::new(&mut self.0);
        assert!(line(&mut reader).unwrap().contains(" 200 "));
        let mut framing = framing(&headers(&mut reader).unwrap()).unwrap();
        let mut body = Vec::new();
        while let Some(part) = piece(&mut reader, &mut framing).unwrap() {
            body.extend(part);
        }
        String::from_utf8(body).unwrap()
    }
}

fn client(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.ca_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let (dir, backend, authority) = (tempfile::tempdir().unwrap(), Backend::named("a"), Authority::new());
    let dir = dir.path();
    authority.write(dir, "ca.pem");
    authority.write_pair(dir, "a", &["a.test"]);
    authority.write_pair(dir, "b", &["B.test", "*.wild.test"]);
    let tradewind = start(dir, &backend, ", certs = [{ cert = \"b.crt\", key = \"b.key\" }]");
    let port = tradewind.https().port();
    let ca = dir.join("ca.pem").display().to_string();
    let ask = |name: &str, more: &[&str]| {
        let resolve = format!("{name}:{port}:127.0.0.1");
        let args = [&["--cacert", &ca, "--resolve", &resolve], more].concat();
        curl(&args, &format!("https://{name}:{port}/"))
    };
    for name in ["a.test", "b.test", "B.TEST", "x.wild.test"] {
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let answer = ask(name, &[option]);
            assert_eq!(
                (answer.code, answer.status, &*answer.http_version, &*answer.body),
                (0, 200, version, "a"),
                "{name} {option}"
            );
        }
    }
    assert_eq!(ask("a.test", &["--tls-max", "1.2"]).status, 200);
    assert_eq!(ask("a.test", &["--tlsv1.3"]).status, 200);
    // 60: the certificate is not for the name.
    for other in ["c.test", "x.y.wild.test", "wild.test"] {
        assert_eq!(ask(other, &[]).code, 60, "{other}");
    }
    let answer = ask("a.test", &["--http1.0"]);
    assert_eq!((answer.status, &*answer.body), (200, "a"));
}

#[test]
fn a_backend_learns_that_the_client_came_over_tls() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let backend = Backend::serving("a", |call| {
        let proto = call.header("x-forwarded-proto").unwrap_or_default().to_owned();
        call.answer(200, &[], proto.as_bytes())
    });
    authority.write_pair(dir.path(), "a", &["a.test"]);
    let tradewind = start(dir.path(), &backend, "");
    for version in ["--http1.1", "--http2"] {
        let answer = curl(&["--insecure", version], &format!("https://{}/", tradewind.https()));
        assert_eq!(answer.body, "https", "{version}");
    }
    assert_eq!(tradewind.fetch("/").text(), "http");
}

#[test]
fn an_old_version_is_refused() {
    let (dir, backend, authority) = (tempfile::tempdir().unwrap(), Backend::named("a"), Authority::new());
    authority.write_pair(dir.path(), "a", &["a.test"]);
    let tradewind = start(dir.path(), &backend, ", min_version = \"1.3\"");
    let url = format!("https://{}/", tradewind.https());
    assert_eq!(curl(&["--insecure"], &url).status, 200);
    let refused = curl(&["--insecure", "--tls-max", "1.2"], &url);
    assert_eq!((refused.code, refused.status), (35, 0));
    eventually("it is counted", || turned_away(&tradewind, "handshake") == 1.0);
}

#[test]
fn clients_show_certificates_where_they_must_and_never_wrong_ones() {
    let (dir, backend) = (tempfile::tempdir().unwrap(), Backend::named("a"));
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let dir = dir.path();
    authority.write_pair(dir, "a", &["a.test"]);
    clients.write(dir, "clients.pem");
    clients.write_pair(dir, "good", &["client"]);
    others.write_pair(dir, "bad", &["client"]);
    let file = |name: &str| dir.join(name).display().to_string();
    for (auth, without) in [("required", 0), ("optional", 200)] {
        let tls = format!(", client_ca = \"clients.pem\", client_auth = \"{auth}\"");
        let mut tradewind = start(dir, &backend, &tls);
        let url = format!("https://{}/", tradewind.https());
        let with = |name: &str| {
            let (cert, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
            curl(&["--insecure", "--cert", &cert, "--key", &key], &url).status
        };
        assert_eq!(with("good"), 200, "{auth}");
        assert_eq!(with("bad"), 0, "{auth}");
        assert_eq!(curl(&["--insecure"], &url).status, without, "{auth}");
        tradewind.kill();
    }
}

#[test]
fn a_renewed_certificate_is_taken_up_and_no_connection_ends() {
    let (dir, backend, authority) = (tempfile::tempdir().unwrap(), Backend::named("a"), Authority::new());
    let dir = dir.path();
    // As Kubernetes mounts a secret: the files are links into a directory that is a link itself.
    for version in ["v1", "v2"] {
        fs::create_dir(dir.join(version)).unwrap();
        authority.write_pair(&dir.join(version), "a", &["a.test"]);
    }
    symlink("v1", dir.join("current")).unwrap();
    for file in ["a.crt", "a.key"] {
        symlink(format!("current/{file}"), dir.join(file)).unwrap();
    }
    let tradewind = start(dir, &backend, "");
    let (to, config) = (tradewind.https(), client(&authority));
    let mut open = Tls::connect(to, &config, "a.test");
    let first = open.certificate();
    assert_eq!(open.get(), "a");
    let expiry = "tradewind_certificate_expiry_timestamp_seconds{file=\"a.crt\",listener=\"https\"}";
    assert!(tradewind.metric(expiry).expect("it is there") > 1.7e9);

    symlink("v2", dir.join("next")).unwrap();
    fs::rename(dir.join("next"), dir.join("current")).unwrap();
    let presented = || Tls::connect(to, &client(&authority), "a.test").certificate();
    eventually("new connections get the new certificate", || presented() != first);
    let second = presented();
    assert_eq!(open.get(), "a", "the old connection goes on");

    // A certificate without its key is taken up neither by itself nor on demand, and the one in use stays.
    put(dir, "a.crt", &authority.issue(&["a.test"]).0);
    let failures = || tradewind.metric("tradewind_config_reload_failures_total{}").unwrap();
    eventually("it was refused", || failures() >= 1.0);
    let (status, said) = tradewind.call("POST", "/v1/reload", None);
    assert_eq!(status, 422, "{said}");
    assert!(said.to_string().contains("it is not the key of the certificate"), "{said}");
    assert!(tradewind.log().contains("a certificate was not renewed, the one in use stays"));
    assert_eq!(presented(), second);

    // Certificates are renewed even while the rest of the configuration cannot be used.
    put(dir, "t.toml", "nonsense");
    authority.write_pair(dir, "a", &["a.test"]);
    eventually("it is renewed", || presented() != second);
    assert_eq!(open.get(), "a");
}

#[test]
fn sessions_are_resumed_also_after_a_renewal() {
    let (dir, backend, authority) = (tempfile::tempdir().unwrap(), Backend::named("a"), Authority::new());
    authority.write_pair(dir.path(), "a", &["a.test"]);
    let tradewind = start(dir.path(), &backend, "");
    let config = client(&authority);
    let visit = || {
        let mut tls = Tls::connect(tradewind.https(), &config, "a.test");
        // The ticket comes with the answer.
        assert_eq!(tls.get(), "a");
        tls.0.conn.handshake_kind().unwrap()
    };
    assert_eq!(visit(), HandshakeKind::Full);
    assert_eq!(visit(), HandshakeKind::Resumed);
    authority.write_pair(dir.path(), "a", &["a.test"]);
    assert_eq!(tradewind.call("POST", "/v1/reload", None).0, 200);
    assert_eq!(visit(), HandshakeKind::Resumed);
}

#[test]
fn what_is_no_tls_or_takes_too_long_is_ended_and_counted() {
    let (dir, backend, authority) = (tempfile::tempdir().unwrap(), Backend::named("a"), Authority::new());
    authority.write_pair(dir.path(), "a", &["a.test"]);
    let https =
        "https = { addr = \"127.0.0.1:0\", cert = \"a.crt\", key = \"a.key\" }\nheader_timeout = \"300ms\"";
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(&backend, 1.0)]).listen(https));
    let mut plain = connect(tradewind.https()).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    plain.read_to_end(&mut Vec::new()).unwrap();
    let mut silent = connect(tradewind.https()).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    for reason in ["handshake", "slow"] {
        eventually("it is counted", || turned_away(&tradewind, reason) == 1.0);
    }
}

#[test]
fn a_backend_is_shown_a_certificate_and_asked_for_its_own_name() {
    let (dir, ours) = (tempfile::tempdir().unwrap(), Authority::new());
    let dir = dir.path();
    ours.write(dir, "ca.pem");
    ours.write_pair(dir, "inside", &["inside.test"]);
    ours.write_pair(dir, "client", &["client"]);
    // A Tradewind that asks for certificates is the backend of another.
    let echo = Backend::named("a");
    let inner_dir = dir.join("inner");
    fs::create_dir(&inner_dir).unwrap();
    for file in ["ca.pem", "inside.crt", "inside.key"] {
        fs::copy(dir.join(file), inner_dir.join(file)).unwrap();
    }
    let https = "https = { addr = \"127.0.0.1:0\", cert = \"inside.crt\", key = \"inside.key\", client_ca = \"ca.pem\" }";
    let inner = Tradewind::start_in(&inner_dir, &Config::new(&[(&echo, 1.0)]).listen(https));
    let url = format!("https://127.0.0.1:{}", inner.https().port());
    let name = "ca = \"ca.pem\"\nserver_name = \"inside.test\"\n";
    let shown = "client_cert = \"client.crt\"\nclient_key = \"client.key\"\n";
    let prices = super::harness::config::prices(&[("b", 1.0)]);
    let outer = |keys: &str| Config::new(&[]).backend("b", &url, keys).price_file(&prices);
    for protocol in ["http1", "http2"] {
        let keys = format!("{name}{shown}protocol = \"{protocol}\"");
        let tradewind = Tradewind::start_in(dir, &outer(&keys));
        assert_eq!(tradewind.fetch("/").text(), "a", "{protocol}");
    }
    // Without the certificate, or the name, the probes fail, and so would requests.
    let refused = |keys: &str| {
        outer(keys).write(dir);
        let mut tradewind = Tradewind::start_in(dir, &outer(&format!("{name}{shown}")));
        tradewind.put("t.toml", &outer(keys).text());
        eventually("its probes fail", || tradewind.backend("b")["health"] == "unhealthy");
        tradewind.kill();
    };
    refused(name);
    refused(&format!("ca = \"ca.pem\"\n{shown}"));
}
