//! The scanner beside `serde_json`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What the scanner finds in a body that comes in pieces of this size.
fn scan_in(body: &[u8], piece: usize) -> Option<Model> {
    let mut scanner = Scanner::default();
    let fed = body.chunks(piece.max(1)).all(|piece| scanner.feed(piece));
    let (found, _) = scanner.finish();
    assert!(fed || found.is_none(), "it gave up and yet found {found:?}");
    found
}

fn scan(body: &str) -> Option<String> {
    scan_in(body.as_bytes(), body.len()).map(|model| model.name)
}

/// What `serde_json` says; `None` where it does not accept the body at all.
fn oracle(body: &[u8]) -> Option<Option<String>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let name = value.as_object().and_then(|keys| keys.get("model")).and_then(Value::as_str);
    Some(name.filter(|name| name.len() <= MODEL_LEN_MAX).map(str::to_owned))
}

fn assert_as_serde(body: &[u8], piece: usize) {
    let found = scan_in(body, piece);
    match oracle(body) {
        Some(expected) => assert_eq!(found.as_ref().map(|model| &model.name), expected.as_ref()),
        // Half of a pair in another text, or a number beyond every float, is none of our business.
        None if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() => assert_eq!(found, None),
        None => {}
    }
    if let Some(Model { name, span }) = found {
        assert_eq!(serde_json::from_slice::<String>(&body[span]).ok(), Some(name));
    }
}

#[test]
fn it_finds_the_model_of_the_outermost_object_only() {
    let body = r#" {"messages":[{"model":"no","content":"\"model\":\"no\""}],"model" : "llama-3-8b","n":1} "#;
    assert_eq!(scan(body).as_deref(), Some("llama-3-8b"));
    let at = scan_in(body.as_bytes(), 7).expect("it is there").span;
    assert_eq!(&body[at], "\"llama-3-8b\"");
    for none in ["", "null", "[]", "\"model\"", "{}", r#"{"a":{"model":"x"}}"#, r#"[{"model":"x"}]"#] {
        assert_eq!(scan(none), None, "{none}");
    }
}

#[test]
fn of_two_the_last_one_counts_and_what_is_no_string_is_no_model() {
    assert_eq!(scan(r#"{"model":"a","model":"b"}"#).as_deref(), Some("b"));
    for none in ["1", "null", "{\"model\":\"x\"}", "[\"x\"]", "true", "-0.5e+3"] {
        assert_eq!(scan(&format!(r#"{{"model":"a","model":{none}}}"#)), None, "{none}");
    }
}

#[test]
fn escapes_are_read() {
    assert_eq!(scan(r#"{"\u006dod\u0065l":"gpt\u002D4\/o\ud83e\udd99"}"#).as_deref(), Some("gpt-4/o🦙"));
    assert_eq!(scan(r#"{"model":"\ud83e"}"#), None);
    assert_eq!(scan(r#"{"model":"\ud83ex"}"#), None);
    assert_eq!(scan(r#"{"prompt":"\ud83e","model":"a"}"#).as_deref(), Some("a"));
}

#[test]
fn what_is_no_json_has_no_model() {
    let bodies = [
        r#"{"model":"a""#,
        r#"{"model":"a"}x"#,
        r#"{"model":"a",}"#,
        r#"{"model" "a"}"#,
        r#"{"model":"a"]"#,
        r#"{"a":01,"model":"a"}"#,
        r#"{"a":1.,"model":"a"}"#,
        r#"{"a":tru,"model":"a"}"#,
        r#"{"a":"\x","model":"a"}"#,
        "{\"a\":\"\n\",\"model\":\"a\"}",
        r#"{,"model":"a"}"#,
        r#"{'model':'a'}"#,
    ];
    for body in bodies {
        assert_eq!(scan(body), None, "{body}");
    }
    assert_eq!(scan_in(b"{\"model\":\"\xff\"}", 3), None);
}

#[test]
fn nesting_and_names_are_bounded() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"a":{open}{close},"model":"m"}}"#)
    };
    for depth in [2, 126, 127, 128, 129, 10_000] {
        assert_as_serde(nested(depth).as_bytes(), 1024);
    }
    assert_eq!(scan(&nested(127)).as_deref(), Some("m"));
    assert_eq!(scan(&nested(10_000)), None);
    let named = |len: usize| json!({ "model": "m".repeat(len) }).to_string();
    assert!(scan(&named(MODEL_LEN_MAX)).is_some());
    assert_eq!(scan(&named(MODEL_LEN_MAX + 1)), None);
}

/// Documents in which the key is often there, in odd places too.
fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[ -~]{0,100}".prop_map(Value::from),
    ];
    let key = prop_oneof![2 => Just("model".to_owned()), 3 => ".{0,8}"];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|entries| entries.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// Pieces of JSON in any order: mostly broken, in every way.
fn fragments() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(&[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"model\"",
        "\"model\":",
        "\"a\":",
        "\"a\"",
        "\"",
        "\\",
        "\\u00",
        "6d",
        "1",
        "-",
        "0",
        ".",
        "e",
        "true",
        "null",
        " ",
        "\n",
        "{\"model\":\"x\"",
        "\u{1f999}",
        "\"\\ud83e\\udd99\"",
    ]);
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn it_agrees_with_serde_on_documents(document in documents(), pretty: bool, piece in 1..80usize) {
        let body = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) };
        assert_as_serde(&body.unwrap(), piece);
    }

    #[test]
    fn it_agrees_with_serde_on_keys_that_are_there_twice(values in proptest::collection::vec(documents(), 1..5)) {
        let entries: Vec<String> = values.iter().map(|value| format!("\"model\":{value}")).collect();
        assert_as_serde(format!("{{{}}}", entries.join(",")).as_bytes(), 16);
    }

    #[test]
    fn it_agrees_with_serde_on_damaged_documents(
        document in documents(), at: proptest::sample::Index, byte: u8, piece in 1..80usize
    ) {
        let mut body = serde_json::to_vec(&json!({ "model": "m", "x": document })).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        assert_as_serde(&body, piece);
        body.truncate(at);
        assert_as_serde(&body, piece);
    }

    #[test]
    fn it_agrees_with_serde_on_fragments(body in fragments(), piece in 1..10usize) {
        assert_as_serde(body.as_bytes(), piece);
    }

    #[test]
    fn it_agrees_with_serde_on_noise(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        assert_as_serde(&body, 7);
        assert_as_serde(&[b"{\"model\":\"m\",\"a\":", &*body, b"}"].concat(), 7);
    }
}
