//! Who may do what: tokens by their digest, that end and can be taken back; who guesses has to wait; what was refused is written
//! down, in a chain that shows what is missing.

mod harness;

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Command,
};

use harness::{Answer, Backend, Client, Config, Tradewind, cli, eventually, put, stdout, until};
use serde_json::{Value, json};

fn sha256(text: &str) -> String {
    let output =
        Command::new("sh").args(["-c", &format!("printf %s '{text}' | sha256sum")]).output().unwrap();
    stdout(&output)[..64].to_owned()
}

fn tokens(more: &str) -> String {
    format!(
        "tokens = [\n  {{ name = \"eve\", role = \"viewer\", value = {{ file = \"eve\" }} }},\n  \
         {{ name = \"oncall\", role = \"operator\", value = {{ sha256 = \"{}\" }} }},\n  \
         {{ name = \"root\", role = \"admin\", value = {{ sha256 = \"{}\" }} }},\n{more}]",
        sha256("operator-secret"),
        sha256("admin-secret"),
    )
}

fn start(dir: &Path, admin: &str) -> (Backend, Config, Tradewind) {
    let a = Backend::named("a");
    put(dir, "eve", "viewer-secret\n");
    let config = Config::new(&[(&a, 1.0)]).admin(admin);
    let tradewind = Tradewind::start_in(dir, &config);
    (a, config, tradewind)
}

fn ask(tradewind: &Tradewind, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    Client::new(tradewind.admin).request(method, path, headers, body.as_bytes()).unwrap()
}

fn with_token(tradewind: &Tradewind, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    ask(tradewind, method, path, &[("authorization", &bearer), ("content-type", "application/json")], body)
}

const DRAIN: &str = r#"{"kind":"drain","backend":"a","ttl":"10m","reason":"a test"}"#;

#[test]
fn tokens_are_known_by_their_digest_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let ended = format!(
        "  {{ name = \"past\", role = \"admin\", value = {{ sha256 = \"{}\" }}, expires = \"2026-01-01T00:00:00Z\" }},\n",
        sha256("past-secret")
    );
    let (_a, config, tradewind) = start(dir.path(), &tokens(&ended));
    let status = |token: &str| with_token(&tradewind, "GET", "/v1/status", token, "").status;
    assert_eq!([status("viewer-secret"), status("operator-secret"), status("admin-secret")], [200, 200, 200]);
    let past = with_token(&tradewind, "GET", "/v1/status", "past-secret", "");
    assert_eq!((past.status, &past.json()["code"]), (401, &"expired_token".into()));
    // The digest opens nothing.
    assert_eq!(status(&sha256("operator-secret")), 401);
    let shown = with_token(&tradewind, "GET", "/v1/config", "admin-secret", "").text();
    assert!(!shown.contains(&sha256("operator-secret")) && !shown.contains("secret\""), "{shown}");

    // Taken back while a browser holds a session by it.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let session = ask(&tradewind, "POST", "/session", &form, "token=operator-secret");
    let cookie = session.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let by_session = || ask(&tradewind, "GET", "/v1/status", &[("cookie", &cookie)], "").status;
    assert_eq!(by_session(), 200);
    let without: String =
        config.text().lines().filter(|line| !line.contains("oncall")).map(|l| format!("{l}\n")).collect();
    put(dir.path(), "t.toml", &without);
    eventually("the token is taken back", || status("operator-secret") == 401);
    assert_eq!(by_session(), 401);
    assert_eq!(status("viewer-secret"), 200);
}

