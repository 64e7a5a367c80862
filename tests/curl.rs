//! curl as anyone uses it, over every version of HTTP that it speaks.

mod harness;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use harness::{Backend, Config, Curled, Tradewind, curl, curl_reading, http2::Authority};
use tempfile::TempDir;

/// Says what it was asked for and how much came with it; `/socket` is a web socket that says hello.
fn backend() -> Backend {
    Backend::serving("a", |call| {
        if call.path == "/socket" && call.header("upgrade").is_some() {
            call.raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n")?;
            call.raw(b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")?;
            // A text, and the end.
            call.raw(b"\x81\x05hello\x88\x02\x03\xe8")?;
            return call.cut();
        }
        if call.header("expect").is_some() {
            call.raw(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let sum: u64 = call.body()?.iter().map(|byte| u64::from(*byte)).sum();
        let big = call.header("x-big").map_or(0, str::len);
        let text = format!("{} {} {sum} {big}", call.method, call.path);
        call.answer(200, &[("x-own", "kept")], text.as_bytes())
    })
}

/// A Tradewind with both listeners, and files to upload.
struct World {
    _backend: Backend,
    dir: TempDir,
    tradewind: Tradewind,
}

/// A way to speak to it: options of curl, and the version that comes of them.
type Way = (&'static [&'static str], bool, &'static str);

const WAYS: [Way; 6] = [
    (&["--http1.1"], false, "1.1"),
    (&["--http1.0"], false, "1.1"),
    (&["--http2-prior-knowledge"], false, "2"),
    (&["--http1.1", "--insecure"], true, "1.1"),
    (&["--http2", "--insecure"], true, "2"),
    // What curl does by itself: HTTP/2 where ALPN has it.
    (&["--insecure"], true, "2"),
];

impl World {
    fn new() -> World {
        let (dir, backend) = (tempfile::tempdir().unwrap(), backend());
        Authority::new().write_pair(dir.path(), "a", &["localhost"]);
        let listen = "https = { addr = \"127.0.0.1:0\", cert = \"a.crt\", key = \"a.key\" }";
        let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(&backend, 1.0)]).listen(listen));
        fs::write(dir.path().join("large"), vec![1; 3_000_000]).unwrap();
        fs::write(dir.path().join("small"), vec![1; 1000]).unwrap();
        World { _backend: backend, dir, tradewind }
    }

    fn url(&self, tls: bool, path: &str) -> String {
        match tls {
            true => format!("https://{}{path}", self.tradewind.https()),
            false => format!("http://{}{path}", self.tradewind.http),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs curl in each way; what it is given must come of it.
    fn each(&self, args: &[&str], path: &str, expected: &str) {
        for (way, tls, version) in WAYS {
            let answer = curl(&[way, args].concat(), &self.url(tls, path));
            assert!(is(&answer, version, expected), "{way:?} {args:?}: {answer:?}");
        }
    }
}

fn is(answer: &Curled, version: &str, body: &str) -> bool {
    (answer.code, answer.status, &*answer.http_version, &*answer.body) == (0, 200, version, body)
}

#[test]
fn requests_and_uploads_arrive_over_every_version() {
    let world = World::new();
    let of = |name: &str| world.file(name).display().to_string();
    let at = |name: &str| format!("@{}", of(name));
    world.each(&[], "/a?b=c", "GET /a?b=c 0 0");
    world.each(&["--request", "DELETE"], "/a", "DELETE /a 0 0");
    world.each(&["--data", "\u{1}\u{2}"], "/a", "POST /a 3 0");
    world.each(&["--data-binary", &at("large")], "/a", "POST /a 3000000 0");
    world.each(&["--upload-file", &of("large")], "/a", "PUT /a 3000000 0");
    // Many of them at once, over one connection where that is possible. With prior knowledge curl 7.88 gives up at the second
    // request, whoever the server is.
    for (version, tls) in [("--http1.1", false), ("--http2", true)] {
        let urls: Vec<String> = (0..20).map(|n| world.url(tls, &format!("/{n}"))).collect();
        let mut args = vec![version, "--insecure", "--parallel", "--fail"];
        args.extend(urls[1..].iter().map(|url| &**url));
        assert_eq!(curl(&args, &urls[0]).code, 0, "{version}");
    }
}

#[test]
fn head_has_a_head_and_nothing_else() {
    let world = World::new();
    for (way, tls, version) in WAYS {
        let answer = curl(&[way, &["--head"]].concat(), &world.url(tls, "/a"));
        assert_eq!((answer.code, answer.status, &*answer.http_version), (0, 200, version), "{way:?}");
        let head = answer.body.to_lowercase();
        assert!(head.contains("x-own: kept") && head.contains("content-length: 11"), "{way:?}: {head}");
        assert!(!head.contains("head /a"), "{way:?}: {head}");
    }
}

#[test]
fn a_client_that_expects_100_continue_is_told_to() {
    let world = World::new();
    let data = format!("@{}", world.file("large").display());
    let expects = ["--header", "Expect: 100-continue", "--data-binary", &data, "--expect100-timeout"];
    for (way, tls, version) in WAYS {
        let patience = match version {
            // HTTP/1.0 has no 100.
            _ if way.contains(&"--http1.0") => continue,
            // Longer than for all of the answer: without a 100, it gives up.
            "1.1" => "1000",
            // Pingora passes on no 1xx over HTTP/2: a client sends its body after a time of its own.
            _ => "0.1",
        };
        let answer = curl(&[way, &expects, &[patience]].concat(), &world.url(tls, "/a"));
        assert!(is(&answer, version, "POST /a 3000000 0"), "{way:?}: {answer:?}");
    }
}

#[test]
fn uploads_of_unknown_length_arrive() {
    let world = World::new();
    for (way, tls, version) in WAYS {
        let file = fs::File::open(world.file("large")).unwrap();
        let answer =
            curl_reading(Stdio::from(file), &[way, &["--upload-file", "-"]].concat(), &world.url(tls, "/a"));
        if way.contains(&"--http1.0") {
            // 25: "Chunky upload is not supported by HTTP 1.0", says curl.
            assert_eq!(answer.code, 25, "{answer:?}");
            continue;
        }
        assert!(is(&answer, version, "PUT /a 3000000 0"), "{way:?}: {answer:?}");
    }
    let data = format!("@{}", world.file("small").display());
    let chunked = ["--http1.1", "--header", "Transfer-Encoding: chunked", "--data-binary", &data];
    let answer = curl(&chunked, &world.url(false, "/a"));
    assert!(is(&answer, "1.1", "POST /a 1000 0"), "{answer:?}");
}

#[test]
fn large_headers_arrive_and_larger_ones_are_refused() {
    let world = World::new();
    let header = |length: usize| format!("X-Big: {}", "x".repeat(length));
    world.each(&["--header", &header(30_000)], "/a", "GET /a 0 30000");
    for (way, tls, _) in WAYS {
        let answer = curl(&[way, &["--header", &header(100_000)]].concat(), &world.url(tls, "/a"));
        assert_ne!(answer.status, 200, "{way:?}: {answer:?}");
        if way.contains(&"--http1.1") {
            assert_eq!(answer.status, 431, "{way:?}: {answer:?}");
        }
    }
}

/// RFC 9113 has removed the way to HTTP/2 by `Upgrade: h2c`: who asks for it is served over HTTP/1.1, which curl takes.
#[test]
fn an_upgrade_to_http2_is_not_taken_and_costs_nothing() {
    let world = World::new();
    let answer = curl(&["--http2"], &world.url(false, "/a"));
    assert!(is(&answer, "1.1", "GET /a 0 0"), "{answer:?}");
}

/// Whether this build of curl speaks a protocol.
fn speaks(protocol: &str) -> bool {
    let output = Command::new("curl").arg("--version").output().expect("there is curl");
    let text = harness::stdout(&output);
    let protocols = text.lines().find_map(|line| line.strip_prefix("Protocols: ")).unwrap_or_default();
    protocols.split(' ').any(|found| found == protocol)
}

#[test]
fn a_web_socket_is_opened() {
    let world = World::new();
    let handshake = [
        "--http1.1",
        "--header",
        "Connection: Upgrade",
        "--header",
        "Upgrade: websocket",
        "--header",
        "Sec-WebSocket-Version: 13",
        "--header",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let answer = curl(&handshake, &world.url(false, "/socket"));
    assert_eq!(answer.status, 101, "{answer:?}");
    assert!(answer.body.contains("hello"), "{answer:?}");
    // By itself only a build that has `ws`, as those of Debian from version 13 on.
    if !speaks("ws") {
        eprintln!("SKIPPED: this curl does not speak WebSocket: its handshake was made by hand");
        return;
    }
    let answer = curl(&[], &world.url(false, "/socket").replacen("http", "ws", 1));
    assert!(answer.body.contains("hello"), "{answer:?}");
}
