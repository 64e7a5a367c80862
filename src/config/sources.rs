//! Where a configuration is written: one file, a directory of files, and variables of the environment; as one text, so that a
//! place in it is one number.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::files;

/// What a variable begins with that stands for a key: `TRADEWIND__LISTEN__HTTP` is `listen.http`.
const PREFIX: &str = "TRADEWIND__";

/// Between two keys in the name of a variable: keys hold single underscores themselves.
const SEPARATOR: &str = "__";

/// The key under which the value of a variable is parsed.
pub(super) const VALUE_KEY: &str = "v";

/// What editors on Windows write at the start of a file. It takes no column.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// One file or variable.
#[derive(Debug)]
pub(super) struct Source {
    /// Its path, or the name of the variable.
    pub(super) name: Arc<str>,
    /// The first byte of it in the whole text.
    pub(super) start: usize,
    /// The byte after its last one.
    pub(super) end: usize,
    /// The keys to the value of a variable, in lower case and without hyphens; empty for a file.
    pub(super) variable: Vec<String>,
}

/// All that a configuration is written in.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Everything, one source after another.
    pub(super) text: String,
    pub(super) list: Vec<Source>,
}

/// Why a source cannot be read.
pub(super) struct Unreadable {
    pub(super) name: String,
    /// The valid beginning, where it is the encoding that is wrong.
    pub(super) valid: Option<String>,
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

impl Sources {
    /// A text as if it had been read from `path`.
    pub(super) fn of_text(path: &Path, text: &str) -> Sources {
        let mut sources = Sources::default();
        sources.add(path, text);
        sources
    }

    /// Texts as if they had been read from files of these names.
    pub(super) fn of_texts(files: &[(String, String)]) -> Sources {
        let mut sources = Sources::default();
        files.iter().for_each(|(name, text)| sources.add(name.as_ref(), text));
        sources
    }

    /// The file at `path`, or all files `*.toml` in a directory, by name. All together are not longer than `len_max` bytes.
    pub(super) fn read(path: &Path, len_max: u64) -> Result<Sources, Unreadable> {
        let unreadable = |path: &Path, problem: String, hint: Option<String>| Unreadable {
            name: path.display().to_string(),
            valid: None,
            problem,
            hint,
        };
        let paths = match path.is_dir() {
            true => in_directory(path).map_err(|problem| unreadable(path, problem, None))?,
            false => vec![path.to_owned()],
        };
        if paths.is_empty() {
            let hint = "name a file, or put the configuration into files that end in .toml".to_owned();
            return Err(unreadable(path, "there is no file *.toml in the directory".into(), Some(hint)));
        }
        let mut sources = Sources::default();
        for path in &paths {
            let len_max = len_max.saturating_sub(sources.text.len() as u64);
            let bytes = files::read(path, len_max)
                .map_err(|problem| unreadable(path, format!("cannot read the file: {problem}"), None))?;
            let text = String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                Unreadable {
                    valid: Some(String::from_utf8_lossy(valid).into_owned()),
                    ..unreadable(path, "this byte is not UTF-8".into(), Some("save the file as UTF-8".into()))
                }
            })?;
            sources.add(path, &text);
        }
        Ok(sources)
    }

    fn add(&mut self, path: &Path, text: &str) {
        // In the first one it is where the parser expects it.
        let text = if self.list.is_empty() { text } else { text.trim_start_matches(BYTE_ORDER_MARK) };
        self.push(path.display().to_string().into(), Vec::new(), text);
    }

    fn push(&mut self, name: Arc<str>, variable: Vec<String>, text: &str) {
        // Room for what stands before the value of a variable, and a line end between files.
        self.text.push_str(if self.list.is_empty() { "" } else { "\n   \n" });
        let start = self.text.len();
        self.text.push_str(text);
        self.list.push(Source { name, start, end: self.text.len(), variable });
    }

    /// Adds the variables that stand for keys, by name. Their text is the bare value.
    pub(super) fn add_variables(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut named: Vec<(String, String)> =
            variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        named.sort();
        for (name, value) in named {
            let keys = name[PREFIX.len()..].split(SEPARATOR).map(plain).collect();
            self.push(format!("environment variable {name}").into(), keys, &value);
        }
    }

    /// The text of a source.
    pub(super) fn text_of(&self, source: &Source) -> &str {
        &self.text[source.start..source.end]
    }

    /// A text in which the source is where it is in the whole, and all before it is blank: what a parser says of places in it
    /// holds for the whole. The value of a variable has the key [`VALUE_KEY`] in it.
    pub(super) fn in_place(&self, source: &Source) -> Cow<'_, str> {
        let text = self.text_of(source);
        match (source.start, source.variable.is_empty()) {
            (0, _) => Cow::Borrowed(text),
            (start, true) => Cow::Owned(format!("{}{text}", " ".repeat(start))),
            (start, false) => {
                let key = format!("{VALUE_KEY} = ");
                Cow::Owned(format!("{}{key}{text}", " ".repeat(start - key.len())))
            }
        }
    }

    /// The source in which a byte of the text is.
    pub(super) fn at(&self, offset: usize) -> Option<&Source> {
        let after = self.list.partition_point(|source| source.start <= offset);
        self.list.get(after.saturating_sub(1))
    }
}

/// A key as variables write it: their names have no lower case, and mostly no hyphens.
pub(super) fn plain(key: &str) -> String {
    key.to_lowercase().replace('-', "_")
}

/// The files `*.toml` in a directory, by name. Hidden ones are left out: Kubernetes and editors keep copies in them.
pub(super) fn in_directory(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read the directory: {error}");
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
