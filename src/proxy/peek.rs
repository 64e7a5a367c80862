//! Finds the model in the body of a request without building a document.
//!
//! A [`Scanner`] is fed a JSON body piece by piece, looks at each byte once, and knows at the end where the value of the key
//! `model` of the outermost object is. It keeps no more than that value. It answers as `serde_json` does: of a key that is there
//! twice the last one counts, a key may be written with escapes, what is no string is no model, and what is no JSON has none. A
//! backend may take the first of two, or `MODEL` for the same key: where that would matter, a body that has more than one is told.

use std::ops::Range;

use crate::model::route::MODEL_LEN_MAX;

/// Deepest nesting that is followed, as in `serde_json`: deeper bodies have no model.
const DEPTH_MAX: u32 = 127;

/// The key whose value is the model.
const MODEL: &[u8] = b"model";

/// Keys of the outermost object that are looked for, and what their values are. The longest one is how much of a key is kept.
const KEYS: [(&[u8], Wanted); 5] = [
    (MODEL, Wanted::Model),
    (b"user", Wanted::User),
    (b"messages", Wanted::Prompt),
    (b"prompt", Wanted::Prompt),
    (b"input", Wanted::Prompt),
];

/// Longest of these keys in bytes.
const KEY_LEN_MAX: usize = 8;

/// Bytes that are looked at together where nothing but text is expected.
const BLOCK: usize = 32;

/// The model that a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name, without quotes and escapes.
    pub name: String,
    /// Where its value is written in the body, quotes included.
    pub span: Range<usize>,
}

/// What the value of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Model,
    User,
    Prompt,
}

/// What a body says beside its model: where in it the values are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The text `user`, quotes included.
    pub user: Option<Range<usize>>,
    /// Where the prompt begins: the value of `messages`, `prompt` or `input`.
    pub prompt: Option<usize>,
    /// How often it names a model, with a key in upper or lower case: servers differ in which of several counts (Go's
    /// `encoding/json` ignores the case of keys).
    pub models: u32,
}

/// Where in the grammar of JSON (RFC 8259) the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the outermost object.
    Start,
    /// Before a value.
    Value,
    /// After `[`: a value or the end of the array.
    FirstElement,
    /// After `{`: a key or the end of the object.
    FirstKey,
    /// After a comma in an object.
    Key,
    /// After a key.
    Colon,
    /// After a value: a comma or the end of what it is in.
    After,
    /// In a string.
    Text,
    /// After a backslash.
    Escape,
    /// In `\uXXXX`, with so many digits to come.
    Unicode(u8),
    /// In `true`, `false` or `null`: what is to come of it.
    Literal(&'static [u8]),
    /// In a number.
    Number(Number),
    /// After the outermost object.
    End,
    /// It is no JSON object.
    Failed,
}

/// What of a number was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// What a string is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    Key,
    Model,
    User,
}

/// Reads a body as it comes in.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// How many objects and arrays are open, and which of them are objects: one bit each, the innermost lowest.
    depth: u32,
    objects: u128,
    /// Offset of the next byte.
    at: usize,
    /// The string under way: whether it is a key, what it is kept for, where it began, and what of it is kept.
    is_key: bool,
    keep: Keep,
    began: usize,
    text: Vec<u8>,
    /// Whether the kept text is no text, or longer than can matter.
    spoilt: bool,
    /// Digits of a `\u` so far, and the first half of a pair of them that waits for the second.
    unit: u32,
    high: Option<u32>,
    /// What the next value is.
    wanted: Wanted,
    found: Option<Model>,
    marks: Marks,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner {
            state: State::Start,
            depth: 0,
            objects: 0,
            at: 0,
            is_key: false,
            keep: Keep::Nothing,
            began: 0,
            text: Vec::new(),
            spoilt: false,
            unit: 0,
            high: None,
            wanted: Wanted::Nothing,
            found: None,
            marks: Marks::default(),
        }
    }
}

