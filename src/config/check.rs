//! The form of the file: a walk over the parsed document beside the JSON Schema, which notes everything that does not
//! fit, keeps what does, and remembers where each key was.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Range,
};

use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    faults::{Collector, Severity},
    leaf, merge,
    sources::Sources,
};
use crate::model::id::NAME_LEN_MAX;

/// Keys from the root to a value; elements of arrays are `[0]`, `[1]`.
pub(super) type KeyPath = Vec<String>;

/// What of a document fits the schema.
#[derive(Default)]
pub(super) struct Checked {
    /// The document without what does not fit.
    pub(super) value: Value,
    /// Where every key of the document is, also of what does not fit: a table at its name, anything else at its value.
    pub(super) spans: HashMap<KeyPath, Range<usize>>,
    /// Tables and arrays that lack something that was written, but did not fit. What is missing there is not a fault of
    /// its own.
    pub(super) tainted: HashSet<KeyPath>,
}

/// Parses what is written and compares it with the schema. `None` when some of it is not TOML.
pub(super) fn check(sources: &Sources, schema: &Value, faults: &mut Collector<'_>) -> Option<Checked> {
    let texts: Vec<Cow<'_, str>> = sources.list.iter().map(|source| sources.in_place(source)).collect();
    let mut document = DeTable::new();
    let mut is_toml = true;
    for (source, text) in sources.list.iter().zip(&texts) {
        if !source.variable.is_empty() {
            merge::set(&mut document, source, text, sources.text_of(source), schema, faults);
            continue;
        }
        let (file, errors) = DeTable::parse_recoverable(text);
        is_toml &= errors.is_empty();
        let mut lines = HashSet::new();
        for error in errors {
            // What the parser finds later on a line follows from what it found first.
            let span = error.span().unwrap_or(0..0);
            if lines.insert(text[..span.start.min(text.len())].matches('\n').count()) {
                faults.add(Severity::Error, Some(span), format!("not TOML: {}", error.message()), None);
            }
        }
        merge::add_file(&mut document, file.into_inner(), schema, faults);
    }
    if !is_toml {
        return None;
    }
    let mut walk = Walk { schema, faults, checked: Checked::default(), path: Vec::new() };
    let value = walk.table(schema, &document, 0..0);
    let mut checked = walk.checked;
    checked.value = value.unwrap_or_default();
    Some(checked)
}

struct Walk<'a, 'text> {
    schema: &'a Value,
    faults: &'a mut Collector<'text>,
    checked: Checked,
    path: KeyPath,
}

