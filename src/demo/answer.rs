//! A chat completion: what is asked for, and an answer of words without meaning, whole or token by token.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body, Frame};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};

use super::cluster::{Latency, Refusal, Served};
use crate::model::Timestamp;

/// Longest answer that can be asked for, in tokens.
const TOKENS_MAX: u32 = 4_096;
/// Length of an answer for which no limit was asked, in tokens.
const TOKENS_DEFAULT: u32 = 32;

const WORDS: [&str; 16] = [
    "steady", "wind", "carries", "every", "ship", "along", "the", "cheapest", "course", "while", "harbours",
    "open", "and", "close", "with", "tides",
];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ChatRequest {
    pub(super) stream: bool,
    include_usage: bool,
    tokens: u32,
    limited: bool,
    prompt_tokens: u32,
}

#[derive(Deserialize)]
struct RawChat {
    model: String,
    messages: Vec<RawMessage>,
    stream: Option<bool>,
    stream_options: Option<RawStreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    n: Option<u32>,
}

#[derive(Deserialize)]
struct RawMessage {
    #[serde(rename = "role")]
    _role: String,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct RawStreamOptions {
    include_usage: Option<bool>,
}

impl ChatRequest {
    /// Reads the body of `POST /v1/chat/completions`; parameters that would change nothing here are passed over.
    pub(super) fn parse(body: &[u8], served_model: &str) -> Result<ChatRequest, Refusal> {
        let refuse = |param, message: String| Refusal { status: StatusCode::BAD_REQUEST, param, message };
        let raw: RawChat = serde_json::from_slice(body)
            .map_err(|e| refuse(None, format!("The request body is not a chat completion request: {e}")))?;
        if raw.model != served_model {
            return Err(Refusal {
                status: StatusCode::NOT_FOUND,
                param: Some("model"),
                message: format!(
                    "The model `{}` does not exist; this cluster serves `{served_model}`",
                    raw.model
                ),
            });
        }
        if raw.messages.is_empty() {
            return Err(refuse(
                Some("messages"),
                "`messages` is empty; at least one message is needed".into(),
            ));
        }
        if raw.n.is_some_and(|n| n != 1) {
            return Err(refuse(Some("n"), "`n` must be 1".into()));
        }
        let limit = raw.max_completion_tokens.or(raw.max_tokens);
        let tokens = limit.unwrap_or(TOKENS_DEFAULT);
        if !(1..=TOKENS_MAX).contains(&tokens) {
            let message = format!("the answer may have 1 to {TOKENS_MAX} tokens; {tokens} were asked for");
            return Err(refuse(Some("max_completion_tokens"), message));
        }
        let words = raw.messages.iter().map(|m| words(&m.content)).sum::<usize>();
        Ok(ChatRequest {
            stream: raw.stream.unwrap_or(false),
            include_usage: raw.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
            tokens,
            limited: limit.is_some(),
            prompt_tokens: u32::try_from(words).unwrap_or(u32::MAX),
        })
    }
}

/// Words stand for tokens. A content is a text, or a list of parts of which some are text.
fn words(content: &Value) -> usize {
    match content {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(parts) => parts.iter().map(|part| words(&part["text"])).sum(),
        _ => 0,
    }
}

/// An answer in the making.
#[derive(Debug)]
pub(super) struct Answer {
    id: String,
    model: String,
    created: i64,
    chat: ChatRequest,
    rng: fastrand::Rng,
    given: u32,
}

impl Answer {
    pub(super) fn new(chat: &ChatRequest, model: &str, mut rng: fastrand::Rng) -> Answer {
        let id = format!("chatcmpl-{:016x}", rng.u64(..));
        let created = Timestamp::now().as_second();
        Answer { id, model: model.to_owned(), created, chat: chat.clone(), rng, given: 0 }
    }

    /// Its length.
    pub(super) fn tokens(&self) -> u32 {
        self.chat.tokens
    }

    /// One draw of the time to the next token.
    pub(super) fn pause(&mut self, per_token: Latency) -> Duration {
        per_token.draw(&mut self.rng)
    }