#[test]
fn a_digest_that_is_none_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    let config = Config::new(&[(&a, 1.0)]).admin(&format!(
        "tokens = [{{ name = \"x\", role = \"viewer\", value = {{ sha256 = \"{}\" }} }}]",
        "z".repeat(64)
    ));
    config.write(dir.path());
    let output = harness::command(dir.path())
        .args(["check", "--config"])
        .arg(dir.path().join("t.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("it is not a SHA-256") && said.contains("sha256sum"), "{said}");
}

#[test]
fn who_guesses_has_to_wait_and_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let (_a, _config, tradewind) = start(dir.path(), &tokens(""));
    let mut answers = Vec::new();
    for n in 0..30 {
        answers.push(with_token(&tradewind, "GET", "/v1/status", &format!("guess-{n}"), ""));
    }
    let refused = answers.iter().position(|answer| answer.status == 429).expect("it is stopped");
    assert!((10..15).contains(&refused), "after {refused}");
    assert!(answers[..refused].iter().all(|answer| answer.status == 401));
    let stopped = &answers[refused];
    assert_eq!(stopped.json()["code"], "too_many_attempts");
    let wait: u64 = stopped.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=7).contains(&wait), "{wait}");
    // The right one would tell a guesser that it is right.
    assert_eq!(with_token(&tradewind, "GET", "/v1/status", "admin-secret", "").status, 429);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(ask(&tradewind, "POST", "/session", &form, "token=admin-secret").status, 429);
    eventually("the address may try again", || {
        with_token(&tradewind, "GET", "/v1/status", "admin-secret", "").status == 200
    });

    with_token(&tradewind, "POST", "/v1/overrides", "viewer-secret", DRAIN);
    let forged = ask(
        &tradewind,
        "POST",
        "/v1/overrides",
        &[("authorization", "Bearer operator-secret"), ("origin", "https://evil.example")],
        DRAIN,
    );
    assert_eq!((forged.status, &forged.json()["code"]), (403, &"foreign_origin".into()));
    let codes = until("all of it is written down", || {
        let journal = with_token(&tradewind, "GET", "/v1/decisions?kind=audit", "admin-secret", "").json();
        let entries = journal["decisions"].as_array().unwrap().clone();
        let codes: Vec<String> =
            entries.iter().map(|entry| entry["why"].as_str().unwrap().to_owned()).collect();
        let all = ["unknown_token", "too_many_attempts", "role", "foreign_origin"];
        all.iter().all(|code| codes.iter().any(|c| c == code)).then_some(entries)
    });
    let viewer = codes.iter().find(|entry| entry["why"] == "role").unwrap();
    assert_eq!(
        (&viewer["author"], &viewer["event"], &viewer["status"], &viewer["from"]),
        (&"eve".into(), &"POST /v1/overrides".into(), &403.into(), &"127.0.0.1".into())
    );
    let text = format!("{codes:?}{}", tradewind.log());
    for secret in ["guess-3", "admin-secret", "viewer-secret"] {
        assert!(!text.contains(secret), "{secret} was written down");
    }
}

#[test]
fn only_names_of_its_own_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (_a, _config, tradewind) = start(dir.path(), "hosts = [\"tradewind.example.com\"]");
    let by = |host: &str| ask(&tradewind, "GET", "/v1/status", &[("host", host)], "").status;
    assert_eq!(by("tradewind.example.com:9901"), 200);
    assert_eq!(by("Tradewind.example.com"), 200);
    assert_eq!(by("localhost"), 200);
    assert_eq!(by("evil.example.com"), 403);
    let dir = tempfile::tempdir().unwrap();
    let (_a, _config, tradewind) =
        start(dir.path(), &format!("hosts = [\"tradewind.example.com\"]\n{}", tokens("")));
    let bearer = ("authorization", "Bearer viewer-secret");
    let by = |host: &str| ask(&tradewind, "GET", "/v1/status", &[("host", host), bearer], "").status;
    assert_eq!((by("tradewind.example.com"), by("evil.example.com")), (200, 403));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let sign_in =
        ask(&tradewind, "POST", "/session", &[("host", "evil.example.com"), form], "token=viewer-secret");
    assert_eq!(sign_in.status, 403);
}