impl<'a> Walk<'a, '_> {
    /// The value as JSON, or `None` when it does not fit.
    fn value(
        &mut self,
        property: &'a Value,
        found: &Spanned<DeValue<'_>>,
        key: Range<usize>,
    ) -> Option<Value> {
        let schema = self.branch(self.resolve(property), found.get_ref());
        let span = if found.get_ref().is_table() { key } else { found.span() };
        self.checked.spans.insert(self.path.clone(), span.clone());
        match (found.get_ref(), schema["type"].as_str()) {
            (DeValue::Table(table), Some("object")) => self.table(schema, table, span),
            (DeValue::Array(items), Some("array")) => self.array(schema, items, span),
            (scalar, _) => match leaf_value(schema, scalar) {
                Ok(value) => Some(value),
                Err((message, hint)) => self.error(span, message, hint.or_else(|| meaning(property, schema))),
            },
        }
    }

    fn table(&mut self, schema: &'a Value, table: &DeTable<'_>, span: Range<usize>) -> Option<Value> {
        let mut kept = Map::new();
        // Keys that are there, under the name that was meant, whether or not their value fits.
        let mut present = HashSet::new();
        let mut fits = true;
        for (key, found) in table {
            let Some((meant, child)) = self.child(schema, table, &present, key) else { continue };
            self.path.push(meant.to_owned());
            let value = self.value(child, found, key.span());
            self.path.pop();
            present.insert(meant.to_owned());
            match value {
                Some(value) => _ = kept.insert(meant.to_owned(), value),
                // Entries that the operator names do without each other.
                None if schema["properties"].is_null() => {}
                None => {
                    self.checked.tainted.insert(self.path.clone());
                    fits &= !strings(&schema["required"]).any(|required| required == meant);
                }
            }
        }
        for missing in strings(&schema["required"]).filter(|required| !present.contains(*required)) {
            let property = &schema["properties"][missing];
            let about = self.resolve(property);
            let form = examples(about).map(|form| format!("({form})"));
            let hint: Vec<String> = meaning(property, about).into_iter().chain(form).collect();
            self.error::<()>(span.clone(), format!("the key `{missing}` is missing"), Some(hint.join(" ")));
            fits = false;
        }
        if let Err(problem) = key_count(schema, present.len() as u64) {
            self.error::<()>(span, problem, examples(schema));
            fits = false;
        }
        fits.then_some(Value::Object(kept))
    }

    /// The key that was meant by `key`, and the schema of its value. A fault, and perhaps `None`, when there is no such
    /// key.
    fn child<'k>(
        &mut self,
        schema: &'a Value,
        table: &DeTable<'_>,
        present: &HashSet<String>,
        key: &'k Spanned<std::borrow::Cow<'_, str>>,
    ) -> Option<(&'k str, &'a Value)>
    where
        'a: 'k,
    {
        let name: &'k str = key.get_ref();
        if let Some(Value::Object(properties)) = schema.get("properties")
            && let Some((_, child)) = properties.get_key_value(name)
        {
            return Some((name, child));
        }
        if schema["additionalProperties"].is_object() {
            let format = schema["propertyNames"]["format"].as_str().unwrap_or_default();
            let Err(problem) = leaf::check(format, name) else {
                return Some((name, &schema["additionalProperties"]));
            };
            self.path.push(name.to_owned());
            self.checked.spans.insert(self.path.clone(), key.span());
            self.path.pop();
            return self.error(key.span(), problem, None);
        }
        let properties = schema["properties"].as_object()?;
        let unknown = format!("unknown key `{name}`");
        if let Some(later) = not_in_this_version(&self.path, name) {
            return self.error(key.span(), unknown, Some(later.into()));
        }
        let free = properties.keys().filter(|k| !table.contains_key(k.as_str()) && !present.contains(*k));
        match closest(name, free.map(String::as_str)).filter(|_| !self.faults.is_full()) {
            Some(meant) => {
                self.error::<()>(key.span(), unknown, Some(format!("did you mean `{meant}`?")));
                // Going on as if it had been written so finds what is wrong with the value, and accuses nothing else.
                Some((meant, &properties[meant]))
            }
            None => {
                self.error(key.span(), unknown, Some(format!("known here: {}", quoted(properties.keys()))))
            }
        }
    }

    fn array(&mut self, schema: &'a Value, items: &DeArray<'_>, span: Range<usize>) -> Option<Value> {
        let count = items.len() as u64;
        if count < schema["minItems"].as_u64().unwrap_or(0) {
            return self.error(span, "the list is empty".into(), examples(schema));
        }
        if let Some(count_max) = schema["maxItems"].as_u64().filter(|max| count > *max) {
            return self.error(span, format!("found {count} elements, expected at most {count_max}"), None);
        }
        let mut kept = Vec::new();
        for (index, item) in items.iter().enumerate() {
            self.path.push(format!("[{index}]"));
            kept.extend(self.value(&schema["items"], item, item.span()));
            self.path.pop();
        }
        // Without one of them, the places of the others would no longer be those in the file.
        (kept.len() == items.len()).then_some(Value::Array(kept))
    }

    /// Of a value that may be written in several ways, as a text, a list or a table, the form that was meant.
    fn branch(&self, schema: &'a Value, found: &DeValue<'_>) -> &'a Value {
        let mut forms = schema["anyOf"].as_array().into_iter().flatten().map(|form| self.resolve(form));
        let is_single = |form: &&Value| form["type"] != "object" && form["type"] != "array";
        let meant = match found {
            DeValue::Table(_) => forms.clone().find(|form| form["type"] == "object"),
            DeValue::Array(_) => forms.clone().find(|form| form["type"] == "array"),
            _ => None,
        };
        meant.or_else(|| forms.find(is_single)).unwrap_or(schema)
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        resolve(self.schema, schema)
    }

    fn error<T>(&mut self, span: Range<usize>, problem: String, hint: Option<String>) -> Option<T> {
        let message =
            if self.path.is_empty() { problem } else { format!("{}: {problem}", dotted(&self.path)) };
        self.faults.add(Severity::Error, Some(span), message, hint);
        None
    }
}

