//! What operators do from a terminal: follow decisions, ask what would change them, look at a reload before it is done.

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use harness::{Backend, Client, Config, DEADLINE, Tradewind, eventually, put, stdout, until};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_tradewind");

/// The first one is the cheaper one.
fn two() -> (Backend, Backend, Config) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0), (&b, 1.1)]);
    (a, b, config)
}

fn said(output: &Output) -> String {
    format!("{}{}", stdout(output), String::from_utf8_lossy(&output.stderr))
}

fn succeeds(tradewind: &Tradewind, args: &[&str]) -> String {
    let output = tradewind.cli(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
    stdout(&output)
}

/// A command that goes on, and its lines.
struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(tradewind: &Tradewind, args: &[&str]) -> Following {
        let mut child = Command::new(BINARY)
            .args(args)
            .env("TRADEWIND_ADMIN", format!("http://{}", tradewind.admin))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Following { child, lines }
    }

    /// The first line that fits.
    fn line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line with {what}"));
            if fits(&line) {
                return line;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drain(backend: &str) -> Value {
    json!({ "kind": "drain", "backend": backend, "ttl": "10m", "reason": "a test" })
}

#[test]
fn an_override_says_what_would_follow_and_warns_when_nobody_is_left() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(&config);
    tradewind.wait_for_share("a", 1.0);
    let order = |backend: &str, more: &[&str]| {
        let order = ["override", "drain", backend, "--ttl", "10m", "--reason", "a test"];
        tradewind.cli(&[&order, more].concat())
    };
    let looked = order("a", &["--dry-run"]);
    let text = harness::stdout(&looked);
    assert!(text.contains("nothing is stored") && text.contains("chat: b 100%"), "{text}");
    assert_eq!(
        (tradewind.share("a"), tradewind.json("/v1/overrides")["overrides"].clone()),
        (1.0, json!([]))
    );
    let stored = order("a", &[]);
    assert!(stored.status.success() && !said(&stored).contains("warning"), "{}", said(&stored));
    let last = order("b", &[]);
    assert!(last.status.success(), "{}", said(&last));
    assert!(said(&last).contains("warning: route chat: no backend may serve now"), "{}", said(&last));
}

#[test]
fn decisions_are_listed_and_followed() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(&config);
    eventually("the first decision is journaled", || {
        succeeds(&tradewind, &["decisions"]).contains("  place      chat  a 100%")
    });
    let following = Following::start(&tradewind, &["decisions", "--follow", "--kind", "all"]);
    following.line("the first decision", |line| line.contains("place"));
    let as_json =
        Following::start(&tradewind, &["decisions", "--follow", "--json", "--route", "chat", "-n", "1"]);
    as_json.line("one object", |line| serde_json::from_str::<Value>(line).is_ok());

    tradewind.impose(drain("a"));
    let line = following.line("the drain", |line| line.contains("added"));
    assert!(line.contains("drain a on all by local: a test"), "{line}");
    following.line("the move", |line| line.contains("evacuate") && line.contains("b 100%"));
    let moved: Value =
        serde_json::from_str(&as_json.line("the move", |line| line.contains("evacuate"))).unwrap();
    assert_eq!((&moved["route"], &moved["action"]), (&"chat".into(), &"evacuate".into()));

    let listed = succeeds(&tradewind, &["decisions", "--json", "--since", "1h"]);
    let times: Vec<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["at"].as_str().unwrap().to_owned())
        .collect();
    assert!(times.len() >= 2 && times.is_sorted(), "oldest first: {times:?}");
    let wrong = tradewind.cli(&["decisions", "--since", "yesterday"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("2026-03-02T10:00:00Z"), "{}", said(&wrong));
}

#[test]
fn status_is_watched_through_a_restart() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(&config);
    let watching = Following::start(&tradewind, &["status", "--watch=100ms", "--json"]);
    let shown = |route: &str| {
        watching.line(route, |line| {
            let status: Value = serde_json::from_str(line).unwrap();
            status["routes"][0]["backends"][1]["share"] == if route == "b" { 1.0 } else { 0.0 }
        });
    };
    shown("a");
    tradewind.impose(drain("a"));
    shown("b");
}

