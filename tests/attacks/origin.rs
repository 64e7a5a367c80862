//! An origin that reads requests as strictly as RFC 9112 allows, writes down every byte, and says in each answer what it
//! is the answer to.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// Its head to the empty line, byte by byte.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}

/// What arrived.
#[derive(Default)]
struct Log {
    requests: Vec<Seen>,
    /// Bytes that were no request by the letter of the RFC.
    violations: Vec<String>,
}

/// The origin. Its threads end with the connections.
pub struct Origin {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

impl Origin {
    pub fn start() -> Origin {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let log = Arc::<Mutex<Log>>::default();
        let kept = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let log = kept.clone();
                thread::spawn(move || serve(stream, &log));
            }
        });
        Origin { address, log }
    }

    /// All requests so far but probes, and all violations.
    pub fn seen(&self) -> (Vec<Seen>, Vec<String>) {
        let log = self.log.lock().unwrap();
        (log.requests.clone(), log.violations.clone())
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Log>) {
    let mut buffer = Vec::new();
    loop {
        match read(&mut stream, &mut buffer) {
            Ok(Some(seen)) => {
                let said = format!("seen {} {}", seen.method, seen.target);
                let probe = seen.target == "/health";
                // Answers to HEAD have no body.
                let body = if seen.method == "HEAD" { "" } else { &said };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nx-seen: {}\r\ncontent-length: {}\r\n\r\n{body}",
                    said.escape_default(),
                    said.len()
                );
                if !probe {
                    log.lock().unwrap().requests.push(seen);
                }
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(violation) => return log.lock().unwrap().violations.push(violation),
        }
    }
}

/// The next request; `None` when the connection ends, be it between requests or within one: a client may always leave.
fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Seen>, String> {
    let Some(end) = fill(stream, buffer, |bytes| find(bytes, b"\r\n\r\n").map(|at| at + 4)) else {
        return Ok(None);
    };
    let head: Vec<u8> = buffer.drain(..end).collect();
    let (method, target, headers) = parse(&head)?;
    let values = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    };
    let body = match (&*values("transfer-encoding"), &*values("content-length")) {
        ([], []) => Some(Vec::new()),
        ([], [length]) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| format!("content-length: {length}"))?;
            fill(stream, buffer, |bytes| (bytes.len() >= length).then_some(length))
                .map(|length| buffer.drain(..length).collect())
        }
        (["chunked"], []) => chunks(stream, buffer)?,
        (te, cl) => return Err(format!("transfer-encoding {te:?} with content-length {cl:?}")),
    };
    Ok(body.map(|body| Seen { method, target, head, body }))
}

type Head = (String, String, Vec<(String, String)>);

fn parse(head: &[u8]) -> Result<Head, String> {
    let bad = |what: &str| format!("{what}: {}", head.escape_ascii());
    let text = head.strip_suffix(b"\r\n\r\n").unwrap_or(head);
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))) {
        return Err(bad("a control character"));
    }
    let first = String::from_utf8_lossy(lines[0]).into_owned();
    let [method, target, version] = first.split(' ').collect::<Vec<_>>()[..] else {
        return Err(bad("not three words"));
    };
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    if !token(method) || target.is_empty() || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(bad("a request line"));
    }
    let mut headers = Vec::new();
    for line in &lines[1..] {
        let line = String::from_utf8_lossy(line).into_owned();
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a line without colon"))?;
        if !token(name) {
            return Err(bad("the name of a header"));
        }
        headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let hosts = headers.iter().filter(|(name, _)| name == "host").count();
    if version == "HTTP/1.1" && hosts != 1 {
        return Err(bad("not one Host"));
    }
    Ok((method.to_owned(), target.to_owned(), headers))
}

/// A body in chunks; `None` when the connection ends within.
fn chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    loop {
        let Some(end) = fill(stream, buffer, |bytes| find(bytes, b"\r\n")) else { return Ok(None) };
        let line: Vec<u8> = buffer.drain(..end + 2).take(end).collect();
        let bad = |what: &str| format!("{what}: {}", line.escape_ascii());
        let size = String::from_utf8_lossy(&line).into_owned();
        if size.is_empty() || size.len() > 8 || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("the size of a chunk"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|_| bad("the size of a chunk"))?;
        if size == 0 {
            // Trailers would be lines here; a proxy that strips them sends none.
            return match fill(stream, buffer, |bytes| (bytes.len() >= 2).then_some(2)) {
                Some(_) if buffer.starts_with(b"\r\n") => {
                    buffer.drain(..2);
                    Ok(Some(body))
                }
                Some(_) => Err(format!("after the last chunk: {}", buffer.escape_ascii())),
                None => Ok(None),
            };
        }
        let Some(_) = fill(stream, buffer, |bytes| (bytes.len() >= size + 2).then_some(0)) else {
            return Ok(None);
        };
        body.extend(buffer.drain(..size));
        if !buffer.starts_with(b"\r\n") {
            return Err(format!("after a chunk: {}", buffer.escape_ascii()));
        }
        buffer.drain(..2);
    }
}

/// Reads until `enough` finds what it looks for; `None` when the connection ends before.
fn fill(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    enough: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    loop {
        if let Some(found) = enough(buffer) {
            return Some(found);
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(read) => buffer.extend(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

pub fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}