    /// The answer as one JSON document.
    pub(super) fn whole(&mut self) -> Value {
        let text: String = (0..self.tokens()).map(|i| self.word(i)).collect();
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": text, "refusal": null },
                "logprobs": null,
                "finish_reason": self.finish_reason(),
            }],
            "usage": self.usage(),
        })
    }

    /// The next event of the stream: one for each token, then one that holds all that ends it, then `None`.
    fn next_event(&mut self) -> Option<Bytes> {
        let index = self.given;
        if index > self.tokens() {
            return None;
        }
        self.given += 1;
        if index < self.tokens() {
            let word = self.word(index);
            let delta = match index {
                0 => json!({ "role": "assistant", "content": word }),
                _ => json!({ "content": word }),
            };
            return Some(Bytes::from(self.chunk(choice(delta, Value::Null), None)));
        }
        let mut end = self.chunk(choice(json!({}), self.finish_reason().into()), None);
        if self.chat.include_usage {
            end += &self.chunk(json!([]), Some(self.usage()));
        }
        end += "data: [DONE]\n\n";
        Some(Bytes::from(end))
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> String {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    }

    fn word(&mut self, index: u32) -> String {
        let word = WORDS[self.rng.usize(..WORDS.len())];
        if index == 0 { word.to_owned() } else { format!(" {word}") }
    }

    fn finish_reason(&self) -> &'static str {
        if self.chat.limited { "length" } else { "stop" }
    }

    fn usage(&self) -> Value {
        let (prompt, completion) = (self.chat.prompt_tokens, self.chat.tokens);
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": u64::from(prompt) + u64::from(completion),
        })
    }
}

fn choice(delta: Value, finish_reason: Value) -> Value {
    json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason }])
}

/// The body of a streamed answer: server-sent events at the pace of the cluster.
pub(super) struct TokenStream {
    answer: Answer,
    per_token: Latency,
    due: Pin<Box<Sleep>>,
    served: Arc<Served>,
}

impl TokenStream {
    /// The first token is due at once.
    pub(super) fn new(answer: Answer, per_token: Latency, served: Arc<Served>) -> TokenStream {
        TokenStream { answer, per_token, due: Box::pin(tokio::time::sleep_until(Instant::now())), served }
    }
}

impl Body for TokenStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.due.as_mut().poll(context));
        let Some(event) = self.answer.next_event() else { return Poll::Ready(None) };
        if self.answer.given < self.answer.tokens() {
            // Counted from when the token was due, so that a late timer does not slow the whole stream.
            let per_token = self.per_token;
            let next = self.due.deadline() + self.answer.pause(per_token);
            self.due.as_mut().reset(next);
        } else if self.answer.given > self.answer.tokens() {
            self.served.count(self.answer.tokens());
        }
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ChatRequest, Refusal> {
        ChatRequest::parse(text.as_bytes(), "m")
    }

    #[test]
    fn the_request_is_read_as_the_openai_client_writes_it() {
        let chat = parse(
            r#"{"model":"m","messages":[{"role":"system","content":"be brief"},
                {"role":"user","content":[{"type":"text","text":"a b c"},{"type":"image_url","image_url":{"url":"x"}}]}],
                "stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":7,"temperature":0.2}"#,
        )
        .expect("a valid request");
        let expected =
            ChatRequest { stream: true, include_usage: true, tokens: 7, limited: true, prompt_tokens: 5 };
        assert_eq!(chat, expected);
    }

    #[test]
    fn what_cannot_be_served_is_refused_with_the_parameter_at_fault() {
        let message = r#""messages":[{"role":"user","content":"x"}]"#;
        for (body, status, param) in [
            ("{".to_owned(), 400, None),
            (format!(r#"{{"model":"other",{message}}}"#), 404, Some("model")),
            (r#"{"model":"m","messages":[]}"#.to_owned(), 400, Some("messages")),
            (format!(r#"{{"model":"m",{message},"n":2}}"#), 400, Some("n")),
            (format!(r#"{{"model":"m",{message},"max_tokens":0}}"#), 400, Some("max_completion_tokens")),
            (format!(r#"{{"model":"m",{message},"max_tokens":100000}}"#), 400, Some("max_completion_tokens")),
        ] {
            let refusal = parse(&body).expect_err(&body);
            assert_eq!((refusal.status.as_u16(), refusal.param), (status, param), "{body}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_answer() {
        let chat =
            parse(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#).expect("a valid request");
        let text = |seed| {
            let whole = Answer::new(&chat, "m", fastrand::Rng::with_seed(seed)).whole();
            (whole["id"].clone(), whole["choices"][0]["message"]["content"].clone())
        };
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}
