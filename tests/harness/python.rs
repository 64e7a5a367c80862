//! Clients and servers that others wrote, in Python. `scripts/setup.sh test` makes the environment that has them.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A Python that may have what tests need: the one that is named, or the one that scripts/setup.sh has made.
pub fn python() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("TRADEWIND_TEST_PYTHON") {
        return Some(named.into());
    }
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tradewind"));
    let made = binary.ancestors().nth(2)?.join("py/bin/python");
    made.exists().then_some(made)
}

/// A script below tests/, to be run; `None`, and said so, where there is no Python for it.
pub fn script(path: &str) -> Option<Command> {
    let Some(python) = python() else {
        eprintln!("SKIPPED: there is no Python for {path}; `scripts/setup.sh test` makes one");
        return None;
    };
    let mut command = Command::new(python);
    // Proxies of the machine must not come between the two.
    command
        .arg(format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR")))
        .env("NO_PROXY", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// Runs a scenario of a client, which says `passed SCENARIO` if it did. Nothing where there is no Python.
pub fn passes(path: &str, scenario: &str, more: &[&str]) {
    super::passes(script(path), scenario, more);
}

/// A server in Python: says its address on the first line, and ends when its standard input does.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// `None`, and said so, where there is no Python for it.
    pub fn start(path: &str, args: &[&str]) -> Option<Server> {
        let mut child = script(path)?
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says its address");
        let address = line.trim().parse().unwrap_or_else(|error| panic!("{path} says {line:?}: {error}"));
        Some(Server { child, address })
    }

    /// Ends it at once, as a lost node does.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
