//! What hangs beside the requests, a disk, a mount or whoever reads the log, stops neither requests nor decisions, is told, and
//! does not keep the process from ending.

mod harness;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use harness::{Backend, Config, Tradewind, eventually, pause, put, python, until};
use serde_json::json;

/// A file that hangs for whoever opens it, for as long as this value lives.
struct Hanging {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Hanging {
    /// `None`, and said so, where that cannot be had.
    fn make(path: &Path) -> Option<Hanging> {
        let mut script = python::script("stuck/hang.py")?;
        let script = script.arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("there is a Python");
        let says = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut hanging = Hanging { child, says };
        let line = hanging.line();
        if line != "held" {
            eprintln!("SKIPPED: {line}");
            return None;
        }
        Some(hanging)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it can be read");
        line.trim().to_owned()
    }

    /// Waits until somebody opens the file.
    fn is_opened(&mut self) {
        assert_eq!(self.line(), "asked");
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts a pipe in the place of a file: whoever opens it to read hangs.
fn put_pipe(path: &Path) {
    let beside = path.with_extension("pipe");
    let made = Command::new("mkfifo").arg(&beside).status().expect("there is mkfifo");
    assert!(made.success());
    fs::rename(beside, path).expect("the file can be replaced");
}

/// Requests are answered, decisions are made, and traffic may be sent here.
fn assert_alive(tradewind: &Tradewind) {
    assert_eq!(tradewind.fetch("/").status, 200);
    assert_eq!(tradewind.get("/readyz").unwrap().status, 200);
    eventually("decisions are made", || tradewind.metric("tradewind_decision_age_seconds{}").unwrap() < 1.0);
}

/// SIGTERM ends it, and it says how that went.
fn assert_ends(tradewind: &mut Tradewind) {
    let begun = Instant::now();
    tradewind.signal("TERM");
    let status = until("it ends", || tradewind.ended());
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
}

#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let own = tempfile::tempdir().unwrap();
    let config = Config::new(&[(&a, 1.0), (&b, 2.0)]);
    let mut tradewind = Tradewind::start_with(own.path(), &config, &[("RUST_LOG", "trace")]);
    tradewind.stop_reading_its_log();
    eventually("the log is full", || {
        assert_eq!(tradewind.fetch("/").status, 200);
        tradewind.metric("tradewind_log_lines_lost_total{}").unwrap() > 0.0
    });
    tradewind.set_prices(&[("a", 4.0), ("b", 2.0)]);
    tradewind.wait_for_share("b", 1.0);
    assert_alive(&tradewind);
    assert_ends(&mut tradewind);
}

#[test]
fn a_state_directory_that_hangs_is_told_and_holds_up_neither_decisions_nor_the_end() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let mut tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]));
    // The writing thread reads it before it writes it, at the next move.
    put_pipe(&tradewind.dir().join("state/policy.json"));
    tradewind.set_prices(&[("a", 4.0), ("b", 2.0)]);
    tradewind.wait_for_share("b", 1.0);
    eventually("it says so", || tradewind.log().contains("a write to the state directory has not ended for"));
    assert!(tradewind.metric("tradewind_state_write_seconds{}").unwrap() > 5.0);
    let warnings = tradewind.json("/v1/status")["warnings"].to_string();
    assert!(warnings.contains("its disk hangs"), "{warnings}");
    assert_alive(&tradewind);
    assert_ends(&mut tradewind);
    assert!(tradewind.log().contains("could not be written in time and are lost"), "{}", tradewind.log());
}

#[test]
fn an_override_that_the_disk_does_not_take_is_not_acknowledged_and_holds_up_nothing() {
    let backend = Backend::named("a");
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    tradewind.impose(json!({ "kind": "freeze", "route": "chat", "ttl": "1h", "reason": "test" }));
    put_pipe(&tradewind.dir().join("state/overrides.json"));
    let order = json!({ "kind": "drain", "backend": "a", "ttl": "1h", "reason": "test" }).to_string();
    let admin = tradewind.admin;
    let asking = std::thread::spawn(move || {
        let kind = [("content-type", "application/json")];
        harness::Client::new(admin).request("POST", "/v1/overrides", &kind, order.as_bytes())
    });
    harness::throughout(Duration::from_millis(500), || {
        assert!(!asking.is_finished());
        assert_alive(&tradewind);
    });
    assert_ends(&mut tradewind);
    assert!(asking.join().unwrap().is_err(), "it was never stored");
}

#[test]
fn a_price_file_that_hangs_holds_up_neither_a_reload_nor_decisions() {
    let backend = Backend::named("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let mut tradewind = Tradewind::start(&config);
    tradewind.put("hanging.csv", &harness::config::prices(&[("a", 1.0)]));
    let Some(mut hanging) = Hanging::make(&tradewind.dir().join("hanging.csv")) else { return };
    let sources = "sources = [{ file = \"prices.csv\" }, { file = \"hanging.csv\" }]\nrefresh = \"100ms\"";
    tradewind.put("t.toml", &config.prices(sources).text());
    hanging.is_opened();
    eventually("the reload is taken up", || tradewind.metric("tradewind_config_generation{}") == Some(2.0));
    assert_alive(&tradewind);
    eventually("it says so", || tradewind.log().contains("reading the price files has not ended for"));
    assert_alive(&tradewind);
    assert_ends(&mut tradewind);
}

#[test]
fn a_price_file_that_hangs_does_not_keep_it_from_serving() {
    let backend = Backend::named("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let own = tempfile::tempdir().unwrap();
    config.write(own.path());
    put(own.path(), "hanging.csv", &harness::config::prices(&[("a", 1.0)]));
    let Some(_hanging) = Hanging::make(&own.path().join("hanging.csv")) else { return };
    let config = config.prices("sources = [{ file = \"hanging.csv\" }]\nrefresh = \"100ms\"");
    let mut tradewind = Tradewind::start_in(own.path(), &config);
    assert_alive(&tradewind);
    assert_ends(&mut tradewind);
}

#[test]
fn a_configuration_that_hangs_does_not_keep_it_from_ending() {
    let backend = Backend::named("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let mut tradewind = Tradewind::start(&config);
    tradewind.put("t.toml", &config.slo("1s").text());
    let Some(mut hanging) = Hanging::make(&tradewind.dir().join("t.toml")) else { return };
    hanging.is_opened();
    assert_alive(&tradewind);
    assert_ends(&mut tradewind);
    assert!(
        tradewind.log().contains("reading the configuration has not ended in time"),
        "{}",
        tradewind.log()
    );
}

#[test]
fn a_start_that_hangs_ends_when_it_is_told_to() {
    let backend = Backend::named("a");
    let own = tempfile::tempdir().unwrap();
    Config::new(&[(&backend, 1.0)]).write(own.path());
    fs::create_dir(own.path().join("state")).unwrap();
    put_pipe(&own.path().join("state/overrides.json"));
    let mut run = harness::command(own.path());
    let run = run.args(["run", "--config"]).arg(own.path().join("t.toml")).stderr(Stdio::null());
    let mut child = run.spawn().unwrap();
    eventually("it opens its state", || own.path().join("state/lock").exists());
    harness::signal(child.id(), "TERM");
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > harness::DEADLINE {
            child.kill().unwrap();
        }
        pause(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}
