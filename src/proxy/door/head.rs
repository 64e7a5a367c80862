//! Where the head of an HTTP/1.1 request ends, and whether it may be as it is. Pingora reads heads too, but waits for each piece
//! for as long as for the first, and bounds them at a megabyte.

/// How far a head was looked through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Up to where; the byte before is the last line feed found, if one was.
    at: usize,
    lines: usize,
}

/// What is known of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It ends at this byte, and has so many headers.
    End { len: usize, headers: usize },
    /// More of it is to come.
    Part,
}

/// Bytes of empty lines before a request, which are none of it (RFC 9112, 2.2).
pub(super) fn blank(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] = rest {
        rest = after;
    }
    bytes.len() - rest.len()
}

impl Scan {
    /// Whether no line has come yet.
    pub(super) fn is_at_start(&self) -> bool {
        self.at == 0
    }

    /// Looks through what came since the last time. `bytes` do not begin with an empty line.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Found {
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.at..]) {
            let after = self.at + offset + 1;
            // Lines may end in a line feed alone: so does Pingora read them.
            let end = match bytes[after..] {
                [b'\n', ..] => Some(after + 1),
                [b'\r', b'\n', ..] => Some(after + 2),
                // This line feed is looked at again.
                [] | [b'\r'] => return Found::Part,
                _ => None,
            };
            if let Some(len) = end {
                // The first line is the request's own.
                return Found::End { len, headers: self.lines };
            }
            self.at = after;
            self.lines += 1;
        }
        Found::Part
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Found {
        Scan::default().look(text.as_bytes())
    }

    #[test]
    fn the_end_is_an_empty_line_however_lines_end() {
        for (text, headers) in [
            ("GET / HTTP/1.1\r\n\r\n", 0),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 1),
            ("GET / HTTP/1.1\nhost: a\n\n", 1),
            ("GET / HTTP/1.1\r\nhost: a\nb: c\r\nd: e\n\r\n", 3),
        ] {
            let expected = Found::End { len: text.len(), headers };
            assert_eq!(whole(text), expected, "{text:?}");
            assert_eq!(whole(&format!("{text}\r\n\r\nbody")), expected, "{text:?}");
            assert_eq!(whole(&text[..text.len() - 1]), Found::Part, "{text:?}");
        }
        assert_eq!(whole("GET / HTTP/1.1\r\r\n\r"), Found::Part);
        assert_eq!([&b"\r\n\n\r\nGET"[..], b"\r\n\r", b"\rGET", b""].map(blank), [5, 2, 0, 0]);
    }

    proptest! {
        #[test]
        fn it_is_the_same_in_pieces(text in "[a\r\n]{0,40}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut scan = Scan::default();
            let early = cuts.iter().map(|cut| scan.look(&text.as_bytes()[..*cut])).find(|found| *found != Found::Part);
            let found = early.unwrap_or_else(|| scan.look(text.as_bytes()));
            prop_assert_eq!(found, whole(&text));
        }

        /// What Pingora's parser takes for a whole head is one here, of the same length.
        #[test]
        fn the_parser_behind_it_sees_the_same_end(text in "(a: b\r?\n){0,4}\r?\nx?") {
            let text = format!("GET / HTTP/1.1\r\n{text}");
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut headers);
            let expected = match request.parse(text.as_bytes()).unwrap() {
                httparse::Status::Complete(len) => Found::End { len, headers: request.headers.len() },
                httparse::Status::Partial => Found::Part,
            };
            prop_assert_eq!(whole(&text), expected);
        }
    }
}
