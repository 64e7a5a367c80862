//! Behind other proxies: PROXY headers, and what requests say of whom they are for.

use std::io::{BufReader, Read, Write};

use super::{
    harness::{
        Answer, Backend, Config, Tradewind,
        client::{Exchange, connect},
        curl, eventually,
        http2::Authority,
    },
    turned_away,
};

/// Answers with what it is told of the client.
fn telling() -> Backend {
    Backend::serving("a", |call| {
        let of = |name: &str| call.header(name).unwrap_or("none").to_owned();
        let told =
            ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"].map(of).join("|");
        call.answer(200, &[], told.as_bytes())
    })
}

fn start(listen: &str) -> (Backend, Tradewind) {
    let backend = telling();
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).listen(listen));
    (backend, tradewind)
}

const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [V2_START, &[command, family], &len, rest].concat()
}

/// What is told after this start of a connection; `None` if it is refused.
fn told_after(tradewind: &Tradewind, start: &[u8]) -> Option<String> {
    let mut stream = connect(tradewind.http).unwrap();
    stream.write_all(&[start, b"GET / HTTP/1.1\r\nhost: h.test\r\n\r\n"].concat()).unwrap();
    let mut exchange = Exchange::read_head(BufReader::new(stream), "GET").ok()?;
    Some(String::from_utf8(exchange.rest().unwrap()).unwrap())
}

#[test]
fn a_proxy_header_says_for_whom_a_connection_is() {
    let (_backend, tradewind) = start("proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]");
    let told = |start: &[u8]| told_after(&tradewind, start);
    let expect = |client: &str| Some(format!("{client}|h.test|http|none"));
    assert_eq!(told(b"PROXY TCP4 192.0.2.7 10.0.0.1 56250 443\r\n"), expect("192.0.2.7"));
    assert_eq!(told(b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n"), expect("2001:db8::7"));
    assert_eq!(told(b"PROXY UNKNOWN\r\n"), expect("127.0.0.1"));
    let four = [192, 0, 2, 8, 10, 0, 0, 1, 1, 2, 3, 4];
    assert_eq!(told(&v2(0x21, 0x11, &four)), expect("192.0.2.8"));
    // A health check of the load balancer itself.
    assert_eq!(told(&v2(0x20, 0x00, b"")), expect("127.0.0.1"));
    // Without, or with what is none, nothing is served; and it is not waited for what cannot become one.
    for bad in [&b""[..], b"PROXY TCP4 a b c d\r\n", &v2(0x21, 0x11, &four[..8]), &v2(0x29, 0x11, &four)] {
        assert_eq!(told(bad), None);
    }
    assert_eq!(turned_away(&tradewind, "proxy_header"), 4.0);
    // From elsewhere it does not begin so.
    let url = format!("http://{}/", tradewind.http);
    let direct = curl(&["--interface", "127.0.0.2"], &url);
    assert_eq!((direct.status, direct.body.split('|').next()), (200, Some("127.0.0.2")));
    let lies = curl(&["--interface", "127.0.0.2", "--haproxy-protocol"], &url);
    assert_ne!(lies.status, 200);
    // curl writes version 1.
    assert_eq!(curl(&["--haproxy-protocol"], &url).status, 200);
    assert_eq!(curl(&["--haproxy-protocol", "--http2-prior-knowledge"], &url).http_version, "2");
}

#[test]
fn a_proxy_header_comes_in_pieces_before_tls_and_not_too_slowly() {
    let (dir, backend, authority) = (tempfile::tempdir().unwrap(), telling(), Authority::new());
    authority.write_pair(dir.path(), "a", &["a.test"]);
    let listen = "https = { addr = \"127.0.0.1:0\", cert = \"a.crt\", key = \"a.key\" }\nheader_timeout = \"500ms\"\n\
                  proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(&backend, 1.0)]).listen(listen));
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{}/", tradewind.https());
        let answer = curl(&["--insecure", "--haproxy-protocol", version], &url);
        assert!(answer.body.starts_with("127.0.0.1|") && answer.body.contains("|https|"), "{}", answer.body);
    }
    let mut stream = connect(tradewind.http).unwrap();
    for byte in b"PROXY TCP4 192.0.2.7 10.0.0.1 56250 443\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h.test\r\n\r\n").unwrap();
    assert_eq!(Exchange::read_head(BufReader::new(stream), "GET").unwrap().status, 200);
    let mut slow = connect(tradewind.http).unwrap();
    slow.write_all(b"PROXY TCP4 192.0.2.7").unwrap();
    assert_eq!(slow.read(&mut [0]).unwrap(), 0);
    eventually("it is counted", || turned_away(&tradewind, "slow") == 1.0);
}

fn ask(tradewind: &Tradewind) -> Answer {
    let headers = [
        ("x-forwarded-for", "192.0.2.1, 10.0.0.9"),
        ("x-forwarded-host", "front.test"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=192.0.2.1"),
        ("host", "own.test"),
    ];
    tradewind.client().request("GET", "/", &headers, b"").unwrap()
}

#[test]
fn only_trusted_proxies_are_believed_also_after_a_reload() {
    let backend = telling();
    let config = Config::new(&[(&backend, 1.0)]);
    let tradewind = Tradewind::start(&config.clone().listen("trusted_proxies = [\"127.0.0.0/8\"]"));
    assert_eq!(ask(&tradewind).text(), "192.0.2.1, 10.0.0.9, 127.0.0.1|front.test|https|none");
    tradewind.put("t.toml", &config.listen("trusted_proxies = [\"10.0.0.0/8\"]").text());
    eventually("it holds", || ask(&tradewind).text() == "127.0.0.1|own.test|http|none");
}