#[test]
fn explain_says_at_which_price_it_would_move_and_there_it_does() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(
        &config.policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"0s\"\nramp = \"100%/s\""),
    );
    let load = harness::Load::start(tradewind.http, &["GET"], std::time::Duration::from_millis(5));
    tradewind.set_prices(&[("a", 1.0), ("b", 0.95)]);
    let explained = tradewind.wait_for_reason("gap_below_threshold");
    let points = explained["turning_points"].as_array().unwrap_or_else(|| panic!("{explained}"));
    let point = points.iter().find(|point| point["backend"] == "b").unwrap_or_else(|| panic!("{explained}"));
    assert_eq!(point["offer"], "on_demand");
    let price = point["turns_at_usd_per_hour"].as_f64().unwrap();
    assert!((price - 0.85).abs() < 1e-3, "{price}");
    let text = succeeds(&tradewind, &["explain", "chat"]);
    assert!(text.contains("Traffic would begin to move at these prices"), "{text}");
    tradewind.set_prices(&[("a", 1.0), ("b", price - 1e-4)]);
    tradewind.wait_for_share("b", 1.0);
    drop(load);
}

#[test]
fn a_reload_is_looked_at_before_it_is_done() {
    let (_a, _b, config) = two();
    let tradewind = Tradewind::start(&config);
    let dir = tempfile::tempdir().unwrap();
    let candidate = dir.path().join("new.toml");
    let path = candidate.to_str().unwrap();
    let diff = |text: &str| {
        fs::write(&candidate, text).unwrap();
        tradewind.cli(&["config", "diff", path])
    };
    // What is written is what runs, whatever port was chosen.
    let now = config.text();
    assert!(stdout(&diff(&now)).contains("a reload would change nothing"), "{}", said(&diff(&now)));
    assert!(succeeds(&tradewind, &["config", "diff"]).contains("a reload would change nothing"));

    let less = now.replace("backends = [\"a\", \"b\"]", "backends = [\"b\"]").replace("\"15%\"", "\"20%\"");
    let text = stdout(&diff(&less));
    for part in [
        "~ policies.default.shift_at = \"15%\" -> \"20%\"",
        "~ routes.chat.backends = [\"a\",\"b\"] -> [\"b\"]",
        "chat  b 100%",
        "  b               0%     100%        100%\n",
        "  a             100%       0%          0%\n",
        "tradewind config reload",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let (status, rehearsed) = tradewind.call(
        "POST",
        "/v1/reload?dry_run=true",
        Some(json!({ "files": [{ "name": "new.toml", "text": less }] })),
    );
    assert_eq!((status, &rehearsed["dry_run"]), (200, &true.into()), "{rehearsed}");
    assert_eq!(rehearsed["routes"][0]["backends"][0]["target_share"], 1.0);

    // A cheaper one that nobody has probed yet.
    let more = format!(
        "{}\n[backends.c]\nurl = \"http://127.0.0.1:1\"\ncloud = \"other\"\nregion = \"b\"\n\
         node = {{ instance_type = \"node\" }}\nreplicas = {{ min = 0, max = 10, rps = 100 }}\n",
        now.replace("backends = [\"a\", \"b\"]", "backends = [\"a\", \"b\", \"c\"]")
    );
    let text = stdout(&diff(&more));
    assert!(text.contains("c is new: it is taken to be healthy here"), "{text}");

    let text = stdout(&diff(&now.replace("[state]\ndir = \"state\"", "[state]\ndir = \"elsewhere\"")));
    assert!(text.contains("state.dir: needs a restart"), "{text}");
    let empty = diff("");
    let whole = said(&empty);
    assert_eq!(empty.status.code(), Some(1), "{whole}");
    assert!(whole.contains(&format!("\n{path}: error: the file has no backend")), "{whole}");
    let nothing = json!({ "files": [{ "name": "new.toml", "text": "" }] });
    let (status, problem) = tradewind.call("POST", "/v1/reload?dry_run=true", Some(nothing));
    let fault = &problem["faults"][0];
    assert_eq!((status, &fault["file"], &fault["line"]), (422, &json!("new.toml"), &json!(0)), "{problem}");
    let wrong = diff(&now.replace("hold", "hodl"));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        said(&wrong).contains("new.toml:") && said(&wrong).contains("did you mean `hold`?"),
        "{}",
        said(&wrong)
    );

    assert_eq!(tradewind.share("a"), 1.0, "nothing was done");
    assert_eq!(tradewind.json("/v1/status")["config_generation"], 1);
    let shown = succeeds(&tradewind, &["config", "show"]);
    let shown: toml::Table = shown.parse().unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(shown["policies"]["default"]["shift_at"].as_str(), Some("15%"));
}