impl Scanner {
    /// Reads on. Says whether the body may still have a model; if not, nothing further needs to be fed.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            if self.state == State::Text && self.keep == Keep::Nothing {
                let plain = plain_text(rest);
                if plain > 0 {
                    self.at += plain;
                    rest = &rest[plain..];
                    continue;
                }
            }
            self.step(*byte);
            if self.state == State::Failed {
                return false;
            }
            self.at += 1;
            rest = tail;
        }
        true
    }

    /// The model, when the whole body was fed, and what else it says.
    pub fn finish(self) -> (Option<Model>, Marks) {
        match self.state {
            State::End => (self.found, self.marks),
            _ => (None, Marks::default()),
        }
    }

    fn step(&mut self, byte: u8) {
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (State::Text, _) => return self.text(byte),
            (State::Escape, _) => return self.escape(byte),
            (State::Unicode(left), _) => return self.unicode(left, byte),
            (State::Literal(rest), _) => match rest {
                [expected] if *expected == byte => State::After,
                [expected, rest @ ..] if *expected == byte => State::Literal(rest),
                _ => State::Failed,
            },
            (State::Number(number), _) => match number.next(byte) {
                Some(next) => State::Number(next),
                None if number.may_end() => {
                    self.state = State::After;
                    return self.step(byte);
                }
                None => State::Failed,
            },
            (state, _) if blank => state,
            (State::Start, b'{') | (State::Value | State::FirstElement, b'{') => self.open(true),
            (State::Value | State::FirstElement, b'[') => self.open(false),
            (State::FirstElement, b']') => self.close(false),
            (State::FirstKey, b'}') => self.close(true),
            (State::FirstKey | State::Key, b'"') => self.begin_text(true),
            (State::Colon, b':') => State::Value,
            (State::Value | State::FirstElement, _) => self.value(byte),
            (State::After, b',') => match self.in_object() {
                true => State::Key,
                false => State::Value,
            },
            (State::After, b'}') => self.close(true),
            (State::After, b']') => self.close(false),
            _ => State::Failed,
        };
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn open(&mut self, object: bool) -> State {
        self.settle();
        if self.depth == DEPTH_MAX {
            return State::Failed;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        if object { State::FirstKey } else { State::FirstElement }
    }

    fn close(&mut self, object: bool) -> State {
        if self.in_object() != object {
            return State::Failed;
        }
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth == 0 { State::End } else { State::After }
    }

    /// A value that is no object or array.
    fn value(&mut self, byte: u8) -> State {
        if byte == b'"' {
            return self.begin_text(false);
        }
        self.settle();
        match byte {
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            _ => State::Failed,
        }
    }

    /// A value begins that is no string: whatever an earlier one of its key said no longer counts.
    fn settle(&mut self) {
        match std::mem::replace(&mut self.wanted, Wanted::Nothing) {
            Wanted::Nothing => {}
            Wanted::Model => self.found = None,
            Wanted::User => self.marks.user = None,
            Wanted::Prompt => self.marks.prompt = Some(self.at),
        }
    }

    fn begin_text(&mut self, is_key: bool) -> State {
        self.is_key = is_key;
        self.keep = match is_key {
            true if self.depth == 1 => Keep::Key,
            true => Keep::Nothing,
            false => match std::mem::replace(&mut self.wanted, Wanted::Nothing) {
                Wanted::Model => Keep::Model,
                Wanted::User => Keep::User,
                Wanted::Prompt => {
                    self.marks.prompt = Some(self.at);
                    Keep::Nothing
                }
                Wanted::Nothing => Keep::Nothing,
            },
        };
        self.began = self.at;
        self.text.clear();
        self.spoilt = false;
        State::Text
    }

    fn text(&mut self, byte: u8) {
        match byte {
            b'"' => self.end_text(),
            b'\\' => self.state = State::Escape,
            0..=0x1f => self.state = State::Failed,
            _ => self.push(&[byte]),
        }
    }

    fn escape(&mut self, byte: u8) {
        self.state = State::Text;
        match byte {
            b'"' | b'\\' | b'/' => self.push(&[byte]),
            b'b' => self.push(&[8]),
            b'f' => self.push(&[12]),
            b'n' => self.push(b"\n"),
            b'r' => self.push(b"\r"),
            b't' => self.push(b"\t"),
            b'u' => {
                self.unit = 0;
                self.state = State::Unicode(4);
            }
            _ => self.state = State::Failed,
        }
    }

    fn unicode(&mut self, left: u8, byte: u8) {
        let Some(digit) = char::from(byte).to_digit(16) else {
            self.state = State::Failed;
            return;
        };
        self.unit = self.unit << 4 | digit;
        if left > 1 {
            self.state = State::Unicode(left - 1);
            return;
        }
        self.state = State::Text;
        // Half a pair is no character (it may stand in a text that does not matter here).
        match (self.high.take(), self.unit) {
            (None, high @ 0xd800..=0xdbff) => self.high = Some(high),
            (Some(high), low @ 0xdc00..=0xdfff) => {
                self.push_char(0x10000 + ((high - 0xd800) << 10 | (low - 0xdc00)));
            }
            (Some(_), _) => self.spoilt = true,
            (None, unit) => self.push_char(unit),
        }
    }

    fn push_char(&mut self, code: u32) {
        match char::from_u32(code) {
            Some(character) => self.push(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => self.spoilt = true,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.spoilt |= self.high.take().is_some();
        let room = match self.keep {
            Keep::Nothing | Keep::User => return,
            Keep::Key => KEY_LEN_MAX,
            Keep::Model => MODEL_LEN_MAX,
        };
        self.spoilt |= self.text.len() + bytes.len() > room;
        if !self.spoilt {
            self.text.extend_from_slice(bytes);
        }
    }

    fn end_text(&mut self) {
        let whole = self.high.take().is_none() && !self.spoilt;
        match self.keep {
            Keep::Nothing => {}
            Keep::Key => {
                self.marks.models += u32::from(whole && self.text.eq_ignore_ascii_case(MODEL));
                let known = KEYS.iter().find(|(key, _)| whole && self.text == *key);
                self.wanted = known.map_or(Wanted::Nothing, |(_, wanted)| *wanted);
            }
            Keep::User => self.marks.user = Some(self.began..self.at + 1),
            Keep::Model => {
                let name = String::from_utf8(std::mem::take(&mut self.text)).ok().filter(|_| whole);
                self.found = name.map(|name| Model { name, span: self.began..self.at + 1 });
            }
        }
        self.state = if self.is_key { State::Colon } else { State::After };
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Number> {
        Some(match (self, byte) {
            (Number::Minus, b'0') => Number::Zero,
            (Number::Minus | Number::Integer, b'0'..=b'9') => Number::Integer,
            (Number::Zero | Number::Integer, b'.') => Number::Point,
            (Number::Point | Number::Fraction, b'0'..=b'9') => Number::Fraction,
            (Number::Zero | Number::Integer | Number::Fraction, b'e' | b'E') => Number::Exponent,
            (Number::Exponent, b'+' | b'-') => Number::ExponentSign,
            (Number::Exponent | Number::ExponentSign | Number::ExponentDigits, b'0'..=b'9') => {
                Number::ExponentDigits
            }
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Integer | Number::Fraction | Number::ExponentDigits)
    }
}

/// How many bytes from the start are text and nothing else. Prompts are long: whole blocks are tested without a branch a
/// byte, which the compiler turns into vector instructions.
fn plain_text(bytes: &[u8]) -> usize {
    let special = |byte: u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    let blocks = bytes.chunks_exact(BLOCK);
    let plain =
        blocks.take_while(|block| !block.iter().fold(false, |any, byte| any | special(*byte))).count()
            * BLOCK;
    let rest = &bytes[plain..];
    plain + rest.iter().position(|byte| special(*byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
