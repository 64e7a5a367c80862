//! Requests that two parsers read differently, or that none should read at all: one by one, each with what may come of it.
//!
//! `{n}` in a case is its number, so that what an origin sees can be told apart. A case that hides a second request hides
//! `GET /smuggled`, which must never be seen.

/// What may come of a case.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// Tradewind answers it itself and closes the connection.
    Refused,
    /// It reaches the origin as the requests that follow, and is answered.
    Served,
    /// Either: two readings are known, and both are harmless, or the request never ends.
    Harmless,
}

/// A request, or several.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    pub fate: Fate,
    /// Method, target and body of what the client means, in order; nothing of it is left out before something of it arrives.
    pub meant: Vec<(String, String, Vec<u8>)>,
}

const HOST: &str = "Host: a.example\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n";

struct Corpus {
    cases: Vec<Case>,
    group: &'static str,
}

impl Corpus {
    fn add(&mut self, name: &str, bytes: impl AsRef<[u8]>, fate: Fate, meant: &[(&str, &str, &str)]) {
        let number = self.cases.len().to_string();
        let bytes = replace(bytes.as_ref(), b"{n}", number.as_bytes());
        let meant = meant
            .iter()
            .map(|(method, target, body)| {
                ((*method).to_owned(), target.replace("{n}", &number), body.as_bytes().to_vec())
            })
            .collect();
        self.cases.push(Case { name: format!("{}: {name}", self.group), bytes, fate, meant });
    }

    fn refused(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        self.add(name, bytes, Fate::Refused, &[]);
    }

    fn served(&mut self, name: &str, bytes: impl AsRef<[u8]>, meant: &[(&str, &str, &str)]) {
        self.add(name, bytes, Fate::Served, meant);
    }

    fn harmless(&mut self, name: &str, bytes: impl AsRef<[u8]>, meant: &[(&str, &str, &str)]) {
        self.add(name, bytes, Fate::Harmless, meant);
    }
}

fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = super::origin::find(rest, old) {
        replaced.extend(&rest[..at]);
        replaced.extend(new);
        rest = &rest[at + old.len()..];
    }
    replaced.extend(rest);
    replaced
}

/// All cases, by number.
pub fn all() -> Vec<Case> {
    let mut corpus = Corpus { cases: Vec::new(), group: "" };
    sound(&mut corpus);
    transfer_encodings(&mut corpus);
    lengths(&mut corpus);
    chunks(&mut corpus);
    line_ends(&mut corpus);
    headers(&mut corpus);
    targets(&mut corpus);
    methods_and_versions(&mut corpus);
    hosts(&mut corpus);
    hops(&mut corpus);
    sequences(&mut corpus);
    corpus.cases
}

