//! Clients that others wrote, in JavaScript. `scripts/setup.sh test` installs their packages beside what the tests build.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The packages, where they were installed.
fn packages() -> Option<PathBuf> {
    let binary = Path::new(env!("CARGO_BIN_EXE_tradewind"));
    let installed = binary.ancestors().nth(2)?.join("node/node_modules");
    installed.exists().then_some(installed)
}

/// Runs a scenario of a script below tests/, which says `passed SCENARIO` if it did. Nothing, and said so, where there is no Node
/// for it.
pub fn passes(path: &str, scenario: &str, more: &[&str]) {
    let runs = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    let Some(packages) = packages().filter(|_| runs) else {
        eprintln!("SKIPPED: there is no Node with packages for {path}; `scripts/setup.sh test` brings both");
        return;
    };
    let mut command = Command::new("node");
    command.arg(format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"))).env("NODE_PATH", packages);
    super::passes(Some(command), scenario, more);
}