/// What a schema refers to within `root`, or itself.
pub(super) fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let Some(target) = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')) else {
        return schema;
    };
    root.pointer(target).unwrap_or(schema)
}

/// Whether a table may have this many keys.
fn key_count(schema: &Value, count: u64) -> Result<(), String> {
    let min = schema["minProperties"].as_u64().unwrap_or(0);
    let max = schema["maxProperties"].as_u64().unwrap_or(u64::MAX);
    if (min..=max).contains(&count) {
        return Ok(());
    }
    let quantity = if min == max { "exactly one" } else { "at least one" };
    Err(match schema["properties"].as_object() {
        Some(known) => format!("found {count} keys, expected {quantity} of {}", quoted(known.keys())),
        None => format!("found {count} keys, expected {min} to {max}"),
    })
}

/// The first paragraph of what a key means.
fn meaning(property: &Value, schema: &Value) -> Option<String> {
    let description = property["description"].as_str().or(schema["description"].as_str())?;
    description.split("\n\n").next().map(|paragraph| paragraph.replace('\n', " "))
}

type Misfit = (String, Option<String>);

/// A value that is no table or array, as JSON; or what is wrong with it. Strings of the wrong kind are not repeated: one
/// of them may be a secret in the wrong place.
fn leaf_value(schema: &Value, found: &DeValue<'_>) -> Result<Value, Misfit> {
    let options: Vec<&str> = options(schema).collect();
    let accepts = |kind: &str| match &schema["type"] {
        Value::String(only) => only == kind,
        Value::Array(kinds) => kinds.iter().any(|k| k == kind),
        _ => kind == "string" && !options.is_empty(),
    };
    let format = schema["format"].as_str().unwrap_or_default();
    match found {
        DeValue::String(text) if accepts("string") => {
            if !options.is_empty() && !options.contains(&&**text) {
                let hint =
                    closest(text, options.iter().copied()).map(|meant| format!("did you mean \"{meant}\"?"));
                return Err((format!("found \"{text}\", expected {}", listed(&options)), hint));
            }
            if (text.len() as u64) < schema["minLength"].as_u64().unwrap_or(0) {
                return Err(("the text is empty".into(), examples(schema)));
            }
            let (len, len_max) = (text.chars().count() as u64, schema["maxLength"].as_u64());
            if let Some(len_max) = len_max.filter(|max| len > *max) {
                return Err((format!("the text has {len} characters, expected at most {len_max}"), None));
            }
            leaf::check(format, text).map_err(|problem| (problem, examples(schema)))?;
            Ok(Value::from(&**text))
        }
        DeValue::Integer(integer) if accepts("integer") || accepts("number") => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            let number = number.map_err(|_| ("the number does not fit 64 bits".to_owned(), None))?;
            in_range(schema, number as f64)?;
            leaf::check(format, &number.to_string()).map_err(|problem| (problem, examples(schema)))?;
            Ok(number.into())
        }
        DeValue::Float(float) if accepts("number") => {
            let number: f64 = float.as_str().parse().unwrap_or(f64::NAN);
            let value = serde_json::Number::from_f64(number)
                .ok_or_else(|| (format!("found {}, expected a finite number", float.as_str()), None))?;
            in_range(schema, number)?;
            leaf::check(format, &number.to_string()).map_err(|problem| (problem, examples(schema)))?;
            Ok(value.into())
        }
        DeValue::Boolean(value) if accepts("boolean") => Ok(Value::Bool(*value)),
        _ => Err(wrong_type(schema, found, accepts)),
    }
}