/// What has to work, so that refusing everything is no way out.
fn sound(corpus: &mut Corpus) {
    corpus.group = "sound";
    corpus.served("get", format!("GET /{{n}} HTTP/1.1\r\n{HOST}\r\n"), &[("GET", "/{n}", "")]);
    corpus.served(
        "length",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc"),
        &[("POST", "/{n}", "abc")],
    );
    corpus.served(
        "chunks",
        format!(
            "POST /{{n}} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        ),
        &[("POST", "/{n}", "abcde")],
    );
    corpus.served(
        "no body at all",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n"),
        &[("POST", "/{n}", "")],
    );
    corpus.served(
        "a body that looks like a request",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        &[("POST", "/{n}", SMUGGLED)],
    );
    corpus.served(
        "chunk extensions are dropped",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n"),
        &[("POST", "/{n}", "abc")],
    );
    corpus.served(
        "capital hex and leading zeros",
        format!(
            "POST /{{n}} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n000A\r\n0123456789\r\n0\r\n\r\n"
        ),
        &[("POST", "/{n}", "0123456789")],
    );
    for (name, line) in [
        ("spaces around a value", "X-A:   b  \r\n"),
        ("no space before a value", "X-A:b\r\n"),
        ("an empty value", "X-A:\r\n"),
        ("a tab in a value", "X-A: b\tc\r\n"),
        ("all tokens in a name", "!#$%&'*+-.^_`|~: b\r\n"),
        ("latin-1 in a value", "X-A: \u{e9}\r\n"),
    ] {
        corpus.served(name, format!("GET /{{n}} HTTP/1.1\r\n{HOST}{line}\r\n"), &[("GET", "/{n}", "")]);
    }
    corpus.served(
        "a custom method",
        format!("PURGE /{{n}} HTTP/1.1\r\n{HOST}\r\n"),
        &[("PURGE", "/{n}", "")],
    );
    corpus.served("head", format!("HEAD /{{n}} HTTP/1.1\r\n{HOST}\r\n"), &[("HEAD", "/{n}", "")]);
}

/// Ways of writing `Transfer-Encoding: chunked` that one side may read and the other not. The body hides a request from whoever
/// goes by Content-Length, and from whoever goes by chunks.
fn transfer_encodings(corpus: &mut Corpus) {
    corpus.group = "transfer-encoding";
    let lines: [&[u8]; 40] = [
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b" Transfer-Encoding: chunked\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding:\tchunked\r\n",
        b"Transfer-Encoding: chunked\t\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked\x0b\r\n",
        b"Transfer-Encoding: \x00chunked\r\n",
        b"Transfer-Encoding: chunked\x00\r\n",
        b"Transfer-Encoding:\n chunked\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n",
        b"Transfer-Encoding: chunked\r\n\t\r\n",
        b"Transfer-Encoding\r\n : chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunkedx\r\n",
        b"Transfer-Encoding: CHUNKED\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked;q=1\r\n",
        b"Transfer-Encoding: \"chunked\"\r\n",
        b"Transfer-Encoding: 'chunked'\r\n",
        b"Transfer-Encoding: chunk\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding:\r\n",
        b"Transfer-Encoding: ,chunked\r\n",
        b"Transfer-Encoding: chunked,\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer_Encoding: chunked\r\n",
        b"Transfer-Encod\xc4\xb1ng: chunked\r\n",
        b"Foo: bar\nTransfer-Encoding: chunked\r\n",
        b"Foo: bar\rTransfer-Encoding: chunked\r\n",
        b"\xa0Transfer-Encoding: chunked\r\n",
    ];
    let hidden = format!("0\r\n\r\n{SMUGGLED}");
    for line in lines {
        let name = line.escape_ascii().to_string();
        let head = |more: &str| {
            [b"POST /{n} HTTP/1.1\r\n", HOST.as_bytes(), more.as_bytes(), line, b"\r\n", hidden.as_bytes()]
                .concat()
        };
        let length = format!("Content-Length: {}\r\n", hidden.len());
        corpus.refused(&format!("with a length, {name}"), head(&length));
        let reversed =
            [b"POST /{n} HTTP/1.1\r\n", HOST.as_bytes(), line, length.as_bytes(), b"\r\n", hidden.as_bytes()]
                .concat();
        corpus.refused(&format!("before a length, {name}"), reversed);
        if matches!(
            line,
            b"Transfer-Encoding: chunked\r\n"
                | b"Transfer-Encoding: CHUNKED\r\n"
                | b"Transfer-Encoding:\tchunked\r\n"
                | b"Transfer-Encoding: chunked\t\r\n"
        ) {
            let alone = [
                b"POST /{n} HTTP/1.1\r\n",
                HOST.as_bytes(),
                line,
                b"\r\n",
                b"3\r\nabc\r\n0\r\n\r\n".as_slice(),
            ]
            .concat();
            corpus.served(&format!("alone, {name}"), alone, &[("POST", "/{n}", "abc")]);
        } else {
            let alone = [
                b"POST /{n} HTTP/1.1\r\n",
                HOST.as_bytes(),
                line,
                b"\r\n",
                b"3\r\nabc\r\n0\r\n\r\n".as_slice(),
            ]
            .concat();
            corpus.refused(&format!("alone, {name}"), alone);
        }
    }
    corpus.refused(
        "in HTTP/1.0",
        format!("POST /{{n}} HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    );
}

fn lengths(corpus: &mut Corpus) {
    corpus.group = "content-length";
    let values: [&[u8]; 30] = [
        b"+3",
        b"-3",
        b"3 4",
        b"3, 4",
        b"3,4",
        b"3;",
        b"0x3",
        b"3.0",
        b"3e0",
        b"",
        b" ",
        b"\"3\"",
        b"'3'",
        b"3\x0b",
        b"\x0b3",
        b"3\x00",
        b"\x003",
        b"three",
        b"1_0",
        b"\xd9\xa3",
        b"99999999999999999999",
        b"18446744073709551616",
        b"18446744073709551619",
        b"9223372036854775808",
        b"-1",
        b"3\t4",
        b"3\r\n 4",
        b"3\n",
        b"3\r",
        b"3,",
    ];
    for value in values {
        let bytes = [
            b"POST /{n} HTTP/1.1\r\n",
            HOST.as_bytes(),
            b"Content-Length: ",
            value,
            b"\r\n\r\nabc",
            SMUGGLED.as_bytes(),
        ]
        .concat();
        corpus.refused(&value.escape_ascii().to_string(), bytes);
    }
    for (name, lines) in [
        ("two alike", "Content-Length: 3\r\nContent-Length: 3\r\n"),
        ("a list of two alike", "Content-Length: 3, 3\r\n"),
        ("with an underscore", "Content_Length: 3\r\n"),
        ("two that differ", "Content-Length: 3\r\nContent-Length: 4\r\n"),
        ("two that differ, the longer first", "Content-Length: 44\r\nContent-Length: 0\r\n"),
        ("a space before the colon", "Content-Length : 3\r\n"),
        ("a tab before the colon", "Content-Length\t: 3\r\n"),
        ("a space before the name", " Content-Length: 3\r\n"),
        ("a fold after the colon", "Content-Length:\r\n 3\r\n"),
        ("after a bare LF", "X: y\nContent-Length: 3\r\n"),
        ("after a bare CR", "X: y\rContent-Length: 3\r\n"),
    ] {
        corpus.refused(name, format!("POST /{{n}} HTTP/1.1\r\n{HOST}{lines}\r\nabc"));
    }
    corpus.served(
        "leading zeros",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Content-Length: 003\r\n\r\nabc"),
        &[("POST", "/{n}", "abc")],
    );
    corpus.served(
        "of a GET",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        &[("GET", "/{n}", SMUGGLED)],
    );
    corpus.harmless(
        "longer than what comes",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Content-Length: 100\r\n\r\nabc"),
        &[],
    );
}

fn chunks(corpus: &mut Corpus) {
    corpus.group = "chunks";
    let head = format!("POST /{{n}} HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n");
    // Whoever finds the fault has begun to forward the request; it must not arrive as a whole, nor what follows it.
    let bodies: [&[u8]; 35] = [
        b"3 \r\nabc\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"\t3\r\nabc\r\n0\r\n\r\n",
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"3h\r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r\n0\n\n",
        b"3\r\nabc\r\n0\r\n\n",
        b"3\r\nabc\r\n0\n\r\n",
        b"3\rabc\r\n0\r\n\r\n",
        b"3\r\nabc\r0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        b"3\r\nabcXX0\r\n\r\n",
        b"3;\nabc\r\n0\r\n\r\n",
        b"3;a=b\nabc\r\n0\r\n\r\n",
        b"3;a\rb\r\nabc\r\n0\r\n\r\n",
        b"3;\x00\r\nabc\r\n0\r\n\r\n",
        b"3;a=\"\n\"\r\nabc\r\n0\r\n\r\n",
        b"3\x00\r\nabc\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        b"10000000000000000\r\nabc\r\n0\r\n\r\n",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        b"00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n-0\r\n\r\n",
        b"3\r\nabc\r\n0_\r\n\r\n",
        b"3\r\nabc\r\n\r\n0\r\n\r\n",
        b"\xef\xbc\x93\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\nX: y\nZ: w\r\n\r\n",
        b"3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        b"3\r\nabc\r\n0\r\n: y\r\n\r\n",
    ];
    for body in bodies {
        let bytes = [head.as_bytes(), body, SMUGGLED.as_bytes()].concat();
        // The letter of the RFC lets whitespace and zeros pass; read so, it is `abc`.
        corpus.harmless(&body.escape_ascii().to_string(), bytes, &[("POST", "/{n}", "abc")]);
    }
    // httparse takes it for 0. The body ends there, and the connection with it.
    corpus.harmless("no size", format!("{head}\r\nabc\r\n0\r\n\r\n{SMUGGLED}"), &[("POST", "/{n}", "")]);
    for trailer in [
        "Content-Length: 99\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: b.example\r\n",
        "X: y\r\n",
        "Authorization: x\r\n",
        " folded\r\n",
    ] {
        corpus.harmless(
            &format!("trailer {}", trailer.escape_default()),
            format!("{head}3\r\nabc\r\n0\r\n{trailer}\r\n"),
            &[("POST", "/{n}", "abc")],
        );
    }
    let long = format!("{head}3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(100_000));
    corpus.harmless("an extension of 100,000 bytes", long, &[("POST", "/{n}", "abc")]);
    corpus.harmless("no last chunk", format!("{head}3\r\nabc\r\n"), &[]);
}

fn line_ends(corpus: &mut Corpus) {
    corpus.group = "line ends";
    for (name, bytes) in [
        ("LF after the request line", "GET /{n} HTTP/1.1\nHost: a.example\r\n\r\n"),
        ("LF after a header", "GET /{n} HTTP/1.1\r\nHost: a.example\n\r\n"),
        ("LF only", "GET /{n} HTTP/1.1\nHost: a.example\n\n"),
        ("LF for the empty line", "GET /{n} HTTP/1.1\r\nHost: a.example\r\n\n"),
        ("CR for the empty line", "GET /{n} HTTP/1.1\r\nHost: a.example\r\n\r\r\n\r\n"),
        ("CR after the request line", "GET /{n} HTTP/1.1\rHost: a.example\r\n\r\n"),
        ("CR in a value", "GET /{n} HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n"),
        ("CR in a name", "GET /{n} HTTP/1.1\r\nHost: a.example\r\nX\rY: b\r\n\r\n"),
        ("LF in the target", "GET /{n}\nx HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ("CR CR LF", "GET /{n} HTTP/1.1\r\r\nHost: a.example\r\n\r\n"),
        ("LF CR", "GET /{n} HTTP/1.1\n\rHost: a.example\n\r\n\r"),
        (
            "a request in a value",
            "GET /{n} HTTP/1.1\r\nHost: a.example\r\nX: a\n\nGET /smuggled HTTP/1.1\nHost: a\n\n",
        ),
        ("a vertical tab for a line end", "GET /{n} HTTP/1.1\x0bHost: a.example\r\n\r\n"),
        ("a form feed for a line end", "GET /{n} HTTP/1.1\r\nHost: a.example\x0c\r\n\r\n"),
    ] {
        corpus.refused(name, bytes);
    }
    corpus.harmless(
        "an empty line first",
        "\r\nGET /{n} HTTP/1.1\r\nHost: a.example\r\n\r\n",
        &[("GET", "/{n}", "")],
    );
    corpus.harmless("LF first", "\nGET /{n} HTTP/1.1\r\nHost: a.example\r\n\r\n", &[("GET", "/{n}", "")]);
    for (name, lines) in [
        ("a value folded with a space", "X: a\r\n b\r\n"),
        ("a value folded with a tab", "X: a\r\n\tb\r\n"),
        ("an empty fold", "X: a\r\n \r\n"),
        ("Host folded", "Y: z\r\n Host: b.example\r\n"),
        ("a fold of a fold", "X: a\r\n b\r\n c\r\n"),
        ("a fold after a colon", "X:\r\n b\r\n"),
    ] {
        corpus.refused(name, format!("GET /{{n}} HTTP/1.1\r\n{HOST}{lines}\r\n"));
    }
    corpus.refused("the first header folded", format!("GET /{{n}} HTTP/1.1\r\n X: y\r\n{HOST}\r\n"));
}

fn headers(corpus: &mut Corpus) {
    corpus.group = "headers";
    let lines: [&[u8]; 26] = [
        b"X Y: z\r\n",
        b"X : z\r\n",
        b"X\t: z\r\n",
        b": z\r\n",
        b"X\r\n",
        b"X;: z\r\n",
        b"X(: z\r\n",
        b"X/: z\r\n",
        b"X@: z\r\n",
        b"X\\: z\r\n",
        b"\"X\": z\r\n",
        b"X\x00: z\r\n",
        b"X\x01: z\r\n",
        b"X\x7f: z\r\n",
        b"X\xe9: z\r\n",
        b"\xef\xbb\xbfX: z\r\n",
        b"X: a\x00b\r\n",
        b"X: \x00\r\n",
        b"X: a\x01b\r\n",
        b"X: a\x08b\r\n",
        b"X: a\x7fb\r\n",
        b"X: a\x0bb\r\n",
        b"X: a\x1bb\r\n",
        b"{X}: z\r\n",
        b"X=Y: z\r\n",
        b"X,Y: z\r\n",
    ];
    for line in lines {
        let bytes = [b"GET /{n} HTTP/1.1\r\n", HOST.as_bytes(), line, b"\r\n"].concat();
        corpus.refused(&line.escape_ascii().to_string(), bytes);
    }
    let many: String = (0..300).map(|n| format!("X-{n}: y\r\n")).collect();
    corpus.refused("300 of them", format!("GET /{{n}} HTTP/1.1\r\n{HOST}{many}\r\n"));
    let long = "a".repeat(2 << 20);
    corpus.refused("2 MiB of value", format!("GET /{{n}} HTTP/1.1\r\n{HOST}X: {long}\r\n\r\n"));
    for name in ["x-request-id", "x-forwarded-for", "x-forwarded-host"] {
        corpus.served(
            &format!("an escaped line end in {name}"),
            format!("GET /{{n}} HTTP/1.1\r\n{HOST}{name}: a%0d%0aX-Injected: y\r\n\r\n"),
            &[("GET", "/{n}", "")],
        );
    }
}

fn targets(corpus: &mut Corpus) {
    corpus.group = "target";
    let refused: [&[u8]; 14] = [
        b" /{n}",
        b"{n}",
        b"",
        b"\\{n}",
        b"#/{n}",
        b"?{n}",
        b"./{n}",
        b"../{n}",
        b"a.example:80/{n}",
        b"*{n}",
        b"http:///{n}",
        b"http://a.example:x/{n}",
        b"http://user@b.example/{n}",
        b"/{n}#fragment",
    ];
    for target in refused {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat();
        corpus.refused(&target.escape_ascii().to_string(), bytes);
    }
    // Pingora escapes these before anybody else sees them, as browsers do; the target is then one word for everybody.
    for (name, target, escaped) in [
        ("a space", "/{n} x", "/{n}%20x"),
        ("a tab", "/{n}\tx", "/{n}%09x"),
        ("NUL", "/{n}\0", "/{n}%00"),
        ("SOH", "/{n}\x01", "/{n}%01"),
        ("DEL", "/{n}\x7f", "/{n}%7F"),
        ("VT", "/{n}\x0b", "/{n}%0B"),
        ("two spaces", "/{n}  ", "/{n}%20%20"),
        ("CR", "/{n}\rx", "/{n}%0Dx"),
    ] {
        corpus.harmless(name, format!("GET {target} HTTP/1.1\r\n{HOST}\r\n"), &[("GET", escaped, "")]);
    }
    for target in [
        "/{n}?a=b&c=d",
        "/{n}%20x",
        "/{n}%00",
        "/{n}%0d%0aX:%20y",
        "/{n}/../x",
        "/{n}//x",
        "/{n};a=b",
        "/{n}?x=http://b/",
        "/{n}%2e%2e%2fx",
        "/{n}@b",
        "/{n}:80",
        "/{n}%",
        "/{n}%zz",
        "//{n}/x",
        "//[/{n}",
    ] {
        corpus.served(target, format!("GET {target} HTTP/1.1\r\n{HOST}\r\n"), &[("GET", target, "")]);
    }
    corpus.harmless(
        "utf-8",
        "GET /{n}/\u{e9} HTTP/1.1\r\nHost: a.example\r\n\r\n",
        &[("GET", "/{n}/\u{e9}", "")],
    );
    for (name, target) in [
        ("quotes", "/{n}\"x"),
        ("brackets", "/{n}[x]"),
        ("braces", "/{n}{x}"),
        ("a pipe", "/{n}|x"),
        ("less", "/{n}<x>"),
        ("a backslash", "/{n}\\x"),
        ("a caret", "/{n}^x"),
        ("a backtick", "/{n}`x"),
    ] {
        corpus.harmless(name, format!("GET {target} HTTP/1.1\r\n{HOST}\r\n"), &[("GET", target, "")]);
    }
    corpus.served(
        "a whole URL of this host",
        format!("GET http://a.example/{{n}} HTTP/1.1\r\n{HOST}\r\n"),
        &[("GET", "/{n}", "")],
    );
    corpus
        .refused("a whole URL of another host", format!("GET http://b.example/{{n}} HTTP/1.1\r\n{HOST}\r\n"));
    corpus
        .refused("a whole URL that is no http", format!("GET ftp://a.example/{{n}} HTTP/1.1\r\n{HOST}\r\n"));
    corpus.refused("a name and port, but no CONNECT", format!("GET a.example:80 HTTP/1.1\r\n{HOST}\r\n"));
    let long = "a".repeat(2 << 20);
    corpus.refused("2 MiB", format!("GET /{{n}}{long} HTTP/1.1\r\n{HOST}\r\n"));
}

fn methods_and_versions(corpus: &mut Corpus) {
    corpus.group = "method";
    let methods: [&[u8]; 12] = [
        b"", b"G ET", b"GET\t", b"GET\x00", b"G\x01T", b"G\xc9T", b"GET:", b"GET/", b"GET,", b"(GET)",
        b"\"GET\"", b"GET{",
    ];
    for method in methods {
        let bytes = [method, b" /{n} HTTP/1.1\r\n", HOST.as_bytes(), b"\r\n"].concat();
        corpus.refused(&method.escape_ascii().to_string(), bytes);
    }
    corpus.harmless("lower case", format!("get /{{n}} HTTP/1.1\r\n{HOST}\r\n"), &[("get", "/{n}", "")]);
    corpus.refused("CONNECT", "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n");
    corpus.refused("CONNECT with a path", format!("CONNECT /{{n}} HTTP/1.1\r\n{HOST}\r\n"));
    corpus.refused("PRI", "PRI * HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let long = "A".repeat(100_000);
    corpus.harmless(
        "100,000 letters",
        format!("{long} /{{n}} HTTP/1.1\r\n{HOST}\r\n"),
        &[(&long, "/{n}", "")],
    );
    corpus.group = "version";
    for version in [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/1.10",
        "HTTP/2.0",
        "HTTP/3",
        "HTTP/11",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/1.1x",
        "HTTP/1.1 ",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "http/1.1",
        "HTTPS/1.1",
        "ICY/1.1",
        "HTTP/-1.1",
        "HTTP/1,1",
        "1.1",
        "HTTP/01.1",
    ] {
        corpus.refused(version, format!("GET /{{n}} {version}\r\n{HOST}\r\n"));
    }
    corpus.refused("none", "GET /{n}\r\n\r\n");
    corpus.refused("none, with headers", format!("GET /{{n}}\r\n{HOST}\r\n"));
}

fn hosts(corpus: &mut Corpus) {
    corpus.group = "host";
    for (name, lines) in [
        ("none", ""),
        ("two", "Host: a.example\r\nHost: b.example\r\n"),
        ("two alike", "Host: a.example\r\nHost: a.example\r\n"),
        ("a list", "Host: a.example, b.example\r\n"),
        ("with a path", "Host: a.example/x\r\n"),
        ("with a user", "Host: user@a.example\r\n"),
        ("with a space", "Host: a example\r\n"),
        ("with a tab", "Host: a\texample\r\n"),
        ("with a bad port", "Host: a.example:x\r\n"),
        ("with two ports", "Host: a.example:80:80\r\n"),
        ("half a bracket", "Host: [::1\r\n"),
        ("with a NUL", "Host: a.example\x00\r\n"),
        ("with a quote", "Host: \"a.example\"\r\n"),
        ("with a question mark", "Host: a.example?x\r\n"),
        ("with a fragment", "Host: a.example#x\r\n"),
        ("with a backslash", "Host: a.example\\x\r\n"),
        ("with a space before the colon", "Host : a.example\r\n"),
        ("with a fold before it", "X: y\r\n Host: b.example\r\nHost: a.example\r\n"),
    ] {
        corpus.refused(name, format!("GET /{{n}} HTTP/1.1\r\n{lines}\r\n"));
    }
    corpus.harmless("empty", "GET /{n} HTTP/1.1\r\nHost:\r\n\r\n", &[("GET", "/{n}", "")]);
    corpus.harmless("none in HTTP/1.0", "GET /{n} HTTP/1.0\r\n\r\n", &[("GET", "/{n}", "")]);
}

/// Headers that are for the next hop only, and what tries to make others such.
fn hops(corpus: &mut Corpus) {
    corpus.group = "hops";
    for nominated in [
        "close, Content-Length",
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "x-request-id",
        "Cookie",
        "keep-alive, X-A",
        "\u{e9}",
        ",,,",
    ] {
        corpus.harmless(
            &format!("Connection: {nominated}"),
            format!("POST /{{n}} HTTP/1.1\r\n{HOST}Connection: {nominated}\r\nX-A: b\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
            &[("POST", "/{n}", SMUGGLED)],
        );
    }
    corpus.harmless(
        "an upgrade to h2c",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
        &[("GET", "/{n}", "")],
    );
    corpus.harmless(
        "an upgrade to a web socket, not taken",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
        &[("GET", "/{n}", "")],
    );
    corpus.harmless(
        "an upgrade with a body",
        format!("POST /{{n}} HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
        &[("POST", "/{n}", SMUGGLED)],
    );
    for expect in ["100-continue", "100-Continue", "200-ok", "x", "100-continue, x"] {
        corpus.harmless(
            &format!("Expect: {expect}"),
            format!("POST /{{n}} HTTP/1.1\r\n{HOST}Expect: {expect}\r\nContent-Length: 3\r\n\r\nabc"),
            &[("POST", "/{n}", "abc")],
        );
    }
    for te in ["trailers", "gzip, trailers", "chunked"] {
        corpus.served(
            &format!("TE: {te}"),
            format!("GET /{{n}} HTTP/1.1\r\n{HOST}TE: {te}\r\nConnection: TE\r\n\r\n"),
            &[("GET", "/{n}", "")],
        );
    }
    corpus.harmless(
        "Keep-Alive and Proxy-Connection",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}Keep-Alive: timeout=1\r\nProxy-Connection: keep-alive\r\n\r\n"),
        &[("GET", "/{n}", "")],
    );
}

/// Several requests on the way at once.
fn sequences(corpus: &mut Corpus) {
    corpus.group = "sequence";
    corpus.harmless(
        "two requests",
        format!("GET /{{n}}/a HTTP/1.1\r\n{HOST}\r\nGET /{{n}}/b HTTP/1.1\r\n{HOST}\r\n"),
        &[("GET", "/{n}/a", ""), ("GET", "/{n}/b", "")],
    );
    corpus.harmless(
        "a body, then a request",
        format!(
            "POST /{{n}}/a HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabcGET /{{n}}/b HTTP/1.1\r\n{HOST}\r\n"
        ),
        &[("POST", "/{n}/a", "abc"), ("GET", "/{n}/b", "")],
    );
    corpus.harmless(
        "chunks, then a request",
        format!("POST /{{n}}/a HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /{{n}}/b HTTP/1.1\r\n{HOST}\r\n"),
        &[("POST", "/{n}/a", "abc"), ("GET", "/{n}/b", "")],
    );
    for (name, bad) in [
        ("a bad request line", "GET\r\n\r\n"),
        ("a bad version", "GET /x HTTP/9.9\r\nHost: a\r\n\r\n"),
        ("a bad length", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"),
        (
            "both lengths",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no host", "GET /x HTTP/1.1\r\n\r\n"),
        ("a NUL", "\0GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("random bytes", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03"),
    ] {
        corpus.refused(&format!("{name}, then a request"), format!("{bad}{SMUGGLED}"));
    }
    corpus.harmless(
        "a request, then a bad one, then another",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}\r\nBAD\r\n\r\n{SMUGGLED}"),
        &[("GET", "/{n}", "")],
    );
    corpus.harmless(
        "a close, then a request",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n{SMUGGLED}"),
        &[("GET", "/{n}", "")],
    );
    corpus.harmless(
        "HTTP/1.0, then a request",
        format!("GET /{{n}} HTTP/1.0\r\n{HOST}\r\n{SMUGGLED}"),
        &[("GET", "/{n}", "")],
    );
    corpus.harmless(
        "a GET with a body of no length",
        format!("GET /{{n}} HTTP/1.1\r\n{HOST}\r\nabc\r\n\r\n{SMUGGLED}"),
        &[("GET", "/{n}", "")],
    );
    corpus.harmless("half a head", format!("GET /{{n}} HTTP/1.1\r\n{HOST}"), &[]);
}