#[test]
fn a_first_configuration_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tradewind.toml");
    let run = |args: &[&str]| Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap();
    let out = ["--out", path.to_str().unwrap()];
    let places =
        ["init", "--eks", "us-east-1=https://a.example.com", "--gke", "us-central1=https://b.example.com"];
    let written = run(&[&places[..], &out].concat());
    assert_eq!(written.status.code(), Some(0), "{}", said(&written));
    let checked = run(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert_eq!(String::from_utf8_lossy(&checked.stderr), "");
    let again = run(&[&places[..], &out].concat());
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("--force"), "{}", said(&again));
    let bare = run(&[&["init"][..], &["--out", "-"]].concat());
    assert_eq!(bare.status.code(), Some(1));
    assert!(said(&bare).contains("--eks REGION=URL"), "{}", said(&bare));
    let wrong = run(&["init", "--out", "-", "--eks", "us-east-1=nonsense"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("nothing is written"), "{}", said(&wrong));

    let faults = run(&["check", "--json", "--config", "/nowhere.toml"]);
    let faults: Value = serde_json::from_slice(&faults.stdout).unwrap();
    assert_eq!((&faults["valid"], &faults["faults"][0]["line"]), (&false.into(), &0.into()));
}

#[test]
fn shells_and_readers_are_served() {
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef tradewind"), ("fish", "complete -c tradewind")]
    {
        let output = Command::new(BINARY).args(["completions", shell]).output().unwrap();
        let script = stdout(&output);
        assert!(script.contains(mark) && script.contains("override"), "{shell}: {script}");
    }
    let page = stdout(&Command::new(BINARY).arg("man").output().unwrap());
    assert!(page.contains(".TH tradewind 1") && page.contains("decisions"), "{page}");
    let dir = tempfile::tempdir().unwrap();
    let written = Command::new(BINARY).args(["man", "--dir"]).arg(dir.path()).output().unwrap();
    assert!(written.status.success(), "{}", said(&written));
    for name in ["tradewind.1", "tradewind-explain.1", "tradewind-override-drain.1"] {
        assert!(dir.path().join(name).exists(), "{name} is missing: {}", said(&written));
    }
}

#[test]
fn a_directory_of_files_and_the_environment_are_one_configuration() {
    let (a, b, config) = two();
    let dir = tempfile::tempdir().unwrap();
    let text = config.text();
    let at = text.find("[backends.b]").unwrap();
    let end = text.find("[routes.chat]").unwrap();
    config.write(dir.path());
    fs::remove_file(dir.path().join("t.toml")).unwrap();
    put(dir.path(), "10-base.toml", &format!("{}{}", &text[..at], &text[end..]));
    put(dir.path(), "20-more.toml", &text[at..end]);
    put(dir.path(), ".hidden.toml", "nonsense");
    let mut child = harness::command(dir.path())
        .args(["run", "--config"])
        .arg(dir.path())
        .env("TRADEWIND__LISTEN__EXPOSE_ROUTING", "false")
        .env("TRADEWIND__POLICIES__DEFAULT__SHIFT_AT", "25%")
        .env("TRADEWIND__LOG__FORMAT", "json")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let serving = log
        .by_ref()
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .find(|line| line["fields"]["message"] == "serving")
        .expect("it serves");
    let admin: std::net::SocketAddr = serving["fields"]["admin"].as_str().unwrap().parse().unwrap();
    thread::spawn(move || log.for_each(drop));
    let get = |path: &str| Client::new(admin).get(path).unwrap().json();
    let in_force = get("/v1/config");
    assert_eq!(in_force["config"]["policies"]["default"]["shift_at"], "25%");
    assert_eq!(in_force["config"]["listen"]["expose_routing"], false);
    assert_eq!(get("/v1/status")["routes"][0]["backends"].as_array().unwrap().len(), 2);
    drop((a, b));

    // A file more is a change of the configuration, and a key twice a fault of it that names both places.
    put(dir.path(), "30-again.toml", &text[at..end]);
    let said = until("the reload is refused", || {
        let status = get("/v1/status");
        status["config_error"].as_str().map(str::to_owned)
    });
    assert!(said.contains("30-again.toml:1:11: error: `backends.b` is written twice"), "{said}");
    assert!(said.contains("20-more.toml:1"), "{said}");
    fs::remove_file(dir.path().join("30-again.toml")).unwrap();
    eventually("it is good again", || get("/v1/status")["config_error"].is_null());
    child.kill().unwrap();
    child.wait().unwrap();
}
