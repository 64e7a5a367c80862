//! The configuration: a TOML file or several, checked as a whole before anything of it is used.
//!
//! It goes through these steps: [`sources`] reads files and the environment, [`merge`] makes one document of them, [`check`] parses it and compares its form with the JSON Schema that is derived from
//! [`schema`], [`leaf`] reads what is written as text (durations, shares, URLs), [`rules`] looks for what cannot work,
//! and what is left are [`settings`]. Every step notes all [`faults`] that it finds, with line and column; whatever fits
//! is passed on in spite of them, so that the next step can find more.

mod check;
pub mod faults;
mod files;
mod leaf;
mod literal;
mod merge;
mod rules;
mod schema;
pub mod settings;
mod sources;

use std::path::{Path, PathBuf};

pub(crate) use check::closest;
pub use check::dotted;
pub use faults::{Fault, Faults, Severity};
pub use leaf::{parse_duration, parse_duration_within};
use sources::{Sources, Unreadable};

pub use settings::{
    Access, Admin, Https, Listen, Location, Log, LogFormat, Otlp, OtlpProtocol, PriceSource, Prices, Replay,
    Role, Secret, Settings, Tls, Token,
};

/// Largest file, and of several the sum: ten thousand routes fit, and a wrong file named by accident is not read into memory.
const FILE_LEN_MAX: u64 = 1 << 20;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub settings: Settings,
    /// What is odd about it, in the order of the file.
    pub warnings: Vec<Fault>,
}

/// Reads the file, or all `*.toml` of a directory, and all files that they name, and checks everything. Variables of the
/// environment replace what they say: `TRADEWIND__LISTEN__HTTP` is `listen.http`.
///
/// # Errors
/// All that is wrong, not just the first thing.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let sources = Sources::read(path, FILE_LEN_MAX).map_err(unreadable)?;
    parse_with_environment(sources, &path.display().to_string(), path)
}

/// As [`load`], as if these files, by name and text, were what is at `path`. Faults name them, also those of no single place.
///
/// # Errors
/// All that is wrong, not just the first thing.
pub fn load_instead(files: &[(String, String)], path: &Path) -> Result<Loaded, Faults> {
    parse_with_environment(Sources::of_texts(files), &name_of_all(files), path)
}

/// What files are called together: by the one that there is, or the directory of all.
fn name_of_all(files: &[(String, String)]) -> String {
    let mut parents = files.iter().map(|(name, _)| Path::new(name).parent().unwrap_or(Path::new("")));
    match (files, parents.next()) {
        ([(name, _)], _) => name.clone(),
        (_, Some(dir)) if dir != Path::new("") && parents.all(|other| other == dir) => {
            dir.display().to_string()
        }
        _ => "the candidate".into(),
    }
}

fn parse_with_environment(mut sources: Sources, name: &str, path: &Path) -> Result<Loaded, Faults> {
    // Names and values that are not UTF-8 are none of ours.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
    sources.add_variables(variables);
    parse_sources(&sources, name, path)
}

/// The files that [`load`] reads first: the one at `path`, or those in the directory.
pub fn files_at(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() { sources::in_directory(path).unwrap_or_default() } else { vec![path.to_owned()] }
}

/// Checks a text as if it had been read from `path`: faults name it, and relative paths start at its directory.
///
/// # Errors
/// All that is wrong, not just the first thing.
pub fn parse(text: &str, path: &Path) -> Result<Loaded, Faults> {
    parse_sources(&Sources::of_text(path, text), &path.display().to_string(), path)
}

fn unreadable(Unreadable { name, valid, problem, hint }: Unreadable) -> Faults {
    let span = valid.as_ref().map(|valid| valid.len()..valid.len());
    let sources = Sources::of_text(name.as_ref(), valid.as_deref().unwrap_or_default());
    let mut faults = faults::Collector::new(&name, &sources);
    faults.add(Severity::Error, span, problem, hint);
    faults.finish()
}

/// `name` is what a fault of no single place is said to be in; relative paths start where `path` is.
fn parse_sources(sources: &Sources, name: &str, path: &Path) -> Result<Loaded, Faults> {
    let mut faults = faults::Collector::new(name, sources);
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let settings = check::check(sources, &json_schema(), &mut faults).and_then(|checked| {
        // The check is the schema's, this is serde's: where they differ, the file must not be accepted.
        match serde_json::from_value(checked.value.clone()) {
            Ok(document) => Some(rules::settings(document, &checked, dir, &mut faults)),
            Err(error) => {
                faults.add(Severity::Error, None, error.to_string(), None);
                None
            }
        }
    });
    match settings {
        Some(settings) if !faults.has_errors() => Ok(Loaded { settings, warnings: faults.finish().faults }),
        _ => Err(faults.finish()),
    }
}

/// Reads the certificates of a listener again, as far as they can be used; those that cannot stay as they are. Says what is wrong
/// with them.
pub fn renewed(https: &Https) -> (crate::model::TlsSpec, Vec<String>) {
    let mut tls = https.tls.clone();
    let mut problems = Vec::new();
    for (pair, at) in tls.pairs.iter_mut().zip(&https.files) {
        match files::key_pair(&pair.file, &at.cert, &at.key) {
            Ok(renewed) => *pair = renewed,
            Err(files::BadPair::Certificate(problem)) => {
                problems.push(format!("{}: {problem}", at.cert.display()))
            }
            Err(files::BadPair::Key(problem)) => problems.push(format!("{}: {problem}", at.key.display())),
        }
    }
    (tls, problems)
}

/// The JSON Schema of the file, for editors.
pub fn json_schema() -> serde_json::Value {
    schema::json_schema()
}