#[test]
fn the_socket_is_for_this_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_a, config, mut tradewind) = start(dir.path(), &format!("socket = \"admin.sock\"\n{}", tokens("")));
    let path = dir.path().join("admin.sock");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let admin = format!("unix:{}", path.display());
    let drained = cli(&["override", "drain", "a", "--ttl", "10m", "--reason", "a test", "--json"], &admin);
    assert!(drained.status.success(), "{drained:?}");
    let drained: Value = serde_json::from_slice(&drained.stdout).unwrap();
    assert_eq!(drained["author"], "local");
    assert!(cli(&["status"], &admin).status.success());
    // What a crash leaves is replaced.
    tradewind.kill();
    assert!(path.exists());
    tradewind.start_again();
    assert!(cli(&["status"], &admin).status.success());
    assert_eq!(mode(), 0o600);
    // One that is in use is not.
    let other = tempfile::tempdir().unwrap();
    put(other.path(), "eve", "viewer-secret\n");
    let text = config.text().replace("admin.sock", path.to_str().unwrap());
    config.write(other.path());
    put(other.path(), "t.toml", &text);
    let (code, said) = harness::run_to_the_end(other.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("admin.socket"), "{said}");
    tradewind.signal("TERM");
    until("it ends", || tradewind.ended());
    assert!(!path.exists(), "it is gone with the process");
}

#[test]
fn the_socket_may_be_the_only_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let a = harness::Backend::named("a");
    let config = Config::new(&[(&a, 1.0)]);
    config.write(dir.path());
    let text = config.text().replace("listen = \"127.0.0.1:0\"\n", "socket = \"admin.sock\"\n");
    put(dir.path(), "t.toml", &text);
    let path = dir.path().join("admin.sock");
    let admin = format!("unix:{}", path.display());
    let mut child = harness::command(dir.path())
        .args(["run", "--config"])
        .arg(dir.path().join("t.toml"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it is ready by the socket", || cli(&["status", "--ready"], &admin).status.success());
    let sockets = tcp_listeners(child.id());
    assert_eq!(sockets, 1, "only clients are served over TCP");
    let status = cli(&["status", "--json"], &admin);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["routes"][0]["route"], "chat");
    harness::signal(child.id(), "TERM");
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success() && said.contains(&format!("admin={admin}")), "{said}");
    assert!(!path.exists(), "it is gone with the process");
}

/// How many TCP sockets a process listens on.
fn tcp_listeners(pid: u32) -> usize {
    let inodes = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|fd| {
        let to = fs::read_link(fd.ok()?.path()).ok()?;
        Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    });
    let inodes: std::collections::BTreeSet<String> = inodes.collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    // State 0A is LISTEN; the inode is the tenth column.
    let listening = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(3) == Some(&"0A")).then(|| columns.get(9).copied()).flatten()
    });
    listening.filter(|inode| inodes.contains(*inode)).count()
}

