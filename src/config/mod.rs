//! The configuration: one TOML file, checked as a whole before anything of it is used.
//!
//! A file goes through four steps: [`check`] parses it and compares its form with the JSON Schema that is derived from
//! [`schema`], [`leaf`] reads what is written as text (durations, shares, URLs), [`rules`] looks for what cannot work,
//! and what is left are [`settings`]. Every step notes all [`faults`] that it finds, with line and column; whatever fits
//! is passed on in spite of them, so that the next step can find more.

mod check;
pub mod faults;
mod files;
mod leaf;
mod literal;
mod rules;
mod schema;
pub mod settings;

use std::path::Path;

pub use faults::{Fault, Faults, Severity};
pub use leaf::{parse_duration, parse_duration_within};
pub use settings::{
    Access, Admin, Https, Listen, Location, Log, LogFormat, PriceSource, Prices, Replay, Role, Secret,
    Settings, Tls, Token,
};

/// Largest file: ten thousand routes fit, and a wrong file named by accident is not read into memory.
const FILE_LEN_MAX: u64 = 1 << 20;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub settings: Settings,
    /// What is odd about it, in the order of the file.
    pub warnings: Vec<Fault>,
}

/// Reads the file and all files that it names, and checks everything.
///
/// # Errors
/// All that is wrong, not just the first thing.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let bytes = files::read(path, FILE_LEN_MAX).map_err(|problem| {
        let mut faults = faults::Collector::new(path, "");
        faults.add(Severity::Error, None, format!("cannot read the file: {problem}"), None);
        faults.finish()
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid_len = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(&error.as_bytes()[..valid_len]);
        let mut faults = faults::Collector::new(path, &valid);
        let hint = Some("save the file as UTF-8".into());
        faults.add(Severity::Error, Some(valid_len..valid_len), "this byte is not UTF-8".into(), hint);
        faults.finish()
    })?;
    parse(&text, path)
}

/// Checks a text as if it had been read from `path`: faults name it, and relative paths start at its directory.
///
/// # Errors
/// All that is wrong, not just the first thing.
pub fn parse(text: &str, path: &Path) -> Result<Loaded, Faults> {
    let mut faults = faults::Collector::new(path, text);
    let dir = path.parent().unwrap_or(Path::new(""));
    let settings = check::check(text, &json_schema(), &mut faults).and_then(|checked| {
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
