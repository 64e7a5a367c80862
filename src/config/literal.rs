//! Places inside a string of TOML: what is found at an offset of its value is shown where it is written in the file.

/// Byte offset within `written`, a string with its quotes as it is in the file, of the byte at `offset` of its value. At most
/// the end of the text between the quotes.
pub(super) fn place(written: &str, offset: usize) -> usize {
    let quote =
        ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| written.starts_with(quote)).unwrap_or("");
    let escapes = quote.starts_with('"');
    let end = written.len().saturating_sub(quote.len());
    let mut at = quote.len().min(end);
    if quote.len() == 3 {
        // A line end right after the opening quotes is not part of the value.
        let rest = &written[at..];
        at += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
    }
    let mut value_len = 0;
    while at < end {
        let (step, len) = piece(&written[at..end], escapes);
        if len > 0 && value_len + len > offset {
            break;
        }
        at += step;
        value_len += len;
    }
    at
}

/// Bytes of the first piece of what is written, and of what it stands for.
fn piece(rest: &str, escapes: bool) -> (usize, usize) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    let Some(escaped) = rest.strip_prefix('\\').filter(|_| escapes) else { return (first, first) };
    let digits = match escaped.chars().next() {
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        Some(letter) if letter.is_whitespace() => {
            // The line goes on at the next letter.
            let skipped = escaped.len() - escaped.trim_start().len();
            return (1 + skipped, 0);
        }
        _ => return (2.min(rest.len()), 1),
    };
    let code = escaped.get(1..1 + digits).and_then(|code| u32::from_str_radix(code, 16).ok());
    let len = code.and_then(char::from_u32).map_or(1, char::len_utf8);
    ((2 + digits).min(rest.len()), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_where_it_is_written() {
        // The letter `X` of each value, and what stands there in the file.
        for (written, value) in [
            (r#""ab X""#, "ab X"),
            ("'ab X'", "ab X"),
            ("'''\nab X'''", "ab X"),
            ("\"\"\"\r\nab\nX\"\"\"", "ab\nX"),
            (r#""a\"b\u00fc\U0001F600 \x41X""#, "a\"bü😀 AX"),
            ("\"\"\"a \\\n    b X\"\"\"", "a b X"),
            ("'a\\nX'", "a\\nX"),
        ] {
            let parsed: toml::Table = format!("v = {written}").parse().unwrap();
            assert_eq!(parsed["v"].as_str(), Some(value));
            let at = place(written, value.find('X').unwrap());
            assert_eq!(&written[at..=at], "X", "{written}");
        }
    }

    #[test]
    fn no_place_is_outside() {
        for written in ["", "\"", "''", "\"a\"", "\"\\", "\"\"\"", "\"\\u00\""] {
            for offset in [0, 1, 5, usize::MAX / 2] {
                assert!(place(written, offset) <= written.len(), "{written} {offset}");
            }
        }
    }
}
