//! Whether an answer is complete: every token, the usage, the end mark, and nothing after it.

use serde::Deserialize;

/// Longest line of a stream that is kept while waiting for its end.
const LINE_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    object: String,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Text>,
    message: Option<Text>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Text {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u32,
}

/// Reads a stream as it arrives, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct StreamCheck {
    line: Vec<u8>,
    tokens: u32,
    finished: bool,
    usage: Option<u32>,
    done: bool,
}

impl StreamCheck {
    /// Takes the next bytes. The error says what is wrong with the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.read_line(line.strip_suffix(b"\r").unwrap_or(&line))?;
        }
        self.line.extend_from_slice(rest);
        if self.line.len() > LINE_BYTES_MAX {
            return Err(format!("a line of the stream is longer than {LINE_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    /// Tokens so far.
    pub(super) fn tokens(&self) -> u32 {
        self.tokens
    }

    /// The verdict at the end of the body, for an answer that should have `expected` tokens.
    pub(super) fn finish(&self, expected: u32) -> Result<(), String> {
        if !self.done {
            return Err("the stream ended without [DONE]".into());
        }
        if !self.finished {
            return Err("no chunk of the stream has a finish_reason".into());
        }
        count_matches(self.tokens, expected)?;
        usage_matches(self.usage, expected)
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), String> {
        let Some(data) = line.strip_prefix(b"data: ") else {
            return match line {
                [] | [b':', ..] => Ok(()),
                _ => Err(format!("unexpected line in the stream: {:.80}", String::from_utf8_lossy(line))),
            };
        };
        if self.done {
            return Err("the stream goes on after [DONE]".into());
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk =
            serde_json::from_slice(data).map_err(|e| format!("a chunk of the stream is not valid: {e}"))?;
        if let Some(error) = chunk.error {
            return Err(format!("the stream reports an error: {error}"));
        }
        if chunk.object != "chat.completion.chunk" {
            return Err(format!("a chunk of the stream is a `{}`", chunk.object));
        }
        for choice in &chunk.choices {
            let content = choice.delta.as_ref().and_then(|d| d.content.as_deref());
            self.tokens += u32::from(content.is_some_and(|text| !text.is_empty()));
            self.finished |= choice.finish_reason.is_some();
        }
        self.usage = chunk.usage.map(|u| u.completion_tokens).or(self.usage);
        Ok(())
    }
}

/// Checks an answer that came as one JSON document and should have `expected` tokens.
pub(super) fn whole_answer(body: &[u8], expected: u32) -> Result<(), String> {
    let answer: Chunk = serde_json::from_slice(body).map_err(|e| format!("the answer is not valid: {e}"))?;
    if answer.object != "chat.completion" {
        return Err(format!("the answer is a `{}`", answer.object));
    }
    let choice = answer.choices.first().ok_or("the answer has no choice")?;
    let text = choice.message.as_ref().and_then(|m| m.content.as_deref()).unwrap_or("");
    if choice.finish_reason.is_none() {
        return Err("the answer has no finish_reason".into());
    }
    count_matches(u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX), expected)?;
    usage_matches(answer.usage.map(|u| u.completion_tokens), expected)
}

fn count_matches(tokens: u32, expected: u32) -> Result<(), String> {
    match tokens == expected {
        true => Ok(()),
        false => Err(format!("{tokens} tokens arrived; {expected} were asked for")),
    }
}

fn usage_matches(usage: Option<u32>, expected: u32) -> Result<(), String> {
    match usage {
        Some(tokens) if tokens == expected => Ok(()),
        Some(tokens) => Err(format!("the usage says {tokens} tokens; {expected} were asked for")),
        None => Err("the answer has no usage".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = r#"data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#;
    const STOP: &str =
        r#"data: {"object":"chat.completion.chunk","choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &str =
        r#"data: {"object":"chat.completion.chunk","choices":[],"usage":{"completion_tokens":2}}"#;
    const DONE: &str = "data: [DONE]";

    fn check(lines: &[&str]) -> Result<(), String> {
        let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
        let mut check = StreamCheck::default();
        for piece in text.as_bytes().chunks(7) {
            check.push(piece)?;
        }
        check.finish(2)
    }

    #[test]
    fn a_complete_stream_passes_however_it_is_cut() {
        assert_eq!(check(&[TOKEN, ": a comment", TOKEN, STOP, USAGE, DONE]), Ok(()));
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        for (lines, expected) in [
            (&[TOKEN, TOKEN, STOP, USAGE][..], "without [DONE]"),
            (&[TOKEN, STOP, USAGE, DONE][..], "1 tokens arrived; 2 were asked for"),
            (&[TOKEN, TOKEN, USAGE, DONE][..], "finish_reason"),
            (&[TOKEN, TOKEN, STOP, DONE][..], "no usage"),
            (&[TOKEN, TOKEN, STOP, USAGE, DONE, TOKEN][..], "after [DONE]"),
            (&[TOKEN, r#"data: {"error":{"message":"gone"}}"#][..], "reports an error"),
            (&["event: x"][..], "unexpected line"),
            (&["data: {"][..], "not valid"),
        ] {
            let found = check(lines).expect_err(expected);
            assert!(found.contains(expected), "{found:?} should say {expected:?}");
        }
    }

    #[test]
    fn a_whole_answer_is_counted() {
        let body = |text: &str| {
            format!(
                r#"{{"object":"chat.completion","choices":[{{"message":{{"content":"{text}"}},"finish_reason":"length"}}],
                    "usage":{{"completion_tokens":2}}}}"#
            )
        };
        assert_eq!(whole_answer(body("a b").as_bytes(), 2), Ok(()));
        assert!(whole_answer(body("a").as_bytes(), 2).is_err());
        assert!(whole_answer(b"{}", 2).is_err());
    }
}
