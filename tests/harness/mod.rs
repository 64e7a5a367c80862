//! What the acceptance tests share: the real binary with a generated configuration, scripted backends, plain clients.
//! Everything is on loopback and on ports that the system chooses.
#![allow(dead_code, unused_imports, reason = "every test binary uses a part of it")]

pub mod aws;
pub mod backend;
pub mod browser;
pub mod client;
pub mod config;
pub mod gcp;
pub mod http2;
pub mod load;
pub mod node;
pub mod python;
pub mod shares;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub use backend::Backend;
pub use client::{Answer, Client};
pub use config::Config;
pub use load::Load;

/// How long a condition may take to come true. Far longer than it should: a busy machine is no fault of the product.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Lines of its log that a failed test shows: enough for what happened last.
const LOG_LINES_SHOWN: usize = 100;

const BINARY: &str = env!("CARGO_BIN_EXE_tradewind");

/// Looks again and again until there is something to see.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "not within {} s: {what}", DEADLINE.as_secs());
        pause(Duration::from_millis(10));
    }
}

/// Waits until a condition holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}

/// Checks a condition again and again for a while: for what must *not* happen.
pub fn throughout(time: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check();
        pause(Duration::from_millis(20));
    }
}

#[allow(clippy::disallowed_methods, reason = "between two looks at a condition, never in place of one")]
pub fn pause(time: Duration) {
    thread::sleep(time);
}

/// A running Tradewind. It is killed when dropped; its log is printed if the test failed.
pub struct Tradewind {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    dir: PathBuf,
    child: Child,
    log: Log,
    env: Vec<(String, String)>,
    _own_dir: Option<TempDir>,
}

/// Everything that a process wrote to standard error so far.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<String>>, Arc<AtomicBool>, Arc<AtomicBool>);

impl Log {
    fn follow(child: &mut Child) -> Log {
        let log = Log::default();
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let copy = log.clone();
        thread::spawn(move || {
            while let Some(Ok(line)) = lines.next() {
                while copy.2.load(SeqCst) {
                    pause(Duration::from_millis(10));
                }
                let mut text = copy.0.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
            }
            copy.1.store(true, SeqCst);
        });
        log
    }

    pub fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    /// Leaves what comes in the pipe from now on.
    fn stop_reading(&self) {
        self.2.store(true, SeqCst);
    }

    /// Whether nothing more will come.
    fn is_complete(&self) -> bool {
        self.1.load(SeqCst)
    }
}

/// The program, which finds credentials of providers in `dir` and nowhere else.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .env_remove("RUST_LOG")
        .env("HOME", dir)
        .env("AWS_SHARED_CREDENTIALS_FILE", dir.join("aws-credentials"))
        .env("AWS_CONFIG_FILE", dir.join("aws-config"))
        .env("AWS_EC2_METADATA_DISABLED", "true");
    for name in
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"]
    {
        command.env_remove(name);
    }
    command
}

fn spawn(dir: &Path, env: &[(String, String)]) -> (Child, Log) {
    spawn_with(dir, env, &[])
}

