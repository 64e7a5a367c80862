//! `tradewind config`: what is in force, and what a reload would change.

use std::path::{Path, PathBuf};

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Failure,
    admin_client::AdminArgs,
    table::{self, Align, Cell, Ink, Table, UNKNOWN},
};
use crate::{
    admin::rehearsal::{Candidate, CandidateFile, KeyChange, Rehearsal},
    config,
    model::units::percent,
};

/// Show the configuration in force, and what a reload of its file would change
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// The configuration in force with every default, without secrets
    Show,
    /// What a reload would change: keys, and the decision of every route. Nothing is changed
    Diff {
        /// A file, or a directory of files, to look at in place of what a reload would read: before it is put there
        candidate: Option<PathBuf>,
    },
    /// Read the file again, and take it up
    Reload,
}

#[derive(Deserialize)]
struct InForce {
    generation: u64,
    config: Value,
}

#[derive(Deserialize)]
struct Reloaded {
    generation: u64,
}

/// Asks the admin API and prints the answer.
///
/// # Errors
/// When the API cannot be reached or refuses, as it does with a file that has faults.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let admin = &args.admin;
    let text = match args.command {
        Command::Show => {
            let reply = admin.call::<InForce>(Method::GET, "/v1/config").await?;
            if admin.json { reply.json() } else { shown(reply.value)? }
        }
        Command::Diff { candidate } => {
            let path = "/v1/reload?dry_run=true";
            let reply = match candidate {
                Some(file) => admin.post::<Rehearsal>(path, &read(&file)?).await?,
                None => admin.call::<Rehearsal>(Method::POST, path).await?,
            };
            if admin.json { reply.json() } else { render(&reply.value, Ink::of_stdout()) }
        }
        Command::Reload => {
            let reply = admin.call::<Reloaded>(Method::POST, "/v1/reload").await?;
            let generation = reply.value.generation;
            if admin.json { reply.json() } else { format!("in force: configuration {generation}\n") }
        }
    };
    table::print(&text);
    Ok(())
}

/// The files of a candidate.
fn read(path: &Path) -> Result<Candidate, Failure> {
    let unreadable = |why: String| Failure::Input(format!("{} cannot be read: {why}", path.display()));
    let mut files = Vec::new();
    for path in config::files_at(path) {
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
        files.push(CandidateFile { name: path.display().to_string(), text });
    }
    if files.is_empty() {
        return Err(unreadable("there is no file *.toml in it".into()));
    }
    Ok(Candidate { files })
}

/// As TOML, which has no `null`: what is not set is not there.
fn shown(in_force: InForce) -> Result<String, Failure> {
    let text = toml::to_string_pretty(&without_null(in_force.config))
        .map_err(|error| Failure::Input(format!("it cannot be written as TOML ({error}): try --json")))?;
    let note = "with every default; secrets are left out";
    Ok(format!("# configuration {}, {note}\n\n{}", in_force.generation, printable_lines(&text)))
}

fn printable_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", table::printable(line))).collect()
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(keys) => {
            keys.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_null(v))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_null).collect(),
        other => other,
    }
}

fn render(rehearsal: &Rehearsal, ink: Ink) -> String {
    if rehearsal.changes.is_empty() && rehearsal.needs_restart.is_empty() {
        return "the file says what is in force: a reload would change nothing\n".into();
    }
    let mut out = String::new();
    for KeyChange { key, before, after } in &rehearsal.changes {
        let written = |value: &Value| table::printable(&value.to_string());
        out += &match (before, after) {
            (None, Some(after)) => format!("+ {key} = {}\n", written(after)),
            (Some(before), None) => format!("- {key} = {}\n", written(before)),
            (before, after) => {
                let written = |value: &Option<Value>| value.as_ref().map_or(UNKNOWN.to_owned(), written);
                format!("~ {key} = {} -> {}\n", written(before), written(after))
            }
        };
    }
    for warning in &rehearsal.warnings {
        let lines: Vec<String> = warning.lines().map(table::printable).collect();
        out += &format!("{}\n", ink.bad(&lines.join("\n")));
    }
    if !rehearsal.needs_restart.is_empty() {
        let keys = rehearsal.needs_restart.join(", ");
        let sentence = format!("{keys}: needs a restart; until then a reload is refused as a whole");
        return out + &format!("\n{}\n", ink.bad(&sentence));
    }
    for backend in &rehearsal.assumed_healthy {
        out += &format!("\n{backend} is new: it is taken to be healthy here; a reload probes it first\n");
    }
    for route in &rehearsal.removed_routes {
        out += &format!("\n{}  is removed: its requests are no longer served\n", ink.strong(route.as_str()));
    }
    for route in &rehearsal.routes {
        out += &format!("\n{}  {}\n", ink.strong(route.route.as_str()), table::printable(&route.summary));
        let mut columns = Table::new(&[
            ("BACKEND", Align::Left),
            ("SHARE NOW", Align::Right),
            ("AT ONCE", Align::Right),
            ("IN THE END", Align::Right),
        ]);
        for backend in &route.backends {
            let cells: [Cell; 4] = [
                backend.backend.as_str().into(),
                percent(backend.share).into(),
                percent(backend.next_share).into(),
                percent(backend.target_share).into(),
            ];
            columns.row(cells);
        }
        out += &columns.render("  ", ink);
        if let (Some(now), Some(then)) = (route.now_usd_per_hour, route.then_usd_per_hour) {
            out += &format!("  the load costs {} an hour now, {} then\n", table::usd(now), table::usd(then));
        }
    }
    if rehearsal.routes.is_empty() && rehearsal.removed_routes.is_empty() {
        out += "\nno route's decision would change\n";
    }
    out + "\ntake it up with: tradewind config reload\n"
}
