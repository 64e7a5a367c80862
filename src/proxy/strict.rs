//! What a head must be like to be forwarded: such that no two readers of it find different requests.
//!
//! Pingora and the parser under it repair what they can read in some way: lines that end with LF alone, several lengths, a
//! length beside chunks, codings that nobody undoes, a missing Host. RFC 9112 allows to refuse all of these, and whoever sends them
//! is broken or has something in mind. `tests/attacks.rs` shows what else is refused, and where.

use http::{HeaderMap, Method, Version};
use memchr::memchr;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

/// Whether the head of a request leaves no doubt about what it says.
pub(super) fn is_sound(session: &Session) -> bool {
    let head = session.req_header();
    if head.method == Method::CONNECT || head.method.as_str() == "PRI" {
        return false;
    }
    match session.as_downstream().as_http1() {
        Some(http1) => lines_are_sound(&http1.get_headers_raw_bytes(), head),
        None => {
            target_is_sound(head.raw_path(), &head.method)
                && head.uri.authority().is_none_or(|authority| is_host(authority.as_str().as_bytes()))
                && fields_are_sound(&head.headers)
        }
    }
}

/// Whether all fields of an HTTP/2 head are sound. Its frames say where a request ends; a backend over HTTP/1.1 goes by the fields.
fn fields_are_sound(fields: &HeaderMap) -> bool {
    let mut framing = Framing::default();
    let mut all = fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    all.all(|(name, value)| is_trimmed(value) && framing.count(name, value))
        && framing.lengths + framing.codings <= 1
}

/// Whether a value is without blanks at its ends, as RFC 9113 (8.2.1) wants it. Over HTTP/1.1 they are no part of a value.
fn is_trimmed(value: &[u8]) -> bool {
    !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// Headers that say where a request ends and whom it is for: found once, or not at all.
#[derive(Default)]
struct Framing {
    hosts: u32,
    lengths: u32,
    codings: u32,
}

/// Whether all lines of an HTTP/1 head are sound, up to the empty one.
fn lines_are_sound(raw: &[u8], head: &RequestHeader) -> bool {
    let mut framing = Framing::default();
    let mut rest = raw.trim_ascii_start();
    let mut is_first = true;
    while let Some(at) = memchr(b'\n', rest) {
        let Some(line) = rest[..at].strip_suffix(b"\r") else { return false };
        rest = &rest[at + 1..];
        let is_sound = match is_first {
            true => target_of(line).is_some_and(|target| target_is_sound(target, &head.method)),
            false => line.is_empty() || framing.take(line),
        };
        if !is_sound {
            return false;
        }
        is_first = false;
    }
    let one_host = framing.hosts == 1 || (framing.hosts == 0 && head.version == Version::HTTP_10);
    one_host && framing.lengths + framing.codings <= 1
}

impl Framing {
    /// Counts a header; says whether its value can be read in one way only.
    fn take(&mut self, line: &[u8]) -> bool {
        let Some(colon) = memchr(b':', line) else { return false };
        self.count(&line[..colon], line[colon + 1..].trim_ascii())
    }

    /// The same, of a name and a value.
    fn count(&mut self, name: &[u8], value: &[u8]) -> bool {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                is_host(value)
            }
            14 if is_name(name, b"content-length") => {
                self.lengths += 1;
                // Up to 10^18 - 1: everybody can count that far.
                (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit) && name[7] == b'-'
            }
            17 if is_name(name, b"transfer-encoding") => {
                self.codings += 1;
                value.eq_ignore_ascii_case(b"chunked") && name[8] == b'-'
            }
            _ => true,
        }
    }
}

/// Whether it is this name, also for those who take `_` for `-`, as everything behind CGI does.
fn is_name(found: &[u8], name: &[u8]) -> bool {
    found
        .iter()
        .zip(name)
        .all(|(found, byte)| found.to_ascii_lowercase() == *byte || (*byte == b'-' && *found == b'_'))
}

/// The target in a request line.
fn target_of(line: &[u8]) -> Option<&[u8]> {
    let begin = memchr(b' ', line)? + 1;
    let end = memchr::memrchr(b' ', line)?;
    line.get(begin..end)
}