#[test]
fn the_certificate_of_the_admin_api_is_renewed_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let issue = |year: i32| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let made = params.self_signed(&key).unwrap();
        put(dir.path(), "admin.key", &key.serialize_pem());
        put(dir.path(), "admin.crt", &made.pem());
        put(dir.path(), "ca.pem", &made.pem());
    };
    issue(2031);
    let a = harness::Backend::named("a");
    let tls = format!(
        "tls = {{ cert = \"admin.crt\", key = \"admin.key\" }}\nsocket = \"admin.sock\"\n{}",
        tokens("")
    );
    put(dir.path(), "eve", "viewer-secret\n");
    let config = Config::new(&[(&a, 1.0)]).admin(&tls);
    config.write(dir.path());
    let (ca, token) = (dir.path().join("ca.pem"), dir.path().join("eve"));
    let mut child = harness::command(dir.path())
        .args(["run", "--config"])
        .arg(dir.path().join("t.toml"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let serving = lines.by_ref().map_while(Result::ok).find(|line| line.contains("serving http=")).unwrap();
    let at = serving.split("admin=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let said = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    let asks = || {
        let (ca, token) = (ca.to_str().unwrap(), token.to_str().unwrap());
        cli(&["status", "--admin-ca", ca, "--token-file", token], &format!("https://{at}")).status.success()
    };
    eventually("it answers", asks);
    let socket = dir.path().join("admin.sock");
    let ends = || {
        let name = "tradewind_certificate_expiry_timestamp_seconds{file=\"admin.crt\",listener=\"admin\"} ";
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let metrics = std::io::read_to_string(stream).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("it is there").to_owned();
        line.parse::<f64>().unwrap()
    };
    assert_eq!(ends(), 1_924_992_000.0);
    issue(2032);
    eventually("it answers by the new certificate", asks);
    assert_eq!(ends(), 1_956_528_000.0, "the one in use is the one that is told of");
    // One without its key is not taken up.
    put(dir.path(), "admin.key", "no key\n");
    eventually("it is refused", || {
        let status = cli(&["status", "--json"], &format!("unix:{}", dir.path().join("admin.sock").display()));
        String::from_utf8_lossy(&status.stdout).contains("config_error")
    });
    assert!(asks() && ends() == 1_956_528_000.0, "the one in use stays");
    harness::signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    let said = said.join().unwrap();
    assert!(said.contains("the admin API's certificate was not renewed, the one in use stays"), "{said}");
}

#[test]
fn a_request_that_is_sent_again_is_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_a, _config, mut tradewind) = start(dir.path(), "");
    let add = |tradewind: &Tradewind, key: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let answer = ask(tradewind, "POST", "/v1/overrides", &headers, body);
        (answer.status, answer.json())
    };
    let (status, first) = add(&tradewind, "drain-1", DRAIN);
    assert_eq!(status, 201, "{first}");
    let (status, again) = add(&tradewind, "drain-1", DRAIN);
    assert_eq!((status, &again["id"]), (201, &first["id"]));
    tradewind.kill();
    tradewind.start_again();
    assert_eq!(add(&tradewind, "drain-1", DRAIN).1["id"], first["id"], "also after a crash");
    let (status, other) = add(&tradewind, "drain-1", &DRAIN.replace("10m", "20m"));
    assert_eq!((status, &other["code"]), (422, &"idempotency_key_reused".into()));
    let (_, second) = add(&tradewind, "drain-2", DRAIN);
    assert_ne!(second["id"], first["id"]);
    assert_eq!(add(&tradewind, "", DRAIN).0, 400);
    assert_eq!(tradewind.json("/v1/overrides")["overrides"].as_array().unwrap().len(), 2);
}

#[test]
fn a_reload_is_refused_when_another_one_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let (_a, _config, tradewind) = start(dir.path(), "");
    let seen = ask(&tradewind, "GET", "/v1/config", &[], "");
    let tag = seen.header("etag").unwrap().to_owned();
    let reload = |tag: &str| ask(&tradewind, "POST", "/v1/reload", &[("if-match", tag)], "");
    assert_eq!(reload(&tag).status, 200);
    let late = reload(&tag);
    assert_eq!((late.status, &late.json()["code"]), (412, &"not_as_seen".into()));
    assert_eq!(reload("nonsense").status, 400);
    let tag = ask(&tradewind, "GET", "/v1/config", &[], "").header("etag").unwrap().to_owned();
    assert_eq!(reload(&tag).status, 200);
}

#[test]
fn the_audit_shows_what_was_changed_and_that_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (_a, config, tradewind) = start(dir.path(), &tokens(""));
    let added = with_token(&tradewind, "POST", "/v1/overrides", "operator-secret", DRAIN).json();
    let id = added["id"].as_str().unwrap();
    with_token(&tradewind, "DELETE", &format!("/v1/overrides/{id}"), "operator-secret", "");
    put(dir.path(), "t.toml", &config.text().replace("\"15%\"", "\"20%\""));
    eventually("it is taken up", || {
        with_token(&tradewind, "GET", "/v1/decisions?kind=audit", "admin-secret", "")
            .text()
            .contains("config.reloaded")
    });
    let report = |more: &[&str]| {
        let mut command = harness::command(dir.path());
        command.args(["report", "--audit", "--config"]).arg(dir.path().join("t.toml")).args(more);
        command.output().unwrap()
    };
    let text = stdout(&report(&[]));
    for part in
        ["oncall", "override.added", "override.ended", "a test", "file watch", "policies.default.shift_at"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let outcome: Value = serde_json::from_slice(&report(&["--json"]).stdout).unwrap();
    assert_eq!(outcome["whole"], true, "{outcome}");
    let entries = outcome["entries"].as_array().unwrap();
    let ended = entries.iter().find(|entry| entry["event"] == "override.ended").unwrap();
    assert_eq!((&ended["before"]["id"], &ended["after"]), (&json!(id), &Value::Null));
    let last = outcome["last_hash"].as_str().unwrap();
    assert!(tradewind.log().contains(last), "the log has the hash too");

    let journal = dir.path().join("state/journal/current.jsonl");
    let good = fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let at = lines.iter().position(|line| line.contains("override.ended")).unwrap();
    let missing: String =
        lines.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, line)| format!("{line}\n")).collect();
    for (changed, why) in [
        (good.replace("\"why\":\"a test\"", "\"why\":\"nothing\""), "it was changed"),
        (missing, "entries are missing"),
    ] {
        fs::write(&journal, changed).unwrap();
        let output = report(&[]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the chain is broken") && said.contains(why), "{said}");
    }
}

