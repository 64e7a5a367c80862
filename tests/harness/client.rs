//! A plain HTTP/1.1 client that sees what is on the wire: every chunk, and whether an answer ended as complete.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::DEADLINE;

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The first header of this name.
pub fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Chunked,
    /// Bytes left.
    Length(u64),
    UntilClose,
    Ended,
}

/// The next piece of a body; `None` at its end. A connection that ends first is an error: the body is not complete.
pub fn piece(reader: &mut impl BufRead, framing: &mut Framing) -> io::Result<Option<Vec<u8>>> {
    let read = match framing {
        Framing::Ended => None,
        Framing::Length(0) => None,
        Framing::Length(left) => {
            let available = reader.fill_buf()?;
            if available.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{left} bytes short")));
            }
            let part =
                available[..available.len().min(usize::try_from(*left).unwrap_or(usize::MAX))].to_vec();
            reader.consume(part.len());
            *left -= part.len() as u64;
            Some(part)
        }
        Framing::UntilClose => {
            let part = reader.fill_buf()?.to_vec();
            reader.consume(part.len());
            (!part.is_empty()).then_some(part)
        }
        Framing::Chunked => {
            let size = line(reader)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| io::Error::other(format!("not the size of a chunk: {size:?}")))?;
            let mut part = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            reader.read_exact(&mut part)?;
            while !line(reader)?.is_empty() {}
            (size > 0).then_some(part)
        }
    };
    if read.is_none() {
        *framing = Framing::Ended;
    }
    Ok(read)
}

/// A line without its end.
pub fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(64 << 10).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(text) => Ok(text.trim_end_matches('\r').to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a line")),
    }
}

/// The headers up to the empty line.
pub fn headers(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let text = line(reader)?;
        if text.is_empty() {
            return Ok(headers);
        }
        let (name, value) =
            text.split_once(':').ok_or_else(|| io::Error::other(format!("not a header: {text:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// How the body after these headers ends, if there is one.
pub fn framing(headers: &[(String, String)]) -> Option<Framing> {
    if find(headers, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        return Some(Framing::Chunked);
    }
    find(headers, "content-length").and_then(|value| value.parse().ok()).map(Framing::Length)
}

/// A connection with a request on it.
pub struct Exchange {
    stream: BufReader<TcpStream>,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    framing: Framing,
}

impl Exchange {
    /// Sends a request as a whole and waits for the head of the answer.
    pub fn begin(
        to: SocketAddr,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Exchange> {
        let mut stream = connect(to)?;
        send(&mut stream, to, method, path, headers, body)?;
        Exchange::read_head(BufReader::new(stream), method)
    }

    /// Reads the head of an answer.
    pub fn read_head(mut stream: BufReader<TcpStream>, method: &str) -> io::Result<Exchange> {
        loop {
            let first = line(&mut stream)?;
            let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
            let status: u16 =
                status.ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
            let headers = headers(&mut stream)?;
            if (100..200).contains(&status) {
                continue;
            }
            let bodiless = method == "HEAD" || matches!(status, 204 | 304);
            let framing =
                if bodiless { Framing::Ended } else { framing(&headers).unwrap_or(Framing::UntilClose) };
            return Ok(Exchange { stream, status, headers, framing });
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The connection, for the next request.
    pub fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }

    /// The next piece of the body as it came (a chunk, where it is chunked); `None` at its end.
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        piece(&mut self.stream, &mut self.framing)
    }

    /// The rest of the body.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(part) = self.piece()? {
            body.extend(part);
        }
        Ok(body)
    }
}

/// A connection on which nothing waits longer than the deadline.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, DEADLINE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn send(
    stream: &mut TcpStream,
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("host: {to}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)
}

/// One request at a time over a connection that is kept while the server keeps it.
pub struct Client {
    to: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(to: SocketAddr) -> Client {
        Client { to, stream: None }
    }

    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.request("POST", path, &[], body)
    }

    /// A request and its complete answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(connect(self.to)?),
        };
        send(stream.get_mut(), self.to, method, path, headers, body)?;
        let mut exchange = Exchange::read_head(stream, method)?;
        let until_close = exchange.framing == Framing::UntilClose;
        let body = exchange.rest()?;
        let Exchange { stream, status, headers, .. } = exchange;
        let closes = find(&headers, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes && !until_close {
            self.stream = Some(stream);
        }
        Ok(Answer { status, headers, body })
    }
}
