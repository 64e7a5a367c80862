//! What is fuzzed: each takes any bytes and panics where a promise is broken. Shared by the fuzz targets and tests/fuzz.rs.

use std::path::Path;

use tradewind::{
    config,
    model::{HeaderMatch, HostPattern, ModelPattern, PathPattern, RouteMatch},
    proxy::{
        matcher::{Asked, Found, Matcher, Request},
        peek::Scanner,
        usage::{Kind, Reader},
    },
};

/// Cuts bytes in two pieces at a place that they name themselves.
fn cut(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.first().map_or(0, |at| usize::from(*at) % (bytes.len() + 1));
    bytes.split_at(at)
}

/// The usage of an answer is the same wherever its pieces are cut.
pub fn usage(bytes: &[u8]) {
    for kind in [Kind::Events, Kind::Json, Kind::Packed] {
        let tokens_of = |pieces: &[&[u8]]| {
            let mut reader = Reader::new(kind);
            pieces.iter().for_each(|piece| reader.feed(piece));
            reader.finish(bytes.len() as u64)
        };
        let whole = tokens_of(&[bytes]);
        let (first, second) = cut(bytes);
        assert_eq!(tokens_of(&[first, second]), whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(tokens_of(&single), whole);
    }
}

/// The model of a body is what `serde_json` finds, wherever it is cut.
pub fn peek(bytes: &[u8]) {
    let model_of = |pieces: &[&[u8]]| {
        let mut scanner = Scanner::default();
        let fed = pieces.iter().all(|piece| scanner.feed(piece));
        scanner.finish().filter(|_| fed)
    };
    let whole = model_of(&[bytes]);
    let (first, second) = cut(bytes);
    assert_eq!(model_of(&[first, second]), whole);
    if let Some(model) = &whole {
        let written: String = serde_json::from_slice(&bytes[model.span.clone()]).expect("it is a text");
        assert_eq!(written, model.name);
    }
    if let Ok(serde_json::Value::Object(keys)) = serde_json::from_slice(bytes) {
        let expected = keys.get("model").and_then(serde_json::Value::as_str).filter(|name| name.len() <= 256);
        assert_eq!(whole.as_ref().map(|model| &*model.name), expected);
    }
}

/// A request from bytes: host, path, header and model, by lines.
struct Lines<'a>([&'a str; 4]);

impl Request for Lines<'_> {
    fn host(&self) -> Option<&str> {
        Some(self.0[0]).filter(|host| !host.is_empty())
    }
    fn path(&self) -> &str {
        self.0[1]
    }
    fn has_header(&self, name: &str, value: &str) -> bool {
        self.0[2] == format!("{name}:{value}")
    }
    fn model(&self) -> Asked<'_> {
        match self.0[3] {
            "" => Asked::Nothing,
            name => Asked::For(name),
        }
    }
}

fn conditions() -> Vec<RouteMatch> {
    let of = |host, path, models: &[ModelPattern], headers: &[(&str, &str)]| RouteMatch {
        host,
        path,
        models: models.to_vec(),
        headers: headers
            .iter()
            .map(|(name, value)| HeaderMatch { name: (*name).into(), value: (*value).into() })
            .collect(),
    };
    let prefix = |path: &str| PathPattern::Prefix(path.into());
    let exact = |path: &str| PathPattern::Exact(path.into());
    let llama = ModelPattern::Prefix("llama-".into());
    vec![
        of(HostPattern::Any, prefix("/v1"), &[], &[]),
        of(HostPattern::Any, prefix("/v1/chat"), std::slice::from_ref(&llama), &[]),
        of(HostPattern::Any, prefix("/v1/chat"), &[], &[("x-tier", "gold")]),
        of(HostPattern::Any, exact("/v1/models"), &[], &[]),
        of(HostPattern::Suffix(".example.com".into()), prefix("/v1"), &[], &[]),
        of(HostPattern::Exact("a.example.com".into()), prefix(""), &[ModelPattern::Exact("m".into())], &[]),
    ]
}

/// Whether a condition holds, said as plainly as possible.
fn holds(condition: &RouteMatch, request: &Lines<'_>) -> bool {
    let host = request.host().map(str::to_ascii_lowercase);
    let host = match &condition.host {
        HostPattern::Any => true,
        HostPattern::Exact(name) => host.is_some_and(|host| host == *name),
        HostPattern::Suffix(end) => {
            host.is_some_and(|host| host.len() > end.len() && host.ends_with(end.as_str()))
        }
    };
    let path = match &condition.path {
        PathPattern::Exact(path) => request.path() == path,
        PathPattern::Prefix(start) => {
            request
                .path()
                .strip_prefix(start.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || start.is_empty()
        }
    };
    let model = condition.models.is_empty()
        || matches!(request.model(), Asked::For(name) if condition.models.iter().any(|model| model.matches(name)));
    host && path
        && model
        && condition.headers.iter().all(|header| request.has_header(&header.name, &header.value))
}

/// A route is found exactly if one fits, and it does fit.
pub fn matcher(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let request = Lines(std::array::from_fn(|_| lines.next().unwrap_or_default()));
    let conditions = conditions();
    match Matcher::new(conditions.iter()).find(&request) {
        Some(Found::Route(route)) => assert!(holds(&conditions[route], &request)),
        Some(Found::DependsOnModel) => panic!("the model is known"),
        None => assert!(!conditions.iter().any(|condition| holds(condition, &request))),
    }
}

/// Any file is taken or refused, with faults that have a place in it.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // Nothing beside it can be read from here.
    if let Err(faults) = config::parse(text, Path::new("/nonexistent/t.toml")) {
        assert!(!faults.to_string().is_empty());
    }
}
