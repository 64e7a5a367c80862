//! How many tokens an answer says that it took, read as it passes by.
//!
//! A [`Scanner`] looks for a key `usage` (or `usageMetadata`, as Gemini has it) whose value is an object, at any depth, and reads
//! the numbers in it; the last one counts for each. The shapes of OpenAI (chat, completions, embeddings, responses), of Anthropic
//! and of Gemini have it so, in a JSON body as in a server-sent event, so neither needs a parser: outside of the object nothing
//! is looked at but the six bytes `"usage`. Text that a model wrote cannot be taken for the key, since its quotes are escaped. Nothing is
//! kept but where the scanner stands, and pieces may be cut anywhere.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::signals::ledger::Tokens;

/// How the key begins. What follows is `"` or `Metadata"`.
const KEY: &[u8] = b"\"usage";

/// How the other key ends.
const REST: &[u8] = b"Metadata\"";

/// Longest object that is read, in bytes: the longest known one has 700. A longer one is none.
const OBJECT_LEN_MAX: usize = 8 << 10;

/// Longest name of a number: `cache_creation_input_tokens`, and some.
const NAME_LEN_MAX: usize = 32;

/// Deepest nesting within the object. Details are one level down.
const DEPTH_MAX: u8 = 16;

/// Most tokens that are believed of one answer: a hundred times the longest context there is. More is a fault of the backend, and
/// would spoil every mean.
const TOKENS_MAX: u64 = 100_000_000;

/// Bytes of JSON or text that stand for one token where nobody counted: what English has in most vocabularies.
const BYTES_PER_TOKEN: u64 = 4;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KEY));

/// How an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Server-sent events: an event without a count stands for a token.
    Events,
    /// A JSON document.
    Json,
    /// Either of them, compressed: it is not looked into.
    Packed,
}

/// Reads the tokens of one answer.
#[derive(Debug)]
pub struct Reader {
    kind: Kind,
    scanner: Scanner,
    bytes: u64,
    events: u64,
    /// Whether the next byte begins a line.
    line_begins: bool,
}

impl Reader {
    /// A reader of an answer of this kind.
    pub fn new(kind: Kind) -> Reader {
        Reader { kind, scanner: Scanner::default(), bytes: 0, events: 0, line_begins: true }
    }

    /// Reads on.
    pub fn feed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        match self.kind {
            Kind::Packed => {}
            Kind::Json => self.scanner.feed(piece),
            Kind::Events => {
                self.count_events(piece);
                self.scanner.feed(piece);
            }
        }
    }

    /// The tokens of the answer to a request of so many bytes: as it said, or estimated.
    pub fn finish(&self, request_bytes: u64) -> Tokens {
        if let Some((input, output)) = self.scanner.found() {
            return Tokens { input, output, reported: true };
        }
        let output = match self.kind {
            Kind::Events => self.events,
            Kind::Json | Kind::Packed => self.bytes / BYTES_PER_TOKEN,
        };
        let input = request_bytes / BYTES_PER_TOKEN;
        Tokens { input: input.min(TOKENS_MAX), output: output.min(TOKENS_MAX), reported: false }
    }

    /// Counts lines of data: of the fields of an event, only `data` begins with a `d`.
    fn count_events(&mut self, piece: &[u8]) {
        if std::mem::take(&mut self.line_begins) {
            match piece.first() {
                Some(b'd') => self.events += 1,
                Some(_) => {}
                None => self.line_begins = true,
            }
        }
        for end in memchr::memchr_iter(b'\n', piece) {
            match piece.get(end + 1) {
                Some(b'd') => self.events += 1,
                Some(_) => {}
                None => self.line_begins = true,
            }
        }
    }
}

/// Where a scanner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Looking for the key, of which so many bytes ended the last piece.
    Search(u8),
    /// After `"usage`, and so many bytes of [`REST`].
    Rest(u8),
    /// After the key.
    Colon,
    /// After the colon.
    Open,
    /// In the object, between texts.
    Object,
    /// In a text; whether it is a name.
    Text(bool),
    /// After a backslash in a text.
    Escape(bool),
}

/// A number, or what is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Number {
    #[default]
    Absent,
    Whole(u64),
    Other,
}

/// The numbers that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    /// Anthropic counts what it wrote to a cache and read from one beside the input.
    cached: [Option<u64>; 2],
}

/// Finds and reads `usage`.
#[derive(Debug)]
struct Scanner {
    state: State,
    counts: Counts,
    /// What the object under way has said so far.
    staged: Counts,
    len: usize,
    depth: u8,
    /// The name read last at the upper level, and whether its value is being read.
    name: [u8; NAME_LEN_MAX],
    name_len: usize,
    in_value: bool,
    number: Number,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner {
            state: State::Search(0),
            counts: Counts::default(),
            staged: Counts::default(),
            len: 0,
            depth: 0,
            name: [0; NAME_LEN_MAX],
            name_len: 0,
            in_value: false,
            number: Number::Absent,
        }
    }
}

impl Scanner {
    fn feed(&mut self, mut piece: &[u8]) {
        while let [byte, rest @ ..] = piece {
            if let State::Search(matched) = self.state {
                piece = self.search(usize::from(matched), piece);
            } else if self.step(*byte) {
                piece = rest;
            } else {
                // It was not the key. This byte may begin it.
                self.state = State::Search(0);
            }
        }
    }

