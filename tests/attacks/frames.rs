//! The same over HTTP/2: what cannot be said in HTTP/1.1 without changing its meaning. Frames are written by hand, since no
//! library would send these.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::harness::client;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A request of header fields as they are, and what may come of it.
pub struct Http2Case {
    pub name: String,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Option<Vec<u8>>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body that it reaches the origin with; `None` if it must not.
    pub served: Option<Vec<u8>>,
    /// Why it may be refused as well.
    or_refused: Option<&'static str>,
}

type Field = (&'static [u8], &'static [u8]);

/// All cases, by number; `{n}` is replaced in paths.
pub fn all() -> Vec<Http2Case> {
    let mut cases = Vec::new();
    let mut reasons: Vec<(String, &'static str)> = Vec::new();
    let base: [Field; 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/{n}")];
    let mut add =
        |name: &str, fields: &[Field], body: Option<&[u8]>, trailers: &[Field], served: Option<&[u8]>| {
            let number = cases.len().to_string();
            let own = |fields: &[Field]| -> Vec<(Vec<u8>, Vec<u8>)> {
                fields
                    .iter()
                    .map(|(name, value)| {
                        (name.to_vec(), String::from_utf8_lossy(value).replace("{n}", &number).into_bytes())
                    })
                    .collect()
            };
            cases.push(Http2Case {
                name: name.to_owned(),
                fields: own(fields),
                body: body.map(<[u8]>::to_vec),
                trailers: own(trailers),
                served: served.map(<[u8]>::to_vec),
                or_refused: None,
            });
        };
    let with = |more: &[Field]| -> Vec<Field> { base.iter().chain(more).copied().collect() };
    let without = |name: &[u8], more: &[Field]| -> Vec<Field> {
        base.iter().filter(|(found, _)| *found != name).chain(more).copied().collect()
    };
    let instead = |name: &'static [u8], value: &'static [u8]| -> Vec<Field> {
        base.iter().map(|(found, old)| (*found, if *found == name { value } else { *old })).collect()
    };

    add("sound", &base, Some(b"abc"), &[], Some(b"abc"));
    add("sound, with a length", &with(&[(b"content-length", b"3")]), Some(b"abc"), &[], Some(b"abc"));
    add("sound, without body", &base, None, &[], Some(b""));
    add("trailers", &with(&[(b"te", b"trailers")]), Some(b"abc"), &[(b"x-sum", b"1")], Some(b"abc"));
    add("cookies in pieces", &with(&[(b"cookie", b"a=b"), (b"cookie", b"c=d")]), None, &[], Some(b""));

    // RFC 9113, 8.1.1: malformed.
    add(
        "a length too short",
        &with(&[(b"content-length", b"1")]),
        Some(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[],
        None,
    );
    add("a length too long", &with(&[(b"content-length", b"10")]), Some(b"abc"), &[], None);
    add("a length, and no body", &with(&[(b"content-length", b"10")]), None, &[], None);
    add(
        "two lengths",
        &with(&[(b"content-length", b"3"), (b"content-length", b"0")]),
        Some(b"abc"),
        &[],
        None,
    );
    for value in [&b"+3"[..], b"3x", b"", b"-1", b"0x3", b"3, 0", b"99999999999999999999"] {
        add(
            &format!("content-length {}", value.escape_ascii()),
            &base.iter().copied().chain([(&b"content-length"[..], value)]).collect::<Vec<_>>(),
            Some(b"abc"),
            &[],
            None,
        );
    }
    // RFC 9113, 8.2.2: headers of a connection make it malformed.
    for (name, value) in [
        (&b"transfer-encoding"[..], &b"chunked"[..]),
        (b"transfer-encoding", b"identity"),
        (b"connection", b"close"),
        (b"connection", b"content-length"),
        (b"keep-alive", b"timeout=1"),
        (b"proxy-connection", b"keep-alive"),
        (b"upgrade", b"websocket"),
        (b"te", b"gzip"),
        (b"te", b"chunked"),
    ] {
        add(
            &format!("{}: {}", name.escape_ascii(), value.escape_ascii()),
            &with(&[(name, value)]),
            Some(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
            &[],
            None,
        );
    }
    // RFC 9113, 8.2.1: bytes that no name and no value has.
    for name in [
        &b"X-Upper"[..],
        b"x y",
        b"x:y",
        b"x\ry",
        b"x\ny",
        b"x\r\ny",
        b"x\x00y",
        b"x\x7fy",
        b"x\xe9",
        b"",
        b"x: y\r\nz",
        b"transfer-encoding: chunked\r\nx",
        b" x",
        b"x ",
        b"\tx",
        b":x",
        b"(x)",
        b"content-length ",
        b"host: b\r\nx",
    ] {
        add(&format!("the name {}", name.escape_ascii()), &with(&[(name, b"v")]), Some(b"abc"), &[], None);
    }
    for value in [
        &b"a\r\nx: y"[..],
        b"a\nx: y",
        b"a\rx: y",
        b"a\x00b",
        b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\n",
        b"\r",
        b"\x00",
    ] {
        add(
            &format!("the value {}", value.escape_ascii()),
            &with(&[(b"x-a", value)]),
            Some(b"abc"),
            &[],
            None,
        );
    }
    for value in [
        &b"/{n} HTTP/1.1\r\nx: y"[..],
        b"/{n}\r\n",
        b"/{n}\n",
        b"/{n} x",
        b"/{n}\tx",
        b"/{n}\x00",
        b"",
        b"{n}",
        b"*",
        b"?{n}",
        b"/{n} HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled",
    ] {
        add(&format!("the path {}", value.escape_ascii()), &instead(b":path", value), None, &[], None);
    }
    for value in [
        &b"GET / HTTP/1.1\r\nx: y"[..],
        b"G ET",
        b"GET\r\n",
        b"",
        b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nPOST",
        b"G\x00T",
        b"CONNECT",
    ] {
        add(&format!("the method {}", value.escape_ascii()), &instead(b":method", value), None, &[], None);
    }
    for value in [
        &b"a.example\r\nx: y"[..],
        b"a example",
        b"a/b",
        b"u@a",
        b"a\x00",
        b"a:x",
        b"[",
        b"a, b",
        b"a?b",
        b"a#b",
    ] {
        add(
            &format!("the authority {}", value.escape_ascii()),
            &instead(b":authority", value),
            None,
            &[],
            None,
        );
    }
    for value in [&b"http\r\nx: y"[..], b"http://b/?", b"h ttp"] {
        add(&format!("the scheme {}", value.escape_ascii()), &instead(b":scheme", value), None, &[], None);
    }
    // RFC 9113, 8.3: pseudo-headers.
    for name in [&b":method"[..], b":scheme", b":path"] {
        add(&format!("no {}", name.escape_ascii()), &without(name, &[]), None, &[], None);
    }
    add("two methods", &with(&[(b":method", b"GET")]), None, &[], None);
    add("two paths", &with(&[(b":path", b"/smuggled")]), None, &[], None);
    add("two authorities", &with(&[(b":authority", b"b")]), None, &[], None);
    add("an unknown pseudo-header", &with(&[(b":x", b"y")]), None, &[], None);
    add("a status", &with(&[(b":status", b"200")]), None, &[], None);
    add(
        "a pseudo-header after a header",
        &without(b":path", &[(b"x", b"y"), (b":path", b"/{n}")]),
        None,
        &[],
        None,
    );
    add("another host", &with(&[(b"host", b"b.example")]), None, &[], None);
    add(
        "two hosts",
        &without(b":authority", &[(b"host", b"a.example"), (b"host", b"b.example")]),
        None,
        &[],
        None,
    );
    for value in [&b" a"[..], b"a ", b"\ta", b"a\t", b" "] {
        add(&format!("x: {}", value.escape_ascii()), &with(&[(b"x", value)]), None, &[], None);
    }
    add("no authority", &without(b":authority", &[]), None, &[], None);
    // Trailers.
    for (name, value) in [
        (&b"x"[..], &b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        (b"X-Upper", b"y"),
        (b"x\r\ny", b"z"),
    ] {
        add(
            &format!("trailer {}: {}", name.escape_ascii(), value.escape_ascii()),
            &base,
            Some(b"abc"),
            &[(name, value)],
            None,
        );
    }
    add("trailer host", &base, Some(b"abc"), &[(b"host", b"99")], Some(b"abc"));
    add("trailer content-length", &base, Some(b"abc"), &[(b"content-length", b"99")], Some(b"abc"));

    let mut either =
        |name: &str, fields: &[Field], body: Option<&[u8]>, trailers: &[Field], served: &[u8], why| {
            add(name, fields, body, trailers, Some(served));
            reasons.push((name.to_owned(), why));
        };
    either(
        "a length of 0, and a body",
        &with(&[(b"content-length", b"0")]),
        Some(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[],
        b"",
        "with such a length the request is whole before its body comes; the stream is reset then, and the body goes nowhere",
    );
    either(
        "a fragment",
        &instead(b":path", b"/{n}#/smuggled"),
        None,
        &[],
        b"",
        "the http crate drops it, so that nobody sees it",
    );
    either(
        "an empty scheme",
        &instead(b":scheme", b""),
        None,
        &[],
        b"",
        "the h2 crate reads it, and nobody behind it sees a scheme",
    );
    either(
        "a pseudo-header in trailers",
        &base,
        Some(b"abc"),
        &[(b":path", b"/smuggled")],
        b"abc",
        "the h2 crate drops it, so that nobody sees it",
    );
    either(
        "trailer transfer-encoding",
        &base,
        Some(b"abc"),
        &[(b"transfer-encoding", b"chunked")],
        b"abc",
        "the h2 crate resets such a stream",
    );
    for case in &mut cases {
        case.or_refused = reasons.iter().find(|(name, _)| *name == case.name).map(|(_, why)| *why);
    }
    cases
}

/// A frame (RFC 9113, 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A length with a prefix of 7 bits (RFC 7541, 5.1).
fn length(mut value: usize, block: &mut Vec<u8>) {
    if value < 127 {
        return block.push(value as u8);
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(128 | (value % 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// Fields as literals without indexing and without Huffman coding (RFC 7541, 6.2.2).
fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend(text);
        }
    }
    block
}

/// What a connection begins with.
pub fn opening() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// One header field.
pub fn field_block(name: &str, value: &str) -> Vec<u8> {
    block(&[(name.into(), value.into())])
}

/// The head of a sound request.
pub fn request_block(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)];
    block(&fields.map(|(name, value)| (name.into(), value.into())))
}

/// What came of a stream.
#[derive(Debug, PartialEq)]
enum End {
    /// It was answered with this body.
    Answered(String),
    Reset,
    /// The connection ended.
    Closed,
}

struct Connection {
    stream: TcpStream,
}

impl Connection {
    fn open(to: SocketAddr) -> io::Result<Connection> {
        let mut stream = client::connect(to)?;
        stream.write_all(&opening())?;
        Ok(Connection { stream })
    }

    fn read_frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok((head[3], head[4], stream, payload))
    }

    /// What comes of a stream.
    fn end_of(&mut self, sought: u32) -> io::Result<End> {
        let mut body = Vec::new();
        loop {
            let (kind, flags, stream, payload) = match self.read_frame() {
                Ok(frame) => frame,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => return Ok(End::Closed),
            };
            match kind {
                SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                PING if flags & ACK == 0 => self.stream.write_all(&frame(PING, ACK, 0, &payload))?,
                GOAWAY if payload[4..8] != [0; 4] => return Ok(End::Closed),
                RST_STREAM if stream == sought => return Ok(End::Reset),
                DATA | HEADERS | CONTINUATION if stream == sought => {
                    if kind == DATA {
                        body.extend(payload);
                    }
                    if kind != CONTINUATION && flags & END_STREAM != 0 {
                        return Ok(End::Answered(String::from_utf8_lossy(&body).into_owned()));
                    }
                }
                _ => {}
            }
        }
    }

    fn send(&mut self, stream: u32, case: &Http2Case) -> io::Result<()> {
        let more = case.body.is_some() || !case.trailers.is_empty();
        let end = if more { 0 } else { END_STREAM };
        let mut bytes = frame(HEADERS, END_HEADERS | end, stream, &block(&case.fields));
        if let Some(body) = &case.body {
            let end = if case.trailers.is_empty() { END_STREAM } else { 0 };
            bytes.extend(frame(DATA, end, stream, body));
        }
        if !case.trailers.is_empty() {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&case.trailers)));
        }
        self.stream.write_all(&bytes)
    }
}

/// Sends a case, and a sound request after it; says what is wrong with what comes back.
pub fn attempt(to: SocketAddr, case: &Http2Case, number: usize) -> Result<(), String> {
    let mut connection = Connection::open(to).map_err(|error| error.to_string())?;
    let said = |error: io::Error| format!("nothing came of it: {error}");
    // The connection may end while it is sent: then nothing is expected of it.
    let _ = connection.send(1, case);
    let end = connection.end_of(1).map_err(said)?;
    match (&end, &case.served) {
        (End::Answered(body), Some(_)) if body.starts_with("seen ") => {}
        (End::Answered(_) | End::Reset, Some(_)) if case.or_refused.is_some() => {}
        (End::Closed, Some(_)) if case.or_refused.is_some() => return Ok(()),
        (_, Some(_)) => return Err(format!("it was not served: {end:?}")),
        (End::Answered(body), None) if body.starts_with("seen ") => {
            return Err(format!("it was served: {body}"));
        }
        (End::Closed, None) => return Ok(()),
        (_, None) => {}
    }
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let after = format!("/after-{number}");
    let sound = Http2Case {
        name: String::new(),
        fields: vec![
            field(":method", "GET"),
            field(":scheme", "http"),
            field(":authority", "a.example"),
            field(":path", &after),
        ],
        body: None,
        trailers: Vec::new(),
        served: None,
        or_refused: None,
    };
    let _ = connection.send(3, &sound);
    match connection.end_of(3).map_err(said)? {
        End::Answered(body) if body == format!("seen GET {after}") => Ok(()),
        End::Closed => Ok(()),
        other => Err(format!("what followed came to {other:?}")),
    }
}