/// Whether a target is a path, `*` for OPTIONS, or a URL of HTTP, without a fragment.
fn target_is_sound(target: &[u8], method: &Method) -> bool {
    let is_of_http =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let form = match target {
        [b'/', ..] => true,
        b"*" => *method == Method::OPTIONS,
        _ => is_of_http(b"http://") || is_of_http(b"https://"),
    };
    form && target.iter().all(|byte| !matches!(byte, 0..=b' ' | b'#' | 0x7f))
}

/// Whether it is the name or address of a host, with a port or without (RFC 3986, 3.2.2; less what no host is called). Empty
/// is what RFC 9112 wants where there is none.
fn is_host(value: &[u8]) -> bool {
    let (host_is_sound, rest) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr(b']', rest) else { return false };
            let address = &rest[..end];
            (
                address.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')),
                &rest[end + 1..],
            )
        }
        _ => {
            let (name, port) = value.split_at(memchr(b':', value).unwrap_or(value.len()));
            let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'*+;=".contains(byte);
            (name.iter().all(of_name), port)
        }
    };
    let port_is_sound = match rest {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_is_sound && port_is_sound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(raw: &str) -> bool {
        let method = raw.split(' ').next().unwrap();
        let mut head = RequestHeader::build(method, b"/", None).unwrap();
        head.set_version(if raw.contains("HTTP/1.0") { Version::HTTP_10 } else { Version::HTTP_11 });
        lines_are_sound(raw.as_bytes(), &head)
    }

    #[test]
    fn a_head_has_one_reading() {
        for more in [
            "",
            "Content-Length: 3\r\n",
            "transfer-encoding: Chunked \r\n",
            "X: content-length: 4\r\n",
            "X:\r\n",
        ] {
            assert!(sound(&format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{more}\r\n")), "{more}");
        }
        for more in [
            "Content-Length: 3\r\ncontent-length: 3\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length:\r\n",
            "Content_Length: 3\r\n",
            "Transfer_Encoding: chunked\r\n",
            "Host: a\r\n",
            "X: y\nZ: w\r\n",
            "X\r\n",
        ] {
            assert!(!sound(&format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{more}\r\n")), "{more}");
        }
        assert!(!sound("GET / HTTP/1.1\r\n\r\n"));
        let fields = |pairs: &[(&'static str, &'static str)]| {
            let mut fields = HeaderMap::new();
            for (name, value) in pairs {
                fields.append(*name, http::HeaderValue::from_static(value));
            }
            fields_are_sound(&fields)
        };
        assert!(fields(&[("content-length", "3"), ("cookie", "a"), ("cookie", "b"), ("host", "a")]));
        assert!(!fields(&[("content-length", "0"), ("content-length", "0")]));
        assert!(!fields(&[("content-length", "3"), ("content_length", "4")]));
        assert!(!fields(&[("transfer_encoding", "chunked")]));
        assert!(!fields(&[("x", "y ")]));
        assert!(sound("GET / HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn values_have_no_blanks_at_their_ends() {
        assert!(["", "a", "a b", "a\tb", "\u{a0}"].into_iter().all(|value| is_trimmed(value.as_bytes())));
        assert!(![" ", "\t", " a", "a ", "\ta", "a\t"].into_iter().any(|value| is_trimmed(value.as_bytes())));
    }

    #[test]
    fn targets_are_paths_and_urls_of_http() {
        let get = |target: &str| target_is_sound(target.as_bytes(), &Method::GET);
        assert!(["/", "/a?b=/c", "//a", "/\u{e9}", "http://a/b", "HTTPS://a"].into_iter().all(get));
        assert!(
            !["", "*", "a", "?a", "/a#b", "/a b", "/a\t", "ftp://a/", "a:80", "/\u{7f}"].into_iter().any(get)
        );
        assert!(target_is_sound(b"*", &Method::OPTIONS));
    }

    #[test]
    fn hosts_are_names_and_addresses() {
        let host = |value: &str| is_host(value.as_bytes());
        assert!(
            ["", "a", "a.b:80", "127.0.0.1", "[::1]", "[::1]:8080", "xn--4ca.example:"].into_iter().all(host)
        );
        let bad = [
            "a b", "a,b", "a/b", "u@a", "a:x", "a:1:2", "[::1", "[::1]x", "[g]", "a?b", "a#b", "\"a\"",
            "a\\b", "a:123456",
        ];
        assert!(!bad.into_iter().any(host));
    }
}
