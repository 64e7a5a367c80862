//! What is wrong with a configuration, and where.

use std::{fmt, ops::Range, sync::Arc};

use serde::Serialize;

use super::sources::{BYTE_ORDER_MARK, Source, Sources};

/// Faults kept of one configuration. Nobody reads further, and the list travels in an HTTP response.
const FAULTS_MAX: usize = 100;

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong, in words for the operator. Never holds the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, by the path that leads there from what was named to [`super::load`]; or a variable of the environment.
    pub file: Arc<str>,
    /// Line, from 1; 0 when the file as a whole is at fault, or a variable.
    pub line: usize,
    /// Column in characters, from 1; 0 when there is no line.
    pub column: usize,
    /// What was found and what was expected.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How bad it is.
    pub severity: Severity,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, " {severity}: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the file. As the error of [`super::load`] it holds at
/// least one error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// The first faults.
    pub faults: Vec<Fault>,
    /// How many more there are.
    pub omitted: usize,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            write!(f, "{}{fault}", if index > 0 { "\n" } else { "" })?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Collects the faults of a configuration.
pub(super) struct Collector<'a> {
    /// What a fault of no single place is said to be in.
    name: Arc<str>,
    sources: &'a Sources,
    found: Vec<Finding>,
}

/// A fault before its line and column are worked out.
struct Finding {
    offset: Option<usize>,
    severity: Severity,
    message: String,
    hint: Option<String>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(name: &str, sources: &'a Sources) -> Collector<'a> {
        Collector { name: name.into(), sources, found: Vec::new() }
    }

    /// The text of all files.
    pub(super) fn text(&self) -> &'a str {
        &self.sources.text
    }

    /// Notes a fault at `span`, a range of bytes in the text; without it, in the file as a whole.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        span: Option<Range<usize>>,
        message: String,
        hint: Option<String>,
    ) {
        self.found.push(Finding { offset: span.map(|span| span.start), severity, message, hint });
    }

    /// Where a byte of the text is, in words: the line, and of several files which.
    pub(super) fn place(&self, offset: usize) -> String {
        let (source, line, _) = self.position(offset);
        match (source, line) {
            (Some(source), 0) => source.name.to_string(),
            (Some(source), line) if self.sources.list.len() > 1 => format!("{}:{line}", source.name),
            (_, line) => format!("line {line}"),
        }
    }

    /// The source of a byte in the text, and line and column, from 1, in it; of a variable they say nothing.
    fn position(&self, offset: usize) -> (Option<&Source>, usize, usize) {
        let source = self.sources.at(offset);
        let Some(source) = source.filter(|source| source.variable.is_empty()) else { return (source, 0, 0) };
        let before = self.sources.text.as_bytes().get(source.start..offset).unwrap_or_default();
        let before = String::from_utf8_lossy(before);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let column = line.chars().filter(|c| *c != BYTE_ORDER_MARK).count() + 1;
        (Some(source), before.matches('\n').count() + 1, column)
    }

    /// Whether further faults would not be shown, so that finding words for them is not worth much.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= FAULTS_MAX
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// All that was found, in the order of the file; of very much, the errors first.
    pub(super) fn finish(mut self) -> Faults {
        let mut found = std::mem::take(&mut self.found);
        let omitted = found.len().saturating_sub(FAULTS_MAX);
        found.sort_by_key(|finding| finding.offset);
        if omitted > 0 {
            found.sort_by_key(|finding| finding.severity == Severity::Warning);
            found.truncate(FAULTS_MAX);
        }
        let faults = found.into_iter().map(|Finding { offset, severity, message, hint }| {
            let (source, line, column) = offset.map_or((None, 0, 0), |offset| self.position(offset));
            let file = source.map_or(&self.name, |source| &source.name).clone();
            Fault { file, line, column, message, hint, severity }
        });
        Faults { faults: faults.collect(), omitted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Sources {
        Sources::of_text("t.toml".as_ref(), text)
    }

    #[test]
    fn columns_count_characters() {
        let position = |text, offset| {
            let sources = of(text);
            let (_, line, column) = Collector::new("t.toml", &sources).position(offset);
            (line, column)
        };
        assert_eq!(position("a = 1\r\nü = x", 12), (2, 5));
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\n", 2), (2, 1));
        assert_eq!(position("\u{feff}a", 3), (1, 1));
    }

    #[test]
    fn a_long_list_is_cut() {
        let sources = of("");
        let mut collector = Collector::new("t.toml", &sources);
        collector.add(Severity::Warning, None, "odd".into(), None);
        for _ in 0..FAULTS_MAX {
            collector.add(Severity::Error, None, "wrong".into(), None);
        }
        let faults = collector.finish();
        assert_eq!((faults.faults.len(), faults.omitted), (FAULTS_MAX, 1));
        assert!(faults.faults.iter().all(|fault| fault.severity == Severity::Error));
        assert!(faults.to_string().ends_with("\nand 1 more"));
    }
}