fn wrong_type(schema: &Value, found: &DeValue<'_>, accepts: impl Fn(&str) -> bool) -> Misfit {
    const KINDS: [(&str, &str); 6] = [
        ("string", "a string"),
        ("integer", "an integer"),
        ("number", "a number"),
        ("boolean", "true or false"),
        ("array", "an array"),
        ("object", "a table"),
    ];
    let expected: Vec<&str> = KINDS.iter().filter(|(kind, _)| accepts(kind)).map(|(_, name)| *name).collect();
    let found_kind = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    let hint = match found {
        DeValue::String(_) if accepts("integer") || accepts("number") || accepts("boolean") => {
            Some("write it without quotes".into())
        }
        DeValue::Datetime(_) if accepts("string") => Some("write it in quotes".into()),
        _ => examples(schema),
    };
    (format!("found {found_kind}, expected {}", expected.join(" or ")), hint)
}

fn in_range(schema: &Value, number: f64) -> Result<(), Misfit> {
    let limit = |key: &str, within: fn(f64, f64) -> bool, words: &str| match schema[key].as_f64() {
        Some(limit) if !within(number, limit) => {
            Err((format!("found {number}, expected {words} {limit}"), None))
        }
        _ => Ok(()),
    };
    limit("minimum", |number, limit| number >= limit, "at least")?;
    limit("exclusiveMinimum", |number, limit| number > limit, "a number above")?;
    limit("maximum", |number, limit| number <= limit, "at most")
}

/// What is known to come, so that a file written for it gets an honest answer.
fn not_in_this_version(path: &[String], key: &str) -> Option<&'static str> {
    match (path.first().map(String::as_str), path.len(), key) {
        (Some("state"), 1, "url") => Some("this version keeps its state in a directory: use `dir`"),
        (Some("routes"), 2, "ttfb_timeout" | "idle_timeout") => {
            Some("this version times the wait for an answer and the gaps in it alike: use `silence_timeout`")
        }
        _ => None,
    }
}

/// The texts that an enumeration allows.
fn options(schema: &Value) -> impl Iterator<Item = &str> {
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let single = choices.clone().filter_map(|choice| choice["const"].as_str());
    strings(&schema["enum"]).chain(choices.flat_map(|choice| strings(&choice["enum"]))).chain(single)
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn examples(schema: &Value) -> Option<String> {
    let examples: Vec<String> = schema["examples"].as_array()?.iter().map(as_toml).collect();
    (!examples.is_empty()).then(|| format!("write it like {}", examples.join(" or ")))
}

/// JSON in the notation of TOML, on one line.
fn as_toml(value: &Value) -> String {
    match value {
        Value::Object(keys) => {
            let entries: Vec<String> =
                keys.iter().map(|(key, value)| format!("{key} = {}", as_toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(as_toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn listed(options: &[&str]) -> String {
    options.iter().map(|option| format!("\"{option}\"")).collect::<Vec<_>>().join(", ")
}

fn quoted<'s>(names: impl Iterator<Item = &'s String>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The candidate that `name` was probably meant to be: at most one slip, and one more for every four letters. None for
/// what is longer than any name.
pub(crate) fn closest<'c>(name: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    if name.len() > NAME_LEN_MAX {
        return None;
    }
    let distances = candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.chars().count() / 4 && distance < candidate.chars().count()).then_some(candidate)
}

/// A path as it would be written in TOML; elements of arrays are `[0]`.
pub fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        match key.starts_with('[') {
            true => text += key,
            false => {
                text += if text.is_empty() { "" } else { "." };
                text += &if bare { key.clone() } else { format!("{key:?}") };
            }
        }
    }
    text
}
