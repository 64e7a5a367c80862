//! Several files become one document, and variables of the environment replace single values in it.

use std::borrow::Cow;

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    check::{dotted, resolve},
    faults::{Collector, Severity},
    sources::{Source, VALUE_KEY, plain},
};

/// Adds what one more file holds. Files share the tables whose keys the operator names (`backends`, `routes`, `policies`);
/// everything else belongs into one file as a whole, so that what is written is found in one place.
pub(super) fn add_file<'i>(
    whole: &mut DeTable<'i>,
    file: DeTable<'i>,
    schema: &Value,
    faults: &mut Collector<'_>,
) {
    for (key, value) in file {
        let name = key.get_ref().clone();
        let Some((first, _)) = whole.get_key_value(&*name) else {
            whole.insert(key, value);
            continue;
        };
        let first = first.span();
        let shared = resolve(schema, &schema["properties"][&*name])["additionalProperties"].is_object();
        let there = whole.get_mut(&*name).map(Spanned::get_mut);
        match (there, value.into_inner()) {
            (Some(DeValue::Table(there)), DeValue::Table(more)) if shared => {
                for (entry, value) in more {
                    match there.get_key_value(&**entry.get_ref()) {
                        Some((first, _)) => {
                            twice(&[&name, entry.get_ref()], first.span(), entry.span(), faults)
                        }
                        None => _ = there.insert(entry, value),
                    }
                }
            }
            _ => twice(&[&name], first, key.span(), faults),
        }
    }
}

fn twice(
    path: &[&str],
    first: std::ops::Range<usize>,
    again: std::ops::Range<usize>,
    faults: &mut Collector<'_>,
) {
    let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
    let message =
        format!("`{}` is written twice: it is at {} as well", dotted(&path), faults.place(first.start));
    faults.add(Severity::Error, Some(again), message, Some("keep it in one file, as a whole".into()));
}

/// Puts the value of a variable where its name says. `written` is the text of [`super::sources::Sources::in_place`].
pub(super) fn set<'i>(
    whole: &mut DeTable<'i>,
    source: &'i Source,
    written: &'i str,
    value: &'i str,
    root: &Value,
    faults: &mut Collector<'_>,
) {
    let span = source.start..source.end;
    let (mut table, mut schema) = (whole, root);
    let Some((last, above)) = source.variable.split_last() else { return };
    for key in above {
        let name = key_meant(table, schema, key);
        schema = child(root, schema, &name);
        let fresh = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
        let slot = table.entry(Spanned::new(span.clone(), name)).or_insert_with(fresh);
        if !slot.get_ref().is_table() {
            *slot = fresh();
        }
        let DeValue::Table(below) = slot.get_mut() else { return };
        table = below;
    }
    let name = key_meant(table, schema, last);
    let value = if is_text(root, child(root, schema, &name), value) {
        Spanned::new(span.clone(), DeValue::String(Cow::Borrowed(value)))
    } else {
        match DeTable::parse(written).map(|document| document.into_inner().remove(VALUE_KEY)) {
            Ok(Some(value)) => value,
            Ok(None) => return,
            Err(error) => {
                let hint = "write the value as it would stand in the file after the `=`".to_owned();
                return faults.add(
                    Severity::Error,
                    Some(span),
                    format!("not a value in TOML: {}", error.message()),
                    Some(hint),
                );
            }
        }
    };
    table.insert(Spanned::new(span, name), value);
}

/// The key that a variable means: one that is there, or one that may be.
fn key_meant<'i>(table: &DeTable<'i>, schema: &Value, key: &'i str) -> Cow<'i, str> {
    let there = table.keys().find(|there| plain(there.get_ref()) == *key);
    let known = || schema["properties"].as_object()?.keys().find(|known| plain(known) == *key);
    match there {
        Some(there) => there.get_ref().clone(),
        None => known().map_or(Cow::Borrowed(key), |known| Cow::Owned(known.clone())),
    }
}

fn child<'s>(root: &'s Value, schema: &'s Value, key: &str) -> &'s Value {
    let child = match schema["properties"].get(key) {
        Some(property) => property,
        None => &schema["additionalProperties"],
    };
    resolve(root, child)
}

/// Whether a value is meant as a text, which needs no quotes here.
fn is_text(root: &Value, schema: &Value, value: &str) -> bool {
    let forms: Vec<&Value> = match schema["anyOf"].as_array() {
        Some(forms) => forms.iter().map(|form| resolve(root, form)).collect(),
        None => vec![schema],
    };
    let any = |kind: &str| {
        forms.iter().any(|form| match &form["type"] {
            Value::String(only) => only == kind,
            Value::Array(kinds) => kinds.iter().any(|k| k == kind),
            _ => kind == "string" && (form["enum"].is_array() || form["oneOf"].is_array()),
        })
    };
    let structured = (value.starts_with('[') && any("array")) || (value.starts_with('{') && any("object"));
    // What may not be there at all is no key of ours; whatever it is, it is named as unknown.
    (any("string") || schema.is_null()) && !structured
}