    /// What follows the key in a piece; nothing if it is not there as a whole.
    fn search<'p>(&mut self, matched: usize, piece: &'p [u8]) -> &'p [u8] {
        if matched > 0 {
            let wanted = &KEY[matched..];
            let len = wanted.len().min(piece.len());
            if piece[..len] == wanted[..len] {
                self.state =
                    if len == wanted.len() { State::Rest(0) } else { State::Search((matched + len) as u8) };
                return &piece[len..];
            }
        }
        if let Some(at) = FINDER.find(piece) {
            self.state = State::Rest(0);
            return &piece[at + KEY.len()..];
        }
        // Only its first byte is a quote, so at most one beginning of it can end the piece.
        let tail = &piece[piece.len().saturating_sub(KEY.len() - 1)..];
        let begun = memchr::memrchr(b'"', tail).map(|at| &tail[at..]).filter(|end| KEY.starts_with(end));
        self.state = State::Search(begun.map_or(0, <[u8]>::len) as u8);
        &[]
    }

    /// Takes one byte; `false` if this is no usage, and the byte has to be looked at again.
    fn step(&mut self, byte: u8) -> bool {
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::Search(_) => return false,
            State::Rest(0) if byte == b'"' => self.state = State::Colon,
            State::Rest(done) => match REST.get(usize::from(done)) {
                Some(expected) if *expected == byte => {
                    let done = done + 1;
                    let whole = usize::from(done) == REST.len();
                    self.state = if whole { State::Colon } else { State::Rest(done) };
                }
                _ => return false,
            },
            State::Colon if byte == b':' => self.state = State::Open,
            State::Open if byte == b'{' => self.open(),
            State::Colon | State::Open => return blank,
            State::Object | State::Text(_) | State::Escape(_) => {
                self.len += 1;
                return self.len <= OBJECT_LEN_MAX && self.within(byte);
            }
        }
        true
    }

    fn open(&mut self) {
        self.state = State::Object;
        self.staged = Counts::default();
        (self.len, self.depth, self.name_len, self.in_value) = (0, 1, 0, false);
        self.number = Number::Absent;
    }

    /// Takes a byte of the object.
    fn within(&mut self, byte: u8) -> bool {
        match (self.state, byte) {
            (State::Text(is_name), b'\\') => self.state = State::Escape(is_name),
            (State::Text(_), b'"') => self.state = State::Object,
            (State::Text(true), _) => self.push(byte),
            (State::Text(false), _) => {}
            (State::Escape(is_name), _) => {
                // No name that matters has an escape.
                self.name_len = if is_name { NAME_LEN_MAX + 1 } else { self.name_len };
                self.state = State::Text(is_name);
            }
            (_, b'"') => {
                let is_name = self.depth == 1 && !self.in_value;
                self.name_len = if is_name { 0 } else { self.name_len };
                self.number = if is_name { self.number } else { Number::Other };
                self.state = State::Text(is_name);
            }
            (_, b':') if self.depth == 1 => {
                self.in_value = true;
                self.number = Number::Absent;
            }
            (_, b',') if self.depth == 1 => self.settle(),
            (_, b'{' | b'[') => {
                self.number = Number::Other;
                self.depth += 1;
                return self.depth <= DEPTH_MAX;
            }
            (_, b'}' | b']') => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.settle();
                    self.counts.take(&self.staged);
                    self.state = State::Search(0);
                }
            }
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            _ if self.depth == 1 && self.in_value => self.number = self.number.then(byte),
            _ => {}
        }
        true
    }

    fn push(&mut self, byte: u8) {
        match self.name.get_mut(self.name_len) {
            Some(place) => *place = byte,
            None => self.name_len = NAME_LEN_MAX,
        }
        self.name_len += 1;
    }

    /// A value of the upper level has ended.
    fn settle(&mut self) {
        if std::mem::take(&mut self.in_value)
            && let Number::Whole(count @ ..=TOKENS_MAX) = std::mem::take(&mut self.number)
            && let Some(name) = self.name.get(..self.name_len)
            && let Some(place) = self.staged.place(name)
        {
            *place = Some(count);
        }
    }

    /// Input and output, if there were any.
    fn found(&self) -> Option<(u64, u64)> {
        let Counts { input, output, total, cached } = self.counts;
        if input.is_none() && output.is_none() {
            return total.map(|total| (total, 0));
        }
        let input = input.unwrap_or(0) + cached.iter().flatten().sum::<u64>();
        // An embedding has no output; who counts input and total has the rest as output.
        Some((input, output.unwrap_or_else(|| total.unwrap_or(0).saturating_sub(input))))
    }
}

impl Counts {
    fn place(&mut self, name: &[u8]) -> Option<&mut Option<u64>> {
        Some(match name {
            b"prompt_tokens" | b"input_tokens" | b"promptTokenCount" => &mut self.input,
            b"completion_tokens" | b"output_tokens" | b"candidatesTokenCount" => &mut self.output,
            b"total_tokens" | b"totalTokenCount" => &mut self.total,
            b"cache_creation_input_tokens" => &mut self.cached[0],
            b"cache_read_input_tokens" => &mut self.cached[1],
            _ => return None,
        })
    }

    /// What a later object says takes the place of what an earlier one said.
    fn take(&mut self, later: &Counts) {
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.total = later.total.or(self.total);
        for (known, later) in self.cached.iter_mut().zip(later.cached) {
            *known = later.or(*known);
        }
    }
}

impl Number {
    fn then(self, byte: u8) -> Number {
        match (self, byte) {
            (Number::Absent, b'0'..=b'9') => Number::Whole(u64::from(byte - b'0')),
            (Number::Whole(so_far), b'0'..=b'9') => {
                Number::Whole(so_far.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
            }
            _ => Number::Other,
        }
    }
}

#[cfg(test)]
mod tests;
