//! The reader beside `serde_json`, and what servers really send.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read_in(kind: Kind, answer: &[u8], piece: usize) -> Tokens {
    let mut reader = Reader::new(kind);
    answer.chunks(piece.max(1)).for_each(|piece| reader.feed(piece));
    reader.finish(400)
}

fn reported(kind: Kind, answer: &str) -> Option<(u64, u64)> {
    let all: Vec<Tokens> =
        [1, 2, 3, 5, 7, 1 << 20].into_iter().map(|piece| read_in(kind, answer.as_bytes(), piece)).collect();
    assert!(all.iter().all(|tokens| tokens == &all[0]), "it matters where the pieces are cut: {all:?}");
    all[0].reported.then_some((all[0].input, all[0].output))
}

#[test]
fn the_shapes_of_the_apis_are_read() {
    let chat = r#"{"id":"c-1","choices":[{"message":{"content":"the \"usage\": {\"prompt_tokens\": 9}"}}],
        "usage": {"prompt_tokens": 7, "completion_tokens_details": {"prompt_tokens": 1, "x": [3, {"y": "}"}]}, "completion_tokens":5,
        "total_tokens":12}}"#;
    assert_eq!(reported(Kind::Json, chat), Some((7, 5)));
    let embedding = r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    assert_eq!(reported(Kind::Json, embedding), Some((8, 0)));
    let response = r#"{"usage":null,"output":[],"usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":30},"output_tokens":87}}"#;
    assert_eq!(reported(Kind::Json, response), Some((36, 87)));
    let gemini = r#"{"candidates":[],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":6,"totalTokenCount":10}}"#;
    assert_eq!(reported(Kind::Json, gemini), Some((4, 6)));
    assert_eq!(reported(Kind::Json, r#"{"usage":{"total_tokens":3}}"#), Some((3, 0)));
}

#[test]
fn the_last_event_that_counts_is_read() {
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n\
                  data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n";
    assert_eq!(reported(Kind::Events, stream), Some((7, 5)));
    let anthropic = "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":100,\
                     \"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":15}}\n\n";
    assert_eq!(reported(Kind::Events, anthropic), Some((125, 15)));
    let responses = "event: response.completed\r\ndata: {\"response\":{\"usage\" : {\"input_tokens\":3,\"output_tokens\":4}}}\r\n\r\n";
    assert_eq!(reported(Kind::Events, responses), Some((3, 4)));
}

#[test]
fn what_is_no_usage_is_none() {
    for none in [
        "",
        r#"{"usage""#,
        r#"{"usage":{"prompt_tokens":7"#,
        r#"{"usage":7}"#,
        r#"{"usage":[{"prompt_tokens":7}]}"#,
        r#"{"usages":{"prompt_tokens":7}}"#,
        r#"{"usageMeta":{"prompt_tokens":7}}"#,
        r#"{"usage":{"prompt_tokens":"7"}}"#,
        r#"{"usage":{"prompt_tokens":7.5}}"#,
        r#"{"usage":{"prompt_tokens":-7}}"#,
        r#"{"usage":{"prompt_tokens":99999999999999999999999999}}"#,
        r#"{"usage":{"prompt\u005ftokens":7}}"#,
        r#"{"usage":{"x":{"prompt_tokens":7}}}"#,
        r#"{"text":"\"usage\":{\"prompt_tokens\":7}"}"#,
        r#"{"words":["usage",{"prompt_tokens":7}]}"#,
    ] {
        assert_eq!(reported(Kind::Json, none), None, "{none}");
    }
    assert_eq!(reported(Kind::Packed, r#"{"usage":{"prompt_tokens":7}}"#), None);
    let long = format!(r#"{{"usage":{{"x":"{}","prompt_tokens":7}}}}"#, "a".repeat(OBJECT_LEN_MAX));
    assert!(!read_in(Kind::Json, long.as_bytes(), 1000).reported);
    // It is found again after what was none.
    assert_eq!(
        reported(
            Kind::Json,
            r#"{"a":"usage","usage":{"usage":{"prompt_tokens":1}},"usage":{"prompt_tokens":7}}"#
        ),
        Some((7, 0))
    );
}

#[test]
fn what_is_not_counted_is_estimated() {
    let stream = "data: a\n\n: ping\n\nevent: x\ndata: b\n\nid: 3\n\ndata: c\n\n";
    for piece in [1, 2, 3, 1000] {
        let tokens = read_in(Kind::Events, stream.as_bytes(), piece);
        assert_eq!(tokens, Tokens { input: 100, output: 3, reported: false });
    }
    let tokens = read_in(Kind::Json, &[b'x'; 80], 7);
    assert_eq!(tokens, Tokens { input: 100, output: 20, reported: false });
}

/// A document with `usage` in odd places.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<u32>().prop_map(Value::from),
        Just(Value::Null),
        ".{0,12}".prop_map(Value::from),
        Just(json!("\"usage\":{\"prompt_tokens\":1}")),
        (0..2000u64, 0..2000u64).prop_map(|(a, b)| json!({ "prompt_tokens": a, "completion_tokens": b })),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((prop_oneof![Just("usage".to_owned()), "[a-z\"]{0,6}"], inner), 0..4)
                .prop_map(|entries| entries.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// The last object that is called `usage`, in the order in which the text has them, if it counts.
fn oracle(value: &Value, found: &mut Option<(u64, u64)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| oracle(item, found)),
        Value::Object(keys) => {
            for (key, value) in keys {
                if key == "usage" && value.is_object() {
                    let count = |name: &str| value[name].as_u64();
                    *found = count("prompt_tokens").zip(count("completion_tokens")).or(*found);
                } else {
                    oracle(value, found);
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn it_finds_what_a_parser_finds(document in document(), piece in 1..40usize) {
        let mut expected = None;
        oracle(&document, &mut expected);
        let tokens = read_in(Kind::Json, document.to_string().as_bytes(), piece);
        prop_assert_eq!(tokens.reported.then_some((tokens.input, tokens.output)), expected);
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1..9usize) {
        for kind in [Kind::Events, Kind::Json, Kind::Packed] {
            let whole = read_in(kind, &bytes, bytes.len());
            prop_assert_eq!(read_in(kind, &bytes, piece), whole);
        }
    }

    #[test]
    fn no_noise_around_it_hides_it(noise in "[\"usage:{ },\\\\]{0,30}", piece in 1..9usize) {
        let text = format!("{}\n{{\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":5}}}}", json!(noise));
        let tokens = read_in(Kind::Json, text.as_bytes(), piece);
        prop_assert_eq!((tokens.reported, tokens.input, tokens.output), (true, 7, 5));
    }
}