/// A secret that is everywhere where one may be is nowhere where somebody could read it.
#[test]
fn no_secret_is_shown() {
    const CANARY: &str = "canary-4f2d9a";
    let dir = tempfile::tempdir().unwrap();
    for name in ["eve", "key"] {
        put(dir.path(), name, &format!("{CANARY}-{name}\n"));
    }
    let a = Backend::named("a");
    let tokens = format!(
        "tokens = [{{ name = \"eve\", role = \"viewer\", value = {{ file = \"eve\" }} }}, \
         {{ name = \"root\", role = \"admin\", value = {{ sha256 = \"{}\" }} }}]",
        sha256(&format!("{CANARY}-root"))
    );
    let prices = "sources = [{ file = \"prices.csv\" }, \"gcp\"]\ngcp = { api_key = { file = \"key\" }, endpoint = \"http://127.0.0.1:1\" }";
    let config = Config::new(&[(&a, 1.0)]).admin(&tokens).prices(prices);
    let tradewind = Tradewind::start_in(dir.path(), &config);
    let root = format!("{CANARY}-root");
    let mut read = String::new();
    for path in [
        "/",
        "/metrics",
        "/v1/config",
        "/v1/status",
        "/v1/decisions?kind=audit",
        "/v1/decisions",
        "/v1/prices",
        "/openapi.json",
    ] {
        let answer = with_token(&tradewind, "GET", path, &root, "");
        assert_eq!(answer.status, 200, "{path}");
        read += &answer.text();
    }
    // Shown wrongly, in every place where one could be put.
    for headers in [
        [("authorization", "Bearer canary-4f2d9a-wrong")],
        [("cookie", "tradewind_session=canary-4f2d9a-wrong")],
    ] {
        read += &ask(&tradewind, "GET", "/v1/status", &headers, "").text();
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    read += &ask(&tradewind, "POST", "/session", &form, "token=canary-4f2d9a-wrong").text();
    // A candidate that names the secret's file as if it were something else.
    let text =
        config.text().replace("prices.csv", "key").replace("[state]", "[log]\nlevel = \"debug\"\n[state]");
    let candidate = json!({ "files": [{ "name": "new.toml", "text": text }] }).to_string();
    read += &with_token(&tradewind, "POST", "/v1/reload?dry_run=true", &root, &candidate).text();
    put(dir.path(), "t.toml", &config.text().replace("shift_at", "shft_at"));
    read += &with_token(&tradewind, "POST", "/v1/reload", &root, "").text();
    tradewind.signal("TERM");
    let mut tradewind = tradewind;
    until("it ends", || tradewind.ended());
    read += &tradewind.log();
    for entry in fs::read_dir(dir.path().join("state"))
        .unwrap()
        .chain(fs::read_dir(dir.path().join("state/journal")).unwrap())
    {
        let path = entry.unwrap().path();
        read +=
            &fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    }
    assert!(read.contains("unknown_token"), "{read}");
    let at = read.find(CANARY).map(|at| read[at.saturating_sub(200)..(at + 100).min(read.len())].to_owned());
    assert_eq!(at, None, "the canary is shown");
}