fn spawn_with(dir: &Path, env: &[(String, String)], more: &[&str]) -> (Child, Log) {
    let mut child = command(dir)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .args(["run", "--config"])
        .arg(dir.join("t.toml"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let log = Log::follow(&mut child);
    (child, log)
}

/// The addresses in the line that says that it serves.
fn addresses(log: &Log) -> Option<(SocketAddr, SocketAddr)> {
    let text = log.text();
    let line = text.lines().find(|line| line.contains("serving http="))?;
    let after = |mark: &str, end: char| line.split_once(mark)?.1.split(end).next()?.parse().ok();
    Some((after("http=", ' ')?, after("admin=", ' ')?))
}

/// Sends a signal by its name, `TERM`, to a process of ours.
pub fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    let done = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
    assert!(done.success(), "{kill}: {done}");
}

/// A process that is to take over.
pub struct Successor {
    child: Child,
    pub log: Log,
}

impl Tradewind {
    /// Starts in a directory of its own and waits until it is ready.
    pub fn start(config: &Config) -> Tradewind {
        let own = tempfile::tempdir().expect("a directory for the test");
        let mut started = Tradewind::start_in(own.path(), config);
        started._own_dir = Some(own);
        started
    }

    /// Starts in `dir` and waits until it is ready.
    pub fn start_in(dir: &Path, config: &Config) -> Tradewind {
        Tradewind::start_with(dir, config, &[])
    }

    /// Starts in `dir`, with more in its environment, and waits until it is ready.
    pub fn start_with(dir: &Path, config: &Config, env: &[(&str, &str)]) -> Tradewind {
        config.write(dir);
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (mut child, log) = spawn(dir, &env);
        let (http, admin) = until("it serves", || {
            let ended = child.try_wait().expect("its status can be asked for");
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}", log.text());
            addresses(&log)
        });
        let started = Tradewind { http, admin, dir: dir.to_owned(), child, log, env, _own_dir: None };
        eventually("it is ready", || started.get("/readyz").is_ok_and(|answer| answer.status == 200));
        started
    }

    /// Starts again with the same files, after it ended; its ports are new.
    pub fn start_again(&mut self) {
        (self.child, self.log) = spawn(&self.dir, &self.env);
        (self.http, self.admin) = until("it serves again", || addresses(&self.log));
        eventually("it is ready again", || self.get("/readyz").is_ok_and(|answer| answer.status == 200));
    }

    /// Starts a process that takes over from this one, and waits until it serves. Gives the old one, which is no longer ours.
    pub fn upgrade(&mut self) -> Child {
        let successor = self.begin_upgrade();
        self.finish_upgrade(successor)
    }

    /// Starts a process that takes over from this one.
    pub fn begin_upgrade(&self) -> Successor {
        let (child, log) = spawn_with(&self.dir, &self.env, &["--upgrade"]);
        Successor { child, log }
    }

    /// Waits until a successor serves. Gives the old one, which is no longer ours.
    pub fn finish_upgrade(&mut self, Successor { mut child, log }: Successor) -> Child {
        (self.http, self.admin) = until("the successor serves", || {
            let ended = child.try_wait().expect("its status can be asked for");
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}\n{}", log.text(), self.log.text());
            addresses(&log)
        });
        self.log = log;
        let old = std::mem::replace(&mut self.child, child);
        eventually("it is ready", || self.get("/readyz").is_ok_and(|answer| answer.status == 200));
        old
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Sends a signal by its name, `TERM`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// The exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("its status can be asked for")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    /// As a collector of logs that hangs.
    pub fn stop_reading_its_log(&self) {
        self.log.stop_reading();
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The address for TLS; the configuration must have one.
    pub fn https(&self) -> SocketAddr {
        let text = self.log();
        let address =
            text.lines().find_map(|line| line.split_once(" https=")?.1.split(' ').next()?.parse().ok());
        address.unwrap_or_else(|| panic!("it has no address for TLS:\n{text}"))
    }

    /// A client with a connection of its own to the front door.
    pub fn client(&self) -> Client {
        Client::new(self.http)
    }

    /// One request to the front door, over a new connection.
    pub fn fetch(&self, path: &str) -> Answer {
        self.client().get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A GET to the admin API.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        Client::new(self.admin).get(path)
    }

    /// A call to the admin API: its status and the JSON of its answer.
    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|json| json.to_string()).unwrap_or_default();
        let kind = [("content-type", "application/json")];
        let answer = Client::new(self.admin)
            .request(method, path, if body.is_empty() { &[] } else { &kind }, body.as_bytes())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let json = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}: {}", answer.text()));
        (answer.status, json)
    }

    /// The JSON of a GET that must succeed.
    pub fn json(&self, path: &str) -> Value {
        let (status, json) = self.call("GET", path, None);
        assert_eq!(status, 200, "GET {path}: {json}");
        json
    }

    /// What explain says about the route of the configuration.
    pub fn explain(&self) -> Value {
        self.json("/v1/routes/chat/explain")
    }

    /// What status says about a backend of the route.
    pub fn backend(&self, name: &str) -> Value {
        let status = self.json("/v1/status");
        let backends = status["routes"][0]["backends"].as_array().expect("there are backends").clone();
        let found = backends.into_iter().find(|backend| backend["backend"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {status}"))
    }

    /// The share of a backend.
    pub fn share(&self, name: &str) -> f64 {
        self.backend(name)["share"].as_f64().expect("a share is a number")
    }

    /// Waits until a backend has a share.
    pub fn wait_for_share(&self, name: &str, share: f64) {
        eventually(&format!("{name} has a share of {share}"), || (self.share(name) - share).abs() < 1e-9);
    }

    /// Waits until the decision says this reason.
    pub fn wait_for_reason(&self, code: &str) -> Value {
        until(&format!("the reason is {code}, not {}", self.explain()["summary"]), || {
            let explained = self.explain();
            (explained["decision"]["reason"]["code"] == code).then_some(explained)
        })
    }

    /// The value of a metric: its name with labels, `a_total{b="c"}`. `None` when it is not there.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let answer = self.get("/metrics").expect("metrics are there");
        let line = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok();
        answer.text().lines().find_map(line)
    }

    /// `POST /v1/overrides`, which must be accepted; gives its id.
    pub fn impose(&self, order: Value) -> String {
        let (status, stored) = self.call("POST", "/v1/overrides", Some(order));
        assert_eq!(status, 201, "{stored}");
        stored["id"].as_str().expect("it has an id").to_owned()
    }

    /// Replaces the price file, as a whole.
    pub fn set_prices(&self, prices: &[(&str, f64)]) {
        self.put("prices.csv", &config::prices(prices));
    }

    /// Replaces a file beside the configuration, as a whole.
    pub fn put(&self, name: &str, content: &str) {
        put(&self.dir, name, content);
    }

    /// Runs the command line against it.
    pub fn cli(&self, args: &[&str]) -> Output {
        cli(args, &format!("http://{}", self.admin))
    }
}

impl Drop for Tradewind {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- log of tradewind ---\n{}", last.join("\n"));
        }
    }
}

/// A `run` that is expected to end by itself: its exit code and what it said.
pub fn run_to_the_end(dir: &Path) -> (Option<i32>, String) {
    run_to_the_end_with(dir, &[])
}

/// As [`run_to_the_end`], with more options.
pub fn run_to_the_end_with(dir: &Path, more: &[&str]) -> (Option<i32>, String) {
    let (mut child, log) = spawn_with(dir, &[], more);
    let status = until("it ends", || child.try_wait().expect("its status can be asked for"));
    // Its last words may still be on their way.
    eventually("all that it said was read", || log.is_complete());
    (status.code(), log.text())
}

/// Runs a scenario of a client, which says `passed SCENARIO` if it did. Nothing where there is none, as was said then.
fn passes(client: Option<Command>, scenario: &str, more: &[&str]) {
    let Some(mut client) = client else { return };
    let output =
        client.arg(scenario).args(more).output().unwrap_or_else(|error| panic!("{client:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client:?}: {}\n{said}", output.status);
    let passed = stdout(&output);
    assert!(passed.starts_with(&format!("passed {scenario}")), "{client:?}: {passed}\n{said}");
}

/// What curl did.
#[derive(Debug)]
pub struct Curled {
    /// Its exit code; 0 for an answer, whichever.
    pub code: i32,
    /// Of the answer; 0 for none.
    pub status: u16,
    pub http_version: String,
    pub body: String,
}

/// Runs curl, which must be there. It asks nobody but `url`, and waits no longer than the deadline.
pub fn curl(args: &[&str], url: &str) -> Curled {
    curl_reading(Stdio::null(), args, url)
}

/// As [`curl`], with this as its standard input.
pub fn curl_reading(input: Stdio, args: &[&str], url: &str) -> Curled {
    let seconds = DEADLINE.as_secs().to_string();
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", &seconds])
        .args(["--write-out", "\n%{http_code} %{http_version}"])
        .args(args)
        .arg(url)
        .stdin(input)
        .output()
        .expect("there is curl");
    let text = stdout(&output);
    let (body, end) = text.rsplit_once('\n').unwrap_or_default();
    let (status, http_version) = end.split_once(' ').unwrap_or_default();
    Curled {
        code: output.status.code().unwrap_or(-1),
        status: status.parse().unwrap_or(0),
        http_version: http_version.into(),
        body: body.into(),
    }
}

/// Runs the command line against the admin API at `admin`.
pub fn cli(args: &[&str], admin: &str) -> Output {
    Command::new(BINARY).args(args).env("TRADEWIND_ADMIN", admin).output().expect("the binary starts")
}

/// What a command wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Writes a file as editors and Kubernetes do: beside it, then renamed, so that no half of it is ever seen.
pub fn put(dir: &Path, name: &str, content: &str) {
    let beside = dir.join(format!(".{name}.new"));
    fs::write(&beside, content).expect("the file can be written");
    fs::rename(&beside, dir.join(name)).expect("the file can be replaced");
}
